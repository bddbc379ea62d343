//! What a backup's first member creates: settings, schemas, sequences, tables; and what of a table can wait until
//! its rows are in. Pure.

use std::collections::BTreeSet;

use super::statements::{ScriptError, Splitter};

/// The first member, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schema {
    /// Session settings that every session of the restore makes.
    pub settings: Vec<Vec<u8>>,
    pub databases: Vec<Database>,
    /// Sequences and what sets their values, each with its schema, in order.
    pub sequences: Vec<(String, Vec<u8>)>,
    pub tables: Vec<Table>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    pub name: String,
    pub create: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub create: Vec<u8>,
}

/// Why a first member cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("the backup's first member holds a statement that does not belong there: {0}")]
    Stranger(String),
}

impl Schema {
    /// # Errors
    /// [`SchemaError`]: nothing in it is guessed.
    pub fn parse(member: &[u8]) -> Result<Self, SchemaError> {
        let mut schema = Self::default();
        let mut current = String::new();
        for statement in Splitter::all(member)? {
            let strange = || SchemaError::Stranger(String::from_utf8_lossy(&statement).chars().take(80).collect());
            if let Some(rest) = statement.strip_prefix(b"USE ") {
                current = identifier(rest).ok_or_else(strange)?.0;
            } else if statement.starts_with(b"SET ") || statement.starts_with(b"/*M!") {
                schema.settings.push(statement);
            } else if statement.starts_with(b"CREATE DATABASE ") {
                let at = statement.iter().position(|&b| b == b'`').ok_or_else(strange)?;
                let name = identifier(&statement[at..]).ok_or_else(strange)?.0;
                schema.databases.push(Database {
                    name,
                    create: statement,
                });
            } else if let Some(rest) = statement.strip_prefix(b"CREATE TABLE ") {
                let name = identifier(rest).ok_or_else(strange)?.0;
                schema.tables.push(Table {
                    schema: current.clone(),
                    name,
                    create: statement,
                });
            } else if statement.starts_with(b"CREATE SEQUENCE ") || statement.starts_with(b"DO SETVAL(") {
                schema.sequences.push((current.clone(), statement));
            } else {
                return Err(strange());
            }
        }
        Ok(schema)
    }
}

/// The name in backticks at the beginning of `text`, and what follows it.
pub fn identifier(text: &[u8]) -> Option<(String, &[u8])> {
    let text = text.trim_ascii_start();
    let inner = text.strip_prefix(b"`")?;
    let mut name = Vec::new();
    let mut at = 0;
    loop {
        match (inner.get(at)?, inner.get(at + 1)) {
            (b'`', Some(b'`')) => {
                name.push(b'`');
                at += 2;
            }
            (b'`', _) => return Some((String::from_utf8(name).ok()?, &inner[at + 1..])),
            (&b, _) => {
                name.push(b);
                at += 1;
            }
        }
    }
}

/// A table's definition cut into what its rows need and what can be built from them afterwards, which is faster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deferred {
    pub create: Vec<u8>,
    /// `KEY …`, `UNIQUE KEY …`, `SPATIAL KEY …`: built in one go.
    pub keys: Vec<Vec<u8>>,
    /// `FULLTEXT KEY …`: InnoDB builds one at a time.
    pub fulltext_keys: Vec<Vec<u8>>,
    /// `CONSTRAINT … FOREIGN KEY …`: after the keys of all tables.
    pub foreign_keys: Vec<Vec<u8>>,
}

/// Takes from `CREATE TABLE` what can wait. `keys` says whether secondary keys may (they may not where there are
/// few rows to gain anything by); foreign keys always wait, since one would make the server add keys of its own.
///
/// What stays: the primary key; a unique key if there is no primary one (rows are stored in its order); the key that an
/// AUTO_INCREMENT column needs; everything of a table with system versioning, which refuses to be altered.
pub fn defer(create: &[u8], keys: bool) -> Deferred {
    let whole = || Deferred {
        create: create.to_vec(),
        ..Deferred::default()
    };
    let lines = lines(create);
    let (Some(first), Some(end)) = (lines.first(), lines.iter().rposition(|line| line.starts_with(b")"))) else {
        return whole();
    };
    let versioned = b"WITH SYSTEM VERSIONING";
    let masked = super::repair::masked(create);
    if end < 2 || masked.windows(versioned.len()).any(|window| window == versioned) {
        return whole();
    }
    let body: Vec<&[u8]> = lines[1..end].iter().map(|line| without_comma(line)).collect();
    let has_primary = body.iter().any(|line| line.trim_ascii().starts_with(b"PRIMARY KEY"));
    let auto = body.iter().find_map(|line| {
        let line = line.trim_ascii();
        let (name, rest) = identifier(line)?;
        let word = b" AUTO_INCREMENT";
        // A comment may say the word, too; then a key stays that could have waited.
        rest.windows(word.len()).any(|window| window == word).then_some(name)
    });
    let mut deferred = Deferred::default();
    let mut kept: Vec<&[u8]> = Vec::new();
    for line in body {
        let text = line.trim_ascii();
        let is_unique = text.starts_with(b"UNIQUE KEY ");
        let is_key = is_unique || text.starts_with(b"KEY ") || text.starts_with(b"SPATIAL KEY ");
        let is_fulltext = text.starts_with(b"FULLTEXT KEY ");
        if is_foreign_key(text) {
            deferred.foreign_keys.push(text.to_vec());
        } else if !keys || !(is_key || is_fulltext) || (is_unique && !has_primary) || leads(text, auto.as_deref()) {
            kept.push(line);
        } else if is_fulltext {
            deferred.fulltext_keys.push(text.to_vec());
        } else {
            deferred.keys.push(text.to_vec());
        }
    }
    deferred.create = first.to_vec();
    deferred.create.push(b'\n');
    deferred.create.extend_from_slice(&kept.join(&b",\n"[..]));
    for line in &lines[end..] {
        deferred.create.push(b'\n');
        deferred.create.extend_from_slice(line);
    }
    deferred
}

/// Whether the key's first column is `column`.
fn leads(key: &[u8], column: Option<&str>) -> bool {
    let Some(column) = column else { return false };
    let Some(open) = after_name(key).and_then(|rest| Some((rest, rest.iter().position(|&b| b == b'(')?))) else {
        return false;
    };
    let (rest, at) = open;
    identifier(&rest[at + 1..]).is_some_and(|(name, _)| name == column)
}

/// What follows the first name in backticks.
fn after_name(text: &[u8]) -> Option<&[u8]> {
    let at = text.iter().position(|&b| b == b'`')?;
    identifier(&text[at..]).map(|(_, rest)| rest)
}

fn is_foreign_key(line: &[u8]) -> bool {
    line.starts_with(b"CONSTRAINT ")
        && after_name(line).is_some_and(|rest| rest.trim_ascii_start().starts_with(b"FOREIGN KEY"))
}

/// Foreign keys whose parent is not in the backup, in words. Servers take them while they check none, and then refuse every
/// row of the child until the parent is there.
pub fn orphaned(schema: &Schema) -> Vec<String> {
    let known: BTreeSet<(String, String)> = schema
        .tables
        .iter()
        .map(|table| (table.schema.to_lowercase(), table.name.to_lowercase()))
        .collect();
    let mut told = Vec::new();
    for table in &schema.tables {
        for key in defer(&table.create, false).foreign_keys {
            let Some((parent_schema, parent)) = parent(&key, &table.schema) else {
                continue;
            };
            if !known.contains(&(parent_schema.to_lowercase(), parent.to_lowercase())) {
                told.push(format!(
                    "{}.{}: a foreign key refers to {parent_schema}.{parent}, which is not in the backup: no row can be written \
                     there until that table is, too",
                    table.schema, table.name
                ));
            }
        }
    }
    told
}

/// The table that a foreign key refers to; `schema` is its own, where none is named.
fn parent(key: &[u8], schema: &str) -> Option<(String, String)> {
    const REFERENCES: &[u8] = b" REFERENCES ";
    let masked = super::repair::masked(key);
    let at = memchr::memmem::find(&masked, REFERENCES)? + REFERENCES.len();
    let (first, rest) = identifier(&key[at..])?;
    match rest.strip_prefix(b".").and_then(identifier) {
        Some((name, _)) => Some((first, name)),
        None => Some((schema.to_owned(), first)),
    }
}

/// Lines of a definition; a line break inside quotes (a name may hold one) ends none.
pub fn lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let mut quote = None;
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match (quote, text[at]) {
            (None, b'\n') => {
                lines.push(&text[start..at]);
                start = at + 1;
            }
            (None, b @ (b'`' | b'\'' | b'"')) => quote = Some(b),
            (Some(b'\'' | b'"'), b'\\') => at += 1,
            (Some(open), b) if open == b => quote = None,
            _ => {}
        }
        at += 1;
    }
    lines.push(&text[start..]);
    lines
}

fn without_comma(line: &[u8]) -> &[u8] {
    line.strip_suffix(b",").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_first_member_is_taken_apart() {
        let schema = Schema::parse(
            b"-- PlanB backup\nSET NAMES utf8mb4;\n/*M!100200 SET check_constraint_checks = 0 */;\n\
              CREATE DATABASE /*!32312 IF NOT EXISTS*/ `a``b` /*!40100 DEFAULT CHARACTER SET utf8mb4 */;\nUSE `a``b`;\n\
              CREATE TABLE `new\nline` (\n  `x` int\n) ENGINE=InnoDB;\n",
        )
        .expect("a schema");
        assert_eq!(schema.settings.len(), 2);
        assert_eq!(schema.databases[0].name, "a`b");
        assert_eq!(
            (schema.tables[0].schema.as_str(), schema.tables[0].name.as_str()),
            ("a`b", "new\nline")
        );
        assert!(
            Schema::parse(b"DROP DATABASE mysql;").is_err(),
            "nothing else may stand there"
        );
    }

    #[test]
    fn keys_and_foreign_keys_wait_for_the_rows() {
        let deferred = defer(
            b"CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `n\n  KEY` int COMMENT 'a,\n  KEY b',\n  PRIMARY KEY (`id`),\n  \
              UNIQUE KEY `u` (`n`),\n  KEY `k` (`n` DESC),\n  FULLTEXT KEY `f` (`n`),\n  CONSTRAINT `c` CHECK (`n` > 0),\n  \
              CONSTRAINT `fk` FOREIGN KEY (`n`) REFERENCES `p` (`id`)\n) ENGINE=InnoDB AUTO_INCREMENT=7\n/*!50100 PARTITION */",
            true,
        );
        assert_eq!(
            text(&deferred.create),
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `n\n  KEY` int COMMENT 'a,\n  KEY b',\n  PRIMARY KEY (`id`),\n  \
             CONSTRAINT `c` CHECK (`n` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7\n/*!50100 PARTITION */"
        );
        assert_eq!(
            deferred.keys,
            [b"UNIQUE KEY `u` (`n`)".to_vec(), b"KEY `k` (`n` DESC)".to_vec()]
        );
        assert_eq!(deferred.fulltext_keys, [b"FULLTEXT KEY `f` (`n`)".to_vec()]);
        assert_eq!(
            deferred.foreign_keys,
            [b"CONSTRAINT `fk` FOREIGN KEY (`n`) REFERENCES `p` (`id`)".to_vec()]
        );
    }

    #[test]
    fn a_foreign_key_to_what_is_not_there_is_told() {
        let schema = Schema::parse(
            b"USE `s`;\nCREATE TABLE `p` (\n  `id` int\n) ENGINE=InnoDB;\nCREATE TABLE `c` (\n  `a` int,\n  CONSTRAINT `x REFERENCES y` FOREIGN \
              KEY (`a`) REFERENCES `P` (`id`),\n  CONSTRAINT `y` FOREIGN KEY (`a`) REFERENCES `away`.`p` (`id`)\n) ENGINE=InnoDB;\n",
        )
        .expect("a schema");
        let told = orphaned(&schema);
        assert!(told.len() == 1 && told[0].contains("refers to away.p"), "{told:?}");
    }

    #[test]
    fn what_the_rows_need_stays() {
        // No primary key: rows are stored in the unique key's order.
        let create =
            b"CREATE TABLE `t` (\n  `a` int NOT NULL,\n  UNIQUE KEY `u` (`a`),\n  KEY `k` (`a`)\n) ENGINE=InnoDB";
        assert_eq!(defer(create, true).keys, [b"KEY `k` (`a`)".to_vec()]);
        // AUTO_INCREMENT needs its key.
        let create = b"CREATE TABLE `t` (\n  `g` int,\n  `id` int NOT NULL AUTO_INCREMENT,\n  PRIMARY KEY (`g`,`id`),\n  KEY `id` (`id`)\n) ENGINE=InnoDB";
        assert_eq!(text(&defer(create, true).create), text(create));
        // Few rows: only foreign keys wait.
        let create = b"CREATE TABLE `t` (\n  `g` int,\n  KEY `g` (`g`),\n  CONSTRAINT `f` FOREIGN KEY (`g`) REFERENCES `p` (`g`)\n) ENGINE=InnoDB";
        let deferred = defer(create, false);
        assert!(deferred.keys.is_empty() && deferred.foreign_keys.len() == 1);
        let versioned = b"CREATE TABLE `t` (\n  `g` int,\n  KEY `g` (`g`)\n) ENGINE=InnoDB WITH SYSTEM VERSIONING";
        assert_eq!(text(&defer(versioned, true).create), text(versioned));
    }
}
