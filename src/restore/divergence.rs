//! Where a site that lost the service differs from the backup that the other one began from: the rows that nobody else ever got.
//!
//! The server's log may say that nothing happened since. Otherwise tables whose rows and checksum are those of the backup are
//! passed over, then stretches of a table along its key whose checksum, computed by the server, is; of the others the rows are
//! read and told apart by their key. No more is held than one member of the backup and one stretch.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use crate::backup::archive::{Archive, place};
use crate::dump::catalog::{self, Table};
use crate::dump::columns::{Column, RowSum, TableSum, checksum_sql};
use crate::dump::keyset::{KeyValue, Reading, Span};
use crate::dump::literal::{self, Literal, identifier, string};
use crate::dump::snapshot;
use crate::dump::survey::dialect_of;
use crate::format::index::{Index, MemberKind, Place, TableRecord};
use crate::mysql::dialect::{Dialect, Family};
use crate::mysql::{Address, Row, Session};

pub mod rows;
pub mod script;
pub mod since;

use rows::{Rows, Strange, meant};
use script::{Named, Script};
use since::Since;

/// A stretch of a table: small enough to be read again in a moment, large enough that asking costs little.
const STRETCH_ROWS: usize = 5_000;
const STRETCH_BYTES: usize = 2 << 20;

/// How one table differs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDifference {
    pub table: String,
    /// The site has them, the backup has not.
    pub added: u64,
    pub changed: u64,
    /// The backup has them, the site has not.
    pub removed: u64,
}

/// What is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    pub since: Since,
    /// Only those that differ.
    pub tables: Vec<TableDifference>,
    /// What could not be told row by row, and why.
    pub notes: Vec<String>,
}

impl Divergence {
    pub fn is_none(&self) -> bool {
        self.tables.is_empty() && self.notes.is_empty()
    }

    /// For the journal and the screen; the first few tables.
    pub fn told(&self) -> String {
        const TABLES_TOLD: usize = 10;
        let mut parts: Vec<String> = self
            .tables
            .iter()
            .take(TABLES_TOLD)
            .map(|one| {
                format!(
                    "{}: {} added, {} changed, {} removed",
                    one.table, one.added, one.changed, one.removed
                )
            })
            .collect();
        if self.tables.len() > TABLES_TOLD {
            parts.push(format!("and {} tables more", self.tables.len() - TABLES_TOLD));
        }
        parts.extend(self.notes.iter().cloned());
        if parts.is_empty() {
            parts.push("no row differs".to_owned());
        }
        parts.join("; ")
    }
}

/// Compares the server with `began`, and writes what differs into `script`. `kept`: the index of a backup that was just taken of
/// the server, which takes no writes meanwhile.
///
/// # Errors
/// The server's, the backup's or the store's.
pub async fn divergence(
    address: &Address,
    began: &Archive,
    kept: &Index,
    script: &mut Script,
    tell: &(dyn Fn(&str) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Divergence, RestoreError> {
    let mut session = address.connect().await?;
    let dialect = dialect_of(&mut session).await?;
    let is_same_server = kept.summary.server_identity == began.index.summary.server_identity;
    let since = log(&mut session, &dialect, &began.index, is_same_server).await;
    let mut found = Divergence {
        since,
        tables: Vec::new(),
        notes: Vec::new(),
    };
    if found.since == Since::Nothing {
        session.close().await;
        return Ok(found);
    }
    for setting in dialect.reader_settings {
        session.execute(setting).await?;
    }
    session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let there = by_name(&kept.summary.tables);
    let before = by_name(&began.index.summary.tables);
    for (name, record) in &there {
        match before.get(name) {
            None => found.notes.push(format!(
                "table {} is new ({} rows), and is in the preserved backup",
                told(name),
                record.rows
            )),
            Some(old) if (old.rows, &old.checksum) == (record.rows, &record.checksum) => {}
            Some(_) => {
                tell(&format!("comparing {}", told(name)));
                let mut compared = Compared {
                    session: &mut session,
                    archive: began,
                    script,
                    cancel,
                };
                match compared.table(&dialect, name).await? {
                    Ok(difference) => found.tables.push(difference),
                    Err(why) => found.notes.push(format!(
                        "table {} differs, and cannot be told row by row: {why}; it is in the preserved backup as a whole",
                        told(name)
                    )),
                }
            }
        }
    }
    for (name, record) in before.iter().filter(|(name, _)| !there.contains_key(*name)) {
        found
            .notes
            .push(format!("table {} with {} rows is gone there", told(name), record.rows));
    }
    session.close().await;
    Ok(found)
}

type Name<'a> = (&'a str, &'a str);

fn told(name: &Name<'_>) -> String {
    format!("{}.{}", name.0, name.1)
}

fn by_name(records: &[TableRecord]) -> BTreeMap<Name<'_>, &TableRecord> {
    records
        .iter()
        .map(|record| ((record.schema.as_str(), record.table.as_str()), record))
        .collect()
}

/// What the log says; an account that may not ask has no log.
async fn log(session: &mut Session, dialect: &Dialect, began: &Index, is_same_server: bool) -> Since {
    let position = &began.summary.position;
    let family = dialect.version.family;
    if !snapshot::is_binlog_complete(session, dialect).await.unwrap_or(false) {
        return Since::Unknown("the server shows this account no binlog that holds everything");
    }
    let now = session.named(dialect.binlog_status).await.ok().and_then(|rows| {
        let row = rows.into_iter().next()?;
        Some(Place {
            file: row.get("file")?.clone(),
            position: row.get("position")?.parse().ok()?,
            gtid: String::new(),
        })
    });
    let missing = match since::from(position) {
        Some(then) if family == Family::MySql && !then.gtid.is_empty() => {
            let sql = format!("SELECT GTID_SUBTRACT(@@GLOBAL.gtid_executed, {})", string(&then.gtid));
            session.scalar(&sql).await.ok().map(|set| set.replace('\n', ""))
        }
        _ => None,
    };
    since::since(family, position, is_same_server, now.as_ref(), missing.as_deref())
}

struct Compared<'a> {
    session: &'a mut Session,
    archive: &'a Archive,
    script: &'a mut Script,
    cancel: &'a CancellationToken,
}

/// What is needed of a table to tell its rows apart.
struct Shape {
    name: String,
    named: Named,
    columns: Vec<Column>,
    literals: Vec<Literal>,
    reading: Reading,
    key_names: Vec<String>,
}

impl Shape {
    /// Or why there is none.
    fn of(table: &Table) -> Result<Self, String> {
        let reading = Reading::of(table);
        let Some(key) = &table.key else {
            return Err("it has no key".to_owned());
        };
        if table.history {
            return Err("it keeps its own history".to_owned());
        }
        if reading.key_at.iter().any(|at| *at >= table.columns.len()) {
            return Err("its key is computed".to_owned());
        }
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        Ok(Self {
            name: format!("{}.{}", table.schema, table.name),
            named: Named::new(&table.schema, &table.name, &names),
            literals: table.columns.iter().map(Column::literal).collect(),
            columns: table.columns.clone(),
            key_names: key.columns.iter().map(|column| identifier(&column.name)).collect(),
            reading,
        })
    }

    /// The key's values as they are written, which tell rows apart at least as well as the server does.
    fn key<'r>(&self, values: &[&'r [u8]]) -> Vec<&'r [u8]> {
        self.reading
            .key_at
            .iter()
            .filter_map(|at| values.get(*at).copied())
            .collect()
    }

    /// To begin a stretch after.
    fn boundary(&self, values: &[&[u8]]) -> Result<KeyValue, Strange> {
        let part = |(part, at): (usize, &usize)| {
            let value = values.get(*at).ok_or(Strange)?;
            let value = meant(value, self.literals[*at])?.ok_or(Strange)?;
            self.reading.literal(part, &value).ok_or(Strange)
        };
        self.reading.key_at.iter().enumerate().map(part).collect()
    }
}

/// Rows of the backup that lie together.
#[derive(Default)]
struct Stretch<'m> {
    rows: Vec<rows::Row<'m>>,
    bytes: usize,
}

impl Compared<'_> {
    /// Or why it cannot be told row by row.
    async fn table(
        &mut self,
        dialect: &Dialect,
        name: &Name<'_>,
    ) -> Result<Result<TableDifference, String>, RestoreError> {
        let schema = catalog::schema(self.session, dialect, name.0).await?;
        let Some(table) = schema.tables.into_iter().find(|table| table.name == name.1) else {
            return Ok(Err("the server does not show it".to_owned()));
        };
        let shape = match Shape::of(&table) {
            Ok(shape) => shape,
            Err(why) => return Ok(Err(why)),
        };
        let members: Vec<usize> = self
            .archive
            .index
            .members
            .iter()
            .enumerate()
            .filter(|(_, member)| {
                (member.kind, member.schema.as_str(), member.table.as_str()) == (MemberKind::Data, name.0, name.1)
            })
            .map(|(number, _)| number)
            .collect();
        let mut difference = TableDifference {
            table: shape.name.clone(),
            ..TableDifference::default()
        };
        let mut lower = None;
        for (at, number) in members.iter().enumerate() {
            let text = self.archive.member(*number).await?;
            let is_last = at + 1 == members.len();
            match self.member(&shape, &text, &mut lower, is_last, &mut difference).await? {
                Ok(()) => {}
                // What was written of the table so far is right, and not all.
                Err(Strange) if at == 0 => {
                    return Ok(Err("its columns were others at the time of the backup".to_owned()));
                }
                Err(Strange) => {
                    return Err(RestoreError::Rows {
                        place: place(&self.archive.index.members[*number], *number),
                        detail: Strange.to_string(),
                    });
                }
            }
        }
        if members.is_empty() {
            let whole = Span::default();
            self.stretch(&shape, &Stretch::default(), &whole, &mut difference)
                .await?;
        }
        Ok(Ok(difference))
    }

    /// All of a member's rows; the last one's stretch goes to the table's end.
    async fn member(
        &mut self,
        shape: &Shape,
        text: &[u8],
        lower: &mut Option<KeyValue>,
        is_last: bool,
        difference: &mut TableDifference,
    ) -> Result<Result<(), Strange>, RestoreError> {
        let mut rows = Rows::of(text, &shape.named.insert);
        let mut stretch = Stretch::default();
        let mut next = match rows.next_row() {
            Ok(next) => next,
            Err(strange) => return Ok(Err(strange)),
        };
        while let Some(row) = next.take() {
            if row.values.len() != shape.columns.len() {
                return Ok(Err(Strange));
            }
            stretch.bytes += row.text.len();
            stretch.rows.push(row);
            next = match rows.next_row() {
                Ok(next) => next,
                Err(strange) => return Ok(Err(strange)),
            };
            let is_end = next.is_none();
            if !is_end && stretch.rows.len() < STRETCH_ROWS && stretch.bytes < STRETCH_BYTES {
                continue;
            }
            let upper = match stretch.rows.last() {
                Some(last) if !(is_end && is_last) => match shape.boundary(&last.values) {
                    Ok(upper) => Some(upper),
                    Err(strange) => return Ok(Err(strange)),
                },
                _ => None,
            };
            let span = Span {
                lower: lower.clone(),
                upper: upper.clone(),
            };
            self.stretch(shape, &stretch, &span, difference).await?;
            *lower = upper;
            stretch = Stretch::default();
        }
        Ok(Ok(()))
    }

    async fn stretch(
        &mut self,
        shape: &Shape,
        stretch: &Stretch<'_>,
        span: &Span,
        difference: &mut TableDifference,
    ) -> Result<(), RestoreError> {
        if self.cancel.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if self.server_sum(shape, span).await? == sum(shape, stretch) {
            return Ok(());
        }
        let mut before = BTreeMap::new();
        for row in &stretch.rows {
            before.insert(shape.key(&row.values).join(&b','), row);
        }
        let sql = shape.reading.rows(span, None);
        let mut result = self.session.query(&sql).await?;
        let mut text = Vec::new();
        while let Some(row) = result.next().await? {
            let ends = written(&mut text, &row, &shape.literals);
            let values: Vec<&[u8]> = ends.iter().map(|(from, to)| &text[*from..*to]).collect();
            match before.remove(&shape.key(&values).join(&b',')) {
                Some(old) if old.text == text.as_slice() => continue,
                Some(_) => difference.changed += 1,
                None => difference.added += 1,
            }
            self.script.replace(&shape.named, &text).await?;
        }
        drop(result);
        for row in before.into_values() {
            difference.removed += 1;
            let key = shape.key(&row.values);
            let key: Vec<(String, &[u8])> = shape.key_names.iter().cloned().zip(key).collect();
            self.script.delete(&shape.named, &key).await?;
        }
        Ok(())
    }

    async fn server_sum(&mut self, shape: &Shape, span: &Span) -> Result<TableSum, RestoreError> {
        let sql = checksum_sql(&shape.columns, &shape.reading.source(span));
        let rows = self.session.text(&sql).await?;
        let figure = |at: usize| rows.first().and_then(|row| row.get(at)?.parse::<u64>().ok());
        match (figure(0), figure(1), figure(2).and_then(|xor| u32::try_from(xor).ok())) {
            (Some(rows), Some(sum), Some(xor)) => Ok(TableSum { rows, sum, xor }),
            _ => Err(RestoreError::Rows {
                place: format!("table {}", shape.name),
                detail: format!("the server's checksum makes no sense: {rows:?}"),
            }),
        }
    }
}

/// A value that is none of its kind sums up to nothing that a server would say, and so is looked at row by row.
fn sum(shape: &Shape, stretch: &Stretch<'_>) -> TableSum {
    let mut sum = TableSum::default();
    let mut one = RowSum::default();
    for row in &stretch.rows {
        for (value, literal) in row.values.iter().zip(&shape.literals) {
            let value = meant(value, *literal).unwrap_or_default();
            one.column(value.as_deref(), *literal);
        }
        sum.add_row(one.finish());
    }
    sum
}

/// The row as a backup would write it, into `text`; where each value begins and ends.
fn written(text: &mut Vec<u8>, row: &Row, literals: &[Literal]) -> Vec<(usize, usize)> {
    text.clear();
    text.push(b'(');
    let mut ends = Vec::with_capacity(literals.len());
    for (at, literal) in literals.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        let from = text.len();
        // Before the columns stands a constant.
        literal::write(text, row.get(at + 1), *literal);
        ends.push((from, text.len()));
    }
    text.push(b')');
    ends
}
