//! Secrets that this machine holds: the environment, files, and systemd's credentials.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{Secret, SecretError};

/// A secret is a password, a key or a token. More than this is a mistaken path.
const LARGEST_BYTES: usize = 64 * 1024;

/// A file on a network mount that went away must not hold up the next reference.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn from_env(reference: &str, name: &str) -> Result<Secret, SecretError> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Err(missing(reference, "the variable is set but empty")),
        Ok(value) => Ok(Secret::new(value)),
        Err(std::env::VarError::NotPresent) => Err(missing(reference, "no such environment variable")),
        Err(std::env::VarError::NotUnicode(_)) => Err(missing(reference, "the variable's value is not UTF-8")),
    }
}

pub(super) async fn from_credential(reference: &str, name: &str) -> Result<Secret, SecretError> {
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|directory| !directory.is_empty()) else {
        let detail =
            "not started by systemd with credentials: add LoadCredential= or LoadCredentialEncrypted= to the unit";
        return Err(missing(reference, detail));
    };
    from_file(reference, &PathBuf::from(directory).join(name)).await
}

pub(super) async fn from_file(reference: &str, path: &Path) -> Result<Secret, SecretError> {
    match tokio::time::timeout(PATIENCE, read(reference, path)).await {
        Ok(result) => result,
        Err(_) => Err(SecretError::Unavailable {
            reference: reference.to_owned(),
            detail: format!("reading took longer than {} s", PATIENCE.as_secs()),
        }),
    }
}

async fn read(reference: &str, path: &Path) -> Result<Secret, SecretError> {
    let unreadable = |error: std::io::Error| io_error(reference, &error);
    // Looked at before it is opened: opening a named pipe would wait for its writer, for ever.
    let metadata = tokio::fs::metadata(path).await.map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(missing(reference, "not a regular file"));
    }
    warn_if_others_may_read(reference, &metadata);
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    // One allocation, handed on to be wiped: growing would leave pieces behind.
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(LARGEST_BYTES + 1));
    file.take(LARGEST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(unreadable)?;
    if bytes.len() > LARGEST_BYTES {
        return Err(missing(reference, "longer than 64 KiB, so hardly a secret"));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else {
        return Err(missing(reference, "not UTF-8 text"));
    };
    let value = without_newline(text);
    if value.is_empty() {
        return Err(missing(reference, "the file is empty"));
    }
    Ok(Secret::new(value))
}

/// Editors end a file with a newline. One is dropped, and no other white space: it may belong to the secret.
fn without_newline(text: &str) -> &str {
    match text.strip_suffix('\n') {
        Some(line) => line.strip_suffix('\r').unwrap_or(line),
        None => text,
    }
}

#[cfg(unix)]
fn warn_if_others_may_read(reference: &str, metadata: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            reference,
            mode = format!("{mode:o}"),
            "secret file is open to others: chmod 600 it"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_may_read(_reference: &str, _metadata: &std::fs::Metadata) {}

fn io_error(reference: &str, error: &std::io::Error) -> SecretError {
    let reference = reference.to_owned();
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => SecretError::Missing {
            reference,
            detail: "no such file".into(),
        },
        std::io::ErrorKind::PermissionDenied => SecretError::Denied {
            reference,
            detail: "this user may not read the file: check its owner and mode, and those of its directories".into(),
        },
        kind => SecretError::Unavailable {
            reference,
            detail: kind.to_string(),
        },
    }
}

fn missing(reference: &str, detail: &str) -> SecretError {
    SecretError::Missing {
        reference: reference.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_is_dropped_and_nothing_else() {
        assert_eq!(without_newline("a\n"), "a");
        assert_eq!(without_newline("a\r\n"), "a");
        assert_eq!(without_newline("a\n\n"), "a\n");
        assert_eq!(without_newline(" a "), " a ");
        assert_eq!(without_newline("\n"), "");
    }
}
