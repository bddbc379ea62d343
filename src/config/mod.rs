//! The configuration, checked once into types that cannot be wrong.
//!
//! `parse` turns TOML text into [`Config`] and reports every problem together, each with its key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::secret::SecretRef;

mod accounts;
pub mod cadence;
mod collect;
pub mod cost;
pub mod drill;
pub mod notify;
pub mod parse;
mod prepare;
mod sections;
mod serve;
pub mod server;
mod standby;
pub mod steps;
mod store;
pub mod telemetry;
pub mod units;
mod verify;
pub mod warnings;
pub mod watch;

pub use parse::{ConfigError, Problem};
pub use warnings::{Warning, warnings};

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub service: Service,
    pub targets: Targets,
    pub source: Source,
    pub store: Store,
    pub backup: Backup,
    pub retention: Retention,
    pub verify: Verify,
    /// Where the agent shows its measurements and its status page. None: nowhere.
    pub serve: Option<Serve>,
    /// Where traces go. None: nowhere.
    pub telemetry: Option<telemetry::Telemetry>,
    /// The server that takes over. None: it is named on each command line.
    pub standby: Option<Standby>,
    /// Who the application is on the standby; a backup holds no accounts.
    pub accounts: Vec<Account>,
    /// The protected database once more, with an account that may fence it and bring data home.
    pub primary: Option<Standby>,
    /// Who is told what.
    pub notify: notify::Notify,
    pub cost: cost::Cost,
    pub drill: drill::Drill,
    pub failover: steps::Failover,
    pub failover_steps: Vec<steps::Step>,
    pub failback_steps: Vec<steps::Step>,
    pub prepare: Prepare,
    /// What a recovery needs of the second cloud's quota. None: nobody asks for it.
    pub quota: Option<Quota>,
    pub doctor: Doctor,
    /// Who watches the primary, and how. None: nobody does.
    pub watch: Option<watch::Watch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Claimed in the store; another service's prefix is refused. `[a-z0-9-]{1,40}`.
    pub name: String,
    /// Where this agent's source stands, e.g. `aws-seoul`; default `primary`. Same alphabet.
    pub site: String,
    /// Which of the two sites `[source]` is. Default: the primary.
    pub protects: steps::Site,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Most data that may be lost, as time. Default 5 min.
    pub rpo: Duration,
    /// Longest time to service. Default 15 min.
    pub rto: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub endpoint: Endpoint,
    pub user: String,
    pub login: Login,
    /// Empty: every schema that is not the server's own, nor PlanB's.
    pub databases: Vec<String>,
    pub tls: Tls,
    pub tls_ca: Option<PathBuf>,
    /// Whether the source is a replica whose applier may be stopped for the instant of the snapshot.
    pub pause_replica: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    pub host: String,
    pub port: u16,
    /// The account that restores.
    pub user: String,
    pub password: SecretRef,
    pub tls: Tls,
    pub tls_ca: Option<PathBuf>,
}

/// One account, from several hosts perhaps, with one password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    /// Patterns as in `'name'@'host'`. Default `%`.
    pub hosts: Vec<String>,
    pub grants: Vec<Grant>,
    pub password: SecretRef,
}

/// What an account may do, on one schema or one table; see `accounts.rs` for what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Words of a fixed list, in capital letters.
    pub privileges: Vec<&'static str>,
    pub schema: String,
    /// None: the whole schema.
    pub table: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Address {
        host: String,
        port: u16,
    },
    /// Endpoint, port and state come from RDS.
    RdsInstance {
        id: String,
        region: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Password(SecretRef),
    /// A token from RDS's IAM authentication, made anew for each connect.
    RdsIam,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Encrypted, certificate and name verified.
    Required,
    /// Plain; only to a loopback address.
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub place: Place,
    /// Ends with `/`. Default `backups/`.
    pub prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub enum Place {
    /// `file:///absolute/dir`: backups under it, control data under its `control/`.
    Directory(PathBuf),
    /// `azblob://ACCOUNT/CONTAINER`; control data in a container of its own (default `CONTAINER-control`).
    Azure {
        account: String,
        container: String,
        control_container: String,
        endpoint: Option<Url>,
        auth: AzureAuth,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureAuth {
    WorkloadIdentity {
        tenant_id: Option<String>,
        client_id: Option<String>,
    },
    ManagedIdentity {
        client_id: Option<String>,
    },
    ClientSecret {
        tenant_id: String,
        client_id: String,
        secret: SecretRef,
    },
    AzLogin,
    /// The SAS token (query string, with or without `?`).
    Sas(SecretRef),
    /// Base64 account key.
    AccountKey(SecretRef),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Backup {
    pub schedule: Schedule,
    /// Reader connections at most. Default 4.
    pub sessions: usize,
    pub lock: Lock,
    /// Longest time that a reader may hold or wait for a metadata lock. Default 1 s.
    pub lock_wait: Duration,
    /// Read at most this many bytes of SQL a second. None: no limit.
    pub max_bytes_per_second: Option<u64>,
    /// Pause between chunks while the source runs more threads than this. None: never.
    pub threads_running_limit: Option<u32>,
    /// Compression level 1–12. Default 3.
    pub level: u8,
    pub verify_source: VerifySource,
    /// No block landed for this long: the attempt ends and gives its snapshot back. Default 60 s.
    pub stall: Duration,
    /// Longest time one run may take over all its attempts. Default 6 h.
    pub timeout: Duration,
}

/// When a run starts. Cron text was parsed once; it is kept for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Five fields, or six with seconds first; UTC.
    Cron(String),
    /// Starts early enough that the worst case meets `targets.rpo`.
    KeepRpo,
}

/// Which way to one point in time may be used; see `dump/snapshot.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// The first way that server and account allow; never `LOCK TABLES`.
    Auto,
    /// No lock of any kind: MariaDB's snapshot positions, or one session.
    None,
    /// `LOCK TABLES … READ` in side sessions. Starves under load.
    Tables,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifySource {
    Never,
    /// With the first run of each UTC day. Default.
    Daily,
    Always,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Whether the agent checks the structure of each backup it made. Default: in a directory, yes; in a cloud, no.
    pub structure: bool,
    /// From this age on, the latest proof that a backup was restored and checked is told as old. Default 26 h.
    pub proof_max_age: Duration,
    /// Where and when the agent restores the newest good backup to prove it. None: it does not.
    pub restore: Option<Proving>,
}

/// The agent's routine proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proving {
    /// A scratch server: `[standby]`, or one that is named in `[verify]`.
    pub to: Standby,
    /// Cron text, UTC. Default: each day at 03:00.
    pub schedule: String,
}

/// The agent's HTTP server. It only reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Default 127.0.0.1:9105.
    pub listen: SocketAddr,
    /// What a caller must know; never missing where `listen` is not a loopback address.
    pub token: Option<SecretRef>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// All backups younger than this are kept. Default 48 h.
    pub keep_all: Duration,
    /// One an hour up to this age. Default 7 days.
    pub keep_hourly: Duration,
    /// One a day up to this many days. Default 30.
    pub keep_days: u32,
    /// Newest good ones never removed. Default 12.
    pub keep_at_least: u32,
    /// Optional generations, counted as the newest N of each period; added to the above.
    pub generations: Generations,
    pub removal: Removal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Generations {
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The agent deletes.
    Delete,
    /// The agent holds no delete right: it tags what may expire, a storage lifecycle rule removes it.
    Tag,
}

/// What is fetched beforehand, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    /// The second cloud's container registry, `HOST` or `HOST:PORT`; the manifests name images there. None: none are copied.
    pub registry: Option<String>,
    pub registry_login: RegistryLogin,
    /// Repository in the registry, and the image (without tag) that it is copied from.
    pub sources: Vec<(String, String)>,
    /// Registries that images come from, as whom to go there, and where the password is.
    pub source_logins: Vec<(String, String, SecretRef)>,
    /// Of the cluster that runs now: are its images those of the manifests?
    pub production_kubeconfig: Option<PathBuf>,
    /// `OS_ARCHITECTURE` of the machines that run Terraform. Default: this one's.
    pub platforms: Vec<String>,
    /// What was prepared longer ago is told as old. Default 7 days.
    pub max_age: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryLogin {
    Anonymous,
    /// Azure's registries: the identity that reaches the store.
    Azure,
    Password {
        user: String,
        password: SecretRef,
    },
}

/// What a recovery takes of the second cloud, asked of Azure Resource Manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    pub subscription: String,
    pub location: String,
    /// Name of a compute quota, e.g. `standardBSFamily`, and how much of it a recovery takes.
    pub compute: Vec<(String, u64)>,
    /// The same of a network quota, e.g. `PublicIPAddresses`.
    pub network: Vec<(String, u64)>,
    /// Any of these will do for the database.
    pub database_skus: Vec<String>,
    pub endpoint: Url,
}

/// What `planb doctor --dark` looks at, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doctor {
    /// When agent and runner look by themselves, UTC. None: never. Default: each day, where there is a plan.
    pub dark_schedule: Option<String>,
    /// Certificates that end sooner are told. Default 30 days.
    pub certificates_valid_for: Duration,
    /// Hosts (`name` or `.suffix`) that a plan may ask beside Azure's, e.g. a private endpoint.
    pub dark_allow: Vec<String>,
    /// A runner that last looked longer ago counts as gone. Default 2 days.
    pub runner_max_age: Duration,
}
