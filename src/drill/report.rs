//! What a rehearsal measured, told from its journal alone: so that one that was killed has its report too, and nobody can write another one. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::forecast::Sample;
use crate::recovery::engine::REHEARSED;
use crate::recovery::event::{Entry, Event, Outcome};
use crate::recovery::plan::{Aim, Plan};

/// For an auditor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub v: u32,
    pub id: String,
    pub service: String,
    pub stage: u8,
    pub result: Verdict,
    /// What failed, or was missed.
    pub why: String,
    pub begun_at: Timestamp,
    /// When the last step was done, or the first one failed for good.
    pub ended_at: Timestamp,
    /// When everything was taken back; none: something is left.
    pub cleaned_at: Option<Timestamp>,
    pub who: String,
    pub host: String,
    /// Its version.
    pub planb: String,
    /// Repeats the draw.
    pub seed: String,
    /// The moment at which everything is taken to have been lost.
    pub lost_at: Option<Timestamp>,
    pub backup: Backup,
    pub rpo: Measure,
    /// The most that could have been lost in the day before.
    pub worst_loss_seconds: Option<f64>,
    /// From the beginning to healthy.
    pub rto: Measure,
    pub steps: Vec<StepReport>,
    pub clean_up: Vec<StepReport>,
    /// What was not rehearsed, and why.
    pub skipped: BTreeMap<String, String>,
    /// What the comparison looked at.
    pub evidence: BTreeMap<String, String>,
    /// SHA-256 of the last entry of its journal, which chains all before it.
    pub journal_digest: String,
    pub journal_entries: u64,
    /// SHA-256 of the configuration that it went by, which is kept beside its journal.
    #[serde(default)]
    pub configuration: String,
    /// For a disaster today; none while too little is known.
    #[serde(default)]
    pub forecast: Option<Foretold>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Healthy, and both targets were met.
    Met,
    /// Healthy, too late or with too much lost.
    Missed,
    /// A step failed.
    Failed,
    /// It was stopped, or its process died.
    Interrupted,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Backup {
    pub id: String,
    pub blob: String,
    pub digest: String,
    pub consistent_at: Option<Timestamp>,
    pub raw_bytes: u64,
    pub stored_bytes: u64,
    pub rows: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    pub seconds: Option<f64>,
    pub target_seconds: f64,
}

impl Measure {
    pub fn is_met(self) -> bool {
        self.seconds.is_some_and(|seconds| seconds <= self.target_seconds)
    }
}

/// One step, or its taking back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    pub name: String,
    pub kind: String,
    pub stage: u8,
    /// done, failed, unfinished, waiting; taken back, left.
    pub state: String,
    /// After the beginning of the rehearsal.
    pub begun_after_seconds: Option<f64>,
    pub seconds: Option<f64>,
    pub note: String,
}

/// A rehearsal that was not taken back yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub begun_at: Timestamp,
    pub who: String,
    pub host: String,
    /// Somebody is at it; otherwise it was left.
    pub is_at_work: bool,
}

/// A forecast, with what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    pub raw_bytes: u64,
    pub seconds: f64,
    pub target_seconds: f64,
    pub breaks_at_bytes: Option<u64>,
    pub rehearsals: usize,
    pub sizes: usize,
    /// Proofs that its growth is taken from; 0 where rehearsals of several sizes tell it themselves.
    #[serde(default)]
    pub proofs: usize,
}

/// Keys of what an opened rehearsal keeps in its facts.
pub mod facts {
    pub const SERVICE: &str = "service";
    pub const PLANB: &str = "planb";
    pub const SEED: &str = "seed";
    pub const LOST_AT: &str = "lost_at";
    pub const LOSS: &str = "loss_seconds";
    pub const WORST: &str = "worst_loss_seconds";
    pub const RPO: &str = "rpo_target_seconds";
    pub const RTO: &str = "rto_target_seconds";
    pub const RAW: &str = "raw_bytes";
    pub const STORED: &str = "stored_bytes";
    pub const ROWS: &str = "rows";
    /// SHA-256 of the configuration that it goes by.
    pub const CONFIGURATION: &str = "configuration";
    /// Before the name of each step that is left out.
    pub const SKIPPED: &str = "skipped ";
}

/// The id of a rehearsal that began then.
pub fn id(begun_at: Timestamp) -> String {
    begun_at
        .to_zoned(jiff::tz::TimeZone::UTC)
        .strftime("drill-%Y%m%d-%H%M%S")
        .to_string()
}

#[derive(Default)]
struct Seen {
    begun: Option<Timestamp>,
    done: Option<(Timestamp, Outcome)>,
    failed: Option<(Timestamp, String)>,
    back_begun: Option<Timestamp>,
    back_done: Option<(Timestamp, String)>,
}

/// From the entries of one rehearsal, oldest first. None if they are no rehearsal's.
pub fn report(entries: &[Entry]) -> Option<Report> {
    let first = entries.first()?;
    let Event::Opened {
        aim: Aim::Drill { stage },
        plan,
        backup,
        facts,
        ..
    } = &first.event
    else {
        return None;
    };
    let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
    let mut abandoning: Option<(Timestamp, &str)> = None;
    let mut cleaned_at = None;
    for entry in entries {
        match &entry.event {
            Event::Started { step, .. } => {
                seen.entry(step).or_default().begun.get_or_insert(entry.at);
            }
            Event::Done { step, outcome } => seen.entry(step).or_default().done = Some((entry.at, outcome.clone())),
            Event::Failed { step, error, .. } => seen.entry(step).or_default().failed = Some((entry.at, error.clone())),
            Event::TakingBack { step, .. } => {
                seen.entry(step).or_default().back_begun.get_or_insert(entry.at);
            }
            Event::TakenBack { step, note } => {
                seen.entry(step).or_default().back_done = Some((entry.at, note.clone()));
            }
            Event::Abandoning { reason } => abandoning = Some((entry.at, reason)),
            Event::Ended { .. } => cleaned_at = Some(entry.at),
            _ => {}
        }
    }
    let since = |at: Timestamp| at.duration_since(first.at).as_secs_f64();
    let number = |key: &str| facts.get(key).and_then(|text| text.parse::<f64>().ok());
    let count = |key: &str| facts.get(key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let steps = steps(plan, &seen, &since, abandoning.map(|(at, _)| at));
    let last_done = seen
        .values()
        .filter_map(|seen| seen.done.as_ref())
        .map(|(at, _)| *at)
        .max();
    let is_healthy = abandoning.is_some_and(|(_, reason)| reason == REHEARSED);
    let rpo = Measure {
        seconds: number(facts::LOSS),
        target_seconds: number(facts::RPO).unwrap_or(0.0),
    };
    let rto = Measure {
        seconds: if is_healthy { last_done.map(since) } else { None },
        target_seconds: number(facts::RTO).unwrap_or(0.0),
    };
    let failure = steps.iter().find(|step| step.state == "failed");
    let is_compared = steps.iter().any(|step| step.kind == "verify" && step.state == "done");
    let (result, why) = match (is_healthy, failure) {
        // Also one that the plan goes on without: a rehearsal is there to find it.
        (_, Some(step)) => (Verdict::Failed, format!("step {}: {}", step.name, step.note)),
        (true, None) if !is_compared => (
            Verdict::Failed,
            "nothing was compared with the backup: the plan needs a step of kind verify".to_owned(),
        ),
        (true, None) if rpo.is_met() && rto.is_met() => (Verdict::Met, String::new()),
        (true, None) => (Verdict::Missed, missed(rpo, rto)),
        (false, None) => {
            let reason = abandoning.map_or("it was never taken up again", |(_, reason)| reason);
            (Verdict::Interrupted, reason.to_owned())
        }
    };
    let last = entries.last()?;
    Some(Report {
        v: 1,
        id: id(first.at),
        service: facts.get(facts::SERVICE).cloned().unwrap_or_default(),
        stage: *stage,
        result,
        why,
        begun_at: first.at,
        ended_at: match is_healthy {
            true => last_done.unwrap_or(last.at),
            false => abandoning.map_or(last.at, |(at, _)| at),
        },
        cleaned_at,
        who: first.by.who.clone(),
        host: first.by.host.clone(),
        planb: facts.get(facts::PLANB).cloned().unwrap_or_default(),
        seed: facts.get(facts::SEED).cloned().unwrap_or_default(),
        lost_at: facts.get(facts::LOST_AT).and_then(|at| at.parse().ok()),
        backup: Backup {
            id: backup.as_ref().map(|backup| backup.id.clone()).unwrap_or_default(),
            blob: backup.as_ref().map(|backup| backup.blob.clone()).unwrap_or_default(),
            digest: backup.as_ref().map(|backup| backup.digest.clone()).unwrap_or_default(),
            consistent_at: backup.as_ref().map(|backup| backup.consistent_at),
            raw_bytes: count(facts::RAW),
            stored_bytes: count(facts::STORED),
            rows: count(facts::ROWS),
        },
        rpo,
        worst_loss_seconds: number(facts::WORST),
        rto,
        clean_up: clean_up(plan, &seen, &since),
        skipped: facts
            .iter()
            .filter_map(|(key, why)| Some((key.strip_prefix(facts::SKIPPED)?.to_owned(), why.clone())))
            .collect(),
        evidence: evidence(plan, &seen),
        journal_digest: last.encode().1,
        journal_entries: last.number,
        configuration: facts.get(facts::CONFIGURATION).cloned().unwrap_or_default(),
        forecast: None,
        steps,
    })
}

fn missed(rpo: Measure, rto: Measure) -> String {
    let mut missed = Vec::new();
    for (name, measure) in [("RPO", rpo), ("RTO", rto)] {
        if let Some(seconds) = measure.seconds.filter(|_| !measure.is_met()) {
            missed.push(format!("{name} {seconds:.1} s, target {:.0} s", measure.target_seconds));
        }
    }
    missed.join("; ")
}

fn steps(
    plan: &Plan,
    seen: &BTreeMap<&str, Seen>,
    since: &dyn Fn(Timestamp) -> f64,
    abandoned_at: Option<Timestamp>,
) -> Vec<StepReport> {
    let one = |step: &crate::recovery::plan::Step| {
        let seen = seen.get(step.name.as_str());
        let begun = seen.and_then(|seen| seen.begun);
        let took = |at: Timestamp| begun.map(|begun| at.duration_since(begun).as_secs_f64());
        let (state, seconds, note) = match seen {
            Some(Seen {
                done: Some((at, outcome)),
                ..
            }) => ("done", took(*at), outcome.note.clone()),
            Some(Seen {
                failed: Some((at, error)),
                ..
            }) => ("failed", took(*at), error.clone()),
            Some(Seen { begun: Some(_), .. }) => ("unfinished", abandoned_at.and_then(took), String::new()),
            Some(_) | None => ("waiting", None, String::new()),
        };
        StepReport {
            name: step.name.clone(),
            kind: step.kind.clone(),
            stage: step.stage,
            state: state.to_owned(),
            begun_after_seconds: begun.map(since),
            seconds,
            note,
        }
    };
    plan.steps.iter().map(one).collect()
}

fn clean_up(plan: &Plan, seen: &BTreeMap<&str, Seen>, since: &dyn Fn(Timestamp) -> f64) -> Vec<StepReport> {
    let one = |step: &crate::recovery::plan::Step| {
        let seen = seen.get(step.name.as_str())?;
        let begun = seen.back_begun?;
        let done = seen.back_done.as_ref();
        Some(StepReport {
            name: step.name.clone(),
            kind: step.kind.clone(),
            stage: step.stage,
            state: if done.is_some() { "taken back" } else { "left" }.to_owned(),
            begun_after_seconds: Some(since(begun)),
            seconds: done.map(|(at, _)| at.duration_since(begun).as_secs_f64()),
            note: done.map(|(_, note)| note.clone()).unwrap_or_default(),
        })
    };
    plan.steps.iter().rev().filter_map(one).collect()
}

/// What the comparing steps gave.
fn evidence(plan: &Plan, seen: &BTreeMap<&str, Seen>) -> BTreeMap<String, String> {
    let mut evidence = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| step.kind == "verify") {
        let done = seen.get(step.name.as_str()).and_then(|seen| seen.done.as_ref());
        let Some((_, outcome)) = done else { continue };
        for (key, value) in &outcome.outputs {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            evidence.insert(key.replace('_', " "), text);
        }
    }
    evidence
}

impl Report {
    /// What it teaches of the next one.
    pub fn samples(&self) -> Vec<Sample> {
        let done = self.steps.iter().filter(|step| step.state == "done");
        done.filter_map(|step| {
            Some(Sample {
                step: step.name.clone(),
                raw_bytes: self.backup.raw_bytes,
                seconds: step.seconds?,
            })
        })
        .collect()
    }

    /// While nothing was at work and the clock went on: the journal between steps, above all. None if it never was healthy.
    pub fn idle_seconds(&self) -> Option<f64> {
        let mut at_work: Vec<(f64, f64)> = self
            .steps
            .iter()
            .filter_map(|step| {
                let begun = step.begun_after_seconds?;
                Some((begun, begun + step.seconds?))
            })
            .collect();
        at_work.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut busy, mut until) = (0.0, 0.0_f64);
        for (begun, ended) in at_work {
            busy += (ended - begun.max(until)).max(0.0);
            until = until.max(ended);
        }
        Some((self.rto.seconds? - busy).max(0.0))
    }

    pub fn passed(&self) -> bool {
        self.result == Verdict::Met && self.cleaned_at.is_some()
    }

    /// In a line.
    pub fn summary(&self) -> String {
        let told = |measure: Measure| {
            let seconds = measure
                .seconds
                .map_or_else(|| "not reached".to_owned(), |seconds| format!("{seconds:.1} s"));
            format!("{seconds} (target {:.0} s)", measure.target_seconds)
        };
        let why = if self.why.is_empty() {
            String::new()
        } else {
            format!("; {}", self.why)
        };
        let left = if self.cleaned_at.is_some() {
            ""
        } else {
            "; NOT CLEANED UP: planb drill --clean"
        };
        format!(
            "{}, stage {}: {}; RPO {}, RTO {}{why}{left}",
            self.id,
            self.stage,
            self.result.name(),
            told(self.rpo),
            told(self.rto)
        )
    }
}
