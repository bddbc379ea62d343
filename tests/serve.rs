//! The agent's HTTP server as scrapers, browsers and strangers meet it: the real process, raw sockets.

mod daemon;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use daemon::Daemon;
use support::{Flavor, Planb, Server, reader};

/// Other tests share these two cores.
const SOON: Duration = Duration::from_secs(60);
const TOKEN: &str = "7f3a9c0d5e8b41d2a6c3";

/// Free now; whoever takes it in between makes the test fail loudly.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address")
}

/// An agent that has something to do, with `[serve]` as given.
fn planb(schedule: &str, serve: &str) -> Planb {
    let server = Server::shared(Flavor::MySql);
    let schema = support::unique_schema("serve");
    server.sql(&format!(
        "CREATE DATABASE {schema}; CREATE TABLE {schema}.t (id INT PRIMARY KEY); INSERT INTO {schema}.t VALUES (1), (2);"
    ));
    let planb = Planb::new(&server, &reader(&server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    planb.configure(&format!(
        "[targets]\nrpo = \"1d\"\n[backup]\nschedule = \"{schedule}\"\nverify_source = \"never\"\n[serve]\n{serve}"
    ));
    planb
}

/// What came back for these bytes, until the other side closed.
fn raw(at: SocketAddr, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(at).expect("a connection");
    connection
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    connection.write_all(bytes).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer, and its end");
    answer
}

/// Status and the rest.
fn ask(at: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let answer = raw(
        at,
        format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n{headers}\r\n").as_bytes(),
    );
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {answer}")), answer)
}

fn get(at: SocketAddr, path: &str) -> (u16, String) {
    ask(at, "GET", path, "")
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

/// The value of a series, by its full name and labels.
fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

fn wait_served(agent: &mut Daemon) {
    agent.wait_log("status page, /metrics, /healthz and /readyz", 1, SOON);
}

#[test]
fn measurements_are_those_of_the_backups_that_were_made() {
    let at = free_port();
    let planb = planb("*/2 * * * * *", &format!("listen = \"{at}\""));
    let mut agent = Daemon::start(&planb);
    wait_served(&mut agent);
    agent.wait_log("backup committed", 2, SOON);
    let metrics = agent.wait("two runs in /metrics", SOON, |_| {
        let (_, answer) = get(at, "/metrics");
        value(&answer, "planb_backup_runs_total{result=\"committed\"}").filter(|runs| *runs >= 2.0)?;
        // Absent until the loop went round once more.
        value(&answer, "planb_rpo_seconds").map(|_| answer)
    });
    let figure = |series: &str| value(&metrics, series).unwrap_or_else(|| panic!("no {series} in {metrics}"));
    assert_eq!(figure("planb_backup_last_rows"), 2.0);
    assert_eq!(figure("planb_rpo_target_seconds"), 86_400.0);
    assert_eq!(figure("planb_rpo_state{state=\"met\"}"), 1.0);
    assert_eq!(figure("planb_rpo_state{state=\"breached\"}"), 0.0);
    assert!(figure("planb_rpo_seconds") < 60.0);
    assert!(figure("planb_backups_good") >= 2.0);
    assert!(figure("planb_backup_last_stored_bytes") > 0.0);
    assert_eq!(figure("planb_store_up"), 1.0);
    assert!(figure("planb_store_request_duration_seconds_count{operation=\"commit\",result=\"ok\"}") >= 2.0);
    assert!(figure("process_resident_memory_bytes") > 1e6);
    assert_eq!(
        figure(&format!(
            "planb_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        )),
        1.0
    );
    // Never proven: no age, rather than one of zero.
    assert_eq!(value(&metrics, "planb_proof_age_seconds"), None);
    agent.wait("what the journal says", SOON, |_| {
        value(&get(at, "/metrics").1, "planb_serving{site=\"primary\"}")
    });
    let stage = value(&get(at, "/metrics").1, "planb_stage");
    assert_eq!(stage, Some(1.0));

    let (status, open) = ask(
        at,
        "GET",
        "/metrics",
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n",
    );
    assert_eq!(status, 200);
    assert!(
        open.contains("Content-Type: application/openmetrics-text") && open.ends_with("# EOF\n"),
        "{open}"
    );
    assert_eq!(get(at, "/healthz").0, 200);
    assert_eq!(get(at, "/readyz").0, 200);
    assert_eq!(get(at, "/nothing").0, 404);

    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(10));
    assert!(TcpStream::connect(at).is_err(), "the port is given back");
}

#[test]
fn whoever_asks_for_more_than_a_page_gets_a_refusal() {
    let at = free_port();
    let planb = planb("0 3 * * *", &format!("listen = \"{at}\""));
    let mut agent = Daemon::start(&planb);
    wait_served(&mut agent);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        let (status, answer) = ask(at, method, "/metrics", "Content-Length: 0\r\n");
        assert_eq!(status, 405, "{answer}");
        assert!(answer.contains("\r\nAllow: GET, HEAD\r\n"), "{answer}");
    }
    // What follows the head is no second request.
    let smuggled = raw(
        at,
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_eq!(smuggled.matches("HTTP/1.1 ").count(), 1, "{smuggled}");
    let (status, answer) = ask(at, "HEAD", "/metrics", "");
    assert_eq!((status, body(&answer)), (200, ""));
    assert!(!answer.contains("Content-Length: 0\r\n"), "{answer}");
    assert!(raw(at, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").starts_with("HTTP/1.1 421 "));
    assert!(raw(at, b"\x16\x03\x01\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let long = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(40_000));
    assert!(raw(at, long.as_bytes()).starts_with("HTTP/1.1 431 "));
    // Who never ends a request holds up nobody, nor a stop.
    let silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(at).expect("a connection")).collect();
    let begun = Instant::now();
    assert_eq!(get(at, "/healthz").0, 200);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(12));
    drop(silent);
}

#[test]
fn a_token_is_asked_for_and_told_nowhere() {
    let at = free_port();
    let mut planb = planb(
        "0 3 * * *",
        &format!("listen = \"{at}\"\ntoken = \"env:PLANB_STATUS_TOKEN\""),
    );
    planb.env.push(("PLANB_STATUS_TOKEN".into(), TOKEN.into()));
    let mut agent = Daemon::start(&planb);
    wait_served(&mut agent);
    let (status, answer) = get(at, "/metrics");
    assert_eq!(status, 401);
    assert!(
        answer.contains("WWW-Authenticate: Basic ") && !answer.contains("planb_"),
        "{answer}"
    );
    assert_eq!(
        ask(at, "GET", "/metrics", &format!("Authorization: Bearer {TOKEN}x\r\n")).0,
        401
    );
    assert_eq!(
        ask(at, "GET", "/metrics", &format!("Authorization: Bearer {TOKEN}\r\n")).0,
        200
    );
    assert_eq!(get(at, "/healthz").0, 200);
    let ended = agent.stop();
    ended.assert_clean(Duration::from_secs(10));
    assert!(!ended.heard.told().contains(TOKEN), "the token was told");
}

#[test]
fn a_port_that_is_taken_is_told_and_stops_no_backup() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = taken.local_addr().expect("an address");
    let planb = planb("*/2 * * * * *", &format!("listen = \"{at}\""));
    let mut agent = Daemon::start(&planb);
    let told = agent.wait_log(
        "no status page and no /metrics; backups go on, and it is tried again",
        1,
        SOON,
    );
    let error = told[0]["error"].as_str().unwrap_or_default();
    assert!(
        error.contains(&at.to_string()) && error.contains("serve.listen"),
        "{error}"
    );
    agent.wait_log("backup committed", 2, SOON);
    // Another address by a reload.
    let other = free_port();
    planb.reconfigure(&at.to_string(), &other.to_string());
    agent.signal("HUP");
    wait_served(&mut agent);
    assert_eq!(get(other, "/healthz").0, 200);
    agent.stop().assert_clean(Duration::from_secs(10));
}
