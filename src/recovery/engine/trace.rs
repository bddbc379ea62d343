//! An operation and its steps as spans.

use tracing::Span;

use crate::recovery::journal::Position;
use crate::recovery::plan::Place;
use crate::span;
pub(super) use crate::span::traced;

pub(super) fn operation(position: &Position, place: Place) -> Span {
    let open = position.state.open();
    span::work!(
        "operation",
        number = open.map(|operation| operation.number),
        command = open.map(|operation| operation.aim.command()),
        ?place,
    )
}

/// Of the operation's: to be made before the task that is spawned, which does not know it.
pub(super) fn step(step: &str, operation: u64, taken_back: bool) -> Span {
    span::work!("step", step, operation, taken_back)
}
