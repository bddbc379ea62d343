//! Rehearsals by the clock: begun by the agent or the runner, whichever `[drill] by` names; and what a killed one left is taken back, or
//! told to people for as long as it stands.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rehearse::rehearse;
use super::{Of, Wanted, What, by, kept};
use crate::agent::notify::{Notice as ToManager, Notifier};
use crate::agent::schedule::Cron;
use crate::cli::{Common, open, present};
use crate::config::Config;
use crate::config::drill::Keeper;
use crate::drill::report::Open;
use crate::notify::Announce;
use crate::notify::notice::{Notice, What as Told, keys};

/// The clock is looked at this often: a machine that slept begins nothing late.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A tick found later than this was missed.
const LATE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
/// Between looks for what a killed one left.
const CLEAN_EVERY: Duration = Duration::from_secs(600);
/// Terraform may need ten minutes for what its cloud began; the engine gives a step up after eleven.
const REST_WITHIN: Duration = Duration::from_secs(720);
/// While it comes to rest, the service manager hears of it this often.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the schedule until `stop`, and comes to rest then; the configuration is read again each time.
pub async fn keep(common: Common, keeper: Keeper, announce: Arc<dyn Announce>, stop: CancellationToken) {
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
        let is_ours = config.drill.by == keeper;
        let now = open::clock().now();
        let schedule = config.drill.schedule.as_deref().filter(|_| is_ours);
        let is_due = schedule.is_some_and(|text| is_due(text, looked, now));
        looked = now;
        let looks = tokio::time::Instant::now() >= clean_at;
        let what = if is_due {
            What::Rehearse {
                stage: config.drill.stage,
                seed: None,
            }
        } else if !looks {
            continue;
        } else if is_ours && left(&config, &stop).await.is_some() {
            What::Clean
        } else {
            clean_at = tokio::time::Instant::now() + CLEAN_EVERY;
            tell_left(&config, announce.as_ref(), &stop).await;
            continue;
        };
        clean_at = tokio::time::Instant::now() + CLEAN_EVERY;
        let wanted = Wanted {
            what,
            by: by(Some("schedule".to_owned())),
            of: Of::Daemon(stop.clone()),
            as_configured: false,
        };
        match rehearse(&common, wanted).await {
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
        tell_left(&config, announce.as_ref(), &stop).await;
    }
}

fn is_due(text: &str, looked: Timestamp, now: Timestamp) -> bool {
    let Ok(cron) = Cron::parse(text, looked) else {
        return false;
    };
    let next = cron.next_after(looked);
    next.is_some_and(|tick| tick <= now && now.duration_since(tick) <= LATE)
}

/// A rehearsal that is open and that nobody is at. A store that does not answer holds no stop up.
async fn left(config: &Config, stop: &CancellationToken) -> Option<Open> {
    let look = async {
        let stores = open::stores_for_a_person(config).await.ok()?;
        let open = kept::open_one(config, &stores).await.ok()?;
        open.filter(|open| !open.is_at_work)
    };
    tokio::select! {
        open = look => open,
        // At a stop what is left is told at once, and looked for once more.
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(LOOK_EVERY).await;
        } => None,
    }
}

/// Somebody hears of it as long as it stands, also where another machine is to take it back, and does not.
async fn tell_left(config: &Config, announce: &dyn Announce, stop: &CancellationToken) {
    let now = open::clock().now();
    match left(config, stop).await {
        Some(open) => announce.raise(Notice::new(
            Told::DrillLeft {
                begun: present::time(open.begun_at).to_string(),
                who: open.who,
                host: open.host,
            },
            now,
        )),
        None if stop.is_cancelled() => {}
        None => announce.resolve(keys::DRILL_LEFT, now),
    }
}

/// Waits for what was told to stop: a Terraform that is killed in the middle of a change leaves what nobody knows of. As long as that
/// takes, the service manager is asked for patience.
pub async fn come_to_rest(mut tasks: JoinSet<()>, notifier: &dyn Notifier) {
    let resting = async {
        let mut tick = tokio::time::interval(ASK_EVERY);
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() {
                    return;
                },
                _ = tick.tick() => {
                    notifier.notify(&ToManager::MoreTime(ASK_EVERY * 6));
                    notifier.notify(&ToManager::Watchdog);
                }
            }
        }
    };
    if tokio::time::timeout(REST_WITHIN, resting).await.is_err() {
        tracing::error!("something under way did not come to rest, and is given up");
    }
}
