//! What the agent knows, for whoever looks: written by the agent's loop and by the tasks beside it, read by measurements and
//! pages. No call here waits for anything but another one's short look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::Counters;
use crate::backup::entry::{BackupId, Entry, Standing};
use crate::backup::rpo::Rpo;
use crate::clock::Clock;
use crate::config::Config;
use crate::doctor::Finding;
use crate::drill::report::{Open, Report};
use crate::dump::pipeline::Progress;
use crate::recovery::journal::Position;
use crate::watch::quorum::Tally;
use crate::watch::verdict::Ruling;

/// What a line over the last day needs.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(25);

#[derive(Debug)]
pub struct Board {
    clock: Arc<dyn Clock>,
    facts: Mutex<Facts>,
    pub counters: Counters,
    /// Fires when somebody looks at the operation.
    looked: Notify,
    /// Fires when the journal was read.
    read: Notify,
}

/// Everything known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub config: Option<Arc<Config>>,
    pub started: Option<Timestamp>,
    pub tick: Option<(Tick, Instant)>,
    /// The listing, newest first.
    pub backups: Arc<Vec<Backup>>,
    /// When which data was safe: commits of the last day, also of backups that are gone since.
    pub commits: Arc<BTreeMap<Timestamp, Timestamp>>,
    /// The last answer of the store: none if it did not answer, and what it said.
    pub store: Option<Result<Instant, String>>,
    pub running: Option<Running>,
    pub last_run: Option<LastRun>,
    pub last_commit: Option<Committed>,
    pub latest_proof: Option<Timestamp>,
    pub failed_proof: Option<String>,
    pub journal: Option<Journal>,
    pub doctor: Option<(Timestamp, Arc<Vec<Finding>>)>,
    /// How each channel is doing by which people are told.
    pub channels: Arc<Vec<Channel>>,
    /// What the watchers found together when the store was read last: none where nobody is to watch.
    pub watched: Option<Watched>,
    /// None before they were read first.
    pub drilled: Option<Arc<Drilled>>,
}

/// A channel by which people are told. Counts are of as long as it is remembered whom was told what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    pub waiting: usize,
    /// Tries in a row that failed, and what the last one said.
    pub failures: u32,
    pub error: Option<String>,
    pub delivered: u64,
    pub failed: u64,
    /// Given up, because too much waited.
    pub dropped: u64,
}

/// What the watchers see.
#[derive(Debug, Clone)]
pub struct Watched {
    pub read_at: Instant,
    /// Why nobody could look, if so.
    pub found: Result<Arc<Found>, String>,
}

/// By the store's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub now: Timestamp,
    pub tally: Tally,
    /// What holds until most of them say otherwise.
    pub ruling: Option<Ruling>,
    /// What was begun automatically, or why nothing was; in lines.
    pub auto: Vec<String>,
}

/// Rehearsals.
#[derive(Debug, Clone, Default)]
pub struct Drilled {
    /// The last ones, newest first.
    pub reports: Vec<Report>,
    pub open: Option<Open>,
}

/// The agent's own view, told with each round of its loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    pub rpo: Rpo,
    /// From when the newest good backup's data is.
    pub data_from: Option<Timestamp>,
    pub store_now: Option<Timestamp>,
    /// What the schedule can lose at worst; none before the first run was seen.
    pub worst_case: Option<Duration>,
    /// When the next backup should land.
    pub next_commit: Option<Timestamp>,
    /// Nothing is past its deadline.
    pub is_healthy: bool,
}

/// A backup as pages show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub id: BackupId,
    pub consistent_at: Timestamp,
    pub committed_at: Timestamp,
    pub size_bytes: u64,
    pub raw_bytes: u64,
    pub rows: u64,
    pub standing: Standing,
    pub proven_at: Option<Timestamp>,
    pub checked_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct Running {
    pub since: Timestamp,
    pub begun: Instant,
    /// Once it holds the lease and reads.
    pub attempt: Option<(u32, Arc<Progress>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    pub at: Timestamp,
    pub took: Duration,
    /// Why it failed.
    pub failure: Option<String>,
    /// Another agent was at it: nothing is wrong.
    pub stood_back: bool,
}

/// A run of this agent that committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    pub backup: Backup,
    pub seconds: f64,
    pub lock_seconds: f64,
    pub attempts: u32,
}

/// What the journal of failovers said last.
#[derive(Debug, Clone)]
pub struct Journal {
    pub read_at: Instant,
    pub position: Result<Arc<Position>, String>,
    /// What steps at work said last.
    pub at_work: BTreeMap<String, String>,
}

/// How a run of this agent ended without a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    Cancelled,
    /// Somebody else held the lease.
    Busy,
    /// Tried again soon.
    Transient,
    /// A person has to act.
    Permanent,
}

impl Board {
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        let facts = Facts {
            started: Some(clock.now()),
            ..Facts::default()
        };
        Arc::new(Self {
            clock,
            facts: Mutex::new(facts),
            counters: Counters::default(),
            looked: Notify::new(),
            read: Notify::new(),
        })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything, as it is now; lists are shared, not copied.
    pub fn look(&self) -> Facts {
        self.facts().clone()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn configured(&self, config: Arc<Config>) {
        self.facts().config = Some(config);
    }

    pub fn ticked(&self, tick: Tick) {
        self.facts().tick = Some((tick, Instant::now()));
    }

    pub fn run_began(&self) {
        self.facts().running = Some(Running {
            since: self.clock.now(),
            begun: Instant::now(),
            attempt: None,
        });
    }

    /// The lease is held, and figures appear in `progress`.
    pub fn attempt_began(&self, number: u32, progress: Arc<Progress>) {
        if let Some(running) = &mut self.facts().running {
            running.attempt = Some((number, progress));
        }
    }

    pub fn committed(&self, run: Committed, skipped: u64) {
        self.counters.committed(&run);
        self.counters.skipped(skipped);
        let now = self.clock.now();
        let mut facts = self.facts();
        facts.running = None;
        facts.last_run = Some(LastRun {
            at: now,
            took: Duration::try_from_secs_f64(run.seconds).unwrap_or_default(),
            failure: None,
            stood_back: false,
        });
        // Copied only while somebody looks at it.
        let backups = Arc::make_mut(&mut facts.backups);
        backups.retain(|backup| backup.id != run.backup.id);
        backups.insert(0, run.backup.clone());
        facts.remember(std::slice::from_ref(&run.backup));
        facts.store = Some(Ok(Instant::now()));
        facts.last_commit = Some(run);
    }

    pub fn failed(&self, how: Failed, why: &str, took: Duration, skipped: u64) {
        self.counters.failed(how);
        self.counters.skipped(skipped);
        let now = self.clock.now();
        let mut facts = self.facts();
        facts.running = None;
        // A stop is nobody's failure.
        if how != Failed::Cancelled {
            facts.last_run = Some(LastRun {
                at: now,
                took,
                failure: Some(why.to_owned()),
                stood_back: how == Failed::Busy,
            });
        }
    }

    pub fn surveyed(&self, result: Result<&[Entry], &str>) {
        let mut facts = self.facts();
        let entries = match result {
            Ok(entries) => entries,
            Err(why) => {
                facts.store = Some(Err(why.to_owned()));
                return;
            }
        };
        facts.store = Some(Ok(Instant::now()));
        let mut backups: Vec<Backup> = entries.iter().map(Backup::from).collect();
        backups.sort_by(|a, b| (b.consistent_at, &b.id).cmp(&(a.consistent_at, &a.id)));
        facts.latest_proof = backups.iter().filter_map(|backup| backup.proven_at).max();
        facts.remember(&backups);
        facts.backups = Arc::new(backups);
    }

    /// `failure`: how the last proof failed, none if it did not.
    pub fn proved(&self, is_proven: bool, failure: Option<&str>) {
        self.counters.proved(is_proven);
        self.facts().failed_proof = failure.map(str::to_owned);
    }

    pub fn journal_read(&self, position: Result<Arc<Position>, String>, at_work: BTreeMap<String, String>) {
        self.facts().journal = Some(Journal {
            read_at: Instant::now(),
            position,
            at_work,
        });
        self.read.notify_waiters();
    }

    pub fn examined(&self, findings: Vec<Finding>) {
        let now = self.clock.now();
        self.facts().doctor = Some((now, Arc::new(findings)));
    }

    pub fn told(&self, channels: Vec<Channel>) {
        self.facts().channels = Arc::new(channels);
    }

    pub fn drilled(&self, drilled: Drilled) {
        self.facts().drilled = Some(Arc::new(drilled));
    }

    /// None: nobody is to watch.
    pub fn watched(&self, found: Option<Result<Found, String>>) {
        self.facts().watched = found.map(|found| Watched {
            read_at: Instant::now(),
            found: found.map(Arc::new),
        });
    }

    /// Somebody looks at the operation: waits for a fresh look at the journal, for `patience` at most, unless the last one is
    /// younger than `fresh`.
    pub async fn wants_journal(&self, fresh: Duration, patience: Duration) {
        let reading = self.read.notified();
        let is_fresh = self
            .facts()
            .journal
            .as_ref()
            .is_some_and(|journal| journal.read_at.elapsed() < fresh);
        self.looked.notify_one();
        if !is_fresh {
            let _ = tokio::time::timeout(patience, reading).await;
        }
    }

    /// Until somebody looks.
    pub async fn looked_at(&self) {
        self.looked.notified().await;
    }
}

impl Facts {
    fn remember(&mut self, backups: &[Backup]) {
        let commits = Arc::make_mut(&mut self.commits);
        for backup in backups.iter().filter(|backup| backup.standing == Standing::Good) {
            let data_from = backup.consistent_at.min(backup.committed_at);
            let known = commits.entry(backup.committed_at).or_insert(data_from);
            *known = data_from.max(*known);
        }
        if let Some(latest) = commits.last_key_value().map(|(at, _)| *at)
            && let Ok(oldest) = latest.checked_sub(REMEMBERED)
        {
            // The one before the day's beginning is needed too: what was lost then counts from it.
            let before = commits.range(..oldest).next_back().map(|(at, _)| *at);
            commits.retain(|at, _| *at >= oldest || Some(*at) == before);
        }
    }

    /// The store's time, carried forward.
    pub fn store_now(&self) -> Option<Timestamp> {
        let (tick, at) = self.tick.as_ref()?;
        tick.store_now?.checked_add(at.elapsed()).ok()
    }

    /// What would be lost now. It grows also while the agent's loop stands still.
    pub fn loss(&self) -> Option<Duration> {
        let (tick, _) = self.tick.as_ref()?;
        let loss = self.store_now()?.duration_since(tick.data_from?);
        Some(Duration::try_from(loss).unwrap_or_default())
    }
}

impl From<&Entry> for Backup {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.id.clone(),
            consistent_at: entry.consistent_at,
            committed_at: entry.committed_at,
            size_bytes: entry.size_bytes,
            raw_bytes: entry.raw_bytes,
            rows: entry.rows,
            standing: entry.standing.clone(),
            proven_at: entry.proven_at,
            checked_at: entry.structure_checked_at,
        }
    }
}
