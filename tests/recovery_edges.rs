//! The journal and the state machine where things are at their worst: what was written is damaged, a site is gone for good in the
//! middle of an operation, whoever was at work has vanished. Each ends with a way on that loses nothing which is still there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use planb::clock::Clock;
use planb::recovery::event::{Accepted, By, Chosen, Ended, Event, Outcome, Proof};
use planb::recovery::journal::{Journal, JournalError, Position};
use planb::recovery::next::{Next, next};
use planb::recovery::plan::{Aim, OnFailure, Place, Plan, Role, Site, Step};
use planb::recovery::rules::{self, Rule};
use planb::recovery::state::Standing;
use planb::store::memory::MemoryStore;
use planb::store::{BlobStore, Condition};

/// 2026-01-01T00:00:00Z, and on with tokio's clock, which the tests pause.
#[derive(Debug)]
struct PausedClock(tokio::time::Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let begun = Timestamp::from_second(1_767_225_600).expect("a date");
        begun + SignedDuration::try_from(self.0.elapsed()).expect("a duration")
    }
}

fn backup(minute: i64) -> Chosen {
    Chosen {
        id: format!("backup-{minute}"),
        blob: format!("backups/backup-{minute}.sql.gz"),
        digest: format!("digest-{minute}"),
        consistent_at: Timestamp::from_second(1_767_225_000 + 60 * minute).expect("a date"),
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
        retries: 0,
        takes_back: matches!(role, Role::Work | Role::Fence(_)),
        guards_itself: false,
    }
}

fn failover() -> Plan {
    use Site::{Primary, Standby};
    Plan {
        steps: vec![
            step("database", 2, Role::Work, &[]),
            step("restore", 2, Role::Restore(Standby), &["database"]),
            step("compare", 2, Role::Verify(Standby), &["restore"]),
            step("cluster", 3, Role::Work, &[]),
            step("fence", 3, Role::Fence(Primary), &["cluster", "compare"]),
            step("last-backup", 3, Role::LastBackup(Primary), &["fence"]),
            step(
                "open",
                3,
                Role::Open(Standby),
                &["restore", "compare", "fence", "last-backup"],
            ),
            step("traffic", 3, Role::Traffic(Standby), &["open"]),
        ],
    }
}

fn failback() -> Plan {
    use Site::{Primary, Standby};
    Plan {
        steps: vec![
            step("preserve", 3, Role::Preserve(Primary), &[]),
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

const TO_THE_END: Aim = Aim::Failover {
    stage: 3,
    planned: false,
};
const PLANNED: Aim = Aim::Failover {
    stage: 3,
    planned: true,
};
const DATABASE: Aim = Aim::Failover {
    stage: 2,
    planned: false,
};

/// A journal, and who writes to it.
struct Tale {
    store: Arc<MemoryStore>,
    journal: Journal,
    position: Position,
    run: String,
}

impl Tale {
    async fn begun() -> Self {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        let clock = Arc::new(PausedClock(tokio::time::Instant::now()));
        let store = Arc::new(MemoryStore::new(clock));
        let journal = Journal::new(store.clone(), "backups");
        Self {
            position: journal.read().await.expect("an empty journal"),
            store,
            journal,
            run: format!("run-{}", RUNS.fetch_add(1, Ordering::SeqCst)),
        }
    }

    fn by(&self) -> By {
        By {
            who: "ana".to_owned(),
            host: "laptop".to_owned(),
            run: self.run.clone(),
        }
    }

    fn standing(&self) -> &Standing {
        &self.position.state.standing
    }

    async fn try_to(&self, event: Event) -> Result<Position, JournalError> {
        self.journal.append(&self.position, &self.by(), event).await
    }

    async fn write(&mut self, event: Event) {
        let told = format!("{event:?}");
        self.position = self
            .try_to(event)
            .await
            .unwrap_or_else(|error| panic!("{told}: {error}"));
    }

    fn opening(&self, aim: Aim) -> Event {
        let plan = match aim.towards() {
            Site::Standby => failover(),
            Site::Primary => failback(),
        };
        Event::Opened {
            aim,
            plan: plan.for_aim(aim),
            plan_digest: "same".to_owned(),
            standing: self.standing().clone(),
            backup: Some(backup(1)),
            pinned: false,
            approvers: 1,
            facts: BTreeMap::new(),
            accepted: Vec::new(),
        }
    }

    async fn open(&mut self, aim: Aim) {
        let event = self.opening(aim);
        self.write(event).await;
    }

    async fn start(&mut self, name: &str) {
        let bound = self.journal.now().await.expect("a clock") + SignedDuration::from_secs(660);
        let step = name.to_owned();
        self.write(Event::Started { step, bound }).await;
    }

    async fn done(&mut self, name: &str) {
        self.start(name).await;
        let operation = self.position.state.open().expect("open");
        let mut outcome = Outcome::default();
        outcome.outputs.insert("of".to_owned(), name.into());
        match operation.plan.step(name).expect("a step").role {
            Role::Fence(_) => outcome.proof = Some(Proof::Proven),
            Role::Restore(_) => outcome.backup = operation.backup.clone(),
            _ => {}
        }
        let step = name.to_owned();
        self.write(Event::Done { step, outcome }).await;
    }

    async fn all_done(&mut self, names: &[&str]) {
        for name in names {
            self.done(name).await;
        }
    }

    async fn failed(&mut self, name: &str) {
        self.start(name).await;
        self.fail(name).await;
    }

    async fn fail(&mut self, name: &str) {
        let step = name.to_owned();
        let error = "no route to host".to_owned();
        self.write(Event::Failed { step, error, tries: 1 }).await;
    }

    async fn accept(&mut self, rule: &str) {
        let accepted = Accepted {
            rule: rule.to_owned(),
            reason: "the region is gone".to_owned(),
            who: "ana".to_owned(),
        };
        self.write(Event::Accept(accepted)).await;
    }

    async fn end(&mut self, how: Ended) {
        let operation = self.position.state.open().expect("open");
        let standing = operation.leaves(self.standing(), how);
        self.write(Event::Ended { how, standing }).await;
    }

    async fn abandon(&mut self) {
        let reason = "another backup is wanted".to_owned();
        self.write(Event::Abandoning { reason }).await;
    }

    async fn take_back(&mut self, name: &str) {
        let bound = self.journal.now().await.expect("a clock") + SignedDuration::from_secs(660);
        let step = name.to_owned();
        self.write(Event::TakingBack { step, bound }).await;
        let (step, note) = (name.to_owned(), String::new());
        self.write(Event::TakenBack { step, note }).await;
    }

    async fn next(&self) -> Next {
        let now = self.journal.now().await.expect("a clock");
        next(&self.position.state, Place::Operator, &self.run, now)
    }

    /// The standby serves.
    async fn moved(&mut self) {
        self.open(TO_THE_END).await;
        self.all_done(&[
            "database",
            "restore",
            "compare",
            "cluster",
            "fence",
            "last-backup",
            "open",
        ])
        .await;
        self.done("traffic").await;
        self.end(Ended::Done).await;
        assert_eq!(self.standing().serving, Some(Site::Standby));
    }

    async fn blobs(&self, under: &str) -> Vec<String> {
        let listed = self.store.list(&format!("journal/backups/{under}")).await;
        let mut names: Vec<String> = listed.expect("listed").into_iter().map(|blob| blob.name).collect();
        names.sort();
        names
    }

    async fn overwrite(&self, name: &str, bytes: Option<&'static [u8]>) {
        let there = self.store.properties(name).await.expect("asked").expect("there");
        self.store.delete(name, &there.etag).await.expect("deleted");
        if let Some(bytes) = bytes {
            let put = self.store.put(name, Bytes::from_static(bytes), Condition::Absent);
            put.await.expect("written");
        }
    }

    /// What a damaged journal still says.
    async fn damaged(&self) -> Position {
        let Err(JournalError::Damaged { good, .. }) = self.journal.read().await else {
            panic!("damage is not seen")
        };
        let known = self.journal.known().await.expect("a store");
        assert!(known.is_open && known.damage.is_some(), "nothing is pruned: {known:?}");
        assert_eq!(known.standing, good.state.standing);
        *good
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_what_went_before_does_not_move_the_service() {
    for missing in [false, true] {
        let mut tale = Tale::begun().await;
        tale.moved().await;
        tale.open(Aim::Failback).await;
        tale.all_done(&["preserve", "freeze"]).await;
        let entries = tale.blobs("g1/000001/").await;
        // The last entry is unreadable; or everything old was cleaned away; or only the end is missing.
        if missing {
            for name in &entries {
                tale.overwrite(name, None).await;
            }
        } else {
            tale.overwrite(entries.last().expect("entries"), Some(b"{")).await;
        }
        let good = tale.damaged().await;
        assert_eq!(good.state.standing, *tale.standing(), "missing: {missing}");
        assert!(good.state.standing.standby_served && good.state.standing.epoch() == 1);
        assert_eq!(good.state.operations, 2);

        // Begun anew it stays so: home is a failback with data, never a stand-down that destroys what serves.
        tale.journal.seal(&good).await.expect("sealed");
        let again = tale.damaged().await;
        assert_eq!(
            again.state.standing, good.state.standing,
            "sealed, and not begun anew yet"
        );
        tale.journal.seal(&again).await.expect("sealed again");
        tale.position = Journal::anew(&again);
        let stand_down = tale.try_to(tale.opening(Aim::StandDown)).await;
        assert!(matches!(stand_down, Err(JournalError::Illegal(_))), "{stand_down:?}");
        tale.open(Aim::Failback).await;
        assert_eq!(tale.journal.read().await.expect("readable"), tale.position);
        assert_eq!(tale.position.generation, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn damage_in_the_middle_of_what_has_ended_does_not_either() {
    let mut tale = Tale::begun().await;
    tale.moved().await;
    let entries = tale.blobs("g1/000001/").await;
    for name in &entries[1..entries.len() - 1] {
        let there = tale.store.properties(name).await.expect("asked").expect("there");
        let bytes = tale.store.read(name, 0..there.size_bytes, None).await.expect("read");
        tale.overwrite(name, Some(b"{")).await;
        let good = tale.damaged().await;
        assert_eq!(good.state.standing, *tale.standing(), "{name}");
        tale.overwrite(name, None).await;
        tale.store.put(name, bytes, Condition::Absent).await.expect("as it was");
    }
    assert_eq!(tale.journal.read().await.expect("whole"), tale.position);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_at_work_in_a_damaged_journal_is_stopped_by_the_seal() {
    for has_ended in [false, true] {
        let mut tale = Tale::begun().await;
        if has_ended {
            tale.moved().await;
        } else {
            tale.open(PLANNED).await;
            tale.all_done(&["database", "cluster", "fence", "last-backup"]).await;
            tale.start("restore").await;
        }
        let entries = tale.blobs("g1/000001/").await;
        tale.overwrite(&entries[2], Some(b"{")).await;
        let good = tale.damaged().await;
        tale.journal.seal(&good).await.expect("sealed");
        let sealed = tale.blobs("").await;
        tale.journal.seal(&good).await.expect("sealed again");
        assert_eq!(tale.blobs("").await, sealed, "once is enough");
        // It stands far behind the damage, and has not looked there since.
        let next = match has_ended {
            true => tale.opening(Aim::Failback),
            false => Event::Done {
                step: "restore".to_owned(),
                outcome: Outcome {
                    backup: Some(backup(1)),
                    ..Outcome::default()
                },
            },
        };
        let written = tale.try_to(next).await;
        assert!(matches!(written, Err(JournalError::Raced)), "{written:?}");
        let looked = tale.journal.refresh(tale.position.clone()).await;
        let Err(JournalError::Damaged { detail, .. }) = looked else {
            panic!("it goes on: {looked:?}")
        };
        assert!(detail.contains("closed"), "{detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_abandoned_though_its_fence_cannot_be_lifted() {
    let mut tale = Tale::begun().await;
    tale.open(TO_THE_END).await;
    tale.all_done(&["database", "restore", "compare", "cluster"]).await;
    tale.start("fence").await;
    let outcome = Outcome {
        proof: Some(Proof::Unprovable),
        ..Outcome::default()
    };
    let step = "fence".to_owned();
    tale.write(Event::Done { step, outcome }).await;
    // Said on the way out it means nothing: no fence is skipped there.
    tale.accept("skip-fence").await;
    tale.abandon().await;
    assert_eq!(tale.next().await, Next::TakeBack("fence".to_owned()));
    let bound = Timestamp::UNIX_EPOCH;
    let step = "fence".to_owned();
    tale.write(Event::TakingBack { step, bound }).await;
    tale.fail("fence").await;
    assert_eq!(tale.next().await, Next::Failed(vec!["fence".to_owned()]));
    let operation = tale.position.state.open().expect("open");
    let way = operation.way_without("fence").expect("a way");
    assert!(way.contains("--resume --accept skip-fence=REASON"), "{way}");

    tale.accept("skip-fence").await;
    assert_eq!(tale.next().await, Next::TakeBack("cluster".to_owned()));
    tale.take_back("cluster").await;
    assert_eq!(tale.next().await, Next::TakeBack("database".to_owned()));
    tale.take_back("database").await;
    assert_eq!(tale.next().await, Next::End(Ended::Abandoned));
    tale.end(Ended::Abandoned).await;
    let standing = tale.standing();
    assert_eq!((standing.serving, standing.stage), (Some(Site::Primary), 1));
    assert_eq!(
        standing.fenced.get(&Site::Primary),
        Some(&Proof::Unprovable),
        "nobody knows"
    );
    assert!(
        !tale.position.state.may_fence(Site::Primary),
        "no agent fences the site that serves"
    );

    // Anew, with another backup; abandoned once more, it lifts the old fence as its own.
    tale.open(TO_THE_END).await;
    tale.all_done(&["database", "restore", "compare", "cluster"]).await;
    tale.failed("fence").await;
    tale.abandon().await;
    tale.take_back("fence").await;
    tale.take_back("cluster").await;
    tale.take_back("database").await;
    tale.end(Ended::Abandoned).await;
    assert!(tale.standing().fenced.is_empty(), "{:?}", tale.standing());
    assert_eq!(tale.standing().serving, Some(Site::Primary));
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_was_left_is_lifted_by_a_stand_down() {
    let mut tale = Tale::begun().await;
    tale.open(TO_THE_END).await;
    tale.all_done(&["database", "restore", "compare", "cluster"]).await;
    tale.failed("fence").await;
    tale.abandon().await;
    tale.accept("skip-fence").await;
    tale.take_back("cluster").await;
    tale.take_back("database").await;
    tale.end(Ended::Abandoned).await;
    assert!(tale.standing().fenced.contains_key(&Site::Primary));
    tale.open(Aim::StandDown).await;
    tale.all_done(&["lift", "destroy"]).await;
    tale.end(Ended::Done).await;
    assert!(tale.standing().fenced.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failback_is_abandoned_though_the_standby_cannot_be_reached() {
    let mut tale = Tale::begun().await;
    tale.moved().await;
    tale.open(Aim::Failback).await;
    tale.all_done(&["preserve", "freeze"]).await;
    assert_eq!(tale.standing().serving, None);
    tale.abandon().await;
    tale.accept("skip-freeze").await;
    assert_eq!(tale.next().await, Next::End(Ended::Abandoned));
    tale.end(Ended::Abandoned).await;
    assert_eq!(tale.standing().serving, Some(Site::Standby));
    assert!(!tale.position.state.may_fence(Site::Standby));
    assert!(tale.position.state.may_fence(Site::Primary), "that of the old primary");
}

#[tokio::test(start_paused = true)]
async fn the_newest_backup_comes_home_where_the_standby_is_gone() {
    let mut tale = Tale::begun().await;
    tale.moved().await;
    tale.open(Aim::Failback).await;
    tale.done("preserve").await;
    tale.start("freeze").await;
    let outcome = Outcome {
        proof: Some(Proof::Unprovable),
        ..Outcome::default()
    };
    let step = "freeze".to_owned();
    tale.write(Event::Done { step, outcome }).await;
    tale.failed("last").await;
    let operation = tale.position.state.open().expect("open");
    let way = operation.way_without("last").expect("a way");
    for part in ["skip-last=REASON", "backup-1", "is lost"] {
        assert!(way.contains(part), "{way}");
    }
    tale.accept("skip-last").await;
    assert_eq!(tale.next().await, Next::Start(vec!["home".to_owned()]));
    tale.all_done(&["home", "same"]).await;
    // That the standby may still write is another matter, with its own answer.
    assert_eq!(
        tale.next().await,
        Next::Refused(vec![("open-primary".to_owned(), Rule::Unfenced)])
    );
    tale.accept("unfenced").await;
    tale.done("open-primary").await;
    assert_eq!(tale.standing().serving, Some(Site::Primary));
}

#[tokio::test(start_paused = true)]
async fn the_last_backup_comes_home_whatever_a_clock_said() {
    let mut tale = Tale::begun().await;
    tale.moved().await;
    tale.open(Aim::Failback).await;
    tale.all_done(&["preserve", "freeze"]).await;
    tale.start("last").await;
    let outcome = Outcome {
        backup: Some(backup(0)),
        ..Outcome::default()
    };
    let step = "last".to_owned();
    tale.write(Event::Done { step, outcome }).await;
    let operation = tale.position.state.open().expect("open");
    assert_eq!(operation.backup, Some(backup(0)), "it was taken after the freeze");
}

#[tokio::test(start_paused = true)]
async fn whoever_vanished_at_work_does_not_keep_the_primary_down() {
    for accepted in [false, true] {
        let mut tale = Tale::begun().await;
        tale.open(PLANNED).await;
        tale.all_done(&["database", "cluster", "fence", "last-backup"]).await;
        tale.start("restore").await;
        assert_eq!(tale.standing().serving, None);
        let give_up = |tale: &Tale| {
            let operation = tale.position.state.open().expect("open");
            assert!(operation.can_be_given_up(tale.standing()));
            let how = Ended::GivenUp;
            let standing = operation.leaves(tale.standing(), how);
            Event::Ended { how, standing }
        };
        let refused = tale.try_to(give_up(&tale)).await;
        let why = refused.expect_err("the restore may be at work").to_string();
        assert!(why.contains("restore may be at work until"), "{why}");
        let now = tale.journal.now().await.expect("a clock");
        assert_eq!(tale.position.state.open().expect("open").at_work(now).len(), 1);
        if accepted {
            tale.accept("still-at-work").await;
        } else {
            tokio::time::advance(Duration::from_secs(661)).await;
        }
        tale.end(Ended::GivenUp).await;
        tale.open(Aim::StandDown).await;
        tale.done("lift").await;
        assert_eq!(tale.standing().serving, Some(Site::Primary));
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_operation_built_is_not_taken_back() {
    let mut tale = Tale::begun().await;
    tale.open(DATABASE).await;
    tale.all_done(&["database", "restore", "compare"]).await;
    tale.end(Ended::Done).await;
    assert_eq!(tale.standing().stage, 2);
    let built = tale.standing().outputs.clone();

    // Failed once, and again after a person went on: nothing of it was made here.
    tale.open(TO_THE_END).await;
    tale.done("cluster").await;
    tale.failed("database").await;
    tale.write(Event::Taken { at: Place::Operator }).await;
    tale.start("database").await;
    tale.abandon().await;
    tale.fail("database").await;
    assert_eq!(tale.next().await, Next::TakeBack("cluster".to_owned()));
    tale.take_back("cluster").await;
    assert_eq!(tale.next().await, Next::End(Ended::Abandoned), "the database stays");
    tale.end(Ended::Abandoned).await;
    assert_eq!((tale.standing().stage, &tale.standing().outputs), (2, &built));

    // What this operation is the first to build is taken back, failed or not.
    let mut tale = Tale::begun().await;
    tale.open(TO_THE_END).await;
    tale.failed("database").await;
    tale.abandon().await;
    tale.write(Event::Taken { at: Place::Operator }).await;
    assert_eq!(tale.next().await, Next::TakeBack("database".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_the_other_way_unasked() {
    let mut tale = Tale::begun().await;
    assert_eq!(rules::other_way(&tale.position.state, Site::Primary), None);
    tale.open(PLANNED).await;
    let refused = rules::other_way(&tale.position.state, Site::Primary).expect("refused");
    assert_eq!(refused.rule, Rule::Unfinished);
    assert!(!refused.rule.can_be_waived());
    let abandon = "planb failover --stage 3 --planned --abandon";
    assert!(refused.why.contains(abandon), "{}", refused.why);
    assert_eq!(rules::other_way(&tale.position.state, Site::Standby), None);
    tale.all_done(&["database", "cluster", "fence"]).await;
    let refused = rules::other_way(&tale.position.state, Site::Primary).expect("refused");
    assert!(!refused.why.contains("--abandon"), "{}", refused.why);
    assert!(refused.why.contains("planb failback alone"), "{}", refused.why);
}

#[test]
fn the_standby_is_not_destroyed_while_users_may_be_sent_there() {
    assert_eq!(failback().mistakes(Site::Primary), []);
    let goes_on = |mut plan: Plan, name: &str| {
        let step = plan.steps.iter_mut().find(|step| step.name == name);
        step.expect("a step").on_failure = OnFailure::Continue;
        plan
    };
    let mistakes = goes_on(failback(), "traffic-home").mistakes(Site::Primary);
    assert!(
        matches!(&mistakes[..], [mistake] if mistake.key == "on_failure" && mistake.message.contains("users")),
        "{mistakes:?}"
    );
    assert_eq!(goes_on(failover(), "traffic").mistakes(Site::Standby), []);
}
