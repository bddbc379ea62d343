//! Promise 8, one at a time: the lease under contention, expiry, lost answers and clocks that jump.

mod clocked;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clocked::{Clocked, Fate, lock};
use jiff::SignedDuration;
use planb::backup::lease::{Lease, LeaseError, RUN, Record, Who, acquire};
use planb::store::{BlobStore, Condition};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const TTL: Duration = Duration::from_secs(60);

fn who(run: u32) -> Who {
    Who {
        holder: "agent".into(),
        run_id: format!("run{run}"),
        host: "here".into(),
        pid: run,
    }
}

async fn take(store: &Arc<Clocked>, run: u32) -> Result<Lease, LeaseError> {
    acquire(Arc::clone(store) as Arc<dyn BlobStore>, RUN, who(run), TTL).await
}

fn written(store: &Clocked) -> Record {
    serde_json::from_slice(&store.content(RUN).expect("a lease")).expect("a record")
}

#[tokio::test(start_paused = true)]
async fn the_second_one_learns_who_has_it_and_gets_it_after_release() {
    let store = Arc::new(Clocked::new());
    let first = take(&store, 1).await.expect("free");
    first.confirm().await.expect("ours");
    let refused = take(&store, 2).await.expect_err("held");
    assert!(!refused.is_permanent());
    let text = refused.to_string();
    assert!(
        text.contains("run run1, process 1 on here") && text.contains("until 2026-01-01T00:01:00Z"),
        "{text}"
    );
    first.release().await.expect("released");
    assert!(written(&store).released, "the trace of the last holder stays");
    take(&store, 2).await.expect("free again");
}

#[tokio::test(start_paused = true)]
async fn many_contenders_are_never_inside_together() {
    let store = Arc::new(Clocked::new());
    let inside = Arc::new(AtomicU32::new(0));
    let mut contenders = JoinSet::new();
    for run in 0..12 {
        let (store, inside) = (Arc::clone(&store), Arc::clone(&inside));
        contenders.spawn(async move {
            let mut turns = 0;
            while turns < 3 {
                match take(&store, run).await {
                    Ok(lease) => {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        tokio::time::sleep(Duration::from_secs(u64::from(run) * 13 % 100)).await;
                        assert!(!lease.lost().is_cancelled());
                        inside.fetch_sub(1, Ordering::SeqCst);
                        lease.release().await.expect("ours until now");
                        turns += 1;
                    }
                    Err(LeaseError::Held { .. } | LeaseError::Lost { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                tokio::time::sleep(Duration::from_millis(500 + 7 * u64::from(run))).await;
            }
        });
    }
    while let Some(ended) = contenders.join_next().await {
        ended.expect("no contender failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_holder_keeps_it_and_a_dead_one_is_replaced_only_after_expiry() {
    let store = Arc::new(Clocked::new());
    let first = take(&store, 1).await.expect("free");
    tokio::time::sleep(10 * TTL).await;
    assert!(!first.lost().is_cancelled());
    assert!(
        matches!(take(&store, 2).await, Err(LeaseError::Held { .. })),
        "renewed ten times over"
    );
    // Killed: nobody renews. The last renewal was at most a third of the lease ago.
    drop(first);
    let until = written(&store).expires_at;
    tokio::time::sleep(Duration::try_from(until.duration_since(store.time())).expect("ahead") - Duration::from_secs(1))
        .await;
    assert!(
        matches!(take(&store, 2).await, Err(LeaseError::Held { .. })),
        "a second too early"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(take(&store, 2).await.expect("expired").record().run_id, "run2");
}

#[tokio::test(start_paused = true)]
async fn a_holder_who_cannot_renew_learns_it_before_the_lease_expires() {
    let store = Arc::new(Clocked::new());
    let lease = take(&store, 1).await.expect("free");
    tokio::time::sleep(TTL * 2).await;
    *lock(&store.down) = true;
    let until = written(&store).expires_at;
    timeout(TTL, lease.lost().cancelled()).await.expect("told");
    assert!(store.time() < until, "{} is not before {until}", store.time());
    assert!(matches!(lease.release().await, Err(LeaseError::Lost { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_is_no_excuse() {
    let store = Arc::new(Clocked::new());
    let lease = take(&store, 1).await.expect("free");
    lock(&store.fates).push_back(Fate::Slow(1_000_000));
    let until = written(&store).expires_at;
    timeout(TTL, lease.lost().cancelled()).await.expect("told");
    assert!(store.time() < until);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lease_costs_nothing() {
    let store = Arc::new(Clocked::new());
    let lease = take(&store, 1).await.expect("free");
    tokio::time::sleep(Duration::from_secs(19)).await;
    *lock(&store.down) = true;
    tokio::time::sleep(Duration::from_secs(25)).await;
    *lock(&store.down) = false;
    tokio::time::sleep(TTL).await;
    assert!(!lease.lost().is_cancelled());
    lease.release().await.expect("still ours");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_are_recognised_when_taking_renewing_and_releasing() {
    let store = Arc::new(Clocked::new());
    lock(&store.fates).extend([Fate::AnswerLost, Fate::Lost, Fate::AnswerLost]);
    let lease = take(&store, 1).await.expect("it had landed");
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert!(!lease.lost().is_cancelled());
    lease.confirm().await.expect("ours");
    assert!(written(&store).renewals >= 1);
    lock(&store.fates).extend([Fate::AnswerLost]);
    lease.release().await.expect("released, though nobody said so");
    take(&store, 2).await.expect("free");
}

/// The renewal landed, its answer was lost, and reading back failed too: the next try meets its own predecessor.
#[tokio::test(start_paused = true)]
async fn a_renewal_that_meets_its_own_predecessor_goes_on_from_it() {
    let store = Arc::new(Clocked::new());
    let lease = take(&store, 1).await.expect("free");
    let mine = Record {
        renewals: 1,
        expires_at: store.time() + 2 * TTL,
        ..written(&store)
    };
    let landed = Bytes::from(serde_json::to_vec(&mine).expect("JSON"));
    store.put(RUN, landed, Condition::Always).await.expect("written");
    tokio::time::sleep(TTL).await;
    assert!(!lease.lost().is_cancelled());
    assert!(written(&store).renewals >= 2);
    lease.release().await.expect("still ours");
}

#[tokio::test(start_paused = true)]
async fn who_was_taken_over_learns_it_at_the_next_renewal_and_when_asking() {
    let store = Arc::new(Clocked::new());
    let first = take(&store, 1).await.expect("free");
    // The store's clock jumps: by it, the lease is over.
    store.jump(SignedDuration::from_secs(61));
    let second = take(&store, 2).await.expect("expired by the store's clock");
    assert!(matches!(first.confirm().await, Err(LeaseError::Lost { .. })));
    let third = Instant::now();
    timeout(TTL, first.lost().cancelled()).await.expect("told");
    assert!(third.elapsed() <= TTL / 3);
    assert!(
        matches!(first.release().await, Err(LeaseError::Lost { .. })),
        "and cannot free what is another's"
    );
    second.confirm().await.expect("untouched");
}

#[tokio::test(start_paused = true)]
async fn without_asking_the_renewal_tells_too() {
    let store = Arc::new(Clocked::new());
    let first = take(&store, 1).await.expect("free");
    store.jump(SignedDuration::from_secs(61));
    let second = take(&store, 2).await.expect("expired by the store's clock");
    timeout(TTL / 3 + Duration::from_secs(1), first.lost().cancelled())
        .await
        .expect("told");
    second.confirm().await.expect("untouched");
}

#[tokio::test(start_paused = true)]
async fn a_store_clock_set_back_steals_nothing() {
    let store = Arc::new(Clocked::new());
    let first = take(&store, 1).await.expect("free");
    store.jump(SignedDuration::from_hours(-1));
    assert!(matches!(take(&store, 2).await, Err(LeaseError::Held { .. })));
    tokio::time::sleep(TTL).await;
    first.confirm().await.expect("renewed by the new time");
    assert!(matches!(take(&store, 2).await, Err(LeaseError::Held { .. })));
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_lease_blocks_for_a_while_not_for_ever() {
    let store = Arc::new(Clocked::new());
    for torn in [&b""[..], b"{", b"null", b"{\"v\":1}"] {
        store
            .put(RUN, Bytes::copy_from_slice(torn), Condition::Always)
            .await
            .expect("written");
        assert!(matches!(take(&store, 1).await, Err(LeaseError::Held { .. })));
        tokio::time::sleep(Duration::from_secs(600)).await;
        take(&store, 1).await.expect("nobody can be behind it any more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_took_too_long_to_get_is_not_believed() {
    let store = Arc::new(Clocked::new());
    lock(&store.fates).push_back(Fate::Slow(55_000));
    assert!(matches!(take(&store, 1).await, Err(LeaseError::Lost { .. })));
}
