use proptest::prelude::*;

use super::*;

const STALE: Duration = Duration::from_secs(45);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
}

fn observation(watcher: &str, health: Health, seconds: i64) -> Observation {
    let seen = |plane, health| Seen {
        probe: "p".to_owned(),
        kind: "mysql".to_owned(),
        plane,
        health,
        is_mute: false,
        said: "it said".to_owned(),
    };
    Observation {
        v: 1,
        watcher: watcher.to_owned(),
        run: "1f".to_owned(),
        sequence: 1,
        at: at(seconds),
        probes: vec![seen(Plane::Data, health), seen(Plane::Control, Health::Unhealthy)],
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("w{number}")).collect()
}

/// A letter for each watcher: what it says, or how it is missing.
fn count(voices: &str) -> Tally {
    let names = names(voices.len());
    let found = |name: &str| {
        let number: usize = name[1..].parse().expect("a number");
        match voices.as_bytes()[number] {
            b'H' => Ok(Some(observation(name, Health::Healthy, -10))),
            b'U' => Ok(Some(observation(name, Health::Unhealthy, -10))),
            b'?' => Ok(Some(observation(name, Health::Unknown, -10))),
            b's' => Ok(Some(observation(name, Health::Unhealthy, -46))),
            b'f' => Ok(Some(observation(name, Health::Unhealthy, 6))),
            b'o' => Ok(Some(observation("w9", Health::Unhealthy, -10))),
            b'x' => Err("it cannot be read".to_owned()),
            _ => Ok(None),
        }
    };
    tally(&names, found, at(0), STALE)
}

#[test]
fn most_of_the_configured_ones_must_say_so_now() {
    use Health::{Healthy, Unhealthy, Unknown};
    for (voices, wanted) in [
        ("U", Unhealthy),
        ("UUU", Unhealthy),
        ("UUH", Unhealthy),
        ("UHH", Healthy),
        ("UU-", Unhealthy),
        // One alone, of three, is nobody; half is not most.
        ("U--", Unknown),
        ("H--", Unknown),
        ("UH?", Unknown),
        ("UUHH", Unknown),
        ("U?", Unknown),
        // Stale, from the future, another's, unreadable: no vote.
        ("Uss", Unknown),
        ("Uff", Unknown),
        ("Uoo", Unknown),
        ("Uxx", Unknown),
        ("sss", Unknown),
        ("---", Unknown),
    ] {
        let tally = count(voices);
        assert_eq!(tally.verdict, wanted, "{voices}: {:?}", tally.lines(at(0)));
        assert_eq!(tally.ballots.len(), voices.len());
    }
    assert_eq!(
        count("HHH").control,
        Some(Health::Unhealthy),
        "told, and counted for nothing"
    );
    assert_eq!(count("---").control, None);
}

#[test]
fn whoever_still_logs_in_speaks_for_the_database() {
    assert!(count("UUU").database_answers().is_empty());
    let answers = count("UUH").database_answers();
    assert_eq!(answers, ["w2: p it said"]);
    assert!(count("UUs").database_answers().is_empty());
}

#[test]
fn every_missing_voice_is_told_with_its_reason() {
    let told = count("H-sfox").lines(at(0)).join("\n");
    for part in [
        "w0: healthy; p healthy: it said; p unhealthy (control plane): it said",
        "w1: no vote: it never wrote anything here",
        "w2: no vote: it last wrote 46 s ago",
        "w3: no vote: what it wrote is 6 s from the future",
        "w4: no vote: it was written by w9",
        "w5: no vote: it cannot be read",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
}

proptest! {
    /// Whoever goes missing can make a verdict unknown, and never another one; and nobody is called down by less than half.
    #[test]
    fn silence_decides_nothing(voices in "[HU?sfx-]{1,9}", lost in 0_usize..9) {
        let before = count(&voices);
        let mut fewer = voices.clone().into_bytes();
        let lost = lost % fewer.len();
        fewer[lost] = b'-';
        let after = count(std::str::from_utf8(&fewer).expect("text"));
        prop_assert!(after.verdict == before.verdict || after.verdict == Health::Unknown || voices.as_bytes()[lost] != b'-');
        if before.verdict == Health::Unknown {
            prop_assert_eq!(after.verdict, Health::Unknown);
        }
        if before.verdict == Health::Unhealthy {
            prop_assert!(voices.matches('U').count() * 2 > voices.len());
            prop_assert!(after.verdict != Health::Healthy);
        }
    }
}
