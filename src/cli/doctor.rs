//! `planb doctor`: everything that must hold before a disaster, each finding with what to do about it.

use super::Common;
use super::failure::Failure;

pub async fn run(_common: &Common) -> Result<(), Failure> {
    Ok(())
}
