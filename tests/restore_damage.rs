//! Promise 1 and 5 at the moment that matters: `planb restore` of a backup to which something happened says so, and what it
//! leaves on the target is never called complete.

#[allow(dead_code, reason = "the bank throws more dice than this")]
#[path = "bank/dice.rs"]
mod dice;
#[path = "damage/mod.rs"]
mod made;
#[allow(dead_code, reason = "tests/foreign.rs uses the rest")]
#[path = "support/range_server.rs"]
mod range_server;
mod support;

use std::path::PathBuf;

use bytes::Bytes;
use dice::{Dice, seed};
use made::{Made, of_file, renumber};
use planb::format::MemberKind;
use planb::format::trailer::{TRAILER_BYTES, Trailer};
use range_server::RangeServer;
use support::planb::text;
use support::restores::arguments;
use support::{Flavor, Planb, Server, reader, restorer};

const KINDS: [MemberKind; 6] = [
    MemberKind::Schema,
    MemberKind::Data,
    MemberKind::Routines,
    MemberKind::Views,
    MemberKind::Triggers,
    MemberKind::Events,
];

/// A small source with something of every kind, its backup, and a server to restore to.
struct Scene {
    source: Server,
    target: Server,
    planb: Planb,
    made: Made,
    to: String,
}

impl Scene {
    fn new(flavor: Flavor) -> Self {
        let source = Server::start(flavor, &[]);
        source.sql(
            "CREATE DATABASE bank; USE bank; CREATE TABLE a (id INT PRIMARY KEY, v VARCHAR(100)); CREATE TABLE b (id INT PRIMARY KEY);
             INSERT INTO a VALUES (1, 'one'), (2, 'two'), (3, REPEAT('three', 15)); INSERT INTO b VALUES (1);
             CREATE VIEW v AS SELECT id FROM a; CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 1;
             CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW SET @x = 1; CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SET @x = 1;",
        );
        let planb = Planb::new(&source, &reader(&source, &[]));
        let made = of_file(flavor, &planb.backup(&[]));
        let target = Server::start(flavor, &[]);
        let to = restorer(&target);
        Self {
            source,
            target,
            planb,
            made,
            to,
        }
    }

    /// How many restores the target calls done.
    fn done(&self) -> usize {
        let counted = self
            .target
            .try_sql("SELECT COUNT(*) FROM planb.restores WHERE phase = 'done'");
        counted.map_or(0, |count| count.trim().parse().expect("a number"))
    }

    fn restore(&self, what: &str, more: &[&str]) -> (Option<i32>, String) {
        let mut args = arguments(&self.to);
        args.insert(1, what);
        args.extend(["--start-over"]);
        args.extend(more);
        let output = self.planb.run(&args);
        (output.status.code(), text(&output))
    }

    fn file(&self, bytes: &Bytes) -> PathBuf {
        let path = self.planb.path().join("given.sql.gz");
        std::fs::write(&path, bytes).expect("written");
        path
    }

    /// Refused with this exit code, and not called complete.
    fn refused(&self, what: &str, bytes: &Bytes, exit: i32) -> String {
        let (code, said) = self.restore(&self.file(bytes).display().to_string(), &[]);
        assert_eq!(code, Some(exit), "{}: {what}: {said}", self.made.flavor.name());
        assert_eq!(self.done(), 0, "{what}: called complete");
        said
    }

    /// The first member of a kind.
    fn first(&self, kind: MemberKind) -> usize {
        let members = &self.made.index.members;
        members
            .iter()
            .position(|member| member.kind == kind)
            .expect("one of each kind")
    }
}

fn nothing_damaged_is_called_complete(flavor: Flavor) {
    let mut dice = Dice::new(seed());
    let scene = Scene::new(flavor);
    let made = &scene.made;
    for kind in KINDS {
        let number = scene.first(kind);
        let range = made.range_of(number);
        for bit in [range.start * 8 + dice.below_usize(range.len() * 8), range.end * 8 - 1] {
            let said = scene.refused(&format!("bit {bit} of {kind:?}"), &made.flipped(bit), 5);
            assert!(said.contains(&format!("member {number} (")), "{said}");
        }
    }
    let index = made.index_range();
    for _ in 0..4 {
        let bit = index.start * 8 + dice.below_usize(index.len() * 8);
        scene.refused("a bit of the index", &made.flipped(bit), 5);
    }
    // A bit of every field: gzip's header, the extra field's, version, place, length and hash of the index, sums.
    for byte in (0..TRAILER_BYTES).step_by(4) {
        let bit = (index.end + byte) * 8 + dice.below_usize(8);
        scene.refused(&format!("byte {byte} of the trailer"), &made.flipped(bit), 5);
    }
    // Cut off at boundaries and inside.
    let boundaries = (1..made.index.members.len())
        .step_by(2)
        .map(|number| made.range_of(number).start);
    let data = made.range_of(scene.first(MemberKind::Data));
    let inside = [
        data.start + data.len() / 2,
        index.start + 10,
        index.end,
        made.bytes.len() - 1,
    ];
    for length in boundaries.chain(inside) {
        scene.refused(&format!("{length} bytes"), &made.bytes.slice(..length), 5);
    }

    // An index that was altered by somebody who knows the format.
    let data = scene.first(MemberKind::Data);
    let altered: [(&str, Bytes); 6] = [
        (
            "another hash",
            made.forged(|_, index| index.members[data].sha256 = index.members[data - 1].sha256.clone()),
        ),
        ("fewer rows", made.forged(|_, index| index.summary.rows -= 1)),
        (
            "rows moved",
            made.forged(|_, index| {
                index.members[data].rows -= 1;
                index.members[data + 1].rows += 1;
            }),
        ),
        (
            "a member is gone",
            made.forged(|members, index| {
                members.remove(data);
                index.members.remove(data);
                renumber(index);
            }),
        ),
        (
            "members swapped",
            made.forged(|members, _| members.swap(data, data + 1)),
        ),
        (
            "a row more than there is, everywhere",
            made.forged(|_, index| {
                index.members[data].rows += 1;
                index.summary.rows += 1;
                let (schema, table) = (index.members[data].schema.clone(), index.members[data].table.clone());
                let record = index
                    .summary
                    .tables
                    .iter_mut()
                    .find(|t| t.schema == schema && t.table == table);
                record.expect("a table").rows += 1;
            }),
        ),
    ];
    for (what, bytes) in &altered[..5] {
        scene.refused(what, bytes, 5);
    }
    // Of this one only the server's count tells; what is there is not the backup, and may not be used.
    let said = scene.refused(altered[5].0, &altered[5].1, 4);
    assert!(said.contains("rows arrived of"), "{said}");

    // A newer format is no damage.
    let trailer = Trailer::decode(&made.bytes).expect("a trailer");
    let newer = Trailer { format: 2, ..trailer }.encode();
    let said = scene.refused("format 2", &Bytes::from([&made.bytes[..index.end], &newer].concat()), 1);
    assert!(said.contains("format 2"), "{said}");

    // After all that, the whole one restores.
    let (code, said) = scene.restore(&scene.file(&made.bytes).display().to_string(), &["--verify"]);
    assert_eq!((code, scene.done()), (Some(0), 1), "{said}");
}

#[test]
fn nothing_damaged_of_a_mysql_is_called_complete() {
    nothing_damaged_is_called_complete(Flavor::MySql);
}

#[test]
fn nothing_damaged_of_a_mariadb_is_called_complete() {
    nothing_damaged_is_called_complete(Flavor::MariaDb);
}

#[test]
fn a_blob_that_is_replaced_between_two_ranges_is_no_mixture_of_two() {
    let scene = Scene::new(Flavor::MySql);
    let server = RangeServer::start("sig=secret");
    let link = format!("{}/box/backup.sql.gz?sig=secret", server.url());
    let mut met = 0;
    for answers in 2..12 {
        server.put("/box/backup.sql.gz", &scene.made.bytes);
        server.replace_after(answers, "/box/backup.sql.gz");
        let (code, said) = scene.restore(&link, &[]);
        if code == Some(0) {
            // Read to its end by then.
            assert_eq!(scene.done(), 1);
            break;
        }
        assert!(matches!(code, Some(1 | 4)) && !said.contains("sig="), "{said}");
        assert_eq!(scene.done(), 0, "called complete: {said}");
        met += 1;
    }
    assert!(met > 4, "only {met} replacements were met");
}

/// Without an id: the newest is passed over, loudly, whatever is wrong with it.
#[test]
fn the_one_before_is_taken_and_that_is_said() {
    let mut dice = Dice::new(seed());
    let mut scene = Scene::new(Flavor::MySql);
    scene.source.sql("INSERT INTO bank.b VALUES (2)");
    let newest = scene.planb.backup(&[]);
    scene.made = of_file(Flavor::MySql, &newest);
    let made = &scene.made;
    let members = KINDS.map(|kind| {
        let range = made.range_of(scene.first(kind));
        made.flipped(range.start * 8 + dice.below_usize(range.len() * 8))
    });
    let index = made.index_range();
    let ends = [
        made.flipped(index.start * 8 + dice.below_usize(index.len() * 8)),
        made.flipped((index.end + 40) * 8),
        made.bytes.slice(..index.start),
        made.bytes.slice(..10),
    ];
    for bytes in members.iter().chain(&ends) {
        std::fs::write(&newest, bytes).expect("written");
        let output = scene.planb.run(&arguments(&scene.to));
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        assert!(
            (said.contains("DAMAGED") || said.contains("UNUSABLE")) && said.contains("will be lost"),
            "{said}"
        );
        assert_eq!(scene.target.sql("SELECT COUNT(*) FROM bank.b").trim(), "1");
        let done = scene.target.sql("SELECT digest, phase FROM planb.restores");
        assert_eq!(done.lines().count(), 1, "only what is whole is called done: {done}");
        scene.target.sql("DROP DATABASE bank; DROP DATABASE planb");
    }
    // What lost no more than its metadata is whole.
    std::fs::write(&newest, &made.bytes).expect("written");
    std::fs::remove_dir_all(scene.planb.store().join(".meta")).expect("metadata");
    let json = scene
        .planb
        .json(&[&["--json"], arguments(&scene.to).as_slice(), &["--verify"]].concat());
    assert_eq!(
        (json["rows"].as_u64(), scene.done()),
        (Some(made.index.summary.rows), 1),
        "{json}"
    );
}
