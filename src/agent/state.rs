//! What the daemon knows and what it does next. Facts in, decision out: no task, no clock, no store.
//!
//! A backup run can be under way, beside it one chore (survey or pruning), so that neither delays the other, and
//! between runs a check of the newest backup, which gives way to the next run. Beside all of them one proof: a restore on another
//! server. Loss is counted on the store's clock, carried forward on the machine's monotonic one; the wall
//! clock only says when cron ticks are due. When wall and monotonic time disagree (suspend, a clock set anew), the
//! worse is assumed and the store is asked.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::agent::runner::{Checked, Proven, RunError, RunSummary, Survey, Trigger};
use crate::agent::schedule::{Cron, ScheduleError};
use crate::backup::entry::BackupId;
use crate::backup::rpo::{self, Newest, Point, Rpo, RunTimes};
use crate::config::{Config, Schedule};

mod check;
mod outlook;
mod proving;

use check::Check;
use proving::Proving;

/// A tick found later than this was missed: the machine slept.
const LATE: SignedDuration = SignedDuration::from_secs(30);
/// Wall and monotonic clocks may drift apart this much between two looks.
const JUMP: SignedDuration = SignedDuration::from_secs(5);
/// Between prunings.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Between surveys when all is well: somebody else may prove, orphan or remove backups.
const SURVEY_EVERY: Duration = Duration::from_secs(600);
const SURVEY_DEADLINE: Duration = Duration::from_secs(120);
const PRUNE_DEADLINE: Duration = Duration::from_secs(1800);
/// After its deadline (and its cancellation) something has this long to end before it counts as stuck.
pub const GRACE: Duration = Duration::from_secs(60);
/// A stuck agent starves the watchdog for this long, then ends by itself, for those who run it without one.
pub const STUCK_FOR: Duration = Duration::from_secs(180);
/// What a run is guessed to take before the first one was seen.
const FIRST_GUESS: Duration = Duration::from_secs(60);
/// The loop looks this often at least, so that a suspend or a new clock is noticed.
pub const LOOK_EVERY: Duration = Duration::from_secs(15);

/// When runs start.
#[derive(Debug, Clone)]
pub enum Plan {
    Cron(Box<Cron>),
    KeepRpo,
}

/// What the configuration says about all this.
#[derive(Debug, Clone)]
pub struct Settings {
    pub plan: Plan,
    pub rpo: Duration,
    /// Longest time for one run.
    pub run_deadline: Duration,
    /// Whether each backup's structure is checked after it was made.
    pub verify_structure: bool,
    /// From this age on, the latest proof is told as old.
    pub proof_max_age: Duration,
    /// When the newest good backup is restored to prove it; never, if none.
    pub proving: Option<Box<Cron>>,
}

impl Settings {
    /// From the configuration; `now` is any recent time.
    pub fn of(config: &Config, now: Timestamp) -> Result<Self, ScheduleError> {
        let plan = match &config.backup.schedule {
            Schedule::Cron(text) => Plan::Cron(Box::new(Cron::parse(text, now)?)),
            Schedule::KeepRpo => Plan::KeepRpo,
        };
        let proving = match &config.verify.restore {
            Some(proving) => Some(Box::new(Cron::parse(&proving.schedule, now)?)),
            None => None,
        };
        Ok(Self {
            plan,
            rpo: config.targets.rpo,
            run_deadline: config.backup.timeout,
            verify_structure: config.verify.structure,
            proof_max_age: config.verify.proof_max_age,
            proving,
        })
    }
}

/// A look at both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Since the agent started; never goes back.
    pub mono: Duration,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Run(Trigger),
    Survey,
    Prune(Rpo),
    /// Check this backup, which was just made.
    Verify(BackupId),
    /// Restore the newest good backup on the scratch server.
    Prove,
    /// Over its deadline: cancel it.
    CancelRun,
    CancelChore,
    /// Over its deadline, or a run began and goes first.
    CancelVerify,
    CancelProof,
    /// Nothing for this long.
    Wait(Duration),
    /// Something ignored its cancellation for far too long.
    GiveUp,
}

/// Something under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Active {
    started: Duration,
    deadline: Duration,
    cancelled: bool,
}

impl Active {
    fn from(mono: Duration, allowed: Duration) -> Self {
        Self {
            started: mono,
            deadline: mono + allowed,
            cancelled: false,
        }
    }

    fn over(&self, mono: Duration, by: Duration) -> bool {
        mono > self.deadline + by
    }
}

/// A reading of the store's clock.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    store: Timestamp,
    mono: Duration,
}

#[derive(Debug)]
pub struct State {
    settings: Settings,
    /// The largest gap between ticks; `None` for keep-rpo.
    gap: Option<Duration>,
    known: Option<(Newest, Anchor)>,
    times: RunTimes,
    run: Option<Active>,
    chore: Option<Active>,
    check: Check,
    proving: Proving,
    next_tick: Option<Timestamp>,
    last_look: Moment,
    last_run_end: Option<Duration>,
    /// When a failed run is repeated, if that is worth it by then.
    retry_at: Option<Duration>,
    failures: u32,
    /// Another run held the lease; what it made was not looked for yet.
    stood_back: bool,
    survey_at: Duration,
    survey_failures: u32,
    prune_at: Duration,
    prune_due: bool,
    /// Ticks without a run since the last summary.
    skipped: u64,
}

impl State {
    pub fn new(settings: Settings, at: Moment) -> Self {
        let mut state = Self {
            gap: None,
            known: None,
            times: RunTimes::default(),
            run: None,
            chore: None,
            check: Check::default(),
            proving: Proving::default(),
            next_tick: None,
            last_look: at,
            last_run_end: None,
            retry_at: None,
            failures: 0,
            stood_back: false,
            survey_at: at.mono,
            survey_failures: 0,
            prune_at: at.mono,
            prune_due: false,
            skipped: 0,
            settings: settings.clone(),
        };
        state.configure(settings, at);
        state
    }

    /// Takes new settings; what is under way goes on.
    pub fn configure(&mut self, settings: Settings, at: Moment) {
        (self.gap, self.next_tick) = match &settings.plan {
            Plan::Cron(cron) => (cron.largest_gap(), cron.next_after(at.wall)),
            Plan::KeepRpo => (None, None),
        };
        self.proving.configure(settings.proving.clone(), at.wall);
        self.settings = settings;
        // What was wrong may be right now.
        self.retry_at = self.retry_at.map(|_| at.mono);
        self.survey_at = at.mono;
    }

    /// The next thing to do. Call until it says wait.
    pub fn decide(&mut self, at: Moment) -> Decision {
        self.look(at);
        let mono = at.mono;
        if self.active().any(|a| a.over(mono, GRACE + STUCK_FOR)) {
            return Decision::GiveUp;
        }
        if let Some(late) = self
            .run
            .as_mut()
            .filter(|a| a.over(mono, Duration::ZERO) && !a.cancelled)
        {
            late.cancelled = true;
            return Decision::CancelRun;
        }
        if let Some(late) = self
            .chore
            .as_mut()
            .filter(|a| a.over(mono, Duration::ZERO) && !a.cancelled)
        {
            late.cancelled = true;
            return Decision::CancelChore;
        }
        if self.check.must_end(mono, self.run.is_some()) {
            return Decision::CancelVerify;
        }
        if self.proving.must_end(mono) {
            return Decision::CancelProof;
        }
        if let Some(trigger) = self.due(at) {
            self.retry_at = None;
            self.run = Some(Active::from(mono, self.settings.run_deadline));
            return Decision::Run(trigger);
        }
        if self.run.is_none()
            && let Some(id) = self.check.start(mono, self.settings.run_deadline)
        {
            return Decision::Verify(id);
        }
        let backed_up = self.last_run_end.is_some() && self.failures == 0;
        if self.proving.start(at, backed_up) {
            return Decision::Prove;
        }
        if self.chore.is_none() && mono >= self.survey_at {
            self.chore = Some(Active::from(mono, SURVEY_DEADLINE));
            return Decision::Survey;
        }
        if self.chore.is_none() && self.prune_due && mono >= self.prune_at {
            self.prune_due = false;
            self.prune_at = mono + PRUNE_EVERY;
            self.chore = Some(Active::from(mono, PRUNE_DEADLINE));
            return Decision::Prune(self.rpo(at));
        }
        Decision::Wait(self.until_next(at))
    }

    /// Notices what time did since the last look.
    fn look(&mut self, at: Moment) {
        let wall = at.wall.duration_since(self.last_look.wall);
        let jump = wall.saturating_sub(signed(at.mono.saturating_sub(self.last_look.mono)));
        self.last_look = at;
        if jump.abs() <= JUMP {
            return;
        }
        tracing::warn!(
            seconds = jump.as_secs(),
            "the clock jumped (set anew, or the machine slept); asking the store"
        );
        self.survey_at = at.mono;
        if jump.is_positive() {
            // Assume it slept: the store's clock went on.
            if let Some((_, anchor)) = &mut self.known {
                anchor.store = anchor.store.saturating_add(jump).unwrap_or(anchor.store);
            }
        } else if let Plan::Cron(cron) = &self.settings.plan {
            // Do not wait for a tick that is hours away on the corrected clock.
            self.next_tick = cron.next_after(at.wall);
        }
        if jump.is_negative() {
            self.proving.clock_set_back(at.wall);
        }
    }

    /// Whether a run starts now, and why. Ticks that cannot be used are counted and gone.
    fn due(&mut self, at: Moment) -> Option<Trigger> {
        if let (Plan::Cron(cron), Some(tick)) = (&self.settings.plan, self.next_tick)
            && at.wall >= tick
        {
            let passed = 1 + cron.ticks_between(tick, at.wall);
            self.next_tick = cron.next_after(at.wall);
            if let Some(run) = &self.run {
                self.skipped += passed;
                let running_for = at.mono.saturating_sub(run.started).as_secs();
                tracing::warn!(running_for_seconds = running_for, %tick, "the run outlasts its interval: tick skipped");
                return None;
            }
            if at.wall.duration_since(tick) <= LATE {
                return Some(Trigger::Schedule);
            }
            self.skipped += passed;
            tracing::warn!(passed, first = %tick, "ticks missed while the machine slept");
        }
        if self.run.is_some() {
            return None;
        }
        if let Some(retry_at) = self.retry_at {
            // A failure is repeated when its time has come, and only if waiting for the tick would cost too much.
            return (at.mono >= retry_at && !self.stood_back && self.waiting_costs_too_much(at))
                .then_some(Trigger::Retry);
        }
        match self.settings.plan {
            // Not even a listing works: a run tells whether more does.
            Plan::KeepRpo if self.known.is_none() => {
                (self.survey_failures > 0 && self.failures == 0).then_some(Trigger::CatchUp)
            }
            Plan::KeepRpo => {
                let (wait, catching_up) = self.keep_rpo_wait(at)?;
                wait.is_zero().then_some(if catching_up {
                    Trigger::CatchUp
                } else {
                    Trigger::Schedule
                })
            }
            // Only once the store was asked: after a jump the answer may be that nothing is wrong.
            Plan::Cron(_) => {
                let asked = self.known.is_some() && self.chore.is_none() && at.mono < self.survey_at;
                let idle = self.last_run_end.is_none_or(|end| at.mono >= end + rpo::MIN_PAUSE);
                (asked && idle && self.failures == 0 && self.waiting_costs_too_much(at)).then_some(Trigger::CatchUp)
            }
        }
    }

    pub fn run_ended(&mut self, result: &Result<RunSummary, RunError>, at: Moment) {
        self.run = None;
        self.last_run_end = Some(at.mono);
        match result {
            Ok(done) => {
                self.failures = 0;
                self.retry_at = None;
                if let Ok(took) = Duration::try_from(done.committed_at.duration_since(done.consistent_at)) {
                    self.times.note(took);
                }
                let proven = self.known.take().and_then(|(newest, _)| newest.proven);
                let data_from = done.consistent_at.min(done.committed_at);
                let good = Some(Point {
                    id: done.id.clone(),
                    data_from,
                });
                self.known = Some((
                    Newest { good, proven },
                    Anchor {
                        store: done.committed_at,
                        mono: at.mono,
                    },
                ));
                self.prune_due = true;
                if self.settings.verify_structure {
                    self.check.want(done.id.clone());
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = match (error.is_permanent(), &self.settings.plan) {
                    (false, _) => Some(backoff(self.failures)),
                    // A person has to act: at the schedule's pace, not faster.
                    (true, Plan::KeepRpo) => Some(self.settings.rpo),
                    (true, Plan::Cron(_)) => None,
                };
                self.retry_at = pause.map(|pause| at.mono + pause);
                if let RunError::Busy(_) = error {
                    // Somebody else makes a backup: look for it before another try, or their success would look
                    // like a breach here, and every tick would be served twice.
                    self.stood_back = true;
                    self.survey_at = self.survey_at.min(at.mono + backoff(self.failures));
                }
            }
        }
    }

    pub fn surveyed(&mut self, result: Result<&Survey, &RunError>, at: Moment) {
        let asked = self.chore.take().map_or(at.mono, |chore| chore.started);
        let stood_back = std::mem::take(&mut self.stood_back);
        match result {
            // A run committed meanwhile: the listing may be from before it.
            Ok(_) if self.known.is_some() && self.last_run_end.is_some_and(|end| end > asked) => {
                self.survey_at = at.mono;
            }
            Ok(survey) => {
                self.survey_failures = 0;
                self.survey_at = at.mono + SURVEY_EVERY;
                self.times = RunTimes::of(&survey.entries);
                self.proving.surveyed(survey);
                let newest = Newest::of(&survey.entries);
                if stood_back && self.known.as_ref().is_none_or(|(known, _)| known.good != newest.good) {
                    // Theirs is as good as ours: nothing has failed.
                    self.failures = 0;
                    self.retry_at = None;
                }
                self.known = Some((
                    newest,
                    Anchor {
                        store: survey.store_now,
                        mono: at.mono,
                    },
                ));
            }
            Err(_) => {
                self.survey_failures = self.survey_failures.saturating_add(1);
                self.survey_at = at.mono + backoff(self.survey_failures);
            }
        }
    }

    /// A check ended. What was found damaged is unusable from now on: the store says what there is instead.
    pub fn verified(&mut self, result: Result<&Checked, &RunError>, at: Moment) {
        self.check.active = None;
        if let Ok(Checked::Damaged { .. }) = result {
            self.survey_at = at.mono;
        }
    }

    /// A proof ended. What was found damaged is unusable from now on, and what was proven is kept by retention.
    pub fn proved(&mut self, result: Result<&Proven, &RunError>, at: Moment) {
        self.proving.ended(result, at.mono);
        if result.is_ok() {
            self.survey_at = at.mono;
        }
    }

    /// How the last proof failed, for whoever looks at the service; none if it did not.
    pub fn failed_proof(&self) -> Option<&str> {
        self.proving.failure()
    }

    /// Backups that were not checked, because the next run came first, since the agent started.
    pub fn checks_skipped(&self) -> u64 {
        self.check.skipped
    }

    /// Surveys that failed in a row.
    pub fn survey_failures(&self) -> u32 {
        self.survey_failures
    }

    pub fn rpo_target(&self) -> Duration {
        self.settings.rpo
    }

    pub fn proof_max_age(&self) -> Duration {
        self.settings.proof_max_age
    }

    pub fn pruned(&mut self) {
        self.chore = None;
    }

    /// Skipped ticks since the last call.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Whether the watchdog may be fed: nothing is past its deadline and grace.
    pub fn is_healthy(&self, at: Moment) -> bool {
        !self.active().any(|a| a.over(at.mono, GRACE))
    }

    /// Everything under way.
    fn active(&self) -> impl Iterator<Item = Active> {
        [self.run, self.chore, self.check.active, self.proving.active]
            .into_iter()
            .flatten()
    }
}

/// Five seconds, doubling up to a minute: ten minutes without a store cost little and are noticed soon.
fn backoff(failures: u32) -> Duration {
    Duration::from_secs(5 << failures.saturating_sub(1).min(4)).min(Duration::from_secs(60))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
