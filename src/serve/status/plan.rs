//! Who serves, and the plan: at rest as it stands in the configuration, in an operation with each step's state.

use jiff::Timestamp;

use super::html::{Html, span};
use crate::recovery::event::Proof;
use crate::recovery::operation::Operation;
use crate::recovery::plan::{Site, Step};
use crate::recovery::state::{Progress, Standing};
use crate::serve::board::Facts;

/// The operation that is under way.
pub(super) fn open(facts: &Facts) -> Option<&Operation> {
    facts.journal.as_ref()?.position.as_ref().ok()?.state.open()
}

fn standing(facts: &Facts) -> Option<&Standing> {
    Some(&facts.journal.as_ref()?.position.as_ref().ok()?.state.standing)
}

pub(super) fn pills(html: &mut Html, facts: &Facts) {
    let Some(standing) = standing(facts) else { return };
    html.raw(match standing.serving {
        Some(Site::Primary) => "<span class=\"pill good\">primary serves</span>",
        Some(Site::Standby) => "<span class=\"pill warn\">STANDBY serves</span>",
        None => "<span class=\"pill bad\">NOBODY serves</span>",
    });
    html.raw("<span class=\"pill info\">stage ")
        .text(&standing.stage.to_string());
    html.raw(", epoch ").text(&standing.epoch().to_string()).raw("</span>");
    for site in standing.pending_fences() {
        html.raw("<span class=\"pill bad\">fence of the ")
            .raw(site.name())
            .raw(" not proven</span>");
    }
}

/// What is under way, at the top of the page.
pub(super) fn operation(html: &mut Html, facts: &Facts, now: Timestamp) {
    let Some(operation) = open(facts) else { return };
    let has_failed = operation
        .steps
        .values()
        .any(|step| matches!(step, Progress::Failed { .. }));
    html.raw(if has_failed {
        "<section class=\"alarm\"><h2>"
    } else {
        "<section class=\"alarm calm\"><h2>"
    });
    html.text(&operation.aim.command());
    let since = span(now.duration_since(operation.opened_at).as_secs_f64());
    html.raw(" <small>begun ")
        .text(&since)
        .raw(" ago by ")
        .text(&operation.opened_by.who)
        .raw(" on ")
        .text(&operation.opened_by.host);
    let done = operation
        .plan
        .steps
        .iter()
        .filter(|step| operation.is_done(&step.name))
        .count();
    html.raw("; ")
        .count(done)
        .raw(" of ")
        .count(operation.plan.steps.len())
        .raw(" steps done");
    match (&operation.abandoning, operation.committed_at) {
        (Some((reason, _)), _) => {
            html.raw("; being taken back: ").text(reason);
        }
        (None, Some(_)) => {
            html.raw("; past the commit point: only forward");
        }
        (None, None) => {
            html.raw("; everything can still be taken back");
        }
    }
    html.raw("</small></h2>");
    let is_interrupted = |step: &Progress| matches!(step, Progress::Running { interrupted: true, .. });
    if has_failed || operation.steps.values().any(is_interrupted) {
        html.raw("<p class=\"next\">To go on: <code>")
            .text(&operation.aim.command())
            .raw(" --resume</code>");
        if operation.committed_at.is_none() && operation.abandoning.is_none() {
            html.raw(" To take it back: <code>")
                .text(&operation.aim.command())
                .raw(" --abandon</code>");
        }
        html.raw("</p>");
    }
    if let Some(backup) = &operation.backup {
        html.raw("<p class=\"dim\">with ").text(&backup.id).raw("</p>");
    }
    stages(
        html,
        &operation.plan.steps,
        |step| step.stage,
        |html, step| {
            let at_work = facts
                .journal
                .as_ref()
                .and_then(|journal| journal.at_work.get(&step.name));
            one(html, step, operation, at_work.map(String::as_str), now);
        },
    );
    html.raw("</section>");
}

/// Steps under the stage that they belong to.
fn stages<T>(html: &mut Html, steps: &[T], stage: impl Fn(&T) -> u8, mut one: impl FnMut(&mut Html, &T)) {
    html.raw("<div class=\"stages\">");
    for (number, title) in [
        (1, "<div><h3>Stage 1: always there</h3><ol class=\"steps\">"),
        (2, "<div><h3>Stage 2: the database</h3><ol class=\"steps\">"),
        (3, "<div><h3>Stage 3: the service</h3><ol class=\"steps\">"),
    ] {
        let mut of_stage = steps.iter().filter(|step| stage(step) == number).peekable();
        if of_stage.peek().is_none() {
            continue;
        }
        html.raw(title);
        of_stage.for_each(|step| one(html, step));
        html.raw("</ol></div>");
    }
    html.raw("</div>");
}

fn one(html: &mut Html, step: &Step, operation: &Operation, at_work: Option<&str>, now: Timestamp) {
    let progress = operation.progress(&step.name);
    let seconds = |since: Timestamp, until: Timestamp| span(until.duration_since(since).as_secs_f64());
    let (class, took, text) = match progress {
        Progress::Waiting => ("<li class=\"waiting\"><i>·</i><span>", String::new(), String::new()),
        Progress::Running {
            interrupted: false,
            since,
            ..
        } => (
            "<li class=\"running\"><i>▸</i><span>",
            seconds(*since, now),
            at_work.unwrap_or_default().to_owned(),
        ),
        Progress::Running { .. } => (
            "<li class=\"failed\"><i>!</i><span>",
            "interrupted".to_owned(),
            "whoever carried it out is gone; --resume goes on".to_owned(),
        ),
        Progress::Done { outcome, since, at } => {
            let proof = match outcome.proof {
                Some(Proof::Proven) => "proven",
                Some(Proof::Unprovable) => "NOT provable",
                None => "",
            };
            let told: Vec<&str> = [proof, outcome.note.as_str()]
                .into_iter()
                .filter(|text| !text.is_empty())
                .collect();
            let took = if outcome.found {
                "there already".to_owned()
            } else {
                seconds(*since, *at)
            };
            ("<li class=\"done\"><i>✓</i><span>", took, told.join(": "))
        }
        Progress::Failed { error, tries, .. } => {
            let tries = if *tries > 1 {
                format!("failed, {tries} tries")
            } else {
                "failed".to_owned()
            };
            ("<li class=\"failed\"><i>✗</i><span>", tries, error.clone())
        }
        Progress::TakingBack { .. } => (
            "<li class=\"back\"><i>↶</i><span>",
            "being taken back".to_owned(),
            String::new(),
        ),
        Progress::TakenBack => (
            "<li class=\"back\"><i>↶</i><span>",
            "taken back".to_owned(),
            String::new(),
        ),
    };
    html.raw(class)
        .text(&step.name)
        .raw("</span><em>")
        .text(&took)
        .raw("</em>");
    if !text.is_empty() {
        html.raw("<small>").text(&text).raw("</small>");
    }
    html.raw("</li>");
}

/// What a failover would do, as it is configured.
pub(super) fn at_rest(html: &mut Html, facts: &Facts) {
    let Some(config) = facts.config.as_ref().filter(|_| open(facts).is_none()) else {
        return;
    };
    html.raw("<section><h2>Recovery plan ");
    let last = facts
        .journal
        .as_ref()
        .and_then(|journal| journal.position.as_ref().ok());
    if let Some((operation, at)) = last
        .and_then(|position| position.state.operation.as_ref())
        .and_then(|operation| Some((operation, operation.ended.as_ref()?.1)))
    {
        html.raw("<small>last: ").text(&operation.aim.command()).raw(", ended ");
        html.text(&at.strftime("%Y-%m-%d %H:%M UTC").to_string())
            .raw("</small>");
    }
    html.raw("</h2>");
    let steps = &config.failover_steps;
    if steps.is_empty() {
        html.raw("<p class=\"dim\">no [[failover_steps]] are configured: backups only</p></section>");
        return;
    }
    let stands = |name: &str| standing(facts).is_some_and(|standing| standing.outputs.contains_key(name));
    stages(
        html,
        steps,
        |step| step.stage,
        |html, step| {
            let stands = stands(&step.name);
            html.raw(if stands {
                "<li class=\"done\"><i>✓</i><span>"
            } else {
                "<li><i>·</i><span>"
            })
            .text(&step.name);
            html.raw("</span><em>")
                .raw(if stands { "stands" } else { "" })
                .raw("</em></li>");
        },
    );
    html.raw("</section>");
}
