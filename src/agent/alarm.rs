//! What the daemon's own findings mean to people. Facts in, notices out: nothing here waits or decides what is done.

use std::time::Duration;

use jiff::Timestamp;

use super::runner::{Checked, Proven, RunError, Survey};
use crate::backup::entry::{BackupId, Standing};
use crate::backup::rpo::{self, Rpo};
use crate::notify::Announce;
use crate::notify::notice::{Notice, What, keys};

/// Surveys in a row that failed before people hear of it: some 15 seconds of silence are a network's hiccup.
const SURVEYS: u32 = 3;

/// How a run ended. Whoever was stopped, or found another run at work, has not failed.
pub fn run_ended(announce: &dyn Announce, failed: Option<&RunError>, at: Timestamp) {
    match failed {
        None => announce.resolve(keys::BACKUP, at),
        Some(RunError::Cancelled | RunError::Busy(_)) => {}
        Some(error @ (RunError::Transient(_) | RunError::Permanent(_))) => {
            let error = error.to_string();
            announce.raise(Notice::new(What::BackupFailed { error }, at));
        }
    }
}

/// How much would be lost now.
pub fn rpo(announce: &dyn Announce, rpo: &Rpo, target: Duration, at: Timestamp) {
    let loss_seconds = rpo.loss_now.map(|loss| loss.as_secs());
    let target_seconds = target.as_secs();
    match rpo.state {
        rpo::State::Met => announce.resolve(keys::RPO, at),
        // Nobody could look: the store is told of instead.
        rpo::State::Unknown => {}
        rpo::State::AtRisk => announce.raise(Notice::new(
            What::RpoAtRisk {
                loss_seconds,
                target_seconds,
            },
            at,
        )),
        rpo::State::Breached => announce.raise(Notice::new(
            What::RpoBreached {
                loss_seconds,
                target_seconds,
            },
            at,
        )),
    }
}

/// What a look into the store found. `failures`: how many in a row failed.
pub fn surveyed(announce: &dyn Announce, survey: Result<&Survey, &RunError>, failures: u32, at: Timestamp) {
    match survey {
        Ok(survey) => {
            announce.resolve(keys::STORE, at);
            // Told as damaged until it is gone, or found sound after all.
            for key in announce.going_on() {
                let unusable = |id: &str| {
                    let entry = survey.entries.iter().find(|entry| entry.id.as_str() == id);
                    entry.is_some_and(|entry| matches!(entry.standing, Standing::Unusable(_)))
                };
                if key.strip_prefix(&keys::damaged("")).is_some_and(|id| !unusable(id)) {
                    announce.resolve(&key, at);
                }
            }
        }
        Err(RunError::Cancelled) => {}
        Err(error) if failures >= SURVEYS => {
            let error = error.to_string();
            announce.raise(Notice::new(What::StoreUnreachable { error }, at));
        }
        Err(_) => {}
    }
}

/// How old the latest proof is, if it is too old.
pub fn proof_age(announce: &dyn Announce, overdue: Option<Duration>, allowed: Duration, at: Timestamp) {
    match overdue {
        None => announce.resolve(keys::PROOF_AGE, at),
        Some(age) => announce.raise(Notice::new(
            What::ProofTooOld {
                age_seconds: age.as_secs(),
                allowed_seconds: allowed.as_secs(),
            },
            at,
        )),
    }
}

/// What the check of a backup found.
pub fn checked(announce: &dyn Announce, id: &BackupId, result: &Result<Checked, RunError>, at: Timestamp) {
    if let Ok(Checked::Damaged { place }) = result {
        damaged(announce, id, place, at);
    }
}

/// What a proof found. What may pass by itself is tried again in an hour, and the age of the latest proof tells.
pub fn proved(announce: &dyn Announce, result: &Result<Proven, RunError>, at: Timestamp) {
    let failed = |error: String| announce.raise(Notice::new(What::ProofFailed { error }, at));
    match result {
        Ok(Proven::Restored { .. }) => announce.resolve(keys::PROOF, at),
        Ok(Proven::NothingGood) => {}
        Ok(Proven::Different { id, differences }) => {
            failed(format!(
                "{id} came out different from what the backup says: {}",
                differences.join("; ")
            ));
        }
        Ok(Proven::Damaged { id, place }) => damaged(announce, id, place, at),
        Err(error @ RunError::Permanent(_)) => failed(error.to_string()),
        Err(RunError::Cancelled | RunError::Busy(_) | RunError::Transient(_)) => {}
    }
}

fn damaged(announce: &dyn Announce, id: &BackupId, place: &str, at: Timestamp) {
    let what = What::BackupDamaged {
        id: id.to_string(),
        place: place.to_owned(),
    };
    announce.raise(Notice::new(what, at));
}
