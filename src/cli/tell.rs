//! Whoever carries an operation on tells people how it goes; and what could not be told is kept in the store, for the agent to tell.
//!
//! Nothing here holds an operation up: notices are put down and gone on, and at the end there are a few seconds for what still
//! waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::operation::standing_line;
use super::{open, screen};
use crate::backup::claim;
use crate::config::Config;
use crate::notify::Announce;
use crate::notify::channel;
use crate::notify::dispatcher::{Announcer, Dispatcher};
use crate::notify::notice::{Notice, Outcome, What};
use crate::recovery::engine::{Rest, Watch};
use crate::recovery::event::{Accepted, Ended};
use crate::recovery::journal::Position;
use crate::recovery::operation::Operation;
use crate::recovery::plan::Place;
use crate::recovery::state::Progress;
use crate::store::{BlobStore, Condition, StoreError};

/// What still waits at the end of a command has this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// And writing down what was not told, this long.
const KEEP_WITHIN: Duration = Duration::from_secs(5);

/// Tells people how an operation goes that this process carries on.
pub struct Teller {
    dispatcher: Dispatcher,
    here: Place,
}

impl Teller {
    pub async fn start(config: &Config, here: Place) -> Self {
        let clock = open::clock();
        let lines = channel::lines(config, &clock);
        Self {
            dispatcher: Dispatcher::start(channel::sender(config), lines, clock, None).await,
            here,
        }
    }

    /// Tells nobody: what a rehearsal does step by step is no news.
    pub async fn silent(config: &Config, here: Place) -> Self {
        Self {
            dispatcher: Dispatcher::start(channel::sender(config), Vec::new(), open::clock(), None).await,
            here,
        }
    }

    /// For whoever tells of something else.
    pub fn announcer(&self) -> Announcer {
        self.dispatcher.announcer()
    }

    pub fn rehearsed(&self, passed: bool, summary: String) {
        self.say(What::DrillResult { passed, summary });
    }

    fn say(&self, what: What) {
        self.dispatcher
            .announcer()
            .raise(Notice::new(what, open::clock().now()));
    }

    pub fn begun(&self, operation: &Operation, accepted: &[Accepted]) {
        let facts = operation.facts.iter().map(|(key, value)| format!("{key}: {value}"));
        self.say(What::OperationBegun {
            operation: operation.number,
            command: operation.aim.command().to_owned(),
            who: operation.opened_by.who.clone(),
            facts: facts.collect(),
        });
        self.accepted(operation.number, accepted);
    }

    pub fn accepted(&self, operation: u64, accepted: &[Accepted]) {
        for accepted in accepted {
            self.say(What::RuleAccepted {
                operation,
                rule: accepted.rule.clone(),
                reason: accepted.reason.clone(),
                who: accepted.who.clone(),
            });
        }
    }

    /// An operation came to its end outside the engine.
    pub fn ended(&self, how: Ended, position: &Position) {
        if let Some(operation) = &position.state.operation {
            self.say(What::OperationEnded {
                operation: operation.number,
                command: operation.aim.command().to_owned(),
                how: match how {
                    Ended::Done => Outcome::Done,
                    Ended::Abandoned => Outcome::Abandoned,
                    Ended::GivenUp => Outcome::GivenUp,
                },
                standing: standing_line(position),
            });
        }
    }

    /// How it came to rest; `why` is what the person at the screen reads.
    pub fn rested(&self, rest: &Rest, position: &Position, why: &str) {
        match rest {
            Rest::Ended(how) => self.ended(*how, position),
            // Somebody else is at it, or nobody was.
            Rest::Lost | Rest::Nothing => {}
            Rest::Approval { .. } | Rest::Refused(_) | Rest::Failed(_) | Rest::Stopped => self.stopped(position, why),
        }
    }

    pub fn stopped(&self, position: &Position, why: &str) {
        // Of what the runner does, the operator's command speaks.
        if let Some(operation) = position.state.open().filter(|_| self.here == Place::Operator) {
            self.say(What::OperationStopped {
                operation: operation.number,
                command: operation.aim.command().to_owned(),
                why: reason(why),
            });
        }
    }

    /// Listens to the engine from here on.
    pub fn herald(&self, position: &Position) -> Herald {
        Herald {
            announcer: self.dispatcher.announcer(),
            here: self.here,
            last: Mutex::new(position.state.operation.clone()),
        }
    }

    /// A few seconds for what waits; then what was not told is said, and kept for the agent.
    pub async fn finish(&self, config: &Config, control: &Arc<dyn BlobStore>, run: &str) {
        self.dispatcher.flush(FLUSH_WITHIN).await;
        let untold: Vec<Untold> = self
            .dispatcher
            .standing()
            .into_iter()
            .flat_map(|standing| {
                let error = standing.error.clone();
                let untold = move |notice| Untold {
                    channel: standing.channel.clone(),
                    error: error.clone(),
                    notice,
                };
                standing.waiting.into_iter().map(|item| item.notice).map(untold)
            })
            .collect();
        if untold.is_empty() {
            return;
        }
        let mut channels: Vec<&str> = untold.iter().map(|untold| untold.channel.as_str()).collect();
        channels.dedup();
        let error = untold.iter().find_map(|untold| untold.error.as_deref());
        let error = error.unwrap_or("no answer yet").to_owned();
        let told = format!(
            "{} messages were not told on {} ({error})",
            untold.len(),
            channels.join(", ")
        );
        let left = Left { v: 1, untold };
        let bytes = Bytes::from(serde_json::to_vec(&left).unwrap_or_default());
        let name = format!("{}{run}.json", left_prefix(config));
        let kept = tokio::time::timeout(KEEP_WITHIN, control.put(&name, bytes, Condition::Always)).await;
        match kept {
            Ok(Ok(_)) => eprintln!("planb: {told}; they are kept in the store, and the agent tells them when it can"),
            Ok(Err(_)) | Err(_) => {
                eprintln!(
                    "planb: {told}, and could not be kept either: tell people yourself (planb history says all of it)"
                );
            }
        }
    }
}

/// Without what the message for people says by itself.
fn reason(why: &str) -> String {
    let lines = why.lines().map(|line| line.strip_prefix("planb: ").unwrap_or(line));
    let own: Vec<&str> = lines.filter(|line| !line.starts_with("nothing is lost")).collect();
    own.join("; ")
}

/// What one command could not tell.
#[derive(Debug, Serialize, Deserialize)]
struct Left {
    v: u32,
    untold: Vec<Untold>,
}

/// One thing that one channel did not take.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Untold {
    pub channel: String,
    pub error: Option<String>,
    pub notice: Notice,
}

fn left_prefix(config: &Config) -> String {
    format!("notify/left-{}/", claim::key(&config.store.prefix))
}

/// Everything that commands left untold. What cannot be read as such is passed over.
pub async fn left(config: &Config, control: &dyn BlobStore) -> Result<Vec<Untold>, StoreError> {
    let mut all = Vec::new();
    for blob in control.list(&left_prefix(config)).await? {
        let bytes = control.read(&blob.name, 0..blob.size_bytes, None).await?;
        if let Ok(left) = serde_json::from_slice::<Left>(&bytes) {
            all.extend(left.untold);
        }
    }
    Ok(all)
}

/// The agent takes over what commands left untold.
pub async fn adopt(config: &Config, control: &dyn BlobStore, announcer: &Announcer) {
    let taken = async {
        for blob in control.list(&left_prefix(config)).await? {
            let bytes = control.read(&blob.name, 0..blob.size_bytes, Some(&blob.etag)).await?;
            let left = serde_json::from_slice::<Left>(&bytes);
            // Whoever deletes it tells it: of two agents, one.
            control.delete(&blob.name, &blob.etag).await?;
            for untold in left.map(|left| left.untold).unwrap_or_default() {
                announcer.adopt(&untold.channel, untold.notice);
            }
        }
        Ok::<(), StoreError>(())
    };
    if let Err(error) = taken.await {
        tracing::debug!(%error, "what commands left untold was not taken over; trying again with the next look");
    }
}

/// Hears of every entry in the journal.
pub struct Herald {
    announcer: Announcer,
    here: Place,
    last: Mutex<Option<Operation>>,
}

impl Watch for Herald {
    fn moved(&self, position: &Position) {
        let Some(operation) = &position.state.operation else {
            return;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = position.at.unwrap_or(Timestamp::UNIX_EPOCH);
        let epoch = position.state.standing.epoch();
        for what in news(last.as_ref(), operation, self.here, epoch) {
            self.announcer.raise(Notice::new(what, now));
        }
        *last = Some(operation.clone());
    }
}

/// Both hear of it.
pub struct Both(pub Arc<screen::Screen>, pub Herald);

impl Watch for Both {
    fn moved(&self, position: &Position) {
        self.0.moved(position);
        self.1.moved(position);
    }
}

/// What there is to tell that the other place does not tell: its own steps, and the commit point that one of them passed.
fn news(before: Option<&Operation>, after: &Operation, here: Place, epoch: u64) -> Vec<What> {
    let before = before.filter(|before| before.number == after.number);
    let was = |step: &str| before.map_or(&Progress::Waiting, |before| before.progress(step));
    let mut told = Vec::new();
    let mut moved_at = Place::Operator;
    for step in &after.plan.steps {
        let (was, is) = (was(&step.name), after.progress(&step.name));
        if was == is {
            continue;
        }
        moved_at = step.at;
        if step.at != here {
            continue;
        }
        let (operation, step) = (after.number, step.name.clone());
        match is {
            Progress::Running { interrupted: false, .. } => told.push(What::StepBegan { operation, step }),
            Progress::Done { .. } | Progress::TakenBack => told.push(What::StepEnded {
                operation,
                step,
                note: match is {
                    Progress::Done { .. } => screen::told(is),
                    _ => "taken back".to_owned(),
                },
            }),
            Progress::Failed { error, .. } => told.push(What::StepFailed {
                operation,
                step,
                error: error.clone(),
            }),
            Progress::Waiting | Progress::Running { .. } | Progress::TakingBack { .. } => {}
        }
    }
    let was_committed = before.is_some_and(|before| before.committed_at.is_some());
    if after.committed_at.is_some() && !was_committed && moved_at == here {
        told.push(What::CommitPoint {
            operation: after.number,
            command: after.aim.command().to_owned(),
            epoch,
        });
    }
    told
}
