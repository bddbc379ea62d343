//! One restore, from the first look at the target to the last event: each phase can be killed and done again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accounts::Account;
use super::after;
use super::complete;
use super::contents::Contents;
use super::error::RestoreError;
use super::hold::{keep_hold, take_hold_for};
use super::ledger::{self, Phase, Record};
use super::load::{self, Job, Loading, Progress};
use super::logins::{self, Made};
use super::plan::{self, Backup, Plan, Wish};
use super::programs::Item;
use super::target::{self, Target};
use super::tune::Tuning;
use crate::backup::archive::Archive;
use crate::dump::literal::{identifier, qualified};
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
    /// Whether an earlier, interrupted restore was gone on with.
    pub resumed: bool,
    pub retries: u64,
    pub server: String,
}

/// Told as it goes.
pub trait Observer: Send + Sync {
    fn planned(&self, plan: &Plan, resumed: bool);
    fn entered(&self, phase: Phase);
}

/// Everything that was read before anything is written.
struct Prepared {
    plan: Arc<Plan>,
    items: Vec<Vec<Item>>,
    target: Target,
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
    }

    /// Takes a trial off the target again.
    ///
    /// # Errors
    /// The database's; the next trial there repeats it.
    pub async fn discard(&self, cancel: &CancellationToken) -> Result<(), RestoreError> {
        let mut session = self.address.connect().await?;
        take_hold_for(true, &mut session, cancel).await?;
        for record in ledger::records(&mut session).await? {
            if record.trial && record.digest == self.archive.digest {
                ledger::forget(&mut session, &record).await?;
            }
        }
        session.close().await;
        Ok(())
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
        let prepared = self.prepare(holder, progress.is_begun.load(Relaxed)).await?;
        observer.planned(&prepared.plan, prepared.unfinished.is_some());
        progress.is_begun.store(true, Relaxed);
        // Whoever vanishes with its machine lets go within a minute; whoever is there says so.
        let mut tuning = Tuning::new(self.tune);
        let done = async {
            holder.execute("SET SESSION wait_timeout = 60").await?;
            tuning.begin(holder, &prepared.plan.parameters).await?;
            tokio::select! {
                lost = keep_hold(holder) => Err(lost),
                done = self.carry_out(&prepared, progress, observer, cancel, begun) => done,
            }
        };
        let done = done.await;
        let parameters = tuning.end(&self.address, holder.id).await;
        done.map(|restored| Restored { parameters, ..restored })
            .map_err(|error| RestoreError::Begun(Box::new(error)))
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
                complete::tables(control, &prepared.plan, &prepared.target).await?;
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
            Phase::Programs,
            Phase::Finishing,
        ] {
            if phase < from {
                continue;
            }
            observer.entered(phase);
            let phase_begun = Instant::now();
            match phase {
                Phase::Schema => self.schema(control, prepared, &run).await?,
                Phase::Data => self.data(control, &loading, resumed).await?,
                Phase::Keys => self.keys(control, &loading).await?,
                Phase::Programs => {
                    logins::make(&self.address, &self.accounts, &prepared.target).await?;
                    made = after::make(&self.address, &prepared.plan, &prepared.items).await?;
                    logins::grant_tables(&self.address, &self.accounts, &prepared.target).await?;
                    complete::tables(control, &prepared.plan, &prepared.target).await?;
                    complete::rows(control, &prepared.plan, &self.archive).await?;
                }
                // A trial keeps its marks: it is to be thrown away.
                Phase::Finishing if self.trial => {}
                Phase::Finishing => {
                    for database in &prepared.plan.databases {
                        ledger::unmark(control, &prepared.target.stored(&database.name)).await?;
                    }
                }
                Phase::Done => {}
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
                Phase::Keys => Phase::Programs,
                Phase::Programs => Phase::Finishing,
                Phase::Finishing | Phase::Done => Phase::Done,
            };
            ledger::enter(control, &self.archive.digest, next).await?;
            phases.push((phase, phase_begun.elapsed()));
        }
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
        for record in ledger::records(session).await? {
            if record.phase == Phase::Done && !record.trial {
                continue;
            }
            let is_ours = record.digest == self.archive.digest && record.trial == self.trial;
            let goes = if self.trial {
                record.trial && !(is_ours && is_begun)
            } else {
                // What a trial left was to be thrown away.
                record.trial || (self.start_over && !(is_ours && is_begun)) || self.instead_of.contains(&record.digest)
            };
            if goes {
                own_schemas.extend(ledger::marked(session, &record).await?);
                forget.push(record);
            } else if is_ours && record.phase != Phase::Done {
                let marked = ledger::marked(session, &record).await?;
                // Before there are rows it is begun anew; at the very end the marks are being taken away.
                if matches!(record.phase, Phase::Data | Phase::Keys | Phase::Programs) && marked != record.schemas {
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
        let wish = Wish {
            definers: self.definers.clone(),
            source_identity: None,
            own_schemas,
            accounts: self.accounts.clone(),
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

    async fn schema(&self, control: &mut Session, prepared: &Prepared, run: &str) -> Result<(), RestoreError> {
        let plan = &prepared.plan;
        let target = &prepared.target;
        let schemas: BTreeSet<String> = plan
            .databases
            .iter()
            .map(|database| target.stored(&database.name))
            .collect();
        let record = Record {
            digest: self.archive.digest.clone(),
            backup: self.backup.clone(),
            phase: Phase::Schema,
            schemas,
            trial: self.trial,
        };
        ledger::begin(control, &record, run).await?;
        let mut session = load::connect(&self.address, plan).await?;
        for database in &plan.databases {
            // Seen empty before, but others may have written since.
            let stored = target.stored(&database.name);
            if !ledger::is_empty(control, &stored).await? {
                return Err(RestoreError::Replaced(stored));
            }
            session.execute(&database.create).await?;
            // One that a platform made beforehand, empty, has a default of its own.
            if target.schemas.contains(&target.stored(&database.name))
                && let Some(at) = memchr::memmem::find(&database.create, b" /*!40100 ")
            {
                let mut alter = format!("ALTER DATABASE {}", identifier(&database.name)).into_bytes();
                alter.extend_from_slice(&database.create[at..]);
                session.execute(alter).await?;
            }
            ledger::mark(control, &target.stored(&database.name), &self.archive.digest).await?;
        }
        for (schema, statement) in &plan.sequences {
            session.execute(format!("USE {}", identifier(schema))).await?;
            session.execute(statement).await?;
        }
        for table in &plan.tables {
            session.execute(format!("USE {}", identifier(&table.schema))).await?;
            session.execute(&table.deferred.create).await?;
        }
        session.close().await;
        Ok(())
    }

    async fn data(&self, control: &mut Session, loading: &Arc<Loading>, resumed: bool) -> Result<(), RestoreError> {
        let loaded = ledger::loaded(control, &self.archive.digest).await?;
        loading.progress.stored_bytes.store(0, Relaxed);
        loading.progress.rows.store(0, Relaxed);
        for &number in &loaded {
            let Some(record) = self.archive.index.members.get(number) else {
                continue;
            };
            let (stored, rows) = (&loading.progress.stored_bytes, &loading.progress.rows);
            stored.fetch_add(record.stored_bytes, Relaxed);
            rows.fetch_add(record.rows, Relaxed);
        }
        let mut jobs = Vec::new();
        for table in &loading.plan.tables {
            if table.transactional {
                let missing = table.members.iter().filter(|number| !loaded.contains(number));
                jobs.extend(missing.map(|&number| Job::Member(number)));
            } else if (resumed && !table.members.is_empty())
                || !table.members.iter().all(|number| loaded.contains(number))
            {
                // What knows no transactions is not trusted after an interruption.
                jobs.push(Job::WholeTable(Box::new(table.clone())));
            }
        }
        // As the file has them: large tables first, and reading goes forward.
        jobs.sort_by_key(|job| match job {
            Job::Member(number) => *number,
            Job::WholeTable(table) | Job::Keys(table) => table.members.first().copied().unwrap_or(usize::MAX),
        });
        loading.run(jobs, self.sessions).await
    }

    async fn keys(&self, control: &mut Session, loading: &Arc<Loading>) -> Result<(), RestoreError> {
        let mut tables: Vec<_> = loading.plan.tables.iter().collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.raw_bytes));
        let waiting =
            |table: &&&plan::PlannedTable| !table.deferred.keys.is_empty() || !table.deferred.fulltext_keys.is_empty();
        let jobs = tables
            .iter()
            .filter(waiting)
            .map(|table| Job::Keys(Box::new((**table).clone())))
            .collect();
        loading.run(jobs, self.sessions).await?;
        // After the keys of all tables, since they need those of others; they only note a rule, and check nothing.
        let there = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE \
                     CONSTRAINT_TYPE = 'FOREIGN KEY'";
        let there: BTreeSet<Vec<String>> = control
            .text(there)
            .await?
            .into_iter()
            .map(|row| row.into_iter().map(|name| name.to_lowercase()).collect())
            .collect();
        let mut session = load::connect(&self.address, &loading.plan).await?;
        for table in loading
            .plan
            .tables
            .iter()
            .filter(|t| !t.deferred.foreign_keys.is_empty())
        {
            let is_missing = |key: &&Vec<u8>| {
                let name = key.strip_prefix(b"CONSTRAINT ").and_then(super::schema::identifier);
                name.is_none_or(|(name, _)| {
                    let known = [&table.schema, &table.name, &name].map(|name| name.to_lowercase());
                    !there.contains(known.as_slice())
                })
            };
            let missing: Vec<&Vec<u8>> = table.deferred.foreign_keys.iter().filter(is_missing).collect();
            if !missing.is_empty() {
                session.execute(format!("USE {}", identifier(&table.schema))).await?;
                let name = qualified(&table.schema, &table.name);
                session.execute(load::alter(&name, &missing)).await?;
            }
        }
        session.close().await;
        Ok(())
    }
}
