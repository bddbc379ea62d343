//! A directory for one run: variables, the saved plan, the program's output. Plans hold secret values, so nobody else may
//! look inside, and it goes with the run; what a killed one left behind goes with the next.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Exists, and is locked, as long as the run does.
#[derive(Debug)]
pub(super) struct Workplace {
    dir: TempDir,
    _lock: File,
}

impl Workplace {
    pub fn new(data_dir: &Path) -> io::Result<Self> {
        let parent = data_dir.join("planb");
        fs::create_dir_all(&parent)?;
        // Between making and locking a directory nobody may take it for a leftover.
        let gate = File::open(&parent)?;
        gate.lock()?;
        for entry in fs::read_dir(&parent)?.flatten() {
            let path = entry.path();
            if File::open(&path).is_ok_and(|dir| dir.try_lock().is_ok()) {
                fs::remove_dir_all(&path)?;
            }
        }
        let dir = tempfile::Builder::new()
            .prefix("run-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(&parent)?;
        let lock = File::open(dir.path())?;
        lock.lock()?;
        Ok(Self { dir, _lock: lock })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn plan(&self) -> PathBuf {
        self.file("plan")
    }

    pub fn stdout(&self) -> PathBuf {
        self.file("stdout")
    }

    pub fn stderr(&self) -> PathBuf {
        self.file("stderr")
    }

    pub fn variables(&self) -> PathBuf {
        self.file("variables.tfvars.json")
    }

    pub fn cli_config(&self) -> PathBuf {
        self.file("cli.tfrc")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_run_left_goes_and_a_living_one_stays() {
        let data = tempfile::tempdir().expect("a directory");
        let living = Workplace::new(data.path()).expect("a workplace");
        let left = data.path().join("planb/run-left");
        fs::create_dir(&left).expect("a directory");
        fs::write(left.join("plan"), "secret").expect("a file");
        let second = Workplace::new(data.path()).expect("a workplace");
        assert!(!left.exists());
        assert!(living.dir.path().exists());
        let mode = second.dir.path().metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
