//! The table of prices: `config/prices.toml` is built in, another one may be named.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::Deserialize;

use crate::config::cost::{Redundancy, Tier};

/// The table as it was when this program was built.
const BUILT_IN: &str = include_str!("../../config/prices.toml");

/// Months of every cloud's price list.
pub const HOURS_PER_MONTH: f64 = 730.0;

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// When somebody last went through it.
    pub as_of: Date,
    pub currency: String,
    /// Out of the cloud of the source.
    pub egress: Traffic,
    /// Out of the cloud of the store.
    pub return_egress: Traffic,
    pub storage: BTreeMap<String, Storage>,
    pub redundancy: Copies,
    pub key_vault: KeyVault,
    pub standing: Vec<Item>,
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// The provider's, for this region.
    List,
    /// The provider's, for another region or as an example.
    Sample,
    /// The project's own source document.
    Document,
    /// Nobody looked it up.
    Memory,
}

impl Trust {
    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Sample => "sample",
            Self::Document => "document",
            Self::Memory => "memory",
        }
    }
}

/// Traffic by the GB, cheaper from step to step.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    pub free_gb: f64,
    pub tiers: Vec<Step>,
    pub source: String,
    pub seen: Date,
    pub trust: Trust,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// None: without end.
    pub up_to_gb: Option<f64>,
    pub per_gb: f64,
}

/// One tier of the store; operations per 10,000.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub gb_month: f64,
    pub writes: f64,
    pub reads: f64,
    pub lists: f64,
    pub other: f64,
    pub retrieval_gb: f64,
    /// What is removed earlier is paid for until then.
    pub min_days: u32,
    pub source: String,
    pub seen: Date,
    pub trust: Trust,
}

/// How many times the price of capacity and writes each redundancy costs; once is locally redundant.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copies {
    pub lrs: f64,
    pub zrs: f64,
    pub grs: f64,
    pub gzrs: f64,
    pub source: String,
    pub seen: Date,
    pub trust: Trust,
}

impl Copies {
    pub fn times(&self, redundancy: Redundancy) -> f64 {
        match redundancy {
            Redundancy::Lrs => self.lrs,
            Redundancy::Zrs => self.zrs,
            Redundancy::Grs => self.grs,
            Redundancy::Gzrs => self.gzrs,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyVault {
    pub per_10k: f64,
    pub source: String,
    pub seen: Date,
    pub trust: Trust,
}

/// Something that costs while it stands.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// 1 to 3; that of 3 stands beside that of 2.
    pub stage: u8,
    pub name: String,
    pub quantity: f64,
    /// At least so much for each GB of SQL.
    #[serde(default)]
    pub per_raw_gb: f64,
    pub per: Per,
    pub price: f64,
    pub source: String,
    pub seen: Date,
    pub trust: Trust,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    Hour,
    Month,
    GbMonth,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PricesError {
    #[error("the table of prices cannot be read: {0}")]
    Syntax(String),
    #[error("the table of prices: {key} {what}")]
    Wrong { key: String, what: &'static str },
}

impl Prices {
    /// The table built in.
    ///
    /// # Errors
    /// None that a release has: a test reads it.
    pub fn built_in() -> Result<Self, PricesError> {
        Self::parse(BUILT_IN)
    }

    /// # Errors
    /// What makes no sense as a price, with its key.
    pub fn parse(text: &str) -> Result<Self, PricesError> {
        let prices: Self = toml::from_str(text).map_err(|error| PricesError::Syntax(error.to_string()))?;
        let wrong = |key: String, what| Err(PricesError::Wrong { key, what });
        for (name, traffic) in [("egress", &prices.egress), ("return_egress", &prices.return_egress)] {
            let key = format!("{name}.tiers");
            let ends: Vec<f64> = traffic.tiers.iter().filter_map(|step| step.up_to_gb).collect();
            if ends.len() + 1 != traffic.tiers.len() || traffic.tiers.last().is_none_or(|last| last.up_to_gb.is_some())
            {
                return wrong(key, "must end with one step without up_to_gb, and only that one");
            }
            if ends.windows(2).any(|pair| pair[0] >= pair[1]) {
                return wrong(key, "must rise from step to step");
            }
        }
        for tier in [Tier::Hot, Tier::Cool, Tier::Cold] {
            if !prices.storage.contains_key(tier.name()) {
                return wrong(format!("storage.{}", tier.name()), "is missing");
            }
        }
        let figures = prices.figures();
        if let Some((key, _)) = figures
            .iter()
            .find(|(_, figure)| !(figure.is_finite() && *figure >= 0.0))
        {
            return wrong(key.clone(), "must be a number that is not below zero");
        }
        match prices.standing.iter().find(|item| !(1..=3).contains(&item.stage)) {
            Some(item) => wrong(format!("standing \"{}\": stage", item.name), "must be 1, 2 or 3"),
            None => Ok(prices),
        }
    }

    fn figures(&self) -> Vec<(String, f64)> {
        let mut figures = vec![("key_vault.per_10k".to_owned(), self.key_vault.per_10k)];
        for (name, traffic) in [("egress", &self.egress), ("return_egress", &self.return_egress)] {
            figures.push((format!("{name}.free_gb"), traffic.free_gb));
            figures.extend(traffic.tiers.iter().map(|step| (format!("{name}.tiers"), step.per_gb)));
        }
        for (name, tier) in &self.storage {
            for figure in [
                tier.gb_month,
                tier.writes,
                tier.reads,
                tier.lists,
                tier.other,
                tier.retrieval_gb,
            ] {
                figures.push((format!("storage.{name}"), figure));
            }
        }
        let copies = &self.redundancy;
        figures.extend([copies.lrs, copies.zrs, copies.grs, copies.gzrs].map(|times| ("redundancy".to_owned(), times)));
        for item in &self.standing {
            for figure in [item.quantity, item.price, item.per_raw_gb] {
                figures.push((format!("standing \"{}\"", item.name), figure));
            }
        }
        figures
    }

    /// How many lines are from where.
    pub fn trusts(&self) -> BTreeMap<Trust, usize> {
        let mut all = vec![
            self.egress.trust,
            self.return_egress.trust,
            self.key_vault.trust,
            self.redundancy.trust,
        ];
        all.extend(self.storage.values().map(|tier| tier.trust));
        all.extend(self.standing.iter().map(|item| item.trust));
        let mut counts = BTreeMap::new();
        for trust in all {
            *counts.entry(trust).or_default() += 1;
        }
        counts
    }
}

impl Traffic {
    /// What so many GB in one month cost.
    pub fn cost(&self, gb: f64) -> f64 {
        let mut from = 0.0;
        let mut cost = 0.0;
        // What is free is the first, and counts towards the steps.
        for step in &self.tiers {
            let end = step.up_to_gb.unwrap_or(f64::INFINITY);
            let billed = (gb.min(end) - self.free_gb.max(from)).max(0.0);
            cost += billed * step.per_gb;
            from = end;
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_table_reads_and_names_every_source() {
        let prices = Prices::built_in().expect("reads");
        assert!(prices.standing.iter().all(|item| !item.source.is_empty()));
        assert_eq!(prices.trusts().values().sum::<usize>(), 7 + prices.standing.len());
        for stage in 1..=3 {
            assert!(prices.standing.iter().any(|item| item.stage == stage), "{stage}");
        }
    }

    #[test]
    fn traffic_gets_cheaper_and_the_free_part_is_the_first() {
        let mut traffic = Prices::built_in().expect("reads").egress;
        assert!((traffic.cost(1_000.0) - 126.0).abs() < 1e-9);
        // 10 TB at the first price, 1,000 GB at the second.
        assert!((traffic.cost(11_240.0) - (10_240.0 * 0.126 + 1_000.0 * 0.122)).abs() < 1e-9);
        traffic.free_gb = 100.0;
        assert!(traffic.cost(100.0).abs() < 1e-9);
        assert!((traffic.cost(101.0) - 0.126).abs() < 1e-9);
        traffic.free_gb = 20_000.0;
        assert!(
            (traffic.cost(20_001.0) - 0.122).abs() < 1e-9,
            "{}",
            traffic.cost(20_001.0)
        );
    }

    #[test]
    fn what_is_no_table_of_prices_says_where() {
        for (from, to, told) in [
            ("per_10k = 0.03", "per_10k = -1", "key_vault.per_10k"),
            ("[storage.cool]", "[storage.tepid]", "storage.cool"),
            ("    { per_gb = 0.108 },\n", "", "egress.tiers"),
            ("up_to_gb = 51200", "up_to_gb = 512", "egress.tiers"),
            ("free_gb = 0\n", "free_gb = 0\nextra = 1\n", "extra"),
        ] {
            let text = BUILT_IN.replacen(from, to, 1);
            assert_ne!(text, BUILT_IN, "{from}");
            let error = Prices::parse(&text).expect_err(told).to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
