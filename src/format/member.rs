//! One member: a complete gzip stream (RFC 1952), compressed in one go.

use libdeflater::{CompressionLvl, Compressor, Decompressor};

/// Compresses members one after another; keeps its tables between them.
pub struct Packer {
    compressor: Compressor,
}

impl Packer {
    /// `level` 1 (fast) to 12 (small); others are brought into that range.
    pub fn new(level: u8) -> Self {
        let level = CompressionLvl::new(i32::from(level.clamp(1, 12))).unwrap_or_default();
        Self {
            compressor: Compressor::new(level),
        }
    }

    /// Compresses `raw` into one gzip member, into `stored` (cleared first, its memory reused).
    ///
    /// # Errors
    /// [`PackError`], which libdeflate's own bound for the worst input makes impossible as far as anyone knows; but a
    /// member that is not there must never pass for one.
    pub fn pack(&mut self, raw: &[u8], stored: &mut Vec<u8>) -> Result<(), PackError> {
        stored.clear();
        stored.resize(self.compressor.gzip_compress_bound(raw.len()), 0);
        let written = self.compressor.gzip_compress(raw, stored).map_err(|_| PackError)?;
        stored.truncate(written);
        Ok(())
    }
}

/// A member could not be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a member could not be compressed")]
pub struct PackError;

/// A member whose bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a gzip member is damaged")]
pub struct Damaged;

/// Opens one gzip member of known length; its CRC is checked on the way.
///
/// # Errors
/// [`Damaged`] if it is no gzip, fails its CRC or does not hold exactly `raw_bytes`.
pub fn unpack(stored: &[u8], raw_bytes: usize) -> Result<Vec<u8>, Damaged> {
    let mut raw = vec![0; raw_bytes];
    let written = Decompressor::new()
        .gzip_decompress(stored, &mut raw)
        .map_err(|_| Damaged)?;
    if written == raw_bytes { Ok(raw) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_one_after_another_are_one_gzip_file() {
        let mut packer = Packer::new(3);
        let (mut file, mut stored) = (Vec::new(), Vec::new());
        for part in [b"SELECT 1;\n".as_slice(), b"", b"SELECT 2;\n"] {
            packer.pack(part, &mut stored).expect("packed");
            file.extend_from_slice(&stored);
        }
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(file.as_slice()), &mut text)
            .expect("gzip");
        assert_eq!(text, "SELECT 1;\nSELECT 2;\n");
    }

    #[test]
    fn no_flipped_bit_yields_other_data() {
        let raw: Vec<u8> = (0..2000_u32).flat_map(|i| (i * i).to_le_bytes()).collect();
        let mut stored = Vec::new();
        Packer::new(3).pack(&raw, &mut stored).expect("packed");
        assert_eq!(unpack(&stored, raw.len()), Ok(raw.clone()));
        // Some bits carry nothing (FTEXT, MTIME, XFL, OS, padding): those are covered by the index's SHA-256 only.
        let mut harmless = 0;
        for position in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[position] ^= 1;
            match unpack(&damaged, raw.len()) {
                Ok(same) if same == raw => harmless += 1,
                Ok(_) => panic!("byte {position}: other data passed its CRC"),
                Err(Damaged) => {}
            }
        }
        assert!(harmless <= 12, "{harmless} bits of {} carry nothing", stored.len());
    }
}
