//! `/v1/schedules`: by the names of their pipelines.

use selvedge_engine::desk::{Schedules, SteerSchedule};

use super::invocations::Id;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::schedules::{FiredSchedule, Schedule};
use crate::take::Names;

/// The schedule of a pipeline.
#[utoipa::path(get, path = "/v1/schedules/{id}", tag = "schedules", params(Id), responses((status = 200, description = "it", body = Schedule)))]
pub(crate) async fn show(caller: Caller, Names(at): Names<Id>) -> Done {
    Ok(Answer::of(Schedules(caller.asker()).show(&at.id).await?))
}

async fn steer(caller: &Caller, id: &str, steer: SteerSchedule) -> Done {
    Ok(Answer::of(Schedules(caller.asker()).steer(id, steer).await?))
}

/// Lets it fire no more until it is resumed.
#[utoipa::path(post, path = "/v1/schedules/{id}/pause", tag = "schedules", params(Id), responses((status = 200, description = "it", body = Schedule)))]
pub(crate) async fn pause(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, SteerSchedule::Pause).await
}

/// Lets it fire again from now on.
#[utoipa::path(post, path = "/v1/schedules/{id}/resume", tag = "schedules", params(Id), responses((status = 200, description = "it", body = Schedule)))]
pub(crate) async fn resume(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, SteerSchedule::Resume).await
}

/// Fires it now.
#[utoipa::path(post, path = "/v1/schedules/{id}/fire", tag = "schedules", params(Id), responses((status = 200, description = "the run", body = FiredSchedule)))]
pub(crate) async fn fire(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, SteerSchedule::Fire).await
}

/// Takes it away, until its pipeline is stored again or an engine opens with it.
#[utoipa::path(delete, path = "/v1/schedules/{id}", tag = "schedules", params(Id), responses((status = 200, description = "as it was", body = Schedule)))]
pub(crate) async fn remove(caller: Caller, Names(at): Names<Id>) -> Done {
    steer(&caller, &at.id, SteerSchedule::Remove).await
}
