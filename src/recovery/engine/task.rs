//! What a step is given, and how it asks whether it still may.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Right, StepError};
use crate::recovery::operation::Operation;
use crate::recovery::plan::Step;
use crate::recovery::state::Standing;

/// What a step is told when it begins.
#[derive(Clone)]
pub struct Task {
    pub step: Step,
    pub operation: Operation,
    pub standing: Standing,
    /// Fires when it must stop: its time is up, somebody stopped the command, or the lease is lost.
    pub cancel: CancellationToken,
    pub(super) right: Option<Arc<dyn Right>>,
}

impl Task {
    /// Of no operation that goes on: a pending fence is raised by whoever can.
    pub fn outside(step: Step, operation: Operation, standing: Standing) -> Self {
        Self {
            step,
            operation,
            standing,
            cancel: CancellationToken::new(),
            right: None,
        }
    }

    /// For the moment before a deed that whoever acts by now would not want: a machine that slept does not know yet that its lease
    /// is lost, and only the store can tell.
    ///
    /// # Errors
    /// This process may not act any more, or not as far as it can know.
    pub async fn confirm(&self) -> Result<(), StepError> {
        let Some(right) = &self.right else { return Ok(()) };
        match right.confirm().await {
            true => Ok(()),
            false => Err(StepError::passing(
                "the lease is lost, or cannot be confirmed: nothing was done, since somebody else may be at work",
            )),
        }
    }
}
