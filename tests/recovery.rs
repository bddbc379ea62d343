//! The state machine of failover and failback, in process: crashed before and after each entry of the journal and each
//! effect, resumed, abandoned, raced, suspended; and, over random sequences of events, what must never come of it.
//! Points at which it crashes are counted, not picked by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use planb::backup::entry::{self, BackupId, Entry, newest_good};
use planb::clock::Clock;
use planb::recovery::engine::{Engine, Hands, Rest, Right, StepError, Task, Watch};
use planb::recovery::event::{self as journaled, Accepted, By, Chosen, Ended, Event, NOTHING_BEFORE, Outcome, Proof};
use planb::recovery::journal::{Journal, JournalError, Position};
use planb::recovery::next::{Next, next};
use planb::recovery::plan::{Aim, OnFailure, Place, Plan, Role, Site, Step};
use planb::recovery::rules::Rule;
use planb::recovery::state::{Progress, Standing, State};
use planb::store::memory::MemoryStore;
use planb::store::{BlobStore, BlockNumber, Condition, ETag, Metadata, Properties, StoreError, Upload};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use tokio_util::sync::CancellationToken;

/// 2026-01-01T00:00:00Z, and on with tokio's clock, which the tests pause.
#[derive(Debug)]
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let begun = Timestamp::from_second(1_767_225_600).expect("a date");
        begun + SignedDuration::try_from(self.0.elapsed()).expect("a duration")
    }
}

/// Runs out at one point, where whoever burns it stands still until dropped.
#[derive(Debug)]
struct Fuel {
    left: AtomicI64,
    empty: CancellationToken,
}

impl Fuel {
    fn of(points: i64) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicI64::new(points),
            empty: CancellationToken::new(),
        })
    }

    fn endless() -> Arc<Self> {
        Self::of(i64::MAX)
    }

    async fn burn(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.empty.cancel();
            std::future::pending::<()>().await;
        }
    }
}

/// Crashes before and after each write.
#[derive(Debug)]
struct Crashing {
    inner: Arc<MemoryStore>,
    fuel: Arc<Fuel>,
}

#[async_trait]
impl BlobStore for Crashing {
    fn describe(&self) -> String {
        self.inner.describe()
    }
    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        self.inner.stage_block(upload, block, data).await
    }
    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        self.inner.commit(upload, blocks, metadata).await
    }
    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        self.inner.discard(upload).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.inner.properties(name).await
    }
    async fn read(&self, name: &str, range: std::ops::Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        self.inner.read(name, range, etag).await
    }
    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.fuel.burn().await;
        let put = self.inner.put(name, data, condition).await;
        self.fuel.burn().await;
        put
    }
    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &planb::store::Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.inner.publish(name, data, served, condition).await
    }
    async fn served(&self, name: &str, etag: &ETag) -> Result<planb::store::Served, StoreError> {
        self.inner.served(name, etag).await
    }
    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.inner.delete(name, etag).await
    }
    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.inner.set_tags(name, tags).await
    }
    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.inner.tags(name).await
    }
    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.inner.now().await
    }
}

/// What the two clouds look like. Effects change it; each says whether it had anything to do.
#[derive(Debug, Default)]
struct World {
    built: BTreeSet<String>,
    /// Digest of what each site's database holds.
    data: BTreeMap<Site, String>,
    fenced: BTreeSet<Site>,
    open: BTreeSet<Site>,
    traffic: Option<Site>,
    /// How often a step really changed something.
    changes: BTreeMap<String, u32>,
    /// Steps that fail this many times more.
    failing: BTreeMap<String, u32>,
    unprovable: bool,
    newest: Option<Chosen>,
    at_once: i32,
    most_at_once: i32,
}

impl World {
    fn new() -> Self {
        Self {
            open: BTreeSet::from([Site::Primary]),
            traffic: Some(Site::Primary),
            newest: Some(backup(1)),
            ..Self::default()
        }
    }

    fn both_open(&self) -> bool {
        let takes_writes = |site: Site| self.open.contains(&site) && !self.fenced.contains(&site);
        takes_writes(Site::Primary) && takes_writes(Site::Standby)
    }

    fn act(&mut self, step: &Step, chosen: Option<&Chosen>) -> bool {
        let digest = chosen.map(|chosen| chosen.digest.clone()).unwrap_or_default();
        match step.role {
            Role::Work => self.built.insert(step.name.clone()),
            Role::Fence(site) => self.fenced.insert(site),
            Role::Unfence(site) => self.fenced.remove(&site),
            Role::Open(site) => {
                assert_eq!(
                    self.data.get(&site),
                    Some(&digest),
                    "{} opens with other data",
                    step.name
                );
                self.fenced.remove(&site);
                self.open.insert(site)
            }
            Role::Traffic(site) => self.traffic.replace(site) != Some(site),
            Role::Restore(site) => self.data.insert(site, digest.clone()) != Some(digest),
            Role::Verify(_) | Role::LastBackup(_) | Role::Preserve(_) => false,
            Role::Destroy => {
                let there = !self.built.is_empty();
                self.built.clear();
                self.open.remove(&Site::Standby);
                there
            }
        }
    }

    fn undo(&mut self, step: &Step) {
        match step.role {
            Role::Work => drop(self.built.remove(&step.name)),
            Role::Fence(site) => drop(self.fenced.remove(&site)),
            Role::Restore(site) => drop(self.data.remove(&site)),
            _ => {}
        }
    }
}

struct FakeHands {
    world: Arc<Mutex<World>>,
    fuel: Arc<Fuel>,
    /// What a step takes.
    takes: Duration,
}

impl FakeHands {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("nobody panicked")
    }
}

#[async_trait]
impl Hands for FakeHands {
    async fn carry_out(&self, task: &Task) -> Result<Outcome, StepError> {
        let name = &task.step.name;
        {
            let mut world = self.world();
            world.at_once += 1;
            world.most_at_once = world.most_at_once.max(world.at_once);
        }
        self.fuel.burn().await;
        tokio::select! {
            () = task.cancel.cancelled() => {
                self.world().at_once -= 1;
                return Err(StepError::passing("cancelled"));
            }
            () = tokio::time::sleep(self.takes) => {}
        }
        let unprovable;
        {
            let mut world = self.world();
            world.at_once -= 1;
            if let Some(left) = world.failing.get_mut(name).filter(|left| **left > 0) {
                *left -= 1;
                return Err(StepError::passing(format!("{name} does not want to")));
            }
            if world.act(&task.step, task.operation.backup.as_ref()) {
                *world.changes.entry(name.clone()).or_default() += 1;
            }
            assert!(
                !world.both_open() || task.operation.has_accepted(Rule::Unfenced),
                "two sites take writes"
            );
            unprovable = world.unprovable;
        }
        self.fuel.burn().await;
        let mut outcome = Outcome::default();
        match task.step.role {
            Role::Fence(_) => outcome.proof = Some(if unprovable { Proof::Unprovable } else { Proof::Proven }),
            Role::Restore(_) => outcome.backup = task.operation.backup.clone(),
            Role::LastBackup(_) => outcome.backup = Some(backup(9)),
            _ => {}
        }
        outcome.outputs.insert("of".to_owned(), name.as_str().into());
        Ok(outcome)
    }

    async fn take_back(&self, task: &Task) -> Result<String, StepError> {
        self.fuel.burn().await;
        tokio::time::sleep(self.takes).await;
        self.world().undo(&task.step);
        self.fuel.burn().await;
        Ok("gone".to_owned())
    }

    async fn newest(&self) -> Result<Option<Chosen>, StepError> {
        Ok(self.world().newest.clone())
    }
}

struct Always(CancellationToken);

#[async_trait]
impl Right for Always {
    fn lost(&self) -> CancellationToken {
        self.0.clone()
    }
    async fn confirm(&self) -> bool {
        !self.0.is_cancelled()
    }
}

struct Nobody;
impl Watch for Nobody {
    fn moved(&self, _: &Position) {}
}

fn backup(minute: i64) -> Chosen {
    let consistent_at = Timestamp::from_second(1_767_225_000 + 60 * minute).expect("a date");
    Chosen {
        id: format!("backup-{minute}"),
        blob: format!("backups/backup-{minute}.sql.gz"),
        digest: format!("digest-{minute}"),
        consistent_at,
    }
}

fn step(name: &str, stage: u8, role: Role, needs: &[&str]) -> Step {
    Step {
        name: name.to_owned(),
        stage,
        role,
        kind: "fake".to_owned(),
        needs: needs.iter().map(|&need| need.to_owned()).collect(),
        at: Place::Operator,
        timeout_seconds: 600,
        on_failure: OnFailure::Stop,
        retries: 1,
        takes_back: matches!(role, Role::Work | Role::Fence(_) | Role::Restore(_)),
        guards_itself: !matches!(role, Role::Fence(_) | Role::Traffic(_)),
    }
}

fn failover() -> Plan {
    use Site::{Primary, Standby};
    Plan {
        steps: vec![
            step("always-on", 1, Role::Work, &[]),
            step("database", 2, Role::Work, &[]),
            step("restore", 2, Role::Restore(Standby), &["database"]),
            step("compare", 2, Role::Verify(Standby), &["restore"]),
            step("cluster", 3, Role::Work, &[]),
            step("application", 3, Role::Work, &["cluster", "compare"]),
            step("fence", 3, Role::Fence(Primary), &["application"]),
            step("last-backup", 3, Role::LastBackup(Primary), &["fence"]),
            step(
                "open",
                3,
                Role::Open(Standby),
                &["restore", "compare", "fence", "last-backup", "application"],
            ),
            step("traffic", 3, Role::Traffic(Standby), &["open"]),
        ],
    }
}

fn failback() -> Plan {
    use Site::{Primary, Standby};
    Plan {
        steps: vec![
            step("primary-ready", 3, Role::Work, &[]),
            step("preserve", 3, Role::Preserve(Primary), &["primary-ready"]),
            step("freeze", 3, Role::Fence(Standby), &["preserve"]),
            step("last", 3, Role::LastBackup(Standby), &["freeze"]),
            step("home", 3, Role::Restore(Primary), &["last", "preserve"]),
            step("same", 3, Role::Verify(Primary), &["home"]),
            step("open-primary", 3, Role::Open(Primary), &["home", "same", "freeze"]),
            step("traffic-home", 3, Role::Traffic(Primary), &["open-primary"]),
            step("destroy", 3, Role::Destroy, &["traffic-home", "open-primary"]),
            step("lift", 3, Role::Unfence(Primary), &[]),
        ],
    }
}

fn full(planned: bool) -> Aim {
    Aim::Failover { stage: 3, planned }
}

fn open(aim: Aim, state: &State) -> Event {
    let plan = match aim {
        Aim::Failover { .. } | Aim::Drill { .. } => failover().for_aim(aim),
        Aim::Failback | Aim::StandDown => failback().for_aim(aim),
    };
    Event::Opened {
        aim,
        plan,
        plan_digest: "same".to_owned(),
        standing: state.standing.clone(),
        backup: Some(backup(1)),
        pinned: false,
        approvers: 1,
        facts: BTreeMap::new(),
        accepted: Vec::new(),
    }
}

/// One lab: a store and a world that outlive the processes.
struct Lab {
    store: Arc<MemoryStore>,
    world: Arc<Mutex<World>>,
    runs: std::sync::atomic::AtomicU32,
}

impl Lab {
    fn new() -> Self {
        let clock = Arc::new(PausedClock(tokio::time::Instant::now()));
        Self {
            store: Arc::new(MemoryStore::new(clock)),
            world: Arc::new(Mutex::new(World::new())),
            runs: std::sync::atomic::AtomicU32::new(0),
        }
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.world.lock().expect("nobody panicked")
    }

    fn by(&self) -> By {
        By {
            who: "ana".to_owned(),
            host: "laptop".to_owned(),
            run: format!("run-{}", self.runs.fetch_add(1, Ordering::SeqCst)),
        }
    }

    fn journal(&self) -> Journal {
        Journal::new(self.store.clone(), "backups")
    }

    fn engine(&self, fuel: &Arc<Fuel>) -> Engine {
        let store = Arc::new(Crashing {
            inner: self.store.clone(),
            fuel: fuel.clone(),
        });
        Engine {
            journal: Journal::new(store, "backups"),
            hands: Arc::new(FakeHands {
                world: self.world.clone(),
                fuel: fuel.clone(),
                takes: Duration::from_secs(3),
            }),
            right: Arc::new(Always(CancellationToken::new())),
            watch: Arc::new(Nobody),
            here: Place::Operator,
            by: self.by(),
            cancel: CancellationToken::new(),
        }
    }

    async fn begin(&self, aim: Aim) -> Position {
        let journal = self.journal();
        let position = journal.read().await.expect("a journal");
        let event = open(aim, &position.state);
        journal.append(&position, &self.by(), event).await.expect("opened")
    }

    /// Runs until it comes to rest, or the fuel is used up; then the process is gone.
    async fn run(&self, fuel: &Arc<Fuel>) -> Option<(Rest, Position)> {
        let engine = self.engine(fuel);
        let run = async {
            let position = engine.journal.read().await.expect("a journal that can be read");
            engine.run(position).await.expect("a journal that can be written")
        };
        let ended = tokio::select! {
            biased;
            () = fuel.empty.cancelled() => None,
            ended = run => Some(ended),
        };
        // What was at work at that instant is gone with its process.
        self.world().at_once = 0;
        ended
    }

    async fn to_the_end(&self) -> (Rest, Position) {
        self.run(&Fuel::endless()).await.expect("fuel enough")
    }
}

fn assert_over_there(lab: &Lab, position: &Position, newest: &str) {
    let standing = &position.state.standing;
    assert_eq!(standing.serving, Some(Site::Standby));
    assert_eq!(
        (standing.epoch(), standing.stage, standing.standby_served),
        (1, 3, true)
    );
    let world = lab.world();
    assert_eq!(world.traffic, Some(Site::Standby));
    assert_eq!(world.data.get(&Site::Standby).map(String::as_str), Some(newest));
    assert!(world.fenced.contains(&Site::Primary) && world.open.contains(&Site::Standby));
}

fn assert_home(lab: &Lab, position: &Position) {
    let standing = &position.state.standing;
    assert_eq!(standing.serving, Some(Site::Primary));
    assert_eq!((standing.stage, standing.standby_served), (1, false));
    assert!(standing.fenced.is_empty(), "{standing:?}");
    let world = lab.world();
    assert_eq!(world.traffic, Some(Site::Primary));
    assert!(world.built.is_empty() && !world.open.contains(&Site::Standby));
    assert!(!world.fenced.contains(&Site::Primary));
}

#[test]
fn the_plans_of_these_tests_are_plans() {
    assert_eq!(failover().mistakes(Site::Standby), []);
    let failback = failback();
    assert_eq!(failback.mistakes(Site::Primary), []);
}

#[test]
fn a_plan_that_could_lose_data_is_refused() {
    let without = |name: &str, need: &str| {
        let mut plan = failover();
        let step = plan.steps.iter_mut().find(|step| step.name == name).expect("a step");
        step.needs.retain(|other| other != need);
        plan
    };
    // Traffic before the opening, an opening without a fence.
    let mut plan = without("traffic", "open");
    assert!(
        plan.mistakes(Site::Standby)
            .iter()
            .any(|mistake| mistake.message.contains("open"))
    );
    plan = failover();
    for step in &mut plan.steps {
        step.needs.retain(|need| need != "fence" && need != "last-backup");
    }
    assert!(
        plan.mistakes(Site::Standby)
            .iter()
            .any(|mistake| mistake.message.contains("two sites"))
    );
    let mut uncompared = failover();
    uncompared.steps.retain(|step| step.name != "compare");
    for step in &mut uncompared.steps {
        step.needs.retain(|need| need != "compare");
    }
    let told = uncompared.mistakes(Site::Standby);
    assert!(
        told.iter()
            .any(|mistake| mistake.message.contains("compare what was restored")),
        "{told:?}"
    );
    let mut circle = failover();
    circle.steps[1].needs.push("traffic".to_owned());
    let told: Vec<String> = circle
        .mistakes(Site::Standby)
        .into_iter()
        .map(|mistake| mistake.message)
        .collect();
    assert!(
        told.iter()
            .any(|message| message.contains("circle") || message.contains("comes round")),
        "{told:?}"
    );
    let mut twice = failover();
    twice.steps[0].name = "database".to_owned();
    assert!(!twice.mistakes(Site::Standby).is_empty());
}

#[test]
fn a_planned_failover_fences_before_it_restores() {
    let plan = failover().for_aim(full(true));
    assert!(plan.before("restore").contains("fence") && plan.before("restore").contains("last-backup"));
    assert!(!plan.before("fence").contains("restore"));
    assert!(
        plan.before("fence").contains("cluster"),
        "what takes long comes before the service stops"
    );
    let circles = plan
        .mistakes(Site::Standby)
        .into_iter()
        .filter(|mistake| mistake.message.contains("comes round"));
    assert_eq!(circles.count(), 0);
    let unplanned = failover().for_aim(full(false));
    assert!(unplanned.before("fence").contains("restore"));
}

#[tokio::test(start_paused = true)]
async fn there_and_back_with_steps_side_by_side() {
    let lab = Lab::new();
    lab.begin(full(false)).await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    // The last backup was newer than what had been restored: restored again.
    assert_over_there(&lab, &position, "digest-9");
    assert!(
        lab.world().most_at_once >= 2,
        "database and cluster were built at the same time"
    );
    let again = lab.journal().read().await.expect("a journal");
    assert_eq!(again, position, "reading gives what writing gave");

    lab.begin(Aim::Failback).await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_home(&lab, &position);
    assert_eq!(position.state.standing.epoch(), 2);
    assert_eq!(lab.journal().read().await.expect("a journal"), position);
}

#[tokio::test(start_paused = true)]
async fn crashed_anywhere_it_ends_in_the_same_state() {
    let mut points = 0;
    for planned in [false, true] {
        for fuel in 0.. {
            let lab = Lab::new();
            lab.begin(full(planned)).await;
            let crashed = lab.run(&Fuel::of(fuel)).await.is_none();
            let (rest, position) = lab.to_the_end().await;
            if !crashed {
                break;
            }
            points += 1;
            assert_eq!(rest_or_ended(&rest, &position), Some(Ended::Done), "crashed at {fuel}");
            assert_over_there(&lab, &position, "digest-9");
            for (step, changes) in &lab.world().changes {
                let most = if step == "restore" && !planned { 2 } else { 1 };
                assert!(
                    *changes <= most,
                    "crashed at {fuel}: {step} changed something {changes} times"
                );
            }
            // And home again, crashed at the same distance.
            lab.begin(Aim::Failback).await;
            let _ = lab.run(&Fuel::of(fuel)).await;
            let (rest, position) = lab.to_the_end().await;
            assert_eq!(
                rest_or_ended(&rest, &position),
                Some(Ended::Done),
                "failback crashed at {fuel}"
            );
            assert_home(&lab, &position);
        }
    }
    println!("{points} points");
    assert!(points > 80, "{points} points only");
}

/// A run that finds nothing open came after the end.
fn rest_or_ended(rest: &Rest, position: &Position) -> Option<Ended> {
    match rest {
        Rest::Ended(how) => Some(*how),
        Rest::Nothing => position.state.operation.as_ref()?.ended.map(|(how, _)| how),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn abandoned_anywhere_before_the_commit_point_it_is_as_before() {
    let (mut abandoned, mut refused) = (0, 0);
    for fuel in 0.. {
        let lab = Lab::new();
        lab.begin(full(false)).await;
        if lab.run(&Fuel::of(fuel)).await.is_some() {
            break;
        }
        let journal = lab.journal();
        let position = journal.read().await.expect("a journal");
        let reason = "drill".to_owned();
        match journal.append(&position, &lab.by(), Event::Abandoning { reason }).await {
            Err(JournalError::Illegal(_)) => {
                refused += 1;
                let operation = position.state.operation.as_ref().expect("one");
                assert!(
                    operation.committed_at.is_some() || operation.ended.is_some(),
                    "crashed at {fuel}"
                );
                continue;
            }
            appended => drop(appended.expect("written")),
        }
        // Killed while it is being taken back, too.
        let _ = lab.run(&Fuel::of(fuel % 7)).await;
        let (rest, position) = lab.to_the_end().await;
        assert_eq!(
            rest_or_ended(&rest, &position),
            Some(Ended::Abandoned),
            "crashed at {fuel}"
        );
        abandoned += 1;
        let standing = &position.state.standing;
        assert_eq!(
            (standing.serving, standing.epoch(), standing.stage),
            (Some(Site::Primary), 0, 1)
        );
        assert!(standing.fenced.is_empty() && standing.outputs.is_empty());
        let world = lab.world();
        assert!(
            world.built.is_empty() && world.fenced.is_empty() && world.data.is_empty(),
            "crashed at {fuel}: {world:?}"
        );
        assert_eq!(world.traffic, Some(Site::Primary));
    }
    assert!(
        abandoned > 30 && refused > 10,
        "{abandoned} abandoned, {refused} refused"
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_never_served_is_stood_down_without_touching_data() {
    let lab = Lab::new();
    lab.begin(Aim::Failover {
        stage: 2,
        planned: false,
    })
    .await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_eq!(
        (position.state.standing.stage, position.state.standing.serving),
        (2, Some(Site::Primary))
    );
    let journal = lab.journal();
    let refused = journal
        .append(&position, &lab.by(), open(Aim::Failback, &position.state))
        .await;
    assert!(
        matches!(refused, Err(JournalError::Illegal(_))),
        "the standby never served: {refused:?}"
    );
    lab.begin(Aim::StandDown).await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_home(&lab, &position);
    assert_eq!(position.state.standing.epoch(), 0);
    assert!(
        !lab.world().data.contains_key(&Site::Primary),
        "nothing was restored over the primary"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failing_step_is_tried_again_and_then_stops_everything_but_what_is_at_work() {
    let lab = Lab::new();
    lab.world().failing.insert("restore".to_owned(), 2);
    lab.begin(full(false)).await;
    let (rest, position) = lab.to_the_end().await;
    let Rest::Failed(failed) = rest else { panic!("{rest:?}") };
    assert_eq!(failed, [("restore".to_owned(), "restore does not want to".to_owned())]);
    let operation = position.state.open().expect("still open");
    assert!(
        matches!(operation.progress("cluster"), Progress::Done { .. }),
        "what was at work came to its end"
    );
    assert!(matches!(operation.progress("application"), Progress::Waiting));
    // Resumed: another run, which may try anew.
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_over_there(&lab, &position, "digest-9");
}

#[tokio::test(start_paused = true)]
async fn an_unprovable_fence_waits_for_somebody_to_answer_for_it() {
    let lab = Lab::new();
    lab.world().unprovable = true;
    lab.begin(full(false)).await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Refused(vec![("open".to_owned(), Rule::Unfenced)]));
    assert!(position.state.open().expect("open").committed_at.is_none());
    assert_eq!(position.state.standing.epoch(), 0, "nothing is committed yet");
    let accepted = Accepted {
        rule: "unfenced".to_owned(),
        reason: "the data centre burned down".to_owned(),
        who: "ana".to_owned(),
    };
    let journal = lab.journal();
    journal
        .append(&position, &lab.by(), Event::Accept(accepted))
        .await
        .expect("written");
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    let pending: Vec<Site> = position.state.standing.pending_fences().collect();
    assert_eq!(pending, [Site::Primary], "it is tried again until it is proven");
    // Which may be long after the operation ended; the next one begins with that.
    let mut standing = position.state.standing.clone();
    standing.proven(Site::Primary).expect("pending");
    let proven = Event::FenceProven {
        site: Site::Primary,
        standing,
    };
    let after = journal
        .append(&position, &lab.by(), proven.clone())
        .await
        .expect("written");
    assert_eq!(journal.refresh(position.clone()).await.expect("readable"), after);
    assert_eq!(journal.read().await.expect("readable"), after);
    assert!(after.state.standing.pending_fences().next().is_none());
    assert!(journal.append(&after, &lab.by(), proven).await.is_err(), "once");
    lab.begin(Aim::Failback).await;
    assert!(journal.read().await.expect("readable").state.open().is_some());
    let operation = position.state.operation.as_ref().expect("one");
    assert_eq!(
        operation.accepted[0].reason, "the data centre burned down",
        "a reason is never forgotten"
    );
}

/// A plan from elsewhere that compares nothing, whatever checks a configuration.
#[tokio::test(start_paused = true)]
async fn what_nothing_compared_does_not_open() {
    let lab = Lab::new();
    let journal = lab.journal();
    let position = journal.read().await.expect("a journal");
    let Event::Opened {
        mut plan,
        aim,
        plan_digest,
        standing,
        backup,
        pinned,
        approvers,
        facts,
        accepted,
    } = open(full(false), &position.state)
    else {
        unreachable!()
    };
    plan.steps.retain(|step| step.name != "compare");
    for step in &mut plan.steps {
        step.needs.retain(|need| need != "compare");
    }
    let event = Event::Opened {
        plan,
        aim,
        plan_digest,
        standing,
        backup,
        pinned,
        approvers,
        facts,
        accepted,
    };
    journal.append(&position, &lab.by(), event).await.expect("opened");
    let (rest, _) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Refused(vec![("open".to_owned(), Rule::Unverified)]));
}

/// Stopped by a failure while another step waits for somebody's answer: both are told, at once.
#[tokio::test(start_paused = true)]
async fn what_is_refused_is_told_beside_what_failed() {
    let lab = Lab::new();
    {
        let mut world = lab.world();
        world.unprovable = true;
        world.failing.insert("tell".to_owned(), 99);
    }
    let journal = lab.journal();
    let position = journal.read().await.expect("a journal");
    let mut event = open(full(false), &position.state);
    if let Event::Opened { plan, .. } = &mut event {
        plan.steps.push(step("tell", 3, Role::Work, &["last-backup"]));
    }
    journal.append(&position, &lab.by(), event).await.expect("opened");
    let (rest, position) = lab.to_the_end().await;
    assert!(matches!(rest, Rest::Failed(_)), "{rest:?}");
    let operation = position.state.open().expect("open");
    let refused = operation.refused(&position.state.standing);
    assert_eq!(refused, [("open".to_owned(), Rule::Unfenced)]);
}

/// What could not be proven may be by now: a person who goes on has it tried again, and the last backup taken again after it.
#[tokio::test(start_paused = true)]
async fn a_fence_that_can_be_proven_by_now_is_no_longer_asked_about() {
    let lab = Lab::new();
    lab.world().unprovable = true;
    lab.begin(full(false)).await;
    for _ in 0..2 {
        let (rest, position) = lab.to_the_end().await;
        assert_eq!(rest, Rest::Refused(vec![("open".to_owned(), Rule::Unfenced)]));
        assert!(position.state.open().expect("open").committed_at.is_none());
    }
    lab.world().unprovable = false;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_over_there(&lab, &position, "digest-9");
    assert!(position.state.standing.pending_fences().next().is_none());
    let (entries, _) = lab.journal().history().await.expect("readable");
    let begun = |step: &str| {
        let is = |entry: &&journaled::Entry| matches!(&entry.event, Event::Started { step: of, .. } if of == step);
        entries.iter().filter(is).count()
    };
    assert_eq!((begun("fence"), begun("last-backup")), (3, 3));
}

/// Two machines' clocks differ by some seconds: what an agent took before the fence may look newer than the last backup.
#[tokio::test(start_paused = true)]
async fn the_last_backup_is_the_last_whatever_clocks_say() {
    for planned in [false, true] {
        let lab = Lab::new();
        lab.world().newest = Some(backup(12));
        lab.begin(full(planned)).await;
        let (rest, position) = lab.to_the_end().await;
        assert_eq!(rest, Rest::Ended(Ended::Done));
        assert_over_there(&lab, &position, "digest-9");
    }
}

/// Agents raise pending fences beside an operation only where nothing can take the fence back, or open that site, meanwhile.
#[tokio::test(start_paused = true)]
async fn nobody_fences_beside_an_operation_that_may_want_the_site() {
    let lab = Lab::new();
    lab.world().unprovable = true;
    assert!(
        !lab.journal()
            .read()
            .await
            .expect("a journal")
            .state
            .may_fence(Site::Primary),
        "it serves"
    );
    lab.begin(full(false)).await;
    let (_, position) = lab.to_the_end().await;
    assert!(
        !position.state.may_fence(Site::Primary),
        "it may be abandoned, and lifts the fence"
    );
    let accepted = Accepted {
        rule: "unfenced".to_owned(),
        reason: "gone".to_owned(),
        who: "ana".to_owned(),
    };
    let journal = lab.journal();
    journal
        .append(&position, &lab.by(), Event::Accept(accepted))
        .await
        .expect("written");
    lab.world().failing.insert("traffic".to_owned(), 99);
    let (rest, position) = lab.to_the_end().await;
    assert!(matches!(rest, Rest::Failed(_)), "{rest:?}");
    assert!(
        position.state.may_fence(Site::Primary),
        "the standby serves, and the operation stays open"
    );
    assert!(!position.state.may_fence(Site::Standby), "it serves");
    // Proven meanwhile, and the operation goes on.
    let mut standing = position.state.standing.clone();
    standing.proven(Site::Primary).expect("pending");
    let site = Site::Primary;
    let proven = journal
        .append(&position, &lab.by(), Event::FenceProven { site, standing })
        .await;
    assert!(
        proven
            .expect("written")
            .state
            .standing
            .pending_fences()
            .next()
            .is_none()
    );
    lab.world().failing.clear();
    let (rest, _) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    lab.world().failing.insert("home".to_owned(), 99);
    lab.begin(Aim::Failback).await;
    let (_, position) = lab.to_the_end().await;
    assert!(!position.state.may_fence(Site::Primary), "it will open there");
}

#[tokio::test(start_paused = true)]
async fn of_two_operators_one_acts() {
    for seed in 0..20_u64 {
        let lab = Lab::new();
        let journal = lab.journal();
        let position = journal.read().await.expect("a journal");
        let open = |number: u64| (lab.by(), number);
        let ((first, _), (second, _)) = (open(seed), open(seed + 1));
        let events = (super_open(&position), super_open(&position));
        let (one, other) = tokio::join!(
            journal.append(&position, &first, events.0),
            journal.append(&position, &second, events.1)
        );
        let both = [one, other];
        let won = both.iter().filter(|opened| opened.is_ok()).count();
        let raced = both
            .iter()
            .filter(|opened| matches!(opened, Err(JournalError::Raced)))
            .count();
        assert_eq!((won, raced), (1, 1));
    }
}

fn super_open(position: &Position) -> Event {
    open(full(false), &position.state)
}

#[tokio::test(start_paused = true)]
async fn whoever_lost_the_lease_does_nothing_more() {
    let lab = Lab::new();
    lab.begin(full(false)).await;
    let fuel = Fuel::endless();
    let mut engine = lab.engine(&fuel);
    let lost = CancellationToken::new();
    engine.right = Arc::new(Always(lost.clone()));
    let position = engine.journal.read().await.expect("a journal");
    let watching = async {
        // In the middle of the restore.
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = lab.journal().read().await.expect("a journal");
            if let Some(Progress::Running { .. }) = now.state.open().map(|open| open.progress("restore")) {
                lost.cancel();
                return now;
            }
        }
    };
    let (ended, seen) = tokio::join!(engine.run(position), watching);
    assert_eq!(ended.expect("a journal").0, Rest::Lost);
    let after = lab.journal().read().await.expect("a journal");
    assert_eq!(after.state.entries, seen.state.entries, "it wrote nothing after that");
    assert!(lab.world().data.is_empty(), "and did nothing");
}

#[tokio::test(start_paused = true)]
async fn a_torn_or_altered_journal_is_refused_and_can_be_begun_anew() {
    let lab = Lab::new();
    lab.begin(full(false)).await;
    let (_, position) = lab.to_the_end().await;
    let names: Vec<Properties> = lab.store.list("journal/").await.expect("a list");
    for (at, blob) in names.iter().enumerate() {
        let bytes = lab
            .store
            .read(&blob.name, 0..blob.size_bytes, None)
            .await
            .expect("an entry");
        let current = |name: String| {
            let store = lab.store.clone();
            async move { store.properties(&name).await.expect("asked").expect("there").etag }
        };
        for broken in [
            bytes.slice(..bytes.len() / 2),
            Bytes::from([b"x", &bytes[1..]].concat()),
        ] {
            let etag = current(blob.name.clone()).await;
            lab.store
                .put(&blob.name, broken, Condition::Matches(etag))
                .await
                .expect("written");
            let read = lab.journal().read().await;
            let Err(JournalError::Damaged { blob: told, good, .. }) = read else {
                panic!("{at}: {read:?}")
            };
            assert_eq!(told, blob.name);
            assert_eq!(good.state.entries as usize, at, "what came before can be read");
        }
        // One that is missing is damage, too, but for the last, which nobody can know of.
        let etag = current(blob.name.clone()).await;
        lab.store.delete(&blob.name, &etag).await.expect("deleted");
        let read = lab.journal().read().await;
        assert_eq!(read.is_err(), at + 1 < names.len(), "{at}: {read:?}");
        lab.store
            .put(&blob.name, bytes, Condition::Absent)
            .await
            .expect("written");
        assert_eq!(lab.journal().read().await.expect("whole again"), position);
    }
    // Begun anew from what could be read.
    let last = names.last().expect("entries");
    let etag = lab
        .store
        .properties(&last.name)
        .await
        .expect("asked")
        .expect("there")
        .etag;
    lab.store
        .put(&last.name, Bytes::from_static(b"{"), Condition::Matches(etag))
        .await
        .expect("written");
    let Err(JournalError::Damaged { good, .. }) = lab.journal().read().await else {
        panic!("damaged")
    };
    let anew = Journal::anew(&good);
    let event = open(Aim::Failback, &anew.state);
    let opened = lab.journal().append(&anew, &lab.by(), event).await.expect("begun");
    assert_eq!(lab.journal().read().await.expect("readable"), opened);
    assert_eq!(
        opened.state.standing.serving,
        Some(Site::Standby),
        "it remembers who serves"
    );
}

#[test]
fn a_backup_of_a_site_that_no_longer_served_is_an_orphan() {
    let mut standing = Standing::default();
    let since = backup(10).consistent_at;
    assert!(!standing.is_orphan(0, since));
    standing.epochs.push(planb::recovery::state::Epoch {
        number: 1,
        since,
        site: Site::Standby,
    });
    assert!(
        !standing.is_orphan(0, backup(9).consistent_at),
        "it was consistent before"
    );
    assert!(standing.is_orphan(0, since) && standing.is_orphan(0, backup(11).consistent_at));
    assert!(!standing.is_orphan(1, backup(11).consistent_at));
}

/// Anything that could be written into a journal next, sensible or not.
fn events() -> impl Strategy<Value = (u8, usize, u8)> {
    (0..16_u8, 0..16_usize, 0..4_u8)
}

/// As the configuration's checks would have it, or as they never would: without an order, and with steps of another way. The rules hold
/// whatever plan a journal brings.
fn opened(aim: Aim, state: &State, which: usize) -> Event {
    let mut event = open(aim, state);
    if let (8.., Event::Opened { plan, .. }) = (which, &mut event) {
        if which >= 12 {
            *plan = match aim.towards() {
                Site::Standby => failover(),
                Site::Primary => failback(),
            };
        }
        plan.steps.iter_mut().for_each(|step| step.needs.clear());
    }
    event
}

fn event(state: &State, (what, which, how): (u8, usize, u8)) -> Event {
    let plan = state
        .operation
        .as_ref()
        .map(|operation| operation.plan.clone())
        .unwrap_or_default();
    let name = |which: usize| {
        plan.steps
            .get(which % plan.steps.len().max(1))
            .map(|step| step.name.clone())
            .unwrap_or_default()
    };
    // Mostly what would really come next, so that walks go far.
    let likely = match next(state, Place::Operator, "r", Timestamp::MAX) {
        Next::Start(steps) => steps.get(which % steps.len()).cloned(),
        Next::TakeBack(step) => Some(step),
        _ => None,
    };
    let running = state.open().and_then(|operation| {
        let at_work: Vec<&String> = operation
            .steps
            .iter()
            .filter(|(_, progress)| matches!(progress, Progress::Running { .. } | Progress::TakingBack { .. }))
            .map(|(name, _)| name)
            .collect();
        at_work.get(which % at_work.len().max(1)).map(|&name| name.clone())
    });
    let bound = Timestamp::UNIX_EPOCH;
    let rules = [Rule::Unfenced, Rule::Unverified, Rule::NeverServed, Rule::Serving];
    match what {
        0 => opened(
            [full(false), full(true), Aim::Failback, Aim::StandDown][usize::from(how)],
            state,
            which,
        ),
        1 | 2 => Event::Started {
            step: likely.unwrap_or_else(|| name(which)),
            bound,
        },
        3 if how == 0 => Event::Started {
            step: name(which),
            bound,
        },
        3 => Event::Started {
            step: likely.unwrap_or_else(|| name(which)),
            bound,
        },
        4..=7 => {
            let step = running.unwrap_or_else(|| name(which));
            let role = plan.step(&step).map(|step| step.role);
            let mut outcome = Outcome::default();
            match role {
                Some(Role::Fence(_)) => outcome.proof = Some(if how == 0 { Proof::Unprovable } else { Proof::Proven }),
                Some(Role::Restore(_)) => {
                    let chosen = state.operation.as_ref().and_then(|operation| operation.backup.clone());
                    outcome.backup = if how == 0 { Some(backup(3)) } else { chosen };
                }
                Some(Role::LastBackup(_)) => outcome.backup = Some(backup(5 + i64::from(how))),
                _ => {}
            }
            Event::Done { step, outcome }
        }
        8 if how > 0 => Event::Taken { at: Place::Operator },
        8 => Event::Failed {
            step: running.unwrap_or_else(|| name(which)),
            error: "no".to_owned(),
            tries: 1,
        },
        9 if how > 0 => Event::Approved,
        9 => Event::Renewed {
            backup: backup(20 + i64::from(how)),
        },
        10 if how == 0 && which < 2 => Event::Abandoning {
            reason: "so".to_owned(),
        },
        10 => Event::Taken { at: Place::Operator },
        11 => Event::TakingBack {
            step: likely.unwrap_or_else(|| name(which)),
            bound,
        },
        12 => Event::TakenBack {
            step: running.unwrap_or_else(|| name(which)),
            note: String::new(),
        },
        13 => Event::Accept(Accepted {
            rule: rules[usize::from(how)].name().to_owned(),
            reason: "because".to_owned(),
            who: "bo".to_owned(),
        }),
        14 => Event::Left,
        _ => {
            let how = if how % 2 == 0 { Ended::Done } else { Ended::Abandoned };
            let standing = state
                .open()
                .map(|open| open.leaves(&state.standing, how))
                .unwrap_or_default();
            Event::Ended { how, standing }
        }
    }
}

/// The epoch at that instant, told without what is tested.
fn in_force(standing: &Standing, at: Timestamp) -> u64 {
    let begun = standing.epochs.iter().filter(|epoch| epoch.since <= at);
    begun.map(|epoch| epoch.number).max().unwrap_or(0)
}

/// Backups of every epoch, consistent around every instant at which one began.
fn backups(standing: &Standing) -> Vec<Entry> {
    let instants: Vec<Timestamp> = standing
        .epochs
        .iter()
        .flat_map(|epoch| [-1, 0, 1].map(|seconds| epoch.since + SignedDuration::from_secs(seconds)))
        .collect();
    let mut backups = Vec::new();
    for at in instants {
        // Begun under that epoch or one before.
        for epoch in 0..=in_force(standing, at) {
            let id = BackupId::at(at);
            backups.push(Entry {
                blob: id.blob("backups/"),
                id,
                etag: ETag("1".to_owned()),
                size_bytes: 1,
                raw_bytes: 1,
                rows: 1,
                site: "seoul".to_owned(),
                epoch,
                consistent_at: at,
                committed_at: at,
                digest: epoch.to_string(),
                standing: match standing.is_orphan(epoch, at) {
                    true => entry::Standing::Orphan,
                    false => entry::Standing::Good,
                },
                proven_at: None,
                structure_checked_at: None,
            });
        }
    }
    backups
}

/// What must hold in every state that a journal can lead to.
fn never(before: &State, after: &State) -> Result<(), TestCaseError> {
    let standing = &after.standing;
    let accepted = |rule: Rule| {
        let of = |state: &State| {
            state
                .operation
                .as_ref()
                .is_some_and(|operation| operation.has_accepted(rule))
        };
        of(after) || of(before)
    };
    // Two sites: one serves only where the other takes no writes any more, or never took any, or somebody answered for it.
    if let Some(site) = standing.serving
        && before.standing.serving != Some(site)
    {
        let other = site.other();
        let never_took = other == Site::Standby && !before.standing.standby_served;
        let is_fenced = before.standing.fenced.get(&other) == Some(&Proof::Proven);
        // Abandoned, a way home that froze the standby leaves it as it found it: whoever answered for its opening answered for that.
        let is_as_before = after
            .operation
            .as_ref()
            .is_some_and(|operation| operation.abandoning.is_some() && operation.before.serving == Some(site));
        prop_assert!(
            never_took || is_fenced || is_as_before || accepted(Rule::Unfenced),
            "{site} serves beside a site that may take writes"
        );
    }
    let chosen = backups(standing);
    if let Some(newest) = newest_good(&chosen) {
        let in_force = in_force(standing, newest.consistent_at);
        prop_assert_eq!(newest.epoch, in_force, "an orphan is chosen by default");
    }
    let operation = after.operation.as_ref();
    if let Some(operation) = operation {
        for step in &operation.plan.steps {
            let is_under_way = |state: &State| {
                matches!(
                    state.operation.as_ref().map(|operation| operation.progress(&step.name)),
                    Some(Progress::Running { .. })
                )
            };
            let begins = is_under_way(after) && !is_under_way(before);
            match step.role {
                Role::Restore(Site::Primary) if begins => {
                    prop_assert!(
                        before.standing.standby_served,
                        "the primary is replaced from a standby that never served"
                    );
                    prop_assert!(before.standing.serving != Some(Site::Primary));
                }
                Role::Open(_) if begins => {
                    let verifies: Vec<&Step> = operation
                        .plan
                        .with_role(|role| matches!(role, Role::Verify(_)))
                        .collect();
                    let is_done = |verify: &&Step| matches!(operation.progress(&verify.name), Progress::Done { .. });
                    let verified = !verifies.is_empty() && verifies.iter().all(is_done);
                    prop_assert!(verified || accepted(Rule::Unverified), "what was not compared serves");
                    if let Role::Open(site) = step.role
                        && operation.plan.mistakes(site).is_empty()
                    {
                        prop_assert_eq!(
                            standing.restored.get(&site),
                            operation.backup.as_ref(),
                            "another backup serves"
                        );
                    }
                }
                Role::Destroy if begins => prop_assert!(standing.serving != Some(Site::Standby)),
                _ => {}
            }
        }
        prop_assert!(
            !(operation.abandoning.is_some() && operation.committed_at.is_some()),
            "taken back after the commit point"
        );
        if let Some(old) = before.operation.as_ref().filter(|old| old.number == operation.number) {
            prop_assert!(
                operation.accepted.starts_with(&old.accepted),
                "an accepted reason is forgotten"
            );
            prop_assert!(old.committed_at.is_none() || operation.committed_at == old.committed_at);
        }
    }
    let rose = standing.epoch() - before.standing.epoch();
    prop_assert!(rose <= 1);
    if rose == 1 {
        prop_assert!(operation.is_some_and(|operation| operation.committed_at.is_some()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_events_leads_to_harm(walk in proptest::collection::vec(events(), 1..250)) {
        let mut state = State::default();
        let (mut accepted, mut digest) = (0, NOTHING_BEFORE.to_owned());
        for choice in walk {
            let event = event(&state, choice);
            let (operation, number) = match event {
                Event::Opened { .. } => (state.operations + 1, 1),
                _ => (state.operations, state.entries + 1),
            };
            let by = By { who: "ana".to_owned(), host: "h".to_owned(), run: "r".to_owned() };
            let at = Timestamp::from_second(1_767_225_600 + accepted).expect("a date");
            let entry = journaled::Entry::new(operation, number, &digest, state.standing.epoch(), at, by, event);
            let (bytes, next_digest) = entry.encode();
            prop_assert_eq!(journaled::Entry::decode(&bytes).map(|(entry, _)| entry), Ok(entry.clone()));
            if let Ok(next) = state.apply(&entry, &next_digest) {
                never(&state, &next)?;
                state = next;
                digest = next_digest;
                accepted += 1;
            }
        }
    }
}

#[test]
fn random_walks_do_reach_the_interesting_states() {
    // A walk that never opens a site would prove nothing: the same generator, with a fixed seed, gets there and back.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = proptest::collection::vec(events(), 400..401);
    let (mut opened, mut home, mut abandoned) = (0, 0, 0);
    for _ in 0..150 {
        let walk = strategy.new_tree(&mut runner).expect("a walk").current();
        let mut state = State::default();
        for choice in walk {
            let event = event(&state, choice);
            let (operation, number) = match event {
                Event::Opened { .. } => (state.operations + 1, 1),
                _ => (state.operations, state.entries + 1),
            };
            let by = By {
                who: "ana".to_owned(),
                host: "h".to_owned(),
                run: "r".to_owned(),
            };
            let entry = journaled::Entry::new(
                operation,
                number,
                &state.digest,
                state.standing.epoch(),
                Timestamp::UNIX_EPOCH,
                by,
                event,
            );
            let (_, digest) = entry.encode();
            let Ok(next) = state.apply(&entry, &digest) else {
                continue;
            };
            opened += u32::from(next.standing.standby_served && !state.standing.standby_served);
            home += u32::from(!next.standing.standby_served && state.standing.standby_served);
            let is_abandoned = |state: &State| {
                matches!(
                    state.operation.as_ref().and_then(|o| o.ended),
                    Some((Ended::Abandoned, _))
                )
            };
            abandoned += u32::from(is_abandoned(&next) && !is_abandoned(&state));
            state = next;
        }
    }
    println!("opened {opened}, home {home}, abandoned {abandoned}");
    assert!(
        opened > 20 && home > 3 && abandoned > 10,
        "opened {opened}, home {home}, abandoned {abandoned}"
    );
}

#[test]
fn the_example_in_the_configuration_is_a_plan() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recovery.toml");
    let config = planb::config::Config::load(&path).expect("valid");
    let mistakes = planb::steps::plan::mistakes(&config.failover_steps, &config.failback_steps);
    assert_eq!(mistakes, []);
    let failover = planb::steps::plan::plan(&config.failover_steps);
    let early = failover.for_aim(full(true));
    assert!(early.before("fence").contains("cluster") && early.before("restore").contains("last-backup"));
    let failback = planb::steps::plan::plan(&config.failback_steps);
    let all = failover.steps.iter().chain(&failback.steps);
    let kinds: BTreeSet<&str> = all.map(|step| step.kind.as_str()).collect();
    assert_eq!(kinds.len(), 18, "each kind stands in it once: {kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_cannot_open_is_given_up_and_the_primary_serves_again() {
    let lab = Lab::new();
    // After the fence was proven, the comparison of the last backup goes wrong for good.
    lab.begin(full(true)).await;
    lab.world().failing.insert("compare".to_owned(), 99);
    let (rest, position) = lab.to_the_end().await;
    assert!(matches!(rest, Rest::Failed(_)), "{rest:?}");
    let journal = lab.journal();
    let reason = "no".to_owned();
    let abandoned = journal.append(&position, &lab.by(), Event::Abandoning { reason }).await;
    assert!(
        matches!(abandoned, Err(JournalError::Illegal(_))),
        "the commit point is passed"
    );
    let operation = position.state.open().expect("open");
    assert!(operation.can_be_given_up(&position.state.standing));
    let how = Ended::GivenUp;
    let standing = operation.leaves(&position.state.standing, how);
    journal
        .append(&position, &lab.by(), Event::Ended { how, standing })
        .await
        .expect("written");
    lab.begin(Aim::StandDown).await;
    let (rest, position) = lab.to_the_end().await;
    assert_eq!(rest, Rest::Ended(Ended::Done));
    assert_home(&lab, &position);
    assert_eq!(position.state.standing.epoch(), 1, "an epoch only grows");
    assert!(
        !position.state.standing.is_orphan(1, backup(99).consistent_at),
        "its backups are good again"
    );
}

/// An answer is for what was known when it was given: one for a backup is none for the next.
#[tokio::test(start_paused = true)]
async fn what_was_answered_for_of_one_backup_is_not_of_the_next() {
    let lab = Lab::new();
    lab.begin(full(false)).await;
    let journal = lab.journal();
    let mut position = journal.read().await.expect("a journal");
    let accepted = Event::Accept(Accepted {
        rule: Rule::Unverified.name().to_owned(),
        reason: "a comment differs".to_owned(),
        who: "kim".to_owned(),
    });
    position = journal
        .append(&position, &lab.by(), accepted.clone())
        .await
        .expect("written");
    assert!(position.state.open().expect("open").has_accepted(Rule::Unverified));
    let newer = Chosen {
        consistent_at: position
            .state
            .open()
            .and_then(|open| open.backup.clone())
            .expect("a backup")
            .consistent_at
            + jiff::SignedDuration::from_mins(5),
        digest: "digest-newer".to_owned(),
        ..position
            .state
            .open()
            .and_then(|open| open.backup.clone())
            .expect("a backup")
    };
    position = journal
        .append(&position, &lab.by(), Event::Renewed { backup: newer })
        .await
        .expect("written");
    assert!(!position.state.open().expect("open").has_accepted(Rule::Unverified));
    position = journal.append(&position, &lab.by(), accepted).await.expect("written");
    assert!(
        position.state.open().expect("open").has_accepted(Rule::Unverified),
        "asked and answered again"
    );
}
