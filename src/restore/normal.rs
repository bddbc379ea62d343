//! Definitions in a form in which what a server has and what a backup holds, after the same repairs, are equal: what servers
//! print in their own way is left out, and what may come in another order is a set. Pure.

use std::collections::BTreeSet;

use super::programs::{self, Item, Kind, Owner, Program};
use super::repair::masked;
use super::schema::{identifier, lines};
use super::statements::ScriptError;
use crate::dump::catalog::{Definition, Schema};
use crate::dump::definition::{write_program, write_view};

/// The column that a server adds by itself to tables without a primary key.
pub const GENERATED_KEY: &str = "my_row_id";

/// A table's definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// In order.
    pub columns: Vec<String>,
    pub rules: BTreeSet<String>,
    /// Engine, character set, comment, partitions.
    pub options: String,
    /// The value that the next row gets; 1 where none is printed.
    pub next_value: u64,
    /// The column that counts.
    pub counter: Option<String>,
}

/// Takes `CREATE TABLE` apart. `lower_case`: names of tables are stored in lower case. `generated_key`: a key that the
/// server added is left out.
pub fn table(create: &[u8], lower_case: bool, generated_key: bool) -> Table {
    let all = lines(create);
    let end = all.iter().rposition(|line| line.starts_with(b")")).unwrap_or(all.len());
    let mut table = Table {
        next_value: 1,
        ..Table::default()
    };
    let own_key = format!("`{GENERATED_KEY}`");
    let mut has_generated_key = false;
    for line in all.get(1..end).unwrap_or_default() {
        let line = line.trim_ascii();
        let line = line.strip_suffix(b",").unwrap_or(line);
        let text = without_implied_charsets(&String::from_utf8_lossy(line));
        if generated_key && (text.starts_with(&own_key) || text == format!("PRIMARY KEY ({own_key})")) {
            has_generated_key = true;
        } else if line.starts_with(b"`") {
            let is_counter = memchr::memmem::find(&masked(line), b" AUTO_INCREMENT").is_some();
            if is_counter {
                table.counter = identifier(line).map(|(name, _)| name);
            }
            table.columns.push(text);
        } else if lower_case && text.contains("FOREIGN KEY") {
            table.rules.insert(text.to_lowercase());
        } else {
            table.rules.insert(text);
        }
    }
    let mut options = all.get(end..).unwrap_or_default().join(&b'\n');
    if let Some(value) = cut_next_value(&mut options)
        && !has_generated_key
    {
        table.next_value = value;
    }
    table.options = String::from_utf8_lossy(&options).into_owned();
    table
}

/// What differs between a table and what it should be, in words. `exact`: both are printed by servers of one version; else
/// only what every version prints alike is compared.
pub fn table_differences(wanted: &Table, found: &Table, exact: bool) -> Vec<String> {
    let mut told = Vec::new();
    if exact {
        let (there, here): (BTreeSet<_>, BTreeSet<_>) =
            (found.columns.iter().collect(), wanted.columns.iter().collect());
        told.extend(
            here.difference(&there)
                .map(|column| format!("lacks the column {column}")),
        );
        told.extend(
            there
                .difference(&here)
                .map(|column| format!("has a column that the backup has not: {column}")),
        );
        if told.is_empty() && wanted.columns != found.columns {
            told.push("has its columns in another order".to_owned());
        }
        if wanted.options != found.options {
            told.push(format!(
                "has the options {:?}, the backup {:?}",
                found.options, wanted.options
            ));
        }
        told.extend(
            found
                .rules
                .difference(&wanted.rules)
                .map(|rule| format!("has a rule that the backup has not: {rule}")),
        );
        told.extend(
            wanted
                .rules
                .difference(&found.rules)
                .map(|rule| format!("lacks: {rule}")),
        );
    } else {
        let names = |table: &Table| -> Vec<String> {
            let name = |column: &String| identifier(column.as_bytes()).map(|(name, _)| name);
            table.columns.iter().filter_map(name).collect()
        };
        if names(wanted) != names(found) {
            told.push(format!(
                "has the columns {}, the backup {}",
                names(found).join(", "),
                names(wanted).join(", ")
            ));
        }
        let lower =
            |table: &Table| -> BTreeSet<String> { table.rules.iter().map(|rule| rule.to_lowercase()).collect() };
        told.extend(
            lower(wanted)
                .difference(&lower(found))
                .map(|rule| format!("lacks: {rule}")),
        );
    }
    if found.next_value < wanted.next_value {
        told.push(format!(
            "counts on from {}, the backup from {}: numbers would be given out again",
            found.next_value, wanted.next_value
        ));
    }
    told
}

/// Cuts ` AUTO_INCREMENT=7` out of a table's options.
fn cut_next_value(options: &mut Vec<u8>) -> Option<u64> {
    const WORD: &[u8] = b" AUTO_INCREMENT=";
    let at = memchr::memmem::find(&masked(options), WORD)?;
    let digits = options[at + WORD.len()..]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let value = String::from_utf8_lossy(&options[at + WORD.len()..at + WORD.len() + digits]).into_owned();
    options.drain(at..at + WORD.len() + digits);
    value.parse().ok()
}

/// MySQL remembers whether a column's character set was written out, and prints `CHARACTER SET x COLLATE x_y` for
/// `COLLATE x_y` once a table was made from its own definition. The collation says both.
fn without_implied_charsets(line: &str) -> String {
    const CLAUSE: &str = " CHARACTER SET ";
    let mut parts = line.split(CLAUSE);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(' ') {
            Some((_, rest)) if rest.starts_with("COLLATE ") => {
                plain.push(' ');
                plain.push_str(rest);
            }
            _ => {
                plain.push_str(CLAUSE);
                plain.push_str(part);
            }
        }
    }
    plain
}

/// A routine, view, trigger or event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub schema: String,
    pub name: String,
    pub kind: Kind,
    pub definer: Option<String>,
    pub is_enabled_event: bool,
    text: Vec<u8>,
    is_invoker: bool,
    /// The session that it was made in: `sql_mode`, character sets, time zone of an event, collation of the schema.
    settings: [Vec<u8>; 4],
    pub is_passing_event: bool,
}

/// What a backup's later members make, with owners as the restore gives them. `restorer` is who owns what nobody else does.
pub fn wanted<'a>(
    members: impl Iterator<Item = (&'a str, &'a [Item])>,
    owner: impl Fn(&str) -> Owner,
    restorer: &str,
    lower_case: bool,
) -> Vec<Stored> {
    let mut found = Vec::new();
    for (schema, items) in members {
        let mut walk = Walk::new(schema);
        for item in items {
            if let Some(program) = walk.step(item) {
                let owner = program.definer.as_deref().map_or(Owner::Restorer, &owner);
                let definer = match &owner {
                    Owner::Kept => program.definer.clone(),
                    Owner::Mapped(account) => Some(account.clone()),
                    Owner::Restorer => Some(restorer.to_owned()),
                };
                let mut stored = walk.stored(program, &owner, lower_case);
                stored.definer = definer;
                found.push(stored);
            }
        }
    }
    found
}

/// What a server has in a schema, seen through the dump's own way of writing it.
///
/// # Errors
/// [`ScriptError`]: what nobody understands is not called equal.
pub fn there(schema: &Schema, lower_case: bool) -> Result<Vec<Stored>, ScriptError> {
    let mut found = Vec::new();
    let programs = [&schema.routines, &schema.triggers, &schema.events]
        .into_iter()
        .flatten();
    let usable = schema.views.iter().filter(|view| view.broken.is_none());
    for definition in programs.chain(usable) {
        let items = items_of(definition, &schema.collation)?;
        let mut walk = Walk::new(&schema.name);
        for item in &items {
            if let Some(program) = walk.step(item) {
                let mut stored = walk.stored(program, &Owner::Kept, lower_case);
                stored.is_enabled_event = program.is_enabled_event();
                found.push(stored);
            }
        }
    }
    Ok(found)
}

fn items_of(definition: &Definition, collation: &str) -> Result<Vec<Item>, ScriptError> {
    let mut text = Vec::new();
    if definition.kind == "VIEW" {
        write_view(&mut text, definition);
    } else {
        write_program(&mut text, definition, collation);
    }
    programs::items(&text)
}

/// Settings that are in force as a member's statements go by.
struct Walk {
    schema: String,
    settings: [Vec<u8>; 4],
}

impl Walk {
    fn new(schema: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            settings: Default::default(),
        }
    }

    fn step<'a>(&mut self, item: &'a Item) -> Option<&'a Program> {
        let statement = match item {
            Item::Create(program) => return Some(program),
            Item::Setting(statement) => statement,
        };
        if let Some((name, _)) = statement.strip_prefix(b"USE ").and_then(identifier) {
            self.schema = name;
        } else if statement.starts_with(b"SET sql_mode") {
            self.settings[0].clone_from(statement);
        } else if statement.starts_with(b"SET character_set_client") {
            self.settings[1].clone_from(statement);
        } else if statement.starts_with(b"SET time_zone") {
            self.settings[2].clone_from(statement);
        } else if statement.starts_with(b"ALTER DATABASE ") {
            // Before what needs it, and again after that.
            self.settings[3] = match memchr::memmem::rfind(statement, b" COLLATE ") {
                Some(at) if self.settings[3].is_empty() => statement[at..].to_vec(),
                _ => Vec::new(),
            };
        }
        None
    }

    fn stored(&self, program: &Program, owner: &Owner, lower_case: bool) -> Stored {
        let (schema, name) = program.place(&self.schema);
        let (mut text, is_invoker) = program.without_definer(owner);
        if lower_case && program.kind == Kind::View {
            text = without_own_aliases(&String::from_utf8_lossy(&text).to_lowercase()).into_bytes();
        }
        let mut settings = self.settings.clone();
        match program.kind {
            Kind::Event => {}
            // A view has no sql_mode of its own, and nothing but an event a time zone.
            Kind::View => {
                settings[0].clear();
                settings[2].clear();
            }
            Kind::Function | Kind::Procedure | Kind::Package | Kind::PackageBody | Kind::Trigger => settings[2].clear(),
        }
        Stored {
            schema,
            name,
            kind: program.kind,
            definer: program.definer.clone(),
            is_enabled_event: false,
            text,
            is_invoker,
            settings,
            is_passing_event: program.is_passing_event(),
        }
    }
}

/// A table whose alias is its own name, but for the case of its letters, has none where names know no case.
fn without_own_aliases(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("` `") {
        let (before, after) = (&rest[..at], &rest[at + 3..]);
        let name = before.rsplit('`').next().unwrap_or_default();
        plain.push_str(before);
        plain.push('`');
        match after.strip_prefix(name).and_then(|after| after.strip_prefix('`')) {
            Some(after) if before.ends_with(&format!(".`{name}")) => rest = after,
            Some(_) | None => rest = &rest[at + 1..],
        }
    }
    plain + rest
}

/// What differs between an object and what it should be, in words; see [`table_differences`].
pub fn stored_differences(wanted: &Stored, found: &Stored, exact: bool) -> Vec<String> {
    let mut told = Vec::new();
    if wanted.definer.is_some() && wanted.definer != found.definer {
        let named = |definer: &Option<String>| definer.clone().unwrap_or_else(|| "nobody".to_owned());
        told.push(format!(
            "belongs to {} instead of {}",
            named(&found.definer),
            named(&wanted.definer)
        ));
    }
    if found.is_enabled_event {
        told.push("is enabled, and events arrive disabled".to_owned());
    }
    if !exact {
        return told;
    }
    if wanted.is_invoker != found.is_invoker {
        let whose = |is_invoker| if is_invoker { "its caller's" } else { "its definer's" };
        told.push(format!(
            "runs with {} rights instead of {}",
            whose(found.is_invoker),
            whose(wanted.is_invoker)
        ));
    }
    if wanted.text != found.text {
        told.push(format!(
            "has another text{}",
            first_difference(&wanted.text, &found.text)
        ));
    }
    if wanted.settings != found.settings {
        told.push("was made under another sql_mode, character set, collation or time zone".to_owned());
    }
    told
}

/// Where two texts part, shortly.
fn first_difference(wanted: &[u8], found: &[u8]) -> String {
    let at = wanted.iter().zip(found).take_while(|(a, b)| a == b).count();
    let around = |text: &[u8]| {
        let from = at.saturating_sub(10).min(text.len());
        let to = (at + 30).min(text.len());
        String::from_utf8_lossy(&text[from..to]).into_owned()
    };
    format!(": …{:?} instead of …{:?}", around(found), around(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a` varchar(9) CHARACTER SET utf8mb4 COLLATE \
        utf8mb4_bin DEFAULT ' AUTO_INCREMENT=3',\n  PRIMARY KEY (`id`),\n  KEY `k` (`a`),\n  CONSTRAINT `f` FOREIGN KEY (`a`) \
        REFERENCES `P` (`a`)\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 COMMENT=' AUTO_INCREMENT=9'";

    #[test]
    fn a_table_is_equal_to_itself_however_its_keys_are_ordered() {
        let wanted = table(TABLE.as_bytes(), false, false);
        assert_eq!((wanted.next_value, wanted.counter.as_deref()), (7, Some("id")));
        assert_eq!(
            wanted.options,
            ") ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT=' AUTO_INCREMENT=9'"
        );
        let other = TABLE
            .replace(
                "  PRIMARY KEY (`id`),\n  KEY `k` (`a`),",
                "  KEY `k` (`a`),\n  PRIMARY KEY (`id`),",
            )
            .replace(" CHARACTER SET utf8mb4 COLLATE", " COLLATE");
        let found = table(other.as_bytes(), false, false);
        assert_eq!(table_differences(&wanted, &found, true), [] as [String; 0]);
        assert_eq!(table_differences(&wanted, &found, false), [] as [String; 0]);
    }

    #[test]
    fn everything_that_was_altered_is_seen() {
        let wanted = table(TABLE.as_bytes(), false, false);
        for (from, to, word) in [
            ("varchar(9)", "varchar(8)", "column"),
            (" DEFAULT ' AUTO", " NOT NULL DEFAULT ' AUTO", "column"),
            ("  KEY `k` (`a`),\n", "", "lacks: KEY `k`"),
            ("KEY `k` (`a`)", "KEY `k` (`a`,`id`)", "rule"),
            ("REFERENCES `P`", "REFERENCES `Q`", "FOREIGN KEY"),
            ("AUTO_INCREMENT=7", "AUTO_INCREMENT=6", "given out again"),
            (") ENGINE=InnoDB", ") ENGINE=MyISAM", "options"),
            ("COMMENT=' AUTO", "COMMENT='! AUTO", "options"),
        ] {
            let found = table(TABLE.replace(from, to).as_bytes(), false, false);
            let told = table_differences(&wanted, &found, true);
            assert!(told.iter().any(|told| told.contains(word)), "{from}: {told:?}");
        }
    }

    #[test]
    fn a_key_that_the_server_added_is_nobody_s() {
        let wanted = table(b"CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB", false, true);
        let found = table(
            b"CREATE TABLE `t` (\n  `my_row_id` bigint unsigned NOT NULL AUTO_INCREMENT /*!80023 INVISIBLE */,\n  `a` int,\n  \
              PRIMARY KEY (`my_row_id`)\n) ENGINE=InnoDB AUTO_INCREMENT=9",
            false,
            true,
        );
        assert_eq!(table_differences(&wanted, &found, true), [] as [String; 0]);
    }

    #[test]
    fn an_alias_that_is_the_table_s_own_name_is_none() {
        for (text, plain) in [
            ("from `i`.`tables` `tables` where", "from `i`.`tables` where"),
            ("from `i`.`tables` `t` where", "from `i`.`tables` `t` where"),
            ("from (`a`.`b` `b` join `a`.`c` `b`)", "from (`a`.`b` join `a`.`c` `b`)"),
            ("select `b` `b`", "select `b` `b`"),
        ] {
            assert_eq!(without_own_aliases(text), plain);
        }
    }

    fn one(text: &str) -> Vec<Item> {
        programs::items(text.as_bytes()).expect("complete")
    }

    const FUNCTION: &str = "USE `s`;\nSET sql_mode = 'ANSI';\nDELIMITER ;;\nSET character_set_client = utf8mb4, collation_connection = \
        utf8mb4_bin;;\nCREATE\n/*!50013 DEFINER=`app`@`%` */\nFUNCTION `f`(x INT) RETURNS int\n    DETERMINISTIC\nRETURN x;;\n";

    fn stored(text: &str, owner: &Owner) -> Stored {
        let items = one(text);
        let owner = owner.clone();
        wanted(
            [("s", items.as_slice())].into_iter(),
            move |_| owner.clone(),
            "admin@%",
            false,
        )
        .remove(0)
    }

    #[test]
    fn an_object_is_what_its_owner_its_text_and_its_session_make_it() {
        let kept = stored(FUNCTION, &Owner::Kept);
        assert_eq!(
            stored_differences(&kept, &stored(FUNCTION, &Owner::Kept), true),
            [] as [String; 0]
        );
        for (from, to, word) in [
            ("RETURN x", "RETURN x + 1", "another text"),
            ("`app`@`%`", "`eve`@`%`", "belongs to eve@% instead of app@%"),
            ("'ANSI'", "''", "sql_mode"),
            ("utf8mb4_bin", "utf8mb4_general_ci", "character set"),
            (
                "    DETERMINISTIC\n",
                "    DETERMINISTIC\n    SQL SECURITY INVOKER\n",
                "its caller's rights",
            ),
        ] {
            let told = stored_differences(&kept, &stored(&FUNCTION.replace(from, to), &Owner::Kept), true);
            assert!(told.len() == 1 && told[0].contains(word), "{from}: {told:?}");
        }
        // As the server prints what the restore made of it.
        let invoker = FUNCTION
            .replace("    DETERMINISTIC\n", "    DETERMINISTIC\n    SQL SECURITY INVOKER\n")
            .replace("`app`@`%`", "`admin`@`%`");
        let lost = stored(FUNCTION, &Owner::Restorer);
        assert_eq!(
            stored_differences(&lost, &stored(&invoker, &Owner::Kept), true),
            [] as [String; 0]
        );
        let mapped = stored(FUNCTION, &Owner::Mapped("admin@%".into()));
        let there = stored(&FUNCTION.replace("`app`@`%`", "`admin`@`%`"), &Owner::Kept);
        assert_eq!(stored_differences(&mapped, &there, true), [] as [String; 0]);
    }
}
