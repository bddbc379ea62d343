//! `planb backups`: what there is to restore, newest first.

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Common, open, present};
use crate::backup::entry::{Entry, Standing};
use crate::backup::shelf;

#[derive(Debug, Args)]
pub struct BackupsArgs {
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<usize>,
}

pub async fn run(common: &Common, args: &BackupsArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let entries = shelf::list(stores.backups.as_ref(), &config.store.prefix, &config.service.name).await?;
    let now = stores.backups.now().await?;
    let shown = &entries[..args.limit.unwrap_or(entries.len()).min(entries.len())];
    if common.json {
        let list: Vec<Value> = shown.iter().map(entry_json).collect();
        println!("{}", json!({"v": 1, "backups": list}));
        return Ok(());
    }
    if shown.is_empty() {
        println!(
            "No backups of {} in {} yet.",
            config.service.name,
            stores.backups.describe()
        );
        return Ok(());
    }
    let mut rows = vec![
        ["ID", "AGE", "SIZE", "SQL", "ROWS", "STANDING"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(shown.iter().map(|entry| {
        vec![
            entry.id.to_string(),
            present::age(entry.consistent_at, now),
            present::bytes(entry.size_bytes),
            present::bytes(entry.raw_bytes),
            entry.rows.to_string(),
            standing(entry),
        ]
    }));
    print!("{}", present::table(&rows));
    Ok(())
}

fn standing(entry: &Entry) -> String {
    match (&entry.standing, entry.proven_at) {
        (Standing::Good, Some(at)) => format!("good, proven {}", present::time(at)),
        (Standing::Good, None) => "good".to_owned(),
        (Standing::Orphan, _) => "orphan: its site no longer served".to_owned(),
        (Standing::Preserved, _) => "preserved".to_owned(),
        (Standing::Unusable(why), _) => format!("unusable: {why}"),
    }
}

/// One backup for scripts.
pub fn entry_json(entry: &Entry) -> Value {
    let (standing, why) = match &entry.standing {
        Standing::Good => ("good", None),
        Standing::Orphan => ("orphan", None),
        Standing::Preserved => ("preserved", None),
        Standing::Unusable(why) => ("unusable", Some(why)),
    };
    json!({
        "id": entry.id.as_str(),
        "blob": entry.blob,
        "consistent_at": present::rfc3339(entry.consistent_at),
        "committed_at": present::rfc3339(entry.committed_at),
        "stored_bytes": entry.size_bytes,
        "raw_bytes": entry.raw_bytes,
        "rows": entry.rows,
        "site": entry.site,
        "epoch": entry.epoch,
        "digest": entry.digest,
        "standing": standing,
        "standing_reason": why,
        "proven_at": entry.proven_at.map(present::rfc3339),
    })
}
