//! `planb check`: one line and an exit code for monitoring systems, and every finding for a person.
//!
//! The exit codes are those of monitoring plugins, not PlanB's own: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::failure::{Failure, told};
use super::operation::standing_line;
use super::status::rpo_of;
use super::{Common, dark, drill, notify, open};
use crate::backup::claim;
use crate::backup::entry::Standing;
use crate::backup::lease::Record;
use crate::config::{Config, Place};
use crate::doctor::check::{self, Backups, Level, Line, Recovery, line};
use crate::recovery::journal::{JournalError, Known, Position};
use crate::recovery::plan::Site;
use crate::recovery::state::Progress;
use crate::store::BlobStore;

mod credentials;
mod versions;

/// Monitoring systems give up after a minute.
const WITHIN: Duration = Duration::from_secs(45);

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Everything that was looked at, a line each
    #[arg(long, short)]
    verbose: bool,
}

/// What was looked at, and its figures.
struct Looked {
    lines: Vec<Line>,
    perfdata: String,
}

pub async fn run(common: &Common, args: &CheckArgs) -> Result<(), Failure> {
    let looked = match open::config(common) {
        Ok(config) => match tokio::time::timeout(WITHIN, look(&config)).await {
            Ok(looked) => looked,
            Err(_) => Looked {
                lines: vec![line(
                    Level::Critical,
                    "store",
                    format!("no answer within {} s", WITHIN.as_secs()),
                )],
                perfdata: String::new(),
            },
        },
        Err(failure) => Looked {
            lines: vec![line(
                Level::Unknown,
                "configuration",
                failure.message().replace('\n', ";"),
            )],
            perfdata: String::new(),
        },
    };
    let level = check::overall(&looked.lines);
    if common.json {
        let lines: Vec<_> = looked
            .lines
            .iter()
            .map(|line| json!({"state": line.level.word(), "about": line.about, "text": line.text}))
            .collect();
        println!("{}", json!({"v": 1, "state": level.word(), "checks": lines}));
    } else {
        println!("{}", one_line(&looked, level));
        if args.verbose {
            for line in &looked.lines {
                println!("{:<9}{:<13} {}", line.level.word(), line.about, line.text);
            }
            println!("{:<9}{:<13} planb {}", "", "version", env!("CARGO_PKG_VERSION"));
        }
    }
    match level.exit_code() {
        0 => Ok(()),
        exit => Err(Failure::Printed {
            exit,
            message: String::new(),
        }),
    }
}

/// What is wrong; or, where nothing is, what would be lost. A bar would begin the figures.
fn one_line(looked: &Looked, level: Level) -> String {
    let wrong = looked.lines.iter().filter(|line| line.level != Level::Ok);
    let mut told: Vec<String> = wrong.map(|line| format!("{}: {}", line.about, line.text)).collect();
    if told.is_empty() {
        told = looked.lines.iter().take(2).map(|line| line.text.clone()).collect();
    }
    let told = told.join("; ").replace('|', "/").replace('\n', " ");
    let figures = if looked.perfdata.is_empty() {
        String::new()
    } else {
        format!(" | {}", looked.perfdata)
    };
    format!("PLANB {} - {told}{figures}", level.word())
}

async fn look(config: &Config) -> Looked {
    let mut perfdata = String::new();
    let mut lines = Vec::new();
    let mut standing = None;
    match open::stores_for_a_person(config).await {
        Ok(stores) => {
            let journal = open::journal(config, &stores).read().await;
            match backups(config, &stores, &journal).await {
                Ok((found, figures)) => {
                    lines.extend(found);
                    perfdata = figures;
                    lines.push(lease(config, stores.control.as_ref()).await);
                    standing = journal.as_ref().ok().map(|position| position.state.standing.clone());
                    lines.extend(recovery(journal));
                    let untold = notify::untold(config, &stores).await;
                    lines.push(check::untold(
                        untold.len(),
                        untold.first().map(|one| one.channel.as_str()),
                    ));
                    lines.extend(dark::check_line(config, &stores).await);
                    lines.extend(drill::standing::standing(config, &stores).await.checks());
                }
                Err(why) => lines.push(line(Level::Critical, "store", why)),
            }
        }
        Err(error) => lines.push(line(Level::Critical, "store", told(&error))),
    }
    // Each has bounds of its own, and none waits for another.
    let (secrets, presented, versions) = tokio::join!(
        credentials::secrets(config),
        credentials::presented(config, standing.as_ref()),
        versions::compared(config),
    );
    lines.extend(secrets);
    lines.extend(credentials::authorities(config).await);
    lines.extend(presented);
    lines.extend(versions);
    lines.extend(disk(config));
    Looked { lines, perfdata }
}

async fn backups(
    config: &Config,
    stores: &open::Stores,
    journal: &Result<Position, JournalError>,
) -> Result<(Vec<Line>, String), String> {
    let known = Known::of(journal).map_err(|error| told(&error))?;
    let listed = open::listing_by(config, stores, &known).await;
    let entries = listed.map_err(|error| told(&error))?;
    let now = stores.backups.now().await.map_err(|error| told(&error))?;
    let age = |at: Timestamp| Duration::try_from(now.duration_since(at)).unwrap_or_default();
    let facts = Backups {
        rpo: rpo_of(config, &entries, now),
        target: config.targets.rpo,
        unusable: entries
            .iter()
            .filter(|entry| matches!(entry.standing, Standing::Unusable(_)))
            .count(),
        proof_age: entries.iter().filter_map(|entry| entry.proven_at).max().map(age),
        proof_max_age: config.verify.proof_max_age,
        clock_skew: open::clock().now().duration_since(now),
    };
    let good = entries.iter().filter(|entry| entry.standing == Standing::Good).count();
    let stored = entries.iter().map(|entry| entry.size_bytes).sum();
    Ok((check::backups(&facts), check::perfdata(&facts, good, stored)))
}

async fn lease(config: &Config, control: &dyn BlobStore) -> Line {
    let name = format!("lease/run-{}", claim::key(&config.store.prefix));
    let read = async {
        let Some(blob) = control.properties(&name).await? else {
            return Ok(None);
        };
        let bytes = control.read(&name, 0..blob.size_bytes, None).await?;
        Ok::<_, crate::store::StoreError>(Some(serde_json::from_slice::<Record>(&bytes)))
    };
    match (read.await, control.now().await) {
        (Ok(None), Ok(now)) => check::lease(None, now),
        (Ok(Some(Ok(record))), Ok(now)) => {
            check::lease(Some((&record.to_string(), record.expires_at, record.released)), now)
        }
        (Ok(Some(Err(_))), _) => line(
            Level::Warning,
            "lease",
            format!("{name} cannot be read; it frees itself ten minutes after it was written"),
        ),
        (Err(error), _) | (_, Err(error)) => line(Level::Unknown, "lease", told(&error)),
    }
}

fn recovery(position: Result<Position, JournalError>) -> Vec<Line> {
    let position = match position {
        Ok(position) => position,
        Err(error @ JournalError::Store(_)) => return vec![line(Level::Unknown, "serving", told(&error))],
        Err(error) => return vec![line(Level::Critical, "serving", told(&error))],
    };
    let standing = &position.state.standing;
    let failed =
        |(name, progress): (&String, &Progress)| matches!(progress, Progress::Failed { .. }).then(|| name.clone());
    check::recovery(&Recovery {
        standing: standing_line(&position),
        nobody_serves: standing.serving.is_none(),
        open: position.state.open().map(|operation| {
            (
                operation.aim.command(),
                operation.steps.iter().filter_map(failed).collect(),
            )
        }),
        pending_fences: standing.pending_fences().map(Site::name).collect(),
    })
}

/// Nothing is spooled to this machine: room matters only where the store is a directory.
fn disk(config: &Config) -> Option<Line> {
    let Place::Directory(root) = &config.store.place else {
        return None;
    };
    let about = root.display().to_string();
    Some(match rustix::fs::statvfs(root) {
        Ok(room) => check::disk(
            &about,
            room.f_bavail.saturating_mul(room.f_frsize),
            room.f_blocks.saturating_mul(room.f_frsize),
        ),
        Err(error) => line(Level::Unknown, "disk", format!("{about}: {error}")),
    })
}
