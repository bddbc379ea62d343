//! Whether the site may publish: only the one that serves does.

use std::sync::Arc;

use super::{RunError, Runner, Wanted};
use crate::config::steps;
use crate::recovery::journal::Journal;
use crate::recovery::plan::Site;
use crate::recovery::state as recovery;

impl Runner {
    pub(super) fn protects(&self) -> Site {
        match self.config.service.protects {
            steps::Site::Primary => Site::Primary,
            steps::Site::Standby => Site::Standby,
        }
    }

    /// What the journal says, if it lets this site publish.
    pub(super) async fn standing(&self, wanted: &Wanted) -> Result<recovery::Standing, RunError> {
        let known = Journal::new(Arc::clone(&self.control), &self.key()).known().await?;
        if let Some(damage) = known.damage {
            tracing::error!(
                damage,
                "the journal of failovers is damaged; going by what it said before"
            );
        }
        let here = self.protects();
        let serves = match known.standing.serving {
            Some(site) => site == here,
            // Fenced, and nobody opened yet: what is there is worth keeping, if whoever fenced it asks.
            None => wanted.is_last,
        };
        if serves {
            Ok(known.standing)
        } else {
            Err(RunError::NotServing(here))
        }
    }

    /// Asked once more before anything becomes visible: whoever took the service over meanwhile must not find a newer backup
    /// of a site that no longer serves.
    pub(super) async fn reigns_still(&self, wanted: &Wanted, epoch: u64) -> Result<(), RunError> {
        if self.standing(wanted).await?.epoch() == epoch {
            Ok(())
        } else {
            Err(RunError::NotServing(self.protects()))
        }
    }
}
