//! `planb config check`: every problem and every warning, without touching anything outside.

use serde_json::json;

use super::failure::Failure;
use super::{Common, drill, open};
use crate::config::warnings::warnings;
use crate::steps::plan;

pub fn run(common: &Common) -> Result<(), Failure> {
    let config = open::config(common)?;
    // Where what makes no plan is found: not in the night in which it is needed.
    let mut mistakes = plan::check(&config);
    // A rehearsal by the clock that is always refused would be found out by nobody; one by hand is told why when it is begun.
    let against = drill::against(&config);
    if config.drill.schedule.is_some() {
        mistakes.extend(against.iter().map(|(key, message)| format!("{key}: {message}")));
    }
    if !mistakes.is_empty() {
        return Err(Failure::Usage(mistakes.join("\nplanb: ")));
    }
    let mut warnings: Vec<(String, String)> = warnings(&config)
        .into_iter()
        .map(|warning| (warning.key.to_owned(), warning.text))
        .collect();
    let unrehearsed = against.into_iter();
    warnings
        .extend(unrehearsed.map(|(key, message)| (key, format!("planb drill refuses to rehearse this: {message}"))));
    if common.json {
        let list: Vec<_> = warnings
            .iter()
            .map(|(key, text)| json!({"key": key, "text": text}))
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
    for (key, text) in &warnings {
        println!("warning: {key}: {text}");
    }
    Ok(())
}
