//! Whether the process lives and is ready, and who owns shards.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// The process lives.
#[derive(ToSchema)]
pub(crate) struct Health {
    /// `alive`.
    #[schema(example = "alive")]
    status: String,
}

/// Whether the process can work.
#[derive(ToSchema)]
pub(crate) struct Readiness {
    /// Whether it can.
    ready: bool,
    /// Each part that it depends on, by name.
    parts: BTreeMap<String, ReadyPart>,
}

/// Whether a part is ready.
#[derive(ToSchema)]
pub(crate) struct ReadyPart {
    /// Whether it is.
    ready: bool,
    /// Why it is not.
    #[schema(nullable = false)]
    reason: Option<String>,
    /// What somebody is to look at all the same.
    #[schema(nullable = false)]
    warning: Option<String>,
}

/// A process that owns shards of the store.
#[derive(ToSchema)]
pub(crate) struct Node {
    /// Another one after each start.
    id: String,
    /// The build of its program, if that is known.
    #[schema(required)]
    build: Option<String>,
    /// Since when it runs.
    #[schema(format = DateTime)]
    since: String,
    /// Those that it owns.
    shards: Vec<ShardRange>,
    /// Whether it works.
    status: NodeStatus,
    /// Why it has stopped, if it has.
    #[schema(required)]
    reason: Option<String>,
}

/// Shards that stand side by side.
#[derive(ToSchema)]
pub(crate) struct ShardRange {
    /// The first of them.
    first: u64,
    /// The last of them.
    last: u64,
}

/// Whether a node works.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum NodeStatus {
    /// It does.
    Working,
    /// It takes nothing in and does nothing any more.
    Stopped,
}
