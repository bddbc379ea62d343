//! Who may act, with real processes: of two operators started together one does, whoever was suspended and woken does nothing more, and a journal
//! that was torn or altered is refused, with what to do.

mod support;

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use support::Flavor;
use support::planb::text;
use support::sites::{Lab, script};

const ACCEPTED: [&str; 4] = ["--accept", "backup-unproven=t", "--accept", "primary-healthy=t"];
const PATIENCE: Duration = Duration::from_secs(120);

fn failover(stage: &str) -> Vec<&str> {
    [&["failover", "--stage", stage, "--yes"], &ACCEPTED[..]].concat()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

/// The entries of the journal, oldest first.
fn journal(lab: &Lab) -> Vec<PathBuf> {
    files(&lab.planb.store().join("control/journal"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .collect()
}

fn signal(child: &Child, name: &str) {
    let sent = std::process::Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", child.id())])
        .status();
    assert!(sent.expect("sh").success(), "{name} could not be sent");
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_there() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn of_two_operators_started_together_one_acts() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let both = [lab.planb.spawn(&failover("2")), lab.planb.spawn(&failover("2"))];
    let told: Vec<String> = both
        .map(|child| text(&child.wait_with_output().expect("ended")))
        .into_iter()
        .collect();
    let did = told.iter().filter(|told| told.starts_with("exit Some(0)")).count();
    let refused: Vec<&String> = told.iter().filter(|told| told.starts_with("exit Some(3)")).collect();
    assert_eq!((did, refused.len()), (1, 1), "{told:?}");
    assert_eq!(lab.made(), 1, "Terraform made it once");
    let opened = journal(&lab)
        .iter()
        .filter(|path| path.ends_with("000001.json"))
        .count();
    assert_eq!(opened, 1, "one operation");
    // Whoever came too late is told of whom, and what shows it.
    let named = ["somebody else", "holds lease/operator", "unfinished-operation"];
    assert!(named.iter().any(|words| refused[0].contains(words)), "{}", refused[0]);
}

/// Suspended in the middle of a step until its lease is another one's, as a laptop that was closed; then woken.
#[test]
fn whoever_was_suspended_and_woken_does_nothing_more() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let dir = lab.planb.path().display().to_string();
    script(
        lab.planb.path().join("cluster"),
        &format!(
            "case $1 in up) touch {dir}/begun; while ! test -e {dir}/go; do sleep 0.05; done; touch {dir}/is-up ;; \
             is-up) test -e {dir}/is-up ;; down) rm -f {dir}/is-up ;; esac"
        ),
    );
    let first = lab.planb.spawn(&failover("3"));
    wait_for("the cluster is never begun", || Path::new(&dir).join("begun").exists());
    signal(&first, "STOP");
    // As if the time had passed in which whoever vanished still has the lease.
    for lease in files(&lab.planb.store().join("control/lease")) {
        std::fs::remove_file(lease).expect("removed");
    }
    std::fs::write(lab.planb.path().join("go"), "").expect("a file");
    let resume = [
        "--json",
        "failover",
        "--resume",
        "--accept",
        "still-at-work=its machine sleeps",
    ];
    let done = lab.planb.json(&resume);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(lab.traffic(), "standby");
    std::fs::remove_file(lab.planb.path().join("traffic-to")).expect("removed");
    let written = journal(&lab);
    signal(&first, "CONT");
    let told = text(&first.wait_with_output().expect("ended"));
    // It learns of the lease first, or of the end that somebody else has brought it to.
    let is_lost = told.starts_with("exit Some(4)")
        && (told.contains("the lease was lost") || told.contains("somebody else goes on"));
    let is_over = told.starts_with("exit Some(0)") && told.contains("done: the standby serves");
    assert!(is_lost || is_over, "{told}");
    assert_eq!(journal(&lab), written, "it wrote something after that: {told}");
    assert_eq!(lab.traffic(), "", "it moved traffic after that: {told}");
    let status = lab.status();
    assert_eq!(
        (&status["standing"]["serving"], &status["standing"]["epoch"]),
        (&"standby".into(), &1.into()),
        "{status}"
    );
    assert_eq!(lab.made(), 1);
}

#[test]
fn a_torn_or_altered_entry_is_refused_with_what_to_do() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    script(
        lab.planb.path().join("cluster"),
        "case $1 in is-up) exit 1 ;; esac; exit 9",
    );
    lab.planb.fails(4, &failover("3"));
    let entries = journal(&lab);
    assert!(entries.len() > 5, "{entries:?}");
    let damaged = &entries[entries.len() - 3];
    let whole = std::fs::read(damaged).expect("an entry");
    let at = whole.len() / 2;
    let mut altered = whole.clone();
    altered[at] ^= 1;
    for broken in [&whole[..at], &altered] {
        std::fs::write(damaged, broken).expect("written");
        for args in [
            &["failover", "--resume"][..],
            &["failover", "--abandon"],
            &failover("2"),
        ] {
            let told = lab.planb.fails(3, args);
            for part in [
                "the journal is damaged",
                "--accept journal-damaged=REASON",
                "the primary serves",
            ] {
                assert!(told.contains(part), "{args:?}: {told}");
            }
        }
        let status = lab.planb.run(&["status"]);
        assert!(text(&status).contains("damaged"), "{}", text(&status));
        assert_eq!(journal(&lab), entries, "nothing was written");
    }
    // Whole again, it goes on where it was.
    std::fs::write(damaged, &whole).expect("written");
    assert!(lab.planb.fails(4, &["failover", "--resume"]).contains("ended with 9"));
    // Somebody answers for it: a new one is begun, and the old one kept as it is.
    let entries = journal(&lab);
    let last = entries.last().expect("entries");
    std::fs::write(last, b"{").expect("written");
    let done = lab.unproven(&[
        "--stage",
        "2",
        "--accept",
        "primary-healthy=t",
        "--accept",
        "journal-damaged=a bad disk",
    ]);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(std::fs::read(last).expect("kept"), b"{");
    assert!(
        lab.planb.ok(&["history"]).contains("a bad disk"),
        "who answered, and why"
    );
}
