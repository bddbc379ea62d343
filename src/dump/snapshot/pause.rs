//! A replica whose applier stands still for the instant in which the snapshots open, and never longer.
//!
//! Whoever stops an applier may die before starting it again, so it is not left to us: one session sends the server
//! all of it in one go, stop, sleep and start, and the server goes on with that when nobody is there any more. The
//! snapshots open while it sleeps; then the applier is started at once, and that session ended.

use std::time::Duration;

use tokio::time::Instant;

use super::replica::{Replica, replica};
use super::{Opener, Snapshot, one_line, reader_session};
use crate::dump::AttemptError;
use crate::format::index::{Position, Way};
use crate::mysql::dialect::Family;
use crate::mysql::{DbError, Session};

/// How long an applier stands still if we die. From five seconds on, a sleeping server looks whether its client is
/// still there. (Tried: MySQL 9.7 and MariaDB 10.11, with the client killed.)
const LONGEST_SECONDS: u32 = 4;
const LOOK_EVERY: Duration = Duration::from_millis(2);

impl Opener<'_> {
    pub(super) async fn paused_replica(&self, mut sessions: Vec<Session>) -> Result<Snapshot, AttemptError> {
        let mut control = reader_session(self.address, self.dialect, self.wish.lock_wait).await?;
        let before = replica(&mut control, self.dialect).await?;
        let Some(before) = before.filter(|replica| replica.running) else {
            return Err(AttemptError::Replica(
                "pause_replica is set, but no applier is running on the source; start replication, or take it out"
                    .to_owned(),
            ));
        };
        if before.channels > 1 {
            return Err(AttemptError::Replica(
                "pause_replica is set, but the source replicates from several servers: there is no one position; take it out"
                    .to_owned(),
            ));
        }
        let lag = before.lag()?;
        let (stop, start) = (self.dialect.stop_applier, self.dialect.start_applier);
        let mut switch = reader_session(self.address, self.dialect, self.wish.lock_wait).await?;
        let switch_id = switch.id;
        // Held from the moment at which the applier stands still.
        let lock = format!("planb-pause-{switch_id}");
        let sql =
            format!("{stop}; DO GET_LOCK('{lock}', 0), SLEEP({LONGEST_SECONDS}), RELEASE_LOCK('{lock}'); {start}");
        let begun = Instant::now();
        let consistent_at = self.clock.now();
        let opened = tokio::select! {
            biased;
            ended = switch.execute(&sql) => Err(ended.err().unwrap_or_else(too_slow)),
            opened = self.open_while_held(&lock, &mut control, &mut sessions) => opened,
        };
        // If this fails, the switch does it.
        control.execute(start).await?;
        let locked = begun.elapsed();
        // Else it would start what somebody may have stopped on purpose meanwhile. It may have ended by itself.
        let _ = control.execute(&format!("KILL {switch_id}")).await;
        let (at, gtid) = opened?;
        let Some(at) = at else {
            return Err(AttemptError::Replica(
                "the source stopped being a replica meanwhile".to_owned(),
            ));
        };
        control.close().await;
        Ok(Snapshot {
            sessions,
            way: Way::PausedReplica,
            locked,
            position: Position::Exact {
                file: at.file,
                position: at.position,
                gtid: one_line(&gtid),
            },
            // What the replica has not applied yet would be lost as well.
            consistent_at: consistent_at
                .saturating_sub(jiff::SignedDuration::from_secs(lag))
                .unwrap_or(consistent_at),
        })
    }

    /// Opens the snapshots, and reads where the applier stands, all within the time for which `lock` is held.
    async fn open_while_held(
        &self,
        lock: &str,
        control: &mut Session,
        sessions: &mut [Session],
    ) -> Result<(Option<Replica>, String), DbError> {
        let held = format!("SELECT IS_USED_LOCK('{lock}')");
        while control.scalar(&held).await?.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.open_all(sessions).await?;
        let stopped = replica(control, self.dialect).await?;
        let gtid = match self.dialect.version.family {
            Family::MySql => control.scalar("SELECT @@global.gtid_executed").await?,
            Family::MariaDb => control.scalar("SELECT @@global.gtid_slave_pos").await?,
        };
        if control.scalar(&held).await?.is_empty() {
            return Err(too_slow());
        }
        Ok((stopped, gtid))
    }
}

fn too_slow() -> DbError {
    DbError::Lost {
        detail: "the snapshots did not open while the replica's applier stood still".to_owned(),
    }
}
