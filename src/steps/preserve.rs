//! A step that keeps what a site has and nobody else got: a snapshot by RDS, a backup that nothing removes, and the rows that the
//! other site never received as SQL beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::database::restore_error;
use super::{Executor, db_error, plan, stopping};
use crate::backup::entry::{Entry, Standing};
use crate::backup::run::Runner;
use crate::backup::{shelf, verify};
use crate::config::steps::{Preserve, Server, Site};
use crate::mysql::Address;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::{Outcome, Proof};
use crate::recovery::plan as recovery;
use crate::recovery::rules::Rule;
use crate::restore::divergence::script::Script;
use crate::restore::divergence::since::Since;
use crate::restore::divergence::{Divergence, divergence};
use crate::source::rds::{Rds, RdsError, Snapshot};

/// How often a snapshot is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Tables that the journal counts one by one.
const TABLES_COUNTED: usize = 100;

impl Executor {
    pub(super) async fn preserve(&self, task: &Task, preserve: &Preserve) -> Result<Outcome, StepError> {
        let server = &preserve.server;
        // Found before anything is frozen: the restore that follows would refuse to move a second old content aside.
        if server.site == Site::Primary {
            stopping(task, self.no_old_content(task, server)).await?;
        }
        let mut notes = Vec::new();
        if let Some(instance) = &preserve.rds_snapshot {
            notes.push(self.rds_snapshot(task, instance, preserve.region.as_deref()).await?);
        }
        let mut config = self.config_of(task, server).await?;
        config.store.prefix = shelf::preserved(&self.config.store.prefix);
        let runner = (self.runner)(&config, &self.backups, &self.control);
        let kept = self.kept_of(task, server, &runner, &config.store.prefix).await?;
        notes.push(format!("{} under {}: {} rows", kept.id, config.store.prefix, kept.rows));
        let mut outputs = BTreeMap::new();
        if server.site == Site::Primary {
            let address = runner.finder.address().await.map_err(|error| StepError {
                is_permanent: error.is_permanent(),
                message: error.to_string(),
            })?;
            let (told, counted) = self.divergence(task, &address, &kept, &config.store.prefix).await?;
            notes.push(told);
            outputs.insert("divergence".to_owned(), counted);
        }
        Ok(Outcome {
            note: notes.join("; "),
            outputs,
            ..Outcome::default()
        })
    }

    /// The backup of that site under `preserved/`: the one that an earlier try of this operation made, or a new one.
    async fn kept_of(&self, task: &Task, server: &Server, runner: &Runner, prefix: &str) -> Result<Entry, StepError> {
        let standing = &task.standing;
        // What was kept is still the whole only where no write could come after it.
        let is_fenced = standing.fenced.get(&plan::site(server.site)) == Some(&Proof::Proven)
            && !task.operation.has_accepted(Rule::Unfenced);
        if is_fenced {
            let opened = task.operation.opened_at;
            let is_ours = |entry: &Entry| entry.blob == entry.id.blob(prefix) && entry.committed_at >= opened;
            let kept = self.listing().await?.into_iter().find(is_ours);
            if let Some(kept) = kept.filter(|kept| kept.standing == Standing::Preserved) {
                let told = format!("{} was kept by an earlier try", kept.blob);
                self.tell.tell(&task.step.name, &told);
                return Ok(kept);
            }
        }
        let done = self.take(task, runner, true).await?;
        let blob = done.id.blob(prefix);
        let listed = self.listing().await?.into_iter();
        let mut kept = listed.filter(|entry| entry.blob == blob && entry.digest == done.digest);
        kept.next()
            .ok_or_else(|| StepError::passing(format!("{blob} was made, and is not in the store")))
    }

    /// Its name is the operation's, so that whoever does it again finds it.
    async fn rds_snapshot(&self, task: &Task, instance: &str, region: Option<&str>) -> Result<String, StepError> {
        let name = snapshot_name(&self.config.service.name, task);
        let rds = Rds::default();
        loop {
            let snapshot = rds.snapshot(instance, &name, region).await.map_err(rds_error)?;
            match snapshot {
                Snapshot::Available => return Ok(format!("RDS snapshot {name} of {instance}")),
                Snapshot::Underway(how) => self.tell.tell(&task.step.name, &format!("RDS snapshot {name}: {how}")),
            }
            tokio::select! {
                () = task.cancel.cancelled() => {
                    return Err(StepError::passing(format!(
                        "RDS snapshot {name} of {instance} is not available yet; RDS goes on with it, and the same step waits for it again"
                    )));
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// In words, and counted. Where it cannot be told the whole is kept all the same, and the operation goes on.
    async fn divergence(
        &self,
        task: &Task,
        address: &Address,
        kept: &Entry,
        prefix: &str,
    ) -> Result<(String, Value), StepError> {
        let unknown = |why: String| {
            let told = format!("what the standby never received was not computed: {why}");
            (told, json!({"computed": false, "why": why}))
        };
        let Some(began) = task.standing.restored.get(&recovery::Site::Standby) else {
            return Ok(unknown("nobody knows which backup the standby began from".to_owned()));
        };
        let entries = self.listing().await?;
        let is = |entry: &&Entry| entry.blob == began.blob && entry.digest == began.digest;
        let Some(began) = entries.iter().find(is) else {
            return Ok(unknown(format!(
                "{}, which the standby began from, is not in the store any more",
                began.blob
            )));
        };
        let index = match verify::open(&self.backups, kept).await {
            Ok(archive) => archive.index,
            Err(error) => return Err(restore_error(error.into())),
        };
        let began = match verify::open(&self.backups, began).await {
            Ok(archive) => archive,
            Err(error) if error.is_damage() => return Ok(unknown(format!("{}: {error}", began.blob))),
            Err(error) => return Err(restore_error(error.into())),
        };
        let name = format!("{prefix}{}.divergence.sql.gz", kept.id);
        let mut script = Script::new(self.backups.clone(), name, run_id(task, kept));
        let tell = |text: &str| self.tell.tell(&task.step.name, text);
        let compared = divergence(address, &began, &index, &mut script, &tell, &task.cancel).await;
        let found = match compared {
            Err(error) if error.is_damage() => return Ok(unknown(error.to_string())),
            found => found.map_err(restore_error)?,
        };
        let written = script
            .commit(&head(task, &began.describe(), kept, &found))
            .await
            .map_err(restore_error)?;
        Ok((told(&found, written.as_deref()), counted(&found, written.as_deref())))
    }

    async fn no_old_content(&self, task: &Task, server: &Server) -> Result<(), StepError> {
        let address = self.address(task, server).await?;
        let mut session = address.connect().await.map_err(db_error)?;
        let old = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'planb\\_old\\_%'";
        let old: Vec<String> = session
            .text(old)
            .await
            .map_err(db_error)?
            .into_iter()
            .flatten()
            .collect();
        session.close().await;
        if old.is_empty() || task.operation.committed_at.is_some() {
            return Ok(());
        }
        Err(StepError::permanent(format!(
            "{} of an earlier failback is still at the primary, and would be in the way; keep what you need of it, then remove it with \
             planb restore --drop-old --to mysql://{}@{}:{} --password …",
            old.join(", "),
            address.user,
            address.host,
            address.port
        )))
    }
}

/// RDS takes letters, digits and single hyphens.
fn snapshot_name(service: &str, task: &Task) -> String {
    let at = task.operation.opened_at.strftime("%Y%m%d%H%M%S");
    let text = format!("planb-{service}-{}-{at}", task.operation.number).to_lowercase();
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    let mut name = String::new();
    for letter in letters.filter(char::is_ascii) {
        if letter != '-' || !name.ends_with('-') {
            name.push(letter);
        }
    }
    name
}

/// The same for whoever does it again for the same backup.
fn run_id(task: &Task, kept: &Entry) -> String {
    let mark = kept.digest.get(..16).unwrap_or(&kept.digest);
    format!("{:08x}{mark}", task.operation.number)
}

fn head(task: &Task, began: &str, kept: &Entry, found: &Divergence) -> Vec<String> {
    let mut lines = vec![
        format!("PlanB, operation {}: what the old primary has and the standby never received.", task.operation.number),
        format!("Compared: the old primary (as kept in {}) with {began}, which the standby began from.", kept.id),
        "Replayed onto a copy of the latter it makes that equal to the former. Rows of the old primary replace whatever has".to_owned(),
        "their keys: read them before they go to a database that has taken writes since. Triggers fire as ever.".to_owned(),
    ];
    lines.extend(found.tables.iter().map(|one| {
        format!(
            "{}: {} added, {} changed, {} removed",
            one.table, one.added, one.changed, one.removed
        )
    }));
    lines.extend(found.notes.iter().cloned());
    if let Since::Transactions(what) = &found.since {
        lines.push(format!(
            "In the old primary's log: {what} (those of the fence among them)"
        ));
    }
    lines
}

fn told(found: &Divergence, written: Option<&str>) -> String {
    if found.since == Since::Nothing {
        return "by its binlog the old primary has nothing that the standby never received".to_owned();
    }
    let place = written.map(|name| format!("; as SQL in {name}")).unwrap_or_default();
    format!("what the standby never received: {}{place}", found.told())
}

fn counted(found: &Divergence, written: Option<&str>) -> Value {
    let sum = |of: fn(&crate::restore::divergence::TableDifference) -> u64| found.tables.iter().map(of).sum::<u64>();
    let tables: BTreeMap<&str, Value> = found
        .tables
        .iter()
        .take(TABLES_COUNTED)
        .map(|one| {
            let counts = json!({"added": one.added, "changed": one.changed, "removed": one.removed});
            (one.table.as_str(), counts)
        })
        .collect();
    let log = match &found.since {
        Since::Nothing => "nothing since".to_owned(),
        Since::Transactions(what) => what.clone(),
        Since::Unknown(why) => format!("not known: {why}"),
    };
    json!({
        "computed": true, "log": log.chars().take(500).collect::<String>(), "tables": tables, "notes": found.notes, "sql": written,
        "added": sum(|one| one.added), "changed": sum(|one| one.changed), "removed": sum(|one| one.removed),
    })
}

fn rds_error(error: RdsError) -> StepError {
    StepError {
        is_permanent: error.is_permanent(),
        message: error.to_string(),
    }
}
