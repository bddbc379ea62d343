//! Secrets in Azure Key Vault, read as the identity that also reaches the store.
//!
//! If the store is reached with a SAS, an account key or not at all, Entra knows no identity from it. Then the place
//! this runs in decides, without probing anything: workload identity if Kubernetes gave a token
//! (`AZURE_FEDERATED_TOKEN_FILE`), else the managed identity on App Service (`IDENTITY_ENDPOINT`) or an Azure virtual
//! machine (its firmware says so), else whoever ran `az login`.

use std::sync::Arc;

use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};

use jiff::Timestamp;

use crate::aws::PATIENCE;
use crate::config::AzureAuth;

use super::{Secret, SecretError};

/// Microsoft's fixed asset tag of every Azure virtual machine; cloud-init recognises Azure by it too.
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
const ASSET_TAG_FILE: &str = "/sys/class/dmi/id/chassis_asset_tag";

/// Who asks the key vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Login {
    WorkloadIdentity {
        tenant_id: Option<String>,
        client_id: Option<String>,
    },
    ManagedIdentity {
        client_id: Option<String>,
    },
    ClientSecret {
        tenant_id: String,
        client_id: String,
        secret: Secret,
    },
    AzureCli,
}

/// Asks key vaults. Nothing is kept between questions: they are rare, and a rotated client secret is then used at once.
#[derive(Debug, Default)]
pub(super) struct KeyVault {
    /// Instead of the network, in tests.
    transport: Option<Transport>,
}

impl KeyVault {
    pub(super) async fn get(
        &self,
        reference: &str,
        vault: &str,
        name: &str,
        login: &Login,
    ) -> Result<Secret, SecretError> {
        let credential = self.credential(login).map_err(|error| sort(reference, &error))?;
        match tokio::time::timeout(PATIENCE, self.ask(vault, name, credential)).await {
            Ok(Ok((Some(value), _))) if !value.is_empty() => Ok(Secret::new(value)),
            Ok(Ok(_)) => Err(SecretError::Missing {
                reference: reference.to_owned(),
                detail: "it has no value".into(),
            }),
            Ok(Err(error)) => Err(sort(reference, &error)),
            Err(_) => Err(SecretError::Unavailable {
                reference: reference.to_owned(),
                detail: format!("no answer from Azure within {} s", PATIENCE.as_secs()),
            }),
        }
    }

    /// When it ends, where whoever put it there said so. The key vault goes on giving it after that: nothing else tells.
    pub(super) async fn ends(&self, vault: &str, name: &str, login: &Login) -> Option<Timestamp> {
        let credential = self.credential(login).ok()?;
        let (_, ends) = tokio::time::timeout(PATIENCE, self.ask(vault, name, credential))
            .await
            .ok()?
            .ok()?;
        ends
    }

    /// A token for `scope`, e.g. `https://management.azure.com/.default`.
    pub(super) async fn token(&self, scope: &str, login: &Login) -> Result<Secret, SecretError> {
        let credential = self.credential(login).map_err(|error| sort(scope, &error))?;
        match tokio::time::timeout(PATIENCE, credential.get_token(&[scope], None)).await {
            Ok(Ok(token)) => Ok(Secret::new(token.token.secret())),
            Ok(Err(error)) => Err(sort(scope, &error)),
            Err(_) => Err(SecretError::Unavailable {
                reference: scope.to_owned(),
                detail: format!("no answer from Azure within {} s", PATIENCE.as_secs()),
            }),
        }
    }

    async fn ask(
        &self,
        vault: &str,
        name: &str,
        credential: Arc<dyn TokenCredential>,
    ) -> azure_core::Result<(Option<String>, Option<Timestamp>)> {
        let options = SecretClientOptions {
            client_options: self.client_options(),
            ..Default::default()
        };
        let client = SecretClient::new(&format!("https://{vault}.vault.azure.net"), credential, Some(options))?;
        let secret = client.get_secret(name, None).await?.into_model()?;
        let ends = secret.attributes.and_then(|attributes| attributes.expires);
        let ends = ends.and_then(|at| Timestamp::from_second(at.unix_timestamp()).ok());
        Ok((secret.value, ends))
    }

    /// The client's own retries (eight in a minute) would outlast our patience: the caller's list is the second try.
    fn client_options(&self) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: self.transport.clone(),
            ..Default::default()
        }
    }

    fn credential(&self, login: &Login) -> azure_core::Result<Arc<dyn TokenCredential>> {
        let client_options = self.client_options();
        Ok(match login {
            Login::WorkloadIdentity { tenant_id, client_id } => {
                WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions { client_options },
                    tenant_id: tenant_id.clone(),
                    client_id: client_id.clone(),
                    ..Default::default()
                }))?
            }
            Login::ManagedIdentity { client_id } => {
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options,
                }))?
            }
            Login::ClientSecret {
                tenant_id,
                client_id,
                secret,
            } => ClientSecretCredential::new(
                tenant_id,
                client_id.clone(),
                secret.expose().to_owned().into(),
                Some(ClientSecretCredentialOptions { client_options }),
            )?,
            Login::AzureCli => AzureCliCredential::new(None)?,
        })
    }
}

impl Login {
    /// The same identity as the store's, if it has one. A client secret is resolved by the caller.
    pub(super) async fn for_store(auth: Option<&AzureAuth>, client_secret: Option<Secret>) -> Self {
        match auth {
            Some(AzureAuth::WorkloadIdentity { tenant_id, client_id }) => Self::WorkloadIdentity {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
            },
            Some(AzureAuth::ManagedIdentity { client_id }) => Self::ManagedIdentity {
                client_id: client_id.clone(),
            },
            Some(AzureAuth::ClientSecret {
                tenant_id, client_id, ..
            }) => match client_secret {
                Some(secret) => Self::ClientSecret {
                    tenant_id: tenant_id.clone(),
                    client_id: client_id.clone(),
                    secret,
                },
                None => Self::of_this_place().await,
            },
            Some(AzureAuth::AzLogin) => Self::AzureCli,
            Some(AzureAuth::Sas(_) | AzureAuth::AccountKey(_)) | None => Self::of_this_place().await,
        }
    }

    async fn of_this_place() -> Self {
        let given = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let asset_tag = tokio::fs::read_to_string(ASSET_TAG_FILE).await.unwrap_or_default();
        Self::choose(
            given("AZURE_FEDERATED_TOKEN_FILE"),
            given("IDENTITY_ENDPOINT"),
            &asset_tag,
        )
    }

    fn choose(federated_token: bool, identity_endpoint: bool, asset_tag: &str) -> Self {
        if federated_token {
            Self::WorkloadIdentity {
                tenant_id: None,
                client_id: None,
            }
        } else if identity_endpoint || asset_tag.trim() == AZURE_ASSET_TAG {
            Self::ManagedIdentity { client_id: None }
        } else {
            Self::AzureCli
        }
    }
}

/// Sorts an SDK error by status. Its text is not repeated: it may quote what was sent.
fn sort(reference: &str, error: &azure_core::Error) -> SecretError {
    let reference = reference.to_owned();
    let unavailable = |reference, detail: &str| SecretError::Unavailable {
        reference,
        detail: detail.into(),
    };
    match error.kind() {
        ErrorKind::HttpResponse { status, error_code, .. } => {
            let code = error_code.as_deref().unwrap_or("no error code");
            let detail = format!("HTTP {}, {code}", u16::from(*status));
            match u16::from(*status) {
                401 | 403 => SecretError::Denied {
                    reference,
                    detail: format!(
                        "{detail}: the identity needs \"Key Vault Secrets User\" on this vault, and its network rules must allow this machine"
                    ),
                },
                404 | 400 => SecretError::Missing { reference, detail },
                _ => SecretError::Unavailable { reference, detail },
            }
        }
        ErrorKind::Connection | ErrorKind::Io => unavailable(
            reference,
            "the key vault cannot be reached, or there is none of this name",
        ),
        ErrorKind::Credential => unavailable(
            reference,
            "no Azure login: check store.auth, this machine's identity, or run az login",
        ),
        ErrorKind::DataConversion => unavailable(reference, "what answered is no key vault: check the proxy"),
        // `ErrorKind` may grow: what is not known here may pass.
        _ => unavailable(reference, "the Azure client failed"),
    }
}

#[cfg(test)]
#[path = "azure_tests.rs"]
mod tests;
