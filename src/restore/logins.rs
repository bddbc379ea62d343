//! Makes the application's accounts on the target, and tries each one's login.

use super::accounts::{self, Account};
use super::error::RestoreError;
use super::target::Target;
use crate::mysql::dialect::Family;
use crate::mysql::{Address, DbError, Session};

/// How an account's login went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Works,
    /// None of its hosts includes this one.
    Untested(String),
    Fails(String),
}

/// An account that is there now.
#[derive(Debug, Clone)]
pub struct Made {
    pub name: String,
    pub hosts: Vec<String>,
    pub login: Login,
}

/// Accounts, passwords, and their rights on whole schemas: before routines and views, whose definers they may be.
///
/// # Errors
/// The database's; no password is in it. The call can be repeated.
pub async fn make(address: &Address, accounts: &[Account], target: &Target) -> Result<(), RestoreError> {
    if accounts.is_empty() {
        return Ok(());
    }
    let mut session = session(address).await?;
    for account in accounts {
        for (host, name) in account.hosts.iter().zip(account.full_names()) {
            let exists = target.accounts.as_ref().map(|there| there.contains(&name));
            for statement in accounts::make(account, host, exists, address.tls) {
                session
                    .execute_secret(&statement, &format!("making account {name}"))
                    .await?;
            }
        }
    }
    grant(&mut session, accounts, target, false).await?;
    session.close().await;
    Ok(())
}

/// Their rights on single tables, which may be views: once those are there.
///
/// # Errors
/// The database's.
pub async fn grant_tables(address: &Address, accounts: &[Account], target: &Target) -> Result<(), RestoreError> {
    if accounts.is_empty() {
        return Ok(());
    }
    let mut session = session(address).await?;
    grant(&mut session, accounts, target, true).await?;
    session.close().await;
    Ok(())
}

async fn session(address: &Address) -> Result<Session, DbError> {
    let mut session = address.connect().await?;
    // Whatever the server's default: in these statements a backslash escapes.
    session.execute("SET SESSION sql_mode = ''").await?;
    Ok(session)
}

async fn grant(
    session: &mut Session,
    accounts: &[Account],
    target: &Target,
    of_tables: bool,
) -> Result<(), RestoreError> {
    let are_wildcards = match target.version.family {
        Family::MySql => session.scalar("SELECT @@global.partial_revokes").await? != "1",
        Family::MariaDb => true,
    };
    for account in accounts {
        for given in account.grants.iter().filter(|grant| grant.table.is_some() == of_tables) {
            for host in &account.hosts {
                session
                    .execute(accounts::grant(account, host, given, are_wildcards))
                    .await?;
            }
        }
    }
    Ok(())
}

/// Logs in as each, from here.
pub async fn test(address: &Address, accounts: &[Account], target: &Target) -> Vec<Made> {
    if accounts.is_empty() {
        return Vec::new();
    }
    let seen = async {
        let mut session = address.connect().await?;
        let seen = session.scalar("SELECT SUBSTRING_INDEX(USER(), '@', -1)").await?;
        session.close().await;
        Ok::<String, DbError>(seen)
    };
    let seen = seen.await;
    let mut made = Vec::new();
    for account in accounts {
        let family = target.version.family;
        let login = match &seen {
            Ok(seen) if account.hosts.iter().any(|host| accounts::admits(host, seen, family)) => {
                attempt(address, account).await
            }
            Ok(seen) => Login::Untested(format!(
                "the server sees this machine as {seen}, which its hosts leave out"
            )),
            Err(error) => Login::Fails(error.to_string()),
        };
        made.push(Made {
            name: account.name.clone(),
            hosts: account.hosts.clone(),
            login,
        });
    }
    made
}

async fn attempt(address: &Address, account: &Account) -> Login {
    let own = Address {
        user: account.name.clone(),
        password: account.password.clone(),
        ..address.clone()
    };
    let who = async {
        let mut session = own.connect().await?;
        let who = session.scalar("SELECT CURRENT_USER()").await?;
        session.close().await;
        Ok::<String, DbError>(who)
    };
    match who.await {
        Ok(who) if account.full_names().any(|name| name == who) => Login::Works,
        Ok(who) => Login::Fails(format!(
            "the server takes it for {who}, another account that is closer to this machine's address; drop that one"
        )),
        Err(error) => Login::Fails(error.to_string()),
    }
}
