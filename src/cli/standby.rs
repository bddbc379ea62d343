//! What `planb doctor` sees of the standby: facts from it, from the source and from the newest backup.

use super::failure::told;
use super::{open, target};
use crate::backup::entry::{Entry, newest_good};
use crate::backup::verify;
use crate::config::{Config, Standby};
use crate::doctor::standby::{self, Judged, Newest};
use crate::doctor::{Finding, Severity};
use crate::mysql::{Address, DbError};
use crate::restore::RestoreError;
use crate::restore::accounts::Account;
use crate::restore::contents::Contents;
use crate::restore::plan::{self, Backup, Wish};
use crate::restore::target::{Target, survey};
use crate::secret::Secret;
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;

/// Everything to be said about it. `entries`: the backups, newest first.
pub async fn findings(config: &Config, configured: &Standby, entries: &[Entry]) -> Vec<Finding> {
    let resolver = Resolver::for_config(config);
    let (accounts, mut findings) = accounts(config, &resolver).await;
    let address = match target::standby(configured, &resolver).await {
        Ok(address) => address,
        Err(failure) => {
            findings.push(error(
                failure.message(),
                "correct [standby] password or tls_ca, or put the secret there",
            ));
            return findings;
        }
    };
    let target = match look(&address).await {
        Ok(target) => target,
        Err(finding) => {
            findings.push(finding);
            return findings;
        }
    };
    // Its own trouble is told where the source is looked at.
    let source = source(config).await;
    let wish = Wish {
        source_identity: source.as_ref().map(|source| source.identity.clone()),
        accounts,
        ..Wish::default()
    };
    let newest = judge(config, entries, &target, &wish).await;
    findings.extend(standby::standby(&standby::Standby {
        target,
        source,
        newest: newest.unwrap_or_else(|why| Newest::Unread(told(&why))),
        has_accounts: !config.accounts.is_empty(),
    }));
    findings
}

fn error(what: &str, remedy: &str) -> Finding {
    Finding::new(Severity::Error, "standby", what, remedy)
}

/// The configured accounts; those whose passwords cannot be had are told, and planned all the same.
async fn accounts(config: &Config, resolver: &Resolver) -> (Vec<Account>, Vec<Finding>) {
    let mut accounts = Vec::new();
    let mut findings = Vec::new();
    for account in &config.accounts {
        let password = resolver.resolve(&account.password).await.unwrap_or_else(|why| {
            findings.push(Finding::new(
                Severity::Error,
                "accounts",
                format!("the password of {} cannot be had: {why}", account.name),
                "planb restore --accounts needs it; correct the reference, or put the secret there",
            ));
            Secret::new("")
        });
        accounts.push(Account {
            name: account.name.clone(),
            hosts: account.hosts.clone(),
            grants: account.grants.clone(),
            password,
        });
    }
    (accounts, findings)
}

async fn look(address: &Address) -> Result<Target, Finding> {
    let mut session = match address.connect().await {
        Ok(session) => session,
        Err(away @ DbError::Unreachable { .. }) => {
            return Err(Finding::new(
                Severity::Warning,
                "standby",
                told(&away),
                "where it is made only in a disaster, that is as it should be: run doctor again once it stands",
            ));
        }
        Err(refused) => {
            return Err(error(
                &told(&refused),
                "correct [standby]; config/grants-standby.sql makes its account",
            ));
        }
    };
    let seen = survey(&mut session).await;
    session.close().await;
    seen.map_err(|why| error(&told(&why), "see config/grants-standby.sql for what its account needs"))
}

async fn source(config: &Config) -> Option<Target> {
    let finder = Finder::new(config.source.clone(), Resolver::for_config(config));
    let address = finder.address().await.ok()?;
    let mut session = address.connect().await.ok()?;
    let seen = survey(&mut session).await.ok();
    session.close().await;
    seen
}

async fn judge(config: &Config, entries: &[Entry], target: &Target, wish: &Wish) -> Result<Newest, RestoreError> {
    let Some(entry) = newest_good(entries) else {
        return Ok(Newest::Absent);
    };
    let stores = open::stores_for_a_person(config)
        .await
        .map_err(|error| RestoreError::Backup(error.into()))?;
    let archive = verify::open(&stores.backups, entry).await?;
    let contents = Contents::read(&archive).await?;
    let summary = &archive.index.summary;
    let programs = contents.programs();
    let backup = Backup {
        summary,
        members: &archive.index.members,
        schema: &contents.schema,
        programs: &programs,
    };
    let (plan, problems) = plan::judge(backup, target, wish);
    Ok(Newest::Planned(Judged {
        problems,
        repairs: plan.repairs,
        raw_bytes: summary.raw_bytes,
    }))
}
