//! The database that is protected, as its platform knows it.

pub mod login;
pub mod rds;
pub mod ready;
