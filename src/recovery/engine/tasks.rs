//! The tasks of one run, and how their ends become entries.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LINGERS, StepError};
use crate::recovery::event::{Ended, Event, Outcome};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Step};
use crate::recovery::state::Progress;

/// What a task ended with.
pub(super) type Finished = (String, bool, Result<Outcome, StepError>);

/// The tasks of one run.
pub(super) struct Tasks {
    pub(super) set: JoinSet<Finished>,
    pub(super) names: BTreeMap<Id, (String, bool)>,
    pub(super) stop: CancellationToken,
    /// Steps that failed wait until then.
    pub(super) pauses: BTreeMap<String, Instant>,
}

/// Whether a step may begin.
pub(super) enum Announced {
    Written,
    /// Somebody else wrote first: read on.
    Raced,
    /// It does not follow from what is written.
    Refused,
}

pub(super) enum Look {
    Newest,
    Renewed,
    Unknown(StepError),
}

impl Tasks {
    pub(super) fn is_pausing(&self, step: &str) -> bool {
        self.pauses.get(step).is_some_and(|until| *until > Instant::now())
    }

    pub(super) fn ended(&mut self, ended: Result<(Id, Finished), tokio::task::JoinError>) -> Finished {
        match ended {
            Ok((id, finished)) => {
                self.names.remove(&id);
                finished
            }
            Err(error) => {
                let (name, is_back) = self.names.remove(&error.id()).unwrap_or_default();
                let what = "it ended in a way nobody foresaw; look at the log, then resume";
                (name, is_back, Err(StepError::permanent(format!("{what} ({error})"))))
            }
        }
    }
}

pub(super) fn done(name: &str, is_back: bool, outcome: Outcome) -> Event {
    let step = name.to_owned();
    if is_back {
        let note = outcome.note;
        Event::TakenBack { step, note }
    } else {
        Event::Done { step, outcome }
    }
}

/// Until when an effect of the step may still happen after its process is gone.
pub(super) fn bound(now: Timestamp, step: &Step) -> Timestamp {
    let seconds = step.timeout_seconds.saturating_add(LINGERS.as_secs());
    let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    now.saturating_add(seconds).unwrap_or(Timestamp::MAX)
}

pub(super) fn ended(position: &Position) -> Option<Ended> {
    position.state.operation.as_ref()?.ended.map(|(how, _)| how)
}

pub(super) fn is_drill(position: &Position) -> bool {
    let open = position.state.open();
    open.is_some_and(|operation| matches!(operation.aim, Aim::Drill { .. }))
}

pub(super) fn failures(position: &Position, steps: Vec<String>) -> Vec<(String, String)> {
    let error = |step: &String| match position.state.open() {
        Some(operation) => match operation.progress(step) {
            Progress::Failed { error, .. } => format!("{error}{}", operation.way_without(step).unwrap_or_default()),
            _ => String::new(),
        },
        None => String::new(),
    };
    steps.into_iter().map(|step| (step.clone(), error(&step))).collect()
}
