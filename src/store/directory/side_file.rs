//! What the file system has no place for: metadata and tags, in a JSON file beside the blob's tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::disk::{Disk, META, STAGING};
use crate::store::{Metadata, Served, StoreError};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct SideFile {
    /// Of the blob this was written for. If the blob there is another, this is not about it.
    pub(super) size_bytes: u64,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) served: Option<Served>,
}

impl SideFile {
    fn path(disk: &Disk, name: &str) -> PathBuf {
        disk.root.join(META).join(format!("{name}.json"))
    }

    /// Lost, torn or about another blob: empty. The backup file itself is the truth, not this.
    pub(super) fn read(disk: &Disk, name: &str, size_bytes: u64) -> Result<Self, StoreError> {
        let empty = Self {
            size_bytes,
            ..Self::default()
        };
        match fs::read(Self::path(disk, name)) {
            Ok(text) => Ok(serde_json::from_slice::<Self>(&text)
                .ok()
                .filter(|side| side.size_bytes == size_bytes)
                .unwrap_or(empty)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(empty),
            Err(e) => Err(disk.error("read metadata", &e)),
        }
    }

    /// Durable when it returns. The caller holds the lock.
    pub(super) fn write(&self, disk: &Disk, name: &str) -> Result<(), StoreError> {
        let path = Self::path(disk, name);
        let parent = disk.parent_of(&path);
        disk.make_dirs(&parent)?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| disk.invalid(format!("metadata of {name} cannot be written: {e}")))?;
        let mut temp =
            NamedTempFile::new_in(disk.root.join(STAGING)).map_err(|e| disk.error("make a metadata file", &e))?;
        temp.write_all(&text)
            .and_then(|()| temp.as_file().sync_all())
            .map_err(|e| disk.error("write metadata", &e))?;
        temp.persist(&path)
            .map_err(|e| disk.error("rename a metadata file", &e.error))?;
        disk.sync_dir(&parent)
    }

    /// The caller holds the lock.
    pub(super) fn remove(disk: &Disk, name: &str) -> Result<(), StoreError> {
        let path = Self::path(disk, name);
        match fs::remove_file(&path) {
            Ok(()) => disk.sync_dir(&disk.parent_of(&path)),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
            Err(e) => Err(disk.error("remove metadata", &e)),
        }
    }
}
