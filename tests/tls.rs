//! Encrypted and verified, or refused in words that say so, on MySQL and MariaDB; and each way of logging in.

mod support;

use std::path::Path;

use support::{Flavor, PASSWORD, Planb, Server, TlsFiles, reader, tls_files};
use tempfile::TempDir;

/// A server that speaks only TLS, on every loopback address, with its certificates and a configuration that trusts them.
fn encrypted(flavor: Flavor, dir: &Path) -> (TlsFiles, Server, Planb) {
    let files = tls_files(dir);
    let mut args = files.server_args();
    args.push("--bind-address=0.0.0.0".to_owned());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let server = Server::start(flavor, &args);
    server.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1), (2)");
    let planb = Planb::new(&server, &reader(&server, &[]));
    planb.reconfigure("tls = \"off\"", &required(&files.ca));
    // What is taken for an outage is tried again for so long, and then the test says what it was.
    planb.configure("[backup]\nstall = \"5s\"\ntimeout = \"1m\"");
    (files, server, planb)
}

fn required(ca: &Path) -> String {
    format!("tls = \"required\"\ntls_ca = \"{}\"", ca.display())
}

fn assert_tls_error(said: &str, server: &Server) {
    assert!(
        said.contains("TLS with the database at") && said.contains(&server.port.to_string()),
        "{said}"
    );
    assert!(
        said.contains("check tls_ca, or that the host is the certificate's name"),
        "{said}"
    );
    // What will not change is not tried again.
    assert!(!said.contains("attempt failed"), "{said}");
}

fn only_what_is_verified(flavor: Flavor) {
    let (dir, other) = (
        TempDir::new().expect("a directory"),
        TempDir::new().expect("a directory"),
    );
    let (files, server, planb) = encrypted(flavor, dir.path());
    let trusted = required(&files.ca);
    assert_eq!(planb.json(&["--json", "backup", "--verify-source"])["rows"], 2);
    planb.reconfigure("host = \"127.0.0.1\"", "host = \"localhost\"");
    planb.ok(&["backup"]);
    planb.reconfigure("host = \"localhost\"", "host = \"127.0.0.1\"");

    let stranger = required(&tls_files(other.path()).ca);
    planb.reconfigure(&trusted, &stranger);
    assert_tls_error(&planb.fails(1, &["backup"]), &server);
    planb.reconfigure(&stranger, &trusted);

    // The certificate is for 127.0.0.1 and localhost.
    planb.reconfigure("host = \"127.0.0.1\"", "host = \"127.0.0.2\"");
    assert_tls_error(&planb.fails(1, &["backup"]), &server);
    planb.reconfigure("host = \"127.0.0.2\"", "host = \"127.0.0.1\"");

    planb.reconfigure(&trusted, "tls = \"required\"");
    assert_tls_error(&planb.fails(1, &["backup"]), &server);
    planb.reconfigure("tls = \"required\"", &trusted);

    let nonsense = other.path().join("nonsense.pem");
    std::fs::write(&nonsense, "no certificate").expect("a file");
    planb.reconfigure(&trusted, &required(&nonsense));
    assert_tls_error(&planb.fails(1, &["backup"]), &server);
    planb.reconfigure(&required(&nonsense), &required(&other.path().join("absent.pem")));
    let said = planb.fails(1, &["backup"]);
    assert!(
        said.contains("[source] tls_ca") && said.contains("absent.pem"),
        "{said}"
    );

    planb.reconfigure(&required(&other.path().join("absent.pem")), "tls = \"off\"");
    let said = planb.fails(1, &["backup"]);
    // MariaDB does not say why.
    let reason = if flavor == Flavor::MySql {
        "require_secure_transport"
    } else {
        "Access denied"
    };
    assert!(
        said.contains("refused account reader") && said.contains(reason),
        "{said}"
    );
    assert_eq!(planb.visible().len(), 2);
}

#[test]
fn mysql_is_spoken_to_only_verified() {
    only_what_is_verified(Flavor::MySql);
}

#[test]
fn mariadb_is_spoken_to_only_verified() {
    only_what_is_verified(Flavor::MariaDb);
}

#[test]
fn a_server_that_knows_no_tls_is_refused() {
    let dir = TempDir::new().expect("a directory");
    let files = tls_files(dir.path());
    for (flavor, without) in [(Flavor::MySql, "--tls-version="), (Flavor::MariaDb, "--skip-ssl")] {
        let server = Server::start(flavor, &[without]);
        server.sql("CREATE DATABASE bank");
        let planb = Planb::new(&server, &reader(&server, &[]));
        planb.reconfigure("tls = \"off\"", &required(&files.ca));
        planb.configure("[backup]\nstall = \"5s\"\ntimeout = \"1m\"");
        assert_tls_error(&planb.fails(1, &["backup"]), &server);
    }
}

/// The server forgets whom it has seen, so that the password travels: encrypted by TLS, or else by the server's RSA key.
#[test]
fn caching_sha2_logs_in_with_tls_and_without() {
    let dir = TempDir::new().expect("a directory");
    let (_, server, planb) = encrypted(Flavor::MySql, dir.path());
    let plugin = "SELECT plugin FROM mysql.user WHERE user = 'reader'";
    assert_eq!(server.rows(plugin), [["caching_sha2_password"]]);
    server.sql("FLUSH PRIVILEGES");
    planb.ok(&["backup"]);
    // And once more, known to the server by now.
    planb.ok(&["backup"]);
    let plain = Server::start(Flavor::MySql, &[]);
    plain.sql("CREATE DATABASE bank");
    let mut planb = Planb::new(&plain, &reader(&plain, &[]));
    planb.configure("[backup]\nstall = \"5s\"\ntimeout = \"1m\"");
    plain.sql("FLUSH PRIVILEGES");
    planb.ok(&["backup"]);
    planb.ok(&["backup"]);
    for password in ["wrong", "", &format!("{PASSWORD} "), &"long".repeat(200)] {
        plain.sql("FLUSH PRIVILEGES");
        planb.env.push(("PLANB_SOURCE_PASSWORD".into(), password.to_owned()));
        let said = planb.fails(1, &["backup"]);
        // The server's key is too short for the longest one.
        let right = match password.len() {
            0 => "set but empty",
            800.. => "the login makes no sense: message too long",
            _ => "refused account reader",
        };
        assert!(said.contains(right), "{} letters: {said}", password.len());
    }
}

#[test]
fn passwords_of_any_letters_log_in() {
    for flavor in Flavor::ALL {
        let dir = TempDir::new().expect("a directory");
        let (_, server, mut planb) = encrypted(flavor, dir.path());
        for password in ["'; DROP \"x\" \\ % & ? # /:@", "비밀번호 🐻 ü", " spaces "] {
            let literal = password.replace('\\', "\\\\").replace('\'', "''");
            server.sql(&format!("ALTER USER reader@'%' IDENTIFIED BY '{literal}'"));
            planb.env.push(("PLANB_SOURCE_PASSWORD".into(), password.to_owned()));
            planb.ok(&["backup"]);
        }
    }
}
