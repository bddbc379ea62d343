//! `planb doctor --dark`: what would fail tonight if AWS, the provider registry and every public image registry were gone.
//!
//! Terraform runs behind a proxy that refuses them and writes down who was asked; secrets are resolved without their AWS
//! references; no AWS call is made. What was found is kept beside the backups, so that `planb status` can tell it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::{Common, doctor as report, open};
use crate::agent::schedule::Cron;
use crate::backup::entry::{Standing as Good, newest_good};
use crate::backup::{claim, lease, verify};
use crate::config::steps::{At, Kind, Step};
use crate::config::{AzureAuth, Config, Place};
use crate::doctor::dark::{self, Newest, Runner, Seen};
use crate::doctor::{Finding, Severity};
use crate::prepare::record::{self, Looked, Prepared};
use crate::recovery::state::Standing;
use crate::secret::SecretRef;
use crate::secret::resolver::Resolver;

mod outside;
mod roots;
mod secrets;

pub use outside::{asked_over_https, greet, manifests_images, registry};
pub use roots::{environment_of, programs, terraform_roots};

/// A whole look; a plan of each stage may take minutes.
const LOOK_WITHIN: Duration = Duration::from_secs(45 * 60);
/// How often the configuration is asked whether it is time.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Of what would fail, this much goes into the record.
const WORST_KEPT: usize = 3;

pub fn word(place: At) -> &'static str {
    match place {
        At::Operator => "operator",
        At::Runner => "runner",
    }
}

/// Looks, prints, and keeps what was found. Exit codes as doctor's.
pub async fn run(common: &Common, place: At) -> Result<(), Failure> {
    let config = open::config(common)?;
    if config.failover_steps.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[failover_steps]]: there is no plan to look at; config/recovery.toml has one"
                .to_owned(),
        ));
    }
    let findings = look(&config, place).await;
    report::print(common, &findings)
}

/// Everything there is to find, worst first.
pub async fn look(config: &Config, place: At) -> Vec<Finding> {
    let config = &without_aws(config);
    let stores = open::stores_for_a_person(config).await;
    let (seen, extra) = match &stores {
        Ok(stores) => see(config, place, Some(stores)).await,
        Err(error) => {
            let (mut seen, extra) = see(config, place, None).await;
            seen.newest = Newest::Unread(told(error));
            seen.prepared = Err(told(error));
            (seen, extra)
        }
    };
    let mut findings = dark::dark(&seen);
    findings.extend(extra);
    findings.sort_by_key(|finding| finding.severity);
    if let Ok(stores) = &stores
        && let Err(error) = keep(config, stores, place, &seen, &findings).await
    {
        findings.push(Finding::new(
            Severity::Warning,
            "store",
            format!("what was found could not be kept: {}", told(&error)),
            "planb status goes on telling what was found before",
        ));
    }
    findings
}

/// Steps that `place` carries out; of both directions.
pub fn steps_of(config: &Config, place: At) -> impl Iterator<Item = &Step> {
    let all = config.failover_steps.iter().chain(&config.failback_steps);
    all.filter(move |step| step.at == place)
}

async fn see(config: &Config, place: At, stores: Option<&open::Stores>) -> (Seen, Vec<Finding>) {
    let resolver = Resolver::for_config(config);
    let mut extra = Vec::new();
    let mut now = open::clock().now();
    let (mut newest, mut prepared, mut record) = (Newest::Absent, Ok(None), None);
    let (mut standing, mut runner) = (Standing::default(), Runner::NotNeeded);
    if let Some(stores) = stores {
        now = stores.backups.now().await.unwrap_or(now);
        newest = self::newest(config, stores).await;
        match prepared_here(config, stores).await {
            Ok(found) => {
                prepared = Ok(found.as_ref().map(|found: &Prepared| found.at));
                record = found;
            }
            Err(why) => prepared = Err(why),
        }
        match open::journal(config, stores).known().await {
            Ok(known) => standing = known.standing,
            Err(error) => extra.push(Finding::new(
                Severity::Error,
                "journal",
                format!("it cannot be read: {}", told(&error)),
                "planb status says more; nothing can be failed over before",
            )),
        }
        runner = self::runner(config, stores, place).await;
    }
    let cancel = CancellationToken::new();
    let secrets = secrets::look(config, &resolver, place).await;
    let tools = roots::tools(config, place, record.as_ref(), &cancel).await;
    let roots = roots::look(config, &resolver, &standing, place, record.as_ref(), &cancel).await;
    let (manifests, images) = outside::manifests(config, &resolver, &standing, place).await;
    let mut certificates = outside::certificates(config, &standing).await;
    certificates.extend(secrets.certificates);
    let seen = Seen {
        now,
        place: word(place).to_owned(),
        valid_for: config.doctor.certificates_valid_for,
        max_age: config.prepare.max_age,
        newest,
        prepared,
        tools,
        roots,
        secrets: secrets.seen,
        manifests,
        images,
        certificates,
        runner,
        servers: outside::servers(config, &resolver, &standing, place).await,
        quota: outside::quota(config, &resolver).await,
        needs_aws: needs_aws(config, place),
    };
    (seen, extra)
}

async fn newest(config: &Config, stores: &open::Stores) -> Newest {
    let entries = match open::listing(config, stores).await {
        Ok(entries) => entries,
        Err(error) => return Newest::Unread(told(&error)),
    };
    let Some(entry) = newest_good(&entries) else {
        return Newest::Absent;
    };
    // Its index, which is what a restore reads first.
    if let Err(error) = verify::open(&stores.backups, entry).await {
        return Newest::Unread(format!("{}: {}", entry.id, told(&error)));
    }
    let good = entries.iter().filter(|entry| entry.standing == Good::Good);
    Newest::Read {
        id: entry.id.to_string(),
        proven_at: good.filter_map(|entry| entry.proven_at).max(),
    }
}

async fn prepared_here(config: &Config, stores: &open::Stores) -> Result<Option<Prepared>, String> {
    let name = record::prepared_name(&claim::key(&config.store.prefix), &lease::host_name());
    record::read(stores.control.as_ref(), &name)
        .await
        .map_err(|error| told(&error))
}

async fn runner(config: &Config, stores: &open::Stores, place: At) -> Runner {
    if place == At::Runner || steps_of(config, At::Runner).next().is_none() {
        return Runner::NotNeeded;
    }
    match looked(config, stores, At::Runner).await {
        Ok(None) => Runner::Silent,
        Ok(Some(looked)) => Runner::Said {
            at: looked.at,
            host: looked.host,
            errors: looked.errors,
            worst: looked.worst,
        },
        Err(why) => Runner::Unread(why),
    }
}

/// What was found by the latest look of a place.
pub async fn looked(config: &Config, stores: &open::Stores, place: At) -> Result<Option<Looked>, String> {
    let name = record::looked_name(&claim::key(&config.store.prefix), word(place));
    record::read(stores.control.as_ref(), &name)
        .await
        .map_err(|error| told(&error))
}

async fn keep(
    config: &Config,
    stores: &open::Stores,
    place: At,
    seen: &Seen,
    findings: &[Finding],
) -> Result<(), crate::store::StoreError> {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let looked = Looked {
        v: 1,
        at: seen.now,
        host: lease::host_name(),
        place: word(place).to_owned(),
        errors: count(Severity::Error),
        warnings: count(Severity::Warning),
        worst: errors
            .take(WORST_KEPT)
            .map(|finding| format!("{}: {}", finding.about, finding.what))
            .collect(),
        reached: seen
            .servers
            .iter()
            .filter(|server| matches!(server.went, dark::Reached::Yes))
            .map(|server| server.site.to_owned())
            .collect(),
    };
    let name = record::looked_name(&claim::key(&config.store.prefix), word(place));
    record::write(stores.control.as_ref(), &name, &looked).await
}

/// Steps on the way to the standby that talk to AWS itself.
fn needs_aws(config: &Config, place: At) -> Vec<String> {
    let steps = config.failover_steps.iter().filter(|step| step.at == place);
    steps
        .filter(|step| matches!(step.kind, Kind::Traffic(_) | Kind::PrimaryReady(_)))
        .map(|step| step.name.clone())
        .collect()
}

/// The configuration as it is when AWS is gone: what opens the store and the key vault has no way through AWS. Where there is no
/// other way, the reference stays as it is and fails as a finding of its own.
fn without_aws(config: &Config) -> Config {
    let strip = |secret: &mut SecretRef| {
        if let Some(left) = secret.without_aws() {
            *secret = left;
        } else {
            // Named as it is written, and never asked.
            *secret = SecretRef(vec![crate::secret::Reference::File(PathBuf::from(
                "/nonexistent/only-AWS-has-what-opens-the-store",
            ))]);
        }
    };
    let mut config = config.clone();
    if let Place::Azure { auth, .. } = &mut config.store.place {
        match auth {
            AzureAuth::ClientSecret { secret, .. } => strip(secret),
            AzureAuth::Sas(secret) | AzureAuth::AccountKey(secret) => strip(secret),
            AzureAuth::WorkloadIdentity { .. } | AzureAuth::ManagedIdentity { .. } | AzureAuth::AzLogin => {}
        }
    }
    config
}

/// Looks when the configuration says so, until cancelled. The file is read anew each time, so that a reload needs no word here;
/// what is wrong with it is told where it is used.
pub async fn by_schedule(path: PathBuf, place: At, cancel: CancellationToken) {
    let clock = open::clock();
    let mut asked_at = clock.now();
    // Nobody knows of a runner before its first look.
    let mut is_first = place == At::Runner;
    loop {
        let now = clock.now();
        let config = Config::load(&path).ok();
        let due = config.filter(|config| is_due(config, asked_at, now) || (is_first && is_wanted(config)));
        asked_at = now;
        let Some(config) = due else {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
            continue;
        };
        is_first = false;
        let looking = tokio::time::timeout(LOOK_WITHIN, look(&config, place));
        let findings = tokio::select! {
            () = cancel.cancelled() => return,
            looked = looking => looked,
        };
        match findings {
            Ok(findings) => log(&findings),
            Err(_) => tracing::error!(
                minutes = LOOK_WITHIN.as_secs() / 60,
                "the look in the dark did not end; given up"
            ),
        }
    }
}

fn is_wanted(config: &Config) -> bool {
    config.doctor.dark_schedule.is_some() && !config.failover_steps.is_empty()
}

fn is_due(config: &Config, since: Timestamp, now: Timestamp) -> bool {
    let schedule = config.doctor.dark_schedule.as_ref().filter(|_| is_wanted(config));
    schedule.is_some_and(|text| Cron::parse(text, since).is_ok_and(|cron| cron.ticks_between(since, now) > 0))
}

fn log(findings: &[Finding]) {
    let loud: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .collect();
    if loud.is_empty() {
        tracing::info!(
            findings = findings.len(),
            "looked in the dark: nothing would fail tonight"
        );
    }
    let mut told = BTreeSet::new();
    for finding in loud {
        if told.insert((&finding.about, &finding.what)) {
            tracing::error!(
                about = finding.about,
                remedy = finding.remedy,
                "WOULD FAIL TONIGHT: {}",
                finding.what
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_due_once_for_each_tick_and_only_with_a_plan() {
        let plan = "[[failover_steps]]\nname = \"a\"\nstage = 1\nkind = \"manual\"\ntext = \"t\"\n";
        let of = |more: &str| {
            let text = format!(
                "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n\
                 [store]\nurl = \"file:///s\"\n{more}"
            );
            Config::parse(&text).expect("valid")
        };
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let due = |config: &Config, from, to| is_due(config, at(from), at(to));
        let daily = of(plan);
        assert!(due(&daily, "2026-01-01T04:29:30Z", "2026-01-01T04:30:10Z"));
        assert!(!due(&daily, "2026-01-01T04:30:10Z", "2026-01-01T05:30:10Z"));
        assert!(!due(&of(""), "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"));
        let never = of(&format!("[doctor]\ndark_schedule = \"never\"\n{plan}"));
        assert!(!due(&never, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"));
    }

    #[test]
    fn what_opens_the_store_has_no_way_through_aws() {
        let text = "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n\
                    [store]\nurl = \"azblob://account/container\"\nauth = \"sas\"\nsas = [\"aws-secret:a#b\", \"env:SAS\"]\n";
        let sas = |config: &Config| match &config.store.place {
            Place::Azure {
                auth: AzureAuth::Sas(sas),
                ..
            } => sas.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            _ => Vec::new(),
        };
        assert_eq!(sas(&without_aws(&Config::parse(text).expect("valid"))), ["env:SAS"]);
        let only = text.replace(", \"env:SAS\"", "");
        assert!(sas(&without_aws(&Config::parse(&only).expect("valid")))[0].contains("only-AWS"));
    }
}
