//! `planb notify`: tries every channel, and shows what was not told.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::Failure;
use super::operation::user;
use super::tell::{self, Untold};
use super::{Common, open, present};
use crate::config::Config;
use crate::notify::channel::{self, Line, SEND_WITHIN};
use crate::notify::desk::{Audience, Desk, Item, Refusal};
use crate::notify::dispatcher::Dispatcher;
use crate::notify::message::Sender;
use crate::notify::notice::{Notice, What};
use crate::notify::record;
use crate::notify::words::{Turn, words};

/// Where the unit's StateDirectory is.
const USUAL_STATE: &str = "/var/lib/planb";

#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// Send a test through each channel and say how each went; exit 1 if one failed
    #[arg(long, required_unless_present = "undelivered", conflicts_with = "undelivered")]
    test: bool,
    /// Only this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Show what was not told, and why: here by the agent, anywhere by failover, failback and runner
    #[arg(long)]
    undelivered: bool,
}

pub async fn run(common: &Common, args: &NotifyArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let names: Vec<&str> = config
        .notify
        .channels
        .iter()
        .map(|channel| channel.name.as_str())
        .collect();
    if names.is_empty() {
        return Err(Failure::Usage(
            "the configuration has no [[notify.channels]]; config/planb.toml shows how to name one".to_owned(),
        ));
    }
    if let Some(name) = args.channel.as_deref().filter(|name| !names.contains(name)) {
        return Err(Failure::Usage(format!(
            "there is no channel {name}; there are {}",
            names.join(", ")
        )));
    }
    if args.undelivered {
        show(common, &config, args.channel.as_deref()).await
    } else {
        test(common, &config, args.channel.as_deref()).await
    }
}

async fn test(common: &Common, config: &Config, only: Option<&str>) -> Result<(), Failure> {
    let sender = channel::sender(config);
    let mut tries = JoinSet::new();
    let lines = channel::lines(config, &open::clock());
    for line in lines
        .into_iter()
        .filter(|line| only.is_none_or(|only| only == line.route.channel))
    {
        let sender = sender.clone();
        tries.spawn(async move {
            let tried = try_one(&sender, &line).await;
            (line.route.channel, tried)
        });
    }
    let mut results = Vec::new();
    while let Some(done) = tries.join_next().await {
        results.push(done.map_err(|error| Failure::failed(format!("a defect ended the test: {error}")))?);
    }
    results.sort_by(|a, b| a.0.cmp(&b.0));
    let failed = results.iter().filter(|(_, tried)| tried.is_err()).count();
    if common.json {
        let one = |(name, tried): &(String, Result<(), Refusal>)| {
            let error = tried.as_ref().err().map(|refusal| refusal.error.clone());
            json!({"channel": name, "ok": tried.is_ok(), "error": error})
        };
        println!(
            "{}",
            json!({"v": 1, "channels": results.iter().map(one).collect::<Vec<Value>>()})
        );
    } else {
        for (name, tried) in &results {
            match tried {
                Ok(()) => println!("{name:<16} took it: look whether it arrived"),
                Err(refusal) => println!("{name:<16} FAILED: {}", refusal.error),
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let message = format!("{failed} of {} channels did not take the test", results.len());
    Err(if common.json {
        Failure::Printed { exit: 1, message }
    } else {
        Failure::Failed(message)
    })
}

async fn try_one(sender: &Sender, line: &Line) -> Result<(), Refusal> {
    // A pager is woken, and sent back to sleep.
    let turns: &[Turn] = match line.route.audience {
        Audience::Pager => &[Turn::Raised, Turn::Resolved],
        Audience::People | Audience::Program => &[Turn::Raised],
    };
    let now = open::clock().now();
    for turn in turns {
        let item = Item {
            id: 0,
            notice: Notice::new(What::Test { who: user() }, now),
            turn: *turn,
            since: now,
            at: now,
            episodes: 1,
            tries: 0,
            retry_at: None,
            error: None,
        };
        match timeout(SEND_WITHIN, line.channel.send(sender, &[item])).await {
            Ok(sent) => {
                if let Some(except) = sent?.except {
                    return Err(Refusal {
                        error: format!("took it, but not for everybody: {except}"),
                        is_permanent: true,
                        retry_after: None,
                    });
                }
            }
            Err(_) => {
                return Err(Refusal {
                    error: format!("nothing within {} s", SEND_WITHIN.as_secs()),
                    is_permanent: false,
                    retry_after: None,
                });
            }
        }
    }
    Ok(())
}

/// Which process of this machine tells people. Each remembers by itself whom it told what.
#[derive(Debug, Clone, Copy)]
pub enum Process<'a> {
    Agent,
    Watcher(&'a str),
}

/// Tells people, and remembers over a restart whom it told what.
pub async fn dispatcher(config: &Config, process: Process<'_>) -> Dispatcher {
    let (sender, lines) = (channel::sender(config), channel::lines(config, &open::clock()));
    let name = match process {
        Process::Agent => None,
        Process::Watcher(name) => Some(name),
    };
    let file = state_directory(config).map(|directory| record::file(&directory, name));
    if file.is_none() && !lines.is_empty() {
        tracing::warn!("there is no StateDirectory, nor notify.state: after a restart, what goes on is told once more");
    }
    Dispatcher::start(sender, lines, open::clock(), file).await
}

fn state_directory(config: &Config) -> Option<PathBuf> {
    let directory = config.notify.state.clone();
    directory.or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from))
}

/// What was not told: by this machine's agent and watchers, as far as their files may be read, and by commands anywhere.
pub async fn untold(config: &Config, stores: &open::Stores) -> Vec<Untold> {
    let directory = state_directory(config).unwrap_or_else(|| PathBuf::from(USUAL_STATE));
    let mut standing = Vec::new();
    for file in record::files(&directory).await {
        let desk: Option<Desk> = record::read(&file).await.ok().flatten();
        standing.extend(desk.iter().flat_map(Desk::standing));
    }
    let mut all: Vec<Untold> = standing
        .into_iter()
        .filter(|standing| standing.failures > 0 || standing.waiting.iter().any(|item| item.error.is_some()))
        .flat_map(|standing| {
            let (channel, last) = (standing.channel, standing.error);
            let untold = move |item: Item| Untold {
                channel: channel.clone(),
                error: item.error.or_else(|| last.clone()),
                notice: item.notice,
            };
            standing.waiting.into_iter().map(untold)
        })
        .collect();
    // A store that does not answer is told elsewhere.
    all.extend(tell::left(config, stores.control.as_ref()).await.unwrap_or_default());
    all
}

pub fn untold_json(untold: &[Untold]) -> Value {
    let one = |untold: &Untold| {
        json!({
            "channel": untold.channel, "event": untold.notice.what.event(), "severity": untold.notice.severity.name(),
            "key": untold.notice.key, "at": present::rfc3339(untold.notice.at), "error": untold.error,
        })
    };
    untold.iter().map(one).collect()
}

/// One line.
pub fn untold_line(untold: &Untold, config: &Config) -> String {
    format!(
        "{} on {}: {} ({})",
        present::time(untold.notice.at),
        untold.channel,
        words(&untold.notice, config.notify.language).title,
        untold.error.as_deref().unwrap_or("not tried yet")
    )
}

async fn show(common: &Common, config: &Config, only: Option<&str>) -> Result<(), Failure> {
    let stores = open::stores_for_a_person(config).await?;
    let mut all = untold(config, &stores).await;
    all.retain(|untold| only.is_none_or(|only| only == untold.channel));
    if common.json {
        println!("{}", json!({"v": 1, "undelivered": untold_json(&all)}));
    } else if all.is_empty() {
        println!("everything was told");
    } else {
        for untold in &all {
            println!("{}", untold_line(untold, config));
        }
    }
    Ok(())
}
