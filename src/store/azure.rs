//! Azure Blob Storage: a backup is one block blob, visible from its commit on.
//!
//! The only module that names the storage SDK. It bounds every call in time and repeats none; retries
//! are [`Retrying`](super::retrying::Retrying)'s. A commit whose answer was lost is recognised by the run
//! id in the blob's metadata.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::Etag;
use azure_core::http::headers::HeaderName;
use azure_core::time::{OffsetDateTime, parse_rfc7231};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesOptions,
    BlobClientGetPropertiesResultHeaders, BlobClientUploadOptions, BlobContainerClientListBlobsOptions, BlobItem,
    BlobTags, BlockBlobClientCommitBlockListOptions, BlockBlobClientStageBlockOptions, BlockLookupList, HttpRange,
    ListBlobsIncludeItem, StorageErrorCode,
};
use azure_storage_blob::{BlobClient, BlobContainerClient};
use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use md5::{Digest, Md5};
use url::Url;

use super::names::{check_blocks, check_metadata, check_name, check_range, check_tags, check_upload};
use super::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, RUN_ID_KEY, StoreError, Upload};
use crate::clock::Clock;

mod block_id;
mod connect;
mod errors;
mod shared_key;

pub use connect::AzureCredentialInput;
use errors::{Precondition, Subject, error_code};

/// A call that moves no data may take this long, with name lookup, handshake and token.
const CALL_BOUND: Duration = Duration::from_secs(30);
/// The service puts up to 50,000 blocks together before it answers.
const COMMIT_BOUND: Duration = Duration::from_secs(120);
/// Slower than this is taken for a hang.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;
/// Asked for to read the service's clock; there need be no such blob.
const CLOCK_PROBE: &str = "planb-clock";

/// One container of one storage account.
pub struct AzureStore {
    account: String,
    container: String,
    client: BlobContainerClient,
}

impl std::fmt::Debug for AzureStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AzureStore").field(&self.describe()).finish()
    }
}

impl AzureStore {
    /// Prepares a client; nothing is sent yet. `clock` dates signatures (account key only). Without
    /// `endpoint` it is `https://ACCOUNT.blob.core.windows.net/`.
    ///
    /// # Errors
    /// `Invalid` for an endpoint that is neither https nor loopback, or a token without https.
    pub fn open(
        account: &str,
        container: &str,
        endpoint: Option<&Url>,
        auth: &AzureCredentialInput,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let shown = format!("azblob://{account}/{container}");
        let client = connect::container_client(&shown, account, container, endpoint, auth, clock)?;
        Ok(Self {
            account: account.to_owned(),
            container: container.to_owned(),
            client,
        })
    }

    /// Makes the container if it is not there; for tests and emulators. Production names the command
    /// instead: the agent's role should not be able to make containers.
    pub async fn create_container(&self) -> Result<(), StoreError> {
        match self
            .call("", CALL_BOUND, Precondition::None, self.client.create(None))
            .await
        {
            Ok(_) => Ok(()),
            Err(Failed {
                code: Some(StorageErrorCode::ContainerAlreadyExists),
                ..
            }) => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }

    fn blob(&self, name: &str) -> BlobClient {
        self.client.blob_client(name)
    }

    /// Waits for `call` no longer than `bound`, and puts its error into our words.
    async fn call<T>(
        &self,
        blob: &str,
        bound: Duration,
        on_precondition: Precondition,
        call: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Failed> {
        let store = self.describe();
        match tokio::time::timeout(bound, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let subject = Subject {
                    store: &store,
                    account: &self.account,
                    container: &self.container,
                    blob,
                };
                Err(Failed {
                    code: error_code(&error),
                    date: error_date(&error),
                    error: subject.map(&error, on_precondition),
                })
            }
            Err(_) => Err(Failed {
                code: None,
                date: None,
                error: StoreError::Unavailable {
                    store,
                    detail: format!("no answer within {} s", bound.as_secs()),
                },
            }),
        }
    }

    fn senseless(&self, what: &str) -> StoreError {
        StoreError::Invalid {
            store: self.describe(),
            detail: format!("the answer has no sensible {what}"),
        }
    }

    fn timestamp(&self, time: Option<OffsetDateTime>) -> Result<Timestamp, StoreError> {
        time.and_then(|t| Timestamp::from_second(t.unix_timestamp()).ok())
            .ok_or_else(|| self.senseless("date"))
    }

    fn listed(&self, item: BlobItem) -> Result<Properties, StoreError> {
        let properties = item.properties.ok_or_else(|| self.senseless("properties"))?;
        let metadata = item.metadata.and_then(|metadata| metadata.values).unwrap_or_default();
        Ok(Properties {
            name: item.name.ok_or_else(|| self.senseless("name"))?,
            size_bytes: properties.content_length.ok_or_else(|| self.senseless("length"))?,
            etag: from_service(properties.etag).ok_or_else(|| self.senseless("ETag"))?,
            last_modified: self.timestamp(properties.last_modified)?,
            metadata: lower_case(metadata),
        })
    }

    async fn look(&self, name: &str, etag: Option<&ETag>) -> Result<Properties, Failed> {
        let options = BlobClientGetPropertiesOptions {
            if_match: etag.map(to_service),
            ..Default::default()
        };
        let blob = self.blob(name);
        let answer = self
            .call(
                name,
                CALL_BOUND,
                Precondition::Changed,
                blob.get_properties(Some(options)),
            )
            .await?;
        let read = || -> azure_core::Result<_> {
            Ok((
                answer.content_length()?,
                answer.etag()?,
                answer.last_modified()?,
                answer.metadata()?,
            ))
        };
        let (length, etag, modified, metadata) = read().map_err(|_| self.senseless("properties"))?;
        Ok(Properties {
            name: name.to_owned(),
            size_bytes: length.ok_or_else(|| self.senseless("length"))?,
            etag: from_service(etag).ok_or_else(|| self.senseless("ETag"))?,
            last_modified: self.timestamp(modified)?,
            metadata: lower_case(metadata),
        })
    }
}

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
        self.call(&upload.name, transfer_bound(bytes), Precondition::None, call)
            .await?;
        Ok(())
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
            let found = self.look(name, etag).await?;
            check_range(&self.describe(), name, &range, found.size_bytes)?;
            return Ok(Bytes::new());
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
            Err(failed) => return Err(failed.error),
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
        check_name(&self.describe(), name)?;
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
            blob_content_type: Some("application/octet-stream".to_owned()),
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

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        check_name(&self.describe(), name)?;
        let options = BlobClientDeleteOptions {
            if_match: Some(to_service(etag)),
            ..Default::default()
        };
        let blob = self.blob(name);
        self.call(name, CALL_BOUND, Precondition::Changed, blob.delete(Some(options)))
            .await?;
        Ok(())
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

/// A failed call, with what only this module may know of it.
struct Failed {
    code: Option<StorageErrorCode>,
    date: Option<OffsetDateTime>,
    error: StoreError,
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self {
            code: None,
            date: None,
            error,
        }
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

const DATE: HeaderName = HeaderName::from_static("date");

fn error_date(error: &azure_core::Error) -> Option<OffsetDateTime> {
    match error.kind() {
        azure_core::error::ErrorKind::HttpResponse {
            raw_response: Some(response),
            ..
        } => response
            .headers()
            .get_optional_str(&DATE)
            .and_then(|date| parse_rfc7231(date).ok()),
        _ => None,
    }
}

fn transfer_bound(bytes: u64) -> Duration {
    CALL_BOUND + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

/// Headers have the ETag in quotes, listings do not: ours never has.
fn from_service(etag: Option<Etag>) -> Option<ETag> {
    etag.map(|etag| ETag(etag.as_ref().trim_matches('"').to_owned()))
}

fn to_service(etag: &ETag) -> Etag {
    Etag::from(format!("\"{}\"", etag.0))
}

/// Header names have no case: what comes back is not always what was sent.
fn lower_case(metadata: HashMap<String, String>) -> Metadata {
    metadata
        .into_iter()
        .map(|(key, value)| (key.to_ascii_lowercase(), value))
        .collect()
}
