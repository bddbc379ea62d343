//! What every store accepts alike, so that a backup can be moved from one store to any other.
//!
//! The strictest rule of Azure, of HTTP headers and of a POSIX file system wins.

use std::collections::{BTreeMap, BTreeSet};

use super::{BlockNumber, Limits, Metadata, Served, StoreError, Upload};

/// Azure's limit for a blob name, in characters; also a bound for paths.
/// Source: <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>
const MAX_NAME_CHARS: usize = 1024;
/// A path segment becomes a file name with `.json` after it: 255 bytes less 5.
const MAX_SEGMENT_BYTES: usize = 250;
/// All metadata of a blob together. Source: the same page ("8 KB").
const MAX_METADATA_BYTES: usize = 8 * 1024;

fn invalid(store: &str, detail: String) -> StoreError {
    StoreError::Invalid {
        store: store.to_owned(),
        detail,
    }
}

/// A relative path of plain segments: none empty, none beginning or ending with a dot, no control characters.
pub(super) fn check_name(store: &str, name: &str) -> Result<(), StoreError> {
    let refuse = |why: &str| Err(invalid(store, format!("blob name {name:?} {why}")));
    if name.is_empty() || name.chars().count() > MAX_NAME_CHARS {
        return refuse("must have 1 to 1024 characters");
    }
    if name.chars().any(|c| c.is_control() || c == '\\') {
        return refuse("has a control character or a backslash");
    }
    for segment in name.split('/') {
        if segment.is_empty() {
            return refuse("has an empty segment");
        }
        // A leading dot is reserved (`.staging`, `.meta`, `..`); Azure drops trailing dots silently.
        if segment.starts_with('.') || segment.ends_with('.') {
            return refuse("has a segment that begins or ends with a dot");
        }
        if segment.len() > MAX_SEGMENT_BYTES {
            return refuse("has a segment of more than 250 bytes");
        }
    }
    Ok(())
}

/// The run id becomes a directory name and a block id: lower-case hex, not too short to be unique.
pub(super) fn check_upload(store: &str, upload: &Upload) -> Result<(), StoreError> {
    check_name(store, &upload.name)?;
    let hex = upload
        .run_id
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if hex && (8..=128).contains(&upload.run_id.len()) {
        Ok(())
    } else {
        Err(invalid(
            store,
            format!("run id {:?} is not 8 to 128 lower-case hex digits", upload.run_id),
        ))
    }
}

/// Each block once: the directory store gives a block's space back as soon as it is copied.
pub(super) fn check_blocks(store: &str, blocks: &[BlockNumber], limits: Limits) -> Result<(), StoreError> {
    if blocks.len() > limits.max_blocks as usize {
        return Err(invalid(
            store,
            format!("{} blocks; at most {} fit in one blob", blocks.len(), limits.max_blocks),
        ));
    }
    let mut seen = BTreeSet::new();
    match blocks.iter().find(|block| !seen.insert(**block)) {
        Some(twice) => Err(invalid(store, format!("block {twice} is named twice in one commit"))),
        None => Ok(()),
    }
}

/// Metadata travels as HTTP headers: values are printable ASCII, not empty, without space at either end.
pub(super) fn check_metadata(store: &str, metadata: &Metadata) -> Result<(), StoreError> {
    let mut total = 0;
    for (key, value) in metadata {
        let key_ok = key.bytes().enumerate().all(|(i, b)| match b {
            b'a'..=b'z' | b'_' => true,
            b'0'..=b'9' => i > 0,
            _ => false,
        });
        if key.is_empty() || !key_ok {
            return Err(invalid(store, format!("metadata name {key:?} is not [a-z_][a-z0-9_]*")));
        }
        let printable = value.bytes().all(|b| (b' '..=b'~').contains(&b));
        if value.is_empty() || !printable || value.trim() != value {
            return Err(invalid(
                store,
                format!("metadata value of {key} is empty, not printable ASCII, or begins or ends with a space"),
            ));
        }
        total += key.len() + value.len();
    }
    if total > MAX_METADATA_BYTES {
        return Err(invalid(
            store,
            format!("{total} bytes of metadata; at most {MAX_METADATA_BYTES} are kept"),
        ));
    }
    Ok(())
}

/// Sent as HTTP headers, so the rules of metadata's values hold.
pub(super) fn check_served(store: &str, served: &Served) -> Result<(), StoreError> {
    let fits = |value: &str| {
        !value.is_empty()
            && value.len() <= 256
            && value.trim() == value
            && value.bytes().all(|b| (b' '..=b'~').contains(&b))
    };
    if fits(&served.content_type) && served.cache_control.as_deref().is_none_or(fits) {
        Ok(())
    } else {
        Err(invalid(
            store,
            "a content type or cache control is empty, longer than 256 bytes, or not printable ASCII".to_owned(),
        ))
    }
}

/// Azure's rules for index tags: 10 at most, names 1–128 and values 0–256 characters of `[A-Za-z0-9 +-./:=_]`.
/// Source: <https://learn.microsoft.com/rest/api/storageservices/set-blob-tags>
pub(super) fn check_tags(store: &str, tags: &BTreeMap<String, String>) -> Result<(), StoreError> {
    let allowed = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b" +-./:=_".contains(&b))
    };
    if tags.len() > 10 {
        return Err(invalid(store, format!("{} tags; at most 10 are kept", tags.len())));
    }
    match tags
        .iter()
        .find(|(key, value)| key.is_empty() || key.len() > 128 || value.len() > 256 || !allowed(key) || !allowed(value))
    {
        Some((key, _)) => Err(invalid(
            store,
            format!("tag {key:?} or its value is not one that Azure accepts"),
        )),
        None => Ok(()),
    }
}

/// `range` as offsets inside a blob of `size_bytes`.
pub(super) fn check_range(
    store: &str,
    name: &str,
    range: &std::ops::Range<u64>,
    size_bytes: u64,
) -> Result<(), StoreError> {
    if range.start <= range.end && range.end <= size_bytes {
        Ok(())
    } else {
        Err(invalid(
            store,
            format!(
                "bytes {}..{} of {name} were asked for, which has {size_bytes}",
                range.start, range.end
            ),
        ))
    }
}
