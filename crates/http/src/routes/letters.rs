//! `/v1/dead-letters`, and `/v1/why`.

use selvedge_engine::desk::{no_work, why};
use selvedge_kernel::id::{InvocationId, RunId};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::invocations::Id;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::letters::{DeadLetter, RedrivenLetter, Why};
use crate::take::{Fields, Names};

/// A dead letter, whole.
#[utoipa::path(get, path = "/v1/dead-letters/{id}", tag = "dead letters", params(Id), responses((status = 200, description = "it", body = DeadLetter)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>) -> Done {
    Ok(Answer::of(caller.asker().dead_letter(&at.id).await?))
}

/// What a dead letter is sent again with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redrive {
    /// Instead of its own input, any JSON; needs the right to rewrite.
    #[schema(value_type = Option<Value>)]
    input: Option<Box<RawValue>>,
}

/// Sends a dead letter again.
#[utoipa::path(post, path = "/v1/dead-letters/{id}/redrive", tag = "dead letters", params(Id), request_body = Redrive,
    responses((status = 202, description = "the new invocation", body = RedrivenLetter)))]
pub(crate) async fn redrive(caller: Caller, Names(at): Names<Id>, Fields(redrive): Fields<Redrive>) -> Done {
    let input = redrive.input.map(|input| input.get().to_owned());
    Ok(Answer::accepted(caller.asker().redrive(&at.id, input).await?))
}

/// Why a run or an invocation is where it is, and why what it waits for is.
#[utoipa::path(get, path = "/v1/why/{id}", tag = "why", params(Id), responses((status = 200, description = "a sentence, and more", body = Why)))]
pub(crate) async fn waits(caller: Caller, Names(at): Names<Id>) -> Done {
    if !(at.id.starts_with(RunId::PREFIX) || at.id.starts_with(InvocationId::PREFIX)) {
        return Err(no_work(&at.id).into());
    }
    Ok(Answer::of(why(caller.asker(), &at.id).await?))
}
