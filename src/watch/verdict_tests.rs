use proptest::prelude::*;

use super::*;
use crate::watch::quorum::tally;

const DEFAULT: Thresholds = Thresholds {
    failures: 3,
    successes: 2,
    within: Duration::from_secs(90),
    silence: Duration::from_secs(90),
};

fn outcome(letter: char) -> Outcome {
    match letter {
        '+' => Outcome::Good("up".to_owned()),
        '-' => Outcome::Bad("down".to_owned()),
        _ => Outcome::Mute("no password".to_owned()),
    }
}

/// One try every 30 s, a letter each; what is thought after each.
fn thought(tries: &str) -> String {
    let mut history = History::default();
    let mut thought = String::new();
    for (number, letter) in (0_u32..).zip(tries.chars()) {
        let at = Duration::from_secs(30) * number;
        if letter != '.' {
            history.hear(at, &outcome(letter), &DEFAULT);
        }
        thought.push(match history.health(at, &DEFAULT) {
            Health::Unknown => '?',
            Health::Healthy => 'H',
            Health::Unhealthy => 'U',
        });
    }
    thought
}

#[test]
fn three_failures_in_ninety_seconds_are_an_outage_and_two_successes_its_end() {
    for (tries, wanted) in [
        ("++++", "?HHH"),
        ("---", "??U"),
        ("++---++", "?HHHUUH"),
        // A flap is no outage, and one good answer is no recovery.
        ("++--+--+--+", "?HHHHHHHHHH"),
        ("---+--+-++", "??UUUUUUUH"),
        // Who cannot ask learns nothing, and after a while knows nothing.
        ("++mmm", "?HHHH"),
        ("++mmmm", "?HHHH?"),
        ("--m-", "???U"),
        ("---mmmm", "??UUUU?"),
        // Nobody asked for a while: what was before does not count.
        ("++....--", "?HHHH???"),
        ("--....-", "???????"),
    ] {
        assert_eq!(thought(tries), wanted, "{tries}");
    }
}

#[test]
fn failures_too_far_apart_are_no_outage() {
    let mut history = History::default();
    for seconds in [0, 60, 120, 180] {
        history.hear(Duration::from_secs(seconds), &outcome('-'), &DEFAULT);
        assert_eq!(history.health(Duration::from_secs(seconds), &DEFAULT), Health::Unknown);
    }
}

fn seen(plane: Plane, health: Health, is_mute: bool) -> Seen {
    Seen {
        probe: "p".to_owned(),
        kind: "http".to_owned(),
        plane,
        health,
        is_mute,
        said: String::new(),
    }
}

#[test]
fn the_control_plane_says_nothing_about_the_data_plane() {
    use Health::{Healthy, Unhealthy, Unknown};
    let up = seen(Plane::Data, Healthy, false);
    let down = seen(Plane::Control, Unhealthy, false);
    let both = [up.clone(), down];
    assert_eq!(of_plane(&both, Plane::Data), Some(Healthy));
    assert_eq!(of_plane(&both, Plane::Control), Some(Unhealthy));
    let one = std::slice::from_ref(&up);
    assert_eq!(of_plane(one, Plane::Control), None);
    // One that is down is enough; one that has not decided yet leaves it open; one that cannot ask is left out.
    for (others, wanted) in [
        (vec![(Unhealthy, false)], Unhealthy),
        (vec![(Unknown, false)], Unknown),
        (vec![(Unknown, true)], Healthy),
        (vec![(Unknown, false), (Unhealthy, false)], Unhealthy),
    ] {
        let mut all = vec![up.clone()];
        all.extend(others.into_iter().map(|(health, mute)| seen(Plane::Data, health, mute)));
        assert_eq!(of_plane(&all, Plane::Data), Some(wanted), "{all:?}");
    }
    assert_eq!(
        of_plane(&[seen(Plane::Data, Unknown, true)], Plane::Data),
        Some(Unknown)
    );
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn of(verdict: Health) -> Tally {
    let mut tally = tally(&[], |_| Ok(None), at(0), Duration::ZERO);
    tally.verdict = verdict;
    tally
}

#[test]
fn a_ruling_changes_once_and_not_again_before_it_cooled_down() {
    use Health::{Healthy, Unhealthy, Unknown};
    let minute = Duration::from_secs(60);
    let next = |current: Option<&Ruling>, verdict, now| rule(current, &of(verdict), at(now), minute, "tokyo", "1f");
    assert_eq!(next(None, Unknown, 0), None);
    let first = next(None, Healthy, 0).expect("the first");
    assert!(!first.is_news(), "that all is well is no news");
    assert_eq!(next(Some(&first), Healthy, 500), None);
    assert_eq!(next(Some(&first), Unknown, 500), None, "not knowing is no change");
    assert_eq!(next(Some(&first), Unhealthy, 59), None, "it cools down");
    let down = next(Some(&first), Unhealthy, 60).expect("an outage");
    assert!(down.is_news() && down.number == 2 && down.before == Some(at(0)));
    assert_eq!(next(Some(&down), Healthy, 100), None, "it cools down");
    let up = next(Some(&down), Healthy, 120).expect("a recovery");
    assert!(up.is_news() && up.number == 3);
    // The store's clock was set back an hour: nobody waits an hour.
    assert!(next(Some(&up), Unhealthy, -3_600).is_some());
    assert!(next(None, Unhealthy, 0).expect("an outage from the first").is_news());
}

proptest! {
    /// Whatever came before: after three failures in a row it is never healthy, after two successes never unhealthy, and it turns
    /// only when its threshold is met.
    #[test]
    fn a_finding_follows_from_the_last_tries(tries in "[+-]{1,40}") {
        let thought = thought(&tries);
        for (end, now) in (1..).zip(thought.chars()) {
            let so_far = &tries[..end];
            let before = thought[..end - 1].chars().next_back();
            prop_assert!(!(so_far.ends_with("---") && now != 'U'), "{so_far} {now}");
            prop_assert!(!(so_far.ends_with("++") && now != 'H'), "{so_far} {now}");
            if before != Some(now) {
                prop_assert!((now == 'U' && so_far.ends_with("---")) || (now == 'H' && so_far.ends_with("++")) || end == 1);
            }
        }
    }
}
