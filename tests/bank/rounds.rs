//! Rounds of the real binary against one way, every dump judged; the figures of all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Child, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use planb::format::index::{Position, Way as Reached};

use super::binlog::{Log, number_of};
use super::books::{audit, unpack};
use super::load::{Load, newest, newest_at};
use super::{Dice, Known, Way, World, ddl, opens, replay};
use crate::support::planb::text;
use crate::support::{Flavor, Server};

/// What to do with one way.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    pub dumps: u32,
    /// No more dumps after this long.
    pub within: Option<Duration>,
    /// Snapshots opened inside this process besides.
    pub opens: u32,
    /// Every so many dumps one is killed at a random moment. 0: none.
    pub kill_every: u32,
    /// Every so many dumps the schema changes meanwhile. 0: none.
    pub ddl_every: u32,
    /// Load the last dump and replay the log into it.
    pub replay: Replay,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replay {
    #[default]
    No,
    Yes,
    /// And show that a transfer more or less makes a difference.
    WithProof,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    pub name: String,
    pub per_second: f64,
    pub dumps: u32,
    pub starved: u32,
    pub gave_up: u32,
    pub repeated: u32,
    pub kills: u32,
    pub killed_too_late: u32,
    pub applier_left_stopped: u32,
    pub changes: u32,
    pub opens: u32,
    pub replays: u32,
    pub ways: BTreeMap<String, u32>,
    pub sessions: BTreeMap<u32, u32>,
    pub exact: u32,
    pub ranges: u32,
    pub locked_millis: Vec<f64>,
    pub open_millis: Vec<f64>,
    pub seconds: Vec<f64>,
    pub positions_checked: u32,
    /// How much later than the data `consistent_at` was at worst; a replica knows its lag in whole seconds only.
    pub too_late_millis: i64,
    /// Everything that must not be.
    pub wrong: Vec<String>,
}

/// A dump of which only the position is still to be judged.
pub struct Seen {
    pub position: Position,
    pub newest: Vec<i64>,
}

/// A run that has not ended by then is stopped: a starved way, or a fault.
const PATIENCE: Duration = Duration::from_secs(60);
/// A replica does not count what it has not received yet, and its thread that receives may starve on a busy machine.
const REPLICA_TOLERANCE_MILLIS: i64 = 1_000;
const STARVED: Duration = Duration::from_secs(8);

/// Runs the plan, with the bank at work all the time, and judges positions once it has stopped.
pub fn rounds(world: &World, way: &Way, plan: &Plan, dice: &mut Dice) -> Report {
    let flavor = world.source.flavor;
    let mut report = Report {
        name: format!("{} {}", flavor.name(), way.name),
        ..Report::default()
    };
    let mut seen = Vec::new();
    let load = Load::start(&world.source, &world.acknowledged, dice);
    let begun = Instant::now();
    let mut kept = None;
    if plan.opens > 0 {
        opens::open_many(world, way, plan.opens, &mut report, &mut seen);
    }
    for round in 1..=plan.dumps {
        if plan.within.is_some_and(|within| begun.elapsed() >= within) {
            break;
        }
        let typical = Duration::from_secs_f64(median(&report.seconds).max(0.2));
        if plan.kill_every > 0 && round % plan.kill_every == 0 {
            kill(world, way, typical, dice, &mut report);
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let changing = (plan.ddl_every > 0 && round % plan.ddl_every == 0).then(|| {
                let (mut dice, stop) = (dice.split(), &stop);
                scope.spawn(move || ddl::changes(&world.source, &mut dice, typical, stop))
            });
            if let Some(backup) = one(world, way, changing.is_some(), &mut report, &mut seen) {
                if plan.replay != Replay::No && kept.is_none() && round + 1 >= plan.dumps {
                    kept = Some((world_copy(&backup), seen.len() - 1));
                }
                // A second may hold one backup; with this one gone the next need not wait for the next second.
                std::fs::remove_file(&backup).expect("a backup to remove");
            }
            stop.store(true, Ordering::Relaxed);
            if let Some(changing) = changing {
                report.changes += u32::try_from(changing.join().expect("DDL").len()).expect("few");
            }
        });
    }
    report.per_second = load.stop();
    judge_positions(world, &seen, &mut report);
    if let Some((file, at)) = kept {
        replay_around(
            world,
            way,
            file.path(),
            &seen[at],
            plan.replay == Replay::WithProof,
            &mut report,
        );
    }
    report
}

/// A copy of the backup: the store's own is about to go.
fn world_copy(backup: &std::path::Path) -> tempfile::NamedTempFile {
    let copy = tempfile::NamedTempFile::new().expect("a file");
    std::fs::copy(backup, copy.path()).expect("a copy");
    copy
}

/// One run of the binary, judged but for its position. The backup's path, if there is one.
fn one(
    world: &World,
    way: &Way,
    changing: bool,
    report: &mut Report,
    seen: &mut Vec<Seen>,
) -> Option<std::path::PathBuf> {
    let before = newest(&world.acknowledged);
    let patience = if way.may_starve { STARVED } else { PATIENCE };
    let output = ended_within(way.planb.spawn(&["--json", "backup"]), patience);
    let after = newest(&world.acknowledged);
    if !output.status.success() {
        let said = text(&output);
        if way.may_starve {
            report.starved += 1;
        } else if changing && said.contains("changed") {
            report.gave_up += 1;
        } else {
            report.wrong.push(format!("a run failed: {said}"));
        }
        // Whatever it was, nothing may be seen of it.
        let visible = way.planb.visible();
        if !visible.is_empty() || !way.planb.leftovers().is_empty() {
            report
                .wrong
                .push(format!("a failed run left {visible:?}, {:?}", way.planb.leftovers()));
        }
        return None;
    }
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: serde_json::Value = serde_json::from_str(printed.lines().last().unwrap_or_default()).expect("JSON");
    let backup = way
        .planb
        .store()
        .join(format!("backups/{}.sql.gz", json["id"].as_str().expect("an id")));
    report.dumps += 1;
    report
        .seconds
        .push(json["duration_seconds"].as_f64().expect("a duration"));
    report
        .locked_millis
        .push(json["locked_seconds"].as_f64().expect("a time") * 1000.0);
    report.repeated += u32::from(json["attempts"].as_u64() != Some(1));
    let books = match audit(&unpack(&backup)) {
        Ok(books) => books,
        Err(wrong) => {
            report.wrong.push(format!("{}: {wrong}", backup.display()));
            return Some(backup);
        }
    };
    let summary = books.summary;
    note_way(way, summary.way, summary.sessions, &summary.position, report);
    for w in 0..books.newest.len() {
        let (n, oldest, latest) = (books.newest[w], before[w], after[w] + 1);
        let fresh = way.at_replica || n >= oldest;
        if !fresh || n > latest {
            report.wrong.push(format!(
                "writer {w} is at {n}, and was at {oldest} to {latest} while it was dumped"
            ));
        }
    }
    note_instant(world, way, summary.consistent_at, &books.newest, report);
    seen.push(Seen {
        position: summary.position,
        newest: books.newest,
    });
    Some(backup)
}

/// Promise 5: everything acknowledged before `consistent_at` is in the backup.
pub fn note_instant(world: &World, way: &Way, at: jiff::Timestamp, found: &[i64], report: &mut Report) {
    let missing = newest_at(&world.acknowledged, at)
        .iter()
        .zip(found)
        .any(|(there, n)| n < there);
    if !missing {
        return;
    }
    if way.at_replica {
        // By how much, in steps of 10 ms.
        let late = (1..=1000).map(|step| step * 10).find(|millis| {
            let earlier = at - jiff::SignedDuration::from_millis(*millis);
            newest_at(&world.acknowledged, earlier)
                .iter()
                .zip(found)
                .all(|(there, n)| n >= there)
        });
        report.too_late_millis = report.too_late_millis.max(late.unwrap_or(0));
        if late.is_none_or(|millis| millis > REPLICA_TOLERANCE_MILLIS) {
            report.wrong.push(format!(
                "consistent_at {at} is {late:?} ms later than the replica's data"
            ));
        }
    } else {
        report.wrong.push(format!("consistent_at {at} is later than the data"));
    }
}

/// Notes how it was done, and whether that is what was wished.
pub fn note_way(way: &Way, reached: Reached, sessions: u32, position: &Position, report: &mut Report) {
    let name = serde_json::to_value(reached).expect("a name");
    let name = name.as_str().expect("a name");
    *report.ways.entry(name.to_owned()).or_default() += 1;
    *report.sessions.entry(sessions).or_default() += 1;
    if name != way.way && Some(name) != way.else_way {
        report.wrong.push(format!("the way was {name}, not {}", way.way));
    }
    let right = match position {
        Position::None => way.known == Known::Nothing,
        Position::Exact { .. } => {
            report.exact += 1;
            matches!(way.known, Known::Exact | Known::Either)
        }
        Position::Range { .. } => {
            report.ranges += 1;
            matches!(way.known, Known::Range | Known::Either) || Some(name) == way.else_way
        }
    };
    if !right {
        report
            .wrong
            .push(format!("known was {position:?}, not {:?}", way.known));
    }
}

fn judge_positions(world: &World, seen: &[Seen], report: &mut Report) {
    if seen.iter().all(|seen| seen.position == Position::None) {
        return;
    }
    let log = Log::read(&world.source.data_dir());
    let written: i64 = newest(&world.acknowledged).iter().sum();
    assert_eq!(
        log.len() as u64,
        written.unsigned_abs(),
        "every acknowledged transfer is in the log, and no other"
    );
    for seen in seen {
        let verdict = match &seen.position {
            Position::None => continue,
            Position::Exact { file, position, .. } => {
                let at = (number_of(file), *position);
                log.nothing_after(at, &seen.newest)
                    .and_then(|()| log.nothing_missing(at, &seen.newest))
            }
            Position::Range { from, to } => log
                .nothing_missing((number_of(&from.file), from.position), &seen.newest)
                .and_then(|()| log.nothing_after((number_of(&to.file), to.position), &seen.newest)),
        };
        report.positions_checked += 1;
        if let Err(wrong) = verdict {
            report.wrong.push(format!("{:?}: {wrong}", seen.position));
        }
    }
}

/// The real thing: load, replay, compare; and that a transfer more or less would have shown.
fn replay_around(world: &World, way: &Way, backup: &std::path::Path, seen: &Seen, proof: bool, report: &mut Report) {
    let target = world.target();
    let mut expect = |what: &str, at, idempotent, same: bool| {
        let difference = replay::difference(&world.source, target, backup, at, idempotent);
        report.replays += 1;
        if difference.is_empty() != same {
            let head: String = difference.chars().take(600).collect();
            report.wrong.push(format!(
                "{}: replaying {what} {at:?}: {}",
                way.name,
                if same { &head } else { "no difference" }
            ));
        }
    };
    match &seen.position {
        Position::None => {}
        Position::Exact { file, position, .. } => {
            let at = (number_of(file), *position);
            expect("from", at, false, true);
            if !proof {
                return;
            }
            let (earlier, later) = Log::read(&world.source.data_dir()).around(at);
            expect("from a transfer before", earlier, false, false);
            expect("from a transfer after", later, false, false);
        }
        Position::Range { from, .. } => expect(
            "from the range's begin",
            (number_of(&from.file), from.position),
            true,
            true,
        ),
    }
}

/// SIGKILL at a random moment; afterwards nothing is to be seen, or a whole backup.
fn kill(world: &World, way: &Way, typical: Duration, dice: &mut Dice, report: &mut Report) {
    let mut child = way.planb.spawn(&["--json", "backup"]);
    // No synchronisation: the moment is meant to be any.
    std::thread::sleep(typical.mul_f64(f64::from(u32::try_from(dice.below(1000)).expect("small")) / 800.0));
    child.kill().expect("a kill");
    child.wait().expect("its end");
    report.kills += 1;
    for id in way.planb.visible() {
        report.killed_too_late += 1;
        let backup = way.planb.store().join(format!("backups/{id}.sql.gz"));
        if let Err(wrong) = audit(&unpack(&backup)) {
            report.wrong.push(format!("killed, and yet {id} is visible: {wrong}"));
        }
        std::fs::remove_file(backup).expect("a backup to remove");
    }
    // Blocks of the killed run stay for a week, as with Azure, and the lease for a minute. Neither is waited for.
    for staged in way.planb.leftovers() {
        // A block's directory, or a file that was about to get its name.
        let removed = if staged.is_dir() {
            std::fs::remove_dir_all(&staged)
        } else {
            std::fs::remove_file(&staged)
        };
        removed.expect("staged blocks to remove");
    }
    for lease in std::fs::read_dir(way.planb.store().join("control/lease"))
        .into_iter()
        .flatten()
        .flatten()
    {
        std::fs::remove_file(lease.path()).expect("a lease to remove");
    }
    if way.at_replica && !applier_runs(world.server(way)) {
        // The server itself starts it again within seconds.
        report.applier_left_stopped += 1;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !applier_runs(world.server(way)) {
            if Instant::now() > deadline {
                report
                    .wrong
                    .push("the applier stays stopped after a killed run".to_owned());
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn applier_runs(replica: &Server) -> bool {
    let state = match replica.flavor {
        Flavor::MySql => "SELECT service_state FROM performance_schema.replication_applier_status",
        Flavor::MariaDb => "SHOW STATUS LIKE 'Slave_running'",
    };
    replica.sql(state).contains("ON")
}

/// Waits for its end; SIGTERM when it takes longer.
fn ended_within(child: Child, patience: Duration) -> Output {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || tell.send(child.wait_with_output().expect("its end")));
        told.recv_timeout(patience).unwrap_or_else(|_| {
            // SAFETY: a plain system call; the process is our child and was not waited for.
            #[expect(unsafe_code, reason = "the standard library knows SIGKILL only")]
            unsafe {
                libc::kill(pid, libc::SIGTERM);
            }
            told.recv().expect("its end")
        })
    })
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 50)
}

fn quantile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(0.0)
}

/// All reports for people, and what was wrong.
pub fn table_of(reports: &[Report]) -> String {
    let mut out = String::new();
    let mut line = |cells: [String; 12]| {
        let widths = [34, 6, 6, 6, 12, 26, 11, 7, 19, 19, 7, 6];
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(out, "{cell:<width$} ");
        }
        out.push('\n');
    };
    line(
        [
            "way",
            "tps",
            "dumps",
            "opens",
            "sessions",
            "exact/range/judged",
            "kill/late",
            "ddl",
            "lock ms p50/99/max",
            "open ms p50/99/max",
            "s/dump",
            "wrong",
        ]
        .map(str::to_owned),
    );
    for r in reports {
        let three = |values: &[f64]| {
            format!(
                "{:.1}/{:.1}/{:.1}",
                median(values),
                quantile(values, 99),
                quantile(values, 100)
            )
        };
        line([
            r.name.clone(),
            format!("{:.0}", r.per_second),
            r.dumps.to_string(),
            r.opens.to_string(),
            r.sessions
                .iter()
                .map(|(n, times)| format!("{n}:{times}"))
                .collect::<Vec<_>>()
                .join(" "),
            format!("{}/{}/{}", r.exact, r.ranges, r.positions_checked),
            format!("{}/{}", r.kills, r.killed_too_late),
            r.changes.to_string(),
            three(&r.locked_millis),
            three(&r.open_millis),
            format!("{:.2}", median(&r.seconds)),
            r.wrong.len().to_string(),
        ]);
    }
    for r in reports {
        let _ = writeln!(
            out,
            "{}: {:?}, {} starved, {} gave up under DDL, {} repeated, applier left stopped {}, {} replays, consistent_at late by {} ms at most",
            r.name, r.ways, r.starved, r.gave_up, r.repeated, r.applier_left_stopped, r.replays, r.too_late_millis
        );
        for wrong in &r.wrong {
            let _ = writeln!(out, "  WRONG: {wrong:.900}");
        }
    }
    out
}
