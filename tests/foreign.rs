//! `planb restore` of dumps that are not PlanB's: what mysqldump and mariadb-dump wrote comes back, from a file, standard
//! input, a link or the store; and what is not whole is told.

#[path = "support/range_server.rs"]
mod range_server;
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use range_server::RangeServer;
use support::planb::text;
use support::restores::hard_source;
use support::{
    AZURE_LIKE_ARGS, Endpoint, Flavor, Planb, Server, assert_same, azure_like_admin, census, reader, restorer,
    tls_files,
};

const HARD: [&str; 3] = ["hard", "hard 데이터 \"q'`b", "hard_empty"];

/// A server with everything hard that a tool's own dump can carry.
fn dumpable_source(flavor: Flavor) -> Server {
    let source = hard_source(flavor);
    // It needs ALLOW_INVALID_DATES, which the tools' own sql_mode does not have.
    source.sql("DROP TABLE hard.dates_defaults");
    if flavor == Flavor::MariaDb {
        // A row that breaks a rule made later: mariadb-dump leaves the rules on.
        source.sql("DELETE FROM hard.checks WHERE id = 2");
    }
    // The tools give up at a view whose definer does not exist.
    source.sql("DROP VIEW hard.ghost_view");
    source
}

/// What the tool of the source's flavour writes.
fn dump(source: &Endpoint, arguments: &[&str]) -> Vec<u8> {
    let mut command = Command::new(source.dump_tool());
    command.args([
        "--no-defaults",
        "--user=root",
        "--max-allowed-packet=1G",
        "--single-transaction",
    ]);
    match &source.socket {
        Some(socket) => command.arg("--socket").arg(socket),
        None => panic!("a server of one's own"),
    };
    let output = command.args(arguments).output().expect("the tool runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).expect("written");
    path
}

fn arguments<'a>(what: &'a str, to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "--json",
        "restore",
        what,
        "--to",
        to,
        "--password",
        "env:PLANB_SOURCE_PASSWORD",
    ];
    arguments.extend(["--tls", "off"]);
    arguments.extend(more);
    arguments
}

fn fed(planb: &Planb, input: &Path, arguments: &[&str]) -> Output {
    planb
        .command(arguments)
        .stdin(File::open(input).expect("the input"))
        .stdout(Stdio::piped())
        .output()
        .expect("planb runs")
}

/// What the tools themselves lose, by name, with the reason.
const LOST: [(&str, &str); 6] = [
    ("table hard.versioned_", "history is dumped with --dump-history only"),
    ("table hard.dates:", "days that do not exist need ALLOW_INVALID_DATES"),
    (
        "table hard.enums:",
        "the empty member and the value 0 look alike as text",
    ),
    ("table hard.floats:", "FLOAT is printed with six digits"),
    ("table hard.key_float:", "FLOAT is printed with six digits"),
    (
        "table hard.strings_no_round_trip:",
        "text goes through utf8mb4 and back",
    ),
];

/// Without what the tools lose.
fn expected(census: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut census = asleep(census);
    census.retain(|key, _| !LOST.iter().any(|(lost, _)| key.starts_with(lost)));
    census
}

/// Events arrive disabled.
fn asleep(census: BTreeMap<String, String>) -> BTreeMap<String, String> {
    census
        .into_iter()
        .map(|(key, value)| {
            let value = if key.starts_with("event ") {
                value.replace(" PRESERVE ENABLE", " PRESERVE DISABLE")
            } else {
                value
            };
            (key, value)
        })
        .collect()
}

/// How many schemas of ours and of the dump are there.
fn made(target: &Endpoint) -> String {
    let sql = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME IN ('planb', 'hard', 'bank')";
    target.sql(sql).trim().to_owned()
}

fn round_trip(flavor: Flavor) {
    let source = dumpable_source(flavor);
    let planb = Planb::empty();
    let all = ["--routines", "--events", "--triggers", "--hex-blob", "--databases"];
    let whole = gzip(&dump(&source, &[&all, HARD.as_slice()].concat()));
    let file = write(planb.path(), "cron.sql.gz", &whole).display().to_string();
    let target = Server::start(flavor, &[]);
    let to = restorer(&target);
    let plan = planb.json(&arguments(&file, &to, &["--plan"]));
    assert_eq!(
        (plan["way"].as_str(), made(&target).as_str()),
        (Some("foreign"), "0"),
        "{plan}"
    );
    let json = planb.json(&arguments(&file, &to, &[]));
    assert_eq!(json["way"], "foreign");
    assert_eq!(json["checked_first"], true);
    assert_eq!(json["schemas"].as_array().map(Vec::len), Some(3), "{json}");
    assert!(json["rows"].as_u64() > Some(10_000), "{json}");
    let there = census(&target, &HARD);
    assert_same(&expected(census(&source, &HARD)), &expected(there.clone()));
    // With nothing left out: as the client of the same flavour loads it. (With its locks, MariaDB's refuses its own dump of
    // a table that takes its defaults from a sequence.)
    let by_client = Server::start(flavor, &[]);
    let unlocked = dump(&source, &[&["--skip-add-locks"], &all[..], HARD.as_slice()].concat());
    by_client.load_gzip(&write(planb.path(), "client.sql.gz", &gzip(&unlocked)));
    let timeless = |mut census: BTreeMap<String, String>| {
        // When a row began is when it was loaded.
        census.retain(|key, _| !key.ends_with(": history"));
        census
    };
    assert_same(&timeless(asleep(census(&by_client, &HARD))), &timeless(there));
    // Those that were enabled, and only those, are woken.
    let wake = [
        "--json",
        "restore",
        "--to",
        &to,
        "--password",
        "env:PLANB_SOURCE_PASSWORD",
        "--tls",
        "off",
        "--enable-events",
    ];
    assert_eq!(planb.json(&wake)["enabled_events"], json["sleeping_events"]);
    assert!(
        target
            .sql("SHOW CREATE EVENT hard.e_daily")
            .contains(" PRESERVE ENABLE")
    );
    // Over it, nothing is loaded.
    let said = planb.fails(3, &arguments(&file, &to, &[]));
    assert!(said.contains("already holds hard"), "{said}");

    // Without --databases, hex and compression, through a pipe: the dump does not say where it belongs.
    source.sql(
        "USE hard; DROP VIEW v_there_and_back, v_out; SET foreign_key_checks = 0; DROP DATABASE `hard 데이터 \"q'``b`",
    );
    let one = dump(&source, &["--routines", "--events", "--triggers", "hard"]);
    let plain = write(planb.path(), "one.sql", &one);
    let target = Server::start(flavor, &[]);
    let to = restorer(&target);
    let output = fed(&planb, &plain, &arguments("-", &to, &[]));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains("--database NAME") && made(&target) == "0",
        "{}",
        text(&output)
    );
    let collation = source.sql("SELECT CONCAT('CREATE DATABASE hard CHARACTER SET ', DEFAULT_CHARACTER_SET_NAME, ' COLLATE ', DEFAULT_COLLATION_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'hard'");
    target.sql(&collation);
    let output = fed(&planb, &plain, &arguments("-", &to, &["--database", "hard"]));
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("\"checked_first\":false"));
    assert_same(
        &expected(census(&source, &["hard"])),
        &expected(census(&target, &["hard"])),
    );
}

#[test]
fn a_dump_of_mysqldump_comes_back() {
    round_trip(Flavor::MySql);
}

#[test]
fn a_dump_of_mariadb_dump_comes_back() {
    round_trip(Flavor::MariaDb);
}

/// A source whose dump takes a few pieces.
fn bank(flavor: Flavor) -> Server {
    let source = Server::start(flavor, &[]);
    source.sql(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE digits (d INT PRIMARY KEY); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE transfers (id INT PRIMARY KEY AUTO_INCREMENT, reference VARCHAR(200) NOT NULL, trace BINARY(16));
         INSERT INTO transfers (reference, trace) SELECT CONCAT(REPEAT('reference ', 10), SHA2(a.d + 10*b.d, 256)), UNHEX(LEFT(SHA2(a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d, 256), 32))
           FROM digits a, digits b, digits c, digits e, digits f;
         CREATE TABLE zz_last (id INT PRIMARY KEY); INSERT INTO zz_last VALUES (1);",
    );
    source
}

fn transfers(server: &Endpoint) -> String {
    server.sql("SELECT COUNT(*), SUM(CRC32(trace)), SUM(CRC32(reference)) FROM bank.transfers")
}

/// Of a file it is told before anything is written; of a pipe afterwards, with what is to be done.
#[test]
fn what_is_not_whole_is_told() {
    let source = bank(Flavor::MySql);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let whole = dump(&source, &["--databases", "bank"]);
    let packed = gzip(&whole);
    let mut corrupted = packed.clone();
    let middle = packed.len() / 2;
    corrupted[middle] ^= 1;
    // Cut between two statements, where nothing but the last line tells.
    let marker = b"-- Dump completed";
    let end = whole
        .windows(marker.len())
        .rposition(|w| w == marker)
        .expect("the last line");
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    for (name, bytes, why) in [
        ("cut.sql.gz", &packed[..packed.len() * 2 / 3], "truncated"),
        ("cut-in-its-crc.sql.gz", &packed[..packed.len() - 4], "truncated"),
        ("corrupted.sql.gz", &corrupted, "gzip"),
        ("cut.sql", &whole[..whole.len() / 2], "Dump completed"),
        ("without-its-end.sql.gz", &gzip(&whole[..end]), "Dump completed"),
        ("empty.sql.gz", &[], "Dump completed"),
    ] {
        let file = write(planb.path(), name, bytes).display().to_string();
        let said = planb.fails(5, &arguments(&file, &to, &[]));
        assert!(said.contains("damaged") && said.contains(why), "{name}: {said}");
        assert_eq!(made(&target), "0", "{name}: something was written");
    }

    // A backup of PlanB without its end never goes this way, nor does a whole one through a pipe.
    let backup = std::fs::read(planb.backup(&[])).expect("a backup");
    let file = write(planb.path(), "own.sql.gz", &backup[..backup.len() - 10])
        .display()
        .to_string();
    let said = planb.fails(5, &arguments(&file, &to, &[]));
    assert!(said.contains("a PlanB backup whose end is missing"), "{said}");
    let own = write(planb.path(), "own-whole.sql.gz", &backup);
    let output = fed(&planb, &own, &arguments("-", &to, &[]));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_eq!(made(&target), "0");

    // Through a pipe.
    let cut = planb.path().join("without-its-end.sql.gz");
    let output = fed(&planb, &cut, &arguments("-", &to, &[]));
    let said = text(&output);
    assert_eq!(output.status.code(), Some(5), "{said}");
    for word in ["damaged", "bank", "--start-over", "holds a part"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let good = write(planb.path(), "good.sql.gz", &packed);
    let output = fed(&planb, &good, &arguments("-", &to, &[]));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("--start-over"), "{}", text(&output));
    // What a restore of PlanB's own says of it.
    let own = own.display().to_string();
    let said = planb.fails(3, &arguments(&own, &to, &[]));
    assert!(
        said.contains("standard input") && said.contains("--start-over"),
        "{said}"
    );
    let output = fed(&planb, &good, &arguments("-", &to, &["--start-over"]));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(transfers(&source), transfers(&target));
}

#[test]
fn killed_it_begins_anew_and_only_when_told_to() {
    for flavor in Flavor::ALL {
        let source = bank(flavor);
        let planb = Planb::empty();
        let file = write(
            planb.path(),
            "bank.sql.gz",
            &gzip(&dump(&source, &["--databases", "bank"])),
        );
        let file = file.display().to_string();
        let target = Server::start(flavor, &[]);
        let to = restorer(&target);
        let mut child = planb.spawn(&arguments(&file, &to, &[]));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !target
            .try_sql("SELECT 1 FROM bank.transfers LIMIT 1")
            .is_ok_and(|rows| !rows.is_empty())
        {
            assert!(Instant::now() < deadline, "no row was loaded");
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!(
            target.sql("SELECT phase, made FROM planb.restores").trim(),
            "data\tbank"
        );
        // The server notices a moment later that the session is gone.
        let said = loop {
            let said = planb.fails(3, &arguments(&file, &to, &[]));
            if !said.contains("another restore is running") {
                break said;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(said.contains("--start-over"), "{said}");
        let json = planb.json(&arguments(&file, &to, &["--start-over"]));
        assert_eq!(json["schemas"][0], "bank");
        assert_eq!(transfers(&source), transfers(&target));
        assert_eq!(target.sql("SELECT phase FROM planb.restores").trim(), "done");
    }
}

const TOKEN: &str = "sv=2021-12-02&sp=r&sig=s3cr3t%2Bsignature%3D";

/// Backups and dumps behind a link, over a bad line; the token shows nowhere.
#[test]
fn a_link_with_a_token() {
    let source = bank(Flavor::MySql);
    let mut planb = Planb::new(&source, &reader(&source, &[]));
    planb.env.push(("RUST_LOG".into(), "trace".into()));
    let backup = planb.backup(&[]);
    let dumped = gzip(&dump(&source, &["--databases", "bank"]));
    let server = RangeServer::start(TOKEN);
    server.put("/box/own.sql.gz", &std::fs::read(&backup).expect("a backup"));
    server.put("/box/cron.sql.gz", &dumped);
    server.put("/box/cut.sql.gz", &dumped[..dumped.len() / 2]);
    // No configuration is needed.
    std::fs::remove_file(planb.config()).expect("a configuration");
    for (name, way) in [("own", "planb"), ("cron", "foreign")] {
        let target = Server::start(Flavor::MySql, &[]);
        let to = restorer(&target);
        let url = format!("{}/box/{name}.sql.gz?{TOKEN}", server.url());
        server.misbehave(5);
        let output = planb.run(&arguments(&url, &to, &[]));
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("\"way\":\"{way}\"")), "{said}");
        assert!(said.contains("a range is asked for again"), "the line was good: {said}");
        assert!(!said.contains("s3cr3t") && !said.contains("sig="), "{said}");
        assert_eq!(server.misbehaviours_left(), 0);
        assert_eq!(transfers(&source), transfers(&target));
        let ledger = target.sql("SELECT backup FROM planb.restores");
        assert!(ledger.contains("/box/") && !ledger.contains("sig"), "{ledger}");
    }

    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    let refused = |code: i32, url: &str, word: &str| {
        let said = planb.fails(code, &arguments(url, &to, &[]));
        assert!(said.contains(word), "{word}: {said}");
        assert!(!said.contains("s3cr3t") && !said.contains("sig="), "{said}");
        said
    };
    let at = |name: &str, token: &str| format!("{}/box/{name}?{token}", server.url());
    refused(1, &at("cron.sql.gz", "sig=s3cr3t-but-wrong"), "refused the token");
    refused(1, &at("gone.sql.gz", TOKEN), "nothing at this address");
    refused(1, &format!("http://db.example/x?{TOKEN}"), "https://");
    refused(2, &format!("ftp://db.example/x?{TOKEN}"), "ftp://");
    refused(2, &format!("https://[x?{TOKEN}"), "cannot be read");
    assert_eq!(made(&target), "0");
    let said = refused(5, &at("cut.sql.gz", TOKEN), "truncated");
    assert!(said.contains("holds a part"), "{said}");

    // Replaced by another version while it is read: nothing of the two is mixed.
    server.replace_after(2, "/box/cron.sql.gz");
    let said = planb.fails(1, &arguments(&at("cron.sql.gz", TOKEN), &to, &["--start-over"]));
    assert!(said.contains("changed by somebody else"), "{said}");
}

/// What a cron script left in the store, under the prefix.
#[test]
fn a_dump_in_the_store() {
    let source = bank(Flavor::MySql);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let own = planb.backup(&[]);
    let own = own.file_name().and_then(|name| name.to_str()).expect("a name");
    write(
        &planb.store().join("backups"),
        "nightly.sql.gz",
        &gzip(&dump(&source, &["--databases", "bank"])),
    );
    for (name, way) in [("nightly.sql.gz", "foreign"), (own, "planb")] {
        let target = Server::start(Flavor::MySql, &[]);
        let to = restorer(&target);
        let name = format!("backups/{name}");
        let json = planb.json(&arguments(&name, &to, &[]));
        assert_eq!(json["way"], way, "{json}");
        assert_eq!(transfers(&source), transfers(&target));
        let said = planb.fails(2, &arguments("backups/gone.sql.gz", &to, &[]));
        assert!(said.contains("planb backups"), "{said}");
    }
}

/// To an Azure-like standby, from a server whose dump says what such a one refuses.
#[test]
fn a_standby_that_may_not_do_what_the_dump_says() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql(
        "CREATE USER app@'%'; GRANT ALL ON *.* TO app@'%'; CREATE DATABASE bank; USE bank;
         CREATE TABLE money (id INT PRIMARY KEY, n INT); INSERT INTO money VALUES (1, 2);
         CREATE TABLE old (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO old VALUES (7);
         CREATE TABLE keyless (x INT); INSERT INTO keyless VALUES (1), (1);
         CREATE DEFINER=app@'%' VIEW rich AS SELECT id FROM money WHERE n > 1;
         CREATE DEFINER=app@'%' FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN a + 1;
         CREATE DEFINER=app@'%' PROCEDURE p() SELECT 'DEFINER=`app`@`%`' AS x;
         CREATE DEFINER=app@'%' TRIGGER t BEFORE INSERT ON money FOR EACH ROW SET NEW.n = 5;
         SET GLOBAL event_scheduler = OFF;
         CREATE DEFINER=app@'%' EVENT e ON SCHEDULE EVERY 1 SECOND COMMENT ' PRESERVE ENABLE' DO DELETE FROM money;",
    );
    let planb_dir = tempfile::tempdir().expect("a directory");
    let files = tls_files(planb_dir.path());
    let mut server_args = files.server_args();
    server_args.extend(AZURE_LIKE_ARGS.iter().map(|&arg| arg.to_owned()));
    let server_args: Vec<&str> = server_args.iter().map(String::as_str).collect();
    let target = Server::start(Flavor::MySql, &server_args);
    let (admin, admin_password) = azure_like_admin(&target);
    let mut planb = Planb::empty();
    planb.env.push(("STANDBY".into(), admin_password));
    let to = format!("mysql://{admin}@127.0.0.1:{}", target.port);
    let ca = files.ca.display().to_string();
    // Every schema, the server's own included, as many a script has it.
    let everything = dump(
        &source,
        &[
            "--all-databases",
            "--routines",
            "--events",
            "--triggers",
            "--set-gtid-purged=ON",
            "--add-drop-database",
        ],
    );
    let file = write(planb.path(), "all.sql.gz", &gzip(&everything))
        .display()
        .to_string();
    let restore = [
        "--json",
        "restore",
        &file,
        "--to",
        &to,
        "--password",
        "env:STANDBY",
        "--tls-ca",
        &ca,
    ];
    let said = planb.fails(3, &restore);
    assert!(said.contains("log_bin_trust_function_creators"), "{said}");
    assert_eq!(made(&target), "0");

    target.sql("SET GLOBAL log_bin_trust_function_creators = ON");
    let json = planb.json(&restore);
    let told = format!("{} {}", json["repairs"], json["skipped"]);
    for word in [
        "engine myisam became InnoDB",
        "definer app@%",
        "view bank.rich runs with its caller's rights",
        "event bank.e runs as the account that restores",
        "GTID_PURGED",
        "SQL_LOG_BIN",
        "what is in mysql",
        "DROP DATABASE bank",
    ] {
        assert!(told.contains(word), "{word} is not told: {told}");
    }
    assert_eq!(json["schemas"].as_array().map(Vec::len), Some(1), "{json}");
    assert_eq!(json["sleeping_events"], 1);
    assert!(
        target
            .sql("SHOW CREATE VIEW bank.rich")
            .contains("SQL SECURITY INVOKER")
    );
    assert!(
        target
            .sql("SHOW CREATE FUNCTION bank.f")
            .contains("SQL SECURITY INVOKER")
    );
    let procedure = target.sql("SHOW CREATE PROCEDURE bank.p");
    assert!(
        procedure.contains("'DEFINER=`app`@`%`'"),
        "a body was changed: {procedure}"
    );
    assert!(
        target
            .sql("SHOW CREATE EVENT bank.e")
            .contains(" PRESERVE DISABLE COMMENT ' PRESERVE ENABLE'")
    );
    assert_eq!(
        target.sql("SELECT n FROM bank.money; SELECT id FROM bank.old; SELECT COUNT(*) FROM bank.keyless"),
        "2\n7\n2\n"
    );

    // A definer can be given to another account.
    target.sql("DROP DATABASE bank");
    let mapping = format!("app@%={admin}@%");
    let json = planb.json(&[restore.as_slice(), &["--definer", &mapping]].concat());
    assert!(json["repairs"].to_string().contains("became"), "{json}");
    assert!(
        target
            .sql("SHOW CREATE VIEW bank.rich")
            .contains("SQL SECURITY DEFINER")
    );
    assert!(target.sql("SHOW CREATE TRIGGER bank.t").contains(&admin));

    // A dump that says where it belongs is not sent elsewhere.
    let said = planb.fails(3, &[restore.as_slice(), &["--database", "other"]].concat());
    assert!(said.contains("leave --database out"), "{said}");
}
