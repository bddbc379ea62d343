//! Proofs in the control store, `proofs/KEY/ID.json`: read for a listing, written after a look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use super::claim;
use super::entry::{BackupId, Entry};
use super::proof::{self, By, Finding, Level, Record};
use crate::store::{BlobStore, Condition, ETag, Properties, StoreError};

/// Records read at once: there is one for each backup, and a store far away takes its time for each.
const AT_ONCE: usize = 16;
/// A record holds a handful of findings; what claims to be larger is none.
const LARGEST_BYTES: u64 = 64 << 10;
/// A record outlives its backup by this long: long enough for a listing that is not quite new.
const KEPT_AFTER: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How often a record that others write too is read again.
const TRIES: u32 = 5;

/// Records already read, by version: an agent that lists every few minutes reads only what is new.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: Mutex<BTreeMap<BackupId, (ETag, Record)>>,
}

impl Ledger {
    /// Puts every proof of `prefix`'s backups into a listing of them. A record that makes no sense is told and
    /// passed over: it proves nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn join(&self, control: &dyn BlobStore, prefix: &str, entries: &mut [Entry]) -> Result<(), StoreError> {
        let folder = folder(prefix);
        let wanted: BTreeSet<&BackupId> = entries.iter().map(|entry| &entry.id).collect();
        let listed: Vec<(BackupId, Properties)> = control
            .list(&folder)
            .await?
            .into_iter()
            .filter_map(|blob| {
                let id = BackupId::parse(blob.name.strip_prefix(&folder)?.strip_suffix(".json")?)?;
                wanted.contains(&id).then_some((id, blob))
            })
            .collect();
        let known = self.seen().clone();
        let (same, new): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .partition(|(id, blob)| known.get(id).is_some_and(|(etag, _)| *etag == blob.etag));
        let mut records: BTreeMap<BackupId, (ETag, Record)> = same
            .into_iter()
            .filter_map(|(id, _)| known.get(&id).cloned().map(|record| (id, record)))
            .collect();
        let read: Vec<_> = stream::iter(new)
            .map(|(id, blob)| async move {
                match read(control, &blob.name).await {
                    Ok(record) => Ok(record.map(|record| (id, record))),
                    Err(LedgerError::Unreadable(name)) => {
                        tracing::warn!(name, "not a proof that this planb can read; passed over");
                        Ok(None)
                    }
                    Err(LedgerError::Store(error)) => Err(error),
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        records.extend(read.into_iter().flatten());
        let plain = records
            .iter()
            .map(|(id, (_, record))| (id.clone(), record.clone()))
            .collect();
        proof::join(entries, &plain);
        // What is no longer listed is forgotten, so this never outgrows the listing.
        *self.seen() = records;
        Ok(())
    }

    /// What restoring and comparing took, by the SQL's size, of those backups of the last [`join`](Self::join) that were restored.
    pub fn restored(&self, entries: &[Entry]) -> Vec<(u64, f64)> {
        let seen = self.seen();
        let took = |entry: &Entry| {
            let (_, record) = seen
                .get(&entry.id)
                .filter(|(_, record)| record.digest == entry.digest)?;
            let proof = record
                .findings
                .iter()
                .find(|finding| matches!(finding.level, Level::Restored { .. }))?;
            Some((entry.raw_bytes, proof.seconds))
        };
        entries.iter().filter_map(took).collect()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<BackupId, (ETag, Record)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes down what was found out about `id` with this digest, beside what others found.
///
/// # Errors
/// [`LedgerError`].
pub async fn note(
    control: &dyn BlobStore,
    prefix: &str,
    id: &BackupId,
    digest: &str,
    finding: &Finding,
) -> Result<(), LedgerError> {
    let name = format!("{}{id}.json", folder(prefix));
    let mut last = None;
    for _ in 0..TRIES {
        let there = read(control, &name).await?;
        let (condition, earlier) = match there {
            // Written already, and only the answer was lost.
            Some((_, record)) if record.digest == digest && record.findings.contains(finding) => return Ok(()),
            Some((etag, record)) => (Condition::Matches(etag), Some(record)),
            None => (Condition::Absent, None),
        };
        let record = Record::with(earlier, id, digest, finding.clone());
        // Plain structs of strings, numbers and times always encode.
        let bytes = Bytes::from(serde_json::to_vec(&record).unwrap_or_default());
        match control.put(&name, bytes, condition).await {
            Ok(_) => return Ok(()),
            Err(error @ (StoreError::AlreadyExists { .. } | StoreError::Changed { .. })) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or(LedgerError::Unreadable(name), LedgerError::Store))
}

/// Writes down what a look at this backup, which took so long, came to.
///
/// # Errors
/// [`LedgerError`].
pub async fn found(
    backups: &dyn BlobStore,
    control: &dyn BlobStore,
    prefix: &str,
    entry: &Entry,
    (level, by, took): (Level, By, Duration),
) -> Result<(), LedgerError> {
    let finding = Finding {
        level,
        blob: entry.blob.clone(),
        at: backups.now().await?,
        by,
        seconds: took.as_secs_f64(),
        rows: entry.rows,
    };
    note(control, prefix, &entry.id, &entry.digest, &finding).await
}

/// Removes records of backups that are gone, a while after they were written, and says how many: an agent writes one
/// every few minutes for as long as it lives.
///
/// # Errors
/// The store's; what was removed by then stays removed.
pub async fn sweep(
    control: &dyn BlobStore,
    prefix: &str,
    entries: &[Entry],
    now: Timestamp,
) -> Result<usize, StoreError> {
    let folder = folder(prefix);
    let there: BTreeSet<&BackupId> = entries.iter().map(|entry| &entry.id).collect();
    let is_stale = |blob: &Properties| {
        let id = blob
            .name
            .strip_prefix(&folder)
            .and_then(|name| name.strip_suffix(".json"));
        let gone = id.and_then(BackupId::parse).is_some_and(|id| !there.contains(&id));
        gone && now.duration_since(blob.last_modified) > KEPT_AFTER
    };
    let mut removed = 0;
    for blob in control.list(&folder).await?.iter().filter(|blob| is_stale(blob)) {
        match control.delete(&blob.name, &blob.etag).await {
            Ok(()) => removed += 1,
            // Somebody else is at it.
            Err(StoreError::NotFound { .. } | StoreError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Why a proof could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LedgerError {
    #[error("{0} is not a proof that this planb can read: a newer planb wrote it, or a person must look at it")]
    Unreadable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LedgerError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreadable(_) => true,
            Self::Store(error) => error.is_permanent(),
        }
    }
}

fn folder(prefix: &str) -> String {
    format!("proofs/{}/", claim::key(prefix))
}

/// One version of one record; `None` if there is none.
async fn read(control: &dyn BlobStore, name: &str) -> Result<Option<(ETag, Record)>, LedgerError> {
    let mut last = None;
    for _ in 0..TRIES {
        let Some(blob) = control.properties(name).await? else {
            return Ok(None);
        };
        if blob.size_bytes > LARGEST_BYTES {
            return Err(LedgerError::Unreadable(name.to_owned()));
        }
        match control.read(name, 0..blob.size_bytes, Some(&blob.etag)).await {
            Ok(bytes) => {
                return match serde_json::from_slice::<Record>(&bytes) {
                    Ok(record) if record.is_known() => Ok(Some((blob.etag, record))),
                    Ok(_) | Err(_) => Err(LedgerError::Unreadable(name.to_owned())),
                };
            }
            // Somebody wrote meanwhile.
            Err(error @ (StoreError::Changed { .. } | StoreError::NotFound { .. })) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or(LedgerError::Unreadable(name.to_owned()), LedgerError::Store))
}
