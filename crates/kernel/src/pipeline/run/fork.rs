//! A run that begins where another one, which has ended, got to: it takes over the stages that ended well.

use std::collections::{BTreeMap, BTreeSet};

use super::Run;
use super::effects::RunRefused;
use crate::machine::{RUN, RunEvent, StageState};
use crate::pipeline::definition::Mode;
use crate::record::run::{Ending, Happening, Paused, StageHeader, Wait};
use crate::time::Millis;

/// What a run takes over from another one of the same definition.
#[derive(Clone, Debug)]
pub struct Taken {
    /// By its place in the plan, where each of these stages was.
    stages: BTreeMap<u16, StageHeader>,
    fresh: BTreeMap<u16, u32>,
    winners: BTreeMap<u16, Vec<u16>>,
}

impl Taken {
    /// The stages whose rows go along, by their places in the plan.
    pub fn stages(&self) -> impl Iterator<Item = u16> + '_ {
        self.stages.keys().copied()
    }
}

impl Run {
    /// What a fork of this run takes over: what ended well, and neither is `from` nor depends on that, nor was undone.
    ///
    /// # Errors
    /// There is no stage `from`, or something could not be undone: nobody knows whether it may be done again.
    pub fn taken(&self, from: Option<&str>) -> Result<Taken, RunRefused> {
        if let Some(Ending { failed: failed @ 1.., .. }) = self.annex.ending {
            return Err(RunRefused::NotUndone { failed });
        }
        let named = from.map(|name| self.named(name)).transpose()?;
        let undone = self.annex.ending.iter().flat_map(|ending| &ending.order).filter_map(|stage| match self.definition(usize::from(*stage)).mode {
            Mode::Undo { of } => Some(usize::from(of)),
            _ => None,
        });
        let over: BTreeSet<usize> = named.into_iter().chain(undone).collect();
        let behind = self.downstream(over.clone());
        let well = |stage: &usize| match self.header.stages[*stage].state {
            StageState::Completed | StageState::Skipped => true,
            StageState::Cancelled | StageState::Failed => self.is_loser(*stage),
            _ => false,
        };
        // What undoes a stage that is done anew has not been done for it.
        let written = self.compiled.definition.stages.len();
        let mut kept: BTreeSet<usize> = (0..written).filter(|stage| !over.contains(stage) && !behind.contains(stage)).filter(well).collect();
        // A loser of a gather that starts over runs again.
        loop {
            let gone = kept.iter().copied().find(|stage| {
                let at = &self.header.stages[*stage];
                let lost = matches!(at.state, StageState::Cancelled | StageState::Failed);
                let gathered = |gather: &u16| self.compiled.stages[usize::from(*gather)].members.contains(&(*stage as u16));
                lost && !self.annex.winners.keys().any(|gather| gathered(gather) && kept.contains(&usize::from(*gather)))
            });
            match gone {
                Some(stage) => kept.remove(&stage),
                None => break,
            };
        }
        let here = |stage: &u16| kept.contains(&usize::from(*stage));
        Ok(Taken {
            stages: kept.iter().map(|stage| (*stage as u16, self.header.stages[*stage].clone())).collect(),
            fresh: self.annex.fresh.iter().filter(|(stage, _)| here(stage)).map(|(stage, round)| (*stage, *round)).collect(),
            winners: self.annex.winners.iter().filter(|(stage, _)| here(stage)).map(|(stage, winners)| (*stage, winners.clone())).collect(),
        })
    }

    /// Holds a run that has just been started until it has all that it takes over. If its process ends in between, it
    /// says so and does nothing.
    pub fn hold_for(&mut self, of: &str, now: Millis) {
        if RUN.next(self.header.state, RunEvent::Pause).is_ok() {
            self.run_event(RunEvent::Pause, Some(format!("it takes over what {of} did")));
            self.header.paused = Some(Paused { by: format!("a fork of {of} that was cut off: cancel this one and fork again"), since: now });
        }
    }

    /// Goes on with what was taken over, whose rows it has by now.
    pub fn take_over(&mut self, taken: Taken, why: String) {
        for (stage, mut at) in taken.stages {
            if let Some(Wait::Approval { listed, .. }) = &mut at.wait {
                // It was asked of the other run.
                *listed = false;
            }
            let name = self.definition(usize::from(stage)).name.clone();
            self.happened.push(Happening::Stage { stage: name, state: at.state, reason: Some("taken over".to_owned()) });
            self.touched.insert(stage);
            self.header.stages[usize::from(stage)] = at;
        }
        self.annex.fresh = taken.fresh;
        self.annex.winners = taken.winners;
        self.annex_changed = true;
        self.header.paused = None;
        self.run_event(RunEvent::Resume, Some(why));
        self.dirty = true;
    }
}
