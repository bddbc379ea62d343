//! `planb prepare`: fetches beforehand what a recovery needs, writes down what was fetched, and says what would still fail tonight.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::{Common, dark, open};
use crate::backup::{claim, lease};
use crate::config::Config;
use crate::config::steps::{At, Terraform as Written};
use crate::doctor::{Finding, Severity};
use crate::kubernetes::Cluster;
use crate::prepare::copy::{Copied, Side, copy};
use crate::prepare::image::Image;
use crate::prepare::record::{self, Mirror, Prepared};
use crate::prepare::registry::{Login, Registry};
use crate::recovery::state::Standing;
use crate::secret::Secret;
use crate::secret::resolver::Resolver;
use crate::terraform;

#[derive(Debug, Args)]
pub struct PrepareArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Platforms whose providers are fetched, e.g. linux_amd64; default: [prepare] platforms, else this machine's
    #[arg(long, value_name = "OS_ARCH")]
    platform: Vec<String>,
}

/// Whose steps are meant.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// Whose steps: operator or runner (as the steps' `at` says)
    #[arg(long = "at", value_name = "PLACE", value_parser = ["operator", "runner"], default_value = "operator")]
    at: String,
}

impl PlaceArgs {
    pub fn place(&self) -> At {
        match self.at.as_str() {
            "runner" => At::Runner,
            _ => At::Operator,
        }
    }
}

/// What is done, as it is done.
struct Told {
    json: bool,
    failures: Vec<String>,
}

impl Told {
    fn done(&self, text: &str) {
        if !self.json {
            println!("{text}");
        }
    }

    fn failed(&mut self, what: &str, why: &str) {
        let text = format!("{what}: {why}");
        if !self.json {
            println!("FAILED   {text}");
        }
        self.failures.push(text);
    }
}

pub async fn run(common: &Common, args: &PrepareArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let place = args.place.place();
    if config.failover_steps.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[failover_steps]]: there is no plan to prepare; config/recovery.toml has one"
                .to_owned(),
        ));
    }
    let stores = open::stores_for_a_person(&config).await?;
    let cancel = CancellationToken::new();
    let resolver = Resolver::for_config(&config);
    let standing = open::journal(&config, &stores)
        .known()
        .await
        .map(|known| known.standing);
    let standing = standing.map_err(|error| Failure::failed(told(&error)))?;
    let mut told = Told {
        json: common.json,
        failures: Vec::new(),
    };
    let work = async {
        let mut prepared = Prepared {
            v: 1,
            host: lease::host_name(),
            planb: env!("CARGO_PKG_VERSION").to_owned(),
            ..Prepared::default()
        };
        prepared.tools = tools(&config, place, &mut told, &cancel).await;
        prepared.mirrors = providers(&config, place, args, &mut told, &cancel).await;
        prepared.images = images(&config, &resolver, &standing, place, &mut told).await;
        prepared.at = stores.backups.now().await?;
        let name = record::prepared_name(&claim::key(&config.store.prefix), &prepared.host);
        record::write(stores.control.as_ref(), &name, &prepared).await?;
        Ok::<_, Failure>(prepared)
    };
    let prepared = tokio::select! {
        done = work => done?,
        () = super::backup::interrupted() => {
            cancel.cancel();
            return Err(Failure::StoppedPartWay(
                "stopped; what was fetched stays, and the same command goes on from there".to_owned(),
            ));
        }
    };
    let mut findings = differences(&config, &prepared, &mut told).await;
    told.done("looking at it as on the night …");
    findings.extend(dark::look(&config, dark::person_at(place)).await.findings);
    findings.sort_by_key(|finding| finding.severity);
    finish(&told, &prepared, &findings)
}

fn finish(told: &Told, prepared: &Prepared, findings: &[Finding]) -> Result<(), Failure> {
    let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
    if told.json {
        let list: Vec<_> = findings.iter().map(super::doctor::finding_json).collect();
        println!(
            "{}",
            json!({"v": 1, "prepared": prepared, "failures": told.failures, "findings": list})
        );
    } else {
        findings
            .iter()
            .filter(|finding| finding.severity != Severity::Note)
            .for_each(super::doctor::print_finding);
        println!(
            "prepared {} images, {} directories, {} programs on {}; {} failed, {errors} things would fail tonight",
            prepared.images.len(),
            prepared.mirrors.len(),
            prepared.tools.len(),
            prepared.host,
            told.failures.len()
        );
    }
    if told.failures.is_empty() && errors == 0 {
        return Ok(());
    }
    Err(Failure::Printed {
        exit: 1,
        message: format!(
            "{} things could not be prepared, {errors} would fail tonight",
            told.failures.len()
        ),
    })
}

async fn tools(config: &Config, place: At, told: &mut Told, cancel: &CancellationToken) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (step, path, now) in dark::programs(config, place, cancel).await {
        match now {
            Ok(now) => {
                told.done(&format!("program  {path}: {now}"));
                found.insert(path, now);
            }
            Err(why) => told.failed(&format!("step {step}: {path}"), &why),
        }
    }
    found
}

async fn providers(
    config: &Config,
    place: At,
    args: &PrepareArgs,
    told: &mut Told,
    cancel: &CancellationToken,
) -> Vec<Mirror> {
    let platforms = match (args.platform.is_empty(), config.prepare.platforms.is_empty()) {
        (false, _) => args.platform.clone(),
        (true, false) => config.prepare.platforms.clone(),
        (true, true) => vec![this_platform()],
    };
    let mut found = Vec::new();
    for (step, written) in dark::terraform_roots(config, place) {
        match of_one(step, written, &platforms, cancel).await {
            Ok(mirror) => {
                told.done(&format!(
                    "terraform {}: {} packages in {}",
                    mirror.dir,
                    mirror.packages.len(),
                    mirror.mirror
                ));
                found.push(mirror);
            }
            Err(why) => told.failed(&format!("step {step}: {}", written.dir.display()), &why),
        }
    }
    found
}

async fn of_one(
    step: &str,
    written: &Written,
    platforms: &[String],
    cancel: &CancellationToken,
) -> Result<Mirror, String> {
    let data_dir = TempDir::new().map_err(|error| error.to_string())?;
    let terraform = dark::environment_of(written, data_dir.path());
    let modules = terraform.modules(cancel).await.map_err(|error| format!("{error}"))?;
    let remote: Vec<String> = modules
        .iter()
        .filter(|module| module.is_remote())
        .map(|module| format!("module {} from {}", module.call, module.source))
        .collect();
    if !remote.is_empty() {
        return Err(format!(
            "{}: nobody may have that on the night; copy it below the directory, and write source = \"./modules/NAME\"",
            remote.join(", ")
        ));
    }
    let Some(mirror) = &written.mirror else {
        return Err(format!(
            "step {step} has no mirror, so its providers come from a registry; write mirror = \"/var/lib/planb/providers\""
        ));
    };
    terraform
        .fetch_providers(platforms, cancel)
        .await
        .map_err(|error| format!("{error}"))?;
    let packages = terraform::packages(mirror).map_err(|error| format!("{}: {error}", mirror.display()))?;
    Ok(Mirror {
        dir: written.dir.display().to_string(),
        mirror: mirror.display().to_string(),
        packages,
    })
}

/// As Terraform names it.
fn this_platform() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        other => other,
    };
    format!("{system}_{machine}")
}

/// Those that are in the second cloud's registry afterwards.
async fn images(config: &Config, resolver: &Resolver, standing: &Standing, place: At, told: &mut Told) -> Vec<String> {
    let names = dark::manifests_images(config, standing, place);
    let mut there = Vec::new();
    if names.is_empty() {
        return there;
    }
    let to = match dark::registry(config, resolver).await {
        Some(Ok(registry)) => registry,
        Some(Err(why)) => {
            told.failed("[prepare] registry", &why);
            return there;
        }
        // Told as a finding of each image.
        None => return there,
    };
    for name in names {
        match one_image(config, resolver, &to, &name).await {
            Ok(Some(copied)) => {
                told.done(&match copied.manifests {
                    0 => format!("image    {name}: there"),
                    _ => format!("image    {name}: copied, {} layers were missing", copied.blobs),
                });
                there.push(name);
            }
            // Told as a finding: unpinned, or of another registry.
            Ok(None) => {}
            Err(why) => told.failed(&format!("image {name}"), &why),
        }
    }
    there
}

async fn one_image(config: &Config, resolver: &Resolver, to: &Registry, name: &str) -> Result<Option<Copied>, String> {
    let Some(image) = Image::parse(name).filter(|image| image.registry == to.host) else {
        return Ok(None);
    };
    let Some(digest) = &image.digest else { return Ok(None) };
    if to
        .has_manifest(&image.repository, digest)
        .await
        .map_err(|error| error.to_string())?
    {
        return Ok(Some(Copied::default()));
    }
    let source = config
        .prepare
        .sources
        .iter()
        .find(|(there, _)| *there == image.repository);
    let (_, source) = source.ok_or_else(|| {
        format!(
            "it is not there, and nobody says where it comes from: add \"{}=REGISTRY/REPOSITORY\" to [prepare] sources",
            image.repository
        )
    })?;
    let source = Image::parse(source).ok_or_else(|| format!("[prepare] sources: {source} is no image"))?;
    let login = config
        .prepare
        .source_logins
        .iter()
        .find(|(registry, _, _)| *registry == source.registry);
    let login = match login {
        None => Login::Anonymous,
        Some((_, user, password)) => Login::Password {
            user: user.clone(),
            password: resolver.resolve(password).await.map_err(|error| error.to_string())?,
        },
    };
    let from = Registry::new(&source.registry, login).map_err(|error| error.to_string())?;
    let progress = |text: &str| tracing::info!("{text}");
    let from = Side {
        registry: &from,
        repository: &source.repository,
    };
    let to = Side {
        registry: to,
        repository: &image.repository,
    };
    let copied = copy(from, to, digest, &progress).await;
    copied.map(Some).map_err(|error| error.to_string())
}

/// Whether production runs what the second site would.
async fn differences(config: &Config, prepared: &Prepared, told: &mut Told) -> Vec<Finding> {
    let Some(path) = &config.prepare.production_kubeconfig else {
        return Vec::new();
    };
    let text = match tokio::fs::read_to_string(path).await {
        Ok(text) => Secret::new(text),
        Err(error) => {
            told.failed("[prepare] production_kubeconfig", &error.to_string());
            return Vec::new();
        }
    };
    let running = async {
        let cluster = Cluster::connect(&text, 0).await?;
        cluster.running_images().await
    };
    let running: Vec<Image> = match running.await {
        Ok(running) => running.iter().filter_map(|name| Image::parse(name)).collect(),
        Err(error) => {
            told.failed("production's cluster", &error.to_string());
            return Vec::new();
        }
    };
    prepared
        .images
        .iter()
        .filter_map(|name| difference(config, name, &running))
        .collect()
}

fn difference(config: &Config, name: &str, running: &[Image]) -> Option<Finding> {
    let image = Image::parse(name)?;
    let source = config
        .prepare
        .sources
        .iter()
        .find(|(there, _)| *there == image.repository);
    let source = source.and_then(|(_, source)| Image::parse(source));
    let is_it = |one: &&Image| {
        let from = |of: &Image| one.registry == of.registry && one.repository == of.repository;
        from(&image) || source.as_ref().is_some_and(from)
    };
    let of_it: BTreeSet<&str> = running
        .iter()
        .filter(is_it)
        .filter_map(|one| one.digest.as_deref())
        .collect();
    let digest = image.digest.as_deref()?;
    if of_it.contains(digest) {
        return None;
    }
    let what = match of_it.is_empty() {
        true => "production runs nothing that comes from the same place".to_owned(),
        false => format!(
            "production runs another one: {}",
            of_it.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    Some(Finding::new(
        Severity::Warning,
        &format!("image {name}"),
        what,
        "put production's digest into the manifests, try it, and planb prepare again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_is_compared_by_digest_wherever_the_image_was_pulled_from() {
        let text = "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n[store]\nurl = \"file:///s\"\n\
                    [prepare]\nregistry = \"dr.example\"\nsources = [\"was/app=prod.example/team/app\"]\n";
        let config = Config::parse(text).expect("valid");
        let digest = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let name = format!("dr.example/was/app@{}", digest("0a"));
        let run = |byte: &str| Image::parse(&format!("prod.example/team/app@{}", digest(byte))).expect("an image");
        assert_eq!(difference(&config, &name, &[run("0b"), run("0a")]), None);
        let told = difference(&config, &name, &[run("0b")]).expect("a finding");
        assert!(told.what.contains(&digest("0b")), "{told:?}");
        let none = difference(&config, &name, &[]).expect("a finding");
        assert!(none.what.contains("nothing"), "{none:?}");
    }
}
