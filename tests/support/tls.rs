//! Certificates for one test: an authority of its own, and a server certificate for loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::run;

#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// Arguments for a server that speaks TLS with these and refuses to speak without.
    pub fn server_args(&self) -> Vec<String> {
        vec![
            format!("--ssl-ca={}", self.ca.display()),
            format!("--ssl-cert={}", self.cert.display()),
            format!("--ssl-key={}", self.key.display()),
            "--require-secure-transport=ON".to_owned(),
        ]
    }
}

/// Writes a new authority and a server certificate for 127.0.0.1 and localhost into `dir`, good for two
/// days. Two calls give two authorities, neither of which trusts the other's servers.
pub fn tls_files(dir: &Path) -> TlsFiles {
    let file = |name: &str| dir.join(name);
    let new_key = [
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    openssl(|command| {
        command
            .args(new_key)
            .args(["-x509", "-days", "2", "-subj", "/CN=PlanB lab authority"])
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .arg("-keyout")
            .arg(file("ca-key.pem"))
            .arg("-out")
            .arg(file("ca.pem"));
    });
    openssl(|command| {
        command
            .args(new_key)
            .args(["-subj", "/CN=PlanB lab server"])
            .arg("-keyout")
            .arg(file("server-key.pem"))
            .arg("-out")
            .arg(file("server.csr"));
    });
    let extensions = "subjectAltName=IP:127.0.0.1,DNS:localhost\n\
                      extendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n";
    fs::write(file("server.ext"), extensions).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    openssl(|command| {
        command
            .args(["x509", "-req", "-days", "2", "-CAcreateserial"])
            .arg("-in")
            .arg(file("server.csr"))
            .arg("-CA")
            .arg(file("ca.pem"))
            .arg("-CAkey")
            .arg(file("ca-key.pem"))
            .arg("-extfile")
            .arg(file("server.ext"))
            .arg("-out")
            .arg(file("server.pem"));
    });
    TlsFiles {
        ca: file("ca.pem"),
        cert: file("server.pem"),
        key: file("server-key.pem"),
    }
}

fn openssl(with: impl FnOnce(&mut Command)) {
    let mut command = Command::new("openssl");
    assert!(
        Command::new("openssl").arg("version").output().is_ok(),
        "the openssl command is missing: apt-get install openssl"
    );
    with(&mut command);
    run(&mut command);
}
