//! One backup, from the first look at the source to the commit: attempts, and what ends them.
//!
//! A run makes attempts until one is committed, a person must act, or its time is over. Each attempt is a fresh
//! snapshot under a fresh run id; whatever it staged is discarded unless it is committed. While the store does not
//! answer, no snapshot is held.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claim::{self, ClaimError};
use super::entry::{BackupId, Entry, Standing};
use super::lease::{self, Lease, Who};
use super::shelf;
use crate::clock::Clock;
use crate::config::{Config, VerifySource};
use crate::dump::pipeline::{PipelineError, Progress};
use crate::dump::{self, About, Attempt, AttemptError, Dumped, Naming, SourceFacts};
use crate::mysql::{Address, DbError};
use crate::source::login::Finder;
use crate::span;
use crate::store::{BlobStore, StoreError, Upload};

mod error;
mod reign;
mod summary;
mod trace;

pub use error::RunError;
pub use summary::RunSummary;

/// Clocks that differ by less are taken for equal: the store tells whole seconds only.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
/// A source whose schema keeps changing is given up after so many attempts; the next run tries again.
const MOST_ATTEMPTS: u32 = 20;
/// A cancelled run that does not end by itself within this time is dropped.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// A run that vanished blocks the next for at most this long.
const LEASE_FOR: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Everything a run needs; made once, used for every run.
pub struct Runner {
    pub config: Config,
    pub store: Arc<dyn BlobStore>,
    pub control: Arc<dyn BlobStore>,
    pub finder: Finder,
    pub clock: Arc<dyn Clock>,
    /// Makes run ids: lower-case hex, never the same twice.
    pub run_ids: fn() -> String,
}

/// What a person or the agent asks of one run.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Who runs: told to whoever finds the lease taken.
    pub holder: String,
    /// Whatever the configuration says, have the server checksum every table.
    pub verify_source: bool,
    /// The last one of a site that was fenced.
    pub is_last: bool,
    /// Why another server is right under this site's name.
    pub accept_source_changed: Option<String>,
}

/// Told while it runs, for progress bars and watchdogs.
pub trait Observer: Send + Sync {
    /// An attempt begins; figures appear in `progress`.
    fn attempt(&self, number: u32, progress: Arc<Progress>);
    /// About this many bytes are to be read.
    fn estimate(&self, bytes: u64);
    /// An attempt failed and is repeated.
    fn repeated(&self, error: &AttemptError);
}

impl Runner {
    /// Makes one backup.
    ///
    /// # Errors
    /// [`RunError`]. Whatever it is, nothing that list, latest, restore or prune can see was left behind.
    pub async fn run(
        &self,
        wanted: &Wanted,
        observer: &dyn Observer,
        cancel: &CancellationToken,
    ) -> Result<RunSummary, RunError> {
        trace::traced(&self.config.service.site, &wanted.holder, async {
            let lease = tokio::select! {
                biased;
                lease = self.lease(wanted) => lease?,
                () = cancel.cancelled() => return Err(RunError::Cancelled),
            };
            // Whoever lost the lease stops, as if cancelled: somebody else may be at it.
            let lost = lease.lost();
            let stop = cancel.child_token();
            let both = async {
                lost.cancelled().await;
                stop.cancel();
                std::future::pending().await
            };
            let result = tokio::select! {
                biased;
                // On the heap: in the frames of whoever waits for it, a dump needs much of a worker's stack.
                result = self.held(wanted, observer, &stop, &lease).boxed() => result,
                never = both => never,
            };
            let lost = lost.is_cancelled();
            match tokio::time::timeout(STOP_WITHIN, lease.release()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not given back; it will expire by itself"),
                Err(_) => tracing::warn!("the lease was not given back in time; it will expire by itself"),
            }
            match result {
                Err(RunError::Cancelled) if lost && !cancel.is_cancelled() => Err(RunError::LeaseLost),
                other => other,
            }
        })
        .await
    }

    async fn lease(&self, wanted: &Wanted) -> Result<Lease, RunError> {
        let who = Who {
            holder: wanted.holder.clone(),
            run_id: (self.run_ids)(),
            host: lease::host_name(),
            pid: std::process::id(),
        };
        // One lease for each prefix: services that share a container do not wait for one another.
        let name = format!("lease/run-{}", self.key());
        Ok(lease::acquire(Arc::clone(&self.control), &name, who, LEASE_FOR).await?)
    }

    /// Tells prefixes of one container apart in control data.
    fn key(&self) -> String {
        claim::key(&self.config.store.prefix)
    }

    async fn held(
        &self,
        wanted: &Wanted,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        lease: &Lease,
    ) -> Result<RunSummary, RunError> {
        let until = Instant::now() + self.config.backup.timeout;
        let staged = Staged::default();
        let holding = Holding { staged: &staged, lease };
        let mut attempts = std::pin::pin!(self.attempts(wanted, observer, cancel, until, &holding));
        let result = tokio::select! {
            biased;
            result = &mut attempts => result,
            // Asked to stop, it ends by itself at the next step; a server that does not answer is not waited for.
            () = async { cancel.cancelled().await; tokio::time::sleep(STOP_WITHIN).await } => Err(RunError::Cancelled),
            // A server that hangs while its connection lives answers nothing for ever.
            () = tokio::time::sleep_until(until) => Err(RunError::OutOfTime {
                limit: self.config.backup.timeout,
                last: "the attempt under way did not end".to_owned(),
            }),
        };
        if let Some(upload) = staged.take() {
            // The store drops it by itself in time; a run id stages nothing that another could take up.
            match tokio::time::timeout(STOP_WITHIN, self.store.discard(&upload)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "what was staged could not be discarded"),
                Err(_) => tracing::warn!("what was staged could not be discarded in time"),
            }
        }
        match result {
            // A commit whose answer was not waited for may have been one.
            Err(stopped @ (RunError::Cancelled | RunError::OutOfTime { .. })) => {
                Err(self.looked_up(staged.committing()).await.unwrap_or(stopped))
            }
            other => other,
        }
    }

    /// What became of a commit that nobody waited for; none if there was none.
    async fn looked_up(&self, committing: Option<Committing>) -> Option<RunError> {
        let Committing { id, name, digest } = committing?;
        let there = tokio::time::timeout(STOP_WITHIN, self.store.properties(&name)).await;
        Some(match there {
            Ok(Ok(Some(blob))) if shelf::is_of(&blob, &digest) => RunError::StoppedAfterCommit(id),
            // Somebody else's has the name, so ours was refused.
            Ok(Ok(Some(_))) => return None,
            // It may still be on its way.
            Ok(Ok(None) | Err(_)) | Err(_) => RunError::StoppedInCommit(id),
        })
    }

    async fn attempts(
        &self,
        wanted: &Wanted,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        until: Instant,
        holding: &Holding<'_>,
    ) -> Result<RunSummary, RunError> {
        let mut number = 0;
        let mut pause = FIRST_PAUSE;
        // A login refused once may be a password just rotated: it is read again, once.
        let mut login_refused = false;
        loop {
            number += 1;
            let attempt = self.attempt(wanted, observer, number, cancel, holding);
            let error = match span::traced(span::work!("attempt", number), attempt).await {
                Ok(summary) => return Ok(summary),
                Err(error) => error,
            };
            let refused = matches!(error, RunError::Attempt(AttemptError::Source(DbError::Login { .. })));
            let again = !error.is_permanent() || (refused && !std::mem::replace(&mut login_refused, true));
            if !again || cancel.is_cancelled() {
                return Err(if cancel.is_cancelled() {
                    RunError::Cancelled
                } else {
                    error
                });
            }
            let last = error.to_string();
            if number >= MOST_ATTEMPTS {
                return Err(RunError::TooManyAttempts { attempts: number, last });
            }
            if Instant::now() + pause >= until {
                let limit = self.config.backup.timeout;
                return Err(RunError::OutOfTime { limit, last });
            }
            tracing::warn!(attempt = number, %error, pause_seconds = pause.as_secs(), "attempt failed, a fresh snapshot will be taken");
            if let RunError::Attempt(error) = &error {
                observer.repeated(error);
            }
            self.wait(pause, until, &error).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits before the next attempt; where the store was the trouble, until it answers.
    async fn wait(&self, pause: Duration, until: Instant, error: &RunError) {
        tokio::time::sleep(pause).await;
        let store_trouble = matches!(
            error,
            RunError::Store(_)
                | RunError::Claim(ClaimError::Store(_))
                | RunError::Attempt(
                    AttemptError::Store(_)
                        | AttemptError::Pipeline(PipelineError::Stalled(_) | PipelineError::Store(_))
                )
        );
        while store_trouble && Instant::now() < until {
            if self.store.now().await.is_ok() {
                return;
            }
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        wanted: &Wanted,
        observer: &dyn Observer,
        number: u32,
        cancel: &CancellationToken,
        holding: &Holding<'_>,
    ) -> Result<RunSummary, RunError> {
        let begun = Instant::now();
        let config = &self.config;
        claim::service(
            self.control.as_ref(),
            &self.key(),
            &config.service.name,
            self.clock.now(),
        )
        .await?;
        let clock_offset = self.clock_offset().await?;
        let standing = self.standing(wanted).await?;
        let shelf = shelf::list(
            self.store.as_ref(),
            &config.store.prefix,
            &config.service.name,
            &standing,
        )
        .await?;
        let newest = shelf
            .iter()
            .filter(|entry| entry.standing == Standing::Good)
            .map(|entry| entry.consistent_at)
            .max();

        let address = self.finder.address().await?;
        let facts = dump::survey(&address, &config.source).await?;
        let accepted = wanted.accept_source_changed.as_deref();
        claim::site(
            self.control.as_ref(),
            &self.key(),
            &config.service.site,
            &facts.identity,
            accepted,
            self.clock.now(),
        )
        .await?;

        let progress = Arc::new(Progress::default());
        observer.attempt(number, Arc::clone(&progress));
        let run_id = (self.run_ids)();
        let verify_source = wanted.verify_source || self.is_verification_due(&shelf, clock_offset);
        // An attempt before this one may have left something behind.
        if let Some(earlier) = holding.staged.take()
            && let Err(error) = self.store.discard(&earlier).await
        {
            tracing::warn!(%error, "what an earlier attempt staged could not be discarded; the store drops it in time");
        }
        let making = Making {
            address: &address,
            facts: &facts,
            newest,
            clock_offset,
            verify_source,
            run_id: &run_id,
            wanted,
            epoch: standing.epoch(),
        };
        let (dumped, committed_at) = self
            .dump_and_commit(&making, progress, observer, cancel, holding)
            .await?;
        holding.staged.take();
        let summary = &dumped.index.summary;
        Ok(RunSummary {
            id: BackupId::at(summary.consistent_at),
            consistent_at: summary.consistent_at,
            committed_at,
            rows: summary.rows,
            tables: summary.tables.len() as u64,
            raw_bytes: summary.raw_bytes,
            stored_bytes: dumped.stored_bytes,
            duration: begun.elapsed(),
            locked: dumped.locked,
            attempts: number,
            way: summary.way,
            sessions: summary.sessions,
            yields: dumped.yields,
            notes: summary.notes.clone(),
            digest: dumped.digest,
        })
    }

    async fn dump_and_commit(
        &self,
        making: &Making<'_>,
        progress: Arc<Progress>,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        holding: &Holding<'_>,
    ) -> Result<(Dumped, Timestamp), RunError> {
        let config = &self.config;
        let about = About {
            service: config.service.name.clone(),
            site: config.service.site.clone(),
            epoch: making.epoch,
        };
        let attempt = Attempt {
            address: making.address,
            facts: making.facts,
            about: &about,
            backup: &config.backup,
            pause_replica: config.source.pause_replica,
            verify_source: making.verify_source,
            store: Arc::clone(&self.store),
            clock: self.clock.as_ref(),
            clock_offset: making.clock_offset,
            progress,
            estimate: &|bytes| observer.estimate(bytes),
        };
        let name = Name {
            runner: self,
            making,
            staged: holding.staged,
        };
        let dumped = span::traced(span::work!("dump"), async {
            tokio::select! {
                dumped = attempt.run(making.run_id, &name, cancel) => Ok(dumped),
                error = self.deposed(making) => Err(error),
            }
        })
        .await?;
        let (upload, dumped) = dumped.map_err(|error| match error {
            AttemptError::NameTaken(name) => self.name_taken(name, making),
            other => other.into(),
        })?;
        // The last look before anything becomes visible.
        holding.lease.confirm().await?;
        self.reigns_still(making.wanted, making.epoch).await?;
        holding.staged.commit_begins(Committing {
            id: BackupId::at(dumped.index.summary.consistent_at),
            name: upload.name.clone(),
            digest: dumped.digest.clone(),
        });
        let metadata = shelf::metadata(&dumped);
        let commit = self.store.commit(&upload, &dumped.blocks, &metadata);
        let properties = span::traced(span::work!("commit", blob = upload.name), commit).await?;
        Ok((dumped, properties.last_modified))
    }

    fn name_taken(&self, name: String, making: &Making<'_>) -> RunError {
        let at = BackupId::of_blob(&self.config.store.prefix, &name).map(|id| id.second());
        let now = self.store_time(making.clock_offset);
        match (at, making.newest) {
            (Some(at), Some(newest)) if BackupId::at(at) < BackupId::at(newest) => {
                // By a right clock, only a replica's lag makes data older than what is there.
                if BackupId::at(now) >= BackupId::at(newest) {
                    RunError::ReplicaBehind { at, newest }
                } else {
                    RunError::ClockSetBack { now: at, newest }
                }
            }
            _ => AttemptError::NameTaken(name).into(),
        }
    }

    /// What to add to our clock to have the store's, where they differ at all.
    async fn clock_offset(&self) -> Result<SignedDuration, StoreError> {
        let store = self.store.now().await?;
        let offset = store.duration_since(self.clock.now());
        if offset.abs() < CLOCK_TOLERANCE {
            return Ok(SignedDuration::ZERO);
        }
        tracing::warn!(
            offset_seconds = offset.as_secs(),
            "this machine's clock and the store's differ; the store's counts"
        );
        Ok(offset)
    }

    /// What time it is by the store's clock.
    fn store_time(&self, offset: SignedDuration) -> Timestamp {
        let now = self.clock.now();
        now.saturating_add(offset).unwrap_or(now)
    }

    /// Daily: unless a backup of this UTC day is on the shelf already.
    fn is_verification_due(&self, shelf: &[Entry], offset: SignedDuration) -> bool {
        let day = |at: Timestamp| at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let today = day(self.store_time(offset));
        match self.config.backup.verify_source {
            VerifySource::Never => false,
            VerifySource::Always => true,
            VerifySource::Daily => !shelf.iter().any(|entry| day(entry.consistent_at) == today),
        }
    }
}

/// What a run holds while it makes its attempts.
struct Holding<'a> {
    staged: &'a Staged,
    lease: &'a Lease,
}

/// What was staged and not committed: to be discarded, however the run ends.
#[derive(Debug, Default)]
struct Staged {
    upload: Mutex<Option<Upload>>,
    committing: Mutex<Option<Committing>>,
}

/// A backup whose commit was begun.
#[derive(Debug, Clone)]
struct Committing {
    id: BackupId,
    name: String,
    digest: String,
}

impl Staged {
    /// From here on blocks of `upload` may be in the store.
    fn begin(&self, upload: Upload) {
        *self.upload.lock().unwrap_or_else(PoisonError::into_inner) = Some(upload);
        *self.committing.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// From here on it may be published.
    fn commit_begins(&self, committing: Committing) {
        *self.committing.lock().unwrap_or_else(PoisonError::into_inner) = Some(committing);
    }

    fn committing(&self) -> Option<Committing> {
        self.committing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take(&self) -> Option<Upload> {
        self.upload.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Names a backup by its instant, if that is free and newer than all there are. From then on something may be staged.
struct Name<'a> {
    runner: &'a Runner,
    making: &'a Making<'a>,
    staged: &'a Staged,
}

#[async_trait]
impl Naming for Name<'_> {
    async fn name(&self, consistent_at: Timestamp) -> Result<String, AttemptError> {
        let id = BackupId::at(consistent_at);
        let name = id.blob(&self.runner.config.store.prefix);
        let older = self.making.newest.is_some_and(|newest| id < BackupId::at(newest));
        if older || self.runner.store.properties(&name).await?.is_some() {
            return Err(AttemptError::NameTaken(name));
        }
        self.staged.begin(Upload {
            name: name.clone(),
            run_id: self.making.run_id.to_owned(),
        });
        Ok(name)
    }
}

/// What one attempt is made of.
struct Making<'a> {
    address: &'a Address,
    facts: &'a SourceFacts,
    newest: Option<Timestamp>,
    clock_offset: SignedDuration,
    verify_source: bool,
    run_id: &'a str,
    wanted: &'a Wanted,
    /// In force when the attempt began.
    epoch: u64,
}
