//! The server that a restore writes to, as it was found: everything that decides what has to be repaired or refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::dump::AttemptError;
use crate::dump::catalog::is_system_schema;
use crate::dump::survey::{dialect_of, grants_of};
use crate::mysql::dialect::{Family, Version};
use crate::mysql::grants::Grants;
use crate::mysql::{DbError, Session};

/// Facts about a target.
#[derive(Debug, Clone)]
pub struct Target {
    pub version: Version,
    pub identity: String,
    /// The account that restores: `admin@%`.
    pub account: String,
    pub grants: Grants,
    /// Schemas that hold anything.
    pub occupied: BTreeSet<String>,
    /// Every schema, the server's own left out.
    pub schemas: BTreeSet<String>,
    /// `lower_case_table_names`: with 1, names are stored in lower case and compared without case.
    pub lower_case_names: bool,
    pub collations: BTreeSet<String>,
    /// Lower-case names of engines that tables may be made with.
    pub engines: BTreeSet<String>,
    pub binlog_on: bool,
    pub trusts_function_creators: bool,
    pub generates_keys: bool,
    pub requires_keys: bool,
    pub max_allowed_packet_bytes: u64,
    /// Nobody may write, or nobody but who holds SUPER.
    pub read_only: bool,
    /// Variables that decide how long a load takes, as the server writes them; those it has.
    pub parameters: BTreeMap<String, String>,
    /// `user@host`, roles by their name alone; none where the account may not look.
    pub accounts: Option<BTreeSet<String>>,
    /// Those among them with SYSTEM_USER, to whom only their like may give objects.
    pub system_users: BTreeSet<String>,
}

impl Target {
    /// Whether the account may change session settings that managed servers guard.
    pub fn may_set_guarded(&self) -> bool {
        ["SUPER", "SYSTEM_VARIABLES_ADMIN", "SESSION_VARIABLES_ADMIN"]
            .iter()
            .any(|privilege| self.grants.global(privilege))
    }

    /// Whether the account may make objects that belong to somebody else.
    pub fn may_set_definer(&self) -> bool {
        ["SUPER", "SET_ANY_DEFINER", "SET_USER_ID", "SET USER"]
            .iter()
            .any(|privilege| self.grants.global(privilege))
    }

    /// Whether the account may make objects that belong to this one.
    pub fn may_set_definer_to(&self, definer: &str) -> bool {
        let is_guarded = self.system_users.contains(definer) && !self.grants.global("SYSTEM_USER");
        self.may_set_definer() && !is_guarded
    }

    /// Whether the definer may be an account that does not exist.
    pub fn may_set_absent_definer(&self) -> bool {
        match self.version.family {
            Family::MySql => ["SUPER", "ALLOW_NONEXISTENT_DEFINER", "SET_USER_ID"]
                .iter()
                .any(|privilege| self.grants.global(privilege)),
            Family::MariaDb => self.may_set_definer(),
        }
    }

    /// Whether the server takes no triggers and functions from this account.
    pub fn refuses_code(&self) -> bool {
        self.binlog_on && !self.trusts_function_creators && !self.grants.global("SUPER")
    }

    /// A name as the server stores it.
    pub fn stored(&self, name: &str) -> String {
        if self.lower_case_names {
            name.to_lowercase()
        } else {
            name.to_owned()
        }
    }
}

/// Which server it is, by whatever name it was found.
///
/// # Errors
/// As [`survey`].
pub async fn identity(session: &mut Session) -> Result<String, AttemptError> {
    let dialect = dialect_of(session).await?;
    Ok(session.scalar(dialect.server_identity).await?)
}

/// Looks at the target.
///
/// # Errors
/// The database's, or that nobody knows its version.
pub async fn survey(session: &mut Session) -> Result<Target, AttemptError> {
    let dialect = dialect_of(session).await?;
    let variables = variables(session).await?;
    let is_on = |name: &str| variables.get(name).is_some_and(|value| value == "ON" || value == "1");
    let schemas: BTreeSet<String> = lists(session, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA")
        .await?
        .into_iter()
        .filter(|name| !is_system_schema(name))
        .collect();
    // Not one UNION: it would compare names as the server compares text, without case and accents.
    let mut occupied = BTreeSet::new();
    for holding in [
        "SELECT DISTINCT BINARY TABLE_SCHEMA FROM information_schema.TABLES",
        "SELECT DISTINCT BINARY ROUTINE_SCHEMA FROM information_schema.ROUTINES",
        "SELECT DISTINCT BINARY EVENT_SCHEMA FROM information_schema.EVENTS",
    ] {
        occupied.extend(
            lists(session, holding)
                .await?
                .into_iter()
                .filter(|name| !is_system_schema(name)),
        );
    }
    let disabled: BTreeSet<String> = variables
        .get("disabled_storage_engines")
        .map(|list| list.split(',').map(|name| name.trim().to_lowercase()).collect())
        .unwrap_or_default();
    let engines = lists(
        session,
        "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')",
    )
    .await?
    .into_iter()
    .map(|name| name.to_lowercase())
    .filter(|name| !disabled.contains(name))
    .collect();
    let collations = lists(session, "SELECT COLLATION_NAME FROM information_schema.COLLATIONS")
        .await?
        .into_iter()
        .collect();
    let roles = match dialect.version.family {
        Family::MySql => "SELECT CONCAT(User, '@', Host) FROM mysql.user",
        Family::MariaDb => "SELECT IF(is_role = 'Y', User, CONCAT(User, '@', Host)) FROM mysql.user",
    };
    let accounts = match lists(session, roles).await {
        Ok(accounts) => Some(accounts.into_iter().collect()),
        Err(DbError::Denied { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let system_users = match dialect.version.family {
        // Shows others' only to who may see them.
        Family::MySql => lists(
            session,
            "SELECT REPLACE(GRANTEE, '\\'', '') FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'SYSTEM_USER'",
        )
        .await?
        .into_iter()
        .collect(),
        Family::MariaDb => BTreeSet::new(),
    };
    Ok(Target {
        version: dialect.version,
        identity: session.scalar(dialect.server_identity).await?,
        account: session.scalar("SELECT CURRENT_USER()").await?,
        grants: grants_of(session).await?,
        occupied,
        schemas,
        lower_case_names: variables
            .get("lower_case_table_names")
            .is_some_and(|value| value == "1"),
        collations,
        engines,
        binlog_on: is_on("log_bin"),
        trusts_function_creators: is_on("log_bin_trust_function_creators"),
        generates_keys: is_on("sql_generate_invisible_primary_key"),
        requires_keys: is_on("sql_require_primary_key"),
        read_only: is_on("read_only") || is_on("super_read_only"),
        max_allowed_packet_bytes: variables
            .get("max_allowed_packet")
            .and_then(|value| value.parse().ok())
            .unwrap_or(16 << 20),
        parameters: variables,
        accounts,
        system_users,
    })
}

async fn variables(session: &mut Session) -> Result<BTreeMap<String, String>, DbError> {
    let pairs = session
        .pairs(
            "SHOW VARIABLES WHERE Variable_name IN ('lower_case_table_names', 'log_bin', 'log_bin_trust_function_creators', \
             'sql_generate_invisible_primary_key', 'sql_require_primary_key', 'max_allowed_packet', \
             'disabled_storage_engines', 'read_only', 'super_read_only', 'innodb_flush_log_at_trx_commit', 'sync_binlog', \
             'innodb_redo_log_capacity', 'innodb_log_file_size')",
        )
        .await?;
    Ok(pairs.into_iter().collect())
}

async fn lists(session: &mut Session, sql: &str) -> Result<Vec<String>, DbError> {
    let rows = session.text(sql).await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next()).collect())
}
