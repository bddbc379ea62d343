//! When runs are due by cron text, in UTC. Pure: the time comes in.
//!
//! A tick that passes while a run is still going, or while the machine sleeps, is gone: counted, never queued.
//! Whether the agent catches up at once is decided by the RPO (`state.rs`), not here.

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::cadence;

/// Cron text, parsed.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error(
        "{text:?} has {found} fields; a schedule has five (minute hour day month weekday) or six (second first), in UTC, or is \"keep-rpo\""
    )]
    Fields { text: String, found: usize },
    #[error("{text:?} is not a cron schedule: {detail}")]
    Cron { text: String, detail: String },
    #[error("{text:?} never comes round")]
    Never { text: String },
}

impl Cron {
    /// Reads five fields, or six with seconds first. `from` is any recent time: a schedule that has no tick after
    /// it (30 February) is refused.
    pub fn parse(text: &str, from: Timestamp) -> Result<Self, ScheduleError> {
        let found = text.split_whitespace().count();
        if found != 5 && found != 6 {
            return Err(ScheduleError::Fields {
                text: text.to_owned(),
                found,
            });
        }
        let parsed = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Disallowed)
            .build()
            .parse(text)
            .map_err(|e| ScheduleError::Cron {
                text: text.to_owned(),
                detail: e.to_string(),
            })?;
        let cron = Self {
            text: text.to_owned(),
            parsed,
        };
        match cron.next_after(from) {
            Some(_) => Ok(cron),
            None => Err(ScheduleError::Never { text: text.to_owned() }),
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first tick strictly after `now`.
    pub fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self
            .parsed
            .find_next_occurrence(&now.to_zoned(TimeZone::UTC), false)
            .ok()?
            .timestamp();
        (next > now).then_some(next)
    }

    /// Ticks in `(after, until]`; counting stops at 10,000.
    pub fn ticks_between(&self, after: Timestamp, until: Timestamp) -> u64 {
        let ticks = std::iter::successors(self.next_after(after), |&tick| self.next_after(tick));
        ticks
            .take(10_000)
            .take_while(|&tick| tick <= until)
            .fold(0, |count, _| count + 1)
    }

    /// The longest time between two ticks: the interval that a worst case is made of.
    pub fn largest_gap(&self) -> Option<Duration> {
        cadence::largest_gap(&self.parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn t(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn cron(text: &str) -> Cron {
        Cron::parse(text, t("2025-12-27T00:00:00Z")).expect("a schedule")
    }

    #[test]
    fn five_or_six_fields_in_utc() {
        let now = t("2025-12-27T03:04:59.5Z");
        assert_eq!(cron("*/5 * * * *").next_after(now), Some(t("2025-12-27T03:05:00Z")));
        assert_eq!(
            cron("*/5 * * * *").next_after(t("2025-12-27T03:05:00Z")),
            Some(t("2025-12-27T03:10:00Z"))
        );
        assert_eq!(cron("30 */5 * * * *").next_after(now), Some(t("2025-12-27T03:05:30Z")));
        assert_eq!(cron("0 9 * * MON-FRI").next_after(now), Some(t("2025-12-29T09:00:00Z")));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let from = t("2025-12-27T00:00:00Z");
        for text in ["", "* * * *", "* * * * * * *", "@hourly", "keep-rpo"] {
            assert!(
                matches!(Cron::parse(text, from), Err(ScheduleError::Fields { .. })),
                "{text}"
            );
        }
        for text in ["61 * * * *", "a b c d e", "*/0 * * * *", "5-1 * * * *"] {
            assert!(
                matches!(Cron::parse(text, from), Err(ScheduleError::Cron { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            Cron::parse("0 0 30 2 *", from),
            Err(ScheduleError::Never { .. })
        ));
    }

    #[test]
    fn missed_ticks_are_counted() {
        let c = cron("*/5 * * * *");
        assert_eq!(c.ticks_between(t("2025-12-27T03:00:00Z"), t("2025-12-27T03:15:00Z")), 3);
        assert_eq!(c.ticks_between(t("2025-12-27T03:15:00Z"), t("2025-12-27T03:00:00Z")), 0);
    }
}
