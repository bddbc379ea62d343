//! Two sites with real servers, an application's accounts and data at the first, and a whole plan between them: where tests of
//! failover and failback begin.

use std::path::PathBuf;

use serde_json::Value;

use super::planb::PASSWORD;
use super::{Flavor, Planb, Server, reader};

/// A primary with an application, a standby with nothing, and a plan.
pub struct Lab {
    pub primary: Server,
    pub standby: Server,
    pub planb: Planb,
}

pub const PLAN: &str = r#"
[[failover_steps]]
name = "network"
stage = 1
kind = "command"
program = "/usr/bin/touch"
args = ["DIR/network"]

[[failover_steps]]
name = "database"
stage = 2
kind = "terraform"
dir = "DIR/database"
variables = ["log=DIR/terraform.log"]
secrets = ["admin_password=env:PLANB_SOURCE_PASSWORD"]

[[failover_steps]]
name = "restore"
stage = 2
kind = "restore"
host = "${database.host}"
needs = ["database"]

[[failover_steps]]
name = "compare"
stage = 2
kind = "verify"
host = "${database.host}"
needs = ["restore"]

[[failover_steps]]
name = "accounts"
stage = 2
kind = "accounts"
host = "${database.host}"
needs = ["restore", "compare"]

[[failover_steps]]
name = "cluster"
stage = 3
kind = "command"
program = "DIR/cluster"
args = ["up"]
probe = ["is-up"]
undo = ["down"]

[[failover_steps]]
name = "fence"
stage = 3
kind = "fence"
needs = ["cluster", "accounts"]

[[failover_steps]]
name = "last-backup"
stage = 3
kind = "last-backup"
needs = ["fence"]

[[failover_steps]]
name = "open"
stage = 3
kind = "standby-open"
host = "${database.host}"
needs = ["restore", "compare", "accounts", "fence", "last-backup", "cluster"]

[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "DIR/traffic"
args = ["standby"]
needs = ["open"]

[[failback_steps]]
name = "preserve"
stage = 3
kind = "preserve"

[[failback_steps]]
name = "freeze"
stage = 3
kind = "fence"
needs = ["preserve"]

[[failback_steps]]
name = "last"
stage = 3
kind = "last-backup"
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
text = "Watch the service, and say what you saw."
needs = ["traffic-home"]

[[failback_steps]]
name = "destroy"
stage = 3
kind = "command"
means = "destroy"
program = "DIR/cluster"
args = ["down"]
needs = ["traffic-home", "open-primary", "soak"]

[[failback_steps]]
name = "lift"
stage = 3
kind = "unfence"
site = "primary"
"#;

pub const DATABASE: &str = r#"
variable "log" { type = string }
variable "admin_password" {
  type      = string
  sensitive = true
}
resource "terraform_data" "server" {
  input = "127.0.0.1"
  provisioner "local-exec" { command = "echo made >> ${var.log}" }
  provisioner "local-exec" {
    when    = destroy
    command = "true"
  }
}
output "host" { value = terraform_data.server.output }
output "password" {
  value     = var.admin_password
  sensitive = true
}
"#;

/// A shell script that may be run.
pub fn script(path: PathBuf, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(&path, format!("#!/bin/sh\nset -eu\n{text}\n")).expect("a script");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("may be run");
}

impl Lab {
    pub fn new(flavor: Flavor) -> Self {
        Self::with(Server::start(flavor, &[]), Server::start(flavor, &[]))
    }

    pub fn with(primary: Server, standby: Server) -> Self {
        primary.sql(&format!(
            "CREATE DATABASE bank; CREATE USER app@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON bank.* TO app@'%';
             CREATE TABLE bank.accounts (id INT PRIMARY KEY, money INT NOT NULL);
             INSERT INTO bank.accounts VALUES (1, 100), (2, 100);
             CREATE TABLE bank.log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(99), KEY (what));
             CREATE VIEW bank.rich AS SELECT id FROM bank.accounts WHERE money > 50;
             CREATE EVENT bank.tick ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM bank.log;"
        ));
        for server in [&primary, &standby] {
            server.sql(&format!(
                "CREATE USER dba@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO dba@'%' WITH GRANT OPTION;"
            ));
        }
        let planb = Planb::new(&primary, &reader(&primary, &[]));
        let dir = planb.path().display().to_string();
        let server = |name: &str, port: u16| {
            format!(
                "[{name}]\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
            )
        };
        planb.configure(&format!(
            "{}{}[[accounts]]\nname = \"app\"\ngrants = [\"ALL ON bank.*\"]\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n{}",
            server("standby", standby.port),
            server("primary", primary.port),
            PLAN.replace("DIR", &dir)
        ));
        std::fs::create_dir(planb.path().join("database")).expect("a directory");
        std::fs::write(planb.path().join("database/main.tf"), DATABASE).expect("a configuration");
        script(
            planb.path().join("cluster"),
            &format!(
                "case $1 in up) echo up >> {dir}/cluster.log; touch {dir}/is-up ;; is-up) test -e {dir}/is-up ;; \
                 down) rm -f {dir}/is-up; echo down >> {dir}/cluster.log ;; esac"
            ),
        );
        script(
            planb.path().join("traffic"),
            &format!("echo $1 > {dir}/traffic-to; echo switched to $1"),
        );
        let mut planb = planb;
        let state = planb.path().join("state").display().to_string();
        planb.env.push(("XDG_STATE_HOME".into(), state));
        Self {
            primary,
            standby,
            planb,
        }
    }

    pub fn made(&self) -> usize {
        std::fs::read_to_string(self.planb.path().join("terraform.log"))
            .unwrap_or_default()
            .lines()
            .count()
    }

    /// Everything that the journal and the rest of control data hold, as text.
    pub fn control(&self) -> String {
        fn read(dir: &std::path::Path, into: &mut String) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => read(&path, into),
                    path => into.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default())),
                }
            }
        }
        let mut text = String::new();
        read(&self.planb.store().join("control"), &mut text);
        text
    }

    /// Whether the cluster was ever told so.
    pub fn ran(&self, what: &str) -> bool {
        let told = std::fs::read_to_string(self.planb.path().join("cluster.log")).unwrap_or_default();
        told.lines().any(|line| line == what)
    }

    pub fn app(&self, server: &Server, sql: &str) -> Result<String, String> {
        server.sql_as("app", PASSWORD, sql)
    }

    pub fn failover(&self, args: &[&str]) -> Value {
        self.planb.json(&[&["--json", "failover", "--yes"], args].concat())
    }

    pub fn unproven(&self, args: &[&str]) -> Value {
        self.failover(&[args, &["--accept", "backup-unproven=a test"]].concat())
    }

    pub fn traffic(&self) -> String {
        std::fs::read_to_string(self.planb.path().join("traffic-to"))
            .unwrap_or_default()
            .trim()
            .to_owned()
    }

    pub fn status(&self) -> Value {
        self.planb.json(&["--json", "status"])
    }
}
