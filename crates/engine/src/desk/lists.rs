//! Lists.

use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::filter::List;
use serde_json::{Value, json};

use super::json::value;
use super::{Asker, Problem};
use crate::listing::{Listed, row};

impl Asker<'_> {
    /// Actors, by type and key.
    pub async fn actors(&self, filter: &str) -> Result<Value, Problem> {
        let filter = row::filter(List::Actors, filter)?;
        value(&self.engine.find_actors(self.permit(Action::Read, Resource::Store)?, &filter).await?)
    }

    /// Invocations, the newest first.
    pub async fn invocations(&self, listed: Listed, filter: &str) -> Result<Value, Problem> {
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
}
