//! What there is to look at: one function for each path.

use std::time::Duration;

use tokio::time::Instant;

use super::board::{Board, Facts};
use super::http::{Request, Response};
use super::{metrics, status};

/// The loop goes round every 15 s.
const TICKS_WITHIN: Duration = Duration::from_secs(60);
/// A survey is made every ten minutes at least.
const SURVEYED_WITHIN: Duration = Duration::from_secs(25 * 60);

/// Answered without a token.
pub fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

pub async fn answer(board: &Board, request: &Request) -> Response {
    match request.path.as_str() {
        "/" => status::page(board).await,
        "/healthz" => health(&board.look()),
        "/readyz" => readiness(&board.look()),
        "/metrics" => {
            let open_metrics = request.accept.contains("application/openmetrics-text");
            let body = metrics::render(&board.counters, &board.look(), board.now(), open_metrics);
            Response {
                content_type: if open_metrics {
                    metrics::OPEN_METRICS
                } else {
                    metrics::OLDER
                },
                ..Response::text(200, body)
            }
        }
        _ => Response::text(404, "there are /, /metrics, /healthz and /readyz\n"),
    }
}

/// The process is alive, its loop goes round, and nothing hangs: what a restart could mend.
fn health(facts: &Facts) -> Response {
    match &facts.tick {
        Some((_, at)) if at.elapsed() > TICKS_WITHIN => Response::text(503, "the agent's loop stands still\n"),
        Some((tick, _)) if !tick.is_healthy => Response::text(503, "something is long past its deadline\n"),
        Some(_) => Response::text(200, "ok\n"),
        None => Response::text(503, "starting\n"),
    }
}

/// It can do its work: store and source were reachable when they were last needed.
fn readiness(facts: &Facts) -> Response {
    let store = match &facts.store {
        None => Some("the store was not asked yet"),
        Some(Err(_)) => Some("the store does not answer"),
        Some(Ok(at)) if is_older(*at, SURVEYED_WITHIN) => Some("the store was not asked for long"),
        Some(Ok(_)) => None,
    };
    let failed = facts
        .last_run
        .as_ref()
        .is_some_and(|run| run.failure.is_some() && !run.stood_back);
    let source = failed.then_some("the last backup run failed");
    let troubles: Vec<&str> = store.into_iter().chain(source).collect();
    if troubles.is_empty() {
        Response::text(200, "ok\n")
    } else {
        Response::text(503, format!("{}\n", troubles.join("; ")))
    }
}

fn is_older(at: Instant, than: Duration) -> bool {
    at.elapsed() > than
}
