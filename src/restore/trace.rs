//! A restore as a span, with its figures and the time in each phase.

use std::time::Duration;

use tracing::Span;
use tracing::field::Empty;

use super::error::RestoreError;
use super::ledger::Phase;
use super::run::Restored;
use crate::span;

pub(super) async fn traced(
    backup: &str,
    trial: bool,
    restore: impl Future<Output = Result<Restored, RestoreError>> + Send,
) -> Result<Restored, RestoreError> {
    let span = span::work!(
        "restore",
        backup,
        trial,
        server = Empty,
        rows = Empty,
        raw_bytes = Empty,
        resumed = Empty,
        retries = Empty,
        phases = Empty,
    );
    let restored = span::traced(span.clone(), restore).await?;
    done(&span, &restored);
    Ok(restored)
}

fn done(span: &Span, restored: &Restored) {
    let took = |(phase, took): &(Phase, Duration)| format!("{phase:?} {:.1} s", took.as_secs_f64());
    let phases: Vec<String> = restored.phases.iter().map(took).collect();
    span.record("server", restored.server.as_str());
    span.record("rows", restored.rows);
    span.record("raw_bytes", restored.raw_bytes);
    span.record("resumed", restored.resumed);
    span.record("retries", restored.retries);
    span.record("phases", phases.join(", "));
}
