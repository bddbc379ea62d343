//! Key Vault's answers, given by a transport that is no network. Nobody has asked a real key vault from here.

use std::sync::Mutex;

use async_trait::async_trait;
use azure_core::http::headers::Headers;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, StatusCode};

use super::*;

/// Plays Entra and a key vault: gives a token to whoever knows the client secret, and one answer to whoever has it.
#[derive(Debug)]
struct FakeCloud {
    status: StatusCode,
    body: &'static str,
    asked: Mutex<Vec<String>>,
    silent: bool,
}

#[async_trait]
impl HttpClient for FakeCloud {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let url = request.url().clone();
        let entra = url.host_str() == Some("login.microsoftonline.com");
        let authorized = request
            .headers()
            .iter()
            .any(|(name, value)| name.as_str() == "authorization" && value.as_str() == "Bearer TOKEN");
        self.asked
            .lock()
            .unwrap()
            .push(format!("{}{}", url.host_str().unwrap_or_default(), url.path()));
        if self.silent {
            std::future::pending::<()>().await;
        }
        let mut headers = Headers::new();
        Ok(if entra {
            let token = r#"{"access_token":"TOKEN","expires_in":3600,"ext_expires_in":3600,"token_type":"Bearer"}"#;
            AsyncRawResponse::from_bytes(StatusCode::Ok, headers, token)
        } else if authorized {
            AsyncRawResponse::from_bytes(self.status, headers, self.body)
        } else {
            let challenge = r#"Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net""#;
            headers.insert("www-authenticate", challenge);
            AsyncRawResponse::from_bytes(StatusCode::Unauthorized, headers, "")
        })
    }
}

async fn ask(status: StatusCode, body: &'static str, silent: bool) -> (Result<Secret, SecretError>, Vec<String>) {
    let cloud = Arc::new(FakeCloud {
        status,
        body,
        asked: Mutex::default(),
        silent,
    });
    let key_vault = KeyVault {
        transport: Some(Transport::new(cloud.clone())),
    };
    let login = Login::ClientSecret {
        tenant_id: "tenant".into(),
        client_id: "client".into(),
        secret: Secret::new("hunter2"),
    };
    let answer = key_vault
        .get("azure-keyvault:kv-dr/storage-key", "kv-dr", "storage-key", &login)
        .await;
    let asked = cloud.asked.lock().unwrap().clone();
    (answer, asked)
}

#[tokio::test]
async fn a_secret_is_read_with_the_stores_identity() {
    let (answer, asked) = ask(StatusCode::Ok, r#"{"value":"t0p","id":"x"}"#, false).await;
    assert_eq!(answer.unwrap().expose(), "t0p");
    let vault = "kv-dr.vault.azure.net/secrets/storage-key/";
    assert_eq!(
        asked,
        [vault, "login.microsoftonline.com/tenant/oauth2/v2.0/token", vault]
    );
}

#[tokio::test]
async fn answers_are_sorted_by_what_helps_and_never_quoted() {
    const QUOTING: &str = r#"{"error":{"code":"Code","message":"hunter2 t0p"}}"#;
    let failure = |status, body| async move { ask(status, body, false).await.0.unwrap_err() };
    let missing = failure(StatusCode::NotFound, QUOTING).await;
    assert!(matches!(missing, SecretError::Missing { .. }), "{missing}");
    let denied = failure(StatusCode::Forbidden, QUOTING).await;
    assert!(matches!(denied, SecretError::Denied { .. }), "{denied}");
    assert!(denied.to_string().contains("Key Vault Secrets User"), "{denied}");
    let busy = failure(StatusCode::TooManyRequests, QUOTING).await;
    assert!(matches!(busy, SecretError::Unavailable { .. }), "{busy}");
    let garbled = failure(StatusCode::Ok, "<html>hunter2</html>").await;
    assert!(matches!(garbled, SecretError::Unavailable { .. }), "{garbled}");
    let empty = failure(StatusCode::Ok, r#"{"value":""}"#).await;
    assert!(matches!(empty, SecretError::Missing { .. }), "{empty}");
    for error in [missing, denied, busy, garbled, empty] {
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains("hunter2") && !told.contains("t0p") && told.contains("azure-keyvault:kv-dr"),
            "{told}"
        );
    }
}

#[tokio::test]
async fn a_busy_cloud_is_asked_once_because_the_next_reference_is_the_second_try() {
    let (_, asked) = ask(StatusCode::ServiceUnavailable, "", false).await;
    assert_eq!(asked.len(), 3, "challenge, token, question: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_cloud_is_given_up_after_five_seconds() {
    let started = tokio::time::Instant::now();
    let (answer, _) = ask(StatusCode::Ok, "", true).await;
    assert!(matches!(answer, Err(SecretError::Unavailable { .. })));
    assert!(started.elapsed() <= PATIENCE + std::time::Duration::from_millis(10));
}

#[tokio::test]
async fn the_stores_identity_is_used_wherever_entra_knows_it() {
    let client_secret = AzureAuth::ClientSecret {
        tenant_id: "t".into(),
        client_id: "c".into(),
        secret: crate::secret::SecretRef(Vec::new()),
    };
    let login = Login::for_store(Some(&client_secret), Some(Secret::new("x"))).await;
    assert!(matches!(login, Login::ClientSecret { .. }));
    let managed = AzureAuth::ManagedIdentity {
        client_id: Some("c".into()),
    };
    let login = Login::for_store(Some(&managed), None).await;
    assert_eq!(
        login,
        Login::ManagedIdentity {
            client_id: Some("c".into())
        }
    );
    assert_eq!(Login::for_store(Some(&AzureAuth::AzLogin), None).await, Login::AzureCli);
}

#[test]
fn without_such_an_identity_the_place_decides() {
    let workload = Login::WorkloadIdentity {
        tenant_id: None,
        client_id: None,
    };
    let managed = Login::ManagedIdentity { client_id: None };
    assert_eq!(Login::choose(true, true, AZURE_ASSET_TAG), workload);
    assert_eq!(Login::choose(false, true, ""), managed);
    assert_eq!(Login::choose(false, false, &format!("{AZURE_ASSET_TAG}\n")), managed);
    assert_eq!(Login::choose(false, false, "Amazon EC2"), Login::AzureCli);
}

#[tokio::test]
async fn a_secret_says_when_it_ends() {
    let cloud = Arc::new(FakeCloud {
        status: StatusCode::Ok,
        body: r#"{"value":"t0p","id":"x","attributes":{"enabled":true,"exp":1798761600}}"#,
        asked: Mutex::default(),
        silent: false,
    });
    let key_vault = KeyVault {
        transport: Some(Transport::new(cloud)),
    };
    let login = Login::ClientSecret {
        tenant_id: "tenant".into(),
        client_id: "client".into(),
        secret: Secret::new("hunter2"),
    };
    let ends = key_vault.ends("kv-dr", "storage-key", &login).await;
    assert_eq!(ends.map(|at| at.to_string()).as_deref(), Some("2027-01-01T00:00:00Z"));
}
