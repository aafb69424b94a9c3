//! What work can wait for.

use utoipa::ToSchema;

/// What something that is not finished waits for: `for` says which of these it is.
#[derive(ToSchema)]
#[serde(tag = "for", rename_all = "snake_case")]
pub(crate) enum Waiting {
    /// A time.
    Timer {
        #[schema(format = DateTime)]
        until: String,
    },
    /// A signal by name.
    Signal {
        name: String,
        #[schema(required, format = DateTime)]
        until: Option<String>,
    },
    /// The answer to a call.
    Call { target: ActorId, handler: String, invocation: String },
    /// A step or activity that runs now.
    Step {
        name: String,
        attempt: u64,
        #[schema(format = DateTime)]
        since: String,
    },
    /// The next attempt.
    RetryAt {
        name: String,
        attempt: u64,
        #[schema(format = DateTime)]
        at: String,
        last_error: String,
        /// How many attempts there may be, where so many have failed that somebody is to look.
        #[schema(nullable = false)]
        of: Option<u64>,
    },
    /// A slot or a token of a throttle.
    Throttle {
        limit: String,
        position: u64,
        /// Of one that is shared with other runs: how it stands.
        #[schema(nullable = false)]
        lending: Option<Lending>,
    },
    /// A breaker that is not closed, or was asked just now.
    Breaker {
        target: String,
        state: BreakerState,
        #[schema(required, format = DateTime)]
        since: Option<String>,
        /// Of an open one: when it lets somebody find out.
        #[schema(required, format = DateTime)]
        until: Option<String>,
    },
    /// A person.
    Approval {
        stage: String,
        assignees: Vec<String>,
        #[schema(format = DateTime)]
        expires: String,
    },
    /// An earlier message of the same actor.
    Behind { invocation: String },
    /// A shard lease.
    Lease { node: String },
    /// Somebody who looks at it.
    Blocked { reason: String },
    /// Something that can run it.
    NoExecutor { activity: String },
    /// Somebody paused it.
    Paused {
        by: String,
        #[schema(format = DateTime)]
        since: String,
    },
    /// The store to catch up.
    StoreBehind,
    /// Its turn in its shard.
    Turn { position: u64 },
    /// Its write to be durable.
    Commit,
    /// The tasks of a stage.
    Tasks { stage: String, done: u64, total: u64 },
    /// A slot among the runs of its pipeline.
    RunLimit { key: String, holder: String },
    /// A child.
    Child { invocation: String },
    /// A run that a task of it called.
    ChildRun { stage: String, run: String },
}

/// The identity of an actor.
#[derive(ToSchema)]
pub(crate) struct ActorId {
    /// Its tenant.
    tenant: String,
    /// Its type.
    kind: String,
    /// Its key.
    key: String,
}

/// What a breaker lets through.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum BreakerState {
    /// Everything.
    Closed,
    /// Nothing.
    Open,
    /// A few, to find out.
    HalfOpen,
}

/// How a limit over all shards stands.
#[derive(ToSchema)]
pub(crate) struct Lending {
    /// What it limits to.
    throttle: Throttle,
    /// The shards whose attempts have a permit, each as its number and how many have.
    borrowers: Vec<Vec<u64>>,
    /// How many wait for one in all shards.
    waiting: u64,
}

/// How many at once, and how many in which time.
#[derive(ToSchema)]
pub(crate) struct Throttle {
    /// At most this many at once.
    #[schema(required)]
    concurrency: Option<u64>,
    /// At most this many starts in a time.
    #[schema(required)]
    rate: Option<Rate>,
    /// An expression: one limit for each of its values.
    #[schema(required)]
    key: Option<String>,
}

/// How many in which time.
#[derive(ToSchema)]
pub(crate) struct Rate {
    /// How many.
    count: u64,
    /// In which time, such as `1m`.
    per: String,
}
