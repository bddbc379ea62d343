//! One `[[watch.probes]]` after the other, key by key.

use std::time::Duration;

use url::Url;

use super::{HttpProbe, Plane, Probe, ProbeKind, SECOND, Watcher};
use crate::config::collect::{Document, Section};
use crate::config::sections::{HOUR, MINUTE, absolute_path, host_name, is_loopback, label, rds_instance, region};
use crate::config::units::format_duration;
use crate::config::{Endpoint, Login, Source, Tls, server};
use crate::secret::SecretRef;

const KINDS: [(&str, &[&str]); 4] = [
    ("http", &["url", "expect", "contains", "latency", "tls_ca", "plane"]),
    ("tcp", &["host", "port", "plane"]),
    ("mysql", &["query", "address", "password", "tls", "tls_ca"]),
    ("rds", &["instance", "region"]),
];

const PROBE_KEYS: [&str; 22] = [
    "name",
    "kind",
    "from",
    "interval",
    "timeout",
    "failures",
    "within",
    "successes",
    "url",
    "expect",
    "contains",
    "latency",
    "tls_ca",
    "plane",
    "host",
    "port",
    "query",
    "address",
    "password",
    "tls",
    "instance",
    "region",
];

pub(super) fn probes(document: &mut Document<'_>, source: &Source, watchers: &[Watcher]) -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    for number in 0..document.count("watch.probes", &PROBE_KEYS) {
        let mut section = document.nth("watch.probes", number);
        let Some(probe) = probe(&mut section, source, watchers) else {
            continue;
        };
        if probes.iter().any(|other| other.name == probe.name) {
            section.problem("name", "is another probe's: give each its own");
        }
        probes.push(probe);
    }
    probes
}

fn probe(section: &mut Section<'_, '_>, source: &Source, watchers: &[Watcher]) -> Option<Probe> {
    let kinds = KINDS.map(|(name, _)| (name, name));
    let kind = section.choice("kind", &kinds);
    if kind.is_none() && !section.has("kind") {
        section.problem("kind", "is missing: one of \"http\", \"tcp\", \"mysql\", \"rds\"");
    }
    let (kind, own) = KINDS.into_iter().find(|(name, _)| Some(*name) == kind)?;
    for (_, keys) in KINDS {
        for key in keys.iter().filter(|key| !own.contains(key)) {
            if section.has(key) {
                section.problem(key, format!("means nothing for kind = \"{kind}\": remove it"));
            }
        }
    }
    let name = section.text("name", label);
    let name = name.unwrap_or_else(|| kind.to_owned());
    let plane = section.choice("plane", &[("data", Plane::Data), ("control", Plane::Control)]);
    let from = section.list("from").unwrap_or_default();
    if let Some(stranger) = from
        .iter()
        .find(|from| !watchers.is_empty() && !watchers.iter().any(|watcher| watcher.name == **from))
    {
        let message = format!("names {stranger}, which is none of watch.watchers");
        section.problem("from", message);
    }
    let interval = section.duration("interval", SECOND..=HOUR).unwrap_or(30 * SECOND);
    let timeout = section
        .duration("timeout", SECOND..=MINUTE)
        .unwrap_or((10 * SECOND).min(interval));
    let failures = section.count("failures", 1..=100).unwrap_or(3);
    let successes = section.count("successes", 1..=100).unwrap_or(2);
    let least = within_at_least(interval, timeout, failures.max(successes));
    let within = section
        .duration("within", SECOND..=24 * HOUR)
        .unwrap_or((90 * SECOND).max(least));
    if timeout > interval {
        section.problem(
            "timeout",
            "must not be longer than interval: a question is asked after the one before",
        );
    }
    if within < least {
        section.problem(
            "within",
            format!(
                "must be at least {}: so long {} questions {} apart, the last one with its timeout, can take",
                format_duration(least),
                failures.max(successes),
                format_duration(interval)
            ),
        );
    }
    let kind = match kind {
        "http" => http(section),
        "tcp" => tcp(section),
        "mysql" => mysql(section, source),
        _ => rds(section, source),
    };
    Some(Probe {
        plane: match kind {
            ProbeKind::Rds { .. } => Plane::Control,
            _ => plane.unwrap_or(Plane::Data),
        },
        name,
        from,
        interval,
        timeout,
        failures,
        within,
        successes,
        kind,
    })
}

/// With intervals a tenth longer than they should be; whole seconds.
fn within_at_least(interval: Duration, timeout: Duration, questions: u32) -> Duration {
    let longest = (interval * 11 / 10) * questions.saturating_sub(1) + timeout;
    Duration::from_secs(longest.as_secs() + u64::from(longest.subsec_nanos() > 0))
}

fn http(section: &mut Section<'_, '_>) -> ProbeKind {
    let url = section.text("url", |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if url.password().is_some() || !url.username().is_empty() {
                return Err("must not hold a user or a password, which everybody could read".to_owned());
            }
            Ok(url)
        }
        _ => Err("must be an http:// or https:// address".to_owned()),
    });
    if url.is_none() && !section.has("url") {
        section.problem(
            "url",
            "is missing: write what to ask, e.g. url = \"https://bank.example/health\"",
        );
    }
    let expect = section.list("expect");
    let codes: Option<Vec<u16>> = expect.as_ref().map(|texts| {
        let code = |text: &String| text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
        texts.iter().filter_map(code).collect()
    });
    if let (Some(texts), Some(codes)) = (&expect, &codes)
        && (texts.len() != codes.len() || codes.is_empty())
    {
        section.problem(
            "expect",
            "must be a list of HTTP status codes, e.g. expect = [\"200\", \"204\"]",
        );
    }
    match url {
        Some(url) => ProbeKind::Http(HttpProbe {
            url,
            expect: codes.unwrap_or_else(|| vec![200]),
            contains: section.text("contains", |text| Ok(text.to_owned())),
            latency: section.duration("latency", SECOND..=MINUTE),
            tls_ca: section.text("tls_ca", absolute_path),
        }),
        // With any problem the whole is thrown away.
        None => ProbeKind::Tcp {
            host: String::new(),
            port: 0,
        },
    }
}

fn tcp(section: &mut Section<'_, '_>) -> ProbeKind {
    let host = section.text("host", host_name);
    let port = section
        .whole("port", 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    ProbeKind::Tcp {
        host: section.need("host", host, "the address, e.g. host = \"bank.example\""),
        port: section.need("port", port, "the port, e.g. port = 443"),
    }
}

fn mysql(section: &mut Section<'_, '_>, source: &Source) -> ProbeKind {
    let query = section.text("query", |text| {
        let word = text.split_whitespace().next().unwrap_or_default();
        if word.eq_ignore_ascii_case("select") && !text.contains(';') {
            Ok(text.to_owned())
        } else {
            Err("must be one SELECT, without a semicolon: a probe only reads".to_owned())
        }
    });
    let address = section.text("address", server::parse);
    let password = section.secret("password");
    let tls = section.choice("tls", &[("required", Tls::Required), ("off", Tls::Off)]);
    let tls_ca = section.text("tls_ca", absolute_path);
    let source = match address {
        None => {
            for key in ["password", "tls", "tls_ca"] {
                if section.has(key) && !section.has("address") {
                    section.problem(key, "comes from [source] where no address is given: remove it");
                }
            }
            source.clone()
        }
        Some(named) => {
            let tls = tls.unwrap_or(Tls::Required);
            if tls == Tls::Off && !is_loopback(&named.host) {
                section.problem(
                    "tls",
                    "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
                );
            }
            let write = "where that of address is, e.g. password = \"credential:planb-watch\"";
            let password = password.map(|reference| reference.0);
            let password = SecretRef(section.need("password", password, write));
            Source {
                endpoint: Endpoint::Address {
                    host: named.host,
                    port: named.port,
                },
                user: named.user,
                login: Login::Password(password),
                databases: Vec::new(),
                tls,
                tls_ca,
                pause_replica: false,
            }
        }
    };
    ProbeKind::Mysql {
        source,
        query: query.unwrap_or_else(|| "SELECT 1".to_owned()),
    }
}

fn rds(section: &mut Section<'_, '_>, source: &Source) -> ProbeKind {
    let named = section.text("instance", rds_instance);
    let of_probe = section.text("region", region);
    let (configured, of_source) = match &source.endpoint {
        Endpoint::RdsInstance { id, region } => (Some(id.clone()), region.clone()),
        Endpoint::Address { .. } => (None, None),
    };
    ProbeKind::Rds {
        instance: section.need(
            "instance",
            named.or(configured),
            "the instance to ask RDS for, e.g. instance = \"pocketbank-prod\"",
        ),
        region: of_probe.or(of_source),
    }
}
