//! The text form of a reference, read and written. What could not be read is never repeated: it may be a secret
//! that somebody wrote where its name belongs.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Reference, SecretRef};

/// Why a text names no secret. Carries nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(
        "must name a secret, never hold it: write env:NAME, file:/PATH, credential:NAME, aws-secret:ID#key or \
         azure-keyvault:VAULT/NAME (if a secret stood here, change it: it may have been copied)"
    )]
    NotAReference,
    #[error(
        "env: takes the name of a variable (letters, digits and _, no digit first), e.g. env:PLANB_SOURCE_PASSWORD"
    )]
    Env,
    #[error("file: takes an absolute path, e.g. file:/etc/planb/source-password")]
    File,
    #[error(
        "credential: takes the name of a systemd credential (letters, digits, '.', '_', '-'), e.g. credential:source"
    )]
    Credential,
    #[error("aws-secret: takes a name or an ARN, and after # the key in its JSON, e.g. aws-secret:planb/prod#source")]
    AwsSecret,
    #[error("azure-keyvault: takes VAULT/NAME, e.g. azure-keyvault:kv-dr/storage-key")]
    AzureKeyVault,
    #[error("names no secret at all: write at least one reference, e.g. env:PLANB_SOURCE_PASSWORD")]
    Empty,
}

impl ReferenceError {
    /// Whether trying again without a change by a person cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NotAReference
            | Self::Env
            | Self::File
            | Self::Credential
            | Self::AwsSecret
            | Self::AzureKeyVault
            | Self::Empty => true,
        }
    }
}

impl SecretRef {
    /// One reference, as on a command line.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Ok(Self(vec![text.parse()?]))
    }

    /// Several, tried in order.
    pub fn parse_list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ReferenceError> {
        let references = texts
            .into_iter()
            .map(str::parse)
            .collect::<Result<Vec<Reference>, _>>()?;
        if references.is_empty() {
            Err(ReferenceError::Empty)
        } else {
            Ok(Self(references))
        }
    }

    /// Whether every way to this secret leads through AWS, so that it is gone when AWS is.
    pub fn needs_aws(&self) -> bool {
        self.0.iter().all(|reference| match reference {
            Reference::AwsSecret { .. } => true,
            Reference::Env(_) | Reference::File(_) | Reference::Credential(_) | Reference::AzureKeyVault { .. } => {
                false
            }
        })
    }

    /// The ways that are left when AWS is gone; none of them where there is no other.
    #[must_use]
    pub fn without_aws(&self) -> Option<Self> {
        let elsewhere = |reference: &&Reference| !matches!(reference, Reference::AwsSecret { .. });
        let left: Vec<Reference> = self.0.iter().filter(elsewhere).cloned().collect();
        (!left.is_empty()).then_some(Self(left))
    }

    /// Whether every way to this secret leads through a key vault.
    pub fn needs_key_vault(&self) -> bool {
        self.0.iter().all(|reference| match reference {
            Reference::AzureKeyVault { .. } => true,
            Reference::Env(_) | Reference::File(_) | Reference::Credential(_) | Reference::AwsSecret { .. } => false,
        })
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (scheme, rest) = text.split_once(':').ok_or(ReferenceError::NotAReference)?;
        match scheme {
            "env" => env(rest).ok_or(ReferenceError::Env),
            "file" => file(rest).ok_or(ReferenceError::File),
            "credential" => credential(rest).ok_or(ReferenceError::Credential),
            "aws-secret" => aws_secret(rest).ok_or(ReferenceError::AwsSecret),
            "azure-keyvault" => azure_keyvault(rest).ok_or(ReferenceError::AzureKeyVault),
            _ => Err(ReferenceError::NotAReference),
        }
    }
}

fn env(name: &str) -> Option<Reference> {
    let word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let starts_well = name.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (word && starts_well).then(|| Reference::Env(name.to_owned()))
}

fn file(path: &str) -> Option<Reference> {
    let path = PathBuf::from(path);
    (path.is_absolute() && path.file_name().is_some()).then_some(Reference::File(path))
}

/// systemd puts each credential into one file: a name that leaves the directory is refused.
fn credential(name: &str) -> Option<Reference> {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (plain && !name.is_empty() && !name.starts_with('.')).then(|| Reference::Credential(name.to_owned()))
}

/// AWS allows `/_+=.@-` in names; an ARN adds `:`. None allows `#`, which is why it separates the key.
fn aws_secret(text: &str) -> Option<Reference> {
    let (id, key) = match text.split_once('#') {
        Some((id, key)) => (id, Some(key)),
        None => (text, None),
    };
    let known = id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte));
    let key_given = key.is_none_or(|key| !key.is_empty());
    (known && (1..=2048).contains(&id.len()) && key_given).then(|| Reference::AwsSecret {
        id: id.to_owned(),
        key: key.map(str::to_owned),
    })
}

/// The vault's name becomes part of a host name, so its alphabet is checked strictly (3–24 letters, digits, `-`).
fn azure_keyvault(text: &str) -> Option<Reference> {
    let (vault, name) = text.split_once('/')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let vault_fits =
        plain(vault) && (3..=24).contains(&vault.len()) && !vault.starts_with('-') && !vault.ends_with('-');
    (vault_fits && plain(name) && (1..=127).contains(&name.len())).then(|| Reference::AzureKeyVault {
        vault: vault.to_owned(),
        name: name.to_owned(),
    })
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Credential(name) => write!(f, "credential:{name}"),
            Self::AwsSecret { id, key: None } => write!(f, "aws-secret:{id}"),
            Self::AwsSecret { id, key: Some(key) } => write!(f, "aws-secret:{id}#{key}"),
            Self::AzureKeyVault { vault, name } => write!(f, "azure-keyvault:{vault}/{name}"),
        }
    }
}
