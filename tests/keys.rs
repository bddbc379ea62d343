//! Every row exactly once, whatever a table is keyed by: each kind of key is read in many pieces, by one session and by
//! several, and the server's own checksums and a restore must agree. What that costs in memory is bounded.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use planb::clock::SystemClock;
use planb::config::Tls;
use planb::dump::guard::Guard;
use planb::dump::limiter::Limiter;
use planb::dump::pipeline::{Pipeline, Progress, Settings};
use planb::dump::reader::{Job, Reader};
use planb::dump::survey::dialect_of;
use planb::dump::{catalog, snapshot};
use planb::format::index::Check;
use planb::mysql::Address;
use planb::secret::Secret;
use planb::store::Upload;
use planb::store::memory::MemoryStore;
use support::{Flavor, PASSWORD, Planb, Server, assert_same, census, reader};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Rows of each table.
const ROWS: u64 = 12_000;

/// A table: name, columns and keys, the values of row `n.i`, and whether it can be read in pieces.
struct Case(&'static str, &'static str, &'static str, bool);

/// `n.i` counts from 0. Every table has a payload `p` after its key.
fn cases(flavor: Flavor) -> Vec<Case> {
    let mut cases = vec![
        Case(
            "int_negative",
            "id INT, p TEXT, PRIMARY KEY (id)",
            "n.i - 6000, n.p",
            true,
        ),
        Case(
            "composite",
            "a INT, b INT, p TEXT, PRIMARY KEY (a, b)",
            "n.i % 7 - 3, n.i DIV 7, n.p",
            true,
        ),
        Case(
            "composite_three",
            "a VARCHAR(9), b DATE, c SMALLINT, p TEXT, PRIMARY KEY (a, b, c)",
            "CONCAT('k', n.i % 3), '2020-02-27' + INTERVAL (n.i DIV 3) % 40 DAY, n.i DIV 120 - 50, n.p",
            true,
        ),
        Case(
            "case_insensitive",
            "s VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, p TEXT",
            "CONCAT(ELT(1 + n.i % 5, 'a', 'B', 'é', 'É', 'b'), n.i, '''\\\\'), n.p",
            true,
        ),
        Case(
            "trailing_spaces",
            "s VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci PRIMARY KEY, p TEXT",
            "CONCAT('k', n.i, REPEAT(' ', n.i % 4)), n.p",
            true,
        ),
        Case(
            "below_space",
            "s VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY, p TEXT",
            "CONCAT('k', n.i DIV 4, REPEAT('\\t', n.i % 4)), n.p",
            true,
        ),
        Case(
            "fixed_char",
            "s CHAR(12) PRIMARY KEY, p TEXT",
            "CONCAT(n.i % 100, ' x', n.i DIV 100), n.p",
            true,
        ),
        Case(
            "latin1",
            "s VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci PRIMARY KEY, p TEXT",
            "CONCAT(CONVERT(UNHEX(HEX(192 + n.i % 60)) USING latin1), n.i), n.p",
            true,
        ),
        Case(
            "utf16",
            "s VARCHAR(40) CHARACTER SET utf16 PRIMARY KEY, p TEXT",
            "CONCAT(ELT(1 + n.i % 4, '민', '준', '🐻', 'z'), n.i), n.p",
            true,
        ),
        Case(
            "gbk",
            "s VARCHAR(40) CHARACTER SET gbk PRIMARY KEY, p TEXT",
            "CONCAT(ELT(1 + n.i % 3, '中', '乗', 'a'), n.i), n.p",
            true,
        ),
        Case(
            "binary_bytes",
            "s VARBINARY(16) PRIMARY KEY, p TEXT",
            "UNHEX(LEFT(SHA2(n.i, 256), 32)), n.p",
            true,
        ),
        Case(
            "binary_padded",
            "s BINARY(8) PRIMARY KEY, p TEXT",
            "CONCAT(n.i, CHAR(0)), n.p",
            true,
        ),
        Case(
            "decimals",
            "d DECIMAL(38,10) PRIMARY KEY, p TEXT",
            "(n.i - 5000) * 1000000000000.0000000001, n.p",
            true,
        ),
        Case(
            "datetimes",
            "d DATETIME(6) PRIMARY KEY, p TEXT",
            "CASE n.i WHEN 0 THEN '0000-00-00' WHEN 1 THEN '2019-02-30 01:02:03' WHEN 2 THEN '2019-00-01'
             ELSE '1999-12-31 23:59:59.25' + INTERVAL n.i * 777777 MICROSECOND END, n.p",
            true,
        ),
        // Only invalid dates: any of them may be where a piece ends.
        Case(
            "invalid_dates",
            "d DATE, i INT, p TEXT, PRIMARY KEY (d, i)",
            "CONCAT(2000 + n.i DIV 100, '-02-3', n.i % 2), n.i, n.p",
            true,
        ),
        Case(
            "timestamps",
            "d TIMESTAMP(3) PRIMARY KEY, p TEXT",
            "FROM_UNIXTIME(1603584000 + n.i * 0.125), n.p",
            true,
        ),
        Case(
            "times",
            "t TIME(2) PRIMARY KEY, p TEXT",
            "SEC_TO_TIME((n.i - 6000) * 0.25), n.p",
            true,
        ),
        Case(
            "unsigned_max",
            "id BIGINT UNSIGNED PRIMARY KEY, p TEXT",
            "18446744073709551615 - n.i * n.i, n.p",
            true,
        ),
        Case(
            "sparse",
            "id BIGINT PRIMARY KEY, p TEXT",
            "n.i * n.i * n.i * 5000000 - 9000000000000000, n.p",
            true,
        ),
        Case(
            "skewed",
            "tenant INT, id INT, p TEXT, PRIMARY KEY (tenant, id)",
            "IF(n.i % 50 = 0, n.i, 1), n.i, n.p",
            true,
        ),
        Case(
            "not_null_unique",
            "a INT, u INT NOT NULL UNIQUE, p TEXT",
            "n.i, n.i * 3, n.p",
            true,
        ),
        Case("descending", "id INT, p TEXT, PRIMARY KEY (id DESC)", "n.i, n.p", true),
        Case(
            "mixed_directions",
            "a INT, b INT, c INT, p TEXT, PRIMARY KEY (a, b DESC, c)",
            "n.i % 5, n.i DIV 100, n.i, n.p",
            true,
        ),
        Case(
            "nullable_unique",
            "u INT NULL UNIQUE, p TEXT",
            "IF(n.i % 3 = 0, NULL, n.i), n.p",
            false,
        ),
        Case(
            "unique_prefix",
            "s VARCHAR(60) NOT NULL, p TEXT, UNIQUE (s(20))",
            "CONCAT(n.i, '-', n.i), n.p",
            false,
        ),
        Case(
            "enums",
            "e ENUM('z','a','m'), i INT, p TEXT, PRIMARY KEY (e, i)",
            "1 + n.i % 3, n.i, n.p",
            false,
        ),
        Case("no_key", "a INT, p TEXT", "n.i % 10, n.p", false),
        Case(
            "partitioned",
            "id INT PRIMARY KEY, p TEXT) PARTITION BY HASH (id) PARTITIONS 5",
            "n.i, n.p",
            true,
        ),
        Case(
            "tiny_then_huge",
            "id INT PRIMARY KEY, p MEDIUMTEXT",
            HUGE_IN_THE_MIDDLE,
            true,
        ),
    ];
    if flavor == Flavor::MySql {
        cases.extend([
            Case(
                "no_pad",
                "s VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, p TEXT",
                "CONCAT('k', n.i DIV 4, REPEAT(' ', n.i % 4)), n.p",
                true,
            ),
            Case(
                "generated_key",
                "id INT, g BIGINT AS (id * 7 % 1000003) STORED NOT NULL PRIMARY KEY, p TEXT",
                "n.i * 11, n.p",
                true,
            ),
            Case(
                "virtual_key",
                "id INT, v INT AS (-id) VIRTUAL NOT NULL UNIQUE, p TEXT",
                "n.i, n.p",
                true,
            ),
            Case(
                "functional_unique",
                "id INT NOT NULL, p TEXT, UNIQUE ((id + 1))",
                "n.i, n.p",
                false,
            ),
        ]);
    } else {
        cases.push(Case(
            "no_pad",
            "s VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY, p TEXT",
            "CONCAT('k', n.i DIV 4, REPEAT(' ', n.i % 4)), n.p",
            true,
        ));
    }
    cases
}

/// Row 8,000 and the eleven after it are a megabyte each; all others are tiny.
const HUGE_IN_THE_MIDDLE: &str = "n.i, IF(n.i BETWEEN 8000 AND 8011, REPEAT(n.p, 16500), n.i)";

fn fill(server: &Server, rows: u64) {
    let mut sql = format!(
        "SET sql_mode = 'ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00';
         CREATE DATABASE keyed CHARACTER SET utf8mb4; USE keyed;
         CREATE TEMPORARY TABLE d (d INT); INSERT INTO d VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TEMPORARY TABLE d2 SELECT * FROM d; CREATE TEMPORARY TABLE d3 SELECT * FROM d;
         CREATE TEMPORARY TABLE d4 SELECT * FROM d; CREATE TEMPORARY TABLE d5 SELECT * FROM d;
         CREATE TEMPORARY TABLE n (i BIGINT PRIMARY KEY, p TEXT);
         INSERT INTO n SELECT i, LEFT(SHA2(i, 256), 64) FROM
           (SELECT d.d + 10 * d2.d + 100 * d3.d + 1000 * d4.d + 10000 * d5.d AS i FROM d, d2, d3, d4, d5) all_of
         WHERE i < {rows};\n"
    );
    for Case(table, columns, values, _) in cases(server.flavor) {
        let close = if columns.contains(") PARTITION") { "" } else { ")" };
        let into = if columns.contains(" AS (") { "(id, p)" } else { "" };
        sql.push_str(&format!(
            "CREATE TABLE {table} ({columns}{close};\nINSERT INTO {table} {into} SELECT {values} FROM n;\n"
        ));
    }
    server.sql(&sql);
    server.sql("ANALYZE TABLE keyed.int_negative");
}

/// A table large enough that several sessions share it: 30 MB in 1 KiB rows.
fn fill_big(server: &Server) {
    server.sql(
        "USE keyed;
         CREATE TABLE big (id BIGINT PRIMARY KEY, s VARCHAR(1100), KEY (id));
         INSERT INTO big SELECT a.id, REPEAT(SHA2(a.id, 256), 16) FROM int_negative a WHERE a.id < 4000;
         INSERT INTO big SELECT id + 1000000, s FROM big; INSERT INTO big SELECT id + 2000000000, s FROM big LIMIT 10000;
         ANALYZE TABLE big;",
    );
}

/// Reads every table in pieces of a few kilobytes, and returns how many members each became.
async fn read_in_pieces(server: &Server, sessions: usize) -> BTreeMap<String, usize> {
    let address = Address {
        host: "127.0.0.1".into(),
        port: server.port,
        user: "reader".into(),
        password: Secret::new(PASSWORD.to_owned()),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    };
    let mut control = address.connect().await.expect("a session");
    let dialect = dialect_of(&mut control).await.expect("a version");
    let schema = catalog::schema(&mut control, &dialect, "keyed")
        .await
        .expect("a schema");
    let expected: BTreeMap<&str, bool> = cases(server.flavor)
        .iter()
        .map(|Case(name, _, _, keyed)| (*name, *keyed))
        .collect();
    for table in &schema.tables {
        assert_eq!(
            table.key.is_some(),
            expected[table.name.as_str()],
            "{}: {:?}",
            table.name,
            table.key
        );
    }
    let jobs: Vec<Job> = (0..)
        .zip(schema.tables)
        .map(|(number, table)| Job::new(table, number, (sessions > 1).then_some(0)))
        .collect();
    let jobs = Arc::new(jobs);
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    let upload = Upload {
        name: "x".into(),
        run_id: "0123456789abcdef".into(),
    };
    let settings = Settings {
        level: 1,
        threads: 2,
        buffers: sessions + 3,
        member_bytes: 32 << 10,
        stall: Duration::from_secs(60),
    };
    let stop = CancellationToken::new();
    let pipeline = Pipeline::start(store, upload, &settings, Arc::new(Progress::default()), stop);
    let mut tasks = JoinSet::new();
    for _ in 0..sessions {
        let mut session = snapshot::reader_session(&address, &dialect, Duration::from_secs(1))
            .await
            .expect("a session");
        // Nobody writes here, so that any snapshots are the same.
        session
            .execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            .await
            .expect("a snapshot");
        let reader = Reader {
            session,
            intake: pipeline.intake(),
            guard: Guard::default(),
            limiter: Arc::new(Limiter::new(None)),
            unpaid_bytes: 0,
        };
        tasks.spawn(reader.run(Arc::clone(&jobs)));
    }
    let mut readers = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        readers.push(ended.expect("no panic").expect("every row"));
    }
    for (share, reader) in readers.iter_mut().enumerate() {
        reader
            .verify(&jobs, share, sessions)
            .await
            .expect("the server's checksums");
    }
    drop(readers);
    let blocks = pipeline.finish().await.expect("all blocks");
    for job in jobs.iter() {
        let figures = job.figures();
        assert_eq!(
            (figures.sum.rows, figures.checked),
            (ROWS, Check::Checksum),
            "{}",
            job.table.name
        );
    }
    let mut members = BTreeMap::new();
    for member in blocks.iter().flat_map(|block| &block.members) {
        *members.entry(member.table.clone()).or_insert(0) += 1;
    }
    members
}

async fn every_key(flavor: Flavor) {
    let server = Server::start(flavor, &[]);
    reader(&server, &[]);
    fill(&server, ROWS);
    for sessions in [1, 3] {
        let members = read_in_pieces(&server, sessions).await;
        for Case(table, ..) in cases(flavor) {
            let least = if table == "tiny_then_huge" { 12 } else { 10 };
            assert!(
                members[table] >= least,
                "{table} by {sessions} sessions: {} members",
                members[table]
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_mysql_in_small_pieces() {
    every_key(Flavor::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_mariadb_in_small_pieces() {
    every_key(Flavor::MariaDb).await;
}

/// The highest memory use of a process that runs to its end, in bytes, and its output.
fn peak_memory(planb: &Planb, args: &[&str]) -> (u64, std::process::Output) {
    let mut child = planb.spawn(args);
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().expect("a child").is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        });
        // The figure only ever grows: what happens after the last look is the exit.
        peak = kib.unwrap_or(0).max(peak);
        std::thread::sleep(Duration::from_millis(2));
    }
    (peak << 10, child.wait_with_output().expect("its output"))
}

fn whole(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    // RELOAD lets MySQL have several sessions.
    let more: &[&str] = if flavor == Flavor::MySql { &["RELOAD"] } else { &[] };
    let user = reader(&source, more);
    fill(&source, ROWS);
    fill_big(&source);
    let planb = Planb::new(&source, &user);
    planb.configure("[backup]\nsessions = 4");
    let mut backups = Vec::new();
    for sessions in [4, 1] {
        let (peak, output) = peak_memory(&planb, &["--json", "backup", "--verify-source"]);
        assert!(output.status.success(), "{}", support::planb::text(&output));
        let said = String::from_utf8_lossy(&output.stdout);
        let json: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
        assert_eq!(
            (json["sessions"].as_u64(), json["attempts"].as_u64()),
            (Some(sessions), Some(1)),
            "{json}"
        );
        println!(
            "{} by {sessions} sessions: {} MiB at most, {json}",
            flavor.name(),
            peak >> 20
        );
        assert!(peak > 8 << 20, "{peak} bytes cannot be right");
        assert!(peak < 128 << 20, "{} MiB", peak >> 20);
        backups.push(
            planb
                .store()
                .join(format!("backups/{}.sql.gz", json["id"].as_str().expect("an id"))),
        );
        if sessions == 4 {
            planb.reconfigure("sessions = 4", "sessions = 1");
        }
    }
    let there = census(&source, &["keyed"]);
    // A second server takes longer to start than both to load.
    let target = Server::start(flavor, &[]);
    for backup in backups {
        target.load_gzip(&backup);
        assert_same(&there, &census(&target, &["keyed"]));
        target.sql("DROP DATABASE keyed");
    }
}

#[test]
fn several_sessions_or_one_restore_the_same_on_mysql_within_bounded_memory() {
    whole(Flavor::MySql);
}

#[test]
fn several_sessions_or_one_restore_the_same_on_mariadb_within_bounded_memory() {
    whole(Flavor::MariaDb);
}
