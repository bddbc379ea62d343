//! What was rehearsed, for the status page: read from the store now and then.

use std::time::Duration;

use tokio::time::Instant;

use crate::cli::drill::kept::{self, Read};
use crate::cli::failure::told;
use crate::cli::open;
use crate::config::Config;
use crate::serve::board::{Board, Drilled};

/// However often somebody looks.
const DRILLED_APART: Duration = Duration::from_secs(30);
/// Rehearsals that are shown, and some more.
const DRILLS: usize = 8;

/// What was read, and when.
#[derive(Default)]
pub(super) struct Rehearsed {
    read_at: Option<Instant>,
    reports: Read,
}

/// Whether it is time again; then it counts as done.
fn is_due(last: &mut Option<Instant>, apart: Duration) -> bool {
    let is_due = last.is_none_or(|at| at.elapsed() >= apart);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

impl Rehearsed {
    /// Puts on the board what can be read; what cannot stays as it was.
    pub(super) async fn look(&mut self, config: &Config, stores: &open::Stores, board: &Board) {
        if !is_due(&mut self.read_at, DRILLED_APART) {
            return;
        }
        let reports = kept::newest(config, stores, DRILLS, &mut self.reports).await;
        let reports = reports.map_err(|error| told(&error));
        match (reports, kept::open_one(config, stores).await) {
            (Ok(reports), Ok(open)) => board.drilled(Drilled { reports, open }),
            (Err(why), _) | (_, Err(why)) => tracing::debug!(why, "rehearsals cannot be read"),
        }
    }
}
