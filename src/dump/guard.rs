//! Gentleness: somebody who waits for one of our metadata locks gets it, and a busy server gets a pause.
//!
//! Every reader tells what statement it runs since when. A watcher on a session of its own looks a few times a
//! second who waits; a reader whose statement is older than `lock_wait` while anybody waits is interrupted
//! (`KILL QUERY`, which needs no privilege for one's own sessions), gives its locks back and goes on from the last
//! row it has. The reader is told as well: a server that is stuck in sending notices the interruption only when
//! somebody takes its rows, and a reader that waits for the store takes none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{AttemptError, literal};
use crate::mysql::Session;

/// What readers and the watcher share.
#[derive(Debug, Clone)]
pub struct Guard {
    running: Arc<Mutex<HashMap<u64, Statement>>>,
    yields: Arc<std::sync::atomic::AtomicU64>,
    busy: watch::Receiver<bool>,
    busy_out: Arc<watch::Sender<bool>>,
}

/// How long others may wait for us.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub lock_wait: Duration,
    /// The server keeps the locks of what was read until the snapshot ends: the only way to yield is to end it.
    pub locks_stay: bool,
}

/// Longest a reader waits for a busy server before it reads another piece: a dump must end some time.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A statement that goes on for so long after it was interrupted is not waited for: its session is ended, and the
/// attempt with it.
const END_WITHIN: Duration = Duration::from_millis(400);

impl Default for Guard {
    fn default() -> Self {
        let (busy_out, busy) = watch::channel(false);
        Self {
            running: Arc::default(),
            yields: Arc::default(),
            busy,
            busy_out: Arc::new(busy_out),
        }
    }
}

#[derive(Debug)]
struct Statement {
    since: Instant,
    asked_at: Option<Instant>,
    asked: CancellationToken,
}

/// A statement under way; ends when dropped.
pub struct Running {
    guard: Guard,
    session: u64,
    asked: CancellationToken,
}

impl Running {
    /// Returns once the statement was interrupted for somebody who waits: its rows must be taken, to see it end.
    pub async fn asked_to_yield(&self) {
        self.asked.cancelled().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guard
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.session);
    }
}

impl Guard {
    /// Marks a statement of session number `session` as begun.
    pub fn begin(&self, session: u64) -> Running {
        let asked = CancellationToken::new();
        let statement = Statement {
            since: Instant::now(),
            asked_at: None,
            asked: asked.clone(),
        };
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, statement);
        Running {
            guard: self.clone(),
            session,
            asked,
        }
    }

    /// Waits while the server is busier than the limit, ten seconds at most.
    pub async fn pause_while_busy(&self) {
        let mut busy = self.busy.clone();
        // An error means that the watcher is gone: then nobody says the server is busy.
        let _ = tokio::time::timeout(LONGEST_PAUSE, busy.wait_for(|busy| !busy)).await;
    }

    /// How often readers were interrupted to let somebody through.
    pub fn yields(&self) -> u64 {
        self.yields.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Watches until cancelled, or until its own session breaks (which ends the attempt: unwatched, a dump could
    /// make others wait).
    pub async fn watch(
        self,
        mut session: Session,
        patience: Patience,
        threads_running_limit: Option<u32>,
        schemas: &[String],
        stop: CancellationToken,
    ) -> Result<(), AttemptError> {
        let waiters = waiters_sql(schemas);
        let mut first_seen = HashMap::new();
        // Somebody who came just after a look waits `lock_wait` plus one turn: within the promised second.
        let mut turn = tokio::time::interval(Duration::from_millis(200));
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = turn.tick() => {}
            }
            self.look(&mut session, patience, threads_running_limit, &waiters, &mut first_seen)
                .await?;
        }
        session.close().await;
        Ok(())
    }

    /// Sessions whose statement began before `at`.
    fn began_before(&self, at: Instant) -> Vec<u64> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .iter()
            .filter(|(_, statement)| statement.since <= at)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Interrupts a reader's statement. It may have ended meanwhile; then there is nothing left to interrupt.
    async fn interrupt(&self, session: &mut Session, id: u64) {
        let asked_at = match self.running.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&id) {
            Some(statement) => *statement.asked_at.get_or_insert_with(Instant::now),
            None => return,
        };
        let what = if asked_at.elapsed() < END_WITHIN {
            "QUERY"
        } else {
            "CONNECTION"
        };
        if let Err(error) = session.execute(&format!("KILL {what} {id}")).await {
            tracing::debug!(%error, "reader already gone");
            return;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Interrupted at each look until it has ended, and counted once.
        if let Some(statement) = running.get(&id).filter(|statement| !statement.asked.is_cancelled()) {
            statement.asked.cancel();
            self.yields.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    async fn look(
        &self,
        session: &mut Session,
        patience: Patience,
        limit: Option<u32>,
        waiters: &str,
        first_seen: &mut HashMap<String, Instant>,
    ) -> Result<(), AttemptError> {
        let long = patience.lock_wait.mul_f64(0.9);
        if patience.locks_stay {
            // Interrupted, a reader would still be in the way.
            let waiting = format!("{waiters} AND TIME_MS >= {}", long.as_millis());
            if !session.text(&waiting).await?.is_empty() {
                return Err(AttemptError::InTheWay);
            }
        } else if self.began_before(Instant::now() - long).is_empty() {
            first_seen.clear();
        } else {
            let now = Instant::now();
            let waiting: Vec<String> = session.text(waiters).await?.into_iter().flatten().collect();
            first_seen.retain(|id, _| waiting.contains(id));
            for id in waiting {
                first_seen.entry(id).or_insert(now);
            }
            // A statement that began after somebody already waited is not what that one waits for.
            let latest = first_seen.values().max().copied();
            if let Some(latest) = latest {
                for id in self.began_before(latest.min(now - long)) {
                    self.interrupt(session, id).await;
                }
            }
        }
        if let Some(limit) = limit {
            let rows = session.text("SHOW GLOBAL STATUS LIKE 'Threads_running'").await?;
            let running: u32 = rows
                .first()
                .and_then(|row| row.get(1))
                .and_then(|n| n.parse().ok())
                .unwrap_or(0);
            self.busy_out
                .send_if_modified(|busy| std::mem::replace(busy, running > limit) != (running > limit));
        }
        Ok(())
    }
}

/// Asks for the sessions that wait for a table's metadata lock in one of our schemas: a statement names its schema, or
/// runs in it. The states' names are the same on MySQL and MariaDB.
fn waiters_sql(schemas: &[String]) -> String {
    let ours = schemas.iter().map(|schema| {
        let name = literal::string(schema);
        format!("DB = {name} OR LOCATE({name}, INFO) > 0")
    });
    format!(
        "SELECT ID FROM information_schema.PROCESSLIST \
         WHERE STATE IN ('Waiting for table metadata lock', 'Waiting for table flush') AND (INFO IS NULL OR {})",
        ours.collect::<Vec<_>>().join(" OR ")
    )
}
