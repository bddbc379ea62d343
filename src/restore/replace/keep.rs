//! What a replace keeps of the old, beside the tables: every view, routine, trigger and event as it was, in the schema
//! `planb`, until a person says that it may go.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use super::sides::Sides;
use crate::dump::catalog::{self, Definition};
use crate::dump::literal::{hex, identifier, string};

use crate::dump::survey::dialect_of;
use crate::mysql::dialect::Dialect;
use crate::mysql::{Address, DbError, Session};
use crate::restore::error::RestoreError;
use crate::restore::ledger::{self, Record};

/// What of a schema is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its real name.
    pub schema: String,
    /// Digest of the backup that took its place.
    pub digest: String,
    pub backup: String,
    /// Its own definition and collation; empty where there was no such schema.
    pub create: Vec<u8>,
    pub collation: String,
    pub stands: Stands,
}

/// Which of the two is kept aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    /// What was replaced, under `planb_old_…`.
    Old,
    /// What had replaced it, under `planb_new_…`: it was finished when it was taken back.
    New,
}

impl Kept {
    /// Where it is kept.
    pub fn place(&self) -> String {
        match self.stands {
            Stands::Old => names::old(&self.schema),
            Stands::New => names::new(&self.schema),
        }
    }
}

/// A definition that is kept, and whether it is of an event that sleeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDefinition {
    pub definition: Definition,
    pub position: u64,
    pub asleep: bool,
}

const KINDS: [&str; 7] = [
    "FUNCTION",
    "PROCEDURE",
    "PACKAGE",
    "PACKAGE BODY",
    "VIEW",
    "TRIGGER",
    "EVENT",
];

/// Makes the bookkeeping tables of a replace if they are not there.
pub async fn prepare(session: &mut Session) -> Result<(), DbError> {
    for sql in [
        "CREATE TABLE IF NOT EXISTS planb.kept_schemas (of_schema VARCHAR(64) NOT NULL, digest CHAR(64) CHARACTER SET ascii NOT NULL, \
         backup VARCHAR(1024) NOT NULL, definition LONGBLOB NOT NULL, collation_name VARCHAR(64) NOT NULL, stands VARCHAR(8) NOT NULL, \
         kept_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (of_schema)) ENGINE=InnoDB",
        "CREATE TABLE IF NOT EXISTS planb.kept_definitions (of_schema VARCHAR(64) NOT NULL, kind VARCHAR(16) CHARACTER SET ascii NOT \
         NULL, name VARCHAR(64) NOT NULL, position INT UNSIGNED NOT NULL, definition LONGBLOB NOT NULL, sql_mode TEXT NOT NULL, \
         client VARCHAR(64) NOT NULL, connection VARCHAR(64) NOT NULL, of_database VARCHAR(64) NOT NULL, zone VARCHAR(64) NOT NULL, \
         unusable TEXT NOT NULL, asleep TINYINT NOT NULL, PRIMARY KEY (of_schema, kind, name)) ENGINE=InnoDB",
        "CREATE TABLE IF NOT EXISTS planb.loaded_tables (of_schema VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, \
         PRIMARY KEY (of_schema, name)) ENGINE=InnoDB",
    ] {
        session.execute(sql).await?;
    }
    Ok(())
}

/// Everything that is kept; none where nothing ever was.
pub async fn kept(session: &mut Session) -> Result<Vec<Kept>, DbError> {
    if !ledger::is_there(session, "kept_schemas").await? {
        return Ok(Vec::new());
    }
    let rows = session
        .table(
            "SELECT of_schema, digest, backup, collation_name, stands, definition FROM planb.kept_schemas ORDER BY 1",
        )
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let [schema, digest, backup, collation, stands, create] = cells(row)?;
            Some(Kept {
                schema: text(&schema),
                digest: text(&digest),
                backup: text(&backup),
                collation: text(&collation),
                stands: if stands == b"new" { Stands::New } else { Stands::Old },
                create,
            })
        })
        .collect())
}

/// A schema's definitions that are kept, in the order in which they were found.
pub async fn definitions(session: &mut Session, schema: &str) -> Result<Vec<KeptDefinition>, DbError> {
    let sql = format!(
        "SELECT kind, name, position, definition, sql_mode, client, connection, of_database, zone, unusable, asleep \
         FROM planb.kept_definitions WHERE of_schema = {} ORDER BY position",
        string(schema)
    );
    let mut kept = Vec::new();
    for row in session.table(&sql).await? {
        let Some(
            [
                kind,
                name,
                position,
                create,
                sql_mode,
                client,
                connection,
                database,
                zone,
                unusable,
                asleep,
            ],
        ) = cells(row)
        else {
            continue;
        };
        let kind = text(&kind);
        let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else {
            return Err(DbError::Odd {
                sql: "SELECT kind FROM planb.kept_definitions".to_owned(),
                detail: format!("nobody knows what a {kind} is; a newer planb wrote it"),
            });
        };
        kept.push(KeptDefinition {
            definition: Definition {
                schema: schema.to_owned(),
                name: text(&name),
                kind,
                create,
                sql_mode: text(&sql_mode),
                character_set_client: text(&client),
                collation_connection: text(&connection),
                database_collation: text(&database),
                time_zone: text(&zone),
                broken: Some(text(&unusable)).filter(|why| !why.is_empty()),
            },
            position: text(&position).parse().unwrap_or(0),
            asleep: asleep == b"1",
        });
    }
    Ok(kept)
}

/// Keeps everything of a schema that is not a table, before the first of it is dropped. What an interrupted run has kept,
/// and dropped, stays kept. One transaction.
pub async fn keep(
    session: &mut Session,
    new: &Kept,
    found: Option<&catalog::Schema>,
    loaded: &BTreeSet<String>,
) -> Result<(), DbError> {
    let schema = string(&new.schema);
    let there = definitions(session, &new.schema).await?;
    let mut next = there.iter().map(|kept| kept.position + 1).max().unwrap_or(0);
    let sleeping = ledger::sleeping(session).await?;
    session.execute("START TRANSACTION").await?;
    session
        .execute(format!(
            "INSERT IGNORE INTO planb.kept_schemas (of_schema, digest, backup, definition, collation_name, stands) VALUES \
             ({schema}, {}, {}, {}, {}, 'old')",
            string(&new.digest),
            string(&new.backup),
            hex(&new.create),
            string(&new.collation),
        ))
        .await?;
    for table in loaded {
        session
            .execute(format!(
                "INSERT IGNORE INTO planb.loaded_tables (of_schema, name) VALUES ({schema}, {})",
                string(table)
            ))
            .await?;
    }
    for definition in found.into_iter().flat_map(programs) {
        let asleep = definition.kind == "EVENT" && sleeping.contains(&(new.schema.clone(), definition.name.clone()));
        let known = there
            .iter()
            .find(|kept| kept.definition.kind == definition.kind && kept.definition.name == definition.name);
        // A view is unusable as soon as one under it is dropped: as it was kept before, it is right.
        if definition.broken.is_some() && known.is_some_and(|kept| kept.definition.broken.is_none()) {
            continue;
        }
        let position = known.map_or(next, |kept| kept.position);
        next = next.max(position + 1);
        session
            .execute(format!(
                "REPLACE INTO planb.kept_definitions (of_schema, kind, name, position, definition, sql_mode, client, connection, \
                 of_database, zone, unusable, asleep) VALUES ({schema}, {}, {}, {position}, {}, {}, {}, {}, {}, {}, {}, {})",
                string(definition.kind),
                string(&definition.name),
                hex(&definition.create),
                string(&definition.sql_mode),
                string(&definition.character_set_client),
                string(&definition.collation_connection),
                string(&definition.database_collation),
                string(&definition.time_zone),
                string(definition.broken.as_deref().unwrap_or_default()),
                u8::from(asleep || known.is_some_and(|kept| kept.asleep)),
            ))
            .await?;
    }
    session.execute("COMMIT").await
}

/// Views, routines, triggers and events of a schema.
pub fn programs(schema: &catalog::Schema) -> impl Iterator<Item = &Definition> {
    [&schema.routines, &schema.views, &schema.triggers, &schema.events]
        .into_iter()
        .flatten()
}

/// Forgets what was kept of these schemas, and the restore that it was kept for. What no server would make again stays
/// written down.
pub async fn forget(session: &mut Session, schemas: &[Kept], stands: Stands, record: &Record) -> Result<(), DbError> {
    session.execute("START TRANSACTION").await?;
    for kept in schemas {
        let of = string(&kept.schema);
        for sql in [
            format!("DELETE FROM planb.loaded_tables WHERE of_schema = {of}"),
            format!("DELETE FROM planb.kept_definitions WHERE of_schema = {of} AND unusable = ''"),
        ] {
            session.execute(sql).await?;
        }
        if stands == Stands::Old {
            session
                .execute(format!("DELETE FROM planb.kept_schemas WHERE of_schema = {of}"))
                .await?;
        }
    }
    ledger::forget_lines(session, record).await?;
    session.execute("COMMIT").await
}

/// Forgets which tables were loaded, once they are aside again: what is under the real names then is not theirs.
pub async fn unload(session: &mut Session, reals: &[String]) -> Result<(), DbError> {
    for real in reals {
        let sql = format!("DELETE FROM planb.loaded_tables WHERE of_schema = {}", string(real));
        session.execute(sql).await?;
    }
    Ok(())
}

/// Forgets a schema of which nothing is there any more.
pub async fn forget_wholly(session: &mut Session, kept: &Kept) -> Result<(), DbError> {
    session.execute("START TRANSACTION").await?;
    for table in ["loaded_tables", "kept_definitions", "kept_schemas"] {
        let sql = format!("DELETE FROM planb.{table} WHERE of_schema = {}", string(&kept.schema));
        session.execute(sql).await?;
    }
    session.execute("COMMIT").await
}

/// Turns a restore round; of a finished one, what it made is kept from now on instead of what it replaced.
pub async fn turn(session: &mut Session, record: &Record, run: &str, was_done: bool) -> Result<(), DbError> {
    session.execute("START TRANSACTION").await?;
    ledger::turn(session, record, run).await?;
    if was_done {
        let sql = format!(
            "UPDATE planb.kept_schemas SET stands = 'new' WHERE digest = {}",
            string(&record.digest)
        );
        session.execute(sql).await?;
    }
    session.execute("COMMIT").await
}

/// Where the tables of these schemas are now.
pub async fn look(session: &mut Session, reals: &[String]) -> Result<BTreeMap<String, Sides>, DbError> {
    let rows = session
        .text("SELECT BINARY TABLE_SCHEMA, BINARY TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE NOT LIKE '%VIEW'")
        .await?;
    let loaded = if ledger::is_there(session, "loaded_tables").await? {
        session.pairs("SELECT of_schema, name FROM planb.loaded_tables").await?
    } else {
        Vec::new()
    };
    let of = |schema: &str| {
        let tables = rows
            .iter()
            .filter(|row| row.first().is_some_and(|known| known == schema));
        tables.filter_map(|row| row.get(1).cloned()).collect::<BTreeSet<_>>()
    };
    let sides = reals.iter().map(|real| {
        let of_it = loaded.iter().filter(|(schema, _)| schema == real);
        let new = of(&names::new(real));
        let mut loaded: BTreeSet<String> = of_it.map(|(_, table)| table.clone()).collect();
        loaded.extend(new.iter().cloned());
        let sides = Sides {
            real: of(real),
            old: of(&names::old(real)),
            new,
            loaded,
        };
        (real.clone(), sides)
    });
    Ok(sides.collect())
}

/// A session that reads definitions as they are, and how to speak to its server.
pub async fn reader(address: &Address) -> Result<(Session, Dialect), RestoreError> {
    let mut session = address.connect().await?;
    let dialect = dialect_of(&mut session).await?;
    for setting in dialect.reader_settings {
        session.execute(setting).await?;
    }
    Ok((session, dialect))
}

/// Names of all schemas.
pub async fn schemas(session: &mut Session) -> Result<BTreeSet<String>, DbError> {
    let rows = session
        .text("SELECT BINARY SCHEMA_NAME FROM information_schema.SCHEMATA")
        .await?;
    Ok(rows.into_iter().flatten().collect())
}

/// `ALTER DATABASE`, with what a `CREATE DATABASE` says of it; none where that says nothing.
pub fn alter_database(create: &[u8], name: &str) -> Option<Vec<u8>> {
    let at = create.iter().position(|&b| b == b'`')?;
    let (_, options) = crate::restore::schema::identifier(&create[at..])?;
    let mut sql = format!("ALTER DATABASE {}", identifier(name)).into_bytes();
    sql.extend_from_slice(options);
    (!options.trim_ascii().is_empty()).then_some(sql)
}

/// A `CREATE DATABASE` under another name.
pub fn create_database(create: &[u8], name: &str) -> Option<Vec<u8>> {
    let at = create.iter().position(|&b| b == b'`')?;
    let (_, options) = crate::restore::schema::identifier(&create[at..])?;
    let mut sql = format!("CREATE DATABASE IF NOT EXISTS {}", identifier(name)).into_bytes();
    sql.extend_from_slice(options);
    Some(sql)
}

fn cells<const N: usize>(row: Vec<Option<Vec<u8>>>) -> Option<[Vec<u8>; N]> {
    let row: Vec<Vec<u8>> = row.into_iter().map(Option::unwrap_or_default).collect();
    row.try_into().ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
