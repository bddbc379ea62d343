//! The agent's routine proof: the newest good backup restored on a real scratch server, compared, written down and thrown
//! away, while backups go on.

mod daemon;
mod support;

use std::time::{Duration, Instant};

use daemon::Daemon;
use serde_json::Value;
use support::{Flavor, PASSWORD, Planb, Server, reader, restorer};

const SOON: Duration = Duration::from_secs(90);
const PROVEN: &str = "backup proven: restored and compared";
const BEGUN: &str = "restoring the newest good backup on the scratch server, to prove it";
const FAILED: &str = "BACKUP NOT PROVEN: it could not be restored on the scratch server";

/// A source with `rows` rows of one KiB, an agent that backs it up every two seconds, and proves it on `scratch`.
fn proving(flavor: Flavor, rows: u32, proofs: &str) -> (Planb, Server, Server) {
    let source = Server::start(flavor, &[]);
    let depth = match flavor {
        Flavor::MySql => "cte_max_recursion_depth",
        Flavor::MariaDb => "max_recursive_iterations",
    };
    source.sql(&format!(
        "CREATE DATABASE bank;
         CREATE TABLE bank.entries (id INT PRIMARY KEY, text TEXT NOT NULL);
         SET SESSION {depth} = 1000000;
         INSERT INTO bank.entries
           WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
           SELECT i, REPEAT(SHA2(i, 512), 8) FROM n;
         CREATE VIEW bank.newest AS SELECT MAX(id) AS id FROM bank.entries;"
    ));
    let planb = Planb::new(&source, &reader(&source, &[]));
    let scratch = Server::start(flavor, &[]);
    let to = restorer(&scratch);
    planb.configure(&format!(
        "[targets]\nrpo = \"1h\"\n[backup]\nschedule = \"*/2 * * * * *\"\nverify_source = \"never\"\n\
         [verify]\nstructure = false\nrestore_to = \"{to}\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
         restore_schedule = \"{proofs}\""
    ));
    (planb, source, scratch)
}

fn is_clean(scratch: &Server) -> bool {
    let left = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'bank'";
    scratch.sql(left).trim() == "0" && scratch.sql("SELECT COUNT(*) FROM planb.restores").trim() == "0"
}

fn no_secret_in(heard: &daemon::Heard) {
    assert!(!heard.told().contains(PASSWORD), "a secret was told");
}

fn proven_again_and_again(flavor: Flavor) {
    let (planb, _source, mut scratch) = proving(flavor, 3_000, "*/3 * * * * *");
    let mut agent = Daemon::start(&planb);
    let told = agent.wait_log(PROVEN, 2, SOON);
    let server = told[0]["server"].as_str().unwrap_or_default().to_owned();
    assert!(server.starts_with(match flavor {
        Flavor::MySql => "MySQL ",
        Flavor::MariaDb => "MariaDB ",
    }));
    assert_eq!((&told[0]["rows"], &told[0]["tables"]), (&3_000.into(), &1.into()));
    assert!(!agent.heard().status().contains("PROOF FAILED"));

    // Away, it is told, and backups go on; back, it is proven again.
    scratch.stop();
    let committed = agent.heard().committed().len();
    let failed = agent.wait_log(FAILED, 1, SOON);
    assert!(
        failed[0]["error"]
            .as_str()
            .is_some_and(|why| why.contains("cannot reach")),
        "{failed:?}"
    );
    let status = agent.wait("a status with the failure", SOON, |heard| {
        Some(heard.status()).filter(|status| status.contains("THE LAST PROOF FAILED"))
    });
    assert!(
        status.starts_with("RPO ") && status.contains("cannot reach"),
        "{status}"
    );
    agent.wait("more backups", SOON, |heard| {
        (heard.committed().len() >= committed + 2).then_some(())
    });
    scratch.restart(&[]);
    let before = agent.heard().logged(PROVEN).len();
    agent.wait_log(PROVEN, before + 1, SOON);
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(20));
    no_secret_in(&ended.heard);

    let status = planb.json(&["--json", "status"]);
    let proven = status["newest_proven"].as_str().expect("one is proven").to_owned();
    assert!(
        ended
            .heard
            .logged(PROVEN)
            .iter()
            .any(|line| line["id"] == proven.as_str()),
        "{status}"
    );
    // One after the other: each was begun once, and ended before the next.
    let lines: Vec<Value> = [BEGUN, PROVEN, FAILED]
        .iter()
        .flat_map(|message| ended.heard.logged(message))
        .collect();
    let mut order: Vec<(&str, bool)> = lines
        .iter()
        .map(|line| (line["timestamp"].as_str().expect("a time"), line["message"] == BEGUN))
        .collect();
    order.sort_unstable();
    assert!(order.windows(2).all(|pair| !(pair[0].1 && pair[1].1)), "{order:?}");
}

#[test]
fn a_mysql_is_proven_again_and_again_beside_its_backups() {
    proven_again_and_again(Flavor::MySql);
}

#[test]
fn a_mariadb_is_proven_again_and_again_beside_its_backups() {
    proven_again_and_again(Flavor::MariaDb);
}

/// Until the scratch server holds rows of a trial.
fn until_loading(agent: &mut Daemon, scratch: &Server) {
    agent.wait("a member on the scratch server", SOON, |_| {
        scratch
            .try_sql("SELECT COUNT(*) FROM planb.restored_members")
            .ok()
            .filter(|count| count.trim() != "0")
    });
}

#[test]
fn backups_go_on_beside_a_proof_and_a_stop_ends_both_cleanly() {
    let (planb, _source, scratch) = proving(Flavor::MySql, 60_000, "*/5 * * * * *");
    let mut agent = Daemon::start(&planb);
    until_loading(&mut agent, &scratch);
    let committed = agent.heard().committed().len();
    // Nobody waits: the next backup lands while the proof is at it, or the proof is over already.
    agent.wait("the next backup", SOON, |heard| {
        (heard.committed().len() > committed).then_some(())
    });
    agent.wait_log(PROVEN, 1, SOON);
    scratch.sql("DELETE FROM planb.restored_members");
    until_loading(&mut agent, &scratch);
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(20));
    let left = ended
        .heard
        .logged("what the trial left on the scratch server goes with the next restore there");
    assert!(!left.is_empty() || is_clean(&scratch), "{}", ended.heard.told());
    assert_eq!(planb.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_restore_that_is_meant_goes_before_a_proof() {
    let (planb, _source, scratch) = proving(Flavor::MySql, 60_000, "*/5 * * * * *");
    let to = format!("mysql://restorer@127.0.0.1:{}", scratch.port);
    let restore = [
        "--json",
        "restore",
        "--verify",
        "--to",
        &to,
        "--password",
        "env:PLANB_SOURCE_PASSWORD",
        "--tls",
        "off",
    ];
    let mut agent = Daemon::start(&planb);
    until_loading(&mut agent, &scratch);
    // In the middle of a proof: the proof ends, and leaves nothing in the way.
    let begun = Instant::now();
    let json = planb.json(&restore);
    println!("a restore in the middle of a proof took {:?}", begun.elapsed());
    assert_eq!(json["verified"]["rows"], 60_000, "{json}");
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(25));
    // What was restored stays, whatever the agent tried afterwards.
    assert_eq!(scratch.sql("SELECT COUNT(*) FROM bank.entries").trim(), "60000");

    // A proof that was killed is in nobody's way either.
    scratch.sql("DROP DATABASE bank; DROP DATABASE planb");
    let mut agent = Daemon::start(&planb);
    until_loading(&mut agent, &scratch);
    drop(agent);
    let json = planb.json(&restore);
    assert_eq!(json["verified"]["rows"], 60_000, "{json}");
}
