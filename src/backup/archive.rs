//! One backup, opened: its index from the end of the file, and its members, each checked against its hash.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::format::index::{Index, IndexError, MemberRecord};
use crate::format::member;
use crate::format::trailer::{TRAILER_BYTES, Trailer, TrailerError};
use crate::store::StoreError;
use crate::store::blob::Blob;

/// An index is small; what claims to be a larger one is damaged.
const LARGEST_INDEX_BYTES: u64 = 256 << 20;
/// A member holds at most 64 MiB of SQL and the row that goes beyond; no row is larger than the protocol's 1 GiB,
/// which escaping may double.
const LARGEST_MEMBER_BYTES: u64 = 3 << 30;
/// How often a range whose hash is wrong is fetched: the way here may be at fault.
const FETCHES: u32 = 3;

/// An opened backup.
#[derive(Debug, Clone)]
pub struct Archive {
    pub index: Arc<Index>,
    /// SHA-256 (hex) of the stored index.
    pub digest: String,
    blob: Arc<dyn Blob>,
}

impl Archive {
    /// Reads the index; as often as a member, before it is called damaged.
    ///
    /// # Errors
    /// [`ReadError`]; see [`ReadError::is_damage`].
    pub async fn open(blob: Arc<dyn Blob>) -> Result<Self, ReadError> {
        let mut fetched = 1;
        let (index, digest) = loop {
            match read_index(blob.as_ref()).await {
                Err(error) if error.is_damage() && fetched < FETCHES => fetched += 1,
                result => break result?,
            }
        };
        Ok(Self {
            index: Arc::new(index),
            digest,
            blob,
        })
    }

    pub fn describe(&self) -> String {
        self.blob.describe()
    }

    pub fn size_bytes(&self) -> u64 {
        self.blob.size_bytes()
    }

    /// A member's SQL, checked by hash, CRC and length. Its place in the index is `number`.
    ///
    /// # Errors
    /// [`ReadError::Member`] names the exact place once it was wrong as often as it was fetched.
    pub async fn member(&self, number: usize) -> Result<Vec<u8>, ReadError> {
        let Some(record) = self.index.members.get(number) else {
            return Err(ReadError::Damaged("it has no such member"));
        };
        let damaged = |detail| ReadError::Member {
            place: place(record, number),
            detail,
        };
        if record.raw_bytes > LARGEST_MEMBER_BYTES || record.stored_bytes > LARGEST_MEMBER_BYTES {
            return Err(damaged("its length makes no sense"));
        }
        let mut detail = "";
        for _ in 0..FETCHES {
            let stored = self
                .blob
                .read(record.offset..record.offset + record.stored_bytes)
                .await?;
            if crate::dump::pipeline::hex(&Sha256::digest(&stored)) != record.sha256 {
                detail = "its bytes are not those that were written (SHA-256)";
                continue;
            }
            let length = usize::try_from(record.raw_bytes).unwrap_or(usize::MAX);
            // The hash is right, so what does not open now never will.
            return member::unpack(&stored, length).map_err(|_| damaged("it cannot be decompressed"));
        }
        Err(damaged(detail))
    }
}

/// Where a member is, for a person: number, what it holds, and its bytes in the file.
pub fn place(record: &MemberRecord, number: usize) -> String {
    let what = match (record.schema.as_str(), record.table.as_str()) {
        ("", _) => String::new(),
        (schema, "") => format!(" of {schema}"),
        (schema, table) => format!(" of {schema}.{table}"),
    };
    format!(
        "member {number} ({:?}{what}, bytes {} to {})",
        record.kind,
        record.offset,
        record.offset + record.stored_bytes
    )
}

/// Why a backup's index could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Trailer(#[from] TrailerError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("its index is damaged: {0}")]
    Damaged(&'static str),
    #[error("{place} is damaged: {detail}")]
    Member { place: String, detail: &'static str },
}

impl ReadError {
    /// Whether trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => error.is_permanent(),
            Self::Trailer(_) | Self::Index(_) | Self::Damaged(_) | Self::Member { .. } => true,
        }
    }

    /// Whether the backup itself is at fault, not the way to it, nor this planb's age.
    pub fn is_damage(&self) -> bool {
        match self {
            // A trailer's version stands under its checksum, an index's under its hash: it is what was written.
            Self::Store(_) | Self::Trailer(TrailerError::Format(_)) | Self::Index(IndexError::Format(_)) => false,
            Self::Trailer(TrailerError::NotATrailer | TrailerError::Checksum)
            | Self::Index(IndexError::Line { .. } | IndexError::Incomplete | IndexError::Gap(_))
            | Self::Damaged(_)
            | Self::Member { .. } => true,
        }
    }
}

/// Reads a backup's index from the end of its blob, pinned to one version, and checks its hash. Returns the digest too.
///
/// # Errors
/// [`ReadError`]; every kind but the store's means that the backup is damaged or none.
pub async fn read_index(blob: &dyn Blob) -> Result<(Index, String), ReadError> {
    let trailer_bytes = TRAILER_BYTES as u64;
    let Some(start) = blob.size_bytes().checked_sub(trailer_bytes) else {
        return Err(TrailerError::NotATrailer.into());
    };
    let end = blob.read(start..blob.size_bytes()).await?;
    let trailer = Trailer::decode(&end)?;
    let index_end = trailer.index_offset.checked_add(trailer.index_stored_bytes);
    if index_end != Some(start) || trailer.index_stored_bytes > LARGEST_INDEX_BYTES {
        return Err(ReadError::Damaged("it does not end where the trailer begins"));
    }
    let stored = blob.read(trailer.index_offset..start).await?;
    let digest = Sha256::digest(&stored);
    if digest.as_slice() != trailer.digest {
        return Err(ReadError::Damaged("its hash is not the one in the trailer"));
    }
    // The last four bytes of a gzip member are its length (RFC 1952).
    let length = stored.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if u64::from(length) > LARGEST_INDEX_BYTES {
        return Err(ReadError::Damaged("it is too large"));
    }
    let raw = member::unpack(&stored, length as usize).map_err(|_| ReadError::Damaged("it cannot be decompressed"))?;
    let text = String::from_utf8(raw).map_err(|_| ReadError::Damaged("it is not text"))?;
    Ok((
        Index::decode(&text, trailer.index_offset)?,
        crate::dump::pipeline::hex(&digest),
    ))
}
