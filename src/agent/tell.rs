//! What the daemon's work comes to, put on the board in the board's words.

use std::time::Duration;

use super::runner::{Checked, RunError, RunSummary, Survey};
use crate::backup::entry::Standing;
use crate::serve::board::{Backup, Board, Committed, Failed};

pub(super) fn run_ended(board: &Board, result: &Result<RunSummary, RunError>, took: Duration, skipped: u64) {
    match result {
        Ok(run) => {
            let backup = Backup {
                id: run.id.clone(),
                consistent_at: run.consistent_at,
                committed_at: run.committed_at,
                size_bytes: run.stored_bytes,
                raw_bytes: run.raw_bytes,
                rows: run.rows,
                standing: Standing::Good,
                proven_at: None,
                checked_at: None,
            };
            let committed = Committed {
                backup,
                seconds: took.as_secs_f64(),
                lock_seconds: Duration::from_millis(run.lock_millis).as_secs_f64(),
                attempts: run.attempts,
            };
            board.committed(committed, skipped);
        }
        Err(error) => {
            let how = match error {
                RunError::Cancelled => Failed::Cancelled,
                RunError::Busy(_) => Failed::Busy,
                RunError::Transient(_) => Failed::Transient,
                RunError::Permanent(_) => Failed::Permanent,
            };
            board.failed(how, &error.to_string(), took, skipped);
        }
    }
}

pub(super) fn surveyed(board: &Board, result: &Result<Survey, RunError>) {
    match result {
        Ok(survey) => board.surveyed(Ok(&survey.entries)),
        Err(error) => board.surveyed(Err(&error.to_string())),
    }
}

pub(super) fn verified(board: &Board, result: &Result<Checked, RunError>) {
    board.counters.verified(match result {
        Ok(Checked::Sound { .. }) => Some(true),
        Ok(Checked::Damaged { .. }) => Some(false),
        Err(_) => None,
    });
}
