//! Outputs of ended stages: read for the expressions that name them, parsed once, dropped when no stage at work reads them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::Run;
use super::effects::{Ask, RunDamaged, Supply};
use super::memory::StageDoc;
use super::read::{PAGE_ROWS, Progress, Target, decode, just_after, parse};
use crate::error::WorkError;
use crate::id::Key;
use crate::journal::Hash32;
use crate::limit::EXPRESSION_INPUT_BYTES;
use crate::machine::StageState;
use crate::pipeline::compiled::{Reads, is_plain_gather};
use crate::pipeline::definition::Mode;
use crate::pipeline::expression::Doc;
use crate::ports::after_prefix;
use crate::record::run::{FALLBACK_ITEM, Phase, Piece, Stored, TaskEnd, TaskRow, item_of_task_key, items_key, task_key};

#[derive(Debug, Default)]
pub(super) struct Outputs {
    items: Vec<Doc>,
    failed: BTreeSet<u32>,
    failures: Vec<Failed>,
    fallback: Option<Doc>,
    large: VecDeque<(Place, Hash32, u64)>,
    pieces: u32,
    keys: Vec<Doc>,
    /// Whose output alone counts.
    only: Only,
}

/// Whose outputs count.
#[derive(Clone, Copy, Debug, Default)]
enum Only {
    /// All.
    #[default]
    All,
    /// That of the only task that has one.
    Any,
    /// That of one task.
    Item(u32),
}

/// Where a payload belongs.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The output of a task.
    Output(u32),
    /// The item in one of the failures.
    Failure(usize),
}

/// A failed task; its item is filled in when it is there.
#[derive(Debug)]
struct Failed {
    index: u32,
    item: Doc,
    error: WorkError,
    attempts: u32,
}

impl Run {
    /// The value of the root `stages` for an expression: none while rows are on their way.
    pub(super) fn stages_doc(&mut self, reads: &Reads) -> Result<Option<Doc>, WorkError> {
        let mut there = true;
        for stage in &reads.rows {
            there &= self.ensure_outputs(usize::from(*stage))?;
        }
        if !there {
            return Ok(None);
        }
        let mut entries = Vec::with_capacity(reads.named.len());
        for stage in &reads.named {
            let at = &self.header.stages[usize::from(*stage)];
            let doc = if at.state == StageState::Completed { self.docs.get(stage) } else { None };
            let (output, failures) = doc.map_or((Doc::null(), Doc::list(Vec::new())), |doc| (doc.output.clone(), doc.failures.clone()));
            let entry = Doc::object(vec![
                (Arc::from("status"), Doc::string(&at.state.to_string())),
                (Arc::from("output"), output),
                (Arc::from("failures"), failures),
                (Arc::from("attempts"), Doc::number(at.attempts.into())),
            ]);
            entries.push((Arc::from(self.definition(usize::from(*stage)).name.as_str()), entry));
        }
        Ok(Some(Doc::object(entries)))
    }

    /// Whether the outputs of a stage are in memory, or it has none; asks for them otherwise.
    pub(super) fn ensure_outputs(&mut self, stage: usize) -> Result<bool, WorkError> {
        let number = stage as u16;
        if self.docs.contains_key(&number) || self.header.stages[stage].state != StageState::Completed {
            return Ok(true);
        }
        let at = &self.header.stages[stage];
        if is_plain_gather(self.definition(stage)) && at.phase != Phase::Fallback && at.failed == 0 {
            let Some(output) = self.gather(stage)? else {
                return Ok(false);
            };
            let doc = StageDoc { items: vec![output.clone()], failed: BTreeSet::new(), output, failures: self.gathered_failures(stage) };
            self.docs.insert(number, doc);
            return Ok(true);
        }
        let bytes = self.header.stages[stage].output_bytes;
        if bytes > EXPRESSION_INPUT_BYTES as u64 {
            let name = &self.definition(stage).name;
            let text = format!(
                "the outputs of stage `{name}` have {bytes} bytes (limit: expression_input = {EXPRESSION_INPUT_BYTES}): make its `output` smaller, or gather it with `group_by`"
            );
            return Err(WorkError::new("limit", text));
        }
        let at = &self.header.stages[stage];
        let (total, failed) = (at.total, at.failed);
        let only = match self.definition(stage).mode {
            Mode::MapReduce { .. } => Only::Item(total.saturating_sub(1)),
            Mode::Fork { first: true, .. } => Only::Any,
            _ => Only::All,
        };
        let places = if matches!(only, Only::All) { total } else { total.min(1) } as usize;
        let outputs = Outputs { items: vec![Doc::null(); places], only, ..Outputs::default() };
        // Where nothing failed, the rows of a `map_reduce` before the last one say nothing.
        let first = if matches!(only, Only::Item(_)) && failed == 0 { total.saturating_sub(1) } else { 0 };
        let range = task_key(self.id, number, first)..self.after_tasks(number);
        self.readings.begin(Target::Outputs(number), Progress::Outputs(outputs), Ask::Scan { range, limit: PAGE_ROWS });
        Ok(false)
    }

    /// Where the rows of the tasks of a stage end.
    pub(super) fn after_tasks(&self, stage: u16) -> Key {
        let key = task_key(self.id, stage, 0);
        after_prefix(&key[..key.len() - 4])
    }

    pub(super) fn take_outputs(&mut self, stage: u16, outputs: &mut Outputs, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
        let at = &self.header.stages[usize::from(stage)];
        let fell_back = at.phase == Phase::Fallback;
        match supply {
            Supply::Payload(bytes) => match outputs.large.pop_front() {
                Some((Place::Output(item), _, _)) => outputs.set(item, parse("an output", &bytes)?),
                Some((Place::Failure(at), _, _)) => outputs.failures[at].item = parse("an item", &bytes)?,
                None => {}
            },
            Supply::Rows(rows) if outputs.pieces > 0 => {
                let missing = || RunDamaged::Missing { what: format!("items of stage {stage}, piece {}", outputs.pieces - 1) };
                let (_, value) = rows.first().ok_or_else(missing)?;
                for key in decode::<Piece>("items", value)? {
                    outputs.keys.push(parse("a group key", &key)?);
                }
            }
            Supply::Rows(rows) => {
                for (key, value) in &rows {
                    let Some(item) = item_of_task_key(key) else {
                        continue;
                    };
                    let row: TaskRow = decode("task", value)?;
                    if !self.counts(usize::from(stage), &row) {
                        continue;
                    }
                    match row.end {
                        TaskEnd::Completed { .. } if item != FALLBACK_ITEM && (fell_back || !outputs.counts(item)) => {}
                        TaskEnd::Completed { output: Stored::Inline(bytes) } => outputs.set(item, parse("an output", &bytes)?),
                        TaskEnd::Completed { output: Stored::Chunked { seal, len } } => outputs.large.push_back((Place::Output(item), seal, len)),
                        TaskEnd::Failed { error, item: value, output } if item != FALLBACK_ITEM => {
                            match outputs.only {
                                Only::All => {
                                    outputs.failed.insert(item);
                                    outputs.set(item, parse("an output", &output)?);
                                }
                                Only::Item(only) if only == item => drop(outputs.failed.insert(0)),
                                Only::Any if at.failed == at.total => drop(outputs.failed.insert(0)),
                                _ => {}
                            }
                            let value = match value {
                                Stored::Inline(bytes) => parse("an item", &bytes)?,
                                Stored::Chunked { seal, len } => {
                                    outputs.large.push_back((Place::Failure(outputs.failures.len()), seal, len));
                                    Doc::null()
                                }
                            };
                            outputs.failures.push(Failed { index: item, item: value, error, attempts: row.attempts });
                        }
                        TaskEnd::Failed { .. } | TaskEnd::Again { .. } => {}
                    }
                }
                if let (true, Some((last, _))) = (rows.len() >= PAGE_ROWS, rows.last()) {
                    return Ok(Some(Ask::Scan { range: just_after(last)..self.after_tasks(stage), limit: PAGE_ROWS }));
                }
            }
        }
        if let Some((_, seal, len)) = outputs.large.front() {
            return Ok(Some(Ask::Payload { seal: *seal, len: *len }));
        }
        let by_key = self.definition(usize::from(stage)).by_key();
        if by_key && !fell_back && (outputs.pieces as usize) < self.header.stages[usize::from(stage)].pieces.len() {
            outputs.pieces += 1;
            return Ok(Some(Ask::Get(vec![items_key(self.id, stage, outputs.pieces - 1)])));
        }
        let definition = self.definition(usize::from(stage));
        let wide = definition.is_wide() && !is_plain_gather(definition);
        let items = std::mem::take(&mut outputs.items);
        let doc = match outputs.fallback.take() {
            Some(output) if fell_back => StageDoc { items: vec![output.clone()], failed: BTreeSet::new(), output, failures: Doc::null() },
            _ => {
                let output = if by_key {
                    Doc::object(outputs.keys.iter().zip(&items).map(|(key, item)| (Arc::from(key.text().as_str()), item.clone())).collect())
                } else if wide {
                    Doc::list(items.clone())
                } else {
                    items.first().cloned().unwrap_or_else(Doc::null)
                };
                StageDoc { items, failed: std::mem::take(&mut outputs.failed), output, failures: Doc::null() }
            }
        };
        let failures = Doc::list(std::mem::take(&mut outputs.failures).into_iter().map(failure).collect());
        self.docs.insert(stage, StageDoc { failures, ..doc });
        Ok(None)
    }

    /// Drops parsed outputs that no stage at work reads.
    pub(super) fn evict(&mut self) {
        let mut wanted: BTreeSet<u16> = BTreeSet::new();
        let mut open = false;
        for (stage, at) in self.compiled.stages.iter().zip(&self.header.stages) {
            if matches!(at.state, StageState::Ready | StageState::Running) {
                wanted.extend(stage.when_reads.rows.iter().chain(&stage.begin_reads.rows).chain(&stage.task_reads.rows));
            }
            open |= !at.state.ended();
        }
        if !open {
            wanted.extend(&self.compiled.output_reads.rows);
        }
        let gathers: Vec<u16> = wanted.iter().copied().filter(|stage| is_plain_gather(self.definition(usize::from(*stage)))).collect();
        for gather in gathers {
            if !self.docs.contains_key(&gather) {
                wanted.extend(&self.compiled.stages[usize::from(gather)].members);
            }
        }
        for (index, at) in self.header.stages.iter().enumerate() {
            let runs_on_it = at.state == StageState::Running
                && !self.compiled.stages[index].members.is_empty()
                && self.compiled.stages[index].tasks.first().is_some_and(|task| task.input.is_none());
            if runs_on_it && !self.gathered.contains_key(&(index as u16)) {
                wanted.extend(&self.compiled.stages[index].members);
            }
        }
        self.docs.retain(|stage, _| wanted.contains(stage));
        let stages = &self.header.stages;
        self.gathered.retain(|stage, _| stages[usize::from(*stage)].state == StageState::Running);
    }
}

impl Outputs {
    fn set(&mut self, item: u32, value: Doc) {
        if item == FALLBACK_ITEM {
            self.fallback = Some(value);
        } else {
            let place = if matches!(self.only, Only::All) { item as usize } else { 0 };
            if let Some(place) = self.items.get_mut(place) {
                *place = value;
            }
        }
    }

    fn counts(&self, item: u32) -> bool {
        match self.only {
            Only::All | Only::Any => true,
            Only::Item(only) => only == item,
        }
    }
}

fn failure(failed: Failed) -> Doc {
    let Failed { index, item, error, attempts } = failed;
    let error = Doc::object(vec![(Arc::from("code"), Doc::string(&error.code)), (Arc::from("message"), Doc::string(&error.message))]);
    Doc::object(vec![
        (Arc::from("index"), Doc::number(index.into())),
        (Arc::from("item"), item),
        (Arc::from("error"), error),
        (Arc::from("attempts"), Doc::number(attempts.into())),
    ])
}
