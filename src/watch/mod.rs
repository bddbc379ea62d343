//! Watches the primary from several places, and lets nobody believe what only one of them sees.
//!
//! Each watcher asks its probes, and writes what it makes of them into the control store every few seconds. Whoever reads the
//! others' observations counts the configured watchers; most of them must have written lately and say the same. What they
//! find so is written down once, by compare-and-swap, and whoever wrote it tells people: that it began, that it goes on, that it is over.
//! One that vanished is followed by the next.

pub mod auto;
pub mod board;
pub mod concern;
pub mod crier;
pub mod probe;
pub mod quorum;
pub mod verdict;
pub mod watcher;
