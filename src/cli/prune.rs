//! `planb prune`: removes what the retention policy no longer keeps.

use std::sync::Arc;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::operation::drill_lease;
use super::{Common, open};
use crate::backup::entry::BackupId;
use crate::backup::lease::{self, LeaseError};
use crate::backup::ledger::Ledger;
use crate::backup::prune::{self, lifecycle_policy_json};
use crate::backup::retention::{Excess, Freeze, Holds, Pruning, keep};
use crate::backup::rpo::{Newest, State};
use crate::backup::shelf;
use crate::config::{Config, Place};
use crate::recovery::journal::Known;
use crate::recovery::plan::Site;
use crate::recovery::state::Standing;
use crate::steps;

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Say what would be removed and why, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove more than a fifth of the backups in this run
    #[arg(long)]
    allow_many: bool,
    /// Print the storage lifecycle policy that removes what an agent without delete right has tagged (Azure's JSON)
    #[arg(long, conflicts_with_all = ["dry_run", "allow_many"])]
    policy: bool,
}

pub async fn run(common: &Common, args: &PruneArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    if args.policy {
        return print_policy(&config);
    }
    let stores = open::stores_for_a_person(&config).await?;
    // Strictly, unlike for a listing: whoever does not know which backup was proven must not remove any.
    let known = open::journal(&config, &stores).known().await?;
    let prefix = &config.store.prefix;
    let mut entries = shelf::list(stores.backups.as_ref(), prefix, &config.service.name, &known.standing).await?;
    Ledger::default()
        .join(stores.control.as_ref(), &config.store.prefix, &mut entries)
        .await?;
    let clock = open::clock();
    let now = stores.backups.now().await?;
    let rpo = Newest::of(&entries).assess(config.targets.rpo, None, now);
    let mut holds = holds(
        steps::plan::site(config.service.protects),
        rpo.state,
        clock.now(),
        now,
        &known,
    );
    holds.freezes.extend(drilling(&config, &stores).await?);
    let pruning = keep(&entries, &config.retention, &holds, now);
    let unheld = Holds {
        freezes: Vec::new(),
        ..holds
    };
    let frozen = frozen(&pruning, &keep(&entries, &config.retention, &unheld, now));
    let lines = prune::describe(&pruning);
    let removals = pruning.removals.len();
    if args.dry_run {
        if common.json {
            println!(
                "{}",
                json!({"v": 1, "dry_run": true, "would_remove": removals, "lines": lines})
            );
        } else {
            for line in &lines {
                println!("{line}");
            }
            println!("would remove {removals} of {} backups", entries.len());
        }
        return Ok(());
    }
    let excess = if args.allow_many { Excess::Allow } else { Excess::Refuse };
    let approved = pruning
        .approve(excess)
        .map_err(|error| Failure::Refused(error.to_string()))?;
    let pruned = prune::execute(
        stores.backups.as_ref(),
        &approved,
        config.retention.removal,
        clock.as_ref(),
        &CancellationToken::new(),
    )
    .await
    .map_err(|error| match error {
        prune::PruneError::Clock(_) => Failure::Refused(told(&error)),
        prune::PruneError::StoreClock(_) | prune::PruneError::Stopped { .. } => Failure::failed(told(&error)),
    })?;
    if common.json {
        println!(
            "{}",
            json!({
                "v": 1, "removed": pruned.removed, "removed_bytes": pruned.bytes, "lines": lines, "refused": frozen
            })
        );
    } else {
        for line in &lines {
            println!("{line}");
        }
        println!("{pruned}");
    }
    match frozen {
        Some(message) => Err(Failure::Printed { exit: 3, message }),
        None => Ok(()),
    }
}

/// What to say where a safety rule keeps what would otherwise go; none where nothing would.
fn frozen(pruning: &Pruning, otherwise: &Pruning) -> Option<String> {
    let rule = pruning.freezes.first()?;
    let spared = otherwise.removals.len();
    (spared > 0).then(|| format!("{spared} backups that retention no longer wants were not removed: {rule}"))
}

/// What forbids removing right now.
pub fn holds(here: Site, rpo: State, local: jiff::Timestamp, store: jiff::Timestamp, known: &Known) -> Holds {
    let mut holds = Holds {
        operation_open: known.is_open,
        restoring_from: began_from(&known.standing).into_iter().collect(),
        ..Holds::default()
    };
    if known.is_open {
        holds.freezes.push(Freeze::Failover);
    }
    if known.standing.serving == Some(here.other()) {
        holds.freezes.push(Freeze::NotServing);
    }
    holds.freezes.extend(Freeze::for_clocks(local, store));
    if rpo == State::Breached {
        holds.freezes.push(Freeze::RpoBreach);
    }
    holds
}

/// What the standby began from: until it is home, that tells what the old primary has and the standby never received.
fn began_from(standing: &Standing) -> Option<BackupId> {
    BackupId::parse(&standing.restored.get(&Site::Standby)?.id)
}

/// A rehearsal restores one of them: its hold lasts as long as its lease.
pub async fn drilling(config: &Config, stores: &open::Stores) -> Result<Option<Freeze>, LeaseError> {
    let held = lease::held(Arc::clone(&stores.control), &drill_lease(config)).await?;
    Ok(held.map(|_| Freeze::Drill))
}

fn print_policy(config: &Config) -> Result<(), Failure> {
    let Place::Azure { container, .. } = &config.store.place else {
        return Err(Failure::Usage(
            "--policy is for azblob:// stores: a directory has no lifecycle rules".to_owned(),
        ));
    };
    let policy = lifecycle_policy_json(container, &config.store.prefix, &config.retention);
    let text = serde_json::to_string_pretty(&policy).map_err(|error| Failure::failed(error.to_string()))?;
    println!("{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An old primary that came back must not thin out what the serving standby keeps.
    #[test]
    fn whoever_does_not_serve_removes_nothing() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let freezes = |serving| {
            let known = Known {
                standing: Standing {
                    serving: Some(serving),
                    ..Standing::default()
                },
                is_open: false,
                damage: None,
            };
            holds(Site::Primary, State::Met, now, now, &known).freezes
        };
        assert_eq!(freezes(Site::Standby), [Freeze::NotServing]);
        assert_eq!(freezes(Site::Primary), []);
    }
}
