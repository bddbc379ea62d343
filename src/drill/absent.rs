//! Whether a rehearsal waits for a machine that does not come. Pure.

use jiff::Timestamp;

use crate::recovery::next::{Next, Waiting, next};
use crate::recovery::plan::Place;
use crate::recovery::state::{Progress, State};

/// The step that another place would have to begin, or to go on with, for anything to happen at all; none while something is at work or
/// could begin here.
pub fn awaited(state: &State, here: Place, run: &str, now: Timestamp) -> Option<String> {
    let operation = state.open()?;
    let Next::Wait(waiting) = next(state, here, run, now) else {
        return None;
    };
    let is_at_work = |step: &str| match operation.progress(step) {
        Progress::Running { bound, interrupted, .. } | Progress::TakingBack { bound, interrupted, .. } => {
            !interrupted && *bound > now
        }
        Progress::Waiting | Progress::Done { .. } | Progress::Failed { .. } | Progress::TakenBack => false,
    };
    let mut awaited = None;
    for one in waiting {
        match one {
            Waiting::Elsewhere(step, _) if !is_at_work(&step) => {
                awaited.get_or_insert(step);
            }
            Waiting::Elsewhere(..) | Waiting::Here(_) | Waiting::Until(..) => return None,
        }
    }
    awaited
}
