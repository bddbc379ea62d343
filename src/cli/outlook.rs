//! What is known before an operation begins, for whoever decides: who holds the lease, how the fences stand, what the watchers
//! find; and of each step how far it is, and how long it usually takes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::failure::{Failure, told};
use super::operation::{Desk, standing_line};
use super::{open, present, screen, watch};
use crate::backup::entry::newest_good;
use crate::recovery::event::{Ended, Entry, Event, Proof};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Plan, Site, Step};
use crate::recovery::rules::{Answer, Refusal};
use crate::recovery::state::{Progress, Standing};
use crate::steps;

/// Where the service stands, one line for each matter; its first word is the matter's name.
pub async fn lines(desk: &Desk, position: &Position) -> Vec<String> {
    let mut lines = vec![
        format!("now       {}", standing_line(position)),
        format!("lease     {}", desk.lease_line().await),
        format!("fence     {}", fences(&position.state.standing)),
    ];
    match &desk.config.watch {
        None => lines.push("watchers  none are configured: nobody but this machine was asked".to_owned()),
        Some(watch) => match watch::together(&desk.config, watch, &desk.stores).await {
            Ok(together) => lines.push(format!("watchers  {}", together.in_a_line())),
            Err(error) => lines.push(format!("watchers  what they found cannot be read: {}", told(&error))),
        },
    }
    lines
}

pub fn answer_line(answer: &Answer) -> String {
    match answer {
        Answer::Healthy(what) => format!("primary   answers a login from here: {what}"),
        Answer::Gone(why) => format!("primary   does not answer from here: {why}"),
        Answer::Unasked(why) => format!("primary   could not be asked from here: {why}"),
    }
}

/// What an hour costs while `stage` stands, with this backup (or the newest); none for stage 1, which stands always.
pub async fn hour(desk: &Desk, stage: u8, backup: Option<&str>) -> Result<Option<(f64, String)>, Failure> {
    if stage < 2 {
        return Ok(None);
    }
    let prices = super::cost::prices(&desk.config)?;
    let entries = open::listing(&desk.config, &desk.stores).await?;
    let entry = match backup {
        Some(id) => entries.iter().find(|entry| entry.id.as_str() == id),
        None => newest_good(&entries),
    };
    let raw_bytes = entry.map_or(0, |entry| entry.raw_bytes);
    let cost = crate::cost::bill::hour_of(&prices, stage, raw_bytes);
    Ok(Some((cost, prices.currency.clone())))
}

pub fn hour_json(hour: Option<&(f64, String)>) -> Option<Value> {
    hour.map(|(cost, currency)| json!({"cost": (cost * 1e4).round() / 1e4, "currency": currency}))
}

/// The same, for the journal.
pub fn facts(lines: &[String]) -> BTreeMap<String, String> {
    lines
        .iter()
        .filter_map(|line| line.split_once(' '))
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

fn fences(standing: &Standing) -> String {
    let one = |site: Site| {
        let how = match standing.fenced.get(&site) {
            None => "none",
            Some(Proof::Proven) => "proven, it takes none of the application's writes",
            Some(Proof::Unprovable) => "NOT proven, agents and watchers go on trying",
        };
        format!("{site}: {how}")
    };
    let mut told = vec![one(Site::Primary)];
    if standing.fenced.contains_key(&Site::Standby) {
        told.push(one(Site::Standby));
    }
    told.join("; ")
}

/// Seconds that each step usually took, over all of these journals: the median of those that did something.
pub fn usual(journals: &[&[Entry]]) -> BTreeMap<String, f64> {
    let mut took: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for entries in journals {
        for (entry, seconds) in entries.iter().zip(durations(entries)) {
            if let (Event::Done { step, outcome }, Some(seconds)) = (&entry.event, seconds)
                && !outcome.found
            {
                took.entry(step.clone()).or_default().push(seconds);
            }
        }
    }
    took.into_iter()
        .filter_map(|(step, mut times)| {
            times.sort_by(f64::total_cmp);
            Some((step, *times.get(times.len() / 2)?))
        })
        .collect()
}

/// Seconds that what ends with an entry took, since it was begun last; of an operation's end, since it was opened.
pub fn durations(entries: &[Entry]) -> Vec<Option<f64>> {
    let mut opened: BTreeMap<u64, Timestamp> = BTreeMap::new();
    let mut begun: BTreeMap<(u64, &str), Timestamp> = BTreeMap::new();
    let mut seconds = Vec::with_capacity(entries.len());
    for entry in entries {
        let since = match &entry.event {
            Event::Opened { .. } => {
                opened.insert(entry.operation, entry.at);
                None
            }
            Event::Started { step, .. } | Event::TakingBack { step, .. } => {
                begun.insert((entry.operation, step), entry.at);
                None
            }
            Event::Done { step, .. } | Event::Failed { step, .. } | Event::TakenBack { step, .. } => {
                begun.remove(&(entry.operation, step.as_str()))
            }
            Event::Ended { .. } => opened.remove(&entry.operation),
            _ => None,
        };
        seconds.push(since.map(|since| entry.at.duration_since(since).as_secs_f64()));
    }
    seconds
}

/// How long steps usually take.
pub struct Usual {
    pub seconds: BTreeMap<String, f64>,
    /// Steps that were never done: it is what the plan says of them.
    pub planned: BTreeSet<String>,
}

impl Usual {
    fn text(&self, step: &str) -> String {
        let Some(seconds) = self.seconds.get(step) else {
            return "-".to_owned();
        };
        let told = present::duration(Duration::from_secs_f64(*seconds));
        match self.planned.contains(step) {
            true => format!("{told} (planned)"),
            false => told,
        }
    }
}

/// How long a plan should take.
pub struct Expected {
    /// Along the longest chain of steps; those of which nothing is known count as nothing.
    pub seconds: f64,
    /// Steps that were never done, and of which the plan says nothing.
    pub unknown: Vec<String>,
    /// Steps of which only the plan says it.
    planned: usize,
}

pub fn expected(plan: &Plan, usual: &Usual) -> Expected {
    // Each step comes after those that it needs, in one of as many rounds as there are steps.
    let mut until: BTreeMap<&str, f64> = BTreeMap::new();
    for _ in &plan.steps {
        for step in &plan.steps {
            let needs = step.needs.iter().filter_map(|need| until.get(need.as_str()));
            let latest = needs.copied().fold(0.0, f64::max);
            until.insert(
                &step.name,
                latest + usual.seconds.get(&step.name).copied().unwrap_or(0.0),
            );
        }
    }
    let names = plan.steps.iter().map(|step| &step.name);
    Expected {
        seconds: until.into_values().fold(0.0, f64::max),
        unknown: names
            .clone()
            .filter(|name| !usual.seconds.contains_key(*name))
            .cloned()
            .collect(),
        planned: names.filter(|name| usual.planned.contains(*name)).count(),
    }
}

impl Expected {
    pub fn line(&self, steps: usize, target: Option<Duration>) -> String {
        let target = target.map_or_else(String::new, |target| {
            format!(" (target: {})", present::duration(target))
        });
        let about = present::duration(Duration::from_secs_f64(self.seconds));
        let by = match (self.planned, steps - self.unknown.len()) {
            (0, _) => "earlier runs and rehearsals",
            (planned, known) if planned == known => "the plan alone, for nothing of it was ever done",
            _ => "earlier runs and rehearsals, and by the plan where there are none",
        };
        match self.unknown.len() {
            0 => format!("about {about} in all, going by {by}{target}"),
            unknown if unknown == steps => {
                "how long it takes is not known before it was done once: rehearse it".to_owned()
            }
            _ => format!(
                "at least {about} in all, going by {by}{target}; not known of {}",
                self.unknown.join(", ")
            ),
        }
    }
}

/// How far a step is, by the operation that is open, or by the one whose result still stands; empty where nothing was done.
fn stands(position: &Position, aim: Aim, step: &Step) -> String {
    let state = &position.state;
    let known = state.operation.as_ref().filter(|operation| {
        let is_open = operation.ended.is_none();
        let still_stands = matches!(operation.aim, Aim::Failover { .. })
            && matches!(operation.ended, Some((Ended::Done, _)))
            && step.stage <= state.standing.stage;
        operation.aim.towards() == aim.towards() && (is_open || still_stands)
    });
    if let Some(operation) = known {
        match operation.progress(&step.name) {
            Progress::Waiting => {}
            Progress::Done { at, .. } => return format!("done {}", present::time(*at)),
            progress => return screen::word(progress).to_owned(),
        }
    }
    match state.standing.outputs.contains_key(&step.name) {
        true => "stands".to_owned(),
        false => String::new(),
    }
}

/// The steps as a table.
pub fn table(plan: &Plan, aim: Aim, position: &Position, usual: &Usual) -> String {
    let heading = ["step", "stage", "kind", "where", "needs", "usually", "so far"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for step in &plan.steps {
        rows.push(vec![
            step.name.clone(),
            step.stage.to_string(),
            step.kind.clone(),
            step.at.name().to_owned(),
            step.needs.join(", "),
            usual.text(&step.name),
            stands(position, aim, step),
        ]);
    }
    present::table(&rows)
}

/// The same for `--json`.
pub fn steps_json(plan: &Plan, aim: Aim, position: &Position, usual: &Usual) -> Vec<Value> {
    let one = |step: &Step| {
        json!({
            "name": step.name, "kind": step.kind, "stage": step.stage, "at": step.at.name(), "needs": step.needs,
            "timeout_seconds": step.timeout_seconds, "expected_seconds": usual.seconds.get(&step.name),
            "expected_is_planned": usual.planned.contains(&step.name),
            "so_far": stands(position, aim, step),
        })
    };
    plan.steps.iter().map(one).collect()
}

/// How long each step usually took, in earnest and rehearsed; where it was never done, what the plan says.
pub async fn earlier(desk: &Desk, aim: Aim) -> Result<Usual, Failure> {
    let (entries, _) = desk.journal.history().await?;
    let (drills, _) = open::drill_journal(&desk.config, &desk.stores).history().await?;
    let mut seconds = usual(&[&entries, &drills]);
    let mut planned = BTreeSet::new();
    for step in steps::plan::written(aim, &desk.config) {
        if let (false, Some(usually)) = (seconds.contains_key(&step.name), step.usually) {
            seconds.insert(step.name.clone(), usually.as_secs_f64());
            planned.insert(step.name.clone());
        }
    }
    Ok(Usual { seconds, planned })
}

/// What stands against it, as `--plan` prints it.
pub fn refusals(refusals: &[Refusal]) -> Vec<String> {
    let one = |refusal: &Refusal| {
        let way = if refusal.rule.can_be_waived() {
            format!(" (to answer for it: --accept {}=REASON)", refusal.rule.name())
        } else {
            String::new()
        };
        format!("stands against it: {}: {}{way}", refusal.rule.name(), refusal.why)
    };
    refusals.iter().map(one).collect()
}

pub fn refusals_json(refusals: &[Refusal]) -> Vec<Value> {
    let one = |refusal: &Refusal| json!({"rule": refusal.rule.name(), "why": refusal.why, "can_be_accepted": refusal.rule.can_be_waived()});
    refusals.iter().map(one).collect()
}
