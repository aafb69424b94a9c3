//! Actors, and messages to them.

use serde_json::Value;
use utoipa::ToSchema;

/// An actor, as lists show it.
#[derive(ToSchema)]
pub(crate) struct Actor {
    /// Its type.
    #[schema(rename = "type")]
    kind: String,
    /// Its key.
    key: String,
    /// What it does.
    status: ActorStatus,
    /// Messages that wait behind the one that it handles.
    inbox: u64,
}

/// What an actor does.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum ActorStatus {
    /// It handles nothing.
    Idle,
    /// It handles a message.
    Busy,
    /// The message that it handles is blocked.
    Blocked,
}

/// What an invocation gave.
#[derive(ToSchema)]
pub(crate) struct InvocationResult {
    /// The invocation; null where the handler is a shared one, which keeps none.
    #[schema(required)]
    id: Option<String>,
    /// What it gave, any JSON.
    result: Value,
}

/// An invocation that was accepted.
#[derive(ToSchema)]
pub(crate) struct AcceptedInvocation {
    /// The invocation; null where the handler is a shared one, which keeps none.
    #[schema(required)]
    id: Option<String>,
    /// Whether another request under the same `Idempotency-Key` made it.
    #[schema(nullable = false)]
    joined: Option<bool>,
    /// What it gave, any JSON: there once it has ended.
    result: Option<Value>,
}

/// A change of an actor's state by hand: an invocation of its own.
#[derive(ToSchema)]
pub(crate) struct StateChange {
    /// The invocation that does it.
    id: String,
    /// Whether another request under the same `Idempotency-Key` made it.
    #[schema(nullable = false)]
    joined: Option<bool>,
    /// What it did: there once it has ended.
    #[schema(nullable = false)]
    result: Option<ChangedEntry>,
}

/// What became of an entry.
#[derive(ToSchema)]
pub(crate) struct ChangedEntry {
    /// The entry.
    name: String,
    /// The `ETag` that it had; null: there was none.
    #[schema(required)]
    before: Option<String>,
    /// The `ETag` that it has; null: it is gone.
    #[schema(required)]
    etag: Option<String>,
}
