//! `[notify]` and `[[notify.channels]]`: who is told, where, from which severity on, in which language.

use std::path::PathBuf;

use url::Url;

use super::collect::{Document, Section};
use super::sections::{absolute_path, is_loopback};
use crate::secret::SecretRef;

mod email;

pub use email::{Email, MailTls};

/// Names of what can be told.
pub const EVENTS: [&str; 24] = [
    "backup-failed",
    "backup-damaged",
    "rpo-at-risk",
    "rpo-breached",
    "proof-too-old",
    "proof-failed",
    "store-unreachable",
    "verdict-changed",
    "failover-withheld",
    "operation-begun",
    "commit-point",
    "operation-stopped",
    "operation-ended",
    "step-began",
    "step-ended",
    "step-failed",
    "rule-accepted",
    "pending-fence",
    "drill-result",
    "drill-left",
    "dark-check",
    "certificate-expiring",
    "channel-failing",
    "test",
];

/// Those that somebody has to get up for.
pub(super) const CRITICAL: [&str; 8] = [
    "rpo-breached",
    "backup-damaged",
    "proof-failed",
    "pending-fence",
    "operation-stopped",
    "drill-result",
    "verdict-changed",
    "failover-withheld",
];

const CHANNEL_KEYS: [&str; 16] = [
    "name", "kind", "severity", "events", "url", "key", "endpoint", "secret", "tls_ca", "host", "port", "tls", "from",
    "to", "user", "password",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    pub language: Language,
    /// Whom to call, in whatever words; at the end of each message.
    pub contact: Option<String>,
    /// Directory in which the agent keeps who was told what. Default: `$STATE_DIRECTORY`, which systemd sets.
    pub state: Option<PathBuf>,
    pub channels: Vec<Channel>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    En,
    Ko,
}

/// The least grave that a channel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Least {
    Info,
    Warning,
    Critical,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    pub name: String,
    /// Default: warning; of a pager: critical.
    pub least: Least,
    /// Of [`EVENTS`]. Empty: all.
    pub events: Vec<&'static str>,
    pub to: To,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// An incoming webhook, whose URL is a secret.
    Slack {
        url: SecretRef,
        tls_ca: Option<PathBuf>,
    },
    /// Events v2.
    PagerDuty {
        key: SecretRef,
        endpoint: Option<Url>,
        tls_ca: Option<PathBuf>,
    },
    /// Any receiver of JSON.
    Webhook {
        url: SecretRef,
        /// Signs each message with HMAC-SHA256.
        secret: Option<SecretRef>,
        tls_ca: Option<PathBuf>,
    },
    Email(Email),
}

impl To {
    /// Every secret, with its key.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::Slack { url, .. } => vec![("url", url)],
            Self::PagerDuty { key, .. } => vec![("key", key)],
            Self::Webhook { url, secret, .. } => {
                let secret = secret.as_ref().map(|secret| ("secret", secret));
                [("url", url)].into_iter().chain(secret).collect()
            }
            Self::Email(email) => email.login.iter().map(|(_, password)| ("password", password)).collect(),
        }
    }
}

impl Channel {
    pub(super) fn takes_critical(&self, event: &str) -> bool {
        self.events.is_empty() || self.events.contains(&event)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Slack,
    PagerDuty,
    Webhook,
    Email,
}

const KINDS: [(&str, Kind); 4] = [
    ("slack", Kind::Slack),
    ("pagerduty", Kind::PagerDuty),
    ("webhook", Kind::Webhook),
    ("email", Kind::Email),
];

impl Kind {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Slack => &["url", "tls_ca"],
            Self::PagerDuty => &["key", "endpoint", "tls_ca"],
            Self::Webhook => &["url", "secret", "tls_ca"],
            Self::Email => &["host", "port", "tls", "tls_ca", "from", "to", "user", "password"],
        }
    }
}

pub(super) fn notify(document: &mut Document<'_>) -> Notify {
    let mut section = document.section("notify");
    let language = section.choice("language", &[("en", Language::En), ("ko", Language::Ko)]);
    let contact = section.text("contact", one_line);
    let state = section.text("state", absolute_path);
    let mut channels: Vec<Channel> = Vec::new();
    for number in 0..document.count("notify.channels", &CHANNEL_KEYS) {
        let mut section = document.nth("notify.channels", number);
        let Some(channel) = channel(&mut section) else { continue };
        if !channel.name.is_empty() && channels.iter().any(|other| other.name == channel.name) {
            section.problem(
                "name",
                "stands in an earlier [[notify.channels]] already: each has its own name",
            );
        }
        channels.push(channel);
    }
    Notify {
        language: language.unwrap_or(Language::En),
        contact,
        state,
        channels,
    }
}

fn channel(section: &mut Section<'_, '_>) -> Option<Channel> {
    let name = section.text("name", label);
    let name = section.need("name", name, "a short name, e.g. name = \"oncall\"");
    let kind = section.choice("kind", &KINDS);
    if !section.has("kind") {
        section.problem(
            "kind",
            "is missing: write kind = \"slack\", \"email\", \"pagerduty\" or \"webhook\"",
        );
    }
    let severities = [
        ("info", Least::Info),
        ("warning", Least::Warning),
        ("critical", Least::Critical),
    ];
    let least = section.choice("severity", &severities);
    let events = events(section);
    // Read in any case, so that every mistake is told at once.
    let (url, key, secret) = (section.secret("url"), section.secret("key"), section.secret("secret"));
    let endpoint = section.text("endpoint", endpoint);
    let tls_ca = section.text("tls_ca", absolute_path);
    let letter = email::read(section);
    let kind = kind?;
    let own = CHANNEL_KEYS.iter().skip_while(|key| **key != "url");
    for other in own.copied() {
        if section.has(other) && !kind.keys().contains(&other) {
            section.problem(
                other,
                format!(
                    "has no meaning for this kind, which takes {}: remove it",
                    kind.keys().join(", ")
                ),
            );
        }
    }
    let mut needed = |name: &'static str, value: Option<SecretRef>, write: &str| {
        let value = value.map(|reference| reference.0);
        SecretRef(section.need(name, value, write))
    };
    let to = match kind {
        Kind::Slack => To::Slack {
            url: needed(
                "url",
                url,
                "where the hook's URL is, e.g. url = \"credential:slack-hook\"",
            ),
            tls_ca,
        },
        Kind::PagerDuty => To::PagerDuty {
            key: needed(
                "key",
                key,
                "where the integration key is, e.g. key = \"credential:pagerduty-key\"",
            ),
            endpoint,
            tls_ca,
        },
        Kind::Webhook => To::Webhook {
            url: needed("url", url, "where the URL is, e.g. url = \"credential:webhook-url\""),
            secret,
            tls_ca,
        },
        Kind::Email => To::Email(letter.complete(section, tls_ca)),
    };
    let usual = match kind {
        Kind::PagerDuty => Least::Critical,
        Kind::Slack | Kind::Webhook | Kind::Email => Least::Warning,
    };
    Some(Channel {
        name,
        least: least.unwrap_or(usual),
        events,
        to,
    })
}

fn events(section: &mut Section<'_, '_>) -> Vec<&'static str> {
    let Some(texts) = section.list("events") else {
        return Vec::new();
    };
    if texts.is_empty() {
        section.problem("events", "is empty: leave it out for all");
    }
    let mut found = Vec::new();
    for text in &texts {
        match EVENTS.iter().find(|event| *event == text) {
            Some(event) => found.push(*event),
            None => {
                section.problem(
                    "events",
                    format!("names something that is never told; there are {}", EVENTS.join(", ")),
                );
                break;
            }
        }
    }
    found
}

fn label(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=40).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.into())
    } else {
        Err("must be 1 to 40 letters, digits, '-' and '_'".into())
    }
}

fn one_line(text: &str) -> Result<String, String> {
    if (1..=200).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.into())
    } else {
        Err("must be one line of at most 200 letters, e.g. \"on-call 010-0000-0000\"".into())
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let wrong = || "must be an address such as \"https://events.eu.pagerduty.com/v2/enqueue\"".to_owned();
    let url = Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.scheme() == "http" && url.host_str().is_some_and(is_loopback);
    if url.scheme() == "https" || is_plain {
        Ok(url)
    } else {
        Err(wrong())
    }
}
