//! A store in memory whose clock is tokio's (paused) time plus a shift, and whose answers can be scripted.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use planb::clock::Clock;
use planb::store::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, Served, StoreError, Upload};
use tokio::time::Instant;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It lands, and the answer is lost.
    AnswerLost,
    /// It never arrives.
    Lost,
    /// It lands after this many milliseconds.
    Slow(u64),
}

#[derive(Debug, Clone)]
struct Blob {
    data: Bytes,
    version: u64,
    modified: Timestamp,
    tags: BTreeMap<String, String>,
}

#[derive(Debug)]
pub struct Clocked {
    started: Instant,
    shift: Mutex<SignedDuration>,
    blobs: Mutex<BTreeMap<String, Blob>>,
    versions: Mutex<u64>,
    /// Of the next `put`s, in order.
    pub fates: Mutex<VecDeque<Fate>>,
    pub down: Mutex<bool>,
    /// Deletes and tag changes, in order.
    pub deeds: Mutex<Vec<String>>,
}

impl Clocked {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            shift: Mutex::default(),
            blobs: Mutex::default(),
            versions: Mutex::default(),
            fates: Mutex::default(),
            down: Mutex::default(),
            deeds: Mutex::default(),
        }
    }

    pub fn time(&self) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a timestamp") + self.started.elapsed() + *lock(&self.shift)
    }

    pub fn jump(&self, by: SignedDuration) {
        *lock(&self.shift) += by;
    }

    pub fn content(&self, name: &str) -> Option<Bytes> {
        lock(&self.blobs).get(name).map(|b| b.data.clone())
    }

    fn up(&self) -> Result<(), StoreError> {
        if *lock(&self.down) {
            Err(self.unavailable())
        } else {
            Ok(())
        }
    }

    fn unavailable(&self) -> StoreError {
        StoreError::Unavailable {
            store: self.describe(),
            detail: "scripted".into(),
        }
    }

    fn missing(&self, name: &str) -> StoreError {
        StoreError::NotFound {
            store: self.describe(),
            name: name.into(),
        }
    }

    fn changed(&self, name: &str) -> StoreError {
        StoreError::Changed {
            store: self.describe(),
            name: name.into(),
        }
    }

    fn land(&self, name: &str, data: Bytes, condition: &Condition) -> Result<ETag, StoreError> {
        let mut blobs = lock(&self.blobs);
        match (condition, blobs.get(name)) {
            (Condition::Absent, Some(_)) => {
                return Err(StoreError::AlreadyExists {
                    store: self.describe(),
                    name: name.into(),
                });
            }
            (Condition::Matches(etag), Some(blob)) if *etag != tag_of(blob.version) => return Err(self.changed(name)),
            (Condition::Matches(_), None) => return Err(self.changed(name)),
            _ => {}
        }
        let mut versions = lock(&self.versions);
        *versions += 1;
        blobs.insert(
            name.into(),
            Blob {
                data,
                version: *versions,
                modified: self.time(),
                tags: BTreeMap::new(),
            },
        );
        Ok(tag_of(*versions))
    }
}

fn tag_of(version: u64) -> ETag {
    ETag(format!("v{version}"))
}

impl Clock for Clocked {
    fn now(&self) -> Timestamp {
        self.time()
    }
}

#[async_trait]
impl BlobStore for Clocked {
    fn describe(&self) -> String {
        "clocked".into()
    }

    async fn stage_block(&self, _: &Upload, _: BlockNumber, _: Bytes) -> Result<(), StoreError> {
        unimplemented!("not a store for backups")
    }

    async fn commit(&self, _: &Upload, _: &[BlockNumber], _: &Metadata) -> Result<Properties, StoreError> {
        unimplemented!("not a store for backups")
    }

    async fn discard(&self, _: &Upload) -> Result<(), StoreError> {
        Ok(())
    }

    async fn list(&self, _: &str) -> Result<Vec<Properties>, StoreError> {
        unimplemented!("not a store for backups")
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.up()?;
        Ok(lock(&self.blobs).get(name).map(|blob| Properties {
            name: name.into(),
            size_bytes: blob.data.len() as u64,
            etag: tag_of(blob.version),
            last_modified: blob.modified,
            metadata: Metadata::new(),
        }))
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.up()?;
        let blobs = lock(&self.blobs);
        let blob = blobs.get(name).ok_or_else(|| self.missing(name))?;
        if etag.is_some_and(|wanted| *wanted != tag_of(blob.version)) {
            return Err(self.changed(name));
        }
        Ok(blob.data.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.up()?;
        // Lets others in between: contention is real.
        tokio::task::yield_now().await;
        let fate = lock(&self.fates).pop_front();
        match fate {
            None => self.land(name, data, &condition),
            Some(Fate::AnswerLost) => {
                self.land(name, data, &condition)?;
                Err(self.unavailable())
            }
            Some(Fate::Lost) => Err(self.unavailable()),
            Some(Fate::Slow(millis)) => {
                tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
                self.land(name, data, &condition)
            }
        }
    }

    async fn publish(&self, _: &str, _: Bytes, _: &Served, _: Condition) -> Result<ETag, StoreError> {
        unimplemented!("not a store for pages")
    }

    async fn served(&self, _: &str, _: &ETag) -> Result<Served, StoreError> {
        unimplemented!("not a store for pages")
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.up()?;
        let mut blobs = lock(&self.blobs);
        match blobs.get(name) {
            None => Err(self.missing(name)),
            Some(blob) if tag_of(blob.version) != *etag => Err(self.changed(name)),
            Some(_) => {
                blobs.remove(name);
                lock(&self.deeds).push(format!("delete {name}"));
                Ok(())
            }
        }
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.up()?;
        lock(&self.blobs).get_mut(name).ok_or_else(|| self.missing(name))?.tags = tags.clone();
        lock(&self.deeds).push(format!("tag {name}"));
        Ok(())
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.up()?;
        lock(&self.blobs)
            .get(name)
            .map(|b| b.tags.clone())
            .ok_or_else(|| self.missing(name))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.up()?;
        Ok(self.time())
    }
}
