//! An HTTP endpoint for messages: a real one on loopback, which takes them, hangs, fails, and recovers as the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// What it does with the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// Reads it, and never answers.
    Hangs,
    /// This status, with a Retry-After of so many seconds.
    Answers(u16, Option<u64>),
}

/// One request, and whether it was taken.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: String,
    pub body: String,
    /// The same, where it is no text.
    pub bytes: Vec<u8>,
    pub taken: bool,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim())
    }
}

struct Inner {
    manner: Mutex<Manner>,
    got: Mutex<Vec<Message>>,
    over: AtomicBool,
}

/// Runs until dropped.
pub struct Receiver {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl Receiver {
    pub fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Inner {
            manner: Mutex::new(manner),
            got: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let shared = Arc::clone(&inner);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A peer that goes away is no defect of the test.
                thread::spawn(move || drop(serve(&connection, &shared)));
            }
        });
        Self { address, inner }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub fn set(&self, manner: Manner) {
        *lock(&self.inner.manner) = manner;
    }

    /// Everything that came, taken or not.
    pub fn got(&self) -> Vec<Message> {
        lock(&self.inner.got).clone()
    }

    pub fn count(&self) -> usize {
        lock(&self.inner.got).len()
    }

    pub fn taken(&self) -> Vec<Message> {
        self.got().into_iter().filter(|message| message.taken).collect()
    }

    /// Waits for a message that was taken and holds all of these.
    pub fn wait(&self, holding: &[&str]) -> Message {
        let is_meant = |message: &Message| message.taken && holding.iter().all(|text| message.body.contains(text));
        self.wait_for(&format!("{holding:?}"), is_meant)
    }

    pub fn wait_for(&self, what: &str, is_meant: impl Fn(&Message) -> bool) -> Message {
        let end = Instant::now() + Duration::from_secs(90);
        loop {
            if let Some(found) = self.got().into_iter().find(|message| is_meant(message)) {
                return found;
            }
            assert!(
                Instant::now() < end,
                "no message with {what}; there are {:#?}",
                self.got()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inner.over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(connection: &TcpStream, inner: &Inner) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let length = head
        .lines()
        .filter_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(str::trim)
                .map(str::to_owned)
        })
        .find_map(|length| length.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let manner = *lock(&inner.manner);
    lock(&inner.got).push(Message {
        head,
        body: String::from_utf8_lossy(&body).into_owned(),
        bytes: body,
        taken: manner == Manner::Takes,
    });
    let mut writer = connection;
    match manner {
        Manner::Takes => write!(
            writer,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
        ),
        Manner::Answers(status, retry_after) => {
            let retry = retry_after.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n"));
            write!(
                writer,
                "HTTP/1.1 {status} No\r\n{retry}Content-Length: 10\r\nConnection: close\r\n\r\nno_service"
            )
        }
        Manner::Hangs => {
            // As long as it is meant to: the peer gives up, or the test is over.
            while *lock(&inner.manner) == Manner::Hangs && !inner.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
