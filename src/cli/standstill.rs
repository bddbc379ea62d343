//! What every look into the journal is for, for whoever runs unattended: a fence that is still to be proven, and an operation that
//! nobody goes on with. Whoever stopped it said so once, if it still could; from here on people are reminded until somebody goes on.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::failure::Failure;
use super::{fences, open, watch};
use crate::backup::{claim, lease};
use crate::config::Config;
use crate::notify::Announce;
use crate::notify::notice::{Notice, What, keys};
use crate::recovery::journal::Position;
use crate::recovery::plan::Place;
use crate::recovery::state::Progress;
use crate::watch::concern;

/// As long as the first reminder takes of what a command told itself.
const STILL: SignedDuration = SignedDuration::from_mins(15);

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub enum Voice<'a> {
    Agent,
    Watcher(&'a str),
}

/// Tries again what is still to be proven, and tells what stands still. Of several who look, one tells.
pub async fn look(config: &Config, stores: &open::Stores, announce: &dyn Announce, voice: Voice<'_>) {
    let Ok(position) = open::journal(config, stores).read().await else {
        // A journal that cannot be read is told where it stands in the way.
        return;
    };
    let open = position.state.open().map(|operation| keys::operation(operation.number));
    let now = position.at.unwrap_or(Timestamp::UNIX_EPOCH);
    for key in announce.going_on() {
        let is_operation = key.strip_prefix("operation-").is_some_and(|rest| !rest.contains('/'));
        if is_operation && open.as_ref() != Some(&key) {
            announce.resolve(&key, now);
        }
    }
    let is_pending = position.state.standing.pending_fences().next().is_some();
    if open.is_none() && !is_pending {
        fences::try_again(config, stores, announce).await;
        return;
    }
    let speaks = match speaks(config, stores, voice).await {
        Ok(speaks) => speaks,
        Err(_) => return,
    };
    let quiet = Quiet { announce, speaks };
    fences::try_again(config, stores, &quiet).await;
    if let Some(key) = open {
        match stands_still(config, stores, &position).await {
            Ok(Some(notice)) => quiet.raise(notice),
            Ok(None) => announce.resolve(&key, now),
            // Nobody can tell: it is looked at again soon.
            Err(_) => {}
        }
    }
}

/// The agent speaks where nobody watches.
async fn speaks(config: &Config, stores: &open::Stores, voice: Voice<'_>) -> Result<bool, Failure> {
    let Some(watch) = &config.watch else {
        return Ok(matches!(voice, Voice::Agent));
    };
    let found = watch::together(config, watch, stores).await?.found();
    Ok(match voice {
        Voice::Watcher(name) => concern::speaks(name, None, &found.tally, found.now),
        Voice::Agent => !concern::somebody_speaks(&found.tally, found.now),
    })
}

async fn stands_still(config: &Config, stores: &open::Stores, position: &Position) -> Result<Option<Notice>, Failure> {
    let key = claim::key(&config.store.prefix);
    for place in [Place::Operator, Place::Runner] {
        let name = format!("lease/{}-{key}", place.name());
        if lease::held(Arc::clone(&stores.control), &name).await?.is_some() {
            return Ok(None);
        }
    }
    Ok(told(position, stores.control.now().await?))
}

/// What is to be told of an operation that nobody holds.
fn told(position: &Position, now: Timestamp) -> Option<Notice> {
    let operation = position.state.open()?;
    let at = position.at?;
    if now.duration_since(at) < STILL {
        return None;
    }
    let failed: Vec<String> = operation
        .steps
        .iter()
        .filter_map(|(step, progress)| match progress {
            Progress::Failed { error, .. } => Some(format!("step {step}: {error}")),
            _ => None,
        })
        .collect();
    let why = match failed.is_empty() {
        true => "nobody goes on with it, and whoever did said nothing more".to_owned(),
        false => failed.join("; "),
    };
    let what = What::OperationStopped {
        operation: operation.number,
        command: operation.aim.command(),
        why,
    };
    Some(Notice::new(what, at))
}

/// Raises only where it is this process that speaks. What it raised before it resolves in any case.
struct Quiet<'a> {
    announce: &'a dyn Announce,
    speaks: bool,
}

impl Announce for Quiet<'_> {
    fn raise(&self, notice: Notice) {
        if self.speaks {
            self.announce.raise(notice);
        }
    }

    fn resolve(&self, key: &str, at: Timestamp) {
        self.announce.resolve(key, at);
    }

    fn going_on(&self) -> Vec<String> {
        self.announce.going_on()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::backup::lease::Who;
    use crate::clock::{Clock, FixedClock};
    use crate::recovery::event::{By, Event};
    use crate::recovery::plan::{Aim, Plan};
    use crate::store::BlobStore;
    use crate::store::memory::MemoryStore;

    /// Keys that are raised now.
    #[derive(Default)]
    struct Raised(Mutex<BTreeMap<String, Notice>>);

    impl Announce for Raised {
        fn raise(&self, notice: Notice) {
            let mut raised = self.0.lock().expect("a map");
            raised.insert(notice.key.clone(), notice);
        }

        fn resolve(&self, key: &str, _: Timestamp) {
            self.0.lock().expect("a map").remove(key);
        }

        fn going_on(&self) -> Vec<String> {
            self.0.lock().expect("a map").keys().cloned().collect()
        }
    }

    fn by(run: &str) -> By {
        By {
            who: "ana".to_owned(),
            host: "laptop".to_owned(),
            run: run.to_owned(),
        }
    }

    #[tokio::test]
    async fn an_operation_that_nobody_goes_on_with_is_told_until_somebody_does() {
        let config = Config::parse(
            "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:P\"\n\
             [store]\nurl = \"file:///s\"\n",
        )
        .expect("a configuration");
        let clock = Arc::new(FixedClock::at(Timestamp::from_second(1_800_000_000).expect("a time")));
        let control: Arc<dyn BlobStore> = Arc::new(MemoryStore::new(Arc::clone(&clock) as Arc<dyn Clock>));
        let stores = open::Stores {
            backups: Arc::clone(&control),
            control: Arc::clone(&control),
        };
        let later = |minutes: i64| clock.set(clock.now() + SignedDuration::from_mins(minutes));
        let raised = Raised::default();
        let looked = |voice| look(&config, &stores, &raised, voice);
        let journal = open::journal(&config, &stores);
        let position = journal.read().await.expect("nothing yet");
        let opened = Event::Opened {
            aim: Aim::Failover {
                stage: 3,
                planned: false,
            },
            plan: Plan::default(),
            plan_digest: String::new(),
            standing: position.state.standing.clone(),
            backup: None,
            pinned: false,
            approvers: 1,
            facts: BTreeMap::new(),
            accepted: Vec::new(),
        };
        let position = journal.append(&position, &by("1"), opened).await.expect("opened");
        let who = |run: &str| Who {
            holder: "ana".to_owned(),
            run_id: run.to_owned(),
            host: "laptop".to_owned(),
            pid: 1,
        };
        let name = format!("lease/operator-{}", claim::key(&config.store.prefix));
        let held = lease::acquire(
            Arc::clone(&control),
            &name,
            who("1"),
            std::time::Duration::from_secs(3_600),
        );
        let held = held.await.expect("a lease");

        later(20);
        looked(Voice::Agent).await;
        assert!(raised.going_on().is_empty(), "somebody is at it");
        held.release().await.expect("given back");
        looked(Voice::Agent).await;
        assert_eq!(raised.going_on(), ["operation-1"]);
        let told = raised.0.lock().expect("a map")["operation-1"].clone();
        assert!(
            matches!(&told.what, What::OperationStopped { command, why, .. }
                if command == "planb failover --stage 3" && why.contains("nobody goes on")),
            "{told:?}"
        );
        // Somebody takes it up again, and leaves it: nothing for a while, then again.
        let abandoning = Event::Abandoning {
            reason: "it is back".to_owned(),
        };
        journal.append(&position, &by("2"), abandoning).await.expect("appended");
        looked(Voice::Agent).await;
        assert!(raised.going_on().is_empty());
        later(16);
        looked(Voice::Agent).await;
        assert_eq!(raised.going_on(), ["operation-1"]);
        // Of several who look one tells: where watchers are configured and none was ever there, the agent.
        let watched = Config::parse(
            "[service]\nname = \"bank\"\n[source]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword = \"env:P\"\n\
             [store]\nurl = \"file:///s\"\n[watch]\nname = \"a\"\n[[watch.probes]]\nkind = \"tcp\"\nhost = \"h\"\nport = 1\n",
        )
        .expect("a configuration");
        let other = Raised::default();
        look(&watched, &stores, &other, Voice::Watcher("a")).await;
        assert!(other.going_on().is_empty());
        look(&watched, &stores, &other, Voice::Agent).await;
        assert_eq!(other.going_on(), ["operation-1"]);
    }
}
