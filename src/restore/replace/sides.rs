//! Which table is on which side of a swap, and what is still to be renamed: decided by what is there, so that any half-done
//! state is understood. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::names;
use crate::dump::literal::qualified;

/// One schema's tables (sequences included, views not) wherever they are now, as the server stores their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sides {
    /// Under its real name.
    pub real: BTreeSet<String>,
    /// Loaded, and not yet in place.
    pub new: BTreeSet<String>,
    /// Kept.
    pub old: BTreeSet<String>,
    /// Everything that was loaded, wherever it is.
    pub loaded: BTreeSet<String>,
}

/// From a schema's table to another schema's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub from: (String, String),
    pub to: (String, String),
}

impl Sides {
    /// Whether the table under the real name is the one that was loaded.
    pub fn is_swapped(&self, table: &str) -> bool {
        self.loaded.contains(table) && self.real.contains(table) && !self.new.contains(table)
    }

    /// Tables that are to be kept.
    pub fn outgoing(&self) -> impl Iterator<Item = &String> {
        self.real.iter().filter(|table| !self.is_swapped(table))
    }
}

/// What is still to be renamed so that everything loaded has its real name, and everything else is kept. The old go first.
/// Nothing, once the mark (the table that names the restore) is under the real name: it goes last, so all is done.
pub fn forward(schemas: &BTreeMap<String, Sides>, mark: &str) -> Vec<Rename> {
    let mut renames = Vec::new();
    let left = || schemas.iter().filter(|(_, sides)| !sides.is_swapped(mark));
    for (real, sides) in left() {
        renames.extend(sides.outgoing().map(|table| rename(real, &names::old(real), table)));
    }
    for (real, sides) in left() {
        let tables = sides.new.iter().filter(|table| table.as_str() != mark);
        renames.extend(tables.map(|table| rename(&names::new(real), real, table)));
    }
    let marks = left().filter(|(_, sides)| sides.new.contains(mark));
    renames.extend(marks.map(|(real, _)| rename(&names::new(real), real, mark)));
    renames
}

/// What is to be renamed so that everything is as it was before. What was made under the real name after the swap goes
/// aside with the loaded tables. The mark goes first.
pub fn back(schemas: &BTreeMap<String, Sides>, mark: &str) -> Vec<Rename> {
    let mut renames = Vec::new();
    let of_us = |sides: &Sides, table: &String| {
        // With the mark in place the swap was whole, and nothing there is old.
        sides.is_swapped(table) || (sides.is_swapped(mark) && !sides.new.contains(table))
    };
    let marked = schemas.iter().filter(|(_, sides)| sides.is_swapped(mark));
    renames.extend(marked.map(|(real, _)| rename(real, &names::new(real), mark)));
    for (real, sides) in schemas {
        let tables = sides
            .real
            .iter()
            .filter(|table| table.as_str() != mark && of_us(sides, table));
        renames.extend(tables.map(|table| rename(real, &names::new(real), table)));
    }
    for (real, sides) in schemas {
        renames.extend(sides.old.iter().map(|table| rename(&names::old(real), real, table)));
    }
    renames
}

/// All of them in one statement, which a server does wholly or not at all.
pub fn statement(renames: &[Rename]) -> String {
    let parts: Vec<String> = renames
        .iter()
        .map(|rename| {
            format!(
                "{} TO {}",
                qualified(&rename.from.0, &rename.from.1),
                qualified(&rename.to.0, &rename.to.1)
            )
        })
        .collect();
    format!("RENAME TABLE {}", parts.join(", "))
}

fn rename(from: &str, to: &str, table: &str) -> Rename {
    Rename {
        from: (from.to_owned(), table.to_owned()),
        to: (to.to_owned(), table.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &str = "mark";

    /// Where every table is: (schema, table) and whose it is.
    type World = BTreeMap<(String, String), &'static str>;

    fn sides(world: &World, loaded: &BTreeSet<String>) -> BTreeMap<String, Sides> {
        let of = |schema: &str| {
            let tables = world.keys().filter(|(known, _)| known == schema);
            tables.map(|(_, table)| table.clone()).collect()
        };
        ["a", "b"]
            .into_iter()
            .map(|real| {
                let sides = Sides {
                    real: of(real),
                    new: of(&names::new(real)),
                    old: of(&names::old(real)),
                    loaded: loaded.clone(),
                };
                (real.to_owned(), sides)
            })
            .collect()
    }

    /// Does the first of them only, as a server that is killed may.
    fn apply(world: &World, renames: &[Rename]) -> World {
        let mut world = world.clone();
        for rename in renames {
            let whose = world.remove(&rename.from).expect("it is there");
            assert!(
                world.insert(rename.to.clone(), whose).is_none(),
                "{rename:?} goes over another"
            );
        }
        world
    }

    /// Every table old, new, both, or neither, in two schemas; stopped after every rename of the swap, of going on with it,
    /// and of taking it back.
    #[test]
    fn from_any_half_done_state_it_goes_on_and_it_goes_back() {
        for kinds in 0..27_usize {
            let mut before = World::new();
            let mut loaded = BTreeSet::from([MARK.to_owned()]);
            for (number, table) in ["t", "u", "v"].into_iter().enumerate() {
                let kind = kinds / 3_usize.pow(u32::try_from(number).expect("small")) % 3;
                for real in ["a", "b"] {
                    if kind != 0 {
                        before.insert((real.to_owned(), table.to_owned()), "old");
                    }
                    if kind != 1 {
                        loaded.insert(table.to_owned());
                        before.insert((names::new(real), table.to_owned()), "new");
                    }
                }
            }
            for real in ["a", "b"] {
                before.insert((names::new(real), MARK.to_owned()), "new");
            }
            let mut after = World::new();
            for ((schema, table), whose) in &before {
                let real = names::real(schema).unwrap_or(schema);
                let to = if *whose == "new" {
                    real.to_owned()
                } else {
                    names::old(real)
                };
                after.insert((to, table.clone()), *whose);
            }
            let all = forward(&sides(&before, &loaded), MARK);
            assert_eq!(apply(&before, &all), after);
            for stop in 0..=all.len() {
                let half = apply(&before, &all[..stop]);
                let rest = forward(&sides(&half, &loaded), MARK);
                assert_eq!(apply(&half, &rest), after, "gone on with after {stop} of {all:?}");
                let home = back(&sides(&half, &loaded), MARK);
                assert_eq!(apply(&half, &home), before, "taken back after {stop} of {all:?}");
                for again in 0..=home.len() {
                    let quarter = apply(&half, &home[..again]);
                    let home = back(&sides(&quarter, &loaded), MARK);
                    assert_eq!(apply(&quarter, &home), before, "taken back twice");
                }
            }
        }
    }

    #[test]
    fn what_came_after_the_swap_stays_where_it_is_and_goes_aside_with_it() {
        let loaded = BTreeSet::from([MARK.to_owned(), "t".to_owned()]);
        let world: World = [
            (("a".to_owned(), MARK.to_owned()), "new"),
            (("a".to_owned(), "t".to_owned()), "new"),
            (("a".to_owned(), "made since".to_owned()), "new"),
            ((names::old("a"), "t".to_owned()), "old"),
        ]
        .into();
        let mut sides = sides(&world, &loaded);
        sides.remove("b");
        assert_eq!(forward(&sides, MARK), []);
        let home = apply(&world, &back(&sides, MARK));
        assert_eq!(home.get(&("a".to_owned(), "t".to_owned())), Some(&"old"));
        assert_eq!(home.get(&(names::new("a"), "made since".to_owned())), Some(&"new"));
    }

    #[test]
    fn it_is_one_statement() {
        let renames = [rename("a", "planb_old_a", "x`y"), rename("planb_new_a", "a", "x`y")];
        assert_eq!(
            statement(&renames),
            "RENAME TABLE `a`.`x``y` TO `planb_old_a`.`x``y`, `planb_new_a`.`x``y` TO `a`.`x``y`"
        );
    }
}
