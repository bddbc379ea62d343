//! `planb runner`: carries out, inside the second cloud's network, what an operator started elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::drill::attend::attend;
use super::drill::schedule;
use super::failure::Failure;
use super::operation::Desk;
use super::screen::Screen;
use super::{Common, dark, open};
use crate::agent::notify::Systemd;
use crate::backup::lease;
use crate::config::drill::Keeper;
use crate::notify::Nobody;
use crate::prepare::record::Looker;
use crate::recovery::engine::Rest;
use crate::recovery::event::By;
use crate::recovery::journal::Position;
use crate::recovery::plan::Place;

/// How often the journal is looked at while nothing is open.
const LOOK_EVERY: Duration = Duration::from_secs(3);

pub async fn run(common: &Common) -> Result<(), Failure> {
    let ended = CancellationToken::new();
    let serving = async {
        let served = serve(common).await;
        ended.cancel();
        served
    };
    // Beside the operations: that it looked is how others know that it is there. What it finds, the agent tells people.
    let looking = dark::by_schedule(common.config.clone(), Looker::Runner, Arc::new(Nobody), ended.clone());
    tokio::join!(serving, looking).0
}

async fn serve(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    let by = By {
        who: "runner".to_owned(),
        host: lease::host_name(),
        run: format!("{:016x}", rand::random::<u64>()),
    };
    let mut desk = Desk::open(common, config, by, Place::Runner).await?;
    tracing::info!("waiting for an operation with steps for the runner");
    let mut interrupted = std::pin::pin!(super::backup::interrupted());
    let mut left_at = None;
    let stop = CancellationToken::new();
    let mut acting = JoinSet::new();
    let announcer = Arc::new(desk.teller.announcer());
    acting.spawn(schedule::keep(common.clone(), Keeper::Runner, announcer, stop.clone()));
    acting.spawn(attend(common.clone(), desk.config.clone(), stop.clone()));
    loop {
        tokio::select! {
            () = &mut interrupted => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let position = match desk.journal.read().await {
            Ok(position) => position,
            Err(error) => {
                tracing::warn!(%error, "the journal cannot be read; trying again");
                continue;
            }
        };
        if !has_work(&position) || left_at == Some((position.state.operations, position.state.entries)) {
            continue;
        }
        // Each time another run: what an earlier one left at work is at work no more.
        desk.by.run = format!("{:016x}", rand::random::<u64>());
        if let Err(error) = desk.take_lease(false).await {
            tracing::warn!(error = error.message(), "another runner is at it");
            continue;
        }
        let screen = Arc::new(Screen::new(common.json));
        let done = desk.go_on(position, &screen).await;
        desk.give_lease_back().await;
        match done {
            Ok((Rest::Stopped, _)) => break,
            // Whoever was away for a moment goes on; what failed waits for somebody else's entry.
            Ok((Rest::Lost, _)) => {}
            Ok((rest, position)) => {
                // Nothing is tried again before somebody else wrote something.
                left_at = Some((position.state.operations, position.state.entries));
                tracing::info!(?rest, "at rest");
            }
            Err(error) => tracing::error!(
                error = error.message(),
                "the operation cannot be gone on with here; trying again"
            ),
        }
    }
    stop.cancel();
    schedule::come_to_rest(acting, &Systemd).await;
    desk.teller
        .finish(&desk.config, &desk.stores.control, &desk.by.run)
        .await;
    Ok(())
}

fn has_work(position: &Position) -> bool {
    position.state.open().is_some_and(|operation| {
        operation
            .plan
            .steps
            .iter()
            .any(|step| step.at == Place::Runner && (!operation.is_done(&step.name) || operation.abandoning.is_some()))
    })
}
