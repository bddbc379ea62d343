//! `[watch]`: who looks at the primary, how, and what follows when most of them agree that it is down.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::collect::{Document, Section};
use super::sections::{HOUR, MINUTE, YEAR, absolute_path, host_name, is_loopback, label, rds_instance, region};
use super::steps::{Failover, Kind as StepKind, Step};
use super::units::format_duration;
use super::{Endpoint, Login, Source, Tls, server};
use crate::secret::SecretRef;

const SECOND: Duration = Duration::from_secs(1);
/// Watchers that `auto` needs at least: with two, one that is cut off is half of all.
const FEWEST_FOR_AUTO: usize = 3;

/// The watchers, and what they watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Watch {
    /// Which of `watchers` this machine is. None: named on the command line.
    pub name: Option<String>,
    /// Where the primary stands. Default: `source.region`.
    pub primary_region: Option<String>,
    /// All there are, whether they are up or not: a verdict needs most of them.
    pub watchers: Vec<Watcher>,
    pub probes: Vec<Probe>,
    /// How often each writes what it sees. Default 10 s.
    pub every: Duration,
    /// What was written longer ago is no vote. Default 45 s.
    pub stale_after: Duration,
    /// After a change of the verdict, none follows for so long. Default 1 min.
    pub cool_down: Duration,
    pub then: Then,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watcher {
    pub name: String,
    pub region: String,
}

/// What follows when the primary is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// People are told.
    Notify,
    /// A failover is begun.
    Auto(Auto),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auto {
    /// So long the primary must be down without a break. Default 3 min.
    pub grace: Duration,
    /// More than this is not lost without a person. Default: `failover.max_loss`.
    pub max_loss: Duration,
    /// What to do where nobody can prove that the old primary takes no writes.
    pub unprovable_fence: UnprovableFence,
    /// 2 or 3. Default 3.
    pub stage: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnprovableFence {
    /// The operation stops before the standby opens, and a person goes on.
    Stop,
    /// The standby opens all the same; the fence is tried again until it holds.
    Accept,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    pub name: String,
    pub plane: Plane,
    /// Watchers that ask; empty: all.
    pub from: Vec<String>,
    /// From one question to the next. Default 30 s; less or more by up to a tenth.
    pub interval: Duration,
    /// Default 10 s.
    pub timeout: Duration,
    /// So many in a row make it unhealthy. Default 3.
    pub failures: u32,
    /// All of them within so long. Default 90 s.
    pub within: Duration,
    /// So many in a row make it healthy. Default 2.
    pub successes: u32,
    pub kind: ProbeKind,
}

/// What a probe tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// What users and the application go through.
    Data,
    /// What operators go through: alone it says nothing about the service.
    Control,
}

#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are a few in a process")]
pub enum ProbeKind {
    Http(HttpProbe),
    Tcp {
        host: String,
        port: u16,
    },
    /// A login, and a read that must give a row.
    Mysql {
        source: Source,
        query: String,
    },
    /// What RDS says of the instance.
    Rds {
        instance: String,
        region: Option<String>,
    },
}

impl ProbeKind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp { .. } => "tcp",
            Self::Mysql { .. } => "mysql",
            Self::Rds { .. } => "rds",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    pub url: Url,
    /// Default 200.
    pub expect: Vec<u16>,
    pub contains: Option<String>,
    /// A right answer that takes longer is a failure. None: the timeout alone counts.
    pub latency: Option<Duration>,
    pub tls_ca: Option<PathBuf>,
}

impl Watch {
    pub fn watcher(&self, name: &str) -> Option<&Watcher> {
        self.watchers.iter().find(|watcher| watcher.name == name)
    }

    /// What this watcher asks.
    pub fn probes_of(&self, name: &str) -> Vec<Probe> {
        let asks = |probe: &&Probe| probe.from.is_empty() || probe.from.iter().any(|from| from == name);
        self.probes.iter().filter(asks).cloned().collect()
    }
}

const KINDS: [(&str, &[&str]); 4] = [
    ("http", &["url", "expect", "contains", "latency", "tls_ca", "plane"]),
    ("tcp", &["host", "port", "plane"]),
    ("mysql", &["query", "address", "password", "tls", "tls_ca"]),
    ("rds", &["instance", "region"]),
];

const PROBE_KEYS: [&str; 22] = [
    "name",
    "kind",
    "from",
    "interval",
    "timeout",
    "failures",
    "within",
    "successes",
    "url",
    "expect",
    "contains",
    "latency",
    "tls_ca",
    "plane",
    "host",
    "port",
    "query",
    "address",
    "password",
    "tls",
    "instance",
    "region",
];

/// None where the section is left out.
pub(super) fn watch(document: &mut Document<'_>, source: &Source, failover: Failover, steps: &[Step]) -> Option<Watch> {
    let is_there = document.has("watch");
    // Read in any case, so that a section with a mistyped name is recognised by what there could be.
    let listed = watchers(document);
    let probes = probes(document, source, &listed);
    let auto = auto(document, failover);
    let mut section = document.section("watch");
    let name = section.text("name", label);
    let primary_region = section
        .text("primary_region", label)
        .or_else(|| match &source.endpoint {
            Endpoint::RdsInstance { region, .. } => region.clone(),
            Endpoint::Address { .. } => None,
        });
    let every = section.duration("every", SECOND..=MINUTE).unwrap_or(10 * SECOND);
    let stale_after = section.duration("stale_after", 3 * SECOND..=10 * MINUTE);
    let cool_down = section.duration("cool_down", Duration::ZERO..=HOUR).unwrap_or(MINUTE);
    let is_auto = section
        .choice("then", &[("notify", false), ("auto", true)])
        .unwrap_or(false);
    if !is_there {
        return None;
    }
    let stale_after = stale_after.unwrap_or((45 * SECOND).max(3 * every));
    if stale_after < 3 * every {
        section.problem(
            "stale_after",
            format!(
                "must be at least three times every = {}, or one answer that comes late takes a vote away",
                format_duration(every)
            ),
        );
    }
    let mut watch = Watch {
        watchers: match (&listed[..], &name) {
            ([], Some(name)) => vec![Watcher {
                name: name.clone(),
                region: String::new(),
            }],
            _ => listed,
        },
        name,
        primary_region,
        probes,
        every,
        stale_after,
        cool_down,
        then: Then::Notify,
    };
    check_names(&mut section, &watch);
    if let Some(auto) = auto {
        if !is_auto {
            section.problem(
                "auto",
                "has a meaning only with then = \"auto\": add that, or remove the section",
            );
        }
        watch.then = Then::Auto(auto);
    }
    if is_auto {
        check_auto(&mut section, &watch, failover, steps);
    }
    Some(watch)
}

fn watchers(document: &mut Document<'_>) -> Vec<Watcher> {
    const KEYS: [&str; 2] = ["name", "region"];
    let mut watchers: Vec<Watcher> = Vec::new();
    for number in 0..document.count("watch.watchers", &KEYS) {
        let mut section = document.nth("watch.watchers", number);
        let name = section.text("name", label);
        let region = section.text("region", label);
        let watcher = Watcher {
            name: section.need("name", name, "what it is called, e.g. name = \"tokyo\""),
            region: section.need("region", region, "where it stands, e.g. region = \"ap-northeast-1\""),
        };
        if watchers.iter().any(|other| other.name == watcher.name) {
            section.problem(
                "name",
                "is another watcher's: give each its own, or one would speak for two",
            );
        }
        watchers.push(watcher);
    }
    watchers
}

fn check_names(section: &mut Section<'_, '_>, watch: &Watch) {
    if watch.watchers.is_empty() {
        section.problem(
            "watchers",
            "is missing: name them all, e.g. watchers = [{ name = \"tokyo\", region = \"ap-northeast-1\" }]",
        );
    }
    if watch.name.as_ref().is_some_and(|name| watch.watcher(name).is_none()) {
        section.problem(
            "name",
            "is none of watchers: add it there, since only those are counted",
        );
    }
    if watch.probes.is_empty() {
        section.problem("probes", "is missing: write [[watch.probes]], at least one");
        return;
    }
    let blind: Vec<&str> = watch
        .watchers
        .iter()
        .map(|watcher| watcher.name.as_str())
        .filter(|name| !watch.probes_of(name).iter().any(|probe| probe.plane == Plane::Data))
        .collect();
    if !blind.is_empty() {
        section.problem(
            "probes",
            format!(
                "leave {} without a probe of the data plane, and so without a vote for ever: add one, or remove it from watchers",
                blind.join(", ")
            ),
        );
    }
}

/// Read whether or not it is asked for, so that its keys are known.
fn auto(document: &mut Document<'_>, failover: Failover) -> Option<Auto> {
    let is_there = document.has("watch.auto");
    let mut section = document.section("watch.auto");
    let grace = section
        .duration("grace", Duration::ZERO..=24 * HOUR)
        .unwrap_or(3 * MINUTE);
    let max_loss = section.duration("max_loss", SECOND..=YEAR).unwrap_or(failover.max_loss);
    let fence = [("stop", UnprovableFence::Stop), ("accept", UnprovableFence::Accept)];
    let fence = section.choice("unprovable_fence", &fence);
    let stage = section.count("stage", 2..=3).and_then(|stage| u8::try_from(stage).ok());
    if !is_there {
        return None;
    }
    if fence.is_none() && !section.has("unprovable_fence") {
        section.problem(
            "unprovable_fence",
            "is missing: a primary that vanished cannot be proven to take no writes. Write \"accept\" to open the standby all the \
             same, or \"stop\" to wait for a person there",
        );
    }
    if max_loss > failover.max_loss {
        section.problem(
            "max_loss",
            format!(
                "is more than failover.max_loss = {}, which refuses it to anybody: lower it, or raise that",
                format_duration(failover.max_loss)
            ),
        );
    }
    Some(Auto {
        grace,
        max_loss,
        unprovable_fence: fence.unwrap_or(UnprovableFence::Stop),
        stage: stage.unwrap_or(3),
    })
}

/// What nobody would be there to do, or to doubt.
fn check_auto(section: &mut Section<'_, '_>, watch: &Watch, failover: Failover, steps: &[Step]) {
    let Then::Auto(auto) = &watch.then else {
        section.problem(
            "then",
            "\"auto\" needs a section [watch.auto], with at least unprovable_fence = \"stop\" or \"accept\"",
        );
        return;
    };
    if watch.watchers.len() < FEWEST_FOR_AUTO {
        section.problem(
            "watchers",
            "must be at least three for then = \"auto\": of two, one that is cut off is half of all",
        );
    }
    match &watch.primary_region {
        None => section.problem(
            "primary_region",
            "is missing: then = \"auto\" needs most watchers outside it, e.g. primary_region = \"ap-northeast-2\"",
        ),
        Some(primary) => {
            let outside = watch.watchers.iter().filter(|watcher| watcher.region != *primary);
            if outside.count() * 2 <= watch.watchers.len() {
                section.problem(
                    "watchers",
                    format!(
                        "must stand outside {primary} for the most part: when that region is cut off, those inside it see what \
                         nobody else does"
                    ),
                );
            }
        }
    }
    if failover.approvers > 1 {
        section.problem(
            "then",
            "\"auto\" cannot be with failover.approvers above 1: nobody would be there to agree",
        );
    }
    if !steps.iter().any(|step| step.stage == auto.stage) {
        section.problem(
            "then",
            format!(
                "\"auto\" has nothing to do: there is no [[failover_steps]] of stage {}",
                auto.stage
            ),
        );
    }
    for name in waits_for_a_person(steps, auto.stage) {
        section.problem(
            "then",
            format!(
                "\"auto\" would wait for a person at the manual step {name}, and begin nothing more: let it need what opens the \
                 standby and what moves traffic, or write on_failure = \"continue\" there"
            ),
        );
    }
}

/// Manual steps that do not come after everything that matters.
fn waits_for_a_person(steps: &[Step], stage: u8) -> Vec<&str> {
    let taken: Vec<&Step> = steps.iter().filter(|step| (2..=stage).contains(&step.stage)).collect();
    let matters = |step: &&&Step| !matches!(step.kind, StepKind::Manual { .. } | StepKind::Http(_));
    taken
        .iter()
        .filter(|step| matches!(step.kind, StepKind::Manual { .. }) && !step.goes_on)
        .filter(|manual| {
            let before = before(&taken, &manual.name);
            !taken
                .iter()
                .filter(matters)
                .all(|step| before.contains(step.name.as_str()))
        })
        .map(|step| step.name.as_str())
        .collect()
}

/// Everything that must be done before `name`.
fn before<'a>(steps: &[&'a Step], name: &'a str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![name];
    while let Some(name) = open.pop() {
        let needs = steps.iter().find(|step| step.name == name).map(|step| &step.needs);
        for need in needs.into_iter().flatten() {
            if found.insert(need.as_str()) {
                open.push(need);
            }
        }
    }
    found
}

fn probes(document: &mut Document<'_>, source: &Source, watchers: &[Watcher]) -> Vec<Probe> {
    let mut probes: Vec<Probe> = Vec::new();
    for number in 0..document.count("watch.probes", &PROBE_KEYS) {
        let mut section = document.nth("watch.probes", number);
        let Some(probe) = probe(&mut section, source, watchers) else {
            continue;
        };
        if probes.iter().any(|other| other.name == probe.name) {
            section.problem("name", "is another probe's: give each its own");
        }
        probes.push(probe);
    }
    probes
}

fn probe(section: &mut Section<'_, '_>, source: &Source, watchers: &[Watcher]) -> Option<Probe> {
    let kinds = KINDS.map(|(name, _)| (name, name));
    let kind = section.choice("kind", &kinds);
    if kind.is_none() && !section.has("kind") {
        section.problem("kind", "is missing: one of \"http\", \"tcp\", \"mysql\", \"rds\"");
    }
    let (kind, own) = KINDS.into_iter().find(|(name, _)| Some(*name) == kind)?;
    for (_, keys) in KINDS {
        for key in keys.iter().filter(|key| !own.contains(key)) {
            if section.has(key) {
                section.problem(key, format!("means nothing for kind = \"{kind}\": remove it"));
            }
        }
    }
    let name = section.text("name", label);
    let name = name.unwrap_or_else(|| kind.to_owned());
    let plane = section.choice("plane", &[("data", Plane::Data), ("control", Plane::Control)]);
    let from = section.list("from").unwrap_or_default();
    if let Some(stranger) = from
        .iter()
        .find(|from| !watchers.is_empty() && !watchers.iter().any(|watcher| watcher.name == **from))
    {
        let message = format!("names {stranger}, which is none of watch.watchers");
        section.problem("from", message);
    }
    let interval = section.duration("interval", SECOND..=HOUR).unwrap_or(30 * SECOND);
    let timeout = section
        .duration("timeout", SECOND..=MINUTE)
        .unwrap_or((10 * SECOND).min(interval));
    let failures = section.count("failures", 1..=100).unwrap_or(3);
    let successes = section.count("successes", 1..=100).unwrap_or(2);
    let least = within_at_least(interval, timeout, failures.max(successes));
    let within = section
        .duration("within", SECOND..=24 * HOUR)
        .unwrap_or((90 * SECOND).max(least));
    if timeout > interval {
        section.problem(
            "timeout",
            "must not be longer than interval: a question is asked after the one before",
        );
    }
    if within < least {
        section.problem(
            "within",
            format!(
                "must be at least {}: so long {} questions {} apart, the last one with its timeout, can take",
                format_duration(least),
                failures.max(successes),
                format_duration(interval)
            ),
        );
    }
    let kind = match kind {
        "http" => http(section),
        "tcp" => tcp(section),
        "mysql" => mysql(section, source),
        _ => rds(section, source),
    };
    Some(Probe {
        plane: match kind {
            ProbeKind::Rds { .. } => Plane::Control,
            _ => plane.unwrap_or(Plane::Data),
        },
        name,
        from,
        interval,
        timeout,
        failures,
        within,
        successes,
        kind,
    })
}

/// With intervals a tenth longer than they should be; whole seconds.
fn within_at_least(interval: Duration, timeout: Duration, questions: u32) -> Duration {
    let longest = (interval * 11 / 10) * questions.saturating_sub(1) + timeout;
    Duration::from_secs(longest.as_secs() + u64::from(longest.subsec_nanos() > 0))
}

fn http(section: &mut Section<'_, '_>) -> ProbeKind {
    let url = section.text("url", |text| match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
            if url.password().is_some() || !url.username().is_empty() {
                return Err("must not hold a user or a password, which everybody could read".to_owned());
            }
            Ok(url)
        }
        _ => Err("must be an http:// or https:// address".to_owned()),
    });
    if url.is_none() && !section.has("url") {
        section.problem(
            "url",
            "is missing: write what to ask, e.g. url = \"https://bank.example/health\"",
        );
    }
    let expect = section.list("expect");
    let codes: Option<Vec<u16>> = expect.as_ref().map(|texts| {
        let code = |text: &String| text.parse::<u16>().ok().filter(|code| (100..600).contains(code));
        texts.iter().filter_map(code).collect()
    });
    if let (Some(texts), Some(codes)) = (&expect, &codes)
        && (texts.len() != codes.len() || codes.is_empty())
    {
        section.problem(
            "expect",
            "must be a list of HTTP status codes, e.g. expect = [\"200\", \"204\"]",
        );
    }
    match url {
        Some(url) => ProbeKind::Http(HttpProbe {
            url,
            expect: codes.unwrap_or_else(|| vec![200]),
            contains: section.text("contains", |text| Ok(text.to_owned())),
            latency: section.duration("latency", SECOND..=MINUTE),
            tls_ca: section.text("tls_ca", absolute_path),
        }),
        // With any problem the whole is thrown away.
        None => ProbeKind::Tcp {
            host: String::new(),
            port: 0,
        },
    }
}

fn tcp(section: &mut Section<'_, '_>) -> ProbeKind {
    let host = section.text("host", host_name);
    let port = section
        .whole("port", 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    ProbeKind::Tcp {
        host: section.need("host", host, "the address, e.g. host = \"bank.example\""),
        port: section.need("port", port, "the port, e.g. port = 443"),
    }
}

fn mysql(section: &mut Section<'_, '_>, source: &Source) -> ProbeKind {
    let query = section.text("query", |text| {
        let word = text.split_whitespace().next().unwrap_or_default();
        if word.eq_ignore_ascii_case("select") && !text.contains(';') {
            Ok(text.to_owned())
        } else {
            Err("must be one SELECT, without a semicolon: a probe only reads".to_owned())
        }
    });
    let address = section.text("address", server::parse);
    let password = section.secret("password");
    let tls = section.choice("tls", &[("required", Tls::Required), ("off", Tls::Off)]);
    let tls_ca = section.text("tls_ca", absolute_path);
    let source = match address {
        None => {
            for key in ["password", "tls", "tls_ca"] {
                if section.has(key) && !section.has("address") {
                    section.problem(key, "comes from [source] where no address is given: remove it");
                }
            }
            source.clone()
        }
        Some(named) => {
            let tls = tls.unwrap_or(Tls::Required);
            if tls == Tls::Off && !is_loopback(&named.host) {
                section.problem(
                    "tls",
                    "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
                );
            }
            let write = "where that of address is, e.g. password = \"credential:planb-watch\"";
            let password = password.map(|reference| reference.0);
            let password = SecretRef(section.need("password", password, write));
            Source {
                endpoint: Endpoint::Address {
                    host: named.host,
                    port: named.port,
                },
                user: named.user,
                login: Login::Password(password),
                databases: Vec::new(),
                tls,
                tls_ca,
                pause_replica: false,
            }
        }
    };
    ProbeKind::Mysql {
        source,
        query: query.unwrap_or_else(|| "SELECT 1".to_owned()),
    }
}

fn rds(section: &mut Section<'_, '_>, source: &Source) -> ProbeKind {
    let named = section.text("instance", rds_instance);
    let of_probe = section.text("region", region);
    let (configured, of_source) = match &source.endpoint {
        Endpoint::RdsInstance { id, region } => (Some(id.clone()), region.clone()),
        Endpoint::Address { .. } => (None, None),
    };
    ProbeKind::Rds {
        instance: section.need(
            "instance",
            named.or(configured),
            "the instance to ask RDS for, e.g. instance = \"pocketbank-prod\"",
        ),
        region: of_probe.or(of_source),
    }
}
