//! Reading a dump as text, as a stranger would, and checking its books.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use planb::format::index::Summary;

use super::{ACCOUNTS, KEPT, OPENING_BALANCE, SCRATCH, TABLES, WRITERS};

/// What a dump holds, as far as the bank cares.
#[derive(Debug)]
pub struct Books {
    pub summary: Summary,
    /// Each writer's newest transfer.
    pub newest: Vec<i64>,
}

/// `gzip -dc`.
pub fn unpack(path: &Path) -> String {
    let output = Command::new("gzip").arg("-dc").arg(path).output().expect("gzip runs");
    assert!(
        output.status.success(),
        "gzip -dc {}: {}",
        path.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("a dump of text is text")
}

/// Reads and checks a dump. The error says what does not fit.
pub fn audit(text: &str) -> Result<Books, String> {
    let mut total = 0;
    let mut rows: BTreeMap<&str, u64> = BTreeMap::new();
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    let mut ledger: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    let mut scratch = 0;
    each_row(text, |table, columns, values| {
        let number = |name: &str| -> i64 {
            let at = columns.iter().position(|column| *column == name).expect("the column");
            values[at].parse().expect("a number")
        };
        match table {
            "bank.writers" => {
                newest.insert(number("w"), number("n"));
            }
            "bank.ledger" => {
                ledger.entry(number("w")).or_default().insert(number("n"));
            }
            "bank.scratch" => scratch += 1,
            _ => {
                if let Some(name) = TABLES.iter().find(|name| **name == table) {
                    total += number("balance");
                    *rows.entry(name).or_default() += 1;
                }
            }
        }
    });
    for table in TABLES {
        let there = rows.get(table).copied().unwrap_or(0);
        if there != ACCOUNTS {
            return Err(format!("{table} has {there} rows of {ACCOUNTS}"));
        }
    }
    let right = i64::try_from(ACCOUNTS).expect("small") * OPENING_BALANCE * 4;
    if total != right {
        return Err(format!("the total is {total}, which is {} off", total - right));
    }
    if newest.len() as u64 != WRITERS {
        return Err(format!("{} writers of {WRITERS}", newest.len()));
    }
    for (w, n) in &newest {
        let wanted: BTreeSet<i64> = (n - KEPT + 1..=*n).collect();
        let there = ledger.remove(w).unwrap_or_default();
        if there != wanted {
            return Err(format!(
                "writer {w} stands at {n}, its ledger at {:?} ({} rows)",
                there.last(),
                there.len()
            ));
        }
    }
    if scratch != 0 && scratch != SCRATCH {
        return Err(format!(
            "scratch has {scratch} rows, and never had but none or {SCRATCH}"
        ));
    }
    Ok(Books {
        summary: summary(text),
        newest: newest.into_values().collect(),
    })
}

/// The last line of the index.
fn summary(text: &str) -> Summary {
    let mut lines = text.lines().rev();
    assert_eq!(lines.next(), Some("-- Dump completed"));
    let json = lines
        .next()
        .and_then(|line| line.strip_prefix("-- planb: "))
        .expect("an index");
    serde_json::from_str(json).expect("a summary")
}

/// Calls back for every row of every INSERT, with `schema.table`, the names of its columns, and its values: numbers
/// as they stand, strings without their quotes (the bank has none inside).
fn each_row(text: &str, mut row: impl FnMut(&str, &[&str], &[&str])) {
    let mut statement: Option<(String, Vec<&str>)> = None;
    let mut values: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("INSERT INTO ") {
            let (table, rest) = rest.split_once(" (").expect("columns");
            let columns = rest.strip_suffix(") VALUES").expect("VALUES at the line's end");
            let names = columns.split(',').map(|name| name.trim_matches('`')).collect();
            statement = Some((table.replace('`', ""), names));
        } else if let (Some((table, columns)), Some(inner)) = (&statement, line.strip_prefix('(')) {
            let ends = inner.ends_with(");");
            let inner = inner
                .trim_end_matches([',', ';'])
                .strip_suffix(')')
                .expect("a row a line");
            values.clear();
            values.extend(inner.split(',').map(|value| value.trim_matches('\'')));
            row(table, columns, &values);
            if ends {
                statement = None;
            }
        }
    }
}
