//! One backup as a listing shows it.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::store::ETag;

/// File name without `.sql.gz`: `backup-YYYYMMDD-HHMMSS`, UTC, the second of `consistent_at`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(String);

/// What every backup's blob name ends with.
pub const SUFFIX: &str = ".sql.gz";

impl BackupId {
    /// The id of a backup that was consistent at `at`.
    pub fn at(at: Timestamp) -> Self {
        Self(at.to_zoned(TimeZone::UTC).strftime("backup-%Y%m%d-%H%M%S").to_string())
    }

    /// Reads an id as a person types it; `None` if it is not one (also: an impossible date).
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("backup-")?;
        let well_formed = digits.len() == 15
            && digits
                .bytes()
                .enumerate()
                .all(|(i, b)| if i == 8 { b == b'-' } else { b.is_ascii_digit() });
        if !well_formed {
            return None;
        }
        jiff::civil::DateTime::strptime("backup-%Y%m%d-%H%M%S", text).ok()?;
        Some(Self(text.to_owned()))
    }

    /// Reads the id out of a blob name under `prefix`; `None` if the blob is something else.
    pub fn of_blob(prefix: &str, blob: &str) -> Option<Self> {
        Self::parse(blob.strip_prefix(prefix)?.strip_suffix(SUFFIX)?)
    }

    /// The instant in the name: `consistent_at` cut to the second.
    pub fn second(&self) -> Timestamp {
        jiff::civil::DateTime::strptime("backup-%Y%m%d-%H%M%S", &self.0)
            .and_then(|civil| civil.to_zoned(TimeZone::UTC))
            .map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp())
    }

    /// Blob name under `prefix` (which ends with `/`).
    pub fn blob(&self, prefix: &str) -> String {
        format!("{prefix}{}{SUFFIX}", self.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a backup is worth, as far as a listing can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Complete, of this service, taken while its epoch was in force.
    Good,
    /// Of a site that no longer served when it was taken: evidence, never chosen by default.
    Orphan,
    /// Under `preserved/`: kept by a person or a failback; never removed.
    Preserved,
    /// Looks like a backup but is not one that PlanB would vouch for; says why. Never removed.
    Unusable(String),
}

/// A committed backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: BackupId,
    /// Full blob name.
    pub blob: String,
    pub etag: ETag,
    pub size_bytes: u64,
    /// Bytes of SQL before compression.
    pub raw_bytes: u64,
    pub rows: u64,
    pub site: String,
    pub epoch: u64,
    /// The instant at which the data was consistent: what RPO counts from.
    pub consistent_at: Timestamp,
    /// When the commit landed, by the store's clock.
    pub committed_at: Timestamp,
    /// SHA-256 (hex) of the stored index.
    pub digest: String,
    pub standing: Standing,
    /// When it was last restored and checked.
    pub proven_at: Option<Timestamp>,
    /// When its structure was last checked: every member whole, no database asked.
    pub structure_checked_at: Option<Timestamp>,
}

/// Good backups, newest first: what a restore takes when nobody names one, and falls back to.
pub fn good_ones(entries: &[Entry]) -> Vec<&Entry> {
    let mut good: Vec<&Entry> = entries
        .iter()
        .filter(|entry| entry.standing == Standing::Good)
        .collect();
    good.sort_by_key(|entry| std::cmp::Reverse((entry.consistent_at, &entry.id)));
    good
}

pub fn newest_good(entries: &[Entry]) -> Option<&Entry> {
    good_ones(entries).into_iter().next()
}
