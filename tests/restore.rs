//! `planb restore`: what was dumped comes back whole, on servers that are alike and on servers that are not.

mod support;

use support::planb::PASSWORD;
use support::{Endpoint, Flavor, Planb, Server, assert_same, census, fixture, reader};

const HARD: [&str; 3] = ["hard", "hard 데이터 \"q'`b", "hard_empty"];

fn hard_source(flavor: Flavor) -> Server {
    let source = Server::start(flavor, &[]);
    source.load_file(&fixture(match flavor {
        Flavor::MySql => "hard-mysql.sql",
        Flavor::MariaDb => "hard-mariadb.sql",
    }));
    // What no text dump can carry, and what no server would take; see tests/round_trip.rs.
    source.sql("DELETE FROM hard.json_values WHERE id = 8; DROP TABLE IF EXISTS hard.foreign_option; DROP VIEW hard.broken_view");
    source
}

/// An account on the target that may do everything.
fn restorer(target: &Endpoint) -> String {
    target.sql(&format!(
        "CREATE USER restorer@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO restorer@'%' WITH GRANT OPTION"
    ));
    format!("mysql://restorer@127.0.0.1:{}", target.port)
}

fn arguments(to: &str) -> Vec<&str> {
    vec![
        "restore",
        "--to",
        to,
        "--password",
        "env:PLANB_SOURCE_PASSWORD",
        "--tls",
        "off",
    ]
}

/// Two censuses must agree but for what arrives disabled.
fn asleep(census: std::collections::BTreeMap<String, String>) -> std::collections::BTreeMap<String, String> {
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

fn round_trip(flavor: Flavor) {
    let source = hard_source(flavor);
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.backup(&[]);
    let target = Server::start(flavor, &[]);
    let to = restorer(&target);
    let json = planb.json(&[&["--json"], arguments(&to).as_slice()].concat());
    assert!(json["rows"].as_u64().is_some_and(|rows| rows > 10_000), "{json}");
    let there = census(&target, &HARD);
    assert_same(&asleep(census(&source, &HARD)), &there);

    // The events are woken once, and then are as they were.
    let mut wake = arguments(&to);
    wake.push("--enable-events");
    assert!(planb.json(&[&["--json"], wake.as_slice()].concat())["enabled_events"].as_u64() >= Some(1));
    assert_same(&census(&source, &HARD), &census(&target, &HARD));
    assert_eq!(
        planb.json(&[&["--json"], wake.as_slice()].concat())["enabled_events"],
        0
    );

    // A second restore over it is refused, and the server itself too.
    let said = planb.fails(3, &arguments(&to));
    assert!(said.contains("already holds"), "{said}");
    source.sql(&format!("GRANT ALL ON *.* TO reader@'%'"));
    let itself = format!("mysql://reader@localhost:{}", source.port);
    let said = planb.fails(3, &arguments(&itself));
    assert!(said.contains("the very server"), "{said}");
}

#[test]
fn a_mysql_comes_back_whole() {
    round_trip(Flavor::MySql);
}

#[test]
fn a_mariadb_comes_back_whole() {
    round_trip(Flavor::MariaDb);
}
