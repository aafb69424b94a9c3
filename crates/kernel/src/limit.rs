//! Every limit: its default, and the hard maximum that configuration may not pass.

use serde::{Deserialize, Serialize};

/// Operations of one commit.
pub const COMMIT_OPS: usize = 100;
/// Bytes of keys and values of one commit.
pub const COMMIT_BYTES: usize = 2 * 1024 * 1024;
/// Changed names and sends of one transition.
pub const TRANSITION_CHANGES: usize = 64;
/// Inline bytes of one transition.
pub const TRANSITION_BYTES: usize = 1024 * 1024;
/// A value above this is written as chunks of its own.
pub const INLINE_BYTES: usize = 64 * 1024;
/// One chunk of a large payload.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// One part of a key.
pub const KEY_PART_BYTES: usize = 256;
/// Nodes of a document from outside.
pub const DOCUMENT_NODES: usize = 100_000;
/// Nesting of a document from outside.
pub const DOCUMENT_DEPTH: usize = 64;
/// Bytes of a document from outside.
pub const DOCUMENT_BYTES: usize = 1024 * 1024;
/// Text of one expression: deeper nesting would abort its parser.
pub const EXPRESSION_BYTES: usize = 1024;
/// Nesting of one expression, in its brackets and in its syntax tree.
pub const EXPRESSION_DEPTH: usize = 100;
/// Nodes that one evaluation may visit.
pub const EXPRESSION_NODES: u64 = 10_000_000;
/// JSON that one evaluation may read.
pub const EXPRESSION_INPUT_BYTES: usize = 64 * 1024 * 1024;
/// A task's input.
pub const TASK_INPUT_BYTES: usize = 8 * 1024 * 1024;
/// Rows of one page.
pub const PAGE: usize = 1_000;
/// Text that says why something was done by hand.
pub const REASON_BYTES: usize = 1024;
/// The result that an operation is given by hand.
pub const RESOLUTION_BYTES: usize = 32 * 1024;
/// Journal entries that a fork takes over.
pub const FORK_ENTRIES: usize = 4_000;
/// Payloads that a fork takes over, in bytes.
pub const FORK_BYTES: usize = 32 * 1024 * 1024;
/// Rows of a run that a fork of it takes over.
pub const RUN_FORK_ROWS: usize = 20_000;
/// Text of one error: what is longer is cut where it is kept.
pub const ERROR_BYTES: usize = 16 * 1024;
/// Chunks of output given to a reader at once.
pub const STREAM_CHUNKS: usize = 100;
/// Bytes of output given to a reader at once.
pub const STREAM_BYTES: usize = 1024 * 1024;
/// Runs of one pipeline, and one key, that go at once.
pub const RUNS_AT_ONCE: usize = 1_000;
/// Calls that wait for one another.
pub const CALL_DEPTH: usize = 64;
/// Text of one `where`.
pub const FILTER_BYTES: usize = 4 * 1024;
/// Terms of one `where`.
pub const FILTER_TERMS: usize = 64;
/// Text of one cron pattern.
pub const CRON_BYTES: usize = 256;
/// The shortest time between two fires of `every`, in milliseconds.
pub const SCHEDULE_EVERY_MS: u64 = 1_000;
/// The longest jitter of a schedule, in milliseconds.
pub const SCHEDULE_JITTER_MS: u64 = 3_600_000;
/// Missed fires that `misfire: all` makes up for at once.
pub const SCHEDULE_CATCH_UP: usize = 100;
/// Versions of a stored pipeline that are kept.
pub const DEFINITIONS: usize = 32;
/// API keys of a tenant, those that were revoked included.
pub const KEYS: usize = 1_000;
/// Decisions of a tenant that are kept of each kind (denials, what was allowed, differences of a shadow); the oldest go.
pub const DECISIONS: usize = 10_000;
/// Different decisions of a tenant, and of each kind, that are recorded within a minute; others are counted.
pub const DECISIONS_A_MINUTE: usize = 1_000;
/// Policies that a recorded decision names.
pub const DECISION_POLICIES: usize = 16;
/// Hops of a delegation that a recorded decision names: the first and the last ones.
pub const DECISION_HOPS: usize = 8;
/// Roles of a principal.
pub const ROLES: usize = 16;
/// Principals of a tenant that are disabled.
pub const DISABLED: usize = 1_000;
/// One claim of a token, as policies see it.
pub const CLAIM_BYTES: usize = 256;
/// Claims of a token that policies see.
pub const CLAIMS: usize = 16;
/// Issuers whose tokens are believed.
pub const ISSUERS: usize = 16;
/// A token.
pub const TOKEN_BYTES: usize = 16 * 1024;
/// The set of an issuer's keys.
pub const KEY_SET_BYTES: usize = 256 * 1024;
/// Keys of an issuer.
pub const KEY_SET: usize = 100;
/// Tasks that a worker may take at once.
pub const LEASED_AT_ONCE: usize = 100;
/// How long a worker may wait for a task in one request.
pub const LEASE_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
/// The shortest and the longest lease, in milliseconds.
pub const LEASE_MS: std::ops::RangeInclusive<u64> = 1_000..=3_600_000;
/// Reports of workers that are answered the same when they come again.
pub const REPORTS_KEPT: usize = 10_000;
/// Attributes of a pipeline.
pub const ATTRIBUTES: usize = 16;
/// Bytes of the value of an attribute, as text.
pub const ATTRIBUTE_BYTES: usize = 256;
/// Missed fires that are counted; beyond, the count says "more".
pub const SCHEDULE_COUNTED: u64 = 10_000;
/// A fire that is later than this was missed, in milliseconds.
pub const SCHEDULE_LATE_MS: u64 = 60_000;
/// Nesting of a payload from outside: deeper JSON is refused at the door, since nobody could read it back.
pub const JSON_DEPTH: usize = 100;
/// HTTP: requests without a valid credential of one address within a minute, before it is told to wait.
pub const FAILED_CREDENTIALS: u64 = 600;
/// HTTP: sessions of browsers at the same time.
pub const SESSIONS: usize = 10_000;
/// HTTP: sessions of one principal; the oldest makes room for the next.
pub const SESSIONS_OF_ONE: usize = 16;
/// HTTP: sessions of all principals of one tenant.
pub const SESSIONS_OF_TENANT: usize = SESSIONS / 10;
/// HTTP: how long a session lasts, in milliseconds.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// HTTP: connections at the same time; the next one waits until one of them ends.
pub const HTTP_CONNECTIONS: usize = 10_000;
/// HTTP: the handshake of TLS is done within this time, in milliseconds.
pub const HTTP_HANDSHAKE_MS: u64 = 10_000;
/// HTTP: bytes of the head of a request, its first line and all its headers.
pub const HTTP_HEAD_BYTES: usize = 64 * 1024;
/// HTTP: headers of a request.
pub const HTTP_HEADERS: usize = 100;
/// HTTP: the head of a request is there within this time, in milliseconds.
pub const HTTP_HEAD_MS: u64 = 10_000;
/// HTTP: the body of a request is there within this time, in milliseconds.
pub const HTTP_BODY_MS: u64 = 60_000;
/// HTTP: a client that takes nothing for this long is dropped, in milliseconds.
pub const HTTP_STALL_MS: u64 = 30_000;
/// HTTP: the reader of a stream that takes a page more slowly than this is told where to go on, and let go, in milliseconds.
pub const HTTP_SLOW_MS: u64 = 20_000;
/// HTTP: the longest wait that a request may ask for, in seconds.
pub const HTTP_WAIT_S: u64 = 300;
/// HTTP: how long a call waits that says nothing of it, in seconds.
pub const HTTP_CALL_WAIT_S: u64 = 30;
/// HTTP: a stream says at least every so many milliseconds that it lives, and asks whether it still may be read.
pub const HTTP_HEARTBEAT_MS: u64 = 15_000;
/// HTTP: requests under way have this long to end when the server stops, in milliseconds.
pub const HTTP_DRAIN_MS: u64 = 10_000;

/// Limits that configuration may lower or raise up to [`Limits::MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body, and of any payload.
    pub body_bytes: u64,
    /// Names in an actor's state.
    pub state_names: u64,
    /// Journal entries of one invocation.
    pub journal_entries: u64,
    /// Messages waiting in one actor's inbox.
    pub inbox: u64,
    /// Signals kept for one actor or invocation.
    pub signals: u64,
    /// Items of a scatter.
    pub scatter_items: u64,
    /// Items of a scatter between the first unfinished and the last started one.
    pub scatter_window: u64,
    /// Stages of a pipeline.
    pub stages: u64,
    /// Tasks of a run at the same time.
    pub run_tasks: u64,
    /// Attempts of anything.
    pub attempts: u64,
    /// Longest delay, in milliseconds.
    pub delay_ms: u64,
    /// Open invocations of a tenant.
    pub tenant_invocations: u64,
    /// Timers of a tenant.
    pub tenant_timers: u64,
    /// Bytes that a tenant keeps: what counts is said in [`crate::record::kept`].
    pub tenant_bytes: u64,
    /// Requests of a tenant within a second, over HTTP.
    pub tenant_requests: u64,
    /// Bytes in flight of a process.
    pub process_bytes: u64,
    /// Actors kept in memory by a process.
    pub resident_actors: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 8 << 20,
            state_names: 10_000,
            journal_entries: 100_000,
            inbox: 10_000,
            signals: 1_000,
            scatter_items: 1_000_000,
            scatter_window: 10_000,
            stages: 1_000,
            run_tasks: 1_000,
            attempts: 1_000,
            delay_ms: 3_653 * 86_400_000,
            tenant_invocations: 100_000,
            tenant_timers: 1_000_000,
            tenant_bytes: 10 << 30,
            tenant_requests: 1_000,
            process_bytes: 256 << 20,
            resident_actors: 10_000,
        }
    }
}

impl Limits {
    /// What configuration cannot pass.
    pub const MAX: Limits = Limits {
        body_bytes: 64 << 20,
        state_names: 100_000,
        journal_entries: 1_000_000,
        inbox: 1_000_000,
        signals: 100_000,
        scatter_items: 10_000_000,
        scatter_window: 10_000,
        stages: 1_000,
        run_tasks: 10_000,
        attempts: 1_000,
        delay_ms: 3_653 * 86_400_000,
        tenant_invocations: 100_000_000,
        tenant_timers: 100_000_000,
        tenant_bytes: 1 << 50,
        tenant_requests: 1_000_000,
        process_bytes: 64 << 30,
        resident_actors: 10_000_000,
    };

    /// What each of them bounds, for the reference.
    pub const MEANINGS: [(&str, &str); 17] = [
        ("body_bytes", "bytes of a request's body, and of any payload"),
        ("state_names", "names in an actor's state"),
        ("journal_entries", "journal entries of one invocation"),
        ("inbox", "messages waiting in one actor's inbox"),
        ("signals", "signals kept for one actor or invocation"),
        ("scatter_items", "items of a scatter"),
        ("scatter_window", "items of a scatter between the first unfinished and the last started one"),
        ("stages", "stages of a pipeline"),
        ("run_tasks", "tasks of a run at the same time"),
        ("attempts", "attempts of anything"),
        ("delay_ms", "the longest delay, in milliseconds"),
        ("tenant_invocations", "open invocations of a tenant"),
        ("tenant_timers", "timers of a tenant"),
        ("tenant_bytes", "bytes that a tenant keeps"),
        ("tenant_requests", "requests of a tenant within a second, over HTTP"),
        ("process_bytes", "bytes in flight of a process"),
        ("resident_actors", "actors kept in memory by a process"),
    ];
}
