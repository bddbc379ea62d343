//! From SQL text to staged blocks: compression on threads of its own, uploads beside it, all of it bounded.
//!
//! A reader asks for a buffer *before* it asks the server for rows, so that a slow store makes readers wait while
//! they hold no lock. Buffers are counted, and each goes back when its member is compressed: memory does not depend
//! on the database. Small members share a block; the more blocks are used up, the larger they get, so that the
//! store's limit is never reached.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::format::index::{MemberKind, MemberRecord};
use crate::format::member::{PackError, Packer};
use crate::store::{BlobStore, BlockNumber, StoreError, Upload};

/// Members are planned so that a backup has at most this many: 80% of Azure's 50,000 blocks.
const PLANNED_MEMBERS: u64 = 40_000;
pub(super) const SMALLEST_MEMBER_BYTES: u64 = 4 << 20;
const LARGEST_MEMBER_BYTES: u64 = 64 << 20;
/// Stored bytes that make a block worth a request of its own.
const SMALLEST_BLOCK_BYTES: usize = 1 << 20;
/// No block is made larger than this to save on numbers: it is held in memory.
const LARGEST_BLOCK_BYTES: usize = 16 << 20;
/// Uploads under way at once. More would help on a line with a long delay only.
const UPLOADS: usize = 4;

/// What is fixed for one attempt.
#[derive(Debug, Clone)]
pub struct Settings {
    pub level: u8,
    /// Compression threads.
    pub threads: usize,
    /// Buffers in all: one for each reader, and some for members that wait for compression.
    pub buffers: usize,
    /// Bytes of SQL at which a member is full.
    pub member_bytes: usize,
    /// No block landed for this long while some were under way: the attempt ends.
    pub stall: Duration,
}

/// Why the pipeline gave up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PipelineError {
    #[error("no block reached the store for {0:?}; the snapshot is given back")]
    Stalled(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the backup would need more than the {0} blocks that the store allows")]
    TooManyBlocks(u32),
    #[error("the compression threads failed; this dump is thrown away")]
    Compression,
    #[error("stopped")]
    Stopped,
}

/// Where a member belongs in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub kind: MemberKind,
    pub schema: String,
    pub table: String,
    pub rows: u64,
    /// Place among its kind: table number, then piece.
    pub order: (u32, u64),
}

/// A counted piece of memory for SQL text. Dropping it gives the place back.
#[derive(Debug)]
pub struct Buffer {
    pub text: Vec<u8>,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        // One huge row must not stay allocated for the rest of the run.
        if text.capacity() <= 2 * self.pool.member_bytes {
            text.clear();
            self.pool
                .spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(text);
        }
    }
}

#[derive(Debug)]
struct Pool {
    spare: Mutex<Vec<Vec<u8>>>,
    member_bytes: usize,
}

/// A block that the store holds, with the members in it.
#[derive(Debug, Clone)]
pub struct StagedBlock {
    pub number: BlockNumber,
    /// Offsets count from the block's beginning.
    pub members: Vec<MemberRecord>,
    order: (MemberKind, (u32, u64)),
}

/// What readers hold: buffers come out, full members go in.
#[derive(Debug, Clone)]
pub struct Intake {
    places: Arc<Semaphore>,
    pool: Arc<Pool>,
    queue: mpsc::UnboundedSender<(Label, Buffer)>,
    stop: CancellationToken,
}

impl Intake {
    /// A free buffer; waits while all are in use.
    ///
    /// # Errors
    /// [`PipelineError::Stopped`] once the pipeline has given up; its own error tells why.
    pub async fn buffer(&self) -> Result<Buffer, PipelineError> {
        let place = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(PipelineError::Stopped),
            place = Arc::clone(&self.places).acquire_owned() => place.map_err(|_| PipelineError::Stopped)?,
        };
        let spare = self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Room for the row that goes beyond it, too, so that a buffer need not grow as a rule.
        let room = full_bytes(self.pool.member_bytes) + (256 << 10);
        let text = spare.unwrap_or_else(|| Vec::with_capacity(room));
        Ok(Buffer {
            text,
            pool: Arc::clone(&self.pool),
            _place: place,
        })
    }

    /// Hands a full buffer over. Never waits: there are only as many buffers as may wait.
    pub fn submit(&self, label: Label, buffer: Buffer) -> Result<(), PipelineError> {
        self.queue.send((label, buffer)).map_err(|_| PipelineError::Stopped)
    }

    /// The size that members are planned to have.
    pub fn member_bytes(&self) -> usize {
        self.pool.member_bytes
    }

    /// The size at which a member must end: what a buffer was made for.
    pub fn full_bytes(&self) -> usize {
        full_bytes(self.pool.member_bytes)
    }
}

fn full_bytes(member_bytes: usize) -> usize {
    member_bytes + member_bytes / 4
}

/// One compressed member.
struct Packed {
    label: Label,
    stored: Vec<u8>,
    raw_bytes: u64,
    sha256: String,
}

/// The running pipeline; owns its threads and its uploads.
pub struct Pipeline {
    intake: Intake,
    packers: JoinSet<Result<(), PackError>>,
    uploader: JoinSet<Result<Vec<StagedBlock>, PipelineError>>,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

/// Figures for people, read while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    pub raw_bytes: std::sync::atomic::AtomicU64,
    pub stored_bytes: std::sync::atomic::AtomicU64,
    pub rows: std::sync::atomic::AtomicU64,
}

impl Pipeline {
    /// `stop` is cancelled when the pipeline gives up, and stops it when cancelled from outside.
    pub fn start(
        store: Arc<dyn BlobStore>,
        upload: Upload,
        settings: &Settings,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Self {
        let (queue, members) = mpsc::unbounded_channel();
        let (packed_out, packed_in) = mpsc::channel(settings.threads);
        let members = Arc::new(Mutex::new(members));
        let mut packers = JoinSet::new();
        for _ in 0..settings.threads.max(1) {
            let (members, packed_out, level) = (Arc::clone(&members), packed_out.clone(), settings.level);
            packers.spawn_blocking(move || pack_all(&members, &packed_out, level));
        }
        let mut uploader = JoinSet::new();
        let uploads = Uploads {
            store,
            upload,
            stall: settings.stall,
            next: 0,
            stop: stop.clone(),
            progress: Arc::clone(&progress),
        };
        uploader.spawn(uploads.run(packed_in));
        let pool = Arc::new(Pool {
            spare: Mutex::new(Vec::new()),
            member_bytes: settings.member_bytes,
        });
        let places = Arc::new(Semaphore::new(settings.buffers));
        Self {
            intake: Intake {
                places,
                pool,
                queue,
                stop: stop.clone(),
            },
            packers,
            uploader,
            stop,
            progress,
        }
    }

    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// No more members: waits until every block has landed, and returns them in file order.
    ///
    /// # Errors
    /// Why the pipeline gave up, if it did.
    pub async fn finish(mut self) -> Result<Vec<StagedBlock>, PipelineError> {
        let Intake { queue, .. } = self.intake;
        drop(queue);
        let result = match self.uploader.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(PipelineError::Stopped),
        };
        let mut all_packed = true;
        while let Some(ended) = self.packers.join_next().await {
            all_packed &= matches!(ended, Ok(Ok(())));
        }
        drop(self.stop);
        let mut blocks = result?;
        // A thread that ended otherwise took a member with it.
        if !all_packed {
            return Err(PipelineError::Compression);
        }
        blocks.sort_by_key(|block| block.order);
        Ok(blocks)
    }
}

fn pack_all(
    members: &Mutex<mpsc::UnboundedReceiver<(Label, Buffer)>>,
    out: &mpsc::Sender<Packed>,
    level: u8,
) -> Result<(), PackError> {
    let mut packer = Packer::new(level);
    let mut scratch = Vec::new();
    loop {
        let next = members.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some((label, buffer)) = next else { return Ok(()) };
        packer.pack(&buffer.text, &mut scratch)?;
        let packed = Packed {
            label,
            raw_bytes: buffer.text.len() as u64,
            sha256: hex(&Sha256::digest(&scratch)),
            stored: scratch.as_slice().to_vec(),
        };
        drop(buffer);
        if scratch.capacity() > 4 * LARGEST_BLOCK_BYTES {
            scratch = Vec::new();
        }
        // Nobody takes it: the pipeline has given up and says why.
        if out.blocking_send(packed).is_err() {
            return Ok(());
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
            // Writing to a String cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
}

/// A block being filled.
struct Filling {
    data: Vec<u8>,
    members: Vec<MemberRecord>,
    order: (MemberKind, (u32, u64)),
}

struct Uploads {
    store: Arc<dyn BlobStore>,
    upload: Upload,
    stall: Duration,
    next: BlockNumber,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Uploads {
    async fn run(mut self, members: mpsc::Receiver<Packed>) -> Result<Vec<StagedBlock>, PipelineError> {
        let result = self.all(members).await;
        if result.is_err() {
            self.stop.cancel();
        }
        result
    }

    async fn all(&mut self, mut members: mpsc::Receiver<Packed>) -> Result<Vec<StagedBlock>, PipelineError> {
        let mut staged = Vec::new();
        let mut waiting: VecDeque<Filling> = VecDeque::new();
        let mut filling: Option<Filling> = None;
        let mut flying = FuturesUnordered::new();
        let mut last_landing = Instant::now();
        let mut open = true;
        loop {
            while flying.len() < UPLOADS
                && let Some(block) = waiting.pop_front()
            {
                if flying.is_empty() {
                    last_landing = Instant::now();
                }
                flying.push(self.stage(block)?);
            }
            if !open && flying.is_empty() && waiting.is_empty() {
                return Ok(staged);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(PipelineError::Stopped),
                Some(landed) = flying.next(), if !flying.is_empty() => {
                    let block: Result<StagedBlock, StoreError> = landed;
                    staged.push(block?);
                    last_landing = Instant::now();
                }
                () = tokio::time::sleep_until(last_landing + self.stall), if !flying.is_empty() => {
                    return Err(PipelineError::Stalled(self.stall));
                }
                member = members.recv(), if open && waiting.is_empty() => match member {
                    Some(member) => self.add(member, &mut filling, &mut waiting),
                    None => {
                        open = false;
                        waiting.extend(filling.take());
                    }
                },
            }
        }
    }

    /// Puts a member into the block being filled; a full one goes to `waiting`.
    fn add(&self, member: Packed, filling: &mut Option<Filling>, waiting: &mut VecDeque<Filling>) {
        use std::sync::atomic::Ordering::Relaxed;
        self.progress.raw_bytes.fetch_add(member.raw_bytes, Relaxed);
        self.progress
            .stored_bytes
            .fetch_add(member.stored.len() as u64, Relaxed);
        self.progress.rows.fetch_add(member.label.rows, Relaxed);
        let enough = enough_bytes(self.next, self.store.limits().max_blocks);
        let order = (member.label.kind, member.label.order);
        if filling.as_ref().is_some_and(|block| block.order.0 != order.0) {
            waiting.extend(filling.take());
        }
        let block = filling.get_or_insert_with(|| Filling {
            data: Vec::new(),
            members: Vec::new(),
            order,
        });
        block.members.push(MemberRecord {
            kind: member.label.kind,
            schema: member.label.schema,
            table: member.label.table,
            offset: block.data.len() as u64,
            stored_bytes: member.stored.len() as u64,
            raw_bytes: member.raw_bytes,
            rows: member.label.rows,
            sha256: member.sha256,
        });
        if block.data.is_empty() {
            block.data = member.stored;
        } else {
            block.data.extend_from_slice(&member.stored);
        }
        if block.data.len() >= enough {
            waiting.extend(filling.take());
        }
    }

    fn stage(
        &mut self,
        block: Filling,
    ) -> Result<impl Future<Output = Result<StagedBlock, StoreError>> + use<>, PipelineError> {
        let limit = self.store.limits().max_blocks;
        // The index and the trailer need one more.
        if self.next + 1 >= limit {
            return Err(PipelineError::TooManyBlocks(limit));
        }
        let (store, upload, number) = (Arc::clone(&self.store), self.upload.clone(), self.next);
        self.next += 1;
        let data = Bytes::from(block.data);
        let staged = StagedBlock {
            number,
            members: block.members,
            order: block.order,
        };
        Ok(async move {
            store.stage_block(&upload, number, data).await?;
            Ok(staged)
        })
    }
}

/// How full a block must be, when `used` of `limit` are used up: doubles with every sixteenth of the limit, so that
/// small backups upload early and huge ones still fit.
fn enough_bytes(used: BlockNumber, limit: u32) -> usize {
    let sixteenths = u64::from(used) * 16 / u64::from(limit.max(1));
    let doublings = u32::try_from(sixteenths.min(16)).unwrap_or(16);
    SMALLEST_BLOCK_BYTES
        .saturating_mul(1 << doublings)
        .min(LARGEST_BLOCK_BYTES)
}

/// Raw bytes of one member, for so many in all.
pub fn member_bytes(raw_bytes: u64) -> u64 {
    (raw_bytes / PLANNED_MEMBERS).clamp(SMALLEST_MEMBER_BYTES, LARGEST_MEMBER_BYTES)
}

/// The blocks that a backup of this size will have, to within a few for each table.
pub fn planned_blocks(raw_bytes: u64, stored_bytes: u64, limit: u32) -> u32 {
    let members = raw_bytes.div_ceil(member_bytes(raw_bytes)).max(1);
    let stored = (stored_bytes / members).max(1);
    // What comes before the data, what comes after it, and the index.
    let (mut blocks, mut left) = (3, members);
    while left > 0 && blocks < limit {
        let enough = enough_bytes(blocks, limit) as u64;
        left = left.saturating_sub(enough.div_ceil(stored));
        blocks += 1;
    }
    blocks
}

/// The largest backup, in stored bytes, that surely fits `limit` blocks.
pub fn capacity_bytes(limit: u32) -> u64 {
    (0..limit.saturating_sub(1))
        .map(|used| enough_bytes(used, limit) as u64)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_thousand_blocks_hold_more_than_half_a_tebibyte() {
        assert!(capacity_bytes(50_000) > 600 << 30, "{}", capacity_bytes(50_000));
    }

    #[test]
    fn blocks_grow_as_they_are_used_up() {
        assert_eq!(enough_bytes(0, 50_000), 1 << 20);
        assert_eq!(enough_bytes(3_125, 50_000), 2 << 20);
        assert_eq!(enough_bytes(49_999, 50_000), 16 << 20);
        assert_eq!(
            enough_bytes(3, 0),
            LARGEST_BLOCK_BYTES,
            "a store without blocks is no division by zero"
        );
    }
}
