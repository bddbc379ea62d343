//! Promise 4: the source is read and never written, and nobody waits for a dump longer than `lock_wait` and a second,
//! whatever is being read and however slowly it goes.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use planb::clock::SystemClock;
use planb::config::Tls;
use planb::mysql::{Address, Session};
use planb::secret::Secret;
use support::{Flavor, GatedStore, PASSWORD, Planb, Server, Told, reader, runner, wanted};
use tokio_util::sync::CancellationToken;

/// `lock_wait` is a second by default.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// The application: may do everything.
async fn app(server: &Server) -> Session {
    server.sql(&format!(
        "CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO app@'%';"
    ));
    let address = Address {
        host: "127.0.0.1".into(),
        port: server.port,
        user: "app".into(),
        password: Secret::new(PASSWORD.to_owned()),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    };
    address.connect().await.expect("a session")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the dump's snapshot is open.
///
/// InnoDB keeps a copy of this list for as long as somebody reads it every tenth of a second: so a pause before.
async fn reads(app: &mut Session) -> bool {
    let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
               ON p.id = t.trx_mysql_thread_id WHERE p.user = 'reader'";
    tokio::time::sleep(Duration::from_millis(120)).await;
    app.number(sql).await.expect("a count") > 0
}

fn fill(server: &Server, keyed_rows: u64, keyless_rows: u64) {
    server.sql(&format!(
        "CREATE DATABASE shop; USE shop;
         CREATE TABLE d (d INT); INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE keyed (id INT PRIMARY KEY, s VARCHAR(1100), n INT NOT NULL DEFAULT 0);
         INSERT INTO keyed (id, s) SELECT i, REPEAT(SHA2(i, 256), 16) FROM
           (SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS i FROM d a, d b, d c, d e, d f) n WHERE i < {keyed_rows};
         CREATE TABLE keyless (s VARCHAR(1100));
         INSERT INTO keyless SELECT s FROM keyed WHERE id < {keyless_rows};
         DROP TABLE d;"
    ));
}

/// Writes until told to stop; the longest that one write took, and how many there were.
async fn write(mut app: Session, stop: Arc<AtomicBool>) -> (Duration, u64) {
    let (mut longest, mut writes) = (Duration::ZERO, 0);
    while !stop.load(Ordering::SeqCst) {
        for sql in [
            format!("UPDATE shop.keyed SET n = n + 1 WHERE id = {}", writes % 100),
            "INSERT INTO shop.keyless (s) VALUES ('new')".to_owned(),
            format!("INSERT INTO shop.keyed (id, s) VALUES ({}, 'new')", 1_000_000 + writes),
        ] {
            let begun = Instant::now();
            app.execute(&sql).await.expect("a write");
            longest = longest.max(begun.elapsed());
        }
        writes += 1;
    }
    (longest, writes)
}

async fn ddl_and_writers(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    fill(&source, 6_000, 2_000);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure("[backup]\nmax_bytes_per_second = \"2MiB\"");
    let mut app_session = app(&source).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut child = planb.spawn(&["--json", "backup"]);
    until("the snapshot is open", async || {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it ended before it was seen reading"
        );
        reads(&mut app_session).await
    })
    .await;
    let writer = tokio::spawn(write(app(&source).await, Arc::clone(&stop)));
    let mut longest_ddl = Duration::ZERO;
    for ddl in [
        "ALTER TABLE shop.keyed ADD COLUMN extra INT NOT NULL DEFAULT 7",
        "ALTER TABLE shop.keyless ADD COLUMN extra INT NOT NULL DEFAULT 7",
        "ALTER TABLE shop.keyed ADD KEY (n)",
    ] {
        let begun = Instant::now();
        app_session.execute(ddl).await.expect("an ALTER");
        longest_ddl = longest_ddl.max(begun.elapsed());
    }
    let output = tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .expect("a thread")
        .expect("output");
    stop.store(true, Ordering::SeqCst);
    let (longest_write, writes) = writer.await.expect("the writer");
    assert!(output.status.success(), "{}", support::planb::text(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    let json: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    println!(
        "{}: {writes} writes, longest {longest_write:?}, longest DDL {longest_ddl:?}; {json}",
        flavor.name()
    );
    assert!(writes > 20, "{writes} rounds of writes");
    assert!(
        longest_write < LONGEST_WAIT && longest_ddl < LONGEST_WAIT,
        "{longest_write:?} {longest_ddl:?}"
    );
    assert!(
        json["attempts"].as_u64() > Some(1),
        "definitions changed meanwhile: {json}"
    );

    let target = Server::start(flavor, &[]);
    target.load_gzip(
        &planb
            .store()
            .join(format!("backups/{}.sql.gz", json["id"].as_str().expect("an id"))),
    );
    let sql = "SELECT (SELECT COUNT(*) FROM shop.keyed WHERE extra = 7) + (SELECT COUNT(*) FROM shop.keyless WHERE extra = 7),
               (SELECT COUNT(*) FROM shop.keyed) + (SELECT COUNT(*) FROM shop.keyless)";
    let rows = json["rows"].to_string();
    assert_eq!(
        target.rows(sql),
        [[rows.clone(), rows]],
        "all rows are of the definition restored"
    );
    // Each round wrote into both tables, one after the other: a snapshot shows them one apart at most.
    let counts = target.rows(
        "SELECT (SELECT COUNT(*) FROM shop.keyed WHERE s = 'new'), (SELECT COUNT(*) FROM shop.keyless WHERE s = 'new')",
    );
    let [keyed, keyless]: [i64; 2] = [0, 1].map(|i| counts[0][i].parse().expect("a number"));
    assert!(
        (0..=1).contains(&(keyless - keyed)),
        "{keyed} and {keyless}: not one instant"
    );
    let create = |server: &Server| server.sql("SHOW CREATE TABLE shop.keyed").replace("\\n", "\n");
    assert_eq!(create(&source), create(&target));
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_and_writers_do_not_wait_for_a_slow_dump_of_mysql() {
    ddl_and_writers(Flavor::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_and_writers_do_not_wait_for_a_slow_dump_of_mariadb() {
    ddl_and_writers(Flavor::MariaDb).await;
}

/// The store takes no more blocks while a statement is being read: whoever wants the table gets it, all the same.
async fn store_stands_still(flavor: Flavor, key: &str) {
    let source = Server::start(flavor, &[]);
    source.sql(&format!(
        "CREATE DATABASE shop; USE shop;
         CREATE TABLE d (d INT); INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE t (id INT NOT NULL {key}, b LONGBLOB);
         INSERT INTO t SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d, 'tiny' FROM d a, d b, d c, d e;"
    ));
    // Sixty of 4 MiB that gzip cannot make smaller: more than all buffers, and blocks on their way, hold.
    source.sql(
        "USE shop; SET group_concat_max_len = 10000000;
         SET @b = (SELECT GROUP_CONCAT(RANDOM_BYTES(1000) SEPARATOR '') FROM d a, d b, d c);
         INSERT INTO t SELECT 20000 + a.d + 10 * b.d, REPEAT(@b, 4) FROM d a, d b WHERE b.d < 6; DROP TABLE d;",
    );
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure("[backup]\nlevel = 1\nsessions = 1\nstall = \"50s\"");
    let clock = Arc::new(SystemClock);
    let store = GatedStore::new(clock.clone(), 50_000, false);
    let run = runner(&planb, store.clone(), clock);
    let told = Arc::new(Told::default());
    let running = {
        let told = Arc::clone(&told);
        tokio::spawn(async move { run.run(&wanted(), told.as_ref(), &CancellationToken::new()).await })
    };
    let (mut app_session, mut looker) = (app(&source).await, app(&source).await);
    // Our SELECT is stuck in sending: no rows leave the server any more, since no block is taken.
    let sending = "SELECT COALESCE(MAX(time_ms), 0) FROM (SELECT time * 1000 AS time_ms FROM information_schema.processlist \
                   WHERE user = 'reader' AND info LIKE 'SELECT 0,%`shop`.`t`%') AS p";
    until("the dump stands still", async || {
        looker.number(sending).await.expect("a time") >= 4000 && store.arrived.load(Ordering::SeqCst) >= 4
    })
    .await;
    let begun = Instant::now();
    app_session.execute("LOCK TABLES shop.t WRITE").await.expect("a lock");
    let waited = begun.elapsed();
    app_session.execute("UNLOCK TABLES").await.expect("no lock");
    store.set_open(true);
    let summary = running.await.expect("no panic").expect("a backup");
    let repeated = told.repeated.lock().expect("not poisoned").clone();
    println!(
        "{} {key:?}: waited {waited:?}, {} yields, {} attempts: {repeated:?}",
        flavor.name(),
        summary.yields,
        summary.attempts
    );
    assert!(waited < LONGEST_WAIT, "{waited:?}");
    assert_eq!(summary.rows, 10_060);
    let began_again = summary.attempts == 2 && repeated[0].contains("only with the whole snapshot");
    if flavor == Flavor::MariaDb {
        // With its binlog on it keeps the locks of what was read: the attempt is given up.
        assert!(began_again, "{repeated:?}");
    } else if key.is_empty() {
        assert!(
            summary.attempts == 2 && repeated[0].contains("has no usable key"),
            "{repeated:?}"
        );
    } else {
        assert!(summary.yields >= 1 && summary.attempts == 1, "{repeated:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_reader_that_waits_for_the_store_yields_and_goes_on_mysql() {
    store_stands_still(Flavor::MySql, "PRIMARY KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_reader_that_waits_for_the_store_yields_and_goes_on_mariadb() {
    store_stands_still(Flavor::MariaDb, "PRIMARY KEY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_reader_that_waits_for_the_store_yields_and_starts_again_mysql() {
    store_stands_still(Flavor::MySql, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyless_reader_that_waits_for_the_store_yields_and_starts_again_mariadb() {
    store_stands_still(Flavor::MariaDb, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_gets_a_pause() {
    let source = Server::start(Flavor::MySql, &[]);
    fill(&source, 20_000, 10);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.configure("[backup]\nthreads_running_limit = 5");
    let quiet = planb.json(&["--json", "backup"])["duration_seconds"]
        .as_f64()
        .expect("a time");

    let mut busy = Vec::new();
    let mut sleepers = Vec::new();
    for _ in 0..8 {
        let mut session = app(&source).await;
        sleepers.push(session.id);
        busy.push(tokio::spawn(async move { session.execute("SELECT SLEEP(100)").await }));
    }
    let mut looker = app(&source).await;
    let running = "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Threads_running'";
    until("the server is busy", async || {
        looker.number(running).await.expect("a number") > 8
    })
    .await;
    let mut child = planb.spawn(&["--json", "backup"]);
    until("the snapshot is open", async || reads(&mut looker).await).await;
    let begun = Instant::now();
    // Longer than the whole dump took, and shorter than the longest pause.
    let wait = Duration::from_secs_f64((3.0 * quiet).clamp(4.0, 9.0));
    while begun.elapsed() < wait {
        assert!(
            child.try_wait().expect("a child").is_none(),
            "it did not pause: {:?}, before {quiet} s",
            begun.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in sleepers {
        looker.execute(&format!("KILL {id}")).await.expect("killed");
    }
    let free = Instant::now();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .expect("a thread")
        .expect("output");
    println!(
        "{quiet} s alone; on a busy server paused for {wait:?}, then {:?}",
        free.elapsed()
    );
    assert!(output.status.success(), "{}", support::planb::text(&output));
    for session in busy {
        assert!(session.await.expect("no panic").is_err(), "it was busy until killed");
    }
}

fn never_written(flavor: Flavor) {
    let source = Server::start(
        flavor,
        &[
            "--general-log=ON",
            "--log-output=FILE",
            "--general-log-file=general.log",
        ],
    );
    fill(&source, 3_000, 500);
    source.sql("CREATE VIEW shop.v AS SELECT id FROM shop.keyed; CREATE PROCEDURE shop.p() DELETE FROM shop.keyed;");
    let planb = Planb::new(
        &source,
        &reader(&source, if flavor == Flavor::MySql { &["RELOAD"] } else { &[] }),
    );
    let position = |source: &Server| match flavor {
        Flavor::MySql => source.sql("SELECT @@global.gtid_executed; SHOW BINARY LOG STATUS"),
        Flavor::MariaDb => source.sql("SHOW MASTER STATUS"),
    };
    let before = position(&source);
    planb.backup(&["--verify-source"]);
    assert_eq!(
        position(&source),
        before,
        "the binary log says that something was written"
    );

    let log = std::fs::read(source.data_dir().join("general.log")).expect("the general log");
    let log = String::from_utf8_lossy(&log);
    // "TIME\tID Command\tText", where MariaDB leaves the time out when it has not changed.
    let lines = log.lines().filter_map(|line| {
        let (head, text) = line.rsplit_once('\t').unwrap_or((line, ""));
        let mut words = head.split_whitespace().rev();
        let command = words.next()?;
        let id: u64 = words.next()?.parse().ok()?;
        Some((id, command, text))
    });
    let mut mine = std::collections::BTreeSet::new();
    let mut seen = std::collections::BTreeSet::new();
    for (id, command, text) in lines {
        if command == "Connect" {
            if text.starts_with("reader@") {
                mine.insert(id);
            } else {
                mine.remove(&id);
            }
        } else if mine.contains(&id) && command == "Query" {
            let words: Vec<&str> = text.split_whitespace().collect();
            let verb = words
                .iter()
                .take(2)
                .copied()
                .collect::<Vec<_>>()
                .join(" ")
                .to_uppercase();
            let harmless = match words[0].to_uppercase().as_str() {
                "SELECT" => {
                    let upper = text.to_uppercase();
                    !upper.contains("FOR UPDATE") && !upper.contains(" INTO ") && !upper.contains("FOR SHARE")
                }
                "SHOW" | "SAVEPOINT" | "USE" => true,
                "SET" => !text.to_uppercase().contains("GLOBAL") && !text.to_uppercase().contains("PERSIST"),
                "ROLLBACK" | "UNLOCK" => true,
                "START" => text.contains("READ ONLY"),
                "FLUSH" => text == "FLUSH TABLES WITH READ LOCK",
                "KILL" => text.starts_with("KILL QUERY"),
                _ => false,
            };
            assert!(harmless, "{text}");
            seen.insert(verb);
        } else if mine.contains(&id) {
            assert!(["Quit", "Statistics", "Reset"].contains(&command), "{command} {text}");
        }
    }
    assert!(
        mine.len() >= 5 && seen.contains("SAVEPOINT PLANB"),
        "{} sessions: {seen:?}",
        mine.len()
    );
    println!("{}: {} sessions said {seen:?}", flavor.name(), mine.len());
}

#[test]
fn mysql_is_only_read() {
    never_written(Flavor::MySql);
}

#[test]
fn mariadb_is_only_read() {
    never_written(Flavor::MariaDb);
}
