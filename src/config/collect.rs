//! Reads a TOML document key by key and collects every problem, instead of stopping at the first.
//!
//! A value is never repeated in a message, only its key and line: it may be a secret in the wrong place.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::SecretRef;

use super::units::{format_duration, parse_duration};

/// One mistake: where it is and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted, e.g. `source.tls`.
    pub key: String,
    /// Counted from 1. None for a key that is missing.
    pub line: Option<usize>,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} (line {line}): {}", self.key, self.message),
            None => write!(f, "{}: {}", self.key, self.message),
        }
    }
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;

/// The document, what was found wrong in it, and the keys that were asked for.
pub(super) struct Document<'t> {
    text: &'t str,
    root: DeTable<'t>,
    problems: Vec<Problem>,
    known: Vec<(&'static str, &'static str)>,
    /// Sections of which there may be several, as `[[name]]`.
    lists: Vec<&'static str>,
}

impl<'t> Document<'t> {
    /// Not TOML at all: every syntax error. The parser's own rendering would quote the line, so it is not used.
    pub(super) fn parse(text: &'t str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Ok(Self {
                text,
                root: root.into_inner(),
                problems: Vec::new(),
                known: Vec::new(),
                lists: Vec::new(),
            });
        }
        let problem = |error: &toml::de::Error| Problem {
            key: "syntax".into(),
            line: error.span().map(|span| line_of(text, span.start)),
            message: error.message().to_owned(),
        };
        Err(errors.iter().map(problem).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        find(&self.root, name).is_some()
    }

    /// `name` is dotted for a section inside another one: `watch.auto`.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 't> {
        if let Some((key, value)) = find(&self.root, name)
            && value.get_ref().as_table().is_none()
        {
            let line = Some(line_of(self.text, key.span().start));
            self.problems.push(Problem {
                key: name.into(),
                line,
                message: format!("is a section: write [{name}]"),
            });
        }
        Section {
            document: self,
            name,
            number: None,
        }
    }

    /// How many sections `[[name]]` there are; [`nth`](Self::nth) reads one. `keys` are those each may have, so that
    /// near misses are recognised where there is none of them.
    pub(super) fn count(&mut self, name: &'static str, keys: &[&'static str]) -> usize {
        self.lists.push(name);
        self.known.extend(keys.iter().map(|key| (name, *key)));
        let Some((key, value)) = find(&self.root, name) else {
            return 0;
        };
        let items = value.get_ref().as_array();
        match items.filter(|items| items.iter().all(|item| item.get_ref().as_table().is_some())) {
            Some(items) => items.len(),
            None => {
                self.problems.push(Problem {
                    key: name.into(),
                    line: Some(line_of(self.text, key.span().start)),
                    message: format!("is a list of sections: write [[{name}]] before each"),
                });
                0
            }
        }
    }

    /// The section `[[name]]` of this number, from 0.
    pub(super) fn nth(&mut self, name: &'static str, number: usize) -> Section<'_, 't> {
        Section {
            document: self,
            name,
            number: Some(number),
        }
    }

    /// Everything that was found, unknown keys included; in the order of the file, missing keys first.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        let mut found = Vec::new();
        for (key, value) in &self.root {
            self.strangers(key.get_ref(), key, value.get_ref(), &mut found);
        }
        self.problems.extend(found);
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    fn is_section(&self, name: &str) -> bool {
        self.known.iter().any(|(section, _)| *section == name)
    }

    /// What stands under `name` and nobody asked for.
    fn strangers(&self, name: &str, at: &Key<'_>, value: &DeValue<'_>, found: &mut Vec<Problem>) {
        let mut report = |message: String| {
            found.push(Problem {
                key: name.to_owned(),
                line: Some(line_of(self.text, at.span().start)),
                message,
            });
        };
        let is_list = self.lists.contains(&name);
        match (value, self.is_section(name)) {
            (DeValue::Table(table), true) if !is_list => self.strangers_in(name, name, table, found),
            (DeValue::Array(items), true) if is_list => {
                for (number, item) in items.iter().enumerate() {
                    if let Some(table) = item.get_ref().as_table() {
                        self.strangers_in(name, &numbered(name, number), table, found);
                    }
                }
            }
            // What is of the wrong kind has been told where it was read.
            (_, true) => {}
            (value, false) if is_section_like(value) => report(unknown_section(&self.known, &self.lists, name)),
            (_, false) => report(unknown_key(&self.known, "", name)),
        }
    }

    /// `place` is the section as its problems name it.
    fn strangers_in(&self, section: &str, place: &str, table: &DeTable<'_>, found: &mut Vec<Problem>) {
        for (key, value) in table {
            let inner = format!("{section}.{}", key.get_ref());
            if self.is_section(&inner) {
                self.strangers(&inner, key, value.get_ref(), found);
            } else if !self
                .known
                .iter()
                .any(|(known, name)| *known == section && name == key.get_ref())
            {
                found.push(Problem {
                    key: format!("{place}.{}", key.get_ref()),
                    line: Some(line_of(self.text, key.span().start)),
                    message: unknown_key(&self.known, section, key.get_ref()),
                });
            }
        }
    }
}

/// What stands under a dotted name.
fn find<'a, 't>(table: &'a DeTable<'t>, name: &str) -> Option<(&'a Key<'t>, &'a Spanned<DeValue<'t>>)> {
    match name.split_once('.') {
        Some((outer, inner)) => find(find(table, outer)?.1.get_ref().as_table()?, inner),
        None => table.iter().find(|(key, _)| key.get_ref() == name),
    }
}

/// One section while it is read. Every reader returns `None` both for an absent key and for a wrong value; the wrong
/// one has been reported, so that the caller may go on with whatever default it likes.
pub(super) struct Section<'d, 't> {
    document: &'d mut Document<'t>,
    name: &'static str,
    /// Which of several, from 0.
    number: Option<usize>,
}

impl<'t> Section<'_, 't> {
    fn table(&self) -> Option<&Spanned<DeValue<'t>>> {
        let (_, value) = find(&self.document.root, self.name)?;
        match self.number {
            Some(number) => value.get_ref().as_array()?.get(number),
            None => Some(value),
        }
    }

    fn find(&self, key: &str) -> Option<(usize, &DeValue<'t>)> {
        let (name, value) = self
            .table()?
            .get_ref()
            .as_table()?
            .iter()
            .find(|(name, _)| name.get_ref() == key)?;
        Some((line_of(self.document.text, name.span().start), value.get_ref()))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Reports `key`, at its line if it is there.
    pub(super) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let mut line = self.find(key).map(|(line, _)| line);
        let key = match self.number {
            Some(number) => {
                // One of several is found by where it begins.
                let begins = self
                    .table()
                    .map(|table| line_of(self.document.text, table.span().start));
                line = line.or(begins);
                format!("{}.{key}", numbered(self.name, number))
            }
            None => format!("{}.{key}", self.name),
        };
        self.document.problems.push(Problem {
            key,
            line,
            message: message.into(),
        });
    }

    /// `value`, or a report that `key` is missing and a placeholder that never leaves the parser.
    pub(super) fn need<T: Default>(&mut self, key: &'static str, value: Option<T>, write: &str) -> T {
        if value.is_none() && !self.has(key) {
            self.problem(key, format!("is missing: write {write}"));
        }
        value.unwrap_or_default()
    }

    fn read<T>(&mut self, key: &'static str, read: impl FnOnce(&DeValue<'t>) -> Result<T, String>) -> Option<T> {
        self.document.known.push((self.name, key));
        let outcome = read(self.find(key)?.1);
        outcome.map_err(|message| self.problem(key, message)).ok()
    }

    /// Text that `check` makes a value of, or says what to write instead.
    pub(super) fn text<T>(&mut self, key: &'static str, check: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.read(key, |value| match value.as_str() {
            Some(text) => check(text),
            None => Err(format!("must be text in quotes, not {}", kind(value))),
        })
    }

    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        self.read(key, |value| {
            let number = value
                .as_integer()
                .map(|integer| i128::from_str_radix(integer.as_str(), integer.radix()));
            match number {
                Some(number) => number
                    .ok()
                    .and_then(|number| u64::try_from(number).ok())
                    .filter(|number| range.contains(number))
                    .ok_or_else(|| format!("must be from {} to {}", range.start(), range.end())),
                None => Err(format!("must be a whole number without quotes, not {}", kind(value))),
            }
        })
    }

    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.whole(key, wide).and_then(|number| u32::try_from(number).ok())
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.read(key, |value| {
            value
                .as_bool()
                .ok_or_else(|| format!("must be true or false, not {}", kind(value)))
        })
    }

    pub(super) fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Option<Duration> {
        self.text(key, |text| match parse_duration(text) {
            Some(duration) if range.contains(&duration) => Ok(duration),
            Some(_) => Err(format!(
                "must be from {} to {}",
                format_duration(*range.start()),
                format_duration(*range.end())
            )),
            None => Err("must be a duration such as \"90s\", \"5m\", \"1h30m\", \"48h\" or \"7d\"".into()),
        })
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        self.text(key, |text| {
            let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
            chosen.ok_or_else(|| {
                let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                let all = names
                    .iter()
                    .map(|name| format!("\"{name}\""))
                    .collect::<Vec<_>>()
                    .join(", ");
                match nearest(text, names) {
                    Some(near) => format!("must be one of {all}: did you mean \"{near}\"?"),
                    None => format!("must be one of {all}"),
                }
            })
        })
    }

    /// A reference, or a list of them.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<SecretRef> {
        self.read(key, |value| {
            let texts = match value {
                DeValue::String(text) => vec![text.as_ref()],
                _ => texts(value).ok_or_else(|| {
                    format!(
                        "must be a reference in quotes such as \"env:NAME\", or a list of them, not {}",
                        kind(value)
                    )
                })?,
            };
            SecretRef::parse_list(texts).map_err(|error| error.to_string())
        })
    }

    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.read(key, |value| match texts(value) {
            Some(texts) => Ok(texts.into_iter().map(str::to_owned).collect()),
            None => Err(format!(
                "must be a list of texts such as [\"a\", \"b\"], not {}",
                kind(value)
            )),
        })
    }
}

fn texts<'a>(value: &'a DeValue<'_>) -> Option<Vec<&'a str>> {
    value.as_array()?.iter().map(|item| item.get_ref().as_str()).collect()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "this list",
        DeValue::Table(_) => "a section",
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// `accounts[2]` is the second.
fn numbered(name: &str, number: usize) -> String {
    format!("{name}[{}]", number + 1)
}

/// `[name]`, or `[[name]]`.
fn is_section_like(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => !items.is_empty() && items.iter().all(|item| item.get_ref().as_table().is_some()),
        _ => false,
    }
}

fn unknown_section(known: &[(&'static str, &'static str)], lists: &[&'static str], name: &str) -> String {
    let mut sections: Vec<&str> = known.iter().map(|(section, _)| *section).collect();
    sections.dedup();
    let header = |section: &str| match lists.contains(&section) {
        true => format!("[[{section}]]"),
        false => format!("[{section}]"),
    };
    match nearest(name, sections.iter().copied()) {
        Some(near) => format!("unknown section: did you mean {}?", header(near)),
        None => {
            let headers: Vec<String> = sections.into_iter().map(header).collect();
            format!("unknown section: there are {}", headers.join(", "))
        }
    }
}

/// A near miss in its own section comes first, then the same key in another one.
fn unknown_key(known: &[(&'static str, &'static str)], section: &str, key: &str) -> String {
    let siblings = known
        .iter()
        .filter(|(name, _)| *name == section)
        .map(|(_, sibling)| *sibling);
    let inside = known
        .iter()
        .filter_map(|(name, _)| name.strip_prefix(section)?.strip_prefix('.'));
    if let Some(near) = nearest(key, siblings.chain(inside)) {
        return format!("unknown key: did you mean {near}?");
    }
    match known.iter().find(|(_, other)| *other == key) {
        Some((home, _)) => format!("unknown key here: it belongs under [{home}]"),
        None => "unknown key: remove it, or see config/planb.toml for all keys".into(),
    }
}

/// The candidate at most two typing mistakes away, and closer than half of the word.
fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let plain = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (mistakes(&plain, &candidate.replace('-', "_")), candidate))
        .filter(|(mistakes, candidate)| *mistakes <= 2 && mistakes * 2 < candidate.len())
        .min_by_key(|(mistakes, _)| *mistakes)
        .map(|(_, candidate)| candidate)
}

/// Letters inserted, dropped, replaced or swapped with their neighbour to make `b` of `a` (the optimal string alignment
/// distance), a row for each letter of `a`.
fn mistakes(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut least = (above[j] + usize::from(from != to))
                .min(above[j + 1] + 1)
                .min(row[j] + 1);
            if i > 0 && j > 0 && *from == b[j - 1] && a[i - 1] == *to {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_recognised_and_others_are_not() {
        assert_eq!(mistakes("kitten", "sitting"), 3);
        assert_eq!(mistakes("", "abc"), 3);
        let candidates = ["sessions", "lock", "lock_wait", "level"];
        assert_eq!(nearest("session", candidates), Some("sessions"));
        assert_eq!(nearest("lock-wait", candidates), Some("lock_wait"));
        assert_eq!(mistakes("nmae", "name"), 1, "swapped letters are one mistake");
        assert_eq!(nearest("lokc", candidates), Some("lock"));
        assert_eq!(nearest("recovery", candidates), None);
    }
}
