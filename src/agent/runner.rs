//! What the daemon drives, in its own words: something that makes, verifies, proves, surveys and prunes backups.

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::backup::entry::{BackupId, Entry};
use crate::backup::rpo::Rpo;

/// Why a run starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The schedule's tick, or keep-rpo's time.
    Schedule,
    /// After a start or a suspended machine: waiting for the next tick would lose more than promised.
    CatchUp,
    /// An earlier run failed, and so again.
    Retry,
}

/// A run that committed.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    pub id: BackupId,
    pub rows: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    pub seconds: f64,
    /// Longest time that locks were held on the source.
    pub lock_millis: u64,
    pub consistent_at: Timestamp,
    /// By the store's clock.
    pub committed_at: Timestamp,
    pub attempts: u32,
}

/// What is in the store, and what time it is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    pub entries: Vec<Entry>,
    pub store_now: Timestamp,
}

/// What a look at a backup found. It is written down before it is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Checked {
    Sound {
        members: usize,
        rows: u64,
        seconds: f64,
    },
    /// What is wrong, and where.
    Damaged {
        place: String,
    },
}

/// What came of restoring a backup on the scratch server. It is written down before it is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Proven {
    /// Restored, compared, and thrown away again.
    Restored {
        id: BackupId,
        server: String,
        tables: usize,
        rows: u64,
        restore_seconds: f64,
        compare_seconds: f64,
    },
    /// Restored, and not what the backup says: of the backup's doing or the server's, a person has to see.
    Different { id: BackupId, differences: Vec<String> },
    /// What is wrong, and where.
    Damaged { id: BackupId, place: String },
    /// There is no good backup.
    NothingGood,
}

/// Why a run, check, proof, survey or pruning did not end well. The text holds the whole chain of causes, and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    #[error("stopped because it was asked to")]
    Cancelled,
    /// Another run holds the lease.
    #[error("{0}")]
    Busy(String),
    /// Worth repeating soon.
    #[error("{0}")]
    Transient(String),
    /// A person has to change something; repeated only at the schedule's own pace.
    #[error("{0}")]
    Permanent(String),
}

impl RunError {
    /// Whether repeating it soon cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Cancelled | Self::Busy(_) | Self::Transient(_) => false,
            Self::Permanent(_) => true,
        }
    }
}

/// Makes backups. All of them end soon after `cancel` fires, leaving nothing half-made that anyone can see.
#[async_trait]
pub trait BackupRunner: Send + Sync + 'static {
    /// One backup, committed, or nothing.
    async fn run(&self, cancel: CancellationToken, trigger: Trigger) -> Result<RunSummary, RunError>;

    /// Checks the structure of a committed backup, and writes down what it found. Holds no lease.
    async fn verify(&self, cancel: CancellationToken, id: BackupId) -> Result<Checked, RunError>;

    /// Restores the newest good backup on the scratch server, compares, writes down what it found, and takes everything
    /// off that server again. Holds no lease, and touches neither the source nor a run.
    async fn prove(&self, cancel: CancellationToken) -> Result<Proven, RunError>;

    /// Every backup of this service with what was found out about it, and the store's time.
    async fn survey(&self, cancel: CancellationToken) -> Result<Survey, RunError>;

    /// Applies retention; says in a line what it did. `rpo` is the agent's own view: a breach holds everything.
    async fn prune(&self, cancel: CancellationToken, rpo: Rpo) -> Result<String, RunError>;
}
