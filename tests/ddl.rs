//! Routine changes of definitions: what is created while a dump runs costs nothing and is in the next one, whole.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use planb::backup::run::{RunError, RunSummary};
use planb::clock::SystemClock;
use planb::store::BlobStore as _;
use support::{Flavor, GatedStore, Planb, Server, Told, assert_same, census, reader, runner, wanted};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(100);
/// Reading what [`fill`] makes takes some three seconds with it.
const THROTTLED: &str = "[backup]\nmax_bytes_per_second = \"2MiB\"";

fn fill(server: &Server) {
    server.sql(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE d (d INT); INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE money (id INT PRIMARY KEY, s VARBINARY(1000), n INT NOT NULL DEFAULT 0);
         INSERT INTO money (id, s)
           SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d, RANDOM_BYTES(900) FROM d a, d b, d c, d e WHERE e.d < 6;
         CREATE TABLE days (id INT PRIMARY KEY) PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10));
         INSERT INTO days VALUES (1), (2), (3);
         CREATE VIEW rich AS SELECT id FROM money WHERE n > 10;
         CREATE TRIGGER first BEFORE INSERT ON money FOR EACH ROW SET NEW.n = NEW.n + 1;",
    );
}

/// A run that stands where its store makes it wait.
struct Held {
    store: Arc<GatedStore>,
    running: JoinHandle<(Result<RunSummary, RunError>, Vec<String>)>,
}

impl Held {
    /// Throttled, so that the data is still being read when the first of it has come to the store.
    fn start(planb: &Planb) -> Self {
        let clock = Arc::new(SystemClock);
        let store = GatedStore::new(clock.clone(), 50_000, false);
        let run = runner(planb, store.clone(), clock);
        let running = tokio::spawn(async move {
            let told = Told::default();
            let result = run.run(&wanted(), &told, &CancellationToken::new()).await;
            (result, told.repeated.into_inner().expect("not poisoned"))
        });
        Self { store, running }
    }

    async fn until(&self, counter: impl Fn(&GatedStore) -> &AtomicUsize) {
        let deadline = Instant::now() + PATIENCE;
        while counter(&self.store).load(Ordering::SeqCst) == 0 {
            assert!(Instant::now() < deadline, "nothing came to the store");
            assert!(!self.running.is_finished(), "the run ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets it go on; the backup, and why attempts were repeated.
    async fn finish(self, to: &Path) -> (PathBuf, Vec<String>) {
        self.store.set_answers(true);
        self.store.set_open(true);
        let (result, repeated) = self.running.await.expect("no panic");
        let summary = result.expect("a backup");
        let name = summary.id.blob("backups/");
        let blob = self
            .store
            .inner
            .properties(&name)
            .await
            .expect("an answer")
            .expect("a blob");
        let bytes = self.store.inner.read(&name, 0..blob.size_bytes, None).await;
        let path = to.join("copy.sql.gz");
        std::fs::write(&path, bytes.expect("its bytes")).expect("a copy");
        (path, repeated)
    }
}

async fn created_meanwhile(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    fill(&source);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure(THROTTLED);
    let before = census(&source, &["bank"]);
    let run = Held::start(&planb);
    run.until(|store| &store.arrived).await;
    source.sql(
        "USE bank; CREATE TABLE staging (id INT PRIMARY KEY); INSERT INTO staging VALUES (1);
         CREATE TABLE passing (id INT); DROP TABLE passing;
         CREATE VIEW fresh AS SELECT id FROM staging; CREATE PROCEDURE p() SELECT COUNT(*) FROM staging;
         CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN (SELECT COUNT(*) FROM staging);
         CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM staging;
         CREATE DATABASE more; CREATE TABLE more.t (id INT PRIMARY KEY); INSERT INTO more.t VALUES (1);",
    );
    if flavor == Flavor::MySql {
        // MariaDB's readers keep what they locked, so there these would wait for the dump, and the dump give way.
        source.sql(
            "USE bank; ALTER TABLE days ADD PARTITION (PARTITION p1 VALUES LESS THAN (20)); INSERT INTO days VALUES (11);
             CREATE TRIGGER earlier BEFORE INSERT ON money FOR EACH ROW PRECEDES first SET NEW.n = (SELECT MAX(id) FROM staging);",
        );
    }
    let (path, repeated) = run.finish(planb.path()).await;
    assert_eq!(repeated, Vec::<String>::new());
    let target = Server::start(flavor, &[]);
    target.load_gzip(&path);
    assert_same(&before, &census(&target, &["bank"]));
    assert!(target.rows("SHOW DATABASES LIKE 'more'").is_empty());
    // And in the next one there is all of it.
    target.sql("DROP DATABASE bank");
    target.load_gzip(&planb.backup(&["--verify-source"]));
    assert_same(&census(&source, &["bank", "more"]), &census(&target, &["bank", "more"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_meanwhile_on_mysql_costs_nothing() {
    created_meanwhile(Flavor::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_meanwhile_on_mariadb_costs_nothing() {
    created_meanwhile(Flavor::MariaDb).await;
}

/// Between the first look and the snapshot, or just after it: nobody can tell which, so it must be in the dump.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_around_the_snapshot_is_dumped() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        fill(&source);
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.configure(THROTTLED);
        for (ddl, word) in [
            (
                "CREATE TABLE bank.late (id INT PRIMARY KEY); INSERT INTO bank.late VALUES (1)",
                "late",
            ),
            ("CREATE VIEW bank.lately AS SELECT id FROM bank.late", "lately"),
            (
                "CREATE DATABASE later; CREATE TABLE later.t (id INT PRIMARY KEY); INSERT INTO later.t VALUES (1)",
                "later",
            ),
        ] {
            let run = Held::start(&planb);
            run.store.set_answers(false);
            run.until(|store| &store.asked).await;
            source.sql(ddl);
            let (path, repeated) = run.finish(planb.path()).await;
            assert_eq!(repeated.len(), 1, "{repeated:?}");
            assert!(repeated[0].contains(word), "{repeated:?}");
            let target = Server::start(flavor, &[]);
            target.load_gzip(&path);
            let schemas: &[&str] = if word == "later" { &["bank", "later"] } else { &["bank"] };
            assert_same(&census(&source, schemas), &census(&target, schemas));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_meanwhile_repeats_the_dump() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        fill(&source);
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.configure(THROTTLED);
        for ddl in ["DROP DATABASE gone", "DROP VIEW bank.rich"] {
            source.sql(
                "CREATE DATABASE IF NOT EXISTS gone; USE bank;
                 CREATE OR REPLACE VIEW rich AS SELECT id FROM money WHERE n > 10;",
            );
            let run = Held::start(&planb);
            run.until(|store| &store.arrived).await;
            source.sql(ddl);
            let (path, repeated) = run.finish(planb.path()).await;
            assert_eq!(repeated.len(), 1, "{ddl}: {repeated:?}");
            let target = Server::start(flavor, &[]);
            target.load_gzip(&path);
            assert_same(&census(&source, &["bank"]), &census(&target, &["bank"]));
            assert!(ddl != "DROP DATABASE gone" || target.rows("SHOW DATABASES LIKE 'gone'").is_empty());
        }
    }
}
