//! Runs inside the test's own process, for what no configuration can bring about: a store with few blocks, one that
//! stops taking them, a clock that stands or jumps.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use planb::backup::run::{Observer, Runner, Wanted};
use planb::clock::Clock;
use planb::config::Config;
use planb::dump::AttemptError;
use planb::dump::pipeline::Progress;
use planb::secret::resolver::Resolver;
use planb::source::login::Finder;
use planb::store::memory::MemoryStore;
use planb::store::{
    BLOCK_BLOB_LIMITS, BlobStore, BlockNumber, Condition, ETag, Limits, Metadata, Properties, StoreError, Upload,
};
use tokio::sync::watch;

use super::{PASSWORD, Planb};

/// A store in memory with a gate that blocks pass one by one while it is open.
#[derive(Debug)]
pub struct GatedStore {
    pub inner: MemoryStore,
    pub max_blocks: u32,
    open: watch::Sender<bool>,
    /// Blocks that came to the gate.
    pub arrived: AtomicUsize,
    answers: watch::Sender<bool>,
    /// Questions whether a name is free: each comes when a snapshot has just been opened.
    pub asked: AtomicUsize,
    /// From now on commits succeed, and nobody hears of it.
    pub commits_are_silent: AtomicBool,
}

impl GatedStore {
    pub fn new(clock: Arc<dyn Clock>, max_blocks: u32, open: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(clock),
            max_blocks,
            open: watch::channel(open).0,
            arrived: AtomicUsize::new(0),
            answers: watch::channel(true).0,
            asked: AtomicUsize::new(0),
            commits_are_silent: AtomicBool::new(false),
        })
    }

    /// Whether it says which names are free.
    pub fn set_answers(&self, answers: bool) {
        self.answers.send_replace(answers);
    }

    pub fn set_open(&self, open: bool) {
        self.open.send_replace(open);
    }
}

#[async_trait::async_trait]
impl BlobStore for GatedStore {
    fn describe(&self) -> String {
        "gated memory".to_owned()
    }
    fn limits(&self) -> Limits {
        Limits {
            max_blocks: self.max_blocks,
            ..BLOCK_BLOB_LIMITS
        }
    }
    async fn stage_block(&self, upload: &Upload, block: BlockNumber, data: bytes::Bytes) -> Result<(), StoreError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        // The sender lives as long as the store.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
        self.inner.stage_block(upload, block, data).await
    }
    async fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        metadata: &Metadata,
    ) -> Result<Properties, StoreError> {
        assert!(blocks.len() <= self.max_blocks as usize, "{} blocks", blocks.len());
        let properties = self.inner.commit(upload, blocks, metadata).await;
        if self.commits_are_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        properties
    }
    async fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        self.inner.discard(upload).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Properties>, StoreError> {
        self.inner.list(prefix).await
    }
    async fn properties(&self, name: &str) -> Result<Option<Properties>, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _ = self.answers.subscribe().wait_for(|answers| *answers).await;
        self.inner.properties(name).await
    }
    async fn read(
        &self,
        name: &str,
        range: std::ops::Range<u64>,
        etag: Option<&ETag>,
    ) -> Result<bytes::Bytes, StoreError> {
        self.inner.read(name, range, etag).await
    }
    async fn put(&self, name: &str, data: bytes::Bytes, condition: Condition) -> Result<ETag, StoreError> {
        self.inner.put(name, data, condition).await
    }
    async fn publish(
        &self,
        name: &str,
        data: bytes::Bytes,
        served: &planb::store::Served,
        condition: Condition,
    ) -> Result<ETag, StoreError> {
        self.inner.publish(name, data, served, condition).await
    }
    async fn served(&self, name: &str, etag: &ETag) -> Result<planb::store::Served, StoreError> {
        self.inner.served(name, etag).await
    }
    async fn delete(&self, name: &str, etag: &ETag) -> Result<(), StoreError> {
        self.inner.delete(name, etag).await
    }
    async fn set_tags(&self, name: &str, tags: &std::collections::BTreeMap<String, String>) -> Result<(), StoreError> {
        self.inner.set_tags(name, tags).await
    }
    async fn tags(&self, name: &str) -> Result<std::collections::BTreeMap<String, String>, StoreError> {
        self.inner.tags(name).await
    }
    async fn now(&self) -> Result<jiff::Timestamp, StoreError> {
        self.inner.now().await
    }
}

/// A runner with `planb`'s configuration (its password taken from a file), and a control store of its own.
pub fn runner(planb: &Planb, store: Arc<dyn BlobStore>, clock: Arc<dyn Clock>) -> Runner {
    let password = planb.path().join("password");
    std::fs::write(&password, PASSWORD).expect("a password file");
    let text = std::fs::read_to_string(planb.config()).expect("a configuration");
    planb.write_config(&text.replace("env:PLANB_SOURCE_PASSWORD", &format!("file:{}", password.display())));
    let config = Config::load(&planb.config()).unwrap_or_else(|error| panic!("{error:?}"));
    Runner {
        finder: Finder::new(config.source.clone(), Resolver::for_config(&config)),
        config,
        store,
        control: Arc::new(MemoryStore::new(Arc::clone(&clock))),
        clock,
        run_ids: || format!("{:016x}", rand::random::<u64>()),
    }
}

pub fn wanted() -> Wanted {
    Wanted {
        is_last: false,
        holder: "test".to_owned(),
        verify_source: true,
        accept_source_changed: None,
    }
}

/// Remembers what it was told.
#[derive(Debug, Default)]
pub struct Told {
    pub repeated: Mutex<Vec<String>>,
}

impl Observer for Told {
    fn attempt(&self, _: u32, _: Arc<Progress>) {}
    fn estimate(&self, _: u64) {}
    fn repeated(&self, error: &AttemptError) {
        self.repeated.lock().expect("not poisoned").push(error.to_string());
    }
}
