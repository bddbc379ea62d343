//! Promise 1, whole or absent, under everything that goes wrong: processes killed, servers gone, schemas changed, stores
//! that refuse, hang or are full, clocks, rivals, and accounts that may not.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod support;

#[path = "support/http_fault.rs"]
mod http_fault;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_fault::{Fault, HttpFault, Rule};
use planb::backup::run::RunError;
use planb::clock::{Clock as _, FixedClock, SystemClock};
use planb::dump::AttemptError;
use planb::dump::pipeline::PipelineError;
use planb::secret::Secret;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use planb::store::{BlobStore as _, StoreError};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::planb::text;
use support::{
    Flavor, GatedStore, PASSWORD, Planb, Server, Told, assert_same, azurite, census, rds_like_account,
    rds_like_account_without, reader, runner, wanted,
};
use tokio_util::sync::CancellationToken;
use url::Url;

const PATIENCE: Duration = Duration::from_secs(100);
/// A dump of what [`fill`] makes takes some two seconds with it.
const THROTTLED: &str = "[backup]\nmax_bytes_per_second = \"2MiB\"";

fn fill(server: &Server) {
    server.sql(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE d (d INT); INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE money (id INT PRIMARY KEY, s VARBINARY(1000), n INT NOT NULL DEFAULT 0);
         INSERT INTO money (id, s)
           SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d, RANDOM_BYTES(900) FROM d a, d b, d c, d e WHERE e.d < 4;
         CREATE TABLE other (id INT PRIMARY KEY, s VARBINARY(1000), n INT NOT NULL DEFAULT 0);
         INSERT INTO other SELECT id, s, n FROM money WHERE id < 50;
         CREATE VIEW rich AS SELECT id FROM money WHERE n > 10;",
    );
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The reader's sessions that have a transaction open.
///
/// InnoDB keeps a copy of this list for as long as somebody reads it every tenth of a second: so a pause before.
fn open_snapshots(server: &Server) -> Vec<String> {
    std::thread::sleep(Duration::from_millis(120));
    let rows = server.rows(
        "SELECT p.id FROM information_schema.innodb_trx t JOIN information_schema.processlist p
         ON p.id = t.trx_mysql_thread_id WHERE p.user = 'reader'",
    );
    rows.into_iter().flatten().collect()
}

fn until_reading(server: &Server) -> Vec<String> {
    until("the snapshot is open", || {
        Some(open_snapshots(server)).filter(|open| !open.is_empty())
    })
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", child.id())])
        .status()
        .expect("sh runs");
    assert!(status.success(), "no process to signal");
}

fn json_of(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", text(output));
    let stdout = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

fn finish(child: Child) -> serde_json::Value {
    json_of(&child.wait_with_output().expect("its output"))
}

fn blob(planb: &Planb, json: &serde_json::Value) -> PathBuf {
    planb
        .store()
        .join(format!("backups/{}.sql.gz", json["id"].as_str().expect("an id")))
}

/// `gzip -dc` reads it to the end, and the end is there.
fn assert_whole(path: &std::path::Path) {
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs");
    assert!(
        output.status.success(),
        "{}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stdout.ends_with(b"-- Dump completed\n"),
        "{} has no end",
        path.display()
    );
}

fn without_lease(planb: &Planb) {
    let _ = std::fs::remove_dir_all(planb.store().join("control/lease"));
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_to_see() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure("[backup]\nmax_bytes_per_second = \"4MiB\"");
    let begun = Instant::now();
    planb.backup(&[]);
    let usual = begun.elapsed();
    let mut seen = planb.visible();
    let mut cut_short = 0;
    for _ in 0..10 {
        // A run that was killed holds its lease for a minute more; that it is not for ever is looked at last.
        without_lease(&planb);
        let mut child = planb.spawn(&["--json", "backup"]);
        // The moment is the fault, not a synchronisation.
        std::thread::sleep(usual.mul_f64(rng.random_range(0.0..1.1)));
        let ended = child.try_wait().expect("a child");
        child.kill().expect("killed");
        let output = child.wait_with_output().expect("its output");
        let now = planb.visible();
        let more = now.iter().filter(|id| !seen.contains(id)).count();
        match ended {
            Some(status) => assert!(status.success() && more == 1, "{}", text(&output)),
            // Killed after the commit and before its last word, it may be there. Then it is whole, as asserted below.
            None => {
                assert!(more <= 1, "{now:?}");
                cut_short += usize::from(more == 0);
            }
        }
        seen = now;
    }
    assert!(cut_short > 2, "only {cut_short} of ten were killed in time");
    for id in &seen {
        assert_whole(&planb.store().join(format!("backups/{id}.sql.gz")));
    }
    // Once more, and this time the lease is left as it is.
    without_lease(&planb);
    let mut child = planb.spawn(&["backup"]);
    until_reading(&source);
    child.kill().expect("killed");
    child.wait().expect("ended");
    until("its snapshot is given back", || {
        open_snapshots(&source).is_empty().then_some(())
    });
    let refused = planb.fails(3, &["backup"]);
    assert!(refused.contains("holds lease/run-backups"), "{refused}");
    let begun = Instant::now();
    until("the lease of a dead run expires", || {
        planb.run(&["backup"]).status.success().then_some(())
    });
    println!(
        "{cut_short} of 10 cut short; the next run could begin after {:?}",
        begun.elapsed()
    );
    assert_eq!(planb.visible().len(), seen.len() + 1);
    // What they left in the staging area goes after a week.
    assert!(!planb.leftovers().is_empty(), "nothing was staged by those killed");
    for path in planb.leftovers() {
        let touched = Command::new("touch")
            .args(["-d", "8 days ago"])
            .arg(path)
            .status()
            .expect("touch runs");
        assert!(touched.success());
    }
    planb.backup(&[]);
    assert_eq!(planb.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn told_to_stop_it_stops_and_cleans_up() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure("[backup]\nmax_bytes_per_second = \"256KiB\"");
    for name in ["TERM", "INT"] {
        let child = planb.spawn(&["backup"]);
        until_reading(&source);
        until("something is staged", || (!planb.leftovers().is_empty()).then_some(()));
        let begun = Instant::now();
        signal(&child, name);
        let output = child.wait_with_output().expect("its output");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains("planb: cancelled; "), "{}", text(&output));
        assert_eq!(planb.visible(), Vec::<String>::new());
        assert_eq!(planb.leftovers(), Vec::<PathBuf>::new(), "SIG{name}");
        until("its snapshot is given back", || {
            open_snapshots(&source).is_empty().then_some(())
        });
    }
    planb.reconfigure("256KiB", "1GiB");
    // At once: a run that was told to stop gives its lease back.
    planb.backup(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_in_the_midst_of_the_commit_it_says_whether_there_is_a_backup() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let clock = Arc::new(SystemClock);
    let store = GatedStore::new(clock.clone(), 50_000, true);
    store
        .commits_are_silent
        .store(true, std::sync::atomic::Ordering::SeqCst);
    let run = runner(&planb, store.clone(), clock);
    let (told, cancel) = (Told::default(), CancellationToken::new());
    let stop = async {
        let deadline = Instant::now() + PATIENCE;
        while store.inner.list("backups/").await.expect("a list").is_empty() {
            assert!(Instant::now() < deadline, "nothing was published");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cancel.cancel();
    };
    let wanted = wanted();
    let (result, ()) = tokio::join!(run.run(&wanted, &told, &cancel), stop);
    let error = result.expect_err("stopped");
    let there = store.inner.list("backups/").await.expect("a list").remove(0).name;
    assert!(
        matches!(&error, RunError::StoppedAfterCommit(id) if id.blob("backups/") == there),
        "{error}"
    );
    assert!(error.to_string().contains("had been published"), "{error}");
}

/// It goes on without one and still says `log_bin = 1`.
#[test]
fn a_binlog_that_mysql_has_closed_gives_no_position() {
    let source = Server::start(Flavor::MySql, &["--binlog-error-action=IGNORE_ERROR"]);
    fill(&source);
    // There is no number after this one, so it cannot open another.
    std::fs::write(source.data_dir().join("binlog.2147483647"), "").expect("a file");
    // Whether it says so or not.
    let _ = source.try_sql("FLUSH BINARY LOGS");
    assert_eq!(source.rows("SELECT @@log_bin"), [["1"]]);
    assert!(source.rows("SHOW BINARY LOG STATUS").is_empty());
    let planb = Planb::new(&source, &reader(&source, &["RELOAD"]));
    let path = planb.backup(&["--verify-source"]);
    let output = Command::new("gzip").arg("-dc").arg(&path).output().expect("gzip runs");
    let script = String::from_utf8_lossy(&output.stdout);
    assert!(
        script.contains("\"position\":{\"known\":\"none\"}"),
        "a position in a closed binlog"
    );
    let doctor = text(&planb.run(&["doctor"]));
    assert!(doctor.contains("does not hold every change"), "{doctor}");
}

#[test]
fn a_server_that_dies_and_comes_back_is_dumped_anew() {
    for flavor in Flavor::ALL {
        let mut source = Server::start(flavor, &[]);
        fill(&source);
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.configure(THROTTLED);
        let child = planb.spawn(&["--json", "backup", "--verify-source"]);
        until_reading(&source);
        source.kill();
        source.restart(&[]);
        let json = finish(child);
        assert!(json["attempts"].as_u64() > Some(1), "{json}");
        assert_eq!(json["rows"], 4_060, "{json}");

        let child = planb.spawn(&["--json", "backup", "--verify-source"]);
        let sessions = until_reading(&source);
        // The first that is killed ends the attempt, and with it the others.
        let killed = sessions
            .iter()
            .filter(|id| source.try_sql(&format!("KILL {id}")).is_ok())
            .count();
        assert!(killed > 0, "none of {sessions:?} could be killed");
        let json = finish(child);
        assert!(json["attempts"].as_u64() > Some(1), "a session was killed: {json}");
        assert_eq!(
            (json["rows"].as_u64(), planb.visible().len()),
            (Some(4_060), 2),
            "{json}"
        );
        assert_eq!(planb.leftovers(), Vec::<PathBuf>::new());
    }
}

fn definitions_change(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    fill(&source);
    let target = Server::start(flavor, &[]);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure(THROTTLED);
    for ddl in [
        "ALTER TABLE money ADD COLUMN more INT NOT NULL DEFAULT 3, ADD KEY (n)",
        "TRUNCATE TABLE other",
        "CREATE TABLE swap LIKE other; INSERT INTO swap SELECT * FROM other; RENAME TABLE other TO gone, swap TO other",
        "DROP TABLE other; CREATE TABLE other LIKE gone; INSERT INTO other VALUES (1, 'new', 2)",
        "ALTER VIEW rich AS SELECT id FROM money WHERE n > 20",
        "DROP TABLE gone",
    ] {
        let child = planb.spawn(&["--json", "backup", "--verify-source"]);
        until_reading(&source);
        source.sql(&format!("USE bank; {ddl}"));
        let json = finish(child);
        assert!(json["attempts"].as_u64() > Some(1), "{ddl}: {json}");
        target.load_gzip(&blob(&planb, &json));
        assert_same(&census(&source, &["bank"]), &census(&target, &["bank"]));
        target.sql("DROP DATABASE bank");
    }
    assert_eq!(planb.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_dump_of_mysql_never_mixes_two_definitions() {
    definitions_change(Flavor::MySql);
}

#[test]
fn a_dump_of_mariadb_never_mixes_two_definitions() {
    definitions_change(Flavor::MariaDb);
}

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published key. Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// PlanB with a container of its own in the emulator, behind a proxy that may misbehave.
struct Cloud {
    planb: Planb,
    proxy: HttpFault,
    direct: AzureStore,
}

async fn cloud(source: &Server) -> Cloud {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let container = format!("faults-{:016x}", rand::random::<u64>());
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    let open = |name: &str| {
        AzureStore::open(ACCOUNT, name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a container's name")
    };
    let direct = open(&container);
    direct.create_container().await.expect("a container");
    open(&format!("{container}-control"))
        .create_container()
        .await
        .expect("a container");
    let upstream = format!(
        "{}:{}",
        endpoint.host_str().expect("a host"),
        endpoint.port().expect("a port")
    );
    let proxy = HttpFault::start(upstream.parse().expect("an address"), []).await;
    let mut planb = Planb::new(source, &reader(source, &[]));
    planb.env.push(("PLANB_KEY".into(), KEY.into()));
    planb.reconfigure(
        &format!("url = \"file://{}\"", planb.store().display()),
        &format!(
            "url = \"azblob://{ACCOUNT}/{container}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_KEY\"\n\
             endpoint = \"http://{}/{ACCOUNT}\"",
            proxy.address()
        ),
    );
    Cloud { planb, proxy, direct }
}

impl Cloud {
    async fn names(&self) -> Vec<String> {
        self.direct
            .list("")
            .await
            .expect("a list")
            .into_iter()
            .map(|blob| blob.name)
            .collect()
    }
}

/// `work` may block; the proxy goes on meanwhile.
fn meanwhile<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_trouble_is_tried_again() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let cloud = cloud(&source).await;
    for rule in [
        Rule::new(&["PUT ", "blockid="], Fault::Status(503), 3),
        Rule::new(&["PUT ", "blockid="], Fault::Reset, 2),
        Rule::new(&["PUT ", "blockid="], Fault::SwallowAnswer, 1),
        Rule::new(&["PUT ", "comp=blocklist"], Fault::SwallowAnswer, 1),
        Rule::new(&["GET ", "comp=list"], Fault::Status(503), 1),
    ] {
        cloud.proxy.add(rule);
    }
    let json = meanwhile(|| cloud.planb.json(&["--json", "backup"]));
    assert_eq!(
        (cloud.proxy.faults_met(), json["attempts"].as_u64()),
        (8, Some(1)),
        "{json}"
    );
    let id = json["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        cloud.names().await,
        [format!("backups/{id}.sql.gz")],
        "the lost answer was to our own commit"
    );
    let blob = cloud.direct.list("").await.expect("a list").remove(0);
    let bytes = cloud
        .direct
        .read(&blob.name, 0..blob.size_bytes, None)
        .await
        .expect("the blob");
    let path = cloud.planb.path().join("copy.sql.gz");
    std::fs::write(&path, bytes).expect("a copy");
    assert_whole(&path);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_hangs_no_snapshot_is_held() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let cloud = cloud(&source).await;
    cloud
        .planb
        .configure("[backup]\nstall = \"5s\"\nmax_bytes_per_second = \"256KiB\"");
    cloud
        .proxy
        .add(Rule::new(&["PUT ", "blockid="], Fault::Hang, usize::MAX));
    let mut child = cloud.planb.spawn(&["--json", "backup"]);
    let (held, output) = meanwhile(|| {
        until_reading(&source);
        let begun = Instant::now();
        until("a stalled attempt gives its snapshot back", || {
            open_snapshots(&source).is_empty().then_some(())
        });
        let held = begun.elapsed();
        assert!(child.try_wait().expect("a child").is_none(), "the run goes on");
        cloud.proxy.heal();
        (held, child.wait_with_output().expect("its output"))
    });
    let json = json_of(&output);
    println!("the snapshot was held for {held:?}; {json}");
    // Left alone it would be held for the time that reading takes, some fifteen seconds.
    assert!((3.0..12.0).contains(&held.as_secs_f64()), "{held:?}");
    assert!(json["attempts"].as_u64() > Some(1), "{json}");
    assert!(
        text(&output).contains("no block reached the store"),
        "{}",
        text(&output)
    );
    assert_eq!(cloud.names().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_and_a_missing_container_are_said_at_once() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql("CREATE DATABASE bank");
    let mut cloud = cloud(&source).await;
    let right = cloud.planb.env.clone();
    let wrong = KEY.replace("Eby8", "Fby8");
    cloud.planb.env.push(("PLANB_KEY".into(), wrong.clone()));
    let said = meanwhile(|| cloud.planb.fails(1, &["backup"]));
    assert!(said.contains("refused access") && !said.contains(&wrong), "{said}");
    cloud.planb.env.push(("PLANB_KEY".into(), "no base64!".into()));
    let said = meanwhile(|| cloud.planb.fails(1, &["backup"]));
    assert!(said.contains("key") && !said.contains("no base64!"), "{said}");
    cloud.planb.env = right;
    cloud
        .planb
        .reconfigure("azblob://devstoreaccount1/faults-", "azblob://devstoreaccount1/absent-");
    let said = meanwhile(|| cloud.planb.fails(1, &["backup"]));
    assert!(said.contains("does not exist"), "{said}");
}

#[test]
fn a_full_disk_is_said_and_costs_nothing() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    source.sql("CREATE DATABASE small; CREATE TABLE small.t (id INT PRIMARY KEY); INSERT INTO small.t VALUES (1)");
    let planb = Planb::new(&source, &reader(&source, &[]));
    let all = planb.path().join("all.toml");
    std::fs::copy(planb.config(), &all).expect("a copy");
    planb.reconfigure("tls = \"off\"", "tls = \"off\"\ndatabases = [\"small\"]");
    // A file system of 2 MiB, seen by these commands only.
    let script = r#"
        mount -t tmpfs -o size=2m tmpfs "$STORE" && "$PLANB" --config "$SMALL" --json backup || exit 10
        "$PLANB" --config "$ALL" backup; echo "exit $?" >&2
        "$PLANB" --config "$SMALL" --json backups
        ls -A "$STORE/.staging" | sed 's/^/left /'
        gzip -t "$STORE"/backups/*.sql.gz || exit 11
        "$PLANB" --config "$SMALL" --json backup || exit 12"#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .env("STORE", planb.store())
        .env("PLANB", env!("CARGO_BIN_EXE_planb"))
        .env("SMALL", planb.config())
        .env("ALL", &all)
        .envs(planb.env.iter().cloned())
        .output()
        .expect("unshare (package util-linux) runs");
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("exit 1\n") && said.contains("no space left in"), "{said}");
    assert!(!said.lines().any(|line| line.starts_with("left ")), "{said}");
    let listed = said.lines().find(|line| line.contains("\"backups\":")).expect("a list");
    let json: serde_json::Value = serde_json::from_str(listed).expect("JSON");
    assert_eq!(json["backups"].as_array().map(Vec::len), Some(1), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_makes_no_backup_that_looks_older() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let now = SystemClock.now();
    let clock = Arc::new(FixedClock::at(now));
    let store = GatedStore::new(clock.clone(), 50_000, true);
    let run = runner(&planb, store.clone(), clock.clone());
    let (told, cancel) = (Told::default(), CancellationToken::new());
    let first = run.run(&wanted(), &told, &cancel).await.expect("a backup");
    clock.set(now - jiff::SignedDuration::from_hours(1));
    let refused = run.run(&wanted(), &told, &cancel).await.expect_err("set back");
    assert!(
        matches!(refused, RunError::ClockSetBack { .. }) && refused.is_permanent(),
        "{refused}"
    );
    assert_eq!(
        (
            store.inner.list("").await.expect("a list").len(),
            store.inner.staged_uploads()
        ),
        (1, 0)
    );
    clock.set(now + jiff::SignedDuration::from_secs(1));
    let second = run.run(&wanted(), &told, &cancel).await.expect("a backup");
    assert!(second.consistent_at > first.consistent_at);

    // This machine an hour behind the store: the store's clock counts.
    let ahead = Arc::new(FixedClock::at(now + jiff::SignedDuration::from_hours(1)));
    let store = GatedStore::new(ahead, 50_000, true);
    let run = runner(&planb, store, Arc::new(FixedClock::at(now)));
    let third = run.run(&wanted(), &told, &cancel).await.expect("a backup");
    assert_eq!(third.consistent_at, now + jiff::SignedDuration::from_hours(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn few_blocks_are_shared_and_too_few_are_an_error() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    for n in 0..30 {
        source.sql(&format!("CREATE TABLE bank.t{n} SELECT * FROM bank.other"));
    }
    source.sql(
        "USE bank; CREATE PROCEDURE p() SELECT 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1;
         CREATE TRIGGER t BEFORE INSERT ON money FOR EACH ROW SET NEW.n = 5;",
    );
    let planb = Planb::new(&source, &reader(&source, &[]));
    let clock = Arc::new(SystemClock);
    let store = GatedStore::new(clock.clone(), 8, true);
    let run = runner(&planb, store.clone(), clock.clone());
    let (told, cancel) = (Told::default(), CancellationToken::new());
    let done = run.run(&wanted(), &told, &cancel).await.expect("a backup");
    assert_eq!((done.tables, store.inner.staged_uploads()), (33, 0));
    let name = done.id.blob("backups/");
    let size = store
        .inner
        .properties(&name)
        .await
        .expect("an answer")
        .expect("a blob")
        .size_bytes;
    let path = planb.path().join("copy.sql.gz");
    std::fs::write(&path, store.inner.read(&name, 0..size, None).await.expect("the blob")).expect("a copy");
    assert_whole(&path);
    let target = Server::start(Flavor::MySql, &[]);
    target.load_gzip(&path);
    assert_same(&census(&source, &["bank"]), &census(&target, &["bank"]));

    // Two blocks of 16 MiB beside the schema's and the index's.
    source.sql(
        "USE bank; CREATE TABLE large (id INT AUTO_INCREMENT PRIMARY KEY, a VARBINARY(1000), b VARBINARY(1000));
         INSERT INTO large (a, b) SELECT RANDOM_BYTES(1000), RANDOM_BYTES(1000) FROM d a, d b, d c, d e;
         INSERT INTO large (a, b) SELECT b, a FROM large;",
    );
    let store = GatedStore::new(clock.clone(), 4, true);
    let run = runner(&planb, store.clone(), clock);
    let error = run.run(&wanted(), &told, &cancel).await.expect_err("too large");
    assert!(
        matches!(
            error,
            RunError::Attempt(AttemptError::Pipeline(PipelineError::TooManyBlocks(4)))
        ),
        "{error}"
    );
    assert!(
        error.is_permanent() && error.to_string().contains("more than the 4 blocks"),
        "{error}"
    );
    assert_eq!(
        (
            store.inner.list("").await.expect("a list").len(),
            store.inner.staged_uploads()
        ),
        (0, 0)
    );
    assert!(told.repeated.lock().expect("not poisoned").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_taken_meanwhile_is_not_overwritten() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let now = SystemClock.now();
    let clock = Arc::new(FixedClock::at(now));
    let store = GatedStore::new(clock.clone(), 50_000, false);
    let run = runner(&planb, store.clone(), clock.clone());
    let running = tokio::spawn(async move { run.run(&wanted(), &Told::default(), &CancellationToken::new()).await });
    let deadline = Instant::now() + PATIENCE;
    while store.arrived.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "nothing came to the store");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let name = planb::backup::entry::BackupId::at(now).blob("backups/");
    store
        .inner
        .put(
            &name,
            bytes::Bytes::from_static(b"theirs"),
            planb::store::Condition::Absent,
        )
        .await
        .expect("somebody else's");
    store.set_open(true);
    let error = running.await.expect("no panic").expect_err("the name is taken");
    assert!(
        matches!(error, RunError::Store(StoreError::AlreadyExists { .. })),
        "{error}"
    );
    assert_eq!(store.inner.read(&name, 0..6, None).await.expect("theirs"), "theirs");
    assert_eq!(store.inner.staged_uploads(), 0);
}

#[test]
fn two_at_once_two_services_and_two_servers_are_refused() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure(THROTTLED);
    let first = planb.spawn(&["--json", "backup"]);
    until_reading(&source);
    let refused = planb.fails(3, &["backup"]);
    assert!(
        refused.contains("planb backup (run ") && refused.contains("holds lease/run-backups since"),
        "{refused}"
    );
    assert_eq!(finish(first)["attempts"], 1);

    planb.reconfigure("name = \"bank\"", "name = \"shop\"");
    let refused = planb.fails(3, &["backup"]);
    assert!(
        refused.contains("holds the backups of service \"bank\", not of \"shop\""),
        "{refused}"
    );
    planb.reconfigure("name = \"shop\"", "name = \"bank\"");

    let moved = Server::start(Flavor::MySql, &[]);
    moved.sql("CREATE DATABASE bank");
    reader(&moved, &[]);
    planb.reconfigure(&format!("port = {}", source.port), &format!("port = {}", moved.port));
    let refused = planb.fails(3, &["backup"]);
    assert!(refused.contains("--accept source-changed=REASON"), "{refused}");
    planb.fails(2, &["backup", "--accept", "source-changed="]);
    planb.fails(2, &["backup", "--accept", "anything=else"]);
    assert_eq!(planb.visible().len(), 1);
    planb.ok(&["backup", "--accept", "source-changed=rebuilt on new hardware"]);
    let claim = std::fs::read_to_string(planb.store().join("control/sites/backups/primary.json")).expect("the claim");
    assert!(claim.contains("rebuilt on new hardware"), "{claim}");
    planb.ok(&["backup"]);
    // The old server has become the wrong one.
    planb.reconfigure(&format!("port = {}", moved.port), &format!("port = {}", source.port));
    planb.fails(3, &["backup"]);
    assert_eq!(planb.visible().len(), 3);
}

#[test]
fn nothing_to_dump_fails_and_little_does_not() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        let planb = Planb::new(&source, &reader(&source, &[]));
        let said = planb.fails(1, &["backup"]);
        assert!(said.contains("there is no schema to back up"), "{said}");
        source.sql("CREATE DATABASE `empty`");
        let json = planb.json(&["--json", "backup", "--verify-source"]);
        assert_eq!(
            (json["rows"].as_u64(), json["tables"].as_u64()),
            (Some(0), Some(0)),
            "{json}"
        );
        let target = Server::start(flavor, &[]);
        target.load_gzip(&blob(&planb, &json));
        assert_eq!(target.rows("SHOW DATABASES LIKE 'empty'"), [["empty"]]);
        planb.reconfigure("tls = \"off\"", "tls = \"off\"\ndatabases = [\"empty\", \"absent\"]");
        let said = planb.fails(2, &["backup"]);
        assert!(said.contains("schema absent does not exist"), "{said}");
    }
}

/// Spawns it; what it says on stderr can be read while it runs.
fn overheard(planb: &Planb, args: &[&str]) -> (Child, Arc<Mutex<String>>, std::thread::JoinHandle<()>) {
    let mut child = planb
        .command(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("planb runs");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let said = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&said);
    let listener = std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            *into.lock().expect("not poisoned") += &(line + "\n");
        }
    });
    (child, said, listener)
}

#[test]
fn a_rotated_password_is_read_again() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let file = planb.path().join("password");
    planb.reconfigure("env:PLANB_SOURCE_PASSWORD", &format!("file:{}", file.display()));
    let write = |text: &str| {
        // In one step, as rotation does it.
        std::fs::write(planb.path().join("new"), text).expect("a file");
        std::fs::rename(planb.path().join("new"), &file).expect("renamed");
    };
    write("the old one");
    let (child, said, listener) = overheard(&planb, &["--json", "backup"]);
    until("the login is refused once", || {
        said.lock()
            .expect("not poisoned")
            .contains("attempt failed")
            .then_some(())
    });
    write(PASSWORD);
    let json = finish(child);
    listener.join().expect("no panic");
    assert_eq!(json["attempts"], 2, "{json}");

    write("the old one");
    let (child, said, listener) = overheard(&planb, &["backup"]);
    let output = child.wait_with_output().expect("its output");
    listener.join().expect("no panic");
    let said = said.lock().expect("not poisoned").clone();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refused account reader"), "{said}");
    assert_eq!(
        said.matches("attempt failed").count(),
        1,
        "asked twice, no more: {said}"
    );

    write(PASSWORD);
    source.sql("ALTER USER reader@'%' ACCOUNT LOCK");
    let said = planb.fails(1, &["backup"]);
    assert!(
        said.contains("refused account reader") && said.contains("locked"),
        "{said}"
    );
    source.sql("ALTER USER reader@'%' ACCOUNT UNLOCK");
    planb.ok(&["backup"]);
}

#[test]
fn each_missing_grant_is_named() {
    for (flavor, privileges) in [
        (
            Flavor::MySql,
            vec![
                "SELECT",
                "SHOW VIEW",
                "TRIGGER",
                "EVENT",
                "PROCESS",
                "REPLICATION CLIENT",
            ],
        ),
        (
            Flavor::MariaDb,
            vec!["SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "PROCESS", "BINLOG MONITOR"],
        ),
    ] {
        let source = Server::start(flavor, &[]);
        fill(&source);
        let (user, password) = rds_like_account(&source);
        let mut planb = Planb::new(&source, &user);
        planb.env.push(("PLANB_SOURCE_PASSWORD".into(), password));
        planb.ok(&["backup"]);
        let mut user = user;
        for missing in privileges {
            let (lesser, _) = rds_like_account_without(&source, &[missing]);
            planb.reconfigure(&user, &lesser);
            user = lesser;
            let said = planb.fails(1, &["backup"]);
            assert!(said.contains(missing), "without {missing}: {said}");
        }
        assert_eq!(planb.visible().len(), 1);
    }
}

#[test]
fn a_version_nobody_tested_is_refused() {
    let source = Server::start(Flavor::MariaDb, &["--version=10.5.9-MariaDB-log"]);
    source.sql("CREATE DATABASE bank");
    let planb = Planb::new(&source, &reader(&source, &[]));
    let said = planb.fails(1, &["backup"]);
    assert!(said.contains("the source runs 10.5.9-MariaDB"), "{said}");
    assert_eq!(planb.visible(), Vec::<String>::new());
}
