//! How much would be lost now, whether a schedule can meet the target, and when the next run has to start.
//!
//! Loss counts from the instant the data was consistent, never from when an upload ended. The worst case of a
//! schedule is therefore its interval *plus* the time from snapshot to commit: just before a commit lands, the
//! newest backup is one interval older than the snapshot that is about to replace it.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::backup::entry::{BackupId, Entry, Standing};

/// Whether the target holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Met,
    /// Met now, but the next backup is not expected to land before it is breached.
    AtRisk,
    /// More would be lost than the target allows; also when there is no good backup at all.
    Breached,
    /// Nobody could look into the store yet.
    Unknown,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::AtRisk => "at_risk",
            Self::Breached => "breached",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The answer, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rpo {
    /// `None`: unknown, or everything (no good backup); `state` tells which.
    pub loss_now: Option<Duration>,
    pub newest: Option<BackupId>,
    pub newest_proven: Option<BackupId>,
    pub state: State,
}

impl Rpo {
    pub const UNKNOWN: Self = Self {
        loss_now: None,
        newest: None,
        newest_proven: None,
        state: State::Unknown,
    };
}

impl fmt::Display for Rpo {
    /// One line for a status: `RPO met: 42 s would be lost, newest backup-…, newest proven backup-…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, &self.newest, self.loss_now) {
            (State::Unknown, _, _) => return f.write_str("RPO unknown: the store has not answered yet"),
            (state, Some(newest), Some(loss)) => {
                let state = if state == State::AtRisk {
                    "at risk"
                } else {
                    state.as_str()
                };
                write!(f, "RPO {state}: {} s would be lost, newest {newest}", loss.as_secs())?;
            }
            (state, _, _) => return write!(f, "RPO {state}: there is no good backup, everything would be lost"),
        }
        match &self.newest_proven {
            Some(proven) => write!(f, ", newest proven {proven}"),
            None => f.write_str(", none proven"),
        }
    }
}

/// The newest good and the newest proven good backup of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Newest {
    pub good: Option<Point>,
    pub proven: Option<Point>,
}

/// A backup and the instant its data is known to be from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    pub id: BackupId,
    /// `consistent_at`, but never later than its commit: data cannot be newer than the blob that holds it, and a
    /// backup dated tomorrow by a wrong clock must not make the RPO look met until then.
    pub data_from: Timestamp,
}

impl Newest {
    pub fn of(backups: &[Entry]) -> Self {
        let points = |proven_only: bool| {
            backups
                .iter()
                .filter(|b| b.standing == Standing::Good && (!proven_only || b.proven_at.is_some()))
                .map(|b| Point {
                    id: b.id.clone(),
                    data_from: b.consistent_at.min(b.committed_at),
                })
                .max_by(|a, b| (a.data_from, &a.id).cmp(&(b.data_from, &b.id)))
        };
        Self {
            good: points(false),
            proven: points(true),
        }
    }

    /// The RPO at `now` (the store's clock). `next_commit`: when the next backup is expected to land; `None` if
    /// nothing is planned.
    pub fn assess(&self, target: Duration, next_commit: Option<Timestamp>, now: Timestamp) -> Rpo {
        let newest_proven = self.proven.as_ref().map(|p| p.id.clone());
        let Some(newest) = &self.good else {
            return Rpo {
                loss_now: None,
                newest: None,
                newest_proven,
                state: State::Breached,
            };
        };
        let allowed = signed(target);
        let loss = now.duration_since(newest.data_from);
        let state = if loss > allowed {
            State::Breached
        } else if next_commit.is_none_or(|at| at.duration_since(newest.data_from) > allowed) {
            State::AtRisk
        } else {
            State::Met
        };
        Rpo {
            loss_now: Some(Duration::try_from(loss).unwrap_or(Duration::ZERO)),
            newest: Some(newest.id.clone()),
            newest_proven,
            state,
        }
    }
}

/// The most that can be lost under a schedule whose ticks are at most `interval` apart and whose runs take `run`
/// from snapshot to commit: interval plus run. A run that outlasts its interval skips ticks, so its interval is
/// then the next whole number of them.
pub fn worst_case(interval: Duration, run: Duration) -> Duration {
    let ticks = run.as_nanos().div_ceil(interval.as_nanos().max(1)).max(1);
    interval
        .saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX))
        .saturating_add(run)
}

/// Whether a schedule can meet the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feasibility {
    Meets { worst_case: Duration },
    Misses { worst_case: Duration, target: Duration },
}

impl fmt::Display for Feasibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meets { worst_case } => write!(f, "at worst {} s would be lost", worst_case.as_secs()),
            Self::Misses { worst_case, target } => write!(
                f,
                "at worst {} s would be lost (interval plus snapshot to commit), more than the {} s of targets.rpo; \
                 use schedule = \"keep-rpo\", a shorter interval, or a larger target",
                worst_case.as_secs(),
                target.as_secs()
            ),
        }
    }
}

/// Judges a schedule by its largest gap between starts and by how long a run takes.
pub fn feasibility(interval: Duration, run: Duration, target: Duration) -> Feasibility {
    let worst_case = worst_case(interval, run);
    if worst_case <= target {
        Feasibility::Meets { worst_case }
    } else {
        Feasibility::Misses { worst_case, target }
    }
}

/// When the next run has to start so that it lands in time (`schedule = "keep-rpo"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStart {
    At(Timestamp),
    /// Too late already, or runs take too long: as soon as may be, and by how much it will miss.
    TooLate {
        start: Timestamp,
        by: Duration,
    },
}

impl NextStart {
    pub fn at(self) -> Timestamp {
        match self {
            Self::At(start) | Self::TooLate { start, .. } => start,
        }
    }
}

/// Pause after a run, so that back-to-back runs leave the source room to breathe.
pub const MIN_PAUSE: Duration = Duration::from_secs(5);

/// The latest start that lets the commit land before `data_from + target`, given how long a slow run takes
/// (a high quantile, see [`RunTimes`]), but not before `previous_end` plus [`MIN_PAUSE`]: runs never overlap.
pub fn next_start(data_from: Timestamp, target: Duration, slow_run: Duration, previous_end: Timestamp) -> NextStart {
    let needed = slow_run.saturating_add(margin(target, slow_run));
    let latest = plus(data_from, signed(target).saturating_sub(signed(needed)));
    let earliest = plus(previous_end, signed(MIN_PAUSE));
    if latest >= earliest {
        NextStart::At(latest)
    } else {
        NextStart::TooLate {
            start: earliest,
            by: Duration::try_from(earliest.duration_since(latest)).unwrap_or(Duration::ZERO),
        }
    }
}

/// Whether keep-rpo can work at all: each run starts where its predecessor's data is already one run (plus pause)
/// old, and takes one run itself.
pub fn keep_rpo_feasibility(slow_run: Duration, target: Duration) -> Feasibility {
    let interval = slow_run
        .saturating_add(MIN_PAUSE)
        .saturating_add(margin(target, slow_run));
    feasibility(interval, slow_run, target)
}

/// Room for a run slower than all lately: a quarter of it, or a twentieth of the target if that is more.
fn margin(target: Duration, slow_run: Duration) -> Duration {
    (slow_run / 4).max(target / 20)
}

/// How long recent runs took from snapshot to commit.
#[derive(Debug, Clone, Default)]
pub struct RunTimes {
    recent: VecDeque<Duration>,
}

impl RunTimes {
    /// A few hours of five-minute runs: old enough to know slow ones, young enough to follow a growing database.
    const REMEMBERED: usize = 48;

    /// From a listing: what an agent knows right after a restart.
    pub fn of(backups: &[Entry]) -> Self {
        let mut good: Vec<&Entry> = backups.iter().filter(|b| b.standing == Standing::Good).collect();
        good.sort_by_key(|b| b.committed_at);
        let mut times = Self::default();
        for backup in good {
            // A negative span is a wrong clock, not a fast run.
            if let Ok(took) = Duration::try_from(backup.committed_at.duration_since(backup.consistent_at)) {
                times.note(took);
            }
        }
        times
    }

    pub fn note(&mut self, snapshot_to_commit: Duration) {
        if self.recent.len() == Self::REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(snapshot_to_commit);
    }

    /// A slow run: the 95th percentile (nearest rank); `None` before the first run.
    pub fn slow(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.recent.is_empty()
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn plus(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a date")
    }

    fn newest(data_from: i64) -> Newest {
        Newest {
            good: Some(Point {
                id: BackupId::at(at(data_from)),
                data_from: at(data_from),
            }),
            proven: None,
        }
    }

    const MIN5: Duration = Duration::from_secs(300);

    #[test]
    fn state_follows_loss_and_the_next_commit() {
        let n = newest(0);
        assert_eq!(n.assess(MIN5, Some(at(300)), at(60)).state, State::Met);
        assert_eq!(n.assess(MIN5, Some(at(301)), at(60)).state, State::AtRisk);
        assert_eq!(n.assess(MIN5, None, at(60)).state, State::AtRisk);
        assert_eq!(n.assess(MIN5, Some(at(302)), at(301)).state, State::Breached);
        assert_eq!(n.assess(MIN5, None, at(60)).loss_now, Some(Duration::from_secs(60)));
        assert_eq!(
            Newest::default().assess(MIN5, Some(at(1)), at(0)).state,
            State::Breached
        );
    }

    #[test]
    fn a_backup_dated_tomorrow_does_not_hide_the_loss() {
        let entry = |consistent: i64, committed: i64| Entry {
            id: BackupId::at(at(consistent)),
            blob: String::new(),
            etag: crate::store::ETag(String::new()),
            size_bytes: 0,
            raw_bytes: 0,
            rows: 0,
            site: String::new(),
            epoch: 0,
            consistent_at: at(consistent),
            committed_at: at(committed),
            digest: String::new(),
            standing: Standing::Good,
            proven_at: None,
            structure_checked_at: None,
        };
        let rpo = Newest::of(&[entry(86_400, 10), entry(0, 5)]).assess(MIN5, None, at(400));
        assert_eq!(
            (rpo.loss_now, rpo.state),
            (Some(Duration::from_secs(390)), State::Breached)
        );
    }

    #[test]
    fn worst_case_is_interval_plus_snapshot_to_commit() {
        let run = Duration::from_secs(20);
        assert!(matches!(feasibility(MIN5, run, MIN5), Feasibility::Misses { .. }));
        assert_eq!(worst_case(MIN5, MIN5 * 2 + run), MIN5 * 5 + run, "it skips two ticks");
        assert!(matches!(feasibility(MIN5 - run, run, MIN5), Feasibility::Meets { worst_case } if worst_case == MIN5));
    }

    #[test]
    fn keep_rpo_starts_so_that_the_commit_lands_in_time_or_says_it_cannot() {
        let run = Duration::from_secs(60);
        assert_eq!(next_start(at(0), MIN5, run, at(60)), NextStart::At(at(225)));
        assert!(matches!(keep_rpo_feasibility(run, MIN5), Feasibility::Meets { .. }));
        let slow = Duration::from_secs(160);
        let late = next_start(at(0), MIN5, slow, at(160));
        assert_eq!(
            late,
            NextStart::TooLate {
                start: at(165),
                by: Duration::from_secs(65)
            }
        );
        assert!(matches!(keep_rpo_feasibility(slow, MIN5), Feasibility::Misses { .. }));
    }

    #[test]
    fn a_slow_run_is_a_high_quantile_of_the_recent_ones() {
        let mut times = RunTimes::default();
        assert_eq!(times.slow(), None);
        (1..=100).for_each(|s| times.note(Duration::from_secs(s)));
        assert_eq!(
            times.slow(),
            Some(Duration::from_secs(98)),
            "46th of the last 48 (53..=100)"
        );
    }
}
