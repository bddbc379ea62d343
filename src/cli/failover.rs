//! `planb failover`: the service comes up in the other cloud.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::failure::Failure;
use super::operation::{Desk, Opening, OperationArgs, confirm, loss, refuse, standing_json, unanswered};
use super::screen::Screen;
use super::{Common, open, outlook, present, target};
use crate::backup::entry::{Entry, Standing, good_ones};
use crate::recovery::engine::Rest;
use crate::recovery::event::Accepted;
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Place, Plan, Site};
use crate::recovery::rules::{Answer, Candidate, Facts, Limits, Refusal, against};
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;
use crate::steps::{self, presence};

#[derive(Debug, Args)]
#[command(
    after_help = "Stage 1 provisions what stands always. Stage 2 brings the database up and restores the newest good backup into it. \
    Stage 3 brings the whole service up, fences the primary, opens the standby, and moves traffic.\n\n\
    First: planb failover --stage 2 --plan. Every step is journaled in the store; whatever stops it, --resume goes on, from any \
    machine. Until the commit point --abandon takes everything back; after it, only forward.\n\n\
    Exit 3: a safety rule stands against it (each is named, and says how to answer for it). Exit 4: stopped part-way.\n\n\
    Examples:\n  planb failover --stage 2\n  planb failover --stage 3 --accept primary-healthy=\"login works, every query hangs\"\n  \
    planb failover --stage 3 --planned\n  planb failover --resume\n  planb failover --abandon"
)]
pub struct FailoverArgs {
    /// How far: 1 (what stands always), 2 (database), 3 (the whole service, and traffic)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=3), required_unless_present_any = ["resume", "abandon", "approve"])]
    stage: Option<u8>,
    /// The primary is well: fence it first, take a last backup, and lose nothing
    #[arg(long, conflicts_with_all = ["backup", "at"])]
    planned: bool,
    /// Restore this backup rather than the newest good one (after a logical corruption, say)
    #[arg(long, value_name = "ID", conflicts_with = "at")]
    backup: Option<String>,
    /// Restore the newest good backup from before this instant (RFC 3339)
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    operation: OperationArgs,
}

impl FailoverArgs {
    /// To `stage`, from the newest good backup, with nobody to ask.
    pub fn unattended(stage: u8) -> Self {
        Self {
            stage: Some(stage),
            planned: false,
            backup: None,
            at: None,
            operation: OperationArgs {
                plan: false,
                yes: true,
                resume: false,
                abandon: false,
                approve: false,
                accept: Vec::new(),
                as_who: None,
            },
        }
    }
}

pub async fn run(common: &Common, args: &FailoverArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let by = args.operation.by(format!("{:016x}", rand::random::<u64>()));
    let accepted = args.operation.accepted(&by.who)?;
    let mut desk = Desk::open(common, config, by, Place::Operator).await?;
    if args.operation.plan {
        let position = desk.position(&accepted).await?;
        return show(&desk, args, &position).await;
    }
    desk.take_lease(args.operation.is_about_an_open_one()).await?;
    let done = act(&desk, args, accepted).await;
    desk.finish(done).await
}

async fn act(desk: &Desk, args: &FailoverArgs, accepted: Vec<Accepted>) -> Result<(Rest, Position), Failure> {
    let position = desk.position(&accepted).await?;
    let screen = Arc::new(Screen::new(desk.json));
    if args.operation.is_about_an_open_one() {
        let position = desk.take_up(position, &args.operation, Site::Standby, accepted).await?;
        return desk.go_on(position, &screen).await;
    }
    let look = look(desk, args, &position).await?;
    if !desk.json {
        for line in look.lines() {
            eprintln!("{line}");
        }
    }
    refuse(&unanswered(look.refusals.clone(), &accepted))?;
    confirm(&args.operation, &desk.config, desk.json)?;
    let opening = Opening {
        pinned: args.backup.is_some() || args.at.is_some(),
        ..look.opening(accepted)
    };
    let position = desk.begin(&position, opening).await?;
    desk.go_on(position, &screen).await
}

/// Everything that is known before anything is done.
pub struct Look {
    aim: Aim,
    plan: Plan,
    /// Where the service stands, line by line.
    stands: Vec<String>,
    primary: Option<Answer>,
    chosen: Option<Candidate>,
    proven_at: Option<Timestamp>,
    pub refusals: Vec<Refusal>,
    now: Timestamp,
}

impl Look {
    /// What an operation would be opened with.
    pub fn opening(self, accepted: Vec<Accepted>) -> Opening {
        Opening {
            facts: self.facts(),
            aim: self.aim,
            plan: self.plan,
            backup: self.chosen.map(|candidate| candidate.backup),
            pinned: false,
            accepted,
        }
    }

    /// None where there is no backup.
    pub fn loss(&self) -> Option<Duration> {
        let chosen = self.chosen.as_ref()?;
        Duration::try_from(self.now.duration_since(chosen.backup.consistent_at)).ok()
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = self.stands.clone();
        lines.extend(self.primary.as_ref().map(outlook::answer_line));
        if let Some(candidate) = &self.chosen {
            lines.push(format!("backup    {}", candidate.backup.id));
            lines.push(match self.aim {
                Aim::Failover { planned: true, .. } => {
                    "loss      none: the primary is fenced first, and a last backup taken".to_owned()
                }
                _ => format!("loss      {}", loss(&candidate.backup, self.now)),
            });
        }
        if let Some(at) = self.proven_at {
            lines.push(format!(
                "proof     a backup was last restored and checked {}",
                present::age(at, self.now)
            ));
        }
        lines
    }

    fn facts(&self) -> BTreeMap<String, String> {
        outlook::facts(&self.lines())
    }
}

/// Asks the primary, and for backups; touches nothing.
pub async fn look(desk: &Desk, args: &FailoverArgs, position: &Position) -> Result<Look, Failure> {
    let config = &desk.config;
    let aim = Aim::Failover {
        stage: args.stage.unwrap_or(2),
        planned: args.planned,
    };
    let plan = steps::plan::plan(&config.failover_steps).for_aim(aim);
    if plan.steps.is_empty() {
        return Err(Failure::Usage(format!(
            "the configuration has no [[failover_steps]] for stage {}; config/recovery.toml is an example",
            args.stage.unwrap_or(2)
        )));
    }
    let now = desk.stores.backups.now().await?;
    let needs_data = args.stage.unwrap_or(2) > 1;
    let entries = open::listing(config, &desk.stores).await?;
    let chosen = if needs_data { candidate(&entries, args)? } else { None };
    let primary = if needs_data {
        Some(ask_primary(desk).await)
    } else {
        None
    };
    let proven_at = entries.iter().filter_map(|entry| entry.proven_at).max();
    let facts = Facts {
        primary: primary.clone(),
        chosen: chosen.clone(),
        proven_at,
        now,
    };
    let limits = Limits {
        max_loss: config.failover.max_loss,
        proof_max_age: config.verify.proof_max_age,
    };
    Ok(Look {
        aim,
        plan,
        stands: outlook::lines(desk, position).await,
        primary,
        chosen,
        proven_at,
        refusals: against(aim, &position.state, &facts, &limits),
        now,
    })
}

/// The backup that would be restored.
fn candidate(entries: &[Entry], args: &FailoverArgs) -> Result<Option<Candidate>, Failure> {
    let of = |entry: &Entry, was_named| Candidate {
        backup: steps::chosen(entry),
        is_orphan: entry.standing == Standing::Orphan,
        was_named,
    };
    if let Some(id) = &args.backup {
        let entry = entries.iter().find(|entry| entry.id.as_str() == id);
        let entry =
            entry.ok_or_else(|| Failure::Usage(format!("there is no backup {id}; planb backups lists them")))?;
        if let Standing::Unusable(why) = &entry.standing {
            return Err(Failure::Damaged(format!("{id} cannot be restored: {why}")));
        }
        return Ok(Some(of(entry, true)));
    }
    let until = match &args.at {
        Some(text) => {
            let at = text.parse::<Timestamp>();
            Some(at.map_err(|_| Failure::Usage(format!("--at {text}: write it as 2026-11-21T03:00:00Z")))?)
        }
        None => None,
    };
    let good = good_ones(entries)
        .into_iter()
        .find(|entry| until.is_none_or(|until| entry.consistent_at <= until));
    Ok(good.map(|entry| of(entry, until.is_some())))
}

/// As the account that takes backups; where the way to it is not to be had (AWS's interface and secrets may be away while the
/// database is well), as the one that fences.
async fn ask_primary(desk: &Desk) -> Answer {
    let finder = Finder::new(desk.config.source.clone(), Resolver::for_config(&desk.config));
    let first = presence::of_source(&finder).await;
    let (Answer::Unasked(why), Some(primary)) = (&first, &desk.config.primary) else {
        return first;
    };
    let resolver = Resolver::for_config(&desk.config);
    let address = async {
        let address = target::standby(primary, &resolver).await;
        address.map_err(|failure| format!("{why}; [primary]: {}", failure.message()))
    };
    presence::of(address).await
}

/// `--plan`
async fn show(desk: &Desk, args: &FailoverArgs, position: &Position) -> Result<(), Failure> {
    let look = look(desk, args, position).await?;
    let usual = outlook::earlier(desk, look.aim).await?;
    let expected = outlook::expected(&look.plan, &usual);
    let chosen = look.chosen.as_ref().map(|candidate| candidate.backup.id.as_str());
    let hour = outlook::hour(desk, args.stage.unwrap_or(2), chosen).await?;
    if desk.json {
        println!(
            "{}",
            json!({
                "v": 1, "command": look.aim.command(), "standing": standing_json(position), "facts": look.facts(),
                "steps": outlook::steps_json(&look.plan, look.aim, position, &usual),
                "expected_seconds": expected.seconds, "expected_is_unknown_of": expected.unknown,
                "cost_per_hour": outlook::hour_json(hour.as_ref()),
                "refused": outlook::refusals_json(&look.refusals),
            })
        );
        return Ok(());
    }
    println!(
        "{}: this is what it would do; nothing was touched.\n",
        look.aim.command()
    );
    for line in look.lines() {
        println!("{line}");
    }
    println!();
    print!("{}", outlook::table(&look.plan, look.aim, position, &usual));
    println!(
        "\n{}",
        expected.line(look.plan.steps.len(), Some(desk.config.targets.rto))
    );
    if let Some((cost, currency)) = hour {
        println!("about {cost:.2} {currency} an hour while it stands, by list prices (planb cost)");
    }
    if look.plan.steps.iter().any(|step| step.at == Place::Runner) {
        println!("steps at the runner wait until planb runner is up inside the second cloud's network");
    }
    for line in outlook::refusals(&look.refusals) {
        println!("{line}");
    }
    Ok(())
}
