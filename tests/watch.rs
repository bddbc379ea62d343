//! What `[watch]` may say, and what is refused.

use planb::config::Config;
use planb::config::watch::{Plane, Then, UnprovableFence};

const SERVICE: &str = r#"
[service]
name = "bank"
[source]
host = "127.0.0.1"
user = "planb"
password = "env:P"
[store]
url = "file:///s"
"#;

const PROBE: &str = "[[watch.probes]]\nkind = \"tcp\"\nhost = \"bank.example\"\nport = 443\n";

const THREE: &str = "watchers = [{ name = \"a\", region = \"x\" }, { name = \"b\", region = \"y\" }, { name = \"c\", region = \"z\" }]\n";

const STEPS: &str = r#"
[standby]
host = "127.0.0.2"
user = "dba"
password = "env:P"
[[failover_steps]]
name = "cluster"
stage = 3
kind = "command"
program = "/bin/true"
[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "/bin/true"
needs = ["cluster"]
"#;

/// Keys of what is wrong, with what is said.
fn wrong(text: &str) -> Vec<String> {
    match Config::parse(&format!("{SERVICE}{text}")) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .problems()
            .iter()
            .map(|problem| format!("{}: {}", problem.key, problem.message))
            .collect(),
    }
}

#[track_caller]
fn one_wrong(text: &str, key: &str, part: &str) {
    let wrong = wrong(text);
    assert!(
        wrong.len() == 1 && wrong[0].starts_with(&format!("{key}: ")) && wrong[0].contains(part),
        "{text}\n{wrong:#?}"
    );
}

#[test]
fn a_watcher_needs_a_name_and_something_to_ask() {
    let config = Config::parse(&format!("{SERVICE}[watch]\nname = \"a\"\n{PROBE}")).expect("valid");
    let watch = config.watch.expect("watched");
    assert_eq!(watch.then, Then::Notify);
    assert_eq!((watch.watchers.len(), watch.probes.len()), (1, 1));
    let probe = &watch.probes[0];
    assert_eq!((probe.failures, probe.successes, probe.within.as_secs()), (3, 2, 90));
    assert_eq!((probe.interval.as_secs(), probe.timeout.as_secs()), (30, 10));
    assert!(Config::parse(SERVICE).expect("valid").watch.is_none());

    one_wrong("[watch]\nname = \"a\"\n", "watch.probes", "at least one");
    one_wrong(&format!("[watch]\n{PROBE}"), "watch.watchers", "is missing");
    one_wrong(
        &format!("[watch]\nname = \"d\"\n{THREE}{PROBE}"),
        "watch.name",
        "none of watchers",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}from = [\"a\", \"b\", \"c\", \"d\"]\n"),
        "watch.probes[1].from",
        "none of watch.watchers",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}from = [\"a\", \"b\"]\n"),
        "watch.probes",
        "leave c without",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}plane = \"control\"\n"),
        "watch.probes",
        "leave a, b, c without",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}contains = \"UP\"\n"),
        "watch.probes[1].contains",
        "means nothing",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}interval = \"2m\"\nwithin = \"90s\"\n"),
        "watch.probes[1].within",
        "at least 4m34s",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}intervall = \"2m\"\n"),
        "watch.probes[1].intervall",
        "did you mean interval?",
    );
    one_wrong(
        &format!("[watch]\nstale_after = \"20s\"\n{THREE}{PROBE}"),
        "watch.stale_after",
        "three times",
    );
    one_wrong(
        &format!("[watch]\n{THREE}{PROBE}[watch.atuo]\n"),
        "watch.atuo",
        "did you mean auto?",
    );
    one_wrong(
        &format!("[watch]\n{THREE}[[watch.probes]]\nkind = \"mysql\"\nquery = \"DELETE FROM t\"\n"),
        "watch.probes[1].query",
        "only reads",
    );
    one_wrong(
        &format!("[watch]\n{THREE}[[watch.probes]]\nkind = \"http\"\nurl = \"https://u:secret@h/\"\n"),
        "watch.probes[1].url",
        "must not hold",
    );
}

#[test]
fn auto_is_refused_where_it_could_not_be_trusted() {
    let with = |watch: &str, auto: &str, more: &str| format!("[watch]\n{watch}{PROBE}[watch.auto]\n{auto}{more}");
    let (fence, primary) = (
        "unprovable_fence = \"accept\"\n",
        "primary_region = \"x\"\nthen = \"auto\"\n",
    );
    let good = with(&format!("{primary}{THREE}"), fence, STEPS);
    let config = Config::parse(&format!("{SERVICE}{good}")).expect("valid");
    let Then::Auto(auto) = config.watch.expect("watched").then else {
        panic!("auto was asked for");
    };
    assert_eq!(
        (auto.grace.as_secs(), auto.max_loss.as_secs(), auto.stage),
        (180, 3_600, 3)
    );
    assert_eq!(auto.unprovable_fence, UnprovableFence::Accept);

    let two = THREE.replace("{ name = \"a\", region = \"x\" }, ", "");
    for (text, key, part) in [
        (
            with(&format!("{primary}{two}"), fence, STEPS),
            "watch.watchers",
            "at least three",
        ),
        (
            with(&format!("{primary}{}", THREE.replace("\"y\"", "\"x\"")), fence, STEPS),
            "watch.watchers",
            "outside x",
        ),
        (
            with(&format!("then = \"auto\"\n{THREE}"), fence, STEPS),
            "watch.primary_region",
            "is missing",
        ),
        (
            with(&format!("{primary}{THREE}"), "", STEPS),
            "watch.auto.unprovable_fence",
            "is missing",
        ),
        (
            with(
                &format!("{primary}{THREE}"),
                &format!("{fence}max_loss = \"2h\"\n"),
                STEPS,
            ),
            "watch.auto.max_loss",
            "failover.max_loss",
        ),
        (
            with(
                &format!("{primary}{THREE}"),
                fence,
                &format!("{STEPS}[failover]\napprovers = 2\n"),
            ),
            "watch.then",
            "nobody would be there to agree",
        ),
        (
            with(&format!("{primary}{THREE}"), fence, ""),
            "watch.then",
            "nothing to do",
        ),
        (
            with(
                &format!("{primary}{THREE}"),
                fence,
                &format!(
                    "{STEPS}[[failover_steps]]\nname = \"call\"\nstage = 3\nkind = \"manual\"\ntext = \"Call.\"\nneeds = [\"cluster\"]\n"
                ),
            ),
            "watch.then",
            "manual step call",
        ),
        (with(THREE, fence, STEPS), "watch.auto", "only with then"),
        (
            format!("[watch]\n{primary}{THREE}{PROBE}{STEPS}"),
            "watch.then",
            "needs a section",
        ),
    ] {
        one_wrong(&text, key, part);
    }
    // What a person does at the end, when the service is up, stops nothing.
    let after = format!(
        "{STEPS}[[failover_steps]]\nname = \"call\"\nstage = 3\nkind = \"manual\"\ntext = \"Call.\"\nneeds = [\"traffic\"]\n"
    );
    assert_eq!(wrong(&with(&format!("{primary}{THREE}"), fence, &after)), [""; 0]);
}

#[test]
fn the_examples_say_what_they_are() {
    let example = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("config")
            .join(name);
        Config::load(&path).unwrap_or_else(|error| panic!("{error}"))
    };
    let watch = example("watch.toml").watch.expect("watched");
    assert_eq!(watch.then, Then::Notify);
    assert_eq!(watch.probes_of("tokyo").len(), 1, "what it can reach");
    let planes: Vec<Plane> = watch.probes_of("seoul").iter().map(|probe| probe.plane).collect();
    assert_eq!(planes, [Plane::Data, Plane::Data, Plane::Data, Plane::Control]);
    let auto = example("watch-auto.toml");
    assert!(matches!(auto.watch.expect("watched").then, Then::Auto(_)));
    let mistakes = planb::steps::plan::mistakes(&auto.failover_steps, &[]);
    assert!(mistakes.is_empty(), "{mistakes:?}");
}
