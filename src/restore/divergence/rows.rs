//! The rows of a backup's data member, taken apart value by value as the dump wrote them. Pure.

use std::borrow::Cow;

use crate::dump::literal::Literal;

/// The text does not go on as a dump would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its rows are not written as this table's rows would be")]
pub struct Strange;

/// One row: its text with the parentheses, and its values as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    pub text: &'a [u8],
    pub values: Vec<&'a [u8]>,
}

/// Goes through a member's text. Every statement must begin with `head`, that is, be of the same table and columns.
#[derive(Debug)]
pub struct Rows<'a> {
    head: &'a [u8],
    rest: &'a [u8],
    is_inside: bool,
}

impl<'a> Rows<'a> {
    pub fn of(member: &'a [u8], head: &'a [u8]) -> Self {
        Self {
            head,
            rest: member,
            is_inside: false,
        }
    }

    /// # Errors
    /// [`Strange`]; nothing after it makes sense.
    pub fn next_row(&mut self) -> Result<Option<Row<'a>>, Strange> {
        if !self.is_inside {
            if self.rest.is_empty() {
                return Ok(None);
            }
            self.rest = self.rest.strip_prefix(self.head).ok_or(Strange)?;
            self.is_inside = true;
        }
        let row = row(self.rest).ok_or(Strange)?;
        let after = &self.rest[row.text.len()..];
        if let Some(after) = after.strip_prefix(b",\n") {
            self.rest = after;
        } else {
            self.rest = after.strip_prefix(b";\n").ok_or(Strange)?;
            self.is_inside = false;
        }
        Ok(Some(row))
    }
}

fn row(text: &[u8]) -> Option<Row<'_>> {
    let mut values = Vec::new();
    let mut at = 1;
    if text.first() != Some(&b'(') {
        return None;
    }
    loop {
        let length = value(&text[at..])?;
        if length > 0 {
            values.push(&text[at..at + length]);
        }
        at += length;
        match text.get(at)? {
            b',' if length > 0 => at += 1,
            b')' => {
                return Some(Row {
                    text: &text[..=at],
                    values,
                });
            }
            _ => return None,
        }
    }
}

const BINARY: &[u8] = b"_binary";

/// How many bytes the value has that `text` begins with.
fn value(text: &[u8]) -> Option<usize> {
    let introducer = if text.starts_with(BINARY) { BINARY.len() } else { 0 };
    if text.get(introducer) != Some(&b'\'') {
        return text.iter().position(|&byte| byte == b',' || byte == b')');
    }
    let mut at = introducer + 1;
    loop {
        at += memchr::memchr2(b'\'', b'\\', &text[at..])?;
        if text[at] == b'\'' {
            return Some(at + 1);
        }
        at += 2;
        if at > text.len() {
            return None;
        }
    }
}

/// The bytes that a written value means; none for NULL.
///
/// # Errors
/// [`Strange`] if it is no value of that kind.
pub fn meant(value: &[u8], literal: Literal) -> Result<Option<Cow<'_, [u8]>>, Strange> {
    if value == b"NULL" {
        return Ok(None);
    }
    let quoted = match literal {
        Literal::Number => return Ok(Some(Cow::Borrowed(value))),
        Literal::Text | Literal::Float => value,
        Literal::Binary => value.strip_prefix(BINARY).ok_or(Strange)?,
    };
    let inside = quoted.strip_prefix(b"'").and_then(|rest| rest.strip_suffix(b"'"));
    unescaped(inside.ok_or(Strange)?).map(Some)
}

fn unescaped(text: &[u8]) -> Result<Cow<'_, [u8]>, Strange> {
    let Some(first) = memchr::memchr(b'\\', text) else {
        return Ok(Cow::Borrowed(text));
    };
    let mut out = text[..first].to_vec();
    let mut bytes = text[first..].iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next().ok_or(Strange)? {
                b'0' => 0,
                b'n' => b'\n',
                b'r' => b'\r',
                b'Z' => 0x1a,
                other @ (b'\'' | b'\\') => *other,
                _ => return Err(Strange),
            },
            byte => byte,
        });
    }
    Ok(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::literal::write;
    use proptest::prelude::*;

    const HEAD: &[u8] = b"INSERT INTO `s`.`t` (`a`,`b`) VALUES\n";

    type Row = Vec<(Option<Vec<u8>>, Literal)>;

    fn member(rows: &[Row]) -> Vec<u8> {
        let mut text = Vec::new();
        for (at, row) in rows.iter().enumerate() {
            // Two rows a statement.
            if at % 2 == 0 {
                text.extend_from_slice(HEAD);
            }
            text.push(b'(');
            for (i, (value, literal)) in row.iter().enumerate() {
                if i > 0 {
                    text.push(b',');
                }
                write(&mut text, value.as_deref(), *literal);
            }
            let is_last = at % 2 == 1 || at + 1 == rows.len();
            text.extend_from_slice(if is_last { b");\n" } else { b"),\n" });
        }
        text
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            rows in proptest::collection::vec(
                proptest::collection::vec(
                    (proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12)), 0..3_u8),
                    2..3,
                ),
                0..7,
            )
        ) {
            let rows: Vec<Vec<(Option<Vec<u8>>, Literal)>> = rows
                .into_iter()
                .map(|row| row.into_iter().map(|(value, kind)| match kind {
                    0 => (value.map(|bytes| bytes.len().to_string().into_bytes()), Literal::Number),
                    1 => (value, Literal::Text),
                    _ => (value, Literal::Binary),
                }).collect())
                .collect();
            let text = member(&rows);
            let mut reading = Rows::of(&text, HEAD);
            for row in &rows {
                let read = reading.next_row().expect("one of ours").expect("a row");
                prop_assert_eq!(read.values.len(), row.len());
                for (value, (wanted, literal)) in read.values.iter().zip(row) {
                    let is = meant(value, *literal).expect("one of ours");
                    prop_assert_eq!(is.as_deref(), wanted.as_deref());
                }
            }
            prop_assert_eq!(reading.next_row().expect("the end"), None);
        }

        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let whole = [HEAD, &text].concat();
            let mut reading = Rows::of(&whole, HEAD);
            while let Ok(Some(row)) = reading.next_row() {
                for value in row.values {
                    let _ = meant(value, Literal::Binary);
                }
            }
        }
    }

    #[test]
    fn other_columns_are_strange() {
        let text = member(&[vec![(Some(b"1".to_vec()), Literal::Number), (None, Literal::Text)]]);
        assert_eq!(
            Rows::of(&text, b"INSERT INTO `s`.`t` (`a`) VALUES\n").next_row(),
            Err(Strange)
        );
        let cut = &text[..text.len() - 3];
        assert_eq!(Rows::of(cut, HEAD).next_row(), Err(Strange));
    }
}
