//! `planb verify`: whether a backup is still what was written, without a database.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::failure::{Failure, told};
use super::target::Target;
use super::{Common, open, present, trial};
use crate::backup::archive::{Archive, ReadError};
use crate::backup::entry::{BackupId, Entry, SUFFIX, Standing, newest_good};
use crate::backup::verify::{self, Looked, Verdict};
use crate::store::blob::LocalFile;

/// What `--restore-to` calls the configured standby.
const STANDBY: &str = "standby";

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An id as `planb backups` lists them, or a file on this machine; default: the newest good backup
    #[arg(value_name = "ID|FILE")]
    backup: Option<String>,
    /// Restore it into this server, which must be empty, compare every table and object, and remove it again; standby is the
    /// configuration's [standby], whose password is configured too
    #[arg(long, value_name = "mysql://USER@HOST:PORT|standby")]
    restore_to: Option<String>,
    /// With --restore-to: where the password is, e.g. env:NAME, file:PATH, credential:NAME
    #[arg(long, value_name = "REF", requires = "restore_to")]
    password: Option<String>,
    /// With --restore-to: required (encrypted and verified) or off (only to this machine)
    #[arg(long, value_name = "required|off", value_parser = ["required", "off"], requires = "password")]
    tls: Option<String>,
    /// With --restore-to: authority that signed the server's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "password")]
    tls_ca: Option<PathBuf>,
}

impl VerifyArgs {
    /// The server to restore to, if one was named.
    pub(super) fn target(&self) -> Result<Option<Target>, Failure> {
        let named = match (self.restore_to.as_ref(), self.password.as_ref()) {
            (None, _) => return Ok(None),
            (Some(to), None) if to == STANDBY => None,
            (Some(to), Some(_)) if to == STANDBY => {
                return Err(Failure::Usage(
                    "--restore-to standby takes its password from the configuration: leave --password out".to_owned(),
                ));
            }
            (Some(_), None) => {
                return Err(Failure::Usage(
                    "--restore-to: name with --password where the password is (only standby has it in the configuration)"
                        .to_owned(),
                ));
            }
            (Some(to), Some(password)) => Some((to, password)),
        };
        Ok(Some(Target::of(named, self.tls.as_deref(), self.tls_ca.as_ref())))
    }
}

pub async fn run(common: &Common, args: &VerifyArgs) -> Result<(), Failure> {
    let wanted = Wanted::of(args.backup.as_deref(), Path::exists)?;
    if let Some(target) = args.target()? {
        return trial::run(common, wanted, &target).await;
    }
    match wanted {
        Wanted::File(path) => file(common, &path).await,
        Wanted::Newest => stored(common, None).await,
        Wanted::Id(id) => stored(common, Some(id)).await,
    }
}

/// What a person asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Newest,
    Id(BackupId),
    File(PathBuf),
}

impl Wanted {
    fn of(text: Option<&str>, exists: fn(&Path) -> bool) -> Result<Self, Failure> {
        let Some(text) = text else { return Ok(Self::Newest) };
        let path = Path::new(text);
        if text.contains('/') || (text.ends_with(SUFFIX) && exists(path)) {
            return Ok(Self::File(path.to_owned()));
        }
        BackupId::parse(text).map(Self::Id).ok_or_else(|| {
            Failure::Usage(format!(
                "{text} is neither an id as `planb backups` lists them (backup-YYYYMMDD-HHMMSS) nor a file; \
                 for a file in this directory, write ./{text}"
            ))
        })
    }
}

/// A file needs no configuration: it is verified wherever a copy of it lies.
async fn file(common: &Common, path: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    let file = LocalFile::open(path).await?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let id = name.and_then(|name| BackupId::of_blob("", &name));
    let mut report = Report {
        what: path.display().to_string(),
        id,
        ..Report::default()
    };
    let archive = match Archive::open(Arc::new(file)).await {
        Ok(archive) => archive,
        Err(error) => return report.refused(common, error, begun.elapsed()),
    };
    report.digest = Some(archive.digest.clone());
    let bar = bar(common, archive.size_bytes());
    let result = verify::structure(&archive, &|bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    match result {
        Ok(looked) => report.sound(common, looked, begun.elapsed()),
        Err(error) => report.refused(common, error, begun.elapsed()),
    }
}

async fn stored(common: &Common, wanted: Option<BackupId>) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let prefix = &config.store.prefix;
    let entries = open::listing(&config, &stores).await?;
    let named = wanted.is_some();
    let entry = match &wanted {
        Some(id) => entries.iter().find(|entry| entry.id == *id).ok_or_else(|| {
            Failure::failed(format!(
                "there is no {id} in {}; `planb backups` lists what there is",
                stores.backups.describe()
            ))
        })?,
        None => match newest_good(&entries) {
            Some(entry) => entry,
            None => return Err(nothing_good(&entries, &config.service.name, &stores.backups.describe())),
        },
    };
    let mut report = Report {
        what: format!("{} in {}", entry.blob, stores.backups.describe()),
        id: Some(entry.id.clone()),
        digest: Some(entry.digest.clone()).filter(|digest| !digest.is_empty()),
        // Who names a backup asks about that one alone.
        passed_over: if named {
            Vec::new()
        } else {
            newer_unusable(&entries, entry)
        },
        next_older: next_older(&entries, entry).map(|older| older.id.clone()),
        proof_written: Some(false),
    };
    if !common.json {
        let which = if named { "" } else { "the newest good backup, " };
        eprintln!("verifying {which}{}", report.what);
    }
    let bar = bar(common, entry.size_bytes);
    let begun = Instant::now();
    let by = open::by(&config);
    let look = verify::stored(Arc::clone(&stores.backups), entry, by, &|bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let look = match look {
        Ok(look) => look,
        Err(error) => return report.refused(common, error, begun.elapsed()),
    };
    match look.note(stores.control.as_ref(), prefix, entry).await {
        Ok(()) => report.proof_written = Some(true),
        // Reading is all that this needs: somebody with no right to write may look too.
        Err(error) => eprintln!(
            "planb: warning: what was found could not be written down: {}",
            told(&error)
        ),
    }
    match look.verdict {
        Verdict::Sound(looked) => report.sound(common, looked, begun.elapsed()),
        Verdict::Damaged(place) => report.damaged(common, &place, begun.elapsed()),
    }
}

/// The newest good one that is older than `entry`.
fn next_older<'a>(entries: &'a [Entry], entry: &Entry) -> Option<&'a Entry> {
    let older = entries.iter().filter(|other| {
        other.standing == Standing::Good && (other.consistent_at, &other.id) < (entry.consistent_at, &entry.id)
    });
    older.max_by_key(|entry| (entry.consistent_at, &entry.id))
}

/// What is newer than the newest good one, and why it is not good.
pub(super) fn newer_unusable(entries: &[Entry], good: &Entry) -> Vec<(BackupId, String)> {
    let newer = entries.iter().filter(|entry| entry.consistent_at > good.consistent_at);
    newer.filter_map(unusable).collect()
}

fn unusable(entry: &Entry) -> Option<(BackupId, String)> {
    match &entry.standing {
        Standing::Unusable(why) => Some((entry.id.clone(), why.clone())),
        Standing::Good | Standing::Orphan | Standing::Preserved => None,
    }
}

fn nothing_good(entries: &[Entry], service: &str, store: &str) -> Failure {
    match entries.iter().find_map(unusable) {
        Some((id, why)) => Failure::Damaged(format!(
            "{store} holds no good backup of {service}: {id} is unusable ({why}); make a new one with planb backup"
        )),
        None => Failure::failed(format!(
            "{store} holds no good backup of {service} yet; make one with planb backup"
        )),
    }
}

fn bar(common: &Common, bytes: u64) -> ProgressBar {
    if common.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {percent}%  {bytes} of {total_bytes}, {bytes_per_sec}, {eta}")
    {
        bar.set_style(style);
    }
    bar
}

/// What is known of the backup that was looked at.
#[derive(Debug, Default)]
struct Report {
    /// As a person would name it.
    what: String,
    id: Option<BackupId>,
    digest: Option<String>,
    /// Newer than it, and unusable.
    passed_over: Vec<(BackupId, String)>,
    next_older: Option<BackupId>,
    /// `None` for a file: nobody keeps proofs of those.
    proof_written: Option<bool>,
}

impl Report {
    fn sound(&self, common: &Common, looked: Looked, took: Duration) -> Result<(), Failure> {
        let result = if self.passed_over.is_empty() {
            "sound"
        } else {
            "newest-unusable"
        };
        if !common.json {
            println!(
                "sound: {}: {} members, {} rows, {} of SQL in {}, {:.1} s",
                self.what,
                looked.members,
                looked.rows,
                present::bytes(looked.raw_bytes),
                present::bytes(looked.stored_bytes),
                took.as_secs_f64()
            );
        }
        let Some((newest, why)) = self.passed_over.first() else {
            self.print(common, result, Some(looked), took, None);
            return Ok(());
        };
        let id = self.id.as_ref().map_or("", BackupId::as_str);
        let message = format!("THE NEWEST BACKUP, {newest}, IS UNUSABLE: {why}. The newest good one, {id}, is sound");
        self.fail(common, result, Some(looked), took, message)
    }

    fn damaged(&self, common: &Common, place: &str, took: Duration) -> Result<(), Failure> {
        let next = match (&self.next_older, self.proof_written) {
            (Some(older), _) => format!("the next older good one is {older}: verify it with planb verify {older}"),
            (None, Some(_)) => "there is no older good one: make a new one with planb backup".to_owned(),
            (None, None) => "fetch it again, or take another one".to_owned(),
        };
        self.fail(
            common,
            "damaged",
            None,
            took,
            format!("DAMAGED: {}: {place}; {next}", self.what),
        )
    }

    /// It could not be verified.
    fn refused(&self, common: &Common, error: ReadError, took: Duration) -> Result<(), Failure> {
        match error {
            error if error.is_damage() => self.damaged(common, &error.to_string(), took),
            ReadError::Store(error) => Err(error.into()),
            error => Err(Failure::failed(format!(
                "{}: {}: use the planb that wrote it, or a newer one",
                self.what,
                told(&error)
            ))),
        }
    }

    fn fail(
        &self,
        common: &Common,
        result: &str,
        looked: Option<Looked>,
        took: Duration,
        message: String,
    ) -> Result<(), Failure> {
        if !common.json {
            return Err(Failure::Damaged(message));
        }
        self.print(common, result, looked, took, Some(&message));
        Err(Failure::Printed { exit: 5, message })
    }

    /// One object, whatever the result.
    fn print(&self, common: &Common, result: &str, looked: Option<Looked>, took: Duration, error: Option<&str>) {
        if !common.json {
            return;
        }
        let unusable: Vec<Value> = self
            .passed_over
            .iter()
            .map(|(id, why)| json!({"id": id.as_str(), "reason": why}))
            .collect();
        println!(
            "{}",
            json!({
                "v": 1,
                "id": self.id.as_ref().map(BackupId::as_str),
                "what": self.what,
                "digest": self.digest,
                "members": looked.map(|looked| looked.members),
                "rows": looked.map(|looked| looked.rows),
                "stored_bytes": looked.map(|looked| looked.stored_bytes),
                "raw_bytes": looked.map(|looked| looked.raw_bytes),
                "duration_seconds": took.as_secs_f64(),
                "result": result,
                "newer_unusable": unusable,
                "next_older": self.next_older.as_ref().map(BackupId::as_str),
                "proof_written": self.proof_written,
                "error": error.map(|message| json!({"message": message, "exit": 5})),
            })
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_file_and_a_file_is_no_id() {
        let of = |text: &str, there: bool| Wanted::of(Some(text), if there { |_| true } else { |_| false });
        let id = "backup-20260101-000000";
        let parsed = BackupId::parse(id).expect("an id");
        assert_eq!(of(id, false).expect("taken"), Wanted::Id(parsed.clone()));
        assert_eq!(
            of(id, true).expect("taken"),
            Wanted::Id(parsed),
            "a file of that name needs ./"
        );
        assert_eq!(of("./x", false).expect("taken"), Wanted::File("./x".into()));
        assert_eq!(of("x.sql.gz", true).expect("taken"), Wanted::File("x.sql.gz".into()));
        for neither in ["x.sql.gz", "x", "", "backup-20269901-000000"] {
            assert!(matches!(of(neither, false), Err(Failure::Usage(_))), "{neither}");
        }
        assert_eq!(Wanted::of(None, |_| true).expect("taken"), Wanted::Newest);
    }
}
