//! Spans of work, for traces: what was done, how long it took, and what it failed of. Where nobody traces, they cost next to nothing.

use std::fmt::Display;
use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::{Instrument, Span};

/// A span for [`traced`]: a literal name (the same for all work of a kind) and fields.
macro_rules! work {
    ($($rest:tt)*) => { $crate::span::work_at!(tracing::Level::INFO, $($rest)*) };
}

/// The same, at a level.
macro_rules! work_at {
    ($level:expr, $name:literal $(, $($fields:tt)*)?) => {
        tracing::span!(
            $level,
            $name,
            // Source: the special fields of tracing-opentelemetry.
            otel.status_code = tracing::field::Empty,
            otel.status_description = tracing::field::Empty
            $(, $($fields)*)?
        )
    };
}

pub(crate) use {work, work_at};

/// Does the work within its span, and writes down what it failed of.
pub async fn traced<T, E: Display>(span: Span, work: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
    // Boxed, and its type forgotten: a run is large, whoever traces it would carry it once more, and nests deeper than the compiler follows.
    let work: BoxFuture<'_, Result<T, E>> = work.instrument(span.clone()).boxed();
    let result = work.await;
    if let Err(error) = &result {
        failed(&span, error);
    }
    result
}

/// Writes down that it failed, and of what.
pub fn failed(span: &Span, error: &impl Display) {
    if !span.is_disabled() {
        span.record("otel.status_code", "error");
        span.record("otel.status_description", error.to_string());
    }
}
