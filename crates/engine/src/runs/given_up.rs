//! Calls of tasks that nobody waits for any more: who gives them up writes it down in the same commit, and a timer asks them to end.

use selvedge_kernel::id::RunId;
use selvedge_kernel::pipeline::run::{Command, Work, call_id, child_id};
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::record::shard::{Called, Timer};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use super::{Active, OpenCall};
use crate::shard::{Effect, Shard, VerbError};

/// So many stand in one row.
const CANCELS_IN_A_ROW: usize = 512;
/// So many are asked to end in one transition.
const CANCELS_AT_ONCE: usize = 32;

impl Shard {
    /// Notes whom the commands of a commit call, and writes into the same commit whom they give up: a crash behind it loses none.
    pub(super) fn plan_cancels(&mut self, active: &mut Active, commands: &[Command], writes: &mut Writes, now: Millis) {
        let run = active.run.id();
        let header = active.run.header();
        let round = |stage: u16| header.stages.get(usize::from(stage)).map_or(0, |stage| stage.round);
        let id_of = |(stage, item, attempt): (u16, u32, u32), work: &Work| match work {
            Work::Activity { .. } => None,
            Work::Actor { target, .. } => Some(Called::Actor(call_id(run, (stage, item, attempt), round(stage), target))),
            Work::Pipeline { .. } => Some(Called::Pipeline(child_id(run, &header.tenant, (stage, item, attempt), round(stage)))),
        };
        let mut gone = Vec::new();
        for command in commands {
            match command {
                Command::Dispatch(dispatch) => {
                    if let Some(called) = id_of((dispatch.stage, dispatch.item, dispatch.attempt), &dispatch.work) {
                        let handler = match &dispatch.work {
                            Work::Actor { target, handler } => Some((target.clone(), handler.clone())),
                            Work::Activity { .. } | Work::Pipeline { .. } => None,
                        };
                        active.called.insert((dispatch.stage, dispatch.item), OpenCall { attempt: dispatch.attempt, called, handler, told: false });
                    }
                }
                Command::AbortStage { stage } => {
                    gone.extend(active.called.extract_if((*stage, 0)..=(*stage, u32::MAX), |_, _| true).map(|(_, open)| open.called));
                }
                Command::CancelCalls { stage, calls } => gone.extend(calls.iter().filter_map(|(item, attempt, work)| id_of((*stage, *item, *attempt), work))),
                Command::RunEnded { .. } => {
                    let compiled = active.run.compiled().clone();
                    gone.extend(active.called.extract_if(.., |(stage, _), _| !Shard::runs_on(&compiled, *stage)).map(|(_, open)| open.called));
                }
                Command::Borrow { .. } | Command::AskBreaker { .. } | Command::GiveBack { .. } | Command::EnterLine { .. } | Command::EndCalls { .. } => {}
            }
        }
        for part in gone.chunks(CANCELS_IN_A_ROW) {
            self.set_timer(writes, now, Timer::Cancels { run, called: part.to_vec() });
        }
    }

    /// Asks those to end whom a run has called and given up, some in each transition.
    pub(crate) async fn cancels_due(&mut self, run: RunId, called: Vec<Called>, own: (Millis, u64)) {
        if let Err(error) = self.send_cancels(run, called, own).await {
            self.wiring.stop(error.message);
        }
    }

    /// Asks those to end whom a stage has called and whose answers it awaits. Called behind the calls themselves; no row says so,
    /// because the run decides it again after a restart, with the calls.
    pub(super) async fn end_calls(&mut self, run: RunId, stage: u16) -> Result<(), VerbError> {
        let Some(active) = self.runs.active.get_mut(&run) else { return Ok(()) };
        let open = active.called.range_mut((stage, 0)..=(stage, u32::MAX)).filter(|(_, open)| !open.told);
        let called: Vec<Called> = open
            .map(|(_, open)| {
                open.told = true;
                open.called
            })
            .collect();
        for some in called.chunks(CANCELS_AT_ONCE) {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for one in some {
                self.post_end(run, *one, &mut writes, &mut effects).await?;
            }
            self.write(writes, effects);
        }
        Ok(())
    }

    async fn post_end(&mut self, run: RunId, called: Called, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        match called {
            Called::Actor(invocation) => self.post_cancel(invocation, format!("{run} needs no answer any more"), writes, effects).await,
            Called::Pipeline(child) => {
                let envelope = Envelope::CancelRun { run: child, reason: format!("{run}, whose task it is") };
                self.send(child.0.hash.shard(self.wiring.shards), run.0, envelope, writes, effects).await
            }
        }
    }

    async fn send_cancels(&mut self, run: RunId, mut called: Vec<Called>, own: (Millis, u64)) -> Result<(), VerbError> {
        loop {
            let (mut writes, mut effects) = (Writes::default(), Vec::new());
            for one in called.split_off(called.len().saturating_sub(CANCELS_AT_ONCE)) {
                self.post_end(run, one, &mut writes, &mut effects).await?;
            }
            if called.is_empty() {
                self.clear_timer(&mut writes, own);
                self.write(writes, effects);
                return Ok(());
            }
            writes.put(key::timer(own.0, own.1), wire::encode(&Timer::Cancels { run, called: called.clone() }));
            self.write(writes, effects);
        }
    }
}
