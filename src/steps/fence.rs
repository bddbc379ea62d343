//! Steps that fence a database, and lift the fence again.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::database::Instead;
use super::{Executor, plan};
use crate::config::steps::{self, Kind, Server};
use crate::fence::{Change, Credentials, Fence, FenceError, Held, Pattern, Raised, Verdict};
use crate::mysql::Address;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::{Outcome, Proof};
use crate::recovery::operation::Operation;
use crate::recovery::plan::Site;
use crate::recovery::state::Standing;

/// How long sessions may take to end; a large transaction takes its time to be rolled back.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a fence changed, among a step's outputs: where the server could not keep it, this is all there is.
fn changes(site: Site) -> String {
    format!("changes-at-{site}")
}

impl Executor {
    pub(super) async fn fence(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let fence = self
            .fence_of(self.address(task, server).await?, server.read_only)
            .await?;
        let remembered = remembered(task, server);
        let told = |text: &str| self.tell.tell(&task.step.name, text);
        let raised = tokio::select! {
            raised = fence.raise(task.operation.number, &remembered, &told) => raised.map_err(fence_error)?,
            () = task.cancel.cancelled() => return Err(StepError::passing("stopped while the fence was being raised")),
        };
        let (proof, note) = match raised.verdict() {
            Verdict::Proven => (Proof::Proven, told_of(&raised)),
            Verdict::Unprovable(why) => (Proof::Unprovable, why),
            Verdict::Failed(why) => {
                return Err(StepError::passing(format!(
                    "the {} could not be fenced: {why}",
                    plan::site(server.site)
                )));
            }
        };
        let mut outcome = Outcome {
            note,
            proof: Some(proof),
            ..Outcome::default()
        };
        if let Ok(changes) = serde_json::to_value(&raised.changes) {
            outcome.outputs.insert(self::changes(plan::site(server.site)), changes);
        }
        Ok(outcome)
    }

    /// Takes back what a fence changed at the site, in whichever operation that was.
    pub(super) async fn lift(&self, task: &Task, server: &Server) -> Result<String, StepError> {
        let fence = self.fence_of(self.address(task, server).await?, false).await?;
        let told = |text: &str| self.tell.tell(&task.step.name, text);
        task.confirm().await?;
        let lifted = fence
            .lift(task.operation.number, &remembered(task, server), &told)
            .await
            .map_err(fence_error)?;
        Ok(match lifted.len() {
            0 => format!("there was no fence at the {}", plan::site(server.site)),
            n => format!("{n} changes of the fence at the {} taken back", plan::site(server.site)),
        })
    }

    /// Raises a pending fence again, from outside any operation: as the plan's own step does, or, where no step fences that site, as
    /// the configuration has its database.
    ///
    /// # Errors
    /// Why it could not be tried, or is still not proven.
    pub async fn fence_again(&self, site: Site, standing: &Standing, operation: &Operation) -> Result<(), StepError> {
        let steps = self.config.failover_steps.iter().chain(&self.config.failback_steps);
        let written = steps.clone().find(|step| plan::fences(&step.kind) == Some(site));
        let task = written.and_then(|written| {
            let step = plan::plan(std::slice::from_ref(written)).steps.pop()?;
            Some(Task::outside(step, operation.clone(), standing.clone()))
        });
        let server = match written.map(|written| &written.kind).zip(task.as_ref()) {
            Some((Kind::Command(command), task)) => {
                let outcome = self.command(task, command).await?;
                return match outcome.proof {
                    Some(Proof::Proven) => Ok(()),
                    _ => Err(StepError::passing(match outcome.note.is_empty() {
                        true => format!("{} says that nobody can tell", command.program.display()),
                        false => outcome.note,
                    })),
                };
            }
            Some((Kind::Fence(server), task)) => (self.address(task, server).await?, server.read_only),
            _ => {
                let written = match site {
                    Site::Primary => steps::Site::Primary,
                    Site::Standby => steps::Site::Standby,
                };
                (self.address_of(written, Instead::default()).await?, false)
            }
        };
        let fence = self.fence_of(server.0, server.1).await?;
        let raised = fence
            .raise(operation.number, &kept(standing, site), &|_| {})
            .await
            .map_err(fence_error)?;
        match raised.verdict() {
            Verdict::Proven => Ok(()),
            Verdict::Unprovable(why) | Verdict::Failed(why) => Err(StepError::passing(why)),
        }
    }

    async fn fence_of(&self, address: Address, read_only: bool) -> Result<Fence, StepError> {
        let mut accounts = Vec::new();
        let mut try_as = Vec::new();
        for account in self.application().await? {
            accounts.extend(account.full_names().map(|name| Pattern::parse(&name)));
            // At the primary the password may be another one: a login that fails for that is no proof, and is told so.
            try_as.push(Credentials {
                user: account.name.clone(),
                password: account.password.clone(),
                token_login: false,
            });
        }
        if accounts.is_empty() {
            return Err(StepError::permanent(
                "the configuration has no [[accounts]]: nobody knows whom to fence; add the application's accounts, or fence by a \
                 command step",
            ));
        }
        let mut spared = vec![self.config.source.user.clone(), address.user.clone()];
        spared.extend(
            [&self.config.primary, &self.config.standby]
                .into_iter()
                .flatten()
                .map(|one| one.user.clone()),
        );
        Ok(Fence {
            address,
            accounts,
            spared,
            try_as,
            read_only,
            patience: PATIENCE,
        })
    }
}

/// Whether what fences of that site changed was changed by logging in.
pub(super) fn was_by_login(standing: &Standing, site: Site) -> bool {
    let key = changes(site);
    standing.outputs.values().any(|given| given.values.contains_key(&key))
}

fn remembered(task: &Task, server: &Server) -> BTreeSet<Change> {
    kept(&task.standing, plan::site(server.site))
}

/// What fences of that site changed, as far as outputs tell.
fn kept(standing: &Standing, site: Site) -> BTreeSet<Change> {
    let key = changes(site);
    standing
        .outputs
        .values()
        .filter_map(|given| given.values.get(&key))
        .filter_map(|changes: &Value| serde_json::from_value::<BTreeSet<Change>>(changes.clone()).ok())
        .flatten()
        .collect()
}

fn told_of(raised: &Raised) -> String {
    let proven: Vec<&str> = raised
        .rungs
        .iter()
        .filter(|rung| rung.held == Held::Proven)
        .map(|rung| rung.what.as_str())
        .collect();
    proven.join("; ")
}

fn fence_error(error: FenceError) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}
