//! Reports of rehearsals, kept beside their journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use crate::backup::entry::newest_good;
use crate::backup::{claim, lease};
use crate::cli::failure::{Failure, told};
use crate::cli::operation::drill_lease;
use crate::cli::{Common, open, present};
use crate::config::Config;
use crate::drill::forecast::{self, Measured};
use crate::drill::page;
use crate::drill::report::{Foretold, Open, Report};
use crate::recovery::plan::Plan;
use crate::steps;
use crate::store::{Condition, ETag, StoreError};

fn folder(config: &Config) -> String {
    format!("drills/{}/reports/", claim::key(&config.store.prefix))
}

/// All that can be read, oldest first.
pub async fn all(config: &Config, stores: &open::Stores) -> Result<Vec<Report>, StoreError> {
    let mut reports: Vec<Report> = Vec::new();
    for blob in stores.control.list(&folder(config)).await? {
        if !blob.name.ends_with(".json") {
            continue;
        }
        let bytes = stores
            .control
            .read(&blob.name, 0..blob.size_bytes, Some(&blob.etag))
            .await?;
        match serde_json::from_slice(&bytes) {
            Ok(report) => reports.push(report),
            Err(error) => tracing::warn!(blob = blob.name, %error, "a report cannot be read"),
        }
    }
    reports.sort_by_key(|report| report.begun_at);
    Ok(reports)
}

/// Reports that were read once: they hardly ever change.
pub type Read = BTreeMap<String, (ETag, Report)>;

/// The last `count`, newest first; what `read` holds unchanged is not read again.
pub async fn newest(
    config: &Config,
    stores: &open::Stores,
    count: usize,
    read: &mut Read,
) -> Result<Vec<Report>, StoreError> {
    let mut blobs = stores.control.list(&folder(config)).await?;
    blobs.retain(|blob| blob.name.ends_with(".json"));
    // Named for the moment at which they began.
    blobs.sort_by(|a, b| b.name.cmp(&a.name));
    blobs.truncate(count);
    let mut reports = Vec::new();
    for blob in blobs {
        if let Some((_, report)) = read.get(&blob.name).filter(|(etag, _)| *etag == blob.etag) {
            reports.push(report.clone());
            continue;
        }
        let bytes = stores
            .control
            .read(&blob.name, 0..blob.size_bytes, Some(&blob.etag))
            .await?;
        if let Ok(report) = serde_json::from_slice::<Report>(&bytes) {
            read.insert(blob.name, (blob.etag, report.clone()));
            reports.push(report);
        }
    }
    Ok(reports)
}

/// One that was not taken back yet.
///
/// # Errors
/// What cannot be read, in words.
pub async fn open_one(config: &Config, stores: &open::Stores) -> Result<Option<Open>, String> {
    let position = open::drill_journal(config, stores).read().await;
    let position = position.map_err(|error| format!("the journal of rehearsals: {}", told(&error)))?;
    let Some(operation) = position.state.open() else {
        return Ok(None);
    };
    let held = lease::held(Arc::clone(&stores.control), &drill_lease(config)).await;
    Ok(Some(Open {
        begun_at: operation.opened_at,
        who: operation.opened_by.who.clone(),
        host: operation.opened_by.host.clone(),
        is_at_work: held.map_err(|error| told(&error))?.is_some(),
    }))
}

/// Writes all three; one whose clean-up came later takes the place of the earlier one.
pub async fn keep(config: &Config, stores: &open::Stores, report: &Report, all: &[Report]) -> Result<(), StoreError> {
    let json = serde_json::to_vec_pretty(report).unwrap_or_default();
    for (ending, bytes) in [
        ("html", page::html(report, all).into_bytes()),
        ("md", page::markdown(report).into_bytes()),
        ("json", json),
    ] {
        let name = format!("{}{}.{ending}", folder(config), report.id);
        stores.control.put(&name, Bytes::from(bytes), Condition::Always).await?;
    }
    Ok(())
}

/// From all rehearsals and proofs, for a backup of this size.
pub fn forecast(
    plan: &Plan,
    reports: &[Report],
    proofs: Vec<(u64, f64)>,
    raw_bytes: u64,
    config: &Config,
) -> Option<Foretold> {
    let measured = Measured {
        samples: reports.iter().flat_map(Report::samples).collect(),
        idle_seconds: reports.iter().filter_map(Report::idle_seconds).collect(),
        proofs,
    };
    let target_seconds = config.targets.rto.as_secs_f64();
    let told = forecast::forecast(plan, &measured, raw_bytes, target_seconds)?;
    Some(Foretold {
        raw_bytes,
        seconds: told.seconds,
        target_seconds,
        breaks_at_bytes: told.breaks_at_bytes,
        rehearsals: reports.iter().filter(|report| !report.samples().is_empty()).count(),
        sizes: told.sizes,
        proofs: told.proofs,
    })
}

pub async fn list(common: &Common, config: &Config) -> Result<(), Failure> {
    let stores = open::stores_for_a_person(config).await?;
    let reports = all(config, &stores).await?;
    let known = open::journal(config, &stores).known().await?;
    let (entries, ledger) = open::listing_and_ledger(config, &stores, &known).await?;
    let today = newest_good(&entries).map_or(0, |entry| entry.raw_bytes);
    let stage = reports.last().map_or(config.drill.stage, |report| report.stage);
    let foretold = super::variant(config, stage).ok().and_then(|variant| {
        let plan = steps::plan::rehearsal(&variant.config.failover_steps);
        forecast(&plan, &reports, ledger.restored(&entries), today, config)
    });
    if common.json {
        println!("{}", json!({"v": 1, "drills": reports, "forecast": foretold}));
        return Ok(());
    }
    if reports.is_empty() {
        println!("nothing was rehearsed yet: planb drill");
        return Ok(());
    }
    let heading = ["ID", "STAGE", "RESULT", "RPO", "RTO", "SQL", "BY"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s"));
    rows.extend(reports.iter().rev().map(|report| {
        let left = if report.cleaned_at.is_some() {
            ""
        } else {
            ", NOT CLEANED UP"
        };
        vec![
            report.id.clone(),
            report.stage.to_string(),
            format!("{}{left}", report.result.name()),
            seconds(report.rpo.seconds),
            seconds(report.rto.seconds),
            present::bytes(report.backup.raw_bytes),
            report.who.clone(),
        ]
    }));
    print!("{}", present::table(&rows));
    if let (Some(mut last), Some(foretold)) = (reports.last().cloned(), foretold) {
        last.forecast = Some(foretold);
        if let Some(text) = page::foretold(&last) {
            println!("\n{text}");
        }
    }
    Ok(())
}

pub async fn print(common: &Common, config: &Config, id: &str, format: &str) -> Result<(), Failure> {
    let stores = open::stores_for_a_person(config).await?;
    let reports = all(config, &stores).await?;
    let Some(report) = reports.iter().find(|report| report.id == id) else {
        return Err(Failure::Usage(format!(
            "there is no rehearsal {id}; planb drill --list"
        )));
    };
    match format {
        _ if common.json => println!("{}", json!({"v": 1, "drill": report})),
        "json" => println!("{}", serde_json::to_string_pretty(report).unwrap_or_default()),
        "html" => print!("{}", page::html(report, &reports)),
        _ => print!("{}", page::markdown(report)),
    }
    Ok(())
}
