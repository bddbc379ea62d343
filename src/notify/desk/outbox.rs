//! What waits for one channel, in which order and at which pace it goes, and what becomes of what is not taken. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Audience, Next, Standing};
use crate::notify::notice::{Notice, Severity};
use crate::notify::words::Turn;

/// More than this does not wait: the least grave gives way.
const MOST_ITEMS: usize = 200;
/// In one message to people.
const MOST_IN_DIGEST: usize = 20;
/// Messages to people: so many at once, and then one in this time.
const BURST: u32 = 6;
const PACE: Duration = Duration::from_secs(60);
/// Between tries of a channel that does not answer, doubled each time up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A server that asks for more than this is asked again after this long.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(3600);
/// What the channel itself refused is tried again this much later, or as soon as it took something else.
const AFTER_REFUSAL: Duration = Duration::from_secs(3600);
/// Refused as often as this, it is only shown.
const MOST_TRIES: u32 = 20;

/// One thing to tell one channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub id: u64,
    pub notice: Notice,
    pub turn: Turn,
    pub since: Timestamp,
    /// When there was this to tell: that it came, still goes on, or went.
    pub at: Timestamp,
    /// Times that it came within the hour.
    pub episodes: u32,
    pub tries: u32,
    /// Not before.
    pub retry_at: Option<Timestamp>,
    /// How the last try failed.
    pub error: Option<String>,
}

impl Item {
    fn rank(&self) -> (Reverse<Severity>, u64) {
        // That something is over keeps nobody waiting.
        let severity = match self.turn {
            Turn::Raised => self.notice.severity,
            Turn::Reminder | Turn::Resolved => Severity::Info,
        };
        (Reverse(severity), self.id)
    }

    fn is_of(&self, key: &str, turn: Turn) -> bool {
        self.turn == turn && self.notice.key == key
    }
}

/// Why a channel did not take something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// No secret in it.
    pub error: String,
    /// It will not be taken until a person changes something.
    pub is_permanent: bool,
    /// What the server asked for.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outbox {
    items: Vec<Item>,
    /// In a row.
    pub(super) failures: u32,
    error: Option<String>,
    retry_at: Option<Timestamp>,
    /// When the messages sent so far would have been sent, one in each [`PACE`].
    paced_until: Option<Timestamp>,
    delivered: u64,
    failed: u64,
    dropped: u64,
}

impl Outbox {
    pub(super) fn put(&mut self, item: Item) {
        // What was not sent yet is said as it is now. Its place in the queue stays.
        let same = |waiting: &&mut Item| waiting.is_of(&item.notice.key, item.turn);
        if let Some(waiting) = self.items.iter_mut().find(same) {
            waiting.notice = item.notice;
            waiting.episodes = item.episodes;
            return;
        }
        self.items.push(item);
        while self.items.len() > MOST_ITEMS {
            let Some(least) = self.items.iter().max_by_key(|item| item.rank().0).cloned() else {
                break;
            };
            let before = self.items.len();
            // Whoever is not told that it began need not be told that it is over.
            self.items.retain(|item| match least.turn {
                Turn::Raised => item.notice.key != least.notice.key,
                Turn::Reminder | Turn::Resolved => item.id != least.id,
            });
            self.dropped += (before - self.items.len()) as u64;
        }
    }

    pub(super) fn holds(&self, key: &str, turn: Turn) -> bool {
        self.items.iter().any(|item| item.is_of(key, turn))
    }

    pub(super) fn take_back(&mut self, key: &str, turn: Turn) {
        self.items.retain(|item| !item.is_of(key, turn));
    }

    pub(super) fn try_at_once(&mut self) {
        self.retry_at = None;
        for item in &mut self.items {
            item.retry_at = None;
            item.tries = 0;
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.items.iter().any(|item| item.tries < MOST_TRIES)
    }

    pub(super) fn next(&self, audience: Audience, now: Timestamp) -> Next {
        let mut open: Vec<&Item> = self
            .items
            .iter()
            .filter(|item| item.tries < MOST_TRIES && self.is_in_turn(item))
            .collect();
        if open.is_empty() {
            return Next::Wait(None);
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Next::Wait(Some(at));
        }
        let first = open.iter().filter_map(|item| item.retry_at).min();
        open.retain(|item| item.retry_at.is_none_or(|at| at <= now));
        open.sort_by_key(|item| item.rank());
        let Some(gravest) = open.first() else {
            return Next::Wait(first);
        };
        let one = vec![(*gravest).clone()];
        if audience != Audience::People {
            return Next::Send(one);
        }
        let paced_until = self.paced_until.unwrap_or(now).max(now);
        let free_at = earlier(paced_until, PACE * (BURST - 1));
        if free_at > now {
            return Next::Wait(Some(free_at));
        }
        // As many as may still go at once, one by one; the rest together.
        let is_last = until(free_at, PACE) > now;
        if is_last && open.len() > 1 {
            return Next::Send(open.into_iter().take(MOST_IN_DIGEST).cloned().collect());
        }
        Next::Send(one)
    }

    /// That something is over is told after that it began.
    fn is_in_turn(&self, item: &Item) -> bool {
        item.turn != Turn::Resolved || !self.holds(&item.notice.key, Turn::Raised)
    }

    /// Takes them out, unless they have grown graver since.
    pub(super) fn delivered(&mut self, items: &[Item], now: Timestamp) {
        self.failures = 0;
        self.error = None;
        self.retry_at = None;
        self.delivered += 1;
        self.paced_until = Some(until(self.paced_until.unwrap_or(now).max(now), PACE));
        let is_told = |waiting: &Item| {
            let same = |item: &Item| item.id == waiting.id && item.notice.severity >= waiting.notice.severity;
            items.iter().any(same)
        };
        self.items.retain(|waiting| !is_told(waiting));
        for item in &mut self.items {
            item.retry_at = None;
        }
    }

    pub(super) fn refused(&mut self, items: &[Item], refusal: &Refusal, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.failed += 1;
        self.error = Some(refusal.error.clone());
        let doubled = FIRST_WAIT.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        let asked_for = refusal.retry_after.unwrap_or_default().min(LONGEST_ASKED_FOR);
        self.retry_at = Some(until(now, doubled.min(LONGEST_WAIT).max(asked_for)));
        let mine = |waiting: &&mut Item| items.iter().any(|item| item.id == waiting.id);
        for item in self.items.iter_mut().filter(mine) {
            item.error = Some(refusal.error.clone());
            if refusal.is_permanent {
                item.tries += 1;
                item.retry_at = Some(until(now, AFTER_REFUSAL));
            }
        }
    }

    pub(super) fn standing(&self, channel: &str) -> Standing {
        Standing {
            channel: channel.to_owned(),
            waiting: self.items.clone(),
            failures: self.failures,
            error: self.error.clone(),
            delivered: self.delivered,
            failed: self.failed,
            dropped: self.dropped,
        }
    }

    pub(super) fn no_later_than(&mut self, now: Timestamp) {
        let clamp = |at: &mut Option<Timestamp>, longest| {
            if let Some(at) = at {
                *at = (*at).min(until(now, longest));
            }
        };
        clamp(&mut self.retry_at, LONGEST_ASKED_FOR);
        clamp(&mut self.paced_until, PACE * BURST);
        for item in &mut self.items {
            item.since = item.since.min(now);
            item.at = item.at.min(now);
            clamp(&mut item.retry_at, AFTER_REFUSAL);
        }
    }
}

pub(super) fn until(at: Timestamp, wait: Duration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    at.saturating_sub(by).unwrap_or(Timestamp::MIN)
}
