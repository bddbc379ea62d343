//! What was prepared on a machine, and what a look in the dark found, kept beside the backups in control data.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
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

/// What a look found: `dark/PREFIX/PLACE.json`, the latest of each place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub v: u32,
    /// By the store's clock.
    pub at: Timestamp,
    pub host: String,
    /// `operator` or `runner`.
    pub place: String,
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

pub fn looked_name(key: &str, place: &str) -> String {
    format!("dark/{key}/{place}.json")
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
