//! Rows into members: complete `INSERT` statements, cut where a member is full.

use super::catalog::Table;
use super::columns::{Column, RowSum, TableSum};
use super::literal::{self, Literal, identifier, qualified};
use super::pipeline::{Buffer, Intake, Label, PipelineError};
use crate::format::index::MemberKind;
use crate::mysql::Row;

/// A statement is ended at this size, far below any server's `max_allowed_packet` (16 MiB by default), unless one
/// row alone is larger.
const STATEMENT_BYTES: usize = 1 << 20;

/// Writes the rows of one table for one reader.
pub struct RowWriter {
    intake: Intake,
    schema: String,
    table: String,
    table_number: u32,
    insert: Vec<u8>,
    literals: Vec<Literal>,
    buffer: Option<Buffer>,
    rows_in_member: u64,
    /// Where in the buffer the running statement began; none between statements.
    statement_start: Option<usize>,
    row_sum: RowSum,
    /// Rows written since the last [`take_sum`](Self::take_sum).
    sum: TableSum,
    largest_row_bytes: u64,
    bytes: u64,
}

/// Figures of the rows written since the last time they were asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    pub sum: TableSum,
    pub bytes: u64,
    pub largest_row_bytes: u64,
}

impl RowWriter {
    pub fn new(intake: Intake, table: &Table, table_number: u32) -> Self {
        let names: Vec<String> = table.columns.iter().map(|column| identifier(&column.name)).collect();
        Self {
            intake,
            schema: table.schema.clone(),
            table: table.name.clone(),
            table_number,
            insert: format!(
                "INSERT INTO {} ({}) VALUES\n",
                qualified(&table.schema, &table.name),
                names.join(",")
            )
            .into_bytes(),
            literals: table.columns.iter().map(Column::literal).collect(),
            buffer: None,
            rows_in_member: 0,
            statement_start: None,
            row_sum: RowSum::default(),
            sum: TableSum::default(),
            largest_row_bytes: 0,
            bytes: 0,
        }
    }

    /// Waits for a buffer, so that the next piece can be read without waiting for anything but the server.
    pub async fn prepare(&mut self) -> Result<(), PipelineError> {
        if self.buffer.is_none() {
            self.buffer = Some(self.intake.buffer().await?);
        }
        Ok(())
    }

    /// Appends a row, whose columns follow one constant. Says whether the member is so full that
    /// [`end_member`](Self::end_member) and [`prepare`](Self::prepare) must come before the next row.
    pub fn row(&mut self, row: &Row) -> bool {
        let Some(buffer) = self.buffer.as_mut() else {
            return true;
        };
        let text = &mut buffer.text;
        let before = text.len();
        match self.statement_start {
            Some(start) if text.len() - start < STATEMENT_BYTES => text.extend_from_slice(b",\n("),
            running => {
                if running.is_some() {
                    text.extend_from_slice(b";\n");
                }
                self.statement_start = Some(text.len());
                text.extend_from_slice(&self.insert);
                text.push(b'(');
            }
        }
        for (i, literal) in self.literals.iter().enumerate() {
            if i > 0 {
                text.push(b',');
            }
            let value = row.get(i + 1);
            self.row_sum.column(value, *literal);
            literal::write(text, value, *literal);
        }
        text.push(b')');
        let row_bytes = (text.len() - before) as u64;
        self.largest_row_bytes = self.largest_row_bytes.max(row_bytes);
        self.bytes += row_bytes;
        self.sum.add_row(self.row_sum.finish());
        self.rows_in_member += 1;
        text.len() >= self.intake.full_bytes()
    }

    /// Whether the member should end with the piece that was just read.
    pub fn is_half_full(&self) -> bool {
        self.buffer
            .as_ref()
            .is_some_and(|buffer| buffer.text.len() >= self.intake.member_bytes() / 2)
    }

    /// Ends the statement and hands the member over, in file order `piece`. Nothing happens without rows.
    pub fn end_member(&mut self, piece: u64) -> Result<(), PipelineError> {
        if self.rows_in_member == 0 {
            return Ok(());
        }
        let Some(mut buffer) = self.buffer.take() else {
            return Ok(());
        };
        buffer.text.extend_from_slice(b";\n");
        let label = Label {
            kind: MemberKind::Data,
            schema: self.schema.clone(),
            table: self.table.clone(),
            rows: std::mem::take(&mut self.rows_in_member),
            order: (self.table_number, piece),
        };
        self.statement_start = None;
        self.intake.submit(label, buffer)
    }

    pub fn take_written(&mut self) -> Written {
        Written {
            sum: std::mem::take(&mut self.sum),
            bytes: std::mem::take(&mut self.bytes),
            largest_row_bytes: std::mem::take(&mut self.largest_row_bytes),
        }
    }
}
