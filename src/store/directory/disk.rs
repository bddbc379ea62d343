//! The blocking half: files, locks and time stamps.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::NamedTempFile;

use super::errors::store_error;
use super::side_file::SideFile;
use crate::clock::Clock;
use crate::store::names::check_range;
use crate::store::{Condition, ETag, Properties, Served, StoreError};

pub(super) const STAGING: &str = ".staging";
pub(super) const META: &str = ".meta";
const LOCK: &str = ".lock";
/// Longest wait for another writer. Whoever holds the lock only writes a small file or links a big one.
const LOCK_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) root: PathBuf,
    /// Device and inode of the root when it was opened: a disk that was unmounted since must not look empty.
    identity: (u64, u64),
    clock: Arc<dyn Clock>,
    /// Unix second of the last look for stale uploads.
    pub(super) swept_at: AtomicI64,
    /// Read-locked while a block is written, write-locked while an upload is discarded.
    pub(super) staging: RwLock<()>,
}

/// Held while names change hands. The lock goes with the file handle.
pub(super) struct Locked(File);

impl Disk {
    pub(super) fn create_root(root: &Path) -> Result<(), StoreError> {
        match DirBuilder::new().mode(0o700).create(root) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(store_error(root, "make the directory", &e)),
        }
    }

    pub(super) fn open(root: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let found = fs::metadata(&root).map_err(|e| store_error(&root, "open", &e))?;
        let identity = (found.dev(), found.ino());
        let disk = Self {
            root,
            identity,
            clock,
            swept_at: AtomicI64::new(i64::MIN),
            staging: RwLock::default(),
        };
        disk.make_dirs(&disk.root.join(STAGING))?;
        disk.make_dirs(&disk.root.join(META))?;
        disk.sweep_stale_uploads()?;
        Ok(disk)
    }

    pub(super) fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn error(&self, doing: &str, error: &io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() {
            // Not the root: somebody removed what we were working on. Another try looks again.
            return StoreError::Unavailable {
                store: self.describe(),
                detail: format!("{doing}: {error}"),
            };
        }
        store_error(&self.root, doing, error)
    }

    pub(super) fn invalid(&self, detail: String) -> StoreError {
        StoreError::Invalid {
            store: self.describe(),
            detail,
        }
    }

    pub(super) fn taken(&self, name: &str) -> StoreError {
        StoreError::AlreadyExists {
            store: self.describe(),
            name: name.to_owned(),
        }
    }

    fn not_found(&self, name: &str) -> StoreError {
        StoreError::NotFound {
            store: self.describe(),
            name: name.to_owned(),
        }
    }

    fn changed(&self, name: &str) -> StoreError {
        StoreError::Changed {
            store: self.describe(),
            name: name.to_owned(),
        }
    }

    pub(super) fn check_root(&self) -> Result<(), StoreError> {
        let found = fs::metadata(&self.root).map_err(|e| self.error("open", &e))?;
        if (found.dev(), found.ino()) == self.identity {
            return Ok(());
        }
        Err(StoreError::NoContainer {
            store: self.describe(),
            hint: "another file system is there since it was opened: mount the right one and restart".to_owned(),
        })
    }

    /// Makes `dir` and what is missing above it, each entry durable.
    pub(super) fn make_dirs(&self, dir: &Path) -> Result<(), StoreError> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().unwrap_or(&self.root);
        if dir != self.root {
            self.make_dirs(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => self.sync_dir(parent),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(e) => Err(self.error("make a directory", &e)),
        }
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| self.error("sync a directory", &e))
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn parent_of(&self, path: &Path) -> PathBuf {
        path.parent().map_or_else(|| self.root.clone(), Path::to_path_buf)
    }

    /// Waits for the one writer's place under this root, between threads and processes alike.
    pub(super) fn lock(&self) -> Result<Locked, StoreError> {
        self.lock_file(&self.root.join(LOCK)).map(Locked)
    }

    pub(super) fn lock_file(&self, path: &Path) -> Result<File, StoreError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| self.error("open the lock", &e))?;
        let pause = Duration::from_millis(2);
        let mut waited = Duration::ZERO;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if waited < LOCK_WAIT => {
                    std::thread::sleep(pause);
                    waited += pause;
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Unavailable {
                        store: self.describe(),
                        detail: format!("another process holds {} for {LOCK_WAIT:?}", path.display()),
                    });
                }
                Err(TryLockError::Error(e)) => return Err(self.error("lock", &e)),
            }
        }
    }

    /// Gives `file` a modification time that no file under this root had before, and makes it durable.
    pub(super) fn stamp(&self, lock: &mut Locked, file: &File) -> Result<(), StoreError> {
        let stamp = next_stamp(&mut lock.0, self.clock.now()).map_err(|e| self.error("read the lock", &e))?;
        file.set_times(FileTimes::new().set_modified(SystemTime::from(stamp)))
            .and_then(|()| file.sync_all())
            .map_err(|e| self.error("sync a file", &e))
    }

    /// The blob's file, if the name is one. A directory or a symbolic link is no blob.
    pub(super) fn look(&self, name: &str) -> Result<Option<fs::Metadata>, StoreError> {
        match fs::symlink_metadata(self.path_of(name)) {
            Ok(found) if found.is_file() => Ok(Some(found)),
            Ok(_) => Ok(None),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(self.error("look at a file", &e)),
        }
    }

    pub(super) fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        match self.look(name)? {
            Some(found) => self.describe_file(name, &found).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn describe_file(&self, name: &str, found: &fs::Metadata) -> Result<Properties, StoreError> {
        let last_modified = Timestamp::new(found.mtime(), i32::try_from(found.mtime_nsec()).unwrap_or(0))
            .map_err(|e| self.invalid(format!("{name} has an impossible modification time: {e}")))?;
        Ok(Properties {
            name: name.to_owned(),
            size_bytes: found.len(),
            etag: etag(found),
            last_modified,
            metadata: SideFile::read(self, name, found.len())?.metadata,
        })
    }

    pub(super) fn read(&self, name: &str, range: Range<u64>, wanted: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.look(name)?.ok_or_else(|| self.not_found(name))?;
        let file = match File::open(self.path_of(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.not_found(name)),
            Err(e) => return Err(self.error("open a file", &e)),
        };
        // The open file, not the name: what was checked is what is read.
        let found = file.metadata().map_err(|e| self.error("look at a file", &e))?;
        if wanted.is_some_and(|wanted| *wanted != etag(&found)) {
            return Err(self.changed(name));
        }
        check_range(&self.describe(), name, &range, found.len())?;
        let length = usize::try_from(range.end - range.start)
            .map_err(|e| self.invalid(format!("range of {name} is longer than memory: {e}")))?;
        let mut data = vec![0; length];
        file.read_exact_at(&mut data, range.start)
            .map_err(|e| self.error("read a file", &e))?;
        Ok(Bytes::from(data))
    }

    pub(super) fn put(
        &self,
        name: &str,
        data: &[u8],
        served: Option<Served>,
        condition: &Condition,
    ) -> Result<ETag, StoreError> {
        let target = self.path_of(name);
        let mut temp = NamedTempFile::new_in(self.root.join(STAGING)).map_err(|e| self.error("make a file", &e))?;
        temp.write_all(data).map_err(|e| self.error("write a file", &e))?;

        let mut lock = self.lock()?;
        let there = self.look(name)?.map(|found| etag(&found));
        match (condition, &there) {
            (Condition::Absent, Some(_)) => return Err(self.taken(name)),
            (Condition::Matches(wanted), there) if there.as_ref() != Some(wanted) => return Err(self.changed(name)),
            (Condition::Absent | Condition::Matches(_) | Condition::Always, _) => {}
        }
        self.make_dirs(&self.parent_of(&target))?;
        self.stamp(&mut lock, temp.as_file())?;
        let written = temp
            .as_file()
            .metadata()
            .map_err(|e| self.error("look at a file", &e))?;
        // First, so that a crash in between loses metadata rather than giving a new blob the old one's.
        SideFile::remove(self, name)?;
        match condition {
            Condition::Absent => self.link(temp.path(), name)?,
            Condition::Matches(_) | Condition::Always => {
                temp.persist(&target)
                    .map_err(|e| self.error("rename a file", &e.error))?;
            }
        }
        self.sync_dir(&self.parent_of(&target))?;
        if served.is_some() {
            SideFile {
                size_bytes: data.len() as u64,
                served,
                ..SideFile::default()
            }
            .write(self, name)?;
        }
        Ok(etag(&written))
    }

    pub(super) fn served(&self, name: &str, wanted: &ETag) -> Result<Served, StoreError> {
        let _lock = self.lock()?;
        let found = self.look(name)?.ok_or_else(|| self.not_found(name))?;
        if etag(&found) != *wanted {
            return Err(self.changed(name));
        }
        Ok(SideFile::read(self, name, found.len())?.served.unwrap_or_default())
    }

    /// The one atomic step that makes a new blob visible.
    pub(super) fn link(&self, from: &Path, name: &str) -> Result<(), StoreError> {
        match fs::hard_link(from, self.path_of(name)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(self.taken(name)),
            Err(e) => Err(self.error("link a file", &e)),
        }
    }

    pub(super) fn delete(&self, name: &str, wanted: &ETag) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let found = self.look(name)?.ok_or_else(|| self.not_found(name))?;
        if etag(&found) != *wanted {
            return Err(self.changed(name));
        }
        let path = self.path_of(name);
        fs::remove_file(&path).map_err(|e| self.error("remove a file", &e))?;
        self.sync_dir(&self.parent_of(&path))?;
        SideFile::remove(self, name)
    }

    pub(super) fn set_tags(&self, name: &str, tags: BTreeMap<String, String>) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let found = self.look(name)?.ok_or_else(|| self.not_found(name))?;
        let mut side = SideFile::read(self, name, found.len())?;
        side.tags = tags;
        side.write(self, name)
    }

    pub(super) fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let found = self.look(name)?.ok_or_else(|| self.not_found(name))?;
        Ok(SideFile::read(self, name, found.len())?.tags)
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        let mut found = Vec::new();
        self.walk(String::new(), prefix, &mut found)?;
        found.sort_by(|a: &Properties, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Goes into `folder` (empty, or ends with `/`) as far as names there can begin with `prefix`.
    fn walk(&self, folder: String, prefix: &str, found: &mut Vec<Properties>) -> Result<(), StoreError> {
        let entries = match fs::read_dir(self.path_of(&folder)) {
            Ok(entries) => entries,
            // Removed between our look and now: then nothing is in it.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !folder.is_empty() => return Ok(()),
            Err(e) => return Err(self.error("list a directory", &e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| self.error("list a directory", &e))?;
            // A name that is not UTF-8 or begins with a dot was not made by us.
            let Ok(own_name) = entry.file_name().into_string() else {
                continue;
            };
            if own_name.starts_with('.') {
                continue;
            }
            let name = format!("{folder}{own_name}");
            let kind = entry.file_type().map_err(|e| self.error("look at a file", &e))?;
            if kind.is_dir() {
                let inner = format!("{name}/");
                if inner.starts_with(prefix) || prefix.starts_with(&inner) {
                    self.walk(inner, prefix, found)?;
                }
            } else if kind.is_file() && name.starts_with(prefix) {
                found.extend(self.properties(&name)?);
            }
        }
        Ok(())
    }
}

pub(super) fn etag(found: &fs::Metadata) -> ETag {
    ETag(format!(
        "{:x}-{:x}-{:x}.{:x}",
        found.ino(),
        found.len(),
        found.mtime(),
        found.mtime_nsec()
    ))
}

/// The later of `now` and one nanosecond after the last stamp, which the lock file remembers.
fn next_stamp(lock: &mut File, now: Timestamp) -> io::Result<Timestamp> {
    let mut text = String::new();
    lock.rewind()?;
    lock.take(64).read_to_string(&mut text)?;
    let last: Timestamp = text.trim().parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let stamp = now.max(last.checked_add(Duration::from_nanos(1)).unwrap_or(now));
    lock.rewind()?;
    lock.set_len(0)?;
    lock.write_all(stamp.to_string().as_bytes())?;
    Ok(stamp)
}
