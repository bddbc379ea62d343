//! What the steps of a recovery plan do, kind by kind: each looks first, so that it can be done again after it was broken off
//! anywhere.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::backup::entry::{Entry, newest_good};
use crate::backup::ledger::Ledger;
use crate::backup::run::Runner;
use crate::backup::{claim, shelf};
use crate::config::Config;
use crate::config::steps::{Kind, Server, Step as Written};
use crate::mysql::DbError;
use crate::recovery::engine::{Hands, StepError, Task};
use crate::recovery::event::{Chosen, Outcome};
use crate::recovery::journal::Journal;
use crate::recovery::plan::Aim;
use crate::secret::resolver::Resolver;
use crate::secret::{Secret, SecretRef};
use crate::store::{BlobStore, StoreError};

mod backups;
mod command;
mod database;
mod drill;
mod fence;
mod http;
mod outside;
mod page;
pub mod plan;
pub mod presence;
mod preserve;
mod site;
mod store;
mod terraform;
pub mod values;

pub use drill::Avoid;
use values::{Rendered, render};

/// Told what a step does at the moment; for a person's screen, and for whoever follows from elsewhere.
pub trait Tell: Send + Sync {
    fn tell(&self, step: &str, text: &str);
}

/// From a configuration, the store of backups, and that of control data.
pub type MakeRunner = fn(&Config, &Arc<dyn BlobStore>, &Arc<dyn BlobStore>) -> Runner;

/// Opens the container of pages beside that of backups.
pub type OpenPages = for<'a> fn(&'a Config, &'a str) -> BoxFuture<'a, Result<Arc<dyn BlobStore>, StoreError>>;

/// Carries steps out as the configuration says.
pub struct Executor {
    pub config: Config,
    pub resolver: Resolver,
    pub backups: Arc<dyn BlobStore>,
    pub control: Arc<dyn BlobStore>,
    pub tell: Arc<dyn Tell>,
    /// Makes what takes a backup as this configuration says.
    pub runner: MakeRunner,
    /// What is not touched whatever a step says: in a rehearsal, all that is real.
    pub avoid: Avoid,
    pub pages: OpenPages,
}

#[async_trait]
impl Hands for Executor {
    async fn carry_out(&self, task: &Task) -> Result<Outcome, StepError> {
        if let Aim::Drill { .. } = task.operation.aim {
            return self.rehearse(task).boxed().await;
        }
        // Each boxed on its own: all in one future is larger than any, and nests deeper than the compiler will follow.
        let doing: BoxFuture<'_, Result<Outcome, StepError>> = match &self.written(task)?.kind {
            Kind::Restore(server) => self.restore(task, server).boxed(),
            Kind::Verify(server) => self.verify(task, server).boxed(),
            Kind::Accounts(server) => stopping(task, self.accounts(task, server)).boxed(),
            Kind::Open(server) => stopping(task, self.open(task, server)).boxed(),
            Kind::LastBackup(server) => self.last_backup(task, server).boxed(),
            Kind::Preserve(preserve) => self.preserve(task, preserve).boxed(),
            Kind::MaintenancePage(page) => self.maintenance_page(task, page).boxed(),
            Kind::StoreReady => self.store_ready(task).boxed(),
            Kind::Http(http) => self.http(task, http).boxed(),
            Kind::Command(command) => self.command(task, command).boxed(),
            Kind::Manual { text } => return manual(task, text),
            Kind::Fence(server) => self.fence(task, server).boxed(),
            Kind::Unfence(server) => stopping(task, self.unfence(task, server)).boxed(),
            Kind::Terraform(terraform) => self.terraform(task, terraform).boxed(),
            Kind::Manifests(manifests) => self.manifests(task, manifests).boxed(),
            Kind::Traffic(traffic) => self.traffic(task, traffic).boxed(),
            Kind::PrimaryReady(wanted) => self.primary_ready(task, wanted).boxed(),
        };
        doing.await
    }

    async fn take_back(&self, task: &Task) -> Result<String, StepError> {
        if let Aim::Drill { .. } = task.operation.aim {
            return self.unrehearse(task).boxed().await;
        }
        match &self.written(task)?.kind {
            Kind::Command(command) => self.undo_command(task, command).await,
            Kind::Fence(server) => stopping(task, self.lift(task, server)).await,
            Kind::Terraform(terraform) => self.untake_terraform(task, terraform).await,
            Kind::MaintenancePage(page) => self.put_page_back(task, page).await,
            _ => Ok("nothing had to be taken back".to_owned()),
        }
    }

    async fn newest(&self) -> Result<Option<Chosen>, StepError> {
        let entries = self.listing().await?;
        Ok(newest_good(&entries).map(chosen))
    }
}

/// A database that went silent is given up where it stands: whatever was done of the step is found when it is done again.
async fn stopping<T>(task: &Task, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
    tokio::select! {
        biased;
        done = work => done,
        () = task.cancel.cancelled() => Err(StepError::passing(
            "the database has not answered in time; a part of it may be done, and is found when the step is done again",
        )),
    }
}

/// What an operation keeps of a backup.
pub fn chosen(entry: &Entry) -> Chosen {
    Chosen {
        id: entry.id.to_string(),
        blob: entry.blob.clone(),
        digest: entry.digest.clone(),
        consistent_at: entry.consistent_at,
    }
}

impl Executor {
    async fn unfence(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let note = self.lift(task, server).await?;
        Ok(Outcome {
            note,
            ..Outcome::default()
        })
    }

    fn written(&self, task: &Task) -> Result<&Written, StepError> {
        let steps = plan::written(task.operation.aim, &self.config);
        steps.iter().find(|step| step.name == task.step.name).ok_or_else(|| {
            StepError::permanent(format!(
                "this machine's configuration has no step {}; use the one that the operation began with",
                task.step.name
            ))
        })
    }

    async fn secret(&self, reference: &SecretRef, of: &str) -> Result<Secret, StepError> {
        self.resolver.resolve(reference).await.map_err(|error| StepError {
            message: format!("{of}: {error}"),
            is_permanent: error.is_permanent(),
        })
    }

    async fn render(&self, text: &str, task: &Task) -> Result<Rendered, StepError> {
        // Boxed: it may run Terraform, and every step that holds a text would carry all of that in its own future.
        render(text, task, &Box::pin(self.sensitive(text, task)).await?)
    }

    /// Every backup with what was found out about it, newest first.
    async fn listing(&self) -> Result<Vec<Entry>, StepError> {
        let prefix = &self.config.store.prefix;
        let journal = Journal::new(Arc::clone(&self.control), &claim::key(prefix));
        let standing = journal.known().await.map_err(store_error)?.standing;
        let mut entries = shelf::list(self.backups.as_ref(), prefix, &self.config.service.name, &standing)
            .await
            .map_err(store_error)?;
        // One that was found damaged is no good; without that knowledge none is thrown out.
        if let Err(error) = Ledger::default()
            .join(self.control.as_ref(), prefix, &mut entries)
            .await
        {
            tracing::warn!(%error, "proofs cannot be read; going on without");
        }
        Ok(entries)
    }
}

/// Done once a person says so; who and when stands in the journal.
fn manual(task: &Task, text: &str) -> Result<Outcome, StepError> {
    let confirmed = format!("confirm-{}", task.step.name);
    match task
        .operation
        .accepted
        .iter()
        .find(|accepted| accepted.rule == confirmed)
    {
        Some(accepted) => Ok(Outcome {
            note: format!("{} confirms: {}", accepted.who, accepted.reason),
            ..Outcome::default()
        }),
        None => Err(StepError::permanent(format!(
            "a person is needed: {text} When it is done, say so: {} --resume --accept {confirmed}=WHAT-WAS-DONE",
            task.operation.aim.command()
        ))),
    }
}

fn db_error(error: DbError) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}

fn store_error(error: StoreError) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}
