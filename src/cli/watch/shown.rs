//! What all watchers found, as the status page shows it.

use super::{Together, auto_line};
use crate::serve::board::Watched;

impl Together {
    pub fn shown(self) -> Watched {
        let begun = self.shot.as_ref().map(auto_line);
        let refrained = self.refrained.iter().map(|why| format!("begins nothing: {why}"));
        Watched {
            auto: begun.into_iter().chain(refrained).collect(),
            tally: self.tally,
            ruling: self.ruling,
            at: self.now,
        }
    }
}
