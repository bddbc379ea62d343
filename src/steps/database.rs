//! Steps on a site's database: the restore, the comparison, the application's accounts, and the opening for its writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::values::Rendered;
use super::{Executor, db_error};
use crate::backup::archive::Archive;
use crate::backup::verify;
use crate::config::steps::{Server, Site};
use crate::dump::literal::string;
use crate::mysql::{Address, Session};
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::{Chosen, Outcome};
use crate::restore::accounts::Account;
use crate::restore::compare::compare;
use crate::restore::ledger::{self, Phase};
use crate::restore::load::Progress;
use crate::restore::logins::{self, Login};
use crate::restore::plan::{Plan, Wish};
use crate::restore::run::{Observer, Restore, Restored};
use crate::restore::{RestoreError, events, target};
use crate::secret::Secret;

/// Sessions that load, and then compare, at once.
pub(super) const SESSIONS: usize = 4;
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// What a step says of a database beside what is configured.
#[derive(Default)]
pub(super) struct Instead {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub user: Option<String>,
    pub password: Option<Secret>,
}

impl Executor {
    /// Where a site's database is, password in hand.
    pub(super) async fn address(&self, task: &Task, server: &Server) -> Result<Address, StepError> {
        let mut instead = Instead::default();
        if let Some(host) = &server.host {
            instead.host = Some(self.render(host, task).await?.plain("host")?);
        }
        if let Some(port) = &server.port {
            let text = self.render(port, task).await?.plain("port")?;
            let port = text.parse::<u16>().ok().filter(|port| *port > 0);
            instead.port = Some(port.ok_or_else(|| StepError::permanent(format!("port = \"{text}\" is no port")))?);
        }
        if let Some(user) = &server.user {
            instead.user = Some(self.render(user, task).await?.plain("user")?);
        }
        if let Some(password) = &server.password {
            instead.password = match self.render(password, task).await? {
                Rendered::Sensitive(secret) => Some(secret),
                Rendered::Plain(_) => {
                    return Err(StepError::permanent(format!(
                        "password = \"{password}\": that output is not sensitive, so it stands in the journal for all to read; write \
                         sensitive = true at it in Terraform, and give the account another password"
                    )));
                }
            };
        }
        self.address_of(server.site, instead).await
    }

    pub(super) async fn address_of(&self, site: Site, instead: Instead) -> Result<Address, StepError> {
        let (settings, section) = match site {
            Site::Primary => (&self.config.primary, "[primary]"),
            Site::Standby => (&self.config.standby, "[standby]"),
        };
        let Some(settings) = settings else {
            return Err(StepError::permanent(format!(
                "the configuration has no {section}: it says where that database is, and as whom to write to it"
            )));
        };
        let host = instead.host.unwrap_or_else(|| settings.host.clone());
        let port = instead.port.unwrap_or(settings.port);
        if self.avoid.is_real(&host, port) {
            return Err(StepError::permanent(format!(
                "{host}:{port} is a database of the real thing, which a rehearsal does not touch: give it a server of its own"
            )));
        }
        let tls_ca = match &settings.tls_ca {
            Some(path) => Some(
                tokio::fs::read(path)
                    .await
                    .map_err(|error| StepError::permanent(format!("{section} tls_ca {}: {error}", path.display())))?,
            ),
            None => None,
        };
        let password = match instead.password {
            Some(password) => password,
            None => self.secret(&settings.password, &format!("{section} password")).await?,
        };
        Ok(Address {
            host,
            port,
            user: instead.user.unwrap_or_else(|| settings.user.clone()),
            password,
            token_login: false,
            tls: settings.tls,
            tls_ca,
        })
    }

    pub(super) async fn archive(&self, task: &Task) -> Result<(Archive, Chosen), StepError> {
        let Some(chosen) = task.operation.backup.clone() else {
            return Err(StepError::permanent("the operation has no backup to restore"));
        };
        let entries = self.listing().await?;
        let entry = entries
            .iter()
            .find(|entry| entry.blob == chosen.blob && entry.digest == chosen.digest)
            .ok_or_else(|| StepError::permanent(format!("{} is not in the store any more", chosen.blob)))?;
        let archive = verify::open(&self.backups, entry)
            .await
            .map_err(RestoreError::from)
            .map_err(restore_error)?;
        Ok((archive, chosen))
    }

    pub(super) async fn restore(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let (archive, chosen) = self.archive(task).await?;
        let done = |found: bool, note: String| Outcome {
            found,
            note,
            outputs: BTreeMap::from([
                ("host".to_owned(), address.host.clone().into()),
                ("port".to_owned(), address.port.into()),
            ]),
            backup: Some(chosen.clone()),
            ..Outcome::default()
        };
        if self.is_restored(&address, &archive.digest).await? {
            return Ok(done(true, format!("{} stands there already", chosen.id)));
        }
        // At home the accounts are there, and locked; they stay as they are until it opens.
        let accounts = match server.site {
            Site::Standby => self.application().await?,
            Site::Primary => Vec::new(),
        };
        let restore = Restore {
            replace: self.holds_something(&address, &archive).await?,
            archive,
            backup: chosen.id.clone(),
            address: address.clone(),
            definers: BTreeMap::new(),
            accounts,
            sessions: SESSIONS,
            start_over: false,
            trial: false,
            tune: false,
            instead_of: self.unfinished(&address, &chosen.digest).await?,
        };
        if restore.replace && server.site == Site::Standby {
            // What an earlier rehearsal replaced there was a backup, too.
            match restore.drop_old(&task.cancel).await {
                // One that was broken off while it replaced is gone on with.
                Ok(_)
                | Err(RestoreError::Refused(_) | RestoreError::Unfinished(_) | RestoreError::UnfinishedReplacing(_)) => {
                }
                Err(error) => return Err(restore_error(error)),
            }
        }
        let restored = self.watched(task, &restore, &Arc::new(Progress::default())).await?;
        let note = format!(
            "{}: {} rows in {} tables, {:.0} s{}",
            chosen.id,
            restored.rows,
            restored.tables,
            restored.duration.as_secs_f64(),
            match restored.repairs.len() {
                0 => String::new(),
                n => format!("; {n} things changed on the way"),
            }
        );
        Ok(done(false, note))
    }

    /// Restores, and tells how far it is.
    pub(super) async fn watched(
        &self,
        task: &Task,
        restore: &Restore,
        progress: &Arc<Progress>,
    ) -> Result<Restored, StepError> {
        let watching = Told {
            executor: self,
            step: &task.step.name,
        };
        let total = restore.archive.size_bytes();
        let running = restore.run(progress, &watching, &task.cancel);
        let mut running = std::pin::pin!(running);
        let mut tick = tokio::time::interval(TOLD_EVERY);
        loop {
            tokio::select! {
                restored = &mut running => return restored.map_err(restore_error),
                _ = tick.tick() => {
                    let loaded = progress.stored_bytes.load(std::sync::atomic::Ordering::Relaxed);
                    let rows = progress.rows.load(std::sync::atomic::Ordering::Relaxed);
                    let share = loaded.saturating_mul(100) / total.max(1);
                    self.tell.tell(&task.step.name, &format!("{share}% of {}, {rows} rows", restore.backup));
                }
            }
        }
    }

    pub(super) async fn verify(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let (archive, chosen) = self.archive(task).await?;
        let wish = Wish {
            accounts: self.application().await?,
            ..Wish::default()
        };
        let compared = compare(&address, &archive, &wish, SESSIONS, &task.cancel)
            .await
            .map_err(restore_error)?;
        if compared.differences.is_empty() {
            return Ok(Outcome {
                note: format!(
                    "{} tables, {} rows and {} views, routines, triggers and events are those of {}",
                    compared.tables, compared.rows, compared.objects, chosen.id
                ),
                ..Outcome::default()
            });
        }
        Err(StepError::permanent(format!(
            "the database is not what {} says: {}",
            chosen.id,
            compared.differences.join("; ")
        )))
    }

    /// The accounts are made, tried, and locked: nobody writes before the site opens.
    pub(super) async fn accounts(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let accounts = self.application().await?;
        let address = self.address(task, server).await?;
        let mut session = address.connect().await.map_err(db_error)?;
        let target = target::survey(&mut session)
            .await
            .map_err(|error| restore_error(error.into()))?;
        task.confirm().await?;
        set_locked(&mut session, &accounts, false).await?;
        logins::make(&address, &accounts, &target)
            .await
            .map_err(restore_error)?;
        logins::grant_tables(&address, &accounts, &target)
            .await
            .map_err(restore_error)?;
        let tried = logins::test(&address, &accounts, &target).await;
        // Whoever went on meanwhile may have opened the site.
        task.confirm().await?;
        set_locked(&mut session, &accounts, true).await?;
        session.close().await;
        let failed: Vec<String> = tried
            .iter()
            .filter_map(|made| match &made.login {
                Login::Fails(why) => Some(format!("{}: {why}", made.name)),
                Login::Works | Login::Untested(_) => None,
            })
            .collect();
        if !failed.is_empty() {
            return Err(StepError::permanent(format!(
                "not every account can log in: {}",
                failed.join("; ")
            )));
        }
        let untested = tried
            .iter()
            .filter(|made| matches!(made.login, Login::Untested(_)))
            .count();
        Ok(Outcome {
            note: format!(
                "{} accounts, login tried for {}; locked until the {} opens",
                tried.len(),
                tried.len() - untested,
                task_site(server)
            ),
            ..Outcome::default()
        })
    }

    /// From here on the application's writes are taken: what was restored last is what it finds.
    pub(super) async fn open(&self, task: &Task, server: &Server) -> Result<Outcome, StepError> {
        let address = self.address(task, server).await?;
        let accounts = self.application().await?;
        let mut session = address.connect().await.map_err(db_error)?;
        mark(&mut session, task).await?;
        // Of a freeze before an earlier failback, too: its events would stay off for ever. Without accounts nobody was fenced.
        let lifted = match accounts.is_empty() {
            true => None,
            false => Some(self.lift(task, server).await?),
        };
        // At home only what a fence locked is unlocked, and nothing else.
        if server.site == Site::Standby {
            task.confirm().await?;
            set_locked(&mut session, &accounts, false).await?;
        }
        session.close().await;
        let woken = events::wake(&address).await.map_err(restore_error)?;
        let gone = match woken.gone.len() {
            0 => String::new(),
            _ => format!("; gone since: {}", woken.gone.join(", ")),
        };
        Ok(Outcome {
            note: match (lifted, server.site) {
                (Some(lifted), Site::Primary) => format!("{lifted}, {} events enabled{gone}", woken.enabled),
                _ => format!(
                    "{} accounts unlocked, {} events enabled{gone}",
                    accounts.len(),
                    woken.enabled
                ),
            },
            ..Outcome::default()
        })
    }

    /// The application's accounts, passwords in hand.
    pub(super) async fn application(&self) -> Result<Vec<Account>, StepError> {
        let mut accounts = Vec::new();
        for account in &self.config.accounts {
            let password = self
                .secret(
                    &account.password,
                    &format!("the password of [[accounts]] {}", account.name),
                )
                .await?;
            accounts.push(Account {
                name: account.name.clone(),
                hosts: account.hosts.clone(),
                grants: account.grants.clone(),
                password,
            });
        }
        Ok(accounts)
    }

    async fn is_restored(&self, address: &Address, digest: &str) -> Result<bool, StepError> {
        let mut session = address.connect().await.map_err(db_error)?;
        let records = ledger::records(&mut session).await.map_err(db_error)?;
        session.close().await;
        let latest = records.iter().rfind(|record| !record.trial);
        Ok(latest.is_some_and(|record| record.digest == digest && record.phase == Phase::Done))
    }

    /// Whether any of the backup's schemas holds anything already, of a restore that was finished or of somebody else.
    async fn holds_something(&self, address: &Address, archive: &Archive) -> Result<bool, StepError> {
        let mut session = address.connect().await.map_err(db_error)?;
        let target = target::survey(&mut session)
            .await
            .map_err(|error| restore_error(error.into()))?;
        let records = ledger::records(&mut session).await.map_err(db_error)?;
        session.close().await;
        // What was begun one way goes on that way.
        let same =
            |record: &&ledger::Record| record.digest == archive.digest && !record.trial && record.phase != Phase::Done;
        if let Some(record) = records.iter().find(same) {
            return Ok(record.replaces());
        }
        let unfinished: BTreeSet<&String> = records
            .iter()
            // A trial is thrown away by whoever restores.
            .filter(|record| record.trial || record.phase != Phase::Done)
            .flat_map(|record| &record.schemas)
            .collect();
        let schemas = &archive.index.summary.schemas;
        Ok(schemas
            .iter()
            .map(|schema| target.stored(schema))
            .any(|schema| target.occupied.contains(&schema) && !unfinished.contains(&schema)))
    }

    /// What an earlier restore of another backup left half done is in the way, and of no use.
    async fn unfinished(&self, address: &Address, digest: &str) -> Result<BTreeSet<String>, StepError> {
        let mut session = address.connect().await.map_err(db_error)?;
        let records = ledger::records(&mut session).await.map_err(db_error)?;
        session.close().await;
        let other = |record: &ledger::Record| record.phase != Phase::Done && !record.trial && record.digest != digest;
        Ok(records.into_iter().filter(other).map(|record| record.digest).collect())
    }
}

fn task_site(server: &Server) -> &'static str {
    match server.site {
        Site::Primary => "primary",
        Site::Standby => "standby",
    }
}

/// A later operation's mark stays: whoever lost the lease long ago opens nothing any more.
async fn mark(session: &mut Session, task: &Task) -> Result<(), StepError> {
    ledger::prepare(session).await.map_err(db_error)?;
    for sql in [
        "CREATE TABLE IF NOT EXISTS planb.opened (one TINYINT NOT NULL PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, \
         operation BIGINT UNSIGNED NOT NULL, at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB"
            .to_owned(),
        format!(
            "INSERT INTO planb.opened (one, epoch, operation) VALUES (1, {epoch}, {operation}) ON DUPLICATE KEY UPDATE operation = \
             IF(epoch > {epoch}, operation, {operation}), epoch = GREATEST(epoch, {epoch})",
            epoch = task.standing.epoch(),
            operation = task.operation.number
        ),
    ] {
        session.execute(sql).await.map_err(db_error)?;
    }
    let there = session
        .scalar("SELECT epoch FROM planb.opened WHERE one = 1")
        .await
        .map_err(db_error)?;
    if there == task.standing.epoch().to_string() {
        return Ok(());
    }
    Err(StepError::permanent(format!(
        "the database was opened under epoch {there} already, later than this operation's {}: somebody else went on; planb status \
         tells",
        task.standing.epoch()
    )))
}

/// Locked accounts keep the sessions that they have.
pub(super) async fn set_locked(session: &mut Session, accounts: &[Account], locked: bool) -> Result<(), StepError> {
    session.execute("SET SESSION sql_mode = ''").await.map_err(db_error)?;
    let there: BTreeSet<(String, String)> = session
        .pairs("SELECT User, Host FROM mysql.user")
        .await
        .map_err(db_error)?
        .into_iter()
        .collect();
    for account in accounts {
        for host in account
            .hosts
            .iter()
            .filter(|host| there.contains(&(account.name.clone(), (*host).clone())))
        {
            let how = if locked { "LOCK" } else { "UNLOCK" };
            let sql = format!("ALTER USER {}@{} ACCOUNT {how}", string(&account.name), string(host));
            session.execute(sql).await.map_err(db_error)?;
        }
    }
    Ok(())
}

pub(super) fn restore_error(error: RestoreError) -> StepError {
    StepError {
        is_permanent: !error.is_passing() && !matches!(error, RestoreError::Busy | RestoreError::Cancelled),
        message: error.to_string(),
    }
}

struct Told<'a> {
    executor: &'a Executor,
    step: &'a str,
}

impl Observer for Told<'_> {
    fn planned(&self, plan: &Plan, resumed: bool) {
        let how = if resumed { "goes on with" } else { "begins" };
        self.executor
            .tell
            .tell(self.step, &format!("{how} {} tables", plan.tables.len()));
    }

    fn entered(&self, phase: Phase) {
        self.executor.tell.tell(self.step, phase.name());
    }
}
