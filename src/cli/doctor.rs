//! `planb doctor`: everything that must hold before a disaster, each finding with what to do about it.

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

use super::failure::{Failure, told};
use super::{Common, open, standby};
use crate::backup::entry::{Entry, Standing};
use crate::backup::rpo::{RunTimes, feasibility};
use crate::config::Config;
use crate::config::warnings::warnings;
use crate::doctor::{self, Finding, Severity};
use crate::dump::snapshot::{self, Wish};
use crate::dump::{self, AttemptError, catalog};
use crate::mysql::dialect::Family;
use crate::mysql::{DbError, Session};
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;
use crate::store::{BlobStore, Condition, StoreError, Upload};

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// What would fail tonight with AWS, the provider registry and every public image registry out of reach: each Terraform directory is
    /// initialised and planned behind a proxy that refuses them, each secret resolved without AWS
    #[arg(long)]
    dark: bool,
    #[command(flatten)]
    place: super::prepare::PlaceArgs,
}

pub async fn run(common: &Common, args: &DoctorArgs) -> Result<(), Failure> {
    if args.dark {
        return super::dark::run(common, args.place.place()).await;
    }
    let config = open::config(common)?;
    let findings = findings(&config).await;
    print(common, &findings)
}

/// Prints what was found; an error where one of it is.
pub fn print(common: &Common, findings: &[Finding]) -> Result<(), Failure> {
    report(common, findings);
    let errors = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .count();
    if errors == 0 {
        Ok(())
    } else {
        Err(Failure::Printed {
            exit: 1,
            message: format!("doctor found {errors} errors"),
        })
    }
}

/// Everything that was found, the worst first.
pub async fn findings(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = warnings(config)
        .into_iter()
        .map(|warning| Finding::new(Severity::Warning, warning.key, warning.text, ""))
        .collect();
    let (mut entries, mut stage) = (Vec::new(), 0);
    // One trouble must not hide the others: each part is looked at on its own.
    match look_at_store(config).await {
        Ok((found, listed, standing_at)) => {
            findings.extend(found);
            (entries, stage) = (listed, standing_at);
        }
        Err(error) => findings.push(Finding::new(Severity::Error, "store", told(&error), "")),
    }
    match look_at_source(config).await {
        Ok(source) => findings.extend(doctor::source(&source)),
        Err(failure) => findings.push(failure),
    }
    if let Some(configured) = &config.standby {
        findings.extend(match stage {
            // What holds a restored database refuses another, as it should.
            2.. => vec![Finding::new(
                Severity::Note,
                "standby",
                format!("it stands (stage {stage}): whether it takes a restore is looked at once it was taken down"),
                "",
            )],
            _ => standby::findings(config, configured, &entries).await,
        });
    }
    let run_time = RunTimes::of(&entries).slow().unwrap_or_default();
    let now = open::clock().now();
    let judged =
        super::status::interval(config, now).map(|interval| feasibility(interval, run_time, config.targets.rpo));
    findings.extend(doctor::schedule(judged.as_ref()));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

fn report(common: &Common, findings: &[Finding]) {
    if common.json {
        let list: Vec<Value> = findings.iter().map(finding_json).collect();
        println!("{}", json!({"v": 1, "findings": list}));
        return;
    }
    findings.iter().for_each(print_finding);
}

pub fn finding_json(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.as_str(), "about": finding.about, "what": finding.what, "remedy": finding.remedy,
    })
}

pub fn print_finding(finding: &Finding) {
    println!("{:<8} {}: {}", finding.severity.as_str(), finding.about, finding.what);
    if !finding.remedy.is_empty() {
        println!("         -> {}", finding.remedy);
    }
}

/// Its findings, the backups in it, and the stage that stands.
async fn look_at_store(config: &Config) -> Result<(Vec<Finding>, Vec<Entry>, u8), StoreError> {
    let stores = open::stores_for_a_person(config).await?;
    let skew = open::clock().now().duration_since(stores.backups.now().await?);
    let entries = open::listing(config, &stores).await?;
    may_write(stores.backups.as_ref(), stores.control.as_ref(), &config.store.prefix).await?;
    let good = || entries.iter().filter(|entry| entry.standing == Standing::Good);
    let newest = good().next();
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = newest.map(|entry| entry.raw_bytes as f64 / entry.size_bytes.max(1) as f64);
    let facts = doctor::Store {
        clock_skew: skew,
        max_blocks: stores.backups.limits().max_blocks,
        newest_bytes: newest.map(|entry| entry.size_bytes),
        ratio,
        unusable: entries
            .iter()
            .filter(|entry| matches!(entry.standing, Standing::Unusable(_)))
            .count(),
        proven: good().any(|entry| entry.proven_at.is_some()),
        any_good: newest.is_some(),
    };
    let known = open::journal(config, &stores).known().await?;
    Ok((doctor::store(&facts), entries, known.standing.stage))
}

/// Tries the rights a backup needs, without leaving anything that a listing shows.
async fn may_write(backups: &dyn BlobStore, control: &dyn BlobStore, prefix: &str) -> Result<(), StoreError> {
    let upload = Upload {
        name: format!("{prefix}doctor"),
        run_id: format!("{:016x}", rand::random::<u64>()),
    };
    backups.stage_block(&upload, 0, Bytes::from_static(b"doctor")).await?;
    backups.discard(&upload).await?;
    control
        .put(
            "doctor/probe",
            Bytes::from_static(b"planb doctor may write here"),
            Condition::Always,
        )
        .await?;
    Ok(())
}

async fn look_at_source(config: &Config) -> Result<doctor::Source, Finding> {
    let failed = |what: String| Finding::new(Severity::Error, "source", what, "");
    let finder = Finder::new(config.source.clone(), Resolver::for_config(config));
    let address = finder.address().await.map_err(|error| failed(told(&error)))?;
    // Everything that a backup would refuse to start with is found in the same way here.
    let facts = dump::survey(&address, &config.source)
        .await
        .map_err(|error| failed(told(&error)))?;
    let mut session = snapshot::reader_session(&address, &facts.dialect, config.backup.lock_wait)
        .await
        .map_err(|error| failed(told(&error)))?;
    let seen = see(&mut session, config, &facts)
        .await
        .map_err(|error| failed(told(&error)))?;
    session.close().await;
    Ok(seen)
}

async fn see(
    session: &mut Session,
    config: &Config,
    facts: &dump::SourceFacts,
) -> Result<doctor::Source, AttemptError> {
    let mut schemas = Vec::new();
    for name in &facts.schemas {
        schemas.push(catalog::schema(session, &facts.dialect, name).await?);
    }
    let wish = Wish {
        sessions: config.backup.sessions,
        lock: config.backup.lock,
        lock_wait: config.backup.lock_wait,
        pause_replica: config.source.pause_replica,
        binlog_complete: facts.binlog_complete,
        tables: Vec::new(),
    };
    let family = facts.dialect.version.family;
    Ok(doctor::Source {
        dialect: facts.dialect.clone(),
        schemas,
        other_schemas: facts.other_schemas.clone(),
        binlog_on: facts.binlog_on,
        binlog_complete: facts.binlog_complete,
        binlog_format: session.scalar("SELECT @@global.binlog_format").await?,
        binlog_kept: binlog_kept(session, family).await?,
        gtids_on: family == Family::MariaDb || session.scalar("SELECT @@global.gtid_mode").await?.starts_with("ON"),
        way: snapshot::way(&wish, family, &facts.grants),
        replica_lag_seconds: snapshot::replica_lag(session, &facts.dialect).await?,
        sessions: config.backup.sessions,
    })
}

/// RDS keeps binlogs by a setting of its own; the server's variable says nothing there.
async fn binlog_kept(session: &mut Session, family: Family) -> Result<Option<Duration>, DbError> {
    let rds = session
        .text("SELECT value FROM mysql.rds_configuration WHERE name = 'binlog retention hours'")
        .await;
    if let Ok(rows) = rds {
        let hours = rows
            .first()
            .and_then(|row| row.first())
            .and_then(|hours| hours.parse::<u64>().ok());
        // NULL there means: removed as soon as possible.
        return Ok(Some(Duration::from_secs(hours.unwrap_or(0) * 3_600)));
    }
    let sql = match family {
        Family::MySql => "SELECT @@global.binlog_expire_logs_seconds",
        Family::MariaDb => "SELECT FLOOR(@@global.expire_logs_days * 86400)",
    };
    Ok(Some(session.number(sql).await?)
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs))
}
