//! Every rule that stands between a person and a disaster, through the real command line: refused by its name and with the exit code that
//! scripts go by; waived by its own name alone, where anybody may; and kept with its reason.

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use planb::backup::claim;
use planb::clock::{Clock, SystemClock};
use planb::recovery::event::{By, Event, Outcome, Proof};
use planb::recovery::journal::Journal;
use planb::recovery::plan::{Aim, OnFailure, Place, Plan, Role, Site, Step};
use planb::recovery::rules::Rule;
use planb::store::directory::DirectoryStore;
use serde_json::Value;
use support::planb::text;
use support::sites::{Lab, script};
use support::{Flavor, Planb, Server, reader};

/// Without a standby: what the rules are about, done by programs.
const PLAN: &str = r#"
[failover]
max_loss = "1s"

[[failover_steps]]
name = "work"
stage = 2
kind = "command"
program = "DIR/work"
undo = ["undo"]

[[failover_steps]]
name = "fence"
stage = 2
kind = "command"
means = "fence"
site = "primary"
program = "/bin/true"
undo = ["undo"]
needs = ["work"]

[[failover_steps]]
name = "too-early"
stage = 2
kind = "command"
means = "traffic"
site = "standby"
program = "DIR/never"
needs = ["fence"]

[[failback_steps]]
name = "lift"
stage = 2
kind = "command"
means = "unfence"
site = "primary"
program = "/bin/true"
"#;

fn small(server: &Server) -> Planb {
    let mut planb = Planb::new(server, &reader(server, &[]));
    planb.configure(&PLAN.replace("DIR", &planb.path().display().to_string()));
    script(
        planb.path().join("work"),
        "cd \"$(dirname \"$0\")\"; touch begun; while test -e hold; do sleep 0.05; done",
    );
    let state = planb.path().join("state").display().to_string();
    planb.env.push(("XDG_STATE_HOME".into(), state));
    planb
}

/// Names of the rules by which a command was refused.
fn refused(told: &str) -> Vec<&'static str> {
    let names = told
        .lines()
        .filter_map(|line| line.strip_prefix("planb: ")?.split_once(':'));
    names
        .filter_map(|(name, _)| Rule::named(name).map(Rule::name))
        .collect()
}

fn accept<'a>(base: &[&'a str], rules: &'a [String]) -> Vec<&'a str> {
    let accepted = rules.iter().flat_map(|rule| ["--accept", rule.as_str()]);
    base.iter().copied().chain(accepted).collect()
}

fn because(rule: &str) -> String {
    format!("{rule}=because of {rule}")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

const STAGE_2: [&str; 4] = ["failover", "--stage", "2", "--yes"];

#[test]
fn each_rule_refuses_by_its_name_and_is_waived_alone() {
    let server = Server::start(Flavor::MySql, &[]);
    server.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY)");
    let planb = small(&server);

    // What nobody may answer for is a mistake to ask for.
    for rule in Rule::ALL.into_iter().filter(|rule| !rule.can_be_waived()) {
        let told = planb.fails(2, &accept(&STAGE_2, &[because(rule.name())]));
        assert!(told.contains("nobody can answer"), "{}: {told}", rule.name());
    }
    let told = planb.fails(3, &STAGE_2);
    assert_eq!(refused(&told), ["primary-healthy", "no-backup"], "{told}");
    for args in [
        ["failover", "--resume"],
        ["failover", "--abandon"],
        ["failback", "--resume"],
    ] {
        let told = planb.fails(3, &args);
        assert_eq!(refused(&told), ["nothing-open"], "{told}");
    }

    // A backup that is older than max_loss, and proven by nobody.
    planb.backup(&[]);
    let standing = wait_for("the backup never gets too old", || {
        let plan = planb.json(&["--json", "failover", "--stage", "2", "--plan"]);
        let rules: Vec<String> = plan["refused"]
            .as_array()?
            .iter()
            .filter_map(|one| one["rule"].as_str().map(str::to_owned))
            .collect();
        rules.contains(&"backup-too-old".to_owned()).then_some(rules)
    });
    assert_eq!(standing, ["primary-healthy", "backup-too-old", "backup-unproven"]);
    for rule in &standing {
        let told = planb.fails(3, &accept(&STAGE_2, &[because(rule)]));
        let others: Vec<&str> = standing
            .iter()
            .filter(|other| *other != rule)
            .map(String::as_str)
            .collect();
        assert_eq!(refused(&told), others, "accepting {rule} answers for it alone: {told}");
    }
    assert!(!planb.path().join("begun").exists(), "nothing was done");
    assert!(
        files(&planb.store().join("control/journal")).is_empty(),
        "nothing was written"
    );
    let all: Vec<String> = standing.iter().map(|rule| because(rule)).collect();

    // What was looked at is said before anything is done: who acts, what is fenced, who was asked.
    let plan = planb.ok(&["failover", "--stage", "2", "--plan"]);
    for line in [
        "now       the primary serves, stage 1",
        "lease     free",
        "fence     primary: none",
        "watchers  none are configured",
        "primary   answers a login from here",
        "would be lost",
    ] {
        assert!(plan.contains(line), "{line}: {plan}");
    }

    // One acts; who else comes is told who does, until when, and what shows it.
    std::fs::write(planb.path().join("hold"), "").expect("a file");
    let mut first = planb.spawn(&accept(&[&STAGE_2[..], &["--as", "ana"]].concat(), &all));
    wait_for("the step is never begun", || {
        planb.path().join("begun").exists().then_some(())
    });
    let told = planb.fails(3, &accept(&STAGE_2, &all));
    assert_eq!(refused(&told), ["lease-held"], "{told}");
    for part in ["ana (run ", "until ", "planb status --follow"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let plan = planb.ok(&["failover", "--stage", "2", "--plan"]);
    for part in ["lease     held by ana (run ", "unfinished-operation"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let work = plan.lines().find(|line| line.starts_with("work ")).expect("the step");
    assert!(work.trim_end().ends_with("running"), "how far it is: {work}");

    // Its process goes, and what it began goes on: nobody does it a second time, unless somebody answers for that.
    first.kill().expect("killed");
    first.wait().expect("ended");
    for lease in files(&planb.store().join("control/lease")) {
        std::fs::remove_file(lease).expect("as if it had run out");
    }
    std::fs::remove_file(planb.path().join("begun")).expect("a file");
    let mut waiting = planb.spawn(&["failover", "--resume"]);
    let line = {
        use std::io::BufRead as _;
        let stderr = std::io::BufReader::new(waiting.stderr.take().expect("piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        lines.find(|line| line.starts_with("still-at-work: step work "))
    };
    let line = line.expect("it says what it waits for");
    assert!(line.contains("--resume --accept still-at-work=REASON"), "{line}");
    assert!(!planb.path().join("begun").exists(), "it waits");
    waiting.kill().expect("killed");
    waiting.wait().expect("ended");
    for lease in files(&planb.store().join("control/lease")) {
        std::fs::remove_file(lease).expect("as if it had run out");
    }
    std::fs::remove_file(planb.path().join("hold")).expect("a file");

    // Past the fence: users are sent to nobody who takes no writes, and there is no way back.
    let told = planb.fails(4, &accept(&["failover", "--resume"], &[because("still-at-work")]));
    assert!(told.contains("too-early is refused by the rule not-serving"), "{told}");
    assert!(planb.path().join("begun").exists(), "it was done again");
    let told = planb.fails(3, &["failover", "--abandon"]);
    assert_eq!(refused(&told), ["committed"], "{told}");
    let told = planb.fails(3, &accept(&STAGE_2, &all));
    assert_eq!(refused(&told), ["unfinished-operation"], "{told}");
    let history = planb.ok(&["history"]);
    for rule in standing.iter().map(String::as_str).chain(["still-at-work"]) {
        let line = format!("{rule}: because of {rule}");
        assert!(history.contains(&line), "the reason is kept: {line}: {history}");
    }
    assert!(history.contains("fence done after "), "how long: {history}");
    let json = planb.json(&["--json", "history"]);
    let entries = json["entries"].as_array().cloned().unwrap_or_default();
    let fence = entries
        .iter()
        .find(|entry| entry["event"]["what"] == "done" && entry["event"]["step"] == "fence");
    assert!(fence.expect("an entry")["took_seconds"].as_f64().is_some(), "{json}");

    // A journal that was altered is gone on with by nobody, until somebody answers for that.
    let entries = files(&planb.store().join("control/journal"));
    let last = entries
        .iter()
        .rfind(|path| path.extension().is_some_and(|kind| kind == "json"));
    std::fs::write(last.expect("entries"), "{").expect("written");
    let told = planb.fails(3, &["failback", "--yes"]);
    assert_eq!(refused(&told), ["journal-damaged"], "{told}");
    let told = planb.run(&accept(&["failback", "--yes"], &[because("journal-damaged")]));
    assert!(!refused(&text(&told)).contains(&"journal-damaged"), "{}", text(&told));
    assert!(text(&told).contains("a new one is begun"), "{}", text(&told));
}

/// An instant that stands.
#[derive(Debug)]
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// As if the primary had been fenced an hour ago: whatever it gave since is of a site that served no more.
async fn fenced_an_hour_ago(planb: &Planb) {
    let clock = At(SystemClock.now() - jiff::SignedDuration::from_hours(1));
    let control = planb.store().join("control");
    let store = DirectoryStore::open_or_create(control, std::sync::Arc::new(clock)).await;
    let journal = Journal::new(std::sync::Arc::new(store.expect("a store")), &claim::key("backups/"));
    let fence = Step {
        name: "fence".to_owned(),
        stage: 3,
        role: Role::Fence(Site::Primary),
        kind: "command".to_owned(),
        needs: Vec::new(),
        at: Place::Operator,
        timeout_seconds: 60,
        on_failure: OnFailure::Stop,
        retries: 0,
        takes_back: true,
        guards_itself: false,
    };
    let position = journal.read().await.expect("a journal");
    let now = position.at.unwrap_or_else(|| SystemClock.now());
    let events = [
        Event::Opened {
            aim: Aim::Failover {
                stage: 3,
                planned: false,
            },
            plan: Plan { steps: vec![fence] },
            plan_digest: String::new(),
            standing: position.state.standing.clone(),
            backup: None,
            pinned: false,
            approvers: 1,
            facts: std::collections::BTreeMap::new(),
            accepted: Vec::new(),
        },
        Event::Started {
            step: "fence".to_owned(),
            bound: now,
        },
        Event::Done {
            step: "fence".to_owned(),
            outcome: Outcome {
                proof: Some(Proof::Proven),
                ..Outcome::default()
            },
        },
    ];
    let by = By {
        who: "ana".to_owned(),
        host: "laptop".to_owned(),
        run: "1".to_owned(),
    };
    let mut position = position;
    for event in events {
        position = journal.append(&position, &by, event).await.expect("it follows");
    }
    assert_eq!(position.state.standing.epoch(), 1);
}

#[tokio::test]
async fn an_orphan_is_chosen_by_nobody_who_does_not_name_it_and_answer_for_it() {
    let server = Server::start(Flavor::MySql, &[]);
    server.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY)");
    let planb = small(&server);
    planb.backup(&[]);
    let id = planb.visible().first().cloned().expect("a backup");
    fenced_an_hour_ago(&planb).await;
    let rules = |args: &[&str]| -> Vec<String> {
        let plan = planb.json(&[&["--json", "failover", "--stage", "2", "--plan"], args].concat());
        let refused = plan["refused"].as_array().cloned().unwrap_or_default();
        refused
            .iter()
            .filter_map(|one| one["rule"].as_str().map(str::to_owned))
            .collect()
    };
    assert!(rules(&[]).contains(&"no-backup".to_owned()), "{:?}", rules(&[]));
    let named = rules(&["--backup", &id]);
    assert!(named.contains(&"orphan".to_owned()), "{named:?}");
    let base = [&STAGE_2[..], &["--backup", &id]].concat();
    let told = planb.fails(3, &base);
    assert!(refused(&told).contains(&"orphan"), "{told}");
    let told = planb.fails(3, &accept(&base, &[because("orphan")]));
    assert!(
        !refused(&told).contains(&"orphan") && refused(&told).contains(&"unfinished-operation"),
        "{told}"
    );
}

/// The standby opens only on both words, each for its own rule; and an older backup only because somebody named it.
#[test]
fn what_opens_unfenced_or_unverified_is_answered_for_by_name() {
    let mut lab = Lab::new(Flavor::MySql);
    lab.primary.sql("INSERT INTO bank.log (what) VALUES ('old')");
    lab.planb.backup(&[]);
    let old = lab.planb.visible().first().cloned().expect("a backup");
    let between = SystemClock.now().to_string();
    lab.primary.sql("INSERT INTO bank.log (what) VALUES ('corrupt')");
    // Ids are of the second.
    wait_for("no second backup", || {
        lab.planb.backup(&[]);
        (lab.planb.visible().len() > 1).then_some(())
    });
    let chosen = |args: &[&str]| -> Value {
        let plan = lab
            .planb
            .json(&[&["--json", "failover", "--stage", "3", "--plan"], args].concat());
        plan["facts"]["backup"].clone()
    };
    assert_ne!(chosen(&[]), old.as_str(), "the newest by default");
    assert_eq!(chosen(&["--at", &between]), old.as_str());
    assert_eq!(chosen(&["--backup", &old]), old.as_str());
    // Nobody can compare: the comparison asks a server that is none.
    lab.planb.reconfigure(
        "kind = \"verify\"\nhost = \"${database.host}\"",
        "kind = \"verify\"\nretries = 0\non_failure = \"continue\"\nhost = \"127.0.0.9\"",
    );
    lab.primary.kill();
    let told = lab.planb.fails(
        4,
        &accept(
            &["failover", "--stage", "3", "--yes", "--backup", &old],
            &[because("backup-unproven")],
        ),
    );
    let stands = |told: &str| -> Vec<bool> {
        ["unfenced", "unverified"]
            .map(|rule| told.contains(&format!("open is refused by the rule {rule}")))
            .to_vec()
    };
    assert_eq!(stands(&told), [true, true], "{told}");
    let told = lab
        .planb
        .fails(4, &accept(&["failover", "--resume"], &[because("unverified")]));
    assert_eq!(stands(&told), [true, false], "{told}");
    let done = lab
        .planb
        .json(&accept(&["--json", "failover", "--resume"], &[because("unfenced")]));
    assert_eq!(done["standing"]["serving"], "standby", "{done}");
    assert_eq!(
        lab.standby.sql("SELECT what FROM bank.log").trim(),
        "old",
        "the older one, though there was a newer one"
    );
    let told = lab.planb.fails(3, &["failover", "--stage", "3", "--yes"]);
    assert!(refused(&told).contains(&"serving"), "{told}");

    // The way home begins where the primary can be reached, or somebody answers for that.
    let plan = lab.planb.ok(&["failback", "--plan"]);
    for part in [
        "fence     primary: NOT proven",
        "primary   does not answer from here",
        "kept      what the primary has",
        "destroyed destroy; never stage 1",
        "an hour less once the stages are gone",
        "stands against it: primary-unreachable",
    ] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    let told = lab.planb.fails(3, &["failback", "--yes"]);
    assert_eq!(refused(&told), ["primary-unreachable"], "{told}");
    let told = lab
        .planb
        .fails(4, &accept(&["failback", "--yes"], &[because("primary-unreachable")]));
    assert!(told.contains("planb failback --resume"), "{told}");
    let told = lab.planb.ok(&["failback", "--abandon"]);
    assert!(told.contains("abandoned"), "{told}");
    assert_eq!(lab.status()["standing"]["serving"], "standby", "it goes on serving");
}

/// The configuration that comes with PlanB, altered.
fn recovery(alter: impl Fn(String) -> String) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recovery.toml");
    let text = std::fs::read_to_string(path).expect("an example");
    let altered = alter(text.clone());
    let config = planb::config::Config::parse(&altered).expect("it can be read");
    planb::steps::plan::check(&config)
}

/// `text` with its first `from` made `to`.
fn swapped(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example holds no {from}");
    text.replacen(from, to, 1)
}

#[test]
fn what_is_destroyed_comes_after_a_person_s_word_and_is_never_what_stands_always() {
    assert_eq!(recovery(|text| text), Vec::<String>::new());
    let soak = "needs = [\"traffic-home\", \"open-primary\", \"soak\"]";
    let hasty = recovery(|text| swapped(&text, soak, "needs = [\"traffic-home\", \"open-primary\"]"));
    assert!(
        hasty.len() == 1 && hasty[0].contains("a step of kind \"manual\""),
        "{hasty:?}"
    );
    // A word from before the service came home is none about it.
    let early = recovery(|text| {
        let at = text.find("text = \"Watch the service for a day").expect("the soak");
        let (before, after) = text.split_at(at);
        format!(
            "{before}{}",
            swapped(after, "needs = [\"traffic-home\"]", "needs = [\"home\"]")
        )
    });
    assert!(
        early.len() == 2 && early[0].contains("comes after the traffic home"),
        "{early:?}"
    );
    let destroys = |text: &str, from: &str, to: &str| {
        let at = text.find("name = \"destroy-cluster\"").expect("a destroying step");
        let (before, after) = text.split_at(at);
        format!("{before}{}", swapped(after, from, to))
    };
    let dir = recovery(|text| destroys(&text, "3-full\"", "1-always-on\""));
    assert!(
        dir.len() == 1 && dir[0].contains(".dir: is that of step always-on"),
        "{dir:?}"
    );
    let state = recovery(|text| destroys(&text, "key=3-full.tfstate", "key=1-always-on.tfstate"));
    assert!(
        state.len() == 1 && state[0].contains(".backend: is that of step always-on"),
        "{state:?}"
    );
}

#[test]
fn the_other_fence_of_the_example_is_a_plan_too() {
    let mistakes = recovery(|text| {
        let at = text
            .find("name = \"fence\"\nstage = 3\nkind = \"fence\"")
            .expect("the fence");
        let begins = text[..at].rfind("[[failover_steps]]").expect("its heading");
        let ends = at + text[at..].find("\n\n").expect("its end");
        let rest = &text[ends..];
        let other = rest.find("# [[failover_steps]]").expect("the other fence");
        let length = rest[other..].find("\n\n").expect("its end");
        let uncommented: Vec<&str> = rest[other..other + length]
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .collect();
        format!(
            "{}{}{}",
            &text[..begins],
            uncommented.join("\n"),
            &rest[other + length..]
        )
    });
    assert_eq!(mistakes, Vec::<String>::new());
}

#[test]
fn a_password_stands_in_no_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recovery.toml");
    let text = std::fs::read_to_string(path).expect("an example");
    for (line, key) in [
        ("password = \"hunter2\"", "failover_steps[5].password"),
        ("password = \"x${database.password}\"", "failover_steps[5].password"),
        ("port = \"0\"", "failover_steps[5].port"),
        ("read_only = true", "failover_steps[5].read_only"),
    ] {
        let host = "host = \"${database.host}\"";
        let error = planb::config::Config::parse(&swapped(&text, host, &format!("{host}\n{line}"))).expect_err(line);
        let keys: Vec<&str> = error.problems().iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, [key], "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// As `config/standby.toml`: the standby is the source.
fn beside_the_standby(lab: &Lab) -> PathBuf {
    let path = lab.planb.path().join("standby.toml");
    let text = format!(
        "[service]\nname = \"bank\"\nsite = \"azure\"\nprotects = \"standby\"\n\
         [source]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n",
        lab.standby.port,
        lab.planb.store().display()
    );
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// Where a server of its own knows only what Terraform made, and the primary refuses everybody's writes.
#[test]
fn credentials_come_from_outputs_and_a_primary_may_be_read_only() {
    let lab = Lab::new(Flavor::MySql);
    let standby = format!("port = {}\nuser = \"dba\"", lab.standby.port);
    let nobody = "port = 1\nuser = \"nobody\"";
    lab.planb.reconfigure(&standby, nobody);
    lab.planb.reconfigure(
        "host = \"${database.host}\"",
        &format!(
            "host = \"${{database.host}}\"\nport = \"{}\"\nuser = \"dba\"\npassword = \"${{database.password}}\"",
            lab.standby.port
        ),
    );
    lab.planb.reconfigure(
        "kind = \"fence\"\nneeds = [\"cluster\"",
        "kind = \"fence\"\nread_only = true\nneeds = [\"cluster\"",
    );
    lab.planb.backup(&[]);
    let there = beside_the_standby(&lab);
    let agent = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_planb"));
        command
            .arg("--config")
            .arg(&there)
            .args(args)
            .envs(lab.planb.env.iter().cloned());
        text(&command.output().expect("planb runs"))
    };
    let told = agent(&["backup"]);
    assert!(
        told.starts_with("exit Some(3)") && told.contains("does not serve"),
        "before it serves: {told}"
    );
    let done = lab.unproven(&["--stage", "3", "--planned"]);
    assert_eq!(done["standing"]["serving"], "standby", "{done}");
    assert_eq!(done["standing"]["pending_fences"], serde_json::json!([]), "{done}");
    let switches = || lab.primary.sql("SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only");
    assert_eq!(switches().trim(), "1\t1");
    assert!(
        lab.primary
            .try_sql("INSERT INTO bank.log (what) VALUES ('root')")
            .is_err(),
        "nobody writes there"
    );
    lab.app(&lab.standby, "INSERT INTO bank.log (what) VALUES ('new')")
        .expect("served");
    assert!(
        !lab.control().contains(support::planb::PASSWORD),
        "no secret is written anywhere"
    );

    // Who protects it now: whoever is beside it, and nobody at the old site.
    let told = lab.planb.fails(3, &["backup"]);
    assert!(told.contains("does not serve"), "{told}");
    let before = lab.planb.visible().len();
    let told = agent(&["backup"]);
    assert!(told.starts_with("exit Some(0)"), "{told}");
    assert_eq!(lab.planb.visible().len(), before + 1);

    // Home: such a primary is not written to before somebody lets it be.
    lab.planb.reconfigure(nobody, &standby);
    let told = lab.planb.fails(4, &["failback", "--yes", "--accept", "confirm-soak=t"]);
    assert!(told.contains("step home") && told.contains("read-only"), "{told}");
    lab.primary
        .sql("SET GLOBAL super_read_only = OFF; SET GLOBAL read_only = OFF");
    let done = lab.planb.json(&["--json", "failback", "--resume"]);
    assert_eq!(done["standing"]["serving"], "primary", "{done}");
    assert_eq!(switches().trim(), "0\t0");
    assert_eq!(lab.primary.sql("SELECT what FROM bank.log").trim(), "new");
    lab.app(&lab.primary, "INSERT INTO bank.log (what) VALUES ('home')")
        .expect("it takes writes again");
}
