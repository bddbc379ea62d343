//! Accepts connections, each in a task of its own with bounds on its time and on how many there are.
//!
//! Whoever connects and says nothing keeps nobody out: where there are too many, the one that has been silent longest goes. A request
//! that is meant comes in milliseconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::board::Board;
use super::guard::Guard;
use super::http::{self, Method, Response};
use super::pages;

/// Scrapers and a few people. While all of them are being answered, more wait in the system's queue, for seconds at most.
const MOST_CONNECTIONS: usize = 32;
/// Out of file descriptors, say: the next accept may go well.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);

/// A connection under way.
struct Open {
    task: AbortHandle,
    /// Its request was read, and it is being answered.
    is_asked: Arc<AtomicBool>,
}

/// Serves until it is dropped; the connections end with it.
pub async fn serve(listener: TcpListener, guard: Arc<Guard>, board: Arc<Board>) {
    let mut connections = JoinSet::new();
    // Oldest first.
    let mut open: VecDeque<Open> = VecDeque::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        let connection = match accepted {
            Ok((connection, _)) => connection,
            Err(error) => {
                tracing::debug!(%error, "a connection to the status page could not be accepted");
                tokio::time::sleep(AFTER_AN_ERROR).await;
                continue;
            }
        };
        open.retain(|one| !one.task.is_finished());
        if open.len() >= MOST_CONNECTIONS {
            match open.iter().position(|one| !one.is_asked.load(Ordering::Relaxed)) {
                Some(silent) => {
                    if let Some(silent) = open.remove(silent) {
                        silent.task.abort();
                    }
                }
                // Each is answered within a bound.
                None => {
                    let _ = connections.join_next().await;
                }
            }
        }
        let (guard, board) = (Arc::clone(&guard), Arc::clone(&board));
        let is_asked = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&is_asked);
        let task = connections.spawn(async move { one(connection, &guard, &board, &asked).await });
        open.push_back(Open { task, is_asked });
    }
}

async fn one(mut connection: TcpStream, guard: &Guard, board: &Board, is_asked: &AtomicBool) {
    let read = http::read(&mut connection).await;
    is_asked.store(true, Ordering::Relaxed);
    let (response, with_body) = match read {
        Err(unread) => match Option::<Response>::from(unread) {
            Some(response) => (response, true),
            None => return,
        },
        Ok(request) => {
            // Whether it is alive may be asked by whoever can reach it: the answer is one word.
            let refusal = if pages::is_open(&request.path) {
                None
            } else {
                guard.refuses(&request)
            };
            let response = match (refusal, request.method) {
                (Some(refusal), _) => refusal,
                (None, Method::Other) => {
                    Response::text(405, "this only reads: GET or HEAD\n").header("Allow", "GET, HEAD")
                }
                (None, Method::Get | Method::Head) => pages::answer(board, &request).await,
            };
            (response, request.method != Method::Head)
        }
    };
    http::write(&mut connection, &response, with_body).await;
}
