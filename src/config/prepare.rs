//! `[prepare]`, `[quota]` and `[doctor]`: what a recovery needs beforehand, and how often that is looked at.

use url::Url;

use super::cadence::parse_cron;
use super::collect::{Document, Section};
use super::sections::{HOUR, YEAR, absolute_path, is_loopback};
use super::{Doctor, Prepare, Quota, RegistryLogin};
use crate::secret::SecretRef;

/// Nobody works then, and the proof of a backup (03:00) is over.
const DAILY: &str = "30 4 * * *";
const DAY: std::time::Duration = HOUR.saturating_mul(24);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Anonymous,
    Azure,
    Password,
}

pub(super) fn prepare(document: &mut Document<'_>) -> Prepare {
    let mut section = document.section("prepare");
    let registry = section.text("registry", registry_host);
    let registry_login = registry_login(&mut section);
    for key in [
        "registry_login",
        "registry_user",
        "registry_password",
        "sources",
        "source_logins",
    ] {
        if registry.is_none() && !section.has("registry") && section.has(key) {
            section.problem(key, "has a meaning only with registry: add that, or remove it");
        }
    }
    Prepare {
        registry,
        registry_login,
        sources: sources(&mut section),
        source_logins: source_logins(&mut section),
        production_kubeconfig: section.text("production_kubeconfig", absolute_path),
        platforms: platforms(&mut section),
        max_age: section.duration("max_age", HOUR..=YEAR).unwrap_or(7 * DAY),
    }
}

fn registry_login(section: &mut Section<'_, '_>) -> RegistryLogin {
    let kinds = [
        ("anonymous", Kind::Anonymous),
        ("azure", Kind::Azure),
        ("password", Kind::Password),
    ];
    let kind = section.choice("registry_login", &kinds);
    let user = section.text("registry_user", word);
    let password = section.secret("registry_password");
    if kind != Some(Kind::Password) {
        for key in ["registry_user", "registry_password"] {
            if section.has(key) {
                section.problem(
                    key,
                    "is used with registry_login = \"password\" only: write that, or remove it",
                );
            }
        }
    }
    match kind {
        None | Some(Kind::Anonymous) => RegistryLogin::Anonymous,
        Some(Kind::Azure) => RegistryLogin::Azure,
        Some(Kind::Password) => RegistryLogin::Password {
            user: section.need(
                "registry_user",
                user,
                "the account there, e.g. registry_user = \"pull\"",
            ),
            password: SecretRef(section.need(
                "registry_password",
                password.map(|reference| reference.0),
                "where it is, e.g. registry_password = \"azure-keyvault:kv-dr/registry\"",
            )),
        },
    }
}

fn sources(section: &mut Section<'_, '_>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for text in section.list("sources").unwrap_or_default() {
        match text.split_once('=') {
            Some((there, from)) if word(there).is_ok() && word(from).is_ok() && !from.contains('@') => {
                found.push((there.to_owned(), from.to_owned()));
            }
            _ => section.problem(
                "sources",
                "must be a list of \"REPOSITORY=IMAGE\", the image without tag or digest, e.g. \"web/nginx=docker.io/library/nginx\"",
            ),
        }
    }
    found
}

fn source_logins(section: &mut Section<'_, '_>) -> Vec<(String, String, SecretRef)> {
    let mut found = Vec::new();
    for text in section.list("source_logins").unwrap_or_default() {
        let parts = text
            .split_once('=')
            .and_then(|(registry, login)| Some((registry, login.split_once(':')?)));
        let read = parts.and_then(|(registry, (user, reference))| {
            let registry = registry_host(registry).ok()?;
            Some((registry, word(user).ok()?, SecretRef::parse(reference).ok()?))
        });
        match read {
            Some(login) => found.push(login),
            None => section.problem(
                "source_logins",
                "must be a list of \"REGISTRY=USER:REFERENCE\", e.g. \"registry.example=pull:credential:registry\"",
            ),
        }
    }
    found
}

fn platforms(section: &mut Section<'_, '_>) -> Vec<String> {
    let platforms = section.list("platforms").unwrap_or_default();
    let is_one = |text: &String| {
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
        text.split_once('_')
            .is_some_and(|(system, machine)| plain(system) && plain(machine))
    };
    if !platforms.iter().all(is_one) {
        section.problem(
            "platforms",
            "must be a list such as [\"linux_amd64\", \"darwin_arm64\"]",
        );
    }
    platforms
}

/// None where the section is left out.
pub(super) fn quota(document: &mut Document<'_>) -> Option<Quota> {
    let is_there = document.has("quota");
    let mut section = document.section("quota");
    let subscription = section.text("subscription", word);
    let location = section.text("location", word);
    let compute = counts(&mut section, "compute", "[\"cores=12\", \"standardBSFamily=8\"]");
    let network = counts(&mut section, "network", "[\"PublicIPAddresses=2\"]");
    let database_skus = section.list("database_skus").unwrap_or_default();
    let endpoint = section.text("endpoint", management);
    if !is_there {
        return None;
    }
    Some(Quota {
        subscription: section.need("subscription", subscription, "the subscription's id"),
        location: section.need("location", location, "the region, e.g. location = \"koreacentral\""),
        compute,
        network,
        database_skus,
        endpoint: endpoint.or_else(|| Url::parse("https://management.azure.com").ok())?,
    })
}

fn counts(section: &mut Section<'_, '_>, key: &'static str, example: &str) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for text in section.list(key).unwrap_or_default() {
        match text.split_once('=').and_then(|(name, n)| Some((name, n.parse().ok()?))) {
            Some((name, count)) => found.push((name.to_owned(), count)),
            None => section.problem(key, format!("must be a list of \"QUOTA=NUMBER\", e.g. {example}")),
        }
    }
    found
}

pub(super) fn doctor(document: &mut Document<'_>, has_plan: bool) -> Doctor {
    let mut section = document.section("doctor");
    let schedule = section.text("dark_schedule", |text| match text {
        "never" => Ok(None),
        text => parse_cron(text)
            .map(|_| Some(text.trim().to_owned()))
            .map_err(|why| format!("{why}; or write \"never\"")),
    });
    let usual = has_plan.then(|| DAILY.to_owned());
    let allow = section.list("dark_allow").unwrap_or_default();
    if !allow
        .iter()
        .all(|host| word(host).is_ok() && !host.contains(['/', ':', '*']))
    {
        section.problem(
            "dark_allow",
            "must be a list of host names, or of suffixes that begin with a dot, e.g. [\".internal.example\"]",
        );
    }
    Doctor {
        dark_schedule: schedule.unwrap_or(usual),
        certificates_valid_for: section
            .duration("certificates_valid_for", DAY..=YEAR)
            .unwrap_or(30 * DAY),
        dark_allow: allow,
        runner_max_age: section.duration("runner_max_age", HOUR..=YEAR).unwrap_or(2 * DAY),
    }
}

fn registry_host(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) && !text.starts_with(['.', '-', ':']) {
        Ok(text.to_owned())
    } else {
        Err("must be a registry's host alone, without scheme or repository, e.g. \"pocketbank.azurecr.io\"".into())
    }
}

fn management(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "must be an address, e.g. \"https://management.azure.com\"".to_owned())?;
    let is_here = url.host_str().is_some_and(is_loopback);
    if url.scheme() == "https" || (url.scheme() == "http" && is_here) {
        Ok(url)
    } else {
        Err("must begin with https://: a login token travels there".into())
    }
}

fn word(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        Err("must not be empty, and hold no blanks".into())
    } else {
        Ok(text.into())
    }
}
