//! Tries again what may succeed later, for as long as the policy says and no longer.
//!
//! Every call of [`BlobStore`] can be repeated, but three answers mean something else after a try whose
//! outcome is not known: a refused `put` may be our own success (the bytes there decide), a `delete` that
//! finds nothing has done its work, and `commit` recognises its own run id by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{BlobStore, BlockNumber, Condition, ETag, Limits, Metadata, Properties, Served, StoreError, Upload};
use crate::span;

/// How often and how long. Delays double from `first_delay` to `longest_delay`, each drawn evenly from its upper half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    pub first_delay: Duration,
    pub longest_delay: Duration,
    /// No try begins later than this after the first began.
    pub give_up_after: Duration,
    /// A try is dropped after this long, plus its data at 256 KiB/s. `None` where the store bounds its
    /// own calls (Azure), or where a call may rightly take long and dropping it does not stop it (directory).
    pub try_timeout: Option<Duration>,
}

impl RetryPolicy {
    /// Outlasts a failover of the storage service, but not an interval between backups.
    pub const DEFAULT: Self = Self {
        first_delay: Duration::from_millis(200),
        longest_delay: Duration::from_secs(10),
        give_up_after: Duration::from_secs(180),
        try_timeout: None,
    };
}

const SLOWEST_BYTES_PER_SECOND: u64 = 256 * 1024;

/// Told of each try, for measurements.
pub trait Meter: Send + Sync + fmt::Debug {
    /// A try ended, with `error` if it failed. `operation` is one of a fixed list.
    fn answered(&self, operation: &'static str, took: Duration, error: Option<&StoreError>);
    /// It will be made again.
    fn retried(&self, operation: &'static str);
}

/// A layer that repeats calls of `inner` while its errors are not permanent.
#[derive(Debug)]
pub struct Retrying<S> {
    inner: S,
    policy: RetryPolicy,
    rng: Mutex<StdRng>,
    cancel: CancellationToken,
    meter: Option<Arc<dyn Meter>>,
}

/// What the last try said, and whether an earlier one may have done the work unseen.
struct Outcome<T> {
    result: Result<T, StoreError>,
    earlier_try_unknown: bool,
}

impl<S: BlobStore> Retrying<S> {
    /// `seed` decides the jitter. Once `cancel` is cancelled no try goes on and none begins, but for one of `discard`.
    pub fn new(inner: S, policy: RetryPolicy, seed: u64, cancel: CancellationToken) -> Self {
        Self {
            inner,
            policy,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            cancel,
            meter: None,
        }
    }

    #[must_use]
    pub fn metered(self, meter: Option<Arc<dyn Meter>>) -> Self {
        Self { meter, ..self }
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn unavailable(&self, detail: &str) -> StoreError {
        StoreError::Unavailable {
            store: self.inner.describe(),
            detail: detail.to_owned(),
        }
    }

    fn delay(&self, tries: u32) -> Duration {
        let doubled = self
            .policy
            .first_delay
            .saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
        let share = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .random_range(0.5..=1.0);
        doubled.min(self.policy.longest_delay).mul_f64(share)
    }

    async fn one_try<T>(&self, bytes: u64, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let Some(floor) = self.policy.try_timeout else {
            return call.await;
        };
        let bound = floor + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
        match tokio::time::timeout(bound, call).await {
            Ok(result) => result,
            Err(_) => Err(self.unavailable(&format!("no answer within {bound:?}"))),
        }
    }

    /// `call` makes one try. `bytes` is what it moves.
    async fn retry<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        operation: &'static str,
        bytes: u64,
        call: impl Fn() -> F,
    ) -> Outcome<T> {
        let span = span::work_at!(tracing::Level::DEBUG, "store request", operation, bytes);
        let outcome = self.tried(operation, bytes, call).instrument(span.clone()).await;
        if let Err(error) = &outcome.result {
            span::failed(&span, error);
        }
        outcome
    }

    async fn tried<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        operation: &'static str,
        bytes: u64,
        call: impl Fn() -> F,
    ) -> Outcome<T> {
        let began = Instant::now();
        let mut tries: u32 = 0;
        loop {
            tries += 1;
            let tried = Instant::now();
            let result = tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(self.unavailable("cancelled")),
                result = self.one_try(bytes, call()) => {
                    if let Some(meter) = &self.meter {
                        meter.answered(operation, tried.elapsed(), result.as_ref().err());
                    }
                    result
                }
            };
            let earlier_try_unknown = tries > 1;
            let error = match result {
                Err(error) if !error.is_permanent() && !self.cancel.is_cancelled() => error,
                result => {
                    return Outcome {
                        result,
                        earlier_try_unknown,
                    };
                }
            };
            let delay = self.delay(tries);
            if began.elapsed() + delay > self.policy.give_up_after {
                return Outcome {
                    result: Err(error),
                    earlier_try_unknown,
                };
            }
            tracing::debug!(operation, tries, ?delay, %error, "store call failed; trying again");
            if let Some(meter) = &self.meter {
                meter.retried(operation);
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return Outcome { result: Err(error), earlier_try_unknown },
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// The version under `name`, if its bytes are `data`: then a refusal was our own lost answer.
    ///
    /// Writers who must be told apart put their own mark into the bytes; equal bytes are equal outcomes.
    async fn written_by_us(&self, name: &str, data: &Bytes) -> Result<Option<ETag>, StoreError> {
        let Some(there) = self.properties(name).await? else {
            return Ok(None);
        };
        if there.size_bytes != data.len() as u64 {
            return Ok(None);
        }
        match self.read(name, 0..there.size_bytes, Some(&there.etag)).await {
            Ok(bytes) if bytes == *data => Ok(Some(there.etag)),
            Ok(_) | Err(StoreError::Changed { .. } | StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Retrying<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        let bytes = data.len() as u64;
        self.retry("stage_block", bytes, || {
            self.inner.stage_block(upload, block, data.clone())
        })
        .await
        .result
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        self.retry("commit", 0, || self.inner.commit(upload, blocks, metadata))
            .await
            .result
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        // Clearing up is what a cancelled caller does next: it gets one try.
        if self.cancel.is_cancelled() {
            return self.one_try(0, self.inner.discard(upload)).await;
        }
        self.retry("discard", 0, || self.inner.discard(upload)).await.result
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        self.retry("list", 0, || self.inner.list(prefix)).await.result
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.retry("properties", 0, || self.inner.properties(name)).await.result
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let read = || async {
            let data = self.inner.read(name, range.clone(), etag).await?;
            // Promised by the trait; checked here too, because a caller that believes it loses data.
            if data.len() as u64 == wanted {
                Ok(data)
            } else {
                Err(self.unavailable(&format!("{} of {wanted} bytes of {name} arrived", data.len())))
            }
        };
        self.retry("read", wanted, read).await.result
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        let bytes = data.len() as u64;
        let put = || self.inner.put(name, data.clone(), condition.clone());
        let outcome = self.retry("put", bytes, put).await;
        match outcome.result {
            Err(refused @ (StoreError::AlreadyExists { .. } | StoreError::Changed { .. }))
                if outcome.earlier_try_unknown =>
            {
                self.written_by_us(name, &data).await?.ok_or(refused)
            }
            result => result,
        }
    }

    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        let bytes = data.len() as u64;
        let publish = || self.inner.publish(name, data.clone(), served, condition.clone());
        let outcome = self.retry("publish", bytes, publish).await;
        match outcome.result {
            Err(refused @ (StoreError::AlreadyExists { .. } | StoreError::Changed { .. }))
                if outcome.earlier_try_unknown =>
            {
                match self.written_by_us(name, &data).await? {
                    Some(etag) if self.served(name, &etag).await? == *served => Ok(etag),
                    Some(_) | None => Err(refused),
                }
            }
            result => result,
        }
    }

    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        self.retry("served", 0, || self.inner.served(name, etag)).await.result
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        let outcome = self.retry("delete", 0, || self.inner.delete(name, etag)).await;
        match outcome.result {
            Err(StoreError::NotFound { .. }) if outcome.earlier_try_unknown => Ok(()),
            result => result,
        }
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.retry("set_tags", 0, || self.inner.set_tags(name, tags))
            .await
            .result
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.retry("tags", 0, || self.inner.tags(name)).await.result
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.retry("now", 0, || self.inner.now()).await.result
    }
}
