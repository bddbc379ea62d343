//! `[failover]`, `[[failover_steps]]` and `[[failback_steps]]`: the recovery plan as people write it.
//!
//! A text may hold `${STEP.OUTPUT}`: what an earlier step gave. What a step means for the safety of the data is decided in
//! `steps/plan.rs`; here is only what may be written.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::SecretRef;

mod kinds;
mod read;

pub(super) use read::{failover, steps};

/// What every failover is measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// More than this is not lost without `--accept backup-too-old=REASON`. Default 1 h.
    pub max_loss: Duration,
    /// Different people who must agree before anything is done. Default 1.
    pub approvers: u32,
}

/// A site, as steps name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    Primary,
    Standby,
}

/// Which process carries a step out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Operator,
    Runner,
}

/// One step, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    /// 1 to 3.
    pub stage: u8,
    pub needs: Vec<String>,
    pub timeout: Duration,
    /// How long it usually takes, as far as whoever wrote the plan knows; what was measured counts for more.
    pub usually: Option<Duration>,
    pub at: At,
    /// Whether the operation goes on without it when it failed.
    pub goes_on: bool,
    /// Times it is tried again by itself. Default 2; for what a person or a program does: 0.
    pub retries: u32,
    /// Whether a rehearsal does it; none: as its kind has it.
    pub drill: Option<Rehearsed>,
    pub kind: Kind,
}

/// What is said of one step about rehearsals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehearsed {
    Run,
    Skip,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Terraform(Terraform),
    /// The chosen backup into the site's database.
    Restore(Server),
    /// That database compared with the backup.
    Verify(Server),
    /// `[[accounts]]` made there and tried, and locked until the site opens.
    Accounts(Server),
    /// Events enabled, accounts unlocked.
    Open(Server),
    /// No more writes at the site.
    Fence(Server),
    Unfence(Server),
    LastBackup(Server),
    /// A backup under `preserved/` of what the site has, and where that differs from what the other one began with.
    Preserve(Preserve),
    Manifests(Manifests),
    MaintenancePage(MaintenancePage),
    StoreReady,
    Http(Http),
    Traffic(Traffic),
    PrimaryReady(PrimaryReady),
    Command(Command),
    Manual {
        text: String,
    },
}

/// The database that a step works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub site: Site,
    /// Instead of the host in `[standby]` or `[primary]`; may come from an earlier step.
    pub host: Option<String>,
    /// Likewise.
    pub port: Option<String>,
    pub user: Option<String>,
    /// `${STEP.OUTPUT}` and nothing else: an output that is sensitive. No password stands in a configuration.
    pub password: Option<String>,
    /// Of a fence: writes of everybody are refused besides, where the server lets us. Default: no.
    pub read_only: bool,
}

impl Server {
    /// The database of a site as it is configured.
    pub fn of(site: Site) -> Self {
        Self {
            site,
            host: None,
            port: None,
            user: None,
            password: None,
            read_only: false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preserve {
    pub server: Server,
    /// The primary's instance, of which RDS makes a snapshot first.
    pub rds_snapshot: Option<String>,
    /// Where it is. Default: this machine's.
    pub region: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terraform {
    pub dir: PathBuf,
    pub destroys: bool,
    /// Name and value.
    pub variables: Vec<(String, String)>,
    /// Name and where the value is.
    pub secrets: Vec<(String, SecretRef)>,
    /// `key=value` for `-backend-config`.
    pub backend: Vec<(String, String)>,
    /// Directory with the providers, so that no registry is needed.
    pub mirror: Option<PathBuf>,
    /// Default: the first of terraform and tofu on PATH.
    pub program: Option<PathBuf>,
    /// Names of environment variables that the program gets, e.g. `ARM_CLIENT_ID`.
    pub environment: Vec<String>,
    /// A rehearsal's state, beside the real one; nobody writes it in the configuration.
    pub workspace: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifests {
    pub dir: PathBuf,
    /// A file, or `${STEP.OUTPUT}`.
    pub kubeconfig: String,
    pub variables: Vec<(String, String)>,
    /// `NAMESPACE/SECRET/KEY` and where the value is.
    pub secrets: Vec<(String, SecretRef)>,
}

/// What people see while nothing serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenancePage {
    /// A file, or a directory with an `index.html`.
    pub page: PathBuf,
    /// Container of the store's account. Default `$web`, Azure's static website; of a directory store, `web/` in it.
    pub container: String,
    /// Whom to ask; stands for `{{CONTACT}}`.
    pub contact: Option<String>,
    /// From the operation's beginning, how long it is likely to take. With it the page says since when, and when to look again
    /// (`{{TIME}}`, `{{EXPECTED}}`); without it, it is the page that always stands.
    pub expected: Option<Duration>,
    /// Of the times on the page, in seconds east of UTC. Default 0.
    pub utc_offset: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// May hold `${STEP.OUTPUT}`.
    pub url: String,
    /// IP address at which its name is asked for, wherever that name leads by now; may hold `${STEP.OUTPUT}`.
    pub connect: Option<String>,
    pub method: String,
    pub body: Option<String>,
    /// Default 200.
    pub expect: Vec<u16>,
    /// Text that the answer must hold.
    pub contains: Option<String>,
    /// Good answers in a row. Default 3.
    pub times: u32,
    /// Default 5 s.
    pub interval: Duration,
    /// Authority that signed the server's certificate, PEM.
    pub tls_ca: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    pub site: Site,
    /// CloudFront distribution.
    pub distribution: String,
    /// Id of the origin that every behaviour is to use.
    pub origin: String,
    /// Its address, where the distribution does not have it yet; may hold `${STEP.OUTPUT}`.
    pub domain: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryReady {
    pub region: Option<String>,
    /// `CLUSTER/NODEGROUP`
    pub node_groups: Vec<String>,
    /// ARNs.
    pub target_groups: Vec<String>,
    pub rds_instances: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it stands for, where it does more than some work. Default: nothing of the kind.
    pub means: Option<Means>,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Exit 0 says: already done.
    pub probe: Vec<String>,
    /// Arguments of the same program that take it back.
    pub undo: Vec<String>,
    /// Environment variables, and where their values are.
    pub secrets: Vec<(String, SecretRef)>,
    /// Names of environment variables that the program gets beside PATH, HOME and LANG.
    pub environment: Vec<String>,
}

/// What a command may stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    Fence(Site),
    Unfence(Site),
    Traffic(Site),
    Destroy,
}
