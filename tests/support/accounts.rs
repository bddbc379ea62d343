//! Accounts with no more rights than managed databases give, so that a test refuses what they refuse.

use super::server::{Endpoint, Flavor, unique_schema};

const PASSWORD: &str = "lab-Pass'word\"1";

/// What a backup account has at a managed MySQL: it reads everything, and may lock and change nothing.
fn rds_privileges(flavor: Flavor) -> Vec<&'static str> {
    let mut privileges = vec!["SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "PROCESS"];
    match flavor {
        Flavor::MySql => privileges.extend(["REPLICATION CLIENT", "SHOW_ROUTINE"]),
        Flavor::MariaDb => privileges.extend(["BINLOG MONITOR", "SLAVE MONITOR"]),
    }
    privileges
}

/// A backup account as on RDS: no SUPER, RELOAD, FLUSH_TABLES, BACKUP_ADMIN, LOCK TABLES. Returns its name
/// (any host) and password, which holds both kinds of quotes.
pub fn rds_like_account(server: &Endpoint) -> (String, String) {
    rds_like_account_without(server, &[])
}

/// The same, but without some of its privileges: what those would show, the server then hides silently.
pub fn rds_like_account_without(server: &Endpoint, missing: &[&str]) -> (String, String) {
    let privileges = rds_privileges(server.flavor);
    for name in missing {
        assert!(privileges.contains(name), "{name} is none of {privileges:?}");
    }
    let granted: Vec<&str> = privileges.into_iter().filter(|name| !missing.contains(name)).collect();
    let user = create_user(server, "rds");
    server.sql(&format!("GRANT {} ON *.* TO '{user}'@'%'", granted.join(", ")));
    (user, PASSWORD.to_owned())
}

/// RDS writes this table in the `mysql` schema all the time: it moves the binlog position of an idle server.
/// The event scheduler must be on, as it is on MySQL unless told otherwise.
pub fn rds_heartbeat(server: &Endpoint) {
    server.sql(
        "CREATE TABLE mysql.rds_heartbeat2 (id INT NOT NULL PRIMARY KEY, value BIGINT);
         CREATE EVENT mysql.rds_heartbeat ON SCHEDULE EVERY 1 SECOND
           DO REPLACE INTO mysql.rds_heartbeat2 VALUES (1, UNIX_TIMESTAMP() * 1000);",
    );
}

/// Server arguments that make a MySQL as awkward as Azure's Flexible Server. (Its MyISAM ban and its TLS
/// demand included; connect through the socket or with TLS.)
pub const AZURE_LIKE_ARGS: &[&str] = &[
    "--lower-case-table-names=1",
    "--sql-generate-invisible-primary-key=ON",
    "--require-secure-transport=ON",
    "--log-bin-trust-function-creators=OFF",
    "--disabled-storage-engines=MyISAM",
    "--partial-revokes=ON",
];

/// An administrator as on Azure: almost everything, but not what touches the server itself, other accounts'
/// definers, or the `mysql` schema. Needs a server with [`AZURE_LIKE_ARGS`] (for `--partial-revokes`).
pub fn azure_like_admin(server: &Endpoint) -> (String, String) {
    assert_eq!(server.flavor, Flavor::MySql, "Azure offers no MariaDB any more");
    let user = create_user(server, "azure_admin");
    server.sql(&format!("GRANT ALL ON *.* TO '{user}'@'%' WITH GRANT OPTION"));
    for privilege in [
        "SUPER",
        "FILE",
        "SHUTDOWN",
        "CREATE TABLESPACE",
        "SYSTEM_VARIABLES_ADMIN",
        "PERSIST_RO_VARIABLES_ADMIN",
        "SYSTEM_USER",
        "SET_ANY_DEFINER",
        "ALLOW_NONEXISTENT_DEFINER",
        "BINLOG_ADMIN",
        "BINLOG_ENCRYPTION_ADMIN",
        "BACKUP_ADMIN",
        "CLONE_ADMIN",
        "GROUP_REPLICATION_ADMIN",
        "REPLICATION_SLAVE_ADMIN",
        "ENCRYPTION_KEY_ADMIN",
        "TABLE_ENCRYPTION_ADMIN",
    ] {
        server.sql(&format!("REVOKE {privilege} ON *.* FROM '{user}'@'%'"));
    }
    for privilege in ["INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX"] {
        server.sql(&format!("REVOKE {privilege} ON mysql.* FROM '{user}'@'%'"));
    }
    (user, PASSWORD.to_owned())
}

/// An account that may do everything, with the password of [`super::PASSWORD`]; its address.
pub fn restorer(target: &Endpoint) -> String {
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{}'; GRANT ALL ON *.* TO restorer@'%' WITH GRANT OPTION",
        super::planb::PASSWORD
    ));
    format!("mysql://restorer@127.0.0.1:{}", target.port)
}

fn create_user(server: &Endpoint, prefix: &str) -> String {
    let user = unique_schema(prefix);
    // In ANSI_QUOTES-proof spelling: a quote is doubled inside single quotes.
    server.sql(&format!(
        "CREATE USER '{user}'@'%' IDENTIFIED BY '{}'",
        PASSWORD.replace('\'', "''")
    ));
    user
}
