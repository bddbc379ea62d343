//! What came of an operation, for a person and for a script.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Desk;
use crate::cli::failure::Failure;
use crate::cli::present;
use crate::recovery::engine::Rest;
use crate::recovery::event::{Ended, Proof};
use crate::recovery::journal::Position;
use crate::recovery::operation::Operation;
use crate::recovery::plan::{Aim, Place, Site};
use crate::recovery::rules::Rule;
use crate::recovery::state::Progress;

impl Desk {
    /// Gives the lease back, tells people how it went, and then whoever is at the screen.
    pub async fn finish(&mut self, done: Result<(Rest, Position), Failure>) -> Result<(), Failure> {
        let reported = match &done {
            Ok((rest, position)) => {
                let reported = self.report(rest, position);
                let why = reported.as_ref().err().map(Failure::message).unwrap_or_default();
                self.teller.rested(rest, position, why);
                reported
            }
            Err(Failure::StoppedPartWay(why)) => {
                if let Ok(position) = self.journal.read().await {
                    self.teller.stopped(&position, why);
                }
                Ok(())
            }
            Err(_) => Ok(()),
        };
        self.give_lease_back().await;
        self.teller
            .finish(&self.config, &self.stores.control, &self.by.run)
            .await;
        done.and(reported)
    }

    /// What came of it, for a person and for a script.
    fn report(&self, rest: &Rest, position: &Position) -> Result<(), Failure> {
        let aim = position.state.operation.as_ref().map(|operation| operation.aim);
        let command = aim.map(Aim::command).unwrap_or_default();
        let resume = format!("{command} --resume");
        if self.json {
            println!("{}", result_json(rest, position));
        }
        let part_way = |message: String| {
            let message = format!("{message}\nplanb: nothing is lost; when that is settled: {resume}");
            Err(if self.json {
                Failure::Printed { exit: 4, message }
            } else {
                Failure::StoppedPartWay(message)
            })
        };
        match rest {
            Rest::Ended(Ended::Done) => {
                if !self.json {
                    println!("done: {}", standing_line(position));
                }
                Ok(())
            }
            Rest::Ended(Ended::Abandoned) => {
                if !self.json {
                    println!("abandoned, and taken back: {}", standing_line(position));
                    let left = position.state.operation.as_ref().map(stays).unwrap_or_default();
                    if !left.is_empty() {
                        println!(
                            "left as they are, and done over by the next failover: {}",
                            left.join(", ")
                        );
                    }
                }
                Ok(())
            }
            Rest::Ended(Ended::GivenUp) => {
                if !self.json {
                    println!("given up: {}", standing_line(position));
                }
                Ok(())
            }
            Rest::Nothing => Ok(()),
            Rest::Approval { have, need } => part_way(format!(
                "{have} of {need} people have agreed; another one types: {command} --approve --as NAME"
            )),
            Rest::Refused(rules) => {
                let lines: Vec<String> = rules
                    .iter()
                    .map(|(step, rule)| explained(step, *rule, position))
                    .collect();
                part_way(lines.join("\nplanb: "))
            }
            Rest::Failed(steps) => {
                let failed = steps.iter().map(|(step, error)| format!("step {step}: {error}"));
                // Told at once, rather than one after the other with each --resume.
                let refused = refused(position);
                let refused = refused.iter().map(|(step, rule)| explained(step, *rule, position));
                let lines: Vec<String> = failed.chain(refused).collect();
                part_way(lines.join("\nplanb: "))
            }
            Rest::Stopped => part_way("stopped".to_owned()),
            Rest::Lost => {
                part_way("the lease was lost: somebody else may be at it; nothing more is done here".to_owned())
            }
        }
    }
}

fn refused(position: &Position) -> Vec<(String, Rule)> {
    let open = position.state.open();
    open.map(|operation| operation.refused(&position.state.standing))
        .unwrap_or_default()
}

/// Why fences could not be proven, as their steps say.
fn unproven(position: &Position) -> Vec<String> {
    let open = position.state.open();
    let steps = open.iter().flat_map(|operation| &operation.steps);
    steps
        .filter_map(|(name, progress)| match progress {
            Progress::Done { outcome, .. } if outcome.proof == Some(Proof::Unprovable) => {
                Some(format!("{name}: {}", outcome.note))
            }
            _ => None,
        })
        .collect()
}

fn explained(step: &str, rule: Rule, position: &Position) -> String {
    let why = match rule {
        Rule::Unfenced => match unproven(position).as_slice() {
            [] => "nobody could prove that the other site takes no more writes".to_owned(),
            why => format!(
                "nobody could prove that the other site takes no more writes ({}); once that is mended, --resume tries again",
                why.join("; ")
            ),
        },
        Rule::OldPrimaryUnfenced => {
            "nobody could prove that the old primary takes no more writes, and what it takes from now on would be \
                                     found by nobody; agents go on trying to fence it"
                .to_owned()
        }
        Rule::Unverified => "what was restored was not compared with its backup".to_owned(),
        Rule::NeverServed => "the standby never served: it has nothing that the primary lacks".to_owned(),
        Rule::Serving => "the site serves".to_owned(),
        Rule::NotServing => "the site takes no writes".to_owned(),
        _ => "a safety rule stands against it".to_owned(),
    };
    let way = if rule.can_be_waived() {
        format!("; to answer for it: --resume --accept {}=REASON", rule.name())
    } else {
        String::new()
    };
    format!("step {step} is refused by the rule {}: {why}{way}", rule.name())
}

/// Steps here whose process is gone, and whose effect is waited for: whoever resumes would sit before a silent screen.
pub fn still_at_work(position: &Position, here: Place, run: &str, now: Timestamp) -> Vec<String> {
    let Some(operation) = position.state.open() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for step in operation.plan.steps.iter().filter(|step| step.at == here) {
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
        } = operation.progress(&step.name)
            && of != run
            && *bound > now
            && !step.guards_itself
            && !operation.has_accepted(Rule::StillAtWork)
        {
            lines.push(format!(
                "{}: step {} was begun by a process that is gone; what it began may still happen, so it is waited for until {}. Where \
                 you know that nothing of it runs any more: {} --resume --accept {}=REASON",
                Rule::StillAtWork.name(),
                step.name,
                present::time(*bound),
                operation.aim.command(),
                Rule::StillAtWork.name(),
            ));
        }
    }
    lines
}

/// What nobody takes back, on a server or cluster that stays: a restored backup, accounts that are locked, and what was applied.
fn stays(operation: &Operation) -> Vec<&str> {
    let is_gone = |name: &&str| *operation.progress(name) == Progress::TakenBack;
    let steps = operation.plan.steps.iter().filter(|step| {
        matches!(step.kind.as_str(), "restore" | "accounts" | "manifests")
            && matches!(operation.progress(&step.name), Progress::Done { .. })
            && !operation.plan.before(&step.name).iter().any(is_gone)
    });
    steps.map(|step| step.name.as_str()).collect()
}

/// Who serves, in one line.
pub fn standing_line(position: &Position) -> String {
    let standing = &position.state.standing;
    let serving = standing
        .serving
        .map_or_else(|| "nobody serves".to_owned(), |site| format!("the {site} serves"));
    let pending: Vec<Site> = standing.pending_fences().collect();
    let pending: String = pending
        .into_iter()
        .map(|site| match position.state.open() {
            None if standing.serving == Some(site) => {
                format!("; a fence may still stand at the {site}: planb failback lifts it")
            }
            _ => format!("; the fence of the {site} is not proven yet"),
        })
        .collect();
    format!(
        "{serving}, stage {}, epoch {}{pending}",
        standing.stage,
        standing.epoch()
    )
}

pub fn standing_json(position: &Position) -> Value {
    let standing = &position.state.standing;
    json!({
        "serving": standing.serving.map(Site::name),
        "stage": standing.stage,
        "epoch": standing.epoch(),
        "standby_served": standing.standby_served,
        "pending_fences": standing.pending_fences().map(Site::name).collect::<Vec<_>>(),
    })
}

fn result_json(rest: &Rest, position: &Position) -> Value {
    let (result, detail) = match rest {
        Rest::Ended(Ended::Done) => ("done", Value::Null),
        Rest::Ended(Ended::Abandoned) => ("abandoned", Value::Null),
        Rest::Ended(Ended::GivenUp) => ("given-up", Value::Null),
        Rest::Nothing => ("nothing", Value::Null),
        Rest::Approval { have, need } => ("approval", json!({"have": have, "need": need})),
        Rest::Refused(rules) => (
            "refused",
            rules
                .iter()
                .map(|(step, rule)| json!({"step": step, "rule": rule.name()}))
                .collect(),
        ),
        Rest::Failed(steps) => (
            "failed",
            steps
                .iter()
                .map(|(step, error)| json!({"step": step, "error": error}))
                .collect(),
        ),
        Rest::Stopped => ("stopped", Value::Null),
        Rest::Lost => ("lost", Value::Null),
    };
    let operation = position.state.operation.as_ref();
    json!({
        "v": 1,
        "result": result,
        "detail": detail,
        "refused": refused(position).iter().map(|(step, rule)| json!({"step": step, "rule": rule.name()})).collect::<Vec<_>>(),
        "operation": operation.map(|operation| operation.number),
        "standing": standing_json(position),
        "steps": operation.map(crate::cli::screen::steps_json),
    })
}

/// For facts and lines.
pub fn loss(backup: &crate::recovery::event::Chosen, now: jiff::Timestamp) -> String {
    let lost = Duration::try_from(now.duration_since(backup.consistent_at)).unwrap_or_default();
    format!(
        "everything written between {} and now would be lost: {}",
        present::time(backup.consistent_at),
        present::duration(lost)
    )
}
