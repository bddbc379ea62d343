//! What would fail tonight, with AWS and every public registry out of reach: judged from what was seen, worst first. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::{Finding, Severity};

mod certificates;
mod line;
mod seen;

pub use certificates::ends;
pub use line::line_of;

use crate::prepare::record::Looker;

pub use seen::{
    Certificate, Image, Manifests, Newest, Pulled, Quota, Reached, Root, Runner, Secret, Seen, Server, Tool,
    Unresolved, Went,
};

/// What only an operator may see is looked at before each quarterly drill.
const OPERATOR_SILENT: Duration = Duration::from_secs(100 * 86_400);

/// Judges it all: errors first, and among equals what stops a recovery earliest.
pub fn dark(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(newest(seen));
    findings.extend(prepared(seen));
    seen.tools.iter().for_each(|tool| findings.extend(self::tool(tool)));
    seen.roots.iter().for_each(|root| findings.extend(self::root(root)));
    findings.extend(seen.secrets.iter().filter_map(|one| secret(one, seen.looker)));
    findings.extend(runner(seen));
    seen.servers
        .iter()
        .for_each(|server| findings.extend(self::server(server, seen.looker)));
    findings.extend(seen.manifests.iter().flat_map(manifests));
    findings.extend(seen.images.iter().filter_map(|one| image(one, seen.looker)));
    for certificate in &seen.certificates {
        findings.extend(certificates::judge(certificate, seen));
    }
    findings.extend(quota(seen));
    findings.extend(unseen(seen));
    findings.extend(seen.needs_aws.iter().map(|step| {
        Finding::new(
            Severity::Warning,
            &format!("step {step}"),
            "it is AWS that has to do this, and AWS may be what is gone",
            "know the other way round: a DNS name or another edge, as a step of kind \"command\" with means = \"traffic\"; on the \
             night, --accept skip-STEP=REASON goes on without it",
        )
    }));
    // Stable: the order above stays among equals.
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn newest(seen: &Seen) -> Vec<Finding> {
    let found = |severity, what: String, remedy: &str| vec![Finding::new(severity, "backups", what, remedy)];
    match &seen.newest {
        Newest::Absent => found(
            Severity::Error,
            "there is no good backup: nothing could be restored".to_owned(),
            "planb backup; then planb backups says what is wrong with those that are there",
        ),
        Newest::Unread(why) => found(
            Severity::Error,
            format!("the newest backup cannot be read: {why}"),
            "planb verify says whether it is damaged; look at [store] and its login",
        ),
        Newest::Read { id, proven_at: None } => found(
            Severity::Warning,
            format!("{id} can be read, and no backup was ever restored and checked"),
            "planb verify --restore-to, or [verify] restore_to: without a proof, failover wants --accept backup-unproven",
        ),
        Newest::Read {
            id,
            proven_at: Some(at),
        } => found(
            Severity::Note,
            format!("{id} can be read; the newest proof is {} old", days(seen.now, *at)),
            "",
        ),
    }
}

fn prepared(seen: &Seen) -> Option<Finding> {
    let found = |severity, what: String| {
        let place = match seen.looker {
            Looker::Agent | Looker::Operator => "operator",
            Looker::Runner => "runner",
        };
        let remedy = format!("planb prepare --at {place}, on this machine");
        Some(Finding::new(severity, "prepared", what, remedy))
    };
    match &seen.prepared {
        Err(why) => found(Severity::Error, format!("what was prepared cannot be read: {why}")),
        Ok(None) => found(
            Severity::Warning,
            "nothing was ever prepared on this machine: what follows is what happens to be here".to_owned(),
        ),
        Ok(Some(at)) if age(seen.now, *at) > seen.max_age => found(
            Severity::Warning,
            format!("this machine was prepared {} ago", days(seen.now, *at)),
        ),
        Ok(Some(_)) => None,
    }
}

fn tool(tool: &Tool) -> Option<Finding> {
    let about = format!("step {}", tool.step);
    match (&tool.now, &tool.then) {
        (Err(why), _) => Some(Finding::new(
            Severity::Error,
            &about,
            format!("{}: {why}", tool.path),
            "put it on this machine, or correct its path in the step",
        )),
        (Ok(now), Some(then)) if now != then => Some(Finding::new(
            Severity::Warning,
            &about,
            format!("{} is {now} and was {then} when this machine was prepared", tool.path),
            "planb prepare once you know that the new one works",
        )),
        (Ok(_), _) => None,
    }
}

fn root(root: &Root) -> Vec<Finding> {
    let about = format!("step {}", root.step);
    let mut findings = Vec::new();
    let mut add = |severity, what: String, remedy: &str| findings.push(Finding::new(severity, &about, what, remedy));
    let refused = match root.refused.is_empty() {
        true => String::new(),
        false => format!(" (it asked for {}, which is out of reach)", root.refused.join(", ")),
    };
    match &root.went {
        Went::Failed { doing, why } => {
            let remedy = match (*doing, root.has_mirror) {
                ("init", true) => "planb prepare fetches what the mirror lacks",
                ("init", false) => "give the step mirror = \"/DIRECTORY\", then planb prepare",
                _ => "correct the configuration of this directory, or let [doctor] dark_allow name a host of your own",
            };
            add(
                Severity::Error,
                format!("{doing} of {} fails in the dark: {why}{refused}", root.dir),
                remedy,
            );
        }
        Went::Planned { changes } => add(
            Severity::Note,
            format!("{}: planned in the dark, {changes} changes", root.dir),
            "",
        ),
        Went::Valid { unknown } => add(
            Severity::Note,
            format!(
                "{}: providers are here and it is valid; not planned, since {} cannot be known yet",
                root.dir,
                unknown.join(", ")
            ),
            "",
        ),
        Went::Stateless { why } => add(
            Severity::Note,
            format!(
                "{}: providers are here and it is valid; not planned, since the agent may not read its state: {why}",
                root.dir
            ),
            "",
        ),
        Went::Initialised => {}
    }
    let is_failed = matches!(root.went, Went::Failed { .. });
    if !is_failed && !root.refused.is_empty() {
        add(
            Severity::Warning,
            format!(
                "it went on without {}, and may wait for it on the night",
                root.refused.join(", ")
            ),
            "remove what asks for it, or let [doctor] dark_allow name a host of your own",
        );
    }
    if !root.altered.is_empty() {
        add(
            Severity::Error,
            format!("its mirror is not as it was prepared: {}", root.altered.join(", ")),
            "planb prepare, and find out who changed it",
        );
    }
    if !is_failed && root.has_mirror && !root.has_lock_file {
        add(
            Severity::Warning,
            format!(
                "{} has no .terraform.lock.hcl: another version may come tomorrow",
                root.dir
            ),
            "planb prepare writes it; keep it with the code",
        );
    }
    findings
}

fn secret(secret: &Secret, looker: Looker) -> Option<Finding> {
    let unresolved = secret.went.as_ref().err()?;
    if looker == Looker::Agent && unresolved.is_refused {
        return Some(refused(&format!("{}: {}", secret.of, unresolved.why), "secrets"));
    }
    Some(Finding::new(
        Severity::Error,
        "secrets",
        format!("{}: {}", secret.of, unresolved.why),
        "put it where AWS is not needed, e.g. azure-keyvault:VAULT/NAME, and name that too",
    ))
}

fn manifests(seen: &Manifests) -> Vec<Finding> {
    let about = format!("step {}", seen.step);
    let mut findings = Vec::new();
    if let Err(why) = &seen.went {
        findings.push(Finding::new(
            Severity::Error,
            &about,
            format!("its manifests cannot be rendered: {why}"),
            "correct them, or give the step that variable",
        ));
    }
    if let Some(why) = &seen.kubeconfig {
        findings.push(Finding::new(
            Severity::Error,
            &about,
            format!("kubeconfig: {why}"),
            "put it there, or take an output of the step that makes the cluster",
        ));
    }
    findings
}

/// What the agent is not meant to read. An operator's look says whether it is there.
fn refused(what: &str, about: &str) -> Finding {
    Finding::new(
        Severity::Note,
        about,
        format!("the agent may not see it, an operator looks: {what}"),
        "",
    )
}

/// Somebody has to look at what the agent may not see.
fn unseen(seen: &Seen) -> Option<Finding> {
    let hides = seen
        .secrets
        .iter()
        .any(|one| matches!(&one.went, Err(unresolved) if unresolved.is_refused))
        || seen.images.iter().any(|one| matches!(one.went, Pulled::Refused(_)))
        || seen.roots.iter().any(|one| matches!(one.went, Went::Stateless { .. }))
        || matches!(seen.quota, Quota::Refused(_));
    if seen.looker != Looker::Agent || !hides {
        return None;
    }
    let what = match seen.operator_looked {
        None => "no operator ever looked at what the agent may not see".to_owned(),
        Some(at) if age(seen.now, at) > OPERATOR_SILENT => format!(
            "no operator has looked for {} at what the agent may not see",
            days(seen.now, at)
        ),
        Some(_) => return None,
    };
    Some(Finding::new(
        Severity::Warning,
        "operator",
        what,
        "planb doctor --dark, as whoever is on call, where they would type the failover",
    ))
}

fn image(image: &Image, looker: Looker) -> Option<Finding> {
    let about = format!("image {}", image.name);
    let (severity, what, remedy) = match &image.went {
        Pulled::There => return None,
        Pulled::Refused(why) if looker == Looker::Agent => return Some(refused(why, &about)),
        Pulled::Missing => (
            Severity::Error,
            "it is not in the second cloud's registry".to_owned(),
            "planb prepare copies it",
        ),
        Pulled::Unpinned => (
            Severity::Error,
            "it has no digest: what would run is not what was tried, if it can be pulled at all".to_owned(),
            "write IMAGE@sha256:… in the manifest",
        ),
        Pulled::Elsewhere => (
            Severity::Error,
            "it comes from a registry that may be out of reach".to_owned(),
            "name it in [prepare] registry's registry, with a line of [prepare] sources; planb prepare copies it",
        ),
        Pulled::Nonsense => (
            Severity::Error,
            "it is no name of an image".to_owned(),
            "write REGISTRY/REPOSITORY@sha256:…",
        ),
        Pulled::Unknown(why) | Pulled::Refused(why) => (
            Severity::Error,
            format!("the registry cannot be asked: {why}"),
            "look at [prepare] registry and its login",
        ),
    };
    Some(Finding::new(severity, &about, what, remedy))
}

fn runner(seen: &Seen) -> Vec<Finding> {
    let found = |severity, what: String, remedy: &str| Finding::new(severity, "runner", what, remedy);
    match &seen.runner {
        Runner::NotNeeded => Vec::new(),
        Runner::Silent => vec![found(
            Severity::Error,
            "the plan has steps for a runner, and none has ever said that it is there".to_owned(),
            "start `planb runner` inside the second cloud's network; `planb doctor --dark --at runner` there says the same at once",
        )],
        Runner::Unread(why) => vec![found(
            Severity::Error,
            format!("what the runner last said cannot be read: {why}"),
            "planb doctor --dark --at runner, there",
        )],
        Runner::Said {
            at,
            host,
            errors,
            worst,
        } => {
            let mut findings = Vec::new();
            if age(seen.now, *at) > seen.runner_max_age {
                findings.push(found(
                    Severity::Error,
                    format!("{host} last looked {} ago: is it still there?", days(seen.now, *at)),
                    "start `planb runner` there, it looks at once; one that rests by day wants a longer [doctor] runner_max_age",
                ));
            }
            if *errors > 0 {
                findings.push(found(
                    Severity::Error,
                    format!(
                        "{host} found {errors} things that would fail there: {}",
                        worst.join("; ")
                    ),
                    "planb doctor --dark --at runner, there, says what to do",
                ));
            }
            findings
        }
    }
}

fn server(server: &Server, looker: Looker) -> Option<Finding> {
    let place = looker.word();
    match (&server.went, server.site) {
        (Reached::Yes, site) => Some(Finding::new(
            Severity::Note,
            site,
            format!("the {place} reaches it, and may log in"),
            "",
        )),
        (Reached::NotYet, site) => Some(Finding::new(
            Severity::Note,
            site,
            "whether it is reached cannot be known before stage 2",
            "",
        )),
        (Reached::No(why), "primary") if looker == Looker::Agent => Some(Finding::new(
            Severity::Warning,
            "primary",
            format!("the agent raises a fence that is owed there, and does not reach it: {why}"),
            "let the agent have [primary]'s password as well, and open its way there; config/grants-fence.sql makes the account",
        )),
        // A failback is not tonight.
        (Reached::No(why), "primary") => Some(Finding::new(
            Severity::Warning,
            "primary",
            format!("the {place} brings the service home, and does not reach it: {why}"),
            "open the way from here to the primary's database, or give those steps another place (at = …); config/grants-fence.sql \
             makes the account",
        )),
        (Reached::No(why), site) => Some(Finding::new(
            Severity::Error,
            site,
            format!("the {place} does not reach it: {why}"),
            "open the way, or correct the account; config/grants-standby.sql makes it",
        )),
    }
}

fn quota(seen: &Seen) -> Vec<Finding> {
    match &seen.quota {
        Quota::NotAsked => Vec::new(),
        Quota::Refused(why) if seen.looker == Looker::Agent => vec![refused(why, "quota")],
        Quota::Refused(why) | Quota::Unknown(why) => vec![Finding::new(
            Severity::Warning,
            "quota",
            format!("it cannot be asked: {why}"),
            "give the identity \"Reader\" on the subscription, and correct [quota]",
        )],
        Quota::Known(lacks) => lacks
            .iter()
            .map(|lack| {
                Finding::new(
                    Severity::Error,
                    "quota",
                    lack.clone(),
                    "ask for more in the portal (it takes days, so not on the night), or take another size or region",
                )
            })
            .collect(),
    }
}

fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn days(now: Timestamp, then: Timestamp) -> String {
    let seconds = age(now, then).as_secs();
    match seconds {
        0..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
#[path = "dark_tests.rs"]
mod tests;
