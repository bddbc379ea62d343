//! `planb restore --roll-back` and `--drop-old`: what became of a restore that replaced, and what is said of one.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::Failure;
use crate::cli::present;
use crate::mysql::Address;
use crate::restore::replace;
use crate::restore::replace::judge::Replacing;
use crate::restore::run::Replaced;

/// Puts back what was replaced.
pub async fn roll_back(address: &Address, json: bool) -> Result<(), Failure> {
    let cancel = CancellationToken::new();
    let back = stoppable(replace::roll_back(address, &cancel), &cancel).await?;
    if json {
        println!(
            "{}",
            json!({
                "v": 1,
                "rolled_back": back.backup,
                "schemas": back.schemas,
                "aside": back.aside,
                "notes": back.notes,
                "missing": back.missing,
            })
        );
    } else {
        println!("{} is taken back; as before: {}", back.backup, back.schemas.join(", "));
        if !back.aside.is_empty() {
            println!(
                "what had been restored, and whatever was written to it since, stands in {} until planb restore --drop-old",
                back.aside.join(", ")
            );
        }
        for note in &back.notes {
            println!("not quite as before: {note}");
        }
    }
    if back.missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "every table is back, but these could not be made again (their text stays in planb.kept_definitions; make them by hand): {}",
        back.missing.join("; ")
    );
    if json {
        // The one object was printed, with what is missing in it.
        return Err(Failure::Printed { exit: 1, message });
    }
    Err(Failure::failed(message))
}

/// Drops what was kept.
pub async fn drop_old(address: &Address, json: bool) -> Result<(), Failure> {
    let cancel = CancellationToken::new();
    let dropped = stoppable(replace::drop_old(address, &cancel), &cancel).await?;
    if json {
        println!("{}", json!({"v": 1, "dropped": dropped}));
    } else {
        println!("dropped: {}", dropped.join(", "));
    }
    Ok(())
}

/// Waits for it; stops it where somebody asks.
async fn stoppable<T>(work: impl Future<Output = T>, cancel: &CancellationToken) -> T {
    let mut work = std::pin::pin!(work);
    let mut interrupted = std::pin::pin!(crate::cli::backup::interrupted());
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = &mut interrupted, if !cancel.is_cancelled() => {
                eprintln!("planb: stopping; the same command goes on from here");
                cancel.cancel();
            }
        }
    }
}

pub fn plan_json(replacing: Option<&Replacing>) -> Value {
    replacing.map_or(Value::Null, |replacing| {
        json!({
            "schemas": replacing.schemas,
            "tables": replacing.tables,
            "bytes": replacing.bytes,
            "needed_bytes": replacing.needed_bytes,
            "remarks": replacing.remarks,
        })
    })
}

pub fn print_plan(replacing: &Replacing) {
    if replacing.schemas.is_empty() {
        println!("there is nothing there to replace.");
    } else {
        println!(
            "would replace {} tables ({}) of {}; they are kept as planb_old_… until planb restore --drop-old, and come back with \
             --roll-back.",
            replacing.tables,
            present::bytes(replacing.bytes),
            replacing.schemas.join(", "),
        );
    }
    println!(
        "old and new stand side by side: some {} more are needed on the target's disk.",
        present::bytes(replacing.needed_bytes)
    );
    for remark in &replacing.remarks {
        println!("note: {remark}");
    }
}

pub fn kept_json(kept: &[Replaced]) -> Value {
    let all: Vec<Value> = kept
        .iter()
        .map(|kept| {
            json!({
                "schema": kept.schema,
                "kept_as": kept.kept_as,
                "tables": kept.tables,
                "definitions": kept.definitions,
            })
        })
        .collect();
    json!(all)
}

pub fn print_kept(kept: &[Replaced]) {
    for kept in kept {
        println!(
            "replaced: {}; its {} old tables are in {}, its {} old views, routines, triggers and events in \
             planb.kept_definitions",
            kept.schema, kept.tables, kept.kept_as, kept.definitions
        );
    }
    if !kept.is_empty() {
        println!(
            "back to the old: planb restore --roll-back; drop it for good: planb restore --drop-old (with --to and --password as here)"
        );
    }
}
