//! Azure Blob Storage: a backup is one block blob, visible from its commit on.
//!
//! The only module that names the storage SDK. It bounds every call in time and repeats none; retries
//! are [`Retrying`](super::retrying::Retrying)'s. A commit whose answer was lost is recognised by the run
//! id in the blob's metadata.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::Etag;
use azure_core::http::headers::HeaderName;
use azure_core::time::{OffsetDateTime, parse_rfc7231};
use azure_storage_blob::models::{
    BlobClientGetPropertiesOptions, BlobClientGetPropertiesResultHeaders, BlobItem, StorageErrorCode,
};
use azure_storage_blob::{BlobClient, BlobContainerClient};
use jiff::Timestamp;
use url::Url;

use super::{BlobStore, ETag, Metadata, Properties, StoreError};
use crate::clock::Clock;

mod blob_store;
mod block_id;
mod connect;
mod errors;
mod shared_key;

pub use connect::AzureCredentialInput;
use errors::{Precondition, Subject, error_code};

/// A call that moves no data may take this long, with name lookup, handshake and token.
const CALL_BOUND: Duration = Duration::from_secs(30);
/// Slower than this is taken for a hang.
const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

/// One container of one storage account.
pub struct AzureStore {
    account: String,
    container: String,
    client: BlobContainerClient,
    /// Blobs in one page of a listing; `None` leaves it to the service (5,000).
    list_page: Option<i32>,
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
            list_page: None,
        })
    }

    /// Lists in pages of this many blobs; for tests of paging.
    pub fn with_list_page(self, blobs: u16) -> Self {
        Self {
            list_page: Some(i32::from(blobs)),
            ..self
        }
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

    /// A failed If-Match also is what the service may say of a blob that is gone altogether.
    async fn gone_or(&self, name: &str, failed: Failed) -> StoreError {
        match failed.error {
            changed @ StoreError::Changed { .. } => match self.properties(name).await {
                Ok(None) => StoreError::NotFound {
                    store: self.describe(),
                    name: name.to_owned(),
                },
                Ok(Some(_)) | Err(_) => changed,
            },
            error => error,
        }
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
