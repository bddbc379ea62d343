//! Rehearsals with real MySQL and a real Terraform that starts one: the report's numbers, what is left, and what is not touched.

mod daemon;
mod support;

use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use daemon::Daemon;
use serde_json::Value;
use support::planb::PASSWORD;
use support::receiver::{Manner, Receiver};
use support::{Flavor, Planb, Server, lab_dir, reader};

const PLAN: &str = r#"
[[failover_steps]]
name = "database"
stage = 2
kind = "terraform"
dir = "DIR/database"
variables = ["port=PORT", "dir=DIR/servers", "lab=LAB", "script=SCRIPT", "flavor=FLAVOR"]
secrets = ["password=env:PLANB_SOURCE_PASSWORD"]

[[failover_steps]]
name = "restore"
stage = 2
kind = "restore"
needs = ["database"]

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
name = "healthy"
stage = 3
kind = "command"
drill = "run"
program = "DIR/healthy"
needs = ["open"]

[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "DIR/traffic"
needs = ["open", "healthy"]
"#;

const DATABASE: &str = r#"
variable "port" { type = string }
variable "dir" { type = string }
variable "lab" { type = string }
variable "script" { type = string }
variable "flavor" { type = string }
variable "password" {
  type      = string
  sensitive = true
}
resource "terraform_data" "server" {
  input = {
    port = var.port
    dir  = "${var.dir}/${terraform.workspace}"
    lab  = var.lab
    script = var.script
    flavor = var.flavor
  }
  provisioner "local-exec" {
    command = "mkdir -p ${var.dir} && { ${self.input.script} stop ${self.input.dir} || true; } && rm -rf ${self.input.dir} && ${self.input.script} start ${self.input.flavor} --port ${self.input.port} --dir ${self.input.dir} > ${self.input.dir}.told && read -r port pid socket dir < ${self.input.dir}.told && ${var.lab}/${self.input.flavor}/bin/${self.input.flavor} --no-defaults -uroot -S $socket -e \"DROP USER IF EXISTS ''@'localhost'; CREATE USER IF NOT EXISTS dba@'%' IDENTIFIED BY '$TF_VAR_password'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION\" && touch ${var.dir}/../made && while [ -e ${var.dir}/../hold ]; do sleep 0.1; done"
    environment = { PLANB_LAB = self.input.lab }
  }
  provisioner "local-exec" {
    when        = destroy
    command     = "${self.input.script} stop ${self.input.dir} && rm -rf ${self.input.dir}"
    environment = { PLANB_LAB = self.input.lab }
  }
}
output "host" { value = "127.0.0.1" }
"#;

struct Lab {
    primary: Server,
    standby: Server,
    planb: Planb,
    /// Of the server that a rehearsal makes.
    port: u16,
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

fn script(path: PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(&path, format!("#!/bin/sh\nset -eu\n{text}\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
}

impl Lab {
    fn new(flavor: Flavor) -> Self {
        let primary = Server::start(flavor, &[]);
        let standby = Server::start(flavor, &[]);
        primary.sql(&format!(
            "CREATE DATABASE bank; CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@'%';
             CREATE TABLE bank.accounts (id INT PRIMARY KEY, money INT NOT NULL);
             INSERT INTO bank.accounts VALUES (1, 100), (2, 100);
             CREATE TABLE bank.log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(99), KEY (what));
             CREATE EVENT bank.tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO bank.log (what) VALUES ('tick');"
        ));
        for server in [&primary, &standby] {
            server.sql(&format!(
                "CREATE USER dba@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION;"
            ));
        }
        let mut planb = Planb::new(&primary, &reader(&primary, &[]));
        let dir = planb.path().display().to_string();
        let port = free_port();
        let server = |name: &str, port: u16| {
            format!(
                "[{name}]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
            )
        };
        let script_path = format!("{}/scripts/lab", env!("CARGO_MANIFEST_DIR"));
        let plan = PLAN
            .replace("DIR", &dir)
            .replace("PORT", &standby.port.to_string())
            .replace("LAB", &lab_dir().canonicalize().expect("a lab").display().to_string())
            .replace("SCRIPT", &script_path)
            .replace("FLAVOR", flavor.name());
        planb.configure(&format!(
            "{}{}[drill]\nvariables = [\"port={port}\"]\nto = \"mysql://dba@127.0.0.1:{port}\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n\
             tls = \"off\"\n[[accounts]]\nname = \"app\"\ngrants = [\"ALL ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n{plan}",
            server("standby", standby.port),
            server("primary", primary.port),
        ));
        std::fs::create_dir(planb.path().join("database")).expect("a directory");
        std::fs::write(planb.path().join("database/main.tf"), DATABASE).expect("a configuration");
        // Health: the application logs in and sees its money on the rehearsal's server.
        let client = lab_dir()
            .canonicalize()
            .expect("a lab")
            .join(format!("{0}/bin/{0}", flavor.name()));
        script(
            planb.path().join("healthy"),
            &format!(
                "test \"$(MYSQL_PWD='{PASSWORD}' {} --no-defaults --protocol=tcp -h 127.0.0.1 -P {port} -uapp -N -B -e 'SELECT SUM(money) FROM bank.accounts')\" = 200\n\
                 MYSQL_PWD='{PASSWORD}' {} --no-defaults --protocol=tcp -h 127.0.0.1 -P {port} -udba -N -B -e \
                 \"SELECT STATUS FROM information_schema.EVENTS WHERE EVENT_NAME = 'tick'\" > {dir}/event",
                client.display(),
                client.display()
            ),
        );
        script(
            planb.path().join("traffic"),
            &format!("echo moved > {dir}/traffic-moved"),
        );
        let state = planb.path().join("state").display().to_string();
        planb.env.push(("XDG_STATE_HOME".into(), state));
        Self {
            primary,
            standby,
            planb,
            port,
        }
    }

    fn server_is_up(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok()
    }

    /// Nothing of a rehearsal is left, and nothing real was touched.
    fn assert_clean(&self) {
        assert!(!self.server_is_up(), "its server is gone");
        let state = self
            .planb
            .path()
            .join("database/terraform.tfstate.d/drill/terraform.tfstate");
        let state = std::fs::read_to_string(state).expect("a state of its own");
        let state: Value = serde_json::from_str(&state).expect("JSON");
        assert_eq!(state["resources"], serde_json::json!([]), "Terraform has nothing left");
        assert!(
            !self.planb.path().join("database/terraform.tfstate").exists(),
            "the real state was never made"
        );
        assert_eq!(
            self.standby.sql("SHOW DATABASES LIKE 'bank'").trim(),
            "",
            "the standby is as it was"
        );
        assert_eq!(
            self.standby
                .sql("SELECT COUNT(*) FROM mysql.user WHERE User = 'app'")
                .trim(),
            "0"
        );
        assert!(!self.planb.path().join("traffic-moved").exists());
        assert!(
            !self.planb.store().join("control/journal").exists(),
            "no real operation"
        );
        self.primary
            .sql_as("app", PASSWORD, "INSERT INTO bank.log (what) VALUES ('on')")
            .expect("the primary was never fenced");
        let status = self.planb.json(&["--json", "status"]);
        assert_eq!(
            (
                status["standing"]["serving"].as_str(),
                status["standing"]["epoch"].as_u64()
            ),
            (Some("primary"), Some(0)),
            "{status}"
        );
    }

    fn drill_events(&self) -> Vec<(String, String)> {
        let history = self.planb.json(&["--json", "history"]);
        let entries = history["drills"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        entries
            .iter()
            .map(|entry| (text(&entry["event"]["what"]), text(&entry["event"]["step"])))
            .collect()
    }

    /// Until this is in the journal of rehearsals.
    fn wait_for(&self, child: &mut Child, what: &str, step: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while !self.drill_events().contains(&(what.to_owned(), step.to_owned())) {
            assert!(Instant::now() < until, "no {what} {step}: {:?}", self.drill_events());
            assert!(
                child.try_wait().expect("a child").is_none(),
                "it ended before {what} {step}"
            );
        }
    }
}

#[test]
fn a_rehearsal_beside_a_running_agent_measures_and_leaves_nothing() {
    let lab = Lab::new(Flavor::MySql);
    let refused = lab.planb.fails(3, &["drill"]);
    assert!(refused.contains("no good backup"), "{refused}");
    let plan = lab.planb.ok(&["drill", "--plan", "--stage", "3"]);
    assert!(
        plan.contains("left out: fence") && plan.contains("left out: traffic") && plan.contains("healthy"),
        "{plan}"
    );
    lab.planb
        .reconfigure("[store]", "[backup]\nschedule = \"*/2 * * * * *\"\n[store]");
    lab.planb.backup(&[]);
    let mut agent = lab.planb.spawn(&["agent"]);
    let backups = || lab.planb.visible().len();
    let until = Instant::now() + Duration::from_secs(60);
    while backups() < 3 {
        assert!(Instant::now() < until, "the agent makes no backups");
    }
    let before = backups();
    let told = lab
        .planb
        .json(&["--json", "drill", "--stage", "3", "--as", "ana", "--seed", "7"]);
    let drill = &told["drill"];
    assert_eq!(told["result"], "met", "{told}");
    // Backups went on beside it.
    assert!(backups() > before, "{before} backups before, {} after", backups());
    agent.kill().expect("killed");
    agent.wait().expect("ended");
    lab.assert_clean();
    assert_eq!(
        std::fs::read_to_string(lab.planb.path().join("event"))
            .expect("looked at")
            .trim(),
        "DISABLED",
        "its events never fire"
    );

    // The numbers follow from one another.
    let seconds = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value}: {drill}"));
    let steps = drill["steps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step["state"] == "done"), "{drill}");
    let last = steps
        .iter()
        .map(|step| seconds(&step["begun_after_seconds"]) + seconds(&step["seconds"]))
        .fold(0.0, f64::max);
    assert!(
        (seconds(&drill["rto"]["seconds"]) - last).abs() < 0.01,
        "to healthy: {drill}"
    );
    let at = |text: &Value| {
        text.as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok())
            .unwrap_or_else(|| panic!("{drill}"))
    };
    let loss = at(&drill["lost_at"])
        .duration_since(at(&drill["backup"]["consistent_at"]))
        .as_secs_f64();
    assert!(
        (seconds(&drill["rpo"]["seconds"]) - loss).abs() < 0.01 && loss > 0.0,
        "{drill}"
    );
    assert_eq!(
        (drill["seed"].as_str(), drill["who"].as_str()),
        (Some("7"), Some("ana"))
    );
    assert_eq!(drill["evidence"]["tables compared"], "2", "{drill}");
    assert_eq!(drill["clean_up"].as_array().map(Vec::len), Some(6), "{drill}");

    // It is a proof of that backup, in the store, and the journal's last digest is that of its last entry.
    let id = drill["id"].as_str().expect("an id");
    let listed = lab.planb.json(&["--json", "backups"]);
    let proven = listed["backups"]
        .as_array()
        .expect("backups")
        .iter()
        .find(|backup| backup["id"] == drill["backup"]["id"]);
    assert!(proven.is_some_and(|backup| backup["proven_at"].is_string()), "{listed}");
    let folder = lab.planb.store().join("control/drills/backups");
    let entries = std::fs::read_dir(folder.join("journal/g1/000001"))
        .expect("a journal")
        .count();
    assert_eq!(drill["journal_entries"], entries, "{drill}");
    let last = std::fs::read_to_string(folder.join(format!("journal/g1/000001/{entries:06}.json"))).expect("an entry");
    assert!(last.contains(drill["journal_digest"].as_str().expect("a digest")));
    let html = std::fs::read_to_string(folder.join(format!("reports/{id}.html"))).expect("a page");
    for part in [
        "<svg",
        "Content-Security-Policy",
        "Both targets were met",
        "drawn at random (seed 7)",
        "Not rehearsed",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert!(
        !html.contains("http-equiv=\"refresh\"") && !html.contains("src=") && !html.contains("<script"),
        "nothing from elsewhere"
    );
    assert!(!html.contains(PASSWORD));
    let markdown = lab.planb.ok(&["drill", "--report", id]);
    assert!(markdown.contains("| restore | restore | done |"), "{markdown}");
    let listed = lab.planb.ok(&["drill", "--list"]);
    assert!(
        listed.contains(id) && listed.contains("a disaster would take"),
        "{listed}"
    );
    assert!(lab.planb.ok(&["history"]).contains("drill 1"));

    // What is real is never in reach.
    lab.planb.reconfigure(
        &format!("to = \"mysql://dba@127.0.0.1:{}\"", lab.port),
        &format!("to = \"mysql://dba@127.0.0.1:{}\"", lab.standby.port),
    );
    let refused = lab.planb.fails(2, &["drill"]);
    assert!(refused.contains("drill.to") && refused.contains("real"), "{refused}");
    // Known beforehand: a warning, and a mistake where the clock would begin it.
    let checked = lab.planb.ok(&["config", "check"]);
    assert!(checked.contains("warning: drill.to: planb drill refuses"), "{checked}");
    lab.planb.reconfigure("[drill]", "[drill]\nschedule = \"0 4 * * *\"\n");
    let mistaken = lab.planb.fails(2, &["config", "check"]);
    assert!(
        mistaken.contains("drill.to: is a database of the real thing"),
        "{mistaken}"
    );
    lab.planb.reconfigure("[drill]\nschedule = \"0 4 * * *\"\n", "[drill]");
    lab.planb.reconfigure(
        &format!("to = \"mysql://dba@127.0.0.1:{}\"", lab.standby.port),
        &format!("to = \"mysql://dba@127.0.0.1:{}\"", lab.port),
    );
    lab.planb.reconfigure("[store]", "[targets]\nrpo = \"1s\"\n[store]");
    let until = Instant::now() + Duration::from_secs(60);
    while lab.planb.json(&["--json", "status"])["rpo"]["state"] != "breached" {
        assert!(
            Instant::now() < until,
            "nothing is backed up any more, and the RPO holds"
        );
    }
    let breached = lab.planb.fails(3, &["drill"]);
    assert!(breached.contains("RPO breached"), "{breached}");
}

/// SIGKILL at a step's boundary, by chance; what is left is taken back, and nothing is pruned meanwhile.
#[test]
fn killed_halfway_it_is_cleared_away() {
    let boundaries = [
        ("done", "database"),
        ("started", "restore"),
        ("done", "restore"),
        ("started", "compare"),
        ("done", "accounts"),
    ];
    let seed: u64 = std::env::var("PLANB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    let rounds: usize = std::env::var("PLANB_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(1);
    println!("PLANB_SEED={seed}");
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    for round in 0..rounds {
        let (what, step) = boundaries[(usize::try_from(seed % 1_000).expect("small") + round) % boundaries.len()];
        println!("killed at {what} {step}");
        let mut drill = lab.planb.spawn(&["drill", "--stage", "3"]);
        lab.wait_for(&mut drill, what, step);
        drill.kill().expect("killed");
        drill.wait().expect("ended");
        assert!(lab.server_is_up(), "it left its server");
        let dry = lab.planb.ok(&["prune", "--dry-run"]);
        assert!(
            dry.contains("a drill is open"),
            "its hold lasts as long as its lease: {dry}"
        );
        // Its lease expires; from then on it is one that was left, for everybody who looks.
        let until = Instant::now() + Duration::from_secs(90);
        while !lab.planb.ok(&["status"]).contains("LEFT STANDING") {
            assert!(Instant::now() < until, "{}", lab.planb.ok(&["status"]));
        }
        let told = support::planb::text(&lab.planb.run(&["check"]));
        assert!(
            told.contains("was left standing") && told.contains("drill --clean"),
            "{told}"
        );
        // Whatever the plan is by now: it is taken back by what it began with.
        let began_with = std::fs::read_to_string(lab.planb.config()).expect("a configuration");
        lab.planb.reconfigure("name = \"database\"", "name = \"server\"");
        lab.planb.reconfigure("needs = [\"database\"]", "needs = [\"server\"]");
        lab.planb.reconfigure(
            "DIR/database"
                .replace("DIR", &lab.planb.path().display().to_string())
                .as_str(),
            "/nonexistent",
        );
        let mut agent = lab.planb.spawn(&["agent"]);
        lab.wait_for(&mut agent, "ended", "");
        // Told to stop, not killed: its report and its lease come after the journal's last entry.
        let stopped = std::process::Command::new("kill").arg(agent.id().to_string()).status();
        assert!(stopped.expect("kill runs").success());
        agent.wait().expect("ended");
        lab.planb.write_config(&began_with);
        let listed = lab.planb.json(&["--json", "drill", "--list"]);
        let cleaned = &listed["drills"][0];
        assert_eq!(cleaned["result"], "interrupted", "{listed}");
        assert!(cleaned["cleaned_at"].is_string(), "{listed}");
        lab.assert_clean();
        let dry = lab.planb.ok(&["prune", "--dry-run"]);
        assert!(!dry.contains("a drill is open"), "{dry}");
        let nothing = lab.planb.json(&["--json", "drill", "--clean"]);
        assert_eq!(nothing["result"], "nothing", "{nothing}");
        std::fs::remove_dir_all(lab.planb.store().join("control/drills")).expect("begun anew");
    }
    // A failing step is told, and taken back, too.
    script(
        lab.planb.path().join("healthy"),
        "echo the application is not up >&2; exit 9",
    );
    let failed = lab.planb.fails(1, &["drill", "--stage", "3"]);
    assert!(
        failed.contains("failed") && failed.contains("the application is not up"),
        "{failed}"
    );
    lab.assert_clean();
    // Beside a real operation nothing is rehearsed.
    lab.planb.configure("[failover]\napprovers = 2\n");
    let args = [
        "failover",
        "--stage",
        "2",
        "--yes",
        "--as",
        "ana",
        "--accept",
        "backup-unproven=t",
        "--accept",
        "primary-healthy=t",
    ];
    lab.planb.fails(4, &args);
    let refused = lab.planb.fails(3, &["drill"]);
    assert!(refused.contains("a failover or failback is open"), "{refused}");
}

/// By the agent's clock; at its stop Terraform comes to rest instead of being killed, a person goes on, and what is real under another name
/// is known for what it is.
#[test]
fn by_schedule_it_is_told_of_and_a_stop_of_the_agent_leaves_what_can_be_gone_on_with() {
    let mut lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    let people = Receiver::start(Manner::Takes);
    lab.planb.env.push(("PEOPLE".into(), people.url("told")));
    lab.planb.configure(
        "[[notify.channels]]\nname = \"people\"\nkind = \"webhook\"\nurl = \"env:PEOPLE\"\nseverity = \"info\"\n\
         events = [\"drill-result\", \"drill-left\"]\n",
    );
    lab.planb
        .reconfigure("[drill]", "[drill]\nschedule = \"* * * * * *\"\n");
    let mut agent = Daemon::start(&lab.planb);
    let soon = Duration::from_secs(120);
    let told = agent.wait("a rehearsal that people are told of", soon, |_| {
        people
            .taken()
            .into_iter()
            .map(|message| message.body)
            .find(|body| body.contains("drill-result"))
    });
    assert!(told.contains("met"), "{told}");
    let listed = lab.planb.json(&["--json", "drill", "--list"]);
    assert_eq!(
        (
            listed["drills"][0]["stage"].as_u64(),
            listed["drills"][0]["who"].as_str()
        ),
        (Some(2), Some("schedule")),
        "{listed}"
    );

    // The next one is in the middle of Terraform's work when the agent is stopped.
    let (hold, made) = (lab.planb.path().join("hold"), lab.planb.path().join("made"));
    std::fs::write(&hold, "").expect("a file");
    let _ = std::fs::remove_file(&made);
    agent.wait("Terraform at work", soon, |_| made.exists().then_some(()));
    let ended = agent.stop();
    assert!(ended.status.success(), "{}", ended.heard.told());
    let notices = ended.heard.notices();
    assert!(
        notices.iter().any(|(_, text)| text.starts_with("EXTEND_TIMEOUT_USEC=")),
        "the service manager is asked for patience: {notices:?}"
    );
    let state = lab
        .planb
        .path()
        .join("database/terraform.tfstate.d/drill/terraform.tfstate");
    let state = std::fs::read_to_string(state).expect("a state");
    assert!(
        state.contains("terraform_data"),
        "what was begun is in the state: {state}"
    );
    let status = lab.planb.ok(&["status"]);
    assert!(
        status.contains("LEFT STANDING"),
        "at once, its lease was given back: {status}"
    );

    // A person goes on where it stands, by the configuration that it began with.
    std::fs::remove_file(&hold).expect("removed");
    lab.planb.reconfigure("schedule = \"* * * * * *\"\n", "");
    let resumed = lab.planb.json(&["--json", "drill", "--resume"]);
    assert_eq!(resumed["result"], "met", "{resumed}");
    lab.assert_clean();

    // What would be called like the real one is not made.
    let root = lab.planb.path().join("database/main.tf");
    std::fs::write(
        &root,
        DATABASE.replace("flavor = var.flavor", "flavor = var.flavor\n    name = \"bank-dr\""),
    )
    .expect("written");
    let failed = lab.planb.fails(1, &["drill"]);
    assert!(
        failed.contains("called like what is real")
            && failed.contains("bank-dr")
            && failed.contains("[drill] variables"),
        "{failed}"
    );
    lab.assert_clean();
    std::fs::write(&root, DATABASE).expect("written");

    // The source, and a standby that was restored in earnest, by a name that nobody wrote down: the servers say who they are.
    lab.planb.ok(&["restore"]);
    lab.planb
        .reconfigure("kind = \"terraform\"", "kind = \"terraform\"\ndrill = \"skip\"");
    let own = format!("to = \"mysql://dba@127.0.0.1:{}\"", lab.port);
    for (port, says) in [
        (lab.primary.port, "the real thing under another name"),
        (lab.standby.port, "was restored in earnest"),
    ] {
        let real = format!("to = \"mysql://dba@localhost:{port}\"");
        lab.planb.reconfigure(&own, &real);
        let failed = lab.planb.fails(1, &["drill"]);
        assert!(failed.contains(says), "{failed}");
        lab.planb.reconfigure(&real, &own);
    }
    assert_eq!(lab.standby.sql("SELECT SUM(money) FROM bank.accounts").trim(), "200");
    let bookkeeping = lab.primary.sql("SHOW DATABASES LIKE 'planb'");
    assert_eq!(bookkeeping.trim(), "", "the source is read, never written");
}

/// The process that a step of the plan started, whatever becomes of the test.
struct Machine(PathBuf);

impl Machine {
    fn is_up(&self) -> bool {
        let told = std::process::Command::new(&self.0).arg("is-running").status();
        told.expect("its program").success()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::process::Command::new(&self.0).arg("stop").status();
    }
}

/// As the bank's plan has it: nobody but the runner reaches the database, and its machine is started for the rehearsal.
#[test]
fn each_step_is_done_where_it_is_at_night_and_the_runner_s_machine_goes_as_it_came() {
    let lab = Lab::new(Flavor::MySql);
    lab.planb.backup(&[]);
    for kind in ["restore", "verify", "accounts", "standby-open"] {
        let plain = format!("kind = \"{kind}\"\n");
        lab.planb.reconfigure(&plain, &format!("{plain}at = \"runner\"\n"));
    }
    lab.planb.reconfigure("[drill]\n", "[drill]\nrunner_within = \"1s\"\n");
    let planned = lab.planb.json(&["--json", "drill", "--plan", "--stage", "2"]);
    assert_eq!(planned["steps"][1]["at"], "runner", "{planned}");

    // Nobody comes: it says so, and leaves nothing.
    let failed = lab.planb.fails(1, &["drill"]);
    assert!(failed.contains("no runner took up restore within"), "{failed}");
    lab.assert_clean();
    let events = lab.drill_events();
    assert!(
        !events.contains(&("started".to_owned(), "restore".to_owned())),
        "{events:?}"
    );

    let power = lab.planb.path().join("power");
    let (dir, program, config) = (
        lab.planb.path().display(),
        env!("CARGO_BIN_EXE_planb"),
        lab.planb.config().display().to_string(),
    );
    script(
        power.clone(),
        &format!(
            "up() {{ [ -e {dir}/runner.pid ] && kill -0 \"$(cat {dir}/runner.pid)\" 2>/dev/null; }}\n\
             case $1 in\n\
             is-running) up ;;\n\
             start) setsid {program} --config {config} runner >>{dir}/runner.log 2>&1 </dev/null & echo $! >{dir}/runner.pid ;;\n\
             stop) up || exit 0; kill \"$(cat {dir}/runner.pid)\"; while up; do sleep 0.1; done ;;\n\
             esac"
        ),
    );
    let machine = Machine(power.clone());
    lab.planb
        .reconfigure("runner_within = \"1s\"", "runner_within = \"1m\"");
    lab.planb.configure(&format!(
        "[[failover_steps]]\nname = \"runner\"\nstage = 2\nkind = \"command\"\ndrill = \"run\"\nprogram = \"{}\"\n\
         args = [\"start\"]\nprobe = [\"is-running\"]\nundo = [\"stop\"]\nenvironment = [\"PLANB_SOURCE_PASSWORD\", \"XDG_STATE_HOME\"]\n",
        power.display()
    ));
    lab.planb
        .reconfigure("needs = [\"database\"]", "needs = [\"database\", \"runner\"]");
    let told = lab.planb.json(&["--json", "drill", "--stage", "3"]);
    let log = || std::fs::read_to_string(lab.planb.path().join("runner.log")).unwrap_or_default();
    assert_eq!(told["result"], "met", "{told}\n{}", log());
    assert!(!machine.is_up(), "its machine rests again");
    lab.assert_clean();
    let history = lab.planb.json(&["--json", "history"]);
    let entries = history["drills"].as_array().expect("entries").clone();
    let by = |step: &str| {
        let done = entries
            .iter()
            .rfind(|entry| entry["event"]["what"] == "done" && entry["event"]["step"] == step);
        done.map(|entry| entry["by"]["who"].as_str().unwrap_or_default().to_owned())
    };
    for (step, is_of_the_runner) in [
        ("database", false),
        ("restore", true),
        ("compare", true),
        ("open", true),
        ("healthy", false),
    ] {
        assert_eq!(
            by(step).map(|who| who == "runner"),
            Some(is_of_the_runner),
            "{step}: {history}"
        );
    }

    // A failover that is begun meanwhile needs the machine.
    script(
        lab.planb.path().join("healthy"),
        &format!("touch {dir}/waits; while [ ! -e {dir}/never ]; do sleep 0.1; done"),
    );
    let drill = lab.planb.spawn(&["drill", "--stage", "3"]);
    let until = Instant::now() + Duration::from_secs(120);
    while !lab.planb.path().join("waits").exists() {
        assert!(Instant::now() < until, "its last step never begins: {}", log());
        std::thread::yield_now();
    }
    lab.planb.configure("[failover]\napprovers = 2\n");
    lab.planb.fails(
        4,
        &[
            "failover",
            "--stage",
            "2",
            "--yes",
            "--as",
            "ana",
            "--accept",
            "backup-unproven=t",
            "--accept",
            "primary-healthy=t",
        ],
    );
    let output = drill.wait_with_output().expect("it ends");
    let text = support::planb::text(&output);
    assert!(text.contains("a real failover was begun"), "{text}");
    assert!(machine.is_up(), "the failover needs it: {text}");
    assert!(!lab.server_is_up(), "the rehearsal's own server is gone");
}

/// At MariaDB too; and a failover that is begun meanwhile is not kept waiting.
#[test]
fn at_mariadb_it_gives_way_to_a_real_operation() {
    let lab = Lab::new(Flavor::MariaDb);
    lab.planb.backup(&[]);
    let told = lab.planb.json(&["--json", "drill", "--stage", "3"]);
    assert_eq!(told["result"], "met", "{told}");
    lab.assert_clean();

    script(
        lab.planb.path().join("healthy"),
        &format!(
            "touch {0}/waits; while [ ! -e {0}/never ]; do sleep 0.1; done",
            lab.planb.path().display()
        ),
    );
    let drill = lab.planb.spawn(&["drill", "--stage", "3"]);
    let until = Instant::now() + Duration::from_secs(120);
    while !lab.planb.path().join("waits").exists() {
        assert!(Instant::now() < until, "its last step never begins");
        std::thread::yield_now();
    }
    let config = std::fs::read_to_string(lab.planb.config()).expect("a configuration");
    lab.planb.configure("[failover]\napprovers = 2\n");
    lab.planb.fails(
        4,
        &[
            "failover",
            "--stage",
            "2",
            "--yes",
            "--as",
            "ana",
            "--accept",
            "backup-unproven=t",
            "--accept",
            "primary-healthy=t",
        ],
    );
    let output = drill.wait_with_output().expect("it ends");
    let text = support::planb::text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("a real failover was begun"), "{text}");
    let refused = lab.planb.fails(3, &["drill"]);
    assert!(refused.contains("a failover or failback is open"), "{refused}");
    lab.planb.ok(&["failover", "--abandon", "--yes", "--stage", "2"]);
    lab.planb.write_config(&config);
    std::fs::remove_dir_all(lab.planb.store().join("control/journal")).expect("as if it had never been");
    lab.assert_clean();
}
