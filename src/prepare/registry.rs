//! Adapter: a container registry, through the OCI distribution API. What comes out of it is checked against its digest; what goes
//! in is streamed in pieces, so that no layer is ever held whole.
//!
//! Source: OCI Distribution Specification 1.1, and the token flow that registries share
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use url::Url;

use crate::secret::Secret;

mod error;
mod manifest;

pub use error::RegistryError;
pub use manifest::{Manifest, Parts};

/// One manifest; more than this is none (the specification asks registries to take 4 MiB).
const LARGEST_MANIFEST: usize = 4 << 20;
/// What is sent at once.
const PIECE_BYTES: usize = 8 << 20;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// No byte for this long: it hangs.
const SILENT_FOR: Duration = Duration::from_secs(60);

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";

/// As whom to go there.
#[derive(Debug, Clone)]
pub enum Login {
    Anonymous,
    Password {
        user: String,
        password: Secret,
    },
    /// A token of Entra's, which an Azure registry changes for one of its own.
    Entra(Secret),
}

/// One registry. Tokens are kept as long as this lives.
pub struct Registry {
    pub host: String,
    base: Url,
    client: Client,
    login: Login,
    /// By scope.
    tokens: Mutex<HashMap<String, Secret>>,
}

/// An upload that was begun.
struct Upload {
    at: Url,
    sent: usize,
}

impl Registry {
    /// Nothing is asked yet. Plain HTTP is spoken with this machine only.
    ///
    /// # Errors
    /// The host is none.
    pub fn new(host: &str, login: Login) -> Result<Self, RegistryError> {
        let unusable = |detail: String| RegistryError::Unreachable {
            registry: host.to_owned(),
            detail,
        };
        // What its images' names call it is not where its API is.
        let address = if host == "docker.io" {
            "registry-1.docker.io"
        } else {
            host
        };
        let mut base = Url::parse(&format!("https://{address}/v2/")).map_err(|error| unusable(error.to_string()))?;
        if is_loopback(&base) {
            let _ = base.set_scheme("http");
            // Port 443 is left out of an https address and would be lost.
            base = Url::parse(&format!("http://{address}/v2/")).map_err(|error| unusable(error.to_string()))?;
        }
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENT_FOR)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self {
            host: host.to_owned(),
            base,
            client,
            login,
            tokens: Mutex::default(),
        })
    }

    /// # Errors
    /// [`RegistryError`], but for an answer that says no.
    pub async fn has_manifest(&self, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let url = self.url(&format!("{repository}/manifests/{digest}"))?;
        self.is_there(url, repository, digest).await
    }

    async fn has_blob(&self, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let url = self.url(&format!("{repository}/blobs/{digest}"))?;
        self.is_there(url, repository, digest).await
    }

    async fn is_there(&self, url: Url, repository: &str, digest: &str) -> Result<bool, RegistryError> {
        let what = format!("{repository}@{digest}");
        let asked = self.client.head(url).header(ACCEPT, MANIFESTS);
        match self.send(asked, repository, "pull", &what).await {
            Ok(_) => Ok(true),
            Err(RegistryError::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// [`RegistryError::Different`] where its bytes are not those of the digest.
    pub async fn manifest(&self, repository: &str, digest: &str) -> Result<Manifest, RegistryError> {
        let what = format!("{repository}@{digest}");
        let url = self.url(&format!("{repository}/manifests/{digest}"))?;
        let asked = self.client.get(url).header(ACCEPT, MANIFESTS);
        let mut answer = self.send(asked, repository, "pull", &what).await?;
        let media_type = header(&answer, CONTENT_TYPE).unwrap_or_default();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_MANIFEST {
                return Err(self.different(&what, "it is larger than any manifest"));
            }
        }
        if sha256(&bytes) != digest {
            return Err(self.different(&what, "its bytes have another digest"));
        }
        Ok(Manifest {
            media_type,
            bytes: bytes.freeze(),
        })
    }

    /// Everything that a manifest names has to be there before.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn put_manifest(&self, repository: &str, digest: &str, manifest: &Manifest) -> Result<(), RegistryError> {
        let what = format!("{repository}@{digest}");
        let url = self.url(&format!("{repository}/manifests/{digest}"))?;
        let asked = self
            .client
            .put(url)
            .header(CONTENT_TYPE, &manifest.media_type)
            .body(manifest.bytes.clone());
        self.send(asked, repository, "pull,push", &what).await?;
        Ok(())
    }

    /// Brings a blob over from another registry; true if it was not there yet. Checked on the way, and by the registry again.
    ///
    /// # Errors
    /// Of either side.
    pub async fn bring_blob(
        &self,
        repository: &str,
        digest: &str,
        from: &Self,
        from_repository: &str,
        told: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<bool, RegistryError> {
        if self.has_blob(repository, digest).await? {
            return Ok(false);
        }
        let what = format!("{repository}@{digest}");
        let mut begun = self.url(&format!("{repository}/blobs/uploads/"))?;
        if from.host == self.host {
            begun
                .query_pairs_mut()
                .append_pair("mount", digest)
                .append_pair("from", from_repository);
        }
        let asked = self.client.post(begun).header(CONTENT_LENGTH, 0);
        let answer = self.send(asked, repository, "pull,push", &what).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(true);
        }
        let mut upload = Upload {
            at: self.location(&answer, &what)?,
            sent: 0,
        };
        let source = from.url(&format!("{from_repository}/blobs/{digest}"))?;
        let of_source = format!("{from_repository}@{digest}");
        let mut read = from
            .send(from.client.get(source), from_repository, "pull", &of_source)
            .await?;
        let mut hash = Sha256::new();
        let mut piece = BytesMut::new();
        while let Some(chunk) = read.chunk().await.map_err(|error| from.unreachable(&error))? {
            hash.update(&chunk);
            piece.extend_from_slice(&chunk);
            if piece.len() >= PIECE_BYTES {
                self.patch(&mut upload, piece.split().freeze(), repository, &what)
                    .await?;
                told(upload.sent as u64);
            }
        }
        if !piece.is_empty() {
            self.patch(&mut upload, piece.freeze(), repository, &what).await?;
            told(upload.sent as u64);
        }
        if format!("sha256:{}", hex(&hash.finalize())) != digest {
            // Dropped by the registry in its own time where this does not reach it.
            let _ = self
                .send(self.client.delete(upload.at), repository, "pull,push", &what)
                .await;
            return Err(from.different(&of_source, "what came has another digest; it was cut off or altered"));
        }
        let mut done = upload.at;
        done.query_pairs_mut().append_pair("digest", digest);
        let asked = self.client.put(done).header(CONTENT_LENGTH, 0);
        self.send(asked, repository, "pull,push", &what).await?;
        Ok(true)
    }

    async fn patch(
        &self,
        upload: &mut Upload,
        piece: Bytes,
        repository: &str,
        what: &str,
    ) -> Result<(), RegistryError> {
        let length = piece.len();
        let asked = self
            .client
            .patch(upload.at.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(
                CONTENT_RANGE,
                format!("{}-{}", upload.sent, upload.sent + length.saturating_sub(1)),
            )
            .header(CONTENT_LENGTH, length)
            .body(piece);
        let answer = self.send(asked, repository, "pull,push", what).await?;
        upload.at = self.location(&answer, what)?;
        upload.sent += length;
        Ok(())
    }

    /// Where an upload goes on. Never another host: a registry that sends layers elsewhere would get our token sent there.
    fn location(&self, answer: &Response, what: &str) -> Result<Url, RegistryError> {
        let url = header(answer, LOCATION).and_then(|to| answer.url().join(&to).ok());
        url.filter(|url| url.origin() == self.base.origin())
            .ok_or_else(|| self.different(what, "an upload without a place of its own to go on"))
    }

    /// Sends, and once more with a token where one is asked for.
    async fn send(
        &self,
        asked: RequestBuilder,
        repository: &str,
        actions: &str,
        what: &str,
    ) -> Result<Response, RegistryError> {
        let scope = format!("repository:{repository}:{actions}");
        let again = asked.try_clone();
        let token = self.tokens().get(&scope).cloned();
        let had_token = token.is_some();
        let first = match token {
            Some(token) => asked.header(AUTHORIZATION, sensitive(token.expose())),
            None => asked,
        };
        let answer = first.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.sorted(answer, what).await;
        }
        let challenge = header(&answer, WWW_AUTHENTICATE).unwrap_or_default();
        let denied = |detail: &str| RegistryError::Denied {
            registry: self.host.clone(),
            what: what.to_owned(),
            detail: detail.to_owned(),
        };
        if had_token && challenge.contains("insufficient_scope") {
            return Err(denied("the login may not do this"));
        }
        let token = self.log_in(&challenge, &scope, what).await?;
        let again = again.ok_or_else(|| denied("401"))?;
        let again = again.header(AUTHORIZATION, sensitive(token.expose()));
        self.tokens().insert(scope, token);
        let answer = again.send().await.map_err(|error| self.unreachable(&error))?;
        self.sorted(answer, what).await
    }

    fn tokens(&self) -> std::sync::MutexGuard<'_, HashMap<String, Secret>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes into `Authorization`, by what the registry asks for.
    async fn log_in(&self, challenge: &str, scope: &str, what: &str) -> Result<Secret, RegistryError> {
        let denied = |detail: String| RegistryError::Denied {
            registry: self.host.clone(),
            what: what.to_owned(),
            detail,
        };
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return match &self.login {
                Login::Password { user, password } => Ok(basic(user, password)),
                Login::Anonymous | Login::Entra(_) => Err(denied("it wants a user and a password".to_owned())),
            };
        }
        let realm = parameter(rest, "realm").and_then(|realm| Url::parse(&realm).ok());
        let realm = realm.filter(|url| url.scheme() == "https" || is_loopback(url));
        let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), realm) else {
            return Err(denied("401, and it does not say how to log in".to_owned()));
        };
        let service = parameter(rest, "service").unwrap_or_default();
        let asked = match &self.login {
            Login::Entra(entra) => {
                let refresh = self.exchanged(entra, what).await?;
                let form = form(&[
                    ("grant_type", "refresh_token"),
                    ("service", &service),
                    ("scope", scope),
                    ("refresh_token", refresh.expose()),
                ]);
                self.form_request(realm, form)
            }
            login => {
                let mut url = realm;
                url.query_pairs_mut()
                    .append_pair("service", &service)
                    .append_pair("scope", scope);
                let asked = self.client.get(url);
                match login {
                    Login::Password { user, password } => {
                        asked.header(AUTHORIZATION, sensitive(basic(user, password).expose()))
                    }
                    Login::Anonymous | Login::Entra(_) => asked,
                }
            }
        };
        let answer = self.json(asked, what).await?;
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
        let token = token.ok_or_else(|| denied("its login gave no token".to_owned()))?;
        Ok(Secret::new(format!("Bearer {token}")))
    }

    /// Entra's token for a refresh token of an Azure registry's own.
    async fn exchanged(&self, entra: &Secret, what: &str) -> Result<Secret, RegistryError> {
        let url = self.base.join("/oauth2/exchange").map_err(|_| self.strange(what))?;
        let body = form(&[
            ("grant_type", "access_token"),
            ("service", &self.host),
            ("access_token", entra.expose()),
        ]);
        let answer = self.json(self.form_request(url, body), what).await?;
        let token = answer["refresh_token"].as_str().ok_or_else(|| self.strange(what))?;
        Ok(Secret::new(token))
    }

    fn form_request(&self, url: Url, body: String) -> RequestBuilder {
        self.client
            .request(Method::POST, url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body)
    }

    async fn json(&self, asked: RequestBuilder, what: &str) -> Result<Value, RegistryError> {
        let answer = asked.send().await.map_err(|error| self.unreachable(&error))?;
        let answer = self.sorted(answer, &format!("the login for {what}")).await?;
        let bytes = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        // The parser's message could quote a token.
        serde_json::from_slice(&bytes).map_err(|_| self.strange(what))
    }

    async fn sorted(&self, answer: Response, what: &str) -> Result<Response, RegistryError> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let (registry, what) = (self.host.clone(), what.to_owned());
        Err(match status {
            StatusCode::NOT_FOUND => RegistryError::Missing { registry, what },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Denied {
                registry,
                what,
                detail: status.as_u16().to_string(),
            },
            status => RegistryError::Answered {
                registry,
                what,
                status: status.as_u16(),
                detail: said(answer).await,
            },
        })
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|_| self.strange(path))
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        RegistryError::Unreachable {
            registry: self.host.clone(),
            detail: cause.to_string(),
        }
    }

    fn different(&self, what: &str, detail: &str) -> RegistryError {
        RegistryError::Different {
            registry: self.host.clone(),
            what: what.to_owned(),
            detail: detail.to_owned(),
        }
    }

    fn strange(&self, what: &str) -> RegistryError {
        self.different(what, "its answer makes no sense; is it a container registry?")
    }
}

/// The registry's own words, by the specification `{"errors":[{"code":…,"message":…}]}`.
async fn said(answer: Response) -> String {
    let Ok(bytes) = answer.bytes().await else {
        return String::new();
    };
    let read: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let error = &read["errors"][0];
    match (error["code"].as_str(), error["message"].as_str()) {
        (Some(code), message) => {
            let told: String = format!(": {code} {}", message.unwrap_or_default())
                .chars()
                .take(200)
                .collect();
            told.trim_end().to_owned()
        }
        (None, _) => String::new(),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn header(answer: &Response, name: reqwest::header::HeaderName) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// A value that no log prints.
fn sensitive(text: &str) -> reqwest::header::HeaderValue {
    let value = reqwest::header::HeaderValue::from_str(text);
    let mut value = value.unwrap_or_else(|_| reqwest::header::HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn basic(user: &str, password: &Secret) -> Secret {
    let pair = format!("{user}:{}", password.expose());
    Secret::new(format!("Basic {}", base64(pair.as_bytes())))
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let number = three
            .iter()
            .chain([0, 0].iter())
            .take(3)
            .fold(0_u32, |sum, byte| (sum << 8) | u32::from(*byte));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

fn form(pairs: &[(&str, &str)]) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// `name="value"` of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    challenge.split(',').find_map(|part| {
        let (key, value) = part.trim().split_once('=')?;
        (key.eq_ignore_ascii_case(name)).then(|| value.trim_matches('"').to_owned())
    })
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_challenge_and_of_a_login() {
        let told = "realm=\"https://a.example/token\",service=\"b\"";
        assert_eq!(parameter(told, "realm").as_deref(), Some("https://a.example/token"));
        assert_eq!(parameter(told, "scope"), None);
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
