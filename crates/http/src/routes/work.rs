//! `/v1/work`: tasks that workers of other processes take under a lease, and report about. See `docs/worker-protocol.md`.

use selvedge_engine::desk::Failed;
use selvedge_kernel::limit::LEASE_WAIT;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::actors::within;
use crate::answer::{Answer, Done};
use crate::caller::Caller;
use crate::shapes::work::LeasedTasks;
use crate::take::{Fields, Names};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Kind {
    /// The activity.
    activity: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct Task {
    /// What `lease` gave as `task`: one lease of one attempt.
    task: String,
}

/// What a worker asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// At most so many tasks, 1 to 100; 1 if not written.
    #[schema(minimum = 1, maximum = 100)]
    max: Option<usize>,
    /// How long to wait for the first one, at most 60 s; 30 s if not written.
    #[schema(example = "30s")]
    wait: Option<String>,
}

/// Gives tasks of an activity to a worker, waiting for the first one. None in time is an empty list.
#[utoipa::path(post, path = "/v1/work/{activity}/lease", tag = "work", params(Kind), request_body = Wanted,
    responses((status = 200, description = "the tasks", body = LeasedTasks)))]
pub(crate) async fn lease(caller: Caller, Names(at): Names<Kind>, Fields(wanted): Fields<Wanted>) -> Done {
    let mut versions = caller.door.versions.clone();
    versions.borrow_and_update();
    // A worker that waits gives nothing up when it is sent away: it asks again, and whoever it is then is looked at.
    let asker = caller.asker();
    tokio::select! {
        biased;
        given = within(&caller, LEASE_WAIT, || asker.lease(&at.activity, wanted.max, wanted.wait.as_deref())) => match given {
            Some(given) => Ok(Answer::of(given?)),
            None => Ok(Answer::of(serde_json::json!({ "tasks": [] }))),
        },
        Ok(()) = versions.changed() => Ok(Answer::of(serde_json::json!({ "tasks": [] }))),
    }
}

/// How far a worker is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Beat {
    /// What `why` shows of an activity that a handler called.
    #[schema(value_type = Option<Value>)]
    progress: Option<Box<RawValue>>,
}

/// Says that a worker is at its task: it is its own for another lease's time.
#[utoipa::path(post, path = "/v1/work/{task}/heartbeat", tag = "work", params(Task), request_body = Beat,
    responses((status = 204, description = "it is yours")))]
pub(crate) async fn heartbeat(caller: Caller, Names(at): Names<Task>, Fields(beat): Fields<Beat>) -> Done {
    caller.asker().heartbeat(&at.task, beat.progress.map(|progress| progress.get().to_owned())).await?;
    Ok(Answer::of(serde_json::Value::Null))
}

/// What a task gave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Given {
    /// Any JSON.
    #[schema(value_type = Value)]
    result: Box<RawValue>,
}

/// Ends a task with its result. Written when this is answered.
#[utoipa::path(post, path = "/v1/work/{task}/complete", tag = "work", params(Task), request_body = Given,
    responses((status = 204, description = "it is written")))]
pub(crate) async fn complete(caller: Caller, Names(at): Names<Task>, Fields(done): Fields<Given>) -> Done {
    caller.asker().complete(&at.task, done.result.get().to_owned()).await?;
    Ok(Answer::of(serde_json::Value::Null))
}

/// Why a task could not be done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Error {
    /// Stable, lower case with underscores: policies and people look for it.
    code: String,
    /// For people.
    #[serde(default)]
    message: String,
    /// Whether another attempt can help; it can if nothing is written.
    #[serde(default = "yes")]
    retryable: bool,
    /// When to try again at the earliest, in milliseconds.
    #[schema(format = "uint64")]
    retry_after_ms: Option<u64>,
}

fn yes() -> bool {
    true
}

/// Ends an attempt with an error. Written when this is answered; the task is tried again by its retry policy.
#[utoipa::path(post, path = "/v1/work/{task}/fail", tag = "work", params(Task), request_body = Error,
    responses((status = 204, description = "it is written")))]
pub(crate) async fn fail(caller: Caller, Names(at): Names<Task>, Fields(error): Fields<Error>) -> Done {
    let Error { code, message, retryable, retry_after_ms } = error;
    caller.asker().fail(&at.task, Failed { code, message, retryable, retry_after_ms }).await?;
    Ok(Answer::of(serde_json::Value::Null))
}
