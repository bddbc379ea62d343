//! A moto of the test's own, with a strict CloudFront (`strict_moto.py`). Ends with the test.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

pub struct StrictMoto {
    pub address: SocketAddr,
    /// Write JSON here, and somebody else changes the distribution before the next update.
    pub meddler: PathBuf,
    child: Child,
    _dir: TempDir,
}

impl StrictMoto {
    pub fn start() -> Self {
        let dir = TempDir::new().expect("a directory");
        let meddler = dir.path().join("meddler");
        let python = super::lab_dir().join("moto/bin/python");
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/strict_moto.py");
        // Port 0: it says which one it took.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(python)
            .arg(script)
            .arg(&meddler)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let mut said = String::new();
        let address = loop {
            let line = lines
                .next()
                .unwrap_or_else(|| panic!("moto did not start: {said}"))
                .expect("a line");
            if let Some((_, port)) = line.split_once("http://127.0.0.1:") {
                let port: String = port.chars().take_while(char::is_ascii_digit).collect();
                break SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
            }
            said.push_str(&line);
        };
        // Nobody reads its log; it must not wait for that.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address,
            meddler,
            child,
            _dir: dir,
        }
    }
}

impl Drop for StrictMoto {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
