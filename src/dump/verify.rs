//! The server's own checksum of every table, inside the snapshot, against what went by in the stream.
//!
//! Asked for piece by piece along the key: a statement over a whole large table would hold its metadata lock for as
//! long, and somebody who waits for it would have to interrupt it.

use super::AttemptError;
use super::columns::{TableSum, checksum_sql};
use super::keyset::Span;
use super::reader::{Job, Reader};
use crate::format::index::Check;
use crate::mysql::DbError;

/// Rows in a piece: some tenths of a second of the server's time.
const PIECE_ROWS: u64 = 200_000;
const FEWEST_PIECE_ROWS: u64 = 1_000;

impl Reader {
    /// Verifies this reader's share of the tables: every `of`th from `share` on.
    pub async fn verify(&mut self, jobs: &[Job], share: usize, of: usize) -> Result<(), AttemptError> {
        for job in jobs
            .iter()
            .skip(share)
            .step_by(of.max(1))
            .filter(|job| job.is_transactional())
        {
            let (ours, server) = (job.figures().sum, self.server_sum(job).await?);
            if ours != server {
                return Err(AttemptError::Mismatch {
                    table: job.name(),
                    detail: format!(
                        "the stream held {} rows with checksum {}, the server says {} rows with checksum {}",
                        ours.rows,
                        ours.text(),
                        server.rows,
                        server.text()
                    ),
                });
            }
            job.set_checked(Check::Checksum);
        }
        Ok(())
    }

    async fn server_sum(&mut self, job: &Job) -> Result<TableSum, AttemptError> {
        let mut total = TableSum::default();
        let mut span = Span::default();
        let mut rows = PIECE_ROWS;
        loop {
            self.guard.pause_while_busy().await;
            self.savepoint().await?;
            let boundary = self.boundary(job, &span, rows).await?;
            span.upper.clone_from(&boundary);
            let sum = self.piece_sum(job, &span).await;
            self.release().await?;
            match sum {
                Ok(sum) => total.merge(&sum),
                Err(AttemptError::Source(DbError::Interrupted { .. })) if job.table.key.is_some() => {
                    rows = (rows / 2).max(FEWEST_PIECE_ROWS);
                    continue;
                }
                Err(AttemptError::Source(DbError::Interrupted { .. })) => {
                    return Err(AttemptError::Yielded { table: job.name() });
                }
                Err(error) => return Err(error),
            }
            match boundary {
                Some(boundary) => span.lower = Some(boundary),
                None => return Ok(total),
            }
        }
    }

    async fn piece_sum(&mut self, job: &Job, span: &Span) -> Result<TableSum, AttemptError> {
        let sql = checksum_sql(&job.table.columns, &job.reading.source(span));
        let running = self.guard.begin(self.session.id);
        let answer = self.session.text(&sql).await;
        drop(running);
        let rows = answer?;
        let figure = |i: usize| {
            rows.first()
                .and_then(|row| row.get(i))
                .and_then(|text| text.parse::<u64>().ok())
        };
        match (figure(0), figure(1), figure(2).and_then(|xor| u32::try_from(xor).ok())) {
            (Some(rows), Some(sum), Some(xor)) => Ok(TableSum { rows, sum, xor }),
            _ => Err(AttemptError::Mismatch {
                table: job.name(),
                detail: format!("the server's checksum makes no sense: {rows:?}"),
            }),
        }
    }
}
