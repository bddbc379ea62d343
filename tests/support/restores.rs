//! What tests restore, and how.

use std::time::{Duration, Instant};

use super::fixture;
use super::server::{Endpoint, Flavor, Server};

/// Of `tests/fixtures`, everything that a server can hold, but for what no text dump can carry and no server would take; see
/// tests/round_trip.rs.
pub fn hard_source(flavor: Flavor) -> Server {
    let source = Server::start(flavor, &[]);
    source.load_file(&fixture(match flavor {
        Flavor::MySql => "hard-mysql.sql",
        Flavor::MariaDb => "hard-mariadb.sql",
    }));
    source.sql(
        "DELETE FROM hard.json_values WHERE id = 8; DROP TABLE IF EXISTS hard.foreign_option; DROP VIEW hard.broken_view",
    );
    source
}

/// Some 45 MB of SQL in a dozen members, with keys that wait, foreign keys in a cycle and triggers.
pub fn bank(flavor: Flavor) -> Server {
    let source = Server::start(flavor, &[]);
    source.sql(
        "CREATE DATABASE bank; USE bank;
         CREATE TABLE digits (d INT PRIMARY KEY); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
         CREATE TABLE transfers (id INT PRIMARY KEY AUTO_INCREMENT, account INT NOT NULL, reference VARCHAR(200) NOT NULL, trace BINARY(16),
           KEY (account), UNIQUE KEY by_trace (trace), FULLTEXT KEY (reference));
         CREATE TABLE accounts (id INT PRIMARY KEY, owner INT, name VARCHAR(80), KEY (name));
         INSERT INTO accounts SELECT a.d + 10*b.d + 100*c.d, NULL, CONCAT('account ', a.d) FROM digits a, digits b, digits c;
         INSERT INTO transfers (account, reference, trace)
           SELECT a.d + 10*b.d + 100*c.d, CONCAT(REPEAT('reference ', 15), e.d), UNHEX(LPAD(HEX(a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d + 100000*g.d), 32, '0'))
           FROM digits a, digits b, digits c, digits e, digits f, digits g WHERE g.d < 2;
         ALTER TABLE transfers ADD CONSTRAINT of_account FOREIGN KEY (account) REFERENCES accounts (id);
         CREATE TABLE totals (id INT PRIMARY KEY, n INT) ENGINE=MyISAM; INSERT INTO totals SELECT id, id FROM accounts;
         CREATE TRIGGER counted AFTER INSERT ON transfers FOR EACH ROW UPDATE totals SET n = n + 1 WHERE id = NEW.account;
         CREATE VIEW names AS SELECT name FROM accounts;",
    );
    source
}

/// `planb restore` into that server.
pub fn arguments(to: &str) -> Vec<&str> {
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

/// Until a restore has put rows on the target.
pub fn until_a_member_is_loaded(target: &Endpoint) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !target
        .try_sql("SELECT COUNT(*) FROM planb.restored_members")
        .is_ok_and(|count| count.trim() != "0")
    {
        assert!(Instant::now() < deadline, "no member was loaded");
        std::thread::sleep(Duration::from_millis(10));
    }
}
