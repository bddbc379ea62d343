//! How each column is asked for, written, and summed up: exactly, for every type. Pure.
//!
//! The session's `character_set_results` is NULL, so text arrives as it is stored, in the column's own
//! character set; only UTF-8 ones are written as plain text, all others as bytes.

use super::literal::{self, Literal};

/// A column of a base table, as `information_schema.COLUMNS` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `DATA_TYPE`, lower case: `int`, `varchar`, …
    pub data_type: String,
    /// `COLUMN_TYPE`: `enum('a','b')`, `int unsigned`, …
    pub column_type: String,
    /// None for types without one.
    pub charset: Option<String>,
    /// Computed by the server: not part of a dump's data.
    pub generated: bool,
}

impl Column {
    /// The expression that reads the column without losing a bit.
    pub fn select(&self) -> String {
        let name = literal::identifier(&self.name);
        match self.data_type.as_str() {
            // As text a FLOAT is rounded to 6 digits; widened to DOUBLE it is printed in full.
            "float" => format!("CAST({name} AS DOUBLE)"),
            // The driver does not know the wire type of a vector; its bytes are what is stored.
            "vector" => format!("CAST({name} AS BINARY)"),
            // Bits arrive as bytes; as a number they are readable and need no introducer.
            "bit" => format!("{name}+0"),
            // The empty string can be a member or the error value 0: only the number tells.
            "enum" | "set" if self.needs_number() => format!("{name}+0"),
            _ => name,
        }
    }

    pub fn literal(&self) -> Literal {
        match self.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "bit" => Literal::Number,
            "float" | "double" => Literal::Float,
            "enum" | "set" if self.needs_number() => Literal::Number,
            // JSON refuses binary strings; its text is always utf8mb4. MariaDB's INET and UUID print ASCII.
            "date" | "datetime" | "timestamp" | "time" | "json" | "uuid" | "inet4" | "inet6" => Literal::Text,
            _ => match self.charset.as_deref() {
                Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii") => Literal::Text,
                Some(_) | None => Literal::Binary,
            },
        }
    }

    /// Whether an ENUM or SET is only sure as a number: where the empty string is a member, or where the definition
    /// itself may have lost members' letters (the server shows it in its three-byte UTF-8, others become `?`).
    fn needs_number(&self) -> bool {
        self.has_empty_member() || self.column_type.contains('?')
    }

    fn has_empty_member(&self) -> bool {
        let members = self.column_type.trim_start_matches("enum").trim_start_matches("set");
        members.starts_with("('',")
            || members.starts_with("('')")
            || members.ends_with(",'')")
            || members.contains(",'',")
    }

    /// Whether rows can be told apart and ordered by this column, with a literal that means exactly its value.
    ///
    /// ENUM and SET sort by number but compare as text, FLOAT compares inexactly, BIT and MariaDB's own types
    /// have no literal that sorts alike: a table keyed by these is read in one go.
    pub fn can_key(&self) -> bool {
        match self.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "year" | "date" | "datetime"
            | "timestamp" | "time" | "binary" | "varbinary" => true,
            "char" | "varchar" => self.charset.is_some(),
            _ => false,
        }
    }

    /// A value of this column as a literal to compare the column with.
    pub fn key_literal(&self, value: &[u8]) -> String {
        match self.data_type.as_str() {
            "date" | "datetime" | "timestamp" | "time" => literal::string(&String::from_utf8_lossy(value)),
            "binary" | "varbinary" => literal::hex(value),
            "char" | "varchar" => match self.charset.as_deref() {
                Some(charset) => format!("_{charset} {}", literal::hex(value)),
                None => literal::hex(value),
            },
            _ => String::from_utf8_lossy(value).into_owned(),
        }
    }
}

/// Column names and values are hashed apart by this byte.
const SEPARATOR: u8 = b'|';

/// One row's checksum: CRC-32 over each column's CRC-32 (big endian, without leading zero bytes; nothing for
/// NULL), each followed by `|`. [`checksum_sql`] makes a server compute the same.
#[derive(Debug, Default, Clone)]
pub struct RowSum(Vec<u8>);

impl RowSum {
    pub fn column(&mut self, value: Option<&[u8]>, literal: Literal) {
        if let Some(value) = value {
            let crc = match literal {
                Literal::Float => crc32fast::hash(&point_wkb(value)),
                Literal::Number | Literal::Text | Literal::Binary => crc32fast::hash(value),
            }
            .to_be_bytes();
            // CHAR(0) is one zero byte, and otherwise leading ones are left out.
            let zeros = crc.iter().take(3).take_while(|&&b| b == 0).count();
            self.0.extend_from_slice(&crc[zeros..]);
        }
        self.0.push(SEPARATOR);
    }

    /// The row's checksum; ready for the next row.
    pub fn finish(&mut self) -> u32 {
        let crc = crc32fast::hash(&self.0);
        self.0.clear();
        crc
    }
}

/// The point (x, 0) as well-known binary: byte order, type 1, two doubles. `text` that is no number becomes NaN,
/// which no server holds.
fn point_wkb(text: &[u8]) -> [u8; 21] {
    let x = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or(f64::NAN);
    let mut wkb = [0; 21];
    (wkb[0], wkb[1]) = (1, 1);
    wkb[5..13].copy_from_slice(&x.to_le_bytes());
    wkb
}

/// A table's rows summed up, in any order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableSum {
    pub rows: u64,
    pub sum: u64,
    pub xor: u32,
}

impl TableSum {
    pub fn add_row(&mut self, crc: u32) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u64::from(crc));
        self.xor ^= crc;
    }

    pub fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
        self.xor ^= other.xor;
    }

    /// As it stands in the index.
    pub fn text(&self) -> String {
        format!("{:x}-{:08x}", self.sum, self.xor)
    }
}

/// What to ask a server for so that it answers with [`TableSum`]'s rows, sum and xor. `from` is what follows
/// `FROM`, e.g. a qualified name.
pub fn checksum_sql(columns: &[Column], from: &str) -> String {
    let parts: Vec<String> = columns
        .iter()
        .map(|column| {
            let bytes = match column.literal() {
                Literal::Number => column.select(),
                // As a string inside an expression a DOUBLE loses bits (the protocol prints it in full). A point's
                // WKB holds its eight bytes.
                Literal::Float => format!("ST_AsBinary(POINT({},0))", column.select()),
                // As bytes these would be the stored form; they travel as text.
                Literal::Text if matches!(column.data_type.as_str(), "uuid" | "inet4" | "inet6") => {
                    format!("CAST({} AS CHAR)", column.select())
                }
                // MySQL would bring arguments of different character sets to a common one first.
                Literal::Text | Literal::Binary => format!("CAST({} AS BINARY)", column.select()),
            };
            format!("IFNULL(CHAR(CRC32({bytes})),''),'|'")
        })
        .collect();
    format!(
        "SELECT COUNT(*), CAST(COALESCE(SUM(c),0) AS CHAR), COALESCE(BIT_XOR(c),0) \
         FROM (SELECT CRC32(CONCAT({})) AS c FROM {from}) AS rows_of_table",
        if parts.is_empty() {
            "''".to_owned()
        } else {
            parts.join(",")
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, column_type: &str, charset: Option<&str>) -> Column {
        Column {
            name: "c".into(),
            data_type: data_type.into(),
            column_type: column_type.into(),
            charset: charset.map(str::to_owned),
            generated: false,
        }
    }

    #[test]
    fn enums_with_an_empty_member_are_read_as_numbers() {
        for (text, number) in [
            ("enum('a','b')", false),
            ("enum('','b')", true),
            ("enum('a','','b')", true),
            ("enum('a','')", true),
            ("enum('')", true),
            ("enum('it''s')", false),
            ("enum('?','?')", true),
        ] {
            assert_eq!(
                column("enum", text, Some("utf8mb4")).literal() == Literal::Number,
                number,
                "{text}"
            );
        }
    }

    #[test]
    fn text_that_is_no_utf8_travels_as_bytes() {
        assert_eq!(
            column("varchar", "varchar(9)", Some("utf8mb4")).literal(),
            Literal::Text
        );
        assert_eq!(
            column("varchar", "varchar(9)", Some("utf16")).literal(),
            Literal::Binary
        );
        assert_eq!(column("varbinary", "varbinary(9)", None).literal(), Literal::Binary);
        assert_eq!(column("geometry", "geometry", None).literal(), Literal::Binary);
        assert_eq!(column("json", "json", None).literal(), Literal::Text);
    }

    #[test]
    fn a_key_s_literal_means_its_exact_value() {
        assert_eq!(
            column("varchar", "varchar(9)", Some("latin1")).key_literal(&[0xe9]),
            "_latin1 X'E9'"
        );
        assert_eq!(
            column("bigint", "bigint unsigned", None).key_literal(b"18446744073709551615"),
            "18446744073709551615"
        );
        assert_eq!(
            column("datetime", "datetime(6)", None).key_literal(b"2020-01-01 00:00:00"),
            "'2020-01-01 00:00:00'"
        );
        assert!(!column("enum", "enum('a')", Some("utf8mb4")).can_key());
        assert!(!column("float", "float", None).can_key());
    }

    #[test]
    fn null_and_empty_differ_and_order_does_not_matter() {
        let mut row = RowSum::default();
        row.column(None, Literal::Text);
        let null = row.finish();
        row.column(Some(b""), Literal::Text);
        let empty = row.finish();
        assert_ne!(null, empty);
        let (mut one, mut other) = (TableSum::default(), TableSum::default());
        one.add_row(null);
        one.add_row(empty);
        other.add_row(empty);
        other.add_row(null);
        assert_eq!(one, other);
    }
}
