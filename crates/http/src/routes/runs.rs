//! `/v1/runs`: runs, looked at and steered.

use axum::response::{IntoResponse, Response};
use selvedge_engine::desk::{Runs, Steer, value};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::actors::{KeyHeader, PreferHeader, within};
use super::invocations::{Id, Named, Reason, keyed, span};
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::shapes::events::NumberedEvent;
use crate::shapes::runs::{Run, RunFork, TaskPage};
use crate::stream;
use crate::take::{Fields, Names, Payload, Said, Words};

/// One run, stage by stage. `Prefer: wait=N` waits for its end so long.
#[utoipa::path(get, path = "/v1/runs/{id}", tag = "runs", params(Id, PreferHeader), responses((status = 200, description = "it", body = Run)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>, said: Said) -> Done {
    let runs = Runs(caller.asker());
    if let Some(span) = span(&said)
        && let Some(ended) = within(&caller, span, || runs.end(&at.id)).await
    {
        ended?;
    }
    Ok(Answer::of(runs.show(&at.id).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Tasks {
    /// Those of this stage alone.
    stage: Option<String>,
    /// What the page before gave as `next`.
    cursor: Option<String>,
    /// At most so many; a page, if it is not there.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The tasks of a run, one by one, in the order of its stages: where each is, and what it waits for. `next` is the cursor of the page behind this one.
#[utoipa::path(get, path = "/v1/runs/{id}/tasks", tag = "runs", params(Id, Tasks), responses((status = 200, description = "a page", body = TaskPage)))]
pub(crate) async fn tasks(caller: Caller, Names(at): Names<Id>, Words(page): Words<Tasks>) -> Done {
    Ok(Answer::of(Runs(caller.asker()).tasks(&at.id, page.stage, page.cursor.as_deref(), page.limit).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Since {
    /// The first number that is wanted: one more than the last of the page before.
    #[serde(default)]
    #[param(format = "uint64")]
    from: u64,
}

/// What happened to a run, a page of it: pairs of a number and what happened. `Prefer: wait=N` waits so long for the first.
#[utoipa::path(get, path = "/v1/runs/{id}/journal", tag = "runs", params(Id, Since, PreferHeader),
    responses((status = 200, description = "a page", body = Vec<NumberedEvent>)))]
pub(crate) async fn journal(caller: Caller, Names(at): Names<Id>, Words(page): Words<Since>, said: Said) -> Done {
    let runs = Runs(caller.asker());
    if let Some(span) = span(&said)
        && let Some(events) = within(&caller, span, || runs.events(&at.id, page.from)).await
    {
        return Ok(Answer::of(value(&events?)?));
    }
    Ok(Answer::of(value(&runs.engine_events(&at.id, page.from, false).await?)?))
}

/// What happens to a run, until it ends. Server-sent events, or with `Accept: application/x-ndjson` a JSON value a line.
/// `Last-Event-ID` goes on behind an event.
#[utoipa::path(get, path = "/v1/runs/{id}/events", tag = "runs", params(Id),
    responses((status = 200, description = "until it ends", body = String, content_type = "text/event-stream")))]
pub(crate) async fn events(caller: Caller, Names(at): Names<Id>, said: Said) -> Result<Response, Refusal> {
    // What is not there, or not ours, is an answer and no stream.
    Runs(caller.asker()).status(&at.id).await?;
    Ok(stream::run(caller, at.id, &said).into_response())
}

async fn steer(caller: &Caller, id: &str, steer: Steer) -> Done {
    Ok(Answer::of(Runs(caller.asker()).steer(id, steer).await?))
}

/// Ends a run as cancelled.
#[utoipa::path(post, path = "/v1/runs/{id}/cancel", tag = "runs", params(Id), request_body = Reason, responses((status = 204, description = "it is asked")))]
pub(crate) async fn cancel(caller: Caller, Names(at): Names<Id>, Fields(why): Fields<Reason>) -> Done {
    steer(&caller, &at.id, Steer::Cancel { reason: why.reason }).await
}

/// Lets a run start nothing new.
#[utoipa::path(post, path = "/v1/runs/{id}/pause", tag = "runs", params(Id), responses((status = 204, description = "it starts nothing new")))]
pub(crate) async fn pause(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, Steer::Pause).await
}

/// Lets a run go on after a pause.
#[utoipa::path(post, path = "/v1/runs/{id}/resume", tag = "runs", params(Id), responses((status = 204, description = "it goes on")))]
pub(crate) async fn resume(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, Steer::Resume).await
}

/// What a retry takes up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Again {
    /// This stage, and every stage that depends on it, starts over.
    from: Option<String>,
    /// Only failed tasks run again.
    #[serde(default)]
    failed_only: bool,
}

/// Takes up what failed or is blocked.
#[utoipa::path(post, path = "/v1/runs/{id}/retry", tag = "runs", params(Id), request_body = Again, responses((status = 204, description = "it goes on")))]
pub(crate) async fn retry(caller: Caller, Names(at): Names<Id>, Fields(again): Fields<Again>) -> Done {
    let plain = again.from.is_none() && !again.failed_only;
    let again = if plain { Steer::Retry } else { Steer::RetryMore { from: again.from, failed_only: again.failed_only } };
    steer(&caller, &at.id, again).await
}

/// What a fork of a run is made with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RunForkRequest)]
pub(crate) struct Fork {
    /// The stage that is done anew.
    from: Option<String>,
    /// The input of the new run.
    #[schema(value_type = Option<Value>)]
    input: Option<Box<RawValue>>,
    /// Why: it stays with what was done.
    #[serde(default)]
    reason: String,
}

/// Makes a new run that takes over what this one did well.
#[utoipa::path(post, path = "/v1/runs/{id}/fork", tag = "runs", params(Id, KeyHeader), request_body = Fork,
    responses((status = 201, description = "the new one", body = RunFork)))]
pub(crate) async fn fork(caller: Caller, Names(at): Names<Id>, said: Said, Fields(fork): Fields<Fork>) -> Done {
    let key = keyed(&said)?;
    let input = fork.input.map(|input| input.get().to_owned());
    let forked = Runs(caller.asker()).fork(&at.id, fork.from, input, fork.reason, key).await?;
    let place = format!("/v1/runs/{}", forked["id"].as_str().unwrap_or_default());
    Ok(Answer::created(forked).at(&place))
}

/// Delivers a signal to a run: durable when this returns.
#[utoipa::path(post, path = "/v1/runs/{id}/signals/{name}", tag = "runs", params(Named, KeyHeader),
    request_body(content = Value, description = "the payload, any JSON"),
    responses((status = 204, description = "it is kept until it is waited for")))]
pub(crate) async fn signal(caller: Caller, Names(at): Names<Named>, said: Said, Payload(payload): Payload) -> Done {
    Ok(Answer::of(Runs(caller.asker()).signal(&at.id, &at.name, payload, said.key).await?))
}
