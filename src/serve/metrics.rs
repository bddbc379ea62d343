//! `/metrics`: what operators' own monitoring reads, by Prometheus' conventions (base units, `_total` on counters).
//!
//! Counters live as long as the process. Everything else is made from the facts at each look, so that ages are of that moment and
//! what nobody knows is absent instead of zero.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::board::{Committed, Facts, Failed};
use crate::store::StoreError;
use crate::store::retrying::Meter;

mod gauges;
mod people;

/// From a blob beside us to an outage.
const LATENCY_BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From a toy to a dump of hours.
const RUN_BUCKETS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 45.0, 90.0, 180.0, 600.0, 1_800.0, 7_200.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Call {
    operation: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCY_BUCKETS)
    }
}

/// What is counted from the start of the process on.
pub struct Counters {
    registry: Registry,
    runs: Family<Outcome, Counter>,
    run_seconds: Histogram,
    skipped: Counter,
    repeated: Counter,
    verifications: Family<Outcome, Counter>,
    proofs: Family<Outcome, Counter>,
    store_seconds: Family<Call, Histogram, Latency>,
    store_retries: Family<Operation, Counter>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

/// Every result a run can have, so that each series is there from the start: a rate of what appears with its first event is lost.
const RUN_RESULTS: [&str; 4] = ["committed", "stood_back", "failed", "cancelled"];

impl Default for Counters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("planb");
        let counters = Self {
            runs: Family::default(),
            run_seconds: Histogram::new(RUN_BUCKETS),
            skipped: Counter::default(),
            repeated: Counter::default(),
            verifications: Family::default(),
            proofs: Family::default(),
            store_seconds: Family::new_with_constructor(Latency),
            store_retries: Family::default(),
            registry: Registry::default(),
        };
        for result in RUN_RESULTS {
            let _ = counters.runs.get_or_create(&Outcome { result });
        }
        for result in ["sound", "damaged", "not_done"] {
            let _ = counters.verifications.get_or_create(&Outcome { result });
        }
        for result in ["proven", "failed"] {
            let _ = counters.proofs.get_or_create(&Outcome { result });
        }
        registry.register(
            "build",
            "The version of planb that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "backup_runs",
            "Backup runs since the agent started, by how they ended; stood_back: another agent was at it",
            counters.runs.clone(),
        );
        registry.register(
            "backup_duration_seconds",
            "How long runs that committed a backup took, all attempts together",
            counters.run_seconds.clone(),
        );
        registry.register(
            "backup_skipped_runs",
            "Ticks of the schedule without a run: the one before was still under way, or the machine slept",
            counters.skipped.clone(),
        );
        registry.register(
            "backup_repeated_attempts",
            "Attempts that were thrown away and made again within runs that then committed",
            counters.repeated.clone(),
        );
        registry.register(
            "verifications",
            "Checks of a backup's structure, by what they found",
            counters.verifications.clone(),
        );
        registry.register(
            "proofs",
            "Restores of a backup on the scratch server to prove it, by what came of them",
            counters.proofs.clone(),
        );
        registry.register(
            "store_request_duration_seconds",
            "How long the store took to answer one request; unavailable: no answer, or one that says to try again",
            counters.store_seconds.clone(),
        );
        registry.register(
            "store_retries",
            "Requests to the store that were made again after no answer",
            counters.store_retries.clone(),
        );
        Self { registry, ..counters }
    }
}

impl Counters {
    pub(super) fn committed(&self, run: &Committed) {
        self.runs.get_or_create(&Outcome { result: "committed" }).inc();
        self.run_seconds.observe(run.seconds);
        self.repeated.inc_by(run.attempts.saturating_sub(1).into());
    }

    pub(super) fn failed(&self, how: Failed) {
        let result = match how {
            Failed::Cancelled => "cancelled",
            Failed::Busy => "stood_back",
            Failed::Transient | Failed::Permanent => "failed",
        };
        self.runs.get_or_create(&Outcome { result }).inc();
    }

    pub(super) fn skipped(&self, ticks: u64) {
        self.skipped.inc_by(ticks);
    }

    /// `is_sound`: none if it was not done.
    pub fn verified(&self, is_sound: Option<bool>) {
        let result = match is_sound {
            Some(true) => "sound",
            Some(false) => "damaged",
            None => "not_done",
        };
        self.verifications.get_or_create(&Outcome { result }).inc();
    }

    pub(super) fn proved(&self, is_proven: bool) {
        let result = if is_proven { "proven" } else { "failed" };
        self.proofs.get_or_create(&Outcome { result }).inc();
    }
}

impl Meter for super::board::Board {
    fn answered(&self, operation: &'static str, took: Duration, error: Option<&StoreError>) {
        let result = match error {
            None => "ok",
            Some(error) if error.is_permanent() => "refused",
            Some(_) => "unavailable",
        };
        let call = Call { operation, result };
        self.counters
            .store_seconds
            .get_or_create(&call)
            .observe(took.as_secs_f64());
    }

    fn retried(&self, operation: &'static str) {
        self.counters
            .store_retries
            .get_or_create(&Operation { operation })
            .inc();
    }
}

/// In OpenMetrics' text form, or in Prometheus' older one.
pub fn render(counters: &Counters, facts: &Facts, now: Timestamp, open_metrics: bool) -> String {
    let mut out = String::new();
    let (gauges, process) = gauges::of(facts, now);
    for registry in [&counters.registry, &gauges, &process] {
        // Writing to memory does not fail.
        let _ = text::encode_registry(&mut out, registry);
    }
    if open_metrics {
        let _ = text::encode_eof(&mut out);
        out
    } else {
        older(&out)
    }
}

pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const OLDER: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The older form names a counter with its suffix, and knows no `info`.
fn older(text: &str) -> String {
    let mut counters = Vec::new();
    let mut infos = Vec::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            match kind {
                "counter" => counters.push(name),
                "info" => infos.push(name),
                _ => {}
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        if let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        {
            let (suffix, rest) = if counters.contains(&name) {
                ("_total", rest)
            } else if infos.contains(&name) {
                ("_info", if what == "TYPE" { "gauge" } else { rest })
            } else {
                ("", rest)
            };
            out.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
