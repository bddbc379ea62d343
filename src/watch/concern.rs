//! Which watcher tells people of what they found together, so that each thing is told by one; and what there is to tell besides the
//! verdict: that nobody can reach one, or that the control plane is away. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::quorum::{Ballot, Tally};
use super::verdict::Health;

/// A watcher that wrote nothing for so long has left what it told to the next one. As long as the first reminder takes, or it would
/// be told twice whenever somebody is cut off for a moment.
const HANDED_OVER: SignedDuration = SignedDuration::from_mins(15);
/// Shorter than this, it is a verdict on its way, or a restart.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Written by compare-and-swap, as a ruling is: of several watchers who see it one tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concerns {
    pub v: u32,
    /// The run that wrote it.
    pub run: String,
    /// There was no verdict for a while.
    pub blind: Option<Concern>,
    /// Users are served, and what operators go through is not.
    pub control: Option<Concern>,
    /// When one of them began or ended last: others may see it a moment later, and it is not begun again for that.
    #[serde(default)]
    pub changed_at: Option<Timestamp>,
    /// What is over, and the watcher that had told it was not there to say so: this one has.
    #[serde(default)]
    pub closed: Vec<(Thing, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Thing {
    Down,
    Blind,
    Control,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concern {
    pub since: Timestamp,
    /// The watcher that wrote it down, and tells it.
    pub by: String,
    /// What the watchers saw, a line each.
    pub evidence: Vec<String>,
}

impl Concerns {
    pub fn any(&self) -> bool {
        self.blind.is_some() || self.control.is_some()
    }

    /// Who said that it is over, for whoever was not there.
    pub fn closed_of(&self, what: Thing) -> Option<&str> {
        let mut closed = self.closed.iter();
        closed.find(|(of, _)| *of == what).map(|(_, by)| by.as_str())
    }
}

/// For how long one watcher has seen them without a break. None: not now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lasted {
    pub blind: Option<Duration>,
    pub control: Option<Duration>,
}

pub fn is_blind(tally: &Tally) -> bool {
    tally.verdict == Health::Unknown
}

pub fn is_control_down(tally: &Tally) -> bool {
    tally.verdict == Health::Healthy && tally.control == Some(Health::Unhealthy)
}

/// What is to be written now, if anything changes.
pub fn next(
    current: &Concerns,
    tally: &Tally,
    lasted: Lasted,
    now: Timestamp,
    by: &str,
    run: &str,
) -> Option<Concerns> {
    let patience = SignedDuration::try_from(PATIENCE).unwrap_or(SignedDuration::MAX);
    let age = current.changed_at.map(|at| now.duration_since(at));
    // From the future: the store's clock was set back.
    let is_fresh = age.is_some_and(|age| age >= SignedDuration::ZERO && age < patience);
    let one = |current: &Option<Concern>, is_so: bool, lasted: Option<Duration>| match (is_so, current) {
        (false, _) => None,
        (true, Some(concern)) => Some(concern.clone()),
        (true, None) => lasted
            .filter(|lasted| *lasted >= PATIENCE && !is_fresh)
            .map(|_| Concern {
                since: now,
                by: by.to_owned(),
                evidence: tally.lines(now),
            }),
    };
    let mut next = Concerns {
        v: 1,
        run: run.to_owned(),
        blind: one(&current.blind, is_blind(tally), lasted.blind),
        // Whoever has no verdict does not know that users are served: what was told stays told.
        control: match is_blind(tally) {
            true => current.control.clone(),
            false => one(&current.control, is_control_down(tally), lasted.control),
        },
        changed_at: Some(now),
        closed: Vec::new(),
    };
    for (what, before, after) in [
        (Thing::Blind, &current.blind, &next.blind),
        (Thing::Control, &current.control, &next.control),
    ] {
        let closed = match (before, after) {
            (Some(before), None) => is_away(&before.by, tally).then(|| by.to_owned()),
            (None, None) => current.closed_of(what).map(str::to_owned),
            (_, Some(_)) => None,
        };
        next.closed.extend(closed.map(|closer| (what, closer)));
    }
    let is_news = (&next.blind, &next.control) != (&current.blind, &current.control);
    is_news.then_some(next)
}

/// Whether it wrote lately enough to be taken for one that still runs.
fn is_around(ballot: &Ballot, now: Timestamp) -> bool {
    match ballot {
        Ballot::Vote { .. } | Ballot::Future(_) => true,
        Ballot::Stale(at) => now.duration_since(*at) < HANDED_OVER,
        Ballot::Never | Ballot::Unreadable(_) => false,
    }
}

/// Whether `me` tells people of what `by` wrote down (or, without, of what nobody in particular did): it does so itself as long as it is
/// around, restarted or not; then the first of the others.
pub fn speaks(me: &str, by: Option<&str>, tally: &Tally, now: Timestamp) -> bool {
    let around = |wanted: Option<&str>| {
        let mut ballots = tally.ballots.iter();
        let found = ballots.find(|(name, ballot)| wanted.is_none_or(|wanted| wanted == name) && is_around(ballot, now));
        found.map(|(name, _)| name.as_str())
    };
    by.and_then(|by| around(Some(by))).or_else(|| around(None)) == Some(me)
}

/// Whether it has no voice at this moment.
pub fn is_away(watcher: &str, tally: &Tally) -> bool {
    let is_there = |(name, ballot): &(String, Ballot)| {
        name == watcher && matches!(ballot, Ballot::Vote { .. } | Ballot::Future(_))
    };
    !tally.ballots.iter().any(is_there)
}

/// Whether anybody among the watchers tells people.
pub fn somebody_speaks(tally: &Tally, now: Timestamp) -> bool {
    tally.ballots.iter().any(|(_, ballot)| is_around(ballot, now))
}

#[cfg(test)]
#[path = "concern_tests.rs"]
mod tests;
