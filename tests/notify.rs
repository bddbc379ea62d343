//! People are told: the real agent and the real commands, with receivers that take, hang, fail and recover.

mod daemon;
mod support;

use std::time::Duration;

use daemon::Daemon;
use planb::secret::Secret;
use serde_json::Value;
use support::planb::text;
use support::receiver::{Manner, Receiver};
use support::{Flavor, PASSWORD, Planb, Server, reader, unique_schema};

const SOON: Duration = Duration::from_secs(90);
/// Stands in each URL and key, and nowhere else.
const SECRET: &str = "T0P-hook-s3cret";

/// PlanB whose source's password is nowhere: each run fails at once, and there never is a backup.
fn without_source() -> Planb {
    let planb = Planb::empty();
    let state = planb.path().join("state");
    std::fs::create_dir(&state).expect("a directory");
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n\
         [source]\nhost = \"127.0.0.1\"\nuser = \"reader\"\npassword = \"env:NOBODY_SET_THIS\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n\
         [notify]\nstate = \"{}\"\ncontact = \"on-call 010-0000-0000\"\n",
        planb.store().display(),
        state.display()
    ));
    planb
}

/// One more channel, whose URL or key is in the environment.
fn channel(planb: &mut Planb, name: &str, kind: &str, receiver: &Receiver, more: &str) {
    let (upper, url) = (name.to_uppercase(), receiver.url(SECRET));
    let lines = if kind == "pagerduty" {
        planb.env.push((format!("KEY_{upper}"), SECRET.to_owned()));
        format!(
            "key = \"env:KEY_{upper}\"\nendpoint = \"{}\"",
            receiver.url("v2/enqueue")
        )
    } else {
        planb.env.push((format!("URL_{upper}"), url));
        format!("url = \"env:URL_{upper}\"")
    };
    planb.configure(&format!(
        "[[notify.channels]]\nname = \"{name}\"\nkind = \"{kind}\"\n{lines}\n{more}\n"
    ));
}

fn assert_no_secret(text: &str) {
    assert!(
        !text.contains(SECRET) && !text.contains(PASSWORD),
        "a secret is told: {text}"
    );
}

#[test]
fn everybody_hears_of_it_once_and_a_restart_says_nothing_twice() {
    let (slack, pager, hook) = (
        Receiver::start(Manner::Takes),
        Receiver::start(Manner::Takes),
        Receiver::start(Manner::Takes),
    );
    let mut planb = without_source();
    channel(&mut planb, "oncall", "slack", &slack, "");
    channel(&mut planb, "pager", "pagerduty", &pager, "");
    channel(
        &mut planb,
        "program",
        "webhook",
        &hook,
        "secret = \"env:SIGNING\"\nseverity = \"info\"",
    );
    planb.env.push(("SIGNING".to_owned(), format!("{SECRET}-2")));

    let mut agent = Daemon::start(&planb);
    let signed = hook.wait(&["\"rpo-breached\""]);
    let expected = planb::notify::http::signature(&Secret::new(format!("{SECRET}-2")), signed.body.as_bytes());
    assert_eq!(signed.header("x-planb-signature"), Some(expected.as_str()));
    let told = signed.json();
    assert_eq!(
        (told["v"].as_i64(), told["severity"].as_str(), told["turn"].as_str()),
        (Some(1), Some("critical"), Some("raised"))
    );
    assert_eq!(told["command"], "planb status");
    hook.wait(&["\"backup-failed\""]);
    let message = slack.wait(&["RPO BREACHED"]);
    assert!(
        message.body.contains("on-call 010-0000-0000") && message.body.contains("planb status"),
        "{message:?}"
    );
    let event = pager.wait(&["trigger"]).json();
    assert_eq!(
        (
            event["dedup_key"].as_str(),
            event["payload"]["severity"].as_str(),
            event["routing_key"].as_str()
        ),
        (Some("planb/bank/rpo"), Some("critical"), Some(SECRET))
    );
    let log = agent.heard().told();
    agent.wait_log("told", 4, SOON);
    assert_no_secret(&log);
    agent.stop().assert_clean(Duration::from_secs(30));
    let kept = std::fs::read_to_string(planb.path().join("state/notify.json")).expect("a state");
    assert!(kept.contains("rpo-breached"));
    assert_no_secret(&kept);

    let before = (slack.got().len(), pager.got().len(), hook.got().len());
    let mut agent = Daemon::start(&planb);
    agent.wait_log("backup failed", 1, SOON);
    // Something new is told, so that what was told before would have been told by now.
    planb.reconfigure("name = \"pager\"", "name = \"pager2\"");
    agent.signal("HUP");
    agent.wait_log("configuration reloaded", 1, SOON);
    pager.wait_for("a second trigger", |_| pager.taken().len() > before.1);
    assert_eq!(
        (slack.got().len(), hook.got().len()),
        (before.0, before.2),
        "told twice"
    );
    agent.stop().assert_clean(Duration::from_secs(30));

    // A state that was torn is begun anew, and that is said.
    std::fs::write(planb.path().join("state/notify.json"), &kept[..kept.len() / 2]).expect("torn");
    let mut agent = Daemon::start(&planb);
    let said = "who was told what cannot be read and is begun anew: what goes on may be told once more";
    agent.wait_log(said, 1, SOON);
    slack.wait_for("it once more", |_| slack.taken().len() > before.0);
    agent.stop().assert_clean(Duration::from_secs(30));
}

#[test]
fn a_channel_that_hangs_delays_neither_the_others_nor_a_backup() {
    let server = Server::shared(Flavor::MySql);
    let schema = unique_schema("notify");
    server.sql(&format!(
        "CREATE DATABASE {schema}; CREATE TABLE {schema}.t (id INT PRIMARY KEY);"
    ));
    let mut planb = Planb::new(&server, &reader(&server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    planb.configure("[targets]\nrpo = \"2d\"\n[backup]\nschedule = \"*/2 * * * * *\"\nverify_source = \"never\"");
    planb.configure(&format!(
        "[notify]\nstate = \"{}\"\nlanguage = \"ko\"",
        planb.path().display()
    ));
    let (slack, hook) = (Receiver::start(Manner::Hangs), Receiver::start(Manner::Takes));
    channel(&mut planb, "hung", "slack", &slack, "");
    channel(&mut planb, "hook", "webhook", &hook, "");

    let mut agent = Daemon::start(&planb);
    // There is no backup yet when it first looks.
    hook.wait(&["\"rpo-breached\"", "RPO 위반"]);
    slack.wait_for("a request that hangs", |message| !message.taken);
    let before = agent.heard().committed().len();
    agent.wait("backups beside it", SOON, |heard| {
        (heard.committed().len() >= before + 3).then_some(())
    });
    assert!(slack.taken().is_empty());
    // It is kept, shown, and told when the channel is well again: that it was, and that it is over.
    agent.wait_log("not told; it is kept and tried again", 1, SOON);
    agent.wait("a line in status", SOON, |_| {
        planb.ok(&["status"]).contains("on hung: RPO 위반").then_some(())
    });
    assert!(planb.ok(&["status"]).contains("NOT TOLD"));
    let listed = planb.json(&["--json", "notify", "--undelivered", "--channel", "hung"]);
    assert_eq!(listed["undelivered"][0]["event"], "rpo-breached", "{listed}");
    slack.set(Manner::Takes);
    slack.wait(&["RPO 위반"]);
    slack.wait(&["해소됨"]);
    agent.wait("an empty list", SOON, |_| {
        planb
            .ok(&["notify", "--undelivered"])
            .contains("everything was told")
            .then_some(())
    });
    agent.stop().assert_clean(Duration::from_secs(30));
}

#[test]
fn what_fails_is_tried_again_and_what_is_refused_is_told_elsewhere() {
    let (busy, gone, well) = (
        Receiver::start(Manner::Answers(503, Some(1))),
        Receiver::start(Manner::Answers(404, None)),
        Receiver::start(Manner::Takes),
    );
    let mut planb = without_source();
    channel(&mut planb, "busy", "slack", &busy, "");
    channel(&mut planb, "gone", "slack", &gone, "");
    channel(&mut planb, "well", "webhook", &well, "");
    let mut agent = Daemon::start(&planb);
    busy.wait_for("a try", |message| !message.taken);
    busy.set(Manner::Takes);
    busy.wait(&["RPO BREACHED"]);
    // A hook that is gone stays gone until a person sees to it: they hear of it on the others.
    let told = well.wait(&["\"channel-failing\"", "\"channel/gone\""]).json();
    assert!(
        told["means"]
            .as_str()
            .is_some_and(|means| means.contains("HTTP 404 (no_service)")),
        "{told}"
    );
    let tries = gone.got().len();
    assert!(tries < 10, "a hook that is gone is asked again and again: {tries}");
    let line = "on gone: RPO BREACHED (HTTP 404 (no_service))";
    agent.wait("a line", SOON, |_| {
        planb.ok(&["notify", "--undelivered"]).contains(line).then_some(())
    });
    assert_no_secret(&planb.ok(&["notify", "--undelivered"]));
    // Mended, and told of it: what was kept is told.
    gone.set(Manner::Takes);
    agent.signal("HUP");
    gone.wait(&["RPO BREACHED"]);
    well.wait(&["\"channel/gone\"", "\"resolved\""]);
    assert_no_secret(&agent.heard().told());
    agent.stop().assert_clean(Duration::from_secs(30));
}

#[test]
fn a_person_can_try_every_channel() {
    let (slack, pager, gone) = (
        Receiver::start(Manner::Takes),
        Receiver::start(Manner::Takes),
        Receiver::start(Manner::Answers(404, None)),
    );
    let mut planb = without_source();
    assert!(planb.fails(2, &["notify", "--test"]).contains("[[notify.channels]]"));
    channel(&mut planb, "oncall", "slack", &slack, "");
    channel(&mut planb, "pager", "pagerduty", &pager, "");
    let said = planb.ok(&["notify", "--test"]);
    assert!(said.contains("oncall") && said.contains("pager"), "{said}");
    slack.wait(&["Test: this channel works"]);
    pager.wait(&["trigger"]);
    pager.wait(&["resolve", "planb/bank/test"]);
    channel(&mut planb, "gone", "slack", &gone, "");
    planb.configure("[[notify.channels]]\nname = \"unset\"\nkind = \"slack\"\nurl = \"env:NOBODY_SET_THIS\"\n");
    let said = planb.fails(1, &["notify", "--test"]);
    assert!(said.contains("FAILED: HTTP 404 (no_service)"), "{said}");
    assert!(said.contains("env:NOBODY_SET_THIS: not there"), "{said}");
    assert!(said.contains("2 of 4 channels did not take the test"), "{said}");
    assert_no_secret(&said);
    planb.ok(&["notify", "--test", "--channel", "oncall"]);
    assert!(
        planb
            .fails(2, &["notify", "--test", "--channel", "nobody"])
            .contains("oncall, pager, gone, unset")
    );
    let output = planb.run(&["--json", "notify", "--test"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(json["channels"].as_array().map(Vec::len), Some(4), "{}", text(&output));
    assert_eq!(json["channels"][0]["ok"], false);
}

/// Stage 1 of two steps, of which the second does what the test wants.
fn plan(planb: &Planb, second: &str) {
    planb.configure(&format!(
        "[[failover_steps]]\nname = \"network\"\nstage = 1\nkind = \"command\"\nprogram = \"/bin/true\"\n\
         [[failover_steps]]\nname = \"page\"\nstage = 1\nkind = \"command\"\nprogram = \"{second}\"\nneeds = [\"network\"]\n"
    ));
}

#[test]
fn a_failover_is_told_step_by_step_with_every_rule_that_somebody_answered_for() {
    let (hook, pager) = (Receiver::start(Manner::Takes), Receiver::start(Manner::Takes));
    let mut planb = without_source();
    channel(&mut planb, "hook", "webhook", &hook, "severity = \"info\"");
    channel(&mut planb, "pager", "pagerduty", &pager, "");
    plan(&planb, "/bin/false");
    let said = planb.fails(4, &["failover", "--stage", "1", "--yes", "--as", "ana"]);
    assert_no_secret(&said);
    hook.wait(&["\"operation-begun\"", "ana"]);
    hook.wait(&["\"step-ended\"", "\"network\""]);
    hook.wait(&["\"step-failed\"", "\"page\""]);
    let stopped = hook.wait(&["\"operation-stopped\""]).json();
    assert_eq!(stopped["command"], "planb failover --resume");
    assert!(
        !stopped["means"].as_str().is_some_and(|means| means.contains("planb:")),
        "{stopped}"
    );
    // Whoever begins it has seen that the primary is down; that it stopped wakes somebody.
    pager.wait(&["acknowledge", "planb/bank/primary"]);
    pager.wait(&["trigger", "planb/bank/operation-1"]);
    planb.ok(&[
        "failover",
        "--resume",
        "--accept",
        "skip-page=the page can wait",
        "--as",
        "ben",
    ]);
    let accepted = hook.wait(&["\"rule-accepted\"", "skip-page"]).json();
    assert_eq!(accepted["details"]["reason"], "the page can wait");
    assert_eq!(accepted["details"]["who"], "ben");
    hook.wait(&["\"operation-ended\"", "\"done\""]);
    pager.wait(&["resolve", "planb/bank/operation-1"]);
    let once = |event: &str| {
        let taken = hook.taken();
        taken.iter().filter(|message| message.json()["event"] == event).count()
    };
    assert_eq!(
        (once("operation-begun"), once("operation-ended"), once("rule-accepted")),
        (1, 1, 1)
    );
}

#[test]
fn a_dead_channel_does_not_hold_a_failover_up_and_the_agent_tells_what_it_left() {
    let slack = Receiver::start(Manner::Hangs);
    let mut planb = without_source();
    channel(&mut planb, "oncall", "slack", &slack, "severity = \"info\"");
    plan(&planb, "/bin/true");
    let output = planb.run(&["failover", "--stage", "1", "--yes"]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains("were not told on oncall") && said.contains("kept in the store"),
        "{said}"
    );
    assert!(slack.taken().is_empty());
    let shown = planb.ok(&["notify", "--undelivered"]);
    assert!(shown.contains("planb failover --stage 1 is done"), "{shown}");
    slack.set(Manner::Takes);
    let agent = Daemon::start(&planb);
    slack.wait(&["planb failover --stage 1 was begun by"]);
    slack.wait(&["planb failover --stage 1 is done"]);
    agent.stop().assert_clean(Duration::from_secs(30));
    let left = planb.store().join("control/notify");
    let files = walk(&left);
    assert!(files.is_empty(), "told, and still kept: {files:?}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() { walk(&path) } else { vec![path] }
        })
        .collect()
}
