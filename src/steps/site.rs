//! A static site as it is published: its files with their placeholders filled in, and what browsers are told of each. Pure.
//!
//! A line that names a placeholder which has no value is left out, so that one page serves both before a disaster, when nobody
//! knows since when, and in it.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use crate::store::Served;

/// What a page may say. Every value is put in as text, never as HTML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// `{{TIME}}`: since when nothing serves.
    pub time: Option<String>,
    /// `{{EXPECTED}}`: when to look again.
    pub expected: Option<String>,
    /// `{{CONTACT}}`
    pub contact: Option<String>,
}

impl Words {
    /// `expected`: how long it is likely to take from `since` on; without it the page is one that always stands.
    pub fn new(contact: Option<&str>, since: Timestamp, expected: Option<SignedDuration>, utc_offset: i32) -> Self {
        let shown = |at: Timestamp| at_offset(at, utc_offset);
        Self {
            time: expected.map(|_| shown(since)),
            expected: expected
                .and_then(|expected| since.checked_add(expected).ok())
                .map(shown),
            contact: contact.map(str::to_owned),
        }
    }

    fn pairs(&self) -> [(&'static str, Option<&str>); 3] {
        [
            ("{{TIME}}", self.time.as_deref()),
            ("{{EXPECTED}}", self.expected.as_deref()),
            ("{{CONTACT}}", self.contact.as_deref()),
        ]
    }

    /// `html` with its placeholders filled in.
    pub fn fill(&self, html: &str) -> String {
        let mut filled = String::with_capacity(html.len());
        for line in html.split_inclusive('\n') {
            let pairs = self.pairs();
            if pairs.iter().any(|(name, value)| value.is_none() && line.contains(name)) {
                continue;
            }
            filled.push_str(&put_in(line, &pairs));
        }
        filled
    }
}

/// From left to right, so that a value which looks like a placeholder stays what it is.
fn put_in(line: &str, pairs: &[(&'static str, Option<&str>)]) -> String {
    let mut filled = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("{{") {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let found = pairs.iter().find(|(name, _)| rest.starts_with(name));
        let length = match found {
            Some((name, value)) => {
                filled.push_str(&escaped(value.unwrap_or_default()));
                name.len()
            }
            None => {
                filled.push_str("{{");
                2
            }
        };
        rest = &rest[length..];
    }
    filled.push_str(rest);
    filled
}

/// For text and for attributes in quotes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// To the minute, as people in that place read it.
fn at_offset(at: Timestamp, utc_offset: i32) -> String {
    let offset = Offset::from_seconds(utc_offset).unwrap_or(Offset::UTC);
    let there = at.to_zoned(TimeZone::fixed(offset));
    let zone = match utc_offset {
        0 => "UTC".to_owned(),
        32_400 => "KST".to_owned(),
        seconds => {
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            format!("UTC{sign}{:02}:{:02}", minutes / 60, minutes % 60)
        }
    };
    format!("{} {zone}", there.strftime("%Y-%m-%d %H:%M"))
}

/// Whether placeholders are looked for in a file.
pub fn is_html(name: &str) -> bool {
    matches!(extension(name).as_deref(), Some("html" | "htm"))
}

fn extension(name: &str) -> Option<String> {
    let file = name.rsplit('/').next()?;
    Some(file.rsplit_once('.')?.1.to_ascii_lowercase())
}

/// What browsers are told. Short-lived: once the service is back, nobody must see the page for long.
pub fn served(name: &str) -> Served {
    let content_type = match extension(name).as_deref() {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("gif") => "image/gif",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    };
    Served {
        content_type: content_type.to_owned(),
        cache_control: Some("public, max-age=60".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_what_is_not_is_left_out() {
        let page = "<p>down</p>\n<p>since {{TIME}}</p>\n<p>again {{EXPECTED}}</p>\n<a href=\"{{CONTACT}}\">{{CONTACT}} {{OTHER}}</a>";
        let since: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
        let standing = Words::new(Some("a\"<b>&'"), since, None, 0).fill(page);
        assert_eq!(
            standing,
            "<p>down</p>\n<a href=\"a&quot;&lt;b&gt;&amp;&#39;\">a&quot;&lt;b&gt;&amp;&#39; {{OTHER}}</a>"
        );
        let hour = Some(SignedDuration::from_hours(1));
        let told = Words::new(Some("{{TIME}}"), since, hour, 32_400).fill(page);
        assert!(
            told.contains("<p>since 2026-11-22 03:00 KST</p>\n<p>again 2026-11-22 04:00 KST</p>"),
            "{told}"
        );
        assert!(
            told.contains("<a href=\"{{TIME}}\">"),
            "a value is no placeholder: {told}"
        );
        assert!(
            Words::new(None, since, hour, -12_600)
                .fill(page)
                .contains("since 2026-11-21 14:30 UTC-03:30")
        );
        assert!(!Words::default().fill(page).contains("<a"));
    }

    #[test]
    fn browsers_are_told_what_a_file_is() {
        assert_eq!(served("index.html").content_type, "text/html; charset=utf-8");
        assert_eq!(served("a.b/LOGO.SVG").content_type, "image/svg+xml");
        assert_eq!(served("a.css/README").content_type, "application/octet-stream");
        assert!(is_html("x/index.HTM") && !is_html("html"));
    }
}
