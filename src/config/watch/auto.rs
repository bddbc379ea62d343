//! `[watch.auto]`: what a failover without a person may do, and why it may not be configured.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Auto, SECOND, Then, UnprovableFence, Watch};
use crate::config::collect::{Document, Section};
use crate::config::sections::{HOUR, MINUTE, YEAR};
use crate::config::steps::{Failover, Kind as StepKind, Step};
use crate::config::units::format_duration;

/// Watchers that `auto` needs at least: with two, one that is cut off is half of all.
const FEWEST_FOR_AUTO: usize = 3;

/// Read whether or not it is asked for, so that its keys are known.
pub(super) fn auto(document: &mut Document<'_>, failover: Failover) -> Option<Auto> {
    let is_there = document.has("watch.auto");
    let mut section = document.section("watch.auto");
    let grace = section
        .duration("grace", Duration::ZERO..=24 * HOUR)
        .unwrap_or(3 * MINUTE);
    let max_loss = section.duration("max_loss", SECOND..=YEAR).unwrap_or(failover.max_loss);
    let fence = [("stop", UnprovableFence::Stop), ("accept", UnprovableFence::Accept)];
    let fence = section.choice("unprovable_fence", &fence);
    let stage = section.count("stage", 2..=3).and_then(|stage| u8::try_from(stage).ok());
    if !is_there {
        return None;
    }
    if fence.is_none() && !section.has("unprovable_fence") {
        section.problem(
            "unprovable_fence",
            "is missing: a primary that vanished cannot be proven to take no writes. Write \"accept\" to open the standby all the \
             same, or \"stop\" to wait for a person there",
        );
    }
    if max_loss > failover.max_loss {
        section.problem(
            "max_loss",
            format!(
                "is more than failover.max_loss = {}, which refuses it to anybody: lower it, or raise that",
                format_duration(failover.max_loss)
            ),
        );
    }
    Some(Auto {
        grace,
        max_loss,
        unprovable_fence: fence.unwrap_or(UnprovableFence::Stop),
        stage: stage.unwrap_or(3),
    })
}

/// What nobody would be there to do, or to doubt.
pub(super) fn check_auto(section: &mut Section<'_, '_>, watch: &Watch, failover: Failover, steps: &[Step]) {
    let Then::Auto(auto) = &watch.then else {
        section.problem(
            "then",
            "\"auto\" needs a section [watch.auto], with at least unprovable_fence = \"stop\" or \"accept\"",
        );
        return;
    };
    if watch.watchers.len() < FEWEST_FOR_AUTO {
        section.problem(
            "watchers",
            "must be at least three for then = \"auto\": of two, one that is cut off is half of all",
        );
    }
    match &watch.primary_region {
        None => section.problem(
            "primary_region",
            "is missing: then = \"auto\" needs most watchers outside it, e.g. primary_region = \"ap-northeast-2\"",
        ),
        Some(primary) => {
            let outside = watch.watchers.iter().filter(|watcher| watcher.region != *primary);
            if outside.count() * 2 <= watch.watchers.len() {
                section.problem(
                    "watchers",
                    format!(
                        "must stand outside {primary} for the most part: when that region is cut off, those inside it see what \
                         nobody else does"
                    ),
                );
            }
        }
    }
    if failover.approvers > 1 {
        section.problem(
            "then",
            "\"auto\" cannot be with failover.approvers above 1: nobody would be there to agree",
        );
    }
    if !steps.iter().any(|step| step.stage == auto.stage) {
        section.problem(
            "then",
            format!(
                "\"auto\" has nothing to do: there is no [[failover_steps]] of stage {}",
                auto.stage
            ),
        );
    }
    for name in waits_for_a_person(steps, auto.stage) {
        section.problem(
            "then",
            format!(
                "\"auto\" would wait for a person at the manual step {name}, and begin nothing more: let it need what opens the \
                 standby and what moves traffic, or write on_failure = \"continue\" there"
            ),
        );
    }
}

/// Manual steps that do not come after everything that matters.
fn waits_for_a_person(steps: &[Step], stage: u8) -> Vec<&str> {
    let taken: Vec<&Step> = steps.iter().filter(|step| (2..=stage).contains(&step.stage)).collect();
    let matters = |step: &&&Step| !matches!(step.kind, StepKind::Manual { .. } | StepKind::Http(_));
    taken
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Manual { .. }) && !step.goes_on)
        .filter(|manual| {
            let before = before(&taken, &manual.name);
            !taken
                .iter()
                .filter(matters)
                .all(|step| before.contains(step.name.as_str()))
        })
        .map(|step| step.name.as_str())
        .collect()
}

/// Everything that must be done before `name`.
fn before<'a>(steps: &[&'a Step], name: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let needs = steps.iter().find(|step| step.name == name).map(|step| &step.needs);
        for need in needs.into_iter().flatten() {
            if found.insert(need.as_str()) {
                open.push(need);
            }
        }
    }
    found
}
