//! One worker process: its start up to `hello`, what it says, what it is told, its end.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::bound::{BoundedLine, LINE_BYTES, LineReader, MESSAGE_BYTES, Tail, shorten};
use super::point::ExecPoint;
use super::protocol::{self, Hello, Line};
use super::spawn::{Program, Spawner, exit_number, exit_words};
use super::spec::ExecSpec;
use super::{closed, not_started, with_tail};

/// How long a worker may take to say `hello`.
const HELLO: Duration = Duration::from_secs(30);
/// How long the pipe of standard error is read on after the process is gone, for whoever else holds it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a process is asked to end.
#[derive(Debug, Default)]
pub struct Stop {
    gently: Notify,
    at_once: Notify,
}

impl Stop {
    /// By the end of its input.
    pub fn gently(&self) {
        self.gently.notify_one();
    }

    /// By a signal.
    pub fn at_once(&self) {
        self.at_once.notify_one();
    }
}

/// Something that came from a worker.
pub enum Heard {
    /// A line of its standard output.
    Line(BoundedLine),
    /// A line of its standard error.
    Aside(String),
}

/// The conversation with one worker.
pub struct Talk {
    program: Program,
    stdin: Option<ChildStdin>,
    said: LineReader<ChildStdout>,
    asides: mpsc::Receiver<String>,
    stop: Arc<Stop>,
    kill: bool,
}

impl Talk {
    /// Starts a worker and waits for its `hello`.
    pub async fn open(
        spec: &ExecSpec,
        spawner: &Spawner,
        runtime: &Handle,
        closing: &mut watch::Receiver<bool>,
        tail: &Tail,
    ) -> Result<(Talk, Hello), AttemptError> {
        let mut program = spawner.spawn(spec, &[]).await.map_err(|error| not_started(spec, &error))?;
        let pipes = (program.child.stdin.take(), program.child.stdout.take(), program.child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(spec.unusable("its pipes are gone"));
        };
        let mut talk =
            Talk { program, stdin: Some(stdin), said: LineReader::new(stdout, LINE_BYTES), asides: listen(runtime, stderr), stop: Arc::default(), kill: false };
        let hello = tokio::select! {
            hello = tokio::time::timeout(HELLO, talk.hello(tail)) => hello.unwrap_or(Err(Silence::Late)),
            _ = closing.wait_for(|closing| *closing) => Err(Silence::Unwanted),
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(silence) => {
                talk.kill = !matches!(silence, Silence::Ended);
                let status = talk.end(tail).await;
                return Err(silence.error(spec, status, tail));
            }
        };
        let missing: Vec<&str> = spec.activities.iter().filter(|name| !hello.activities.contains(name)).map(String::as_str).collect();
        if !missing.is_empty() {
            talk.kill = true;
            talk.end(tail).await;
            let offered = if hello.activities.is_empty() { "none".to_owned() } else { hello.activities.join(", ") };
            let text = format!(
                "its hello does not offer {} (it offers {}): add the activity to the worker, or correct its name",
                missing.join(", "),
                shorten(&offered, 400)
            );
            return Err(spec.unusable(&text));
        }
        spawner.pass(ExecPoint::Hello);
        Ok((talk, hello))
    }

    async fn hello(&mut self, tail: &Tail) -> Result<Hello, Silence> {
        while let Some(heard) = self.hear().await {
            match heard {
                Heard::Aside(text) => tail.push(&text),
                Heard::Line(BoundedLine::TooLong { .. }) => {}
                Heard::Line(BoundedLine::Whole(line)) => match protocol::read(&line) {
                    Line::Hello(hello) => return Ok(hello),
                    Line::OtherHello(version) => return Err(Silence::Foreign(version)),
                    Line::Log(text) => tail.push(&text),
                    Line::Blank | Line::Answer { .. } | Line::Heartbeat { .. } => {}
                },
            }
        }
        Err(Silence::Ended)
    }

    /// What ends this conversation from outside.
    pub fn stop(&self) -> Arc<Stop> {
        self.stop.clone()
    }

    /// Writes these lines to the worker until their sender is gone; then its input ends.
    pub fn write_from(&mut self, runtime: &Handle, mut lines: mpsc::UnboundedReceiver<Bytes>) {
        let Some(mut stdin) = self.stdin.take() else { return };
        let spawner = self.program.spawner().clone();
        runtime.spawn(async move {
            while let Some(line) = lines.recv().await {
                // A worker that does not read any more is about to end, which its watcher sees.
                if stdin.write_all(&line).await.is_err() {
                    break;
                }
                spawner.pass(ExecPoint::Written);
            }
        });
    }

    /// The next thing that it says; `None` when it has ended, or is to end.
    pub async fn hear(&mut self) -> Option<Heard> {
        tokio::select! {
            line = self.said.next() => line.ok().flatten().map(Heard::Line),
            Some(text) = self.asides.recv() => Some(Heard::Aside(text)),
            () = self.stop.at_once.notified() => {
                self.kill = true;
                None
            }
            () = self.stop.gently.notified() => None,
        }
    }

    /// Waits for its end, helps where it does not come, and keeps what it still says on standard error.
    pub async fn end(&mut self, tail: &Tail) -> Option<ExitStatus> {
        self.stdin = None;
        let Talk { program, asides, kill, .. } = self;
        let mut rest = std::pin::pin!(async {
            while let Some(text) = asides.recv().await {
                tail.push(&text);
            }
        });
        let ending = async {
            if *kill {
                program.end().await;
            }
            program.ended().await
        };
        let mut ending = std::pin::pin!(ending);
        let status = tokio::select! {
            status = &mut ending => status,
            () = &mut rest => return ending.await,
        };
        let _ = tokio::time::timeout(LAST_WORDS, rest).await;
        status
    }
}

/// The lines of standard error, read whether somebody takes them or not.
fn listen(runtime: &Handle, stderr: ChildStderr) -> mpsc::Receiver<String> {
    let (said, heard) = mpsc::channel(64);
    runtime.spawn(async move {
        let mut lines = LineReader::new(stderr, MESSAGE_BYTES);
        while let Ok(Some(BoundedLine::Whole(line) | BoundedLine::TooLong { start: line, .. })) = lines.next().await {
            if said.send(String::from_utf8_lossy(&line).into_owned()).await.is_err() {
                return;
            }
        }
    });
    heard
}

/// Why there was no usable `hello`.
enum Silence {
    Ended,
    Late,
    Foreign(String),
    Unwanted,
}

impl Silence {
    fn error(self, spec: &ExecSpec, status: Option<ExitStatus>, tail: &Tail) -> AttemptError {
        let passing = |reason: String| {
            let text = shorten(&with_tail(format!("`{}` in {}: {reason}", spec.shown(), spec.folder.display()), tail), MESSAGE_BYTES);
            AttemptError { error: WorkError::new("exec_start", text), retryable: true, retry_after_ms: None }
        };
        match self {
            Silence::Ended if spec.shim.is_some() && status.map(exit_number) == Some(i32::from(super::shim::NOT_STARTED)) => spec.unusable(&tail.text()),
            Silence::Ended => passing(format!(
                "it ended before its hello: {}; a persistent worker starts with {{\"hello\":{},\"activities\":[…]}}, as clients/python/selvedge.py does; for a program that runs once per task set `persistent: false`",
                exit_words(status),
                protocol::VERSION
            )),
            Silence::Unwanted => closed(spec),
            Silence::Late => passing(format!(
                "it said no hello within {} s: a persistent worker starts with {{\"hello\":{},\"activities\":[…]}}; for a program that runs once per task set `persistent: false`",
                HELLO.as_secs(),
                protocol::VERSION
            )),
            Silence::Foreign(version) => spec.unusable(&format!("it speaks version {version} of the exec protocol, this binary speaks {}", protocol::VERSION)),
        }
    }
}
