//! `/v1/approvals`: what people are asked, and their answers.

use selvedge_engine::desk::{Decision, Runs};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ApprovalId, RunId};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::invocations::Id;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::refusal::Refusal;
use crate::shapes::approvals::{AnsweredApproval, Approval};
use crate::take::{Fields, Names, Words};

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
    /// Where the path names a run: the stage that asks; the only one that does, if it is not there.
    stage: Option<String>,
}

/// The run of an approval, and its stage. A run stands for the only approval in it, or for that of the stage that is named.
async fn asked(caller: &Caller, id: &str, stage: Option<String>) -> Result<(String, Option<String>), Refusal> {
    if id.parse::<RunId>().is_ok() {
        return Ok((id.to_owned(), stage));
    }
    id.parse::<ApprovalId>().map_err(|error| Refusal::new(Consequence::FixInput, "bad_id", error.to_string()))?;
    let found = Runs(caller.asker()).approvals(&format!("id:{id}")).await?;
    let text = |name: &str| found[0][name].as_str().map(str::to_owned);
    text("run").map(|run| (run, text("stage"))).ok_or_else(|| {
        let text = format!("there is no approval {id} among the newest runs: GET /v1/approvals has those that there are");
        Refusal::new(Consequence::NotFound, "no_approval", text)
    })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Stage {
    /// Where the path names a run: the stage that asks or asked.
    stage: Option<String>,
}

/// An approval, with what it shows to whom it asks. The id of a run stands for the approval in it.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals", params(Id, Stage), responses((status = 200, description = "it", body = Approval)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>, Words(of): Words<Stage>) -> Done {
    let (run, stage) = asked(&caller, &at.id, of.stage).await?;
    Ok(Answer::of(Runs(caller.asker()).approval(&run, stage).await?))
}

/// Answers an approval, as whoever the credential names.
#[utoipa::path(post, path = "/v1/approvals/{id}", tag = "approvals", params(Id), request_body = Answered,
    responses((status = 200, description = "the stage that goes on", body = AnsweredApproval)))]
pub(crate) async fn answer(caller: Caller, Names(at): Names<Id>, Fields(given): Fields<Answered>) -> Done {
    let (run, stage) = asked(&caller, &at.id, given.stage).await?;
    // Who answers is who asks us, never what a body says.
    let by = caller.context.principal.id.clone();
    Ok(Answer::of(Runs(caller.asker()).decide(&run, stage, given.answer, &by, &given.comment).await?))
}
