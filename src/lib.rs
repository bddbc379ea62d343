//! PlanB: keeps a second site ready for a service that lives on MySQL.

// A failover's future holds a restore's, which holds the driver's and the SDK's: more than the default of 128 levels.
#![recursion_limit = "256"]

pub mod agent;
pub mod aws;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cost;
pub mod doctor;
pub mod drill;
pub mod dump;
pub mod edge;
pub mod fence;
pub mod format;
pub mod http;
pub mod kubernetes;
pub mod mysql;
pub mod notify;
pub mod prepare;
pub mod proxy;
pub mod recovery;
pub mod restore;
pub mod runbook;
pub mod secret;
pub mod serve;
pub mod source;
pub mod span;
pub mod steps;
pub mod store;
#[cfg(feature = "otlp")]
pub mod telemetry;
pub mod terraform;
pub mod watch;
