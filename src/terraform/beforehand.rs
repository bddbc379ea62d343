//! What has to be there before the night: modules, providers, the lock file; and how to look whether it is, with everything else
//! out of reach.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::events::Account;
use super::workplace::Workplace;
use super::{Error, Terraform, absolute, io};

/// Names of our environment that lead to AWS; nothing in the dark gets them.
const AWS: &str = "AWS_";
const PROXIES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
];
/// The second cloud's own way of telling a machine who it is; it never leaves the machine's host.
const NEVER_PROXIED: &str = "127.0.0.1,localhost,169.254.169.254";

/// A module that a configuration calls, directly or through others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// `network.subnets`: through which calls.
    pub call: String,
    pub source: String,
}

impl Module {
    /// Whether it comes from elsewhere, so that nobody has it on the night.
    pub fn is_remote(&self) -> bool {
        !["./", "../", ".\\", "..\\"]
            .iter()
            .any(|here| self.source.starts_with(here))
            && ![".", ".."].contains(&self.source.as_str())
    }
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Modules")]
    modules: Vec<WrittenModule>,
}

#[derive(Deserialize)]
struct WrittenModule {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Source", default)]
    source: String,
}

#[derive(Deserialize)]
struct Version {
    terraform_version: String,
}

impl Terraform {
    /// As on the night: providers come from the mirror or from nowhere, and all else that it asks for goes through this proxy, which
    /// says no. Nothing is locked; its plans are looks.
    #[must_use]
    pub fn in_the_dark(mut self, proxy: impl Into<String>) -> Self {
        self.dark = Some(proxy.into());
        self.pass.retain(|name| !name.starts_with(AWS));
        self
    }

    /// Only what lies on this machine: the state is not asked for.
    #[must_use]
    pub fn without_state(mut self) -> Self {
        self.is_stateless = true;
        self
    }

    pub(super) fn darken(&self, command: &mut Command) {
        let Some(proxy) = &self.dark else { return };
        for name in PROXIES {
            command.env(name, proxy);
        }
        command
            .env("NO_PROXY", NEVER_PROXIED)
            .env("no_proxy", NEVER_PROXIED)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // No shared credentials either: they would be tried first, and time out one by one.
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .env("AWS_CONFIG_FILE", "/dev/null");
    }

    /// Its own settings file, where one is needed; a person's does not count on the night.
    pub(super) fn provider_sources(&self) -> Result<Option<String>, Error> {
        let method = match (&self.mirror, &self.dark) {
            (Some(mirror), _) => {
                let path = Value::String(absolute(mirror)?.display().to_string());
                format!("filesystem_mirror {{\n    path = {path}\n  }}")
            }
            (None, Some(_)) => "direct {\n    exclude = [\"*/*/*\"]\n  }".to_owned(),
            (None, None) => return Ok(None),
        };
        Ok(Some(format!("provider_installation {{\n  {method}\n}}\n")))
    }

    /// Its version, as it says itself.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], [`Error::Unexpected`].
    pub async fn version(&self, cancel: &CancellationToken) -> Result<String, Error> {
        let written = self.read("version", &["-json"], cancel).await?;
        let version: Version = serde_json::from_str(&written)
            .map_err(|_| self.unexpected("version", "it printed something else than its version in JSON".into()))?;
        Ok(version.terraform_version)
    }

    /// Every module that is called, fetched if it has to be. The root is none.
    ///
    /// # Errors
    /// [`Error::Failed`] where one cannot be had.
    pub async fn modules(&self, cancel: &CancellationToken) -> Result<Vec<Module>, Error> {
        self.read("get", &[], cancel).await?;
        let path = absolute(&self.data_dir)?.join("modules/modules.json");
        let written = match std::fs::read_to_string(&path) {
            Ok(written) => written,
            // None is called.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io("read the list of modules", &error)),
        };
        let read: Manifest = serde_json::from_str(&written)
            .map_err(|_| self.unexpected("get", format!("{} is no list of modules", path.display())))?;
        let called = read.modules.into_iter().filter(|module| !module.key.is_empty());
        Ok(called
            .map(|module| Module {
                call: module.key,
                source: module.source,
            })
            .collect())
    }

    /// Fetches the providers of every platform into the mirror, and writes their hashes into the lock file. Modules have to be there
    /// ([`Terraform::modules`]).
    ///
    /// # Errors
    /// [`Error::Failed`] where the registry does not answer, or gives something else than is locked.
    pub async fn fetch_providers(&self, platforms: &[String], cancel: &CancellationToken) -> Result<(), Error> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        let mirror = absolute(mirror)?;
        std::fs::create_dir_all(&mirror).map_err(|error| io(&format!("make {}", mirror.display()), &error))?;
        // Not from the mirror, which is to be filled.
        let online = Self {
            mirror: None,
            ..self.clone()
        };
        let platforms: Vec<String> = platforms.iter().map(|one| format!("-platform={one}")).collect();
        let args = platforms.iter().cloned().chain([mirror.display().to_string()]);
        online.read_owned("providers mirror", args.collect(), cancel).await?;
        let args = platforms
            .into_iter()
            .chain([format!("-fs-mirror={}", mirror.display())]);
        online.read_owned("providers lock", args.collect(), cancel).await?;
        Ok(())
    }

    /// Whether the configuration makes sense, without a look at its variables' values or at the cloud. After [`Terraform::init`].
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn validate(&self, cancel: &CancellationToken) -> Result<(), Error> {
        self.read("validate", &[], cancel).await.map(|_| ())
    }

    async fn read(&self, command: &str, args: &[&str], cancel: &CancellationToken) -> Result<String, Error> {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.read_owned(command, args, cancel).await
    }

    /// Runs a command to its end and gives what it printed.
    async fn read_owned(&self, command: &str, args: Vec<String>, cancel: &CancellationToken) -> Result<String, Error> {
        let place: Workplace = self.workplace()?;
        let run = self
            .run(&place, command, &args, Account::default(), &|_| {}, cancel)
            .await?;
        self.stopped(command, &run)?;
        if !run.ended.status.success() {
            return Err(self.failed(command, run));
        }
        std::fs::read_to_string(place.stdout()).map_err(|error| io("read what Terraform printed", &error))
    }
}

/// Every package of a mirror, relative to it, with its SHA-256 in hexadecimal. Empty where there is no mirror yet.
///
/// # Errors
/// It cannot be read.
pub fn packages(mirror: &Path) -> std::io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    walk(mirror, mirror, &mut found)?;
    Ok(found)
}

fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            walk(root, &path, found)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            found.insert(name.display().to_string(), hash_of(&path)?);
        }
    }
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// It cannot be read.
pub fn hash_of(path: &Path) -> std::io::Result<String> {
    use sha2::{Digest, Sha256};
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
