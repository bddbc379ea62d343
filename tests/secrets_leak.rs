//! Promise 12: secrets stay secret. Every command is run with secrets that can be recognised, in good times and bad, with
//! every log line there is; then they are searched for in all that was printed, logged, stored or shown to other users.

mod support;

#[path = "support/http_fault.rs"]
mod http_fault;

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_fault::{Fault, HttpFault, Rule};
use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::BlobStore as _;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use support::{Flavor, Planb, Server, azurite};
use url::Url;

/// With letters that every kind of escaping changes.
const PASSWORD: &str = "Geheim'\"\\ +/=%&Wort-7f3a";
const WRONG_PASSWORD: &str = "Falsch'\"\\ +/=%&Wort-91bc";
const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published key. Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const WRONG_KEY: &str = "d3Jvbmcta2V5LXRoYXQtaXMtcmVjb2duaXNhYmxlK3dyb25nLWtleS10aGF0LWlzLXJlY29nbmlzYWJsZQ==";

/// Every spelling in which a secret could show itself.
fn spellings(secret: &str) -> Vec<(&'static str, String)> {
    let percent = |keep: fn(u8) -> bool, upper: bool| {
        secret.bytes().fold(String::new(), |out, b| match (keep(b), upper) {
            (true, _) => out + &char::from(b).to_string(),
            (false, true) => out + &format!("%{b:02X}"),
            (false, false) => out + &format!("%{b:02x}"),
        })
    };
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let json = serde_json::to_string(secret).expect("text");
    let mut all = vec![
        ("plain", secret.to_owned()),
        (
            "percent-encoded",
            percent(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b), true),
        ),
        (
            "percent-encoded, small letters",
            percent(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b), false),
        ),
        (
            "percent-encoded as in a query",
            percent(|b| b.is_ascii_alphanumeric() || b"-._~/+'".contains(&b), true),
        ),
        (
            "percent-encoded as in a form",
            url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        ),
        ("as JSON", json.trim_matches('"').to_owned()),
        (
            "as JSON in JSON",
            serde_json::to_string(json.trim_matches('"'))
                .expect("text")
                .trim_matches('"')
                .to_owned(),
        ),
        ("as SQL", secret.replace('\\', "\\\\").replace('\'', "''")),
        ("as Rust's Debug", format!("{secret:?}").trim_matches('"').to_owned()),
        (
            "as a list of bytes",
            format!("{:?}", secret.as_bytes()).trim_matches(['[', ']']).to_owned(),
        ),
        ("hexadecimal", hex(secret)),
        ("hexadecimal, capitals", hex(secret).to_uppercase()),
    ];
    // As a part of something longer it stands at one of three places in a group; what touches its neighbours is cut off.
    for shift in 0..3 {
        let padded = [vec![b' '; shift], secret.as_bytes().to_vec()].concat();
        let whole = padded.len() / 3 * 3;
        let text = azure_core::base64::encode(&padded[..whole]);
        let text = text[if shift == 0 { 0 } else { 4 }..].to_owned();
        all.push(("base64 for URLs", text.replace('+', "-").replace('/', "_")));
        all.push(("base64", text));
    }
    all
}

fn find(secrets: &[String], place: &str, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for secret in secrets {
        for (spelling, needle) in spellings(secret) {
            if let Some(at) = bytes
                .windows(needle.len())
                .position(|window| window == needle.as_bytes())
            {
                let around = &bytes[at.saturating_sub(200)..(at + 40).min(bytes.len())];
                found.push(format!(
                    "{place}: {:.6}… {spelling}: {}",
                    secret,
                    String::from_utf8_lossy(around)
                ));
            }
        }
    }
    found
}

#[test]
fn the_search_finds_what_is_there() {
    let secrets = [PASSWORD.to_owned()];
    for (spelling, text) in spellings(PASSWORD) {
        assert!(
            !find(&secrets, "", format!("before{text}after").as_bytes()).is_empty(),
            "{spelling}"
        );
    }
    for user in ["", "u", "us", "use"] {
        let header = azure_core::base64::encode(format!("{user}:{PASSWORD}:more"));
        assert!(!find(&secrets, "", header.as_bytes()).is_empty(), "{user:?}: {header}");
    }
    assert_eq!(find(&secrets, "", b"nothing of the kind"), Vec::<String>::new());
}

/// Looks at every process's arguments until told to stop.
fn watch_arguments(stop: Arc<AtomicBool>) -> std::thread::JoinHandle<BTreeSet<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::SeqCst) {
            for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
                if entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()) {
                    // A process may have ended meanwhile.
                    seen.extend(std::fs::read(entry.path().join("cmdline")).ok());
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        seen
    })
}

/// An account SAS. Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn account_sas() -> (String, String) {
    let (version, expiry, permissions) = ("2021-12-02", "2099-01-01T00:00:00Z", "rwdlactf");
    let to_sign = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{expiry}\n\nhttps,http\n{version}\n\n");
    let signature = azure_core::hmac::hmac_sha256(&to_sign, &azure_core::credentials::Secret::new(KEY)).expect("a key");
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("sv", version),
            ("ss", "b"),
            ("srt", "sco"),
            ("sp", permissions),
            ("se", expiry),
        ])
        .append_pair("spr", "https,http")
        .append_pair("sig", &signature)
        .finish();
    (query, signature)
}

struct World {
    planb: Planb,
    secrets: Vec<String>,
    found: Vec<String>,
    ran: usize,
    logged_bytes: usize,
}

impl World {
    /// Runs every command, with all the logs there are; what they print must hold no secret.
    fn run_all(&mut self, good: bool, what: &str) {
        for args in [
            &["backup", "--verify-source"][..],
            &["--json", "backup"],
            &["backups"],
            &["--json", "status"],
            &["doctor"],
            &["prune", "--dry-run"],
            &["config", "check"],
        ] {
            let output = self
                .planb
                .command(args)
                .env("RUST_LOG", "trace")
                .output()
                .expect("planb runs");
            let place = format!("{what}: planb {args:?}");
            if good {
                assert!(output.status.success(), "{place}: {}", support::planb::text(&output));
            }
            assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{place}");
            self.found
                .extend(find(&self.secrets, &format!("{place}: stdout"), &output.stdout));
            self.found
                .extend(find(&self.secrets, &format!("{place}: stderr"), &output.stderr));
            self.ran += 1;
            self.logged_bytes += output.stderr.len();
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.planb.env.push((name.to_owned(), value.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_printed_logged_stored_or_shown() {
    let stop = Arc::new(AtomicBool::new(false));
    let arguments = watch_arguments(Arc::clone(&stop));
    let source = Server::start(Flavor::MySql, &[]);
    source.sql(
        "CREATE DATABASE bank; CREATE TABLE bank.t (id INT PRIMARY KEY); INSERT INTO bank.t VALUES (1);
         CREATE USER leak@'%' IDENTIFIED BY 'Geheim''\"\\\\ +/=%&Wort-7f3a';
         GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, PROCESS, REPLICATION CLIENT ON *.* TO leak@'%';",
    );
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let container = format!("leak-{:016x}", rand::random::<u64>());
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    let containers = [container.clone(), format!("{container}-control")]
        .map(|name| AzureStore::open(ACCOUNT, &name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a name"));
    for container in &containers {
        container.create_container().await.expect("a container");
    }
    let upstream = format!(
        "{}:{}",
        endpoint.host_str().expect("a host"),
        endpoint.port().expect("a port")
    );
    let proxy = HttpFault::start(upstream.parse().expect("an address"), []).await;
    let (sas, signature) = account_sas();

    let planb = Planb::new(&source, "leak");
    let secrets = [PASSWORD, WRONG_PASSWORD, KEY, WRONG_KEY, &signature]
        .map(str::to_owned)
        .to_vec();
    let mut world = World {
        planb,
        secrets,
        found: Vec::new(),
        ran: 0,
        logged_bytes: 0,
    };
    world.set("PLANB_SOURCE_PASSWORD", PASSWORD);
    world.set("PLANB_KEY", KEY);
    world.set("PLANB_SAS", &format!("?{sas}"));

    let world = tokio::task::spawn_blocking(move || {
        let directory = format!("url = \"file://{}\"", world.planb.store().display());
        world.run_all(true, "directory");
        let azure = |auth: &str| {
            format!(
                "url = \"azblob://{ACCOUNT}/{container}\"\n{auth}\nendpoint = \"http://{}/{ACCOUNT}\"",
                proxy.address()
            )
        };
        let key = azure("auth = \"account-key\"\naccount_key = \"env:PLANB_KEY\"");
        world.planb.reconfigure(&directory, &key);
        world.run_all(true, "account key");
        world.set("PLANB_SOURCE_PASSWORD", WRONG_PASSWORD);
        world.run_all(false, "wrong password");
        world.set("PLANB_SOURCE_PASSWORD", PASSWORD);
        world.planb.reconfigure(&format!("port = {}", source.port), "port = 1");
        world.planb.configure("[backup]\nstall = \"5s\"\ntimeout = \"1m\"");
        // An unreachable source is tried again until the time is over: stopped before.
        let child = world
            .planb
            .command(&["backup"])
            .env("RUST_LOG", "trace")
            .stderr(std::process::Stdio::piped())
            .spawn();
        let mut child = child.expect("planb runs");
        let mut said = Vec::new();
        let mut stderr = child.stderr.take().expect("piped");
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&said).contains("attempt failed") {
            let read = stderr.read(&mut chunk).expect("its stderr");
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&chunk[..read]);
        }
        child.kill().expect("killed");
        child.wait().expect("ended");
        let found = find(&world.secrets, "unreachable source", &said);
        world.found.extend(found);
        world
            .planb
            .reconfigure("port = 1\n", &format!("port = {}\n", source.port));
        world.set("PLANB_KEY", WRONG_KEY);
        world.run_all(false, "wrong key");
        world.set("PLANB_KEY", &format!("{KEY} is no base64"));
        world.run_all(false, "broken key");

        let shared = azure("auth = \"sas\"\nsas = \"env:PLANB_SAS\"");
        world.planb.reconfigure(&key, &shared);
        // The killed run's lease stands for up to a minute more: backups may be refused here.
        world.run_all(false, "SAS");
        for fault in [
            Fault::Status(503),
            Fault::Reset,
            Fault::CutAnswer(40),
            Fault::SwallowAnswer,
        ] {
            proxy.add(Rule::new(&["HTTP/1.1"], fault.clone(), 2));
            world.run_all(false, &format!("SAS, {fault:?}"));
        }
        world.set("PLANB_SAS", &sas.replace("sp=rwdlactf", "sp=r"));
        world.run_all(false, "SAS of another's signature");

        // Secrets where none belong.
        world.planb.reconfigure("\"env:PLANB_SAS\"", &format!("\"{sas}\""));
        world.run_all(false, "SAS in the configuration");
        world.planb.reconfigure(
            "\"env:PLANB_SOURCE_PASSWORD\"",
            &serde_json::to_string(PASSWORD).expect("text"),
        );
        world.run_all(false, "password in the configuration");
        world
    });
    let mut world = world.await.expect("no panic");
    stop.store(true, Ordering::SeqCst);
    let arguments = arguments.join().expect("no panic");
    assert!(
        arguments
            .iter()
            .any(|line| line.windows(13).any(|w| w == b"verify-source")),
        "planb was not seen"
    );
    for line in arguments {
        let found = find(&world.secrets, "arguments of a process", &line);
        world.found.extend(found);
    }
    let mut blobs = 0;
    for container in &containers {
        for blob in container.list("").await.expect("a list") {
            let bytes = container
                .read(&blob.name, 0..blob.size_bytes, None)
                .await
                .expect("a blob");
            let metadata = format!("{:?}", blob.metadata);
            world
                .found
                .extend(find(&world.secrets, &blob.name, metadata.as_bytes()));
            world.found.extend(search_file(&world.secrets, &blob.name, &bytes));
            blobs += 1;
        }
    }
    for (name, bytes) in files(&world.planb.store()) {
        world.found.extend(search_file(&world.secrets, &name, &bytes));
        blobs += 1;
    }
    println!(
        "{} commands, {} KiB of logs, {blobs} blobs and files",
        world.ran,
        world.logged_bytes >> 10
    );
    assert!(
        blobs > 6 && world.logged_bytes > 100_000,
        "{blobs} blobs, {} bytes of logs",
        world.logged_bytes
    );
    assert!(world.found.is_empty(), "{}", world.found.join("\n\n"));
}

/// As it is, and unpacked.
fn search_file(secrets: &[String], name: &str, bytes: &[u8]) -> Vec<String> {
    let mut found = find(secrets, name, bytes);
    if name.ends_with(".gz") {
        let mut text = Vec::new();
        flate2::read::MultiGzDecoder::new(bytes)
            .read_to_end(&mut text)
            .expect("a gzip file");
        found.extend(find(secrets, &format!("{name}, unpacked"), &text));
    }
    found
}

fn files(dir: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
        if entry.path().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push((
                entry.path().display().to_string(),
                std::fs::read(entry.path()).expect("a file"),
            ));
        }
    }
    all
}
