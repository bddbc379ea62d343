//! The backups in a store: what a listing shows, and how a new one gets its facts beside it.
//!
//! The file alone is the truth; a blob's metadata repeats what a listing needs. Where it was lost (a copy made by
//! another tool), the facts are read from the end of the file.

use std::collections::BTreeMap;

use jiff::Timestamp;

use async_trait::async_trait;
use bytes::Bytes;

use super::archive::{self, ReadError};
use super::entry::{BackupId, Entry, Standing};
use crate::dump::Dumped;
use crate::format::index::Summary;
use crate::recovery::state as recovery;
use crate::store::blob::Blob;
use crate::store::{BlobStore, Metadata, Properties, StoreError};

/// Backups kept by a person or by a failback; retention never touches them.
pub const PRESERVED_PREFIX: &str = "preserved/";

/// Where failbacks keep what they find of the service whose backups are under `prefix`: services that share a container do not
/// share this.
pub fn preserved(prefix: &str) -> String {
    format!("{PRESERVED_PREFIX}{prefix}")
}

const SERVICE: &str = "planb_service";
const SITE: &str = "planb_site";
const EPOCH: &str = "planb_epoch";
const CONSISTENT_AT: &str = "planb_consistent_at";
const DIGEST: &str = "planb_digest";
const ROWS: &str = "planb_rows";
const RAW_BYTES: &str = "planb_raw_bytes";

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

/// Every backup under `prefix` and under `preserved/` (a person's, and this service's own), newest first; `reign` tells those of a site that no longer served.
///
/// # Errors
/// The store's. A blob that looks like a backup and is none is listed as unusable, not an error.
pub async fn list(
    store: &dyn BlobStore,
    prefix: &str,
    service: &str,
    reign: &recovery::Standing,
) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    let own = preserved(prefix);
    for (listed, preserved) in [(prefix, false), (PRESERVED_PREFIX, true)] {
        for blob in store.list(listed).await? {
            let of = |prefix: &str| BackupId::of_blob(prefix, &blob.name);
            let Some(id) = of(listed).or_else(|| of(&own)) else {
                continue;
            };
            entries.push(entry(store, id, blob, service, reign, preserved).await?);
        }
    }
    entries.sort_by(|a, b| b.consistent_at.cmp(&a.consistent_at).then_with(|| b.blob.cmp(&a.blob)));
    Ok(entries)
}

/// One backup under `prefix`; `None` if there is none with that id.
///
/// # Errors
/// The store's.
pub async fn find(
    store: &dyn BlobStore,
    prefix: &str,
    service: &str,
    reign: &recovery::Standing,
    id: &BackupId,
) -> Result<Option<Entry>, StoreError> {
    match store.properties(&id.blob(prefix)).await? {
        Some(blob) => Ok(Some(entry(store, id.clone(), blob, service, reign, false).await?)),
        None => Ok(None),
    }
}

async fn entry(
    store: &dyn BlobStore,
    id: BackupId,
    blob: Properties,
    service: &str,
    reign: &recovery::Standing,
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
        structure_checked_at: None,
        blob: blob.name.clone(),
    };
    let facts = match Facts::from_metadata(&blob.metadata) {
        Some(facts) => facts,
        None => match archive::read_index(&Listed { store, blob: &blob }).await {
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
    } else if !preserved && reign.is_orphan(facts.epoch, facts.consistent_at) {
        entry.standing = Standing::Orphan;
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

/// A blob as it was just listed.
#[derive(Debug)]
struct Listed<'a> {
    store: &'a dyn BlobStore,
    blob: &'a Properties,
}

#[async_trait]
impl Blob for Listed<'_> {
    fn describe(&self) -> String {
        format!("{} in {}", self.blob.name, self.store.describe())
    }

    fn size_bytes(&self) -> u64 {
        self.blob.size_bytes
    }

    async fn read(&self, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.store.read(&self.blob.name, range, Some(&self.blob.etag)).await
    }
}
