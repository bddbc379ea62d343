//! The long form of `tests/consistency.rs`, for `scripts/soak`: many dumps in every way, killed and disturbed at random
//! moments. Without `PLANB_SOAK_ROUNDS` only a little of it, to see that it works.

mod bank;
mod support;

use std::time::Duration;

use bank::{Dice, Known, Plan, Report, Way, World, rounds, seed, table_of};
use support::Flavor;

fn number(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// `PLANB_SOAK_ROUNDS` dumps a way and no longer than `PLANB_SOAK_SECONDS` a way, `PLANB_SOAK_OPENS` snapshots besides.
/// `PLANB_SOAK_ONLY` is a part of the names of the ways that are wanted.
fn plan() -> Plan {
    match number("PLANB_SOAK_ROUNDS") {
        None => Plan {
            dumps: 4,
            opens: 10,
            kill_every: 2,
            ddl_every: 2,
            ..Plan::default()
        },
        Some(dumps) => Plan {
            dumps,
            within: number("PLANB_SOAK_SECONDS").map(|seconds| Duration::from_secs(seconds.into())),
            opens: number("PLANB_SOAK_OPENS").unwrap_or(dumps * 2),
            kill_every: 10,
            ddl_every: 7,
            ..Plan::default()
        },
    }
}

/// Makes ways on a world that stands already.
type Ways = fn(&World) -> Vec<Way>;

fn soak(reports: &mut Vec<Report>, dice: &mut Dice, world: impl FnOnce() -> World, ways: Ways) {
    let only = std::env::var("PLANB_SOAK_ONLY").unwrap_or_default();
    let world = world();
    let long = number("PLANB_SOAK_ROUNDS").is_some();
    for way in ways(&world).iter().take(if long { usize::MAX } else { 1 }) {
        if format!("{} {}", world.source.flavor.name(), way.name).contains(&only) {
            let report = rounds(&world, way, &plan(), dice);
            // Somebody who waits wants to see it grow.
            println!("{}", table_of(std::slice::from_ref(&report)));
            reports.push(report);
        }
    }
}

#[test]
fn many_dumps_killed_and_disturbed() {
    let mut dice = Dice::new(seed());
    let mut reports = Vec::new();
    let long = number("PLANB_SOAK_ROUNDS").is_some();
    let new = |flavor, args: &'static [&str]| move || World::new(flavor, args, 10);
    soak(
        &mut reports,
        &mut dice,
        move || new(Flavor::MySql, &["--event-scheduler=ON"])().with_replica(&[]),
        |world| {
            vec![
                Way::paused_replica(world),
                Way::global_lock(&world.source, Known::Exact),
                Way::one_session(&world.source, Known::Either),
                Way::table_locks(&world.source),
                Way::rds_like(&world.source, "single-session", Known::Either),
            ]
        },
    );
    soak(
        &mut reports,
        &mut dice,
        move || new(Flavor::MariaDb, &[])().with_replica(&[]),
        |world| {
            vec![
                Way::snapshots(&world.source),
                Way::table_locks(&world.source),
                Way::paused_replica(world),
                Way::replica_as_it_runs(world, "single-session", Known::Nothing),
            ]
        },
    );
    if long {
        soak(
            &mut reports,
            &mut dice,
            new(Flavor::MySql, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]),
            |world| {
                vec![
                    Way::global_lock(&world.source, Known::Exact),
                    Way::one_session(&world.source, Known::Range),
                ]
            },
        );
        soak(
            &mut reports,
            &mut dice,
            new(Flavor::MySql, &["--skip-log-bin"]),
            |world| {
                vec![
                    Way::global_lock(&world.source, Known::Nothing),
                    Way::one_session(&world.source, Known::Nothing),
                ]
            },
        );
        soak(
            &mut reports,
            &mut dice,
            new(Flavor::MariaDb, &["--skip-log-bin"]),
            |world| {
                vec![
                    Way::global_lock(&world.source, Known::Nothing),
                    Way::one_session(&world.source, Known::Nothing),
                ]
            },
        );
    }
    let table = table_of(&reports);
    println!("{table}");
    assert!(
        reports.iter().all(|report| report.wrong.is_empty()),
        "a dump is wrong, see above"
    );
}
