//! Secrets are named, never written: a reference in the configuration, a value only in memory.
//!
//! A list of references is tried in order, so that the cloud that is down is not needed.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

mod aws;
mod azure;
mod local;
pub mod reference;
pub mod resolver;

pub use reference::ReferenceError;
pub use resolver::Resolver;

/// A secret value. `Debug` and `Display` print nothing of it, and its memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value itself, for the call that needs it. Never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where one secret can be had. Its text form is what stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `env:NAME`
    Env(String),
    /// `file:PATH`; one trailing newline is dropped.
    File(PathBuf),
    /// `credential:NAME`: a file in systemd's `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// `aws-secret:ID#key`; without `#key` the whole secret string.
    AwsSecret { id: String, key: Option<String> },
    /// `azure-keyvault:VAULT/NAME`
    AzureKeyVault { vault: String, name: String },
}

/// References to one secret, tried in order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRef(pub Vec<Reference>);

/// Why a secret could not be had. Never holds a value.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretError {
    #[error("{reference}: not there ({detail})")]
    Missing { reference: String, detail: String },
    #[error("{reference}: access refused ({detail})")]
    Denied { reference: String, detail: String },
    #[error("{reference}: not answering ({detail})")]
    Unavailable { reference: String, detail: String },
    /// Every reference of the list failed; one line for each.
    #[error("none of the secret's references could be resolved: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllFailed(Vec<SecretError>),
}

impl SecretError {
    /// Whether trying again without a change by a person cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Denied { .. } => true,
            Self::Unavailable { .. } => false,
            Self::AllFailed(all) => all.iter().all(Self::is_permanent),
        }
    }
}
