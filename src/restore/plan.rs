//! What a restore will do, decided before the first row: what is mended on the way, what waits, and everything that
//! cannot be, all together. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::accounts::{self, Account};
use super::parameters::{self, Change};
use super::programs::Item;
pub use super::programs::Owner;
use super::repair::{self, Mended, Takes};
use super::replace::judge::{self, Replacing};
use super::replace::names::Naming;
use super::replace::survey::Standing;
use super::schema::{self, Deferred, Schema};
use super::target::Target;
use crate::format::index::{MemberKind, MemberRecord, Summary};
use crate::mysql::dialect::{Family, Version};

/// Tables with fewer bytes of SQL keep their keys from the start: an ALTER of its own costs more than it saves.
const WORTH_DEFERRING_BYTES: u64 = 4 << 20;
/// What a statement may be longer than its largest row: see `dump/writer.rs`.
const STATEMENT_SLACK_BYTES: u64 = 4 << 10;

/// A statement's parse tree should stay in the processor's cache: 6.1 million rows cost MySQL 9.7 70 s of CPU in statements of
/// 1 MiB, 59 s in 256 KiB, 56 s in 64 KiB and 52 s in 32 KiB, where each waits for an answer half as often again.
const BEST_STATEMENT_BYTES: usize = 64 << 10;

/// Session settings for the building of keys; any account may make them, since 8.0.27. Memory is the target's.
/// <https://dev.mysql.com/doc/relnotes/mysql/8.0/en/news-8-0-27.html>
const MYSQL_BUILDING: &str =
    "SET SESSION innodb_ddl_buffer_size = 67108864, innodb_ddl_threads = 4, innodb_parallel_read_threads = 4";

/// What the person who restores wants.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Definers to replace: `app@%` by another account.
    pub definers: BTreeMap<String, String>,
    /// Identity of the server that is protected, where it is known apart from the backup's.
    pub source_identity: Option<String>,
    /// Schemas that this restore may find, since an interrupted run of it made them.
    pub own_schemas: BTreeSet<String>,
    /// The application's accounts, to be made.
    pub accounts: Vec<Account>,
    /// What is there is to be replaced, and kept; none: there must be nothing.
    pub replaces: Option<Standing>,
}

/// What will be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub settings: Vec<Vec<u8>>,
    pub databases: Vec<schema::Database>,
    pub sequences: Vec<(String, Vec<u8>)>,
    pub tables: Vec<PlannedTable>,
    /// For each definer in the backup.
    pub owners: BTreeMap<String, Owner>,
    /// What will be changed on the way, in words.
    pub repairs: Vec<String>,
    /// What becomes of the application's accounts, in words.
    pub accounts: Vec<String>,
    /// Server parameters that are worth changing for the load.
    pub parameters: Vec<Change>,
    /// Statements longer than this are sent in parts.
    pub longest_statement_bytes: usize,
    /// Names of schemas until their rows are in; those of `databases`, `sequences` and `tables` are these.
    pub naming: Naming,
    pub replacing: Option<Replacing>,
}

#[derive(Debug, Clone)]
pub struct PlannedTable {
    /// As it is called while it is loaded.
    pub schema: String,
    pub name: String,
    pub deferred: Deferred,
    /// Rows that a broken-off transaction leaves nothing of.
    pub transactional: bool,
    /// Its members' places in the index.
    pub members: Vec<usize>,
    pub raw_bytes: u64,
}

impl Plan {
    pub fn owner(&self, definer: Option<&str>) -> &Owner {
        definer
            .and_then(|definer| self.owners.get(definer))
            .unwrap_or(&Owner::Kept)
    }
}

/// What a backup holds, as far as planning needs it.
#[derive(Debug, Clone, Copy)]
pub struct Backup<'a> {
    pub summary: &'a Summary,
    pub members: &'a [MemberRecord],
    pub schema: &'a Schema,
    pub programs: &'a [Item],
}

/// Plans a restore, or says everything that stands against it.
///
/// # Errors
/// Every problem in words, each with what to do.
pub fn plan(backup: Backup<'_>, target: &Target, wish: &Wish) -> Result<Plan, Vec<String>> {
    let (plan, problems) = judge(backup, target, wish);
    if problems.is_empty() { Ok(plan) } else { Err(problems) }
}

/// The plan as far as it goes, and everything that stands against it: for whoever only wants to know (`planb doctor`).
pub fn judge(backup: Backup<'_>, target: &Target, wish: &Wish) -> (Plan, Vec<String>) {
    let mut problems = against(backup, target, wish);
    problems.extend(accounts::against(&wish.accounts, backup, target));
    let mut plan = Plan {
        settings: backup.schema.settings.clone(),
        databases: backup.schema.databases.clone(),
        sequences: backup.schema.sequences.clone(),
        accounts: accounts::told(&wish.accounts, target),
        parameters: parameters::worth_changing(target, backup.summary.raw_bytes),
        longest_statement_bytes: usize::try_from(target.max_allowed_packet_bytes.saturating_sub(STATEMENT_SLACK_BYTES))
            .unwrap_or(usize::MAX)
            .min(BEST_STATEMENT_BYTES),
        ..Plan::default()
    };
    tables(backup, target, &mut plan, &mut problems);
    plan.repairs.extend(schema::orphaned(backup.schema));
    owners(backup, target, wish, &mut plan, &mut problems);
    if target.version.family == Family::MySql && target.version.at_least(8, 0, 27) {
        plan.settings.push(MYSQL_BUILDING.as_bytes().to_vec());
    }
    if target.version.family == Family::MySql && target.version.at_least(8, 4, 0) && target.may_set_guarded() {
        // A foreign key to a key that is not unique was good enough for the source.
        plan.settings
            .push(b"SET SESSION restrict_fk_on_non_standard_key = OFF".to_vec());
    }
    // Rows of MEMORY tables fitted at the source; what is not used costs nothing.
    plan.settings
        .push(b"SET SESSION max_heap_table_size = 17179869184".to_vec());
    if target.lower_case_names {
        lower_case(backup, &mut plan, &mut problems);
    }
    problems.extend(judge::replacing(backup, target, wish, &mut plan));
    (plan, problems)
}

/// What stands against this target whatever is in the tables.
fn against(backup: Backup<'_>, target: &Target, wish: &Wish) -> Vec<String> {
    let mut problems = Vec::new();
    let summary = backup.summary;
    if target.identity == summary.server_identity || wish.source_identity.as_ref() == Some(&target.identity) {
        problems.push(
            "the target is the very server that the backup comes from (same identity, whatever its address); give another \
             one with --to"
                .to_owned(),
        );
    }
    let source = Version::of_text(&summary.server);
    match source {
        Some(source) if source.family != target.version.family => problems.push(format!(
            "the backup is of {source} and the target is {}; restore to {}",
            target.version,
            family_name(source.family)
        )),
        Some(source) if (target.version.major, target.version.minor) < (source.major, source.minor) => {
            problems.push(format!(
                "the target ({}) is older than the source was ({source}), whose definitions it may not understand; \
                 restore to {source} or newer",
                target.version
            ));
        }
        Some(_) => {}
        None => problems.push(format!(
            "nobody knows the backup's server version, {:?}",
            summary.server
        )),
    }
    let held: Vec<&str> = backup
        .schema
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .filter(|name| {
            let stored = target.stored(name);
            target.occupied.contains(&stored) && !wish.own_schemas.contains(&stored)
        })
        .collect();
    if !held.is_empty() && wish.replaces.is_none() {
        problems.push(format!(
            "the target already holds {}; restore to an empty server, or replace it, keeping what is there under planb_old_…: \
             --replace",
            held.join(", ")
        ));
    }
    if summary.largest_row_bytes + STATEMENT_SLACK_BYTES > target.max_allowed_packet_bytes {
        problems.push(format!(
            "the largest row has {} bytes as SQL and the target takes packets of {} only; set max_allowed_packet to {} there",
            summary.largest_row_bytes,
            target.max_allowed_packet_bytes,
            (summary.largest_row_bytes + STATEMENT_SLACK_BYTES).next_power_of_two()
        ));
    }
    if target.read_only {
        problems.push(
            "the target is read-only; make it writable (read_only, super_read_only), or give another one".to_owned(),
        );
    }
    problems.extend(missing_privileges(target));
    problems
}

/// The privileges that the account lacks, as a problem in words.
pub fn missing_privileges(target: &Target) -> Option<String> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .copied()
        .filter(|privilege| !target.grants.global(privilege))
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "account {} lacks {} on *.*; grant it, see config/grants-standby.sql",
            target.account,
            missing.join(", ")
        )
    })
}

/// What any restore does. Azure Database for MySQL gives its administrator all of these.
const NEEDED: [&str; 16] = [
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "ALTER",
    "INDEX",
    "REFERENCES",
    "CREATE VIEW",
    "SHOW VIEW",
    "EXECUTE",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "TRIGGER",
    "EVENT",
];

fn tables(backup: Backup<'_>, target: &Target, plan: &mut Plan, problems: &mut Vec<String>) {
    let takes = Takes {
        engines: target.engines.clone(),
        collations: target.collations.clone(),
    };
    let mut members: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (number, member) in backup.members.iter().enumerate() {
        if member.kind == MemberKind::Data {
            members.entry((&member.schema, &member.table)).or_default().push(number);
        }
    }
    let mut keyless = Vec::new();
    let mut keyless_partitioned = Vec::new();
    for table in &backup.schema.tables {
        let Mended {
            create,
            repairs,
            problems: wrong,
            transactional,
            has_primary_key,
            is_partitioned,
        } = repair::mend(table, &takes);
        let name = format!("{}.{}", table.schema, table.name);
        if !has_primary_key {
            keyless.push(name.clone());
            if is_partitioned {
                keyless_partitioned.push(name);
            }
        }
        plan.repairs.extend(repairs);
        problems.extend(wrong);
        let members = members.remove(&(&table.schema, &table.name)).unwrap_or_default();
        let raw_bytes = members.iter().map(|&number| backup.members[number].raw_bytes).sum();
        plan.tables.push(PlannedTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            deferred: schema::defer(&create, raw_bytes >= WORTH_DEFERRING_BYTES),
            transactional,
            members,
            raw_bytes,
        });
    }
    for (schema, table) in members.keys() {
        problems.push(format!(
            "the backup has rows of {schema}.{table} and no definition of it: it is damaged"
        ));
    }
    for database in &backup.schema.databases {
        for collation in repair::collations(&database.create).difference(&target.collations) {
            problems.push(format!(
                "schema {}: the target lacks collation {collation}; restore to a server that has it",
                database.name
            ));
        }
    }
    if target.generates_keys {
        if target.may_set_guarded() {
            plan.settings
                .push(b"SET SESSION sql_generate_invisible_primary_key = OFF".to_vec());
            if !keyless.is_empty() {
                plan.repairs.push(format!(
                    "sql_generate_invisible_primary_key is off while restoring: {} have no primary key and get none",
                    keyless.join(", ")
                ));
            }
        } else if !keyless_partitioned.is_empty() {
            problems.push(format!(
                "{}: partitioned and without a primary key, which the target refuses while sql_generate_invisible_primary_key \
                 is on; switch it off there, or give the tables a key",
                keyless_partitioned.join(", ")
            ));
        } else if !keyless.is_empty() {
            plan.repairs.push(format!(
                "{}: the target adds an invisible primary key (my_row_id), since the account may not switch that off",
                keyless.join(", ")
            ));
        }
    }
    if target.requires_keys && !keyless.is_empty() {
        if target.may_set_guarded() {
            plan.settings
                .push(b"SET SESSION sql_require_primary_key = OFF".to_vec());
        } else if !target.generates_keys {
            problems.push(format!(
                "{}: no primary key, which the target demands (sql_require_primary_key); switch it off there, or give the \
                 tables a key",
                keyless.join(", ")
            ));
        }
    }
}

fn owners(backup: Backup<'_>, target: &Target, wish: &Wish, plan: &mut Plan, problems: &mut Vec<String>) {
    let programs = backup.programs.iter().filter_map(|item| match item {
        Item::Create(program) => Some(program),
        Item::Setting(_) => None,
    });
    let mut changed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut runs_code = false;
    for program in programs {
        runs_code |= matches!(
            program.kind,
            super::programs::Kind::Function | super::programs::Kind::Trigger
        );
        if program.is_replica_event() {
            plan.repairs.push(format!(
                "{} is for a primary only (DISABLE ON REPLICA), as at the source; enable it by hand if it is to run here",
                program.describe()
            ));
        }
        let Some(definer) = &program.definer else { continue };
        let owner = owner(definer, target, wish);
        if owner == Owner::Restorer && !program.can_lose_its_definer() {
            problems.push(format!(
                "{}: its definer {definer} cannot be kept on the target, and it cannot be made to run with its caller's rights; \
                 give it an owner with --definer {definer}=USER@HOST",
                program.describe()
            ));
        }
        if owner == Owner::Restorer {
            let how = if program.kind.can_be_invoker() {
                "runs with its caller's rights"
            } else {
                "runs as the account that restores"
            };
            changed
                .entry(definer.clone())
                .or_default()
                .push(format!("{} {how}", program.describe()));
        }
        plan.owners.insert(definer.clone(), owner);
    }
    for (definer, owner) in &plan.owners {
        match owner {
            Owner::Mapped(account) => {
                let is_own = *account == target.account;
                if !is_own && !exists(account, target, wish) && !target.may_set_absent_definer() {
                    problems.push(format!(
                        "definer {definer} is to become {account}, which does not exist on the target; make it there first, or \
                         name another one"
                    ));
                } else if !is_own && !target.may_set_definer_to(account) {
                    problems.push(format!(
                        "definer {definer} is to become {account}, and account {} may make objects of its own only; map it to \
                         {} instead, or grant SET_ANY_DEFINER",
                        target.account, target.account
                    ));
                }
                let known = if is_own || exists(account, target, wish) {
                    ""
                } else {
                    ", which does not exist on the target: what belongs to it fails when used, until it does"
                };
                plan.repairs.push(format!("definer {definer} became {account}{known}"));
            }
            Owner::Restorer => plan.repairs.push(format!(
                "definer {definer} cannot be kept on the target: {}",
                changed.get(definer).map(|list| list.join(", ")).unwrap_or_default()
            )),
            Owner::Kept => {
                if !exists(definer, target, wish) {
                    plan.repairs.push(format!(
                        "definer {definer} does not exist on the target: what belongs to it fails when used, until it does"
                    ));
                }
            }
        }
    }
    if runs_code && target.refuses_code() {
        problems.push(
            "the backup holds triggers or functions, which the target refuses while its binary log is on; set the server \
             parameter log_bin_trust_function_creators to ON there"
                .to_owned(),
        );
    }
}

pub fn owner(definer: &str, target: &Target, wish: &Wish) -> Owner {
    if let Some(mapped) = wish.definers.get(definer) {
        return Owner::Mapped(mapped.clone());
    }
    let exists = exists(definer, target, wish);
    // A role that is not there is refused, whoever asks.
    let may_be_absent = definer.contains('@') && target.may_set_absent_definer();
    if definer == target.account || (target.may_set_definer_to(definer) && (exists || may_be_absent)) {
        Owner::Kept
    } else {
        Owner::Restorer
    }
}

/// Whether the account will be there when objects are given to it. Where nobody may look: taken for granted.
fn exists(definer: &str, target: &Target, wish: &Wish) -> bool {
    let there = target.accounts.as_ref();
    there.is_none_or(|accounts| accounts.contains(definer)) || accounts::include(&wish.accounts, definer)
}

/// Names that differ by case only are one name on such a target.
fn lower_case(backup: Backup<'_>, plan: &mut Plan, problems: &mut Vec<String>) {
    let mut seen: BTreeMap<(String, String), &str> = BTreeMap::new();
    let mut changed = 0_usize;
    let mut schemas = BTreeSet::new();
    for database in &backup.schema.databases {
        if !schemas.insert(database.name.to_lowercase()) {
            problems.push(format!(
                "schema {} and another one differ by case only, which the target (lower_case_table_names = 1) takes for one; \
                 restore to a server made with 0",
                database.name
            ));
        }
    }
    let mut views = BTreeSet::new();
    for item in backup.programs {
        if let Item::Create(program) = item
            && program.kind == super::programs::Kind::View
        {
            let (schema, name) = program.place("");
            let stored = (schema.to_lowercase(), name.to_lowercase());
            let is_table = backup
                .schema
                .tables
                .iter()
                .any(|table| (table.schema.to_lowercase(), table.name.to_lowercase()) == stored);
            if is_table || !views.insert(stored) {
                problems.push(format!(
                    "view {schema}.{name} and another table or view differ by case only, which the target takes for one; rename \
                     one at the source, or restore to a server made with 0"
                ));
            }
        }
    }
    for table in &backup.schema.tables {
        let stored = (table.schema.to_lowercase(), table.name.to_lowercase());
        changed += usize::from(stored.1 != table.name || stored.0 != table.schema);
        if let Some(other) = seen.insert(stored, &table.name) {
            problems.push(format!(
                "{}.{} and {other} differ by case only, which the target (lower_case_table_names = 1) takes for one table; \
                 rename one at the source, or restore to a server made with 0",
                table.schema, table.name
            ));
        }
    }
    if changed > 0 {
        plan.repairs.push(format!(
            "{changed} names with capital letters are stored in lower case on the target"
        ));
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::MySql => "MySQL",
        Family::MariaDb => "MariaDB",
    }
}
