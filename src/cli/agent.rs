//! `planb agent`: gives the daemon what it drives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::drill::schedule;
use super::failure::{Failure, told};
use super::notify::Process;
use super::prune::{drilling, holds};
use super::standstill::{self, Voice};
use super::{Common, dark, open, proof, target, tell};
use crate::agent::runner::{BackupRunner, Checked, Proven, RunError, RunSummary, Survey, Trigger};
use crate::agent::{Agent, Loaded, Loader, notify as service_manager, signals, state};
use crate::backup::entry::{BackupId, newest_good};
use crate::backup::ledger::{self, Ledger};
use crate::backup::prune;
use crate::backup::retention::{Excess, keep};
use crate::backup::rpo::Rpo;
use crate::backup::run::{self, Observer, Wanted};
use crate::backup::shelf;
use crate::backup::verify::{self, Verdict};
use crate::config::Config;
use crate::config::drill::Keeper;
use crate::config::warnings::warnings;
use crate::dump::AttemptError;
use crate::dump::pipeline::Progress;
use crate::notify::dispatcher::{Announcer, Dispatcher};
use crate::notify::{Announce, channel};
use crate::prepare::record::Looker;
use crate::recovery::journal::Known;
use crate::restore::RestoreError;
use crate::secret::resolver::Resolver;
use crate::serve::board::Board;
use crate::span;
use crate::steps;
use crate::store::StoreError;
use crate::store::retrying::Meter;

mod beside;
mod rehearsed;

/// Less than the unit's `TimeoutStopSec`, so that a stop is ours and not a kill.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// What still waits to be told when the agent stops has this long; the rest is told after the next start.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// Sessions of a proof: it has until the next one, and the backups beside it come first.
const PROOF_SESSIONS: usize = 1;

pub async fn run(common: &Common) -> Result<(), Failure> {
    let board = Board::new(open::clock());
    // The first load says what is wrong in the usual way, with exit 2.
    let config = Arc::new(open::config(common)?);
    let (configs, configured) = watch::channel(Arc::clone(&config));
    let dispatcher = Arc::new(super::notify::dispatcher(&config, Process::Agent).await);
    let loader = FileLoader {
        path: common.config.clone(),
        dispatcher: Arc::clone(&dispatcher),
        board: Arc::clone(&board),
        configs,
    };
    let loaded = load(config, &board, &dispatcher).map_err(|problems| Failure::Usage(problems.join("\n")))?;
    let signals =
        signals::Process::listen().map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?;
    let agent = Agent {
        clock: open::clock(),
        notifier: Arc::new(service_manager::Systemd),
        announce: Arc::new(dispatcher.announcer()),
        signals: Box::new(signals),
        loader: Box::new(loader),
        board: Arc::clone(&board),
        watchdog: service_manager::watchdog_interval(),
        stop_within: STOP_WITHIN,
    };
    // They only look and show: whatever becomes of them, backups go on, and they end with the agent.
    let mut beside = JoinSet::new();
    beside::start(&mut beside, &configured, &board, &dispatcher);
    beside.spawn(dark::by_schedule(
        common.config.clone(),
        Looker::Agent,
        Arc::new(dispatcher.announcer()),
        CancellationToken::new(),
    ));
    // What these may have begun comes to rest first.
    let cancel = CancellationToken::new();
    let announcer = Arc::new(dispatcher.announcer());
    let mut acting = JoinSet::new();
    acting.spawn(super::watch::role(
        common.clone(),
        configured,
        Arc::clone(&announcer) as Arc<dyn Announce>,
        cancel.clone(),
    ));
    acting.spawn(schedule::keep(common.clone(), Keeper::Agent, announcer, cancel.clone()));
    let ended = agent.run(loaded).await.map_err(|error| Failure::failed(told(&error)));
    cancel.cancel();
    schedule::come_to_rest(acting, &service_manager::Systemd).await;
    beside.shutdown().await;
    dispatcher.flush(FLUSH_WITHIN).await;
    dispatcher.stop().await;
    ended
}

fn load(config: Arc<Config>, board: &Arc<Board>, dispatcher: &Dispatcher) -> Result<Loaded, Vec<String>> {
    for warning in warnings(&config) {
        tracing::warn!(key = warning.key, "{}", warning.text);
    }
    let settings = state::Settings::of(&config, open::clock().now()).map_err(|error| vec![told(&error)])?;
    board.configured(Arc::clone(&config));
    Ok(Loaded {
        settings,
        runner: Arc::new(Driven {
            config,
            ledger: Ledger::default(),
            announcer: dispatcher.announcer(),
            board: Arc::clone(board),
        }),
    })
}

struct FileLoader {
    path: PathBuf,
    dispatcher: Arc<Dispatcher>,
    board: Arc<Board>,
    /// Whoever works beside the agent goes by the new one too.
    configs: watch::Sender<Arc<Config>>,
}

#[async_trait]
impl Loader for FileLoader {
    async fn load(&self) -> Result<Loaded, Vec<String>> {
        let config = Config::load(&self.path).map_err(|error| match error.problems() {
            [] => vec![told(&error)],
            problems => problems.iter().map(ToString::to_string).collect(),
        })?;
        let (sender, lines) = (channel::sender(&config), channel::lines(&config, &open::clock()));
        let config = Arc::new(config);
        let loaded = load(Arc::clone(&config), &self.board, &self.dispatcher)?;
        self.dispatcher.configure(sender, lines);
        self.configs.send_replace(config);
        Ok(loaded)
    }
}

/// Real backups, driven by the daemon. Stores are opened for each piece of work: secrets rotate, and a store that
/// was away when the agent started is simply tried again.
struct Driven {
    config: Arc<Config>,
    ledger: Ledger,
    announcer: Announcer,
    board: Arc<Board>,
}

#[async_trait]
impl BackupRunner for Driven {
    async fn run(&self, cancel: CancellationToken, trigger: Trigger) -> Result<RunSummary, RunError> {
        // Not stopped with the run: what it staged is discarded, and its lease given back, after it was told to stop.
        let stores = self.stores(&CancellationToken::new()).await?;
        let runner = open::runner(&self.config, &stores);
        let wanted = Wanted {
            holder: "agent".to_owned(),
            verify_source: false,
            is_last: false,
            accept_source_changed: None,
        };
        tracing::debug!(?trigger, "run begins");
        let done = runner
            .run(&wanted, &OnTheBoard(&self.board), &cancel)
            .await
            .map_err(run_error)?;
        for note in &done.notes {
            tracing::info!(note, "not carried exactly");
        }
        Ok(RunSummary {
            id: done.id,
            rows: done.rows,
            raw_bytes: done.raw_bytes,
            stored_bytes: done.stored_bytes,
            seconds: done.duration.as_secs_f64(),
            lock_millis: u64::try_from(done.locked.as_millis()).unwrap_or(u64::MAX),
            consistent_at: done.consistent_at,
            committed_at: done.committed_at,
            attempts: done.attempts,
        })
    }

    async fn verify(&self, cancel: CancellationToken, id: BackupId) -> Result<Checked, RunError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RunError::Cancelled),
            checked = span::traced(span::work!("check", id = id.as_str()), self.check(&cancel, &id)) => checked,
        }
    }

    async fn prove(&self, cancel: CancellationToken) -> Result<Proven, RunError> {
        span::traced(span::work!("prove"), self.proven(cancel)).await
    }

    async fn survey(&self, cancel: CancellationToken) -> Result<Survey, RunError> {
        span::traced(span::work!("survey"), self.surveyed(cancel)).await
    }

    async fn prune(&self, cancel: CancellationToken, rpo: Rpo) -> Result<String, RunError> {
        span::traced(span::work!("prune"), self.pruned(cancel, rpo)).await
    }
}

impl Driven {
    async fn proven(&self, cancel: CancellationToken) -> Result<Proven, RunError> {
        let Some(proving) = &self.config.verify.restore else {
            return Err(RunError::Permanent("verify.restore_to is not configured".to_owned()));
        };
        let stores = self.stores(&cancel).await?;
        let (survey, known, proofs) = self.listed(&stores).await?;
        if known.is_open {
            return Err(RunError::Busy(
                "a failover is open, and nothing but that touches the second site until it ends".to_owned(),
            ));
        }
        // What was found damaged must not be tried again and again.
        proofs.map_err(store_error)?;
        let Some(entry) = newest_good(&survey.entries) else {
            return Ok(Proven::NothingGood);
        };
        let id = entry.id.clone();
        let address = target::standby(&proving.to, &Resolver::for_config(&self.config))
            .await
            .map_err(|failure| RunError::Transient(failure.message().to_owned()))?;
        let proof = proof::prove(&self.config, &stores, entry, &address, PROOF_SESSIONS, &cancel).await;
        let noted = proof.noted.transpose();
        let done = match proof.done {
            Ok(done) => done,
            Err(error) if error.is_damage() => {
                if let Err(unwritten) = noted {
                    // Its next try would meet the same damage.
                    return Err(RunError::Permanent(format!(
                        "{id} is damaged ({error}), which could not be written down: {}",
                        told(&unwritten)
                    )));
                }
                let place = error.to_string();
                return Ok(Proven::Damaged { id, place });
            }
            Err(error) => return Err(restore_error(&error)),
        };
        // A proof that nobody can read is none.
        noted.map_err(|error| {
            RunError::Transient(format!("the proof of {id} could not be written down: {}", told(&error)))
        })?;
        if !done.compared.differences.is_empty() {
            let differences = done.compared.differences;
            return Ok(Proven::Different { id, differences });
        }
        Ok(Proven::Restored {
            id,
            server: done.compared.server,
            tables: done.compared.tables,
            rows: done.compared.rows,
            restore_seconds: done.restored.duration.as_secs_f64(),
            compare_seconds: done.compared.duration.as_secs_f64(),
        })
    }

    async fn surveyed(&self, cancel: CancellationToken) -> Result<Survey, RunError> {
        let stores = self.stores(&cancel).await?;
        tokio::select! {
            () = cancel.cancelled() => return Err(RunError::Cancelled),
            () = standstill::look(&self.config, &stores, &self.announcer, Voice::Agent) => {}
        }
        tell::adopt(&self.config, stores.control.as_ref(), &self.announcer).await;
        let (survey, _, proofs) = self.listed(&stores).await?;
        match proofs {
            // The RPO can be told without proofs, but not without a listing.
            Err(error) if error.is_permanent() => {
                tracing::warn!(error = told(&error), "proofs cannot be read; going on without");
            }
            proofs => proofs.map_err(store_error)?,
        }
        Ok(survey)
    }

    async fn pruned(&self, cancel: CancellationToken, rpo: Rpo) -> Result<String, RunError> {
        let stores = self.stores(&cancel).await?;
        let (survey, known, proofs) = self.listed(&stores).await?;
        // Whoever does not know which backup was proven must not remove any.
        proofs.map_err(store_error)?;
        let clock = open::clock();
        let mut holds = holds(
            steps::plan::site(self.config.service.protects),
            rpo.state,
            clock.now(),
            survey.store_now,
            &known,
        );
        let drilling = drilling(&self.config, &stores).await;
        holds
            .freezes
            .extend(drilling.map_err(|error| RunError::Transient(told(&error)))?);
        let pruning = keep(&survey.entries, &self.config.retention, &holds, survey.store_now);
        let approved = pruning
            .approve(Excess::Defer)
            .map_err(|error| RunError::Permanent(told(&error)))?;
        let removal = self.config.retention.removal;
        // An agent without the right to delete leaves them; they are small.
        let control = stores.control.as_ref();
        if let Err(error) = ledger::sweep(control, &self.config.store.prefix, &survey.entries, survey.store_now).await {
            tracing::debug!(error = told(&error), "proofs of backups that are gone were not removed");
        }
        let pruned = prune::execute(stores.backups.as_ref(), &approved, removal, clock.as_ref(), &cancel).await;
        pruned.map(|pruned| pruned.to_string()).map_err(|error| {
            if error.is_permanent() {
                RunError::Permanent(told(&error))
            } else {
                RunError::Transient(told(&error))
            }
        })
    }

    async fn stores(&self, cancel: &CancellationToken) -> Result<open::Stores, RunError> {
        let meter: Arc<dyn Meter> = Arc::clone(&self.board) as Arc<dyn Meter>;
        let stores = open::metered_stores(&self.config, cancel, meter).await;
        stores.map_err(store_error)
    }

    /// Every backup, what the journal says of them, and whether what was found out about them could be put in.
    async fn listed(&self, stores: &open::Stores) -> Result<(Survey, Known, Result<(), StoreError>), RunError> {
        let prefix = &self.config.store.prefix;
        let known = open::journal(&self.config, stores).known().await.map_err(store_error)?;
        let listed = shelf::list(
            stores.backups.as_ref(),
            prefix,
            &self.config.service.name,
            &known.standing,
        );
        let mut entries = listed.await.map_err(store_error)?;
        let store_now = stores.backups.now().await.map_err(store_error)?;
        let proofs = self.ledger.join(stores.control.as_ref(), prefix, &mut entries).await;
        Ok((Survey { entries, store_now }, known, proofs))
    }

    async fn check(&self, cancel: &CancellationToken, id: &BackupId) -> Result<Checked, RunError> {
        let stores = self.stores(cancel).await?;
        let prefix = &self.config.store.prefix;
        let service = &self.config.service.name;
        let known = open::journal(&self.config, &stores)
            .known()
            .await
            .map_err(store_error)?;
        let found = shelf::find(stores.backups.as_ref(), prefix, service, &known.standing, id).await;
        let entry = found
            .map_err(store_error)?
            .ok_or_else(|| RunError::Permanent("it is no longer in the store".to_owned()))?;
        let by = open::by(&self.config);
        let look = verify::stored(Arc::clone(&stores.backups), &entry, by, &|_| ()).await;
        let look = look.map_err(|error| {
            if error.is_permanent() {
                RunError::Permanent(told(&error))
            } else {
                RunError::Transient(told(&error))
            }
        })?;
        if let Err(error) = look.note(stores.control.as_ref(), prefix, &entry).await {
            tracing::error!(%id, error = told(&error), "what the check found could not be written down; listings do not know it");
        }
        Ok(match look.verdict {
            Verdict::Sound(looked) => Checked::Sound {
                members: looked.members,
                rows: looked.rows,
                seconds: look.finding.seconds,
            },
            Verdict::Damaged(place) => Checked::Damaged { place },
        })
    }
}

fn store_error(error: StoreError) -> RunError {
    if error.is_permanent() {
        RunError::Permanent(told(&error))
    } else {
        RunError::Transient(told(&error))
    }
}

fn restore_error(error: &RestoreError) -> RunError {
    match error {
        RestoreError::Begun(inner) => restore_error(inner),
        RestoreError::Cancelled => RunError::Cancelled,
        RestoreError::Busy => RunError::Busy(told(error)),
        error if error.is_passing() => RunError::Transient(told(error)),
        error => RunError::Permanent(told(error)),
    }
}

fn run_error(error: run::RunError) -> RunError {
    use crate::backup::lease::LeaseError;
    match error {
        run::RunError::Cancelled => RunError::Cancelled,
        run::RunError::Lease(held @ LeaseError::Held { .. }) => RunError::Busy(held.to_string()),
        error if error.is_permanent() => RunError::Permanent(told(&error)),
        error => RunError::Transient(told(&error)),
    }
}

/// The log says what a run does; whoever looks sees how far it is.
struct OnTheBoard<'a>(&'a Board);

impl Observer for OnTheBoard<'_> {
    fn attempt(&self, number: u32, progress: Arc<Progress>) {
        self.0.attempt_began(number, progress);
    }
    fn estimate(&self, _bytes: u64) {}
    fn repeated(&self, _error: &AttemptError) {}
}
