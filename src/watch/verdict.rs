//! From one try after the other to what a watcher says, and from what most watchers say to a verdict that does not flap. Pure.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::concern::is_away;
use super::quorum::Tally;

/// What one try told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Good(String),
    Bad(String),
    /// Nothing about the other side: it could not be asked (no password, no right, no such table).
    Mute(String),
}

impl Outcome {
    pub fn text(&self) -> &str {
        match self {
            Self::Good(text) | Self::Bad(text) | Self::Mute(text) => text,
        }
    }
}

/// What is made of several tries, or of several watchers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Never a reason to do anything.
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

impl Health {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a probe tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Plane {
    /// What users and the application go through.
    Data,
    /// What operators go through. Alone it says nothing about the service.
    Control,
}

/// When tries become a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// So many in a row, all of them within `within`.
    pub failures: u32,
    pub successes: u32,
    pub within: Duration,
    /// Nothing was heard for so long: nothing is known any more.
    pub silence: Duration,
}

/// The tries of one probe, by this machine's monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// When, and whether it was good; oldest first, no more than are needed.
    recent: VecDeque<(Duration, bool)>,
    health: Health,
    heard: Option<Duration>,
    /// What the last try said.
    said: String,
    is_mute: bool,
}

impl History {
    pub fn hear(&mut self, at: Duration, outcome: &Outcome, thresholds: &Thresholds) {
        outcome.text().clone_into(&mut self.said);
        self.is_mute = matches!(outcome, Outcome::Mute(_));
        let is_good = match outcome {
            Outcome::Good(_) => true,
            Outcome::Bad(_) => false,
            Outcome::Mute(_) => return,
        };
        if self.is_silent(at, thresholds) {
            self.recent.clear();
            self.health = Health::Unknown;
        }
        self.heard = Some(at);
        self.recent.push_back((at, is_good));
        while self.recent.len() > thresholds.failures.max(thresholds.successes) as usize {
            self.recent.pop_front();
        }
        for (wanted, count, health) in [
            (false, thresholds.failures, Health::Unhealthy),
            (true, thresholds.successes, Health::Healthy),
        ] {
            let count = count as usize;
            let last = self.recent.iter().rev().take(count);
            let is_met = self.recent.len() >= count
                && last
                    .clone()
                    .all(|(then, is_good)| *is_good == wanted && at.saturating_sub(*then) <= thresholds.within);
            if is_met {
                self.health = health;
            }
        }
    }

    pub fn health(&self, at: Duration, thresholds: &Thresholds) -> Health {
        if self.is_silent(at, thresholds) {
            return Health::Unknown;
        }
        self.health
    }

    /// Whether it cannot ask, rather than not having decided yet.
    pub fn is_mute(&self, at: Duration, thresholds: &Thresholds) -> bool {
        self.is_mute && self.health(at, thresholds) == Health::Unknown
    }

    pub fn said(&self) -> &str {
        &self.said
    }

    fn is_silent(&self, at: Duration, thresholds: &Thresholds) -> bool {
        self.heard
            .is_some_and(|heard| at.saturating_sub(heard) > thresholds.silence)
    }
}

/// What one probe found, as others read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub probe: String,
    /// `http`, `tcp`, `mysql`, `rds`.
    pub kind: String,
    pub plane: Plane,
    pub health: Health,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mute: bool,
    /// The last try's words; no secret.
    pub said: String,
}

/// What a watcher says of a plane. None where it does not look at it.
///
/// One probe that is unhealthy is enough: users need all of them. One that cannot ask says nothing; one that has not decided yet keeps the
/// whole undecided, or a watcher that begins during an outage would call it over.
pub fn of_plane(seen: &[Seen], plane: Plane) -> Option<Health> {
    let mut of_plane = seen
        .iter()
        .filter(|seen| seen.plane == plane && !seen.is_mute)
        .peekable();
    if of_plane.peek().is_none() {
        return seen.iter().any(|seen| seen.plane == plane).then_some(Health::Unknown);
    }
    let healths: Vec<Health> = of_plane.map(|seen| seen.health).collect();
    Some(if healths.contains(&Health::Unhealthy) {
        Health::Unhealthy
    } else if healths.contains(&Health::Unknown) {
        Health::Unknown
    } else {
        Health::Healthy
    })
}

/// What all watchers together hold for true until they change their minds. Written once for each change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    pub v: u32,
    /// Counts changes, from 1.
    pub number: u64,
    /// Healthy or unhealthy.
    pub verdict: Health,
    /// By the store's clock.
    pub since: Timestamp,
    /// Since when the verdict before this one held.
    pub before: Option<Timestamp>,
    /// The watcher that wrote it down, and its run.
    pub by: String,
    pub run: String,
    /// Of what was before: the watcher that told it, if people were told.
    #[serde(default)]
    pub ends: Option<String>,
    /// That watcher was not there to say that it is over: the one that wrote this has.
    #[serde(default)]
    pub is_closed: bool,
    /// What the watchers saw, a line each.
    pub evidence: Vec<String>,
}

impl Ruling {
    /// Whether people should hear of it: an outage, or its end.
    pub fn is_news(&self) -> bool {
        self.verdict == Health::Unhealthy || self.number > 1
    }

    pub fn lasted(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.since)).unwrap_or_default()
    }
}

/// The next ruling, if there is one: an unknown verdict changes nothing, and after a change the next one waits for `cool_down`.
pub fn rule(
    current: Option<&Ruling>,
    tally: &Tally,
    now: Timestamp,
    cool_down: Duration,
    by: &str,
    run: &str,
) -> Option<Ruling> {
    if tally.verdict == Health::Unknown || current.is_some_and(|current| current.verdict == tally.verdict) {
        return None;
    }
    if let Some(current) = current {
        let age = now.duration_since(current.since);
        // From the future: the store's clock was set back, and nobody waits for it to catch up.
        let is_cooling = age >= SignedDuration::ZERO && age < signed(cool_down);
        if is_cooling {
            return None;
        }
    }
    let ends = current
        .filter(|current| current.verdict == Health::Unhealthy)
        .map(|current| current.by.clone());
    Some(Ruling {
        v: 1,
        number: current.map_or(0, |current| current.number) + 1,
        verdict: tally.verdict,
        since: now,
        before: current.map(|current| current.since),
        by: by.to_owned(),
        run: run.to_owned(),
        is_closed: ends.as_ref().is_some_and(|told_by| is_away(told_by, tally)),
        ends,
        evidence: tally.lines(now),
    })
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
