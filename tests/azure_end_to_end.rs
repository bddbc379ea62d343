//! The whole way through Azure Blob Storage (its emulator): backup, list, status, prune, download, and a restore with
//! nothing but `gzip` and the `mysql` client. With an account key, and with a SAS.
//!
//! Entra tokens cannot be tried here: the SDK sends them over https only, and the emulator checks no signature.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::BlobStore;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use support::{Flavor, Planb, Server, assert_same, azurite, census, reader, unique_schema};
use url::Url;

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// An account SAS for everything that an agent does.
/// Source: <https://learn.microsoft.com/rest/api/storageservices/create-account-sas>
fn account_sas() -> String {
    let (version, expiry, permissions) = ("2021-12-02", "2099-01-01T00:00:00Z", "rwdlact");
    let to_sign = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{expiry}\n\nhttps,http\n{version}\n\n");
    let key = azure_core::credentials::Secret::new(KEY);
    let signature = azure_core::hmac::hmac_sha256(&to_sign, &key).expect("a signature");
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("sv", version)
        .append_pair("ss", "b")
        .append_pair("srt", "sco")
        .append_pair("sp", permissions)
        .append_pair("se", expiry)
        .append_pair("spr", "https,http")
        .append_pair("sig", &signature)
        .finish()
}

fn container(name: &str) -> AzureStore {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    AzureStore::open(ACCOUNT, name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store")
}

/// A PlanB whose store is a fresh container; `auth` is what the configuration says of it, `secret` what it names.
fn planb(server: &support::Endpoint, container: &str, auth: &str, secret: &str) -> (Planb, String) {
    let schema = unique_schema("azure");
    server.sql(&format!(
        "CREATE DATABASE {schema};
         CREATE TABLE {schema}.accounts (id INT PRIMARY KEY, owner VARCHAR(40) NOT NULL, balance DECIMAL(12, 2) NOT NULL);
         INSERT INTO {schema}.accounts VALUES (1, 'Ada ''the'' Countess', 10.50), (2, '김유신', -3.20), (3, '', 0);
         CREATE TABLE {schema}.pictures (id INT PRIMARY KEY, data LONGBLOB NOT NULL);
         INSERT INTO {schema}.pictures VALUES (1, RANDOM_BYTES(1000)), (2, REPEAT(RANDOM_BYTES(1000), 9000));
         CREATE VIEW {schema}.debtors AS SELECT owner FROM {schema}.accounts WHERE balance < 0;"
    ));
    let mut planb = Planb::new(server, &reader(server, &[]));
    planb.reconfigure("tls = \"off\"", &format!("tls = \"off\"\ndatabases = [\"{schema}\"]"));
    let file = format!("url = \"file://{}\"", planb.store().display());
    let azure = format!(
        "url = \"azblob://{ACCOUNT}/{container}\"\nendpoint = \"{}\"\n{auth}",
        azurite()
    );
    planb.reconfigure(&file, &azure);
    planb.env.push(("PLANB_TEST_SECRET".into(), secret.into()));
    (planb, schema)
}

/// Downloads a blob in ranges, pinned to one version.
async fn download(store: &AzureStore, name: &str, to: PathBuf) -> PathBuf {
    let blob = store.properties(name).await.expect("properties").expect("the backup");
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < blob.size_bytes {
        let from = bytes.len() as u64;
        let range = from..(from + (1 << 20)).min(blob.size_bytes);
        bytes.extend_from_slice(&store.read(name, range, Some(&blob.etag)).await.expect("a range"));
    }
    std::fs::write(&to, bytes).expect("a file");
    to
}

async fn end_to_end(auth: &str, secret: &str) {
    let server = Server::shared(Flavor::MySql);
    let name = format!("e2e-{:016x}", rand::random::<u64>());
    let (planb, schema) = planb(&server, &name, auth, secret);

    let refused = planb.fails(1, &["backup"]);
    assert!(refused.contains("create it first"), "{refused}");
    assert!(!refused.contains(secret), "{refused}");
    let (backups, control) = (container(&name), container(&format!("{name}-control")));
    backups.create_container().await.expect("a container");
    control.create_container().await.expect("a container");
    assert!(planb.ok(&["backups"]).contains("No backups of bank"));
    let status = planb.json(&["--json", "status"]);
    assert_eq!(
        status["rpo"]["state"], "breached",
        "nothing is there to restore: {status}"
    );

    let made = planb.json(&["--json", "backup", "--verify-source"]);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(made["rows"], 5);
    let listed = planb.json(&["--json", "backups"]);
    let listed = &listed["backups"][0];
    assert_eq!((&listed["id"], &listed["digest"]), (&made["id"], &made["digest"]));
    assert_eq!(
        (&listed["standing"], &listed["stored_bytes"]),
        (&"good".into(), &made["stored_bytes"])
    );
    let status = planb.json(&["--json", "status"]);
    assert_eq!(
        (&status["rpo"]["state"], &status["newest"]["id"]),
        (&"met".into(), &made["id"]),
        "{status}"
    );
    let dry = planb.ok(&["prune", "--dry-run"]);
    assert!(dry.contains("would remove 0 of 1 backups"), "{dry}");
    planb.ok(&["prune"]);

    let names: Vec<String> = backups
        .list("")
        .await
        .expect("a listing")
        .into_iter()
        .map(|blob| blob.name)
        .collect();
    assert_eq!(
        names,
        [format!("backups/{id}.sql.gz")],
        "nothing else in the backups' container"
    );
    let file = download(&backups, &names[0], planb.path().join("downloaded.sql.gz")).await;
    let target = Server::start(Flavor::MySql, &[]);
    target.load_gzip(&file);
    assert_same(&census(&server, &[&schema]), &census(&target, &[&schema]));

    for args in [["status"].as_slice(), &["backups"], &["config", "check"], &["backup"]] {
        let output = planb
            .command(args)
            .env("RUST_LOG", "debug")
            .output()
            .expect("planb runs");
        let told = support::planb::text(&output);
        assert!(output.status.success(), "planb {args:?}: {told}");
        let signature = secret.rsplit("sig=").next().expect("always one");
        assert!(
            !told.contains(secret) && !told.contains(signature),
            "planb {args:?} tells the secret"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_an_account_key() {
    end_to_end("auth = \"account-key\"\naccount_key = \"env:PLANB_TEST_SECRET\"", KEY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_sas() {
    end_to_end("auth = \"sas\"\nsas = \"env:PLANB_TEST_SECRET\"", &account_sas()).await;
}
