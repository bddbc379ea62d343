//! What the watchers find together: most of the *configured* ones must have written lately, and say the same. Pure.
//!
//! For any observations, two tallies of the same watchers at the same instant cannot find one healthy and one unhealthy,
//! and whoever is missing can turn a verdict into `unknown` only, never into another one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::verdict::{Health, Plane, Seen, of_plane};

/// An observation may be from so far in the future: parts of a store need not agree to the second.
const AHEAD: SignedDuration = SignedDuration::from_secs(5);
/// What a login proves.
const DATABASE: &str = "mysql";

/// What one watcher saw, as it wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    pub v: u32,
    pub watcher: String,
    /// Random for each process.
    pub run: String,
    /// Counts what the process wrote, from 1.
    pub sequence: u64,
    /// By the store's clock, asked just before.
    pub at: Timestamp,
    pub probes: Vec<Seen>,
}

/// What was found under a watcher's name.
pub type Found = Result<Option<Observation>, String>;

/// What became of a watcher's voice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ballot {
    Vote {
        health: Health,
        control: Option<Health>,
        observation: Observation,
    },
    /// It never wrote anything.
    Never,
    /// It was written too long ago.
    Stale(Timestamp),
    /// It says that it is from the future.
    Future(Timestamp),
    /// Nobody can tell what it says.
    Unreadable(String),
}

/// All voices, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tally {
    /// In the configured order.
    pub ballots: Vec<(String, Ballot)>,
    /// Of the data plane.
    pub verdict: Health,
    /// Of the control plane, by the majority of those that look at it. It decides nothing.
    pub control: Option<Health>,
}

/// Counts. `configured`: every watcher once, whether it is up or not.
pub fn tally(
    configured: &[String],
    mut found: impl FnMut(&str) -> Found,
    now: Timestamp,
    stale_after: Duration,
) -> Tally {
    let ballots: Vec<(String, Ballot)> = configured
        .iter()
        .map(|name| (name.clone(), ballot(name, found(name), now, stale_after)))
        .collect();
    let votes = ballots.iter().filter_map(|(_, ballot)| match ballot {
        Ballot::Vote { health, .. } => Some(*health),
        _ => None,
    });
    let verdict = most(votes, configured.len());
    let controls: Vec<Health> = ballots
        .iter()
        .filter_map(|(_, ballot)| match ballot {
            Ballot::Vote { control, .. } => *control,
            _ => None,
        })
        .collect();
    let control = (!controls.is_empty()).then(|| most(controls.iter().copied(), controls.len()));
    Tally {
        ballots,
        verdict,
        control,
    }
}

fn ballot(name: &str, found: Found, now: Timestamp, stale_after: Duration) -> Ballot {
    let observation = match found {
        Ok(Some(observation)) => observation,
        Ok(None) => return Ballot::Never,
        Err(why) => return Ballot::Unreadable(why),
    };
    if observation.watcher != name {
        return Ballot::Unreadable(format!("it was written by {}", observation.watcher));
    }
    if observation.v != 1 {
        return Ballot::Unreadable(format!("it is of version {}: use a newer planb here", observation.v));
    }
    let age = now.duration_since(observation.at);
    if age < -AHEAD {
        return Ballot::Future(observation.at);
    }
    if age > SignedDuration::try_from(stale_after).unwrap_or(SignedDuration::MAX) {
        return Ballot::Stale(observation.at);
    }
    Ballot::Vote {
        health: of_plane(&observation.probes, Plane::Data).unwrap_or_default(),
        control: of_plane(&observation.probes, Plane::Control),
        observation,
    }
}

/// What more than half of `of` say.
fn most(votes: impl Iterator<Item = Health> + Clone, of: usize) -> Health {
    let is_most = |wanted| votes.clone().filter(|health| *health == wanted).count() * 2 > of;
    [Health::Unhealthy, Health::Healthy]
        .into_iter()
        .find(|wanted| is_most(*wanted))
        .unwrap_or_default()
}

impl Tally {
    pub fn votes(&self, wanted: Health) -> usize {
        let is_such =
            |ballot: &&(String, Ballot)| matches!(&ballot.1, Ballot::Vote { health, .. } if *health == wanted);
        self.ballots.iter().filter(is_such).count()
    }

    /// Watchers that can still log in to the database, each with what it said.
    pub fn database_answers(&self) -> Vec<String> {
        let mut answers = Vec::new();
        for (name, ballot) in &self.ballots {
            let Ballot::Vote { observation, .. } = ballot else {
                continue;
            };
            let healthy = observation
                .probes
                .iter()
                .filter(|seen| seen.plane == Plane::Data && seen.kind == DATABASE && seen.health == Health::Healthy);
            answers.extend(healthy.map(|seen| format!("{name}: {} {}", seen.probe, seen.said)));
        }
        answers
    }

    /// Watchers that watch the database and cannot ask it (a wrong password, a canary that is gone): it may serve all the same.
    pub fn database_unasked(&self) -> Vec<String> {
        let mut unasked = Vec::new();
        for (name, ballot) in &self.ballots {
            let Ballot::Vote { observation, .. } = ballot else {
                continue;
            };
            let mute = observation
                .probes
                .iter()
                .filter(|seen| seen.plane == Plane::Data && seen.kind == DATABASE && seen.is_mute);
            unasked.extend(mute.map(|seen| format!("{name}: {} {}", seen.probe, seen.said)));
        }
        unasked
    }

    /// A line for each watcher.
    pub fn lines(&self, now: Timestamp) -> Vec<String> {
        let line = |(name, ballot): &(String, Ballot)| format!("{name}: {}", ballot.told(now));
        self.ballots.iter().map(line).collect()
    }

    /// Verdict and count.
    pub fn summary(&self) -> String {
        let (all, verdict) = (self.ballots.len(), self.verdict);
        match verdict {
            Health::Unknown => format!(
                "unknown: {} of {all} watchers call it unhealthy, {} healthy, and neither is more than half",
                self.votes(Health::Unhealthy),
                self.votes(Health::Healthy)
            ),
            _ => format!("{verdict}: {} of {all} watchers say so", self.votes(verdict)),
        }
    }
}

impl Ballot {
    pub fn told(&self, now: Timestamp) -> String {
        let ago = |at: Timestamp| now.duration_since(at).as_secs();
        match self {
            Self::Vote {
                health, observation, ..
            } => {
                let mut parts: Vec<String> = Vec::new();
                for seen in &observation.probes {
                    let plane = if seen.plane == Plane::Control {
                        " (control plane)"
                    } else {
                        ""
                    };
                    let word = if seen.is_mute { "cannot ask" } else { seen.health.name() };
                    parts.push(format!("{} {word}{plane}: {}", seen.probe, seen.said));
                }
                format!("{health}; {}", parts.join("; "))
            }
            Self::Never => "no vote: it never wrote anything here".to_owned(),
            Self::Stale(at) => format!("no vote: it last wrote {} s ago", ago(*at)),
            Self::Future(at) => format!("no vote: what it wrote is {} s from the future", -ago(*at)),
            Self::Unreadable(why) => format!("no vote: {why}"),
        }
    }
}

#[cfg(test)]
#[path = "quorum_tests.rs"]
mod tests;
