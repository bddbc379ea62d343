//! A step that runs a program: arguments and no shell line, a bounded part of its output kept, one SIGTERM when it must stop.

use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
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
/// Longer lines are cut; an output may be longer than what is shown of a line.
const LONGEST_LINE_BYTES: usize = 64 << 10;
/// A shorter line of a secret tells nothing, and would blot out half of what is said.
const TELLING_BYTES: usize = 6;
/// Once the program has ended, so long is what it said waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// From the signal to the kill.
const STOP_WITHIN: Duration = Duration::from_secs(10);
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
        let hidden = hidden(&secrets);
        let heard = Mutex::new(Heard::default());
        let take = || std::mem::take(&mut *heard.lock().unwrap_or_else(PoisonError::into_inner));
        let tell = |line: &str| self.tell.tell(&task.step.name, line);
        let both = async { tokio::join!(read(out, &hidden, &heard, &tell), read(err, &hidden, &heard, &tell)) };
        let mut both = std::pin::pin!(both);
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut both, if !is_read => is_read = true,
                () = task.cancel.cancelled() => {
                    stop(&mut child).await;
                    return Err(StepError::passing(stopped(command, &take().lines)));
                }
            }
        };
        // What it left running in the background may hold the pipe for ever.
        if !is_read {
            let _ = tokio::time::timeout(LAST_WORDS, both).await;
        }
        let status = status.map_err(|error| StepError::passing(format!("{}: {error}", command.program.display())))?;
        let heard = take();
        Ok(Ran {
            code: status.code(),
            lines: heard.lines,
            outputs: heard.outputs,
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
    said(command, &how, lines)
}

fn stopped(command: &Command, lines: &[String]) -> String {
    said(command, "was stopped, and may have done a part of it", lines)
}

fn said(command: &Command, how: &str, lines: &[String]) -> String {
    let last: Vec<&str> = lines.iter().rev().take(5).rev().map(String::as_str).collect();
    if last.is_empty() {
        format!("{} {how}, and said nothing", command.program.display())
    } else {
        format!("{} {how}: {}", command.program.display(), last.join(" / "))
    }
}

/// What must not be shown: secrets as they are and, of those with several lines, each line that is long enough to tell anything.
fn hidden(secrets: &[Secret]) -> Vec<Secret> {
    let mut hidden = Vec::new();
    for secret in secrets.iter().filter(|secret| !secret.expose().trim().is_empty()) {
        let text = secret.expose().trim();
        let lines = text.lines().map(str::trim);
        hidden.extend(
            lines
                .filter(|line| line.len() >= TELLING_BYTES && *line != text)
                .map(Secret::new),
        );
        hidden.push(Secret::new(text));
    }
    // A secret that holds another is taken out first.
    hidden.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    hidden
}

/// What a program has said so far: the last lines, and outputs.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    outputs: Vec<(String, String)>,
}

/// Secrets taken out, and no more held than is kept, however much is said.
async fn read(stream: Option<impl AsyncRead + Unpin>, hidden: &[Secret], heard: &Mutex<Heard>, tell: &impl Fn(&str)) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    while let Some(raw) = next_line(&mut reader).await {
        let mut line = String::from_utf8_lossy(&raw).trim_end().to_owned();
        for secret in hidden {
            line = line.replace(secret.expose(), "***");
        }
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, value)) = line.strip_prefix(OUTPUT).and_then(|pair| pair.split_once('=')) {
            heard.outputs.push((name.to_owned(), value.to_owned()));
            continue;
        }
        line.truncate(line.floor_char_boundary(LINE_BYTES));
        tell(&line);
        heard.lines.push(line);
        if heard.lines.len() > LINES_KEPT {
            heard.lines.remove(0);
        }
    }
}

/// None at the end. What a line has beyond what is kept is passed over.
async fn next_line(reader: &mut BufReader<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut is_begun = false;
    loop {
        let more = reader.fill_buf().await.ok()?;
        if more.is_empty() {
            return is_begun.then_some(line);
        }
        is_begun = true;
        let end = memchr::memchr(b'\n', more);
        let part = &more[..end.unwrap_or(more.len())];
        line.extend_from_slice(&part[..part.len().min(LONGEST_LINE_BYTES.saturating_sub(line.len()))]);
        let used = end.map_or(more.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            return Some(line);
        }
    }
}

/// Asked once, to the whole group; killed, all of it, when it does not listen.
async fn stop(child: &mut Child) {
    let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) else {
        return;
    };
    signal(pid, libc::SIGTERM);
    let _ = tokio::time::timeout(STOP_WITHIN, child.wait()).await;
    // What it began must not go on in its place.
    signal(pid, libc::SIGKILL);
    let _ = child.wait().await;
}

/// To a process group.
fn signal(group: i32, signal: i32) {
    // SAFETY: kill takes numbers only. The group is the child's own, which was waited for at most a moment ago.
    #[expect(unsafe_code, reason = "the standard library sends no signal but KILL")]
    unsafe {
        libc::kill(-group, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_line_of_a_secret_is_shown() {
        let key = "-----BEGIN KEY-----\nMIIBVAIBADANBgkq\nab\n-----END KEY-----\n";
        let secrets = [key, "hunter2", "hunter2-and-more", " "].map(Secret::new);
        let heard = Mutex::new(Heard::default());
        let said = format!(
            "{key}it is hunter2-and-more or hunter2\nplanb-output key=MIIBVAIBADANBgkq\n{}",
            "x".repeat(1 << 20)
        );
        read(Some(said.as_bytes()), &hidden(&secrets), &heard, &|_| {}).await;
        let heard = heard.into_inner().expect("not poisoned");
        assert_eq!(heard.lines[..5], ["***", "***", "ab", "***", "it is *** or ***"]);
        assert_eq!(heard.lines[5].len(), LINE_BYTES);
        assert_eq!(heard.outputs, [("key".to_owned(), "***".to_owned())]);
    }
}
