//! Watchers with real servers: what is taken down is seen, what comes back is seen, and with `auto` one of three watchers takes the
//! service to the standby, once.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use planb::clock::{Clock, SystemClock};
use serde_json::Value;
use support::planb::PASSWORD;
use support::receiver::{Manner, Receiver};
use support::{Flavor, Planb, Server, reader};

/// An application: answers each path as it is told to.
struct App {
    port: u16,
    paths: Arc<Mutex<BTreeMap<String, Answer>>>,
}

#[derive(Clone)]
enum Answer {
    Says(u16, &'static str),
    After(Duration, &'static str),
    Hangs,
}

impl App {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let paths: Arc<Mutex<BTreeMap<String, Answer>>> = Arc::default();
        let told = Arc::clone(&paths);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                std::thread::spawn(move || answer(&stream, &told));
            }
        });
        Self { port, paths }
    }

    fn set(&self, path: &str, answer: Answer) {
        self.paths.lock().expect("paths").insert(path.to_owned(), answer);
    }
}

fn answer(mut stream: &TcpStream, paths: &Mutex<BTreeMap<String, Answer>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    for line in lines.by_ref() {
        if line.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let answer = paths.lock().expect("paths").get(path).cloned();
    let (status, text) = match answer {
        Some(Answer::Says(status, text)) => (status, text),
        Some(Answer::After(pause, text)) => {
            // A slow application, not a wait for one.
            std::thread::sleep(pause);
            (200, text)
        }
        Some(Answer::Hangs) => {
            // Until the other side gives up.
            let _ = lines.next();
            return;
        }
        None => (404, ""),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
}

const UP: Answer = Answer::Says(200, "{\"status\":\"UP\"}");

/// Ended with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watching(planb: &Planb, args: &[&str]) -> Running {
    let log = std::fs::File::create(planb.path().join(format!("watch{}.log", args.join("")))).expect("a log");
    let child = planb
        .command(&[&["watch"], args].concat())
        .stderr(log)
        .spawn()
        .expect("planb runs");
    Running(child)
}

fn logs(planb: &Planb) -> String {
    let files = std::fs::read_dir(planb.path()).expect("a directory").flatten();
    let logs = files.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
    logs.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default())
        .collect()
}

/// Asks until `is` holds.
fn until(planb: &Planb, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let status = planb.json(&["--json", "status"]);
        if is(&status) {
            return status;
        }
        assert!(
            Instant::now() < end,
            "{what}: it did not come to that\n{}\n{}",
            status["watch"],
            logs(planb)
        );
    }
}

fn called(verdict: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["watch"]["called"]["verdict"] == verdict && status["watch"]["verdict"] == verdict
}

#[test]
fn what_goes_down_is_seen_and_what_comes_back_too() {
    let mut server = Server::start(Flavor::MySql, &[]);
    let app = App::start();
    app.set("/health", UP);
    let planb = Planb::new(&server, &reader(&server, &[]));
    let quick = "interval = \"1s\"\ntimeout = \"1s\"\nwithin = \"20s\"\n";
    server.sql(&format!(
        "CREATE DATABASE bank; CREATE TABLE bank.canary (id INT PRIMARY KEY); INSERT INTO bank.canary VALUES (1);
         CREATE USER watch@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON bank.canary TO watch@'%';"
    ));
    planb.configure(&format!(
        "[watch]\nname = \"here\"\nevery = \"1s\"\ncool_down = \"0s\"\n\
         [[watch.probes]]\nname = \"public\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{}/health\"\ncontains = \"UP\"\n{quick}\
         [[watch.probes]]\nname = \"database\"\nkind = \"mysql\"\nquery = \"SELECT id FROM bank.canary\"\n\
         address = \"mysql://watch@127.0.0.1:{}\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n{quick}\
         [[watch.probes]]\nname = \"port\"\nkind = \"tcp\"\nhost = \"127.0.0.1\"\nport = {}\n{quick}\
         [[watch.probes]]\nname = \"api\"\nkind = \"http\"\nplane = \"control\"\nurl = \"http://127.0.0.1:{}/api\"\n{quick}",
        app.port, server.port, server.port, app.port
    ));
    let first = planb.ok(&["watch", "--once"]);
    for part in [
        "public       good",
        "database     good",
        "takes logins and reads",
        "api          BAD        answered 404 (control plane)",
    ] {
        assert!(first.contains(part), "{first}");
    }
    assert!(first.contains("no vote: it never wrote anything here"), "{first}");

    // The agent does what `planb watch` does.
    let log = std::fs::File::create(planb.path().join("agent.log")).expect("a log");
    let _agent = Running(planb.command(&["agent"]).stderr(log).spawn().expect("planb runs"));
    let status = until(&planb, "all is well", called("healthy"));
    let text = planb.ok(&["status"]);
    assert!(text.contains("watch     healthy: 1 of 1 watchers say so"), "{text}");
    assert!(
        text.contains("the control plane does not answer; that alone does not count")
            || status["watch"]["control_plane"] != "unhealthy"
    );

    // Wrong answers, then none at all.
    app.set("/health", Answer::Says(200, "{\"status\":\"DOWN\"}"));
    let status = until(&planb, "it says DOWN", called("unhealthy"));
    let evidence = status["watch"]["called"]["evidence"].to_string();
    assert!(
        evidence.contains("public unhealthy: answered 200, without"),
        "{evidence}"
    );
    assert!(evidence.contains("database healthy"), "{evidence}");
    let told = planb.fails(1, &["watch", "--once"]);
    assert!(told.contains("public       BAD"), "{told}");
    app.set("/health", UP);
    until(&planb, "it is back", called("healthy"));
    app.set("/health", Answer::Hangs);
    let status = until(&planb, "it hangs", called("unhealthy"));
    assert!(status["watch"].to_string().contains("no answer within 1 s"), "{status}");
    app.set("/health", UP);
    until(&planb, "it is back", called("healthy"));

    server.kill();
    let status = until(&planb, "the database is gone", |status| {
        let probes = status["watch"]["watchers"][0]["probes"].to_string();
        called("unhealthy")(status) && probes.contains("cannot reach the database")
    });
    let probes = &status["watch"]["watchers"][0]["probes"];
    assert_eq!(probes[0]["health"], "healthy", "{probes}");
    server.restart(&[]);
    until(&planb, "the database is back", called("healthy"));

    // A password that was changed is the watcher's trouble, and no outage.
    server.sql("ALTER USER watch@'%' IDENTIFIED BY 'another one'");
    let sequence = sequence(&planb, "here");
    let status = until(&planb, "it cannot ask", |status| {
        status["watch"]["watchers"][0]["probes"][1]["said"]
            .to_string()
            .contains("refused account")
    });
    assert_ne!(status["watch"]["verdict"], "unhealthy", "{status}");
    while self::sequence(&planb, "here") < sequence + 12 {
        assert_ne!(
            planb.json(&["--json", "status"])["watch"]["called"]["verdict"],
            "unhealthy"
        );
    }
    assert!(!logs(&planb).contains(PASSWORD));
}

/// What a watcher wrote last counts up.
fn sequence(planb: &Planb, name: &str) -> u64 {
    let path = planb.store().join(format!("control/watch/backups/seen/{name}.json"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let seen: Value = serde_json::from_str(&text).unwrap_or_default();
    seen["sequence"].as_u64().unwrap_or(0)
}

const PLAN: &str = r#"
[[failover_steps]]
name = "ready"
stage = 2
kind = "http"
url = "http://127.0.0.1:PORT/ready"
times = 1
interval = "1s"

[[failover_steps]]
name = "restore"
stage = 2
kind = "restore"
needs = ["ready"]

[[failover_steps]]
name = "compare"
stage = 2
kind = "verify"
needs = ["restore"]

[[failover_steps]]
name = "accounts"
stage = 2
kind = "accounts"
needs = ["restore", "compare"]

[[failover_steps]]
name = "fence"
stage = 3
kind = "fence"
needs = ["accounts"]

[[failover_steps]]
name = "last-backup"
stage = 3
kind = "last-backup"
needs = ["fence"]

[[failover_steps]]
name = "open"
stage = 3
kind = "standby-open"
needs = ["restore", "compare", "accounts", "fence", "last-backup"]

[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "/bin/sh"
args = ["-c", "echo standby >> DIR/traffic-to"]
needs = ["open"]
"#;

/// The primary is killed at a random moment, and the watcher that acts is killed too: the others go on, and nothing happens twice. Before
/// that, a primary that is slow, or that one watcher does not reach, causes nothing.
#[test]
fn three_watchers_take_the_service_to_the_standby_once() {
    let seed: u64 = std::env::var("PLANB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("PLANB_SEED={seed}");
    let mut primary = Server::start(Flavor::MySql, &[]);
    let standby = Server::start(Flavor::MySql, &[]);
    primary.sql(&format!(
        "CREATE DATABASE bank; CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@'%';
         CREATE TABLE bank.log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(99)); INSERT INTO bank.log (what) VALUES ('kept');"
    ));
    for server in [&primary, &standby] {
        server.sql(&format!(
            "CREATE USER dba@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION;"
        ));
    }
    let app = App::start();
    for path in ["/health", "/health-c"] {
        app.set(path, UP);
    }
    app.set("/ready", Answer::Says(503, ""));
    let mut planb = Planb::new(&primary, &reader(&primary, &[]));
    let people = Receiver::start(Manner::Takes);
    planb.env.push(("PEOPLE".to_owned(), people.url("hook")));
    let server = |name: &str, port: u16| {
        format!(
            "[{name}]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
        )
    };
    let probe = |name: &str, more: &str| {
        format!("[[watch.probes]]\nname = \"{name}\"\ninterval = \"2s\"\ntimeout = \"2s\"\nwithin = \"20s\"\n{more}")
    };
    let (dir, port) = (planb.path().display().to_string(), app.port);
    planb.configure(&format!(
        "{}{}[[accounts]]\nname = \"app\"\ngrants = [\"ALL ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n{}\
         [watch]\nevery = \"1s\"\nstale_after = \"10s\"\ncool_down = \"2s\"\nprimary_region = \"seoul\"\nthen = \"auto\"\n\
         watchers = [{{ name = \"a\", region = \"seoul\" }}, {{ name = \"b\", region = \"tokyo\" }}, {{ name = \"c\", region = \"osaka\" }}]\n\
         [watch.auto]\ngrace = \"4s\"\nmax_loss = \"10m\"\nunprovable_fence = \"accept\"\n{}{}{}",
        server("standby", standby.port),
        server("primary", primary.port),
        PLAN.replace("DIR", &dir).replace("PORT", &port.to_string()),
        probe("public", &format!("kind = \"http\"\nurl = \"http://127.0.0.1:{port}/health\"\nfrom = [\"a\", \"b\"]\n")),
        probe("from-c", &format!("kind = \"http\"\nurl = \"http://127.0.0.1:{port}/health-c\"\nfrom = [\"c\"]\n")),
        probe("database", "kind = \"mysql\"\nfrom = [\"a\"]\n"),
    ));
    planb.configure(&format!(
        "[notify]\nstate = \"{dir}\"\n[[notify.channels]]\nname = \"people\"\nkind = \"webhook\"\nurl = \"env:PEOPLE\"\nseverity = \"info\"\n"
    ));
    planb.ok(&["config", "check"]);
    planb.backup(&[]);
    planb.ok(&["verify", "--restore-to", "standby"]);

    let mut watchers: BTreeMap<&str, Running> = ["a", "b", "c"]
        .into_iter()
        .map(|name| (name, watching(&planb, &["--name", name])))
        .collect();
    until(&planb, "all is well", called("healthy"));
    let rounds = |name: &str, count: u64| {
        let before = sequence(&planb, name);
        let end = Instant::now() + Duration::from_secs(120);
        while sequence(&planb, name) < before + count {
            assert!(Instant::now() < end, "{name} writes nothing more\n{}", logs(&planb));
            std::thread::yield_now();
        }
    };
    let nothing_happened = |what: &str| {
        let status = planb.json(&["--json", "status"]);
        assert_eq!(status["watch"]["called"]["verdict"], "healthy", "{what}: {status}");
        assert_eq!(status["watch"]["auto"], Value::Null, "{what}: {status}");
        assert!(!planb.store().join("control/journal").exists(), "{what}");
    };

    // Unreachable from one watcher only, for longer than everything together would take.
    app.set("/health-c", Answer::Hangs);
    until(&planb, "c sees nothing", |status| {
        status["watch"]["watchers"][2]["vote"] == "unhealthy"
    });
    rounds("b", 8);
    nothing_happened("unreachable from one watcher");
    app.set("/health-c", UP);
    until(&planb, "c sees it again", |status| {
        status["watch"]["watchers"][2]["vote"] == "healthy"
    });
    // Slow, and in time.
    for path in ["/health", "/health-c"] {
        app.set(path, Answer::After(Duration::from_millis(700), "UP"));
    }
    rounds("b", 8);
    nothing_happened("slow");
    // The application is down, and its data is well: told, and left to people.
    for path in ["/health", "/health-c"] {
        app.set(path, Answer::Says(503, ""));
    }
    let status = until(&planb, "it refrains", |status| {
        !status["watch"]["refrained"][0].is_null()
    });
    assert!(
        status["watch"]["refrained"]
            .to_string()
            .contains("database still answers"),
        "{status}"
    );
    assert!(!planb.store().join("control/journal").exists());
    for path in ["/health", "/health-c"] {
        app.set(path, UP);
    }
    until(&planb, "the application is back", called("healthy"));

    // At whatever moment of its watchers' rounds.
    rounds("b", 1 + seed % 3);
    std::thread::sleep(Duration::from_millis(seed % 2_000));
    primary.sql("INSERT INTO bank.log (what) VALUES ('in the last backup')");
    planb.backup(&[]);
    primary.sql("INSERT INTO bank.log (what) VALUES ('after the backup')");
    primary.kill();
    let killed_at = SystemClock.now();
    for path in ["/health", "/health-c"] {
        app.set(path, Answer::Says(503, ""));
    }
    let status = until(&planb, "it begins", |status| {
        status["operation"]["open"] == true && !status["watch"]["auto"].is_null()
    });
    // Whoever began it vanishes.
    let acting = status["watch"]["auto"]["by"].as_str().expect("a name").to_owned();
    drop(watchers.remove(acting.as_str()).expect("one of them"));
    app.set("/ready", UP);
    let status = until(&planb, "the standby serves", |status| {
        status["standing"]["serving"] == "standby" && status["watch"]["auto"]["rested"]["how"] == "done"
    });
    assert_eq!(status["standing"]["epoch"], 1, "{status}");
    assert_eq!(status["standing"]["pending_fences"][0], "primary");
    let new = "INSERT INTO bank.log (what) VALUES ('new')";
    standby.sql_as("app", PASSWORD, new).expect("it takes writes");
    assert_eq!(
        standby.sql("SELECT what FROM bank.log ORDER BY id").trim(),
        "kept\nin the last backup\nnew"
    );
    let backups = planb.json(&["--json", "backups"]);
    let last: Timestamp = backups["backups"][0]["consistent_at"]
        .as_str()
        .and_then(|at| at.parse().ok())
        .unwrap_or_else(|| panic!("{backups}"));
    let lost = killed_at.duration_since(last);
    assert!(
        lost.as_secs() < 300,
        "more than the RPO of five minutes is lost: {lost}"
    );

    // People hear that it is down, what is begun without them, and how it ended; of one operation, whoever tells.
    for event in ["verdict-changed", "operation-begun", "operation-ended"] {
        people.wait(&[&format!("\"event\":\"{event}\"")]);
    }
    let operations: BTreeSet<String> = people
        .taken()
        .iter()
        .map(support::receiver::Message::json)
        .filter(|told| {
            told["event"]
                .as_str()
                .is_some_and(|event| event.starts_with("operation-"))
        })
        .map(|told| told["details"]["operation"].to_string())
        .collect();
    assert_eq!(operations.len(), 1, "{operations:?}");
    let history = planb.ok(&["history"]);
    for part in ["watcher ", "unprovable_fence", "open done"] {
        assert!(history.contains(part), "{part}\n{history}");
    }

    // Whoever is left goes on watching, and begins nothing more.
    let left = *watchers.keys().next().expect("two");
    rounds(left, 6);
    let status = planb.json(&["--json", "status"]);
    assert_eq!(status["watch"]["auto"]["number"], 1, "{status}");
    assert_eq!(
        std::fs::read_to_string(format!("{dir}/traffic-to")).expect("switched"),
        "standby\n"
    );
    let operations = std::fs::read_dir(planb.store().join("control/journal/backups/g1")).expect("a journal");
    assert_eq!(operations.count(), 1);

    // And the old primary, once it answers, is fenced by whoever watches.
    primary.restart(&[]);
    until(&planb, "it is fenced", |status| {
        status["standing"]["pending_fences"] == serde_json::json!([])
    });
    assert!(primary.sql_as("app", PASSWORD, "SELECT 1").is_err());

    let text = planb.ok(&["status"]);
    assert!(text.contains("planb watch --acknowledge"), "{text}");
    let told = planb.ok(&["watch", "--acknowledge", "--as", "ana"]);
    assert!(told.contains("acknowledged by ana"), "{told}");
    assert!(
        planb
            .fails(3, &["watch", "--acknowledge"])
            .contains("ana acknowledged it")
    );
    assert!(!logs(&planb).contains(PASSWORD));
}
