//! `[cost]`: what `planb cost` counts with.

use std::path::PathBuf;

use super::collect::Document;
use super::sections::absolute_path;

/// What protection may cost, and by which prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// A table like `config/prices.toml`. None: the one built in.
    pub prices: Option<PathBuf>,
    /// What the storage account puts new blobs into.
    pub tier: Tier,
    /// Whole units of the table's currency a month; more is warned of. Default 10.
    pub monthly_budget: u32,
}

/// An access tier of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Hot,
    Cool,
    Cold,
}

impl Tier {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cool => "cool",
            Self::Cold => "cold",
        }
    }
}

pub(super) fn cost(document: &mut Document<'_>) -> Cost {
    let mut section = document.section("cost");
    let tiers = [Tier::Hot, Tier::Cool, Tier::Cold].map(|tier| (tier.name(), tier));
    Cost {
        prices: section.text("prices", absolute_path),
        tier: section.choice("tier", &tiers).unwrap_or(Tier::Hot),
        monthly_budget: section.count("monthly_budget", 1..=1_000_000).unwrap_or(10),
    }
}
