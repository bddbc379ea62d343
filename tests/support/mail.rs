//! A real mail server of the test's own (`mail_receiver.py`). Ends with the test.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::tls::{TlsFiles, tls_files};

pub struct MailServer {
    pub port: u16,
    pub tls: TlsFiles,
    child: Child,
    dir: TempDir,
}

impl MailServer {
    /// `kind`: `starttls`, `implicit` or `plain`. It takes mail after a login as `planb` with this password; a plain one from everybody.
    pub fn start(kind: &str, password: &str) -> Self {
        let dir = TempDir::new().expect("a directory");
        let tls = tls_files(dir.path());
        let python = super::lab_dir().join("mail/bin/python");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/mail_receiver.py");
        std::fs::write(dir.path().join("manner"), "take").expect("a manner");
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(python)
            .arg(script)
            .args([&tls.cert, &tls.key])
            .args([dir.path().join("manner"), dir.path().join("out")])
            .arg(kind)
            .env("MAIL_PASSWORD", password)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the mail server of the lab: scripts/lab setup mail");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("stdout"));
        out.read_line(&mut line).expect("a line");
        let port = line.trim().parse().expect("a port");
        Self { port, tls, child, dir }
    }

    /// What it does with the next mail; see `mail_receiver.py`.
    pub fn set(&self, manner: &str) {
        let new = self.dir.path().join("new-manner");
        std::fs::write(&new, manner).expect("a manner");
        std::fs::rename(&new, self.dir.path().join("manner")).expect("a manner");
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        // The last one may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Everything that it took.
    pub fn mails(&self) -> Vec<Value> {
        self.lines("out")
    }

    /// Every command that it heard.
    pub fn heard(&self) -> Vec<String> {
        let commands = self.lines("out.heard");
        commands
            .iter()
            .map(|command| command.as_str().expect("a command").to_owned())
            .collect()
    }

    /// Waits for a mail whose subject or body holds all of these.
    pub fn wait(&self, holding: &[&str]) -> Value {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            let is_meant = |mail: &&Value| {
                let text = format!("{}\n{}", mail["subject"], mail["body"]);
                holding.iter().all(|part| text.contains(part))
            };
            if let Some(found) = self.mails().iter().find(is_meant) {
                return found.clone();
            }
            assert!(
                Instant::now() < end,
                "no mail with {holding:?}; it took {:#?} and heard {:?}",
                self.mails(),
                self.heard()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it has heard this.
    pub fn wait_heard(&self, command: &str) {
        let end = Instant::now() + Duration::from_secs(90);
        while !self.heard().iter().any(|heard| heard == command) {
            assert!(Instant::now() < end, "no {command}; it heard {:?}", self.heard());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl MailServer {
    /// Nothing listens there any more.
    pub fn end(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.end();
    }
}
