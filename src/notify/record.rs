//! Who was told what, in a file that is replaced as a whole: there is the old one or the new one, never half of either.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::desk::Desk;

/// Of the format that this program writes and reads.
const VERSION: u32 = 1;
/// Far more than [`Desk`] ever holds.
const LARGEST_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    #[serde(flatten)]
    desk: Desk,
}

/// In this directory, the agent's, or a watcher's: two processes of one machine never share one.
pub fn file(directory: &Path, watcher: Option<&str>) -> PathBuf {
    directory.join(match watcher {
        None => "notify.json".to_owned(),
        Some(name) => format!("notify-{name}.json"),
    })
}

/// All of them that are there and may be listed.
pub async fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(directory).await else {
        return found;
    };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("notify") && name.ends_with(".json") {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Held as long as what is returned lives. None: another process has it.
///
/// # Errors
/// Why it could not be tried, in words.
pub fn lock(file: &Path) -> Result<Option<File>, String> {
    let beside = file.with_extension("lock");
    let opened = File::options().create(true).truncate(false).write(true).open(&beside);
    let opened = opened.map_err(|error| error.kind().to_string())?;
    match opened.try_lock() {
        Ok(()) => Ok(Some(opened)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error.kind().to_string()),
    }
}

/// None if there is no such file yet.
///
/// # Errors
/// Why it cannot be read, in words.
pub async fn read(file: &Path) -> Result<Option<Desk>, String> {
    let metadata = match tokio::fs::metadata(file).await {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.kind().to_string()),
    };
    if metadata.len() > LARGEST_BYTES {
        return Err("it is larger than it can be".to_owned());
    }
    let bytes = tokio::fs::read(file).await.map_err(|error| error.kind().to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|_| "it is torn, or no such file".to_owned())?;
    if record.v == VERSION {
        Ok(Some(record.desk))
    } else {
        Err(format!("it is of version {}, which this planb does not know", record.v))
    }
}

/// # Errors
/// Why it cannot be written, in words.
pub async fn write(file: &Path, desk: &Desk) -> Result<(), String> {
    let record = Record {
        v: VERSION,
        desk: desk.clone(),
    };
    let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
    let file = file.to_owned();
    let written = tokio::task::spawn_blocking(move || replace(&file, &bytes)).await;
    written
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
}

fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("/"));
    let mut new = tempfile::Builder::new().prefix(".notify-").tempfile_in(directory)?;
    new.write_all(bytes)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::notice::{Notice, What};

    #[tokio::test]
    async fn what_was_kept_is_read_back_and_what_is_torn_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = file(dir.path(), None);
        assert_eq!(read(&file).await, Ok(None));
        let mut desk = Desk::default();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let what = What::StoreUnreachable { error: "x".to_owned() };
        desk.raise(Notice::new(what, now), now);
        write(&file, &desk).await.expect("written");
        assert_eq!(read(&file).await, Ok(Some(desk)));
        let whole = std::fs::read(&file).expect("bytes");
        for end in 0..whole.len() {
            std::fs::write(&file, &whole[..end]).expect("torn");
            assert!(read(&file).await.is_err(), "torn at {end}");
        }
        assert_eq!(
            std::fs::read_dir(dir.path()).expect("a directory").count(),
            1,
            "something was left"
        );
    }

    #[tokio::test]
    async fn two_processes_of_one_machine_share_no_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let (agent, watcher) = (file(dir.path(), None), file(dir.path(), Some("seoul")));
        for file in [&agent, &watcher] {
            write(file, &Desk::default()).await.expect("written");
        }
        let held = lock(&agent).expect("tried");
        assert!(held.is_some() && lock(&watcher).expect("tried").is_some());
        assert!(lock(&agent).expect("tried").is_none(), "a second agent");
        drop(held);
        assert!(lock(&agent).expect("tried").is_some());
        assert_eq!(files(dir.path()).await, [watcher, agent]);
    }
}
