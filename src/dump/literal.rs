//! Values as SQL literals: exact, short, and safe to pipe through any `mysql` client.

/// How a column's text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    /// As it is: integers and decimals.
    Number,
    /// Quoted: the server parses a bare `-0` as the integer 0, and a bare `0.0…` as DECIMAL with 30 decimals at
    /// most, which can be fewer than a DOUBLE needs. A string is converted by `strtod`, exactly.
    Float,
    /// Quoted; bytes are UTF-8 already.
    Text,
    /// Quoted after `_binary`: bytes reach the column as they are, whatever its character set.
    Binary,
}

/// For each byte: 0 if it stands for itself inside quotes, else what follows the backslash.
///
/// NUL, newline and carriage return would be changed by a `mysql` client reading a pipe, Ctrl-Z by one on
/// Windows, quote and backslash by the server.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    table[0] = b'0';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[0x1a] = b'Z';
    table[b'\'' as usize] = b'\'';
    table[b'\\' as usize] = b'\\';
    table
};

/// Appends `value` (`None` is NULL) to `out`.
pub fn write(out: &mut Vec<u8>, value: Option<&[u8]>, literal: Literal) {
    match (value, literal) {
        (None, _) => out.extend_from_slice(b"NULL"),
        (Some(number), Literal::Number) => out.extend_from_slice(number),
        (Some(text), Literal::Text | Literal::Float) => quote(out, text),
        (Some(bytes), Literal::Binary) => {
            out.extend_from_slice(b"_binary");
            quote(out, bytes);
        }
    }
}

/// Appends `bytes` in single quotes, escaped.
pub fn quote(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'\'');
    let mut rest = bytes;
    while let Some(special) = rest.iter().position(|&b| ESCAPES[usize::from(b)] != 0) {
        out.extend_from_slice(&rest[..special]);
        out.extend_from_slice(&[b'\\', ESCAPES[usize::from(rest[special])]]);
        rest = &rest[special + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// An identifier in backticks.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `schema`.`name`, both in backticks.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// A short text as a literal inside a statement of our own.
pub fn string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    quote(&mut out, text.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

/// Bytes as a hexadecimal literal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(2 * bytes.len() + 3);
    out.push_str("X'");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02X}");
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: Option<&[u8]>, literal: Literal) -> String {
        let mut out = Vec::new();
        write(&mut out, value, literal);
        String::from_utf8(out).expect("test values are UTF-8")
    }

    #[test]
    fn each_kind_is_written_as_the_server_reads_it() {
        assert_eq!(written(None, Literal::Text), "NULL");
        assert_eq!(written(Some(b""), Literal::Text), "''");
        assert_eq!(written(Some(b"-42"), Literal::Number), "-42");
        assert_eq!(written(Some(b"-0"), Literal::Float), "'-0'");
        assert_eq!(written(Some(b"1e308"), Literal::Float), "'1e308'");
        assert_eq!(
            written(Some(b"\0\n\r\x1a'\\\"\t"), Literal::Binary),
            r#"_binary'\0\n\r\Z\'\\"	'"#
        );
        assert_eq!(written(Some("민준 🐻".as_bytes()), Literal::Text), "'민준 🐻'");
    }

    #[test]
    fn names_survive_backticks() {
        assert_eq!(qualified("a`b", "c d"), "`a``b`.`c d`");
    }
}
