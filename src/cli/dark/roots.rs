//! Terraform's directories and the programs of a plan, looked at as on the night: providers from the mirror alone, everything else
//! behind the proxy that says no.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::super::failure::told;
use crate::config::steps::{At, Kind, Terraform as Written};
use crate::config::{Config, Place};
use crate::doctor::dark::{Root, Tool, Went};
use crate::prepare::record::{Looker, Prepared};
use crate::proxy::{AZURE, Proxy, Upstream};
use crate::recovery::state::Standing;
use crate::secret::resolver::Resolver;
use crate::steps::values::known;
use crate::terraform::{self, Error, Terraform};

/// One directory, initialised and planned.
const WITHIN: Duration = Duration::from_secs(10 * 60);

/// A directory once, with the step that applies it if there is one.
pub fn terraform_roots(config: &Config, place: At) -> Vec<(&str, &Written)> {
    let mut found: Vec<(&str, &Written)> = Vec::new();
    for step in super::steps_of(config, place) {
        let Kind::Terraform(written) = &step.kind else { continue };
        // What is destroyed on the way home was applied on the way out, in most plans.
        let is_known = found
            .iter()
            .any(|(_, one)| one.dir == written.dir && (!one.destroys || written.destroys));
        if !is_known {
            found.push((&step.name, written));
        }
    }
    found
}

/// Terraform on one directory, with nothing of a step's values yet, and a place of its own for what it unpacks.
pub fn environment_of(written: &Written, data_dir: &Path) -> Terraform {
    let mut terraform = Terraform::new(&written.dir, data_dir);
    terraform.program.clone_from(&written.program);
    terraform.mirror.clone_from(&written.mirror);
    terraform.pass.clone_from(&written.environment);
    terraform
}

/// Each program that a step of `place` runs, with that step's name; Terraform's own as its version tells.
pub async fn programs(
    config: &Config,
    place: At,
    cancel: &CancellationToken,
) -> Vec<(String, String, Result<String, String>)> {
    let mut found: Vec<(String, String, Result<String, String>)> = Vec::new();
    for step in super::steps_of(config, place) {
        let (path, now) = match &step.kind {
            Kind::Terraform(written) => {
                let path = written.program.as_ref().map(|path| path.display().to_string());
                let path = path.unwrap_or_else(|| "terraform or tofu on PATH".to_owned());
                if found.iter().any(|(_, known, _)| *known == path) {
                    continue;
                }
                (path, version(written, cancel).await)
            }
            Kind::Command(command) => {
                let path = command.program.display().to_string();
                if found.iter().any(|(_, known, _)| *known == path) {
                    continue;
                }
                // Never run: it may do what it is for.
                (path, hash(&command.program))
            }
            Kind::MaintenancePage(one) => {
                let there = one.page.exists().then(|| "there".to_owned());
                (
                    one.page.display().to_string(),
                    there.ok_or_else(|| "it is not on this machine".to_owned()),
                )
            }
            _ => continue,
        };
        found.push((step.name.clone(), path, now));
    }
    found
}

async fn version(written: &Written, cancel: &CancellationToken) -> Result<String, String> {
    let dir = TempDir::new().map_err(|error| error.to_string())?;
    let version = environment_of(written, dir.path()).version(cancel).await;
    version.map_err(|error| told(&error))
}

fn hash(program: &Path) -> Result<String, String> {
    use std::os::unix::fs::PermissionsExt as _;
    let found = program.metadata().map_err(|_| "it is not on this machine".to_owned())?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err("it is no program that may be run".to_owned());
    }
    let hash = terraform::hash_of(program).map_err(|error| format!("it cannot be read: {error}"))?;
    Ok(format!("sha256 {}", &hash[..16]))
}

pub async fn tools(config: &Config, place: At, prepared: Option<&Prepared>, cancel: &CancellationToken) -> Vec<Tool> {
    let then = |path: &str| prepared.and_then(|prepared| prepared.tools.get(path).cloned());
    let found = programs(config, place, cancel).await;
    found
        .into_iter()
        .map(|(step, path, now)| Tool {
            then: then(&path),
            step,
            path,
            now,
        })
        .collect()
}

pub async fn look(
    config: &Config,
    resolver: &Resolver,
    standing: &Standing,
    looker: Looker,
    prepared: Option<&Prepared>,
    cancel: &CancellationToken,
) -> Vec<Root> {
    let mut found = Vec::new();
    let roots = terraform_roots(config, super::place_of(looker));
    if roots.is_empty() {
        return found;
    }
    let proxy = match Upstream::of_environment(|name| std::env::var(name).ok()) {
        Ok(upstream) => Proxy::start(allowed(config), upstream)
            .await
            .map_err(|error| error.to_string()),
        Err(why) => Err(why),
    };
    for (step, written) in roots {
        let lock_file = written.dir.join(".terraform.lock.hcl");
        let had_lock_file = lock_file.exists();
        let went = match &proxy {
            Ok(proxy) => {
                let cancel = cancel.child_token();
                let stop = async {
                    tokio::time::sleep(WITHIN).await;
                    cancel.cancel();
                    // Whoever is cancelled ends within its own patience.
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    went = rehearse(written, resolver, standing, looker, proxy, &cancel) => went,
                    () = stop => failed("look", "it was not over in time".to_owned()),
                }
            }
            Err(error) => failed("init", format!("no proxy could be started: {error}")),
        };
        // Written where there is a provider to write down; a look leaves nothing behind.
        let was_written = !had_lock_file && std::fs::remove_file(&lock_file).is_ok();
        found.push(Root {
            step: step.to_owned(),
            dir: written.dir.display().to_string(),
            went,
            refused: proxy.as_ref().map(Proxy::refused).unwrap_or_default(),
            has_mirror: written.mirror.is_some(),
            has_lock_file: !was_written,
            altered: altered(written, prepared),
        });
    }
    found
}

fn failed(doing: &'static str, why: String) -> Went {
    Went::Failed { doing, why }
}

async fn rehearse(
    written: &Written,
    resolver: &Resolver,
    standing: &Standing,
    looker: Looker,
    proxy: &Proxy,
    cancel: &CancellationToken,
) -> Went {
    // From nothing: what an earlier run unpacked on this machine proves nothing for another.
    let data_dir = match TempDir::new() {
        Ok(dir) => dir,
        Err(error) => return failed("init", format!("there is no place to work in: {error}")),
    };
    let mut terraform = environment_of(written, data_dir.path()).in_the_dark(proxy.url());
    let mut unknown = BTreeSet::new();
    for (name, value) in &written.variables {
        match known(value, &standing.outputs) {
            Ok(value) => match given(&value) {
                Ok(value) => drop(terraform.variables.insert(name.clone(), value)),
                Err(why) => return failed("init", format!("variable {name} is no JSON: {why}")),
            },
            Err(names) => unknown.extend(names),
        }
    }
    let mut backend_known = true;
    for (name, value) in &written.backend {
        match known(value, &standing.outputs) {
            Ok(value) => drop(terraform.backend.insert(name.clone(), value)),
            Err(names) => {
                backend_known = false;
                unknown.extend(names);
            }
        }
    }
    for (name, reference) in &written.secrets {
        match resolver.resolve_without_aws(reference).await {
            Ok(secret) => drop(terraform.secrets.insert(name.clone(), secret)),
            // Told with the secrets.
            Err(_) => drop(unknown.insert(format!("the secret {name}"))),
        }
    }
    if !backend_known {
        return Went::Valid {
            unknown: unknown.into_iter().collect(),
        };
    }
    if let Err(error) = terraform.init(cancel).await {
        let why = init_error(&error);
        // States are the operators'. Whether modules and providers are here, an agent can see all the same.
        let stateless = terraform.clone().without_state();
        if looker == Looker::Agent && stateless.init(cancel).await.is_ok() {
            return match stateless.validate(cancel).await {
                Ok(()) => Went::Stateless { why },
                Err(error) => failed("validate", told(&error)),
            };
        }
        return failed("init", why);
    }
    if written.destroys {
        return Went::Initialised;
    }
    if !unknown.is_empty() {
        return match terraform.validate(cancel).await {
            Ok(()) => Went::Valid {
                unknown: unknown.into_iter().collect(),
            },
            Err(error) => failed("validate", told(&error)),
        };
    }
    match terraform.plan(cancel).await {
        Ok(changes) => Went::Planned {
            changes: changes.add + changes.change + changes.destroy,
        },
        Err(error) => failed("plan", told(&error)),
    }
}

/// The finding has a remedy of its own.
fn init_error(error: &Error) -> String {
    match error {
        Error::Init { detail, .. } => detail.split_whitespace().collect::<Vec<_>>().join(" "),
        error => told(error),
    }
}

/// A list or an object stands as JSON.
fn given(value: &str) -> Result<Value, serde_json::Error> {
    match value.trim_start().starts_with(['[', '{']) {
        true => serde_json::from_str(value),
        false => Ok(Value::String(value.to_owned())),
    }
}

/// Hosts that the second cloud is made of.
fn allowed(config: &Config) -> Vec<String> {
    let mut allowed: Vec<String> = AZURE.map(str::to_owned).to_vec();
    allowed.extend(config.doctor.dark_allow.iter().cloned());
    if let Place::Azure {
        endpoint: Some(endpoint),
        ..
    } = &config.store.place
    {
        allowed.extend(endpoint.host_str().map(str::to_owned));
    }
    allowed
}

/// Packages that the record has and the mirror has not, or not so.
fn altered(written: &Written, prepared: Option<&Prepared>) -> Vec<String> {
    let Some((mirror, prepared)) = written.mirror.as_ref().zip(prepared) else {
        return Vec::new();
    };
    let of = |path: &PathBuf| path.display().to_string();
    let then: BTreeMap<&String, &String> = prepared
        .mirrors
        .iter()
        .filter(|one| one.mirror == of(mirror) && one.dir == of(&written.dir))
        .flat_map(|one| &one.packages)
        .collect();
    let now = terraform::packages(mirror).unwrap_or_default();
    then.into_iter()
        .filter(|(name, hash)| now.get(*name) != Some(*hash))
        .map(|(name, _)| name.clone())
        .collect()
}
