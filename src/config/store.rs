//! The `[store]` section: where backups live, and as whom to go there.

use std::path::PathBuf;

use url::{Host, Url};

use super::collect::{Document, Section};
use super::sections::is_loopback;
use super::{AzureAuth, Place, Store};
use crate::secret::SecretRef;

const URL_FORMS: &str = "\"azblob://ACCOUNT/CONTAINER\" or \"file:///absolute/directory\"";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AuthKind {
    WorkloadIdentity,
    ManagedIdentity,
    ClientSecret,
    AzLogin,
    Sas,
    AccountKey,
}

impl AuthKind {
    const NAMES: [(&str, Self); 6] = [
        ("workload-identity", Self::WorkloadIdentity),
        ("managed-identity", Self::ManagedIdentity),
        ("client-secret", Self::ClientSecret),
        ("az-login", Self::AzLogin),
        ("sas", Self::Sas),
        ("account-key", Self::AccountKey),
    ];

    /// The keys that belong to this kind of login; any other of them is a mistake.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::WorkloadIdentity => &["tenant_id", "client_id"],
            Self::ManagedIdentity => &["client_id"],
            Self::ClientSecret => &["tenant_id", "client_id", "client_secret"],
            Self::AzLogin => &[],
            Self::Sas => &["sas"],
            Self::AccountKey => &["account_key"],
        }
    }

    /// Entra's tokens open every container of an account: the SDK sends them over https only.
    fn needs_https(self) -> bool {
        match self {
            Self::WorkloadIdentity | Self::ManagedIdentity | Self::ClientSecret | Self::AzLogin => true,
            Self::Sas | Self::AccountKey => false,
        }
    }
}

const AUTH_KEYS: [&str; 5] = ["account_key", "sas", "tenant_id", "client_id", "client_secret"];

enum Location {
    Directory(PathBuf),
    Azure { account: String, container: String },
}

pub(super) fn store(document: &mut Document<'_>) -> Store {
    let mut section = document.section("store");
    let location = section.text("url", location);
    if !section.has("url") {
        section.problem("url", format!("is missing: write {URL_FORMS}"));
    }
    let prefix = section.text("prefix", prefix).unwrap_or_else(|| "backups/".into());
    // Every key is read whatever the place, so that each mistake is told and none counts as unknown.
    let azure = azure_keys(&mut section);
    let place = match location {
        Some(Location::Directory(directory)) => {
            for key in AUTH_KEYS.into_iter().chain(["auth", "endpoint", "control"]) {
                if section.has(key) {
                    section.problem(key, "is not used with a file:// store: remove it");
                }
            }
            Place::Directory(directory)
        }
        Some(Location::Azure { account, container }) => azure_place(&mut section, account, container, azure),
        // Reported; what the place would have been is not known, so nothing more is said about it.
        None => Place::Directory(PathBuf::new()),
    };
    Store { place, prefix }
}

struct AzureKeys {
    kind: Option<AuthKind>,
    account_key: Option<SecretRef>,
    sas: Option<SecretRef>,
    tenant_id: Option<String>,
    client_id: Option<String>,
    client_secret: Option<SecretRef>,
    endpoint: Option<Url>,
    control: Option<String>,
}

fn azure_keys(section: &mut Section<'_, '_>) -> AzureKeys {
    AzureKeys {
        kind: section.choice("auth", &AuthKind::NAMES),
        account_key: section.secret("account_key"),
        sas: section.secret("sas"),
        tenant_id: section.text("tenant_id", directory_id),
        client_id: section.text("client_id", directory_id),
        client_secret: section.secret("client_secret"),
        endpoint: section.text("endpoint", endpoint),
        control: section.text("control", container_name),
    }
}

fn azure_place(section: &mut Section<'_, '_>, account: String, container: String, keys: AzureKeys) -> Place {
    let control_container = match keys.control {
        Some(control) => control,
        None => format!("{container}-control"),
    };
    if control_container == container {
        section.problem(
            "control",
            "must be another container than the backups': it is protected differently",
        );
    } else if !section.has("control") && container_name(&control_container).is_err() {
        section.problem(
            "control",
            "must be given: the container's name is too long to append \"-control\"",
        );
    }
    let plain_http = keys
        .endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.scheme() == "http");
    if plain_http && keys.kind.is_some_and(AuthKind::needs_https) {
        section.problem(
            "endpoint",
            "must be https for this kind of auth: an emulator takes \"account-key\" or \"sas\"",
        );
    }
    if !section.has("auth") {
        let names = AuthKind::NAMES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        section.problem("auth", format!("is missing: write one of {names}"));
    }
    if let Some(kind) = keys.kind {
        for key in AUTH_KEYS {
            if section.has(key) && !kind.keys().contains(&key) {
                section.problem(key, "is not used with this kind of auth: remove it, or change auth");
            }
        }
    }
    let secret = |reference: Option<SecretRef>| reference.map(|reference| reference.0);
    let auth = match keys.kind {
        Some(AuthKind::WorkloadIdentity) => AzureAuth::WorkloadIdentity {
            tenant_id: keys.tenant_id,
            client_id: keys.client_id,
        },
        Some(AuthKind::ManagedIdentity) => AzureAuth::ManagedIdentity {
            client_id: keys.client_id,
        },
        Some(AuthKind::ClientSecret) => {
            if keys.client_secret.as_ref().is_some_and(SecretRef::needs_key_vault) {
                section.problem(
                    "client_secret",
                    "cannot come from a key vault alone: it is what opens the key vault",
                );
            }
            AzureAuth::ClientSecret {
                tenant_id: section.need("tenant_id", keys.tenant_id, "the Entra tenant's id"),
                client_id: section.need("client_id", keys.client_id, "the application's (client) id"),
                secret: SecretRef(section.need("client_secret", secret(keys.client_secret), "where the secret is")),
            }
        }
        Some(AuthKind::Sas) => AzureAuth::Sas(SecretRef(section.need(
            "sas",
            secret(keys.sas),
            "where the SAS is, e.g. \"env:PLANB_SAS\"",
        ))),
        Some(AuthKind::AccountKey) => AzureAuth::AccountKey(SecretRef(section.need(
            "account_key",
            secret(keys.account_key),
            "where the key is, e.g. [\"azure-keyvault:kv-dr/storage-key\", \"env:PLANB_STORAGE_KEY\"]",
        ))),
        Some(AuthKind::AzLogin) | None => AzureAuth::AzLogin,
    };
    Place::Azure {
        account,
        container,
        control_container,
        endpoint: keys.endpoint,
        auth,
    }
}

fn location(text: &str) -> Result<Location, String> {
    let wrong = || format!("must be {URL_FORMS}");
    let url = Url::parse(text).map_err(|_| wrong())?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "must be {URL_FORMS} and nothing after it: a SAS is named under store.sas"
        ));
    }
    match url.scheme() {
        // `url` reads "file:relative" as "/relative", and "file://host/x" as a share of that host.
        "file" if text.starts_with("file:///") => match url.to_file_path() {
            Ok(path) if path.file_name().is_some() => Ok(Location::Directory(path)),
            Ok(_) | Err(()) => Err("must name a directory below /, e.g. \"file:///var/lib/planb/store\"".into()),
        },
        "azblob" => {
            let account = url.host_str().unwrap_or_default().to_owned();
            let container = url.path().trim_start_matches('/').to_owned();
            let account_fits = account
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !account_fits || !(3..=24).contains(&account.len()) || url.port().is_some() {
                return Err("must be azblob://ACCOUNT/CONTAINER: an account has 3 to 24 of a-z and digits".into());
            }
            container_name(&container)
                .map_err(|rule| format!("must be azblob://ACCOUNT/CONTAINER: a container {rule}"))?;
            Ok(Location::Azure { account, container })
        }
        _ => Err(wrong()),
    }
}

/// <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>
fn container_name(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let dashes = text.starts_with('-') || text.ends_with('-') || text.contains("--");
    if plain && !dashes && (3..=63).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err("must be 3 to 63 of a-z, digits and single '-', with no '-' at the ends".into())
    }
}

/// `control/` and `preserved/` hold what is not a backup of the ordinary run.
fn prefix(text: &str) -> Result<String, String> {
    let wrong = "must be a path such as \"backups/\" of a-z, A-Z, digits, '.', '_', '-', without a leading '/'";
    let trimmed = text.strip_suffix('/').unwrap_or(text);
    let mut parts = trimmed.split('/');
    let fits = |part: &str| {
        let plain = part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        plain && !part.is_empty() && !part.starts_with('.') && !part.ends_with('.')
    };
    if trimmed.len() > 200 || !parts.clone().all(fits) {
        return Err(wrong.into());
    }
    if matches!(parts.next(), Some("control" | "preserved")) {
        return Err("must not begin with control/ or preserved/: those hold other things".into());
    }
    Ok(format!("{trimmed}/"))
}

fn directory_id(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if plain && (1..=128).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err("must be an Entra id (a UUID)".into())
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let wrong = || "must be a URL such as \"https://ACCOUNT.blob.core.windows.net\"".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must be a URL without user, query or fragment: a SAS is named under store.sas".into());
    }
    let loopback = match url.host() {
        Some(Host::Domain(name)) => is_loopback(name),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(wrong()),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        "http" => Err("must be https: plain http is only for an emulator on a loopback address".into()),
        _ => Err(wrong()),
    }
}
