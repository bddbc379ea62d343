//! The fence: makes sure that a server takes no more writes of the application, proves it, and takes it back exactly.
//!
//! In this order: accounts are locked, so that nobody logs in any more; events are stopped, which run under locked accounts too;
//! sessions that were there before are ended until none is left; then, where it is asked for and allowed, the server is made read-only.
//! Each change is written down on the server before it is made. Every call can be killed at any statement and repeated.
//!
//! A connection that was being logged in while its account was locked may still get through: the server copies the account
//! when a login begins. So connections without a name that are there after the lock are waited for (`connect_timeout`, 10 s).
//!
//! Locks outlive a restart of the server; stopped events and `read_only` do not.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::mysql::{Address, DbError};
use crate::secret::Secret;

mod climb;
pub mod ladder;
mod record;
mod server;
mod trial;

pub use ladder::{Change, Held, Part, Pattern, Rung, Try, Verdict};

use climb::Climb;
use ladder::Choice;
use record::Record;
use server::Server;

/// An account of the application, to try with.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
    /// The password is a token that travels as it is (RDS IAM).
    pub token_login: bool,
}

/// The fence of one server.
#[derive(Debug, Clone)]
pub struct Fence {
    /// An account with the grants of `config/grants-fence.sql`.
    pub address: Address,
    pub accounts: Vec<Pattern>,
    /// Names of PlanB's other accounts there: the last backup is taken after the fence.
    pub spared: Vec<String>,
    pub try_as: Vec<Credentials>,
    /// Also make the server read-only, where that is allowed.
    pub read_only: bool,
    /// How long sessions may take to end. A large transaction takes its time to be rolled back.
    pub patience: Duration,
}

/// How a server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Of the last that raised or lifted a fence here; 0 if nobody ever did.
    pub mark: u64,
    /// What the fence has changed so far.
    pub changed: BTreeSet<Change>,
    /// What raising it would still change. Where the account may not keep a record on the server, this is to be kept before.
    pub would_change: BTreeSet<Change>,
    /// Sessions of the application, logged in.
    pub sessions: usize,
    pub is_read_only: bool,
    /// Accounts that are neither the application's nor PlanB's nor the server's own, and can log in.
    pub others: Vec<String>,
    /// What stands against a proof, for `doctor`.
    pub problems: Vec<String>,
}

impl Look {
    /// Whether everything was done already. A proof it is not.
    pub fn is_up(&self) -> bool {
        self.mark > 0 && self.would_change.is_empty() && (self.sessions == 0 || self.is_read_only)
    }
}

/// What raising the fence came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raised {
    pub rungs: Vec<Rung>,
    /// Everything that is to be taken back one day.
    pub changes: BTreeSet<Change>,
    /// Whether the server itself remembers them. If not, the caller has to.
    pub is_kept: bool,
    /// As in [`Look`].
    pub others: Vec<String>,
}

impl Raised {
    pub fn verdict(&self) -> Verdict {
        ladder::verdict(&self.rungs)
    }
}

/// Why nothing was done, or not everything was taken back.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FenceError {
    #[error(
        "the fence there carries the mark {held}, and this is {asked}: a newer operation is at work; see planb status"
    )]
    Newer { held: u64, asked: u64 },
    #[error("not taken back: {}; put that right and repeat", .0.join("; "))]
    Left(Vec<String>),
    #[error(transparent)]
    Database(#[from] DbError),
}

impl FenceError {
    /// Whether trying again by itself cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Newer { .. } | Self::Left(_) => true,
            Self::Database(error) => error.is_permanent(),
        }
    }
}

/// Told what is being done.
pub type Told<'a> = &'a (dyn Fn(&str) + Sync);

impl Fence {
    /// How the server stands. Changes nothing.
    ///
    /// # Errors
    /// [`FenceError::Database`].
    pub async fn look(&self, remembered: &BTreeSet<Change>) -> Result<Look, FenceError> {
        let mut server = Server::open(&self.address).await?;
        let record = record::read(server.session()).await?;
        let accounts = server.accounts().await?;
        let choice = self.choice(&server, accounts.as_deref().unwrap_or_default());
        let switches = server.switches().await?;
        let events = server.events().await?;
        let sessions = server.sessions().await?;
        let users = choice.users();
        let mut problems = Vec::new();
        if accounts.is_none() {
            problems.push("the account may not read the list of accounts".to_owned());
        }
        let mut would_change = BTreeSet::new();
        if server.means.lock && switches.super_read_only != Some(true) {
            would_change.extend(choice.unlocked().map(locked));
        }
        if switches.events_run && !events.is_empty() && server.means.stop_events {
            would_change.insert(Change::EventsStopped);
        }
        if self.read_only && server.means.read_only {
            if switches.super_read_only == Some(false) {
                would_change.insert(Change::SuperReadOnly);
            }
            if !switches.read_only {
                would_change.insert(Change::ReadOnly);
            }
        }
        if !server.means.see_sessions {
            problems.push("the account sees its own sessions only: grant PROCESS".to_owned());
        }
        if server.means.kill.is_none() {
            problems.push("the account may not end others' sessions: grant CONNECTION_ADMIN, or EXECUTE on mysql.rds_kill or mysql.az_kill".to_owned());
        }
        // As it would be once everything is locked: what is left then, is left.
        let mut all_locked = choice.clone();
        if server.means.lock {
            all_locked.listed.iter_mut().for_each(|account| account.locked = true);
        }
        let tries: Vec<(String, Try)> = self.try_as.iter().map(|own| (own.user.clone(), Try::Locked)).collect();
        let mut held = vec![ladder::accounts(&all_locked, server.means.lock, &[], &tries)];
        if !would_change.contains(&Change::EventsStopped) {
            held.push(ladder::events(&switches, &server.means, &events));
        }
        problems.extend(held.into_iter().filter_map(|held| match held {
            Held::Proven => None,
            Held::Failed(why) | Held::Unprovable(why) | Held::NotAllowed(why) => Some(why),
        }));
        server.close().await;
        Ok(Look {
            mark: record.mark,
            changed: record.changes.union(remembered).cloned().collect(),
            would_change,
            sessions: sessions.iter().filter(|seen| seen.may_write(&users, 0)).count(),
            is_read_only: switches.super_read_only.unwrap_or(switches.read_only),
            others: choice.others,
            problems,
        })
    }

    /// Raises the fence as far as the server allows, and proves it. `mark`: a number that grows with each operation that may raise or lift,
    /// such as the epoch; a process that was overtaken is refused. `remembered`: what the caller kept of an earlier call where the server could not.
    ///
    /// # Errors
    /// [`FenceError::Newer`] only: whatever else goes wrong is a rung.
    pub async fn raise(&self, mark: u64, remembered: &BTreeSet<Change>, told: Told<'_>) -> Result<Raised, FenceError> {
        let mut raised = Raised {
            changes: remembered.clone(),
            ..Raised::default()
        };
        match self.climb(mark, told, &mut raised).await {
            Ok(()) => {}
            Err(FenceError::Database(error)) => raised.rungs.push(ladder::broken(&error)),
            Err(error) => return Err(error),
        }
        Ok(raised)
    }

    async fn climb(&self, mark: u64, told: Told<'_>, raised: &mut Raised) -> Result<(), FenceError> {
        told(&format!("log in at {}:{}", self.address.host, self.address.port));
        let mut server = Server::open(&self.address).await?;
        server.claim().await?;
        let record = current(&mut server, mark).await?;
        raised.changes.extend(record.changes.iter().cloned());
        let climb = Climb::new(self, server, raised, told, &record);
        climb.carry_out(mark, &record).await?;
        Ok(())
    }

    /// Takes back what raising changed, and nothing else: what was locked or read-only before stays so.
    ///
    /// # Errors
    /// [`FenceError::Newer`]; [`FenceError::Left`] with what could not be taken back; [`FenceError::Database`].
    pub async fn lift(
        &self,
        mark: u64,
        remembered: &BTreeSet<Change>,
        told: Told<'_>,
    ) -> Result<BTreeSet<Change>, FenceError> {
        let mut server = Server::open(&self.address).await?;
        server.claim().await?;
        let record = current(&mut server, mark).await?;
        let mut left = Vec::new();
        // In their order: nothing can be written while the server is read-only.
        let changes: BTreeSet<Change> = record.changes.union(remembered).cloned().collect();
        let accounts = server.accounts().await?;
        for change in &changes {
            // Dropped since, or the server refused to lock it in the first place.
            let is_open = match (change, &accounts) {
                (Change::Locked { user, host }, Some(accounts)) => !accounts
                    .iter()
                    .any(|account| account.user == *user && account.host == *host && account.locked),
                _ => false,
            };
            if !is_open {
                told(&undoing(change));
                match undo(&mut server, change).await {
                    Ok(()) => {}
                    Err(error @ (DbError::Lost { .. } | DbError::Unreachable { .. })) => return Err(error.into()),
                    Err(error) => {
                        left.push(format!("{} ({error})", undoing(change)));
                        continue;
                    }
                }
            }
            if record.changes.contains(change) {
                record::remove(server.session(), change).await?;
            }
        }
        // Whoever was overtaken must not raise it again.
        if record.mark < mark {
            match record::open(server.session(), mark).await {
                Ok(()) | Err(DbError::Denied { .. } | DbError::ReadOnly { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        server.close().await;
        if left.is_empty() {
            Ok(changes)
        } else {
            Err(FenceError::Left(left))
        }
    }

    fn choice(&self, server: &Server, accounts: &[ladder::Account]) -> Choice {
        let mut spared: Vec<&str> = self.spared.iter().map(String::as_str).collect();
        spared.extend([server.own.as_str(), self.address.user.as_str()]);
        Choice::make(&self.accounts, accounts, &spared)
    }
}

fn locked(account: &ladder::Account) -> Change {
    Change::Locked {
        user: account.user.clone(),
        host: account.host.clone(),
    }
}

async fn current(server: &mut Server, mark: u64) -> Result<Record, FenceError> {
    let record = record::read(server.session()).await?;
    if record.mark > mark {
        return Err(FenceError::Newer {
            held: record.mark,
            asked: mark,
        });
    }
    Ok(record)
}

fn undoing(change: &Change) -> String {
    match change {
        Change::SuperReadOnly => "switch super_read_only off".to_owned(),
        Change::ReadOnly => "switch read_only off".to_owned(),
        Change::EventsStopped => "start the event scheduler".to_owned(),
        Change::Locked { user, host } => format!("unlock {user}@{host}"),
    }
}

async fn undo(server: &mut Server, change: &Change) -> Result<(), DbError> {
    match change {
        Change::SuperReadOnly => server.execute("SET GLOBAL super_read_only = OFF").await,
        Change::ReadOnly => server.execute("SET GLOBAL read_only = OFF").await,
        Change::EventsStopped => server.execute("SET GLOBAL event_scheduler = ON").await,
        Change::Locked { user, host } => server.set_locked(user, host, false).await,
    }
}
