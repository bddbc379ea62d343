//! What failover, failback and the runner have in common: the lease of a place, the journal, and the way to the end.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::failure::{Failure, told};
use super::screen::Screen;
use super::tell::{Both, Teller};
use super::{Common, open, present};
use crate::backup::claim;
use crate::backup::lease::{self, Lease, LeaseError, Who};
use crate::config::Config;
use crate::recovery::engine::{Engine, Rest, Right};
use crate::recovery::event::{Accepted, By, Chosen, Event};
use crate::recovery::journal::{Journal, JournalError, Position};
use crate::recovery::plan::{Aim, Place, Plan, Site};
use crate::recovery::rules::{self, Refusal, Rule};
use crate::secret::resolver::Resolver;
use crate::steps::{self, Executor};

mod args;
mod rehearsing;
mod report;

pub use args::{OperationArgs, user};
pub use rehearsing::{Rehearsing, drill_lease};
pub use report::{loss, standing_json, standing_line};

/// A process that vanished blocks the next for at most this long.
const LEASE_FOR: Duration = Duration::from_secs(30);
/// Whoever goes on with an operation waits this long for the lease of a process that vanished.
const OUTLASTS: Duration = Duration::from_secs(45);
/// Times that a person's word is written again, the other place having been faster.
const WORDS: u32 = 10;

/// A place's lease, the journal, and what carries steps out.
pub struct Desk {
    pub config: Config,
    pub stores: open::Stores,
    pub journal: Journal,
    pub by: By,
    pub place: Place,
    pub json: bool,
    pub teller: Teller,
    /// What a rehearsal does differently; none in earnest.
    pub rehearsal: Option<Rehearsing>,
    lease: Option<Arc<Held>>,
}

struct Held(Lease);

#[async_trait]
impl Right for Held {
    fn lost(&self) -> CancellationToken {
        self.0.lost()
    }

    async fn confirm(&self) -> bool {
        match self.0.confirm().await {
            Ok(()) => true,
            Err(error @ LeaseError::Store { .. }) => {
                // Nobody knows: the step is asked for again.
                tracing::warn!(error = told(&error), "the lease could not be confirmed");
                false
            }
            Err(LeaseError::Held { .. } | LeaseError::Lost { .. }) => false,
        }
    }
}

impl Desk {
    /// Looks only.
    pub async fn open(common: &Common, config: Config, by: By, place: Place) -> Result<Self, Failure> {
        let mistakes = steps::plan::check(&config);
        if !mistakes.is_empty() {
            return Err(Failure::Usage(mistakes.join("\nplanb: ")));
        }
        let stores = open::stores(&config, &CancellationToken::new()).await?;
        Ok(Self {
            journal: open::journal(&config, &stores),
            teller: Teller::start(&config, place).await,
            config,
            stores,
            by,
            place,
            json: common.json,
            rehearsal: None,
            lease: None,
        })
    }

    /// Where what is at work is told to others.
    fn key(&self) -> String {
        let key = claim::key(&self.config.store.prefix);
        match self.rehearsal {
            Some(_) => format!("{key}/drill"),
            None => key,
        }
    }

    /// Who acts for this place.
    pub async fn lease_line(&self) -> String {
        if self.lease.is_some() {
            return format!("ours ({} on {}): nobody else acts meanwhile", self.by.who, self.by.host);
        }
        match lease::held(Arc::clone(&self.stores.control), &self.lease_name()).await {
            Ok(None) => "free: nobody acts".to_owned(),
            Ok(Some(record)) => format!(
                "held by {record} until {} unless renewed: nothing can be begun before",
                present::time(record.expires_at)
            ),
            Err(error) => format!("cannot be read: {}", told(&error)),
        }
    }

    fn lease_name(&self) -> String {
        match (&self.rehearsal, self.place) {
            (Some(_), Place::Operator) => drill_lease(&self.config),
            // Not below the real one's name: in a directory that would make a directory of it, and no runner could ever act in earnest.
            (Some(_), Place::Runner) => format!("lease/drill-runner-{}", claim::key(&self.config.store.prefix)),
            (None, _) => format!("lease/{}-{}", self.place.name(), self.key()),
        }
    }

    /// From here on nobody else acts for this place.
    ///
    /// # Errors
    /// That somebody else does; with `waits`, only if they still do when a process that vanished would have lost it.
    pub async fn take_lease(&mut self, waits: bool) -> Result<(), Failure> {
        let who = Who {
            holder: self.by.who.clone(),
            run_id: self.by.run.clone(),
            host: self.by.host.clone(),
            pid: std::process::id(),
        };
        let name = self.lease_name();
        let until = tokio::time::Instant::now() + if waits { OUTLASTS } else { Duration::ZERO };
        let mut is_told = false;
        loop {
            match lease::acquire(Arc::clone(&self.stores.control), &name, who.clone(), LEASE_FOR).await {
                Err(error @ LeaseError::Held { .. }) if tokio::time::Instant::now() < until => {
                    if !std::mem::replace(&mut is_told, true) {
                        eprintln!("planb: {}; waiting whether it is given up", told(&error));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                Err(error @ LeaseError::Held { .. }) => {
                    return Err(Failure::refused(
                        Rule::LeaseHeld,
                        &format!("{}; planb status --follow shows what it does", told(&error)),
                    ));
                }
                lease => {
                    self.lease = Some(Arc::new(Held(lease?)));
                    return Ok(());
                }
            }
        }
    }

    pub async fn give_lease_back(&mut self) {
        if let Some(held) = self.lease.take().and_then(Arc::into_inner)
            && let Err(error) = held.0.release().await
        {
            tracing::warn!(
                error = told(&error),
                "the lease was not given back; it expires within a minute"
            );
        }
    }

    pub async fn append(&self, position: &Position, event: Event) -> Result<Position, Failure> {
        Ok(self.journal.append(position, &self.by, event).await?)
    }

    /// Where the journal stands; begun anew after damage, if somebody answers for that.
    pub async fn position(&self, accepted: &[Accepted]) -> Result<Position, Failure> {
        match self.journal.read().await {
            Err(JournalError::Damaged { blob, detail, good })
                if accepted
                    .iter()
                    .any(|accepted| accepted.rule == Rule::JournalDamaged.name()) =>
            {
                eprintln!(
                    "planb: the journal is damaged ({blob}: {detail}); a new one is begun from what could be read"
                );
                self.journal.seal(&good).await?;
                Ok(Journal::anew(&good))
            }
            read => Ok(read?),
        }
    }

    /// Whoever goes on does what the operation began with, or somebody answers for that.
    fn check_plan(&self, position: &Position) -> Result<(), Failure> {
        let Some(operation) = position.state.open() else {
            return Ok(());
        };
        // What a rehearsal made is taken back step by step as far as anybody knows how, whatever the plan is by now.
        if self.rehearsal.is_some() && operation.abandoning.is_some() {
            return Ok(());
        }
        let written = steps::plan::written(operation.aim, &self.config);
        if steps::plan::digest(written, &operation.plan) == operation.plan_digest
            || operation.has_accepted(Rule::PlanChanged)
        {
            return Ok(());
        }
        refuse(&[Refusal {
            rule: Rule::PlanChanged,
            why: "the configured steps here are not those that the operation began with; use the same configuration"
                .to_owned(),
        }])
    }

    /// Goes on until it comes to rest here, or somebody presses Ctrl-C.
    pub async fn go_on(&self, position: Position, screen: &Arc<Screen>) -> Result<(Rest, Position), Failure> {
        self.go_on_until(position, screen, super::backup::interrupted()).await
    }

    /// Goes on until it comes to rest here, by itself or since `stop` says so.
    pub async fn go_on_until(
        &self,
        position: Position,
        screen: &Arc<Screen>,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(Rest, Position), Failure> {
        let Some(held) = &self.lease else {
            return Err(Failure::failed("no lease is held"));
        };
        self.check_plan(&position)?;
        let now = self.stores.control.now().await.unwrap_or_default();
        for line in report::still_at_work(&position, self.place, &self.by.run, now) {
            screen.line(&line);
        }
        let cancel = CancellationToken::new();
        let herald = self.teller.herald(&position);
        let engine = Engine {
            journal: self.journal.clone(),
            hands: Arc::new(Executor {
                config: self.config.clone(),
                resolver: Resolver::for_config(&self.config),
                backups: Arc::clone(&self.stores.backups),
                control: Arc::clone(&self.stores.control),
                tell: Arc::clone(screen) as Arc<dyn steps::Tell>,
                runner: open::runner_of,
                avoid: self
                    .rehearsal
                    .as_ref()
                    .map(|drill| drill.avoid.clone())
                    .unwrap_or_default(),
                pages: open::pages,
            }),
            right: Arc::clone(held) as Arc<dyn Right>,
            watch: Arc::new(Both(Arc::clone(screen), herald)),
            here: self.place,
            by: self.by.clone(),
            cancel: cancel.clone(),
        };
        let mut running = std::pin::pin!(engine.run(position));
        let mut interrupted = std::pin::pin!(stop);
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        let result = loop {
            tokio::select! {
                result = &mut running => break result,
                () = &mut interrupted, if !cancel.is_cancelled() => {
                    screen.line("stopping: what is at work is told to come to rest …");
                    cancel.cancel();
                }
                _ = tick.tick() => screen.draw(&self.stores, &self.key(), self.place).await,
            }
        };
        screen.finish();
        result.map_err(|error| match error {
            JournalError::Store(_) | JournalError::Illegal(_) | JournalError::Raced => Failure::StoppedPartWay(
                format!("{error}\nplanb: nothing is lost; planb status shows where it stands, --resume goes on"),
            ),
            JournalError::Damaged { .. } => error.into(),
        })
    }
}

/// Asks a person to type the service's name.
pub fn confirm(args: &OperationArgs, config: &Config, json: bool) -> Result<(), Failure> {
    if args.yes {
        return Ok(());
    }
    if json || !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "nobody can be asked here: read the plan with --plan, then say --yes".to_owned(),
        ));
    }
    eprint!("Type the name of the service ({}) to go on: ", config.service.name);
    let _ = std::io::stderr().flush();
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if read.is_ok() && line.trim() == config.service.name {
        Ok(())
    } else {
        Err(Failure::Refused("not confirmed; nothing was done".to_owned()))
    }
}

/// Says everything that stands against it, or nothing.
pub fn refuse(refusals: &[Refusal]) -> Result<(), Failure> {
    if refusals.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = refusals
        .iter()
        .map(|refusal| {
            let way = if refusal.rule.can_be_waived() {
                format!(" (or answer for it: --accept {}=REASON)", refusal.rule.name())
            } else {
                String::new()
            };
            format!("{}: {}{way}", refusal.rule.name(), refusal.why)
        })
        .collect();
    Err(Failure::Refused(lines.join("\nplanb: ")))
}

/// What an operation is opened with.
pub struct Opening {
    pub aim: Aim,
    pub plan: Plan,
    pub backup: Option<Chosen>,
    pub pinned: bool,
    pub facts: BTreeMap<String, String>,
    pub accepted: Vec<Accepted>,
}

impl Desk {
    pub async fn begin(&self, position: &Position, opening: Opening) -> Result<Position, Failure> {
        let written = steps::plan::written(opening.aim, &self.config);
        let event = Event::Opened {
            aim: opening.aim,
            plan_digest: steps::plan::digest(written, &opening.plan),
            plan: opening.plan,
            standing: position.state.standing.clone(),
            backup: opening.backup,
            pinned: opening.pinned,
            approvers: self.config.failover.approvers,
            facts: opening.facts,
            accepted: opening.accepted,
        };
        // A machine that slept at the question may have lost it.
        if let Some(held) = &self.lease
            && !held.confirm().await
        {
            return Err(Failure::refused(
                Rule::LeaseLost,
                "somebody else may act by now; look with planb status, and begin again",
            ));
        }
        let position = match self.append(position, event).await {
            Err(Failure::Refused(_)) => {
                return Err(Failure::refused(
                    Rule::Unfinished,
                    "somebody else has just begun an operation; planb status shows it",
                ));
            }
            done => done?,
        };
        if let Some(operation) = position.state.open() {
            self.teller.begun(operation, &operation.accepted);
        }
        Ok(position)
    }

    /// Resume, abandon and approve: with the operation that is open.
    pub async fn take_up(
        &self,
        mut position: Position,
        args: &OperationArgs,
        towards: Site,
        accepted: Vec<Accepted>,
    ) -> Result<Position, Failure> {
        let Some(operation) = position.state.open() else {
            return Err(Failure::refused(
                Rule::NothingOpen,
                "no operation is open: there is nothing to go on with; planb history shows the past",
            ));
        };
        refuse(
            &rules::other_way(&position.state, towards)
                .into_iter()
                .collect::<Vec<_>>(),
        )?;
        if args.abandon && operation.committed_at.is_some() {
            return refuse(&[Refusal {
                rule: Rule::Committed,
                why: format!(
                    "the commit point is passed: it can only be gone on with ({} --resume)",
                    operation.aim.command()
                ),
            }])
            .map(|()| position);
        }
        let is_abandoned = operation.abandoning.is_some();
        self.teller.accepted(operation.number, &accepted);
        // First: what may be left as it is, may be so only then.
        if args.abandon && !is_abandoned {
            let reason = "abandoned by command".to_owned();
            position = self.say(position, Event::Abandoning { reason }).await?;
        }
        for accepted in accepted {
            position = self.say(position, Event::Accept(accepted)).await?;
        }
        if args.approve {
            position = self.say(position, Event::Approved).await?;
        }
        Ok(position)
    }

    /// A person's word, which holds whatever the other place wrote meanwhile; where it does not any more, folding refuses it.
    async fn say(&self, mut position: Position, event: Event) -> Result<Position, Failure> {
        for _ in 0..WORDS {
            match self.journal.append(&position, &self.by, event.clone()).await {
                Err(JournalError::Raced) => position = self.journal.read().await?,
                done => return Ok(done?),
            }
        }
        Err(JournalError::Raced.into())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Damaged { .. } => Self::refused(Rule::JournalDamaged, &error.to_string()),
            // Whatever was decided does not follow from what is written by now.
            JournalError::Illegal(_) => Self::refused(Rule::Raced, &error.to_string()),
            JournalError::Raced => Self::refused(
                Rule::Raced,
                "somebody else has just written to the journal; look with planb status, and try again",
            ),
            JournalError::Store(_) => Self::Failed(told(&error)),
        }
    }
}

/// Those of `refusals` that nobody answered for; the others are said.
pub fn unanswered(refusals: Vec<Refusal>, accepted: &[Accepted]) -> Vec<Refusal> {
    let left = rules::standing(refusals.clone(), accepted);
    for waived in refusals.iter().filter(|refusal| !left.contains(refusal)) {
        eprintln!("planb: accepted: {}: {}", waived.rule.name(), waived.why);
    }
    left
}
