//! `planb restore --replace`: what is there is replaced as a whole or not at all, and comes back as it was.

mod support;

use std::collections::BTreeMap;

use support::planb::PASSWORD;
use support::{Cut, Endpoint, Flavor, Planb, Server, When, assert_same, census, fixture, reader};

const HARD: [&str; 3] = ["hard", "hard 데이터 \"q'`b", "hard_empty"];

type Census = BTreeMap<String, String>;

/// An account on the target that may do everything.
fn restorer(target: &Endpoint) -> String {
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO restorer@'%' WITH GRANT OPTION"
    ));
    format!("mysql://restorer@127.0.0.1:{}", target.port)
}

fn arguments<'a>(to: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let place = [
        "restore",
        "--to",
        to,
        "--password",
        "env:PLANB_SOURCE_PASSWORD",
        "--tls",
        "off",
    ];
    [&["--json"], &place[..], more].concat()
}

/// A census but for what arrives disabled.
fn asleep(census: Census) -> Census {
    let asleep = |(key, value): (String, String)| {
        let value = if key.starts_with("event ") {
            value.replace(" PRESERVE ENABLE", " PRESERVE DISABLE")
        } else {
            value
        };
        (key, value)
    };
    census.into_iter().map(asleep).collect()
}

/// Tables of a census, with the schema's name taken for another: `planb_old_bank` for `bank`.
fn tables(census: &Census, schema: &str, called: &str) -> Census {
    let prefix = format!("table {schema}.");
    census
        .iter()
        .filter_map(|(key, value)| {
            let rest = key.strip_prefix(&prefix)?;
            let value = value
                .replace(&format!("`planb_old_{called}`"), &format!("`{called}`"))
                .replace("`planb_old_hard", "`hard");
            Some((format!("table {called}.{rest}"), value))
        })
        .collect()
}

fn load_hard(server: &Server) {
    server.load_file(&fixture(match server.flavor {
        Flavor::MySql => "hard-mysql.sql",
        Flavor::MariaDb => "hard-mariadb.sql",
    }));
}

/// What stands on the target before: the same hard schemas, changed, with more in them and something missing.
fn other_content(target: &Server) {
    load_hard(target);
    target.sql(
        "SET foreign_key_checks = 0;
         DELETE FROM hard.ints; INSERT INTO hard.zz_parent VALUES (4711); DROP TABLE hard.tree;
         DROP VIEW hard.broken_view;
         CREATE TABLE hard.only_here (id INT PRIMARY KEY, z INT, CONSTRAINT here_only FOREIGN KEY (z) REFERENCES hard.zz_parent (id));
         INSERT INTO hard.only_here VALUES (1, 4711);
         CREATE VIEW hard.v_only_here AS SELECT * FROM hard.only_here;
         CREATE PROCEDURE hard.p_only_here() SELECT 1;
         CREATE TRIGGER hard.t_only_here BEFORE INSERT ON hard.only_here FOR EACH ROW SET @x = 1;
         CREATE EVENT hard.e_only_here ON SCHEDULE EVERY 1 DAY STARTS '2037-06-01 03:00:00' DO SET @x = 1;
         CREATE TABLE hard_empty.not_empty_here (id INT PRIMARY KEY); INSERT INTO hard_empty.not_empty_here VALUES (1);
         ALTER DATABASE hard_empty CHARACTER SET utf8mb4;
         CREATE DATABASE bystander; CREATE TABLE bystander.t (id INT PRIMARY KEY); INSERT INTO bystander.t VALUES (1);
         CREATE VIEW bystander.v AS SELECT id FROM hard.ints",
    );
}

fn schemas_like(target: &Endpoint, pattern: &str) -> String {
    let sql =
        format!("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '{pattern}' ORDER BY 1");
    target.sql(&sql).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The hard schemas over others, there, back, and there for good.
fn hard_over_hard(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    load_hard(&source);
    // What no text dump can carry, and what no server would take; see tests/round_trip.rs.
    source.sql("DELETE FROM hard.json_values WHERE id = 8; DROP TABLE IF EXISTS hard.foreign_option; DROP VIEW hard.broken_view");
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.backup(&[]);
    let target = Server::start(flavor, &[]);
    other_content(&target);
    let to = restorer(&target);
    let before = census(&target, &HARD);
    let wanted = asleep(census(&source, &HARD));

    let said = planb.fails(3, &arguments(&to, &[]));
    assert!(
        said.contains("already holds hard") && said.contains("--replace"),
        "{said}"
    );
    let plan = planb.json(&arguments(&to, &["--replace", "--plan"]));
    assert_eq!(plan["replaces"]["schemas"].as_array().map(Vec::len), Some(3), "{plan}");
    assert!(plan["replaces"]["needed_bytes"].as_u64() > Some(0), "{plan}");
    assert_eq!(schemas_like(&target, "planb%"), "", "a plan writes nothing");

    let done = planb.json(&arguments(&to, &["--replace", "--verify"]));
    assert_eq!(done["kept"].as_array().map(Vec::len), Some(3), "{done}");
    assert_same(&wanted, &census(&target, &HARD));
    for schema in HARD {
        let old = format!("planb_old_{schema}");
        let kept = census(&target, &[&old]);
        assert_same(&tables(&before, schema, schema), &tables(&kept, &old, schema));
    }
    assert_eq!(schemas_like(&target, "planb_new%"), "");
    assert_eq!(target.sql("SELECT id FROM bystander.t").trim(), "1");
    // Neither is in a dump, nor in the way of anything but another replace.
    let said = planb.fails(3, &arguments(&to, &["--replace"]));
    assert!(said.contains("planb_old_hard") && said.contains("--drop-old"), "{said}");

    // Finished, it still can be taken back; what it had made stays aside.
    let back = planb.json(&arguments(&to, &["--roll-back"]));
    assert_eq!(back["missing"].as_array().map(Vec::len), Some(0), "{back}");
    assert_same(&before, &census(&target, &HARD));
    assert!(schemas_like(&target, "planb%").contains("planb_new_hard"));
    let said = planb.fails(3, &arguments(&to, &["--replace"]));
    assert!(said.contains("planb_new_hard") && said.contains("--drop-old"), "{said}");
    planb.ok(&arguments(&to, &["--drop-old"]));
    assert_eq!(schemas_like(&target, "planb%"), "planb");
    planb.fails(3, &arguments(&to, &["--drop-old"]));
    planb.fails(3, &arguments(&to, &["--roll-back"]));
    assert_same(&before, &census(&target, &HARD));

    planb.ok(&arguments(&to, &["--replace", "--verify"]));
    planb.ok(&arguments(&to, &["--drop-old"]));
    assert_same(&wanted, &census(&target, &HARD));
    assert_eq!(schemas_like(&target, "planb%"), "planb");
    let left = "SELECT (SELECT COUNT(*) FROM planb.kept_schemas) + (SELECT COUNT(*) FROM planb.kept_definitions) + \
                (SELECT COUNT(*) FROM planb.loaded_tables)";
    assert_eq!(target.sql(left).trim(), "0");
}

#[test]
fn a_mysql_is_replaced_and_comes_back() {
    hard_over_hard(Flavor::MySql);
}

#[test]
fn a_mariadb_is_replaced_and_comes_back() {
    hard_over_hard(Flavor::MariaDb);
}

const BANK: [&str; 2] = ["bank", "shop"];

/// Two schemas with everything in them that a swap has to do with, small.
fn bank(server: &Server, number: u32) {
    server.sql(&format!(
        "CREATE DATABASE bank CHARACTER SET {charset}; CREATE DATABASE shop; CREATE USER IF NOT EXISTS owner{number}@'%'; GRANT ALL ON *.* TO owner{number}@'%';
         USE bank;
         CREATE TABLE p (id INT PRIMARY KEY, n INT); INSERT INTO p VALUES ({number}, 1), (100, 2);
         CREATE TABLE c (id INT PRIMARY KEY AUTO_INCREMENT, p INT, t VARCHAR(80), FULLTEXT KEY words (t), CONSTRAINT of_p FOREIGN KEY (p) REFERENCES p (id))
           AUTO_INCREMENT = {number}00;
         INSERT INTO c (p, t) VALUES ({number}, 'some words'), (100, 'more words');
         CREATE TABLE only_{number} (id INT PRIMARY KEY) ENGINE=MyISAM; INSERT INTO only_{number} VALUES ({number});
         CREATE TABLE shop.s (id INT PRIMARY KEY, c INT, CONSTRAINT of_c FOREIGN KEY (c) REFERENCES bank.c (id));
         INSERT INTO shop.s VALUES (1, {number}00);
         CREATE DEFINER=owner{number}@'%' FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x * {number};
         CREATE PROCEDURE only_p_{number}() SELECT {number};
         CREATE DEFINER=owner{number}@'%' VIEW v AS SELECT id, f(n) AS n FROM p;
         CREATE VIEW shop.a AS SELECT n FROM bank.v; CREATE VIEW only_v_{number} AS SELECT n FROM shop.a;
         CREATE TRIGGER z_first BEFORE INSERT ON c FOR EACH ROW SET NEW.t = CONCAT(NEW.t, {number});
         CREATE DEFINER=owner{number}@'%' TRIGGER a_second BEFORE INSERT ON c FOR EACH ROW FOLLOWS z_first SET NEW.t = UPPER(NEW.t);
         SET sql_mode = 'ANSI_QUOTES'; CREATE TRIGGER shop.t BEFORE INSERT ON shop.s FOR EACH ROW SET @\"x\" = {number};
         SET sql_mode = DEFAULT;
         CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-06-01 03:00:00' DO SET @x = {number};
         CREATE EVENT off_{number} ON SCHEDULE EVERY 1 DAY STARTS '2037-06-01 03:00:00' DISABLE DO SET @x = 1;",
        charset = if number == 1 { "latin1" } else { "utf8mb4" },
    ));
}

/// The seed of a run; `PLANB_SEED` repeats one.
fn dice() -> impl FnMut() -> usize {
    let mut state: usize = std::env::var("PLANB_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| std::process::id() as usize * 7_919 + 1);
    println!("PLANB_SEED={state}");
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

/// A target with old content and a backup of other content to replace it with.
struct Stage {
    _source: Server,
    target: Server,
    planb: Planb,
    to: String,
    before: Census,
    wanted: Census,
}

impl Stage {
    fn set(flavor: Flavor) -> Self {
        let source = Server::start(flavor, &[]);
        bank(&source, 2);
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.backup(&[]);
        let target = Server::start(flavor, &[]);
        bank(&target, 1);
        target.sql("CREATE USER owner2@'%'; GRANT ALL ON *.* TO owner2@'%'");
        let to = restorer(&target);
        Self {
            before: census(&target, &BANK),
            wanted: asleep(census(&source, &BANK)),
            _source: source,
            target,
            planb,
            to,
        }
    }

    /// Runs planb through a way that ends somewhere; kills it there. Returns whether it did end, and what was sent.
    fn cut(&self, more: &[&str], from: &'static str, when: When) -> (bool, Vec<String>) {
        let way = Cut::to(self.target.port, from, when);
        let through = self.to.replace(&self.target.port.to_string(), &way.port.to_string());
        let mut child = self.planb.spawn(&arguments(&through, more));
        let is_cut = loop {
            if way.is_cut_within(std::time::Duration::from_millis(20)) {
                child.kill().expect("killed");
                child.wait().expect("ended");
                break true;
            }
            if child.try_wait().expect("a child").is_some() {
                let output = child.wait_with_output().expect("output");
                assert!(output.status.success(), "{}", support::planb::text(&output));
                break false;
            }
        };
        (is_cut, way.seen())
    }

    /// Runs planb to its end. The server notices a moment later that a killed one is gone.
    fn ok(&self, more: &[&str]) -> serde_json::Value {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let output = self.planb.run(&arguments(&self.to, more));
            let said = support::planb::text(&output);
            if output.status.code() == Some(3) && said.contains("another restore is running") {
                assert!(std::time::Instant::now() < deadline, "{said}");
                continue;
            }
            assert!(output.status.success(), "{more:?}: {said}");
            let line = String::from_utf8_lossy(&output.stdout).into_owned();
            return serde_json::from_str(line.lines().last().unwrap_or_default()).expect("JSON");
        }
    }

    fn assert_replaced(&self, at: &str) {
        let report = support::census::differences(&self.wanted, &census(&self.target, &BANK));
        assert!(report.is_empty(), "{at}: not the backup:\n{report}");
        for schema in BANK {
            let old = format!("planb_old_{schema}");
            let kept: Census = tables(&census(&self.target, &[&old]), &old, schema)
                .into_iter()
                .map(|(key, value)| (key, value.replace("`planb_old_", "`")))
                .collect();
            let report = support::census::differences(&tables(&self.before, schema, schema), &kept);
            assert!(report.is_empty(), "{at}: not kept:\n{report}");
        }
    }

    fn assert_as_before(&self, at: &str) {
        let report = support::census::differences(&self.before, &census(&self.target, &BANK));
        assert!(report.is_empty(), "{at}: not as before:\n{report}");
    }

    /// Nothing but the bookkeeping stands, and the old is as it was.
    fn assert_clean(&self, at: &str) {
        self.assert_as_before(at);
        assert_eq!(schemas_like(&self.target, "planb%"), "planb", "{at}");
    }
}

/// Which statements to be killed at: all of them in a soak, else some.
fn places(total: usize, dice: &mut impl FnMut() -> usize) -> Vec<usize> {
    let step = if std::env::var_os("PLANB_SOAK_SWAPS").is_some() {
        1
    } else {
        total / 8 + 1
    };
    (1 + dice() % step..=total).step_by(step).collect()
}

const SWAP: &str = "SET phase = 'swap'";
const BACK: &str = "'rolling back'";

/// Killed before or after any statement from the beginning of the swap to the end, it goes on, and it goes back.
fn killed_at_statements(flavor: Flavor) {
    let mut dice = dice();
    let stage = Stage::set(flavor);
    let (_, statements) = stage.cut(&["--replace"], SWAP, When::Never);
    stage.assert_replaced("undisturbed");
    let renames = statements.iter().filter(|sql| sql.starts_with("RENAME TABLE")).count();
    assert_eq!(renames, 1, "one statement moves every table");
    stage.ok(&["--roll-back"]);
    stage.ok(&["--drop-old"]);
    stage.assert_clean("taken back");
    let chosen = places(statements.len(), &mut dice);
    println!("{}: {} of {} statements", flavor.name(), chosen.len(), statements.len());
    for number in chosen {
        for (goes_on, when) in [(true, When::Before(number)), (false, When::After(number))] {
            // Half of the four combinations at each, the other half at the next.
            let goes_on = goes_on ^ (number % 2 == 0);
            let (is_cut, seen) = stage.cut(&["--replace"], SWAP, when.clone());
            let at = format!("{} {when:?} {:?}", flavor.name(), seen.last());
            if goes_on {
                // Killed after its last word, it is done.
                let is_done = !is_cut
                    || stage
                        .target
                        .sql("SELECT COUNT(*) FROM planb.restores WHERE phase <> 'done'")
                        .trim()
                        == "0";
                if !is_done {
                    stage.ok(&["--replace"]);
                }
                stage.assert_replaced(&at);
                stage.ok(&["--roll-back"]);
                stage.ok(&["--drop-old"]);
            } else {
                let back = stage.ok(&["--roll-back"]);
                assert_eq!(back["missing"].to_string(), "[]", "{at}");
                if back["aside"].to_string() != "[]" {
                    stage.ok(&["--drop-old"]);
                }
            }
            stage.assert_clean(&at);
        }
    }
}

#[test]
fn killed_at_any_statement_a_mysql_goes_on_and_goes_back() {
    killed_at_statements(Flavor::MySql);
}

#[test]
fn killed_at_any_statement_a_mariadb_goes_on_and_goes_back() {
    killed_at_statements(Flavor::MariaDb);
}

/// Killed while it is taken back, finished or not, it is taken back by the same command.
#[test]
fn a_roll_back_is_killed_at_any_statement() {
    let mut dice = dice();
    for flavor in Flavor::ALL {
        let stage = Stage::set(flavor);
        stage.ok(&["--replace"]);
        let (_, statements) = stage.cut(&["--roll-back"], BACK, When::Never);
        stage.ok(&["--drop-old"]);
        stage.assert_clean("undisturbed");
        for number in places(statements.len(), &mut dice) {
            // From a finished one, and from one killed before its routines are made.
            let is_finished = number % 2 == 0;
            if is_finished {
                stage.ok(&["--replace"]);
            } else {
                stage.cut(&["--replace"], "RENAME TABLE", When::After(3));
            }
            let when = if dice() % 2 == 0 {
                When::Before(number)
            } else {
                When::After(number)
            };
            let (is_cut, seen) = stage.cut(&["--roll-back"], BACK, when.clone());
            let at = format!("{} {when:?} finished {is_finished} {:?}", flavor.name(), seen.last());
            let left = stage
                .target
                .sql("SELECT COUNT(*) FROM planb.restores WHERE phase = 'rolling back'");
            if is_cut && left.trim() == "1" {
                // Forward is closed by now.
                let said = stage.planb.run(&arguments(&stage.to, &["--replace"]));
                assert_eq!(said.status.code(), Some(3), "{at}");
                stage.ok(&["--roll-back"]);
            }
            stage.assert_as_before(&at);
            if is_finished {
                assert!(
                    schemas_like(&stage.target, "planb%").contains("planb_new_bank"),
                    "{at}: dropped"
                );
                stage.ok(&["--drop-old"]);
            }
            stage.assert_clean(&at);
        }
    }
}

/// A server that is killed may leave some tables renamed and others not, where they are not InnoDB's: any such state is
/// gone on with, and taken back.
#[test]
fn a_half_done_rename_is_understood() {
    let mut dice = dice();
    for flavor in Flavor::ALL {
        let stage = Stage::set(flavor);
        let mut pairs = usize::MAX;
        let mut done = 1;
        while done < pairs {
            let (is_cut, seen) = stage.cut(&["--replace"], SWAP, When::BeforeThat("RENAME TABLE"));
            assert!(is_cut);
            let rename = seen.last().expect("the statement").clone();
            let parts: Vec<&str> = rename["RENAME TABLE ".len()..].split(", ").collect();
            pairs = parts.len();
            stage.target.sql(&format!("RENAME TABLE {}", parts[..done].join(", ")));
            let at = format!("{} {done} of {pairs}", flavor.name());
            if done % 2 == 0 {
                stage.ok(&["--replace"]);
                stage.assert_replaced(&at);
                stage.ok(&["--roll-back"]);
                stage.ok(&["--drop-old"]);
            } else {
                stage.ok(&["--roll-back"]);
            }
            stage.assert_clean(&at);
            done += 1 + dice() % 3;
        }
    }
}

/// A small target and a small backup for one question.
fn small(flavor: Flavor, old: &str, new: &str) -> (Server, Server, Planb, String) {
    let source = Server::start(flavor, &[]);
    source.sql(new);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.backup(&[]);
    let target = Server::start(flavor, &[]);
    target.sql(old);
    let to = restorer(&target);
    (source, target, planb, to)
}

#[test]
fn what_stands_against_a_replace_is_told_before_anything_is_written() {
    let long = "l".repeat(55);
    let (_source, target, planb, to) = small(
        Flavor::MySql,
        "CREATE DATABASE bank; CREATE DATABASE other; CREATE TABLE bank.t (id INT PRIMARY KEY);
         CREATE TABLE other.c (id INT PRIMARY KEY, t INT, CONSTRAINT inwards FOREIGN KEY (t) REFERENCES bank.t (id));
         CREATE DATABASE planb_old_bank; CREATE TABLE planb_old_bank.precious (id INT)",
        &format!(
            "CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (7); CREATE DATABASE {long}"
        ),
    );
    let said = planb.fails(3, &arguments(&to, &["--replace"]));
    for problem in ["other.c (inwards", "54 leave room", "planb_old_bank"] {
        assert!(said.contains(problem), "{problem} is not told: {said}");
    }
    assert_eq!(schemas_like(&target, "planb"), "", "nothing was written");
    target.sql("SELECT * FROM planb_old_bank.precious");
    // Of a dump that cannot be compared, nothing is replaced.
    let plain = planb.path().join("plain.sql");
    std::fs::write(&plain, "CREATE DATABASE bank;\n-- Dump completed\n").expect("a file");
    let file = plain.display().to_string();
    planb.fails(2, &arguments(&to, &["--replace", &file]));
}

/// Unfinished, it goes on as it was begun; `--start-over` puts back what was there, and begins anew.
#[test]
fn begun_one_way_it_goes_on_that_way() {
    let stage = Stage::set(Flavor::MySql);
    stage.cut(&["--replace"], "RENAME TABLE", When::After(2));
    let said = stage.planb.run(&arguments(&stage.to, &[]));
    let said = support::planb::text(&said);
    assert!(
        said.contains("--roll-back") || said.contains("another restore"),
        "{said}"
    );
    stage.ok(&["--replace", "--start-over"]);
    stage.assert_replaced("begun anew");
    stage.ok(&["--roll-back"]);
    stage.ok(&["--drop-old"]);
    stage.assert_clean("taken back");
    // Killed while it loads, nothing of the old was touched.
    stage.cut(&["--replace"], "SET phase = 'data'", When::After(5));
    stage.assert_as_before("while loading");
    let said = stage.planb.run(&arguments(&stage.to, &["--drop-old"]));
    assert_eq!(said.status.code(), Some(3), "{}", support::planb::text(&said));
    stage.ok(&["--roll-back"]);
    stage.assert_clean("thrown away");
}

/// What was loaded differs from the backup: the old stays as it is.
#[test]
fn what_differs_is_not_put_in_place() {
    let stage = Stage::set(Flavor::MariaDb);
    stage.cut(&["--replace"], "SET phase = 'check'", When::Before(1));
    stage.target.sql("UPDATE planb_new_bank.p SET n = n + 1 WHERE id = 100");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let said = loop {
        let output = stage.planb.run(&arguments(&stage.to, &["--replace"]));
        let said = support::planb::text(&output);
        if !said.contains("another restore is running") {
            assert_eq!(output.status.code(), Some(4), "{said}");
            break said;
        }
        assert!(std::time::Instant::now() < deadline, "{said}");
    };
    assert!(
        said.contains("bank.p") && said.contains("nothing of what was there is touched"),
        "{said}"
    );
    stage.assert_as_before("compared");
    stage.ok(&["--roll-back"]);
    stage.assert_clean("thrown away");
}

/// Who reads a table while old and new change places finds one of them, always.
#[test]
fn a_reader_finds_the_old_or_the_new() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    for flavor in Flavor::ALL {
        let stage = Stage::set(flavor);
        let mut client = stage.target.client();
        let mut client = client
            .args(["-N", "-B", "--force", "--unbuffered"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .expect("a client");
        let mut stdin = client.stdin.take().expect("its input");
        let done = AtomicBool::new(false);
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if stdin.write_all(b"SELECT MIN(id) FROM bank.p;\n").is_err() {
                        break;
                    }
                }
                drop(stdin);
            });
            let read = scope.spawn(|| client.wait_with_output().expect("output"));
            stage.ok(&["--replace"]);
            done.store(true, Ordering::Relaxed);
            read.join().expect("read")
        });
        // A statement may lose against the swap (1213, to be tried again), and never finds a table missing.
        let errors = String::from_utf8_lossy(&output.stderr);
        let mut errors = errors.lines().filter(|line| line.contains("ERROR"));
        assert!(
            errors.all(|line| line.contains("ERROR 1213")),
            "{}: {output:?}",
            flavor.name()
        );
        let rows = String::from_utf8_lossy(&output.stdout);
        let rows: Vec<&str> = rows.lines().collect();
        let turn = rows.iter().position(|row| *row == "2").expect("the new was read");
        assert!(
            turn > 0 && rows[..turn].iter().all(|row| *row == "1"),
            "the old was read first"
        );
        assert!(rows[turn..].iter().all(|row| *row == "2"), "and never again");
        println!("{}: {} reads", flavor.name(), rows.len());
    }
}

/// A transaction that uses a table keeps the swap waiting, not failing.
#[test]
fn a_swap_waits_for_who_uses_a_table() {
    let stage = Stage::set(Flavor::MySql);
    let mut user = stage.target.client();
    let script = "START TRANSACTION; SELECT * FROM bank.p; SELECT 'there'; DO SLEEP(13); COMMIT";
    let mut user = user
        .args(["-N", "-B", "--unbuffered", "-e", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a client");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(user.stdout.take().expect("output")));
    assert!(lines.any(|line| line.is_ok_and(|line| line == "there")));
    let output = stage.planb.run(&arguments(&stage.to, &["--replace"]));
    let said = support::planb::text(&output);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("in use") && said.contains("root@"),
        "who it is waits for is not told: {said}"
    );
    user.wait().expect("ended");
    stage.assert_replaced("after the wait");
}

/// Killed by the clock, not by the statement.
#[test]
fn killed_at_random_moments_it_goes_on_or_back() {
    let mut dice = dice();
    for flavor in Flavor::ALL {
        let stage = Stage::set(flavor);
        for round in 0..3 {
            let mut child = stage.planb.spawn(&arguments(&stage.to, &["--replace"]));
            std::thread::sleep(std::time::Duration::from_millis(200 + dice() as u64 % 1_500));
            child.kill().expect("killed");
            child.wait().expect("ended");
            let at = format!("{} round {round}", flavor.name());
            let phase = stage
                .target
                .try_sql("SELECT phase FROM planb.restores")
                .unwrap_or_default();
            println!("{at}: killed in phase {:?}", phase.trim());
            if phase.trim().is_empty() {
                continue;
            }
            if phase.trim() != "done" && dice() % 2 == 0 {
                stage.ok(&["--replace"]);
                stage.assert_replaced(&at);
            }
            let back = stage.ok(&["--roll-back"]);
            if back["aside"].to_string() != "[]" {
                stage.ok(&["--drop-old"]);
            }
            stage.assert_clean(&at);
        }
    }
}
