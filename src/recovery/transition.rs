//! How each event changes an operation and what outlasts it; one that does not follow is refused. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::event::{Chosen, Ended, Entry, Event, Outcome, Proof};
use super::operation::Operation;
use super::plan::{Aim, Place, Role, Site, Step};
use super::rules::{self, Rule};
use super::state::{Epoch, Given, Progress, Standing};

impl Operation {
    pub(super) fn take(&mut self, standing: &mut Standing, entry: &Entry) -> Result<(), String> {
        let (at, run) = (entry.at, &entry.by.run);
        match &entry.event {
            Event::Opened { .. } => Err("an operation is opened once".to_owned()),
            Event::Approved => {
                self.approved.insert(entry.by.who.clone());
                Ok(())
            }
            Event::Accept(accepted) => {
                self.accepted.push(accepted.clone());
                self.leave_fenced(&accepted.rule);
                if let Some(rule) = Rule::named(&accepted.rule) {
                    self.void.remove(&rule);
                    if rule == Rule::StillAtWork {
                        self.taken_since.clear();
                    }
                }
                // The others agreed with something else.
                if self.approvers > 1 {
                    self.approved = BTreeSet::from([entry.by.who.clone()]);
                }
                Ok(())
            }
            Event::Taken { at: place } => {
                // Whoever answered for it knew who was at work then, not who vanished since.
                if !self.taken_since.insert(*place) {
                    self.void.insert(Rule::StillAtWork);
                }
                // A person who goes on has looked at what failed; the runner has not.
                if *place == Place::Operator {
                    self.try_anew();
                    self.fence_anew(standing);
                }
                Ok(())
            }
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
            Event::FenceProven { site, standing: told } => {
                standing.proven(*site)?;
                if told == standing {
                    Ok(())
                } else {
                    Err("it tells of another standing than there is".to_owned())
                }
            }
            Event::Ended { how, standing: told } => self.end(standing, *how, told, at),
        }
    }

    /// While the operation is abandoned, a person may say that a fence stays as it is: its site may be gone for good. Said before,
    /// it means nothing: no other site opens beside one that is not fenced.
    fn leave_fenced(&mut self, rule: &str) {
        let named = |step: &&Step| matches!(step.role, Role::Fence(_)) && rules::skip(&step.name) == rule;
        if self.abandoning.is_some()
            && let Some(step) = self.plan.steps.iter().find(named)
        {
            self.left_fenced.insert(step.name.clone());
        }
    }

    /// What failed may be tried as often again.
    fn try_anew(&mut self) {
        self.tries.clear();
        for progress in self.steps.values_mut() {
            if let Progress::Failed { tries, .. } = progress {
                *tries = 0;
            }
        }
    }

    /// A fence that could not be proven may hold by now, unless somebody has answered for it; and what was the last backup before
    /// it holds, is not the last.
    fn fence_anew(&mut self, standing: &Standing) {
        if self.abandoning.is_some() || self.has_accepted(Rule::Unfenced) {
            return;
        }
        let Some(site) = standing.serving else { return };
        if standing.fenced.get(&site) != Some(&Proof::Unprovable) {
            return;
        }
        let fences = self.plan.with_role(|role| role == Role::Fence(site));
        let mut again: BTreeSet<String> = fences.map(|step| step.name.clone()).collect();
        let lasts = self.plan.with_role(|role| role == Role::LastBackup(site));
        again.extend(lasts.map(|step| step.name.clone()));
        for name in again {
            if let Progress::Done { .. } = self.progress(&name) {
                self.steps.insert(name, Progress::Waiting);
            }
        }
    }

    /// What a run that stopped by itself had under way is at work no more.
    fn leave(&mut self, run: &str) {
        for progress in self.steps.values_mut() {
            match progress {
                Progress::Running {
                    run: of, interrupted, ..
                }
                | Progress::TakingBack {
                    run: of, interrupted, ..
                } if of == run => {
                    *interrupted = true;
                }
                _ => {}
            }
        }
    }

    fn known(&self, name: &str) -> Result<Step, String> {
        self.plan
            .step(name)
            .cloned()
            .ok_or_else(|| format!("there is no step {name}"))
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
            Progress::Running { bound, .. }
                if step.guards_itself || *bound <= at || self.has_accepted(Rule::StillAtWork) => {}
            Progress::Running { .. } => return Err(format!("{name} is at work, and its time is not up")),
            Progress::Done { .. } | Progress::TakingBack { .. } | Progress::TakenBack => {
                return Err(format!("{name} is done"));
            }
        }
        if !matches!(self.progress(name), Progress::Waiting) {
            // Whoever was broken off may have made it, even if it is found there now.
            self.made.insert(name.to_owned());
        }
        self.stale.remove(name);
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
        if !outcome.found {
            self.made.insert(name.to_owned());
        }
        let is_of_another = matches!(step.role, Role::Restore(_)) && outcome.backup != self.backup;
        if self.stale.remove(name) || is_of_another {
            // A newer backup has come meanwhile: done, and to be done again.
            self.steps.insert(name.to_owned(), Progress::Waiting);
            return Ok(());
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
                // In an unplanned failover something older may have been restored meanwhile. Whatever the clocks say: it is the last.
                let is_other = |backup: &&Chosen| !self.pinned && self.backup.as_ref() != Some(backup);
                if let Some(backup) = outcome.backup.as_ref().filter(is_other) {
                    self.restore_anew(standing, backup)?;
                }
            }
            Role::Work | Role::Verify(_) | Role::Open(_) | Role::Traffic(_) | Role::Preserve(_) | Role::Destroy => {}
        }
        if !outcome.outputs.is_empty() {
            let (stage, values) = (step.stage, outcome.outputs.clone());
            standing.outputs.insert(name.to_owned(), Given { stage, values });
        }
        let outcome = outcome.clone();
        self.steps
            .insert(name.to_owned(), Progress::Done { outcome, since, at });
        Ok(())
    }

    /// The epoch rises, and belongs to the site that the operation goes to.
    fn commit(&mut self, standing: &mut Standing, at: Timestamp) {
        // What comes to its end while the operation is abandoned, is taken back.
        if self.committed_at.is_some() || self.abandoning.is_some() {
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
        if self.stale.remove(name) {
            self.steps.insert(name.to_owned(), Progress::Waiting);
            return Ok(());
        }
        let before = self
            .tries
            .get(name)
            .filter(|(of, _)| of == run)
            .map_or(0, |(_, tries)| *tries);
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

    fn renew(&mut self, standing: &Standing, backup: &Chosen) -> Result<(), String> {
        if self
            .backup
            .as_ref()
            .is_some_and(|old| old.consistent_at >= backup.consistent_at)
        {
            return Err("it is no newer than the one before".to_owned());
        }
        self.restore_anew(standing, backup)
    }

    /// The restore, and everything that follows from it but a fence, is to be done again.
    fn restore_anew(&mut self, standing: &Standing, backup: &Chosen) -> Result<(), String> {
        let towards = self.aim.towards();
        if standing.serving == Some(towards) {
            return Err("the site serves already".to_owned());
        }
        self.backup = Some(backup.clone());
        self.renewals += 1;
        // That another backup may be restored without having been compared says nothing of this one.
        self.void.insert(Rule::Unverified);
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
            if !is_bound_to_data {
                continue;
            }
            match self.progress(&name) {
                Progress::Done { .. } | Progress::Failed { .. } => {
                    self.steps.insert(name, Progress::Waiting);
                }
                Progress::Running { .. } => {
                    self.stale.insert(name);
                }
                Progress::Waiting | Progress::TakingBack { .. } | Progress::TakenBack => {}
            }
        }
        Ok(())
    }

    fn take_back(&mut self, name: &str, run: &str, bound: Timestamp) -> Result<(), String> {
        self.known(name)?;
        if self.abandoning.is_none() {
            return Err("the operation is not being abandoned".to_owned());
        }
        if !self.is_to_take_back(name) {
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

    fn end(&mut self, standing: &mut Standing, how: Ended, told: &Standing, at: Timestamp) -> Result<(), String> {
        match how {
            Ended::Done if matches!(self.aim, Aim::Drill { .. }) => {
                return Err("a rehearsal ends with everything taken back".to_owned());
            }
            Ended::Done => {
                if let Some(step) = self.plan.steps.iter().find(|step| !self.is_done(&step.name)) {
                    return Err(format!("{} is not done", step.name));
                }
            }
            Ended::GivenUp => {
                if !self.can_be_given_up(standing) {
                    return Err("it can be gone on with, or taken back".to_owned());
                }
                if let Some((step, until)) = self.at_work(at).first() {
                    return Err(format!("{} may be at work until {until}", step.name));
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
}
