//! What only a directory can get wrong: side files, staging, permissions, other processes, lost disks.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use planb::clock::{Clock, FixedClock, SystemClock};
use planb::store::directory::DirectoryStore;
use planb::store::{BlobStore, Condition, Metadata, StoreError};
use tempfile::TempDir;

use crate::guarantees::{Store, bytes, metadata, upload, whole};

pub async fn fresh() -> (Store, TempDir) {
    let dir = TempDir::new().unwrap();
    let store = DirectoryStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap();
    (Arc::new(store), dir)
}

const RUN: &str = "0123456789abcdef";

#[tokio::test]
async fn blobs_are_plain_private_files_and_the_copy_of_one_has_empty_metadata() {
    let (store, dir) = fresh().await;
    let up = upload("backups/x.sql.gz", RUN);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    store.commit(&up, &[0], &metadata(&[("epoch", "1")])).await.unwrap();
    let path = dir.path().join("backups/x.sql.gz");
    assert_eq!(fs::read(&path).unwrap(), b"data");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 1, "nothing of the upload is left");
    assert_eq!(
        fs::metadata(dir.path().join("backups")).unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(fs::read_dir(dir.path().join(".staging")).unwrap().count(), 0);

    fs::copy(&path, dir.path().join("backups/copy.sql.gz")).unwrap();
    let copy = store.properties("backups/copy.sql.gz").await.unwrap().unwrap();
    assert!(copy.metadata.is_empty());
    // A side file about another blob of that name, or a torn one, is no metadata.
    for text in [&br#"{"size_bytes":5,"metadata":{"epoch":"9"}}"#[..], b"{\"size_byt"] {
        fs::write(dir.path().join(".meta/backups/copy.sql.gz.json"), text).unwrap();
        assert!(
            store
                .properties("backups/copy.sql.gz")
                .await
                .unwrap()
                .unwrap()
                .metadata
                .is_empty()
        );
    }
}

#[tokio::test]
async fn replaced_by_another_tool_means_another_version() {
    let (store, dir) = fresh().await;
    let etag = store.put("x", bytes("same size"), Condition::Absent).await.unwrap();
    fs::write(dir.path().join("x"), "SAME SIZE").unwrap();
    let refused = store.read("x", 0..4, Some(&etag)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
}

#[tokio::test]
async fn a_version_never_comes_back_even_with_a_stopped_clock() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
    let store = DirectoryStore::open(dir.path(), clock).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for i in 0..200 {
        // Equal size, equal time, inode numbers given again: only our stamp tells them apart.
        let etag = store
            .put("x", bytes(&format!("{i:03}")), Condition::Always)
            .await
            .unwrap();
        assert!(seen.insert(etag.0.clone()), "{etag:?} twice");
        if i % 2 == 0 {
            store.delete("x", &etag).await.unwrap();
        }
    }
}

#[tokio::test]
async fn space_is_given_back_block_by_block_and_a_commit_goes_on_where_it_failed() {
    let (store, dir) = fresh().await;
    let up = upload("b/x", RUN);
    let run = dir.path().join(".staging").join(RUN);
    for n in 0..3 {
        store.stage_block(&up, n, bytes(&format!("block-{n};"))).await.unwrap();
    }
    // The third is missing: the first two are put together, and their space is free.
    fs::rename(run.join("2"), dir.path().join(".kept")).unwrap();
    let refused = store.commit(&up, &[0, 1, 2], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    assert!(!run.join("0").exists() && !run.join("1").exists());
    assert!(store.list("").await.unwrap().is_empty());
    // A torn append is cut off again.
    let mut torn = fs::read(run.join("whole")).unwrap();
    torn.extend(b"half a blo");
    fs::write(run.join("whole"), torn).unwrap();
    let refused = store.stage_block(&up, 0, bytes("other")).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    let refused = store.commit(&up, &[1, 0, 2], &Metadata::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused}");
    fs::rename(dir.path().join(".kept"), run.join("2")).unwrap();
    store.commit(&up, &[0, 1, 2], &Metadata::new()).await.unwrap();
    assert_eq!(whole(&store, "b/x").await, "block-0;block-1;block-2;");
}

#[tokio::test]
async fn uploads_older_than_a_week_are_swept() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(FixedClock::at(SystemClock.now()));
    let store = DirectoryStore::open(dir.path(), Arc::clone(&clock) as Arc<dyn Clock>)
        .await
        .unwrap();
    let day = SignedDuration::from_hours(24);
    let later = |days: i32| -> Timestamp { SystemClock.now() + day * days };
    let staged = |run: &str| dir.path().join(".staging").join(run).exists();

    store.stage_block(&upload("b/x", RUN), 0, bytes("x")).await.unwrap();
    clock.set(later(6));
    store
        .stage_block(&upload("b/y", "aaaaaaaaaa"), 0, bytes("x"))
        .await
        .unwrap();
    assert!(staged(RUN) && staged("aaaaaaaaaa"));
    clock.set(later(8));
    store
        .stage_block(&upload("b/z", "bbbbbbbbbb"), 0, bytes("x"))
        .await
        .unwrap();
    assert!(!staged(RUN), "swept when another upload begins");
    assert!(fs::read_dir(dir.path().join(".staging")).unwrap().count() <= 1);
}

#[tokio::test]
async fn a_missing_or_exchanged_root_is_no_empty_store() {
    let outer = TempDir::new().unwrap();
    let root = outer.path().join("store");
    let refused = DirectoryStore::open(&root, Arc::new(SystemClock)).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::NoContainer { hint, .. } if hint.contains("install -d")),
        "{refused}"
    );

    let store = DirectoryStore::open_or_create(&root, Arc::new(SystemClock))
        .await
        .unwrap();
    store.put("x", bytes("x"), Condition::Absent).await.unwrap();
    fs::rename(&root, outer.path().join("elsewhere")).unwrap();
    let refused = store.list("").await.unwrap_err();
    assert!(matches!(refused, StoreError::NoContainer { .. }), "{refused}");
    fs::create_dir(&root).unwrap();
    for refused in [
        store.list("").await.unwrap_err(),
        store.put("y", bytes("y"), Condition::Absent).await.unwrap_err(),
    ] {
        assert!(matches!(refused, StoreError::NoContainer { .. }), "{refused}");
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stores_over_one_root_exclude_each_other() {
    // Two handles are as apart as two processes: flock goes with the open file.
    let dir = TempDir::new().unwrap();
    let mut stores: Vec<Store> = Vec::new();
    for _ in 0..4 {
        stores.push(Arc::new(
            DirectoryStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap(),
        ));
    }
    for round in 0..50 {
        let name = format!("r{round}");
        let puts = stores.iter().map(|s| s.put(&name, bytes("x"), Condition::Absent));
        let won = futures_util::future::join_all(puts)
            .await
            .into_iter()
            .filter(Result::is_ok)
            .count();
        assert_eq!(won, 1);
    }
}

/// A file system of its own that is full: only where this process may mount one.
#[tokio::test]
async fn a_full_disk_is_no_space() {
    let dir = TempDir::new().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        eprintln!("SKIPPED a_full_disk_is_no_space: may not mount a tmpfs here");
        return;
    }
    let store = DirectoryStore::open(dir.path(), Arc::new(SystemClock)).await.unwrap();
    let refused = store.stage_block(&upload("x", RUN), 0, vec![1; 1 << 20].into()).await;
    let refused_put = store.put("y", vec![1; 1 << 20].into(), Condition::Absent).await;
    let listed = store.list("").await;
    drop(store);
    let _ = std::process::Command::new("umount").arg(dir.path()).status();
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    assert!(
        matches!(refused_put, Err(StoreError::NoSpace { .. })),
        "{refused_put:?}"
    );
    assert!(listed.unwrap().is_empty());
}
