//! `[watch]`: who looks at the primary, how, and what follows when most of them agree that it is down.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::collect::{Document, Section};
use super::sections::{HOUR, MINUTE, label};
use super::steps::{Failover, Step};
use super::units::format_duration;
use super::{Endpoint, Source};

mod auto;
mod probes;

use auto::{auto, check_auto};
use probes::probes;

const SECOND: Duration = Duration::from_secs(1);

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
