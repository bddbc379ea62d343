//! The agent's HTTP server: measurements, health and pages, read from what the agent knows. Nothing that is asked here can begin, change
//! or delay anything; where the port is taken or the token cannot be had, backups go on and it is tried again.
//!
//! HTTP/1.1 without TLS and without keep-alive: one request, one answer, GET and HEAD only. A page more is a file beside
//! `pages.rs` and a line in its table.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::secret::{Resolver, SecretError};

pub mod board;
pub mod guard;
pub mod http;
pub mod listen;
pub mod metrics;
pub mod pages;
pub mod status;

use board::Board;
use guard::{Guard, TokenTooShort};

/// A port that is taken, or a vault that does not answer, is tried again after this long.
const AGAIN: Duration = Duration::from_secs(30);

/// What to listen on, as the configuration says now.
#[derive(Debug, Clone)]
pub struct Wish {
    pub serve: config::Serve,
    pub resolver: Arc<Resolver>,
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("cannot listen on {at} ({error}); free that address, or choose another serve.listen")]
    Listen { at: SocketAddr, error: std::io::Error },
    #[error("serve.token cannot be had: {0}")]
    Token(#[from] SecretError),
    #[error(transparent)]
    Short(#[from] TokenTooShort),
}

/// Serves as long as `cancel` does not fire, anew with each wish.
pub async fn run(mut wishes: watch::Receiver<Option<Wish>>, board: Arc<Board>, cancel: CancellationToken) {
    let mut told = String::new();
    loop {
        let wish = wishes.borrow_and_update().clone();
        let opened = match &wish {
            Some(wish) => Some(open(wish).await),
            None => None,
        };
        let again = async {
            match opened {
                Some(Ok((listener, guard))) => {
                    told.clear();
                    listen::serve(listener, Arc::new(guard), Arc::clone(&board)).await;
                }
                Some(Err(error)) => {
                    let error = error.to_string();
                    // Once, not every half minute for years.
                    if error != told {
                        tracing::error!(
                            error,
                            "no status page and no /metrics; backups go on, and it is tried again"
                        );
                    }
                    told = error;
                    tokio::time::sleep(AGAIN).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = wishes.changed() => if changed.is_err() {
                return;
            },
            () = again => {}
        }
    }
}

async fn open(wish: &Wish) -> Result<(TcpListener, Guard), OpenError> {
    let guard = match &wish.serve.token {
        Some(token) => Guard::with_token(&wish.resolver.resolve(token).await?)?,
        None => Guard::loopback(),
    };
    let at = wish.serve.listen;
    let listener = TcpListener::bind(at)
        .await
        .map_err(|error| OpenError::Listen { at, error })?;
    tracing::info!(%at, "status page, /metrics, /healthz and /readyz");
    Ok((listener, guard))
}
