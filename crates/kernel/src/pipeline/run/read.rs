//! Rows that a run needs, asked for and taken in page by page.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::Run;
use super::effects::{Ask, Effects, RowRequest, RunDamaged, Supply};
use super::memory::{Slot, StageDoc};
use crate::error::WorkError;
use crate::id::Key;
use crate::journal::Hash32;
use crate::limit::EXPRESSION_INPUT_BYTES;
use crate::machine::{StageState, TaskState};
use crate::pipeline::compiled::{Reads, is_plain_gather};
use crate::pipeline::definition::{Combine, Mode};
use crate::pipeline::expression::Doc;
use crate::ports::{after_prefix, under};
use crate::record::run::{
    FALLBACK_ITEM, Phase, Piece, Stored, TaskEnd, TaskRow, group_prefix, groups_prefix, item_of_task_key, items_key, parts_of_group_key, signal_key, task_key,
};
use crate::wire;

/// Rows of one page: a row may hold 64 KiB.
const PAGE_ROWS: usize = 128;
/// Index rows of one page.
const PAGE_KEYS: usize = 1_000;

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
    /// The members of one group.
    Group(u16, u32),
    /// The first kept signal for a stage.
    Signal(u16),
}

/// What has been read so far.
#[derive(Debug)]
enum Progress {
    Plain,
    Outputs(Outputs),
    Index(Vec<(String, u16, u32)>),
    Group(Members),
}

#[derive(Debug, Default)]
struct Outputs {
    items: Vec<Doc>,
    failed: BTreeSet<u32>,
    failures: Vec<Failed>,
    fallback: Option<Doc>,
    large: VecDeque<(Place, Hash32, u64)>,
    pieces: u32,
    keys: Vec<Doc>,
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

#[derive(Debug)]
struct Members {
    key: Doc,
    text: String,
    keys: Vec<Key>,
    at: usize,
    items: Vec<Doc>,
    large: VecDeque<(usize, Hash32, u64)>,
    bytes: u64,
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

    fn begin(&mut self, target: Target, progress: Progress, ask: Ask) {
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
            Target::Slots(of) | Target::Old(of) | Target::Piece(of, _) | Target::Group(of, _) | Target::Signal(of) => *of == stage,
            Target::Input | Target::Outputs(_) | Target::Index(_) => false,
        };
        self.progress.retain(|target, _| !of_stage(target));
        self.open.retain(|_, target| !of_stage(target));
    }
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, RunDamaged> {
    Ok(wire::decode(what, bytes)?)
}

fn parse(what: &str, bytes: &[u8]) -> Result<Doc, RunDamaged> {
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
                let memory = &mut self.stages[usize::from(*stage)];
                for (key, value) in &rows {
                    if let Some(item) = item_of_task_key(key) {
                        memory.old.insert(item, decode("task", value)?);
                    }
                }
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

    // -- tasks ---------------------------------------------------------------------------------------------------

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
        let at = &self.header.stages[stage];
        let memory = &mut self.stages[stage];
        if at.phase == Phase::Fallback {
            let slot = match rows.first() {
                Some((_, value)) => Slot::from_row(&decode("task", value)?, at.round),
                None => Slot::new(),
            };
            if let (TaskState::Queued, Some(again)) = (slot.state, slot.again) {
                memory.retries.insert((again, FALLBACK_ITEM));
            }
            memory.fallback = Some(slot);
            memory.loaded = true;
            return Ok(None);
        }
        let mut last = None;
        for (key, value) in rows {
            let Some(item) = item_of_task_key(key) else {
                continue;
            };
            last = Some(item);
            memory.old.insert(item, decode("task", value)?);
        }
        if let (Some(last), true) = (last, rows.len() >= PAGE_ROWS) {
            let number = stage as u16;
            let range = task_key(self.id, number, last.saturating_add(1))..task_key(self.id, number, at.cursor);
            // Rows of this page become slots at once, so that a wide window is never in memory whole.
            for item in at.low + memory.slots.len() as u32..=last {
                push_slot(memory, item, at.round);
            }
            return Ok(Some(Ask::Scan { range, limit: PAGE_ROWS }));
        }
        for item in at.low + memory.slots.len() as u32..at.cursor {
            push_slot(memory, item, at.round);
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

    // -- outputs -------------------------------------------------------------------------------------------------

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
        if is_plain_gather(self.definition(stage)) {
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
        let total = self.header.stages[stage].total as usize;
        let outputs = Outputs { items: vec![Doc::null(); total], ..Outputs::default() };
        let range = task_key(self.id, number, 0)..self.after_tasks(number);
        self.readings.begin(Target::Outputs(number), Progress::Outputs(outputs), Ask::Scan { range, limit: PAGE_ROWS });
        Ok(false)
    }

    fn after_tasks(&self, stage: u16) -> Key {
        let key = task_key(self.id, stage, 0);
        after_prefix(&key[..key.len() - 4])
    }

    fn take_outputs(&mut self, stage: u16, outputs: &mut Outputs, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
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
                    match row.end {
                        TaskEnd::Completed { .. } if fell_back && item != FALLBACK_ITEM => {}
                        TaskEnd::Completed { output: Stored::Inline(bytes) } => outputs.set(item, parse("an output", &bytes)?),
                        TaskEnd::Completed { output: Stored::Chunked { seal, len } } => outputs.large.push_back((Place::Output(item), seal, len)),
                        TaskEnd::Failed { error, item: value, output } if item != FALLBACK_ITEM => {
                            outputs.failed.insert(item);
                            outputs.set(item, parse("an output", &output)?);
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
        let mode = &self.definition(usize::from(stage)).mode;
        let by_key = matches!(mode, Mode::Gather { group_by: Some(_), combine: Combine::Object, .. });
        if by_key && !fell_back && (outputs.pieces as usize) < self.header.stages[usize::from(stage)].pieces.len() {
            outputs.pieces += 1;
            return Ok(Some(Ask::Get(vec![items_key(self.id, stage, outputs.pieces - 1)])));
        }
        let wide = matches!(mode, Mode::Scatter { .. } | Mode::Gather { group_by: Some(_), .. });
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

    // -- gathers -------------------------------------------------------------------------------------------------

    /// What a gather gives or runs on: none while rows are on their way.
    pub(super) fn gather(&mut self, stage: usize) -> Result<Option<Doc>, WorkError> {
        if let Some(doc) = self.gathered.get(&(stage as u16)) {
            return Ok(Some(doc.clone()));
        }
        let compiled = self.compiled.clone();
        let members = &compiled.stages[stage].members;
        let bytes: u64 = members.iter().map(|member| self.header.stages[usize::from(*member)].output_bytes).sum();
        if bytes > EXPRESSION_INPUT_BYTES as u64 {
            let name = &self.definition(stage).name;
            let text =
                format!("what stage `{name}` gathers has {bytes} bytes (limit: expression_input = {EXPRESSION_INPUT_BYTES}): give it a `call` and `group_by`");
            return Err(WorkError::new("limit", text));
        }
        let mut there = true;
        for member in members {
            there &= self.ensure_outputs(usize::from(*member))?;
        }
        let indexed = compiled.stages[stage].indexed();
        if indexed && !self.index.contains_key(&(stage as u16)) {
            self.read_index(stage);
            there = false;
        }
        if !there {
            return Ok(None);
        }
        let Mode::Gather { combine, group_by, .. } = &compiled.definition.stages[stage].mode else {
            return Ok(Some(Doc::null()));
        };
        let name = |member: u16| Arc::from(compiled.definition.stages[usize::from(member)].name.as_str());
        let rows = self.index.remove(&(stage as u16)).unwrap_or_default();
        let doc = if group_by.is_some() {
            let mut groups: Vec<(String, Vec<Doc>)> = Vec::new();
            for (group, place, item) in &rows {
                let value = self.member_item(members[usize::from(*place)], *item);
                match groups.last_mut() {
                    Some((last, items)) if last == group => items.push(value),
                    _ => groups.push((group.clone(), vec![value])),
                }
            }
            // Invariant: a group is the JSON text of its key.
            let key = |text: &str| Doc::parse(text.as_bytes()).unwrap_or_else(|_| Doc::null());
            match combine {
                Combine::Object => Doc::object(groups.into_iter().map(|(text, items)| (Arc::from(key(&text).text()), Doc::list(items))).collect()),
                Combine::Concat => {
                    let group = |(text, items): (String, Vec<Doc>)| Doc::object(vec![(Arc::from("key"), key(&text)), (Arc::from("items"), Doc::list(items))]);
                    Doc::list(groups.into_iter().map(group).collect())
                }
            }
        } else {
            let mut by_member: Vec<Vec<Doc>> = vec![Vec::new(); members.len()];
            if indexed {
                for (_, place, item) in &rows {
                    by_member[usize::from(*place)].push(self.member_item(members[usize::from(*place)], *item));
                }
            } else {
                for (place, member) in members.iter().enumerate() {
                    if let Some(doc) = self.docs.get(member) {
                        let kept = doc.items.iter().enumerate().filter(|(item, _)| !doc.failed.contains(&(*item as u32)));
                        by_member[place].extend(kept.map(|(_, value)| value.clone()));
                    }
                }
            }
            match combine {
                Combine::Concat => Doc::list(by_member.into_iter().flatten().collect()),
                Combine::Object => {
                    let one = |member: u16, mut items: Vec<Doc>| match (self.is_wide(usize::from(member)), items.pop()) {
                        (false, Some(only)) => only,
                        (false, None) => Doc::null(),
                        (true, last) => Doc::list(items.into_iter().chain(last).collect()),
                    };
                    Doc::object(members.iter().zip(by_member).map(|(member, items)| (name(*member), one(*member, items))).collect())
                }
            }
        };
        self.gathered.insert(stage as u16, doc.clone());
        Ok(Some(doc))
    }

    /// Whether the output of a stage is a list of the outputs of its tasks.
    fn is_wide(&self, stage: usize) -> bool {
        let wide = matches!(self.definition(stage).mode, Mode::Scatter { .. } | Mode::Gather { group_by: Some(_), .. });
        wide && self.header.stages[stage].phase != Phase::Fallback
    }

    fn member_item(&self, member: u16, item: u32) -> Doc {
        let at = if item == FALLBACK_ITEM { 0 } else { item as usize };
        self.docs.get(&member).and_then(|doc| doc.items.get(at)).cloned().unwrap_or_else(Doc::null)
    }

    fn gathered_failures(&self, stage: usize) -> Doc {
        let members = &self.compiled.stages[stage].members;
        let failures = members.iter().filter_map(|member| self.docs.get(member)).filter_map(|doc| doc.failures.as_list()).flatten();
        Doc::list(failures.collect())
    }

    pub(super) fn read_index(&mut self, stage: usize) {
        let number = stage as u16;
        let ask = Ask::Scan { range: under(&groups_prefix(self.id, number)), limit: PAGE_KEYS };
        self.readings.begin(Target::Index(number), Progress::Index(Vec::new()), ask);
    }

    fn take_index(&mut self, stage: u16, found: &mut Vec<(String, u16, u32)>, rows: &[(Key, Bytes)]) -> Result<Option<Ask>, RunDamaged> {
        for (key, _) in rows {
            let malformed = || RunDamaged::Missing { what: format!("a well-formed index row of stage {stage}") };
            let (group, place, item) = parts_of_group_key(key).ok_or_else(malformed)?;
            if self.is_member_item(stage, place, item) {
                found.push((String::from_utf8_lossy(group).into_owned(), place, item));
            }
        }
        if let (true, Some((last, _))) = (rows.len() >= PAGE_KEYS, rows.last()) {
            let end = under(&groups_prefix(self.id, stage)).end;
            return Ok(Some(Ask::Scan { range: just_after(last)..end, limit: PAGE_KEYS }));
        }
        // Keys sort by the length of the group first; groups come in the order of their text. The sort is stable.
        found.sort_by(|one, two| one.0.cmp(&two.0));
        self.index.insert(stage, std::mem::take(found));
        Ok(None)
    }

    /// Whether an index row counts: when a fallback gave a stage's output, what its tasks gave before does not.
    fn is_member_item(&self, gather: u16, place: u16, item: u32) -> bool {
        let member = self.compiled.stages[usize::from(gather)].members.get(usize::from(place));
        member.is_some_and(|member| (self.header.stages[usize::from(*member)].phase == Phase::Fallback) == (item == FALLBACK_ITEM))
    }

    /// Asks for the members of a group; `key` is its JSON text.
    pub(super) fn read_group(&mut self, stage: usize, item: u32, key: &[u8]) -> Result<(), WorkError> {
        let number = stage as u16;
        let doc = Doc::parse(key).map_err(|error| WorkError::new("expression", error.to_string()))?;
        let text = String::from_utf8_lossy(key).into_owned();
        let ask = Ask::Scan { range: self.group_range(number, &text), limit: PAGE_KEYS };
        let members = Members { key: doc, text, keys: Vec::new(), at: 0, items: Vec::new(), large: VecDeque::new(), bytes: 0 };
        self.readings.begin(Target::Group(number, item), Progress::Group(members), ask);
        Ok(())
    }

    fn group_range(&self, stage: u16, text: &str) -> Range<Key> {
        under(&group_prefix(self.id, stage, text.as_bytes()))
    }

    fn take_members(&mut self, stage: u16, item: u32, members: &mut Members, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
        match supply {
            Supply::Payload(bytes) => {
                if let Some((at, _, _)) = members.large.pop_front() {
                    members.items[at] = parse("an output", &bytes)?;
                }
            }
            Supply::Rows(rows) if members.at > 0 => {
                for (_, value) in &rows {
                    let row: TaskRow = decode("task", value)?;
                    let TaskEnd::Completed { output } = row.end else {
                        continue;
                    };
                    members.bytes += output.len();
                    match output {
                        Stored::Inline(bytes) => members.items.push(parse("an output", &bytes)?),
                        Stored::Chunked { seal, len } => {
                            members.large.push_back((members.items.len(), seal, len));
                            members.items.push(Doc::null());
                        }
                    }
                }
            }
            Supply::Rows(rows) => {
                for (key, _) in &rows {
                    let Some((_, place, row)) = parts_of_group_key(key) else {
                        continue;
                    };
                    if self.is_member_item(stage, place, row) {
                        let member = self.compiled.stages[usize::from(stage)].members[usize::from(place)];
                        members.keys.push(task_key(self.id, member, row));
                    }
                }
                if let (true, Some((last, _))) = (rows.len() >= PAGE_KEYS, rows.last()) {
                    return Ok(Some(Ask::Scan { range: just_after(last)..self.group_range(stage, &members.text).end, limit: PAGE_KEYS }));
                }
            }
        }
        let over = members.bytes > EXPRESSION_INPUT_BYTES as u64;
        if let (false, Some((_, seal, len))) = (over, members.large.front()) {
            return Ok(Some(Ask::Payload { seal: *seal, len: *len }));
        }
        if !over && members.at < members.keys.len() {
            let to = (members.at + PAGE_ROWS).min(members.keys.len());
            let keys = members.keys[members.at..to].to_vec();
            members.at = to;
            return Ok(Some(Ask::Get(keys)));
        }
        let doc = if over {
            // Null stands for a group that is too large; its task fails with the limit's name.
            Doc::null()
        } else {
            let items = Doc::list(std::mem::take(&mut members.items));
            Doc::object(vec![(Arc::from("key"), members.key.clone()), (Arc::from("items"), items)])
        };
        self.stages[usize::from(stage)].groups.insert(item, doc);
        Ok(None)
    }

    // -- signals -------------------------------------------------------------------------------------------------

    pub(super) fn read_signal(&mut self, stage: usize, name: &str, n: u64) {
        let ask = Ask::Get(vec![signal_key(self.id, name, n)]);
        self.readings.begin(Target::Signal(stage as u16), Progress::Plain, ask);
    }

    fn take_signal(&mut self, stage: u16, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
        let Mode::WaitSignal { signal } = &self.compiled.definition.stages[usize::from(stage)].mode else {
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
            let runs_on_it = at.state == StageState::Running && !self.compiled.stages[index].members.is_empty() && self.compiled.stages[index].input.is_none();
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
        } else if let Some(place) = self.items.get_mut(item as usize) {
            *place = value;
        }
    }
}

fn push_slot(memory: &mut super::memory::StageMemory, item: u32, round: u32) {
    let slot = match memory.old.remove(&item) {
        Some(row) => Slot::from_row(&row, round),
        None => Slot::new(),
    };
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

fn just_after(key: &[u8]) -> Key {
    let mut next = key.to_vec();
    next.push(0);
    next.into()
}
