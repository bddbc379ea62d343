//! What a run tells.

use std::time::Duration;

use jiff::Timestamp;

use crate::backup::entry::BackupId;

/// What a finished run has to tell: one line in the log, one object in JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    pub id: BackupId,
    pub consistent_at: Timestamp,
    pub committed_at: Timestamp,
    pub rows: u64,
    pub tables: u64,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    /// Of the attempt that was committed.
    pub duration: Duration,
    /// How long the source was locked for the snapshot.
    pub locked: Duration,
    pub attempts: u32,
    pub way: crate::format::index::Way,
    pub sessions: u32,
    /// How often a reader gave way to somebody who waited.
    pub yields: u64,
    pub notes: Vec<String>,
    pub digest: String,
}
