//! One question over HTTP, and whether the answer is the one that was expected: for steps that wait and probes that watch.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, Method};

/// Bytes of an answer that are looked at.
const LOOKED_AT: usize = 64 << 10;

/// What an answer must be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub statuses: &'a [u16],
    /// Text that its first 64 KiB must hold.
    pub contains: Option<&'a str>,
}

/// Certificates are verified; a redirect is an answer, not followed; each question makes a connection of its own, since an old
/// one may outlive what no new one can reach. With `connect`, that name is looked for at that address and nowhere else: no resolver and
/// no proxy is asked, and the certificate must still be the name's.
///
/// # Errors
/// What is wrong with `tls_ca`, in words.
pub fn client(
    tls_ca: Option<&Path>,
    answer_within: Duration,
    connect: Option<(&str, IpAddr)>,
) -> Result<Client, String> {
    let mut builder = Client::builder()
        .timeout(answer_within)
        .pool_max_idle_per_host(0)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = tls_ca {
        let pem = std::fs::read(path).map_err(|error| format!("tls_ca {}: {error}", path.display()))?;
        let certificate = reqwest::Certificate::from_pem(&pem)
            .map_err(|_| format!("tls_ca {} is no PEM certificate", path.display()))?;
        builder = builder.tls_certs_only([certificate]);
    }
    if let Some((name, address)) = connect {
        // Port 0: the one of the URL.
        builder = builder.no_proxy().resolve(name, SocketAddr::new(address, 0));
    }
    builder.build().map_err(|error| error.without_url().to_string())
}

/// The status, if the answer is as expected.
///
/// # Errors
/// What happened instead, in a few words.
pub async fn ask(
    client: &Client,
    method: &Method,
    url: &str,
    body: Option<String>,
    expected: Expected<'_>,
) -> Result<u16, String> {
    let mut request = client.request(method.clone(), url);
    if let Some(body) = body {
        request = request.body(body);
    }
    let mut response = request.send().await.map_err(|error| told(&error))?;
    let status = response.status().as_u16();
    if !expected.statuses.contains(&status) {
        return Err(format!("answered {status}"));
    }
    let Some(wanted) = expected.contains else {
        return Ok(status);
    };
    let mut seen = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| told(&error))? {
        seen.extend_from_slice(&chunk);
        if memchr::memmem::find(&seen, wanted.as_bytes()).is_some() {
            return Ok(status);
        }
        if seen.len() > LOOKED_AT {
            break;
        }
    }
    Err(format!("answered {status}, without {wanted:?}"))
}

/// The innermost cause says what happened.
fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
