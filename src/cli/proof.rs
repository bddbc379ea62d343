//! The proof that a backup restores: a real restore into a scratch server, compared, thrown away, and what was found written
//! down. For whoever asks (`planb verify --restore-to`), and for the agent as a matter of routine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::open;
use crate::backup::archive::Archive;
use crate::backup::entry::Entry;
use crate::backup::ledger::{self, LedgerError};
use crate::backup::proof::Level;
use crate::backup::verify;
use crate::config::Config;
use crate::mysql::Address;
use crate::restore::RestoreError;
use crate::restore::compare::{self, Comparison};
use crate::restore::ledger::Phase;
use crate::restore::load::Progress;
use crate::restore::plan::Plan;
use crate::restore::run::{Observer, Restore, Restored};

/// A trial that was stopped is taken off the scratch server within this time, or by the next restore there.
const DISCARD_WITHIN: Duration = Duration::from_secs(8);

/// A restore that was compared, and is gone again.
pub struct Trial {
    pub restored: Restored,
    pub compared: Comparison,
}

/// Restores, compares, discards.
///
/// # Errors
/// [`RestoreError`]; a difference is none.
pub async fn trial(
    archive: Archive,
    backup: &str,
    address: &Address,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Trial, RestoreError> {
    let restore = Restore {
        archive,
        backup: backup.to_owned(),
        address: address.clone(),
        definers: BTreeMap::new(),
        accounts: Vec::new(),
        sessions,
        start_over: false,
        replace: false,
        trial: true,
        tune: false,
        instead_of: BTreeSet::new(),
    };
    let progress = Arc::new(Progress::default());
    let work = async {
        let restored = restore.run(&progress, &Quiet, cancel).await?;
        let compared = compare::trial(&restore.address, &restore.archive, sessions, cancel).await;
        Ok((
            restored,
            compared.map_err(|error| RestoreError::Begun(Box::new(error)))?,
        ))
    };
    match work.await {
        Ok((restored, compared)) => {
            // Whoever stops now still sees it to its end.
            restore.discard(&CancellationToken::new()).await?;
            Ok(Trial { restored, compared })
        }
        Err(error) => {
            if let RestoreError::Begun(_) = error {
                let discarded = tokio::time::timeout(DISCARD_WITHIN, restore.discard(&CancellationToken::new())).await;
                if !matches!(discarded, Ok(Ok(()))) {
                    tracing::warn!("what the trial left on the scratch server goes with the next restore there");
                }
            }
            Err(error)
        }
    }
}

/// What came of a proof.
pub struct Proof {
    pub done: Result<Trial, RestoreError>,
    /// Whether what was found could be written down; none where nothing was found out about the backup.
    pub noted: Option<Result<(), LedgerError>>,
}

/// Proves a backup of the store, and writes down what was found.
pub async fn prove(
    config: &Config,
    stores: &open::Stores,
    entry: &Entry,
    address: &Address,
    sessions: usize,
    cancel: &CancellationToken,
) -> Proof {
    let begun = Instant::now();
    let opened = verify::open(&stores.backups, entry).await.map_err(RestoreError::from);
    let done = match opened {
        Ok(archive) => trial(archive, entry.id.as_str(), address, sessions, cancel).await,
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
    let Some(level) = level else {
        return Proof { done, noted: None };
    };
    let noted = ledger::found(
        stores.backups.as_ref(),
        stores.control.as_ref(),
        &config.store.prefix,
        entry,
        (level, open::by(config), begun.elapsed()),
    );
    let noted = Some(noted.await);
    Proof { done, noted }
}

/// Nobody watches a trial.
struct Quiet;

impl Observer for Quiet {
    fn planned(&self, _plan: &Plan, _resumed: bool) {}
    fn entered(&self, _phase: Phase) {}
}
