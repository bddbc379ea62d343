//! Names of uncommitted blocks: all equally long, and different for every attempt.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::store::BlockNumber;

/// 16 hex digits from the run id, `-`, ten digits of number: 27 bytes, so 36 base64 characters without `=`.
///
/// The service refuses ids of different length under one blob name, even from two attempts; hence a hash,
/// whatever the length of the run id. Blocks of different attempts must differ, or one attempt's bytes could end
/// up in another's blob.
pub(super) fn block_id(run_id: &str, block: BlockNumber) -> Vec<u8> {
    let mut id = String::with_capacity(27);
    for byte in Sha256::digest(run_id.as_bytes()).iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    let _ = write!(id, "-{block:010}");
    id.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_equally_long_and_never_shared() {
        let ids = [
            block_id("ab", 0),
            block_id("ab", u32::MAX),
            block_id("abc", 0),
            block_id(&"f".repeat(99), 50_000),
        ];
        assert!(ids.iter().all(|id| id.len() == 27));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
