//! A pipeline that lets only so many of its runs go at once: a run asks its line before it starts anything.

use super::effects::Command;
use super::{Out, Run};
use crate::error::WorkError;
use crate::id::RunId;
use crate::limit::KEY_PART_BYTES;
use crate::pipeline::expression::Scope;
use crate::record::line::{Entering, LineId, LineSays};
use crate::record::run::InLine;
use crate::time::Millis;

impl Run {
    /// Whether the run may go; asks its line if it has not in this process. A run that undoes what it did goes on.
    pub(super) fn may_go(&mut self, now: Millis, out: &mut Out) -> bool {
        if self.compiled.definition.concurrency.is_none() || self.annex.ending.is_some() || self.annex.line.as_ref().is_some_and(|line| line.admitted) {
            return true;
        }
        if self.annex.line.is_none() {
            match self.line_key() {
                Ok(key) => {
                    self.annex.line = Some(InLine { key, admitted: false });
                    self.annex_changed = true;
                    self.dirty = true;
                }
                Err(error) => {
                    self.fail_run(error, now, out);
                    return false;
                }
            }
        }
        if !self.asked_line
            && let Some(entering) = self.entering()
        {
            self.asked_line = true;
            out.effects.commands.push(Command::EnterLine { entering, above: self.above(), left: self.left_behind() });
        }
        false
    }

    /// The runs that wait for this one: whoever calls it, whoever calls that one, and so on; not beyond one that a handler
    /// started, since nobody knows here who waits for that. The nearest first.
    fn above(&self) -> Vec<RunId> {
        let hops = if self.annex.parent.is_some() { self.context.chain.as_slice() } else { &[] };
        hops.iter().rev().map_while(|hop| RunId::of_actor(&hop.actor)).collect()
    }

    fn line_key(&self) -> Result<String, WorkError> {
        let Some(key) = &self.compiled.line_key else { return Ok(String::new()) };
        let mut scope = Scope::new();
        scope.set("input", self.input_doc.clone().unwrap_or_else(crate::pipeline::expression::Doc::null));
        scope.set("run", self.run_doc.clone());
        let value = key.eval(&scope).map_err(|error| super::begin::expression_error("`concurrency.key`", &error))?;
        if !matches!(value.type_name(), "string" | "number" | "boolean") {
            let text = format!("`concurrency.key` ({}) gives {}: a key is a string, a number or a boolean", key.text(), value.type_name());
            return Err(WorkError::new("expression", text));
        }
        let text = value.text();
        if text.starts_with('\u{0}') {
            let text = format!("`concurrency.key` ({}) gives a text that begins with NUL, which is no key: take it out", key.text());
            return Err(WorkError::new("expression", text));
        }
        if text.len() > KEY_PART_BYTES {
            return Err(WorkError::new("limit", format!("`concurrency.key` gives {} bytes (limit: key_part = {KEY_PART_BYTES})", text.len())));
        }
        Ok(text)
    }

    /// Its place in line, if its pipeline has one and it has asked for it.
    #[must_use]
    pub fn entering(&self) -> Option<Entering> {
        self.place_in(self.annex.line.as_ref()?.key.clone())
    }

    /// The lines that sent it further down. An earlier process may have asked one of them a second time, which may have had
    /// room then: it is left for good when the run asks where it was sent.
    fn left_behind(&self) -> Vec<Entering> {
        let Some(own) = self.annex.line.as_ref().map(|line| &line.key).filter(|key| LineId::above(key).is_some()) else { return Vec::new() };
        let value = LineId::value(own);
        let mut keys = vec![value.to_owned()];
        keys.extend(self.above().into_iter().map(|holder| LineId::key_below(holder, value)).filter(|key| key != own));
        keys.into_iter().filter_map(|key| self.place_in(key)).collect()
    }

    fn place_in(&self, key: String) -> Option<Entering> {
        let concurrency = self.compiled.definition.concurrency.as_ref()?;
        let line = LineId { tenant: self.header.tenant.clone(), pipeline: self.header.pipeline.clone(), key };
        let limit = if LineId::above(&line.key).is_some() { 1 } else { concurrency.limit };
        Some(Entering { line, run: self.id, limit, when_full: concurrency.when_full })
    }

    /// Whether it waits in line.
    pub(super) fn in_line(&self) -> bool {
        self.annex.line.as_ref().is_some_and(|line| !line.admitted)
    }

    /// Takes what its line says.
    pub(super) fn line_says(&mut self, says: LineSays, now: Millis, out: &mut Out) {
        let Some(line) = self.annex.line.as_mut().filter(|line| !line.admitted) else { return };
        if self.header.state.ended() {
            return;
        }
        match says {
            LineSays::Admitted => {
                line.admitted = true;
                self.annex_changed = true;
                self.dirty = true;
            }
            LineSays::Waits { holder } => self.line_holder = Some(holder),
            LineSays::Below { asked, .. } if asked != line.key => {}
            LineSays::Below { holder, .. } => {
                line.key = LineId::key_below(holder, &line.key);
                self.asked_line = false;
                self.annex_changed = true;
                self.dirty = true;
            }
            LineSays::Full { holder } => {
                let key = LineId::value(&line.key);
                let of = if key.is_empty() { String::new() } else { format!(" for `{key}`") };
                let limit = self.entering().map_or(0, |entering| entering.limit);
                let text = format!("{limit} runs of `{}` go{of} already, {holder} the first of them (`when_full: reject`)", self.header.pipeline);
                self.fail_run(WorkError::new("run_limit", text), now, out);
            }
        }
    }
}
