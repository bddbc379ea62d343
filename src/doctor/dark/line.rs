//! What the looks in the dark come to, in one line for `planb check`.

use std::time::Duration;

use jiff::Timestamp;

use super::{age, days};
use crate::doctor::check::{Level, Line, line};
use crate::prepare::record::Looked;

/// They look daily; a night may be missed.
const SILENT: Duration = Duration::from_secs(3 * 86_400);

/// Of `looks`, as `prepare::record::standing` gives them. `is_scheduled`: whether somebody is to look by the clock.
pub fn line_of(looks: &[Looked], is_scheduled: bool, now: Timestamp) -> Line {
    let wrong: Vec<String> = looks
        .iter()
        .filter(|one| one.errors > 0)
        .map(|one| {
            let first = one.worst.first().map_or("", String::as_str);
            format!(
                "{} would fail tonight (the {} on {}, {} ago), first {first}",
                one.errors,
                one.looker.word(),
                one.host,
                days(now, one.at)
            )
        })
        .collect();
    let newest = looks.iter().map(|one| one.at).max();
    let (level, text) = match newest {
        _ if !wrong.is_empty() => (Level::Warning, wrong.join("; ")),
        None if is_scheduled => (
            Level::Warning,
            "nobody looked in the dark yet: planb doctor --dark".to_owned(),
        ),
        None => (Level::Ok, "nobody looks in the dark".to_owned()),
        Some(at) if is_scheduled && age(now, at) > SILENT => (
            Level::Warning,
            format!("nobody looked in the dark for {}: does the agent run?", days(now, at)),
        ),
        Some(at) => (
            Level::Ok,
            format!("nothing would fail tonight (looked {} ago)", days(now, at)),
        ),
    };
    line(level, "dark", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::record::Looker;

    #[test]
    fn a_look_that_found_something_and_one_that_nobody_took_are_both_told() {
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().expect("a time");
        let looked = |at: &str, errors| Looked {
            v: 1,
            at: at.parse().expect("a time"),
            host: "vm".to_owned(),
            looker: Looker::Agent,
            errors,
            warnings: 0,
            worst: vec!["secrets: none".to_owned()],
            reached: Vec::new(),
        };
        let told = |looks: &[Looked], is_scheduled| line_of(looks, is_scheduled, now);
        let found = told(
            &[looked("2026-01-09T04:30:00Z", 0), looked("2026-01-09T04:30:00Z", 2)],
            true,
        );
        assert!(
            found.level == Level::Warning && found.text.contains("2 would fail tonight"),
            "{found:?}"
        );
        assert!(found.text.contains("secrets: none"), "{found:?}");
        assert_eq!(told(&[], true).level, Level::Warning);
        assert_eq!(told(&[], false).level, Level::Ok);
        assert_eq!(told(&[looked("2026-01-09T04:30:00Z", 0)], true).level, Level::Ok);
        assert!(
            told(&[looked("2026-01-01T04:30:00Z", 0)], true)
                .text
                .contains("does the agent run")
        );
        assert_eq!(told(&[looked("2026-01-01T04:30:00Z", 0)], false).level, Level::Ok);
    }
}
