//! The plan's drill variant: the failover's steps as far as they can be done beside everything that is real. Pure.
//!
//! By kind: `terraform`, `restore`, `verify`, `accounts`, `standby-open` (accounts only; events stay off), `manifests` and `http` are rehearsed, in a
//! workspace, on a server and on a cluster of the rehearsal's own; `fence`, `last-backup`, `traffic`, `command` and `manual` are not. A step may say
//! `drill = "run"` or `"skip"`. What could reach anything real is a mistake of the configuration, not a risk of the run.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::steps::{Kind, Rehearsed, Server, Site, Step, Terraform};
use crate::config::{Config, Endpoint};

/// The configuration that a rehearsal goes by, and what it must stay away from.
#[derive(Debug, Clone)]
pub struct Variant {
    pub config: Config,
    /// Databases that are real: host and port.
    pub avoid: Vec<(String, u16)>,
    /// Steps that are left out, and why.
    pub skipped: Vec<(String, String)>,
}

/// What stands against rehearsing with this configuration, each with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub key: String,
    pub message: String,
}

/// The variant as far as `stage`.
///
/// # Errors
/// Everything that would let it reach what is real.
pub fn variant(config: &Config, stage: u8) -> Result<Variant, Vec<Mistake>> {
    match judged(config, stage) {
        (variant, mistakes) if mistakes.is_empty() => Ok(variant),
        (_, mistakes) => Err(mistakes),
    }
}

/// The variant of a rehearsal that was begun, to take it back: isolated as far as that goes, whatever stands against beginning another.
pub fn of_begun(config: &Config, stage: u8) -> Variant {
    judged(config, stage).0
}

fn judged(config: &Config, stage: u8) -> (Variant, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let mut skipped = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    let mut left_out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut makers: BTreeSet<String> = BTreeSet::new();
    for step in config
        .failover_steps
        .iter()
        .filter(|step| (2..=stage).contains(&step.stage))
    {
        match why_not(step, &makers) {
            Some(why) => {
                skipped.push((step.name.clone(), why));
                left_out.insert(step.name.clone(), step.needs.clone());
            }
            None => {
                let mut step = step.clone();
                isolate(config, &mut step, &makers, &mut mistakes);
                if matches!(step.kind, Kind::Terraform(_)) {
                    makers.insert(step.name.clone());
                }
                steps.push(step);
            }
        }
    }
    if !steps.iter().any(|step| matches!(step.kind, Kind::Restore(_))) {
        mistakes.push(Mistake {
            key: "failover_steps".to_owned(),
            message: "no step restores a backup: there is nothing to rehearse; config/recovery.toml is an example"
                .to_owned(),
        });
    }
    let kept: BTreeSet<String> = steps.iter().map(|step| step.name.clone()).collect();
    for step in &mut steps {
        step.needs = needs(&step.needs, &left_out, &kept);
    }
    let avoid = real(config);
    if let Some(to) = &config.drill.to
        && avoid.contains(&(to.host.to_ascii_lowercase(), to.port))
    {
        mistakes.push(Mistake {
            key: "drill.to".to_owned(),
            message: "is a database of the real thing: a rehearsal needs a server of its own".to_owned(),
        });
    }
    let mut own = config.clone();
    own.failover_steps = steps;
    own.failback_steps = Vec::new();
    // Nothing of a rehearsal may log in there.
    own.primary = None;
    own.failover.approvers = 1;
    if config.drill.to.is_some() {
        own.standby.clone_from(&config.drill.to);
    }
    let variant = Variant {
        config: own,
        avoid,
        skipped,
    };
    (variant, mistakes)
}

/// Why a step is left out; none if it is rehearsed.
fn why_not(step: &Step, makers: &BTreeSet<String>) -> Option<String> {
    match step.drill {
        Some(Rehearsed::Skip) => return Some("drill = \"skip\"".to_owned()),
        Some(Rehearsed::Run) => return None,
        None => {}
    }
    match &step.kind {
        Kind::Terraform(terraform) if terraform.destroys => Some("it destroys".to_owned()),
        Kind::Terraform(_)
        | Kind::Restore(_)
        | Kind::Verify(_)
        | Kind::Accounts(_)
        | Kind::Open(_)
        | Kind::Manifests(_) => None,
        Kind::Http(http) if names_any(&http.url, makers) => None,
        Kind::Http(_) => Some("its address is not one that the rehearsal makes".to_owned()),
        Kind::Fence(_)
        | Kind::Unfence(_)
        | Kind::LastBackup(_)
        | Kind::Preserve(_)
        | Kind::Traffic(_)
        | Kind::PrimaryReady(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady => Some("it concerns what serves".to_owned()),
        Kind::Command(_) => Some("nobody knows what it reaches; drill = \"run\" says that it may".to_owned()),
        Kind::Manual { .. } => Some("it is a person's".to_owned()),
    }
}

/// Gives a step names of its own, or says why that cannot be.
fn isolate(config: &Config, step: &mut Step, makers: &BTreeSet<String>, mistakes: &mut Vec<Mistake>) {
    let name = step.name.clone();
    let mut wrong = |key: &str, message: &str| {
        mistakes.push(Mistake {
            key: format!("failover_steps \"{name}\".{key}"),
            message: message.to_owned(),
        });
    };
    let is_reached = step.drill == Some(Rehearsed::Run);
    match &mut step.kind {
        Kind::Terraform(terraform) => {
            if terraform.environment.iter().any(|name| name == "TF_WORKSPACE") {
                wrong(
                    "environment",
                    "hands TF_WORKSPACE on: the real state could be the rehearsal's; leave it out",
                );
            }
            if terraform.destroys {
                wrong(
                    "drill",
                    "must not be \"run\": a rehearsal destroys what it made, and nothing else",
                );
            }
            terraform.workspace = Some(config.drill.workspace.clone());
            for (variable, value) in &config.drill.variables {
                // Terraform refuses a variable that a root does not declare: where a step sets this one, only such steps get it.
                let is_set_by_some = config.failover_steps.iter().any(|step| sets(&step.kind, variable));
                let before = terraform.variables.len();
                terraform.variables.retain(|(name, _)| name != variable);
                if terraform.variables.len() < before || !is_set_by_some {
                    terraform.variables.push((variable.clone(), value.clone()));
                }
            }
        }
        Kind::Restore(server) | Kind::Verify(server) | Kind::Accounts(server) | Kind::Open(server) => {
            if server.site == Site::Primary {
                wrong(
                    "site",
                    "is the primary: a rehearsal stays away from it; write drill = \"skip\"",
                );
            }
            if config.drill.to.is_some() {
                *server = Server::of(server.site);
            } else if !server.host.as_deref().is_some_and(|host| names_any(host, makers)) {
                wrong(
                    "host",
                    "is the real standby: in a rehearsal it must come from a step of Terraform's (host = \"${STEP.OUTPUT}\"), or from \
                     [drill] to = \"mysql://USER@HOST\"",
                );
            }
        }
        Kind::Manifests(manifests) if !names_any(&manifests.kubeconfig, makers) => wrong(
            "kubeconfig",
            "is a real cluster's: in a rehearsal it must come from a step of Terraform's, or write drill = \"skip\"",
        ),
        Kind::Fence(_)
        | Kind::Unfence(_)
        | Kind::LastBackup(_)
        | Kind::Preserve(_)
        | Kind::Traffic(_)
        | Kind::PrimaryReady(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady
            if is_reached =>
        {
            wrong(
                "drill",
                "must not be \"run\": it concerns what serves, and is never rehearsed",
            );
        }
        Kind::Command(command) if command.means.is_some() => {
            wrong("drill", "must not be \"run\": what it means concerns what serves");
        }
        Kind::Manual { .. } => wrong("drill", "must not be \"run\": nobody is there to do it"),
        Kind::Manifests(_)
        | Kind::Http(_)
        | Kind::Command(_)
        | Kind::Fence(_)
        | Kind::Unfence(_)
        | Kind::LastBackup(_)
        | Kind::Preserve(_)
        | Kind::Traffic(_)
        | Kind::PrimaryReady(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady => {}
    }
}

/// Whether a text holds an output of one of these steps.
fn sets(kind: &Kind, variable: &str) -> bool {
    matches!(kind, Kind::Terraform(terraform) if terraform.variables.iter().any(|(name, _)| name == variable))
}

fn names_any(text: &str, makers: &BTreeSet<String>) -> bool {
    makers.iter().any(|maker| text.contains(&format!("${{{maker}.")))
}

/// What Terraform's steps make in earnest.
pub fn in_earnest(config: &Config) -> BTreeMap<String, Terraform> {
    let steps = config.failover_steps.iter().filter_map(|step| match &step.kind {
        Kind::Terraform(terraform) => Some((step.name.clone(), terraform.clone())),
        _ => None,
    });
    steps.collect()
}

/// What was needed of a step that is left out, is needed by whoever needed that.
fn needs(of: &[String], left_out: &BTreeMap<String, Vec<String>>, kept: &BTreeSet<String>) -> Vec<String> {
    let mut open: Vec<&String> = of.iter().collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    while let Some(need) = open.pop() {
        if !seen.insert(need) {
            continue;
        }
        if kept.contains(need) {
            found.insert(need.clone());
        } else if let Some(further) = left_out.get(need) {
            open.extend(further);
        }
    }
    found.into_iter().collect()
}

/// Databases that serve, or are to, as far as the configuration alone tells: host in small letters, and port.
pub fn real(config: &Config) -> Vec<(String, u16)> {
    let mut real: Vec<(String, u16)> = [&config.standby, &config.primary]
        .into_iter()
        .flatten()
        .map(|server| (server.host.to_ascii_lowercase(), server.port))
        .collect();
    if let Endpoint::Address { host, port } = &config.source.endpoint {
        real.push((host.to_ascii_lowercase(), *port));
    }
    real
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = include_str!("../../config/recovery.toml");

    fn config(text: &str) -> Config {
        Config::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_name_of_its_own_goes_where_the_real_one_stands_and_to_no_root_that_does_not_know_it() {
        let bank = include_str!("../../config/pocketbank.toml");
        let found = variant(&config(bank), 3).expect("isolated");
        let named: Vec<(&str, Vec<&str>)> = found
            .config
            .failover_steps
            .iter()
            .filter_map(|step| match &step.kind {
                Kind::Terraform(terraform) => Some((
                    step.name.as_str(),
                    terraform
                        .variables
                        .iter()
                        .filter(|(name, _)| name == "server_name")
                        .map(|(_, value)| value.as_str())
                        .collect(),
                )),
                _ => None,
            })
            .collect();
        assert!(
            named.contains(&("database", vec!["pocketbank-drill-8f3k"])),
            "{named:?}"
        );
        assert!(named.contains(&("cluster", vec![])), "{named:?}");
    }

    #[test]
    fn the_example_is_rehearsed_by_kind_and_in_isolation() {
        let found = variant(&config(PLAN), 3).expect("isolated");
        let names: Vec<&str> = found
            .config
            .failover_steps
            .iter()
            .map(|step| step.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "database",
                "restore",
                "compare",
                "accounts",
                "cluster",
                "application",
                "open",
                "healthy"
            ]
        );
        let left: Vec<&str> = found.skipped.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            left,
            [
                "page-since-when",
                "fence",
                "last-backup",
                "traffic",
                "users-read",
                "users-write",
                "regulator"
            ]
        );
        let open = found
            .config
            .failover_steps
            .iter()
            .find(|step| step.name == "open")
            .expect("there");
        assert_eq!(
            open.needs,
            ["accounts", "application", "compare", "restore"],
            "what the fence needed is needed in its place"
        );
        for step in &found.config.failover_steps {
            if let Kind::Terraform(terraform) = &step.kind {
                assert_eq!(terraform.workspace.as_deref(), Some("drill"));
            }
        }
        assert!(found.config.primary.is_none(), "nothing may log in there");
        assert_eq!(
            variant(&config(PLAN), 2).expect("isolated").config.failover_steps.len(),
            4
        );
    }

    #[test]
    fn whatever_could_reach_the_real_thing_is_refused() {
        for (from, to, key) in [
            (
                "kind = \"restore\"\nhost = \"${database.host}\"\nneeds = [\"database\"]",
                "kind = \"restore\"\nneeds = [\"database\"]",
                "\"restore\".host",
            ),
            (
                "kubeconfig = \"${cluster.kubeconfig}\"",
                "kubeconfig = \"/etc/kubeconfig\"",
                "\"application\".kubeconfig",
            ),
            (
                "kind = \"fence\"\nread_only",
                "kind = \"fence\"\ndrill = \"run\"\nread_only",
                "\"fence\".drill",
            ),
            (
                "kind = \"traffic\"\ndistribution",
                "kind = \"traffic\"\ndrill = \"run\"\ndistribution",
                "\"traffic\".drill",
            ),
            (
                "environment = [\"ARM_SUBSCRIPTION_ID\"",
                "environment = [\"TF_WORKSPACE\", \"ARM_SUBSCRIPTION_ID\"",
                "environment",
            ),
        ] {
            let text = PLAN.replace(from, to);
            assert_ne!(text, PLAN, "{from}");
            let mistakes = variant(&config(&text), 3).expect_err(key);
            assert!(
                mistakes.iter().any(|mistake| mistake.key.contains(key)),
                "{key}: {mistakes:?}"
            );
        }
        for host in [
            "petclinic-dr.mysql.database.azure.com",
            "PETCLINIC-PROD.abc123.ap-northeast-2.rds.amazonaws.com",
        ] {
            let text = format!("{PLAN}\n[drill]\nto = \"mysql://x@{host}:3306\"\npassword = \"env:P\"\n");
            let mistakes = variant(&config(&text), 2).expect_err(host);
            assert_eq!(mistakes[0].key, "drill.to", "{mistakes:?}");
        }
        let default = Config::parse(&format!("{PLAN}\n[drill]\nworkspace = \"default\"\n")).expect_err("refused");
        assert!(default.to_string().contains("drill.workspace"), "{default}");
    }
}
