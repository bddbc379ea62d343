//! Who is told what, and when: what is raised, resolved, delivered and refused comes in, the next thing to send goes out. Pure.
//!
//! What lasts is a *matter*, known by its key. Each channel is told once that it began (and again if it grows graver), reminded ever
//! more rarely, and told once that it is over, if it was told that it began. A matter that comes and goes is told as over only
//! after it stayed away for a while, longer each time, so that flapping grows quiet by itself. What waits for a channel is
//! bounded, the least grave gives way, and all of it outlasts a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::notice::{Notice, Severity, What, keys};
use super::words::Turn;

mod outbox;

pub use outbox::{Item, Refusal};
use outbox::{Outbox, until};

/// After this long without the matter, an earlier one is another matter.
const MEMORY: Duration = Duration::from_secs(3600);
/// A matter is over when it stayed away for this long; doubled each time that it came back, up to the longest.
const SETTLE: Duration = Duration::from_secs(60);
const LONGEST_SETTLE: Duration = Duration::from_secs(1800);
/// Of what somebody gets up for, the end and the next beginning are told sooner.
const LONGEST_CRITICAL_SETTLE: Duration = Duration::from_secs(300);
/// Between reminders; the last one goes on.
const CRITICAL_REMINDERS: [Duration; 4] = [minutes(15), minutes(60), minutes(240), minutes(1440)];
const OTHER_REMINDERS: [Duration; 2] = [minutes(240), minutes(1440)];
/// Tries in a row after which the other channels are told that this one takes nothing.
const FAILING_AFTER: u32 = 3;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

/// Who reads a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Reminded; not told more than so much at once: beyond that, several things in one message.
    People,
    /// Reminds and wakes people by itself: gets what can be resolved, each by its key, and what acknowledges or resolves it.
    Pager,
    /// Gets everything, each by itself.
    Program,
}

/// What one channel takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub channel: String,
    pub audience: Audience,
    pub minimum: Severity,
    /// Names of events; empty: all.
    pub events: Vec<&'static str>,
}

impl Route {
    fn takes(&self, notice: &Notice) -> bool {
        let is_its_own = matches!(&notice.what, What::ChannelFailing { channel, .. } if *channel == self.channel);
        let is_wanted = self.events.is_empty() || self.events.contains(&notice.what.event());
        // To a pager these two are no news but acknowledge and resolve what is open there.
        let follows = matches!(&notice.what, What::OperationBegun { .. } | What::OperationEnded { .. });
        let is_grave = notice.severity >= self.minimum;
        let is_taken = match self.audience {
            Audience::Pager => follows || (is_grave && notice.what.lasts()),
            Audience::People | Audience::Program => is_grave,
        };
        is_taken && is_wanted && !is_its_own
    }
}

/// What was raised under one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Matter {
    /// As it was raised last.
    notice: Notice,
    since: Timestamp,
    /// Times that it came back soon after it had gone, and one.
    episodes: u32,
    goes_on: bool,
    /// When it last came or went.
    changed_at: Timestamp,
    /// Whether its end was put into the outboxes.
    settled: bool,
    told: BTreeMap<String, Told>,
}

/// That a channel took it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Told {
    severity: Severity,
    at: Timestamp,
    reminders: usize,
}

impl Matter {
    fn settle(&self) -> Duration {
        let doubled = SETTLE.saturating_mul(1 << self.episodes.saturating_sub(1).min(10));
        doubled.min(match self.notice.severity {
            Severity::Critical => LONGEST_CRITICAL_SETTLE,
            Severity::Warning | Severity::Info => LONGEST_SETTLE,
        })
    }

    /// When a channel that was told this is to be reminded.
    fn reminder_at(&self, told: &Told) -> Timestamp {
        let waits = match self.notice.severity {
            Severity::Critical => CRITICAL_REMINDERS.as_slice(),
            Severity::Warning | Severity::Info => &OTHER_REMINDERS,
        };
        let wait = waits[told.reminders.min(waits.len() - 1)];
        later(told.at, wait)
    }
}

/// What to do for a channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// One message of these; several only for people.
    Send(Vec<Item>),
    /// Nothing before this instant, or before something is raised or resolved.
    Wait(Option<Timestamp>),
}

/// How a channel is doing.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    pub channel: String,
    pub waiting: Vec<Item>,
    /// Tries in a row that failed, and how the last one did.
    pub failures: u32,
    pub error: Option<String>,
    /// Since the state was begun.
    pub delivered: u64,
    pub failed: u64,
    pub dropped: u64,
}

/// Everything that is known about who was told what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Desk {
    #[serde(skip)]
    routes: Vec<Route>,
    matters: BTreeMap<String, Matter>,
    outboxes: BTreeMap<String, Outbox>,
    /// Of the item that was made last.
    last_id: u64,
}

impl Desk {
    /// Takes the routes of a configuration. What waits for a channel that is gone, goes.
    pub fn configure(&mut self, routes: Vec<Route>) {
        let is_there = |channel: &String| routes.iter().any(|route| route.channel == *channel);
        self.outboxes.retain(|channel, _| is_there(channel));
        for matter in self.matters.values_mut() {
            matter.told.retain(|channel, _| is_there(channel));
        }
        for route in &routes {
            // What stood in the way may be gone with the old configuration.
            self.outboxes.entry(route.channel.clone()).or_default().try_at_once();
        }
        self.routes = routes;
    }

    /// Something happens, or goes on.
    pub fn raise(&mut self, notice: Notice, now: Timestamp) {
        self.no_later_than(now);
        if !notice.what.lasts() {
            // A drill that passes ends what a failed one raised.
            self.resolve(&notice.key, now);
            for route in self.routes.clone().iter().filter(|route| route.takes(&notice)) {
                self.put(&route.channel, Turn::Raised, &notice, (now, now), 1);
            }
            return;
        }
        let matter = self.matters.entry(notice.key.clone()).or_insert_with(|| Matter {
            notice: notice.clone(),
            since: now,
            episodes: 0,
            goes_on: false,
            changed_at: now,
            settled: true,
            told: BTreeMap::new(),
        });
        if !matter.goes_on {
            let is_soon = now.duration_since(matter.changed_at) < signed(MEMORY);
            matter.episodes = if is_soon { matter.episodes + 1 } else { 1 };
            if matter.settled {
                matter.since = now;
            }
            matter.goes_on = true;
            matter.settled = false;
            matter.changed_at = now;
            // Nobody is told that it is over: it is not.
            for outbox in self.outboxes.values_mut() {
                outbox.take_back(&notice.key, Turn::Resolved);
            }
        }
        matter.notice = notice.clone();
        let (since, episodes, told) = (matter.since, matter.episodes, matter.told.clone());
        for route in self.routes.clone().iter().filter(|route| route.takes(&notice)) {
            let is_known = told
                .get(&route.channel)
                .is_some_and(|told| told.severity >= notice.severity);
            if !is_known {
                self.put(&route.channel, Turn::Raised, &notice, (since, now), episodes);
            }
        }
    }

    /// What was raised under this key is gone, for now at least.
    /// Whether there was such a thing.
    pub fn resolve(&mut self, key: &str, now: Timestamp) -> bool {
        self.no_later_than(now);
        let matter = self.matters.get_mut(key).filter(|matter| matter.goes_on);
        let is_news = matter.is_some();
        if let Some(matter) = matter {
            matter.goes_on = false;
            matter.changed_at = now;
        }
        is_news
    }

    /// What another process told the same channels is over, and it cannot say so.
    pub fn close(&mut self, notice: &Notice, since: Timestamp, now: Timestamp) {
        if self.matters.contains_key(&notice.key) {
            self.resolve(&notice.key, now);
            return;
        }
        self.no_later_than(now);
        for route in self.routes.clone().iter().filter(|route| route.takes(notice)) {
            self.put(&route.channel, Turn::Resolved, notice, (since.min(now), now), 1);
        }
    }

    /// Nobody is told anything more of this, also not that it is over. Whether there was such a thing.
    pub fn forget(&mut self, key: &str) -> bool {
        let is_there = self.matters.remove(key).is_some();
        if is_there {
            for outbox in self.outboxes.values_mut() {
                for turn in [Turn::Raised, Turn::Reminder, Turn::Resolved] {
                    outbox.take_back(key, turn);
                }
            }
        }
        is_there
    }

    /// One channel is told what another process could not tell it.
    pub fn adopt(&mut self, channel: &str, notice: &Notice, now: Timestamp) {
        if self.routes.iter().any(|route| route.channel == channel) {
            let at = notice.at.min(now);
            self.put(channel, Turn::Raised, notice, (at, at), 1);
        }
    }

    /// What a channel is to be sent now, until it was [`delivered`](Self::delivered) or [`refused`](Self::refused).
    pub fn next(&mut self, channel: &str, now: Timestamp) -> Next {
        self.no_later_than(now);
        let Some(route) = self.routes.iter().find(|route| route.channel == channel).cloned() else {
            return Next::Wait(None);
        };
        self.settle(now);
        self.remind(&route, now);
        let later = self.next_turn(&route);
        let Some(outbox) = self.outboxes.get_mut(channel) else {
            return Next::Wait(later);
        };
        match outbox.next(route.audience, now) {
            Next::Wait(at) => Next::Wait([at, later].into_iter().flatten().min()),
            send @ Next::Send(_) => send,
        }
    }

    /// A channel took these, as they were when they were sent.
    pub fn delivered(&mut self, channel: &str, items: &[Item], now: Timestamp) {
        let Some(outbox) = self.outboxes.get_mut(channel) else {
            return;
        };
        let was_failing = outbox.failures > 0;
        outbox.delivered(items, now);
        let mut again = Vec::new();
        for item in items {
            let Some(matter) = self.matters.get_mut(&item.notice.key) else {
                continue;
            };
            match item.turn {
                Turn::Raised if item.notice.what.lasts() => {
                    let told = Told {
                        severity: item.notice.severity,
                        at: now,
                        reminders: 0,
                    };
                    matter.told.insert(channel.to_owned(), told);
                }
                Turn::Raised => {}
                Turn::Reminder => {
                    if let Some(told) = matter.told.get_mut(channel) {
                        told.at = now;
                        told.reminders += 1;
                    }
                }
                Turn::Resolved => {
                    matter.told.remove(channel);
                    // It came back while its end was being told.
                    if matter.goes_on {
                        again.push(matter.notice.clone());
                    }
                }
            }
        }
        for notice in again {
            self.raise(notice, now);
        }
        if was_failing {
            self.resolve(&keys::channel(channel), now);
        }
    }

    /// A channel did not take these.
    pub fn refused(&mut self, channel: &str, items: &[Item], refusal: &Refusal, now: Timestamp) {
        let Some(outbox) = self.outboxes.get_mut(channel) else {
            return;
        };
        outbox.refused(items, refusal, now);
        if refusal.is_permanent || outbox.failures >= FAILING_AFTER {
            let what = What::ChannelFailing {
                channel: channel.to_owned(),
                error: refusal.error.clone(),
            };
            self.raise(Notice::new(what, now), now);
        }
    }

    /// How each channel is doing.
    pub fn standing(&self) -> Vec<Standing> {
        let standing = |(channel, outbox): (&String, &Outbox)| outbox.standing(channel);
        self.outboxes.iter().map(standing).collect()
    }

    /// What goes on, gravest first.
    pub fn going_on(&self) -> Vec<(&Notice, Timestamp)> {
        let mut all: Vec<_> = self
            .matters
            .values()
            .filter(|matter| matter.goes_on)
            .map(|matter| (&matter.notice, matter.since))
            .collect();
        all.sort_by_key(|(notice, since)| (std::cmp::Reverse(notice.severity), *since));
        all
    }

    /// Whether nothing waits for any channel.
    pub fn is_empty(&self) -> bool {
        self.outboxes.values().all(|outbox| !outbox.has_work())
    }

    fn put(&mut self, channel: &str, turn: Turn, notice: &Notice, (since, at): (Timestamp, Timestamp), episodes: u32) {
        self.last_id += 1;
        let item = Item {
            id: self.last_id,
            notice: notice.clone(),
            turn,
            since,
            at,
            episodes,
            tries: 0,
            retry_at: None,
            error: None,
        };
        self.outboxes.entry(channel.to_owned()).or_default().put(item);
    }

    /// Matters that stayed away for long enough are over; those that nobody remembers are forgotten.
    fn settle(&mut self, now: Timestamp) {
        let mut over = Vec::new();
        for matter in self.matters.values_mut().filter(|matter| !matter.goes_on) {
            if !matter.settled && now >= later(matter.changed_at, matter.settle()) {
                matter.settled = true;
                over.push(matter.clone());
            }
        }
        for matter in over {
            let waits = |outbox: &Outbox| outbox.holds(&matter.notice.key, Turn::Raised);
            let channels: Vec<String> = self
                .outboxes
                .iter_mut()
                .filter_map(|(channel, outbox)| {
                    outbox.take_back(&matter.notice.key, Turn::Reminder);
                    (matter.told.contains_key(channel) || waits(outbox)).then(|| channel.clone())
                })
                .collect();
            for channel in channels {
                let times = (matter.since, matter.changed_at);
                self.put(&channel, Turn::Resolved, &matter.notice, times, matter.episodes);
            }
        }
        self.matters
            .retain(|_, matter| !matter.settled || !matter.told.is_empty() || now < later(matter.changed_at, MEMORY));
    }

    fn remind(&mut self, route: &Route, now: Timestamp) {
        if route.audience == Audience::Pager {
            return;
        }
        let Some(outbox) = self.outboxes.get(&route.channel) else {
            return;
        };
        let is_due = |matter: &&Matter| {
            let told = matter.told.get(&route.channel);
            let is_waiting =
                outbox.holds(&matter.notice.key, Turn::Reminder) || outbox.holds(&matter.notice.key, Turn::Raised);
            let is_due = told.is_some_and(|told| now >= matter.reminder_at(told));
            is_due && matter.goes_on && !is_waiting && route.takes(&matter.notice)
        };
        let due: Vec<Matter> = self.matters.values().filter(is_due).cloned().collect();
        for matter in due {
            let times = (matter.since, now);
            self.put(&route.channel, Turn::Reminder, &matter.notice, times, matter.episodes);
        }
    }

    /// When something settles, or a reminder is due, by itself.
    fn next_turn(&self, route: &Route) -> Option<Timestamp> {
        let ends = self
            .matters
            .values()
            .filter(|matter| !matter.goes_on && !matter.settled)
            .map(|matter| later(matter.changed_at, matter.settle()));
        let reminders = self
            .matters
            .values()
            .filter(|matter| matter.goes_on && route.audience != Audience::Pager && route.takes(&matter.notice))
            .filter_map(|matter| Some(matter.reminder_at(matter.told.get(&route.channel)?)));
        ends.chain(reminders).min()
    }

    /// The clock may have been set back: nothing that was noted lies in the future.
    fn no_later_than(&mut self, now: Timestamp) {
        for matter in self.matters.values_mut() {
            matter.since = matter.since.min(now);
            matter.changed_at = matter.changed_at.min(now);
            for told in matter.told.values_mut() {
                told.at = told.at.min(now);
            }
        }
        for outbox in self.outboxes.values_mut() {
            outbox.no_later_than(now);
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn later(at: Timestamp, wait: Duration) -> Timestamp {
    until(at, wait)
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
