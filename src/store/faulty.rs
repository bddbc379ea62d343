//! Makes any store misbehave on purpose, repeatably: by script, or by chance from a seed that is shown.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{BlobStore, BlockNumber, Condition, ETag, Limits, Metadata, Properties, Served, StoreError, Upload};

/// The calls of [`BlobStore`], to aim a fault at one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    StageBlock,
    Commit,
    Discard,
    List,
    Properties,
    Read,
    Put,
    Delete,
    SetTags,
    Tags,
    Now,
}

/// What goes wrong with one call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// `Unavailable`, and nothing was done.
    FailBefore,
    /// It was done, but the answer is `Unavailable`: a lost answer.
    FailAfter,
    /// This error, and nothing was done.
    Refuse(StoreError),
    /// Never answers; nothing was done. Ends when the caller drops the call.
    Hang,
    /// Done, but never answers.
    HangAfter,
    /// A read that breaks the trait's promise: half of the bytes, as if they were all. Other calls fail before.
    ShortRead,
    /// Answers rightly, later.
    Slow(Duration),
}

/// Chance of each fault for each call, 0 to 1. They are drawn in this order; the rest goes well.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chances {
    pub fail_before: f64,
    pub fail_after: f64,
    pub hang: f64,
    pub short_read: f64,
    pub slow: f64,
    pub slow_for: Duration,
}

/// A layer of faults around `inner`.
#[derive(Debug)]
pub struct Faulty<S> {
    inner: S,
    seed: u64,
    chances: Chances,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    /// Faults not met yet; each goes to the next call of its kind, before chance is asked.
    script: Vec<(Call, Fault)>,
    injected: u64,
    calls: BTreeMap<Call, u64>,
}

impl<S: BlobStore> Faulty<S> {
    /// By chance. Print [`seed`](Self::seed) (or `Debug`) when a test fails.
    pub fn seeded(inner: S, seed: u64, chances: Chances) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            script: Vec::new(),
            injected: 0,
            calls: BTreeMap::new(),
        };
        Self {
            inner,
            seed,
            chances,
            state: Mutex::new(state),
        }
    }

    /// Exactly these faults, each on the next call of its kind, in order; afterwards none.
    pub fn scripted(inner: S, script: impl IntoIterator<Item = (Call, Fault)>) -> Self {
        let faulty = Self::seeded(inner, 0, Chances::default());
        faulty.state().script.extend(script);
        faulty
    }

    /// Adds to the script while in use.
    pub fn inject(&self, call: Call, fault: Fault) {
        self.state().script.push((call, fault));
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many faults were injected so far; a test of retries that met none proves nothing.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// How often each was called so far.
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.state().calls.clone()
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, call: Call) -> Option<Fault> {
        let mut state = self.state();
        *state.calls.entry(call).or_default() += 1;
        let scripted = state.script.iter().position(|(aimed_at, _)| *aimed_at == call);
        let fault = match scripted {
            Some(at) => Some(state.script.remove(at).1),
            None => self.chance(state.rng.random_range(0.0..1.0)),
        };
        state.injected += u64::from(fault.is_some());
        fault
    }

    fn chance(&self, mut drawn: f64) -> Option<Fault> {
        let by_chance = [
            (self.chances.fail_before, Fault::FailBefore),
            (self.chances.fail_after, Fault::FailAfter),
            (self.chances.hang, Fault::Hang),
            (self.chances.short_read, Fault::ShortRead),
            (self.chances.slow, Fault::Slow(self.chances.slow_for)),
        ];
        for (chance, fault) in by_chance {
            if drawn < chance {
                return Some(fault);
            }
            drawn -= chance;
        }
        None
    }

    fn unavailable(&self, fault: &Fault) -> StoreError {
        StoreError::Unavailable {
            store: self.inner.describe(),
            detail: format!("injected {fault:?}, seed {}", self.seed),
        }
    }

    async fn with<T>(&self, call: Call, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let fault = self.draw(call);
        self.carry_out(fault, work).await
    }

    async fn carry_out<T>(
        &self,
        fault: Option<Fault>,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(fault) = fault else { return work.await };
        match &fault {
            Fault::FailBefore | Fault::ShortRead => Err(self.unavailable(&fault)),
            Fault::Refuse(error) => Err(error.clone()),
            Fault::FailAfter => {
                let _ = work.await;
                Err(self.unavailable(&fault))
            }
            Fault::Hang => std::future::pending().await,
            Fault::HangAfter => {
                let _ = work.await;
                std::future::pending().await
            }
            Fault::Slow(pause) => {
                tokio::time::sleep(*pause).await;
                work.await
            }
        }
    }
}

#[async_trait]
impl<S: BlobStore> BlobStore for Faulty<S> {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: Bytes) -> Result<(), StoreError> {
        self.with(Call::StageBlock, self.inner.stage_block(upload, block, data))
            .await
    }

    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        self.with(Call::Commit, self.inner.commit(upload, blocks, metadata))
            .await
    }

    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        self.with(Call::Discard, self.inner.discard(upload)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        self.with(Call::List, self.inner.list(prefix)).await
    }

    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.with(Call::Properties, self.inner.properties(name)).await
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&ETag>) -> Result<Bytes, StoreError> {
        match self.draw(Call::Read) {
            Some(Fault::ShortRead) => {
                let whole = self.inner.read(name, range, etag).await?;
                Ok(whole.slice(..whole.len() / 2))
            }
            fault => self.carry_out(fault, self.inner.read(name, range, etag)).await,
        }
    }

    async fn put(&self, name: &str, data: Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.with(Call::Put, self.inner.put(name, data, condition)).await
    }

    /// Aimed at as [`Call::Put`].
    async fn publish(
        &self,
        name: &str,
        data: Bytes,
        served: &Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.with(Call::Put, self.inner.publish(name, data, served, condition))
            .await
    }

    /// Aimed at as [`Call::Properties`].
    async fn served(&self, name: &str, etag: &ETag) -> Result<Served, StoreError> {
        self.with(Call::Properties, self.inner.served(name, etag)).await
    }

    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.with(Call::Delete, self.inner.delete(name, etag)).await
    }

    async fn set_tags(&self, name: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
        self.with(Call::SetTags, self.inner.set_tags(name, tags)).await
    }

    async fn tags(&self, name: &str) -> Result<BTreeMap<String, String>, StoreError> {
        self.with(Call::Tags, self.inner.tags(name)).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        self.with(Call::Now, self.inner.now()).await
    }
}
