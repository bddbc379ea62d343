//! `planb watch`: one of several watchers of the primary; what they find together; and the role of the agent that does the same.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::notify::Process;
use super::operation::user;
use super::standstill::{self, Voice};
use super::{Common, open, present};
use crate::backup::claim;
use crate::config::Config;
use crate::config::watch::{Probe, Then, Watch};
use crate::notify::Announce;
use crate::watch::auto::Acknowledged;
use crate::watch::board::Board;
use crate::watch::crier::Crier;
use crate::watch::probe::{Ask, Spec, asker};
use crate::watch::verdict::{Outcome, Plane};
use crate::watch::watcher::{Deputy, Settings, Watcher, once};

mod deputy;
mod together;

use deputy::OnDuty;
use together::others;
pub use together::{Together, together};

/// Between two tries to open the store.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
/// What still waits to be told at the end has this long.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);
/// A primary that comes back must not take the application's writes for longer.
const FENCE_AGAIN: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
#[command(
    after_help = "Each watcher asks its probes and writes what it sees into the store; most of the configured watchers must agree before the \
    primary counts as down. One that is cut off, late or silent has no vote, and without a majority the verdict is unknown, which never \
    starts anything. What follows is [watch] then: \"notify\" tells people, \"auto\" begins a failover.\n\n\
    The same configuration file serves every watcher: --name says which one this is. The agent watches by itself if [watch] name is set.\n\n\
    After a failover that was begun automatically nothing more is begun before a person has looked, and says --acknowledge.\n\n\
    Exit with --once: 0 healthy, 1 not.\n\n\
    Examples:\n  planb watch --once\n  planb watch --name tokyo"
)]
pub struct WatchArgs {
    /// Ask every probe once, show it with what the other watchers see, and end
    #[arg(long)]
    once: bool,
    /// Which of [watch] watchers this is; default: [watch] name
    #[arg(long, value_name = "NAME", env = "PLANB_WATCHER")]
    name: Option<String>,
    /// What was begun automatically was looked at: it may be begun again, should the primary go down once more
    #[arg(long, conflicts_with_all = ["once", "name"])]
    acknowledge: bool,
    /// With --acknowledge: who you are; default: the user of this machine
    #[arg(long = "as", value_name = "NAME", requires = "acknowledge")]
    as_who: Option<String>,
}

pub async fn run(common: &Common, args: &WatchArgs) -> Result<(), Failure> {
    let config = open::config(common)?;
    let watch = configured(&config)?;
    if args.acknowledge {
        return acknowledge(common, &config, args.as_who.clone()).await;
    }
    let name = args.name.clone().or_else(|| watch.name.clone());
    if let Some(name) = name.as_ref().filter(|name| watch.watcher(name).is_none()) {
        let names: Vec<&str> = watch.watchers.iter().map(|watcher| watcher.name.as_str()).collect();
        return Err(Failure::Usage(format!(
            "{name} is none of [watch] watchers ({}): only those are counted",
            names.join(", ")
        )));
    }
    if args.once {
        return look(common, &config, watch, name.as_deref()).await;
    }
    let Some(name) = name else {
        return Err(Failure::Usage(
            "which watcher is this? Say --name NAME, or set [watch] name".to_owned(),
        ));
    };
    let cancel = CancellationToken::new();
    let dispatcher = super::notify::dispatcher(&config, Process::Watcher(&name)).await;
    let announce: Arc<dyn Announce> = Arc::new(dispatcher.announcer());
    let mut watching = std::pin::pin!(keep_watching(common, &config, watch, &name, &announce, &cancel));
    tokio::select! {
        () = &mut watching => {}
        () = super::backup::interrupted() => {
            cancel.cancel();
            watching.await;
        }
    }
    dispatcher.flush(FLUSH_WITHIN).await;
    dispatcher.stop().await;
    Ok(())
}

fn configured(config: &Config) -> Result<&Watch, Failure> {
    config.watch.as_ref().ok_or_else(|| {
        Failure::Usage(
            "the configuration has no [watch]: name the watchers and their probes there; config/watch.toml is an example"
                .to_owned(),
        )
    })
}

/// The agent's role: watches as long as its configuration says who it is, and begins anew when that changes.
pub async fn role(
    common: Common,
    mut configs: Receiver<Arc<Config>>,
    announce: Arc<dyn Announce>,
    cancel: CancellationToken,
) {
    while !cancel.is_cancelled() {
        let config = Arc::clone(&configs.borrow_and_update());
        let stop = cancel.child_token();
        let watching = async {
            match config
                .watch
                .as_ref()
                .and_then(|watch| Some((watch, watch.name.as_ref()?)))
            {
                Some((watch, name)) => keep_watching(&common, &config, watch, name, &announce, &stop).await,
                None => stop.cancelled().await,
            }
        };
        let mut watching = std::pin::pin!(watching);
        tokio::select! {
            () = &mut watching => {}
            changed = other(&mut configs, &config) => {
                stop.cancel();
                watching.await;
                if !changed {
                    return;
                }
            }
        }
    }
}

/// Waits for another configuration. False: there will be none.
async fn other(configs: &mut Receiver<Arc<Config>>, than: &Arc<Config>) -> bool {
    loop {
        if configs.changed().await.is_err() {
            return false;
        }
        if *configs.borrow_and_update() != *than {
            return true;
        }
    }
}

async fn keep_watching(
    common: &Common,
    config: &Config,
    watch: &Watch,
    name: &str,
    announce: &Arc<dyn Announce>,
    cancel: &CancellationToken,
) {
    let stores = loop {
        match open::stores_for_a_person(config).await {
            Ok(stores) => break stores,
            Err(error) => tracing::warn!(
                error = told(&error),
                "the store cannot be opened, so this watcher has no vote; trying again"
            ),
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    };
    let board = Board::new(Arc::clone(&stores.control), &claim::key(&config.store.prefix));
    let deputy = match watch.then {
        Then::Notify => None,
        Then::Auto(auto) => Some(Arc::new(OnDuty {
            common: common.clone(),
            config: config.clone(),
            watch: watch.clone(),
            auto,
            name: name.to_owned(),
            board: board.clone(),
            announce: Arc::clone(announce),
        }) as Arc<dyn Deputy>),
    };
    let watcher = Watcher {
        settings: Settings {
            name: name.to_owned(),
            run: format!("{:016x}", rand::random::<u64>()),
            configured: names(watch),
            every: watch.every,
            stale_after: watch.stale_after,
            cool_down: watch.cool_down,
            seed: rand::random(),
        },
        probes: askers(&watch.probes_of(name), config),
        board,
        herald: Arc::new(Crier::new(name.to_owned(), Arc::clone(announce))),
        deputy,
    };
    tracing::info!(
        watcher = name,
        probes = watcher.probes.len(),
        watchers = watch.watchers.len(),
        "watching the primary"
    );
    let fences = async {
        loop {
            tokio::time::sleep(FENCE_AGAIN).await;
            standstill::look(config, &stores, announce.as_ref(), Voice::Watcher(name)).await;
        }
    };
    tokio::select! {
        () = watcher.run(cancel.clone()) => {}
        () = fences => {}
    }
}

fn names(watch: &Watch) -> Vec<String> {
    watch.watchers.iter().map(|watcher| watcher.name.clone()).collect()
}

fn askers(probes: &[Probe], config: &Config) -> Vec<(Spec, Arc<dyn Ask>)> {
    probes
        .iter()
        .map(|probe| (Spec::of(probe), asker(probe, config)))
        .collect()
}

/// `--once`
async fn look(common: &Common, config: &Config, watch: &Watch, name: Option<&str>) -> Result<(), Failure> {
    let probes = match name {
        Some(name) => watch.probes_of(name),
        None => watch.probes.clone(),
    };
    let mut asking = JoinSet::new();
    for (number, (spec, ask)) in askers(&probes, config).into_iter().enumerate() {
        asking.spawn(async move {
            let outcome = once(&spec, ask.as_ref()).await;
            (number, spec, outcome)
        });
    }
    let others = others(config, watch);
    let mut answers = Vec::new();
    while let Some(answer) = asking.join_next().await {
        answers.extend(answer);
    }
    answers.sort_by_key(|(number, ..)| *number);
    let others = others.await;
    let is_data = |(_, spec, _): &&(usize, Spec, Outcome)| spec.plane == Plane::Data;
    let is_good = |(_, _, outcome): &(usize, Spec, Outcome)| matches!(outcome, Outcome::Good(_));
    let is_healthy = answers.iter().filter(is_data).all(is_good);
    if common.json {
        let probes: Vec<Value> = answers
            .iter()
            .map(|(_, spec, outcome)| {
                json!({
                    "probe": spec.name, "kind": spec.kind, "plane": spec.plane, "answer": word(outcome), "said": outcome.text(),
                })
            })
            .collect();
        let others = others
            .as_ref()
            .map_or_else(|error| json!({"error": told(error)}), Together::json);
        println!(
            "{}",
            json!({"v": 1, "watcher": name, "healthy": is_healthy, "probes": probes, "together": others})
        );
    } else {
        for (_, spec, outcome) in &answers {
            let plane = if spec.plane == Plane::Control {
                " (control plane)"
            } else {
                ""
            };
            println!("{:<12} {:<10} {}{plane}", spec.name, word(outcome), outcome.text());
        }
        match &others {
            Ok(others) => others.lines().iter().for_each(|line| println!("{line}")),
            Err(error) => println!(
                "watch     what the watchers see together cannot be read: {}",
                told(error)
            ),
        }
    }
    let message = "not everything on the data plane answers as it should, seen from here".to_owned();
    match (is_healthy, common.json) {
        (true, _) => Ok(()),
        (false, true) => Err(Failure::Printed { exit: 1, message }),
        (false, false) => Err(Failure::Failed(message)),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Good(_) => "good",
        Outcome::Bad(_) => "BAD",
        Outcome::Mute(_) => "cannot ask",
    }
}

/// `--acknowledge`
async fn acknowledge(common: &Common, config: &Config, who: Option<String>) -> Result<(), Failure> {
    let stores = open::stores_for_a_person(config).await?;
    let board = Board::new(Arc::clone(&stores.control), &claim::key(&config.store.prefix));
    let (Some(mut shot), was) = board.shot().await? else {
        return Err(Failure::Refused(
            "nothing was begun automatically: there is nothing to acknowledge".to_owned(),
        ));
    };
    if let Some(acknowledged) = &shot.acknowledged {
        return Err(Failure::Refused(format!(
            "{} acknowledged it at {}",
            acknowledged.by,
            present::time(acknowledged.at)
        )));
    }
    let position = open::journal(config, &stores).read().await?;
    if let Some(open) = position.state.open() {
        return Err(Failure::Refused(format!(
            "operation {} is not finished: bring it to its end first ({} --resume); planb status shows it",
            open.number,
            open.aim.command()
        )));
    }
    let by = who.unwrap_or_else(user);
    shot.acknowledged = Some(Acknowledged {
        at: board.now().await?,
        by: by.clone(),
    });
    if !board.set_shot(&shot, was).await? {
        return Err(Failure::Refused(
            "it has just changed; look with planb status, and try again".to_owned(),
        ));
    }
    if common.json {
        println!("{}", json!({"v": 1, "acknowledged": shot}));
    } else {
        println!("acknowledged by {by}: a failover may be begun automatically again");
    }
    Ok(())
}
