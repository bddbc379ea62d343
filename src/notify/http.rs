//! Slack, PagerDuty and webhooks: one POST each. URLs and keys are secrets, resolved for each message and shown nowhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};
use sha2::Sha256;
use url::Url;

use super::channel::{Channel, Taken};
use super::desk::{Item, Refusal};
use super::message::{self, Sender};
use crate::clock::Clock;
use crate::secret::{Resolver, Secret, SecretRef};

/// From the connect to the end of the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Of an answer that says why it was refused.
const LOOKED_AT: usize = 80;
/// <https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// `sha256=` and the HMAC-SHA256 of the body in hex, as GitHub's webhooks have it.
const SIGNATURE: &str = "x-planb-signature";

/// Whose API it is.
#[derive(Debug, Clone)]
pub enum Form {
    Slack { url: SecretRef },
    PagerDuty { key: SecretRef, endpoint: Option<Url> },
    Webhook { url: SecretRef, secret: Option<SecretRef> },
}

#[derive(Debug)]
pub struct Http {
    pub form: Form,
    /// Authority that signed the server's certificate, PEM; default: the system's.
    pub tls_ca: Option<PathBuf>,
    pub resolver: Arc<Resolver>,
    pub clock: Arc<dyn Clock>,
}

/// One request, whose parts may be secret.
struct Request {
    url: Url,
    body: String,
    signature: Option<String>,
}

#[async_trait]
impl Channel for Http {
    async fn send(&self, sender: &Sender, items: &[Item]) -> Result<Taken, Refusal> {
        self.deliver(sender, items).await.map(|()| Taken::default())
    }
}

impl Http {
    async fn deliver(&self, sender: &Sender, items: &[Item]) -> Result<(), Refusal> {
        match &self.form {
            Form::Slack { url } => {
                let url = self.url(url).await?;
                let body = message::slack(sender, items).to_string();
                self.post(Request {
                    url,
                    body,
                    signature: None,
                })
                .await
            }
            Form::PagerDuty { key, endpoint } => {
                let key = self.secret(key).await?;
                let usual = || Url::parse(PAGERDUTY).map_err(|_| permanent("no address".to_owned()));
                let url = endpoint.clone().map_or_else(usual, Ok)?;
                for item in items {
                    let body = message::pagerduty(sender, item, key.expose()).to_string();
                    let url = url.clone();
                    self.post(Request {
                        url,
                        body,
                        signature: None,
                    })
                    .await?;
                }
                Ok(())
            }
            Form::Webhook { url, secret } => {
                let url = self.url(url).await?;
                let secret = match secret {
                    Some(secret) => Some(self.secret(secret).await?),
                    None => None,
                };
                for item in items {
                    let body = message::json(sender, item).to_string();
                    let signature = secret.as_ref().map(|secret| signature(secret, body.as_bytes()));
                    let url = url.clone();
                    self.post(Request { url, body, signature }).await?;
                }
                Ok(())
            }
        }
    }

    async fn secret(&self, reference: &SecretRef) -> Result<Secret, Refusal> {
        self.resolver.resolve(reference).await.map_err(|error| Refusal {
            is_permanent: error.is_permanent(),
            error: error.to_string(),
            retry_after: None,
        })
    }

    async fn url(&self, reference: &SecretRef) -> Result<Url, Refusal> {
        let text = self.secret(reference).await?;
        let wrong = |why: &str| permanent(format!("the secret that names the URL {why}"));
        let url = Url::parse(text.expose().trim()).map_err(|_| wrong("is no URL"))?;
        if url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url)) {
            Ok(url)
        } else {
            Err(wrong("must begin with https://"))
        }
    }

    async fn post(&self, request: Request) -> Result<(), Refusal> {
        let client = self.client(is_loopback(&request.url)).await?;
        let mut post = client
            .post(request.url)
            .header(CONTENT_TYPE, "application/json")
            .body(request.body);
        if let Some(signature) = request.signature {
            post = post.header(SIGNATURE, signature);
        }
        let response = post.send().await.map_err(|error| Refusal {
            error: told(error),
            is_permanent: false,
            retry_after: None,
        })?;
        self.judge(response).await
    }

    /// Made for each message: they are rare, and a connection kept for hours is a dead one.
    async fn client(&self, loopback: bool) -> Result<Client, Refusal> {
        let mut builder = Client::builder()
            .timeout(ANSWER_WITHIN)
            .connect_timeout(CONNECT_WITHIN)
            // A secret is not carried to wherever a server points.
            .redirect(reqwest::redirect::Policy::none());
        if loopback {
            builder = builder.no_proxy();
        }
        if let Some(path) = &self.tls_ca {
            let wrong = |what: &str| permanent(format!("tls_ca {}: {what}", path.display()));
            let pem = tokio::fs::read(path)
                .await
                .map_err(|error| wrong(&error.kind().to_string()))?;
            let certificate = reqwest::Certificate::from_pem(&pem).map_err(|_| wrong("is no PEM certificate"))?;
            builder = builder.tls_certs_only([certificate]);
        }
        builder.build().map_err(|error| permanent(told(error)))
    }

    async fn judge(&self, response: Response) -> Result<(), Refusal> {
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let passes = status.is_server_error()
            || [
                StatusCode::TOO_MANY_REQUESTS,
                StatusCode::REQUEST_TIMEOUT,
                StatusCode::TOO_EARLY,
            ]
            .contains(&status);
        let retry_after = retry_after(&response, self.clock.now());
        let why = match said(response).await {
            Some(word) => format!("HTTP {} ({word})", status.as_u16()),
            None => format!("HTTP {}", status.as_u16()),
        };
        Err(Refusal {
            error: why,
            is_permanent: !passes,
            retry_after,
        })
    }
}

fn permanent(error: String) -> Refusal {
    Refusal {
        error,
        is_permanent: true,
        retry_after: None,
    }
}

/// In seconds, or as a date (RFC 9110 §10.2.3).
fn retry_after(response: &Response, now: jiff::Timestamp) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(at.duration_since(now)).ok()
}

/// Slack says why in one word, such as `no_service`. Anything longer might repeat what was sent, and is not told.
async fn said(mut response: Response) -> Option<String> {
    let start = response.chunk().await.ok()??;
    let text = std::str::from_utf8(start.get(..LOOKED_AT.min(start.len()))?)
        .ok()?
        .trim();
    let is_word = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    ((1..=40).contains(&text.len()) && is_word).then(|| text.to_owned())
}

/// See [`SIGNATURE`].
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()) else {
        return String::new();
    };
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The innermost cause says what happened, and names no URL.
fn told(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", ANSWER_WITHIN.as_secs());
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_that_everybody_computes() {
        // RFC 4231, test case 2.
        let signed = signature(&Secret::new("Jefe"), b"what do ya want for nothing?");
        assert_eq!(
            signed,
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
