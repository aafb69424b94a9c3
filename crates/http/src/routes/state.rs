//! `/v1/actors/…/state`: what actors keep.

use selvedge_engine::desk::{EditState, Problem};
use selvedge_kernel::error::Consequence;
use serde::Deserialize;
use utoipa::IntoParams;

use super::actors::KeyHeader;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::shapes::actors::StateChange;
use crate::take::{Names, Payload, Said, Words};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Actor {
    /// The type of the actor.
    #[serde(rename = "type")]
    kind: String,
    /// Its key.
    key: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Tags {
    /// Whether each entry is shown with its `ETag`, as `etag` and `value`.
    #[serde(default)]
    etags: bool,
}

/// The state of an actor, by name.
#[utoipa::path(get, path = "/v1/actors/{type}/{key}/state", tag = "actors", params(Actor, Tags),
    responses((status = 200, description = "its entries", body = Value)))]
pub(crate) async fn all(caller: Caller, Names(actor): Names<Actor>, Words(tags): Words<Tags>) -> Done {
    if tags.etags {
        return Ok(Answer::of(caller.asker().etags(actor.kind, actor.key).await?));
    }
    Ok(Answer::of(caller.asker().state(actor.kind, actor.key).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Entry {
    /// The type of the actor.
    #[serde(rename = "type")]
    kind: String,
    /// Its key.
    key: String,
    /// The entry.
    name: String,
}

/// One entry of the state of an actor, with its `ETag`.
#[utoipa::path(get, path = "/v1/actors/{type}/{key}/state/{name}", tag = "actors", params(Entry),
    responses((status = 200, description = "its value", body = Value, headers(("ETag" = String, description = "for `If-Match`")))))]
pub(crate) async fn one(caller: Caller, Names(entry): Names<Entry>) -> Done {
    let entries = caller.asker().etags(entry.kind.clone(), entry.key.clone()).await?;
    let Some(found) = entries.get(&entry.name) else {
        let text = format!("{}/{} keeps nothing under `{}`: its state has the names that there are", entry.kind, entry.key, entry.name);
        return Err(Refusal::new(Consequence::NotFound, "unknown_entry", text));
    };
    Ok(Answer::json(found["value"].clone()).etag(found["etag"].as_str().unwrap_or_default()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Why {
    /// Why it is done: it stays with what was done.
    reason: String,
}

#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it is there for the document")]
pub(crate) struct MatchHeader {
    /// The `ETag` that it must have now; another one is 412.
    #[param(rename = "If-Match")]
    if_match: Option<String>,
}

/// Sets an entry of the state of an actor by hand.
#[utoipa::path(put, path = "/v1/actors/{type}/{key}/state/{name}", tag = "actors", params(Entry, Why, MatchHeader, KeyHeader),
    request_body(content = Value, description = "its new value, any JSON"),
    responses((status = 200, description = "the invocation that did it", body = StateChange)))]
pub(crate) async fn set(caller: Caller, Names(entry): Names<Entry>, Words(why): Words<Why>, said: Said, Payload(value): Payload) -> Done {
    edit(&caller, entry, why, said, Some(value)).await
}

/// Removes an entry of the state of an actor by hand.
#[utoipa::path(delete, path = "/v1/actors/{type}/{key}/state/{name}", tag = "actors", params(Entry, Why, MatchHeader, KeyHeader),
    responses((status = 200, description = "the invocation that did it", body = StateChange)))]
pub(crate) async fn remove(caller: Caller, Names(entry): Names<Entry>, Words(why): Words<Why>, said: Said) -> Done {
    edit(&caller, entry, why, said, None).await
}

async fn edit(caller: &Caller, entry: Entry, why: Why, said: Said, set: Option<String>) -> Done {
    let Entry { kind, key, name } = entry;
    let edit = EditState { kind, key, name, set, if_match: said.if_match, reason: why.reason, idempotency_key: said.key };
    match caller.asker().edit_state(edit).await {
        // The edit is work of its own, and this is how it says that the entry is another one by now.
        Err(problem) if problem.code == "changed_since" => Err(Problem { consequence: Consequence::Conflict, ..problem }.into()),
        done => Ok(Answer::of(done?)),
    }
}
