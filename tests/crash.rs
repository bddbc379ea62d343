//! A failover and a failback with real processes, killed at points that follow from the plan: before each entry of the journal reaches the store,
//! after it is there and before anybody hears of it, and a moment later, in the middle of what the entry announced. Another machine goes on,
//! and it ends as if nothing had happened, each effect done once or repeated harmlessly.
//!
//! `PLANB_CRASHES=all` goes through every point (scripts/soak); otherwise through a few, drawn by `PLANB_SEED`.

#[path = "support/http_fault.rs"]
mod http_fault;
mod support;

use std::process::{Child, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_fault::{Fault, HttpFault, Rule};
use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::BlobStore as _;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use support::planb::text;
use support::sites::Lab;
use support::{Flavor, Server, azurite};
use url::Url;

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Requests about entries, whether or not slashes are encoded.
const JOURNAL: &str = "-control/journal";
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a process is killed: at the entry with this number, of all that it would write.
#[derive(Debug, Clone, Copy)]
struct Point {
    entry: usize,
    when: When,
}

#[derive(Debug, Clone, Copy)]
enum When {
    /// The entry never reaches the store.
    Before,
    /// It is there, and whoever wrote it does not hear of that.
    After,
    /// It heard, and has begun what comes next.
    Soon(Duration),
}

/// SplitMix64
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn when(&mut self, which: u64) -> When {
        match which {
            0 => When::Before,
            1 => When::After,
            _ => When::Soon(Duration::from_millis(self.below(1_500))),
        }
    }
}

/// Two sites whose store is a container of its own, behind a proxy.
struct World {
    lab: Lab,
    proxy: HttpFault,
    backups: AzureStore,
    control: AzureStore,
    machines: usize,
}

impl World {
    async fn new() -> Self {
        let endpoint = Url::parse(&azurite()).expect("a URL");
        let address = format!(
            "{}:{}",
            endpoint.host_str().unwrap_or_default(),
            endpoint.port().unwrap_or(80)
        );
        let proxy = HttpFault::start(address.parse().expect("an address"), []).await;
        let name = format!("crash-{:016x}", rand::random::<u64>());
        let container = |name: &str| {
            let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
            AzureStore::open(ACCOUNT, name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store")
        };
        let control = container(&format!("{name}-control"));
        let backups = container(&name);
        backups.create_container().await.expect("a container");
        control.create_container().await.expect("a container");
        let mut lab = Lab::with(Server::start(Flavor::MySql, &[]), Server::start(Flavor::MySql, &[]));
        let file = format!("url = \"file://{}\"", lab.planb.store().display());
        let azure = format!(
            "url = \"azblob://{ACCOUNT}/{name}\"\nendpoint = \"http://{}{}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_TEST_SECRET\"",
            proxy.address(),
            endpoint.path()
        );
        lab.planb.reconfigure(&file, &azure);
        lab.planb.env.push(("PLANB_TEST_SECRET".into(), KEY.into()));
        lab.planb.ok(&["backup"]);
        Self {
            lab,
            proxy,
            backups,
            control,
            machines: 0,
        }
    }

    /// Another machine has nothing of what the one before kept for itself.
    fn spawn(&mut self, args: &[&str]) -> Child {
        self.machines += 1;
        self.lab.planb.env.retain(|(name, _)| name != "XDG_STATE_HOME");
        let home = self.lab.planb.path().join(format!("machine-{}", self.machines));
        self.lab
            .planb
            .env
            .push(("XDG_STATE_HOME".into(), home.display().to_string()));
        self.lab.planb.spawn(args)
    }

    fn entries(&self) -> usize {
        self.proxy
            .requests(JOURNAL)
            .iter()
            .filter(|(line, _)| line.starts_with("PUT "))
            .count()
    }

    /// Kills it there. None if it came to its end before.
    async fn kill_at(&mut self, args: &[&str], point: Point) -> Option<Output> {
        let (faults, unheard, entries) = (self.proxy.faults_met(), self.proxy.done_unheard(), self.entries());
        let journal = ["PUT ", JOURNAL];
        match point.when {
            When::Before => self.proxy.add(Rule::new(&journal, Fault::Hang, 1).after(point.entry)),
            When::After => self
                .proxy
                .add(Rule::new(&journal, Fault::HangAfter, 1).after(point.entry)),
            When::Soon(_) => {}
        }
        let mut child = self.spawn(args);
        let until = Instant::now() + PATIENCE;
        let is_there = |world: &Self| match point.when {
            When::Before => world.proxy.faults_met() > faults,
            When::After => world.proxy.done_unheard() > unheard,
            When::Soon(_) => world.entries() > entries + point.entry,
        };
        let ended = loop {
            if is_there(self) {
                if let When::Soon(later) = point.when {
                    tokio::time::sleep(later).await;
                }
                break false;
            }
            if child.try_wait().expect("asked").is_some() {
                break true;
            }
            assert!(Instant::now() < until, "{point:?} is not reached, and it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let _ = child.kill();
        let output = child.wait_with_output().expect("ended");
        self.proxy.heal();
        (ended || output.status.code().is_some()).then_some(output)
    }

    /// As if the time had passed in which whoever vanished still has a lease.
    async fn leases_expire(&self) {
        for blob in self.control.list("lease/").await.expect("a list") {
            // One that is gone is gone.
            let _ = self.control.delete(&blob.name, &blob.etag).await;
        }
    }

    /// Killed there, and gone on with by the next machine. False if the point lies beyond the end.
    async fn crash(&mut self, begin: &[&str], command: &str, point: Point) -> bool {
        let output = self.kill_at(begin, point).await;
        if let Some(output) = &output {
            assert!(output.status.success(), "{point:?}: {}", text(output));
            return false;
        }
        self.leases_expire().await;
        let is_open = self.lab.status()["operation"]["open"] == true;
        let resume = [command, "--resume", "--accept", "still-at-work=its process was killed"];
        // Killed after its last entry, or before its first.
        let is_there = self.is_there(command);
        if is_open || !is_there {
            let args = if is_open { &resume[..] } else { begin };
            let mut next = self.spawn(args);
            let until = Instant::now() + PATIENCE;
            while next.try_wait().expect("asked").is_none() {
                assert!(
                    Instant::now() < until,
                    "{point:?}: the next machine does not come to an end"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let output = next.wait_with_output().expect("ended");
            assert!(output.status.success(), "{point:?}, open {is_open}: {}", text(&output));
        }
        assert!(self.is_there(command), "{point:?}: {}", self.lab.status());
        true
    }

    /// Whether it ended where it was to.
    fn is_there(&self, command: &str) -> bool {
        let status = self.lab.status();
        let site = if command == "failover" { "standby" } else { "primary" };
        status["standing"]["serving"] == site && status["operation"]["open"] == false && self.lab.traffic() == site
    }

    fn assert_over_there(&self, point: Point) {
        let status = self.lab.status();
        assert_eq!(status["standing"]["epoch"], 1, "{point:?}: {status}");
        assert_eq!(status["standing"]["pending_fences"], serde_json::json!([]), "{point:?}");
        assert_eq!(self.lab.made(), 1, "{point:?}: Terraform made it once");
        let same = |server: &Server| {
            server.sql("SELECT * FROM bank.accounts; SELECT * FROM bank.log; CHECKSUM TABLE bank.accounts, bank.log")
        };
        assert_eq!(same(&self.lab.primary), same(&self.lab.standby), "{point:?}");
        assert!(
            self.lab.app(&self.lab.primary, "SELECT 1").is_err(),
            "{point:?}: fenced"
        );
        let write = "INSERT INTO bank.log (what) VALUES ('there')";
        self.lab
            .app(&self.lab.standby, write)
            .unwrap_or_else(|error| panic!("{point:?}: {error}"));
    }

    async fn assert_home(&self, point: Point) {
        let kept = self.backups.list("preserved/").await.expect("a list").into_iter();
        let kept: Vec<String> = kept
            .map(|blob| blob.name)
            .filter(|name| !name.contains("divergence"))
            .collect();
        assert_eq!(kept.len(), 1, "{point:?}: the old primary is kept once: {kept:?}");
        let status = self.lab.status();
        assert_eq!(
            (&status["standing"]["epoch"], &status["standing"]["stage"]),
            (&2.into(), &1.into()),
            "{point:?}: {status}"
        );
        assert_eq!(
            self.lab.primary.sql("SELECT what FROM bank.log").trim(),
            "there",
            "{point:?}"
        );
        let write = "INSERT INTO bank.log (what) VALUES ('home')";
        self.lab
            .app(&self.lab.primary, write)
            .unwrap_or_else(|error| panic!("{point:?}: {error}"));
        assert!(
            self.lab.app(&self.lab.standby, write).is_err(),
            "{point:?}: two sites take writes"
        );
        assert!(
            !self.lab.planb.path().join("is-up").exists(),
            "{point:?}: the cluster stands"
        );
    }
}

const FAILOVER: [&str; 8] = [
    "failover",
    "--stage",
    "3",
    "--yes",
    "--accept",
    "backup-unproven=t",
    "--accept",
    "primary-healthy=t",
];
const FAILBACK: [&str; 4] = ["failback", "--yes", "--accept", "confirm-soak=t"];

/// There and back, killed at the same distance on both ways. False once that lies beyond both ends.
async fn there_and_back(point: Point) -> bool {
    let begun = Instant::now();
    let mut world = World::new().await;
    let there = world.crash(&FAILOVER, "failover", point).await;
    world.assert_over_there(point);
    let back = world.crash(&FAILBACK, "failback", point).await;
    world.assert_home(point).await;
    println!(
        "{point:?}: killed on the way there: {there}, back: {back}; {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    there || back
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_entry_the_next_machine_goes_on() {
    let seed = std::env::var("PLANB_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(rand::random);
    println!("PLANB_SEED={seed}");
    let mut random = Random(seed);
    if std::env::var("PLANB_CRASHES").is_ok_and(|which| which == "all") {
        let mut points = 0;
        for which in 0..3 {
            for entry in 0.. {
                let when = random.when(which);
                if !there_and_back(Point { entry, when }).await {
                    break;
                }
                points += 1;
            }
        }
        println!("{points} points on each way");
        return;
    }
    // Two entries for each step of the shorter way, and those that open, take up and end the operation.
    let steps = support::sites::PLAN.matches("[[failback_steps]]").count() as u64 - 1;
    let entry = random.below(2 * steps + 3) as usize;
    let which = random.below(3);
    let point = Point {
        entry,
        when: random.when(which),
    };
    let is_killed = there_and_back(point).await;
    // A moment after its last entries it may have ended by itself.
    assert!(
        is_killed || matches!(point.when, When::Soon(_)),
        "{point:?} lies beyond the end"
    );
}
