//! Who may look: on a loopback address whoever is on this machine, elsewhere whoever knows the token.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::http::{Request, Response};
use crate::secret::Secret;

/// Shorter ones can be guessed by whoever may try for years.
const SHORTEST_TOKEN: usize = 16;

/// Only the digest of the token is kept.
#[derive(Debug)]
pub struct Guard {
    token: Option<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("serve.token is too short: make one of at least {SHORTEST_TOKEN} letters, e.g. with openssl rand -hex 24")]
pub struct TokenTooShort;

impl Guard {
    pub fn loopback() -> Self {
        Self { token: None }
    }

    /// # Errors
    /// Where the token could be guessed.
    pub fn with_token(token: &Secret) -> Result<Self, TokenTooShort> {
        if token.expose().len() < SHORTEST_TOKEN {
            return Err(TokenTooShort);
        }
        Ok(Self {
            token: Some(digest(token.expose())),
        })
    }

    /// The refusal, if there is one.
    pub fn refuses(&self, request: &Request) -> Option<Response> {
        let Some(token) = &self.token else {
            // A page of the internet may have its own name resolved to 127.0.0.1, and read what it likes in the browser of
            // somebody on this machine. Its name gives it away.
            return (!request.host.as_deref().is_none_or(is_of_this_machine)).then(|| {
                Response::text(
                    421,
                    "without serve.token, this answers under an address or as localhost only; behind a proxy, set serve.token\n",
                )
            });
        };
        let is_right = request
            .authorization
            .as_deref()
            .and_then(presented)
            .is_some_and(|presented| {
                // Equal lengths whatever was sent, compared without stopping at the first difference.
                bool::from(digest(&presented).ct_eq(token))
            });
        (!is_right).then(|| {
            Response::text(401, "the token is missing or wrong (serve.token)\n").header(
                "WWW-Authenticate",
                "Basic realm=\"planb: any name, and the token as password\", charset=\"UTF-8\"",
            )
        })
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// `Bearer TOKEN`, or the password of `Basic`, which is what browsers can ask for.
fn presented(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// A literal address or `localhost`, with or without port.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::http::Method;
    use super::*;

    fn status(guard: &Guard, host: Option<&str>, authorization: Option<&str>) -> Option<u16> {
        let request = Request {
            method: Method::Get,
            path: "/".to_owned(),
            host: host.map(str::to_owned),
            authorization: authorization.map(str::to_owned),
            accept: String::new(),
        };
        guard.refuses(&request).map(|response| response.status)
    }

    #[test]
    fn the_token_opens_as_bearer_and_as_password_and_nothing_else_does() {
        let token = "0123456789abcdef0123";
        let Ok(guard) = Guard::with_token(&Secret::new(token)) else {
            panic!("long enough")
        };
        assert_eq!(
            status(&guard, Some("status.bank.example"), Some(&format!("Bearer {token}"))),
            None
        );
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert_eq!(status(&guard, None, Some(&basic(&format!("ana:{token}")))), None);
        for wrong in [
            None,
            Some(String::new()),
            Some(format!("Bearer {}", &token[1..])),
            Some(format!("Bearer {token}0")),
            Some(token.to_owned()),
            Some(basic(&format!("{token}:"))),
            Some("Basic %%%".to_owned()),
        ] {
            assert_eq!(
                status(&guard, Some("localhost"), wrong.as_deref()),
                Some(401),
                "{wrong:?}"
            );
        }
        assert!(Guard::with_token(&Secret::new("hunter2")).is_err());
    }

    #[test]
    fn without_a_token_only_this_machines_own_names_are_answered() {
        let guard = Guard::loopback();
        for host in [
            None,
            Some("localhost:9105"),
            Some("127.0.0.1:9105"),
            Some("[::1]:9105"),
            Some("LOCALHOST"),
        ] {
            assert_eq!(status(&guard, host, None), None, "{host:?}");
        }
        for host in ["evil.example", "evil.example:9105", "localhost.evil.example", ""] {
            assert_eq!(status(&guard, Some(host), None), Some(421), "{host}");
        }
    }
}
