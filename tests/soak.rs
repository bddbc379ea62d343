//! The long form of `tests/consistency.rs`, for `scripts/soak`: many dumps in every way, killed and disturbed at random
//! moments. Without `PLANB_SOAK_ROUNDS` only a little of it, to see that it works.

mod bank;
mod support;

use std::time::Duration;

use bank::{Dice, Known, Plan, Report, Way, World, rounds, seed, table_of};
use support::{Flavor, Server};

fn number(name: &str) -> Option<u32> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

/// `PLANB_SOAK_ROUNDS` dumps a way and no longer than `PLANB_SOAK_SECONDS` a way, `PLANB_SOAK_OPENS` snapshots besides.
/// `PLANB_SOAK_ONLY` is a part of the wanted servers' names, and after a colon of the wanted ways'.
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
type Ways<'a> = &'a dyn Fn(&World) -> Vec<Way>;

fn soak(reports: &mut Vec<Report>, dice: &mut Dice, place: &str, world: &dyn Fn() -> World, ways: Ways<'_>) {
    let only = std::env::var("PLANB_SOAK_ONLY").unwrap_or_default();
    if !place.contains(only.split(':').next().unwrap_or_default()) {
        return;
    }
    let only = only.split_once(':').map_or("", |(_, way)| way);
    let world = world();
    let long = number("PLANB_SOAK_ROUNDS").is_some();
    for way in ways(&world).iter().take(if long { usize::MAX } else { 1 }) {
        if way.name.contains(only) {
            let mut report = rounds(&world, way, &plan(), dice);
            report.name = format!("{place}: {}", way.name);
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
    let mut on = |place: &str, world: &dyn Fn() -> World, ways: Ways<'_>| {
        soak(&mut reports, &mut dice, place, world, ways);
    };
    let both = |server: &Server, locked, alone| vec![Way::global_lock(server, locked), Way::one_session(server, alone)];

    let world = new(Flavor::MySql, &["--event-scheduler=ON"]);
    on("MySQL", &|| world().with_replica(&[]), &|world| {
        let mut ways = both(&world.source, Known::Exact, Known::Either);
        ways.insert(0, Way::paused_replica(world));
        ways.push(Way::table_locks(&world.source));
        ways.push(Way::rds_like(&world.source, "single-session", Known::Either));
        ways
    });
    let world = new(Flavor::MariaDb, &["--max-binlog-size=64K"]);
    on("MariaDB", &|| world().with_replica(&[]), &|world| {
        vec![
            Way::snapshots(&world.source),
            Way::table_locks(&world.source),
            Way::paused_replica(world),
            Way::replica_as_it_runs(world, "single-session", Known::Nothing),
        ]
    });
    if long {
        let world = new(Flavor::MySql, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
        on("MySQL, no GTIDs", &world, &|world| {
            both(&world.source, Known::Exact, Known::Range)
        });
        let world = new(Flavor::MySql, &["--skip-log-bin"]);
        on("MySQL, no binlog", &world, &|world| {
            both(&world.source, Known::Nothing, Known::Nothing)
        });
        let world = new(Flavor::MariaDb, &["--skip-log-bin"]);
        on("MariaDB, no binlog", &world, &|world| {
            both(&world.source, Known::Nothing, Known::Nothing)
        });
    }
    let table = table_of(&reports);
    println!("{table}");
    assert!(
        reports.iter().all(|report| report.wrong.is_empty()),
        "a dump is wrong, see above"
    );
}
