//! Runs in memory: how they come in from their rows, and how they leave.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::RunId;
use selvedge_kernel::journal::Hash32;
use selvedge_kernel::pipeline::compiled::Compiled;
use selvedge_kernel::pipeline::run::{Run, RunInput};
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::run::Pinned;
use selvedge_kernel::wire;

use super::accept::compiled;
use super::{Active, Doing};
use crate::shard::{Alarm, Shard, VerbError};

/// Compiled definitions that no run in memory uses and that are kept all the same.
const DEFINITIONS: usize = 64;

/// How many runs come in line in one turn after an opening.
const RECOVERED_PER_TURN: usize = 16;

/// So many times longer than one that only waits stays a run that waits for the answers of actors.
const CALLS_STAY: u32 = 60;

pub(super) fn unknown(id: RunId) -> VerbError {
    VerbError::new(Consequence::NotFound, "unknown_run", format!("there is no run {id}: it may have been removed after its retention time"))
}

/// A run in memory to which nothing has happened yet.
pub(super) fn active(run: Run) -> Active {
    let state = run.header().state;
    Active {
        run,
        kept: 0,
        inputs: VecDeque::new(),
        ready: None,
        timer: None,
        indexed: None,
        ended: state.ended(),
        unperformed: 0,
        called: BTreeMap::new(),
        wake: None,
        rests: None,
    }
}

impl Shard {
    /// Reads a run from its rows; it is not kept in memory.
    pub(super) async fn read_run(&mut self, id: RunId) -> Result<Active, VerbError> {
        if let Some(error) = self.runs.damaged.get(&id) {
            return Err(error.clone());
        }
        let [row, definition, seal_key, annex] = Run::keys(id);
        let Some(row) = self.get(row).await? else { return Err(unknown(id)) };
        let missing = |what: &str| {
            VerbError::new(Consequence::Stop, "store_damaged", format!("{what} of {id} is missing: run `selvedge verify` and restore from a backup"))
        };
        let definition = self.get(definition).await?.ok_or_else(|| missing("the definition"))?;
        let seal_key = self.get(seal_key).await?.ok_or_else(|| missing("the seal key"))?;
        let annex = self.get(annex).await?;
        let pinned: Pinned = wire::decode("pinned definition", &definition)?;
        let known = self.pinned(&pinned.definition)?;
        let run = Run::from_rows(id, [&row, &definition, &seal_key], annex.as_deref(), Some(&known), self.wiring.settings.limits)
            .map_err(|error| VerbError::new(Consequence::Stop, "store_damaged", format!("{id}: {error}")))?;
        let mut read = active(run);
        read.kept = read.run.kept();
        read.indexed = Some(read.run.header().state);
        read.timer = read.run.header().timer.map(|at| (at, super::turn::timer_number(id)));
        Ok(read)
    }

    fn pinned(&mut self, bytes: &[u8]) -> Result<Arc<Compiled>, VerbError> {
        if let Some(known) = self.runs.definitions.get(&hash(bytes)) {
            return Ok(known.clone());
        }
        let damaged = |text: String| VerbError::new(Consequence::Stop, "store_damaged", text);
        let definition =
            serde_json::from_slice(bytes).map_err(|error| damaged(format!("a pinned definition does not decode ({error}): run `selvedge verify`")))?;
        let compiled = compiled(&self.wiring.registry, definition).map_err(|error| damaged(error.message))?;
        self.remember_definition(&compiled);
        Ok(compiled)
    }

    pub(super) fn remember_definition(&mut self, compiled: &Arc<Compiled>) {
        let definitions = &mut self.runs.definitions;
        if definitions.len() >= DEFINITIONS {
            definitions.retain(|_, known| Arc::strong_count(known) > 1);
        }
        definitions.insert(hash(&compiled.bytes), compiled.clone());
    }

    /// Brings a run into memory, with its tasks in flight known.
    pub(super) async fn activate_run(&mut self, id: RunId) -> Result<(), VerbError> {
        if self.runs.active.contains_key(&id) {
            return Ok(());
        }
        if let Some(number) = self.runs.to_recover.remove(&id) {
            self.recover_run(id, number).await?;
            return match (self.runs.active.contains_key(&id), self.runs.damaged.get(&id)) {
                (true, _) => Ok(()),
                (false, Some(error)) => Err(error.clone()),
                // One that had ended has left memory again.
                (false, None) => self.read_run(id).await.map(drop),
            };
        }
        let mut read = self.read_run(id).await?;
        read.ready = self.runs.left_ready.remove(&id);
        self.settle_run(read).await
    }

    /// Puts a run into memory, or drops it if it has ended.
    pub(super) fn keep(&mut self, active: Active) {
        let id = active.run.id();
        self.runs.active.insert(id, active);
        self.rest(id);
    }

    /// Looks whether a run can leave memory: at once if it has ended, later if it only waits.
    pub(super) fn rest(&mut self, id: RunId) {
        let now = self.now();
        let here = self.runs.tasks.range((id, 0, 0)..=(id, u16::MAX, u32::MAX)).any(|(_, task)| matches!(task.work, Doing::Here { .. }));
        let here = here || !self.limits.of_run(id, None).is_empty();
        let queued = self.runs.queued.contains(&id);
        let Some(active) = self.runs.active.get_mut(&id) else { return };
        let rests = !here && !queued && active.inputs.is_empty() && active.unperformed == 0 && active.run.wake_at().is_none();
        if !rests {
            if let Some((_, alarm)) = active.rests.take() {
                self.clear_alarm(Some(alarm));
            }
            return;
        }
        if active.run.header().state.ended() {
            self.drop_run(id);
            return;
        }
        if active.rests.is_some() {
            return;
        }
        let calls = self.runs.tasks.range((id, 0, 0)..=(id, u16::MAX, u32::MAX)).next().is_some();
        let after = self.wiring.settings.suspend_after.unwrap_or_else(|| crate::registry::ActorOptions::default().suspend_after);
        // Who comes back sends its open calls again, for nothing: a run that waits for answers stays longer.
        let after = if calls { after * CALLS_STAY } else { after };
        let alarm = self.set_alarm(now.after(after), Alarm::RunRests { run: id });
        if let Some(active) = self.runs.active.get_mut(&id) {
            active.rests = Some((now, alarm));
        }
    }

    /// A run has rested long enough: its rows bring it back.
    pub(crate) fn run_rests(&mut self, id: RunId) {
        if self.runs.active.get(&id).is_some_and(|active| active.rests.is_some()) && !self.runs.queued.contains(&id) {
            self.drop_run(id);
        }
    }

    pub(super) fn drop_run(&mut self, id: RunId) {
        let Some(active) = self.runs.active.remove(&id) else { return };
        if let Some((_, alarm)) = active.rests {
            self.clear_alarm(Some(alarm));
        }
        if let Some(wake) = active.wake {
            self.runs.wakes.remove(&(wake, id));
        }
        // Whoever reported an end that is not written yet is told that it counts for nothing.
        self.runs.told.retain(|(run, ..), _| *run != id);
        // The row stays in the store: who brings the run back must know it.
        if let Some(ready) = active.ready {
            self.runs.left_ready.insert(id, ready);
        }
        for task in self.limits.of_run(id, None) {
            self.limits.done(task);
        }
        let gone: Vec<_> = self.runs.tasks.range((id, 0, 0)..=(id, u16::MAX, u32::MAX)).map(|(task, _)| *task).collect();
        for task in gone {
            if let Some(task) = self.runs.tasks.remove(&task) {
                self.clear_alarm(task.alarm);
            }
        }
    }

    /// A run whose rows do not fit each other goes no further.
    pub(super) fn damage(&mut self, id: RunId, error: VerbError) {
        self.drop_run(id);
        for waiter in self.runs.waiters.remove(&id).unwrap_or_default() {
            let _ = waiter.send(Err(error.clone()));
        }
        self.runs.damaged.insert(id, error);
    }

    /// Notes a run that had work in flight when the last owner ended: it comes in when it is its turn, or with the first who
    /// asks for it.
    pub(crate) fn line_up_run(&mut self, id: RunId, number: u64) {
        match self.runs.to_recover.insert(id, number) {
            Some(older) => self.leave_ready(older),
            None => self.runs.in_line.push_back(id),
        }
    }

    /// Brings in some of those that wait in line since the opening: what others ask meanwhile comes between.
    pub(super) async fn recover_runs(&mut self) -> Result<(), VerbError> {
        let mut came = 0;
        while came < RECOVERED_PER_TURN
            && let Some(id) = self.runs.in_line.pop_front()
        {
            if let Some(number) = self.runs.to_recover.remove(&id) {
                came += 1;
                self.recover_run(id, number).await?;
            }
        }
        Ok(())
    }

    /// Activates a run that had work in flight when the last owner ended.
    async fn recover_run(&mut self, id: RunId, number: u64) -> Result<(), VerbError> {
        let found = match self.read_run(id).await {
            Ok(read) => Some(read),
            Err(error) if error.code == "unknown_run" => None,
            Err(error) if error.consequence == Consequence::Stop && error.code == "store_damaged" => {
                self.damage(id, error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.live_ready.insert(number);
        let Some(mut read) = found else {
            self.leave_ready(number);
            return Ok(());
        };
        read.ready = Some(number);
        // One that has ended and has a ready row has to tidy up, and its end is not in the ledger yet.
        read.ended = false;
        if read.run.header().blocked.is_some() {
            // What it lacked may be back with this binary.
            read.inputs.push_back(RunInput::Unblock);
        }
        self.settle_run(read).await?;
        if let Some(number) = self.runs.left_ready.remove(&id) {
            self.leave_ready(number);
        }
        Ok(())
    }

    fn leave_ready(&mut self, number: u64) {
        let mut writes = Writes::default();
        self.delete_ready(&mut writes, number);
        self.write(writes, Vec::new());
    }
}

fn hash(bytes: &[u8]) -> Hash32 {
    Hash32(*blake3::hash(bytes).as_bytes())
}
