//! What was restored so far, kept on the target itself in the schema `planb` (which no dump carries), so that a killed
//! restore goes on from any machine.
//!
//! A member's rows and its line here are one transaction: it is loaded once or not at all.

use std::collections::BTreeSet;

use super::replace::names;
use crate::dump::literal::{identifier, qualified, string};
use crate::mysql::{DbError, Session};

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Schemas and tables are being made; nothing is lost by beginning anew.
    Schema,
    Data,
    Keys,
    /// Of a restore that replaces: what was loaded is compared with the backup.
    Check,
    /// Old and new change places.
    Swap,
    Programs,
    /// Everything is there; the marks are being taken away.
    Finishing,
    /// What was there is being put back; nothing goes forward any more.
    RollingBack,
    Done,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Schema,
        Self::Data,
        Self::Keys,
        Self::Check,
        Self::Swap,
        Self::Programs,
        Self::Finishing,
        Self::RollingBack,
        Self::Done,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Data => "data",
            Self::Keys => "keys",
            Self::Check => "check",
            Self::Swap => "swap",
            Self::Programs => "programs",
            Self::Finishing => "finishing",
            Self::RollingBack => "rolling back",
            Self::Done => "done",
        }
    }
}

/// A restore that the target remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Digest of the backup.
    pub digest: String,
    /// As a person knows it.
    pub backup: String,
    pub phase: Phase,
    /// Schemas that it made, as the target stores their names; `planb_new_…` where they replace others.
    pub schemas: BTreeSet<String>,
    /// Made to be compared and thrown away.
    pub trial: bool,
}

impl Record {
    /// Whether it replaces what was there.
    pub fn replaces(&self) -> bool {
        self.schemas.iter().any(|schema| names::real(schema).is_some())
    }

    /// Real names of its schemas.
    pub fn reals(&self) -> Vec<String> {
        let real = |schema: &String| names::real(schema).unwrap_or(schema).to_owned();
        self.schemas.iter().map(real).collect()
    }
}

/// Held by the session that restores, for as long as it lives.
const LOCK: &str = "planb_restore";

/// Claims the target for one restore. False if another one is at work.
pub async fn lock(session: &mut Session) -> Result<bool, DbError> {
    Ok(session.scalar(&format!("SELECT GET_LOCK('{LOCK}', 0)")).await? == "1")
}

/// Whether this session still holds the target.
pub async fn holds_lock(session: &mut Session) -> Result<bool, DbError> {
    let sql = format!("SELECT COALESCE(IS_USED_LOCK('{LOCK}') = CONNECTION_ID(), 0)");
    Ok(session.scalar(&sql).await? == "1")
}

/// Sessions that load hold one of these each, so that those of a killed restore, which the server goes on working for,
/// can be found and ended.
const WORKERS: usize = 64;

fn worker(number: usize) -> String {
    format!("planb_restore_{number}")
}

/// Marks a session as one that loads.
pub async fn enlist(session: &mut Session) -> Result<(), DbError> {
    for number in 0..WORKERS {
        let sql = format!("SELECT GET_LOCK('{}', 0)", worker(number));
        if session.scalar(&sql).await? == "1" {
            return Ok(());
        }
    }
    Ok(())
}

/// Ends the loading sessions of an earlier restore. True once none is left; the caller holds the target and asks again.
pub async fn evict(session: &mut Session) -> Result<bool, DbError> {
    let asked: Vec<String> = (0..WORKERS).map(|n| format!("IS_USED_LOCK('{}')", worker(n))).collect();
    let rows = session.table(&format!("SELECT {}", asked.join(", "))).await?;
    let mut is_clear = true;
    for id in rows.into_iter().flatten().flatten() {
        is_clear = false;
        // Gone by itself meanwhile, or somebody else's: then it is waited for.
        let _ = session.execute(format!("KILL {}", String::from_utf8_lossy(&id))).await;
    }
    Ok(is_clear)
}

/// Makes the bookkeeping schema if it is not there.
pub async fn prepare(session: &mut Session) -> Result<(), DbError> {
    for sql in [
        "CREATE DATABASE IF NOT EXISTS planb DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        "CREATE TABLE IF NOT EXISTS planb.restores (digest CHAR(64) CHARACTER SET ascii NOT NULL, backup VARCHAR(1024) NOT NULL, \
         phase VARCHAR(16) CHARACTER SET ascii NOT NULL, made LONGTEXT NOT NULL, trial TINYINT NOT NULL, run CHAR(16) CHARACTER SET \
         ascii NOT NULL, begun_at TIMESTAMP NOT NULL DEFAULT \
         CURRENT_TIMESTAMP, PRIMARY KEY (digest)) ENGINE=InnoDB",
        "CREATE TABLE IF NOT EXISTS planb.restored_members (digest CHAR(64) CHARACTER SET ascii NOT NULL, member INT UNSIGNED NOT \
         NULL, PRIMARY KEY (digest, member)) ENGINE=InnoDB",
        "CREATE TABLE IF NOT EXISTS planb.sleeping_events (of_schema VARCHAR(64) NOT NULL, event VARCHAR(64) NOT NULL, \
         PRIMARY KEY (of_schema, event)) ENGINE=InnoDB",
    ] {
        session.execute(sql).await?;
    }
    Ok(())
}

/// Every restore that the target remembers; none if there never was one.
pub async fn records(session: &mut Session) -> Result<Vec<Record>, DbError> {
    if !is_there(session, "restores").await? {
        return Ok(Vec::new());
    }
    let rows = session
        .text("SELECT digest, backup, phase, made, trial FROM planb.restores ORDER BY begun_at")
        .await?;
    let mut records = Vec::new();
    for row in rows {
        let Ok([digest, backup, phase, schemas, trial]) = <[String; 5]>::try_from(row) else {
            continue;
        };
        let Some(phase) = Phase::ALL.into_iter().find(|known| known.name() == phase) else {
            return Err(DbError::Odd {
                sql: "SELECT phase FROM planb.restores".to_owned(),
                detail: format!("nobody knows the phase {phase:?}; a newer planb wrote it, use that one"),
            });
        };
        records.push(Record {
            digest,
            backup,
            phase,
            schemas: schemas
                .split('\n')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            trial: trial == "1",
        });
    }
    Ok(records)
}

/// Begins a restore: what the target remembers of an earlier one of the same backup, or of events that slept in its
/// schemas, is of no account any more. `run` is random, and what its sessions prove themselves by.
pub async fn begin(session: &mut Session, record: &Record, run: &str) -> Result<(), DbError> {
    session.execute("START TRANSACTION").await?;
    let digest = string(&record.digest);
    session
        .execute(format!("DELETE FROM planb.restored_members WHERE digest = {digest}"))
        .await?;
    for schema in &record.schemas {
        forget_events(session, schema).await?;
    }
    write(session, record, run).await?;
    session.execute("COMMIT").await
}

/// One more schema for a restore that learns of them as it goes.
pub async fn widen(session: &mut Session, record: &Record, schema: &str, run: &str) -> Result<(), DbError> {
    forget_events(session, schema).await?;
    write(session, record, run).await
}

/// Takes a restore over, in the phase that `record` has now.
pub async fn turn(session: &mut Session, record: &Record, run: &str) -> Result<(), DbError> {
    write(session, record, run).await
}

async fn write(session: &mut Session, record: &Record, run: &str) -> Result<(), DbError> {
    let schemas: Vec<&str> = record.schemas.iter().map(String::as_str).collect();
    session
        .execute(format!(
            "REPLACE INTO planb.restores (digest, backup, phase, made, trial, run) VALUES ({}, {}, {}, {}, {}, {})",
            string(&record.digest),
            string(&record.backup),
            string(record.phase.name()),
            string(&schemas.join("\n")),
            u8::from(record.trial),
            string(run),
        ))
        .await
}

/// Takes an unfinished restore over. Waits for transactions of whoever had it; what that one still begins is refused.
pub async fn take_over(session: &mut Session, digest: &str, run: &str) -> Result<(), DbError> {
    let sql = format!(
        "UPDATE planb.restores SET run = {} WHERE digest = {}",
        string(run),
        string(digest)
    );
    session.execute(sql).await
}

/// Whether the restore still is this run's. Inside a transaction it stays so until that ends.
pub async fn is_mine(session: &mut Session, digest: &str, run: &str) -> Result<bool, DbError> {
    let sql = format!(
        "SELECT run FROM planb.restores WHERE digest = {} LOCK IN SHARE MODE",
        string(digest)
    );
    Ok(session.scalar(&sql).await? == run)
}

/// Forgets that events of this schema sleep.
pub async fn forget_events(session: &mut Session, schema: &str) -> Result<(), DbError> {
    let sql = format!("DELETE FROM planb.sleeping_events WHERE of_schema = {}", string(schema));
    session.execute(sql).await
}

/// Whether a schema holds nothing at all.
pub async fn is_empty(session: &mut Session, schema: &str) -> Result<bool, DbError> {
    for (table, column) in [
        ("TABLES", "TABLE_SCHEMA"),
        ("ROUTINES", "ROUTINE_SCHEMA"),
        ("EVENTS", "EVENT_SCHEMA"),
    ] {
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.{table} WHERE {column} = {}",
            string(schema)
        );
        if session.scalar(&sql).await? != "0" {
            return Ok(false);
        }
    }
    Ok(true)
}

pub async fn enter(session: &mut Session, digest: &str, phase: Phase) -> Result<(), DbError> {
    let sql = format!(
        "UPDATE planb.restores SET phase = {} WHERE digest = {}",
        string(phase.name()),
        string(digest)
    );
    session.execute(sql).await
}

/// Members whose rows are in.
pub async fn loaded(session: &mut Session, digest: &str) -> Result<BTreeSet<usize>, DbError> {
    let sql = format!(
        "SELECT member FROM planb.restored_members WHERE digest = {}",
        string(digest)
    );
    let rows = session.text(&sql).await?;
    Ok(rows.iter().filter_map(|row| row.first()?.parse().ok()).collect())
}

/// The line that belongs into the transaction of a member's rows.
pub fn loaded_statement(digest: &str, member: usize) -> String {
    format!(
        "INSERT INTO planb.restored_members (digest, member) VALUES ({}, {member})",
        string(digest)
    )
}

/// Remembers an event that was enabled at the source and sleeps until the standby serves.
pub async fn put_to_sleep(session: &mut Session, schema: &str, event: &str) -> Result<(), DbError> {
    let sql = format!(
        "REPLACE INTO planb.sleeping_events (of_schema, event) VALUES ({}, {})",
        string(schema),
        string(event)
    );
    session.execute(sql).await
}

/// Events that sleep, with their schemas.
pub async fn sleeping(session: &mut Session) -> Result<Vec<(String, String)>, DbError> {
    if !is_there(session, "sleeping_events").await? {
        return Ok(Vec::new());
    }
    session
        .pairs("SELECT of_schema, event FROM planb.sleeping_events ORDER BY 1, 2")
        .await
}

pub async fn awake(session: &mut Session, schema: &str, event: &str) -> Result<(), DbError> {
    let sql = format!(
        "DELETE FROM planb.sleeping_events WHERE of_schema = {} AND event = {}",
        string(schema),
        string(event)
    );
    session.execute(sql).await
}

/// Whether the bookkeeping has this table.
pub async fn is_there(session: &mut Session, table: &str) -> Result<bool, DbError> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'planb' AND TABLE_NAME = {}",
        string(table)
    );
    Ok(session.scalar(&sql).await? == "1")
}

/// Stands in every schema that a restore made, until it is done: whoever drops the schema and puts other data there drops
/// this with it, and what is there then is never taken for ours.
pub const MARK: &str = "planb_restoring";

pub async fn mark(session: &mut Session, schema: &str, digest: &str) -> Result<(), DbError> {
    let table = qualified(schema, MARK);
    session
        .execute(format!(
            "CREATE TABLE IF NOT EXISTS {table} (digest CHAR(64) CHARACTER SET ascii NOT NULL, PRIMARY KEY (digest)) ENGINE=InnoDB"
        ))
        .await?;
    session
        .execute(format!("REPLACE INTO {table} (digest) VALUES ({})", string(digest)))
        .await
}

pub async fn unmark(session: &mut Session, schema: &str) -> Result<(), DbError> {
    session
        .execute(format!("DROP TABLE IF EXISTS {}", qualified(schema, MARK)))
        .await
}

/// Those of the record's schemas that still are what the restore made; one that has changed places counts under its real
/// name too.
pub async fn marked(session: &mut Session, record: &Record) -> Result<BTreeSet<String>, DbError> {
    let mut marked = BTreeSet::new();
    for schema in &record.schemas {
        let mut is_marked = has_mark(session, schema, &record.digest).await?;
        if let Some(real) = names::real(schema).filter(|_| !is_marked) {
            is_marked = has_mark(session, real, &record.digest).await?;
        }
        if is_marked {
            marked.insert(schema.clone());
        }
    }
    Ok(marked)
}

/// Whether a schema carries the mark of the restore of this backup.
pub async fn has_mark(session: &mut Session, schema: &str, digest: &str) -> Result<bool, DbError> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = '{MARK}'",
        string(schema)
    );
    if session.scalar(&sql).await? != "1" {
        return Ok(false);
    }
    let sql = format!(
        "SELECT COUNT(*) FROM {} WHERE digest = {}",
        qualified(schema, MARK),
        string(digest)
    );
    Ok(session.scalar(&sql).await? == "1")
}

/// Takes back what a restore made: its schemas, as far as they still are its own, then its lines. Of one that replaces:
/// only what is aside; see [`super::replace::back`] for one that has changed places.
pub async fn forget(session: &mut Session, record: &Record) -> Result<(), DbError> {
    session.execute("SET SESSION foreign_key_checks = 0").await?;
    for schema in &record.schemas {
        if has_mark(session, schema, &record.digest).await? {
            drop_schema(session, schema).await?;
        }
    }
    forget_lines(session, record).await
}

async fn drop_schema(session: &mut Session, schema: &str) -> Result<(), DbError> {
    session
        .execute(format!("DROP DATABASE IF EXISTS {}", identifier(schema)))
        .await?;
    forget_events(session, schema).await
}

/// Forgets a restore.
pub async fn forget_lines(session: &mut Session, record: &Record) -> Result<(), DbError> {
    for table in ["restored_members", "restores"] {
        let sql = format!("DELETE FROM planb.{table} WHERE digest = {}", string(&record.digest));
        session.execute(sql).await?;
    }
    Ok(())
}
