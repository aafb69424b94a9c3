//! A pipeline as data, after validation. What the file says, with defaults filled in; expressions stay text here and
//! are compiled when a run is loaded. The JSON form of this value is what is stored, and its hash is the version.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use crate::egress::Allowed;
use crate::policy::{Breaker, Retry, Span, Throttle, Timeout};
use crate::schedule::Spec;

/// A validated pipeline.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Definition {
    /// The version of the file that it was read from, noted before its folders were made absolute; none: what its content gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    /// For people.
    pub description: String,
    /// JSON Schema properties of the input, in file order; a `default` makes one optional.
    pub input: serde_json::Map<String, Value>,
    /// A template over `input`, `run`, `stages`; null if not written.
    pub output: Value,
    /// Activities declared in this file.
    pub activities: BTreeMap<String, Activity>,
    /// The whole run's time.
    pub timeout: Option<Span>,
    /// How many runs of it go at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How long the finished run is kept.
    pub retention: Option<Span>,
    /// Named expressions, indexed for lists.
    pub attributes: BTreeMap<String, Value>,
    /// When it starts by itself, where it is stored. Absent in the JSON of a pipeline without: its version stays what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Spec>,
    /// In file order; `depends_on` filled in.
    pub stages: Vec<Stage>,
    /// What the `http` activities of this file may reach, besides what the manifest names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Allowed>,
}

/// How many runs of a pipeline go at once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Concurrency {
    /// At most so many, 1 to 1 000.
    pub limit: u32,
    /// A bare expression over `input` and `run`: so many for each of its values; none: for all runs together.
    pub key: Option<String>,
    /// What becomes of one more.
    pub when_full: WhenFull,
}

/// What becomes of a run when as many as may go at once are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits in line.
    Wait,
    /// It fails at once.
    Reject,
    /// The oldest is cancelled, with all that wait, and it comes next.
    Replace,
}

/// An activity and where it runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Activity {
    /// Where it runs.
    pub executor: Executor,
    /// When to try again.
    pub retry: Retry,
    /// How long it may take.
    pub timeout: Timeout,
    /// Of all its tasks, whoever calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// Of all its tasks, whoever calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
}

/// Where an activity runs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// A Rust function registered under the activity's name.
    Native,
    /// A program: see the exec protocol.
    Exec(Exec),
    /// A request: see the http executor.
    Http(Http),
    /// Whoever asks for it: see the worker protocol.
    Worker(Worker),
}

/// Workers of other processes, which take tasks under a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// How long a task is its worker's without a sign of life.
    pub lease: Span,
}

/// A request that is made for each attempt of a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Http {
    /// One of [`METHODS`].
    pub method: String,
    /// A template over `input`.
    pub url: String,
    /// By name, in lower case.
    pub headers: BTreeMap<String, Header>,
    /// A template over `input`; none if not written: then the input itself, where the method takes a body.
    pub body: Option<Value>,
    /// How many redirects are followed.
    pub redirects: u32,
    /// What `file:` secrets are relative to: filled in as absolute when it is loaded.
    pub folder: String,
}

/// The methods of a request.
pub const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

/// The value of a header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Header {
    /// A template over `input`.
    Text(String),
    /// A reference that is resolved when the request is sent; nothing else ever sees the value.
    Secret {
        /// `env:NAME` or `file:PATH`.
        secret: String,
        /// What stands before it, such as `Bearer `.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        prefix: String,
    },
}

/// A program that runs tasks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// JSON Lines worker (true) or once per task (false).
    pub persistent: bool,
    /// At most this many processes.
    pub processes: u32,
    /// Added to an otherwise small environment.
    pub environment: BTreeMap<String, Variable>,
    /// The folder it runs in: relative to the file that declares it; filled in as absolute when it is loaded.
    pub folder: String,
    /// The task gets a path to JSON Lines instead of its input.
    pub as_file: bool,
}

/// The value of a variable in a program's environment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Variable {
    /// As it is written.
    Text(String),
    /// A reference that is resolved when a process starts; nothing else ever sees the value.
    Secret {
        /// `env:NAME` or `file:PATH`.
        secret: String,
    },
}

/// What a stage, or its failure, calls.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// An activity by name.
    Activity(String),
    /// Another pipeline by name: a run of it is the task.
    Pipeline(String),
    /// A handler of an actor.
    Actor {
        /// The actor's type.
        actor: String,
        /// A template for its key.
        key: String,
        /// The handler.
        handler: String,
    },
}

/// One branch of a stage whose tasks call different things.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Branch {
    /// What it is called in outputs and failures: its name, or what it calls.
    pub item: Value,
    /// What it calls.
    pub call: Call,
    /// A template for its input; null if not written.
    pub input: Value,
}

/// What one step of a `map_reduce` calls.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// What.
    pub call: Call,
    /// A template for its input; null if not written: then a map gets its item and a reduce its list.
    pub input: Value,
}

/// How many of several have to give an output before the rest of the run goes on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quorum {
    /// All of them have ended, well or not.
    #[default]
    All,
    /// So many have given an output.
    Count(u32),
}

impl Quorum {
    fn is_all(&self) -> bool {
        *self == Quorum::All
    }
}

/// What becomes of those that are not needed any more.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// They are cancelled.
    #[default]
    Cancel,
    /// They run to their end, and nobody reads it.
    Run,
}

impl Rest {
    fn is_cancel(&self) -> bool {
        *self == Rest::Cancel
    }
}

/// One stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// `[a-z][a-z0-9_]{0,62}`.
    pub name: String,
    /// What is peculiar to its mode.
    pub mode: Mode,
    /// What its tasks call; none for `approval`, `sleep`, `wait_signal` and a plain `gather`.
    pub call: Option<Call>,
    /// Names of stages that must have ended before.
    pub depends_on: Vec<String>,
    /// A bare expression; false skips the stage.
    pub when: Option<String>,
    /// A template for each task's input; null if not written (then a scatter's task gets its item, others null).
    pub input: Value,
    /// A template over `result`; null if not written (then the result is the output).
    pub output: Value,
    /// Instead of the activity's.
    pub retry: Option<Retry>,
    /// Instead of the activity's; `total` of a waiting stage is how long it waits.
    pub timeout: Option<Timeout>,
    /// Instead of the activity's: without `key` of this stage of one run, with it of this stage of all runs, for each key.
    pub throttle: Option<Throttle>,
    /// Instead of the activity's: of this stage of all runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What undoes it when the run fails or is cancelled. What is under way then ends first, and is undone if it ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Compensate>,
    /// What a failed task means.
    pub on_failure: OnFailure,
}

/// What undoes a finished task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Compensate {
    /// What.
    pub call: Call,
    /// A template for its input, with the task's `output` and `item` in scope; null if not written: then it gets both.
    pub input: Value,
    /// Instead of the activity's.
    pub retry: Option<Retry>,
    /// Instead of the activity's.
    pub timeout: Option<Timeout>,
}

/// What is peculiar to a stage's mode.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// One task.
    Single,
    /// One task per item.
    Scatter {
        /// A bare expression that gives a list.
        over: String,
        /// The item's second name.
        item_as: Option<String>,
        /// A bare expression; items for which it is not true are left out.
        keep: Option<String>,
    },
    /// A barrier over stages.
    Gather {
        /// Whose outputs.
        stages: Vec<String>,
        /// A bare expression over `item`.
        keep: Option<String>,
        /// A bare expression over `item` that gives the group's key.
        group_by: Option<String>,
        /// The output's shape.
        combine: Combine,
        /// How many of the stages are waited for.
        #[serde(default, skip_serializing_if = "Quorum::is_all")]
        wait: Quorum,
        /// What becomes of the others.
        #[serde(default, skip_serializing_if = "Rest::is_cancel")]
        rest: Rest,
    },
    /// One task per branch: what `fork_join` and `broadcast` become when the file is read.
    Fork {
        /// In the order of the file.
        branches: Vec<Branch>,
        /// Whether the output is an object by the names of the branches; else it is a list in their order.
        by_name: bool,
        /// Whether the first output is the output of the stage.
        first: bool,
        /// What becomes of the others then.
        #[serde(default, skip_serializing_if = "Rest::is_cancel")]
        rest: Rest,
    },
    /// One task per item, then tasks over at most 100 outputs each, level by level, until one output is left.
    MapReduce {
        /// A bare expression that gives a list.
        over: String,
        /// The item's second name.
        item_as: Option<String>,
        /// What runs for each item.
        map: Task,
        /// What runs for each list of outputs, with `items` in scope.
        reduce: Task,
    },
    /// The tasks that undo those of another stage; in no file: it follows from `compensate`.
    Undo {
        /// The number of that stage.
        of: u16,
    },
    /// A person decides.
    Approval {
        /// `user:…` or `role:…`.
        assignees: Vec<String>,
        /// A template: what the person sees.
        show: Value,
        /// How long it waits.
        expires: Span,
        /// What happens then.
        fallback: Fallback,
        /// Who is asked after an escalation.
        escalate_to: Vec<String>,
    },
    /// A durable wait.
    Sleep(SleepTime),
    /// A durable wait for a signal by name.
    WaitSignal {
        /// The signal's name.
        signal: String,
    },
}

/// How long a `sleep` sleeps.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SleepTime {
    /// A time span.
    For(Span),
    /// A template that gives an RFC 3339 time.
    Until(String),
}

impl Stage {
    /// Whether its tasks have an item each.
    #[must_use]
    pub fn has_items(&self) -> bool {
        matches!(self.mode, Mode::Scatter { .. } | Mode::Fork { .. } | Mode::MapReduce { .. } | Mode::Undo { .. } | Mode::Gather { group_by: Some(_), .. })
    }

    /// Whether its output is made of one output for each of its tasks.
    #[must_use]
    pub fn is_wide(&self) -> bool {
        matches!(self.mode, Mode::Scatter { .. } | Mode::Undo { .. } | Mode::Fork { first: false, .. } | Mode::Gather { group_by: Some(_), .. })
    }

    /// Whether the first task that gives an output gives the stage's.
    #[must_use]
    pub fn takes_first(&self) -> bool {
        matches!(self.mode, Mode::Fork { first: true, .. })
    }

    /// Whether its outputs stand by name or key instead of in a list.
    #[must_use]
    pub fn by_key(&self) -> bool {
        match &self.mode {
            Mode::Fork { by_name, first, .. } => *by_name && !first,
            Mode::Gather { group_by, combine, .. } => group_by.is_some() && self.call.is_some() && *combine == Combine::Object,
            _ => false,
        }
    }
}

/// The shape of a gather's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// A list.
    Concat,
    /// An object by group key, without `group_by` by stage.
    Object,
}

/// What an expired approval becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Approved.
    Approve,
    /// Rejected.
    Reject,
    /// Others are asked, once; a second expiry rejects.
    Escalate,
}

/// What a failed task means for its stage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// No new task starts, the run fails.
    Fail,
    /// Its output is null, dependants run.
    Continue {
        /// More failed tasks than this fail the stage after all.
        max_failed: Option<MaxFailed>,
    },
    /// Something else gives the stage's output, with `error` in scope.
    Call {
        /// What.
        call: Call,
        /// A template for its input, with `error {code, message}` in scope.
        input: Value,
    },
}

/// How many failed tasks a stage bears.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxFailed {
    /// So many.
    Count(u64),
    /// So many of a hundred.
    Percent(f64),
}
