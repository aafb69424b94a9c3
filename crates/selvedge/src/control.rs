//! The control socket: whoever holds a data directory answers the command line on `DATA/control.sock`.
//!
//! One JSON object a line, request and answer in turn: `{"verb": "why", "id": "run_…"}`, `{"ok": …}` or
//! `{"error": {"consequence", "code", "message"}}`. Who closes its half of the connection does not
//! wait any more. Only the user who owns the socket is answered.

mod backup;
mod export;
mod health;
mod perform;
mod server;

use std::io;
use std::path::{Path, PathBuf};

pub use selvedge_engine::desk::{
    Decision, EditState, Gives, Invoke, KeyVerb, PrincipalVerb, Problem, SeeDecisions, Steer, SteerSchedule, TenantVerb, TestPolicy,
};
use selvedge_engine::verify::Head;
use selvedge_kernel::error::Consequence;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

#[cfg(feature = "cli")]
pub(crate) use backup::{backup_problem, notes_of, write_notes};
#[cfg(feature = "cli")]
pub(crate) use export::export_problem;
pub use perform::{Desk, perform};
pub(crate) use server::Listener;

/// The socket's name in the data directory.
pub const SOCKET: &str = "control.sock";
/// The file in the data directory in which `run` notes which run goes with which command.
pub(crate) const NOTES: &str = "cli.json";
/// The longest line of either side.
const LINE_BYTES: u64 = 16 << 20;
/// The longest path that the operating system takes for a socket.
const PATH_BYTES: usize = 100;

/// What is asked. Payloads and inputs are JSON as text, so that bytes stay bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Call a handler and wait for its end.
    Call(Invoke),
    /// Send to a handler.
    Send(Invoke),
    /// Deliver a signal to an actor.
    SignalActor {
        /// Its type.
        kind: String,
        /// Its key.
        key: String,
        /// The signal.
        name: String,
        /// JSON.
        payload: String,
        /// The same key, the same signal.
        idempotency_key: Option<String>,
    },
    /// The state of an actor.
    State {
        /// Its type.
        kind: String,
        /// Its key.
        key: String,
    },
    /// The same, each entry with its etag.
    StateEtags {
        /// Its type.
        kind: String,
        /// Its key.
        key: String,
    },
    /// Change an entry of the state of an actor.
    EditState(EditState),
    /// A page of the journal of an invocation.
    Journal {
        /// `inv_…`
        id: String,
        /// The first entry that is wanted.
        from: u32,
    },
    /// Decide an operation by hand.
    Resolve {
        /// `inv_…`
        id: String,
        /// Its number.
        operation: u32,
        /// What it gives.
        gives: Gives,
        /// Why.
        reason: String,
    },
    /// Make a new invocation with a copy of the journal of another one.
    Fork {
        /// `inv_…`
        id: String,
        /// The first operation that is not taken over.
        from: Option<u32>,
        /// Whether it is killed first, if it is blocked.
        kill_original: bool,
        /// Why.
        reason: String,
        /// The same key, the same fork.
        key: String,
    },
    /// A new run that takes over what an ended one did well.
    ForkRun {
        /// `run_…`
        id: String,
        /// The stage that is done anew.
        from: Option<String>,
        /// The input of the new run: JSON as text.
        input: Option<String>,
        /// Why.
        reason: String,
        /// The same key, the same fork.
        key: String,
    },
    /// Look again at the blocked invocations that a filter keeps.
    RetryWhere {
        /// As `where` is written.
        filter: String,
        /// Only say which.
        dry_run: bool,
    },
    /// Invocations, the newest first.
    Invocations {
        /// Those that have ended as well.
        all: bool,
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// Open runs and invocations that have waited for long, those that wait longest first.
    Stuck {
        /// For how long, in milliseconds; none: each for as long as its type expects.
        #[serde(default)]
        longer_than_ms: Option<u64>,
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// What `doctor` wants to know of the engine.
    Health,
    /// Wait for the end of an invocation.
    Await {
        /// `inv_…`
        id: String,
    },
    /// Where an invocation stands, and its result.
    Invocation {
        /// `inv_…`
        id: String,
    },
    /// Ask an invocation to end.
    CancelInvocation {
        /// `inv_…`
        id: String,
        /// Why.
        reason: String,
    },
    /// End an invocation at once.
    KillInvocation {
        /// `inv_…`
        id: String,
        /// Why.
        reason: String,
    },
    /// Look at a blocked invocation again.
    RetryInvocation {
        /// `inv_…`
        id: String,
    },
    /// Why something is where it is.
    Why {
        /// `run_…` or `inv_…`
        id: String,
    },
    /// Approvals that are open, and those that were answered.
    Approvals {
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// One approval, with what it shows to whom it asks.
    Approval {
        /// `run_…`
        id: String,
        /// The stage that asks; none: the only one that does or did.
        stage: Option<String>,
    },
    /// Runs, the newest first.
    Runs {
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// Actors, by type and key.
    Actors {
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// One run, stage by stage.
    Run {
        /// `run_…`
        id: String,
    },
    /// What happened to a run.
    RunEvents {
        /// `run_…`
        id: String,
        /// The first number that is wanted.
        from: u64,
    },
    /// What happened to a run so far, a page from a number on.
    RunJournal {
        /// `run_…`
        id: String,
        /// The first number that is wanted.
        from: u64,
    },
    /// Steer a run.
    SteerRun {
        /// `run_…`
        id: String,
        /// What to do.
        steer: Steer,
    },
    /// Answer an approval.
    Decide {
        /// `run_…`
        id: String,
        /// The stage that asks; none: the only one that does.
        stage: Option<String>,
        /// Yes or no.
        answer: Decision,
        /// Who decides.
        by: String,
        /// A remark.
        comment: String,
    },
    /// Deliver a signal to a run.
    SignalRun {
        /// `run_…`
        id: String,
        /// The signal.
        name: String,
        /// JSON.
        payload: String,
        /// The same key, the same signal.
        idempotency_key: Option<String>,
    },
    /// Store a pipeline.
    PutPipeline {
        /// Its definition as JSON.
        definition: String,
    },
    /// One pipeline with its versions.
    Pipeline {
        /// Its name.
        name: String,
    },
    /// Pipelines, by name.
    Pipelines,
    /// What differs between two versions of a stored pipeline.
    DiffPipeline {
        /// Its name.
        name: String,
        /// The beginning of a version.
        before: String,
        /// The beginning of another one.
        after: String,
    },
    /// Start a run of a pipeline.
    StartPipeline {
        /// Its name.
        name: String,
        /// The beginning of a version; none: the current one.
        version: Option<String>,
        /// JSON.
        input: String,
        /// The same key, the same run.
        key: String,
    },
    /// Schedules.
    Schedules {
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// One schedule.
    Schedule {
        /// The pipeline that it starts.
        pipeline: String,
    },
    /// Steer a schedule.
    SteerSchedule {
        /// The pipeline that it starts.
        pipeline: String,
        /// What to do.
        steer: SteerSchedule,
    },
    /// Do something with API keys.
    Keys {
        /// Of which tenant; none: the local owner's.
        #[serde(default)]
        tenant: Option<String>,
        /// What.
        ask: KeyVerb,
    },
    /// Do something with principals.
    Principals {
        /// Of which tenant; none: the local owner's.
        #[serde(default)]
        tenant: Option<String>,
        /// What.
        ask: PrincipalVerb,
    },
    /// Do something with a tenant as a whole.
    Tenants {
        /// Which; none: the local owner's.
        #[serde(default)]
        tenant: Option<String>,
        /// What.
        ask: TenantVerb,
    },
    /// Decisions that were recorded.
    Decisions {
        /// Of which tenant; none: the local owner's.
        #[serde(default)]
        tenant: Option<String>,
        /// Which.
        see: SeeDecisions,
    },
    /// What the policies in force would decide.
    TestPolicy {
        /// Of which tenant; none: the local owner's.
        #[serde(default)]
        tenant: Option<String>,
        /// Who asks for what.
        test: TestPolicy,
    },
    /// Messages that could not be handled.
    DeadLetters {
        /// What to keep, as `where` says it; empty: all.
        #[serde(default)]
        filter: String,
    },
    /// One of them, whole.
    DeadLetter {
        /// `inv_…`
        id: String,
    },
    /// Send one of them again.
    Redrive {
        /// `inv_…`
        id: String,
        /// JSON instead of its own input.
        input: Option<String>,
    },
    /// Write a backup while the work goes on.
    Backup {
        /// Into which directory: absolute, empty or new.
        to: PathBuf,
    },
    /// Write the portable form of everything while the work goes on.
    Export {
        /// Into which file: absolute, new.
        to: PathBuf,
    },
    /// Walk every ledger, and every chain that they name.
    Verify {
        /// The ledgers alone.
        quick: bool,
        /// Heads of an earlier time.
        against: Vec<Head>,
    },
    /// The head of each ledger.
    Heads,
}

impl Request {
    /// Whether the answer may take as long as the work does.
    fn waits(&self) -> bool {
        matches!(
            self,
            Request::Call(_) | Request::Await { .. } | Request::RunEvents { .. } | Request::Backup { .. } | Request::Export { .. } | Request::Verify { .. }
        )
    }
}

/// How long a holder may say nothing to a question that it can answer at once.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// The code of the problem that a holder went away before it answered.
pub(crate) const GONE: &str = "holder_gone";

fn silent(data: &Path) -> Problem {
    let lock = std::fs::read_to_string(data.join("lock")).unwrap_or_default();
    let field = |name: &str| lock.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("unknown").to_owned();
    let (pid, command, since) = (field("pid"), field("command"), field("since"));
    let text = format!(
        "process {pid} (`{command}`, since {since}) holds {} and has said nothing for {} s: look whether it is stopped or overloaded \
         (`kill -CONT {pid}` lets a stopped one go on), or end it, and try again",
        data.display(),
        SILENCE.as_secs()
    );
    Problem::new(Consequence::Retry, "not_reachable", text)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ok(Value),
    Error(Problem),
}

/// A path of the socket that the operating system takes, and what must stay open while it is used.
struct SocketPath {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl SocketPath {
    fn of(data: &Path) -> io::Result<SocketPath> {
        let path = data.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES {
            return Ok(SocketPath { path, _folder: None });
        }
        use std::os::fd::AsRawFd;
        let folder = std::fs::File::open(data)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(SOCKET);
        Ok(SocketPath { path, _folder: Some(folder) })
    }
}

/// A connection to the holder of a data directory.
pub struct Control {
    data: PathBuf,
    reader: BufReader<tokio::net::unix::OwnedReadHalf>,
    writer: tokio::net::unix::OwnedWriteHalf,
}

impl Control {
    /// Connects; none if nobody listens there.
    ///
    /// # Errors
    /// When the socket is there and refuses us for another reason than that nobody listens.
    pub async fn connect(data: &Path) -> io::Result<Option<Control>> {
        let socket = match SocketPath::of(data) {
            Ok(socket) => socket,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match UnixStream::connect(&socket.path).await {
            Ok(stream) => {
                let (reader, writer) = stream.into_split();
                Ok(Some(Control { data: data.to_owned(), reader: BufReader::new(reader), writer }))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What the holder says, or `not_reachable` when it went away.
    pub async fn ask(&mut self, request: &Request) -> Result<Value, Problem> {
        let gone =
            |reason: String| Problem::new(Consequence::Retry, GONE, format!("the process that holds the data directory does not answer ({reason}): try again"));
        let mut line = serde_json::to_vec(request).map_err(|error| gone(error.to_string()))?;
        line.push(b'\n');
        self.writer.write_all(&line).await.map_err(|error| gone(error.to_string()))?;
        let mut answer = String::new();
        let read = self.reader.read_line(&mut answer);
        let read = if request.waits() {
            read.await
        } else {
            match tokio::time::timeout(SILENCE, read).await {
                Ok(read) => read,
                Err(_) => return Err(silent(&self.data)),
            }
        };
        read.map_err(|error| gone(error.to_string()))?;
        if answer.is_empty() {
            return Err(gone("it closed the connection".to_owned()));
        }
        match serde_json::from_str(&answer) {
            Ok(Reply::Ok(value)) => Ok(value),
            Ok(Reply::Error(problem)) => Err(problem),
            Err(error) => Err(gone(format!("it does not speak as this version does: {error}"))),
        }
    }
}
