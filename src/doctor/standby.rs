//! The source and the standby, compared while both are well. What stands against a restore is judged by the restore's own
//! plan, so that the two never disagree. Pure.

use super::{Finding, Severity};
use crate::restore::parameters;
use crate::restore::target::Target;

/// What was seen of the standby.
#[derive(Debug, Clone)]
pub struct Standby {
    pub target: Target,
    /// The source as it is now, which may be newer than its newest backup; none where it did not answer.
    pub source: Option<Target>,
    pub newest: Newest,
    /// Whether the configuration says who the application is there.
    pub has_accounts: bool,
}

/// The newest good backup, planned onto the standby.
#[derive(Debug, Clone)]
pub enum Newest {
    /// There is none.
    Absent,
    /// It could not be read, and why.
    Unread(String),
    Planned(Judged),
}

/// What the restore's plan says.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    pub problems: Vec<String>,
    pub repairs: Vec<String>,
    /// Bytes of SQL.
    pub raw_bytes: u64,
}

/// Judges the standby.
pub fn standby(seen: &Standby) -> Vec<Finding> {
    let mut findings = Vec::new();
    let raw_bytes = match &seen.newest {
        Newest::Planned(judged) => {
            findings.extend(of_the_backup(judged));
            judged.raw_bytes
        }
        Newest::Unread(why) => {
            findings.push(found(
                Severity::Error,
                format!("the newest good backup cannot be planned onto it: {why}"),
                "planb verify says whether it is damaged",
            ));
            0
        }
        Newest::Absent => {
            findings.push(found(
            Severity::Warning,
            "there is no backup to compare it with, so collations, engines, keys, names and definers are not looked at",
            "planb backup, then planb doctor again",
            ));
            0
        }
    };
    if let Some(source) = &seen.source {
        // With a backup of this same version, its plan has said so already.
        let is_alone = !matches!(seen.newest, Newest::Planned(_));
        findings.extend(of_the_source(source, &seen.target, is_alone));
    }
    if !seen.has_accounts {
        findings.push(found(
            Severity::Note,
            "no [[accounts]] are configured: after a restore, only accounts that somebody made there can log in",
            "add them, and use planb restore --accounts",
        ));
    }
    findings.extend(for_the_load(&seen.target, raw_bytes));
    findings
}

fn found(severity: Severity, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::new(severity, "standby", what, remedy)
}

fn of_the_backup(judged: &Judged) -> impl Iterator<Item = Finding> {
    let problems = judged.problems.iter().map(|problem| {
        // The plan's messages end with what to do.
        let (what, remedy) = problem
            .rsplit_once("; ")
            .unwrap_or((problem, "change it at the source, or choose another standby"));
        found(Severity::Error, format!("a restore would be refused: {what}"), remedy)
    });
    let repairs = judged.repairs.iter().map(|repair| {
        found(
            Severity::Warning,
            format!("a restore would change: {repair}"),
            "see whether the application can live with it, or make the standby like the source",
        )
    });
    problems.chain(repairs)
}

fn of_the_source(source: &Target, target: &Target, is_alone: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let number = |server: &Target| (server.version.major, server.version.minor);
    if source.identity == target.identity && is_alone {
        findings.push(found(
            Severity::Error,
            "it is the very server that is backed up (same identity, whatever its address)",
            "[standby] must be another server",
        ));
    }
    if source.version.family != target.version.family {
        if is_alone {
            findings.push(found(
                Severity::Error,
                format!("it is {} and the source is {}", target.version, source.version),
                "a standby of the source's family",
            ));
        }
    } else if number(target) < number(source) {
        findings.push(found(
            Severity::Error,
            format!(
                "it is older ({}) than the source is now ({})",
                target.version, source.version
            ),
            "upgrade the standby to the source's version before the source's",
        ));
    } else if number(target) > number(source) {
        findings.push(found(
            Severity::Note,
            format!(
                "it is newer ({}) than the source ({}): the way back needs a source as new",
                target.version, source.version
            ),
            "try the application with that version; verify --restore-to standby proves the restore",
        ));
    }
    if target.max_allowed_packet_bytes < source.max_allowed_packet_bytes {
        findings.push(found(
            Severity::Warning,
            format!(
                "it takes packets of {} bytes and the source of {}: what the application may write there, it may not write here",
                target.max_allowed_packet_bytes, source.max_allowed_packet_bytes
            ),
            format!("set max_allowed_packet to {} there", source.max_allowed_packet_bytes),
        ));
    }
    findings
}

/// Advice: what makes a load faster and may be set back afterwards. Never more than a note.
fn for_the_load(target: &Target, raw_bytes: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    if raw_bytes > 0 {
        findings.push(found(
            Severity::Note,
            format!(
                "how much space is free there cannot be asked in SQL; rows, keys and logs of the newest backup may take {} MiB",
                (raw_bytes.saturating_mul(3) >> 20).max(1)
            ),
            "compare with the server's storage; let it grow by itself where the platform offers that",
        ));
    }
    for change in parameters::worth_changing(target, raw_bytes) {
        let how = if change.may_set {
            "planb restore --tune sets it, and back afterwards"
        } else {
            "its account may not set it: change it where the server is configured, and back before it serves"
        };
        findings.push(found(
            Severity::Note,
            format!("{} is {}: {}", change.name, change.now, change.why),
            format!("{} while restoring; {how}", change.during),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::mysql::dialect::Version;
    use crate::mysql::grants::Grants;

    fn server(version: &str) -> Target {
        Target {
            version: Version::parse(version, "").expect("a version"),
            identity: version.to_owned(),
            account: "admin@%".to_owned(),
            grants: Grants::parse(["GRANT ALL PRIVILEGES ON *.* TO `admin`@`%`"]),
            occupied: BTreeSet::new(),
            schemas: BTreeSet::new(),
            lower_case_names: false,
            collations: BTreeSet::new(),
            engines: BTreeSet::new(),
            binlog_on: true,
            trusts_function_creators: true,
            generates_keys: false,
            requires_keys: false,
            max_allowed_packet_bytes: 64 << 20,
            read_only: false,
            parameters: BTreeMap::new(),
            accounts: None,
            system_users: BTreeSet::new(),
        }
    }

    fn seen(source: &str, standby: &str) -> Standby {
        Standby {
            target: server(standby),
            source: Some(Target {
                identity: "another".to_owned(),
                ..server(source)
            }),
            newest: Newest::Planned(Judged::default()),
            has_accounts: true,
        }
    }

    #[track_caller]
    fn one(seen: &Standby, severity: Severity, word: &str) {
        let findings = standby(seen);
        let [only] = findings.as_slice() else {
            panic!("{word}: {findings:?}")
        };
        assert!(only.severity == severity && only.what.contains(word), "{only:?}");
        assert!(!only.remedy.is_empty(), "{only:?}");
    }

    #[test]
    fn servers_that_are_alike_have_no_findings() {
        assert_eq!(standby(&seen("8.0.36", "8.0.40")), []);
    }

    #[test]
    fn a_standby_keeps_up_with_its_source() {
        // The newest backup may be of before the source's upgrade: its plan would find nothing.
        one(&seen("8.4.0", "8.0.40"), Severity::Error, "older");
        one(&seen("8.0.36", "8.4.0"), Severity::Note, "newer");
        let mut smaller = seen("8.0.36", "8.0.36");
        smaller.target.max_allowed_packet_bytes = 16 << 20;
        one(&smaller, Severity::Warning, "packets of 16777216");
    }

    #[test]
    fn without_a_backup_the_source_alone_decides() {
        let mut same = seen("8.0.36", "8.0.36");
        same.newest = Newest::Unread("it is damaged".to_owned());
        one(&same, Severity::Error, "damaged");
        same.newest = Newest::Absent;
        one(&same, Severity::Warning, "no backup to compare");
        if let Some(source) = &mut same.source {
            source.identity.clone_from(&same.target.identity);
        }
        let findings = standby(&same);
        assert!(
            findings
                .iter()
                .any(|f| f.severity == Severity::Error && f.what.contains("very server")),
            "{findings:?}"
        );
    }

    #[test]
    fn parameters_are_advice_and_never_more() {
        let mut slow = seen("9.7.0", "9.7.0");
        slow.newest = Newest::Planned(Judged {
            raw_bytes: 5 << 30,
            ..Judged::default()
        });
        for (name, value) in [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("sync_binlog", "1"),
            ("innodb_redo_log_capacity", "104857600"),
        ] {
            slow.target.parameters.insert(name.to_owned(), value.to_owned());
        }
        let findings = standby(&slow);
        assert_eq!(
            findings.len(),
            4,
            "three, and the space that nobody knows: {findings:?}"
        );
        assert!(
            findings
                .iter()
                .all(|f| f.severity == Severity::Note && !f.remedy.is_empty())
        );
    }

    #[test]
    fn what_the_plan_says_is_told_with_its_remedy() {
        let mut refused = seen("9.7.0", "9.7.0");
        refused.newest = Newest::Planned(Judged {
            problems: vec!["the target lacks x; restore to y".to_owned()],
            ..Judged::default()
        });
        let findings = standby(&refused);
        assert_eq!(
            (findings[0].what.as_str(), findings[0].remedy.as_str()),
            ("a restore would be refused: the target lacks x", "restore to y")
        );
        refused.has_accounts = false;
        assert!(standby(&refused).iter().any(|f| f.what.contains("no [[accounts]]")));
    }
}
