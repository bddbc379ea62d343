//! The runbook, followed by somebody who knows nothing but the paper: every page is printed from the lab's plan, and what stands on it is typed,
//! in its order, at a terminal, against real servers and a real Terraform. What the page says one should see must be on the screen.
//!
//! Where a command stops, only what the page says for that case is typed. What is on a page and is not typed here stands in [`NOT_TYPED`].

mod support;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::planb::PASSWORD;
use support::{Flavor, Planb, Server, assert_same, census, lab_dir, reader};

const PLAN: &str = r#"
[[failover_steps]]
name = "database"
stage = 2
kind = "terraform"
dir = "DIR/database"
mirror = "DIR/mirror"
variables = ["port=STANDBY", "dir=DIR/servers", "lab=LAB", "script=SCRIPT"]
secrets = ["password=env:PLANB_SOURCE_PASSWORD"]

[[failover_steps]]
name = "restore"
stage = 2
kind = "restore"
at = "runner"
host = "${database.host}"
needs = ["database"]

[[failover_steps]]
name = "compare"
stage = 2
kind = "verify"
at = "runner"
host = "${database.host}"
needs = ["restore"]

[[failover_steps]]
name = "accounts"
stage = 2
kind = "accounts"
at = "runner"
host = "${database.host}"
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
at = "runner"
host = "${database.host}"
needs = ["restore", "compare", "accounts", "fence", "last-backup"]

[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "DIR/traffic"
args = ["standby"]
needs = ["open"]

[[failover_steps]]
name = "supervisor"
stage = 3
kind = "manual"
text = "Tell the financial supervisor."
needs = ["traffic"]

[[failback_steps]]
name = "preserve"
stage = 3
kind = "preserve"

[[failback_steps]]
name = "freeze"
stage = 3
kind = "fence"
site = "standby"
at = "runner"
needs = ["preserve"]

[[failback_steps]]
name = "last"
stage = 3
kind = "last-backup"
site = "standby"
at = "runner"
needs = ["freeze"]

[[failback_steps]]
name = "home"
stage = 3
kind = "restore"
needs = ["last", "preserve"]

[[failback_steps]]
name = "same"
stage = 3
kind = "verify"
needs = ["home"]

[[failback_steps]]
name = "open-primary"
stage = 3
kind = "primary-open"
needs = ["home", "same", "freeze"]

[[failback_steps]]
name = "traffic-home"
stage = 3
kind = "command"
means = "traffic"
site = "primary"
program = "DIR/traffic"
args = ["primary"]
needs = ["open-primary"]

[[failback_steps]]
name = "soak"
stage = 3
kind = "manual"
text = "Watch it for a day."
needs = ["traffic-home"]

[[failback_steps]]
name = "destroy"
stage = 3
kind = "terraform"
action = "destroy"
dir = "DIR/database"
mirror = "DIR/mirror"
variables = ["port=STANDBY", "dir=DIR/servers", "lab=LAB", "script=SCRIPT"]
secrets = ["password=env:PLANB_SOURCE_PASSWORD"]
needs = ["traffic-home", "open-primary", "soak"]

[[failback_steps]]
name = "lift"
stage = 3
kind = "unfence"
site = "primary"
"#;

const DATABASE: &str = r#"
variable "port" { type = string }
variable "dir" { type = string }
variable "lab" { type = string }
variable "script" { type = string }
variable "password" {
  type      = string
  sensitive = true
}
resource "terraform_data" "server" {
  input = {
    port   = var.port
    dir    = "${var.dir}/${terraform.workspace}"
    lab    = var.lab
    script = var.script
  }
  provisioner "local-exec" {
    command     = "mkdir -p ${var.dir} && ${self.input.script} start mysql --port ${self.input.port} --dir ${self.input.dir} > ${self.input.dir}.told && read -r port pid socket dir < ${self.input.dir}.told && ${var.lab}/mysql/bin/mysql --no-defaults -uroot -S $socket -e \"CREATE USER IF NOT EXISTS dba@'%' IDENTIFIED BY '$TF_VAR_password'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION\""
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

/// What stands on a page and is not typed, and why.
const NOT_TYPED: [(&str, &str); 12] = [
    (
        "planb status --follow",
        "it ends with the operation, on another machine; tests/failover.rs follows one",
    ),
    (
        "planb failover --resume",
        "every stop on the way is answered by a more exact command, which begins so",
    ),
    ("planb failback --resume", "as above"),
    (
        "planb failover --resume --accept skip-STEP=REASON",
        "no step fails here; tests/failing_steps.rs fails each kind",
    ),
    (
        "planb failback --abandon",
        "tests/failover.rs abandons one; here it goes home",
    ),
    (
        "planb failover --stage 3 --planned",
        "once a year: tests/whole_plan.rs and tests/failover.rs move so",
    ),
    (
        "planb drill --clean",
        "no rehearsal is killed here; tests/drill.rs kills them",
    ),
    (
        "planb drill --report ID --format html",
        "tests/drill.rs reads the report",
    ),
    ("planb prune --dry-run", "what would go next; tests/prune.rs"),
    (
        "planb backups",
        "the page names it as where the proof is seen; tests/verify.rs",
    ),
    ("planb runbook", "it printed these pages"),
    ("planb runbook --page night", "as above"),
];

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

struct Lab {
    primary: Server,
    scratch: Server,
    standby: u16,
    planb: Planb,
    /// Ended with the test.
    services: Vec<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        for service in &mut self.services {
            let _ = service.kill();
            let _ = service.wait();
        }
        // What Terraform started and, the test having failed, did not stop.
        for workspace in ["default", "drill"] {
            let dir = self.planb.path().join("servers").join(workspace);
            if dir.exists() {
                let script = format!("{}/scripts/lab", env!("CARGO_MANIFEST_DIR"));
                let _ = Command::new(script).arg("stop").arg(&dir).status();
            }
        }
    }
}

impl Lab {
    fn new() -> Self {
        let (primary, scratch) = (Server::start(Flavor::MySql, &[]), Server::start(Flavor::MySql, &[]));
        primary.sql(&format!(
            "CREATE DATABASE bank; CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@'%';
             CREATE TABLE bank.accounts (id INT PRIMARY KEY, owner VARCHAR(40), money INT NOT NULL);
             INSERT INTO bank.accounts VALUES (1, 'Ada', 100), (2, '김유신', 100);
             CREATE VIEW bank.rich AS SELECT id FROM bank.accounts WHERE money > 50;"
        ));
        for server in [&primary, &scratch] {
            server.sql(&format!(
                "CREATE USER dba@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION;"
            ));
        }
        let mut planb = Planb::new(&primary, &reader(&primary, &[]));
        let dir = planb.path().display().to_string();
        let (standby, rehearsal) = (free_port(), free_port());
        let server = |name: &str, port: u16| {
            format!(
                "[{name}]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
            )
        };
        let plan = PLAN
            .replace("DIR", &dir)
            .replace("STANDBY", &standby.to_string())
            .replace("LAB", &lab_dir().canonicalize().expect("a lab").display().to_string())
            .replace("SCRIPT", &format!("{}/scripts/lab", env!("CARGO_MANIFEST_DIR")));
        planb.configure(&format!(
            "[failover]\napprovers = 2\n{}{}[drill]\nvariables = [\"port={rehearsal}\"]\nto = \"mysql://dba@127.0.0.1:{rehearsal}\"\n\
             password = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n[[accounts]]\nname = \"app\"\ngrants = [\"ALL ON bank.*\"]\n\
             password = \"env:PLANB_SOURCE_PASSWORD\"\n{plan}",
            server("standby", standby),
            server("primary", primary.port),
        ));
        std::fs::create_dir(planb.path().join("database")).expect("a directory");
        std::fs::write(planb.path().join("database/main.tf"), DATABASE).expect("a configuration");
        let traffic = planb.path().join("traffic");
        std::fs::write(&traffic, format!("#!/bin/sh\necho $1 > {dir}/traffic-to\n")).expect("a program");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&traffic, mode).expect("may be run");
        let state = planb.path().join("state").display().to_string();
        let bin = PathBuf::from(env!("CARGO_BIN_EXE_planb"));
        let bin = bin.parent().expect("a directory").display().to_string();
        planb.env.extend([
            ("XDG_STATE_HOME".to_owned(), state),
            ("SCRATCH_PASSWORD".to_owned(), PASSWORD.to_owned()),
            (
                "PATH".to_owned(),
                format!("{bin}:{}", std::env::var("PATH").unwrap_or_default()),
            ),
        ]);
        Self {
            primary,
            scratch,
            standby,
            planb,
            services: Vec::new(),
        }
    }

    fn page(&self, name: &str) -> Page {
        let text = self.planb.ok(&["runbook", "--lang", "en", "--page", name]);
        Page {
            parts: parts(&text),
            text,
        }
    }

    fn pending_fences(&self) -> bool {
        let status = self.planb.json(&["--json", "status"]);
        status["standing"]["pending_fences"] != serde_json::json!([])
    }

    fn traffic(&self) -> String {
        let to = std::fs::read_to_string(self.planb.path().join("traffic-to"));
        to.unwrap_or_default().trim().to_owned()
    }

    fn at_standby(&self) -> support::Endpoint {
        support::Endpoint {
            flavor: Flavor::MySql,
            port: self.standby,
            socket: Some(self.planb.path().join("servers/default/sock")),
        }
    }
}

/// A printed page.
struct Page {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    /// A block of commands, each behind `$ `.
    Commands(Vec<String>),
    /// What "You should see" names: text between backticks that is no command.
    Seen(Vec<String>),
}

fn parts(text: &str) -> Vec<Part> {
    let mut found = Vec::new();
    let mut block: Option<Vec<String>> = None;
    let mut paragraph = String::new();
    for line in text.lines().chain([""]) {
        let line = line.trim();
        if line.starts_with("```") {
            match block.take() {
                Some(commands) => found.push(Part::Commands(commands)),
                None => block = Some(Vec::new()),
            }
        } else if let Some(commands) = &mut block {
            commands.extend(line.strip_prefix("$ ").map(str::to_owned));
        } else if line.is_empty() {
            if let Some((_, said)) = paragraph.split_once("You should see") {
                let sentence = said.split(". ").next().unwrap_or_default();
                let seen = quoted(sentence).filter(|text| !text.starts_with("planb "));
                found.push(Part::Seen(seen.map(str::to_owned).collect()));
            }
            paragraph.clear();
        } else {
            paragraph.push_str(line);
            paragraph.push(' ');
        }
    }
    found
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

impl Page {
    /// Commands inside its sentences.
    fn mentioned(&self) -> Vec<String> {
        let prose: String = self.text.split("```").step_by(2).collect();
        let prose = prose.replace('\n', " ");
        quoted(&prose)
            .filter(|text| text.starts_with("planb "))
            .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// The command that the page has for this, wherever it stands.
    fn command(&self, operation: &str, holding: &str) -> String {
        let blocks = self.parts.iter().flat_map(|part| match part {
            Part::Commands(commands) => commands.clone(),
            Part::Seen(_) => Vec::new(),
        });
        let begins = format!("planb {operation} ");
        let mut all = blocks.chain(self.mentioned());
        all.find(|command| command.starts_with(&begins) && command.contains(holding))
            .unwrap_or_else(|| panic!("the page has no {begins}… {holding}: {}", self.text))
    }
}

/// Somebody at a terminal, with the paper.
struct Typist {
    env: Vec<(String, String)>,
    scratch: u16,
    exports: Vec<String>,
    typed: BTreeSet<String>,
}

impl Typist {
    fn new(lab: &Lab) -> Self {
        Self {
            env: lab.planb.env.clone(),
            scratch: lab.scratch.port,
            exports: Vec::new(),
            typed: BTreeSet::new(),
        }
    }

    /// Types it, and gives its exit code and what was on the screen.
    fn line(&mut self, command: &str) -> (i32, String) {
        if command.starts_with("export ") {
            self.exports.push(command.to_owned());
            return (0, String::new());
        }
        self.typed.insert(command.to_owned());
        // What a person fills in.
        let filled = command
            .replace(
                "mysql://USER@SCRATCH:3306",
                // The lab's has no certificate.
                &format!("mysql://dba@127.0.0.1:{} --tls off", self.scratch),
            )
            .replace("YOUR-NAME", "bo")
            .replace("WHAT-YOU-DID", "\"its machine is switched off\"")
            .replace("WHAT-WAS-DONE", "\"they were told\"");
        let line = format!("{}; {filled}", self.exports.join("; "));
        // A terminal: what asks a person asks nobody else.
        let mut terminal = Command::new("timeout")
            .args(["300", "script", "-qefc", &line, "/dev/null"])
            .env_remove("RUST_LOG")
            .env("SHELL", "/bin/bash")
            .envs(self.env.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script(1) runs");
        let mut keyboard = terminal.stdin.take().expect("piped");
        // The page: "It asks for the service's name". Whoever is not asked has no use for it.
        let _ = keyboard.write_all(b"bank\n");
        let output = terminal.wait_with_output().expect("ended");
        drop(keyboard);
        let screen = plain(&String::from_utf8_lossy(&output.stdout));
        assert!(!screen.contains(PASSWORD), "{command}: {screen}");
        (output.status.code().unwrap_or(-1), screen)
    }

    /// A command, and whatever the page says for the way in which it stops, until it is done.
    fn carried_out(&mut self, page: &Page, command: &str) -> String {
        let (mut code, mut screen) = self.line(command);
        let mut all = screen.clone();
        for _ in 0..6 {
            if code == 0 {
                return all;
            }
            let operation = if command.contains("failback") {
                "failback"
            } else {
                "failover"
            };
            assert!(
                code == 4 && command.contains(operation),
                "{command}: exit {code}: {all}"
            );
            let next = if screen.contains("people have agreed") {
                page.command(operation, "--approve")
            } else if let Some((_, step)) = screen.split_once("confirm-") {
                let step: String = step.chars().take_while(|c| c.is_alphanumeric()).collect();
                self.typed.insert(page.command(operation, "confirm-STEP"));
                page.command(operation, "confirm-STEP").replace("STEP", &step)
            } else if screen.contains("unfenced") {
                page.command(operation, "unfenced=")
            } else {
                panic!("the page has no word for it: {screen}")
            };
            (code, screen) = self.line(&next);
            all.push_str(&screen);
        }
        panic!("{command} does not come to an end: {all}")
    }

    /// The whole page, from its top to its bottom.
    fn follow(&mut self, page: &Page) {
        let mut screen = String::new();
        for part in &page.parts {
            match part {
                // Others type it, when it is waited for.
                Part::Commands(commands) if commands.iter().all(|command| command.contains("--approve")) => {}
                Part::Commands(commands) => {
                    screen.clear();
                    for command in commands {
                        screen.push_str(&self.carried_out(page, command));
                    }
                }
                Part::Seen(seen) => {
                    for text in seen {
                        match text.as_str() {
                            // "no line that begins with `error`"
                            "error" => assert!(!screen.lines().any(|line| line.starts_with("error")), "{screen}"),
                            text => assert!(screen.contains(text), "\"{text}\" is not on the screen: {screen}"),
                        }
                    }
                }
            }
        }
    }

    /// Nothing stands on the page that neither was typed nor has a reason.
    fn has_typed_all_of(&self, page: &Page) {
        for command in page.mentioned() {
            let is_known = self.typed.contains(&command) || NOT_TYPED.iter().any(|(known, _)| *known == command);
            assert!(
                is_known,
                "`{command}` was not typed, and nobody says why: {:?}",
                self.typed
            );
        }
    }
}

/// Without colours and redrawn lines.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        match letter {
            '\u{1b}' => {
                let _ = rest.find(char::is_ascii_alphabetic);
            }
            '\r' => {}
            letter => out.push(letter),
        }
    }
    out
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within two minutes");
    }
}

#[test]
fn whoever_has_nothing_but_the_paper_gets_there_and_home() {
    let mut lab = Lab::new();
    let [adopt, cost, drill, night, failback] =
        ["adopt", "cost", "drill", "night", "failback"].map(|name| lab.page(name));
    let mut typist = Typist::new(&lab);
    typist
        .exports
        .push(format!("export PLANB_CONFIG={}", lab.planb.config().display()));

    // By day: adopted, reckoned, rehearsed.
    typist.follow(&adopt);
    lab.services.push(lab.planb.spawn(&["runner"]));
    typist.typed.insert("planb runner".to_owned());
    typist.follow(&cost);
    typist.follow(&drill);
    let saved = census(&lab.primary, &["bank"]);

    // Stage 2 while the primary is well: refused, answered for as the refusal says, thought better of, begun again, and stood down.
    let (code, screen) = typist.line("planb failover --stage 2");
    assert!(
        code == 3 && screen.contains("--accept primary-healthy=REASON"),
        "{code}: {screen}"
    );
    let rehearse = "planb failover --stage 2 --accept primary-healthy=REASON".to_owned();
    let (code, screen) = typist.line(&rehearse);
    assert!(
        code == 4 && screen.contains("1 of 2 people have agreed"),
        "{code}: {screen}"
    );
    let screen = typist.carried_out(&night, &night.command("failover", "--abandon"));
    assert!(
        screen.contains("abandoned, and taken back: the primary serves"),
        "{screen}"
    );
    let screen = typist.carried_out(&night, &rehearse);
    assert!(screen.contains("done: the primary serves, stage 2"), "{screen}");
    let screen = typist.carried_out(&failback, "planb failback");
    assert!(screen.contains("done: the primary serves"), "{screen}");
    assert!(
        !lab.planb.path().join("servers/default").exists(),
        "the standby is gone"
    );
    assert_eq!(lab.traffic(), "", "nobody was sent anywhere");

    // The night.
    lab.planb.ok(&["backup"]);
    lab.primary.kill();
    typist.follow(&night);
    let history = typist.carried_out(&night, "planb history");
    assert!(
        history.contains("unfenced") && history.contains("switched off"),
        "{history}"
    );
    assert_eq!(lab.traffic(), "standby");
    let standby = lab.at_standby();
    assert_same(&saved, &census(&standby, &["bank"]));
    standby
        .sql_as("app", PASSWORD, "INSERT INTO bank.accounts VALUES (3, 'new', 7)")
        .expect("it serves");

    // And home. The agent at the old site raises the fence by itself.
    lab.primary.restart(&[]);
    lab.services.push(lab.planb.spawn(&["agent"]));
    until("the fence", || !lab.pending_fences());
    typist.follow(&failback);
    assert_eq!(lab.traffic(), "primary");
    let owners = lab.primary.sql_as("app", PASSWORD, "SELECT owner FROM bank.accounts");
    assert!(
        owners.expect("it serves").contains("new"),
        "what the standby took in came home"
    );
    assert!(
        !lab.planb.path().join("servers/default").exists(),
        "the standby is gone"
    );

    for page in [&adopt, &cost, &drill, &night, &failback] {
        typist.has_typed_all_of(page);
    }
}
