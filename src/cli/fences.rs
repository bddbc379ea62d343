//! Fences that nobody could prove when the service moved, tried again until they hold: a primary that comes back must not take
//! the application's writes.

use std::sync::Arc;
use std::time::Duration;

use super::failure::told;
use super::open;
use crate::backup::claim;
use crate::backup::lease::{self, Who};
use crate::config::Config;
use crate::config::steps::{Kind, Step};
use crate::notify::Announce;
use crate::notify::notice::{Notice, What, keys};
use crate::recovery::event::{By, Event};
use crate::recovery::journal::{Journal, JournalError, Position};
use crate::recovery::plan::Site;
use crate::secret::resolver::Resolver;
use crate::steps::{self, Avoid, Executor, Tell};

/// One look at a server that may be gone.
const WITHIN: Duration = Duration::from_secs(90);
const LEASE_FOR: Duration = Duration::from_secs(30);
/// Times that it is written again, whoever works on the operation having been faster.
const WORDS: u32 = 10;

/// Does nothing where no fence is pending, or an operation may still take it back or open that site. What goes wrong is told,
/// and tried again with the next look.
pub async fn try_again(config: &Config, stores: &open::Stores, announce: &dyn Announce) {
    let journal = open::journal(config, stores);
    // A journal that cannot be read is told where it stands in the way.
    let Ok(position) = journal.read().await else { return };
    let standing = &position.state.standing;
    let now = open::clock().now();
    let pending: Vec<Site> = standing.pending_fences().collect();
    for site in [Site::Primary, Site::Standby] {
        if !pending.contains(&site) {
            announce.resolve(&keys::fence(site.name()), now);
        }
    }
    // One at a time: the position is another one afterwards.
    let Some(site) = standing.pending_fences().next() else {
        return;
    };
    if !position.state.may_fence(site) {
        return;
    }
    let steps = config.failover_steps.iter().chain(&config.failback_steps);
    let by_command =
        |step: &Step| matches!(step.kind, Kind::Command(_)) && steps::plan::fences(&step.kind) == Some(site);
    let tried = match config.accounts.is_empty() && !steps.clone().any(by_command) {
        true => {
            Err("no [[accounts]] and no command that fences are configured here, by which it could be tried".to_owned())
        }
        false => raise(config, stores, &position, site).await,
    };
    match tried {
        Ok(()) => {
            note(config, stores, &journal, &position, site).await;
            announce.resolve(&keys::fence(site.name()), open::clock().now());
        }
        Err(why) => {
            tracing::warn!(%site, why, "the fence is still not proven");
            let site = site.name().to_owned();
            announce.raise(Notice::new(What::PendingFence { site, why }, now));
        }
    }
}

/// Raises a pending fence, and says why it is still not proven.
pub async fn raise(config: &Config, stores: &open::Stores, position: &Position, site: Site) -> Result<(), String> {
    let executor = Executor {
        config: config.clone(),
        resolver: Resolver::for_config(config),
        backups: Arc::clone(&stores.backups),
        control: Arc::clone(&stores.control),
        tell: Arc::new(Nobody),
        runner: open::runner_of,
        avoid: Avoid::default(),
        pages: open::pages,
    };
    let Some(operation) = &position.state.operation else {
        return Err("no operation fenced it".to_owned());
    };
    let tried = executor.fence_again(site, &position.state.standing, operation);
    match tokio::time::timeout(WITHIN, tried).await {
        Ok(tried) => tried.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Where none is open, under the operator's lease, so that nobody opens an operation between our look and our entry. In an open
/// one whoever works on it holds that, and of two entries the journal takes one.
async fn note(config: &Config, stores: &open::Stores, journal: &Journal, position: &Position, site: Site) {
    let by = By {
        who: "agent".to_owned(),
        host: lease::host_name(),
        run: format!("{:016x}", rand::random::<u64>()),
    };
    if position.state.open().is_some() {
        return told_of(beside(journal, position, &by, site).await, site);
    }
    let who = Who {
        holder: by.who.clone(),
        run_id: by.run.clone(),
        host: by.host.clone(),
        pid: std::process::id(),
    };
    let name = format!("lease/operator-{}", claim::key(&config.store.prefix));
    let Ok(lease) = lease::acquire(Arc::clone(&stores.control), &name, who, LEASE_FOR).await else {
        return;
    };
    let written = async {
        let mut standing = position.state.standing.clone();
        let is_ours = lease.confirm().await.is_ok();
        if !is_ours || journal.refresh(position.clone()).await? != *position || standing.proven(site).is_err() {
            return Err(JournalError::Raced);
        }
        journal
            .append(position, &by, Event::FenceProven { site, standing })
            .await
    };
    told_of(written.await, site);
    if let Err(error) = lease.release().await {
        tracing::debug!(error = told(&error), "the lease was not given back");
    }
}

/// Into the operation that is under way, as long as the fence is pending there.
async fn beside(journal: &Journal, position: &Position, by: &By, site: Site) -> Result<Position, JournalError> {
    let mut position = position.clone();
    for _ in 0..WORDS {
        let mut standing = position.state.standing.clone();
        if !position.state.may_fence(site) || standing.proven(site).is_err() {
            break;
        }
        let event = Event::FenceProven { site, standing };
        match journal.append(&position, by, event).await {
            Err(JournalError::Raced) => position = journal.read().await?,
            done => return done,
        }
    }
    Err(JournalError::Raced)
}

fn told_of(written: Result<Position, JournalError>, site: Site) {
    match written {
        Ok(_) => tracing::info!(%site, "the fence is proven now: it takes no more writes of the application"),
        Err(error) => tracing::warn!(%site, %error, "the fence is proven, and that is not written down yet"),
    }
}

struct Nobody;

impl Tell for Nobody {
    fn tell(&self, _step: &str, _text: &str) {}
}
