//! A run that has failed or was cancelled is taken up again: which stages go on, and which start over.

use std::collections::BTreeSet;

use super::Run;
use super::effects::{Again, Retry, RunRefused};
use super::memory::StageMemory;
use crate::machine::{RUN, RunEvent, StageEvent, StageState};
use crate::pipeline::definition::Mode;
use crate::record::run::{Ending, Phase, StageHeader, TaskRow};
use crate::time::Millis;

impl Run {
    /// Everything that did not end well is run again; what ended well is found in its rows and stays, but for what
    /// `retry` names and what depends on that. What was undone is done again, as another effect, with what depends on it.
    /// Errors: something could not be undone, since nobody knows whether it may be done again.
    pub(super) fn retry(&mut self, retry: &Retry, now: Millis) -> Result<(), RunRefused> {
        RUN.next(self.header.state, RunEvent::Retry)?;
        if let Some(Ending { failed: failed @ 1.., .. }) = self.annex.ending {
            return Err(RunRefused::NotUndone { failed });
        }
        let stages = &self.compiled.definition.stages;
        let named = retry.from.as_deref().map(|name| self.named(name)).transpose()?;
        // What goes on with its finished tasks, although it has ended well.
        let goes_on: BTreeSet<usize> = match (named, retry.tasks) {
            (Some(stage), Again::Failed) => BTreeSet::from([stage]),
            (None, Again::Failed) => {
                let passed_over = |stage: &usize| self.header.stages[*stage].state == StageState::Completed && self.header.stages[*stage].failed > 0;
                (0..stages.len()).filter(passed_over).collect()
            }
            (_, Again::All) => BTreeSet::new(),
        };
        let undoing = self.annex.ending.as_ref().map_or_else(Vec::new, |ending| ending.order.clone());
        let undone = undoing.iter().filter_map(|stage| match self.definition(usize::from(*stage)).mode {
            Mode::Undo { of } => Some(usize::from(of)),
            _ => None,
        });
        let mut over: BTreeSet<usize> = named.filter(|_| retry.tasks == Again::All).into_iter().chain(undone).collect();
        over.extend(self.downstream(goes_on.iter().chain(&over).copied().collect()));
        self.run_event(RunEvent::Retry, None);
        // It stands in line again.
        self.annex_changed |= self.annex.line.take().is_some();
        self.asked_line = false;
        self.annex_changed |= self.annex.ending.take().is_some();
        for stage in undoing {
            self.start_over(usize::from(stage));
        }
        self.header.error = None;
        self.header.ended_at = None;
        self.header.paused = None;
        self.header.blocked = None;
        self.header.deadline = self.compiled.definition.timeout.map(|span| now.after(span.0));
        for stage in 0..self.stages.len() {
            let ended_badly = matches!(self.header.stages[stage].state, StageState::Failed | StageState::Cancelled);
            if over.contains(&stage) {
                self.start_over(stage);
            } else if goes_on.contains(&stage) || (ended_badly && !self.is_loser(stage)) {
                self.go_on(stage);
            }
        }
        Ok(())
    }

    /// The place of a stage that somebody names.
    pub(super) fn named(&self, name: &str) -> Result<usize, RunRefused> {
        let stages = &self.compiled.definition.stages;
        let known = || stages.iter().map(|stage| stage.name.clone()).collect();
        stages.iter().position(|stage| stage.name == name).ok_or_else(|| RunRefused::NoStage { name: name.to_owned(), known: known() })
    }

    /// Every stage that depends on one of these, however far away; not these themselves.
    pub(super) fn downstream(&self, seeds: BTreeSet<usize>) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        loop {
            let next = (0..self.compiled.definition.stages.len()).find(|stage| {
                let plan = &self.compiled.stages[*stage];
                let before = |other: &u16| seeds.contains(&usize::from(*other)) || found.contains(&usize::from(*other));
                !found.contains(stage) && !seeds.contains(stage) && plan.depends_on.iter().chain(&plan.members).any(before)
            });
            match next {
                Some(stage) => found.insert(stage),
                None => return found,
            };
        }
    }

    /// A stage runs again: finished tasks stay.
    fn go_on(&mut self, stage: usize) {
        self.stage_event(stage, StageEvent::Retry, None);
        let at = &mut self.header.stages[stage];
        let began = at.phase != Phase::Begin;
        *at = StageHeader {
            state: at.state,
            pieces: std::mem::take(&mut at.pieces),
            visited: at.visited.max(at.cursor),
            round: at.round + u32::from(began),
            defect: at.defect.take(),
            window: std::mem::take(&mut at.window),
            ..StageHeader::default()
        };
        self.forget_end(stage);
    }

    /// A stage runs again from nothing: what its rows say does not count any more.
    fn start_over(&mut self, stage: usize) {
        self.stage_event(stage, StageEvent::Retry, None);
        let at = &mut self.header.stages[stage];
        *at = StageHeader { state: at.state, round: at.round + 1, window: std::mem::take(&mut at.window), ..StageHeader::default() };
        self.annex.fresh.insert(stage as u16, at.round);
        self.annex_changed = true;
        self.forget_end(stage);
    }

    fn forget_end(&mut self, stage: usize) {
        let number = stage as u16;
        self.annex_changed |= self.annex.winners.remove(&number).is_some();
        let finished = self.annex.finished.len();
        self.annex.finished.retain(|other| *other != number);
        self.annex_changed |= self.annex.finished.len() != finished;
        let throttle = self.compiled.plan[stage].throttle.clone();
        self.stages[stage] = StageMemory::new(throttle.as_ref(), &self.header.stages[stage]);
        self.dirty = true;
    }

    /// From which round on the rows of a stage count.
    pub(super) fn fresh(&self, stage: usize) -> u32 {
        self.annex.fresh.get(&(stage as u16)).copied().unwrap_or(0)
    }

    /// Whether a row of a stage counts.
    pub(super) fn counts(&self, stage: usize, row: &TaskRow) -> bool {
        row.round >= self.fresh(stage)
    }
}
