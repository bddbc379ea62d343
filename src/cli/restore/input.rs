//! What the first argument names: a backup in the store by its id, or a backup or dump by its place.

use std::path::Path;
use std::sync::Arc;

use url::Url;

use crate::cli::failure::Failure;
use crate::cli::{Common, open};
use crate::config::Config;
use crate::format::trailer::{TRAILER_BYTES, Trailer, TrailerError};
use crate::restore::foreign::text::Source;
use crate::secret::SecretRef;
use crate::secret::resolver::Resolver;
use crate::store::StoreError;
use crate::store::blob::{Blob, LocalFile, StoredBlob};
use crate::store::https::{HttpsBlob, shown};

/// What is to be restored. Names hold no secret.
pub enum Input {
    /// In the store, by its id; none is the newest good one.
    Id(Option<String>),
    /// A backup of PlanB.
    Backup { blob: Arc<dyn Blob>, name: String },
    /// Anything else, taken for a dump.
    Foreign { source: Source, name: String },
}

/// Finds what the argument names. The configuration is read only where it is needed: a file on this machine, or a link,
/// can be restored where there is none.
pub async fn find(common: &Common, argument: Option<&str>) -> Result<(Input, Option<Config>), Failure> {
    let Some(argument) = argument else {
        return Ok((Input::Id(None), Some(open::config(common)?)));
    };
    if argument == "-" {
        let source = Source::StandardInput;
        let name = "standard input".to_owned();
        return Ok((Input::Foreign { source, name }, None));
    }
    // A link with a token in it, named rather than written: everybody on the machine can read a command line.
    if let Ok(reference) = SecretRef::parse(argument) {
        let named = Resolver::new(None).resolve(&reference).await?;
        let Some(url) = link(named.expose().trim())? else {
            return Err(Failure::Usage(format!(
                "what {argument} names is no link; put one that begins with https:// there"
            )));
        };
        let name = shown(&url);
        let blob = Arc::new(HttpsBlob::open(url).await?);
        return Ok((sorted(blob, name, false).await?, None));
    }
    if let Some(url) = link(argument)? {
        let name = shown(&url);
        let blob = Arc::new(HttpsBlob::open(url).await?);
        return Ok((sorted(blob, name, false).await?, None));
    }
    let path = Path::new(argument);
    if path.is_file() || !argument.contains(['/', '.']) {
        if !path.is_file() {
            return Ok((Input::Id(Some(argument.to_owned())), Some(open::config(common)?)));
        }
        let blob = Arc::new(LocalFile::open(path).await?);
        return Ok((sorted(blob, path.display().to_string(), true).await?, None));
    }
    // No file of this machine; perhaps one of the store.
    if let Ok(config) = open::config(common)
        && argument.starts_with(&config.store.prefix)
    {
        let stores = open::stores_for_a_person(&config).await?;
        if let Some(properties) = stores.backups.properties(argument).await? {
            let store = Arc::clone(&stores.backups);
            let blob = Arc::new(StoredBlob { store, properties });
            return Ok((sorted(blob, argument.to_owned(), false).await?, Some(config)));
        }
        return Err(Failure::Usage(format!(
            "{argument} is neither a file on this machine nor in {}; planb backups lists what is there",
            stores.backups.describe()
        )));
    }
    // Says what is wrong with the path.
    let blob = Arc::new(LocalFile::open(path).await?);
    Ok((sorted(blob, path.display().to_string(), true).await?, None))
}

/// The argument as a URL, if it is one. What is wrong with it is told without it: it may hold a token.
fn link(argument: &str) -> Result<Option<Url>, Failure> {
    if !argument.contains("://") {
        return Ok(None);
    }
    match Url::parse(argument) {
        Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(Some(url)),
        Ok(url) => Err(Failure::Usage(format!(
            "{}:// cannot be restored from; write an https:// link, a file, or - for standard input",
            url.scheme()
        ))),
        Err(error) => Err(Failure::Usage(format!("the link cannot be read: {error}"))),
    }
}

/// A backup of PlanB says so with its last bytes.
async fn sorted<B: Blob + 'static>(blob: Arc<B>, name: String, check_first: bool) -> Result<Input, StoreError> {
    let size = blob.size_bytes();
    let end = match size.checked_sub(TRAILER_BYTES as u64) {
        Some(start) => blob.read(start..size).await?,
        None => bytes::Bytes::new(),
    };
    Ok(match Trailer::decode(&end) {
        // What stands against a damaged or a newer one is told by whoever opens it.
        Ok(_) | Err(TrailerError::Checksum | TrailerError::Format(_)) => Input::Backup { blob, name },
        Err(TrailerError::NotATrailer) => {
            let source = Source::Blob { blob, check_first };
            Input::Foreign { source, name }
        }
    })
}
