//! From an account name and a credential to an SDK client: endpoint, transport, authentication.

use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{Secret as AzureSecret, TokenCredential};
use azure_core::http::policies::Policy;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    AzureCliCredential, ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use url::{Host, Url};

use super::errors::redact;
use super::shared_key::SharedKeyPolicy;
use crate::clock::Clock;
use crate::secret::Secret;
use crate::store::StoreError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How to authenticate, secrets already resolved. `Debug` prints none of them.
#[derive(Debug, Clone)]
pub enum AzureCredentialInput {
    /// Kubernetes workload identity; what is `None` comes from `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`.
    WorkloadIdentity {
        tenant_id: Option<String>,
        client_id: Option<String>,
    },
    /// The machine's identity; with `client_id` a user-assigned one.
    ManagedIdentity { client_id: Option<String> },
    ClientSecret {
        tenant_id: String,
        client_id: String,
        secret: Secret,
    },
    /// Whoever is logged in with `az login`.
    AzLogin,
    /// A shared access signature: the query string, with or without `?`.
    Sas(Secret),
    /// Base64 account key.
    AccountKey(Secret),
}

pub(super) fn container_client(
    store: &str,
    account: &str,
    container: &str,
    endpoint: Option<&Url>,
    auth: &AzureCredentialInput,
    clock: Arc<dyn Clock>,
) -> Result<BlobContainerClient, StoreError> {
    let invalid = |detail: String| StoreError::Invalid {
        store: store.to_owned(),
        detail,
    };
    let mut url = container_url(account, container, endpoint).map_err(invalid)?;
    let loopback = is_loopback(&url);
    let transport = transport(loopback).map_err(|e| invalid(format!("no HTTP client: {e}")))?;

    let mut per_try_policies: Vec<Arc<dyn Policy>> = Vec::new();
    let mut token: Option<Arc<dyn TokenCredential>> = None;
    match auth {
        AzureCredentialInput::AccountKey(key) => {
            let policy = SharedKeyPolicy::new(account, key, clock)
                .map_err(|_| invalid("the account key is not base64".to_owned()))?;
            per_try_policies.push(Arc::new(policy));
        }
        AzureCredentialInput::Sas(sas) => {
            let query = sas.expose().trim();
            url.set_query(Some(query.strip_prefix('?').unwrap_or(query)));
        }
        AzureCredentialInput::WorkloadIdentity { .. }
        | AzureCredentialInput::ManagedIdentity { .. }
        | AzureCredentialInput::ClientSecret { .. }
        | AzureCredentialInput::AzLogin => {
            if url.scheme() != "https" {
                return Err(invalid("a token is only sent over https".to_owned()));
            }
            let credential = token_credential(auth, &transport).map_err(|e| StoreError::Denied {
                store: store.to_owned(),
                detail: redact(&e.to_string()),
            })?;
            token = credential;
        }
    }
    let client_options = ClientOptions {
        per_try_policies,
        transport: Some(transport),
        // Retries are `Retrying`'s: one policy, visible, with one limit.
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    };
    let options = BlobContainerClientOptions {
        client_options,
        ..BlobContainerClientOptions::default()
    };
    BlobContainerClient::new(url, token, Some(options)).map_err(|e| invalid(redact(&e.to_string())))
}

fn token_credential(
    auth: &AzureCredentialInput,
    transport: &Transport,
) -> azure_core::Result<Option<Arc<dyn TokenCredential>>> {
    let client_options = || ClientOptions {
        transport: Some(transport.clone()),
        ..ClientOptions::default()
    };
    let credential: Arc<dyn TokenCredential> = match auth {
        AzureCredentialInput::WorkloadIdentity { tenant_id, client_id } => {
            let mut options = WorkloadIdentityCredentialOptions {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
                ..WorkloadIdentityCredentialOptions::default()
            };
            options.credential_options.client_options = client_options();
            WorkloadIdentityCredential::new(Some(options))?
        }
        AzureCredentialInput::ManagedIdentity { client_id } => {
            ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                client_options: client_options(),
            }))?
        }
        AzureCredentialInput::ClientSecret {
            tenant_id,
            client_id,
            secret,
        } => ClientSecretCredential::new(
            tenant_id,
            client_id.clone(),
            AzureSecret::new(secret.expose().to_owned()),
            Some(ClientSecretCredentialOptions {
                client_options: client_options(),
            }),
        )?,
        AzureCredentialInput::AzLogin => AzureCliCredential::new(None)?,
        AzureCredentialInput::Sas(_) | AzureCredentialInput::AccountKey(_) => return Ok(None),
    };
    Ok(Some(credential))
}

/// Without an override the public cloud's address; an override may be path-style, as emulators are.
pub(super) fn container_url(account: &str, container: &str, endpoint: Option<&Url>) -> Result<Url, String> {
    let mut url = match endpoint {
        Some(endpoint) => endpoint.clone(),
        None => Url::parse(&format!("https://{account}.blob.core.windows.net/"))
            .map_err(|e| format!("storage account {account:?} makes no address: {e}"))?,
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("the endpoint must be a plain address: no user, query or fragment".to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) => {}
        "http" => return Err("an http endpoint is only allowed on a loopback address; use https".to_owned()),
        other => return Err(format!("the endpoint's scheme is {other}; use https")),
    }
    match url.path_segments_mut() {
        Ok(mut segments) => {
            segments.pop_if_empty().push(container);
        }
        Err(()) => return Err("the endpoint cannot be a base address".to_owned()),
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// One pool for all calls. Not the SDK's own client: that one gives up when no *answer* byte came for
/// 60 s, which also counts the time a large block takes to send. Each call has its own bound instead.
fn transport(loopback: bool) -> reqwest::Result<Transport> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none());
    if loopback {
        builder = builder.no_proxy();
    }
    Ok(Transport::new(Arc::new(builder.build()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(endpoint: Option<&str>) -> Result<String, String> {
        let endpoint = endpoint.map(|e| Url::parse(e).unwrap());
        container_url("acct", "box", endpoint.as_ref()).map(String::from)
    }

    #[test]
    fn endpoints() {
        assert_eq!(url(None).unwrap(), "https://acct.blob.core.windows.net/box");
        assert_eq!(
            url(Some("http://127.0.0.1:1/dev")).unwrap(),
            "http://127.0.0.1:1/dev/box"
        );
        assert_eq!(url(Some("http://[::1]:1/dev/")).unwrap(), "http://[::1]:1/dev/box");
        assert_eq!(
            url(Some("https://private.example/")).unwrap(),
            "https://private.example/box"
        );
        for refused in [
            "http://10.0.0.1/",
            "http://localhost.evil.example/",
            "ftp://127.0.0.1/",
            "https://h/?sig=x",
        ] {
            assert!(url(Some(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear() {
        let endpoint = Url::parse("http://127.0.0.1:1/dev").unwrap();
        let auth = AzureCredentialInput::AzLogin;
        let clock = Arc::new(crate::clock::SystemClock);
        let refused = container_client("s", "a", "c", Some(&endpoint), &auth, clock)
            .err()
            .unwrap();
        assert!(matches!(refused, StoreError::Invalid { detail, .. } if detail.contains("https")));
    }
}
