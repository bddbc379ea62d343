//! The backups in a store: what a listing shows, and how a new one gets its facts beside it.
//!
//! The file alone is the truth; a blob's metadata repeats what a listing needs. Where it was lost (a copy made by
//! another tool), the facts are read from the end of the file.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::entry::{BackupId, Entry, Standing};
use crate::dump::Dumped;
use crate::format::index::{Index, IndexError, Summary};
use crate::format::member;
use crate::format::trailer::{TRAILER_BYTES, Trailer, TrailerError};
use crate::store::{BlobStore, Metadata, Properties, StoreError};

/// Backups kept by a person or by a failback; retention never touches them.
pub const PRESERVED_PREFIX: &str = "preserved/";

const SERVICE: &str = "planb_service";
const SITE: &str = "planb_site";
const EPOCH: &str = "planb_epoch";
const CONSISTENT_AT: &str = "planb_consistent_at";
const DIGEST: &str = "planb_digest";
const ROWS: &str = "planb_rows";
const RAW_BYTES: &str = "planb_raw_bytes";

/// An index is small; what claims to be a larger one is damaged.
const LARGEST_INDEX_BYTES: u64 = 256 << 20;

/// What stands beside a new backup's blob.
pub fn metadata(dumped: &Dumped) -> Metadata {
    let summary = &dumped.index.summary;
    BTreeMap::from([
        (SERVICE.to_owned(), summary.service.clone()),
        (SITE.to_owned(), summary.site.clone()),
        (EPOCH.to_owned(), summary.epoch.to_string()),
        (CONSISTENT_AT.to_owned(), summary.consistent_at.to_string()),
        (DIGEST.to_owned(), dumped.digest.clone()),
        (ROWS.to_owned(), summary.rows.to_string()),
        (RAW_BYTES.to_owned(), summary.raw_bytes.to_string()),
    ])
}

/// Whether what stands there is the backup of this digest.
pub fn is_of(blob: &Properties, digest: &str) -> bool {
    blob.metadata.get(DIGEST).is_some_and(|there| there == digest)
}

/// Every backup under `prefix` and under `preserved/`, newest first. `epoch` is the one in force.
///
/// # Errors
/// The store's. A blob that looks like a backup and is none is listed as unusable, not an error.
pub async fn list(store: &dyn BlobStore, prefix: &str, service: &str) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    for (prefix, preserved) in [(prefix, false), (PRESERVED_PREFIX, true)] {
        for blob in store.list(prefix).await? {
            let Some(id) = BackupId::of_blob(prefix, &blob.name) else {
                continue;
            };
            entries.push(entry(store, id, blob, service, preserved).await?);
        }
    }
    entries.sort_by(|a, b| b.consistent_at.cmp(&a.consistent_at).then_with(|| b.blob.cmp(&a.blob)));
    Ok(entries)
}

async fn entry(
    store: &dyn BlobStore,
    id: BackupId,
    blob: Properties,
    service: &str,
    preserved: bool,
) -> Result<Entry, StoreError> {
    let mut entry = Entry {
        consistent_at: id.second(),
        id,
        committed_at: blob.last_modified,
        etag: blob.etag.clone(),
        size_bytes: blob.size_bytes,
        raw_bytes: 0,
        rows: 0,
        site: String::new(),
        epoch: 0,
        digest: String::new(),
        standing: if preserved { Standing::Preserved } else { Standing::Good },
        proven_at: None,
        blob: blob.name.clone(),
    };
    let facts = match Facts::from_metadata(&blob.metadata) {
        Some(facts) => facts,
        None => match read_index(store, &blob).await {
            Ok((index, digest)) => Facts::from_summary(&index.summary, digest),
            Err(ReadError::Store(error)) if !error.is_permanent() => return Err(error),
            Err(error) => {
                entry.standing = Standing::Unusable(error.to_string());
                return Ok(entry);
            }
        },
    };
    if facts.service != service {
        entry.standing = Standing::Unusable(format!("it belongs to service {}", facts.service));
    } else if BackupId::at(facts.consistent_at) != entry.id {
        entry.standing = Standing::Unusable(format!(
            "its name does not say when it was consistent ({})",
            facts.consistent_at
        ));
    }
    entry.raw_bytes = facts.raw_bytes;
    entry.rows = facts.rows;
    entry.site = facts.site;
    entry.epoch = facts.epoch;
    entry.consistent_at = facts.consistent_at;
    entry.digest = facts.digest;
    Ok(entry)
}

struct Facts {
    service: String,
    site: String,
    epoch: u64,
    consistent_at: Timestamp,
    digest: String,
    rows: u64,
    raw_bytes: u64,
}

impl Facts {
    /// None if anything is missing or makes no sense: then the file itself is asked.
    fn from_metadata(metadata: &Metadata) -> Option<Self> {
        let get = |key: &str| metadata.get(key).cloned();
        Some(Self {
            service: get(SERVICE)?,
            site: get(SITE)?,
            epoch: get(EPOCH)?.parse().ok()?,
            consistent_at: get(CONSISTENT_AT)?.parse().ok()?,
            digest: get(DIGEST)?,
            rows: get(ROWS)?.parse().ok()?,
            raw_bytes: get(RAW_BYTES)?.parse().ok()?,
        })
    }

    fn from_summary(summary: &Summary, digest: String) -> Self {
        Self {
            service: summary.service.clone(),
            site: summary.site.clone(),
            epoch: summary.epoch,
            consistent_at: summary.consistent_at,
            digest,
            rows: summary.rows,
            raw_bytes: summary.raw_bytes,
        }
    }
}

/// Why a backup's index could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Trailer(#[from] TrailerError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("its index is damaged: {0}")]
    Damaged(&'static str),
}

impl ReadError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => error.is_permanent(),
            Self::Trailer(_) | Self::Index(_) | Self::Damaged(_) => true,
        }
    }
}

/// Reads a backup's index from the end of its blob, pinned to one version, and checks its hash. Returns the digest too.
///
/// # Errors
/// [`ReadError`]; every kind but the store's means that the backup is damaged or none.
pub async fn read_index(store: &dyn BlobStore, blob: &Properties) -> Result<(Index, String), ReadError> {
    let trailer_bytes = TRAILER_BYTES as u64;
    let Some(start) = blob.size_bytes.checked_sub(trailer_bytes) else {
        return Err(TrailerError::NotATrailer.into());
    };
    let end = store.read(&blob.name, start..blob.size_bytes, Some(&blob.etag)).await?;
    let trailer = Trailer::decode(&end)?;
    let index_end = trailer.index_offset.checked_add(trailer.index_stored_bytes);
    if index_end != Some(start) || trailer.index_stored_bytes > LARGEST_INDEX_BYTES {
        return Err(ReadError::Damaged("it does not end where the trailer begins"));
    }
    let stored = store
        .read(&blob.name, trailer.index_offset..start, Some(&blob.etag))
        .await?;
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&stored);
    if digest.as_slice() != trailer.digest {
        return Err(ReadError::Damaged("its hash is not the one in the trailer"));
    }
    // The last four bytes of a gzip member are its length (RFC 1952).
    let length = stored.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if u64::from(length) > LARGEST_INDEX_BYTES {
        return Err(ReadError::Damaged("it is too large"));
    }
    let raw = member::unpack(&stored, length as usize).map_err(|_| ReadError::Damaged("it cannot be decompressed"))?;
    let text = String::from_utf8(raw).map_err(|_| ReadError::Damaged("it is not text"))?;
    Ok((
        Index::decode(&text, trailer.index_offset)?,
        crate::dump::pipeline::hex(&digest),
    ))
}
