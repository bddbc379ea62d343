//! From the configured steps to the plan that is decided on: what each kind means for the safety of the data. Pure.

use sha2::{Digest, Sha256};

use crate::config::steps::{At, Kind, Means, Site as Configured, Step as Written};
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

/// The steps of a rehearsal: none means anything for who serves, all are done by who began it, and whatever was begun is taken back.
pub fn rehearsal(steps: &[Written]) -> Plan {
    let mut plan = plan(steps);
    for step in &mut plan.steps {
        if !matches!(step.role, Role::Restore(_) | Role::Verify(_)) {
            step.role = Role::Work;
        }
        step.at = Place::Operator;
        step.takes_back = true;
        // Whoever takes over a rehearsal does so to clear it away.
        step.guards_itself = true;
    }
    plan
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
            _ => {}
        }
    }
    mistakes
}

/// SHA-256 (hex) of everything that the configuration says of the steps of `plan`: whoever goes on must do the same.
pub fn digest(steps: &[Written], plan: &Plan) -> String {
    let mut hash = Sha256::new();
    for step in steps.iter().filter(|step| plan.step(&step.name).is_some()) {
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
