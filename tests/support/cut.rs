//! A way to a server that ends at a chosen statement: it looks at what a client sends, counts, and cuts every connection
//! right before or right after the n-th statement that follows a given one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Where the way ends.
#[derive(Debug, Clone)]
pub enum When {
    /// Never; statements are only written down.
    Never,
    /// The statement with this number (from 1) does not reach the server.
    Before(usize),
    /// The server has done it, and nobody hears of it.
    After(usize),
    /// The first that begins so does not reach the server.
    BeforeThat(&'static str),
}

struct State {
    /// Counting begins after a statement that holds this.
    from: &'static str,
    counts: bool,
    seen: Vec<String>,
    when: When,
    is_cut: bool,
    streams: Vec<TcpStream>,
    told: Sender<()>,
}

pub struct Cut {
    pub port: u16,
    state: Arc<Mutex<State>>,
    cut: Receiver<()>,
}

impl Cut {
    /// A way to the server on `port`.
    pub fn to(port: u16, from: &'static str, when: When) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let (told, cut) = mpsc::channel();
        let state = Arc::new(Mutex::new(State {
            from,
            counts: false,
            seen: Vec::new(),
            when,
            is_cut: false,
            streams: Vec::new(),
            told,
        }));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                carry(client, server, &shared);
            }
        });
        Self { port: own, state, cut }
    }

    /// Waits for the cut. False if it did not come within `patience`.
    pub fn is_cut_within(&self, patience: Duration) -> bool {
        self.cut.recv_timeout(patience).is_ok()
    }

    /// Statements since counting began; the last is the one at which it was cut.
    pub fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).seen.clone()
    }
}

fn carry(client: TcpStream, server: TcpStream, state: &Arc<Mutex<State>>) {
    let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
    let (to_server, to_client) = (copy(&server), copy(&client));
    {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.streams.extend([copy(&client), copy(&server)]);
    }
    // Whether the server's next answer is that to the last statement.
    let last = Arc::new(Mutex::new(false));
    let (upwards, is_last) = (Arc::clone(state), Arc::clone(&last));
    thread::spawn(move || up(client, to_server, &upwards, &is_last));
    let downwards = Arc::clone(state);
    thread::spawn(move || down(server, to_client, &downwards, &last));
}

/// Client to server, packet by packet.
fn up(mut client: TcpStream, mut server: TcpStream, state: &Mutex<State>, last: &Mutex<bool>) {
    let mut head = [0; 4];
    while client.read_exact(&mut head).is_ok() {
        let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
        let mut packet = head.to_vec();
        packet.resize(4 + length, 0);
        if client.read_exact(&mut packet[4..]).is_err() {
            break;
        }
        // COM_QUERY begins a conversation's turn.
        if head[3] == 0 && packet.get(4) == Some(&3) {
            let sql = String::from_utf8_lossy(&packet[5..]).into_owned();
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.is_cut {
                return;
            }
            if state.counts {
                state.seen.push(sql.clone());
                let number = state.seen.len();
                match state.when {
                    When::Before(at) if at == number => return cut(&mut state),
                    When::BeforeThat(word) if sql.starts_with(word) => return cut(&mut state),
                    When::After(at) if at == number => {
                        *last.lock().unwrap_or_else(PoisonError::into_inner) = true;
                    }
                    When::Never | When::Before(_) | When::After(_) | When::BeforeThat(_) => {}
                }
            }
            state.counts |= sql.contains(state.from);
        }
        if server.write_all(&packet).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

/// Server to client.
fn down(mut server: TcpStream, mut client: TcpStream, state: &Mutex<State>, last: &Mutex<bool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length) = server.read(&mut buffer) {
        if length == 0 {
            break;
        }
        if *last.lock().unwrap_or_else(PoisonError::into_inner) {
            return cut(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if client.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

fn cut(state: &mut State) {
    state.is_cut = true;
    for stream in &state.streams {
        let _ = stream.shutdown(Shutdown::Both);
    }
    // Nobody waits any more if the test has failed.
    let _ = state.told.send(());
}
