//! Whether what is on a server is what a backup says it holds: every table's rows and checksum, computed by the server,
//! and every view, routine, trigger and event by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::programs::{self, Item};
use super::replace::names::Naming;
use super::schema::Schema;
use crate::backup::archive::Archive;
use crate::dump::catalog;
use crate::dump::columns::{TableSum, checksum_sql};
use crate::dump::keyset::{Reading, Span};
use crate::dump::survey::dialect_of;
use crate::format::index::MemberKind;
use crate::mysql::{Address, Session};

/// What was compared, and how far it agreed.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    pub tables: usize,
    pub rows: u64,
    /// Views, routines, triggers and events.
    pub objects: usize,
    pub duration: Duration,
    /// Everything that differs, in words; empty where all is equal.
    pub differences: Vec<String>,
    pub server: String,
}

/// The column that a server adds by itself to tables without a primary key.
const GENERATED_KEY: &str = "my_row_id";

/// Compares a server with a backup, `sessions` tables at once.
///
/// # Errors
/// The database's, or the backup's where its definitions cannot be read. A difference is no error.
pub async fn compare(
    address: &Address,
    archive: &Archive,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    look(address, archive, &Naming::default(), true, sessions, cancel).await
}

/// Compares tables that were loaded, under the names they have until everything else is made.
///
/// # Errors
/// As [`compare`].
pub async fn loaded(
    address: &Address,
    archive: &Archive,
    naming: &Naming,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    look(address, archive, naming, false, sessions, cancel).await
}

async fn look(
    address: &Address,
    archive: &Archive,
    naming: &Naming,
    with_objects: bool,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    let begun = Instant::now();
    let mut session = address.connect().await?;
    let dialect = dialect_of(&mut session).await?;
    for setting in dialect.reader_settings {
        session.execute(setting).await?;
    }
    let lower_case = session.scalar("SELECT @@lower_case_table_names").await? == "1";
    let stored = |name: &str| {
        if lower_case {
            name.to_lowercase()
        } else {
            name.to_owned()
        }
    };
    let definitions = Schema::parse(&archive.member(0).await?)?;
    let in_schema = |name: &str| stored(naming.loading(name));
    let own_key: BTreeSet<(String, String)> = definitions
        .tables
        .iter()
        .filter(|table| memchr::memmem::find(&table.create, format!("`{GENERATED_KEY}`").as_bytes()).is_some())
        .map(|table| (in_schema(&table.schema), stored(&table.name)))
        .collect();

    let mut result = Comparison {
        server: dialect.version.to_string(),
        ..Comparison::default()
    };
    let mut there = BTreeMap::new();
    let mut objects = BTreeSet::new();
    let mut rules = BTreeMap::new();
    for schema in &archive.index.summary.schemas {
        let found = catalog::schema(&mut session, &dialect, &in_schema(schema)).await?;
        for definition in [&found.views, &found.routines, &found.triggers, &found.events]
            .into_iter()
            .flatten()
        {
            objects.insert((stored(schema), definition.kind.to_lowercase(), stored(&definition.name)));
        }
        for definition in &found.table_definitions {
            rules.insert(
                (in_schema(schema), stored(&definition.name)),
                rules_of(&definition.create),
            );
        }
        for mut table in found.tables {
            let place = (table.schema.clone(), table.name.clone());
            if !own_key.contains(&place) {
                table.columns.retain(|column| column.name != GENERATED_KEY);
            }
            there.insert(place, table);
        }
    }
    session.close().await;

    let (wanted, passing) = if with_objects {
        wanted_objects(archive, &stored).await?
    } else {
        objects.clear();
        (BTreeSet::new(), BTreeSet::new())
    };
    result.objects = wanted.len();
    for object in wanted.difference(&objects) {
        // An event whose time has passed since is kept by no server.
        if !passing.contains(object) {
            let (schema, kind, name) = object;
            result.differences.push(format!("{kind} {schema}.{name} is missing"));
        }
    }
    for table in &definitions.tables {
        let place = (in_schema(&table.schema), stored(&table.name));
        let Some(found) = rules.get(&place) else { continue };
        let wanted = rules_of(&naming.references(&table.create));
        for rule in wanted.difference(found) {
            result
                .differences
                .push(format!("table {}.{} lacks: {rule}", table.schema, table.name));
        }
    }
    for (schema, kind, name) in objects.difference(&wanted) {
        result
            .differences
            .push(format!("{kind} {schema}.{name} is not in the backup"));
    }

    let mut jobs = Vec::new();
    for record in &archive.index.summary.tables {
        match there.remove(&(in_schema(&record.schema), stored(&record.table))) {
            Some(table) => jobs.push((record.clone(), table)),
            None => result
                .differences
                .push(format!("table {}.{} is missing", record.schema, record.table)),
        }
    }
    let settings = dialect.reader_settings;
    let jobs = Arc::new(std::sync::Mutex::new(jobs));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..sessions.max(1) {
        let (address, jobs, cancel) = (address.clone(), Arc::clone(&jobs), cancel.clone());
        tasks.spawn(async move {
            let mut session = address.connect().await?;
            for setting in settings {
                session.execute(setting).await?;
            }
            let (mut tables, mut rows, mut differences) = (0, 0, Vec::new());
            loop {
                let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                let Some((record, table)) = next else { break };
                if cancel.is_cancelled() {
                    return Err(RestoreError::Cancelled);
                }
                let sum = sum(&mut session, &table).await?;
                tables += 1;
                rows += sum.rows;
                if sum.rows != record.rows || sum.text() != record.checksum {
                    differences.push(format!(
                        "table {}.{}: {} rows with checksum {}, the backup has {} with {}",
                        record.schema,
                        record.table,
                        sum.rows,
                        sum.text(),
                        record.rows,
                        record.checksum
                    ));
                }
            }
            session.close().await;
            Ok((tables, rows, differences))
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let (tables, rows, differences) =
            ended.unwrap_or_else(|error| Err(RestoreError::Panicked(error.to_string())))?;
        result.tables += tables;
        result.rows += rows;
        result.differences.extend(differences);
    }
    result.duration = begun.elapsed();
    Ok(result)
}

/// A table's keys and constraints, each as the server prints it; names and case as far as every server keeps them.
fn rules_of(create: &[u8]) -> BTreeSet<String> {
    let begins = [
        "PRIMARY KEY",
        "UNIQUE KEY",
        "KEY",
        "FULLTEXT KEY",
        "SPATIAL KEY",
        "CONSTRAINT",
    ];
    super::schema::lines(create)
        .into_iter()
        .map(|line| String::from_utf8_lossy(line.trim_ascii()).into_owned())
        .filter(|line| begins.iter().any(|begin| line.starts_with(&format!("{begin} "))))
        .map(|line| line.trim_end_matches(',').to_lowercase())
        .collect()
}

/// Schema, kind and name.
type Object = (String, String, String);

/// Names of what the backup's later members create, and those among them that time may have taken away.
async fn wanted_objects(
    archive: &Archive,
    stored: &impl Fn(&str) -> String,
) -> Result<(BTreeSet<Object>, BTreeSet<Object>), RestoreError> {
    let mut wanted = BTreeSet::new();
    let mut passing = BTreeSet::new();
    for (number, member) in archive.index.members.iter().enumerate() {
        if matches!(member.kind, MemberKind::Schema | MemberKind::Data) {
            continue;
        }
        for item in programs::items(&archive.member(number).await?)? {
            if let Item::Create(program) = item {
                let (schema, name) = program.place(&member.schema);
                let object = (stored(&schema), program.kind.words().to_lowercase(), stored(&name));
                if program.is_passing_event() {
                    passing.insert(object.clone());
                }
                wanted.insert(object);
            }
        }
    }
    Ok((wanted, passing))
}

async fn sum(session: &mut Session, table: &catalog::Table) -> Result<TableSum, RestoreError> {
    let sql = checksum_sql(&table.columns, &Reading::of(table).source(&Span::default()));
    let rows = session.text(&sql).await?;
    let figure = |at: usize| rows.first().and_then(|row| row.get(at)?.parse::<u64>().ok());
    match (figure(0), figure(1), figure(2).and_then(|xor| u32::try_from(xor).ok())) {
        (Some(rows), Some(sum), Some(xor)) => Ok(TableSum { rows, sum, xor }),
        _ => Err(RestoreError::Rows {
            place: format!("table {}.{}", table.schema, table.name),
            detail: format!("the server's checksum makes no sense: {rows:?}"),
        }),
    }
}
