//! Whether anybody changed a definition, or swapped or rebuilt a table, while it was dumped.

use std::collections::BTreeMap;

use super::Schema;
use crate::dump::literal::qualified;
use crate::mysql::dialect::Dialect;
use crate::mysql::{DbError, Session};

/// What must be the same before the snapshot and after the data: each definition, and each table's identity.
pub type Fingerprint = BTreeMap<String, u64>;

/// Sums up definitions and table identities. AUTO_INCREMENT is left out: it moves with every insert.
pub async fn fingerprint(session: &mut Session, dialect: &Dialect, schemas: &[Schema]) -> Result<Fingerprint, DbError> {
    let mut print = Fingerprint::new();
    for schema in schemas {
        print.insert(format!("schema {}", schema.name), hash(&schema.create));
        let all = [
            &schema.sequences,
            &schema.table_definitions,
            &schema.views,
            &schema.routines,
            &schema.triggers,
            &schema.events,
        ];
        for (order, definition) in all.into_iter().flatten().enumerate() {
            let mut text = without_auto_increment(&definition.create);
            for setting in [
                &definition.sql_mode,
                &definition.character_set_client,
                &definition.collation_connection,
                &definition.time_zone,
            ] {
                text.extend_from_slice(setting.as_bytes());
                text.push(0);
            }
            let order = if definition.kind == "TRIGGER" { order } else { 0 };
            let key = format!(
                "{} {}",
                definition.kind.to_lowercase(),
                qualified(&definition.schema, &definition.name)
            );
            print.insert(key, hash(&text) ^ order as u64);
        }
    }
    // Grants were checked before; where PROCESS is missing this fails loudly rather than see no swap of tables.
    let rows = session.text(dialect.innodb_tables).await?;
    for row in rows {
        let [name, id] = row.as_slice() else { continue };
        let Some((owner, table)) = name.split_once('/') else {
            continue;
        };
        // Full-text indexes and running ALTERs keep tables of their own.
        let internal = table.to_lowercase().starts_with("fts_") || table.starts_with('#');
        let mine = schemas.iter().any(|schema| match file_name(&schema.name) {
            Some(encoded) => owner == encoded,
            None => owner.contains('@'),
        });
        if mine && !internal {
            print.insert(format!("table identity {name}"), id.parse().unwrap_or(0));
        }
    }
    Ok(print)
}

/// First difference between two fingerprints, in words.
pub fn difference(before: &Fingerprint, after: &Fingerprint) -> Option<String> {
    let changed = before
        .iter()
        .find(|(key, hash)| after.get(*key) != Some(hash))
        .map(|(key, _)| key);
    changed
        .or_else(|| after.keys().find(|key| !before.contains_key(*key)))
        .cloned()
}

/// A schema's name as InnoDB writes it: every character but ASCII letters, digits and `_` as `@` and four digits.
/// None for names with letters of other alphabets, which have shorter forms of their own.
/// <https://dev.mysql.com/doc/refman/9.7/en/identifier-mapping.html>
fn file_name(schema: &str) -> Option<String> {
    if !schema.is_ascii() {
        return None;
    }
    let mut out = String::new();
    for c in schema.chars() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
        } else {
            out.push_str(&format!("@{:04x}", u32::from(c)));
        }
    }
    Some(out)
}

fn hash(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

fn without_auto_increment(create: &[u8]) -> Vec<u8> {
    const WORD: &[u8] = b" AUTO_INCREMENT=";
    // Table options stand after the closing parenthesis; within comments line breaks are printed as \n.
    let options = create.windows(3).rposition(|window| window == b"\n) ").unwrap_or(0);
    let Some(at) = create[options..].windows(WORD.len()).position(|window| window == WORD) else {
        return create.to_vec();
    };
    let start = options + at;
    let digits = create[start + WORD.len()..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let mut text = create[..start].to_vec();
    text.extend_from_slice(&create[start + WORD.len() + digits..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_is_no_change_of_definition() {
        let before = b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4";
        let after = b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=99 DEFAULT CHARSET=utf8mb4";
        assert_eq!(without_auto_increment(before), without_auto_increment(after));
        let altered =
            b"CREATE TABLE `t` (\n  `a` int,\n  `b` int\n) ENGINE=InnoDB AUTO_INCREMENT=99 DEFAULT CHARSET=utf8mb4";
        assert_ne!(without_auto_increment(before), without_auto_increment(altered));
    }

    #[test]
    fn a_partitioned_table_s_options_are_found() {
        let create =
            b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB AUTO_INCREMENT=7\n/*!50100 PARTITION BY HASH (`a`) */";
        assert!(!String::from_utf8_lossy(&without_auto_increment(create)).contains("AUTO_INCREMENT=7"));
    }

    #[test]
    fn a_schema_s_name_as_innodb_writes_it() {
        assert_eq!(file_name("a-b").as_deref(), Some("a@002db"));
        assert_eq!(file_name("pet_clinic").as_deref(), Some("pet_clinic"));
        assert_eq!(file_name("민준"), None);
    }
}
