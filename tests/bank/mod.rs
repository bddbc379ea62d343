//! A bank: money moves between tables, schemas and far-apart keys, thousands of times a second, and its total never
//! changes. A dump of it tells by itself whether it is of one point in time, and exactly which.
//!
//! Each writer numbers its transfers. One transaction moves money between two or three accounts, writes its number
//! into `writers` and into `ledger`, and takes the ledger's oldest row of this writer away. So a dump must hold:
//! the total; for each writer the number `n` and exactly the ledger rows `n-99..=n`; every transfer that was
//! acknowledged before `consistent_at`. And a binlog position is exact if and only if the transfers logged before
//! it are those with numbers up to `n` ([`binlog`]).

#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary compiles this module and uses its own part of it"
)]

pub mod binlog;
pub mod books;
pub mod ddl;
pub mod dice;
pub mod load;
pub mod opens;
pub mod replay;
pub mod rounds;
pub mod world;

pub use dice::{Dice, seed};
pub use rounds::{Plan, Replay, Report, rounds, table_of};
pub use world::{Known, Way, World};

/// Both schemas: a transaction may span them, and so must a dump.
pub const SCHEMAS: [&str; 2] = ["bank", "bank2"];
pub const ACCOUNTS: u64 = 2_000;
pub const WRITERS: u64 = 6;
const OPENING_BALANCE: i64 = 1_000;
/// Ledger rows for each writer.
const KEPT: i64 = 100;
/// Rows of `scratch`, which DDL empties and refills.
const SCRATCH: u64 = 500;

/// The four tables with accounts: how account number `i` is found in each.
pub const TABLES: [&str; 4] = ["bank.a", "bank.b", "bank.c", "bank2.d"];

/// The condition that finds account `i` of table number `table`.
fn account(table: usize, i: u64) -> String {
    match table {
        0 => format!("id = {}", i * 1_000_003),
        1 => format!("k = '{}'", textual_key(i)),
        2 => format!("x = {} AND y = {}", i % 7, i / 7),
        _ => format!("id = {}", far_apart(i)),
    }
}

/// Neighbours in number are strangers in key.
fn textual_key(i: u64) -> String {
    format!("{:016x}", (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// From the very lowest to the very highest, negative ones too.
fn far_apart(i: u64) -> i64 {
    let step = i64::MAX / i64::try_from(ACCOUNTS).expect("small");
    let i = i64::try_from(i).expect("small");
    if i % 2 == 0 { i * step } else { -i * step }
}

/// The bank on its first day. `filler_bytes` makes the first table large enough to be read by several sessions.
pub fn opening(filler_bytes: usize) -> String {
    let mut sql = String::from(
        "CREATE DATABASE bank; CREATE DATABASE bank2;
         CREATE TABLE bank.a (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL, filler MEDIUMTEXT) ENGINE=InnoDB;
         CREATE TABLE bank.b (k VARCHAR(20) PRIMARY KEY, balance BIGINT NOT NULL, filler VARCHAR(100)) ENGINE=InnoDB;
         CREATE TABLE bank.c (x INT, y INT, balance BIGINT NOT NULL, PRIMARY KEY (x, y)) ENGINE=InnoDB;
         CREATE TABLE bank2.d (balance BIGINT NOT NULL, id BIGINT PRIMARY KEY) ENGINE=InnoDB;
         CREATE TABLE bank.writers (w INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB;
         CREATE TABLE bank.ledger (w INT, n BIGINT, PRIMARY KEY (w, n)) ENGINE=InnoDB;
         CREATE TABLE bank.scratch (v BIGINT PRIMARY KEY) ENGINE=InnoDB;\n",
    );
    let mut fill = |table: &str, columns: &str, count: u64, row: &dyn Fn(u64) -> String| {
        let rows: Vec<String> = (0..count).map(row).collect();
        for rows in rows.chunks(500) {
            sql.push_str(&format!("INSERT INTO {table} ({columns}) VALUES {};\n", rows.join(",")));
        }
    };
    let balance = OPENING_BALANCE;
    fill("bank.a", "id, balance, filler", ACCOUNTS, &|i| {
        format!("({}, {balance}, REPEAT('x', {filler_bytes}))", i * 1_000_003)
    });
    fill("bank.b", "k, balance, filler", ACCOUNTS, &|i| {
        format!("('{}', {balance}, REPEAT('y', 100))", textual_key(i))
    });
    fill("bank.c", "x, y, balance", ACCOUNTS, &|i| {
        format!("({}, {}, {balance})", i % 7, i / 7)
    });
    fill("bank2.d", "id, balance", ACCOUNTS, &|i| {
        format!("({}, {balance})", far_apart(i))
    });
    fill("bank.writers", "w, n", WRITERS, &|w| format!("({w}, 0)"));
    for w in 0..WRITERS {
        fill("bank.ledger", "w, n", KEPT.unsigned_abs(), &|i| format!("({w}, -{i})"));
    }
    fill("bank.scratch", "v", SCRATCH, &|v| format!("({v})"));
    sql.push_str("ANALYZE TABLE bank.a;\n");
    sql
}
