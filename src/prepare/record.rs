//! What was prepared on a machine, and what a look in the dark found, kept beside the backups in control data.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{BlobStore, Condition, StoreError};

/// What `planb prepare` left on one machine: `prepared/PREFIX/HOST.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    pub v: u32,
    /// By the store's clock.
    pub at: Timestamp,
    pub host: String,
    pub planb: String,
    /// Program's path, and its version or what it is made of.
    pub tools: BTreeMap<String, String>,
    pub mirrors: Vec<Mirror>,
    /// As the manifests name them, each there by its digest.
    pub images: Vec<String>,
}

/// The providers of one Terraform directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    pub dir: String,
    pub mirror: String,
    /// Packages, relative to the mirror, and the SHA-256 of each.
    pub packages: BTreeMap<String, String>,
}

/// Who looked. An agent and an operator look at the same steps, often on the same machine, but as different identities: what one may not
/// see, the other may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Looker {
    Agent,
    Operator,
    Runner,
}

impl Looker {
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Operator => "operator",
            Self::Runner => "runner",
        }
    }
}

/// What a look found: `dark/PREFIX/LOOKER/HOST.json`, the latest of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub v: u32,
    /// By the store's clock.
    pub at: Timestamp,
    pub host: String,
    pub looker: Looker,
    pub errors: usize,
    pub warnings: usize,
    /// The first of what would fail, in words.
    pub worst: Vec<String>,
    /// Sites whose database took a login from there.
    #[serde(default)]
    pub reached: Vec<String>,
}

/// `key`: tells prefixes of one container apart, as for claims.
pub fn prepared_name(key: &str, host: &str) -> String {
    format!("prepared/{key}/{host}.json")
}

pub fn looked_name(key: &str, looker: Looker, host: &str) -> String {
    format!("{}{}/{host}.json", looked_prefix(key), looker.word())
}

pub fn looked_prefix(key: &str) -> String {
    format!("dark/{key}/")
}

/// A machine that nobody looked from for so long is not counted any more, unless none of its kind looked since.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(45 * 24);

/// Of everything that was ever found, what still says something: agents first, of each kind the latest first.
pub fn standing(mut all: Vec<Looked>, now: Timestamp) -> Vec<Looked> {
    all.sort_by(|a, b| (a.looker, b.at, &a.host).cmp(&(b.looker, a.at, &b.host)));
    let mut last = None;
    all.retain(|one| {
        let is_latest = last.replace(one.looker) != Some(one.looker);
        is_latest || now.duration_since(one.at) < FORGOTTEN
    });
    all
}

/// Every record of a look. One that cannot be read as such is passed over: it is of another version.
///
/// # Errors
/// Those of the store.
pub async fn looks(control: &dyn BlobStore, key: &str) -> Result<Vec<Looked>, StoreError> {
    let mut found = Vec::new();
    for blob in control.list(&looked_prefix(key)).await? {
        match read(control, &blob.name).await {
            Ok(looked) => found.extend(looked),
            Err(StoreError::Invalid { detail, .. }) => tracing::debug!(detail, "passed over"),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// None where there is no such record.
///
/// # Errors
/// The store does not answer, or what is there is no record of ours.
pub async fn read<T: DeserializeOwned>(control: &dyn BlobStore, name: &str) -> Result<Option<T>, StoreError> {
    let Some(blob) = control.properties(name).await? else {
        return Ok(None);
    };
    let bytes = control.read(name, 0..blob.size_bytes, Some(&blob.etag)).await?;
    let read = serde_json::from_slice(&bytes).map_err(|error| StoreError::Invalid {
        store: control.describe(),
        detail: format!("{name} is no record of this version of PlanB: {error}"),
    })?;
    Ok(Some(read))
}

/// # Errors
/// Those of the store.
pub async fn write<T: Serialize>(control: &dyn BlobStore, name: &str, record: &T) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(record).map_err(|error| StoreError::Invalid {
        store: control.describe(),
        detail: format!("{name} cannot be written: {error}"),
    })?;
    control.put(name, Bytes::from(bytes), Condition::Always).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_nobody_looked_from_any_more_is_forgotten_and_the_last_of_its_kind_is_not() {
        let looked = |looker, host: &str, at: &str| Looked {
            v: 1,
            at: at.parse().expect("a time"),
            host: host.to_owned(),
            looker,
            errors: 0,
            warnings: 0,
            worst: Vec::new(),
            reached: Vec::new(),
        };
        let all = vec![
            looked(Looker::Runner, "vm", "2025-06-01T00:00:00Z"),
            looked(Looker::Operator, "old-laptop", "2025-06-01T00:00:00Z"),
            looked(Looker::Operator, "laptop", "2026-01-01T00:00:00Z"),
            looked(Looker::Operator, "desk", "2026-01-02T00:00:00Z"),
            looked(Looker::Agent, "desk", "2026-01-03T00:00:00Z"),
        ];
        let left = standing(all, "2026-01-04T00:00:00Z".parse().expect("a time"));
        let left: Vec<_> = left.iter().map(|one| (one.looker, one.host.as_str())).collect();
        let wanted = [
            (Looker::Agent, "desk"),
            (Looker::Operator, "desk"),
            (Looker::Operator, "laptop"),
            (Looker::Runner, "vm"),
        ];
        assert_eq!(left, wanted);
    }
}
