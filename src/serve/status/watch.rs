//! What the watchers find, together and each: whether the primary serves is seen from several places, never from here alone.

use jiff::{SignedDuration, Timestamp};

use super::html::{Html, span};
use crate::serve::board::{Facts, Found};
use crate::watch::quorum::Ballot;
use crate::watch::verdict::{Health, Plane, Seen};

/// What was read longer ago is shown as of then.
const FRESH: SignedDuration = SignedDuration::from_secs(150);

fn found(facts: &Facts) -> Option<&Found> {
    facts.watched.as_ref()?.found.as_ref().ok().map(AsRef::as_ref)
}

pub(super) fn pill(html: &mut Html, facts: &Facts) {
    if facts.config.as_ref().is_none_or(|config| config.watch.is_none()) {
        return;
    }
    html.raw(match found(facts).map(|found| found.tally.verdict) {
        Some(Health::Healthy) => "<span class=\"pill good\">primary healthy</span>",
        Some(Health::Unhealthy) => "<span class=\"pill bad\">primary DOWN</span>",
        Some(Health::Unknown) | None => "<span class=\"pill warn\">verdict unknown</span>",
    });
}

/// That it is down, with what was seen and what a person types next.
pub(super) fn alarm(html: &mut Html, facts: &Facts, now: Timestamp) {
    let Some(watched) = found(facts).filter(|watched| watched.tally.verdict == Health::Unhealthy) else {
        return;
    };
    html.raw("<section class=\"alarm\"><h2>The watchers call the primary down");
    if let Some(ruling) = &watched.ruling
        && ruling.verdict == Health::Unhealthy
    {
        html.raw(" <small>for ")
            .text(&span(ruling.lasted(now).as_secs_f64()))
            .raw("</small>");
    }
    html.raw("</h2><p>")
        .text(&watched.tally.summary())
        .raw(". What a failover would do and lose: <code>planb failover --stage 3 --plan</code></p></section>");
}

pub(super) fn section(html: &mut Html, facts: &Facts, now: Timestamp) {
    if facts.config.as_ref().is_none_or(|config| config.watch.is_none()) {
        return;
    }
    html.raw("<section><h2>Watchers ");
    let Some(watched) = found(facts) else {
        let why = facts.watched.as_ref().and_then(|watched| watched.found.as_ref().err());
        html.raw("</h2><p class=\"dim\">")
            .text(why.map_or("not read yet; by hand: planb status", String::as_str))
            .raw("</p></section>");
        return;
    };
    html.raw("<small>").text(&watched.tally.summary());
    if let Some(ruling) = &watched.ruling {
        html.raw("; called ")
            .text(ruling.verdict.name())
            .raw(" ")
            .text(&span(ruling.lasted(now).as_secs_f64()))
            .raw(" ago");
    }
    let age = now.duration_since(watched.now);
    if age > FRESH {
        html.raw("; as of ").text(&span(age.as_secs_f64())).raw(" ago");
    }
    html.raw("</small></h2><ul class=\"findings\">");
    for (name, ballot) in &watched.tally.ballots {
        one(html, name, ballot, watched.now);
    }
    for line in &watched.auto {
        html.raw("<li>auto<small>").text(line).raw("</small></li>");
    }
    html.raw("</ul></section>");
}

fn one(html: &mut Html, name: &str, ballot: &Ballot, at: Timestamp) {
    let Ballot::Vote {
        health, observation, ..
    } = ballot
    else {
        html.raw("<li><span class=\"pill warn\">no vote</span> ").text(name);
        let told = ballot.told(at);
        html.raw(" <em>")
            .text(told.strip_prefix("no vote: ").unwrap_or(&told))
            .raw("</em></li>");
        return;
    };
    html.raw(pill_of(*health)).text(name);
    // What is well is told in a line; what is not, with its words.
    let (well, ill): (Vec<&Seen>, Vec<&Seen>) = observation
        .probes
        .iter()
        .partition(|seen| seen.health == Health::Healthy && !seen.is_mute);
    if !well.is_empty() {
        let names: Vec<&str> = well.iter().map(|seen| seen.probe.as_str()).collect();
        html.raw(" <em>").text(&names.join(", ")).raw("</em>");
    }
    for seen in ill {
        let word = match (seen.is_mute, seen.plane) {
            (true, _) => "cannot ask",
            (false, Plane::Control) => "the cloud's API, does not count:",
            (false, Plane::Data) => seen.health.name(),
        };
        html.raw("<small>")
            .text(&format!("{} {word} {}", seen.probe, seen.said))
            .raw("</small>");
    }
    html.raw("</li>");
}

fn pill_of(health: Health) -> &'static str {
    match health {
        Health::Healthy => "<li><span class=\"pill good\">healthy</span> ",
        Health::Unhealthy => "<li><span class=\"pill bad\">down</span> ",
        Health::Unknown => "<li><span class=\"pill warn\">unknown</span> ",
    }
}
