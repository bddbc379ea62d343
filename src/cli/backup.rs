//! `planb backup`: one backup now.

use std::io::IsTerminal;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::{Common, open, present};
use crate::backup::run::{Observer, RunSummary, Wanted};
use crate::dump::AttemptError;
use crate::dump::pipeline::Progress;

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// Have the server compute the checksum of every table inside the snapshot, and compare
    #[arg(long)]
    verify_source: bool,
    /// Waive one rule by name, with a reason that is recorded; here: source-changed=REASON
    #[arg(long, value_name = "RULE=REASON")]
    accept: Vec<String>,
}

pub async fn run(common: &Common, args: &BackupArgs) -> Result<(), Failure> {
    let wanted = wanted(args)?;
    let config = open::config(common)?;
    let cancel = CancellationToken::new();
    // Not stopped with the run: what it staged is discarded, and its lease given back, after it was told to stop.
    let stores = open::stores(&config, &CancellationToken::new()).await?;
    let runner = open::runner(&config, &stores);
    let bar = Arc::new(Bar::new(!common.json && std::io::stderr().is_terminal()));
    let result = {
        let mut running = std::pin::pin!(runner.run(&wanted, bar.as_ref(), &cancel));
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        let mut interrupted = std::pin::pin!(interrupted());
        loop {
            tokio::select! {
                result = &mut running => break result,
                () = &mut interrupted, if !cancel.is_cancelled() => {
                    eprintln!("planb: stopping; what is not published yet will be dropped");
                    cancel.cancel();
                }
                _ = tick.tick() => bar.draw(),
            }
        }
    };
    bar.finish();
    let summary = result?;
    if common.json {
        println!("{}", summary_json(&summary));
    } else {
        print_summary(&summary);
    }
    Ok(())
}

fn wanted(args: &BackupArgs) -> Result<Wanted, Failure> {
    let mut wanted = Wanted {
        holder: "planb backup".to_owned(),
        verify_source: args.verify_source,
        is_last: false,
        accept_source_changed: None,
    };
    for accepted in &args.accept {
        match accepted.split_once('=') {
            Some(("source-changed", reason)) if !reason.trim().is_empty() => {
                wanted.accept_source_changed = Some(reason.trim().to_owned());
            }
            Some(("source-changed", _)) => {
                return Err(Failure::Usage("--accept source-changed=REASON: say why".to_owned()));
            }
            _ => {
                return Err(Failure::Usage(format!(
                    "--accept {accepted}: the only rule here is source-changed=REASON"
                )));
            }
        }
    }
    Ok(wanted)
}

/// Ctrl-C or SIGTERM.
pub(super) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// For scripts.
pub fn summary_json(summary: &RunSummary) -> Value {
    json!({
        "v": 1,
        "id": summary.id.as_str(),
        "consistent_at": present::rfc3339(summary.consistent_at),
        "committed_at": present::rfc3339(summary.committed_at),
        "rows": summary.rows,
        "tables": summary.tables,
        "raw_bytes": summary.raw_bytes,
        "stored_bytes": summary.stored_bytes,
        "duration_seconds": summary.duration.as_secs_f64(),
        "locked_seconds": summary.locked.as_secs_f64(),
        "attempts": summary.attempts,
        "way": summary.way,
        "sessions": summary.sessions,
        "yields": summary.yields,
        "notes": summary.notes,
        "digest": summary.digest,
        "peak_memory_bytes": peak_memory_bytes(),
    })
}

/// The most memory this process ever held, by the kernel's account; none where it keeps no such account.
pub(super) fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn print_summary(summary: &RunSummary) {
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    let ratio = summary.raw_bytes as f64 / summary.stored_bytes.max(1) as f64;
    println!(
        "{}: {} rows of {} tables, {} of SQL in {} ({ratio:.1}:1), {:.1} s, source locked {} ms",
        summary.id,
        summary.rows,
        summary.tables,
        present::bytes(summary.raw_bytes),
        present::bytes(summary.stored_bytes),
        summary.duration.as_secs_f64(),
        summary.locked.as_millis(),
    );
    println!(
        "consistent at {}, committed {}",
        present::time(summary.consistent_at),
        present::time(summary.committed_at)
    );
    for note in &summary.notes {
        println!("note: {note}");
    }
}

/// A progress bar on a terminal, nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    progress: Mutex<Option<Arc<Progress>>>,
}

impl Bar {
    fn new(visible: bool) -> Self {
        let bar = if visible {
            ProgressBar::no_length()
        } else {
            ProgressBar::hidden()
        };
        // The server's estimate of a table's size is of its pages, not of its SQL: so a figure, not a percentage.
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self {
            bar,
            progress: Mutex::new(None),
        }
    }

    fn draw(&self) {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(progress) = progress {
            self.bar.tick();
            self.bar.set_message(format!(
                "{} rows, {} of SQL, {} sent",
                progress.rows.load(Relaxed),
                present::bytes(progress.raw_bytes.load(Relaxed)),
                present::bytes(progress.stored_bytes.load(Relaxed)),
            ));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bar {
    fn attempt(&self, _number: u32, progress: Arc<Progress>) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
    }

    fn estimate(&self, bytes: u64) {
        self.bar
            .println(format!("about {} in the source's tables", present::bytes(bytes)));
    }

    fn repeated(&self, error: &AttemptError) {
        self.bar.println(format!("repeating: {error}"));
    }
}
