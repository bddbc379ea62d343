//! One rehearsal from its moment to its report; before it, what an earlier one left is taken back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::origin::{self, Origin};
use super::{Of, Wanted, What, isolated, kept};
use crate::backup::claim;
use crate::backup::entry::newest_good;
use crate::backup::rpo::{Newest, State as RpoState};
use crate::cli::failure::{Failure, told};
use crate::cli::operation::{Desk, Opening, Rehearsing};
use crate::cli::screen::Screen;
use crate::cli::tell::Teller;
use crate::cli::{Common, backup, open, present};
use crate::config::Config;
use crate::drill::absent::awaited;
use crate::drill::moment::{Moment, draw};
use crate::drill::report::{Report, facts, report};
use crate::drill::variant::{Variant, in_earnest, of_begun, real};
use crate::recovery::engine::Rest;
use crate::recovery::event::Event;
use crate::recovery::journal::Position;
use crate::recovery::operation::Operation;
use crate::recovery::plan::{Aim, Place, Site};
use crate::secret::resolver::Resolver;
use crate::source::login::Finder;
use crate::steps::{self, Avoid};

/// How often a rehearsal looks whether a real operation was begun.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// RDS may not answer; the server itself is asked who it is, all the same.
const RDS_WITHIN: Duration = Duration::from_secs(20);

/// Takes back what an earlier one left, then does what is wanted. The reports of all that came to their end, in order.
///
/// # Errors
/// A refusal before anything is begun, and whatever keeps one from being taken back.
pub async fn rehearse(common: &Common, wanted: Wanted) -> Result<Vec<Report>, Failure> {
    // What it goes by is what is kept of it: read once.
    let (text, config) = origin::read(&common.config)?;
    let variant = match wanted.what {
        What::Rehearse { stage, .. } => Some(isolated(&config, stage)?),
        What::Clean | What::Resume => None,
    };
    let (mut desk, today) = unless_stopped(&wanted.of, async {
        let mut desk = Desk::of_drill(common, config.clone(), wanted.by.clone(), Place::Operator).await?;
        desk.take_lease(matches!(wanted.what, What::Clean | What::Resume))
            .await?;
        let avoid = avoid(&desk, &config).await;
        let today = Today {
            text,
            avoid,
            config,
            variant,
        };
        Ok((desk, today))
    })
    .await?;
    let done = at_the_desk(&mut desk, &today, &wanted).await;
    desk.give_lease_back().await;
    if let Ok(reports) = &done {
        // What a stopping daemon leaves is no result: it is taken back, and told, after the next start.
        let told: Vec<&Report> = reports.iter().filter(|report| !is_left(&wanted, report)).collect();
        if !told.is_empty() {
            let teller = Teller::start(&today.config, Place::Operator).await;
            for report in told {
                teller.rehearsed(report.passed(), report.summary());
            }
            teller.finish(&today.config, &desk.stores.control, &wanted.by.run).await;
        }
    }
    done
}

/// Before anything is begun, nothing has to come to rest: a store that does not answer holds no daemon up.
async fn unless_stopped<T>(of: &Of, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let stopped = async {
        match of {
            Of::Command => std::future::pending().await,
            Of::Daemon(stop) => stop.cancelled().await,
        }
    };
    tokio::select! {
        done = work => done,
        () = stopped => Err(Failure::failed("stopped before anything was begun")),
    }
}

fn is_left(wanted: &Wanted, report: &Report) -> bool {
    matches!(&wanted.of, Of::Daemon(stop) if stop.is_cancelled()) && report.cleaned_at.is_none()
}

/// The configuration as it is now.
struct Today {
    text: String,
    config: Config,
    /// Where something is to be rehearsed.
    variant: Option<Variant>,
    avoid: Avoid,
}

impl Today {
    /// What an open rehearsal goes by: the configuration that it began with, isolated again, and away from what is real today, too.
    async fn of_open(
        &self,
        desk: &Desk,
        operation: &Operation,
        as_configured: bool,
    ) -> Result<(Config, Avoid), Failure> {
        let Aim::Drill { stage } = operation.aim else {
            return Err(Failure::failed(
                "the journal of rehearsals holds an operation that is none",
            ));
        };
        let began = match as_configured {
            true => None,
            false => origin::of(&desk.stores, &self.config, operation).await?,
        };
        let config = match began {
            Some(Origin::Config(config)) => *config,
            Some(Origin::Unreadable(why)) => {
                tracing::warn!(
                    why,
                    "what the rehearsal began with cannot be read; going by today's configuration"
                );
                self.config.clone()
            }
            None => self.config.clone(),
        };
        let variant = of_begun(&config, stage);
        let mut avoid = self.avoid.clone();
        avoid.addresses.extend(variant.avoid);
        avoid.terraform = in_earnest(&config);
        Ok((variant.config, avoid))
    }
}

/// Everything real, by name and by what the servers call themselves.
pub(super) async fn avoid(desk: &Desk, config: &Config) -> Avoid {
    let mut avoid = Avoid {
        addresses: real(config),
        terraform: in_earnest(config),
        ..Avoid::default()
    };
    let finder = Finder::new(config.source.clone(), Resolver::for_config(config));
    match tokio::time::timeout(RDS_WITHIN, finder.endpoint()).await {
        Ok(Ok((host, port, _))) => avoid.addresses.push((host.to_ascii_lowercase(), port)),
        Ok(Err(error)) => tracing::warn!(
            error = told(&error),
            "the source's address is not known; its identity is"
        ),
        Err(_) => tracing::warn!("RDS does not answer: the source's address is not known; its identity is"),
    }
    match claim::identities(desk.stores.control.as_ref(), &claim::key(&config.store.prefix)).await {
        Ok(identities) => avoid.identities = identities,
        Err(error) => tracing::warn!(
            error = told(&error),
            "which servers are real is known by their addresses alone"
        ),
    }
    avoid
}

async fn at_the_desk(desk: &mut Desk, today: &Today, wanted: &Wanted) -> Result<Vec<Report>, Failure> {
    let screen = Arc::new(match wanted.of {
        Of::Command => Screen::new(desk.json),
        Of::Daemon(_) => Screen::logged(),
    });
    let mut reports = Vec::new();
    let mut position = desk.position(&[]).await?;
    if let Some(open) = position.state.open().cloned() {
        let (config, avoid) = today.of_open(desk, &open, wanted.as_configured).await?;
        desk.config = config;
        desk.keep_away_from(avoid);
        if wanted.what == What::Resume {
            reports.push(carry_on(desk, today, position, &screen, &wanted.of).await?);
            return Ok(reports);
        }
        screen.line(&format!(
            "the rehearsal of {} was never taken back; that comes first",
            present::time(open.opened_at)
        ));
        let cleaned = take_back(desk, position, "its process died", &screen, &wanted.of).await?;
        reports.push(written(desk, today, &cleaned).await?);
        if cleaned.state.open().is_some() {
            return Ok(reports);
        }
        position = cleaned;
    }
    let (What::Rehearse { stage, seed }, Some(variant)) = (wanted.what, &today.variant) else {
        return Ok(reports);
    };
    let moment = unless_stopped(&wanted.of, look(desk, &today.config, seed)).await?;
    desk.config = variant.config.clone();
    desk.keep_away_from(today.avoid.clone());
    let mut facts = kept_facts(&today.config, variant, &moment);
    let digest = origin::keep(&desk.stores, &today.config, &today.text).await?;
    facts.insert(facts::CONFIGURATION.to_owned(), digest);
    let opening = Opening {
        aim: Aim::Drill { stage },
        plan: steps::plan::rehearsal(&variant.config.failover_steps),
        backup: Some(steps::chosen(&moment.backup)),
        pinned: true,
        facts,
        accepted: Vec::new(),
    };
    screen.line(&format!(
        "everything is taken to be lost at {} (seed {}): {} is the newest of then, {} would be lost",
        present::time(moment.at),
        moment.seed,
        moment.backup.id,
        present::duration(Duration::try_from(moment.loss).unwrap_or_default())
    ));
    let position = desk.begin(&position, opening).await?;
    reports.push(carry_on(desk, today, position, &screen, &wanted.of).await?);
    Ok(reports)
}

/// What stands against it; and the moment.
async fn look(desk: &Desk, config: &Config, seed: Option<u64>) -> Result<Moment, Failure> {
    let known = open::journal(config, &desk.stores).known().await?;
    let refused = |why: String| Err(Failure::Refused(why));
    if let Some(damage) = known.damage {
        return refused(format!(
            "the journal of failovers is damaged ({damage}): see to that first"
        ));
    }
    if known.is_open {
        return refused(
            "a failover or failback is open: nothing is rehearsed beside it; planb status shows it".to_owned(),
        );
    }
    if known.standing.serving != Some(Site::Primary) {
        return refused("the primary does not serve: this is no time for a rehearsal".to_owned());
    }
    let entries = open::listing(config, &desk.stores).await?;
    let now = desk.stores.backups.now().await?;
    let rpo = Newest::of(&entries).assess(config.targets.rpo, None, now);
    if rpo.state == RpoState::Breached {
        return refused(format!(
            "{rpo} (targets.rpo is {}): see to the backups first; planb status",
            present::duration(config.targets.rpo)
        ));
    }
    let seed = seed.unwrap_or_else(rand::random);
    draw(&entries, now, seed)
        .ok_or_else(|| Failure::Refused("there is no good backup to rehearse with; planb backups".to_owned()))
}

fn kept_facts(config: &Config, variant: &Variant, moment: &Moment) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::from([
        (facts::SERVICE, config.service.name.clone()),
        (facts::PLANB, env!("CARGO_PKG_VERSION").to_owned()),
        (facts::SEED, moment.seed.to_string()),
        (facts::LOST_AT, moment.at.to_string()),
        (facts::LOSS, moment.loss.as_secs_f64().to_string()),
        (facts::WORST, moment.worst_loss.as_secs_f64().to_string()),
        (facts::RPO, config.targets.rpo.as_secs_f64().to_string()),
        (facts::RTO, config.targets.rto.as_secs_f64().to_string()),
        (facts::RAW, moment.backup.raw_bytes.to_string()),
        (facts::STORED, moment.backup.size_bytes.to_string()),
        (facts::ROWS, moment.backup.rows.to_string()),
    ])
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect::<BTreeMap<_, _>>();
    for (name, why) in &variant.skipped {
        kept.insert(format!("{}{name}", facts::SKIPPED), why.clone());
    }
    kept
}

/// To its end, one way or another, and back.
async fn carry_on(
    desk: &Desk,
    today: &Today,
    position: Position,
    screen: &Arc<Screen>,
    of: &Of,
) -> Result<Report, Failure> {
    let (rest, position) = tokio::select! {
        done = desk.go_on_until(position, screen, stopped(desk, of)) => done?,
        never = gives_way(desk, &today.config) => match never {},
    };
    let position = match &rest {
        Rest::Ended(_) | Rest::Nothing => position,
        Rest::Lost => {
            return Err(Failure::StoppedPartWay(
                "the lease was lost: somebody else may be at it. planb drill --clean takes back what is left"
                    .to_owned(),
            ));
        }
        Rest::Failed(steps) => {
            let what: Vec<&str> = steps.iter().map(|(step, _)| step.as_str()).collect();
            let why = format!("step {} failed", what.join(", "));
            take_back(desk, position, &why, screen, of).await?
        }
        Rest::Stopped => {
            let why = desk.rehearsal.as_ref().map_or("it was stopped", Rehearsing::why);
            take_back(desk, position, why, screen, of).await?
        }
        Rest::Approval { .. } | Rest::Refused(_) => take_back(desk, position, "it could not go on", screen, of).await?,
    };
    written(desk, today, &position).await
}

/// Once a person presses Ctrl-C, the daemon stops, a real operation was begun, or the runner does not come.
async fn stopped(desk: &Desk, of: &Of) {
    let Some(rehearsal) = &desk.rehearsal else {
        return ended(of).await;
    };
    tokio::select! {
        () = ended(of) => {}
        () = rehearsal.stop.cancelled() => {}
        why = absent(desk) => rehearsal.end(why),
    }
}

/// Once the runner has left alone for too long what is its, while nothing is at work; says so.
async fn absent(desk: &Desk) -> String {
    let within = desk.config.drill.runner_within;
    let mut since: Option<tokio::time::Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (Ok(position), Ok(now)) = (desk.journal.read().await, desk.journal.now().await) else {
            continue;
        };
        let Some(step) = awaited(&position.state, desk.place, &desk.by.run, now) else {
            since = None;
            continue;
        };
        if since.get_or_insert_with(tokio::time::Instant::now).elapsed() >= within {
            return format!(
                "no runner took up {step} within {}: is its machine started, and does planb runner work there, with the same steps?",
                present::duration(within)
            );
        }
    }
}

async fn ended(of: &Of) {
    match of {
        Of::Command => backup::interrupted().await,
        Of::Daemon(stop) => stop.cancelled().await,
    }
}

/// Stops the rehearsal as soon as a real operation is begun.
async fn gives_way(desk: &Desk, config: &Config) -> std::convert::Infallible {
    let journal = open::journal(config, &desk.stores);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if journal.known().await.is_ok_and(|known| known.is_open)
            && let Some(rehearsal) = &desk.rehearsal
            && !rehearsal.stop.is_cancelled()
        {
            tracing::warn!("a real failover was begun: the rehearsal gives way");
            rehearsal.end("a real failover was begun".to_owned());
        }
    }
}

/// A daemon that stops takes nothing back any more: that may last as long as it took to make.
async fn take_back(
    desk: &Desk,
    position: Position,
    why: &str,
    screen: &Arc<Screen>,
    of: &Of,
) -> Result<Position, Failure> {
    let Some(operation) = position.state.open() else {
        return Ok(position);
    };
    if matches!(of, Of::Daemon(stop) if stop.is_cancelled()) {
        screen.line("the rehearsal is left as it is, and taken back after the next start (or by planb drill --clean)");
        return Ok(position);
    }
    screen.line(&format!("taking the rehearsal back: {why}"));
    let position = match operation.abandoning {
        Some(_) => position,
        None => {
            let reason = why.to_owned();
            desk.append(&position, Event::Abandoning { reason }).await?
        }
    };
    let given_up = async {
        tokio::select! {
            () = ended(of) => {}
            why = absent(desk) => screen.line(&why),
        }
    };
    let (rest, position) = desk.go_on_until(position, screen, given_up).await?;
    if let Rest::Failed(steps) = &rest {
        for (step, error) in steps {
            screen.line(&format!("{step} could not be taken back: {error}"));
        }
    }
    Ok(position)
}

/// The report, with the forecast, in the store.
async fn written(desk: &Desk, today: &Today, position: &Position) -> Result<Report, Failure> {
    let config = &today.config;
    let (entries, _) = desk.journal.history().await?;
    let of: Vec<_> = entries
        .into_iter()
        .filter(|entry| entry.operation == position.state.operations)
        .collect();
    let Some(mut report) = report(&of) else {
        return Err(Failure::failed("the rehearsal's journal holds no rehearsal"));
    };
    let mut reports = kept::all(config, &desk.stores).await?;
    reports.retain(|other| other.id != report.id);
    reports.push(report.clone());
    let known = open::journal(config, &desk.stores).known().await?;
    let (listed, ledger) = open::listing_and_ledger(config, &desk.stores, &known).await?;
    if let Some(operation) = &position.state.operation {
        let today = newest_good(&listed).map_or(report.backup.raw_bytes, |entry| entry.raw_bytes);
        report.forecast = kept::forecast(&operation.plan, &reports, ledger.restored(&listed), today, config);
    }
    if let Some(last) = reports.last_mut() {
        last.clone_from(&report);
    }
    if let Err(error) = kept::keep(config, &desk.stores, &report, &reports).await {
        eprintln!("planb: warning: the report could not be written: {}", told(&error));
    }
    Ok(report)
}
