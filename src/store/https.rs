//! A blob behind a URL, read in ranges: for a link with a token in its query (a SAS), which needs no account here.
//!
//! The query is a secret. It is sent to the server and appears nowhere else: not in messages, not in `Debug`.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, ETAG, IF_MATCH, RANGE};
use reqwest::{Client, Response, StatusCode};
use url::Url;

use super::StoreError;
use super::blob::Blob;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one try, beside the time that its bytes take at the slowest speed.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;
/// How often a range is asked for; the pauses in between double, some 25 s together.
const TRIES: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// One version of what is behind a URL.
pub struct HttpsBlob {
    client: Client,
    url: Url,
    /// Without query: what may be shown.
    place: String,
    size_bytes: u64,
    etag: String,
}

impl fmt::Debug for HttpsBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpsBlob")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A URL as it may be shown: without its query, which may be a key to it.
pub fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Refused for URLs that can have none.
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown.to_string()
}

impl HttpsBlob {
    /// Asks for size and version. Plain http is taken for this machine only.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for what cannot be read so; the network's.
    pub async fn open(url: Url) -> Result<Self, StoreError> {
        let place = shown(&url);
        let invalid = |detail: &str| StoreError::Invalid {
            store: place.clone(),
            detail: detail.to_owned(),
        };
        let loopback = is_loopback(&url);
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(invalid("a token must not travel in the clear; write https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                "it holds a user or a password; use a link with a token (SAS) in its query",
            ));
        }
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A token is not carried to wherever a server points.
            .redirect(reqwest::redirect::Policy::none());
        if loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| invalid(&told(error)))?;
        let mut blob = Self {
            client,
            url,
            place: place.clone(),
            size_bytes: 0,
            etag: String::new(),
        };
        // Not HEAD, which a token for reading may not allow.
        let headers = blob.patiently(0..1, false).await?.1;
        let size = headers
            .content_range
            .and_then(|range| range.rsplit('/').next()?.parse().ok());
        blob.size_bytes =
            size.ok_or_else(|| invalid("the server does not say how long it is; download it and give the file"))?;
        blob.etag = headers
            .etag
            .filter(|etag| etag.starts_with('"'))
            .ok_or_else(|| invalid("the server gives no version of it (ETag); download it and give the file"))?;
        Ok(blob)
    }

    /// One range, asked for again while that may help. With `pinned`, of the version that was opened.
    async fn patiently(&self, range: Range<u64>, pinned: bool) -> Result<(Bytes, Headers), StoreError> {
        let mut pause = FIRST_PAUSE;
        let mut tries = 1;
        loop {
            let bound = TRY_TIMEOUT + Duration::from_secs((range.end - range.start) / SLOWEST_BYTES_PER_SECOND);
            let got = match tokio::time::timeout(bound, self.once(&range, pinned)).await {
                Ok(got) => got,
                Err(_) => Err(self.unavailable(format!("no answer within {bound:?}"))),
            };
            match got {
                Err(error) if !error.is_permanent() && tries < TRIES => {
                    tracing::info!(%error, "a range is asked for again");
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    tries += 1;
                }
                got => return got,
            }
        }
    }

    async fn once(&self, range: &Range<u64>, pinned: bool) -> Result<(Bytes, Headers), StoreError> {
        let mut request = self
            .client
            .get(self.url.clone())
            .header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        if pinned {
            request = request.header(IF_MATCH, &self.etag);
        }
        let response = request.send().await.map_err(|error| self.unavailable(told(error)))?;
        self.check(&response)?;
        let headers = Headers {
            content_range: header(&response, CONTENT_RANGE),
            etag: header(&response, ETAG),
        };
        if pinned && headers.etag.as_ref() != Some(&self.etag) {
            return Err(self.changed());
        }
        let body = response.bytes().await.map_err(|error| self.unavailable(told(error)))?;
        if body.len() as u64 != range.end - range.start {
            return Err(self.unavailable("another number of bytes came than was asked for".to_owned()));
        }
        Ok((body, headers))
    }

    fn check(&self, response: &Response) -> Result<(), StoreError> {
        let status = response.status();
        let invalid = |detail: &str| {
            Err(StoreError::Invalid {
                store: self.place.clone(),
                detail: format!("{detail} (HTTP {})", status.as_u16()),
            })
        };
        match status {
            StatusCode::PARTIAL_CONTENT => Ok(()),
            StatusCode::OK => invalid("the server does not answer ranges; download it and give the file"),
            StatusCode::PRECONDITION_FAILED => Err(self.changed()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                invalid("the server refused the token; make a new link that may read and is not past its end")
            }
            StatusCode::NOT_FOUND => invalid("there is nothing at this address; look at its name"),
            StatusCode::RANGE_NOT_SATISFIABLE => invalid("it is empty; take another one"),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(self.unavailable(format!("HTTP {}", status.as_u16())))
            }
            _ if status.is_server_error() => Err(self.unavailable(format!("HTTP {}", status.as_u16()))),
            _ => invalid("the server's answer makes no sense here; download it and give the file"),
        }
    }

    fn unavailable(&self, detail: String) -> StoreError {
        StoreError::Unavailable {
            store: self.place.clone(),
            detail,
        }
    }

    fn changed(&self) -> StoreError {
        StoreError::Changed {
            store: "the server's store".to_owned(),
            name: self.place.clone(),
        }
    }
}

/// What an answer said beside its bytes.
struct Headers {
    content_range: Option<String>,
    etag: Option<String>,
}

fn header(response: &Response, name: reqwest::header::HeaderName) -> Option<String> {
    let value = response.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// With its causes, and without the URL, which the library would put in, query and all.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[async_trait]
impl Blob for HttpsBlob {
    fn describe(&self) -> String {
        self.place.clone()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        Ok(self.patiently(range, true).await?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_secret() {
        let url = Url::parse("https://u:pw@a.blob.core.windows.net/box/dump.sql.gz?sv=1&sig=SECRET#SECRET").unwrap();
        assert_eq!(shown(&url), "https://a.blob.core.windows.net/box/dump.sql.gz");
    }

    #[tokio::test]
    async fn a_token_is_never_sent_in_the_clear() {
        for refused in [
            "http://10.0.0.1/x?sig=SECRET",
            "http://localhost.evil.example/?sig=SECRET",
            "https://u:SECRET@h/x",
        ] {
            let error = HttpsBlob::open(Url::parse(refused).unwrap()).await.unwrap_err();
            assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
            assert!(!format!("{error} {error:?}").contains("SECRET"), "{error:?}");
        }
    }
}
