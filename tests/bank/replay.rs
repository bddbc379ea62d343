//! A dump, loaded, and the source's log from the dump's position on: together they must be the source.

use std::path::Path;
use std::process::{Command, Stdio};

use super::binlog::{At, files, number_of};
use super::{SCHEMAS, Way};
use crate::support::census::differences;
use crate::support::{Endpoint, Flavor, Server, census};

/// Loads `backup` into `target`, replays `source`'s log from `at` to its end with the flavour's own tool, and tells
/// what differs, or what the server refused. Empty if nothing.
pub fn difference(source: &Server, target: &Endpoint, backup: &Path, at: At, idempotent: bool) -> String {
    target.sql("DROP DATABASE IF EXISTS bank; DROP DATABASE IF EXISTS bank2;");
    target.load_gzip(backup);
    if let Err(refused) = replay(source, target, at, idempotent) {
        return refused;
    }
    differences(&census(source, &SCHEMAS), &census(target, &SCHEMAS))
}

fn replay(source: &Server, target: &Endpoint, at: At, idempotent: bool) -> Result<(), String> {
    let logs = files(&source.data_dir());
    let from = logs
        .into_iter()
        .filter(|path| number_of(&path.to_string_lossy()) >= at.0);
    let mut tool = Command::new(source.binlog_tool());
    tool.arg("--no-defaults").arg(format!("--start-position={}", at.1));
    match source.flavor {
        // The target has a history of its own; what counts is the data.
        Flavor::MySql => tool.arg("--skip-gtids"),
        Flavor::MariaDb => &mut tool,
    };
    if idempotent {
        match source.flavor {
            Flavor::MySql => {
                tool.arg("--idempotent");
            }
            Flavor::MariaDb => {
                target.sql("SET GLOBAL slave_exec_mode = 'IDEMPOTENT'");
            }
        }
    }
    let mut reading = tool
        .args(from)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binlog tool");
    let events = reading.stdout.take().expect("its stdout");
    let applied = target
        .client()
        .args(["--binary-mode"])
        .stdin(events)
        .output()
        .expect("the client");
    let read = reading.wait_with_output().expect("the binlog tool ends");
    if idempotent && source.flavor == Flavor::MariaDb {
        target.sql("SET GLOBAL slave_exec_mode = 'STRICT'");
    }
    if !applied.status.success() {
        return Err(String::from_utf8_lossy(&applied.stderr).into_owned());
    }
    if !read.status.success() {
        return Err(format!("the binlog tool: {}", String::from_utf8_lossy(&read.stderr)));
    }
    Ok(())
}
