//! `mysql://user@host:port`: a server as a person names it, on a command line or in the configuration. No password is ever
//! part of it.

use url::Url;

/// Where to log in, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub user: String,
}

/// Reads an address.
///
/// # Errors
/// What is wrong with it, without the text itself: it may hold a password.
pub fn parse(text: &str) -> Result<Server, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    if url.scheme() != "mysql" {
        return Err("that is not a mysql:// address".to_owned());
    }
    if url.password().is_some() {
        return Err("it must not hold a password, which everybody could read: name where that is".to_owned());
    }
    if !url.path().trim_matches('/').is_empty() {
        return Err("it names a database, and a backup brings its own".to_owned());
    }
    let host = url.host_str().ok_or("it has no host")?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let user = percent_decoded(url.username()).ok_or("its user is not text")?;
    if user.is_empty() {
        return Err("it has no user".to_owned());
    }
    Ok(Server {
        host,
        port: url.port().unwrap_or(3306),
        user,
    })
}

/// `a%40b` is `a@b`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_a_password_in_it_is_not_repeated() {
        let server = parse("mysql://a%40b@[::1]:33").expect("an address");
        assert_eq!(
            (server.host.as_str(), server.port, server.user.as_str()),
            ("::1", 33, "a@b")
        );
        assert_eq!(parse("mysql://u@h").map(|server| server.port), Ok(3306));
        for wrong in [
            "mysql://u:secret@h",
            "http://u@h",
            "mysql://h",
            "mysql://u@h/db",
            "standby",
            "",
        ] {
            let why = parse(wrong).expect_err(wrong);
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
