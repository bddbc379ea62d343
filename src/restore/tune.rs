//! Server parameters, changed for the time of a restore. What they were is written down on the target before the first one
//! is changed, so that whoever comes after a killed restore can set them back.

use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::parameters::{self, Change};
use super::{hold, ledger};
use crate::dump::literal::string;
use crate::mysql::{Address, DbError, Session};

/// Parameters of one restore, from its beginning to its end.
#[derive(Debug)]
pub struct Tuning {
    is_wanted: bool,
    told: Vec<String>,
}

impl Tuning {
    pub fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            told: Vec::new(),
        }
    }

    /// Changes what the plan says, where it is wanted. Else only says what would be worth it, and sets back what a killed
    /// restore left.
    pub async fn begin(&mut self, session: &mut Session, changes: &[Change]) -> Result<(), DbError> {
        if self.is_wanted {
            self.told = set(session, changes).await?;
        } else {
            self.told = reset(session).await?.done;
            self.told.extend(changes.iter().map(Change::advice));
        }
        Ok(())
    }

    /// Sets back at the end of a restore, whatever its end, unless another one has taken the target over: that one sets them
    /// back. In a session of its own, since the restore's may be lost. `holder` is the session that holds the target. Says
    /// everything that was done.
    pub async fn end(self, address: &Address, holder: u64) -> Vec<String> {
        let mut told = self.told;
        if self.is_wanted {
            told.extend(reset_after(address, holder).await);
        }
        told
    }
}

/// Changes what is allowed. Says what it did, and what it may not do.
async fn set(session: &mut Session, changes: &[Change]) -> Result<Vec<String>, DbError> {
    let mut told = Vec::new();
    for change in changes {
        let Change { name, now, during, .. } = change;
        if !change.may_set {
            told.push(change.advice());
            continue;
        }
        ledger::prepare(session).await?;
        session
            .execute(
                "CREATE TABLE IF NOT EXISTS planb.tuned_parameters (name VARCHAR(64) CHARACTER SET ascii NOT NULL, was BIGINT \
                 UNSIGNED NOT NULL, during BIGINT UNSIGNED NOT NULL, PRIMARY KEY (name)) ENGINE=InnoDB",
            )
            .await?;
        // What stands there from a killed restore is from before that one.
        let line = format!(
            "INSERT INTO planb.tuned_parameters (name, was, during) VALUES ({}, {now}, {during}) ON DUPLICATE KEY UPDATE during \
             = {during}",
            string(name)
        );
        session.execute(line).await?;
        match session.execute(format!("SET GLOBAL {name} = {during}")).await {
            Ok(()) => told.push(format!("{name}: {now} became {during} while restoring")),
            Err(DbError::Denied { detail, .. } | DbError::Refused { detail, .. }) => {
                forget(session, name).await?;
                told.push(format!("{name} stays at {now}: the server refuses {during} ({detail})"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// Sets back what a restore changed; what somebody has changed since stays as it is. Says what could not be set back.
async fn reset(session: &mut Session) -> Result<Reset, DbError> {
    let mut reset = Reset::default();
    let there = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'planb' AND TABLE_NAME = \
                 'tuned_parameters'";
    if session.scalar(there).await? != "1" {
        return Ok(reset);
    }
    for row in session
        .text("SELECT name, was, during FROM planb.tuned_parameters")
        .await?
    {
        let [name, was, during] = row.as_slice() else { continue };
        let is_number = |text: &str| text.parse::<u64>().is_ok();
        if !parameters::KNOWN.contains(&name.as_str()) || !is_number(was) || !is_number(during) {
            continue;
        }
        // A restart has taken it back already; or somebody knew better.
        if session.scalar(&format!("SELECT @@GLOBAL.{name}")).await? == *during {
            match session.execute(format!("SET GLOBAL {name} = {was}")).await {
                Ok(()) => reset.done.push(format!("{name} is {was} again")),
                Err(error @ (DbError::Denied { .. } | DbError::Refused { .. })) => {
                    reset
                        .failed
                        .push(format!("{name} is still {during} instead of {was}: {error}"));
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        forget(session, name).await?;
    }
    Ok(reset)
}

/// What became of parameters that a restore had changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reset {
    pub done: Vec<String>,
    pub failed: Vec<String>,
}

async fn forget(session: &mut Session, name: &str) -> Result<(), DbError> {
    let sql = format!("DELETE FROM planb.tuned_parameters WHERE name = {}", string(name));
    session.execute(sql).await
}

async fn reset_after(address: &Address, holder: u64) -> Vec<String> {
    let done = async {
        let mut session = address.connect().await?;
        let held_by = session
            .number("SELECT COALESCE(IS_USED_LOCK('planb_restore'), 0)")
            .await?;
        let reset = if held_by == 0 || held_by == holder {
            reset(&mut session).await?
        } else {
            Reset::default()
        };
        session.close().await;
        Ok::<Reset, DbError>(reset)
    };
    match done.await {
        Ok(reset) => reset.done.into_iter().chain(reset.failed).collect(),
        Err(error) => vec![format!(
            "whether the server's parameters are as before is not known ({error}); planb restore --untune sets them back"
        )],
    }
}

/// Sets back what a killed restore left, with no restore.
///
/// # Errors
/// The database's, and that a restore is at work, which sets them back itself.
pub async fn untune(address: &Address, cancel: &CancellationToken) -> Result<Reset, RestoreError> {
    let mut session = address.connect().await?;
    hold::take_hold(&mut session, cancel).await?;
    let reset = reset(&mut session).await?;
    session.close().await;
    Ok(reset)
}
