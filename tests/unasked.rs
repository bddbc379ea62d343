//! That nobody could look is not taken for the primary's being gone: neither before a failover, nor for its last backup.

mod support;

use support::Flavor;
use support::sites::Lab;

const KNOWN: &str = "password = \"env:PLANB_SOURCE_PASSWORD\"";

/// The section's password is where nobody can have it from, as a secret in a cloud that is away.
fn forget(lab: &Lab, section: &str) {
    let path = lab.planb.path().join("planb.toml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    let at = text.find(&format!("[{section}]")).expect("the section");
    let (before, from) = text.split_at(at);
    let forgotten = from.replacen(KNOWN, "password = \"env:NOBODY_HAS_THIS\"", 1);
    assert_ne!(from, forgotten);
    std::fs::write(&path, format!("{before}{forgotten}")).expect("written");
}

#[test]
fn a_primary_that_could_not_be_looked_at_is_not_gone() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    lab.primary
        .sql("INSERT INTO bank.log (what) VALUES ('after the backup')");
    forget(&lab, "source");

    // Who fences it can ask it.
    let refused = lab.planb.fails(3, &["failover", "--stage", "3", "--yes"]);
    assert!(
        refused.contains("primary-healthy") && refused.contains("answers"),
        "{refused}"
    );
    // And its last minutes are taken along, by whoever can.
    let done = lab.unproven(&["--stage", "3", "--accept", "primary-healthy=every query hangs"]);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(
        lab.standby.sql("SELECT what FROM bank.log").trim(),
        "after the backup",
        "it answered, so nothing of it is lost"
    );
}

#[test]
fn a_primary_that_nobody_can_ask_needs_an_answer() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    forget(&lab, "primary");
    forget(&lab, "source");
    let refused = lab.planb.fails(3, &["failover", "--stage", "2", "--yes"]);
    assert!(
        refused.contains("primary-healthy")
            && refused.contains("could not be asked")
            && refused.contains("NOBODY_HAS_THIS"),
        "{refused}"
    );
}
