//! Backup format 1: a gzip file of many members that any `gunzip | mysql` reads, with an index at its end.
//!
//! ARCHITECTURE.md describes it for whoever writes another reader.

pub mod index;
pub mod member;
pub mod trailer;

pub use index::{Index, MemberKind, MemberRecord};

/// The format's number, in the index and in the trailer.
pub const FORMAT: u32 = 1;

/// The last line of the SQL, as mysqldump ends its own.
pub const COMPLETED: &str = "-- Dump completed";
