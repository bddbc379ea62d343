//! What to do next, from where an operation stands. Pure: the engine asks, does, writes down, and asks again.

use jiff::Timestamp;

use super::event::Ended;
use super::operation::Operation;
use super::plan::{Aim, OnFailure, Place, Step};
use super::rules::Rule;
use super::state::{Progress, State};

/// What a process at one place does now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing is open.
    Nothing,
    /// More people must approve.
    Approval { have: u32, need: u32 },
    /// Start these, side by side.
    Start(Vec<String>),
    /// Take this one back.
    TakeBack(String),
    /// Steps are at work, here or elsewhere, or another process' time has to pass first.
    Wait(Vec<Waiting>),
    /// Nothing can be done before somebody answers for these.
    Refused(Vec<(String, Rule)>),
    /// These have failed, and nothing else can be done without them.
    Failed(Vec<String>),
    /// Write down that it ended so.
    End(Ended),
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// At work in this process.
    Here(String),
    /// To be done, or at work, at another place.
    Elsewhere(String, Place),
    /// At work in a process of this place that is gone: until then its effect may still happen.
    Until(String, Timestamp),
}

/// `run` is the asking process, which holds the lease of its place.
pub fn next(state: &State, here: Place, run: &str, now: Timestamp) -> Next {
    let Some(operation) = state.open() else {
        return Next::Nothing;
    };
    if operation.abandoning.is_some() {
        return back(operation, here, run, now);
    }
    if !operation.is_approved() {
        return Next::Approval {
            have: u32::try_from(operation.approved.len()).unwrap_or(u32::MAX),
            need: operation.approvers,
        };
    }
    let mut look = Look::default();
    for step in &operation.plan.steps {
        look.at(state, operation, step, here, run, now);
    }
    look.outcome(operation)
}

#[derive(Debug, Default)]
struct Look {
    start: Vec<String>,
    wait: Vec<Waiting>,
    refused: Vec<(String, Rule)>,
    failed: Vec<String>,
    /// A failure that lets nothing new begin.
    stops: bool,
}

impl Look {
    fn at(&mut self, state: &State, operation: &Operation, step: &Step, here: Place, run: &str, now: Timestamp) {
        if operation.is_done(&step.name) {
            return;
        }
        match operation.progress(&step.name) {
            Progress::Running {
                run: of,
                interrupted: false,
                bound,
                ..
            } => {
                if of == run {
                    self.wait.push(Waiting::Here(step.name.clone()));
                    return;
                }
                if step.at != here {
                    self.wait.push(Waiting::Elsewhere(step.name.clone(), step.at));
                    return;
                }
                // Of this place, whose lease is ours now: that process is gone.
                if !step.guards_itself && *bound > now && !operation.has_accepted(Rule::StillAtWork) {
                    self.wait.push(Waiting::Until(step.name.clone(), *bound));
                    return;
                }
            }
            // Whoever it was: only a person who goes on has it tried again.
            Progress::Failed { tries, .. } if *tries > step.retries => {
                self.failed.push(step.name.clone());
                self.stops |= step.on_failure == OnFailure::Stop;
                return;
            }
            _ => {}
        }
        if !step.needs.iter().all(|need| operation.is_done(need)) {
            return;
        }
        let guards = operation.guards(&state.standing, step);
        if !guards.is_empty() {
            self.refused
                .extend(guards.into_iter().map(|rule| (step.name.clone(), rule)));
        } else if step.at == here {
            self.start.push(step.name.clone());
        } else {
            self.wait.push(Waiting::Elsewhere(step.name.clone(), step.at));
        }
    }

    fn outcome(self, operation: &Operation) -> Next {
        if !self.start.is_empty() && !self.stops {
            return Next::Start(self.start);
        }
        // What is at work elsewhere is waited for; what merely could begin there is not, once something failed.
        let is_at_work = |waiting: &Waiting| match waiting {
            Waiting::Here(_) => true,
            Waiting::Until(..) => !self.stops,
            Waiting::Elsewhere(step, _) => {
                !self.stops || matches!(operation.progress(step), Progress::Running { interrupted: false, .. })
            }
        };
        let wait: Vec<Waiting> = self.wait.into_iter().filter(is_at_work).collect();
        if !wait.is_empty() {
            return Next::Wait(wait);
        }
        if !self.failed.is_empty() {
            return Next::Failed(self.failed);
        }
        if !self.refused.is_empty() {
            return Next::Refused(self.refused);
        }
        Next::End(Ended::Done)
    }
}

/// Abandoning: one after the other, what came last first.
fn back(operation: &Operation, here: Place, run: &str, now: Timestamp) -> Next {
    let mut wait = Vec::new();
    let mut is_left = false;
    let mut failed = Vec::new();
    let is_drill = matches!(operation.aim, Aim::Drill { .. });
    for step in operation.plan.steps.iter().rev() {
        let name = &step.name;
        if !operation.is_to_take_back(name) {
            // In a rehearsal, what another place does goes with what is taken back here: a machine that is gone keeps nothing standing.
            if is_drill && step.at != here {
                continue;
            }
            // What is at work must come to rest even where nothing takes it back.
            if let Progress::Running {
                run: of,
                bound,
                interrupted: false,
                ..
            }
            | Progress::TakingBack {
                run: of,
                bound,
                interrupted: false,
            } = operation.progress(name)
                && (of == run || *bound > now)
            {
                wait.push(if of == run {
                    Waiting::Here(name.clone())
                } else {
                    Waiting::Until(name.clone(), *bound)
                });
            }
            continue;
        }
        is_left = true;
        if operation
            .plan
            .after(name)
            .iter()
            .any(|later| operation.is_to_take_back(later))
        {
            continue;
        }
        match operation.progress(name) {
            Progress::TakingBack {
                run: of,
                interrupted: false,
                ..
            }
            | Progress::Running {
                run: of,
                interrupted: false,
                ..
            } if of == run => {
                wait.push(Waiting::Here(name.clone()));
            }
            Progress::TakingBack {
                bound,
                interrupted: false,
                ..
            }
            | Progress::Running {
                bound,
                interrupted: false,
                ..
            } if step.at != here
                || (!step.guards_itself && *bound > now && !operation.has_accepted(Rule::StillAtWork)) =>
            {
                wait.push(if step.at == here {
                    Waiting::Until(name.clone(), *bound)
                } else {
                    Waiting::Elsewhere(name.clone(), step.at)
                });
            }
            _ if step.at == here => {
                if operation.undo_failed(name, run) {
                    failed.push(name.clone());
                } else {
                    return Next::TakeBack(name.clone());
                }
            }
            _ => wait.push(Waiting::Elsewhere(name.clone(), step.at)),
        }
    }
    if !wait.is_empty() {
        return Next::Wait(wait);
    }
    if !failed.is_empty() {
        return Next::Failed(failed);
    }
    if is_left {
        // Only circles could bring us here, and a plan has none.
        return Next::Wait(Vec::new());
    }
    Next::End(Ended::Abandoned)
}
