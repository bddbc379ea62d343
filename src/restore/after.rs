//! What follows the rows: routines, views, triggers and events, made one by one.

use std::collections::BTreeSet;

use super::error::RestoreError;
use super::plan::Plan;
use super::programs::{Item, Kind};
use super::{events, ledger, load};
use crate::mysql::{Address, DbError, Session};

/// What came of the routines, views, triggers and events.
#[derive(Debug, Default)]
pub struct Made {
    pub sleeping_events: usize,
    pub notes: Vec<String>,
}

/// Routines, views, triggers, events: each dropped first if an interrupted run made it.
pub async fn make(address: &Address, plan: &Plan, members: &[Vec<Item>]) -> Result<Made, RestoreError> {
    let mut session = load::connect(address, plan).await?;
    let mut bookkeeping = address.connect().await?;
    let mut made = Made::default();
    for items in members {
        let mut schema = String::new();
        for item in items {
            match item {
                Item::Setting(statement) => {
                    if let Some((name, _)) = statement.strip_prefix(b"USE ").and_then(super::schema::identifier) {
                        schema = name;
                    }
                    session.execute(statement).await?;
                }
                Item::Create(program) => {
                    session.execute(program.drop_statement()).await?;
                    let owner = plan.owner(program.definer.as_deref());
                    session.execute(program.create_statement(owner)).await?;
                    if program.kind != Kind::Event {
                        continue;
                    }
                    let (schema, event) = program.place(&schema);
                    if !events::is_there(&mut bookkeeping, &schema, &event).await? {
                        made.notes.push(format!(
                            "event {schema}.{event}: its time has passed, and the server does not keep it"
                        ));
                    } else if program.is_enabled_event() {
                        made.sleeping_events += 1;
                        ledger::put_to_sleep(&mut bookkeeping, &schema, &event).await?;
                    }
                }
            }
        }
    }
    bookkeeping.close().await;
    session.close().await;
    Ok(made)
}

/// Time zones that events were made in and the target does not know.
pub async fn unknown_time_zones(session: &mut Session, programs: &[Item]) -> Result<Vec<String>, RestoreError> {
    let settings: BTreeSet<&Vec<u8>> = programs
        .iter()
        .filter_map(|item| match item {
            Item::Setting(statement) if statement.starts_with(b"SET time_zone = ") => Some(statement),
            Item::Setting(_) | Item::Create(_) => None,
        })
        .collect();
    let mut problems = Vec::new();
    for setting in settings {
        match session.execute(setting).await {
            Err(DbError::Refused { .. }) => problems.push(format!(
                "an event was made in a time zone that the target does not know ({}); load the time zone tables there \
                 (mysql_tzinfo_to_sql; on Azure: CALL mysql.az_load_timezone())",
                String::from_utf8_lossy(setting)
            )),
            done => done?,
        }
    }
    session.execute("SET time_zone = '+00:00'").await?;
    Ok(problems)
}
