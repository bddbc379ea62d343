//! A store in memory, for tests: every guarantee of [`BlobStore`], nothing durable.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;

use super::names::{check_blocks, check_metadata, check_name, check_range, check_served, check_tags, check_upload};
use super::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, RUN_ID_KEY, Served, StoreError, Upload};
use crate::clock::Clock;

/// One container in memory. Share it through an `Arc`; its clock is the store's clock.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Blob>,
    staged: HashMap<(String, String), HashMap<BlockNumber, Bytes>>,
    versions: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("blobs", &self.blobs.len())
            .field("staged", &self.staged.len())
            .finish()
    }
}

#[derive(Clone)]
struct Blob {
    data: Bytes,
    properties: Properties,
    tags: BTreeMap<String, String>,
    served: Served,
}

impl MemoryStore {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// Uploads staged and neither committed nor discarded; for tests of clean-up.
    pub fn staged_uploads(&self) -> usize {
        self.state().staged.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn taken(&self, name: &str) -> StoreError {
        StoreError::AlreadyExists {
            store: self.describe(),
            name: name.to_owned(),
        }
    }

    fn write(&self, state: &mut State, name: &str, data: Bytes, metadata: Metadata) -> Properties {
        state.versions += 1;
        let properties = Properties {
            name: name.to_owned(),
            size_bytes: data.len() as u64,
            etag: ETag(format!("memory-{}", state.versions)),
            last_modified: self.clock.now(),
            metadata,
        };
        let blob = Blob {
            data,
            properties: properties.clone(),
            tags: BTreeMap::new(),
            served: Served::default(),
        };
        state.blobs.insert(name.to_owned(), blob);
        properties
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        check_upload(&self.describe(), upload)?;
        let key = (upload.name.clone(), upload.run_id.clone());
        self.state().staged.entry(key).or_default().insert(block, data);
        Ok(())
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        let me = self.describe();
        check_upload(&me, upload)?;
        check_blocks(&me, blocks, self.limits())?;
        check_metadata(&me, metadata)?;
        let mut state = self.state();
        if let Some(there) = state.blobs.get(&upload.name) {
            return if there.properties.metadata.get(RUN_ID_KEY) == Some(&upload.run_id) {
                Ok(there.properties.clone())
            } else {
                Err(self.taken(&upload.name))
            };
        }
        let key = (upload.name.clone(), upload.run_id.clone());
        let mut whole = BytesMut::new();
        for block in blocks {
            match state.staged.get(&key).and_then(|staged| staged.get(block)) {
                Some(data) => whole.extend_from_slice(data),
                None => {
                    return Err(StoreError::Invalid {
                        store: me,
                        detail: format!("block {block} of {} was not staged", upload.name),
                    });
                }
            }
        }
        state.staged.remove(&key);
        let mut metadata = metadata.clone();
        metadata.insert(RUN_ID_KEY.to_owned(), upload.run_id.clone());
        Ok(self.write(&mut state, &upload.name, whole.freeze(), metadata))
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        self.state()
            .staged
            .remove(&(upload.name.clone(), upload.run_id.clone()));
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        let state = self.state();
        let from_prefix = state
            .blobs
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix));
        Ok(from_prefix.map(|(_, blob)| blob.properties.clone()).collect())
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        check_name(&self.describe(), name)?;
        Ok(self.state().blobs.get(name).map(|blob| blob.properties.clone()))
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        check_name(&self.describe(), name)?;
        let state = self.state();
        let blob = state.blobs.get(name).ok_or_else(|| self.not_found(name))?;
        if etag.is_some_and(|etag| *etag != blob.properties.etag) {
            return Err(self.changed(name));
        }
        check_range(&self.describe(), name, &range, blob.data.len() as u64)?;
        // Inside a `Bytes`, so both offsets fit in usize.
        Ok(blob.data.slice(range.start as usize..range.end as usize))
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.publish(name, data, &Served::default(), condition).await
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
        let mut state = self.state();
        let there = state.blobs.get(name).map(|blob| &blob.properties.etag);
        match (condition, there) {
            (Condition::Absent, Some(_)) => return Err(self.taken(name)),
            (Condition::Matches(wanted), there) if there != Some(&wanted) => return Err(self.changed(name)),
            (Condition::Absent | Condition::Matches(_) | Condition::Always, _) => {}
        }
        let etag = self.write(&mut state, name, data, Metadata::new()).etag;
        if let Some(blob) = state.blobs.get_mut(name) {
            blob.served = served.clone();
        }
        Ok(etag)
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        check_name(&self.describe(), name)?;
        let state = self.state();
        let there = state.blobs.get(name).ok_or_else(|| self.not_found(name))?;
        if there.properties.etag != *etag {
            return Err(self.changed(name));
        }
        Ok(there.served.clone())
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        let mut state = self.state();
        let there = state.blobs.get(name).ok_or_else(|| self.not_found(name))?;
        if there.properties.etag != *etag {
            return Err(self.changed(name));
        }
        state.blobs.remove(name);
        Ok(())
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        check_tags(&self.describe(), tags)?;
        let mut state = self.state();
        // Tags are not part of a version: the ETag stays, as in Azure.
        state.blobs.get_mut(name).ok_or_else(|| self.not_found(name))?.tags = tags.clone();
        Ok(())
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        check_name(&self.describe(), name)?;
        self.state()
            .blobs
            .get(name)
            .map(|blob| blob.tags.clone())
            .ok_or_else(|| self.not_found(name))
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        Ok(self.clock.now())
    }
}
