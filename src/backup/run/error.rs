//! Why a run ended, named for what the caller does next.

use std::time::Duration;

use jiff::Timestamp;

use crate::backup::claim::ClaimError;
use crate::backup::entry::BackupId;
use crate::backup::lease::LeaseError;
use crate::dump::AttemptError;
use crate::recovery::plan::Site;
use crate::source::login::LoginError;
use crate::store::StoreError;

/// Why a run ended without a backup.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Attempt(#[from] AttemptError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the clock stands at {now}, but the newest backup is of {newest}: the clock was set back, and a new backup would look \
         older than that one; correct the clock"
    )]
    ClockSetBack { now: Timestamp, newest: Timestamp },
    #[error(
        "the source is a replica whose data is of {at}, older than the newest backup of {newest}: it has not moved on since"
    )]
    ReplicaBehind { at: Timestamp, newest: Timestamp },
    #[error("no attempt succeeded within {limit:?}; the last one failed: {last}")]
    OutOfTime { limit: Duration, last: String },
    #[error("{attempts} attempts failed, the last one so: {last}")]
    TooManyAttempts { attempts: u32, last: String },
    #[error(
        "the {0} does not serve (a failover moved the service, or is about to), so nothing of it is published as a backup; planb \
         status shows who serves"
    )]
    NotServing(Site),
    /// Another run holds the lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error("the lease on this service's runs was lost, so nothing was published: somebody else may be at it by now")]
    LeaseLost,
    #[error("cancelled; what had not been published by then was dropped")]
    Cancelled,
    #[error("stopped, but {0} had been published by then: it is whole and stays")]
    StoppedAfterCommit(BackupId),
    #[error("stopped while {0} was being published, and nobody knows yet whether it was; planb backups tells")]
    StoppedInCommit(BackupId),
}

impl RunError {
    /// Whether the next run cannot do better unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Claim(error) => error.is_permanent(),
            Self::Login(error) => error.is_permanent(),
            Self::Attempt(error) => error.is_permanent(),
            Self::Store(error) => error.is_permanent(),
            Self::Lease(LeaseError::Held { .. }) | Self::ClockSetBack { .. } | Self::NotServing(_) => true,
            Self::Lease(error) => error.is_permanent(),
            Self::ReplicaBehind { .. }
            | Self::OutOfTime { .. }
            | Self::TooManyAttempts { .. }
            | Self::LeaseLost
            | Self::StoppedAfterCommit(_)
            | Self::StoppedInCommit(_)
            | Self::Cancelled => false,
        }
    }
}
