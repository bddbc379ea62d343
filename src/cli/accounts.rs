//! The application's accounts on the target: from the configuration to the restore, and what became of them.

use serde_json::{Value, json};

use super::failure::Failure;
use crate::config::Config;
use crate::restore::accounts::Account;
use crate::restore::logins::{Login, Made};
use crate::secret::resolver::Resolver;

/// The configured accounts. Every password is had before the first row is loaded.
pub async fn resolved(config: &Config, resolver: &Resolver) -> Result<Vec<Account>, Failure> {
    if config.accounts.is_empty() {
        return Err(Failure::Usage(
            "--accounts: the configuration has no [[accounts]]; add them, or leave --accounts out".to_owned(),
        ));
    }
    let mut accounts = Vec::new();
    for account in &config.accounts {
        let password = resolver
            .resolve(&account.password)
            .await
            .map_err(|error| Failure::failed(format!("the password of [[accounts]] {}: {error}", account.name)))?;
        if password.expose().is_empty() {
            return Err(Failure::Usage(format!(
                "the password of [[accounts]] {} is empty; give it one",
                account.name
            )));
        }
        accounts.push(Account {
            name: account.name.clone(),
            hosts: account.hosts.clone(),
            grants: account.grants.clone(),
            password,
        });
    }
    Ok(accounts)
}

/// Those that were made and cannot log in.
pub fn locked_out(made: &[Made]) -> Vec<String> {
    made.iter()
        .filter_map(|made| match &made.login {
            Login::Fails(why) => Some(format!("{}: {why}", made.name)),
            Login::Works | Login::Untested(_) => None,
        })
        .collect()
}

pub fn json(made: &[Made]) -> Vec<Value> {
    made.iter().map(one).collect()
}

fn one(made: &Made) -> Value {
    let (login, why) = match &made.login {
        Login::Works => ("works", None),
        Login::Untested(why) => ("untested", Some(why)),
        Login::Fails(why) => ("fails", Some(why)),
    };
    json!({"name": made.name, "hosts": made.hosts, "login": login, "why": why})
}

pub fn print(made: &[Made]) {
    for made in made {
        let hosts = made.hosts.join(", ");
        match &made.login {
            Login::Works => println!("account {} (from {hosts}): login tried, works", made.name),
            Login::Untested(why) => println!("account {} (from {hosts}): login not tried from here: {why}", made.name),
            Login::Fails(why) => println!("account {} (from {hosts}): login FAILS: {why}", made.name),
        }
    }
}
