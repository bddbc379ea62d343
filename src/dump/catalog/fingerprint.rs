//! Whether anybody changed a definition, or swapped or rebuilt a table, while it was dumped.

use std::collections::BTreeMap;

use super::Schema;
use crate::dump::literal::qualified;
use crate::mysql::dialect::Dialect;
use crate::mysql::{DbError, Session};

/// What must stay the same while it is dumped: each definition, each table's identity, and the triggers' order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    members: BTreeMap<String, u64>,
    /// In the order in which they fire; no definition shows it.
    triggers: Vec<String>,
}

/// Sums up definitions and table identities. AUTO_INCREMENT is left out: it moves with every insert.
pub async fn fingerprint(session: &mut Session, dialect: &Dialect, schemas: &[Schema]) -> Result<Fingerprint, DbError> {
    let mut print = Fingerprint::default();
    for schema in schemas {
        print
            .members
            .insert(format!("schema {}", schema.name), hash(&schema.create));
        let all = [
            &schema.sequences,
            &schema.table_definitions,
            &schema.views,
            &schema.routines,
            &schema.triggers,
            &schema.events,
        ];
        for definition in all.into_iter().flatten() {
            let key = format!(
                "{} {}",
                definition.kind.to_lowercase(),
                qualified(&definition.schema, &definition.name)
            );
            let (mut text, partitions) = split_partitions(&without_auto_increment(&definition.create));
            for partition in partitions {
                print
                    .members
                    .insert(format!("{key}, partition {}", String::from_utf8_lossy(&partition)), 0);
            }
            for setting in [
                &definition.sql_mode,
                &definition.character_set_client,
                &definition.collation_connection,
                &definition.time_zone,
            ] {
                text.extend_from_slice(setting.as_bytes());
                text.push(0);
            }
            if definition.kind == "TRIGGER" {
                print.triggers.push(key.clone());
            }
            print.members.insert(key, hash(&text));
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
            print
                .members
                .insert(format!("table identity {name}"), id.parse().unwrap_or(0));
        }
    }
    Ok(print)
}

impl Fingerprint {
    /// First difference, in words: what was changed, dropped or created from `self` to `now`.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let created = || now.members.keys().find(|key| !self.members.contains_key(*key)).cloned();
        self.loss(now).or_else(created)
    }

    /// The first of what stood at `self` that was changed or dropped since, in words. What was created since does not
    /// count: a dump that holds none of it is still whole.
    pub fn loss(&self, now: &Self) -> Option<String> {
        let lost = self
            .members
            .iter()
            .find(|(key, hash)| now.members.get(*key) != Some(hash));
        if let Some((key, _)) = lost {
            return Some(key.clone());
        }
        let order = now.triggers.iter().filter(|key| self.members.contains_key(*key));
        order
            .ne(&self.triggers)
            .then(|| "the order in which triggers fire".to_owned())
    }
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

/// A table's definition without its partitions, and those: so that a new one beside them changes none. Readers name
/// the old ones (see `partitions`), where a snapshot finds what it always found unless they were rebuilt.
fn split_partitions(create: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let begins = |line: &[u8]| line.starts_with(b"(PARTITION ") || line.starts_with(b" PARTITION ");
    // Within comments and defaults line breaks are printed as \n; subpartitions stand on lines of their own.
    let list = create.windows(12).rposition(|window| window == b"\n(PARTITION ");
    let (Some(at), false) = (list, contains(create, b"SUBPARTITION")) else {
        return (create.to_vec(), Vec::new());
    };
    let mut rest = create[..at].to_vec();
    let mut partitions = Vec::new();
    for line in create[at + 1..].split(|&b| b == b'\n') {
        let name = line.get(1..).unwrap_or_default();
        let name = name.strip_suffix(b" */").unwrap_or(name);
        let name = name.strip_suffix(b",").or_else(|| name.strip_suffix(b")"));
        match name.filter(|_| begins(line)) {
            Some(partition) => partitions.push(partition.to_vec()),
            None => rest.extend_from_slice(line),
        }
    }
    (rest, partitions)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
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

    fn print(members: &[(&str, u64)], triggers: &[&str]) -> Fingerprint {
        Fingerprint {
            members: members.iter().map(|(key, hash)| ((*key).to_owned(), *hash)).collect(),
            triggers: triggers.iter().map(|&key| key.to_owned()).collect(),
        }
    }

    #[test]
    fn what_is_created_is_a_difference_but_no_loss() {
        let before = print(&[("a", 1), ("b", 2)], &["a", "b"]);
        let more = print(&[("a", 1), ("b", 2), ("c", 3)], &["c", "a", "b"]);
        assert_eq!(before.difference(&before), None);
        assert_eq!(
            (before.loss(&more), before.difference(&more)),
            (None, Some("c".to_owned()))
        );
        for (now, word) in [
            (print(&[("a", 1), ("c", 3)], &["a"]), "b"),
            (print(&[("a", 7), ("b", 2)], &["a", "b"]), "a"),
            (print(&[("a", 1), ("b", 2)], &["b", "a"]), "order"),
        ] {
            let loss = before.loss(&now).expect("a loss");
            assert!(loss.contains(word), "{loss}");
            assert_eq!(before.difference(&now), Some(loss));
        }
    }

    #[test]
    fn a_new_partition_changes_none_of_the_old_ones() {
        for (end, quote) in [(" */", ""), ("", "`")] {
            let create = |list: &str| {
                let list = list.replace('\'', quote);
                format!(
                    "CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB\n/*!50100 PARTITION BY RANGE (`a`)\n({list}){end}"
                )
            };
            let one = "PARTITION 'p0' VALUES LESS THAN (10) ENGINE = InnoDB";
            let two = format!("{one},\n PARTITION 'p1' VALUES LESS THAN (20) ENGINE = InnoDB");
            let (rest, old) = split_partitions(create(one).as_bytes());
            let (same, new) = split_partitions(create(&two).as_bytes());
            assert_eq!((rest, old.len(), new.len()), (same, 1, 2));
            assert_eq!(old[0], new[0]);
            let (_, moved) = split_partitions(create(&two.replace("(10)", "(11)")).as_bytes());
            assert!(!moved.contains(&old[0]));
        }
        let whole = b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB";
        assert_eq!(split_partitions(whole), (whole.to_vec(), Vec::new()));
    }
}
