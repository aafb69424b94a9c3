//! `/v1/actors`: messages to actors.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use selvedge_engine::desk::{Invoke, Problem, answer};
use selvedge_engine::engine::Called;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::HTTP_CALL_WAIT_S;
use selvedge_kernel::policy::Span;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;

use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::{Refusal, STILL_RUNNING};
use crate::shapes::actors::{AcceptedInvocation, InvocationResult};
use crate::stream::invocation;
use crate::take::{Accept, Names, Payload, Said, Wait, Words};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Message {
    /// The type of the actor.
    #[serde(rename = "type")]
    kind: String,
    /// Its key.
    key: String,
    /// The handler.
    handler: String,
}

impl Message {
    fn invoke(self, input: String, said: &Said, delay: Option<Span>) -> Invoke {
        let delay_ms = delay.map(|delay| u64::try_from(delay.0.as_millis()).unwrap_or(u64::MAX));
        Invoke { kind: self.kind, key: self.key, handler: self.handler, input, idempotency_key: said.key.clone(), delay_ms, trace: said.trace.clone() }
    }
}

/// Calls a handler, and waits for its end: 30 s, or as `Prefer: wait=N` says; `Prefer: respond-async` does not wait. What has
/// not ended by then is 202 with its id, and goes on. `Accept: text/event-stream` is call and stream in one.
#[utoipa::path(post, path = "/v1/actors/{type}/{key}/call/{handler}", tag = "actors", params(Message, KeyHeader, PreferHeader, TraceHeader),
    request_body(content = Value, description = "the input, any JSON"),
    responses(
        (status = 200, description = "what it gave, as `result`", body = InvocationResult),
        (status = 202, description = "its id: it goes on", body = AcceptedInvocation),
    ))]
pub(crate) async fn call(caller: Caller, Names(message): Names<Message>, said: Said, Payload(input): Payload) -> Result<Response, Refusal> {
    let (asker, bare) = (caller.asker(), message.invoke(String::new(), &said, None));
    let asked = Invoke { input, ..bare.clone() };
    let span = match said.wait {
        _ if said.accept != Accept::Json => Duration::ZERO,
        Wait::Unsaid => Duration::from_secs(HTTP_CALL_WAIT_S),
        Wait::Not => Duration::ZERO,
        Wait::For(span) => span,
    };
    let sent =
        if span.is_zero() { asker.invoke(asked, false).await? } else { waited(&caller, span, asker.call(asked).await?, || asker.may_call(&bare)).await? };
    let id = match sent["id"].as_str() {
        Some(id) if sent.get("result").is_none() => id.to_owned(),
        _ => return Ok(Answer::of(sent).into_response()),
    };
    if said.accept != Accept::Json {
        return Ok(invocation(caller, id, &said).into_response());
    }
    if span.is_zero() && sent["joined"] == true {
        let text = format!("{id} has this key and goes on: GET /v1/invocations/{id}/result has what it gives, once it has ended");
        return Err(Refusal::new(Consequence::Conflict, STILL_RUNNING, text));
    }
    Ok(Answer::accepted(sent).at(&format!("/v1/invocations/{id}")).into_response())
}

/// What a call came to within a span, before the server stops, and for as long as the caller's credential is one; else that it
/// was accepted. When policies, keys or who is disabled have changed, nothing is answered before it is known what the caller may now.
async fn waited(caller: &Caller, span: Duration, mut called: Called<'_>, may: impl Fn() -> Result<(), Problem>) -> Result<Value, Refusal> {
    let (mut closing, mut version) = (caller.door.closing.clone(), caller.version);
    let over = tokio::time::sleep(span);
    tokio::pin!(over);
    loop {
        let changed = tokio::select! {
            biased;
            changed = caller.changed_after(&mut version) => changed,
            () = &mut over => false,
            _ = closing.wait_for(|closing| *closing) => false,
            ended = called.ended() => return Ok(answer(ended.map_err(Problem::from)?)?),
        };
        if !changed {
            return Ok(answer(called.given_up().await.map_err(Problem::from)?)?);
        }
        if let Err(refused) = caller.still().await {
            // It goes on, and what it gave, if it has ended just now, is for nobody who asks without a credential.
            let accepted = called.given_up().await.map_err(Problem::from)?;
            return accepted.id.map(|id| json!({ "id": id.to_string() })).ok_or(refused);
        }
        may()?;
    }
}

/// What comes within a span, before the server stops, and for as long as the caller's credential is one. When policies, keys or
/// who is disabled have changed, it is asked for again, with a permit of then.
pub(crate) async fn within<F: Future>(caller: &Caller, span: Duration, ask: impl Fn() -> F) -> Option<F::Output> {
    let (mut closing, mut version) = (caller.door.closing.clone(), caller.version);
    let given = async {
        loop {
            let changed = tokio::select! {
                biased;
                changed = caller.changed_after(&mut version) => changed,
                given = ask() => return Some(given),
            };
            if !changed || caller.still().await.is_err() {
                return None;
            }
        }
    };
    tokio::select! {
        biased;
        given = given => given,
        () = tokio::time::sleep(span) => None,
        _ = closing.wait_for(|closing| *closing) => None,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Later {
    /// Handled after this time, such as `10s`.
    #[param(value_type = Option<String>)]
    delay: Option<Span>,
}

/// Sends a message to a handler: accepted when this returns.
#[utoipa::path(post, path = "/v1/actors/{type}/{key}/send/{handler}", tag = "actors", params(Message, Later, KeyHeader, TraceHeader),
    request_body(content = Value, description = "the input, any JSON"),
    responses((status = 202, description = "its id", body = AcceptedInvocation)))]
pub(crate) async fn send(caller: Caller, Names(message): Names<Message>, Words(later): Words<Later>, said: Said, Payload(input): Payload) -> Done {
    let sent = caller.asker().invoke(message.invoke(input, &said, later.delay), false).await?;
    let place = sent["id"].as_str().map(|id| format!("/v1/invocations/{id}")).unwrap_or_default();
    Ok(Answer::accepted(sent).at(&place))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Signal {
    /// The type of the actor.
    #[serde(rename = "type")]
    kind: String,
    /// Its key.
    key: String,
    /// The signal.
    name: String,
}

/// Delivers a signal to an actor: durable when this returns.
#[utoipa::path(post, path = "/v1/actors/{type}/{key}/signals/{name}", tag = "actors", params(Signal, KeyHeader),
    request_body(content = Value, description = "the payload, any JSON"),
    responses((status = 204, description = "it is kept until somebody waits for it")))]
pub(crate) async fn signal(caller: Caller, Names(at): Names<Signal>, said: Said, Payload(payload): Payload) -> Done {
    Ok(Answer::of(caller.asker().signal_actor(at.kind, at.key, &at.name, payload, said.key).await?))
}

/// The header that makes a request the same request.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is there for the document")]
pub(crate) struct KeyHeader {
    /// The same key, the same request: it is done once. Another body under it is 422.
    #[param(rename = "Idempotency-Key")]
    key: Option<String>,
}

/// The header with the trace that a request is a part of.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is there for the document")]
pub(crate) struct TraceHeader {
    /// W3C trace context: what is done for this request says that it belongs to this trace. Answers have no such header; what is no trace is ignored.
    #[param(rename = "traceparent")]
    trace: Option<String>,
}

/// The header that says how long to wait.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is there for the document")]
pub(crate) struct PreferHeader {
    /// `wait=N`, in seconds, or `respond-async`.
    #[param(rename = "Prefer")]
    prefer: Option<String>,
}
