//! `planb history`: who did what, when, how long, with what result; and what earlier runs say of the next.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::failure::Failure;
use super::{Common, open, present};
use crate::recovery::event::{Ended, Entry, Event};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Plan, Step};

pub async fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let (entries, mut unreadable) = open::journal(&config, &stores).history().await?;
    let (drills, unreadable_too) = open::drill_journal(&config, &stores).history().await?;
    unreadable.extend(unreadable_too);
    if common.json {
        println!(
            "{}",
            json!({"v": 1, "entries": entries, "drills": drills, "unreadable": unreadable})
        );
        return Ok(());
    }
    if entries.is_empty() {
        println!("nothing was ever done: no failover, no failback");
    }
    print(&entries, "operation");
    print(&drills, "drill");
    for blob in &unreadable {
        println!("cannot be read: {blob}");
    }
    Ok(())
}

fn print(entries: &[Entry], what: &str) {
    let mut operation = 0;
    for entry in entries {
        if entry.operation != operation {
            operation = entry.operation;
            println!("\n{what} {operation}");
        }
        let who = format!("{} on {}", entry.by.who, entry.by.host);
        println!("  {}  {:<22} {}", present::time(entry.at), who, told(&entry.event));
    }
}

fn told(event: &Event) -> String {
    match event {
        Event::Opened {
            aim, backup, accepted, ..
        } => {
            let backup = backup
                .as_ref()
                .map(|backup| format!(" with {}", backup.id))
                .unwrap_or_default();
            let accepted: Vec<String> = accepted
                .iter()
                .map(|one| format!("; accepted {}: {}", one.rule, one.reason))
                .collect();
            format!("{} begun{backup}{}", aim.command(), accepted.concat())
        }
        Event::Approved => "agrees".to_owned(),
        Event::Accept(accepted) => format!("accepts {}: {}", accepted.rule, accepted.reason),
        Event::Taken { .. } => "goes on".to_owned(),
        Event::Left => "leaves".to_owned(),
        Event::Started { step, .. } => format!("{step} begins"),
        Event::Done { step, outcome } => {
            let how = if outcome.found { "there already" } else { "done" };
            let note = if outcome.note.is_empty() {
                String::new()
            } else {
                format!(": {}", outcome.note)
            };
            format!("{step} {how}{note}")
        }
        Event::Failed { step, error, .. } => format!("{step} failed: {error}"),
        Event::Renewed { backup } => format!("a newer backup takes its place: {}", backup.id),
        Event::Abandoning { reason } => format!("to be taken back: {reason}"),
        Event::TakingBack { step, .. } => format!("{step} is being taken back"),
        Event::TakenBack { step, note } => format!("{step} taken back: {note}"),
        Event::FenceProven { site, .. } => format!("the fence of the {site} is proven now"),
        Event::Ended { how, standing } => {
            let how = match how {
                Ended::Done => "done",
                Ended::Abandoned => "abandoned",
                Ended::GivenUp => "given up",
            };
            let serving = standing.serving.map_or("nobody", crate::recovery::plan::Site::name);
            format!("{how}; serving: {serving}, epoch {}", standing.epoch())
        }
    }
}

/// Seconds that each step usually took: the median of those that did something.
pub fn usual(entries: &[Entry]) -> BTreeMap<String, f64> {
    let mut begun: BTreeMap<(u64, &str), Timestamp> = BTreeMap::new();
    let mut took: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for entry in entries {
        match &entry.event {
            Event::Started { step, .. } => {
                begun.insert((entry.operation, step), entry.at);
            }
            Event::Done { step, outcome } if !outcome.found => {
                if let Some(since) = begun.remove(&(entry.operation, step.as_str())) {
                    let seconds = entry.at.duration_since(since).as_secs_f64();
                    took.entry(step.clone()).or_default().push(seconds);
                }
            }
            _ => {}
        }
    }
    took.into_iter()
        .filter_map(|(step, mut times)| {
            times.sort_by(f64::total_cmp);
            Some((step, *times.get(times.len() / 2)?))
        })
        .collect()
}

/// Seconds along the longest chain of steps; none where one of them was never done.
pub fn longest(plan: &Plan, usual: &BTreeMap<String, f64>) -> Option<f64> {
    fn until(plan: &Plan, usual: &BTreeMap<String, f64>, step: &Step) -> Option<f64> {
        let mut latest = 0.0_f64;
        for need in &step.needs {
            latest = latest.max(until(plan, usual, plan.step(need)?)?);
        }
        Some(latest + usual.get(&step.name)?)
    }
    let ends: Option<Vec<f64>> = plan.steps.iter().map(|step| until(plan, usual, step)).collect();
    ends?.into_iter().max_by(f64::total_cmp)
}

/// The steps as a table.
pub fn table(plan: &Plan, position: &Position, usual: &BTreeMap<String, f64>) -> String {
    let heading = ["step", "stage", "kind", "where", "needs", "usually", "stands"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for step in &plan.steps {
        let stands = position.state.standing.outputs.contains_key(&step.name);
        rows.push(vec![
            step.name.clone(),
            step.stage.to_string(),
            step.kind.clone(),
            step.at.name().to_owned(),
            step.needs.join(", "),
            usual.get(&step.name).map_or_else(
                || "-".to_owned(),
                |seconds| present::duration(Duration::from_secs_f64(*seconds)),
            ),
            if stands { "yes" } else { "" }.to_owned(),
        ]);
    }
    present::table(&rows)
}
