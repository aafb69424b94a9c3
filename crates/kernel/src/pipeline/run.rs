//! A run as a state machine: state + event + time → rows to write and commands to perform.
//!
//! One commit: [`Run::apply`] for each thing that happened, while [`Run::most_ops_of_an_end`] more operations fit;
//! [`Run::advance`] once, with the room that is left; [`Run::close`]. [`Effects::append`] joins what they give. Chunks of
//! [`Effects::payloads`] are written before. When it is durable: perform the commands in order, answer the requests by
//! [`Run::supply`] from a store that shows this commit, advance again (also while [`Effects::more`]). The run reads and
//! awaits nothing itself.
//!
//! A run has one timer row at most ([`TimerChange`]); when it fires, [`RunInput::TimerFired`]. [`Run::wake_at`] is a wish
//! in memory. After a restart every run that is pending, running or blocked is loaded and advanced; one that is waiting
//! or paused is loaded when its timer fires or something comes for it.
//!
//! A run that was dropped at any commit and loaded from its rows goes on with the same outputs, and no task that has
//! ended is dispatched again.

mod begin;
mod borrow;
mod calls;
mod close;
mod compensate;
mod control;
mod dispatch;
mod effects;
mod end;
mod fork;
mod gather;
mod line;
mod memory;
mod outputs;
mod quorum;
mod read;
mod reduce;
mod retry;
mod status;
mod tasks;
#[cfg(test)]
mod tests;
mod verify;
mod wait;

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use calls::{call_id, child_id};
pub use effects::{
    Again, Answer, ApprovalChange, Ask, Command, Decider, Dispatch, Effects, LargePayload, Retry, Room, RowRequest, RunDamaged, RunInput, RunRefused, Supply,
    TimerChange, Work,
};
pub use fork::Taken;
pub use status::{Decision, RunStatus, StageStatus, Undoes, task_name};
pub use tasks::{TaskPlace, TaskStatus};
pub use verify::{ChainDamage, ChainVerifier};

use super::compiled::Compiled;
use super::definition::Stage;
use super::expression::Doc;
use super::plan;
use crate::auth::AuthorizationContext;
use crate::error::WorkError;
use crate::id::{Key, RunId};
use crate::journal::{Hash32, SealKey, chain_start, seal};
use crate::limit::{INLINE_BYTES, Limits};
use crate::machine::{RUN, RunEvent, RunState, STAGE, StageEvent, StageState};
use crate::record::run::{Annex, Happening, Header, Parent, Phase, Pinned, RunRow, StageHeader, Stored, annex_key, definition_key, run_key, seal_key_key};
use crate::time::Millis;
use memory::{StageDoc, StageMemory};
use read::Readings;

/// How a run starts.
#[derive(Clone)]
pub struct Start {
    /// Its id.
    pub id: RunId,
    /// Its tenant.
    pub tenant: String,
    /// What it runs.
    pub compiled: Arc<Compiled>,
    /// Its input, checked and with defaults filled in.
    pub input: Bytes,
    /// Who starts it.
    pub context: AuthorizationContext,
    /// 32 random bytes.
    pub seal_key: SealKey,
    /// The limits in force.
    pub limits: Limits,
    /// The run whose task it is.
    pub parent: Option<Parent>,
    /// When that task must have ended.
    pub deadline: Option<Millis>,
    /// The trace that it belongs to, as W3C writes it.
    pub trace: Option<String>,
}

/// The rows that a run is loaded from.
#[derive(Clone)]
pub struct Loaded {
    /// Its id.
    pub id: RunId,
    /// The row of kind `Run`.
    pub row: RunRow,
    /// The row of kind `RunDefinition`.
    pub pinned: Pinned,
    /// That definition, compiled.
    pub compiled: Arc<Compiled>,
    /// The row of kind `SealKey`.
    pub seal_key: SealKey,
    /// The row of kind `RunAnnex`, if there is one.
    pub annex: Annex,
    /// The limits in force.
    pub limits: Limits,
}

/// One run.
pub struct Run {
    id: RunId,
    compiled: Arc<Compiled>,
    context: AuthorizationContext,
    limits: Limits,
    seal_key: SealKey,
    header: Header,
    head: Hash32,
    annex: Annex,
    annex_changed: bool,
    input: Stored,
    input_doc: Option<Doc>,
    run_doc: Doc,
    stages: Vec<StageMemory>,
    readings: Readings,
    docs: BTreeMap<u16, StageDoc>,
    /// What gathers with a call and without groups run on.
    gathered: BTreeMap<u16, Doc>,
    /// Index rows of gathers: group, place, item; in the order of groups.
    index: BTreeMap<u16, Vec<(String, u16, u32)>>,
    /// The bytes of what it was given.
    given: u64,
    /// Payloads of kept signals that came in this process.
    signals: BTreeMap<u64, Bytes>,
    happened: Vec<Happening>,
    touched: BTreeSet<u16>,
    dirty: bool,
    wake: Option<Millis>,
    turn: usize,
    /// Of the last permit that was asked for.
    asked: u64,
    /// Whether its line was asked in this process.
    asked_line: bool,
    /// Whom it waits for in line, as its line said last.
    line_holder: Option<RunId>,
}

/// Effects under way, and what they may still hold.
pub(super) struct Out {
    pub effects: Effects,
    room: Room,
}

impl Out {
    /// Whether one more row of this size fits.
    pub fn fits(&self, bytes: usize) -> bool {
        self.effects.ops() < self.room.ops && self.effects.bytes() + bytes <= self.room.bytes
    }

    /// Whether so many more operations fit.
    pub fn has_ops(&self, ops: usize) -> bool {
        self.effects.ops() + ops <= self.room.ops
    }

    pub fn full(&self) -> bool {
        self.effects.ops() >= self.room.ops || self.effects.bytes() >= self.room.bytes
    }
}

impl Run {
    /// A run that was accepted now. Its first commit holds these effects, those of the first [`Run::advance`] that fit
    /// beside them, and what [`Run::close`] gives.
    #[must_use]
    pub fn start(start: Start, now: Millis) -> (Run, Effects) {
        let Start { id, tenant, compiled, input, context, seal_key, limits, parent, deadline, trace } = start;
        let mut effects = Effects::default();
        let input_seal = seal(&seal_key, &input);
        let stored = if input.len() > INLINE_BYTES {
            effects.payloads.push(LargePayload { seal: input_seal, bytes: input.clone() });
            Stored::Chunked { seal: input_seal, len: input.len() as u64 }
        } else {
            Stored::Inline(input)
        };
        let pinned = Pinned { definition: compiled.bytes.clone(), version: compiled.version.clone(), context, input: stored };
        effects.put(definition_key(id), crate::wire::encode(&pinned));
        effects.put(seal_key_key(id), crate::wire::encode(&seal_key));
        let header = Header {
            tenant,
            pipeline: compiled.definition.name.clone(),
            started_at: now,
            state: RUN.start,
            deadline: compiled.definition.timeout.map(|span| now.after(span.0)).into_iter().chain(deadline).min(),
            paused: None,
            blocked: None,
            stages: vec![StageHeader::default(); compiled.stages.len()],
            signals: BTreeMap::new(),
            signals_seen: 0,
            commits: 0,
            timer: None,
            output: None,
            error: None,
            ended_at: None,
        };
        let row = RunRow { header, head: chain_start(id.0, input_seal) };
        let annex = Annex { parent, trace, ..Annex::default() };
        let annex_changed = annex != Annex::default();
        let mut run = Run::load(Loaded { id, row, pinned, compiled, seal_key, annex, limits });
        run.annex_changed = annex_changed;
        if let Some(large) = effects.payloads.first() {
            run.input_doc = Doc::parse(&large.bytes).ok();
        }
        run.happened.push(Happening::Run { state: RunState::Pending, reason: None });
        run.dirty = true;
        (run, effects)
    }

    /// The rows that [`Run::from_rows`] takes, in its order.
    #[must_use]
    pub fn keys(id: RunId) -> [Key; 4] {
        [run_key(id), definition_key(id), seal_key_key(id), annex_key(id)]
    }

    /// Decodes the rows under [`Run::keys`], of which the last may be missing, compiles the pinned definition, and loads the run. `known` is a compiled
    /// definition at hand: it is taken if it is the one that the run is pinned to.
    pub fn from_rows(id: RunId, rows: [&[u8]; 3], annex: Option<&[u8]>, known: Option<&Arc<Compiled>>, limits: Limits) -> Result<Run, RunDamaged> {
        let row: RunRow = crate::wire::decode("run", rows[0])?;
        let pinned: Pinned = crate::wire::decode("pinned definition", rows[1])?;
        let seal_key: SealKey = crate::wire::decode("seal key", rows[2])?;
        let annex = annex.map_or(Ok(Annex::default()), Annex::decode)?;
        let compiled = match known {
            Some(known) if known.bytes == pinned.definition => known.clone(),
            _ => Arc::new(Compiled::from_bytes(&pinned.definition, pinned.version.clone())?),
        };
        if compiled.stages.len() != row.header.stages.len() {
            return Err(RunDamaged::Missing { what: "a stage of the pinned definition".to_owned() });
        }
        Ok(Run::load(Loaded { id, row, pinned, compiled, seal_key, annex, limits }))
    }

    /// A run as its rows say. What else it needs it asks for at its first [`Run::advance`].
    #[must_use]
    pub fn load(loaded: Loaded) -> Run {
        let Loaded { id, row, pinned, compiled, seal_key, annex, limits } = loaded;
        let RunRow { header, head } = row;
        let input_doc = match &pinned.input {
            Stored::Inline(bytes) => Doc::parse(bytes).ok(),
            Stored::Chunked { .. } => None,
        };
        let facts =
            [("id", id.to_string()), ("pipeline", header.pipeline.clone()), ("version", pinned.version.clone()), ("started_at", header.started_at.to_string())];
        let given = crate::record::kept::of_pinned(&pinned);
        let run_doc = Doc::object(facts.iter().map(|(name, value)| (Arc::from(*name), Doc::string(value))).collect());
        let definitions = compiled.plan.iter();
        let stages = definitions.zip(&header.stages).map(|(stage, at)| StageMemory::new(stage.throttle.as_ref(), at)).collect();
        Run {
            id,
            given,
            compiled,
            context: pinned.context,
            limits,
            seal_key,
            header,
            head,
            annex,
            annex_changed: false,
            input: pinned.input,
            input_doc,
            run_doc,
            stages,
            readings: Readings::default(),
            docs: BTreeMap::new(),
            gathered: BTreeMap::new(),
            index: BTreeMap::new(),
            signals: BTreeMap::new(),
            happened: Vec::new(),
            touched: BTreeSet::new(),
            dirty: false,
            wake: None,
            turn: 0,
            asked: 0,
            asked_line: false,
            line_holder: None,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    /// What it runs.
    #[must_use]
    pub fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// Who started it; its tasks act as this principal.
    #[must_use]
    pub fn context(&self) -> &AuthorizationContext {
        &self.context
    }

    /// The bytes of what it was given and has given, as its header says after the last [`Run::close`].
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.given + self.header.kept()
    }

    /// Where it is, as it will be written.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The run whose task it is.
    #[must_use]
    pub fn parent(&self) -> Option<Parent> {
        self.annex.parent
    }

    /// The trace that it belongs to: so do its tasks, and whom they call.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.annex.trace.as_deref()
    }

    /// The chain value after the last [`Run::close`], and how many commits there were.
    #[must_use]
    pub fn chain(&self) -> (Hash32, u64) {
        (self.head, self.header.commits)
    }

    /// Whether something changed since the last [`Run::close`]: if not, there is nothing to commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// When [`Run::advance`] can do more although nothing happens: a throttle lets a task start. Not durable: after a
    /// restart the run is advanced anyway.
    #[must_use]
    pub fn wake_at(&self) -> Option<Millis> {
        self.wake
    }

    /// Tasks between low mark and cursor, of all stages: what the run keeps in memory.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.stages.iter().map(|memory| memory.slots.len()).sum()
    }

    /// The most operations that one [`RunInput::TaskEnded`] adds to a commit: its row, and one for each gather over its stage.
    #[must_use]
    pub fn most_ops_of_an_end(&self) -> usize {
        1 + self.compiled.stages.iter().map(|stage| stage.feeds.len()).max().unwrap_or(0)
    }

    /// Moves on as far as it goes inside `room`. `Effects::more` says that the room, or 64 starts, was the bound:
    /// call it again for the next commit.
    #[must_use]
    pub fn advance(&mut self, now: Millis, room: Room) -> Effects {
        let mut out = Out { effects: Effects::default(), room };
        self.wake = None;
        if !self.header.state.ended() {
            self.turn_once(now, &mut out);
            self.rest_or_wake();
            // Rows that were read may have shown that another time is due next.
            self.dirty |= self.due() != self.header.timer;
        }
        if self.header.state.ended() {
            out.effects.more = false;
        }
        self.unlist(&mut out);
        out.effects.requests = self.readings.asked();
        out.effects
    }

    fn turn_once(&mut self, now: Millis, out: &mut Out) {
        if self.header.deadline.is_some_and(|deadline| deadline <= now) {
            let whose = if self.annex.parent.is_some() { "`timeout`, or that of the stage that called it" } else { "`timeout`" };
            let error = WorkError::new("deadline", format!("the time of the whole run ({whose}) is up"));
            self.fail_run(error, now, out);
            return;
        }
        if self.input_doc.is_none() {
            self.read_input();
            return;
        }
        if !self.may_go(now, out) {
            return;
        }
        if self.header.state == RunState::Pending {
            self.run_event(RunEvent::Start, None);
        }
        let mut stage_changed = false;
        loop {
            let mut changed = self.undo_next(now, out);
            if self.header.state.ended() {
                return;
            }
            for stage in 0..self.stages.len() {
                changed |= self.step(stage, now, out);
                if self.header.state.ended() {
                    return;
                }
                if out.full() {
                    out.effects.more = true;
                    return;
                }
            }
            stage_changed |= changed;
            if !changed {
                break;
            }
        }
        self.dispatch_all(now, out);
        // What ended without an attempt has no end that would come back and move its stage on.
        out.effects.more |= self.header.stages.iter().any(|at| at.state == StageState::Running && at.phase == Phase::Tasks && at.low == at.total);
        if !self.header.state.ended() && !self.held() && self.annex.ending.is_none() && self.all_ended() {
            self.complete_run(now, out);
        }
        if stage_changed {
            self.evict();
        }
    }

    /// One step of one stage; whether its state or phase changed.
    fn step(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        let at = &self.header.stages[stage];
        let held = self.held();
        if self.lets_end(stage) {
            return self.let_end(stage, now, out);
        }
        match (at.state, at.phase) {
            (StageState::Pending, _) => {
                let ready = !held && self.is_ready(stage);
                if ready {
                    self.name_winners(stage);
                    self.stage_event(stage, StageEvent::Ready, None);
                }
                ready
            }
            (StageState::Ready, _) if !held => self.decide(stage, now, out),
            (StageState::Running, Phase::Begin) if !held => self.begin(stage, now, out),
            (StageState::Running, Phase::Items) => self.expand(stage, now, out),
            (StageState::Running, Phase::Wait) => self.wait(stage, now, out),
            (StageState::Running, Phase::Tasks) => {
                self.due_again(stage, now);
                let at = &self.header.stages[stage];
                if at.low < at.total {
                    return false;
                }
                self.complete_stage(stage);
                true
            }
            (StageState::Running, Phase::Fallback) => {
                self.due_again(stage, now);
                let done = self.stages[stage].fallback.as_ref().is_some_and(memory::Slot::ended);
                if done {
                    self.complete_stage(stage);
                }
                done
            }
            _ => false,
        }
    }

    /// Whether what a stage waits for has ended, and lets it on.
    fn is_ready(&self, stage: usize) -> bool {
        self.may_begin(stage) && plan::ready(&self.compiled, stage, |other| self.header.stages[other].state, |other| self.gave(other))
    }

    /// Whether every stage of the definition has ended. One that is not needed any more was cancelled, or has failed unread.
    fn all_ended(&self) -> bool {
        let stages = &self.header.stages[..self.compiled.definition.stages.len()];
        stages.iter().all(|stage| stage.state.ended())
    }

    /// Whether nothing new may start.
    fn held(&self) -> bool {
        matches!(self.header.state, RunState::Paused | RunState::Blocked)
    }

    fn definition(&self, stage: usize) -> &Stage {
        &self.compiled.plan[stage]
    }

    fn run_event(&mut self, event: RunEvent, reason: Option<String>) {
        // Every caller has looked at the state, or refuses the event; a pair that is not in the table changes nothing.
        if let Ok(state) = RUN.next(self.header.state, event) {
            self.header.state = state;
            self.happened.push(Happening::Run { state, reason });
            self.dirty = true;
        }
    }

    fn stage_event(&mut self, stage: usize, event: StageEvent, reason: Option<String>) {
        if let Ok(state) = STAGE.next(self.header.stages[stage].state, event) {
            self.header.stages[stage].state = state;
            let name = self.definition(stage).name.clone();
            self.happened.push(Happening::Stage { stage: name, state, reason });
            self.touched.insert(stage as u16);
            self.dirty = true;
        }
    }
}
