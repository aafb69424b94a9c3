//! `/v1/approvals`: what people are asked, and their answers.

use selvedge_engine::desk::{Decision, Runs};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::ApprovalId;
use serde::Deserialize;
use utoipa::ToSchema;

use super::invocations::Id;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::take::{Fields, Names};

/// The answer to an approval.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answered {
    /// Yes or no.
    #[schema(value_type = String, example = "approve")]
    answer: Decision,
    /// A remark.
    #[serde(default)]
    comment: String,
}

/// The run and the stage of an approval.
async fn asked(caller: &Caller, id: &str) -> Result<(String, String), Refusal> {
    id.parse::<ApprovalId>().map_err(|error| Refusal::new(Consequence::FixInput, "bad_id", error.to_string()))?;
    let found = Runs(caller.asker()).approvals(&format!("id:{id}")).await?;
    let text = |name: &str| found[0][name].as_str().map(str::to_owned);
    text("run").zip(text("stage")).ok_or_else(|| {
        Refusal::new(
            Consequence::NotFound,
            "no_approval",
            format!("there is no approval {id} among the newest runs: GET /v1/approvals has those that there are"),
        )
    })
}

/// An approval, with what it shows to whom it asks.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals", params(Id), responses((status = 200, description = "it", body = Value)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>) -> Done {
    let (run, stage) = asked(&caller, &at.id).await?;
    Ok(Answer::of(Runs(caller.asker()).approval(&run, Some(stage)).await?))
}

/// Answers an approval, as whoever the credential names.
#[utoipa::path(post, path = "/v1/approvals/{id}", tag = "approvals", params(Id), request_body = Answered,
    responses((status = 200, description = "the stage that goes on", body = Value)))]
pub(crate) async fn answer(caller: Caller, Names(at): Names<Id>, Fields(given): Fields<Answered>) -> Done {
    let (run, stage) = asked(&caller, &at.id).await?;
    // Who answers is who asks us, never what a body says.
    let by = caller.context.principal.id.clone();
    Ok(Answer::of(Runs(caller.asker()).decide(&run, Some(stage), given.answer, &by, &given.comment).await?))
}
