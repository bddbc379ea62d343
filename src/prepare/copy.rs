//! An image copied by digest from one registry to another: what is there is not sent again, and the image can be pulled only once
//! all of it is there.

use futures_util::future::BoxFuture;

use super::registry::{Registry, RegistryError};

/// Indexes of indexes are allowed, and nobody nests them deeper.
const DEEPEST: usize = 3;
/// A blob whose transfer broke off is begun again this often.
const TRIES: u32 = 3;

/// What a copy did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    pub manifests: usize,
    pub blobs: usize,
}

/// Where an image is, or shall be.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    pub registry: &'a Registry,
    pub repository: &'a str,
}

/// Brings the manifest `digest`, all that it names first. Nothing is done where it is there already.
///
/// # Errors
/// Of either registry; what was brought stays, so that the next try goes on.
pub async fn copy(
    from: Side<'_>,
    to: Side<'_>,
    digest: &str,
    told: &(dyn Fn(&str) + Send + Sync),
) -> Result<Copied, RegistryError> {
    let mut copied = Copied::default();
    bring(from, to, digest, DEEPEST, told, &mut copied).await?;
    Ok(copied)
}

fn bring<'a>(
    from: Side<'a>,
    to: Side<'a>,
    digest: &'a str,
    depth: usize,
    told: &'a (dyn Fn(&str) + Send + Sync),
    copied: &'a mut Copied,
) -> BoxFuture<'a, Result<(), RegistryError>> {
    Box::pin(async move {
        if to.registry.has_manifest(to.repository, digest).await? {
            return Ok(());
        }
        let manifest = from.registry.manifest(from.repository, digest).await?;
        let parts = manifest.parts().filter(|_| depth > 0);
        let parts = parts.ok_or_else(|| RegistryError::Different {
            registry: from.registry.host.clone(),
            what: format!("{}@{digest}", from.repository),
            detail: "it is no image that can be copied (schema 2 or OCI)".to_owned(),
        })?;
        for child in &parts.manifests {
            bring(from, to, child, depth - 1, told, copied).await?;
        }
        for blob in &parts.blobs {
            copied.blobs += usize::from(bring_blob(from, to, blob, told).await?);
        }
        to.registry.put_manifest(to.repository, digest, &manifest).await?;
        copied.manifests += 1;
        Ok(())
    })
}

async fn bring_blob(
    from: Side<'_>,
    to: Side<'_>,
    blob: &str,
    told: &(dyn Fn(&str) + Send + Sync),
) -> Result<bool, RegistryError> {
    let short: String = blob.chars().take(19).collect();
    let progress = |bytes: u64| told(&format!("{} {short}: {} MiB", to.repository, bytes >> 20));
    let mut tries = 1;
    loop {
        let brought = to
            .registry
            .bring_blob(to.repository, blob, from.registry, from.repository, &progress);
        match brought.await {
            Err(error) if !error.is_permanent() && tries < TRIES => {
                told(&format!("{short}: {error}; again"));
                tries += 1;
            }
            done => return done,
        }
    }
}
