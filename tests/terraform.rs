//! The adapter that drives Terraform, against the real program (the built-in `terraform_data` needs no provider), and
//! against programs that only pretend to be it, for what the real one does not do on request.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use planb::secret::Secret;
use planb::terraform::{Action, Error, Output, Phase, Progress, Terraform};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Longest that anything here may take before it counts as hung.
const LONG: Duration = Duration::from_secs(120);

/// A directory with one configuration, and room for what its provisioners leave.
struct Stage {
    root: tempfile::TempDir,
}

impl Stage {
    fn new(configuration: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("stage")).expect("a directory");
        let stage = Self { root };
        stage.write(configuration);
        stage
    }

    /// `{DIR}` in it is where provisioners may leave files.
    fn write(&self, configuration: &str) {
        let text = configuration.replace("{DIR}", &self.root.path().display().to_string());
        fs::write(self.root.path().join("stage/main.tf"), text).expect("a configuration");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn touch(&self, name: &str) {
        fs::write(self.path(name), "").expect("a file");
    }

    /// As `machine` sees it: what it keeps locally is its own, the state is everybody's.
    fn on(&self, machine: &str) -> Terraform {
        Terraform::new(self.path("stage"), self.path(machine))
    }

    async fn ready(&self, machine: &str) -> Terraform {
        let terraform = self.on(machine);
        let told = "these tests need Terraform or OpenTofu on PATH: install one of them";
        terraform.init(&never()).await.expect(told);
        terraform
    }

    /// A program that pretends to be Terraform.
    fn pretender(&self, script: &str) -> Terraform {
        let mut terraform = self.on("fake");
        let program = self.path("pretender");
        fs::write(
            &program,
            script.replace("{DIR}", &self.root.path().display().to_string()),
        )
        .expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
        terraform.program = Some(program);
        terraform
    }

    async fn until_there(&self, name: &str) {
        until(|| self.has(name), name).await;
    }
}

/// Nobody cancels.
fn never() -> CancellationToken {
    CancellationToken::new()
}

fn silent(_: Progress) {}

async fn until(mut holds: impl FnMut() -> bool, what: &str) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "never happened: {what}");
}

/// `a`, then `b`, which waits for a file. Provisioners say when they begin.
const WAITS: &str = r#"
resource "terraform_data" "a" {
  provisioner "local-exec" { command = "echo a >> {DIR}/ran" }
}
resource "terraform_data" "b" {
  input = terraform_data.a.id
  provisioner "local-exec" {
    command = "cut -d' ' -f5 /proc/$$/stat > {DIR}/group; touch {DIR}/begun; while [ ! -e {DIR}/go ]; do sleep 0.05; done; echo b >> {DIR}/ran"
  }
}
"#;

#[tokio::test]
async fn it_is_looked_at_applied_found_done_on_another_machine_and_destroyed() {
    let stage = Stage::new(
        r#"
variable "name" { type = string }
variable "zones" { type = list(string) }
resource "terraform_data" "a" { input = var.name }
resource "terraform_data" "b" { input = [terraform_data.a.output, var.zones] }
"#,
    );
    let variables = |mut terraform: Terraform| {
        // Neither a template nor an expression: a value is a value.
        terraform.variables.insert("name".into(), json!("${x} \"y\""));
        terraform.variables.insert("zones".into(), json!(["1", "2"]));
        terraform
    };
    let here = variables(stage.ready("here").await);
    let seen = here.plan(&never()).await.expect("a plan");
    assert_eq!((seen.add, seen.change, seen.destroy, seen.anything), (2, 0, 0, true));
    assert_eq!(seen.resources[0].kind, "terraform_data");

    let steps = Mutex::new(Vec::new());
    let told = |step| {
        if let Progress::Resource {
            address,
            phase,
            completed,
            planned,
            ..
        } = step
        {
            steps.lock().expect("steps").push((address, phase, completed, planned));
        }
    };
    here.apply(&told, &never()).await.expect("applied");
    let (a, b) = ("terraform_data.a".to_owned(), "terraform_data.b".to_owned());
    let expected = [
        (a.clone(), Phase::Begun, 0, 2),
        (a, Phase::Done, 1, 2),
        (b.clone(), Phase::Begun, 1, 2),
        (b, Phase::Done, 2, 2),
    ];
    assert_eq!(*steps.lock().expect("steps"), expected);

    let there = variables(stage.ready("there").await);
    assert!(!there.plan(&never()).await.expect("a plan").anything);
    assert_eq!(there.apply(&silent, &never()).await.expect("nothing to do").add, 0);

    let gone = there.destroy(&silent, &never()).await.expect("destroyed");
    assert_eq!((gone.destroy, gone.resources[0].action), (2, Action::Delete));
    assert!(!there.destroy(&silent, &never()).await.expect("nothing left").anything);
}

#[tokio::test]
async fn outputs_are_read_and_a_sensitive_one_is_never_shown() {
    let stage = Stage::new(
        r#"
variable "password" { sensitive = true }
output "host" { value = "db.example" }
output "port" { value = 3306 }
output "password" {
  value     = var.password
  sensitive = true
}
output "all" {
  value     = { p = var.password }
  sensitive = true
}
"#,
    );
    let mut terraform = stage.ready("here").await;
    let empty = terraform.outputs(&never()).await.expect("outputs");
    assert!(empty.is_empty(), "no state has no outputs");
    terraform.secrets.insert("password".into(), Secret::new("hunter2\"<&>"));
    let changes = terraform.apply(&silent, &never()).await.expect("applied");
    assert!(
        changes.anything && changes.resources.is_empty(),
        "outputs alone changed"
    );
    let outputs = terraform.outputs(&never()).await.expect("outputs");
    assert_eq!(outputs["host"], Output::Plain(json!("db.example")));
    assert_eq!(outputs["port"].expose(), "3306");
    assert_eq!(outputs["password"].expose(), "hunter2\"<&>");
    assert_eq!(outputs["all"].expose(), r#"{"p":"hunter2\"<&>"}"#);
    assert!(outputs["password"].is_sensitive());
    let shown = format!("{outputs:?} {terraform:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    // Nor is it left on the disk: plans hold values of variables.
    assert_eq!(fs::read_dir(stage.path("here/planb")).expect("workplaces").count(), 0);
}

#[tokio::test]
async fn a_provisioner_that_fails_half_way_is_told_and_the_next_apply_completes() {
    let stage = Stage::new(
        r#"
resource "terraform_data" "a" {
  provisioner "local-exec" { command = "echo a >> {DIR}/ran" }
}
resource "terraform_data" "b" {
  input = terraform_data.a.id
  provisioner "local-exec" { command = "echo why it failed; test -e {DIR}/go && echo b >> {DIR}/ran" }
}
"#,
    );
    let terraform = stage.ready("here").await;
    let failures = Mutex::new(Vec::new());
    let told = |step| {
        if let Progress::Resource {
            address,
            phase: Phase::Failed,
            completed,
            planned,
            ..
        } = step
        {
            failures.lock().expect("failures").push((address, completed, planned));
        }
    };
    let error = terraform.apply(&told, &never()).await.expect_err("b fails");
    assert_eq!(
        *failures.lock().expect("failures"),
        [("terraform_data.b".to_owned(), 1, 2)]
    );
    let text = error.to_string();
    assert!(text.contains("half-way") && text.contains("why it failed"), "{text}");
    assert!(text.contains("terraform_data.b"), "{text}");
    assert!(matches!(&error, Error::Failed { partial: true, .. }), "{error:?}");

    stage.touch("go");
    let changes = terraform.apply(&silent, &never()).await.expect("completed");
    // `b` is tainted, so it is made again; `a` is not.
    assert_eq!(changes.resources[0].action, Action::Replace);
    assert_eq!(stage.read("ran"), "a\nb\n");
}

#[tokio::test]
async fn a_cancelled_apply_saves_its_state_and_the_next_one_finishes() {
    let stage = Stage::new(WAITS);
    let terraform = stage.ready("here").await;
    let cancel = never();
    let (result, ()) = tokio::join!(terraform.apply(&silent, &cancel), async {
        stage.until_there("begun").await;
        cancel.cancel();
    });
    let error = result.expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled { partial: true, .. }), "{error:?}");
    // Not in our own process group, where a Ctrl-C would reach it a second time.
    let group = rustix::process::getpgrp().as_raw_nonzero().to_string();
    assert_ne!(stage.read("group").trim(), group);

    stage.touch("go");
    terraform.apply(&silent, &never()).await.expect("the rest");
    assert_eq!(
        stage.read("ran"),
        "a\nb\n",
        "a was in the state, so it is not made twice"
    );
}

/// Says what it begins, and counts signals. Perl: a shell cannot trap what its parent ignores.
const COUNTS: &str = r#"#!/usr/bin/perl
$SIG{INT} = sub { open my $f, '>>', '{DIR}/signals'; print $f "INT\n"; close $f; };
open my $f, '>', '{DIR}/begun'; close $f;
until (-e '{DIR}/go') { select undef, undef, undef, 0.05 }
open my $e, '>', '{DIR}/ended'; close $e;
exit 1;
"#;

#[tokio::test]
async fn a_cancel_is_one_sigint_and_then_patience() {
    let stage = Stage::new("");
    let mut terraform = stage.pretender(COUNTS);
    terraform.patience = LONG;
    let cancel = never();
    let (result, ()) = tokio::join!(terraform.plan(&cancel), async {
        stage.until_there("begun").await;
        cancel.cancel();
        stage.until_there("signals").await;
        cancel.cancel();
        // Some rounds of its loop: neither another SIGINT nor a SIGKILL comes.
        tokio::time::sleep(Duration::from_millis(500)).await;
        stage.touch("go");
    });
    assert!(matches!(result, Err(Error::Cancelled { .. })), "{result:?}");
    assert_eq!(stage.read("signals"), "INT\n");
}

#[tokio::test]
async fn who_stops_waiting_for_it_interrupts_it_once() {
    let stage = Stage::new("");
    let terraform = stage.pretender(COUNTS);
    let cancel = never();
    tokio::select! {
        _ = terraform.plan(&cancel) => panic!("it ended"),
        () = stage.until_there("begun") => {}
    }
    until(|| stage.read("signals") == "INT\n", "one SIGINT").await;
    stage.touch("go");
    // It looks for that in a directory which goes with the test.
    stage.until_there("ended").await;
}

#[tokio::test]
async fn what_does_not_stop_is_killed_after_the_patience_with_all_it_started() {
    let stage = Stage::new("");
    let mut terraform = stage.pretender(
        r#"#!/usr/bin/perl
$SIG{INT} = 'IGNORE';
my $child = fork;
sleep 1 while !$child;
open my $f, '>', '{DIR}/child'; print $f $child; close $f;
sleep 1 while 1;
"#,
    );
    terraform.patience = Duration::from_millis(300);
    let cancel = never();
    let (result, ()) = tokio::join!(terraform.plan(&cancel), async {
        until(|| !stage.read("child").is_empty(), "a child").await;
        cancel.cancel();
    });
    let error = result.expect_err("killed");
    assert!(matches!(error, Error::Killed { .. }), "{error:?}");
    let child = PathBuf::from("/proc").join(stage.read("child")).join("stat");
    let is_gone = || fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
    until(is_gone, "the child is gone").await;
}

#[tokio::test]
async fn of_two_at_once_one_is_told_who_holds_the_lock_and_may_wait_for_it() {
    let stage = Stage::new(WAITS);
    let (first, mut second) = (stage.ready("first").await, stage.ready("second").await);
    let (waiting, cancel) = (never(), never());
    let told = |step| {
        if step == Progress::WaitingForLock {
            waiting.cancel();
        }
    };
    let (applied, ()) = tokio::join!(first.apply(&silent, &cancel), async {
        stage.until_there("begun").await;
        second.lock_timeout = Duration::ZERO;
        let error = second.apply(&silent, &cancel).await.expect_err("locked");
        let Error::Locked { lock, unlock } = &error else {
            panic!("{error:?}")
        };
        assert!(lock.who.contains('@') && lock.since.starts_with("20"), "{lock:?}");
        assert_eq!(lock.operation, "OperationTypeApply");
        assert!(unlock.ends_with(&format!("force-unlock {}", lock.id)), "{unlock}");
        assert!(!error.is_permanent());

        second.lock_timeout = LONG;
        let (waited, ()) = tokio::join!(second.apply(&told, &cancel), async {
            waiting.cancelled().await;
            stage.touch("go");
        });
        assert!(!waited.expect("waited for it").anything, "the first did it all");
    });
    applied.expect("applied");
    assert_eq!(stage.read("ran"), "a\nb\n");
}

/// Where [`it_goes_on_when_this_program_is_killed`] runs its victim.
const VICTIM: &str = "PLANB_TEST_TERRAFORM_STAGE";

#[tokio::test]
async fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let root = Path::new(&root);
    let terraform = Terraform::new(root.join("stage"), root.join("killed"));
    terraform.init(&never()).await.expect("ready");
    let _ = terraform.apply(&silent, &never()).await;
}

#[tokio::test]
async fn it_goes_on_when_this_program_is_killed() {
    let stage = Stage::new(WAITS);
    let mut victim = tokio::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["victim", "--exact"])
        .env(VICTIM, stage.root.path())
        .spawn()
        .expect("this test again");
    stage.until_there("begun").await;
    victim.kill().await.expect("killed");

    let mut next = stage.ready("next").await;
    next.lock_timeout = Duration::ZERO;
    let error = next.plan(&never()).await.expect_err("it holds the lock");
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    stage.touch("go");
    next.lock_timeout = LONG;
    assert!(
        !next.plan(&never()).await.expect("waited").anything,
        "it was done to its end"
    );
    assert_eq!(stage.read("ran"), "a\nb\n");
    // The next run on the killed one's machine takes away what it left, the plan with it.
    let killed = stage.on("killed");
    assert_eq!(fs::read_dir(stage.path("killed/planb")).expect("workplaces").count(), 1);
    killed.plan(&never()).await.expect("nothing to do");
    assert_eq!(fs::read_dir(stage.path("killed/planb")).expect("workplaces").count(), 0);
}

#[tokio::test]
async fn a_plan_that_went_stale_is_made_anew() {
    let stage = Stage::new(
        "variable \"name\" {}\nresource \"terraform_data\" \"a\" { input = var.name }\noutput \"name\" { value = terraform_data.a.output }\n",
    );
    let mut terraform = stage.ready("fake").await;
    terraform.variables.insert("name".into(), json!("ours"));
    // Somebody else applies between our plan and our apply, once.
    let fake = stage.pretender(
        r#"#!/bin/sh
real=$(command -v terraform || command -v tofu)
if [ "$1" = apply ] && [ ! -e {DIR}/once ]; then
    touch {DIR}/once
    "$real" apply -auto-approve -input=false -var name=theirs > /dev/null || exit 9
fi
exec "$real" "$@"
"#,
    );
    terraform.program = fake.program;
    let changes = terraform.apply(&silent, &never()).await.expect("applied");
    assert!(stage.has("once"));
    assert_eq!(
        (changes.add, changes.change),
        (0, 1),
        "the second plan is of the state as it is now"
    );
    let outputs = terraform.outputs(&never()).await.expect("outputs");
    assert_eq!(outputs["name"], Output::Plain(json!("ours")));
}

#[tokio::test]
async fn what_is_protected_is_neither_destroyed_nor_replaced() {
    let stage = Stage::new(
        "variable \"name\" {}\nresource \"terraform_data\" \"backups\" { triggers_replace = var.name }\nresource \"terraform_data\" \"other\" {}\n",
    );
    let mut terraform = stage.ready("here").await;
    terraform.variables.insert("name".into(), json!("a"));
    terraform.protected = vec!["terraform_data.backups".into()];
    terraform.apply(&silent, &never()).await.expect("making it is fine");
    let before = stage.read("stage/terraform.tfstate");

    let error = terraform.destroy(&silent, &never()).await.expect_err("refused");
    let Error::Protected(resources) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(resources, &["terraform_data.backups"]);
    terraform.protected = vec!["terraform_data".into()];
    let error = terraform.destroy(&silent, &never()).await.expect_err("refused");
    assert!(error.to_string().contains("terraform_data.other"), "{error}");

    terraform.variables.insert("name".into(), json!("b"));
    let error = terraform
        .apply(&silent, &never())
        .await
        .expect_err("a replacement destroys");
    assert!(matches!(error, Error::Protected(_)), "{error:?}");
    assert_eq!(stage.read("stage/terraform.tfstate"), before, "nothing was touched");
}

#[tokio::test]
async fn secrets_are_in_no_command_line_and_in_no_message() {
    let stage = Stage::new(
        r#"
variable "password" {}
variable "other" { sensitive = true }
resource "terraform_data" "a" {
  provisioner "local-exec" {
    command = "cat /proc/[0-9]*/cmdline > {DIR}/argv; tr '\\0' '\\n' < /proc/$PPID/environ > {DIR}/environment; echo $ARM_SECRET ${var.password}; exit 3"
  }
}
"#,
    );
    let mut terraform = stage.ready("here").await;
    terraform
        .secrets
        .insert("password".into(), Secret::new("not-even-declared-sensitive"));
    terraform.secrets.insert("other".into(), Secret::new("hunter2"));
    terraform
        .environment
        .insert("ARM_SECRET".into(), Secret::new("from-the-vault"));
    let error = terraform.apply(&silent, &never()).await.expect_err("exit 3");
    let told = format!("{error} {error:?}");
    assert!(told.contains("[secret]") && told.contains("exit status 3"), "{told}");
    // The provisioner's own command line has what the configuration put there; no other has anything.
    let argv = stage.read("argv");
    assert!(
        argv.contains("-detailed-exitcode") || argv.contains("apply"),
        "the command lines were not read"
    );
    for secret in ["hunter2", "from-the-vault"] {
        assert!(!argv.contains(secret) && !told.contains(secret), "{told}");
    }
    assert!(!told.contains("not-even-declared-sensitive"), "{told}");

    let environment = stage.read("environment");
    assert!(environment.contains("TF_VAR_other=hunter2"), "{environment}");
    // Cargo sets this for the test; nobody named it for Terraform.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert!(!environment.contains("CARGO_MANIFEST_DIR"), "{environment}");
    terraform.pass.push("CARGO_MANIFEST_DIR".into());
    terraform.apply(&silent, &never()).await.expect_err("exit 3");
    assert!(stage.read("environment").contains("CARGO_MANIFEST_DIR="));
}

#[tokio::test]
async fn a_provider_that_the_mirror_lacks_is_told_without_asking_a_registry() {
    let stage = Stage::new("terraform {\n  required_providers {\n    null = { source = \"hashicorp/null\" }\n  }\n}\n");
    let mut terraform = stage.on("here");
    fs::create_dir(stage.path("mirror")).expect("a directory");
    terraform.mirror = Some(stage.path("mirror"));
    let error = terraform.init(&never()).await.expect_err("the mirror is empty");
    let text = error.to_string();
    assert!(matches!(error, Error::Init { .. }), "{error:?}");
    assert!(
        text.contains("hashicorp/null") && text.contains("providers mirror"),
        "{text}"
    );
    assert!(text.contains(&stage.path("mirror").display().to_string()), "{text}");
    assert!(!text.contains("could not connect"), "{text}");
}

#[tokio::test]
async fn a_program_that_is_not_there_and_a_state_that_was_not_saved_are_told() {
    let stage = Stage::new("resource \"terraform_data\" \"a\" {}\n");
    let mut terraform = stage.ready("here").await;
    stage.touch("stage/errored.tfstate");
    let error = terraform.apply(&silent, &never()).await.expect_err("not saved");
    assert!(matches!(error, Error::StateNotSaved { .. }), "{error:?}");
    assert!(error.to_string().contains("state push errored.tfstate"), "{error}");
    fs::remove_file(stage.path("stage/errored.tfstate")).expect("moved away");
    terraform.apply(&silent, &never()).await.expect("applied");

    terraform.program = Some(stage.path("nothing"));
    let error = terraform.plan(&never()).await.expect_err("nothing there");
    assert!(matches!(error, Error::NotInstalled { .. }), "{error:?}");
    assert!(error.to_string().contains("install"), "{error}");
}

#[tokio::test]
async fn what_is_not_terraform_is_not_believed() {
    let stage = Stage::new("");
    // Ended well, and said nothing of what it did.
    let error = stage
        .pretender("#!/bin/sh\necho all fine\n")
        .plan(&never())
        .await
        .expect_err("garbage");
    assert!(
        matches!(error, Error::Unexpected { .. }) && error.to_string().contains("all fine"),
        "{error}"
    );
    let error = stage
        .pretender("#!/bin/sh\necho '[1,'\n")
        .outputs(&never())
        .await
        .expect_err("garbage");
    assert!(matches!(error, Error::Unexpected { .. }), "{error}");
    // Ended badly: what it said last is all there is.
    let error = stage
        .pretender("#!/bin/sh\necho '{\"type\":'\necho panic: oh no >&2\nexit 1\n")
        .apply(&silent, &never())
        .await
        .expect_err("exit 1");
    assert!(matches!(error, Error::Failed { partial: false, .. }), "{error:?}");
    assert!(
        error.to_string().contains("panic: oh no") && error.to_string().contains("exit code 1"),
        "{error}"
    );
    let error = stage
        .pretender("#!/bin/sh\nkill -9 $$\n")
        .plan(&never())
        .await
        .expect_err("killed");
    assert!(error.to_string().contains("signal 9"), "{error}");
    // Much on one line is shown in part.
    let flood = "#!/bin/sh\nhead -c 64M /dev/zero | tr '\\0' x\nexit 1\n";
    let error = stage.pretender(flood).plan(&never()).await.expect_err("exit 1");
    assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
}
