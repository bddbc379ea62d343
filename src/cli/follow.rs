//! `planb status --follow`: an operation as it goes on, from any machine; and what the journal says at the moment.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::Failure;
use super::operation::{standing_json, standing_line};
use super::screen::{Screen, steps_json, told, word};
use super::{Common, open, present};
use crate::backup::claim;
use crate::recovery::engine::Watch;
use crate::recovery::journal::{JournalError, Position};
use crate::recovery::plan::Place;

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let journal = open::journal(&config, &stores);
    let key = claim::key(&config.store.prefix);
    let screen = Arc::new(Screen::new(common.json));
    let mut position = journal.read().await?;
    if position.state.open().is_none() {
        println!("no operation is open; {}", standing_line(&position));
        return Ok(());
    }
    let mut interrupted = std::pin::pin!(super::backup::interrupted());
    loop {
        screen.moved(&position);
        if position.state.open().is_none() {
            screen.finish();
            println!("ended; {}", standing_line(&position));
            return Ok(());
        }
        screen.watch(&stores, &key, &[Place::Operator, Place::Runner]).await;
        tokio::select! {
            () = &mut interrupted => {
                screen.finish();
                return Ok(());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        position = match journal.refresh(position.clone()).await {
            Ok(position) => position,
            Err(JournalError::Store(error)) if !error.is_permanent() => {
                tracing::warn!(%error, "the journal cannot be reached; trying again");
                position
            }
            Err(error) => return Err(error.into()),
        };
    }
}

/// The lines of `planb status` about failovers.
pub fn lines(position: &Result<Position, JournalError>) -> Vec<String> {
    let position = match position {
        Ok(position) => position,
        Err(error) => return vec![format!("JOURNAL   {error}")],
    };
    let mut lines = vec![format!("serving   {}", standing_line(position))];
    if let Some(operation) = position.state.open() {
        let how = if operation.abandoning.is_some() {
            "being taken back"
        } else {
            "open"
        };
        lines.push(format!(
            "operation {} ({how}), begun {} by {}; {} --resume goes on with it",
            operation.aim.command(),
            present::time(operation.opened_at),
            operation.opened_by.who,
            operation.aim.command()
        ));
        for step in &operation.plan.steps {
            let progress = operation.progress(&step.name);
            let text = told(progress);
            let text = if text.is_empty() { text } else { format!(": {text}") };
            lines.push(format!("          {} {}{text}", step.name, word(progress)));
        }
    }
    lines
}

/// The same for `--json`.
pub fn json(position: &Result<Position, JournalError>) -> (Value, Value) {
    match position {
        Ok(position) => {
            let operation = position.state.operation.as_ref().map(|operation| {
                json!({
                    "number": operation.number, "command": operation.aim.command(), "open": operation.ended.is_none(),
                    "begun_at": present::rfc3339(operation.opened_at), "by": operation.opened_by.who,
                    "committed_at": operation.committed_at.map(present::rfc3339), "steps": steps_json(operation),
                })
            });
            (standing_json(position), operation.unwrap_or(Value::Null))
        }
        Err(error) => (json!({"damaged": error.to_string()}), Value::Null),
    }
}
