use super::*;
use crate::recovery::event::{By, Entry, Event};
use crate::recovery::plan::{Aim, Plan};
use crate::watch::quorum::{Observation, tally};
use crate::watch::verdict::{Plane, Seen};

const POLICY: Policy = Policy {
    grace: Duration::from_secs(180),
    max_loss: Duration::from_secs(600),
};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn votes(healths: &[(Health, Health)]) -> Tally {
    let names: Vec<String> = (0..healths.len()).map(|number| format!("w{number}")).collect();
    let found = |name: &str| {
        let (public, database) = healths[name[1..].parse::<usize>().expect("a number")];
        let seen = |kind: &str, health| Seen {
            probe: kind.to_owned(),
            kind: kind.to_owned(),
            plane: Plane::Data,
            health,
            is_mute: false,
            said: "said".to_owned(),
        };
        Ok(Some(Observation {
            v: 1,
            watcher: name.to_owned(),
            run: "1f".to_owned(),
            sequence: 1,
            at: now(),
            probes: vec![seen("http", public), seen("mysql", database)],
        }))
    };
    tally(&names, found, now(), Duration::from_secs(45))
}

fn ruling(verdict: Health) -> Ruling {
    Ruling {
        v: 1,
        number: 2,
        verdict,
        since: now(),
        before: None,
        by: "w0".to_owned(),
        run: "1f".to_owned(),
        ends: None,
        is_closed: false,
        evidence: Vec::new(),
    }
}

fn shot(after: u64) -> Shot {
    Shot {
        v: 1,
        number: 1,
        at: now(),
        by: "w1".to_owned(),
        run: "2f".to_owned(),
        after,
        evidence: Vec::new(),
        rested: None,
        acknowledged: None,
    }
}

fn rested(how: &str) -> Option<Rested> {
    Some(Rested {
        at: now(),
        how: how.to_owned(),
    })
}

/// A journal with an open operation, opened by `who`.
fn opened(who: &str) -> State {
    let by = By {
        who: who.to_owned(),
        host: "h".to_owned(),
        run: "2f".to_owned(),
    };
    let event = Event::Opened {
        aim: Aim::Failover {
            stage: 3,
            planned: false,
        },
        plan: Plan::default(),
        plan_digest: String::new(),
        standing: State::default().standing,
        backup: None,
        pinned: false,
        approvers: 1,
        facts: std::collections::BTreeMap::new(),
        accepted: Vec::new(),
    };
    let state = State::default();
    let entry = Entry::new(1, 1, &state.digest, 0, now(), by, event);
    state.apply(&entry, "d").expect("opened")
}

/// What is decided in the plainest outage, after `change` made something different.
struct Case {
    tally: Tally,
    ruling: Option<Ruling>,
    down_for: u64,
    shot: Option<Shot>,
    state: State,
    loss: Option<u64>,
    refusals: Vec<Refusal>,
    person: Option<&'static str>,
}

fn decided(change: impl FnOnce(&mut Case)) -> Decision {
    let down = (Health::Unhealthy, Health::Unhealthy);
    let mut case = Case {
        tally: votes(&[down, down, (Health::Healthy, Health::Unhealthy)]),
        ruling: Some(ruling(Health::Unhealthy)),
        down_for: 180,
        shot: None,
        state: State::default(),
        loss: Some(300),
        refusals: Vec::new(),
        person: None,
    };
    change(&mut case);
    let sight = Sight {
        tally: &case.tally,
        ruling: case.ruling.as_ref(),
        down_for: Duration::from_secs(case.down_for),
        shot: case.shot.as_ref(),
    };
    let facts = Facts {
        state: &case.state,
        loss: case.loss.map(Duration::from_secs),
        refusals: &case.refusals,
        person: case.person,
    };
    let decision = decide(&sight, &facts, &POLICY);
    // Nothing is looked up for nothing, and nothing is done without having been looked up.
    assert!(is_due(&sight, &POLICY) || decision == Decision::Nothing, "{decision:?}");
    decision
}

fn names(decision: &Decision) -> Vec<&str> {
    match decision {
        Decision::Refrain(reasons) => reasons.iter().map(|reason| reason.name.as_str()).collect(),
        other => panic!("it was to refrain: {other:?}"),
    }
}

#[test]
fn it_begins_when_most_see_an_outage_that_lasts() {
    assert_eq!(decided(|_| ()), Decision::Begin);
    for (what, decision) in [
        ("the grace period", decided(|case| case.down_for = 179)),
        ("no ruling", decided(|case| case.ruling = None)),
        (
            "ruled healthy",
            decided(|case| case.ruling = Some(ruling(Health::Healthy))),
        ),
        (
            "not most",
            decided(|case| {
                case.tally = votes(&[
                    (Health::Unhealthy, Health::Unhealthy),
                    (Health::Healthy, Health::Healthy),
                    (Health::Unknown, Health::Unknown),
                ])
            }),
        ),
        (
            "it serves elsewhere",
            decided(|case| case.state.standing.serving = Some(Site::Standby)),
        ),
        ("nobody serves", decided(|case| case.state.standing.serving = None)),
        ("a person is at it", decided(|case| case.state = opened("ana"))),
    ] {
        assert_eq!(decision, Decision::Nothing, "{what}");
    }
}

#[test]
fn what_stops_a_person_stops_it_and_what_it_may_not_lose_too() {
    let down = (Health::Unhealthy, Health::Unhealthy);
    assert_eq!(names(&decided(|case| case.loss = Some(601))), ["max-loss"]);
    assert_eq!(decided(|case| case.loss = Some(600)), Decision::Begin);
    assert_eq!(names(&decided(|case| case.tally = votes(&[down, down]))), ["watchers"]);
    for rule in Rule::ALL {
        let refused = decided(|case| {
            case.refusals = vec![Refusal {
                rule,
                why: "because".to_owned(),
            }];
        });
        assert_eq!(names(&refused), [rule.name()]);
    }
    // Users see nothing, and one watcher still logs in: the application is down, and its data is not lost.
    let answers = decided(|case| case.tally = votes(&[down, down, (Health::Unhealthy, Health::Healthy)]));
    assert_eq!(names(&answers), ["primary-healthy"]);
}

#[test]
fn it_acts_once_until_somebody_says_so() {
    let spent = |case: &mut Case| {
        case.shot = Some(Shot {
            rested: rested("failed"),
            ..shot(0)
        });
    };
    assert_eq!(names(&decided(spent)), ["acknowledge"]);
    let again = decided(|case| {
        spent(case);
        case.shot.as_mut().expect("a shot").acknowledged = Some(Acknowledged {
            at: now(),
            by: "ana".to_owned(),
        });
    });
    assert_eq!(again, Decision::Begin);
}

#[test]
fn whoever_vanished_is_followed_and_a_person_is_not() {
    let in_hand = |case: &mut Case| {
        case.shot = Some(shot(0));
        case.state = opened("watcher w1");
    };
    assert_eq!(decided(in_hand), Decision::GoOn);
    // Once it is committed it comes to its end, also where the outage is over by now. Before that, the primary stays.
    let over = |is_committed: bool| {
        decided(|case| {
            in_hand(case);
            case.tally = votes(&[(Health::Healthy, Health::Healthy); 3]);
            case.state.operation.as_mut().expect("open").committed_at = is_committed.then(now);
        })
    };
    assert_eq!(over(true), Decision::GoOn);
    assert_eq!(over(false), Decision::Settle(RECOVERED.to_owned()));
    let settled = |decision: Decision| matches!(decision, Decision::Settle(_));
    assert!(settled(decided(|case| {
        in_hand(case);
        case.person = Some("ana");
    })));
    assert!(settled(decided(|case| {
        in_hand(case);
        case.state.operations = 2;
        case.state.operation.as_mut().expect("open").number = 2;
    })));
    assert!(settled(decided(|case| {
        in_hand(case);
        case.state.operation = None;
    })));
    // It vanished before it opened anything.
    assert_eq!(decided(|case| case.shot = Some(shot(0))), Decision::Begin);
    assert_eq!(
        decided(|case| {
            case.shot = Some(shot(0));
            case.down_for = 0;
        }),
        Decision::Nothing
    );
    assert!(settled(decided(|case| {
        case.shot = Some(shot(0));
        case.tally = votes(&[(Health::Healthy, Health::Healthy); 3]);
    })));
}
