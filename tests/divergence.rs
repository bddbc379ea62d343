//! What an old primary has and nobody else got, written as SQL: replayed onto a copy of the backup it makes that equal to the old
//! primary, on MySQL and MariaDB, whatever the keys are.

mod support;

use std::sync::Arc;

use planb::backup::entry::Entry;
use planb::backup::{shelf, verify};
use planb::clock::SystemClock;
use planb::config::Tls;
use planb::mysql::Address;
use planb::recovery::state::Standing;
use planb::restore::divergence::script::Script;
use planb::restore::divergence::since::Since;
use planb::restore::divergence::{Divergence, divergence};
use planb::secret::Secret;
use planb::store::BlobStore;
use planb::store::directory::DirectoryStore;
use support::{Flavor, PASSWORD, Planb, Server, assert_same, census, reader};
use tokio_util::sync::CancellationToken;

const TABLES: &str = "CREATE DATABASE bank CHARACTER SET utf8mb4; USE bank;
    CREATE TABLE same (id INT PRIMARY KEY, v INT); INSERT INTO same VALUES (1, 1);
    CREATE TABLE digits (d INT PRIMARY KEY); INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9);
    CREATE TABLE many (id INT PRIMARY KEY, v VARCHAR(40), KEY (v));
    INSERT INTO many SELECT a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d, CONCAT('v', a.d) FROM digits a, digits b, digits c, digits e, digits f WHERE f.d < 2;
    CREATE TABLE names (name VARCHAR(20) CHARACTER SET latin1 PRIMARY KEY, n INT);
    INSERT INTO names VALUES ('Ana', 1), ('b\\'o', 2), (X'E96CE8766520', 3), ('zoe', 4);
    CREATE TABLE pairs (a INT, b VARCHAR(9) COLLATE utf8mb4_bin, v BLOB, at DATETIME(6), PRIMARY KEY (a, b));
    INSERT INTO pairs VALUES (1, 'x', X'00FF0A27', '2026-01-01 00:00:00.123456'), (1, 'X', NULL, NULL), (2, '한', '', '0001-01-01');
    CREATE TABLE swapped (id INT PRIMARY KEY, u INT UNIQUE); INSERT INTO swapped VALUES (1, 1), (2, 2), (3, 3);
    CREATE TABLE kinds (id BIGINT UNSIGNED PRIMARY KEY, f FLOAT, d DOUBLE, m DECIMAL(30,10), b BIT(9), e ENUM('', 'x'), j JSON, t TEXT CHARACTER SET utf16,
      g BIGINT UNSIGNED AS (id DIV 2) STORED);
    INSERT INTO kinds (id, f, d, m, b, e, j, t) VALUES (18446744073709551614, 1.1, 1e-300, 12345678901234567890.0123456789, b'101', '', '{\"a\": [1, 2.50]}', 'x'), (7, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE parent (id INT PRIMARY KEY); CREATE TABLE child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE);
    INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2);
    CREATE TABLE emptied (id INT PRIMARY KEY); INSERT INTO emptied VALUES (1), (2);
    CREATE TABLE filled (id INT PRIMARY KEY);
    CREATE TABLE keyless (x INT); INSERT INTO keyless VALUES (1), (1);
    CREATE TABLE gone (id INT PRIMARY KEY); INSERT INTO gone VALUES (1);";

/// After the standby's backup.
const LATER: &str = "USE bank;
    UPDATE many SET v = 'changed' WHERE id IN (0, 4999, 5000, 12345); DELETE FROM many WHERE id IN (1, 9999, 10000, 19999);
    INSERT INTO many VALUES (-5, 'before all'), (20000, 'after all'), (30000, NULL);
    UPDATE names SET name = 'ANA' WHERE n = 1; UPDATE names SET n = 9 WHERE n = 3; DELETE FROM names WHERE n = 2; INSERT INTO names VALUES ('B\\'O', 5);
    UPDATE pairs SET v = X'0D0A1A5C' WHERE b = 'x'; DELETE FROM pairs WHERE b = 'X'; INSERT INTO pairs VALUES (1, 'y', NULL, NULL);
    UPDATE swapped SET u = NULL; UPDATE swapped SET u = 2 WHERE id = 1; UPDATE swapped SET u = 3 WHERE id = 2; UPDATE swapped SET u = 1 WHERE id = 3;
    UPDATE kinds SET f = 0.1, d = -0.0, e = 'x', j = '[]', t = '한글', b = b'0' WHERE id > 7;
    DELETE FROM parent WHERE id = 1; INSERT INTO parent VALUES (3); INSERT INTO child VALUES (3, 3);
    DELETE FROM emptied; INSERT INTO filled VALUES (1), (2), (3);
    INSERT INTO keyless VALUES (2); DROP TABLE gone; CREATE TABLE fresh (id INT PRIMARY KEY); INSERT INTO fresh VALUES (1);";

fn start(flavor: Flavor) -> Server {
    Server::start(
        flavor,
        match flavor {
            Flavor::MySql => &["--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--log-bin=binlog"],
            Flavor::MariaDb => &["--log-bin=binlog", "--server-id=1"],
        },
    )
}

struct Lab {
    primary: Server,
    planb: Planb,
    user: String,
}

impl Lab {
    fn new(flavor: Flavor) -> Self {
        let primary = start(flavor);
        primary.sql(TABLES);
        let user = reader(&primary, &[]);
        let planb = Planb::new(&primary, &user);
        Self { primary, planb, user }
    }

    /// Of the two newest backups: the later one is what was kept. Where the SQL was written, if anywhere.
    async fn compare(&self) -> (Divergence, Option<std::path::PathBuf>) {
        let store: Arc<dyn BlobStore> = Arc::new(
            DirectoryStore::open(self.planb.store(), Arc::new(SystemClock))
                .await
                .expect("a store"),
        );
        let entries: Vec<Entry> = shelf::list(store.as_ref(), "backups/", "bank", &Standing::default())
            .await
            .expect("listed");
        let kept = verify::open(&store, &entries[0]).await.expect("sound");
        let began = verify::open(&store, &entries[1]).await.expect("sound");
        let address = Address {
            host: "127.0.0.1".into(),
            port: self.primary.port,
            user: self.user.clone(),
            password: Secret::new(PASSWORD),
            token_login: false,
            tls: Tls::Off,
            tls_ca: None,
        };
        let mut script = Script::new(
            Arc::clone(&store),
            "preserved/differs.sql.gz".into(),
            "0123456789abcdef".into(),
        );
        let never = CancellationToken::new();
        let found = divergence(&address, &began, &kept.index, &mut script, &|_| {}, &never)
            .await
            .expect("compared");
        let head = ["about it;\nDROP DATABASE bank; --".to_owned()];
        let name = script.commit(&head).await.expect("written");
        (found, name.map(|name| self.planb.store().join(name)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_onto_a_copy_it_makes_that_equal() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let lab = Lab::new(flavor);
        let began = lab.planb.backup(&[]);
        lab.primary.sql(LATER);
        lab.planb.backup(&[]);
        let (found, script) = lab.compare().await;
        println!("{}: {found:?}", flavor.name());
        let counts = |table: &str| {
            let one = found.tables.iter().find(|one| one.table == format!("bank.{table}"));
            one.map(|one| (one.added, one.changed, one.removed))
        };
        assert_eq!(counts("same"), None);
        assert_eq!(counts("many"), Some((3, 4, 4)));
        assert_eq!(counts("emptied"), Some((0, 0, 2)));
        assert_eq!(counts("filled"), Some((3, 0, 0)));
        assert_eq!(counts("swapped"), Some((0, 3, 0)));
        assert_eq!(counts("kinds"), Some((0, 1, 0)));
        assert_eq!(counts("pairs"), Some((1, 1, 1)));
        let notes = found.notes.join("\n");
        for (table, why) in [
            ("keyless", "has no key"),
            ("gone", "is gone there"),
            ("fresh", "is new"),
        ] {
            assert!(
                notes.lines().any(|note| note.contains(table) && note.contains(why)),
                "{notes}"
            );
        }
        let since = format!("{:?}", found.since);
        match flavor {
            Flavor::MySql => assert!(since.contains("transactions by GTID"), "{since}"),
            Flavor::MariaDb => assert!(since.contains("binlog.0"), "{since}"),
        }

        let copy = start(flavor);
        copy.load_gzip(&began);
        copy.load_gzip(&script.expect("something differs"));
        // What has no key, or came and went as a whole, is told, and kept in the backup.
        for server in [&copy, &lab.primary] {
            server.sql("USE bank; DROP TABLE keyless; DROP TABLE IF EXISTS gone, fresh");
        }
        assert_same(&census(&lab.primary, &["bank"]), &census(&copy, &["bank"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_log_says_that_nothing_happened_nothing_is_read() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let lab = Lab::new(flavor);
        lab.planb.backup(&[]);
        // An id is a second.
        let (first, mut latest) = (lab.planb.visible(), Vec::new());
        while latest.len() <= first.len() {
            let _ = lab.planb.run(&["backup"]);
            latest = lab.planb.visible();
        }
        let (found, script) = lab.compare().await;
        assert_eq!(found.since, Since::Nothing, "{}", flavor.name());
        assert!(found.is_none() && script.is_none());
        // A write that was taken back is a transaction all the same; no row differs.
        lab.primary
            .sql("INSERT INTO bank.same VALUES (2, 2); DELETE FROM bank.same WHERE id = 2");
        let (found, script) = lab.compare().await;
        assert!(matches!(found.since, Since::Transactions(_)), "{found:?}");
        assert!(found.is_none() && script.is_none(), "{found:?}");
    }
}
