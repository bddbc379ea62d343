//! Partitions by name: a reader that names those of its snapshot is not refused (error 1412) for one made since.

use std::collections::HashMap;

use crate::dump::literal::string;
use crate::mysql::{DbError, Session};

/// The partitions of each table of `schema` that is cut by ranges or lists. Others (by hash, or cut twice) cannot get a
/// new one without being rebuilt.
pub async fn partitions(session: &mut Session, schema: &str) -> Result<HashMap<String, Vec<String>>, DbError> {
    let rows = session
        .text(&format!(
            "SELECT TABLE_NAME, PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = {} \
             AND (PARTITION_METHOD LIKE 'RANGE%' OR PARTITION_METHOD LIKE 'LIST%') AND SUBPARTITION_NAME IS NULL \
             ORDER BY TABLE_NAME, PARTITION_ORDINAL_POSITION",
            string(schema)
        ))
        .await?;
    let mut tables: HashMap<String, Vec<String>> = HashMap::new();
    for row in rows {
        if let [table, partition] = row.as_slice() {
            tables.entry(table.clone()).or_default().push(partition.clone());
        }
    }
    Ok(tables)
}
