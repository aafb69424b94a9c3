//! What waits for long, and how the engine is.

use std::time::Duration;

use selvedge_engine::listing::{Listed, row};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::{Filter, List, Operator, Says, Term, Value as Worth};
use selvedge_kernel::policy::Span;
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::Problem;
use super::perform::{Asker, value};
use super::runs::{Runs, sentence};
use crate::program;

/// What a filter keeps of what is open and has been for a span.
fn open_for(mut filter: Filter, span: Duration) -> Filter {
    let field = |name: &str, operator, value| Says::Field { name: name.to_owned(), operator, value };
    let ended = ["completed", "failed", "cancelled"].map(|state| Term { negated: true, says: field("status", Operator::Is, Worth::Text(state.to_owned())) });
    filter.terms.extend(ended);
    filter.terms.push(Term { negated: false, says: field("age", Operator::AtLeast, Worth::Duration(Span(span))) });
    filter
}

impl Asker<'_> {
    /// Actors, by type and key.
    pub(super) async fn actors(&self, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Actors, filter)?;
        value(&self.engine.find_actors(self.permit(Action::Read, Resource::Store)?, &filter).await?)
    }

    pub(super) async fn invocations(&self, listed: Listed, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Invocations, filter)?;
        let lines = self.engine.find_invocations(self.permit(Action::Read, Resource::Store)?, listed, &filter).await?;
        let shown = lines.iter().map(|line| {
            json!({
                "id": line.id.to_string(), "actor": line.actor, "handler": line.handler, "status": line.status,
                "attempt": line.attempt, "accepted_at": line.accepted_at.to_string(), "accepted_at_ms": line.accepted_at,
            })
        });
        Ok(Value::Array(shown.collect()))
    }

    /// Runs and invocations that have been open for longer than a span, the oldest first, each with its sentence.
    pub(super) async fn stuck(&self, longer_than: Duration, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Stuck, filter)?;
        let before = Millis(self.engine.now().0.saturating_sub(u64::try_from(longer_than.as_millis()).unwrap_or(u64::MAX)));
        let mut found: Vec<(Millis, Value)> = Vec::new();
        for line in self.engine.oldest_invocations(self.permit(Action::Read, Resource::Store)?, before, &filter).await? {
            let id = line.id.to_string();
            let why = self.engine.why(self.work(Action::Read, &id)?, line.id).await?;
            if !why.status.ended() {
                found.push((
                    line.accepted_at,
                    json!({ "id": id, "status": why.status, "since": line.accepted_at.to_string(), "since_ms": line.accepted_at, "sentence": why.sentence() }),
                ));
            }
        }
        for run in self.engine.find_runs(self.permit(Action::Read, Resource::Store)?, &open_for(filter, longer_than)).await? {
            if run.state.ended() || run.started_at > before {
                continue;
            }
            let id = run.id.to_string();
            let status = Runs(*self).status(&id).await?;
            if !status.state.ended() {
                found.push((
                    run.started_at,
                    json!({ "id": id, "status": status.state, "since": run.started_at.to_string(), "since_ms": run.started_at, "sentence": sentence(&status) }),
                ));
            }
        }
        found.sort_by_key(|(since, _)| *since);
        Ok(Value::Array(found.into_iter().map(|(_, line)| line).collect()))
    }

    pub(super) async fn health(&self) -> Result<Value, Problem> {
        let letters = self.engine.dead_letters(self.permit(Action::Operate, Resource::Store)?).await?.len();
        let programs = self.engine.programs();
        let missing: Vec<String> = programs
            .iter()
            .filter_map(|(name, exec)| program::missing(&exec.command, std::path::Path::new(&exec.folder)).map(|(what, _)| format!("`{name}`: {what}")))
            .collect();
        let census = self.engine.census(self.permit(Action::Operate, Resource::Store)?).await?;
        Ok(json!({
            "stopped": self.engine.stopped(), "now_ms": self.engine.now(), "dead_letters": letters, "programs": programs.len(),
            "missing": missing, "limits": self.engine.limits(), "in_memory": census,
        }))
    }
}
