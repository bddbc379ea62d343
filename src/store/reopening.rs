//! Opens a store anew when access is refused: keys are rotated and SAS tokens expire while the agent runs.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::{BlobStore, BlockNumber, Condition, ETag, Limits, Metadata, Properties, Served, StoreError, Upload};

/// Resolves the secrets again and opens the store with them.
#[async_trait]
pub trait Opener: Send + Sync + std::fmt::Debug {
    async fn open(&self) -> Result<Arc<dyn BlobStore>, StoreError>;
}

#[async_trait]
impl<O: Opener + ?Sized> Opener for Arc<O> {
    async fn open(&self) -> Result<Arc<dyn BlobStore>, StoreError> {
        (**self).open().await
    }
}

/// A refusal right after opening is a refusal: the vault is not asked more often than this.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A layer that answers [`StoreError::Denied`] with fresh secrets and one more try. Belongs inside `Retrying`.
#[derive(Debug)]
pub struct Reopening<O> {
    opener: O,
    current: Mutex<Current>,
    /// One opening at a time; who waited finds the new store.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Current {
    store: Arc<dyn BlobStore>,
    opened: Instant,
    /// Not fresh from secrets that were just read: the first refusal may be answered at once.
    first: bool,
}

impl<O: Opener> Reopening<O> {
    /// # Errors
    /// Those of the opener.
    pub async fn open(opener: O) -> Result<Self, StoreError> {
        let current = Current {
            store: opener.open().await?,
            opened: Instant::now(),
            first: true,
        };
        Ok(Self {
            opener,
            current: Mutex::new(current),
            opening: tokio::sync::Mutex::default(),
        })
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store to try after `refused` was refused; `None` if fresh secrets were refused just now.
    async fn reopened(&self, refused: &Arc<dyn BlobStore>) -> Result<Option<Arc<dyn BlobStore>>, StoreError> {
        let _one = self.opening.lock().await;
        let current = self.current().clone();
        if !Arc::ptr_eq(&current.store, refused) {
            return Ok(Some(current.store));
        }
        if !current.first && current.opened.elapsed() < OPEN_AGAIN_AFTER {
            return Ok(None);
        }
        let opened = self.opener.open().await;
        let mut current = self.current();
        (current.opened, current.first) = (Instant::now(), false);
        current.store = opened?;
        Ok(Some(Arc::clone(&current.store)))
    }

    async fn with<T, F>(&self, call: impl Fn(Arc<dyn BlobStore>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let store = Arc::clone(&self.current().store);
        match call(Arc::clone(&store)).await {
            Err(denied @ StoreError::Denied { .. }) => match self.reopened(&store).await? {
                Some(store) => call(store).await,
                None => Err(denied),
            },
            result => result,
        }
    }
}

#[async_trait]
impl<O: Opener> BlobStore for Reopening<O> {
    fn describe(&self) -> String {
        self.current().store.describe()
    }

    fn limits(&self) -> Limits {
        self.current().store.limits()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        let data = &data;
        self.with(|store| async move { store.stage_block(upload, block, data.clone()).await })
            .await
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        self.with(|store| async move { store.commit(upload, blocks, metadata).await })
            .await
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        self.with(|store| async move { store.discard(upload).await }).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        self.with(|store| async move { store.list(prefix).await }).await
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.with(|store| async move { store.properties(name).await }).await
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let range = &range;
        self.with(|store| async move { store.read(name, range.clone(), etag).await })
            .await
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        let (data, condition) = (&data, &condition);
        self.with(|store| async move { store.put(name, data.clone(), condition.clone()).await })
            .await
    }

    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        let (data, condition) = (&data, &condition);
        self.with(|store| async move { store.publish(name, data.clone(), served, condition.clone()).await })
            .await
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        self.with(|store| async move { store.served(name, etag).await }).await
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.with(|store| async move { store.delete(name, etag).await }).await
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.with(|store| async move { store.set_tags(name, tags).await }).await
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.with(|store| async move { store.tags(name).await }).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.with(|store| async move { store.now().await }).await
    }
}
