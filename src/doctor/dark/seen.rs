//! What is seen in the dark: plain facts, gathered by `cli/dark`.

use std::time::Duration;

use jiff::Timestamp;

use crate::prepare::record::Looker;

/// Everything that one place saw.
#[derive(Debug, Clone)]
pub struct Seen {
    pub now: Timestamp,
    /// Whose eyes these were. An agent looks at the operator's steps, with fewer rights than an operator has.
    pub looker: Looker,
    /// Certificates that end sooner are told.
    pub valid_for: Duration,
    /// Preparations that are older are told.
    pub max_age: Duration,
    pub newest: Newest,
    /// When this machine was prepared, if ever; or why nobody knows.
    pub prepared: Result<Option<Timestamp>, String>,
    pub tools: Vec<Tool>,
    pub roots: Vec<Root>,
    pub secrets: Vec<Secret>,
    pub manifests: Vec<Manifests>,
    pub images: Vec<Image>,
    pub certificates: Vec<Certificate>,
    pub runner: Runner,
    /// A runner that last looked longer ago counts as gone.
    pub runner_max_age: Duration,
    /// When an operator last looked; for the agent, which may not see all that an operator may.
    pub operator_looked: Option<Timestamp>,
    pub servers: Vec<Server>,
    pub quota: Quota,
    /// Steps of the failover that AWS itself has to carry out.
    pub needs_aws: Vec<String>,
}

/// The newest good backup.
#[derive(Debug, Clone, Default)]
pub enum Newest {
    #[default]
    Absent,
    /// The store, or the backup in it, cannot be read.
    Unread(String),
    Read {
        id: String,
        /// When a backup was last restored and checked.
        proven_at: Option<Timestamp>,
    },
}

/// A program that a step runs.
#[derive(Debug, Clone)]
pub struct Tool {
    pub step: String,
    pub path: String,
    /// Its version, or its hash; or why it cannot be run.
    pub now: Result<String, String>,
    /// As it was prepared.
    pub then: Option<String>,
}

/// A Terraform directory.
#[derive(Debug, Clone)]
pub struct Root {
    pub step: String,
    pub dir: String,
    pub went: Went,
    /// Hosts that it asked for in vain.
    pub refused: Vec<String>,
    pub has_mirror: bool,
    pub has_lock_file: bool,
    /// Packages that were prepared and are another or gone.
    pub altered: Vec<String>,
}

/// How far it came in the dark.
#[derive(Debug, Clone)]
pub enum Went {
    /// Planned: so many changes.
    Planned {
        changes: u64,
    },
    /// Initialised and valid; not planned, since these are not known yet.
    Valid {
        unknown: Vec<String>,
    },
    /// Valid; its state was not shown to the agent, which has no rights there.
    Stateless {
        why: String,
    },
    /// What is destroyed later is initialised only.
    Initialised,
    Failed {
        doing: &'static str,
        why: String,
    },
}

/// A reference of the plan.
#[derive(Debug, Clone)]
pub struct Secret {
    /// `step database: variable admin_password`
    pub of: String,
    pub went: Result<(), Unresolved>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    pub why: String,
    /// It is there, or may be: whoever looked may not read it.
    pub is_refused: bool,
}

/// The manifests of a step, rendered with what is known.
#[derive(Debug, Clone)]
pub struct Manifests {
    pub step: String,
    pub went: Result<usize, String>,
    /// Why a kubeconfig that is a file cannot be used.
    pub kubeconfig: Option<String>,
}

/// An image that the manifests name.
#[derive(Debug, Clone)]
pub struct Image {
    pub name: String,
    pub went: Pulled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    There,
    /// The registry is the second cloud's, and has it not.
    Missing,
    /// Not pinned by a digest: nobody knows what would run.
    Unpinned,
    /// Another registry than the configured one.
    Elsewhere,
    /// It is no name of an image.
    Nonsense,
    /// The registry shows nothing to whoever looked.
    Refused(String),
    Unknown(String),
}

/// A certificate that a recovery relies on.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where it is: a file's key and path, a secret's place, a host.
    pub at: String,
    /// Owner, and its first and last moment; or why it cannot be read.
    pub read: Result<Vec<(String, Timestamp, Timestamp)>, String>,
}

/// What the runner last said of itself, where the plan has steps for it.
#[derive(Debug, Clone, Default)]
pub enum Runner {
    #[default]
    NotNeeded,
    Silent,
    Unread(String),
    Said {
        at: Timestamp,
        host: String,
        errors: usize,
        worst: Vec<String>,
    },
}

/// A database that steps of this place work on.
#[derive(Debug, Clone)]
pub struct Server {
    /// `standby` or `primary`.
    pub site: &'static str,
    pub went: Reached,
}

#[derive(Debug, Clone)]
pub enum Reached {
    Yes,
    /// It comes with stage 2.
    NotYet,
    No(String),
}

#[derive(Debug, Clone, Default)]
pub enum Quota {
    #[default]
    NotAsked,
    /// Whoever looked has no right to ask.
    Refused(String),
    Unknown(String),
    /// What there is not enough of.
    Known(Vec<String>),
}
