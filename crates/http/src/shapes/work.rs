//! Tasks of workers of other processes.

use serde_json::Value;
use utoipa::ToSchema;

/// Tasks that a worker was given.
#[derive(ToSchema)]
pub(crate) struct LeasedTasks {
    /// None, if there was none in time.
    tasks: Vec<LeasedTask>,
}

/// A task, under a lease.
#[derive(ToSchema)]
pub(crate) struct LeasedTask {
    /// One lease of one attempt: what `heartbeat`, `complete` and `fail` are asked with.
    task: String,
    /// Its activity.
    activity: String,
    /// Which attempt it is, from 1.
    attempt: u64,
    /// The same for every attempt: what effects are made once by.
    key: String,
    /// What it is asked, any JSON.
    input: Value,
    /// How long the lease is without a heartbeat, in milliseconds.
    lease_ms: u64,
    /// How long the attempt may take, in milliseconds, if that is limited.
    #[schema(required)]
    time_ms: Option<u64>,
    /// The trace that it belongs to, if it belongs to one.
    #[schema(nullable = false)]
    traceparent: Option<String>,
}
