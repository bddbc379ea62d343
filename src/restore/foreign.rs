//! A dump that is not PlanB's (mysqldump, mariadb-dump) into a database: streamed in constant memory, in one session, statement
//! by statement.
//!
//! It has no index, so that it can neither be gone on with after an interruption nor be checked row by row. What can be
//! known is checked: the gzip's CRC, and the last line that both tools write. A local file is read to its end before the
//! first statement is sent; of anything else it is known only afterwards, and the ledger says until then that what is on
//! the target is unfinished.

pub mod head;
pub mod judge;
pub mod text;
pub mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::judge::{Found, Judge, Step};
use self::text::{Source, Text};
use self::unpack::UnpackError;
use super::error::RestoreError;
use super::hold;
use super::ledger::{self, Phase, Record};
use super::load::Progress;
use super::parameters;
use super::plan::{self, Wish};
use super::statements::Splitter;
use super::target::{self, Target};
use super::tune::Tuning;
use crate::mysql::{Address, Session};

/// Why a dump cannot be taken for whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DumpError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(
        "its last line is not \"-- Dump completed\": it is truncated, or was made with --skip-comments, and then nobody can tell"
    )]
    NoLastLine,
    #[error("it is a PlanB backup whose end is missing: it is truncated; take another one")]
    Own,
    #[error("standard input cannot be read: {0}")]
    Input(String),
}

/// What to load, and where.
#[derive(Debug)]
pub struct Foreign {
    pub source: Source,
    /// As a person knows it; never holds a secret.
    pub name: String,
    pub address: Address,
    pub definers: BTreeMap<String, String>,
    /// Where a dump that names no schema goes.
    pub database: Option<String>,
    /// Throw an unfinished restore away first.
    pub start_over: bool,
    /// Change server parameters for the time of the load, as far as that is allowed.
    pub tune: bool,
}

/// What will be done, or was.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub found: Found,
    pub rows: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub duration: Duration,
    pub server: String,
    /// The whole dump was read, and found whole, before the first statement was sent.
    pub checked_first: bool,
    /// Server parameters: what was changed and set back.
    pub parameters: Vec<String>,
}

/// The target as it was found, and what may be done to it.
struct Ground {
    target: Target,
    wish: Wish,
    /// Trials, and restores that `--start-over` throws away.
    unfinished: Vec<Record>,
}

impl Foreign {
    /// Reads the whole dump and says what would be done; nothing is written.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn plan(&self, progress: &Progress, cancel: &CancellationToken) -> Result<Loaded, RestoreError> {
        let begun = Instant::now();
        let mut session = self.address.connect().await?;
        let ground = self.ground(&mut session).await;
        session.close().await;
        let ground = ground?;
        let (found, text) = self.examine(&ground, progress, cancel).await?;
        Ok(loaded(found, 0, &text, begun, &ground.target, true))
    }

    /// Loads the dump.
    ///
    /// # Errors
    /// [`RestoreError::HalfLoaded`] once anything is on the target; before that, what it was.
    pub async fn load(&self, progress: &Progress, cancel: &CancellationToken) -> Result<Loaded, RestoreError> {
        let begun = Instant::now();
        let mut control = self.address.connect().await?;
        let done = self.hold(&mut control, progress, cancel, begun).await;
        control.close().await;
        done
    }

    async fn hold(
        &self,
        control: &mut Session,
        progress: &Progress,
        cancel: &CancellationToken,
        begun: Instant,
    ) -> Result<Loaded, RestoreError> {
        hold::take_hold(control, cancel).await?;
        let ground = self.ground(control).await?;
        let check_first = matches!(self.source, Source::Blob { check_first: true, .. });
        if check_first {
            self.examine(&ground, progress, cancel).await?;
            progress.stored_bytes.store(0, Relaxed);
        }
        for record in &ground.unfinished {
            ledger::forget(control, record).await?;
        }
        progress.is_begun.store(true, Relaxed);
        let mut session = self.address.connect().await?;
        ledger::enlist(&mut session).await?;
        for setting in settings(&ground.target) {
            session.execute(setting).await?;
        }
        let mut record = Record {
            digest: digest(&self.name),
            backup: self.name.clone(),
            phase: Phase::Data,
            schemas: BTreeSet::new(),
            trial: false,
        };
        let mut sending = Sending {
            control,
            session: &mut session,
            record: &mut record,
            rows: 0,
        };
        let mut tuning = Tuning::new(self.tune);
        // How much will come is not known before its end.
        tuning
            .begin(sending.control, &parameters::worth_changing(&ground.target, u64::MAX))
            .await?;
        let sent = self.send(&mut sending, &ground, progress, cancel).await;
        let rows = sending.rows;
        let parameters = tuning.end(&self.address, control.id).await;
        let ended = match sent {
            Ok((found, text)) => finish(control, &record)
                .await
                .map(|()| loaded(found, rows, &text, begun, &ground.target, check_first)),
            Err(error) => Err(error),
        };
        match ended {
            Ok(loaded) => {
                session.close().await;
                Ok(Loaded { parameters, ..loaded })
            }
            Err(error) if record.schemas.is_empty() => Err(error),
            Err(error) => Err(RestoreError::HalfLoaded {
                schemas: record.schemas.into_iter().collect(),
                cause: Box::new(error),
            }),
        }
    }

    /// Looks at the target.
    async fn ground(&self, session: &mut Session) -> Result<Ground, RestoreError> {
        let mut unfinished = ledger::records(session).await?;
        unfinished.retain(|record| record.trial || record.phase != Phase::Done);
        if !self.start_over
            && let Some(record) = unfinished.iter().find(|record| !record.trial)
        {
            return Err(record.as_unfinished());
        }
        // Only a roll back knows how to take back what has changed places.
        if let Some(record) = unfinished.iter().find(|record| record.replaces()) {
            return Err(record.as_unfinished());
        }
        let target = target::survey(session).await?;
        if let Some(problem) = plan::missing_privileges(&target) {
            return Err(RestoreError::Refused(vec![problem]));
        }
        let mut wish = Wish {
            definers: self.definers.clone(),
            ..Wish::default()
        };
        for record in &unfinished {
            // Only what still is the restore's own will be dropped.
            wish.own_schemas.extend(ledger::marked(session, record).await?);
        }
        Ok(Ground {
            target,
            wish,
            unfinished,
        })
    }

    /// Reads all of it, sends nothing.
    async fn examine(
        &self,
        ground: &Ground,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(Found, (u64, u64)), RestoreError> {
        let mut reading = Reading::new(self, ground);
        while let Some(statement) = reading.next(progress, cancel).await? {
            reading.judge(statement)?;
        }
        Ok(reading.end())
    }

    async fn send(
        &self,
        sending: &mut Sending<'_>,
        ground: &Ground,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(Found, (u64, u64)), RestoreError> {
        let mut reading = Reading::new(self, ground);
        while let Some(statement) = reading.next(progress, cancel).await? {
            for step in reading.judge(statement)? {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(RestoreError::Cancelled),
                    done = sending.step(step) => done?,
                }
            }
            progress.rows.store(sending.rows, Relaxed);
        }
        Ok(reading.end())
    }
}

/// The dump's statements, one after another.
struct Reading<'a> {
    text: Text<'a>,
    splitter: Option<Splitter>,
    judge: Judge<'a>,
}

impl<'a> Reading<'a> {
    fn new(load: &'a Foreign, ground: &'a Ground) -> Self {
        Self {
            text: Text::new(&load.source),
            splitter: Some(Splitter::default()),
            judge: Judge::new(&ground.target, &ground.wish, load.database.as_deref()),
        }
    }

    /// None at the end, which was found to be the end.
    async fn next(&mut self, progress: &Progress, cancel: &CancellationToken) -> Result<Option<Vec<u8>>, RestoreError> {
        loop {
            let Some(splitter) = &mut self.splitter else {
                return Ok(None);
            };
            if let Some(statement) = splitter.next_statement()? {
                return Ok(Some(statement));
            }
            let piece = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(RestoreError::Cancelled),
                piece = self.text.next() => piece?,
            };
            progress.stored_bytes.store(self.text.stored_bytes, Relaxed);
            match piece {
                Some(piece) => splitter.push(&piece),
                // The last statement may lack its delimiter; that the text is whole is known by now.
                None => return Ok(self.splitter.take().map(Splitter::finish).transpose()?.flatten()),
            }
        }
    }

    fn judge(&mut self, statement: Vec<u8>) -> Result<Vec<Step>, RestoreError> {
        self.judge
            .judge(statement)
            .map_err(|problem| RestoreError::Refused(vec![problem]))
    }

    fn end(self) -> (Found, (u64, u64)) {
        (self.judge.found, (self.text.stored_bytes, self.text.raw_bytes))
    }
}

/// The sessions of a load: one sends the dump's statements, one keeps the ledger, since the dump locks tables and
/// changes its session's settings as it likes.
struct Sending<'a> {
    control: &'a mut Session,
    session: &'a mut Session,
    record: &'a mut Record,
    rows: u64,
}

impl Sending<'_> {
    async fn step(&mut self, step: Step) -> Result<(), RestoreError> {
        match step {
            // Noted before the first statement that changes anything in it.
            Step::Enter(schema) => {
                ledger::prepare(self.control).await?;
                self.record.schemas.insert(schema.clone());
                ledger::widen(self.control, self.record, &schema, "foreign").await?;
            }
            Step::Mark(schema) => ledger::mark(self.control, &schema, &self.record.digest).await?,
            Step::Sleep { schema, event } => ledger::put_to_sleep(self.control, &schema, &event).await?,
            Step::Run { sql, rows: true } => self.rows += self.session.change(sql).await?,
            Step::Run { sql, rows: false } => self.session.execute(sql).await?,
        }
        Ok(())
    }
}

async fn finish(control: &mut Session, record: &Record) -> Result<(), RestoreError> {
    if !ledger::holds_lock(control).await? {
        return Err(RestoreError::Busy);
    }
    for schema in &record.schemas {
        ledger::unmark(control, schema).await?;
    }
    if !record.schemas.is_empty() {
        ledger::enter(control, &record.digest, Phase::Done).await?;
    }
    Ok(())
}

/// What the session is set to before the dump's own settings.
fn settings(target: &Target) -> Vec<&'static str> {
    // As the mysql client comes: a dump made with --skip-tz-utc means the server's own time zone.
    let mut settings = vec!["SET time_zone = DEFAULT"];
    if target.may_set_guarded() {
        if target.generates_keys {
            settings.push("SET SESSION sql_generate_invisible_primary_key = OFF");
        }
        if target.requires_keys {
            settings.push("SET SESSION sql_require_primary_key = OFF");
        }
    }
    settings
}

/// Marks a line of the ledger as a foreign dump's, which has no digest: its name has to do.
const MARK: &str = "foreign-";

fn digest(name: &str) -> String {
    let mut hex = crate::dump::pipeline::hex(&Sha256::digest(name));
    hex.truncate(64 - MARK.len());
    format!("{MARK}{hex}")
}

impl Record {
    /// What to say to somebody who wants to restore something else.
    pub fn as_unfinished(&self) -> RestoreError {
        if self.digest.starts_with(MARK) {
            RestoreError::UnfinishedForeign(self.backup.clone())
        } else if self.phase == Phase::RollingBack {
            RestoreError::RollingBack(self.backup.clone())
        } else if self.replaces() {
            RestoreError::UnfinishedReplacing(self.backup.clone())
        } else {
            RestoreError::Unfinished(self.backup.clone())
        }
    }
}

fn loaded(
    found: Found,
    rows: u64,
    (stored_bytes, raw_bytes): &(u64, u64),
    begun: Instant,
    target: &Target,
    checked_first: bool,
) -> Loaded {
    Loaded {
        found,
        rows,
        stored_bytes: *stored_bytes,
        raw_bytes: *raw_bytes,
        duration: begun.elapsed(),
        server: target.version.to_string(),
        checked_first,
        parameters: Vec::new(),
    }
}
