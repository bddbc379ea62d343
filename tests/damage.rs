//! Promise 5, its first half: whatever happened to a backup after it was written, verifying it says so, and where; it
//! never panics, and never calls the store's trouble damage.

#[allow(dead_code, reason = "the bank throws more dice than this")]
#[path = "bank/dice.rs"]
mod dice;
#[path = "damage/mod.rs"]
mod made;
mod support;

use bytes::Bytes;
use dice::{Dice, seed};
use made::{Made, check, damage, made, renumber};
use planb::format::MemberKind;
use planb::format::trailer::{TRAILER_BYTES, Trailer};

const KINDS: [MemberKind; 6] = [
    MemberKind::Schema,
    MemberKind::Data,
    MemberKind::Routines,
    MemberKind::Views,
    MemberKind::Triggers,
    MemberKind::Events,
];
/// The fixed part of a gzip member's header, and its CRC and length at the end (RFC 1952).
const HEADER: usize = 10;
const FOOTER: usize = 8;

/// The first and the last member of each kind.
fn some_of_each_kind(made: &Made) -> Vec<usize> {
    let mut found = Vec::new();
    for kind in KINDS {
        let numbers: Vec<usize> = (0..made.index.members.len())
            .filter(|number| made.index.members[*number].kind == kind)
            .collect();
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            panic!("the fixture of {:?} has no {kind:?}", made.flavor);
        };
        found.extend([*first, *last]);
    }
    found.dedup();
    found
}

#[test]
fn what_was_written_is_sound() {
    for made in made() {
        let looked = check(&made.bytes).expect("sound");
        assert_eq!(
            (looked.members, looked.rows),
            (made.index.members.len(), made.index.summary.rows)
        );
        assert_eq!(looked.raw_bytes, made.index.summary.raw_bytes);
        assert_eq!(looked.stored_bytes as usize, made.index_range().start);
        // The forger's tools make the same file if they change nothing; only its compression may differ.
        assert_eq!(check(&made.forged(|_, _| ())).expect("sound"), looked);
    }
}

#[test]
fn a_flipped_bit_is_found_in_every_kind_of_member_and_in_all_of_its_header() {
    let mut dice = Dice::new(seed());
    for made in made() {
        for number in some_of_each_kind(made) {
            let range = made.range_of(number);
            let ends = (range.start..range.start + HEADER).chain(range.end - FOOTER..range.end);
            let bits = ends.flat_map(|byte| (0..8).map(move |bit| byte * 8 + bit));
            let inside = range.end - FOOTER - range.start - HEADER;
            let random: Vec<usize> = (0..24)
                .map(|_| (range.start + HEADER) * 8 + dice.below_usize(inside * 8))
                .collect();
            for bit in bits.chain(random) {
                let place = damage(&made.flipped(bit), &format!("bit {bit} of member {number}"));
                assert!(place.starts_with(&format!("member {number} (")), "bit {bit}: {place}");
                assert!(
                    place.contains(&format!("bytes {} to {}", range.start, range.end)),
                    "{place}"
                );
            }
        }
    }
}

#[test]
fn a_flipped_bit_is_found_in_every_byte_of_the_index_and_of_the_trailer() {
    let mut dice = Dice::new(seed());
    for made in made() {
        let index = made.index_range();
        for byte in index.clone() {
            let place = damage(&made.flipped(byte * 8 + dice.below_usize(8)), "index");
            assert_eq!(
                place, "its index is damaged: its hash is not the one in the trailer",
                "byte {byte}"
            );
        }
        for bit in index.end * 8..made.bytes.len() * 8 {
            let place = damage(&made.flipped(bit), "trailer");
            assert!(place.contains("trailer"), "bit {bit}: {place}");
        }
    }
}

#[test]
fn a_truncation_is_found_at_every_boundary_and_in_every_kind() {
    let mut dice = Dice::new(seed());
    for made in made() {
        let members = 0..made.index.members.len();
        let boundaries = members.clone().map(|number| made.range_of(number).start);
        let inside = some_of_each_kind(made).into_iter().map(|number| {
            let range = made.range_of(number);
            range.start + 1 + dice.below_usize(range.len() - 1)
        });
        let index = made.index_range();
        let mut lengths: Vec<usize> = boundaries.chain(inside).collect();
        lengths.extend([index.start, index.start + index.len() / 2, index.end]);
        lengths.extend(index.end..made.bytes.len());
        for length in lengths.into_iter().chain([0, 1, TRAILER_BYTES - 1, TRAILER_BYTES]) {
            let place = damage(&made.bytes.slice(..length), "truncated");
            assert!(place.contains("truncated, or not a PlanB backup"), "{length}: {place}");
        }
        // A hole in the middle, and something behind the end.
        let cut = made.range_of(members.end / 2);
        let holed = [&made.bytes[..cut.start], &made.bytes[cut.end..]].concat();
        damage(&Bytes::from(holed), "a member was cut out");
        damage(&Bytes::from([&made.bytes[..], b"\n"].concat()), "a byte was added");
    }
}

#[test]
fn what_is_no_backup_is_told_so() {
    let gzip = |text: &str| {
        let mut stored = Vec::new();
        planb::format::member::Packer::new(6)
            .pack(text.as_bytes(), &mut stored)
            .expect("packs");
        Bytes::from(stored)
    };
    let sql = "INSERT INTO t VALUES (1);\n".repeat(100);
    for (what, bytes) in [
        ("an empty file", Bytes::new()),
        ("plain SQL", Bytes::from(sql.clone())),
        ("another tool's dump", gzip(&sql)),
        ("zeros", Bytes::from(vec![0; 4096])),
    ] {
        let place = damage(&bytes, what);
        assert!(place.contains("not a PlanB backup"), "{what}: {place}");
    }
}

#[test]
fn another_format_is_refused_and_is_no_damage() {
    for made in made() {
        let index = made.index_range();
        let trailer = Trailer::decode(&made.bytes).expect("a trailer");
        let newer = Trailer { format: 2, ..trailer }.encode();
        let newer_trailer = Bytes::from([&made.bytes[..index.end], &newer].concat());
        let newer_index = made.forged(|_, index| index.summary.format = 2);
        for file in [newer_trailer, newer_index] {
            let error = check(&file).expect_err("refused");
            assert!(!error.is_damage() && error.is_permanent(), "{error:?}");
            assert!(
                error.to_string().contains("format 2; this planb reads format 1"),
                "{error}"
            );
        }
    }
}

/// Everything a forger can do to the index while its hash is right, one thing at a time.
#[test]
fn an_index_that_was_altered_with_its_hash_does_not_match_the_members() {
    for made in made() {
        let told = |what: &str, part: &str, file: Bytes| {
            let place = damage(&file, what);
            assert!(place.contains(part), "{what}: {place}");
        };
        let data = some_of_each_kind(made)[1];
        let member = |n: usize| format!("member {n} (");
        told(
            "another hash",
            &member(data),
            made.forged(|_, index| {
                index.members[data].sha256 = index.members[data - 1].sha256.clone();
            }),
        );
        told(
            "another length",
            &member(data - 1),
            made.forged(|_, index| {
                index.members[data - 1].stored_bytes -= 1;
                index.members[data].stored_bytes += 1;
                renumber(index);
            }),
        );
        told(
            "another raw length",
            &member(data),
            made.forged(|_, index| {
                index.members[data].raw_bytes -= 1;
                index.summary.raw_bytes -= 1;
            }),
        );
        told(
            "rows moved to another table",
            "a table's members",
            made.forged(|_, index| {
                let full = index.members.iter().position(|m| m.rows > 0).expect("rows");
                let other = index
                    .members
                    .iter()
                    .rposition(|m| m.kind == MemberKind::Data)
                    .expect("data");
                assert_ne!(full, other);
                index.members[full].rows -= 1;
                index.members[other].rows += 1;
            }),
        );
        told(
            "fewer rows",
            "another number of rows",
            made.forged(|_, index| index.summary.rows -= 1),
        );
        told(
            "a table is gone",
            "does not name",
            made.forged(|_, index| {
                let full = index.tables_with_rows();
                index.summary.tables.remove(full);
            }),
        );
        told(
            "members swapped",
            &member(data),
            made.forged(|members, _| members.swap(data, data + 1)),
        );
        told(
            "records swapped",
            "does not cover",
            made.forged(|_, index| index.members.swap(data, data + 1)),
        );
        told(
            "the schema is not first",
            "must be the schema",
            made.forged(|members, index| {
                members.swap(0, data);
                index.members.swap(0, data);
                renumber(index);
            }),
        );
        told(
            "views before data",
            "out of order",
            made.forged(|members, index| {
                let views = index
                    .members
                    .iter()
                    .position(|m| m.kind == MemberKind::Views)
                    .expect("views");
                members.swap(data, views);
                index.members.swap(data, views);
                renumber(index);
            }),
        );
        for number in some_of_each_kind(made) {
            told(
                "a record is dropped",
                "does not cover",
                made.forged(|_, index| {
                    index.members.remove(number);
                }),
            );
            told(
                "a member and its record are dropped",
                "its index is damaged",
                made.forged(|members, index| {
                    members.remove(number);
                    index.members.remove(number);
                    renumber(index);
                }),
            );
        }
        let figures: [fn(&mut planb::format::MemberRecord); 4] = [
            |member| member.rows = u64::MAX,
            |member| member.raw_bytes = u64::MAX,
            |member| member.stored_bytes = u64::MAX,
            |member| member.offset = u64::MAX,
        ];
        for figure in figures {
            for number in [0, data, made.index.members.len() - 1] {
                damage(
                    &made.forged(|_, index| figure(&mut index.members[number])),
                    "an absurd figure",
                );
                damage(
                    &made.forged(|_, index| index.members.iter_mut().for_each(figure)),
                    "absurd figures",
                );
            }
        }
        told(
            "no members",
            "must be the schema",
            made.forged(|members, index| {
                members.clear();
                index.members.clear();
            }),
        );
    }
}

#[test]
fn nothing_that_chance_makes_of_a_backup_panics() {
    let mut dice = Dice::new(seed());
    for made in made() {
        for _ in 0..200 {
            let mut bytes = made.bytes.to_vec();
            for _ in 0..=dice.below_usize(4) {
                let (from, to, length) = (
                    dice.below_usize(bytes.len()),
                    dice.below_usize(bytes.len()),
                    dice.below_usize(4096),
                );
                match dice.below_usize(4) {
                    0 => bytes[from] = bytes[from].wrapping_add(1 + dice.below_usize(255) as u8),
                    1 => bytes.truncate(from + 1),
                    2 => bytes.extend_from_within(from..(from + length).min(bytes.len())),
                    _ => {
                        let end = (from + length).min(bytes.len());
                        let to = to.min(bytes.len() - (end - from));
                        bytes.copy_within(from..end, to);
                    }
                }
            }
            if bytes != made.bytes {
                damage(&Bytes::from(bytes), "chance");
            }
        }
    }
}

trait Tables {
    fn tables_with_rows(&self) -> usize;
}

impl Tables for planb::format::Index {
    fn tables_with_rows(&self) -> usize {
        self.summary
            .tables
            .iter()
            .position(|table| table.rows > 0)
            .expect("a table with rows")
    }
}
