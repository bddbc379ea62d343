//! What was found out about a backup after it was made: its structure checked, restored and compared, or damaged.
//!
//! One record for each backup holds the latest finding of each level, so that a later and lesser look never hides an
//! earlier and better one. `ledger` keeps the records; here is what they mean for a listing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::entry::{BackupId, Entry, Standing};

/// The record's own version.
const VERSION: u32 = 1;

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "level", rename_all = "kebab-case")]
pub enum Level {
    /// Trailer, index and every member are as they were written. No database was asked.
    Structure,
    /// Restored into a server and compared with what the source had.
    Restored {
        /// e.g. `MySQL 9.7.0`.
        server: String,
        tables_compared: u64,
        checksums_compared: u64,
    },
    /// Not as it was written.
    Damaged {
        /// What is wrong, and where.
        place: String,
    },
}

impl Level {
    fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Who looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    pub host: String,
    pub site: String,
    /// Its version.
    pub planb: String,
}

/// One look at one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    #[serde(flatten)]
    pub level: Level,
    /// Which blob was read: a copy under `preserved/` may be sound where the original is not.
    pub blob: String,
    /// By the store's clock.
    pub at: Timestamp,
    pub by: By,
    /// How long the look took.
    pub seconds: f64,
    pub rows: u64,
}

/// Everything that was found out about one backup.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    v: u32,
    pub id: String,
    /// Of the backup all this is about: what was found of another one under the same name says nothing.
    pub digest: String,
    pub findings: Vec<Finding>,
}

impl Record {
    /// `earlier` with `finding` in the place of an older one of its level; what is about another digest is dropped.
    pub fn with(earlier: Option<Self>, id: &BackupId, digest: &str, finding: Finding) -> Self {
        let mut record = earlier.filter(|earlier| earlier.digest == digest).unwrap_or(Self {
            v: VERSION,
            id: id.to_string(),
            digest: digest.to_owned(),
            findings: Vec::new(),
        });
        let same = |old: &Finding| old.level.is_same_kind(&finding.level) && old.blob == finding.blob;
        record.findings.retain(|old| !same(old));
        record.findings.push(finding);
        record
    }

    /// Whether this planb knows what the record means.
    pub fn is_known(&self) -> bool {
        self.v == VERSION
    }

    /// The damage of `blob` that no later look took back: a disk or a network can lie once, and a copy can be put back.
    fn damage(&self, blob: &str) -> Option<&Finding> {
        let of_blob = || self.findings.iter().filter(|finding| finding.blob == blob);
        let is_damage = |finding: &&Finding| matches!(finding.level, Level::Damaged { .. });
        let sound_at = of_blob().filter(|finding| !is_damage(finding)).map(|f| f.at).max();
        // At the same instant the worse one counts.
        of_blob()
            .find(is_damage)
            .filter(|damage| sound_at.is_none_or(|sound| damage.at >= sound))
    }
}

/// Puts what was found out into a listing. A damaged backup is unusable, whatever it was.
pub fn join(entries: &mut [Entry], records: &BTreeMap<BackupId, Record>) {
    for entry in entries {
        let about_this = |record: &&Record| !entry.digest.is_empty() && record.digest == entry.digest;
        let Some(record) = records.get(&entry.id).filter(about_this) else {
            continue;
        };
        let latest = |wanted: fn(&Finding, &str) -> bool| {
            let found = record.findings.iter().filter(|finding| wanted(finding, &entry.blob));
            found.map(|finding| finding.at).max()
        };
        // What was restored and compared proves the content, which the digest stands for, in whatever blob.
        let proven_at = latest(|finding, _| matches!(finding.level, Level::Restored { .. }));
        let checked_at = latest(|finding, blob| finding.level == Level::Structure && finding.blob == blob);
        if let Some(Finding {
            level: Level::Damaged { place },
            ..
        }) = record.damage(&entry.blob)
        {
            entry.standing = Standing::Unusable(format!("damaged: {place}"));
        }
        entry.proven_at = proven_at;
        entry.structure_checked_at = checked_at;
    }
}

/// How long ago a backup was last restored and checked, once that is longer than `allowed`. `None` also where none ever
/// was: that is told as such, not as a proof grown old.
pub fn overdue(entries: &[Entry], allowed: Duration, now: Timestamp) -> Option<Duration> {
    let latest = entries.iter().filter_map(|entry| entry.proven_at).max()?;
    let age = Duration::try_from(now.duration_since(latest)).ok()?;
    (age > allowed).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ETag;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a date")
    }

    fn entry(blob: &str) -> Entry {
        Entry {
            id: BackupId::at(at(0)),
            blob: blob.to_owned(),
            etag: ETag(String::new()),
            size_bytes: 1,
            raw_bytes: 1,
            rows: 1,
            site: String::new(),
            epoch: 0,
            consistent_at: at(0),
            committed_at: at(1),
            digest: "d1".to_owned(),
            standing: Standing::Good,
            proven_at: None,
            structure_checked_at: None,
        }
    }

    fn finding(level: Level, blob: &str, second: i64) -> Finding {
        Finding {
            level,
            blob: blob.to_owned(),
            at: at(second),
            by: By {
                host: "h".to_owned(),
                site: "s".to_owned(),
                planb: "0".to_owned(),
            },
            seconds: 1.5,
            rows: 1,
        }
    }

    fn restored() -> Level {
        Level::Restored {
            server: "MySQL 9.7.0".to_owned(),
            tables_compared: 3,
            checksums_compared: 3,
        }
    }

    fn damaged() -> Level {
        Level::Damaged {
            place: "member 3".to_owned(),
        }
    }

    fn record(digest: &str, findings: &[Finding]) -> BTreeMap<BackupId, Record> {
        let id = BackupId::at(at(0));
        let add = |record, finding: &Finding| Some(Record::with(record, &id, digest, finding.clone()));
        let record = findings.iter().fold(None, add).expect("a finding");
        BTreeMap::from([(id, record)])
    }

    fn joined(findings: &[Finding]) -> Entry {
        let mut entries = [entry("b/1")];
        join(&mut entries, &record("d1", findings));
        entries[0].clone()
    }

    #[test]
    fn each_level_says_its_own() {
        let only_structure = joined(&[finding(Level::Structure, "b/1", 5)]);
        assert_eq!(
            (only_structure.proven_at, only_structure.structure_checked_at),
            (None, Some(at(5))),
            "a structure is no proof"
        );
        let both = joined(&[
            finding(restored(), "b/1", 4),
            finding(Level::Structure, "b/1", 5),
            finding(Level::Structure, "b/1", 6),
        ]);
        assert_eq!((both.proven_at, both.structure_checked_at), (Some(at(4)), Some(at(6))));
        assert_eq!(both.standing, Standing::Good);
    }

    #[test]
    fn a_proof_of_another_digest_is_no_proof() {
        let mut entries = [entry("b/1")];
        join(&mut entries, &record("d2", &[finding(restored(), "b/1", 4)]));
        assert_eq!(entries, [entry("b/1")]);
        entries[0].digest.clear();
        join(&mut entries, &record("", &[finding(restored(), "b/1", 4)]));
        assert_eq!(entries[0].proven_at, None, "no digest is no digest to compare");
        let first = Record::with(None, &entries[0].id, "d1", finding(restored(), "b/1", 4));
        let then = Record::with(Some(first), &entries[0].id, "d2", finding(Level::Structure, "b/1", 5));
        assert_eq!((then.digest.as_str(), then.findings.len()), ("d2", 1));
    }

    #[test]
    fn damage_counts_until_a_later_look_finds_none() {
        let sound = finding(Level::Structure, "b/1", 5);
        for (damage, unusable) in [(4, false), (5, true), (6, true)] {
            let entry = joined(&[sound.clone(), finding(damaged(), "b/1", damage)]);
            let expected = if unusable {
                Standing::Unusable("damaged: member 3".to_owned())
            } else {
                Standing::Good
            };
            assert_eq!(entry.standing, expected, "found at {damage}");
        }
        assert_eq!(
            joined(&[finding(damaged(), "b/2", 6)]).standing,
            Standing::Good,
            "another blob's damage"
        );
    }

    #[test]
    fn a_record_reads_back() {
        let records = record(
            "d1",
            &[
                finding(restored(), "b/1", 4),
                finding(Level::Structure, "b/1", 5),
                finding(damaged(), "b/1", 6),
            ],
        );
        for record in records.values() {
            let json = serde_json::to_string(record).expect("encodes");
            assert_eq!(serde_json::from_str::<Record>(&json).expect("decodes"), *record);
            assert!(json.contains(r#""level":"restored","server":"MySQL 9.7.0""#), "{json}");
        }
    }

    #[test]
    fn a_proof_grows_old_but_none_is_not_an_old_one() {
        let hour = Duration::from_secs(3600);
        let mut entries = vec![entry("b/1"), entry("b/2")];
        assert_eq!(overdue(&entries, hour, at(1_000_000)), None);
        entries[0].proven_at = Some(at(0));
        entries[1].proven_at = Some(at(100));
        assert_eq!(overdue(&entries, hour, at(3700)), None);
        assert_eq!(overdue(&entries, hour, at(3701)), Some(Duration::from_secs(3601)));
    }
}
