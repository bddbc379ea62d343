//! What a journal holds: numbered entries, each chained to the one before by its digest. Pure.
//!
//! An entry is two lines: the JSON object, and `sha256 ` with the digest of the first line (in hex), so that a torn or altered one
//! shows. No entry ever holds a secret: outputs that are sensitive are left out, and read again where they are needed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::plan::{Aim, Place, Plan, Site};
use super::state::Standing;

/// The version of entries that this program writes and reads.
const VERSION: u32 = 1;

/// Stands in the place of an entry where nobody may go on.
pub const SEAL: &[u8] = b"sealed\n";

/// Before the first entry of all.
pub const NOTHING_BEFORE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub v: u32,
    /// Counts operations of the service, from 1.
    pub operation: u64,
    /// Counts entries of the operation, from 1.
    pub number: u64,
    /// SHA-256 (hex) of the entry before, whichever operation it belongs to.
    pub previous: String,
    /// In force when it was written.
    pub epoch: u64,
    /// By the store's clock.
    pub at: Timestamp,
    pub by: By,
    pub event: Event,
}

/// Who wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// A person, or `runner`.
    pub who: String,
    pub host: String,
    /// Random for each process.
    pub run: String,
}

/// The backup that an operation works with, and what is lost by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chosen {
    pub id: String,
    /// Full name of its blob.
    pub blob: String,
    pub digest: String,
    pub consistent_at: Timestamp,
}

/// A rule that somebody waived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub rule: String,
    pub reason: String,
    pub who: String,
}

/// How sure it is that a site takes no more writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Nobody could try a write.
    Unprovable,
    /// A write was tried, and refused.
    Proven,
}

/// What came of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// It was there already; nothing was done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// For later steps; nothing sensitive.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Value>,
    /// Of a fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// Of a last backup, or of a restore: which one it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Chosen>,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    Done,
    Abandoned,
    /// Past the commit point, and the site it went to could not be opened: nobody serves, and a stand-down lets the other
    /// one serve again.
    GivenUp,
}

/// What happened. State is what folding these gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Event {
    Opened {
        aim: Aim,
        plan: Plan,
        /// SHA-256 of everything that the configuration says of these steps.
        plan_digest: String,
        /// As the operation before left it.
        standing: Standing,
        backup: Option<Chosen>,
        /// A person chose that backup: no newer one takes its place.
        pinned: bool,
        /// Different people who must agree, whoever opened it included.
        approvers: u32,
        /// What was looked at before, for whoever asks later.
        facts: BTreeMap<String, String>,
        accepted: Vec<Accepted>,
    },
    Approved,
    Accept(Accepted),
    /// A process goes on with the operation.
    Taken {
        at: Place,
    },
    /// It stopped by itself: nothing of its is at work any more.
    Left,
    /// `bound`: until then somebody else's effect may still happen after its process is gone.
    Started {
        step: String,
        bound: Timestamp,
    },
    Done {
        step: String,
        outcome: Outcome,
    },
    Failed {
        step: String,
        error: String,
        /// How many tries it uses up: all that are left, where trying again cannot help.
        tries: u32,
    },
    /// There is a newer backup than the one restored: the restore and what follows from it are done again.
    Renewed {
        backup: Chosen,
    },
    /// Nothing new begins; what was done is taken back.
    Abandoning {
        reason: String,
    },
    TakingBack {
        step: String,
        bound: Timestamp,
    },
    TakenBack {
        step: String,
        note: String,
    },
    /// A fence that could not be proven is proven now; also written when no operation is open.
    FenceProven {
        site: Site,
        /// What the next operation begins with, if none is open.
        standing: Standing,
    },
    Ended {
        how: Ended,
        /// What the next operation begins with.
        standing: Standing,
    },
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error("it is cut off")]
    Torn,
    #[error("it is closed: after damage somebody answered for a new beginning (--accept journal-damaged)")]
    Sealed,
    #[error("it was altered: its digest is another one")]
    Altered,
    #[error("it is no journal entry ({0})")]
    Malformed(String),
    #[error("it is of version {0}, which this planb does not know: use a newer one")]
    Newer(u32),
}

impl Entry {
    pub fn new(operation: u64, number: u64, previous: &str, epoch: u64, at: Timestamp, by: By, event: Event) -> Self {
        Self {
            v: VERSION,
            operation,
            number,
            previous: previous.to_owned(),
            epoch,
            at,
            by,
            event,
        }
    }

    /// The bytes of the entry, and its digest.
    pub fn encode(&self) -> (Vec<u8>, String) {
        // Strings, numbers and times always encode.
        let line = serde_json::to_string(self).unwrap_or_default();
        let digest = digest(line.as_bytes());
        (format!("{line}\nsha256 {digest}\n").into_bytes(), digest)
    }

    /// # Errors
    /// [`EntryError`]; nothing in it is guessed.
    pub fn decode(bytes: &[u8]) -> Result<(Self, String), EntryError> {
        if bytes == SEAL {
            return Err(EntryError::Sealed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| EntryError::Altered)?;
        let (line, rest) = text.split_once('\n').ok_or(EntryError::Torn)?;
        let told = rest
            .strip_prefix("sha256 ")
            .and_then(|rest| rest.strip_suffix('\n'))
            .ok_or(EntryError::Torn)?;
        let found = digest(line.as_bytes());
        if told != found {
            return Err(if told.len() < found.len() {
                EntryError::Torn
            } else {
                EntryError::Altered
            });
        }
        let version =
            serde_json::from_str::<Versioned>(line).map_err(|error| EntryError::Malformed(error.to_string()))?;
        if version.v != VERSION {
            return Err(EntryError::Newer(version.v));
        }
        let entry = serde_json::from_str(line).map_err(|error| EntryError::Malformed(error.to_string()))?;
        Ok((entry, found))
    }
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let by = By {
            who: "ana".to_owned(),
            host: "laptop".to_owned(),
            run: "1f".to_owned(),
        };
        let event = Event::Failed {
            step: "database".to_owned(),
            error: "no\nspace".to_owned(),
            tries: 1,
        };
        Entry::new(3, 7, NOTHING_BEFORE, 2, Timestamp::UNIX_EPOCH, by, event)
    }

    #[test]
    fn an_entry_comes_back_as_it_was() {
        let (bytes, digest) = entry().encode();
        assert_eq!(Entry::decode(&bytes), Ok((entry(), digest)));
    }

    #[test]
    fn every_cut_and_every_flipped_bit_shows() {
        let (bytes, _) = entry().encode();
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[at / 8] ^= 1 << (at % 8);
            assert!(Entry::decode(&altered).is_err(), "bit {at}");
        }
    }
}
