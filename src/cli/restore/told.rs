//! What is said of a restore of PlanB's own backups, planned or done.

use serde_json::{Value, json};

use super::replace;
use crate::cli::{accounts, present};
use crate::restore::compare::Comparison;
use crate::restore::parameters::Change;
use crate::restore::plan::Plan;
use crate::restore::run::{Restore, Restored};

pub fn print_plan(backup: &str, restore: &Restore, plan: &Plan, json: bool) {
    let summary = &restore.archive.index.summary;
    let deferred = plan
        .tables
        .iter()
        .filter(|table| !table.deferred.keys.is_empty())
        .count();
    if json {
        let value = json!({
            "v": 1,
            "way": "planb",
            "backup": backup,
            "consistent_at": present::rfc3339(summary.consistent_at),
            "schemas": summary.schemas,
            "tables": plan.tables.len(),
            "rows": summary.rows,
            "raw_bytes": summary.raw_bytes,
            "keys_built_afterwards": deferred,
            "repairs": plan.repairs,
            "accounts": plan.accounts,
            "parameters": plan.parameters.iter().map(Change::advice).collect::<Vec<_>>(),
            "replaces": replace::plan_json(plan.replacing.as_ref()),
        });
        println!("{value}");
        return;
    }
    println!(
        "{backup}, consistent at {}: {} tables, {} rows, {} of SQL, schemas {}",
        present::time(summary.consistent_at),
        plan.tables.len(),
        summary.rows,
        present::bytes(summary.raw_bytes),
        summary.schemas.join(", "),
    );
    println!(
        "would be restored to {}:{}, nothing stands against it.",
        restore.address.host, restore.address.port
    );
    if let Some(replacing) = &plan.replacing {
        replace::print_plan(replacing);
    }
    println!("secondary keys of {deferred} tables are built after their rows; events arrive disabled.");
    for repair in &plan.repairs {
        println!("changed on the way: {repair}");
    }
    for account in &plan.accounts {
        println!("account {account}");
    }
    for parameter in &plan.parameters {
        println!("parameter {}", parameter.advice());
    }
}

pub fn restored_json(backup: &str, restore: &Restore, restored: &Restored, compared: Option<&Comparison>) -> Value {
    let phases: serde_json::Map<String, Value> = restored
        .phases
        .iter()
        .map(|(phase, took)| (format!("{}_seconds", phase.name()), json!(took.as_secs_f64())))
        .collect();
    json!({
        "v": 1,
        "way": "planb",
        "backup": backup,
        "digest": restore.archive.digest,
        "consistent_at": present::rfc3339(restore.archive.index.summary.consistent_at),
        "server": restored.server,
        "tables": restored.tables,
        "rows": restored.rows,
        "raw_bytes": restored.raw_bytes,
        "stored_bytes": restored.stored_bytes,
        "duration_seconds": restored.duration.as_secs_f64(),
        "phases": phases,
        "repairs": restored.repairs,
        "parameters": restored.parameters,
        "sleeping_events": restored.sleeping_events,
        "accounts": accounts::json(&restored.accounts),
        "kept": replace::kept_json(&restored.kept),
        "resumed": restored.resumed,
        "retries": restored.retries,
        "verified": compared.map(|compared| json!({
            "tables": compared.tables,
            "rows": compared.rows,
            "objects": compared.objects,
            "definitions": if compared.exact { "text" } else { "names" },
            "duration_seconds": compared.duration.as_secs_f64(),
            "differences": compared.differences,
        })),
        "peak_memory_bytes": crate::cli::backup::peak_memory_bytes(),
    })
}

pub fn print_restored(backup: &str, restore: &Restore, restored: &Restored) {
    let parts: Vec<String> = restored
        .phases
        .iter()
        .map(|(phase, took)| format!("{} {:.1} s", phase.name(), took.as_secs_f64()))
        .collect();
    println!(
        "{backup} is on {}:{} ({}): {} rows in {} tables, {:.1} s ({}){}",
        restore.address.host,
        restore.address.port,
        restored.server,
        restored.rows,
        restored.tables,
        restored.duration.as_secs_f64(),
        parts.join(", "),
        if restored.resumed {
            ", an interrupted restore gone on with"
        } else {
            ""
        },
    );
    println!(
        "data as of {}",
        present::time(restore.archive.index.summary.consistent_at)
    );
    for repair in &restored.repairs {
        println!("changed on the way: {repair}");
    }
    for parameter in &restored.parameters {
        println!("parameter {parameter}");
    }
    replace::print_kept(&restored.kept);
    accounts::print(&restored.accounts);
    if restored.sleeping_events > 0 {
        println!(
            "{} events are disabled; when this server takes over: planb restore --enable-events, with --to and --password as here",
            restored.sleeping_events
        );
    }
}
