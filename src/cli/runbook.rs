//! `planb runbook`: the pages for the night, the drill and the way home, with the configured plan's own names, for paper.

use clap::Args;

use super::failure::Failure;
use super::{Common, open};
use crate::runbook::{self, Language, PAGES, Printing};

#[derive(Debug, Args)]
pub struct RunbookArgs {
    /// Language: en or ko
    #[arg(long, value_parser = ["en", "ko"], default_value = "en")]
    lang: String,
    /// One page: night, failback, by-hand, drill, cost or adopt; default: all of them
    #[arg(long, value_name = "PAGE", value_parser = PAGES)]
    page: Option<String>,
}

pub fn run(common: &Common, args: &RunbookArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    if config.failover_steps.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[failover_steps]]: there is no plan to print; config/recovery.toml has one"
                .to_owned(),
        ));
    }
    let language = match args.lang.as_str() {
        "ko" => Language::Korean,
        _ => Language::English,
    };
    let path = std::path::absolute(&common.config).unwrap_or_else(|_| common.config.clone());
    let printing = Printing {
        config: path.display().to_string(),
        at: open::clock().now(),
    };
    let text = runbook::print(&config, language, args.page.as_deref(), &printing);
    let text = text.map_err(|error| Failure::failed(error.to_string()))?;
    if common.json {
        println!("{}", serde_json::json!({"v": 1, "lang": args.lang, "markdown": text}));
    } else {
        print!("{text}");
    }
    Ok(())
}
