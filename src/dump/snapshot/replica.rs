//! What a source tells that is itself a replica, or whose binlog does not hold everything.

use crate::dump::AttemptError;
use crate::mysql::dialect::Dialect;
use crate::mysql::{DbError, Session};

/// Whether every change of the data goes through this server's binlog, which must be on. A replica that does not log
/// what it applies (MariaDB's default), a Galera node alike, and filters make a binlog that stands still while data
/// changes: equal positions prove nothing then, and replaying it would miss what was not logged. (Sessions that
/// switch `sql_log_bin` off cannot be seen; it takes an administrator to do that.)
pub async fn is_binlog_complete(session: &mut Session, dialect: &Dialect) -> Result<bool, DbError> {
    let status = session.named(dialect.binlog_status).await?;
    if status.is_empty() {
        // The server has closed it (disk full, say) and goes on without, though @@log_bin still says 1.
        return Ok(false);
    }
    let filtered = ["binlog_do_db", "binlog_ignore_db"].iter().any(|name| {
        status
            .iter()
            .any(|row| row.get(*name).is_some_and(|filter| !filter.is_empty()))
    });
    let settings = session
        .text("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_slave_updates', 'log_replica_updates', 'wsrep_on')")
        .await?;
    let is_on = |name: &str| {
        settings.iter().any(|row| {
            matches!(row.as_slice(), [setting, value] if setting.contains(name) && value.eq_ignore_ascii_case("ON"))
        })
    };
    if filtered || is_on("_updates") {
        return Ok(!filtered);
    }
    let applies = match session.named(dialect.replica_status).await {
        Ok(rows) => !rows.is_empty(),
        // Who may not ask cannot rule it out.
        Err(DbError::Denied { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok(!applies && !is_on("wsrep"))
}

/// A replica's applier.
pub(super) struct Replica {
    pub(super) channels: u32,
    pub(super) running: bool,
    pub(super) file: String,
    pub(super) position: u64,
    /// Not less than it is; none while it does not hear from its source.
    pub(super) lag_seconds: Option<i64>,
}

impl Replica {
    pub(super) fn lag(&self) -> Result<i64, AttemptError> {
        self.lag_seconds.ok_or_else(|| {
            AttemptError::Replica(
                "the source is a replica that does not hear from its own source, so nobody can say how old its data is; \
                 mend replication, or end it if this server is to serve by itself"
                    .to_owned(),
            )
        })
    }
}

pub(super) async fn replica(session: &mut Session, dialect: &Dialect) -> Result<Option<Replica>, DbError> {
    let rows = session.named(dialect.replica_status).await?;
    let [file, position, running] = dialect.replica_columns;
    // One row a channel: the data is as old as the channel that is furthest behind.
    let channels = rows.iter().map(|row| {
        let cell = |name: &str| row.get(name).map(String::as_str).unwrap_or_default();
        let hears = row.get("replica_io_running").or_else(|| row.get("slave_io_running"));
        let lag = row
            .get("seconds_behind_source")
            .or_else(|| row.get("seconds_behind_master"));
        Replica {
            channels: 1,
            running: cell(running).eq_ignore_ascii_case("yes"),
            file: cell(file).to_owned(),
            position: cell(position).parse().unwrap_or(0),
            // Told in whole seconds, rounded down; and, for a while, also by one that hears nothing any more.
            lag_seconds: lag
                .filter(|_| hears.is_some_and(|running| running.eq_ignore_ascii_case("yes")))
                .and_then(|lag| lag.parse::<i64>().ok())
                .map(|lag| lag + 1),
        }
    });
    Ok(channels.reduce(|one, other| Replica {
        running: one.running && other.running,
        lag_seconds: one
            .lag_seconds
            .zip(other.lag_seconds)
            .map(|(one, other)| one.max(other)),
        channels: one.channels + other.channels,
        ..one
    }))
}

/// How far a replica is behind its source, in seconds; None if the server is no replica.
///
/// # Errors
/// [`AttemptError::Replica`] if it is one whose applier stands still: its data would be older than it looks.
pub async fn replica_lag(session: &mut Session, dialect: &Dialect) -> Result<Option<i64>, AttemptError> {
    match replica(session, dialect).await {
        Ok(Some(replica)) if replica.running => Ok(Some(replica.lag()?)),
        Ok(Some(_)) => Err(AttemptError::Replica(
            "the source is a replica whose applier is stopped, so its data is older than it looks; start replication"
                .to_owned(),
        )),
        Ok(None) => Ok(None),
        // Who may not ask cannot know how old the data is.
        Err(DbError::Denied { .. }) => Err(AttemptError::MissingGrants(vec![
            "REPLICATION CLIENT (MariaDB: SLAVE MONITOR) on *.* (without it a replica that lags looks like a primary)"
                .to_owned(),
        ])),
        Err(error) => Err(error.into()),
    }
}
