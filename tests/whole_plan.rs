//! `config/pocketbank.toml`, carried out from stage 1 to the way home. The plan is the bank's own, step by step; only what its steps drive is the
//! lab's: Terraform's roots keep their variables and outputs and start a second `mysqld`, the Azure command line, Kubernetes' API and the
//! application are small fakes, blobs are Azurite's, CloudFront is strict moto's. Manifests and the plan's programs are the shipped ones.

#[path = "support/cloudfront.rs"]
mod cloudfront;
#[path = "support/fake_kubernetes.rs"]
mod fake_kubernetes;
#[path = "support/hcl.rs"]
mod hcl;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region};
use fake_kubernetes::FakeKubernetes;
use planb::clock::SystemClock;
use planb::config::Config;
use planb::secret::Secret;
use planb::steps::plan::plan;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use serde_json::{Value, json};
use support::planb::PASSWORD;
use support::{Flavor, Planb, Server, StrictMoto, azurite, census, lab_dir, reader};
use url::Url;

const REPO: &str = env!("CARGO_MANIFEST_DIR");
const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const HOSTNAME: &str = "www.dr.pocketbank.example";
const PATIENCE: Duration = Duration::from_secs(180);

/// Nobody listens there.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("an address").port()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::yield_now();
    }
}

fn program(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a program");
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("may be run");
}

/// Two clouds on one machine.
struct Lab {
    primary: Server,
    /// The standby's port: nobody listens there before stage 2.
    standby: u16,
    api: FakeKubernetes,
    moto: StrictMoto,
    distribution: String,
    planb: Planb,
    /// Until the end of the test; ended first, so that nothing speaks to servers that are gone.
    runner: Option<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut runner) = self.runner.take() {
            let _ = runner.kill();
            let _ = runner.wait();
        }
        // What Terraform started and, the test having failed, did not stop.
        let dir = self.planb.path().join("standby");
        if dir.exists() {
            let _ = Command::new(format!("{REPO}/scripts/lab"))
                .arg("stop")
                .arg(&dir)
                .status();
        }
    }
}

fn sdk(endpoint: &str) -> aws_config::ConfigLoader {
    let credentials = aws_sdk_cloudfront::config::Credentials::new("testing", "testing", None, None, "test");
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new("ap-northeast-2"))
        .credentials_provider(credentials)
        .endpoint_url(endpoint)
}

/// What the plan's `primary-ready` looks at; its node group.
async fn first_site(endpoint: &str) {
    let config = sdk(endpoint).load().await;
    let rds = aws_sdk_rds::Client::new(&config).create_db_instance();
    let rds = rds
        .db_instance_identifier("pocketbank-prod")
        .engine("mysql")
        .db_instance_class("db.t3.medium");
    let rds = rds
        .allocated_storage(20)
        .master_username("admin")
        .master_user_password("a-long-password");
    rds.send().await.expect("an instance");
    let eks = aws_sdk_eks::Client::new(&config);
    let network = aws_sdk_eks::types::VpcConfigRequest::builder()
        .subnet_ids("subnet-1")
        .build();
    let role = "arn:aws:iam::123456789012:role/eks";
    let cluster = eks
        .create_cluster()
        .name("pocketbank-prod")
        .role_arn(role)
        .resources_vpc_config(network);
    cluster.send().await.expect("a cluster");
    for tier in ["web", "was"] {
        let group = eks
            .create_nodegroup()
            .cluster_name("pocketbank-prod")
            .nodegroup_name(tier);
        group
            .subnets("subnet-1")
            .node_role(role)
            .send()
            .await
            .expect("a node group");
    }
}

/// The site's way in: well if the application could log in to the standby, and takes what is posted.
fn gateway(standby: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, standby);
        }
    });
    port
}

fn answer(mut stream: TcpStream, standby: u16) -> std::io::Result<()> {
    let mut request = [0; 2048];
    let read = stream.read(&mut request)?;
    let asked = String::from_utf8_lossy(&request[..read]).into_owned();
    let serves = support::Endpoint {
        flavor: Flavor::MySql,
        port: standby,
        socket: None,
    }
    .sql_as("petclinic", PASSWORD, "SELECT 1")
    .is_ok();
    let (status, body) =
        match serves && (asked.starts_with("GET /actuator/health ") || asked.starts_with("POST /owners/new ")) {
            true => ("200 OK", "{\"status\":\"UP\"}"),
            false => ("503 Service Unavailable", "{\"status\":\"DOWN\"}"),
        };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A root with the variables and outputs of the shipped one, and the lab behind it.
fn twin(dir: &Path, name: &str, resource: &str, outputs: &[(&str, &str)]) {
    let shipped = hcl::Root::read(&Path::new(REPO).join("config/azure").join(name));
    let root = dir.join("azure").join(name);
    std::fs::create_dir_all(&root).expect("a directory");
    std::fs::copy(shipped.dir.join("variables.tf"), root.join("variables.tf")).expect("copied");
    let mut text = format!("terraform {{\n  backend \"local\" {{}}\n}}\n\n{resource}\n");
    for (output, block) in shipped.outputs() {
        let value = outputs
            .iter()
            .find(|(name, _)| *name == output)
            .map_or("\"\"", |(_, value)| value);
        let is_sensitive = hcl::plain(&block.body, "sensitive") == Some(true.into());
        text.push_str(&format!(
            "output \"{output}\" {{\n  value     = {value}\n  sensitive = {is_sensitive}\n}}\n"
        ));
    }
    std::fs::write(root.join("main.tf"), text).expect("written");
}

const SERVER: &str = r#"
resource "terraform_data" "server" {
  # What the shipped root sets on Azure's server, and what Azure sets by itself.
  input = join(" ", concat(["--lower-case-table-names=1"], [for name, value in var.parameters : "--${replace(name, "_", "-")}=${value}"]))

  provisioner "local-exec" {
    command = "PROGRAM start ${self.input}"
    environment = { ADMIN = var.admin_login, PASSWORD = var.admin_password }
  }

  provisioner "local-exec" {
    when    = destroy
    command = "PROGRAM stop"
  }
}
"#;

impl Lab {
    async fn new() -> Self {
        let primary = Server::start(Flavor::MySql, &["--log-bin-trust-function-creators=ON"]);
        primary.sql(&format!(
            "CREATE DATABASE petclinic; CREATE USER petclinic@'%' IDENTIFIED BY '{PASSWORD}';
             GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON petclinic.* TO petclinic@'%';
             CREATE USER planb_recovery@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO planb_recovery@'%' WITH GRANT OPTION;
             CREATE TABLE petclinic.owners (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40) NOT NULL, KEY (name));
             CREATE TABLE petclinic.visits (day DATE NOT NULL, note TEXT);
             INSERT INTO petclinic.owners (name) VALUES ('Ada'), ('김유신'), ('O''Neill');
             INSERT INTO petclinic.visits VALUES ('2026-11-21', 'no primary key');
             CREATE VIEW petclinic.names AS SELECT name FROM petclinic.owners;
             CREATE FUNCTION petclinic.twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n;
             CREATE TRIGGER petclinic.noted AFTER DELETE ON petclinic.owners FOR EACH ROW INSERT INTO petclinic.visits VALUES (CURDATE(), OLD.name);
             CREATE EVENT petclinic.tidy ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM petclinic.visits;"
        ));
        let mut planb = Planb::new(&primary, &reader(&primary, &[]));
        let dir = planb.path().to_owned();
        let (standby, api, moto) = (free_port(), FakeKubernetes::start().await, StrictMoto::start());
        let aws = format!("http://{}", moto.address);
        first_site(&aws).await;
        let distribution =
            cloudfront::distribution(&aws_sdk_cloudfront::Client::new(&sdk(&aws).load().await), false).await;
        for (namespace, name) in [("web", "nginx"), ("was", "petclinic")] {
            let status = json!({"observedGeneration": 9, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2});
            api.script(
                &format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}"),
                [status],
            );
        }

        // The second cloud's parts.
        std::fs::write(dir.join("kubeconfig"), api.kubeconfig().expose()).expect("written");
        let kubeconfig = format!("file({:?})", dir.join("kubeconfig"));
        let nothing = "resource \"terraform_data\" \"all\" { input = var.subscription }";
        let server = SERVER.replace("PROGRAM", &dir.join("server").display().to_string());
        twin(&dir, "1-always-on", nothing, &[]);
        twin(
            &dir,
            "2-database",
            &server,
            &[("host", "terraform_data.server.output == \"\" ? \"\" : \"127.0.0.1\"")],
        );
        let full = [
            ("hostname", "var.hostname"),
            ("kubeconfig", kubeconfig.as_str()),
            ("web_address", "\"172.16.11.250\""),
            ("address", "\"127.0.0.1\""),
        ];
        twin(&dir, "3-full", nothing, &full);
        twin(&dir, "4-alerts", nothing, &[]);
        program(
            &dir.join("server"),
            &format!(
                "#!/bin/sh\nset -eu\nwhat=$1; shift\ncase $what in\n\
                 start)\n  set -- $({REPO}/scripts/lab start mysql --port {standby} --dir {0}/standby -- \"$@\")\n\
                   {1}/mysql/bin/mysql --no-defaults -uroot -S \"$3\" -e \"CREATE USER $ADMIN@'%' IDENTIFIED BY '$PASSWORD'; \
                   GRANT ALL ON *.* TO $ADMIN@'%' WITH GRANT OPTION\"\n  echo started >>{0}/servers ;;\n\
                 stop) {REPO}/scripts/lab stop {0}/standby; rm -rf {0}/standby; echo stopped >>{0}/servers ;;\nesac\n",
                dir.display(),
                lab_dir().display()
            ),
        );
        std::fs::create_dir(dir.join("bin")).expect("a directory");
        program(
            &dir.join("bin/az"),
            &format!(
                "#!/bin/sh\ncd {}\ncase \"$1 $2 $3\" in\n'vm get-instance-view --resource-group') cat power ;;\n\
                 'vm start --resource-group') echo PowerState/running >power ;;\n'vm deallocate --resource-group') echo PowerState/deallocated >power ;;\n\
                 'network dns record-set') case \"$5\" in show) cat cname ;; set-record) while [ \"$1\" != --cname ]; do shift; done; echo \"$2\" >cname ;; esac ;;\n\
                 *) echo \"what is $*?\" >&2; exit 9 ;;\nesac\n",
                dir.display()
            ),
        );
        std::fs::write(dir.join("power"), "PowerState/deallocated\n").expect("written");
        std::fs::write(dir.join("cname"), "d111111abcdef8.cloudfront.net\n").expect("written");

        planb.env.extend(
            [
                ("XDG_STATE_HOME", dir.join("state").display().to_string()),
                (
                    "PATH",
                    format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").expect("PATH")),
                ),
                ("PLANB_LAB", lab_dir().display().to_string()),
                ("PLANB_STORE_KEY", KEY.to_owned()),
                ("AWS_REGION", "ap-northeast-2".to_owned()),
                ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
                ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
                ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let lab = Self {
            primary,
            standby,
            api,
            moto,
            distribution,
            planb,
            runner: None,
        };
        lab.write_plan(gateway(standby)).await;
        lab
    }

    /// The bank's file, with the lab's addresses in it.
    async fn write_plan(&self, gateway: u16) {
        let dir = self.planb.path();
        let container = format!("bank-{:016x}", rand::random::<u64>());
        let endpoint = Url::parse(&azurite()).expect("a URL");
        for name in [
            container.clone(),
            format!("{container}-control"),
            format!("{container}-web"),
        ] {
            let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
            let store =
                AzureStore::open(ACCOUNT, &name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store");
            store.create_container().await.expect("a container");
        }
        let mut text = std::fs::read_to_string(Path::new(REPO).join("config/pocketbank.toml")).expect("the plan");
        // What goes on by day (prepared, watched, told, rehearsed) has tests of its own.
        let by_day = text.find("# --- beforehand, by day").expect("what goes on by day");
        let stages = text.find("# --- stage 1").expect("the stages");
        text.replace_range(by_day..stages, "");
        let server = |port: u16, user: &str| {
            format!(
                "host = \"127.0.0.1\"\nport = {port}\nuser = \"{user}\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n"
            )
        };
        for (section, lines) in [
            ("source", server(self.primary.port, "reader")),
            (
                "store",
                format!(
                    "url = \"azblob://{ACCOUNT}/{container}\"\nendpoint = \"{endpoint}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_STORE_KEY\"\n"
                ),
            ),
            ("primary", server(self.primary.port, "planb_recovery")),
            ("standby", server(self.standby, "planb_recovery")),
        ] {
            let begin = text.find(&format!("\n[{section}]\n")).expect("a section") + section.len() + 4;
            let end = begin + text[begin..].find("\n[").expect("another section");
            text.replace_range(begin..end, &lines);
        }
        for (bank, lab) in [
            ("/etc/planb/azure/1-", format!("{}/azure/1-", dir.display())),
            ("/etc/planb/azure/2-", format!("{}/azure/2-", dir.display())),
            ("/etc/planb/azure/3-", format!("{}/azure/3-", dir.display())),
            ("/etc/planb/azure/4-", format!("{}/azure/4-", dir.display())),
            ("/etc/planb/azure/", format!("{REPO}/config/azure/")),
            ("/etc/planb/kubernetes", format!("{REPO}/config/kubernetes")),
            ("/var/lib/planb/providers", format!("{}/providers", dir.display())),
            (
                "\"storage_account_name=pocketbanktfstate\", \"container_name=tfstate\", \"key=",
                format!("\"path={}/", dir.display()),
            ),
            (
                "azure-keyvault:kv-pocketbank-dr/standby-password",
                "env:PLANB_SOURCE_PASSWORD".to_owned(),
            ),
            (
                "\"credential:petclinic-db\", \"azure-keyvault:kv-pocketbank-dr/app-password\"",
                "\"env:PLANB_SOURCE_PASSWORD\"".to_owned(),
            ),
            (
                "azure-keyvault:kv-pocketbank-dr/app-password",
                "env:PLANB_SOURCE_PASSWORD".to_owned(),
            ),
            ("https://${cluster.hostname}/", format!("http://127.0.0.1:{gateway}/")),
            // By `connect`, at the gateway's address: no resolver knows it.
            (
                "https://www.pocketbank.example/",
                format!("http://www.pocketbank.example:{gateway}/"),
            ),
            ("E2EXAMPLE", self.distribution.clone()),
            // The emulator is shared: not every test may have a `$web`.
            (
                "page = \"/etc/planb/page\"",
                format!("page = \"{REPO}/config/page\"\ncontainer = \"{container}-web\""),
            ),
            // Load balancers of moto's need a network of theirs; tests/edge.rs looks at them.
            (
                "target_groups = [\"arn:aws:elasticloadbalancing:ap-northeast-2:111122223333:targetgroup/web/0123456789abcdef\"]\n",
                String::new(),
            ),
            (
                "\"AZURE_CONFIG_DIR\"",
                "\"AZURE_CONFIG_DIR\", \"PLANB_LAB\", \"PLANB_LAB_RUN\"".to_owned(),
            ),
        ] {
            assert!(text.contains(bank), "the plan holds no {bank}");
            text = text.replace(bank, &lab);
        }
        std::fs::create_dir(dir.join("providers")).expect("a directory");
        self.planb.write_config(&text);
        // Same steps, same stages, same order, same places, same patience: only what they drive is another.
        let bank = Config::load(&Path::new(REPO).join("config/pocketbank.toml")).expect("the bank's plan");
        let ours = Config::load(&self.planb.config()).expect("the lab's plan");
        assert_eq!(plan(&bank.failover_steps), plan(&ours.failover_steps));
        assert_eq!(plan(&bank.failback_steps), plan(&ours.failback_steps));
        assert!(plan(&ours.failover_steps).steps.len() > 12 && plan(&ours.failback_steps).steps.len() > 12);
    }

    /// Where AWS is, from now on: moto, or a port at which nobody listens.
    fn aws(&mut self, is_there: bool) {
        let place = match is_there {
            true => format!("http://{}", self.moto.address),
            false => format!("http://127.0.0.1:{}", free_port()),
        };
        self.planb.env.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
        self.planb.env.push(("AWS_ENDPOINT_URL".into(), place));
    }

    /// The plan's own first steps start the runner's machine; then the runner is there.
    fn go(&mut self, args: &[&str]) -> Value {
        let child = self.planb.spawn(&[&["--json"], args].concat());
        if self.runner.is_none() {
            let power = self.planb.path().join("power");
            until("the runner's machine", || {
                std::fs::read_to_string(&power).is_ok_and(|power| power.contains("running"))
            });
            self.runner = Some(self.planb.spawn(&["runner"]));
        }
        let output = child.wait_with_output().expect("ended");
        assert!(
            output.status.success(),
            "planb {args:?}: {}
{}",
            support::planb::text(&output),
            self.planb.ok(&["history"])
        );
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(printed.lines().last().unwrap_or_default()).expect("JSON")
    }

    fn at_standby(&self) -> support::Endpoint {
        support::Endpoint {
            flavor: Flavor::MySql,
            port: self.standby,
            socket: Some(self.planb.path().join("standby/sock")),
        }
    }

    fn app(&self, at: &support::Endpoint, sql: &str) -> Result<String, String> {
        at.sql_as("petclinic", PASSWORD, sql)
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.planb.path().join(name);
        std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
    }

    /// What became of each step of the latest operation.
    fn step(&self, name: &str) -> String {
        let status = self.planb.json(&["--json", "status"]);
        let steps = status["operation"]["steps"].as_array().cloned().unwrap_or_default();
        let found = steps.iter().find(|step| step["name"] == name);
        found
            .and_then(|step| step["state"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    async fn targets(&self) -> Vec<String> {
        let client = aws_sdk_cloudfront::Client::new(&sdk(&format!("http://{}", self.moto.address)).load().await);
        cloudfront::targets(&cloudfront::config(&client, &self.distribution).await)
    }

    /// Data goes home and everything of stages 2 and 3 goes away.
    fn home(&mut self) {
        let stopped = self.planb.fails(4, &["failback", "--yes"]);
        assert!(stopped.contains("confirm-soak"), "{stopped}");
        assert_eq!(self.file("cname"), "d111111abcdef8.cloudfront.net");
        assert_eq!(self.file("servers"), "started", "nothing goes before a person said so");
        let done = self.go(&["failback", "--resume", "--accept", "confirm-soak=a quiet day"]);
        assert_eq!(done["result"], "done", "{done}");
        assert_eq!(
            (&done["standing"]["serving"], &done["standing"]["stage"]),
            (&json!("primary"), &json!(1))
        );
        assert_eq!(self.file("servers"), "started\nstopped");
        assert_eq!(self.file("power"), "PowerState/deallocated");
        assert!(
            TcpStream::connect(("127.0.0.1", self.standby)).is_err(),
            "the standby is gone"
        );
    }
}

const HOME: [&str; 4] = ["both", "alb", "s3", "both"];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_dark_night_from_stage_one_to_the_way_home() {
    let mut lab = Lab::new().await;
    // From here on no address of AWS answers.
    lab.aws(false);
    lab.planb.ok(&["backup"]);
    let first = lab.planb.json(&["--json", "failover", "--stage", "1", "--yes"]);
    assert_eq!(first["result"], "done", "{first}");
    let saved = census(&lab.primary, &["petclinic"]);
    lab.primary
        .sql("INSERT INTO petclinic.owners (name) VALUES ('too late')");
    lab.primary.kill();
    // Where the database is, only RDS could tell.
    let plan = std::fs::read_to_string(lab.planb.config()).expect("the plan");
    let known = format!(
        "host = \"127.0.0.1\"\nport = {}\nuser = \"reader\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\ntls = \"off\"\n",
        lab.primary.port
    );
    let asked = "rds_instance = \"pocketbank-prod\"\nregion = \"ap-northeast-2\"\nuser = \"reader\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n";
    lab.planb.reconfigure(&known, asked);

    let unproven = ["--accept", "backup-unproven=a test"];
    let second = lab.go(&[&["failover", "--stage", "2", "--yes"], &unproven[..]].concat());
    assert_eq!(
        (&second["result"], &second["standing"]["stage"]),
        (&json!("done"), &json!(2)),
        "{second}"
    );
    assert_eq!(second["standing"]["serving"], "primary", "nothing is decided yet");
    let standby = lab.at_standby();
    let mut asleep = saved.clone();
    let event = asleep.get_mut("event petclinic.tidy").expect("an event");
    *event = event.replace(" ENABLE ", " DISABLE ");
    assert_ne!(asleep, saved, "events sleep until it opens");
    support::assert_same(&asleep, &census(&standby, &["petclinic"]));
    assert!(lab.app(&standby, "SELECT 1").is_err(), "locked until it opens");

    let stopped = lab
        .planb
        .fails(4, &[&["failover", "--stage", "3", "--yes"], &unproven[..]].concat());
    assert!(
        stopped.contains("unfenced") && stopped.contains("--resume"),
        "{stopped}"
    );
    assert_eq!(
        lab.file("cname"),
        "d111111abcdef8.cloudfront.net",
        "nobody is sent anywhere yet"
    );
    let third = lab.go(&["failover", "--resume", "--accept", "unfenced=Seoul is dark"]);
    assert_eq!(
        (&third["result"], &third["standing"]["serving"]),
        (&json!("done"), &json!("standby")),
        "{third}"
    );
    assert_eq!(lab.file("cname"), HOSTNAME);
    assert_eq!(lab.file("servers"), "started", "found, not made again");
    assert_eq!(lab.step("edge"), "failed", "AWS alone can do that one");
    assert_eq!(lab.targets().await, HOME);
    support::assert_same(&saved, &census(&standby, &["petclinic"]));
    lab.app(
        &standby,
        "INSERT INTO petclinic.owners (name) VALUES ('in Korea Central')",
    )
    .expect("it serves");
    let secret = lab
        .api
        .get("/api/v1/namespaces/was/secrets/petclinic-database")
        .expect("a secret");
    assert_eq!(secret["stringData"]["password"], PASSWORD);
    let settings = lab
        .api
        .get("/api/v1/namespaces/was/configmaps/petclinic")
        .expect("settings");
    assert!(
        settings["data"]["MYSQL_URL"]
            .as_str()
            .expect("text")
            .starts_with("jdbc:mysql://127.0.0.1:3306/petclinic?")
    );
    let service = lab.api.get("/api/v1/namespaces/web/services/nginx").expect("a service");
    let address = &service["metadata"]["annotations"]["service.beta.kubernetes.io/azure-load-balancer-ipv4"];
    assert_eq!(address, "172.16.11.250");
    assert!(
        lab.api
            .get("/apis/networking.k8s.io/v1/namespaces/was/networkpolicies/nothing")
            .is_some()
    );

    // Seoul comes back, and is fenced as soon as it answers.
    lab.aws(true);
    lab.planb.write_config(&plan);
    lab.primary.restart(&[]);
    let mut agent = lab.planb.spawn(&["agent"]);
    until("the fence", || {
        lab.planb.json(&["--json", "status"])["standing"]["pending_fences"] == json!([])
    });
    agent.kill().expect("killed");
    agent.wait().expect("ended");
    assert!(lab.app(&lab.primary, "SELECT 1").is_err(), "fenced");

    let before = census(&standby, &["petclinic"]);
    lab.home();
    assert_eq!(lab.targets().await, HOME);
    support::assert_same(&before, &census(&lab.primary, &["petclinic"]));
    let owners = lab
        .app(&lab.primary, "SELECT name FROM petclinic.owners ORDER BY id")
        .expect("it serves again");
    assert!(
        owners.contains("in Korea Central") && !owners.contains("too late"),
        "{owners}"
    );
    let kept = lab.primary.sql("SELECT name FROM planb_old_petclinic.owners");
    assert!(kept.contains("too late"), "{kept}");
    let history = lab.planb.ok(&["history"]);
    assert!(
        !history.contains(PASSWORD) && !history.contains(KEY),
        "no secret is written anywhere"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_planned_move_there_and_back_by_way_of_cloudfront() {
    let mut lab = Lab::new().await;
    lab.aws(true);
    lab.planb.ok(&["backup"]);
    lab.primary
        .sql("INSERT INTO petclinic.owners (name) VALUES ('after the backup')");
    let all = census(&lab.primary, &["petclinic"]);
    let done = lab.go(&[
        "failover",
        "--stage",
        "3",
        "--planned",
        "--yes",
        "--accept",
        "backup-unproven=a test",
    ]);
    assert_eq!(
        (&done["result"], &done["standing"]["serving"]),
        (&json!("done"), &json!("standby")),
        "{done}"
    );
    assert_eq!(done["standing"]["pending_fences"], json!([]), "{done}");
    let standby = lab.at_standby();
    support::assert_same(&all, &census(&standby, &["petclinic"]));
    assert_eq!(
        lab.targets().await,
        ["azure-gateway"; 4],
        "those that take writes included"
    );
    assert!(lab.app(&lab.primary, "SELECT 1").is_err(), "fenced");
    lab.app(&standby, "INSERT INTO petclinic.owners (name) VALUES ('away')")
        .expect("it serves");
    lab.home();
    assert_eq!(lab.targets().await, HOME);
    let owners = lab
        .app(&lab.primary, "SELECT COUNT(*) FROM petclinic.owners")
        .expect("it serves again");
    assert_eq!(owners.trim(), "5");
}
