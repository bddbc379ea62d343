//! One point in time: a bank under load, dumped by the real binary in every way there is. The total is right in every
//! dump, and the binlog position written into it is what it claims to be.

mod bank;
mod support;

use bank::{Dice, Known, Plan, Replay, Way, World, rounds, seed, table_of};
use support::Flavor;

const SHORT: Plan = Plan {
    dumps: 2,
    within: None,
    opens: 10,
    kill_every: 0,
    ddl_every: 0,
    replay: Replay::Yes,
};

/// Every way in turn; all reports are printed before the first fault is.
fn check(world: &World, ways: &[Way]) {
    let mut dice = Dice::new(seed());
    let mut reports = Vec::new();
    for (i, way) in ways.iter().enumerate() {
        let replay = if i == 0 { Replay::WithProof } else { SHORT.replay };
        reports.push(rounds(world, way, &Plan { replay, ..SHORT }, &mut dice));
    }
    let table = table_of(&reports);
    println!("{}\n{table}", world.source.version());
    assert!(
        reports.iter().all(|report| report.wrong.is_empty()),
        "a dump is wrong, see above"
    );
    // Starving is allowed, but a way that never succeeds was not tested.
    assert!(
        reports.iter().all(|report| report.dumps + report.opens > 0),
        "a way never succeeded, see above"
    );
}

/// The first table has 20 MB, so that several sessions share it.
const SHARED: usize = 10_000;

#[test]
fn mysql() {
    let world = World::new(Flavor::MySql, &["--event-scheduler=ON"], SHARED).with_replica(&[]);
    let source = &world.source;
    let ways = [
        Way::global_lock(source, Known::Exact),
        Way::one_session(source, Known::Either),
        Way::table_locks(source),
        Way::rds_like(source, "single-session", Known::Either),
        Way::paused_replica(&world),
    ];
    check(&world, &ways);
}

#[test]
fn mysql_without_gtids() {
    let world = World::new(
        Flavor::MySql,
        &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"],
        10,
    );
    check(
        &world,
        &[
            Way::global_lock(&world.source, Known::Exact),
            Way::one_session(&world.source, Known::Range),
        ],
    );
}

#[test]
fn mysql_without_binlog() {
    let world = World::new(Flavor::MySql, &["--skip-log-bin"], 10);
    check(
        &world,
        &[
            Way::global_lock(&world.source, Known::Nothing),
            Way::one_session(&world.source, Known::Nothing),
        ],
    );
}

/// The replica does not log what it applies, as MariaDB's do unless told otherwise: its own binlog stands still while
/// its data changes, so that equal binlog positions say nothing there.
#[test]
fn mariadb() {
    // It rotates some fifty times a second: see `mariadb_position`.
    let world = World::new(Flavor::MariaDb, &["--max-binlog-size=64K"], SHARED).with_replica(&[]);
    let ways = [
        Way::snapshots(&world.source),
        Way::rds_like(&world.source, "mariadb-snapshot", Known::Exact),
        Way::table_locks(&world.source),
        Way::paused_replica(&world),
        Way::replica_as_it_runs(&world, "single-session", Known::Nothing),
    ];
    check(&world, &ways);
}

#[test]
fn mariadb_without_binlog() {
    let world = World::new(Flavor::MariaDb, &["--skip-log-bin"], 10);
    check(
        &world,
        &[
            Way::one_session(&world.source, Known::Nothing),
            Way::global_lock(&world.source, Known::Nothing),
        ],
    );
}

/// A replica that is cut off from its source says "no lag" or nothing at all, and its data may be hours old.
#[test]
fn a_replica_that_does_not_hear_from_its_source_is_not_backed_up() {
    for flavor in Flavor::ALL {
        let world = World::new(flavor, &[], 10).with_replica(&[]);
        let ways = [
            Way::paused_replica(&world),
            Way::replica_as_it_runs(&world, "single-session", Known::Nothing),
        ];
        let replica = world.replica.as_ref().expect("a replica");
        replica.sql(match flavor {
            Flavor::MySql => "STOP REPLICA IO_THREAD",
            Flavor::MariaDb => "STOP SLAVE IO_THREAD",
        });
        for way in ways {
            let said = way.planb.fails(1, &["backup"]);
            assert!(said.contains("does not hear from its own source"), "{said}");
            assert_eq!(way.planb.visible(), Vec::<String>::new());
        }
    }
}
