//! The handler that every actor has: it changes one entry of the state, in the actor's line and in one commit.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::record::hand::etag;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ctx::{Ctx, untag};
use crate::registry::Handler;

/// Its name. No program can register it and no message can address it: only the verb with its own permit makes one.
pub(crate) const EDIT: &str = "state, by hand";

/// What stands for an entry that is not there.
pub(crate) const ABSENT: &str = "none";

/// What it is asked: the input that the invocation keeps.
#[derive(Serialize, Deserialize)]
pub(crate) struct Asked {
    pub name: String,
    /// The new value; none: the entry goes.
    pub set: Option<New>,
    pub if_match: Option<String>,
    pub reason: String,
}

/// A value, of which JSON null is one.
#[derive(Serialize, Deserialize)]
pub(crate) struct New {
    pub value: Box<RawValue>,
}

pub(crate) fn handler() -> Handler {
    Handler::Exclusive(Arc::new(|ctx: Ctx, input: Bytes| Box::pin(async move { run(&ctx, &input).await.map_err(terminal) })))
}

fn terminal(error: WorkError) -> AttemptError {
    AttemptError { error, retryable: false, retry_after_ms: None }
}

async fn run(ctx: &Ctx, input: &Bytes) -> Result<Bytes, WorkError> {
    let asked: Asked = serde_json::from_slice(input).map_err(|error| WorkError::new("json", format!("the edit does not read: {error}")))?;
    let before = untag(&ctx.state_get(&asked.name).await?).map(|value| etag(&value));
    let found = before.as_deref().unwrap_or(ABSENT);
    if let Some(wanted) = asked.if_match.filter(|wanted| if wanted == "*" { before.is_none() } else { wanted != found }) {
        let text = format!(
            "the entry `{}` has the etag {found}, not {wanted}: it was changed since it was read, and nothing was written; look at it again and edit what is there now",
            asked.name
        );
        return Err(WorkError::new("changed_since", text));
    }
    let after = match asked.set {
        Some(new) => {
            let value = Bytes::copy_from_slice(new.value.get().as_bytes());
            let after = etag(&value);
            ctx.state_set(&asked.name, value)?;
            Some(after)
        }
        None => {
            ctx.state_delete(&asked.name)?;
            None
        }
    };
    let said = serde_json::json!({ "name": asked.name, "before": before, "etag": after });
    Ok(Bytes::from(said.to_string()))
}
