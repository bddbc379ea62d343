//! The real `planb agent`, as systemd would run it: its own process, a notification socket, a watchdog, signals.

#![allow(
    dead_code,
    reason = "every test binary compiles this module and uses its own part of it"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::Planb;

/// What the daemon is told that systemd's `WatchdogSec` is.
pub const WATCHDOG: Duration = Duration::from_secs(3);

/// A running agent. Killed when dropped.
pub struct Daemon {
    child: Child,
    heard: Arc<Heard>,
    listeners: Vec<JoinHandle<()>>,
    _socket: TempDir,
}

/// What it said so far.
#[derive(Default)]
pub struct Heard {
    over: AtomicBool,
    log: Mutex<Vec<String>>,
    notices: Mutex<Vec<(Instant, String)>>,
}

/// How it ended.
pub struct Ended {
    pub status: ExitStatus,
    pub took: Duration,
    pub heard: Arc<Heard>,
}

impl Daemon {
    pub fn start(planb: &Planb) -> Self {
        let socket = TempDir::new().expect("a directory for the socket");
        let path = socket.path().join("notify");
        let datagrams = UnixDatagram::bind(&path).expect("a socket");
        datagrams
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a timeout");
        let mut command = planb.command(&["agent"]);
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .env_remove("WATCHDOG_PID")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("planb runs");
        let heard = Arc::new(Heard::default());
        let mut listeners = Vec::new();
        let ear = Arc::clone(&heard);
        listeners.push(thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Once more after the end: what was sent last is still in the socket.
            loop {
                let over = ear.over.load(Ordering::SeqCst);
                if let Ok(length) = datagrams.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
                    lock(&ear.notices).push((Instant::now(), text));
                } else if over {
                    return;
                }
            }
        }));
        let stderr = child.stderr.take().expect("piped");
        let ear = Arc::clone(&heard);
        listeners.push(thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lock(&ear.log).push(line);
            }
        }));
        Self {
            child,
            heard,
            listeners,
            _socket: socket,
        }
    }

    /// Asks until there is an answer; panics with the log if there is none in time.
    pub fn wait<T>(&mut self, what: &str, within: Duration, mut ask: impl FnMut(&Heard) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(answer) = ask(&self.heard) {
                return answer;
            }
            let gone = self.child.try_wait().expect("a child");
            assert!(
                gone.is_none(),
                "the agent ended ({gone:?}) instead of {what}\n{}",
                self.heard.told()
            );
            assert!(
                Instant::now() < deadline,
                "no {what} within {within:?}\n{}",
                self.heard.told()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until this many log lines have that message.
    pub fn wait_log(&mut self, message: &str, count: usize, within: Duration) -> Vec<Value> {
        self.wait(&format!("{count} × {message:?}"), within, |heard| {
            let lines = heard.logged(message);
            (lines.len() >= count).then_some(lines)
        })
    }

    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill runs").success(), "no process to send {name} to");
    }

    /// Memory in use (`VmRSS`), and the most there ever was (`VmHWM`), in KiB.
    pub fn memory_kib(&self) -> (u64, u64) {
        let [now, most] = self.memory_parts_kib(["VmRSS", "VmHWM"]);
        (now, most)
    }

    /// Figures of the kernel's account of the process, in KiB.
    pub fn memory_parts_kib<const N: usize>(&self, names: [&str; N]) -> [u64; N] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let figure = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a figure");
            line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().expect("a number")
        };
        names.map(figure)
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) -> Ended {
        let asked = Instant::now();
        self.signal("TERM");
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            assert!(
                asked.elapsed() < Duration::from_secs(60),
                "it ignores SIGTERM\n{}",
                self.heard.told()
            );
            thread::sleep(Duration::from_millis(10));
        };
        let took = asked.elapsed();
        self.hear_out();
        Ended {
            status,
            took,
            heard: Arc::clone(&self.heard),
        }
    }

    fn hear_out(&mut self) {
        self.heard.over.store(true, Ordering::SeqCst);
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.hear_out();
    }
}

impl Heard {
    /// Log lines with this message. Every line has to be JSON.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let lines = lock(&self.log);
        let parsed = lines
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("not JSON: {line}")));
        parsed.filter(|line| line["message"] == message).collect()
    }

    /// One for each run, whatever came of it.
    pub fn summaries(&self) -> Vec<Value> {
        let mut all = self.logged("backup committed");
        all.extend(self.logged("backup failed"));
        all
    }

    /// Ids of the backups it says it committed, in the order of the log.
    pub fn committed(&self) -> Vec<String> {
        let lines = self.logged("backup committed");
        lines
            .iter()
            .filter_map(|line| line["id"].as_str().map(str::to_owned))
            .collect()
    }

    /// What systemd was told, with the time it arrived.
    pub fn notices(&self) -> Vec<(Instant, String)> {
        lock(&self.notices).clone()
    }

    /// The newest line for `systemctl status`.
    pub fn status(&self) -> String {
        let notices = lock(&self.notices);
        let status = notices.iter().rev().find_map(|(_, text)| text.strip_prefix("STATUS="));
        status.unwrap_or_default().to_owned()
    }

    /// Everything, for a person.
    pub fn told(&self) -> String {
        let mut text = lock(&self.log).join("\n");
        let _ = write!(text, "\nthe last status: {}", self.status());
        text
    }
}

impl Ended {
    /// It ended by itself, well, and soon.
    pub fn assert_clean(&self, within: Duration) {
        assert!(self.status.success(), "{:?}\n{}", self.status, self.heard.told());
        assert!(
            self.took < within,
            "it took {:?} to stop\n{}",
            self.took,
            self.heard.told()
        );
        let notices = self.heard.notices();
        assert!(
            notices.iter().any(|(_, text)| text == "STOPPING=1"),
            "systemd was not told"
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
