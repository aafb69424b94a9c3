//! What is done by hand: journals read, state edited, operations decided, invocations forked, many of them tried again.

use crate::hand::{Fork, JournalLine, Resolve, StateEdit};
use crate::listing::{Listed, Page, row};
use bytes::Bytes;
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::WorkError;
use selvedge_kernel::filter::List;
use selvedge_kernel::id::ActorId;
use selvedge_kernel::record::hand::etag;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Problem;
use super::asker::Asker;
use super::invocations::{answer, invocation_id};
use super::json::{of_bytes, text_of, value};

/// A change of an actor's state. Values are JSON as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditState {
    /// The actor's type.
    pub kind: String,
    /// Its key.
    pub key: String,
    /// The entry.
    pub name: String,
    /// Its new value; none: it goes.
    pub set: Option<String>,
    /// The etag that it must have now.
    pub if_match: Option<String>,
    /// Why.
    pub reason: String,
    /// The same key, the same edit.
    pub idempotency_key: Option<String>,
}

/// What an operation is given by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gives {
    /// JSON as text.
    Result(String),
    /// An error.
    Error {
        /// Its code.
        code: String,
        /// Its text.
        message: String,
    },
}

impl Asker<'_> {
    /// A page of a journal.
    pub async fn journal(&self, id: &str, from: u32) -> Result<Value, Problem> {
        let page = self.engine.journal(self.work(Action::Read, id)?, invocation_id(id)?, from).await?;
        let lines: Result<Vec<Value>, Problem> = page.entries.iter().map(line).collect();
        Ok(json!({ "entries": lines?, "next": page.next }))
    }

    /// The state of an actor, each entry with what an edit names.
    pub async fn etags(&self, kind: String, key: String) -> Result<Value, Problem> {
        let entries = self.state_of(kind, key).await?;
        let entry = |(name, bytes): (String, Bytes)| (name, json!({ "etag": etag(&bytes), "value": of_bytes(&bytes) }));
        Ok(Value::Object(entries.into_iter().map(entry).collect::<Map<_, _>>()))
    }

    pub(super) async fn state_of(&self, kind: String, key: String) -> Result<Vec<(String, Bytes)>, Problem> {
        let actor_type = kind.clone();
        let actor = ActorId { tenant: self.tenant(), kind, key };
        let permit = self.permit(Action::Read, Resource::Handler { actor, handler: String::new() })?;
        let entries = self.engine.state(permit).await?;
        if entries.is_empty() {
            // What an earlier manifest declared may still have state.
            self.engine.check_actor_type(&actor_type)?;
        }
        Ok(entries)
    }

    /// Changes an entry of an actor's state by hand. Errors: `changed_since`, when its etag is another one.
    pub async fn edit_state(&self, asked: EditState) -> Result<Value, Problem> {
        // A type that nothing declares has no actors, unless one is there.
        self.state_of(asked.kind.clone(), asked.key.clone()).await?;
        let actor = ActorId { tenant: self.tenant(), kind: asked.kind, key: asked.key };
        let permit = self.permit(Action::Rewrite, Resource::Handler { actor, handler: String::new() })?;
        let set = asked.set.map(text_of).transpose()?;
        let edit = StateEdit { name: asked.name, set, if_match: asked.if_match, reason: asked.reason, idempotency_key: asked.idempotency_key };
        answer(self.engine.edit_state(permit, edit).await?)
    }

    /// Decides an operation by hand.
    pub async fn resolve(&self, id: &str, operation: u32, gives: Gives, reason: String) -> Result<Value, Problem> {
        let gives = match gives {
            Gives::Result(text) => Ok(text_of(text)?),
            Gives::Error { code, message } => Err(WorkError::new(code, message)),
        };
        let resolve = Resolve { id: invocation_id(id)?, operation, gives, reason };
        value(&self.engine.resolve(self.work(Action::Rewrite, id)?, resolve).await?)
    }

    /// Makes a new invocation with a copy of the journal of another one.
    pub async fn fork(&self, id: &str, from: Option<u32>, kill_original: bool, reason: String, key: String) -> Result<Value, Problem> {
        let fork = Fork { id: invocation_id(id)?, from, kill_original, reason, key };
        let forked = self.engine.fork(self.work(Action::Rewrite, id)?, fork).await?;
        Ok(json!({ "id": forked.id.to_string(), "forked_from": id, "entries": forked.entries }))
    }

    /// Tries those again that a filter keeps and that are blocked, or says which it would be.
    pub async fn retry_where(&self, text: &str, dry_run: bool) -> Result<Value, Problem> {
        // Once by itself, so that an error names its columns.
        row::filter(List::Invocations, text)?;
        let filter = row::filter(List::Invocations, &format!("status:blocked {text}"))?;
        let found = self.engine.find_invocations(self.permit(Action::Read, Resource::Store)?, Listed::Open, &filter, &Page::default()).await?;
        let mut retried = Vec::new();
        let mut left = Vec::new();
        for line in &found {
            let id = line.id.to_string();
            if dry_run {
                continue;
            }
            match self.engine.retry(self.work(Action::Control, &id)?, line.id).await {
                Ok(()) => retried.push(id),
                // It went on, or ended, since it was listed.
                Err(error) => left.push(json!({ "id": id, "reason": error.message })),
            }
        }
        let matched: Vec<Value> = found
            .iter()
            .map(|line| json!({ "id": line.id.to_string(), "actor": line.actor, "handler": line.handler, "accepted_at": line.accepted_at.to_string() }))
            .collect();
        Ok(json!({ "matched": matched, "retried": retried, "left": left }))
    }
}

/// An entry; its time is RFC 3339.
fn line(entry: &JournalLine) -> Result<Value, Problem> {
    let mut shown = value(entry)?;
    shown["at"] = entry.at.to_string().into();
    Ok(shown)
}
