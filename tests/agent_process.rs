//! The daemon as it is installed: its own process, told to stop, to reload, and what systemd hears of it; with a
//! real server, a real store, and both going away in between.

mod daemon;
#[path = "support/http_fault.rs"]
mod http_fault;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::{Daemon, WATCHDOG};
use http_fault::{Fault, HttpFault, Rule};
use jiff::{SignedDuration, Timestamp};
use planb::backup::prune::{EXPIRABLE_TAG, EXPIRABLE_VALUE};
use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::BlobStore;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use planb::store::directory::DirectoryStore;
use support::{Endpoint, Flavor, PASSWORD, Planb, Server, azurite, old_backup, reader, unique_schema};
use url::Url;

/// Other tests share these two cores.
const SOON: Duration = Duration::from_secs(60);
const EVERY_TWO_SECONDS: &str = "*/2 * * * * *";
/// Far enough away that no test meets it.
const ONCE_A_DAY: &str = "0 3 * * *";

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A schema of one's own on `server`: `rows` rows of one KiB each.
fn schema(server: &Endpoint, rows: u32) -> String {
    let name = unique_schema("agent");
    server.sql(&format!(
        "CREATE DATABASE {name};
         CREATE TABLE {name}.entries (id INT PRIMARY KEY, text TEXT NOT NULL);
         SET SESSION cte_max_recursion_depth = 1000000;
         INSERT INTO {name}.entries
           WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           SELECT i, REPEAT(SHA2(i, 512), 8) FROM n;"
    ));
    name
}

/// PlanB over a schema of its own on `server`, running on `schedule`; `backup` is more of that section.
fn planb(server: &Endpoint, rows: u32, schedule: &str, backup: &str) -> Planb {
    let schema = schema(server, rows);
    let planb = Planb::new(server, &reader(server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    planb.configure(&format!(
        "[targets]\nrpo = \"2d\"\n[backup]\nschedule = \"{schedule}\"\nverify_source = \"never\"\n{backup}"
    ));
    planb
}

fn shared() -> Endpoint {
    Server::shared(Flavor::MySql)
}

fn no_secret_in(heard: &daemon::Heard) {
    let told = heard.told();
    assert!(!told.contains(PASSWORD) && !told.contains(KEY), "a secret was told");
}

#[test]
fn systemd_hears_ready_the_rpo_the_watchdog_and_stopping() {
    let planb = planb(&shared(), 100, EVERY_TWO_SECONDS, "");
    let mut agent = Daemon::start(&planb);
    agent.wait_log("backup committed", 3, SOON);
    let status = agent.wait("a status with the RPO", SOON, |heard| {
        heard
            .notices()
            .into_iter()
            .map(|(_, text)| text)
            .find(|text| text.starts_with("STATUS=RPO met: "))
    });
    assert!(
        status.contains("newest backup-") && status.contains("none proven"),
        "{status}"
    );
    let (rss, most) = agent.memory_kib();
    println!(
        "agent after three small backups: {} MiB resident, at most {} MiB",
        rss / 1024,
        most / 1024
    );
    assert!(most < 200 * 1024, "{most} KiB for a schema of 100 rows");

    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(10));
    let notices = ended.heard.notices();
    assert_eq!(notices[0].1, "READY=1");
    assert_eq!(notices.iter().filter(|(_, text)| text == "READY=1").count(), 1);
    // From then on it only asks for the time that it needs to come to rest.
    let mut last = notices
        .iter()
        .map(|(_, text)| text.as_str())
        .skip_while(|text| *text != "STOPPING=1");
    assert_eq!(last.next(), Some("STOPPING=1"));
    for text in last {
        assert!(
            text == "WATCHDOG=1" || text.starts_with("EXTEND_TIMEOUT_USEC="),
            "{text}"
        );
    }
    let fed: Vec<Instant> = notices
        .iter()
        .filter(|(_, text)| text == "WATCHDOG=1")
        .map(|(at, _)| *at)
        .collect();
    assert!(fed.len() >= 3, "fed {} times", fed.len());
    let hungriest = fed.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(
        hungriest < Some(WATCHDOG),
        "{hungriest:?} without food: systemd would have killed it"
    );

    // Exactly one summary for each run, and each backup is of one run.
    let mut committed = ended.heard.committed();
    let runs = ended.heard.summaries().len();
    assert!(
        runs == committed.len() || runs == committed.len() + 1,
        "only the last run may have been cut short"
    );
    committed.reverse();
    assert_eq!(planb.visible(), committed);
    for line in ended.heard.logged("backup committed") {
        for field in [
            "rows",
            "raw_bytes",
            "stored_bytes",
            "seconds",
            "lock_ms",
            "attempts",
            "rpo_seconds",
            "skipped",
        ] {
            assert!(line[field].is_number(), "{field} in {line}");
        }
        assert_eq!((&line["rows"], &line["rpo_state"]), (&100.into(), &"met".into()));
    }
    assert_eq!(planb.leftovers(), Vec::<std::path::PathBuf>::new());
    no_secret_in(&ended.heard);
}

#[test]
fn a_stop_in_the_middle_of_a_run_leaves_nothing() {
    let slow = "max_bytes_per_second = \"1MiB\"\nsessions = 1";
    let planb = planb(&shared(), 30_000, EVERY_TWO_SECONDS, slow);
    let mut agent = Daemon::start(&planb);
    agent.wait("something staged", SOON, |_| {
        (!planb.leftovers().is_empty()).then_some(())
    });
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(12));
    println!("stopped in the middle of a run within {:?}", ended.took);
    assert_eq!(planb.visible(), Vec::<String>::new());
    assert_eq!(
        planb.leftovers(),
        Vec::<std::path::PathBuf>::new(),
        "{}",
        ended.heard.told()
    );
    assert_eq!(ended.heard.summaries().len(), 1, "{}", ended.heard.told());
    // Nor does its lease stand in the way of the next run.
    planb.reconfigure(slow, "");
    let begun = Instant::now();
    planb.backup(&[]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn a_reload_takes_what_is_valid_and_keeps_the_old_otherwise() {
    let planb = planb(&shared(), 10, ONCE_A_DAY, "");
    let mut agent = Daemon::start(&planb);
    // There was nothing yet, so it does not wait for the night.
    agent.wait_log("backup committed", 1, SOON);
    let good = std::fs::read_to_string(planb.config()).expect("a configuration");

    planb.reconfigure(ONCE_A_DAY, "when I feel like it");
    planb.configure("[surprise]\nkey = 1");
    agent.signal("HUP");
    let told = agent.wait_log("the new configuration is not valid; going on with the old one", 2, SOON);
    let problems: String = told.iter().map(|line| line["problem"].to_string()).collect();
    assert!(
        problems.contains("backup.schedule") && problems.contains("surprise"),
        "{problems}"
    );
    agent.wait("READY after RELOADING", SOON, |heard| {
        let notices = heard.notices();
        let reloading = notices.iter().position(|(_, text)| text.starts_with("RELOADING=1"))?;
        assert!(notices[reloading..].iter().all(|(_, text)| text != "STOPPING=1"));
        notices[reloading..]
            .iter()
            .any(|(_, text)| text == "READY=1")
            .then_some(())
    });
    planb.write_config(&good);
    assert_eq!(planb.visible().len(), 1, "the old schedule goes on");

    planb.write_config(&good.replace(ONCE_A_DAY, EVERY_TWO_SECONDS));
    agent.signal("HUP");
    agent.wait_log("configuration reloaded", 1, SOON);
    agent.wait_log("backup committed", 3, SOON);
    agent.stop().assert_clean(Duration::from_secs(10));
}

#[test]
fn without_its_source_it_knows_the_rpo_at_once_and_goes_on_when_it_is_back() {
    let mut server = Server::start(Flavor::MySql, &[]);
    let planb = planb(&server, 10, EVERY_TWO_SECONDS, "timeout = \"1m\"\nstall = \"5s\"");
    let first = planb.backup(&[]);
    let first = first
        .file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(".sql.gz"));
    let first = first.expect("an id").to_owned();
    server.stop();

    let begun = Instant::now();
    let mut agent = Daemon::start(&planb);
    agent.wait("the RPO of what was there before", SOON, |heard| {
        heard.status().contains(&first).then_some(())
    });
    println!("a restarted agent knew the RPO after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    agent.wait_log("attempt failed, a fresh snapshot will be taken", 2, SOON);
    assert!(agent.heard().committed().is_empty());
    let (rss, _) = agent.memory_kib();
    println!("agent without its source: {} MiB resident", rss / 1024);

    server.restart(&[]);
    agent.wait_log("backup committed", 2, SOON);
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(10));
    assert!(planb.visible().len() >= 3, "{:?}", planb.visible());
    no_secret_in(&ended.heard);
}

#[test]
fn two_agents_on_one_store_take_turns() {
    // Four MiB at two a second: a run takes long enough for two to meet.
    let slow = "max_bytes_per_second = \"2MiB\"";
    let planb = planb(&shared(), 4_000, EVERY_TWO_SECONDS, slow);
    let mut agents = [Daemon::start(&planb), Daemon::start(&planb)];
    let deadline = Instant::now() + SOON;
    let committed = |agents: &[Daemon; 2]| {
        agents
            .iter()
            .map(|agent| agent.heard().committed().len())
            .sum::<usize>()
    };
    let failed = |agents: &[Daemon; 2]| {
        agents
            .iter()
            .map(|agent| agent.heard().logged("backup failed").len())
            .sum::<usize>()
    };
    while committed(&agents) < 5 || failed(&agents) == 0 {
        assert!(
            Instant::now() < deadline,
            "{}\n\n{}",
            agents[0].heard().told(),
            agents[1].heard().told()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(agents.iter_mut().all(Daemon::is_running), "both stay up");
    // Whoever had to stand back knows of the other's backups, and does not cry wolf.
    for agent in &mut agents {
        agent.wait("an RPO that is met", SOON, |heard| {
            heard.status().starts_with("RPO met").then_some(())
        });
    }
    let ended = agents.map(Daemon::stop);
    for one in &ended {
        one.assert_clean(Duration::from_secs(12));
        for line in one.heard.logged("backup failed") {
            let error = line["error"].as_str().unwrap_or_default();
            assert!(error.contains("lease") || error.contains("stopped because"), "{error}");
        }
    }
    let lines: Vec<_> = ended
        .iter()
        .flat_map(|one| one.heard.logged("backup committed"))
        .collect();
    let ids: BTreeSet<String> = lines
        .iter()
        .map(|line| line["id"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), lines.len(), "no backup is of two runs");
    assert_eq!(planb.visible().into_iter().collect::<BTreeSet<_>>(), ids);
    // Each ran from `seconds` before its line until shortly before it; the tolerance is for the logging.
    let mut spans: Vec<(Timestamp, Timestamp)> = lines
        .iter()
        .map(|line| {
            let end: Timestamp = line["timestamp"].as_str().expect("a time").parse().expect("RFC 3339");
            let took = Duration::from_secs_f64(line["seconds"].as_f64().expect("seconds"));
            assert!(took > Duration::from_secs(1), "too quick for two to meet: {took:?}");
            (end - took, end - SignedDuration::from_millis(500))
        })
        .collect();
    spans.sort();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "two runs at the same time: {pair:?}");
    }
    assert_eq!(planb.leftovers(), Vec::<std::path::PathBuf>::new());
}

async fn azure_container(name: &str) {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    let store = AzureStore::open(ACCOUNT, name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store");
    store.create_container().await.expect("a container");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_away_for_a_while_is_used_again() {
    let container = format!("agent-{:016x}", rand::random::<u64>());
    azure_container(&container).await;
    azure_container(&format!("{container}-control")).await;
    let emulator = Url::parse(&azurite()).expect("a URL");
    let upstream = emulator.socket_addrs(|| None).expect("an address")[0];
    let proxy = HttpFault::start(upstream, []).await;

    let server = shared();
    let mut planb = planb(&server, 100, EVERY_TWO_SECONDS, "stall = \"5s\"");
    let file = format!("url = \"file://{}\"", planb.store().display());
    planb.reconfigure(
        &file,
        &format!(
            "url = \"azblob://{ACCOUNT}/{container}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_TEST_KEY\"\n\
             endpoint = \"http://{}/{ACCOUNT}\"",
            proxy.address()
        ),
    );
    planb.env.push(("PLANB_TEST_KEY".into(), KEY.into()));

    let mut agent = Daemon::start(&planb);
    agent.wait_log("backup committed", 2, SOON);
    let before = agent.heard().committed().len();
    proxy.add(Rule::new(&[], Fault::Reset, usize::MAX));
    let outage = Instant::now();
    // Long enough for a run to meet it, to give its snapshot back, and to ask in vain a few times.
    let begun = proxy.faults_met();
    agent.wait("requests in vain", SOON, |_| {
        (proxy.faults_met() >= begun + 8).then_some(())
    });
    while outage.elapsed() < Duration::from_secs(20) {
        assert!(agent.is_running());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(
        agent.heard().status().contains("newest backup-"),
        "it still knows what there was"
    );
    let during = agent.heard().committed().len();
    assert!(during <= before + 1, "committed into a store that was away");
    proxy.heal();
    let back = Instant::now();
    agent.wait_log("backup committed", during + 2, Duration::from_secs(120));
    println!(
        "two backups {:?} after the store came back from {:?} away",
        back.elapsed(),
        back - outage
    );
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(12));
    no_secret_in(&ended.heard);
    let mut committed = ended.heard.committed();
    committed.reverse();
    assert_eq!(planb.visible(), committed);
}

/// A store with ten backups of long ago, an agent that makes one more, and its first pruning.
async fn pruned_by_an_agent(removal: &str) -> (Planb, Vec<String>) {
    let planb = planb(&shared(), 10, ONCE_A_DAY, "");
    planb.configure(&format!(
        "[retention]\nkeep_all = \"1h\"\nkeep_hourly = \"2h\"\nkeep_days = 2\nkeep_at_least = 1\nremoval = \"{removal}\""
    ));
    let mut old = Vec::new();
    for days in (40..50).rev() {
        old.push(old_backup(&planb.store(), SignedDuration::from_hours(24 * days)).await);
    }
    let mut agent = Daemon::start(&planb);
    let applied = agent.wait_log("retention applied", 1, SOON);
    // A fifth of eleven, and no more.
    assert!(
        applied[0]["did"]
            .as_str()
            .is_some_and(|did| did.starts_with("2 removed")),
        "{}",
        applied[0]
    );
    let removed = agent.heard().logged("backup removed by retention");
    assert_eq!(removed.len(), 2);
    agent.stop().assert_clean(Duration::from_secs(10));
    (planb, old)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_removes_the_oldest_and_no_more_than_a_fifth() {
    let (planb, old) = pruned_by_an_agent("delete").await;
    let visible = planb.visible();
    assert_eq!(visible.len(), 9, "{visible:?}");
    let mut kept = old[2..].to_vec();
    kept.reverse();
    assert_eq!(visible[1..], kept);
    // The command line says what the agent defers, and refuses to do it without a word.
    assert!(
        planb
            .ok(&["prune", "--dry-run"])
            .contains("would remove 8 of 9 backups")
    );
    planb.fails(3, &["prune"]);
    assert_eq!(planb.visible().len(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_without_the_right_to_delete_tags_only() {
    let (planb, old) = pruned_by_an_agent("tag").await;
    assert_eq!(planb.visible().len(), 11, "nothing is gone");
    let store = DirectoryStore::open(planb.store(), Arc::new(SystemClock))
        .await
        .expect("a store");
    for (age_rank, id) in old.iter().enumerate() {
        let tags = store.tags(&format!("backups/{id}.sql.gz")).await.expect("tags");
        let expirable = tags.get(EXPIRABLE_TAG).is_some_and(|value| value == EXPIRABLE_VALUE);
        assert_eq!(expirable, age_rank < 2, "{id}: {tags:?}");
    }
}

/// Flips a bit in the middle of a committed file, so fast and so quietly (same inode, size and time) that only reading
/// it shows; as a disk would.
fn rot(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a backup");
    let metadata = file.metadata().expect("a file");
    let at = metadata.len() / 3;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    byte[0] ^= 1;
    file.write_all_at(&byte, at).expect("written");
    file.set_modified(metadata.modified().expect("a time"))
        .expect("set back");
}

#[test]
fn each_backup_is_verified_and_a_rotten_one_is_an_error_and_unusable() {
    let planb = planb(&shared(), 2_000, EVERY_TWO_SECONDS, "");
    let mut agent = Daemon::start(&planb);
    let verified = agent.wait_log("backup verified", 1, SOON);
    let id = verified[0]["id"].as_str().expect("an id").to_owned();
    let listed = planb.json(&["--json", "backups"]);
    let entry = listed["backups"]
        .as_array()
        .and_then(|all| all.iter().find(|b| b["id"] == id.as_str()));
    assert!(entry.is_some_and(|b| b["structure_checked_at"].is_string()), "{listed}");

    // Whoever is too late for one backup is in time for another.
    let backups = planb.store().join("backups");
    let mut seen: BTreeSet<std::path::PathBuf> = BTreeSet::new();
    let files = || {
        std::fs::read_dir(&backups)
            .expect("a store")
            .flatten()
            .map(|entry| entry.path())
    };
    seen.extend(files());
    let deadline = Instant::now() + SOON;
    let told = loop {
        for path in files().filter(|path| !seen.contains(path)).collect::<Vec<_>>() {
            rot(&path);
            seen.insert(path);
        }
        let told = agent.heard().logged(DAMAGED);
        if let Some(line) = told.first() {
            break line.clone();
        }
        assert!(Instant::now() < deadline, "{}", agent.heard().told());
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(told["level"], "ERROR");
    assert!(
        told["place"]
            .as_str()
            .is_some_and(|place| place.contains(" is damaged: ")),
        "{told}"
    );
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(10));
    let rotten = told["id"].as_str().expect("an id");
    let status = planb.json(&["--json", "status"]);
    let unusable = status["unusable"].as_array().expect("a list");
    assert!(unusable.iter().any(|entry| entry["id"] == rotten), "{status}");
    assert!(planb.ok(&["status"]).contains("UNUSABLE  "));
    no_secret_in(&ended.heard);
}

const DAMAGED: &str =
    "THE BACKUP IS DAMAGED: it counts as unusable, and the RPO counts from the one before; look after the store";
