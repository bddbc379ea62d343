//! Old and new change places: the old definitions are kept and dropped, then one `RENAME TABLE` moves every table. Each step
//! looks first at what is there, so that it can be killed anywhere and done again.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::keep::{self, Kept, Stands};
use super::locks::{self, Careful};
use super::sides::{self, Sides};
use super::{back, names, survey};
use crate::dump::literal::{identifier, qualified, string};
use crate::dump::{catalog, definition};
use crate::mysql::dialect::{Dialect, Family};
use crate::mysql::{Address, Session};
use crate::restore::error::RestoreError;
use crate::restore::ledger::{self, MARK};
use crate::restore::load;
use crate::restore::plan::Plan;
use crate::restore::target::Target;

/// A restore whose rows are in, and compared.
pub struct Swap<'a> {
    pub address: &'a Address,
    pub plan: &'a Plan,
    pub target: &'a Target,
    pub digest: &'a str,
    pub backup: &'a str,
    pub run: &'a str,
    pub cancel: &'a CancellationToken,
}

/// What a swap works with.
struct Hands<'a> {
    careful: Careful<'a>,
    reader: Session,
    dialect: Dialect,
    /// `CREATE DATABASE` of the backup, by real name.
    creates: BTreeMap<String, &'a [u8]>,
}

impl Swap<'_> {
    /// Does what is left of it.
    ///
    /// # Errors
    /// [`RestoreError::InUse`]: nothing has changed places, and the old definitions are there again. Any other: the same
    /// call goes on, and [`back::roll_back`] goes back.
    pub async fn run(&self) -> Result<(), RestoreError> {
        let mut session = load::connect(self.address, self.plan).await?;
        locks::bound(&mut session).await?;
        keep::prepare(&mut session).await?;
        let (reader, dialect) = keep::reader(self.address).await?;
        let creates = self.plan.databases.iter().filter_map(|database| {
            let stored = self.target.stored(&database.name);
            Some((names::real(&stored)?.to_owned(), database.create.as_slice()))
        });
        let mut hands = Hands {
            careful: Careful {
                session,
                digest: self.digest,
                run: self.run,
                cancel: self.cancel,
            },
            reader,
            dialect,
            creates: creates.collect(),
        };
        self.places(&mut hands).await?;
        self.settle(&mut hands).await?;
        hands.reader.close().await;
        hands.careful.session.close().await;
        Ok(())
    }

    /// Everything up to the renaming.
    async fn places(&self, hands: &mut Hands<'_>) -> Result<(), RestoreError> {
        let reals: Vec<String> = hands.creates.keys().cloned().collect();
        let all = keep::look(&mut hands.careful.session, &reals).await?;
        let left: BTreeMap<&String, &Sides> = all.iter().filter(|(_, sides)| !sides.is_swapped(MARK)).collect();
        if left.is_empty() {
            return Ok(());
        }
        for real in left.keys() {
            let new = names::new(real);
            if !ledger::has_mark(&mut hands.careful.session, &new, self.digest).await? {
                return Err(RestoreError::Replaced(new));
            }
        }
        if all.values().all(|sides| sides.old.is_empty()) {
            // Seen before, but there was time since.
            let (inwards, _) = survey::foreign_keys(&mut hands.careful.session, &reals).await?;
            if !inwards.is_empty() {
                return Err(RestoreError::Refused(vec![format!(
                    "foreign keys of tables elsewhere came since, and would go with the old tables: {}; drop them first",
                    inwards.join(", ")
                )]));
            }
        }
        let kept = self.keep(hands, &left).await?;
        let renamed = self.rename(hands, &reals, &kept).await;
        if let Err(RestoreError::InUse(_)) = &renamed {
            // Whoever writes goes on doing so: with the triggers that were there.
            let old = kept.iter().map(|(old, _)| old.clone()).collect::<Vec<_>>();
            let put = back::put_back(&mut hands.careful, &mut hands.reader, &hands.dialect, self.target, &old);
            if let Err(error) = put.await {
                tracing::warn!(%error, "not every trigger, view, routine and event could be put back; --roll-back tries again");
            }
        }
        renamed
    }

    /// Writes down what will be dropped, and makes the schemas that tables go to. Returns what was kept, with what was found.
    async fn keep(
        &self,
        hands: &mut Hands<'_>,
        left: &BTreeMap<&String, &Sides>,
    ) -> Result<Vec<(Kept, Option<catalog::Schema>)>, RestoreError> {
        let there = keep::schemas(&mut hands.careful.session).await?;
        let mut kept = Vec::new();
        for (&real, &sides) in left {
            let found = match there.contains(real) {
                true => Some(catalog::schema(&mut hands.reader, &hands.dialect, real).await?),
                false => None,
            };
            let old = Kept {
                schema: real.clone(),
                digest: self.digest.to_owned(),
                backup: self.backup.to_owned(),
                create: found.as_ref().map(|found| found.create.clone()).unwrap_or_default(),
                collation: found.as_ref().map(|found| found.collation.clone()).unwrap_or_default(),
                stands: Stands::Old,
            };
            keep::keep(&mut hands.careful.session, &old, found.as_ref(), &sides.loaded).await?;
            let create = hands.creates.get(real).copied().unwrap_or_default();
            match &found {
                None => {
                    if let Some(sql) = keep::create_database(create, real) {
                        hands.careful.run(sql).await?;
                    }
                }
                Some(found) if sides.outgoing().next().is_some() => {
                    if let Some(sql) = keep::create_database(&found.create, &names::old(real)) {
                        hands.careful.run(sql).await?;
                    }
                }
                Some(_) => {}
            }
            kept.push((old, found));
        }
        Ok(kept)
    }

    async fn rename(
        &self,
        hands: &mut Hands<'_>,
        reals: &[String],
        kept: &[(Kept, Option<catalog::Schema>)],
    ) -> Result<(), RestoreError> {
        let found: Vec<&catalog::Schema> = kept.iter().filter_map(|(_, found)| found.as_ref()).collect();
        // Triggers last: without one, a write goes through and misses what the trigger would have done.
        for schema in &found {
            drop_all(&mut hands.careful, &schema.name, &schema.events).await?;
            ledger::forget_events(&mut hands.careful.session, &schema.name).await?;
        }
        // Each before those it names, so that none stands there unusable.
        let views = found.iter().flat_map(|schema| schema.views.iter().cloned()).collect();
        for view in definition::order_views(views).iter().rev() {
            drop_all(&mut hands.careful, &view.schema, std::slice::from_ref(view)).await?;
        }
        for schema in &found {
            drop_all(&mut hands.careful, &schema.name, &schema.routines).await?;
        }
        for schema in &found {
            drop_all(&mut hands.careful, &schema.name, &schema.triggers).await?;
        }
        let renames = sides::forward(&keep::look(&mut hands.careful.session, reals).await?, MARK);
        if !renames.is_empty() {
            hands.careful.run(sides::statement(&renames)).await?;
        }
        Ok(())
    }

    /// What is left once everything has its place.
    async fn settle(&self, hands: &mut Hands<'_>) -> Result<(), RestoreError> {
        let there = keep::schemas(&mut hands.careful.session).await?;
        if self.target.version.family == Family::MariaDb {
            self.settle_defaults(hands).await?;
        }
        let creates: Vec<(String, &[u8])> = hands
            .creates
            .iter()
            .map(|(real, create)| (real.clone(), *create))
            .collect();
        for (real, create) in creates {
            if let Some(sql) = keep::alter_database(create, &real) {
                hands.careful.run(sql).await?;
            }
            let new = names::new(&real);
            if there.contains(&new) && ledger::is_empty(&mut hands.careful.session, &new).await? {
                hands.careful.run(format!("DROP DATABASE {}", identifier(&new))).await?;
            }
        }
        Ok(())
    }

    /// MariaDB writes a default's sequence down with its schema, which must be there: so it is changed afterwards. In
    /// between, a row that needs the default is refused.
    async fn settle_defaults(&self, hands: &mut Hands<'_>) -> Result<(), RestoreError> {
        let careful = &mut hands.careful;
        // It does not change a row.
        careful
            .session
            .execute("SET SESSION system_versioning_alter_history = KEEP")
            .await?;
        for real in hands.creates.keys() {
            let sql = format!(
                "SELECT BINARY TABLE_NAME, BINARY COLUMN_NAME, BINARY COLUMN_DEFAULT FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = \
                 {} AND COLUMN_DEFAULT LIKE '%planb\\_new\\_%'",
                string(real)
            );
            for row in careful.session.table(&sql).await? {
                let [Some(table), Some(column), Some(default)] = row.as_slice() else {
                    continue;
                };
                let Some(settled) = names::settled_default(default) else {
                    continue;
                };
                let (table, column) = (String::from_utf8_lossy(table), String::from_utf8_lossy(column));
                let mut sql = format!(
                    "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT (",
                    qualified(real, &table),
                    identifier(&column)
                )
                .into_bytes();
                sql.extend_from_slice(&settled);
                sql.push(b')');
                careful.run(sql).await?;
            }
        }
        Ok(())
    }
}

/// Drops stored objects of a schema.
pub async fn drop_all(
    careful: &mut Careful<'_>,
    schema: &str,
    definitions: &[catalog::Definition],
) -> Result<(), RestoreError> {
    for definition in definitions {
        // MariaDB knows packages in this mode only.
        let is_package = definition.kind.starts_with("PACKAGE");
        if is_package {
            careful.session.execute("SET SESSION sql_mode = 'ORACLE'").await?;
        }
        careful
            .run(format!(
                "DROP {} IF EXISTS {}",
                definition.kind,
                qualified(schema, &definition.name)
            ))
            .await?;
        if is_package {
            careful.session.execute(PLAIN_MODE).await?;
        }
    }
    Ok(())
}

/// As the members of a backup leave it.
pub const PLAIN_MODE: &str = "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'";
