//! The exec executor: activities that are programs, either kept and spoken to in lines of JSON or started once per task.
//!
//! It separates, it does not sandbox: a program runs without a shell, in its own process group, with a small environment,
//! and everything that it says is bounded; but it can do whatever our user may do, except, where `shut` can keep it from
//! that, get at the data directory.

pub mod bound;
mod input;
mod oneshot;
mod persistent;
mod point;
mod process;
pub mod protocol;
pub mod secret;
mod shim;
mod shut;
mod spawn;
mod spec;
mod transition;
mod watch;

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use std::sync::Arc;
use tokio::runtime::Handle;

pub use point::{ExecPoint, Points};
pub use protocol::ExecTask;
pub use secret::Secret;
pub use shim::{ShimPoint, VERB as SHIM_VERB, orphans_gone, shim_main, shim_main_observed};
pub use shut::{Reason, Shut, Standing};
pub use spec::{ExecSpec, INHERITED, Shim};
pub use transition::{Transition, TransitionSend, handler_activity, read_transition, transition_input};

/// The processes of one declared program. Clones share them; the last one that goes ends them.
#[derive(Clone, Debug)]
pub struct ExecPool {
    kind: Kind,
    secrets: Arc<Vec<Secret>>,
    unresolved: Option<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Kind {
    Persistent(Arc<persistent::Workers>),
    OneShot(Arc<oneshot::OneShots>),
}

impl ExecPool {
    /// A pool that starts nothing until the first task comes. Its processes are watched by `runtime`, which must drive
    /// I/O and time; the futures of [`ExecPool::run`] may be polled anywhere. `points` is told where it is.
    ///
    /// # Errors
    /// When the system gives no thread for starting processes.
    pub fn open(spec: ExecSpec, runtime: Handle, points: Points) -> std::io::Result<ExecPool> {
        let spawner = spawn::Spawner::start(runtime.clone(), points)?;
        let secrets = Arc::new(spec.secrets.clone());
        let unresolved = spec.unresolved.first().map(|reason| Arc::from(reason.as_str()));
        let kind = if spec.persistent {
            Kind::Persistent(Arc::new(persistent::Workers::new(spec, spawner, runtime)))
        } else {
            Kind::OneShot(Arc::new(oneshot::OneShots::new(spec, spawner, runtime)))
        };
        Ok(ExecPool { kind, secrets, unresolved })
    }

    /// Runs one attempt of a task and gives its JSON. Waits for a free process as long as it takes. Dropped, it takes the
    /// task back: a persistent worker is told so and its late answer ignored, a one-shot program is killed.
    ///
    /// `heartbeat` gets the worker's progress as JSON, `log` what it printed, line by line, both bounded.
    ///
    /// # Errors
    /// The worker's own; `worker_died`, `exit_N`, `bad_output` (another attempt can help); `exec_start`, `limit: exec_line`.
    pub async fn run(&self, task: ExecTask, heartbeat: impl Fn(Bytes) + Send, log: impl Fn(String) + Send) -> Result<Bytes, AttemptError> {
        self.run_when(task, std::future::ready(true), heartbeat, log).await
    }

    /// The same, but the program gets the task only once `ready` is true: that is asked when the program has a place for it,
    /// a kept one after its `hello`, one that is started for it before it is. Where it is false, nothing runs.
    ///
    /// # Errors
    /// As [`ExecPool::run`]; `closed` where it was not ready.
    pub async fn run_when(
        &self,
        task: ExecTask,
        ready: impl Future<Output = bool> + Send,
        heartbeat: impl Fn(Bytes) + Send,
        log: impl Fn(String) + Send,
    ) -> Result<Bytes, AttemptError> {
        if let Some(reason) = &self.unresolved {
            return Err(AttemptError { error: WorkError::new("secret_missing", reason.to_string()), retryable: true, retry_after_ms: None });
        }
        let secrets = self.secrets.clone();
        let log = move |line| log(secret::blot(&secrets, line));
        let result = match &self.kind {
            Kind::Persistent(workers) => workers.run(task, ready, heartbeat, log).await,
            Kind::OneShot(programs) => programs.run(task, ready, heartbeat, log).await,
        };
        secret::blot_result(&self.secrets, result)
    }

    /// Takes no further task, ends every process, and waits until they are gone. Tasks that still run end with `closed`.
    pub async fn close(&self) {
        match &self.kind {
            Kind::Persistent(workers) => workers.close().await,
            Kind::OneShot(programs) => programs.close().await,
        }
    }
}

fn closed(spec: &ExecSpec) -> AttemptError {
    let text = format!("the engine is closing, `{}` was ended", spec.shown());
    AttemptError { error: WorkError::new("closed", text), retryable: true, retry_after_ms: None }
}

/// What a failed start means: a program that is not there stays so, anything else may pass.
fn not_started(spec: &ExecSpec, error: &std::io::Error) -> AttemptError {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    let lasting = matches!(error.kind(), NotFound | PermissionDenied);
    let hint = if lasting { "; is it installed, on PATH and executable?" } else { "" };
    AttemptError { retryable: !lasting, ..spec.unusable(&format!("{error}{hint}")) }
}

/// A reason with what the program said last, if it said anything.
fn with_tail(reason: String, tail: &bound::Tail) -> String {
    let said = tail.text();
    if said.trim().is_empty() { reason } else { format!("{reason}; it said last:\n{}", said.trim_end()) }
}
