//! A real Chromium without a screen, driven by chromedriver over the WebDriver protocol.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// One browser window. Ended when dropped.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let profile = TempDir::new().expect("a directory");
        // A group of its own, so that the browsers it starts end with it.
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver (Debian: chromium-driver)");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            _profile: profile,
        };
        let deadline = Instant::now() + STARTS_WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "chromedriver does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        let data = format!("--user-data-dir={}", browser._profile.path().display());
        let asked = json!({"capabilities": {"alwaysMatch": {
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", data,
            ]},
        }}});
        let made = browser.call("POST", "/session", &asked);
        browser.session = made["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no browser: {made}"))
            .to_owned();
        browser
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "GET" {
            String::new()
        } else {
            body.to_string()
        };
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).expect("chromedriver");
        connection.set_read_timeout(Some(STARTS_WITHIN)).expect("a timeout");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        connection.write_all(head.as_bytes()).expect("sent");
        let mut answer = Vec::new();
        let mut piece = [0; 65_536];
        // It may keep the connection: the length says where the answer ends.
        loop {
            let read = connection.read(&mut piece).expect("an answer");
            answer.extend_from_slice(&piece[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse::<usize>()
                        .ok()
                });
                if read == 0 || length.is_some_and(|length| rest.len() >= length) {
                    let parsed: Value = serde_json::from_str(rest).unwrap_or_else(|error| panic!("{error}: {rest}"));
                    return parsed["value"].clone();
                }
            }
            assert!(read > 0, "chromedriver hung up: {text}");
        }
    }

    fn of_session(&self, method: &str, path: &str, body: &Value) -> Value {
        self.call(method, &format!("/session/{}{path}", self.session), body)
    }

    pub fn open(&self, url: &str) {
        self.of_session("POST", "/url", &json!({"url": url}));
    }

    pub fn resize(&self, width: u32, height: u32) {
        self.of_session("POST", "/window/rect", &json!({"width": width, "height": height}));
    }

    pub fn script(&self, script: &str) -> Value {
        self.of_session("POST", "/execute/sync", &json!({"script": script, "args": []}))
    }

    /// What a person reads.
    pub fn text(&self) -> String {
        // While the page loads itself anew there may be none.
        self.script("return document.body ? document.body.innerText : ''")
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn log(&self, kind: &str) -> Vec<Value> {
        let entries = self.of_session("POST", "/se/log", &json!({"type": kind}));
        entries.as_array().cloned().unwrap_or_default()
    }

    /// Light or dark, and how large a phone's pixels are.
    pub fn devtools(&self, command: &str, params: &Value) {
        self.of_session("POST", "/goog/cdp/execute", &json!({"cmd": command, "params": params}));
    }

    /// PNG, in base64.
    pub fn screenshot(&self) -> String {
        self.of_session("GET", "/screenshot", &Value::Null)
            .as_str()
            .expect("a picture")
            .to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() && !std::thread::panicking() {
            self.of_session("DELETE", "", &Value::Null);
        }
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.driver.wait();
    }
}
