//! `planb restore --replace`: what is there is replaced as a whole or not at all, and comes back as it was.

mod support;

use std::collections::BTreeMap;

use support::planb::PASSWORD;
use support::{Endpoint, Flavor, Planb, Server, assert_same, census, fixture, reader};

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
