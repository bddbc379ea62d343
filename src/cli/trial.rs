//! `planb verify --restore-to`: a real restore into a scratch server, compared table by table, and removed again. What it
//! finds is the proof that a backup restores.

use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::proof::{Trial, prove, trial};
use super::target::Target;
use super::verify::Wanted;
use super::{Common, open, present};
use crate::backup::archive::Archive;
use crate::backup::entry::newest_good;
use crate::restore::RestoreError;
use crate::secret::resolver::Resolver;
use crate::store::blob::LocalFile;

/// Sessions that load, and then compare, at once.
const SESSIONS: usize = 4;

pub async fn run(common: &Common, wanted: Wanted, target: &Target) -> Result<(), Failure> {
    if let Wanted::File(path) = wanted {
        // A file needs no configuration, a standby does.
        let config = match target {
            Target::Named { .. } => None,
            Target::Standby => Some(open::config(common)?),
        };
        let resolver = config
            .as_ref()
            .map_or_else(|| Resolver::new(None), Resolver::for_config);
        let address = target.address(config.as_ref(), &resolver).await?;
        let blob = LocalFile::open(&path).await?;
        let archive = Archive::open(Arc::new(blob)).await.map_err(RestoreError::from)?;
        let name = path.display().to_string();
        let cancel = CancellationToken::new();
        let done = interruptible(&cancel, trial(archive, &name, &address, SESSIONS, &cancel)).await?;
        return report(common, &name, &done, None);
    }
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let address = target.address(Some(&config), &Resolver::for_config(&config)).await?;
    let entries = open::listing(&config, &stores).await?;
    let entry = match &wanted {
        Wanted::Id(id) => entries.iter().find(|entry| entry.id == *id),
        Wanted::Newest | Wanted::File(_) => newest_good(&entries),
    };
    let Some(entry) = entry else {
        return Err(Failure::failed(format!(
            "there is no such backup in {}; planb backups lists what there is",
            stores.backups.describe()
        )));
    };
    let cancel = CancellationToken::new();
    let proof = interruptible(&cancel, prove(&config, &stores, entry, &address, SESSIONS, &cancel)).await;
    if let Some(Err(error)) = &proof.noted {
        eprintln!(
            "planb: warning: what was found could not be written down: {}",
            told(error)
        );
    }
    let noted = proof.noted.map(|noted| noted.is_ok());
    report(common, entry.id.as_str(), &proof.done?, noted)
}

/// Carries it to its end, which comes soon once somebody asks.
async fn interruptible<T>(cancel: &CancellationToken, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut interrupted = std::pin::pin!(super::backup::interrupted());
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut interrupted, if !cancel.is_cancelled() => {
                eprintln!("planb: stopping, and taking off the scratch server what is there by now");
                cancel.cancel();
            }
        }
    }
}

fn report(common: &Common, backup: &str, done: &Trial, noted: Option<bool>) -> Result<(), Failure> {
    let Trial { restored, compared } = done;
    let sound = compared.differences.is_empty();
    let message = format!(
        "{backup} was restored, and what came out is not what the backup says: {}",
        compared.differences.join("; ")
    );
    if common.json {
        println!(
            "{}",
            json!({
                "v": 1,
                "id": backup,
                "result": if sound { "restored" } else { "different" },
                "server": compared.server,
                "rows": compared.rows,
                "tables": compared.tables,
                "objects": compared.objects,
                "definitions": if compared.exact { "text" } else { "names" },
                "restore_seconds": restored.duration.as_secs_f64(),
                "compare_seconds": compared.duration.as_secs_f64(),
                "repairs": restored.repairs,
                "differences": compared.differences,
                "proof_written": noted,
                "error": (!sound).then(|| json!({"message": message, "exit": 5})),
            })
        );
        if !sound {
            return Err(Failure::Printed { exit: 5, message });
        }
    } else if sound {
        println!(
            "proven: {backup} was restored to {} in {:.1} s and compared in {:.1} s: {} tables with {} rows ({} of SQL), and {} \
             views, routines, triggers and events",
            compared.server,
            restored.duration.as_secs_f64(),
            compared.duration.as_secs_f64(),
            compared.tables,
            compared.rows,
            present::bytes(restored.raw_bytes),
            compared.objects
        );
        if !compared.exact {
            println!("{}", present::NAMES_ONLY);
        }
        for repair in &restored.repairs {
            println!("changed on the way: {repair}");
        }
    }
    if sound { Ok(()) } else { Err(Failure::Damaged(message)) }
}
