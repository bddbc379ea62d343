//! Rehearsals: whether the last ones met their targets, what they foretell, and whether one was left standing.

use jiff::Timestamp;

use super::html::{Html, span};
use super::{BAD, GOOD, PLAIN, WARN, ago, tile};
use crate::drill::page::foretold;
use crate::drill::report::{Measure, Report, Verdict};
use crate::serve::board::{Drilled, Facts};

/// Of the past, so many.
const SHOWN: usize = 5;

fn drilled(facts: &Facts) -> Option<&Drilled> {
    facts.drilled.as_deref()
}

/// One that costs money and that nobody is at.
pub(super) fn alarm(html: &mut Html, facts: &Facts, now: Timestamp) {
    let Some(left) = drilled(facts)
        .and_then(|drilled| drilled.open.as_ref())
        .filter(|open| !open.is_at_work)
    else {
        return;
    };
    html.raw("<section class=\"alarm\"><h2>A rehearsal was left standing <small>begun ")
        .text(&ago(left.begun_at, now))
        .raw(" by ")
        .text(&left.who)
        .raw(" on ")
        .text(&left.host);
    html.raw("</small></h2><p>What it made still stands, and costs. Whoever keeps <code>[drill]</code> takes it back by itself; by hand: <code>planb drill --clean</code></p></section>");
}

/// The figure beside the RPO: how long it would take, as it was measured last.
pub(super) fn last(html: &mut Html, facts: &Facts, now: Timestamp) {
    let is_planned = facts
        .config
        .as_ref()
        .is_some_and(|config| !config.failover_steps.is_empty());
    let Some(drilled) = drilled(facts).filter(|_| is_planned) else {
        return;
    };
    let title = "Rehearsed RTO";
    let Some(report) = drilled.reports.first() else {
        tile(html, WARN, title, "never", "nothing was rehearsed: planb drill");
        return;
    };
    let figure = report.rto.seconds.map_or_else(|| report.result.name().to_owned(), span);
    let breaks = report
        .forecast
        .as_ref()
        .is_some_and(|told| told.seconds > told.target_seconds);
    let class = match (report.result, breaks) {
        (Verdict::Failed, _) => BAD,
        (Verdict::Missed, _) | (_, true) => WARN,
        (Verdict::Met, false) => GOOD,
        (Verdict::Interrupted, false) => PLAIN,
    };
    let more = format!(
        "target {}; to healthy, stage {}, {}",
        span(report.rto.target_seconds),
        report.stage,
        ago(report.begun_at, now)
    );
    tile(html, class, title, &figure, &more);
}

pub(super) fn section(html: &mut Html, facts: &Facts, now: Timestamp) {
    let is_planned = facts
        .config
        .as_ref()
        .is_some_and(|config| !config.failover_steps.is_empty());
    let Some(drilled) = drilled(facts).filter(|drilled| is_planned || !drilled.reports.is_empty()) else {
        return;
    };
    html.raw("<section><h2>Rehearsals ");
    let newest = drilled.reports.first();
    if let Some(text) = newest.and_then(foretold) {
        html.raw("<small>").text(&text).raw("</small>");
    }
    html.raw("</h2><ul class=\"findings\">");
    if let Some(open) = &drilled.open {
        html.raw(if open.is_at_work {
            "<li><span class=\"pill info\">under way</span> begun "
        } else {
            "<li><span class=\"pill bad\">left standing</span> begun "
        });
        html.text(&ago(open.begun_at, now))
            .raw(" by ")
            .text(&open.who)
            .raw("</li>");
    }
    for report in drilled.reports.iter().take(SHOWN) {
        one(html, report);
    }
    if drilled.reports.is_empty() && drilled.open.is_none() {
        html.raw("<li class=\"dim\">nothing was rehearsed yet: planb drill</li>");
    }
    html.raw("</ul></section>");
}

fn one(html: &mut Html, report: &Report) {
    html.raw(match report.result {
        Verdict::Met => "<li><span class=\"pill good\">met</span> ",
        Verdict::Missed => "<li><span class=\"pill warn\">missed</span> ",
        Verdict::Failed => "<li><span class=\"pill bad\">failed</span> ",
        Verdict::Interrupted => "<li><span class=\"pill none\">interrupted</span> ",
    });
    html.text(&report.begun_at.strftime("%Y-%m-%d %H:%M").to_string())
        .raw(", stage ")
        .text(&report.stage.to_string());
    if report.cleaned_at.is_none() {
        html.raw(" <span class=\"pill bad\">not cleaned up</span>");
    }
    html.raw("<small>lost ")
        .text(&of(report.rpo))
        .raw("; healthy after ")
        .text(&of(report.rto));
    if !report.why.is_empty() {
        html.raw("; ").text(&report.why);
    }
    html.raw("</small></li>");
}

fn of(measure: Measure) -> String {
    let target = span(measure.target_seconds);
    measure.seconds.map_or_else(
        || format!("nobody knows (target {target})"),
        |seconds| format!("{} (target {target})", span(seconds)),
    )
}
