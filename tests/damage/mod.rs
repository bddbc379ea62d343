//! Real backups, and ways to break them.

#![allow(dead_code, reason = "every test binary uses its own part of it")]

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use planb::backup::archive::{Archive, ReadError};
use planb::backup::entry::BackupId;
use planb::backup::verify::{Looked, structure};
use planb::format::Index;
use planb::format::member::Packer;
use planb::format::trailer::{TRAILER_BYTES, Trailer};
use planb::store::StoreError;
use planb::store::blob::Blob;
use sha2::{Digest, Sha256};

use crate::support::{Flavor, Planb, Server, fixture, reader};

/// A backup of everything a server can hold.
pub struct Made {
    pub flavor: Flavor,
    pub id: BackupId,
    pub bytes: Bytes,
    pub index: Index,
}

/// One of each flavour, made once for all tests of this process.
pub fn made() -> [&'static Made; 2] {
    static MADE: [OnceLock<Made>; 2] = [OnceLock::new(), OnceLock::new()];
    let one = |flavor: Flavor, fixture_name: &str| {
        let server = Server::start(flavor, &[]);
        server.load_file(&fixture(fixture_name));
        let planb = Planb::new(&server, &reader(&server, &[]));
        let path = planb.backup(&[]);
        println!("{}", server.version());
        of_file(flavor, &path)
    };
    [
        MADE[0].get_or_init(|| one(Flavor::MySql, "hard-mysql.sql")),
        MADE[1].get_or_init(|| one(Flavor::MariaDb, "hard-mariadb.sql")),
    ]
}

/// A backup that somebody else made.
pub fn of_file(flavor: Flavor, path: &std::path::Path) -> Made {
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let bytes = Bytes::from(std::fs::read(path).expect("a backup"));
    let (index, _) = block_on(planb::backup::archive::read_index(&Held(bytes.clone()))).expect("an index");
    println!("{} bytes, {} members", bytes.len(), index.members.len());
    Made {
        flavor,
        id: BackupId::of_blob("", &name).expect("an id"),
        bytes,
        index,
    }
}

impl Made {
    pub fn index_range(&self) -> Range<usize> {
        let end = self.bytes.len() - TRAILER_BYTES;
        let last = self.index.members.last().expect("members");
        (last.offset + last.stored_bytes) as usize..end
    }

    pub fn range_of(&self, number: usize) -> Range<usize> {
        let member = &self.index.members[number];
        member.offset as usize..(member.offset + member.stored_bytes) as usize
    }

    pub fn flipped(&self, bit: usize) -> Bytes {
        let mut bytes = self.bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        Bytes::from(bytes)
    }

    /// The file as somebody would forge it who knows the format: members and index changed at will, the index's hash
    /// and place in the trailer made right again.
    pub fn forged(&self, change: impl FnOnce(&mut Vec<Bytes>, &mut Index)) -> Bytes {
        let whole = 0..self.index.members.len();
        let mut members: Vec<Bytes> = whole.map(|number| self.bytes.slice(self.range_of(number))).collect();
        let mut index = self.index.clone();
        change(&mut members, &mut index);
        let mut file = members.concat();
        let mut stored = Vec::new();
        let text = index.encode().expect("encodes");
        Packer::new(3).pack(text.as_bytes(), &mut stored).expect("packs");
        let trailer = Trailer {
            format: 1,
            index_offset: file.len() as u64,
            index_stored_bytes: stored.len() as u64,
            digest: Sha256::digest(&stored).into(),
        };
        file.extend_from_slice(&stored);
        file.extend_from_slice(&trailer.encode());
        Bytes::from(file)
    }
}

/// Offsets without gaps, as an index must have them.
pub fn renumber(index: &mut Index) {
    let mut offset = 0;
    for member in &mut index.members {
        member.offset = offset;
        offset += member.stored_bytes;
    }
}

/// A blob that is simply there.
#[derive(Debug)]
pub struct Held(pub Bytes);

#[async_trait]
impl Blob for Held {
    fn describe(&self) -> String {
        "held".to_owned()
    }
    fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }
    async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        assert!(
            range.start <= range.end && range.end <= self.size_bytes(),
            "{range:?} was asked for"
        );
        Ok(self.0.slice(range.start as usize..range.end as usize))
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

pub fn check(bytes: &Bytes) -> Result<Looked, ReadError> {
    block_on(async { structure(&Archive::open(Arc::new(Held(bytes.clone()))).await?, &|_| ()).await })
}

/// The place that is told. Panics where nothing was noticed, or something else than damage.
pub fn damage(bytes: &Bytes, what: &str) -> String {
    match check(bytes) {
        Err(error) if error.is_damage() => error.to_string(),
        other => panic!("{what}: {other:?}"),
    }
}
