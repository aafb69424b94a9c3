//! Workers that are kept: processes that take tasks as lines of JSON and answer in lines of JSON.

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::policy::{Backoff, Retry, Span, delay};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};

use super::bound::{BoundedLine, MESSAGE_BYTES, Tail, shorten};
use super::point::ExecPoint;
use super::process::{Stop, Talk};
use super::protocol::{self, ExecTask, Hello, Line};
use super::spawn::{Spawner, exit_words};
use super::spec::ExecSpec;
use super::watch::{Voice, Watch, pair};
use super::{closed, input, with_tail};

/// How long a worker may take to answer a task that was taken back, before it is ended to have its place again.
const ABANDON: Duration = Duration::from_secs(5);
/// The most tasks that one process is given at the same time, whatever it says.
const CONCURRENCY: u32 = 1_000;

/// The workers of a spec. The last owner ends them.
#[derive(Debug)]
pub struct Workers {
    shared: Arc<Shared>,
}

/// What the owner, the tasks and the watchers of the processes see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) spec: ExecSpec,
    pub(super) spawner: Spawner,
    runtime: Handle,
    state: Mutex<State>,
    /// Something changed that a waiting task may have waited for.
    changed: Notify,
    /// Whether this pool is closing; one receiver per process that lives or starts.
    closing: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    processes: BTreeMap<u64, Process>,
    starting: u32,
    /// Ends in a row without a finished task between them.
    deaths: u32,
    /// How many starts have failed so far, and how the last one did.
    failed_starts: u64,
    last_failure: Option<AttemptError>,
    closed: bool,
    last_number: u64,
}

#[derive(Debug)]
struct Process {
    concurrency: u32,
    /// Lines for it. At most two per task that it has.
    requests: mpsc::UnboundedSender<Bytes>,
    tasks: BTreeMap<u64, Slot>,
    /// It does not answer: it gets no further task.
    retiring: bool,
    finished_any: bool,
    stop: Arc<Stop>,
}

#[derive(Debug)]
enum Slot {
    Live(Voice),
    /// Nobody waits for its answer, but the worker may still be at it.
    GivenUp,
}

impl Process {
    fn has_room(&self) -> bool {
        !self.retiring && self.tasks.len() < self.concurrency as usize
    }

    fn any_live(&self) -> bool {
        self.tasks.values().any(|slot| matches!(slot, Slot::Live(_)))
    }

    /// The task that a line without an id belongs to: the one that was given last.
    fn newest(&mut self) -> Option<&mut Voice> {
        self.tasks.values_mut().rev().find_map(|slot| match slot {
            Slot::Live(voice) => Some(voice),
            Slot::GivenUp => None,
        })
    }
}

/// A place of a task at a worker, and from when it is handed over, the task. Dropped before its end, it is taken back.
struct Given {
    shared: Arc<Shared>,
    process: u64,
    id: u64,
    handed: Handed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Handed {
    NotYet,
    Over,
}

impl Given {
    /// Gives the worker the task.
    fn hand_over(&mut self, line: Bytes) {
        self.handed = Handed::Over;
        if let Some(process) = self.shared.state().processes.get_mut(&self.process) {
            // A process whose writer is gone is about to be removed, and ends this attempt then.
            let _ = process.requests.send(line);
        }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        match self.handed {
            Handed::NotYet => self.shared.release(self.process, self.id),
            Handed::Over => self.shared.take_back(self.process, self.id),
        }
    }
}

impl Workers {
    pub fn new(spec: ExecSpec, spawner: Spawner, runtime: Handle) -> Workers {
        let shared = Shared { spec, spawner, runtime, state: Mutex::default(), changed: Notify::new(), closing: watch::Sender::new(false) };
        Workers { shared: Arc::new(shared) }
    }

    pub async fn run(
        &self,
        task: ExecTask,
        ready: impl Future<Output = bool> + Send,
        heartbeat: impl Fn(Bytes) + Send,
        log: impl Fn(String) + Send,
    ) -> Result<Bytes, AttemptError> {
        let shared = &self.shared;
        let id = shared.number();
        let (task, _file) = input::prepare(&shared.spec, &shared.runtime, id, task).await?;
        let line = protocol::request(id, &task)?;
        let (mut given, watch) = shared.place(id).await?;
        if !ready.await {
            return Err(closed(&shared.spec));
        }
        given.hand_over(line);
        watch.follow(heartbeat, log).await.unwrap_or_else(|| Err(closed(&shared.spec)))
    }

    pub async fn close(&self) {
        self.shared.shut();
        self.shared.closing.closed().await;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.shut();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        state.last_number
    }

    /// Waits for a process with room for a task; starts one where fewer run than may.
    async fn place(self: &Arc<Self>, id: u64) -> Result<(Given, Watch), AttemptError> {
        let failed_before = self.state().failed_starts;
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            {
                let mut state = self.state();
                if state.closed {
                    return Err(closed(&self.spec));
                }
                if let Some((&number, process)) = state.processes.iter_mut().find(|(_, process)| process.has_room()) {
                    let (voice, watch) = pair();
                    process.tasks.insert(id, Slot::Live(voice));
                    return Ok((Given { shared: self.clone(), process: number, id, handed: Handed::NotYet }, watch));
                }
                if state.failed_starts > failed_before {
                    return Err(state.last_failure.clone().unwrap_or_else(|| closed(&self.spec)));
                }
                if state.processes.len() + (state.starting as usize) < self.spec.processes.max(1) as usize {
                    state.starting += 1;
                    let wait = restart_wait(state.deaths);
                    drop(state);
                    self.runtime.spawn(self.clone().start(wait, self.closing.subscribe()));
                }
            }
            changed.await;
        }
    }

    /// Starts a process and stays with it to its end.
    async fn start(self: Arc<Self>, wait: Duration, mut closing: watch::Receiver<bool>) {
        let _ = tokio::time::timeout(wait, closing.wait_for(|closing| *closing)).await;
        let tail = Tail::default();
        let opened =
            if self.state().closed { Err(closed(&self.spec)) } else { Talk::open(&self.spec, &self.spawner, &self.runtime, &mut closing, &tail).await };
        let (mut talk, hello) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let mut state = self.state();
                state.starting -= 1;
                state.failed_starts += 1;
                state.deaths = state.deaths.saturating_add(1);
                state.last_failure = Some(error);
                drop(state);
                self.changed.notify_waiters();
                return;
            }
        };
        let (requests, lines) = mpsc::unbounded_channel();
        let number = self.enter(requests, &hello, talk.stop());
        talk.write_from(&self.runtime, lines);
        while let Some(heard) = talk.hear().await {
            match heard {
                super::process::Heard::Line(line) => self.take(number, line, &tail),
                super::process::Heard::Aside(text) => self.aside(number, text, &tail),
            }
        }
        if let Some(process) = self.state().processes.get_mut(&number) {
            // Without a sender the writer ends, and the worker sees the end of its input.
            process.requests = mpsc::unbounded_channel().0;
            process.retiring = true;
        }
        let status = talk.end(&tail).await;
        let reason = format!("`{}` ended while it had this task: {}", self.spec.shown(), exit_words(status));
        let died =
            AttemptError { error: WorkError::new("worker_died", shorten(&with_tail(reason, &tail), MESSAGE_BYTES)), retryable: true, retry_after_ms: None };
        self.leave(number, died);
    }

    /// A process is ready for tasks.
    fn enter(&self, requests: mpsc::UnboundedSender<Bytes>, hello: &Hello, stop: Arc<Stop>) -> u64 {
        let mut state = self.state();
        state.starting -= 1;
        state.last_number += 1;
        let number = state.last_number;
        if state.closed {
            stop.gently();
        }
        let concurrency = hello.concurrency.min(CONCURRENCY);
        state.processes.insert(number, Process { concurrency, requests, tasks: BTreeMap::new(), retiring: false, finished_any: false, stop });
        drop(state);
        self.changed.notify_waiters();
        number
    }

    /// A process is gone, and what it had has failed.
    fn leave(&self, number: u64, died: AttemptError) {
        let mut state = self.state();
        let error = if state.closed { closed(&self.spec) } else { died };
        if let Some(process) = state.processes.remove(&number) {
            state.deaths = if process.finished_any { 1 } else { state.deaths.saturating_add(1) };
            drop(state);
            for slot in process.tasks.into_values() {
                if let Slot::Live(voice) = slot {
                    voice.end(Err(error.clone()));
                }
            }
        }
        self.changed.notify_waiters();
    }

    /// What a line of a worker means for its tasks.
    fn take(&self, number: u64, line: BoundedLine, tail: &Tail) {
        match line {
            BoundedLine::TooLong { start, len } => match protocol::answered_by_prefix(&start) {
                Some(id) => self.finish(number, id, Err(protocol::too_long("the worker's answer"))),
                None => self.aside(number, format!("(a line of {len} bytes was left out)"), tail),
            },
            BoundedLine::Whole(bytes) => match protocol::read(&bytes) {
                Line::Answer { id, outcome } => self.finish(number, id, outcome),
                Line::Heartbeat { id, progress } => {
                    if let Some(Slot::Live(voice)) = self.state().processes.get_mut(&number).and_then(|process| process.tasks.get_mut(&id)) {
                        voice.heartbeat(progress);
                    }
                }
                Line::Log(text) => self.aside(number, text, tail),
                Line::Blank | Line::Hello(_) | Line::OtherHello(_) => {}
            },
        }
    }

    fn aside(&self, number: u64, text: String, tail: &Tail) {
        tail.push(&text);
        if let Some(voice) = self.state().processes.get_mut(&number).and_then(Process::newest) {
            voice.log(text);
        }
    }

    /// The end of a task, if it is one of this process; an answer to anything else is ignored.
    fn finish(&self, number: u64, id: u64, outcome: Result<Bytes, AttemptError>) {
        let mut state = self.state();
        let Some(process) = state.processes.get_mut(&number) else { return };
        let Some(slot) = process.tasks.remove(&id) else { return };
        process.finished_any = true;
        if process.retiring && !process.any_live() {
            process.stop.at_once();
        }
        state.deaths = 0;
        drop(state);
        self.spawner.pass(ExecPoint::Answered);
        if let Slot::Live(voice) = slot {
            voice.end(outcome);
        }
        self.changed.notify_one();
    }

    /// Nobody waits for this task any more, and its worker has not heard of it.
    fn release(&self, number: u64, id: u64) {
        let mut state = self.state();
        let Some(process) = state.processes.get_mut(&number) else { return };
        process.tasks.remove(&id);
        if process.retiring && !process.any_live() {
            process.stop.at_once();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Nobody waits for this task any more: the worker is told, and has [`ABANDON`] to answer.
    fn take_back(self: &Arc<Self>, number: u64, id: u64) {
        let mut state = self.state();
        let Some(process) = state.processes.get_mut(&number) else { return };
        let Some(slot) = process.tasks.get_mut(&id) else { return };
        *slot = Slot::GivenUp;
        self.spawner.pass(ExecPoint::TakenBack);
        let _ = process.requests.send(protocol::cancel(id));
        drop(state);
        let shared = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(ABANDON).await;
            shared.retire(number, id);
        });
    }

    /// Ends a process that still has not answered, as soon as nobody else waits for it.
    fn retire(&self, number: u64, id: u64) {
        if let Some(process) = self.state().processes.get_mut(&number)
            && process.tasks.contains_key(&id)
        {
            process.retiring = true;
            if !process.any_live() {
                process.stop.at_once();
            }
        }
    }

    fn shut(&self) {
        let mut state = self.state();
        state.closed = true;
        state.processes.values().for_each(|process| process.stop.gently());
        drop(state);
        self.closing.send_replace(true);
        self.changed.notify_waiters();
    }
}

/// The wait before a process is started when so many ended in a row.
fn restart_wait(deaths: u32) -> Duration {
    if deaths == 0 {
        return Duration::ZERO;
    }
    let policy =
        Retry { backoff: Backoff::Exponential, initial: Span(Duration::from_millis(100)), max: Span(Duration::from_secs(10)), jitter: 0.0, ..Retry::default() };
    delay(deaths, &policy, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_wait_longer_and_at_most_ten_seconds() {
        assert_eq!([0, 1, 2, 3, 50].map(|deaths| restart_wait(deaths).as_millis()), [0, 100, 200, 400, 10_000]);
    }
}
