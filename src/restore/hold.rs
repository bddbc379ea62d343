//! One restore at a time on a target: held by a session, for as long as somebody is there to say so. A trial, which is thrown
//! away in any case, gives way to a restore that is meant.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::{ledger, load};
use crate::mysql::{DbError, Session};

/// Held beside the target's own lock by the session of a trial, so that it is known for one.
const TRIAL: &str = "planb_trial";

/// Claims the target, and ends what an earlier restore's sessions, or a trial, still do there.
pub async fn take_hold(control: &mut Session, cancel: &CancellationToken) -> Result<(), RestoreError> {
    // Kept through the longest key build; the lock goes with the session.
    control.execute("SET SESSION wait_timeout = 86400").await?;
    if !ledger::lock(control).await? {
        oust_trial(control, cancel).await?;
    }
    clear(control, cancel).await
}

/// The same; for a trial, which waits for nobody and ends nobody's work but that of killed restores.
pub async fn take_hold_for(trial: bool, control: &mut Session, cancel: &CancellationToken) -> Result<(), RestoreError> {
    if !trial {
        return take_hold(control, cancel).await;
    }
    control.execute("SET SESSION wait_timeout = 86400").await?;
    if !ledger::lock(control).await? {
        return Err(RestoreError::Busy);
    }
    control.execute(format!("SELECT GET_LOCK('{TRIAL}', 0)")).await?;
    clear(control, cancel).await
}

/// Ends what sessions of an earlier restore still do.
async fn clear(control: &mut Session, cancel: &CancellationToken) -> Result<(), RestoreError> {
    let until = Instant::now() + load::PATIENCE;
    while !ledger::evict(control).await? {
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if Instant::now() > until {
            return Err(RestoreError::Busy);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Takes the lock from a trial. `Busy` where a restore that is meant holds it, or the trial's session cannot be ended.
async fn oust_trial(control: &mut Session, cancel: &CancellationToken) -> Result<(), RestoreError> {
    let (begun, until) = (Instant::now(), Instant::now() + OUST_WITHIN);
    loop {
        let trial = control
            .number(&format!("SELECT COALESCE(IS_USED_LOCK('{TRIAL}'), 0)"))
            .await?;
        if trial != 0 {
            tracing::warn!("a trial is running on the target; it is ended, since this restore goes first");
            // Gone by itself meanwhile, or of an account that this one may not end: then the time runs out.
            let _ = control.execute(format!("KILL {trial}")).await;
        }
        if ledger::lock(control).await? {
            return Ok(());
        }
        if cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if (trial == 0 && begun.elapsed() > LETS_GO_WITHIN) || Instant::now() > until {
            return Err(RestoreError::Busy);
        }
        tokio::time::sleep(PAUSE).await;
    }
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
const OUST_WITHIN: Duration = Duration::from_secs(30);
/// A session that was ended, this program's own of a moment ago perhaps, holds its lock until the server has seen that.
const LETS_GO_WITHIN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
