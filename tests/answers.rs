//! What scripts get: one JSON object on stdout, whatever happened, and an exit code that says it too.

mod support;

use jiff::SignedDuration;
use serde_json::Value;
use support::planb::text;
use support::{Flavor, Planb, Server, old_backup, reader};

/// All that was printed must be one object.
fn one_object(planb: &Planb, exit: i32, args: &[&str]) -> Value {
    let output = planb.run(args);
    assert_eq!(output.status.code(), Some(exit), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output)))
}

#[test]
fn a_doctor_who_finds_errors_prints_one_object() {
    let source = Server::start(Flavor::MySql, &[]);
    source.sql("CREATE DATABASE bank");
    let planb = Planb::new(&source, &reader(&source, &[]));
    let json = one_object(&planb, 1, &["--json", "doctor"]);
    let findings = json["findings"].as_array().expect("a list");
    assert!(findings.iter().any(|finding| finding["severity"] == "error"), "{json}");
    let json = one_object(&planb, 2, &["--json", "backup", "--accept", "nothing"]);
    assert_eq!(json["error"]["exit"], 2, "{json}");
}

#[tokio::test]
async fn what_a_safety_rule_keeps_is_refused_and_not_done() {
    let planb = Planb::empty();
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n\
         [source]\nhost = \"127.0.0.1\"\nuser = \"nobody\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n\
         [retention]\nkeep_all = \"1h\"\nkeep_hourly = \"2h\"\nkeep_days = 2\nkeep_at_least = 6",
        planb.store().display()
    ));
    for days in 40..46 {
        old_backup(&planb.store(), SignedDuration::from_hours(24 * days)).await;
    }
    // The RPO is breached, but there is nothing that would otherwise go.
    let json = one_object(&planb, 0, &["--json", "prune"]);
    assert_eq!(
        (json["removed"].as_u64(), &json["refused"]),
        (Some(0), &Value::Null),
        "{json}"
    );
    planb.reconfigure("keep_at_least = 6", "keep_at_least = 5");
    let json = one_object(&planb, 3, &["--json", "prune"]);
    let refused = json["refused"].as_str().expect("a reason");
    assert!(
        refused.starts_with("1 backups") && refused.contains("the RPO is breached"),
        "{json}"
    );
    assert_eq!(json["removed"], 0, "{json}");
    assert!(planb.fails(3, &["prune"]).contains("the RPO is breached"));
    // Asking what would be done refuses nothing.
    planb.ok(&["prune", "--dry-run"]);
    assert_eq!(planb.visible().len(), 6);
    // With a new backup the breach is over.
    planb.reconfigure("keep_at_least = 5", "keep_at_least = 6");
    old_backup(&planb.store(), SignedDuration::ZERO).await;
    assert_eq!(one_object(&planb, 0, &["--json", "prune"])["removed"], 1);
    assert_eq!(planb.visible().len(), 6);
}
