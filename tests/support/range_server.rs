//! A small HTTP server on loopback that serves ranges of blobs to whoever knows the token, as a storage account does; and
//! misbehaves when told to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

struct Blob {
    bytes: Vec<u8>,
    version: u32,
}

#[derive(Default)]
struct State {
    token: String,
    blobs: BTreeMap<String, Blob>,
    misbehave: u32,
    replace: Option<(u32, String)>,
}

/// Serves until the process ends.
pub struct RangeServer {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl RangeServer {
    pub fn start(token: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            token: token.to_owned(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(&stream, &shared));
            }
        });
        Self { port, state }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let blob = Blob {
            bytes: bytes.to_vec(),
            version: 1,
        };
        self.state().blobs.insert(path.to_owned(), blob);
    }

    /// So many of the next answers are an error or come in part.
    pub fn misbehave(&self, answers: u32) {
        self.state().misbehave = answers;
    }

    pub fn misbehaviours_left(&self) -> u32 {
        self.state().misbehave
    }

    /// The blob becomes another version after so many answers.
    pub fn replace_after(&self, answers: u32, path: &str) {
        self.state().replace = Some((answers, path.to_owned()));
    }
}

fn answer(mut stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let request = lines.next()?.ok()?;
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (path, token) = request.split(' ').nth(1)?.split_once('?')?;
    let mut say = |status: &str, more: &str, body: &[u8], sent: usize| {
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{more}\r\n",
            body.len()
        );
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&body[..sent]));
        Some(())
    };
    if token != state.token {
        return say("403 Forbidden", "", b"", 0);
    }
    if state.misbehave > 0 && state.misbehave % 2 == 1 {
        state.misbehave -= 1;
        return say("503 Server Busy", "", b"", 0);
    }
    if let Some((answers, path)) = state.replace.take() {
        if answers == 0 {
            state.blobs.get_mut(&path)?.version += 1;
        } else {
            state.replace = Some((answers - 1, path));
        }
    }
    let is_cut = state.misbehave > 0;
    state.misbehave = state.misbehave.saturating_sub(1);
    let Some(blob) = state.blobs.get(path) else {
        return say("404 Not Found", "", b"", 0);
    };
    let etag = format!("\"v{}\"", blob.version);
    if headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
        return say("412 Precondition Failed", "", b"", 0);
    }
    let (first, last) = headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    let last = last.min(blob.bytes.len() - 1);
    let body = &blob.bytes[first..=last];
    let more = format!(
        "ETag: {etag}\r\nContent-Range: bytes {first}-{last}/{}\r\n",
        blob.bytes.len()
    );
    let sent = if is_cut { body.len() / 2 } else { body.len() };
    say("206 Partial Content", &more, body, sent)
}
