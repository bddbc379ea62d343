//! What a restore meets seldom, and must tell beforehand or survive: owners that nobody may have, parents that are not there,
//! names that look like statements, rows as large as they come, and a newer backup than the one that was begun.

#[allow(dead_code, reason = "tests/foreign.rs uses the rest")]
#[path = "support/range_server.rs"]
mod range_server;
mod support;

use std::time::{Duration, Instant};

use range_server::RangeServer;
use support::planb::text;
use support::restores::{arguments, bank, until_a_member_is_loaded};
use support::{Flavor, Planb, Server, assert_same, census, reader, restorer};

fn backed_up(flavor: Flavor, args: &[&str], sql: &str) -> (Server, Planb) {
    let source = Server::start(flavor, args);
    source.sql(sql);
    let planb = Planb::new(&source, &reader(&source, &[]));
    if flavor == Flavor::MySql {
        source.sql("GRANT SHOW_ROUTINE ON *.* TO reader@'%'");
    }
    planb.backup(&[]);
    (source, planb)
}

fn json(planb: &Planb, to: &str, more: &[&str]) -> serde_json::Value {
    planb.json(&[&["--json"], arguments(to).as_slice(), more].concat())
}

const OWNED: &str = "CREATE DATABASE bank; USE bank; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1);
    CREATE USER boss@'%'; CREATE USER app@'%'; CREATE DEFINER = boss@'%' VIEW v AS SELECT id FROM t;
    CREATE DEFINER = app@'%' VIEW w AS SELECT id FROM t;";

#[test]
fn an_owner_with_more_rights_than_the_restorer_is_found_beforehand() {
    let (_source, planb) = backed_up(Flavor::MySql, &[], OWNED);
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    target.sql("CREATE USER boss@'%'; CREATE USER app@'%'; GRANT SYSTEM_USER ON *.* TO boss@'%'");
    // A new owner that is not there is told before anything is written, be it as a refusal or not.
    let absent = [arguments(&to).as_slice(), &["--definer", "app@%=nobody@%"]].concat();
    let plan = planb.ok(&[absent.as_slice(), &["--plan"]].concat());
    assert!(
        plan.contains("definer app@% became nobody@%, which does not exist on the target"),
        "{plan}"
    );
    target.sql("REVOKE SUPER, SYSTEM_USER, ALLOW_NONEXISTENT_DEFINER ON *.* FROM restorer@'%'");
    let said = planb.fails(3, &absent);
    assert!(said.contains("nobody@%, which does not exist on the target"), "{said}");
    assert!(target.try_sql("SELECT 1 FROM planb.restores").is_err());
    let json = json(&planb, &to, &["--verify"]);
    let repairs = json["repairs"].to_string();
    assert!(
        repairs.contains("definer boss@% cannot be kept") && !repairs.contains("app@%"),
        "{repairs}"
    );
    assert_eq!(json["verified"]["differences"], serde_json::json!([]), "{json}");
    let owners = target.sql(
        "SELECT DEFINER, SECURITY_TYPE FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'bank' ORDER BY TABLE_NAME",
    );
    assert_eq!(owners.trim(), "restorer@%\tINVOKER\napp@%\tDEFINER");
}

#[test]
fn an_owner_that_is_a_role_is_kept_where_the_role_is() {
    let (_source, planb) = backed_up(
        Flavor::MariaDb,
        &[],
        "CREATE DATABASE bank; USE bank; CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1); CREATE ROLE teller;
         CREATE DEFINER = teller PROCEDURE p() SELECT 1;",
    );
    for (role, owner) in [("CREATE ROLE teller", "teller"), ("SELECT 1", "restorer@%")] {
        let target = Server::start(Flavor::MariaDb, &[]);
        let to = restorer(&target);
        target.sql(role);
        let json = json(&planb, &to, &["--verify"]);
        assert_eq!(json["verified"]["differences"], serde_json::json!([]), "{json}");
        let is = target.sql("SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'bank'");
        assert_eq!(is.trim().trim_end_matches('@'), owner, "{json}");
    }
}

#[test]
fn a_parent_that_is_not_in_the_backup_is_told() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql(
        "CREATE DATABASE elsewhere; CREATE TABLE elsewhere.p (id INT PRIMARY KEY); INSERT INTO elsewhere.p VALUES (1);
         CREATE DATABASE bank; CREATE TABLE bank.c (id INT PRIMARY KEY, p INT, CONSTRAINT of_p FOREIGN KEY (p) REFERENCES elsewhere.p (id));
         INSERT INTO bank.c VALUES (1, 1)",
    );
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.reconfigure("tls = \"off\"", "tls = \"off\"\ndatabases = [\"bank\"]");
    planb.backup(&[]);
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    let json = json(&planb, &to, &["--verify"]);
    assert!(
        json["repairs"]
            .to_string()
            .contains("refers to elsewhere.p, which is not in the backup"),
        "{json}"
    );
    assert_eq!(json["verified"]["differences"], serde_json::json!([]), "{json}");
}

#[test]
fn events_are_not_enabled_beside_a_restore() {
    let (_source, planb) = backed_up(
        Flavor::MySql,
        &[],
        "CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); CREATE EVENT bank.e ON SCHEDULE EVERY 1 DAY DO SET @x = 1",
    );
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    json(&planb, &to, &[]);
    let enable = [arguments(&to).as_slice(), &["--enable-events"]].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| target.try_sql("SELECT GET_LOCK('planb_restore', 0); SELECT SLEEP(600)"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let holder = loop {
            let holder = target.sql("SELECT COALESCE(IS_USED_LOCK('planb_restore'), 0)");
            if holder.trim() != "0" {
                break holder;
            }
            assert!(Instant::now() < deadline, "nobody took the lock");
        };
        let said = planb.fails(3, &enable);
        assert!(said.contains("another restore is running"), "{said}");
        target.sql(&format!("KILL {}", holder.trim()));
    });
    assert!(planb.ok(&enable).contains("1 events enabled"));
}

/// The same command goes on, says that there is a newer one, and how to take that.
#[test]
fn what_was_begun_is_gone_on_with_though_there_is_a_newer_one() {
    let source = bank(Flavor::MySql);
    let planb = Planb::new(&source, &reader(&source, &[]));
    let id = |path: std::path::PathBuf| {
        path.file_name()
            .expect("a name")
            .to_string_lossy()
            .replace(".sql.gz", "")
    };
    let begun = id(planb.backup(&[]));
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    for start_over in [false, true] {
        let mut child = planb.spawn(&arguments(&to));
        until_a_member_is_loaded(&target);
        child.kill().expect("killed");
        child.wait().expect("ended");
        source.sql("INSERT INTO bank.digits VALUES (10)");
        let newest = id(planb.backup(&[]));
        let mut again = [&["--json"], arguments(&to).as_slice()].concat();
        if start_over {
            again.push("--start-over");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        let said = loop {
            let output = planb.run(&again);
            let said = text(&output);
            if output.status.success() {
                break said;
            }
            assert!(
                said.contains("another restore is running") && Instant::now() < deadline,
                "{said}"
            );
        };
        let expected = if start_over { &newest } else { &begun };
        assert!(said.contains(&format!("\"backup\":\"{expected}\"")), "{said}");
        assert_eq!(
            said.contains("NOT THE NEWEST") && said.contains(&newest) && said.contains("--start-over"),
            !start_over,
            "{said}"
        );
        let rows = target.sql("SELECT COUNT(*) FROM bank.digits");
        assert_eq!(rows.trim(), if start_over { "11" } else { "10" });
        target.sql("DROP DATABASE bank; DROP DATABASE planb");
        source.sql("DELETE FROM bank.digits WHERE d = 10");
        if !start_over {
            // The next round begins with the newest again, which holds ten digits.
            planb.backup(&[]);
        }
    }
}

/// A token in a link is a secret, and a command line is none.
#[test]
fn a_link_with_a_token_is_named_and_not_written() {
    let (_source, mut planb) = backed_up(
        Flavor::MySql,
        &[],
        "CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1), (2)",
    );
    let name = &planb.visible()[0];
    let file = planb.store().join("backups").join(format!("{name}.sql.gz"));
    let server = RangeServer::start("sv=1&sig=t0p-secret");
    server.put("/box/backup.sql.gz", &std::fs::read(file).expect("a backup"));
    let link = format!("{}/box/backup.sql.gz?sv=1&sig=t0p-secret", server.url());
    let kept = planb.path().join("link");
    std::fs::write(&kept, format!("{link}\n")).expect("written");
    std::fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("private");
    planb.env.push(("LINK".into(), link));
    planb.env.push(("NO_LINK".into(), "t0p-secret".into()));
    let target = Server::start(Flavor::MySql, &[]);
    let to = restorer(&target);
    for reference in ["env:LINK".to_owned(), format!("file:{}", kept.display())] {
        let mut args = arguments(&to);
        args.insert(1, &reference);
        let output = planb.run(&args);
        let said = text(&output);
        assert!(output.status.success() && !said.contains("t0p-secret"), "{said}");
        assert_eq!(target.sql("SELECT COUNT(*) FROM bank.t").trim(), "2");
        target.sql("DROP DATABASE bank");
    }
    for (reference, exit) in [("env:NO_LINK", 2), ("env:NOBODY", 1)] {
        let mut args = arguments(&to);
        args.insert(1, reference);
        let said = planb.fails(exit, &args);
        assert!(!said.contains("t0p-secret") && said.contains(reference), "{said}");
    }
}

#[test]
fn a_row_of_sixty_megabytes_and_a_name_that_says_values_come_back() {
    for flavor in Flavor::ALL {
        let redo = match flavor {
            Flavor::MySql => "--innodb-redo-log-capacity=1G",
            Flavor::MariaDb => "--innodb-log-file-size=1G",
        };
        let large = ["--max-allowed-packet=1G", redo];
        let source = Server::start(flavor, &large);
        source.sql(
            "SET GLOBAL max_allowed_packet = 1073741824; CREATE DATABASE big; CREATE TABLE big.t (id INT PRIMARY KEY, b LONGBLOB);
             CREATE TABLE big.`x VALUES\n(` (`a VALUES\nb` INT PRIMARY KEY, v VARCHAR(200));
             INSERT INTO big.`x VALUES\n(` SELECT a.n + 10 * b.n + 100 * c.n, REPEAT('v', 190) FROM
               (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7) a,
               (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7) b,
               (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7) c;",
        );
        source
            .sql("INSERT INTO big.t VALUES (1, 'small'), (2, REPEAT(UNHEX('00275C0A41FE80'), 8600000)), (3, 'after')");
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.backup(&[]);
        let target = Server::start(flavor, &large);
        target.sql("SET GLOBAL max_allowed_packet = 1073741824");
        let to = restorer(&target);
        let json = json(&planb, &to, &["--verify"]);
        assert_eq!(json["verified"]["differences"], serde_json::json!([]), "{json}");
        assert_eq!(
            target.sql("SELECT LENGTH(b) FROM big.t WHERE id = 2").trim(),
            "60200000"
        );
        assert_same(&census(&source, &["big"]), &census(&target, &["big"]));
        println!(
            "{}: peak memory {} MiB",
            flavor.name(),
            json["peak_memory_bytes"].as_u64().unwrap_or(0) >> 20
        );
    }
}
