//! Steps in a rehearsal: on a server of its own, thrown away afterwards, and with nothing of the real site in reach.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::database::{SESSIONS, restore_error, set_locked};
use super::terraform::failed;
use super::{Executor, db_error, plan, store_error};
use crate::backup::claim;
use crate::backup::lease;
use crate::backup::ledger as proofs;
use crate::backup::proof::{By, Level};
use crate::config::steps::{Kind, Server, Terraform};
use crate::dump::literal::string;
use crate::mysql::{Address, Session};
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;
use crate::recovery::journal::Journal;
use crate::recovery::plan::{Role, Step};
use crate::recovery::state::Progress as Standing;
use crate::restore::accounts::Account;
use crate::restore::compare::compare;
use crate::restore::ledger;
use crate::restore::load::Progress;
use crate::restore::plan::Wish;
use crate::restore::run::{Restore, discard};
use crate::restore::target;
use crate::terraform::names::in_common;

/// What is real, and so is none of a rehearsal's.
#[derive(Debug, Clone, Default)]
pub struct Avoid {
    /// Databases by host, in small letters, and port.
    pub addresses: Vec<(String, u16)>,
    /// Servers by what they call themselves: a name may lead anywhere.
    pub identities: BTreeSet<String>,
    /// Terraform's steps as they are in earnest, by name.
    pub terraform: BTreeMap<String, Terraform>,
}

impl Avoid {
    pub fn is_real(&self, host: &str, port: u16) -> bool {
        // A name with its last dot is the same name.
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.addresses.contains(&(host, port))
    }
}

impl Executor {
    /// What a step does where nothing is real.
    pub(super) async fn rehearse(&self, task: &Task) -> Result<Outcome, StepError> {
        let kind = &self.written(task)?.kind;
        if let Kind::Verify(server) | Kind::Accounts(server) | Kind::Open(server) = kind {
            let address = self.address(task, server).await?;
            let mut session = address.connect().await.map_err(db_error)?;
            let real = self.what_is_real(&mut session, &address, None).await;
            session.close().await;
            refuse(real?)?;
        }
        match kind {
            Kind::Terraform(terraform) => self.rehearse_terraform(task, terraform).await,
            Kind::Restore(server) => self.rehearse_restore(task, server).await,
            Kind::Verify(server) => self.rehearse_verify(task, server).await,
            Kind::Accounts(server) => self.accounts(task, server).await,
            Kind::Open(server) => self.rehearse_open(task, server).await,
            Kind::Manifests(manifests) => self.manifests(task, manifests).await,
            Kind::Http(http) => self.http(task, http).await,
            Kind::Command(command) => self.command(task, command).await,
            kind => Err(StepError::permanent(format!(
                "a step of kind {} is never rehearsed",
                plan::kind(kind)
            ))),
        }
    }

    /// Takes a rehearsed step back, whether or not it was done.
    pub(super) async fn unrehearse(&self, task: &Task) -> Result<String, StepError> {
        match &self.written(task)?.kind {
            Kind::Terraform(terraform) => self.untake_terraform(task, terraform).await,
            Kind::Restore(server) => self.unrehearse_restore(task, server).await,
            // One that means anything for what serves is never rehearsed, so there is nothing of it to undo, whatever the plan says by now.
            Kind::Command(command) if !command.undo.is_empty() && command.means.is_none() => {
                if !task.operation.has_made(&task.step.name) {
                    return Ok("it was so before".to_owned());
                }
                // The machine that was started for a rehearsal is the one that the failover needs.
                let journal = Journal::new(Arc::clone(&self.control), &claim::key(&self.config.store.prefix));
                if journal.known().await.map_err(store_error)?.is_open {
                    return Ok("left as it is: a failover or failback was begun, which may need it".to_owned());
                }
                self.undo_command(task, command).await
            }
            _ => Ok("nothing of it stays".to_owned()),
        }
    }

    /// First whether what would be made is called like what is real, as far as Terraform shows that beforehand.
    async fn rehearse_terraform(&self, task: &Task, written: &Terraform) -> Result<Outcome, StepError> {
        let compared = match self.avoid.terraform.get(&task.step.name) {
            Some(real) => self.names_in_common(task, written, real).await,
            None => Ok(Vec::new()),
        };
        let unknown = match compared {
            Ok(names) if names.is_empty() => String::new(),
            Ok(names) => {
                return Err(StepError::permanent(format!(
                    "nothing was made, since it would be called like what is real: {}. Give it names of its own, by [drill] variables or by \
                     terraform.workspace in the name",
                    names.join("; ")
                )));
            }
            Err(_) if task.cancel.is_cancelled() => {
                return Err(StepError::passing("it was stopped before anything was made"));
            }
            Err(why) => format!("; whether names are the real ones' could not be told: {why}"),
        };
        let mut outcome = self.terraform(task, written).await?;
        outcome.note.push_str(&unknown);
        Ok(outcome)
    }

    async fn names_in_common(&self, task: &Task, own: &Terraform, real: &Terraform) -> Result<Vec<String>, StepError> {
        let own = self.terraform_of(&task.step.name, task, own).await?;
        own.init(&task.cancel).await.map_err(failed)?;
        let ours = own.plan_shown(&task.cancel).await.map_err(failed)?;
        // In what a rehearsal's steps gave, nothing is the real one's: then only what stands can be compared.
        let is_plain = real.variables.iter().all(|(_, value)| !value.contains("${"));
        let mut theirs = own.clone();
        if is_plain {
            theirs.variables = self.terraform_of(&task.step.name, task, real).await?.variables;
        }
        theirs.workspace = Some("default".to_owned());
        let theirs = match is_plain {
            true => theirs.plan_shown(&task.cancel).await,
            false => theirs.state_shown(&task.cancel).await,
        };
        Ok(in_common(&ours, &theirs.map_err(failed)?))
    }

    /// Why this server is none of a rehearsal's, if it is not: it says itself who it is, and whether the application was ever let in.
    async fn what_is_real(
        &self,
        session: &mut Session,
        address: &Address,
        source: Option<&str>,
    ) -> Result<Option<String>, StepError> {
        let at = format!("{}:{}", address.host, address.port);
        let identity = target::identity(session)
            .await
            .map_err(|error| restore_error(error.into()))?;
        if self.avoid.identities.contains(&identity) || source == Some(identity.as_str()) {
            return Ok(Some(format!(
                "{at} is a database of the real thing under another name: backups were taken of the server with its identity, {identity}"
            )));
        }
        if ledger::is_there(session, "opened").await.map_err(db_error)? {
            return Ok(Some(format!("{at} was opened to the application by a failover")));
        }
        let restored = ledger::records(session).await.map_err(db_error)?;
        let real = restored.iter().find(|record| !record.trial);
        Ok(real.map(|record| format!("at {at}, {} was restored in earnest", record.backup)))
    }

    fn trial(
        &self,
        task: &Task,
        archive: crate::backup::archive::Archive,
        address: &Address,
        accounts: Vec<Account>,
    ) -> Restore {
        Restore {
            archive,
            backup: task
                .operation
                .backup
                .as_ref()
                .map(|backup| backup.id.clone())
                .unwrap_or_default(),
            address: address.clone(),
            definers: BTreeMap::new(),
            accounts,
            sessions: SESSIONS,
            start_over: false,
            replace: false,
            // Marked as what it is: its schemas go when it is over, and only its own.
            trial: true,
            tune: false,
            instead_of: BTreeSet::new(),
        }
    }

    async fn rehearse_restore(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let (archive, chosen) = self.archive(task).await?;
        let accounts = self.application().await?;
        let mut session = address.connect().await.map_err(db_error)?;
        let source = archive.index.summary.server_identity.as_str();
        let claimed = match self.what_is_real(&mut session, &address, Some(source)).await {
            Ok(None) => claim(&mut session, &accounts).await,
            Ok(real) => refuse(real),
            Err(error) => Err(error),
        };
        session.close().await;
        claimed?;
        let restore = self.trial(task, archive, &address, accounts);
        let progress = Arc::new(Progress::default());
        let restored = self.watched(task, &restore, &progress).await?;
        Ok(Outcome {
            note: format!(
                "{}: {} rows in {} tables, {:.1} s, {} bytes of SQL",
                chosen.id,
                restored.rows,
                restored.tables,
                restored.duration.as_secs_f64(),
                restored.raw_bytes
            ),
            outputs: BTreeMap::from([
                ("host".to_owned(), address.host.clone().into()),
                ("port".to_owned(), address.port.into()),
            ]),
            backup: Some(chosen),
            ..Outcome::default()
        })
    }

    /// Schemas that carry the rehearsal's mark, and accounts that it made.
    async fn unrehearse_restore(&self, task: &Task, server: &Server) -> Result<String, StepError> {
        // What made this very server is taken back after this, and takes along whatever cannot be reached any more. With [drill] to nobody
        // knows, and a server that stands costs more than a schema that the next rehearsal there throws away.
        let before = task.operation.plan.before(&task.step.name);
        let mut makers = before.into_iter().filter_map(|name| task.operation.plan.step(name));
        let is_made = makers.any(|step| {
            let names = |host: &String| host.contains(&format!("${{{}.", step.name));
            step.kind == "terraform" && server.host.as_ref().is_none_or(names)
        });
        let address = match self.address(task, server).await {
            Ok(address) => address,
            Err(error) if is_made => return Ok(format!("its server is not known ({error}), and goes by itself")),
            Err(error) => return Err(error),
        };
        let mut session = match address.connect().await {
            Ok(session) => session,
            Err(error) if is_made => {
                return Ok(format!("its server does not answer ({error}), and goes by itself"));
            }
            Err(error) => return Err(db_error(error)),
        };
        let dropped = match self.what_is_real(&mut session, &address, None).await {
            Ok(None) => drop_claimed(&mut session).await.map(Ok).map_err(db_error),
            Ok(Some(why)) => Ok(Err(why)),
            Err(error) => Err(error),
        };
        session.close().await;
        let dropped = match dropped? {
            Ok(dropped) => dropped,
            // Nothing was done there, or what was done went when it became real.
            Err(why) => return Ok(format!("nothing is touched there: {why}")),
        };
        let Some(chosen) = &task.operation.backup else {
            return Ok("no backup was chosen".to_owned());
        };
        // By its digest alone: a backup that proved damaged, or is pruned by now, must not keep the rest from being taken back.
        discard(&address, &chosen.digest, &task.cancel)
            .await
            .map_err(restore_error)?;
        Ok(format!("{} is off the server again, {dropped} accounts too", chosen.id))
    }

    /// Compared, it counts as a proof of that backup.
    async fn rehearse_verify(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let (archive, chosen) = self.archive(task).await?;
        let wish = Wish {
            accounts: self.application().await?,
            ..Wish::default()
        };
        let compared = compare(&address, &archive, &wish, SESSIONS, &task.cancel)
            .await
            .map_err(restore_error)?;
        if !compared.differences.is_empty() {
            return Err(StepError::permanent(format!(
                "the database is not what {} says: {}",
                chosen.id,
                compared.differences.join("; ")
            )));
        }
        let entries = self.listing().await?;
        let proven = match entries.iter().find(|entry| entry.blob == chosen.blob) {
            Some(entry) => {
                let level = Level::Restored {
                    server: compared.server.clone(),
                    tables_compared: compared.tables as u64,
                    checksums_compared: compared.tables as u64,
                };
                let by = By {
                    host: lease::host_name(),
                    site: self.config.service.site.clone(),
                    planb: env!("CARGO_PKG_VERSION").to_owned(),
                };
                let (backups, control) = (self.backups.as_ref(), self.control.as_ref());
                let prefix = &self.config.store.prefix;
                let noted = proofs::found(
                    backups,
                    control,
                    prefix,
                    entry,
                    (level, by, restoring(task) + compared.duration),
                )
                .await;
                noted.map_or_else(
                    |error| format!("not written down: {error}"),
                    |()| "written down as a proof".to_owned(),
                )
            }
            None => "not written down: it is not listed".to_owned(),
        };
        Ok(Outcome {
            note: format!(
                "{} tables, {} rows and {} views, routines, triggers and events are those of {}; {proven}",
                compared.tables, compared.rows, compared.objects, chosen.id
            ),
            outputs: BTreeMap::from([
                ("tables_compared".to_owned(), compared.tables.into()),
                ("checksums_compared".to_owned(), compared.tables.into()),
                ("rows_compared".to_owned(), compared.rows.into()),
                ("objects_compared".to_owned(), compared.objects.into()),
                ("server".to_owned(), compared.server.into()),
                (
                    "definitions".to_owned(),
                    if compared.exact { "by their text" } else { "by name" }.into(),
                ),
            ]),
            ..Outcome::default()
        })
    }

    /// The application may log in on the rehearsal's server; events stay as they came, which is disabled.
    async fn rehearse_open(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let accounts = self.application().await?;
        let mut session = address.connect().await.map_err(db_error)?;
        let unlocked = set_locked(&mut session, &accounts, false).await;
        session.close().await;
        unlocked?;
        Ok(Outcome {
            note: format!("{} accounts unlocked; events stay disabled", accounts.len()),
            ..Outcome::default()
        })
    }
}

/// What the restore took that is compared now: a proof's time is of both.
fn restoring(task: &Task) -> Duration {
    let took = |step: &Step| match (&step.role, task.operation.progress(&step.name)) {
        (Role::Restore(_), Standing::Done { since, at, .. }) => Duration::try_from(at.duration_since(*since)).ok(),
        _ => None,
    };
    task.operation.plan.steps.iter().filter_map(took).sum()
}

fn refuse(real: Option<String>) -> Result<(), StepError> {
    match real {
        None => Ok(()),
        Some(why) => Err(StepError::permanent(format!(
            "{why}. A rehearsal needs a server of its own; if nobody needs what is there any more, drop it together with the schema planb"
        ))),
    }
}

/// Accounts that are somebody else's are not touched: written down first are those that the rehearsal makes.
async fn claim(session: &mut Session, accounts: &[Account]) -> Result<(), StepError> {
    let taken = claimed(session, accounts).await.map_err(db_error)?;
    if taken.is_empty() {
        return Ok(());
    }
    Err(StepError::permanent(format!(
        "the rehearsal's server has {} already, and they are not of a rehearsal: give it a server of its own",
        taken.join(", ")
    )))
}

async fn claimed(session: &mut Session, accounts: &[Account]) -> Result<Vec<String>, crate::mysql::DbError> {
    ledger::prepare(session).await?;
    session
        .execute(
            "CREATE TABLE IF NOT EXISTS planb.rehearsed_accounts (user VARCHAR(128) NOT NULL, host VARCHAR(255) CHARACTER SET ascii NOT NULL, \
             PRIMARY KEY (user, host)) ENGINE=InnoDB",
        )
        .await?;
    let there = session.pairs("SELECT User, Host FROM mysql.user").await?;
    let ours = session.pairs("SELECT user, host FROM planb.rehearsed_accounts").await?;
    let mut taken = Vec::new();
    for account in accounts {
        for host in &account.hosts {
            let pair = (account.name.clone(), host.clone());
            if there.contains(&pair) && !ours.contains(&pair) {
                taken.push(format!("{}@{host}", account.name));
            }
        }
    }
    if taken.is_empty() {
        for account in accounts {
            for host in &account.hosts {
                let sql = format!(
                    "INSERT IGNORE INTO planb.rehearsed_accounts VALUES ({}, {})",
                    string(&account.name),
                    string(host)
                );
                session.execute(sql).await?;
            }
        }
    }
    Ok(taken)
}

async fn drop_claimed(session: &mut Session) -> Result<usize, crate::mysql::DbError> {
    if !ledger::is_there(session, "rehearsed_accounts").await? {
        return Ok(0);
    }
    let ours = session.pairs("SELECT user, host FROM planb.rehearsed_accounts").await?;
    for (user, host) in &ours {
        session
            .execute(format!("DROP USER IF EXISTS {}@{}", string(user), string(host)))
            .await?;
    }
    session.execute("DROP TABLE planb.rehearsed_accounts").await?;
    Ok(ours.len())
}
