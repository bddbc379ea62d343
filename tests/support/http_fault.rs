//! A small HTTP proxy that misbehaves on purpose, between a client and an emulator.
//!
//! One request for each connection (it adds `Connection: close`), so that every request meets the rules.
//! Include with `#[path = "support/http_fault.rs"] mod http_fault;`.

#![allow(dead_code, reason = "shared by several test files; none uses all of it")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// This status and a `ServerBusy` error code, without asking the server.
    Status(u16),
    /// The connection is reset before the server is asked.
    Reset,
    /// The request is read, then nothing.
    Hang,
    /// The server does it, and the answer never comes.
    HangAfter,
    /// The server does it, but the answer is dropped and the connection reset.
    SwallowAnswer,
    /// Only this many bytes of the server's answer, head included, arrive.
    CutAnswer(usize),
    /// The last byte of the request's body is changed on its way.
    CorruptBody,
    /// Passed on after a pause.
    Delay(Duration),
}

/// The next `times` requests whose head (request line and headers) contains every one of `containing` meet `fault`.
#[derive(Debug, Clone)]
pub struct Rule {
    pub containing: Vec<String>,
    pub fault: Fault,
    pub times: usize,
    /// So many of them are let through before.
    pub skips: usize,
}

impl Rule {
    /// The first `skips` such requests meet no fault.
    pub fn after(self, skips: usize) -> Self {
        Self { skips, ..self }
    }

    pub fn new(containing: &[&str], fault: Fault, times: usize) -> Self {
        Self {
            containing: containing.iter().map(ToString::to_string).collect(),
            fault,
            times,
            skips: 0,
        }
    }
}

/// Runs until dropped.
pub struct HttpFault {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    upstream: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    /// Request line of every request, with what was done to it.
    log: Mutex<Vec<(String, Option<Fault>)>>,
    /// Heads of those that the server did and nobody hears of.
    done: Mutex<Vec<String>>,
}

impl HttpFault {
    pub async fn start(upstream: SocketAddr, rules: impl IntoIterator<Item = Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream,
            rules: Mutex::new(rules.into_iter().collect()),
            log: Mutex::default(),
            done: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn add(&self, rule: Rule) {
        self.shared.rules.lock().expect("rules").push(rule);
    }

    /// From now on nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.rules.lock().expect("rules").clear();
    }

    /// Requests seen so far whose request line contains `text`, each with its fault.
    pub fn requests(&self, text: &str) -> Vec<(String, Option<Fault>)> {
        let log = self.shared.log.lock().expect("log");
        log.iter().filter(|(line, _)| line.contains(text)).cloned().collect()
    }

    /// How many requests were done by the server, and met [`Fault::HangAfter`].
    pub fn done_unheard(&self) -> usize {
        self.shared.done.lock().expect("done").len()
    }

    /// How many requests met a fault.
    pub fn faults_met(&self) -> usize {
        self.shared
            .log
            .lock()
            .expect("log")
            .iter()
            .filter(|(_, fault)| fault.is_some())
            .count()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // An error here is a connection that ended: the client sees it.
                    let _ = serve(client, &shared).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let Some((head, mut body)) = read_request(&mut client).await? else {
        return Ok(());
    };
    let fault = shared.draw(&head);
    let line = head.lines().next().unwrap_or_default().to_owned();
    shared.log.lock().expect("log").push((line, fault.clone()));
    match &fault {
        Some(Fault::Reset) => return reset(client),
        Some(Fault::Hang) => {
            std::future::pending::<()>().await;
        }
        Some(Fault::Status(status)) => {
            let answer = format!(
                "HTTP/1.1 {status} Injected\r\nx-ms-error-code: ServerBusy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            client.write_all(answer.as_bytes()).await?;
            return client.shutdown().await;
        }
        Some(Fault::CorruptBody) => {
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
        }
        Some(Fault::Delay(pause)) => tokio::time::sleep(*pause).await,
        Some(Fault::HangAfter | Fault::SwallowAnswer | Fault::CutAnswer(_)) | None => {}
    }
    let mut upstream = TcpStream::connect(shared.upstream).await?;
    upstream.write_all(closing(&head).as_bytes()).await?;
    upstream.write_all(&body).await?;
    match fault {
        Some(Fault::HangAfter) => {
            upstream.read_to_end(&mut Vec::new()).await?;
            shared.done.lock().expect("done").push(head);
            std::future::pending().await
        }
        Some(Fault::SwallowAnswer) => {
            upstream.read_to_end(&mut Vec::new()).await?;
            reset(client)
        }
        Some(Fault::CutAnswer(bytes)) => {
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer).await?;
            client.write_all(&answer[..bytes.min(answer.len())]).await?;
            client.shutdown().await
        }
        _ => {
            tokio::io::copy(&mut upstream, &mut client).await?;
            client.shutdown().await
        }
    }
}

impl Shared {
    fn draw(&self, head: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().expect("rules");
        let met = rules
            .iter_mut()
            .find(|rule| rule.times > 0 && rule.containing.iter().all(|c| head.contains(c)))?;
        if met.skips > 0 {
            met.skips -= 1;
            return None;
        }
        met.times -= 1;
        Some(met.fault.clone())
    }
}

/// Head (with its empty line) and body; `None` if the client closed without asking anything.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    };
    let body = read.split_off(end);
    let head = String::from_utf8_lossy(&read).into_owned();
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    let mut body = body;
    while body.len() < length {
        if client.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some((head, body)))
}

/// `head` with `Connection: close`, so that the end of the answer is the end of the connection.
fn closing(head: &str) -> String {
    let kept: String = head
        .trim_end()
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    format!("{kept}Connection: close\r\n\r\n")
}

/// Closes with RST instead of FIN, as a crashed peer or a firewall does.
fn reset(client: TcpStream) -> std::io::Result<()> {
    client.set_zero_linger()?;
    drop(client);
    Ok(())
}
