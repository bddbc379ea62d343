//! What the integration tests stand on: real servers from `scripts/lab`, accounts with the rights that
//! managed databases give, certificates, and a census that tells whether two servers hold the same.

#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary compiles this module and uses its own part of it"
)]

pub mod accounts;
pub mod census;
pub mod cut;
pub mod gate;
pub mod mail;
pub mod old;
pub mod planb;
pub mod receiver;
pub mod registry;
pub mod restores;
pub mod runner;
pub mod server;
pub mod sites;
pub mod strict_moto;
pub mod tls;

use std::path::PathBuf;
use std::process::Command;

pub use accounts::{
    AZURE_LIKE_ARGS, azure_like_admin, rds_heartbeat, rds_like_account, rds_like_account_without, restorer,
};
pub use census::{assert_same, census};
pub use cut::{Cut, When};
pub use old::old_backup;
pub use planb::{PASSWORD, Planb, reader};
pub use registry::Registry;
pub use runner::{GatedStore, Told, runner, wanted};
pub use server::{Endpoint, Flavor, Server, Shared, lab_dir, unique_schema};
pub use strict_moto::StrictMoto;
pub use tls::{TlsFiles, tls_files};

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name);
    assert!(path.is_file(), "there is no fixture {}", path.display());
    path
}

/// The URL of the shared Azurite, account `devstoreaccount1`.
pub fn azurite() -> String {
    from_lab_run("PLANB_LAB_AZURITE")
}

/// The URL of the shared moto.
pub fn moto() -> String {
    from_lab_run("PLANB_LAB_MOTO")
}

/// Runs a command to its end and returns what it printed; panics with its stderr if it failed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()));
    assert!(
        output.status.success(),
        "{:?} failed ({}): {}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn from_lab_run(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: run the tests with scripts/test, or scripts/lab run cargo test")
    })
}
