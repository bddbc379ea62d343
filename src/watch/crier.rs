//! Tells people what the watchers found together. Each thing is told by one of them, round after round as long as it lasts: so a watcher
//! that was restarted, or follows one that vanished, tells it as well, and whoever told that it began tells that it is over.

use std::sync::Arc;

use jiff::Timestamp;

use super::concern::{Thing, is_orphaned, speaks};
use super::verdict::{Health, Ruling};
use super::watcher::{Herald, View};
use crate::notify::Announce;
use crate::notify::notice::{Notice, Verdict, What, keys};

pub struct Crier {
    /// Of this watcher.
    pub name: String,
    pub announce: Arc<dyn Announce>,
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
            let closed = ruling.ends.as_deref().filter(|_| ruling.is_closed);
            self.one(view, Thing::Down, found, closed);
            if let (true, Some(told_by), Some(since)) = (view.wrote.ruling, closed, ruling.before)
                && is_orphaned(told_by, &view.tally, view.now)
            {
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
            let closed = concerns.closed_of(what);
            self.one(view, what, found, closed);
            if view.wrote.concerns && closed.is_some_and(|told_by| is_orphaned(told_by, &view.tally, view.now)) {
                self.announce.close(notice(what, view.now, &[]), view.now);
            }
        }
    }
}

/// Since when, who wrote it down, what was seen.
type Found<'a> = (Timestamp, &'a str, &'a [String]);

impl Crier {
    /// `found`: None where it is not so, or no longer. `closed`: whose word that it is over somebody else has taken.
    fn one(&self, view: &View, what: Thing, found: Option<Found<'_>>, closed: Option<&str>) {
        match found {
            Some((since, by, saw)) => {
                let notice = notice(what, since, saw);
                if speaks(&self.name, Some(by), &view.tally, view.now) {
                    self.announce.raise(notice);
                } else {
                    // What this one may have told is another's to tell again, and to end.
                    self.announce.forget(&notice.key);
                }
            }
            None => {
                let key = notice(what, view.now, &[]).key;
                match closed == Some(self.name.as_str()) {
                    true => self.announce.forget(&key),
                    false => self.announce.resolve(&key, view.now),
                }
            }
        }
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
