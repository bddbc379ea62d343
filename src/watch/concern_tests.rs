use super::*;
use crate::watch::quorum::{Observation, tally};
use crate::watch::verdict::{Plane, Seen};

const NAMES: [&str; 3] = ["a", "b", "c"];

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

/// Data and control plane of each, and how long ago it wrote.
fn seen(said: [(Health, Health, i64); 3]) -> Tally {
    let found = |name: &str| {
        let number = NAMES.iter().position(|other| *other == name).expect("one of them");
        let (data, control, ago) = said[number];
        let one = |plane, health| Seen {
            probe: "p".to_owned(),
            kind: "http".to_owned(),
            plane,
            health,
            is_mute: false,
            said: String::new(),
        };
        Ok(Some(Observation {
            v: 1,
            watcher: name.to_owned(),
            run: "1".to_owned(),
            sequence: 1,
            at: now() - SignedDuration::from_secs(ago),
            probes: vec![one(Plane::Data, data), one(Plane::Control, control)],
        }))
    };
    tally(&NAMES.map(str::to_owned), found, now(), Duration::from_secs(45))
}

const UP: (Health, Health, i64) = (Health::Healthy, Health::Healthy, 1);
const NO_API: (Health, Health, i64) = (Health::Healthy, Health::Unhealthy, 1);
const GONE: (Health, Health, i64) = (Health::Healthy, Health::Healthy, 3_600);
const CUT: (Health, Health, i64) = (Health::Healthy, Health::Healthy, 60);

const LONG: Lasted = Lasted {
    blind: Some(PATIENCE),
    control: Some(PATIENCE),
};

#[test]
fn no_verdict_for_a_while_is_told_once_and_its_end_once() {
    let none = Concerns::default();
    let blind = seen([UP, GONE, GONE]);
    assert!(is_blind(&blind));
    let soon = Lasted {
        blind: Some(PATIENCE - Duration::from_secs(1)),
        ..LONG
    };
    assert_eq!(next(&none, &blind, soon, now(), "a", "r"), None, "it may pass");
    assert_eq!(next(&none, &blind, Lasted::default(), now(), "a", "r"), None);
    let told = next(&none, &blind, LONG, now(), "a", "r").expect("told");
    let concern = told.blind.clone().expect("blind");
    assert_eq!((concern.by.as_str(), told.control.as_ref()), ("a", None));
    assert!(concern.evidence[1].contains("no vote"), "{concern:?}");
    assert_eq!(next(&told, &blind, LONG, now(), "c", "s"), None, "it is told");
    let over = next(&told, &seen([UP, UP, GONE]), Lasted::default(), now(), "b", "s").expect("over");
    assert!(!over.any());
    assert_eq!(over.closed, [], "a says so itself");
    let over = next(&told, &seen([CUT, UP, UP]), Lasted::default(), now(), "b", "s").expect("over");
    assert_eq!(over.closed_of(Thing::Blind), Some("b"));
    assert_eq!(
        next(&over, &blind, LONG, now(), "c", "r"),
        None,
        "c sees it a moment later"
    );
    let later = Concerns {
        changed_at: Some(now() - SignedDuration::from_secs(300)),
        ..over.clone()
    };
    let again = next(&later, &blind, LONG, now(), "a", "r").expect("told");
    assert_eq!(again.closed, []);
    assert_eq!(
        next(&over, &seen([UP, UP, UP]), Lasted::default(), now(), "b", "s"),
        None
    );
}

#[test]
fn an_api_that_is_away_is_told_only_where_users_are_served() {
    let none = Concerns::default();
    let told = next(&none, &seen([NO_API, NO_API, UP]), LONG, now(), "a", "r").expect("told");
    assert!(told.control.is_some() && told.blind.is_none());
    assert_eq!(next(&none, &seen([NO_API, UP, UP]), LONG, now(), "a", "r"), None);
    let down = (Health::Unhealthy, Health::Unhealthy, 1);
    assert_eq!(
        next(&none, &seen([down, down, down]), LONG, now(), "a", "r"),
        None,
        "an outage is told as one"
    );
    // Nobody knows: it is not said to be over, and being blind is told beside it.
    let told = Concerns {
        changed_at: Some(now() - SignedDuration::from_secs(300)),
        ..told
    };
    let both = next(&told, &seen([NO_API, GONE, GONE]), LONG, now(), "a", "r").expect("blind");
    assert!(both.control.is_some() && both.blind.is_some());
}

#[test]
fn each_thing_is_told_by_one_of_them_also_when_that_one_is_gone() {
    let all = seen([UP, UP, UP]);
    let speakers = |by: Option<&str>, tally: &Tally| -> Vec<&str> {
        NAMES
            .into_iter()
            .filter(|name| speaks(name, by, tally, now()))
            .collect()
    };
    assert_eq!(speakers(Some("b"), &all), ["b"]);
    assert_eq!(speakers(None, &all), ["a"]);
    assert_eq!(speakers(Some("somebody of yesterday"), &all), ["a"]);
    // Cut off for a minute, it is still its own to tell; gone, it is the next one's.
    assert_eq!(speakers(Some("a"), &seen([CUT, UP, UP])), ["a"]);
    assert_eq!(speakers(Some("a"), &seen([GONE, UP, UP])), ["b"]);
    assert_eq!(speakers(None, &seen([GONE, GONE, UP])), ["c"]);
    assert!(speakers(None, &seen([GONE, GONE, GONE])).is_empty());
    assert!(!somebody_speaks(&seen([GONE, GONE, GONE]), now()) && somebody_speaks(&seen([CUT, GONE, GONE]), now()));
    assert!(!is_away("a", &all), "it says so itself");
    assert!(is_away("a", &seen([CUT, UP, UP])) && is_away("nobody", &all));
}
