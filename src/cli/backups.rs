//! `planb backups`: what there is to restore, newest first.

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::{Common, open, present};
use crate::backup::entry::{Entry, Standing};

#[derive(Debug, Args)]
pub struct BackupsArgs {
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<usize>,
}

pub async fn run(common: &Common, args: &BackupsArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let stores = open::stores_for_a_person(&config).await?;
    let entries = open::listing(&config, &stores).await?;
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
    let found = match (entry.proven_at, entry.structure_checked_at) {
        (Some(at), _) => format!(", proven {}", present::time(at)),
        (None, Some(at)) => format!(", structure checked {}", present::time(at)),
        (None, None) => String::new(),
    };
    match &entry.standing {
        Standing::Good => format!("good{found}"),
        Standing::Orphan => format!("orphan: its site no longer served{found}"),
        Standing::Preserved => format!("preserved{found}"),
        Standing::Unusable(why) => format!("unusable: {why}"),
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
        "structure_checked_at": entry.structure_checked_at.map(present::rfc3339),
    })
}
