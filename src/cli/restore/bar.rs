//! How far a restore is, for whoever watches.

use std::io::IsTerminal;
use std::sync::atomic::Ordering::Relaxed;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::present;
use crate::restore::ledger::Phase;
use crate::restore::load::Progress;
use crate::restore::plan::Plan;
use crate::restore::run::Observer;

/// A progress bar on a terminal, nothing elsewhere.
pub struct Bar {
    pub bar: ProgressBar,
}

impl Bar {
    pub fn new(total: Option<u64>, json: bool) -> Self {
        let bar = match total {
            _ if json || !std::io::stderr().is_terminal() => ProgressBar::hidden(),
            Some(total) => ProgressBar::new(total),
            None => ProgressBar::new_spinner(),
        };
        // Keys come after the rows, so the estimate is of the rows alone, and says so.
        let template = match total {
            Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}, rows done in about {eta}",
            None => "{msg} {spinner} {bytes}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar }
    }

    pub fn draw(&self, progress: &Progress) {
        self.bar.set_position(progress.stored_bytes.load(Relaxed));
    }
}

impl Observer for Bar {
    fn planned(&self, plan: &Plan, resumed: bool) {
        if resumed {
            self.bar.println("going on with an interrupted restore");
        }
        for repair in &plan.repairs {
            self.bar.println(format!("changed on the way: {repair}"));
        }
        if let Some(replacing) = &plan.replacing {
            self.bar.println(format!(
                "replacing {}: some {} more are needed while old and new stand side by side",
                replacing.schemas.join(", "),
                present::bytes(replacing.needed_bytes)
            ));
        }
    }

    fn entered(&self, phase: Phase) {
        tracing::debug!(phase = phase.name(), "restoring");
        self.bar.set_message(match phase {
            Phase::Schema => "making tables",
            Phase::Data => "loading rows",
            Phase::Keys => "building keys",
            Phase::Check => "comparing with the backup",
            Phase::Swap => "old and new change places",
            Phase::Programs => "routines, views, triggers, events",
            Phase::Finishing | Phase::RollingBack | Phase::Done => "",
        });
    }
}
