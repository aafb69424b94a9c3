//! `/v1/keys`: the API keys of the caller's tenant.

use selvedge_engine::desk::{KeyVerb, Keys};
use selvedge_kernel::policy::Span;
use serde::Deserialize;
use utoipa::ToSchema;

use super::invocations::{Id, Reason};
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::principals::{ApiKey, CreatedApiKey};
use crate::take::{Fields, Names};

/// Keys, those that were revoked included, the newest first.
#[utoipa::path(get, path = "/v1/keys", tag = "keys", responses((status = 200, description = "without what their owners present", body = Vec<ApiKey>)))]
pub(crate) async fn list(caller: Caller) -> Done {
    Ok(Answer::of(Keys(caller.asker()).perform(KeyVerb::List).await?))
}

/// What a key is made with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// What it is for, for people.
    #[serde(default)]
    name: String,
    /// What it may act as.
    roles: Vec<String>,
    /// How long it opens something, such as `90d`; until it is revoked, if it is not there.
    #[schema(value_type = Option<String>)]
    expires: Option<Span>,
}

/// Makes a key: what its owner presents is in this answer, and nowhere else ever.
#[utoipa::path(post, path = "/v1/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, description = "what its owner presents is `key`", body = CreatedApiKey)))]
pub(crate) async fn create(caller: Caller, Fields(new): Fields<NewKey>) -> Done {
    let lasts_ms = new.expires.map(|span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX));
    let made = Keys(caller.asker()).perform(KeyVerb::Create { name: new.name, roles: new.roles, lasts_ms }).await?;
    Ok(Answer::created(made))
}

/// Takes a key back: from now on it opens nothing, and streams that it opened end.
#[utoipa::path(post, path = "/v1/keys/{id}/revoke", tag = "keys", params(Id), request_body = Reason,
    responses((status = 200, description = "it", body = ApiKey)))]
pub(crate) async fn revoke(caller: Caller, Names(at): Names<Id>, Fields(why): Fields<Reason>) -> Done {
    Ok(Answer::of(Keys(caller.asker()).perform(KeyVerb::Revoke { id: at.id, reason: why.reason }).await?))
}
