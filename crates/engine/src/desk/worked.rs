//! What workers of other processes ask, and what they report.

use std::time::Duration;

use selvedge_kernel::auth::{Action, Permit, Resource, from_worker};
use selvedge_kernel::error::{AttemptError, Consequence, WorkError};
use selvedge_kernel::policy::Span;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::json::text_of;
use super::{Asker, Problem, value};
use crate::work::{Lease, Leased, activity_of};

/// How long a worker waits for a task if it does not say.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Given<'a> {
    task: &'a str,
    activity: &'a str,
    attempt: u32,
    key: &'a str,
    input: Option<&'a RawValue>,
    lease_ms: u64,
    time_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
}

/// Why a worker could not do its task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Stable, lower case with underscores.
    pub code: String,
    /// For people.
    pub message: String,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// When to try again at the earliest.
    pub retry_after_ms: Option<u64>,
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Asker<'_> {
    /// Tasks of an activity: `{"tasks": […]}`, none if none came in time. `wait` is a duration in words.
    ///
    /// # Errors
    /// What the engine or the policy says.
    pub async fn lease(&self, activity: &str, max: Option<usize>, wait: Option<&str>) -> Result<Value, Problem> {
        let wait = match wait.map(str::parse::<Span>).transpose() {
            Ok(span) => span.map_or(WAIT, |span| span.0),
            Err(error) => return Err(Problem::new(Consequence::FixInput, "bad_request", format!("`wait` is no duration ({error}): write \"30s\""))),
        };
        let permit = self.worker(activity)?;
        let leased = self.engine.lease(permit, Lease { most: max.unwrap_or(1), wait }).await?;
        let mut tasks = Vec::with_capacity(leased.len());
        for Leased { name, activity, attempt, key, input, lease, time, trace } in &leased {
            // An input was JSON when the task was made.
            let input = serde_json::from_slice(input).ok();
            let (lease_ms, time_ms, traceparent) = (ms(*lease), time.map(ms), trace.as_deref());
            tasks.push(value(&Given { task: name, activity, attempt: *attempt, key, input, lease_ms, time_ms, traceparent })?);
        }
        Ok(json!({ "tasks": tasks }))
    }

    /// Says that a worker is at its task.
    ///
    /// # Errors
    /// `lease_lost`; what the policy says.
    pub async fn heartbeat(&self, task: &str, progress: Option<String>) -> Result<(), Problem> {
        let permit = self.worker(of(task)?)?;
        Ok(self.engine.lives(permit, task, progress.map(text_of).transpose()?).await?)
    }

    /// Ends a task with its result, as JSON text. Written when this returns.
    ///
    /// # Errors
    /// `lease_lost`, `reported`; what the policy says.
    pub async fn complete(&self, task: &str, result: String) -> Result<(), Problem> {
        let permit = self.worker(of(task)?)?;
        Ok(self.engine.report(permit, task, Ok(text_of(result)?)).await?)
    }

    /// Ends an attempt of a task with an error. Written when this returns.
    ///
    /// # Errors
    /// As [`Asker::complete`].
    pub async fn fail(&self, task: &str, failed: Failed) -> Result<(), Problem> {
        let permit = self.worker(of(task)?)?;
        if failed.code.is_empty() {
            return Err(Problem::new(Consequence::FixInput, "empty", "the code of the error is empty: name it, it is what policies and people look for"));
        }
        let Failed { code, message, retryable, retry_after_ms } = failed;
        let error = AttemptError { error: WorkError::new(code, message).bounded(), retryable, retry_after_ms };
        Ok(self.engine.report(permit, task, Err(error)).await?)
    }

    fn worker(&self, activity: &str) -> Result<Permit, Problem> {
        let resource = Resource::Activity { tenant: self.tenant(), name: activity.to_owned() };
        Ok(self.engine.permit(from_worker(self.context, activity), Action::Work, resource)?)
    }
}

fn of(task: &str) -> Result<&str, Problem> {
    activity_of(task)
        .filter(|activity| !activity.is_empty())
        .ok_or_else(|| Problem::new(Consequence::FixInput, "bad_id", format!("`{task}` is no task of a lease: send what `lease` gave as `task`")))
}
