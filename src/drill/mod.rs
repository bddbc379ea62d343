//! Rehearsals: what of the plan is done in isolation, as of which moment, what was measured, and what that says of the next disaster. Pure.

pub mod absent;
pub mod figure;
pub mod forecast;
pub mod moment;
pub mod page;
pub mod report;
pub mod variant;
