//! The maintenance page, from `planb failover --stage 1`: in a directory, and in the `$web` container of Azure's emulator.

mod support;

use std::path::Path;
use std::sync::Arc;

use planb::clock::SystemClock;
use planb::secret::Secret;
use planb::store::azure::{AzureCredentialInput, AzureStore};
use planb::store::directory::DirectoryStore;
use planb::store::{BlobStore, Condition, Served};
use support::{Planb, azurite};
use url::Url;

const ACCOUNT: &str = "devstoreaccount1";
/// The emulator's published account key.
/// Source: <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

fn shipped() -> String {
    format!("{}/config/page", env!("CARGO_MANIFEST_DIR"))
}

/// With one step that publishes; no database is needed for that.
fn planb(store: &str, page: &str, more: &str) -> Planb {
    let mut planb = Planb::empty();
    let store = match store.is_empty() {
        true => format!("url = \"file://{}\"", planb.store().display()),
        false => store.to_owned(),
    };
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nport = 1\nuser = \"nobody\"\npassword = \"env:PLANB_SOURCE_PASSWORD\"\n\
         tls = \"off\"\n[store]\n{store}\n[[failover_steps]]\nname = \"page\"\nstage = 1\nkind = \"maintenance-page\"\npage = \"{page}\"\n{more}\n"
    ));
    planb.env.push(("PLANB_TEST_SECRET".into(), KEY.into()));
    planb
}

fn stage_1(planb: &Planb) -> serde_json::Value {
    planb.json(&["--json", "failover", "--stage", "1", "--yes"])
}

fn note(result: &serde_json::Value) -> String {
    result["steps"][0].to_string()
}

async fn in_directory(planb: &Planb) -> DirectoryStore {
    DirectoryStore::open(planb.store().join("web"), Arc::new(SystemClock))
        .await
        .expect("published")
}

async fn text(store: &dyn BlobStore, name: &str) -> (String, Served) {
    let there = store.properties(name).await.expect("answers").expect(name);
    let bytes = store
        .read(name, 0..there.size_bytes, Some(&there.etag))
        .await
        .expect("read");
    let served = store.served(name, &there.etag).await.expect("served");
    (String::from_utf8(bytes.to_vec()).expect("text"), served)
}

#[tokio::test]
async fn the_page_that_ships_stands_always_and_tells_times_in_a_disaster() {
    let planb = planb("", &shipped(), "contact = \"1588-0000 <bank> & 'co'\"");
    let done = stage_1(&planb);
    assert_eq!(done["result"], "done", "{done}");
    let store = in_directory(&planb).await;
    let (page, served) = text(&store, "index.html").await;
    assert_eq!(served.content_type, "text/html; charset=utf-8");
    assert_eq!(served.cache_control.as_deref(), Some("public, max-age=60"));
    assert_eq!(
        page.matches("1588-0000 &lt;bank&gt; &amp; &#39;co&#39;").count(),
        2,
        "in both languages"
    );
    assert!(!page.contains("since <strong>") && !page.contains("{{TIME}}"), "{page}");
    for outside in ["http://", "https://", "<script", "url(", "@import", "src="] {
        assert!(
            !page.contains(outside),
            "it must come up when all else is gone: {outside}"
        );
    }
    let first = store
        .properties("index.html")
        .await
        .expect("answers")
        .expect("there")
        .etag;
    let again = stage_1(&planb);
    assert!(note(&again).contains("as they should be"), "{again}");
    let second = store
        .properties("index.html")
        .await
        .expect("answers")
        .expect("there")
        .etag;
    assert_eq!(first, second, "nothing to do, nothing done");

    planb.configure("expected = \"1h\"\nutc_offset = \"+09:00\"");
    let told = stage_1(&planb);
    assert_eq!(told["result"], "done", "{told}");
    let (page, _) = text(&store, "index.html").await;
    for line in [
        "중단 시각 <strong>2",
        "Unavailable since <strong>2",
        "look again at <strong>2",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert_eq!(page.matches(" KST</strong>").count(), 4);
    assert!(!page.contains("{{TIME}}") && !page.contains("{{EXPECTED}}"));
}

#[tokio::test]
async fn in_azure_it_is_what_a_browser_expects_and_what_stood_before_comes_back() {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    let open =
        |name: &str| AzureStore::open(ACCOUNT, name, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store");
    let name = format!("page-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
    let store = format!(
        "url = \"azblob://{ACCOUNT}/{name}\"\nendpoint = \"{endpoint}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_TEST_SECRET\""
    );
    for container in [name.clone(), format!("{name}-control")] {
        open(&container).create_container().await.expect("a container");
    }
    let site = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(site.path().join(name), text).expect("a file");
    write(
        "index.html",
        "<!doctype html>\n<link rel=stylesheet href=style.css>\n<p>{{CONTACT}}</p>\n",
    );
    write("style.css", "p { color: red }");
    write(".hidden", "not for anybody");
    let planb = planb(
        &store,
        &site.path().display().to_string(),
        "contact = \"desk\"\n[[failover_steps]]\nname = \"next\"\nstage = 1\nkind = \"command\"\nprogram = \"/bin/false\"\nneeds = [\"page\"]",
    );
    let web = open("$web");
    web.create_container().await.expect("the static website");
    for old in web.list("").await.expect("listed") {
        web.delete(&old.name, &old.etag).await.expect("deleted");
    }
    let before = Served {
        content_type: "text/html; charset=euc-kr".to_owned(),
        cache_control: None,
    };
    web.publish("index.html", "the old page".into(), &before, Condition::Absent)
        .await
        .expect("put");
    web.put("robots.txt", "of somebody else".into(), Condition::Absent)
        .await
        .expect("put");

    let stopped = planb.fails(4, &["failover", "--stage", "1", "--yes"]);
    assert!(stopped.contains("next") && stopped.contains("--resume"), "{stopped}");
    let (page, served) = text(&web, "index.html").await;
    assert!(page.contains("<p>desk</p>"), "{page}");
    assert_eq!(served.content_type, "text/html; charset=utf-8");
    assert_eq!(text(&web, "style.css").await.1.content_type, "text/css; charset=utf-8");
    // As a browser gets it, without PlanB's own store between.
    let names: Vec<String> = web
        .list("")
        .await
        .expect("listed")
        .into_iter()
        .map(|blob| blob.name)
        .collect();
    assert_eq!(names, ["index.html", "robots.txt", "style.css"]);

    let told = planb.ok(&["failover", "--abandon"]);
    assert!(told.contains("taken back"), "{told}");
    assert_eq!(text(&web, "index.html").await, ("the old page".to_owned(), before));
    assert!(
        web.properties("style.css").await.expect("answers").is_none(),
        "it was not there before"
    );
    assert_eq!(text(&web, "robots.txt").await.0, "of somebody else");
}

#[test]
fn what_is_wrong_with_a_page_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = |planb: &Planb, part: &str| {
        let told = planb.fails(4, &["failover", "--stage", "1", "--yes"]);
        assert!(
            told.contains(part) && told.contains("planb failover --stage 1 --resume"),
            "{told}"
        );
        planb.ok(&["failover", "--abandon"]);
    };
    says(&planb("", "/nowhere/at/all", ""), "/nowhere/at/all");
    let path = |path: &Path| path.display().to_string();
    says(&planb("", &path(dir.path()), ""), "holds no index.html");
    std::fs::write(dir.path().join("index.html"), b"\xff\xfe").expect("a file");
    says(&planb("", &path(dir.path()), ""), "index.html is not UTF-8");
    // Without any backup there is nothing to come up from: stage 1 says so before anybody needs it.
    std::fs::write(dir.path().join("index.html"), "ok").expect("a file");
    let more = "[[failover_steps]]\nname = \"store\"\nstage = 1\nkind = \"store-ready\"";
    says(&planb("", &path(dir.path()), more), "there is no good backup");
    let odd = planb(
        "",
        &path(dir.path()),
        "utc_offset = \"9\"\nexpected = \"soon\"\ncontainer = \"a/b\"",
    );
    let told = odd.fails(2, &["config", "check"]);
    for key in ["utc_offset", "expected", "container"] {
        assert!(told.contains(key), "{told}");
    }
}

#[tokio::test]
async fn without_a_static_website_the_command_that_makes_one_is_told() {
    let endpoint = Url::parse(&azurite()).expect("a URL");
    let auth = AzureCredentialInput::AccountKey(Secret::new(KEY));
    let name = format!("page-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
    for container in [name.clone(), format!("{name}-control")] {
        let store =
            AzureStore::open(ACCOUNT, &container, Some(&endpoint), &auth, Arc::new(SystemClock)).expect("a store");
        store.create_container().await.expect("a container");
    }
    let store = format!(
        "url = \"azblob://{ACCOUNT}/{name}\"\nendpoint = \"{endpoint}\"\nauth = \"account-key\"\naccount_key = \"env:PLANB_TEST_SECRET\""
    );
    let planb = planb(&store, &shipped(), &format!("container = \"none-{name}\""));
    let told = planb.fails(4, &["failover", "--stage", "1", "--yes"]);
    assert!(told.contains("az storage container create"), "{told}");
}
