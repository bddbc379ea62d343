//! `kind = "email"`: which server takes the mail, how the way there is protected, from whom and to whom.

use std::path::PathBuf;

use crate::config::collect::Section;
use crate::config::sections::{host_name, is_loopback};
use crate::secret::SecretRef;

/// One mail reaches them all; a distribution list is one address.
const MOST_ADDRESSES: usize = 50;
/// RFC 5321 §4.5.3.1.
const LONGEST_LOCAL_PART: usize = 64;
const LONGEST_ADDRESS: usize = 254;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email {
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// Authority that signed the server's certificate, PEM; default: the system's.
    pub tls_ca: Option<PathBuf>,
    pub from: String,
    pub to: Vec<String>,
    /// User and password. None: the server takes mail from this machine as it is.
    pub login: Option<(String, SecretRef)>,
}

/// How the connection is protected. In either way the certificate is checked, and nothing of the mail is said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// From a plain greeting, and not at all where the server does not offer it (RFC 3207).
    StartTls,
    /// From the first byte (RFC 8314).
    Implicit,
    /// To a relay on this machine.
    Off,
}

/// What was read of it, whatever the kind turns out to be.
pub(super) struct Read {
    host: Option<String>,
    port: Option<u64>,
    tls: Option<MailTls>,
    from: Option<String>,
    to: Option<Vec<String>>,
    user: Option<String>,
    password: Option<SecretRef>,
}

pub(super) fn read(section: &mut Section<'_, '_>) -> Read {
    let ways = [
        ("starttls", MailTls::StartTls),
        ("implicit", MailTls::Implicit),
        ("off", MailTls::Off),
    ];
    Read {
        host: section.text("host", host_name),
        port: section.whole("port", 1..=65_535),
        tls: section.choice("tls", &ways),
        from: section.text("from", address),
        to: section.list("to"),
        user: section.text("user", user),
        password: section.secret("password"),
    }
}

impl Read {
    pub(super) fn complete(self, section: &mut Section<'_, '_>, tls_ca: Option<PathBuf>) -> Email {
        let host = section.need(
            "host",
            self.host,
            "the mail server's name, e.g. host = \"smtp.bank.example\"",
        );
        let from = section.need("from", self.from, "who sends it, e.g. from = \"planb@bank.example\"");
        let to = section.need("to", self.to, "who gets it, e.g. to = [\"dr-oncall@bank.example\"]");
        if let Some(why) = to.iter().find_map(|text| address(text).err()) {
            section.problem("to", format!("each of the list {why}"));
        } else if section.has("to") && !(1..=MOST_ADDRESSES).contains(&to.len()) {
            section.problem("to", format!("must be from 1 to {MOST_ADDRESSES} addresses"));
        }
        let tls = self.tls.unwrap_or(MailTls::StartTls);
        if tls == MailTls::Off {
            if !host.is_empty() && !is_loopback(&host) {
                section.problem(
                    "tls",
                    "may be off only for a loopback host such as 127.0.0.1: write \"starttls\" or \"implicit\"",
                );
            }
            if tls_ca.is_some() {
                section.problem("tls_ca", "has no meaning with tls = \"off\": remove one of them");
            }
        }
        let usual = match tls {
            MailTls::StartTls => 587,
            MailTls::Implicit => 465,
            MailTls::Off => 25,
        };
        let login = match (self.user, self.password) {
            (Some(user), Some(password)) => Some((user, password)),
            (user, password) => {
                for (is_there, missing, other) in [
                    (user.is_some(), "password", "user"),
                    (password.is_some(), "user", "password"),
                ] {
                    if is_there && !section.has(missing) {
                        section.problem(missing, format!("is missing: a login takes it together with {other}"));
                    }
                }
                None
            }
        };
        Email {
            host,
            port: self.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(usual),
            tls,
            tls_ca,
            from,
            to,
            login,
        }
    }
}

/// What every server takes: `name@host`, plain letters, no display name.
fn address(text: &str) -> Result<String, String> {
    let wrong = || Err("must be an address alone, such as \"dr-oncall@bank.example\"".to_owned());
    let Some((local, domain)) = text.split_once('@') else {
        return wrong();
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
    let is_local = (1..=LONGEST_LOCAL_PART).contains(&local.len())
        && local.bytes().all(plain)
        && local.split('.').all(|part| !part.is_empty());
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    if is_local && domain.split('.').all(is_label) && text.len() <= LONGEST_ADDRESS {
        Ok(text.to_owned())
    } else {
        wrong()
    }
}

fn user(text: &str) -> Result<String, String> {
    if (1..=LONGEST_ADDRESS).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("must be the name that the mail server knows, e.g. \"planb\"".to_owned())
    }
}
