//! A way to a database that breaks at a chosen statement, as if the process that spoke had been killed there: whoever comes later is
//! not let through either.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where it breaks: statements are counted over all connections, from 0.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    /// The server does not get that statement.
    Before(usize),
    /// The server gets it, and its answer is lost.
    After(usize),
}

/// Runs until dropped.
pub struct MysqlCut {
    pub port: u16,
    broken: CancellationToken,
    _tasks: JoinSet<()>,
}

impl MysqlCut {
    pub async fn start(server: u16, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let broken = CancellationToken::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, cut, seen, broken.clone()));
        Self {
            port,
            broken,
            _tasks: tasks,
        }
    }

    /// Whether the statement came.
    pub fn is_broken(&self) -> bool {
        self.broken.is_cancelled()
    }
}

async fn accept(listener: TcpListener, server: u16, cut: Cut, seen: Arc<AtomicUsize>, broken: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            () = broken.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => return,
            },
        };
        let (seen, broken) = (Arc::clone(&seen), broken.clone());
        connections.spawn(async move {
            let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await else {
                return;
            };
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = upstream.into_split();
            tokio::select! {
                () = broken.cancelled() => {}
                _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                _ = statements(from_client, to_server, cut, &seen, &broken) => {}
            }
        });
    }
    // Everything that was open closes; the port refuses.
    drop(listener);
    connections.shutdown().await;
}

/// Passes packets on (three bytes of length, one of sequence), and breaks at the chosen COM_QUERY.
async fn statements(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    cut: Cut,
    seen: &AtomicUsize,
    broken: &CancellationToken,
) -> std::io::Result<()> {
    loop {
        let mut head = [0; 4];
        client.read_exact(&mut head).await?;
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        let mut body = vec![0; length];
        client.read_exact(&mut body).await?;
        let is_statement = head[3] == 0 && body.first() == Some(&3);
        let number = if is_statement {
            seen.fetch_add(1, Ordering::SeqCst)
        } else {
            usize::MAX
        };
        if matches!(cut, Cut::Before(at) if at == number) {
            broken.cancel();
            std::future::pending::<()>().await;
        }
        server.write_all(&[&head[..], &body].concat()).await?;
        if matches!(cut, Cut::After(at) if at == number) {
            broken.cancel();
            std::future::pending::<()>().await;
        }
    }
}
