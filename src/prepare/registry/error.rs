//! Why a registry did not do what was asked, named for what the caller does next.

/// Why a registry did not do what was asked. Never holds a password or token.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    #[error("{registry} does not answer: {detail}")]
    Unreachable { registry: String, detail: String },
    #[error("{registry} refused access to {what} ({detail}): look at the login, and its rights there")]
    Denied {
        registry: String,
        what: String,
        detail: String,
    },
    #[error("{registry} has no {what}")]
    Missing { registry: String, what: String },
    /// What it gave is not what its digest says.
    #[error("{registry} gave something else than {what}: {detail}")]
    Different {
        registry: String,
        what: String,
        detail: String,
    },
    #[error("{registry} answered {status} to {what}{detail}")]
    Answered {
        registry: String,
        what: String,
        status: u16,
        detail: String,
    },
}

impl RegistryError {
    /// Whether trying again cannot help unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Different { .. } => false,
            Self::Denied { .. } | Self::Missing { .. } => true,
            Self::Answered { status, .. } => *status < 500 && *status != 429,
        }
    }
}
