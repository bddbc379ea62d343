//! What `planb restore --verify` and `planb verify --restore-to` compare: whatever somebody alters on the server after a restore
//! is seen. That nothing is called different which is not, is in tests/restore.rs, with everything that a server can hold.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use planb::backup::archive::Archive;
use planb::config::Tls;
use planb::mysql::Address;
use planb::restore::compare::{Comparison, compare};
use planb::restore::plan::Wish;
use planb::secret::Secret;
use planb::store::blob::LocalFile;
use support::restores::arguments;
use support::{Flavor, PASSWORD, Planb, Server, reader, restorer};
use tokio_util::sync::CancellationToken;

async fn compared(file: &Path, target: &Server) -> Comparison {
    let archive = Archive::open(Arc::new(LocalFile::open(file).await.expect("a file")))
        .await
        .expect("a backup");
    let address = Address {
        host: "127.0.0.1".to_owned(),
        port: target.port,
        user: "restorer".to_owned(),
        password: Secret::new(PASSWORD),
        token_login: false,
        tls: Tls::Off,
        tls_ca: None,
    };
    compare(&address, &archive, &Wish::default(), 2, &CancellationToken::new())
        .await
        .expect("compared")
}

const SCHEMA: &str = "CREATE DATABASE bank; USE bank;
    CREATE TABLE p (id INT PRIMARY KEY); INSERT INTO p VALUES (1);
    CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, p INT, v VARCHAR(9) NOT NULL DEFAULT 'a', KEY of_v (v),
      CONSTRAINT of_p FOREIGN KEY (p) REFERENCES p (id), CONSTRAINT short CHECK (v <> '')) COMMENT 'the first';
    INSERT INTO t VALUES (1, 1, 'a'), (7, 1, 'b');
    CREATE VIEW w AS SELECT v FROM t WHERE id > 1;
    CREATE FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 1;
    CREATE PROCEDURE q() SELECT 1;
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'c';
    CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;";

/// Each alteration, and what is said of it.
const ALTERATIONS: [(&str, &str); 22] = [
    ("INSERT INTO p VALUES (2)", "table bank.p: 2 rows"),
    (
        "ALTER TABLE t MODIFY v VARCHAR(10) NOT NULL DEFAULT 'a'",
        "table bank.t has a column",
    ),
    ("ALTER TABLE t ALTER v SET DEFAULT 'x'", "table bank.t has a column"),
    ("ALTER TABLE p ADD COLUMN more INT", "table bank.p has a column"),
    ("ALTER TABLE t COMMENT = 'the second'", "table bank.t has the options"),
    (
        "ALTER TABLE t AUTO_INCREMENT = 1000",
        "table bank.t counts on from 1000, the backup from 8",
    ),
    (
        "ALTER TABLE t ADD KEY of_id (id)",
        "table bank.t has a rule that the backup has not: KEY `of_id`",
    ),
    (
        "ALTER TABLE t DROP FOREIGN KEY of_p",
        "table bank.t lacks: CONSTRAINT `of_p`",
    ),
    (
        "ALTER TABLE t DROP CONSTRAINT short",
        "table bank.t lacks: CONSTRAINT `short`",
    ),
    (
        "CREATE TABLE more (id INT PRIMARY KEY)",
        "table bank.more is not in the backup",
    ),
    (
        "CREATE VIEW more_w AS SELECT 1",
        "view bank.more_w is not in the backup",
    ),
    (
        "CREATE OR REPLACE DEFINER = root@localhost VIEW w AS SELECT v FROM t WHERE id > 2",
        "view bank.w has another text",
    ),
    (
        "CREATE OR REPLACE DEFINER = restorer@'%' VIEW w AS SELECT v FROM t WHERE id > 2",
        "view bank.w belongs to restorer@%",
    ),
    (
        "DROP FUNCTION f; CREATE DEFINER = root@localhost FUNCTION f(x INT) RETURNS INT DETERMINISTIC RETURN x + 2",
        "function bank.f has another text",
    ),
    (
        "SET sql_mode = 'ANSI_QUOTES'; DROP PROCEDURE q; CREATE DEFINER = root@localhost PROCEDURE q() SELECT 1; SET sql_mode = DEFAULT",
        "procedure bank.q was made under another",
    ),
    (
        "ALTER PROCEDURE q SQL SECURITY INVOKER",
        "procedure bank.q runs with its caller's rights",
    ),
    (
        "DROP TRIGGER tr; CREATE DEFINER = root@localhost TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 'd'",
        "trigger bank.tr has another text",
    ),
    ("DROP TRIGGER tr", "trigger bank.tr is missing"),
    (
        "ALTER DEFINER = root@localhost EVENT e ENABLE",
        "event bank.e is enabled",
    ),
    (
        "ALTER DEFINER = root@localhost EVENT e DISABLE DO SET @x = 2",
        "event bank.e has another text",
    ),
    ("ALTER DATABASE bank COLLATE utf8mb4_bin", "schema bank is made with"),
    (
        "DROP TABLE more; DROP VIEW more_w; RENAME TABLE t TO u",
        "table bank.t is missing",
    ),
];

async fn everything_is_seen(flavor: Flavor) {
    let source = Server::start(flavor, &[]);
    source.sql(SCHEMA);
    let mut alterations: Vec<(&str, &str)> = ALTERATIONS.to_vec();
    if flavor == Flavor::MariaDb {
        source.sql("CREATE SEQUENCE bank.s START WITH 5 CACHE 10; SELECT NEXT VALUE FOR bank.s");
        alterations.push((
            "SELECT NEXT VALUE FOR s; SELECT SETVAL(s, 40)",
            "in schema bank is, and not in the backup: DO SETVAL",
        ));
        alterations.push((
            "ALTER SEQUENCE s INCREMENT BY 3",
            "in schema bank is not: CREATE SEQUENCE",
        ));
        alterations.push(("CREATE SEQUENCE more", "and not in the backup: CREATE SEQUENCE `more`"));
    }
    let planb = Planb::new(&source, &reader(&source, &[]));
    let file = planb.backup(&[]);
    let target = Server::start(flavor, &[]);
    let to = restorer(&target);
    let json = planb.json(&[&["--json"], arguments(&to).as_slice(), &["--verify"]].concat());
    assert_eq!(
        (&json["verified"]["definitions"], &json["verified"]["differences"]),
        (&"text".into(), &serde_json::json!([]))
    );
    let mut known = BTreeSet::new();
    for (alteration, word) in alterations {
        target.sql(&format!("USE bank; {alteration}"));
        let compared = compared(&file, &target).await;
        assert!(compared.exact);
        let told: BTreeSet<String> = compared.differences.into_iter().collect();
        assert!(
            told.difference(&known).any(|told| told.contains(word)),
            "{}: {alteration}: {:?}",
            flavor.name(),
            told.difference(&known).collect::<Vec<_>>()
        );
        known = told;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_altered_on_a_mysql_is_seen() {
    everything_is_seen(Flavor::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_altered_on_a_mariadb_is_seen() {
    everything_is_seen(Flavor::MariaDb).await;
}
