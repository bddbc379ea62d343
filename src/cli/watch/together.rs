//! What all watchers found, as it stands in the store, for whoever looks.

use std::sync::Arc;

use serde_json::{Value, json};

use super::names;
use crate::backup::claim;
use crate::cli::{open, present};
use crate::config::Config;
use crate::config::watch::Watch;
use crate::serve::board::Found;
use crate::store::StoreError;
use crate::watch::auto::Shot;
use crate::watch::board::Board;
use crate::watch::quorum::{Ballot, Tally, tally};
use crate::watch::verdict::{Health, Ruling};

/// What all watchers found, as it stands in the store.
pub struct Together {
    pub(super) tally: Tally,
    pub(super) ruling: Option<Ruling>,
    shot: Option<Shot>,
    /// Why nothing was begun automatically in this outage.
    refrained: Vec<String>,
    pub(super) now: jiff::Timestamp,
}

pub(super) async fn others(config: &Config, watch: &Watch) -> Result<Together, StoreError> {
    let stores = open::stores_for_a_person(config).await?;
    together(config, watch, &stores).await
}

/// # Errors
/// The store's.
pub async fn together(config: &Config, watch: &Watch, stores: &open::Stores) -> Result<Together, StoreError> {
    let board = Board::new(Arc::clone(&stores.control), &claim::key(&config.store.prefix));
    let names = names(watch);
    let found = board.read(&names).await?;
    let (ruling, _) = board.ruling().await?;
    // What cannot be read is told where somebody would go by it.
    let shot = board.shot().await.map_or(None, |(shot, _)| shot);
    let (refrained, _) = board.refrained().await?;
    let now = board.now().await?;
    let outage = ruling.as_ref().filter(|ruling| ruling.verdict == Health::Unhealthy);
    let refrained = refrained.filter(|refrained| outage.is_some_and(|outage| outage.number == refrained.ruling));
    let of = |name: &str| found.get(name).cloned().unwrap_or(Ok(None));
    Ok(Together {
        tally: tally(&names, of, now, watch.stale_after),
        ruling,
        shot,
        refrained: refrained.map(|refrained| refrained.texts).unwrap_or_default(),
        now,
    })
}

impl Together {
    /// For whoever looks at the agent.
    pub fn found(self) -> Found {
        let begun = self.shot.as_ref().map(auto_line);
        let refrained = self.refrained.iter().map(|why| format!("begins nothing: {why}"));
        Found {
            auto: begun.into_iter().chain(refrained).collect(),
            now: self.now,
            tally: self.tally,
            ruling: self.ruling,
        }
    }

    /// What they find, and since when it is called so.
    pub fn in_a_line(&self) -> String {
        let called = self.ruling.as_ref().map_or_else(String::new, |ruling| {
            let ago = present::duration(ruling.lasted(self.now));
            format!("; called {} {ago} ago, by {}", ruling.verdict, ruling.by)
        });
        let control = match self.tally.control {
            Some(Health::Unhealthy) => "; the control plane does not answer, which alone does not count",
            _ => "",
        };
        format!("{}{called}{control}", self.tally.summary())
    }

    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("watch     {}", self.tally.summary())];
        if let Some(ruling) = &self.ruling {
            lines.push(format!(
                "          called {} {} ago, by {}",
                ruling.verdict,
                present::duration(ruling.lasted(self.now)),
                ruling.by
            ));
        }
        if self.tally.control == Some(Health::Unhealthy) {
            lines.push("          the control plane does not answer; that alone does not count".to_owned());
        }
        if let Some(shot) = &self.shot {
            lines.push(format!("auto      {}", auto_line(shot)));
        }
        for why in &self.refrained {
            lines.push(format!("auto      begins nothing: {why}"));
        }
        lines.extend(
            self.tally
                .lines(self.now)
                .into_iter()
                .map(|line| format!("          {line}")),
        );
        lines
    }

    pub fn json(&self) -> Value {
        let watchers: Vec<Value> = self
            .tally
            .ballots
            .iter()
            .map(|(name, ballot)| {
                let (vote, probes) = match ballot {
                    Ballot::Vote {
                        health, observation, ..
                    } => (Some(*health), json!(observation.probes)),
                    _ => (None, json!([])),
                };
                json!({"name": name, "vote": vote, "probes": probes, "told": ballot.told(self.now)})
            })
            .collect();
        json!({
            "verdict": self.tally.verdict,
            "control_plane": self.tally.control,
            "called": self.ruling.as_ref().map(|ruling| json!({
                "verdict": ruling.verdict, "since": present::rfc3339(ruling.since), "by": ruling.by, "evidence": ruling.evidence,
            })),
            "auto": self.shot,
            "refrained": self.refrained,
            "watchers": watchers,
        })
    }
}

fn auto_line(shot: &Shot) -> String {
    let began = format!(
        "operation {} was begun {} by {}",
        shot.after + 1,
        present::time(shot.at),
        shot.by
    );
    match (&shot.rested, &shot.acknowledged) {
        (_, Some(acknowledged)) => format!("{began}; acknowledged by {}", acknowledged.by),
        (Some(rested), None) => format!(
            "{began}; {}. Nothing more is begun before: planb watch --acknowledge",
            rested.how
        ),
        (None, None) => format!("{began}; it is in hand"),
    }
}
