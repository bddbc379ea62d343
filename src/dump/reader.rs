//! Readers: each owns one session of the snapshot and takes pieces of tables until none are left.

use std::sync::{Arc, Mutex, PoisonError};

use super::catalog::Table;
use super::columns::TableSum;
use super::guard::Guard;
use super::keyset::{KeyValue, Reading, Span, piece_rows};
use super::limiter::Limiter;
use super::pipeline::Intake;
use super::writer::RowWriter;
use super::{AttemptError, literal};
use crate::format::index::Check;
use crate::mysql::{DbError, Rows, Session};

/// Counting a keyless table by a second scan is cheap up to this many rows (the server's estimate).
const CHEAP_COUNT_ROWS: u64 = 200_000;

/// A table on its way into the dump.
#[derive(Debug)]
pub struct Job {
    pub table: Table,
    pub number: u32,
    pub(super) reading: Reading,
    /// Several readers may work on it: pieces are marked out ahead.
    shared: bool,
    marks: tokio::sync::Mutex<Marks>,
    figures: Mutex<Figures>,
}

/// How far the table has been handed out.
#[derive(Debug, Default)]
struct Marks {
    taken: bool,
    done: bool,
    lower: Option<KeyValue>,
    piece: u64,
    piece_rows: Option<u64>,
}

/// What was seen of a table.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub sum: TableSum,
    pub bytes: u64,
    pub largest_row_bytes: u64,
    pub checked: Check,
}

impl Job {
    /// `share_from_bytes`: tables estimated larger are read by several readers at once.
    pub fn new(table: Table, number: u32, share_from_bytes: Option<u64>) -> Self {
        let shared = table.key.is_some() && share_from_bytes.is_some_and(|bytes| table.estimated_bytes >= bytes);
        let figures = Figures {
            sum: TableSum::default(),
            bytes: 0,
            largest_row_bytes: 0,
            checked: Check::Stream,
        };
        Self {
            reading: Reading::of(&table),
            table,
            number,
            shared,
            marks: tokio::sync::Mutex::default(),
            figures: Mutex::new(figures),
        }
    }

    pub fn figures(&self) -> Figures {
        *self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        literal::qualified(&self.table.schema, &self.table.name)
    }

    /// Adds what was written to the table's figures; returns its bytes.
    fn add(&self, writer: &mut RowWriter) -> u64 {
        let written = writer.take_written();
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.sum.merge(&written.sum);
        figures.bytes += written.bytes;
        figures.largest_row_bytes = figures.largest_row_bytes.max(written.largest_row_bytes);
        written.bytes
    }

    pub(super) fn set_checked(&self, checked: Check) {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).checked = checked;
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.table.engine == "InnoDB"
    }

    fn next_piece_rows(&self, marks: &Marks, member_bytes: u64) -> u64 {
        let figures = self.figures();
        // A little less, since rows differ: a piece should fit one member.
        piece_rows(member_bytes / 8 * 7, figures.sum.rows, figures.bytes, marks.piece_rows)
    }
}

/// One reader's surroundings.
pub struct Reader {
    pub session: Session,
    pub intake: Intake,
    pub guard: Guard,
    pub limiter: Arc<Limiter>,
    /// Read and not yet accounted for by the limiter.
    pub unpaid_bytes: u64,
}

/// Takes what an interrupted statement still sends.
async fn to_the_end(rows: &mut Rows<'_>) -> Result<(), DbError> {
    loop {
        match rows.next().await {
            Ok(Some(_)) => {}
            Ok(None) | Err(DbError::Interrupted { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// How reading a statement's rows ended.
enum End {
    /// All of it.
    Complete { rows: u64, last: Option<KeyValue> },
    /// Interrupted for somebody who waited; the rows so far are whole.
    Yielded { rows: u64, last: Option<KeyValue> },
}

impl Reader {
    /// Reads until no job is left: first whole tables in order, largest first, then along with other readers.
    pub async fn run(mut self, jobs: Arc<Vec<Job>>) -> Result<Self, AttemptError> {
        for job in jobs.iter() {
            let mut marks = job.marks.lock().await;
            if std::mem::replace(&mut marks.taken, true) {
                continue;
            }
            drop(marks);
            self.table(job).await?;
        }
        for job in jobs.iter().filter(|job| job.shared) {
            self.table(job).await?;
        }
        Ok(self)
    }

    async fn table(&mut self, job: &Job) -> Result<(), AttemptError> {
        let mut writer = RowWriter::new(self.intake.clone(), &job.table, job.number);
        let outcome = match (job.table.key.is_some(), job.shared) {
            (false, _) => self.in_one_go(job, &mut writer).await,
            (true, false) => self.alone(job, &mut writer).await,
            (true, true) => self.along(job, &mut writer).await,
        };
        outcome.map_err(|error| error.in_table(&job.name()))
    }

    /// No key: one statement for everything.
    async fn in_one_go(&mut self, job: &Job, writer: &mut RowWriter) -> Result<(), AttemptError> {
        writer.prepare().await?;
        let sql = job.reading.all();
        self.savepoint().await?;
        let end = self.rows(&sql, job, writer, 0).await?;
        self.release().await?;
        let rows = match end {
            End::Complete { rows, .. } => rows,
            // Without a key there is no going on from here.
            End::Yielded { .. } => return Err(AttemptError::Yielded { table: job.name() }),
        };
        writer.end_member(u64::MAX)?;
        if job.is_transactional() && job.table.estimated_rows.max(rows) <= CHEAP_COUNT_ROWS {
            self.check_count(job, &Span::default(), rows).await?;
            job.set_checked(Check::Count);
        }
        // In one go there is no place to wait without a lock: the time is made up for before the next table.
        self.limiter.spend(std::mem::take(&mut self.unpaid_bytes)).await;
        Ok(())
    }

    /// A key, one reader: each piece begins after the last row of the one before.
    async fn alone(&mut self, job: &Job, writer: &mut RowWriter) -> Result<(), AttemptError> {
        let mut span = Span::default();
        let mut marks = Marks {
            piece_rows: None,
            ..Marks::default()
        };
        loop {
            let limit = job.next_piece_rows(&marks, self.intake.member_bytes() as u64);
            let before = span.clone();
            let sql = job.reading.rows(&span, Some(limit));
            self.begin_piece(writer).await?;
            let end = self.rows(&sql, job, writer, marks.piece).await?;
            self.release().await?;
            marks.piece += 1;
            marks.piece_rows = Some(limit);
            let (rows, last, ended) = match end {
                End::Complete { rows, last } => (rows, last, rows < limit),
                End::Yielded { rows, last } => (rows, last, false),
            };
            if let Some(last) = last {
                span.lower = Some(last);
            }
            if ended && job.is_transactional() {
                // Fewer rows than asked for means the end, or that some were lost on the way.
                self.check_count(job, &before, rows).await?;
                job.set_checked(Check::Count);
            }
            if ended || writer.is_half_full() {
                writer.end_member(marks.piece)?;
            }
            self.limiter.spend(std::mem::take(&mut self.unpaid_bytes)).await;
            if ended {
                return Ok(());
            }
        }
    }

    /// A key, several readers: each marks out a piece, by looking up where that many rows end, and reads it.
    async fn along(&mut self, job: &Job, writer: &mut RowWriter) -> Result<(), AttemptError> {
        loop {
            writer.prepare().await?;
            self.guard.pause_while_busy().await;
            let mut marks = job.marks.lock().await;
            if marks.done {
                break;
            }
            let wanted = job.next_piece_rows(&marks, self.intake.member_bytes() as u64);
            let mut span = Span {
                lower: marks.lower.clone(),
                upper: None,
            };
            self.savepoint().await?;
            let boundary = self.boundary(job, &span, wanted).await?;
            span.upper.clone_from(&boundary);
            marks.done = boundary.is_none();
            marks.lower = boundary;
            marks.piece_rows = Some(wanted);
            marks.piece += 1;
            let piece = marks.piece;
            drop(marks);
            self.span(job, writer, span, wanted, piece).await?;
            writer.end_member(piece)?;
            self.limiter.spend(std::mem::take(&mut self.unpaid_bytes)).await;
        }
        job.set_checked(if job.is_transactional() {
            Check::Count
        } else {
            Check::Stream
        });
        Ok(())
    }

    /// Reads a marked-out span whole, however often it must yield.
    async fn span(
        &mut self,
        job: &Job,
        writer: &mut RowWriter,
        mut span: Span,
        wanted: u64,
        piece: u64,
    ) -> Result<(), AttemptError> {
        let whole = span.clone();
        let mut seen = 0;
        loop {
            let sql = job.reading.rows(&span, None);
            let end = self.rows(&sql, job, writer, piece).await?;
            self.release().await?;
            match end {
                End::Complete { rows, .. } => {
                    seen += rows;
                    break;
                }
                End::Yielded { rows, last } => {
                    seen += rows;
                    if last.is_some() {
                        span.lower = last;
                    }
                    self.begin_piece(writer).await?;
                }
            }
        }
        // A bounded piece was counted out by the server when it was marked.
        if whole.upper.is_none() || seen != wanted {
            self.check_count(job, &whole, seen).await?;
        }
        Ok(())
    }

    /// Where a piece of `rows` rows ends; none if it is the last one, or if there is no key.
    pub(super) async fn boundary(
        &mut self,
        job: &Job,
        span: &Span,
        rows: u64,
    ) -> Result<Option<KeyValue>, AttemptError> {
        let Some(sql) = job.reading.boundary(span, rows) else {
            return Ok(None);
        };
        let table = self.small(&sql).await?;
        Ok(table.first().map(|row| {
            let parts = row.iter().skip(1).enumerate();
            parts
                .filter_map(|(part, value)| job.reading.literal(part, value.as_deref()?))
                .collect()
        }))
    }

    /// A query of one piece with a small answer, asked again when it had to give way to somebody.
    async fn small(&mut self, sql: &str) -> Result<Vec<Vec<Option<Vec<u8>>>>, AttemptError> {
        loop {
            let running = self.guard.begin(self.session.id);
            let answer = self.session.table(sql).await;
            drop(running);
            match answer {
                Err(DbError::Interrupted { .. }) => {
                    self.release().await?;
                    self.savepoint().await?;
                }
                answer => return Ok(answer?),
            }
        }
    }

    async fn begin_piece(&mut self, writer: &mut RowWriter) -> Result<(), AttemptError> {
        writer.prepare().await?;
        self.guard.pause_while_busy().await;
        self.savepoint().await?;
        Ok(())
    }

    /// Runs one statement and writes its rows.
    async fn rows(&mut self, sql: &str, job: &Job, writer: &mut RowWriter, piece: u64) -> Result<End, AttemptError> {
        let running = self.guard.begin(self.session.id);
        let mut seen = 0;
        let mut last_row = None;
        let mut result = match self.session.query(sql).await {
            Ok(result) => result,
            Err(DbError::Interrupted { .. }) => return Ok(End::Yielded { rows: 0, last: None }),
            Err(error) => return Err(error.into()),
        };
        let yielded = loop {
            match result.next().await {
                Ok(Some(row)) => {
                    seen += 1;
                    let full = writer.row(&row);
                    // Which row is the last is known only afterwards, and its key is what the next piece begins after.
                    last_row = Some(row);
                    if full {
                        writer.end_member(piece)?;
                        tokio::select! {
                            biased;
                            prepared = writer.prepare() => prepared?,
                            // No room, and somebody waits. The interruption is seen once the server gets rid of its
                            // rows; those that still come are read again after the last one written.
                            () = running.asked_to_yield() => {
                                to_the_end(&mut result).await?;
                                break true;
                            }
                        }
                    }
                }
                Ok(None) => break false,
                Err(DbError::Interrupted { .. }) => break true,
                Err(error) => return Err(error.into()),
            }
        };
        drop(result);
        drop(running);
        self.unpaid_bytes += job.add(writer);
        let last = last_row.as_ref().filter(|_| job.table.key.is_some()).map(|row| {
            let parts = job.reading.key_at.iter().enumerate();
            parts
                .filter_map(|(part, at)| job.reading.literal(part, row.get(at + 1)?))
                .collect()
        });
        Ok(if yielded {
            End::Yielded { rows: seen, last }
        } else {
            End::Complete { rows: seen, last }
        })
    }

    async fn check_count(&mut self, job: &Job, span: &Span, rows: u64) -> Result<(), AttemptError> {
        self.savepoint().await?;
        let answer = self.small(&job.reading.count(span)).await?;
        self.release().await?;
        let counted = answer.first().and_then(|row| row.first()?.clone()).unwrap_or_default();
        let counted = String::from_utf8_lossy(&counted).into_owned();
        if counted == rows.to_string() {
            return Ok(());
        }
        Err(AttemptError::Mismatch {
            table: job.name(),
            detail: format!("{rows} rows arrived where the server counts {counted}"),
        })
    }

    pub(super) async fn savepoint(&mut self) -> Result<(), AttemptError> {
        Ok(self.session.execute("SAVEPOINT planb").await?)
    }

    /// Gives the piece's metadata locks back; the snapshot stays.
    pub(super) async fn release(&mut self) -> Result<(), AttemptError> {
        Ok(self.session.execute("ROLLBACK TO SAVEPOINT planb").await?)
    }
}
