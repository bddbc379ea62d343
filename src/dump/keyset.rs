//! Reading a table piece by piece along its key: the statements for it. Pure.
//!
//! A piece begins after the last key read, so that every key works: composite, textual, skewed or sparse. Rows are
//! counted out by `LIMIT`, and the number is chosen so that a piece has the wanted size in bytes.

use super::catalog::{Key, Table};
use super::columns::Column;
use super::literal::{identifier, qualified};

/// A key's value, each part as the literal that means it.
pub type KeyValue = Vec<String>;

/// A stretch of a table along its key: after `lower`, up to and with `upper`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub lower: Option<KeyValue>,
    pub upper: Option<KeyValue>,
}

/// How one table is asked for its rows.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Expressions of all dumped columns, then of key parts that are no dumped column.
    select: String,
    from: String,
    key: Option<Key>,
    /// For each key part, its place among the selected expressions (the constant before them not counted).
    pub key_at: Vec<usize>,
}

impl Reading {
    pub fn of(table: &Table) -> Self {
        let mut expressions: Vec<String> = table.columns.iter().map(Column::select).collect();
        let mut key_at = Vec::new();
        for part in table.key.iter().flat_map(|key| &key.columns) {
            let place = table.columns.iter().position(|c| c.name == part.name && !c.generated);
            key_at.push(place.unwrap_or(expressions.len()));
            if place.is_none() {
                expressions.push(identifier(&part.name));
            }
        }
        let history = if table.history { " FOR SYSTEM_TIME ALL" } else { "" };
        let names: Vec<String> = table.partitions.iter().map(|name| identifier(name)).collect();
        let partitions = if names.is_empty() {
            String::new()
        } else {
            format!(" PARTITION ({})", names.join(","))
        };
        Self {
            // The driver takes a row whose first byte is 0xFE for the end of the result: a first column of
            // 16 MiB or more begins so. A constant in front makes that impossible.
            select: std::iter::once("0".to_owned())
                .chain(expressions)
                .collect::<Vec<_>>()
                .join(","),
            from: format!("{}{partitions}{history}", qualified(&table.schema, &table.name)),
            key: table.key.clone(),
            key_at,
        }
    }

    /// Everything in one go.
    pub fn all(&self) -> String {
        format!("SELECT {} FROM {}", self.select, self.from)
    }

    /// The first `limit` rows of a span, in the key's order. Without a key, the whole table.
    pub fn rows(&self, span: &Span, limit: Option<u64>) -> String {
        let Some(key) = &self.key else { return self.all() };
        let limit = limit.map(|rows| format!(" LIMIT {rows}")).unwrap_or_default();
        format!(
            "SELECT {} FROM {} FORCE INDEX ({}){} ORDER BY {}{limit}",
            self.select,
            self.from,
            identifier(&key.index),
            self.condition(span),
            order(key),
        )
    }

    /// The key of row number `rows` of a span: where a piece of that many rows ends.
    pub fn boundary(&self, span: &Span, rows: u64) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(format!(
            "SELECT 0,{} FROM {} FORCE INDEX ({}){} ORDER BY {} LIMIT {},1",
            names(key),
            self.from,
            identifier(&key.index),
            self.condition(span),
            order(key),
            rows.saturating_sub(1),
        ))
    }

    pub fn count(&self, span: &Span) -> String {
        format!("SELECT COUNT(*) FROM {}", self.source(span))
    }

    /// What follows `FROM` to read a span.
    pub fn source(&self, span: &Span) -> String {
        let index = self
            .key
            .as_ref()
            .map(|key| format!(" FORCE INDEX ({})", identifier(&key.index)));
        format!("{}{}{}", self.from, index.unwrap_or_default(), self.condition(span))
    }

    /// A key part's value as a literal.
    pub fn literal(&self, part: usize, value: &[u8]) -> Option<String> {
        Some(self.key.as_ref()?.columns.get(part)?.key_literal(value))
    }

    fn condition(&self, span: &Span) -> String {
        let Some(key) = &self.key else { return String::new() };
        let lower = span.lower.as_ref().map(|value| compare(key, value, Side::After));
        let upper = span.upper.as_ref().map(|value| compare(key, value, Side::UpTo));
        let both: Vec<String> = lower.into_iter().chain(upper).collect();
        if both.is_empty() {
            String::new()
        } else {
            format!(" WHERE {}", both.join(" AND "))
        }
    }
}

/// Which part of a table, in its key's order, as seen from one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    After,
    /// With the value itself.
    UpTo,
}

/// `(a,b) > (x,y)` spelled out: `a >= x AND (a > x OR a = x AND b > y)`, since servers use no index for the short form,
/// and none could be had where `b` is descending.
fn compare(key: &Key, value: &KeyValue, side: Side) -> String {
    let names: Vec<String> = key.columns.iter().map(|column| identifier(&column.name)).collect();
    let strict = |i: usize| match (side, key.descending.get(i).copied().unwrap_or(false)) {
        (Side::After, false) | (Side::UpTo, true) => '>',
        (Side::After, true) | (Side::UpTo, false) => '<',
    };
    let alternatives: Vec<String> = (0..names.len())
        .map(|i| {
            let equal = (0..i).map(|j| format!("{} = {}", names[j], value[j]));
            let or_equal = if side == Side::UpTo && i + 1 == names.len() {
                "="
            } else {
                ""
            };
            let differs = std::iter::once(format!("{} {}{or_equal} {}", names[i], strict(i), value[i]));
            equal.chain(differs).collect::<Vec<_>>().join(" AND ")
        })
        .collect();
    match alternatives.as_slice() {
        [only] => only.clone(),
        _ => format!(
            "{} {}= {} AND ({})",
            names[0],
            strict(0),
            value[0],
            alternatives.join(" OR ")
        ),
    }
}

/// The key's columns in the index's own order, each with its direction.
fn order(key: &Key) -> String {
    let parts = key.columns.iter().enumerate().map(|(i, column)| {
        let direction = if key.descending.get(i) == Some(&true) {
            " DESC"
        } else {
            ""
        };
        format!("{}{direction}", identifier(&column.name))
    });
    parts.collect::<Vec<_>>().join(",")
}

fn names(key: &Key) -> String {
    key.columns
        .iter()
        .map(|column| identifier(&column.name))
        .collect::<Vec<_>>()
        .join(",")
}

/// How many rows make a piece of `target_bytes`, going by the rows seen so far (or by the server's estimate). Never
/// more than four times the piece before, so that a few small rows in front do not make one huge piece.
pub fn piece_rows(target_bytes: u64, seen_rows: u64, seen_bytes: u64, previous: Option<u64>) -> u64 {
    let per_row = seen_bytes.checked_div(seen_rows).unwrap_or(0).max(1);
    let wanted = (target_bytes / per_row).max(1);
    let growth = previous.map_or(FIRST_PIECE_ROWS, |rows| rows.saturating_mul(4));
    wanted.min(growth).min(MOST_PIECE_ROWS)
}

/// Rows of the first piece: enough to learn their size by.
pub const FIRST_PIECE_ROWS: u64 = 1_000;
const MOST_PIECE_ROWS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn table(keys: &[&str]) -> Table {
        let column = |name: &str| Column {
            name: name.into(),
            data_type: "int".into(),
            column_type: "int".into(),
            charset: None,
            generated: false,
        };
        Table {
            schema: "s".into(),
            name: "t".into(),
            engine: "InnoDB".into(),
            estimated_rows: 0,
            estimated_bytes: 0,
            columns: vec![column("a"), column("v")],
            key: Some(Key {
                index: "PRIMARY".into(),
                columns: keys.iter().map(|k| column(k)).collect(),
                descending: keys.iter().map(|_| false).collect(),
            }),
            history: false,
            partitions: Vec::new(),
        }
    }

    #[test]
    fn only_the_partitions_of_the_snapshot_are_read() {
        let cut = Table {
            partitions: vec!["p0".into(), "p 1".into()],
            ..table(&["a"])
        };
        assert_eq!(
            Reading::of(&cut).all(),
            "SELECT 0,`a`,`v` FROM `s`.`t` PARTITION (`p0`,`p 1`)"
        );
    }

    #[test]
    fn a_single_key_is_a_plain_range() {
        let span = Span {
            lower: Some(vec!["5".into()]),
            upper: Some(vec!["9".into()]),
        };
        assert_eq!(
            Reading::of(&table(&["a"])).rows(&span, Some(10)),
            "SELECT 0,`a`,`v` FROM `s`.`t` FORCE INDEX (`PRIMARY`) WHERE `a` > 5 AND `a` <= 9 ORDER BY `a` LIMIT 10"
        );
    }

    #[test]
    fn a_composite_key_is_spelled_out_and_read_along() {
        let reading = Reading::of(&table(&["a", "b"]));
        assert_eq!(
            reading.key_at,
            [0, 2],
            "`b` is no dumped column here and is read beside them"
        );
        let span = Span {
            lower: Some(vec!["1".into(), "2".into()]),
            upper: None,
        };
        assert_eq!(
            reading.rows(&span, None),
            "SELECT 0,`a`,`v`,`b` FROM `s`.`t` FORCE INDEX (`PRIMARY`) \
             WHERE `a` >= 1 AND (`a` > 1 OR `a` = 1 AND `b` > 2) ORDER BY `a`,`b`"
        );
        let upper = Span {
            lower: None,
            upper: Some(vec!["1".into(), "2".into()]),
        };
        assert!(
            reading
                .count(&upper)
                .ends_with("WHERE `a` <= 1 AND (`a` < 1 OR `a` = 1 AND `b` <= 2)")
        );
    }

    #[test]
    fn each_column_is_read_in_its_own_direction() {
        let mut mixed = table(&["a", "b"]);
        if let Some(key) = mixed.key.as_mut() {
            key.descending = vec![false, true];
        }
        let span = Span {
            lower: Some(vec!["1".into(), "9".into()]),
            upper: Some(vec!["5".into(), "2".into()]),
        };
        assert_eq!(
            Reading::of(&mixed).rows(&span, Some(3)),
            "SELECT 0,`a`,`v`,`b` FROM `s`.`t` FORCE INDEX (`PRIMARY`) \
             WHERE `a` >= 1 AND (`a` > 1 OR `a` = 1 AND `b` < 9) \
             AND `a` <= 5 AND (`a` < 5 OR `a` = 5 AND `b` >= 2) ORDER BY `a`,`b` DESC LIMIT 3"
        );
    }

    #[test]
    fn pieces_grow_with_what_was_seen() {
        assert_eq!(piece_rows(4 << 20, 0, 0, None), FIRST_PIECE_ROWS);
        assert_eq!(
            piece_rows(4 << 20, 1_000, 100_000, Some(1_000)),
            4_000,
            "not more than four times as many"
        );
        assert_eq!(piece_rows(4 << 20, 50_000, 5_000_000, Some(40_000)), 41_943);
        assert_eq!(
            piece_rows(4 << 20, 2, 120_000_000, Some(1_000)),
            1,
            "huge rows come one by one"
        );
    }
}
