//! Days of three watchers under paused time: outages, flaps, slow answers, one watcher after the other cut off or restarted, a control plane
//! that comes and goes, and a store whose clock jumps. Nobody is told of what was none, everybody once of what was.

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
use planb::recovery::state::State;
use planb::watch::auto::{self, Acknowledged, Decision, Facts, Policy, Rested, Shot, Sight};
use planb::watch::board::Board;
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

struct Ears(Arc<World>);

impl Herald for Ears {
    fn ruled(&self, ruling: &Ruling) {
        let text = format!("by {}: {}", ruling.by, ruling.evidence.join(" | "));
        lock(&self.0.told).push((self.0.now(), ruling.verdict, text));
    }
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

fn watcher(world: &Arc<World>, store: &Arc<Clocked>, number: usize, cut: &Arc<AtomicBool>, seed: u64) -> Watcher {
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
            seed,
        },
        probes: vec![probe(Plane::Data), probe(Plane::Control)],
        board: board.clone(),
        herald: Arc::new(Ears(Arc::clone(world))),
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
        let watcher = watcher(&world, &store, number, &cut, world.random(u64::MAX));
        let end = world.begun + Duration::from_secs(end);
        // Killed, not stopped.
        let _ = tokio::time::timeout_at(end, watcher.run(CancellationToken::new())).await;
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
    let world = Arc::new(World {
        begun: Instant::now(),
        script,
        dice: Mutex::new(dice),
        told: Mutex::default(),
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
        .unwrap_or(3);
    let (mut outages, mut acts) = (0, 0);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        println!("PLANB_SEED={seed}");
        let world = play(seed).await;
        check(&world);
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
