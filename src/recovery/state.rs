//! Where an operation stands: what folding its journal gives. Pure; every event that does not follow from what was before is
//! an error, also when a journal is read back.
//!
//! The invariants of the design hold for any sequence of events that is accepted here: two sites never serve at once, what
//! was not compared does not serve unless somebody answers for it, the primary is not replaced from a standby that never
//! served, and nothing is taken back after the commit point.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{Chosen, Entry, Event, NOTHING_BEFORE, Outcome, Proof};
use super::operation::Operation;
use super::plan::{Aim, Site};

/// From when an epoch is in force, and which site it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    pub number: u64,
    pub since: Timestamp,
    pub site: Site,
}

/// What outlasts an operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Takes the application's writes; none between a fence and the opening of the other site.
    pub serving: Option<Site>,
    /// Past and present, oldest first. None before the first failover: then it is 0, and the primary's.
    pub epochs: Vec<Epoch>,
    /// Whether the standby took writes since the primary last served.
    pub standby_served: bool,
    /// How far the standby is built: 1 at rest.
    pub stage: u8,
    /// Sites that were fenced, and how sure it is. An unprovable one is *pending*: it is tried again until it is proven.
    pub fenced: BTreeMap<Site, Proof>,
    /// What a site was last restored from.
    pub restored: BTreeMap<Site, Chosen>,
    /// What steps that still stand gave, for later ones.
    pub outputs: BTreeMap<String, Given>,
}

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Given {
    pub stage: u8,
    /// Nothing sensitive.
    pub values: BTreeMap<String, Value>,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            serving: Some(Site::Primary),
            epochs: Vec::new(),
            standby_served: false,
            stage: 1,
            fenced: BTreeMap::new(),
            restored: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }
}

impl Standing {
    pub fn epoch(&self) -> u64 {
        self.epochs.last().map_or(0, |epoch| epoch.number)
    }

    /// Whether a backup that began under `epoch` was of the site that served at that instant.
    pub fn is_orphan(&self, epoch: u64, consistent_at: Timestamp) -> bool {
        let next = self.epochs.iter().find(|known| known.number == epoch + 1);
        next.is_some_and(|next| consistent_at >= next.since)
    }

    /// A pending fence was proven.
    ///
    /// # Errors
    /// That there was none.
    pub fn proven(&mut self, site: Site) -> Result<(), String> {
        match self.fenced.get_mut(&site) {
            Some(proof) if *proof == Proof::Unprovable => {
                *proof = Proof::Proven;
                Ok(())
            }
            Some(_) | None => Err(format!("there is no pending fence of the {site}")),
        }
    }

    /// Sites that were fenced, and nobody could prove it.
    pub fn pending_fences(&self) -> impl Iterator<Item = Site> {
        self.fenced
            .iter()
            .filter(|(_, proof)| **proof == Proof::Unprovable)
            .map(|(site, _)| *site)
    }
}

/// How a step stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    Waiting,
    Running {
        run: String,
        since: Timestamp,
        bound: Timestamp,
        interrupted: bool,
    },
    Done {
        outcome: Outcome,
        since: Timestamp,
        at: Timestamp,
    },
    /// `tries` by this run.
    Failed {
        run: String,
        tries: u32,
        error: String,
        at: Timestamp,
    },
    TakingBack {
        run: String,
        bound: Timestamp,
        interrupted: bool,
    },
    TakenBack,
}

/// Everything that a journal says.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub standing: Standing,
    /// Operations so far.
    pub operations: u64,
    /// The latest one, open or ended.
    pub operation: Option<Operation>,
    /// Of the last entry.
    pub digest: String,
    /// Number of the operation's last entry.
    pub entries: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            standing: Standing::default(),
            operations: 0,
            operation: None,
            digest: NOTHING_BEFORE.to_owned(),
            entries: 0,
        }
    }
}

/// An entry that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("entry {number} of operation {operation} does not follow from those before it: {why}")]
pub struct Illegal {
    pub operation: u64,
    pub number: u64,
    pub why: String,
}

impl State {
    /// The operation that is under way.
    pub fn open(&self) -> Option<&Operation> {
        self.operation.as_ref().filter(|operation| operation.ended.is_none())
    }

    /// Whether somebody beside the operation may fence that site. Before the other one opened it may be abandoned, and lifts its
    /// fences; on the way home it opens the site itself. Never one that serves: an abandoned operation may have left a fence there.
    pub fn may_fence(&self, site: Site) -> bool {
        match self.open() {
            None => self.standing.serving != Some(site),
            Some(operation) => {
                let is_leaving = matches!(operation.aim, Aim::Failover { .. });
                is_leaving && operation.abandoning.is_none() && self.standing.serving == Some(site.other())
            }
        }
    }

    /// # Errors
    /// [`Illegal`]; the state is then as it was.
    pub fn apply(&self, entry: &Entry, digest: &str) -> Result<Self, Illegal> {
        let illegal = |why: String| Illegal {
            operation: entry.operation,
            number: entry.number,
            why,
        };
        if entry.previous != self.digest {
            return Err(illegal("it is not chained to them".to_owned()));
        }
        if entry.epoch != self.standing.epoch() {
            return Err(illegal(format!(
                "it was written under epoch {}, and {} was in force",
                entry.epoch,
                self.standing.epoch()
            )));
        }
        let mut next = self.clone();
        next.digest = digest.to_owned();
        next.entries = entry.number;
        if let Event::Opened { .. } = entry.event {
            next.begin(entry).map_err(illegal)?;
            return Ok(next);
        }
        if entry.operation != self.operations || entry.number != self.entries + 1 {
            return Err(illegal("its number is another one's".to_owned()));
        }
        if let (Event::FenceProven { site, standing }, None) = (&entry.event, self.open()) {
            next.standing.proven(*site).map_err(illegal)?;
            return match next.standing == *standing {
                true => Ok(next),
                false => Err(illegal("it tells of another standing than there is".to_owned())),
            };
        }
        let Some(operation) = next.operation.as_mut().filter(|operation| operation.ended.is_none()) else {
            return Err(illegal("no operation is open".to_owned()));
        };
        operation.take(&mut next.standing, entry).map_err(illegal)?;
        Ok(next)
    }

    fn begin(&mut self, entry: &Entry) -> Result<(), String> {
        let Event::Opened {
            aim,
            plan,
            plan_digest,
            standing,
            backup,
            pinned,
            approvers,
            facts,
            accepted,
        } = &entry.event
        else {
            return Err("it opens nothing".to_owned());
        };
        if self.open().is_some() {
            return Err("another operation is open".to_owned());
        }
        if entry.operation != self.operations + 1 || entry.number != 1 {
            return Err("its number is another one's".to_owned());
        }
        if *standing != self.standing {
            return Err("it begins with something else than the last operation left".to_owned());
        }
        match aim {
            Aim::Failover { .. } if standing.serving == Some(Site::Standby) => {
                return Err("the standby serves already".to_owned());
            }
            Aim::Failback if !standing.standby_served => return Err("the standby never served".to_owned()),
            Aim::StandDown if standing.standby_served => return Err("the standby has served".to_owned()),
            Aim::Failover { .. } | Aim::Failback | Aim::StandDown | Aim::Drill { .. } => {}
        }
        self.operations = entry.operation;
        self.operation = Some(Operation {
            number: entry.operation,
            aim: *aim,
            plan: plan.clone(),
            plan_digest: plan_digest.clone(),
            opened_at: entry.at,
            opened_by: entry.by.clone(),
            backup: backup.clone(),
            pinned: *pinned,
            approvers: *approvers,
            approved: BTreeSet::from([entry.by.who.clone()]),
            accepted: accepted.clone(),
            facts: facts.clone(),
            steps: plan
                .steps
                .iter()
                .map(|step| (step.name.clone(), Progress::Waiting))
                .collect(),
            tries: BTreeMap::new(),
            made: BTreeSet::new(),
            stale: BTreeSet::new(),
            void: BTreeSet::new(),
            taken_since: BTreeSet::new(),
            renewals: 0,
            before: standing.clone(),
            committed_at: None,
            abandoning: None,
            left_fenced: BTreeSet::new(),
            ended: None,
        });
        Ok(())
    }
}
