//! Every kind of step fails in the ways it can: refused, hanging, half done, with wrong output. The operator reads what happened and
//! what to type next, the exit code is 4, and the journal says the same to everybody else.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use support::gate::Gate;
use support::planb::text;
use support::sites::{Lab, script};
use support::{Flavor, Planb, Server, reader};

/// One way for a step to fail.
struct Way {
    name: &'static str,
    /// Its kind and keys. `CLOSED`, `SILENT` and `ANSWERS` are ports, `DIR` is the test's directory.
    step: &'static str,
    /// What the operator must read.
    told: &'static [&'static str],
}

const WAYS: [Way; 19] = [
    Way {
        name: "http-refused",
        step: "kind = \"http\"\nurl = \"http://127.0.0.1:CLOSED/\"\ntimeout = \"2s\"\ninterval = \"1s\"",
        told: &[
            "longer than its timeout of 2 s",
            "was not healthy 3 times in a row",
            "refused",
        ],
    },
    Way {
        name: "http-silent",
        step: "kind = \"http\"\nurl = \"http://127.0.0.1:SILENT/\"\ntimeout = \"2s\"",
        told: &["longer than its timeout of 2 s", "seen last: no answer"],
    },
    Way {
        name: "http-wrong",
        step: "kind = \"http\"\nurl = \"http://127.0.0.1:ANSWERS/\"\ncontains = \"UP\"\ntimeout = \"2s\"\ninterval = \"1s\"",
        told: &["answered 200, without \"UP\""],
    },
    Way {
        name: "http-status",
        step: "kind = \"http\"\nurl = \"http://127.0.0.1:ANSWERS/\"\nexpect = [\"204\"]\ntimeout = \"2s\"\ninterval = \"1s\"",
        told: &["answered 200"],
    },
    Way {
        name: "command-missing",
        step: "kind = \"command\"\nprogram = \"DIR/none\"",
        told: &["DIR/none cannot be started", "No such file"],
    },
    Way {
        name: "command-fails",
        step: "kind = \"command\"\nprogram = \"DIR/program\"\nargs = [\"fail\"]",
        told: &["ended with 9", "half done"],
    },
    Way {
        name: "command-silent",
        step: "kind = \"command\"\nprogram = \"/bin/false\"",
        told: &["ended with 1, and said nothing"],
    },
    Way {
        name: "command-killed",
        step: "kind = \"command\"\nprogram = \"DIR/program\"\nargs = [\"kill\"]",
        told: &["was ended by a signal"],
    },
    Way {
        name: "command-hangs",
        step: "kind = \"command\"\nprogram = \"DIR/program\"\nargs = [\"hang\"]\ntimeout = \"2s\"",
        told: &[
            "longer than its timeout of 2 s",
            "may have done a part of it",
            "going on for ever",
        ],
    },
    Way {
        name: "command-no-output",
        step: "kind = \"command\"\nprogram = \"/bin/echo\"\nargs = [\"${given.host}\"]\nneeds = [\"given\"]",
        told: &["step given gave no output host", "it gave address"],
    },
    Way {
        name: "manual",
        step: "kind = \"manual\"\ntext = \"Call the bank.\"",
        told: &[
            "a person is needed: Call the bank.",
            "--accept confirm-manual=WHAT-WAS-DONE",
        ],
    },
    Way {
        name: "page-missing",
        step: "kind = \"maintenance-page\"\npage = \"DIR/no-page\"",
        told: &["page DIR/no-page", "No such file"],
    },
    Way {
        name: "store-empty",
        step: "kind = \"store-ready\"",
        told: &["there is no good backup in the store"],
    },
    Way {
        name: "terraform-missing",
        step: "kind = \"terraform\"\ndir = \"DIR/no-terraform\"",
        told: &["DIR/no-terraform is not there"],
    },
    Way {
        name: "terraform-fails",
        step: "kind = \"terraform\"\ndir = \"DIR/terraform\"\nprogram = \"DIR/program\"",
        told: &["half done"],
    },
    Way {
        name: "manifests-nowhere",
        step: "kind = \"manifests\"\ndir = \"DIR\"\nkubeconfig = \"DIR/no-kubeconfig\"",
        told: &["kubeconfig DIR/no-kubeconfig", "No such file"],
    },
    Way {
        name: "accounts-refused",
        step: "kind = \"accounts\"",
        told: &["127.0.0.1:CLOSED"],
    },
    Way {
        name: "primary-unasked",
        step: "kind = \"primary-ready\"\nrds_instances = [\"prod\"]",
        told: &["prod"],
    },
    Way {
        name: "output-unknown-step",
        step: "kind = \"http\"\nurl = \"http://127.0.0.1:CLOSED/${given.path}\"\nneeds = [\"given\"]",
        told: &["step given gave no output path"],
    },
];

const PROGRAM: &str = "#!/bin/sh
case $1 in
  give) echo 'planb-output address=10.0.0.1' ;;
  fail) echo half done >&2; exit 9 ;;
  kill) kill -9 $$ ;;
  hang) echo going on for ever; trap '' TERM; (trap '' TERM; sleep 300) & echo $! > DIR/grandchild; exec sleep 300 ;;
  leave) (sleep 300) & echo $! > DIR/left; echo done ;;
  *) echo half done >&2; exit 1 ;;
esac
";

fn executable(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, script).expect("a script");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
}

fn step(name: &str, text: &str) -> String {
    format!("[[failover_steps]]\nname = \"{name}\"\nstage = 1\nretries = 0\n{text}\n")
}

#[test]
fn every_kind_says_what_happened_and_what_to_type() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let answers = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ports = |listener: &TcpListener| listener.local_addr().expect("an address").port().to_string();
    let closed = ports(&TcpListener::bind("127.0.0.1:0").expect("a port"));
    let (silent_port, answers_port) = (ports(&silent), ports(&answers));
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for connection in answers.incoming().flatten() {
            let mut connection = connection;
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nDOWN");
        }
    });
    let mut planb = Planb::empty();
    let dir = planb.path().display().to_string();
    let fill = |text: &str| {
        text.replace("CLOSED", &closed)
            .replace("SILENT", &silent_port)
            .replace("ANSWERS", &answers_port)
            .replace("DIR", &dir)
    };
    executable(&planb.path().join("program"), &fill(PROGRAM));
    std::fs::create_dir(planb.path().join("terraform")).expect("a directory");
    std::fs::write(planb.path().join("terraform/main.tf"), "").expect("a file");
    let server = format!(
        "host = \"127.0.0.1\"\nport = {closed}\nuser = \"a\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
    );
    let mut config = format!(
        "[service]\nname = \"bank\"\n[source]\n{server}[standby]\n{server}[store]\nurl = \"file://{}\"\n\
         [[accounts]]\nname = \"app\"\ngrants = [\"ALL ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n",
        planb.store().display()
    );
    config.push_str(&step(
        "given",
        &fill("kind = \"command\"\nprogram = \"DIR/program\"\nargs = [\"give\"]"),
    ));
    for way in WAYS {
        config.push_str(&step(way.name, &fill(way.step)));
        // All begin together: nothing new is begun once one of them has failed.
        if !way.step.contains("needs = ") {
            config.push_str("needs = [\"given\"]\n");
        }
    }
    planb.write_config(&config);
    for (name, value) in [
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{closed}")),
        ("AWS_REGION", "ap-northeast-2".into()),
        ("AWS_ACCESS_KEY_ID", "testing".into()),
        ("AWS_SECRET_ACCESS_KEY", "testing".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("XDG_STATE_HOME", dir.clone()),
    ] {
        planb.env.push((name.into(), value));
    }
    let told = planb.fails(4, &["failover", "--stage", "1", "--yes"]);
    let status = planb.ok(&["status"]);
    let mut wrong = Vec::new();
    for way in WAYS {
        let line = told.lines().find(|line| line.contains(&format!("step {}:", way.name)));
        for part in way.told.iter().map(|part| fill(part)) {
            if !line.is_some_and(|line| line.contains(&part)) {
                wrong.push(format!("{} does not say {part:?}: {line:?}", way.name));
            }
        }
        if !status
            .lines()
            .any(|line| line.contains(way.name) && line.contains("failed"))
        {
            wrong.push(format!("planb status does not say that {} failed", way.name));
        }
    }
    assert!(wrong.is_empty(), "{}\n\n{told}\n\n{status}", wrong.join("\n"));
    assert!(told.contains("planb failover --stage 1 --resume"), "{told}");
    // What was told to stop, and all that it began, is gone.
    let gone = std::fs::read_to_string(planb.path().join("grandchild")).expect("it had begun");
    assert!(
        !Path::new("/proc").join(gone.trim()).join("exe").exists(),
        "{gone} goes on"
    );
    planb.ok(&["failover", "--abandon"]);
    drop(silent);
}

/// Its output is not waited for beyond its end: what it left in the background may hold the pipe for ever.
#[test]
fn a_program_that_leaves_something_running_has_ended() {
    let planb = Planb::empty();
    let dir = planb.path().display().to_string();
    executable(&planb.path().join("program"), &PROGRAM.replace("DIR", &dir));
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"a\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n{}",
        planb.store().display(),
        step("leaves", &format!("kind = \"command\"\nprogram = \"{dir}/program\"\nargs = [\"leave\"]"))
    ));
    let begun = Instant::now();
    planb.ok(&["failover", "--stage", "1", "--yes"]);
    assert!(
        begun.elapsed() < Duration::from_secs(120),
        "it waited for the background"
    );
    let left = std::fs::read_to_string(planb.path().join("left")).expect("it had begun");
    let alive = Path::new("/proc").join(left.trim()).exists();
    let _ = std::process::Command::new("kill").arg(left.trim()).status();
    assert!(alive, "a service that it started is its own affair");
}

/// Steps on a database: refused, silent, and holding something else than the backup.
#[test]
fn a_standby_that_fails_is_told_with_what_to_do() {
    let primary = Server::start(Flavor::MySql, &[]);
    let standby = Server::start(Flavor::MySql, &[]);
    primary.sql("CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1), (2)");
    standby.sql(&format!(
        "CREATE USER dba@'%' IDENTIFIED BY '{}'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION",
        support::PASSWORD
    ));
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent
        .local_addr()
        .map(|address| (silent, address.port()))
        .expect("an address");
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|one| one.local_addr())
        .expect("a port")
        .port();
    let planb = Planb::new(&primary, &reader(&primary, &[]));
    planb.backup(&[]);
    let stage_2 = |name: &str, kind: &str, more: &str| {
        format!("[[failover_steps]]\nname = \"{name}\"\nstage = 2\nkind = \"{kind}\"\nretries = 0\n{more}\n")
    };
    let spoil = planb.path().join("spoil");
    executable(
        &spoil,
        &format!(
            "#!/bin/sh\n{} -e 'DELETE FROM bank.t WHERE id = 2'\n",
            shell(&standby.client())
        ),
    );
    let common = |port: u16| {
        format!(
            "[standby]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n{}{}{}",
            stage_2("load", "restore", "timeout = \"5s\""),
            stage_2(
                "spoil",
                "command",
                &format!("program = \"{}\"\nneeds = [\"load\"]", spoil.display())
            ),
            stage_2("same", "verify", "needs = [\"load\", \"spoil\"]")
        )
    };
    let base = std::fs::read_to_string(planb.config()).expect("a configuration");
    let args = [
        "failover",
        "--stage",
        "2",
        "--yes",
        "--accept",
        "backup-unproven=t",
        "--accept",
        "primary-healthy=t",
    ];
    for (port, parts) in [
        (closed, ["step load", "refused"]),
        (silent.1, ["step load", "longer than its timeout of 5 s"]),
        (standby.port, ["step same", "the database is not what backup-"]),
    ] {
        planb.write_config(&format!("{base}{}", common(port)));
        let output = planb.run(&args);
        let told = text(&output);
        for part in parts
            .into_iter()
            .chain(["exit Some(4)", "planb failover --stage 2 --resume"])
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        planb.ok(&["failover", "--abandon"]);
    }
}

/// The configuration with a step before each of `names` that does what `spoil` then does, and short times for those.
fn spoiled(config: &str, dir: &str, list: &str, names: &[&str]) -> String {
    let head = format!("[[{list}]]\nname = \"");
    let mut blocks = Vec::new();
    for block in config.split("\n\n") {
        let name = block
            .trim_start()
            .strip_prefix(&head)
            .and_then(|rest| rest.split('"').next());
        let Some(name) = name.filter(|name| names.contains(name)) else {
            blocks.push(block.to_owned());
            continue;
        };
        let needs = block
            .lines()
            .find(|line| line.starts_with("needs = "))
            .unwrap_or("needs = []");
        let stage = block
            .lines()
            .find(|line| line.starts_with("stage = "))
            .expect("a stage");
        let command = format!("kind = \"command\"\nprogram = \"{dir}/spoil\"\nargs = [\"{name}\"]");
        blocks.push(format!("{head}spoil-{name}\"\n{stage}\n{command}\n{needs}"));
        let also = match needs {
            "needs = []" => format!("needs = [\"spoil-{name}\"]"),
            needs => needs.replacen('[', &format!("[\"spoil-{name}\", "), 1),
        };
        let without: Vec<&str> = block.lines().filter(|line| !line.starts_with("needs = ")).collect();
        blocks.push(format!("{}\n{also}\nretries = 0\ntimeout = \"5s\"", without.join("\n")));
    }
    blocks.join("\n\n")
}

/// From a standby's accounts to the traffic, and home: each step fails in the middle of a real operation, one way after the other, and the
/// next `--resume` goes on as soon as the cause is gone.
#[test]
fn a_service_that_moves_through_every_misfortune() {
    let mut lab = Lab::new(Flavor::MySql);
    let dir = lab.planb.path().display().to_string();
    let (to_primary, to_standby) = (lab.planb.path().join("to-primary"), lab.planb.path().join("to-standby"));
    let primary = Gate::to(lab.primary.port, &to_primary);
    let standby = Gate::to(lab.standby.port, &to_standby);
    let ports = [(lab.primary.port, primary.port), (lab.standby.port, standby.port)];
    for (real, gate) in ports {
        lab.planb
            .reconfigure(&format!("port = {real}\n"), &format!("port = {gate}\n"));
    }
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = TcpListener::bind("127.0.0.1:0")
        .and_then(|one| one.local_addr())
        .expect("a port");
    for (kind, more) in [
        ("standby", "origin = \"azure\"\ndomain = \"bank.example.com\""),
        ("primary", "origin = \"azure\""),
    ] {
        lab.planb.reconfigure(
            &format!("kind = \"command\"\nmeans = \"traffic\"\nsite = \"{kind}\"\nprogram = \"{dir}/traffic\"\nargs = [\"{kind}\"]"),
            &format!("kind = \"traffic\"\ndistribution = \"E2EXAMPLE\"\nretries = 0\n{more}"),
        );
    }
    let config = std::fs::read_to_string(lab.planb.config()).expect("a configuration");
    let config = spoiled(
        &config,
        &dir,
        "failover_steps",
        &["accounts", "fence", "last-backup", "open"],
    );
    let config = spoiled(&config, &dir, "failback_steps", &["preserve", "last", "open-primary"]);
    lab.planb.write_config(&config);
    let aws = |lab: &mut Lab, port: u16| {
        lab.planb.env.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        lab.planb
            .env
            .push(("AWS_ENDPOINT_URL".into(), format!("http://127.0.0.1:{port}")));
    };
    for (name, value) in [
        ("AWS_REGION", "ap-northeast-2"),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ] {
        lab.planb.env.push((name.into(), value.into()));
    }
    aws(&mut lab, closed.port());
    // Rights as they go in the middle of it: the client's command lines, for the script.
    let at_primary = shell(&lab.primary.client());
    script(
        lab.planb.path().join("spoil"),
        &format!(
            "mkdir {dir}/spoiled-$1 2>/dev/null || exit 0
             case $1 in accounts|last) echo shut > {dir}/to-standby ;;
             fence) {at_primary} -e 'REVOKE CREATE USER ON *.* FROM dba' ;;
             last-backup) {at_primary} -e 'REVOKE SELECT ON *.* FROM reader' ;;
             preserve) {at_primary} -e 'CREATE DATABASE planb_old_bank' ;;
             open-primary) echo shut > {dir}/to-primary ;; esac"
        ),
    );
    lab.planb.backup(&[]);
    let begin = [
        "failover",
        "--stage",
        "3",
        "--yes",
        "--accept",
        "backup-unproven=t",
        "--accept",
        "primary-healthy=t",
    ];
    let fails = |lab: &Lab, args: &[&str], parts: &[&str]| {
        let told = lab.planb.fails(4, args);
        let resume = if args[0] == "failover" {
            "planb failover --stage 3 --resume"
        } else {
            "planb failback --resume"
        };
        for part in parts.iter().chain(&[resume]) {
            assert!(told.contains(part), "{part:?} is not in: {told}");
        }
        // Whoever looks from elsewhere reads the same.
        let status = lab.planb.ok(&["status"]);
        let step = parts[0].trim_start_matches("step ").trim_end_matches(':');
        assert!(
            status
                .lines()
                .any(|line| line.contains(step) && line.contains("failed")),
            "{step}: {status}"
        );
    };
    let resume = ["failover", "--resume"];
    let late = "longer than its timeout of 5 s";

    fails(&lab, &begin, &["step accounts:", "127.0.0.1"]);
    standby.set("silent");
    fails(&lab, &resume, &["step accounts:", late]);
    standby.set("");
    // Whoever may not lock others proves nothing; and who sees only a part takes no last backup.
    fails(&lab, &resume, &["step last-backup:", "SELECT on schema bank"]);
    lab.primary.sql("GRANT SELECT ON *.* TO reader@'%'");
    let told = lab.planb.fails(4, &resume);
    for part in [
        "step open is refused by the rule unfenced",
        "grant CREATE USER",
        "--resume tries again",
        "--accept unfenced=REASON",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    lab.primary.sql("GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION");
    primary.set("silent");
    fails(&lab, &resume, &["step fence:", late]);
    primary.set("");
    // A later operation was there, of which this one knows nothing.
    lab.standby.sql(
        "CREATE TABLE planb.opened (one TINYINT NOT NULL PRIMARY KEY, epoch BIGINT UNSIGNED NOT NULL, operation BIGINT UNSIGNED NOT NULL,
         at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    );
    lab.standby
        .sql("REPLACE INTO planb.opened (one, epoch, operation) VALUES (1, 9, 9)");
    fails(
        &lab,
        &resume,
        &["step open:", "opened under epoch 9 already", "planb status"],
    );
    lab.standby.sql("DELETE FROM planb.opened");
    standby.set("shut");
    fails(&lab, &resume, &["step open:", "127.0.0.1"]);
    standby.set("silent");
    fails(&lab, &resume, &["step open:", late]);
    standby.set("");
    fails(&lab, &resume, &["step traffic:", "E2EXAMPLE", "`command` step"]);
    aws(&mut lab, silent.local_addr().expect("an address").port());
    fails(&lab, &resume, &["step traffic:", "E2EXAMPLE", "no answer from AWS"]);
    let skip = ["--json", "failover", "--resume", "--accept", "skip-traffic=by DNS"];
    let done = lab.planb.json(&skip);
    assert_eq!(done["result"], "done", "{done}");
    lab.app(&lab.standby, "INSERT INTO bank.log (what) VALUES ('there')")
        .expect("served");

    let resume = ["failback", "--resume"];
    fails(
        &lab,
        &["failback", "--yes"],
        &["step preserve:", "planb_old_bank", "--drop-old"],
    );
    lab.primary.sql("DROP DATABASE planb_old_bank");
    primary.set("silent");
    fails(&lab, &resume, &["step preserve:", late]);
    primary.set("");
    fails(&lab, &resume, &["step last:", "127.0.0.1"]);
    standby.set("");
    fails(&lab, &resume, &["step open-primary:", "127.0.0.1"]);
    primary.set("");
    fails(&lab, &resume, &["step traffic-home:", "E2EXAMPLE"]);
    let done = lab.planb.json(&[
        "--json",
        "failback",
        "--resume",
        "--accept",
        "skip-traffic-home=by DNS",
        "--accept",
        "confirm-soak=t",
    ]);
    assert_eq!(done["result"], "done", "{done}");
    assert_eq!(lab.primary.sql("SELECT what FROM bank.log").trim(), "there");
    lab.app(&lab.primary, "INSERT INTO bank.log (what) VALUES ('home')")
        .expect("served");
    // However often it was begun, what the old primary had was kept once.
    let kept = std::fs::read_dir(lab.planb.store().join("preserved/backups"))
        .expect("kept")
        .flatten();
    let kept: Vec<String> = kept
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    let backups = kept
        .iter()
        .filter(|name| name.ends_with(".sql.gz") && !name.contains("divergence"));
    assert_eq!(backups.count(), 1, "{kept:?}");
    drop(silent);
}

/// The client's command line, for a script.
fn shell(client: &std::process::Command) -> String {
    let words = std::iter::once(client.get_program()).chain(client.get_args());
    let quoted: Vec<String> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    quoted.join(" ")
}
