//! The calls of [`BlobStore`], each in one or two requests.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::time::parse_rfc7231;
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesOptions,
    BlobClientGetPropertiesResultHeaders, BlobClientUploadOptions, BlobContainerClientListBlobsOptions, BlobTags,
    BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockLookupList, HttpRange,
    ListBlobsIncludeItem, StorageErrorCode,
};
use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use md5::{Digest, Md5};

use super::errors::Precondition;
use super::{AzureStore, CALL_BOUND, DATE, Failed, block_id, from_service, to_service, transfer_bound};
use crate::store::names::{
    check_blocks, check_metadata, check_name, check_range, check_served, check_tags, check_upload,
};
use crate::store::{
    BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, RUN_ID_KEY, Served, StoreError, Upload,
};

/// The service puts up to 50,000 blocks together before it answers.
const COMMIT_BOUND: Duration = Duration::from_secs(120);
/// Asked for to read the service's clock; there need be no such blob.
const CLOCK_PROBE: &str = "planb-clock";

#[async_trait]
impl BlobStore for AzureStore {
    fn describe(&self) -> String {
        format!("azblob://{}/{}", self.account, self.container)
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        check_upload(&self.describe(), upload)?;
        let bytes = data.len() as u64;
        // A hash for the service to check: what is stored is what was sent.
        let to_hash = data.clone();
        let md5 = tokio::task::spawn_blocking(move || Md5::digest(&to_hash).to_vec())
            .await
            .map_err(|e| StoreError::Unavailable {
                store: self.describe(),
                detail: format!("hashing ended: {e}"),
            })?;
        let options = BlockBlobClientStageBlockOptions {
            transactional_content_md5: Some(md5),
            ..Default::default()
        };
        let client = self.blob(&upload.name).block_blob_client();
        let id = block_id::block_id(&upload.run_id, block);
        let call = client.stage_block(&id, bytes, data.into(), Some(options));
        match self
            .call(&upload.name, transfer_bound(bytes), Precondition::None, call)
            .await
        {
            Ok(_) => Ok(()),
            // What the emulator says, instead of Md5Mismatch, of a block that was damaged on its way.
            Err(Failed {
                code: Some(StorageErrorCode::InvalidOperation),
                ..
            }) => Err(StoreError::Unavailable {
                store: self.describe(),
                detail: format!("block {block} was refused (InvalidOperation), perhaps damaged on its way"),
            }),
            Err(failed) => Err(failed.error),
        }
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
        let ids = blocks
            .iter()
            .map(|block| block_id::block_id(&upload.run_id, *block))
            .collect();
        let list = BlockLookupList {
            latest: Some(ids),
            ..Default::default()
        };
        let list = list.try_into().map_err(|_| self.senseless("block list"))?;
        let mut metadata: HashMap<String, String> = metadata.clone().into_iter().collect();
        metadata.insert(RUN_ID_KEY.to_owned(), upload.run_id.clone());
        let options = BlockBlobClientCommitBlockListOptions {
            if_none_match: Some("*".into()),
            metadata: Some(metadata),
            blob_content_type: Some("application/octet-stream".to_owned()),
            ..Default::default()
        };
        let client = self.blob(&upload.name).block_blob_client();
        let call = client.commit_block_list(list, Some(options));
        let refused = match self.call(&upload.name, COMMIT_BOUND, Precondition::Taken, call).await {
            Ok(_) => None,
            // Somebody's commit under this name, perhaps our own, drops all other staged blocks; the service
            // may complain of those first.
            Err(Failed {
                code: Some(StorageErrorCode::InvalidBlockList),
                error,
                ..
            }) => Some(error),
            Err(Failed {
                error: error @ StoreError::AlreadyExists { .. },
                ..
            }) => Some(error),
            Err(failed) => return Err(failed.error),
        };
        // The answer to a commit has no size; and a refusal may be our own earlier success.
        match (self.properties(&upload.name).await?, refused) {
            (Some(there), _) if there.metadata.get(RUN_ID_KEY) == Some(&upload.run_id) => Ok(there),
            (Some(_), _) => Err(StoreError::AlreadyExists {
                store: self.describe(),
                name: upload.name.clone(),
            }),
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(StoreError::NotFound {
                store: self.describe(),
                name: upload.name.clone(),
            }),
        }
    }

    /// Nothing to do: the service drops uncommitted blocks after a week, or when any blob is committed or put
    /// under the name. There is no call that removes them sooner without making a blob.
    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        check_upload(&self.describe(), upload)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            include: Some(vec![ListBlobsIncludeItem::Metadata]),
            maxresults: self.list_page,
            ..Default::default()
        };
        let begun = async { self.client.list_blobs(Some(options)) };
        let mut pages = self.call("", CALL_BOUND, Precondition::None, begun).await?.into_pages();
        let mut found = Vec::new();
        while let Some(page) = self.call("", CALL_BOUND, Precondition::None, pages.try_next()).await? {
            let page = self
                .call("", CALL_BOUND, Precondition::None, async { page.into_model() })
                .await?;
            for item in page.blob_items {
                found.push(self.listed(item)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        check_name(&self.describe(), name)?;
        match self.look(name, None).await.map_err(|failed| failed.error) {
            Ok(found) => Ok(Some(found)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        check_name(&self.describe(), name)?;
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let Some(whole_range) = NonZero::new(wanted) else {
            // HTTP knows no empty range: what is left to check is that the blob is there.
            return match self.look(name, etag).await {
                Ok(found) => check_range(&self.describe(), name, &range, found.size_bytes).map(|()| Bytes::new()),
                Err(failed) => Err(self.gone_or(name, failed).await),
            };
        };
        let options = BlobClientDownloadOptions {
            range: Some(HttpRange::from(range.clone())),
            if_match: etag.map(to_service),
            // One request: the SDK's own splitting would hide which part failed.
            partition_size: Some(whole_range),
            parallel: NonZero::new(1),
            ..Default::default()
        };
        let blob = self.blob(name);
        let download = async { blob.download(Some(options)).await?.body.collect().await };
        let data = match self
            .call(name, transfer_bound(wanted as u64), Precondition::Changed, download)
            .await
        {
            Ok(data) => data,
            // Beyond the end, which the caller must not ask for.
            Err(Failed {
                code: Some(StorageErrorCode::InvalidRange),
                error,
                ..
            }) => {
                let found = self.look(name, etag).await?;
                check_range(&self.describe(), name, &range, found.size_bytes)?;
                return Err(error);
            }
            Err(failed) => return Err(self.gone_or(name, failed).await),
        };
        if data.len() != wanted {
            let found = self.look(name, etag).await?;
            check_range(&self.describe(), name, &range, found.size_bytes)?;
            let detail = format!("{} of {wanted} bytes of {name} arrived", data.len());
            return Err(StoreError::Unavailable {
                store: self.describe(),
                detail,
            });
        }
        Ok(data)
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
        let bytes = data.len() as u64;
        let (if_match, if_none_match, on_precondition) = match &condition {
            Condition::Absent => (None, Some("*".into()), Precondition::Taken),
            Condition::Matches(etag) => (Some(to_service(etag)), None, Precondition::Changed),
            Condition::Always => (None, None, Precondition::None),
        };
        let options = BlobClientUploadOptions {
            if_match,
            if_none_match,
            // One request, so that it is atomic.
            partition_size: NonZero::new(bytes.max(1)),
            blob_content_type: Some(served.content_type.clone()),
            blob_cache_control: served.cache_control.clone(),
            ..Default::default()
        };
        let blob = self.blob(name);
        let call = blob.upload(data.into(), Some(options));
        let answer = self
            .call(name, transfer_bound(bytes), on_precondition, call)
            .await
            .map_err(|failed| {
                match (&condition, failed.error) {
                    // The version asked for is gone with its blob.
                    (Condition::Matches(_), StoreError::NotFound { store, name }) => {
                        StoreError::Changed { store, name }
                    }
                    (_, error) => error,
                }
            })?;
        from_service(answer.etag).ok_or_else(|| self.senseless("ETag"))
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        check_name(&self.describe(), name)?;
        let options = BlobClientGetPropertiesOptions {
            if_match: Some(to_service(etag)),
            ..Default::default()
        };
        let blob = self.blob(name);
        let call = blob.get_properties(Some(options));
        let answer = match self.call(name, CALL_BOUND, Precondition::Changed, call).await {
            Ok(answer) => answer,
            Err(failed) => return Err(self.gone_or(name, failed).await),
        };
        let read = || -> azure_core::Result<_> { Ok((answer.content_type()?, answer.cache_control()?)) };
        let (content_type, cache_control) = read().map_err(|_| self.senseless("properties"))?;
        Ok(Served {
            content_type: content_type.ok_or_else(|| self.senseless("content type"))?,
            cache_control: cache_control.filter(|said| !said.is_empty()),
        })
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        let options = BlobClientDeleteOptions {
            if_match: Some(to_service(etag)),
            ..Default::default()
        };
        let blob = self.blob(name);
        match self
            .call(name, CALL_BOUND, Precondition::Changed, blob.delete(Some(options)))
            .await
        {
            Ok(_) => Ok(()),
            Err(failed) => Err(self.gone_or(name, failed).await),
        }
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        check_tags(&self.describe(), tags)?;
        let tags: HashMap<String, String> = tags.clone().into_iter().collect();
        let body = BlobTags::from(tags).try_into().map_err(|_| self.senseless("tags"))?;
        let blob = self.blob(name);
        self.call(name, CALL_BOUND, Precondition::None, blob.set_tags(body, None))
            .await?;
        Ok(())
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        check_name(&self.describe(), name)?;
        let blob = self.blob(name);
        let read = async { blob.get_tags(None).await?.into_model() };
        let tags = self.call(name, CALL_BOUND, Precondition::None, read).await?;
        Ok(HashMap::from(tags).into_iter().collect())
    }

    /// To the second. Asks for a blob that need not be there: any answer of the service has a date, and
    /// reading is the one right that every credential has.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        let blob = self.blob(CLOCK_PROBE);
        let date = match self
            .call(CLOCK_PROBE, CALL_BOUND, Precondition::None, blob.get_properties(None))
            .await
        {
            Ok(answer) => answer
                .headers()
                .get_optional_str(&DATE)
                .and_then(|date| parse_rfc7231(date).ok()),
            Err(Failed {
                date,
                error: StoreError::NotFound { .. },
                ..
            }) => date,
            Err(failed) => return Err(failed.error),
        };
        self.timestamp(date)
    }
}
