//! What a server's binlog says about the time since a backup: that nothing happened, which transactions did, or that nobody can
//! tell from it. Pure.

use crate::format::index::{Place, Position};
use crate::mysql::dialect::Family;

/// What was written since, as far as the log tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// Not one transaction.
    Nothing,
    /// In words. Not all of them are the application's: a fence writes, too.
    Transactions(String),
    /// Why.
    Unknown(&'static str),
}

/// The earliest place at which the backup may stand.
pub fn from(position: &Position) -> Option<Place> {
    match position {
        Position::None => None,
        Position::Exact { file, position, gtid } => Some(Place {
            file: file.clone(),
            position: *position,
            gtid: gtid.clone(),
        }),
        Position::Range { from, .. } => Some(from.clone()),
    }
}

/// `is_same_server`: files and positions mean the same. `missing`: what the server has executed beyond the backup's GTID set,
/// where it could say so.
pub fn since(
    family: Family,
    position: &Position,
    is_same_server: bool,
    now: Option<&Place>,
    missing: Option<&str>,
) -> Since {
    let is_range = matches!(position, Position::Range { .. });
    let Some(then) = from(position) else {
        return Since::Unknown("the backup knows no place in a binlog");
    };
    if family == Family::MySql && !then.gtid.is_empty() {
        match missing {
            Some("") => return Since::Nothing,
            Some(set) => {
                return Since::Transactions(format!("{} transactions by GTID: {set}", count(set)));
            }
            None => {}
        }
    }
    let Some(now) = now else {
        return Since::Unknown("the server shows no binlog to this account");
    };
    if !is_same_server {
        return Since::Unknown("it is another server than the backup's");
    }
    if (&then.file, then.position) == (&now.file, now.position) && !is_range {
        return Since::Nothing;
    }
    let then = format!("{}:{}", then.file, then.position);
    Since::Transactions(format!(
        "everything in the binlog from {then} to {}:{}",
        now.file, now.position
    ))
}

/// Transactions in a GTID set of MySQL's: `uuid:1-5:7,uuid:tag:1-3`.
fn count(set: &str) -> u64 {
    let length = |interval: &str| {
        let (first, last) = interval.split_once('-').unwrap_or((interval, interval));
        let (first, last) = (first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?);
        Some(last.saturating_sub(first) + 1)
    };
    // The server's id comes first, and is no number.
    set.split(',')
        .flat_map(|of| of.split(':').skip(1))
        .filter_map(length)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: u64, gtid: &str) -> Place {
        Place {
            file: "binlog.000003".into(),
            position,
            gtid: gtid.into(),
        }
    }

    fn exact(position: u64, gtid: &str) -> Position {
        Position::Exact {
            file: "binlog.000003".into(),
            position,
            gtid: gtid.into(),
        }
    }

    #[test]
    fn by_gtid_where_both_have_them_else_by_position() {
        let uuid = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let then = exact(100, &format!("{uuid}:1-5"));
        assert_eq!(since(Family::MySql, &then, false, None, Some("")), Since::Nothing);
        let told = since(
            Family::MySql,
            &then,
            true,
            None,
            Some(&format!("{uuid}:6-8:11,\n{uuid}:tag:1-2")),
        );
        assert!(
            matches!(&told, Since::Transactions(text) if text.starts_with("6 transactions")),
            "{told:?}"
        );
        assert_eq!(
            since(
                Family::MariaDb,
                &exact(100, "0-1-4"),
                true,
                Some(&place(100, "0-1-4")),
                None
            ),
            Since::Nothing
        );
        let told = since(
            Family::MariaDb,
            &exact(100, "0-1-4"),
            true,
            Some(&place(140, "0-1-5")),
            None,
        );
        assert!(matches!(&told, Since::Transactions(text) if text.contains("binlog.000003:100 to binlog.000003:140")));
    }

    #[test]
    fn where_nobody_can_tell_nothing_is_claimed() {
        let unknown = |since| matches!(since, Since::Unknown(_));
        assert!(unknown(since(
            Family::MySql,
            &Position::None,
            true,
            Some(&place(1, "")),
            None
        )));
        assert!(unknown(since(Family::MySql, &exact(1, ""), true, None, None)));
        assert!(unknown(since(
            Family::MySql,
            &exact(1, ""),
            false,
            Some(&place(1, "")),
            None
        )));
        // The backup may stand after what was written last, or before it.
        let range = Position::Range {
            from: place(1, ""),
            to: place(9, ""),
        };
        assert!(matches!(
            since(Family::MySql, &range, true, Some(&place(1, "")), None),
            Since::Transactions(_)
        ));
    }
}
