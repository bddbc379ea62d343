//! The index: one SQL comment line for each member, one for the whole, then `-- Dump completed`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{COMPLETED, FORMAT};

/// What begins every index line.
const PREFIX: &str = "-- planb: ";

/// What a member holds, in the order in which members stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberKind {
    /// Session settings, `CREATE DATABASE`, tables. Always the first.
    Schema,
    /// Complete statements for one table; loadable alone and in any order.
    Data,
    /// Stored functions and procedures (views may call them).
    Routines,
    /// Views of all schemas, in an order that loads.
    Views,
    Triggers,
    /// After the data, so that none fires into a half-loaded database.
    Events,
    /// Views that need a schema which this backup does not hold. Last: a server without it stops here, with everything
    /// else loaded.
    ViewsElsewhere,
}

/// One member's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberRecord {
    pub kind: MemberKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub table: String,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    #[serde(default)]
    pub rows: u64,
    /// Of the stored bytes, hex.
    pub sha256: String,
}

/// One table's figures, from the rows as they went by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    pub schema: String,
    pub table: String,
    pub rows: u64,
    /// Sum and XOR over the rows of each row's checksum; see `dump::columns::checksum_sql` for what a server
    /// must be asked to get the same.
    pub checksum: String,
    /// Bytes of the largest row as SQL.
    pub largest_row_bytes: u64,
    /// How the count was checked against the server.
    pub checked: Check,
}

/// How far the server's own figures confirmed a table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// By the stream alone.
    Stream,
    /// `COUNT(*)` inside the same snapshot agreed.
    Count,
    /// Count and checksum, computed by the server inside the same snapshot, agreed.
    Checksum,
}

/// How one point in time was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Several MariaDB snapshots with equal binlog positions.
    MariadbSnapshot,
    /// A replica's applier stood still while the snapshots opened.
    PausedReplica,
    /// `FLUSH TABLES WITH READ LOCK`, held while the snapshots opened.
    GlobalLock,
    /// One snapshot.
    SingleSession,
    /// `LOCK TABLES … READ`, held while the snapshots opened.
    TableLocks,
}

/// Where in the binlog the snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "known")]
pub enum Position {
    /// The binlog is off, or cannot be seen.
    None,
    /// Exactly here: replaying from it misses nothing and repeats nothing.
    Exact {
        file: String,
        position: u64,
        #[serde(default)]
        gtid: String,
    },
    /// Somewhere between the two: transactions in between may or may not be in the backup.
    Range { from: Place, to: Place },
}

/// A place in the binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub file: String,
    pub position: u64,
    #[serde(default)]
    pub gtid: String,
}

/// The line for the whole backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub format: u32,
    pub planb: String,
    pub service: String,
    pub site: String,
    pub epoch: u64,
    pub run_id: String,
    /// e.g. `MySQL 9.7.0`.
    pub server: String,
    pub server_identity: String,
    pub consistent_at: Timestamp,
    pub way: Way,
    /// How long anything on the source was locked for the snapshot, in milliseconds.
    pub lock_millis: u64,
    /// How many sessions read.
    pub sessions: u32,
    pub position: Position,
    pub schemas: Vec<String>,
    pub tables: Vec<TableRecord>,
    /// Accounts that definers name; a dump carries no accounts.
    pub definers: Vec<String>,
    /// What could not be carried exactly, in words.
    pub notes: Vec<String>,
    pub rows: u64,
    pub raw_bytes: u64,
    pub largest_row_bytes: u64,
}

/// A backup's table of contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    pub members: Vec<MemberRecord>,
    pub summary: Summary,
}

/// Why a text is no index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    #[error("line {line} of its index cannot be read: {detail}")]
    Line { line: usize, detail: String },
    #[error("its index does not end with \"{COMPLETED}\"")]
    Incomplete,
    #[error("its index is of format {0}; this planb reads format {FORMAT}")]
    Format(u32),
    #[error("its index does not cover the file: {0}")]
    Gap(String),
}

impl Index {
    /// The index as it stands in the file, before compression.
    ///
    /// # Errors
    /// Only if a value cannot be written as JSON, which none of ours can cause.
    pub fn encode(&self) -> Result<String, serde_json::Error> {
        let mut text = String::from("\n--\n-- Index of this backup; see ARCHITECTURE.md of PlanB.\n--\n");
        for member in &self.members {
            text.push_str(PREFIX);
            text.push_str(&serde_json::to_string(member)?);
            text.push('\n');
        }
        text.push_str(PREFIX);
        text.push_str(&serde_json::to_string(&self.summary)?);
        text.push('\n');
        text.push_str(COMPLETED);
        text.push('\n');
        Ok(text)
    }

    /// Reads an index back and checks that its members cover the file up to `index_offset` without a gap.
    ///
    /// # Errors
    /// Says what is wrong and where.
    pub fn decode(text: &str, index_offset: u64) -> Result<Self, IndexError> {
        if text.lines().last() != Some(COMPLETED) {
            return Err(IndexError::Incomplete);
        }
        let records: Vec<(usize, &str)> = text
            .lines()
            .enumerate()
            .filter_map(|(i, line)| Some((i + 1, line.strip_prefix(PREFIX)?)))
            .collect();
        let Some((&(last, summary), members)) = records.split_last() else {
            return Err(IndexError::Incomplete);
        };
        let at = |line: usize| {
            move |e: serde_json::Error| IndexError::Line {
                line,
                detail: e.to_string(),
            }
        };
        let summary: Summary = serde_json::from_str(summary).map_err(at(last))?;
        if summary.format != FORMAT {
            return Err(IndexError::Format(summary.format));
        }
        let members = members
            .iter()
            .map(|(line, json)| serde_json::from_str(json).map_err(at(*line)))
            .collect::<Result<Vec<MemberRecord>, _>>()?;
        let mut expected = 0_u64;
        for member in &members {
            if member.offset != expected {
                return Err(IndexError::Gap(format!(
                    "a member at {} where {expected} was expected",
                    member.offset
                )));
            }
            expected = expected.saturating_add(member.stored_bytes);
        }
        if expected == index_offset {
            Ok(Self { members, summary })
        } else {
            Err(IndexError::Gap(format!(
                "members end at {expected}, the index begins at {index_offset}"
            )))
        }
    }
}
