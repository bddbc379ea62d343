//! Carries out an approved pruning: deletes exactly the versions that were listed, or tags them for the store.
//!
//! Stops at the first refusal: what is left goes in a later run, and nothing is guessed. In tag mode whatever is
//! kept loses its tag again, because the storage lifecycle rule knows neither floor nor freeze.

use std::collections::BTreeMap;
use std::fmt;

use jiff::SignedDuration;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::backup::retention::{Approved, Freeze, Pruning};
use crate::clock::Clock;
use crate::config::{Removal as Mode, Retention};
use crate::store::{BlobStore, ETag, StoreError};

/// The blob index tag that [`lifecycle_policy_json`] matches; its value is [`EXPIRABLE_VALUE`].
pub const EXPIRABLE_TAG: &str = "planb_expirable";
pub const EXPIRABLE_VALUE: &str = "true";

/// What a pruning did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Deleted, or tagged in tag mode.
    pub removed: u64,
    /// Of what was removed.
    pub bytes: u64,
    /// Already gone.
    pub gone: u64,
    /// Another version by now: left alone, looked at anew in the next run.
    pub changed: u64,
    /// Kept ones that lost their tag again (tag mode).
    pub untagged: u64,
    /// Ended early because it was asked to.
    pub cancelled: bool,
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            removed,
            bytes,
            gone,
            changed,
            untagged,
            cancelled,
        } = self;
        write!(
            f,
            "{removed} removed ({bytes} bytes), {gone} already gone, {changed} changed meanwhile"
        )?;
        if *untagged > 0 {
            write!(f, ", {untagged} no longer expirable")?;
        }
        f.write_str(if *cancelled { ", stopped early" } else { "" })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error("nothing was removed: {0}")]
    Clock(Freeze),
    #[error("the store's clock could not be read, so nothing was removed")]
    StoreClock(#[source] StoreError),
    #[error("pruning stopped at {blob} after: {done}; the rest is left for the next run")]
    Stopped {
        blob: String,
        done: Pruned,
        #[source]
        source: StoreError,
    },
}

impl PruneError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Clock(_) => true,
            Self::StoreClock(source) | Self::Stopped { source, .. } => source.is_permanent(),
        }
    }
}

/// Removes what was approved, one after the other, oldest first. Checks the clocks itself, once more.
pub async fn execute(
    store: &dyn BlobStore,
    approved: &Approved,
    mode: Mode,
    clock: &dyn Clock,
    cancel: &CancellationToken,
) -> Result<Pruned, PruneError> {
    let store_now = store.now().await.map_err(PruneError::StoreClock)?;
    if let Some(skewed) = Freeze::for_clocks(clock.now(), store_now) {
        return Err(PruneError::Clock(skewed));
    }
    let pruning = approved.pruning();
    let mut done = Pruned::default();
    if mode == Mode::Tag {
        // First, so that a stop half-way leaves too little expirable rather than too much.
        for kept in &pruning.kept {
            if cancel.is_cancelled() {
                return Ok(Pruned {
                    cancelled: true,
                    ..done
                });
            }
            match untag(store, &kept.blob).await {
                Ok(had_tag) => done.untagged += u64::from(had_tag),
                Err(StoreError::NotFound { .. }) => {}
                Err(source) => {
                    return Err(PruneError::Stopped {
                        blob: kept.blob.clone(),
                        done,
                        source,
                    });
                }
            }
        }
    }
    for removal in &pruning.removals {
        if cancel.is_cancelled() {
            return Ok(Pruned {
                cancelled: true,
                ..done
            });
        }
        let outcome = match mode {
            Mode::Delete => store.delete(&removal.blob, &removal.etag).await,
            Mode::Tag => tag(store, &removal.blob, &removal.etag).await,
        };
        match outcome {
            Ok(()) => {
                done.removed += 1;
                done.bytes += removal.size_bytes;
                let kept_instead = removal
                    .kept_instead
                    .iter()
                    .map(|id| id.as_str())
                    .collect::<Vec<_>>()
                    .join(" ");
                tracing::info!(
                    blob = %removal.blob, because = %removal.because, kept_instead, tagged = mode == Mode::Tag,
                    "backup removed by retention"
                );
            }
            Err(StoreError::NotFound { .. }) => done.gone += 1,
            Err(StoreError::Changed { .. }) => done.changed += 1,
            Err(source) => {
                return Err(PruneError::Stopped {
                    blob: removal.blob.clone(),
                    done,
                    source,
                });
            }
        }
    }
    Ok(done)
}

/// Tags are not part of a version, and setting them has no condition: the version is looked at first. A backup's
/// name is never written twice, so nothing else can come to stand there in between.
async fn tag(store: &dyn BlobStore, blob: &str, etag: &ETag) -> Result<(), StoreError> {
    match store.properties(blob).await? {
        None => {
            return Err(StoreError::NotFound {
                store: store.describe(),
                name: blob.to_owned(),
            });
        }
        Some(found) if found.etag != *etag => {
            return Err(StoreError::Changed {
                store: store.describe(),
                name: blob.to_owned(),
            });
        }
        Some(_) => {}
    }
    let mut tags = store.tags(blob).await?;
    if tags
        .insert(EXPIRABLE_TAG.to_owned(), EXPIRABLE_VALUE.to_owned())
        .as_deref()
        == Some(EXPIRABLE_VALUE)
    {
        return Ok(());
    }
    store.set_tags(blob, &tags).await
}

/// Whether it had the tag.
async fn untag(store: &dyn BlobStore, blob: &str) -> Result<bool, StoreError> {
    let mut tags: BTreeMap<String, String> = store.tags(blob).await?;
    if tags.remove(EXPIRABLE_TAG).is_none() {
        return Ok(false);
    }
    store.set_tags(blob, &tags).await?;
    Ok(true)
}

/// What `planb prune --dry-run` prints: the same words that a real run logs.
pub fn describe(pruning: &Pruning) -> Vec<String> {
    let frozen = pruning
        .freezes
        .iter()
        .map(|freeze| format!("nothing is removed: {freeze}"));
    frozen.chain(pruning.removals.iter().map(ToString::to_string)).collect()
}

/// Azure's storage lifecycle management policy for tag mode: deletes block blobs under `prefix` that carry
/// [`EXPIRABLE_TAG`], and none that landed within `keep_all` (whole days, at least one), whatever its tag says.
/// Format: <https://learn.microsoft.com/azure/storage/blobs/lifecycle-management-policy-structure>
pub fn lifecycle_policy_json(container: &str, prefix: &str, policy: &Retention) -> serde_json::Value {
    let keep_all = SignedDuration::try_from(policy.keep_all).unwrap_or(SignedDuration::MAX);
    let days = keep_all.as_secs().saturating_add(86_399).div_euclid(86_400).max(1);
    json!({
        "rules": [{
            "enabled": true,
            "name": "planb-expirable",
            "type": "Lifecycle",
            "definition": {
                "filters": {
                    "blobTypes": ["blockBlob"],
                    // The container's name is part of a prefix here.
                    "prefixMatch": [format!("{container}/{prefix}")],
                    "blobIndexMatch": [{ "name": EXPIRABLE_TAG, "op": "==", "value": EXPIRABLE_VALUE }],
                },
                "actions": { "baseBlob": { "delete": { "daysAfterModificationGreaterThan": days } } },
            },
        }]
    })
}
