//! Statements that differ by server and version, in one table; chosen by version, never by trying.

use std::fmt;

/// Which family a server belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    MySql,
    MariaDb,
}

/// A server's version, e.g. `9.7.0` or `10.11.14-MariaDB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub family: Family,
    pub major: u16,
    pub minor: u16,
    pub patch: u16,
}

/// Oldest versions PlanB speaks to.
const OLDEST_MYSQL: (u16, u16, u16) = (8, 0, 0);
const OLDEST_MARIADB: (u16, u16, u16) = (10, 6, 0);

impl Version {
    /// Reads `@@version`; `comment` is `@@version_comment`, which names MariaDB where a proxy hides it.
    pub fn parse(text: &str, comment: &str) -> Option<Self> {
        let maria = text.to_lowercase().contains("mariadb") || comment.to_lowercase().contains("mariadb");
        // Old MariaDB servers put `5.5.5-` before their version for old replicas.
        let text = text.strip_prefix("5.5.5-").filter(|_| maria).unwrap_or(text);
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u16>);
        let mut next = || numbers.next().and_then(Result::ok);
        let (major, minor) = (next()?, next()?);
        let patch = next().unwrap_or(0);
        let family = if maria { Family::MariaDb } else { Family::MySql };
        Some(Self {
            family,
            major,
            minor,
            patch,
        })
    }

    /// Reads `MySQL 9.7.0`, as it is displayed.
    pub fn of_text(text: &str) -> Option<Self> {
        let (family, number) = text.split_once(' ')?;
        let family = match family {
            "MySQL" => Family::MySql,
            "MariaDB" => Family::MariaDb,
            _ => return None,
        };
        let mut parts = number.split('.').map(str::parse::<u16>);
        let mut next = || parts.next().and_then(Result::ok);
        Some(Self {
            family,
            major: next()?,
            minor: next()?,
            patch: next()?,
        })
    }

    pub fn at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    /// Whether this version is one PlanB knows the statements of.
    pub fn is_supported(&self) -> bool {
        let oldest = match self.family {
            Family::MySql => OLDEST_MYSQL,
            Family::MariaDb => OLDEST_MARIADB,
        };
        (self.major, self.minor, self.patch) >= oldest
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::MySql => "MySQL",
            Family::MariaDb => "MariaDB",
        };
        write!(f, "{family} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What to say to one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    pub version: Version,
    /// One row: file, position (columns `file`, `position`); none when the binlog is off.
    pub binlog_status: &'static str,
    /// Rows with the applier's state and the source's coordinates.
    pub replica_status: &'static str,
    pub stop_applier: &'static str,
    pub start_applier: &'static str,
    /// Names of the replica status columns (lower case): source's file, source's position, applier running.
    pub replica_columns: [&'static str; 3],
    /// Session settings that make a reader's session exact and long-lived; none needs a privilege. (MySQL compares
    /// nothing with a date that its sql_mode does not allow, and such dates are found in keys.)
    pub reader_settings: &'static [&'static str],
    /// One text that identifies the server through renames and address changes.
    pub server_identity: &'static str,
    /// Table identities inside InnoDB: `name` as `schema/table`, and a number that changes when the table is
    /// rebuilt, truncated or swapped. Needs PROCESS.
    pub innodb_tables: &'static str,
    /// Privilege that shows the binlog's position, as `SHOW GRANTS` prints it (any of these).
    pub binlog_privileges: &'static [&'static str],
    /// Global privileges that show a routine's body without owning it (any of these).
    pub routine_privileges: &'static [&'static str],
    /// Whether history rows of system-versioned tables can be written back.
    pub history_can_be_restored: bool,
}

impl Dialect {
    pub fn of(version: Version) -> Self {
        match version.family {
            Family::MySql => Self::mysql(version),
            Family::MariaDb => Self::mariadb(version),
        }
    }

    fn mysql(version: Version) -> Self {
        // `SHOW BINARY LOG STATUS` came in 8.2.0 and `SHOW MASTER STATUS` went in 8.4.0.
        // https://dev.mysql.com/doc/relnotes/mysql/8.2/en/news-8-2-0.html
        let new_status = version.at_least(8, 2, 0);
        // `… REPLICA` came in 8.0.22. https://dev.mysql.com/doc/relnotes/mysql/8.0/en/news-8-0-22.html
        let replica = version.at_least(8, 0, 22);
        Self {
            version,
            binlog_status: if new_status {
                "SHOW BINARY LOG STATUS"
            } else {
                "SHOW MASTER STATUS"
            },
            replica_status: if replica {
                "SHOW REPLICA STATUS"
            } else {
                "SHOW SLAVE STATUS"
            },
            stop_applier: if replica {
                "STOP REPLICA SQL_THREAD"
            } else {
                "STOP SLAVE SQL_THREAD"
            },
            start_applier: if replica {
                "START REPLICA SQL_THREAD"
            } else {
                "START SLAVE SQL_THREAD"
            },
            replica_columns: if replica {
                ["relay_source_log_file", "exec_source_log_pos", "replica_sql_running"]
            } else {
                ["relay_master_log_file", "exec_master_log_pos", "slave_sql_running"]
            },
            reader_settings: &[
                "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', sql_quote_show_create = 1",
                // A reader whose machine vanished must not keep its snapshot and locks for the usual hours.
                "SET SESSION wait_timeout = 1800, net_write_timeout = 120, net_read_timeout = 120",
                // A view that is unusable is told by the server's message.
                "SET SESSION lc_messages = 'en_US'",
                "SET SESSION max_execution_time = 0, information_schema_stats_expiry = 0",
                "SET SESSION transaction_isolation = 'REPEATABLE-READ', autocommit = 1",
                "SET NAMES utf8mb4",
                "SET SESSION character_set_results = NULL",
            ],
            server_identity: "SELECT @@server_uuid",
            innodb_tables: "SELECT NAME, TABLE_ID FROM information_schema.INNODB_TABLES",
            binlog_privileges: &["REPLICATION CLIENT"],
            routine_privileges: &["SHOW_ROUTINE", "SELECT"],
            history_can_be_restored: false,
        }
    }

    fn mariadb(version: Version) -> Self {
        // @@server_uid came late (10.5.26, 10.6.19, 10.11.9, 11.1.6, 11.2.5, 11.4.3): older ones are known by
        // host name, port and data directory. https://mariadb.com/docs/server/server-management/variables-and-modes
        let has_uid = match (version.major, version.minor) {
            (10, 6) => version.patch >= 19,
            (10, 11) => version.patch >= 9,
            (11, 1) => version.patch >= 6,
            (11, 2) => version.patch >= 5,
            (11, 4) => version.patch >= 3,
            (10, _) | (11, 0 | 3) => false,
            _ => true,
        };
        Self {
            version,
            binlog_status: "SHOW MASTER STATUS",
            replica_status: "SHOW ALL SLAVES STATUS",
            stop_applier: "STOP ALL SLAVES SQL_THREAD",
            start_applier: "START ALL SLAVES SQL_THREAD",
            replica_columns: ["relay_master_log_file", "exec_master_log_pos", "slave_sql_running"],
            reader_settings: &[
                "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00', sql_quote_show_create = 1",
                // A reader whose machine vanished must not keep its snapshot and locks for the usual hours.
                "SET SESSION wait_timeout = 1800, net_write_timeout = 120, net_read_timeout = 120",
                // A view that is unusable is told by the server's message.
                "SET SESSION lc_messages = 'en_US'",
                "SET SESSION max_statement_time = 0, idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0",
                "SET SESSION tx_isolation = 'REPEATABLE-READ', autocommit = 1",
                "SET NAMES utf8mb4",
                "SET SESSION character_set_results = NULL",
            ],
            server_identity: if has_uid {
                "SELECT @@server_uid"
            } else {
                "SELECT CONCAT_WS(':', @@hostname, @@port, @@datadir)"
            },
            innodb_tables: "SELECT NAME, TABLE_ID FROM information_schema.INNODB_SYS_TABLES",
            binlog_privileges: &["BINLOG MONITOR", "REPLICATION CLIENT"],
            // SHOW CREATE ROUTINE came in 11.3.
            routine_privileges: if version.at_least(11, 3, 0) {
                &["SHOW CREATE ROUTINE", "SELECT"]
            } else {
                &["SELECT"]
            },
            // `system_versioning_insert_history` came in 10.11.0.
            history_can_be_restored: version.at_least(10, 11, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(text: &str) -> Dialect {
        Dialect::of(Version::parse(text, "").expect("a version"))
    }

    #[test]
    fn versions_are_read_as_servers_print_them() {
        for (text, comment, wanted) in [
            ("9.7.0", "Debian", "MySQL 9.7.0"),
            ("8.0.36", "Source distribution", "MySQL 8.0.36"),
            ("8.4.3-azure", "", "MySQL 8.4.3"),
            ("10.11.14-MariaDB-0+deb12u2-log", "", "MariaDB 10.11.14"),
            ("5.5.5-10.6.18-MariaDB", "", "MariaDB 10.6.18"),
            ("11.4.2", "mariadb.org binary distribution", "MariaDB 11.4.2"),
        ] {
            assert_eq!(
                Version::parse(text, comment).map(|v| v.to_string()).as_deref(),
                Some(wanted),
                "{text}"
            );
        }
        assert_eq!(Version::parse("nonsense", ""), None);
    }

    #[test]
    fn the_binlog_position_is_asked_for_in_each_version_s_own_words() {
        for (version, wanted) in [
            ("8.0.36", "SHOW MASTER STATUS"),
            ("8.2.0", "SHOW BINARY LOG STATUS"),
            ("8.4.0", "SHOW BINARY LOG STATUS"),
            ("9.7.0", "SHOW BINARY LOG STATUS"),
            ("10.6.18-MariaDB", "SHOW MASTER STATUS"),
            ("11.4.2-MariaDB", "SHOW MASTER STATUS"),
        ] {
            assert_eq!(dialect(version).binlog_status, wanted, "{version}");
        }
    }

    #[test]
    fn replica_words_changed_in_8_0_22() {
        assert_eq!(dialect("8.0.21").stop_applier, "STOP SLAVE SQL_THREAD");
        assert_eq!(dialect("8.0.22").stop_applier, "STOP REPLICA SQL_THREAD");
        assert_eq!(dialect("10.11.14-MariaDB").stop_applier, "STOP ALL SLAVES SQL_THREAD");
    }

    #[test]
    fn history_and_routine_privileges_follow_mariadb_versions() {
        assert!(!dialect("10.6.22-MariaDB").history_can_be_restored);
        assert!(dialect("10.11.14-MariaDB").history_can_be_restored);
        assert_eq!(dialect("10.11.14-MariaDB").routine_privileges, &["SELECT"]);
        assert!(
            dialect("11.4.2-MariaDB")
                .routine_privileges
                .contains(&"SHOW CREATE ROUTINE")
        );
    }

    #[test]
    fn old_servers_are_not_supported() {
        assert!(!dialect("5.7.44").version.is_supported());
        assert!(!dialect("10.5.29-MariaDB").version.is_supported());
        assert!(dialect("8.0.11").version.is_supported() && dialect("10.6.0-MariaDB").version.is_supported());
    }
}
