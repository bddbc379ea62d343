//! Accepts connections, each in a task of its own with bounds on its time and on how many there are.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::board::Board;
use super::guard::Guard;
use super::http::{self, Method, Response};
use super::pages;

/// Scrapers and a few people. More wait in the system's queue, for seconds at most.
const MOST_CONNECTIONS: usize = 32;
/// Out of file descriptors, say: the next accept may go well.
const AFTER_AN_ERROR: Duration = Duration::from_millis(200);

/// Serves until it is dropped; the connections end with it.
pub async fn serve(listener: TcpListener, guard: Arc<Guard>, board: Arc<Board>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((connection, _)) => {
                let (guard, board) = (Arc::clone(&guard), Arc::clone(&board));
                connections.spawn(async move {
                    one(connection, &guard, &board).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the status page could not be accepted");
                tokio::time::sleep(AFTER_AN_ERROR).await;
            }
        }
    }
}

async fn one(mut connection: TcpStream, guard: &Guard, board: &Board) {
    let (response, with_body) = match http::read(&mut connection).await {
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
