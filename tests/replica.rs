//! A replica whose applier is paused for the snapshot: it runs again whatever becomes of PlanB.

mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::planb::text;
use support::{Flavor, PASSWORD, Planb, Server, reader};

const PATIENCE: Duration = Duration::from_secs(60);

fn source(flavor: Flavor, args: &[&str]) -> Server {
    let source = Server::start(flavor, args);
    source.sql(&format!(
        "SET sql_log_bin = 0; CREATE USER repl@'%' IDENTIFIED BY '{PASSWORD}'; GRANT REPLICATION SLAVE ON *.* TO repl@'%';"
    ));
    source
}

/// Has `replica` follow `source`, on a channel of that name.
fn follow(replica: &Server, source: &Server, channel: &str) {
    let port = source.port;
    replica.sql(&match replica.flavor {
        Flavor::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
             SOURCE_PASSWORD='{PASSWORD}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1 FOR CHANNEL '{channel}'; \
             START REPLICA FOR CHANNEL '{channel}';"
        ),
        Flavor::MariaDb => format!(
            "CHANGE MASTER '{channel}' TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
             MASTER_PASSWORD='{PASSWORD}', MASTER_USE_GTID=slave_pos; START SLAVE '{channel}';"
        ),
    });
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn applier_runs(replica: &Server) -> bool {
    let state = match replica.flavor {
        Flavor::MySql => "SELECT service_state FROM performance_schema.replication_applier_status",
        Flavor::MariaDb => "SHOW STATUS LIKE 'Slave_running'",
    };
    replica.sql(state).contains("ON")
}

/// PlanB for a replica whose applier it may pause.
fn pausing(replica: &Server) -> Planb {
    let privilege = match replica.flavor {
        Flavor::MySql => "REPLICATION_SLAVE_ADMIN",
        Flavor::MariaDb => "REPLICATION SLAVE ADMIN",
    };
    let planb = Planb::new(replica, &reader(replica, &[privilege]));
    planb.reconfigure("tls = \"off\"", "tls = \"off\"\npause_replica = true");
    planb
}

fn rows(replica: &Server) -> String {
    replica.try_sql("SELECT COUNT(*) FROM bank.t").unwrap_or_default()
}

/// Somebody's global read lock, under which an applier neither applies nor stops.
fn freeze(replica: &Server) -> Child {
    let holder = replica
        .client()
        .args(["-e", "FLUSH TABLES WITH READ LOCK; SELECT 'planb-test', SLEEP(100)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client runs");
    until("the lock is held", || !frozen(replica).is_empty());
    holder
}

fn frozen(replica: &Server) -> String {
    replica.sql(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT ''planb-test%' AND ID <> CONNECTION_ID()",
    )
}

fn stopping(replica: &Server) -> bool {
    let seen = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'reader' AND INFO LIKE 'STOP%'";
    replica.sql(seen).trim() != "0"
}

fn ended_in_between(flavor: Flavor) {
    let source = source(flavor, &[]);
    source.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1)");
    let replica = Server::start(flavor, &["--server-id=2"]);
    follow(&replica, &source, "");
    until("the replica has caught up", || rows(&replica).trim() == "1");
    let planb = pausing(&replica);
    for (row, name) in [(2, "KILL"), (3, "TERM")] {
        let mut holder = freeze(&replica);
        // Its applier waits in the midst of this, and cannot stop before the lock is gone.
        source.sql(&format!("INSERT INTO bank.t VALUES ({row})"));
        std::thread::sleep(Duration::from_millis(500));
        let mut child = planb.spawn(&["backup"]);
        until("the applier is being stopped", || stopping(&replica));
        let signalled = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", child.id())])
            .status()
            .expect("sh runs");
        assert!(signalled.success() && !child.wait().expect("a child").success());
        replica.sql(&format!("KILL {}", frozen(&replica).trim()));
        holder.wait().expect("the client ends");
        until("the applier stands still", || !applier_runs(&replica));
        let begun = Instant::now();
        until("the applier runs again", || applier_runs(&replica));
        println!("{name}: the applier ran again after {:?}", begun.elapsed());
        until("the replica has caught up", || rows(&replica).trim() == row.to_string());
        // The lease of one that was killed lasts a minute.
        let _ = std::fs::remove_dir_all(planb.store().join("control/lease"));
    }
    let json = planb.json(&["--json", "backup", "--verify-source"]);
    assert_eq!(
        (json["way"].as_str(), json["rows"].as_u64(), json["attempts"].as_u64()),
        (Some("paused-replica"), Some(3), Some(1)),
        "{json}"
    );
    assert!(json["locked_seconds"].as_f64() < Some(2.0), "{json}");
    assert!(applier_runs(&replica));
    // Nobody starts it behind our back, now that somebody stops it on purpose.
    replica.sql(match flavor {
        Flavor::MySql => "STOP REPLICA SQL_THREAD",
        Flavor::MariaDb => "STOP ALL SLAVES SQL_THREAD",
    });
    std::thread::sleep(Duration::from_secs(6));
    assert!(!applier_runs(&replica));
    let refused = planb.fails(1, &["backup"]);
    assert!(refused.contains("no applier is running"), "{refused}");
}

#[test]
fn a_mysql_replica_never_stays_paused() {
    ended_in_between(Flavor::MySql);
}

#[test]
fn a_mariadb_replica_never_stays_paused() {
    ended_in_between(Flavor::MariaDb);
}

#[test]
fn a_replica_of_two_sources_is_not_paused() {
    for flavor in Flavor::ALL {
        let replica = Server::start(flavor, &["--server-id=3"]);
        let domain: &[&str] = if flavor == Flavor::MariaDb {
            &["--gtid-domain-id=2"]
        } else {
            &[]
        };
        let sources = [
            source(flavor, &[]),
            source(flavor, &[&["--server-id=2"], domain].concat()),
        ];
        for (channel, source) in ["one", "two"].into_iter().zip(&sources) {
            source.sql(&format!("CREATE DATABASE {channel}"));
            follow(&replica, source, channel);
        }
        until("both are there", || {
            replica.rows("SHOW DATABASES WHERE `Database` IN ('one', 'two')").len() == 2
        });
        let planb = pausing(&replica);
        let output = planb.run(&["backup"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(
            text(&output).contains("replicates from several servers"),
            "{}",
            text(&output)
        );
        // Without it, as any other.
        planb.reconfigure("pause_replica = true", "");
        planb.backup(&[]);
    }
}
