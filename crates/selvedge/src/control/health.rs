//! What waits for long, and how the engine is.

use std::time::Duration;

use selvedge_engine::listing::Listed;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::time::Millis;
use serde_json::{Value, json};

use super::Problem;
use super::perform::Asker;
use super::runs::{Runs, sentence};
use crate::program;

impl Asker<'_> {
    pub(super) async fn invocations(&self, listed: Listed) -> Result<Value, Problem> {
        let lines = self.engine.list_invocations(self.permit(Action::Read, Resource::Store)?, listed).await?;
        let shown = lines.iter().map(|line| {
            json!({
                "id": line.id.to_string(), "actor": line.actor, "handler": line.handler, "status": line.status,
                "attempt": line.attempt, "accepted_at": line.accepted_at.to_string(), "accepted_at_ms": line.accepted_at,
            })
        });
        Ok(Value::Array(shown.collect()))
    }

    /// Runs and invocations that have been open for longer than a span, the oldest first, each with its sentence.
    pub(super) async fn stuck(&self, longer_than: Duration) -> Result<Value, Problem> {
        let before = Millis(self.engine.now().0.saturating_sub(u64::try_from(longer_than.as_millis()).unwrap_or(u64::MAX)));
        let mut found: Vec<(Millis, Value)> = Vec::new();
        for line in self.engine.oldest_invocations(self.permit(Action::Read, Resource::Store)?, before).await? {
            let id = line.id.to_string();
            let why = self.engine.why(self.work(Action::Read, &id)?, line.id).await?;
            if !why.status.ended() {
                found.push((
                    line.accepted_at,
                    json!({ "id": id, "status": why.status, "since": line.accepted_at.to_string(), "since_ms": line.accepted_at, "sentence": why.sentence() }),
                ));
            }
        }
        for run in self.engine.list_runs(self.permit(Action::Read, Resource::Store)?).await? {
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
