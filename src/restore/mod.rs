//! A backup into a database, as fast as the target takes it; killed anywhere, it goes on where it was.
//!
//! Everything that could stand against it is found before the first row is loaded ([`plan`]). Then come tables, rows
//! (several sessions, a member at a time), secondary and foreign keys, and last routines, views, triggers and events.
//! The target keeps the account of it ([`ledger`]).
//!
//! A dump of mysqldump or mariadb-dump has a way of its own ([`foreign`]).

pub mod accounts;
pub mod after;
mod build;
pub mod compare;
pub mod complete;
pub mod contents;
pub mod divergence;
pub mod error;
pub mod events;
pub mod foreign;
pub mod hold;
pub mod ledger;
pub mod load;
pub mod logins;
pub mod normal;
pub mod parameters;
pub mod plan;
pub mod programs;
pub mod repair;
pub mod replace;
pub mod run;
pub mod schema;
pub mod statements;
pub mod target;
mod trace;
pub mod tune;

pub use error::RestoreError;
