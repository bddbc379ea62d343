//! Images copied by digest between real registries, and from one that lies, cuts off and wants a login; quotas asked of an Azure
//! Resource Manager that misbehaves.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use planb::config::Quota;
use planb::prepare::copy::{Copied, Side, copy};
use planb::prepare::quota::{QuotaError, lacks, supply};
use planb::prepare::registry::{Login, Registry as Client, RegistryError};
use planb::secret::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::Registry;

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image for one platform, and the index over it, as bytes by digest.
struct Image {
    blobs: BTreeMap<String, Vec<u8>>,
    manifests: Vec<(String, &'static str, Vec<u8>)>,
    index: String,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The second layer is larger than what is sent at once.
fn image() -> Image {
    let layers = [
        b"a small layer".to_vec(),
        (0..19_000_000_u32).map(|n| (n % 251) as u8).collect(),
    ];
    let config = br#"{"architecture":"amd64","os":"linux"}"#.to_vec();
    let describe =
        |bytes: &[u8]| json!({"mediaType": "application/octet-stream", "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": describe(&config),
        "layers": [describe(&layers[0]), describe(&layers[1])],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"mediaType": MANIFEST, "digest": digest(&manifest), "size": manifest.len(), "platform": {"os": "linux", "architecture": "amd64"}}]});
    let index = index.to_string().into_bytes();
    let [small, large] = layers;
    Image {
        index: digest(&index),
        blobs: [small, large, config]
            .into_iter()
            .map(|bytes| (digest(&bytes), bytes))
            .collect(),
        manifests: vec![(digest(&manifest), MANIFEST, manifest), (digest(&index), INDEX, index)],
    }
}

/// Puts an image there without the code under test.
async fn push(host: &str, repository: &str, image: &Image) {
    let http = reqwest::Client::new();
    let base = format!("http://{host}/v2/{repository}");
    for (digest, bytes) in &image.blobs {
        let begun = http
            .post(format!("{base}/blobs/uploads/"))
            .send()
            .await
            .expect("an answer");
        let at = begun.headers()["location"].to_str().expect("a place").to_owned();
        let done = http
            .put(format!("{at}&digest={digest}"))
            .body(bytes.clone())
            .send()
            .await;
        assert_eq!(done.expect("an answer").status(), 201);
    }
    for (digest, kind, bytes) in &image.manifests {
        let put = http.put(format!("{base}/manifests/{digest}"));
        let put = put.header("content-type", *kind).body(bytes.clone()).send().await;
        assert_eq!(put.expect("an answer").status(), 201);
    }
}

async fn pull_blob(host: &str, repository: &str, digest: &str) -> Vec<u8> {
    let url = format!("http://{host}/v2/{repository}/blobs/{digest}");
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.bytes().await.expect("its bytes").to_vec()
}

fn open(host: &str, login: Login) -> Client {
    Client::new(host, login).expect("a registry")
}

fn side<'a>(registry: &'a Client, repository: &'a str) -> Side<'a> {
    Side { registry, repository }
}

fn silent(_: &str) {}

#[tokio::test]
async fn an_image_is_brought_whole_and_once() {
    let (production, standby) = (Registry::start(), Registry::start());
    let image = image();
    push(&production.host(), "team/app", &image).await;
    let (from, to) = (
        open(&production.host(), Login::Anonymous),
        open(&standby.host(), Login::Anonymous),
    );
    assert!(!to.has_manifest("was/app", &image.index).await.expect("an answer"));
    let bring = async || copy(side(&from, "team/app"), side(&to, "was/app"), &image.index, &silent).await;
    assert_eq!(bring().await.expect("copied"), Copied { manifests: 2, blobs: 3 });
    assert!(to.has_manifest("was/app", &image.index).await.expect("an answer"));
    for (digest, bytes) in &image.blobs {
        assert!(
            pull_blob(&standby.host(), "was/app", digest).await == *bytes,
            "{digest}"
        );
    }
    assert_eq!(bring().await.expect("there"), Copied::default());
    // Within one registry nothing is sent at all.
    let mounted = copy(side(&to, "was/app"), side(&to, "other/app"), &image.index, &silent).await;
    assert_eq!(mounted.expect("mounted"), Copied { manifests: 2, blobs: 3 });
    let missing = copy(side(&from, "team/none"), side(&to, "x"), &image.index, &silent).await;
    assert!(matches!(missing, Err(RegistryError::Missing { .. })), "{missing:?}");
}

/// One request: method, target, headers in lower case.
struct Asked {
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Only this much of the body comes; then the connection ends.
    cut_at: Option<usize>,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut_at: None,
        }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// An HTTP server on loopback whose answers a test gives; ends when dropped.
struct Fake {
    host: String,
    log: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
}

impl Fake {
    fn start(answer: impl Fn(&Asked, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let (log, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (its_log, its_end, its_host) = (Arc::clone(&log), Arc::clone(&ended), host.clone());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if its_end.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, log, host) = (Arc::clone(&answer), Arc::clone(&its_log), its_host.clone());
                std::thread::spawn(move || serve(stream, &*answer, &log, &host));
            }
        });
        Self { host, log, ended }
    }

    fn asked(&self) -> Vec<String> {
        self.log.lock().expect("the log").clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.host);
    }
}

fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&Asked, &str) -> Answer,
    log: &Mutex<Vec<String>>,
    host: &str,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    log.lock().expect("the log").push(format!("{method} {target}"));
    let is_head = method == "HEAD";
    let answer = answer(
        &Asked {
            method,
            target,
            headers,
            body,
        },
        host,
    );
    let mut head = format!(
        "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes()).ok()?;
    if !is_head {
        stream
            .write_all(&answer.body[..answer.cut_at.unwrap_or(answer.body.len())])
            .ok()?;
    }
    Some(())
}

/// A registry that has the image and gives it as `twist` says.
fn liar(image: Image, twist: impl Fn(&str, u32, Answer) -> Answer + Send + Sync + 'static) -> Fake {
    let times: Mutex<BTreeMap<String, u32>> = Mutex::default();
    Fake::start(move |asked, _| {
        let name = asked.target.rsplit('/').next().unwrap_or_default().to_owned();
        let found = image.blobs.get(&name).map(|bytes| Answer::new(200, bytes.clone()));
        let manifest = image.manifests.iter().find(|(digest, ..)| *digest == name);
        let found = found
            .or_else(|| manifest.map(|(_, kind, bytes)| Answer::new(200, bytes.clone()).with("Content-Type", *kind)));
        let mut times = times.lock().expect("the count");
        let time = times.entry(name.clone()).or_default();
        *time += 1;
        found.map_or_else(|| Answer::new(404, "{}"), |answer| twist(&name, *time, answer))
    })
}

#[tokio::test]
async fn what_comes_damaged_is_never_published_and_what_is_cut_off_is_begun_again() {
    let standby = Registry::start();
    let to = open(&standby.host(), Login::Anonymous);
    let altered = liar(image(), |_, _, mut answer| {
        if answer.body.len() > 1_000_000 {
            answer.body[12_345] ^= 1;
        }
        answer
    });
    let index = image().index;
    let from = open(&altered.host, Login::Anonymous);
    let refused = copy(side(&from, "app"), side(&to, "a"), &index, &silent).await;
    assert!(matches!(&refused, Err(RegistryError::Different { .. })), "{refused:?}");
    assert!(!to.has_manifest("a", &index).await.expect("an answer"));
    let large = image()
        .blobs
        .into_iter()
        .find(|(_, bytes)| bytes.len() > 1_000_000)
        .expect("one")
        .0;
    let tries = altered.asked().iter().filter(|line| line.contains(&large)).count();
    assert_eq!(tries, 3, "tried again, and not for ever");

    let cut = liar(image(), |_, time, mut answer| {
        if answer.body.len() > 1_000_000 && time < 3 {
            answer.cut_at = Some(10_000_000);
        }
        answer
    });
    let from = open(&cut.host, Login::Anonymous);
    let copied = copy(side(&from, "app"), side(&to, "b"), &index, &silent).await;
    assert_eq!(copied.expect("whole at last").manifests, 2);

    let manifest = liar(image(), |_, _, mut answer| {
        if answer.body.starts_with(b"{\"manifests")
            || answer
                .body
                .starts_with(b"{\"mediaType\":\"application/vnd.oci.image.index")
        {
            answer.body.push(b' ');
        }
        answer
    });
    let from = open(&manifest.host, Login::Anonymous);
    let refused = copy(side(&from, "app"), side(&to, "c"), &index, &silent).await;
    assert!(matches!(&refused, Err(RegistryError::Different { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_login_is_made_where_one_is_asked_for_and_told_nowhere() {
    const PASSWORD: &str = "s3cret-pull";
    let image = image();
    let index = image.index.clone();
    let locked = Fake::start(move |asked, host| {
        let sent = asked.headers.get("authorization").cloned().unwrap_or_default();
        if asked.target.starts_with("/token?") {
            assert!(
                asked.target.contains("scope=repository%3Aapp%3Apull"),
                "{}",
                asked.target
            );
            // pull:s3cret-pull
            return match sent.as_str() {
                "Basic cHVsbDpzM2NyZXQtcHVsbA==" => Answer::new(200, json!({"token": "t0ken"}).to_string()),
                _ => Answer::new(401, "{}"),
            };
        }
        if asked.target.starts_with("/oauth2/exchange") {
            let body = String::from_utf8_lossy(&asked.body);
            assert!(
                asked.method == "POST" && body.contains("access_token=entra-t0ken"),
                "{body}"
            );
            return Answer::new(200, json!({"refresh_token": "r3fresh"}).to_string());
        }
        if asked.target == "/token" {
            let body = String::from_utf8_lossy(&asked.body);
            assert!(
                body.contains("grant_type=refresh_token") && body.contains("refresh_token=r3fresh"),
                "{body}"
            );
            return Answer::new(200, json!({"access_token": "t0ken"}).to_string());
        }
        match sent.as_str() {
            "Bearer t0ken" => Answer::new(200, ""),
            _ => Answer::new(401, "{}").with(
                "WWW-Authenticate",
                format!("Bearer realm=\"http://{host}/token\",service=\"{host}\",scope=\"x\""),
            ),
        }
    });
    let password = |text: &str| Login::Password {
        user: "pull".to_owned(),
        password: Secret::new(text),
    };
    for login in [password(PASSWORD), Login::Entra(Secret::new("entra-t0ken"))] {
        let client = open(&locked.host, login);
        assert!(client.has_manifest("app", &index).await.expect("let in"));
    }
    let logins = locked.asked().iter().filter(|line| line.contains("/token?")).count();
    assert_eq!(logins, 1);
    for wrong in [password("wr0ng-one"), Login::Anonymous] {
        let refused = open(&locked.host, wrong).has_manifest("app", &index).await;
        let Err(denied @ RegistryError::Denied { .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            denied.is_permanent() && !denied.to_string().contains("wr0ng-one"),
            "{denied}"
        );
    }
    // A token is never sent to a realm that could be listened to.
    let plain = Fake::start(|_, _| {
        Answer::new(401, "{}").with(
            "WWW-Authenticate",
            "Bearer realm=\"http://listener.example/token\",service=\"x\"",
        )
    });
    let refused = open(&plain.host, password(PASSWORD)).has_manifest("app", &index).await;
    assert!(matches!(refused, Err(RegistryError::Denied { .. })), "{refused:?}");
}

fn wanted(host: &str) -> Quota {
    Quota {
        subscription: "sub".to_owned(),
        location: "koreacentral".to_owned(),
        compute: vec![("cores".to_owned(), 12), ("standardBSFamily".to_owned(), 8)],
        network: vec![("PublicIPAddresses".to_owned(), 2)],
        database_skus: vec!["Standard_B2s".to_owned(), "Standard_B1ms".to_owned()],
        endpoint: format!("http://{host}").parse().expect("an address"),
    }
}

fn usage(name: &str, used: u64, limit: u64) -> Value {
    json!({"name": {"value": name}, "currentValue": used, "limit": limit, "unit": "Count"})
}

#[tokio::test]
async fn quotas_are_read_over_pages_and_lacks_are_named() {
    let cloud = Fake::start(|asked, host| {
        assert_eq!(asked.headers["authorization"], "Bearer arm-t0ken");
        assert_eq!(asked.method, "GET", "it only reads");
        let target = asked.target.as_str();
        let body = if target.contains("Microsoft.DBforMySQL") {
            json!({"value": [{"zone": "1", "supportedFlexibleServerEditions": [{"name": "Burstable", "supportedServerVersions":
                [{"name": "8.0.21", "supportedSkus": [{"name": "Standard_B1ms"}]}]}]}]})
        } else if target.contains("Microsoft.Network/locations/koreacentral/usages") {
            json!({"value": [usage("publicIpAddresses", 9, 10), {"name": {"value": "Endless"}, "currentValue": 1, "limit": -1}]})
        } else if target.contains("page=2") {
            json!({"value": [usage("standardBSFamily", 4, 10)]})
        } else {
            json!({"value": [usage("cores", 4, 20)], "nextLink": format!("http://{host}{target}&page=2")})
        };
        Answer::new(200, body.to_string())
    });
    let token = Secret::new("arm-t0ken");
    let mut wanted = wanted(&cloud.host);
    let found = supply(&wanted, &token).await.expect("an answer");
    let told = lacks(&wanted, &found);
    assert_eq!(
        told,
        [
            "standardBSFamily: 4 of 10 are in use in koreacentral, and a recovery takes 8",
            "PublicIPAddresses: 9 of 10 are in use in koreacentral, and a recovery takes 2"
        ]
    );
    wanted.database_skus = vec!["Standard_D4ds_v4".to_owned()];
    wanted.compute = vec![("lowPriorityCores".to_owned(), 1)];
    wanted.network = vec![("Endless".to_owned(), 1_000_000)];
    let told = lacks(&wanted, &found);
    assert!(
        told.len() == 2 && told[0].contains("no such quota") && told[1].contains("Standard_D4ds_v4"),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_azure_that_misbehaves_gets_no_token_and_no_belief() {
    type Twist = fn(&str) -> Answer;
    type Expected = fn(&QuotaError) -> bool;
    let token = Secret::new("arm-t0ken");
    let strange: [(Twist, Expected); 7] = [
        (
            |_| Answer::new(403, "{}"),
            |e| matches!(e, QuotaError::Denied { status: 403, .. }),
        ),
        (
            |_| Answer::new(429, r#"{"error":{"code":"TooManyRequests"}}"#),
            |e| matches!(e, QuotaError::Answered { status: 429, .. }) && !e.is_permanent(),
        ),
        (|_| Answer::new(200, "<html>"), |e| matches!(e, QuotaError::Strange(_))),
        (
            |_| Answer::new(200, r#"{"value":[{"name":{}}]}"#),
            |e| matches!(e, QuotaError::Strange(_)),
        ),
        // Another host.
        (
            |_| Answer::new(200, r#"{"value":[],"nextLink":"http://127.0.0.1:1/steal"}"#),
            |e| matches!(e, QuotaError::Strange(_)),
        ),
        // For ever.
        (
            |host| {
                Answer::new(
                    200,
                    json!({"value": [], "nextLink": format!("http://{host}/again")}).to_string(),
                )
            },
            |e| matches!(e, QuotaError::Strange(_)),
        ),
        (
            |_| Answer {
                cut_at: Some(5),
                ..Answer::new(200, r#"{"value":[]}"#)
            },
            |e| matches!(e, QuotaError::Unreachable(_)),
        ),
    ];
    for (twist, is_expected) in strange {
        let cloud = Fake::start(move |_, host| twist(host));
        let error = supply(&wanted(&cloud.host), &token)
            .await
            .expect_err("nothing to believe");
        assert!(is_expected(&error), "{error:?}");
        assert!(!error.to_string().contains("arm-t0ken"), "{error}");
        assert!(cloud.asked().len() <= 20, "it ends");
    }
}
