//! A step that publishes the page that people see while nothing serves, and puts back what stood there before.
//!
//! What is published depends on the configuration and on the operation's beginning alone, so that whoever does it again finds the
//! same bytes there. What an operation finds is kept in the control store before its first write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::site::{self, Words};
use super::{Executor, store_error};
use crate::backup::claim;
use crate::config::steps::MaintenancePage;
use crate::recovery::engine::{StepError, Task};
use crate::recovery::event::Outcome;
use crate::store::{BlobStore, Condition, Properties, Served, StoreError};

/// What a browser asks for first; published last, when everything that it names is there.
const INDEX: &str = "index.html";
const MOST_FILES: usize = 200;
/// Of a site, and of what it replaces.
const MOST_BYTES: u64 = 32 << 20;

/// What stood there before an operation published.
#[derive(Debug, Serialize, Deserialize)]
struct Before {
    v: u32,
    files: Vec<Kept>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    name: String,
    /// Where its bytes are kept, and how it was served. None: there was no such file.
    was: Option<(String, Served)>,
    /// SHA-256 of what was published in its place: anything else is somebody else's by now.
    published: String,
}

impl Executor {
    pub(super) async fn maintenance_page(&self, task: &Task, written: &MaintenancePage) -> Result<Outcome, StepError> {
        let files = files(task, written).await?;
        let store = (self.pages)(&self.config, &written.container)
            .await
            .map_err(store_error)?;
        // Every other file before the one that names them.
        let in_order = files
            .iter()
            .filter(|(name, _)| *name != INDEX)
            .chain(files.get_key_value(INDEX));
        let mut changes = Vec::new();
        for (name, data) in in_order {
            let there = store.properties(name).await.map_err(store_error)?;
            if !is_there(&store, there.as_ref(), data, &site::served(name)).await? {
                changes.push((name, data, there));
            }
        }
        let shown = format!("{} files in {}", files.len(), store.describe());
        if changes.is_empty() {
            return Ok(Outcome {
                found: true,
                note: format!("{shown} are as they should be"),
                ..Outcome::default()
            });
        }
        self.keep_page(task, &store, &files).await?;
        for (name, data, there) in &changes {
            if task.cancel.is_cancelled() {
                return Err(StepError::passing("stopped before the whole page was published"));
            }
            let condition = match there {
                Some(there) => Condition::Matches(there.etag.clone()),
                None => Condition::Absent,
            };
            self.tell.tell(&task.step.name, name);
            store
                .publish(name, (*data).clone(), &site::served(name), condition)
                .await
                .map_err(store_error)?;
        }
        Ok(Outcome {
            note: format!("{shown}, {} of them written", changes.len()),
            ..Outcome::default()
        })
    }

    /// Whatever stood there when this operation first published; what somebody else put there since is left alone.
    pub(super) async fn put_page_back(&self, task: &Task, written: &MaintenancePage) -> Result<String, StepError> {
        let Some(before) = self.page_before(task).await? else {
            return Ok("nothing had been published".to_owned());
        };
        let store = (self.pages)(&self.config, &written.container)
            .await
            .map_err(store_error)?;
        let (mut back, mut left) = (0, Vec::new());
        for file in &before.files {
            let there = store.properties(&file.name).await.map_err(store_error)?;
            let Some(there) = there else { continue };
            let data = whole(&store, &there).await?;
            let is_ours = digest(&data) == file.published;
            match &file.was {
                Some((kept, served)) => {
                    let kept = whole_named(&self.control, kept).await?;
                    if is_there(&store, Some(&there), &kept, served).await? {
                        continue;
                    }
                    if !is_ours {
                        left.push(file.name.as_str());
                        continue;
                    }
                    let condition = Condition::Matches(there.etag.clone());
                    let put = store.publish(&file.name, kept, served, condition).await;
                    put.map_err(store_error)?;
                }
                None if is_ours => match store.delete(&file.name, &there.etag).await {
                    Ok(()) | Err(StoreError::NotFound { .. }) => {}
                    Err(error) => return Err(store_error(error)),
                },
                None => {
                    left.push(file.name.as_str());
                    continue;
                }
            }
            back += 1;
        }
        let left = match left.is_empty() {
            true => String::new(),
            false => format!("; left alone, since somebody changed it meanwhile: {}", left.join(", ")),
        };
        Ok(format!("{back} files are as they were before{left}"))
    }

    fn page_kept_under(&self, task: &Task) -> String {
        let key = claim::key(&self.config.store.prefix);
        format!("page/{key}/{:06}-{}", task.operation.number, task.step.name)
    }

    async fn page_before(&self, task: &Task) -> Result<Option<Before>, StepError> {
        let name = format!("{}/before.json", self.page_kept_under(task));
        if self.control.properties(&name).await.map_err(store_error)?.is_none() {
            return Ok(None);
        }
        let text = whole_named(&self.control, &name).await?;
        let before = serde_json::from_slice(&text)
            .map_err(|error| StepError::permanent(format!("{name} in the control store is damaged: {error}")))?;
        Ok(Some(before))
    }

    /// Once for an operation: what is found later may be half its own.
    async fn keep_page(
        &self,
        task: &Task,
        store: &Arc<dyn BlobStore>,
        files: &BTreeMap<String, Bytes>,
    ) -> Result<(), StepError> {
        if self.page_before(task).await?.is_some() {
            return Ok(());
        }
        let under = self.page_kept_under(task);
        let mut before = Before {
            v: 1,
            files: Vec::new(),
        };
        for (at, (name, data)) in files.iter().enumerate() {
            let was = match store.properties(name).await.map_err(store_error)? {
                Some(there) => {
                    let old = whole(store, &there).await?;
                    let served = store.served(name, &there.etag).await.map_err(store_error)?;
                    let kept = format!("{under}/{at:03}");
                    let put = self.control.put(&kept, old, Condition::Always).await;
                    put.map_err(store_error)?;
                    Some((kept, served))
                }
                None => None,
            };
            before.files.push(Kept {
                name: name.clone(),
                was,
                published: digest(data),
            });
        }
        let text = serde_json::to_vec(&before).map_err(|error| StepError::permanent(error.to_string()))?;
        let name = format!("{under}/before.json");
        match self.control.put(&name, text.into(), Condition::Absent).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(store_error(error)),
        }
    }
}

async fn is_there(
    store: &Arc<dyn BlobStore>,
    there: Option<&Properties>,
    data: &Bytes,
    served: &Served,
) -> Result<bool, StepError> {
    let Some(there) = there.filter(|there| there.size_bytes == data.len() as u64) else {
        return Ok(false);
    };
    let told = store.served(&there.name, &there.etag).await.map_err(store_error)?;
    Ok(told == *served && whole(store, there).await? == *data)
}

async fn whole(store: &Arc<dyn BlobStore>, blob: &Properties) -> Result<Bytes, StepError> {
    if blob.size_bytes > MOST_BYTES {
        return Err(StepError::permanent(format!(
            "{} in {} has {} bytes: that is no page of a maintenance site, and is not replaced; name another container",
            blob.name,
            store.describe(),
            blob.size_bytes
        )));
    }
    let read = store.read(&blob.name, 0..blob.size_bytes, Some(&blob.etag)).await;
    read.map_err(store_error)
}

async fn whole_named(store: &Arc<dyn BlobStore>, name: &str) -> Result<Bytes, StepError> {
    let there = store.properties(name).await.map_err(store_error)?;
    let there = there.ok_or_else(|| StepError::permanent(format!("{name} is gone from {}", store.describe())))?;
    whole(store, &there).await
}

fn digest(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files as they are to be published, by name.
async fn files(task: &Task, written: &MaintenancePage) -> Result<BTreeMap<String, Bytes>, StepError> {
    let expected = written
        .expected
        .and_then(|expected| SignedDuration::try_from(expected).ok());
    let words = Words::new(
        written.contact.as_deref(),
        task.operation.opened_at,
        expected,
        written.utc_offset,
    );
    let path = written.page.clone();
    let read = tokio::task::spawn_blocking(move || read(&path));
    let read = read.await.map_err(|error| StepError::passing(error.to_string()))?;
    let mut files = BTreeMap::new();
    for (name, data) in read.map_err(StepError::permanent)? {
        let data = match site::is_html(&name) {
            false => Bytes::from(data),
            true => match String::from_utf8(data) {
                Ok(text) => words.fill(&text).into(),
                Err(_) => {
                    return Err(StepError::permanent(format!("{name} is not UTF-8; save it so")));
                }
            },
        };
        files.insert(name, data);
    }
    if files.contains_key(INDEX) {
        Ok(files)
    } else {
        Err(StepError::permanent(format!(
            "page {} holds no {INDEX}: browsers ask for that first",
            written.page.display()
        )))
    }
}

/// Of a directory everything but what begins with a dot.
fn read(path: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("page {}: {error}", path.display());
    let mut left = MOST_BYTES;
    let mut take = |path: &Path, size: u64| {
        left = left.checked_sub(size).ok_or_else(|| {
            wrong(
                path,
                &format!("more than {MOST_BYTES} bytes in all are no maintenance page"),
            )
        })?;
        std::fs::read(path).map_err(|error| wrong(path, &error))
    };
    let metadata = std::fs::metadata(path).map_err(|error| wrong(path, &error))?;
    if metadata.is_file() {
        return Ok(vec![(INDEX.to_owned(), take(path, metadata.len())?)]);
    }
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::from(path), String::new())];
    while let Some((dir, prefix)) = open.pop() {
        for entry in std::fs::read_dir(&dir).map_err(|error| wrong(&dir, &error))? {
            let at = entry.map_err(|error| wrong(&dir, &error))?.path();
            let name = at
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            let metadata = std::fs::metadata(&at).map_err(|error| wrong(&at, &error))?;
            if metadata.is_dir() {
                // A link that leads upwards would never end.
                if prefix.matches('/').count() > 10 {
                    return Err(wrong(&at, &"too deep"));
                }
                open.push((at, format!("{prefix}{name}/")));
            } else {
                found.push((format!("{prefix}{name}"), take(&at, metadata.len())?));
            }
            if found.len() > MOST_FILES {
                return Err(wrong(
                    path,
                    &format!("more than {MOST_FILES} files are no maintenance page"),
                ));
            }
        }
    }
    Ok(found)
}
