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
    pub redundancy: Redundancy,
    /// Days that the storage account still keeps, and bills, what was removed: soft delete, and versions before it. Default 7, as
    /// Azure's portal makes an account; 0 where the store is a directory.
    pub undelete_days: u32,
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

/// How often, and how far apart, the storage account keeps a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Redundancy {
    Lrs,
    Zrs,
    Grs,
    Gzrs,
}

pub(super) fn cost(document: &mut Document<'_>) -> Cost {
    let mut section = document.section("cost");
    let tiers = [Tier::Hot, Tier::Cool, Tier::Cold].map(|tier| (tier.name(), tier));
    Cost {
        prices: section.text("prices", absolute_path),
        tier: section.choice("tier", &tiers).unwrap_or(Tier::Hot),
        redundancy: section
            .choice(
                "redundancy",
                &[
                    ("lrs", Redundancy::Lrs),
                    ("zrs", Redundancy::Zrs),
                    ("grs", Redundancy::Grs),
                    ("gzrs", Redundancy::Gzrs),
                ],
            )
            .unwrap_or(Redundancy::Lrs),
        undelete_days: section.count("undelete_days", 0..=365).unwrap_or(7),
        monthly_budget: section.count("monthly_budget", 1..=1_000_000).unwrap_or(10),
    }
}
