//! The daemon: runs backups on their schedule and knows the RPO at every moment.
//!
//! The loop below only carries out what `state` decides, and tells `state` what came of it. It owns every task:
//! at most one run, one chore, one check and one proof, each with a cancellation and a deadline. The watchdog is fed from this loop and
//! nowhere else, so a loop that stands still, or a task that will not end, is noticed by systemd.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::backup::entry::BackupId;
use crate::backup::proof;
use crate::clock::Clock;
use crate::notify::Announce;
use crate::serve::board::Board;

pub mod alarm;
pub mod logging;
pub mod memory;
pub mod notify;
pub mod runner;
pub mod schedule;
pub mod signals;
pub mod state;
mod tell;

use notify::{Notice, Notifier};
use runner::{BackupRunner, Checked, Proven, RunError, RunSummary, Survey};
use signals::{Signal, Signals};
use state::{Decision, LOOK_EVERY, Moment, Settings, State};

/// Longest time that reading the configuration may hold up the loop.
const LOAD_WITHIN: Duration = Duration::from_secs(10);
/// After an abort, a task has this long to let go.
const ABORT_WITHIN: Duration = Duration::from_secs(5);

/// A configuration, ready to be used.
#[derive(Clone)]
pub struct Loaded {
    pub settings: Settings,
    pub runner: Arc<dyn BackupRunner>,
}

/// Reads the configuration again.
#[async_trait]
pub trait Loader: Send + Sync {
    /// All problems together, if there are any.
    async fn load(&self) -> Result<Loaded, Vec<String>>;
}

/// The daemon's surroundings.
pub struct Agent {
    pub clock: Arc<dyn Clock>,
    pub notifier: Arc<dyn Notifier>,
    /// Where people are told what goes wrong; never waits.
    pub announce: Arc<dyn Announce>,
    pub signals: Box<dyn Signals>,
    pub loader: Box<dyn Loader>,
    /// What it knows is shown there.
    pub board: Arc<Board>,
    /// `WatchdogSec`, if systemd watches.
    pub watchdog: Option<Duration>,
    /// How long a stop waits for what is under way to end by itself; less than the unit's `TimeoutStopSec`.
    pub stop_within: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("something under way ignores its cancellation; ending, so that the service manager starts afresh")]
    Stuck,
}

impl Agent {
    /// Runs until told to stop. Everything it started has ended, or was aborted, when it returns.
    pub async fn run(mut self, loaded: Loaded) -> Result<(), AgentError> {
        let mut work = Work::start(&self, loaded);
        self.notifier.notify(&Notice::Ready);
        loop {
            let at = work.moment();
            let wait = match work.state.decide(at) {
                Decision::Wait(wait) => wait,
                Decision::GiveUp => return Err(AgentError::Stuck),
                decision => {
                    work.carry_out(decision);
                    continue;
                }
            };
            if work.state.is_healthy(at) && self.watchdog.is_some() {
                self.notifier.notify(&Notice::Watchdog);
            }
            self.notifier.notify(&Notice::Status(work.status(at)));
            work.tell_rpo(at);
            self.board.ticked(work.state.tick(at));
            let wait = wait.min(self.watchdog.map_or(LOOK_EVERY, |every| every / 3));
            tokio::select! {
                biased;
                signal = self.signals.next() => match signal {
                    Signal::Stop => break,
                    Signal::Reload => self.reload(&mut work).await,
                },
                Some(ended) = work.tasks.join_next_with_id() => {
                    work.ended(ended);
                    memory::give_back();
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.notifier.notify(&Notice::Stopping);
        work.stop(self.stop_within).await;
        Ok(())
    }

    /// Takes the new configuration, or keeps the old one and says everything that is wrong with the new.
    async fn reload(&self, work: &mut Work) {
        self.notifier.notify(&Notice::Reloading);
        let problems = match timeout(LOAD_WITHIN, self.loader.load()).await {
            Ok(Ok(loaded)) => {
                tracing::info!("configuration reloaded");
                work.state.configure(loaded.settings, work.moment());
                work.runner = loaded.runner;
                work.feasibility_told = false;
                work.old_proof_told = false;
                Vec::new()
            }
            Ok(Err(problems)) => problems,
            Err(_) => vec![format!("it could not be read within {} s", LOAD_WITHIN.as_secs())],
        };
        for problem in &problems {
            tracing::error!(problem, "the new configuration is not valid; going on with the old one");
        }
        self.notifier.notify(&Notice::Ready);
    }
}

/// How something under way ended.
enum Ended {
    Run(Result<RunSummary, RunError>),
    Survey(Result<Survey, RunError>),
    Prune(Result<String, RunError>),
    Verify(BackupId, Result<Checked, RunError>),
    Prove(Result<Proven, RunError>),
}

/// A task of ours: how to recognise it and how to cancel it.
struct Task {
    id: Id,
    started: Instant,
    cancel: CancellationToken,
}

/// What is known and under way.
struct Work {
    state: State,
    runner: Arc<dyn BackupRunner>,
    clock: Arc<dyn Clock>,
    announce: Arc<dyn Announce>,
    board: Arc<Board>,
    epoch: Instant,
    tasks: JoinSet<Ended>,
    run: Option<Task>,
    chore: Option<Task>,
    check: Option<Task>,
    proof: Option<Task>,
    /// Since the last change of configuration.
    feasibility_told: bool,
    /// Since there last was a proof young enough.
    old_proof_told: bool,
}

impl Work {
    fn start(agent: &Agent, loaded: Loaded) -> Self {
        let at = Moment {
            wall: agent.clock.now(),
            mono: Duration::ZERO,
        };
        Self {
            state: State::new(loaded.settings, at),
            runner: loaded.runner,
            clock: Arc::clone(&agent.clock),
            announce: Arc::clone(&agent.announce),
            board: Arc::clone(&agent.board),
            epoch: Instant::now(),
            tasks: JoinSet::new(),
            run: None,
            chore: None,
            check: None,
            proof: None,
            feasibility_told: false,
            old_proof_told: false,
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            wall: self.clock.now(),
            mono: self.epoch.elapsed(),
        }
    }

    fn carry_out(&mut self, decision: Decision) {
        let runner = Arc::clone(&self.runner);
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let task = |id| {
            Some(Task {
                id,
                started: Instant::now(),
                cancel,
            })
        };
        match decision {
            Decision::Run(trigger) => {
                self.board.run_began();
                let run = async move { Ended::Run(runner.run(token, trigger).await) };
                self.run = task(self.tasks.spawn(run).id());
            }
            Decision::Survey => {
                let survey = async move { Ended::Survey(runner.survey(token).await) };
                self.chore = task(self.tasks.spawn(survey).id());
            }
            Decision::Prune(rpo) => {
                let prune = async move { Ended::Prune(runner.prune(token, rpo).await) };
                self.chore = task(self.tasks.spawn(prune).id());
            }
            Decision::Verify(id) => {
                let verify = async move { Ended::Verify(id.clone(), runner.verify(token, id).await) };
                self.check = task(self.tasks.spawn(verify).id());
            }
            Decision::Prove => {
                tracing::info!("restoring the newest good backup on the scratch server, to prove it");
                let prove = async move { Ended::Prove(runner.prove(token).await) };
                self.proof = task(self.tasks.spawn(prove).id());
            }
            Decision::CancelVerify => {
                if let Some(check) = &self.check {
                    check.cancel.cancel();
                }
            }
            Decision::CancelRun => cancel_late(&self.run, "the backup run"),
            Decision::CancelChore => cancel_late(&self.chore, "the survey or pruning"),
            Decision::CancelProof => cancel_late(&self.proof, "the proof of a backup"),
            Decision::Wait(_) | Decision::GiveUp => {}
        }
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let at = self.moment();
        match ended {
            Ok((_, Ended::Run(result))) => self.run_ended(result),
            Ok((_, Ended::Survey(result))) => {
                self.chore = None;
                if let Err(error) = &result {
                    tracing::warn!(%error, "the store could not be surveyed; trying again");
                }
                self.state.surveyed(result.as_ref(), at);
                let failures = self.state.survey_failures();
                alarm::surveyed(self.announce.as_ref(), result.as_ref(), failures, at.wall);
                tell::surveyed(&self.board, &result);
                self.tell_feasibility();
                self.tell_old_proof(result.as_ref().ok());
            }
            Ok((_, Ended::Prune(result))) => {
                self.chore = None;
                match result {
                    Ok(did) => tracing::info!(did, "retention applied"),
                    Err(error) => tracing::warn!(%error, "retention not applied; trying again in an hour"),
                }
                self.state.pruned();
            }
            Ok((_, Ended::Verify(id, result))) => self.verified(&id, &result),
            Ok((_, Ended::Prove(result))) => self.proved(&result),
            // It panicked: the defect is logged, the daemon goes on.
            Err(panic) if self.run.as_ref().is_some_and(|run| run.id == panic.id()) => {
                self.run_ended(Err(RunError::Transient(format!("a defect ended the run: {panic}"))));
            }
            Err(panic) if self.check.as_ref().is_some_and(|check| check.id == panic.id()) => {
                self.check = None;
                tracing::error!(error = %panic, "a defect ended the check of a backup");
                self.state.verified(Err(&RunError::Transient(panic.to_string())), at);
            }
            Err(panic) if self.proof.as_ref().is_some_and(|proof| proof.id == panic.id()) => {
                self.proved(&Err(RunError::Permanent(format!("a defect ended it: {panic}"))));
            }
            Err(panic) => {
                self.chore = None;
                tracing::error!(error = %panic, "a defect ended the survey or pruning");
                self.state.surveyed(Err(&RunError::Transient(panic.to_string())), at);
            }
        }
    }

    /// Takes a run's end into account, and logs the one line that every run has.
    fn run_ended(&mut self, result: Result<RunSummary, RunError>) {
        let at = self.moment();
        self.state.run_ended(&result, at);
        alarm::run_ended(self.announce.as_ref(), result.as_ref().err(), at.wall);
        let took = self.run.take().map_or(0.0, |run| run.started.elapsed().as_secs_f64());
        let rpo = self.state.rpo(at);
        let rpo_seconds = rpo.loss_now.map(|loss| loss.as_secs());
        let (rpo_state, skipped) = (rpo.state.as_str(), self.state.take_skipped());
        tell::run_ended(
            &self.board,
            &result,
            Duration::try_from_secs_f64(took).unwrap_or_default(),
            skipped,
        );
        match result {
            Ok(run) => {
                #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
                let ratio = run.raw_bytes as f64 / run.stored_bytes.max(1) as f64;
                tracing::info!(
                    id = %run.id, rows = run.rows, raw_bytes = run.raw_bytes, stored_bytes = run.stored_bytes, ratio,
                    seconds = run.seconds, lock_ms = run.lock_millis, attempts = run.attempts,
                    rpo_seconds, rpo_state, skipped, "backup committed"
                );
            }
            Err(error) => {
                tracing::error!(%error, seconds = took, rpo_seconds, rpo_state, skipped, "backup failed");
            }
        }
        self.tell_feasibility();
    }

    fn verified(&mut self, id: &BackupId, result: &Result<Checked, RunError>) {
        self.check = None;
        let at = self.moment();
        self.state.verified(result.as_ref(), at);
        alarm::checked(self.announce.as_ref(), id, result, at.wall);
        tell::verified(&self.board, result);
        match result {
            Ok(Checked::Sound { members, rows, seconds }) => {
                tracing::info!(%id, members, rows, seconds, "backup verified");
            }
            Ok(Checked::Damaged { place }) => tracing::error!(
                %id, place,
                "THE BACKUP IS DAMAGED: it counts as unusable, and the RPO counts from the one before; look after the store"
            ),
            Err(RunError::Cancelled) => {
                let skipped = self.state.checks_skipped();
                tracing::warn!(%id, skipped, "backup not verified: the next run, its deadline or the end came first");
            }
            Err(error) => tracing::warn!(%id, %error, "backup not verified; planb verify does it by hand"),
        }
    }

    fn proved(&mut self, result: &Result<Proven, RunError>) {
        let took = self
            .proof
            .take()
            .map_or(0.0, |proof| proof.started.elapsed().as_secs_f64());
        let at = self.moment();
        self.state.proved(result.as_ref(), at);
        alarm::proved(self.announce.as_ref(), result, at.wall);
        self.board
            .proved(matches!(result, Ok(Proven::Restored { .. })), self.state.failed_proof());
        match result {
            Ok(Proven::Restored {
                id,
                server,
                tables,
                rows,
                restore_seconds,
                compare_seconds,
            }) => tracing::info!(
                %id, server, tables, rows, restore_seconds, compare_seconds, "backup proven: restored and compared"
            ),
            Ok(Proven::Different { id, differences }) => tracing::error!(
                %id, differences = differences.join("; "),
                "BACKUP NOT PROVEN: what was restored is not what the backup says; see planb verify --restore-to"
            ),
            Ok(Proven::Damaged { id, place }) => tracing::error!(
                %id, place, "BACKUP NOT PROVEN: it is damaged and counts as unusable; the one before is tried next"
            ),
            Ok(Proven::NothingGood) => tracing::warn!("no backup proven: there is no good one yet"),
            Err(RunError::Cancelled) => tracing::warn!(
                seconds = took,
                "backup not proven: its deadline or the end came first; what is on the scratch server goes with \
                                 the next restore there"
            ),
            Err(error) => tracing::error!(
                %error, seconds = took, "BACKUP NOT PROVEN: it could not be restored on the scratch server"
            ),
        }
    }

    /// The line for whoever looks at the service.
    fn status(&self, at: Moment) -> String {
        let rpo = self.state.rpo(at);
        match self.state.failed_proof() {
            Some(why) => format!("{rpo}; THE LAST PROOF FAILED: {}", why.replace('\n', " ")),
            None => rpo.to_string(),
        }
    }

    fn tell_rpo(&self, at: Moment) {
        alarm::rpo(
            self.announce.as_ref(),
            &self.state.rpo(at),
            self.state.rpo_target(),
            at.wall,
        );
    }

    /// Says once that the latest proof has grown old. Where there never was one, `planb status` says so.
    fn tell_old_proof(&mut self, survey: Option<&Survey>) {
        let Some(survey) = survey else { return };
        let allowed = self.state.proof_max_age();
        let overdue = proof::overdue(&survey.entries, allowed, survey.store_now);
        alarm::proof_age(self.announce.as_ref(), overdue, allowed, self.moment().wall);
        if let Some(age) = overdue.filter(|_| !self.old_proof_told) {
            tracing::warn!(
                age_seconds = age.as_secs(),
                allowed_seconds = allowed.as_secs(),
                "the latest proof is older than verify.proof_max_age: restore and check a newer backup"
            );
        }
        self.old_proof_told = overdue.is_some();
    }

    /// Says once, as soon as it is known, what the schedule can lose at worst.
    fn tell_feasibility(&mut self) {
        let Some(feasibility) = self.state.feasibility().filter(|_| !self.feasibility_told) else {
            return;
        };
        self.feasibility_told = true;
        match feasibility {
            crate::backup::rpo::Feasibility::Meets { .. } => tracing::info!(%feasibility, "the schedule meets the RPO"),
            crate::backup::rpo::Feasibility::Misses { .. } => {
                tracing::warn!(%feasibility, "the schedule cannot meet the RPO");
            }
        }
    }

    /// Cancels what is under way and waits for it, then aborts what did not listen.
    async fn stop(mut self, within: Duration) {
        for task in [&self.run, &self.chore, &self.check, &self.proof].into_iter().flatten() {
            task.cancel.cancel();
        }
        let drained = timeout(within, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                self.ended(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                seconds = within.as_secs(),
                "what was under way did not end in time; aborted"
            );
            let aborted = timeout(ABORT_WITHIN, self.tasks.shutdown());
            if aborted.await.is_err() {
                tracing::error!("something under way cannot even be aborted");
            }
        }
    }
}

fn cancel_late(task: &Option<Task>, what: &str) {
    if let Some(task) = task {
        let seconds = task.started.elapsed().as_secs();
        tracing::error!(seconds, what, "over its deadline; cancelled");
        task.cancel.cancel();
    }
}
