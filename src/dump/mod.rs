//! The dump: everything a set of schemas holds, at one point in time, into blocks that the store holds.
//!
//! One [`attempt`] is one snapshot. It ends with staged blocks and an index, or with an [`AttemptError`] that says
//! whether a fresh snapshot may do better. Order matters:
//!
//! 1. definitions and table identities are read (they are not versioned by any snapshot);
//! 2. the snapshot is opened (`snapshot`);
//! 3. the schema member is written, from definitions read anew, and readers read the tables (`reader`), watched by
//!    the guard (`guard`); members are compressed and uploaded meanwhile (`pipeline`);
//! 4. definitions and identities are read again: if any differs from 1, somebody changed the schema meanwhile, and
//!    what was read may be neither the old nor the new: the attempt is repeated;
//! 5. routines, views, triggers and events are written from 4, then the index.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub mod catalog;
pub mod columns;
pub mod definition;
pub mod guard;
pub mod keyset;
pub mod limiter;
pub mod literal;
pub mod pipeline;
pub mod reader;
pub mod script;
pub mod snapshot;
pub mod writer;

use crate::clock::Clock;
use crate::config;
use crate::format::FORMAT;
use crate::format::index::{Index, MemberKind, Summary, TableRecord};
use crate::format::member::Packer;
use crate::format::trailer::Trailer;
use crate::mysql::dialect::Dialect;
use crate::mysql::grants::Grants;
use crate::mysql::{Address, DbError, Session};
use crate::store::{BlobStore, BlockNumber, StoreError, Upload};
use guard::Guard;
use limiter::Limiter;
use pipeline::{Intake, Label, Pipeline, PipelineError, Progress, StagedBlock};
use reader::{Job, Reader};
use sha2::{Digest, Sha256};
use snapshot::{Snapshot, Wish};

/// Members are planned so that a backup has at most this many: 80% of Azure's 50,000 blocks.
const PLANNED_MEMBERS: u64 = 40_000;
const SMALLEST_MEMBER_BYTES: u64 = 4 << 20;
const LARGEST_MEMBER_BYTES: u64 = 64 << 20;

/// The source as it was found: what does not change between attempts.
#[derive(Debug, Clone)]
pub struct SourceFacts {
    pub dialect: Dialect,
    pub grants: Grants,
    pub identity: String,
    pub schemas: Vec<String>,
    /// The binlog is on and holds every change of the data.
    pub binlog_complete: bool,
}

/// What a backup says about itself.
#[derive(Debug, Clone)]
pub struct About {
    pub service: String,
    pub site: String,
    pub epoch: u64,
}

/// A finished dump, not yet published.
#[derive(Debug, Clone)]
pub struct Dumped {
    pub index: Index,
    /// In file order, index and trailer included.
    pub blocks: Vec<BlockNumber>,
    pub digest: String,
    pub stored_bytes: u64,
    pub locked: Duration,
    /// How often a reader gave way to somebody who waited.
    pub yields: u64,
}

/// Why an attempt ended. Never holds a secret or data.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    #[error(transparent)]
    Source(#[from] DbError),
    #[error("the definition of {what} changed while it was dumped")]
    SchemaChanged { what: String },
    #[error(
        "{table} has no usable key, and somebody waited for it while it was read; give it a primary key, or dump at a quieter time"
    )]
    Yielded { table: String },
    #[error("{table}: {detail}; the rows read are not the rows there, so this dump is thrown away")]
    Mismatch { table: String, detail: String },
    #[error("{0}")]
    Replica(String),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the name {0} is taken already")]
    NameTaken(String),
    #[error("the account does not see everything, and the server hides what it does not: {}", .0.join("; "))]
    MissingGrants(Vec<String>),
    #[error("schema {0} does not exist on the source; check [source] databases")]
    NoSuchSchema(String),
    #[error("there is no schema to back up on the source; a backup of nothing would look like one")]
    NothingToDump,
    #[error("the source runs {0}, which this planb does not know; see README for the versions")]
    UnknownVersion(String),
    #[error("cancelled")]
    Cancelled,
    #[error("a reader ended unexpectedly: {0}")]
    Panicked(String),
}

impl AttemptError {
    /// Whether a fresh snapshot cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Source(error) => error.is_permanent(),
            Self::Store(error) | Self::Pipeline(PipelineError::Store(error)) => error.is_permanent(),
            Self::Pipeline(PipelineError::TooManyBlocks(_)) => true,
            Self::Pipeline(PipelineError::Stalled(_) | PipelineError::Stopped)
            | Self::SchemaChanged { .. }
            | Self::Yielded { .. }
            | Self::NameTaken(_) => false,
            Self::Mismatch { .. }
            | Self::Replica(_)
            | Self::MissingGrants(_)
            | Self::NoSuchSchema(_)
            | Self::NothingToDump
            | Self::UnknownVersion(_)
            | Self::Cancelled
            | Self::Panicked(_) => true,
        }
    }

    /// Names the table where the server's own message may not.
    fn in_table(self, table: &str) -> Self {
        match self {
            Self::Source(DbError::DefinitionChanged { .. }) => Self::SchemaChanged { what: table.to_owned() },
            other => other,
        }
    }
}

/// Looks at the source: version, grants, schemas. Fails loudly where a missing grant would hide an object.
///
/// # Errors
/// [`AttemptError`], nearly always permanent.
pub async fn survey(address: &Address, source: &config::Source) -> Result<SourceFacts, AttemptError> {
    let mut session = address.connect().await?;
    let facts = survey_session(&mut session, source).await;
    session.close().await;
    facts
}

async fn survey_session(session: &mut Session, source: &config::Source) -> Result<SourceFacts, AttemptError> {
    let dialect = dialect_of(session).await?;
    let existing = catalog::user_schemas(session).await?;
    let schemas = if source.databases.is_empty() {
        existing.clone()
    } else {
        source.databases.clone()
    };
    if let Some(absent) = schemas.iter().find(|name| !existing.contains(name)) {
        // A schema on which nothing is granted is hidden as if it were not there.
        return Err(AttemptError::NoSuchSchema(absent.clone()));
    }
    if schemas.is_empty() {
        return Err(AttemptError::NothingToDump);
    }
    let binlog_on = session.scalar("SELECT @@global.log_bin").await? == "1";
    let grants = grants_of(session).await?;
    let missing = grants.missing(&dialect, &schemas, binlog_on);
    if !missing.is_empty() {
        return Err(AttemptError::MissingGrants(missing));
    }
    let identity = session.scalar(dialect.server_identity).await?;
    let binlog_complete = binlog_on && snapshot::is_binlog_complete(session, &dialect).await?;
    Ok(SourceFacts {
        dialect,
        grants,
        identity,
        schemas,
        binlog_complete,
    })
}

/// The server's version and what to say to it.
pub async fn dialect_of(session: &mut Session) -> Result<Dialect, AttemptError> {
    let version = session.text("SELECT @@version, @@version_comment").await?;
    let text = |i: usize| version.first().and_then(|row| row.get(i)).cloned().unwrap_or_default();
    let version = crate::mysql::dialect::Version::parse(&text(0), &text(1))
        .filter(crate::mysql::dialect::Version::is_supported)
        .ok_or_else(|| AttemptError::UnknownVersion(text(0)))?;
    Ok(Dialect::of(version))
}

/// The account's privileges, those of its active roles included.
pub async fn grants_of(session: &mut Session) -> Result<Grants, DbError> {
    let roles = session.scalar("SELECT COALESCE(CURRENT_ROLE(), 'NONE')").await?;
    // MySQL lists a role's privileges only when asked to use it; MariaDB always lists the current role's.
    let ask = if roles.contains('`') {
        format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}")
    } else {
        "SHOW GRANTS".to_owned()
    };
    let rows = session.text(&ask).await?;
    Ok(Grants::parse(
        rows.iter().filter_map(|row| row.first()).map(String::as_str),
    ))
}

/// Gives a backup its name once its instant is known, before any data is read.
#[async_trait]
pub trait Naming: Send + Sync {
    /// The blob's name; an error if it is taken, or would be older than what is there.
    async fn name(&self, consistent_at: Timestamp) -> Result<String, AttemptError>;
}

/// Everything one attempt needs.
pub struct Attempt<'a> {
    pub address: &'a Address,
    pub facts: &'a SourceFacts,
    pub about: &'a About,
    pub backup: &'a config::Backup,
    pub pause_replica: bool,
    pub verify_source: bool,
    pub store: Arc<dyn BlobStore>,
    pub clock: &'a dyn Clock,
    /// Added to the clock: where the store's clock and ours disagree, the store's counts.
    pub clock_offset: jiff::SignedDuration,
    pub progress: Arc<Progress>,
    /// Estimated bytes to read, told once known.
    pub estimate: &'a (dyn Fn(u64) + Send + Sync),
}

impl Attempt<'_> {
    /// Dumps everything under `upload`'s run id. `naming` makes the blob's name from the snapshot's instant, and
    /// refuses if it is taken. Nothing is visible in the store until the caller commits.
    ///
    /// # Errors
    /// See [`AttemptError::is_permanent`]. The caller discards what was staged.
    pub async fn run(
        &self,
        run_id: &str,
        naming: &dyn Naming,
        cancel: &CancellationToken,
    ) -> Result<(Upload, Dumped), AttemptError> {
        // A child: the pipeline may stop this attempt, not the run.
        let stop = cancel.child_token();
        let guarded = stop.clone().drop_guard();
        let mut control = snapshot::reader_session(self.address, &self.facts.dialect, self.backup.lock_wait).await?;
        let lag = if self.pause_replica {
            None
        } else {
            snapshot::replica_lag(&mut control, &self.facts.dialect).await?
        };
        let before = self.schemas(&mut control).await?;
        let fingerprint = catalog::fingerprint(&mut control, &self.facts.dialect, &before).await?;

        let mut snapshot = self.open(&before).await?;
        let behind = jiff::SignedDuration::from_secs(lag.unwrap_or(0));
        snapshot.consistent_at = snapshot
            .consistent_at
            .saturating_add(self.clock_offset - behind)
            .unwrap_or(snapshot.consistent_at);
        let upload = Upload {
            name: naming.name(snapshot.consistent_at).await?,
            run_id: run_id.to_owned(),
        };

        let schemas = self.schemas(&mut control).await?;
        let history = schemas
            .iter()
            .flat_map(|schema| &schema.tables)
            .any(|table| table.history);
        let mut summary = self.summary(&snapshot, &schemas, run_id);
        let jobs = Arc::new(self.jobs(&schemas, snapshot.sessions.len()));
        (self.estimate)(jobs.iter().map(|job| job.table.estimated_bytes).sum());

        let settings = self.settings(&schemas, snapshot.sessions.len());
        let pipeline = Pipeline::start(
            Arc::clone(&self.store),
            upload.clone(),
            &settings,
            Arc::clone(&self.progress),
            stop.clone(),
        );
        let intake = pipeline.intake();
        let guard = Guard::default();
        let outcome = async {
            let member = script::schema_member(&schemas, &summary, history);
            submit(&intake, MemberKind::Schema, "", 0, member).await?;
            self.read(&jobs, snapshot.sessions, &intake, &guard, &stop).await?;
            let after = self.schemas(&mut control).await?;
            let now = catalog::fingerprint(&mut control, &self.facts.dialect, &after).await?;
            if let Some(what) = catalog::difference(&fingerprint, &now) {
                return Err(AttemptError::SchemaChanged { what });
            }
            for (number, (kind, schema, text)) in (0_u32..).zip(script::after_data(&after)) {
                submit(&intake, kind, &schema, number, text).await?;
            }
            Ok(())
        };
        let outcome: Result<(), AttemptError> = outcome.await;
        drop(intake);
        if outcome.is_err() {
            stop.cancel();
        }
        let finished = pipeline.finish().await;
        control.close().await;
        // The first cause counts: readers that were merely stopped say so, and the pipeline says why.
        let blocks = match (outcome, finished) {
            (Ok(()), Ok(blocks)) => blocks,
            (Err(AttemptError::Pipeline(PipelineError::Stopped)) | Ok(()), Err(error)) => {
                return Err(if cancel.is_cancelled() {
                    AttemptError::Cancelled
                } else {
                    error.into()
                });
            }
            (Err(error), _) => {
                return Err(if cancel.is_cancelled() {
                    AttemptError::Cancelled
                } else {
                    error
                });
            }
        };
        drop(guarded);
        tally(&mut summary, &jobs, &self.progress);
        let dumped = self
            .close(&upload, blocks, summary, snapshot.locked, guard.yields())
            .await?;
        Ok((upload, dumped))
    }

    async fn schemas(&self, control: &mut Session) -> Result<Vec<catalog::Schema>, AttemptError> {
        let mut schemas = Vec::with_capacity(self.facts.schemas.len());
        for name in &self.facts.schemas {
            schemas.push(catalog::schema(control, &self.facts.dialect, name).await?);
        }
        Ok(schemas)
    }

    async fn open(&self, schemas: &[catalog::Schema]) -> Result<Snapshot, AttemptError> {
        let tables = schemas
            .iter()
            .flat_map(|s| s.tables.iter().map(|t| (t.schema.clone(), t.name.clone())))
            .collect();
        let wish = Wish {
            sessions: self.backup.sessions,
            lock: self.backup.lock,
            lock_wait: self.backup.lock_wait,
            pause_replica: self.pause_replica,
            binlog_complete: self.facts.binlog_complete,
            tables,
        };
        snapshot::open(self.address, &self.facts.dialect, &self.facts.grants, &wish, self.clock).await
    }

    fn summary(&self, snapshot: &Snapshot, schemas: &[catalog::Schema], run_id: &str) -> Summary {
        Summary {
            format: FORMAT,
            planb: env!("CARGO_PKG_VERSION").to_owned(),
            service: self.about.service.clone(),
            site: self.about.site.clone(),
            epoch: self.about.epoch,
            run_id: run_id.to_owned(),
            server: self.facts.dialect.version.to_string(),
            server_identity: self.facts.identity.clone(),
            consistent_at: snapshot.consistent_at,
            way: snapshot.way,
            lock_millis: u64::try_from(snapshot.locked.as_millis()).unwrap_or(u64::MAX),
            sessions: u32::try_from(snapshot.sessions.len()).unwrap_or(u32::MAX),
            position: snapshot.position.clone(),
            schemas: self.facts.schemas.clone(),
            tables: Vec::new(),
            definers: script::definers(schemas),
            notes: schemas
                .iter()
                .flat_map(|schema| schema.notes.clone())
                .chain(broken_views(schemas))
                .collect(),
            rows: 0,
            raw_bytes: 0,
            largest_row_bytes: 0,
        }
    }

    /// Tables, largest first, so that the last to finish is a small one.
    fn jobs(&self, schemas: &[catalog::Schema], sessions: usize) -> Vec<Job> {
        let mut tables: Vec<_> = schemas.iter().flat_map(|schema| schema.tables.clone()).collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.estimated_bytes));
        let share_from_bytes = (sessions > 1).then_some(4 * SMALLEST_MEMBER_BYTES);
        (0..)
            .zip(tables)
            .map(|(number, table)| Job::new(table, number, share_from_bytes))
            .collect()
    }

    fn settings(&self, schemas: &[catalog::Schema], sessions: usize) -> pipeline::Settings {
        let threads = std::thread::available_parallelism()
            .map_or(2, std::num::NonZero::get)
            .min(8);
        let estimated: u64 = schemas
            .iter()
            .flat_map(|schema| &schema.tables)
            .map(|table| table.estimated_bytes)
            .sum();
        let member_bytes = (estimated / PLANNED_MEMBERS).clamp(SMALLEST_MEMBER_BYTES, LARGEST_MEMBER_BYTES);
        pipeline::Settings {
            level: self.backup.level,
            threads,
            buffers: sessions + threads + 1,
            member_bytes: usize::try_from(member_bytes).unwrap_or(SMALLEST_MEMBER_BYTES as usize),
            stall: self.backup.stall,
        }
    }

    async fn read(
        &self,
        jobs: &Arc<Vec<Job>>,
        sessions: Vec<Session>,
        intake: &Intake,
        guard: &Guard,
        stop: &CancellationToken,
    ) -> Result<(), AttemptError> {
        let watcher = snapshot::reader_session(self.address, &self.facts.dialect, self.backup.lock_wait).await?;
        let limiter = Arc::new(Limiter::new(self.backup.max_bytes_per_second));
        let count = sessions.len();
        let mut tasks: JoinSet<Result<Option<Reader>, AttemptError>> = JoinSet::new();
        let done = stop.child_token();
        let (watch, limit, lock_wait) = (guard.clone(), self.backup.threads_running_limit, self.backup.lock_wait);
        let watched = done.clone();
        tasks.spawn(async move { Ok(watch.watch(watcher, lock_wait, limit, watched).await.map(|()| None)?) });
        for session in sessions {
            let reader = Reader {
                session,
                intake: intake.clone(),
                guard: guard.clone(),
                limiter: Arc::clone(&limiter),
                unpaid_bytes: 0,
            };
            let jobs = Arc::clone(jobs);
            tasks.spawn(async move { reader.run(jobs).await.map(Some) });
        }
        let mut readers = Vec::with_capacity(count);
        while readers.len() < count {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(PipelineError::Stopped.into()),
                ended = tasks.join_next() => ended,
            };
            match ended {
                Some(Ok(Ok(Some(reader)))) => readers.push(reader),
                Some(Ok(Ok(None))) | None => return Err(PipelineError::Stopped.into()),
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(error)) => return Err(AttemptError::Panicked(error.to_string())),
            }
        }
        if self.verify_source {
            let checks = readers
                .iter_mut()
                .enumerate()
                .map(|(share, reader)| reader.verify(jobs, share, count));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(PipelineError::Stopped.into()),
                checked = futures_util::future::try_join_all(checks) => checked.map(drop)?,
            }
        }
        done.cancel();
        for reader in readers {
            reader.session.close().await;
        }
        Ok(())
    }

    /// Writes index and trailer as the last block.
    async fn close(
        &self,
        upload: &Upload,
        blocks: Vec<StagedBlock>,
        summary: Summary,
        locked: Duration,
        yields: u64,
    ) -> Result<Dumped, AttemptError> {
        let mut members = Vec::new();
        let mut numbers: Vec<BlockNumber> = Vec::with_capacity(blocks.len() + 1);
        let mut offset = 0_u64;
        for block in blocks {
            numbers.push(block.number);
            let mut length = 0;
            for mut member in block.members {
                length += member.stored_bytes;
                member.offset += offset;
                members.push(member);
            }
            offset += length;
        }
        let index = Index { members, summary };
        let text = index
            .encode()
            .map_err(|error| AttemptError::Panicked(error.to_string()))?;
        let mut stored = Vec::new();
        Packer::new(self.backup.level).pack(text.as_bytes(), &mut stored);
        let digest: [u8; 32] = Sha256::digest(&stored).into();
        let trailer = Trailer {
            format: FORMAT,
            index_offset: offset,
            index_stored_bytes: stored.len() as u64,
            digest,
        };
        stored.extend_from_slice(&trailer.encode());
        let stored_bytes = offset + stored.len() as u64;
        let last = numbers.iter().max().map_or(0, |n| n + 1);
        self.store.stage_block(upload, last, Bytes::from(stored)).await?;
        numbers.push(last);
        Ok(Dumped {
            index,
            blocks: numbers,
            digest: pipeline::hex(&digest),
            stored_bytes,
            locked,
            yields,
        })
    }
}

async fn submit(
    intake: &Intake,
    kind: MemberKind,
    schema: &str,
    number: u32,
    text: Vec<u8>,
) -> Result<(), AttemptError> {
    let mut buffer = intake.buffer().await?;
    buffer.text = text;
    let label = Label {
        kind,
        schema: schema.to_owned(),
        table: String::new(),
        rows: 0,
        order: (number, 0),
    };
    Ok(intake.submit(label, buffer)?)
}

fn broken_views(schemas: &[catalog::Schema]) -> Vec<String> {
    let views = schemas.iter().flat_map(|schema| &schema.views);
    views
        .filter_map(|view| {
            let why = view.broken.as_ref()?;
            Some(format!(
                "{}.{}: the view is unusable at the source and is kept as a comment ({why})",
                view.schema, view.name
            ))
        })
        .collect()
}

fn tally(summary: &mut Summary, jobs: &[Job], progress: &Progress) {
    for job in jobs {
        let figures = job.figures();
        summary.rows += figures.sum.rows;
        summary.largest_row_bytes = summary.largest_row_bytes.max(figures.largest_row_bytes);
        summary.tables.push(TableRecord {
            schema: job.table.schema.clone(),
            table: job.table.name.clone(),
            rows: figures.sum.rows,
            checksum: figures.sum.text(),
            largest_row_bytes: figures.largest_row_bytes,
            checked: figures.checked,
        });
    }
    summary
        .tables
        .sort_by(|a, b| (&a.schema, &a.table).cmp(&(&b.schema, &b.table)));
    summary.raw_bytes = progress.raw_bytes.load(std::sync::atomic::Ordering::Relaxed);
}
