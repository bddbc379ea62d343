//! What must hold before a disaster, judged from facts: each finding with its reason and what to do. Pure.

use std::time::Duration;

use crate::backup::rpo::Feasibility;
use crate::dump::catalog::Schema;
use crate::dump::pipeline::capacity_bytes;
use crate::dump::script;
use crate::format::index::Way;
use crate::mysql::dialect::Dialect;

pub mod check;
pub mod standby;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Backups fail, or a recovery would.
    Error,
    /// Something is lost, slow or unproven in some case.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What it is about: `source`, `store`, `schedule`, or a configuration key.
    pub about: String,
    pub what: String,
    pub remedy: String,
}

impl Finding {
    pub fn new(severity: Severity, about: &str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity,
            about: about.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

/// What was seen of the source.
#[derive(Debug, Clone)]
pub struct Source {
    pub dialect: Dialect,
    pub schemas: Vec<Schema>,
    /// Those that are there as well and are not dumped.
    pub other_schemas: Vec<String>,
    pub binlog_on: bool,
    /// It holds every change of the data: no filters, and a replica logs what it applies.
    pub binlog_complete: bool,
    /// `ROW`, `MIXED` or `STATEMENT`.
    pub binlog_format: String,
    /// How long the server keeps its binlogs; None if for ever or unknown.
    pub binlog_kept: Option<Duration>,
    pub gtids_on: bool,
    pub way: Way,
    /// Seconds behind its source, if it is a replica.
    pub replica_lag_seconds: Option<i64>,
    pub sessions: usize,
}

/// What was seen of the store.
#[derive(Debug, Clone)]
pub struct Store {
    pub clock_skew: jiff::SignedDuration,
    pub max_blocks: u32,
    /// Stored bytes of the newest backup.
    pub newest_bytes: Option<u64>,
    /// How many SQL bytes become one stored byte.
    pub ratio: Option<f64>,
    pub unusable: usize,
    pub proven: bool,
    pub any_good: bool,
}

/// Binlogs kept for less than this are gone before anybody looks at a disaster's loose ends.
const SHORT_BINLOG: Duration = Duration::from_secs(24 * 3_600);
const CLOCK_TOLERANCE_SECONDS: i64 = 5;
/// No more names than this in one finding.
const MOST_NAMES: usize = 5;

/// Judges the source.
pub fn source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |severity, what: String, remedy: &str| findings.push(Finding::new(severity, "source", what, remedy));
    let tables = || source.schemas.iter().flat_map(|schema| &schema.tables);
    add(
        Severity::Note,
        format!(
            "{}, {} schemas, {} tables",
            source.dialect.version,
            source.schemas.len(),
            tables().count()
        ),
        "",
    );
    let keyless = names(
        tables()
            .filter(|table| table.key.is_none())
            .map(|t| format!("{}.{}", t.schema, t.name)),
    );
    if let Some(keyless) = keyless {
        add(
            Severity::Warning,
            format!(
                "no usable key: {keyless}; each is read in one statement, and whoever waits for its lock repeats the dump"
            ),
            "give them a primary key; it also helps replication and the restore",
        );
    }
    let other = names(
        tables()
            .filter(|t| t.engine != "InnoDB")
            .map(|t| format!("{}.{} ({})", t.schema, t.name, t.engine)),
    );
    if let Some(other) = other {
        add(
            Severity::Warning,
            format!("not InnoDB: {other}; their rows may be newer than the backup's instant"),
            "ALTER TABLE … ENGINE=InnoDB",
        );
    }
    for note in source
        .schemas
        .iter()
        .flat_map(|schema| &schema.notes)
        .filter(|note| !note.contains(": engine "))
    {
        add(Severity::Warning, note.clone(), "");
    }
    let broken = names(
        source
            .schemas
            .iter()
            .flat_map(|s| &s.views)
            .filter(|v| v.broken.is_some())
            .map(|v| format!("{}.{}", v.schema, v.name)),
    );
    if let Some(broken) = broken {
        add(
            Severity::Warning,
            format!("unusable views: {broken}; a backup keeps them as comments"),
            "repair or drop them",
        );
    }
    for lack in script::unplaced(&source.schemas) {
        add(
            Severity::Warning,
            lack,
            "if the standby must have it, alter it there after a restore",
        );
    }
    let elsewhere = script::views_elsewhere(&source.schemas, &source.other_schemas).into_iter();
    let elsewhere = names(elsewhere.map(|(view, other)| format!("{}.{} ({other})", view.schema, view.name)));
    if let Some(elsewhere) = elsewhere {
        add(
            Severity::Warning,
            format!("views that need a schema which is not backed up: {elsewhere}; elsewhere they cannot be created"),
            "add that schema to [source] databases, or drop the views",
        );
    }
    if !source.binlog_on {
        add(
            Severity::Warning,
            "the binary log is off: what happened after the last backup cannot be looked up afterwards".to_owned(),
            "turn it on (RDS: a backup retention of at least one day)",
        );
    } else {
        if !source.binlog_complete {
            add(
                Severity::Warning,
                "the binary log does not hold every change, so a backup's position in it is unknown".to_owned(),
                "no binlog_do_db or binlog_ignore_db; on a replica log_replica_updates = ON",
            );
        }
        if source.binlog_format != "ROW" {
            add(
                Severity::Note,
                format!("binlog_format is {}", source.binlog_format),
                "ROW says exactly what changed",
            );
        }
        if source.binlog_kept.is_some_and(|kept| kept < SHORT_BINLOG) {
            let hours = source.binlog_kept.map_or(0, |kept| kept.as_secs() / 3_600);
            add(
                Severity::Warning,
                format!("binary logs are kept for {hours} h only"),
                "keep them for a day at least (RDS: call mysql.rds_set_configuration('binlog retention hours', 24))",
            );
        }
        if !source.gtids_on && source.way == Way::SingleSession {
            add(
                Severity::Note,
                "without GTIDs, one session's binlog position is known as a range only".to_owned(),
                "gtid_mode = ON",
            );
        }
    }
    if source.way == Way::SingleSession && source.sessions > 1 {
        add(
            Severity::Note,
            "one session reads: this server and account allow no exact snapshot of several".to_owned(),
            "where RELOAD or FLUSH_TABLES can be granted, several sessions read at once",
        );
    }
    if let Some(lag) = source.replica_lag_seconds.filter(|lag| *lag > 0) {
        add(
            Severity::Warning,
            format!("the source is a replica {lag} s behind; that is added to what would be lost"),
            "read from the primary, or find out why the replica lags",
        );
    }
    findings
}

/// Judges the store.
pub fn store(store: &Store) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |severity, what: String, remedy: &str| findings.push(Finding::new(severity, "store", what, remedy));
    let skew = store.clock_skew.as_secs();
    if skew.abs() >= CLOCK_TOLERANCE_SECONDS {
        let severity = if skew.abs() >= 300 {
            Severity::Error
        } else {
            Severity::Warning
        };
        add(
            severity,
            format!("this machine's clock is {skew} s from the store's"),
            "synchronise it (timedatectl set-ntp true)",
        );
    }
    let capacity = capacity_bytes(store.max_blocks);
    let as_sql = store.ratio.map_or(String::new(), |ratio| {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate for people"
        )]
        let sql = (capacity as f64 * ratio) as u64;
        format!(", some {} GiB of SQL at the ratio of the newest backup", sql >> 30)
    });
    add(
        Severity::Note,
        format!("one backup may be {} GiB{as_sql}", capacity >> 30),
        "",
    );
    if store.newest_bytes.is_some_and(|bytes| bytes > capacity / 2) {
        add(
            Severity::Warning,
            "the newest backup fills more than half of what one backup may be".to_owned(),
            "plan for another way (see README)",
        );
    }
    if store.unusable > 0 {
        add(
            Severity::Warning,
            format!("{} blobs look like backups and are none", store.unusable),
            "planb backups says why; they are never removed by PlanB",
        );
    }
    match (store.any_good, store.proven) {
        (false, _) => add(
            Severity::Error,
            "there is no good backup yet".to_owned(),
            "planb backup",
        ),
        (true, false) => add(
            Severity::Warning,
            "no backup was ever restored and checked".to_owned(),
            "restore one into a scratch server",
        ),
        (true, true) => {}
    }
    findings
}

/// Judges the schedule.
pub fn schedule(feasibility: Option<&Feasibility>) -> Vec<Finding> {
    match feasibility {
        Some(missed @ Feasibility::Misses { .. }) => vec![Finding::new(
            Severity::Warning,
            "schedule",
            missed.to_string(),
            "backup.schedule = \"keep-rpo\", a shorter interval, or a larger targets.rpo",
        )],
        Some(met @ Feasibility::Meets { .. }) => vec![Finding::new(Severity::Note, "schedule", met.to_string(), "")],
        None => Vec::new(),
    }
}

fn names(all: impl Iterator<Item = String>) -> Option<String> {
    let all: Vec<String> = all.collect();
    let more = all.len().saturating_sub(MOST_NAMES);
    let shown = all.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
    match (all.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown),
        (false, more) => Some(format!("{shown} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::dialect::Version;

    fn seen() -> Source {
        Source {
            dialect: Dialect::of(Version::parse("8.0.36", "").expect("a version")),
            schemas: Vec::new(),
            other_schemas: Vec::new(),
            binlog_on: true,
            binlog_complete: true,
            binlog_format: "ROW".into(),
            binlog_kept: None,
            gtids_on: true,
            way: Way::GlobalLock,
            replica_lag_seconds: None,
            sessions: 4,
        }
    }

    fn worst(findings: &[Finding]) -> Severity {
        findings.iter().map(|finding| finding.severity).min().expect("findings")
    }

    #[test]
    fn a_healthy_source_has_nothing_but_notes() {
        assert_eq!(worst(&source(&seen())), Severity::Note);
    }

    #[test]
    fn each_trouble_is_told_with_a_remedy() {
        for (trouble, word) in [
            (
                Source {
                    binlog_on: false,
                    ..seen()
                },
                "binary log is off",
            ),
            (
                Source {
                    binlog_kept: Some(Duration::from_secs(3_600)),
                    ..seen()
                },
                "kept for 1 h",
            ),
            (
                Source {
                    replica_lag_seconds: Some(90),
                    ..seen()
                },
                "90 s behind",
            ),
        ] {
            let findings = source(&trouble);
            let found = findings.iter().find(|finding| finding.what.contains(word)).expect(word);
            assert!(
                found.severity == Severity::Warning && !found.remedy.is_empty(),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_store_without_a_good_backup_is_an_error() {
        let empty = Store {
            clock_skew: jiff::SignedDuration::ZERO,
            max_blocks: 50_000,
            newest_bytes: None,
            ratio: None,
            unusable: 0,
            proven: false,
            any_good: false,
        };
        assert_eq!(worst(&store(&empty)), Severity::Error);
        let proven = Store {
            any_good: true,
            proven: true,
            ..empty.clone()
        };
        assert_eq!(worst(&store(&proven)), Severity::Note);
        let skewed = Store {
            clock_skew: jiff::SignedDuration::from_secs(-400),
            ..proven
        };
        assert_eq!(worst(&store(&skewed)), Severity::Error);
    }

    #[test]
    fn long_lists_are_cut() {
        let many = names((0..7).map(|n| format!("t{n}")));
        assert_eq!(many.as_deref(), Some("t0, t1, t2, t3, t4 and 2 more"));
    }
}
