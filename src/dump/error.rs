//! Why an attempt ended, named for what the run does next.

use super::pipeline::PipelineError;
use crate::mysql::DbError;
use crate::store::StoreError;

/// Why an attempt ended. Never holds a secret or data.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttemptError {
    #[error(transparent)]
    Source(#[from] DbError),
    #[error("the definition of {what} changed while it was dumped")]
    SchemaChanged { what: String },
    #[error(
        "{table} has no usable key, and somebody waited for it while it was read; give it a primary key, or dump at a quieter time"
    )]
    Yielded { table: String },
    #[error(
        "somebody waited for a table that was read, and with its binlog on MariaDB gives such locks back only with the whole \
         snapshot; dump at a quieter time"
    )]
    InTheWay,
    #[error("{table}: {detail}; the rows read are not the rows there, so this dump is thrown away")]
    Mismatch { table: String, detail: String },
    #[error("{0}")]
    Replica(String),
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the name {0} is taken already")]
    NameTaken(String),
    #[error("the account does not see everything, and the server hides what it does not: {}", .0.join("; "))]
    MissingGrants(Vec<String>),
    #[error("schema {0} does not exist on the source; check [source] databases")]
    NoSuchSchema(String),
    #[error("there is no schema to back up on the source; a backup of nothing would look like one")]
    NothingToDump,
    #[error("the source runs {0}, which this planb does not know; see README for the versions")]
    UnknownVersion(String),
    #[error("cancelled")]
    Cancelled,
    #[error("a reader ended unexpectedly: {0}")]
    Panicked(String),
}

impl AttemptError {
    /// Whether a fresh snapshot cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Source(error) => error.is_permanent(),
            Self::Store(error) | Self::Pipeline(PipelineError::Store(error)) => error.is_permanent(),
            Self::Pipeline(PipelineError::TooManyBlocks(_) | PipelineError::Compression) => true,
            Self::Pipeline(PipelineError::Stalled(_) | PipelineError::Stopped)
            | Self::SchemaChanged { .. }
            | Self::Yielded { .. }
            | Self::InTheWay
            | Self::NameTaken(_) => false,
            Self::Mismatch { .. }
            | Self::Replica(_)
            | Self::MissingGrants(_)
            | Self::NoSuchSchema(_)
            | Self::NothingToDump
            | Self::UnknownVersion(_)
            | Self::Cancelled
            | Self::Panicked(_) => true,
        }
    }

    /// Names the table where the server's own message may not.
    pub(super) fn in_table(self, table: &str) -> Self {
        match self {
            Self::Source(DbError::DefinitionChanged { .. }) => Self::SchemaChanged { what: table.to_owned() },
            other => other,
        }
    }
}
