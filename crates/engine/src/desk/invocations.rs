//! The verbs on actors and their invocations.

use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ApprovalId, IdError, InvocationId, RunId};
use selvedge_kernel::record::invocation::Blocked;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::waiting::Waiting;
use serde_json::{Value, json};

use super::json::{of_bytes, text_of, value};
use super::why::{Place, in_json, who};
use super::{Asker, Invoke, Problem};
use crate::engine::{Ask, Called};
use crate::shard::{Answer, Progress, SignalTarget};
use crate::why::Why;

impl Asker<'_> {
    /// Delivers a signal to an actor.
    pub async fn signal_actor(&self, kind: String, key: String, name: &str, payload: String, idempotency_key: Option<String>) -> Result<Value, Problem> {
        let actor = self.actor(kind, key);
        let permit = self.permit(Action::Signal, Resource::Handler { actor: actor.clone(), handler: String::new() })?;
        self.engine.signal(permit, SignalTarget::Actor(actor), name, text_of(payload)?, idempotency_key).await?;
        Ok(Value::Null)
    }

    /// The state of an actor: its entries by name.
    pub async fn state(&self, kind: String, key: String) -> Result<Value, Problem> {
        let entries = self.state_of(kind, key).await?;
        Ok(Value::Object(entries.into_iter().map(|(name, bytes)| (name, of_bytes(&bytes))).collect()))
    }

    /// Waits for the end of an invocation.
    pub async fn ended(&self, id: &str) -> Result<Value, Problem> {
        answer(self.engine.result(self.work(Action::Read, id)?, invocation_id(id)?, true).await?)
    }

    /// What an invocation has come to so far. Errors: the error of its work, if it failed.
    pub async fn so_far(&self, id: &str) -> Result<Value, Problem> {
        answer(self.engine.result(self.work(Action::Read, id)?, invocation_id(id)?, false).await?)
    }

    /// The same, the error of its work being an end like another.
    pub async fn progress(&self, id: &str) -> Result<Progress, Problem> {
        Ok(self.engine.result(self.work(Action::Read, id)?, invocation_id(id)?, false).await?.progress)
    }

    /// What an invocation has emitted from a position on, a page of it.
    pub async fn output(&self, id: &str, from: u64) -> Result<Vec<(u64, Bytes)>, Problem> {
        Ok(self.engine.output(self.work(Action::Read, id)?, invocation_id(id)?, from).await?)
    }

    /// Whether its turn has come.
    pub async fn has_started(&self, id: &str) -> Result<bool, Problem> {
        let why = self.engine.why(self.work(Action::Read, id)?, invocation_id(id)?).await?;
        Ok(why.attempt > 0 && !matches!(why.waiting[..], [Waiting::Behind { .. }]))
    }

    /// Delivers a signal to an invocation.
    pub async fn signal_invocation(&self, id: &str, name: &str, payload: String, idempotency_key: Option<String>) -> Result<Value, Problem> {
        let permit = self.work(Action::Signal, id)?;
        self.engine.signal(permit, SignalTarget::Invocation(invocation_id(id)?), name, text_of(payload)?, idempotency_key).await?;
        Ok(Value::Null)
    }

    /// Asks an invocation to end.
    pub async fn cancel(&self, id: &str, reason: &str) -> Result<Value, Problem> {
        self.engine.cancel(self.work(Action::Control, id)?, invocation_id(id)?, reason).await?;
        Ok(Value::Null)
    }

    /// Ends an invocation at once.
    pub async fn kill(&self, id: &str, reason: &str) -> Result<Value, Problem> {
        self.engine.kill(self.work(Action::Rewrite, id)?, invocation_id(id)?, reason).await?;
        Ok(Value::Null)
    }

    /// Looks at a blocked invocation again.
    pub async fn retry(&self, id: &str) -> Result<Value, Problem> {
        self.engine.retry(self.work(Action::Control, id)?, invocation_id(id)?).await?;
        Ok(Value::Null)
    }

    /// Calls a handler, or sends to it. Errors: what the engine says, `not_json`, or the error of the work that was waited for.
    pub async fn invoke(&self, asked: Invoke, wait: bool) -> Result<Value, Problem> {
        let (permit, input, ask) = self.asked(asked)?;
        answer(self.engine.invoke(permit, input, Ask { wait, ..ask }).await?)
    }

    /// Calls a handler: its end is for [`answer`], or nobody waits for it any more. Errors: as of [`Asker::invoke`].
    pub async fn call(&self, asked: Invoke) -> Result<Called<'_>, Problem> {
        let (permit, input, ask) = self.asked(asked)?;
        Ok(self.engine.call(permit, input, ask).await?)
    }

    /// Whether the asker may call a handler.
    pub fn may_call(&self, asked: &Invoke) -> Result<(), Problem> {
        let actor = self.actor(asked.kind.clone(), asked.key.clone());
        self.permit(Action::Invoke, Resource::Handler { actor, handler: asked.handler.clone() }).map(drop)
    }

    fn asked(&self, asked: Invoke) -> Result<(Permit, Bytes, Ask), Problem> {
        let actor = self.actor(asked.kind, asked.key);
        let permit = self.permit(Action::Invoke, Resource::Handler { actor, handler: asked.handler })?;
        let delay = asked.delay_ms.filter(|delay| *delay > 0).map(Duration::from_millis);
        Ok((permit, text_of(asked.input)?, Ask { idempotency_key: asked.idempotency_key, delay, trace: asked.trace, ..Ask::default() }))
    }

    /// Where an invocation stands, and its result.
    pub async fn invocation(&self, id: &str) -> Result<Value, Problem> {
        let parsed = invocation_id(id)?;
        let why = self.engine.why(self.work(Action::Read, id)?, parsed).await?;
        let result = self.engine.result(self.work(Action::Read, id)?, parsed, false).await?;
        let mut shown = json!({
            "id": id, "actor": why.actor.to_string(), "handler": why.handler, "status": why.status, "attempt": why.attempt,
            "accepted_at": why.accepted_at.to_string(), "last_error": why.last_error, "waiting": why.waiting, "sentence": in_words(&why, self.binary), "build": in_json(&why.builds),
            "caller": who(&why.caller)?,
        });
        if let Some(from) = why.forks.from {
            shown["forked_from"] = from.to_string().into();
        }
        if !why.forks.into.is_empty() {
            shown["forks"] = why.forks.into.iter().map(ToString::to_string).collect();
        }
        match result.progress {
            Progress::Ended(Outcome::Value(bytes)) => shown["result"] = of_bytes(&bytes),
            Progress::Ended(Outcome::Error(error)) => shown["error"] = value(&error)?,
            Progress::Open => {}
        }
        Ok(shown)
    }

    pub(super) async fn place(&self, id: &str) -> Result<Place, Problem> {
        let why = self.engine.why(self.work(Action::Read, id)?, invocation_id(id)?).await?;
        Ok(Place {
            sentence: in_words(&why, self.binary),
            status: value(&why.status)?,
            last_error: value(&why.last_error)?,
            builds: Some(why.builds),
            caller: Some(why.caller),
            waiting: why.waiting,
        })
    }
}

/// The sentence of an invocation; of one that lacks code with the binary that lacks it: it may be another one than was deployed.
pub(super) fn in_words(why: &Why, binary: &str) -> String {
    let sentence = why.sentence();
    if !why.blocked.as_ref().is_some_and(Blocked::lacks_code) {
        return sentence;
    }
    format!("{sentence} {binary}")
}

/// An answer as JSON. Errors: that of work which failed.
pub fn answer(answer: Answer) -> Result<Value, Problem> {
    let id = answer.id.map(|id| id.to_string());
    match answer.progress {
        Progress::Ended(Outcome::Value(bytes)) => Ok(json!({ "id": id, "result": of_bytes(&bytes) })),
        Progress::Ended(Outcome::Error(error)) => {
            let who = id.map(|id| format!("{id} failed: ")).unwrap_or_default();
            Err(Problem::new(Consequence::WorkFailed, &error.code, format!("{who}{error}")))
        }
        Progress::Open if answer.joined => Ok(json!({ "id": id, "joined": true })),
        Progress::Open => Ok(json!({ "id": id })),
    }
}

pub(super) fn invocation_id(id: &str) -> Result<InvocationId, Problem> {
    id.parse().map_err(|error: IdError| no_id(id, "an invocation", &error))
}

/// The error of an id of the wrong kind, with the verb for the kind that it is, or of what is no id at all.
pub(super) fn no_id(id: &str, wanted: &str, error: &IdError) -> Problem {
    let text = if id.parse::<RunId>().is_ok() {
        format!("{id} is a run, and {wanted} is wanted here: `selvedge runs show {id}` shows it")
    } else if id.parse::<InvocationId>().is_ok() {
        format!("{id} is an invocation, and {wanted} is wanted here: `selvedge invocations show {id}` shows it")
    } else if id.parse::<ApprovalId>().is_ok() {
        format!("{id} is an approval, and {wanted} is wanted here: `selvedge approvals list` names its run")
    } else if id.contains('/') {
        format!("`{id}` is an actor, and {wanted} is wanted here: `selvedge actors state {id}` shows it")
    } else {
        error.to_string()
    };
    Problem::new(Consequence::FixInput, "bad_id", text)
}

/// The error of an id that is neither a run nor an invocation.
#[must_use]
pub fn no_work(id: &str) -> Problem {
    let text = if id.contains('/') {
        format!("`{id}` is an actor: `selvedge actors state {id}` shows it; `why` wants the id of a run or of an invocation")
    } else if id.parse::<ApprovalId>().is_ok() {
        format!("{id} is an approval: `selvedge approvals list` names its run, and `why` says of that what it waits for")
    } else {
        format!("`{id}` is no id: expected run_… (`selvedge runs list` has them) or inv_… (`selvedge actors send` prints it)")
    };
    Problem::new(Consequence::FixInput, "bad_id", text)
}
