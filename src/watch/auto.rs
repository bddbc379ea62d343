//! Whether a failover begins without a person: from what the watchers find, the policy, the journal and what would be lost. Pure.
//!
//! Whatever is doubtful is told to people instead; and once it was begun, it is not begun again until a person says so.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::quorum::Tally;
use super::verdict::{Health, Ruling};
use crate::recovery::plan::Site;
use crate::recovery::rules::{Refusal, Rule};
use crate::recovery::state::State;

/// With fewer, one that is cut off is half of all.
const FEWEST: usize = 3;

/// What a person reads where it was over before anything was committed.
pub const RECOVERED: &str = "the primary is healthy again and nothing is committed: planb failover --abandon takes back what was begun, a \
     fence included, --resume goes on";

/// What the configuration allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// So long the primary must be down without a break.
    pub grace: Duration,
    pub max_loss: Duration,
}

/// That it was begun. Written before anything is done, by compare-and-swap: of several watchers one goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shot {
    pub v: u32,
    /// Counts them, from 1.
    pub number: u64,
    pub at: Timestamp,
    /// The watcher, and its run.
    pub by: String,
    pub run: String,
    /// Operations that the journal held before.
    pub after: u64,
    /// What the watchers saw.
    pub evidence: Vec<String>,
    /// How it came to rest; none while it is in hand.
    pub rested: Option<Rested>,
    /// None: nothing is begun again.
    pub acknowledged: Option<Acknowledged>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rested {
    pub at: Timestamp,
    pub how: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    pub at: Timestamp,
    pub by: String,
}

impl Shot {
    /// Begun, and neither at rest nor acknowledged.
    pub fn is_in_hand(&self) -> bool {
        self.rested.is_none() && self.acknowledged.is_none()
    }

    pub fn is_spent(&self) -> bool {
        self.acknowledged.is_none()
    }
}

/// What is seen at the moment.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    pub tally: &'a Tally,
    pub ruling: Option<&'a Ruling>,
    /// How long the tally has said unhealthy without a break, by this watcher's monotonic clock.
    pub down_for: Duration,
    pub shot: Option<&'a Shot>,
}

/// What is looked up once something may have to be done.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub state: &'a State,
    /// What would be lost; none where there is no backup to restore.
    pub loss: Option<Duration>,
    /// The rules that a person would be refused by.
    pub refusals: &'a [Refusal],
    /// Whoever else than a watcher wrote to the operation that was begun.
    pub person: Option<&'a str>,
}

/// Why it is left to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Stays the same while the reason does.
    pub name: String,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Nothing,
    /// It would act, and may not.
    Refrain(Vec<Reason>),
    Begin,
    /// What a watcher that vanished began.
    GoOn,
    /// It is in nobody's hand any more: written down so.
    Settle(String),
}

/// Whether facts are worth looking up.
pub fn is_due(sight: &Sight<'_>, policy: &Policy) -> bool {
    sight.shot.is_some_and(Shot::is_in_hand) || is_down(sight, policy)
}

fn is_down(sight: &Sight<'_>, policy: &Policy) -> bool {
    let is_ruled = sight.ruling.is_some_and(|ruling| ruling.verdict == Health::Unhealthy);
    is_ruled && sight.tally.verdict == Health::Unhealthy && sight.down_for >= policy.grace
}

pub fn decide(sight: &Sight<'_>, facts: &Facts<'_>, policy: &Policy) -> Decision {
    let state = facts.state;
    let in_hand = sight.shot.filter(|shot| shot.is_in_hand());
    if let Some(shot) = in_hand
        && state.operations > shot.after
    {
        return match (state.open(), facts.person) {
            (Some(open), None) if open.number == shot.after + 1 => {
                // Before the commit point the primary is the one to protect; what stands already is a person's to take back.
                if sight.tally.verdict == Health::Healthy && open.committed_at.is_none() {
                    Decision::Settle(RECOVERED.to_owned())
                } else {
                    Decision::GoOn
                }
            }
            (Some(_), Some(person)) => Decision::Settle(format!("{person} took it over")),
            (Some(_), None) => Decision::Settle("another operation is open".to_owned()),
            (None, _) => Decision::Settle("it has ended; planb history tells how".to_owned()),
        };
    }
    if !is_down(sight, policy) {
        return match in_hand {
            // Whoever held it vanished before it began anything.
            Some(_) if sight.tally.verdict == Health::Healthy => {
                Decision::Settle("the primary was healthy again before anything was begun".to_owned())
            }
            _ => Decision::Nothing,
        };
    }
    // The service is elsewhere already, on its way there, or a person is at it.
    if state.standing.serving != Some(Site::Primary) || state.open().is_some() {
        return Decision::Nothing;
    }
    let reasons = against(sight, facts, policy);
    if reasons.is_empty() {
        Decision::Begin
    } else {
        Decision::Refrain(reasons)
    }
}

fn against(sight: &Sight<'_>, facts: &Facts<'_>, policy: &Policy) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut add = |name: &str, text: String| {
        reasons.push(Reason {
            name: name.to_owned(),
            text,
        });
    };
    if let Some(shot) = sight.shot.filter(|shot| !shot.is_in_hand() && shot.is_spent()) {
        add(
            "acknowledge",
            format!(
                "it has acted once, {}, and nobody has acknowledged it: planb watch --acknowledge",
                shot.at
            ),
        );
    }
    if sight.tally.ballots.len() < FEWEST {
        add("watchers", "there are fewer than three watchers".to_owned());
    }
    let answers = sight.tally.database_answers();
    if !answers.is_empty() {
        add(
            Rule::PrimaryHealthy.name(),
            format!("the primary's database still answers ({})", answers.join("; ")),
        );
    }
    let unasked = sight.tally.database_unasked();
    if !unasked.is_empty() {
        add(
            "database-unasked",
            format!(
                "whether the primary's database is down could not be asked ({})",
                unasked.join("; ")
            ),
        );
    }
    match facts.loss {
        Some(loss) if loss > policy.max_loss => add(
            "max-loss",
            format!(
                "{} s would be lost, more than [watch.auto] max_loss allows",
                loss.as_secs()
            ),
        ),
        // That there is no backup is among the rules.
        Some(_) | None => {}
    }
    for refusal in facts.refusals {
        let is_told = refusal.rule == Rule::PrimaryHealthy && !answers.is_empty();
        if !is_told {
            add(refusal.rule.name(), refusal.why.clone());
        }
    }
    reasons
}

#[cfg(test)]
#[path = "auto_tests.rs"]
mod tests;
