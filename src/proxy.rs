//! A proxy that says no: what runs behind it reaches the hosts that are allowed, and whatever else it asked for is written down.
//!
//! It proves what `planb doctor --dark` claims: a program that went through it to its end needed nobody else. Where a network has a proxy of
//! its own, what is allowed goes on through that.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use crate::secret::Secret;

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

/// A network's own proxy, as `HTTPS_PROXY` names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    address: String,
    /// `Proxy-Authorization`, where the address holds a login.
    authorization: Option<Secret>,
    /// `NO_PROXY`: hosts and what is below them.
    except: Vec<String>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Upstream {
    /// None where the environment names none.
    ///
    /// # Errors
    /// It names one that cannot be gone through; in words, without its login.
    pub fn of_environment(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let first = |names: [&str; 2]| names.iter().find_map(|name| get(name).filter(|text| !text.is_empty()));
        let Some(text) = first(["HTTPS_PROXY", "https_proxy"]) else {
            return Ok(None);
        };
        let wrong = "HTTPS_PROXY must be like http://HOST:PORT for a look in the dark, which goes through it";
        let text = if text.contains("://") {
            text
        } else {
            format!("http://{text}")
        };
        let url = Url::parse(&text).map_err(|_| wrong.to_owned())?;
        let (Some(host), "http") = (url.host_str(), url.scheme()) else {
            return Err(wrong.to_owned());
        };
        let login = (!url.username().is_empty()).then(|| {
            let login = format!(
                "{}:{}",
                decoded(url.username()),
                decoded(url.password().unwrap_or_default())
            );
            Secret::new(BASE64_STANDARD.encode(login))
        });
        let except = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Ok(Some(Self {
            address: format!("{host}:{}", url.port().unwrap_or(80)),
            authorization: login,
            except: except
                .split(',')
                .map(|one| {
                    one.trim()
                        .trim_start_matches("*.")
                        .trim_start_matches('.')
                        .to_ascii_lowercase()
                })
                .filter(|one| !one.is_empty())
                .collect(),
        }))
    }

    fn leaves_out(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        self.except
            .iter()
            .any(|one| one == "*" || host == *one || host.ends_with(&format!(".{one}")))
    }

    /// A tunnel through it.
    async fn connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let login = self
            .authorization
            .as_ref()
            .map(|login| format!("Proxy-Authorization: Basic {}\r\n", login.expose()))
            .unwrap_or_default();
        let asked = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n");
        stream.write_all(asked.as_bytes()).await?;
        let answer = lines(&mut stream).await.unwrap_or_default();
        match answer.split(' ').nth(1) {
            Some("200") => Ok(stream),
            _ => Err(std::io::Error::other("the network's own proxy refused")),
        }
    }
}

/// `%40` is an at sign again.
fn decoded(text: &str) -> String {
    let plain = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(plain.as_bytes())
        .next()
        .map(|(text, _)| text.into_owned())
        .unwrap_or_default()
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
    pub async fn start(allowed: Vec<String>, upstream: Option<Upstream>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::new(Mutex::new(Asked::default()));
        let mut serving = JoinSet::new();
        let way = Arc::new(Way { allowed, upstream });
        serving.spawn(accept(listener, way, Arc::clone(&asked)));
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

/// Who may be reached, and how.
struct Way {
    allowed: Vec<String>,
    upstream: Option<Upstream>,
}

impl Way {
    async fn to(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        match self.upstream.as_ref().filter(|upstream| !upstream.leaves_out(host)) {
            Some(upstream) => upstream.connect(host, port).await,
            None => TcpStream::connect((host, port)).await,
        }
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>, asked: Arc<Mutex<Asked>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&way), Arc::clone(&asked)))),
                // Out of file descriptors, say: a moment later there are some.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut stream: TcpStream, way: Arc<Way>, asked: Arc<Mutex<Asked>>) {
    let Ok(Some(target)) = timeout(HEAD_WITHIN, head(&mut stream)).await else {
        return;
    };
    let (is_tunnel, host, port) = target;
    if is_tunnel && is_allowed(&host, &way.allowed) {
        let there = timeout(CONNECT_WITHIN, way.to(&host, port)).await;
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

/// A head, as far as the empty line. Bytes behind it are not read: they are the tunnel's.
async fn lines(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() >= LARGEST_HEAD {
            return None;
        }
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether it wants a tunnel, to which host and port.
async fn head(stream: &mut TcpStream) -> Option<(bool, String, u16)> {
    let text = lines(stream).await?;
    let mut words = text.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    if method == "CONNECT" {
        let (host, port) = target.rsplit_once(':')?;
        return Some((true, host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?));
    }
    // A plain request names its host in full.
    let url = Url::parse(target).ok()?;
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
        let proxy = Proxy::start(vec!["127.0.0.1".to_owned()], None).await.expect("a proxy");
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

    #[tokio::test]
    async fn what_is_allowed_goes_on_through_the_networks_own_proxy() {
        let own = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = own.local_addr().expect("an address");
        let environment = |name: &str| match name {
            "https_proxy" => Some(format!("http://us%40er:p%3Aw@{address}")),
            "NO_PROXY" => Some(".internal.example, 127.0.0.1".to_owned()),
            _ => None,
        };
        let upstream = Upstream::of_environment(environment).expect("one").expect("one");
        assert!(
            !format!("{upstream:?}").contains("dXNA"),
            "a login is no text to be shown"
        );
        assert!(upstream.leaves_out("db.internal.example") && upstream.leaves_out("127.0.0.1"));
        assert!(!upstream.leaves_out("example") && !upstream.leaves_out("evilinternal.example"));
        let proxy = Proxy::start(vec![".azure.com".to_owned()], Some(upstream))
            .await
            .expect("a proxy");
        let answers = async {
            let (mut stream, _) = own.accept().await.expect("asked");
            let asked = lines(&mut stream).await.expect("a head");
            stream
                .write_all(b"HTTP/1.1 200 Connected\r\nVia: own\r\n\r\nbehind it")
                .await
                .expect("sent");
            asked
        };
        let asks = async {
            let mut stream = TcpStream::connect(proxy.address).await.expect("connected");
            let asked = b"CONNECT management.azure.com:443 HTTP/1.1\r\n\r\n";
            stream.write_all(asked).await.expect("sent");
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect("an answer");
            String::from_utf8(answer).expect("text")
        };
        let (asked, answer) = tokio::join!(answers, asks);
        assert!(
            asked.starts_with("CONNECT management.azure.com:443 HTTP/1.1\r\n"),
            "{asked}"
        );
        assert!(asked.contains("Proxy-Authorization: Basic dXNAZXI6cDp3\r\n"), "{asked}");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("behind it"),
            "{answer}"
        );

        let of =
            |text: &'static str| Upstream::of_environment(move |name| (name == "HTTPS_PROXY").then(|| text.to_owned()));
        assert_eq!(of("").expect("none"), None);
        assert!(of("proxy.example:3128").is_ok_and(|one| one.is_some()));
        for wrong in ["https://proxy.example", "socks5://h:1"] {
            assert!(of(wrong).expect_err("no way").contains("HTTPS_PROXY"), "{wrong}");
        }
    }
}
