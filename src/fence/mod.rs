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

use tokio::time::Instant;

use crate::mysql::{Address, DbError};
use crate::secret::Secret;

pub mod ladder;
mod record;
mod server;
mod trial;

pub use ladder::{Change, Held, Part, Pattern, Rung, Try, Verdict};

use ladder::Choice;
use record::Record;
use server::{Seen, Server};

/// How often the sessions are looked at while they end.
const LOOK: Duration = Duration::from_millis(200);
/// Where PlanB may not end sessions, those that are about to go may.
const GRACE: Duration = Duration::from_secs(2);
/// An account made while others were being locked is found by looking again.
const ROUNDS: u32 = 3;

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
    /// Sessions of the application.
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
            sessions: sessions.iter().filter(|seen| users.contains(&seen.user)).count(),
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
        let mut climb = Climb {
            fence: self,
            server,
            kept: record.changes.clone(),
            raised,
            told,
        };
        climb.keep(mark, &record).await?;
        let mut accounts = climb.lock_accounts().await?;
        let events = climb.stop_events().await?;
        let sessions = climb.end_sessions(&mut accounts).await?;
        let switched = climb.switch_read_only().await?;
        climb.prove(accounts, events, sessions, switched).await?;
        climb.server.close().await;
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

/// What came of the accounts.
struct Accounts {
    choice: Choice,
    may_read: bool,
    may_lock: bool,
    /// What the server refused to lock, and why.
    refused: Vec<(String, String)>,
    /// Number of the newest connection that was there just after.
    newest: Option<u64>,
}

impl Accounts {
    /// Nobody of the application logs in any more, so that sessions which are ended stay ended.
    fn are_closed(&self) -> bool {
        self.may_read && self.refused.is_empty() && self.choice.unlocked().next().is_none()
    }
}

/// One raising.
struct Climb<'a> {
    fence: &'a Fence,
    server: Server,
    /// What the server remembered when we came.
    kept: BTreeSet<Change>,
    raised: &'a mut Raised,
    told: Told<'a>,
}

impl Climb<'_> {
    /// Leaves the mark. Where the account may not, the caller keeps the changes.
    async fn keep(&mut self, mark: u64, record: &Record) -> Result<(), DbError> {
        let accounts = self.server.accounts().await?.unwrap_or_default();
        let is_complete = self.fence.choice(&self.server, &accounts).unlocked().next().is_none();
        let is_shut = self.server.switches().await?.super_read_only == Some(true);
        if record.mark == mark && is_complete && is_shut {
            self.raised.is_kept = true;
            return Ok(());
        }
        // Our own: `read_only` stays on meanwhile, so that the application's writes go on being refused.
        if record.changes.contains(&Change::SuperReadOnly) {
            (self.told)("switch super_read_only off, to write the fence's record");
            self.server.execute("SET GLOBAL super_read_only = OFF").await?;
        }
        match record::open(self.server.session(), mark).await {
            Ok(()) => self.raised.is_kept = true,
            Err(DbError::Denied { .. } | DbError::ReadOnly { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// To be called before the change is made.
    async fn note(&mut self, change: Change) -> Result<(), DbError> {
        if self.raised.is_kept && !self.kept.contains(&change) {
            record::add(self.server.session(), &change).await?;
        }
        self.raised.changes.insert(change);
        Ok(())
    }

    async fn lock_accounts(&mut self) -> Result<Accounts, DbError> {
        let switches = self.server.switches().await?;
        // Somebody else's: our own is off by now if there is anything to do.
        let is_shut = switches.super_read_only == Some(true);
        let mut accounts = Accounts {
            choice: Choice::default(),
            may_read: true,
            may_lock: self.server.means.lock && !is_shut,
            refused: Vec::new(),
            newest: None,
        };
        for _ in 0..ROUNDS {
            let Some(there) = self.server.accounts().await? else {
                accounts.may_read = false;
                break;
            };
            accounts.choice = self.fence.choice(&self.server, &there);
            let open: Vec<ladder::Account> = accounts.choice.unlocked().cloned().collect();
            let is_known = |account: &ladder::Account| accounts.refused.iter().any(|(name, _)| *name == account.name());
            let open: Vec<ladder::Account> = open.into_iter().filter(|account| !is_known(account)).collect();
            if !accounts.may_lock || open.is_empty() {
                break;
            }
            for account in open {
                (self.told)(&format!("lock {}", account.name()));
                self.note(locked(&account)).await?;
                match self.server.set_locked(&account.user, &account.host, true).await {
                    Ok(()) => {}
                    Err(error @ (DbError::Lost { .. } | DbError::Unreachable { .. })) => return Err(error),
                    Err(error) => accounts.refused.push((account.name(), error.to_string())),
                }
            }
        }
        self.raised.others = accounts.choice.others.clone();
        Ok(accounts)
    }

    async fn stop_events(&mut self) -> Result<Held, DbError> {
        let switches = self.server.switches().await?;
        let names = self.server.events().await?;
        if switches.events_run && !names.is_empty() && self.server.means.stop_events {
            (self.told)("stop the event scheduler");
            self.note(Change::EventsStopped).await?;
            self.server.execute("SET GLOBAL event_scheduler = OFF").await?;
        }
        let switches = self.server.switches().await?;
        Ok(ladder::events(&switches, &self.server.means, &names))
    }

    /// Ends the application's sessions until none is left, nor a transaction of theirs, nor a login that began before the lock.
    async fn end_sessions(&mut self, accounts: &mut Accounts) -> Result<Held, DbError> {
        if !self.server.means.see_sessions {
            return Ok(Held::Unprovable(
                "the account sees no sessions but its own: grant PROCESS, see config/grants-fence.sql".to_owned(),
            ));
        }
        if !accounts.are_closed() {
            return Ok(Held::NotAllowed(
                "not ended, since accounts are open and the application would log in again".to_owned(),
            ));
        }
        let users = accounts.choice.users();
        let kill = self.server.means.kill;
        let until = Instant::now() + kill.map_or(GRACE, |_| self.fence.patience);
        let mut ended = BTreeSet::new();
        let mut refusal = None;
        loop {
            let there = self.server.sessions().await?;
            // Whoever logs in is listed before the server looks its account up.
            let newest = there.iter().map(|seen| seen.id).max().unwrap_or(0);
            let newest = *accounts.newest.get_or_insert(newest);
            let left: Vec<&Seen> = there.iter().filter(|seen| seen.may_write(&users, newest)).collect();
            ended.extend(left.iter().map(|seen| seen.id));
            if left.is_empty() && self.server.transactions(&ended).await? == 0 {
                return Ok(Held::Proven);
            }
            if Instant::now() >= until {
                return Ok(still_there(&left, kill.is_some(), refusal.as_ref()));
            }
            if let Some(kill) = kill {
                for seen in left.iter().filter(|seen| !seen.is_ending && users.contains(&seen.user)) {
                    (self.told)(&format!("end session {} of {} from {}", seen.id, seen.user, seen.host));
                    match self.server.execute(&kill.statement(seen.id)).await {
                        Ok(()) => {}
                        Err(error @ (DbError::Lost { .. } | DbError::Unreachable { .. })) => return Err(error),
                        // Gone by itself meanwhile, most often: the list tells.
                        Err(error) => refusal = Some(error),
                    }
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// None: not asked for and not on.
    async fn switch_read_only(&mut self) -> Result<Option<Held>, DbError> {
        let switches = self.server.switches().await?;
        let is_on = switches.super_read_only.unwrap_or(switches.read_only);
        if is_on || (!self.fence.read_only && !switches.read_only) {
            return Ok(is_on.then_some(Held::Proven));
        }
        if !self.fence.read_only {
            return Ok(None);
        }
        if !self.server.means.read_only {
            return Ok(Some(Held::NotAllowed(
                "the account may not; managed servers keep it to their parameters".to_owned(),
            )));
        }
        let mut wanted = Vec::new();
        if !switches.read_only {
            wanted.push((Change::ReadOnly, "SET GLOBAL read_only = ON"));
        }
        if switches.super_read_only == Some(false) {
            wanted.push((Change::SuperReadOnly, "SET GLOBAL super_read_only = ON"));
        }
        // Written down together: after the first nothing more may be written.
        for (change, _) in &wanted {
            self.note(change.clone()).await?;
        }
        for (_, sql) in wanted {
            (self.told)(sql);
            match self.server.execute(sql).await {
                Ok(()) => {}
                // Somebody's open transaction or table lock stands against it. The other rungs may do.
                Err(DbError::LockWait { detail }) => return Ok(Some(Held::Unprovable(detail))),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Held::Proven))
    }

    /// Tries to write, and looks once more. What it finds are the rungs.
    async fn prove(
        &mut self,
        mut accounts: Accounts,
        events: Held,
        mut sessions: Held,
        switched: Option<Held>,
    ) -> Result<(), DbError> {
        let mut tries = Vec::new();
        for credentials in &self.fence.try_as {
            (self.told)(&format!("try to write as {}", credentials.user));
            tries.push((
                credentials.user.clone(),
                trial::attempt(&self.fence.address, credentials).await,
            ));
        }
        if let Some(there) = self.server.accounts().await? {
            accounts.choice = self.fence.choice(&self.server, &there);
        }
        if sessions == Held::Proven {
            let users = accounts.choice.users();
            let back = self.server.sessions().await?;
            let newest = accounts.newest.unwrap_or(u64::MAX);
            let back: Vec<&Seen> = back.iter().filter(|seen| seen.may_write(&users, newest)).collect();
            if !back.is_empty() {
                sessions = still_there(&back, true, None);
            }
        }
        let switched = match switched {
            Some(Held::Proven) => {
                let is_refused = self.server.family == crate::mysql::dialect::Family::MySql
                    && self.server.refuses_own_write().await?
                    && self.server.switches().await?.super_read_only == Some(true);
                Some(ladder::read_only(&accounts.choice, is_refused, &tries))
            }
            other => other,
        };
        let names: Vec<String> = accounts.choice.listed.iter().map(ladder::Account::name).collect();
        let locks = if !accounts.may_read {
            Held::NotAllowed("the account may not read the list of accounts, see config/grants-fence.sql".to_owned())
        } else {
            ladder::accounts(&accounts.choice, accounts.may_lock, &accounts.refused, &tries)
        };
        let rungs = &mut self.raised.rungs;
        rungs.push(Rung::new(Part::Accounts, format!("lock {}", names.join(", ")), locks));
        rungs.push(Rung::new(Part::Events, "stop events", events));
        rungs.push(Rung::new(Part::Sessions, "end the application's sessions", sessions));
        if let Some(held) = switched {
            rungs.push(Rung::new(Part::ReadOnly, "make the server read-only", held));
        }
        Ok(())
    }
}

fn still_there(sessions: &[&Seen], may_end: bool, refusal: Option<&DbError>) -> Held {
    let mut whys: Vec<String> = sessions
        .iter()
        .take(3)
        .map(|seen| {
            let ending = if seen.is_ending { ", which is rolling back" } else { "" };
            let early = if seen.is_connecting {
                ", which began before the lock"
            } else {
                ""
            };
            format!("session {} of {} from {}{ending}{early}", seen.id, seen.user, seen.host)
        })
        .collect();
    if sessions.len() > whys.len() {
        whys.push(format!("{} more", sessions.len() - whys.len()));
    }
    let what_to_do = match (may_end, refusal) {
        (false, _) => {
            "the account may not end them: grant CONNECTION_ADMIN, or EXECUTE on mysql.rds_kill or mysql.az_kill"
                .to_owned()
        }
        (true, Some(error)) => format!("the server says: {error}"),
        (true, None) => "repeat, or stop the application there".to_owned(),
    };
    Held::Failed(format!("still there: {}; {what_to_do}", whys.join(", ")))
}
