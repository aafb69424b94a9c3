//! The way in: a definition and an input become a run.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::{InvocationId, RawId, RunId};
use selvedge_kernel::journal::{Payload, SealKey, Signature, seal};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::pipeline::attributes;
use selvedge_kernel::pipeline::compiled::{Compiled, CompiledCall};
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::pipeline::run::{Run, Start};
use selvedge_kernel::pipeline::schema::validate_input;
use selvedge_kernel::pipeline::shared::{SharedBreaker, SharedLimit, any_host};
use selvedge_kernel::record::attribute;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::message::{Awaited, Envelope, Outcome, Peer, Starting};
use selvedge_kernel::record::run::{Pinned, Stored, definition_key, run_key};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::wire;

use super::memory::active;
use super::{Active, NewRun};
use crate::core::Given;
use crate::definitions::in_force;
use crate::registry::{Activity, Executor, Registry};
use crate::shard::{Activation, Effect, Shard, VerbError};
use crate::trace::is_trace;

/// Checks an input against a definition, and fills in what it leaves out.
pub(crate) fn checked_input(definition: &Definition, input: &Bytes) -> Result<Bytes, VerbError> {
    let wrong = |message: String| VerbError::new(Consequence::FixInput, "input", message);
    let value = serde_json::from_slice(input).map_err(|error| wrong(format!("the input of `{}` is no JSON: {error}", definition.name)))?;
    let value = validate_input(definition, value).map_err(|wrongs| wrong(selvedge_kernel::diagnostic::listed(&wrongs)))?;
    let bytes = serde_json::to_vec(&value).map_err(|error| wrong(error.to_string()))?;
    Ok(Bytes::from(bytes))
}

/// A definition, ready to run here: activities that it does not declare have the policies that they are registered with.
pub(crate) fn compiled(registry: &Registry, definition: Definition) -> Result<Arc<Compiled>, VerbError> {
    let version = selvedge_kernel::pipeline::parse::version(&definition);
    let mut compiled = Compiled::new(definition, version).map_err(|error| VerbError::new(Consequence::FixInput, "definition", error.to_string()))?;
    let declared = compiled.definition.activities.clone();
    for task in compiled.stages.iter_mut().flat_map(|stage| stage.tasks.iter_mut().chain(&mut stage.fallback)) {
        let CompiledCall::Activity(name) = &task.call else { continue };
        let registered = if declared.contains_key(name) { None } else { registry.activities.get(name) };
        if let Some(own) = registered {
            if !task.retry_written {
                task.retry = own.retry.clone();
            }
            if !task.timeout_written {
                task.timeout = own.timeout.clone();
            }
            if !task.throttle_written {
                task.limit = limit_of(name, own)?;
            }
            task.breaker = breaker_of(name, own, task.breaker.take())?;
        }
    }
    Ok(Arc::new(compiled))
}

/// The breaker of the tasks of a registered activity: its own, unless their stage says another.
pub(crate) fn breaker_of(name: &str, own: &Activity, of_stage: Option<SharedBreaker>) -> Result<Option<SharedBreaker>, VerbError> {
    let http = match &own.run {
        Executor::Http(http) => Some(http),
        Executor::Native(_) | Executor::Exec(_) | Executor::Worker(_) => None,
    };
    let shared = match (of_stage, &own.breaker) {
        (Some(shared), _) => any_host(http).map(|url| Some(SharedBreaker { url, ..shared })),
        (None, Some(breaker)) => SharedBreaker::of_activity(name, breaker, http).map(Some),
        (None, None) => Ok(None),
    };
    shared.map_err(|error| VerbError::new(Consequence::FixInput, "definition", format!("the URL of the activity `{name}`: {error}")))
}

/// What the tasks of a registered activity share.
pub(crate) fn limit_of(name: &str, activity: &Activity) -> Result<Option<SharedLimit>, VerbError> {
    let Some(throttle) = &activity.throttle else { return Ok(None) };
    let limit = SharedLimit::of_activity(name, throttle);
    limit.map(Some).map_err(|error| VerbError::new(Consequence::FixInput, "definition", format!("activity `{name}`, `throttle.key`: {error}")))
}

/// Refuses a definition that is larger than the limits in force; those of the file format were checked when it was read.
fn within_limits(limits: &Limits, definition: &Definition) -> Result<(), VerbError> {
    let name = &definition.name;
    let stages = definition.stages.len() as u64;
    if stages > limits.stages {
        let text = format!("`{name}` has {stages} stages, the limit is {}: split it over several pipelines, or raise limits.stages", limits.stages);
        return Err(VerbError::new(Consequence::Limit, "limit: stages", text));
    }
    let of_stages = definition.stages.iter().flat_map(|stage| {
        let undo = stage.compensate.iter().filter_map(|compensate| compensate.retry.as_ref());
        stage.retry.iter().chain(undo).map(|retry| (format!("stage `{}`", stage.name), retry))
    });
    let of_activities = definition.activities.iter().map(|(activity, declared)| (format!("activity `{activity}`"), &declared.retry));
    match of_stages.chain(of_activities).find(|(_, retry)| u64::from(retry.max_attempts) > limits.attempts) {
        None => Ok(()),
        Some((what, retry)) => {
            let text = format!(
                "`{name}`, {what}: its retry policy allows {} attempts, the limit is {}: lower max_attempts, or raise limits.attempts",
                retry.max_attempts, limits.attempts
            );
            Err(VerbError::new(Consequence::Limit, "limit: attempts", text))
        }
    }
}

impl Shard {
    /// Accepts a run, durable with the next commit, unless it is there: then its input must be the same.
    pub(super) async fn accept_run(&mut self, new: NewRun) -> Result<RunId, VerbError> {
        let id = new.id;
        if self.get(run_key(id)).await?.is_some() {
            if new.parent.is_some() {
                // Sent again by a run that was reopened: what it was started with counts.
                return Ok(id);
            }
            let Some(bytes) = self.get(definition_key(id)).await? else { return Err(super::memory::unknown(id)) };
            let pinned: Pinned = wire::decode("pinned definition", &bytes)?;
            let known = match pinned.input {
                Stored::Inline(input) => input,
                Stored::Chunked { seal, len } => self.payload(id.0, seal, &Payload::Chunked { len }).await?,
            };
            if known == new.input {
                return Ok(id);
            }
            return Err(VerbError::new(
                Consequence::Conflict,
                "idempotency_mismatch",
                format!("this key was used for another input of `{}` ({id}): send the same input, or take a new key", new.compiled.definition.name),
            ));
        }
        let limits = self.wiring.settings.limits;
        within_limits(&limits, &new.compiled.definition)?;
        let now = self.now();
        let seal_key = SealKey(self.entropy.draw());
        self.remember_definition(&new.compiled);
        let attributes = attributes::evaluate(&new.compiled.definition, &new.input).map_err(|error| VerbError::new(Consequence::FixInput, "input", error))?;
        let rows = attribute::Place { tenant: &new.tenant, started_at: now, run: id }.rows(&attributes);
        let start = Start {
            id,
            tenant: new.tenant,
            compiled: new.compiled,
            input: new.input,
            context: new.context,
            seal_key,
            limits,
            parent: new.parent,
            deadline: new.deadline,
            // Another one is no reason to refuse a run.
            trace: new.trace.filter(|trace| is_trace(trace)),
        };
        let (run, mut effects) = Run::start(start, now);
        effects.puts.extend(rows.puts);
        // Its line in the ledger is yet to come.
        let accepted = Active { ended: true, ..active(run) };
        self.move_on(accepted, effects).await?;
        Ok(id)
    }

    /// Starts a run for a handler: exactly once, in the run's shard.
    pub(crate) async fn start_run_from(
        &mut self,
        activation: &mut Activation,
        number: u32,
        sig: Signature,
        input: Bytes,
        row: Option<Begun>,
    ) -> Result<(), VerbError> {
        if let Some(row) = row {
            // It was sent before; its answer may be here already.
            if row.reply.is_some() {
                activation.outside.push_back(crate::shard::Outside::Replied { number });
            }
            return Ok(());
        }
        let definition = in_force(&self.wiring, &activation.record.message.target.tenant, &sig.name).await;
        let checked = definition.and_then(|definition| checked_input(&definition, &input).map(|checked| (definition, checked)));
        let (definition, checked) = match checked {
            Ok(checked) => checked,
            Err(error) if matches!(error.consequence, Consequence::Stop | Consequence::Retry) => return Err(error),
            Err(error) => {
                self.decide(activation, number, Given::Error(WorkError::new(error.code, error.message)));
                return Ok(());
            }
        };
        let id = activation.id();
        let own = &activation.record.message;
        let tenant = own.target.tenant.clone();
        let run = run_of(&tenant, id.0, number);
        let context = own.context.through(&own.target, &own.handler);
        let trace = own.trace.clone();
        let now = self.now();
        let mut begun = Begun::new(sig, now);
        begun.request_seal = Some(seal(&activation.journal.key, &input));
        begun.peer = Some((run.actor(&tenant), InvocationId(run.0)));
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        writes.put(key::begun(id, number), wire::encode(&begun));
        self.set_row(activation, number, begun);
        let definition = Bytes::from(serde_json::to_vec(&definition).unwrap_or_default());
        let reply_to = Peer::Operation { invocation: id, number };
        let to = run.0.hash.shard(self.wiring.shards);
        let start = Starting { run, definition, input: checked, context, awaited: Awaited::Acceptance(reply_to) };
        self.send(to, id.0, Envelope::start(start, trace), &mut writes, &mut effects).await?;
        self.write(writes, effects);
        Ok(())
    }

    /// Takes the start of a run. A handler is answered now, with its id; a task by the end of the run, and now only by what keeps it
    /// from being accepted.
    pub(crate) async fn take_start(&mut self, start: Starting, trace: Option<String>, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Starting { run, definition, input, context, awaited } = start;
        let (to, parent, deadline) = match awaited {
            Awaited::Acceptance(reply_to) => (reply_to, None, None),
            Awaited::End { parent, deadline } => (parent.peer, Some(parent), deadline),
        };
        let definition = serde_json::from_slice(&definition).map_err(|error| VerbError::new(Consequence::FixInput, "definition", error.to_string()));
        let accepted = match definition.and_then(|definition| compiled(&self.wiring.registry, definition)) {
            Ok(compiled) => match self.wiring.may_start(&context, &compiled.definition.name) {
                Ok(()) => {
                    let tenant = context.principal.tenant.clone();
                    self.accept_run(NewRun { id: run, tenant, compiled, input, context, parent, deadline, trace }).await
                }
                Err(denied) => Err(denied),
            },
            Err(error) => Err(error),
        };
        let outcome = match accepted {
            Ok(_) if parent.is_some() => return Ok(()),
            Ok(run) => Outcome::Value(Bytes::from(serde_json::to_vec(&run).unwrap_or_default())),
            Err(error) if error.consequence == Consequence::Stop => return Err(error),
            Err(error) => Outcome::Error(WorkError::new(error.code, error.message)),
        };
        self.reply(to, InvocationId(run.0), outcome, writes, effects).await
    }
}

/// The run that an operation starts.
fn run_of(tenant: &str, invocation: RawId, number: u32) -> RunId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&invocation.to_bytes());
    hasher.update(&number.to_be_bytes());
    let mut uuid = [0u8; 16];
    uuid.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    uuid[6] = 0x80 | (uuid[6] & 0x0f);
    uuid[8] = 0x80 | (uuid[8] & 0x3f);
    RunId::of(tenant, uuid)
}
