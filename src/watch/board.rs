//! What watchers share: small blobs in the control store. Each writes its own observation; what they hold in common is changed by
//! compare-and-swap, so that of several who would change it one does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::auto::Shot;
use super::concern::Concerns;
use super::quorum::{Found, Observation};
use super::verdict::Ruling;
use crate::store::{BlobStore, Condition, ETag, StoreError};

/// An observation or ruling is a page at most.
const LARGEST_BYTES: u64 = 256 << 10;

/// One service's watchers.
#[derive(Debug, Clone)]
pub struct Board {
    store: Arc<dyn BlobStore>,
    /// Ends with `/`.
    prefix: String,
}

/// Of a blob that is replaced while it is read.
const TRIES: u32 = 3;

/// What was read, or why it cannot be.
type Gotten<T> = (Option<Result<T, String>>, Condition);

/// What was read, and which version it is. Without: nothing is there.
pub type Versioned<T> = (Option<T>, Condition);

/// What a person is told about why it was left to people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Refrained {
    pub v: u32,
    /// Number of the ruling.
    pub ruling: u64,
    /// Names of the reasons, and what they say.
    pub names: Vec<String>,
    pub texts: Vec<String>,
    pub run: String,
    /// The watcher that tells it.
    #[serde(default)]
    pub by: String,
}

impl Board {
    /// `key` tells prefixes of one container apart; see `backup::claim::key`.
    pub fn new(store: Arc<dyn BlobStore>, key: &str) -> Self {
        Self {
            store,
            prefix: format!("watch/{key}/"),
        }
    }

    /// # Errors
    /// The store's.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        self.store.now().await
    }

    /// What it is when it does not answer at all.
    pub fn no_answer(&self, within: Duration) -> StoreError {
        StoreError::Unavailable {
            store: self.store.describe(),
            detail: format!("no answer within {} s", within.as_secs()),
        }
    }

    fn seen(&self, watcher: &str) -> String {
        format!("{}seen/{watcher}.json", self.prefix)
    }

    /// Replaces what this watcher wrote before. Nobody else writes there.
    ///
    /// # Errors
    /// The store's.
    pub async fn publish(&self, observation: &Observation) -> Result<(), StoreError> {
        let bytes = Bytes::from(serde_json::to_vec(observation).unwrap_or_default());
        let name = self.seen(&observation.watcher);
        self.store.put(&name, bytes, Condition::Always).await.map(|_| ())
    }

    /// What every one of `watchers` wrote last; one that cannot be read takes nothing from the others.
    ///
    /// # Errors
    /// The store's, if it does not answer.
    pub async fn read(&self, watchers: &[String]) -> Result<BTreeMap<String, Found>, StoreError> {
        let read = watchers.iter().map(|watcher| async move {
            let found = match self.get::<Observation>(&self.seen(watcher)).await {
                Ok((Some(Ok(observation)), _)) => Ok(Some(observation)),
                Ok((Some(Err(why)), _)) => Err(why),
                Ok((None, _)) => Ok(None),
                Err(error) => return Err(error),
            };
            Ok((watcher.clone(), found))
        });
        futures_util::future::try_join_all(read)
            .await
            .map(|found| found.into_iter().collect())
    }

    /// # Errors
    /// The store's. What cannot be read is taken for nothing, and replaced.
    pub async fn ruling(&self) -> Result<Versioned<Ruling>, StoreError> {
        self.shared("ruling").await
    }

    /// Whether it was written, by this call: then this caller tells people.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_ruling(&self, ruling: &Ruling, was: Condition) -> Result<bool, StoreError> {
        self.swap("ruling", ruling, was).await
    }

    /// # Errors
    /// The store's; [`StoreError::Invalid`] where it cannot be read: nobody acts on a guess.
    pub async fn shot(&self) -> Result<Versioned<Shot>, StoreError> {
        let name = format!("{}auto.json", self.prefix);
        match self.get(&name).await? {
            (Some(Ok(shot)), condition) => Ok((Some(shot), condition)),
            (None, condition) => Ok((None, condition)),
            (Some(Err(why)), _) => Err(StoreError::Invalid {
                store: self.store.describe(),
                detail: format!("{name}: {why}; nothing is begun automatically before a person has removed it"),
            }),
        }
    }

    /// As [`set_ruling`](Self::set_ruling).
    ///
    /// # Errors
    /// The store's.
    pub async fn set_shot(&self, shot: &Shot, was: Condition) -> Result<bool, StoreError> {
        self.swap("auto", shot, was).await
    }

    /// # Errors
    /// The store's.
    pub async fn refrained(&self) -> Result<Versioned<Refrained>, StoreError> {
        self.shared("refrained").await
    }

    /// As [`set_ruling`](Self::set_ruling).
    ///
    /// # Errors
    /// The store's.
    pub async fn set_refrained(&self, refrained: &Refrained, was: Condition) -> Result<bool, StoreError> {
        self.swap("refrained", refrained, was).await
    }

    /// # Errors
    /// The store's.
    pub async fn concerns(&self) -> Result<Versioned<Concerns>, StoreError> {
        self.shared("concerns").await
    }

    /// As [`set_ruling`](Self::set_ruling).
    ///
    /// # Errors
    /// The store's.
    pub async fn set_concerns(&self, concerns: &Concerns, was: Condition) -> Result<bool, StoreError> {
        self.swap("concerns", concerns, was).await
    }

    async fn shared<T: DeserializeOwned>(&self, name: &str) -> Result<Versioned<T>, StoreError> {
        let (value, condition) = self.get(&format!("{}{name}.json", self.prefix)).await?;
        Ok((value.and_then(Result::ok), condition))
    }

    /// Watchers go at the same pace: whoever reads while another writes might do so in every round.
    async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Gotten<T>, StoreError> {
        for _ in 1..TRIES {
            if let Some(found) = self.get_once(name).await? {
                return Ok(found);
            }
        }
        let found = self.get_once(name).await?;
        Ok(found.unwrap_or_else(|| {
            (
                Some(Err("it is being replaced again and again".to_owned())),
                Condition::Absent,
            )
        }))
    }

    /// None: it was replaced between the two requests.
    async fn get_once<T: DeserializeOwned>(&self, name: &str) -> Result<Option<Gotten<T>>, StoreError> {
        let Some(blob) = self.store.properties(name).await? else {
            return Ok(Some((None, Condition::Absent)));
        };
        let etag: ETag = blob.etag;
        if blob.size_bytes > LARGEST_BYTES {
            let why = format!("{} bytes are too many", blob.size_bytes);
            return Ok(Some((Some(Err(why)), Condition::Matches(etag))));
        }
        match self.store.read(name, 0..blob.size_bytes, Some(&etag)).await {
            Ok(bytes) => {
                let value = serde_json::from_slice(&bytes).map_err(|error| format!("it cannot be read ({error})"));
                Ok(Some((Some(value), Condition::Matches(etag))))
            }
            Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every value carries its writer's run, so that no two are the same bytes.
    async fn swap<T: Serialize>(&self, name: &str, value: &T, was: Condition) -> Result<bool, StoreError> {
        let name = format!("{}{name}.json", self.prefix);
        let bytes = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
        match self.store.put(&name, bytes.clone(), was).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Changed { .. }) => self.holds(&name, &bytes).await,
            // It may have landed, and only the answer was lost.
            Err(error @ StoreError::Unavailable { .. }) => match self.holds(&name, &bytes).await {
                Ok(true) => Ok(true),
                Ok(false) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn holds(&self, name: &str, bytes: &Bytes) -> Result<bool, StoreError> {
        let Some(blob) = self.store.properties(name).await? else {
            return Ok(false);
        };
        match self.store.read(name, 0..blob.size_bytes, Some(&blob.etag)).await {
            Ok(there) => Ok(there == *bytes),
            Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
