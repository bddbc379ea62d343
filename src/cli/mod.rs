//! The command line: composes what the other modules do, and says how it went.
//!
//! Results go to stdout, logs and progress to stderr. Exit codes are fixed: 0 done, 1 failed, 2 usage or
//! configuration, 3 refused by a safety rule, 4 stopped part-way, 5 a backup is damaged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

mod accounts;
mod agent;
mod backup;
mod backups;
mod check;
mod config_check;
mod cost;
mod dark;
mod doctor;
mod drill;
mod failback;
mod failover;
mod failure;
mod fences;
mod follow;
mod history;
mod notify;
mod open;
mod operation;
mod outlook;
mod prepare;
mod present;
mod proof;
mod prune;
mod restore;
mod runbook;
mod runner;
mod screen;
mod standby;
mod standstill;
mod status;
mod target;
mod tell;
mod traces;
mod trial;
mod verify;
mod watch;

use failure::Failure;

/// Of each thread; only what is used of it is memory.
const STACK_BYTES: usize = 8 << 20;

/// Keeps a second site ready in another cloud for a service that lives on MySQL.
#[derive(Debug, Parser)]
#[command(name = "planb", version, about, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused by a safety rule,\n\
    4 stopped part-way, 5 a backup is damaged."
)]
pub struct Cli {
    /// Configuration file
    #[arg(
        long,
        global = true,
        env = "PLANB_CONFIG",
        default_value = "/etc/planb/planb.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Print one JSON object instead of text (long operations: one object a line, the last is the result)
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: backups on their schedule, retention, RPO
    Agent,
    /// Make one backup now
    Backup(backup::BackupArgs),
    /// List backups, newest first
    Backups(backups::BackupsArgs),
    /// Check that a backup is still whole, without a database; with --restore-to, that it restores
    #[command(
        after_help = "Without ID: the newest good backup. With a file: no configuration and no store is needed.\n\
        Whatever is found of a backup in the store is written down and shown by `planb backups`.\n\
        Exit 5 and the exact place where anything is damaged, 1 where the store does not answer."
    )]
    Verify(verify::VerifyArgs),
    /// Restore a backup into a database
    Restore(restore::RestoreArgs),
    /// Remove what the retention policy no longer keeps
    Prune(prune::PruneArgs),
    /// Show what would be lost now, and what there is to restore
    Status(status::StatusArgs),
    /// For monitoring systems: whether all is well, in one line and an exit code
    #[command(
        after_help = "Exit codes are those of monitoring plugins (Nagios, Icinga), not PlanB's own:\n\
        0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN (also: the configuration cannot be read)."
    )]
    Check(check::CheckArgs),
    /// Check everything that must hold before a disaster
    Doctor(doctor::DoctorArgs),
    /// Fetch beforehand what a recovery needs: providers, images, the versions of programs
    #[command(
        after_help = "For every Terraform step: modules are looked at (one that comes from elsewhere is refused), providers go into the \
                      step's mirror for each platform, their hashes into the lock file. Images that the manifests name are copied by digest \
                      into [prepare] registry. Can be repeated at any time; what is there is not fetched again. Afterwards it says what \
                      would fail tonight, as `planb doctor --dark` does."
    )]
    Prepare(prepare::PrepareArgs),
    /// Bring the service up in the other cloud, stage by stage
    Failover(failover::FailoverArgs),
    /// Take the service home again
    Failback(failback::FailbackArgs),
    /// Carry out, inside the second cloud's network, what an operator started
    Runner,
    /// Print the runbook of the configured plan, ready for paper
    Runbook(runbook::RunbookArgs),
    /// Watch the primary, as one of several watchers in different places
    Watch(watch::WatchArgs),
    /// Who did what, when, how long, with what result
    History,
    /// Try the channels on which people are told, or show what was not told
    #[command(
        after_help = "Exit 1 if a channel did not take the test.\n\nExamples:\n  planb notify --test\n  \
        planb notify --test --channel oncall\n  planb notify --undelivered"
    )]
    Notify(notify::NotifyArgs),
    /// Rehearse a disaster beside everything that is real, measure it, and take it back
    Drill(drill::DrillArgs),
    /// What protection costs a month, and a second site an hour
    Cost(cost::CostArgs),
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

impl Command {
    /// What does something that takes its time, and of which somebody may later ask where it went.
    fn is_traced(&self) -> bool {
        match self {
            Self::Agent
            | Self::Backup(_)
            | Self::Verify(_)
            | Self::Restore(_)
            | Self::Prune(_)
            | Self::Prepare(_)
            | Self::Failover(_)
            | Self::Failback(_)
            | Self::Runner
            | Self::Watch(_)
            | Self::Drill(_) => true,
            Self::Backups(_)
            | Self::Status(_)
            | Self::Check(_)
            | Self::Doctor(_)
            | Self::Runbook(_)
            | Self::History
            | Self::Notify(_)
            | Self::Cost(_)
            | Self::Config(_)
            | Self::Completions { .. }
            | Self::Man => false,
        }
    }
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read the configuration and report every problem and warning
    Check,
}

/// What every command gets.
#[derive(Debug, Clone, Args)]
pub struct Common {
    pub config: PathBuf,
    pub json: bool,
}

/// Runs the process.
pub fn main() -> ExitCode {
    crate::agent::memory::bound();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no mistake.
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let common = Common {
        config: cli.config,
        json: cli.json,
    };
    let json = common.json;
    match run(cli.command, common) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: Command, common: Common) -> Result<(), Failure> {
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "planb", &mut std::io::stdout());
            return Ok(());
        }
        Command::Man => {
            return clap_mangen::Man::new(Cli::command())
                .render(&mut std::io::stdout())
                .map_err(|error| Failure::failed(format!("cannot write the manual page: {error}")));
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // A last backup is a dump within a run within a step within an operation: without optimisation that is more than 2 MiB.
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let traces = {
        let _within = runtime.enter();
        traces::begin(&common, command.is_traced())
    };
    let result = runtime.block_on(async {
        match command {
            Command::Config(ConfigCommand::Check) => config_check::run(&common),
            Command::Runbook(args) => runbook::run(&common, &args),
            Command::Agent => agent::run(&common).await,
            Command::Backup(args) => backup::run(&common, &args).await,
            Command::Backups(args) => backups::run(&common, &args).await,
            Command::Verify(args) => verify::run(&common, &args).await,
            Command::Restore(args) => restore::run(&common, &args).await,
            Command::Prune(args) => prune::run(&common, &args).await,
            Command::Status(args) => status::run(&common, &args).await,
            Command::Check(args) => check::run(&common, &args).await,
            Command::Doctor(args) => doctor::run(&common, &args).await,
            Command::Prepare(args) => prepare::run(&common, &args).await,
            Command::Failover(args) => failover::run(&common, &args).await,
            Command::Failback(args) => failback::run(&common, &args).await,
            Command::Runner => runner::run(&common).await,
            Command::Watch(args) => watch::run(&common, &args).await,
            Command::History => history::run(&common).await,
            Command::Notify(args) => notify::run(&common, &args).await,
            Command::Drill(args) => drill::run(&common, &args).await,
            Command::Cost(args) => cost::run(&common, &args).await,
            Command::Completions { .. } | Command::Man => Ok(()),
        }
    });
    traces.end();
    // Compression threads end with their queue; nothing else may hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    result
}
