//! A step that runs a program: arguments and no shell line, a bounded part of its output kept, one SIGTERM when it must stop.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command as Process};

use super::Executor;
use crate::config::steps::Command;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::{Outcome, Proof};
use crate::recovery::plan::Role;
use crate::secret::Secret;

/// Lines of a program's output that an error or a note may quote.
const LINES_KEPT: usize = 20;
/// What is kept of one line, in bytes.
const LINE_BYTES: usize = 500;
/// What every program gets of our own environment.
const PASSED_ON: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// From the signal to the kill.
const STOP_WITHIN: Duration = Duration::from_secs(30);
/// A line `planb-output NAME=VALUE` on standard output is an output of the step.
const OUTPUT: &str = "planb-output ";

/// How a program ended.
struct Ran {
    code: Option<i32>,
    lines: Vec<String>,
    outputs: Vec<(String, String)>,
}

impl Executor {
    pub(super) async fn command(&self, task: &Task, command: &Command) -> Result<Outcome, StepError> {
        if !command.probe.is_empty() {
            let probed = self.ran(task, command, &command.probe).await?;
            if probed.code == Some(0) {
                return Ok(outcome(task, probed, true));
            }
        }
        let ran = self.ran(task, command, &command.args).await?;
        match ran.code {
            Some(0) => Ok(outcome(task, ran, false)),
            // For a fence: tried, and nobody can tell.
            Some(75) if matches!(task.step.role, Role::Fence(_)) => {
                let mut outcome = outcome(task, ran, false);
                outcome.proof = Some(Proof::Unprovable);
                Ok(outcome)
            }
            code => Err(StepError::passing(failed(command, code, &ran.lines))),
        }
    }

    pub(super) async fn undo_command(&self, task: &Task, command: &Command) -> Result<String, StepError> {
        let ran = self.ran(task, command, &command.undo).await?;
        match ran.code {
            Some(0) => Ok(ran.lines.last().cloned().unwrap_or_default()),
            code => Err(StepError::passing(failed(command, code, &ran.lines))),
        }
    }

    async fn ran(&self, task: &Task, command: &Command, args: &[String]) -> Result<Ran, StepError> {
        let mut process = Process::new(&command.program);
        process.env_clear();
        for name in PASSED_ON
            .iter()
            .copied()
            .chain(command.environment.iter().map(String::as_str))
        {
            if let Some(value) = std::env::var_os(name) {
                process.env(name, value);
            }
        }
        process.env("PLANB_OPERATION", task.operation.number.to_string());
        process.env("PLANB_EPOCH", task.standing.epoch().to_string());
        process.env("PLANB_STEP", &task.step.name);
        let mut secrets = Vec::new();
        for (name, reference) in &command.secrets {
            let secret = self.secret(reference, name).await?;
            process.env(name, secret.expose());
            secrets.push(secret);
        }
        for arg in args {
            process.arg(self.render(arg, task).await?.plain(&format!("argument {arg:?}"))?);
        }
        process
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is ours to hand on, once.
            .process_group(0)
            .kill_on_drop(true);
        let mut child = process.spawn().map_err(|error| {
            StepError::permanent(format!("{} cannot be started: {error}", command.program.display()))
        })?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let tell = |line: &str| self.tell.tell(&task.step.name, line);
        let both = async { tokio::join!(read(out, &secrets, &tell), read(err, &secrets, &tell)) };
        let mut both = std::pin::pin!(both);
        let ((lines, outputs), (more, _)) = tokio::select! {
            read = &mut both => read,
            () = task.cancel.cancelled() => {
                stop(&mut child).await;
                return Err(StepError::passing(format!("{} was stopped", command.program.display())));
            }
        };
        let status = tokio::select! {
            status = child.wait() => status,
            () = task.cancel.cancelled() => {
                stop(&mut child).await;
                return Err(StepError::passing(format!("{} was stopped", command.program.display())));
            }
        };
        let status = status.map_err(|error| StepError::passing(format!("{}: {error}", command.program.display())))?;
        Ok(Ran {
            code: status.code(),
            lines: lines.into_iter().chain(more).collect(),
            outputs,
        })
    }
}

fn outcome(task: &Task, ran: Ran, found: bool) -> Outcome {
    Outcome {
        found,
        note: ran.lines.last().cloned().unwrap_or_default(),
        outputs: ran
            .outputs
            .into_iter()
            .map(|(name, value)| (name, Value::String(value)))
            .collect(),
        // Exit 0 of a fence says that a write was tried and refused; see the runbook.
        proof: matches!(task.step.role, Role::Fence(_)).then_some(Proof::Proven),
        backup: None,
    }
}

fn failed(command: &Command, code: Option<i32>, lines: &[String]) -> String {
    let how = code.map_or_else(
        || "was ended by a signal".to_owned(),
        |code| format!("ended with {code}"),
    );
    let last: Vec<&str> = lines.iter().rev().take(5).rev().map(String::as_str).collect();
    if last.is_empty() {
        format!("{} {how}, and said nothing", command.program.display())
    } else {
        format!("{} {how}: {}", command.program.display(), last.join(" / "))
    }
}

/// The last lines, secrets taken out; and outputs.
async fn read(
    stream: Option<impl AsyncRead + Unpin>,
    secrets: &[Secret],
    tell: &impl Fn(&str),
) -> (Vec<String>, Vec<(String, String)>) {
    let (mut lines, mut outputs) = (Vec::new(), Vec::new());
    let Some(stream) = stream else { return (lines, outputs) };
    let mut reader = BufReader::new(stream);
    let mut raw = Vec::new();
    loop {
        raw.clear();
        match reader.read_until(b'\n', &mut raw).await {
            Ok(0) | Err(_) => return (lines, outputs),
            Ok(_) => {}
        }
        let mut line = String::from_utf8_lossy(&raw).trim_end().to_owned();
        for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
            line = line.replace(secret.expose(), "***");
        }
        if let Some((name, value)) = line.strip_prefix(OUTPUT).and_then(|pair| pair.split_once('=')) {
            outputs.push((name.to_owned(), value.to_owned()));
            continue;
        }
        line.truncate(line.floor_char_boundary(LINE_BYTES));
        tell(&line);
        lines.push(line);
        if lines.len() > LINES_KEPT {
            lines.remove(0);
        }
    }
}

/// Asked once, to the whole group; killed when it does not listen.
async fn stop(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // SAFETY: kill takes numbers only; the child has not been waited for, so the group is still its own.
        #[expect(unsafe_code, reason = "the standard library sends no signal but KILL")]
        unsafe {
            libc::kill(-pid, libc::SIGTERM);
        }
    }
    if tokio::time::timeout(STOP_WITHIN, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}
