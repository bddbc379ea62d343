//! `planb status`: what would be lost if the source vanished now, and what there is to restore.

use serde_json::json;

use super::failure::Failure;
use super::{Common, open, present};
use crate::backup::entry::Standing;
use crate::backup::rpo::{Newest, RunTimes, worst_case};
use crate::backup::shelf;
use crate::config::{Config, Schedule};

pub async fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let entries = shelf::list(stores.backups.as_ref(), &config.store.prefix, &config.service.name).await?;
    let now = stores.backups.now().await?;
    let rpo = Newest::of(&entries).assess(config.targets.rpo, None, now);
    let slow_run = RunTimes::of(&entries).slow();
    let worst = interval(&config, now)
        .zip(slow_run)
        .map(|(interval, run)| worst_case(interval, run));
    let good = entries.iter().filter(|entry| entry.standing == Standing::Good);
    let stored: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    let newest = good.clone().max_by_key(|entry| entry.consistent_at);
    if common.json {
        println!(
            "{}",
            json!({
                "v": 1,
                "service": config.service.name,
                "site": config.service.site,
                "rpo": {
                    "state": rpo.state.as_str(),
                    "target_seconds": config.targets.rpo.as_secs(),
                    "loss_now_seconds": rpo.loss_now.map(|loss| loss.as_secs_f64()),
                    "worst_case_seconds": worst.map(|worst| worst.as_secs_f64()),
                },
                "newest": newest.map(super::backups::entry_json),
                "newest_proven": rpo.newest_proven.as_ref().map(|id| id.as_str()),
                "good_backups": good.count(),
                "stored_bytes": stored,
                "store_now": present::rfc3339(now),
            })
        );
        return Ok(());
    }
    println!("service   {} ({})", config.service.name, config.service.site);
    println!("store     {}", stores.backups.describe());
    println!("{rpo}");
    println!("target    {}", present::duration(config.targets.rpo));
    match worst {
        Some(worst) => println!(
            "worst     {} (interval, and snapshot to commit)",
            present::duration(worst)
        ),
        None => println!("worst     not known before the first backups"),
    }
    if let Some(newest) = newest {
        println!(
            "newest    {} ({}, {} rows, {})",
            newest.id,
            present::age(newest.consistent_at, now),
            newest.rows,
            present::bytes(newest.size_bytes)
        );
    }
    println!("backups   {} good, {} in all", good.count(), present::bytes(stored));
    Ok(())
}

/// The longest time between two starts.
pub fn interval(config: &Config, now: jiff::Timestamp) -> Option<std::time::Duration> {
    match &config.backup.schedule {
        Schedule::Cron(text) => crate::agent::schedule::Cron::parse(text, now).ok()?.largest_gap(now),
        Schedule::KeepRpo => None,
    }
}
