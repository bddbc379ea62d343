//! Days of three watchers under paused time: outages, flaps, slow answers, one watcher after the other cut off or killed, a control plane
//! that comes and goes, and clocks that jump. People's telephones ring through the real desks: never for what was none, once for what was,
//! and once when it is over.

mod clocked;

#[path = "clocked/link.rs"]
mod link;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use clocked::{Clocked, lock};
use jiff::SignedDuration;
use link::Link;
use planb::clock::Clock;
use planb::notify::channel::{Channel, Line, Taken};
use planb::notify::desk::{Audience, Item, Refusal, Route};
use planb::notify::dispatcher::Dispatcher;
use planb::notify::message::Sender;
use planb::notify::notice::{Severity, What, keys};
use planb::notify::words::{Language, Turn};
use planb::recovery::state::State;
use planb::watch::auto::{self, Acknowledged, Decision, Facts, Policy, Rested, Shot, Sight};
use planb::watch::board::Board;
use planb::watch::crier::Crier;
use planb::watch::probe::{Ask, Spec};
use planb::watch::verdict::{Health, Outcome, Plane, Ruling, Thresholds};
use planb::watch::watcher::{Deputy, Herald, Settings, View, Watcher};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const DAY: u64 = 86_400;
const NAMES: [&str; 3] = ["seoul", "tokyo", "korea-central"];
const POLICY: Policy = Policy {
    grace: Duration::from_secs(180),
    max_loss: Duration::from_secs(600),
};
/// From the beginning of an outage, or its end, until people are told: three tries 33 s apart, the first up to 33 s late, one timeout,
/// and two rounds.
const WITHIN: u64 = 150;
/// The same where the store's clock jumped, a watcher was away or began anew: what was seen is forgotten, or the other two must agree.
const WITHIN_TROUBLE: u64 = 400;

/// What stayed away is over after this, at the latest.
const SETTLED: u64 = 305;
/// A watcher that was away for longer has left what it told to another.
const HANDED_OVER: u64 = 850;

/// SplitMix64
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }
}

/// From a second to another.
type Span = (u64, u64);

/// What happens, and when.
#[derive(Debug, Default)]
struct Script {
    outages: Vec<Span>,
    /// Too short to be one.
    flaps: Vec<Span>,
    /// Answers come late, and in time.
    slow: Vec<Span>,
    /// The control plane is down.
    control: Vec<Span>,
    /// A watcher that reaches nothing.
    cut: Vec<(usize, Span)>,
    restarts: Vec<(usize, u64)>,
    /// Of the store's clock, in seconds.
    jumps: Vec<(u64, i64)>,
}

impl Script {
    fn of(dice: &mut Dice) -> Self {
        let mut script = Self::default();
        let mut at = 600;
        while at < DAY - 4_000 {
            let end = match dice.below(5) {
                0 | 1 => {
                    let end = at + dice.between(360, 2_400);
                    script.outages.push((at, end));
                    end
                }
                2 | 3 => {
                    let end = at + dice.between(1, 40);
                    script.flaps.push((at, end));
                    end
                }
                _ => {
                    let end = at + dice.between(60, 1_800);
                    script.slow.push((at, end));
                    end
                }
            };
            at = end + dice.between(700, 3_000);
        }
        let mut at = dice.between(100, 4_000);
        while at < DAY - 4_000 {
            let end = at + dice.between(60, 3_000);
            match dice.below(4) {
                0 => script.control.push((at, end)),
                1 => script.restarts.push((dice.below(3) as usize, at)),
                2 => {
                    let jump = dice.between(30, 7_200).cast_signed();
                    script.jumps.push((at, if dice.below(2) == 0 { jump } else { -jump }));
                }
                _ => script.cut.push((dice.below(3) as usize, (at, end))),
            }
            at = end + dice.between(600, 4_000);
        }
        script
    }

    /// Whether something happened near `at` that makes watchers forget or lack each other.
    fn is_troubled(&self, at: u64) -> bool {
        let near = |when: u64| when + WITHIN_TROUBLE > at && when < at + WITHIN;
        self.jumps.iter().any(|(when, _)| near(*when))
            || self.restarts.iter().any(|(_, when)| near(*when))
            || self
                .cut
                .iter()
                .any(|(_, (from, to))| *from < at + WITHIN && *to + WITHIN_TROUBLE > at)
    }
}

struct World {
    begun: Instant,
    script: Script,
    dice: Mutex<Dice>,
    /// What people were told.
    told: Mutex<Vec<(u64, Health, String)>>,
    /// What rang, where.
    rang: Mutex<Vec<Ring>>,
    /// Who was told what, over the death of a watcher.
    state: tempfile::TempDir,
    /// Failovers that were begun.
    acts: Mutex<Vec<(u64, String)>>,
}

impl World {
    fn now(&self) -> u64 {
        self.begun.elapsed().as_secs()
    }

    fn is_in(&self, spans: &[Span]) -> bool {
        let now = self.now();
        spans.iter().any(|(from, to)| (*from..*to).contains(&now))
    }

    fn random(&self, below: u64) -> u64 {
        lock(&self.dice).below(below)
    }
}

struct Probe {
    world: Arc<World>,
    plane: Plane,
    is_cut: Arc<AtomicBool>,
}

#[async_trait]
impl Ask for Probe {
    async fn ask(&self) -> Outcome {
        let world = &self.world;
        let script = &world.script;
        let is_down = match self.plane {
            Plane::Control => world.is_in(&script.control),
            Plane::Data => world.is_in(&script.outages) || world.is_in(&script.flaps),
        };
        if is_down || self.is_cut.load(Ordering::SeqCst) {
            // Refused at once, or never answered.
            if world.random(2) == 0 {
                std::future::pending::<()>().await;
            }
            return Outcome::Bad("refused".into());
        }
        let millis = if world.is_in(&script.slow) {
            world.random(9_500)
        } else {
            world.random(50)
        };
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Outcome::Good("answered".into())
    }
}

struct Ears {
    world: Arc<World>,
    crier: Crier,
}

impl Herald for Ears {
    fn ruled(&self, ruling: &Ruling) {
        let text = format!("by {}: {}", ruling.by, ruling.evidence.join(" | "));
        lock(&self.world.told).push((self.world.now(), ruling.verdict, text));
        self.crier.ruled(ruling);
    }

    fn looked(&self, view: &View) {
        self.crier.looked(view);
    }
}

/// One thing that somebody heard, from one watcher.
#[derive(Debug, Clone, PartialEq)]
struct Ring {
    at: u64,
    from: &'static str,
    key: String,
    turn: Turn,
    what: What,
}

struct Phone {
    world: Arc<World>,
    from: &'static str,
}

#[async_trait]
impl Channel for Phone {
    async fn send(&self, _: &Sender, items: &[Item]) -> Result<Taken, Refusal> {
        for item in items {
            lock(&self.world.rang).push(Ring {
                at: self.world.now(),
                from: self.from,
                key: item.notice.key.clone(),
                turn: item.turn,
                what: item.notice.what.clone(),
            });
        }
        Ok(Taken::default())
    }
}

/// As a process has it, by a clock that jumps with the store's.
async fn dispatcher(world: &Arc<World>, store: &Arc<Clocked>, name: &'static str) -> Dispatcher {
    let line = Line {
        route: Route {
            channel: "phone".to_owned(),
            audience: Audience::Program,
            minimum: Severity::Info,
            events: Vec::new(),
        },
        channel: Arc::new(Phone {
            world: Arc::clone(world),
            from: name,
        }),
    };
    let sender = Sender {
        service: "bank".to_owned(),
        site: "seoul".to_owned(),
        language: Language::Ko,
        contact: None,
    };
    let file = planb::notify::record::file(world.state.path(), Some(name));
    let clock: Arc<dyn Clock> = Arc::clone(store) as Arc<dyn Clock>;
    Dispatcher::start(sender, vec![line], clock, Some(file)).await
}

/// As the real one, with a journal in which nothing ever happens and an operation that takes a minute.
struct OnDuty {
    world: Arc<World>,
    board: Board,
    name: &'static str,
}

#[async_trait]
impl Deputy for OnDuty {
    fn is_due(&self, view: &View) -> bool {
        let sight = Sight {
            tally: &view.tally,
            ruling: view.ruling.as_ref(),
            down_for: view.down_for,
            shot: view.shot.as_ref(),
        };
        auto::is_due(&sight, &POLICY)
    }

    async fn consider(&self, view: View, _: CancellationToken) {
        let Ok((shot, was)) = self.board.shot().await else {
            return;
        };
        let sight = Sight {
            tally: &view.tally,
            ruling: view.ruling.as_ref(),
            down_for: view.down_for,
            shot: shot.as_ref(),
        };
        let state = State::default();
        let facts = Facts {
            state: &state,
            loss: Some(Duration::from_secs(60)),
            refusals: &[],
            person: None,
        };
        if auto::decide(&sight, &facts, &POLICY) != Decision::Begin || shot.as_ref().is_some_and(Shot::is_in_hand) {
            return;
        }
        let mut mine = Shot {
            v: 1,
            number: shot.map_or(0, |shot| shot.number) + 1,
            at: view.now,
            by: self.name.to_owned(),
            run: format!("{}-{}", self.name, self.world.now()),
            after: 0,
            evidence: Vec::new(),
            rested: None,
            acknowledged: None,
        };
        if !matches!(self.board.set_shot(&mine, was).await, Ok(true)) {
            return;
        }
        lock(&self.world.acts).push((self.world.now(), self.name.to_owned()));
        tokio::time::sleep(Duration::from_secs(60)).await;
        mine.rested = Some(Rested {
            at: view.now,
            how: "done".into(),
        });
        // Cut off, it stays in hand.
        if let Ok((_, was)) = self.board.shot().await {
            let _ = self.board.set_shot(&mine, was).await;
        }
    }
}

fn spec(plane: Plane) -> Spec {
    Spec {
        name: format!("{plane:?}").to_lowercase(),
        kind: "http".into(),
        plane,
        interval: Duration::from_secs(30),
        timeout: Duration::from_secs(10),
        thresholds: Thresholds {
            failures: 3,
            successes: 2,
            within: Duration::from_secs(90),
            silence: Duration::from_secs(90),
        },
    }
}

fn watcher(
    world: &Arc<World>,
    store: &Arc<Clocked>,
    number: usize,
    cut: &Arc<AtomicBool>,
    dispatcher: &Dispatcher,
) -> Watcher {
    let link = Arc::new(Link {
        to: Arc::clone(store),
        is_cut: Arc::clone(cut),
        takes: Duration::from_millis(20 + 30 * number as u64),
    });
    let board = Board::new(link, "bank");
    let probe = |plane| {
        let ask: Arc<dyn Ask> = Arc::new(Probe {
            world: Arc::clone(world),
            plane,
            is_cut: Arc::clone(cut),
        });
        (spec(plane), ask)
    };
    Watcher {
        settings: Settings {
            name: NAMES[number].to_owned(),
            run: format!("{number}-{}", world.now()),
            configured: NAMES.map(str::to_owned).to_vec(),
            every: Duration::from_secs(10),
            stale_after: Duration::from_secs(45),
            cool_down: Duration::from_secs(60),
            seed: world.random(u64::MAX),
        },
        probes: vec![probe(Plane::Data), probe(Plane::Control)],
        board: board.clone(),
        herald: Arc::new(Ears {
            world: Arc::clone(world),
            crier: Crier::new(NAMES[number].to_owned(), Arc::new(dispatcher.announcer())),
        }),
        deputy: Some(Arc::new(OnDuty {
            world: Arc::clone(world),
            board,
            name: NAMES[number],
        })),
    }
}

/// One watcher, begun anew as often as the script says.
async fn keep(world: Arc<World>, store: Arc<Clocked>, number: usize, cut: Arc<AtomicBool>) {
    let mut ends: Vec<u64> = world
        .script
        .restarts
        .iter()
        .filter(|(who, _)| *who == number)
        .map(|(_, at)| *at)
        .collect();
    ends.push(DAY * 2);
    for end in ends {
        let dispatcher = dispatcher(&world, &store, NAMES[number]).await;
        let watcher = watcher(&world, &store, number, &cut, &dispatcher);
        let end = world.begun + Duration::from_secs(end);
        // Killed, not stopped, and so is what it was about to tell.
        let _ = tokio::time::timeout_at(end, watcher.run(CancellationToken::new())).await;
        drop(dispatcher);
    }
}

/// Somebody acknowledges some time after each outage.
async fn acknowledge(world: &World, store: &Arc<Clocked>) {
    let board = Board::new(Arc::clone(store) as Arc<dyn planb::store::BlobStore>, "bank");
    let (Some(mut shot), was) = board.shot().await.expect("a store") else {
        return;
    };
    shot.acknowledged = Some(Acknowledged {
        at: store.time(),
        by: format!("ana at {}", world.now()),
    });
    shot.rested.get_or_insert(Rested {
        at: store.time(),
        how: "a person looked".into(),
    });
    assert!(board.set_shot(&shot, was).await.expect("a store"));
}

async fn play(seed: u64) -> Arc<World> {
    let mut dice = Dice(seed);
    let script = Script::of(&mut dice);
    act(script, dice).await
}

async fn act(script: Script, dice: Dice) -> Arc<World> {
    let world = Arc::new(World {
        begun: Instant::now(),
        script,
        dice: Mutex::new(dice),
        told: Mutex::default(),
        rang: Mutex::default(),
        state: tempfile::tempdir().expect("a directory"),
        acts: Mutex::default(),
    });
    let store = Arc::new(Clocked::new());
    let cuts: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
    let mut watchers = JoinSet::new();
    for (number, cut) in cuts.iter().enumerate() {
        watchers.spawn(keep(Arc::clone(&world), Arc::clone(&store), number, Arc::clone(cut)));
    }
    // Everything that happens at an instant, in order.
    enum Deed {
        Cut(usize, bool),
        Jump(i64),
        Acknowledge,
    }
    let mut deeds: Vec<(u64, Deed)> = Vec::new();
    for (number, (from, to)) in &world.script.cut {
        deeds.push((*from, Deed::Cut(*number, true)));
        deeds.push((*to, Deed::Cut(*number, false)));
    }
    deeds.extend(world.script.jumps.iter().map(|(at, by)| (*at, Deed::Jump(*by))));
    deeds.extend(
        world
            .script
            .outages
            .iter()
            .map(|(_, end)| (*end + 500, Deed::Acknowledge)),
    );
    deeds.sort_by_key(|(at, _)| *at);
    for (at, deed) in deeds {
        tokio::time::sleep_until(world.begun + Duration::from_secs(at)).await;
        match deed {
            Deed::Cut(number, is_cut) => cuts[number].store(is_cut, Ordering::SeqCst),
            Deed::Jump(by) => store.jump(SignedDuration::from_secs(by)),
            Deed::Acknowledge => acknowledge(&world, &store).await,
        }
    }
    tokio::time::sleep_until(world.begun + Duration::from_secs(DAY)).await;
    watchers.shutdown().await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_day_with_everything_that_goes_wrong() {
    let seed: u64 = std::env::var("PLANB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let rounds: u64 = std::env::var("PLANB_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(1);
    let (mut outages, mut acts) = (0, 0);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        println!("PLANB_SEED={seed}");
        let world = play(seed).await;
        check(&world);
        check_rings(&world);
        outages += world.script.outages.len();
        acts += lock(&world.acts).len();
    }
    println!("{rounds} days, {outages} outages, {acts} failovers begun");
    assert!(outages > 0 && acts > 0, "nothing happened at all");
}

fn check(world: &World) {
    let told = lock(&world.told).clone();
    let acts = lock(&world.acts).clone();
    let script = &world.script;
    let all = || format!("{script:#?}\ntold: {told:#?}\nacts: {acts:#?}");
    assert_eq!(
        told.len(),
        script.outages.len() * 2,
        "each outage is told once, and resolved once\n{}",
        all()
    );
    for ((from, to), pair) in script.outages.iter().zip(told.chunks(2)) {
        let limit = |at: u64| if script.is_troubled(at) { WITHIN_TROUBLE } else { WITHIN };
        let (down, up) = (&pair[0], &pair[1]);
        assert!(
            down.1 == Health::Unhealthy && (*from..=from + limit(*from)).contains(&down.0),
            "the outage of {from} was told at {}\n{}",
            down.0,
            all()
        );
        assert!(
            up.1 == Health::Healthy && (*to..=to + limit(*to)).contains(&up.0),
            "its end at {to} was told at {}\n{}",
            up.0,
            all()
        );
        let begun: Vec<&(u64, String)> = acts.iter().filter(|(at, _)| (*from..to + 500).contains(at)).collect();
        assert!(
            begun.len() <= 1,
            "the outage of {from} began {} failovers\n{}",
            begun.len(),
            all()
        );
        for (at, _) in &begun {
            assert!(
                *at >= down.0 + POLICY.grace.as_secs() - 40,
                "the grace period was not kept\n{}",
                all()
            );
        }
        // Long enough for whatever was forgotten to be seen again.
        if to - from > 1_200 {
            assert_eq!(begun.len(), 1, "the outage of {from} began no failover\n{}", all());
        }
    }
    for (at, who) in &acts {
        let is_in = script.outages.iter().any(|(from, to)| (*from..to + 60).contains(at));
        assert!(is_in, "{who} began a failover at {at}, and nothing was down\n{}", all());
    }
}

/// What people heard of one key, without reminders.
fn heard(world: &World, key: &str) -> Vec<Ring> {
    let rang = lock(&world.rang).clone();
    let news = rang.into_iter().filter(|ring| ring.turn != Turn::Reminder);
    news.filter(|ring| ring.key == key).collect()
}

/// Each outage rang once and was over once, whoever was cut off or killed in between.
fn check_rings(world: &World) {
    let script = &world.script;
    let all = || format!("{script:#?}\nrang: {:#?}", lock(&world.rang));
    let rings = heard(world, keys::PRIMARY);
    for (number, (from, to)) in script.outages.iter().enumerate() {
        let limit = |at: u64| if script.is_troubled(at) { WITHIN_TROUBLE } else { WITHIN };
        let next = script.outages.get(number + 1).map_or(DAY, |(from, _)| *from);
        let of_it: Vec<&Ring> = rings.iter().filter(|ring| (*from..next).contains(&ring.at)).collect();
        let with = |turn| of_it.iter().filter(move |ring| ring.turn == turn).collect::<Vec<_>>();
        let (down, over) = (with(Turn::Raised), with(Turn::Resolved));
        assert!(
            !down.is_empty() && down[0].at <= from + limit(*from) + 5,
            "the outage of {from} did not ring in time\n{}",
            all()
        );
        for again in &down[1..] {
            assert!(
                again.from != down[0].from && again.at >= down[0].at + HANDED_OVER,
                "the outage of {from} rang twice, at {} and {}\n{}",
                down[0].at,
                again.at,
                all()
            );
        }
        assert!(over.len() <= 1, "the end at {to} rang {} times\n{}", over.len(), all());
        // Cut off in the very moment in which it would have said so, it says so when it is back.
        let tellers: Vec<&str> = down.iter().map(|ring| ring.from).collect();
        let cut = script
            .cut
            .iter()
            .filter(|(who, (begin, end))| tellers.contains(&NAMES[*who]) && *begin < to + limit(*to) && *end > *to);
        let back = cut.map(|(_, (_, end))| *end).max();
        let until = back.unwrap_or(0).max(*to) + limit(*to) + SETTLED;
        match over.first() {
            Some(over) => assert!(
                (*to..=until).contains(&over.at),
                "the end at {to} rang at {}\n{}",
                over.at,
                all()
            ),
            None => assert!(back.is_some() && until > next, "the end at {to} never rang\n{}", all()),
        }
    }
    // Never for what was none.
    for ring in rings.iter().filter(|ring| ring.turn == Turn::Raised) {
        let is_in = script
            .outages
            .iter()
            .any(|(from, to)| (*from..to + 60).contains(&ring.at));
        assert!(is_in, "it rang at {}, and nothing was down\n{}", ring.at, all());
    }
    assert_eq!(heard(world, keys::WATCH), [], "two of three can always tell\n{}", all());
    for ring in heard(world, keys::CONTROL) {
        let is_in = |(from, to): &Span| (from + 300..to + WITHIN_TROUBLE).contains(&ring.at);
        assert!(
            ring.turn == Turn::Resolved || script.control.iter().any(is_in),
            "{ring:?}: the control plane was well\n{}",
            all()
        );
    }
}

/// An evening without luck: the control plane goes, whoever told it is cut off, then most of the watchers; and all of it passes.
#[tokio::test(start_paused = true)]
async fn what_is_no_outage_is_told_once_too_and_whoever_vanished_is_spoken_for() {
    let script = Script {
        control: vec![(1_000, 3_000)],
        // Seoul cannot say that the first outage is over; another does, and it says nothing when it is back.
        outages: vec![(6_000, 6_600), (20_000, 23_000)],
        cut: vec![
            (0, (6_300, 7_500)),
            (1, (6_300, 6_400)),
            (0, (10_000, 12_000)),
            (1, (10_000, 12_000)),
        ],
        ..Script::default()
    };
    let world = act(script, Dice(7)).await;
    let all = || format!("{:#?}", lock(&world.rang));
    let at = |key: &str, turn: Turn| -> Vec<u64> {
        let rings = heard(&world, key);
        rings
            .iter()
            .filter(|ring| ring.turn == turn)
            .map(|ring| ring.at)
            .collect()
    };
    let within = |found: Vec<u64>, spans: &[Span]| {
        let is_in = |(at, (from, to)): (&u64, &Span)| (*from..*to).contains(at);
        assert!(
            found.len() == spans.len() && found.iter().zip(spans).all(is_in),
            "{found:?} are not in {spans:?}\n{}",
            all()
        );
    };
    within(at(keys::CONTROL, Turn::Raised), &[(1_300, 1_600)]);
    within(at(keys::CONTROL, Turn::Resolved), &[(3_000, 3_300)]);
    within(at(keys::PRIMARY, Turn::Raised), &[(6_000, 6_150), (20_000, 20_150)]);
    within(at(keys::PRIMARY, Turn::Resolved), &[(6_600, 7_100), (23_000, 23_500)]);
    within(at(keys::WATCH, Turn::Raised), &[(10_300, 10_500)]);
    within(at(keys::WATCH, Turn::Resolved), &[(12_000, 12_500)]);
}
