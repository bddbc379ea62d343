//! Server parameters that make a load faster, and cost durability that a half-made restore does not need: which, from what, to
//! what, and whether the account may. Pure.

use super::target::Target;
use crate::mysql::dialect::Family;

/// A parameter that is worth changing while a backup is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub name: &'static str,
    pub now: u64,
    /// While restoring.
    pub during: u64,
    /// What it costs to leave it.
    pub why: &'static str,
    pub may_set: bool,
}

const FLUSH: &str = "innodb_flush_log_at_trx_commit";
const SYNC: &str = "sync_binlog";
const REDO_MYSQL: &str = "innodb_redo_log_capacity";
const REDO_MARIADB: &str = "innodb_log_file_size";

/// Those that PlanB ever changes: a name that it finds written down and is none of these is left alone.
pub const KNOWN: [&str; 4] = [FLUSH, SYNC, REDO_MYSQL, REDO_MARIADB];

/// Backups with fewer bytes of SQL are loaded before the size of the redo log could matter.
const WORTH_MORE_REDO_BYTES: u64 = 1 << 30;
/// Halves the bytes that 1.2 GB of SQL made MySQL 9.7 write, against 100 MiB.
const REDO_BYTES: u64 = 1 << 30;

/// What is worth changing for a backup of this size. All of them change at once, without a restart:
/// <https://dev.mysql.com/doc/refman/9.7/en/innodb-parameters.html>, <https://mariadb.com/kb/en/innodb-system-variables/>
pub fn worth_changing(target: &Target, raw_bytes: u64) -> Vec<Change> {
    let now = |name: &str| target.parameters.get(name).and_then(|value| value.parse::<u64>().ok());
    let change = |name, now, during, why| Change {
        name,
        now,
        during,
        why,
        may_set: may_set(target, name),
    };
    let mut changes = Vec::new();
    if now(FLUSH) == Some(1) {
        changes.push(change(FLUSH, 1, 2, "each transaction of a restore waits for the disk"));
    }
    if let Some(sync) = now(SYNC).filter(|&sync| sync != 0 && target.binlog_on) {
        changes.push(change(
            SYNC,
            sync,
            0,
            "transactions of a restore wait for the binary log",
        ));
    }
    let redo = match target.version.family {
        Family::MySql => target.version.at_least(8, 0, 30).then_some(REDO_MYSQL),
        // Before that it needs a restart.
        Family::MariaDb => target.version.at_least(10, 9, 0).then_some(REDO_MARIADB),
    };
    if let Some(name) = redo.filter(|_| raw_bytes > WORTH_MORE_REDO_BYTES)
        && let Some(bytes) = now(name).filter(|&bytes| bytes < REDO_BYTES)
    {
        changes.push(change(
            name,
            bytes,
            REDO_BYTES,
            "a restore writes pages twice as often as with more",
        ));
    }
    changes
}

fn may_set(target: &Target, name: &str) -> bool {
    let privileges: &[&str] = match target.version.family {
        Family::MySql => &["SUPER", "SYSTEM_VARIABLES_ADMIN"],
        Family::MariaDb if name == SYNC => &["SUPER", "BINLOG ADMIN"],
        Family::MariaDb => &["SUPER"],
    };
    privileges.iter().any(|privilege| target.grants.global(privilege))
}

impl Change {
    /// What would be gained, and how.
    pub fn advice(&self) -> String {
        let Self {
            name, now, during, why, ..
        } = self;
        let how = if self.may_set {
            "--tune sets it for the restore, and back afterwards"
        } else {
            "this account may not: set it where the server is configured, and back before it serves"
        };
        format!("{name} is {now}: {why}; {during} while restoring ({how})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::mysql::dialect::Version;
    use crate::mysql::grants::Grants;

    fn target(version: &str, grant: &str, parameters: &[(&str, &str)]) -> Target {
        Target {
            version: Version::parse(version, "").expect("a version"),
            identity: String::new(),
            account: "admin@%".to_owned(),
            grants: Grants::parse([format!("GRANT {grant} ON *.* TO `admin`@`%`").as_str()]),
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
            parameters: parameters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            accounts: None,
            system_users: BTreeSet::new(),
        }
    }

    fn names(changes: &[Change]) -> Vec<(&str, u64, bool)> {
        changes.iter().map(|c| (c.name, c.during, c.may_set)).collect()
    }

    const SLOW: [(&str, &str); 4] = [
        (FLUSH, "1"),
        (SYNC, "1"),
        (REDO_MYSQL, "104857600"),
        (REDO_MARIADB, "100663296"),
    ];

    #[test]
    fn only_what_is_slow_matters_and_can_be_changed_is_named() {
        let all = "ALL PRIVILEGES";
        let large = 5 << 30;
        let changes = worth_changing(&target("9.7.0", all, &SLOW), large);
        assert_eq!(
            names(&changes),
            [(FLUSH, 2, true), (SYNC, 0, true), (REDO_MYSQL, REDO_BYTES, true)]
        );
        assert_eq!(names(&worth_changing(&target("9.7.0", all, &SLOW), 1 << 20)).len(), 2);
        assert_eq!(
            names(&worth_changing(&target("8.0.29", all, &SLOW), large)).len(),
            2,
            "no such variable yet"
        );
        let maria = worth_changing(&target("10.11.4-MariaDB", all, &SLOW), large);
        assert_eq!(maria[2].name, REDO_MARIADB);
        assert_eq!(worth_changing(&target("10.6.4-MariaDB", all, &SLOW), large).len(), 2);
        let mut quick = target("9.7.0", all, &[(FLUSH, "2"), (SYNC, "0"), (REDO_MYSQL, "8589934592")]);
        assert_eq!(worth_changing(&quick, large), []);
        quick = target("9.7.0", all, &[(SYNC, "1")]);
        quick.binlog_on = false;
        assert_eq!(worth_changing(&quick, large), []);
    }

    #[test]
    fn who_may_set_it_is_told_by_the_grants() {
        let azure = worth_changing(&target("9.7.0", "SELECT, SESSION_VARIABLES_ADMIN", &SLOW), 0);
        assert!(
            azure
                .iter()
                .all(|change| !change.may_set && change.advice().contains("may not"))
        );
        let admin = worth_changing(&target("8.0.40", "SYSTEM_VARIABLES_ADMIN", &SLOW), 0);
        assert!(
            admin
                .iter()
                .all(|change| change.may_set && change.advice().contains("--tune"))
        );
        let maria = worth_changing(&target("10.11.4-MariaDB", "BINLOG ADMIN", &SLOW), 0);
        assert_eq!(names(&maria), [(FLUSH, 2, false), (SYNC, 0, true)]);
    }
}
