//! A run as a span, with its figures.

use tracing::Span;
use tracing::field::Empty;

use super::RunSummary;
use crate::span;

pub(super) fn begun(site: &str, holder: &str) -> Span {
    span::work!(
        "backup",
        site,
        holder,
        id = Empty,
        rows = Empty,
        raw_bytes = Empty,
        stored_bytes = Empty,
        lock_seconds = Empty,
        attempts = Empty,
    )
}

pub(super) fn done(span: &Span, run: &RunSummary) {
    span.record("id", run.id.as_str());
    span.record("rows", run.rows);
    span.record("raw_bytes", run.raw_bytes);
    span.record("stored_bytes", run.stored_bytes);
    span.record("lock_seconds", run.locked.as_secs_f64());
    span.record("attempts", run.attempts);
}
