//! One attempt: one snapshot, from the first definition to the index.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::guard::{self, Guard};
use super::limiter::Limiter;
use super::literal::qualified;
use super::pipeline::{self, Intake, Label, Pipeline, PipelineError, Progress, StagedBlock};
use super::reader::{Job, Reader};
use super::snapshot::{self, Snapshot, Wish};
use super::{AttemptError, SourceFacts, catalog, script};
use crate::clock::Clock;
use crate::config;
use crate::format::FORMAT;
use crate::format::index::{Index, MemberKind, MemberRecord, Summary, TableRecord};
use crate::format::member::Packer;
use crate::format::trailer::Trailer;
use crate::mysql::dialect::Family;
use crate::mysql::{Address, Session};
use crate::store::{BlobStore, BlockNumber, Upload};

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
        let found = self.schemas(&mut control).await?;
        let before = catalog::fingerprint(&mut control, &self.facts.dialect, &found).await?;

        let mut snapshot = self.open(&found).await?;
        drop(found);
        let behind = jiff::SignedDuration::from_secs(lag.unwrap_or(0));
        snapshot.consistent_at = snapshot
            .consistent_at
            .saturating_add(self.clock_offset - behind)
            .unwrap_or(snapshot.consistent_at);
        let upload = Upload {
            name: naming.name(snapshot.consistent_at).await?,
            run_id: run_id.to_owned(),
        };

        // Nothing tells whether what came or went about now did so before the snapshot or after it.
        let schemas = self.schemas(&mut control).await?;
        let held = catalog::fingerprint(&mut control, &self.facts.dialect, &schemas).await?;
        let unsure = before.difference(&held);
        if let Some(what) = unsure.or(self.new_schema(&mut control).await?) {
            return Err(AttemptError::SchemaChanged { what });
        }
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
            if let Some(what) = held.loss(&now) {
                return Err(AttemptError::SchemaChanged { what });
            }
            // What stood at the snapshot: a view of today may need a table that is not in this dump.
            for (number, (kind, schema, text)) in (0_u32..).zip(script::after_data(&schemas, &self.facts.other_schemas))
            {
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
            (Ok(()), Ok(blocks)) => Ok(blocks),
            (Err(AttemptError::Pipeline(PipelineError::Stopped)) | Ok(()), Err(error)) => Err(error.into()),
            (Err(error), _) => Err(error),
        };
        let blocks = blocks.map_err(|error| {
            if cancel.is_cancelled() {
                AttemptError::Cancelled
            } else {
                error
            }
        })?;
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

    /// A schema that nobody has looked at, though it may hold data of the snapshot's instant.
    async fn new_schema(&self, control: &mut Session) -> Result<Option<String>, AttemptError> {
        if !self.facts.every_schema {
            return Ok(None);
        }
        let existing = catalog::user_schemas(control).await?;
        let new = existing.into_iter().find(|name| !self.facts.schemas.contains(name));
        Ok(new.map(|name| format!("schema {name}")))
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
                .chain(script::unplaced(schemas))
                .chain(views_elsewhere(schemas, &self.facts.other_schemas))
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
        let share_from_bytes = (sessions > 1).then_some(4 * pipeline::SMALLEST_MEMBER_BYTES);
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
        pipeline::Settings {
            level: self.backup.level,
            threads,
            buffers: sessions + threads + 1,
            member_bytes: usize::try_from(pipeline::member_bytes(estimated))
                .unwrap_or(pipeline::SMALLEST_MEMBER_BYTES as usize),
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
        let schemas = self.facts.schemas.clone();
        let patience = guard::Patience {
            lock_wait,
            // There ROLLBACK TO SAVEPOINT keeps metadata locks, unless sql_log_bin is off (which takes a privilege).
            locks_stay: self.facts.dialect.version.family == Family::MariaDb && self.facts.binlog_on,
        };
        tasks.spawn(async move {
            watch
                .watch(watcher, patience, limit, &schemas, watched)
                .await
                .map(|()| None)
        });
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
                // The watcher is all that is left.
                Some(Ok(Err(error))) = tasks.join_next() => return Err(error),
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
        reconcile(&members, &summary)?;
        let index = Index { members, summary };
        let text = index
            .encode()
            .map_err(|error| AttemptError::Panicked(error.to_string()))?;
        let mut stored = Vec::new();
        let packed = Packer::new(self.backup.level).pack(text.as_bytes(), &mut stored);
        packed.map_err(|_| PipelineError::Compression)?;
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

/// The rows that were read must be the rows that the members hold: nothing on the way between may be lost.
fn reconcile(members: &[MemberRecord], summary: &Summary) -> Result<(), AttemptError> {
    let mut stored: HashMap<(&str, &str), u64> = HashMap::new();
    for member in members.iter().filter(|member| member.kind == MemberKind::Data) {
        *stored.entry((&member.schema, &member.table)).or_default() += member.rows;
    }
    for table in &summary.tables {
        let rows = stored
            .remove(&(table.schema.as_str(), table.table.as_str()))
            .unwrap_or(0);
        if rows != table.rows {
            return Err(AttemptError::Mismatch {
                table: qualified(&table.schema, &table.table),
                detail: format!("{} rows were read and {rows} are in the members", table.rows),
            });
        }
    }
    match members.iter().find(|member| member.stored_bytes == 0) {
        Some(member) => Err(AttemptError::Mismatch {
            table: qualified(&member.schema, &member.table),
            detail: "a member is empty".to_owned(),
        }),
        None => Ok(()),
    }
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

fn views_elsewhere(schemas: &[catalog::Schema], others: &[String]) -> Vec<String> {
    let views = script::views_elsewhere(schemas, others).into_iter();
    views
        .map(|(view, other)| {
            format!(
                "{}.{}: the view needs schema {other}, which is not in this backup; it stands last, and where there is no \
                 {other} a plain load stops there",
                view.schema, view.name
            )
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
