//! Verification of a backup's structure, without a database: trailer, index, and every member's length, hash and text.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use tokio::time::Instant;

use super::archive::{Archive, ReadError};
use super::entry::Entry;
use super::ledger::{self, LedgerError};
use super::proof::{By, Finding, Level};
use crate::format::index::{Index, MemberKind};
use crate::store::blob::StoredBlob;
use crate::store::{BlobStore, Metadata, Properties};

/// Members that are fetched and opened at once: enough to hide a store's delay, few enough to stay small.
const AT_ONCE: usize = 4;

/// Told the stored bytes of each member as it is done.
pub type Told<'a> = &'a (dyn Fn(u64) + Send + Sync);

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    pub members: usize,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub rows: u64,
}

/// Checks every member of an opened backup.
///
/// # Errors
/// [`ReadError`]: the first damaged place, or the store's own trouble.
pub async fn structure(archive: &Archive, progress: Told<'_>) -> Result<Looked, ReadError> {
    agrees_with_itself(&archive.index).map_err(ReadError::Damaged)?;
    let members = &archive.index.members;
    let mut looked = Looked::default();
    let mut checks = stream::iter(0..members.len())
        .map(|number| async move { archive.member(number).await.map(drop) })
        .buffered(AT_ONCE);
    while let Some(checked) = checks.next().await {
        checked?;
        let member = &members[looked.members];
        looked.members += 1;
        looked.stored_bytes += member.stored_bytes;
        looked.raw_bytes += member.raw_bytes;
        looked.rows += member.rows;
        progress(member.stored_bytes);
    }
    Ok(looked)
}

/// Whether an index's lines fit together: a line that was dropped, moved or changed shows in the sums, before anything
/// is read by it.
///
/// # Errors
/// What does not fit, in words.
pub fn agrees_with_itself(index: &Index) -> Result<(), &'static str> {
    let kinds = || index.members.iter().map(|member| member.kind);
    if kinds().next() != Some(MemberKind::Schema) || kinds().filter(|kind| *kind == MemberKind::Schema).count() != 1 {
        return Err("its first member, and no other, must be the schema");
    }
    if !kinds().is_sorted() {
        return Err("its members are out of order");
    }
    // In 128 bits: a made-up figure must not overflow a sum.
    let sum =
        |of: fn(&crate::format::MemberRecord) -> u64| index.members.iter().map(|m| u128::from(of(m))).sum::<u128>();
    if sum(|member| member.rows) != u128::from(index.summary.rows) {
        return Err("its members hold another number of rows than it says");
    }
    if sum(|member| member.raw_bytes) != u128::from(index.summary.raw_bytes) {
        return Err("its members hold another number of bytes than it says");
    }
    let mut by_table: BTreeMap<(&str, &str), u128> = BTreeMap::new();
    for member in index.members.iter().filter(|member| member.kind == MemberKind::Data) {
        *by_table.entry((&member.schema, &member.table)).or_default() += u128::from(member.rows);
    }
    for table in &index.summary.tables {
        let rows = by_table.remove(&(table.schema.as_str(), table.table.as_str()));
        if rows.unwrap_or(0) != u128::from(table.rows) {
            return Err("a table's members hold another number of rows than it says");
        }
    }
    if by_table.is_empty() {
        Ok(())
    } else {
        Err("it has members of a table that it does not name")
    }
}

/// How a look at a backup in a store ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Sound(Looked),
    /// What is wrong, and where.
    Damaged(String),
}

/// A look at one backup in a store.
#[derive(Debug, Clone)]
pub struct Look {
    pub verdict: Verdict,
    pub finding: Finding,
    /// Of the backup that was listed.
    pub digest: String,
}

/// Checks the structure of the version of a backup that was listed. `by` goes into the proof.
///
/// # Errors
/// Only what says nothing about the backup: the store's trouble, or a format that this planb does not know.
pub async fn stored(store: Arc<dyn BlobStore>, entry: &Entry, by: By, progress: Told<'_>) -> Result<Look, ReadError> {
    let begun = Instant::now();
    let verdict = match look(&store, entry, progress).await {
        Ok(looked) => Verdict::Sound(looked),
        Err(error) if error.is_damage() => Verdict::Damaged(error.to_string()),
        Err(error) => return Err(error),
    };
    let at: Timestamp = store.now().await?;
    let (level, rows) = match &verdict {
        Verdict::Sound(looked) => (Level::Structure, looked.rows),
        Verdict::Damaged(place) => (Level::Damaged { place: place.clone() }, entry.rows),
    };
    Ok(Look {
        verdict,
        digest: entry.digest.clone(),
        finding: Finding {
            level,
            blob: entry.blob.clone(),
            at,
            by,
            seconds: begun.elapsed().as_secs_f64(),
            rows,
        },
    })
}

async fn look(store: &Arc<dyn BlobStore>, entry: &Entry, progress: Told<'_>) -> Result<Looked, ReadError> {
    structure(&open(store, entry).await?, progress).await
}

/// Opens the version of a backup that was listed.
///
/// # Errors
/// [`ReadError`].
pub async fn open(store: &Arc<dyn BlobStore>, entry: &Entry) -> Result<Archive, ReadError> {
    let archive = Archive::open(Arc::new(StoredBlob {
        store: Arc::clone(store),
        properties: Properties {
            name: entry.blob.clone(),
            size_bytes: entry.size_bytes,
            etag: entry.etag.clone(),
            last_modified: entry.committed_at,
            metadata: Metadata::new(),
        },
    }))
    .await?;
    // Whoever rewrites an index can rewrite its hash in the trailer, but not what was committed beside the blob.
    if archive.digest != entry.digest && !entry.digest.is_empty() {
        return Err(ReadError::Damaged(
            "its hash is not the one that was committed beside the file",
        ));
    }
    Ok(archive)
}

impl Look {
    /// Writes the proof, or the damage, beside what others found.
    ///
    /// # Errors
    /// [`LedgerError`]; the backup is as it was found all the same.
    pub async fn note(&self, control: &dyn BlobStore, prefix: &str, entry: &Entry) -> Result<(), LedgerError> {
        if self.digest.is_empty() {
            // The listing itself cannot read such a file and says so; there is nothing to tie a proof to.
            return Ok(());
        }
        ledger::note(control, prefix, &entry.id, &self.digest, &self.finding).await
    }
}
