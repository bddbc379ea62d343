//! The unit file, judged by systemd itself, and the installer, run into a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use planb::agent::state::GRACE;

/// No more exposed than this, on systemd's scale of ten.
const MOST_EXPOSED: f64 = 2.0;

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The agent's, and the one of a watcher of the primary.
const UNITS: [&str; 2] = ["planb.service", "planb-watch@.service"];

fn unit(name: &str) -> String {
    fs::read_to_string(project().join("systemd").join(name)).expect("the unit file")
}

/// All values of each setting.
fn settings(unit: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in unit
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
    {
        all.entry(name).or_default().push(value);
    }
    all
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .env("SYSTEMD_COLORS", "0")
        .output()
        .expect("systemd-analyze has to be installed (Debian: apt-get install systemd); scripts/test does it")
}

/// An installation under a temporary root, of a binary that only has to be there.
struct Installed {
    root: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        fs::write(root.path().join("built"), "#!/bin/sh\n").expect("written");
        Self { root }
    }

    fn install(&self, more: &[&str]) -> Output {
        let (binary, root) = (self.root.path().join("built"), self.at(""));
        let mut command = Command::new(project().join("scripts/install"));
        command
            .arg("--binary")
            .arg(binary)
            .arg("--root")
            .arg(root)
            .args(more)
            .output()
            .expect("it starts")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join("root").join(path)
    }

    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir)
                .expect("a directory")
                .map(|e| e.expect("an entry").path())
            {
                if entry.is_dir() {
                    walk(&entry, found)
                } else {
                    found.push(entry.display().to_string())
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.at(""), &mut found);
        found.sort();
        found
    }

    /// The installed unit with a program that exists on this machine, as verify demands.
    fn unit_for_analysis(&self, name: &str) -> PathBuf {
        let program = self.at("usr/local/bin/planb").display().to_string();
        let installed = fs::read_to_string(self.at("etc/systemd/system").join(name)).expect("the installed unit");
        let copy = self.root.path().join(name.replace('@', "@tokyo"));
        fs::write(&copy, installed.replace("/usr/local/bin/planb", &program)).expect("written");
        copy
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let installed = Installed::new();
    let done = installed.install(&[]);
    assert!(done.status.success(), "{}", text(&done));
    // The manual page is generated; whether it is on this machine is no property of the unit.
    for name in UNITS {
        let verified = analyze(&["verify", "--man=no"], &installed.unit_for_analysis(name));
        assert!(
            verified.status.success() && text(&verified).trim().is_empty(),
            "{name}: {}",
            text(&verified)
        );
    }
}

#[test]
fn the_unit_is_barely_exposed() {
    let installed = Installed::new();
    assert!(installed.install(&[]).status.success());
    for name in UNITS {
        let judged = analyze(
            &["security", "--offline=true", "--no-pager"],
            &installed.unit_for_analysis(name),
        );
        let report = text(&judged);
        let level = report
            .rsplit_once(".service: ")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
        assert!(level.is_some_and(|level| level <= MOST_EXPOSED), "{name}: {report}");
    }
}

#[test]
fn the_units_times_fit_the_agents() {
    let unit = unit("planb.service");
    let all = settings(&unit);
    let seconds = |name: &str| -> u64 { all[name][0].trim_end_matches('s').parse().expect("seconds") };
    assert!(
        Duration::from_secs(seconds("TimeoutStopSec")) >= GRACE + Duration::from_secs(15),
        "time to end by itself"
    );
    assert_eq!(all["ExecReload"], ["/bin/kill -HUP $MAINPID"]);
    assert_eq!((all["Type"][0], all["NotifyAccess"][0]), ("notify", "main"));
    assert!(seconds("WatchdogSec") >= 30);
    let secret = unit
        .lines()
        .filter(|line| !line.starts_with('#'))
        .any(|line| line.to_lowercase().contains("password"));
    assert!(!secret, "a unit file is readable for everyone");
}

#[test]
fn installing_again_changes_nothing_and_never_the_configuration() {
    let installed = Installed::new();
    assert!(installed.install(&[]).status.success());
    let config = installed.at("etc/planb/planb.toml");
    fs::write(&config, "mine").expect("written");
    let before = installed.files();
    let again = installed.install(&[]);
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(installed.files(), before, "no temporary file stays");
    assert_eq!(fs::read_to_string(&config).expect("there"), "mine");
    assert_eq!(mode(&installed.at("usr/local/bin/planb")), 0o755);
    assert_eq!(mode(&installed.at("etc/planb")), 0o750);
    assert_eq!(mode(&installed.at("etc/planb/credentials")), 0o700);
    for name in UNITS {
        let there = fs::read_to_string(installed.at("etc/systemd/system").join(name)).expect("there");
        assert_eq!(there, unit(name));
    }
}

#[test]
fn uninstalling_leaves_only_the_configuration() {
    let installed = Installed::new();
    assert!(installed.install(&[]).status.success());
    fs::write(installed.at("etc/planb/planb.toml"), "mine").expect("written");
    for _ in 0..2 {
        let gone = installed.install(&["--uninstall"]);
        assert!(gone.status.success(), "{}", text(&gone));
        assert_eq!(
            installed.files(),
            [installed.at("etc/planb/planb.toml").display().to_string()]
        );
    }
}

#[test]
fn another_prefix_is_written_into_the_unit() {
    let installed = Installed::new();
    assert!(installed.install(&["--prefix", "/opt/planb"]).status.success());
    assert!(installed.at("opt/planb/bin/planb").is_file());
    for (name, does) in UNITS.into_iter().zip(["agent", "watch --name %i"]) {
        let unit = fs::read_to_string(installed.at("etc/systemd/system").join(name)).expect("there");
        assert_eq!(settings(&unit)["ExecStart"], [format!("/opt/planb/bin/planb {does}")]);
    }
}

#[test]
fn the_installer_refuses_what_it_does_not_understand() {
    let installed = Installed::new();
    for wrong in [&["--prefxi", "/opt"][..], &["--prefix"], &["--prefix", "opt"]] {
        assert_eq!(installed.install(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let nothing_built = installed.install(&["--binary", "/nonexistent/planb"]);
    assert_eq!(nothing_built.status.code(), Some(1));
    assert!(text(&nothing_built).contains("cargo build --release"));
}
