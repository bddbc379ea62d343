//! Retries, faults and re-opening: what a layer may promise when the store below misbehaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use planb::clock::SystemClock;
use planb::store::faulty::{Call, Chances, Fault, Faulty};
use planb::store::memory::MemoryStore;
use planb::store::reopening::{Opener, Reopening};
use planb::store::retrying::{RetryPolicy, Retrying};
use planb::store::{BlobStore, Condition, Metadata, StoreError};
use tokio_util::sync::CancellationToken;

use crate::guarantees::{Store, bytes, upload, whole};

pub async fn memory() -> (Store, ()) {
    (Arc::new(MemoryStore::new(Arc::new(SystemClock))), ())
}

const QUICK: RetryPolicy = RetryPolicy {
    first_delay: Duration::from_millis(1),
    longest_delay: Duration::from_millis(4),
    give_up_after: Duration::from_secs(20),
    try_timeout: Some(Duration::from_millis(50)),
};

/// Shows the seed when a test fails: cargo prints a failed test's output.
pub async fn retrying_over_faults() -> (Store, ()) {
    let seed = std::env::var("PLANB_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(rand::random);
    println!("PLANB_TEST_SEED={seed}");
    let chances = Chances {
        fail_before: 0.15,
        fail_after: 0.15,
        hang: 0.02,
        short_read: 0.1,
        slow: 0.1,
        slow_for: Duration::from_millis(2),
    };
    let faulty = Faulty::seeded(MemoryStore::new(Arc::new(SystemClock)), seed, chances);
    (
        Arc::new(Retrying::new(faulty, QUICK, seed, CancellationToken::new())),
        (),
    )
}

fn scripted<const N: usize>(script: [(Call, Fault); N]) -> Arc<Retrying<Faulty<MemoryStore>>> {
    let faulty = Faulty::scripted(MemoryStore::new(Arc::new(SystemClock)), script);
    Arc::new(Retrying::new(faulty, QUICK, 1, CancellationToken::new()))
}

const RUN: &str = "0123456789abcdef";

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_was_lost_is_recognised_by_its_bytes() {
    let store = scripted([(Call::Put, Fault::FailAfter)]);
    let etag = store.put("x", bytes("mine"), Condition::Absent).await.unwrap();
    assert_eq!(store.properties("x").await.unwrap().unwrap().etag, etag);

    store.inner().inject(Call::Put, Fault::FailAfter);
    let newer = store
        .put("x", bytes("mine 2"), Condition::Matches(etag.clone()))
        .await
        .unwrap();
    assert_eq!(store.properties("x").await.unwrap().unwrap().etag, newer);

    // Nothing was done before, and somebody else is there: a refusal, whatever the retries.
    store.inner().inject(Call::Put, Fault::FailBefore);
    let refused = store.put("x", bytes("other"), Condition::Absent).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    store.inner().inject(Call::Put, Fault::FailBefore);
    let refused = store
        .put("x", bytes("other"), Condition::Matches(etag))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    // Without a retry equal bytes are no proof.
    let refused = store.put("x", bytes("mine 2"), Condition::Absent).await.unwrap_err();
    assert!(matches!(refused, StoreError::AlreadyExists { .. }), "{refused}");
    assert_eq!(store.inner().injected(), 4);
}

#[tokio::test(start_paused = true)]
async fn commit_and_delete_whose_answer_was_lost_are_successes() {
    let store = scripted([
        (Call::StageBlock, Fault::FailAfter),
        (Call::Commit, Fault::FailAfter),
        (Call::Delete, Fault::FailAfter),
    ]);
    let up = upload("x", RUN);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    let there = store.commit(&up, &[0], &Metadata::new()).await.unwrap();
    store.delete("x", &there.etag).await.unwrap();
    assert_eq!(store.inner().injected(), 3);
    let gone = store.delete("x", &there.etag).await.unwrap_err();
    assert!(
        matches!(gone, StoreError::NotFound { .. }),
        "a first try finds nothing: {gone}"
    );
}

#[tokio::test(start_paused = true)]
async fn hangs_and_short_reads_are_repeated() {
    let store = scripted([
        (Call::Commit, Fault::HangAfter),
        (Call::Read, Fault::ShortRead),
        (Call::Read, Fault::Hang),
    ]);
    let up = upload("x", RUN);
    store.stage_block(&up, 0, bytes("data")).await.unwrap();
    store.commit(&up, &[0], &Metadata::new()).await.unwrap();
    let store: Store = store;
    assert_eq!(whole(&store, "x").await, "data");
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_in_time_and_never_repeats_what_is_permanent() {
    let policy = RetryPolicy {
        give_up_after: Duration::from_secs(60),
        ..RetryPolicy::DEFAULT
    };
    let always = Chances {
        fail_before: 1.0,
        ..Chances::default()
    };
    let faulty = Faulty::seeded(MemoryStore::new(Arc::new(SystemClock)), 7, always);
    let store = Retrying::new(faulty, policy, 7, CancellationToken::new());
    let began = tokio::time::Instant::now();
    let error = store.list("").await.unwrap_err();
    assert!(!error.is_permanent());
    assert!(
        (Duration::from_secs(45)..=Duration::from_secs(60)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
    let tries = store.inner().injected();
    assert!((9..20).contains(&tries), "{tries} tries");

    let denied = StoreError::Denied {
        store: "s".into(),
        detail: "d".into(),
    };
    let store = scripted([(Call::List, Fault::Refuse(denied))]);
    assert!(matches!(store.list("").await, Err(StoreError::Denied { .. })));
    assert_eq!(store.inner().injected(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_a_wait_and_a_hang() {
    for fault in [Fault::FailBefore, Fault::Hang] {
        let cancel = CancellationToken::new();
        let faulty = Faulty::scripted(MemoryStore::new(Arc::new(SystemClock)), [(Call::List, fault)]);
        let policy = RetryPolicy {
            first_delay: Duration::from_secs(3600),
            longest_delay: Duration::from_secs(3600),
            give_up_after: Duration::from_secs(7200),
            try_timeout: None,
        };
        let store = Retrying::new(faulty, policy, 1, cancel.clone());
        let began = tokio::time::Instant::now();
        let (result, ()) = tokio::join!(store.list(""), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cancel.cancel();
        });
        assert!(matches!(result, Err(StoreError::Unavailable { .. })));
        assert_eq!(began.elapsed().as_secs(), 5);
    }
}

#[derive(Debug, Default)]
struct Rotated {
    opened: AtomicUsize,
    refusals: usize,
}

#[async_trait]
impl Opener for Rotated {
    async fn open(&self) -> Result<Arc<dyn BlobStore>, StoreError> {
        let nth = self.opened.fetch_add(1, Ordering::SeqCst);
        let denied = StoreError::Denied {
            store: "s".into(),
            detail: format!("key {nth}"),
        };
        let script = (0..if nth < self.refusals { 9 } else { 0 }).map(|_| (Call::List, Fault::Refuse(denied.clone())));
        Ok(Arc::new(Faulty::scripted(
            MemoryStore::new(Arc::new(SystemClock)),
            script.collect::<Vec<_>>(),
        )))
    }
}

#[tokio::test(start_paused = true)]
async fn denied_opens_anew_once_a_minute() {
    let store = Reopening::open(Arc::new(Rotated {
        refusals: 1,
        ..Rotated::default()
    }))
    .await
    .unwrap();
    assert!(store.list("").await.unwrap().is_empty(), "the new key works");

    let opener = Arc::new(Rotated {
        refusals: 3,
        ..Rotated::default()
    });
    let store = Reopening::open(Arc::clone(&opener)).await.unwrap();
    for _ in 0..5 {
        assert!(matches!(store.list("").await, Err(StoreError::Denied { .. })));
    }
    assert_eq!(
        opener.opened.load(Ordering::SeqCst),
        2,
        "the vault is not asked at every refusal"
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    let _ = store.list("").await;
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(store.list("").await.unwrap().is_empty());
}
