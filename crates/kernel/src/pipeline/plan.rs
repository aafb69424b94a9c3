//! Progress in the graph of stages.

use super::compiled::Compiled;
use crate::machine::StageState;

/// Whether everything that a stage depends on has ended and lets it on. `gave` says whether a stage has given an output.
#[must_use]
pub fn ready(compiled: &Compiled, stage: usize, state: impl Fn(usize) -> StageState, gave: impl Fn(usize) -> bool) -> bool {
    let plan = &compiled.stages[stage];
    let before = plan.depends_on.iter().all(|other| state(usize::from(*other)).lets_on());
    let Some(count) = plan.quorum else { return before };
    let gathered = plan.members.iter().filter(|member| gave(usize::from(**member))).count();
    before && (gathered >= count as usize || plan.members.iter().all(|member| state(usize::from(*member)).ended()))
}
