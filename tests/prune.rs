//! Carrying out retention: only the versions listed, only with clocks that agree, and what it says.

mod clocked;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use clocked::{Clocked, lock};
use jiff::{SignedDuration, Timestamp};
use planb::backup::entry::{BackupId, Entry, Standing};
use planb::backup::prune::{EXPIRABLE_TAG, PruneError, describe, execute, lifecycle_policy_json};
use planb::backup::retention::{Approved, Excess, Freeze, Holds, keep};
use planb::clock::FixedClock;
use planb::config::{Generations, Removal, Retention};
use planb::store::{BlobStore, Condition};
use tokio_util::sync::CancellationToken;

fn policy(removal: Removal) -> Retention {
    Retention {
        keep_all: Duration::from_secs(48 * 3600 + 1),
        keep_hourly: Duration::ZERO,
        keep_days: 0,
        keep_at_least: 2,
        generations: Generations::default(),
        removal,
    }
}

/// Six backups of a month ago: four too many, oldest first.
async fn month_old(store: &Clocked) -> Vec<Entry> {
    let mut entries = Vec::new();
    for n in 0..6 {
        let at: Timestamp = store.time() - SignedDuration::from_hours(24 * 30) + SignedDuration::from_mins(n);
        let id = BackupId::at(at);
        let blob = id.blob("backups/");
        let etag = store
            .put(&blob, Bytes::from_static(b"x"), Condition::Absent)
            .await
            .expect("written");
        entries.push(Entry {
            id,
            blob,
            etag,
            size_bytes: 1,
            raw_bytes: 1,
            rows: 1,
            site: String::new(),
            epoch: 1,
            consistent_at: at,
            committed_at: at,
            digest: String::new(),
            standing: Standing::Good,
            proven_at: None,
            structure_checked_at: None,
        });
    }
    entries
}

fn approve(entries: &[Entry], policy: &Retention, holds: &Holds, store: &Clocked) -> Approved {
    keep(entries, policy, holds, store.time())
        .approve(Excess::Allow)
        .expect("allowed")
}

#[tokio::test]
async fn deletes_only_the_versions_that_were_listed() {
    let store = Clocked::new();
    let entries = month_old(&store).await;
    let policy = policy(Removal::Delete);
    let approved = approve(&entries, &policy, &Holds::default(), &store);
    assert_eq!(describe(approved.pruning()).len(), 4);
    assert!(lock(&store.deeds).is_empty(), "saying it does nothing");
    // Meanwhile one was replaced and one removed by somebody else.
    store
        .put(&entries[1].blob, Bytes::from_static(b"y"), Condition::Always)
        .await
        .expect("written");
    store.delete(&entries[2].blob, &entries[2].etag).await.expect("deleted");
    lock(&store.deeds).clear();
    let done = execute(&store, &approved, Removal::Delete, &store, &CancellationToken::new())
        .await
        .expect("done");
    assert_eq!((done.removed, done.gone, done.changed, done.bytes), (2, 1, 1, 2));
    let expected: Vec<String> = [0, 3]
        .iter()
        .map(|&n: &usize| format!("delete {}", entries[n].blob))
        .collect();
    assert_eq!(*lock(&store.deeds), expected);
}

#[tokio::test]
async fn clocks_that_disagree_stop_it() {
    let store = Clocked::new();
    let entries = month_old(&store).await;
    let approved = approve(&entries, &policy(Removal::Delete), &Holds::default(), &store);
    for minutes in [-5, 5] {
        let local =
            FixedClock::at(store.time() + SignedDuration::from_mins(minutes) + SignedDuration::from_secs(minutes));
        let refused = execute(&store, &approved, Removal::Delete, &local, &CancellationToken::new()).await;
        assert!(
            matches!(refused, Err(PruneError::Clock(Freeze::ClockSkew(_)))),
            "{refused:?}"
        );
    }
    assert!(lock(&store.deeds).is_empty());
}

#[tokio::test]
async fn stops_when_asked_and_at_the_first_refusal() {
    let store = Clocked::new();
    let entries = month_old(&store).await;
    let approved = approve(&entries, &policy(Removal::Delete), &Holds::default(), &store);
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let done = execute(&store, &approved, Removal::Delete, &store, &cancelled)
        .await
        .expect("stopped");
    assert!(done.cancelled && done.removed == 0);
    *lock(&store.down) = true;
    let refused = execute(&store, &approved, Removal::Delete, &store, &CancellationToken::new()).await;
    assert!(matches!(refused, Err(PruneError::StoreClock(_))), "{refused:?}");
}

#[tokio::test]
async fn tag_mode_tags_what_may_go_and_untags_what_is_kept_again() {
    let store = Clocked::new();
    let entries = month_old(&store).await;
    let other = BTreeMap::from([("owner".to_owned(), "bank".to_owned())]);
    store.set_tags(&entries[0].blob, &other).await.expect("tagged");
    let policy = policy(Removal::Tag);
    let approved = approve(&entries, &policy, &Holds::default(), &store);
    let cancel = CancellationToken::new();
    let done = execute(&store, &approved, Removal::Tag, &store, &cancel)
        .await
        .expect("done");
    assert_eq!(done.removed, 4);
    let tags = store.tags(&entries[0].blob).await.expect("there");
    assert_eq!(
        (tags.len(), tags[EXPIRABLE_TAG].as_str()),
        (2, "true"),
        "another's tag stays"
    );
    assert!(store.tags(&entries[5].blob).await.expect("there").is_empty());
    // A failover opens: the lifecycle rule must not go on removing.
    let frozen = Holds {
        freezes: vec![Freeze::Failover],
        ..Holds::default()
    };
    let approved = approve(&entries, &policy, &frozen, &store);
    let done = execute(&store, &approved, Removal::Tag, &store, &cancel)
        .await
        .expect("done");
    assert_eq!((done.removed, done.untagged), (0, 4));
    assert_eq!(store.tags(&entries[0].blob).await.expect("there"), other);
}

#[test]
fn the_lifecycle_rule_matches_the_tag_and_no_young_backup() {
    let rule = &lifecycle_policy_json("mysql-backups", "backups/", &policy(Removal::Tag))["rules"][0];
    let filters = &rule["definition"]["filters"];
    assert_eq!(filters["prefixMatch"][0], "mysql-backups/backups/");
    assert_eq!(filters["blobTypes"][0], "blockBlob");
    assert_eq!(filters["blobIndexMatch"][0]["name"], EXPIRABLE_TAG);
    assert_eq!(filters["blobIndexMatch"][0]["op"], "==");
    let delete = &rule["definition"]["actions"]["baseBlob"]["delete"];
    assert_eq!(
        delete["daysAfterModificationGreaterThan"], 3,
        "48 h and a second, in whole days"
    );
    assert_eq!((&rule["type"], &rule["enabled"]), (&"Lifecycle".into(), &true.into()));
}
