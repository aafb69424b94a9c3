//! Invocations and their journals.

use serde_json::Value;
use utoipa::ToSchema;

use super::waiting::Waiting;
use super::{Caller, WorkError};

/// An invocation, as lists show it.
#[derive(ToSchema)]
pub(crate) struct InvocationSummary {
    /// `inv_…`.
    id: String,
    /// `TYPE/KEY`.
    actor: String,
    /// Its handler.
    handler: String,
    /// Where it stands.
    status: InvocationStatus,
    /// Which attempt it is in.
    attempt: u64,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// The same in milliseconds since 1970.
    accepted_at_ms: u64,
}

/// Where an invocation stands.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum InvocationStatus {
    /// Accepted, not started.
    Accepted,
    /// Being handled, or waiting.
    Running,
    /// Waits for somebody to look at it.
    Blocked,
    /// Ended with a value.
    Completed,
    /// Ended with an error.
    Failed,
    /// Ended by a cancel.
    Cancelled,
    /// Ended by a kill.
    Killed,
}

/// A message that is handled, or was.
#[derive(ToSchema)]
pub(crate) struct Invocation {
    /// `inv_…`.
    id: String,
    /// `TYPE/KEY`.
    actor: String,
    /// Its handler.
    handler: String,
    /// Where it stands.
    status: InvocationStatus,
    /// Which attempt it is in.
    attempt: u64,
    /// When it was accepted.
    #[schema(format = DateTime)]
    accepted_at: String,
    /// The error of the last failed attempt.
    #[schema(required)]
    last_error: Option<WorkError>,
    /// What it waits for; empty once it has ended.
    waiting: Vec<Waiting>,
    /// Why it is where it is.
    sentence: String,
    /// The build that recorded it, and the one that is here.
    build: Builds,
    /// Who asked for it.
    caller: Caller,
    /// The invocation whose journal it began with.
    #[schema(nullable = false)]
    forked_from: Option<String>,
    /// Those that began with its journal.
    #[schema(nullable = false)]
    forks: Option<Vec<String>>,
    /// What it gave, any JSON, if it has completed.
    result: Option<Value>,
    /// Why it ended otherwise, if it has.
    #[schema(nullable = false)]
    error: Option<WorkError>,
}

/// Builds of the program that has the handlers.
#[derive(ToSchema)]
pub(crate) struct Builds {
    /// The one that recorded it, if that is known.
    #[schema(required)]
    recorded: Option<String>,
    /// The one that would handle it now, if that is known.
    #[schema(required)]
    here: Option<String>,
}

/// A page of a journal.
#[derive(ToSchema)]
pub(crate) struct Journal {
    /// In their order.
    entries: Vec<JournalEntry>,
    /// Where the next page begins; null: this is the last.
    #[schema(required)]
    next: Option<u64>,
}

/// An entry of a journal: an operation of a handler, and how it ended.
#[derive(ToSchema)]
pub(crate) struct JournalEntry {
    /// Its place, from 0.
    entry: u64,
    /// The number of its operation; null where it has none.
    #[schema(required)]
    operation: Option<u64>,
    /// What it is.
    kind: String,
    /// Of the step, activity, signal, state entry, change.
    name: String,
    /// Whom it addresses.
    target: String,
    /// How it ended.
    outcome: String,
    /// Its error.
    #[schema(required)]
    error: Option<WorkError>,
    /// The size of what it gave; null: erased.
    #[schema(required)]
    bytes: Option<u64>,
    /// When it was decided.
    #[schema(format = DateTime)]
    at: String,
    /// The first 12 characters of its seal.
    seal: String,
    /// The first 12 characters of its chain value.
    chain: String,
    /// What was done by hand here.
    #[schema(required)]
    by_hand: Option<ByHand>,
}

/// What somebody did to a journal.
#[derive(ToSchema)]
pub(crate) struct ByHand {
    /// Who.
    by: String,
    /// Why.
    reason: String,
    /// The entry that is not seen any more because of it.
    #[schema(required)]
    supersedes: Option<u64>,
    /// The operation that was decided.
    #[schema(required)]
    stands_for: Option<String>,
    /// The invocation whose journal was copied.
    #[schema(required)]
    from: Option<String>,
}

/// An invocation that begins with a copy of the journal of another one.
#[derive(ToSchema)]
pub(crate) struct InvocationFork {
    /// The new one.
    id: String,
    /// The other one.
    forked_from: String,
    /// How many entries it took over; null if it was there already.
    #[schema(required)]
    entries: Option<u64>,
}

/// An operation that was decided by hand.
#[derive(ToSchema)]
pub(crate) struct Resolution {
    /// The entry of the journal that says so.
    entry: u64,
    /// The entry in whose place it stands.
    #[schema(required)]
    supersedes: Option<u64>,
    /// The operation, as the code asks for it.
    stands_for: String,
}
