//! One turn of a run: what has happened is applied, what follows is decided, and both are one commit.

use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{InvocationId, Key, RunId};
use selvedge_kernel::journal::Payload;
use selvedge_kernel::machine::RunState;
use selvedge_kernel::pipeline::run::{Ask, Effects, Room, RowRequest, RunInput, Supply, call_id};
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::record::run::Header;
use selvedge_kernel::record::shard::{LedgerState, Ready, Timer};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::{transition, wire};

use super::{Active, RunEffect, RunSummary};
use crate::happened::{Became, Happened};
use crate::shard::{Asker, Effect, Shard, VerbError};

/// What a run may put into one commit: beside it stand what closes the commit, its timer, its lines of ledger and list.
const ROOM: Room = Room { ops: 83, bytes: Room::WHOLE.bytes };
/// Bytes after which no further end joins a commit: one end may add a row of 64 KiB and its failed attempts.
const ENDS_BYTES: usize = 1280 * 1024;
/// How many ends, answers and timers of one run a turn of its shard takes: the other runs of the shard come in between.
const INPUTS_PER_TURN: usize = 64;
/// The list of runs.
pub(crate) const LIST: u8 = b'r';
/// The token of the timer that removes an ended run.
pub(super) const RETENTION: u64 = u64::MAX;

/// Numbers of run timers: apart from those that a shard counts.
pub(super) fn timer_number(run: RunId) -> u64 {
    number(&[&run.0.to_bytes(), b"timer"]) | 1 << 63
}

/// What has become of a run, in ids and names.
fn of_run(run: RunId, header: &Header, became: Became) -> Happened {
    Happened::Run { run, tenant: header.tenant.clone(), pipeline: header.pipeline.clone(), became }
}

fn number(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut word = [0u8; 8];
    word.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(word)
}

impl Shard {
    /// Performs what is durable, and moves runs on.
    pub(crate) async fn turn_runs(&mut self) {
        while let Some(effect) = self.runs.performing.pop_front() {
            if let Err(error) = self.perform_commands(effect).await {
                self.halt(error);
                return;
            }
        }
        if let Err(error) = self.recover_runs().await {
            self.halt(error);
            return;
        }
        let now = self.now();
        while let Some(&(at, id)) = self.runs.wakes.first()
            && at <= now
        {
            self.runs.wakes.pop_first();
            if let Some(active) = self.runs.active.get_mut(&id) {
                active.wake = None;
            }
            self.runs.enqueue(id);
        }
        for _ in 0..self.runs.runnable.len() {
            let Some(id) = self.runs.runnable.pop_front() else { break };
            self.runs.queued.remove(&id);
            let Some(active) = self.runs.active.remove(&id) else { continue };
            if let Err(error) = self.move_on(active, Effects::default()).await
                && error.code != "store_damaged"
            {
                self.halt(error);
                return;
            }
        }
        for (writes, effects) in std::mem::take(&mut self.runs.marks) {
            self.write(writes, effects);
        }
    }

    /// The store gives no answer: nothing moves any more in this process, and nothing asks for a turn.
    fn halt(&mut self, error: VerbError) {
        self.wiring.stop(error.message);
        self.runs.performing.clear();
        self.runs.runnable.clear();
        self.runs.marks.clear();
        self.runs.wakes.clear();
        self.runs.in_line.clear();
    }

    /// Moves a run on by a turn, and keeps it.
    pub(super) async fn move_on(&mut self, mut active: Active, first: Effects) -> Result<(), VerbError> {
        let id = active.run.id();
        let result = self.run_on(&mut active, first).await;
        self.keep_after(active, result.as_ref().is_ok_and(|more| *more));
        if let Err(error) = &result
            && error.code == "store_damaged"
        {
            self.damage(id, error.clone());
        }
        result.map(|_| ())
    }

    /// Moves a run on until nothing is left to do at once, and keeps it.
    pub(super) async fn settle_run(&mut self, mut active: Active) -> Result<(), VerbError> {
        let id = active.run.id();
        loop {
            match self.run_on(&mut active, Effects::default()).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.keep_after(active, false);
                    if error.code == "store_damaged" {
                        self.damage(id, error.clone());
                    }
                    return Err(error);
                }
            }
        }
        self.keep_after(active, false);
        Ok(())
    }

    fn keep_after(&mut self, mut active: Active, more: bool) {
        let id = active.run.id();
        let wake = active.run.wake_at();
        if wake != active.wake {
            if let Some(old) = active.wake.take() {
                self.runs.wakes.remove(&(old, id));
            }
            if let Some(at) = wake {
                self.runs.wakes.insert((at, id));
            }
            active.wake = wake;
        }
        if more {
            self.runs.enqueue(id);
        }
        self.keep(active);
    }

    /// Applies what is at hand, up to a turn's share, and decides what follows, in as many commits as that takes. Gives true if there
    /// is more to do at once.
    async fn run_on(&mut self, active: &mut Active, first: Effects) -> Result<bool, VerbError> {
        let mut effects = first;
        let mut taken = 0;
        let widest = active.run.most_ops_of_an_end() + 1;
        let mut written = Vec::new();
        loop {
            let now = self.now();
            while effects.ops() + widest <= ROOM.ops
                && effects.bytes() < ENDS_BYTES
                && taken < INPUTS_PER_TURN
                && let Some(input) = active.inputs.pop_front()
            {
                taken += 1;
                let ended = match &input {
                    RunInput::TaskEnded { stage, item, attempt, .. } => Some((*stage, *item, *attempt)),
                    _ => None,
                };
                // Ends, answers and timers: a run that has ended drops them, none is refused.
                let told = ended.and_then(|(stage, item, attempt)| self.runs.told.remove(&(active.run.id(), stage, item, attempt)));
                if let Ok(more) = active.run.apply(input, now) {
                    // What counts for nothing writes nothing.
                    written.extend(told.filter(|_| more.ops() > 0));
                    effects.append(more);
                }
            }
            let room = Room { ops: ROOM.ops.saturating_sub(effects.ops()), bytes: ROOM.bytes.saturating_sub(effects.bytes()) };
            effects.append(active.run.advance(now, room));
            let requests = std::mem::take(&mut effects.requests);
            let more = effects.more;
            if effects.ops() > 0 || !effects.commands.is_empty() || active.run.is_dirty() {
                self.commit_run(active, std::mem::take(&mut effects), more, now).await?;
            }
            for told in written.drain(..) {
                self.say_written(Some(told));
            }
            effects = Effects::default();
            if !requests.is_empty() {
                self.supply(active, requests).await?;
            } else if active.inputs.is_empty() {
                return Ok(more);
            } else if taken >= INPUTS_PER_TURN {
                return Ok(true);
            }
        }
    }

    async fn supply(&mut self, active: &mut Active, requests: Vec<RowRequest>) -> Result<(), VerbError> {
        let id = active.run.id();
        let mut requests: std::collections::VecDeque<RowRequest> = requests.into();
        while let Some(request) = requests.pop_front() {
            let supply = match request.ask {
                Ask::Scan { range, .. } if range.start >= range.end => Supply::Rows(Vec::new()),
                Ask::Scan { range, limit } => Supply::Rows(self.scan(range, limit).await?),
                Ask::Get(keys) => {
                    let mut rows = Vec::with_capacity(keys.len());
                    for key in keys {
                        if let Some(value) = self.get(key.clone()).await? {
                            rows.push((key, value));
                        }
                    }
                    Supply::Rows(rows)
                }
                Ask::Payload { seal, len } => Supply::Payload(self.payload(id.0, seal, &Payload::Chunked { len }).await?),
            };
            let more =
                active.run.supply(request.token, supply).map_err(|error| VerbError::new(Consequence::Stop, "store_damaged", format!("{id}: {error}")))?;
            requests.extend(more.requests);
        }
        Ok(())
    }

    /// Closes a commit of a run: its rows, its timer, and its lines in what the shard keeps.
    pub(super) async fn commit_run(&mut self, active: &mut Active, mut effects: Effects, more: bool, now: Millis) -> Result<(), VerbError> {
        let id = active.run.id();
        let large = effects.payloads.clone();
        for large in std::mem::take(&mut effects.payloads) {
            self.write_chunks(id.0, large.seal, &large.bytes);
        }
        let change = active.run.close(&mut effects, now);
        let mut writes = Writes { puts: effects.puts, deletes: effects.deletes, folds: Vec::new(), ..Writes::default() };
        self.keep_run(active, &mut writes).await?;
        if let Some(due) = change.cleared {
            let row = active.timer.take().unwrap_or((due, timer_number(id)));
            self.clear_timer(&mut writes, row);
        }
        if let Some(due) = change.set {
            let row = self.set_numbered_timer(&mut writes, due, timer_number(id), Timer::Run { run: id, token: due.0 });
            writes.deletes.retain(|gone| *gone != key::timer(row.0, row.1));
            active.timer = Some(row);
        }
        let header = active.run.header();
        let state = header.state;
        // A run may have to tidy up after its end, in commits of its own.
        let ended = state.ended() && !more;
        let in_flight = matches!(state, RunState::Pending | RunState::Running | RunState::Blocked) || state.ended() && more;
        match (in_flight, active.ready) {
            (true, None) => active.ready = Some(self.put_ready_row(&mut writes, Ready::Run(id))),
            (false, Some(number)) => {
                self.delete_ready(&mut writes, number);
                active.ready = None;
            }
            _ => {}
        }
        let keep = self.wiring.settings.keep;
        let retention = active.run.compiled().definition.retention.map_or(keep.finished, |span| span.0);
        let until = state.ended().then(|| Day::expiry(now, retention));
        let mut answers = Vec::new();
        if ended != active.ended {
            active.ended = ended;
            if ended {
                self.answer_parent(&active.run, &large, &mut writes, &mut answers).await?;
                self.give_place_back(&active.run, &mut writes, &mut answers).await?;
            }
            let became = match state {
                RunState::Completed => Became::Completed,
                RunState::Failed => Became::Failed { code: header.error.as_ref().map(|error| error.code.clone()).unwrap_or_default(), dead_letter: false },
                RunState::Cancelled => Became::Cancelled,
                _ => Became::Started,
            };
            self.tell_of(&mut answers, became, true, |became| of_run(id, header, became));
            let line = match state {
                RunState::Completed => LedgerState::Completed,
                RunState::Failed => LedgerState::Failed,
                RunState::Cancelled => LedgerState::Cancelled,
                _ => LedgerState::Accepted,
            };
            let (chain, commits) = active.run.chain();
            let last = (chain, u32::try_from(commits).unwrap_or(u32::MAX));
            transition::write_ledger(&mut self.head, &mut writes, id.0, true, line, last, &keep);
            if ended {
                self.set_numbered_timer(&mut writes, now.after(retention), timer_number(id) ^ 1, Timer::Run { run: id, token: RETENTION });
            }
        }
        if active.indexed != Some(state) {
            active.indexed = Some(state);
            if state == RunState::Blocked {
                self.tell_of(&mut answers, Became::Blocked { reason: "no_executor" }, true, |became| of_run(id, header, became));
            }
            let line = RunSummary { id, pipeline: header.pipeline.clone(), state, started_at: header.started_at, ended_at: header.ended_at };
            let row = key::index(&header.tenant, LIST, Millis(u64::MAX - header.started_at.0), id.0);
            writes.puts.push(selvedge_kernel::ports::Put { key: row, value: wire::encode(&line), expires: until });
        }
        let rounds = header.stages.iter().map(|stage| stage.round).collect();
        self.plan_cancels(active, &effects.commands, &mut writes, now);
        active.unperformed += 1;
        answers.push(Effect::Run(RunEffect { run: id, commands: effects.commands, rounds }));
        self.write(writes, answers);
        Ok(())
    }

    /// A timer of a run has fired.
    pub(crate) async fn run_timer(&mut self, id: RunId, token: u64, row: Key) {
        let result = if token == RETENTION { self.remove_run(id, row).await } else { self.timer_fired(id, token, row).await };
        if let Err(error) = result
            && error.code != "store_damaged"
        {
            self.wiring.stop(error.message);
        }
    }

    async fn timer_fired(&mut self, id: RunId, token: u64, row: Key) -> Result<(), VerbError> {
        match self.activate_run(id).await {
            Ok(()) => {}
            Err(error) if error.code == "unknown_run" => {}
            Err(error) => return Err(error),
        }
        match self.runs.active.get_mut(&id) {
            Some(active) if active.run.header().timer == Some(Millis(token)) => {
                active.timer = key::numbers::<2>(&row).map(|[at, number]| (Millis(at), number));
                self.runs.tell(id, RunInput::TimerFired);
            }
            _ => {
                let mut writes = Writes::default();
                writes.delete(row);
                self.write(writes, Vec::new());
            }
        }
        Ok(())
    }

    /// Takes the answer to a call of a task. Its mark is raised once the end of the task is written.
    pub(crate) async fn keep_task_reply(
        &mut self,
        (id, stage, item, attempt): (RunId, u16, u32, u32),
        from: InvocationId,
        outcome: Outcome,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        match self.activate_run(id).await {
            Ok(()) => {}
            Err(error) if matches!(error.code.as_str(), "unknown_run" | "store_damaged") => return Ok(()),
            Err(error) => return Err(error),
        }
        let Some(active) = self.runs.active.get(&id) else { return Ok(()) };
        let Some(round) = active.run.header().stages.get(usize::from(stage)).map(|stage| stage.round) else { return Ok(()) };
        // An answer to a call of an earlier round of the run is not for this one.
        let nobody = selvedge_kernel::id::ActorId { tenant: String::new(), kind: String::new(), key: String::new() };
        if call_id(id, (stage, item, attempt), round, &nobody).0.uuid != from.0.uuid {
            return Ok(());
        }
        let result = match outcome {
            Outcome::Value(value) => Ok(value),
            Outcome::Error(error) => Err(selvedge_kernel::error::AttemptError { error, retryable: true, retry_after_ms: None }),
        };
        if !self.forget_task((id, stage, item), attempt, &result) && self.limits.has_asked(Asker::Task(id, stage, item)) {
            // The answer to a call of the process before: the one that it waits to make is not needed.
            self.limits.done(Asker::Task(id, stage, item));
        }
        self.runs.tell(id, RunInput::Answered { stage, item, attempt, result });
        self.runs.marks.push((std::mem::take(writes), std::mem::take(effects)));
        Ok(())
    }

    /// Whether answers were given to runs whose marks are not raised yet.
    pub(crate) fn owes_marks(&self) -> bool {
        !self.runs.marks.is_empty()
    }
}
