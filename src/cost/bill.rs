//! What it costs, line by line: a month of protection, and an hour of each stage.

use std::time::Duration;

use super::GB;
use super::month::{Month, month, ticks_a_month};
use super::prices::{HOURS_PER_MONTH, Item, Per, Prices, Storage};
use crate::config::cost::Tier;
use crate::config::{AzureAuth, Config, Login, Place, Removal};
use crate::dump::pipeline::planned_blocks;
use crate::secret::SecretRef;
use crate::store::BLOCK_BLOB_LIMITS;

/// What one backup is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// SQL.
    pub raw_bytes: u64,
    /// Compressed.
    pub stored_bytes: u64,
    /// From snapshot to commit.
    pub run: Duration,
}

/// Calls of the store, as a price list tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Calls {
    /// Blocks, block lists, small blobs.
    pub writes: f64,
    pub reads: f64,
    /// Each of at most 5,000 blobs.
    pub lists: f64,
    /// Properties (so the store's clock is read, too) and tags.
    pub other: f64,
}

/// Of one run, beside its blocks: lease, claims, journal, listing, name, commit. `tests/cost.rs` counts them.
pub const RUN: Calls = Calls {
    writes: 3.0,
    reads: 4.0,
    lists: 4.0,
    other: 9.0,
};
/// Of one look of the agent into the store: journal, listing, proofs, clock.
pub const LOOK: Calls = Calls {
    writes: 0.0,
    reads: 0.0,
    lists: 4.0,
    other: 2.0,
};
/// Looks in an hour: a survey every ten minutes, and one before the hourly pruning.
const LOOKS_AN_HOUR: f64 = 7.0;
/// A lease is renewed this often while a run goes on: the clock is asked and the lease written.
const RENEWED_EVERY: f64 = 20.0;
const DAYS_PER_MONTH: f64 = HOURS_PER_MONTH / 24.0;
/// Blobs in one answer of a listing.
const PAGE: f64 = 5_000.0;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub name: String,
    pub quantity: f64,
    /// What the quantity counts.
    pub unit: &'static str,
    /// Of one of them, or of 10,000 where the unit says so.
    pub unit_price: f64,
    pub cost: f64,
}

/// A month of protection.
#[derive(Debug, Clone, PartialEq)]
pub struct Bill {
    pub workload: Workload,
    pub month: Month,
    pub lines: Vec<Line>,
}

impl Bill {
    pub fn total(&self) -> f64 {
        self.lines.iter().map(|line| line.cost).sum()
    }

    /// Of the lines whose names begin like this.
    pub fn of(&self, name: &str) -> f64 {
        let lines = self.lines.iter().filter(|line| line.name.starts_with(name));
        lines.map(|line| line.cost).sum()
    }
}

/// The names of the lines that depend on size, schedule and retention.
pub const EGRESS: &str = "out of the source's cloud";
pub const CAPACITY: &str = "kept in the store";
/// What was removed, and the storage account can still bring back.
pub const REMOVED: &str = "removed, kept for undeletion";

/// What protecting so much costs a month.
pub fn bill(config: &Config, workload: Workload, prices: &Prices) -> Bill {
    let month = month(config, workload.run, paid_days(config, prices));
    bill_of(config, workload, month, prices)
}

/// The same where the month is known.
pub fn bill_of(config: &Config, workload: Workload, month: Month, prices: &Prices) -> Bill {
    let storage = storage(prices, config.cost.tier);
    let stored_gb = gb(workload.stored_bytes);
    let mut lines = vec![traffic(
        EGRESS,
        stored_gb * month.runs,
        prices.egress.cost(stored_gb * month.runs),
    )];
    let kept_gb = stored_gb * month.kept;
    let times = prices.redundancy.times(config.cost.redundancy);
    let gb_month = storage.gb_month * times;
    lines.push(line(CAPACITY, kept_gb, "GB", gb_month));
    let undelete_days = undelete_days(config);
    if undelete_days > 0 {
        // Every one of them stands for so much of a month.
        let removed_gb = stored_gb * month.removed * f64::from(undelete_days) / DAYS_PER_MONTH;
        lines.push(line(REMOVED, removed_gb, "GB", gb_month));
    }
    if storage.min_days > 0 {
        let early = stored_gb * month.early_days / DAYS_PER_MONTH;
        lines.push(line("removed before their time", early, "GB", gb_month));
    }
    let calls = calls(config, workload, &month);
    for (name, count, price) in [
        (
            "writes: blocks, block lists, lease",
            calls.writes,
            storage.writes * times,
        ),
        ("listings", calls.lists, storage.lists),
        ("reads", calls.reads, storage.reads),
        ("other: properties, clock, tags", calls.other, storage.other),
    ] {
        lines.push(per_10k(name, count, price));
    }
    let back = read_back_gb(config, stored_gb, &month);
    if back > 0.0 {
        lines.push(traffic("read back", back, prices.return_egress.cost(back)));
        lines.push(line("retrieval", back, "GB", storage.retrieval_gb));
    }
    let secrets = key_vault_reads(config) * month.runs;
    lines.push(per_10k("key vault", secrets, prices.key_vault.per_10k));
    lines.extend(
        items(prices, 1)
            .map(|item| standing_line(item, workload.raw_bytes, HOURS_PER_MONTH))
            .filter(|line| line.quantity > 0.0),
    );
    Bill { workload, month, lines }
}

/// What an hour costs while this stage stands, stage 1 left out: it stands always.
pub fn hourly(prices: &Prices, stage: u8, raw_bytes: u64) -> Vec<Line> {
    items(prices, stage)
        .map(|item| standing_line(item, raw_bytes, 1.0))
        .collect()
}

/// An hour of everything that stands at `stage` beside what stands always.
pub fn hour_of(prices: &Prices, stage: u8, raw_bytes: u64) -> f64 {
    (2..=stage)
        .flat_map(|stage| hourly(prices, stage, raw_bytes))
        .map(|line| line.cost)
        .sum()
}

fn items(prices: &Prices, stage: u8) -> impl Iterator<Item = &Item> {
    prices.standing.iter().filter(move |item| item.stage == stage)
}

fn standing_line(item: &Item, raw_bytes: u64, hours: f64) -> Line {
    let quantity = item.quantity.max(item.per_raw_gb * gb(raw_bytes));
    let (unit, times) = match item.per {
        Per::Hour => ("an hour", hours),
        Per::Month => ("a month", hours / HOURS_PER_MONTH),
        Per::GbMonth => ("GB", hours / HOURS_PER_MONTH),
    };
    Line {
        name: item.name.clone(),
        quantity,
        unit,
        unit_price: item.price,
        cost: quantity * item.price * times,
    }
}

/// Every call of the store in a month.
fn calls(config: &Config, workload: Workload, month: &Month) -> Calls {
    let blocks = planned_blocks(workload.raw_bytes, workload.stored_bytes, BLOCK_BLOB_LIMITS.max_blocks);
    let renewals = (workload.run.as_secs_f64() / RENEWED_EVERY).floor();
    let looks = LOOKS_AN_HOUR * HOURS_PER_MONTH;
    // A listing of many is several calls.
    let pages = (month.kept / PAGE).floor();
    let tags = match config.retention.removal {
        // What is kept is looked at in every pruning, so that nothing stays tagged.
        Removal::Tag => month.kept * HOURS_PER_MONTH + 3.0 * month.removed,
        Removal::Delete => 0.0,
    };
    let verified = if config.verify.structure { month.runs } else { 0.0 };
    Calls {
        writes: month.runs * (RUN.writes + f64::from(blocks) + renewals) + looks * LOOK.writes,
        reads: month.runs * RUN.reads + looks * LOOK.reads + (verified + proofs(config)) * f64::from(blocks),
        lists: month.runs * (RUN.lists + pages) + looks * (LOOK.lists + pages),
        other: month.runs * (RUN.other + renewals) + looks * LOOK.other + tags,
    }
}

/// Proofs in a month.
fn proofs(config: &Config) -> f64 {
    let restore = config.verify.restore.as_ref();
    restore.map_or(0.0, |proving| ticks_a_month(&proving.schedule))
}

fn read_back_gb(config: &Config, stored_gb: f64, month: &Month) -> f64 {
    if matches!(config.store.place, Place::Directory(_)) {
        return 0.0;
    }
    let verified = if config.verify.structure { month.runs } else { 0.0 };
    stored_gb * (verified + proofs(config))
}

/// Secrets of one run that only a key vault has.
fn key_vault_reads(config: &Config) -> f64 {
    let mut references: Vec<&SecretRef> = Vec::new();
    if let Login::Password(password) = &config.source.login {
        references.push(password);
    }
    if let Place::Azure { auth, .. } = &config.store.place {
        match auth {
            AzureAuth::ClientSecret { secret, .. } | AzureAuth::Sas(secret) | AzureAuth::AccountKey(secret) => {
                // One for the backups, one for control data.
                references.extend([secret, secret]);
            }
            AzureAuth::WorkloadIdentity { .. } | AzureAuth::ManagedIdentity { .. } | AzureAuth::AzLogin => {}
        }
    }
    references
        .into_iter()
        .filter(|reference| reference.needs_key_vault())
        .fold(0.0, |count, _| count + 1.0)
}

/// Days that the store keeps what was removed. A directory keeps nothing.
fn undelete_days(config: &Config) -> u32 {
    match config.store.place {
        Place::Directory(_) => 0,
        Place::Azure { .. } => config.cost.undelete_days,
    }
}

/// Days of its tier that a backup is paid for beyond its removal at the least; those that it is kept for undeletion count towards them.
pub fn paid_days(config: &Config, prices: &Prices) -> u32 {
    storage(prices, config.cost.tier)
        .min_days
        .saturating_sub(undelete_days(config))
}

fn storage(prices: &Prices, tier: Tier) -> &Storage {
    // Reading the table made sure that each tier is there.
    &prices.storage[tier.name()]
}

#[expect(clippy::cast_precision_loss, reason = "a price is no exact figure")]
pub fn gb(bytes: u64) -> f64 {
    bytes as f64 / GB
}

fn line(name: &str, quantity: f64, unit: &'static str, unit_price: f64) -> Line {
    Line {
        name: name.to_owned(),
        quantity,
        unit,
        unit_price,
        cost: quantity * unit_price,
    }
}

fn per_10k(name: &str, count: f64, price: f64) -> Line {
    Line {
        name: name.to_owned(),
        quantity: count,
        unit: "calls, per 10,000",
        unit_price: price,
        cost: count / 10_000.0 * price,
    }
}

/// Steps of a price are told as their mean.
fn traffic(name: &str, gb: f64, cost: f64) -> Line {
    Line {
        name: name.to_owned(),
        quantity: gb,
        unit: "GB",
        unit_price: if gb > 0.0 { cost / gb } else { 0.0 },
        cost,
    }
}
