//! What each list can be asked for.

/// A list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// Runs of pipelines.
    Runs,
    /// Actors.
    Actors,
    /// Invocations.
    Invocations,
    /// Jobs of queues.
    Jobs,
    /// Approvals.
    Approvals,
    /// Schedules.
    Schedules,
    /// Dead letters.
    DeadLetters,
    /// What has been open for long: runs and invocations.
    Stuck,
}

/// A field of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// As written.
    pub name: &'static str,
    /// What its values are.
    pub kind: FieldKind,
    /// For people.
    pub about: &'static str,
}

/// What the values of a field are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldKind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text, compared whole.
    Text,
    /// A number.
    Number,
    /// A length of time.
    Duration,
    /// An instant.
    Time,
}

const fn field(name: &'static str, kind: FieldKind, about: &'static str) -> Field {
    Field { name, kind, about }
}

use FieldKind::{Duration, Number, Text, Time, Word};

const RUN_STATES: &[&str] = &["pending", "running", "waiting", "paused", "blocked", "completed", "failed", "cancelled"];
const INVOCATION_STATES: &[&str] = &["accepted", "running", "suspended", "blocked", "completed", "failed", "cancelled", "killed"];
const OPEN: &[&str] = &["pending", "accepted", "running", "waiting", "suspended", "paused", "blocked"];
const APPROVAL_STATES: &[&str] = &["open", "escalated", "approved", "rejected", "withdrawn"];
const JOB_STATES: &[&str] = &["waiting", "delayed", "active", "completed", "failed"];

const ID: Field = field("id", Text, "its id");
const AGE: Field = field("age", Duration, "how long ago it was accepted");
const STARTED: Field = field("started", Time, "when it was accepted");
const ENDED: Field = field("ended", Time, "when it ended");
const TYPE: Field = field("type", Text, "the actor's type");
const KEY: Field = field("key", Text, "the actor's key");
const HANDLER: Field = field("handler", Text, "the handler");
const PIPELINE: Field = field("pipeline", Text, "the pipeline's name");
const ATTEMPTS: Field = field("attempts", Number, "how often it was tried");

const RUNS: &[Field] =
    &[ID, PIPELINE, field("status", Word(RUN_STATES), "where it is"), field("version", Text, "the version it is pinned to"), AGE, STARTED, ENDED];
const ACTORS: &[Field] =
    &[TYPE, KEY, field("status", Word(&["idle", "busy", "blocked"]), "whether it handles a message"), field("inbox", Number, "how many messages wait")];
const INVOCATIONS: &[Field] = &[ID, TYPE, KEY, HANDLER, field("status", Word(INVOCATION_STATES), "where it is"), ATTEMPTS, AGE, STARTED, ENDED];
const JOBS: &[Field] = &[
    ID,
    field("queue", Text, "the queue's name"),
    field("status", Word(JOB_STATES), "where it is"),
    field("priority", Number, "its priority"),
    ATTEMPTS,
    AGE,
    STARTED,
    ENDED,
];
const APPROVALS: &[Field] = &[
    ID,
    field("run", Text, "the run that asks"),
    PIPELINE,
    field("stage", Text, "the stage that asks"),
    field("status", Word(APPROVAL_STATES), "where it is"),
    field("assignee", Text, "somebody who is asked"),
    AGE,
    field("expires", Time, "when its time is up"),
];
const SCHEDULES: &[Field] = &[
    PIPELINE,
    field("status", Word(&["active", "paused"]), "whether it fires"),
    field("next", Time, "when it fires next"),
    field("last", Time, "when it fired last"),
    field("started", Number, "how many runs it started"),
    field("missed", Number, "how many fires it missed"),
];
const DEAD_LETTERS: &[Field] = &[ID, TYPE, KEY, HANDLER, field("error", Text, "the code of the last error"), ATTEMPTS, AGE];

const STUCK: &[Field] = &[
    ID,
    PIPELINE,
    field("version", Text, "the version that a run is pinned to"),
    TYPE,
    KEY,
    HANDLER,
    field("status", Word(OPEN), "where it is"),
    ATTEMPTS,
    AGE,
    STARTED,
];

impl List {
    /// All of them.
    pub const ALL: [List; 8] = [List::Runs, List::Actors, List::Invocations, List::Jobs, List::Approvals, List::Schedules, List::DeadLetters, List::Stuck];

    /// What it can be asked for.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        match self {
            List::Runs => RUNS,
            List::Actors => ACTORS,
            List::Invocations => INVOCATIONS,
            List::Jobs => JOBS,
            List::Approvals => APPROVALS,
            List::Schedules => SCHEDULES,
            List::DeadLetters => DEAD_LETTERS,
            List::Stuck => STUCK,
        }
    }

    /// Whether its lines have attributes, asked for as `attr.NAME`.
    #[must_use]
    pub fn has_attributes(self) -> bool {
        matches!(self, List::Runs | List::Stuck)
    }

    pub(super) fn find(self, name: &str) -> Option<Field> {
        self.fields().iter().find(|field| field.name == name).copied()
    }
}
