//! What there is to dump: schemas, tables, keys and definitions, as the server describes them.

use std::collections::HashMap;

use super::columns::Column;
use super::literal::{identifier, qualified, string};
use crate::mysql::dialect::{Dialect, Family};
use crate::mysql::{DbError, Session};

mod fingerprint;
mod partitions;

pub use fingerprint::{Fingerprint, fingerprint};

/// A table whose rows are dumped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub engine: String,
    /// The server's estimates; only for planning.
    pub estimated_rows: u64,
    pub estimated_bytes: u64,
    /// Every stored column, in order; generated ones are left out.
    pub columns: Vec<Column>,
    /// Unique, never NULL, comparable: lets the table be read in pieces.
    pub key: Option<Key>,
    /// MariaDB system versioning whose history rows are dumped too.
    pub history: bool,
    /// Those to read, where one may be added meanwhile; none: the table as a whole.
    pub partitions: Vec<String>,
}

/// An index by which a table can be read in pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub index: String,
    pub columns: Vec<Column>,
    /// For each column, whether the index holds it from the last value to the first. Read in the index's own order: any
    /// other would be sorted anew for each piece.
    pub descending: Vec<bool>,
}

/// A definition as `SHOW CREATE` gives it, with the session it was made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub schema: String,
    pub name: String,
    /// `TABLE`, `SEQUENCE`, `VIEW`, `PROCEDURE`, `FUNCTION`, `PACKAGE`, `PACKAGE BODY`, `TRIGGER`, `EVENT`.
    pub kind: &'static str,
    /// In the character set of the client that made it.
    pub create: Vec<u8>,
    pub sql_mode: String,
    pub character_set_client: String,
    pub collation_connection: String,
    pub database_collation: String,
    pub time_zone: String,
    /// The server says that it cannot be used (a view on something that is gone).
    pub broken: Option<String>,
}

/// One schema's contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    pub name: String,
    pub create: Vec<u8>,
    pub collation: String,
    pub sequences: Vec<Definition>,
    /// `DO SETVAL(…)` for each sequence.
    pub sequence_values: Vec<String>,
    pub table_definitions: Vec<Definition>,
    pub tables: Vec<Table>,
    pub views: Vec<Definition>,
    pub routines: Vec<Definition>,
    pub triggers: Vec<Definition>,
    pub events: Vec<Definition>,
    /// What cannot be carried exactly, in words.
    pub notes: Vec<String>,
}

/// Schemas that belong to the server or to PlanB and are never dumped.
pub fn is_system_schema(name: &str) -> bool {
    let lower = name.to_lowercase();
    matches!(
        lower.as_str(),
        "mysql" | "information_schema" | "performance_schema" | "sys" | "innodb" | "planb"
    ) || lower.starts_with("planb_new_")
        || lower.starts_with("planb_old_")
}

/// Every schema that a dump without `databases` would hold, by name.
pub async fn user_schemas(session: &mut Session) -> Result<Vec<String>, DbError> {
    let rows = session
        .text("SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY SCHEMA_NAME")
        .await?;
    Ok(rows
        .into_iter()
        .flatten()
        .filter(|name| !is_system_schema(name))
        .collect())
}

/// Reads one schema. Not inside the snapshot: definitions are not versioned, so the caller reads again and
/// compares (see [`fingerprint`]).
pub async fn schema(session: &mut Session, dialect: &Dialect, name: &str) -> Result<Schema, DbError> {
    let mut schema = Schema {
        name: name.to_owned(),
        ..Schema::default()
    };
    schema.create = cell(
        session,
        &format!("SHOW CREATE DATABASE IF NOT EXISTS {}", identifier(name)),
        1,
    )
    .await?;
    schema.collation = session
        .scalar(&format!(
            "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            string(name)
        ))
        .await?;
    tables(session, dialect, &mut schema).await?;
    objects(session, &mut schema).await?;
    Ok(schema)
}

async fn tables(session: &mut Session, dialect: &Dialect, schema: &mut Schema) -> Result<(), DbError> {
    let name = schema.name.clone();
    let mut columns = columns(session, &name).await?;
    let mut keys = keys(session, dialect, &name).await?;
    let mut partitions = partitions::partitions(session, &name).await?;
    let rows = session
        .text(&format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, COALESCE(ENGINE,''), COALESCE(TABLE_ROWS,0), \
             COALESCE(DATA_LENGTH,0), COALESCE(TABLE_COMMENT,'') \
             FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME",
            string(&name)
        ))
        .await?;
    for row in rows {
        let [
            row_schema,
            table,
            kind,
            engine,
            estimated_rows,
            estimated_bytes,
            comment,
        ] = row.as_slice()
        else {
            continue;
        };
        if *row_schema != name {
            continue;
        }
        match kind.as_str() {
            "VIEW" => {
                let mut view = show_create(session, &name, table, "VIEW").await?;
                // The server puts its complaint about an unusable view where a table's comment would be.
                view.broken = (comment.contains("references invalid")).then(|| comment.clone());
                schema.views.push(view);
            }
            "SEQUENCE" => {
                schema
                    .sequences
                    .push(show_create(session, &name, table, "SEQUENCE").await?);
                let of = qualified(&name, table);
                let row = session
                    .text(&format!("SELECT next_not_cached_value, cycle_count FROM {of}"))
                    .await?;
                if let Some([next, cycle]) = row.first().map(Vec::as_slice) {
                    schema
                        .sequence_values
                        .push(format!("DO SETVAL({of}, {next}, 0, {cycle});"));
                }
            }
            "BASE TABLE" | "SYSTEM VERSIONED" => {
                schema
                    .table_definitions
                    .push(show_create(session, &name, table, "TABLE").await?);
                let engine_has_no_rows =
                    matches!(engine.as_str(), "MRG_MyISAM" | "FEDERATED" | "BLACKHOLE" | "CONNECT");
                if engine_has_no_rows {
                    schema
                        .notes
                        .push(format!("{name}.{table}: rows behind engine {engine} are not carried"));
                    continue;
                }
                if engine != "InnoDB" {
                    schema.notes.push(format!(
                        "{name}.{table}: engine {engine} has no snapshots; its rows may be newer than consistent_at"
                    ));
                }
                let mut columns = columns.remove(table).unwrap_or_default();
                let mut key = keys
                    .remove(table)
                    .and_then(|candidates| best_key(&candidates, &columns));
                let mut history = false;
                if kind == "SYSTEM VERSIONED" {
                    history = dialect.history_can_be_restored;
                    if history {
                        history_columns(&mut columns);
                        // A row and its history share their key: pieces cut by it would not be exact.
                        key = None;
                    } else {
                        schema.notes.push(format!(
                            "{name}.{table}: history is not carried ({} cannot write it back)",
                            dialect.version
                        ));
                    }
                }
                for column in columns
                    .iter()
                    .filter(|c| matches!(c.data_type.as_str(), "enum" | "set"))
                {
                    if column.column_type.contains('?') {
                        schema.notes.push(format!(
                            "{name}.{table}.{}: the server may show letters outside the basic plane in member names as `?`; \
                             rows are carried by number, names must be looked at",
                            column.name
                        ));
                    }
                }
                columns.retain(|column| !column.generated);
                schema.tables.push(Table {
                    schema: name.clone(),
                    name: table.clone(),
                    engine: engine.clone(),
                    estimated_rows: estimated_rows.parse().unwrap_or(0),
                    estimated_bytes: estimated_bytes.parse().unwrap_or(0),
                    columns,
                    key,
                    history,
                    partitions: partitions.remove(table).filter(|_| !history).unwrap_or_default(),
                });
            }
            other => schema.notes.push(format!("{name}.{table}: a {other} is not carried")),
        }
    }
    Ok(())
}

/// Adds the period's columns to a versioned table's: named ones that the definition shows as generated, else the
/// hidden `ROW_START` and `ROW_END`.
fn history_columns(columns: &mut Vec<Column>) {
    let mut named = 0;
    for column in columns.iter_mut().filter(|column| column.data_type.starts_with("row ")) {
        column.data_type = "timestamp".to_owned();
        column.generated = false;
        named += 1;
    }
    if named == 0 {
        for name in ["ROW_START", "ROW_END"] {
            columns.push(Column {
                name: name.to_owned(),
                data_type: "timestamp".to_owned(),
                column_type: "timestamp(6)".to_owned(),
                charset: None,
                generated: false,
            });
        }
    }
}

async fn columns(session: &mut Session, schema: &str) -> Result<HashMap<String, Vec<Column>>, DbError> {
    let rows = session
        .text(&format!(
            "SELECT TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, COALESCE(CHARACTER_SET_NAME,''), \
             COALESCE(GENERATION_EXPRESSION,'') \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME, ORDINAL_POSITION",
            string(schema)
        ))
        .await?;
    let mut tables: HashMap<String, Vec<Column>> = HashMap::new();
    for row in rows {
        let [table, name, data_type, column_type, charset, expression] = row.as_slice() else {
            continue;
        };
        // MariaDB's versioning period: marked by a data type of our own until `history_columns` looks at it.
        let period = matches!(expression.to_uppercase().as_str(), "ROW START" | "ROW END");
        tables.entry(table.clone()).or_default().push(Column {
            name: name.clone(),
            data_type: if period {
                format!("row {data_type}")
            } else {
                data_type.clone()
            },
            column_type: column_type.clone(),
            charset: Some(charset.clone()).filter(|charset| !charset.is_empty()),
            generated: !expression.is_empty(),
        });
    }
    Ok(tables)
}

/// Unique indexes by table: name and columns in order (name, descending), primary first.
type Candidates = Vec<(String, Vec<(String, bool)>)>;

async fn keys(session: &mut Session, dialect: &Dialect, schema: &str) -> Result<HashMap<String, Candidates>, DbError> {
    let usable = match dialect.version.family {
        Family::MySql => "IS_VISIBLE = 'YES' AND EXPRESSION IS NULL",
        Family::MariaDb => "IGNORED = 'NO'",
    };
    let rows = session
        .text(&format!(
            "SELECT TABLE_NAME, INDEX_NAME, COALESCE(COLUMN_NAME,''), \
             NOT ({usable} AND SUB_PART IS NULL AND COALESCE(NULLABLE,'') <> 'YES' AND INDEX_TYPE = 'BTREE'), \
             COALESCE(COLLATION,'A') = 'D' \
             FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {} AND NON_UNIQUE = 0 \
             ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX",
            string(schema)
        ))
        .await?;
    let mut tables: HashMap<String, Candidates> = HashMap::new();
    let mut unusable: Vec<(String, String)> = Vec::new();
    for row in rows {
        let [table, index, column, bad, descending] = row.as_slice() else {
            continue;
        };
        if bad != "0" {
            unusable.push((table.clone(), index.clone()));
        }
        let candidates = tables.entry(table.clone()).or_default();
        match candidates.last_mut().filter(|(name, _)| name == index) {
            Some((_, columns)) => columns.push((column.clone(), descending == "1")),
            None => candidates.push((index.clone(), vec![(column.clone(), descending == "1")])),
        }
    }
    for (table, index) in unusable {
        if let Some(candidates) = tables.get_mut(&table) {
            candidates.retain(|(name, _)| *name != index);
        }
    }
    Ok(tables)
}

fn best_key(candidates: &Candidates, columns: &[Column]) -> Option<Key> {
    candidates.iter().find_map(|(index, parts)| {
        let columns = parts
            .iter()
            .map(|(name, _)| {
                columns
                    .iter()
                    .find(|column| column.name == *name && column.can_key())
                    .cloned()
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Key {
            index: index.clone(),
            columns,
            descending: parts.iter().map(|(_, descending)| *descending).collect(),
        })
    })
}

async fn objects(session: &mut Session, schema: &mut Schema) -> Result<(), DbError> {
    let name = schema.name.clone();
    let routines = session
        .text(&format!(
            "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES \
             WHERE ROUTINE_SCHEMA = {} ORDER BY ROUTINE_TYPE, ROUTINE_NAME",
            string(&name)
        ))
        .await?;
    for row in routines.iter().filter(|row| row.first() == Some(&name)) {
        let [_, routine, kind] = row.as_slice() else { continue };
        let kind = match kind.as_str() {
            "FUNCTION" => "FUNCTION",
            "PROCEDURE" => "PROCEDURE",
            "PACKAGE" => "PACKAGE",
            "PACKAGE BODY" => "PACKAGE BODY",
            other => {
                schema.notes.push(format!("{name}.{routine}: a {other} is not carried"));
                continue;
            }
        };
        schema.routines.push(show_create(session, &name, routine, kind).await?);
    }
    let triggers = session
        .text(&format!(
            "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} \
             ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
            string(&name)
        ))
        .await?;
    for row in triggers.iter().filter(|row| row.first() == Some(&name)) {
        let [_, trigger] = row.as_slice() else { continue };
        schema
            .triggers
            .push(show_create(session, &name, trigger, "TRIGGER").await?);
    }
    let events = session
        .text(&format!(
            "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} ORDER BY EVENT_NAME",
            string(&name)
        ))
        .await?;
    for row in events.iter().filter(|row| row.first() == Some(&name)) {
        let [_, event] = row.as_slice() else { continue };
        schema.events.push(show_create(session, &name, event, "EVENT").await?);
    }
    Ok(())
}

async fn show_create(
    session: &mut Session,
    schema: &str,
    name: &str,
    kind: &'static str,
) -> Result<Definition, DbError> {
    let sql = format!("SHOW CREATE {kind} {}", qualified(schema, name));
    let mut definition = Definition {
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind,
        create: Vec::new(),
        sql_mode: String::new(),
        character_set_client: String::new(),
        collation_connection: String::new(),
        database_collation: String::new(),
        time_zone: String::new(),
        broken: None,
    };
    let mut rows = session.query(&sql).await?;
    let mut found = false;
    while let Some(row) = rows.next().await? {
        for column in 0..row.width() {
            match row.name(column).to_lowercase().as_str() {
                "sql_mode" => definition.sql_mode = row.text(column),
                "time_zone" => definition.time_zone = row.text(column),
                "character_set_client" => definition.character_set_client = row.text(column),
                "collation_connection" => definition.collation_connection = row.text(column),
                "database collation" => definition.database_collation = row.text(column),
                "sql original statement" => definition.create = row.get(column).unwrap_or_default().to_vec(),
                other if other.starts_with("create ") => {
                    definition.create = row.get(column).unwrap_or_default().to_vec();
                }
                _ => {}
            }
        }
        found = true;
    }
    drop(rows);
    // Without the grant for it, the server shows a routine with an empty body, and a view without its text.
    if found && !definition.create.is_empty() {
        Ok(definition)
    } else {
        Err(DbError::Denied {
            sql,
            detail: "the server hides the definition".to_owned(),
        })
    }
}

async fn cell(session: &mut Session, sql: &str, column: usize) -> Result<Vec<u8>, DbError> {
    let table = session.table(sql).await?;
    table
        .into_iter()
        .next()
        .and_then(|mut row| row.get_mut(column).and_then(Option::take))
        .ok_or_else(|| DbError::Denied {
            sql: sql.to_owned(),
            detail: "the server hides the definition".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_and_server_schemas_are_left_out() {
        for name in [
            "mysql",
            "sys",
            "planb",
            "planb_new_bank",
            "planb_old_bank",
            "INFORMATION_SCHEMA",
        ] {
            assert!(is_system_schema(name), "{name}");
        }
        assert!(!is_system_schema("planbank"));
    }
}
