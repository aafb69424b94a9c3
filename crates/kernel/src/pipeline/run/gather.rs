//! Gathers: what they choose, how they group, what they give.

use bytes::Bytes;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::Run;
use super::effects::{Ask, RunDamaged, Supply};
use super::read::{PAGE_KEYS, PAGE_ROWS, Progress, Target, decode, just_after, parse};
use crate::error::WorkError;
use crate::id::Key;
use crate::journal::Hash32;
use crate::limit::EXPRESSION_INPUT_BYTES;
use crate::pipeline::definition::{Combine, Mode};
use crate::pipeline::expression::Doc;
use crate::ports::under;
use crate::record::run::{FALLBACK_ITEM, Phase, Stored, TaskEnd, TaskRow, group_prefix, groups_prefix, parts_of_group_key, task_key};

#[derive(Debug)]
pub(super) struct Members {
    key: Doc,
    text: String,
    keys: Vec<Key>,
    at: usize,
    items: Vec<Doc>,
    large: VecDeque<(usize, Hash32, u64)>,
    bytes: u64,
}

impl Run {
    /// What a gather gives or runs on: none while rows are on their way.
    pub(super) fn gather(&mut self, stage: usize) -> Result<Option<Doc>, WorkError> {
        if let Some(doc) = self.gathered.get(&(stage as u16)) {
            return Ok(Some(doc.clone()));
        }
        let compiled = self.compiled.clone();
        let members = &compiled.stages[stage].members;
        let read = self.read_members(stage);
        let bytes: u64 = read.iter().map(|member| self.header.stages[usize::from(*member)].output_bytes).sum();
        if bytes > EXPRESSION_INPUT_BYTES as u64 {
            let name = &self.definition(stage).name;
            let text =
                format!("what stage `{name}` gathers has {bytes} bytes (limit: expression_input = {EXPRESSION_INPUT_BYTES}): give it a `call` and `group_by`");
            return Err(WorkError::new("limit", text));
        }
        let mut there = true;
        for member in &read {
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
        let Mode::Gather { combine, group_by, .. } = &compiled.plan[stage].mode else {
            return Ok(Some(Doc::null()));
        };
        let name = |member: u16| Arc::from(compiled.plan[usize::from(member)].name.as_str());
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
                for (place, member) in members.iter().enumerate().filter(|(_, member)| read.contains(member)) {
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
                    Doc::object(
                        members
                            .iter()
                            .zip(by_member)
                            .filter(|(member, _)| read.contains(member))
                            .map(|(member, items)| (name(*member), one(*member, items)))
                            .collect(),
                    )
                }
            }
        };
        self.gathered.insert(stage as u16, doc.clone());
        Ok(Some(doc))
    }

    /// Whether the output of a stage is a list of the outputs of its tasks.
    fn is_wide(&self, stage: usize) -> bool {
        self.definition(stage).is_wide() && self.header.stages[stage].phase != Phase::Fallback
    }

    fn member_item(&self, member: u16, item: u32) -> Doc {
        let at = if item == FALLBACK_ITEM || !self.definition(usize::from(member)).is_wide() { 0 } else { item as usize };
        self.docs.get(&member).and_then(|doc| doc.items.get(at)).cloned().unwrap_or_else(Doc::null)
    }

    pub(super) fn gathered_failures(&self, stage: usize) -> Doc {
        let members = self.read_members(stage);
        let failures = members.iter().filter_map(|member| self.docs.get(member)).filter_map(|doc| doc.failures.as_list()).flatten();
        Doc::list(failures.collect())
    }

    pub(super) fn read_index(&mut self, stage: usize) {
        let number = stage as u16;
        let ask = Ask::Scan { range: under(&groups_prefix(self.id, number)), limit: PAGE_KEYS };
        self.readings.begin(Target::Index(number), Progress::Index(Vec::new()), ask);
    }

    pub(super) fn take_index(&mut self, stage: u16, found: &mut Vec<(String, u16, u32)>, rows: &[(Key, Bytes)]) -> Result<Option<Ask>, RunDamaged> {
        for (key, value) in rows {
            let malformed = || RunDamaged::Missing { what: format!("a well-formed index row of stage {stage}") };
            let (group, place, item) = parts_of_group_key(key).ok_or_else(malformed)?;
            if self.is_member_item(stage, place, item) && self.is_of_now(stage, place, value)? {
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
        let reads = |member: &u16| self.compiled.stages[usize::from(gather)].quorum.is_none() || self.read_members(usize::from(gather)).contains(member);
        member.is_some_and(|member| reads(member) && (self.header.stages[usize::from(*member)].phase == Phase::Fallback) == (item == FALLBACK_ITEM))
    }

    /// Whether an index row was written since the gathered stage was started over, if it was.
    fn is_of_now(&self, gather: u16, place: u16, value: &[u8]) -> Result<bool, RunDamaged> {
        let member = self.compiled.stages[usize::from(gather)].members.get(usize::from(place));
        let fresh = member.map_or(0, |member| self.fresh(usize::from(*member)));
        Ok(fresh == 0 || (value.len() > 1 && decode::<u32>("round of an index row", value)? >= fresh))
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

    /// Asks for the outputs that one task reduces.
    pub(super) fn read_children(&mut self, stage: usize, item: u32) {
        let number = stage as u16;
        let Some(place) = super::reduce::place(super::reduce::mapped(&self.header.stages[stage]), item) else { return };
        let keys: Vec<Key> = place.children.map(|child| task_key(self.id, number, child)).collect();
        let members =
            Members { key: Doc::null(), text: String::new(), keys: keys.clone(), at: keys.len(), items: Vec::new(), large: VecDeque::new(), bytes: 0 };
        self.readings.begin(Target::Group(number, item), Progress::Group(members), Ask::Get(keys));
    }

    fn group_range(&self, stage: u16, text: &str) -> Range<Key> {
        under(&group_prefix(self.id, stage, text.as_bytes()))
    }

    pub(super) fn take_members(&mut self, stage: u16, item: u32, members: &mut Members, supply: Supply) -> Result<Option<Ask>, RunDamaged> {
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
                for (key, value) in &rows {
                    let Some((_, place, row)) = parts_of_group_key(key) else {
                        continue;
                    };
                    if self.is_member_item(stage, place, row) && self.is_of_now(stage, place, value)? {
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
        let reduces = matches!(self.definition(usize::from(stage)).mode, Mode::MapReduce { .. });
        let doc = if over {
            // Null stands for a group that is too large; its task fails with the limit's name.
            Doc::null()
        } else {
            let items = Doc::list(std::mem::take(&mut members.items));
            if reduces { items } else { Doc::object(vec![(Arc::from("key"), members.key.clone()), (Arc::from("items"), items)]) }
        };
        self.stages[usize::from(stage)].groups.insert(item, doc);
        Ok(None)
    }
}
