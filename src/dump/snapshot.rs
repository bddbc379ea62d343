//! One point in time: several sessions that see exactly the same data, or one.
//!
//! Managed MySQL refuses the locks that others rely on, and comparing GTID sets around several opened sessions is no
//! proof (the engine shows a commit before the GTID set does). So the first of these that server and account allow:
//!
//! 1. MariaDB: snapshots whose `binlog_snapshot_*` are all equal. Exact, no lock.
//! 2. A replica that may be paused: its applier stands still while the sessions open.
//! 3. `FLUSH TABLES WITH READ LOCK` for the instant, given up after `lock_wait` rather than make anyone queue.
//! 4. One session. Always consistent, never a lock.
//! 5. `LOCK TABLES … READ` in a side session: only if asked for.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::AttemptError;
use super::literal::qualified;
use crate::clock::Clock;
use crate::config::Lock;
use crate::format::index::{Place, Position, Way};
use crate::mysql::dialect::{Dialect, Family};
use crate::mysql::grants::Grants;
use crate::mysql::{Address, DbError, Session};

mod pause;
mod replica;

pub use replica::{is_binlog_complete, replica_lag};

const OPEN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
/// For a session that holds a lock: should this machine vanish, the server ends it, and so the lock, after seconds.
const LET_GO_SOON: &str = "SET SESSION wait_timeout = 5";
/// How long equal positions are tried for before fewer sessions must do.
const MARIADB_PATIENCE: Duration = Duration::from_secs(3);
/// How long a MariaDB binlog that was just rotated is given to take up another transaction.
const ROTATION_PATIENCE: Duration = Duration::from_millis(200);
/// How long an exact position is tried for before a range must do.
const POSITION_PATIENCE: Duration = Duration::from_secs(2);

/// What decides the way.
#[derive(Debug, Clone)]
pub struct Wish {
    pub sessions: usize,
    pub lock: Lock,
    pub lock_wait: Duration,
    pub pause_replica: bool,
    /// The binlog is on and holds every change, so that positions in it mean something.
    pub binlog_complete: bool,
    /// Every table, for `LOCK TABLES`.
    pub tables: Vec<(String, String)>,
}

/// Sessions that all see the data of one instant.
#[derive(Debug)]
pub struct Snapshot {
    pub sessions: Vec<Session>,
    pub way: Way,
    /// How long anything was locked, or an applier stood still.
    pub locked: Duration,
    pub position: Position,
    /// Not later than the instant of the data.
    pub consistent_at: Timestamp,
}

/// Which way would be tried first. Pure, so that `doctor` and the tests can ask.
pub fn way(wish: &Wish, family: Family, grants: &Grants) -> Way {
    let may_lock_all = grants.global("RELOAD") || grants.global("FLUSH_TABLES");
    match (wish.lock, family) {
        _ if wish.pause_replica => Way::PausedReplica,
        (Lock::Tables, _) if wish.sessions > 1 => Way::TableLocks,
        (_, Family::MariaDb) if wish.binlog_complete => Way::MariadbSnapshot,
        (Lock::Auto, _) if wish.sessions > 1 && may_lock_all => Way::GlobalLock,
        (Lock::Auto | Lock::None | Lock::Tables, _) => Way::SingleSession,
    }
}

/// Opens the snapshot.
///
/// # Errors
/// The database's, or [`AttemptError::Replica`] when a replica's applier is not running.
pub async fn open(
    address: &Address,
    dialect: &Dialect,
    grants: &Grants,
    wish: &Wish,
    clock: &dyn Clock,
) -> Result<Snapshot, AttemptError> {
    let way = way(wish, dialect.version.family, grants);
    let count = if way == Way::SingleSession {
        1
    } else {
        wish.sessions.max(1)
    };
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        sessions.push(reader_session(address, dialect, wish.lock_wait).await?);
    }
    let opener = Opener {
        address,
        dialect,
        wish,
        clock,
    };
    match way {
        Way::MariadbSnapshot => opener.mariadb(sessions).await,
        Way::PausedReplica => opener.paused_replica(sessions).await,
        Way::TableLocks => opener.table_locks(sessions).await,
        Way::GlobalLock => opener.global_lock(sessions).await,
        Way::SingleSession => opener.single(sessions).await,
    }
}

/// A session with everything set that reading exactly needs.
pub async fn reader_session(address: &Address, dialect: &Dialect, lock_wait: Duration) -> Result<Session, DbError> {
    let mut session = address.connect().await?;
    for setting in dialect.reader_settings {
        session.execute(setting).await?;
    }
    let seconds = lock_wait.as_secs().max(1);
    session
        .execute(&format!(
            "SET SESSION lock_wait_timeout = {seconds}, innodb_lock_wait_timeout = {seconds}"
        ))
        .await?;
    Ok(session)
}

struct Opener<'a> {
    address: &'a Address,
    dialect: &'a Dialect,
    wish: &'a Wish,
    clock: &'a dyn Clock,
}

impl Opener<'_> {
    async fn mariadb(&self, mut sessions: Vec<Session>) -> Result<Snapshot, AttemptError> {
        let mut until = Instant::now() + MARIADB_PATIENCE;
        let mut rotated_until = None;
        loop {
            let consistent_at = self.clock.now();
            // Opened together, so that as little as possible happens between them.
            self.open_all(&mut sessions).await?;
            let mut places = Vec::with_capacity(sessions.len());
            for session in &mut sessions {
                places.push(snapshot_place(session).await?);
            }
            // No place at all proves nothing: the binlog was closed meanwhile.
            let is_known = sessions.len() == 1 || places.iter().all(Option::is_some);
            if is_known && places.windows(2).all(|pair| pair[0] == pair[1]) {
                let place = places.swap_remove(0);
                let (position, is_sure) = mariadb_position(&mut sessions, place).await?;
                if !is_sure {
                    if Instant::now() < *rotated_until.get_or_insert_with(|| Instant::now() + ROTATION_PATIENCE) {
                        roll_back(&mut sessions).await?;
                        continue;
                    }
                    // Nobody writes. One session is right whatever it sees, and the range says what is known.
                    for session in sessions.drain(1..) {
                        session.close().await;
                    }
                }
                let way = if sessions.len() > 1 {
                    Way::MariadbSnapshot
                } else {
                    Way::SingleSession
                };
                return Ok(Snapshot {
                    sessions,
                    way,
                    locked: Duration::ZERO,
                    position,
                    consistent_at,
                });
            }
            roll_back(&mut sessions).await?;
            if Instant::now() >= until && sessions.len() > 1 {
                let fewer = sessions.len().div_ceil(2);
                tracing::info!(
                    from = sessions.len(),
                    to = fewer,
                    "too many commits for equal snapshots, fewer sessions"
                );
                for session in sessions.drain(fewer..) {
                    session.close().await;
                }
                until = Instant::now() + MARIADB_PATIENCE;
            }
        }
    }

    async fn global_lock(&self, mut sessions: Vec<Session>) -> Result<Snapshot, AttemptError> {
        let mut control = reader_session(self.address, self.dialect, self.wish.lock_wait).await?;
        control.execute(LET_GO_SOON).await?;
        let begun = Instant::now();
        match control.execute("FLUSH TABLES WITH READ LOCK").await {
            Ok(()) => {}
            // Somebody's long statement is in the way, or the platform refuses in spite of the grant (RDS).
            Err(DbError::LockWait { .. } | DbError::Denied { .. } | DbError::Interrupted { .. }) => {
                let waited = begun.elapsed();
                tracing::info!("no global lock to be had, one session");
                control.close().await;
                for session in sessions.drain(1..) {
                    session.close().await;
                }
                let mut snapshot = self.single(sessions).await?;
                // Writers may have queued behind our request while it waited.
                snapshot.locked = waited;
                return Ok(snapshot);
            }
            Err(error) => return Err(error.into()),
        }
        let consistent_at = self.clock.now();
        let opened = self.open_all_soon(&mut sessions).await;
        let place = place(&mut control, self.dialect, self.wish.binlog_complete).await;
        control.execute("UNLOCK TABLES").await?;
        let locked = begun.elapsed();
        opened?;
        control.close().await;
        Ok(Snapshot {
            sessions,
            way: Way::GlobalLock,
            locked,
            position: exact(place?),
            consistent_at,
        })
    }

    async fn table_locks(&self, mut sessions: Vec<Session>) -> Result<Snapshot, AttemptError> {
        let mut control = reader_session(self.address, self.dialect, self.wish.lock_wait).await?;
        let tables: Vec<String> = self
            .wish
            .tables
            .iter()
            .map(|(schema, table)| format!("{} READ", qualified(schema, table)))
            .collect();
        let before = place(&mut control, self.dialect, self.wish.binlog_complete).await?;
        control.execute(LET_GO_SOON).await?;
        let begun = Instant::now();
        if !tables.is_empty() {
            control.execute(&format!("LOCK TABLES {}", tables.join(", "))).await?;
        }
        let consistent_at = self.clock.now();
        let opened = self.open_all_soon(&mut sessions).await;
        // Other schemas may be written meanwhile: only a range is known for the binlog.
        control.execute("UNLOCK TABLES").await?;
        let locked = begun.elapsed();
        opened?;
        let after = place(&mut control, self.dialect, self.wish.binlog_complete).await?;
        control.close().await;
        Ok(Snapshot {
            sessions,
            way: Way::TableLocks,
            locked,
            position: range(String::new(), before, after),
            consistent_at,
        })
    }

    /// One snapshot. Its position is exact where nobody was between writing the binlog and committing in the engine
    /// on either side of it: `gtid_owned` empty and `gtid_executed` unchanged.
    async fn single(&self, mut sessions: Vec<Session>) -> Result<Snapshot, AttemptError> {
        let way = Way::SingleSession;
        if self.dialect.version.family == Family::MariaDb || !self.wish.binlog_complete {
            let consistent_at = self.clock.now();
            self.open_all(&mut sessions).await?;
            return Ok(Snapshot {
                sessions,
                way,
                locked: Duration::ZERO,
                position: Position::None,
                consistent_at,
            });
        }
        let mut control = reader_session(self.address, self.dialect, self.wish.lock_wait).await?;
        // ON_PERMISSIVE lets transactions without a GTID through, of which the GTID sets know nothing.
        let gtids = control.scalar("SELECT @@global.gtid_mode").await? == "ON";
        let until = Instant::now() + POSITION_PATIENCE;
        loop {
            let place_before = place(&mut control, self.dialect, true).await?;
            let before = owned_and_executed(&mut control).await?;
            let consistent_at = self.clock.now();
            self.open_all(&mut sessions).await?;
            let place = place(&mut control, self.dialect, true).await?;
            let after = owned_and_executed(&mut control).await?;
            let quiet = before.0.is_empty() && after.0.is_empty() && before.1 == after.1;
            let position = if gtids && quiet {
                exact(place)
            } else if gtids && Instant::now() < until {
                roll_back(&mut sessions).await?;
                continue;
            } else {
                range(if gtids { before.1 } else { String::new() }, place_before, place)
            };
            control.close().await;
            return Ok(Snapshot {
                sessions,
                way,
                locked: Duration::ZERO,
                position,
                consistent_at,
            });
        }
    }

    /// As [`open_all`](Self::open_all), under a lock: whatever takes longer than `lock_wait` must not hold it.
    async fn open_all_soon(&self, sessions: &mut [Session]) -> Result<(), DbError> {
        let opened = tokio::time::timeout(self.wish.lock_wait, self.open_all(sessions)).await;
        opened.unwrap_or_else(|_| {
            Err(DbError::Lost {
                detail: "a snapshot did not open while the lock was held".to_owned(),
            })
        })
    }

    async fn open_all(&self, sessions: &mut [Session]) -> Result<(), DbError> {
        let opened = futures_util::future::join_all(sessions.iter_mut().map(|session| session.execute(OPEN))).await;
        opened.into_iter().collect()
    }
}

async fn roll_back(sessions: &mut [Session]) -> Result<(), DbError> {
    for session in sessions {
        session.execute("ROLLBACK").await?;
    }
    Ok(())
}

async fn owned_and_executed(session: &mut Session) -> Result<(String, String), DbError> {
    let row = session
        .text("SELECT @@global.gtid_owned, @@global.gtid_executed")
        .await?
        .into_iter()
        .next();
    let mut cells = row.unwrap_or_default().into_iter().map(|cell| one_line(&cell));
    Ok((cells.next().unwrap_or_default(), cells.next().unwrap_or_default()))
}

/// MariaDB: the binlog position that belongs to this session's snapshot; none with the binlog off.
async fn snapshot_place(session: &mut Session) -> Result<Option<(String, u64)>, DbError> {
    let rows = session.text("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let value = |name: &str| {
        let row = rows
            .iter()
            .find(|row| row.first().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        row.and_then(|row| row.get(1)).cloned().unwrap_or_default()
    };
    let file = value("binlog_snapshot_file");
    Ok(value("binlog_snapshot_position")
        .parse()
        .ok()
        .filter(|_| !file.is_empty())
        .map(|position| (file, position)))
}

/// The position of MariaDB sessions that all stand at `place`, and whether it says what they see.
///
/// MariaDB rotates before the transactions written last into the old file are committed in the engine, and counts a
/// snapshot taken in between as one of the new file's beginning: at that one place, a snapshot may lack them or not.
/// (Found by `tests/consistency.rs`: a transfer at the old file's end was missing.) From the first transaction in the
/// new file on, there is no doubt. The server's own GTID arithmetic tells whether there was one.
async fn mariadb_position(sessions: &mut [Session], place: Option<(String, u64)>) -> Result<(Position, bool), DbError> {
    let (Some((file, position)), Some(session)) = (place, sessions.first_mut()) else {
        return Ok((Position::None, true));
    };
    let sql = format!("SELECT BINLOG_GTID_POS('{file}', {position}), BINLOG_GTID_POS('{file}', {FIRST_EVENT})");
    let gtids = session.text(&sql).await?.into_iter().next().unwrap_or_default();
    let gtid = |i: usize| gtids.get(i).cloned().unwrap_or_default();
    if !gtid(0).is_empty() && gtid(0) != gtid(1) {
        let gtid = gtid(0);
        return Ok((Position::Exact { file, position, gtid }, true));
    }
    let from = Place {
        file: earlier_file(&file, GROUPS_UNDER_WAY),
        position: FIRST_EVENT,
        gtid: String::new(),
    };
    let to = Place {
        file,
        position,
        gtid: gtid(0),
    };
    Ok((Position::Range { from, to }, false))
}

/// MariaDB has at most three commit groups under way: one that writes, one that waits for the disk or a replica, one
/// that commits in the engine. Each may have begun a new file.
const GROUPS_UNDER_WAY: u64 = 3;

/// `binlog.000007` less 3 is `binlog.000004`; never before the first.
fn earlier_file(file: &str, by: u64) -> String {
    let Some((base, digits)) = file.rsplit_once('.') else {
        return file.to_owned();
    };
    match digits.parse::<u64>() {
        Ok(number) => format!(
            "{base}.{:0width$}",
            number.saturating_sub(by).max(1),
            width = digits.len()
        ),
        Err(_) => file.to_owned(),
    }
}

/// Where the binlog ends now.
async fn place(session: &mut Session, dialect: &Dialect, known: bool) -> Result<Option<Place>, DbError> {
    if !known {
        return Ok(None);
    }
    let rows = session.named(dialect.binlog_status).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let cell = |name: &str| row.get(name).cloned().unwrap_or_default();
    let gtid = match dialect.version.family {
        Family::MySql => cell("executed_gtid_set"),
        Family::MariaDb => session.scalar("SELECT @@global.gtid_binlog_pos").await?,
    };
    Ok(Some(Place {
        file: cell("file"),
        position: cell("position").parse().unwrap_or(0),
        gtid: one_line(&gtid),
    }))
}

fn exact(place: Option<Place>) -> Position {
    place.map_or(Position::None, |place| Position::Exact {
        file: place.file,
        position: place.position,
        gtid: place.gtid,
    })
}

/// Events begin after a file's magic number.
const FIRST_EVENT: u64 = 4;

/// MySQL rotates its binlog only when all transactions in the old file are committed in the engine: so everything
/// before the file that was current *before* the snapshot is surely in it. What the GTID set held then is, too.
/// (MariaDB does not wait; but it is asked only around table locks, which wait for every transaction on the tables.)
fn range(gtid_before: String, before: Option<Place>, to: Option<Place>) -> Position {
    match (before, to) {
        (Some(before), Some(to)) => Position::Range {
            from: Place {
                file: before.file,
                position: FIRST_EVENT,
                gtid: gtid_before,
            },
            to,
        },
        (None, _) | (_, None) => Position::None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish {
            sessions: 4,
            lock: Lock::Auto,
            lock_wait: Duration::from_secs(1),
            pause_replica: false,
            binlog_complete: true,
            tables: Vec::new(),
        }
    }

    #[test]
    fn an_earlier_binlog_is_named_as_the_server_names_it() {
        assert_eq!(earlier_file("binlog.000007", 3), "binlog.000004");
        assert_eq!(earlier_file("db.example-bin.1000001", 2), "db.example-bin.0999999");
        assert_eq!(earlier_file("binlog.000002", 3), "binlog.000001");
    }

    #[test]
    fn the_first_way_that_server_and_account_allow() {
        let plain = Grants::parse(["GRANT SELECT ON *.* TO `planb`@`%`"]);
        let locker = Grants::parse(["GRANT SELECT, RELOAD ON *.* TO `planb`@`%`"]);
        assert_eq!(way(&wish(), Family::MariaDb, &plain), Way::MariadbSnapshot);
        assert_eq!(way(&wish(), Family::MySql, &plain), Way::SingleSession);
        assert_eq!(way(&wish(), Family::MySql, &locker), Way::GlobalLock);
        assert_eq!(
            way(
                &Wish {
                    binlog_complete: false,
                    ..wish()
                },
                Family::MariaDb,
                &plain
            ),
            Way::SingleSession
        );
        assert_eq!(
            way(&Wish { sessions: 1, ..wish() }, Family::MySql, &locker),
            Way::SingleSession
        );
        assert_eq!(
            way(
                &Wish {
                    lock: Lock::None,
                    ..wish()
                },
                Family::MySql,
                &locker
            ),
            Way::SingleSession
        );
        assert_eq!(
            way(
                &Wish {
                    lock: Lock::Tables,
                    ..wish()
                },
                Family::MySql,
                &plain
            ),
            Way::TableLocks
        );
        assert_eq!(
            way(
                &Wish {
                    pause_replica: true,
                    ..wish()
                },
                Family::MySql,
                &locker
            ),
            Way::PausedReplica
        );
    }
}
