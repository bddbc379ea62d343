//! A run as a span, with its figures.

use tracing::Span;
use tracing::field::Empty;

use super::{RunError, RunSummary};
use crate::span;

pub(super) async fn traced(
    site: &str,
    holder: &str,
    run: impl Future<Output = Result<RunSummary, RunError>> + Send,
) -> Result<RunSummary, RunError> {
    let span = span::work!(
        "backup",
        site,
        holder,
        id = Empty,
        rows = Empty,
        raw_bytes = Empty,
        stored_bytes = Empty,
        lock_seconds = Empty,
        attempts = Empty,
    );
    let run = span::traced(span.clone(), run).await?;
    done(&span, &run);
    Ok(run)
}

fn done(span: &Span, run: &RunSummary) {
    span.record("id", run.id.as_str());
    span.record("rows", run.rows);
    span.record("raw_bytes", run.raw_bytes);
    span.record("stored_bytes", run.stored_bytes);
    span.record("lock_seconds", run.locked.as_secs_f64());
    span.record("attempts", run.attempts);
}
