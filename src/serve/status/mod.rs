//! The status page: where one stands, at a glance; and the steps of an operation as they go.
//!
//! Made on the server, whole, without a script: it loads itself anew every few seconds, and nothing on it can be pressed. What
//! is shown was put on the board by others; this only asks for a fresh look at the journal.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::board::{Backup, Board, Facts};
use super::http::Response;
use crate::backup::entry::Standing;
use crate::backup::rpo;
use crate::doctor::{Finding, Severity};

mod charts;
mod drills;
mod html;
mod plan;
mod watch;

use charts::Mark;
use html::{Html, bytes, span};

const STYLE: &str = include_str!("style.css");
/// Of what a chart over time shows.
const DAY: SignedDuration = SignedDuration::from_hours(24);
const MOST_BARS: usize = 60;
const MOST_FINDINGS: usize = 12;
/// Errors come first; the rest is a tap away.
const SHOWN_FINDINGS: usize = 4;
/// A look at the journal that is younger needs no other.
const FRESH: Duration = Duration::from_millis(1_500);
const PATIENCE: Duration = Duration::from_millis(1_500);

pub async fn page(board: &Board) -> Response {
    board.wants_journal(FRESH, PATIENCE).await;
    let body = render(&board.look(), board.now());
    // Only its own style, by its hash; nothing else is loaded, sent or framed.
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        BASE64_STANDARD.encode(Sha256::digest(STYLE.as_bytes()))
    );
    Response {
        content_type: "text/html; charset=utf-8",
        ..Response::text(200, body)
    }
    .header("Content-Security-Policy", policy)
    .header("X-Frame-Options", "DENY")
}

/// The page of one moment.
pub fn render(facts: &Facts, now: Timestamp) -> String {
    let now = facts.store_now().unwrap_or(now);
    let is_open = plan::open(facts).is_some();
    let mut html = Html::default();
    html.raw("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>");
    let (name, site) = match &facts.config {
        Some(config) => (config.service.name.as_str(), config.service.site.as_str()),
        None => ("PlanB", ""),
    };
    html.text(name)
        .raw(": PlanB</title><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    html.raw(if is_open {
        "<meta http-equiv=\"refresh\" content=\"2\">"
    } else {
        "<meta http-equiv=\"refresh\" content=\"10\">"
    });
    html.raw("<link rel=\"icon\" href=\"data:,\"><style>")
        .raw(STYLE)
        .raw("</style></head><body><header><h1>");
    html.text(name)
        .raw("</h1><span class=\"where\">")
        .text(site)
        .raw("</span>");
    pills(&mut html, facts);
    html.raw("<time>")
        .text(&now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
        .raw("</time></header><main>");
    plan::operation(&mut html, facts, now);
    watch::alarm(&mut html, facts, now);
    troubles(&mut html, facts);
    drills::alarm(&mut html, facts, now);
    tiles(&mut html, facts, now);
    last_day(&mut html, facts, now);
    // Two columns of their own heights; on a phone one below the other.
    html.raw("<div class=\"grid\"><div>");
    watch::section(&mut html, facts, now);
    plan::at_rest(&mut html, facts);
    drills::section(&mut html, facts, now);
    html.raw("</div><div>");
    doctor(&mut html, facts, now);
    bars(&mut html, facts);
    html.raw("</div></div><footer>planb ").text(env!("CARGO_PKG_VERSION"));
    html.raw(" · this page only reads; it loads itself anew every ")
        .raw(if is_open { "2" } else { "10" });
    html.raw(" seconds</footer></main></body></html>");
    html.finish()
}

fn state(facts: &Facts) -> rpo::State {
    facts
        .tick
        .as_ref()
        .map_or(rpo::State::Unknown, |(tick, _)| tick.rpo.state)
}

fn pills(html: &mut Html, facts: &Facts) {
    html.raw(match state(facts) {
        rpo::State::Met => "<span class=\"pill good\">RPO met</span>",
        rpo::State::AtRisk => "<span class=\"pill warn\">RPO at risk</span>",
        rpo::State::Breached => "<span class=\"pill bad\">RPO BREACHED</span>",
        rpo::State::Unknown => "<span class=\"pill none\">RPO unknown</span>",
    });
    watch::pill(html, facts);
    plan::pills(html, facts);
}

/// What somebody has to do something about.
fn troubles(html: &mut Html, facts: &Facts) {
    let mut told: Vec<(&'static str, &str)> = Vec::new();
    if let Some(Err(why)) = &facts.store {
        told.push(("The store does not answer", why));
    }
    if let Some(run) = facts.last_run.as_ref().filter(|run| !run.stood_back)
        && let Some(why) = &run.failure
    {
        told.push(("The last backup run failed", why));
    }
    if let Some(why) = &facts.failed_proof {
        told.push(("The last proof failed", why));
    }
    if let Some(Err(why)) = facts.journal.as_ref().map(|journal| &journal.position) {
        told.push(("The journal of failovers cannot be read", why));
    }
    for channel in facts.channels.iter().filter(|channel| channel.failures > 0) {
        html.raw("<section class=\"alarm\"><h2>People are not told by ")
            .text(&channel.name)
            .raw("</h2><p>");
        html.text(channel.error.as_deref().unwrap_or("it takes no messages"))
            .raw("; ")
            .count(channel.waiting)
            .raw(" wait. <code>planb notify --test</code></p></section>");
    }
    for (what, why) in told {
        html.raw("<section class=\"alarm\"><h2>")
            .raw(what)
            .raw("</h2><p>")
            .text(why)
            .raw("</p></section>");
    }
}

/// One figure with what it means.
fn tile(html: &mut Html, class: &'static str, title: &'static str, figure: &str, more: &str) {
    html.raw(class)
        .raw("<b>")
        .raw(title)
        .raw("</b><strong>")
        .text(figure)
        .raw("</strong><span>")
        .text(more)
        .raw("</span></div>");
}

const PLAIN: &str = "<div class=\"tile\">";
const GOOD: &str = "<div class=\"tile good\">";
const WARN: &str = "<div class=\"tile warn\">";
const BAD: &str = "<div class=\"tile bad\">";

fn ago(at: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(now.duration_since(at).as_secs_f64()))
}

fn tiles(html: &mut Html, facts: &Facts, now: Timestamp) {
    html.raw("<div class=\"tiles\">");
    let targets = facts.config.as_ref().map(|config| &config.targets);
    let target = targets.map(|targets| targets.rpo.as_secs_f64());
    let state = state(facts);
    let class = match state {
        rpo::State::Met => GOOD,
        rpo::State::AtRisk => WARN,
        rpo::State::Breached => BAD,
        rpo::State::Unknown => PLAIN,
    };
    let figure = match (facts.loss(), state) {
        (Some(loss), _) => span(loss.as_secs_f64()),
        (None, rpo::State::Breached) => "everything".to_owned(),
        (None, _) => "unknown".to_owned(),
    };
    let more = target.map_or(String::new(), |target| format!("target {}", span(target)));
    tile(html, class, "Would be lost now", &figure, &more);
    let worst = facts
        .tick
        .as_ref()
        .and_then(|(tick, _)| tick.worst_case)
        .map(|worst| worst.as_secs_f64());
    let misses = worst.zip(target).is_some_and(|(worst, target)| worst > target);
    let figure = worst.map_or("not known yet".to_owned(), span);
    let more = if misses {
        "more than the target: the schedule is too slow"
    } else {
        "interval, and snapshot to commit"
    };
    tile(html, if misses { WARN } else { PLAIN }, "Worst case", &figure, more);
    drills::last(html, facts, now);
    proof(html, facts, now);
    newest(html, facts, now);
    stored(html, facts);
    html.raw("</div>");
}

fn proof(html: &mut Html, facts: &Facts, now: Timestamp) {
    let allowed = facts
        .config
        .as_ref()
        .map(|config| config.verify.proof_max_age.as_secs_f64());
    match facts.latest_proof {
        Some(at) => {
            let age = now.duration_since(at).as_secs_f64();
            let is_old = allowed.is_some_and(|allowed| age > allowed);
            let more = if is_old {
                "older than allowed: restore and check one"
            } else {
                "restored and checked"
            };
            tile(
                html,
                if is_old { WARN } else { GOOD },
                "Newest proof",
                &ago(at, now),
                more,
            );
        }
        None => tile(
            html,
            WARN,
            "Newest proof",
            "none",
            "no backup was restored and checked yet",
        ),
    }
}

fn newest(html: &mut Html, facts: &Facts, now: Timestamp) {
    let newest = facts.backups.iter().find(|backup| backup.standing == Standing::Good);
    let next = next(facts, now);
    match newest {
        Some(backup) => {
            let took = backup.committed_at.duration_since(backup.consistent_at).as_secs_f64();
            let more = format!(
                "{} rows, {}, took {}; {next}",
                backup.rows,
                bytes(backup.size_bytes),
                span(took)
            );
            tile(html, PLAIN, "Newest backup", &ago(backup.consistent_at, now), &more);
        }
        None if facts.store.is_none() => tile(html, PLAIN, "Newest backup", "unknown", "the store was not asked yet"),
        None => {
            let more = format!("there is no good backup; {next}");
            tile(html, BAD, "Newest backup", "none", &more);
        }
    }
}

/// What is under way, or when something should land.
fn next(facts: &Facts, now: Timestamp) -> String {
    if let Some(running) = &facts.running {
        let read = running.attempt.as_ref().map(|(number, progress)| {
            let read = progress.raw_bytes.load(std::sync::atomic::Ordering::Relaxed);
            let again = if *number > 1 {
                format!(", attempt {number}")
            } else {
                String::new()
            };
            format!(", {} read{again}", bytes(read))
        });
        return format!(
            "one under way for {}{}",
            span(running.begun.elapsed().as_secs_f64()),
            read.unwrap_or_default()
        );
    }
    match facts.tick.as_ref().and_then(|(tick, _)| tick.next_commit) {
        Some(next) => format!("next in {}", span(next.duration_since(now).as_secs_f64())),
        None => "nobody knows when the next lands".to_owned(),
    }
}

fn stored(html: &mut Html, facts: &Facts) {
    let good = facts
        .backups
        .iter()
        .filter(|backup| backup.standing == Standing::Good)
        .count();
    let all: u64 = facts.backups.iter().map(|backup| backup.size_bytes).sum();
    let bad = facts
        .backups
        .iter()
        .filter(|backup| matches!(backup.standing, Standing::Unusable(_)))
        .count();
    let class = if bad > 0 { WARN } else { PLAIN };
    let more = if bad > 0 {
        format!("{} in all; {bad} unusable", bytes(all))
    } else {
        format!("{} in all", bytes(all))
    };
    tile(html, class, "Good backups", &good.to_string(), &more);
}

/// How far back the axis goes: as far as anything is known, up to a day.
const SPANS: [(SignedDuration, &str, [&str; 5]); 3] = [
    (
        SignedDuration::from_hours(1),
        "in the last hour",
        ["60 min ago", "45", "30", "15", "now"],
    ),
    (
        SignedDuration::from_hours(6),
        "in the last six hours",
        ["6 h ago", "4 h 30 min", "3 h", "1 h 30 min", "now"],
    ),
    (DAY, "in the last day", ["24 h ago", "18 h", "12 h", "6 h", "now"]),
];

/// What was lost, and below it, on the same axis, the backups that it hung on.
fn last_day(html: &mut Html, facts: &Facts, now: Timestamp) {
    let first = facts.commits.first_key_value().map_or(now, |(at, _)| *at);
    let known = now.duration_since(first);
    let shortest = SPANS.iter().find(|(span, ..)| known <= *span);
    let (back, words, scale) = shortest.unwrap_or(&SPANS[SPANS.len() - 1]);
    let from = now.checked_sub(*back).unwrap_or(now);
    let target = facts
        .config
        .as_ref()
        .map_or(300.0, |config| config.targets.rpo.as_secs_f64());
    let line = charts::losses(&facts.commits, from, now);
    let worst = line.iter().map(|(_, loss)| *loss).fold(0.0, f64::max);
    html.raw("<section><h2>What would have been lost <small>");
    if line.is_empty() {
        html.raw("no backup yet");
    } else {
        html.raw("at most ").text(&span(worst)).raw(" ").raw(words);
    }
    html.raw("<span class=\"key target\"></span>target ")
        .text(&span(target))
        .raw("</small><small class=\"keys\"><span class=\"key\"></span>good backup<span class=\"key proven\"></span>proven");
    html.raw("<span class=\"key bad\"></span>orphan or unusable</small></h2>");
    charts::loss(html, &line, target, from, now);
    let marks: Vec<(Timestamp, Mark)> = facts
        .backups
        .iter()
        .filter_map(|backup| Some((backup.consistent_at, mark(backup)?)))
        .collect();
    charts::timeline(html, &marks, from, now);
    html.raw("<div class=\"scale\">");
    for label in scale {
        html.raw("<span>").raw(label).raw("</span>");
    }
    html.raw("</div></section>");
}

fn mark(backup: &Backup) -> Option<Mark> {
    match backup.standing {
        Standing::Good if backup.proven_at.is_some() => Some(Mark::Proven),
        Standing::Good => Some(Mark::Good),
        Standing::Unusable(_) | Standing::Orphan => Some(Mark::Bad),
        Standing::Preserved => None,
    }
}

fn bars(html: &mut Html, facts: &Facts) {
    let mut good: Vec<&Backup> = facts
        .backups
        .iter()
        .filter(|backup| backup.standing == Standing::Good)
        .take(MOST_BARS)
        .collect();
    good.reverse();
    #[expect(clippy::cast_precision_loss, reason = "a bar's height")]
    let sizes: Vec<f64> = good.iter().map(|backup| backup.size_bytes as f64).collect();
    let times: Vec<f64> = good
        .iter()
        .map(|backup| {
            backup
                .committed_at
                .duration_since(backup.consistent_at)
                .as_secs_f64()
                .max(0.0)
        })
        .collect();
    html.raw("<section><h2>Duration <small>snapshot to commit, the last ")
        .count(good.len())
        .raw("</small></h2>");
    let longest = charts::bars(html, &times, "duration of backups");
    html.raw("<div class=\"scale\"><span>at most ")
        .text(&span(longest.ceil()))
        .raw("</span><span>now</span></div></section>");
    html.raw("<section><h2>Size <small>in the store, the last ")
        .count(good.len())
        .raw("</small></h2>");
    charts::bars(html, &sizes, "size of backups");
    let largest = good.iter().map(|backup| backup.size_bytes).max().unwrap_or(0);
    html.raw("<div class=\"scale\"><span>at most ")
        .text(&bytes(largest))
        .raw("</span><span>now</span></div></section>");
}

fn doctor(html: &mut Html, facts: &Facts, now: Timestamp) {
    html.raw("<section><h2>Doctor ");
    let Some((at, findings)) = &facts.doctor else {
        html.raw("</h2><p class=\"dim\">looks soon after the start, then hourly; by hand: planb doctor</p></section>");
        return;
    };
    html.raw("<small>")
        .text(&ago(*at, now))
        .raw("</small></h2><ul class=\"findings\">");
    let mut grave: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity != Severity::Note)
        .collect();
    grave.sort_by_key(|finding| finding.severity != Severity::Error);
    let shown = grave.len().min(SHOWN_FINDINGS);
    for finding in &grave[..shown] {
        found(html, finding);
    }
    if grave.len() > shown {
        html.raw("</ul><details><summary>")
            .count(grave.len() - shown)
            .raw(" more: planb doctor</summary><ul class=\"findings\">");
        for finding in grave[shown..].iter().take(MOST_FINDINGS) {
            found(html, finding);
        }
        html.raw("</ul></details><ul class=\"findings\">");
    }
    if grave.is_empty() {
        html.raw("<li><span class=\"pill good\">nothing wrong</span></li>");
    }
    html.raw("</ul>");
    let notes: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Note)
        .collect();
    if !notes.is_empty() {
        html.raw("<details><summary>")
            .count(notes.len())
            .raw(" notes</summary><ul class=\"findings\">");
        for note in notes.into_iter().take(MOST_FINDINGS) {
            html.raw("<li>")
                .text(&note.about)
                .raw(": ")
                .text(&note.what)
                .raw("</li>");
        }
        html.raw("</ul></details>");
    }
    html.raw("</section>");
}

fn found(html: &mut Html, finding: &Finding) {
    html.raw(if finding.severity == Severity::Error {
        "<li><span class=\"pill bad\">error</span> "
    } else {
        "<li><span class=\"pill warn\">warning</span> "
    });
    html.text(&finding.about)
        .raw(": ")
        .text(&finding.what)
        .raw("<small>")
        .text(&finding.remedy)
        .raw("</small></li>");
}
