//! The text around the data: settings and tables before it, routines, views, triggers and events after it. Pure.

use jiff::Timestamp;

use super::catalog::{Definition, Schema};
use super::literal::identifier;
use super::{definition, placement};
use crate::format::index::{MemberKind, Position, Summary, Way};

/// Everything up to the first row. Every setting may be made by any account.
pub fn schema_member(schemas: &[Schema], about: &Summary, history: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let way = match about.way {
        Way::MariadbSnapshot => "several snapshots with equal binlog positions",
        Way::PausedReplica => "replica, applier paused for the instant",
        Way::GlobalLock => "global read lock for the instant",
        Way::SingleSession => "one snapshot",
        Way::TableLocks => "table locks for the instant",
    };
    let position = match &about.position {
        Position::None => "unknown (no binary log)".to_owned(),
        Position::Exact { file, position, gtid } => format!("{file}:{position} {}", one_line(gtid)),
        Position::Range { from, to } => {
            format!(
                "between {}:{} {} and {}:{} {}",
                from.file,
                from.position,
                one_line(&from.gtid),
                to.file,
                to.position,
                one_line(&to.gtid)
            )
        }
    };
    text(
        &mut out,
        &format!(
            "-- PlanB backup, format {}\n--\n-- Service {}, site {}, run {}\n-- Server {} ({})\n-- Consistent at {} ({way})\n\
         -- Position {}\n--\n-- Restore without PlanB: gzip -dc FILE | mysql --comments\n--\n\n",
            about.format,
            about.service,
            about.site,
            about.run_id,
            about.server,
            one_line(&about.server_identity),
            precise(about.consistent_at),
            position.trim_end()
        ),
    );
    // Strict modes would refuse zero dates and the like that the source holds; the values are exact either way. And
    // another server has not the directories of this one.
    text(
        &mut out,
        "SET NAMES utf8mb4;\nSET time_zone = '+00:00';\nSET foreign_key_checks = 0;\nSET unique_checks = 0;\n\
         SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_DIR_IN_CREATE';\n/*M!100200 SET check_constraint_checks = 0 */;\n",
    );
    if history {
        text(&mut out, "/*M!101100 SET system_versioning_insert_history = 1 */;\n");
    }
    for schema in schemas {
        out.push(b'\n');
        out.extend_from_slice(&placement::portable(&schema.create).0);
        text(&mut out, ";\n");
    }
    for schema in schemas.iter().filter(|schema| !schema.sequences.is_empty()) {
        text(&mut out, &format!("\nUSE {};\n", identifier(&schema.name)));
        for (sequence, value) in schema.sequences.iter().zip(&schema.sequence_values) {
            out.extend_from_slice(&sequence.create);
            text(&mut out, &format!(";\n{value}\n"));
        }
    }
    for schema in schemas.iter().filter(|schema| !schema.table_definitions.is_empty()) {
        text(&mut out, &format!("\nUSE {};\n", identifier(&schema.name)));
        for table in &schema.table_definitions {
            out.push(b'\n');
            out.extend_from_slice(&placement::portable(&table.create).0);
            text(&mut out, ";\n");
        }
    }
    out
}

/// Views that need one of the schemas `others`, which are not in the dump, and which one.
pub fn views_elsewhere<'a>(schemas: &'a [Schema], others: &[String]) -> Vec<(&'a Definition, String)> {
    let usable = |view: &&Definition| view.broken.is_none();
    let views: Vec<_> = schemas.iter().flat_map(|s| &s.views).filter(usable).collect();
    definition::reaching_elsewhere(&views, others)
}

/// What of tables and schemas is not carried because only one server has it, in words.
pub fn unplaced(schemas: &[Schema]) -> Vec<String> {
    let of_schemas = schemas.iter().map(|schema| (schema.name.clone(), &schema.create));
    let tables = schemas.iter().flat_map(|schema| &schema.table_definitions);
    let of_tables = tables.map(|table| (format!("{}.{}", table.schema, table.name), &table.create));
    of_schemas
        .chain(of_tables)
        .flat_map(|(name, create)| {
            let lacks = placement::portable(create).1.into_iter();
            lacks.map(move |lack| format!("{name}: {lack}"))
        })
        .collect()
}

/// Members that follow the data, in file order: kind, schema (empty for views) and text. `others` are the source's
/// schemas that are not in the dump.
pub fn after_data(schemas: &[Schema], others: &[String]) -> Vec<(MemberKind, String, Vec<u8>)> {
    let mut members = Vec::new();
    let programs = |kind: MemberKind, members: &mut Vec<(MemberKind, String, Vec<u8>)>| {
        for schema in schemas {
            let programs = match kind {
                MemberKind::Routines => &schema.routines,
                MemberKind::Triggers => &schema.triggers,
                MemberKind::Events => &schema.events,
                MemberKind::Schema | MemberKind::Data | MemberKind::Views | MemberKind::ViewsElsewhere => continue,
            };
            if programs.is_empty() {
                continue;
            }
            let mut out = format!("\nSET NAMES utf8mb4;\nUSE {};\n", identifier(&schema.name)).into_bytes();
            for program in programs {
                out.push(b'\n');
                definition::write_program(&mut out, program, &schema.collation);
            }
            text(
                &mut out,
                "SET time_zone = '+00:00';\nSET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';\n",
            );
            members.push((kind, schema.name.clone(), out));
        }
    };
    programs(MemberKind::Routines, &mut members);
    let elsewhere = views_elsewhere(schemas, others);
    let (late, views): (Vec<_>, Vec<_>) = schemas
        .iter()
        .flat_map(|schema| schema.views.iter().cloned())
        .partition(|view| elsewhere.iter().any(|(late, _)| *late == view));
    let write_views = |kind: MemberKind, views: Vec<Definition>, members: &mut Vec<(MemberKind, String, Vec<u8>)>| {
        if views.is_empty() {
            return;
        }
        let mut out = b"\nSET NAMES utf8mb4;\n".to_vec();
        for view in definition::order_views(views) {
            out.push(b'\n');
            definition::write_view(&mut out, &view);
        }
        members.push((kind, String::new(), out));
    };
    write_views(MemberKind::Views, views, &mut members);
    programs(MemberKind::Triggers, &mut members);
    programs(MemberKind::Events, &mut members);
    write_views(MemberKind::ViewsElsewhere, late, &mut members);
    members
}

/// Accounts that definers name, sorted.
pub fn definers(schemas: &[Schema]) -> Vec<String> {
    let mut accounts: Vec<String> = schemas
        .iter()
        .flat_map(|s| s.views.iter().chain(&s.routines).chain(&s.triggers).chain(&s.events))
        .filter_map(|definition| definition::cut(&definition.create).definer.map(definition::account))
        .collect();
    accounts.sort();
    accounts.dedup();
    accounts
}

fn precise(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("")
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
