//! `planb failback`: the service goes home, with what the standby took in; or, where it never served, the stages go.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::failure::Failure;
use super::operation::{Desk, Opening, OperationArgs, confirm, refuse, standing_json, standing_line, unanswered};
use super::screen::Screen;
use super::{Common, fences, open};
use crate::recovery::engine::Rest;
use crate::recovery::event::{Accepted, Ended, Event};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Place, Plan, Site};
use crate::recovery::rules::{Facts, Limits, against};
use crate::steps;

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
        let position = desk.take_up(position, &args.operation, accepted).await?;
        return desk.go_on(position, &screen).await;
    }
    let mut position = position;
    if let Some(operation) = position
        .state
        .open()
        .filter(|open| open.can_be_given_up(&position.state.standing))
    {
        eprintln!(
            "{} was begun {} and nobody serves since its fence was proven; it is given up, and the primary serves again",
            operation.aim.command(),
            operation.opened_at
        );
        confirm(&args.operation, &desk.config, desk.json)?;
        let standing = operation.leaves(&position.state.standing, Ended::GivenUp);
        let how = Ended::GivenUp;
        position = desk.append(&position, Event::Ended { how, standing }).await?;
        desk.teller.ended(how, &position);
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
    let facts = Facts {
        primary: None,
        chosen: None,
        proven_at: None,
        now: desk.stores.backups.now().await?,
    };
    let limits = Limits {
        max_loss: desk.config.failover.max_loss,
        proof_max_age: desk.config.verify.proof_max_age,
    };
    let refusals = against(aim, &position.state, &facts, &limits);
    refuse(&unanswered(refusals, &accepted))?;
    if !desk.json {
        eprintln!("now       {}", standing_line(&position));
        eprintln!("way       {}", told(aim));
    }
    confirm(&args.operation, &desk.config, desk.json)?;
    let opening = Opening {
        aim,
        plan,
        backup: None,
        pinned: false,
        facts: BTreeMap::from([("now".to_owned(), standing_line(&position))]),
        accepted,
    };
    let position = desk.begin(&position, opening).await?;
    desk.go_on(position, &screen).await
}

fn told(aim: Aim) -> &'static str {
    match aim {
        Aim::StandDown => {
            "stand-down: the standby never served, so no data moves; fences are lifted, the stages destroyed"
        }
        Aim::Failover { .. } | Aim::Failback | Aim::Drill { .. } => "home, with the data that the standby took in",
    }
}

async fn show(desk: &Desk, position: &Position) -> Result<(), Failure> {
    let (aim, plan) = way(desk, position)?;
    let (entries, _) = desk.journal.history().await?;
    let usual = super::history::usual(&entries);
    if desk.json {
        let steps: Vec<_> = plan
            .steps
            .iter()
            .map(|step| json!({"name": step.name, "kind": step.kind, "at": step.at.name(), "needs": step.needs, "expected_seconds": usual.get(&step.name)}))
            .collect();
        println!(
            "{}",
            json!({"v": 1, "command": "planb failback", "way": told(aim), "standing": standing_json(position), "steps": steps})
        );
        return Ok(());
    }
    println!("planb failback: this is what it would do; nothing was touched.\n");
    println!("now       {}", standing_line(position));
    println!("way       {}\n", told(aim));
    print!("{}", super::history::table(&plan, position, &usual));
    Ok(())
}
