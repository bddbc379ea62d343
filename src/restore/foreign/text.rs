//! A foreign dump as text, from wherever it is, in constant memory; and whether it is whole.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;

use super::DumpError;
use super::unpack::Unpacker;
use crate::backup::archive::ReadError;
use crate::restore::RestoreError;
use crate::store::blob::Blob;

/// Read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// Unpacked at once: its text may be a thousand times as long.
const SLICE_BYTES: usize = 32 << 10;
/// What a backup of PlanB begins with (`dump/script.rs`).
const OWN_HEAD: &[u8] = b"-- PlanB backup";
/// What both tools write last.
const LAST_LINE: &[u8] = b"-- Dump completed";
/// Holds the last line, whatever it says of the time.
const TAIL_BYTES: usize = 512;

/// Where a dump is read from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Anything with ranges; `check_first` where reading it twice costs little.
    Blob { blob: Arc<dyn Blob>, check_first: bool },
    /// Can be read once.
    StandardInput,
}

impl Source {
    pub fn size_bytes(&self) -> Option<u64> {
        match self {
            Self::Blob { blob, .. } => Some(blob.size_bytes()),
            Self::StandardInput => None,
        }
    }

    async fn read(&self, at: u64) -> Result<Bytes, RestoreError> {
        match self {
            Self::Blob { blob, .. } => {
                let end = blob.size_bytes().min(at + PIECE_BYTES);
                if at >= end {
                    return Ok(Bytes::new());
                }
                Ok(blob.read(at..end).await.map_err(ReadError::from)?)
            }
            Self::StandardInput => {
                let read = tokio::task::spawn_blocking(|| {
                    let mut piece = Vec::new();
                    std::io::stdin().lock().take(PIECE_BYTES).read_to_end(&mut piece)?;
                    Ok::<_, std::io::Error>(Bytes::from(piece))
                });
                let read = read.await.map_err(|error| RestoreError::Panicked(error.to_string()))?;
                read.map_err(|error| DumpError::Input(error.to_string()).into())
            }
        }
    }
}

/// A dump being read.
#[derive(Debug)]
pub struct Text<'a> {
    source: &'a Source,
    unpacker: Option<Unpacker>,
    /// Read and not unpacked yet.
    pending: Bytes,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    /// Held back until it is known that the file is none of PlanB's own.
    head: Option<Vec<u8>>,
    tail: Vec<u8>,
}

impl<'a> Text<'a> {
    pub fn new(source: &'a Source) -> Self {
        Self {
            source,
            unpacker: Some(Unpacker::default()),
            pending: Bytes::new(),
            stored_bytes: 0,
            raw_bytes: 0,
            head: Some(Vec::new()),
            tail: Vec::new(),
        }
    }

    /// The next piece of text; none once all of it was there, its CRC is right and its last line was seen.
    ///
    /// # Errors
    /// [`DumpError`] where it is not whole; the store's.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RestoreError> {
        let Some(mut unpacker) = self.unpacker.take() else {
            return Ok(None);
        };
        if self.pending.is_empty() {
            self.pending = self.source.read(self.stored_bytes).await?;
            self.stored_bytes += self.pending.len() as u64;
        }
        let is_end = self.pending.is_empty();
        let mut text;
        if is_end {
            text = unpacker.finish().map_err(DumpError::from)?;
        } else {
            let slice = self.pending.split_to(self.pending.len().min(SLICE_BYTES));
            text = unpacker.push(&slice).map_err(DumpError::from)?;
            self.unpacker = Some(unpacker);
        }
        self.raw_bytes += text.len() as u64;
        self.remember(&text);
        if let Some(mut head) = self.head.take() {
            head.append(&mut text);
            if head.len() < OWN_HEAD.len() && !is_end {
                self.head = Some(head);
                return Ok(Some(Vec::new()));
            }
            if head.starts_with(OWN_HEAD) {
                return Err(self.own());
            }
            text = head;
        }
        if is_end && !is_last_line(&self.tail) {
            return Err(DumpError::NoLastLine.into());
        }
        Ok(Some(text))
    }

    fn remember(&mut self, text: &[u8]) {
        self.tail
            .extend_from_slice(&text[text.len().saturating_sub(TAIL_BYTES)..]);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    fn own(&self) -> RestoreError {
        match self.source {
            Source::Blob { .. } => DumpError::Own.into(),
            Source::StandardInput => RestoreError::Refused(vec![
                "standard input holds a PlanB backup, which is read from its end; put it into a file and give that"
                    .to_owned(),
            ]),
        }
    }
}

/// Whether a dump's text ends as the tools end it.
fn is_last_line(tail: &[u8]) -> bool {
    let tail = tail.trim_ascii_end();
    let line = tail.rsplit(|&b| b == b'\n').next().unwrap_or_default();
    line.starts_with(LAST_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_line_of_its_own_at_the_very_end_says_that_it_is_whole() {
        assert!(is_last_line(b"x;\n\n-- Dump completed on 2026-01-01  3:00:00\n"));
        assert!(is_last_line(b"x;\n-- Dump completed\r\n"));
        assert!(!is_last_line(
            b"-- Dump completed on 2026-01-01\nINSERT INTO t VALUES (1);\n"
        ));
        assert!(!is_last_line(b"INSERT INTO t VALUES ('-- Dump completed on 2026-01-01"));
        assert!(!is_last_line(b""));
    }
}
