//! Whether everything that a restore made is still there: asked before it goes on, and before it is called done.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::error::RestoreError;
use super::plan::{Plan, PlannedTable};
use super::replace::names;
use super::target::Target;
use crate::backup::archive::Archive;
use crate::dump::literal::qualified;
use crate::mysql::Session;

/// A statement that a killed restore left to the server may hide a table for so long: one of MyISAM is altered by copy, and has no name
/// for a moment.
const HIDDEN_FOR: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Every table of the plan exists. `is_settled`: under its real name.
pub async fn tables(session: &mut Session, plan: &Plan, target: &Target, is_settled: bool) -> Result<(), RestoreError> {
    let schema = |table: &PlannedTable| target.stored(if is_settled { settled(table) } else { &table.schema });
    let until = Instant::now() + HIDDEN_FOR;
    loop {
        let rows = session
            .text("SELECT BINARY TABLE_SCHEMA, BINARY TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE <> 'VIEW'")
            .await?;
        let there: BTreeSet<Vec<String>> = rows.into_iter().collect();
        let missing = plan
            .tables
            .iter()
            .find(|table| !there.contains(&vec![schema(table), target.stored(&table.name)]));
        match missing {
            None => return Ok(()),
            Some(table) if Instant::now() >= until => {
                return Err(RestoreError::Replaced(format!("{}.{}", schema(table), table.name)));
            }
            Some(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// The schema that a table is in once everything has its place.
fn settled(table: &PlannedTable) -> &str {
    names::real(&table.schema).unwrap_or(&table.schema)
}

/// Tables without transactions hold as many rows as they were given: nothing else vouches for those.
pub async fn rows(session: &mut Session, plan: &Plan, archive: &Archive) -> Result<(), RestoreError> {
    for table in plan.tables.iter().filter(|table| !table.transactional) {
        let wanted: u64 = table
            .members
            .iter()
            .filter_map(|&number| archive.index.members.get(number))
            .map(|member| member.rows)
            .sum();
        let sql = format!("SELECT COUNT(*) FROM {}", qualified(settled(table), &table.name));
        let found = session.number(&sql).await?;
        // Whether history counts is MariaDB's secret; there are no such tables without transactions.
        if found != wanted && !table.members.is_empty() {
            return Err(RestoreError::Rows {
                place: format!("table {}.{}", settled(table), table.name),
                detail: format!("{found} rows are there of {wanted}; begin anew with --start-over"),
            });
        }
    }
    Ok(())
}
