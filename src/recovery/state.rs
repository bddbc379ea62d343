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

use super::event::{Accepted, By, Chosen, Ended, Entry, Event, NOTHING_BEFORE, Outcome, Proof};
use super::plan::{Aim, OnFailure, Plan, Role, Site, Step};
use super::rules::{self, Rule};

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
    pub outputs: BTreeMap<String, BTreeMap<String, Value>>,
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
    Running { run: String, since: Timestamp, bound: Timestamp, interrupted: bool },
    Done { outcome: Outcome, since: Timestamp, at: Timestamp },
    /// `tries` by this run.
    Failed { run: String, tries: u32, error: String, at: Timestamp },
    TakingBack { run: String, bound: Timestamp, interrupted: bool },
    TakenBack,
}

/// An operation that was begun.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    pub number: u64,
    pub aim: Aim,
    pub plan: Plan,
    pub plan_digest: String,
    pub opened_at: Timestamp,
    pub opened_by: By,
    /// The backup to restore.
    pub backup: Option<Chosen>,
    /// A person chose it: no newer one takes its place.
    pub pinned: bool,
    pub approvers: u32,
    pub approved: BTreeSet<String>,
    pub accepted: Vec<Accepted>,
    pub facts: BTreeMap<String, String>,
    pub steps: BTreeMap<String, Progress>,
    /// How often the run that tried a step last has failed at it.
    tries: BTreeMap<String, (String, u32)>,
    /// When the commit point was passed.
    pub committed_at: Option<Timestamp>,
    /// Why, and when.
    pub abandoning: Option<(String, Timestamp)>,
    pub ended: Option<(Ended, Timestamp)>,
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
        let Some(operation) = next.operation.as_mut().filter(|operation| operation.ended.is_none()) else {
            return Err(illegal("no operation is open".to_owned()));
        };
        if entry.operation != operation.number || entry.number != self.entries + 1 {
            return Err(illegal("its number is another one's".to_owned()));
        }
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
            Aim::Failover { .. } | Aim::Failback | Aim::StandDown => {}
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
            steps: plan.steps.iter().map(|step| (step.name.clone(), Progress::Waiting)).collect(),
            tries: BTreeMap::new(),
            committed_at: None,
            abandoning: None,
            ended: None,
        });
        Ok(())
    }
}

impl Operation {
    pub fn progress(&self, step: &str) -> &Progress {
        self.steps.get(step).unwrap_or(&Progress::Waiting)
    }

    /// Whether what needs this step may begin: it is done, or gone without.
    pub fn is_done(&self, step: &str) -> bool {
        matches!(self.progress(step), Progress::Done { .. })
            || self.plan.step(step).is_some_and(|step| self.is_gone_without(step))
    }

    fn has_skipped(&self, step: &str) -> bool {
        let skipped = rules::skip(step);
        self.accepted.iter().any(|accepted| accepted.rule == skipped)
    }

    /// Whether this run has tried as often as it may to take the step back.
    pub fn undo_failed(&self, name: &str, run: &str) -> bool {
        let retries = self.plan.step(name).map_or(0, |step| step.retries);
        let tried = self.tries.get(name).filter(|(of, _)| of == run);
        self.abandoning.is_some() && tried.is_some_and(|(_, tries)| *tries > retries)
    }

    /// Failed as often as it may, and the plan or a person says to go on; or a person said to leave it out.
    pub fn is_gone_without(&self, step: &Step) -> bool {
        if rules::can_be_skipped(step.role) && self.has_skipped(&step.name) {
            return !matches!(self.progress(&step.name), Progress::Running { interrupted: false, .. });
        }
        let Progress::Failed { tries, .. } = self.progress(&step.name) else {
            return false;
        };
        let answered_for = matches!(step.role, Role::Verify(_)) && self.has_accepted(Rule::Unverified);
        answered_for || (step.on_failure == OnFailure::Continue && *tries > step.retries)
    }

    pub fn has_accepted(&self, rule: Rule) -> bool {
        self.accepted.iter().any(|accepted| accepted.rule == rule.name())
    }

    /// Whether as many different people agreed as must.
    pub fn is_approved(&self) -> bool {
        self.approved.len() >= self.approvers as usize
    }

    /// The rules that keep a step from being started now, whatever it needs; each is waived by name, if at all.
    pub fn guards(&self, standing: &Standing, step: &Step) -> Vec<Rule> {
        let mut rules = Vec::new();
        match step.role {
            Role::Open(site) => {
                let fence = standing.fenced.get(&site.other());
                match fence {
                    Some(Proof::Proven) => {}
                    Some(Proof::Unprovable) => rules.push(Rule::Unfenced),
                    None if standing.serving == Some(site) => {}
                    None => rules.push(Rule::Unfenced),
                }
                let is_verified = self
                    .plan
                    .with_role(|role| role == Role::Verify(site))
                    .all(|verify| matches!(self.progress(&verify.name), Progress::Done { .. }));
                if !is_verified {
                    rules.push(Rule::Unverified);
                }
            }
            Role::Restore(Site::Primary) if !standing.standby_served => rules.push(Rule::NeverServed),
            Role::Restore(site) if standing.serving == Some(site) => rules.push(Rule::Serving),
            Role::Traffic(site) if standing.serving != Some(site) => rules.push(Rule::NotServing),
            Role::Unfence(site) if standing.serving == Some(site.other()) => rules.push(Rule::Serving),
            Role::Destroy if standing.serving == Some(Site::Standby) => rules.push(Rule::Serving),
            Role::Work
            | Role::LastBackup(_)
            | Role::Restore(_)
            | Role::Verify(_)
            | Role::Fence(_)
            | Role::Traffic(_)
            | Role::Preserve(_)
            | Role::Destroy
            | Role::Unfence(_) => {}
        }
        rules.retain(|rule| !(rule.can_be_waived() && self.has_accepted(*rule)));
        rules
    }

    fn take(&mut self, standing: &mut Standing, entry: &Entry) -> Result<(), String> {
        let (at, run) = (entry.at, &entry.by.run);
        match &entry.event {
            Event::Opened { .. } => Err("an operation is opened once".to_owned()),
            Event::Approved => {
                self.approved.insert(entry.by.who.clone());
                Ok(())
            }
            Event::Accept(accepted) => {
                self.accepted.push(accepted.clone());
                Ok(())
            }
            Event::Taken => Ok(()),
            Event::Left => {
                self.leave(run);
                Ok(())
            }
            Event::Started { step, bound } => self.start(standing, step, run, at, *bound),
            Event::Done { step, outcome } => self.finish(standing, step, run, at, outcome),
            Event::Failed { step, error, tries } => self.fail(step, run, error, *tries, at),
            Event::Renewed { backup } => self.renew(standing, backup),
            Event::Abandoning { reason } => {
                if self.committed_at.is_some() {
                    return Err("the commit point is passed".to_owned());
                }
                self.abandoning = Some((reason.clone(), at));
                Ok(())
            }
            Event::TakingBack { step, bound } => self.take_back(step, run, *bound),
            Event::TakenBack { step, .. } => self.taken_back(standing, step, run),
            Event::FenceProven { site } => {
                standing.fenced.insert(*site, Proof::Proven);
                Ok(())
            }
            Event::Ended { how, standing: told } => self.end(standing, *how, told, at),
        }
    }

    /// What a run that stopped by itself had under way is at work no more.
    fn leave(&mut self, run: &str) {
        for progress in self.steps.values_mut() {
            match progress {
                Progress::Running { run: of, interrupted, .. } | Progress::TakingBack { run: of, interrupted, .. }
                    if of == run =>
                {
                    *interrupted = true;
                }
                _ => {}
            }
        }
    }

    fn known(&self, name: &str) -> Result<Step, String> {
        self.plan.step(name).cloned().ok_or_else(|| format!("there is no step {name}"))
    }

    fn start(
        &mut self,
        standing: &mut Standing,
        name: &str,
        run: &str,
        at: Timestamp,
        bound: Timestamp,
    ) -> Result<(), String> {
        let step = self.known(name)?;
        if self.abandoning.is_some() {
            return Err("the operation is being abandoned".to_owned());
        }
        if !self.is_approved() {
            return Err("not enough people have approved".to_owned());
        }
        if let Some(need) = step.needs.iter().find(|need| !self.is_done(need)) {
            return Err(format!("{name} needs {need}"));
        }
        if let Some(rule) = self.guards(standing, &step).first() {
            return Err(format!("{name} stands against the rule {}", rule.name()));
        }
        match self.progress(name) {
            Progress::Waiting | Progress::Failed { .. } => {}
            Progress::Running { interrupted: true, .. } => {}
            Progress::Running { bound, .. } if step.guards_itself || *bound <= at => {}
            Progress::Running { .. } => return Err(format!("{name} is at work, and its time is not up")),
            Progress::Done { .. } | Progress::TakingBack { .. } | Progress::TakenBack => {
                return Err(format!("{name} is done"));
            }
        }
        // What the application may have written since cannot be taken back: from here on it counts as serving.
        if let Role::Open(site) = step.role
            && standing.serving != Some(site)
        {
            self.commit(standing, at);
            standing.serving = Some(site);
            match site {
                Site::Standby => standing.standby_served = true,
                Site::Primary => standing.standby_served = false,
            }
            standing.fenced.remove(&site);
        }
        self.steps.insert(
            name.to_owned(),
            Progress::Running {
                run: run.to_owned(),
                since: at,
                bound,
                interrupted: false,
            },
        );
        Ok(())
    }

    fn finish(
        &mut self,
        standing: &mut Standing,
        name: &str,
        run: &str,
        at: Timestamp,
        outcome: &Outcome,
    ) -> Result<(), String> {
        let step = self.known(name)?;
        let since = self.running(name, run)?;
        match step.role {
            Role::Fence(_) if outcome.proof.is_none() => {
                return Err(format!("{name} does not say whether the fence is proven"));
            }
            Role::Restore(_) if outcome.backup.is_none() => {
                return Err(format!("{name} does not say which backup it restored"));
            }
            _ => {}
        }
        match step.role {
            Role::Fence(site) => {
                let proof = outcome.proof.unwrap_or(Proof::Unprovable);
                standing.fenced.insert(site, proof);
                if proof == Proof::Proven && standing.serving == Some(site) {
                    // Proven, a failover's fence is the commit point: the primary takes no writes any more.
                    if site == self.aim.towards().other() && site == Site::Primary {
                        self.commit(standing, at);
                    }
                    standing.serving = None;
                }
            }
            Role::Unfence(site) => {
                standing.fenced.remove(&site);
                standing.serving.get_or_insert(site);
            }
            Role::Restore(site) => {
                if let Some(backup) = &outcome.backup {
                    standing.restored.insert(site, backup.clone());
                }
            }
            Role::LastBackup(_) => {
                // In an unplanned failover something older may have been restored meanwhile.
                if let Some(backup) = outcome.backup.as_ref().filter(|_| !self.pinned) {
                    self.renew(standing, backup)?;
                }
            }
            Role::Work | Role::Verify(_) | Role::Open(_) | Role::Traffic(_) | Role::Preserve(_) | Role::Destroy => {}
        }
        if !outcome.outputs.is_empty() {
            standing.outputs.insert(name.to_owned(), outcome.outputs.clone());
        }
        let outcome = outcome.clone();
        self.steps.insert(name.to_owned(), Progress::Done { outcome, since, at });
        Ok(())
    }

    /// The epoch rises, and belongs to the site that the operation goes to.
    fn commit(&mut self, standing: &mut Standing, at: Timestamp) {
        if self.committed_at.is_some() {
            return;
        }
        self.committed_at = Some(at);
        standing.epochs.push(Epoch {
            number: standing.epoch() + 1,
            since: at,
            site: self.aim.towards(),
        });
    }

    fn running(&self, name: &str, run: &str) -> Result<Timestamp, String> {
        match self.progress(name) {
            Progress::Running { run: of, since, .. } if of == run => Ok(*since),
            _ => Err(format!("{name} is not at work in run {run}")),
        }
    }

    fn fail(&mut self, name: &str, run: &str, error: &str, used: u32, at: Timestamp) -> Result<(), String> {
        match self.progress(name) {
            Progress::Running { run: of, .. } | Progress::TakingBack { run: of, .. } if of == run => {}
            _ => return Err(format!("{name} is not at work in run {run}")),
        }
        let before = self.tries.get(name).filter(|(of, _)| of == run).map_or(0, |(_, tries)| *tries);
        let tries = before.saturating_add(used.max(1));
        self.tries.insert(name.to_owned(), (run.to_owned(), tries));
        self.steps.insert(
            name.to_owned(),
            Progress::Failed {
                run: run.to_owned(),
                tries,
                error: error.to_owned(),
                at,
            },
        );
        Ok(())
    }

    /// The restore, and everything that follows from it but a fence, is to be done again.
    fn renew(&mut self, standing: &Standing, backup: &Chosen) -> Result<(), String> {
        let towards = self.aim.towards();
        if standing.serving == Some(towards) {
            return Err("the site serves already".to_owned());
        }
        if self.backup.as_ref().is_some_and(|old| old.consistent_at >= backup.consistent_at) {
            return Err("it is no newer than the one before".to_owned());
        }
        self.backup = Some(backup.clone());
        let restores: Vec<String> = self
            .plan
            .with_role(|role| role == Role::Restore(towards))
            .map(|step| step.name.clone())
            .collect();
        let mut again: BTreeSet<String> = restores.iter().cloned().collect();
        for name in &restores {
            again.extend(self.plan.after(name).into_iter().map(str::to_owned));
        }
        for name in again {
            let is_bound_to_data = self
                .plan
                .step(&name)
                .is_some_and(|step| !matches!(step.role, Role::Fence(_) | Role::LastBackup(_) | Role::Preserve(_)));
            if is_bound_to_data && matches!(self.progress(&name), Progress::Done { .. } | Progress::Failed { .. }) {
                self.steps.insert(name, Progress::Waiting);
            }
        }
        Ok(())
    }

    fn take_back(&mut self, name: &str, run: &str, bound: Timestamp) -> Result<(), String> {
        self.known(name)?;
        if self.abandoning.is_none() {
            return Err("the operation is not being abandoned".to_owned());
        }
        if matches!(self.progress(name), Progress::Waiting | Progress::TakenBack) {
            return Err(format!("there is nothing of {name} to take back"));
        }
        let later = self.plan.after(name);
        if let Some(later) = later.iter().find(|later| self.is_to_take_back(later)) {
            return Err(format!("{later} comes first"));
        }
        self.steps.insert(
            name.to_owned(),
            Progress::TakingBack {
                run: run.to_owned(),
                bound,
                interrupted: false,
            },
        );
        Ok(())
    }

    fn taken_back(&mut self, standing: &mut Standing, name: &str, run: &str) -> Result<(), String> {
        let step = self.known(name)?;
        match self.progress(name) {
            Progress::TakingBack { run: of, .. } if of == run => {}
            _ => return Err(format!("{name} is not being taken back in run {run}")),
        }
        standing.outputs.remove(name);
        match step.role {
            Role::Fence(site) => {
                standing.fenced.remove(&site);
                // Nobody else was opened, or it could not be abandoned.
                standing.serving.get_or_insert(site);
            }
            Role::Restore(site) => {
                standing.restored.remove(&site);
            }
            _ => {}
        }
        self.steps.insert(name.to_owned(), Progress::TakenBack);
        Ok(())
    }

    /// Whether abandoning still has to do with this step.
    pub fn is_to_take_back(&self, name: &str) -> bool {
        let can_be = self.plan.step(name).is_some_and(|step| step.takes_back) && !self.has_skipped(name);
        match self.progress(name) {
            Progress::Done { outcome, .. } => can_be && !outcome.found,
            Progress::Running { .. } | Progress::Failed { .. } => can_be,
            Progress::TakingBack { .. } => can_be,
            Progress::Waiting | Progress::TakenBack => false,
        }
    }

    fn end(&mut self, standing: &mut Standing, how: Ended, told: &Standing, at: Timestamp) -> Result<(), String> {
        match how {
            Ended::Done => {
                if let Some(step) = self.plan.steps.iter().find(|step| !self.is_done(&step.name)) {
                    return Err(format!("{} is not done", step.name));
                }
            }
            Ended::Abandoned => {
                if self.abandoning.is_none() {
                    return Err("the operation is not being abandoned".to_owned());
                }
                if let Some(step) = self.plan.steps.iter().find(|step| self.is_to_take_back(&step.name)) {
                    return Err(format!("{} is not taken back", step.name));
                }
            }
        }
        *standing = self.leaves(standing, how);
        if told != standing {
            return Err("it tells of another standing than there is".to_owned());
        }
        self.ended = Some((how, at));
        Ok(())
    }

    /// What is left when the operation ends so.
    pub fn leaves(&self, standing: &Standing, how: Ended) -> Standing {
        let mut left = standing.clone();
        let is_left = self.plan.steps.iter().any(|step| {
            step.takes_back && !matches!(self.progress(&step.name), Progress::Waiting | Progress::TakenBack)
        });
        match (how, self.aim) {
            (Ended::Done, Aim::Failover { stage, .. }) => left.stage = left.stage.max(stage),
            (Ended::Done, Aim::Failback | Aim::StandDown) => {
                left.stage = 1;
                left.outputs.clear();
                left.restored.remove(&Site::Standby);
                // Nothing is left of it that could serve.
                left.fenced.remove(&Site::Standby);
            }
            (Ended::Abandoned, Aim::Failover { .. }) if !is_left => left.stage = 1,
            (Ended::Abandoned, _) => {}
        }
        left
    }
}
