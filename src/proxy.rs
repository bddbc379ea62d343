//! A proxy that says no: what runs behind it reaches the hosts that are allowed, and whatever else it asked for is written down.
//!
//! It proves what `planb doctor --dark` claims: a program that went through it to its end needed nobody else.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A request's head is smaller.
const LARGEST_HEAD: usize = 16 << 10;
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// What Azure is reached by. Its public image registry (`mcr.microsoft.com`) is not among it.
pub const AZURE: [&str; 5] = [
    ".azure.com",
    ".azure.net",
    ".windows.net",
    ".azurecr.io",
    ".microsoftonline.com",
];

/// Whether `host` is one of `allowed`: a name, or a suffix that begins with a dot.
pub fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    allowed.iter().any(|one| {
        let one = one.to_ascii_lowercase();
        match one.starts_with('.') {
            true => host.ends_with(&one) && host.len() > one.len(),
            false => host == one,
        }
    })
}

#[derive(Debug, Default)]
struct Asked {
    refused: BTreeSet<String>,
}

/// Runs until dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// On a loopback port that the system chooses.
    ///
    /// # Errors
    /// There is none.
    pub async fn start(allowed: Vec<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Asked::default()));
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, allowed, Arc::clone(&asked)));
        Ok(Self {
            address,
            asked,
            _serving: serving,
        })
    }

    /// For `HTTPS_PROXY`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Hosts that were asked for and refused since the last question.
    pub fn refused(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut asked.refused).into_iter().collect()
    }
}

async fn accept(listener: TcpListener, allowed: Vec<String>, asked: Arc<Mutex<Asked>>) {
    let mut connections = JoinSet::new();
    let allowed = Arc::new(allowed);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&allowed), Arc::clone(&asked)))),
                // Out of file descriptors, say: a moment later there are some.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, allowed: Arc<Vec<String>>, asked: Arc<Mutex<Asked>>) {
    let Ok(Some(target)) = timeout(HEAD_WITHIN, head(&mut stream)).await else {
        return;
    };
    let (is_tunnel, host, port) = target;
    if is_tunnel && is_allowed(&host, &allowed) {
        let there = timeout(CONNECT_WITHIN, TcpStream::connect((host.as_str(), port))).await;
        match there {
            Ok(Ok(mut there)) => {
                if stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok() {
                    let _ = copy_bidirectional(&mut stream, &mut there).await;
                }
            }
            Ok(Err(_)) | Err(_) => drop(
                stream
                    .write_all(b"HTTP/1.1 502 Not reached\r\nContent-Length: 0\r\n\r\n")
                    .await,
            ),
        }
        return;
    }
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .refused
        .insert(host);
    let _ = stream
        .write_all(b"HTTP/1.1 403 Refused in the dark\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
}

/// Whether it wants a tunnel, to which host and port. Bytes behind the head are not read: a client waits for the answer.
async fn head(stream: &mut TcpStream) -> Option<(bool, String, u16)> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() >= LARGEST_HEAD {
            return None;
        }
        bytes.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = text.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':')?;
        return Some((true, host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?));
    }
    // A plain request names its host in full.
    let url = url::Url::parse(target).ok()?;
    Some((false, url.host_str()?.to_owned(), url.port_or_known_default()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_refused() {
        let allowed = [".azure.com".to_owned(), "Store.example".to_owned()];
        for host in ["management.azure.com", "STORE.example", "a.b.azure.com."] {
            assert!(is_allowed(host, &allowed), "{host}");
        }
        for host in [
            "azure.com",
            "evilazure.com",
            "store.example.evil",
            "x.store.example",
            "amazonaws.com",
            "",
        ] {
            assert!(!is_allowed(host, &allowed), "{host}");
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_opened_to_whoever_is_allowed_and_nobody_else() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = server.local_addr().expect("an address").port();
        let proxy = Proxy::start(vec!["127.0.0.1".to_owned()]).await.expect("a proxy");
        let ask = async |line: String| {
            let mut stream = TcpStream::connect(proxy.address).await.expect("connected");
            stream
                .write_all(format!("{line}\r\nX: y\r\n\r\n").as_bytes())
                .await
                .expect("sent");
            let mut answer = vec![0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            String::from_utf8(answer).expect("text")
        };
        assert_eq!(ask(format!("CONNECT 127.0.0.1:{port} HTTP/1.1")).await, "HTTP/1.1 200");
        assert_eq!(
            ask("CONNECT registry.example:443 HTTP/1.1".to_owned()).await,
            "HTTP/1.1 403"
        );
        assert_eq!(ask("GET http://s3.example/x HTTP/1.1".to_owned()).await, "HTTP/1.1 403");
        assert_eq!(proxy.refused(), ["registry.example", "s3.example"]);
        assert_eq!(proxy.refused(), [] as [&str; 0]);
        let nobody_else = timeout(Duration::from_millis(1), async {
            server.accept().await.expect("the tunnel");
            server.accept().await
        });
        assert!(nobody_else.await.is_err());
    }
}
