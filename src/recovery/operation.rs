//! An operation as its journal tells it, and what may be asked of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::event::{Accepted, By, Chosen, Ended, Outcome, Proof};
use super::plan::{Aim, OnFailure, Place, Plan, Role, Site, Step};
use super::rules::{self, Rule};
use super::state::{Progress, Standing};

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
    pub(super) tries: BTreeMap<String, (String, u32)>,
    /// Steps that made something, as far as anybody knows: they were begun and broken off, or said so.
    pub(super) made: BTreeSet<String>,
    /// At work while the backup was renewed: what they do is of the older one.
    pub(super) stale: BTreeSet<String>,
    /// What was answered for of something else than there is by now: another backup, or another takeover.
    pub(super) void: BTreeSet<Rule>,
    /// Where the operation was gone on with since `still-at-work` was answered for.
    pub(super) taken_since: BTreeSet<Place>,
    /// How often a newer backup took the place of the one before.
    pub renewals: u32,
    /// As the operation before left it.
    pub before: Standing,
    /// When the commit point was passed.
    pub committed_at: Option<Timestamp>,
    /// Why, and when.
    pub abandoning: Option<(String, Timestamp)>,
    /// Fences that somebody said to leave as they are, while the operation was being abandoned.
    pub(super) left_fenced: BTreeSet<String>,
    pub ended: Option<(Ended, Timestamp)>,
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

    /// Whether the step made something, as far as anybody knows; not where all was found as it should be.
    pub fn has_made(&self, step: &str) -> bool {
        self.made.contains(step)
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
        !self.void.contains(&rule) && self.accepted.iter().any(|accepted| accepted.rule == rule.name())
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
                let mut comparisons = self.plan.with_role(|role| role == Role::Verify(site)).peekable();
                // Where no step compares, nothing was compared.
                let is_verified = comparisons.peek().is_some()
                    && comparisons.all(|verify| matches!(self.progress(&verify.name), Progress::Done { .. }));
                if !is_verified {
                    rules.push(Rule::Unverified);
                }
            }
            Role::Restore(Site::Primary) if !standing.standby_served => rules.push(Rule::NeverServed),
            // A primary that comes back may take writes that nobody would find again.
            Role::Preserve(Site::Primary) | Role::Restore(Site::Primary)
                if standing.fenced.get(&Site::Primary) != Some(&Proof::Proven) =>
            {
                rules.push(Rule::OldPrimaryUnfenced);
            }
            // It holds what nobody else has.
            Role::Restore(Site::Standby) if standing.standby_served => rules.push(Rule::Serving),
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

    /// Whether the backup to restore was taken after the other site was proven to take no more writes: then nothing is newer,
    /// whatever clocks say.
    pub fn has_the_last(&self, standing: &Standing) -> bool {
        let other = self.aim.towards().other();
        let mut lasts = self.plan.with_role(|role| role == Role::LastBackup(other));
        let is_it = |outcome: &Outcome| outcome.backup.is_some() && outcome.backup == self.backup;
        standing.fenced.get(&other) == Some(&Proof::Proven)
            && !self.has_accepted(Rule::Unfenced)
            && lasts.any(|step| matches!(self.progress(&step.name), Progress::Done { outcome, .. } if is_it(outcome)))
    }

    /// Steps that could begin now, were it not for these rules.
    pub fn refused(&self, standing: &Standing) -> Vec<(String, Rule)> {
        let is_next = |step: &&Step| {
            let may_begin = matches!(
                self.progress(&step.name),
                Progress::Waiting | Progress::Failed { .. } | Progress::Running { interrupted: true, .. }
            );
            may_begin && !self.is_done(&step.name) && step.needs.iter().all(|need| self.is_done(need))
        };
        if self.abandoning.is_some() || self.ended.is_some() {
            return Vec::new();
        }
        let steps = self.plan.steps.iter().filter(is_next);
        steps
            .flat_map(|step| {
                let rules = self.guards(standing, step).into_iter();
                rules.map(|rule| (step.name.clone(), rule)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// Whether abandoning still has to do with this step.
    pub fn is_to_take_back(&self, name: &str) -> bool {
        let Some(step) = self.plan.step(name) else { return false };
        // A fence that is left standing would stand at the site that serves: only who knows that it is to be may say so.
        let is_left = match step.role {
            Role::Fence(_) => self.left_fenced.contains(name),
            _ => self.has_skipped(name),
        };
        let can_be = step.takes_back && !is_left && !self.was_there_before(step);
        // Whatever a rehearsal found there was left by an earlier one.
        let is_drill = matches!(self.aim, Aim::Drill { .. });
        match self.progress(name) {
            Progress::Done { .. } if is_drill => can_be,
            Progress::Done { .. } | Progress::Waiting => can_be && self.made.contains(name),
            Progress::Running { .. } | Progress::Failed { .. } | Progress::TakingBack { .. } => can_be,
            Progress::TakenBack => false,
        }
    }

    /// Whether it stood before the operation, whose it is not to take back then: a fence, or what belongs to a stage that an
    /// earlier operation built.
    fn was_there_before(&self, step: &Step) -> bool {
        match (step.role, self.aim) {
            // One that nobody could lift, at a site that serves, is lifted by whoever can.
            (Role::Fence(site), _) => self.before.fenced.contains_key(&site) && self.before.serving != Some(site),
            (_, Aim::Failover { .. }) => step.stage > 1 && self.before.stage >= step.stage,
            (_, Aim::Failback | Aim::StandDown | Aim::Drill { .. }) => false,
        }
    }

    /// What it means to go on without a step that failed, and how to say so; where that is not plain.
    pub fn way_without(&self, name: &str) -> Option<String> {
        let accept = format!("{} --resume --accept {}=REASON", self.aim.command(), rules::skip(name));
        match (self.plan.step(name)?.role, &self.abandoning, &self.backup) {
            (Role::Fence(site), Some(_), _) => Some(format!(
                "; where the {site} is gone, and the fence there cannot be lifted: {accept} leaves it as it is, and a later planb \
                 failback lifts it"
            )),
            (Role::LastBackup(site), None, Some(backup)) => Some(format!(
                "; where the {site} is gone: {accept} goes on with {} instead, and what the {site} took in after {} is lost",
                backup.id, backup.consistent_at
            )),
            _ => None,
        }
    }

    /// Whether nobody serves, and nobody has since the operation began: then there is a way back after the commit point, once
    /// nothing is at work any more.
    pub fn can_be_given_up(&self, standing: &Standing) -> bool {
        self.committed_at.is_some() && standing.serving.is_none() && !standing.standby_served
    }

    /// Steps whose effect may still happen, with where they are and until when; whoever has vanished is waited for no longer.
    pub fn at_work(&self, now: Timestamp) -> Vec<(&Step, Timestamp)> {
        if self.has_accepted(Rule::StillAtWork) {
            return Vec::new();
        }
        let steps = self.plan.steps.iter();
        steps
            .filter_map(|step| match self.progress(&step.name) {
                Progress::Running {
                    bound,
                    interrupted: false,
                    ..
                } if *bound > now => Some((step, *bound)),
                _ => None,
            })
            .collect()
    }

    /// Sites of fences that were begun, and left as they are.
    fn fences_left(&self) -> impl Iterator<Item = Site> {
        let was_begun = |step: &&Step| match self.progress(&step.name) {
            Progress::TakenBack => false,
            Progress::Running { .. } | Progress::Failed { .. } | Progress::TakingBack { .. } => true,
            Progress::Waiting | Progress::Done { .. } => self.made.contains(&step.name),
        };
        let steps = self.plan.steps.iter().filter(was_begun);
        steps.filter_map(|step| match step.role {
            Role::Fence(site) if self.left_fenced.contains(&step.name) => Some(site),
            _ => None,
        })
    }

    /// What is left when the operation ends so.
    pub fn leaves(&self, standing: &Standing, how: Ended) -> Standing {
        let mut left = standing.clone();
        let is_left = self.plan.steps.iter().any(|step| {
            step.takes_back
                && self.made.contains(&step.name)
                && *self.progress(&step.name) != Progress::TakenBack
                && !self.was_there_before(step)
        });
        if how == Ended::Abandoned {
            // Nobody knows how they stand. The site serves all the same: nobody else was opened.
            for site in self.fences_left() {
                left.fenced.insert(site, Proof::Unprovable);
                left.serving.get_or_insert(site);
            }
        }
        match (how, self.aim) {
            (Ended::Done, Aim::Failover { stage, .. }) => left.stage = left.stage.max(stage),
            (Ended::Done, Aim::Failback | Aim::StandDown) => {
                left.stage = 1;
                left.outputs.retain(|_, given| given.stage == 1);
                left.restored.remove(&Site::Standby);
                // Nothing is left of it that could serve.
                left.fenced.remove(&Site::Standby);
            }
            (Ended::Abandoned, Aim::Failover { .. }) if !is_left => {
                left.stage = self.before.stage;
                left.outputs.retain(|name, _| self.before.outputs.contains_key(name));
            }
            // It leaves nothing.
            (_, Aim::Drill { .. }) => left = self.before.clone(),
            (Ended::Abandoned | Ended::GivenUp, _) => {}
        }
        left
    }
}
