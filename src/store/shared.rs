//! A store behind an `Arc` is a store: layers can share one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{BlobStore, BlockNumber, Condition, ETag, Limits, Metadata, Properties, Served, StoreError, Upload};

#[async_trait]
impl<S: BlobStore + ?Sized> BlobStore for Arc<S> {
    fn describe(&self) -> String {
        (**self).describe()
    }

    fn limits(&self) -> Limits {
        (**self).limits()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        (**self).stage_block(upload, block, data).await
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        (**self).commit(upload, blocks, metadata).await
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        (**self).discard(upload).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        (**self).list(prefix).await
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        (**self).properties(name).await
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        (**self).read(name, range, etag).await
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        (**self).put(name, data, condition).await
    }

    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        (**self).publish(name, data, served, condition).await
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        (**self).served(name, etag).await
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        (**self).delete(name, etag).await
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        (**self).set_tags(name, tags).await
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        (**self).tags(name).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        (**self).now().await
    }
}
