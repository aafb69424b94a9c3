//! Gathers that go on when some of their stages have given an output: who was first, and what becomes of the others.

use super::{Out, Run};
use crate::error::WorkError;
use crate::machine::StageState;
use crate::pipeline::definition::{Mode, Rest};
use crate::record::run::Phase;

impl Run {
    /// Whether a stage has given an output of its own: not one that was skipped, and not one of which every task failed.
    pub(super) fn gave(&self, stage: usize) -> bool {
        let at = &self.header.stages[stage];
        at.state == StageState::Completed && (at.phase == Phase::Fallback || (at.total == 0 && at.failed == 0) || at.failed < at.total)
    }

    /// Fixes whose outputs a gather reads.
    pub(super) fn name_winners(&mut self, stage: usize) {
        let plan = &self.compiled.stages[stage];
        if plan.quorum.is_some() {
            let winners = plan.members.iter().copied().filter(|member| self.gave(usize::from(*member))).collect();
            self.annex.winners.insert(stage as u16, winners);
            self.annex_changed = true;
        }
    }

    /// The stages whose outputs a gather reads.
    pub(super) fn read_members(&self, stage: usize) -> Vec<u16> {
        match self.annex.winners.get(&(stage as u16)) {
            Some(winners) => winners.clone(),
            None => self.compiled.stages[stage].members.clone(),
        }
    }

    /// Fails a gather whose stages have all ended and of which too few gave an output.
    pub(super) fn check_quorum(&self, stage: usize) -> Result<(), WorkError> {
        let plan = &self.compiled.stages[stage];
        let gave = self.read_members(stage).len();
        match plan.quorum {
            Some(count) if gave < count as usize => {
                let text = format!("{gave} of its {} stages gave an output, and it waits for {count}", plan.members.len());
                Err(WorkError::new("too_few", text))
            }
            _ => Ok(()),
        }
    }

    /// Cancels the stages that came too late, unless they are to end.
    pub(super) fn cancel_losers(&mut self, stage: usize, out: &mut Out) {
        let cancels = matches!(&self.definition(stage).mode, Mode::Gather { rest: Rest::Cancel, .. });
        if !cancels || self.compiled.stages[stage].quorum.is_none() || self.check_quorum(stage).is_err() {
            return;
        }
        for member in self.compiled.stages[stage].members.clone() {
            if !self.header.stages[usize::from(member)].state.ended() {
                self.drop_stage(usize::from(member), out);
            }
        }
    }

    /// Whether a stage came too late for the gather that it runs for: nobody reads how it ends.
    pub(super) fn is_loser(&self, stage: usize) -> bool {
        let number = stage as u16;
        self.annex.winners.iter().any(|(gather, winners)| {
            let plan = &self.compiled.stages[usize::from(*gather)];
            let enough = plan.quorum.is_some_and(|count| winners.len() >= count as usize);
            enough && plan.members.contains(&number) && !winners.contains(&number)
        })
    }
}
