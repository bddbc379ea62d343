//! One restore, from the first look at the target to the last event: each phase can be killed and done again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accounts::Account;
use super::after;
use super::compare;
use super::complete;
use super::contents::Contents;
use super::error::RestoreError;
use super::hold::{holding, take_hold_for};
use super::ledger::{self, Phase, Record};
use super::load::{self, Loading, Progress};
use super::logins::{self, Made};
use super::plan::{self, Backup, Plan, Wish};
use super::programs::Item;
use super::replace::swap::Swap;
use super::replace::{self, RolledBack, keep, names, survey};
use super::target::{self, Target};
use super::trace;
use super::tune::Tuning;
use crate::backup::archive::Archive;
use crate::mysql::{Address, Session};

/// What to restore, and where.
pub struct Restore {
    pub archive: Archive,
    /// As a person knows it: an id, or a file's name.
    pub backup: String,
    pub address: Address,
    pub definers: BTreeMap<String, String>,
    /// The application's accounts, to be made.
    pub accounts: Vec<Account>,
    /// Sessions that load at once.
    pub sessions: usize,
    /// Throw an unfinished restore away first.
    pub start_over: bool,
    /// What is there under the backup's schemas is replaced, and kept as `planb_old_…`.
    pub replace: bool,
    /// To be compared and thrown away: only what other trials left may stand in the way, and goes.
    pub trial: bool,
    /// Change server parameters for the time of the load, as far as that is allowed.
    pub tune: bool,
    /// Digests of backups that proved damaged: what was restored of them is thrown away.
    pub instead_of: BTreeSet<String>,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Restored {
    pub tables: usize,
    pub rows: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub duration: Duration,
    /// Time in each phase.
    pub phases: Vec<(Phase, Duration)>,
    /// What was changed on the way, in words.
    pub repairs: Vec<String>,
    /// Server parameters: what was changed and set back, or what would be worth it.
    pub parameters: Vec<String>,
    /// Events that wait to be enabled.
    pub sleeping_events: usize,
    pub accounts: Vec<Made>,
    /// Where what was replaced is kept.
    pub kept: Vec<Replaced>,
    /// Whether an earlier, interrupted restore was gone on with.
    pub resumed: bool,
    pub retries: u64,
    pub server: String,
}

/// A schema whose content was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub schema: String,
    /// The schema that holds its old tables.
    pub kept_as: String,
    pub tables: usize,
    /// Views, routines, triggers and events, in `planb.kept_definitions`.
    pub definitions: usize,
}

/// Told as it goes.
pub trait Observer: Send + Sync {
    fn planned(&self, plan: &Plan, resumed: bool);
    fn entered(&self, phase: Phase);
}

/// Everything that was read before anything is written.
pub(super) struct Prepared {
    pub plan: Arc<Plan>,
    items: Vec<Vec<Item>>,
    pub target: Target,
    unfinished: Option<Record>,
    /// What earlier restores left and this one throws away, as far as it still is theirs.
    forget: Vec<Record>,
}

impl Restore {
    /// Says what would be done.
    ///
    /// # Errors
    /// As [`run`](Self::run), as far as it can be known beforehand.
    pub async fn plan(&self) -> Result<Arc<Plan>, RestoreError> {
        let mut session = self.address.connect().await?;
        let prepared = self.prepare(&mut session, false).await;
        session.close().await;
        Ok(prepared?.plan)
    }

    /// Restores, or goes on with what an interrupted run of the same backup left.
    ///
    /// # Errors
    /// [`RestoreError`]. Nothing was written if it is `Refused`, `Busy` or `Unfinished`; after any other, the same call
    /// goes on.
    pub async fn run(
        &self,
        progress: &Arc<Progress>,
        observer: &dyn Observer,
        cancel: &CancellationToken,
    ) -> Result<Restored, RestoreError> {
        trace::traced(&self.backup, self.trial, async {
            let begun = Instant::now();
            let mut until = begun + load::PATIENCE;
            let mut last = 0;
            loop {
                let error = match self.locked(progress, observer, cancel, begun).await {
                    Ok(restored) => return Ok(restored),
                    Err(error) => error,
                };
                // A server that was away for a while is not given up as long as there is progress in between.
                let rows = progress.rows.load(Relaxed);
                if rows != std::mem::replace(&mut last, rows) {
                    until = Instant::now() + load::PATIENCE;
                }
                let is_begun =
                    matches!(error, RestoreError::Begun(_) | RestoreError::Busy) && progress.is_begun.load(Relaxed);
                let goes_on = error.is_passing() || matches!(error, RestoreError::Busy);
                if !is_begun || !goes_on || cancel.is_cancelled() || Instant::now() > until {
                    return Err(error);
                }
                tracing::warn!(%error, "the restore goes on as soon as the target answers");
                tokio::select! {
                    () = cancel.cancelled() => return Err(error),
                    () = tokio::time::sleep(load::LONGEST_PAUSE) => {}
                }
            }
        })
        .await
    }

    /// Takes a trial off the target again.
    ///
    /// # Errors
    /// The database's; the next trial there repeats it.
    pub async fn discard(&self, cancel: &CancellationToken) -> Result<(), RestoreError> {
        discard(&self.address, &self.archive.digest, cancel).await
    }

    /// Puts back what a restore that replaces has found on this target; see [`replace::roll_back`].
    ///
    /// # Errors
    /// As there.
    pub async fn roll_back(&self, cancel: &CancellationToken) -> Result<RolledBack, RestoreError> {
        replace::roll_back(&self.address, cancel).await
    }

    /// Drops what was replaced on this target, and kept; see [`replace::drop_old`].
    ///
    /// # Errors
    /// As there.
    pub async fn drop_old(&self, cancel: &CancellationToken) -> Result<Vec<String>, RestoreError> {
        replace::drop_old(&self.address, cancel).await
    }

    /// From taking hold of the target to letting go of it.
    async fn locked(
        &self,
        progress: &Arc<Progress>,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        begun: Instant,
    ) -> Result<Restored, RestoreError> {
        let was_begun = progress.is_begun.load(Relaxed);
        let as_begun = |error: RestoreError| {
            if was_begun {
                RestoreError::Begun(Box::new(error))
            } else {
                error
            }
        };
        let mut holder = self.address.connect().await.map_err(|error| as_begun(error.into()))?;
        let done = self.hold(&mut holder, progress, observer, cancel, begun).await;
        holder.close().await;
        match done {
            Err(error @ (RestoreError::Begun(_) | RestoreError::Busy)) => Err(error),
            Err(error) => Err(as_begun(error)),
            Ok(restored) => Ok(restored),
        }
    }

    async fn hold(
        &self,
        holder: &mut Session,
        progress: &Arc<Progress>,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        begun: Instant,
    ) -> Result<Restored, RestoreError> {
        take_hold_for(self.trial, holder, cancel).await?;
        self.clear(holder, progress.is_begun.load(Relaxed), cancel).await?;
        let prepared = self.prepare(holder, progress.is_begun.load(Relaxed)).await?;
        observer.planned(&prepared.plan, prepared.unfinished.is_some());
        progress.is_begun.store(true, Relaxed);
        let mut tuning = Tuning::new(self.tune);
        let done = match tuning.begin(holder, &prepared.plan.parameters).await {
            Ok(()) => holding(holder, self.carry_out(&prepared, progress, observer, cancel, begun)).await,
            Err(error) => Err(error.into()),
        };
        let parameters = tuning.end(&self.address, holder.id).await;
        done.map(|restored| Restored { parameters, ..restored })
            .map_err(|error| RestoreError::Begun(Box::new(error)))
    }

    /// Whether an earlier restore that nobody goes on with is thrown away.
    fn throws_away(&self, record: &Record, is_begun: bool) -> bool {
        let is_ours = record.digest == self.archive.digest && record.trial == self.trial;
        if self.trial {
            record.trial && !(is_ours && is_begun)
        } else {
            // What a trial left was to be thrown away.
            record.trial || (self.start_over && !(is_ours && is_begun)) || self.instead_of.contains(&record.digest)
        }
    }

    /// Takes back what is to be thrown away and may have changed places: what there is to replace is known only then.
    async fn clear(
        &self,
        holder: &mut Session,
        is_begun: bool,
        cancel: &CancellationToken,
    ) -> Result<(), RestoreError> {
        for record in ledger::records(holder).await? {
            if record.trial && !self.trial {
                ledger::forget(holder, &record).await?;
                continue;
            }
            if record.phase != Phase::Done && record.replaces() && self.throws_away(&record, is_begun) {
                let back = replace::back::take_back(&self.address, record, cancel).await?;
                for missing in back.missing {
                    tracing::warn!(%missing, "could not be put back");
                }
            }
        }
        Ok(())
    }

    async fn carry_out(
        &self,
        prepared: &Prepared,
        progress: &Arc<Progress>,
        observer: &dyn Observer,
        cancel: &CancellationToken,
        begun: Instant,
    ) -> Result<Restored, RestoreError> {
        let mut control = self.address.connect().await?;
        let control = &mut control;
        control.execute("SET SESSION wait_timeout = 86400").await?;
        // So that whoever takes the target over ends this session, too.
        ledger::enlist(control).await?;
        ledger::prepare(control).await?;
        for record in &prepared.forget {
            ledger::forget(control, record).await?;
        }
        let run = format!("{:016x}", rand::random::<u64>());
        let resumed = prepared.unfinished.is_some();
        let stop = cancel.child_token();
        // Sessions of ours that outlive this call would write on after the lock is gone.
        let guarded = stop.clone().drop_guard();
        let loading = Arc::new(Loading {
            address: self.address.clone(),
            archive: self.archive.clone(),
            plan: Arc::clone(&prepared.plan),
            progress: Arc::clone(progress),
            cancel: stop.clone(),
            run: run.clone(),
        });
        let from = match &prepared.unfinished {
            // Nothing but empty tables: made anew, so that a half-made schema needs no thought.
            Some(record) if record.phase == Phase::Schema => {
                ledger::forget(control, record).await?;
                Phase::Schema
            }
            Some(record) => {
                ledger::take_over(control, &record.digest, &run).await?;
                // In the middle of a swap they may be anywhere; the swap itself looks.
                if record.phase != Phase::Swap {
                    let is_settled = record.phase > Phase::Swap;
                    complete::tables(control, &prepared.plan, &prepared.target, is_settled).await?;
                }
                record.phase
            }
            None => Phase::Schema,
        };
        let mut phases = Vec::new();
        let mut made = after::Made::default();
        for phase in [
            Phase::Schema,
            Phase::Data,
            Phase::Keys,
            Phase::Check,
            Phase::Swap,
            Phase::Programs,
            Phase::Finishing,
        ] {
            if phase < from || (!self.replace && matches!(phase, Phase::Check | Phase::Swap)) {
                continue;
            }
            observer.entered(phase);
            let phase_begun = Instant::now();
            match phase {
                Phase::Schema => self.schema(control, prepared, &run).await?,
                Phase::Data => self.data(control, &loading, resumed).await?,
                Phase::Keys => self.keys(control, &loading).await?,
                Phase::Check => self.check(prepared, cancel).await?,
                Phase::Swap => {
                    let swap = Swap {
                        address: &self.address,
                        plan: &prepared.plan,
                        target: &prepared.target,
                        digest: &self.archive.digest,
                        backup: &self.backup,
                        run: &run,
                        cancel,
                    };
                    swap.run().await?;
                }
                Phase::Programs => {
                    logins::make(&self.address, &self.accounts, &prepared.target).await?;
                    made = after::make(&self.address, &prepared.plan, &prepared.items).await?;
                    logins::grant_tables(&self.address, &self.accounts, &prepared.target).await?;
                    complete::tables(control, &prepared.plan, &prepared.target, true).await?;
                    complete::rows(control, &prepared.plan, &self.archive).await?;
                }
                // A trial keeps its marks: it is to be thrown away.
                Phase::Finishing if self.trial => {}
                Phase::Finishing => {
                    for database in &prepared.plan.databases {
                        let stored = prepared.target.stored(&database.name);
                        ledger::unmark(control, names::real(&stored).unwrap_or(&stored)).await?;
                    }
                }
                Phase::RollingBack | Phase::Done => {}
            }
            if cancel.is_cancelled() {
                return Err(RestoreError::Cancelled);
            }
            if !ledger::is_mine(control, &self.archive.digest, &run).await? {
                return Err(RestoreError::TakenOver);
            }
            let next = match phase {
                Phase::Schema => Phase::Data,
                Phase::Data => Phase::Keys,
                Phase::Keys if self.replace => Phase::Check,
                Phase::Check => Phase::Swap,
                Phase::Keys | Phase::Swap => Phase::Programs,
                Phase::Programs => Phase::Finishing,
                Phase::Finishing | Phase::RollingBack | Phase::Done => Phase::Done,
            };
            ledger::enter(control, &self.archive.digest, next).await?;
            phases.push((phase, phase_begun.elapsed()));
        }
        let kept = if self.replace {
            replaced(control, &self.archive.digest).await?
        } else {
            Vec::new()
        };
        drop(guarded);
        let summary = &self.archive.index.summary;
        Ok(Restored {
            tables: prepared.plan.tables.len(),
            rows: summary.rows,
            stored_bytes: self.archive.size_bytes(),
            raw_bytes: summary.raw_bytes,
            duration: begun.elapsed(),
            phases,
            repairs: prepared.plan.repairs.iter().cloned().chain(made.notes).collect(),
            parameters: Vec::new(),
            sleeping_events: made.sleeping_events,
            accounts: logins::test(&self.address, &self.accounts, &prepared.target).await,
            kept,
            resumed,
            retries: progress.retries.load(Relaxed),
            server: prepared.target.version.to_string(),
        })
    }

    /// Reads everything but the rows, looks at the target, and plans.
    /// `is_begun`: an earlier attempt of this very call has written already.
    async fn prepare(&self, session: &mut Session, is_begun: bool) -> Result<Prepared, RestoreError> {
        let index = &self.archive.index;
        let contents = Contents::read(&self.archive).await?;
        let mut unfinished = None;
        let mut forget = Vec::new();
        let mut own_schemas = BTreeSet::new();
        // Something of what is to be replaced may have changed places.
        let mut looks_begun = false;
        for record in ledger::records(session).await? {
            if record.phase == Phase::Done && !record.trial {
                continue;
            }
            let is_ours = record.digest == self.archive.digest && record.trial == self.trial;
            if self.throws_away(&record, is_begun) {
                looks_begun |= record.replaces();
                own_schemas.extend(ledger::marked(session, &record).await?);
                forget.push(record);
            } else if is_ours && record.phase != Phase::Done {
                match (record.replaces(), self.replace) {
                    _ if record.phase == Phase::RollingBack => return Err(record.as_unfinished()),
                    (true, false) => return Err(record.as_unfinished()),
                    (false, true) => return Err(RestoreError::BegunWithout(record.backup)),
                    (true, true) => looks_begun |= record.phase >= Phase::Swap,
                    (false, false) => {}
                }
                let marked = ledger::marked(session, &record).await?;
                // Before there are rows it is begun anew; at the very end the marks are being taken away.
                let is_whole = !matches!(record.phase, Phase::Schema | Phase::Finishing);
                if is_whole && marked != record.schemas {
                    let strange: Vec<&str> = record.schemas.difference(&marked).map(String::as_str).collect();
                    return Err(RestoreError::Replaced(strange.join(", ")));
                }
                own_schemas.extend(if record.phase == Phase::Finishing {
                    record.schemas.clone()
                } else {
                    marked
                });
                unfinished = Some(record);
            } else {
                return Err(record.as_unfinished());
            }
        }
        let target = target::survey(session).await?;
        let mut replaces = None;
        if self.replace {
            let mut standing = survey::survey(session, &self.address, &target, &contents.schema).await?;
            standing.is_begun = looks_begun;
            replaces = Some(standing);
        }
        let wish = Wish {
            definers: self.definers.clone(),
            source_identity: None,
            own_schemas,
            accounts: self.accounts.clone(),
            replaces,
        };
        let programs = contents.programs();
        let backup = Backup {
            summary: &index.summary,
            members: &index.members,
            schema: &contents.schema,
            programs: &programs,
        };
        let mut problems = after::unknown_time_zones(session, &programs).await?;
        let plan = match plan::plan(backup, &target, &wish) {
            Ok(plan) if problems.is_empty() => plan,
            Ok(_) => return Err(RestoreError::Refused(problems)),
            Err(more) => {
                problems.splice(0..0, more);
                return Err(RestoreError::Refused(problems));
            }
        };
        Ok(Prepared {
            plan: Arc::new(plan),
            items: contents.items,
            target,
            unfinished,
            forget,
        })
    }

    /// Compares what was loaded with the backup, before anything of the old is touched.
    async fn check(&self, prepared: &Prepared, cancel: &CancellationToken) -> Result<(), RestoreError> {
        let naming = &prepared.plan.naming;
        let compared = compare::loaded(&self.address, &self.archive, naming, self.sessions, cancel).await?;
        if compared.differences.is_empty() {
            Ok(())
        } else {
            Err(RestoreError::Different(compared.differences))
        }
    }
}

/// What a finished restore has replaced.
async fn replaced(session: &mut Session, digest: &str) -> Result<Vec<Replaced>, RestoreError> {
    let mut all = Vec::new();
    for kept in keep::kept(session).await? {
        if kept.digest != digest || kept.create.is_empty() {
            continue;
        }
        let sides = keep::look(session, std::slice::from_ref(&kept.schema)).await?;
        all.push(Replaced {
            kept_as: kept.place(),
            tables: sides.get(&kept.schema).map_or(0, |sides| sides.old.len()),
            definitions: keep::definitions(session, &kept.schema).await?.len(),
            schema: kept.schema,
        });
    }
    Ok(all)
}

/// Takes the trials of the backup with this digest off a target again; the backup itself need not be there any more.
///
/// # Errors
/// The database's; to be repeated.
pub async fn discard(address: &Address, digest: &str, cancel: &CancellationToken) -> Result<(), RestoreError> {
    let mut session = address.connect().await?;
    take_hold_for(true, &mut session, cancel).await?;
    for record in ledger::records(&mut session).await? {
        if record.trial && record.digest == digest {
            ledger::forget(&mut session, &record).await?;
        }
    }
    session.close().await;
    Ok(())
}
