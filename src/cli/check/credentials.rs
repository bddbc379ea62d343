//! Secrets and certificates that run out one day: what the configuration names, and what endpoints show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cli::failure::told;
use crate::cli::{dark, open};
use crate::config::watch::ProbeKind;
use crate::config::{AzureAuth, Config, Login, Place, Tls};
use crate::doctor::check::{self, Level, Line, line};
use crate::prepare::certificate::ends_of;
use crate::recovery::state::Standing;
use crate::secret::SecretRef;
use crate::secret::resolver::Resolver;

/// Every secret that the configuration names, by its key: whether it can be had, and what of it ends soon.
pub async fn secrets(config: &Config) -> Vec<Line> {
    let named = named(config);
    let resolver = Resolver::for_config(config);
    let now = open::clock().now();
    let mut lines = Vec::new();
    for (key, secret) in &named {
        if let Err(error) = resolver.resolve(secret).await {
            let told = format!("{key} cannot be had from here: {}", told(&error));
            lines.push(line(Level::Warning, "secrets", told));
        }
        for (reference, ends) in resolver.ends(secret).await {
            let ends = check::ends("secrets", &format!("{key} ({reference})"), ends, now);
            lines.extend(Some(ends).filter(|line| line.level != Level::Ok));
        }
    }
    if lines.is_empty() {
        lines.push(line(Level::Ok, "secrets", format!("{} can be had", named.len())));
    }
    lines
}

fn named(config: &Config) -> Vec<(String, &SecretRef)> {
    let mut named: Vec<(String, &SecretRef)> = Vec::new();
    if let Login::Password(password) = &config.source.login {
        named.push(("source.password".to_owned(), password));
    }
    if let Place::Azure { auth, .. } = &config.store.place {
        match auth {
            AzureAuth::ClientSecret { secret, .. } => named.push(("store.client_secret".to_owned(), secret)),
            AzureAuth::Sas(secret) => named.push(("store.sas".to_owned(), secret)),
            AzureAuth::AccountKey(secret) => named.push(("store.account_key".to_owned(), secret)),
            AzureAuth::WorkloadIdentity { .. } | AzureAuth::ManagedIdentity { .. } | AzureAuth::AzLogin => {}
        }
    }
    let scratch = config.verify.restore.as_ref().map(|proving| &proving.to);
    // The routine proof's may be the standby's own.
    let scratch = scratch.filter(|to| config.standby.as_ref() != Some(to));
    for (key, server) in [
        ("standby.password", config.standby.as_ref()),
        ("primary.password", config.primary.as_ref()),
        ("verify.password", scratch),
    ] {
        named.extend(server.map(|server| (key.to_owned(), &server.password)));
    }
    for account in &config.accounts {
        named.push((format!("the password of {}", account.name), &account.password));
    }
    let token = config.serve.as_ref().and_then(|serve| serve.token.as_ref());
    named.extend(token.map(|token| ("serve.token".to_owned(), token)));
    for channel in &config.notify.channels {
        let secrets = channel.to.secrets();
        named.extend(
            secrets
                .into_iter()
                .map(|(key, secret)| (format!("{key} of channel {}", channel.name), secret)),
        );
    }
    let headers = config
        .telemetry
        .as_ref()
        .and_then(|telemetry| telemetry.headers.as_ref());
    named.extend(headers.map(|headers| ("telemetry.headers".to_owned(), headers)));
    named
}

/// Those that the configuration names as files.
pub async fn authorities(config: &Config) -> Vec<Line> {
    let now = open::clock().now();
    let source = (config.source.tls == Tls::Required).then_some(("source.tls_ca", config.source.tls_ca.as_deref()));
    let servers = [("standby.tls_ca", &config.standby), ("primary.tls_ca", &config.primary)];
    let servers = servers
        .into_iter()
        .filter_map(|(key, server)| Some((key, server.as_ref()?.tls_ca.as_deref())));
    let named = source
        .into_iter()
        .chain(servers)
        .filter_map(|(key, path)| Some((key, path?)));
    let mut lines = Vec::new();
    for (key, path) in named {
        lines.push(authority(key, path, now).await);
    }
    lines
}

async fn authority(key: &str, path: &Path, now: jiff::Timestamp) -> Line {
    match tokio::fs::read(path).await {
        Ok(pem) => check::certificates(key, &ends_of(&pem), now),
        Err(error) => line(
            Level::Critical,
            "certificates",
            format!("{key} cannot be read: {error}"),
        ),
    }
}

/// What the endpoints show that the plan's steps and the watchers' probes ask, one of each host. Who does not answer is not told here:
/// watchers are for that.
pub async fn presented(config: &Config, standing: Option<&Standing>) -> Vec<Line> {
    let mut asked: BTreeMap<String, Option<PathBuf>> = BTreeMap::new();
    if let Some(standing) = standing {
        asked.extend(dark::asked_over_https(config, standing));
    }
    for probe in config.watch.iter().flat_map(|watch| &watch.probes) {
        if let ProbeKind::Http(http) = &probe.kind
            && http.url.scheme() == "https"
        {
            let origin = format!("{}/", http.url.origin().ascii_serialization());
            asked.entry(origin).or_insert_with(|| http.tls_ca.clone());
        }
    }
    let now = open::clock().now();
    let mut greetings = tokio::task::JoinSet::new();
    for (url, tls_ca) in asked {
        greetings.spawn(async move { dark::greet(&url, tls_ca.as_deref()).await });
    }
    let mut lines = Vec::new();
    while let Some(greeted) = greetings.join_next().await {
        let Ok(Some(shown)) = greeted else { continue };
        lines.push(match shown.read {
            Ok(all) => match all.iter().map(|(.., until)| *until).min() {
                Some(until) => check::ends("certificates", &shown.at, until, now),
                None => continue,
            },
            Err(why) => line(Level::Critical, "certificates", format!("{}: {why}", shown.at)),
        });
    }
    lines.sort_by(|a, b| a.text.cmp(&b.text));
    lines
}
