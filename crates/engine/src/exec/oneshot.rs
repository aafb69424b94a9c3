//! Programs that are started once per task: input on stdin, one JSON value on stdout.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::bound::{BoundedLine, LINE_BYTES, LineReader, MESSAGE_BYTES, Tail, shorten};
use super::point::ExecPoint;
use super::protocol::ExecTask;
use super::spawn::{GRACE, Program, Spawner, exit_number};
use super::spec::ExecSpec;
use super::watch::{Voice, pair};
use super::{closed, input, not_started, with_tail};

/// The variable with the trace that a task is a part of.
const TRACEPARENT: &str = "TRACEPARENT";

/// The program of a spec, started anew for each task.
#[derive(Debug)]
pub struct OneShots {
    spec: Arc<ExecSpec>,
    spawner: Spawner,
    runtime: Handle,
    room: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    inputs: AtomicU64,
}

impl OneShots {
    pub fn new(spec: ExecSpec, spawner: Spawner, runtime: Handle) -> OneShots {
        let room = Arc::new(Semaphore::new(spec.processes.max(1) as usize));
        OneShots { spec: Arc::new(spec), spawner, runtime, room, closing: watch::Sender::new(false), inputs: AtomicU64::new(0) }
    }

    pub async fn run(
        &self,
        task: ExecTask,
        ready: impl Future<Output = bool> + Send,
        heartbeat: impl Fn(Bytes) + Send,
        log: impl Fn(String) + Send,
    ) -> Result<Bytes, AttemptError> {
        let room = self.room.clone().acquire_owned().await.map_err(|_| closed(&self.spec))?;
        let number = self.inputs.fetch_add(1, Ordering::Relaxed);
        let (task, _file) = input::prepare(&self.spec, &self.runtime, number, task).await?;
        if !ready.await {
            return Err(closed(&self.spec));
        }
        let (voice, heard) = pair();
        let (_wanted, unwanted) = oneshot::channel();
        let job = Job { spec: self.spec.clone(), spawner: self.spawner.clone(), task, closing: self.closing.subscribe() };
        self.runtime.spawn(job.perform(voice, unwanted, room));
        heard.follow(heartbeat, log).await.unwrap_or_else(|| Err(closed(&self.spec)))
    }

    pub async fn close(&self) {
        self.room.close();
        self.closing.send_replace(true);
        self.closing.closed().await;
    }
}

struct Job {
    spec: Arc<ExecSpec>,
    spawner: Spawner,
    task: ExecTask,
    closing: watch::Receiver<bool>,
}

/// What a program left when it ended.
struct Output {
    stdout: Vec<u8>,
    whole: bool,
}

impl Job {
    /// Runs the program to its end, or until nobody wants its result; `_room` is free again when the process is gone.
    async fn perform(mut self, voice: Voice, unwanted: oneshot::Receiver<()>, _room: OwnedSemaphorePermit) {
        let mut variables = vec![("SELVEDGE_KEY", self.task.key.clone()), ("SELVEDGE_ATTEMPT", self.task.attempt.to_string())];
        if let Some(ms) = self.task.deadline_ms {
            variables.push(("SELVEDGE_DEADLINE_MS", ms.to_string()));
        }
        // One that is declared goes before ours.
        if let Some(trace) = self.task.trace.take_if(|_| !self.spec.environment.contains_key(TRACEPARENT)) {
            variables.push((TRACEPARENT, trace));
        }
        let mut program = match self.spawner.spawn(&self.spec, &variables).await {
            Ok(program) => program,
            Err(error) => return voice.end(Err(not_started(&self.spec, &error))),
        };
        let mut voice = voice;
        let outcome = tokio::select! {
            outcome = converse(&self.spec, &self.task, &mut program, &mut voice) => Some(outcome),
            _ = unwanted => None,
            _ = self.closing.wait_for(|closing| *closing) => Some(Err(closed(&self.spec))),
        };
        program.end().await;
        if let Some(outcome) = outcome {
            self.spawner.pass(ExecPoint::Answered);
            voice.end(outcome);
        }
    }
}

async fn converse(spec: &ExecSpec, task: &ExecTask, program: &mut Program, voice: &mut Voice) -> Result<Bytes, AttemptError> {
    let child = &mut program.child;
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
        return Err(spec.unusable("its pipes are gone"));
    };
    let tail = Tail::default();
    let mut output = Output { stdout: Vec::new(), whole: false };
    let status = {
        let mut talk = std::pin::pin!(async { tokio::join!(feed(stdin, &task.input), collect(stdout, &mut output), listen(stderr, &tail, voice)) });
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            _ = &mut talk => None,
        };
        match ended {
            // Its output may still stand in the pipes; whoever holds them open longer than this is not the program.
            Some(status) => {
                let _ = tokio::time::timeout(GRACE, talk).await;
                status
            }
            None => child.wait().await,
        }
    };
    program.spawner().pass(ExecPoint::Exited);
    let status = status.map_err(|error| not_started(spec, &error))?;
    if output.stdout.len() > LINE_BYTES {
        return Err(super::protocol::too_long(&format!("the output of `{}`", spec.shown())));
    }
    let number = exit_number(status);
    if number == i32::from(super::shim::NOT_STARTED) && spec.shim.is_some() && tail.text().contains("selvedge exec:") {
        return Err(spec.unusable(&tail.text()));
    }
    if number != 0 {
        let reason = format!("`{}` ended with exit status {number}", spec.shown());
        return Err(AttemptError {
            error: WorkError::new(format!("exit_{number}"), shorten(&with_tail(reason, &tail), MESSAGE_BYTES)),
            retryable: true,
            retry_after_ms: None,
        });
    }
    answer(spec, &output)
}

async fn feed(mut stdin: ChildStdin, input: &[u8]) {
    // A program may leave its input unread.
    let _ = stdin.write_all(if input.is_empty() { b"null" } else { input }).await;
    let _ = stdin.shutdown().await;
}

async fn collect(stdout: ChildStdout, output: &mut Output) {
    let mut limited = stdout.take(LINE_BYTES as u64 + 1);
    output.whole = limited.read_to_end(&mut output.stdout).await.is_ok();
}

async fn listen(stderr: ChildStderr, tail: &Tail, voice: &mut Voice) {
    let mut lines = LineReader::new(stderr, MESSAGE_BYTES);
    while let Ok(Some(BoundedLine::Whole(line) | BoundedLine::TooLong { start: line, .. })) = lines.next().await {
        let line = String::from_utf8_lossy(&line).into_owned();
        tail.push(&line);
        voice.log(line);
    }
}

fn answer(spec: &ExecSpec, output: &Output) -> Result<Bytes, AttemptError> {
    let text = output.stdout.trim_ascii();
    if text.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    match serde_json::from_slice::<&RawValue>(text) {
        Ok(value) if output.whole => Ok(Bytes::copy_from_slice(value.get().as_bytes())),
        failed => {
            let reason = failed.err().map_or_else(|| "its output was cut off".to_owned(), |error| error.to_string());
            let seen = shorten(&String::from_utf8_lossy(text), 200);
            let text = format!("`{}` must print one JSON value and nothing else (logs belong on stderr): {reason}; it printed: {seen}", spec.shown());
            Err(AttemptError { error: WorkError::new("bad_output", text), retryable: true, retry_after_ms: None })
        }
    }
}
