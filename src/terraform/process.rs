//! One run of the program: started away from the terminal, read as it goes, stopped with one SIGINT.
//!
//! Its output goes to files and is read from there, never through a pipe: if this process is killed, a pipe would break, and
//! Terraform would die of SIGPIPE at its next line, in the middle of a change, its state unsaved (seen with 1.11). With
//! files it goes on to its end by itself and holds the state's lock meanwhile, so that the next run waits for it.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Error;

/// How often its output is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A line longer than this is no message of Terraform's, and its beginning is enough.
const LONGEST_LINE_BYTES: usize = 4 << 20;

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub status: ExitStatus,
    /// A SIGINT was sent.
    pub interrupted: bool,
    /// A SIGKILL was sent.
    pub killed: bool,
}

impl Ended {
    /// `exit code 1`, or `killed by signal 9`.
    pub fn how(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        }
    }
}

/// A program that runs. Dropped before its end (its future was), it gets its one SIGINT, and ends by itself.
struct Running {
    child: Child,
    pid: Option<Pid>,
    interrupted: bool,
}

impl Running {
    /// The program alone: providers and provisioners are told by it what to do.
    fn interrupt(&mut self) {
        if let Some(pid) = self.pid.filter(|_| !self.interrupted) {
            self.interrupted = true;
            // It has not been waited for, so the id is still its own. An error means that it has ended.
            let _ = kill_process(pid, Signal::INT);
        }
    }

    /// All that it started as well, or its provisioners would go on unseen.
    fn kill(&self) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        self.pid = None;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.interrupt();
    }
}

/// Runs `command` with its output in `stdout` and `stderr`, each line of the former told as it comes. After a cancel it
/// has `patience` to end; then it is killed.
pub(super) async fn run(
    mut command: Command,
    (stdout, stderr): (&Path, &Path),
    patience: Duration,
    cancel: &CancellationToken,
    on_line: &mut (dyn FnMut(&str) + Send),
) -> Result<Ended, Error> {
    let io = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| Error::Io {
            what,
            detail: error.to_string(),
        }
    };
    command
        .stdin(Stdio::null())
        .stdout(File::create(stdout).map_err(io("make a file for Terraform's output"))?)
        .stderr(File::create(stderr).map_err(io("make a file for Terraform's errors"))?)
        // Away from the terminal's group: a Ctrl-C there must not be a second SIGINT, at which it would drop everything.
        .process_group(0);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotInstalled { looked_for: program },
        _ => io(&format!("start {program}"))(error),
    })?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut running = Running {
        child,
        pid,
        interrupted: false,
    };

    let reading = "read Terraform's output";
    let mut lines = Lines::open(stdout).await.map_err(io(reading))?;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut killed = false;
    let mut give_up: Option<Instant> = None;
    let status = loop {
        tokio::select! {
            status = running.wait() => break status.map_err(io("wait for Terraform"))?,
            () = cancel.cancelled(), if give_up.is_none() => {
                running.interrupt();
                give_up = Some(Instant::now() + patience);
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() && !killed => {
                running.kill();
                killed = true;
            }
            _ = look.tick() => lines.take(on_line).await.map_err(io(reading))?,
        }
    };
    lines.take(on_line).await.map_err(io(reading))?;
    lines.rest(on_line);
    Ok(Ended {
        status,
        interrupted: running.interrupted,
        killed,
    })
}

/// A file that grows, by lines.
struct Lines {
    file: tokio::fs::File,
    begun: Vec<u8>,
}

impl Lines {
    async fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self {
            file: tokio::fs::File::open(path).await?,
            begun: Vec::new(),
        })
    }

    /// Every whole line that is there by now.
    async fn take(&mut self, on_line: &mut (dyn FnMut(&str) + Send)) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = self.file.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            for piece in buffer[..read].split_inclusive(|&byte| byte == b'\n') {
                let room = LONGEST_LINE_BYTES.saturating_sub(self.begun.len());
                self.begun.extend_from_slice(&piece[..piece.len().min(room)]);
                if piece.ends_with(b"\n") {
                    self.rest(on_line);
                }
            }
        }
    }

    fn rest(&mut self, on_line: &mut (dyn FnMut(&str) + Send)) {
        let line = std::mem::take(&mut self.begun);
        if !line.is_empty() {
            on_line(String::from_utf8_lossy(&line).trim_end());
        }
    }
}
