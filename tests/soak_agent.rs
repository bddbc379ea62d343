//! The agent's memory over many scheduled runs, for `scripts/soak-agent`: real dumps into an emulated Azure, every channel and exporter on.
//! Without `PLANB_SOAK_RUNS` only a few, to see that it works and stays under its bound; whether it grows is told by hundreds alone.

mod daemon;
mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use daemon::Daemon;
use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use support::mail::MailServer;
use support::receiver::{Manner, Receiver};
use support::{Flavor, Planb, Server, azurite, reader, unique_schema};
use url::Url;

/// What the agent may take, while no large dump runs.
const MOST_MIB: f64 = 128.0;
/// Until so many runs, caches fill.
const WARM_AFTER: usize = 200;
/// What a thousand runs may add. A leak of 2 KiB a run is twice that.
const GROWTH_MIB: f64 = 1.0;
/// Runs between a change of what is to be told, which is a reload too.
const CHANGE_EVERY: usize = 20;
/// Runs between two prunings by hand: the agent's own come hourly.
const PRUNE_EVERY: usize = 60;
const ROW_EVERY: usize = 50;
/// Runs of which the smallest figure counts.
const STRETCH: usize = 40;
/// A run that takes longer is stuck.
const RUN_WITHIN: Duration = Duration::from_secs(120);

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const MAIL_PASSWORD: &str = "M4il-geheim-3";

/// After one run.
#[derive(Debug, Clone, Copy)]
struct Sample {
    run: f64,
    resident_mib: f64,
    /// Of that, what is not a mapped file: the program's own pages come in as it goes ways that it has not gone before.
    anonymous_mib: f64,
    backups: f64,
}

fn get(at: SocketAddr, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(at).ok()?;
    connection.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {at}\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn value(metrics: &str, series: &str) -> Option<f64> {
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    line.parse().ok()
}

/// The slope of a line through them, by least squares.
fn per_run(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let mean_run = samples.iter().map(|sample| sample.run).sum::<f64>() / count;
    let mean = samples.iter().map(&of).sum::<f64>() / count;
    let rise: f64 = samples
        .iter()
        .map(|sample| (sample.run - mean_run) * (of(sample) - mean))
        .sum();
    let run: f64 = samples.iter().map(|sample| (sample.run - mean_run).powi(2)).sum();
    rise / run
}

async fn containers(name: &str) {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    for name in [name.to_owned(), format!("{name}-control")] {
        let store = AzureStore::open(ACCOUNT, &name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store");
        store.create_container().await.expect("a container");
    }
}

/// Everything that an agent can have on.
fn everything(
    server: &support::Endpoint,
    container: &str,
    at: SocketAddr,
    to: &[(&str, &str, &Receiver)],
    otlp: &Receiver,
) -> Planb {
    let schema = unique_schema("soak");
    server.sql(&format!(
        "CREATE DATABASE {schema}; CREATE TABLE {schema}.t (id INT PRIMARY KEY, text TEXT NOT NULL);
         SET SESSION cte_max_recursion_depth = 10000;
         INSERT INTO {schema}.t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
           SELECT i, REPEAT(SHA2(i, 256), 4) FROM n;"
    ));
    let mut planb = Planb::new(server, &reader(server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    planb.reconfigure(
        &format!("url = \"file://{}\"", planb.store().display()),
        &format!(
            "url = \"azblob://{ACCOUNT}/{container}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_TEST_KEY\"\n\
             endpoint = \"{}\"",
            azurite()
        ),
    );
    planb.env.push(("PLANB_TEST_KEY".into(), KEY.into()));
    planb.configure(&format!(
        "[targets]\nrpo = \"1d\"\n[backup]\nschedule = \"* * * * * *\"\nverify_source = \"never\"\n\
         [retention]\nkeep_all = \"60s\"\nkeep_hourly = \"0s\"\nkeep_days = 0\nkeep_at_least = 60\n\
         [verify]\nstructure = true\n\
         [serve]\nlisten = \"{at}\"\n\
         [watch]\nname = \"here\"\nwatchers = [{{ name = \"here\", region = \"local\" }}]\nprimary_region = \"local\"\n\
         every = \"5s\"\nstale_after = \"30s\"\n\
         [[watch.probes]]\nname = \"port\"\nkind = \"tcp\"\nhost = \"127.0.0.1\"\nport = {}\ninterval = \"5s\"\ntimeout = \"2s\"\n\
         [notify]\nstate = \"{}\"",
        server.port,
        planb.path().display()
    ));
    if cfg!(feature = "otlp") {
        let url = otlp.url("");
        planb.configure(&format!("[telemetry]\notlp = \"{url}\"\nstore_requests = true"));
    }
    for (name, kind, receiver) in to {
        let upper = name.to_uppercase();
        planb.env.push((format!("URL_{upper}"), receiver.url(name)));
        let address = if *kind == "pagerduty" {
            format!(
                "key = \"env:URL_{upper}\"\nendpoint = \"{}\"",
                receiver.url("v2/enqueue")
            )
        } else {
            format!("url = \"env:URL_{upper}\"\nseverity = \"info\"")
        };
        planb.configure(&format!(
            "[[notify.channels]]\nname = \"{name}\"\nkind = \"{kind}\"\n{address}\n"
        ));
    }
    planb
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_runs_leave_the_agent_as_small_as_it_was() {
    let runs = std::env::var("PLANB_SOAK_RUNS").map_or(12, |text| text.parse().expect("a number of runs"));
    let container = format!("soak-{:016x}", rand::random::<u64>());
    containers(&container).await;
    let server = Server::shared(Flavor::MySql);
    let (takes, hangs, fails, otlp) = (
        Receiver::start(Manner::Takes),
        Receiver::start(Manner::Hangs),
        Receiver::start(Manner::Answers(503, None)),
        Receiver::start(Manner::Takes),
    );
    let at = TcpListener::bind("127.0.0.1:0")
        .expect("a free port")
        .local_addr()
        .expect("an address");
    let channels = [
        ("slack", "slack", &takes),
        ("program", "webhook", &takes),
        ("pager", "pagerduty", &takes),
        ("hung", "slack", &hangs),
        ("down", "webhook", &fails),
    ];
    let mut planb = everything(&server, &container, at, &channels, &otlp);
    let mail = MailServer::start("starttls", MAIL_PASSWORD);
    planb.env.push(("MAIL_PASSWORD".into(), MAIL_PASSWORD.into()));
    planb.configure(&format!(
        "[[notify.channels]]\nname = \"mail\"\nkind = \"email\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"starttls\"\n\
         tls_ca = \"{}\"\nfrom = \"planb@bank.example\"\nto = [\"oncall@bank.example\"]\nuser = \"planb\"\n\
         password = \"env:MAIL_PASSWORD\"\nseverity = \"info\"\n",
        mail.port,
        mail.tls.ca.display()
    ));
    let mut agent = Daemon::start(&planb);
    agent.wait_log("status page, /metrics, /healthz and /readyz", 1, RUN_WITHIN);

    let begun = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    let mut is_tight = false;
    println!("   run   seconds  resident MiB  anonymous MiB  backups listed  told  hung  failed  batches of spans");
    while samples.len() < runs {
        let wanted = (samples.len() + 1) as f64;
        let metrics = agent.wait("one more run", RUN_WITHIN, |_| {
            let metrics = get(at, "/metrics")?;
            let done = value(&metrics, "planb_backup_runs_total{result=\"committed\"}")?;
            (done >= wanted).then_some(metrics)
        });
        let page = get(at, "/").expect("a page");
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        let [resident, anonymous] = agent
            .memory_parts_kib(["VmRSS", "RssAnon"])
            .map(|kib| kib as f64 / 1024.0);
        let run = samples.len() + 1;
        let sample = Sample {
            run: wanted,
            resident_mib: resident,
            anonymous_mib: anonymous,
            backups: value(&metrics, "planb_backups_good").unwrap_or_default(),
        };
        samples.push(sample);
        if run.is_multiple_of(ROW_EVERY) || run == runs {
            println!(
                "{run:>6} {:>9} {resident:>13.1} {anonymous:>14.2} {:>15} {:>5} {:>5} {:>7} {:>17}",
                begun.elapsed().as_secs(),
                sample.backups,
                takes.count(),
                hangs.count(),
                fails.count(),
                otlp.count()
            );
        }
        assert!(
            resident < MOST_MIB,
            "{resident:.1} MiB resident after {run} runs\n{}",
            agent.heard().told()
        );
        if run.is_multiple_of(CHANGE_EVERY) || run == runs / 2 {
            // Now the RPO cannot be met, and now it can: raised and resolved on every channel, by a reload.
            let (from, to) = if is_tight { ("1s", "1d") } else { ("1d", "1s") };
            planb.reconfigure(&format!("rpo = \"{from}\""), &format!("rpo = \"{to}\""));
            is_tight = !is_tight;
            agent.signal("HUP");
        }
        if run.is_multiple_of(PRUNE_EVERY) {
            // Refused while the RPO is breached; then it is done the next time.
            drop(planb.run(&["prune", "--allow-many"]));
        }
    }
    takes.wait(&["rpo"]);
    mail.wait(&["RPO"]);
    if cfg!(feature = "otlp") {
        otlp.wait(&["commit"]);
    }
    agent.stop().assert_clean(Duration::from_secs(30));

    let mut told = String::new();
    let most = samples.iter().map(|sample| sample.resident_mib).fold(0.0, f64::max);
    let _ = writeln!(
        told,
        "most: {most:.1} MiB resident in {runs} runs; the bound is {MOST_MIB} MiB"
    );
    if runs >= 2 * WARM_AFTER {
        // What a run under way takes comes and goes: of each stretch, what it left at its best.
        let floors: Vec<Sample> = samples[WARM_AFTER..]
            .chunks_exact(STRETCH)
            .filter_map(|stretch| {
                stretch
                    .iter()
                    .min_by(|a, b| a.anonymous_mib.total_cmp(&b.anonymous_mib))
            })
            .copied()
            .collect();
        let growth = per_run(&floors, |sample| sample.anonymous_mib) * 1000.0;
        let (first, last) = (floors[0], floors[floors.len() - 1]);
        let _ = writeln!(
            told,
            "from run {WARM_AFTER} on, a line through the least of each {STRETCH} rises by {growth:.2} MiB in 1000 runs (bound: \
             {GROWTH_MIB}); it was {:.2} MiB anonymous at run {} and {:.2} at run {}",
            first.anonymous_mib, first.run, last.anonymous_mib, last.run
        );
        println!("{told}");
        assert!(growth < GROWTH_MIB, "it grows: {told}");
    } else {
        println!("{told}too few runs to tell whether it grows: scripts/soak-agent");
    }
}
