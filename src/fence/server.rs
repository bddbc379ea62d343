//! The server that is fenced: what is asked of it and done to it, a statement at a time, each bounded.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ladder::{Account, Kill, LOGGING_IN, Means, Switches};
use super::record;
use crate::dump::error::AttemptError;
use crate::dump::literal::string;
use crate::dump::survey;
use crate::mysql::dialect::Family;
use crate::mysql::{Address, DbError, Session};

/// A server that was suspended answers nothing and closes nothing.
const STATEMENT: Duration = Duration::from_secs(30);
/// How long another session that raises or lifts is waited for before it is ended.
const OTHERS: u32 = 5;
/// A server that is just being started, or has no connection free, may have one in a second.
const LOGINS: u32 = 3;
const LOGIN_PAUSE: Duration = Duration::from_secs(1);

/// Threads that are nobody's session.
const NOBODYS: [&str; 3] = [LOGGING_IN, "system user", "event_scheduler"];

pub struct Server {
    session: Session,
    pub family: Family,
    pub means: Means,
    /// Name of the account that is logged in.
    pub own: String,
}

/// One line of the list of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub id: u64,
    pub user: String,
    pub host: String,
    /// Ended, and not gone yet: its transaction is being rolled back.
    pub is_ending: bool,
    /// Not logged in yet, or an event at work, or an applier.
    pub is_connecting: bool,
}

impl Seen {
    /// Whether it may write, or come to, where the application's accounts are `users`, no event begins any more, and every connection up to
    /// the number `newest` may have begun to log in before they were locked. One that began later will be refused.
    pub fn may_write(&self, users: &BTreeSet<String>, newest: u64) -> bool {
        let is_early = self.id <= newest;
        let is_event = self.is_connecting && !self.host.contains(':') && !NOBODYS.contains(&self.user.as_str());
        let is_nameless = self.user == LOGGING_IN;
        // One whose login was refused stands there as connecting, then as ended.
        let is_refused = self.is_connecting || self.is_ending;
        (users.contains(&self.user) && (is_early || !is_refused)) || (is_early && (is_nameless || is_event))
    }
}

impl Server {
    pub async fn open(address: &Address) -> Result<Self, DbError> {
        let mut session = connect(address).await?;
        for sql in [
            // In these statements a backslash escapes, and what is written stays, whatever the server's defaults.
            "SET SESSION sql_mode = '', autocommit = 1",
            // Nobody may queue for long behind us.
            "SET SESSION lock_wait_timeout = 5",
        ] {
            bounded(session.execute(sql)).await?;
        }
        let facts = async {
            let dialect = survey::dialect_of(&mut session).await.map_err(|error| match error {
                AttemptError::Source(error) => error,
                other => DbError::Odd {
                    sql: "SELECT @@version".to_owned(),
                    detail: other.to_string(),
                },
            })?;
            let grants = survey::grants_of(&mut session).await?;
            Ok((dialect, grants))
        };
        let (dialect, grants) = bounded(facts).await?;
        let sql = "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'mysql' \
                   AND ROUTINE_NAME IN ('rds_kill', 'az_kill')";
        let routines: Vec<String> = bounded(session.text(sql)).await?.into_iter().flatten().collect();
        let own = bounded(session.scalar("SELECT CURRENT_USER()")).await?;
        let own = own.rsplit_once('@').map_or(own.clone(), |(user, _)| user.to_owned());
        let family = dialect.version.family;
        Ok(Self {
            session,
            family,
            means: Means::of(family, &grants, &routines),
            own,
        })
    }

    /// Makes sure that nobody else raises or lifts here. Whoever asks has the right to: a session that still has the claim belongs to a
    /// process that lost it, or hangs, and is ended.
    pub async fn claim(&mut self) -> Result<(), DbError> {
        for _ in 0..2 {
            if bounded(record::lock(&mut self.session, OTHERS)).await? {
                return Ok(());
            }
            if let Some(holder) = bounded(record::holder(&mut self.session)).await? {
                // Gone by itself meanwhile, or another account's: then the next try tells.
                let _ = self.execute(&Kill::Plain.statement(holder)).await;
            }
        }
        match bounded(record::lock(&mut self.session, OTHERS)).await? {
            true => Ok(()),
            false => Err(DbError::LockWait {
                detail: "another session raises or lifts the fence (its lock is planb_fence)".to_owned(),
            }),
        }
    }

    pub async fn execute(&mut self, sql: &str) -> Result<(), DbError> {
        bounded(self.session.execute(sql)).await
    }

    /// For what stands in `record.rs`.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Every account; none if the list may not be read.
    pub async fn accounts(&mut self) -> Result<Option<Vec<Account>>, DbError> {
        let sql = match self.family {
            Family::MySql => "SELECT User, Host, account_locked = 'Y' FROM mysql.user",
            Family::MariaDb => {
                "SELECT User, Host, COALESCE(JSON_VALUE(Priv, '$.account_locked'), 0) = 1 FROM mysql.global_priv \
                 WHERE COALESCE(JSON_VALUE(Priv, '$.is_role'), 0) = 0"
            }
        };
        let rows = match bounded(self.session.text(sql)).await {
            Err(DbError::Denied { .. }) => return Ok(None),
            rows => rows?,
        };
        let account = |row: Vec<String>| {
            let [user, host, locked] = <[String; 3]>::try_from(row).ok()?;
            Some(Account {
                user,
                host,
                locked: locked == "1",
            })
        };
        Ok(Some(rows.into_iter().filter_map(account).collect()))
    }

    pub async fn switches(&mut self) -> Result<Switches, DbError> {
        let sql = match self.family {
            Family::MySql => "SELECT @@global.event_scheduler, @@global.read_only, @@global.super_read_only",
            // From 12.0 on it has several values; all but these mean yes.
            Family::MariaDb => "SELECT @@global.event_scheduler, @@global.read_only",
        };
        let row = bounded(self.session.text(sql))
            .await?
            .into_iter()
            .next()
            .unwrap_or_default();
        let is_on = |text: &String| !["", "0", "OFF"].contains(&text.as_str());
        Ok(Switches {
            events_run: row.first().is_some_and(|text| text == "ON"),
            read_only: row.get(1).is_some_and(is_on),
            super_read_only: row.get(2).map(is_on),
        })
    }

    /// Events that are enabled, as far as the account sees them.
    pub async fn events(&mut self) -> Result<Vec<String>, DbError> {
        let sql = "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME) FROM information_schema.EVENTS WHERE STATUS = 'ENABLED' \
                   AND EVENT_SCHEMA NOT IN ('mysql', 'sys', 'planb') ORDER BY 1";
        Ok(bounded(self.session.text(sql)).await?.into_iter().flatten().collect())
    }

    /// Every session that the account may see. Not from the performance schema, which is empty where it is off.
    pub async fn sessions(&mut self) -> Result<Vec<Seen>, DbError> {
        let sql = "SELECT ID, USER, HOST, COMMAND FROM information_schema.PROCESSLIST";
        let rows = bounded(self.session.text(sql)).await?;
        let seen = |row: Vec<String>| {
            let [id, user, host, command] = <[String; 4]>::try_from(row).ok()?;
            Some(Seen {
                id: id.parse().ok()?,
                is_connecting: command == "Connect",
                user,
                host,
                is_ending: command == "Killed",
            })
        };
        let seen: Vec<Seen> = rows.into_iter().filter_map(seen).collect();
        if seen.is_empty() {
            return Err(DbError::Odd {
                sql: sql.to_owned(),
                detail: "not even this session is listed".to_owned(),
            });
        }
        Ok(seen)
    }

    /// How many transactions of these sessions are open, whether they are still listed or not.
    pub async fn transactions(&mut self, of: &BTreeSet<u64>) -> Result<u64, DbError> {
        if of.is_empty() {
            return Ok(0);
        }
        let ids: Vec<String> = of.iter().map(u64::to_string).collect();
        let sql = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id IN ({})",
            ids.join(", ")
        );
        bounded(self.session.number(&sql)).await
    }

    pub async fn set_locked(&mut self, user: &str, host: &str, locked: bool) -> Result<(), DbError> {
        let word = if locked { "LOCK" } else { "UNLOCK" };
        let sql = format!("ALTER USER {}@{} ACCOUNT {word}", string(user), string(host));
        self.execute(&sql).await
    }

    /// Whether the server refuses a write of our own because it is read-only. It says so before it looks whether the table is there.
    pub async fn refuses_own_write(&mut self) -> Result<bool, DbError> {
        match self.execute("DELETE FROM planb.fence WHERE FALSE").await {
            Err(DbError::ReadOnly { .. }) => Ok(true),
            Err(error @ (DbError::Lost { .. } | DbError::Unreachable { .. })) => Err(error),
            Ok(()) | Err(_) => Ok(false),
        }
    }

    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Logs in; not at once taken at its word when nothing answers.
async fn connect(address: &Address) -> Result<Session, DbError> {
    let mut number = 1;
    loop {
        match address.connect().await {
            Err(error) if !error.is_permanent() && number < LOGINS => number += 1,
            done => return done,
        }
        tokio::time::sleep(LOGIN_PAUSE).await;
    }
}

async fn bounded<T>(work: impl Future<Output = Result<T, DbError>>) -> Result<T, DbError> {
    match tokio::time::timeout(STATEMENT, work).await {
        Ok(done) => done,
        Err(_) => Err(DbError::Lost {
            detail: format!("no answer within {} s", STATEMENT.as_secs()),
        }),
    }
}
