//! Events that a restore left disabled, enabled when the server takes over.

use super::error::RestoreError;
use super::ledger;
use crate::dump::literal::{identifier, string};
use crate::mysql::{Address, Session};

/// Enables the events that a finished restore put to sleep; how many.
///
/// # Errors
/// The database's; those enabled so far stay so, and the call can be repeated.
pub async fn wake(address: &Address) -> Result<usize, RestoreError> {
    let mut session = address.connect().await?;
    let mut bookkeeping = address.connect().await?;
    let mut woken = 0;
    for (schema, event) in ledger::sleeping(&mut bookkeeping).await? {
        enable(&mut session, &schema, &event).await?;
        ledger::awake(&mut bookkeeping, &schema, &event).await?;
        woken += 1;
    }
    session.close().await;
    bookkeeping.close().await;
    Ok(woken)
}

/// `ALTER EVENT` takes definer, sql_mode, time zone and character sets from whoever says it: so it is said in the
/// event's own.
async fn enable(session: &mut Session, schema: &str, event: &str) -> Result<(), RestoreError> {
    let sql = format!(
        "SELECT DEFINER, SQL_MODE, TIME_ZONE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.EVENTS WHERE \
         EVENT_SCHEMA = {} AND EVENT_NAME = {}",
        string(schema),
        string(event)
    );
    let Some(row) = session.text(&sql).await?.into_iter().next() else {
        // Somebody dropped it meanwhile.
        return Ok(());
    };
    let Ok([definer, sql_mode, time_zone, client, collation]) = <[String; 5]>::try_from(row) else {
        return Ok(());
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
    Ok(altered?)
}
