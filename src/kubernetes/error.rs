//! Why a cluster did not do what was asked, named for what the caller does next.

use std::path::PathBuf;
use std::time::Duration;

/// Never holds the value of a secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(String),
    #[error("{file}: {detail}", file = .file.display())]
    Manifest { file: PathBuf, detail: String },
    #[error("{file}: no value for {names}: an earlier step has to give them as outputs, or the plan as values",
        file = .file.display(), names = .names.join(", "))]
    MissingVariables { file: PathBuf, names: Vec<String> },
    #[error(
        "{what}: the cluster does not know who we are (401): the kubeconfig's credentials are wrong or ran out; get it anew"
    )]
    Unauthorized { what: String },
    #[error("{what}: refused (403): {detail}. Give the kubeconfig's account that right, with a Role and a RoleBinding")]
    Forbidden { what: String, detail: String },
    #[error(
        "{what}: not there (404): {detail}. Is its namespace among the manifests, its CustomResourceDefinition installed?"
    )]
    NotFound { what: String, detail: String },
    #[error("{what}: others manage these fields (409): {detail}. Look who that is; forcing takes them over")]
    Conflict { what: String, detail: String },
    /// Somebody with a higher epoch was there: we lost the lease and must not go on.
    #[error(
        "{what} was applied under epoch {there}, ours is {ours}: somebody took over. Stop here, and look at `planb status`"
    )]
    StaleEpoch { what: String, there: u64, ours: u64 },
    #[error("{what}: the cluster refuses it ({code}): {detail}")]
    Refused { what: String, code: u16, detail: String },
    #[error("{what}: not within {} s; last: {last}", .limit.as_secs())]
    OutOfTime {
        what: String,
        limit: Duration,
        last: String,
    },
    #[error("the rollout of {what} failed: {detail}")]
    Rollout { what: String, detail: String },
}

impl Error {
    /// Whether trying again cannot help unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::OutOfTime { .. } | Self::Rollout { .. } => false,
            Self::Kubeconfig(_)
            | Self::Manifest { .. }
            | Self::MissingVariables { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Conflict { .. }
            | Self::StaleEpoch { .. }
            | Self::Refused { .. } => true,
        }
    }
}
