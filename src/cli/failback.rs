//! `planb failback`: the service goes home, with what the standby took in; or, where it never served, the stages go.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::operation::{Desk, Opening, OperationArgs, confirm, refuse, standing_json, unanswered};
use super::screen::Screen;
use super::{Common, fences, open, outlook, target};
use crate::backup::entry::newest_good;
use crate::recovery::engine::Rest;
use crate::recovery::event::{Accepted, Chosen, Ended, Event};
use crate::recovery::journal::Position;
use crate::recovery::operation::Operation;
use crate::recovery::plan::{Aim, Place, Plan, Role, Site};
use crate::recovery::rules::{Facts, Limits, Refusal, Rule, against};
use crate::secret::resolver::Resolver;
use crate::steps::{self, presence};

#[derive(Debug, Args)]
#[command(
    after_help = "Keeps what the primary has first, freezes writes at the standby, takes a last backup of it, restores the primary beside \
    its old data, compares, opens it, brings traffic home, and then destroys stages 3 and 2. It can be abandoned until the \
    primary opens: the standby goes on serving. Where the standby never served, no data moves: fences are lifted, and the stages \
    go.\n\nFirst: planb failback --plan. Exit codes as for planb failover."
)]
pub struct FailbackArgs {
    #[command(flatten)]
    operation: OperationArgs,
}

pub async fn run(common: &Common, args: &FailbackArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let by = args.operation.by(format!("{:016x}", rand::random::<u64>()));
    let accepted = args.operation.accepted(&by.who)?;
    let mut desk = Desk::open(common, config, by, Place::Operator).await?;
    if args.operation.plan {
        let position = desk.position(&accepted).await?;
        return show(&desk, &position).await;
    }
    desk.take_lease(args.operation.is_about_an_open_one()).await?;
    let done = act(&desk, args, accepted).await;
    desk.finish(done).await
}

/// Which way home it is, and its steps.
fn way(desk: &Desk, position: &Position) -> Result<(Aim, Plan), Failure> {
    let aim = if position.state.standing.standby_served {
        Aim::Failback
    } else {
        Aim::StandDown
    };
    let plan = steps::plan::plan(&desk.config.failback_steps).for_aim(aim);
    if plan.steps.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[failback_steps]] for this; config/recovery.toml is an example".to_owned(),
        ));
    }
    Ok((aim, plan))
}

async fn act(desk: &Desk, args: &FailbackArgs, accepted: Vec<Accepted>) -> Result<(Rest, Position), Failure> {
    let position = desk.position(&accepted).await?;
    let screen = Arc::new(Screen::new(desk.json));
    if args.operation.is_about_an_open_one() {
        let position = desk.take_up(position, &args.operation, Site::Primary, accepted).await?;
        return desk.go_on(position, &screen).await;
    }
    let mut position = position;
    let open = position.state.open().cloned();
    if let Some(operation) = open.filter(|open| open.can_be_given_up(&position.state.standing)) {
        position = give_up(desk, args, position, &operation, &accepted).await?;
    }
    let (aim, plan) = way(desk, &position)?;
    // What the primary takes in from here on would be lost.
    if aim == Aim::Failback && position.state.open().is_none() {
        let pending: Vec<Site> = position.state.standing.pending_fences().collect();
        for site in pending.into_iter().filter(|site| *site == Site::Primary) {
            if let Err(why) = fences::raise(&desk.config, &desk.stores, &position, site).await {
                eprintln!("planb: the fence of the {site} is still not proven: {why}");
                continue;
            }
            let mut standing = position.state.standing.clone();
            if standing.proven(site).is_ok() {
                position = desk.append(&position, Event::FenceProven { site, standing }).await?;
            }
        }
    }
    let look = look(desk, aim, &plan, &position).await?;
    if !desk.json {
        for line in &look.lines {
            eprintln!("{line}");
        }
    }
    refuse(&unanswered(look.refusals, &accepted))?;
    confirm(&args.operation, &desk.config, desk.json)?;
    let opening = Opening {
        aim,
        plan,
        backup: newest(desk, aim).await?,
        pinned: false,
        facts: outlook::facts(&look.lines),
        accepted,
    };
    let position = desk.begin(&position, opening).await?;
    desk.go_on(position, &screen).await
}

/// Nobody serves: the operation ends, and the primary may serve again.
async fn give_up(
    desk: &Desk,
    args: &FailbackArgs,
    mut position: Position,
    operation: &Operation,
    accepted: &[Accepted],
) -> Result<Position, Failure> {
    let at_work = operation.at_work(desk.journal.now().await?);
    let vanished = accepted
        .iter()
        .find(|accepted| accepted.rule == Rule::StillAtWork.name());
    if vanished.is_none() {
        let still = at_work.iter().map(|(step, until)| Refusal {
            rule: Rule::StillAtWork,
            why: format!(
                "{} is at work at the {}, and may be until {until}: stop it there; where that machine is gone, give up after that",
                step.name,
                step.at.name()
            ),
        });
        refuse(&still.collect::<Vec<_>>())?;
    }
    eprintln!(
        "{} was begun {} and nobody serves since its fence was proven; it is given up, and the primary serves again",
        operation.aim.command(),
        operation.opened_at
    );
    confirm(&args.operation, &desk.config, desk.json)?;
    if let Some(vanished) = vanished.filter(|_| !at_work.is_empty()) {
        desk.teller.accepted(operation.number, std::slice::from_ref(vanished));
        position = desk.append(&position, Event::Accept(vanished.clone())).await?;
    }
    let standing = operation.leaves(&position.state.standing, Ended::GivenUp);
    let how = Ended::GivenUp;
    position = desk.append(&position, Event::Ended { how, standing }).await?;
    desk.teller.ended(how, &position);
    Ok(position)
}

fn told(aim: Aim) -> &'static str {
    match aim {
        Aim::StandDown => {
            "stand-down: the standby never served, so no data moves; fences are lifted, the stages destroyed"
        }
        Aim::Failover { .. } | Aim::Failback | Aim::Drill { .. } => "home, with the data that the standby took in",
    }
}

/// What comes home where the standby is gone, and no last backup of it can be had.
async fn newest(desk: &Desk, aim: Aim) -> Result<Option<Chosen>, Failure> {
    if aim != Aim::Failback {
        return Ok(None);
    }
    let entries = open::listing(&desk.config, &desk.stores).await?;
    Ok(newest_good(&entries).map(steps::chosen))
}

/// Everything that is known before anything is done.
struct Look {
    lines: Vec<String>,
    refusals: Vec<Refusal>,
}

/// Asks who is to be reached; touches nothing.
async fn look(desk: &Desk, aim: Aim, plan: &Plan, position: &Position) -> Result<Look, Failure> {
    let mut lines = outlook::lines(desk, position).await;
    lines.push(format!("way       {}", told(aim)));
    // What the runner does, it must reach; nobody can ask for it from here.
    let is_reached_from_here = plan.with_role(at_the_primary).any(|step| step.at == Place::Operator);
    let primary = match (&desk.config.primary, aim) {
        (Some(primary), Aim::Failback) if is_reached_from_here => {
            let resolver = Resolver::for_config(&desk.config);
            let address = async {
                let address = target::standby(primary, &resolver).await;
                address.map_err(|failure| failure.message().to_owned())
            };
            Some(presence::of(address).await)
        }
        _ => None,
    };
    lines.extend(primary.as_ref().map(outlook::answer_line));
    lines.extend(keeps(plan));
    let facts = Facts {
        primary,
        chosen: None,
        proven_at: None,
        now: desk.stores.backups.now().await?,
    };
    let limits = Limits {
        max_loss: desk.config.failover.max_loss,
        proof_max_age: desk.config.verify.proof_max_age,
    };
    Ok(Look {
        lines,
        refusals: against(aim, &position.state, &facts, &limits),
    })
}

/// Whether a step works on the primary's database.
fn at_the_primary(role: Role) -> bool {
    matches!(
        role,
        Role::Preserve(Site::Primary)
            | Role::Restore(Site::Primary)
            | Role::Verify(Site::Primary)
            | Role::Open(Site::Primary)
    )
}

/// What is kept aside, what is replaced, and what goes for good.
fn keeps(plan: &Plan) -> Vec<String> {
    let names = |is: fn(Role) -> bool| {
        let names: Vec<&str> = plan.with_role(is).map(|step| step.name.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let mut lines = Vec::new();
    if let Some(step) = names(|role| matches!(role, Role::Preserve(_))) {
        lines.push(format!(
            "kept      what the primary has and the standby never got, under preserved/, and as SQL what differs ({step})"
        ));
    }
    if let Some(step) = names(|role| matches!(role, Role::Restore(Site::Primary))) {
        lines.push(format!(
            "replaced  the primary's tables, by the standby's last backup; the old ones stay beside them as planb_old_… ({step})"
        ));
    }
    if let Some(steps) = names(|role| role == Role::Destroy) {
        lines.push(format!("destroyed {steps}; never stage 1, never a backup"));
    }
    lines
}

async fn show(desk: &Desk, position: &Position) -> Result<(), Failure> {
    let (aim, plan) = way(desk, position)?;
    let look = look(desk, aim, &plan, position).await?;
    let usual = outlook::earlier(desk, aim).await?;
    let expected = outlook::expected(&plan, &usual);
    let hour = outlook::hour(desk, position.state.standing.stage, None).await?;
    if desk.json {
        println!(
            "{}",
            json!({
                "v": 1, "command": "planb failback", "way": told(aim), "standing": standing_json(position),
                "facts": outlook::facts(&look.lines), "steps": outlook::steps_json(&plan, aim, position, &usual),
                "expected_seconds": expected.seconds, "expected_is_unknown_of": expected.unknown,
                "saves_per_hour": outlook::hour_json(hour.as_ref()), "refused": outlook::refusals_json(&look.refusals),
            })
        );
        return Ok(());
    }
    println!("planb failback: this is what it would do; nothing was touched.\n");
    for line in &look.lines {
        println!("{line}");
    }
    println!();
    print!("{}", outlook::table(&plan, aim, position, &usual));
    println!("\n{}", expected.line(plan.steps.len(), None));
    if let Some((cost, currency)) = hour {
        println!("about {cost:.2} {currency} an hour less once the stages are gone, by list prices (planb cost)");
    }
    for line in outlook::refusals(&look.refusals) {
        println!("{line}");
    }
    Ok(())
}
