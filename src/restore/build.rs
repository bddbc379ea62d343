//! What a restore makes, phase by phase: schemas and empty tables, rows, keys.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::error::RestoreError;
use super::ledger::{self, Phase, Record};
use super::load::{self, Job, Loading};
use super::plan;
use super::run::{Prepared, Restore};
use crate::dump::literal::{identifier, qualified};
use crate::mysql::Session;

impl Restore {
    pub(super) async fn schema(
        &self,
        control: &mut Session,
        prepared: &Prepared,
        run: &str,
    ) -> Result<(), RestoreError> {
        let plan = &prepared.plan;
        let target = &prepared.target;
        let schemas: BTreeSet<String> = plan
            .databases
            .iter()
            .map(|database| target.stored(&database.name))
            .collect();
        let record = Record {
            digest: self.archive.digest.clone(),
            backup: self.backup.clone(),
            phase: Phase::Schema,
            schemas,
            trial: self.trial,
        };
        ledger::begin(control, &record, run).await?;
        let mut session = load::connect(&self.address, plan).await?;
        for database in &plan.databases {
            // Seen empty before, but others may have written since.
            let stored = target.stored(&database.name);
            if !ledger::is_empty(control, &stored).await? {
                return Err(RestoreError::Replaced(stored));
            }
            session.execute(&database.create).await?;
            // One that a platform made beforehand, empty, has a default of its own.
            if target.schemas.contains(&target.stored(&database.name))
                && let Some(at) = memchr::memmem::find(&database.create, b" /*!40100 ")
            {
                let mut alter = format!("ALTER DATABASE {}", identifier(&database.name)).into_bytes();
                alter.extend_from_slice(&database.create[at..]);
                session.execute(alter).await?;
            }
            ledger::mark(control, &target.stored(&database.name), &self.archive.digest).await?;
        }
        for (schema, statement) in &plan.sequences {
            session.execute(format!("USE {}", identifier(schema))).await?;
            session.execute(statement).await?;
        }
        for table in &plan.tables {
            session.execute(format!("USE {}", identifier(&table.schema))).await?;
            session.execute(&table.deferred.create).await?;
        }
        session.close().await;
        Ok(())
    }

    pub(super) async fn data(
        &self,
        control: &mut Session,
        loading: &Arc<Loading>,
        resumed: bool,
    ) -> Result<(), RestoreError> {
        let loaded = ledger::loaded(control, &self.archive.digest).await?;
        loading.progress.stored_bytes.store(0, Relaxed);
        loading.progress.rows.store(0, Relaxed);
        for &number in &loaded {
            let Some(record) = self.archive.index.members.get(number) else {
                continue;
            };
            let (stored, rows) = (&loading.progress.stored_bytes, &loading.progress.rows);
            stored.fetch_add(record.stored_bytes, Relaxed);
            rows.fetch_add(record.rows, Relaxed);
        }
        let mut jobs = Vec::new();
        for table in &loading.plan.tables {
            if table.transactional {
                let missing = table.members.iter().filter(|number| !loaded.contains(number));
                jobs.extend(missing.map(|&number| Job::Member(number)));
            } else if (resumed && !table.members.is_empty())
                || !table.members.iter().all(|number| loaded.contains(number))
            {
                // What knows no transactions is not trusted after an interruption.
                jobs.push(Job::WholeTable(Box::new(table.clone())));
            }
        }
        // As the file has them: large tables first, and reading goes forward.
        jobs.sort_by_key(|job| match job {
            Job::Member(number) => *number,
            Job::WholeTable(table) | Job::Keys(table) => table.members.first().copied().unwrap_or(usize::MAX),
        });
        loading.run(jobs, self.sessions).await
    }

    pub(super) async fn keys(&self, control: &mut Session, loading: &Arc<Loading>) -> Result<(), RestoreError> {
        let mut tables: Vec<_> = loading.plan.tables.iter().collect();
        tables.sort_by_key(|table| std::cmp::Reverse(table.raw_bytes));
        let waiting =
            |table: &&&plan::PlannedTable| !table.deferred.keys.is_empty() || !table.deferred.fulltext_keys.is_empty();
        let jobs = tables
            .iter()
            .filter(waiting)
            .map(|table| Job::Keys(Box::new((**table).clone())))
            .collect();
        loading.run(jobs, self.sessions).await?;
        // After the keys of all tables, since they need those of others; they only note a rule, and check nothing.
        let there = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME FROM information_schema.TABLE_CONSTRAINTS WHERE \
                     CONSTRAINT_TYPE = 'FOREIGN KEY'";
        let there: BTreeSet<Vec<String>> = control
            .text(there)
            .await?
            .into_iter()
            .map(|row| row.into_iter().map(|name| name.to_lowercase()).collect())
            .collect();
        let mut session = load::connect(&self.address, &loading.plan).await?;
        for table in loading
            .plan
            .tables
            .iter()
            .filter(|t| !t.deferred.foreign_keys.is_empty())
        {
            let is_missing = |key: &&Vec<u8>| {
                let name = key.strip_prefix(b"CONSTRAINT ").and_then(super::schema::identifier);
                name.is_none_or(|(name, _)| {
                    let known = [&table.schema, &table.name, &name].map(|name| name.to_lowercase());
                    !there.contains(known.as_slice())
                })
            };
            let missing: Vec<&Vec<u8>> = table.deferred.foreign_keys.iter().filter(is_missing).collect();
            if !missing.is_empty() {
                session.execute(format!("USE {}", identifier(&table.schema))).await?;
                let name = qualified(&table.schema, &table.name);
                session.execute(load::alter(&name, &missing)).await?;
            }
        }
        session.close().await;
        Ok(())
    }
}
