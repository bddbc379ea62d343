//! `planb restore --tune`: server parameters are changed for the load, and are afterwards what they were, whatever happened in
//! between.

mod support;

use std::time::{Duration, Instant};

use support::restores::{arguments, bank, until_a_member_is_loaded};
use support::{Endpoint, Flavor, Planb, Server, reader, restorer};

/// Flushing of the redo log, and of the binary log.
fn parameters(server: &Endpoint) -> String {
    server
        .sql("SELECT CONCAT(@@GLOBAL.innodb_flush_log_at_trx_commit, ' ', @@GLOBAL.sync_binlog)")
        .trim()
        .to_owned()
}

fn kept(server: &Endpoint) -> String {
    server
        .sql("SELECT COUNT(*) FROM planb.tuned_parameters")
        .trim()
        .to_owned()
}

/// A restore with these arguments, killed once it loads rows.
fn killed(planb: &Planb, target: &Server, args: &[&str]) {
    let mut child = planb.spawn(args);
    until_a_member_is_loaded(target);
    child.kill().expect("killed");
    child.wait().expect("ended");
}

/// Until the server has noticed that the killed restore's sessions are gone.
fn patiently(planb: &Planb, args: &[&str]) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = planb.run(args);
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).expect("one object");
        }
        let said = support::planb::text(&output);
        assert!(
            said.contains("another restore is running") && Instant::now() < deadline,
            "{said}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn parameters_are_changed_for_the_load_and_what_they_were_afterwards() {
    for flavor in Flavor::ALL {
        let source = bank(flavor);
        let planb = Planb::new(&source, &reader(&source, &[]));
        planb.backup(&[]);
        let target = Server::start(flavor, &["--sync-binlog=1"]);
        target.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1");
        let to = restorer(&target);
        let plain = [&["--json"], arguments(&to).as_slice()].concat();
        let tuned = [plain.as_slice(), &["--tune"]].concat();
        let (before, during) = ("1 1", "2 0");
        assert_eq!(parameters(&target), before);
        // Told, and nothing done, where nobody asked.
        let plan = planb.json(&[plain.as_slice(), &["--plan"]].concat());
        assert!(plan["parameters"].to_string().contains("sync_binlog is 1"), "{plan}");

        let child = planb.spawn(&tuned);
        until_a_member_is_loaded(&target);
        assert_eq!(
            (parameters(&target).as_str(), kept(&target).as_str()),
            (during, "2"),
            "{flavor:?}"
        );
        let output = child.wait_with_output().expect("ended");
        assert!(output.status.success(), "{}", support::planb::text(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("sync_binlog: 1 became 0") && said.contains("sync_binlog is 1 again"),
            "{said}"
        );
        assert_eq!((parameters(&target).as_str(), kept(&target).as_str()), (before, "0"));

        // Killed, it leaves them changed; the next restore sets them back, tuned or not.
        for again in [&plain, &tuned] {
            target.sql("DROP DATABASE bank; DELETE FROM planb.restored_members; DELETE FROM planb.restores");
            killed(&planb, &target, &tuned);
            assert_eq!((parameters(&target).as_str(), kept(&target).as_str()), (during, "2"));
            assert_eq!(patiently(&planb, again)["resumed"], true);
            assert_eq!((parameters(&target).as_str(), kept(&target).as_str()), (before, "0"));
        }

        // Or whoever asks for just that. What somebody has changed since is theirs.
        target.sql("DROP DATABASE bank; DELETE FROM planb.restored_members; DELETE FROM planb.restores");
        killed(&planb, &target, &tuned);
        target.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 0");
        let untune = [plain.as_slice(), &["--untune"]].concat();
        let json = patiently(&planb, &untune);
        assert_eq!(json["set_back"].as_array().map(Vec::len), Some(1), "{json}");
        assert_eq!((parameters(&target).as_str(), kept(&target).as_str()), ("0 1", "0"));
        assert_eq!(patiently(&planb, &untune)["set_back"], serde_json::json!([]));
    }
}

#[test]
fn an_account_that_may_not_says_so_and_restores_all_the_same() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1)");
    let planb = Planb::new(&source, &reader(&source, &[]));
    planb.backup(&[]);
    let target = Server::start(Flavor::MySql, &[]);
    target.sql("SET GLOBAL innodb_flush_log_at_trx_commit = 1, GLOBAL sync_binlog = 1");
    let to = restorer(&target);
    target.sql("REVOKE SUPER, SYSTEM_VARIABLES_ADMIN ON *.* FROM restorer@'%'");
    let json = planb.json(&[&["--json"], arguments(&to).as_slice(), &["--tune"]].concat());
    let told = json["parameters"].to_string();
    assert!(told.contains("this account may not") && json["rows"] == 1, "{json}");
    assert_eq!(parameters(&target), "1 1");
}
