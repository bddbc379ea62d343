//! One watcher: a task for each probe, and rounds in which it writes what it sees, reads what the others saw, and counts.
//!
//! Probes go on whatever becomes of the store, and a slow one delays no other. A machine that slept forgets what it saw before.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::auto::Shot;
use super::board::Board;
use super::concern::{self, Concerns, Lasted};
use super::probe::{Ask, Spec};
use super::quorum::{Observation, Tally, tally};
use super::verdict::{Health, History, Outcome, Plane, Ruling, Seen, of_plane, rule};
use crate::store::StoreError;

/// The store's clock went on for so much longer than ours: the machine slept, or the clock was set.
const SLEPT: SignedDuration = SignedDuration::from_secs(20);
/// What probes may have said and the main loop has not heard yet.
const UNHEARD: usize = 64;
/// A store that is away is told of again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(300);
/// What acts has so long to come to rest once it was told to.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What a round found.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// By the store's clock.
    pub now: Timestamp,
    pub tally: Tally,
    pub ruling: Option<Ruling>,
    pub shot: Option<Shot>,
    /// None: they could not be read yet.
    pub concerns: Option<Concerns>,
    /// This watcher wrote the ruling, or the concerns, with this round.
    pub wrote: Wrote,
    /// How long the tally has said unhealthy without a break, by this machine's monotonic clock.
    pub down_for: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wrote {
    pub ruling: bool,
    pub concerns: bool,
}

/// Told what the watchers found together; each thing by one of them. Never blocks, never fails.
pub trait Herald: Send + Sync {
    fn ruled(&self, ruling: &Ruling);

    /// After each round.
    fn looked(&self, _: &View) {}
}

/// Acts where nobody needs to be asked.
#[async_trait]
pub trait Deputy: Send + Sync {
    /// Whether [`consider`](Self::consider) has anything to do.
    fn is_due(&self, view: &View) -> bool;

    /// May take as long as a failover. Comes to rest soon after `cancel` fires.
    async fn consider(&self, view: View, cancel: CancellationToken);
}

pub struct Settings {
    pub name: String,
    /// Random for each process.
    pub run: String,
    /// Every watcher there is.
    pub configured: Vec<String>,
    pub every: Duration,
    pub stale_after: Duration,
    pub cool_down: Duration,
    /// Of the probes' jitter.
    pub seed: u64,
}

pub struct Watcher {
    pub settings: Settings,
    pub probes: Vec<(Spec, Arc<dyn Ask>)>,
    pub board: Board,
    pub herald: Arc<dyn Herald>,
    pub deputy: Option<Arc<dyn Deputy>>,
}

/// One answer, of one probe.
struct Heard {
    probe: usize,
    at: Instant,
    outcome: Outcome,
}

/// What a round brings back.
enum Looked {
    View(Box<View>),
    /// What was seen before is nothing to go by.
    Slept,
    Failed(StoreError),
}

/// The two clocks at the end of a round.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    store: Timestamp,
    mono: Instant,
}

impl Watcher {
    /// Until `cancel` fires.
    pub async fn run(self, cancel: CancellationToken) {
        let (tell, mut hear) = mpsc::channel(UNHEARD);
        let mut probing = JoinSet::new();
        for (number, (spec, ask)) in self.probes.iter().enumerate() {
            let rng = StdRng::seed_from_u64(self.settings.seed.wrapping_add(number as u64));
            probing.spawn(keep_asking(number, spec.clone(), Arc::clone(ask), rng, tell.clone()));
        }
        drop(tell);
        let mut watch = Watching {
            begun: Instant::now(),
            histories: vec![History::default(); self.probes.len()],
            told: Health::Unknown,
            sequence: 0,
            clocks: None,
            down_since: None,
            blind_since: None,
            control_since: None,
            concerns: None,
            unreachable: None,
            rounds: JoinSet::new(),
            acting: JoinSet::new(),
            watcher: &self,
        };
        let mut ticks = tokio::time::interval(self.settings.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(heard) = hear.recv() => watch.heard(&heard),
                Some(looked) = watch.rounds.join_next() => watch.looked(looked.ok(), &cancel),
                Some(acted) = watch.acting.join_next() => {
                    if let Err(error) = acted {
                        tracing::error!(%error, "a defect ended what acts");
                    }
                }
                _ = ticks.tick() => watch.round(),
            }
        }
        probing.shutdown().await;
        watch.rounds.shutdown().await;
        let rest = async { while watch.acting.join_next().await.is_some() {} };
        if timeout(STOP_WITHIN, rest).await.is_err() {
            tracing::warn!("what acts did not come to rest in time; whoever goes on finds it in the journal");
            watch.acting.shutdown().await;
        }
    }
}

/// What is known and under way.
struct Watching<'a> {
    watcher: &'a Watcher,
    begun: Instant,
    histories: Vec<History>,
    /// What this watcher last found by itself.
    told: Health,
    sequence: u64,
    clocks: Option<Clocks>,
    down_since: Option<Instant>,
    blind_since: Option<Instant>,
    control_since: Option<Instant>,
    /// As read last.
    concerns: Option<Concerns>,
    /// Since when the store does not answer, and when that was last told.
    unreachable: Option<(Instant, Instant)>,
    /// One at a time.
    rounds: JoinSet<(Instant, Looked)>,
    /// One at a time.
    acting: JoinSet<()>,
}

impl Watching<'_> {
    fn heard(&mut self, heard: &Heard) {
        let (Some((spec, _)), Some(history)) = (
            self.watcher.probes.get(heard.probe),
            self.histories.get_mut(heard.probe),
        ) else {
            return;
        };
        let at = heard.at.saturating_duration_since(self.begun);
        let before = history.health(at, &spec.thresholds);
        history.hear(at, &heard.outcome, &spec.thresholds);
        let after = history.health(at, &spec.thresholds);
        if after != before {
            tracing::info!(
                probe = spec.name,
                health = after.name(),
                said = history.said(),
                "a probe changed"
            );
        } else {
            tracing::debug!(probe = spec.name, health = after.name(), said = history.said(), "asked");
        }
        // Others learn of it at once.
        let own = of_plane(&self.seen(), Plane::Data).unwrap_or_default();
        if std::mem::replace(&mut self.told, own) != own {
            self.round();
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let at = self.begun.elapsed();
        let seen = |((spec, _), history): (&(Spec, Arc<dyn Ask>), &History)| Seen {
            probe: spec.name.clone(),
            kind: spec.kind.clone(),
            plane: spec.plane,
            health: history.health(at, &spec.thresholds),
            is_mute: history.is_mute(at, &spec.thresholds),
            said: if history.said().is_empty() {
                "not asked yet".to_owned()
            } else {
                history.said().to_owned()
            },
        };
        self.watcher.probes.iter().zip(&self.histories).map(seen).collect()
    }

    /// Begins one, unless one is under way.
    fn round(&mut self) {
        if !self.rounds.is_empty() {
            return;
        }
        self.sequence += 1;
        let settings = &self.watcher.settings;
        let round = Round {
            observation: Observation {
                v: 1,
                watcher: settings.name.clone(),
                run: settings.run.clone(),
                sequence: self.sequence,
                // The store's time takes its place.
                at: Timestamp::UNIX_EPOCH,
                probes: self.seen(),
            },
            seen_at: Instant::now(),
            before: self.clocks,
            configured: settings.configured.clone(),
            stale_after: settings.stale_after,
            cool_down: settings.cool_down,
            lasted: Lasted {
                blind: self.blind_since.map(|since| since.elapsed()),
                control: self.control_since.map(|since| since.elapsed()),
            },
            concerns: self.concerns.clone(),
            board: self.watcher.board.clone(),
            herald: Arc::clone(&self.watcher.herald),
        };
        // What is older would be no vote when it arrives.
        let within = settings.stale_after;
        let store = round.board.clone();
        self.rounds.spawn(async move {
            let seen_at = round.seen_at;
            let looked = match timeout(within, round.look()).await {
                Ok(looked) => looked.unwrap_or_else(Looked::Failed),
                Err(_) => Looked::Failed(store.no_answer(within)),
            };
            (seen_at, looked)
        });
    }

    fn looked(&mut self, looked: Option<(Instant, Looked)>, cancel: &CancellationToken) {
        match looked {
            Some((seen_at, Looked::View(view))) => self.viewed(*view, seen_at, cancel),
            Some((_, Looked::Slept)) => {
                tracing::warn!("this machine slept, or the store's clock was set: what was seen before is forgotten");
                self.histories.fill(History::default());
                self.clocks = None;
                self.since_nothing();
                self.round();
            }
            Some((_, Looked::Failed(error))) => {
                // Nobody knows what the others see.
                self.since_nothing();
                // Others may have changed them meanwhile.
                self.concerns = None;
                let now = Instant::now();
                let (since, told) = self.unreachable.unwrap_or((now, now));
                if since.elapsed() >= self.watcher.settings.stale_after {
                    // Whoever does not reach the store may not reach anything: no vote is made of that once it does.
                    self.histories.fill(History::default());
                }
                let is_told = self.unreachable.is_some() && now.saturating_duration_since(told) < TELL_AGAIN;
                self.unreachable = Some((since, if is_told { told } else { now }));
                if !is_told {
                    tracing::warn!(
                        %error, seconds = since.elapsed().as_secs(),
                        "what this watcher sees cannot be written for the others, so it has no vote; it goes on watching"
                    );
                }
            }
            None => tracing::error!("a defect ended a round"),
        }
    }

    fn since_nothing(&mut self) {
        (self.down_since, self.blind_since, self.control_since) = (None, None, None);
    }

    fn viewed(&mut self, mut view: View, seen_at: Instant, cancel: &CancellationToken) {
        if let Some((since, _)) = self.unreachable.take() {
            tracing::info!(seconds = since.elapsed().as_secs(), "the store answers again");
        }
        self.clocks = Some(Clocks {
            store: view.now,
            mono: Instant::now(),
        });
        if view.tally.verdict == Health::Unhealthy {
            view.down_for = self.down_since.get_or_insert(seen_at).elapsed();
        } else {
            self.down_since = None;
        }
        let since = |is_so: bool, since: &mut Option<Instant>| match is_so {
            true => _ = since.get_or_insert(seen_at),
            false => *since = None,
        };
        since(concern::is_blind(&view.tally), &mut self.blind_since);
        since(concern::is_control_down(&view.tally), &mut self.control_since);
        self.concerns.clone_from(&view.concerns);
        self.watcher.herald.looked(&view);
        if let Some(deputy) = &self.watcher.deputy
            && self.acting.is_empty()
            && deputy.is_due(&view)
        {
            let (deputy, cancel) = (Arc::clone(deputy), cancel.clone());
            self.acting.spawn(async move { deputy.consider(view, cancel).await });
        }
    }
}

/// Everything a round needs, so that it owns it.
struct Round {
    observation: Observation,
    seen_at: Instant,
    before: Option<Clocks>,
    configured: Vec<String>,
    stale_after: Duration,
    cool_down: Duration,
    lasted: Lasted,
    concerns: Option<Concerns>,
    board: Board,
    herald: Arc<dyn Herald>,
}

impl Round {
    async fn look(mut self) -> Result<Looked, StoreError> {
        let now = self.board.now().await?;
        if let Some(before) = self.before {
            let ours = SignedDuration::try_from(before.mono.elapsed()).unwrap_or(SignedDuration::MAX);
            if now.duration_since(before.store).saturating_sub(ours) > SLEPT {
                return Ok(Looked::Slept);
            }
        }
        self.observation.at = now;
        self.board.publish(&self.observation).await?;
        let found = self.board.read(&self.configured).await?;
        if let Some(Ok(Some(own))) = found.get(&self.observation.watcher)
            && own.run != self.observation.run
        {
            tracing::warn!(
                watcher = self.observation.watcher,
                "another process writes as this watcher: give each a name of its own"
            );
        }
        let (ruling, was) = self.board.ruling().await?;
        // Whoever acts reads it again, and does not go by one that cannot be read.
        let shot = self.board.shot().await.map_or(None, |(shot, _)| shot);
        // Asked again: the others may have written since.
        let now = self.board.now().await?;
        let tally = tally(
            &self.configured,
            |name| found.get(name).cloned().unwrap_or(Ok(None)),
            now,
            self.stale_after,
        );
        let (by, run) = (&self.observation.watcher, &self.observation.run);
        let next = rule(ruling.as_ref(), &tally, now, self.cool_down, by, run);
        let (concerns, wrote) = self.concerns(&tally, now).await;
        let mut wrote = Wrote {
            ruling: false,
            concerns: wrote,
        };
        let ruling = match next {
            Some(next) if self.board.set_ruling(&next, was).await? => {
                if next.is_news() {
                    self.herald.ruled(&next);
                }
                wrote.ruling = true;
                Some(next)
            }
            // Somebody else was faster: read with the next round.
            Some(_) | None => ruling,
        };
        Ok(Looked::View(Box::new(View {
            now,
            tally,
            ruling,
            shot,
            concerns,
            wrote,
            down_for: Duration::ZERO,
        })))
    }

    /// As they are now, and whether this watcher wrote them. They are read only where there may be any.
    async fn concerns(&self, tally: &Tally, now: Timestamp) -> (Option<Concerns>, bool) {
        let is_due = self.concerns.as_ref().is_none_or(Concerns::any);
        if !is_due && !concern::is_blind(tally) && !concern::is_control_down(tally) {
            return (self.concerns.clone(), false);
        }
        let looked = async {
            let (current, was) = self.board.concerns().await?;
            let current = current.unwrap_or_default();
            let (by, run) = (&self.observation.watcher, &self.observation.run);
            match concern::next(&current, tally, self.lasted, now, by, run) {
                Some(next) if self.board.set_concerns(&next, was).await? => Ok((Some(next), true)),
                // Somebody else was faster: read with the next round.
                Some(_) | None => Ok::<_, StoreError>((Some(current), false)),
            }
        };
        // A vote must not hang on them.
        looked.await.unwrap_or((self.concerns.clone(), false))
    }
}

/// Asks as long as somebody listens: each question once the one before was answered or given up.
async fn keep_asking(number: usize, spec: Spec, ask: Arc<dyn Ask>, mut rng: StdRng, tell: mpsc::Sender<Heard>) {
    // Not all at the same instant.
    tokio::time::sleep(
        spec.interval
            .min(Duration::from_secs(1))
            .mul_f64(rng.random_range(0.0..1.0)),
    )
    .await;
    loop {
        let next = Instant::now() + spec.interval.mul_f64(rng.random_range(0.9..1.1));
        let outcome = once(&spec, ask.as_ref()).await;
        let heard = Heard {
            probe: number,
            at: Instant::now(),
            outcome,
        };
        if tell.send(heard).await.is_err() {
            return;
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Asks once.
pub async fn once(spec: &Spec, ask: &dyn Ask) -> Outcome {
    match timeout(spec.timeout, ask.ask()).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Bad(format!("no answer within {} s", spec.timeout.as_secs())),
    }
}
