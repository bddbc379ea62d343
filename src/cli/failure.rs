//! How a command failed: the message for a person and the exit code for a script.

use serde_json::json;

use crate::backup::claim::ClaimError;
use crate::backup::lease::LeaseError;
use crate::backup::run::RunError;
use crate::config::parse::ConfigError;
use crate::dump::AttemptError;
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
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused(_) => 3,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Failed(message) | Self::Usage(message) | Self::Refused(message) => message,
        }
    }

    pub fn report(&self, json: bool) {
        if json {
            println!("{}", json!({"v": 1, "error": {"message": self.message(), "exit": self.exit_code()}}));
        }
        eprintln!("planb: {}", self.message());
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::OtherService { .. } | ClaimError::OtherServer { .. } | ClaimError::Unreadable(_) => {
                Self::Refused(error.to_string())
            }
            ClaimError::Store(error) => error.into(),
        }
    }
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Held { .. } | LeaseError::Lost { .. } => Self::Refused(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Claim(error) => error.into(),
            RunError::Lease(error) => error.into(),
            RunError::Attempt(AttemptError::NoSuchSchema(_)) => Self::Usage(error.to_string()),
            RunError::Login(_)
            | RunError::Attempt(_)
            | RunError::Store(_)
            | RunError::ClockSetBack { .. }
            | RunError::OutOfTime { .. }
            | RunError::LeaseLost
            | RunError::Cancelled => Self::Failed(error.to_string()),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<LoginError> for Failure {
    fn from(error: LoginError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        RunError::Attempt(error).into()
    }
}
