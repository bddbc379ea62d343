//! The check of the newest backup: it runs between two runs and never holds one up.

use std::time::Duration;

use super::Active;
use crate::backup::entry::BackupId;

#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) active: Option<Active>,
    /// Made, and not checked yet.
    due: Option<BackupId>,
    /// Given up, or never begun, because the next run came first.
    pub(super) skipped: u64,
}

impl Check {
    /// Asks for a check of what was just made. Whatever still waited is an older backup by now.
    pub(super) fn want(&mut self, id: BackupId) {
        if self.due.replace(id).is_some() {
            self.skipped += 1;
        }
    }

    /// What to check now, if anything.
    pub(super) fn start(&mut self, mono: Duration, allowed: Duration) -> Option<BackupId> {
        if self.active.is_some() {
            return None;
        }
        let id = self.due.take()?;
        self.active = Some(Active::from(mono, allowed));
        Some(id)
    }

    /// Whether the check has to be cancelled now; says so once.
    pub(super) fn must_end(&mut self, mono: Duration, running: bool) -> bool {
        let Some(active) = self.active.as_mut().filter(|active| !active.cancelled) else {
            return false;
        };
        if !running && !active.over(mono, Duration::ZERO) {
            return false;
        }
        active.cancelled = true;
        self.skipped += 1;
        true
    }
}
