//! The status page in a real browser, while a failover runs: what a person sees, without a script, without anything from elsewhere.

#[path = "support/browser.rs"]
mod browser;
mod daemon;
mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use browser::Browser;
use daemon::Daemon;
use serde_json::json;
use support::{Flavor, Planb, Server, reader};

/// Other tests share these two cores.
const SOON: Duration = Duration::from_secs(60);
const LARGEST_PAGE_BYTES: u64 = 200_000;

/// A service whose name would be markup if it could, and a plan whose steps each wait for a file.
fn planb(at: std::net::SocketAddr) -> Planb {
    let server = Server::shared(Flavor::MySql);
    let schema = support::unique_schema("page");
    server.sql(&format!(
        "CREATE DATABASE {schema}; CREATE TABLE {schema}.t (id INT PRIMARY KEY); INSERT INTO {schema}.t VALUES (1), (2);"
    ));
    let planb = Planb::new(&server, &reader(&server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    let gate = |name: &str| planb.path().join(name).display().to_string();
    let step = |name: &str, stage: u8, needs: &str| {
        format!(
            "[[failover_steps]]\nname = \"{name}\"\nstage = {stage}\nkind = \"command\"\nprogram = \"/bin/sh\"\n\
             args = [\"-c\", \"until [ -e {} ]; do sleep 0.1; done\"]\nneeds = [{needs}]\n",
            gate(name)
        )
    };
    let wrong = "[[failover_steps]]\nname = \"wrong\"\nstage = 1\nkind = \"command\"\nprogram = \"/bin/sh\"\n\
                 args = [\"-c\", \"echo '<b>not & bold</b>' >&2; exit 1\"]\nneeds = [\"identities\"]\n";
    let watch = format!(
        "[watch]\nname = \"seoul\"\nprimary_region = \"seoul\"\nevery = \"1s\"\nstale_after = \"6s\"\nwatchers = [\
         {{ name = \"seoul\", region = \"seoul\" }}, {{ name = \"tokyo\", region = \"tokyo\" }}, {{ name = \"osaka\", region = \"osaka\" }}]\n\
         [[watch.probes]]\nname = \"port\"\nkind = \"tcp\"\nhost = \"127.0.0.1\"\nport = {}\n",
        server.port
    );
    planb.configure(&format!(
        "[targets]\nrpo = \"5m\"\n[backup]\nschedule = \"*/5 * * * * *\"\nverify_source = \"never\"\n[serve]\nlisten = \"{at}\"\n{watch}{}{}{wrong}",
        step("network", 1, ""),
        step("identities", 1, "\"network\""),
    ));
    // Of rehearsals, whose own test is another one: what they left in the store.
    rehearsed(&planb, "drill-20261001-040000", "met", "", 412.0);
    rehearsed(
        &planb,
        "drill-20261101-040000",
        "missed",
        "RTO 1103.0 s, target 900 s",
        1103.0,
    );
    planb
}

fn rehearsed(planb: &Planb, id: &str, result: &str, why: &str, rto: f64) {
    let at = format!("2026-{}-01T04:00:00Z", &id[10..12]);
    let report = json!({
        "v": 1, "id": id, "service": "bank", "stage": 3, "result": result, "why": why, "begun_at": at, "ended_at": at,
        "cleaned_at": at, "who": "schedule", "host": "seoul-1", "planb": "0.1.0", "seed": "7", "lost_at": at,
        "backup": {"id": "backup-20261101-035900", "blob": "b", "digest": "d", "consistent_at": at, "raw_bytes": 5_000_000_000_u64,
            "stored_bytes": 1_700_000_000_u64, "rows": 40_000_000},
        "rpo": {"seconds": 143.2, "target_seconds": 300.0}, "worst_loss_seconds": 290.0,
        "rto": {"seconds": rto, "target_seconds": 900.0}, "steps": [], "clean_up": [], "skipped": {}, "evidence": {},
        "journal_digest": "d", "journal_entries": 40,
        "forecast": {"raw_bytes": 5_000_000_000_u64, "seconds": 1_120.0, "target_seconds": 900.0, "breaks_at_bytes": 3_900_000_000_u64,
            "rehearsals": 2, "sizes": 2},
    });
    let folder = planb.store().join("control/drills/backups/reports");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join(format!("{id}.json")), report.to_string()).expect("a report");
}

/// With its test, whatever becomes of that.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failover(planb: &Planb, args: &[&str]) -> Child {
    let mut all = vec!["failover", "--stage", "1", "--yes"];
    all.extend(args);
    planb
        .command(&all)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("planb runs")
}

/// Waits until the page, which loads itself anew, says so.
fn reads(browser: &Browser, what: &str, says: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let text = browser.text();
        if says(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "the page never shows {what}:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// For a person who wants to look, with `PLANB_SCREENSHOTS=DIR`.
fn picture(browser: &Browser, name: &str) {
    let Some(dir) = std::env::var_os("PLANB_SCREENSHOTS") else {
        return;
    };
    let dir = Path::new(&dir);
    for (size, width, height, scale) in [("desktop", 1280, 900, 1), ("phone", 390, 844, 2)] {
        for scheme in ["light", "dark"] {
            browser.devtools(
                "Emulation.setDeviceMetricsOverride",
                &json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": size == "phone"}),
            );
            browser.devtools(
                "Emulation.setEmulatedMedia",
                &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
            );
            let file = dir.join(format!("{name}-{size}-{scheme}.png"));
            let encoded = file.with_extension("base64");
            std::fs::write(&encoded, browser.screenshot()).expect("written");
            let decoded = Command::new("base64").arg("-d").arg(&encoded).output().expect("base64");
            std::fs::write(file, decoded.stdout).expect("a picture");
            let _ = std::fs::remove_file(encoded);
        }
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", &json!({}));
}

#[test]
fn a_failover_is_seen_as_it_goes_and_the_page_asks_nobody_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("an address");
    drop(listener);
    let planb = planb(at);
    let mut agent = Daemon::start(&planb);
    agent.wait_log("status page, /metrics, /healthz and /readyz", 1, SOON);
    agent.wait_log("backup committed", 2, SOON);
    let _tokyo = Ended(
        planb
            .command(&["watch", "--name", "tokyo"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("planb runs"),
    );

    let browser = Browser::start();
    // The essentials need no script: with scripts off, everything below is the same.
    browser.devtools("Emulation.setScriptExecutionDisabled", &json!({"value": true}));
    browser.resize(1280, 900);
    browser.open(&format!("http://{at}/"));
    let rest = reads(&browser, "that the primary serves", |text| {
        text.contains("RPO met") && text.contains("primary serves")
    });
    for shown in [
        "Would be lost now",
        "target 5 min",
        "Worst case",
        "Newest backup",
        "stage 1, epoch 0",
        "network",
        "identities",
        // Rehearsals: the last one beside the RPO, those before it, and what they foretell.
        "Rehearsed RTO",
        "18 min 23 s",
        "missed 2026-11-01 04:00, stage 3",
        "met 2026-10-01 04:00, stage 3",
        "the target WILL BREAK",
    ] {
        assert!(rest.contains(shown), "{shown} is not in:\n{rest}");
    }
    // The verdict, and each watcher that it is made of.
    let watched = reads(&browser, "the verdict", |text| text.contains("primary healthy"));
    for shown in [
        "healthy: 2 of 3 watchers say so",
        "healthy seoul",
        "healthy tokyo",
        "no vote osaka",
        "it never wrote anything here",
    ] {
        assert!(watched.contains(shown), "{shown} is not in:\n{watched}");
    }
    picture(&browser, "rest");

    let mut running = failover(&planb, &["--accept", "primary-healthy=rehearsed"]);
    let begun = reads(&browser, "the first step", |text| {
        text.contains("planb failover --stage 1") && text.contains("▸")
    });
    assert!(
        begun.contains("0 of 3 steps done") && begun.contains("▸\nnetwork"),
        "{begun}"
    );
    picture(&browser, "begun");
    std::fs::write(planb.path().join("network"), "").expect("a file");
    let further = reads(&browser, "the second step", |text| {
        text.contains("1 of 3 steps done") && text.contains("▸\nidentities")
    });
    assert!(further.contains("✓\nnetwork"), "{further}");
    std::fs::write(planb.path().join("identities"), "").expect("a file");
    let failed = reads(&browser, "the failure", |text| text.contains("✗\nwrong"));
    assert!(
        failed.contains("<b>not & bold</b>"),
        "what failed is shown as it was told, not as markup:\n{failed}"
    );
    assert!(failed.contains("--resume") && failed.contains("--abandon"), "{failed}");
    picture(&browser, "failed");
    assert_eq!(running.wait().expect("an end").code(), Some(4));

    // It weighs little, comes from here alone, and breaks no rule of its own.
    let mut bytes = 0;
    for entry in browser.log("performance") {
        let message: serde_json::Value = serde_json::from_str(entry["message"].as_str().expect("text")).expect("JSON");
        let (method, params) = (&message["message"]["method"], &message["message"]["params"]);
        if method == "Network.requestWillBeSent" {
            let url = params["request"]["url"].as_str().expect("a URL");
            assert!(
                url == format!("http://{at}/") || url.starts_with("data:") || url.starts_with("chrome:"),
                "it asks for {url}"
            );
        }
        if method == "Network.loadingFinished" {
            bytes = bytes.max(params["encodedDataLength"].as_f64().map_or(0, |length| length as u64));
        }
    }
    assert!((2_000..LARGEST_PAGE_BYTES).contains(&bytes), "{bytes} bytes");
    println!("the page weighs {bytes} bytes at most");
    let complaints = browser.log("browser");
    assert!(complaints.is_empty(), "{complaints:?}");
    drop(browser);
    agent.stop().assert_clean(Duration::from_secs(12));
}
