//! A way to a server that a file opens and shuts: what is written in it decides about each new connection, so that a script can do it
//! in the middle of something. `shut`: refused; `silent`: taken, and nothing more; anything else, or no file: carried.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

pub struct Gate {
    pub port: u16,
    mode: PathBuf,
}

impl Gate {
    /// To the server on `port`; ends with the test's process.
    pub fn to(port: u16, mode: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let path = mode.to_owned();
        thread::spawn(move || {
            let mut held = Vec::new();
            for client in listener.incoming().flatten() {
                match std::fs::read_to_string(&path).unwrap_or_default().trim() {
                    "shut" => drop(client),
                    "silent" => held.push(client),
                    _ => {
                        let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                            continue;
                        };
                        carry(&client, &server);
                        carry(&server, &client);
                    }
                }
            }
        });
        Self {
            port: own,
            mode: mode.to_owned(),
        }
    }

    pub fn set(&self, mode: &str) {
        std::fs::write(&self.mode, mode).expect("a mode");
    }
}

fn carry(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    thread::spawn(move || {
        // However it ends, the other side is told.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
}
