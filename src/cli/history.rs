//! `planb history`: who did what, when, how long, with what result.

use std::time::Duration;

use serde_json::{Value, json};

use super::failure::Failure;
use super::outlook::durations;
use super::{Common, open, present};
use crate::recovery::event::{Ended, Entry, Event};

pub async fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let (entries, mut unreadable) = open::journal(&config, &stores).history().await?;
    let (drills, unreadable_too) = open::drill_journal(&config, &stores).history().await?;
    unreadable.extend(unreadable_too);
    if common.json {
        println!(
            "{}",
            json!({"v": 1, "entries": timed(&entries), "drills": timed(&drills), "unreadable": unreadable})
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

/// Each entry as the journal has it, and how long it took what ends with it.
fn timed(entries: &[Entry]) -> Vec<Value> {
    let with = |(entry, seconds): (&Entry, Option<f64>)| {
        let mut value = json!(entry);
        if let Some(object) = value.as_object_mut() {
            object.insert("took_seconds".to_owned(), json!(seconds));
        }
        value
    };
    entries.iter().zip(durations(entries)).map(with).collect()
}

fn print(entries: &[Entry], what: &str) {
    let mut operation = 0;
    for (entry, seconds) in entries.iter().zip(durations(entries)) {
        if entry.operation != operation {
            operation = entry.operation;
            println!("\n{what} {operation}");
        }
        let who = format!("{} on {}", entry.by.who, entry.by.host);
        let took = seconds.map_or_else(String::new, |seconds| {
            format!(
                " after {}",
                present::duration(Duration::from_secs_f64(seconds.max(0.0)))
            )
        });
        println!(
            "  {}  {:<22} {}",
            present::time(entry.at),
            who,
            told(&entry.event, &took)
        );
    }
}

/// `took`: with a blank before it, or nothing.
fn told(event: &Event, took: &str) -> String {
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
            format!("{step} {how}{took}{note}")
        }
        Event::Failed { step, error, .. } => format!("{step} failed{took}: {error}"),
        Event::Renewed { backup } => format!("a newer backup takes its place: {}", backup.id),
        Event::Abandoning { reason } => format!("to be taken back: {reason}"),
        Event::TakingBack { step, .. } => format!("{step} is being taken back"),
        Event::TakenBack { step, note } => format!("{step} taken back{took}: {note}"),
        Event::FenceProven { site, .. } => format!("the fence of the {site} is proven now"),
        Event::Ended { how, standing } => {
            let how = match how {
                Ended::Done => "done",
                Ended::Abandoned => "abandoned",
                Ended::GivenUp => "given up",
            };
            let serving = standing.serving.map_or("nobody", crate::recovery::plan::Site::name);
            format!("{how}{took}; serving: {serving}, epoch {}", standing.epoch())
        }
    }
}
