//! Whether what is on a server is what a backup says it holds, after the repairs that a restore makes: every table's rows and
//! checksum, computed by the server, and the definition of every table, sequence, view, routine, trigger and event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::contents::Contents;
use super::error::RestoreError;
use super::ledger;
use super::normal::{self, GENERATED_KEY, Stored};
use super::plan::{self, Wish};
use super::programs::Item;
use super::repair::{self, Takes};
use super::replace::names::Naming;
use super::schema::identifier;
use super::target::{self, Target};
use crate::backup::archive::Archive;
use crate::dump::catalog::{self, Schema};
use crate::dump::columns::{TableSum, checksum_sql};
use crate::dump::keyset::{Reading, Span};
use crate::dump::literal::{identifier as quoted, qualified};
use crate::dump::placement;
use crate::dump::survey::dialect_of;
use crate::format::index::MemberKind;
use crate::mysql::dialect::Version;
use crate::mysql::{Address, Session};

/// What was compared, and how far it agreed.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    pub tables: usize,
    pub rows: u64,
    /// Views, routines, triggers and events.
    pub objects: usize,
    /// Definitions were compared by their text. Else the server is of another version than the source, prints them in its own
    /// way, and only names, keys, columns' names and owners were.
    pub exact: bool,
    pub duration: Duration,
    /// Everything that differs, in words; empty where all is equal.
    pub differences: Vec<String>,
    pub server: String,
}

/// Compares a server with a backup, `sessions` tables at once. `wish`: what the restore was asked for.
///
/// # Errors
/// The database's, or the backup's where its definitions cannot be read. A difference is no error.
pub async fn compare(
    address: &Address,
    archive: &Archive,
    wish: &Wish,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    let scope = Scope {
        objects: Some(wish),
        naming: &Naming::default(),
        is_held: false,
    };
    look(address, archive, scope, sessions, cancel).await
}

/// The same of a trial, which stands and falls with its hold on the server: whoever takes that over ends this, too.
///
/// # Errors
/// As [`compare`].
pub async fn trial(
    address: &Address,
    archive: &Archive,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    let scope = Scope {
        objects: Some(&Wish::default()),
        naming: &Naming::default(),
        is_held: true,
    };
    look(address, archive, scope, sessions, cancel).await
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
    let scope = Scope {
        objects: None,
        naming,
        is_held: true,
    };
    look(address, archive, scope, sessions, cancel).await
}

/// What is looked at, and how.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// Views, routines, triggers and events too, as this was wished for.
    objects: Option<&'a Wish>,
    naming: &'a Naming,
    /// Part of a restore that holds the server.
    is_held: bool,
}

async fn look(
    address: &Address,
    archive: &Archive,
    scope: Scope<'_>,
    sessions: usize,
    cancel: &CancellationToken,
) -> Result<Comparison, RestoreError> {
    let begun = Instant::now();
    let Scope {
        objects,
        naming,
        is_held,
    } = scope;
    let mut session = address.connect().await?;
    let dialect = dialect_of(&mut session).await?;
    for setting in dialect.reader_settings {
        session.execute(setting).await?;
    }
    let target = target::survey(&mut session).await?;
    let contents = Contents::read(archive).await?;
    let source = Version::of_text(&archive.index.summary.server);
    let number = |version: Version| (version.family, version.major, version.minor);
    let mut result = Comparison {
        server: dialect.version.to_string(),
        exact: source.is_some_and(|source| number(source) == number(dialect.version)),
        ..Comparison::default()
    };
    let all: BTreeSet<String> = session
        .text("SELECT BINARY SCHEMA_NAME FROM information_schema.SCHEMATA")
        .await?
        .into_iter()
        .flatten()
        .collect();
    let mut found = BTreeMap::new();
    for schema in &archive.index.summary.schemas {
        let stored = target.stored(naming.loading(schema));
        // One that is gone has nothing in it.
        if all.contains(&stored) {
            found.insert(stored.clone(), catalog::schema(&mut session, &dialect, &stored).await?);
        } else {
            result.differences.push(format!("schema {schema} is missing"));
        }
    }
    let sides = Sides {
        target: &target,
        contents: &contents,
        naming,
        exact: result.exact,
    };
    result.differences.extend(sides.schemas(&found));
    result.differences.extend(sides.tables(&mut session, &found).await?);
    result.differences.extend(sides.sequences(&found));
    if let Some(wish) = objects {
        let (objects, differences) = sides.objects(archive, wish, &found)?;
        result.objects = objects;
        result.differences.extend(differences);
    }
    session.close().await;

    let mut there = BTreeMap::new();
    let own_key = sides.own_keys();
    for mut table in found.into_values().flat_map(|schema| schema.tables) {
        let place = (table.schema.clone(), table.name.clone());
        if !own_key.contains(&place) {
            table.columns.retain(|column| column.name != GENERATED_KEY);
        }
        there.insert(place, table);
    }
    let mut jobs = Vec::new();
    for record in &archive.index.summary.tables {
        // A table that is missing has been told.
        if let Some(table) = there.remove(&sides.place(&record.schema, &record.table)) {
            jobs.push((record.clone(), table));
        }
    }
    let settings = dialect.reader_settings;
    let jobs = Arc::new(std::sync::Mutex::new(jobs));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..sessions.max(1) {
        let (address, jobs, cancel) = (address.clone(), Arc::clone(&jobs), cancel.clone());
        tasks.spawn(async move {
            let mut session = address.connect().await?;
            if is_held {
                // So that whoever takes the server over ends what would go on for nobody.
                ledger::enlist(&mut session).await?;
            }
            for setting in settings {
                session.execute(setting).await?;
            }
            let (mut tables, mut rows, mut differences) = (0, 0, Vec::new());
            loop {
                let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
                let Some((record, table)) = next else { break };
                let sum = tokio::select! {
                    biased;
                    () = cancel.cancelled() => return Err(RestoreError::Cancelled),
                    sum = sum(&mut session, &table) => sum?,
                };
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

/// A backup's definitions, and where they were to go.
struct Sides<'a> {
    target: &'a Target,
    contents: &'a Contents,
    /// Where the schemas are for now.
    naming: &'a Naming,
    exact: bool,
}

/// By the name that the server stores.
type Found = BTreeMap<String, Schema>;

impl Sides<'_> {
    fn place(&self, schema: &str, name: &str) -> (String, String) {
        (self.schema(schema), self.target.stored(name))
    }

    fn schema(&self, name: &str) -> String {
        self.target.stored(self.naming.loading(name))
    }

    /// Tables that have a column of this name by themselves.
    fn own_keys(&self) -> BTreeSet<(String, String)> {
        let own = format!("`{GENERATED_KEY}`");
        let tables = self.contents.schema.tables.iter();
        tables
            .filter(|table| memchr::memmem::find(&table.create, own.as_bytes()).is_some())
            .map(|table| self.place(&table.schema, &table.name))
            .collect()
    }

    /// Character set and collation.
    fn schemas(&self, found: &Found) -> Vec<String> {
        let after_name = |create: &[u8]| {
            let (create, _) = placement::portable(create);
            let at = create.iter().position(|&b| b == b'`')?;
            identifier(&create[at..]).map(|(_, rest)| String::from_utf8_lossy(rest).into_owned())
        };
        let mut told = Vec::new();
        for database in self.contents.schema.databases.iter().filter(|_| self.exact) {
            let Some(there) = found.get(&self.schema(&database.name)) else {
                continue;
            };
            let (wanted, is) = (after_name(&database.create), after_name(&there.create));
            if wanted != is {
                told.push(format!(
                    "schema {} is made with{}, the backup's with{}",
                    database.name,
                    is.unwrap_or_default(),
                    wanted.unwrap_or_default()
                ));
            }
        }
        told
    }

    async fn tables(&self, session: &mut Session, found: &Found) -> Result<Vec<String>, RestoreError> {
        let takes = Takes {
            engines: self.target.engines.clone(),
            collations: self.target.collations.clone(),
        };
        let own_keys = self.own_keys();
        let mut there: BTreeMap<(String, String), &[u8]> = BTreeMap::new();
        for schema in found.values() {
            for table in schema
                .table_definitions
                .iter()
                .filter(|table| table.name != ledger::MARK)
            {
                there.insert((schema.name.clone(), table.name.clone()), &table.create);
            }
        }
        let mut told = Vec::new();
        for table in &self.contents.schema.tables {
            let place = self.place(&table.schema, &table.name);
            let name = format!("table {}.{}", table.schema, table.name);
            let Some(create) = there.remove(&place) else {
                told.push(format!("{name} is missing"));
                continue;
            };
            let lower_case = self.target.lower_case_names;
            let generated = !own_keys.contains(&place);
            let mended = self.naming.references(&repair::mend(table, &takes).create);
            let wanted = normal::table(&mended, lower_case, generated);
            let is = normal::table(&placement::portable(create).0, lower_case, generated);
            let differences = normal::table_differences(&wanted, &is, self.exact);
            told.extend(differences.into_iter().map(|what| format!("{name} {what}")));
            if is.next_value > wanted.next_value
                && let Some(counter) = &is.counter
            {
                // Rows that came between definition and snapshot are counted, too; and no more than those.
                let sql = format!(
                    "SELECT COALESCE(MAX({}), 0) + @@GLOBAL.auto_increment_increment FROM {}",
                    quoted(counter),
                    qualified(&place.0, &place.1)
                );
                let most = session.scalar(&sql).await?.parse::<u64>();
                if most.is_ok_and(|most| is.next_value > most) {
                    told.push(format!(
                        "{name} counts on from {}, the backup from {}",
                        is.next_value, wanted.next_value
                    ));
                }
            }
        }
        told.extend(
            there
                .keys()
                .map(|(schema, table)| format!("table {schema}.{table} is not in the backup")),
        );
        Ok(told)
    }

    /// Definitions and values of MariaDB's sequences.
    fn sequences(&self, found: &Found) -> Vec<String> {
        let text = |statement: &[u8]| {
            let text = String::from_utf8_lossy(statement).trim_end_matches(';').to_owned();
            if self.target.lower_case_names {
                text.to_lowercase()
            } else {
                text
            }
        };
        let mut there: BTreeSet<(String, String)> = BTreeSet::new();
        for schema in found.values() {
            let definitions = schema.sequences.iter().map(|sequence| text(&sequence.create));
            let values = schema.sequence_values.iter().map(|value| text(value.as_bytes()));
            there.extend(definitions.chain(values).map(|text| (schema.name.clone(), text)));
        }
        let wanted: BTreeSet<(String, String)> = self
            .contents
            .schema
            .sequences
            .iter()
            .map(|(schema, statement)| (self.schema(schema), text(&self.naming.references(statement))))
            .collect();
        let lacks = wanted
            .difference(&there)
            .map(|(schema, text)| format!("in schema {schema} is not: {text}"));
        let more = there
            .difference(&wanted)
            .map(|(schema, text)| format!("in schema {schema} is, and not in the backup: {text}"));
        lacks.chain(more).collect()
    }

    /// Views, routines, triggers and events: how many, and what differs.
    fn objects(&self, archive: &Archive, wish: &Wish, found: &Found) -> Result<(usize, Vec<String>), RestoreError> {
        let later = archive.index.members.iter().filter(|member| !is_before(member.kind));
        let members = later
            .map(|member| member.schema.as_str())
            .zip(self.contents.items.iter().map(|items: &Vec<Item>| items.as_slice()));
        let owner = |definer: &str| plan::owner(definer, self.target, wish);
        let lower_case = self.target.lower_case_names;
        let wanted = normal::wanted(members, owner, &self.target.account, lower_case);
        let mut there: BTreeMap<(String, String, String), Stored> = BTreeMap::new();
        let mut told = Vec::new();
        for schema in found.values() {
            for stored in normal::there(schema, lower_case)? {
                there.insert(self.key(&stored), stored);
            }
            for view in &schema.views {
                if let Some(why) = &view.broken {
                    told.push(format!("view {}.{} cannot be used: {why}", view.schema, view.name));
                }
            }
        }
        for object in &wanted {
            let name = format!(
                "{} {}.{}",
                object.kind.words().to_lowercase(),
                object.schema,
                object.name
            );
            match there.remove(&self.key(object)) {
                Some(is) => {
                    let differences = normal::stored_differences(object, &is, self.exact);
                    told.extend(differences.into_iter().map(|what| format!("{name} {what}")));
                }
                // An event whose time has passed since is kept by no server.
                None if object.is_passing_event => {}
                None => told.push(format!("{name} is missing")),
            }
        }
        told.extend(
            there
                .keys()
                .map(|(kind, schema, name)| format!("{kind} {schema}.{name} is not in the backup")),
        );
        Ok((wanted.len(), told))
    }

    fn key(&self, stored: &Stored) -> (String, String, String) {
        let (schema, name) = self.place(&stored.schema, &stored.name);
        (stored.kind.words().to_lowercase(), schema, name)
    }
}

fn is_before(kind: MemberKind) -> bool {
    match kind {
        MemberKind::Schema | MemberKind::Data => true,
        MemberKind::Routines
        | MemberKind::Views
        | MemberKind::Triggers
        | MemberKind::Events
        | MemberKind::ViewsElsewhere => false,
    }
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
