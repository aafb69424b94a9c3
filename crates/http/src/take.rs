//! What requests carry: names in the path, words in the query, headers, bodies. What does not fit is a problem document.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use selvedge_engine::Held;
use selvedge_engine::desk::Problem;
use selvedge_engine::trace::is_trace;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::limit::HTTP_WAIT_S;
use serde::de::DeserializeOwned;
use std::sync::Arc;

use crate::door::Door;
use crate::refusal::{Refusal, SLOW_BODY};

/// The names in the path.
pub(crate) struct Names<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Door>> for Names<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Refusal> {
        let Path(names) =
            Path::<T>::from_request_parts(parts, door).await.map_err(|error| Refusal::bad(format!("a name in the path cannot be read: {error}")))?;
        Ok(Names(names))
    }
}

/// The words of the query.
pub(crate) struct Words<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<Door>> for Words<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, door: &Arc<Door>) -> Result<Self, Refusal> {
        let Query(words) = Query::<T>::from_request_parts(parts, door).await.map_err(|error| Refusal::bad(format!("the query cannot be read: {error}")))?;
        Ok(Words(words))
    }
}

/// How long an answer may be waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Nothing was said.
    Unsaid,
    /// Not at all: `Prefer: respond-async`.
    Not,
    /// For so long: `Prefer: wait=N`.
    For(Duration),
}

/// What headers say beside the credential.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// `Idempotency-Key`.
    pub key: Option<String>,
    /// `Prefer`.
    pub wait: Wait,
    /// `If-Match`, without its quotes.
    pub if_match: Option<String>,
    /// `Last-Event-ID`.
    pub after: Option<u64>,
    /// `traceparent`.
    pub trace: Option<String>,
    /// Whether `Accept` names this first of the media types that we know.
    pub accept: Accept,
}

/// The kinds of answers that somebody may want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accept {
    /// One JSON value.
    Json,
    /// Server-sent events.
    Events,
    /// A JSON value a line.
    Lines,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Refusal::bad(format!("the header `{name}` is no plain text"))),
        (Some(_), Some(_)) => Err(Refusal::bad(format!("the header `{name}` is there twice: send it once"))),
    }
}

fn wait(headers: &HeaderMap) -> Result<Wait, Refusal> {
    let mut found = Wait::Unsaid;
    let words = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split([',', ';']));
    for word in words.map(str::trim) {
        if word.eq_ignore_ascii_case("respond-async") && found == Wait::Unsaid {
            found = Wait::Not;
        } else if let Some(seconds) = word.to_ascii_lowercase().strip_prefix("wait=") {
            let seconds: u64 = seconds.trim().parse().map_err(|_| Refusal::bad(format!("`Prefer: {word}` has no number of seconds: write wait=30")))?;
            if seconds > HTTP_WAIT_S {
                return Err(Refusal::bad(format!("`Prefer: {word}` is longer than a request may wait, {HTTP_WAIT_S} s: ask again for the rest")));
            }
            found = Wait::For(Duration::from_secs(seconds));
        }
    }
    Ok(found)
}

/// A trace context as W3C writes it; another one is no reason to refuse a request.
pub(crate) fn trace(headers: &HeaderMap) -> Option<String> {
    headers.get("traceparent")?.to_str().ok().filter(|text| is_trace(text)).map(str::to_owned)
}

fn accept(headers: &HeaderMap) -> Accept {
    let words = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut kinds = words.map(|word| word.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    kinds
        .find_map(|kind| match kind.as_str() {
            "text/event-stream" => Some(Accept::Events),
            "application/x-ndjson" | "application/jsonl" => Some(Accept::Lines),
            "application/json" | "*/*" | "application/*" => Some(Accept::Json),
            _ => None,
        })
        .unwrap_or(Accept::Json)
}

impl FromRequestParts<Arc<Door>> for Said {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Door>) -> Result<Said, Refusal> {
        let headers = &parts.headers;
        let after = text(headers, "last-event-id")?.filter(|text| !text.is_empty());
        let after =
            after.map(|text| text.parse().map_err(|_| Refusal::bad(format!("`Last-Event-ID: {text}` is no number of an event of ours")))).transpose()?;
        let if_match = text(headers, "if-match")?.map(|text| text.trim().trim_start_matches("W/").trim_matches('"').to_owned());
        if if_match.as_ref().is_some_and(|tag| tag.contains(',')) {
            return Err(Refusal::bad("`If-Match` names more than one: write the `ETag` of what you looked at, or `*` for whatever is there".to_owned()));
        }
        let key = text(headers, "idempotency-key")?.map(|text| text.trim_matches('"').to_owned());
        Ok(Said { key, wait: wait(headers)?, if_match, after, trace: trace(headers), accept: accept(headers) })
    }
}

/// A body of JSON, as the text that it is; an empty one is `null`.
pub(crate) struct Payload(pub String);

impl FromRequest<Arc<Door>> for Payload {
    type Rejection = Refusal;

    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Payload, Refusal> {
        let text = body(request, door).await?;
        Ok(Payload(if text.trim().is_empty() { "null".to_owned() } else { text }))
    }
}

/// A body as text, whatever it is, and what its sender calls it.
pub(crate) struct Text {
    pub text: String,
    pub media: Option<String>,
}

impl FromRequest<Arc<Door>> for Text {
    type Rejection = Refusal;

    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Text, Refusal> {
        let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let media = media.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        Ok(Text { text: body(request, door).await?, media })
    }
}

/// A body of JSON in which each name is known; an empty one is `{}`.
pub(crate) struct Fields<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Door>> for Fields<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, door: &Arc<Door>) -> Result<Fields<T>, Refusal> {
        let text = body(request, door).await?;
        let text = if text.trim().is_empty() { "{}" } else { &text };
        // A list would be taken for the fields in the order in which they are declared.
        if !text.trim_start().starts_with('{') {
            return Err(Refusal::bad("the body does not fit: it is no object, write {…}".to_owned()));
        }
        serde_json::from_str(text).map(Fields).map_err(|error| Refusal::bad(format!("the body does not fit: {error}")))
    }
}

/// The whole body, within its limit and its time. One that says that it is too long is not read.
async fn body(request: Request, door: &Arc<Door>) -> Result<String, Refusal> {
    let bound = door.engine.limits().body_bytes;
    let said = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if said.is_some_and(|said| said > bound) {
        return Err(too_long(bound));
    }
    let read = read(request.into_body(), bound, door);
    let bytes = tokio::time::timeout(door.body_within, read).await.map_err(|_| {
        let text = format!("the body was not there within {} ms, and nothing was done: send it faster, or in parts", door.body_within.as_millis());
        Refusal::new(Consequence::Retry, SLOW_BODY, text)
    })??;
    String::from_utf8(bytes.into()).map_err(|error| Refusal::new(Consequence::FixInput, "not_json", format!("the body is no UTF-8: {error}")))
}

/// What comes is counted against the bytes of the process as it comes: one that says a length and sends nothing takes nothing.
async fn read(body: Body, bound: u64, door: &Door) -> Result<Bytes, Refusal> {
    let mut held: Vec<Held> = Vec::new();
    let mut parts = body.into_data_stream();
    let mut whole = BytesMut::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Refusal::bad(format!("the body broke off, and nothing was done: {error}")))?;
        if whole.len() as u64 + part.len() as u64 > bound {
            return Err(too_long(bound));
        }
        held.push(door.engine.hold(part.len()).map_err(Problem::from)?);
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

fn too_long(bound: u64) -> Refusal {
    Refusal::new(Consequence::Limit, "limit: body", format!("the body is longer than {bound} bytes, and nothing was done: send a reference instead"))
}
