//! One `[[failover_steps]]` or `[[failback_steps]]` after the other, key by key.

use std::time::Duration;

use url::Url;

use super::kinds::{COMMON, KINDS, OWN_KEYS};
use super::{
    At, Command, Failover, Http, Kind, MaintenancePage, Manifests, Means, Preserve, PrimaryReady, Rehearsed, Server,
    Site, Step, Terraform, Traffic,
};
use crate::config::collect::{Document, Section};
use crate::config::sections::absolute_path;
use crate::secret::SecretRef;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

pub(in crate::config) fn failover(document: &mut Document<'_>) -> Failover {
    let mut section = document.section("failover");
    Failover {
        max_loss: section.duration("max_loss", SECOND..=366 * DAY).unwrap_or(HOUR),
        approvers: section.count("approvers", 1..=10).unwrap_or(1),
    }
}

/// `default`: the site that steps mean where they do not say.
pub(in crate::config) fn steps(document: &mut Document<'_>, list: &'static str, default: Site) -> Vec<Step> {
    let keys: Vec<&'static str> = COMMON.iter().chain(&OWN_KEYS).copied().collect();
    let count = document.count(list, &keys);
    (0..count)
        .filter_map(|number| step(&mut document.nth(list, number), default))
        .collect()
}

/// None where a problem was reported that leaves nothing to go on with.
fn step(section: &mut Section<'_, '_>, default: Site) -> Option<Step> {
    let name = section.text("name", label);
    let name = section.need("name", name, "a short name, e.g. name = \"database\"");
    let stage = section.whole("stage", 1..=3).and_then(|stage| u8::try_from(stage).ok());
    let needs = section.list("needs").unwrap_or_default();
    let at = section.choice("at", &[("operator", At::Operator), ("runner", At::Runner)]);
    let goes_on = section.choice("on_failure", &[("stop", false), ("continue", true)]);
    let retries = section.count("retries", 0..=100);
    let timeout = section.duration("timeout", SECOND..=7 * DAY);
    let usually = section.duration("usually", SECOND..=7 * DAY);
    let drill = section.choice("drill", &[("run", Rehearsed::Run), ("skip", Rehearsed::Skip)]);
    let kinds: Vec<(&'static str, usize)> = KINDS.iter().enumerate().map(|(at, (name, _, _))| (*name, at)).collect();
    let kind = section.choice("kind", &kinds);
    let Some(kind) = kind else {
        if !section.has("kind") {
            section.problem(
                "kind",
                "is missing: write what the step does, e.g. kind = \"terraform\"",
            );
        }
        return None;
    };
    let (word, allowed, usual) = KINDS[kind];
    for key in OWN_KEYS {
        if section.has(key) && !allowed.contains(&key) {
            section.problem(key, format!("has no meaning for a step of kind \"{word}\": remove it"));
        }
    }
    let kind = kind_of(section, word, default)?;
    let by_itself = !matches!(kind, Kind::Manual { .. } | Kind::Command(_));
    Some(Step {
        name,
        stage: section.need("stage", stage, "1, 2 or 3, e.g. stage = 2"),
        needs,
        timeout: timeout.unwrap_or(usual),
        usually,
        at: at.unwrap_or(At::Operator),
        goes_on: goes_on.unwrap_or(false),
        retries: retries.unwrap_or(if by_itself { 2 } else { 0 }),
        drill,
        kind,
    })
}

fn kind_of(section: &mut Section<'_, '_>, word: &str, default: Site) -> Option<Kind> {
    let sites = [("primary", Site::Primary), ("standby", Site::Standby)];
    // Where data comes from is the other end of where it goes.
    let usual = match (word, default) {
        ("fence" | "unfence" | "last-backup", Site::Standby) => Site::Primary,
        ("fence" | "last-backup", Site::Primary) => Site::Standby,
        ("preserve", _) => Site::Primary,
        _ => default,
    };
    let site = section.choice("site", &sites).unwrap_or(usual);
    let host = section.text("host", template);
    let port = section.text("port", port);
    let user = section.text("user", template);
    let password = section.text("password", from_a_step);
    let read_only = section.flag("read_only");
    let server = |site| Server {
        site,
        host: host.clone(),
        port: port.clone(),
        user: user.clone(),
        password: password.clone(),
        read_only: read_only.unwrap_or(false),
    };
    Some(match word {
        "terraform" => Kind::Terraform(terraform(section)),
        "restore" => Kind::Restore(server(site)),
        "verify" => Kind::Verify(server(site)),
        "accounts" => Kind::Accounts(server(site)),
        "standby-open" => Kind::Open(server(Site::Standby)),
        "primary-open" => Kind::Open(server(Site::Primary)),
        "fence" => Kind::Fence(server(site)),
        "unfence" => Kind::Unfence(server(site)),
        "last-backup" => Kind::LastBackup(server(site)),
        "preserve" => Kind::Preserve(Preserve {
            server: server(site),
            rds_snapshot: section.text("rds_snapshot", plain),
            region: section.text("region", plain),
        }),
        "manifests" => {
            let dir = section.text("dir", absolute_path);
            let kubeconfig = section.text("kubeconfig", template);
            Kind::Manifests(Manifests {
                dir: section.need(
                    "dir",
                    dir,
                    "the directory of the manifests, e.g. dir = \"/etc/planb/kubernetes\"",
                ),
                kubeconfig: section.need(
                    "kubeconfig",
                    kubeconfig,
                    "a file, or an output such as kubeconfig = \"${cluster.kubeconfig}\"",
                ),
                variables: pairs(section, "variables"),
                secrets: secret_pairs(section, "secrets"),
            })
        }
        "maintenance-page" => Kind::MaintenancePage(maintenance_page(section)),
        "store-ready" => Kind::StoreReady,
        "http" => Kind::Http(http(section)),
        "traffic" => {
            let distribution = section.text("distribution", plain);
            let origin = section.text("origin", plain);
            Kind::Traffic(Traffic {
                site,
                distribution: section.need(
                    "distribution",
                    distribution,
                    "CloudFront's id of it, e.g. \"E2EXAMPLE\"",
                ),
                origin: section.need("origin", origin, "the id of the origin that every behaviour is to use"),
                domain: section.text("domain", template),
            })
        }
        "primary-ready" => Kind::PrimaryReady(PrimaryReady {
            region: section.text("region", plain),
            node_groups: section.list("node_groups").unwrap_or_default(),
            target_groups: section.list("target_groups").unwrap_or_default(),
            rds_instances: section.list("rds_instances").unwrap_or_default(),
        }),
        "command" => Kind::Command(command(section, site)),
        "manual" => {
            let text = section.text("text", |text| Ok(text.to_owned()));
            Kind::Manual {
                text: section.need(
                    "text",
                    text,
                    "what a person is to do, e.g. text = \"Tell the regulator.\"",
                ),
            }
        }
        _ => return None,
    })
}

fn terraform(section: &mut Section<'_, '_>) -> Terraform {
    let dir = section.text("dir", absolute_path);
    Terraform {
        dir: section.need(
            "dir",
            dir,
            "the directory of the stage, e.g. dir = \"/etc/planb/azure/2-database\"",
        ),
        destroys: section
            .choice("action", &[("apply", false), ("destroy", true)])
            .unwrap_or(false),
        variables: pairs(section, "variables"),
        secrets: secret_pairs(section, "secrets"),
        backend: pairs(section, "backend"),
        mirror: section.text("mirror", absolute_path),
        program: section.text("program", absolute_path),
        environment: section.list("environment").unwrap_or_default(),
        workspace: None,
    }
}

fn maintenance_page(section: &mut Section<'_, '_>) -> MaintenancePage {
    let page = section.text("page", absolute_path);
    MaintenancePage {
        page: section.need(
            "page",
            page,
            "a file, or a directory with an index.html, e.g. page = \"/etc/planb/page\"",
        ),
        container: section
            .text("container", |text| match text.strip_prefix('$').unwrap_or(text) {
                rest if label(rest).is_ok() => Ok(text.to_owned()),
                _ => Err("must be the name of a container, e.g. \"$web\"".to_owned()),
            })
            .unwrap_or_else(|| "$web".to_owned()),
        contact: section.text("contact", |text| Ok(text.to_owned())),
        expected: section.duration("expected", 60 * SECOND..=30 * DAY),
        utc_offset: section.text("utc_offset", utc_offset).unwrap_or(0),
    }
}

/// `+09:00`, in seconds.
fn utc_offset(text: &str) -> Result<i32, String> {
    let wrong = || "must be hours and minutes east of UTC, e.g. \"+09:00\"".to_owned();
    let (sign, rest) = match text.split_at_checked(1).ok_or_else(wrong)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return Err(wrong()),
    };
    let two = |part: &str| (part.len() == 2).then(|| part.parse::<i32>().ok()).flatten();
    let parts = rest
        .split_once(':')
        .and_then(|(hours, minutes)| two(hours).zip(two(minutes)));
    match parts {
        Some((hours @ 0..=14, minutes @ 0..=59)) => Ok(sign * (hours * 3_600 + minutes * 60)),
        _ => Err(wrong()),
    }
}

fn http(section: &mut Section<'_, '_>) -> Http {
    let url = section.text("url", |text| {
        let bare = text.replace("${", "").replace('}', "");
        match Url::parse(&bare) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => template(text),
            _ => Err("must be an http:// or https:// address".to_owned()),
        }
    });
    let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|name| (name, name));
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
    Http {
        url: section.need(
            "url",
            url,
            "what to ask, e.g. url = \"https://dr.example/actuator/health\"",
        ),
        connect: section.text("connect", |text| {
            match text.contains("${") || text.parse::<std::net::IpAddr>().is_ok() {
                true => template(text),
                false => Err("must be an IP address, e.g. connect = \"${cluster.address}\"".to_owned()),
            }
        }),
        method: section.choice("method", &methods).unwrap_or("GET").to_owned(),
        body: section.text("body", template),
        expect: codes.unwrap_or_else(|| vec![200]),
        contains: section.text("contains", |text| Ok(text.to_owned())),
        times: section.count("times", 1..=100).unwrap_or(3),
        interval: section
            .duration("interval", Duration::from_millis(100)..=HOUR)
            .unwrap_or(5 * SECOND),
        tls_ca: section.text("tls_ca", absolute_path),
    }
}

fn command(section: &mut Section<'_, '_>, site: Site) -> Command {
    let program = section.text("program", absolute_path);
    let means = section.choice(
        "means",
        &[
            ("fence", Means::Fence(site)),
            ("unfence", Means::Unfence(site)),
            ("traffic", Means::Traffic(site)),
            ("destroy", Means::Destroy),
        ],
    );
    if section.has("site") && !matches!(means, Some(Means::Fence(_) | Means::Unfence(_) | Means::Traffic(_))) {
        section.problem(
            "site",
            "has a meaning only with means = \"fence\", \"unfence\" or \"traffic\"",
        );
    }
    Command {
        means,
        program: section.need(
            "program",
            program,
            "the program's path, e.g. program = \"/usr/local/bin/switch-dns\"",
        ),
        args: templates(section, "args"),
        probe: templates(section, "probe"),
        undo: templates(section, "undo"),
        secrets: secret_pairs(section, "secrets"),
        environment: section.list("environment").unwrap_or_default(),
    }
}

fn templates(section: &mut Section<'_, '_>, key: &'static str) -> Vec<String> {
    let texts = section.list(key).unwrap_or_default();
    if let Some(wrong) = texts.iter().find_map(|text| template(text).err()) {
        section.problem(key, wrong);
    }
    texts
}

/// `NAME=VALUE`, the value with templates.
fn pairs(section: &mut Section<'_, '_>, key: &'static str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for text in section.list(key).unwrap_or_default() {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => match template(value) {
                Ok(value) => pairs.push((name.to_owned(), value)),
                Err(why) => section.problem(key, why),
            },
            _ => section.problem(key, "must be a list of \"NAME=VALUE\""),
        }
    }
    pairs
}

/// `NAME=REFERENCE`.
fn secret_pairs(section: &mut Section<'_, '_>, key: &'static str) -> Vec<(String, SecretRef)> {
    let mut pairs = Vec::new();
    for text in section.list(key).unwrap_or_default() {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        match pair.map(|(name, reference)| (name, SecretRef::parse_list([reference]))) {
            Some((name, Ok(reference))) => pairs.push((name.to_owned(), reference)),
            _ => section.problem(
                key,
                "must be a list of \"NAME=REFERENCE\", e.g. \"admin_password=azure-keyvault:kv-dr/db-admin\"",
            ),
        }
    }
    pairs
}

fn label(text: &str) -> Result<String, String> {
    let fits = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits && (1..=40).contains(&text.len()) && !text.starts_with('-') {
        Ok(text.into())
    } else {
        Err("must be 1 to 40 of the letters a-z, digits and '-'".into())
    }
}

fn plain(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        Err("must not be empty, and hold no blanks".into())
    } else {
        Ok(text.into())
    }
}

/// A port, or what an earlier step says of it.
fn port(text: &str) -> Result<String, String> {
    if text.contains("${") {
        return template(text);
    }
    match text.parse::<u16>() {
        Ok(1..) => Ok(text.into()),
        _ => Err("must be a port as text, e.g. \"3306\", or an output: \"${database.port}\"".into()),
    }
}

/// What an earlier step gave, as it is.
fn from_a_step(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    match inner {
        Some(inner) if !inner.contains("${") => template(text),
        _ => Err(
            "must be an output of an earlier step, e.g. \"${database.password}\"; a password itself never stands here"
                .into(),
        ),
    }
}

/// Text whose every `${…}` is `${STEP.OUTPUT}`.
fn template(text: &str) -> Result<String, String> {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let inner = rest[at + 2..].split_once('}').map(|(inner, _)| inner);
        let is_reference = inner.is_some_and(|inner| {
            let parts = inner.split_once('.');
            parts.is_some_and(|(step, output)| label(step).is_ok() && plain(output).is_ok() && !output.contains('{'))
        });
        if !is_reference {
            return Err("holds a ${…} that is not ${STEP.OUTPUT}, e.g. ${database.host}".into());
        }
        rest = &rest[at + 2..];
    }
    Ok(text.into())
}
