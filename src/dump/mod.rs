//! The dump: everything a set of schemas holds, at one point in time, into blocks that the store holds.
//!
//! One [`attempt`] is one snapshot. It ends with staged blocks and an index, or with an [`AttemptError`] that says
//! whether a fresh snapshot may do better. Order matters:
//!
//! 1. definitions and table identities are read (they are not versioned by any snapshot);
//! 2. the snapshot is opened (`snapshot`);
//! 3. the schema member is written, from definitions read anew, and readers read the tables (`reader`), watched by
//!    the guard (`guard`); members are compressed and uploaded meanwhile (`pipeline`);
//! 4. definitions and identities are read again: if any differs from 1, somebody changed the schema meanwhile, and
//!    what was read may be neither the old nor the new: the attempt is repeated;
//! 5. routines, views, triggers and events are written from 4, then the index.

pub mod attempt;
pub mod catalog;
pub mod columns;
pub mod definition;
pub mod error;
pub mod guard;
pub mod keyset;
pub mod limiter;
pub mod literal;
pub mod pipeline;
pub mod reader;
pub mod script;
pub mod snapshot;
pub mod survey;
pub mod verify;
pub mod writer;

pub use attempt::{About, Attempt, Dumped, Naming};
pub use error::AttemptError;
pub use survey::{SourceFacts, survey};
