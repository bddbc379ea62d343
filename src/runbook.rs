//! The runbook of the configured plan, ready for paper: the pages of `config/runbook`, with real names, times, hosts and steps in
//! place of `{{NAME}}`. Pure.
//!
//! A block between `{{#NAME}}` and `{{/NAME}}`, each on a line of its own, is there only where NAME has a value, and one between
//! `{{^NAME}}` and `{{/NAME}}` only where it has none.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::steps::{At, Kind, Server, Step};
use crate::config::{AzureAuth, Config, Endpoint, Place, Schedule};
use crate::steps::plan;

mod words;

use words::Words;

/// In which language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Korean,
}

/// Every page there is, in the order of the book.
pub const PAGES: [&str; 6] = ["night", "failback", "by-hand", "drill", "cost", "adopt"];

const ENGLISH: &str = include_str!("../config/runbook/en.md");
const KOREAN: &str = include_str!("../config/runbook/ko.md");

/// What only the machine that prints knows.
#[derive(Debug, Clone)]
pub struct Printing {
    /// Path of the configuration's file.
    pub config: String,
    pub at: Timestamp,
}

/// A page, or something in it, that is not as it should be: a defect of the pages, found by tests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("there is no page {0}: there are {pages}", pages = PAGES.join(", "))]
    NoPage(String),
    #[error("the page names {0}, which nobody knows; report this as a defect")]
    Unknown(String),
    #[error("a block of {0} is not closed; report this as a defect")]
    Open(String),
}

impl PageError {
    /// Whether trying again cannot help unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoPage(_) | Self::Unknown(_) | Self::Open(_) => true,
        }
    }
}

/// The book, or one page of it.
///
/// # Errors
/// [`PageError::NoPage`]; others are defects.
pub fn print(
    config: &Config,
    language: Language,
    page: Option<&str>,
    printing: &Printing,
) -> Result<String, PageError> {
    let text = match language {
        Language::English => ENGLISH,
        Language::Korean => KOREAN,
    };
    let chosen: Vec<&str> = match page {
        None => PAGES.to_vec(),
        Some(page) => vec![page],
    };
    let values = values(config, &Words::of(language), printing);
    let mut printed = Vec::new();
    for page in chosen {
        let source = self::page(text, page).ok_or_else(|| PageError::NoPage(page.to_owned()))?;
        printed.push(filled(source, &values)?);
    }
    Ok(printed.join("\n"))
}

fn page<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let begin = format!("<!-- page: {name} -->\n");
    let (_, from) = text.split_once(&begin)?;
    Some(from.split_once("<!-- page: ").map_or(from, |(page, _)| page).trim())
}

fn filled(source: &str, values: &BTreeMap<&'static str, String>) -> Result<String, PageError> {
    let mut out = String::new();
    // Blocks that are open, and whether what stands in each is printed.
    let mut open: Vec<(String, bool)> = Vec::new();
    for line in source.lines() {
        let mark = line.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        match mark.map(|mark| mark.split_at(1)) {
            Some((sign @ ("#" | "^"), name)) => {
                let value = values.get(name).ok_or_else(|| PageError::Unknown(name.to_owned()))?;
                open.push((name.to_owned(), value.is_empty() == (sign == "^")));
            }
            Some(("/", name)) => match open.pop() {
                Some((opened, _)) if opened == name => {}
                _ => return Err(PageError::Open(name.to_owned())),
            },
            _ if open.iter().all(|(_, shown)| *shown) => {
                out.push_str(&line_of(line, values)?);
                out.push('\n');
            }
            _ => {}
        }
    }
    match open.pop() {
        None => Ok(out),
        Some((name, _)) => Err(PageError::Open(name)),
    }
}

fn line_of(line: &str, values: &BTreeMap<&'static str, String>) -> Result<String, PageError> {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after
            .split_once("}}")
            .ok_or_else(|| PageError::Open(after.to_owned()))?;
        out.push_str(before);
        out.push_str(values.get(name).ok_or_else(|| PageError::Unknown(name.to_owned()))?);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Every name that a page may hold. One that is empty has no value.
fn values(config: &Config, words: &Words, printing: &Printing) -> BTreeMap<&'static str, String> {
    let (account, container, control) = match &config.store.place {
        Place::Azure {
            account,
            container,
            control_container,
            ..
        } => (account.clone(), container.clone(), control_container.clone()),
        Place::Directory(_) => Default::default(),
    };
    let store = match &config.store.place {
        Place::Azure { account, container, .. } => format!("azblob://{account}/{container}"),
        Place::Directory(root) => root.display().to_string(),
    };
    let login = match &config.store.place {
        Place::Azure {
            auth: AzureAuth::AccountKey(_),
            ..
        } => "key",
        Place::Azure { .. } | Place::Directory(_) => "login",
    };
    let source = match &config.source.endpoint {
        Endpoint::Address { host, port } => format!("{host}:{port}"),
        Endpoint::RdsInstance { id, .. } => id.clone(),
    };
    let schedule = match &config.backup.schedule {
        Schedule::Cron(text) => format!("{text} (UTC)"),
        Schedule::KeepRpo => words.keep_rpo.to_owned(),
    };
    let all = config.failover_steps.iter().chain(&config.failback_steps);
    let runner = all.clone().any(|step| step.at == At::Runner);
    let manual = manual(&config.failover_steps, words);
    let restores = find(&config.failover_steps, |kind| matches!(kind, Kind::Restore(_)));
    let fence = find(&config.failover_steps, |kind| matches!(kind, Kind::Fence(_)));
    let approvers = config.failover.approvers;
    let digest = plan::digest(&config.failover_steps, &plan::plan(&config.failover_steps));
    BTreeMap::from([
        ("service", config.service.name.clone()),
        ("site", config.service.site.clone()),
        ("config", printing.config.clone()),
        ("printed", printing.at.strftime("%Y-%m-%d %H:%M UTC").to_string()),
        ("fingerprint", digest.chars().take(12).collect()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("rpo", words.duration(config.targets.rpo)),
        ("rto", words.duration(config.targets.rto)),
        ("max_loss", words.duration(config.failover.max_loss)),
        ("schedule", schedule),
        ("store", store),
        ("account", account),
        ("container", container),
        ("control", control),
        ("prefix", config.store.prefix.clone()),
        ("login", login.to_owned()),
        ("source", source),
        ("standby", server(config.standby.as_ref().map(|s| (&s.host, s.port)))),
        (
            "standby_host",
            config.standby.as_ref().map_or_else(String::new, |s| s.host.clone()),
        ),
        (
            "standby_user",
            config.standby.as_ref().map_or_else(String::new, |s| s.user.clone()),
        ),
        ("primary", server(config.primary.as_ref().map(|s| (&s.host, s.port)))),
        (
            "approvers",
            if approvers > 1 {
                approvers.to_string()
            } else {
                String::new()
            },
        ),
        (
            "others",
            if approvers > 1 {
                (approvers - 1).to_string()
            } else {
                String::new()
            },
        ),
        ("runner", if runner { words.runner.to_owned() } else { String::new() }),
        ("stage2", steps(&config.failover_steps, words, |step| step.stage <= 2)),
        (
            "stage2_most",
            most(&config.failover_steps, 2)
                .map(|most| words.duration(most))
                .unwrap_or_default(),
        ),
        ("stage3", steps(&config.failover_steps, words, |step| step.stage == 3)),
        (
            "stage3_most",
            most(&config.failover_steps, 3)
                .map(|most| words.duration(most))
                .unwrap_or_default(),
        ),
        ("failback", steps(&config.failback_steps, words, |_| true)),
        ("manual", manual),
        ("home_manual", self::manual(&config.failback_steps, words)),
        ("restore_step", restores.unwrap_or_default()),
        ("fence_step", fence.unwrap_or_default()),
        ("traffic", traffic(config)),
        (
            "verify_to",
            if config.standby.is_some() && !is_made(&config.failover_steps) {
                "standby".to_owned()
            } else {
                String::new()
            },
        ),
        (
            "verify_schedule",
            config
                .verify
                .restore
                .as_ref()
                .map_or_else(String::new, |one| one.schedule.clone()),
        ),
        ("dark_schedule", config.doctor.dark_schedule.clone().unwrap_or_default()),
        ("keep_days", config.retention.keep_days.to_string()),
        ("keep_all", words.duration(config.retention.keep_all)),
        ("keep_at_least", config.retention.keep_at_least.to_string()),
        ("databases", config.source.databases.join(", ")),
        (
            "accounts",
            config
                .accounts
                .iter()
                .map(|one| one.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        ),
        ("quarters", words.quarters.to_owned()),
    ])
}

fn server(of: Option<(&String, u16)>) -> String {
    of.map_or_else(String::new, |(host, port)| format!("{host}:{port}"))
}

fn find(steps: &[Step], is_it: impl Fn(&Kind) -> bool) -> Option<String> {
    steps
        .iter()
        .find(|step| is_it(&step.kind))
        .map(|step| step.name.clone())
}

/// As a table, in the order of the plan.
fn steps(all: &[Step], words: &Words, is_meant: impl Fn(&Step) -> bool) -> String {
    let chosen: Vec<&Step> = all.iter().filter(|step| is_meant(step)).collect();
    if chosen.is_empty() {
        return String::new();
    }
    let mut lines = vec![words.heading.to_owned(), "|---|---|---|---|---|".to_owned()];
    for step in chosen {
        let place = match step.at {
            At::Operator => words.here,
            At::Runner => words.runner,
        };
        lines.push(format!(
            "| `{}` | {} | {place} | {} | {} |",
            step.name,
            cell(&what(&step.kind, words)),
            words.duration(step.timeout),
            match step.needs.is_empty() {
                true => "–".to_owned(),
                false => step.needs.join(", "),
            }
        ));
    }
    lines.join("\n")
}

/// Nothing in a cell ends it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn what(kind: &Kind, words: &Words) -> String {
    let of = |server: &Server| match server.site {
        crate::config::steps::Site::Primary => words.primary,
        crate::config::steps::Site::Standby => words.standby,
    };
    let put = |text: &str, value: &str| text.replace("{}", value);
    match kind {
        Kind::Terraform(one) if one.destroys => put(words.destroys, &one.dir.display().to_string()),
        Kind::Terraform(one) => put(words.provisions, &one.dir.display().to_string()),
        Kind::Restore(server) => put(words.restores, of(server)),
        Kind::Verify(server) => put(words.compares, of(server)),
        Kind::Accounts(server) => put(words.makes_accounts, of(server)),
        Kind::Open(server) => put(words.opens, of(server)),
        Kind::Fence(server) => put(words.fences, of(server)),
        Kind::Unfence(server) => put(words.unfences, of(server)),
        Kind::LastBackup(server) => put(words.last_backup, of(server)),
        Kind::Preserve(one) => put(words.preserves, of(&one.server)),
        Kind::MaintenancePage(_) => words.shows_a_page.to_owned(),
        Kind::StoreReady => words.looks_at_the_store.to_owned(),
        Kind::Manifests(one) => put(words.applies, &one.dir.display().to_string()),
        Kind::Http(one) => put(words.asks, &one.url),
        Kind::Traffic(one) => put(words.switches, &one.distribution),
        Kind::PrimaryReady(_) => words.waits_for_primary.to_owned(),
        Kind::Command(one) => put(words.runs, &one.program.display().to_string()),
        Kind::Manual { text } => put(words.a_person, text),
    }
}

/// Whether the plan makes the standby's server: by day there is none.
fn is_made(steps: &[Step]) -> bool {
    let server = |kind: &Kind| match kind {
        Kind::Restore(server) => server.host.as_deref().map(|host| host.contains("${")),
        _ => None,
    };
    steps.iter().find_map(|step| server(&step.kind)).unwrap_or(false)
}

/// How to confirm what a person does.
fn manual(steps: &[Step], words: &Words) -> String {
    let lines: Vec<String> = steps
        .iter()
        .filter_map(|step| match &step.kind {
            Kind::Manual { text } => Some(format!("- **{}**{} {}", step.name, words.colon, text)),
            _ => None,
        })
        .collect();
    lines.join("\n")
}

/// Longest that the steps of a stage may take one after the other along their needs.
fn most(all: &[Step], stage: u8) -> Option<Duration> {
    fn along<'s>(step: &'s Step, all: &'s [Step], stage: u8, depth: usize) -> Duration {
        let before = step
            .needs
            .iter()
            .filter_map(|name| all.iter().find(|one| one.name == *name));
        let longest = match depth {
            0 => Duration::ZERO,
            depth => before
                .filter(|one| one.stage == stage)
                .map(|one| along(one, all, stage, depth - 1))
                .max()
                .unwrap_or_default(),
        };
        let own = match step.kind {
            // A person takes as long as a person takes.
            Kind::Manual { .. } => Duration::ZERO,
            _ => step.timeout,
        };
        longest + own
    }
    let of_it = all.iter().filter(|step| step.stage == stage);
    of_it.map(|step| along(step, all, stage, all.len().min(24))).max()
}

fn traffic(config: &Config) -> String {
    let found = config.failover_steps.iter().find_map(|step| match &step.kind {
        Kind::Traffic(traffic) => Some(traffic.distribution.clone()),
        _ => None,
    });
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_names_are_filled_or_refused() {
        let values = BTreeMap::from([("a", "1".to_owned()), ("none", String::new())]);
        let fill = |text: &str| filled(text, &values);
        assert_eq!(
            fill("x {{a}}{{a}}\n{{#a}}\nyes\n{{/a}}\n{{#none}}\nno\n{{/none}}\n{{^none}}\nwithout\n{{/none}}"),
            Ok("x 11\nyes\nwithout\n".to_owned())
        );
        assert_eq!(fill("{{b}}"), Err(PageError::Unknown("b".to_owned())));
        assert_eq!(fill("{{#b}}\n{{/b}}"), Err(PageError::Unknown("b".to_owned())));
        assert_eq!(fill("{{#a}}\nx"), Err(PageError::Open("a".to_owned())));
        assert_eq!(fill("{{#a}}\nx\n{{/none}}"), Err(PageError::Open("none".to_owned())));
    }

    #[test]
    fn the_longest_way_through_a_stage_counts() {
        let step = |name: &str, minutes: u64, needs: &[&str]| Step {
            name: name.to_owned(),
            stage: 2,
            needs: needs.iter().map(ToString::to_string).collect(),
            timeout: Duration::from_secs(minutes * 60),
            usually: None,
            at: At::Operator,
            goes_on: false,
            retries: 0,
            kind: Kind::Restore(Server::of(crate::config::steps::Site::Standby)),
            drill: None,
        };
        let all = [step("a", 5, &[]), step("b", 10, &["a"]), step("c", 12, &[])];
        assert_eq!(most(&all, 2), Some(Duration::from_secs(15 * 60)));
        assert_eq!(most(&all, 3), None);
    }
}
