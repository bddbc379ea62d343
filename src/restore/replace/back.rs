//! What was there is put back, from wherever a restore that replaces has got to; or what was kept of it is dropped for good.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;

use super::keep::{self, Kept, KeptDefinition, Stands};
use super::locks::{self, Careful};
use super::swap::{PLAIN_MODE, drop_all};
use super::{names, sides};
use crate::dump::catalog::{self, Definition};
use crate::dump::definition;
use crate::dump::literal::{identifier, string};
use crate::mysql::dialect::Dialect;
use crate::mysql::{Address, DbError, Session};
use crate::restore::error::RestoreError;
use crate::restore::ledger::{self, MARK, Phase, Record};
use crate::restore::plan::{self, Owner, Wish};
use crate::restore::programs::{self, Item, Kind};
use crate::restore::statements::ScriptError;
use crate::restore::target::{self, Target};
use crate::restore::{events, hold};

/// What was put back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RolledBack {
    /// The backup whose restore was taken back.
    pub backup: String,
    /// Real names of the schemas that are as they were.
    pub schemas: Vec<String>,
    /// Schemas that hold what was taken back, where it had been finished and may have been written to.
    pub aside: Vec<String>,
    /// What is not quite as it was, in words.
    pub notes: Vec<String>,
    /// What could not be made again, each with the server's reason; its definition stays in `planb.kept_definitions`.
    pub missing: Vec<String>,
}

/// Puts back what a restore with `--replace` found: an unfinished one, or a finished one whose old content is still kept.
///
/// # Errors
/// [`RestoreError::Refused`] where there is none. After any other the same call goes on.
pub async fn roll_back(address: &Address, cancel: &CancellationToken) -> Result<RolledBack, RestoreError> {
    let mut holder = address.connect().await?;
    hold::take_hold(&mut holder, cancel).await?;
    let work = async {
        let mut control = address.connect().await?;
        let record = to_take_back(&mut control).await?;
        control.close().await;
        take_back(address, record, cancel).await
    };
    let done = hold::holding(&mut holder, work).await;
    holder.close().await;
    done
}

/// Drops what a replace, or its taking back, has kept.
///
/// # Errors
/// An unfinished restore's, [`RestoreError::Refused`] where nothing is kept, or the database's; the call can be repeated.
pub async fn drop_old(address: &Address, cancel: &CancellationToken) -> Result<Vec<String>, RestoreError> {
    let mut holder = address.connect().await?;
    hold::take_hold(&mut holder, cancel).await?;
    let work = async {
        let mut control = address.connect().await?;
        locks::bound(&mut control).await?;
        let records = ledger::records(&mut control).await?;
        if let Some(record) = records
            .iter()
            .find(|record| record.phase != Phase::Done && !record.trial)
        {
            return Err(record.as_unfinished());
        }
        let kept = keep::kept(&mut control).await?;
        if kept.is_empty() {
            return Err(RestoreError::Refused(vec![
                "nothing is kept of an earlier content: there is nothing to drop".to_owned(),
            ]));
        }
        let mut dropped = Vec::new();
        for kept in kept {
            let place = kept.place();
            match control
                .execute(format!("DROP DATABASE IF EXISTS {}", identifier(&place)))
                .await
            {
                Err(DbError::LockWait { .. }) => return Err(RestoreError::InUse(format!(" ({place})"))),
                done => done?,
            }
            keep::forget_wholly(&mut control, &kept).await?;
            dropped.push(place);
        }
        control.close().await;
        Ok(dropped)
    };
    let done = hold::holding(&mut holder, work).await;
    holder.close().await;
    done
}

/// The restore that a roll back is about.
async fn to_take_back(control: &mut Session) -> Result<Record, RestoreError> {
    let records = ledger::records(control).await?;
    let unfinished = || {
        records
            .iter()
            .filter(|record| record.phase != Phase::Done && !record.trial)
    };
    if let Some(record) = unfinished().find(|record| record.replaces()) {
        return Ok(record.clone());
    }
    if let Some(record) = unfinished().next() {
        return Err(record.as_unfinished());
    }
    let kept = keep::kept(control).await?;
    let Some(first) = kept.iter().find(|kept| kept.stands == Stands::Old) else {
        return Err(RestoreError::Refused(vec![
            "nothing is kept of an earlier content: there is nothing to put back".to_owned(),
        ]));
    };
    Ok(Record {
        digest: first.digest.clone(),
        backup: first.backup.clone(),
        phase: Phase::Done,
        schemas: kept.iter().map(|kept| names::new(&kept.schema)).collect(),
        trial: false,
    })
}

/// Puts back what `record` replaces; the caller holds the target.
pub async fn take_back(
    address: &Address,
    record: Record,
    cancel: &CancellationToken,
) -> Result<RolledBack, RestoreError> {
    let run = format!("{:016x}", rand::random::<u64>());
    let mut session = address.connect().await?;
    ledger::enlist(&mut session).await?;
    locks::bound(&mut session).await?;
    session.execute(PLAIN_MODE).await?;
    session.execute("SET NAMES utf8mb4").await?;
    keep::prepare(&mut session).await?;
    let target = target::survey(&mut session).await?;
    let kept: Vec<Kept> = keep::kept(&mut session).await?;
    let kept: Vec<Kept> = kept.into_iter().filter(|kept| kept.digest == record.digest).collect();
    let was_done = record.phase == Phase::Done || kept.iter().any(|kept| kept.stands == Stands::New);
    if matches!(record.phase, Phase::Done | Phase::Finishing) {
        // The marks say that everything has changed places; they go back first.
        for real in record.reals() {
            ledger::mark(&mut session, &real, &record.digest).await?;
        }
    }
    let mut turned = record.clone();
    turned.phase = Phase::RollingBack;
    keep::turn(&mut session, &turned, &run, was_done).await?;
    let (mut reader, dialect) = keep::reader(address).await?;
    let mut careful = Careful {
        session,
        digest: &record.digest,
        run: &run,
        cancel,
    };
    let mut back = RolledBack {
        backup: record.backup.clone(),
        schemas: record.reals(),
        ..RolledBack::default()
    };
    tables(&mut careful, &mut reader, &dialect, &record).await?;
    databases(&mut careful, &kept).await?;
    let put = put_back(&mut careful, &mut reader, &dialect, &target, &kept).await?;
    (back.notes, back.missing) = (put.notes, put.missing);
    back.aside = leave(&mut careful, &record, was_done).await?;
    let stands = if was_done { Stands::New } else { Stands::Old };
    keep::forget(&mut careful.session, &kept, stands, &record).await?;
    reader.close().await;
    careful.session.close().await;
    Ok(back)
}

/// Every table to where it was. What was made under the real names since goes first: a table with triggers does not change
/// its schema.
async fn tables(
    careful: &mut Careful<'_>,
    reader: &mut Session,
    dialect: &Dialect,
    record: &Record,
) -> Result<(), RestoreError> {
    let reals = record.reals();
    let sides = keep::look(&mut careful.session, &reals).await?;
    for (real, _) in sides.iter().filter(|(_, sides)| sides.is_swapped(MARK)) {
        let found = catalog::schema(reader, dialect, real).await?;
        for definitions in [&found.events, &found.triggers, &found.views, &found.routines] {
            drop_all(careful, real, definitions).await?;
        }
        ledger::forget_events(&mut careful.session, real).await?;
    }
    let renames = sides::back(&sides, MARK);
    for place in renames.iter().map(|rename| &rename.to.0).collect::<BTreeSet<_>>() {
        careful
            .run(format!("CREATE DATABASE IF NOT EXISTS {}", identifier(place)))
            .await?;
    }
    if !renames.is_empty() {
        careful.run(sides::statement(&renames)).await?;
    }
    // Before anything aside is dropped: a table that is not there would look like one that has its real name.
    keep::unload(&mut careful.session, &reals).await?;
    Ok(())
}

/// Each schema's own definition as it was, or no schema where there was none.
async fn databases(careful: &mut Careful<'_>, kept: &[Kept]) -> Result<(), RestoreError> {
    let there = keep::schemas(&mut careful.session).await?;
    for kept in kept {
        if let Some(sql) = keep::alter_database(&kept.create, &kept.schema) {
            careful.run(sql).await?;
        } else if kept.create.is_empty()
            && there.contains(&kept.schema)
            && ledger::is_empty(&mut careful.session, &kept.schema).await?
        {
            careful
                .run(format!("DROP DATABASE {}", identifier(&kept.schema)))
                .await?;
        }
    }
    Ok(())
}

/// Removes what is aside and empty, or never was finished. Returns what stays.
async fn leave(careful: &mut Careful<'_>, record: &Record, was_done: bool) -> Result<Vec<String>, RestoreError> {
    let there = keep::schemas(&mut careful.session).await?;
    let mut aside = Vec::new();
    for real in record.reals() {
        let (old, new) = (names::old(&real), names::new(&real));
        if there.contains(&old) && ledger::is_empty(&mut careful.session, &old).await? {
            careful.run(format!("DROP DATABASE {}", identifier(&old))).await?;
        }
        if !there.contains(&new) {
            continue;
        }
        if was_done {
            ledger::unmark(&mut careful.session, &new).await?;
            aside.push(new);
        } else if ledger::has_mark(&mut careful.session, &new, &record.digest).await?
            || ledger::is_empty(&mut careful.session, &new).await?
        {
            careful.run(format!("DROP DATABASE {}", identifier(&new))).await?;
        }
    }
    Ok(aside)
}

/// What came of putting definitions back.
#[derive(Debug, Default)]
pub struct Put {
    pub notes: Vec<String>,
    pub missing: Vec<String>,
}

/// Makes again what was kept and is not there.
pub async fn put_back(
    careful: &mut Careful<'_>,
    reader: &mut Session,
    dialect: &Dialect,
    target: &Target,
    kept: &[Kept],
) -> Result<Put, RestoreError> {
    let mut put = Put::default();
    // All of them in order, those that are there too: views need each other through them.
    let mut all: Vec<(KeptDefinition, &Kept, bool)> = Vec::new();
    for kept in kept.iter().filter(|kept| !kept.create.is_empty()) {
        let found = catalog::schema(reader, dialect, &kept.schema).await?;
        let there: BTreeSet<(&str, &str)> = keep::programs(&found)
            .map(|definition| (definition.kind, definition.name.as_str()))
            .collect();
        let is_there = |definition: &Definition| there.contains(&(definition.kind, definition.name.as_str()));
        let definitions = keep::definitions(&mut careful.session, &kept.schema).await?;
        let triggers_whole = definitions
            .iter()
            .all(|kept| kept.definition.kind != "TRIGGER" || is_there(&kept.definition));
        for definition in definitions {
            // Triggers fire in the order in which they are made: all of them again, or none.
            let again = definition.definition.kind == "TRIGGER" && !triggers_whole;
            let is_absent = again || !is_there(&definition.definition);
            all.push((definition, kept, is_absent));
        }
    }
    for (definition, kept, is_absent) in in_order(all) {
        if !is_absent {
            continue;
        }
        let name = format!(
            "{} {}.{}",
            definition.definition.kind.to_lowercase(),
            kept.schema,
            definition.definition.name
        );
        if let Some(why) = &definition.definition.broken {
            put.notes.push(format!(
                "{name} was unusable, and no server would make it again ({why}); its text stays in planb.kept_definitions"
            ));
            continue;
        }
        match make(careful, target, &definition.definition, &kept.collation).await {
            Ok(Some(note)) => put.notes.push(note),
            Ok(None) => {}
            // One that cannot be made must not hold up the others.
            Err(RestoreError::Target(
                error @ (DbError::Refused { .. } | DbError::Denied { .. } | DbError::DefinitionChanged { .. }),
            )) => {
                put.missing.push(format!("{name}: {error}"));
                let sql = format!(
                    "UPDATE planb.kept_definitions SET unusable = {} WHERE of_schema = {} AND kind = {} AND name = {}",
                    string(&error.to_string()),
                    string(&kept.schema),
                    string(definition.definition.kind),
                    string(&definition.definition.name)
                );
                careful.session.execute(sql).await?;
                continue;
            }
            Err(error) => return Err(error),
        }
        if definition.definition.kind == "EVENT" {
            if definition.asleep {
                ledger::put_to_sleep(&mut careful.session, &kept.schema, &definition.definition.name).await?;
            }
            if !events::is_there(&mut careful.session, &kept.schema, &definition.definition.name).await? {
                put.notes
                    .push(format!("{name}: its time has passed, and the server does not keep it"));
            }
        }
    }
    Ok(put)
}

/// Routines, views (each after those it names), triggers, events.
fn in_order(all: Vec<(KeptDefinition, &Kept, bool)>) -> Vec<(KeptDefinition, &Kept, bool)> {
    let views = all.iter().filter(|(kept, ..)| kept.definition.kind == "VIEW");
    let order = definition::order_views(views.map(|(kept, ..)| kept.definition.clone()).collect());
    let mut ranked: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(number, one)| {
            let rank = match one.0.definition.kind {
                "VIEW" => (
                    1,
                    order
                        .iter()
                        .position(|view| *view == one.0.definition)
                        .unwrap_or(number),
                ),
                "TRIGGER" => (2, number),
                "EVENT" => (3, number),
                _ => (0, number),
            };
            (rank, one)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, one)| one).collect()
}

/// Makes one as it was; says so where that could not be wholly.
async fn make(
    careful: &mut Careful<'_>,
    target: &Target,
    definition: &Definition,
    collation: &str,
) -> Result<Option<String>, RestoreError> {
    let mut note = None;
    let mut outcome = Ok(());
    for item in script(definition, collation)? {
        match item {
            Item::Setting(statement) => careful.session.execute(statement).await?,
            Item::Create(program) => {
                let owner = program
                    .definer
                    .as_deref()
                    .map_or(Owner::Kept, |definer| plan::owner(definer, target, &Wish::default()));
                if owner == Owner::Restorer {
                    let how = if program.kind.can_be_invoker() {
                        "runs with its caller's rights"
                    } else {
                        "runs as the account that restores"
                    };
                    note = Some(format!(
                        "{} belonged to {}, which this account may not set: it {how} now",
                        program.describe(),
                        program.definer.as_deref().unwrap_or_default()
                    ));
                }
                let drop = program.drop_statement();
                if program.kind == Kind::Trigger || program.kind == Kind::View {
                    careful.run(drop).await?;
                } else {
                    careful.session.execute(drop).await?;
                }
                // The settings after it are made in any case.
                outcome = careful.run(program.create_awake(&owner)).await;
            }
        }
    }
    outcome.map(|()| note)
}

/// The statements that make a definition as it was, from any session to any other.
pub fn script(definition: &Definition, collation: &str) -> Result<Vec<Item>, ScriptError> {
    let mut text = b"SET NAMES utf8mb4;\n".to_vec();
    if definition.kind == "VIEW" {
        definition::write_view(&mut text, definition);
    } else {
        text.extend_from_slice(format!("USE {};\n", identifier(&definition.schema)).as_bytes());
        definition::write_program(&mut text, definition, collation);
        text.extend_from_slice(
            b"SET time_zone = '+00:00';\nSET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';\n",
        );
    }
    programs::items(&text)
}
