//! Where the source is and how to log in, found anew for each attempt: passwords rotate, endpoints move, IAM tokens
//! live fifteen minutes.

use crate::config::{Endpoint, Login, Source};
use crate::mysql::Address;
use crate::secret::SecretError;
use crate::secret::resolver::Resolver;

use super::rds::{Rds, RdsError};

/// Why the way to the source is not known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoginError {
    #[error("the source's password: {0}")]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Rds(#[from] RdsError),
    #[error("[source] tls_ca {path}: {detail}")]
    Authority { path: String, detail: String },
}

impl LoginError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Secret(error) => error.is_permanent(),
            Self::Rds(error) => error.is_permanent(),
            Self::Authority { .. } => true,
        }
    }
}

/// Finds the source's address. Nothing is remembered between calls.
#[derive(Debug)]
pub struct Finder {
    source: Source,
    resolver: Resolver,
    rds: Rds,
}

impl Finder {
    pub fn new(source: Source, resolver: Resolver) -> Self {
        Self {
            source,
            resolver,
            rds: Rds::default(),
        }
    }

    /// Host, port and region; asks RDS where it is named by its instance.
    ///
    /// # Errors
    /// [`LoginError::Rds`].
    pub async fn endpoint(&self) -> Result<(String, u16, Option<String>), LoginError> {
        Ok(match &self.source.endpoint {
            Endpoint::Address { host, port } => (host.clone(), *port, None),
            Endpoint::RdsInstance { id, region } => {
                let instance = self.rds.describe(id, region.as_deref()).await?;
                if !instance.status.is_available() {
                    tracing::warn!(
                        instance = id,
                        status = instance.status.0,
                        "RDS does not call the instance available"
                    );
                }
                (instance.host, instance.port, region.clone())
            }
        })
    }

    /// # Errors
    /// [`LoginError`], named for the part that failed.
    pub async fn address(&self) -> Result<Address, LoginError> {
        let (host, port, region) = self.endpoint().await?;
        let (password, token_login) = match &self.source.login {
            Login::Password(reference) => (self.resolver.resolve(reference).await?, false),
            Login::RdsIam => (
                self.rds
                    .auth_token(&host, port, &self.source.user, region.as_deref())
                    .await?,
                true,
            ),
        };
        let tls_ca = match &self.source.tls_ca {
            Some(path) => Some(tokio::fs::read(path).await.map_err(|error| LoginError::Authority {
                path: path.display().to_string(),
                detail: error.to_string(),
            })?),
            None => None,
        };
        Ok(Address {
            host,
            port,
            user: self.source.user.clone(),
            password,
            token_login,
            tls: self.source.tls,
            tls_ca,
        })
    }
}
