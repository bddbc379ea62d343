//! Where backups live: named blobs that appear whole or not at all.
//!
//! One trait, in our words; every outside system behind it is one file (`azure.rs` is the only one
//! that names the Azure SDK). Retries and faults are layers around a store, never inside one. Every
//! implementation passes `tests/store_contract.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub mod azure;
pub mod blob;
pub mod directory;
pub mod faulty;
pub mod https;
pub mod memory;
mod names;
pub mod reopening;
pub mod retrying;
mod shared;

/// Small facts kept beside a blob. Names are lower-case ASCII letters, digits and `_`, no digit first; values are
/// printable ASCII, not empty, without a space at either end; 8 KiB in all.
pub type Metadata = BTreeMap<String, String>;

/// One attempt to publish one blob. Blocks staged under another `run_id` never mix with ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Full blob name inside the container, e.g. `backups/backup-20251227-030000.sql.gz`.
    pub name: String,
    /// Random for each attempt, lower-case hex. Written into the blob's metadata as `planb_run`, which
    /// is how a commit whose answer was lost is recognised as our own.
    pub run_id: String,
}

/// Metadata key that carries [`Upload::run_id`].
pub const RUN_ID_KEY: &str = "planb_run";

/// Number of a block within an upload; the order in the blob is given at commit.
pub type BlockNumber = u32;

/// Identifies one version of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// What a store says about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    pub name: String,
    pub size_bytes: u64,
    pub etag: ETag,
    /// By the store's clock.
    pub last_modified: Timestamp,
    pub metadata: Metadata,
}

/// When a small blob may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Only if no blob has this name.
    Absent,
    /// Only if the blob is still this version.
    Matches(ETag),
    /// In any case.
    Always,
}

/// How a blob is handed to browsers. Values are printable ASCII without a space at either end, not empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// E.g. `text/html; charset=utf-8`.
    pub content_type: String,
    /// E.g. `public, max-age=60`; nothing is said where this is none.
    pub cache_control: Option<String>,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            content_type: "application/octet-stream".to_owned(),
            cache_control: None,
        }
    }
}

/// What one store can take in one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_blocks: u32,
    pub max_block_bytes: u64,
}

/// Azure's limits for a block blob (50,000 blocks of at most 4,000 MiB), used for every store so that a
/// backup can be moved between them.
/// Source: <https://learn.microsoft.com/azure/storage/blobs/scalability-targets>
pub const BLOCK_BLOB_LIMITS: Limits = Limits {
    max_blocks: 50_000,
    max_block_bytes: 4_000 * 1024 * 1024,
};

/// One container of blobs.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// The store as a person would name it in a message; never holds a secret.
    fn describe(&self) -> String;

    fn limits(&self) -> Limits {
        BLOCK_BLOB_LIMITS
    }

    /// Uploads one block of `upload`. Nothing can see it before [`commit`](Self::commit). Staging a
    /// number again replaces the block. Safe to repeat and to call concurrently.
    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError>;

    /// Publishes the staged blocks, in this order, as one blob, or nothing. Durable when it returns.
    /// Refuses with [`StoreError::AlreadyExists`] if the name is taken, unless the blob there carries
    /// this upload's run id: then our own earlier commit succeeded and only its answer was lost.
    /// Each block once; a block that was not staged is [`StoreError::Invalid`].
    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError>;

    /// Forgets what was staged and not committed. Best effort where the store drops it by itself in time.
    async fn discard(&self, upload: &Upload) -> Result<(), StoreError>;

    /// Every committed blob whose name starts with `prefix`, by name, with metadata.
    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError>;

    /// One blob's properties; `None` if there is no such blob.
    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError>;

    /// Reads `range` (bytes, end exclusive, inside the blob). With `etag`, refuses with
    /// [`StoreError::Changed`] if the blob is another version by now. Never returns fewer bytes than asked.
    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError>;

    /// Writes a small blob in one go. [`Condition::Absent`] on a taken name is
    /// [`StoreError::AlreadyExists`]; a failed [`Condition::Matches`] is [`StoreError::Changed`].
    ///
    /// When an answer was lost and the call repeated (`Retrying`), equal bytes count as our own success, and
    /// `Changed` may mean "written, and replaced since". So writers that compete put a mark of their own (a
    /// random id, or epoch and sequence number) into the bytes, and look for it after a refusal.
    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError>;

    /// Like [`put`](Self::put), for a blob that browsers read: `served` goes with that version of it, and with no other.
    async fn publish(&self, name: &str, data: Bytes, served: &Served, condition: Condition)
    -> Result<ETag, StoreError>;

    /// How that version of a blob is served; of one that was merely put, [`Served::default`]. [`StoreError::Changed`] if it is
    /// another version, `NotFound` if gone.
    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError>;

    /// Deletes that version of the blob. [`StoreError::Changed`] if it is another one, `NotFound` if gone.
    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError>;

    /// Replaces the blob's index tags (Azure: what a lifecycle rule can match).
    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError>;

    /// The blob's index tags; empty if none were set.
    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError>;

    /// The time by the store's own clock: the one clock that all who share a store can agree on.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}

/// A store's refusal, named for what the caller does next. Never holds a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Worth trying again: network, time-out, 5xx, throttled.
    #[error("the store {store} is not answering ({detail}); it will be tried again")]
    Unavailable { store: String, detail: String },
    #[error("{name} already exists in {store}")]
    AlreadyExists { store: String, name: String },
    #[error("{name} in {store} was changed by somebody else meanwhile")]
    Changed { store: String, name: String },
    #[error("{name} is not in {store}")]
    NotFound { store: String, name: String },
    #[error("the container of {store} does not exist; create it first ({hint})")]
    NoContainer { store: String, hint: String },
    #[error(
        "{store} refused access ({detail}); check [store] auth and the role assignments in config/azure-roles.json"
    )]
    Denied { store: String, detail: String },
    #[error("no space left in {store} ({detail})")]
    NoSpace { store: String, detail: String },
    /// A request that can never succeed, or an answer that makes no sense.
    #[error("{store}: {detail}")]
    Invalid { store: String, detail: String },
}

impl StoreError {
    /// Whether repeating the same call cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unavailable { .. } => false,
            Self::AlreadyExists { .. }
            | Self::Changed { .. }
            | Self::NotFound { .. }
            | Self::NoContainer { .. }
            | Self::Denied { .. }
            | Self::NoSpace { .. }
            | Self::Invalid { .. } => true,
        }
    }
}
