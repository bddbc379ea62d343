//! One restore at a time on a target: held by a session, for as long as somebody is there to say so.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::{ledger, load};
use crate::mysql::{DbError, Session};

/// Claims the target, and ends what an earlier restore's sessions still do there.
pub async fn take_hold(control: &mut Session, cancel: &CancellationToken) -> Result<(), RestoreError> {
    // Kept through the longest key build; the lock goes with the session.
    control.execute("SET SESSION wait_timeout = 86400").await?;
    if !ledger::lock(control).await? {
        return Err(RestoreError::Busy);
    }
    let until = Instant::now() + load::PATIENCE;
    while !ledger::evict(control).await? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if Instant::now() > until {
            return Err(RestoreError::Busy);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Does some work for as long as the hold on the target lasts. Whoever vanishes with its machine lets go within a minute;
/// whoever is there says so.
pub async fn holding<T>(
    holder: &mut Session,
    work: impl Future<Output = Result<T, RestoreError>>,
) -> Result<T, RestoreError> {
    holder.execute("SET SESSION wait_timeout = 60").await?;
    tokio::select! {
        lost = keep_hold(holder) => Err(lost),
        done = work => done,
    }
}

/// Ends only when the hold on the target is lost.
async fn keep_hold(holder: &mut Session) -> RestoreError {
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        match tokio::time::timeout(HEARTBEAT, ledger::holds_lock(holder)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return RestoreError::Busy,
            Ok(Err(error)) => return error.into(),
            Err(_) => {
                return RestoreError::Target(DbError::Lost {
                    detail: "the target does not answer".to_owned(),
                });
            }
        }
    }
}

const HEARTBEAT: Duration = Duration::from_secs(10);
