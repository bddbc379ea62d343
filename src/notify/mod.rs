//! Tells people what happens, once, in words that say what it means and what to do.
//!
//! `notice` is what can be told, `words` and `message` how it reads, `desk` decides who is told what and when: all of that is pure. `channel`,
//! `http` and `smtp` reach people, `dispatcher` runs them side by side and keeps what is known.

use jiff::Timestamp;

pub mod channel;
pub mod desk;
pub mod dispatcher;
pub mod http;
pub mod message;
pub mod notice;
pub mod record;
pub mod smtp;
pub mod words;

use notice::Notice;

/// Where whoever notices something puts it. Neither call waits or fails: telling people never holds up a backup or a failover.
pub trait Announce: Send + Sync {
    /// Told at once if it is news. May be called again and again while it lasts: people are told once, and reminded.
    fn raise(&self, notice: Notice);

    /// What was raised under this key is over. Nothing happens where nothing was.
    fn resolve(&self, key: &str, at: Timestamp);

    /// It is over, and whoever told that it began is not there to say so: people are told, unless it was raised here.
    fn close(&self, _: Notice, _since: Timestamp) {}

    /// Somebody else tells how it goes on and that it is over: nobody is told anything more of it from here.
    fn forget(&self, _key: &str) {}

    /// Keys of what was raised and not resolved yet, also before a restart.
    fn going_on(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Tells nobody: for commands without a configuration of their own, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Announce for Nobody {
    fn raise(&self, _: Notice) {}
    fn resolve(&self, _: &str, _: Timestamp) {}
}
