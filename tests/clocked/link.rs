//! One client's way to a store that others share: it can be cut.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use planb::store::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, Served, StoreError, Upload};

use super::Clocked;

#[derive(Debug, Clone)]
pub struct Link {
    pub to: Arc<Clocked>,
    pub is_cut: Arc<AtomicBool>,
    pub takes: Duration,
}

impl Link {
    async fn pass(&self) -> Result<(), StoreError> {
        tokio::time::sleep(self.takes).await;
        if self.is_cut.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(StoreError::Unavailable {
                store: "clocked".into(),
                detail: "cut".into(),
            });
        }
        Ok(())
    }
}

#[async_trait]
impl BlobStore for Link {
    fn describe(&self) -> String {
        self.to.describe()
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
        self.pass().await?;
        self.to.properties(name).await
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.pass().await?;
        self.to.read(name, range, etag).await
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.pass().await?;
        self.to.put(name, data, condition).await
    }

    async fn publish(&self, _: &str, _: Bytes, _: &Served, _: Condition) -> Result<ETag, StoreError> {
        unimplemented!("not a store for pages")
    }

    async fn served(&self, _: &str, _: &ETag) -> Result<Served, StoreError> {
        unimplemented!("not a store for pages")
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.pass().await?;
        self.to.delete(name, etag).await
    }

    async fn set_tags(&self, _: &str, _: &BTreeMap<String, String>) -> Result<(), StoreError> {
        unimplemented!("not a store for backups")
    }

    async fn tags(&self, _: &str) -> Result<BTreeMap<String, String>, StoreError> {
        unimplemented!("not a store for backups")
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.pass().await?;
        self.to.now().await
    }
}
