//! A failover, a failback and a stand-down with real servers: what a person types, and what the two databases hold then.

mod support;

use std::time::{Duration, Instant};

use support::planb::PASSWORD;
use support::sites::{Lab, script};
use support::{Flavor, Server, census};

#[test]
fn a_lost_primary_a_standby_that_serves_and_the_way_home() {
    for flavor in [Flavor::MySql, Flavor::MariaDb] {
        let mut lab = Lab::new(flavor);
        lab.planb.backup(&[]);
        let told = lab.planb.fails(3, &["failover", "--stage", "3", "--yes"]);
        for rule in ["primary-healthy", "backup-unproven"] {
            assert!(told.contains(rule), "{told}");
        }
        assert_eq!(
            lab.standby.sql("SHOW DATABASES LIKE 'bank'").trim(),
            "",
            "nothing was done"
        );
        lab.primary
            .sql("INSERT INTO bank.log (what) VALUES ('lost'); UPDATE bank.accounts SET money = 90 WHERE id = 2");
        let before = census(&lab.primary, &["bank"]);
        lab.primary.kill();

        // Unreachable, a fence cannot be proven: nobody is opened before somebody answers for that.
        let stopped = lab.planb.run(&[
            "failover",
            "--stage",
            "3",
            "--yes",
            "--accept",
            "backup-unproven=a test",
        ]);
        let stopped = support::planb::text(&stopped);
        assert!(
            stopped.starts_with("exit Some(4)") && stopped.contains("unfenced") && stopped.contains("--resume"),
            "{stopped}"
        );
        assert!(
            lab.app(&lab.standby, "SELECT 1").is_err(),
            "its accounts are locked until it opens"
        );
        assert_eq!(lab.traffic(), "");
        let done = lab.failover(&["--resume", "--accept", "unfenced=the machine is gone"]);
        assert_eq!(done["result"], "done", "{done}");
        assert_eq!(done["standing"]["serving"], "standby");
        assert_eq!(done["standing"]["pending_fences"][0], "primary");
        assert_eq!(lab.traffic(), "standby");
        assert_eq!(
            lab.app(&lab.standby, "SELECT COUNT(*) FROM bank.rich")
                .expect("opened")
                .trim(),
            "2"
        );
        assert_eq!(
            lab.standby.sql("SELECT COUNT(*) FROM bank.log").trim(),
            "0",
            "what came after the backup is lost, as was told"
        );
        lab.app(&lab.standby, "UPDATE bank.accounts SET money = 150 WHERE id = 1")
            .expect("takes writes");
        let status = lab.planb.ok(&["status"]);
        assert!(
            status.contains("the standby serves") && status.contains("not proven yet"),
            "{status}"
        );

        // The old primary comes back: nothing of it is published, and nothing was lost of it.
        lab.primary.restart(&[]);
        let refused = lab.planb.fails(3, &["backup"]);
        assert!(refused.contains("does not serve"), "{refused}");
        let again = lab.planb.fails(3, &["failover", "--stage", "3", "--yes"]);
        assert!(again.contains("serves already"), "{again}");

        // The agent fences it as soon as it answers.
        lab.app(&lab.primary, "SELECT 1").expect("not yet");
        let mut agent = lab.planb.spawn(&["agent"]);
        let until = Instant::now() + Duration::from_secs(60);
        while lab.status()["standing"]["pending_fences"] != serde_json::json!([]) {
            assert!(Instant::now() < until, "{}", lab.status());
        }
        agent.kill().expect("killed");
        agent.wait().expect("ended");
        assert!(lab.app(&lab.primary, "SELECT 1").is_err(), "fenced");

        // What is destroyed does not come back: somebody watches first, and says so.
        let soaking = lab.planb.fails(4, &["failback", "--yes"]);
        assert!(soaking.contains("confirm-soak=WHAT-WAS-DONE"), "{soaking}");
        assert!(!lab.ran("down"), "nothing is destroyed before");
        let home = lab
            .planb
            .json(&["--json", "failback", "--resume", "--accept", "confirm-soak=a quiet day"]);
        assert!(lab.ran("down"));
        assert_eq!(home["result"], "done", "{home}");
        assert_eq!(home["standing"]["serving"], "primary");
        assert_eq!(home["standing"]["stage"], 1);
        assert_eq!(lab.traffic(), "primary");
        assert_eq!(
            lab.primary
                .sql("SELECT money FROM bank.accounts ORDER BY id")
                .replace('\n', " ")
                .trim(),
            "150 100"
        );
        lab.app(&lab.primary, "INSERT INTO bank.log (what) VALUES ('home')")
            .expect("it takes writes again");
        assert!(
            lab.app(&lab.standby, "DELETE FROM bank.accounts").is_err(),
            "the standby does not"
        );
        // What the standby never got is kept twice: beside the tables, and as a backup of its own.
        assert_eq!(lab.primary.sql("SELECT what FROM planb_old_bank.log").trim(), "lost");
        let preserved: Vec<String> = std::fs::read_dir(lab.planb.store().join("preserved/backups"))
            .expect("kept")
            .flatten()
            .map(|file| file.file_name().to_string_lossy().into_owned())
            .filter(|name| name.ends_with(".sql.gz"))
            .collect();
        let differing = preserved.iter().find(|name| name.contains("divergence"));
        let differing = differing.unwrap_or_else(|| panic!("{preserved:?}"));
        assert_eq!(
            preserved.len(),
            2,
            "the backup, and what differs beside it: {preserved:?}"
        );
        let told = lab.planb.ok(&["history"]);
        for part in [
            "bank.log: 1 added, 0 changed, 0 removed",
            "bank.accounts: 0 added, 1 changed, 0 removed",
            differing.as_str(),
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        // Replayed onto what came home it brings the lost rows back, and theirs only.
        lab.primary
            .sql("CREATE DATABASE aside; CREATE TABLE aside.accounts AS SELECT * FROM bank.accounts");
        lab.primary
            .load_gzip(&lab.planb.store().join("preserved/backups").join(differing));
        assert_eq!(lab.primary.sql("SELECT what FROM bank.log").trim(), "lost");
        assert_eq!(
            lab.primary
                .sql("SELECT money FROM bank.accounts ORDER BY id")
                .replace('\n', " ")
                .trim(),
            "150 90"
        );
        lab.primary
            .sql("DELETE FROM bank.log; REPLACE INTO bank.accounts SELECT * FROM aside.accounts; DROP DATABASE aside");
        assert!(before.len() > 3);
        lab.planb.backup(&[]);
        let history = lab.planb.ok(&["history"]);
        for line in [
            "accepts unfenced: the machine is gone",
            "open done",
            "traffic-home done",
            "serving: primary, epoch 2",
        ] {
            assert!(history.contains(line), "{history}");
        }
        assert!(
            !history.contains(PASSWORD) && !lab.control().contains(PASSWORD),
            "no secret is written anywhere"
        );
        assert!(lab.control().contains("changes-at-standby"));
        assert_eq!(lab.made(), 1);
    }
}

#[test]
fn a_planned_failover_loses_nothing_under_load() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let port = lab.primary.port;
    let mut client = lab.primary.client_as("app");
    client.env("MYSQL_PWD", PASSWORD);
    // Writes one by one, and tells of each that the server took, until it is refused.
    let script = "i=0; while :; do i=$((i+1)); printf 'INSERT INTO bank.log (what) VALUES (%s);\\n' $i; done";
    let mut feed = std::process::Command::new("sh")
        .args(["-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    let mut writer = client
        .stdin(feed.stdout.take().expect("piped"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a client");
    let until = Instant::now() + Duration::from_secs(60);
    while lab
        .primary
        .sql("SELECT COUNT(*) FROM bank.log")
        .trim()
        .parse::<u64>()
        .unwrap_or(0)
        < 50
    {
        assert!(Instant::now() < until, "the writer does not write to port {port}");
        std::thread::yield_now();
    }
    let done = lab.unproven(&["--stage", "3", "--planned"]);
    let ended = writer.wait().expect("ended");
    let _ = feed.kill();
    let _ = feed.wait();
    assert!(!ended.success(), "its session was ended");
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(done["standing"]["pending_fences"], serde_json::json!([]), "{done}");
    let count = |server: &Server| server.sql("SELECT COUNT(*), MAX(id) FROM bank.log");
    assert_eq!(
        count(&lab.primary),
        count(&lab.standby),
        "every write that was taken is there"
    );
    assert!(
        lab.app(&lab.primary, "INSERT INTO bank.log (what) VALUES ('late')")
            .is_err(),
        "fenced"
    );
    lab.app(&lab.standby, "INSERT INTO bank.log (what) VALUES ('new')")
        .expect("served");
}

#[test]
fn a_standby_that_never_served_is_stood_down() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let done = lab.unproven(&["--stage", "2", "--accept", "primary-healthy=a rehearsal"]);
    assert_eq!(
        (done["result"].as_str(), done["standing"]["stage"].as_u64()),
        (Some("done"), Some(2)),
        "{done}"
    );
    assert_eq!(done["standing"]["serving"], "primary");
    // The primary goes on being protected.
    lab.primary.sql("INSERT INTO bank.log (what) VALUES ('more')");
    lab.planb.backup(&[]);
    let plan = lab.planb.ok(&["failback", "--plan"]);
    assert!(plan.contains("stand-down") && !plan.contains("home "), "{plan}");
    let done = lab.planb.json(&["--json", "failback", "--yes"]);
    assert_eq!(done["standing"]["stage"], 1, "{done}");
    assert_eq!(
        lab.primary.sql("SELECT what FROM bank.log").trim(),
        "more",
        "no data moved"
    );
    // And once more: what the rehearsal left is replaced by the newer backup.
    let done = lab.unproven(&["--stage", "2", "--accept", "primary-healthy=a rehearsal"]);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(lab.standby.sql("SELECT what FROM bank.log").trim(), "more");
}

#[test]
fn a_failing_step_says_what_to_do_and_the_rest_is_taken_back() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    script(
        lab.planb.path().join("cluster"),
        "case $1 in is-up) exit 1 ;; esac; echo quota exceeded >&2; exit 9",
    );
    let args = [
        "failover",
        "--stage",
        "3",
        "--yes",
        "--accept",
        "backup-unproven=t",
        "--accept",
        "primary-healthy=t",
    ];
    let told = lab.planb.fails(4, &args);
    for part in [
        "cluster",
        "ended with 9",
        "quota exceeded",
        "planb failover --stage 3 --resume",
    ] {
        assert!(told.contains(part), "{told}");
    }
    let unfinished = lab.planb.fails(3, &args);
    assert!(
        unfinished.contains("unfinished-operation") && unfinished.contains("--abandon"),
        "{unfinished}"
    );
    let status = lab.status();
    assert_eq!(status["operation"]["open"], true, "{status}");
    script(lab.planb.path().join("cluster"), "exit 0");
    let told = lab.planb.ok(&["failover", "--abandon"]);
    assert!(told.contains("abandoned"), "{told}");
    assert_eq!(lab.status()["standing"]["serving"], "primary");
    lab.app(&lab.primary, "INSERT INTO bank.log (what) VALUES ('still')")
        .expect("it was never fenced");
}

#[test]
fn a_plan_shows_everything_and_touches_nothing() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let plan = lab.planb.ok(&["failover", "--stage", "3", "--plan"]);
    for part in [
        "nothing was touched",
        "restore",
        "fence",
        "would be lost",
        "primary-healthy",
        "not known before it was done once",
        "USD an hour while it stands",
    ] {
        assert!(plan.contains(part), "{plan}");
    }
    assert!(!lab.planb.store().join("control/journal").exists());
    lab.unproven(&["--stage", "2", "--accept", "primary-healthy=t"]);
    let plan = lab.planb.json(&["--json", "failover", "--stage", "2", "--plan"]);
    assert!(plan["steps"][0]["expected_seconds"].as_f64().is_some(), "{plan}");
    let unknown = lab.planb.fails(
        2,
        &["failover", "--stage", "2", "--yes", "--accept", "nonsense=because"],
    );
    assert!(unknown.contains("there is no such rule"), "{unknown}");
    let never = lab
        .planb
        .fails(2, &["failback", "--yes", "--accept", "never-served=because"]);
    assert!(never.contains("nobody can answer"), "{never}");
}

/// Runs `work` on a thread whose network is `network`, or a new one with a loopback and nothing else; what it starts stays there.
fn in_a_network<T: Send>(network: Option<&std::fs::File>, work: impl FnOnce() -> T + Send) -> T {
    use std::os::fd::AsRawFd as _;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: take numbers, one of an open descriptor, and change this thread only.
            #[expect(unsafe_code, reason = "the standard library knows no namespaces")]
            let done = match network {
                Some(network) => unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) },
                None => unsafe { libc::unshare(libc::CLONE_NEWNET) },
            };
            let error = std::io::Error::last_os_error();
            assert_eq!(done, 0, "no network namespace ({error}): this test must be run by root");
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.expect("ip, of iproute2").success());
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What nobody outside reaches is done by the runner, beside the standby in a network of its own: the operator's command follows, and
/// may be closed and opened again.
#[test]
fn the_runner_does_what_only_it_can() {
    // First, so that the thread which starts servers belongs to the usual network.
    let primary = Server::start(Flavor::MySql, &[]);
    let (standby, network) = in_a_network(None, || {
        let network = std::fs::File::open("/proc/thread-self/ns/net").expect("its network");
        (Server::start(Flavor::MySql, &[]), network)
    });
    let outside = std::net::TcpStream::connect(("127.0.0.1", standby.port));
    assert!(outside.is_err(), "nobody outside reaches the standby");
    let lab = Lab::with(primary, standby);
    lab.planb.backup(&[]);
    for step in ["restore", "verify", "accounts", "standby-open"] {
        lab.planb.reconfigure(
            &format!("kind = \"{step}\"\nhost"),
            &format!("kind = \"{step}\"\nat = \"runner\"\nhost"),
        );
    }
    let accepted = ["--accept", "backup-unproven=t", "--accept", "primary-healthy=t"];
    let mut operator = lab
        .planb
        .spawn(&[&["failover", "--stage", "3", "--yes"], &accepted[..]].concat());
    // Nobody is there to do it yet: the operator waits, and is closed.
    let until = Instant::now() + Duration::from_secs(120);
    let step = |name: &str| {
        let status = lab.status();
        let steps = status["operation"]["steps"].as_array().cloned().unwrap_or_default();
        let found = steps.iter().find(|step| step["name"] == name);
        found
            .and_then(|step| step["state"].as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    while step("database") != "done" || step("cluster") != "done" {
        assert!(Instant::now() < until, "{}", lab.status());
    }
    assert_eq!(step("restore"), "waiting");
    operator.kill().expect("killed");
    operator.wait().expect("ended");
    // Whoever looks on from outside sees it to the end.
    let follower = lab.planb.spawn(&["status", "--follow"]);
    let mut runner = in_a_network(Some(&network), || lab.planb.spawn(&["runner"]));
    while step("accounts") != "done" {
        assert!(Instant::now() < until, "{}", lab.status());
    }
    assert_eq!(step("fence"), "waiting", "the operator's");
    let done = lab.planb.json(&["--json", "failover", "--resume"]);
    assert_eq!(done["result"], "done", "{done}");
    let history = lab.planb.ok(&["history"]);
    let by_runner = |what: &str| {
        history
            .lines()
            .any(|line| line.contains("runner on") && line.contains(what))
    };
    assert!(
        by_runner("restore begins") && by_runner("open begins") && !by_runner("fence begins"),
        "{history}"
    );
    let followed = support::planb::text(&follower.wait_with_output().expect("ended"));
    assert!(
        followed.starts_with("exit Some(0)") && followed.contains("ended; the standby serves"),
        "{followed}"
    );
    in_a_network(Some(&network), || {
        lab.app(&lab.standby, "INSERT INTO bank.log (what) VALUES ('new')")
            .expect("served");
    });
    runner.kill().expect("killed");
    runner.wait().expect("ended");
}

#[test]
fn two_people_agree_and_everybody_goes_by_the_same_plan() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.configure("[failover]\napprovers = 2\n");
    lab.planb.backup(&[]);
    let accepted = ["--accept", "backup-unproven=t", "--accept", "primary-healthy=t"];
    let told = lab.planb.fails(
        4,
        &[&["failover", "--stage", "2", "--yes", "--as", "ana"], &accepted[..]].concat(),
    );
    assert!(told.contains("1 of 2 people") && told.contains("--approve"), "{told}");
    let alone = lab.planb.fails(4, &["failover", "--approve", "--as", "ana"]);
    assert!(alone.contains("1 of 2 people"), "one person is one person: {alone}");
    assert_eq!(lab.made(), 0, "nothing was done before");
    // Somebody with another plan may agree to nothing, and do nothing.
    let text = std::fs::read_to_string(lab.planb.config()).expect("a configuration");
    lab.planb
        .reconfigure("host = \"${database.host}\"", "host = \"127.0.0.2\"");
    let other = lab.planb.fails(3, &["failover", "--resume", "--as", "bo"]);
    assert!(other.contains("plan-changed"), "{other}");
    lab.planb.write_config(&text);
    let done = lab.planb.json(&["--json", "failover", "--approve", "--as", "bo"]);
    assert_eq!(done["result"], "done", "{done}");
    let history = lab.planb.ok(&["history"]);
    assert!(
        history
            .lines()
            .any(|line| line.contains("bo on") && line.contains("agrees")),
        "{history}"
    );
}
