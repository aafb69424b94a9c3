//! `/v1/invocations`: messages that are handled, or were.

use axum::response::{IntoResponse, Response};
use selvedge_engine::desk::Gives;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

use super::actors::{KeyHeader, PreferHeader, within};
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::shapes::actors::{AcceptedInvocation, InvocationResult};
use crate::shapes::invocations::{Invocation, InvocationFork, Journal, Resolution};
use crate::stream;
use crate::take::{Fields, Names, Payload, Said, Wait, Words};

/// The parameter of most paths.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Id {
    /// Which.
    pub id: String,
}

/// Where an invocation stands, and its result.
#[utoipa::path(get, path = "/v1/invocations/{id}", tag = "invocations", params(Id), responses((status = 200, description = "it", body = Invocation)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>) -> Done {
    Ok(Answer::of(caller.asker().invocation(&at.id).await?))
}

/// The result of an invocation. `Prefer: wait=N` waits for it; one that has not ended is 202.
#[utoipa::path(get, path = "/v1/invocations/{id}/result", tag = "invocations", params(Id, PreferHeader),
    responses(
        (status = 200, description = "what it gave, as `result`", body = InvocationResult),
        (status = 202, description = "it goes on", body = AcceptedInvocation),
    ))]
pub(crate) async fn result(caller: Caller, Names(at): Names<Id>, said: Said) -> Done {
    let now = caller.asker().so_far(&at.id).await?;
    if now.get("result").is_some() {
        return Ok(Answer::of(now));
    }
    let Wait::For(span) = said.wait else { return Ok(Answer::accepted(now)) };
    let asker = caller.asker();
    match within(&caller, span, || asker.ended(&at.id)).await {
        Some(ended) => Ok(Answer::of(ended?)),
        None => Ok(Answer::accepted(now)),
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct From {
    /// The first number that is wanted: `next` of the page before.
    #[serde(default)]
    #[param(format = "uint32", maximum = 4_294_967_295_u32)]
    pub from: u32,
}

/// A page of the journal of an invocation.
#[utoipa::path(get, path = "/v1/invocations/{id}/journal", tag = "invocations", params(Id, From),
    responses((status = 200, description = "`entries`, and `next` if there are more", body = Journal)))]
pub(crate) async fn journal(caller: Caller, Names(at): Names<Id>, Words(page): Words<From>) -> Done {
    Ok(Answer::of(caller.asker().journal(&at.id, page.from).await?))
}

/// What an invocation emits: its start, each chunk, its end. Server-sent events, or with `Accept: application/x-ndjson` a JSON
/// value a line. `Last-Event-ID` goes on behind a chunk.
#[utoipa::path(get, path = "/v1/invocations/{id}/stream", tag = "invocations", params(Id),
    responses((status = 200, description = "until it ends", body = String, content_type = "text/event-stream")))]
pub(crate) async fn output(caller: Caller, Names(at): Names<Id>, said: Said) -> Result<Response, Refusal> {
    // What is not there, or not ours, is an answer and no stream.
    caller.asker().so_far(&at.id).await?;
    Ok(stream::invocation(caller, at.id, &said).into_response())
}

/// Why something is done.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// It stays with what was done.
    #[serde(default)]
    pub reason: String,
}

/// Asks an invocation to end.
#[utoipa::path(post, path = "/v1/invocations/{id}/cancel", tag = "invocations", params(Id), request_body = Reason,
    responses((status = 204, description = "it is asked")))]
pub(crate) async fn cancel(caller: Caller, Names(at): Names<Id>, Fields(why): Fields<Reason>) -> Done {
    Ok(Answer::of(caller.asker().cancel(&at.id, &why.reason).await?))
}

/// Ends an invocation at once: none of its code runs.
#[utoipa::path(post, path = "/v1/invocations/{id}/kill", tag = "invocations", params(Id), request_body = Reason,
    responses((status = 204, description = "it has ended")))]
pub(crate) async fn kill(caller: Caller, Names(at): Names<Id>, Fields(why): Fields<Reason>) -> Done {
    Ok(Answer::of(caller.asker().kill(&at.id, &why.reason).await?))
}

/// Looks at a blocked invocation again.
#[utoipa::path(post, path = "/v1/invocations/{id}/retry", tag = "invocations", params(Id), responses((status = 204, description = "it is looked at")))]
pub(crate) async fn retry(caller: Caller, Names(at): Names<Id>) -> Done {
    Ok(Answer::of(caller.asker().retry(&at.id).await?))
}

/// What a fork is made with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InvocationForkRequest)]
pub(crate) struct Fork {
    /// The first operation that is not taken over.
    from: Option<u32>,
    /// Whether the first one is killed, if it is blocked.
    #[serde(default)]
    kill_original: bool,
    /// Why: it stays with what was done.
    #[serde(default)]
    reason: String,
}

/// Makes a new invocation with a copy of the journal of this one.
#[utoipa::path(post, path = "/v1/invocations/{id}/fork", tag = "invocations", params(Id, KeyHeader), request_body = Fork,
    responses((status = 201, description = "the new one", body = InvocationFork)))]
pub(crate) async fn fork(caller: Caller, Names(at): Names<Id>, said: Said, Fields(fork): Fields<Fork>) -> Done {
    let key = keyed(&said)?;
    let forked = caller.asker().fork(&at.id, fork.from, fork.kill_original, fork.reason, key).await?;
    let place = format!("/v1/invocations/{}", forked["id"].as_str().unwrap_or_default());
    Ok(Answer::created(forked).at(&place))
}

/// The key that a fork needs: sent twice without one it would be made twice.
pub(crate) fn keyed(said: &Said) -> Result<String, Refusal> {
    said.key.clone().ok_or_else(|| Refusal::bad("a fork needs the header `Idempotency-Key`: sent again under the same key it is made once"))
}

/// What an operation is given by hand.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Resolve {
    /// Its number.
    operation: u32,
    /// Its result, any JSON.
    #[schema(value_type = Option<Value>)]
    result: Option<Box<RawValue>>,
    /// Or its error.
    error: Option<Failed>,
    /// Why: it stays with what was done.
    #[serde(default)]
    reason: String,
}

/// An error that an operation is given.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    /// A stable code.
    code: String,
    /// For people.
    #[serde(default)]
    message: String,
}

/// Decides an operation of a blocked invocation by hand.
#[utoipa::path(post, path = "/v1/invocations/{id}/resolve", tag = "invocations", params(Id), request_body = Resolve,
    responses((status = 200, description = "what it superseded", body = Resolution)))]
pub(crate) async fn resolve(caller: Caller, Names(at): Names<Id>, Fields(resolve): Fields<Resolve>) -> Done {
    let gives = match (resolve.result, resolve.error) {
        (Some(result), None) => Gives::Result(result.get().to_owned()),
        (None, Some(error)) => Gives::Error { code: error.code, message: error.message },
        _ => return Err(Refusal::bad("an operation is given either `result` or `error`: write one of them")),
    };
    Ok(Answer::of(caller.asker().resolve(&at.id, resolve.operation, gives, resolve.reason).await?))
}

/// An id and a name in the path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Named {
    /// Which.
    pub id: String,
    /// The signal.
    pub name: String,
}

/// Delivers a signal to an invocation: durable when this returns.
#[utoipa::path(post, path = "/v1/invocations/{id}/signals/{name}", tag = "invocations", params(Named, KeyHeader),
    request_body(content = Value, description = "the payload, any JSON"),
    responses((status = 204, description = "it is kept until it is waited for")))]
pub(crate) async fn signal(caller: Caller, Names(at): Names<Named>, said: Said, Payload(payload): Payload) -> Done {
    Ok(Answer::of(caller.asker().signal_invocation(&at.id, &at.name, payload, said.key).await?))
}

/// What waits, as long as it may.
pub(crate) fn span(said: &Said) -> Option<Duration> {
    if let Wait::For(span) = said.wait { Some(span) } else { None }
}
