//! What of a plan is neither Terraform's nor a secret: manifests and their images, certificates, databases, quota.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::Client;
use reqwest::tls::TlsInfo;

use super::super::failure::told;
use super::super::target;
use crate::config::steps::{At, Http, Kind, Manifests as Written, Server as Named, Site};
use crate::config::{Config, RegistryLogin, Standby};
use crate::doctor::dark::{Certificate, Image, Manifests, Pulled, Quota, Reached, Server};
use crate::kubernetes;
use crate::prepare::certificate;
use crate::prepare::image::{Image as Name, named_in};
use crate::prepare::quota::{QuotaError, lacks, supply};
use crate::prepare::record::Looker;
use crate::prepare::registry::{Login, Registry, RegistryError};
use crate::recovery::state::Standing;
use crate::secret::Secret;
use crate::secret::resolver::Resolver;
use crate::steps::values::known;

/// One TLS greeting.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// What stands for a value that an earlier stage will give: text and number alike.
const STAND_IN: &str = "1";

type Read = Result<Vec<(String, Timestamp, Timestamp)>, String>;

/// The manifests of every step, and the images they name.
pub async fn manifests(
    config: &Config,
    resolver: &Resolver,
    standing: &Standing,
    place: At,
) -> (Vec<Manifests>, Vec<Image>) {
    let mut seen = Vec::new();
    for step in super::steps_of(config, place) {
        let Kind::Manifests(written) = &step.kind else { continue };
        let went = rendered(written, standing).map(|all| all.len());
        seen.push(Manifests {
            step: step.name.clone(),
            went,
            kubeconfig: kubeconfig(&written.kubeconfig, standing).await,
        });
    }
    let names = manifests_images(config, standing, place);
    let images = images(config, resolver, &names).await;
    (seen, images)
}

fn rendered(written: &Written, standing: &Standing) -> Result<Vec<kubernetes::Manifest>, String> {
    let variables: BTreeMap<String, String> = written
        .variables
        .iter()
        .map(|(name, value)| {
            let value = known(value, &standing.outputs).unwrap_or_else(|_| STAND_IN.to_owned());
            (name.clone(), value)
        })
        .collect();
    kubernetes::read_dir(&written.dir, &variables).map_err(|error| told(&error))
}

/// Every image that manifests of `place` name, once.
pub fn manifests_images(config: &Config, standing: &Standing, place: At) -> BTreeSet<String> {
    let steps = super::steps_of(config, place);
    let written = steps.filter_map(|step| match &step.kind {
        Kind::Manifests(written) => Some(written),
        _ => None,
    });
    written
        .filter_map(|written| rendered(written, standing).ok())
        .flatten()
        .flat_map(|manifest| named_in(&manifest.body))
        .collect()
}

/// Why a kubeconfig that is known by now cannot be used.
async fn kubeconfig(text: &str, standing: &Standing) -> Option<String> {
    let text = known(text, &standing.outputs).ok()?;
    let read = match Path::new(&text).is_absolute() {
        true => match tokio::fs::read_to_string(&text).await {
            Ok(read) => Secret::new(read),
            Err(error) => return Some(format!("{text}: {error}")),
        },
        false => Secret::new(text),
    };
    kubernetes::Cluster::connect(&read, 0)
        .await
        .err()
        .map(|error| told(&error))
}

/// The second cloud's registry; nothing is asked yet but a token, where its login is one of Azure's.
pub async fn registry(config: &Config, resolver: &Resolver) -> Option<Result<Registry, String>> {
    let host = config.prepare.registry.as_ref()?;
    let login = match &config.prepare.registry_login {
        RegistryLogin::Anonymous => Ok(Login::Anonymous),
        RegistryLogin::Azure => {
            let token = resolver.azure_token("https://management.azure.com/.default").await;
            token.map(Login::Entra).map_err(|error| error.to_string())
        }
        RegistryLogin::Password { user, password } => {
            let password = resolver.resolve_without_aws(password).await;
            password
                .map(|password| Login::Password {
                    user: user.clone(),
                    password,
                })
                .map_err(|error| format!("[prepare] registry_password: {error}"))
        }
    };
    Some(login.and_then(|login| Registry::new(host, login).map_err(|error| error.to_string())))
}

/// Whether each can be pulled from the second cloud's registry and from nowhere else.
pub async fn images(config: &Config, resolver: &Resolver, names: &BTreeSet<String>) -> Vec<Image> {
    let registry = match names.is_empty() {
        true => None,
        false => registry(config, resolver).await,
    };
    let mut seen = Vec::new();
    for name in names {
        seen.push(Image {
            name: name.clone(),
            went: pulled(name, registry.as_ref()).await,
        });
    }
    seen
}

async fn pulled(name: &str, registry: Option<&Result<Registry, String>>) -> Pulled {
    let Some(image) = Name::parse(name) else {
        return Pulled::Nonsense;
    };
    let Some(digest) = &image.digest else {
        return Pulled::Unpinned;
    };
    match registry {
        None => Pulled::Elsewhere,
        Some(Err(why)) => Pulled::Unknown(why.clone()),
        Some(Ok(registry)) if registry.host != image.registry => Pulled::Elsewhere,
        Some(Ok(registry)) => match registry.has_manifest(&image.repository, digest).await {
            Ok(true) => Pulled::There,
            Ok(false) => Pulled::Missing,
            Err(error @ RegistryError::Denied { .. }) => Pulled::Refused(told(&error)),
            Err(error) => Pulled::Unknown(told(&error)),
        },
    }
}

/// Of PEM text.
pub fn read(text: &str) -> Read {
    let all = certificate::of_pem(text).map_err(str::to_owned)?;
    Ok(all.into_iter().map(|one| (one.subject, one.from, one.until)).collect())
}

/// Every certificate that a recovery checks, or is checked by.
pub async fn certificates(config: &Config, standing: &Standing, looker: Looker) -> Vec<Certificate> {
    let mut files: BTreeMap<PathBuf, &'static str> = BTreeMap::new();
    let mut add = |path: Option<&PathBuf>, key| {
        if let Some(path) = path {
            files.entry(path.clone()).or_insert(key);
        }
    };
    if looker == Looker::Agent {
        add(config.source.tls_ca.as_ref(), "[source] tls_ca");
    }
    add(
        config.standby.as_ref().and_then(|server| server.tls_ca.as_ref()),
        "[standby] tls_ca",
    );
    add(
        config.primary.as_ref().and_then(|server| server.tls_ca.as_ref()),
        "[primary] tls_ca",
    );
    let steps = || config.failover_steps.iter().chain(&config.failback_steps);
    let asked: Vec<&Http> = steps()
        .filter_map(|step| match &step.kind {
            Kind::Http(http) => Some(http),
            _ => None,
        })
        .collect();
    for http in &asked {
        add(http.tls_ca.as_ref(), "a step's tls_ca");
    }
    let mut seen = Vec::new();
    for (path, key) in files {
        let text = tokio::fs::read_to_string(&path).await;
        seen.push(Certificate {
            at: format!("{key} {}", path.display()),
            read: text.map_err(|error| error.to_string()).and_then(|text| read(&text)),
        });
    }
    for (url, tls_ca) in asked_over_https(config, standing) {
        seen.extend(greet(&url, tls_ca.as_deref()).await);
    }
    seen
}

/// What the plan's steps ask over https, as far as it is known yet: one address of each host, and who signed for it.
pub fn asked_over_https(config: &Config, standing: &Standing) -> Vec<(String, Option<PathBuf>)> {
    let mut hosts = BTreeSet::new();
    let steps = config.failover_steps.iter().chain(&config.failback_steps);
    let asked = steps.filter_map(|step| {
        let Kind::Http(http) = &step.kind else { return None };
        let url = known(&http.url, &standing.outputs).ok()?;
        let host = url::Url::parse(&url).ok()?.origin().ascii_serialization();
        (url.starts_with("https://") && hosts.insert(host)).then(|| (url, http.tls_ca.clone()))
    });
    asked.collect()
}

/// What an endpoint shows; None where nobody answers there tonight, which the night's own step will see.
pub async fn greet(url: &str, tls_ca: Option<&Path>) -> Option<Certificate> {
    let mut builder = Client::builder()
        .timeout(GREET_WITHIN)
        .tls_info(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = tls_ca {
        let pem = tokio::fs::read(path).await.ok()?;
        builder = builder.tls_certs_only([reqwest::Certificate::from_pem(&pem).ok()?]);
    }
    let answer = builder.build().ok()?.head(url).send().await;
    let at = format!("the certificate of {url}");
    match answer {
        Ok(answer) => {
            let shown = answer.extensions().get::<TlsInfo>()?.peer_certificate()?;
            let read = certificate::of_der(shown).map_err(str::to_owned);
            Some(Certificate {
                at,
                read: read.map(|one| vec![(one.subject, one.from, one.until)]),
            })
        }
        Err(error) => {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(next) = cause.source() {
                cause = next;
            }
            let why = cause.to_string();
            // It answers, and its certificate is refused: so it would be on the night.
            why.contains("certificate").then(|| Certificate {
                at,
                read: Err(format!("it is refused: {why}")),
            })
        }
    }
}

/// The site whose database a step works on.
pub fn site_of(kind: &Kind) -> Option<Site> {
    Some(server_of(kind)?.site)
}

fn server_of(kind: &Kind) -> Option<&Named> {
    match kind {
        Kind::Restore(server)
        | Kind::Verify(server)
        | Kind::Accounts(server)
        | Kind::Open(server)
        | Kind::Fence(server)
        | Kind::Unfence(server)
        | Kind::LastBackup(server) => Some(server),
        Kind::Preserve(preserve) => Some(&preserve.server),
        Kind::Terraform(_)
        | Kind::Manifests(_)
        | Kind::MaintenancePage(_)
        | Kind::StoreReady
        | Kind::Http(_)
        | Kind::Traffic(_)
        | Kind::PrimaryReady(_)
        | Kind::Command(_)
        | Kind::Manual { .. } => None,
    }
}

/// Whether `place` reaches the databases that its steps work on.
pub async fn servers(config: &Config, resolver: &Resolver, standing: &Standing, place: At) -> Vec<Server> {
    let mut seen = Vec::new();
    let sites = [
        (Site::Standby, "standby", config.standby.as_ref()),
        (Site::Primary, "primary", config.primary.as_ref()),
    ];
    for (site, name, settings) in sites {
        let named: Vec<&Named> = super::steps_of(config, place)
            .filter_map(|step| server_of(&step.kind))
            .filter(|server| server.site == site)
            .collect();
        let Some(settings) = settings.filter(|_| !named.is_empty()) else {
            continue;
        };
        let mut settings = settings.clone();
        let from_step = named.iter().find_map(|server| server.host.as_ref());
        let went = match from_step.map(|host| known(host, &standing.outputs)) {
            Some(Err(_)) => Reached::NotYet,
            Some(Ok(host)) => {
                settings.host = host;
                reach(&settings, resolver, site, standing).await
            }
            None => reach(&settings, resolver, site, standing).await,
        };
        seen.push(Server { site: name, went });
    }
    seen
}

async fn reach(settings: &Standby, resolver: &Resolver, site: Site, standing: &Standing) -> Reached {
    let mut settings = settings.clone();
    if let Some(left) = settings.password.without_aws() {
        settings.password = left;
    }
    let address = match target::standby(&settings, resolver).await {
        Ok(address) => address,
        Err(failure) => return Reached::No(failure.message().to_owned()),
    };
    match address.connect().await {
        Ok(session) => {
            session.close().await;
            Reached::Yes
        }
        // Until stage 2 nothing stands there.
        Err(crate::mysql::DbError::Unreachable { .. }) if site == Site::Standby && standing.stage < 2 => {
            Reached::NotYet
        }
        Err(error) => Reached::No(told(&error)),
    }
}

pub async fn quota(config: &Config, resolver: &Resolver) -> Quota {
    let Some(wanted) = &config.quota else {
        return Quota::NotAsked;
    };
    let token = match resolver.azure_token("https://management.azure.com/.default").await {
        Ok(token) => token,
        Err(error) => return Quota::Unknown(error.to_string()),
    };
    match supply(wanted, &token).await {
        Ok(supply) => Quota::Known(lacks(wanted, &supply)),
        Err(error @ QuotaError::Denied { .. }) => Quota::Refused(told(&error)),
        Err(error) => Quota::Unknown(told(&error)),
    }
}
