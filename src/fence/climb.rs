//! One raising of the fence, rung by rung.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::ladder::{self, Change, Choice, Held, Part, Rung};
use super::record::{self, Record};
use super::server::{Seen, Server};
use super::{Fence, Raised, Told, locked, trial};
use crate::mysql::DbError;
use crate::mysql::dialect::Family;

/// How often the sessions are looked at while they end.
const LOOK: Duration = Duration::from_millis(200);
/// Where PlanB may not end sessions, those that are about to go may.
const GRACE: Duration = Duration::from_secs(2);
/// An account made while others were being locked is found by looking again.
const ROUNDS: u32 = 3;

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
pub(super) struct Climb<'a> {
    fence: &'a Fence,
    server: Server,
    /// What the server remembered when we came.
    kept: BTreeSet<Change>,
    raised: &'a mut Raised,
    told: Told<'a>,
}

impl<'a> Climb<'a> {
    pub(super) fn new(
        fence: &'a Fence,
        server: Server,
        raised: &'a mut Raised,
        told: Told<'a>,
        record: &Record,
    ) -> Self {
        Self {
            fence,
            server,
            kept: record.changes.clone(),
            raised,
            told,
        }
    }

    pub(super) async fn carry_out(mut self, mark: u64, record: &Record) -> Result<(), DbError> {
        self.keep(mark, record).await?;
        let mut accounts = self.lock_accounts().await?;
        let events = self.stop_events().await?;
        let sessions = self.end_sessions(&mut accounts).await?;
        let switched = self.switch_read_only().await?;
        self.prove(accounts, events, sessions, switched).await?;
        self.server.close().await;
        Ok(())
    }

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
            let newest = accounts.newest.unwrap_or(u64::MAX);
            // A login that was just refused, ours included, may still be listed for an instant.
            let until = Instant::now() + GRACE;
            loop {
                let there = self.server.sessions().await?;
                let back: Vec<&Seen> = there.iter().filter(|seen| seen.may_write(&users, newest)).collect();
                if back.is_empty() {
                    break;
                }
                if Instant::now() >= until {
                    sessions = still_there(&back, true, None);
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        let switched = match switched {
            Some(Held::Proven) => {
                let is_refused = self.server.family == Family::MySql
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
