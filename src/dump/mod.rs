//! The dump: everything a set of schemas holds, at one point in time, into blocks that the store holds.
//!
//! One [`attempt`] is one snapshot. It ends with staged blocks and an index, or with an [`AttemptError`] that says
//! whether a fresh snapshot may do better. Order matters:
//!
//! 1. definitions and table identities are read (they are not versioned by any snapshot);
//! 2. the snapshot is opened (`snapshot`);
//! 3. definitions and identities are read again: if they differ from 1, nothing tells on which side of the snapshot the
//!    change lies, and the attempt is repeated before it has read a row. The schema member is written, and readers
//!    read the tables (`reader`), watched by the guard (`guard`); members are compressed and uploaded meanwhile
//!    (`pipeline`);
//! 4. definitions and identities are read a third time: if one of those in the dump was changed or dropped, what was
//!    read may be neither the old nor the new, and the attempt is repeated. What was created since is not in the dump;
//! 5. routines, views, triggers and events are written as they were read in 3, then the index.

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
pub mod placement;
pub mod reader;
pub mod script;
pub mod snapshot;
pub mod survey;
pub mod verify;
pub mod writer;

pub use attempt::{About, Attempt, Dumped, Naming};
pub use error::AttemptError;
pub use survey::{SourceFacts, survey};
