//! Snapshots opened inside the test, as the dump opens them but without a dump behind: thousands instead of hundreds.
//! Every transfer writes `writers`, so each session's view of that one small table tells which instant it sees.

use std::time::Instant;

use planb::clock::SystemClock;
use planb::dump::{self, snapshot};

use super::rounds::{Report, Seen, note_instant, note_way};
use super::{Way, World};

pub fn open_many(world: &World, way: &Way, count: u32, report: &mut Report, seen: &mut Vec<Seen>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = way.config();
        let address = way.address(world.server(way));
        let facts = dump::survey(&address, &config.source).await.expect("a survey");
        let tables = ["a", "b", "c", "writers", "ledger", "scratch"].map(|table| ("bank".to_owned(), table.to_owned()));
        let wish = snapshot::Wish {
            sessions: config.backup.sessions,
            lock: config.backup.lock,
            lock_wait: config.backup.lock_wait,
            pause_replica: config.source.pause_replica,
            binlog_complete: facts.binlog_complete,
            tables: tables
                .into_iter()
                .chain([("bank2".to_owned(), "d".to_owned())])
                .collect(),
        };
        for _ in 0..count {
            let begun = Instant::now();
            let opened = snapshot::open(&address, &facts.dialect, &facts.grants, &wish, &SystemClock).await;
            let mut snapshot = match opened {
                Ok(snapshot) => snapshot,
                Err(_) if way.may_starve => {
                    report.starved += 1;
                    continue;
                }
                Err(error) => {
                    report.wrong.push(format!("no snapshot: {error}"));
                    continue;
                }
            };
            report.opens += 1;
            report.open_millis.push(begun.elapsed().as_secs_f64() * 1000.0);
            report.locked_millis.push(snapshot.locked.as_secs_f64() * 1000.0);
            let mut views = Vec::new();
            for session in &mut snapshot.sessions {
                let rows = session
                    .text("SELECT n FROM bank.writers ORDER BY w")
                    .await
                    .expect("the writers");
                let view: Vec<i64> = rows.iter().map(|row| row[0].parse().expect("a number")).collect();
                views.push(view);
            }
            if views.iter().any(|view| *view != views[0]) {
                report
                    .wrong
                    .push(format!("sessions of one snapshot ({:?}) see {views:?}", snapshot.way));
            }
            let sessions = u32::try_from(snapshot.sessions.len()).expect("few");
            note_way(way, snapshot.way, sessions, &snapshot.position, report);
            // An applier that was started a moment ago tells no lag, whatever waits for it: nothing to learn here,
            // between two pauses. The dumps are judged.
            if !way.at_replica {
                note_instant(world, way, snapshot.consistent_at, &views[0], report);
            }
            seen.push(Seen {
                position: snapshot.position,
                newest: views.swap_remove(0),
            });
            for session in snapshot.sessions {
                session.close().await;
            }
        }
    });
}
