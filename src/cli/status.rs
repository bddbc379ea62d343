//! `planb status`: what would be lost if the source vanished now, and what there is to restore.

use std::time::Duration;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::failure::Failure;
use super::{Common, dark, drill, follow, notify, open, present, watch};
use crate::agent::schedule::Cron;
use crate::backup::entry::{Entry, Standing};
use crate::backup::proof::overdue;
use crate::backup::rpo::{Newest, Rpo, RunTimes, worst_case};
use crate::config::{Config, Schedule};
use crate::prepare::record::Looked;
use crate::recovery::journal::Known;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show the operation that is open as it goes on, until it ends
    #[arg(long)]
    follow: bool,
}

pub async fn run(common: &Common, args: &StatusArgs) -> Result<(), Failure> {
    if args.follow {
        return follow::run(common).await;
    }
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let journal = open::journal(&config, &stores).read().await;
    let entries = open::listing_by(&config, &stores, &Known::of(&journal)?).await?;
    let now = stores.backups.now().await?;
    let watched = match &config.watch {
        Some(watch) => Some(watch::together(&config, watch, &stores).await?),
        None => None,
    };
    let slow_run = RunTimes::of(&entries).slow();
    let rpo = rpo_of(&config, &entries, now);
    let worst = interval(&config, now)
        .zip(slow_run)
        .map(|(interval, run)| worst_case(interval, run));
    let good = entries.iter().filter(|entry| entry.standing == Standing::Good);
    let stored: u64 = entries.iter().map(|entry| entry.size_bytes).sum();
    let newest = good.clone().max_by_key(|entry| entry.consistent_at);
    let checked = good
        .clone()
        .filter(|entry| entry.structure_checked_at.is_some())
        .max_by_key(|entry| entry.consistent_at);
    let proven = good
        .clone()
        .filter(|entry| entry.proven_at.is_some())
        .max_by_key(|entry| entry.consistent_at);
    let unusable: Vec<(&str, &str)> = entries.iter().filter_map(unusable).collect();
    let looked = dark_looks(&config, &stores).await;
    let overdue = overdue(&entries, config.verify.proof_max_age, now);
    let untold = notify::untold(&config, &stores).await;
    let drill = drill::standing::standing(&config, &stores).await;
    if common.json {
        let (standing, operation) = follow::json(&journal);
        println!(
            "{}",
            json!({
                "v": 1,
                "standing": standing,
                "operation": operation,
                "drill": drill.json(),
                "watch": watched.as_ref().map(watch::Together::json),
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
                "newest_structure_checked": checked.map(|entry| entry.id.as_str()),
                "proof_overdue_seconds": overdue.map(|age| age.as_secs()),
                "unusable": unusable.iter().map(|(id, why)| json!({"id": id, "reason": why})).collect::<Vec<_>>(),
                "undelivered": notify::untold_json(&untold),
                "good_backups": good.count(),
                "stored_bytes": stored,
                "dark": looked.iter().map(|one| json!({
                    "place": one.looker.word(), "host": one.host, "at": present::rfc3339(one.at), "errors": one.errors,
                    "warnings": one.warnings, "worst": one.worst, "age_seconds": now.duration_since(one.at).as_secs(),
                })).collect::<Vec<_>>(),
                "store_now": present::rfc3339(now),
            })
        );
        return Ok(());
    }
    println!("service   {} ({})", config.service.name, config.service.site);
    println!("store     {}", stores.backups.describe());
    for line in follow::lines(&journal) {
        println!("{line}");
    }
    for line in watched.iter().flat_map(watch::Together::lines) {
        println!("{line}");
    }
    for line in drill.lines(now) {
        println!("{line}");
    }
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
    println!(
        "proven    {}",
        proven.map_or(NEVER_PROVEN.to_owned(), |entry| seen(entry, entry.proven_at, now))
    );
    println!(
        "checked   {}",
        checked.map_or(NEVER_CHECKED.to_owned(), |entry| seen(
            entry,
            entry.structure_checked_at,
            now
        ))
    );
    if let Some(age) = overdue {
        println!(
            "WARNING   the latest proof is {} old, more than verify.proof_max_age = {}: restore and check a newer backup",
            present::duration(age),
            present::duration(config.verify.proof_max_age)
        );
    }
    for (id, why) in unusable.iter().take(MOST_SHOWN) {
        println!("UNUSABLE  {id}: {why}");
    }
    if unusable.len() > MOST_SHOWN {
        println!("UNUSABLE  and {} more: planb backups", unusable.len() - MOST_SHOWN);
    }
    for untold in untold.iter().take(MOST_SHOWN) {
        println!("NOT TOLD  {}", notify::untold_line(untold, &config));
    }
    if untold.len() > MOST_SHOWN {
        println!(
            "NOT TOLD  and {} more: planb notify --undelivered",
            untold.len() - MOST_SHOWN
        );
    }
    for one in &looked {
        let found = match one.worst.first() {
            None => "nothing would fail tonight".to_owned(),
            Some(first) => format!("{} WOULD FAIL TONIGHT, first {first}", one.errors),
        };
        println!(
            "dark      {found} (the {} on {}, {})",
            one.looker.word(),
            one.host,
            present::age(one.at, now)
        );
    }
    println!("backups   {} good, {} in all", good.count(), present::bytes(stored));
    Ok(())
}

/// As the listing has it, by the store's clock.
pub fn rpo_of(config: &Config, entries: &[Entry], now: Timestamp) -> Rpo {
    let slow_run = RunTimes::of(entries).slow().unwrap_or_default();
    let newest = Newest::of(entries);
    let next = newest
        .good
        .as_ref()
        .and_then(|good| next_commit(config, good.data_from, slow_run, now));
    newest.assess(config.targets.rpo, next, now)
}

/// What was found in the dark, by each who looked.
async fn dark_looks(config: &Config, stores: &open::Stores) -> Vec<Looked> {
    if config.failover_steps.is_empty() {
        return Vec::new();
    }
    dark::looks(config, stores).await.unwrap_or_else(|why| {
        tracing::warn!(why, "what was found in the dark cannot be read");
        Vec::new()
    })
}

const NEVER_PROVEN: &str = "none: no backup was restored and checked yet";
const NEVER_CHECKED: &str = "none: see planb verify";
/// The newest of them are enough for one screen.
const MOST_SHOWN: usize = 3;

fn unusable(entry: &Entry) -> Option<(&str, &str)> {
    match &entry.standing {
        Standing::Unusable(why) => Some((entry.id.as_str(), why)),
        Standing::Good | Standing::Orphan | Standing::Preserved => None,
    }
}

/// A backup, and when it was looked at.
fn seen(entry: &Entry, at: Option<Timestamp>, now: Timestamp) -> String {
    let data = present::age(entry.consistent_at, now);
    let when = at.map_or(String::new(), |at| format!(", looked at {}", present::age(at, now)));
    format!("{} (data from {data}{when})", entry.id)
}

/// A tick that is served later than this is not being served.
const LATE: SignedDuration = SignedDuration::from_secs(15);

/// When the next backup lands if somebody keeps the schedule; `None` if, by now, nobody seems to.
fn next_commit(config: &Config, newest: Timestamp, run: Duration, now: Timestamp) -> Option<Timestamp> {
    match &config.backup.schedule {
        Schedule::Cron(text) => {
            // The first tick that the newest run did not outlast.
            let tick = Cron::parse(text, now)
                .ok()?
                .next_after(newest.saturating_add(run).ok()?)?;
            let lands = tick.saturating_add(run).ok()?;
            (now <= lands.saturating_add(LATE).ok()?).then_some(lands.max(now))
        }
        Schedule::KeepRpo => newest.saturating_add(config.targets.rpo).ok(),
    }
}

/// The longest time between two starts.
pub fn interval(config: &Config, now: Timestamp) -> Option<Duration> {
    match &config.backup.schedule {
        Schedule::Cron(text) => Cron::parse(text, now).ok()?.largest_gap(),
        Schedule::KeepRpo => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn config(schedule: &str) -> Config {
        let text = format!(
            "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n\
             [store]\nurl = \"file:///s\"\n[backup]\nschedule = \"{schedule}\"\n"
        );
        Config::parse(&text).expect("valid")
    }

    #[test]
    fn the_next_commit_is_expected_as_long_as_the_schedule_is_kept() {
        let run = Duration::from_secs(20);
        let next = |schedule, newest, now| next_commit(&config(schedule), at(newest), run, at(now));
        let (cron, newest) = ("*/5 * * * *", "2026-01-01T00:05:01Z");
        assert_eq!(
            next(cron, newest, "2026-01-01T00:06:00Z"),
            Some(at("2026-01-01T00:10:20Z"))
        );
        // A little late is late, but not yet gone.
        assert_eq!(
            next(cron, newest, "2026-01-01T00:10:30Z"),
            Some(at("2026-01-01T00:10:30Z"))
        );
        assert_eq!(next(cron, newest, "2026-01-01T00:10:40Z"), None);
        let keep = next("keep-rpo", newest, "2026-01-01T00:06:00Z");
        assert_eq!(keep, Some(at("2026-01-01T00:10:01Z")));
    }
}
