//! What each section may say, but for `[store]`: one function for each, one line for each key.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::cadence::parse_cron;
use super::collect::{Document, Section};
use super::steps::Site;
use super::units::parse_bytes;
use super::{
    Backup, Endpoint, Generations, Lock, Login, Removal, Retention, Schedule, Service, Source, Targets, Tls,
    VerifySource,
};
use crate::secret::SecretRef;

const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
pub(super) const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// The server's own schemas: never dumped, since another server has its own.
pub(super) const SERVER_SCHEMAS: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];

/// Whether a schema is PlanB's bookkeeping, or what a restore loads or keeps aside.
pub(super) fn is_planbs_own(schema: &str) -> bool {
    let lower = schema.to_ascii_lowercase();
    lower == "planb" || lower.starts_with("planb_new_") || lower.starts_with("planb_old_")
}

pub(super) fn service(document: &mut Document<'_>) -> Service {
    let mut section = document.section("service");
    let name = section.text("name", label);
    let site = section.text("site", label);
    let sites = [("primary", Site::Primary), ("standby", Site::Standby)];
    let protects = section.choice("protects", &sites);
    Service {
        name: section.need("name", name, "the service's name, e.g. name = \"petclinic\""),
        site: site.unwrap_or_else(|| "primary".into()),
        protects: protects.unwrap_or(Site::Primary),
    }
}

pub(super) fn targets(document: &mut Document<'_>) -> Targets {
    let mut section = document.section("targets");
    Targets {
        rpo: section.duration("rpo", SECOND..=YEAR).unwrap_or(5 * MINUTE),
        rto: section.duration("rto", SECOND..=YEAR).unwrap_or(15 * MINUTE),
    }
}

pub(super) fn source(document: &mut Document<'_>) -> Source {
    let mut section = document.section("source");
    let endpoint = endpoint(&mut section);
    let user = section.text("user", account);
    let user = section.need("user", user, "the account to read as, e.g. user = \"planb\"");
    let login = login(&mut section);
    let databases = section.list("databases");
    let tls = section
        .choice("tls", &[("required", Tls::Required), ("off", Tls::Off)])
        .unwrap_or(Tls::Required);
    let tls_ca = section.text("tls_ca", absolute_path);
    let pause_replica = section.flag("pause_replica").unwrap_or(false);

    for name in databases.iter().flatten() {
        if SERVER_SCHEMAS.contains(&name.to_ascii_lowercase().as_str()) {
            section.problem(
                "databases",
                format!("{name} is the server's own and is never dumped: remove it"),
            );
        } else if is_planbs_own(name) {
            section.problem(
                "databases",
                format!("{name} is PlanB's own and is never dumped: remove it"),
            );
        } else if name.is_empty() || name.chars().count() > 64 {
            section.problem("databases", "a database's name has 1 to 64 letters");
        }
    }
    if databases.as_ref().is_some_and(Vec::is_empty) {
        section.problem("databases", "is empty: leave it out to back up every database");
    }
    if databases
        .as_ref()
        .is_some_and(|names| (1..names.len()).any(|at| names[at..].contains(&names[at - 1])))
    {
        section.problem("databases", "names a database twice");
    }
    if tls == Tls::Off {
        if !matches!(&endpoint, Endpoint::Address { host, .. } if is_loopback(host)) {
            section.problem(
                "tls",
                "may be off only for a loopback host such as 127.0.0.1: write \"required\"",
            );
        }
        if login == Login::RdsIam {
            section.problem(
                "tls",
                "a login token may travel only encrypted: write \"required\" for rds-iam",
            );
        }
        if tls_ca.is_some() {
            section.problem("tls_ca", "has no meaning with tls = \"off\": remove one of them");
        }
    }
    if login == Login::RdsIam && matches!(endpoint, Endpoint::Address { .. }) {
        section.problem(
            "login",
            "\"rds-iam\" needs rds_instance instead of host: tokens are made for RDS's own address",
        );
    }
    Source {
        endpoint,
        user,
        login,
        databases: databases.unwrap_or_default(),
        tls,
        tls_ca,
        pause_replica,
    }
}

fn endpoint(section: &mut Section<'_, '_>) -> Endpoint {
    let host = section.text("host", host_name);
    let port = section
        .whole("port", 1..=65_535)
        .and_then(|port| u16::try_from(port).ok());
    let instance = section.text("rds_instance", rds_instance);
    let region = section.text("region", region);
    if section.has("rds_instance") {
        for key in ["host", "port"] {
            if section.has(key) {
                section.problem(key, "comes from RDS when rds_instance is given: remove one of them");
            }
        }
        return Endpoint::RdsInstance {
            id: instance.unwrap_or_default(),
            region,
        };
    }
    if section.has("region") {
        section.problem("region", "has a meaning only with rds_instance: remove it");
    }
    let host = section.need("host", host, "host = \"127.0.0.1\", or rds_instance = \"NAME\" instead");
    Endpoint::Address {
        host,
        port: port.unwrap_or(3306),
    }
}

fn login(section: &mut Section<'_, '_>) -> Login {
    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Password,
        RdsIam,
    }
    let password = section.secret("password");
    let kind = section.choice("login", &[("password", Kind::Password), ("rds-iam", Kind::RdsIam)]);
    if kind == Some(Kind::RdsIam) {
        if section.has("password") {
            section.problem("password", "is not used with login = \"rds-iam\": remove one of them");
        }
        return Login::RdsIam;
    }
    let write = "where it is, e.g. password = \"env:PLANB_SOURCE_PASSWORD\", or login = \"rds-iam\"";
    let password = password.map(|reference| reference.0);
    Login::Password(SecretRef(section.need("password", password, write)))
}

pub(super) fn backup(document: &mut Document<'_>) -> Backup {
    let mut section = document.section("backup");
    let schedule = section.text("schedule", schedule);
    let sessions = section
        .whole("sessions", 1..=64)
        .and_then(|sessions| usize::try_from(sessions).ok());
    let lock = section.choice(
        "lock",
        &[("auto", Lock::Auto), ("none", Lock::None), ("tables", Lock::Tables)],
    );
    let lock_wait = section.duration("lock_wait", SECOND..=MINUTE);
    let max_bytes_per_second = section.text("max_bytes_per_second", bytes_per_second);
    let threads_running_limit = section.count("threads_running_limit", 1..=100_000);
    let level = section
        .whole("level", 1..=12)
        .and_then(|level| u8::try_from(level).ok());
    let verify = [
        ("never", VerifySource::Never),
        ("daily", VerifySource::Daily),
        ("always", VerifySource::Always),
    ];
    let verify_source = section.choice("verify_source", &verify);
    let stall = section.duration("stall", 5 * SECOND..=HOUR).unwrap_or(MINUTE);
    let timeout = section.duration("timeout", MINUTE..=7 * DAY).unwrap_or(6 * HOUR);
    if stall >= timeout {
        section.problem(
            "stall",
            "must be shorter than timeout: it ends one attempt, timeout ends the run",
        );
    }
    Backup {
        schedule: schedule.unwrap_or(Schedule::KeepRpo),
        sessions: sessions.unwrap_or(4),
        lock: lock.unwrap_or(Lock::Auto),
        lock_wait: lock_wait.unwrap_or(SECOND),
        max_bytes_per_second,
        threads_running_limit,
        level: level.unwrap_or(3),
        verify_source: verify_source.unwrap_or(VerifySource::Daily),
        stall,
        timeout,
    }
}

pub(super) fn retention(document: &mut Document<'_>) -> Retention {
    let mut section = document.section("retention");
    Retention {
        keep_all: section
            .duration("keep_all", Duration::ZERO..=10 * YEAR)
            .unwrap_or(48 * HOUR),
        keep_hourly: section
            .duration("keep_hourly", Duration::ZERO..=10 * YEAR)
            .unwrap_or(7 * DAY),
        keep_days: section.count("keep_days", 0..=36_600).unwrap_or(30),
        keep_at_least: section.count("keep_at_least", 1..=100_000).unwrap_or(12),
        generations: Generations {
            daily: section.count("daily", 0..=36_600).unwrap_or(0),
            weekly: section.count("weekly", 0..=5_300).unwrap_or(0),
            monthly: section.count("monthly", 0..=1_200).unwrap_or(0),
            yearly: section.count("yearly", 0..=100).unwrap_or(0),
        },
        removal: section
            .choice("removal", &[("delete", Removal::Delete), ("tag", Removal::Tag)])
            .unwrap_or(Removal::Delete),
    }
}

/// Whether `host` cannot leave this machine. A name other than `localhost` may resolve to anything.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(super) fn label(text: &str) -> Result<String, String> {
    let fits = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits && (1..=40).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err("must be 1 to 40 of the letters a-z, digits and '-'".into())
    }
}

pub(super) fn host_name(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    let name = plain && (1..=253).contains(&text.len()) && !text.starts_with(['.', '-']);
    if name || text.parse::<IpAddr>().is_ok() {
        Ok(text.into())
    } else {
        Err("must be a host name or an address alone, without scheme or port (the port has its own key)".into())
    }
}

/// MySQL allows 32 letters, MariaDB 128. The host part (`'planb'@'…'`) is the server's matter.
pub(super) fn account(text: &str) -> Result<String, String> {
    if text.contains('@') || text.chars().any(char::is_control) || !(1..=128).contains(&text.chars().count()) {
        Err("must be the account's name alone, without @host".into())
    } else {
        Ok(text.into())
    }
}

pub(super) fn rds_instance(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain && (1..=63).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err("must be the DB instance identifier, e.g. \"pocketbank-prod\", not its address or ARN".into())
    }
}

pub(super) fn region(text: &str) -> Result<String, String> {
    let plain = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if plain && text.contains('-') && text.len() <= 32 {
        Ok(text.into())
    } else {
        Err("must be an AWS region, e.g. \"ap-northeast-2\"".into())
    }
}

pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path, e.g. \"/etc/planb/rds-ca.pem\"".into())
    }
}

fn schedule(text: &str) -> Result<Schedule, String> {
    if text == "keep-rpo" {
        return Ok(Schedule::KeepRpo);
    }
    match parse_cron(text) {
        Ok(_) => Ok(Schedule::Cron(text.trim().into())),
        Err(message) => Err(format!("{message}; or write \"keep-rpo\"")),
    }
}

/// Less than 64 KiB/s would not carry one row a second: surely a forgotten unit.
fn bytes_per_second(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .filter(|bytes| (64 << 10..=1 << 40).contains(bytes))
        .ok_or_else(|| "must be a size of 64KiB to 1024GiB with its unit, e.g. \"20MiB\"".into())
}
