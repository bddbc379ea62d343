//! `then = "auto"`: begins a failover as a person would, by the same rules and the same journal, once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::Together;
use crate::backup::lease;
use crate::cli::Common;
use crate::cli::failover::{self, FailoverArgs};
use crate::cli::failure::Failure;
use crate::cli::operation::{Desk, Opening};
use crate::cli::screen::Screen;
use crate::config::Config;
use crate::config::watch::{Auto, UnprovableFence, Watch};
use crate::notify::Announce;
use crate::notify::notice::{Notice, What, keys};
use crate::recovery::engine::Rest;
use crate::recovery::event::{Accepted, By, Ended};
use crate::recovery::journal::Position;
use crate::recovery::plan::{Place, Role};
use crate::recovery::rules::Rule;
use crate::recovery::state::Progress;
use crate::watch::auto::{self, Decision, Facts, Policy, RECOVERED, Reason, Rested, Shot, Sight};
use crate::watch::board::{Board, Refrained};
use crate::watch::concern::speaks;
use crate::watch::verdict::Health;
use crate::watch::watcher::{Deputy, View};

/// Who writes to a journal without being a person.
const NO_PERSON: [&str; 2] = ["runner", "agent"];
/// How often whoever carries it on looks whether the primary is back.
const LOOKS_EVERY: Duration = Duration::from_secs(10);
/// Times that the end of what was begun is tried to be written down.
const TRIES: u32 = 5;

/// Acts for whoever is asleep.
pub struct OnDuty {
    pub common: Common,
    pub config: Config,
    pub watch: Watch,
    pub auto: Auto,
    pub name: String,
    pub board: Board,
    pub announce: Arc<dyn Announce>,
}

#[async_trait]
impl Deputy for OnDuty {
    fn is_due(&self, view: &View) -> bool {
        auto::is_due(&sight(view, view.shot.as_ref()), &self.policy())
    }

    async fn consider(&self, view: View, cancel: CancellationToken) {
        if let Err(failure) = self.act(view, &cancel).await {
            tracing::error!(
                error = failure.message(),
                "the failover could not be begun or gone on with automatically; trying again"
            );
        }
    }
}

fn sight<'a>(view: &'a View, shot: Option<&'a Shot>) -> Sight<'a> {
    Sight {
        tally: &view.tally,
        ruling: view.ruling.as_ref(),
        down_for: view.down_for,
        shot,
    }
}

impl OnDuty {
    fn policy(&self) -> Policy {
        Policy {
            grace: self.auto.grace,
            max_loss: self.auto.max_loss,
        }
    }

    fn by(&self) -> By {
        By {
            who: format!("watcher {}", self.name),
            host: lease::host_name(),
            run: format!("{:016x}", rand::random::<u64>()),
        }
    }

    async fn act(&self, view: View, cancel: &CancellationToken) -> Result<(), Failure> {
        let mut desk = Desk::open(&self.common, self.config.clone(), self.by(), Place::Operator).await?;
        match self.decided(&desk, &view).await?.0 {
            Decision::Nothing => {
                // A person is at it, or it serves elsewhere.
                self.announce.resolve(keys::AUTO, view.now);
                return Ok(());
            }
            Decision::Refrain(reasons) => return self.refrain(&view, &reasons).await,
            Decision::Settle(how) => return self.settle(&how).await,
            Decision::Begin | Decision::GoOn => self.announce.resolve(keys::AUTO, view.now),
        }
        if let Err(failure) = desk.take_lease(false).await {
            // Another watcher, or a person.
            tracing::debug!(held = failure.message(), "somebody else is at it");
            return Ok(());
        }
        let done = self.with_lease(&desk, view, cancel).await;
        desk.give_lease_back().await;
        desk.teller
            .finish(&desk.config, &desk.stores.control, &desk.by.run)
            .await;
        done
    }

    /// Looks once more, now that nobody else can begin anything, and acts.
    async fn with_lease(&self, desk: &Desk, mut view: View, cancel: &CancellationToken) -> Result<(), Failure> {
        let Together { tally, ruling, now, .. } = super::together(&self.config, &self.watch, &desk.stores).await?;
        (view.tally, view.ruling, view.now) = (tally, ruling, now);
        let position = match self.decided(desk, &view).await? {
            (Decision::GoOn, position, _) => {
                tracing::warn!("going on with the failover that a watcher began and left");
                position
            }
            (Decision::Begin, position, Some(opening)) => {
                if !self.claim(desk, &view, &position).await? {
                    return Ok(());
                }
                tracing::error!(
                    saw = view.tally.lines(view.now).join(" | "),
                    "THE PRIMARY IS DOWN: beginning the failover automatically"
                );
                desk.begin(&position, opening).await?
            }
            _ => return Ok(()),
        };
        let screen = Arc::new(Screen::logged());
        let is_back = CancellationToken::new();
        let stop = async {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.recovered(desk) => is_back.cancel(),
            }
        };
        let (rest, position) = desk.go_on_until(position, &screen, stop).await?;
        match &rest {
            Rest::Stopped if is_back.is_cancelled() && !is_committed(&position) => {
                desk.teller.stopped(&position, RECOVERED);
                self.settle(RECOVERED).await
            }
            // This process ends, or lost its right: another one goes on.
            Rest::Stopped | Rest::Lost => Ok(()),
            rest => {
                desk.teller.rested(rest, &position, &told(rest));
                self.settle(&told(rest)).await
            }
        }
    }

    /// Once most watchers find the primary healthy while nothing is committed yet.
    async fn recovered(&self, desk: &Desk) {
        loop {
            tokio::time::sleep(LOOKS_EVERY).await;
            let Ok(Together { tally, .. }) = super::together(&self.config, &self.watch, &desk.stores).await else {
                continue;
            };
            if tally.verdict != Health::Healthy {
                continue;
            }
            if let Ok(position) = desk.journal.read().await
                && !is_committed(&position)
                && !is_fencing(&position)
            {
                return;
            }
        }
    }

    /// What is to be done, where the journal stands, and what an operation would be opened with.
    async fn decided(&self, desk: &Desk, view: &View) -> Result<(Decision, Position, Option<Opening>), Failure> {
        let (shot, _) = self.board.shot().await?;
        let position = desk.journal.read().await?;
        let person = match &shot {
            Some(shot) if shot.is_in_hand() && position.state.operations > shot.after => {
                person(desk, shot.after + 1).await?
            }
            _ => None,
        };
        let sight = sight(view, shot.as_ref());
        let decide = |loss, refusals: &[_]| {
            let facts = Facts {
                state: &position.state,
                loss,
                refusals,
                person: person.as_deref(),
            };
            auto::decide(&sight, &facts, &self.policy())
        };
        // Whatever can be said without asking the primary.
        let first = decide(Some(Duration::ZERO), &[]);
        if first != Decision::Begin {
            return Ok((first, position, None));
        }
        let look = failover::look(desk, &FailoverArgs::unattended(self.auto.stage), &position).await?;
        let who = desk.by.who.clone();
        let accepted: Vec<Accepted> = match self.auto.unprovable_fence {
            UnprovableFence::Stop => Vec::new(),
            UnprovableFence::Accept => vec![Accepted {
                rule: Rule::Unfenced.name().to_owned(),
                reason: "[watch.auto] unprovable_fence = \"accept\"".to_owned(),
                who,
            }],
        };
        let decision = decide(look.loss(), &look.refusals);
        let mut opening = look.opening(accepted);
        opening
            .facts
            .insert("watchers".to_owned(), view.tally.lines(view.now).join(" | "));
        opening.facts.insert("verdict".to_owned(), view.tally.summary());
        Ok((decision, position, Some(opening)))
    }

    /// Writes down that it is begun, before it is. Of several who would, one may.
    async fn claim(&self, desk: &Desk, view: &View, position: &Position) -> Result<bool, Failure> {
        let (before, was) = self.board.shot().await?;
        let shot = Shot {
            v: 1,
            number: before.as_ref().map_or(0, |shot| shot.number) + 1,
            at: view.now,
            by: self.name.clone(),
            run: desk.by.run.clone(),
            after: position.state.operations,
            evidence: view.tally.lines(view.now),
            rested: None,
            acknowledged: None,
        };
        if before.as_ref().is_some_and(Shot::is_in_hand) {
            // Whoever wrote that vanished before it opened anything.
            return Ok(true);
        }
        Ok(self.board.set_shot(&shot, was).await?)
    }

    /// Writes down that it is in nobody's hand any more.
    async fn settle(&self, how: &str) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let (Some(mut shot), was) = self.board.shot().await? else {
                return Ok(());
            };
            if !shot.is_in_hand() {
                return Ok(());
            }
            shot.rested = Some(Rested {
                at: self.board.now().await?,
                how: how.to_owned(),
            });
            if self.board.set_shot(&shot, was).await? {
                tracing::error!(
                    how,
                    "the failover that was begun automatically is at rest; nothing more is begun before a person says: planb watch \
                     --acknowledge"
                );
                return Ok(());
            }
        }
        Ok(())
    }

    /// Told once for each outage and reason, by one watcher.
    async fn refrain(&self, view: &View, reasons: &[Reason]) -> Result<(), Failure> {
        let (before, was) = self.board.refrained().await?;
        let refrained = Refrained {
            v: 1,
            ruling: view.ruling.as_ref().map_or(0, |ruling| ruling.number),
            names: reasons.iter().map(|reason| reason.name.clone()).collect(),
            texts: reasons.iter().map(|reason| reason.text.clone()).collect(),
            run: format!("{:016x}", rand::random::<u64>()),
            by: self.name.clone(),
        };
        let told_by = before.as_ref().map(|before| before.by.clone());
        let is_told = before.is_some_and(|before| before.ruling == refrained.ruling && before.names == refrained.names);
        let why = refrained.texts.join("; ");
        let what = What::FailoverWithheld { why: why.clone() };
        if is_told {
            // Again and again, so that a restart takes nothing from people; they are told once.
            if speaks(&self.name, told_by.as_deref(), &view.tally, view.now) {
                self.announce.raise(Notice::new(what, view.now));
            }
        } else if self.board.set_refrained(&refrained, was).await? {
            self.announce.raise(Notice::new(what, view.now));
            tracing::error!(
                why,
                "THE PRIMARY IS DOWN, and no failover is begun automatically: a person has to decide"
            );
        }
        Ok(())
    }
}

/// Cut off in its middle, a fence would leave the application locked out of a primary that serves: it comes to its end first.
fn is_fencing(position: &Position) -> bool {
    let Some(operation) = position.state.open() else {
        return false;
    };
    let mut fences = operation.plan.with_role(|role| matches!(role, Role::Fence(_)));
    fences.any(|fence| matches!(operation.progress(&fence.name), Progress::Running { .. }))
}

fn is_committed(position: &Position) -> bool {
    position
        .state
        .operation
        .as_ref()
        .is_some_and(|operation| operation.committed_at.is_some())
}

/// Somebody who took the operation into their own hands.
async fn person(desk: &Desk, operation: u64) -> Result<Option<String>, Failure> {
    let (entries, _) = desk.journal.history().await?;
    let is_person = |who: &str| !who.starts_with("watcher ") && !NO_PERSON.contains(&who);
    Ok(entries
        .into_iter()
        .filter(|entry| entry.operation == operation)
        .map(|entry| entry.by.who)
        .find(|who| is_person(who)))
}

fn told(rest: &Rest) -> String {
    match rest {
        Rest::Ended(Ended::Done) => "done".to_owned(),
        Rest::Ended(Ended::Abandoned) => "abandoned".to_owned(),
        Rest::Ended(Ended::GivenUp) => "given up".to_owned(),
        Rest::Nothing => "nothing was open any more".to_owned(),
        Rest::Approval { have, need } => format!("{have} of {need} people have agreed"),
        Rest::Refused(rules) => {
            let rules: Vec<String> = rules
                .iter()
                .map(|(step, rule)| format!("step {step} is refused by the rule {}", rule.name()))
                .collect();
            format!("stopped part-way: {}; planb failover --resume", rules.join(", "))
        }
        Rest::Failed(steps) => {
            let steps: Vec<String> = steps
                .iter()
                .map(|(step, error)| format!("step {step}: {error}"))
                .collect();
            format!("stopped part-way: {}; planb failover --resume", steps.join(", "))
        }
        Rest::Stopped => "stopped".to_owned(),
        Rest::Lost => "the lease was lost".to_owned(),
    }
}
