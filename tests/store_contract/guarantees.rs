//! The promises of `BlobStore`'s documentation, one function each, over any store.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use planb::store::{BlobStore, Condition, Metadata, RUN_ID_KEY, Served, StoreError, Upload};

pub type Store = Arc<dyn BlobStore>;

pub fn upload(name: &str, run_id: &str) -> Upload {
    Upload {
        name: name.to_owned(),
        run_id: run_id.to_owned(),
    }
}

pub fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub async fn whole(store: &Store, name: &str) -> Bytes {
    let there = store.properties(name).await.unwrap().unwrap();
    store.read(name, 0..there.size_bytes, Some(&there.etag)).await.unwrap()
}

async fn names(store: &Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().into_iter().map(|p| p.name).collect()
}

const RUN_A: &str = "a0a0a0a0a0a0a0a0";
const RUN_B: &str = "b1b1b1b1b1b1b1b1b1b1b1b1";

pub async fn appears_whole_and_in_the_order_of_the_commit(store: Store) {
    let up = upload("backups/one.sql.gz", RUN_A);
    // Staged at once and out of order; 7 never committed; 1 staged twice.
    let stages = [(2, "two-"), (0, "zero-"), (1, "wrong"), (7, "left out")];
    for result in join_all(stages.map(|(n, text)| store.stage_block(&up, n, bytes(text)))).await {
        result.unwrap();
    }
    store
        .stage_block(&up, 1, bytes("one, longer than before-"))
        .await
        .unwrap();
    assert_eq!(
        store.properties(&up.name).await.unwrap(),
        None,
        "staged blocks are invisible"
    );
    assert!(store.list("").await.unwrap().is_empty(), "staged blocks are not listed");
    let refused = store.read(&up.name, 0..1, None).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");

    let before = store.now().await.unwrap();
    let committed = store
        .commit(&up, &[2, 0, 1], &metadata(&[("epoch", "3"), ("planb_x", "a b=c;/")]))
        .await
        .unwrap();
    assert_eq!(whole(&store, &up.name).await, "two-zero-one, longer than before-");
    assert_eq!(committed.size_bytes, 33);
    assert_eq!(committed.metadata["epoch"], "3");
    assert_eq!(committed.metadata["planb_x"], "a b=c;/");
    assert_eq!(committed.metadata[RUN_ID_KEY], RUN_A);
    assert!(
        (committed.last_modified.as_second() - before.as_second()).abs() < 60,
        "by the store's clock"
    );
    assert_eq!(store.properties(&up.name).await.unwrap().unwrap(), committed);
    assert_eq!(store.list("backups/").await.unwrap(), [committed]);
}

pub async fn a_taken_name_is_refused(store: Store) {
    let (first, second) = (upload("b/x", RUN_A), upload("b/x", RUN_B));
    for up in [&first, &second] {
        store.stage_block(up, 0, bytes(&up.run_id)).await.unwrap();
    }
    store.commit(&first, &[0], &Metadata::new()).await.unwrap();
    let refused = store.commit(&second, &[0], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    assert!(refused.is_permanent());
    assert_eq!(whole(&store, "b/x").await, RUN_A);
    // And so is one that was put there.
    store.put("b/y", bytes("put"), Condition::Absent).await.unwrap();
    let third = upload("b/y", RUN_B);
    store.stage_block(&third, 0, bytes("late")).await.unwrap();
    let refused = store.commit(&third, &[0], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    assert_eq!(whole(&store, "b/y").await, "put");
}

pub async fn repeating_ones_own_commit_is_success(store: Store) {
    let up = upload("b/mine", RUN_A);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    let first = store.commit(&up, &[0], &Metadata::new()).await.unwrap();
    assert_eq!(store.commit(&up, &[0], &Metadata::new()).await.unwrap(), first);
    store.discard(&up).await.unwrap();
    assert_eq!(
        whole(&store, "b/mine").await,
        "data",
        "discard after commit takes nothing back"
    );
}

pub async fn of_concurrent_commits_exactly_one_wins(store: Store) {
    for round in 0..5 {
        let name = format!("b/race-{round}");
        let uploads: Vec<_> = (0..4).map(|i| upload(&name, &format!("{round:08x}{i:08x}"))).collect();
        for up in &uploads {
            store.stage_block(up, 0, bytes(&up.run_id)).await.unwrap();
        }
        let none = Metadata::new();
        let results = join_all(uploads.iter().map(|up| store.commit(up, &[0], &none))).await;
        let winners: Vec<_> = (0..4).filter(|i| results[*i].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        for refused in results.iter().filter_map(|r| r.as_ref().err()) {
            assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
        }
        assert_eq!(
            whole(&store, &name).await,
            uploads[winners[0]].run_id,
            "the winner's bytes, not a mixture"
        );
        let there = store.properties(&name).await.unwrap().unwrap();
        assert_eq!(
            there.metadata[RUN_ID_KEY], uploads[winners[0]].run_id,
            "and the winner's metadata"
        );
    }
}

pub async fn discarded_or_unstaged_blocks_cannot_be_committed(store: Store) {
    let up = upload("b/gone", RUN_A);
    let refused = store.commit(&up, &[0], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    store.stage_block(&up, 0, bytes("x")).await.unwrap();
    let refused = store.commit(&up, &[0, 1], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    let refused = store.commit(&up, &[0, 0], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    store.discard(&up).await.unwrap();
    store.discard(&up).await.unwrap();
    assert!(store.list("").await.unwrap().is_empty());
}

pub async fn empty_and_many_blocks(store: Store) {
    let empty = upload("b/empty", RUN_A);
    let there = store.commit(&empty, &[], &Metadata::new()).await.unwrap();
    assert_eq!(there.size_bytes, 0);
    assert_eq!(store.read("b/empty", 0..0, Some(&there.etag)).await.unwrap(), "");
    assert_eq!(store.commit(&empty, &[], &Metadata::new()).await.unwrap(), there);

    let many = upload("b/many", RUN_B);
    let blocks: Vec<u32> = (0..300).rev().collect();
    for some in blocks.chunks(16) {
        let staged = some
            .iter()
            .map(|n| store.stage_block(&many, *n, bytes(&format!("<{n}>"))));
        join_all(staged).await.into_iter().collect::<Result<(), _>>().unwrap();
    }
    store.commit(&many, &blocks, &Metadata::new()).await.unwrap();
    let wanted: String = blocks.iter().map(|n| format!("<{n}>")).collect();
    assert_eq!(whole(&store, "b/many").await, wanted);
}

pub async fn ranges_are_exact_and_pinned(store: Store) {
    let data: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let etag = store
        .put("r", Bytes::from(data.clone()), Condition::Absent)
        .await
        .unwrap();
    for range in [0..1, 0..100_000, 99_999..100_000, 5000..70_001, 7..7, 100_000..100_000] {
        let got = store.read("r", range.clone(), Some(&etag)).await.unwrap();
        assert_eq!(got, data[range.start as usize..range.end as usize], "{range:?}");
        assert_eq!(store.read("r", range, None).await.unwrap(), got);
    }
    for beyond in [99_999..100_001, 100_000..100_001, 200_000..200_001] {
        let refused = store.read("r", beyond.clone(), None).await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{beyond:?}: {refused}");
    }
    let newer = store.put("r", bytes("other"), Condition::Always).await.unwrap();
    assert_ne!(newer, etag);
    for range in [0..5, 0..0] {
        let refused = store.read("r", range, Some(&etag)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    }
    for range in [0..5, 0..0] {
        let refused = store.read("absent", range, None).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    }
}

pub async fn puts_obey_their_condition(store: Store) {
    let first = store.put("c/lease", bytes("1"), Condition::Absent).await.unwrap();
    let refused = store.put("c/lease", bytes("2"), Condition::Absent).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    let second = store
        .put("c/lease", bytes("2"), Condition::Matches(first.clone()))
        .await
        .unwrap();
    assert_ne!(first, second);
    assert_eq!(store.properties("c/lease").await.unwrap().unwrap().etag, second);
    assert_eq!(
        store.list("c/").await.unwrap()[0].etag,
        second,
        "a listing shows the same version"
    );
    for (name, etag) in [("c/lease", &first), ("c/absent", &first)] {
        let refused = store
            .put(name, bytes("3"), Condition::Matches(etag.clone()))
            .await
            .unwrap_err();
        assert!(matches!(refused, StoreError::Changed { .. }), "{name}: {refused}");
    }
    // The same bytes again are another version all the same.
    let third = store.put("c/lease", bytes("2"), Condition::Always).await.unwrap();
    assert_ne!(third, second);
    assert_eq!(whole(&store, "c/lease").await, "2");
    assert_eq!(names(&store, "c/").await, ["c/lease"]);
}

/// What browsers are told goes with the version that it was said of, and with no other.
pub async fn a_page_is_served_as_was_said(store: Store) {
    let page = |text: &str, cache: Option<&str>| {
        let served = Served {
            content_type: text.to_owned(),
            cache_control: cache.map(str::to_owned),
        };
        (bytes(text), served)
    };
    let (html, as_html) = page("text/html; charset=utf-8", Some("public, max-age=60"));
    let (css, as_css) = page("text/css", None);
    let first = store
        .publish("a/index.html", html.clone(), &as_html, Condition::Absent)
        .await
        .unwrap();
    assert_eq!(store.served("a/index.html", &first).await.unwrap(), as_html);
    assert_eq!(whole(&store, "a/index.html").await, html);
    let refused = store
        .publish("a/index.html", css.clone(), &as_css, Condition::Absent)
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    let second = store
        .publish("a/index.html", css.clone(), &as_css, Condition::Matches(first.clone()))
        .await
        .unwrap();
    assert_eq!(store.served("a/index.html", &second).await.unwrap(), as_css);
    assert_eq!(store.properties("a/index.html").await.unwrap().unwrap().etag, second);
    let refused = store
        .publish("a/index.html", html, &as_html, Condition::Matches(first.clone()))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    let refused = store.served("a/index.html", &first).await.unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    let refused = store.served("a/absent.html", &first).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    // Merely put, nothing of what was said of the version before is left, equal bytes or not.
    let third = store.put("a/index.html", css, Condition::Always).await.unwrap();
    assert_eq!(store.served("a/index.html", &third).await.unwrap(), Served::default());
    let (data, bad) = page("text/html\r\nx-evil: 1", None);
    let refused = store
        .publish("a/bad.html", data, &bad, Condition::Always)
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
}

/// Each update carries its writer's own mark, and a writer that was refused looks whether its mark is there: an
/// answer may be lost, and the blob changed again, before the retry.
pub async fn concurrent_writers_lose_no_update(store: Store) {
    let (writers, each) = (8, 5);
    store.put("log", bytes("log:"), Condition::Absent).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            for nth in 0..each {
                append(&store, &format!("<{writer}.{nth}>")).await;
            }
        });
    }
    tasks.join_all().await;
    let log = String::from_utf8(whole(&store, "log").await.to_vec()).unwrap();
    for (writer, nth) in (0..writers).flat_map(|w| (0..each).map(move |n| (w, n))) {
        assert_eq!(log.matches(&format!("<{writer}.{nth}>")).count(), 1, "{log}");
    }

    // And of creators exactly one.
    let created = join_all((0..8).map(|i| store.put("created", bytes(&i.to_string()), Condition::Absent))).await;
    assert_eq!(created.iter().filter(|r| r.is_ok()).count(), 1, "{created:?}");
}

async fn append(store: &Store, mark: &str) {
    loop {
        let there = store.properties("log").await.unwrap().unwrap();
        let old = match store.read("log", 0..there.size_bytes, Some(&there.etag)).await {
            Ok(old) => String::from_utf8(old.to_vec()).unwrap(),
            Err(StoreError::Changed { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        if old.contains(mark) {
            return;
        }
        match store
            .put("log", bytes(&format!("{old}{mark}")), Condition::Matches(there.etag))
            .await
        {
            Ok(_) => return,
            Err(StoreError::Changed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub async fn deletes_only_that_version(store: Store) {
    let old = store.put("d", bytes("1"), Condition::Absent).await.unwrap();
    let new = store.put("d", bytes("2"), Condition::Always).await.unwrap();
    let refused = store.delete("d", &old).await.unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    store.delete("d", &new).await.unwrap();
    let again = store.delete("d", &new).await;
    // Behind retries a second try that finds nothing is success.
    let retried = again.is_ok() && format!("{store:?}").starts_with("Retrying");
    assert!(
        retried || matches!(again, Err(StoreError::NotFound { .. })),
        "{again:?}"
    );
    let refused = store.read("d", 0..1, Some(&new)).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    assert!(store.list("").await.unwrap().is_empty());
    // The name is free again, and what is there then carries nothing of the old one.
    let again = store.put("d", bytes("1"), Condition::Absent).await.unwrap();
    assert!(again != old && again != new);
}

pub async fn lists_by_prefix_and_name_with_metadata(store: Store) {
    let odd = [
        "backups/a b.sql",
        "backups/é-한국.sql",
        "backups/plus+and%25.sql",
        "backups/z/deep/er.sql",
    ];
    for (i, name) in odd.iter().enumerate() {
        let up = upload(name, &format!("{i:016x}"));
        store.stage_block(&up, 0, bytes(name)).await.unwrap();
        store
            .commit(&up, &[0], &metadata(&[("number", &i.to_string())]))
            .await
            .unwrap();
    }
    store
        .put("backups-other/x", bytes(""), Condition::Absent)
        .await
        .unwrap();
    store.put("control/x", bytes(""), Condition::Absent).await.unwrap();

    let listed = store.list("backups/").await.unwrap();
    let mut wanted: Vec<_> = odd.iter().map(ToString::to_string).collect();
    wanted.sort();
    assert_eq!(listed.iter().map(|p| p.name.clone()).collect::<Vec<_>>(), wanted);
    for (i, name) in odd.iter().enumerate() {
        let one = listed.iter().find(|p| p.name == *name).unwrap();
        assert_eq!(one.metadata["number"], i.to_string());
        assert_eq!(store.properties(name).await.unwrap().as_ref(), Some(one));
        assert_eq!(whole(&store, name).await, *name);
    }
    assert_eq!(names(&store, "backups/z").await, ["backups/z/deep/er.sql"]);
    assert_eq!(names(&store, "backups").await.len(), 5);
    assert_eq!(names(&store, "").await.len(), 6);
    assert!(names(&store, "nothing/").await.is_empty());
}

pub async fn tags_are_kept_apart_from_the_version(store: Store) {
    let etag = store.put("t", bytes("x"), Condition::Absent).await.unwrap();
    assert!(store.tags("t").await.unwrap().is_empty());
    let tags: BTreeMap<_, _> = [
        ("expirable".to_owned(), "true".to_owned()),
        ("by".to_owned(), "planb 1".to_owned()),
    ]
    .into();
    store.set_tags("t", &tags).await.unwrap();
    assert_eq!(store.tags("t").await.unwrap(), tags);
    assert_eq!(store.properties("t").await.unwrap().unwrap().etag, etag);
    store.set_tags("t", &BTreeMap::new()).await.unwrap();
    assert!(store.tags("t").await.unwrap().is_empty());
    store.set_tags("t", &tags).await.unwrap();
    store.put("t", bytes("y"), Condition::Always).await.unwrap();
    assert!(
        store.tags("t").await.unwrap().is_empty(),
        "a new blob has no tags of the old one"
    );
    let refused = store.set_tags("absent", &tags).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
    let refused = store.tags("absent").await.unwrap_err();
    assert!(matches!(refused, StoreError::NotFound { .. }), "{refused}");
}

pub async fn names_and_values_that_are_not_portable_are_refused(store: Store) {
    for bad in [
        "",
        "/a",
        "a/",
        "a//b",
        "../a",
        "a/../b",
        ".staging/x",
        ".meta/x",
        "a/.hidden",
        "a.",
        "a\nb",
        "a\\b",
    ] {
        let refused = store.put(bad, bytes("x"), Condition::Always).await.unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{bad:?}: {refused}");
        assert!(
            matches!(store.properties(bad).await, Err(StoreError::Invalid { .. })),
            "{bad:?}"
        );
    }
    for bad_run in ["", "../../etc", "ABCDEF0123", "short"] {
        let refused = store
            .stage_block(&upload("ok", bad_run), 0, bytes("x"))
            .await
            .unwrap_err();
        assert!(matches!(refused, StoreError::Invalid { .. }), "{bad_run:?}: {refused}");
    }
    for (key, value) in [
        ("Big", "x"),
        ("a-b", "x"),
        ("ok", "é"),
        ("ok", " x"),
        ("ok", ""),
        ("1a", "x"),
        ("ok", "a\r\nb"),
    ] {
        let refused = store
            .commit(&upload("m", RUN_A), &[], &metadata(&[(key, value)]))
            .await
            .unwrap_err();
        assert!(
            matches!(refused, StoreError::Invalid { .. }),
            "{key:?}={value:?}: {refused}"
        );
    }
    assert!(store.list("").await.unwrap().is_empty());
}

pub async fn the_clock_does_not_go_back(store: Store) {
    let first = store.now().await.unwrap();
    store.put("x", bytes("x"), Condition::Absent).await.unwrap();
    let written = store.properties("x").await.unwrap().unwrap().last_modified;
    let second = store.now().await.unwrap();
    assert!(first <= second);
    assert!(first.as_second() <= written.as_second() && written.as_second() <= second.as_second() + 1);
}
