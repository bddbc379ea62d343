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
