//! A real container registry of the lab, on loopback, with a store of its own.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::lab_dir;

/// Ends when dropped.
pub struct Registry {
    pub port: u16,
    _dir: TempDir,
    child: Child,
}

impl Registry {
    pub fn start() -> Self {
        let program = lab_dir().join("registry/root/usr/bin/docker-registry");
        assert!(program.is_file(), "the lab has no registry: scripts/lab setup registry");
        // A port is free, and then it may not be: whoever lost it tries again.
        for _ in 0..5 {
            let dir = TempDir::new().expect("a directory");
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .and_then(|held| held.local_addr())
                .expect("a port")
                .port();
            let config = format!(
                "version: 0.1\nlog: {{accesslog: {{disabled: true}}, level: error}}\nstorage:\n  delete: {{enabled: true}}\n  \
                 filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                dir.path().join("data").display()
            );
            std::fs::write(dir.path().join("config.yml"), config).expect("a configuration");
            let mut child = Command::new(&program)
                .args(["serve", &dir.path().join("config.yml").display().to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the registry starts");
            let give_up = Instant::now() + Duration::from_secs(30);
            while Instant::now() < give_up && child.try_wait().expect("asked").is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Self { port, _dir: dir, child };
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the registry did not start");
    }

    /// As images name it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
