//! Requests of the command line as verbs of the engine, by whoever owns this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::RunStart;
use selvedge_engine::desk::{Asker, Keys, Pages, Pipelines, Principals, Problem, Rights, Runs, Schedules, no_work, value, why};
use selvedge_engine::engine::Engine;
use selvedge_engine::listing::Listed;
use selvedge_engine::verify::Extent;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::{InvocationId, RunId};
use selvedge_store::EmbeddedStore;
use serde_json::Value;

use super::Request;
use super::health::health;

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
    /// This program, in a sentence.
    pub(crate) binary: String,
}

impl Desk {
    pub(super) fn permit(&self, action: Action, resource: Resource) -> Result<Permit, Problem> {
        let now = self.engine.now();
        Ok(authorize(local(&self.tenant, now), action, resource, now)?)
    }
}

/// Does what is asked, as the local owner of a tenant.
///
/// # Errors
/// What the engine or the policy says.
pub async fn perform(desk: &Desk, request: Request) -> Result<Value, Problem> {
    let engine = &*desk.engine;
    let context = local(&desk.tenant, engine.now());
    let asker = Asker { engine, context: &context, binary: &desk.binary };
    // Whoever owns the process owns it in every tenant.
    let owner_of = |tenant: Option<String>| tenant.map_or_else(|| context.clone(), |tenant| local(&tenant, engine.now()));
    match request {
        Request::Call(invoke) => asker.invoke(invoke, true).await,
        Request::Send(invoke) => asker.invoke(invoke, false).await,
        Request::SignalActor { kind, key, name, payload, idempotency_key } => asker.signal_actor(kind, key, &name, payload, idempotency_key).await,
        Request::State { kind, key } => asker.state(kind, key).await,
        Request::StateEtags { kind, key } => asker.etags(kind, key).await,
        Request::EditState(edit) => asker.edit_state(edit).await,
        Request::Journal { id, from } => asker.journal(&id, from).await,
        Request::Resolve { id, operation, gives, reason } => asker.resolve(&id, operation, gives, reason).await,
        Request::ForkRun { id, from, input, reason, key } => Runs(asker).fork(&id, from, input, reason, key).await,
        Request::Fork { id, from, kill_original, reason, key } => asker.fork(&id, from, kill_original, reason, key).await,
        Request::RetryWhere { filter, dry_run } => asker.retry_where(&filter, dry_run).await,
        Request::RunJournal { id, from } => value(&Runs(asker).engine_events(&id, from, false).await?),
        Request::Invocation { id } => asker.invocation(&id).await,
        Request::CancelInvocation { id, reason } => asker.cancel(&id, &reason).await,
        Request::KillInvocation { id, reason } => asker.kill(&id, &reason).await,
        Request::RetryInvocation { id } => asker.retry(&id).await,
        Request::Why { id } if id.starts_with(RunId::PREFIX) || id.starts_with(InvocationId::PREFIX) => why(asker, &id).await,
        Request::Why { id } => Err(no_work(&id)),
        Request::Await { id } => asker.ended(&id).await,
        Request::Invocations { all, filter } => Ok(asker.invocations(if all { Listed::All } else { Listed::Open }, &filter, &Pages::default()).await?.lines),
        Request::Stuck { longer_than_ms, filter } => asker.stuck(longer_than_ms.map(Duration::from_millis), &filter).await,
        Request::Health => health(asker).await,
        Request::Approvals { filter } => Runs(asker).approvals(&filter).await,
        Request::Approval { id, stage } => Runs(asker).approval(&id, stage).await,
        Request::Runs { filter } => Ok(Runs(asker).list(&filter, &Pages::default()).await?.lines),
        Request::Actors { filter } => Ok(asker.actors(&filter, &Pages::default()).await?.lines),
        Request::Run { id } => Runs(asker).show(&id).await,
        Request::RunEvents { id, from } => value(&Runs(asker).events(&id, from).await?),
        Request::SteerRun { id, steer } => Runs(asker).steer(&id, steer).await,
        Request::Decide { id, stage, answer, by, comment } => Runs(asker).decide(&id, stage, answer, &by, &comment).await,
        Request::SignalRun { id, name, payload, idempotency_key } => Runs(asker).signal(&id, &name, payload, idempotency_key).await,
        Request::PutPipeline { definition } => Pipelines(asker).put(&definition).await,
        Request::Pipeline { name } => Pipelines(asker).show(&name).await,
        Request::Pipelines => Pipelines(asker).list().await,
        Request::DiffPipeline { name, before, after } => Pipelines(asker).diff(&name, &before, &after).await,
        Request::StartPipeline { name, version, input, key } => {
            Pipelines(asker).start(&name, version.as_deref(), input, RunStart { key: Some(key), trace: None }).await
        }
        Request::Schedules { filter } => Schedules(asker).list(&filter).await,
        Request::Schedule { pipeline } => Schedules(asker).show(&pipeline).await,
        Request::SteerSchedule { pipeline, steer } => Schedules(asker).steer(&pipeline, steer).await,
        Request::Keys { tenant, ask } => {
            let context = owner_of(tenant);
            Keys(Asker { context: &context, ..asker }).perform(ask).await
        }
        Request::Principals { tenant, ask } => {
            let context = owner_of(tenant);
            Principals(Asker { context: &context, ..asker }).perform(ask).await
        }
        Request::Tenants { tenant, ask } => {
            let context = owner_of(tenant);
            Principals(Asker { context: &context, ..asker }).tenants(ask).await
        }
        Request::Decisions { tenant, see } => {
            let context = owner_of(tenant);
            Rights(Asker { context: &context, ..asker }).decisions(see).await
        }
        Request::TestPolicy { tenant, test } => {
            let context = owner_of(tenant);
            Rights(Asker { context: &context, ..asker }).test(&test)
        }
        Request::DeadLetters { filter } => Ok(asker.dead_letters(&filter, &Pages::default()).await?.lines),
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
