//! Carries an operation on: asks what comes next, writes it down, has it done, writes down what came of it.
//!
//! Whatever a step does is behind [`Hands`]; whoever may act is decided by the lease of a place and by the journal, whose
//! entries only one writer can append. Dropped at any instant, another engine goes on from the journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::event::{By, Chosen, Ended, Event, Outcome};
use super::journal::{Journal, JournalError, Position};
use super::next::{Next, next};
use super::plan::{Place, Role, Step};
use super::rules::Rule;

mod task;
mod tasks;
mod trace;

pub use task::Task;

use tasks::{Announced, Finished, Look, Tasks, bound, done, ended, failures, is_drill};

/// How often the journal is looked at for what other places did.
const POLL: Duration = Duration::from_secs(1);
/// Between tries of a step that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// How long a step that was cancelled may take to come to rest, before its process is given up.
/// Terraform has ten minutes to finish what its cloud began.
const PATIENCE: Duration = Duration::from_secs(660);
/// From its timeout on, so long may an effect of a step still happen whose process is gone.
const LINGERS: Duration = Duration::from_secs(60);
/// Why a rehearsal is taken back where nothing failed.
pub const REHEARSED: &str = "rehearsed to its end";
/// How long a store may be away in the middle of an operation.
const STORE_PATIENCE: Duration = Duration::from_secs(300);

/// A step that did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What happened, what state things are in, and what to do; never a secret.
    pub message: String,
    /// Trying again by itself cannot help.
    pub is_permanent: bool,
}

impl StepError {
    pub fn passing(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_permanent: false,
        }
    }

    pub fn permanent(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_permanent: true,
        }
    }
}

/// Carries steps out. Each may be called again for a step that was broken off anywhere: it looks first.
#[async_trait]
pub trait Hands: Send + Sync {
    async fn carry_out(&self, task: &Task) -> Result<Outcome, StepError>;

    /// Says in a sentence what was taken back.
    async fn take_back(&self, task: &Task) -> Result<String, StepError>;

    /// The newest good backup, asked just before the standby opens.
    async fn newest(&self) -> Result<Option<Chosen>, StepError>;
}

/// Told as it goes; for a person's screen.
pub trait Watch: Send + Sync {
    fn moved(&self, position: &Position);
}

/// Whether this process still may act.
#[async_trait]
pub trait Right: Send + Sync {
    /// Fires when it is lost.
    fn lost(&self) -> CancellationToken;

    /// Asks the store, for the moment before a deed.
    async fn confirm(&self) -> bool;
}

/// How a run came to rest.
#[derive(Debug, Clone, PartialEq)]
pub enum Rest {
    Ended(Ended),
    /// Nothing is open.
    Nothing,
    Approval {
        have: u32,
        need: u32,
    },
    Refused(Vec<(String, Rule)>),
    /// Steps with what they failed of.
    Failed(Vec<(String, String)>),
    /// Somebody asked for it.
    Stopped,
    /// The lease is somebody else's: nothing more is done here.
    Lost,
}

pub struct Engine {
    pub journal: Journal,
    pub hands: Arc<dyn Hands>,
    pub right: Arc<dyn Right>,
    pub watch: Arc<dyn Watch>,
    pub here: Place,
    pub by: By,
    pub cancel: CancellationToken,
}

impl Engine {
    /// Goes on with the open operation as far as this place can.
    ///
    /// # Errors
    /// The journal's. Whatever happens, another run goes on from what is written down.
    pub async fn run(&self, position: Position) -> Result<(Rest, Position), JournalError> {
        trace::traced(trace::operation(&position, self.here), self.carried_on(position)).await
    }

    async fn carried_on(&self, position: Position) -> Result<(Rest, Position), JournalError> {
        let lost = self.right.lost();
        let mut tasks = Tasks {
            set: JoinSet::new(),
            names: BTreeMap::new(),
            stop: CancellationToken::new(),
            pauses: BTreeMap::new(),
        };
        // Whatever ends this call also ends what it began.
        let _guard = tasks.stop.clone().drop_guard();
        let mut position = self
            .write(position, |position| {
                position.state.open().map(|_| Event::Taken { at: self.here })
            })
            .await?;
        let rest = tokio::select! {
            biased;
            () = lost.cancelled() => Rest::Lost,
            rest = self.go_on(&mut position, &mut tasks) => match rest {
                // Somebody took over while this machine slept, and its clock has not told it yet.
                Err(JournalError::Illegal(error)) if !self.right.confirm().await => {
                    tracing::warn!(%error, "somebody else went on with the operation");
                    Rest::Lost
                }
                rest => rest?,
            },
        };
        tasks.stop.cancel();
        match rest {
            Rest::Lost => {
                // Nothing is written: whoever holds the lease now knows from our bounds what may still happen.
                self.settle(&mut tasks).await;
                Ok((Rest::Lost, position))
            }
            Rest::Ended(_) | Rest::Nothing => Ok((rest, position)),
            rest => {
                let finished = self.settle(&mut tasks).await;
                let came_to_rest = tasks.set.is_empty();
                for (name, is_back, result) in finished {
                    // What was cut short is neither done nor failed.
                    if let Ok(outcome) = result {
                        let event = done(&name, is_back, outcome);
                        position = self.write(position, |_| Some(event.clone())).await?;
                    }
                }
                if came_to_rest {
                    position = self
                        .write(position, |position| position.state.open().map(|_| Event::Left))
                        .await?;
                }
                Ok((rest, position))
            }
        }
    }

    async fn go_on(&self, position: &mut Position, tasks: &mut Tasks) -> Result<Rest, JournalError> {
        let begun_with = position.state.open().map(|operation| operation.number);
        loop {
            *position = self.patiently(|| self.journal.refresh(position.clone())).await?;
            // Ours ended elsewhere, and another one was begun: its plan is compared with this machine's before anything of it is done here.
            if position
                .state
                .open()
                .is_some_and(|open| begun_with.is_some_and(|number| number != open.number))
            {
                return Ok(Rest::Lost);
            }
            self.watch.moved(position);
            let now = self.patiently(|| async { Ok(self.journal.now().await?) }).await?;
            let chosen = next(&position.state, self.here, &self.by.run, now);
            let is_stopping = self.cancel.is_cancelled();
            match chosen {
                _ if is_stopping => return Ok(Rest::Stopped),
                Next::Nothing => return Ok(ended(position).map_or(Rest::Nothing, Rest::Ended)),
                Next::Start(steps) => {
                    if !self.start(position, tasks, &steps, now).await? {
                        self.wait(position, tasks).await?;
                    }
                }
                Next::TakeBack(step) => {
                    if !self.start_back(position, tasks, &step, now).await? {
                        self.wait(position, tasks).await?;
                    }
                }
                Next::Wait(_) => self.wait(position, tasks).await?,
                Next::End(Ended::Done) if is_drill(position) => {
                    let reason = REHEARSED.to_owned();
                    *position = self
                        .write(position.clone(), |_| Some(Event::Abandoning { reason: reason.clone() }))
                        .await?;
                }
                Next::End(how) => {
                    *position = self
                        .write(position.clone(), |position| {
                            let operation = position.state.open()?;
                            let standing = operation.leaves(&position.state.standing, how);
                            Some(Event::Ended { how, standing })
                        })
                        .await?;
                    self.watch.moved(position);
                }
                Next::Approval { have, need } => return Ok(Rest::Approval { have, need }),
                Next::Refused(rules) => return Ok(Rest::Refused(rules)),
                Next::Failed(steps) => return Ok(Rest::Failed(failures(position, steps))),
            }
        }
    }

    /// Begins steps. False if none could be begun just now.
    async fn start(
        &self,
        position: &mut Position,
        tasks: &mut Tasks,
        steps: &[String],
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        let mut any = false;
        for name in steps {
            if tasks.is_pausing(name) {
                continue;
            }
            let Some(step) = position
                .state
                .open()
                .and_then(|operation| operation.plan.step(name))
                .cloned()
            else {
                return Ok(true);
            };
            if let Role::Open(site) = step.role {
                match self.look_again(position, site).await? {
                    Look::Renewed => return Ok(true),
                    Look::Unknown(error) => {
                        tracing::warn!(%error, "the newest backup could not be asked for; trying again");
                        tasks.pauses.insert(name.clone(), Instant::now() + RETRY_PAUSE);
                        continue;
                    }
                    Look::Newest => {}
                }
            }
            if !self.right.confirm().await {
                return Ok(false);
            }
            let bound = bound(now, &step);
            let event = Event::Started {
                step: name.clone(),
                bound,
            };
            match self.announce(position, tasks, name, event).await? {
                Announced::Written => {}
                Announced::Raced => return Ok(true),
                Announced::Refused => return Ok(any),
            }
            any = true;
            self.spawn(position, tasks, step, false);
        }
        Ok(any)
    }

    async fn start_back(
        &self,
        position: &mut Position,
        tasks: &mut Tasks,
        name: &str,
        now: Timestamp,
    ) -> Result<bool, JournalError> {
        if tasks.is_pausing(name) {
            return Ok(false);
        }
        let Some(step) = position
            .state
            .open()
            .and_then(|operation| operation.plan.step(name))
            .cloned()
        else {
            return Ok(true);
        };
        if !self.right.confirm().await {
            return Ok(false);
        }
        let event = Event::TakingBack {
            step: name.to_owned(),
            bound: bound(now, &step),
        };
        match self.announce(position, tasks, name, event).await? {
            Announced::Written => {}
            Announced::Raced => return Ok(true),
            Announced::Refused => return Ok(false),
        }
        self.spawn(position, tasks, step, true);
        Ok(true)
    }

    /// Writes down that a step is about to begin.
    async fn announce(
        &self,
        position: &mut Position,
        tasks: &mut Tasks,
        step: &str,
        event: Event,
    ) -> Result<Announced, JournalError> {
        match self
            .patiently(|| self.journal.append(position, &self.by, event.clone()))
            .await
        {
            Ok(next) => {
                *position = next;
                self.watch.moved(position);
                Ok(Announced::Written)
            }
            Err(JournalError::Raced) => Ok(Announced::Raced),
            Err(JournalError::Illegal(error)) => {
                // Decided on a state that has moved on: not asked again at once.
                tracing::warn!(%error, "a step is neither begun nor taken back");
                tasks.pauses.insert(step.to_owned(), Instant::now() + RETRY_PAUSE);
                Ok(Announced::Refused)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether there is a newer good backup than the one that was restored.
    async fn look_again(&self, position: &mut Position, site: super::plan::Site) -> Result<Look, JournalError> {
        let Some(operation) = position.state.open() else {
            return Ok(Look::Newest);
        };
        // A primary that nobody can fence goes on being protected: its backups would never end this.
        let is_enough = operation.has_accepted(Rule::Unfenced) && operation.renewals > 0;
        let is_last = operation.has_the_last(&position.state.standing);
        if operation.pinned || is_enough || is_last || site != super::plan::Site::Standby {
            return Ok(Look::Newest);
        }
        let newest = match self.hands.newest().await {
            Ok(newest) => newest,
            Err(error) => return Ok(Look::Unknown(error)),
        };
        let restored = operation.backup.as_ref().map(|backup| backup.consistent_at);
        let Some(newer) = newest.filter(|newest| restored.is_none_or(|restored| newest.consistent_at > restored))
        else {
            return Ok(Look::Newest);
        };
        *position = self
            .write(position.clone(), |_| Some(Event::Renewed { backup: newer.clone() }))
            .await?;
        Ok(Look::Renewed)
    }

    fn spawn(&self, position: &Position, tasks: &mut Tasks, step: Step, is_back: bool) {
        let Some(operation) = position.state.open().cloned() else {
            return;
        };
        let cancel = tasks.stop.child_token();
        let hands = Arc::clone(&self.hands);
        let name = step.name.clone();
        let timeout = Duration::from_secs(step.timeout_seconds);
        let span = trace::step(&name, operation.number, is_back);
        let task = Task {
            step,
            operation,
            standing: position.state.standing.clone(),
            cancel: cancel.clone(),
            right: Some(Arc::clone(&self.right)),
        };
        let handle = tasks.set.spawn({
            let name = name.clone();
            async move {
                let work = async {
                    if is_back {
                        let note = hands.take_back(&task).await?;
                        return Ok(Outcome {
                            note,
                            ..Outcome::default()
                        });
                    }
                    hands.carry_out(&task).await
                };
                let mut work = std::pin::pin!(trace::traced(span, work));
                let result = tokio::select! {
                    result = &mut work => result,
                    () = tokio::time::sleep(timeout) => {
                        cancel.cancel();
                        // It comes to rest by itself, or is given up.
                        match tokio::time::timeout(PATIENCE, work).await {
                            Ok(Ok(outcome)) => Ok(outcome),
                            Ok(Err(error)) => Err(StepError::passing(format!(
                                "it took longer than its timeout of {} s and was stopped ({error})",
                                timeout.as_secs()
                            ))),
                            Err(_) => Err(StepError::passing(format!(
                                "it took longer than its timeout of {} s, and does not stop when told to",
                                timeout.as_secs()
                            ))),
                        }
                    }
                };
                (name, is_back, result)
            }
        });
        tasks.names.insert(handle.id(), (name, is_back));
    }

    /// Waits for a step to end, for somebody else's entry, or for a stop.
    async fn wait(&self, position: &mut Position, tasks: &mut Tasks) -> Result<(), JournalError> {
        let ended = tokio::select! {
            biased;
            Some(ended) = tasks.set.join_next_with_id() => ended,
            () = self.cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(POLL) => return Ok(()),
        };
        let (name, is_back, result) = tasks.ended(ended);
        let event = match result {
            Ok(outcome) => done(&name, is_back, outcome),
            Err(error) => {
                tasks.pauses.insert(name.clone(), Instant::now() + RETRY_PAUSE);
                tracing::warn!(step = name, %error, "a step failed");
                // What cannot get better is not tried again: its tries are used up at once.
                let tries = if error.is_permanent {
                    let retries = position.state.open().and_then(|operation| operation.plan.step(&name));
                    retries.map_or(1, |step| step.retries + 1)
                } else {
                    1
                };
                Event::Failed {
                    step: name,
                    error: error.message,
                    tries,
                }
            }
        };
        *position = self.write(position.clone(), |_| Some(event.clone())).await?;
        self.watch.moved(position);
        Ok(())
    }

    /// Waits until everything that was begun has come to rest.
    async fn settle(&self, tasks: &mut Tasks) -> Vec<Finished> {
        let until = Instant::now() + PATIENCE;
        let mut finished = Vec::new();
        while let Ok(Some(ended)) = tokio::time::timeout_at(until, tasks.set.join_next_with_id()).await {
            finished.push(tasks.ended(ended));
        }
        finished
    }

    /// Appends what `event` makes of the latest state; again, as long as others write in between.
    async fn write(
        &self,
        mut position: Position,
        event: impl Fn(&Position) -> Option<Event>,
    ) -> Result<Position, JournalError> {
        loop {
            let Some(event) = event(&position) else {
                return Ok(position);
            };
            match self
                .patiently(|| self.journal.append(&position, &self.by, event.clone()))
                .await
            {
                Err(JournalError::Raced) => {
                    position = self.patiently(|| self.journal.refresh(position.clone())).await?;
                }
                done => return done,
            }
        }
    }

    /// A store that is away for a while ends nothing.
    async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T, JournalError>
    where
        F: Future<Output = Result<T, JournalError>>,
    {
        let until = Instant::now() + STORE_PATIENCE;
        loop {
            match call().await {
                Err(JournalError::Store(error)) if !error.is_permanent() && Instant::now() < until => {
                    tracing::warn!(%error, "the journal cannot be reached; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                done => return done,
            }
        }
    }
}
