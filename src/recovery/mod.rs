//! Failover and failback: the heart of PlanB.
//!
//! Decisions are pure: a [`plan`] of steps, [`event`]s of a journal, the [`state`] that folding them gives, the [`rules`] that
//! stand against it, and what comes [`next`].

pub mod engine;
pub mod event;
pub mod journal;
pub mod next;
pub mod operation;
pub mod plan;
pub mod rules;
pub mod state;
mod transition;
