//! Figures as people read them.

use std::time::Duration;

use jiff::Timestamp;

/// Of a comparison whose servers print definitions each in its own way.
pub const NAMES_ONLY: &str = "definitions were compared by names, keys and owners only, since the server is of another version than \
                              the source";

/// `1.4 GiB`
pub fn bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// `42 s`, `3 min 10 s`, `5 h 2 min`, `3 d 4 h`
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// How long ago; `in the future` if it is.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    match Duration::try_from(now.duration_since(at)) {
        Ok(age) => format!("{} ago", duration(age)),
        Err(_) => "in the future".to_owned(),
    }
}

/// `2026-11-21 03:00:00Z`
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// RFC 3339 with milliseconds, for JSON.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// Columns as wide as their widest cell; the first row is the heading.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}
