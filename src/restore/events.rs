//! Events that a restore left disabled, enabled when the server takes over.

use tokio_util::sync::CancellationToken;

use super::error::RestoreError;
use super::hold::take_hold;
use super::ledger;
use crate::dump::literal::{identifier, string};
use crate::mysql::{Address, DbError, Session};

/// What became of sleeping events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Woken {
    pub enabled: usize,
    /// Not there any more: their time passed while they slept, or somebody dropped them.
    pub gone: Vec<String>,
}

/// Whether there is such an event.
pub async fn is_there(session: &mut Session, schema: &str, event: &str) -> Result<bool, DbError> {
    let sql = format!(
        "SELECT COUNT(*) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} AND EVENT_NAME = {}",
        string(schema),
        string(event)
    );
    Ok(session.scalar(&sql).await? == "1")
}

/// Enables the events that a finished restore put to sleep.
///
/// # Errors
/// The database's, and that a restore is at work; those enabled so far stay so, and the call can be repeated.
pub async fn wake(address: &Address) -> Result<Woken, RestoreError> {
    let mut session = address.connect().await?;
    let mut bookkeeping = address.connect().await?;
    // A restore that is at work makes and forgets these events.
    take_hold(&mut bookkeeping, &CancellationToken::new()).await?;
    let mut woken = Woken::default();
    for (schema, event) in ledger::sleeping(&mut bookkeeping).await? {
        // One whose time has passed goes with being enabled.
        if enable(&mut session, &schema, &event).await? && is_there(&mut bookkeeping, &schema, &event).await? {
            woken.enabled += 1;
        } else {
            woken.gone.push(format!("{schema}.{event}"));
        }
        ledger::awake(&mut bookkeeping, &schema, &event).await?;
    }
    session.close().await;
    bookkeeping.close().await;
    Ok(woken)
}

/// `ALTER EVENT` takes definer, sql_mode, time zone and character sets from whoever says it: so it is said in the
/// event's own.
async fn enable(session: &mut Session, schema: &str, event: &str) -> Result<bool, RestoreError> {
    let sql = format!(
        "SELECT DEFINER, SQL_MODE, TIME_ZONE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.EVENTS WHERE \
         EVENT_SCHEMA = {} AND EVENT_NAME = {}",
        string(schema),
        string(event)
    );
    let Some(row) = session.text(&sql).await?.into_iter().next() else {
        return Ok(false);
    };
    let Ok([definer, sql_mode, time_zone, client, collation]) = <[String; 5]>::try_from(row) else {
        return Ok(false);
    };
    let (user, host) = definer.rsplit_once('@').unwrap_or((definer.as_str(), "%"));
    session
        .execute(format!(
            "SET time_zone = {}, character_set_client = {client}, collation_connection = {collation}",
            string(&time_zone)
        ))
        .await?;
    // In backticks, which mean the same in every sql_mode.
    let alter = format!(
        "ALTER DEFINER = {}@{} EVENT {}.{} ENABLE",
        identifier(user),
        identifier(host),
        identifier(schema),
        identifier(event)
    );
    session.execute(format!("SET sql_mode = {}", string(&sql_mode))).await?;
    let altered = session.execute(alter).await;
    session.execute("SET sql_mode = DEFAULT, time_zone = '+00:00'").await?;
    session.execute("SET NAMES utf8mb4").await?;
    altered?;
    Ok(true)
}
