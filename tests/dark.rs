//! `planb prepare` and `planb doctor --dark` with real Terraform, real servers and a real registry: a plan to which nothing is wrong,
//! and then one thing after the other that would fail tonight.

mod daemon;
#[path = "support/fake_kubernetes.rs"]
mod fake_kubernetes;
mod support;

use std::path::Path;
use std::process::Command;

use daemon::Daemon;
use fake_kubernetes::FakeKubernetes;
use serde_json::Value;
use support::receiver::{Manner, Receiver};
use support::{Flavor, Planb, Registry, Server, reader};

const PLAN: &str = r#"
[prepare]
registry = "REGISTRY"
sources = ["was/app=SOURCE/team/app"]

[[failover_steps]]
name = "network"
stage = 1
kind = "terraform"
dir = "DIR/network"
mirror = "DIR/mirror"

[[failover_steps]]
name = "database"
stage = 2
kind = "terraform"
dir = "DIR/database"
mirror = "DIR/mirror"
variables = ["subnet=${network.subnet}"]
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
name = "application"
stage = 3
kind = "manifests"
dir = "DIR/manifests"
kubeconfig = "${database.kubeconfig}"
variables = ["DATABASE_HOST=${database.host}"]
secrets = ["was/app/password=file:DIR/app-password"]
needs = ["compare"]

[[failover_steps]]
name = "fence"
stage = 3
kind = "fence"
needs = ["application"]

[[failover_steps]]
name = "last"
stage = 3
kind = "last-backup"
needs = ["fence"]

[[failover_steps]]
name = "open"
stage = 3
kind = "standby-open"
host = "${database.host}"
needs = ["restore", "compare", "fence", "last"]

[[failover_steps]]
name = "traffic"
stage = 3
kind = "command"
means = "traffic"
site = "standby"
program = "DIR/switch"
needs = ["open"]
"#;

const NETWORK: &str = r#"
resource "terraform_data" "network" { input = "db" }
output "subnet" { value = terraform_data.network.output }
"#;

const DATABASE: &str = r#"
variable "subnet" { type = string }
variable "admin_password" {
  type      = string
  sensitive = true
}
resource "terraform_data" "server" { input = "127.0.0.1" }
output "host" { value = terraform_data.server.output }
output "kubeconfig" { value = "" }
"#;

/// Needs a provider that no mirror here has.
const UNPREPARED: &str = r#"
terraform {
  required_providers { azurerm = { source = "hashicorp/azurerm" } }
}
"#;

/// Reads a state that lies in AWS.
const READS_AWS: &str = r#"
data "terraform_remote_state" "production" {
  backend = "http"
  config  = { address = "https://state.s3.ap-northeast-2.amazonaws.com/production", retry_max = 0 }
}
"#;

struct Lab {
    _primary: Server,
    _registries: (Registry, Registry),
    planb: Planb,
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    std::fs::write(path, text).expect("a file");
}

/// A self-signed certificate: `valid` until 2099, or `expired` since 2025.
fn certificate(name: &str) -> String {
    std::fs::read_to_string(support::fixture(&format!("certificates/{name}.pem"))).expect("a certificate")
}

/// Pushes a manifest of one small layer, and gives its digest.
fn push(host: &str, repository: &str) -> String {
    let sum = |text: &str| {
        use sha2::{Digest, Sha256};
        let hex: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{hex}")
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let http = reqwest::Client::new();
        let base = format!("http://{host}/v2/{repository}");
        for blob in ["{}", "a layer"] {
            let begun = http
                .post(format!("{base}/blobs/uploads/"))
                .send()
                .await
                .expect("an answer");
            let at = begun.headers()["location"].to_str().expect("a place").to_owned();
            let done = http
                .put(format!("{at}&digest={}", sum(blob)))
                .body(blob.to_owned())
                .send()
                .await;
            assert_eq!(done.expect("an answer").status(), 201);
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sum("{}"), "size": 2},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sum("a layer"), "size": 7}]})
        .to_string();
        let put = http.put(format!("{base}/manifests/{}", sum(&manifest)));
        let put = put.header("content-type", kind).body(manifest.clone()).send().await;
        assert_eq!(put.expect("an answer").status(), 201);
        sum(&manifest)
    })
}

impl Lab {
    fn new() -> Self {
        let primary = Server::start(Flavor::MySql, &[]);
        primary.sql("CREATE DATABASE bank; CREATE TABLE bank.a (id INT PRIMARY KEY); INSERT INTO bank.a VALUES (1);");
        let registries = (Registry::start(), Registry::start());
        let mut planb = Planb::new(&primary, &reader(&primary, &[]));
        let dir = planb.path().to_owned();
        let digest = push(&registries.0.host(), "team/app");
        write(&dir.join("ca.pem"), &certificate("valid"));
        planb.configure(
            &format!(
                "[standby]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"dba\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n\
                 tls_ca = \"{}/ca.pem\"\n{PLAN}",
                dir.display()
            )
            .replace("DIR", &dir.display().to_string())
            .replace("REGISTRY", &registries.1.host())
            .replace("SOURCE/", &format!("{}/", registries.0.host())),
        );
        write(&dir.join("network/main.tf"), NETWORK);
        write(&dir.join("database/main.tf"), DATABASE);
        write(
            &dir.join("manifests/app.yaml"),
            &format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app, namespace: was}}\nspec:\n  template:\n    spec:\n      \
                 containers:\n      - name: app\n        image: {}/was/app@{digest}\n        env: [{{name: HOST, value: '${{DATABASE_HOST}}'}}]\n",
                registries.1.host()
            ),
        );
        write(&dir.join("app-password"), "an-app-secret");
        write(&dir.join("switch"), "#!/bin/sh\n");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.join("switch"), mode).expect("may be run");
        planb
            .env
            .push(("XDG_STATE_HOME".into(), dir.join("state").display().to_string()));
        planb.backup(&[]);
        Self {
            _primary: primary,
            _registries: registries,
            planb,
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.planb.path().join(name)
    }

    /// What doctor says in the dark: its exit code, and the findings.
    fn dark(&self) -> (Option<i32>, Vec<Value>) {
        let output = self.planb.run(&["--json", "doctor", "--dark"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let read: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
            .unwrap_or_else(|_| panic!("no JSON: {}", support::planb::text(&output)));
        assert!(
            !text.contains("an-app-secret") && !text.contains(support::PASSWORD),
            "{text}"
        );
        (
            output.status.code(),
            read["findings"].as_array().expect("findings").clone(),
        )
    }

    /// It must find exactly this one error, with a remedy, worst first.
    #[track_caller]
    fn finds(&self, about: &str, word: &str) {
        let (code, findings) = self.dark();
        let errors: Vec<&Value> = findings.iter().filter(|one| one["severity"] == "error").collect();
        let [only] = errors.as_slice() else {
            panic!("{about}: {findings:#?}")
        };
        let text = |key: &str| only[key].as_str().unwrap_or_default().to_owned();
        assert!(text("about").contains(about) && text("what").contains(word), "{only:#}");
        assert!(!text("remedy").is_empty(), "{only:#}");
        assert_eq!(code, Some(1));
        assert_eq!(findings[0], **only, "worst first");
    }

    /// Breaks a file, runs, and puts back what was.
    #[track_caller]
    fn broken(&self, name: &str, text: &str, about: &str, word: &str) {
        let before = std::fs::read_to_string(self.path(name)).expect("a file");
        write(&self.path(name), text);
        self.finds(about, word);
        write(&self.path(name), &before);
    }
}

#[test]
fn what_would_fail_tonight_is_found_and_nothing_else() {
    let lab = Lab::new();
    let planb = &lab.planb;

    // Nothing was prepared: the image is missing, and only that stops a recovery.
    lab.finds("image ", "not in the second cloud's registry");

    assert!(
        !lab.path("network/.terraform.lock.hcl").exists(),
        "a look writes nothing"
    );

    let prepared: Value = planb.json(&["--json", "prepare"]);
    assert_eq!(prepared["failures"], serde_json::json!([]), "{prepared:#}");
    assert_eq!(prepared["prepared"]["mirrors"].as_array().map(Vec::len), Some(2));
    assert_eq!(prepared["prepared"]["images"].as_array().map(Vec::len), Some(1));
    let tools = prepared["prepared"]["tools"].as_object().expect("tools");
    assert!(
        tools
            .values()
            .any(|version| version.as_str().is_some_and(|text| text.starts_with("1."))),
        "{tools:?}"
    );

    let (code, findings) = lab.dark();
    let loud: Vec<&Value> = findings.iter().filter(|one| one["severity"] != "note").collect();
    // A backup that was never restored is the one thing that prepare does not cure.
    assert!(loud.len() == 1 && loud[0]["about"] == "backups", "{findings:#?}");
    assert_eq!(code, Some(0), "{findings:#?}");
    // Stage 2 cannot be planned before stage 1 stands; that is no error.
    let said = |about: &str, word: &str| {
        findings
            .iter()
            .any(|one| one["about"] == about && one["what"].as_str().is_some_and(|what| what.contains(word)))
    };
    assert!(said("step network", "planned in the dark, 1 changes"), "{findings:#?}");
    assert!(
        said("step database", "${network.subnet} cannot be known yet"),
        "{findings:#?}"
    );
    assert!(said("standby", "before stage 2"), "{findings:#?}");
    for left in ["network/.terraform", "database/.terraform", "terraform.tfstate"] {
        assert!(!lab.path(left).exists(), "a look left {left}");
    }
    let status = planb.json(&["--json", "status"]);
    assert_eq!(
        (&status["dark"][0]["errors"], &status["dark"][0]["place"]),
        (&0.into(), &"operator".into())
    );
    assert!(planb.ok(&["status"]).contains("nothing would fail tonight"));

    // Whoever is asked for and out of reach is named; no connection went there.
    lab.broken("network/main.tf", UNPREPARED, "step network", "registry.terraform.io");
    lab.broken(
        "network/main.tf",
        READS_AWS,
        "step network",
        "state.s3.ap-northeast-2.amazonaws.com, which is out of reach",
    );
    lab.broken(
        "database/main.tf",
        "variable \"subnet\" {",
        "step database",
        "fails in the dark",
    );
    lab.broken("manifests/app.yaml", "kind: [", "step application", "rendered");
    lab.broken("app-password", "", "secrets", "app/password");
    lab.broken(
        "ca.pem",
        &certificate("expired"),
        "[standby] tls_ca",
        "CN=standby ran out on 2025-01-01",
    );
    let manifest = std::fs::read_to_string(lab.path("manifests/app.yaml")).expect("a manifest");
    let (before, _) = manifest.split_once('@').expect("a digest");
    let unpinned = format!("{before}:latest\n");
    lab.broken("manifests/app.yaml", &unpinned, "image ", "no digest");
    let elsewhere = manifest.replace(&lab._registries.1.host(), "quay.example");
    lab.broken("manifests/app.yaml", &elsewhere, "image ", "may be out of reach");

    // What only AWS has; and AWS is not even asked.
    let only_aws = ("was/app/password=file:", "was/app/password=aws-secret:planb/app#");
    let config = std::fs::read_to_string(planb.config()).expect("a configuration");
    let path = format!("{}{}/app-password", only_aws.0, planb.path().display());
    planb.reconfigure(&path, &format!("{}password", only_aws.1));
    lab.finds("secrets", "only AWS has it");
    planb.write_config(&config);

    std::fs::remove_file(lab.path("switch")).expect("removed");
    lab.finds("step traffic", "not on this machine");
    assert!(
        planb
            .ok(&["status"])
            .contains("1 WOULD FAIL TONIGHT, first step traffic")
    );
    let told = planb.fails(1, &["prepare"]);
    assert!(told.contains("FAILED   step traffic"), "{told}");
}

#[test]
fn a_runner_that_nobody_heard_of_is_missed_and_one_that_looked_is_believed() {
    let lab = Lab::new();
    let planb = &lab.planb;
    planb.json(&["--json", "prepare"]);
    planb.reconfigure("name = \"compare\"", "name = \"compare\"\nat = \"runner\"");
    lab.finds("runner", "none has ever said");
    let there = planb.run(&["doctor", "--dark", "--at", "runner"]);
    assert!(there.status.success(), "{}", support::planb::text(&there));
    let (code, findings) = lab.dark();
    assert_eq!(code, Some(0), "{findings:#?}");
    let status = planb.json(&["--json", "status"]);
    assert_eq!(status["dark"].as_array().map(Vec::len), Some(2), "{status:#}");
}

#[test]
fn a_module_from_elsewhere_is_refused_before_the_night() {
    let lab = Lab::new();
    let planb = &lab.planb;
    // Fetched by git from a place that is there now, and may not be tonight.
    let module = lab.path("elsewhere");
    write(&module.join("main.tf"), "");
    let git = |args: &[&str]| {
        let done = Command::new("git")
            .current_dir(&module)
            .args(args)
            .output()
            .expect("git runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&[
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.org",
        "commit",
        "-qm",
        "a module",
    ]);
    let calls = format!(
        "{NETWORK}\nmodule \"far\" {{ source = \"git::file://{}\" }}\n",
        module.display()
    );
    write(&lab.path("network/main.tf"), &calls);
    let told = planb.fails(1, &["prepare"]);
    assert!(
        told.contains("module far from git::file://") && told.contains("./modules/NAME"),
        "{told}"
    );
    // Vendored, it is fine.
    write(&lab.path("network/modules/far/main.tf"), "");
    write(
        &lab.path("network/main.tf"),
        &format!("{NETWORK}\nmodule \"far\" {{ source = \"./modules/far\" }}\n"),
    );
    planb.ok(&["prepare"]);
}

#[test]
fn without_a_plan_there_is_nothing_to_look_at() {
    let planb = Planb::empty();
    let store = planb.store().display().to_string();
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:P\"\ntls = \"off\"\n[store]\nurl = \"file://{store}\"\n"
    ));
    for args in [&["doctor", "--dark"][..], &["prepare"]] {
        assert!(planb.fails(2, args).contains("failover_steps"));
    }
}

/// Answers every request with that JSON, until dropped; `None` where nobody asked.
fn azure(body: &'static str) -> (String, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 16 << 10];
            let read = stream.read(&mut request).unwrap_or(0);
            log.lock()
                .expect("the log")
                .push(String::from_utf8_lossy(&request[..read]).into_owned());
            let _ = write!(
                stream,
                "HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    (host, asked)
}

#[test]
fn what_azure_has_not_enough_of_is_told_while_there_is_time_to_ask_for_more() {
    let (host, asked) = azure(r#"{"value":[{"name":{"value":"cores"},"currentValue":9,"limit":10}]}"#);
    let mut planb = Planb::empty();
    let dir = planb.path().display().to_string();
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:P\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{dir}/store\"\n\
         [quota]\nsubscription = \"sub\"\nlocation = \"koreacentral\"\ncompute = [\"cores=4\"]\nendpoint = \"http://{host}\"\n\
         [[failover_steps]]\nname = \"look\"\nstage = 1\nkind = \"manual\"\ntext = \"Look.\"\n"
    ));
    // In the place of Azure's own program, which knows who is logged in here.
    let az = planb.path().join("bin/az");
    write(
        &az,
        "#!/bin/sh\necho '{\"accessToken\": \"arm-t0ken\", \"expires_on\": 4102444800, \"tokenType\": \"Bearer\"}'\n",
    );
    std::fs::set_permissions(&az, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("may be run");
    let path = format!("{dir}/bin:{}", std::env::var("PATH").unwrap_or_default());
    planb.env.push(("PATH".into(), path));
    let told = planb.fails(1, &["doctor", "--dark"]);
    assert!(
        told.contains("quota: cores: 9 of 10 are in use in koreacentral, and a recovery takes 4"),
        "{told}"
    );
    assert!(told.contains("no good backup") && !told.contains("arm-t0ken"), "{told}");
    let asked = asked.lock().expect("the log");
    assert!(
        asked.len() == 1
            && asked[0]
                .to_ascii_lowercase()
                .contains("authorization: bearer arm-t0ken"),
        "{asked:?}"
    );
}

#[test]
fn the_agent_looks_by_the_clock_tells_people_and_leaves_the_operators_look_alone() {
    let lab = Lab::new();
    let mut planb = lab.planb;
    planb.json(&["--json", "prepare"]);
    // What a person found stays beside what the agent finds, on the same machine.
    let places = |planb: &Planb| -> Vec<(String, i64)> {
        let status = planb.json(&["--json", "status"]);
        let looks = status["dark"].as_array().cloned().unwrap_or_default();
        let pair = |one: &Value| Some((one["place"].as_str()?.to_owned(), one["errors"].as_i64()?));
        looks.iter().filter_map(pair).collect()
    };
    assert_eq!(places(&planb), [("operator".to_owned(), 0)]);
    std::fs::remove_file(planb.path().join("switch")).expect("removed");

    let hook = Receiver::start(Manner::Takes);
    planb.env.push(("HOOK".to_owned(), hook.url("hook")));
    planb.configure("[[notify.channels]]\nname = \"oncall\"\nkind = \"slack\"\nurl = \"env:HOOK\"\n");
    // It was asleep whenever its time came: what it owes it does soon after it started.
    let agent = Daemon::start(&planb);
    let told = hook.wait(&["planb doctor --dark"]);
    assert!(told.body.contains("not on this machine"), "{}", told.body);
    let looks = places(&planb);
    assert_eq!(looks, [("agent".to_owned(), 1), ("operator".to_owned(), 0)]);
    let status = planb.ok(&["status"]);
    assert!(
        status.contains("nothing would fail tonight (the operator on") && status.contains("step traffic"),
        "{status}"
    );
    drop(agent);
}

#[test]
fn what_production_runs_is_asked_of_its_cluster() {
    let lab = Lab::new();
    let planb = &lab.planb;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
    let production = runtime.block_on(FakeKubernetes::start());
    write(&lab.path("production.kubeconfig"), production.kubeconfig().expose());
    planb.reconfigure(
        "[prepare]\n",
        &format!(
            "[prepare]\nproduction_kubeconfig = \"{}/production.kubeconfig\"\n",
            planb.path().display()
        ),
    );
    let manifest = std::fs::read_to_string(lab.path("manifests/app.yaml")).expect("a manifest");
    let digest = manifest
        .split_once('@')
        .and_then(|(_, rest)| rest.lines().next())
        .expect("a digest");
    let from = lab._registries.0.host();
    let pod = |image: &str, init: &str| {
        serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app-1", "namespace": "was"},
            "status": {"containerStatuses": [{"name": "app", "image": "x", "imageID": image}],
                "initContainerStatuses": [{"name": "i", "image": "y", "imageID": init}]}})
    };
    let other = format!("sha256:{}", "0b".repeat(32));
    let warned = |planb: &Planb| -> Option<String> {
        let printed = planb.run(&["--json", "prepare"]);
        let text = String::from_utf8_lossy(&printed.stdout).into_owned();
        let read: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        assert_eq!(read["failures"], serde_json::json!([]), "{read:#}");
        let findings = read["findings"].as_array().cloned().unwrap_or_default();
        let about = findings
            .iter()
            .find(|one| one["about"].as_str().is_some_and(|about| about.starts_with("image ")));
        about.and_then(|one| one["what"].as_str().map(str::to_owned))
    };
    let path = "/api/v1/namespaces/was/pods/app-1";
    production.put(
        path,
        pod(&format!("{from}/team/app@{digest}"), &format!("busybox@{other}")),
    );
    assert_eq!(warned(planb), None, "the same one");
    production.put(
        path,
        pod(&format!("{from}/team/app@{other}"), &format!("busybox@{digest}")),
    );
    let told = warned(planb).expect("another one");
    assert!(
        told.contains("production runs another one") && told.contains(&other),
        "{told}"
    );
    // A cluster that refuses is told, and keeps nothing from being prepared.
    production.fail("GET /api/v1/pods", fake_kubernetes::Fault::Status(403), 99);
    let failed = planb.fails(1, &["prepare"]);
    assert!(
        failed.contains("FAILED   production's cluster") && failed.contains("403"),
        "{failed}"
    );
    assert!(failed.contains("prepared 1 images"), "{failed}");
}
