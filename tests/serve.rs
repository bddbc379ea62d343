//! The agent's HTTP server as scrapers, browsers and strangers meet it: the real process, raw sockets.

mod daemon;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use daemon::Daemon;
use support::receiver::{Manner, Receiver};
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
    let mut silent: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(at).expect("a connection"))
        .collect();
    for (number, connection) in silent.iter_mut().enumerate() {
        // Half of them a byte at least. Who was sent away already gets an error.
        if number % 2 == 0 {
            let _ = connection.write_all(b"G");
        }
    }
    assert!([200, 503].contains(&get(at, "/healthz").0));
    // The youngest still waits: nobody had to give up for others to be answered.
    let last = silent.last_mut().expect("a hundred");
    last.set_nonblocking(true).expect("a mode");
    let mut byte = [0];
    assert!(
        matches!(last.read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "it was answered only after the silent ones were given up"
    );
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
    // Without the token, as soon as the loop went round once.
    agent.wait("health", SOON, |_| (get(at, "/healthz").0 == 200).then_some(()));
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
    agent.wait("health", SOON, |_| (get(other, "/healthz").0 == 200).then_some(()));
    agent.stop().assert_clean(Duration::from_secs(10));
}

/// promtool from the lab, which must find nothing to say.
fn promtool(args: &[&str], stdin: &str) {
    let mut tool = Command::new(support::lab_dir().join("prometheus/bin/promtool"));
    tool.args(args)
        .current_dir(project().join("config/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = tool.spawn().expect("promtool: scripts/lab setup prometheus");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(stdin.as_bytes())
        .expect("written");
    let output = child.wait_with_output().expect("an end");
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "promtool {args:?}: {told}");
    // It ends well although it found something to improve.
    if args[0] == "check" && args[1] == "metrics" {
        assert_eq!(told, "", "promtool {args:?}");
    }
}

fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every name of a metric in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("planb_") || word.starts_with("process_"))
        .collect()
}

/// There only once something happened.
const LATER: [&str; 2] = ["planb_proof_age_seconds", "planb_store_retries_total"];

#[test]
fn prometheus_own_judge_finds_nothing_to_improve() {
    promtool(&["check", "rules", "planb.rules.yml"], "");
    promtool(&["test", "rules", "planb.rules.test.yml"], "");
    let at = free_port();
    let mut planb = planb("*/2 * * * * *", &format!("listen = \"{at}\""));
    // One channel does not take what it is sent; one watcher is there, and one is not.
    let refuses = Receiver::start(Manner::Answers(503, None));
    planb.env.push(("PLANB_TEST_HOOK".into(), refuses.url("hook")));
    planb.configure(&format!(
        "[notify]\nstate = \"{}\"\n[[notify.channels]]\nname = \"down\"\nkind = \"webhook\"\nurl = \"env:PLANB_TEST_HOOK\"\n\
         [watch]\nname = \"here\"\nprimary_region = \"local\"\nevery = \"5s\"\nstale_after = \"30s\"\n\
         watchers = [{{ name = \"here\", region = \"local\" }}, {{ name = \"there\", region = \"afar\" }}]\n\
         [[watch.probes]]\nname = \"page\"\nkind = \"tcp\"\nhost = \"127.0.0.1\"\nport = {}\ninterval = \"5s\"\ntimeout = \"2s\"\n",
        planb.path().display(),
        at.port()
    ));
    let mut agent = Daemon::start(&planb);
    wait_served(&mut agent);
    agent.wait_log("backup committed", 1, SOON);
    let metrics = agent.wait("everything in /metrics", 2 * SOON, |_| {
        let answer = get(at, "/metrics").1;
        let has = |series: &str| value(&answer, series).is_some_and(|value| value > 0.0);
        let is_whole = answer.contains("planb_serving")
            && answer.contains("planb_rpo_seconds")
            && answer.contains("planb_backup_last_rows")
            && has("planb_notifications_waiting{channel=\"down\"}")
            && has("planb_notification_failures_total{channel=\"down\"}")
            && has("planb_watcher_sees{watcher=\"here\",verdict=\"healthy\"}");
        is_whole.then(|| body(&answer).to_owned())
    });
    // One of two is no majority.
    for (series, wanted) in [
        ("planb_watcher_sees{watcher=\"there\",verdict=\"absent\"}", 1.0),
        ("planb_watch_verdict{verdict=\"unknown\"}", 1.0),
        ("planb_watch_verdict{verdict=\"healthy\"}", 0.0),
        ("planb_watch_readable", 1.0),
        ("planb_notifications_delivered_total{channel=\"down\"}", 0.0),
    ] {
        assert_eq!(value(&metrics, series), Some(wanted), "{series} in {metrics}");
    }
    promtool(&["check", "metrics"], &metrics);
    // A rule or a panel about a metric that there is not says nothing for ever.
    let there = names(&metrics);
    for file in ["config/prometheus/planb.rules.yml", "config/grafana/planb.json"] {
        let text = std::fs::read_to_string(project().join(file)).expect("the file");
        for name in names(&text) {
            let is_there = there.contains(name) || LATER.contains(&name);
            assert!(is_there, "{file} speaks of {name}, which /metrics has not");
        }
    }
    let dashboard = std::fs::read_to_string(project().join("config/grafana/planb.json")).expect("the file");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
    agent.stop().assert_clean(Duration::from_secs(10));
}

#[test]
fn a_check_is_one_line_with_figures_and_the_exit_code_of_a_plugin() {
    let planb = planb("0 3 * * *", "");
    let one = |exit: i32| {
        let output = planb.run(&["check"]);
        assert_eq!(output.status.code(), Some(exit), "{}", support::planb::text(&output));
        let line = String::from_utf8(output.stdout).expect("text");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        line
    };
    assert!(one(2).starts_with("PLANB CRITICAL - backup: there is no good backup"));
    planb.backup(&[]);
    // How full this machine's disk is, is its own matter.
    let json = planb.run(&["--json", "check"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("one object");
    let checks = json["checks"].as_array().expect("a list");
    let state = |about: &str| {
        checks
            .iter()
            .find(|check| check["about"] == about)
            .map(|check| check["state"].clone())
    };
    assert_eq!(
        (&json["v"], state("backup"), state("proof")),
        (&1.into(), Some("OK".into()), Some("WARNING".into()))
    );
    let is_full = state("disk") == Some("CRITICAL".into());
    let line = one(if is_full { 2 } else { 1 });
    assert!(
        line.contains(" - proof: no backup was restored and checked yet"),
        "{line}"
    );
    let figures = line.split_once(" | ").expect("figures").1;
    assert!(
        figures.starts_with("rpo=") && figures.contains(";;86400;0 ") && figures.contains(" backups=1;"),
        "{figures}"
    );
    let verbose = String::from_utf8(planb.run(&["check", "--verbose"]).stdout).expect("text");
    for about in [
        "backup", "proof", "lease", "serving", "secrets", "disk", "clock", "version",
    ] {
        assert!(
            verbose
                .lines()
                .any(|line| line.split_whitespace().nth(1) == Some(about)
                    || line.split_whitespace().next() == Some(about)),
            "{about}: {verbose}"
        );
    }

    // A certificate of somebody's authority, read as openssl wrote it.
    let tls = support::tls_files(planb.path());
    let ends = planb::prepare::certificate::ends_of(&std::fs::read(&tls.ca).expect("a certificate"));
    assert_eq!(ends.len(), 1);
    let told = Command::new("openssl")
        .args(["x509", "-enddate", "-noout", "-dateopt", "iso_8601", "-in"])
        .arg(&tls.ca)
        .output();
    let told = String::from_utf8(told.expect("openssl").stdout).expect("text");
    assert_eq!(
        told.trim(),
        format!("notAfter={}", ends[0].strftime("%Y-%m-%d %H:%M:%SZ"))
    );

    planb.write_config("nothing = 1");
    assert!(one(3).starts_with("PLANB UNKNOWN - configuration: "));
    std::fs::remove_file(planb.config()).expect("a file");
    one(3);
}

/// An HTTPS server that answers anything, ended when dropped.
struct Https(std::process::Child, u16);

impl Https {
    fn start(tls: &support::TlsFiles, within: &std::path::Path) -> Self {
        let port = free_port().port();
        let program = format!(
            "import http.server, ssl\n\
             server = http.server.ThreadingHTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler)\n\
             context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
             context.load_cert_chain('{}', '{}')\n\
             server.socket = context.wrap_socket(server.socket, server_side=True)\n\
             server.serve_forever()",
            tls.cert.display(),
            tls.key.display()
        );
        let mut python = Command::new(support::lab_dir().join("moto/bin/python"));
        python.args(["-c", &program]).current_dir(within).stderr(Stdio::null());
        let child = python.spawn().expect("python: scripts/lab setup moto");
        let end = std::time::Instant::now() + SOON;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(std::time::Instant::now() < end, "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self(child, port)
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_check_sees_what_endpoints_show_and_which_servers_there_are() {
    let planb = planb("0 3 * * *", "");
    let tls = support::tls_files(planb.path());
    let https = Https::start(&tls, planb.path());
    let standby = Server::shared(Flavor::MySql);
    planb.configure(&format!(
        "[watch]\nname = \"here\"\nprimary_region = \"local\"\nwatchers = [{{ name = \"here\", region = \"local\" }}]\n\
         [[watch.probes]]\nname = \"page\"\nkind = \"http\"\nurl = \"https://localhost:{}/deep/page\"\ntls_ca = \"{}\"\n\
         [standby]\nhost = \"127.0.0.1\"\nport = {}\nuser = \"reader\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n",
        https.1,
        tls.ca.display(),
        standby.port
    ));
    let found = |about: &str| {
        let output = planb.run(&["--json", "check"]);
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        let checks = json["checks"].as_array().expect("a list");
        let one = checks.iter().find(|check| check["about"] == about);
        one.map(|one| {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            (text("state"), text("text"))
        })
    };
    // It holds for two days: somebody has to be told.
    let (state, text) = found("certificates").expect("the certificate that is shown");
    let origin = format!("https://localhost:{}/", https.1);
    assert!(state == "CRITICAL" && text.contains(&origin), "{state} {text}");
    let (state, text) = found("servers").expect("both servers");
    assert!(state == "OK" && text.starts_with("source MySQL"), "{state} {text}");
    assert_eq!(found("told").map(|(state, _)| state).as_deref(), Some("OK"));
    // Nothing of a plan: nobody looks in the dark.
    assert_eq!(found("dark"), None);

    let other = Server::shared(Flavor::MariaDb);
    reader(&other, &[]);
    planb.reconfigure(
        &format!("[standby]\nhost = \"127.0.0.1\"\nport = {}", standby.port),
        &format!("[standby]\nhost = \"127.0.0.1\"\nport = {}", other.port),
    );
    let (state, text) = found("servers").expect("both servers");
    assert!(
        state == "CRITICAL" && text.contains("would be refused"),
        "{state} {text}"
    );
}
