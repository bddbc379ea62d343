//! Rehearsals by the clock: begun by the agent or the runner, whichever `[drill] by` names; and what a killed one left is cleared away.

use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{Wanted, What, by, rehearse};
use crate::agent::schedule::Cron;
use crate::cli::{Common, open};
use crate::config::Config;
use crate::config::drill::Keeper;

/// The clock is looked at this often: a machine that slept begins nothing late.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A tick found later than this was missed.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// Between looks for what a killed one left.
const CLEAN_EVERY: Duration = Duration::from_secs(600);

/// Keeps the schedule until `stop`; the configuration is read again each time.
pub async fn keep(common: Common, keeper: Keeper, stop: CancellationToken) {
    let mut looked = open::clock().now();
    let mut clean_at = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let Ok(config) = Config::load(&common.config) else {
            continue;
        };
        if config.drill.by != keeper {
            continue;
        }
        let now = open::clock().now();
        let schedule = config.drill.schedule.as_deref();
        let is_due = schedule.is_some_and(|text| is_due(text, looked, now));
        looked = now;
        let what = if is_due {
            What::Rehearse {
                stage: config.drill.stage,
                seed: None,
            }
        } else if tokio::time::Instant::now() >= clean_at && is_left(&config).await {
            What::Clean
        } else {
            continue;
        };
        clean_at = tokio::time::Instant::now() + CLEAN_EVERY;
        let wanted = Wanted {
            what,
            by: by(Some("schedule".to_owned())),
            // One of its own: a rehearsal that gives way stops nothing else.
            stop: stop.child_token(),
        };
        match rehearse(&common, &config, wanted).await {
            Ok(reports) => {
                for report in reports {
                    if report.passed() {
                        tracing::info!(id = report.id, "{}", report.summary());
                    } else {
                        tracing::error!(id = report.id, "{}", report.summary());
                    }
                }
            }
            Err(failure) => tracing::error!(error = failure.message(), "the rehearsal was not done"),
        }
    }
}

fn is_due(text: &str, looked: Timestamp, now: Timestamp) -> bool {
    let Ok(cron) = Cron::parse(text, looked) else {
        return false;
    };
    let next = cron.next_after(looked);
    next.is_some_and(|tick| tick <= now && now.duration_since(tick) <= LATE)
}

/// Whether a rehearsal is open that nobody is at.
async fn is_left(config: &Config) -> bool {
    let Ok(stores) = open::stores(config, &CancellationToken::new()).await else {
        return false;
    };
    let is_open = match open::drill_journal(config, &stores).known().await {
        Ok(known) => known.is_open,
        Err(_) => false,
    };
    is_open && matches!(crate::cli::prune::drilling(config, &stores).await, Ok(None))
}
