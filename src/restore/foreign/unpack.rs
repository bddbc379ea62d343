//! A dump's stored bytes into text, in constant memory: gzip of one or many members, or nothing at all. Pure.

use std::io::Write as _;

use flate2::write::MultiGzDecoder;

/// RFC 1952 §2.3.1
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why stored bytes are no whole text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    #[error("it is no valid gzip: a part of it is not what was written (gzip -t says the same)")]
    Corrupt,
    #[error("its gzip ends too early: it is truncated")]
    Truncated,
}

/// Takes stored bytes, gives text.
#[derive(Debug)]
pub enum Unpacker {
    /// Too little to tell.
    Start(Vec<u8>),
    Plain,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Default for Unpacker {
    fn default() -> Self {
        Self::Start(Vec::new())
    }
}

impl Unpacker {
    /// The text that these bytes make; it may be a thousand times as long.
    ///
    /// # Errors
    /// [`UnpackError::Corrupt`]: a member fails its CRC or its length, or is none.
    pub fn push(&mut self, stored: &[u8]) -> Result<Vec<u8>, UnpackError> {
        if let Self::Start(first) = self {
            first.extend_from_slice(stored);
            if first.len() < GZIP.len() {
                return Ok(Vec::new());
            }
            let first = std::mem::take(first);
            *self = if first.starts_with(&GZIP) {
                Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))
            } else {
                Self::Plain
            };
            return self.push(&first);
        }
        match self {
            Self::Start(_) => Ok(Vec::new()),
            Self::Plain => Ok(stored.to_vec()),
            Self::Gzip(decoder) => {
                let written = decoder.write_all(stored).and_then(|()| decoder.flush());
                written.map_err(|_| UnpackError::Corrupt)?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }

    /// The rest, once all bytes are in; the CRC of the last member is checked.
    ///
    /// # Errors
    /// [`UnpackError::Truncated`] where the last member is not whole.
    pub fn finish(self) -> Result<Vec<u8>, UnpackError> {
        match self {
            Self::Start(first) => Ok(first),
            Self::Plain => Ok(Vec::new()),
            Self::Gzip(decoder) => decoder.finish().map_err(|_| UnpackError::Truncated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn unpack(stored: &[u8], piece: usize) -> Result<Vec<u8>, UnpackError> {
        let mut unpacker = Unpacker::default();
        let mut text = Vec::new();
        for part in stored.chunks(piece) {
            text.extend(unpacker.push(part)?);
        }
        text.extend(unpacker.finish()?);
        Ok(text)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    fn text() -> Vec<u8> {
        (0..3_000_u32)
            .flat_map(|n| format!("({n},'{}'),\n", n * n).into_bytes())
            .collect()
    }

    #[test]
    fn one_member_many_members_and_none_at_all() {
        let text = text();
        let (first, second) = text.split_at(text.len() / 3);
        let many = [gzip(first), gzip(b""), gzip(second)].concat();
        for piece in [1, 7, 1 << 20] {
            assert_eq!(unpack(&gzip(&text), piece).as_ref(), Ok(&text), "{piece}");
            assert_eq!(unpack(&many, piece).as_ref(), Ok(&text), "{piece}");
            assert_eq!(unpack(&text, piece).as_ref(), Ok(&text), "{piece}");
        }
        assert_eq!(unpack(b"-", 1), Ok(b"-".to_vec()));
    }

    #[test]
    fn cut_off_anywhere_it_is_told() {
        let text = text();
        let first = gzip(&text[..100]);
        let many = [first.clone(), gzip(&text[100..])].concat();
        for length in 2..many.len() {
            let got = unpack(&many[..length], 1_000);
            // Between two members gzip itself cannot know; the dump's last line tells.
            if length == first.len() {
                assert_eq!(got.as_deref(), Ok(&text[..100]));
            } else {
                assert_eq!(got, Err(UnpackError::Truncated), "{length} of {}", many.len());
            }
        }
    }

    #[test]
    fn a_changed_byte_is_told() {
        let text = text();
        let stored = gzip(&text);
        for at in (10..stored.len()).step_by(11) {
            let mut damaged = stored.clone();
            damaged[at] ^= 4;
            assert!(unpack(&damaged, 1_000).is_err(), "byte {at}");
        }
    }
}
