//! Why Terraform did not do what was asked, named for what the caller does next.

use std::path::PathBuf;
use std::time::Duration;

use super::events::{Diagnostic, Lock};

/// Never holds the value of a secret variable: texts of Terraform's are searched for them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error(
        "{looked_for} is not there: install Terraform (1.6 or later) or OpenTofu on this machine, or name the program's \
         path in the configuration"
    )]
    NotInstalled { looked_for: String },
    #[error("{} is not there: dir must be the directory of the stage, on every machine that goes on with it", .0.display())]
    NoDirectory(PathBuf),
    #[error("{what}: {detail}")]
    Io { what: String, detail: String },
    /// Providers, modules or the state's backend could not be had. `hint` says how to have them beforehand.
    #[error("terraform init in {dir} failed: {detail}\n{hint}")]
    Init { dir: PathBuf, detail: String, hint: String },
    /// Somebody else is at work on the same state; or was, and was killed.
    #[error(
        "the state is locked by {} since {} ({}): wait for that one to end. Only if it is certainly gone (its machine and \
         process looked at), type: {unlock}", .lock.who, .lock.since, .lock.operation
    )]
    Locked { lock: Box<Lock>, unlock: String },
    /// The plan would destroy what is never destroyed. Nothing was done.
    #[error(
        "refused: the plan would destroy {}, which is protected; nothing was changed. If the configuration of this stage \
         is right, these belong to another one", .0.join(", ")
    )]
    Protected(Vec<String>),
    /// What was made could not be written where the state is kept, now or in an earlier run.
    #[error(
        "the state could not be saved and lies in {file}; nothing is planned without it. When the backend can be reached again, \
         type: {push}; then move that file away", file = .file.display()
    )]
    StateNotSaved { file: PathBuf, push: String },
    /// Terraform said what is wrong. If `partial`, some changes were made and are in the state: applying again goes on
    /// from there.
    #[error("terraform {command} failed{}: {}", if *.partial { " half-way, and applying again goes on from there" } else { "" },
        .diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Failed {
        command: String,
        diagnostics: Vec<Diagnostic>,
        partial: bool,
    },
    /// Stopped with one SIGINT and ended by itself: the state is saved, its lock given back.
    #[error("terraform {command} was cancelled; its state is saved, and running it again goes on from there")]
    Cancelled { command: String, partial: bool },
    /// Did not end within the patience after a SIGINT, so it was killed.
    #[error(
        "terraform {command} did not stop within {} s of a SIGINT and was killed: what it was making may be missing in its \
         state, and the state may stay locked. Compare the cloud with `terraform plan` before anything else", .patience.as_secs()
    )]
    Killed { command: String, patience: Duration },
    /// It ended in a way, or said something, that Terraform does not.
    #[error("terraform {command}: {detail}; is {program} really Terraform or OpenTofu, 1.6 or later?")]
    Unexpected {
        command: String,
        program: PathBuf,
        detail: String,
    },
}

impl Error {
    /// Whether trying again cannot help unless a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NotInstalled { .. }
            | Self::NoDirectory(_)
            | Self::Protected(_)
            | Self::StateNotSaved { .. }
            | Self::Unexpected { .. } => true,
            Self::Io { .. }
            | Self::Init { .. }
            | Self::Locked { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::Killed { .. } => false,
        }
    }
}
