//! A step that provisions, or destroys, one directory of Terraform's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Executor;
use super::values::references;
use crate::config::steps::{Kind, Terraform as Written};
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;
use crate::secret::Secret;
use crate::terraform::{Changes, Error, Output, Progress, Terraform};

/// What no recovery destroys or replaces: backups, what opens them, and the page that people see meanwhile.
const PROTECTED: [&str; 5] = [
    "azurerm_storage_account",
    "azurerm_storage_container",
    "azurerm_storage_management_policy",
    "azurerm_key_vault",
    "azurerm_key_vault_secret",
];

impl Executor {
    /// Terraform looks by itself: with nothing to change, nothing is.
    pub(super) async fn terraform(&self, task: &Task, written: &Written) -> Result<Outcome, StepError> {
        let terraform = self.terraform_of(&task.step.name, task, written).await?;
        let told = |progress: Progress| self.tell.tell(&task.step.name, &said(&progress));
        terraform.init(&task.cancel).await.map_err(failed)?;
        let changes = if written.destroys {
            terraform.destroy(&told, &task.cancel).await.map_err(failed)?
        } else {
            terraform.apply(&told, &task.cancel).await.map_err(failed)?
        };
        let outputs = if written.destroys {
            BTreeMap::new()
        } else {
            terraform.outputs(&task.cancel).await.map_err(failed)?
        };
        Ok(Outcome {
            found: !changes.anything,
            note: note(&changes),
            // What is sensitive is read again where it is needed.
            outputs: outputs
                .into_iter()
                .filter_map(|(name, output)| match output {
                    Output::Plain(value) => Some((name, value)),
                    Output::Sensitive(_) => None,
                })
                .collect(),
            ..Outcome::default()
        })
    }

    pub(super) async fn untake_terraform(&self, task: &Task, written: &Written) -> Result<String, StepError> {
        let terraform = self.terraform_of(&task.step.name, task, written).await?;
        let told = |progress: Progress| self.tell.tell(&task.step.name, &said(&progress));
        terraform.init(&task.cancel).await.map_err(failed)?;
        let changes = terraform.destroy(&told, &task.cancel).await.map_err(failed)?;
        Ok(note(&changes))
    }

    /// Outputs that `text` names and no journal holds, since they are sensitive.
    pub(super) async fn sensitive(&self, text: &str, task: &Task) -> Result<Vec<(String, String, Secret)>, StepError> {
        let mut found = Vec::new();
        for (step, output) in references(text) {
            let is_known = task
                .standing
                .outputs
                .get(step)
                .is_some_and(|given| given.values.contains_key(output));
            let is_read = found.iter().any(|(of, _, _): &(String, String, Secret)| of == step);
            if is_known || is_read {
                continue;
            }
            let steps = self.config.failover_steps.iter().chain(&self.config.failback_steps);
            let Some(Kind::Terraform(written)) = steps.clone().find(|one| one.name == step).map(|one| &one.kind) else {
                continue;
            };
            // Its own variables may name outputs too, but of steps before it: the plan has no circles.
            let terraform = Box::pin(self.terraform_of(step, task, written)).await?;
            let never = CancellationToken::new();
            terraform.init(&never).await.map_err(failed)?;
            for (name, output) in terraform.outputs(&never).await.map_err(failed)? {
                if let Output::Sensitive(secret) = output {
                    found.push((step.to_owned(), name, secret));
                }
            }
        }
        Ok(found)
    }

    pub(super) async fn terraform_of(
        &self,
        step: &str,
        task: &Task,
        written: &Written,
    ) -> Result<Terraform, StepError> {
        let data_dir = self.data_dir(step)?;
        let data_dir = match &written.workspace {
            Some(workspace) => data_dir.join(workspace),
            None => data_dir,
        };
        let mut terraform = Terraform::new(&written.dir, data_dir);
        terraform.workspace.clone_from(&written.workspace);
        terraform.program.clone_from(&written.program);
        terraform.mirror.clone_from(&written.mirror);
        terraform.pass.clone_from(&written.environment);
        terraform.protected = PROTECTED.map(str::to_owned).to_vec();
        for (name, value) in &written.variables {
            let value = self.render(value, task).await?.plain(&format!("variable {name}"))?;
            // A list or an object stands as JSON; everything else Terraform converts by itself.
            let value = match value.trim_start().starts_with(['[', '{']) {
                true => serde_json::from_str(&value)
                    .map_err(|error| StepError::permanent(format!("variable {name} is no JSON: {error}")))?,
                false => Value::String(value),
            };
            terraform.variables.insert(name.clone(), value);
        }
        for (name, reference) in &written.secrets {
            let secret = self.secret(reference, &format!("variable {name}")).await?;
            terraform.secrets.insert(name.clone(), secret);
        }
        for (name, value) in &written.backend {
            let value = self.render(value, task).await?.plain(&format!("backend {name}"))?;
            terraform.backend.insert(name.clone(), value);
        }
        Ok(terraform)
    }

    /// Providers and plans of one step, on this machine.
    fn data_dir(&self, step: &str) -> Result<PathBuf, StepError> {
        let of = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = of("STATE_DIRECTORY")
            .or_else(|| of("XDG_STATE_HOME").map(|dir| dir.join("planb")))
            .or_else(|| of("HOME").map(|home| home.join(".local/state/planb")));
        let base = base.ok_or_else(|| {
            StepError::permanent("there is no place for Terraform's plans: set HOME or XDG_STATE_HOME to a directory")
        })?;
        Ok(base.join("terraform").join(&self.config.service.name).join(step))
    }
}

fn said(progress: &Progress) -> String {
    match progress {
        Progress::WaitingForLock => "somebody else is at work on the same state; waiting for its lock".to_owned(),
        Progress::Resource {
            address,
            elapsed_seconds,
            completed,
            planned,
            ..
        } => format!("{completed} of {planned}, {address} for {elapsed_seconds} s"),
    }
}

fn note(changes: &Changes) -> String {
    if changes.anything {
        format!(
            "{} added, {} changed, {} destroyed",
            changes.add, changes.change, changes.destroy
        )
    } else {
        "nothing to change".to_owned()
    }
}

pub(super) fn failed(error: Error) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}
