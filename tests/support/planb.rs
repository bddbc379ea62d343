//! The program under test, as a user runs it: a configuration file, a store, secrets in its environment.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use super::Endpoint;

/// The password of every account that tests make; searched for where no secret may be.
pub const PASSWORD: &str = "p4ss-Wort-Geheim-1";

/// One installation of PlanB: configuration and a directory store, or whatever store the test writes in.
pub struct Planb {
    dir: TempDir,
    pub env: Vec<(String, String)>,
}

impl Planb {
    /// For a source on loopback, logging in as `user`, storing into a directory of its own.
    pub fn new(source: &Endpoint, user: &str) -> Self {
        let planb = Self::empty();
        let store = planb.store();
        planb.write_config(&format!(
            "[service]\nname = \"bank\"\n\
             [source]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{user}\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
             [store]\nurl = \"file://{}\"\n",
            source.port,
            store.display()
        ));
        planb
    }

    pub fn empty() -> Self {
        let dir = TempDir::new().expect("a directory for the test");
        std::fs::create_dir(dir.path().join("store")).expect("a store");
        Self {
            dir,
            env: vec![("PLANB_SOURCE_PASSWORD".into(), PASSWORD.into())],
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("planb.toml")
    }

    pub fn write_config(&self, text: &str) {
        std::fs::write(self.config(), text).expect("a configuration");
    }

    /// Adds lines to the configuration: whole sections.
    pub fn configure(&self, more: &str) {
        let text = std::fs::read_to_string(self.config()).expect("a configuration");
        self.write_config(&format!("{text}\n{more}\n"));
    }

    /// Replaces text in the configuration.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).expect("a configuration");
        assert!(text.contains(from), "the configuration holds no {from}");
        self.write_config(&text.replace(from, to));
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planb"));
        command
            .arg("--config")
            .arg(self.config())
            .args(args)
            .stdin(Stdio::null());
        command.env_remove("RUST_LOG").envs(self.env.iter().cloned());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("planb runs")
    }

    /// Runs it, expects success, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "planb {args:?} failed: {}", text(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it, expects this exit code, and returns stdout and stderr together.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "planb {args:?}: {}", text(&output));
        text(&output)
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("planb runs")
    }

    /// One backup; its blob's path.
    pub fn backup(&self, args: &[&str]) -> PathBuf {
        let json = self.json(&[&["--json", "backup"], args].concat());
        let id = json["id"].as_str().expect("an id").to_owned();
        self.store().join("backups").join(format!("{id}.sql.gz"))
    }

    /// Runs it and reads the last line it printed as JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let printed = self.ok(args);
        serde_json::from_str(printed.lines().last().unwrap_or_default()).expect("one JSON object a line")
    }

    /// Everything visible in the store, without control data.
    pub fn visible(&self) -> Vec<String> {
        let json = self.json(&["--json", "backups"]);
        let list = json["backups"].as_array().expect("a list");
        list.iter()
            .filter_map(|backup| backup["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// Files that a run which ended must not have left.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let staging = self.store().join(".staging");
        std::fs::read_dir(staging)
            .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    }
}

pub fn text(output: &Output) -> String {
    format!(
        "exit {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// An account that may read everything, with [`PASSWORD`].
pub fn reader(server: &Endpoint, more_grants: &[&str]) -> String {
    let maria = server.version().contains("MariaDB");
    let mut grants = vec!["SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "PROCESS"];
    grants.extend(if maria {
        ["BINLOG MONITOR", "REPLICA MONITOR"].as_slice()
    } else {
        ["REPLICATION CLIENT"].as_slice()
    });
    grants.extend(more_grants);
    server.sql(&format!(
        "CREATE USER IF NOT EXISTS reader@'%' IDENTIFIED BY '{PASSWORD}'; GRANT {} ON *.* TO reader@'%';",
        grants.join(", ")
    ));
    "reader".to_owned()
}
