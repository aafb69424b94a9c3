//! What whoever follows a run asks, beside the verbs.

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::id::RunId;
use selvedge_kernel::pipeline::definition::Definition;
use serde_json::Value;

use super::{Problem, Runs, of_bytes};
use crate::runs::RunStart;

impl Runs<'_> {
    /// Starts a run of a definition that is at hand.
    pub async fn start(&self, definition: Definition, input: Bytes, key: String) -> Result<RunId, Problem> {
        let resource = Resource::Pipeline { tenant: self.0.tenant(), name: definition.name.clone() };
        let permit = self.0.permit(Action::Start, resource)?;
        Ok(self.0.engine.start_run(permit, definition, input, RunStart { key: Some(key), trace: None }).await?)
    }

    /// The number of the event that comes next.
    pub async fn next_event(&self, id: &str) -> Result<u64, Problem> {
        let mut next = 0;
        loop {
            let page = self.engine_events(id, next, false).await?;
            match page.last() {
                Some((number, _)) => next = number + 1,
                None => return Ok(next),
            }
        }
    }

    /// The output of a completed run.
    pub async fn output(&self, id: &str) -> Result<Value, Problem> {
        Ok(self.end(id).await?.output.map_or(Value::Null, |output| of_bytes(&output)))
    }
}
