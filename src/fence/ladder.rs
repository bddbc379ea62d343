//! Which rungs of the fence a server and an account allow, whose sessions are the application's, and what the rungs
//! together prove. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::mysql::DbError;
use crate::mysql::dialect::Family;
use crate::mysql::grants::Grants;

/// Accounts of the server itself and of its platform. They are never locked, whatever a pattern says.
const SERVERS_OWN: [&str; 13] = [
    "mysql.sys",
    "mysql.session",
    "mysql.infoschema",
    "mariadb.sys",
    "rdsadmin",
    "rdsrepladmin",
    "rdstopmgr",
    "rds_superuser_role",
    "azure_superuser",
    "azure_sys",
    "azure_sys_repl",
    "event_scheduler",
    "system user",
];

/// What a connection is called before the server knows who it is.
pub const LOGGING_IN: &str = "unauthenticated user";

/// An account as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account {
    pub user: String,
    pub host: String,
    pub locked: bool,
}

impl Account {
    pub fn name(&self) -> String {
        format!("{}@{}", self.user, self.host)
    }
}

/// Accounts of the application, as the configuration names them: `app` is every account of that name, `app@10.0.%` those whose
/// hosts are within. In the name `*` is any run of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    user: String,
    host: Option<String>,
}

impl Pattern {
    pub fn parse(text: &str) -> Self {
        match text.rsplit_once('@') {
            Some((user, host)) => Self {
                user: user.to_owned(),
                host: Some(host.to_owned()).filter(|host| host != "%"),
            },
            None => Self {
                user: text.to_owned(),
                host: None,
            },
        }
    }

    fn matches(&self, account: &Account) -> bool {
        let hosts = self.host.as_ref();
        glob(&self.user, &account.user, '*')
            && hosts.is_none_or(|host| glob(&host.to_lowercase(), &account.host.to_lowercase(), '%'))
    }

    fn text(&self) -> String {
        match &self.host {
            Some(host) => format!("{}@{host}", self.user),
            None => self.user.clone(),
        }
    }
}

/// `any` is any run of letters; everything else stands for itself.
fn glob(pattern: &str, text: &str, any: char) -> bool {
    match pattern.split_once(any) {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            text.char_indices()
                .map(|(at, _)| at)
                .chain([text.len()])
                .any(|at| glob(rest, &text[at..], any))
        }),
    }
}

/// Which of a server's accounts are the application's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub listed: Vec<Account>,
    /// Patterns that no account matches.
    pub unmatched: Vec<String>,
    /// Patterns that name an account which must go on working.
    pub forbidden: Vec<String>,
    /// Accounts that are open, and nobody's that PlanB knows.
    pub others: Vec<String>,
}

impl Choice {
    /// `spared`: names of the accounts of PlanB itself.
    pub fn make(patterns: &[Pattern], accounts: &[Account], spared: &[&str]) -> Self {
        let is_spared = |user: &str| spared.contains(&user) || SERVERS_OWN.contains(&user);
        let mut choice = Self::default();
        for account in accounts.iter().filter(|account| !is_spared(&account.user)) {
            if patterns.iter().any(|pattern| pattern.matches(account)) {
                choice.listed.push(account.clone());
            } else if !account.locked {
                choice.others.push(account.name());
            }
        }
        for pattern in patterns {
            if is_spared(&pattern.user) {
                choice.forbidden.push(pattern.text());
            } else if !choice.listed.iter().any(|account| pattern.matches(account)) {
                choice.unmatched.push(pattern.text());
            }
        }
        choice
    }

    pub fn unlocked(&self) -> impl Iterator<Item = &Account> {
        self.listed.iter().filter(|account| !account.locked)
    }

    /// Names under which the application's sessions stand in the list. A session does not tell which of several accounts
    /// of one name let it in, so all of them count.
    pub fn users(&self) -> BTreeSet<String> {
        self.listed.iter().map(|account| account.user.clone()).collect()
    }
}

/// How another's session is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kill {
    Plain,
    Rds,
    Azure,
}

impl Kill {
    pub fn statement(self, session: u64) -> String {
        match self {
            Self::Plain => format!("KILL {session}"),
            Self::Rds => format!("CALL mysql.rds_kill({session})"),
            Self::Azure => format!("CALL mysql.az_kill({session})"),
        }
    }
}

/// What the account that fences may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    pub lock: bool,
    /// Without it the list shows the account's own sessions only.
    pub see_sessions: bool,
    pub kill: Option<Kill>,
    /// Without it events are hidden.
    pub see_events: bool,
    pub stop_events: bool,
    pub read_only: bool,
}

impl Means {
    /// `routines`: names of the procedures in the schema `mysql` that the account may call.
    pub fn of(family: Family, grants: &Grants, routines: &[String]) -> Self {
        let any = |privileges: &[&str]| privileges.iter().any(|privilege| grants.global(privilege));
        let has = |name: &str| routines.iter().any(|routine| routine.eq_ignore_ascii_case(name));
        let (kill, stop_events, read_only) = match family {
            Family::MySql => (
                any(&["CONNECTION_ADMIN", "SUPER"]),
                any(&["SYSTEM_VARIABLES_ADMIN", "SUPER"]),
                // Without CONNECTION_ADMIN it could not write its own record any more, to take it back.
                any(&["SUPER"]) || (any(&["SYSTEM_VARIABLES_ADMIN"]) && any(&["CONNECTION_ADMIN"])),
            ),
            Family::MariaDb => (
                any(&["CONNECTION ADMIN", "SUPER"]),
                any(&["SUPER"]),
                any(&["READ_ONLY ADMIN", "READ ONLY ADMIN"]),
            ),
        };
        Self {
            lock: any(&["CREATE USER"]),
            see_sessions: any(&["PROCESS"]),
            kill: match () {
                () if kill => Some(Kill::Plain),
                () if has("rds_kill") => Some(Kill::Rds),
                () if has("az_kill") => Some(Kill::Azure),
                () => None,
            },
            see_events: any(&["EVENT"]),
            stop_events,
            read_only,
        }
    }
}

/// The server's own switches. `super_read_only` is MySQL's only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switches {
    pub read_only: bool,
    pub super_read_only: Option<bool>,
    pub events_run: bool,
}

/// Something that a fence changed on the server, and that lifting it changes back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "changed")]
pub enum Change {
    /// The order is the one in which they are taken back: nothing can be changed while the server is read-only.
    SuperReadOnly,
    ReadOnly,
    EventsStopped,
    Locked {
        user: String,
        host: String,
    },
}

/// Which part of the ladder a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Whether the server could be asked at all.
    Reach,
    /// The application's accounts are locked, and a login was tried.
    Accounts,
    /// None of its sessions and transactions is left.
    Sessions,
    /// Nothing writes on the server's own account of time.
    Events,
    /// Nobody's writes are taken.
    ReadOnly,
}

/// How far a rung holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result", content = "why")]
pub enum Held {
    Proven,
    /// The server did not do it, or writes are still possible.
    Failed(String),
    /// Nobody could try.
    Unprovable(String),
    /// The platform or the account does not allow this rung.
    NotAllowed(String),
}

/// One rung and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    pub part: Part,
    /// What was done, for people.
    pub what: String,
    #[serde(flatten)]
    pub held: Held,
}

impl Rung {
    pub fn new(part: Part, what: impl Into<String>, held: Held) -> Self {
        Self {
            part,
            what: what.into(),
            held,
        }
    }
}

/// What the rungs come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A write of the application was tried and refused, and none is under way.
    Proven,
    Unprovable(String),
    /// The failover must not go on.
    Failed(String),
}

/// Any rung that failed decides. A server that is read-only to everybody is fenced whatever else; otherwise locked accounts, no session and no event
/// are it together: each alone leaves a way to write.
pub fn verdict(rungs: &[Rung]) -> Verdict {
    let proven = |part: Part| rungs.iter().any(|rung| rung.part == part && rung.held == Held::Proven);
    let told = |is: fn(&Held) -> Option<&str>| {
        let whys: Vec<String> = rungs
            .iter()
            .filter_map(|rung| is(&rung.held).map(|why| format!("{}: {why}", rung.what)))
            .collect();
        (!whys.is_empty()).then(|| whys.join("; "))
    };
    let failed = told(|held| match held {
        Held::Failed(why) => Some(why),
        Held::Proven | Held::Unprovable(_) | Held::NotAllowed(_) => None,
    });
    if let Some(why) = failed {
        return Verdict::Failed(why);
    }
    // What broke off was not seen to its end.
    let broke = rungs
        .iter()
        .any(|rung| rung.part == Part::Reach && rung.held != Held::Proven);
    let closed = [Part::Accounts, Part::Sessions, Part::Events].into_iter().all(proven);
    if !broke && (proven(Part::ReadOnly) || closed) {
        return Verdict::Proven;
    }
    let open = told(|held| match held {
        Held::Unprovable(why) | Held::NotAllowed(why) => Some(why),
        Held::Proven | Held::Failed(_) => None,
    });
    Verdict::Unprovable(open.unwrap_or_else(|| "nothing was tried".to_owned()))
}

/// A database error in the middle, as a rung. Who is not there can be asked nothing; who is there and refuses is not fenced.
pub fn broken(error: &DbError) -> Rung {
    let why = error.to_string();
    let held = match error {
        DbError::Unreachable { .. } | DbError::Lost { .. } => Held::Unprovable(format!("nobody could try: {why}")),
        DbError::Login { .. }
        | DbError::Locked { .. }
        | DbError::Tls { .. }
        | DbError::Interrupted { .. }
        | DbError::LockWait { .. }
        | DbError::DefinitionChanged { .. }
        | DbError::Denied { .. }
        | DbError::ReadOnly { .. }
        | DbError::Refused { .. }
        | DbError::Odd { .. } => Held::Failed(why),
    };
    Rung::new(Part::Reach, "speak with the server", held)
}

/// What became of one try to log in, and to write, as the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Try {
    /// The account is locked; the server says so only to who knows its password.
    Locked,
    /// Logged in as this account, and a write was refused since the server is read-only.
    ReadOnly(String),
    /// Logged in as this account, and nothing stood in the way of a write.
    Open(String),
    /// It says nothing about the fence.
    Unknown(String),
}

/// What the tries prove about the accounts' locks. `locked`: whether PlanB may lock at all.
pub fn accounts(choice: &Choice, may_lock: bool, refused: &[(String, String)], tries: &[(String, Try)]) -> Held {
    if !choice.forbidden.is_empty() {
        return Held::Failed(format!(
            "the application logs in as {}, an account that must go on working: give PlanB an account of its own",
            choice.forbidden.join(", ")
        ));
    }
    if !refused.is_empty() {
        let whys: Vec<String> = refused.iter().map(|(name, why)| format!("{name} ({why})")).collect();
        return Held::Failed(format!(
            "not locked: {}; lock by hand, or end the account's rights, and repeat",
            whys.join(", ")
        ));
    }
    let open: Vec<String> = choice.unlocked().map(Account::name).collect();
    if !may_lock && !open.is_empty() {
        return Held::NotAllowed(format!(
            "the account may not lock others ({} stay open): grant CREATE USER, see config/grants-fence.sql",
            open.join(", ")
        ));
    }
    if !open.is_empty() {
        return Held::Failed(format!(
            "{} are open again: somebody else unlocked or made them",
            open.join(", ")
        ));
    }
    for (user, tried) in tries {
        if let Try::Open(account) | Try::ReadOnly(account) = tried {
            return Held::Failed(format!(
                "{user} still logs in, as {account}: add that account to the fence's accounts"
            ));
        }
    }
    if !choice.unmatched.is_empty() {
        return Held::Unprovable(format!(
            "no account of the server matches {}: correct the fence's accounts, or go on if it is gone",
            choice.unmatched.join(", ")
        ));
    }
    if choice.listed.is_empty() {
        return Held::Unprovable("the fence lists no account of the application".to_owned());
    }
    for (user, tried) in tries {
        if let Try::Unknown(why) = tried {
            return Held::Unprovable(format!("whether {user} is refused could not be tried: {why}"));
        }
    }
    if tries.is_empty() {
        return Held::Unprovable(
            "the server says they are locked, but nobody tried: configure the password of one of them".to_owned(),
        );
    }
    Held::Proven
}

/// What is proven about a server that was made read-only. `own_write_refused`: nobody but a replica's applier is exempt from
/// `super_read_only`, so one refused write of any account stands for all.
pub fn read_only(choice: &Choice, own_write_refused: bool, tries: &[(String, Try)]) -> Held {
    if own_write_refused {
        return Held::Proven;
    }
    if let Some((user, _)) = tries.iter().find(|(_, tried)| matches!(tried, Try::Open(_))) {
        return Held::Failed(format!(
            "{user} can write although the server is read-only: is it exempt?"
        ));
    }
    let refused: BTreeSet<&str> = tries
        .iter()
        .filter(|(_, tried)| matches!(tried, Try::ReadOnly(_)))
        .map(|(user, _)| user.as_str())
        .collect();
    let untried: Vec<String> = choice
        .users()
        .into_iter()
        .filter(|user| !refused.contains(user.as_str()))
        .collect();
    if untried.is_empty() && !refused.is_empty() {
        return Held::Proven;
    }
    Held::Unprovable(format!(
        "it is on, but exempts some privileges, and no write as {} was tried",
        untried.join(", ")
    ))
}

/// What is known of the server's own events. `names`: those that are enabled; none if they may not be seen.
pub fn events(switches: &Switches, means: &Means, names: &[String]) -> Held {
    if !switches.events_run {
        return Held::Proven;
    }
    if !means.see_events {
        return Held::Unprovable(
            "the account does not see events, which run under locked accounts too: grant EVENT, see config/grants-fence.sql"
                .to_owned(),
        );
    }
    if names.is_empty() {
        return Held::Proven;
    }
    Held::Unprovable(format!(
        "{} run by themselves, under locked accounts too, and the account may not stop them: set the parameter \
         event_scheduler to OFF, or disable them by hand, and repeat",
        names.join(", ")
    ))
}

#[cfg(test)]
#[path = "ladder_tests.rs"]
mod tests;
