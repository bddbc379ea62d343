//! Why a restore ended, named for what the caller does next.

use crate::backup::archive::ReadError;
use crate::dump::AttemptError;
use crate::mysql::DbError;

use super::foreign::DumpError;
use super::schema::SchemaError;
use super::statements::ScriptError;

/// Never holds a secret or data.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RestoreError {
    /// Found before anything was written.
    #[error("{}", list(.0))]
    Refused(Vec<String>),
    #[error(
        "another restore is running on the target; wait for it, or end it where it runs (its session holds the lock \
         planb_restore)"
    )]
    Busy,
    #[error(
        "an unfinished restore of {0} stands on the target; finish it (planb restore {0} …), or throw it away and begin anew \
         with --start-over"
    )]
    Unfinished(String),
    #[error(
        "an unfinished restore of {0} stands on the target, which is to replace what is there; go on with it (planb restore {0} \
         --replace …), or put back what was there (planb restore --roll-back …)"
    )]
    UnfinishedReplacing(String),
    #[error("a restore of {0} is being taken back; let that come to its end first: planb restore --roll-back")]
    RollingBack(String),
    #[error(
        "the restore of {0} that stands on the target was begun without --replace, into a place that was empty; finish it \
         without, or begin anew with --start-over"
    )]
    BegunWithout(String),
    #[error(
        "what was loaded is not what the backup says: {}; nothing of what was there is touched; throw away what was loaded with \
         --roll-back, or begin anew with --start-over",
        .0.join("; ")
    )]
    Different(Vec<String>),
    /// Somebody holds locks that a swap needs.
    #[error(
        "the tables that are to change places are in use{0}; nothing has changed places; stop the application, or wait for it, \
         and run the same command again"
    )]
    InUse(String),
    #[error(
        "a dump, {0}, was loaded on the target in part, and cannot be gone on with; throw it away and begin anew with --start-over"
    )]
    UnfinishedForeign(String),
    #[error("the dump is damaged: {0}")]
    Dump(#[from] DumpError),
    /// Of a dump that cannot be gone on with.
    #[error(
        "{cause}; the target holds a part of it now (schemas: {}), nothing of which may be used; run the same command with \
         --start-over, which drops it and begins anew",
        schemas.join(", ")
    )]
    HalfLoaded {
        schemas: Vec<String>,
        cause: Box<RestoreError>,
    },
    #[error(
        "an unfinished restore of this backup stands on the target, but {0} is not what it made any more: somebody dropped or \
         replaced it; look at it, then begin anew with --start-over, which drops only what restores made"
    )]
    Replaced(String),
    /// The backup itself, or the way to it.
    #[error(transparent)]
    Backup(#[from] ReadError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Script(#[from] ScriptError),
    #[error("the target: {0}")]
    Target(#[from] DbError),
    #[error("the target: {0}")]
    Survey(AttemptError),
    #[error("{place}: {detail}; what is on the target is not the backup, nothing of it may be used")]
    Rows { place: String, detail: String },
    #[error("somebody else has taken the restore over; look there")]
    TakenOver,
    /// The data is there; these logins do not work.
    #[error("everything is restored, but not every account can log in: {}", .0.join("; "))]
    Logins(Vec<String>),
    #[error("stopped")]
    Cancelled,
    /// Something is on the target already, and the same call goes on with it.
    #[error(transparent)]
    Begun(Box<RestoreError>),
    #[error("a part of the restore failed in a way nobody foresaw ({0}); run the same command again")]
    Panicked(String),
}

impl From<AttemptError> for RestoreError {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Source(error) => Self::Target(error),
            other => Self::Survey(other),
        }
    }
}

impl RestoreError {
    /// Whether the backup is at fault: another one may do.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Backup(error) => error.is_damage(),
            Self::Schema(_) | Self::Script(_) => true,
            Self::Dump(error) => match error {
                DumpError::Unpack(_) | DumpError::NoLastLine | DumpError::Own => true,
                DumpError::Input(_) => false,
            },
            Self::Begun(error) | Self::HalfLoaded { cause: error, .. } => error.is_damage(),
            Self::Refused(_)
            | Self::Busy
            | Self::Unfinished(_)
            | Self::UnfinishedForeign(_)
            | Self::UnfinishedReplacing(_)
            | Self::RollingBack(_)
            | Self::BegunWithout(_)
            | Self::Different(_)
            | Self::InUse(_)
            | Self::Replaced(_)
            | Self::Target(_)
            | Self::Survey(_)
            | Self::Rows { .. }
            | Self::TakenOver
            | Self::Logins(_)
            | Self::Cancelled
            | Self::Panicked(_) => false,
        }
    }

    /// Whether the same step may go well a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            // What a dump does again with fresh definitions is final here.
            Self::Target(DbError::DefinitionChanged { .. }) => false,
            Self::Target(error) => !error.is_permanent(),
            Self::Backup(error) => !error.is_permanent(),
            Self::Begun(error) => error.is_passing(),
            Self::Refused(_)
            | Self::Busy
            | Self::Unfinished(_)
            | Self::UnfinishedForeign(_)
            | Self::UnfinishedReplacing(_)
            | Self::RollingBack(_)
            | Self::BegunWithout(_)
            | Self::Different(_)
            | Self::InUse(_)
            | Self::Dump(_)
            | Self::HalfLoaded { .. }
            | Self::Replaced(_)
            | Self::Schema(_)
            | Self::Script(_)
            | Self::Survey(_)
            | Self::Rows { .. }
            | Self::TakenOver
            | Self::Logins(_)
            | Self::Cancelled
            | Self::Panicked(_) => false,
        }
    }
}

fn list(problems: &[String]) -> String {
    match problems {
        [only] => only.clone(),
        many => format!("{} things stand against it:\n  - {}", many.len(), many.join("\n  - ")),
    }
}
