//! The beginning of a stage: whether it runs, on which items.

use std::sync::Arc;

use super::effects::ApprovalChange;
use super::memory::Expansion;
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::{ApprovalId, RawId};
use crate::limit::{INLINE_BYTES, KEY_PART_BYTES};
use crate::machine::{APPROVAL, StageEvent, StageState};
use crate::pipeline::compiled::Reads;
use crate::pipeline::definition::{Mode, SleepTime};
use crate::pipeline::expression::{Doc, Expression, ExpressionError, Scope};
use crate::record::run::{Happening, Phase, Wait, items_key};
use crate::time::Millis;
use crate::wire;

/// Items of one piece.
const PIECE_ITEMS: usize = 1_000;
/// Bytes of one piece, and so of one item.
const PIECE_BYTES: usize = 1024 * 1024;
/// A piece as a row: its bytes, and the lengths of its items.
const PIECE_ROW_BYTES: usize = PIECE_BYTES + 8 * PIECE_ITEMS;
/// List entries that one turn looks at.
const TURN_ITEMS: usize = 10_000;

pub(super) fn expression_error(place: &str, error: &ExpressionError) -> WorkError {
    WorkError::new("expression", format!("{place}: {error}"))
}

impl Run {
    /// The scope of an expression of a stage: none while rows are on their way.
    pub(super) fn scope(&mut self, reads: &Reads) -> Result<Option<Scope>, WorkError> {
        let Some(stages) = self.stages_doc(reads)? else {
            return Ok(None);
        };
        let mut scope = Scope::new();
        scope.set("input", self.input_doc.clone().unwrap_or_else(Doc::null));
        scope.set("run", self.run_doc.clone());
        scope.set("stages", stages);
        Ok(Some(scope))
    }

    /// Evaluates `when`.
    pub(super) fn decide(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        let compiled = self.compiled.clone();
        let plan = &compiled.stages[stage];
        let runs = match &plan.when {
            None => Ok(true),
            Some(when) => match self.scope(&plan.when_reads) {
                Ok(None) => return false,
                Ok(Some(scope)) => yes_or_no("when", when, &scope),
                Err(error) => Err(error),
            },
        };
        match runs {
            Ok(true) => {
                self.cancel_losers(stage, out);
                self.stage_event(stage, StageEvent::Start, None);
                self.header.stages[stage].since = now;
            }
            Ok(false) => self.stage_event(stage, StageEvent::Skip, None),
            Err(error) => self.fail_stage(stage, error, now, out),
        }
        true
    }

    /// The first step of a stage that runs.
    pub(super) fn begin(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        match self.try_begin(stage, now, out) {
            Ok(began) => began,
            Err(error) => {
                self.cannot_begin(stage, error, now, out);
                true
            }
        }
    }

    fn try_begin(&mut self, stage: usize, now: Millis, out: &mut Out) -> Result<bool, WorkError> {
        let compiled = self.compiled.clone();
        let plan = &compiled.stages[stage];
        let definition = &compiled.plan[stage];
        let phase = match &definition.mode {
            Mode::Single => Phase::Tasks,
            Mode::Scatter { .. } | Mode::Fork { .. } | Mode::MapReduce { .. } => Phase::Items,
            Mode::Undo { of } => {
                self.header.stages[stage].total = self.undo_total(usize::from(*of));
                Phase::Tasks
            }
            Mode::Gather { group_by, .. } => {
                self.check_quorum(stage)?;
                if let Some(defect) = self.header.stages[stage].defect.clone() {
                    return Err(defect);
                }
                if plan.tasks.is_empty() {
                    self.complete_stage(stage);
                    return Ok(true);
                }
                if group_by.is_some() { Phase::Items } else { Phase::Tasks }
            }
            Mode::Approval { assignees, expires, .. } => {
                let Some(scope) = self.scope(&plan.begin_reads)? else {
                    return Ok(false);
                };
                let show = match &plan.show {
                    Some(show) => show.eval_doc(&scope).map_err(|error| expression_error("`show`", &error))?,
                    None => Doc::null(),
                };
                let show = show.to_bytes();
                if show.len() > INLINE_BYTES {
                    return Err(WorkError::new("limit", format!("`show` gives {} bytes (limit: inline = {INLINE_BYTES}): show less", show.len())));
                }
                out.effects.put(items_key(self.id, stage as u16, 0), wire::encode(&vec![show.clone()]));
                let id = self.approval_id(stage);
                let expires = now.after(expires.0);
                let wait = Wait::Approval { id, state: APPROVAL.start, expires, by: None, comment: None, at: None, listed: true };
                self.header.stages[stage].wait = Some(wait);
                let name = definition.name.clone();
                self.happened.push(Happening::ApprovalOpened { stage: name.clone(), id: id.to_string(), assignees: assignees.clone(), expires });
                out.effects.approvals.push(ApprovalChange::Open { id, stage: name, assignees: assignees.clone(), expires, show });
                Phase::Wait
            }
            Mode::Sleep(SleepTime::For(span)) => {
                self.header.stages[stage].wait = Some(Wait::Until(now.after(span.0)));
                Phase::Wait
            }
            Mode::Sleep(SleepTime::Until(text)) => {
                let Some(scope) = self.scope(&plan.begin_reads)? else {
                    return Ok(false);
                };
                let until = match &plan.until {
                    Some(until) => until.eval_doc(&scope).map_err(|error| expression_error("`until`", &error))?,
                    None => Doc::string(text),
                };
                self.header.stages[stage].wait = Some(Wait::Until(read_time(&until)?));
                Phase::Wait
            }
            Mode::WaitSignal { .. } => {
                let until = definition.timeout.as_ref().and_then(|timeout| timeout.total).map(|total| now.after(total.0));
                self.header.stages[stage].wait = Some(Wait::Signal { until });
                Phase::Wait
            }
        };
        let at = &mut self.header.stages[stage];
        at.phase = phase;
        if phase != Phase::Items && !matches!(definition.mode, Mode::Undo { .. }) {
            at.total = 1;
        }
        self.stages[stage].loaded = true;
        self.touched.insert(stage as u16);
        self.dirty = true;
        Ok(true)
    }

    /// The id of a stage's approval: another one in each round.
    fn approval_id(&self, stage: usize) -> ApprovalId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.id.0.to_bytes());
        hasher.update(&(stage as u16).to_be_bytes());
        hasher.update(&self.header.stages[stage].round.to_be_bytes());
        let mut uuid = [0u8; 16];
        uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        uuid[6] = 0x80 | (uuid[6] & 0x0f);
        uuid[8] = 0x80 | (uuid[8] & 0x3f);
        ApprovalId(RawId { hash: self.id.0.hash, uuid })
    }

    /// Evaluates the items of a stage, once, and stores them piece by piece. After a restart in the middle the same
    /// list is evaluated again, and pieces that are there are not written twice.
    pub(super) fn expand(&mut self, stage: usize, now: Millis, out: &mut Out) -> bool {
        match self.try_expand(stage, out) {
            Ok(done) => done,
            Err(error) => {
                self.cannot_begin(stage, error, now, out);
                true
            }
        }
    }

    fn try_expand(&mut self, stage: usize, out: &mut Out) -> Result<bool, WorkError> {
        let compiled = self.compiled.clone();
        let plan = &compiled.stages[stage];
        let Some(mut scope) = self.scope(&plan.begin_reads)? else {
            return Ok(false);
        };
        if self.stages[stage].expansion.is_none() {
            let Some(list) = self.items_of(stage, &scope)? else {
                return Ok(false);
            };
            let expansion = Expansion { list, at: 0, kept: 0, piece: Vec::new(), piece_bytes: 0, pieces_done: 0 };
            self.stages[stage].expansion = Some(expansion);
        }
        let Some(mut expansion) = self.stages[stage].expansion.take() else {
            return Ok(false);
        };
        let keep = if plan.members.is_empty() { plan.keep.as_ref() } else { None };
        let name = self.item_name(stage).map(str::to_owned);
        let reduces = matches!(compiled.plan[stage].mode, Mode::MapReduce { .. });
        let mut looked_at = 0;
        while expansion.at < expansion.list.len() {
            if looked_at >= TURN_ITEMS || !out.fits(PIECE_ROW_BYTES) {
                out.effects.more = true;
                self.stages[stage].expansion = Some(expansion);
                return Ok(false);
            }
            looked_at += 1;
            let index = expansion.at;
            let item = std::mem::take(&mut expansion.list[index]);
            expansion.at += 1;
            if let Some(keep) = keep {
                scope.set("item", item.clone());
                scope.set("index", Doc::number((index as u64).into()));
                if let Some(name) = &name {
                    scope.set(name, item.clone());
                }
                if !keeps(keep, &scope, index)? {
                    continue;
                }
            }
            let bytes = item.to_bytes();
            if bytes.len() > PIECE_BYTES {
                let text =
                    format!("item {index} of `over` has {} bytes (limit: item = {PIECE_BYTES}): scatter over references to the data instead", bytes.len());
                return Err(WorkError::new("limit", text));
            }
            if expansion.piece.len() >= PIECE_ITEMS || expansion.piece_bytes + bytes.len() > PIECE_BYTES {
                self.store_piece(stage, &mut expansion, out);
            }
            expansion.piece_bytes += bytes.len();
            expansion.piece.push(bytes);
            expansion.kept += 1;
        }
        if !expansion.piece.is_empty() {
            if !out.fits(PIECE_ROW_BYTES) {
                out.effects.more = true;
                self.stages[stage].expansion = Some(expansion);
                return Ok(false);
            }
            self.store_piece(stage, &mut expansion, out);
        }
        let at = &mut self.header.stages[stage];
        at.total = if reduces { super::reduce::tasks(expansion.kept) } else { expansion.kept };
        at.phase = Phase::Tasks;
        self.stages[stage].loaded = true;
        self.touched.insert(stage as u16);
        self.dirty = true;
        Ok(true)
    }

    fn store_piece(&mut self, stage: usize, expansion: &mut Expansion, out: &mut Out) {
        let piece = std::mem::take(&mut expansion.piece);
        expansion.piece_bytes = 0;
        let number = expansion.pieces_done as u32;
        let at = &mut self.header.stages[stage];
        if expansion.pieces_done >= at.pieces.len() {
            out.effects.put(items_key(self.id, stage as u16, number), wire::encode(&piece));
            at.pieces.push(expansion.kept);
            self.dirty = true;
        }
        expansion.pieces_done += 1;
        if number < 12 {
            self.stages[stage].pieces.insert(number, piece);
        }
    }

    fn items_of(&mut self, stage: usize, scope: &Scope) -> Result<Option<Vec<Doc>>, WorkError> {
        let compiled = self.compiled.clone();
        let plan = &compiled.stages[stage];
        let limit = self.limits.scatter_items;
        if let Mode::Fork { branches, .. } = &compiled.plan[stage].mode {
            return Ok(Some(branches.iter().map(|branch| Doc::from_value(&branch.item)).collect()));
        }
        let list = match &plan.over {
            Some(over) => {
                let value = over.eval(scope).map_err(|error| expression_error("`over`", &error))?;
                value.as_list().ok_or_else(|| {
                    let text = format!("`over` ({}) gives {} where a list is needed", over.text(), value.type_name());
                    WorkError::new("expression", text)
                })?
            }
            None => {
                let number = stage as u16;
                let Some(rows) = self.index.remove(&number) else {
                    self.read_index(stage);
                    return Ok(None);
                };
                let mut groups: Vec<String> = rows.into_iter().map(|(group, _, _)| group).collect();
                groups.dedup();
                // Invariant: a group is the JSON text of its key.
                groups.iter().map(|text| Doc::parse(text.as_bytes()).unwrap_or_else(|_| Doc::null())).collect()
            }
        };
        if list.len() as u64 > limit {
            let text = format!("the stage would have {} tasks (limit: scatter_items = {limit}): split the input over several runs", list.len());
            return Err(WorkError::new("limit", text));
        }
        Ok(Some(list))
    }

    /// The second name of a scatter's item.
    pub(super) fn item_name(&self, stage: usize) -> Option<&str> {
        match &self.definition(stage).mode {
            Mode::Scatter { item_as, .. } | Mode::MapReduce { item_as, .. } => item_as.as_deref(),
            _ => None,
        }
    }

    /// The group of an item that ended, for a gather over its stage: none if `where` leaves it out.
    pub(super) fn group_of(&self, gather: usize, item: u32, value: &Doc) -> Result<Option<String>, WorkError> {
        let plan = &self.compiled.stages[gather];
        let mut scope = Scope::new();
        scope.set("item", value.clone());
        scope.set("input", self.input_doc.clone().unwrap_or_else(Doc::null));
        scope.set("run", self.run_doc.clone());
        if let Some(keep) = &plan.keep
            && !keeps(keep, &scope, item as usize)?
        {
            return Ok(None);
        }
        let Some(group_by) = &plan.group_by else {
            return Ok(Some(String::new()));
        };
        let key = group_by.eval(&scope).map_err(|error| expression_error("`group_by`", &error))?;
        if !matches!(key.type_name(), "string" | "number" | "boolean") {
            let text = format!("`group_by` ({}) gives {} for item {item}: a key is a string, a number or a boolean", group_by.text(), key.type_name());
            return Err(WorkError::new("expression", text));
        }
        let text = String::from_utf8_lossy(&key.to_bytes()).into_owned();
        if text.len() > KEY_PART_BYTES {
            let text = format!("the group key of item {item} has {} bytes (limit: key_part = {KEY_PART_BYTES}): group by something shorter", text.len());
            return Err(WorkError::new("limit", text));
        }
        Ok(Some(text))
    }

    /// A stage that was asked for its stages' docs has them, or never will.
    pub(super) fn runs(&self, stage: usize) -> bool {
        self.header.stages[stage].state == StageState::Running && !self.header.state.ended()
    }
}

fn yes_or_no(place: &str, expression: &Expression, scope: &Scope) -> Result<bool, WorkError> {
    let value = expression.eval(scope).map_err(|error| expression_error(&format!("`{place}`"), &error))?;
    value.as_bool().ok_or_else(|| {
        let text = format!("`{place}` ({}) gives {} where true or false is needed", expression.text(), value.type_name());
        WorkError::new("expression", text)
    })
}

/// `where`: true stays, false and null do not, anything else is an error.
fn keeps(keep: &Expression, scope: &Scope, index: usize) -> Result<bool, WorkError> {
    let value = keep.eval(scope).map_err(|error| expression_error(&format!("`where` for item {index}"), &error))?;
    if value.is_null() {
        return Ok(false);
    }
    value.as_bool().ok_or_else(|| {
        let text = format!("`where` ({}) gives {} for item {index} where true, false or null is needed", keep.text(), value.type_name());
        WorkError::new("expression", text)
    })
}

fn read_time(value: &Doc) -> Result<Millis, WorkError> {
    let text = value.text();
    let wrong = || WorkError::new("expression", format!("`until` gives `{text}`: an RFC 3339 time is needed, such as 2027-01-31T08:00:00Z"));
    let time: jiff::Timestamp = value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    Ok(Millis(u64::try_from(time.as_millisecond()).unwrap_or(0)))
}

/// `{decision, by, at, comment}` as JSON.
pub(super) fn decision_doc(decision: &str, by: &str, at: Millis, comment: Option<&str>) -> Doc {
    Doc::object(vec![
        (Arc::from("decision"), Doc::string(decision)),
        (Arc::from("by"), Doc::string(by)),
        (Arc::from("at"), Doc::string(&at.to_string())),
        (Arc::from("comment"), comment.map_or_else(Doc::null, Doc::string)),
    ])
}
