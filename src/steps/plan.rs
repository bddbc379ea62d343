//! From the configured steps to the plan that is decided on: what each kind means for the safety of the data. Pure.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::config::steps::{At, Kind, Means, Server, Site as Configured, Step as Written, Terraform};
use crate::recovery::plan::{Aim, Mistake, OnFailure, Place, Plan, Role, Site, Step};

pub fn site(site: Configured) -> Site {
    match site {
        Configured::Primary => Site::Primary,
        Configured::Standby => Site::Standby,
    }
}

/// All steps of one direction.
pub fn plan(steps: &[Written]) -> Plan {
    Plan {
        steps: steps.iter().map(step).collect(),
    }
}

/// The steps of a rehearsal: none means anything for who serves, each is done where it is done at night, and whatever was begun is taken back.
pub fn rehearsal(steps: &[Written]) -> Plan {
    let mut plan = plan(steps);
    // What the runner did on a server that the rehearsal makes goes with that server: nobody waits for a machine that may be gone.
    let goes = |step: &&Written| match &step.kind {
        Kind::Restore(server) | Kind::Verify(server) | Kind::Accounts(server) | Kind::Open(server) => {
            step.at == At::Runner && is_made(&plan, &step.name, server)
        }
        _ => false,
    };
    let going: Vec<String> = steps.iter().filter(goes).map(|step| step.name.clone()).collect();
    for step in &mut plan.steps {
        if !matches!(step.role, Role::Restore(_) | Role::Verify(_)) {
            step.role = Role::Work;
        }
        step.takes_back = !going.contains(&step.name);
        // Whoever takes over a rehearsal does so to clear it away.
        step.guards_itself = true;
    }
    plan
}

/// Whether a step of Terraform's before this one makes the very server.
fn is_made(plan: &Plan, step: &str, server: &Server) -> bool {
    let makes = |name: &str| {
        let host = server.host.as_deref().unwrap_or_default();
        plan.step(name).is_some_and(|step| step.kind == "terraform") && host.contains(&format!("${{{name}."))
    };
    plan.before(step).into_iter().any(makes)
}

/// What is wrong with the configured steps; empty where there are none.
pub fn mistakes(failover: &[Written], failback: &[Written]) -> Vec<(&'static str, Mistake)> {
    let told = |list: &'static str, steps: &[Written], towards| {
        let mistakes = if steps.is_empty() {
            Vec::new()
        } else {
            mistakes_of(steps, towards)
        };
        mistakes
            .into_iter()
            .map(move |mistake| (list, mistake))
            .collect::<Vec<_>>()
    };
    let mut mistakes = told("failover_steps", failover, Site::Standby);
    mistakes.extend(told("failback_steps", failback, Site::Primary));
    for (list, steps) in [("failover_steps", failover), ("failback_steps", failback)] {
        mistakes.extend(
            destroys_what_stands_always(steps, failover)
                .into_iter()
                .map(|mistake| (list, mistake)),
        );
    }
    mistakes
}

/// Stage 1 and the backups in it are never destroyed: not by another step that names its root, or its state, either.
fn destroys_what_stands_always(steps: &[Written], failover: &[Written]) -> Vec<Mistake> {
    let stands_always: Vec<(&str, &Terraform)> = failover
        .iter()
        .filter(|step| step.stage == 1)
        .filter_map(|step| match &step.kind {
            Kind::Terraform(terraform) if !terraform.destroys => Some((step.name.as_str(), terraform)),
            _ => None,
        })
        .collect();
    let mut mistakes = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let Kind::Terraform(terraform) = &step.kind else {
            continue;
        };
        if !terraform.destroys {
            continue;
        }
        for (name, other) in &stands_always {
            let sorted = |terraform: &Terraform| terraform.backend.iter().cloned().collect::<BTreeSet<_>>();
            let key = if terraform.dir == other.dir {
                "dir"
            } else if !terraform.backend.is_empty() && sorted(terraform) == sorted(other) {
                "backend"
            } else {
                continue;
            };
            mistakes.push(Mistake {
                step: at,
                key,
                message: format!(
                    "is that of step {name}, which stands always, with the backups in it: it is never destroyed"
                ),
            });
        }
    }
    mistakes
}

/// The same in lines, each with its key, for whoever checks a configuration.
pub fn check(config: &crate::config::Config) -> Vec<String> {
    mistakes(&config.failover_steps, &config.failback_steps)
        .into_iter()
        .map(|(list, mistake)| format!("{list}[{}].{}: {}", mistake.step + 1, mistake.key, mistake.message))
        .collect()
}

/// Of one direction; with what only the kinds tell.
fn mistakes_of(steps: &[Written], towards: Site) -> Vec<Mistake> {
    let plan = plan(steps);
    let mut mistakes = plan.mistakes(towards);
    for (at, step) in steps.iter().enumerate() {
        let mut wrong = |key, message: String| mistakes.push(Mistake { step: at, key, message });
        match &step.kind {
            Kind::Open(_) => {
                let before = plan.before(&step.name);
                let late = steps.iter().filter(|other| matches!(other.kind, Kind::Accounts(_)));
                for other in late.filter(|other| !before.contains(other.name.as_str())) {
                    wrong(
                        "needs",
                        format!("must hold {}: it locks the accounts until the site opens", other.name),
                    );
                }
            }
            Kind::Command(command) if matches!(command.means, Some(Means::Fence(_))) && command.undo.is_empty() => {
                wrong(
                    "undo",
                    "is missing: a fence must be taken back where the operation is abandoned".to_owned(),
                );
            }
            _ if role(&step.kind) == Role::Destroy && towards == Site::Primary => {
                let before = plan.before(&step.name);
                let home: Vec<&Step> = plan.with_role(|role| role == Role::Traffic(towards)).collect();
                let is_soak = |other: &&Written| {
                    let seen = plan.before(&other.name);
                    matches!(other.kind, Kind::Manual { .. })
                        && before.contains(other.name.as_str())
                        && home.iter().all(|traffic| seen.contains(traffic.name.as_str()))
                };
                if !steps.iter().any(|other| is_soak(&other)) {
                    wrong(
                        "needs",
                        "must hold a step of kind \"manual\" that comes after the traffic home: what is destroyed does not come back, so \
                         somebody watches the service first, and says so"
                            .to_owned(),
                    );
                }
            }
            _ => {}
        }
    }
    mistakes
}

/// SHA-256 (hex) of everything that the configuration says of the steps of `plan`: whoever goes on must do the same.
pub fn digest(steps: &[Written], plan: &Plan) -> String {
    let mut hash = Sha256::new();
    for step in steps.iter().filter(|step| plan.step(&step.name).is_some()) {
        // How long it usually takes may be learnt meanwhile.
        let step = Written {
            usually: None,
            ..step.clone()
        };
        // References to secrets print as references; secrets themselves are nowhere in it.
        hash.update(format!("{step:?}\n"));
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The steps of the direction that an operation takes.
pub fn written(aim: Aim, config: &crate::config::Config) -> &[Written] {
    match aim {
        // A rehearsal goes by a configuration made for it.
        Aim::Failover { .. } | Aim::Drill { .. } => &config.failover_steps,
        Aim::Failback | Aim::StandDown => &config.failback_steps,
    }
}

fn step(step: &Written) -> Step {
    let role = role(&step.kind);
    Step {
        name: step.name.clone(),
        stage: step.stage,
        role,
        kind: kind(&step.kind).to_owned(),
        needs: step.needs.clone(),
        at: match step.at {
            At::Operator => Place::Operator,
            At::Runner => Place::Runner,
        },
        timeout_seconds: step.timeout.as_secs().max(1),
        on_failure: if step.goes_on {
            OnFailure::Continue
        } else {
            OnFailure::Stop
        },
        retries: step.retries,
        takes_back: takes_back(step),
        guards_itself: guards_itself(&step.kind),
    }
}

/// The site that a step fences, by whatever means.
pub fn fences(kind: &Kind) -> Option<Site> {
    match role(kind) {
        Role::Fence(site) => Some(site),
        _ => None,
    }
}

fn role(kind: &Kind) -> Role {
    match kind {
        Kind::Terraform(terraform) if terraform.destroys => Role::Destroy,
        Kind::Restore(server) => Role::Restore(site(server.site)),
        Kind::Verify(server) => Role::Verify(site(server.site)),
        Kind::Open(server) => Role::Open(site(server.site)),
        Kind::Fence(server) => Role::Fence(site(server.site)),
        Kind::Unfence(server) => Role::Unfence(site(server.site)),
        Kind::LastBackup(server) => Role::LastBackup(site(server.site)),
        Kind::Preserve(preserve) => Role::Preserve(site(preserve.server.site)),
        Kind::Traffic(traffic) => Role::Traffic(site(traffic.site)),
        Kind::Command(command) => match command.means {
            Some(Means::Fence(of)) => Role::Fence(site(of)),
            Some(Means::Unfence(of)) => Role::Unfence(site(of)),
            Some(Means::Traffic(to)) => Role::Traffic(site(to)),
            Some(Means::Destroy) => Role::Destroy,
            None => Role::Work,
        },
        Kind::Terraform(_)
        | Kind::Accounts(_)
        | Kind::Manifests(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady
        | Kind::Http(_)
        | Kind::PrimaryReady(_)
        | Kind::Manual { .. } => Role::Work,
    }
}

/// As the configuration names it.
pub fn kind(kind: &Kind) -> &'static str {
    match kind {
        Kind::Terraform(_) => "terraform",
        Kind::Restore(_) => "restore",
        Kind::Verify(_) => "verify",
        Kind::Accounts(_) => "accounts",
        Kind::Open(server) => match server.site {
            Configured::Standby => "standby-open",
            Configured::Primary => "primary-open",
        },
        Kind::Fence(_) => "fence",
        Kind::Unfence(_) => "unfence",
        Kind::LastBackup(_) => "last-backup",
        Kind::Preserve(_) => "preserve",
        Kind::Manifests(_) => "manifests",
        Kind::MaintenancePage(_) => "maintenance-page",
        Kind::StoreReady => "store-ready",
        Kind::Http(_) => "http",
        Kind::Traffic(_) => "traffic",
        Kind::PrimaryReady(_) => "primary-ready",
        Kind::Command(_) => "command",
        Kind::Manual { .. } => "manual",
    }
}

/// What stands always is never taken back.
fn takes_back(step: &Written) -> bool {
    match &step.kind {
        Kind::Terraform(terraform) => step.stage > 1 && !terraform.destroys,
        Kind::Fence(_) | Kind::MaintenancePage(_) => true,
        Kind::Command(command) => !command.undo.is_empty(),
        Kind::Restore(_)
        | Kind::Verify(_)
        | Kind::Accounts(_)
        | Kind::Open(_)
        | Kind::Unfence(_)
        | Kind::LastBackup(_)
        | Kind::Preserve(_)
        | Kind::Manifests(_)
        | Kind::StoreReady
        | Kind::Http(_)
        | Kind::Traffic(_)
        | Kind::PrimaryReady(_)
        | Kind::Manual { .. } => false,
    }
}

/// Terraform has its state lock, a restore its hold on the target, a backup its lease, a page the version that it replaces;
/// what only looks harms nobody.
fn guards_itself(kind: &Kind) -> bool {
    match kind {
        Kind::Terraform(_)
        | Kind::Restore(_)
        | Kind::Verify(_)
        | Kind::Open(_)
        | Kind::LastBackup(_)
        | Kind::Preserve(_)
        | Kind::Manifests(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady
        | Kind::Http(_)
        | Kind::PrimaryReady(_)
        | Kind::Manual { .. } => true,
        // Whoever wakes up late would lock the application out of a site that serves by then.
        Kind::Accounts(_) => false,
        Kind::Fence(_) | Kind::Unfence(_) | Kind::Traffic(_) | Kind::Command(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_rehearsal_is_done_where_the_night_is_and_what_goes_with_its_server_keeps_nobody_waiting() {
        let text = include_str!("../../config/recovery.toml");
        let config = Config::parse(text).unwrap_or_else(|error| panic!("{error}"));
        let plan = rehearsal(&config.failover_steps);
        let told = |name: &str| plan.step(name).map(|step| (step.at, step.takes_back));
        assert_eq!(told("database"), Some((Place::Operator, true)));
        for name in ["restore", "compare", "accounts", "open"] {
            assert_eq!(told(name), Some((Place::Runner, false)), "{name}: its server goes");
        }
        // A server that stands anyway keeps what nobody takes off it.
        let text = text.replace("host = \"${database.host}\"\n", "");
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let plan = rehearsal(&config.failover_steps);
        let told = |name: &str| plan.step(name).map(|step| (step.at, step.takes_back));
        assert_eq!(told("restore"), Some((Place::Runner, true)));
        // The operator's own is taken back in its turn, also on a server that goes.
        let text = include_str!("../../config/recovery.toml").replace("at = \"runner\"\n", "");
        let config = Config::parse(&text).unwrap_or_else(|error| panic!("{error}"));
        let plan = rehearsal(&config.failover_steps);
        assert_eq!(plan.step("restore").map(|step| step.takes_back), Some(true));
    }
}
