//! What protection costs a month, and what a second site costs an hour while it stands: counted from the configuration, the sizes
//! and a table of prices. Pure.

pub mod advice;
pub mod bill;
pub mod month;
pub mod prices;
pub mod table;

/// Clouds' GB: what their bills call one.
pub const GB: f64 = (1_u64 << 30) as f64;
