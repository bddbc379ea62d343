//! What an error of the file system means to whoever called the store.

use std::io;
use std::path::Path;

use crate::store::StoreError;

pub(super) fn store_error(root: &Path, doing: &str, error: &io::Error) -> StoreError {
    use io::ErrorKind;
    let store = format!("file://{}", root.display());
    let detail = format!("{doing}: {error}");
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::NoSpace { store, detail },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::Denied { store, detail },
        ErrorKind::NotFound => {
            let hint = format!("mount its disk, or: install -d -m 0700 {}", root.display());
            StoreError::NoContainer { store, hint }
        }
        ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput
        | ErrorKind::CrossesDevices
        | ErrorKind::FileTooLarge
        | ErrorKind::Unsupported
        | ErrorKind::TooManyLinks => StoreError::Invalid { store, detail },
        // ErrorKind is open-ended; a disk's or a network mount's hiccup is worth another try.
        _ => StoreError::Unavailable { store, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_named_for_what_to_do() {
        let named = |errno: i32| store_error(Path::new("/store"), "write", &io::Error::from_raw_os_error(errno));
        for full in [libc::ENOSPC, libc::EDQUOT] {
            assert!(matches!(named(full), StoreError::NoSpace { .. }), "{full}");
        }
        for denied in [libc::EACCES, libc::EPERM, libc::EROFS] {
            assert!(matches!(named(denied), StoreError::Denied { .. }), "{denied}");
        }
        for bad in [libc::ENOTDIR, libc::EISDIR, libc::ENAMETOOLONG, libc::EXDEV] {
            assert!(matches!(named(bad), StoreError::Invalid { .. }), "{bad}");
        }
        for passing in [libc::EIO, libc::ESTALE, libc::EINTR, libc::ETIMEDOUT] {
            assert!(matches!(named(passing), StoreError::Unavailable { .. }), "{passing}");
        }
        assert!(matches!(named(libc::ENOENT), StoreError::NoContainer { .. }));
    }
}
