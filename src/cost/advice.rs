//! What to do where protection costs more than was promised, and by how much it helps.

use std::time::Duration;

use super::bill::{Bill, CAPACITY, EGRESS, REMOVED, Workload, bill, bill_of, paid_days};
use super::month::month;
use super::prices::Prices;
use crate::config::{Config, Schedule};

/// Slower schedules, in this order: the text and its interval.
const SLOWER: [(&str, u64); 9] = [
    ("*/10 * * * *", 10),
    ("*/15 * * * *", 15),
    ("*/30 * * * *", 30),
    ("0 * * * *", 60),
    ("0 */2 * * *", 120),
    ("0 */3 * * *", 180),
    ("0 */6 * * *", 360),
    ("0 */12 * * *", 720),
    ("0 3 * * *", 1_440),
];

/// A retention that still has a day of every hour and a week of every day.
const THIN: (Duration, Duration, u32) = (Duration::from_secs(6 * 3600), Duration::from_secs(24 * 3600), 7);

/// What would change the bill.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    pub budget: f64,
    /// The first slower schedule within the budget, and its cost.
    pub slower: Option<Change>,
    /// All of retention's share, thinned.
    pub thinner: Option<Change>,
    /// Both together, where neither is enough.
    pub both: Option<Change>,
    /// The most SQL that this schedule and retention protect within the budget.
    pub fits_raw_bytes: u64,
    /// Runs take longer than the schedule has them start.
    pub overlaps: bool,
}

/// One change of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it is written there.
    pub keys: String,
    /// Most that may then be lost, as time; none where the schedule stays.
    pub rpo: Option<Duration>,
    pub total: f64,
}

/// None where the bill is within the budget and runs have the time that they need.
pub fn advice(config: &Config, bill: &Bill, prices: &Prices) -> Option<Advice> {
    let budget = f64::from(config.cost.monthly_budget);
    let overlaps = overlaps(config, bill);
    if bill.total() <= budget && !overlaps {
        return None;
    }
    let workload = bill.workload;
    let thin = thinned(config);
    let thinner = (thin != config.retention).then(|| {
        let changed = Config {
            retention: thin.clone(),
            ..config.clone()
        };
        Change {
            keys: "[retention] keep_all = \"6h\", keep_hourly = \"24h\", keep_days = 7".to_owned(),
            rpo: None,
            total: total(&changed, workload, prices),
        }
    });
    let thinner = thinner.filter(|change| bill.total() - change.total >= 0.01);
    let slower = slower(config, bill, prices, budget);
    let is_enough = |change: &Option<Change>| change.as_ref().is_some_and(|change| change.total <= budget);
    let both = if is_enough(&slower) || is_enough(&thinner) || thinner.is_none() {
        None
    } else {
        let changed = Config {
            retention: thin,
            ..config.clone()
        };
        slower_of(&changed, bill, prices, budget, "with that retention, ")
    };
    Some(Advice {
        budget,
        slower,
        thinner,
        both,
        fits_raw_bytes: fits(config, bill, prices, budget),
        overlaps,
    })
}

fn slower(config: &Config, bill: &Bill, prices: &Prices, budget: f64) -> Option<Change> {
    slower_of(config, bill, prices, budget, "")
}

/// The first schedule that costs no more than the budget; the slowest of all where none does.
fn slower_of(config: &Config, bill: &Bill, prices: &Prices, budget: f64, prefix: &str) -> Option<Change> {
    let now = bill.month.interval();
    let mut found = None;
    for (text, minutes) in SLOWER {
        let interval = Duration::from_secs(minutes * 60);
        if interval <= now || interval < bill.workload.run {
            continue;
        }
        let mut changed = config.clone();
        changed.backup.schedule = Schedule::Cron(text.to_owned());
        let total = total(&changed, bill.workload, prices);
        found = Some(Change {
            keys: format!("{prefix}[backup] schedule = \"{text}\""),
            rpo: Some(interval.saturating_add(bill.workload.run)),
            total,
        });
        if total <= budget {
            break;
        }
    }
    found
}

fn total(config: &Config, workload: Workload, prices: &Prices) -> f64 {
    bill(config, workload, prices).total()
}

/// No rule keeps more than the thin one does, nor fewer than the configuration's floor.
fn thinned(config: &Config) -> crate::config::Retention {
    let mut thin = config.retention.clone();
    thin.keep_all = thin.keep_all.min(THIN.0);
    thin.keep_hourly = thin.keep_hourly.min(THIN.1);
    thin.keep_days = thin.keep_days.min(THIN.2);
    thin
}

/// Whether a run is still under way when the next one is due.
fn overlaps(config: &Config, bill: &Bill) -> bool {
    let instant = month(config, Duration::ZERO, 0);
    match &config.backup.schedule {
        // Runs as often as it can; late is what counts there.
        Schedule::KeepRpo => {
            let run = bill.workload.run;
            crate::backup::rpo::worst_case(bill.month.interval(), run) > config.targets.rpo + config.targets.rpo / 10
        }
        Schedule::Cron(_) => instant.runs > bill.month.runs * 1.01,
    }
}

/// Halves its way to the largest size within the budget; runs are taken to be as long as they are.
fn fits(config: &Config, bill: &Bill, prices: &Prices, budget: f64) -> u64 {
    let paid_days = paid_days(config, prices);
    let month = month(config, bill.workload.run.min(Duration::from_secs(1)), paid_days);
    let (mut low, mut high) = (0_u64, bill.workload.raw_bytes.max(1));
    let scaled = |raw: u64| {
        let part =
            u128::from(bill.workload.stored_bytes) * u128::from(raw) / u128::from(bill.workload.raw_bytes.max(1));
        Workload {
            raw_bytes: raw,
            stored_bytes: u64::try_from(part).unwrap_or(u64::MAX),
            run: Duration::from_secs(1),
        }
    };
    let is_within = |raw| bill_of(config, scaled(raw), month, prices).total() <= budget;
    if is_within(high) {
        return high;
    }
    while high - low > 1 << 16 {
        let middle = low + (high - low) / 2;
        if is_within(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

impl Advice {
    /// For people, one sentence a line. `now`: what the bill is for.
    pub fn lines(&self, bill: &Bill, sizes: impl Fn(u64) -> String, times: impl Fn(Duration) -> String) -> Vec<String> {
        let mut lines = Vec::new();
        let total = bill.total();
        if total > self.budget {
            lines.push(format!(
                "${total:.2} a month is more than the ${:.0} of [cost] monthly_budget: a whole dump every {} sends {:.0} GB a month",
                self.budget,
                times(bill.month.interval()),
                bill.lines.first().map_or(0.0, |line| line.quantity)
            ));
            let told = |change: &Change| {
                let rpo = change
                    .rpo
                    .map_or_else(String::new, |rpo| format!(", and up to {} may be lost", times(rpo)));
                let enough = if change.total <= self.budget {
                    ""
                } else {
                    ", still too much"
                };
                format!("{}: ${:.2} a month{rpo}{enough}", change.keys, change.total)
            };
            if let Some(change) = &self.slower {
                lines.push(format!("a slower schedule: {}", told(change)));
            }
            if let Some(change) = &self.thinner {
                lines.push(format!(
                    "a thinner retention: {}; saves ${:.2}",
                    told(change),
                    total - change.total
                ));
            }
            if let Some(change) = &self.both {
                lines.push(format!("both: {}", told(change)));
            }
            if bill.of(REMOVED) > bill.of(CAPACITY) {
                lines.push(format!(
                    "what is removed costs more than what is kept (${:.2}): [cost] undelete_days tells how long the storage account keeps it; \
                     a shorter soft delete there helps, and undoes less of a theft",
                    bill.of(REMOVED)
                ));
            }
            lines.push(match self.fits_raw_bytes {
                0 => "what stands always costs more than that by itself".to_owned(),
                fits => format!(
                    "as it is configured, ${:.0} protect about {} of SQL",
                    self.budget,
                    sizes(fits)
                ),
            });
            if bill.of(EGRESS) > bill.of(CAPACITY) {
                lines.push("most of it is what leaves the source's cloud, which no retention changes".to_owned());
            }
        }
        if self.overlaps {
            lines.push(format!(
                "a run of {} does not fit the schedule: one starts every {}, and the RPO is more than that",
                times(bill.workload.run),
                times(bill.month.interval())
            ));
        }
        lines
    }
}
