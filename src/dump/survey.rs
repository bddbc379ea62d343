//! The first look at the source: what it is, what the account sees, what there is to dump.

use super::{AttemptError, catalog, snapshot};
use crate::config;
use crate::mysql::dialect::{Dialect, Version};
use crate::mysql::grants::Grants;
use crate::mysql::{Address, DbError, Session};

/// The source as it was found: what does not change between attempts.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    pub dialect: Dialect,
    pub grants: Grants,
    pub identity: String,
    pub schemas: Vec<String>,
    /// Those that are there as well and are not dumped.
    pub other_schemas: Vec<String>,
    /// No databases are configured: a schema that comes to be is dumped as well.
    pub every_schema: bool,
    pub binlog_on: bool,
    /// The binlog is on and holds every change of the data.
    pub binlog_complete: bool,
}

/// Looks at the source: version, grants, schemas. Fails loudly where a missing grant would hide an object.
///
/// # Errors
/// [`AttemptError`], nearly always permanent.
pub async fn survey(address: &Address, source: &config::Source) -> Result<SourceFacts, AttemptError> {
    let mut session = address.connect().await?;
    let facts = survey_session(&mut session, source).await;
    session.close().await;
    facts
}

async fn survey_session(session: &mut Session, source: &config::Source) -> Result<SourceFacts, AttemptError> {
    let dialect = dialect_of(session).await?;
    let existing = catalog::user_schemas(session).await?;
    let schemas = if source.databases.is_empty() {
        existing.clone()
    } else {
        source.databases.clone()
    };
    if let Some(absent) = schemas.iter().find(|name| !existing.contains(name)) {
        // A schema on which nothing is granted is hidden as if it were not there.
        return Err(AttemptError::NoSuchSchema(absent.clone()));
    }
    if schemas.is_empty() {
        return Err(AttemptError::NothingToDump);
    }
    let binlog_on = session.scalar("SELECT @@global.log_bin").await? == "1";
    let grants = grants_of(session).await?;
    let missing = grants.missing(&dialect, &schemas, binlog_on);
    if !missing.is_empty() {
        return Err(AttemptError::MissingGrants(missing));
    }
    let identity = session.scalar(dialect.server_identity).await?;
    let binlog_complete = binlog_on && snapshot::is_binlog_complete(session, &dialect).await?;
    Ok(SourceFacts {
        dialect,
        grants,
        identity,
        other_schemas: existing.into_iter().filter(|name| !schemas.contains(name)).collect(),
        schemas,
        every_schema: source.databases.is_empty(),
        binlog_on,
        binlog_complete,
    })
}

/// The server's version and what to say to it.
pub async fn dialect_of(session: &mut Session) -> Result<Dialect, AttemptError> {
    let version = session.text("SELECT @@version, @@version_comment").await?;
    let text = |i: usize| version.first().and_then(|row| row.get(i)).cloned().unwrap_or_default();
    let version = Version::parse(&text(0), &text(1))
        .filter(Version::is_supported)
        .ok_or_else(|| AttemptError::UnknownVersion(text(0)))?;
    Ok(Dialect::of(version))
}

/// The account's privileges, those of its active roles included.
pub async fn grants_of(session: &mut Session) -> Result<Grants, DbError> {
    let roles = session.scalar("SELECT COALESCE(CURRENT_ROLE(), 'NONE')").await?;
    // MySQL lists a role's privileges only when asked to use it; MariaDB always lists the current role's.
    let ask = if roles.contains('`') {
        format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}")
    } else {
        "SHOW GRANTS".to_owned()
    };
    let rows = session.text(&ask).await?;
    Ok(Grants::parse(
        rows.iter().filter_map(|row| row.first()).map(String::as_str),
    ))
}
