//! What a fence changed, kept on the server itself in the schema `planb` (which no dump carries), so that whoever lifts it
//! restores exactly what was, from any machine.

use std::collections::BTreeSet;

use super::ladder::Change;
use crate::dump::literal::string;
use crate::mysql::{DbError, Session};

/// What the server remembers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Of the last that raised or lifted a fence here; 0 if nobody ever did.
    pub mark: u64,
    pub changes: BTreeSet<Change>,
}

/// Held by the session that raises or lifts, for as long as it lives.
const LOCK: &str = "planb_fence";

/// Claims the server's fence within `seconds`. False if another session has it.
pub async fn lock(session: &mut Session, seconds: u32) -> Result<bool, DbError> {
    Ok(session.scalar(&format!("SELECT GET_LOCK('{LOCK}', {seconds})")).await? == "1")
}

/// The session that has it.
pub async fn holder(session: &mut Session) -> Result<Option<u64>, DbError> {
    let id = session.scalar(&format!("SELECT IS_USED_LOCK('{LOCK}')")).await?;
    Ok(id.parse().ok())
}

/// None if the account may not see it, or nothing was ever written.
pub async fn read(session: &mut Session) -> Result<Record, DbError> {
    let there = session
        .number(
            "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'planb' AND TABLE_NAME IN ('fence', 'fence_changes')",
        )
        .await?;
    if there < 2 {
        return Ok(Record::default());
    }
    let mark = session.scalar("SELECT mark FROM planb.fence").await?;
    let rows = session
        .text("SELECT what, of_user, of_host FROM planb.fence_changes")
        .await?;
    let mut record = Record {
        mark: mark.parse().unwrap_or(0),
        changes: BTreeSet::new(),
    };
    for row in rows {
        let change = match <[String; 3]>::try_from(row) {
            Ok([what, user, host]) => decode(&what, user, host),
            Err(_) => None,
        };
        // What a newer program wrote must not be forgotten in silence.
        record.changes.insert(change.ok_or_else(|| DbError::Odd {
            sql: "SELECT … FROM planb.fence_changes".to_owned(),
            detail: "a change that this program does not know: use the newer one that wrote it".to_owned(),
        })?);
    }
    Ok(record)
}

fn encode(change: &Change) -> [&str; 3] {
    match change {
        Change::SuperReadOnly => ["super_read_only", "", ""],
        Change::ReadOnly => ["read_only", "", ""],
        Change::EventsStopped => ["events", "", ""],
        Change::Locked { user, host } => ["locked", user, host],
    }
}

fn decode(what: &str, user: String, host: String) -> Option<Change> {
    match what {
        "super_read_only" => Some(Change::SuperReadOnly),
        "read_only" => Some(Change::ReadOnly),
        "events" => Some(Change::EventsStopped),
        "locked" => Some(Change::Locked { user, host }),
        _ => None,
    }
}

/// Makes the tables if they are not there, and leaves the mark.
///
/// # Errors
/// [`DbError::Denied`] where the account may not.
pub async fn open(session: &mut Session, mark: u64) -> Result<(), DbError> {
    let count = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'planb'";
    if session.number(count).await? == 0 {
        session
            .execute("CREATE DATABASE IF NOT EXISTS planb DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
            .await?;
    }
    for sql in [
        "CREATE TABLE IF NOT EXISTS planb.fence (one TINYINT NOT NULL, mark BIGINT UNSIGNED NOT NULL, raised_at TIMESTAMP NOT NULL \
         DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, PRIMARY KEY (one)) ENGINE=InnoDB",
        "CREATE TABLE IF NOT EXISTS planb.fence_changes (what VARCHAR(16) NOT NULL, of_user VARCHAR(128) NOT NULL, of_host \
         VARCHAR(255) NOT NULL, PRIMARY KEY (what, of_user, of_host)) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    ] {
        session.execute(sql).await?;
    }
    session
        .execute(format!(
            "INSERT INTO planb.fence (one, mark) VALUES (1, {mark}) ON DUPLICATE KEY UPDATE mark = GREATEST(mark, {mark})"
        ))
        .await
}

/// Before the change is made.
pub async fn add(session: &mut Session, change: &Change) -> Result<(), DbError> {
    let [what, user, host] = encode(change).map(string);
    session
        .execute(format!(
            "REPLACE INTO planb.fence_changes (what, of_user, of_host) VALUES ({what}, {user}, {host})"
        ))
        .await
}

/// After it was taken back.
pub async fn remove(session: &mut Session, change: &Change) -> Result<(), DbError> {
    let [what, user, host] = encode(change).map(string);
    session
        .execute(format!(
            "DELETE FROM planb.fence_changes WHERE what = {what} AND of_user = {user} AND of_host = {host}"
        ))
        .await
}
