//! One run at a time, whoever shares the store: a lease in one small blob of the control store.
//!
//! Time is the store's clock: expiry is written and judged by it, so no local clock can steal or stretch a lease.
//! Every write is conditional on the version seen (compare and swap). The holder renews every third of the lease;
//! if it cannot, [`Lease::lost`] fires *before* the lease expires: the holder's own deadline counts from before
//! it asked the store for the time, on its monotonic clock, less a sixth. A write whose answer was lost is
//! recognised by its bytes, which carry a number that never repeats.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{BlobStore, Condition, ETag, StoreError};

/// The lease that keeps backup runs from overlapping.
pub const RUN: &str = "lease/run";

/// A lease blob that nobody can read blocks until this long after it was written.
const UNREADABLE_FOR: SignedDuration = SignedDuration::from_mins(10);

/// Times one write is repeated before giving up on an answer.
const TRIES: u32 = 3;

/// Who wants the lease; all of it only to tell others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// E.g. `agent`, or a person's name.
    pub holder: String,
    /// Random for each run: tells two runs of one process apart.
    pub run_id: String,
    pub host: String,
    pub pid: u32,
}

/// What stands in the blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub v: u32,
    pub holder: String,
    pub run_id: String,
    pub host: String,
    pub pid: u32,
    pub acquired_at: Timestamp,
    /// Equal to the time of writing once released.
    pub expires_at: Timestamp,
    /// Counts the writes of this run, so that no two of them are the same bytes.
    pub renewals: u64,
    pub released: bool,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (run {}, process {} on {})",
            self.holder, self.run_id, self.pid, self.host
        )
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    #[error("{by} holds {name} since {since}, until {until} unless renewed; wait, or stop that one first")]
    Held {
        name: String,
        by: String,
        since: Timestamp,
        until: Timestamp,
    },
    /// Held once, not any more: stop what needed it.
    #[error("{name} was lost: it expired or somebody else took it over")]
    Lost { name: String },
    #[error("the lease {name} could not be read or written")]
    Store {
        name: String,
        #[source]
        source: StoreError,
    },
}

impl LeaseError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Held { .. } => false,
            Self::Lost { .. } => true,
            Self::Store { source, .. } => source.is_permanent(),
        }
    }
}

/// A lease that is held. Dropping it stops renewing, and it expires; [`release`](Self::release) frees it at once.
#[derive(Debug)]
pub struct Lease {
    slot: Slot,
    written: Arc<Mutex<Written>>,
    lost: CancellationToken,
    /// Owns the renewing task: dropped, it aborts.
    renewing: JoinSet<()>,
}

/// The blob, and how to write it.
#[derive(Debug, Clone)]
struct Slot {
    store: Arc<dyn BlobStore>,
    name: String,
    ttl: Duration,
}

/// The version that is ours.
#[derive(Debug, Clone)]
struct Written {
    record: Record,
    etag: ETag,
    /// From here on the holder must not trust it.
    deadline: Instant,
}

/// Takes the lease `name` for `who`, for `ttl` at a time, or says who has it. Taken over only after its expiry by
/// the store's clock.
pub async fn acquire(store: Arc<dyn BlobStore>, name: &str, who: Who, ttl: Duration) -> Result<Lease, LeaseError> {
    let slot = Slot {
        store,
        name: name.to_owned(),
        ttl,
    };
    let current = slot.read().await?;
    let asked = Instant::now();
    let now = slot.now().await?;
    let condition = match current {
        None => Condition::Absent,
        Some((Some(record), etag, _)) if record.released || record.expires_at <= now => Condition::Matches(etag),
        // Our own, written by an earlier try whose answer never came.
        Some((Some(record), etag, _)) if record.holder == who.holder && record.run_id == who.run_id => {
            Condition::Matches(etag)
        }
        Some((Some(record), _, _)) => return Err(slot.held(&record)),
        Some((None, etag, modified)) if plus(modified, UNREADABLE_FOR) <= now => Condition::Matches(etag),
        Some((None, _, modified)) => {
            let (by, until) = ("somebody unreadable".to_owned(), plus(modified, UNREADABLE_FOR));
            return Err(LeaseError::Held {
                name: slot.name,
                by,
                since: modified,
                until,
            });
        }
    };
    let record = Record {
        v: 1,
        holder: who.holder,
        run_id: who.run_id,
        host: who.host,
        pid: who.pid,
        acquired_at: now,
        expires_at: plus(now, signed(ttl)),
        renewals: 0,
        released: false,
    };
    let written = slot.write(record, condition, asked).await?;
    if written.deadline <= Instant::now() {
        return Err(LeaseError::Lost { name: slot.name });
    }
    let lost = CancellationToken::new();
    let written = Arc::new(Mutex::new(written));
    let mut renewing = JoinSet::new();
    renewing.spawn(renew(slot.clone(), Arc::clone(&written), lost.clone()));
    Ok(Lease {
        slot,
        written,
        lost,
        renewing,
    })
}

/// Who has the lease `name` now, by the store's clock; nobody where it expired or was given back.
///
/// # Errors
/// [`LeaseError::Store`].
pub async fn held(store: Arc<dyn BlobStore>, name: &str) -> Result<Option<Record>, LeaseError> {
    let slot = Slot {
        store,
        name: name.to_owned(),
        ttl: Duration::ZERO,
    };
    let Some((record, _, modified)) = slot.read().await? else {
        return Ok(None);
    };
    let now = slot.now().await?;
    Ok(match record {
        Some(record) => Some(record).filter(|record| !record.released && record.expires_at > now),
        // Nobody can read it: somebody may have it.
        None if plus(modified, UNREADABLE_FOR) > now => Some(Record {
            v: 1,
            holder: "somebody unreadable".to_owned(),
            run_id: String::new(),
            host: String::new(),
            pid: 0,
            acquired_at: modified,
            expires_at: plus(modified, UNREADABLE_FOR),
            renewals: 0,
            released: false,
        }),
        None => None,
    })
}

impl Lease {
    /// Fires when the lease can no longer be trusted, before it expires (and when it is released). Stop then.
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    pub fn record(&self) -> Record {
        lock(&self.written).record.clone()
    }

    /// Asks the store whether the lease is still ours; for the moment before a deed that cannot be taken back,
    /// since a machine that slept does not know how long.
    pub async fn confirm(&self) -> Result<(), LeaseError> {
        let there = self.slot.read().await?;
        let now = self.slot.now().await?;
        let ours = self.record();
        let still = |record: &Record| {
            record.run_id == ours.run_id && record.holder == ours.holder && !record.released && record.expires_at > now
        };
        match there {
            Some((Some(record), _, _)) if still(&record) && !self.lost.is_cancelled() => Ok(()),
            Some(_) | None => {
                self.lost.cancel();
                Err(LeaseError::Lost {
                    name: self.slot.name.clone(),
                })
            }
        }
    }

    /// Frees the lease for others at once. The record stays, as the last holder's trace (and since an agent may
    /// lack the right to delete). [`LeaseError::Lost`] if it was not ours any more.
    pub async fn release(mut self) -> Result<(), LeaseError> {
        // Asked first: ending the renewals fires the token, as whatever ends them does.
        let lost = self.lost.is_cancelled();
        // A renewal in flight may have landed or not; our own write below is conditional, so either is fine.
        self.renewing.shutdown().await;
        if lost {
            return Err(LeaseError::Lost {
                name: self.slot.name.clone(),
            });
        }
        let mut written = lock(&self.written).clone();
        for _ in 0..TRIES {
            let now = self.slot.now().await?;
            let renewals = written.record.renewals + 1;
            let record = Record {
                expires_at: now,
                renewals,
                released: true,
                ..written.record.clone()
            };
            let condition = Condition::Matches(written.etag.clone());
            match self.slot.write(record, condition, Instant::now()).await {
                Ok(_) => return Ok(()),
                Err(LeaseError::Held { .. } | LeaseError::Lost { .. }) => {}
                Err(error @ LeaseError::Store { .. }) => return Err(error),
            }
            // The aborted renewal did land: go on from it.
            match self.slot.read().await? {
                Some((Some(record), etag, _)) if record.run_id == written.record.run_id && !record.released => {
                    written = Written {
                        record,
                        etag,
                        ..written
                    };
                }
                Some(_) | None => break,
            }
        }
        Err(LeaseError::Lost {
            name: self.slot.name.clone(),
        })
    }
}

/// Renews every third of the lease; when that fails until the deadline, or somebody else took over, says so.
async fn renew(slot: Slot, written: Arc<Mutex<Written>>, lost: CancellationToken) {
    // Whatever ends this task (also a panic), nobody goes on believing.
    let _fires = lost.drop_guard();
    let mut wait = slot.ttl / 3;
    loop {
        let before = lock(&written).clone();
        let attempt = async {
            tokio::time::sleep(wait).await;
            let asked = Instant::now();
            let expires_at = plus(slot.now().await?, signed(slot.ttl));
            let renewals = before.record.renewals + 1;
            let record = Record {
                expires_at,
                renewals,
                ..before.record.clone()
            };
            slot.write(record, Condition::Matches(before.etag.clone()), asked).await
        };
        match tokio::time::timeout_at(before.deadline, attempt).await {
            Ok(Ok(renewed)) => {
                *lock(&written) = renewed;
                wait = slot.ttl / 3;
            }
            Ok(Err(error @ LeaseError::Store { .. })) => {
                tracing::warn!(lease = %slot.name, error = %error, cause = ?error, "lease not renewed; trying again");
                wait = slot.ttl / 12;
            }
            Ok(Err(error @ (LeaseError::Held { .. } | LeaseError::Lost { .. }))) => {
                // Refused by an earlier renewal of our own, whose answer never came? Then go on from that one.
                let there = tokio::time::timeout_at(before.deadline, slot.read()).await;
                let Ok(Ok(Some((Some(record), etag, _)))) = there else {
                    return;
                };
                if record.holder != before.record.holder || record.run_id != before.record.run_id || record.released {
                    tracing::error!(lease = %slot.name, error = %error, "lease taken over");
                    return;
                }
                *lock(&written) = Written { record, etag, ..before };
                wait = Duration::ZERO;
            }
            Err(_) => {
                tracing::error!(lease = %slot.name, "lease could not be renewed in time; giving it up");
                return;
            }
        }
    }
}

impl Slot {
    /// The record (`None`: unreadable), its version, and when it was written.
    async fn read(&self) -> Result<Option<(Option<Record>, ETag, Timestamp)>, LeaseError> {
        for _ in 0..TRIES {
            let Some(found) = self.store.properties(&self.name).await.map_err(|e| self.failed(e))? else {
                return Ok(None);
            };
            match self
                .store
                .read(&self.name, 0..found.size_bytes, Some(&found.etag))
                .await
            {
                Ok(bytes) => {
                    return Ok(Some((
                        serde_json::from_slice(&bytes).ok(),
                        found.etag,
                        found.last_modified,
                    )));
                }
                // Renewed between the two calls: look again.
                Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        let detail = "it changes faster than it can be read".to_owned();
        Err(self.failed(StoreError::Unavailable {
            store: self.store.describe(),
            detail,
        }))
    }

    /// Writes `record` if `condition` holds. When the answer is lost, or a retry is refused because the first try
    /// had landed, the blob is read back: if it is `record`, it was ours.
    async fn write(&self, record: Record, condition: Condition, asked: Instant) -> Result<Written, LeaseError> {
        let detail = |e: serde_json::Error| StoreError::Invalid {
            store: self.store.describe(),
            detail: e.to_string(),
        };
        let bytes = Bytes::from(serde_json::to_vec(&record).map_err(|e| self.failed(detail(e)))?);
        // A sixth of the lease covers clocks that run at slightly different speeds.
        let deadline = asked + self.ttl.saturating_sub(self.ttl / 6);
        let mut last = None;
        for _ in 0..TRIES {
            let refused = match self.store.put(&self.name, bytes.clone(), condition.clone()).await {
                Ok(etag) => return Ok(Written { record, etag, deadline }),
                Err(refused) => refused,
            };
            if !matches!(
                refused,
                StoreError::AlreadyExists { .. } | StoreError::Changed { .. } | StoreError::Unavailable { .. }
            ) {
                return Err(self.failed(refused));
            }
            match self.read().await? {
                Some((Some(there), etag, _)) if there == record => return Ok(Written { record, etag, deadline }),
                Some((Some(there), _, _)) if refused.is_permanent() => return Err(self.held(&there)),
                _ if refused.is_permanent() => {
                    return Err(LeaseError::Lost {
                        name: self.name.clone(),
                    });
                }
                _ => last = Some(refused),
            }
        }
        let store = self.store.describe();
        let unknown = StoreError::Unavailable {
            store,
            detail: "no answer".to_owned(),
        };
        Err(self.failed(last.unwrap_or(unknown)))
    }

    async fn now(&self) -> Result<Timestamp, LeaseError> {
        self.store.now().await.map_err(|e| self.failed(e))
    }

    fn held(&self, by: &Record) -> LeaseError {
        let (since, until) = (by.acquired_at, by.expires_at);
        LeaseError::Held {
            name: self.name.clone(),
            by: by.to_string(),
            since,
            until,
        }
    }

    fn failed(&self, source: StoreError) -> LeaseError {
        LeaseError::Store {
            name: self.name.clone(),
            source,
        }
    }
}

/// This machine, as it tells others who holds or found something.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

fn lock(written: &Mutex<Written>) -> std::sync::MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn plus(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
