//! A full picture of a server's schemas in a form that can be compared: two servers of the same flavour
//! give the same census exactly if they hold the same definitions and the same data.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::server::{Endpoint, Flavor};

/// Takes the census. Keys name what is described (`table shop.orders: rows`), values describe it.
///
/// The server itself computes the checksums, from expressions that lose nothing: bytes of strings, text
/// of exact numbers and of dates in UTC, the DOUBLE that a FLOAT is, positions of ENUM and SET.
pub fn census(server: &Endpoint, schemas: &[&str]) -> BTreeMap<String, String> {
    let mut questions = Questions::default();
    for schema in schemas {
        ask_about_schema(server, schema, &mut questions);
    }
    questions.answers(server)
}

/// Panics with a readable comparison unless both are equal.
pub fn assert_same(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) {
    let report = differences(a, b);
    assert!(report.is_empty(), "the two differ:\n{report}");
}

/// One paragraph for each key that differs, empty if none does.
pub fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> String {
    let mut report = String::new();
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        match (a.get(key), b.get(key)) {
            (Some(left), Some(right)) if left == right => {}
            (Some(left), Some(right)) => {
                let _ = writeln!(report, "* {key}");
                let (left, right): (Vec<_>, Vec<_>) = (left.lines().collect(), right.lines().collect());
                for line in left.iter().filter(|line| !right.contains(line)) {
                    let _ = writeln!(report, "    first:  {line}");
                }
                for line in right.iter().filter(|line| !left.contains(line)) {
                    let _ = writeln!(report, "    second: {line}");
                }
                if !left.iter().any(|line| !right.contains(line)) && !right.iter().any(|line| !left.contains(line)) {
                    let _ = writeln!(report, "    the same lines in another order or number");
                }
            }
            (Some(left), None) => {
                let _ = writeln!(report, "* {key}: only in the first\n    {left}");
            }
            (None, right) => {
                let _ = writeln!(
                    report,
                    "* {key}: only in the second\n    {}",
                    right.map_or("", String::as_str)
                );
            }
        }
    }
    report
}

/// Many queries, each with the key of its answer, sent in one go: a client takes longer to start than
/// most of them take to run.
#[derive(Default)]
struct Questions {
    sql: String,
    keys: Vec<String>,
}

const MARK: &str = "@@census@@";

impl Questions {
    fn ask(&mut self, key: String, query: &str) {
        let _ = writeln!(self.sql, "SELECT '{MARK}', {};\n{query};", self.keys.len());
        self.keys.push(key);
    }

    fn answers(self, server: &Endpoint) -> BTreeMap<String, String> {
        // UTC for TIMESTAMP columns; an empty sql_mode, so that quoting and the reading of dates is known.
        let preamble = "SET time_zone = '+00:00', sql_mode = '';\n";
        let (rows, errors) = server.rows_and_errors(&format!("{preamble}{}", self.sql));
        let mut census: BTreeMap<String, String> = self.keys.iter().map(|key| (key.clone(), String::new())).collect();
        let mut current = None;
        for mut row in rows {
            if row.first().is_some_and(|field| field == MARK) {
                current = row
                    .get(1)
                    .and_then(|n| n.parse::<usize>().ok())
                    .and_then(|n| self.keys.get(n));
                continue;
            }
            let key = current.unwrap_or_else(|| panic!("an answer without a question: {row:?}"));
            if key.ends_with(": checksum") || key.ends_with(": history") {
                // A value longer than max_allowed_packet becomes NULL with no more than a warning.
                assert_eq!(
                    row.get(1).map(String::as_str),
                    Some("0"),
                    "{key}: rows without a hash: {row:?}"
                );
            }
            if key.starts_with("trigger ") {
                row.pop(); // when it was made
            }
            let answer = census.entry(key.clone()).or_default();
            let line = row.join(" | ");
            answer.push_str(&if key.starts_with("table ") {
                without_implied_charsets(&line)
            } else {
                line
            });
            answer.push('\n');
        }
        if !errors.is_empty() {
            // "ERROR 1356 (HY000) at line 812: …": the line says nothing about the schema.
            let lines: Vec<String> = errors
                .lines()
                .map(|line| match (line.find(" at line "), line.find(": ")) {
                    (Some(start), Some(end)) if start < end => {
                        format!("{}{}", &line[..start], &line[end..])
                    }
                    _ => line.to_owned(),
                })
                .collect();
            census.insert("errors while asking".to_owned(), lines.join("\n"));
        }
        census
    }
}

/// MySQL remembers whether a column's charset was written out, and shows `CHARACTER SET x COLLATE x_y` for
/// `COLLATE x_y` once a table has been made from its own SHOW CREATE. The collation says both.
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

fn ask_about_schema(server: &Endpoint, schema: &str, questions: &mut Questions) {
    let literal = text(schema);
    let own = ident(schema);
    let encryption = match server.flavor {
        Flavor::MySql => "default_encryption",
        Flavor::MariaDb => "schema_comment",
    };
    questions.ask(
        format!("schema {schema}"),
        &format!(
            "SELECT default_character_set_name, default_collation_name, {encryption}
             FROM information_schema.schemata WHERE schema_name = {literal}"
        ),
    );
    for row in server.rows(&format!(
        "SELECT table_name, table_type FROM information_schema.tables
         WHERE table_schema = {literal} ORDER BY table_name"
    )) {
        let [name, kind] = row.as_slice() else {
            panic!("two columns were asked for: {row:?}")
        };
        let full = format!("{own}.{}", ident(name));
        match kind.as_str() {
            "VIEW" => questions.ask(format!("view {schema}.{name}"), &format!("SHOW CREATE VIEW {full}")),
            "SEQUENCE" => {
                questions.ask(
                    format!("sequence {schema}.{name}"),
                    &format!("SHOW CREATE SEQUENCE {full}"),
                );
                questions.ask(
                    format!("sequence {schema}.{name}: state"),
                    &format!("SELECT * FROM {full}"),
                );
            }
            "BASE TABLE" | "SYSTEM VERSIONED" => {
                questions.ask(format!("table {schema}.{name}"), &format!("SHOW CREATE TABLE {full}"));
                ask_about_rows(server, schema, name, kind == "SYSTEM VERSIONED", questions);
            }
            other => panic!("{full} is of a kind the census does not know: {other}"),
        }
    }
    let srid = match server.flavor {
        Flavor::MySql => ", srs_id",
        Flavor::MariaDb => "",
    };
    // Not of views: theirs are cached, and go when a definer is found missing. The view's text says it all.
    questions.ask(
        format!("columns {schema}"),
        &format!(
            "SELECT table_name, ordinal_position, column_name, column_default, is_nullable, column_type,
                    character_set_name, collation_name, column_key, extra, column_comment,
                    generation_expression{srid}
             FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name)
             WHERE table_schema = {literal} AND table_type <> 'VIEW'
             ORDER BY table_name, ordinal_position"
        ),
    );
    for row in server.rows(&format!(
        "SELECT routine_type, routine_name FROM information_schema.routines
         WHERE routine_schema = {literal} ORDER BY 1, 2"
    )) {
        let [kind, name] = row.as_slice() else {
            panic!("two columns were asked for: {row:?}")
        };
        questions.ask(
            format!("{} {schema}.{name}", kind.to_lowercase()),
            &format!("SHOW CREATE {kind} {own}.{}", ident(name)),
        );
    }
    for row in server.rows(&format!(
        "SELECT event_name FROM information_schema.events WHERE event_schema = {literal} ORDER BY 1"
    )) {
        questions.ask(
            format!("event {schema}.{}", row[0]),
            &format!("SHOW CREATE EVENT {own}.{}", ident(&row[0])),
        );
    }
    // The order they fire in is in one place; their text, with every character intact, in another.
    let triggers = format!(
        "SELECT event_object_table, action_timing, event_manipulation, action_order, trigger_name, definer
         FROM information_schema.triggers WHERE trigger_schema = {literal}
         ORDER BY event_object_table, action_timing, event_manipulation, action_order"
    );
    for row in server.rows(&triggers) {
        let name = &row[4];
        questions.ask(
            format!("trigger {schema}.{name}"),
            &format!("SHOW CREATE TRIGGER {own}.{}", ident(name)),
        );
    }
    questions.ask(format!("triggers {schema}"), &triggers);
}

fn ask_about_rows(server: &Endpoint, schema: &str, table: &str, versioned: bool, questions: &mut Questions) {
    let columns = server.rows(&format!(
        "SELECT column_name, data_type, IFNULL(generation_expression, '') FROM information_schema.columns
         WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        text(schema),
        text(table)
    ));
    let mut parts: Vec<String> = columns
        .iter()
        .map(|column| {
            let [name, kind, _] = column.as_slice() else {
                panic!("three were asked for: {column:?}")
            };
            lossless(&ident(name), kind)
        })
        .collect();
    let full = format!("{}.{}", ident(schema), ident(table));
    questions.ask(
        format!("table {schema}.{table}: rows"),
        &format!("SELECT COUNT(*) FROM {full}"),
    );
    questions.ask(format!("table {schema}.{table}: checksum"), &checksum(&parts, &full));
    if versioned {
        // The periods are part of what happened; unless declared, their columns are listed nowhere.
        if !columns.iter().any(|column| column[2].eq_ignore_ascii_case("ROW START")) {
            parts.extend(["ROW_START", "ROW_END"].map(|name| lossless(name, "timestamp")));
        }
        questions.ask(
            format!("table {schema}.{table}: history"),
            &checksum(&parts, &format!("{full} FOR SYSTEM_TIME ALL")),
        );
    }
}

/// Independent of the rows' order, and duplicates count: two sums and an exclusive or over parts of each
/// row's hash, and the number of rows. The second number is that of rows that gave no hash: zero.
fn checksum(parts: &[String], from: &str) -> String {
    format!(
        "SELECT COUNT(*), COUNT(*) - COUNT(h), SUM(CAST(CONV(SUBSTR(h, 1, 15), 16, 10) AS UNSIGNED)),
                SUM(CAST(CONV(SUBSTR(h, 16, 15), 16, 10) AS UNSIGNED)),
                BIT_XOR(CAST(CONV(SUBSTR(h, 31, 15), 16, 10) AS UNSIGNED))
         FROM (SELECT SHA2(CONCAT({}), 256) AS h FROM {from}) AS hashed",
        parts.join(", ',', ")
    )
}

/// An expression of ASCII text that two values share only if they are the same. NULL becomes `N`, which
/// nothing else does. Strings are hashed one by one, so that a row is never longer than a packet may be.
fn lossless(column: &str, kind: &str) -> String {
    let kind = kind.to_lowercase();
    let value = match kind.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "date" | "time" | "datetime"
        | "timestamp" | "inet4" | "inet6" | "uuid" => format!("CAST({column} AS CHAR)"),
        // As text a FLOAT keeps six digits, and needs nine.
        "float" | "double" => format!("CAST(CAST({column} AS DOUBLE) AS CHAR)"),
        "bit" => format!("BIN({column} + 0)"),
        // The position tells the empty string that is a member from the one that marks an invalid value.
        "enum" | "set" => format!("CONCAT({column} + 0, ':', HEX({column}))"),
        "json" => hashed(&format!("CAST({column} AS CHAR CHARACTER SET utf8mb4)")),
        // A geometry's bytes begin with its SRID.
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geomcollection" | "geometrycollection" | "vector" => hashed(&format!("HEX({column})")),
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "binary" | "varbinary" | "tinyblob"
        | "blob" | "mediumblob" | "longblob" => hashed(&format!("CAST({column} AS BINARY)")),
        other => panic!("the census does not know the type {other} of {column}: teach it"),
    };
    format!("IF({column} IS NULL, 'N', CONCAT('=', {value}))")
}

fn hashed(value: &str) -> String {
    format!("CONCAT(LENGTH({value}), ':', SHA2({value}, 256))")
}

fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A string literal, safe under every sql_mode.
fn text(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}
