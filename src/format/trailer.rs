//! The last member: empty, with a FEXTRA field (RFC 1952 §2.3.1.1, subfield `PB`) that says where the index is.
//!
//! Its length never changes, so one small read at the end of the blob finds everything. Layout, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 10 | gzip header: `1f 8b 08 04`, MTIME 0, XFL 0, OS 255 |
//! | 2 | XLEN: 60 |
//! | 4 | subfield id `PB`, its length 56 |
//! | 4 | format version (u32) |
//! | 8 | offset of the index member in the file (u64) |
//! | 8 | stored length of the index member (u64) |
//! | 32 | SHA-256 of the index member's stored bytes |
//! | 4 | CRC-32 of the 52 bytes before |
//! | 2 | deflate of nothing: `03 00` |
//! | 8 | CRC-32 and length of nothing: zeros |

/// Stored length of the last member in bytes.
pub const TRAILER_BYTES: usize = 82;
const PAYLOAD_BYTES: usize = 56;
const HEADER: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 60, 0, b'P', b'B', 56, 0];
const END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Where the index is, and what it must hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    pub format: u32,
    pub index_offset: u64,
    pub index_stored_bytes: u64,
    /// SHA-256 of the index's stored bytes: the backup's digest.
    pub digest: [u8; 32],
}

/// Why the end of a file is no trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrailerError {
    #[error("its last {TRAILER_BYTES} bytes are not a PlanB trailer: truncated, or not a PlanB backup")]
    NotATrailer,
    #[error("its trailer fails its own checksum")]
    Checksum,
    #[error("it is of format {0}; this planb reads format {format}", format = super::FORMAT)]
    Format(u32),
}

impl Trailer {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TRAILER_BYTES);
        bytes.extend_from_slice(&HEADER);
        bytes.extend_from_slice(&self.format.to_le_bytes());
        bytes.extend_from_slice(&self.index_offset.to_le_bytes());
        bytes.extend_from_slice(&self.index_stored_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.digest);
        let crc = crc32fast::hash(&bytes[HEADER.len()..]);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&END);
        bytes
    }

    /// Reads the trailer from the end of a file.
    ///
    /// # Errors
    /// Says in which way `end` is not one; any changed bit is noticed.
    pub fn decode(end: &[u8]) -> Result<Self, TrailerError> {
        let start = end.len().checked_sub(TRAILER_BYTES).ok_or(TrailerError::NotATrailer)?;
        let bytes = &end[start..];
        let (header, rest) = bytes.split_at(HEADER.len());
        let (payload, tail) = rest.split_at(PAYLOAD_BYTES);
        if header != HEADER || tail != END {
            return Err(TrailerError::NotATrailer);
        }
        let (fields, crc) = payload.split_at(PAYLOAD_BYTES - 4);
        if crc != crc32fast::hash(fields).to_le_bytes() {
            return Err(TrailerError::Checksum);
        }
        let (format, offset, length, digest) = (take(fields, 0), take(fields, 4), take(fields, 12), take(fields, 20));
        let trailer = Self {
            format: u32::from_le_bytes(format),
            index_offset: u64::from_le_bytes(offset),
            index_stored_bytes: u64::from_le_bytes(length),
            digest,
        };
        if trailer.format == super::FORMAT {
            Ok(trailer)
        } else {
            Err(TrailerError::Format(trailer.format))
        }
    }
}

fn take<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[from..from + N]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Trailer {
        Trailer {
            format: 1,
            index_offset: 123_456_789_012,
            index_stored_bytes: 4321,
            digest: [7; 32],
        }
    }

    #[test]
    fn it_reads_back_and_has_its_fixed_length() {
        let bytes = example().encode();
        assert_eq!(bytes.len(), TRAILER_BYTES);
        assert_eq!(Trailer::decode(&bytes), Ok(example()));
    }

    #[test]
    fn it_is_a_gzip_member_that_holds_nothing() {
        let mut text = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(example().encode().as_slice()),
            &mut text,
        )
        .expect("a valid gzip member");
        assert!(text.is_empty());
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_noticed() {
        let bytes = example().encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Trailer::decode(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Trailer::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_format_is_named() {
        let bytes = Trailer { format: 2, ..example() }.encode();
        assert_eq!(Trailer::decode(&bytes), Err(TrailerError::Format(2)));
    }
}
