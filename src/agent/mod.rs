//! The daemon: runs backups on their schedule and knows the RPO at every moment.

pub mod schedule;
