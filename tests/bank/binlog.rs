//! Which transfer stands where in the source's binary log: read from the files, since a test of positions must not
//! believe what it tests.
//!
//! Event header: <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html>;
//! row events: <https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol>.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A place in the log: number of the file, byte in it.
pub type At = (u64, u64);

const HEADER: usize = 19;
const MAGIC: usize = 4;
const XID: u8 = 16;
const TABLE_MAP: u8 = 19;
/// MariaDB writes version 1 of row events, MySQL version 2.
const WRITE_ROWS_V1: u8 = 23;
const WRITE_ROWS_V2: u8 = 30;

/// Every transfer of a server's log: where it ends, in log order.
#[derive(Debug, Default)]
pub struct Log {
    ends: Vec<(At, i64, i64)>,
    of: HashMap<(i64, i64), usize>,
}

pub fn number_of(file: &str) -> u64 {
    file.rsplit('.')
        .next()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("{file} is no binlog"))
}

/// The log's files in order.
pub fn files(data_dir: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(data_dir).expect("a data directory");
    let mut files: Vec<PathBuf> = listing
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix("binlog.")
                .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    files.sort();
    files
}

impl Log {
    /// Reads all of it. The writers must have stopped.
    pub fn read(data_dir: &Path) -> Self {
        let mut log = Self::default();
        for path in files(data_dir) {
            let bytes = std::fs::read(&path).expect("a binlog");
            log.file(number_of(&path.to_string_lossy()), &bytes);
        }
        log
    }

    fn file(&mut self, number: u64, bytes: &[u8]) {
        let (mut ledger, mut transfer) = (None, None);
        let mut at = MAGIC;
        while at + HEADER <= bytes.len() {
            let (kind, size) = (bytes[at + 4], little(&bytes[at + 9..at + 13]));
            let size = usize::try_from(size).expect("a size");
            assert!(
                size >= HEADER && at + size <= bytes.len(),
                "a torn event at {at} of binlog {number}"
            );
            let body = &bytes[at + HEADER..at + size];
            at += size;
            match kind {
                TABLE_MAP if body[8..].starts_with(b"\x04bank\0\x06ledger\0") => ledger = Some(little(&body[..6])),
                WRITE_ROWS_V1 | WRITE_ROWS_V2 if ledger == Some(little(&body[..6])) => {
                    let extra = if kind == WRITE_ROWS_V2 { little(&body[8..10]) } else { 0 };
                    // After the header: number of columns, bitmap of those present, bitmap of NULLs, then the row.
                    let row = &body[8 + usize::try_from(extra).expect("short") + 3..];
                    transfer = Some((signed(&row[..4]), signed(&row[4..12])));
                }
                XID => {
                    ledger = None;
                    // Those up to 0 are the opening.
                    if let Some((w, n)) = transfer.take().filter(|(_, n)| *n > 0) {
                        self.of.insert((w, n), self.ends.len());
                        self.ends.push(((number, at as u64), w, n));
                    }
                }
                _ => {}
            }
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Where writer `w`'s transfer `n` ends; none if it is not in the log.
    fn end_of(&self, w: usize, n: i64) -> Option<At> {
        let w = i64::try_from(w).expect("few");
        self.of.get(&(w, n)).map(|i| self.ends[*i].0)
    }

    /// The end of the transfer before the last one that ends at or before `at`, and of the first one after `at`.
    pub fn around(&self, at: At) -> (At, At) {
        let after = self.ends.partition_point(|(end, _, _)| *end <= at);
        assert!(
            after >= 2 && after < self.ends.len(),
            "nothing was written around {at:?}"
        );
        (self.ends[after - 2].0, self.ends[after].0)
    }

    /// Everything in the dump ends at or before `at`. The error names a transfer for which that is not so.
    pub fn nothing_after(&self, at: At, newest: &[i64]) -> Result<(), String> {
        for (w, n) in newest.iter().enumerate().filter(|(_, n)| **n > 0) {
            let end = self.end_of(w, *n);
            if end.is_none_or(|end| end > at) {
                return Err(format!(
                    "transfer {n} of writer {w} is in the dump, but ends at {end:?}, after {at:?}"
                ));
            }
        }
        Ok(())
    }

    /// Everything that ends at or before `at` is in the dump.
    pub fn nothing_missing(&self, at: At, newest: &[i64]) -> Result<(), String> {
        for (w, n) in newest.iter().enumerate() {
            if let Some(end) = self.end_of(w, n + 1).filter(|end| *end <= at) {
                return Err(format!(
                    "transfer {} of writer {w} is not in the dump, but ends at {end:?}, not after {at:?}",
                    n + 1
                ));
            }
        }
        Ok(())
    }
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * u32::try_from(bytes.len()).expect("short");
    (little(bytes) << unused).cast_signed() >> unused
}
