//! Account-key authentication, which the SDK lacks: signs each try with the SharedKey scheme.
//!
//! Must be the last of `per_try_policies`: a header added after it would not be in the signature, and a
//! retry needs a new date. Source:
//! <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::credentials::Secret as AzureSecret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::HeaderName;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use azure_core::time::to_rfc7231;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::secret::Secret;

pub(super) struct SharedKeyPolicy {
    account: String,
    key: AzureSecret,
    clock: Arc<dyn Clock>,
}

impl SharedKeyPolicy {
    /// # Errors
    /// If `key` is not base64. The message does not repeat it.
    pub(super) fn new(account: &str, key: &Secret, clock: Arc<dyn Clock>) -> azure_core::Result<Self> {
        let key = AzureSecret::new(key.expose().trim().to_owned());
        hmac_sha256("", &key)?;
        Ok(Self {
            account: account.to_owned(),
            key,
            clock,
        })
    }
}

impl fmt::Debug for SharedKeyPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKeyPolicy")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Policy for SharedKeyPolicy {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", http_date(self.clock.now())?);
        let signature = hmac_sha256(&string_to_sign(&self.account, request), &self.key)?;
        request.insert_header("authorization", format!("SharedKey {}:{signature}", self.account));
        match next.split_first() {
            Some((following, rest)) => following.send(ctx, request, rest).await,
            None => Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Other,
                "the pipeline ends without a transport",
            )),
        }
    }
}

fn http_date(now: Timestamp) -> azure_core::Result<String> {
    let now = azure_core::time::OffsetDateTime::from_unix_timestamp(now.as_second())
        .map_err(|e| azure_core::Error::new(azure_core::error::ErrorKind::DataConversion, e))?;
    Ok(to_rfc7231(&now))
}

fn string_to_sign(account: &str, request: &Request) -> String {
    let header = |name: &'static str| {
        request
            .headers()
            .get_optional_str(&HeaderName::from_static(name))
            .unwrap_or_default()
            .to_owned()
    };
    // The transport sets the length from the body; an empty body signs as nothing.
    let length = match request.body().len() {
        Some(0) | None => String::new(),
        Some(bytes) => bytes.to_string(),
    };
    let mut lines = vec![
        request.method().as_ref().to_owned(),
        header("content-encoding"),
        header("content-language"),
        length,
        header("content-md5"),
        header("content-type"),
        // `x-ms-date` is used instead, and is among the canonical headers.
        String::new(),
        header("if-modified-since"),
        header("if-match"),
        header("if-none-match"),
        header("if-unmodified-since"),
        header("range"),
    ];
    let ms_headers: BTreeMap<&str, &str> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    lines.extend(
        ms_headers
            .iter()
            .map(|(name, value)| format!("{name}:{}", value.trim())),
    );

    // The path as it is sent (still encoded); the parameters decoded.
    let mut resource = format!("/{account}{}", request.url().path());
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in request.url().query_pairs() {
        parameters
            .entry(name.to_ascii_lowercase())
            .or_default()
            .push(value.into_owned());
    }
    for (name, mut values) in parameters {
        values.sort();
        resource.push_str(&format!("\n{name}:{}", values.join(",")));
    }
    lines.push(resource);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::{Method, Url};

    /// The example of the documentation (Put Blob, version 2015-02-21 style: empty length, own headers).
    #[test]
    fn canonical_form_is_the_documented_one() {
        let url = "https://myaccount.blob.core.windows.net/mycontainer?comp=metadata&restype=container&timeout=20";
        let mut request = Request::new(Url::parse(url).unwrap(), Method::Get);
        request.insert_header("x-ms-version", "2015-02-21");
        request.insert_header("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT");
        request.insert_header("x-other", "not signed");
        assert_eq!(
            string_to_sign("myaccount", &request),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let key = Secret::new("c2VjcmV0LXNlY3JldA==");
        let policy = SharedKeyPolicy::new("a", &key, Arc::new(crate::clock::SystemClock)).unwrap();
        assert!(!format!("{policy:?}").contains("c2Vj"));
        let bad = SharedKeyPolicy::new("a", &Secret::new("not base64 !!"), Arc::new(crate::clock::SystemClock));
        assert!(!format!("{:?}", bad.unwrap_err()).contains("not base64"));
    }
}
