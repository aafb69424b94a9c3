//! Dead letters; why work is where it is.

use serde_json::Value;
use utoipa::ToSchema;

use super::invocations::Builds;
use super::waiting::Waiting;
use super::{Caller, WorkError};

/// A dead letter, as lists show it.
#[derive(ToSchema)]
pub(crate) struct DeadLetterSummary {
    /// The invocation that it was.
    id: String,
    /// `TYPE/KEY`.
    actor: String,
    /// The handler, or the signal.
    handler: String,
    /// What was asked, any JSON; null of a large one.
    input: Value,
    /// The size of that; null: erased.
    #[schema(required)]
    input_bytes: Option<u64>,
    /// The last error.
    error: WorkError,
    /// How often it was tried.
    attempts: u64,
    /// When it was given up.
    #[schema(format = DateTime)]
    at: String,
}

/// A message that could not be handled, whole.
#[derive(ToSchema)]
pub(crate) struct DeadLetter {
    /// The invocation that it was.
    id: String,
    /// `TYPE/KEY`.
    actor: String,
    /// The handler, or the signal.
    handler: String,
    /// What was asked, any JSON.
    input: Value,
    /// The size of that; null: erased.
    #[schema(required)]
    input_bytes: Option<u64>,
    /// The last error.
    error: WorkError,
    /// How often it was tried.
    attempts: u64,
    /// When it was given up.
    #[schema(format = DateTime)]
    at: String,
    /// Who asked.
    principal: String,
    /// Its `Idempotency-Key`.
    #[schema(required)]
    idempotency_key: Option<String>,
}

/// A dead letter that was sent again.
#[derive(ToSchema)]
pub(crate) struct RedrivenLetter {
    /// The new invocation; null of a signal.
    #[schema(required)]
    id: Option<String>,
    /// The name of the signal, if it is one.
    #[schema(nullable = false)]
    signal: Option<String>,
}

/// Why a run or an invocation is where it is.
#[derive(ToSchema)]
pub(crate) struct Why {
    /// Which.
    id: String,
    /// Why, for people.
    sentence: String,
    /// Where it is: of an invocation one of `InvocationStatus`, of a run one of `RunStatus`.
    status: String,
    /// What it waits for; empty once it has ended.
    waiting: Vec<Waiting>,
    /// The error of the last failed attempt; of a run, why it failed.
    #[schema(required)]
    last_error: Option<WorkError>,
    /// What it waits for in the end, one after the other.
    then: Vec<WhyThen>,
    /// Who asked for it.
    #[schema(nullable = false)]
    caller: Option<Caller>,
    /// Of an invocation: the build that recorded it, and the one that is here.
    #[schema(nullable = false)]
    build: Option<Builds>,
}

/// What something waits for.
#[derive(ToSchema)]
pub(crate) struct WhyThen {
    /// A run or an invocation.
    id: String,
    /// Why that is where it is.
    sentence: String,
}

/// A run or an invocation that has waited for long.
#[derive(ToSchema)]
pub(crate) struct StuckWork {
    /// Which.
    id: String,
    /// Where it is: of an invocation one of `InvocationStatus`, of a run one of `RunStatus`.
    status: String,
    /// Since when it waits.
    #[schema(format = DateTime)]
    since: String,
    /// The same in milliseconds since 1970.
    since_ms: u64,
    /// What for.
    sentence: String,
}
