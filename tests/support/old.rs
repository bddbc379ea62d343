//! Backups that were made long ago, as far as a store can tell.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::SignedDuration;
use planb::backup::entry::BackupId;
use planb::clock::{Clock as _, FixedClock, SystemClock};
use planb::store::directory::DirectoryStore;
use planb::store::{BlobStore as _, Upload};

/// Puts a backup of this age into the store, as if an agent had made it then.
pub async fn old_backup(root: &std::path::Path, age: SignedDuration) -> String {
    let at = SystemClock.now() - age;
    let store = DirectoryStore::open(root, Arc::new(FixedClock::at(at)))
        .await
        .expect("a store");
    let id = BackupId::at(at);
    let upload = Upload {
        name: id.blob("backups/"),
        run_id: format!("{:016x}", rand::random::<u64>()),
    };
    let consistent_at = id.second().to_string();
    let metadata = BTreeMap::from(
        [
            ("planb_service", "bank"),
            ("planb_site", "primary"),
            ("planb_epoch", "0"),
            ("planb_consistent_at", &consistent_at),
            ("planb_digest", "00"),
            ("planb_rows", "1"),
            ("planb_raw_bytes", "1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    store
        .stage_block(&upload, 0, Bytes::from_static(b"old"))
        .await
        .expect("staged");
    store.commit(&upload, &[0], &metadata).await.expect("committed");
    id.as_str().to_owned()
}
