//! What stands where a restore is to replace: everything that decides whether it may, and what it would keep.

use std::collections::BTreeSet;

use super::keep::{self, Kept};
use super::{back, names};
use crate::dump::literal::string;
use crate::mysql::{Address, DbError, Session};
use crate::restore::error::RestoreError;
use crate::restore::programs::Item;
use crate::restore::schema::Schema;
use crate::restore::target::Target;

/// Facts about what would be replaced. Names are as the target stores them.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Real names of the backup's schemas that are there already.
    pub schemas: Vec<String>,
    pub tables: usize,
    /// Of rows and keys, by the server's estimate.
    pub bytes: u64,
    /// Tables whose engine is not InnoDB.
    pub not_innodb: Vec<String>,
    /// Views, routines, triggers and events, as they would be made again.
    pub programs: Vec<Item>,
    /// Views that could not be made again, since they are unusable.
    pub unusable: Vec<String>,
    /// Foreign keys of tables elsewhere to tables of these.
    pub keys_from_outside: Vec<String>,
    /// Foreign keys of these to tables elsewhere.
    pub keys_to_outside: Vec<String>,
    /// Rights on single routines, which go when those are dropped.
    pub routine_rights: Vec<String>,
    /// Schemas with a name that this needs, `planb_new_…` or `planb_old_…`.
    pub in_the_way: BTreeSet<String>,
    /// What an earlier replace keeps.
    pub kept: Vec<Kept>,
    /// Where the server tells.
    pub free_bytes: Option<u64>,
    /// It was looked at before, and something of it may be gone by now: it is gone on with.
    pub is_begun: bool,
}

/// Looks at the target. `wanted` are the backup's schemas.
pub async fn survey(
    session: &mut Session,
    address: &Address,
    target: &Target,
    wanted: &Schema,
) -> Result<Standing, RestoreError> {
    let reals: Vec<String> = wanted
        .databases
        .iter()
        .map(|database| target.stored(&database.name))
        .collect();
    let there = keep::schemas(session).await?;
    let mut standing = Standing {
        schemas: reals.iter().filter(|real| there.contains(*real)).cloned().collect(),
        in_the_way: reals
            .iter()
            .flat_map(|real| [names::new(real), names::old(real)])
            .filter(|name| there.contains(name))
            .collect(),
        kept: keep::kept(session).await?,
        free_bytes: free_bytes(session).await,
        routine_rights: routine_rights(session, &reals).await,
        ..Standing::default()
    };
    let rows = session
        .text(
            "SELECT BINARY TABLE_SCHEMA, BINARY TABLE_NAME, COALESCE(ENGINE, ''), COALESCE(DATA_LENGTH, 0) + \
             COALESCE(INDEX_LENGTH, 0) FROM information_schema.TABLES WHERE TABLE_TYPE NOT LIKE '%VIEW'",
        )
        .await?;
    for row in rows {
        let [schema, table, engine, bytes] = row.as_slice() else {
            continue;
        };
        if !reals.contains(schema) {
            continue;
        }
        standing.tables += 1;
        standing.bytes += bytes.parse::<u64>().unwrap_or(0);
        if !engine.eq_ignore_ascii_case("innodb") {
            standing.not_innodb.push(format!("{schema}.{table}"));
        }
    }
    (standing.keys_from_outside, standing.keys_to_outside) = foreign_keys(session, &reals).await?;
    let (mut reader, dialect) = keep::reader(address).await?;
    for real in &standing.schemas {
        let found = crate::dump::catalog::schema(&mut reader, &dialect, real).await?;
        for definition in keep::programs(&found) {
            if definition.broken.is_some() {
                standing.unusable.push(format!("{real}.{}", definition.name));
            } else {
                standing.programs.extend(back::script(definition, &found.collation)?);
            }
        }
    }
    reader.close().await;
    Ok(standing)
}

/// Foreign keys across the border: from outside, and to outside.
pub async fn foreign_keys(session: &mut Session, reals: &[String]) -> Result<(Vec<String>, Vec<String>), DbError> {
    let rows = session
        .text(
            "SELECT DISTINCT BINARY TABLE_SCHEMA, BINARY TABLE_NAME, BINARY CONSTRAINT_NAME, BINARY REFERENCED_TABLE_SCHEMA, BINARY \
             REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA IS NOT NULL",
        )
        .await?;
    let (mut inwards, mut outwards) = (Vec::new(), Vec::new());
    for row in rows {
        let [schema, table, key, parent_schema, parent] = row.as_slice() else {
            continue;
        };
        let told = format!("{schema}.{table} ({key}, to {parent_schema}.{parent})");
        match (reals.contains(schema), reals.contains(parent_schema)) {
            (false, true) => inwards.push(told),
            (true, false) => outwards.push(told),
            (true, true) | (false, false) => {}
        }
    }
    Ok((inwards, outwards))
}

/// Rights on single routines; none where the account may not look.
async fn routine_rights(session: &mut Session, reals: &[String]) -> Vec<String> {
    let list: Vec<String> = reals.iter().map(|real| string(real)).collect();
    let sql = format!(
        "SELECT CONCAT(LOWER(Routine_type), ' ', Db, '.', Routine_name, ' for ', User, '@', Host) FROM mysql.procs_priv WHERE Db IN \
         ({}) ORDER BY 1",
        list.join(", ")
    );
    let rows = session.text(&sql).await.unwrap_or_default();
    rows.into_iter().flatten().collect()
}

/// Free space where the server's data is, which only MariaDB tells, with a plugin.
async fn free_bytes(session: &mut Session) -> Option<u64> {
    let there = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'information_schema' AND TABLE_NAME = 'DISKS'";
    if session.scalar(there).await.ok()? != "1" {
        return None;
    }
    // Longest mount point first. Its figures are KiB.
    let sql = "SELECT Available FROM information_schema.DISKS WHERE @@datadir LIKE CONCAT(Path, '%') ORDER BY LENGTH(Path) DESC";
    let kib: u64 = session.scalar(sql).await.ok()?.parse().ok()?;
    kib.checked_mul(1_024)
}
