//! Whether the site may publish: only the one that serves does.

use std::sync::Arc;
use std::time::Duration;

use super::{Making, RunError, Runner, Wanted};
use crate::config::steps;
use crate::recovery::journal::Journal;
use crate::recovery::plan::Site;
use crate::recovery::state as recovery;

/// How often a run asks meanwhile whether its site still serves.
const REIGN_LOOKED_AT: Duration = Duration::from_secs(15);

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

    /// Ends once the site serves no longer: its dump would be thrown away at its end, while whoever took the service over waits
    /// for the lease. A store that does not answer is no answer.
    pub(super) async fn deposed(&self, making: &Making<'_>) -> RunError {
        loop {
            tokio::time::sleep(REIGN_LOOKED_AT).await;
            if let Err(error @ RunError::NotServing(_)) = self.reigns_still(making.wanted, making.epoch).await {
                return error;
            }
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
