//! Who a store belongs to: checked before anything is written, so that two services, or two servers under one
//! name, never mix their backups.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{BlobStore, Condition, StoreError};

/// Says which service a store holds backups of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ServiceClaim {
    v: u32,
    service: String,
    claimed_at: Timestamp,
}

/// Says which server a site's backups come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SiteClaim {
    v: u32,
    site: String,
    server_identity: String,
    claimed_at: Timestamp,
    /// Why an earlier server was replaced, in the words of whoever accepted it.
    #[serde(default)]
    replaced_because: String,
}

/// Why a store may not be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "{store} holds the backups of service \"{owner}\", not of \"{service}\"; give this service a container or prefix \
         of its own, or correct [service] name"
    )]
    OtherService {
        store: String,
        owner: String,
        service: String,
    },
    #[error(
        "backups of site \"{site}\" come from another server (identity {known}, this one is {found}); if the database was \
         moved or rebuilt on purpose, say so: planb backup --accept source-changed=REASON"
    )]
    OtherServer { site: String, known: String, found: String },
    #[error("{0} cannot be read as a claim; a person must look at it")]
    Unreadable(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ClaimError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => error.is_permanent(),
            Self::OtherService { .. } | Self::OtherServer { .. } | Self::Unreadable(_) => true,
        }
    }
}

/// Tells the prefixes of one container apart in control data; no two give the same key.
pub fn key(prefix: &str) -> String {
    prefix.trim_end_matches('/').replace('~', "~~").replace('/', "~")
}

/// Claims the store for `service`, or checks that it already is ours. `key` tells prefixes of one container apart.
pub async fn service(control: &dyn BlobStore, key: &str, service: &str, now: Timestamp) -> Result<(), ClaimError> {
    let name = format!("claims/{key}.json");
    let claim = ServiceClaim {
        v: 1,
        service: service.to_owned(),
        claimed_at: now,
    };
    let found: ServiceClaim = get_or_put(control, &name, &claim).await?;
    if found.service == service {
        Ok(())
    } else {
        Err(ClaimError::OtherService {
            store: control.describe(),
            owner: found.service,
            service: service.to_owned(),
        })
    }
}

/// Claims `site` for one server, or checks that it is the same. `key` tells prefixes of one container apart. `accepted`: why another one is right.
pub async fn site(
    control: &dyn BlobStore,
    key: &str,
    site: &str,
    server_identity: &str,
    accepted: Option<&str>,
    now: Timestamp,
) -> Result<(), ClaimError> {
    let name = format!("sites/{key}/{site}.json");
    let mut claim = SiteClaim {
        v: 1,
        site: site.to_owned(),
        server_identity: server_identity.to_owned(),
        claimed_at: now,
        replaced_because: String::new(),
    };
    let found: SiteClaim = get_or_put(control, &name, &claim).await?;
    if found.server_identity == server_identity {
        return Ok(());
    }
    let Some(reason) = accepted else {
        return Err(ClaimError::OtherServer {
            site: site.to_owned(),
            known: found.server_identity,
            found: server_identity.to_owned(),
        });
    };
    claim.replaced_because = reason.to_owned();
    tracing::warn!(
        site,
        from = found.server_identity,
        to = server_identity,
        reason,
        "another server is accepted as the source"
    );
    control.put(&name, encode(&claim), Condition::Always).await?;
    Ok(())
}

/// Identities of every server that backups were ever taken of, whatever the site is called; one that cannot be read is left out and told.
///
/// # Errors
/// The store's.
pub async fn identities(control: &dyn BlobStore, key: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut found = BTreeSet::new();
    for blob in control.list(&format!("sites/{key}/")).await? {
        match read::<SiteClaim>(control, &blob.name).await {
            Ok(claim) => found.extend(claim.map(|claim| claim.server_identity)),
            Err(ClaimError::Store(error)) => return Err(error),
            Err(error) => tracing::warn!(%error, "nobody knows which server this site's is"),
        }
    }
    Ok(found)
}

async fn get_or_put<T: Serialize + for<'a> Deserialize<'a> + Clone>(
    control: &dyn BlobStore,
    name: &str,
    claim: &T,
) -> Result<T, ClaimError> {
    if let Some(there) = read(control, name).await? {
        return Ok(there);
    }
    match control.put(name, encode(claim), Condition::Absent).await {
        Ok(_) => Ok(claim.clone()),
        // Somebody was faster: theirs counts.
        Err(StoreError::AlreadyExists { .. }) => read(control, name)
            .await?
            .ok_or_else(|| ClaimError::Unreadable(name.to_owned())),
        Err(error) => Err(error.into()),
    }
}

async fn read<T: for<'a> Deserialize<'a>>(control: &dyn BlobStore, name: &str) -> Result<Option<T>, ClaimError> {
    let Some(blob) = control.properties(name).await? else {
        return Ok(None);
    };
    let bytes = control.read(name, 0..blob.size_bytes, None).await?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| ClaimError::Unreadable(name.to_owned()))
}

fn encode<T: Serialize>(claim: &T) -> Bytes {
    // Plain structs of strings and times always encode.
    Bytes::from(serde_json::to_vec(claim).unwrap_or_default())
}
