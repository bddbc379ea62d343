//! Verification of a backup's structure, without a database: trailer, index, and every member's length, hash and text.

use futures_util::StreamExt;
use futures_util::stream;

use super::archive::{Archive, ReadError};
use crate::format::index::MemberKind;

/// Members that are fetched and opened at once: enough to hide a store's delay, few enough to stay small.
const AT_ONCE: usize = 4;

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Looked {
    pub members: usize,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    pub rows: u64,
}

/// Checks every member of an opened backup. `progress` is told the stored bytes of each as it is done.
///
/// # Errors
/// [`ReadError`]: the first damaged place, or the store's own trouble.
pub async fn structure(archive: &Archive, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<Looked, ReadError> {
    let members = &archive.index.members;
    if members.first().map(|member| member.kind) != Some(MemberKind::Schema) {
        return Err(ReadError::Damaged("its first member is not the schema"));
    }
    let mut looked = Looked::default();
    let mut checks = stream::iter(0..members.len())
        .map(|number| async move { archive.member(number).await.map(drop) })
        .buffered(AT_ONCE);
    let mut number = 0;
    while let Some(checked) = checks.next().await {
        checked?;
        let member = &members[number];
        looked.members += 1;
        looked.stored_bytes += member.stored_bytes;
        looked.raw_bytes += member.raw_bytes;
        looked.rows += member.rows;
        progress(member.stored_bytes);
        number += 1;
    }
    if looked.rows != archive.index.summary.rows {
        return Err(ReadError::Damaged(
            "its members hold another number of rows than it says",
        ));
    }
    Ok(looked)
}
