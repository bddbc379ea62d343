//! Tells people what the watchers found together. Each thing is told by one of them, round after round as long as it lasts: so a watcher
//! that was restarted, or follows one that vanished, tells it as well, and whoever told that it began tells that it is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::concern::{Thing, speaks};
use super::verdict::{Health, Ruling};
use super::watcher::{Herald, View};
use crate::notify::Announce;
use crate::notify::notice::{Notice, Verdict, What, keys};

/// Some rounds of everybody.
const SURE_AFTER: Duration = Duration::from_secs(120);

pub struct Crier {
    /// Of this watcher.
    name: String,
    announce: Arc<dyn Announce>,
    /// What it has to tell for one that is gone, and since when.
    following: Mutex<Vec<(Thing, Instant)>>,
}

impl Crier {
    pub fn new(name: String, announce: Arc<dyn Announce>) -> Self {
        Self {
            name,
            announce,
            following: Mutex::default(),
        }
    }
}

impl Herald for Crier {
    fn ruled(&self, ruling: &Ruling) {
        let saw = ruling.evidence.join(" | ");
        match ruling.verdict {
            Health::Unhealthy => tracing::error!(number = ruling.number, saw, "THE PRIMARY IS DOWN, most watchers say"),
            Health::Healthy | Health::Unknown => {
                tracing::info!(
                    number = ruling.number,
                    saw,
                    "the primary is healthy again, most watchers say"
                );
            }
        }
    }

    fn looked(&self, view: &View) {
        if let Some(ruling) = &view.ruling {
            let is_outage = ruling.verdict == Health::Unhealthy;
            let found = is_outage.then_some((ruling.since, ruling.by.as_str(), ruling.evidence.as_slice()));
            let closer = Some(ruling.by.as_str()).filter(|_| ruling.is_closed);
            self.one(view, Thing::Down, found, closer);
            if let (true, Some(_), Some(since)) = (view.wrote.ruling, closer, ruling.before) {
                self.announce.close(notice(Thing::Down, since, &[]), since);
            }
            if !is_outage {
                self.announce.resolve(keys::AUTO, view.now);
            }
        }
        // Not read yet: nobody knows.
        let Some(concerns) = &view.concerns else { return };
        for (what, concern) in [(Thing::Blind, &concerns.blind), (Thing::Control, &concerns.control)] {
            let found = concern.as_ref();
            let found = found.map(|found| (found.since, found.by.as_str(), found.evidence.as_slice()));
            let closer = concerns.closed_of(what);
            self.one(view, what, found, closer);
            if view.wrote.concerns && closer == Some(self.name.as_str()) {
                self.announce.close(notice(what, view.now, &[]), view.now);
            }
        }
    }
}

/// Since when, who wrote it down, what was seen.
type Found<'a> = (Timestamp, &'a str, &'a [String]);

impl Crier {
    /// `found`: None where it is not so, or no longer. `closer`: who said so for the one that had told it and was not there.
    fn one(&self, view: &View, what: Thing, found: Option<Found<'_>>, closer: Option<&str>) {
        let Some((since, by, saw)) = found else {
            self.follows(what, false);
            let key = notice(what, view.now, &[]).key;
            match closer.is_some_and(|closer| closer != self.name) {
                true => self.announce.forget(&key),
                false => self.announce.resolve(&key, view.now),
            }
            return;
        };
        let notice = notice(what, since, saw);
        let is_own = by == self.name;
        let speaks = speaks(&self.name, Some(by), &view.tally, view.now);
        let follows = self.follows(what, speaks && !is_own);
        if is_own && speaks || follows {
            self.announce.raise(notice);
        } else if !speaks {
            // What this one may have told is another's to tell again, and to end.
            self.announce.forget(&notice.key);
        }
    }

    /// Whether this one has had to speak for another for long enough: where the store's clock jumped, nobody is gone.
    fn follows(&self, what: Thing, is_so: bool) -> bool {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.retain(|(of, _)| is_so || *of != what);
        if !is_so {
            return false;
        }
        let known = following.iter().find(|(of, _)| *of == what).map(|(_, since)| *since);
        let since = known.unwrap_or_else(|| {
            let now = Instant::now();
            following.push((what, now));
            now
        });
        since.elapsed() >= SURE_AFTER
    }
}

fn notice(what: Thing, since: Timestamp, saw: &[String]) -> Notice {
    let verdict = match what {
        Thing::Down => Verdict::Down,
        Thing::Blind => Verdict::Unknown,
        Thing::Control => Verdict::ControlDown,
    };
    let why = saw.join(" | ");
    Notice::new(What::VerdictChanged { verdict, why }, since)
}
