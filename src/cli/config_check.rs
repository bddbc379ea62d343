//! `planb config check`: every problem and every warning, without touching anything outside.

use serde_json::json;

use super::Common;
use super::failure::Failure;
use super::open;
use crate::config::warnings::warnings;
use crate::steps::plan;

pub fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    // Where what makes no plan is found: not in the night in which it is needed.
    let mistakes = plan::check(&config);
    if !mistakes.is_empty() {
        return Err(Failure::Usage(mistakes.join("\nplanb: ")));
    }
    let warnings = warnings(&config);
    if common.json {
        let list: Vec<_> = warnings
            .iter()
            .map(|warning| json!({"key": warning.key, "text": warning.text}))
            .collect();
        println!("{}", json!({"v": 1, "ok": true, "warnings": list}));
        return Ok(());
    }
    println!(
        "{}: no mistakes; service {}, site {}",
        common.config.display(),
        config.service.name,
        config.service.site
    );
    for warning in &warnings {
        println!("warning: {}: {}", warning.key, warning.text);
    }
    Ok(())
}
