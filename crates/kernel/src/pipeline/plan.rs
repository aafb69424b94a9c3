//! Progress in the graph of stages.

use super::compiled::Compiled;
use crate::machine::StageState;

/// Whether everything that a stage depends on has ended and lets it on.
#[must_use]
pub fn ready(compiled: &Compiled, stage: usize, state: impl Fn(usize) -> StageState) -> bool {
    compiled.stages[stage].depends_on.iter().all(|other| state(usize::from(*other)).lets_on())
}
