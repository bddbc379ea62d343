//! Somebody who changes the schema at random moments, and never breaks the bank.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Dice, SCRATCH};
use crate::support::Endpoint;

/// One to three changes, at random moments within about `span`. Stops early if told to.
pub fn changes(server: &Endpoint, dice: &mut Dice, span: Duration, stop: &AtomicBool) -> Vec<&'static str> {
    let mut done = Vec::new();
    for _ in 0..=dice.below(3) {
        // No synchronisation: the moment is meant to be any.
        std::thread::sleep(span.mul_f64(f64::from(u32::try_from(dice.below(1000)).expect("small")) / 1500.0));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        done.push(change(server, dice));
    }
    done
}

fn change(server: &Endpoint, dice: &mut Dice) -> &'static str {
    let (name, sql) = match dice.below(6) {
        0 => (
            "truncate",
            format!(
                "TRUNCATE TABLE bank.scratch; INSERT INTO bank.scratch
                 WITH RECURSIVE n(v) AS (SELECT 0 UNION ALL SELECT v + 1 FROM n WHERE v + 1 < {SCRATCH}) SELECT v FROM n;"
            ),
        ),
        1 => (
            "add and drop column",
            "ALTER TABLE bank.c ADD COLUMN note INT DEFAULT 7; ALTER TABLE bank.c DROP COLUMN note;".into(),
        ),
        2 => ("rebuild", "ALTER TABLE bank.b ENGINE=InnoDB;".into()),
        3 => (
            "create and drop",
            "CREATE TABLE bank2.passing (i INT PRIMARY KEY); INSERT INTO bank2.passing VALUES (1); DROP TABLE bank2.passing;"
                .into(),
        ),
        4 => (
            "rename",
            "RENAME TABLE bank.scratch TO bank.elsewhere; RENAME TABLE bank.elsewhere TO bank.scratch;".into(),
        ),
        _ => ("index", "CREATE INDEX i ON bank2.d (balance); DROP INDEX i ON bank2.d;".into()),
    };
    // Table locks can make anybody the victim of a deadlock (the design says so); who changes schemas tries again then.
    for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
        while let Err(error) = server.try_sql(statement) {
            assert!(error.contains("ERROR 1213"), "{statement}: {error}");
        }
    }
    name
}
