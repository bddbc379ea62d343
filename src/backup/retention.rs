//! What is kept and what may go: a pure function of backups, policy, holds and the store's clock.
//!
//! The representative of an hour (day, week, month, year; all UTC) is the *newest* good backup in it. The newest
//! of a day is the newest of its own hour too, so the coarser rule always finds what the finer one left behind,
//! and thinning as time passes ends where thinning once at the end would have: no promised hour or day is lost.
//! Anything doubtful is kept. See "Retention" in the design; `tests/retention.rs` holds the proofs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::backup::entry::{BackupId, Entry, Standing};
use crate::config::Retention;
use crate::store::ETag;

/// From this difference between the local and the store's clock on, one of them is wrong and nothing is removed.
pub const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// At most one good backup in so many goes in one run, unless a person says so.
const ONE_IN: usize = 5;

/// What forbids removing, wholly or in part, right now. The default holds nothing back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// While any stands, nothing at all is removed.
    pub freezes: Vec<Freeze>,
    /// Some operation (a failback, say) is open: orphans are its evidence and stay.
    pub operation_open: bool,
    /// Backups that somebody is restoring from, or began from and is not home yet.
    pub restoring_from: BTreeSet<BackupId>,
}

/// Why nothing at all may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freeze {
    Failover,
    /// The other site serves, and keeps the shelf.
    NotServing,
    Drill,
    RpoBreach,
    /// Local clock minus the store's.
    ClockSkew(SignedDuration),
}

impl Freeze {
    /// The freeze that these two readings of the time call for.
    pub fn for_clocks(local: Timestamp, store: Timestamp) -> Option<Self> {
        let skew = local.duration_since(store);
        (skew.abs() >= MAX_CLOCK_SKEW).then_some(Self::ClockSkew(skew))
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failover => f.write_str("a failover is open"),
            Self::NotServing => f.write_str("the other site serves: whoever protects it removes what is not needed"),
            Self::Drill => f.write_str("a drill is open"),
            Self::RpoBreach => f.write_str("the RPO is breached: every backup may be the one that is needed"),
            Self::ClockSkew(skew) => write!(
                f,
                "the local clock is {} s {} the store's; correct it first",
                skew.abs().as_secs(),
                if skew.is_negative() { "behind" } else { "ahead of" }
            ),
        }
    }
}

/// Why a backup is kept. One can have many reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Younger than `keep_all`, by its own date or by when it landed.
    Young,
    NewestOfHour,
    NewestOfDay,
    DailyGeneration,
    WeeklyGeneration,
    MonthlyGeneration,
    YearlyGeneration,
    /// One of the newest `keep_at_least` good ones.
    Floor,
    NewestProven,
    RestoringFrom,
    /// Dated or landed later than the store's clock says it is now: a clock is wrong.
    FutureDated,
    Preserved,
    Unusable,
    /// An orphan while an operation is open.
    Evidence,
    /// An orphan younger than the longest rule.
    RecentOrphan,
    /// Nothing is removed at all, see [`Pruning::freezes`].
    Frozen,
    /// May go, but a later run does it: no more than a fifth in one run.
    Deferred,
}

/// Why a backup goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    NotNewestOfHour,
    NotNewestOfDay,
    /// Older than every rule, and no generation wants it.
    PastEveryRule,
    /// The same, of a site that no longer served.
    OrphanPastEveryRule,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNewestOfHour => "not the newest of its hour",
            Self::NotNewestOfDay => "not the newest of its day",
            Self::PastEveryRule => "older than every retention rule",
            Self::OrphanPastEveryRule => "an orphan older than every retention rule",
        })
    }
}

/// One version of one backup that goes, and the kept, newer, good ones that make that safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub id: BackupId,
    pub blob: String,
    pub etag: ETag,
    pub size_bytes: u64,
    pub because: Because,
    /// Never empty.
    pub kept_instead: Vec<BackupId>,
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; kept instead:", self.blob, self.because)?;
        self.kept_instead.iter().try_for_each(|id| write!(f, " {id}"))
    }
}

/// One backup that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub id: BackupId,
    pub blob: String,
    pub etag: ETag,
    /// Never empty; in order, without repetition.
    pub reasons: BTreeSet<Reason>,
}

/// What retention wants. Nothing acts on it before [`Pruning::approve`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruning {
    /// In the order given.
    pub kept: Vec<Kept>,
    /// Oldest first.
    pub removals: Vec<Removal>,
    /// Not empty: nothing is removed, for these reasons.
    pub freezes: Vec<Freeze>,
    /// Good backups looked at; the fifth is counted from these.
    pub good: usize,
}

/// What to do about more removals than a fifth of the good backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The agent: the oldest fifth now, the rest in later runs.
    Defer,
    /// The command line: nothing, and an explanation.
    Refuse,
    /// A person said so (`--allow-many`).
    Allow,
}

/// A pruning that may be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approved(Pruning);

impl Approved {
    pub fn pruning(&self) -> &Pruning {
        &self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "retention would remove {removals} of {good} good backups in one run, and more than {limit} (a fifth) needs a \
     person's word: look at `planb prune --dry-run`, then repeat with --allow-many"
)]
pub struct TooMany {
    pub removals: usize,
    pub good: usize,
    pub limit: usize,
}

impl Pruning {
    /// Applies the limit of a fifth in one run. With fewer than five good backups, that is none at all.
    pub fn approve(mut self, excess: Excess) -> Result<Approved, TooMany> {
        let limit = self.good / ONE_IN;
        if self.removals.len() > limit {
            match excess {
                Excess::Allow => {}
                Excess::Refuse => {
                    return Err(TooMany {
                        removals: self.removals.len(),
                        good: self.good,
                        limit,
                    });
                }
                Excess::Defer => self
                    .kept
                    .extend(self.removals.split_off(limit).into_iter().map(|later| Kept {
                        id: later.id,
                        blob: later.blob,
                        etag: later.etag,
                        reasons: BTreeSet::from([Reason::Deferred]),
                    })),
            }
        }
        Ok(Approved(self))
    }
}

/// Decides for every backup whether it stays. `now` is the store's clock.
pub fn keep(backups: &[Entry], policy: &Retention, holds: &Holds, now: Timestamp) -> Pruning {
    let mut reasons: Vec<BTreeSet<Reason>> = backups.iter().map(|b| own_reasons(b, policy, holds, now)).collect();

    // Only good backups of the past can stand for a period or fill the floor: one dated in the future is kept,
    // but if its date is wrong it must not push a real one out.
    let mut good: Vec<usize> = (0..backups.len())
        .filter(|&i| backups[i].standing == Standing::Good && !reasons[i].contains(&Reason::FutureDated))
        .collect();
    good.sort_by_key(|&i| (backups[i].consistent_at, &backups[i].id, i));

    // At least one, whatever the policy says.
    let floor = usize::try_from(policy.keep_at_least).unwrap_or(usize::MAX).max(1);
    for &i in good.iter().rev().take(floor) {
        reasons[i].insert(Reason::Floor);
    }
    if let Some(&i) = good.iter().rev().find(|&&i| backups[i].proven_at.is_some()) {
        reasons[i].insert(Reason::NewestProven);
    }

    let newest_of = |period: fn(Timestamp) -> i64| -> BTreeMap<i64, usize> {
        good.iter().map(|&i| (period(backups[i].consistent_at), i)).collect()
    };
    let (hours, days) = (newest_of(hour), newest_of(day));
    for (newest, reason, horizon) in [
        (&hours, Reason::NewestOfHour, signed(policy.keep_hourly)),
        (&days, Reason::NewestOfDay, days_long(policy.keep_days)),
    ] {
        for &i in newest.values().filter(|&&i| age(&backups[i], now) <= horizon) {
            reasons[i].insert(reason);
        }
    }
    for (newest, reason, count) in [
        (&days, Reason::DailyGeneration, policy.generations.daily),
        (&newest_of(week), Reason::WeeklyGeneration, policy.generations.weekly),
        (&newest_of(month), Reason::MonthlyGeneration, policy.generations.monthly),
        (&newest_of(year), Reason::YearlyGeneration, policy.generations.yearly),
    ] {
        for &i in newest.values().rev().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            reasons[i].insert(reason);
        }
    }
    if !holds.freezes.is_empty() {
        reasons.iter_mut().for_each(|r| {
            r.insert(Reason::Frozen);
        });
    }

    let kept_good: Vec<&Entry> = good
        .iter()
        .filter(|&&i| !reasons[i].is_empty())
        .map(|&i| &backups[i])
        .collect();
    let mut pruning = Pruning {
        kept: Vec::new(),
        removals: Vec::new(),
        freezes: holds.freezes.clone(),
        good: backups.iter().filter(|b| b.standing == Standing::Good).count(),
    };
    for (backup, mut why) in backups.iter().zip(reasons) {
        if why.is_empty() {
            match removal(backup, policy, &kept_good, now) {
                Some(removal) => {
                    pruning.removals.push(removal);
                    continue;
                }
                // Nothing newer makes the loss good (an orphan newer than every good backup).
                None => why.insert(Reason::Evidence),
            };
        }
        pruning.kept.push(Kept {
            id: backup.id.clone(),
            blob: backup.blob.clone(),
            etag: backup.etag.clone(),
            reasons: why,
        });
    }
    pruning.removals.sort_by(|a, b| (&a.id, &a.blob).cmp(&(&b.id, &b.blob)));
    pruning
}

/// The reasons to keep a backup that do not depend on the others.
fn own_reasons(backup: &Entry, policy: &Retention, holds: &Holds, now: Timestamp) -> BTreeSet<Reason> {
    let longest = signed(policy.keep_all)
        .max(signed(policy.keep_hourly))
        .max(days_long(policy.keep_days));
    // One dated long ago that landed just now (a long run, a wrong clock, a copied store) is young all the same.
    let youngest_age = age(backup, now).min(now.duration_since(backup.committed_at));
    let orphan = backup.standing == Standing::Orphan;
    [
        (youngest_age <= signed(policy.keep_all), Reason::Young),
        (
            backup.consistent_at > now || backup.committed_at > now,
            Reason::FutureDated,
        ),
        (holds.restoring_from.contains(&backup.id), Reason::RestoringFrom),
        (backup.standing == Standing::Preserved, Reason::Preserved),
        (matches!(backup.standing, Standing::Unusable(_)), Reason::Unusable),
        (orphan && holds.operation_open, Reason::Evidence),
        (orphan && youngest_age <= longest, Reason::RecentOrphan),
    ]
    .into_iter()
    .filter_map(|(holds, reason)| holds.then_some(reason))
    .collect()
}

/// Why this backup may go, and for whose sake; `None` if no newer good one is kept. `kept_good` is oldest first.
fn removal(backup: &Entry, policy: &Retention, kept_good: &[&Entry], now: Timestamp) -> Option<Removal> {
    let newer = &kept_good[kept_good.partition_point(|kept| kept.consistent_at <= backup.consistent_at)..];
    // A period's newest one comes last within it; equal dates make the later id the newest.
    let of_same = |period: fn(Timestamp) -> i64| {
        let wanted = period(backup.consistent_at);
        kept_good
            .iter()
            .rev()
            .find(|kept| period(kept.consistent_at) == wanted && kept.id > backup.id)
    };
    let old = age(backup, now);
    let orphan = backup.standing == Standing::Orphan;
    let same_hour = of_same(hour).filter(|_| !orphan && old <= signed(policy.keep_hourly));
    let same_day = of_same(day).filter(|_| !orphan && old <= days_long(policy.keep_days));
    let (because, kept_instead) = match (same_hour, same_day) {
        (Some(newest), _) => (Because::NotNewestOfHour, vec![newest.id.clone()]),
        (None, Some(newest)) => (Because::NotNewestOfDay, vec![newest.id.clone()]),
        (None, None) => {
            let because = if orphan {
                Because::OrphanPastEveryRule
            } else {
                Because::PastEveryRule
            };
            let ends: BTreeSet<&BackupId> = newer.first().into_iter().chain(newer.last()).map(|b| &b.id).collect();
            (because, ends.into_iter().cloned().collect())
        }
    };
    (!kept_instead.is_empty()).then(|| Removal {
        id: backup.id.clone(),
        blob: backup.blob.clone(),
        etag: backup.etag.clone(),
        size_bytes: backup.size_bytes,
        because,
        kept_instead,
    })
}

fn age(backup: &Entry, now: Timestamp) -> SignedDuration {
    now.duration_since(backup.consistent_at)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn days_long(days: u32) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days))
}

fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

fn day(at: Timestamp) -> i64 {
    at.as_second().div_euclid(86_400)
}

/// Weeks begin on Monday; 1970-01-01 was a Thursday.
fn week(at: Timestamp) -> i64 {
    (day(at) + 3).div_euclid(7)
}

fn month(at: Timestamp) -> i64 {
    let date = at.to_zoned(TimeZone::UTC).date();
    i64::from(date.year()) * 12 + i64::from(date.month())
}

fn year(at: Timestamp) -> i64 {
    i64::from(at.to_zoned(TimeZone::UTC).year())
}
