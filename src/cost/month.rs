//! One month of backups: when they start, and what the retention that the agent applies keeps of them, day by day.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::prices::HOURS_PER_MONTH;
use crate::backup::entry::{BackupId, Entry, Standing};
use crate::backup::retention::{Holds, keep};
use crate::backup::rpo;
use crate::config::cadence::parse_cron;
use crate::config::{Config, Retention, Schedule};
use crate::store::ETag;

/// A Monday in the middle of a year; everything is UTC.
const BEGIN: DateTime = DateTime::constant(2034, 5, 1, 0, 0, 0, 0);
/// Days that are gone through.
const DAYS: i64 = 30;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What a month of backups comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Month {
    /// Backups that are made.
    pub runs: f64,
    /// Backups that are there, on average.
    pub kept: f64,
    /// Backups that are removed.
    pub removed: f64,
    /// Days that removed backups are paid for beyond their end, all together.
    pub early_days: f64,
}

impl Month {
    /// Between two starts, on average.
    pub fn interval(&self) -> Duration {
        Duration::from_secs_f64(HOURS_PER_MONTH * 3600.0 / self.runs.max(1e-9))
    }
}

/// Goes through a month in which every run takes `run` from snapshot to commit. `min_days`: what the store has paid for at least.
pub fn month(config: &Config, run: Duration, min_days: u32) -> Month {
    let begin = BEGIN
        .to_zoned(TimeZone::UTC)
        .map_or(Timestamp::UNIX_EPOCH, |at| at.timestamp());
    let end = add(begin, DAY * i32::try_from(DAYS).unwrap_or(30));
    let policy = &config.retention;
    // Young ones all, of older days the last: that is what an hourly pruning has left of them.
    let fine = signed(policy.keep_all.max(policy.keep_hourly)).saturating_add(DAY);
    let starts = starts(config, run, add(begin, -fine), end);
    let mut shelf: Vec<Entry> = older(config, run, policy, add(begin, -fine), begin);
    let mut coming = starts.into_iter().peekable();
    let (mut runs, mut kept, mut removed, mut early_days) = (0_usize, 0_usize, 0_usize, 0.0);
    let holds = Holds::default();
    for day in 0..=DAYS {
        let now = add(begin, DAY * i32::try_from(day).unwrap_or(0));
        while let Some(at) = coming.next_if(|at| *at < now) {
            runs += usize::from(day > 0);
            shelf.push(entry(at));
        }
        let pruning = keep(&shelf, policy, &holds, now);
        let gone: std::collections::BTreeSet<BackupId> = pruning.removals.iter().map(|gone| gone.id.clone()).collect();
        if day > 0 {
            removed += gone.len();
            kept += shelf.len() - gone.len();
            for id in &gone {
                let age = now.duration_since(id.second()).as_secs_f64() / DAY.as_secs_f64();
                early_days += (f64::from(min_days) - age).max(0.0);
            }
        }
        shelf.retain(|entry| !gone.contains(&entry.id));
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of a month")]
    let a_month = |count: usize| count as f64 / DAYS as f64 * HOURS_PER_MONTH / 24.0;
    #[expect(clippy::cast_precision_loss, reason = "counts of a month")]
    let kept = kept as f64 / DAYS as f64;
    Month {
        runs: a_month(runs),
        kept,
        removed: a_month(removed),
        early_days: early_days / 30.0 * HOURS_PER_MONTH / 24.0,
    }
}

/// The last backup of each day that any rule may still want, from before `until`.
fn older(config: &Config, run: Duration, policy: &Retention, until: Timestamp, begin: Timestamp) -> Vec<Entry> {
    let generations = &policy.generations;
    let days = [
        policy.keep_days,
        generations.daily,
        generations.weekly * 7,
        generations.monthly * 31,
        generations.yearly * 366,
    ];
    let days = days.into_iter().max().unwrap_or(0) + 31;
    let from = add(begin, -DAY * i32::try_from(days).unwrap_or(i32::MAX));
    let mut found: Vec<Entry> = Vec::new();
    let mut day = from;
    while day < until {
        let next = add(day, DAY).min(until);
        found.extend(last_start(config, run, day, next).map(entry));
        day = next;
    }
    found
}

/// When runs start in `[from, until)`: a run that is still under way skips what is due.
pub fn starts(config: &Config, run: Duration, from: Timestamp, until: Timestamp) -> Vec<Timestamp> {
    let mut found = Vec::new();
    let mut at = from;
    match &config.backup.schedule {
        Schedule::KeepRpo => {
            while at < until {
                found.push(at);
                let end = add(at, signed(run));
                // A target of nothing would never come on.
                at = rpo::next_start(at, config.targets.rpo, run, end)
                    .at()
                    .max(add(at, SignedDuration::from_secs(1)));
            }
        }
        Schedule::Cron(text) => {
            let Ok(cron) = parse_cron(text) else { return found };
            let mut inclusive = true;
            while let Ok(next) = cron.find_next_occurrence(&at.to_zoned(TimeZone::UTC), inclusive) {
                let next = next.timestamp();
                if next >= until {
                    break;
                }
                found.push(next);
                inclusive = !run.is_zero();
                at = add(next, signed(run));
            }
        }
    }
    found
}

/// The last start in `[from, until)`. By cron text it is asked for backwards: a day may have thousands.
fn last_start(config: &Config, run: Duration, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
    match &config.backup.schedule {
        Schedule::KeepRpo => {
            let near = add(until, -signed(config.targets.rpo.saturating_add(run)));
            starts(config, run, near.max(from), until).pop()
        }
        Schedule::Cron(text) => {
            let cron = parse_cron(text).ok()?;
            let last = cron
                .find_previous_occurrence(&until.to_zoned(TimeZone::UTC), false)
                .ok()?;
            Some(last.timestamp()).filter(|at| *at >= from)
        }
    }
}

fn entry(at: Timestamp) -> Entry {
    let id = BackupId::at(at);
    Entry {
        blob: id.blob("b/"),
        id,
        etag: ETag(String::new()),
        size_bytes: 0,
        raw_bytes: 0,
        rows: 0,
        site: String::new(),
        epoch: 0,
        consistent_at: at,
        committed_at: at,
        digest: String::new(),
        standing: Standing::Good,
        proven_at: None,
        structure_checked_at: None,
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// Times of one schedule in a month, for a check that is not a backup (a proof, say).
pub fn ticks_a_month(cron: &str) -> f64 {
    let Ok(cron) = parse_cron(cron) else { return 0.0 };
    let weeks = 52.0;
    let Ok(end) = BEGIN.checked_add(364.days()) else {
        return 0.0;
    };
    let mut count = 0.0;
    let mut at = BEGIN;
    while let Ok(next) = cron.find_next_occurrence(&at, false) {
        if next >= end || count > 100_000.0 {
            break;
        }
        count += 1.0;
        at = next;
    }
    count / (weeks * 7.0) * HOURS_PER_MONTH / 24.0
}
