//! `planb restore`: a backup into a database.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::target::{Target, TargetArgs};
use super::verify::newer_unusable;
use super::{Common, accounts, open, present};
use crate::backup::archive::Archive;
use crate::backup::entry::{Entry, Standing, good_ones};
use crate::backup::verify;
use crate::mysql::Address;
use crate::restore::RestoreError;
use crate::restore::accounts::Account;
use crate::restore::compare::compare;
use crate::restore::load::Progress;
use crate::restore::plan::Wish;
use crate::restore::run::Restore;
use crate::secret::resolver::Resolver;

mod apart;
mod bar;
mod foreign;
mod input;
mod replace;
mod told;

use apart::{enable_events, untune};
use bar::Bar;
use input::Input;

/// Sessions that load at once: more than a small server has cores gain nothing.
const SESSIONS: u16 = 4;

#[derive(Debug, Args)]
#[command(
    after_help = "Everything that stands in the way is found before the first row is loaded, and told together (exit 3).\n\
    Killed or cut off, the same command goes on where it was (exit 4 says so). Events arrive disabled.\n\
    A dump of mysqldump or mariadb-dump is taken too; it cannot be gone on with, so begin it anew with --start-over.\n\n\
    --replace loads beside what is there, compares every table with the backup, and only then swaps all tables in one\n\
    statement. Views and routines are missing for the moment between; tables are not. Killed anywhere, the same command goes\n\
    on, and --roll-back goes back. What was replaced is kept until --drop-old.\n\n\
    Examples:\n  planb restore --verify\n  planb restore --replace --plan\n  planb restore --to mysql://admin@standby.example:3306 --password env:STANDBY_PASSWORD --tls-ca /etc/planb/azure-ca.pem"
)]
pub struct RestoreArgs {
    /// Backup id as `planb backups` lists it, or a backup or dump (.sql.gz, .sql) elsewhere: a file on this machine, - for
    /// standard input, https://…, where a link with a token is (env:NAME, file:PATH), or a blob in the store with its prefix;
    /// default: the newest good one
    #[arg(value_name = "ID|FILE|URL|REF|-")]
    backup: Option<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Say what would be done and changed, and stop
    #[arg(long)]
    plan: bool,
    /// Afterwards, have the server count and checksum every table, and compare with the backup
    #[arg(long)]
    verify: bool,
    /// Make the accounts of [[accounts]] too, with their rights, and try each one's login
    #[arg(long)]
    accounts: bool,
    /// Change server parameters for the time of the load, as far as the account may, and set them back afterwards
    #[arg(long)]
    tune: bool,
    /// Throw away what an unfinished restore left on the server, and begin anew
    #[arg(long)]
    start_over: bool,
    /// Replace what is there under the backup's schemas; it is kept as planb_old_… until --drop-old
    #[arg(long)]
    replace: bool,
    /// Restore nothing: put back what a restore with --replace, finished or not, has replaced
    #[arg(long, conflicts_with_all = ["backup", "plan", "verify", "start_over", "replace", "definer", "database", "accounts", "drop_old", "enable_events"])]
    roll_back: bool,
    /// Restore nothing: drop what a finished --replace or --roll-back has kept
    #[arg(long, conflicts_with_all = ["backup", "plan", "verify", "start_over", "replace", "definer", "database", "accounts", "enable_events"])]
    drop_old: bool,
    /// Give what belongs to one account to another, e.g. app@%=app@10.1.%
    #[arg(long, value_name = "OLD=NEW")]
    definer: Vec<String>,
    /// Schema for a dump that names none (mysqldump without --databases)
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Sessions that load at once
    #[arg(long, value_name = "COUNT", default_value_t = SESSIONS, value_parser = clap::value_parser!(u16).range(1..=64))]
    sessions: u16,
    /// Restore nothing: enable the events that a finished restore left disabled
    #[arg(long, conflicts_with_all = ["backup", "plan", "start_over", "replace", "definer", "database", "accounts", "tune"])]
    enable_events: bool,
    /// Restore nothing: set back the parameters that a killed restore with --tune left changed
    #[arg(long, conflicts_with_all = ["backup", "plan", "start_over", "replace", "definer", "database", "accounts", "tune", "enable_events"])]
    untune: bool,
}

pub async fn run(common: &Common, args: &RestoreArgs) -> Result<(), Failure> {
    let target = args.target.target();
    let (input, config) = if args.enable_events || args.untune || args.roll_back || args.drop_old {
        (None, None)
    } else {
        let (input, config) = input::find(common, args.backup.as_deref()).await?;
        (Some(input), config)
    };
    // What was found without a configuration still needs one where the target or the accounts stand in it.
    let config = match config {
        None if args.accounts || matches!(target, Target::Standby) => Some(open::config(common)?),
        config => config,
    };
    let resolver = config
        .as_ref()
        .map_or_else(|| Resolver::new(None), Resolver::for_config);
    let address = target.address(config.as_ref(), &resolver).await?;
    if args.roll_back {
        return replace::roll_back(&address, common.json).await;
    }
    if args.drop_old {
        return replace::drop_old(&address, common.json).await;
    }
    if args.enable_events {
        return enable_events(common, &address).await;
    }
    if args.untune {
        return untune(common, &address).await;
    }
    let definers = definers(&args.definer)?;
    let accounts = match &config {
        Some(config) if args.accounts => accounts::resolved(config, &resolver).await?,
        Some(_) | None => Vec::new(),
    };
    let cancel = CancellationToken::new();
    let job = Job {
        common,
        args,
        address,
        definers,
        accounts,
        cancel: cancel.clone(),
    };
    let id = match input {
        Some(Input::Backup { blob, name }) => {
            job.not_for_backups()?;
            let archive = Archive::open(blob).await.map_err(RestoreError::from)?;
            return Ok(job.attempt(archive, name, &BTreeSet::new()).await?);
        }
        Some(Input::Foreign { source, name }) => return job.foreign(source, name).await,
        Some(Input::Id(id)) => id,
        None => return Ok(()),
    };
    job.not_for_backups()?;
    let Some(config) = config else { return Ok(()) };
    let stores = open::stores_for_a_person(&config).await?;
    // With what is known of them: one that was found damaged is not tried.
    let entries = open::listing(&config, &stores).await?;
    let candidates = candidates(&entries, id.as_deref(), &stores.backups.describe())?;
    if let (None, Some(first)) = (&id, candidates.first()) {
        for (newer, why) in newer_unusable(&entries, first) {
            eprintln!(
                "planb: UNUSABLE: {newer}, which is newer: {why}\nplanb: going on with {}: what was written after {} will be lost",
                first.id,
                present::time(first.consistent_at),
            );
        }
    }
    let mut damaged = BTreeSet::new();
    let mut left: VecDeque<&Entry> = candidates.iter().copied().collect();
    let mut goes_on = false;
    while let Some(entry) = left.pop_front() {
        let opened = verify::open(&stores.backups, entry).await.map_err(RestoreError::from);
        let done = match opened {
            Ok(archive) => {
                let digest = archive.digest.clone();
                let done = job.attempt(archive, entry.id.to_string(), &damaged).await;
                if done.as_ref().is_err_and(RestoreError::is_damage) {
                    damaged.insert(digest);
                }
                done
            }
            Err(error) => Err(error),
        };
        match (done, left.front()) {
            (Ok(()), _) => return Ok(()),
            (Err(error), Some(next)) if error.is_damage() => {
                if next.consistent_at > entry.consistent_at {
                    eprintln!(
                        "planb: DAMAGED: {}: {error}\nplanb: beginning anew with {}, which is newer",
                        entry.id, next.id
                    );
                    continue;
                }
                eprintln!(
                    "planb: DAMAGED: {}: {error}\nplanb: going on with the one before, {}: what was written between {} and {} \
                     will be lost",
                    entry.id,
                    next.id,
                    present::time(next.consistent_at),
                    present::time(entry.consistent_at),
                );
            }
            // The same command goes on where it was, though a newer backup has come since.
            (Err(RestoreError::Unfinished(unfinished)), _) if id.is_none() && !goes_on => {
                let begun = candidates.iter().find(|entry| entry.id.as_str() == unfinished);
                let Some(begun) = begun else {
                    return Err(RestoreError::Unfinished(unfinished).into());
                };
                eprintln!(
                    "planb: NOT THE NEWEST: going on with {}, whose restore was begun: data as of {}\nplanb: {} is newer, as of {}; \
                     to take that one instead, stop this and run the same command with --start-over",
                    begun.id,
                    present::time(begun.consistent_at),
                    entry.id,
                    present::time(entry.consistent_at),
                );
                goes_on = true;
                left.push_front(entry);
                left.retain(|other| other.id != begun.id);
                left.push_front(begun);
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The backup that was asked for; or the newest good ones, newest first, so that a damaged one is passed over.
fn candidates<'a>(entries: &'a [Entry], id: Option<&str>, store: &str) -> Result<Vec<&'a Entry>, Failure> {
    let Some(id) = id else {
        let good = good_ones(entries);
        return if good.is_empty() {
            Err(Failure::failed(format!(
                "there is no good backup in {store}; planb backups shows what there is"
            )))
        } else {
            Ok(good)
        };
    };
    let Some(entry) = entries.iter().find(|entry| entry.id.as_str() == id) else {
        return Err(Failure::Usage(format!(
            "there is no backup {id} in {store}; planb backups lists them"
        )));
    };
    match &entry.standing {
        Standing::Good | Standing::Preserved | Standing::Orphan => Ok(vec![entry]),
        Standing::Unusable(why) => Err(Failure::failed(format!("{id} cannot be restored: {why}"))),
    }
}

fn definers(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((old, new)) if old.contains('@') && new.contains('@') => Ok((old.to_owned(), new.to_owned())),
            _ => Err(Failure::Usage(format!(
                "--definer {text}: write it as user@host=user@host"
            ))),
        })
        .collect()
}

struct Job<'a> {
    common: &'a Common,
    args: &'a RestoreArgs,
    address: Address,
    definers: BTreeMap<String, String>,
    accounts: Vec<Account>,
    cancel: CancellationToken,
}

impl Job<'_> {
    /// A backup names its schemas.
    fn not_for_backups(&self) -> Result<(), Failure> {
        match self.args.database {
            Some(_) => Err(Failure::Usage(
                "--database: a backup of PlanB names its schemas itself; leave it out".to_owned(),
            )),
            None => Ok(()),
        }
    }

    async fn attempt(
        &self,
        archive: Archive,
        backup: String,
        instead_of: &BTreeSet<String>,
    ) -> Result<(), RestoreError> {
        let json = self.common.json;
        let total = archive.size_bytes();
        let restore = Restore {
            archive,
            backup: backup.clone(),
            address: self.address.clone(),
            definers: self.definers.clone(),
            accounts: self.accounts.clone(),
            sessions: usize::from(self.args.sessions),
            start_over: self.args.start_over,
            replace: self.args.replace,
            trial: false,
            tune: self.args.tune,
            instead_of: instead_of.clone(),
        };
        if self.args.plan {
            let plan = restore.plan().await?;
            told::print_plan(&backup, &restore, &plan, json);
            return Ok(());
        }
        let progress = Arc::new(Progress::default());
        let bar = Bar::new(Some(total), json);
        let running = restore.run(&progress, &bar, &self.cancel);
        let result = self
            .watched(running, &bar, &progress, "the same command goes on from here")
            .await;
        let restored = result?;
        let compared = if self.args.verify {
            let sessions = usize::from(self.args.sessions);
            let wish = Wish {
                definers: self.definers.clone(),
                accounts: self.accounts.clone(),
                ..Wish::default()
            };
            Some(compare(&restore.address, &restore.archive, &wish, sessions, &self.cancel).await?)
        } else {
            None
        };
        if json {
            println!(
                "{}",
                told::restored_json(&backup, &restore, &restored, compared.as_ref())
            );
        } else {
            told::print_restored(&backup, &restore, &restored);
            if let Some(compared) = compared.as_ref().filter(|compared| compared.differences.is_empty()) {
                println!(
                    "verified in {:.1} s: {} tables, {} rows and {} views, routines, triggers and events are those of the backup",
                    compared.duration.as_secs_f64(),
                    compared.tables,
                    compared.rows,
                    compared.objects
                );
                if !compared.exact {
                    println!("{}", present::NAMES_ONLY);
                }
            }
        }
        let locked_out = accounts::locked_out(&restored.accounts);
        match compared {
            Some(compared) if !compared.differences.is_empty() => Err(RestoreError::Rows {
                place: backup,
                detail: compared.differences.join("; "),
            }),
            _ if !locked_out.is_empty() => Err(RestoreError::Logins(locked_out)),
            _ => Ok(()),
        }
    }

    /// Carries a restore to its end with its progress shown; stops it when somebody asks.
    async fn watched<T>(&self, running: impl Future<Output = T>, bar: &Bar, progress: &Progress, then: &str) -> T {
        let mut running = std::pin::pin!(running);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let mut interrupted = std::pin::pin!(super::backup::interrupted());
        let result = loop {
            tokio::select! {
                result = &mut running => break result,
                () = &mut interrupted, if !self.cancel.is_cancelled() => {
                    eprintln!("planb: stopping; {then}");
                    self.cancel.cancel();
                }
                _ = tick.tick() => bar.draw(progress),
            }
        };
        bar.bar.finish_and_clear();
        result
    }
}
