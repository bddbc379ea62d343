//! `planb restore` that restores nothing: what is left to do after one.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::Common;
use crate::cli::failure::Failure;
use crate::mysql::Address;
use crate::restore::{events, tune};

/// Enables the events that a restore left disabled.
pub async fn enable_events(common: &Common, address: &Address) -> Result<(), Failure> {
    let woken = events::wake(address).await?;
    if common.json {
        println!(
            "{}",
            json!({"v": 1, "enabled_events": woken.enabled, "gone_events": woken.gone})
        );
    } else {
        println!("{} events enabled", woken.enabled);
        for event in &woken.gone {
            println!("event {event} is gone: its time has passed, or somebody dropped it");
        }
    }
    Ok(())
}

/// Sets back the parameters that a killed restore left changed.
pub async fn untune(common: &Common, address: &Address) -> Result<(), Failure> {
    let reset = tune::untune(address, &CancellationToken::new()).await?;
    if common.json {
        println!("{}", json!({"v": 1, "set_back": reset.done, "failed": reset.failed}));
    } else if reset.done.is_empty() && reset.failed.is_empty() {
        println!("no parameter is changed");
    }
    if !common.json {
        for parameter in &reset.done {
            println!("parameter {parameter}");
        }
    }
    if reset.failed.is_empty() {
        return Ok(());
    }
    let message = reset.failed.join("; ");
    if common.json {
        Err(Failure::Printed { exit: 1, message })
    } else {
        Err(Failure::Failed(message))
    }
}
