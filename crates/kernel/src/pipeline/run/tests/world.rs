//! A small engine for tests: rows in a map, time by hand, tasks that end in any order, kills at any commit.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::auth;
use crate::error::{AttemptError, WorkError};
use crate::id::{ActorId, Key, RunId};
use crate::journal::{Hash32, SealKey, seal};
use crate::limit::{COMMIT_BYTES, COMMIT_OPS, Limits};
use crate::machine::RunState;
use crate::pipeline::compiled::Compiled;
use crate::pipeline::definition::{Activity, Call, Definition, Executor, Mode, OnFailure, Stage};
use crate::pipeline::parse::version;
use crate::pipeline::run::{ApprovalChange, Ask, ChainVerifier, Command, Dispatch, Effects, Room, Run, RunInput, RunRefused, Start, Supply, Work};
use crate::policy::{Retry, Span, Timeout};
use crate::ports::after_prefix;
use crate::record::kind::Kind;
use crate::record::line::Entering;
use crate::record::run::{ChainRow, Event, RunRow, Stored, TaskEnd, TaskRow, prefix, run_key, task_key};
use crate::time::Millis;
use crate::wire;

pub fn stage(name: &str, mode: Mode) -> Stage {
    Stage {
        name: name.to_owned(),
        call: match &mode {
            Mode::Single | Mode::Scatter { .. } => Some(Call::Activity("work".to_owned())),
            _ => None,
        },
        mode,
        depends_on: Vec::new(),
        when: None,
        input: Value::Null,
        output: Value::Null,
        retry: None,
        timeout: None,
        throttle: None,
        breaker: None,
        compensate: None,
        on_failure: OnFailure::Fail,
    }
}

pub fn scatter(name: &str, over: &str) -> Stage {
    stage(name, Mode::Scatter { over: over.to_owned(), item_as: None, keep: None })
}

/// Stages without `depends_on` depend on the one above, as in a file.
pub fn pipeline(mut stages: Vec<Stage>) -> Definition {
    for index in 1..stages.len() {
        if stages[index].depends_on.is_empty() {
            stages[index].depends_on = vec![stages[index - 1].name.clone()];
        }
    }
    graph(stages)
}

/// Stages without `depends_on` depend on none.
pub fn graph(stages: Vec<Stage>) -> Definition {
    let retry = Retry::fixed(3, Duration::from_secs(1));
    let activity = Activity { executor: Executor::Native, retry, timeout: Timeout::default(), throttle: None, breaker: None };
    Definition {
        version: None,
        name: "test".to_owned(),
        description: String::new(),
        input: Map::new(),
        output: Value::Null,
        activities: BTreeMap::from([("work".to_owned(), activity)]),
        timeout: None,
        concurrency: None,
        retention: None,
        attributes: BTreeMap::new(),
        schedule: None,
        stages,
        egress: Vec::new(),
    }
}

pub fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}

pub fn permanent(code: &str) -> AttemptError {
    AttemptError { error: WorkError::new(code, "it cannot be"), retryable: false, retry_after_ms: None }
}

pub fn passing(code: &str) -> AttemptError {
    AttemptError { error: WorkError::new(code, "not now"), retryable: true, retry_after_ms: None }
}

pub fn json_bytes(value: &Value) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap())
}

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub struct World {
    pub run: Run,
    pub now: Millis,
    pub rows: BTreeMap<Key, Bytes>,
    pub chunks: BTreeMap<[u8; 32], Bytes>,
    pub running: Vec<Dispatch>,
    /// Every attempt that was ever started.
    pub started: Vec<Dispatch>,
    pub approvals: Vec<ApprovalChange>,
    /// What was asked of shared limits, and given back.
    pub borrows: Vec<Command>,
    /// Calls whose end was asked for although this process had not made them.
    /// Places in line that were asked for.
    pub entering: Vec<Entering>,
    /// The keys of the lines that were left at the last of these.
    pub left: Vec<String>,
    pub cancelled: Vec<(u16, u32, u32, Work)>,
    pub told_to_end: Vec<Dispatch>,
    /// The run's timer row.
    pub timer: Option<Millis>,
    /// What of it is in memory: gone when it fired, until it is set again or the row is read after a kill.
    pub armed: Option<Millis>,
    pub commits: u64,
    pub kills: u64,
    /// Kills one commit in so many; 0 for none.
    pub kill_one_in: u64,
    pub dice: Dice,
    pub limits: Limits,
    pub most_slots: usize,
    pub written_bytes: u64,
    id: RunId,
    input_seal: Hash32,
    seal_key: SealKey,
    compiled: Arc<Compiled>,
}

impl World {
    pub fn new(definition: Definition, input: Value) -> World {
        World::with_limits(definition, input, Limits::default())
    }

    pub fn with_limits(definition: Definition, input: Value, limits: Limits) -> World {
        let version = version(&definition);
        let compiled = Arc::new(Compiled::new(definition, version).unwrap());
        let id = RunId::of("default", [9; 16]);
        let seal_key = SealKey([5; 32]);
        let input = json_bytes(&input);
        let input_seal = seal(&seal_key, &input);
        let now = Millis(1_800_000_000_000);
        let context = auth::local("default", now);
        let start =
            Start { id, tenant: "default".to_owned(), compiled: compiled.clone(), input, context, seal_key, limits, parent: None, deadline: None, trace: None };
        let (run, effects) = Run::start(start, now);
        let mut world = World {
            run,
            now,
            rows: BTreeMap::new(),
            chunks: BTreeMap::new(),
            running: Vec::new(),
            started: Vec::new(),
            approvals: Vec::new(),
            borrows: Vec::new(),
            entering: Vec::new(),
            left: Vec::new(),
            cancelled: Vec::new(),
            told_to_end: Vec::new(),
            timer: None,
            armed: None,
            commits: 0,
            kills: 0,
            kill_one_in: 0,
            dice: Dice(0x9e37_79b9_7f4a_7c15),
            limits,
            most_slots: 0,
            written_bytes: 0,
            id,
            input_seal,
            seal_key,
            compiled,
        };
        world.commit(effects);
        world
    }

    pub fn state(&self) -> RunState {
        self.run.header().state
    }

    pub fn index(&self, stage: &str) -> usize {
        self.compiled.plan.iter().position(|other| other.name == stage).unwrap()
    }

    /// Drops the run and loads it from its rows.
    pub fn kill(&mut self) {
        self.kills += 1;
        self.running.clear();
        let rows = Run::keys(self.id).map(|key| self.rows.get(&key).cloned());
        let [row, definition, seal_key] = [0, 1, 2].map(|at: usize| rows[at].clone().unwrap());
        self.run = Run::from_rows(self.id, [&row, &definition, &seal_key], rows[3].as_deref(), None, self.limits).unwrap();
        assert_eq!(self.run.compiled().version, self.compiled.version);
        assert_eq!(self.timer, self.run.header().timer);
        self.armed = self.timer;
    }

    /// Commits, then performs; dies at one of the three moments where that can be seen.
    pub fn commit(&mut self, mut effects: Effects) {
        let dies = if self.kill_one_in > 0 && self.commits > 0 && self.dice.roll(self.kill_one_in) == 0 { self.dice.roll(3) } else { 9 };
        if effects.ops() == 0 && effects.commands.is_empty() && !self.run.is_dirty() {
            self.perform(effects);
            return;
        }
        if dies == 0 {
            self.kill();
            return;
        }
        let timer = self.run.close(&mut effects, self.now);
        let (puts, deletes) = (&effects.puts, &effects.deletes);
        let ops = effects.ops() + usize::from(timer.set.is_some()) + usize::from(timer.cleared.is_some());
        let bytes: usize = puts.iter().map(|put| put.key.len() + put.value.len()).sum();
        assert!(ops <= COMMIT_OPS && bytes <= COMMIT_BYTES, "a commit of {ops} operations and {bytes} bytes");
        let keys: BTreeSet<&Key> = puts.iter().map(|put| &put.key).chain(deletes).collect();
        assert_eq!(keys.len(), puts.len() + deletes.len(), "a key stands in a commit once");
        for large in &effects.payloads {
            assert_eq!(seal(&self.seal_key, &large.bytes), large.seal);
            self.chunks.insert(large.seal.0, large.bytes.clone());
        }
        self.written_bytes += bytes as u64;
        for put in puts {
            self.rows.insert(put.key.clone(), put.value.clone());
        }
        for key in deletes {
            self.rows.remove(key);
        }
        if timer.cleared.is_some() || timer.set.is_some() {
            assert_eq!(self.timer, timer.cleared);
            self.timer = timer.set;
            self.armed = timer.set;
        }
        self.approvals.extend(effects.approvals.iter().cloned());
        self.commits += 1;
        if dies == 1 {
            self.kill();
            return;
        }
        self.perform(effects);
        if dies == 2 {
            self.kill();
        }
    }

    fn perform(&mut self, effects: Effects) {
        for command in effects.commands {
            match command {
                Command::Dispatch(dispatch) => {
                    self.check_start(&dispatch);
                    self.started.push(dispatch.clone());
                    self.running.push(dispatch);
                }
                Command::Borrow { .. } | Command::AskBreaker { .. } | Command::GiveBack { .. } => self.borrows.push(command),
                Command::AbortStage { stage } => self.running.retain(|dispatch| dispatch.stage != stage),
                Command::EndCalls { stage } => self.told_to_end.extend(self.running.iter().filter(|dispatch| dispatch.stage == stage).cloned()),
                Command::EnterLine { entering, left, .. } => {
                    self.left = left.into_iter().map(|left| left.line.key).collect();
                    self.entering.push(entering);
                }
                Command::CancelCalls { stage, calls } => self.cancelled.extend(calls.into_iter().map(|(item, attempt, work)| (stage, item, attempt, work))),
                Command::RunEnded { state, output, error } => {
                    assert!(state.ended());
                    assert_eq!(output.is_some(), state == RunState::Completed);
                    assert!(error.is_some() == (state == RunState::Failed) || state == RunState::Cancelled);
                    self.running.retain(|dispatch| self.compiled.plan[usize::from(dispatch.stage)].takes_first());
                }
            }
        }
        let mut requests: Vec<_> = effects.requests;
        while let Some(request) = requests.pop() {
            let supply = self.answer(&request.ask);
            let more = self.run.supply(request.token, supply).unwrap();
            requests.extend(more.requests);
        }
    }

    /// No task starts that has ended, none before its stage's dependencies, none twice at once.
    fn check_start(&self, dispatch: &Dispatch) {
        let header = self.run.header();
        let stage = usize::from(dispatch.stage);
        if let Some(row) = self.task(stage, dispatch.item).filter(|row| self.run.counts(stage, row)) {
            let reduces = matches!(self.compiled.plan[stage].mode, Mode::MapReduce { .. }) && row.round != header.stages[stage].round;
            let ended = match row.end {
                // What was reduced before a retry of the run may have been reduced from less.
                TaskEnd::Completed { .. } => !reduces,
                TaskEnd::Failed { .. } => row.round == header.stages[stage].round,
                TaskEnd::Again { at } => {
                    assert!(row.round != header.stages[stage].round || at <= self.now, "started before its delay");
                    false
                }
            };
            assert!(!ended, "stage {stage}, item {} has ended and is started again", dispatch.item);
        }
        for other in &self.compiled.stages[stage].depends_on {
            assert!(header.stages[usize::from(*other)].state.lets_on(), "stage {stage} starts before stage {other} has ended");
        }
        assert!(!self.running.iter().any(|other| other.stage == dispatch.stage && other.item == dispatch.item));
        if let Some(most) = self.compiled.plan[stage].throttle.as_ref().filter(|throttle| throttle.key.is_none()).and_then(|throttle| throttle.concurrency) {
            let running = self.running.iter().filter(|other| other.stage == dispatch.stage).count();
            assert!(running < most as usize, "{running} already run");
        }
        assert!((self.running.len() as u64) < self.limits.run_tasks);
    }

    fn answer(&self, ask: &Ask) -> Supply {
        match ask {
            Ask::Scan { range, limit } => {
                assert!(*limit <= crate::limit::PAGE);
                if range.start >= range.end {
                    return Supply::Rows(Vec::new());
                }
                let rows = self.rows.range(range.clone()).take(*limit);
                Supply::Rows(rows.map(|(key, value)| (key.clone(), value.clone())).collect())
            }
            Ask::Get(keys) => {
                let found = keys.iter().filter_map(|key| self.rows.get(key).map(|value| (key.clone(), value.clone())));
                Supply::Rows(found.collect())
            }
            Ask::Payload { seal, len } => {
                let bytes = self.chunks[&seal.0].clone();
                assert_eq!(bytes.len() as u64, *len);
                Supply::Payload(bytes)
            }
        }
    }

    /// Goes as far as it can without anything happening.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            let effects = self.run.advance(self.now, Room::WHOLE);
            // As the engine: what it is not told of it does not do.
            let quiet = !effects.more && effects.requests.is_empty();
            let kills = self.kills;
            self.commit(effects);
            self.most_slots = self.most_slots.max(self.run.open_tasks());
            if quiet && kills == self.kills {
                return;
            }
        }
        panic!("the run does not come to rest");
    }

    /// As the engine does it: what follows joins the commit as far as it fits.
    fn advance_into(&mut self, effects: &mut Effects) {
        let room = Room { ops: Room::WHOLE.ops.saturating_sub(effects.ops()), bytes: Room::WHOLE.bytes.saturating_sub(effects.bytes()) };
        effects.append(self.run.advance(self.now, room));
    }

    /// Applies one input, in a commit together with what follows from it.
    pub fn tell(&mut self, input: RunInput) -> Result<(), RunRefused> {
        let mut effects = self.run.apply(input, self.now)?;
        self.advance_into(&mut effects);
        self.commit(effects);
        self.settle();
        Ok(())
    }

    pub fn end(&mut self, dispatch: &Dispatch, result: Result<Bytes, AttemptError>) {
        self.running.retain(|other| !(other.stage == dispatch.stage && other.item == dispatch.item));
        let ended = RunInput::TaskEnded { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, result };
        self.tell(ended).unwrap();
    }

    /// To the next time at which something is due; false if there is none.
    pub fn pass(&mut self) -> bool {
        let Some(next) = self.armed.into_iter().chain(self.run.wake_at()).min() else { return false };
        self.now = Millis(self.now.0.max(next.0));
        self.fire();
        true
    }

    fn fire(&mut self) {
        if self.armed.is_some_and(|at| at <= self.now) {
            self.armed = None;
            self.tell(RunInput::TimerFired).unwrap();
        } else {
            self.settle();
        }
    }

    pub fn later(&mut self, span: u64) {
        self.now = Millis(self.now.0 + span);
        self.fire();
    }

    /// Runs to the end, tasks ending in random order, several of them in one commit, some of them twice.
    pub fn finish(&mut self, work: &mut dyn FnMut(&Dispatch) -> Result<Bytes, AttemptError>) -> RunState {
        self.settle();
        let mut idle = 0;
        while !self.state().ended() {
            if self.running.is_empty() {
                assert!(!self.run.waiting().is_empty());
                idle = if self.pass() { 0 } else { idle + 1 };
                assert!(idle < 3, "the run is {} and waits for {:?}", self.state(), self.run.waiting());
                continue;
            }
            let mut effects = Effects::default();
            let many = 1 + self.dice.roll(20);
            for _ in 0..many {
                if self.running.is_empty() {
                    break;
                }
                let which = self.dice.roll(self.running.len() as u64) as usize;
                let dispatch = self.running.swap_remove(which);
                let result = work(&dispatch);
                let twice = self.dice.roll(8) == 0;
                let ended = RunInput::TaskEnded { stage: dispatch.stage, item: dispatch.item, attempt: dispatch.attempt, result };
                if twice {
                    effects.append(self.run.apply(ended.clone(), self.now).unwrap());
                }
                effects.append(self.run.apply(ended, self.now).unwrap());
                if effects.ops() > 80 || effects.bytes() > 1_000_000 {
                    break;
                }
            }
            if self.dice.roll(2) == 0 {
                self.advance_into(&mut effects);
            }
            self.commit(effects);
            self.settle();
        }
        self.verify();
        self.state()
    }

    pub fn task(&self, stage: usize, item: u32) -> Option<TaskRow> {
        let row = self.rows.get(&task_key(self.id, stage as u16, item))?;
        Some(wire::decode("task", row).unwrap())
    }

    pub fn stored(&self, stored: &Stored) -> Value {
        let bytes = match stored {
            Stored::Inline(bytes) => bytes,
            Stored::Chunked { seal, .. } => &self.chunks[&seal.0],
        };
        serde_json::from_slice(bytes).unwrap()
    }

    pub fn output(&self) -> Value {
        self.run.header().output.as_ref().map_or(Value::Null, |output| self.stored(output))
    }

    pub fn error_code(&self) -> String {
        self.run.header().error.as_ref().map_or_else(String::new, |error| error.code.clone())
    }

    pub fn error_text(&self) -> String {
        self.run.header().error.as_ref().map_or_else(String::new, |error| error.message.clone())
    }

    pub fn events(&self) -> Vec<Event> {
        let start = prefix(Kind::RunEvent, self.id);
        let rows = self.rows.range(start.clone()..after_prefix(&start));
        rows.map(|(_, value)| wire::decode("event", value).unwrap()).collect()
    }

    /// The numbers of the events that are kept.
    pub fn event_numbers(&self) -> Vec<u64> {
        self.of_kind(Kind::RunEvent).iter().map(|(key, _)| u64::from_be_bytes(*key.last_chunk::<8>().unwrap())).collect()
    }

    pub fn starts_of(&self, stage: &str) -> Vec<(u32, u32)> {
        let number = self.index(stage) as u16;
        self.started.iter().filter(|dispatch| dispatch.stage == number).map(|dispatch| (dispatch.item, dispatch.attempt)).collect()
    }

    /// The chain fits the rows.
    pub fn verify(&self) {
        self.try_verify().unwrap();
    }

    pub fn try_verify(&self) -> Result<(), crate::pipeline::run::ChainDamage> {
        let mut verifier = ChainVerifier::new(self.id, self.input_seal, Some(self.seal_key));
        for (key, value) in self.of_kind(Kind::RunChain) {
            let number = u64::from_be_bytes(*key.last_chunk::<8>().unwrap());
            let row: ChainRow = wire::decode("chain entry", value).unwrap();
            verifier.entry(number, row)?;
        }
        let kinds = [Kind::SealKey, Kind::RunDefinition, Kind::RunAnnex, Kind::RunItems, Kind::RunTask, Kind::RunGroup, Kind::RunEvent, Kind::InvocationSignal];
        for (key, value) in kinds.into_iter().flat_map(|kind| self.of_kind(kind)) {
            verifier.row(key, value)?;
        }
        let row: RunRow = wire::decode("run", &self.rows[&run_key(self.id)]).unwrap();
        let (head, commits) = verifier.finish(&row)?;
        assert_eq!((head, commits), self.run.chain());
        Ok(())
    }

    fn of_kind(&self, kind: Kind) -> Vec<(&Key, &Bytes)> {
        let start = prefix(kind, self.id);
        self.rows.range(start.clone()..after_prefix(&start)).collect()
    }
}

/// Gives its input back as `{"got": input}`.
pub fn echo(dispatch: &Dispatch) -> Result<Bytes, AttemptError> {
    let input: Value = serde_json::from_slice(&dispatch.input).unwrap();
    Ok(json_bytes(&json!({ "got": input })))
}

pub fn actor_of(dispatch: &Dispatch) -> Option<&ActorId> {
    match &dispatch.work {
        Work::Actor { target, .. } => Some(target),
        Work::Activity { .. } | Work::Pipeline { .. } => None,
    }
}
