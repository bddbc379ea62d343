//! `planb doctor --dark`: what would fail tonight if AWS, the provider registry and every public image registry were gone.
//!
//! Terraform runs behind a proxy that refuses them and writes down who was asked; secrets are resolved without their AWS
//! references; no AWS call is made. What was found is kept beside the backups, so that `planb status` can tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::{Common, doctor as report, open};
use crate::agent::schedule::Cron;
use crate::backup::entry::{Standing as Good, newest_good};
use crate::backup::{claim, lease, verify};
use crate::config::steps::{At, Kind, Step};
use crate::config::{AzureAuth, Config, Place};
use crate::doctor::check::{Level, Line, line};
use crate::doctor::dark::{self, Newest, Runner, Seen};
use crate::doctor::{Finding, Severity};
use crate::notify::Announce;
use crate::notify::notice::{Notice, What, keys};
use crate::prepare::record::{self, Looked, Looker, Prepared};
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
const ASK_EVERY: Duration = Duration::from_secs(15);
/// What would fail is looked at again, so that who mended it hears so.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// Of what would fail, this much goes into the record.
const WORST_KEPT: usize = 3;
/// And this much into a message; planb doctor --dark has the rest.
const MOST_TOLD: usize = 8;

/// Whose steps are looked at.
pub fn place_of(looker: Looker) -> At {
    match looker {
        Looker::Agent | Looker::Operator => At::Operator,
        Looker::Runner => At::Runner,
    }
}

/// A person who looks at the steps of `place`.
pub fn person_at(place: At) -> Looker {
    match place {
        At::Operator => Looker::Operator,
        At::Runner => Looker::Runner,
    }
}

/// What a look came to.
pub struct Look {
    /// Worst first.
    pub findings: Vec<Finding>,
    /// Certificates, and when each ends; true where that is soon, or over.
    pub certificates: BTreeMap<String, (Timestamp, bool)>,
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
    let looked = look(&config, person_at(place)).await;
    report::print(common, &looked.findings)
}

/// Everything there is to find.
pub async fn look(config: &Config, looker: Looker) -> Look {
    let config = &without_aws(config);
    let stores = open::stores_for_a_person(config).await;
    let (seen, extra) = match &stores {
        Ok(stores) => see(config, looker, Some(stores)).await,
        Err(error) => {
            let (mut seen, extra) = see(config, looker, None).await;
            seen.newest = Newest::Unread(told(error));
            seen.prepared = Err(told(error));
            (seen, extra)
        }
    };
    let mut findings = dark::dark(&seen);
    findings.extend(extra);
    findings.sort_by_key(|finding| finding.severity);
    if let Ok(stores) = &stores
        && let Err(error) = keep(config, stores, &seen, &findings).await
    {
        findings.push(Finding::new(
            Severity::Warning,
            "store",
            format!("what was found could not be kept: {}", told(&error)),
            "planb status goes on telling what was found before",
        ));
    }
    Look {
        findings,
        certificates: dark::ends(&seen),
    }
}

/// Steps that `place` carries out; of both directions.
pub fn steps_of(config: &Config, place: At) -> impl Iterator<Item = &Step> {
    let all = config.failover_steps.iter().chain(&config.failback_steps);
    all.filter(move |step| step.at == place)
}

async fn see(config: &Config, looker: Looker, stores: Option<&open::Stores>) -> (Seen, Vec<Finding>) {
    let place = place_of(looker);
    let resolver = Resolver::for_config(config);
    let mut extra = Vec::new();
    let mut now = open::clock().now();
    let (mut newest, mut prepared, mut record) = (Newest::Absent, Ok(None), None);
    let (mut standing, mut runner, mut operator_looked) = (Standing::default(), Runner::NotNeeded, None);
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
        let others = looks(config, stores).await;
        operator_looked = others
            .iter()
            .flatten()
            .find(|one| one.looker == Looker::Operator)
            .map(|one| one.at);
        runner = self::runner(config, place, others);
    }
    let cancel = CancellationToken::new();
    let secrets = secrets::look(config, &resolver, place).await;
    let tools = roots::tools(config, place, record.as_ref(), &cancel).await;
    let roots = roots::look(config, &resolver, &standing, looker, record.as_ref(), &cancel).await;
    let (manifests, images) = outside::manifests(config, &resolver, &standing, place).await;
    let mut certificates = outside::certificates(config, &standing, looker).await;
    certificates.extend(secrets.certificates);
    let seen = Seen {
        now,
        looker,
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
        runner_max_age: config.doctor.runner_max_age,
        operator_looked,
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

fn runner(config: &Config, place: At, looks: Result<Vec<Looked>, String>) -> Runner {
    if place == At::Runner || steps_of(config, At::Runner).next().is_none() {
        return Runner::NotNeeded;
    }
    match looks.map(|all| all.into_iter().find(|one| one.looker == Looker::Runner)) {
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

/// What was found by those who look, the latest first of each kind.
pub async fn looks(config: &Config, stores: &open::Stores) -> Result<Vec<Looked>, String> {
    let found = record::looks(stores.control.as_ref(), &claim::key(&config.store.prefix)).await;
    let now = stores.backups.now().await.map_err(|error| told(&error))?;
    found
        .map(|all| record::standing(all, now))
        .map_err(|error| told(&error))
}

/// What they come to, for `planb check`; None where there is no plan.
pub async fn check_line(config: &Config, stores: &open::Stores) -> Option<Line> {
    if config.failover_steps.is_empty() {
        return None;
    }
    let now = stores.backups.now().await;
    Some(match (looks(config, stores).await, now) {
        (Ok(looks), Ok(now)) => dark::line_of(&looks, config.doctor.dark_schedule.is_some(), now),
        (Err(why), _) => line(Level::Unknown, "dark", why),
        (_, Err(error)) => line(Level::Unknown, "dark", told(&error)),
    })
}

async fn keep(
    config: &Config,
    stores: &open::Stores,
    seen: &Seen,
    findings: &[Finding],
) -> Result<(), crate::store::StoreError> {
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    let looked = Looked {
        v: 1,
        at: seen.now,
        host: lease::host_name(),
        looker: seen.looker,
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
    let name = record::looked_name(&claim::key(&config.store.prefix), looked.looker, &looked.host);
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
/// what is wrong with it is told where it is used. What would fail is announced, and that it is over.
pub async fn by_schedule(path: PathBuf, looker: Looker, announce: Arc<dyn Announce>, cancel: CancellationToken) {
    let clock = open::clock();
    let mut asked_at = clock.now();
    let mut is_owed = None;
    let mut wrong_at: Option<Timestamp> = None;
    loop {
        // The first backup goes first; nobody knows of a runner before its first look.
        if looker == Looker::Agent || is_owed.is_some() {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(ASK_EVERY) => {}
            }
        }
        let now = clock.now();
        let Some(config) = Config::load(&path).ok().filter(is_wanted) else {
            is_owed.get_or_insert(false);
            asked_at = now;
            continue;
        };
        if is_owed.is_none() {
            is_owed = self::is_owed(&config, looker, now).await;
        }
        let is_again = wrong_at.is_some_and(|at| now.duration_since(at) >= AGAIN_AFTER);
        let is_due = is_due(&config, asked_at, now) || is_owed == Some(true) || is_again;
        asked_at = now;
        if !is_due {
            continue;
        }
        is_owed = Some(false);
        let looking = tokio::time::timeout(LOOK_WITHIN, look(&config, looker));
        let looked = tokio::select! {
            () = cancel.cancelled() => return,
            looked = looking => looked,
        };
        match looked {
            Ok(looked) => {
                log(&looked.findings);
                let is_wrong = looked
                    .findings
                    .iter()
                    .any(|finding| finding.severity == Severity::Error);
                wrong_at = is_wrong.then(|| clock.now());
                self::announce(&looked, announce.as_ref(), clock.now());
            }
            Err(_) => tracing::error!(
                minutes = LOOK_WITHIN.as_secs() / 60,
                "the look in the dark did not end; given up"
            ),
        }
    }
}

/// Whether a look was slept through; None where the store does not say.
async fn is_owed(config: &Config, looker: Looker, now: Timestamp) -> Option<bool> {
    if looker == Looker::Runner {
        return Some(true);
    }
    let stores = open::stores_for_a_person(config).await.ok()?;
    let name = record::looked_name(&claim::key(&config.store.prefix), looker, &lease::host_name());
    let last: Option<Looked> = record::read(stores.control.as_ref(), &name).await.ok()?;
    Some(last.is_none_or(|last| is_due(config, last.at, now)))
}

fn is_wanted(config: &Config) -> bool {
    config.doctor.dark_schedule.is_some() && !config.failover_steps.is_empty()
}

fn is_due(config: &Config, since: Timestamp, now: Timestamp) -> bool {
    let schedule = config.doctor.dark_schedule.as_ref().filter(|_| is_wanted(config));
    schedule.is_some_and(|text| Cron::parse(text, since).is_ok_and(|cron| cron.ticks_between(since, now) > 0))
}

/// Told once as long as it lasts, and told when it is over.
fn announce(looked: &Look, announce: &dyn Announce, now: Timestamp) {
    let wrong = looked
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error);
    let mut wrong: Vec<String> = wrong
        .map(|finding| format!("{}: {}", finding.about, finding.what))
        .collect();
    let more = wrong.len().saturating_sub(MOST_TOLD);
    wrong.truncate(MOST_TOLD);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    match wrong.is_empty() {
        true => announce.resolve(keys::DARK_CHECK, now),
        false => announce.raise(Notice::new(What::DarkCheck { findings: wrong }, now)),
    }
    for (name, (expires_at, is_soon)) in &looked.certificates {
        let (name, expires_at) = (name.clone(), *expires_at);
        match is_soon {
            true => announce.raise(Notice::new(What::CertificateExpiring { name, expires_at }, now)),
            false => announce.resolve(&keys::certificate(&name), now),
        }
    }
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
    fn what_would_fail_is_told_and_that_it_is_over() {
        #[derive(Default)]
        struct Told(std::sync::Mutex<Vec<String>>);
        impl Told {
            fn note(&self, text: String) {
                self.0.lock().expect("the log").push(text);
            }
        }
        impl Announce for Told {
            fn raise(&self, notice: Notice) {
                self.note(format!("raised {} {:?}", notice.key, notice.what));
            }
            fn resolve(&self, key: &str, _: Timestamp) {
                self.note(format!("resolved {key}"));
            }
        }
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let found = |count: usize| {
            (0..count)
                .map(|n| Finding::new(Severity::Error, &format!("step {n}"), "x", "y"))
                .chain([Finding::new(Severity::Warning, "quota", "x", "y")])
                .collect()
        };
        let look = |errors, is_soon| Look {
            findings: found(errors),
            certificates: [("[standby] tls_ca".to_owned(), (at("2026-02-01T00:00:00Z"), is_soon))].into(),
        };
        let told = Told::default();
        announce(&look(11, true), &told, at("2026-01-15T00:00:00Z"));
        announce(&look(0, false), &told, at("2026-01-16T00:00:00Z"));
        let told = told.0.into_inner().expect("the log");
        let [wrong, soon, right, renewed] = told.as_slice() else {
            panic!("{told:#?}")
        };
        assert!(
            wrong.starts_with("raised dark-check ") && wrong.contains("step 7: x"),
            "{wrong}"
        );
        assert!(
            wrong.contains("and 3 more") && !wrong.contains("quota") && !wrong.contains("step 8"),
            "{wrong}"
        );
        assert!(
            soon.starts_with("raised certificate/[standby] tls_ca") && soon.contains("2026-02-01"),
            "{soon}"
        );
        assert_eq!(
            (right.as_str(), renewed.as_str()),
            ("resolved dark-check", "resolved certificate/[standby] tls_ca")
        );
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
