//! What goes on beside the agent's loop, for whoever looks: the HTTP server, the journal of failovers followed, and what the
//! doctor says. Nothing of it runs where `[serve]` is not configured, and backups never wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::rehearsed::Rehearsed;
use crate::backup::claim;
use crate::cli::failure::told;
use crate::cli::{doctor, open, screen, watch as watchers};
use crate::config::Config;
use crate::notify::dispatcher::Dispatcher;
use crate::recovery::journal::Position;
use crate::secret::Resolver;
use crate::serve::board::{Board, Channel};
use crate::serve::{self, Wish};
use crate::store::StoreError;
use crate::store::retrying::Meter;
use crate::watch::verdict::Health;

/// The journal, when nobody looks and nothing is under way: two small requests.
const FOLLOW_IDLE: Duration = Duration::from_secs(60);
/// While an operation is open.
const FOLLOW_OPEN: Duration = Duration::from_secs(5);
/// However often somebody looks.
const FOLLOW_APART: Duration = Duration::from_secs(1);
const FOLLOW_WITHIN: Duration = Duration::from_secs(30);
/// What the doctor looks at changes slowly, and the looking asks source and standby.
const EXAMINE_EVERY: Duration = Duration::from_secs(3600);
/// The first backup goes first.
const EXAMINE_FIRST: Duration = Duration::from_secs(20);
const EXAMINE_WITHIN: Duration = Duration::from_secs(300);
/// How each channel is doing: nothing is asked for it.
const CHANNELS_EVERY: Duration = Duration::from_secs(2);
/// What the watchers wrote: some small requests.
const WATCHED_EVERY: Duration = Duration::from_secs(30);
/// While they do not agree on anything.
const UNSETTLED_EVERY: Duration = Duration::from_secs(5);

pub(super) fn start(
    tasks: &mut JoinSet<()>,
    configured: &watch::Receiver<Arc<Config>>,
    board: &Arc<Board>,
    dispatcher: &Arc<Dispatcher>,
) {
    let (wish, wishes) = watch::channel(None);
    tasks.spawn(wishing(configured.clone(), wish));
    tasks.spawn(serve::run(wishes, Arc::clone(board), CancellationToken::new()));
    tasks.spawn(follow(configured.clone(), Arc::clone(board)));
    tasks.spawn(examine(configured.clone(), Arc::clone(board)));
    tasks.spawn(telling(Arc::clone(dispatcher), Arc::clone(board)));
    tasks.spawn(watching(configured.clone(), Arc::clone(board)));
}

/// The configuration as the server wants it. Each reload opens it anew, and so reads a changed token.
async fn wishing(mut configured: watch::Receiver<Arc<Config>>, wish: watch::Sender<Option<Wish>>) {
    loop {
        let config = Arc::clone(&configured.borrow_and_update());
        wish.send_replace(config.serve.clone().map(|serve| Wish {
            serve,
            resolver: Arc::new(Resolver::for_config(&config)),
        }));
        if configured.changed().await.is_err() {
            return;
        }
    }
}

/// Reads the journal again and again: seldom, and at once when somebody looks.
async fn follow(mut configured: watch::Receiver<Arc<Config>>, board: Arc<Board>) {
    loop {
        let config = Arc::clone(&configured.borrow_and_update());
        let following = async {
            if config.serve.is_none() {
                return std::future::pending().await;
            }
            let mut known = None;
            let mut rehearsed = Rehearsed::default();
            loop {
                let begun = Instant::now();
                let is_open = look(&config, &board, &mut known).await;
                if let Some((stores, _)) = &known {
                    // Whatever does not answer in time is shown as of its last look.
                    let _ = timeout(FOLLOW_WITHIN, rehearsed.look(&config, stores, &board)).await;
                }
                let wait = if is_open { FOLLOW_OPEN } else { FOLLOW_IDLE };
                tokio::select! {
                    () = board.looked_at() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                tokio::time::sleep_until(begun + FOLLOW_APART).await;
            }
        };
        tokio::select! {
            changed = configured.changed() => if changed.is_err() {
                return;
            },
            () = following => {}
        }
    }
}

/// One look. Stores stay open while they answer.
async fn look(config: &Config, board: &Arc<Board>, known: &mut Option<(open::Stores, Position)>) -> bool {
    let read = async {
        let (stores, position) = match known.take() {
            Some((stores, position)) => {
                let position = open::journal(config, &stores)
                    .refresh(position)
                    .await
                    .map_err(|error| told(&error))?;
                (stores, position)
            }
            None => {
                let meter: Arc<dyn Meter> = Arc::clone(board) as Arc<dyn Meter>;
                let stores = open::metered_stores(config, &CancellationToken::new(), meter).await;
                let stores = stores.map_err(|error| told(&error))?;
                let position = open::journal(config, &stores)
                    .read()
                    .await
                    .map_err(|error| told(&error))?;
                (stores, position)
            }
        };
        let at_work = match position.state.open() {
            Some(_) => screen::at_work(stores.control.as_ref(), &claim::key(&config.store.prefix)).await,
            None => Default::default(),
        };
        Ok::<_, String>((stores, position, at_work))
    };
    match timeout(FOLLOW_WITHIN, read).await {
        Ok(Ok((stores, position, at_work))) => {
            let is_open = position.state.open().is_some();
            board.journal_read(Ok(Arc::new(position.clone())), at_work);
            *known = Some((stores, position));
            is_open
        }
        Ok(Err(why)) => {
            board.journal_read(Err(why), Default::default());
            false
        }
        Err(_) => {
            board.journal_read(Err("the store does not answer".to_owned()), Default::default());
            false
        }
    }
}

/// What `planb doctor` would say, now and then.
async fn examine(mut configured: watch::Receiver<Arc<Config>>, board: Arc<Board>) {
    loop {
        let config = Arc::clone(&configured.borrow_and_update());
        let examining = async {
            if config.serve.is_none() {
                return std::future::pending().await;
            }
            tokio::time::sleep(EXAMINE_FIRST).await;
            loop {
                if let Ok(findings) = timeout(EXAMINE_WITHIN, doctor::findings(&config)).await {
                    board.examined(findings);
                }
                tokio::time::sleep(EXAMINE_EVERY).await;
            }
        };
        tokio::select! {
            changed = configured.changed() => if changed.is_err() {
                return;
            },
            () = examining => {}
        }
    }
}

/// How the channels are doing by which people are told.
async fn telling(dispatcher: Arc<Dispatcher>, board: Arc<Board>) {
    loop {
        let channels = dispatcher.standing().into_iter().map(|standing| Channel {
            name: standing.channel,
            waiting: standing.waiting.len(),
            failures: standing.failures,
            error: standing.error,
            delivered: standing.delivered,
            failed: standing.failed,
            dropped: standing.dropped,
        });
        board.told(channels.collect());
        tokio::time::sleep(CHANNELS_EVERY).await;
    }
}

/// What the watchers found, whoever they are.
async fn watching(mut configured: watch::Receiver<Arc<Config>>, board: Arc<Board>) {
    loop {
        let config = Arc::clone(&configured.borrow_and_update());
        let looking = async {
            let (Some(_), Some(watch)) = (&config.serve, &config.watch) else {
                board.watched(None);
                return std::future::pending().await;
            };
            // Stays open while it answers.
            let mut known = None;
            loop {
                let looked = async {
                    let stores = match known.take() {
                        Some(stores) => stores,
                        None => open::stores_for_a_person(&config).await?,
                    };
                    let together = watchers::together(&config, watch, &stores).await?;
                    known = Some(stores);
                    Ok::<_, StoreError>(together.found())
                };
                let found = match timeout(FOLLOW_WITHIN, looked).await {
                    Ok(looked) => looked.map_err(|error| told(&error)),
                    Err(_) => Err("the store does not answer".to_owned()),
                };
                let is_settled = matches!(&found, Ok(found) if found.tally.verdict != Health::Unknown);
                board.watched(Some(found));
                tokio::time::sleep(if is_settled { WATCHED_EVERY } else { UNSETTLED_EVERY }).await;
            }
        };
        tokio::select! {
            changed = configured.changed() => if changed.is_err() {
                return;
            },
            () = looking => {}
        }
    }
}
