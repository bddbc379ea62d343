//! Azure over real HTTP, against Azurite: both ways of authentication, and what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use planb::clock::{Clock, FixedClock, SystemClock};
use planb::secret::Secret;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use planb::store::retrying::{RetryPolicy, Retrying};
use planb::store::{BlobStore, Condition, Metadata, StoreError};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::guarantees::{Store, bytes, metadata, upload, whole};
use crate::http_fault::{Fault, HttpFault, Rule};

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account and key, the same everywhere.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const RUN: &str = "0123456789abcdef";

fn endpoint() -> Url {
    let Ok(url) = std::env::var("PLANB_LAB_AZURITE") else {
        panic!("PLANB_LAB_AZURITE is not set: run scripts/test (it starts the emulator)");
    };
    Url::parse(&url).unwrap()
}

fn emulator() -> SocketAddr {
    let url = endpoint();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap())
        .parse()
        .unwrap()
}

fn through(proxy: &HttpFault) -> Url {
    let mut url = endpoint();
    url.set_port(Some(proxy.address().port())).unwrap();
    url
}

fn open(container: &str, endpoint: &Url, auth: &AzureCredentialInput) -> AzureStore {
    AzureStore::open(ACCOUNT, container, Some(endpoint), auth, Arc::new(SystemClock)).unwrap()
}

fn key_auth() -> AzureCredentialInput {
    AzureCredentialInput::AccountKey(Secret::new(KEY))
}

async fn fresh_container() -> String {
    let name = format!("planb-{:016x}", rand::random::<u64>());
    open(&name, &endpoint(), &key_auth()).create_container().await.unwrap();
    name
}

pub async fn account_key() -> (Store, ()) {
    (Arc::new(open(&fresh_container().await, &endpoint(), &key_auth())), ())
}

pub async fn sas() -> (Store, ()) {
    let auth = AzureCredentialInput::Sas(Secret::new(account_sas("rwdlact")));
    (Arc::new(open(&fresh_container().await, &endpoint(), &auth)), ())
}

/// An account SAS. Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn account_sas(permissions: &str) -> String {
    let (version, expiry) = ("2021-12-02", "2099-01-01T00:00:00Z");
    let to_sign = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{expiry}\n\nhttps,http\n{version}\n\n");
    let signature = azure_core::hmac::hmac_sha256(&to_sign, &azure_core::credentials::Secret::new(KEY)).unwrap();
    let mut query = url::form_urlencoded::Serializer::new(String::from("?"));
    for (name, value) in [
        ("sv", version),
        ("ss", "b"),
        ("srt", "sco"),
        ("sp", permissions),
        ("se", expiry),
    ] {
        query.append_pair(name, value);
    }
    query
        .append_pair("spr", "https,http")
        .append_pair("sig", &signature)
        .finish()
}

fn retrying(store: AzureStore) -> Store {
    let policy = RetryPolicy {
        first_delay: Duration::from_millis(5),
        longest_delay: Duration::from_millis(50),
        give_up_after: Duration::from_secs(20),
        try_timeout: Some(Duration::from_secs(2)),
    };
    Arc::new(Retrying::new(store, policy, 1, CancellationToken::new()))
}

async fn behind_proxy(rules: impl IntoIterator<Item = Rule>) -> (Store, HttpFault, AzureStore) {
    let container = fresh_container().await;
    let proxy = HttpFault::start(emulator(), rules).await;
    let store = open(&container, &through(&proxy), &key_auth());
    let direct = open(&container, &endpoint(), &key_auth());
    (retrying(store), proxy, direct)
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_success() {
    let lost = Rule::new(&["PUT ", "comp=blocklist"], Fault::SwallowAnswer, 1);
    let (store, proxy, _) = behind_proxy([lost]).await;
    let up = upload("b/x", RUN);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    let there = store.commit(&up, &[0], &metadata(&[("epoch", "4")])).await.unwrap();
    assert_eq!((there.size_bytes, there.metadata["epoch"].as_str()), (4, "4"));
    assert_eq!(proxy.requests("comp=blocklist").len(), 2, "it was asked twice");
    assert_eq!(whole(&store, "b/x").await, "data");
}

#[tokio::test]
async fn a_commit_lost_to_another_writer_is_a_refusal() {
    let lost = Rule::new(&["PUT ", "comp=blocklist"], Fault::Reset, 1);
    let (store, proxy, direct) = behind_proxy([lost]).await;
    let up = upload("b/x", RUN);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    // Somebody else's blob under the name also makes the service forget our blocks. (Not `Absent`: to the
    // emulator a name with staged blocks alone is taken.)
    direct.put("b/x", bytes("theirs"), Condition::Always).await.unwrap();
    let refused = store.commit(&up, &[0], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    assert_eq!(proxy.faults_met(), 1);
    assert_eq!(whole(&store, "b/x").await, "theirs");
}

#[tokio::test]
async fn busy_reset_cut_and_corrupted_are_repeated() {
    let rules = [
        Rule::new(&["PUT ", "blockid="], Fault::Status(503), 2),
        Rule::new(&["PUT ", "blockid="], Fault::Reset, 1),
        Rule::new(&["PUT ", "blockid="], Fault::CorruptBody, 1),
        Rule::new(&["PUT ", "blockid="], Fault::SwallowAnswer, 1),
        Rule::new(&["PUT ", "comp=blocklist"], Fault::Status(500), 1),
        Rule::new(&["HEAD "], Fault::Status(429), 1),
        Rule::new(&["GET ", "comp=list"], Fault::CutAnswer(400), 1),
        Rule::new(&["GET ", "range: "], Fault::CutAnswer(600), 1),
        Rule::new(&["GET ", "range: "], Fault::Reset, 1),
    ];
    let (store, proxy, _) = behind_proxy(rules).await;
    let data = "0123456789".repeat(1000);
    let up = upload("b/x", RUN);
    store.stage_block(&up, 0, bytes(&data)).await.unwrap();
    store.commit(&up, &[0], &Metadata::new()).await.unwrap();
    assert_eq!(store.list("b/").await.unwrap().len(), 1);
    assert_eq!(whole(&store, "b/x").await, data, "not a byte of the corrupted try");
    assert_eq!(proxy.faults_met(), 10, "every fault was met");
}

#[tokio::test]
async fn a_put_and_a_delete_whose_answers_were_lost_are_successes() {
    let put = Rule::new(&["PUT ", "if-none-match"], Fault::SwallowAnswer, 1);
    let delete = Rule::new(&["DELETE "], Fault::SwallowAnswer, 1);
    let (store, proxy, _) = behind_proxy([put, delete]).await;
    let etag = store.put("lease", bytes("me"), Condition::Absent).await.unwrap();
    store.delete("lease", &etag).await.unwrap();
    assert_eq!(proxy.faults_met(), 2);
    assert_eq!(store.properties("lease").await.unwrap(), None);
}

#[tokio::test]
async fn a_hang_is_bounded() {
    let hang = Rule::new(&["blockid="], Fault::Hang, 1);
    let (store, proxy, _) = behind_proxy([hang]).await;
    let began = std::time::Instant::now();
    store.stage_block(&upload("b/x", RUN), 0, bytes("data")).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(proxy.requests("blockid=").len(), 2);
}

/// The adapter's own bound, without any layer: virtual time, so that the test takes none.
#[tokio::test]
async fn the_adapter_alone_never_waits_for_ever() {
    let container = fresh_container().await;
    let proxy = HttpFault::start(emulator(), [Rule::new(&["HTTP/1.1"], Fault::Hang, 99)]).await;
    let store = open(&container, &through(&proxy), &key_auth());
    // Connected and sent, then the clock runs by itself as long as nothing else happens.
    let call = store.properties("x");
    tokio::pin!(call);
    let still_waiting = tokio::time::timeout(Duration::from_millis(300), &mut call).await;
    assert!(still_waiting.is_err() && proxy.faults_met() == 1);
    tokio::time::pause();
    let paused = tokio::time::Instant::now();
    let refused = call.await.unwrap_err();
    assert!(paused.elapsed() < Duration::from_secs(31), "{:?}", paused.elapsed());
    assert!(
        matches!(&refused, StoreError::Unavailable { detail, .. } if detail.contains("30 s")),
        "{refused}"
    );
}

/// The SDK's own transport gives up when no byte of an answer came for 60 s, sending included. A large block over a
/// slow line takes longer than that: only our own bound, which grows with the block, may end it.
#[tokio::test]
async fn slow_uploads_are_not_hangs() {
    let container = fresh_container().await;
    let proxy = HttpFault::start(emulator(), [Rule::new(&["blockid="], Fault::Hang, 1)]).await;
    let store = open(&container, &through(&proxy), &key_auth());
    let up = upload("b/x", RUN);
    let call = store.stage_block(&up, 0, vec![0; 16 << 20].into());
    tokio::pin!(call);
    while proxy.faults_met() == 0 {
        let still_waiting = tokio::time::timeout(Duration::from_millis(100), &mut call).await;
        assert!(still_waiting.is_err());
    }
    tokio::time::pause();
    let refused = call.await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Unavailable { detail, .. } if detail.contains("94 s")),
        "{refused}"
    );
}

/// Every text that an error or a store shows.
fn shown(error: &StoreError, store: &AzureStore) -> String {
    format!("{error} {error:?} {store:?} {}", store.describe())
}

#[tokio::test]
async fn refusals_are_named_and_hold_no_secret() {
    let container = fresh_container().await;
    let wrong_key = "d3Jvbmcga2V5IHdyb25nIGtleSB3cm9uZyBrZXk=";
    let wrong_sas = account_sas("rl").replace("sp=rl", "sp=rwl");
    let cases = [
        (
            "key",
            AzureCredentialInput::AccountKey(Secret::new(wrong_key)),
            "AuthorizationFailure",
        ),
        (
            "tampered",
            AzureCredentialInput::Sas(Secret::new(wrong_sas.clone())),
            "AuthorizationFailure",
        ),
        (
            "read-only",
            AzureCredentialInput::Sas(Secret::new(account_sas("rl"))),
            "AuthorizationPermissionMismatch",
        ),
    ];
    for (case, auth, code) in cases {
        assert!(
            !format!("{auth:?}").contains("sig=") && !format!("{auth:?}").contains(wrong_key),
            "{auth:?}"
        );
        let store = open(&container, &endpoint(), &auth);
        let refused = store.put("x", bytes("x"), Condition::Always).await.unwrap_err();
        assert!(
            matches!(&refused, StoreError::Denied { detail, .. } if detail.contains(code)),
            "{case}: {refused}"
        );
        let text = shown(&refused, &store);
        for secret in [wrong_key, KEY, "sig=", "SharedKey"] {
            assert!(!text.contains(secret), "{case}: {text}");
        }
    }
    let nowhere = open("planb-not-there", &endpoint(), &key_auth());
    let refused = [
        nowhere.list("").await.unwrap_err(),
        nowhere.properties("x").await.unwrap_err(),
        nowhere.now().await.unwrap_err(),
        nowhere.put("x", bytes("x"), Condition::Always).await.unwrap_err(),
        nowhere.stage_block(&upload("x", RUN), 0, bytes("x")).await.unwrap_err(),
    ];
    for refused in refused {
        let hint_wanted = "az storage container create --account-name devstoreaccount1 --name planb-not-there";
        assert!(
            matches!(&refused, StoreError::NoContainer { hint, .. } if hint.contains(hint_wanted)),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_dead_endpoint_shows_no_signature() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut url = endpoint();
    url.set_port(Some(closed)).unwrap();
    let store = open("c", &url, &AzureCredentialInput::Sas(Secret::new(account_sas("rl"))));
    let refused = store.list("").await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    let text = shown(&refused, &store);
    assert!(!text.contains("sig=") && !text.contains("2099"), "{text}");
    assert!(text.contains("onnect"), "says what happened: {text}");
}

#[tokio::test]
async fn the_clock_is_the_services_own() {
    let container = fresh_container().await;
    let now = SystemClock.now();
    let store = open(&container, &endpoint(), &key_auth());
    assert!((store.now().await.unwrap().as_second() - now.as_second()).abs() <= 2);
    // A machine whose clock is wrong is told so as a refusal, and sees the service's time through a SAS.
    let wrong = Arc::new(FixedClock::at("2020-01-01T00:00:00Z".parse().unwrap()));
    let sas = AzureCredentialInput::Sas(Secret::new(account_sas("rl")));
    let off = AzureStore::open(ACCOUNT, &container, Some(&endpoint()), &sas, wrong).unwrap();
    assert!((off.now().await.unwrap().as_second() - now.as_second()).abs() <= 5);
}

#[tokio::test]
async fn listings_go_over_pages() {
    let store = open(&fresh_container().await, &endpoint(), &key_auth()).with_list_page(10);
    let names: Vec<String> = (0..35).map(|i| format!("p/{i:05}")).collect();
    for name in &names {
        store.put(name, bytes("x"), Condition::Always).await.unwrap();
    }
    let listed: Vec<String> = store.list("p/").await.unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(listed, names);
}

#[tokio::test]
async fn connections_are_used_again() {
    let container = fresh_container().await;
    let counted = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = endpoint();
    url.set_port(Some(counted.local_addr().unwrap().port())).unwrap();
    let store = open(&container, &url, &key_auth());
    let accepted = std::sync::atomic::AtomicUsize::new(0);
    let pass = async {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let (mut client, _) = counted.accept().await.unwrap();
            accepted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut upstream = tokio::net::TcpStream::connect(emulator()).await.unwrap();
            tasks.spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut upstream).await });
        }
    };
    let work = async {
        for i in 0..20 {
            store.stage_block(&upload("b/x", RUN), i, bytes("block")).await.unwrap();
        }
    };
    tokio::select! { () = work => {}, () = pass => {} }
    assert_eq!(accepted.load(std::sync::atomic::Ordering::SeqCst), 1);
}
