//! What the state means for the RPO: now, at the next commit, at worst.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{FIRST_GUESS, JUMP, LOOK_EVERY, Moment, Plan, State, signed};
use crate::backup::rpo::{self, Feasibility, Rpo};
use crate::serve::board::Tick;

impl State {
    /// Whether the next tick's commit would come later than both the target and the schedule's own worst case
    /// allow. A schedule that cannot meet its target does not make every failure urgent.
    pub(super) fn waiting_costs_too_much(&self, at: Moment) -> bool {
        let (Some((newest, _)), Some(tick), Some(gap)) = (&self.known, self.next_tick, self.gap) else {
            return true;
        };
        let Some(newest) = &newest.good else { return true };
        let slow = self.slow_run();
        let until_commit = signed(slow).saturating_add(tick.duration_since(at.wall));
        let loss = self
            .store_now(at)
            .map_or(SignedDuration::MAX, |now| now.duration_since(newest.data_from));
        let allowed = self.settings.rpo.max(rpo::worst_case(gap, slow));
        loss.saturating_add(until_commit) > signed(allowed).saturating_add(JUMP)
    }

    /// How long keep-rpo waits for its next run, and whether there is none to go by; `None` until the first survey.
    pub(super) fn keep_rpo_wait(&self, at: Moment) -> Option<(Duration, bool)> {
        let (newest, _) = self.known.as_ref()?;
        let now = self.store_now(at)?;
        let Some(newest) = &newest.good else {
            return Some((Duration::ZERO, true));
        };
        // Before the first run of this process there is no run to keep a distance from.
        let previous_end = match self.last_run_end {
            Some(end) => now.saturating_sub(at.mono.saturating_sub(end)).unwrap_or(now),
            None => newest.data_from,
        };
        let start = rpo::next_start(newest.data_from, self.settings.rpo, self.slow_run(), previous_end).at();
        Some((
            Duration::try_from(start.duration_since(now)).unwrap_or(Duration::ZERO),
            false,
        ))
    }

    /// The RPO at this moment.
    pub fn rpo(&self, at: Moment) -> Rpo {
        match (&self.known, self.store_now(at)) {
            (Some((newest, _)), Some(now)) => newest.assess(self.settings.rpo, self.next_commit(at, now), now),
            (None, _) | (_, None) => Rpo::UNKNOWN,
        }
    }

    /// For whoever looks.
    pub fn tick(&self, at: Moment) -> Tick {
        let store_now = self.store_now(at);
        let newest = self.known.as_ref().and_then(|(newest, _)| newest.good.as_ref());
        Tick {
            rpo: self.rpo(at),
            data_from: newest.map(|newest| newest.data_from),
            store_now,
            worst_case: self.feasibility().map(|feasibility| match feasibility {
                Feasibility::Meets { worst_case } | Feasibility::Misses { worst_case, .. } => worst_case,
            }),
            next_commit: store_now.and_then(|now| self.next_commit(at, now)),
            is_healthy: self.is_healthy(at),
        }
    }

    /// When the next backup is expected to land, by the store's clock.
    pub(super) fn next_commit(&self, at: Moment, now: Timestamp) -> Option<Timestamp> {
        let until_start = match (&self.run, &self.settings.plan, self.retry_at) {
            (Some(run), _, _) => {
                let left = self.slow_run().saturating_sub(at.mono.saturating_sub(run.started));
                return now.saturating_add(left).ok();
            }
            (None, _, Some(retry_at)) if self.failures > 0 => retry_at.saturating_sub(at.mono),
            (None, Plan::KeepRpo, _) => self.keep_rpo_wait(at)?.0,
            (None, Plan::Cron(_), _) => Duration::try_from(self.next_tick?.duration_since(at.wall)).unwrap_or_default(),
        };
        now.saturating_add(until_start.saturating_add(self.slow_run())).ok()
    }

    /// Whether the schedule can meet the target, by what runs took so far; `None` before the first was seen.
    pub fn feasibility(&self) -> Option<Feasibility> {
        let slow = self.times.slow()?;
        Some(match self.gap {
            Some(gap) => rpo::feasibility(gap, slow, self.settings.rpo),
            None => rpo::keep_rpo_feasibility(slow, self.settings.rpo),
        })
    }

    pub(super) fn store_now(&self, at: Moment) -> Option<Timestamp> {
        let (_, anchor) = self.known.as_ref()?;
        anchor.store.saturating_add(at.mono.saturating_sub(anchor.mono)).ok()
    }

    pub(super) fn slow_run(&self) -> Duration {
        self.times.slow().unwrap_or(FIRST_GUESS)
    }

    /// How long there is nothing to do.
    pub(super) fn until_next(&self, at: Moment) -> Duration {
        let until = |mono: Duration| mono.saturating_sub(at.mono);
        let idle = self.run.is_none();
        let tick = self
            .next_tick
            .map(|tick| Duration::try_from(tick.duration_since(at.wall)).unwrap_or_default());
        let retry = self.retry_at.filter(|_| idle).map(until).filter(|wait| !wait.is_zero());
        let keep_rpo = match self.settings.plan {
            Plan::KeepRpo if idle && self.retry_at.is_none() => self.keep_rpo_wait(at).map(|(wait, _)| wait),
            Plan::KeepRpo | Plan::Cron(_) => None,
        };
        let chore = [Some(self.survey_at), self.prune_due.then_some(self.prune_at)];
        let chores = chore.into_iter().flatten().filter(|_| self.chore.is_none()).map(until);
        let deadlines = [self.run, self.chore, self.check.active]
            .into_iter()
            .flatten()
            .filter(|a| !a.cancelled)
            .map(|a| until(a.deadline));
        let waits = [tick, retry, keep_rpo]
            .into_iter()
            .flatten()
            .chain(chores)
            .chain(deadlines)
            .chain(self.proving.until_next(at));
        // A little at least: a wait that rounds to nothing must not spin.
        waits
            .min()
            .unwrap_or(LOOK_EVERY)
            .clamp(Duration::from_millis(10), LOOK_EVERY)
    }
}
