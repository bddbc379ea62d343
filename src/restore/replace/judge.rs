//! Whether what is there may be replaced, and what to say of it beforehand. Pure.

use std::collections::BTreeSet;

use super::keep::Stands;
use super::names::{self, Naming};
use super::survey::Standing;
use crate::restore::plan::{self, Backup, Plan, Wish};
use crate::restore::programs::{Item, Kind};
use crate::restore::target::Target;

/// Nobody waits longer than this for a swap that itself waits for somebody else.
pub const LOCK_WAIT_SECONDS: u32 = 10;
/// What a backup takes on a server, in terms of its SQL: rows, keys and logs; as `planb doctor` says it.
const BYTES_ON_DISK: u64 = 3;

/// What will be replaced.
#[derive(Debug, Clone, Default)]
pub struct Replacing {
    /// Schemas that are there.
    pub schemas: Vec<String>,
    pub tables: usize,
    /// What they take, by the server's estimate.
    pub bytes: u64,
    /// What the backup may take beside them.
    pub needed_bytes: u64,
    /// What is good to know beforehand, in words.
    pub remarks: Vec<String>,
}

/// Makes of the plan of a restore one that loads aside and replaces, and says what stands against that.
pub fn replacing(backup: Backup<'_>, target: &Target, wish: &Wish, plan: &mut Plan) -> Vec<String> {
    let Some(standing) = &wish.replaces else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let schemas = || backup.schema.databases.iter().map(|database| database.name.as_str());
    for schema in schemas() {
        let letters = schema.chars().count();
        if letters > names::LONGEST {
            problems.push(format!(
                "schema {schema}: its name has {letters} letters, and only {} leave room for planb_new_ before it; restore to an \
                 empty server",
                names::LONGEST
            ));
        }
    }
    if !standing.is_begun {
        problems.extend(in_the_way(standing, &wish.own_schemas));
        problems.extend(from_outside(standing));
        problems.extend(never_again(standing, target, wish));
    }
    let needed = backup.summary.raw_bytes.saturating_mul(BYTES_ON_DISK);
    if let Some(free) = standing.free_bytes.filter(|&free| free < needed && !standing.is_begun) {
        problems.push(format!(
            "old and new stand side by side, the new may take {} MiB, and the target has {} MiB free; make room, or restore to \
             an empty server",
            mib(needed),
            mib(free)
        ));
    }
    let naming = Naming::aside(schemas(), |name| target.stored(name));
    problems.extend(naming.apply(plan).err().into_iter().flatten());
    plan.naming = naming;
    plan.settings
        .push(format!("SET SESSION lock_wait_timeout = {LOCK_WAIT_SECONDS}").into_bytes());
    plan.replacing = Some(Replacing {
        schemas: standing.schemas.clone(),
        tables: standing.tables,
        bytes: standing.bytes,
        needed_bytes: needed,
        remarks: remarks(standing, target, wish),
    });
    problems
}

/// What an earlier replace keeps, and what has a name that is needed.
fn in_the_way(standing: &Standing, own: &BTreeSet<String>) -> Option<String> {
    if let Some(kept) = standing.kept.first() {
        let places: Vec<String> = standing.kept.iter().map(super::keep::Kept::place).collect();
        let whose = match kept.stands {
            Stands::Old => "what an earlier --replace kept",
            Stands::New => "what was taken back with --roll-back",
        };
        return Some(format!(
            "{} still holds {whose} (backup {}); look whether it is needed, then drop it with planb restore --drop-old",
            places.join(", "),
            kept.backup
        ));
    }
    let strange: Vec<&str> = standing
        .in_the_way
        .iter()
        .filter(|name| !own.contains(*name))
        .map(String::as_str)
        .collect();
    (!strange.is_empty()).then(|| {
        format!(
            "{} is there, of which PlanB's own account (schema planb) knows nothing; look at it, and drop it by hand if it is not \
             needed",
            strange.join(", ")
        )
    })
}

fn from_outside(standing: &Standing) -> Option<String> {
    (!standing.keys_from_outside.is_empty()).then(|| {
        format!(
            "foreign keys of tables elsewhere would go with the old tables, not stay with the new: {}; drop them first (and add \
             them again afterwards), or restore to an empty server",
            standing.keys_from_outside.join(", ")
        )
    })
}

/// What could be dropped, and not be made again by a roll back.
fn never_again(standing: &Standing, target: &Target, wish: &Wish) -> Vec<String> {
    let mut problems = Vec::new();
    let mut has_code = false;
    for item in &standing.programs {
        let Item::Create(program) = item else { continue };
        has_code |= matches!(program.kind, Kind::Function | Kind::Trigger);
        let owner = program
            .definer
            .as_deref()
            .map(|definer| plan::owner(definer, target, wish));
        if owner == Some(plan::Owner::Restorer) && !program.can_lose_its_definer() {
            problems.push(format!(
                "{} is there, belongs to somebody else, and could not be made again by a roll back; grant SET_ANY_DEFINER to the \
                 account that restores, or drop it first",
                program.describe()
            ));
        }
    }
    if has_code && target.refuses_code() {
        problems.push(
            "triggers or functions are there that could not be made again by a roll back, since the target refuses them while its \
             binary log is on; set the server parameter log_bin_trust_function_creators to ON there"
                .to_owned(),
        );
    }
    problems
}

/// What is no obstacle, and good to know.
fn remarks(standing: &Standing, target: &Target, wish: &Wish) -> Vec<String> {
    let mut remarks = Vec::new();
    let lost: BTreeSet<String> = standing
        .programs
        .iter()
        .filter_map(|item| match item {
            Item::Create(program) => {
                let definer = program.definer.as_deref()?;
                (plan::owner(definer, target, wish) == plan::Owner::Restorer)
                    .then(|| format!("{} ({definer})", program.describe()))
            }
            Item::Setting(_) => None,
        })
        .collect();
    if !lost.is_empty() {
        let lost: Vec<String> = lost.into_iter().collect();
        remarks.push(format!(
            "a roll back could not give these back to their definers, which the account that restores may not set: {}",
            lost.join(", ")
        ));
    }
    if !standing.unusable.is_empty() {
        remarks.push(format!(
            "views that are unusable now; a roll back cannot make them again, their text stays in planb.kept_definitions: {}",
            standing.unusable.join(", ")
        ));
    }
    if !standing.keys_to_outside.is_empty() {
        remarks.push(format!(
            "what is kept keeps its foreign keys to tables elsewhere, and holds their rows fast until --drop-old: {}",
            standing.keys_to_outside.join(", ")
        ));
    }
    if !standing.routine_rights.is_empty() {
        remarks.push(format!(
            "rights on single routines go with the old ones; give them again where they are needed: {}",
            standing.routine_rights.join(", ")
        ));
    }
    if !standing.not_innodb.is_empty() && target.version.family == crate::mysql::dialect::Family::MySql {
        remarks.push(format!(
            "not InnoDB: {}; should the server itself be killed during the swap, some tables may be swapped and others not, until \
             the same command goes on",
            standing.not_innodb.join(", ")
        ));
    }
    remarks
}

fn mib(bytes: u64) -> u64 {
    (bytes >> 20).max(1)
}
