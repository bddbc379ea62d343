//! How a command failed: the message for a person and the exit code for a script.

use serde_json::json;

use crate::backup::claim::ClaimError;
use crate::backup::lease::LeaseError;
use crate::backup::run::RunError;
use crate::config::parse::ConfigError;
use crate::dump::AttemptError;
use crate::recovery::rules::Rule;
use crate::restore::RestoreError;
use crate::secret::SecretError;
use crate::source::login::LoginError;
use crate::store::StoreError;

/// Named for the exit code.
#[derive(Debug)]
pub enum Failure {
    /// 1
    Failed(String),
    /// 2
    Usage(String),
    /// 3
    Refused(String),
    /// 4
    StoppedPartWay(String),
    /// 5
    Damaged(String),
    /// What failed stands in the one object that was printed; this is for people.
    Printed { exit: u8, message: String },
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// By one rule, that nobody can answer for.
    pub fn refused(rule: Rule, why: &str) -> Self {
        Self::Refused(format!("{}: {why}", rule.name()))
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
            Self::StoppedPartWay(_) => 4,
            Self::Damaged(_) => 5,
            Self::Printed { exit, .. } => *exit,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Refused(message)
            | Self::StoppedPartWay(message)
            | Self::Damaged(message)
            | Self::Printed { message, .. } => message,
        }
    }

    pub fn report(&self, json: bool) {
        if json && !matches!(self, Self::Printed { .. }) {
            println!(
                "{}",
                json!({"v": 1, "error": {"message": self.message(), "exit": self.exit_code()}})
            );
        }
        // A check has said everything in its one line.
        if !self.message().is_empty() {
            eprintln!("planb: {}", self.message());
        }
    }
}

/// An error with its causes. Some say their cause already; those are not repeated.
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(told(&error))
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::OtherService { .. } | ClaimError::OtherServer { .. } | ClaimError::Unreadable(_) => {
                Self::Refused(told(&error))
            }
            ClaimError::Store(error) => error.into(),
        }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Held { .. } => Self::refused(Rule::LeaseHeld, &told(&error)),
            LeaseError::Lost { .. } => Self::refused(Rule::LeaseLost, &told(&error)),
            LeaseError::Store { .. } => Self::Failed(told(&error)),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Claim(error) => error.into(),
            RunError::Lease(error) => error.into(),
            RunError::LeaseLost | RunError::ClockSetBack { .. } | RunError::NotServing(_) => {
                Self::Refused(told(&error))
            }
            RunError::Attempt(AttemptError::NoSuchSchema(_)) => Self::Usage(told(&error)),
            RunError::Login(_)
            | RunError::Attempt(_)
            | RunError::Store(_)
            | RunError::OutOfTime { .. }
            | RunError::ReplicaBehind { .. }
            | RunError::TooManyAttempts { .. }
            | RunError::StoppedAfterCommit(_)
            | RunError::StoppedInCommit(_)
            | RunError::Cancelled => Self::Failed(told(&error)),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let text = told(&error);
        match error {
            RestoreError::Refused(_)
            | RestoreError::Busy
            | RestoreError::Unfinished(_)
            | RestoreError::UnfinishedForeign(_)
            | RestoreError::UnfinishedReplacing(_)
            | RestoreError::RollingBack(_)
            | RestoreError::BegunWithout(_)
            | RestoreError::Replaced(_) => Self::Refused(text),
            RestoreError::HalfLoaded { ref cause, .. } if matches!(**cause, RestoreError::Refused(_)) => {
                Self::Refused(text)
            }
            _ if error.is_damage() => Self::Damaged(text),
            RestoreError::Begun(_) => Self::StoppedPartWay(format!("{text}; the same command goes on from here")),
            RestoreError::HalfLoaded { .. }
            | RestoreError::Dump(_)
            | RestoreError::Backup(_)
            | RestoreError::Schema(_)
            | RestoreError::Script(_)
            | RestoreError::Target(_)
            | RestoreError::Survey(_)
            | RestoreError::Rows { .. }
            | RestoreError::TakenOver
            | RestoreError::Different(_)
            | RestoreError::InUse(_)
            | RestoreError::Logins(_)
            | RestoreError::Cancelled
            | RestoreError::Panicked(_) => Self::Failed(text),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(told(&error))
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::Failed(told(&error))
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        Self::Failed(told(&error))
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        RunError::Attempt(error).into()
    }
}
