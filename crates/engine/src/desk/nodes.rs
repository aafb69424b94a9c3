//! The processes that own shards.

use selvedge_kernel::auth::{Action, Resource};
use serde_json::{Value, json};

use super::{Asker, Problem};
use crate::node::Node;

impl Asker<'_> {
    /// The processes that own shards of this store: the one that answers, which owns them all.
    ///
    /// # Errors
    /// What the policy says.
    pub fn nodes(&self) -> Result<Value, Problem> {
        let permit = self.permit(Action::Read, Resource::Store)?;
        let Node { id, build, since, shards, stopped } = self.engine.node(&permit)?;
        let status = if stopped.is_none() { "working" } else { "stopped" };
        Ok(json!([{
            "id": format!("{id:016x}"), "build": build.map(|build| build.to_string()), "since": since.to_string(),
            "shards": [{ "first": 0, "last": shards.saturating_sub(1) }], "status": status, "reason": stopped,
        }]))
    }
}
