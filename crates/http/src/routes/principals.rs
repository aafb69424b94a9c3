//! `/v1/principals`: who of the caller's tenant is disabled.

use selvedge_engine::desk::{PrincipalVerb, Principals};

use super::invocations::{Id, Reason};
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::principals::Principal;
use crate::take::{Fields, Names};

/// The principals that are disabled: keys by their ids, users as `ISSUER:SUBJECT`.
#[utoipa::path(get, path = "/v1/principals", tag = "principals", responses((status = 200, description = "those that are disabled", body = Vec<Principal>)))]
pub(crate) async fn list(caller: Caller) -> Done {
    Ok(Answer::of(Principals(caller.asker()).perform(PrincipalVerb::List).await?))
}

/// Disables a principal: from now on it is denied everything, streams that it opened end, and what it asked for before ends at
/// its next call.
#[utoipa::path(post, path = "/v1/principals/{id}/disable", tag = "principals", params(Id), request_body = Reason,
    responses((status = 200, description = "it", body = Principal)))]
pub(crate) async fn disable(caller: Caller, Names(at): Names<Id>, Fields(why): Fields<Reason>) -> Done {
    Ok(Answer::of(Principals(caller.asker()).perform(PrincipalVerb::Disable { id: at.id, reason: why.reason }).await?))
}

/// Enables a principal again: its keys, its tokens and its schedules go on; what has ended meanwhile has ended.
#[utoipa::path(post, path = "/v1/principals/{id}/enable", tag = "principals", params(Id), responses((status = 200, description = "it", body = Principal)))]
pub(crate) async fn enable(caller: Caller, Names(at): Names<Id>) -> Done {
    Ok(Answer::of(Principals(caller.asker()).perform(PrincipalVerb::Enable { id: at.id }).await?))
}
