//! The routine proof: the newest good backup restored on a scratch server, beside whatever else goes on, one at a time.

use std::time::Duration;

use jiff::Timestamp;

use super::{Active, Moment};
use crate::agent::runner::{Proven, RunError, Survey};
use crate::agent::schedule::Cron;

/// Something in the way (a standby that is away, say) may be gone an hour later.
const RETRY: Duration = Duration::from_secs(3600);
/// Longest and shortest time that one proof may take; in between, the time until the next.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const SHORTEST: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Proving {
    cron: Option<Box<Cron>>,
    pub(super) active: Option<Active>,
    next_tick: Option<Timestamp>,
    retry_at: Option<Duration>,
    /// Nothing was proven for longer than the schedule allows: somebody was asleep when it was due.
    is_late: bool,
    was_tried: bool,
    /// How the last one failed, in words.
    failure: Option<String>,
}

impl Proving {
    /// Takes a new schedule, or none; what is under way goes on.
    pub(super) fn configure(&mut self, cron: Option<Box<Cron>>, now: Timestamp) {
        self.next_tick = cron.as_ref().and_then(|cron| cron.next_after(now));
        self.cron = cron;
        self.retry_at = None;
        self.was_tried = false;
        if self.cron.is_none() {
            self.failure = None;
        }
    }

    /// The clock was set back: no tick may be hours away on the corrected one.
    pub(super) fn clock_set_back(&mut self, now: Timestamp) {
        self.next_tick = self.cron.as_ref().and_then(|cron| cron.next_after(now));
    }

    /// Whether a proof begins now. `backed_up`: a backup was made since the agent started, so that an agent which is killed
    /// by its own proofs still makes backups in between.
    pub(super) fn start(&mut self, at: Moment, backed_up: bool) -> bool {
        let Some(cron) = &self.cron else { return false };
        let has_struck = self.next_tick.is_some_and(|tick| at.wall >= tick);
        if has_struck {
            self.next_tick = cron.next_after(at.wall);
        }
        if self.active.is_some() {
            if has_struck {
                tracing::warn!("the proof of a backup outlasts its interval: tick skipped");
            }
            return false;
        }
        let retry = self.retry_at.is_some_and(|retry_at| at.mono >= retry_at);
        let catch_up = self.is_late && !self.was_tried && backed_up;
        if !(has_struck || retry || catch_up) {
            return false;
        }
        let allowed = cron.largest_gap().unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
        self.active = Some(Active::from(at.mono, allowed));
        self.retry_at = None;
        self.was_tried = true;
        true
    }

    /// Whether the proof has to be cancelled now; says so once.
    pub(super) fn must_end(&mut self, mono: Duration) -> bool {
        let over = |active: &&mut Active| active.over(mono, Duration::ZERO) && !active.cancelled;
        match self.active.as_mut().filter(over) {
            Some(active) => {
                active.cancelled = true;
                true
            }
            None => false,
        }
    }

    /// What is in the store may say that one was missed.
    pub(super) fn surveyed(&mut self, survey: &Survey) {
        let gap = self.cron.as_ref().and_then(|cron| cron.largest_gap());
        let latest = survey.entries.iter().filter_map(|entry| entry.proven_at).max();
        self.is_late = gap.is_some_and(|gap| {
            latest.is_none_or(|latest| {
                Duration::try_from(survey.store_now.duration_since(latest)).is_ok_and(|age| age > gap)
            })
        });
    }

    pub(super) fn ended(&mut self, result: Result<&Proven, &RunError>, mono: Duration) {
        self.active = None;
        (self.failure, self.retry_at) = match result {
            Ok(Proven::Restored { .. } | Proven::NothingGood) => (None, None),
            // Written down as unusable: the one before is the newest good one now.
            Ok(Proven::Damaged { id, .. }) => (Some(format!("{id} is damaged")), Some(mono)),
            Ok(Proven::Different { id, .. }) => {
                (Some(format!("{id} came out different from what the backup says")), None)
            }
            Err(RunError::Cancelled) => (Some("it was stopped, or took too long".to_owned()), None),
            Err(error @ (RunError::Busy(_) | RunError::Transient(_))) => (Some(error.to_string()), Some(mono + RETRY)),
            Err(error @ RunError::Permanent(_)) => (Some(error.to_string()), None),
        };
    }

    /// How the last proof failed; none if it did not.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// How long there is nothing to do.
    pub(super) fn until_next(&self, at: Moment) -> Option<Duration> {
        let tick = self
            .next_tick
            .map(|tick| Duration::try_from(tick.duration_since(at.wall)).unwrap_or_default());
        let retry = self.retry_at.filter(|_| self.active.is_none());
        let deadline = self
            .active
            .filter(|active| !active.cancelled)
            .map(|active| active.deadline);
        let later = [retry, deadline].into_iter().flatten();
        later.map(|mono| mono.saturating_sub(at.mono)).chain(tick).min()
    }
}
