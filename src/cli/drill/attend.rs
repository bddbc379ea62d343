//! The runner's part of rehearsals: the steps that are `at = "runner"`, by the runner's own configuration, isolated as everybody's is.
//!
//! Beside the real operations and apart from them: a rehearsal that waits for somebody else keeps no failover waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::by;
use super::rehearse::avoid;
use crate::cli::Common;
use crate::cli::operation::Desk;
use crate::cli::screen::Screen;
use crate::config::Config;
use crate::drill::variant::of_begun;
use crate::recovery::engine::Rest;
use crate::recovery::journal::Position;
use crate::recovery::plan::{Aim, Place};

/// How often the journal is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// After something that did not work.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Takes part until `stop`, and comes to rest then.
pub async fn attend(common: Common, config: Config, stop: CancellationToken) {
    let who = by(Some("runner".to_owned()));
    let mut desk = loop {
        match Desk::of_drill(&common, config.clone(), who.clone(), Place::Runner).await {
            Ok(desk) => break desk,
            Err(error) => tracing::warn!(error = error.message(), "rehearsals cannot be looked at; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN_AFTER) => {}
        }
    };
    let mut left_at = None;
    let mut pause = LOOK_EVERY;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = LOOK_EVERY;
        let position = match desk.journal.read().await {
            Ok(position) => position,
            Err(error) => {
                tracing::warn!(%error, "the journal of rehearsals cannot be read; trying again");
                pause = AGAIN_AFTER;
                continue;
            }
        };
        if !has_work(&position) || left_at == Some(mark(&position)) {
            continue;
        }
        match take_part(&mut desk, &config, position, &stop).await {
            Ok(Some(position)) => left_at = Some(mark(&position)),
            Ok(None) => {}
            Err(why) => {
                tracing::error!(error = why, "the rehearsal cannot be gone on with here; trying again");
                pause = AGAIN_AFTER;
            }
        }
    }
}

/// Nothing is tried again before somebody else wrote something.
fn mark(position: &Position) -> (u64, u64) {
    (position.state.operations, position.state.entries)
}

fn has_work(position: &Position) -> bool {
    position.state.open().is_some_and(|operation| {
        operation.plan.steps.iter().any(|step| {
            step.at == Place::Runner
                && match operation.abandoning {
                    Some(_) => operation.is_to_take_back(&step.name),
                    None => !operation.is_done(&step.name),
                }
        })
    })
}

/// As far as it goes here. Where it came to rest, unless it is to be looked at again at once.
async fn take_part(
    desk: &mut Desk,
    config: &Config,
    position: Position,
    stop: &CancellationToken,
) -> Result<Option<Position>, String> {
    let (stage, is_taken_back) = match position.state.open() {
        Some(operation) => match operation.aim {
            Aim::Drill { stage } => (stage, operation.abandoning.is_some()),
            Aim::Failover { .. } | Aim::Failback | Aim::StandDown => return Ok(None),
        },
        None => return Ok(None),
    };
    let variant = of_begun(config, stage);
    let mut real = avoid(desk, config).await;
    real.addresses.extend(variant.avoid);
    desk.config = variant.config;
    desk.keep_away_from(real);
    // Each time another run: what an earlier one left at work is at work no more.
    desk.by = by(Some("runner".to_owned()));
    desk.take_lease(false)
        .await
        .map_err(|error| error.message().to_owned())?;
    let screen = Arc::new(Screen::logged());
    let until = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = taken_back(desk), if !is_taken_back => {}
        }
    };
    let done = desk.go_on_until(position, &screen, until).await;
    desk.give_lease_back().await;
    match done {
        Ok((Rest::Lost | Rest::Stopped, _)) => Ok(None),
        Ok((rest, position)) => {
            tracing::info!(?rest, "at rest");
            Ok(Some(position))
        }
        Err(error) => Err(error.message().to_owned()),
    }
}

/// Once whoever began it takes it back: what is at work here then is in vain.
async fn taken_back(desk: &Desk) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Ok(position) = desk.journal.read().await else {
            continue;
        };
        if position
            .state
            .open()
            .is_none_or(|operation| operation.abandoning.is_some())
        {
            return;
        }
    }
}
