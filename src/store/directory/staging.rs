//! Uploads that are not blobs yet: blocks in a directory of their own, put together by the commit.
//!
//! A block is deleted as soon as it is copied, so that the space is never needed twice. What was copied is
//! written to `progress` first, so that a commit that failed half-way (disk full, caller gone) goes on
//! where it was when it is repeated.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::NamedTempFile;

use super::disk::{Disk, STAGING};
use super::side_file::SideFile;
use crate::store::{BlockNumber, Metadata, Properties, RUN_ID_KEY, StoreError, Upload};

/// As Azure does with uncommitted blocks.
const STALE_AFTER_SECONDS: i64 = 7 * 24 * 3600;
const SWEEP_EVERY_SECONDS: i64 = 24 * 3600;
const PROGRESS: &str = "progress";
const WHOLE: &str = "whole";
const COMMIT_LOCK: &str = "commit.lock";

impl Disk {
    fn run_dir(&self, upload: &Upload) -> PathBuf {
        self.root.join(STAGING).join(&upload.run_id)
    }

    /// `abandoned` tells that the caller has gone: a discard may have come by since, and must be the last word.
    pub(super) fn stage(
        &self,
        upload: &Upload,
        block: BlockNumber,
        data: &[u8],
        abandoned: &AtomicBool,
    ) -> Result<(), StoreError> {
        let _not_discarding = self.staging.read().unwrap_or_else(PoisonError::into_inner);
        if abandoned.load(Ordering::Acquire) {
            return Ok(());
        }
        let dir = self.run_dir(upload);
        if !dir.is_dir() {
            self.sweep_stale_uploads()?;
            self.make_dirs(&dir)?;
        }
        if read_progress(&dir)
            .map_err(|e| self.error("read a commit's progress", &e))?
            .iter()
            .any(|p| p.block == block)
        {
            return Err(self.invalid(format!(
                "block {block} of {} was staged again during its commit",
                upload.name
            )));
        }
        let mut temp = NamedTempFile::new_in(&dir).map_err(|e| self.error("make a block", &e))?;
        // Not synced: the commit syncs the whole, and a crash before it leaves nothing anyone relies on.
        temp.write_all(data).map_err(|e| self.error("write a block", &e))?;
        temp.persist(dir.join(block.to_string()))
            .map_err(|e| self.error("rename a block", &e.error))?;
        Ok(())
    }

    pub(super) fn discard(&self, upload: &Upload) -> Result<(), StoreError> {
        // Dropping a future does not stop its thread: a block that is being written still lands, and then goes too.
        let _nobody_stages = self.staging.write().unwrap_or_else(PoisonError::into_inner);
        match fs::remove_dir_all(self.run_dir(upload)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(self.error("remove an upload", &e)),
        }
    }

    /// Our own blob under that name is an earlier success; anybody else's is a refusal.
    fn published(&self, upload: &Upload) -> Result<Option<Properties>, StoreError> {
        match self.properties(&upload.name)? {
            Some(there) if there.metadata.get(RUN_ID_KEY) == Some(&upload.run_id) => Ok(Some(there)),
            Some(_) => Err(self.taken(&upload.name)),
            None => Ok(None),
        }
    }

    pub(super) fn commit(
        &self,
        upload: &Upload,
        blocks: &[BlockNumber],
        mut metadata: Metadata,
        abandoned: &AtomicBool,
    ) -> Result<Properties, StoreError> {
        if let Some(done) = self.published(upload)? {
            return Ok(done);
        }
        let dir = self.run_dir(upload);
        self.make_dirs(&dir)?;
        // Not the root's lock: copying takes minutes, and a lease must be renewed meanwhile.
        let _one_commit = self.lock_file(&dir.join(COMMIT_LOCK))?;
        if let Some(done) = self.published(upload)? {
            return Ok(done);
        }
        let whole = self.assemble(upload, &dir, blocks, abandoned)?;
        whole.sync_all().map_err(|e| self.error("sync a file", &e))?;

        let mut lock = self.lock()?;
        if let Some(done) = self.published(upload)? {
            return Ok(done);
        }
        self.stop_if(abandoned)?;
        let size_bytes = whole.metadata().map_err(|e| self.error("look at a file", &e))?.len();
        self.stamp(&mut lock, &whole)?;
        self.make_dirs(&self.parent_of(&self.path_of(&upload.name)))?;
        metadata.insert(RUN_ID_KEY.to_owned(), upload.run_id.clone());
        // Before the blob is visible: whoever sees the blob sees its metadata.
        SideFile {
            size_bytes,
            metadata,
            ..SideFile::default()
        }
        .write(self, &upload.name)?;
        self.link(&dir.join(WHOLE), &upload.name)?;
        self.sync_dir(&self.parent_of(&self.path_of(&upload.name)))?;
        drop(lock);
        // The blob is safe; a directory that stays is swept in a week.
        let _ = fs::remove_dir_all(&dir);
        self.published(upload)?.ok_or_else(|| StoreError::NotFound {
            store: self.describe(),
            name: upload.name.clone(),
        })
    }

    fn stop_if(&self, abandoned: &AtomicBool) -> Result<(), StoreError> {
        if abandoned.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable {
                store: self.describe(),
                detail: "commit was cancelled".to_owned(),
            });
        }
        Ok(())
    }

    /// Appends the blocks to one file, each deleted once it is in; goes on where an earlier call stopped.
    fn assemble(
        &self,
        upload: &Upload,
        dir: &Path,
        blocks: &[BlockNumber],
        abandoned: &AtomicBool,
    ) -> Result<File, StoreError> {
        let copying = |e: io::Error| self.error("put blocks together", &e);
        let done = read_progress(dir).map_err(copying)?;
        if done.len() > blocks.len() || done.iter().zip(blocks).any(|(done, block)| done.block != *block) {
            return Err(self.invalid(format!(
                "{} was committed before with another list of blocks",
                upload.name
            )));
        }
        let create = |name: &str| {
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(dir.join(name))
        };
        let mut whole = create(WHOLE).map_err(copying)?;
        let mut progress = create(PROGRESS).map_err(copying)?;
        let mut end = done.last().map_or(0, |last| last.end);
        whole.set_len(end).map_err(copying)?;
        whole.seek(SeekFrom::Start(end)).map_err(copying)?;
        let known: String = done.iter().map(Progress::line).collect();
        progress.set_len(known.len() as u64).map_err(copying)?;
        progress.seek(SeekFrom::End(0)).map_err(copying)?;

        for &block in &blocks[done.len()..] {
            self.stop_if(abandoned)?;
            let path = dir.join(block.to_string());
            let mut source = match File::open(&path) {
                Ok(source) => source,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    return Err(self.invalid(format!("block {block} of {} was not staged", upload.name)));
                }
                Err(e) => return Err(copying(e)),
            };
            // Uses copy_file_range where the file system can: then no byte passes through here.
            end += io::copy(&mut source, &mut whole).map_err(copying)?;
            progress
                .write_all(Progress { block, end }.line().as_bytes())
                .map_err(copying)?;
            fs::remove_file(&path).map_err(copying)?;
        }
        Ok(whole)
    }

    /// Removes uploads and temporary files that nobody touched for a week; looks at most once a day.
    pub(super) fn sweep_stale_uploads(&self) -> Result<(), StoreError> {
        let now = self.now().as_second();
        let last = self.swept_at.load(Ordering::Relaxed);
        if now.saturating_sub(last) < SWEEP_EVERY_SECONDS {
            return Ok(());
        }
        self.swept_at.store(now, Ordering::Relaxed);
        let entries = fs::read_dir(self.root.join(STAGING)).map_err(|e| self.error("list uploads", &e))?;
        for entry in entries.flatten() {
            // Errors here are somebody else removing the same: nothing to do about them.
            let Ok(found) = entry.metadata() else { continue };
            if now.saturating_sub(found.mtime()) < STALE_AFTER_SECONDS {
                continue;
            }
            let _ = if found.is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
        }
        Ok(())
    }
}

/// One line of `progress`: this block is in the whole, up to this offset.
struct Progress {
    block: BlockNumber,
    end: u64,
}

impl Progress {
    fn line(&self) -> String {
        format!("{} {}\n", self.block, self.end)
    }
}

/// Whole lines only: a torn last one was never acted on, since its block is deleted after it is written.
fn read_progress(dir: &Path) -> io::Result<Vec<Progress>> {
    let text = match fs::read_to_string(dir.join(PROGRESS)) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    Ok(lines
        .map_while(|line| {
            let (block, end) = line.split_once(' ')?;
            Some(Progress {
                block: block.parse().ok()?,
                end: end.parse().ok()?,
            })
        })
        .collect())
}
