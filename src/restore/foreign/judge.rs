//! What becomes of each statement of a foreign dump on this target: run, changed on the way, passed over, or the reason
//! why it cannot be. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::head::{self, Program, Statement};
use crate::dump::catalog::is_system_schema;
use crate::dump::literal::identifier;
use crate::restore::plan::{self, Wish};
use crate::restore::programs::{self, Kind, Owner};
use crate::restore::repair::{self, Takes};
use crate::restore::schema::Table;
use crate::restore::target::Target;

/// What is to be done for a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// From here on this schema may be written; the name is as the target stores it.
    Enter(String),
    Run {
        sql: Vec<u8>,
        /// It changes rows, which are counted.
        rows: bool,
    },
    /// The schema is there by now, and is ours.
    Mark(String),
    /// An event that the source had enabled is to be remembered.
    Sleep { schema: String, event: String },
}

/// What a dump holds, as far as it was read.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// As the target stores their names.
    pub schemas: BTreeSet<String>,
    pub tables: u64,
    pub statements: u64,
    pub sleeping_events: usize,
    /// Tables and accounts that are changed, in words.
    changes: BTreeSet<String>,
    /// Objects whose definer cannot be kept.
    lost: BTreeMap<String, Vec<String>>,
    skipped: BTreeMap<String, u64>,
}

impl Found {
    /// What is changed on the way, in words.
    pub fn repairs(&self) -> Vec<String> {
        let lost = self.lost.iter().map(|(definer, objects)| {
            format!("definer {definer} cannot be kept on the target: {}", objects.join(", "))
        });
        self.changes.iter().cloned().chain(lost).collect()
    }

    /// Statements that are not run, in words.
    pub fn skipped(&self) -> Vec<String> {
        let told = |(what, count): (&String, &u64)| match count {
            1 => what.clone(),
            many => format!("{what} ({many} times)"),
        };
        self.skipped.iter().map(told).collect()
    }
}

/// Judges the statements of one dump, in order.
#[derive(Debug)]
pub struct Judge<'a> {
    target: &'a Target,
    wish: &'a Wish,
    /// Where a dump that names no schema goes.
    database: Option<&'a str>,
    takes: Takes,
    /// The current schema as the dump writes it.
    current: Option<String>,
    pub found: Found,
}

impl<'a> Judge<'a> {
    pub fn new(target: &'a Target, wish: &'a Wish, database: Option<&'a str>) -> Self {
        Self {
            target,
            wish,
            database,
            takes: Takes {
                engines: target.engines.clone(),
                collations: target.collations.clone(),
            },
            current: None,
            found: Found::default(),
        }
    }

    /// # Errors
    /// What stands against the statement, in words, with what to do.
    pub fn judge(&mut self, statement: Vec<u8>) -> Result<Vec<Step>, String> {
        self.found.statements += 1;
        let longest = self.target.max_allowed_packet_bytes;
        if statement.len() as u64 >= longest {
            return Err(format!(
                "statement {} of the dump has {} bytes and the target takes packets of {longest} only; set max_allowed_packet \
                 to {} there",
                self.found.statements,
                statement.len(),
                (statement.len() as u64 + 1).next_power_of_two()
            ));
        }
        let read = head::read(&statement);
        match &read {
            Statement::Global(name) => return Ok(self.skip(format!("SET GLOBAL {name}: the server's own setting"))),
            Statement::LogBin => {
                return Ok(self.skip("SET SQL_LOG_BIN: what is restored is logged as the target does it".to_owned()));
            }
            Statement::Server(words) => {
                return Ok(self.skip(format!(
                    "{words}: accounts, replication and plugins are the target's own"
                )));
            }
            // Nobody else is here, and MariaDB refuses a locked table that takes its defaults from a sequence.
            Statement::Lock => return Ok(Vec::new()),
            Statement::Session => return Ok(vec![run(statement)]),
            Statement::Use(name) => return self.enter(name, statement, true),
            Statement::CreateDatabase(name) => return self.enter(name, statement, false),
            Statement::DropDatabase(name) => {
                self.may_enter(name)?;
                return Ok(self.skip(format!("DROP DATABASE {name}: the target holds nothing of it")));
            }
            _ => {}
        }
        let mut steps = Vec::new();
        let schema = match (&self.current, self.database) {
            (Some(schema), _) if is_system_schema(schema) => {
                let schema = schema.clone();
                return Ok(self.skip(format!("what is in {schema}: the server's own schema")));
            }
            (Some(schema), _) => schema.clone(),
            (None, Some(name)) => {
                let name = name.to_owned();
                self.begin_in(&name, &mut steps)?;
                name
            }
            (None, None) => {
                return Err(
                    "the dump names no schema (it was made without --databases); say where it belongs with --database NAME"
                        .to_owned(),
                );
            }
        };
        steps.extend(self.within(&schema, statement, read)?);
        Ok(steps)
    }

    /// Of a statement in a schema.
    fn within(&mut self, schema: &str, statement: Vec<u8>, read: Statement) -> Result<Vec<Step>, String> {
        Ok(match read {
            Statement::CreateTable(name) => vec![run(self.table(schema, name, statement)?)],
            Statement::Program(program) => self.program(schema, &statement, &program)?,
            Statement::Rows => vec![Step::Run {
                sql: statement,
                rows: true,
            }],
            Statement::AlterDatabase { name } => {
                // Around a routine, so that it remembers its schema's collation. Nothing else may be altered by it.
                let mut sql = statement;
                sql.splice(name, identifier(schema).into_bytes());
                vec![run(sql)]
            }
            _ => vec![run(statement)],
        })
    }

    /// The statement is not run.
    fn skip(&mut self, what: String) -> Vec<Step> {
        *self.found.skipped.entry(what).or_default() += 1;
        Vec::new()
    }

    fn may_enter(&self, name: &str) -> Result<(), String> {
        let stored = self.target.stored(name);
        if self.database.is_some() {
            return Err(format!(
                "the dump names its schema itself ({name}); leave --database out"
            ));
        }
        self.is_free(&stored)
    }

    fn is_free(&self, stored: &str) -> Result<(), String> {
        if !is_system_schema(stored) && self.target.occupied.contains(stored) && !self.wish.own_schemas.contains(stored)
        {
            return Err(format!(
                "the target already holds {stored}; restore to an empty server, or drop what is there"
            ));
        }
        Ok(())
    }

    fn enter(&mut self, name: &str, statement: Vec<u8>, is_use: bool) -> Result<Vec<Step>, String> {
        self.may_enter(name)?;
        if is_use {
            self.current = Some(name.to_owned());
        }
        if is_system_schema(name) {
            return Ok(self.skip(format!("what is in {name}: the server's own schema")));
        }
        let stored = self.target.stored(name);
        if !self.found.schemas.insert(stored.clone()) {
            return Ok(vec![run(statement)]);
        }
        Ok(vec![Step::Enter(stored.clone()), run(statement), Step::Mark(stored)])
    }

    fn begin_in(&mut self, name: &str, steps: &mut Vec<Step>) -> Result<(), String> {
        let stored = self.target.stored(name);
        if is_system_schema(name) {
            return Err(format!(
                "--database {name}: that is the server's own; give another name"
            ));
        }
        self.is_free(&stored)?;
        self.found.schemas.insert(stored.clone());
        self.current = Some(name.to_owned());
        let quoted = identifier(name);
        steps.push(Step::Enter(stored.clone()));
        steps.push(run(format!("CREATE DATABASE IF NOT EXISTS {quoted}").into_bytes()));
        steps.push(run(format!("USE {quoted}").into_bytes()));
        steps.push(Step::Mark(stored));
        Ok(())
    }

    fn table(&mut self, schema: &str, name: String, create: Vec<u8>) -> Result<Vec<u8>, String> {
        self.found.tables += 1;
        let table = Table {
            schema: schema.to_owned(),
            name,
            create,
        };
        let mended = repair::mend(&table, &self.takes);
        if !mended.problems.is_empty() {
            return Err(mended.problems.join("; "));
        }
        self.found.changes.extend(mended.repairs);
        if !mended.has_primary_key && self.target.generates_keys && !self.target.may_set_guarded() {
            self.found.changes.insert(format!(
                "{schema}.{}: the target adds an invisible primary key (my_row_id), since the account may not switch that off",
                table.name
            ));
        }
        Ok(mended.create)
    }

    fn program(&mut self, schema: &str, statement: &[u8], program: &Program) -> Result<Vec<Step>, String> {
        let described = format!("{} {schema}.{}", program.kind.words().to_lowercase(), program.name);
        if matches!(program.kind, Kind::Function | Kind::Trigger) && self.target.refuses_code() {
            return Err(format!(
                "the dump holds triggers or functions ({described}), which the target refuses while its binary log is on; set \
                 the server parameter log_bin_trust_function_creators to ON there"
            ));
        }
        let owner = match &program.definer {
            Some((_, definer)) => self.owner(definer, program.kind, described)?,
            None => Owner::Kept,
        };
        let mut sql = rewritten(statement, program, &owner);
        let mut steps = Vec::new();
        if program.kind == Kind::Event
            && let Some(at) = enabled_at(&sql)
        {
            sql.splice(at..at + ENABLE.len(), DISABLE.iter().copied());
            self.found.sleeping_events += 1;
            steps.push(Step::Sleep {
                schema: self.target.stored(schema),
                event: program.name.clone(),
            });
        }
        steps.push(run(sql));
        Ok(steps)
    }

    fn owner(&mut self, definer: &str, kind: Kind, described: String) -> Result<Owner, String> {
        let owner = plan::owner(definer, self.target, self.wish);
        match &owner {
            Owner::Mapped(account) if *account != self.target.account && !self.target.may_set_definer() => {
                return Err(format!(
                    "definer {definer} is to become {account}, and account {0} may make objects of its own only; map it to {0} \
                     instead, or grant SET_ANY_DEFINER",
                    self.target.account
                ));
            }
            Owner::Mapped(account) => {
                self.found.changes.insert(format!("definer {definer} became {account}"));
            }
            Owner::Restorer => {
                let how = if kind.can_be_invoker() {
                    "runs with its caller's rights"
                } else {
                    "runs as the account that restores"
                };
                let objects = self.found.lost.entry(definer.to_owned()).or_default();
                objects.push(format!("{described} {how}"));
            }
            Owner::Kept => {}
        }
        Ok(owner)
    }
}

fn run(sql: Vec<u8>) -> Step {
    Step::Run { sql, rows: false }
}

/// The statement with its definer changed or cut out.
fn rewritten(statement: &[u8], program: &Program, owner: &Owner) -> Vec<u8> {
    let Some((definer, _)) = &program.definer else {
        return statement.to_vec();
    };
    let mut sql = statement.to_vec();
    // From the end to the beginning, so that places stay right.
    match owner {
        Owner::Kept => {}
        Owner::Mapped(account) => {
            let clause = programs::definer_clause(account);
            sql.splice(definer.clone(), clause.into_bytes());
        }
        Owner::Restorer => {
            match (&program.security, program.kind) {
                (Some(security), _) => {
                    sql.splice(security.clone(), b"INVOKER".iter().copied());
                }
                (None, kind) if kind.can_be_invoker() && kind != Kind::View => {
                    let tail = programs::as_invoker(kind, &sql[program.at..]);
                    sql.truncate(program.at);
                    sql.extend(tail);
                }
                // A plain `CREATE DEFINER=… VIEW`, or one that is its caller's already.
                (None, Kind::View) if repair::masked(&sql[definer.end..program.at]).trim_ascii().is_empty() => {
                    sql.splice(program.at..program.at, b"SQL SECURITY INVOKER ".iter().copied());
                }
                (None, _) => {}
            }
            sql.drain(definer.clone());
        }
    }
    sql
}

const ENABLE: &[u8] = b" PRESERVE ENABLE";
const DISABLE: &[u8] = b" PRESERVE DISABLE";

/// Where an event's head says that it is enabled; names, comment and body say nothing.
fn enabled_at(sql: &[u8]) -> Option<usize> {
    let masked = repair::masked(sql);
    let body = memchr::memmem::find(&masked, b" DO ").unwrap_or(masked.len());
    memchr::memmem::find(&masked[..body], ENABLE)
}
