//! A backup: its name, its life in the store, what is kept and what would be lost.

pub mod archive;
pub mod claim;
pub mod entry;
pub mod lease;
pub mod ledger;
pub mod proof;
pub mod prune;
pub mod retention;
pub mod rpo;
pub mod run;
pub mod shelf;
pub mod verify;
