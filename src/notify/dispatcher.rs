//! Carries out what the desk decides: a task for each channel, so that one that hangs delays no other, and one that keeps what is
//! known in a file. Whoever announces something never waits: it is noted under a lock that nobody holds for long.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::channel::{Line, SEND_WITHIN};
use super::desk::{Desk, Item, Next, Refusal, Standing};
use super::message::Sender;
use super::notice::Notice;
use super::{Announce, record};
use crate::clock::Clock;

/// A wall clock may jump: nobody sleeps longer than this without a look.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Changes within this time are written together.
const WRITE_EVERY: Duration = Duration::from_millis(300);

struct Shared {
    desk: Mutex<Desk>,
    clock: Arc<dyn Clock>,
    /// Counts changes.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Desk, Timestamp) -> T) -> T {
        let changed = change(&mut self.desk(), self.clock.now());
        self.changed.send_modify(|count| *count += 1);
        changed
    }
}

/// Where notices are put; as many as one likes.
#[derive(Clone)]
pub struct Announcer(Arc<Shared>);

impl Announce for Announcer {
    fn raise(&self, notice: Notice) {
        self.0.change(|desk, now| desk.raise(notice, now));
    }

    fn resolve(&self, key: &str, _: Timestamp) {
        // Most of what is resolved was never raised: then nobody is woken.
        let is_news = self.0.desk().resolve(key, self.0.clock.now());
        if is_news {
            self.0.changed.send_modify(|count| *count += 1);
        }
    }

    fn close(&self, notice: Notice, since: Timestamp) {
        self.0.change(|desk, now| desk.close(&notice, since, now));
    }

    fn forget(&self, key: &str) {
        let is_news = self.0.desk().forget(key);
        if is_news {
            self.0.changed.send_modify(|count| *count += 1);
        }
    }

    fn going_on(&self) -> Vec<String> {
        let desk = self.0.desk();
        desk.going_on()
            .into_iter()
            .map(|(notice, _)| notice.key.clone())
            .collect()
    }
}

impl Announcer {
    /// One channel is told what somebody else could not tell it.
    pub fn adopt(&self, channel: &str, notice: Notice) {
        self.0.change(|desk, now| desk.adopt(channel, &notice, now));
    }
}

/// The tasks. What they are at is broken off when it is dropped.
pub struct Dispatcher {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
    file: Option<PathBuf>,
    /// Nobody else writes there.
    _lock: Option<File>,
}

impl Dispatcher {
    /// With what `file` remembers. A file that cannot be read is begun anew, and that is said.
    pub async fn start(sender: Sender, lines: Vec<Line>, clock: Arc<dyn Clock>, file: Option<PathBuf>) -> Self {
        let mut held = None;
        let file = file.filter(|file| match record::lock(file) {
            Ok(Some(lock)) => {
                held = Some(lock);
                true
            }
            Ok(None) => {
                tracing::warn!(
                    file = %file.display(),
                    "another planb keeps who was told what there: this one remembers nothing over a restart, and tells the same things"
                );
                false
            }
            // It may still be written, and if not, that is said then.
            Err(_) => true,
        });
        let desk = match &file {
            Some(file) => match record::read(file).await {
                Ok(desk) => desk.unwrap_or_default(),
                Err(why) => {
                    tracing::warn!(
                        file = %file.display(), why,
                        "who was told what cannot be read and is begun anew: what goes on may be told once more"
                    );
                    Desk::default()
                }
            },
            None => Desk::default(),
        };
        let dispatcher = Self {
            shared: Arc::new(Shared {
                desk: Mutex::new(desk),
                clock,
                changed: watch::channel(0).0,
            }),
            tasks: Mutex::default(),
            file,
            _lock: held,
        };
        dispatcher.configure(sender, lines);
        dispatcher
    }

    pub fn announcer(&self) -> Announcer {
        Announcer(Arc::clone(&self.shared))
    }

    /// Takes the channels of another configuration. What is being sent is broken off, and sent again.
    pub fn configure(&self, sender: Sender, lines: Vec<Line>) {
        // The old tasks are aborted with their set, so that no channel has two.
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = JoinSet::new();
        let routes = lines.iter().map(|line| line.route.clone()).collect();
        self.shared.change(|desk, _| desk.configure(routes));
        let mut tasks = JoinSet::new();
        for line in lines {
            tasks.spawn(work(Arc::clone(&self.shared), sender.clone(), line));
        }
        if let Some(file) = &self.file {
            tasks.spawn(keep(Arc::clone(&self.shared), file.clone()));
        }
        *self.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
    }

    pub fn standing(&self) -> Vec<Standing> {
        self.shared.desk().standing()
    }

    /// Waits until nothing waits any more, for `within` at most, and not for channels that have refused.
    pub async fn flush(&self, within: Duration) {
        let mut changed = self.shared.changed.subscribe();
        let flushed = async {
            loop {
                let standing = self.standing();
                let waits = |channel: &Standing| channel.failures == 0 && !channel.waiting.is_empty();
                if !standing.iter().any(waits) || changed.changed().await.is_err() {
                    return;
                }
            }
        };
        // What is left is told by whoever asks for it.
        let _ = timeout(within, flushed).await;
    }

    /// Ends the tasks and writes down what is known.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        if let Some(file) = &self.file {
            let desk = self.shared.desk().clone();
            write(file, &desk).await;
        }
    }
}

/// One channel, one message at a time.
async fn work(shared: Arc<Shared>, sender: Sender, line: Line) {
    let channel = line.route.channel.as_str();
    let mut changed = shared.changed.subscribe();
    loop {
        changed.mark_unchanged();
        let now = shared.clock.now();
        // Not a change to others, so that two channels do not wake each other for ever.
        let next = shared.desk().next(channel, now);
        match next {
            Next::Send(items) => send(&shared, &sender, &line, &items).await,
            Next::Wait(at) => {
                let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
                let wait = at.map_or(LOOK_EVERY, until).min(LOOK_EVERY);
                tokio::select! {
                    // The sender lives as long as `shared`.
                    _ = changed.changed() => {}
                    () = sleep(wait.max(Duration::from_millis(10))) => {}
                }
            }
        }
    }
}

async fn send(shared: &Shared, sender: &Sender, line: &Line, items: &[Item]) {
    let channel = line.route.channel.as_str();
    let sent = match timeout(SEND_WITHIN, line.channel.send(sender, items)).await {
        Ok(sent) => sent,
        Err(_) => Err(Refusal {
            error: format!("nothing within {} s", SEND_WITHIN.as_secs()),
            is_permanent: false,
            retry_after: None,
        }),
    };
    match sent {
        Ok(taken) => {
            if let Some(except) = taken.except {
                tracing::warn!(channel, except, "told, but not everybody: mend the list");
            }
            for item in items {
                tracing::info!(channel, key = item.notice.key, turn = item.turn.name(), "told");
            }
            shared.change(|desk, now| desk.delivered(channel, items, now));
        }
        Err(refusal) => {
            let (error, permanent) = (&refusal.error, refusal.is_permanent);
            tracing::warn!(
                channel,
                error,
                permanent,
                messages = items.len(),
                "not told; it is kept and tried again"
            );
            shared.change(|desk, now| desk.refused(channel, items, &refusal, now));
        }
    }
}

/// Writes after each change, soon.
async fn keep(shared: Arc<Shared>, file: PathBuf) {
    let mut changed = shared.changed.subscribe();
    let mut written = None;
    loop {
        changed.mark_unchanged();
        let desk = shared.desk().clone();
        if written.as_ref() != Some(&desk) {
            write(&file, &desk).await;
            written = Some(desk);
        }
        if changed.changed().await.is_err() {
            return;
        }
        sleep(WRITE_EVERY).await;
    }
}

async fn write(file: &std::path::Path, desk: &Desk) {
    if let Err(error) = record::write(file, desk).await {
        tracing::warn!(file = %file.display(), error, "who was told what could not be written down");
    }
}
