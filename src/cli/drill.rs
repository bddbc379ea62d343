//! `planb drill`: the plan rehearsed in isolation, measured, taken back, and written down for an auditor.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::operation::{Desk, Opening, Rehearsing, user};
use super::screen::Screen;
use super::tell::Teller;
use super::{Common, open, present};
use crate::backup::entry::newest_good;
use crate::backup::lease;
use crate::backup::rpo::{Newest, State as RpoState};
use crate::config::Config;
use crate::drill::moment::{Moment, draw};
use crate::drill::page;
use crate::drill::report::{Report, facts, report};
use crate::drill::variant::{Variant, variant};
use crate::recovery::engine::Rest;
use crate::recovery::event::{By, Event};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Place, Site};
use crate::steps;

mod kept;
pub mod schedule;

/// How often a rehearsal looks whether a real operation was begun.
const LOOK_EVERY: Duration = Duration::from_secs(5);

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
        stop: CancellationToken::new(),
    };
    let reports = rehearse(common, &config, wanted).await?;
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
    /// Stops it; it is taken back then.
    pub stop: CancellationToken,
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

fn show(common: &Common, config: &Config, stage: u8) -> Result<(), Failure> {
    let variant = isolated(config, stage)?;
    let plan = steps::plan::rehearsal(&variant.config.failover_steps);
    if common.json {
        let steps: Vec<_> = plan
            .steps
            .iter()
            .map(|step| json!({"name": step.name, "kind": step.kind, "stage": step.stage, "needs": step.needs}))
            .collect();
        let skipped: BTreeMap<_, _> = variant.skipped.into_iter().collect();
        println!(
            "{}",
            json!({"v": 1, "stage": stage, "steps": steps, "skipped": skipped})
        );
        return Ok(());
    }
    println!("a rehearsal of stage {stage}; nothing was touched.\n");
    let mut rows = vec![["step", "stage", "kind", "needs"].map(str::to_owned).to_vec()];
    rows.extend(plan.steps.iter().map(|step| {
        vec![
            step.name.clone(),
            step.stage.to_string(),
            step.kind.clone(),
            step.needs.join(", "),
        ]
    }));
    print!("{}", present::table(&rows));
    for (name, why) in &variant.skipped {
        println!("left out: {name}: {why}");
    }
    Ok(())
}

/// Takes back what an earlier one left, then does what is wanted. The reports of all that came to their end, in order.
///
/// # Errors
/// A refusal before anything is begun, and whatever keeps one from being taken back.
pub async fn rehearse(common: &Common, config: &Config, wanted: Wanted) -> Result<Vec<Report>, Failure> {
    let stage = match wanted.what {
        What::Rehearse { stage, .. } => stage,
        // Whatever was begun is part of the longest plan.
        What::Clean | What::Resume => 3,
    };
    let variant = isolated(config, stage).or_else(|failure| match wanted.what {
        What::Rehearse { .. } => Err(failure),
        What::Clean | What::Resume => isolated(config, 2),
    })?;
    let rehearsing = Rehearsing {
        avoid: variant.avoid.clone(),
        stop: wanted.stop.clone(),
    };
    let mut desk = Desk::of_drill(common, variant.config.clone(), wanted.by.clone(), rehearsing).await?;
    desk.take_lease(wanted.what == What::Clean || wanted.what == What::Resume)
        .await?;
    let done = at_the_desk(&desk, config, &variant, &wanted).await;
    desk.give_lease_back().await;
    if let Ok(reports) = &done
        && !reports.is_empty()
    {
        let teller = Teller::start(config, Place::Operator).await;
        for report in reports {
            teller.rehearsed(report.passed(), report.summary());
        }
        teller.finish(config, &desk.stores.control, &wanted.by.run).await;
    }
    done
}

async fn at_the_desk(desk: &Desk, config: &Config, variant: &Variant, wanted: &Wanted) -> Result<Vec<Report>, Failure> {
    let screen = Arc::new(Screen::new(desk.json));
    let mut reports = Vec::new();
    let mut position = desk.position(&[]).await?;
    if let Some(open) = position.state.open() {
        if wanted.what == What::Resume {
            reports.push(carry_on(desk, config, position, &screen).await?);
            return Ok(reports);
        }
        screen.line(&format!(
            "the rehearsal of {} was never taken back; that comes first",
            present::time(open.opened_at)
        ));
        let cleaned = take_back(desk, position, "its process died", &screen).await?;
        reports.push(written(desk, config, &cleaned).await?);
        if cleaned.state.open().is_some() {
            return Ok(reports);
        }
        position = cleaned;
    }
    let What::Rehearse { stage, seed } = wanted.what else {
        return Ok(reports);
    };
    let moment = look(desk, config, seed).await?;
    let plan = steps::plan::rehearsal(&variant.config.failover_steps);
    let opening = Opening {
        aim: Aim::Drill { stage },
        plan,
        backup: Some(steps::chosen(&moment.backup)),
        pinned: true,
        facts: kept_facts(config, variant, &moment),
        accepted: Vec::new(),
    };
    screen.line(&format!(
        "everything is taken to be lost at {} (seed {}): {} is the newest of then, {} would be lost",
        present::time(moment.at),
        moment.seed,
        moment.backup.id,
        present::duration(Duration::try_from(moment.loss).unwrap_or_default())
    ));
    let position = desk.begin(&position, opening).await?;
    reports.push(carry_on(desk, config, position, &screen).await?);
    Ok(reports)
}

/// What stands against it; and the moment.
async fn look(desk: &Desk, config: &Config, seed: Option<u64>) -> Result<Moment, Failure> {
    let known = open::journal(config, &desk.stores).known().await?;
    let refused = |why: String| Err(Failure::Refused(why));
    if let Some(damage) = known.damage {
        return refused(format!(
            "the journal of failovers is damaged ({damage}): see to that first"
        ));
    }
    if known.is_open {
        return refused(
            "a failover or failback is open: nothing is rehearsed beside it; planb status shows it".to_owned(),
        );
    }
    if known.standing.serving != Some(Site::Primary) {
        return refused("the primary does not serve: this is no time for a rehearsal".to_owned());
    }
    let entries = open::listing(config, &desk.stores).await?;
    let now = desk.stores.backups.now().await?;
    let rpo = Newest::of(&entries).assess(config.targets.rpo, None, now);
    if rpo.state == RpoState::Breached {
        return refused(format!(
            "{rpo} (targets.rpo is {}): see to the backups first; planb status",
            present::duration(config.targets.rpo)
        ));
    }
    let seed = seed.unwrap_or_else(rand::random);
    draw(&entries, now, seed)
        .ok_or_else(|| Failure::Refused("there is no good backup to rehearse with; planb backups".to_owned()))
}

fn kept_facts(config: &Config, variant: &Variant, moment: &Moment) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::from([
        (facts::SERVICE, config.service.name.clone()),
        (facts::PLANB, env!("CARGO_PKG_VERSION").to_owned()),
        (facts::SEED, moment.seed.to_string()),
        (facts::LOST_AT, moment.at.to_string()),
        (facts::LOSS, moment.loss.as_secs_f64().to_string()),
        (facts::WORST, moment.worst_loss.as_secs_f64().to_string()),
        (facts::RPO, config.targets.rpo.as_secs_f64().to_string()),
        (facts::RTO, config.targets.rto.as_secs_f64().to_string()),
        (facts::RAW, moment.backup.raw_bytes.to_string()),
        (facts::STORED, moment.backup.size_bytes.to_string()),
        (facts::ROWS, moment.backup.rows.to_string()),
    ])
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<BTreeMap<_, _>>();
    for (name, why) in &variant.skipped {
        kept.insert(format!("{}{name}", facts::SKIPPED), why.clone());
    }
    kept
}

/// To its end, one way or another, and back.
async fn carry_on(desk: &Desk, config: &Config, position: Position, screen: &Arc<Screen>) -> Result<Report, Failure> {
    let (rest, position) = tokio::select! {
        done = desk.go_on_until(position, screen, stopped(desk)) => done?,
        never = gives_way(desk, config) => match never {},
    };
    let position = match &rest {
        Rest::Ended(_) | Rest::Nothing => position,
        Rest::Lost => {
            return Err(Failure::StoppedPartWay(
                "the lease was lost: somebody else may be at it. planb drill --clean takes back what is left"
                    .to_owned(),
            ));
        }
        Rest::Failed(steps) => {
            let what: Vec<&str> = steps.iter().map(|(step, _)| step.as_str()).collect();
            let why = format!("step {} failed", what.join(", "));
            take_back(desk, position, &why, screen).await?
        }
        Rest::Stopped => take_back(desk, position, "it was stopped", screen).await?,
        Rest::Approval { .. } | Rest::Refused(_) => take_back(desk, position, "it could not go on", screen).await?,
    };
    written(desk, config, &position).await
}

/// Once a person presses Ctrl-C, or somebody else stops it.
async fn stopped(desk: &Desk) {
    let stop = desk
        .rehearsal
        .as_ref()
        .map(|drill| drill.stop.clone())
        .unwrap_or_default();
    tokio::select! {
        () = super::backup::interrupted() => {}
        () = stop.cancelled() => {}
    }
}

/// Stops the rehearsal as soon as a real operation is begun.
async fn gives_way(desk: &Desk, config: &Config) -> std::convert::Infallible {
    let journal = open::journal(config, &desk.stores);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if journal.known().await.is_ok_and(|known| known.is_open)
            && let Some(rehearsal) = &desk.rehearsal
            && !rehearsal.stop.is_cancelled()
        {
            tracing::warn!("a real failover was begun: the rehearsal gives way");
            rehearsal.stop.cancel();
        }
    }
}

async fn take_back(desk: &Desk, position: Position, why: &str, screen: &Arc<Screen>) -> Result<Position, Failure> {
    let Some(operation) = position.state.open() else {
        return Ok(position);
    };
    screen.line(&format!("taking the rehearsal back: {why}"));
    let position = match operation.abandoning {
        Some(_) => position,
        None => {
            let reason = why.to_owned();
            desk.append(&position, Event::Abandoning { reason }).await?
        }
    };
    let (rest, position) = desk.go_on(position, screen).await?;
    if let Rest::Failed(steps) = &rest {
        for (step, error) in steps {
            screen.line(&format!("{step} could not be taken back: {error}"));
        }
    }
    Ok(position)
}

/// The report, with the forecast, in the store.
async fn written(desk: &Desk, config: &Config, position: &Position) -> Result<Report, Failure> {
    let (entries, _) = desk.journal.history().await?;
    let of: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.operation == position.state.operations)
        .collect();
    let Some(mut report) = report(&of) else {
        return Err(Failure::failed("the rehearsal's journal holds no rehearsal"));
    };
    let mut reports = kept::all(config, &desk.stores).await?;
    reports.retain(|other| other.id != report.id);
    reports.push(report.clone());
    let listed = open::listing(config, &desk.stores).await?;
    if let Some(operation) = &position.state.operation {
        let today = newest_good(&listed).map_or(report.backup.raw_bytes, |entry| entry.raw_bytes);
        report.forecast = kept::forecast(&operation.plan, &reports, today, config);
    }
    if let Some(last) = reports.last_mut() {
        last.clone_from(&report);
    }
    if let Err(error) = kept::keep(config, &desk.stores, &report, &reports).await {
        eprintln!("planb: warning: the report could not be written: {}", told(&error));
    }
    Ok(report)
}
