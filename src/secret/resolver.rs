//! Turns references into values: the first of a list that answers wins, and none may hold up the next for long.

use jiff::Timestamp;

use crate::config::{AzureAuth, Config, Place};

use super::aws::SecretsManager;
use super::azure::{KeyVault, Login};
use super::{Reference, Secret, SecretError, SecretRef, local};

/// Resolves references. Clients of the clouds are made when first needed and kept.
///
/// Every reference costs at most five seconds; see [`crate::aws::PATIENCE`].
#[derive(Debug)]
pub struct Resolver {
    aws: SecretsManager,
    key_vault: KeyVault,
    /// How the store is reached; the key vault is asked as the same identity.
    azure_auth: Option<AzureAuth>,
}

impl Resolver {
    /// `azure_auth` is how the store is reached: the same identity is used for the key vault. Without one, or with one
    /// that Entra does not know (a SAS, an account key), the place this runs in decides; see `secret/azure.rs`.
    pub fn new(azure_auth: Option<AzureAuth>) -> Self {
        Self {
            aws: SecretsManager::default(),
            key_vault: KeyVault::default(),
            azure_auth,
        }
    }

    pub fn for_config(config: &Config) -> Self {
        match &config.store.place {
            Place::Azure { auth, .. } => Self::new(Some(auth.clone())),
            Place::Directory(_) => Self::new(None),
        }
    }

    /// The first reference that gives a value. A single failed reference is its own error; of several, all are told.
    pub async fn resolve(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        let mut failures = Vec::new();
        for reference in &secret.0 {
            match self.resolve_one(reference).await {
                Ok(value) => {
                    report_earlier(reference, &failures);
                    return Ok(value);
                }
                Err(failure) => failures.push(failure),
            }
        }
        match <[SecretError; 1]>::try_from(failures) {
            Ok([only]) => Err(only),
            Err(failures) => Err(SecretError::AllFailed(failures)),
        }
    }

    /// Those of its references of which somebody said when they end, and when. Who does not answer says nothing.
    pub async fn ends(&self, secret: &SecretRef) -> Vec<(String, Timestamp)> {
        let mut found = Vec::new();
        for reference in &secret.0 {
            if let Reference::AzureKeyVault { vault, name } = reference
                && let Ok(login) = self.key_vault_login().await
                && let Some(ends) = self.key_vault.ends(vault, name, &login).await
            {
                found.push((reference.to_string(), ends));
            }
        }
        found
    }

    /// As on the night when AWS is gone: none of its references is tried.
    ///
    /// # Errors
    /// [`SecretError::Missing`] where only AWS has it; else as [`Resolver::resolve`].
    pub async fn resolve_without_aws(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        match secret.without_aws() {
            Some(left) => self.resolve(&left).await,
            None => Err(SecretError::Missing {
                reference: secret.0.first().map(ToString::to_string).unwrap_or_default(),
                detail: "only AWS has it".into(),
            }),
        }
    }

    /// A token of Entra's for `scope`, as the identity that also asks the key vault.
    ///
    /// # Errors
    /// There is no such identity, or Entra does not answer.
    pub async fn azure_token(&self, scope: &str) -> Result<Secret, SecretError> {
        let login = match &self.azure_auth {
            // Who logs in with a client secret has it in the dark too, or not at all.
            Some(AzureAuth::ClientSecret { secret, .. }) => {
                let secret = Box::pin(self.resolve_without_aws(secret)).await?;
                Login::for_store(self.azure_auth.as_ref(), Some(secret)).await
            }
            _ => Login::for_store(self.azure_auth.as_ref(), None).await,
        };
        self.key_vault.token(scope, &login).await
    }

    async fn resolve_one(&self, reference: &Reference) -> Result<Secret, SecretError> {
        match reference {
            Reference::AzureKeyVault { vault, name } => {
                let login = self.key_vault_login().await?;
                self.key_vault.get(&reference.to_string(), vault, name, &login).await
            }
            Reference::Env(_) | Reference::File(_) | Reference::Credential(_) | Reference::AwsSecret { .. } => {
                self.resolve_outside_key_vault(reference).await
            }
        }
    }

    /// Everything but the key vault, which may itself need one of these to log in.
    async fn resolve_outside_key_vault(&self, reference: &Reference) -> Result<Secret, SecretError> {
        let text = reference.to_string();
        match reference {
            Reference::Env(name) => local::from_env(&text, name),
            Reference::File(path) => local::from_file(&text, path).await,
            Reference::Credential(name) => local::from_credential(&text, name).await,
            Reference::AwsSecret { id, key } => self.aws.get(&text, id, key.as_deref()).await,
            Reference::AzureKeyVault { .. } => Err(SecretError::Missing {
                reference: text,
                detail: "the secret that opens the key vault cannot lie in a key vault".into(),
            }),
        }
    }

    /// Who asks the key vault: the store's identity, whose client secret may itself have to be resolved.
    async fn key_vault_login(&self) -> Result<Login, SecretError> {
        let client_secret = match &self.azure_auth {
            Some(AzureAuth::ClientSecret { secret, .. }) => Some(self.client_secret(secret).await?),
            Some(
                AzureAuth::WorkloadIdentity { .. }
                | AzureAuth::ManagedIdentity { .. }
                | AzureAuth::AzLogin
                | AzureAuth::Sas(_)
                | AzureAuth::AccountKey(_),
            )
            | None => None,
        };
        Ok(Login::for_store(self.azure_auth.as_ref(), client_secret).await)
    }

    async fn client_secret(&self, secret: &SecretRef) -> Result<Secret, SecretError> {
        let mut failures = Vec::new();
        for reference in &secret.0 {
            match self.resolve_outside_key_vault(reference).await {
                Ok(value) => return Ok(value),
                Err(failure) => failures.push(failure),
            }
        }
        Err(SecretError::AllFailed(failures))
    }
}

/// A way that fails while another serves is a way that will be missed when the other fails too.
fn report_earlier(used: &Reference, failures: &[SecretError]) {
    for failure in failures {
        tracing::warn!(%failure, instead = %used, "secret reference failed, the next one was used");
    }
}
