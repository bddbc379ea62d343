//! A step that takes a last backup of a site that was fenced; and how a step takes a backup of any site.

use std::sync::Arc;
use std::time::Duration;

use super::{Executor, chosen, fence, plan, presence};
use crate::backup::run::{Observer, RunError, RunSummary, Wanted};
use crate::config::steps::{Server, Site};
use crate::config::{Config, Endpoint, Login, Source, Standby};
use crate::dump::AttemptError;
use crate::dump::pipeline::Progress;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::{Outcome, Proof};
use crate::recovery::plan::Aim;
use crate::recovery::rules::Answer;
use crate::recovery::state::Standing;

/// How often somebody else's run is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

impl Executor {
    /// In a planned failover, or of the standby, it must come to be; of a primary that is gone, what cannot be had is lost.
    pub(super) async fn last_backup(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let mut config = self.config_of(task, server).await?;
        let mut runner = (self.runner)(&config, &self.backups, &self.control);
        if matches!(task.operation.aim, Aim::Failover { planned: false, .. }) {
            let mut answer = presence::of_source(&runner.finder).await;
            if matches!(answer, Answer::Unasked(_)) && self.settings(server.site).is_some() {
                config = self.as_source(task, server).await?;
                runner = (self.runner)(&config, &self.backups, &self.control);
                answer = presence::of_source(&runner.finder).await;
            }
            let without = format!(
                "to lose what it took in since the backup: --accept skip-{}=REASON",
                task.step.name
            );
            match answer {
                Answer::Healthy(_) => {}
                Answer::Unasked(why) => {
                    return Err(StepError::passing(format!(
                        "whether the primary is there could not be asked ({why}); {without}"
                    )));
                }
                Answer::Gone(why) if answered_the_fence(&task.standing) => {
                    return Err(StepError::passing(format!(
                        "the primary answered when it was fenced, and does not now ({why}): its last writes are there; {without}"
                    )));
                }
                Answer::Gone(why) => {
                    return Ok(Outcome {
                        found: true,
                        note: format!("the primary does not answer ({why}): nothing more could be taken from it"),
                        ..Outcome::default()
                    });
                }
            }
        }
        let done = self.take(task, &runner, true).await?;
        let entries = self.listing().await?;
        let entry = entries
            .iter()
            .find(|entry| entry.id == done.id && entry.digest == done.digest);
        let entry =
            entry.ok_or_else(|| StepError::passing(format!("{} was made, and is not listed as good", done.id)))?;
        Ok(Outcome {
            note: format!("{}: {} rows in {} tables", done.id, done.rows, done.tables),
            backup: Some(chosen(entry)),
            ..Outcome::default()
        })
    }

    pub(super) async fn take(
        &self,
        task: &Task,
        runner: &crate::backup::run::Runner,
        is_last: bool,
    ) -> Result<RunSummary, StepError> {
        let wanted = Wanted {
            holder: format!("{} of operation {}", task.step.name, task.operation.number),
            verify_source: false,
            is_last,
            // The step names the server; a standby is another one each time.
            accept_source_changed: Some(format!("{} of operation {}", task.step.name, task.operation.number)),
        };
        let observer = Told {
            executor: self,
            step: &task.step.name,
        };
        loop {
            match runner.run(&wanted, &observer, &task.cancel).await {
                // The agent's own run; once it learns that its site was fenced, it ends without publishing.
                Err(RunError::Lease(held)) if !task.cancel.is_cancelled() => {
                    self.tell.tell(&task.step.name, &held.to_string());
                    tokio::select! {
                        () = task.cancel.cancelled() => {}
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                done => {
                    return done.map_err(|error| StepError {
                        is_permanent: error.is_permanent(),
                        message: error.to_string(),
                    });
                }
            }
        }
    }

    /// The configuration as if that site were the source.
    pub(super) async fn config_of(&self, task: &Task, server: &Server) -> Result<Config, StepError> {
        if server.site == self.config.service.protects && server.host.is_none() {
            return Ok(self.config.clone());
        }
        self.as_source(task, server).await
    }

    fn settings(&self, site: Site) -> Option<&Standby> {
        match site {
            Site::Primary => self.config.primary.as_ref(),
            Site::Standby => self.config.standby.as_ref(),
        }
    }

    /// The same by `[primary]` or `[standby]`, whatever `[source]` says.
    async fn as_source(&self, task: &Task, server: &Server) -> Result<Config, StepError> {
        let mut config = self.config.clone();
        let site = plan::site(server.site);
        let settings = self
            .settings(server.site)
            .ok_or_else(|| StepError::permanent(format!("the configuration has no [{site}] to take a backup of")))?;
        let address = Box::pin(self.address(task, server)).await?;
        config.source = Source {
            endpoint: Endpoint::Address {
                host: address.host,
                port: address.port,
            },
            user: settings.user.clone(),
            login: Login::Password(settings.password.clone()),
            tls: settings.tls,
            tls_ca: settings.tls_ca.clone(),
            pause_replica: false,
            databases: config.source.databases.clone(),
        };
        config.service.site = format!("{}-{site}", config.service.site).chars().take(40).collect();
        config.service.protects = server.site;
        Ok(config)
    }
}

/// Whether the primary's fence was proven by logins, so that it was there a moment ago; a command may have cut it off instead.
fn answered_the_fence(standing: &Standing) -> bool {
    standing.fenced.get(&plan::site(Site::Primary)) == Some(&Proof::Proven)
        && fence::was_by_login(standing, plan::site(Site::Primary))
}

struct Told<'a> {
    executor: &'a Executor,
    step: &'a str,
}

impl Observer for Told<'_> {
    fn attempt(&self, number: u32, _progress: Arc<Progress>) {
        if number > 1 {
            self.executor.tell.tell(self.step, &format!("attempt {number}"));
        }
    }

    fn estimate(&self, bytes: u64) {
        self.executor
            .tell
            .tell(self.step, &format!("about {bytes} bytes to read"));
    }

    fn repeated(&self, error: &AttemptError) {
        self.executor.tell.tell(self.step, &error.to_string());
    }
}
