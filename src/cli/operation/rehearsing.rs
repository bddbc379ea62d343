//! What a rehearsal does differently at the desk: another journal, another lease, and a distance from everything real.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use super::Desk;
use crate::backup::claim;
use crate::cli::failure::Failure;
use crate::cli::tell::Teller;
use crate::cli::{Common, open};
use crate::config::Config;
use crate::recovery::event::By;
use crate::recovery::plan::Place;
use crate::steps::Avoid;

/// What keeps a rehearsal away from the real thing.
#[derive(Default)]
pub struct Rehearsing {
    pub avoid: Avoid,
    /// Fires when it cannot or must not go on: a real operation was begun, or nobody takes up what is the runner's.
    pub stop: CancellationToken,
    why: OnceLock<String>,
}

impl Rehearsing {
    /// Ends it; only the first reason counts.
    pub fn end(&self, why: String) {
        let _ = self.why.set(why);
        self.stop.cancel();
    }

    pub fn why(&self) -> &str {
        self.why.get().map_or("it was stopped", String::as_str)
    }
}

/// The lease of a rehearsal; while it is held, nothing is pruned.
pub fn drill_lease(config: &Config) -> String {
    format!("lease/drill-{}", claim::key(&config.store.prefix))
}

impl Desk {
    /// For a rehearsal: `config` is made for it, and its journal is another one.
    pub async fn of_drill(common: &Common, config: Config, by: By, place: Place) -> Result<Self, Failure> {
        let stores = open::stores(&config, &CancellationToken::new()).await?;
        Ok(Self {
            journal: open::drill_journal(&config, &stores),
            teller: Teller::silent(&config, place).await,
            config,
            stores,
            by,
            place,
            json: common.json,
            rehearsal: Some(Rehearsing::default()),
            lease: None,
        })
    }

    /// What the steps of a rehearsal must not touch.
    pub fn keep_away_from(&mut self, avoid: Avoid) {
        if let Some(rehearsal) = &mut self.rehearsal {
            rehearsal.avoid = avoid;
        }
    }
}
