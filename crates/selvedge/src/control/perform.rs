//! Requests of the command line as verbs of the engine, by whoever owns this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use selvedge_engine::engine::{Ask, Engine};
use selvedge_engine::listing::Listed;
use selvedge_engine::verify::Extent;
use selvedge_engine::why::Why;
use selvedge_engine::{Answer, Progress, SignalTarget};
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ActorId, ApprovalId, IdError, InvocationId, RunId};
use selvedge_kernel::record::invocation::Blocked;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::time::Millis;
use selvedge_store::EmbeddedStore;
use serde::Serialize;
use serde_json::{Value, json};

use super::pipelines::Pipelines;
use super::runs::Runs;
use super::schedules::Schedules;
use super::why::{Place, in_json, why};
use super::{Invoke, Problem, Request};

/// What a data directory is worked with by the process that holds it.
#[derive(Clone)]
pub struct Desk {
    /// The engine.
    pub(crate) engine: Arc<Engine>,
    /// The store below it.
    pub(crate) store: Arc<EmbeddedStore>,
    /// The directory.
    pub(crate) data: PathBuf,
    /// The tenant of the local owner.
    pub(crate) tenant: String,
}

impl Desk {
    pub(super) fn asker(&self) -> Asker<'_> {
        Asker { engine: &self.engine, tenant: &self.tenant }
    }
}

/// Does what is asked, as the local owner of a tenant.
///
/// # Errors
/// What the engine or the policy says.
pub async fn perform(desk: &Desk, request: Request) -> Result<Value, Problem> {
    let asker = desk.asker();
    let engine = asker.engine;
    match request {
        Request::Call(invoke) => asker.invoke(invoke, true).await,
        Request::Send(invoke) => asker.invoke(invoke, false).await,
        Request::SignalActor { kind, key, name, payload, idempotency_key } => {
            let actor = asker.actor(kind, key);
            let permit = asker.permit(Action::Signal, Resource::Handler { actor: actor.clone(), handler: String::new() })?;
            engine.signal(permit, SignalTarget::Actor(actor), &name, text_of(payload)?, idempotency_key).await?;
            Ok(Value::Null)
        }
        Request::State { kind, key } => {
            let entries = asker.state_of(kind, key).await?;
            Ok(Value::Object(entries.into_iter().map(|(name, bytes)| (name, of_bytes(&bytes))).collect()))
        }
        Request::StateEtags { kind, key } => asker.etags(kind, key).await,
        Request::EditState(edit) => asker.edit_state(edit).await,
        Request::Journal { id, from } => asker.journal(&id, from).await,
        Request::Resolve { id, operation, gives, reason } => asker.resolve(&id, operation, gives, reason).await,
        Request::ForkRun { id, from, input, reason, key } => Runs(asker).fork(&id, from, input, reason, key).await,
        Request::Fork { id, from, kill_original, reason, key } => asker.fork(&id, from, kill_original, reason, key).await,
        Request::RetryWhere { filter, dry_run } => asker.retry_where(&filter, dry_run).await,
        Request::RunJournal { id, from } => value(&Runs(asker).engine_events(&id, from, false).await?),
        Request::Invocation { id } => asker.invocation(&id).await,
        Request::CancelInvocation { id, reason } => {
            engine.cancel(asker.work(Action::Control, &id)?, invocation_id(&id)?, &reason).await?;
            Ok(Value::Null)
        }
        Request::KillInvocation { id, reason } => {
            engine.kill(asker.work(Action::Rewrite, &id)?, invocation_id(&id)?, &reason).await?;
            Ok(Value::Null)
        }
        Request::RetryInvocation { id } => {
            engine.retry(asker.work(Action::Control, &id)?, invocation_id(&id)?).await?;
            Ok(Value::Null)
        }
        Request::Why { id } if id.starts_with(RunId::PREFIX) || id.starts_with(InvocationId::PREFIX) => why(asker, id).await,
        Request::Why { id } => Err(no_work(&id)),
        Request::Await { id } => answer(engine.result(asker.work(Action::Read, &id)?, invocation_id(&id)?, true).await?),
        Request::Invocations { all, filter } => asker.invocations(if all { Listed::All } else { Listed::Open }, &filter).await,
        Request::Stuck { longer_than_ms, filter } => asker.stuck(longer_than_ms.map(Duration::from_millis), &filter).await,
        Request::Health => asker.health().await,
        Request::Approvals { filter } => Runs(asker).approvals(&filter).await,
        Request::Approval { id, stage } => Runs(asker).approval(&id, stage).await,
        Request::Runs { filter } => Runs(asker).list(&filter).await,
        Request::Actors { filter } => asker.actors(&filter).await,
        Request::Run { id } => Runs(asker).show(&id).await,
        Request::RunEvents { id, from } => value(&Runs(asker).events(&id, from).await?),
        Request::SteerRun { id, steer } => Runs(asker).steer(&id, steer).await,
        Request::Decide { id, stage, answer, by, comment } => Runs(asker).decide(&id, stage, answer, &by, &comment).await,
        Request::SignalRun { id, name, payload, idempotency_key } => Runs(asker).signal(&id, &name, payload, idempotency_key).await,
        Request::PutPipeline { definition } => Pipelines(asker).put(&definition).await,
        Request::Pipeline { name } => Pipelines(asker).show(&name).await,
        Request::Pipelines => Pipelines(asker).list().await,
        Request::DiffPipeline { name, before, after } => Pipelines(asker).diff(&name, &before, &after).await,
        Request::StartPipeline { name, version, input, key } => Pipelines(asker).start(&name, version.as_deref(), input, key).await,
        Request::Schedules { filter } => Schedules(asker).list(&filter).await,
        Request::Schedule { pipeline } => Schedules(asker).show(&pipeline).await,
        Request::SteerSchedule { pipeline, steer } => Schedules(asker).steer(&pipeline, steer).await,
        Request::DeadLetters { filter } => asker.dead_letters(&filter).await,
        Request::DeadLetter { id } => asker.dead_letter(&id).await,
        Request::Redrive { id, input } => asker.redrive(&id, input).await,
        Request::Backup { to } => desk.backup(to).await,
        Request::Export { to } => desk.export(to).await,
        Request::Verify { quick, against } => {
            let extent = Extent { quick, against };
            value(&engine.verify_extent(asker.permit(Action::Operate, Resource::Store)?, &extent).await?)
        }
        Request::Heads => value(&engine.heads(asker.permit(Action::Operate, Resource::Store)?).await?),
    }
}

/// Who asks, and whom.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub engine: &'a Engine,
    pub tenant: &'a str,
}

impl Asker<'_> {
    pub(crate) fn permit(&self, action: Action, resource: Resource) -> Result<Permit, Problem> {
        let now = self.engine.now();
        Ok(authorize(local(self.tenant, now), action, resource, now)?)
    }

    pub(super) fn work(&self, action: Action, id: &str) -> Result<Permit, Problem> {
        self.permit(action, Resource::Work { tenant: self.tenant.to_owned(), id: id.to_owned() })
    }

    fn actor(&self, kind: String, key: String) -> ActorId {
        ActorId { tenant: self.tenant.to_owned(), kind, key }
    }

    async fn invoke(&self, asked: Invoke, wait: bool) -> Result<Value, Problem> {
        let actor = self.actor(asked.kind, asked.key);
        let permit = self.permit(Action::Invoke, Resource::Handler { actor, handler: asked.handler })?;
        let ask = Ask { idempotency_key: asked.idempotency_key, wait, ..Ask::default() };
        answer(self.engine.invoke(permit, text_of(asked.input)?, ask).await?)
    }

    async fn invocation(&self, id: &str) -> Result<Value, Problem> {
        let parsed = invocation_id(id)?;
        let why = self.engine.why(self.work(Action::Read, id)?, parsed).await?;
        let result = self.engine.result(self.work(Action::Read, id)?, parsed, false).await?;
        let mut shown = json!({
            "id": id, "actor": why.actor.to_string(), "handler": why.handler, "status": why.status, "attempt": why.attempt,
            "accepted_at": why.accepted_at.to_string(), "last_error": why.last_error, "waiting": why.waiting, "sentence": in_words(&why), "build": in_json(&why.builds),
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
        Ok(Place { sentence: in_words(&why), status: value(&why.status)?, last_error: value(&why.last_error)?, builds: Some(why.builds), waiting: why.waiting })
    }
}

/// The sentence of an invocation; of one that lacks code with the binary that lacks it: it may be another one than was deployed.
pub(super) fn in_words(why: &Why) -> String {
    let sentence = why.sentence();
    if !why.blocked.as_ref().is_some_and(Blocked::lacks_code) {
        return sentence;
    }
    let version = env!("CARGO_PKG_VERSION");
    let binary = std::env::current_exe().map_or_else(|_| "not known".to_owned(), |file| file.display().to_string());
    let built = std::fs::metadata(&binary).and_then(|of| of.modified()).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let built = built.map(|at| format!(", written {}", Millis(0).after(at))).unwrap_or_default();
    format!("{sentence} This binary is {binary} (selvedge {version}{built}).")
}

pub(super) fn answer(answer: Answer) -> Result<Value, Problem> {
    let id = answer.id.map(|id| id.to_string());
    match answer.progress {
        Progress::Ended(Outcome::Value(bytes)) => Ok(json!({ "id": id, "result": of_bytes(&bytes) })),
        Progress::Ended(Outcome::Error(error)) => {
            let who = id.map(|id| format!("{id} failed: ")).unwrap_or_default();
            Err(Problem::new(Consequence::WorkFailed, &error.code, format!("{who}{error}")))
        }
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
fn no_work(id: &str) -> Problem {
    let text = if id.contains('/') {
        format!("`{id}` is an actor: `selvedge actors state {id}` shows it; `why` wants the id of a run or of an invocation")
    } else if id.parse::<ApprovalId>().is_ok() {
        format!("{id} is an approval: `selvedge approvals list` names its run, and `why` says of that what it waits for")
    } else {
        format!("`{id}` is no id: expected run_… (`selvedge runs list` has them) or inv_… (`selvedge actors send` prints it)")
    };
    Problem::new(Consequence::FixInput, "bad_id", text)
}

/// The bytes of JSON that came as text.
pub(super) fn text_of(text: String) -> Result<Bytes, Problem> {
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(_) => Ok(Bytes::from(text)),
        Err(error) => {
            Err(Problem::new(Consequence::FixInput, "not_json", format!("this is not JSON ({error}): {}", text.chars().take(80).collect::<String>())))
        }
    }
}

pub(crate) fn of_bytes(bytes: &[u8]) -> Value {
    // What the engine keeps was JSON when it came in.
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

pub(super) fn value<T: Serialize>(of: &T) -> Result<Value, Problem> {
    serde_json::to_value(of).map_err(|error| Problem::new(Consequence::Stop, "not_json", format!("the answer cannot be written as JSON: {error}")))
}
