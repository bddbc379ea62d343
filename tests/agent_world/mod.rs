//! A scripted world for the daemon, under tokio's paused time: a store that can be down, clocks that can jump,
//! runs that take as long as told.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use planb::agent::notify::{Notice, Notifier};
use planb::agent::runner::{BackupRunner, Checked, Proven, RunError, RunSummary, Survey, Trigger};
use planb::agent::schedule::Cron;
use planb::agent::signals::{Signal, Signals};
use planb::agent::state::{Plan, Settings};
use planb::agent::{Agent, AgentError, Loaded, Loader};
use planb::backup::entry::{BackupId, Entry, Standing};
use planb::backup::rpo::Rpo;
use planb::clock::Clock;
use planb::serve::board::Board;
use planb::store::ETag;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// All tests begin here.
pub const BASE: &str = "2026-01-01T00:02:00Z";

pub fn base() -> Timestamp {
    BASE.parse().expect("a timestamp")
}

pub fn minutes(m: u64) -> Duration {
    Duration::from_secs(60 * m)
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How runs behave from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Works,
    IgnoresCancel,
    Panics,
    Permanent,
    /// Another agent is at it, and has its backup committed when its run is over.
    Busy,
}

#[derive(Debug)]
pub struct World {
    started: Instant,
    wall_shift: Mutex<SignedDuration>,
    store_shift: Mutex<SignedDuration>,
    pub entries: Mutex<Vec<Entry>>,
    pub run_takes: Mutex<Duration>,
    pub manner: Mutex<Manner>,
    pub down: Mutex<bool>,
    /// Start of each run (since the beginning) and why.
    pub starts: Mutex<Vec<(Duration, Trigger)>>,
    pub commits: Mutex<Vec<Duration>>,
    pub cancelled: AtomicU32,
    pub prunes: Mutex<Vec<Duration>>,
    /// Start of each check, and of what.
    pub checks: Mutex<Vec<(Duration, BackupId)>>,
    pub check_takes: Mutex<Duration>,
    /// Checks that were told to end.
    pub checks_cancelled: AtomicU32,
    /// What every check finds from now on.
    pub damage: Mutex<Option<String>>,
    /// Start of each proof.
    pub proofs: Mutex<Vec<Duration>>,
    pub proof_takes: Mutex<Duration>,
    pub proofs_cancelled: AtomicU32,
    /// How every proof fails from now on.
    pub proof_failure: Mutex<Option<RunError>>,
    pub notices: Mutex<Vec<(Duration, Notice)>>,
    pub next_load: Mutex<Option<Result<Settings, Vec<String>>>>,
    pub log: Arc<Mutex<Vec<u8>>>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            wall_shift: Mutex::default(),
            store_shift: Mutex::default(),
            entries: Mutex::default(),
            run_takes: Mutex::new(Duration::from_secs(20)),
            manner: Mutex::new(Manner::Works),
            down: Mutex::new(false),
            starts: Mutex::default(),
            commits: Mutex::default(),
            cancelled: AtomicU32::new(0),
            prunes: Mutex::default(),
            checks: Mutex::default(),
            check_takes: Mutex::new(Duration::from_secs(10)),
            checks_cancelled: AtomicU32::new(0),
            damage: Mutex::default(),
            proofs: Mutex::default(),
            proof_takes: Mutex::new(minutes(7)),
            proofs_cancelled: AtomicU32::new(0),
            proof_failure: Mutex::default(),
            notices: Mutex::default(),
            next_load: Mutex::default(),
            log: Arc::default(),
        })
    }

    /// With a backup whose data is this old at the start, and took 20 s to commit.
    pub fn with_backup(age: Duration) -> Arc<Self> {
        let world = Self::new();
        let consistent_at = base() - age;
        lock(&world.entries).push(entry(consistent_at, consistent_at + Duration::from_secs(20)));
        world
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn store_now(&self) -> Timestamp {
        base() + self.elapsed() + *lock(&self.store_shift)
    }

    pub fn set_wall_clock(&self, by: SignedDuration) {
        *lock(&self.wall_shift) += by;
    }

    /// Suspended: the world goes on, the monotonic clock does not.
    pub fn sleep_machine(&self, by: SignedDuration) {
        *lock(&self.wall_shift) += by;
        *lock(&self.store_shift) += by;
    }

    pub fn starts_seconds(&self) -> Vec<u64> {
        lock(&self.starts).iter().map(|(at, _)| at.as_secs()).collect()
    }

    pub fn feeds(&self) -> Vec<Duration> {
        let notices = lock(&self.notices);
        notices
            .iter()
            .filter(|(_, n)| *n == Notice::Watchdog)
            .map(|(at, _)| *at)
            .collect()
    }

    pub fn status_at(&self, at: Duration) -> String {
        let notices = lock(&self.notices);
        let status = |n: &Notice| {
            if let Notice::Status(line) = n {
                Some(line.clone())
            } else {
                None
            }
        };
        notices
            .iter()
            .rev()
            .filter(|(t, _)| *t <= at)
            .find_map(|(_, n)| status(n))
            .unwrap_or_default()
    }

    /// Log lines whose message is one of these.
    pub fn logged(&self, messages: &[&str]) -> Vec<serde_json::Value> {
        let bytes = lock(&self.log).clone();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON line"))
            .filter(|line| messages.iter().any(|m| line["message"] == *m))
            .collect()
    }

    pub fn summaries(&self) -> Vec<serde_json::Value> {
        self.logged(&["backup committed", "backup failed"])
    }
}

pub fn entry(consistent_at: Timestamp, committed_at: Timestamp) -> Entry {
    let id = BackupId::at(consistent_at);
    Entry {
        blob: id.blob("backups/"),
        id,
        etag: ETag("1".into()),
        size_bytes: 10,
        raw_bytes: 100,
        rows: 7,
        site: "primary".into(),
        epoch: 1,
        consistent_at,
        committed_at,
        digest: String::new(),
        standing: Standing::Good,
        proven_at: None,
        structure_checked_at: None,
    }
}

#[derive(Debug)]
struct WallClock(Arc<World>);

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        base() + self.0.elapsed() + *lock(&self.0.wall_shift)
    }
}

struct Notices(Arc<World>);

impl Notifier for Notices {
    fn notify(&self, notice: &Notice) {
        lock(&self.0.notices).push((self.0.elapsed(), notice.clone()));
    }
}

struct Sent(mpsc::Receiver<Signal>);

#[async_trait]
impl Signals for Sent {
    async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

struct Runner(Arc<World>);

#[async_trait]
impl BackupRunner for Runner {
    async fn run(&self, cancel: CancellationToken, trigger: Trigger) -> Result<RunSummary, RunError> {
        let world = &self.0;
        lock(&world.starts).push((world.elapsed(), trigger));
        let (consistent_at, took) = (world.store_now(), *lock(&world.run_takes));
        let manner = *lock(&world.manner);
        match manner {
            Manner::Panics => panic!("a defect"),
            Manner::Permanent => return Err(RunError::Permanent("the password is wrong".into())),
            Manner::Busy => {
                let theirs = entry(consistent_at, consistent_at + took);
                let mut entries = lock(&world.entries);
                if entries.last().is_none_or(|last| last.committed_at <= consistent_at) {
                    entries.push(theirs);
                }
                return Err(RunError::Busy("planb backup holds the lease".into()));
            }
            Manner::IgnoresCancel => std::future::pending().await,
            Manner::Works => {}
        }
        if *lock(&world.down) {
            return Err(RunError::Transient("the store is not answering".into()));
        }
        tokio::select! {
            () = cancel.cancelled() => {
                world.cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(RunError::Cancelled);
            }
            () = tokio::time::sleep(took) => {}
        }
        if *lock(&world.down) {
            return Err(RunError::Transient("the store stopped answering".into()));
        }
        let made = entry(consistent_at, world.store_now());
        lock(&world.entries).push(made.clone());
        lock(&world.commits).push(world.elapsed());
        Ok(RunSummary {
            id: made.id,
            rows: made.rows,
            raw_bytes: made.raw_bytes,
            stored_bytes: made.size_bytes,
            seconds: took.as_secs_f64(),
            lock_millis: 3,
            consistent_at,
            committed_at: made.committed_at,
            attempts: 1,
        })
    }

    async fn verify(&self, cancel: CancellationToken, id: BackupId) -> Result<Checked, RunError> {
        let world = &self.0;
        lock(&world.checks).push((world.elapsed(), id.clone()));
        let took = *lock(&world.check_takes);
        tokio::select! {
            () = cancel.cancelled() => {
                world.checks_cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(RunError::Cancelled);
            }
            () = tokio::time::sleep(took) => {}
        }
        let Some(place) = lock(&world.damage).clone() else {
            return Ok(Checked::Sound {
                members: 3,
                rows: 7,
                seconds: took.as_secs_f64(),
            });
        };
        // As the ledger and the next listing would have it.
        let mut entries = lock(&world.entries);
        for entry in entries.iter_mut().filter(|entry| entry.id == id) {
            entry.standing = Standing::Unusable(format!("damaged: {place}"));
        }
        Ok(Checked::Damaged { place })
    }

    async fn prove(&self, cancel: CancellationToken) -> Result<Proven, RunError> {
        let world = &self.0;
        lock(&world.proofs).push(world.elapsed());
        let took = *lock(&world.proof_takes);
        tokio::select! {
            () = cancel.cancelled() => {
                world.proofs_cancelled.fetch_add(1, Ordering::SeqCst);
                return Err(RunError::Cancelled);
            }
            () = tokio::time::sleep(took) => {}
        }
        if let Some(failure) = lock(&world.proof_failure).clone() {
            return Err(failure);
        }
        let mut entries = lock(&world.entries);
        let Some(newest) = entries.last_mut() else {
            return Ok(Proven::NothingGood);
        };
        newest.proven_at = Some(world.store_now());
        Ok(Proven::Restored {
            id: newest.id.clone(),
            server: "MySQL 9.7.0".into(),
            tables: 3,
            rows: newest.rows,
            restore_seconds: took.as_secs_f64(),
            compare_seconds: 1.0,
        })
    }

    async fn survey(&self, _: CancellationToken) -> Result<Survey, RunError> {
        if *lock(&self.0.down) {
            return Err(RunError::Transient("the store is not answering".into()));
        }
        Ok(Survey {
            entries: lock(&self.0.entries)
                .iter()
                .filter(|entry| entry.committed_at <= self.0.store_now())
                .cloned()
                .collect(),
            store_now: self.0.store_now(),
        })
    }

    async fn prune(&self, _: CancellationToken, _: Rpo) -> Result<String, RunError> {
        lock(&self.0.prunes).push(self.0.elapsed());
        Ok("nothing to do".into())
    }
}

struct Reads(Arc<World>);

#[async_trait]
impl Loader for Reads {
    async fn load(&self) -> Result<Loaded, Vec<String>> {
        let next = lock(&self.0.next_load)
            .take()
            .unwrap_or_else(|| Err(vec!["nothing scripted".into()]));
        next.map(|settings| Loaded {
            settings,
            runner: Arc::new(Runner(Arc::clone(&self.0))),
        })
    }
}

pub fn cron(text: &str) -> Settings {
    let plan = Plan::Cron(Box::new(Cron::parse(text, base()).expect("a schedule")));
    Settings {
        plan,
        rpo: minutes(5),
        run_deadline: minutes(60),
        verify_structure: true,
        proof_max_age: Duration::from_secs(26 * 3600),
        proving: None,
    }
}

pub fn keep_rpo() -> Settings {
    Settings {
        plan: Plan::KeepRpo,
        ..cron("*/5 * * * *")
    }
}

/// Runs the daemon while `script` plays; ends when both have. The script sends signals.
pub async fn play<F: Future<Output = ()>>(
    world: &Arc<World>,
    settings: Settings,
    script: impl FnOnce(mpsc::Sender<Signal>) -> F,
) -> Result<(), AgentError> {
    let log = Arc::clone(&world.log);
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_writer(move || Lines(Arc::clone(&log)))
        .finish();
    let _scoped = tracing::subscriber::set_default(subscriber);
    let (send, receive) = mpsc::channel(4);
    let agent = Agent {
        clock: Arc::new(WallClock(Arc::clone(world))),
        notifier: Arc::new(Notices(Arc::clone(world))),
        signals: Box::new(Sent(receive)),
        loader: Box::new(Reads(Arc::clone(world))),
        board: Board::new(Arc::new(WallClock(Arc::clone(world)))),
        watchdog: Some(minutes(1)),
        stop_within: minutes(1),
    };
    let loaded = Loaded {
        settings,
        runner: Arc::new(Runner(Arc::clone(world))),
    };
    let (ended, ()) = tokio::join!(agent.run(loaded), script(send));
    ended
}

/// Plays for this long, then stops the daemon as SIGTERM would.
pub async fn play_for(world: &Arc<World>, settings: Settings, length: Duration) -> Result<(), AgentError> {
    play(world, settings, |signals| async move {
        tokio::time::sleep(length).await;
        signals.send(Signal::Stop).await.expect("the daemon listens");
    })
    .await
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
