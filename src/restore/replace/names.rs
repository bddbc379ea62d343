//! The names of things while a restore is to replace what is there: loaded beside it, kept beside it. Definitions and rows
//! are rewritten for the schema that they are loaded into, or refused: a row sent to the real name would be lost among the
//! old ones. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::dump::literal::identifier;
use crate::restore::plan::Plan;
use crate::restore::repair::masked;
use crate::restore::schema;
use crate::restore::statements::ScriptError;

/// Begins the name of a schema that rows are loaded into.
const NEW: &str = "planb_new_";
/// Begins the name of a schema that keeps what was replaced.
const OLD: &str = "planb_old_";
/// What a schema's name may have in letters, so that one with a prefix is a name yet.
pub const LONGEST: usize = 64 - NEW.len();

/// Where a schema is loaded that will replace `real`.
pub fn new(real: &str) -> String {
    format!("{NEW}{real}")
}

/// Where the replaced tables of `real` are kept.
pub fn old(real: &str) -> String {
    format!("{OLD}{real}")
}

/// The schema that the one called `new` will become; none where that is its name already.
pub fn real(new: &str) -> Option<&str> {
    new.strip_prefix(NEW)
}

/// Where the backup's schemas are made: by default under their own names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Naming {
    /// As the backup has it, and as it is called while it is loaded.
    aside: BTreeMap<String, String>,
}

impl Naming {
    /// Beside what is there. `stored` is the name as the target stores it.
    pub fn aside<'a>(schemas: impl Iterator<Item = &'a str>, stored: impl Fn(&str) -> String) -> Self {
        let aside = schemas.map(|name| (name.to_owned(), new(&stored(name)))).collect();
        Self { aside }
    }

    pub fn is_aside(&self) -> bool {
        !self.aside.is_empty()
    }

    /// What the backup's `schema` is called while it is loaded.
    pub fn loading<'a>(&'a self, schema: &'a str) -> &'a str {
        self.aside.get(schema).map_or(schema, String::as_str)
    }

    /// Rewrites all that a plan makes before the swap.
    ///
    /// # Errors
    /// In words, what could not be rewritten.
    pub fn apply(&self, plan: &mut Plan) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        for database in &mut plan.databases {
            if let Some(at) = database.create.iter().position(|&b| b == b'`')
                && let Some((name, rest)) = schema::identifier(&database.create[at..])
            {
                let mut create = database.create[..at].to_vec();
                create.extend_from_slice(identifier(self.loading(&name)).as_bytes());
                create.extend_from_slice(rest);
                database.create = create;
                self.loading(&name).clone_into(&mut database.name);
            }
        }
        for (of, statement) in &mut plan.sequences {
            self.loading(of).to_owned().clone_into(of);
            *statement = self.references(statement);
        }
        for table in &mut plan.tables {
            let name = format!("{}.{}", table.schema, table.name);
            if unions_elsewhere(&table.deferred.create) {
                problems.push(format!(
                    "{name}: a MERGE table over tables of another schema cannot be replaced; drop it at the source, or restore \
                     to an empty server"
                ));
            }
            if !is_unqualified(&table.deferred.create) {
                problems.push(format!(
                    "{name}: this planb does not understand its definition; restore with a newer one"
                ));
            }
            self.loading(&table.schema).to_owned().clone_into(&mut table.schema);
            table.deferred.create = self.references(&table.deferred.create);
            for key in &mut table.deferred.foreign_keys {
                *key = self.references(key);
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// A definition whose foreign keys and sequences are those of the schemas being loaded.
    pub fn references(&self, sql: &[u8]) -> Vec<u8> {
        swap_schemas(sql, |schema| self.aside.get(schema).cloned())
    }

    /// A data member's statement, for the schema being loaded.
    ///
    /// # Errors
    /// [`ScriptError::Strange`] where it does not begin as every one of ours does.
    pub fn insert<'a>(&self, statement: &'a [u8], of: &str) -> Result<Cow<'a, [u8]>, ScriptError> {
        let Some(loading) = self.aside.get(of) else {
            return if self.is_aside() {
                Err(strange(statement))
            } else {
                Ok(Cow::Borrowed(statement))
            };
        };
        let prefix = format!("INSERT INTO {}.", identifier(of));
        let rest = statement
            .strip_prefix(prefix.as_bytes())
            .ok_or_else(|| strange(statement))?;
        let mut changed = Vec::with_capacity(statement.len() + NEW.len());
        changed.extend_from_slice(format!("INSERT INTO {}.", identifier(loading)).as_bytes());
        changed.extend_from_slice(rest);
        Ok(Cow::Owned(changed))
    }
}

/// A column's default that takes from a sequence of a schema that was loaded aside, as it has to be once that has its real
/// name; none where there is nothing to change.
pub fn settled_default(default: &[u8]) -> Option<Vec<u8>> {
    let settled = swap_schemas(default, |schema| real(schema).map(str::to_owned));
    (settled != default).then_some(settled)
}

/// Begins what never is more than a statement's first words.
fn strange(statement: &[u8]) -> ScriptError {
    let beginning = &statement[..statement.len().min(60)];
    let beginning = beginning.split(|&b| b == b'\n').next().unwrap_or_default();
    ScriptError::Strange(String::from_utf8_lossy(beginning).into_owned())
}

/// Gives schemas other names where a definition names a table (`REFERENCES`) or a sequence (`nextval(` and its like).
fn swap_schemas(sql: &[u8], name: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let masked = masked(sql);
    let mut out = Vec::with_capacity(sql.len());
    let mut copied = 0;
    let mut at = 0;
    while at < sql.len() {
        // Outside quotes the mask is the text, and an opening quote is a blank of it.
        let opens = sql[at] == b'`' && masked[at] == b' ' && names_a_table(&masked[..at]);
        if opens
            && let Some((schema, rest)) = schema::identifier(&sql[at..])
            && rest.first() == Some(&b'.')
            && let Some(other) = name(&schema)
        {
            out.extend_from_slice(&sql[copied..at]);
            out.extend_from_slice(identifier(&other).as_bytes());
            copied = sql.len() - rest.len();
            at = copied;
        } else {
            at += 1;
        }
    }
    out.extend_from_slice(&sql[copied..]);
    out
}

/// Whether what follows is a table's or a sequence's name.
fn names_a_table(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let ends =
        |word: &[u8]| before.len() >= word.len() && before[before.len() - word.len()..].eq_ignore_ascii_case(word);
    ends(b" REFERENCES") || ends(b"NEXTVAL(") || ends(b"LASTVAL(") || ends(b"SETVAL(")
}

/// Whether the tables under a MERGE table are named with their schema.
fn unions_elsewhere(create: &[u8]) -> bool {
    let masked = masked(create);
    let Some(at) = memchr::memmem::rfind(&masked, b" UNION=(") else {
        return false;
    };
    let end = masked[at..]
        .iter()
        .position(|&b| b == b')')
        .map_or(masked.len(), |end| at + end);
    masked[at..end].contains(&b'.') && create[at..end].windows(3).any(|window| window == b"`.`")
}

/// Whether a table is made in the schema in use.
fn is_unqualified(create: &[u8]) -> bool {
    create
        .strip_prefix(b"CREATE TABLE ")
        .and_then(schema::identifier)
        .is_some_and(|(_, rest)| rest.first() != Some(&b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        Naming::aside(["bank", "sh`op"].into_iter(), str::to_owned)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn what_a_definition_names_is_loaded_beside_it() {
        let create = b"CREATE TABLE `t` (\n  `a` int DEFAULT nextval(`bank`.`s`) COMMENT ' REFERENCES `bank`.`x`',\n  `bank` int,\n  \
            CONSTRAINT ` REFERENCES ` FOREIGN KEY (`a`) REFERENCES `sh``op`.`bank` (`id`),\n  \
            CONSTRAINT `y` FOREIGN KEY (`a`) REFERENCES `bank` (`id`),\n  \
            CONSTRAINT `z` FOREIGN KEY (`a`) REFERENCES `elsewhere`.`p` (`id`)\n) ENGINE=InnoDB";
        assert_eq!(
            text(&naming().references(create)),
            "CREATE TABLE `t` (\n  `a` int DEFAULT nextval(`planb_new_bank`.`s`) COMMENT ' REFERENCES `bank`.`x`',\n  `bank` int,\n  \
             CONSTRAINT ` REFERENCES ` FOREIGN KEY (`a`) REFERENCES `planb_new_sh``op`.`bank` (`id`),\n  \
             CONSTRAINT `y` FOREIGN KEY (`a`) REFERENCES `bank` (`id`),\n  \
             CONSTRAINT `z` FOREIGN KEY (`a`) REFERENCES `elsewhere`.`p` (`id`)\n) ENGINE=InnoDB"
        );
        assert_eq!(
            text(&naming().references(b"DO SETVAL(`bank`.`s`, 5, 0, 0)")),
            "DO SETVAL(`planb_new_bank`.`s`, 5, 0, 0)"
        );
        assert_eq!(
            settled_default(b"nextval(`planb_new_bank`.`s`)").map(|text| super::tests::text(&text)),
            Some("nextval(`bank`.`s`)".to_owned())
        );
        assert_eq!(settled_default(b"'nextval(`planb_new_bank`.`s`)'"), None);
    }

    #[test]
    fn a_row_goes_beside_what_is_there_or_nowhere() {
        let statement = b"INSERT INTO `bank`.`t` (`a`) VALUES\n('INSERT INTO `bank`.')";
        let changed = naming().insert(statement, "bank").expect("ours");
        assert_eq!(
            text(&changed),
            "INSERT INTO `planb_new_bank`.`t` (`a`) VALUES\n('INSERT INTO `bank`.')"
        );
        for (strange, of) in [
            (&b"INSERT INTO `Bank`.`t` VALUES\n(1)"[..], "bank"),
            (b"REPLACE INTO `bank`.`t` VALUES\n(1)", "bank"),
            (b"INSERT INTO bank.t VALUES\n(1)", "bank"),
            (b"INSERT INTO `other`.`t` VALUES\n(1)", "other"),
        ] {
            assert!(naming().insert(strange, of).is_err(), "{}", text(strange));
        }
        let plain = Naming::default();
        assert_eq!(plain.insert(statement, "bank").expect("as it is").as_ref(), statement);
        assert_eq!(plain.loading("bank"), "bank");
    }

    #[test]
    fn what_cannot_be_rewritten_is_refused() {
        assert!(unions_elsewhere(
            b"CREATE TABLE `m` (\n  `a` int\n) ENGINE=MRG_MyISAM UNION=(`s`.`a`,`b`)"
        ));
        assert!(!unions_elsewhere(
            b"CREATE TABLE `m` (\n  `a` int\n) ENGINE=MRG_MyISAM UNION=(`a`,`b.c`) COMMENT='`.`'"
        ));
        assert!(is_unqualified(b"CREATE TABLE `a.b` (\n"));
        assert!(!is_unqualified(b"CREATE TABLE `a`.`b` (\n"));
    }

    #[test]
    fn names_come_and_go() {
        assert_eq!(real(&new("bank")), Some("bank"));
        assert_eq!(real("bank"), None);
        assert_eq!(old("bank"), "planb_old_bank");
        assert_eq!(new(&"x".repeat(LONGEST)).len(), 64);
    }
}
