//! The configuration that a rehearsal began with, kept beside its journal: whatever becomes of the plan, or of PlanB, meanwhile, what was
//! made is taken back by what it was made by. It holds no secret: those are named there, never written.

use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::backup::claim;
use crate::cli::failure::Failure;
use crate::cli::open;
use crate::config::Config;
use crate::drill::report::facts;
use crate::dump::pipeline::hex;
use crate::recovery::operation::Operation;
use crate::store::{Condition, StoreError};

/// What is larger is no configuration of ours.
const LARGEST_BYTES: u64 = 4 << 20;

/// What a rehearsal began with.
pub enum Origin {
    Config(Box<Config>),
    /// Gone, altered, or of another version; in words.
    Unreadable(String),
}

/// The file as it stands, and what it says.
///
/// # Errors
/// Every mistake in it.
pub fn read(path: &Path) -> Result<(String, Config), Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    let config = Config::parse(&text)?;
    Ok((text, config))
}

fn name(config: &Config, digest: &str) -> String {
    format!(
        "drills/{}/configurations/{digest}.toml",
        claim::key(&config.store.prefix)
    )
}

/// Keeps it; its SHA-256 is what the journal names.
///
/// # Errors
/// The store's.
pub async fn keep(stores: &open::Stores, config: &Config, text: &str) -> Result<String, StoreError> {
    let digest = hex(&Sha256::digest(text.as_bytes()));
    let bytes = Bytes::from(text.as_bytes().to_vec());
    match stores
        .control
        .put(&name(config, &digest), bytes, Condition::Absent)
        .await
    {
        Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(digest),
        Err(error) => Err(error),
    }
}

/// None where the rehearsal is of a PlanB that kept none.
///
/// # Errors
/// The store's, where it does not answer.
pub async fn of(stores: &open::Stores, config: &Config, operation: &Operation) -> Result<Option<Origin>, StoreError> {
    let Some(digest) = operation.facts.get(facts::CONFIGURATION) else {
        return Ok(None);
    };
    let unreadable = |why: String| Ok(Some(Origin::Unreadable(why)));
    let name = name(config, digest);
    let Some(blob) = stores.control.properties(&name).await? else {
        return unreadable(format!("{name} is gone"));
    };
    if blob.size_bytes > LARGEST_BYTES {
        return unreadable(format!("{name} has {} bytes", blob.size_bytes));
    }
    let bytes = stores.control.read(&name, 0..blob.size_bytes, Some(&blob.etag)).await?;
    if hex(&Sha256::digest(&bytes)) != *digest {
        return unreadable(format!("{name} is not what was kept"));
    }
    match Config::parse(&String::from_utf8_lossy(&bytes)) {
        Ok(config) => Ok(Some(Origin::Config(Box::new(config)))),
        Err(error) => unreadable(format!("{name}: {error}")),
    }
}
