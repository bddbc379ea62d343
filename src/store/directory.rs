//! A store in a directory (`file://`): whole files appear by `link(2)`, which refuses a taken name.
//!
//! ```text
//! ROOT/backups/backup-….sql.gz     blobs, under their own names: any tool can copy them
//! ROOT/.meta/backups/….json        metadata and tags; lost or stale ones count as empty
//! ROOT/.staging/RUN/BLOCK          blocks of uploads that are not committed
//! ROOT/.lock                       flock'd by every writer, of any process; holds the last time stamp given
//! ```
//!
//! An ETag is inode, size and modification time. The time is set by us and never given twice under one
//! root, since inode numbers are reused at once and the kernel's time stamps are milliseconds coarse.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::names::{check_blocks, check_metadata, check_name, check_served, check_tags, check_upload};
use super::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, Served, StoreError, Upload};
use crate::clock::Clock;

mod disk;
mod errors;
mod side_file;
mod staging;

use disk::Disk;

/// Blobs under one directory, which must be on one file system that knows hard links and `flock`.
#[derive(Debug)]
pub struct DirectoryStore {
    disk: Arc<Disk>,
}

impl DirectoryStore {
    /// Opens the store in `root`, which must exist: a disk that is not mounted must not become a
    /// backup on the wrong disk. Removes what uploads older than a week left behind.
    ///
    /// # Errors
    /// [`StoreError::NoContainer`] if there is no such directory; `Denied` if it cannot be written.
    pub async fn open(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let root = root.into();
        let disk = blocking(move || Disk::open(root, clock)).await?;
        Ok(Self { disk: Arc::new(disk) })
    }

    /// Like [`open`](Self::open), but makes `root` (mode 0700) if only its last part is missing.
    pub async fn open_or_create(root: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let root = root.into();
        let disk = blocking(move || {
            Disk::create_root(&root)?;
            Disk::open(root, clock)
        })
        .await?;
        Ok(Self { disk: Arc::new(disk) })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        blocking(move || {
            disk.check_root()?;
            work(&disk)
        })
        .await
    }
}

/// Runs `work` where blocking is allowed. The task ends by itself: every call in it is bounded by the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(StoreError::Unavailable {
            store: "directory".to_owned(),
            detail: format!("worker ended: {join}"),
        }),
    }
}

/// Tells blocking work that its caller has gone: dropping a future does not stop a thread.
struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[async_trait]
impl BlobStore for DirectoryStore {
    fn describe(&self) -> String {
        self.disk.describe()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        check_upload(&self.describe(), upload)?;
        let upload = upload.clone();
        let abandoned = Arc::new(AtomicBool::new(false));
        let _guard = AbandonOnDrop(Arc::clone(&abandoned));
        self.on_disk(move |disk| disk.stage(&upload, block, &data, &abandoned))
            .await
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        check_upload(&self.describe(), upload)?;
        check_blocks(&self.describe(), blocks, self.limits())?;
        check_metadata(&self.describe(), metadata)?;
        let (upload, blocks, metadata) = (upload.clone(), blocks.to_vec(), metadata.clone());
        let abandoned = Arc::new(AtomicBool::new(false));
        let _guard = AbandonOnDrop(Arc::clone(&abandoned));
        self.on_disk(move |disk| disk.commit(&upload, &blocks, metadata, &abandoned))
            .await
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        check_upload(&self.describe(), upload)?;
        let upload = upload.clone();
        self.on_disk(move |disk| disk.discard(&upload)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        let prefix = prefix.to_owned();
        self.on_disk(move |disk| disk.list(&prefix)).await
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        check_name(&self.describe(), name)?;
        let name = name.to_owned();
        self.on_disk(move |disk| disk.properties(&name)).await
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        check_name(&self.describe(), name)?;
        let (name, etag) = (name.to_owned(), etag.cloned());
        self.on_disk(move |disk| disk.read(&name, range, etag.as_ref())).await
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        check_name(&self.describe(), name)?;
        let name = name.to_owned();
        self.on_disk(move |disk| disk.put(&name, &data, None, &condition)).await
    }

    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        check_name(&self.describe(), name)?;
        check_served(&self.describe(), served)?;
        let (name, served) = (name.to_owned(), served.clone());
        self.on_disk(move |disk| disk.put(&name, &data, Some(served), &condition))
            .await
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        check_name(&self.describe(), name)?;
        let (name, etag) = (name.to_owned(), etag.clone());
        self.on_disk(move |disk| disk.served(&name, &etag)).await
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        let (name, etag) = (name.to_owned(), etag.clone());
        self.on_disk(move |disk| disk.delete(&name, &etag)).await
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        check_tags(&self.describe(), tags)?;
        let (name, tags) = (name.to_owned(), tags.clone());
        self.on_disk(move |disk| disk.set_tags(&name, tags)).await
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        check_name(&self.describe(), name)?;
        let name = name.to_owned();
        self.on_disk(move |disk| disk.tags(&name)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.disk.now())
    }
}
