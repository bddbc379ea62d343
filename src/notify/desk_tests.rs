use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::notify::notice::Verdict;

fn start() -> Timestamp {
    "2026-11-21T03:00:00Z".parse().expect("a time")
}

fn breached() -> What {
    What::RpoBreached {
        loss_seconds: Some(400),
        target_seconds: 300,
    }
}

fn at_risk() -> What {
    What::RpoAtRisk {
        loss_seconds: Some(290),
        target_seconds: 300,
    }
}

fn store() -> What {
    What::StoreUnreachable {
        error: "no route".to_owned(),
    }
}

fn step(number: u32) -> What {
    What::StepEnded {
        operation: 1,
        step: format!("step-{number}"),
        note: String::new(),
    }
}

fn route(channel: &str, audience: Audience, minimum: Severity) -> Route {
    Route {
        channel: channel.to_owned(),
        audience,
        minimum,
        events: Vec::new(),
    }
}

/// A desk, a time, and what each channel was sent.
struct World {
    desk: Desk,
    now: Timestamp,
    sent: BTreeMap<String, Vec<Item>>,
    messages: Vec<(String, Timestamp, usize)>,
    down: Vec<String>,
}

impl World {
    fn new(routes: &[Route]) -> Self {
        let mut desk = Desk::default();
        desk.configure(routes.to_vec());
        Self {
            desk,
            now: start(),
            sent: BTreeMap::new(),
            messages: Vec::new(),
            down: Vec::new(),
        }
    }

    fn raise(&mut self, what: What) {
        self.desk.raise(Notice::new(what, self.now), self.now);
    }

    /// Everything that wants to be sent now.
    fn turn(&mut self) {
        let routes = self.desk.routes.clone();
        for route in &routes {
            for _ in 0..1000 {
                let Next::Send(items) = self.desk.next(&route.channel, self.now) else {
                    break;
                };
                assert!(!items.is_empty());
                if self.down.contains(&route.channel) {
                    let refusal = Refusal {
                        error: "hangs".to_owned(),
                        is_permanent: false,
                        retry_after: None,
                    };
                    self.desk.refused(&route.channel, &items, &refusal, self.now);
                    continue;
                }
                self.messages.push((route.channel.clone(), self.now, items.len()));
                self.sent
                    .entry(route.channel.clone())
                    .or_default()
                    .extend(items.iter().cloned());
                self.desk.delivered(&route.channel, &items, self.now);
            }
        }
    }

    /// Time passes, in steps in which everything due is sent.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds.div_ceil(5) {
            self.turn();
            self.now = until(self.now, Duration::from_secs(5));
        }
        self.turn();
    }

    fn turns(&self, channel: &str, key: &str) -> Vec<Turn> {
        let items = self.sent.get(channel).map(Vec::as_slice).unwrap_or_default();
        items
            .iter()
            .filter(|item| item.notice.key == key)
            .map(|item| item.turn)
            .collect()
    }
}

#[test]
fn told_once_reminded_ever_more_rarely_and_told_once_that_it_is_over() {
    let mut world = World::new(&[route("slack", Audience::People, Severity::Info)]);
    for _ in 0..(6 * 3600 / 30) {
        world.raise(breached());
        world.pass(30);
    }
    // At 15 min, then 1 h, then 4 h later.
    let turns = world.turns("slack", keys::RPO);
    assert_eq!(turns, [Turn::Raised, Turn::Reminder, Turn::Reminder, Turn::Reminder]);
    for _ in 0..10 {
        world.desk.resolve(keys::RPO, world.now);
        world.pass(300);
    }
    let turns = world.turns("slack", keys::RPO);
    assert_eq!(turns.iter().filter(|turn| **turn == Turn::Resolved).count(), 1);
    assert_eq!(turns.last(), Some(&Turn::Resolved));
    let last = world.sent["slack"].last().expect("an item");
    assert_eq!(last.since, start(), "it says since when");
}

#[test]
fn what_grows_graver_is_told_again_and_only_those_who_were_told_hear_that_it_is_over() {
    let mut world = World::new(&[
        route("mail", Audience::People, Severity::Warning),
        route("pager", Audience::Pager, Severity::Critical),
        route("quiet", Audience::People, Severity::Critical),
    ]);
    world.raise(at_risk());
    world.pass(60);
    assert_eq!(world.turns("mail", keys::RPO), [Turn::Raised]);
    assert!(world.turns("pager", keys::RPO).is_empty());
    world.raise(breached());
    world.pass(60);
    assert_eq!(world.turns("mail", keys::RPO), [Turn::Raised, Turn::Raised]);
    assert_eq!(world.turns("pager", keys::RPO), [Turn::Raised]);
    // Better again, and worse again: nobody is told twice.
    world.raise(at_risk());
    world.pass(60);
    world.raise(breached());
    world.pass(60);
    assert_eq!(world.turns("mail", keys::RPO).len(), 2);
    world.raise(store());
    world.pass(60);
    world.desk.resolve(keys::RPO, world.now);
    world.desk.resolve(keys::STORE, world.now);
    world.pass(600);
    assert_eq!(world.turns("pager", keys::RPO), [Turn::Raised, Turn::Resolved]);
    assert!(
        world.turns("quiet", keys::STORE).is_empty(),
        "was never told that it began"
    );
    assert_eq!(world.turns("mail", keys::STORE), [Turn::Raised, Turn::Resolved]);
}

#[test]
fn flapping_grows_quiet_by_itself() {
    let mut world = World::new(&[route("slack", Audience::People, Severity::Info)]);
    // Away for two minutes in every four, for four hours.
    for _ in 0..60 {
        world.raise(store());
        world.pass(120);
        world.desk.resolve(keys::STORE, world.now);
        world.pass(120);
    }
    world.pass(3600);
    let turns = world.turns("slack", keys::STORE);
    assert!(turns.len() <= 8, "60 times up and down were told as {turns:?}");
    assert_eq!(turns.last(), Some(&Turn::Resolved));
    assert!(world.sent["slack"].last().is_some_and(|item| item.episodes > 10));
}

#[test]
fn many_things_at_once_are_one_message_to_people_and_each_their_own_to_a_program() {
    let mut world = World::new(&[
        route("slack", Audience::People, Severity::Info),
        route("hook", Audience::Program, Severity::Info),
        route("pager", Audience::Pager, Severity::Info),
    ]);
    for number in 0..40 {
        world.raise(step(number));
    }
    world.raise(breached());
    world.pass(600);
    let of = |channel: &str| {
        let sizes = world.messages.iter().filter(|message| message.0 == channel);
        sizes.map(|message| message.2).collect::<Vec<_>>()
    };
    assert_eq!(of("hook"), [1; 41]);
    assert_eq!(of("pager"), [1], "what cannot be resolved wakes nobody");
    let slack = of("slack");
    assert_eq!(slack.iter().sum::<usize>(), 41);
    assert!(slack.len() <= 8, "{slack:?}");
    // The gravest went first.
    assert_eq!(world.sent["slack"][0].notice.severity, Severity::Critical);
}

#[test]
fn what_a_channel_does_not_take_is_kept_told_elsewhere_and_sent_when_it_does() {
    let mut world = World::new(&[
        route("slack", Audience::People, Severity::Info),
        route("mail", Audience::People, Severity::Warning),
    ]);
    world.down = vec!["slack".to_owned()];
    world.raise(breached());
    world.pass(600);
    assert_eq!(world.turns("mail", keys::RPO), [Turn::Raised]);
    assert_eq!(world.turns("mail", "channel/slack"), [Turn::Raised]);
    let standing = &world.desk.standing()[1];
    assert_eq!((standing.channel.as_str(), standing.waiting.len()), ("slack", 1));
    assert_eq!(standing.error.as_deref(), Some("hangs"));
    assert!(standing.failures >= 5);
    world.down.clear();
    world.desk.resolve(keys::RPO, world.now);
    world.pass(900);
    assert_eq!(world.turns("slack", keys::RPO), [Turn::Raised, Turn::Resolved]);
    assert!(world.turns("slack", "channel/slack").is_empty());
    assert_eq!(world.turns("mail", "channel/slack"), [Turn::Raised, Turn::Resolved]);
    assert!(world.desk.is_empty());
}

#[test]
fn one_refused_message_holds_up_no_other_and_is_tried_again_after_a_success() {
    let mut desk = Desk::default();
    desk.configure(vec![route("slack", Audience::People, Severity::Info)]);
    let now = start();
    desk.raise(Notice::new(breached(), now), now);
    let Next::Send(first) = desk.next("slack", now) else {
        panic!("nothing to send")
    };
    let refusal = Refusal {
        error: "HTTP 400".to_owned(),
        is_permanent: true,
        retry_after: None,
    };
    desk.refused("slack", &first, &refusal, now);
    desk.raise(Notice::new(store(), now), now);
    let now = until(now, Duration::from_secs(10));
    let Next::Send(second) = desk.next("slack", now) else {
        panic!("held up")
    };
    assert_eq!(second[0].notice.key, keys::STORE);
    desk.delivered("slack", &second, now);
    let Next::Send(third) = desk.next("slack", now) else {
        panic!("not tried again")
    };
    assert_eq!(third[0].notice.key, keys::RPO);
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let mut desk = Desk::default();
    desk.configure(vec![route("slack", Audience::People, Severity::Info)]);
    let now = start();
    desk.raise(Notice::new(breached(), now), now);
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("nothing to send")
    };
    let refusal = Refusal {
        error: "HTTP 429".to_owned(),
        is_permanent: false,
        retry_after: Some(Duration::from_secs(90)),
    };
    desk.refused("slack", &items, &refusal, now);
    let at = until(now, Duration::from_secs(90));
    assert_eq!(desk.next("slack", now), Next::Wait(Some(at)));
    assert!(matches!(desk.next("slack", at), Next::Send(_)));
}

#[test]
fn what_grows_graver_while_it_is_sent_is_sent_again() {
    let mut desk = Desk::default();
    desk.configure(vec![route("slack", Audience::People, Severity::Info)]);
    let now = start();
    desk.raise(Notice::new(at_risk(), now), now);
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("nothing to send")
    };
    desk.raise(Notice::new(breached(), now), now);
    desk.delivered("slack", &items, now);
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("the breach was swallowed")
    };
    assert_eq!(items[0].notice.severity, Severity::Critical);
}

#[test]
fn what_comes_back_while_its_end_is_told_is_told_again() {
    let mut desk = Desk::default();
    desk.configure(vec![route("slack", Audience::People, Severity::Info)]);
    let mut now = start();
    desk.raise(Notice::new(breached(), now), now);
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("nothing to send")
    };
    desk.delivered("slack", &items, now);
    desk.resolve(keys::RPO, now);
    now = until(now, Duration::from_secs(120));
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("nothing to send")
    };
    assert_eq!(items[0].turn, Turn::Resolved);
    desk.raise(Notice::new(breached(), now), now);
    desk.delivered("slack", &items, now);
    let Next::Send(items) = desk.next("slack", now) else {
        panic!("people believe that it is over")
    };
    assert_eq!(items[0].turn, Turn::Raised);
}

#[test]
fn a_drill_that_passes_ends_what_a_failed_one_raised() {
    let mut world = World::new(&[route("pager", Audience::Pager, Severity::Info)]);
    let drill = |passed| What::DrillResult {
        passed,
        summary: "x".to_owned(),
    };
    world.raise(drill(false));
    world.pass(60);
    world.raise(drill(true));
    world.pass(300);
    assert_eq!(world.turns("pager", keys::DRILL), [Turn::Raised, Turn::Resolved]);
}

#[test]
fn a_channel_that_takes_nothing_for_years_does_not_grow() {
    let mut world = World::new(&[route("slack", Audience::People, Severity::Info)]);
    world.down = vec!["slack".to_owned()];
    world.raise(breached());
    for number in 0..2_000 {
        world.raise(step(number));
    }
    let standing = &world.desk.standing()[0];
    assert_eq!(standing.waiting.len(), 200);
    assert_eq!(standing.dropped, 1_801);
    assert!(
        standing.waiting.iter().any(|item| item.notice.key == keys::RPO),
        "the gravest gave way"
    );
}

#[derive(Debug, Clone)]
enum Deed {
    Raise(usize),
    Resolve(usize),
    Pass(u64),
    Down(usize),
    Up(usize),
    SetBack(u64),
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..5usize).prop_map(Deed::Raise),
        3 => (0..5usize).prop_map(Deed::Resolve),
        4 => (0..4000u64).prop_map(Deed::Pass),
        1 => (0..3usize).prop_map(Deed::Down),
        1 => (0..3usize).prop_map(Deed::Up),
        1 => (0..100_000u64).prop_map(Deed::SetBack),
        1 => Just(Deed::Restart),
    ]
}

fn whats() -> [What; 5] {
    let down = What::VerdictChanged {
        verdict: Verdict::Down,
        why: "x".to_owned(),
    };
    [breached(), at_risk(), store(), down, step(1)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever happens: a grave thing is told or kept, its end is told at most once, and never to whom it was not told.
    #[test]
    fn nothing_grave_is_lost_and_no_end_is_told_without_its_beginning(deeds in proptest::collection::vec(deed(), 1..60)) {
        let names = ["slack", "hook", "pager"];
        let audiences = [Audience::People, Audience::Program, Audience::Pager];
        let routes: Vec<Route> =
            names.iter().zip(audiences).map(|(name, audience)| route(name, audience, Severity::Info)).collect();
        let mut world = World::new(&routes);
        let mut open = std::collections::BTreeSet::new();
        for deed in deeds {
            match deed {
                Deed::Raise(which) => {
                    let what = whats()[which].clone();
                    if what.lasts() {
                        open.insert(what.key());
                    }
                    world.raise(what);
                    // Delivered or kept, at any moment.
                    for name in names {
                        for key in &open {
                            let waits = world.desk.outboxes[name].holds(key, Turn::Raised);
                            let is_told = world.desk.matters[key].told.contains_key(name);
                            prop_assert!(waits || is_told, "{key} is lost for {name}");
                        }
                    }
                }
                Deed::Resolve(which) => {
                    let key = whats()[which].key();
                    open.remove(&key);
                    world.desk.resolve(&key, world.now);
                }
                Deed::Pass(seconds) => world.pass(seconds),
                Deed::Down(which) => world.down.push(names[which].to_owned()),
                Deed::Up(which) => world.down.retain(|name| name != names[which]),
                Deed::SetBack(seconds) => {
                    world.now = world.now.saturating_sub(Duration::from_secs(seconds)).expect("a time");
                }
                Deed::Restart => {
                    let text = serde_json::to_string(&world.desk).expect("json");
                    world.desk = serde_json::from_str(&text).expect("read back");
                    world.desk.configure(routes.clone());
                }
            }
        }
        // All is well again, everywhere: everybody hears of it.
        world.down.clear();
        for key in &open {
            world.desk.resolve(key, world.now);
        }
        world.pass(3 * 3600);
        prop_assert!(world.desk.is_empty(), "{:?}", world.desk.standing());
        prop_assert!(world.desk.matters.values().all(|matter| matter.told.is_empty()));
        for (name, items) in &world.sent {
            let mut told = std::collections::BTreeSet::new();
            for item in items.iter().filter(|item| item.notice.what.lasts()) {
                let key = item.notice.key.clone();
                match item.turn {
                    Turn::Raised => {
                        told.insert(key);
                    }
                    Turn::Reminder => prop_assert!(told.contains(&key), "{name} is reminded of what it never heard"),
                    Turn::Resolved => prop_assert!(told.remove(&key), "{name} hears the end of {key} without a beginning"),
                }
            }
            prop_assert!(told.is_empty(), "{name} never heard the end of {told:?}");
        }
    }
}
