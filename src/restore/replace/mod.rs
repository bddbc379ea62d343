//! A restore over what is there, which is kept: loaded beside it, compared, and only then put in its place.
//!
//! Everything is loaded into `planb_new_SCHEMA` ([`names`]). Once every table's rows and checksum are those of the backup, the
//! old views, routines, triggers and events are written down ([`keep`]) and dropped, and one `RENAME TABLE` moves every old
//! table to `planb_old_SCHEMA` and every new one to its real name ([`swap`], [`sides`]). What follows is that of any restore.
//!
//! Where it is can always be told by looking. Each loaded schema holds its mark (a table) from the beginning, and the mark
//! goes with the tables, last: a mark under the real name says that the new is in place. So every step can be killed and
//! done again, and until a person says `--drop-old`, everything can be put back as it was ([`back`]).

pub mod back;
pub mod judge;
pub mod keep;
pub mod locks;
pub mod names;
pub mod sides;
pub mod survey;
pub mod swap;

pub use back::{RolledBack, drop_old, roll_back};
