//! Rows that a run needs, asked for and taken in page by page.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

use super::Run;
use super::effects::{Ask, Effects, RowRequest, RunDamaged, Supply};
use super::gather::Members;
use super::memory::Slot;
use super::outputs::Outputs;
use crate::id::Key;
use crate::machine::TaskState;
use crate::pipeline::definition::Mode;
use crate::pipeline::expression::Doc;
use crate::record::run::{FALLBACK_ITEM, Phase, Piece, Stored, TaskRow, item_of_task_key, items_key, signal_key, task_key};
use crate::wire;

/// Rows of one page: a row may hold 64 KiB.
pub(super) const PAGE_ROWS: usize = 128;
/// Index rows of one page.
pub(super) const PAGE_KEYS: usize = 1_000;

/// What is being read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Target {
    /// The run's input.
    Input,
    /// Tasks between low mark and cursor, after a restart.
    Slots(u16),
    /// Rows from before a retry of the run.
    Old(u16),
    /// Items of a stage.
    Piece(u16, u32),
    /// The outputs of a stage.
    Outputs(u16),
    /// The index of a gather.
    Index(u16),
    /// The members of one group, or the outputs that are reduced.
    Group(u16, u32),
    /// Rows of a stage that is undone.
    Undone(u16, u32),
    /// An output of a stage that is undone.
    UndoneOutput(u16, u32),
    /// The first kept signal for a stage.
    Signal(u16),
}

/// What has been read so far.
#[derive(Debug)]
pub(super) enum Progress {
    Plain,
    Outputs(Outputs),
    Index(Vec<(String, u16, u32)>),
    Group(Members),
}

#[derive(Debug, Default)]
pub(super) struct Readings {
    next_token: u64,
    open: BTreeMap<u64, Target>,
    progress: BTreeMap<Target, Progress>,
    fresh: Vec<RowRequest>,
}

impl Readings {
    /// Requests that were not handed out yet.
    pub fn asked(&mut self) -> Vec<RowRequest> {
        std::mem::take(&mut self.fresh)
    }

    pub fn is_idle(&self) -> bool {
        self.progress.is_empty()
    }

    pub fn begin(&mut self, target: Target, progress: Progress, ask: Ask) {
        if !self.progress.contains_key(&target) {
            self.progress.insert(target.clone(), progress);
            self.ask(target, ask);
        }
    }

    fn ask(&mut self, target: Target, ask: Ask) {
        let token = self.next_token;
        self.next_token += 1;
        self.open.insert(token, target);
        self.fresh.push(RowRequest { token, ask });
    }

    /// Answers to what a stage asked for its own tasks are dropped from now on.
    pub fn forget(&mut self, stage: u16) {
        let of_stage = |target: &Target| match target {
            Target::Slots(of)
            | Target::Old(of)
            | Target::Piece(of, _)
            | Target::Group(of, _)
            | Target::Signal(of)
            | Target::Undone(of, _)
            | Target::UndoneOutput(of, _) => *of == stage,
            Target::Input | Target::Outputs(_) | Target::Index(_) => false,
        };
        self.progress.retain(|target, _| !of_stage(target));
        self.open.retain(|_, target| !of_stage(target));
    }
}

pub(super) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RunDamaged> {
    Ok(wire::decode(what, bytes)?)
}

pub(super) fn parse(what: &str, bytes: &[u8]) -> Result<Doc, RunDamaged> {
    Doc::parse(bytes).map_err(|error| RunDamaged::Missing { what: format!("JSON of {what} ({error})") })
}

impl Run {
    /// Takes the answer to a request. An answer that nobody waits for any more is dropped. Afterwards [`Run::advance`] goes on.
    pub fn supply(&mut self, token: u64, supply: Supply) -> Result<Effects, RunDamaged> {
        if let Some(target) = self.readings.open.remove(&token) {
            let mut progress = self.readings.progress.remove(&target).unwrap_or(Progress::Plain);
            if let Some(ask) = self.take_in(&target, &mut progress, supply)? {
                self.readings.progress.insert(target.clone(), progress);
                self.readings.ask(target, ask);
            }
        }
        Ok(Effects { requests: self.readings.asked(), ..Effects::default() })
    }

    fn take_in(&mut self, target: &Target, progress: &mut Progress, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
        match (target, progress, supply) {
            (Target::Input, _, Supply::Payload(bytes)) => {
                self.input_doc = Some(parse("the run's input", &bytes)?);
                Ok(None)
            }
            (Target::Slots(stage), _, Supply::Rows(rows)) => self.take_slots(usize::from(*stage), &rows),
            (Target::Old(stage), _, Supply::Rows(rows)) => {
                for (key, value) in &rows {
                    let row = decode("task", value)?;
                    if let Some(item) = item_of_task_key(key).filter(|_| self.counts(usize::from(*stage), &row)) {
                        self.stages[usize::from(*stage)].old.insert(item, row);
                    }
                }
                let memory = &mut self.stages[usize::from(*stage)];
                memory.old_to = memory.old_to.saturating_add(PAGE_ROWS as u32).min(self.header.stages[usize::from(*stage)].visited);
                Ok(None)
            }
            (Target::Piece(stage, piece), _, Supply::Rows(rows)) => {
                let missing = || RunDamaged::Missing { what: format!("items of stage {stage}, piece {piece}") };
                let (_, value) = rows.first().ok_or_else(missing)?;
                let items: Piece = decode("items", value)?;
                self.stages[usize::from(*stage)].pieces.insert(*piece, items);
                Ok(None)
            }
            (Target::Outputs(stage), Progress::Outputs(outputs), supply) => self.take_outputs(*stage, outputs, supply),
            (Target::Index(stage), Progress::Index(found), Supply::Rows(rows)) => self.take_index(*stage, found, &rows),
            (Target::Group(stage, item), Progress::Group(members), supply) => self.take_members(*stage, *item, members, supply),
            (Target::Signal(stage), _, supply) => self.take_signal(*stage, supply),
            (Target::Undone(stage, page), _, Supply::Rows(rows)) => self.take_undone(*stage, *page, &rows),
            (Target::UndoneOutput(stage, item), _, Supply::Payload(bytes)) => {
                let output = parse("an output", &bytes)?;
                self.stages[usize::from(*stage)].groups.insert(*item, output);
                Ok(None)
            }
            _ => Err(RunDamaged::Missing { what: "an answer of the kind that was asked for".to_owned() }),
        }
    }

    pub(super) fn read_input(&mut self) {
        if let Stored::Chunked { seal, len } = self.input {
            self.readings.begin(Target::Input, Progress::Plain, Ask::Payload { seal, len });
        } else {
            // Invariant: an inline input was JSON when it was accepted.
            self.input_doc = Some(Doc::null());
        }
    }

    pub(super) fn read_slots(&mut self, stage: usize) {
        let at = &self.header.stages[stage];
        let number = stage as u16;
        let (low, cursor) = if at.phase == Phase::Fallback { (FALLBACK_ITEM, FALLBACK_ITEM) } else { (at.low, at.cursor) };
        let ask = if low == FALLBACK_ITEM {
            Ask::Get(vec![task_key(self.id, number, FALLBACK_ITEM)])
        } else {
            Ask::Scan { range: task_key(self.id, number, low)..task_key(self.id, number, cursor), limit: PAGE_ROWS }
        };
        self.readings.begin(Target::Slots(number), Progress::Plain, ask);
    }

    fn take_slots(&mut self, stage: usize, rows: &[(Key, Bytes)]) -> Result<Option<Ask>, RunDamaged> {
        let fresh = self.fresh(stage);
        // Of a stage that is undone each start is written.
        let tells = self.compiled.stages[stage].undo.is_some();
        let at = &self.header.stages[stage];
        let memory = &mut self.stages[stage];
        if at.phase == Phase::Fallback {
            let row: Option<TaskRow> = match rows.first() {
                Some((_, value)) => Some(decode("task", value)?),
                None => None,
            };
            let slot = row.filter(|row| row.round >= fresh).map_or_else(Slot::new, |row| Slot::from_row(&row, at.round));
            if let (TaskState::Queued, Some(again)) = (slot.state, slot.again) {
                memory.retries.insert((again, FALLBACK_ITEM));
            }
            memory.fallback = Some(Slot { sent_before: slot.state == TaskState::Queued && (!tells || slot.first_at.is_some()), ..slot });
            memory.loaded = true;
            return Ok(None);
        }
        let mut last = None;
        for (key, value) in rows {
            let Some(item) = item_of_task_key(key) else {
                continue;
            };
            last = Some(item);
            let row: TaskRow = decode("task", value)?;
            if row.round >= fresh {
                memory.old.insert(item, row);
            }
        }
        if let (Some(last), true) = (last, rows.len() >= PAGE_ROWS) {
            let number = stage as u16;
            let range = task_key(self.id, number, last.saturating_add(1))..task_key(self.id, number, at.cursor);
            // Rows of this page become slots at once, so that a wide window is never in memory whole.
            for item in at.low + memory.slots.len() as u32..=last {
                push_slot(memory, item, at.round, tells);
            }
            return Ok(Some(Ask::Scan { range, limit: PAGE_ROWS }));
        }
        for item in at.low + memory.slots.len() as u32..at.cursor {
            push_slot(memory, item, at.round, tells);
        }
        memory.loaded = true;
        self.slide(stage);
        Ok(None)
    }

    /// Asks for the rows that tasks from the cursor on had before a retry of the run.
    pub(super) fn read_old(&mut self, stage: usize) {
        let at = &self.header.stages[stage];
        let number = stage as u16;
        let from = self.stages[stage].old_to.max(at.cursor);
        self.stages[stage].old_to = from;
        let to = from.saturating_add(PAGE_ROWS as u32).min(at.visited);
        let range = task_key(self.id, number, from)..task_key(self.id, number, to);
        self.readings.begin(Target::Old(number), Progress::Plain, Ask::Scan { range, limit: PAGE_ROWS });
    }

    pub(super) fn read_piece(&mut self, stage: usize, piece: u32) {
        let number = stage as u16;
        self.readings.begin(Target::Piece(number, piece), Progress::Plain, Ask::Get(vec![items_key(self.id, number, piece)]));
    }

    pub(super) fn read_signal(&mut self, stage: usize, name: &str, n: u64) {
        let ask = Ask::Get(vec![signal_key(self.id, name, n)]);
        self.readings.begin(Target::Signal(stage as u16), Progress::Plain, ask);
    }

    fn take_signal(&mut self, stage: u16, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
        let Mode::WaitSignal { signal } = &self.compiled.plan[usize::from(stage)].mode else {
            return Ok(None);
        };
        let Some(first) = self.header.signals.get(signal).and_then(|kept| kept.first()).copied() else {
            return Ok(None);
        };
        let bytes = match supply {
            Supply::Payload(bytes) => bytes,
            Supply::Rows(rows) => {
                let missing = || RunDamaged::Missing { what: format!("kept signal `{signal}` number {first}") };
                let (_, value) = rows.first().ok_or_else(missing)?;
                match decode::<Stored>("signal", value)? {
                    Stored::Inline(bytes) => bytes,
                    Stored::Chunked { seal, len } => return Ok(Some(Ask::Payload { seal, len })),
                }
            }
        };
        self.signals.insert(first, bytes);
        Ok(None)
    }
}

fn push_slot(memory: &mut super::memory::StageMemory, item: u32, round: u32, tells: bool) {
    let mut slot = match memory.old.remove(&item) {
        Some(row) => Slot::from_row(&row, round),
        None => Slot::new(),
    };
    slot.sent_before = slot.state == TaskState::Queued && (!tells || slot.first_at.is_some());
    match (slot.state, slot.again) {
        (TaskState::Queued, Some(again)) => {
            memory.retries.insert((again, item));
        }
        (TaskState::Queued, None) => {
            memory.due.insert(item);
        }
        _ => {}
    }
    memory.slots.push_back(slot);
}

pub(super) fn just_after(key: &[u8]) -> Key {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}
