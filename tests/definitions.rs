//! Definitions that a plain load stumbles over elsewhere, and what account and server do to them.

mod support;

use support::{Flavor, Planb, Server, assert_same, census, reader};

fn notes(planb: &Planb) -> String {
    planb.json(&["--json", "backup"])["notes"].to_string()
}

fn newest(planb: &Planb) -> std::path::PathBuf {
    let id = planb.visible().remove(0);
    planb.store().join(format!("backups/{id}.sql.gz"))
}

#[test]
fn views_on_a_schema_that_is_not_backed_up_come_last() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        source.sql(
            "CREATE DATABASE away; CREATE TABLE away.rates (id INT PRIMARY KEY, rate INT);
             CREATE DATABASE bank; USE bank; CREATE TABLE money (id INT PRIMARY KEY, n INT); INSERT INTO money VALUES (1, 2);
             CREATE VIEW a_far AS SELECT m.id, r.rate FROM money m JOIN away.rates r USING (id);
             CREATE VIEW b_through AS SELECT id FROM a_far;
             CREATE VIEW near AS SELECT id FROM money;
             CREATE TRIGGER t BEFORE INSERT ON money FOR EACH ROW SET NEW.n = 5;
             CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM money;",
        );
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.reconfigure("tls = \"off\"", "tls = \"off\"\ndatabases = [\"bank\"]");
        let notes = notes(&planb);
        for view in ["bank.a_far", "bank.b_through"] {
            assert!(
                notes.contains(&format!("{view}: the view needs schema away")),
                "{notes}"
            );
        }
        assert!(!notes.contains("near"), "{notes}");
        let doctor = String::from_utf8_lossy(&planb.run(&["doctor"]).stdout).into_owned();
        assert!(doctor.contains("bank.a_far (away), bank.b_through (away)"), "{doctor}");

        let target = Server::start(flavor, &[]);
        let refused = target
            .try_load_gzip(&newest(&planb))
            .expect_err("there is no such schema");
        assert!(refused.contains("away"), "{refused}");
        source.sql("USE bank; DROP VIEW b_through; DROP VIEW a_far");
        assert_same(&census(&source, &["bank"]), &census(&target, &["bank"]));
    }
}

/// MariaDB says of a view what the asking account may not call, in the very place where it says that a view is broken.
#[test]
fn views_that_call_what_the_account_may_not_are_whole() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        source.sql(
            "CREATE DATABASE bank; USE bank; CREATE TABLE money (id INT PRIMARY KEY); INSERT INTO money VALUES (1);
             CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC RETURN a + 1;
             CREATE SQL SECURITY INVOKER VIEW invoker AS SELECT id, f(id) AS x FROM money;
             CREATE VIEW definer AS SELECT f(id) AS x FROM money;
             CREATE VIEW over_it AS SELECT x FROM invoker;
             CREATE FUNCTION gone() RETURNS INT DETERMINISTIC RETURN 1;
             CREATE VIEW broken AS SELECT gone() AS x; DROP FUNCTION gone;
             CREATE DATABASE zoo; USE zoo; CREATE FUNCTION g() RETURNS INT DETERMINISTIC RETURN 1;",
        );
        let planb = Planb::new(&source, &reader(&source, &[]));
        let notes = notes(&planb);
        assert!(notes.contains("bank.broken: the view is unusable"), "{notes}");
        source.sql("DROP VIEW bank.broken");
        assert_eq!(notes.matches("unusable").count(), 1, "{notes}");
        let target = Server::start(flavor, &[]);
        // A function is named without its schema, so each view needs its own schema to be the current one.
        target.load_gzip(&newest(&planb));
        assert_same(&census(&source, &["bank", "zoo"]), &census(&target, &["bank", "zoo"]));
        assert_eq!(target.sql("SELECT x FROM bank.over_it").trim(), "2");
    }
}

/// A directory and a tablespace that the other server does not have.
#[test]
fn files_in_places_of_their_own_load_anywhere() {
    for flavor in Flavor::ALL {
        let places = tempfile::TempDir::new().expect("a directory");
        let place = places.path().display();
        let directories = format!("--innodb-directories={place}");
        let args: &[&str] = if flavor == Flavor::MySql { &[&directories] } else { &[] };
        let source = Server::start(flavor, args);
        source.sql(&format!(
            "CREATE DATABASE bank; USE bank;
             CREATE TABLE afar (id INT PRIMARY KEY) ENGINE=InnoDB DATA DIRECTORY='{place}'; INSERT INTO afar VALUES (1), (2);"
        ));
        if flavor == Flavor::MySql {
            source.sql(
                "CREATE TABLESPACE ts ADD DATAFILE 'ts.ibd'; USE bank;
                 CREATE TABLE together (id INT PRIMARY KEY) TABLESPACE ts; INSERT INTO together VALUES (1), (2), (3);",
            );
        }
        let planb = Planb::new(&source, &reader(&source, &[]));
        let notes = notes(&planb);
        let doctor = String::from_utf8_lossy(&planb.run(&["doctor"]).stdout).into_owned();
        let target = Server::start(flavor, &[]);
        target.load_gzip(&newest(&planb));
        assert_eq!(target.sql("SELECT COUNT(*) FROM bank.afar").trim(), "2");
        assert!(!target.sql("SHOW CREATE TABLE bank.afar").contains("DIRECTORY"));
        let told = |word: &str| notes.contains(word) && doctor.contains(word);
        assert!(told("bank.afar: its directory is passed over"), "{notes}\n{doctor}");
        if flavor == Flavor::MySql {
            assert_eq!(target.sql("SELECT COUNT(*) FROM bank.together").trim(), "3");
            assert!(
                told("bank.together: its general tablespace is left out"),
                "{notes}\n{doctor}"
            );
        }
    }
}

/// Letters outside the basic plane, which information_schema shows as `?`.
#[test]
fn members_with_four_byte_letters_come_back_or_are_noted() {
    for flavor in Flavor::ALL {
        let source = Server::start(flavor, &[]);
        source.sql(
            "CREATE DATABASE bank; USE bank;
             CREATE TABLE moods (id INT PRIMARY KEY, mood ENUM('😀','b') CHARACTER SET utf8mb4, all_of SET('🐎','x') CHARACTER SET utf8mb4);
             INSERT INTO moods VALUES (1, '😀', '🐎,x'), (2, 'b', 'x'), (3, 'b', ''), (4, NULL, NULL);",
        );
        let planb = Planb::new(&source, &reader(&source, &[]));
        let notes = notes(&planb);
        let target = Server::start(flavor, &[]);
        target.load_gzip(&newest(&planb));
        let numbers = "SELECT id, mood + 0, all_of + 0 FROM bank.moods ORDER BY id";
        assert_eq!(source.sql(numbers), target.sql(numbers));
        let names = "SELECT id, mood, all_of FROM bank.moods ORDER BY id";
        let is_same = source.sql(names) == target.sql(names);
        println!("{}: members come back as they were: {is_same}", flavor.name());
        for column in ["mood", "all_of"] {
            let told = notes.contains(&format!("bank.moods.{column}: the server may show letters"));
            assert!(is_same || told, "{notes}");
        }
    }
}
