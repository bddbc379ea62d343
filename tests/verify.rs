//! `planb verify` against stores: what it finds is told, written down, and counts in listings, status and retention;
//! and what is the store's own trouble is never called damage.

#[path = "damage/mod.rs"]
mod made;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use made::{Made, made};
use planb::backup::entry::{Entry, Standing};
use planb::backup::ledger::{self, Ledger, LedgerError};
use planb::backup::proof::{By, Finding, Level};
use planb::backup::retention::{Holds, Reason, keep};
use planb::backup::rpo::Newest;
use planb::backup::verify::{Verdict, stored};
use planb::backup::{archive::ReadError, shelf};
use planb::clock::{Clock, FixedClock, SystemClock};
use planb::config::Config;
use planb::format::member::Packer;
use planb::store::directory::DirectoryStore;
use planb::store::faulty::{Call, Fault, Faulty};
use planb::store::memory::MemoryStore;
use planb::store::{BlobStore, Condition, StoreError};
use serde_json::Value;
use support::Planb;

const PREFIX: &str = "backups/";

fn by() -> By {
    By {
        host: "here".to_owned(),
        site: "primary".to_owned(),
        planb: "0".to_owned(),
    }
}

fn memory() -> MemoryStore {
    MemoryStore::new(Arc::new(SystemClock))
}

/// The store with this file in it, copied by another tool: no metadata.
async fn copied<S: BlobStore>(store: S, made: &Made, bytes: &Bytes) -> Arc<S> {
    let name = made.id.blob(PREFIX);
    store
        .put(&name, bytes.clone(), Condition::Always)
        .await
        .expect("written");
    Arc::new(store)
}

async fn only(store: &dyn BlobStore) -> Entry {
    let mut entries = shelf::list(store, PREFIX, "bank", &planb::recovery::state::Standing::default())
        .await
        .expect("listed");
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

async fn verify<S: BlobStore + 'static>(store: &Arc<S>, entry: &Entry) -> Result<Verdict, ReadError> {
    let store: Arc<dyn BlobStore> = Arc::clone(store) as _;
    stored(store, entry, by(), &|_| ()).await.map(|look| look.verdict)
}

#[tokio::test]
async fn a_copy_that_lost_its_metadata_is_listed_and_sound() {
    let [made, _] = tokio::task::spawn_blocking(made).await.expect("made");
    let store = copied(memory(), made, &made.bytes).await;
    let entry = only(store.as_ref()).await;
    assert_eq!(
        (entry.standing.clone(), entry.rows),
        (Standing::Good, made.index.summary.rows)
    );
    assert!(matches!(verify(&store, &entry).await, Ok(Verdict::Sound(looked)) if looked.rows == entry.rows));
}

#[tokio::test]
async fn a_backup_replaced_while_it_is_read_is_no_mixture_of_two() {
    let [made, _] = tokio::task::spawn_blocking(made).await.expect("made");
    let dir = tempfile::tempdir().expect("a directory");
    let directory = DirectoryStore::open(dir.path(), Arc::new(SystemClock))
        .await
        .expect("a store");
    let directory = copied(directory, made, &made.bytes).await;
    let entry = only(directory.as_ref()).await;
    let read = AtomicUsize::new(0);
    let replace = |_| {
        // As another tool would: the same bytes, but another file.
        if read.fetch_add(1, Ordering::SeqCst) == 0 {
            let path = dir.path().join(made.id.blob(PREFIX));
            let other = dir.path().join("other");
            std::fs::write(&other, &made.bytes).expect("written");
            std::fs::rename(&other, &path).expect("replaced");
        }
    };
    let replaced = stored(Arc::clone(&directory) as _, &entry, by(), &replace).await;
    let error = replaced.expect_err("noticed");
    assert!(
        matches!(error, ReadError::Store(StoreError::Changed { .. })),
        "{error:?}"
    );
    assert!(!error.is_damage());

    // The same between listing and reading, in a store that says so at any read.
    for reads_before in 0..4 {
        let faulty = copied(Faulty::scripted(memory(), []), made, &made.bytes).await;
        let entry = only(faulty.as_ref()).await;
        for _ in 0..reads_before {
            faulty.inject(Call::Read, Fault::Slow(Duration::ZERO));
        }
        let changed = StoreError::Changed {
            store: "memory".to_owned(),
            name: entry.blob.clone(),
        };
        faulty.inject(Call::Read, Fault::Refuse(changed));
        let error = verify(&faulty, &entry).await.expect_err("noticed");
        assert!(!error.is_damage() && faulty.injected() > reads_before, "{error:?}");
    }
}

#[tokio::test]
async fn the_stores_trouble_is_not_the_backups() {
    let [made, _] = tokio::task::spawn_blocking(made).await.expect("made");
    for broken_read in 0..4 {
        // Bytes lost on the way are fetched again …
        let faulty = copied(Faulty::scripted(memory(), []), made, &made.bytes).await;
        let entry = only(faulty.as_ref()).await;
        for _ in 0..broken_read {
            faulty.inject(Call::Read, Fault::Slow(Duration::ZERO));
        }
        faulty.inject(Call::Read, Fault::ShortRead);
        let verdict = verify(&faulty, &entry).await;
        assert!(
            matches!(verdict, Ok(Verdict::Sound(_))),
            "read {broken_read}: {verdict:?}"
        );
        // … and a store that does not answer has said nothing.
        faulty.inject(Call::Read, Fault::FailBefore);
        let error = verify(&faulty, &entry).await.expect_err("unavailable");
        assert!(!error.is_damage() && !error.is_permanent(), "{error:?}");
    }
}

/// Takes a member out and makes everything in the file right again. Only what was committed beside it disagrees.
fn without_triggers(made: &Made) -> Bytes {
    let gone = |index: &planb::format::Index| {
        let triggers = planb::format::MemberKind::Triggers;
        index.members.iter().position(|member| member.kind == triggers)
    };
    made.forged(|members, index| {
        while let Some(number) = gone(index) {
            members.remove(number);
            index.summary.raw_bytes -= index.members.remove(number).raw_bytes;
        }
        made::renumber(index);
    })
}

#[tokio::test]
async fn a_perfect_forgery_is_not_what_was_committed() {
    let [made, _] = tokio::task::spawn_blocking(made).await.expect("made");
    let forged = without_triggers(made);
    let file = forged.clone();
    let alone = tokio::task::spawn_blocking(move || made::check(&file))
        .await
        .expect("checked");
    alone.expect("the file itself shows nothing");
    let store = copied(memory(), made, &forged).await;
    let mut entry = only(store.as_ref()).await;
    // What the listing would say, had the metadata been kept.
    entry.digest = only(copied(memory(), made, &made.bytes).await.as_ref()).await.digest;
    let verdict = verify(&store, &entry).await;
    assert!(
        matches!(&verdict, Ok(Verdict::Damaged(place)) if place.contains("not the one that was committed")),
        "{verdict:?}"
    );
}

fn finding(level: Level, entry: &Entry, at: Timestamp) -> Finding {
    Finding {
        level,
        blob: entry.blob.clone(),
        at,
        by: by(),
        seconds: 1.0,
        rows: entry.rows,
    }
}

fn restored() -> Level {
    Level::Restored {
        server: "MySQL 9.7.0".to_owned(),
        tables_compared: 1,
        checksums_compared: 1,
    }
}

fn plain(minutes: i64) -> Entry {
    let at = "2026-01-01T00:00:00Z".parse::<Timestamp>().expect("a time") + Duration::from_secs(60 * minutes as u64);
    let id = planb::backup::entry::BackupId::at(at);
    Entry {
        blob: id.blob(PREFIX),
        id,
        etag: planb::store::ETag("1".to_owned()),
        size_bytes: 1,
        raw_bytes: 1,
        rows: 1,
        site: "primary".to_owned(),
        epoch: 1,
        consistent_at: at,
        committed_at: at,
        digest: format!("d{minutes}"),
        standing: Standing::Good,
        proven_at: None,
        structure_checked_at: None,
    }
}

#[tokio::test]
async fn proofs_are_kept_for_each_prefix_joined_and_protect_the_newest_proven() {
    let control = memory();
    let listing: Vec<Entry> = (0..4).rev().map(plain).collect();
    let now = listing[0].consistent_at + Duration::from_secs(60);
    let note = async |entry: &Entry, level| {
        let found = finding(level, entry, now);
        let written = ledger::note(&control, PREFIX, &entry.id, &entry.digest, &found).await;
        written.expect("written");
    };
    note(&listing[3], restored()).await;
    note(&listing[3], Level::Structure).await;
    note(&listing[1], Level::Structure).await;
    let place = "member 3".to_owned();
    note(&listing[0], Level::Damaged { place }).await;
    let ledger = Ledger::default();
    // Twice: the second time from what was read before.
    for _ in 0..2 {
        let mut entries = listing.clone();
        ledger.join(&control, PREFIX, &mut entries).await.expect("joined");
        assert_eq!(entries[0].standing, Standing::Unusable("damaged: member 3".to_owned()));
        assert_eq!(
            (entries[1].structure_checked_at, entries[1].proven_at),
            (Some(now), None)
        );
        assert_eq!(
            (entries[3].structure_checked_at, entries[3].proven_at),
            (Some(now), Some(now))
        );
        let newest = Newest::of(&entries);
        assert_eq!(
            newest.good.map(|point| point.id),
            Some(entries[1].id.clone()),
            "RPO falls back"
        );
        assert_eq!(newest.proven.map(|point| point.id), Some(entries[3].id.clone()));
        let config = Config::parse(
            "[service]\nname = \"a\"\n[source]\nhost = \"h\"\nuser = \"u\"\npassword = \"env:P\"\n[store]\nurl = \
             \"file:///s\"\n[retention]\nkeep_all = \"0s\"\nkeep_hourly = \"0s\"\nkeep_days = 0\nkeep_at_least = 1\n",
        )
        .expect("valid");
        let pruning = keep(
            &entries,
            &config.retention,
            &Holds::default(),
            now + Duration::from_secs(1 << 30),
        );
        let kept = |id| {
            pruning
                .kept
                .iter()
                .find(|kept| kept.id == id)
                .map(|kept| kept.reasons.clone())
        };
        assert!(kept(entries[3].id.clone()).is_some_and(|why| why.contains(&Reason::NewestProven)));
        assert!(kept(entries[0].id.clone()).is_some_and(|why| why.contains(&Reason::Unusable)));
        assert!(kept(entries[2].id.clone()).is_none(), "the others may go");
    }
    let mut other_prefix = listing.clone();
    ledger
        .join(&control, "backups/b/", &mut other_prefix)
        .await
        .expect("joined");
    assert_eq!(other_prefix, listing);
}

#[tokio::test]
async fn writers_of_proofs_never_undo_each_other_and_nonsense_is_passed_over() {
    let entry = plain(0);
    let at = entry.consistent_at;
    let control = Faulty::scripted(memory(), [(Call::Put, Fault::FailAfter)]);
    let note =
        async |level| ledger::note(&control, PREFIX, &entry.id, &entry.digest, &finding(level, &entry, at)).await;
    // Written, but the answer is lost; whoever repeats it finds its own.
    assert!(note(restored()).await.is_err());
    note(restored()).await.expect("there already");
    // Somebody else writes between reading and writing.
    let changed = StoreError::Changed {
        store: String::new(),
        name: String::new(),
    };
    control.inject(Call::Put, Fault::Refuse(changed));
    note(Level::Structure).await.expect("tried again");
    let join = async || {
        let mut entries = [entry.clone()];
        Ledger::default()
            .join(&control, PREFIX, &mut entries)
            .await
            .map(|()| entries[0].clone())
    };
    let joined = join().await.expect("joined");
    assert_eq!((joined.proven_at, joined.structure_checked_at), (Some(at), Some(at)));

    let denied = StoreError::Denied {
        store: String::new(),
        detail: "read only".to_owned(),
    };
    control.inject(Call::Put, Fault::Refuse(denied));
    let place = "member 1".to_owned();
    let refused = note(Level::Damaged { place }).await;
    assert!(
        matches!(refused, Err(LedgerError::Store(StoreError::Denied { .. }))),
        "{refused:?}"
    );
    let name = format!("proofs/backups/{}.json", entry.id);
    for nonsense in ["", "{", "{\"v\":2,\"id\":\"x\",\"digest\":\"d0\",\"findings\":[]}"] {
        let bytes = Bytes::from(nonsense.to_owned());
        control.put(&name, bytes, Condition::Always).await.expect("written");
        assert_eq!(join().await.expect("joined").proven_at, None, "{nonsense}");
        let refused = note(Level::Structure).await;
        assert!(
            matches!(refused, Err(LedgerError::Unreadable(_))),
            "a newer planb's record stays: {refused:?}"
        );
    }
    control.inject(Call::List, Fault::FailBefore);
    assert!(
        join().await.is_err(),
        "a store that does not answer has not said that there are no proofs"
    );
}

#[tokio::test]
async fn proofs_of_backups_that_are_gone_go_a_week_later() {
    let clock = Arc::new(FixedClock::at(plain(0).consistent_at));
    let control = MemoryStore::new(Arc::clone(&clock) as _);
    let (kept, gone) = (plain(0), plain(1));
    for entry in [&kept, &gone] {
        let found = finding(Level::Structure, entry, clock.now());
        let written = ledger::note(&control, PREFIX, &entry.id, &entry.digest, &found).await;
        written.expect("written");
    }
    let other = "proofs/other/backup-20260101-000100.json";
    let never_ours = "proofs/backups/notes.json";
    for name in [other, never_ours] {
        control
            .put(name, Bytes::new(), Condition::Absent)
            .await
            .expect("written");
    }
    let sweep = async || {
        let listing = [kept.clone()];
        ledger::sweep(&control, PREFIX, &listing, clock.now())
            .await
            .expect("swept")
    };
    assert_eq!(sweep().await, 0, "a listing may be older than a proof");
    clock.set(clock.now() + Duration::from_secs(8 * 86_400));
    assert_eq!((sweep().await, sweep().await), (1, 0));
    let names: Vec<String> = control
        .list("proofs/")
        .await
        .expect("listed")
        .into_iter()
        .map(|blob| blob.name)
        .collect();
    assert_eq!(names, [&format!("proofs/backups/{}.json", kept.id), never_ours, other]);
}

// --- the real binary ----------------------------------------------------------------------------------

/// An installation whose store holds these files, as another tool would have copied them.
fn planb(files: &[(&str, &[u8])]) -> Planb {
    let planb = Planb::empty();
    planb.write_config(&format!(
        "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:P\"\ntls = \"off\"\n\
         [store]\nurl = \"file://{}\"\n",
        planb.store().display()
    ));
    std::fs::create_dir(planb.store().join("backups")).expect("a folder");
    for (id, bytes) in files {
        std::fs::write(in_store(&planb, id), bytes).expect("written");
    }
    planb
}

fn in_store(planb: &Planb, id: &str) -> PathBuf {
    planb.store().join("backups").join(format!("{id}.sql.gz"))
}

/// The same backup, as of another instant.
fn as_of(made: &Made, at: Timestamp) -> (String, Bytes) {
    let bytes = made.forged(|_, index| index.summary.consistent_at = at);
    (planb::backup::entry::BackupId::at(at).to_string(), bytes)
}

/// What it printed on stdout, one JSON object, and its exit code.
fn json(planb: &Planb, args: &[&str]) -> (Value, Option<i32>) {
    let output = planb.run(&[&["--json"], args].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("not one JSON object ({error}): {text}"));
    (value, output.status.code())
}

fn flip(path: &Path, byte: usize) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes[byte] ^= 1;
    std::fs::write(path, bytes).expect("written");
}

#[test]
fn a_sound_backup_is_told_with_its_figures_and_proven_in_listings() {
    for made in made() {
        let id = made.id.as_str();
        let planb = planb(&[(id, &made.bytes)]);
        let told = planb.ok(&["verify"]);
        assert!(told.starts_with("sound: ") && told.contains(id), "{told}");
        let (value, code) = json(&planb, &["verify", id]);
        assert_eq!(
            (code, &value["result"], &value["v"]),
            (Some(0), &"sound".into(), &1.into())
        );
        for (field, expected) in [
            ("id", Value::from(id)),
            ("members", made.index.members.len().into()),
            ("rows", made.index.summary.rows.into()),
            ("raw_bytes", made.index.summary.raw_bytes.into()),
            ("stored_bytes", made.index_range().start.into()),
            ("proof_written", true.into()),
        ] {
            assert_eq!(value[field], expected, "{field}");
        }
        assert!(value["duration_seconds"].is_number() && value["digest"].as_str().is_some_and(|d| d.len() == 64));
        let (listed, _) = json(&planb, &["backups"]);
        assert!(listed["backups"][0]["structure_checked_at"].is_string(), "{listed}");
        assert!(
            listed["backups"][0]["proven_at"].is_null(),
            "a structure is no proof: {listed}"
        );
        assert!(planb.ok(&["backups"]).contains("good, structure checked "));
        let (status, _) = json(&planb, &["status"]);
        assert_eq!(
            (&status["newest_structure_checked"], &status["newest_proven"]),
            (&id.into(), &Value::Null)
        );
        assert!(planb.ok(&["status"]).contains(&format!("checked   {id}")));
        // A file needs no configuration.
        std::fs::write(planb.config(), "nonsense").expect("written");
        let path = in_store(&planb, id).display().to_string();
        let (value, code) = json(&planb, &["verify", &path]);
        assert_eq!(
            (code, &value["id"], &value["proof_written"]),
            (Some(0), &id.into(), &Value::Null)
        );
    }
}

#[test]
fn damage_is_told_with_its_place_and_counts_everywhere() {
    let [made, _] = made();
    let now = SystemClock.now();
    let (older, older_bytes) = as_of(made, now - Duration::from_secs(300));
    let (newest, newest_bytes) = as_of(made, now - Duration::from_secs(60));
    let planb = planb(&[(&older, &older_bytes), (&newest, &newest_bytes)]);
    let data = made.range_of(1);
    flip(&in_store(&planb, &newest), data.start + 30);

    // Nothing shows before somebody looks.
    assert_eq!(json(&planb, &["status"]).0["newest"]["id"], newest.as_str());
    let told = planb.fails(5, &["verify"]);
    let place = format!("bytes {} to {}", data.start, data.end);
    assert!(
        told.contains("DAMAGED") && told.contains(&place) && told.contains(&older),
        "{told}"
    );

    let (status, _) = json(&planb, &["status"]);
    assert_eq!(status["newest"]["id"], older.as_str(), "the RPO falls back: {status}");
    assert!(status["rpo"]["loss_now_seconds"].as_f64() > Some(299.0), "{status}");
    assert_eq!(status["unusable"][0]["id"], newest.as_str());
    let told = planb.ok(&["status"]);
    assert!(
        told.contains(&format!("UNUSABLE  {newest}: damaged: member 1 ")),
        "{told}"
    );
    assert!(planb.ok(&["backups"]).contains("unusable: damaged: member 1 "));

    // From now on the older one is the newest good one, and that is told loudly.
    let (value, code) = json(&planb, &["verify"]);
    assert_eq!(
        (code, &value["result"], &value["id"]),
        (Some(5), &"newest-unusable".into(), &older.as_str().into())
    );
    assert_eq!(value["newer_unusable"][0]["id"], newest.as_str());
    let told = planb.fails(5, &["verify"]);
    assert!(
        told.contains(&format!("THE NEWEST BACKUP, {newest}, IS UNUSABLE")),
        "{told}"
    );
    assert!(planb.ok(&["verify", &older]).starts_with("sound"));
    let (value, code) = json(&planb, &["verify", &newest]);
    assert_eq!(
        (code, &value["result"], &value["error"]["exit"]),
        (Some(5), &"damaged".into(), &5.into())
    );

    // A good copy is put back, and looked at again.
    flip(&in_store(&planb, &newest), data.start + 30);
    planb.ok(&["verify", &newest]);
    assert_eq!(json(&planb, &["status"]).0["newest"]["id"], newest.as_str());
}

#[test]
fn every_other_end_has_its_exit_code_and_says_what_to_do() {
    let [made, _] = made();
    let id = made.id.as_str();
    let planb = planb(&[(id, &made.bytes)]);
    assert!(planb.fails(2, &["verify", "yesterday"]).contains("neither an id"));
    assert!(
        planb
            .fails(1, &["verify", "backup-20200101-000000"])
            .contains("planb backups")
    );
    assert!(
        planb
            .fails(1, &["verify", "/nowhere/x.sql.gz"])
            .contains("/nowhere/x.sql.gz")
    );
    let mut plain = Vec::new();
    Packer::new(6).pack(b"SELECT 1;\n", &mut plain).expect("packs");
    for (name, bytes) in [("empty.sql.gz", Vec::new()), ("plain.sql.gz", plain)] {
        let path = planb.path().join(name);
        std::fs::write(&path, bytes).expect("written");
        let told = planb.fails(5, &["verify", &path.display().to_string()]);
        assert!(told.contains("not a PlanB backup"), "{told}");
    }
    // Where nothing may be written, looking still works.
    let record = planb.store().join(format!("control/proofs/backups/{id}.json"));
    std::fs::create_dir_all(record).expect("in the way");
    let told = support::planb::text(&planb.run(&["verify"]));
    assert!(
        told.starts_with("exit Some(0)") && told.contains("could not be written down"),
        "{told}"
    );
    assert_eq!(json(&planb, &["verify"]).0["proof_written"], false);
    // The newest is no backup at all any more.
    std::fs::write(in_store(&planb, "backup-20990101-000000"), b"").expect("written");
    let told = planb.fails(5, &["verify"]);
    assert!(
        told.contains("THE NEWEST BACKUP, backup-20990101-000000") && told.contains(id),
        "{told}"
    );
    std::fs::remove_dir_all(planb.store().join("backups")).expect("removed");
    assert!(planb.fails(1, &["verify"]).contains("no good backup"));
    std::fs::remove_dir_all(planb.store()).expect("removed");
    planb.fails(1, &["verify"]);
}
