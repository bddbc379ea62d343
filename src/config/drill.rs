//! `[drill]`: rehearsals, when and with what of their own.

use std::path::PathBuf;
use std::time::Duration;

use super::cadence::parse_cron;
use super::collect::{Document, Section};
use super::sections::{absolute_path, is_loopback};
use super::server::{self, Server};
use super::{Standby, Tls};
use crate::secret::SecretRef;

/// A machine is started in a minute or two, and looks at the journal every few seconds.
const RUNNER_WITHIN: Duration = Duration::from_secs(15 * 60);
const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How a rehearsal differs from the real thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// As far as this: 2 or 3. Default 2.
    pub stage: u8,
    /// Cron text, UTC. None: only by hand.
    pub schedule: Option<String>,
    /// Who keeps the schedule. Default: the agent.
    pub by: Keeper,
    /// Terraform's workspace, and so its state. Default `drill`.
    pub workspace: String,
    /// Over those of every step of Terraform's: names of its own.
    pub variables: Vec<(String, String)>,
    /// The runner takes up what is its within this, or the rehearsal is taken back. Default 15 minutes.
    pub runner_within: Duration,
    /// The database server, where no step of the rehearsal makes one.
    pub to: Option<Standby>,
}

/// Which process begins what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    Agent,
    Runner,
}

/// Read as a whole, so that a mistyped key is recognised by what there could be.
pub(super) fn drill(document: &mut Document<'_>) -> Drill {
    let mut section = document.section("drill");
    let stage = section.whole("stage", 2..=3).and_then(|stage| u8::try_from(stage).ok());
    let schedule = section.text("schedule", |text| parse_cron(text).map(|_| text.trim().to_owned()));
    let by = section.choice("by", &[("agent", Keeper::Agent), ("runner", Keeper::Runner)]);
    let workspace = section.text("workspace", workspace);
    let variables = variables(&mut section);
    let runner_within = section.duration("runner_within", SHORTEST_WAIT..=LONGEST_WAIT);
    Drill {
        stage: stage.unwrap_or(2),
        schedule,
        by: by.unwrap_or(Keeper::Agent),
        workspace: workspace.unwrap_or_else(|| "drill".to_owned()),
        variables,
        runner_within: runner_within.unwrap_or(RUNNER_WITHIN),
        to: to(&mut section),
    }
}

fn workspace(text: &str) -> Result<String, String> {
    let fits = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    match text {
        "default" => {
            Err("is where the real state is: give the rehearsal a workspace of its own, e.g. \"drill\"".into())
        }
        text if fits && (1..=40).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err("must be 1 to 40 letters, digits, '-' and '_'".into()),
    }
}

fn variables(section: &mut Section<'_, '_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for text in section.list("variables").unwrap_or_default() {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.contains("${") => {
                pairs.push((name.to_owned(), value.to_owned()));
            }
            _ => section.problem("variables", "must be a list of \"NAME=VALUE\", without ${…}"),
        }
    }
    pairs
}

fn to(section: &mut Section<'_, '_>) -> Option<Standby> {
    let to = section.text("to", |text| {
        server::parse(text)
            .map_err(|why| format!("{why}: write an address such as \"mysql://user@scratch.internal:3306\""))
    });
    let password = section.secret("password");
    let tls = section.choice("tls", &[("required", Tls::Required), ("off", Tls::Off)]);
    let tls_ca = section.text("tls_ca", absolute_path);
    if !section.has("to") {
        for key in ["password", "tls", "tls_ca"] {
            if section.has(key) {
                section.problem(key, "has a meaning only with to: add that, or remove it");
            }
        }
        return None;
    }
    Some(named(section, to?, password, tls.unwrap_or(Tls::Required), tls_ca))
}

fn named(
    section: &mut Section<'_, '_>,
    server: Server,
    password: Option<SecretRef>,
    tls: Tls,
    tls_ca: Option<PathBuf>,
) -> Standby {
    if tls == Tls::Off && !is_loopback(&server.host) {
        section.problem(
            "tls",
            "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
        );
    }
    let write = "where that of to is, e.g. password = \"azure-keyvault:kv-dr/scratch-password\"";
    let password = password.map(|reference| reference.0);
    Standby {
        host: server.host,
        port: server.port,
        user: server.user,
        password: SecretRef(section.need("password", password, write)),
        tls,
        tls_ca,
    }
}
