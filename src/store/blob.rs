//! One blob, read in ranges and pinned to one version: what restoring and verifying need of a store, and what a
//! local file or a URL can offer as well.

use std::fmt;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{BlobStore, Properties, StoreError};

/// A blob that does not change while it is read: every range is of the same version, or an error.
#[async_trait]
pub trait Blob: Send + Sync + fmt::Debug {
    /// As a person would name it; never holds a secret.
    fn describe(&self) -> String;

    fn size_bytes(&self) -> u64;

    /// Reads `range` (end exclusive, inside the blob), never fewer bytes than asked. [`StoreError::Changed`] once the
    /// blob is another version.
    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError>;
}

/// A blob in a store, pinned to the ETag that was listed.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    pub store: Arc<dyn BlobStore>,
    pub properties: Properties,
}

#[async_trait]
impl Blob for StoredBlob {
    fn describe(&self) -> String {
        format!("{} in {}", self.properties.name, self.store.describe())
    }

    fn size_bytes(&self) -> u64 {
        self.properties.size_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store
            .read(&self.properties.name, range, Some(&self.properties.etag))
            .await
    }
}

/// A file on this machine.
#[derive(Debug)]
pub struct LocalFile {
    path: PathBuf,
    file: Arc<std::fs::File>,
    size_bytes: u64,
    modified: (i64, i64),
}

impl LocalFile {
    /// # Errors
    /// What the system says, with the path.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let opened = tokio::fs::File::open(path).await;
        let file = opened.map_err(|error| at(path, &error))?.into_std().await;
        let metadata = file.metadata().map_err(|error| at(path, &error))?;
        if !metadata.is_file() {
            return Err(StoreError::Invalid {
                store: path.display().to_string(),
                detail: "not a file; to read a pipe, write - and feed it to standard input".to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            file: Arc::new(file),
        })
    }
}

fn at(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Invalid {
        store: path.display().to_string(),
        detail: error.to_string(),
    }
}

#[async_trait]
impl Blob for LocalFile {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = Arc::clone(&self.file);
        let length = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let read = tokio::task::spawn_blocking(move || {
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, range.start)?;
            let metadata = file.metadata()?;
            Ok::<_, std::io::Error>((data, (metadata.mtime(), metadata.mtime_nsec())))
        });
        match read.await {
            Ok(Ok((data, modified))) if modified == self.modified => Ok(Bytes::from(data)),
            Ok(Ok(_)) => Err(StoreError::Changed {
                store: "this machine".to_owned(),
                name: self.path.display().to_string(),
            }),
            Ok(Err(error)) => Err(at(&self.path, &error)),
            Err(error) => Err(StoreError::Invalid {
                store: self.path.display().to_string(),
                detail: error.to_string(),
            }),
        }
    }
}
