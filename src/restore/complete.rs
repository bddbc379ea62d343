//! Whether everything that a restore made is still there: asked before it goes on, and before it is called done.

use std::collections::BTreeSet;

use super::error::RestoreError;
use super::plan::Plan;
use super::target::Target;
use crate::backup::archive::Archive;
use crate::dump::literal::qualified;
use crate::mysql::Session;

/// Every table of the plan exists.
pub async fn tables(session: &mut Session, plan: &Plan, target: &Target) -> Result<(), RestoreError> {
    let rows = session
        .text("SELECT BINARY TABLE_SCHEMA, BINARY TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE <> 'VIEW'")
        .await?;
    let there: BTreeSet<Vec<String>> = rows.into_iter().collect();
    let missing = plan
        .tables
        .iter()
        .find(|table| !there.contains(&vec![target.stored(&table.schema), target.stored(&table.name)]));
    match missing {
        Some(table) => Err(RestoreError::Replaced(format!("{}.{}", table.schema, table.name))),
        None => Ok(()),
    }
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
        let sql = format!("SELECT COUNT(*) FROM {}", qualified(&table.schema, &table.name));
        let found = session.number(&sql).await?;
        // Whether history counts is MariaDB's secret; there are no such tables without transactions.
        if found != wanted && !table.members.is_empty() {
            return Err(RestoreError::Rows {
                place: format!("table {}.{}", table.schema, table.name),
                detail: format!("{found} rows are there of {wanted}; begin anew with --start-over"),
            });
        }
    }
    Ok(())
}
