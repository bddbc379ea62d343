//! `planb drill`: the plan rehearsed in isolation, measured, taken back, and written down for an auditor.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::operation::user;
use super::{Common, open, present};
use crate::backup::lease;
use crate::config::Config;
use crate::drill::page;
use crate::drill::report::Report;
use crate::drill::variant::{Variant, variant};
use crate::recovery::event::By;
use crate::steps;

pub mod attend;
pub mod kept;
mod origin;
mod rehearse;
pub mod schedule;
pub mod standing;

use rehearse::rehearse;

#[derive(Debug, Args)]
#[command(
    after_help = "Rehearses the failover's steps in isolation: Terraform in a workspace of its own ([drill] workspace and variables), the newest good backup as of \
    a random moment restored on a server of its own and compared, the application's health at stage 3. No fence, no traffic, no event, and nothing of the \
    primary or the standby in reach; what could reach them is refused before anything begins. Everything is taken back at the end, and what a killed one \
    left by the next one, by the agent, or by --clean.\n\n\
    The report (HTML, Markdown, JSON) is kept with the journal in the store's control data.\n\n\
    Exit 0: healthy, both targets met, cleaned up. Exit 1: a step failed or a target was missed. Exit 3: refused while a failover is open, the RPO is breached, \
    or another rehearsal is at it. Exit 4: something could not be taken back.\n\n\
    Examples:\n  planb drill --plan\n  planb drill --stage 3\n  planb drill --list\n  planb drill --report drill-20261121-030000 --format html > report.html"
)]
pub struct DrillArgs {
    /// How far: 2 (database) or 3 (the whole service) [default: drill.stage]
    #[arg(long, value_parser = clap::value_parser!(u8).range(2..=3))]
    stage: Option<u8>,
    /// Show what would be rehearsed and what is left out, and touch nothing
    #[arg(long, conflicts_with_all = ["clean", "resume", "list", "report"])]
    plan: bool,
    /// Take back what a rehearsal that was killed left, and begin none
    #[arg(long, conflicts_with_all = ["resume", "list", "report"])]
    clean: bool,
    /// Go on with a rehearsal that was killed, instead of taking it back
    #[arg(long, conflicts_with_all = ["list", "report"])]
    resume: bool,
    /// With --clean or --resume: by today's configuration, where the one that the rehearsal began with does not lead to it any more
    #[arg(long)]
    as_configured: bool,
    /// List past rehearsals, and what they foretell for today's size
    #[arg(long, conflicts_with = "report")]
    list: bool,
    /// Print the report of one of them
    #[arg(long, value_name = "ID")]
    report: Option<String>,
    /// With --report: as what
    #[arg(long, value_name = "FORMAT", value_parser = ["markdown", "html", "json"], default_value = "markdown")]
    format: String,
    /// Repeats the draw of another rehearsal's moment of loss
    #[arg(long)]
    seed: Option<u64>,
    /// Who you are, for the journal; default: the user of this machine
    #[arg(long = "as", value_name = "NAME")]
    as_who: Option<String>,
}

pub async fn run(common: &Common, args: &DrillArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    if args.list {
        return kept::list(common, &config).await;
    }
    if let Some(id) = &args.report {
        return kept::print(common, &config, id, &args.format).await;
    }
    let stage = args.stage.unwrap_or(config.drill.stage);
    if args.plan {
        return show(common, &config, stage);
    }
    let wanted = Wanted {
        what: match (args.clean, args.resume) {
            (true, _) => What::Clean,
            (_, true) => What::Resume,
            _ => What::Rehearse { stage, seed: args.seed },
        },
        by: by(args.as_who.clone()),
        of: Of::Command,
        as_configured: args.as_configured,
    };
    let reports = rehearse(common, wanted).await?;
    let Some(last) = reports.last() else {
        if common.json {
            println!("{}", json!({"v": 1, "result": "nothing", "drill": null}));
        } else {
            println!("nothing was left by any rehearsal");
        }
        return Ok(());
    };
    tell(common, last, args.clean)
}

/// Says how it went, by the exit code too.
fn tell(common: &Common, report: &Report, is_cleaning: bool) -> Result<(), Failure> {
    if common.json {
        println!("{}", json!({"v": 1, "result": report.result.name(), "drill": report}));
    } else {
        println!("{}", report.summary());
        if let Some(text) = page::foretold(report) {
            println!("{text}");
        }
        println!("planb drill --report {} --format html", report.id);
    }
    let message = report.summary();
    if report.cleaned_at.is_none() {
        return Err(Failure::Printed { exit: 4, message });
    }
    if report.passed() || is_cleaning {
        return Ok(());
    }
    Err(Failure::Printed { exit: 1, message })
}

pub fn by(who: Option<String>) -> By {
    By {
        who: who.unwrap_or_else(user),
        host: lease::host_name(),
        run: format!("{:016x}", rand::random::<u64>()),
    }
}

/// What is to be done about rehearsals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Rehearse {
        stage: u8,
        seed: Option<u64>,
    },
    /// Only clear away what was left.
    Clean,
    Resume,
}

pub struct Wanted {
    pub what: What,
    pub by: By,
    /// Which process it is part of.
    pub of: Of,
    /// What was left is taken back by today's configuration, not by the one that it began with.
    pub as_configured: bool,
}

/// Which process a rehearsal is part of, and so what ends it.
#[derive(Debug, Clone)]
pub enum Of {
    /// A person's command: Ctrl-C has everything taken back.
    Command,
    /// A daemon: at its stop, what is at work comes to rest, and the next start takes it back.
    Daemon(CancellationToken),
}

/// Everything that is wrong with it, as one message.
fn isolated(config: &Config, stage: u8) -> Result<Variant, Failure> {
    variant(config, stage).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| format!("{}: {}", mistake.key, mistake.message))
            .collect();
        Failure::Usage(lines.join("\nplanb: "))
    })
}

/// What stands against rehearsing this plan as far as it goes, each with its key; nothing where there is no plan.
pub fn against(config: &Config) -> Vec<(String, String)> {
    if config.failover_steps.is_empty() {
        return Vec::new();
    }
    let stage = match config.drill.schedule {
        Some(_) => config.drill.stage,
        None => 3,
    };
    let mistakes = variant(config, stage).err().unwrap_or_default();
    mistakes
        .into_iter()
        .map(|mistake| (mistake.key, mistake.message))
        .collect()
}

fn show(common: &Common, config: &Config, stage: u8) -> Result<(), Failure> {
    let variant = isolated(config, stage)?;
    let plan = steps::plan::rehearsal(&variant.config.failover_steps);
    if common.json {
        let steps: Vec<_> = plan
            .steps
            .iter()
            .map(|step| json!({"name": step.name, "kind": step.kind, "stage": step.stage, "at": step.at.name(), "needs": step.needs}))
            .collect();
        let skipped: BTreeMap<_, _> = variant.skipped.into_iter().collect();
        println!(
            "{}",
            json!({"v": 1, "stage": stage, "steps": steps, "skipped": skipped})
        );
        return Ok(());
    }
    println!("a rehearsal of stage {stage}; nothing was touched.\n");
    let mut rows = vec![["step", "stage", "kind", "at", "needs"].map(str::to_owned).to_vec()];
    rows.extend(plan.steps.iter().map(|step| {
        vec![
            step.name.clone(),
            step.stage.to_string(),
            step.kind.clone(),
            step.at.name().to_owned(),
            step.needs.join(", "),
        ]
    }));
    print!("{}", present::table(&rows));
    for (name, why) in &variant.skipped {
        println!("left out: {name}: {why}");
    }
    Ok(())
}
