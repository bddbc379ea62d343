//! `planb verify --restore-to`: a real restore into a scratch server, compared table by table, and removed again. What it
//! finds is the proof that a backup restores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::target::Target;
use super::verify::{Wanted, newest_good};
use super::{Common, open, present};
use crate::backup::archive::Archive;
use crate::backup::entry::Entry;
use crate::backup::ledger;
use crate::backup::proof::{Finding, Level};
use crate::backup::verify;
use crate::mysql::Address;
use crate::restore::RestoreError;
use crate::restore::compare::{Comparison, compare};
use crate::restore::ledger::Phase;
use crate::restore::load::Progress;
use crate::restore::plan::Plan;
use crate::restore::run::{Observer, Restore, Restored};
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
        let done = trial(archive, &name, &address).await?;
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
    let begun = Instant::now();
    let opened = verify::open(&stores.backups, entry).await.map_err(RestoreError::from);
    let done = match opened {
        Ok(archive) => trial(archive, entry.id.as_str(), &address).await,
        Err(error) => Err(error),
    };
    let level = match &done {
        Ok(done) if done.compared.differences.is_empty() => Some(Level::Restored {
            server: done.compared.server.clone(),
            tables_compared: done.compared.tables as u64,
            checksums_compared: done.compared.tables as u64,
        }),
        // It may be the server's doing: told, and proof of nothing.
        Ok(_) => None,
        Err(error) if error.is_damage() => Some(Level::Damaged {
            place: error.to_string(),
        }),
        Err(_) => None,
    };
    let mut noted = None;
    if let Some(level) = level {
        let finding = Finding {
            level,
            blob: entry.blob.clone(),
            at: stores.backups.now().await?,
            by: open::by(&config),
            seconds: begun.elapsed().as_secs_f64(),
            rows: entry.rows,
        };
        noted = Some(note(&config.store.prefix, &stores, entry, &finding).await);
    }
    report(common, entry.id.as_str(), &done?, noted)
}

/// Whether what was found could be written down.
async fn note(prefix: &str, stores: &open::Stores, entry: &Entry, finding: &Finding) -> bool {
    match ledger::note(stores.control.as_ref(), prefix, &entry.id, &entry.digest, finding).await {
        Ok(()) => true,
        Err(error) => {
            eprintln!(
                "planb: warning: what was found could not be written down: {}",
                told(&error)
            );
            false
        }
    }
}

/// A restore that was compared, and is gone again.
struct Trial {
    restored: Restored,
    compared: Comparison,
}

async fn trial(archive: Archive, backup: &str, address: &Address) -> Result<Trial, RestoreError> {
    let cancel = CancellationToken::new();
    let restore = Restore {
        archive,
        backup: backup.to_owned(),
        address: address.clone(),
        definers: BTreeMap::new(),
        accounts: Vec::new(),
        sessions: SESSIONS,
        start_over: false,
        replace: false,
        trial: true,
        instead_of: BTreeSet::new(),
    };
    let progress = Arc::new(Progress::default());
    let work = async {
        let restored = restore.run(&progress, &Quiet, &cancel).await?;
        let compared = compare(&restore.address, &restore.archive, SESSIONS, &cancel).await?;
        restore.discard(&cancel).await?;
        Ok(Trial { restored, compared })
    };
    let mut work = std::pin::pin!(work);
    let mut interrupted = std::pin::pin!(super::backup::interrupted());
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut interrupted, if !cancel.is_cancelled() => {
                eprintln!("planb: stopping; what is on the scratch server goes with the next trial there");
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
        for repair in &restored.repairs {
            println!("changed on the way: {repair}");
        }
    }
    if sound { Ok(()) } else { Err(Failure::Damaged(message)) }
}

/// Nobody watches a trial.
struct Quiet;

impl Observer for Quiet {
    fn planned(&self, _plan: &Plan, _resumed: bool) {}
    fn entered(&self, _phase: Phase) {}
}
