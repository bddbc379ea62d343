//! How far apart a cron schedule's runs can be: what its RPO is at best.

use std::time::Duration;

use croner::Cron;
use croner::parser::CronParser;
use jiff::civil::DateTime;
use jiff::{SignedDuration, Span};

/// An arbitrary Monday, the first of a year that is followed by a leap year's February. Everything is UTC.
const START: DateTime = DateTime::constant(2035, 1, 1, 0, 0, 0, 0);

/// Enough gaps to see a pattern that runs less than once a year, e.g. each 29 February.
const FEWEST_GAPS: u32 = 3;

/// Reads five cron fields, or six with seconds first. Nicknames (`@daily`) are refused: the file says what happens.
pub fn parse_cron(text: &str) -> Result<Cron, String> {
    let fields = text.split_whitespace().count();
    if text.contains('@') || !matches!(fields, 5 | 6) {
        return Err("needs five fields (minute hour day month weekday), or six with seconds first".into());
    }
    let cron = CronParser::new().parse(text).map_err(|_| {
        "is not a cron schedule: five fields (minute hour day month weekday), or six with seconds first".to_owned()
    })?;
    match cron.find_next_occurrence(&START, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err("never happens: there is no such date".into()),
    }
}

/// The longest time between two runs: over a week, or a year if the schedule names days of the month or months.
/// `None` for a schedule that runs out.
pub fn largest_gap(cron: &Cron) -> Option<Duration> {
    let end = START
        .checked_add(Span::new().days(if names_dates(cron) { 366 } else { 8 }))
        .ok()?;
    let mut at = cron.find_next_occurrence(&START, true).ok()?;
    let mut largest = SignedDuration::ZERO;
    let mut gaps = 0;
    while at < end || gaps < FEWEST_GAPS {
        // Leap as far as the largest gap seen: where the last run within that leap is later than `at`, no gap in
        // between can be larger. A schedule that runs each second would otherwise be walked second by second.
        let leap = largest.max(SignedDuration::from_mins(1));
        let within = at
            .checked_add(leap)
            .ok()
            .and_then(|limit| cron.find_previous_occurrence(&limit, true).ok());
        match within {
            Some(later) if later > at && gaps > 3_600 => at = later,
            _ => {
                let next = cron.find_next_occurrence(&at, false).ok()?;
                largest = largest.max(next.duration_since(at));
                at = next;
                gaps += 1;
            }
        }
    }
    largest.try_into().ok()
}

/// Whether some weeks are unlike others: a day of the month, a month, or a weekday counted within its month.
fn names_dates(cron: &Cron) -> bool {
    let text = cron.pattern.as_str();
    let every_month = text.split_whitespace().rev().nth(1).is_some_and(|months| months == "*");
    !cron.pattern.is_dom_wildcard() || !every_month || text.contains(['#', 'L', 'l'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap_of(text: &str) -> Option<Duration> {
        largest_gap(&parse_cron(text).unwrap())
    }

    #[test]
    fn the_largest_gap_is_the_longest_silence_not_the_usual_one() {
        let minutes = |count: u64| Some(Duration::from_secs(count * 60));
        assert_eq!(gap_of("*/5 * * * *"), minutes(5));
        assert_eq!(gap_of("0 3 * * *"), minutes(24 * 60));
        assert_eq!(gap_of("*/5 9-17 * * *"), minutes(15 * 60 + 5));
        assert_eq!(gap_of("0 * * * MON-FRI"), minutes(49 * 60));
        assert_eq!(gap_of("*/5 9-17 * * MON-FRI"), minutes(3 * 1440 - 8 * 60 - 55));
        assert_eq!(gap_of("0,50 * * * *"), minutes(50));
        // */7 restarts at each full hour: 56 and then 0, four minutes later, never more than seven.
        assert_eq!(gap_of("*/7 * * * *"), minutes(7));
        assert_eq!(gap_of("0 3 * * SUN"), minutes(7 * 24 * 60));
        assert_eq!(gap_of("0 3 1 * *"), minutes(31 * 24 * 60));
        // January's first week looks like every day; the month's end and the year's end do not.
        assert_eq!(gap_of("0 3 1-28 * *"), minutes(4 * 24 * 60));
        assert_eq!(gap_of("0 3 * 1-11 *"), minutes(32 * 24 * 60));
        assert_eq!(gap_of("0 3 * * 1#1"), minutes(35 * 24 * 60));
        assert_eq!(gap_of("0 0 29 2 *"), minutes(1461 * 24 * 60));
    }

    #[test]
    fn schedules_by_the_second_are_walked_in_leaps() {
        assert_eq!(gap_of("*/10 * * * * *"), Some(Duration::from_secs(10)));
        assert_eq!(gap_of("* * * * * *"), Some(Duration::from_secs(1)));
        assert_eq!(gap_of("* * 0-5 * * *"), Some(Duration::from_secs(18 * 3600 + 1)));
        assert_eq!(gap_of("* * * * * MON"), Some(Duration::from_secs(6 * 86_400 + 1)));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * * *",
            "@daily",
            "61 * * * *",
            "* * * * FUN",
            "every five minutes ok now",
            "0 0 30 2 *",
        ] {
            assert!(parse_cron(text).is_err(), "{text}");
        }
    }
}
