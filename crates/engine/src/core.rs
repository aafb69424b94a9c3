//! The inside of a handler's context: what it has called, what it was given, what it waits for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId, effect_key};
use selvedge_kernel::journal::{Entry, OpKind, SealKey, Signature};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::policy::{Retry, Timeout};
use selvedge_kernel::record::invocation::{Begun, Blocked};
use selvedge_kernel::replay::{AtCall, CALLED_PER_TRANSITION, Replay};
use selvedge_kernel::time::Millis;
use selvedge_kernel::{limit, transition};

use crate::ctx::Attempt;
use crate::idmap::IdMap;
use crate::worker::{Mailbox, Wakeup};

/// What an operation gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// Its value.
    Value(Bytes),
    /// Its error, which is final.
    Error(WorkError),
    /// Its time was up.
    TimeUp,
}

/// A step that runs on a thread of its own.
pub type BlockingFn = Arc<dyn Fn(Attempt) -> Result<Bytes, AttemptError> + Send + Sync>;

/// What an operation asks for.
#[derive(Clone)]
pub enum Request {
    /// A side effect inside the handler.
    Step,
    /// The same on a thread of its own.
    Blocking(BlockingFn),
    /// A named activity.
    Activity { input: Bytes },
    /// A message whose answer is waited for.
    Call { target: ActorId, handler: String, input: Bytes, idempotency_key: Option<String>, timeout: Option<Duration> },
    /// The end of a child, by the number of its `spawn`.
    Join { child: u32 },
    /// A time.
    Sleep { until: Millis },
    /// A signal, perhaps for a limited time.
    Signal { within: Option<Duration> },
    /// The start of a run.
    Start { input: Bytes },
}

/// Where a step stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StepState {
    /// It may not run now.
    Idle,
    /// This attempt may run, or runs.
    Allowed(u32),
}

pub(crate) struct Op {
    pub signature: Signature,
    pub request: Request,
    pub retry: Option<Retry>,
    pub timeout: Option<Timeout>,
    pub given: Option<Given>,
    pub polled: bool,
    pub begun: bool,
    pub dropped: bool,
    pub row: Option<Begun>,
    pub step: StepState,
    /// Its entry is decided; what else comes for it is late.
    pub decided: bool,
    pub since: Millis,
    /// The wake-up at the end of the running attempt's time.
    pub alarm: Option<(Millis, u64)>,
    /// Who polled it, if that was not the handler itself.
    pub waker: Option<Waker>,
}

/// An operation that was recorded where it was called, on its way into the next commit.
pub(crate) enum Fresh {
    Message { signature: Signature, spawn: bool, target: ActorId, handler: String, input: Bytes, delay: Option<Duration>, idempotency_key: Option<String> },
    Emit { signature: Signature, data: Bytes },
    Set { signature: Signature, name: String, value: Bytes },
    Delete { signature: Signature, name: String },
    Clear { signature: Signature, names: Vec<String> },
    Read { signature: Signature, payload: Option<Bytes> },
    Version { signature: Signature, version: u32 },
}

/// What has to be read for the handler before anything else happens.
pub(crate) enum Load {
    Get { number: u32, name: String },
    Keys { number: u32, prefix: String },
    Entries { number: u32, prefix: String },
    Recorded { number: u32, entry: Entry },
    Clear { number: u32 },
}

pub(crate) struct CoreState {
    pub next: u32,
    pub now: Millis,
    pub ops: IdMap<u32, Op>,
    pub fresh: Vec<Fresh>,
    pub began: Vec<u32>,
    pub finished: Vec<(u32, u32, Result<Bytes, AttemptError>)>,
    pub dropped: Vec<u32>,
    /// Steps whose attempt was started in this poll.
    pub started: Vec<u32>,
    pub loads: Vec<Load>,
    /// Answers to loads and replayed reads, by operation number.
    pub reads: IdMap<u32, Bytes>,
    /// Names whose first read is under way, and the number of that read.
    pub reading: HashMap<String, u32>,
    pub replay: Replay,
    pub live: bool,
    pub may_run: bool,
    pub blocked: Option<Blocked>,
    pub cancelled: bool,
    /// Own view of the state: names read or written.
    pub view: BTreeMap<String, Option<Bytes>>,
    pub cleared: bool,
    pub called: usize,
    pub changes: usize,
    pub change_bytes: usize,
    /// Names that a `clear` of this transition removes, beyond the one change that it counts as.
    pub cleared_names: usize,
    pub in_step: bool,
    /// Whoever polls parts of the handler by wakers of its own: they are woken before each poll.
    pub inner_wakers: bool,
    pub read_wakers: Vec<Waker>,
    pub cancel_children: Vec<u32>,
    /// Children that were spawned and not joined yet.
    pub children: IdMap<u32, Begun>,
    pub progress: IdMap<u32, Bytes>,
    /// Which forms of changed passages it has taken in this life.
    pub versions: BTreeMap<String, u32>,
    /// With what it wants to start anew.
    pub restart: Option<Bytes>,
    /// What could not be sent: the handler fails with it.
    pub failed: Option<WorkError>,
}

pub(crate) struct Core {
    pub id: InvocationId,
    pub actor: ActorId,
    pub context: AuthorizationContext,
    pub seal_key: SealKey,
    pub journal_limit: u32,
    pub body_limit: u64,
    /// The longest delay, in milliseconds.
    pub delay_limit: u64,
    pub attempts_limit: u64,
    pub state: RefCell<CoreState>,
    pub waker: Arc<HandlerWaker>,
    /// The same as a waker.
    pub own: Waker,
    pub mailbox: Mailbox,
    pub ended: Cell<bool>,
    pub env: crate::env::Environment,
}

/// The waker of a handler as a whole: whoever wakes it from outside its own poll waits for something foreign.
pub(crate) struct HandlerWaker {
    pub id: InvocationId,
    pub in_poll: AtomicBool,
    pub again: AtomicBool,
    /// Its handler has left memory: who wakes it now is late.
    pub gone: AtomicBool,
    pub mailbox: Mailbox,
}

impl Wake for HandlerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if self.in_poll.load(Ordering::SeqCst) {
            self.again.store(true, Ordering::SeqCst);
        } else if !self.gone.load(Ordering::SeqCst) {
            self.mailbox.wake(Wakeup::Foreign(self.clone()));
        }
    }
}

/// The waker of one step.
pub(crate) struct StepWaker {
    pub id: InvocationId,
    pub woken: AtomicBool,
    pub mailbox: Mailbox,
}

impl Wake for StepWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.mailbox.wake(Wakeup::Step(self.id));
        }
    }
}

impl Core {
    pub(crate) fn new(
        id: InvocationId,
        actor: ActorId,
        context: AuthorizationContext,
        seal_key: SealKey,
        now: Millis,
        replay: Replay,
        limits: &Limits,
        mailbox: Mailbox,
        env: crate::env::Environment,
    ) -> Rc<Core> {
        let waker = Arc::new(HandlerWaker {
            id,
            in_poll: AtomicBool::new(false),
            again: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            mailbox: mailbox.clone(),
        });
        let live = replay.done();
        Rc::new(Core {
            id,
            actor,
            context,
            seal_key,
            journal_limit: u32::try_from(limits.journal_entries).unwrap_or(u32::MAX),
            body_limit: limits.body_bytes,
            delay_limit: limits.delay_ms,
            attempts_limit: limits.attempts,
            own: Waker::from(waker.clone()),
            waker,
            mailbox,
            ended: Cell::new(false),
            env,
            state: RefCell::new(CoreState {
                next: 0,
                now,
                ops: Default::default(),
                fresh: Vec::new(),
                began: Vec::new(),
                finished: Vec::new(),
                dropped: Vec::new(),
                started: Vec::new(),
                loads: Vec::new(),
                reads: Default::default(),
                reading: HashMap::new(),
                replay,
                live,
                may_run: false,
                blocked: None,
                cancelled: false,
                view: BTreeMap::new(),
                cleared: false,
                called: 0,
                changes: 0,
                change_bytes: 0,
                cleared_names: 0,
                in_step: false,
                inner_wakers: false,
                read_wakers: Vec::new(),
                cancel_children: Vec::new(),
                children: Default::default(),
                progress: Default::default(),
                versions: BTreeMap::new(),
                restart: None,
                failed: None,
            }),
        })
    }

    /// Wakes whoever polls parts of the handler by wakers of its own. It counts as the handler's own poll.
    pub(crate) fn wake_parts(&self) {
        let mut state = self.state.borrow_mut();
        if !state.inner_wakers {
            return;
        }
        state.inner_wakers = false;
        let mut wakers = std::mem::take(&mut state.read_wakers);
        wakers.extend(state.ops.values_mut().filter_map(|op| op.waker.take()));
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Refuses a payload that is larger than any may be.
    pub(crate) fn check_body(&self, what: &str, bytes: usize) -> Result<(), WorkError> {
        within_body(self.body_limit, what, bytes)
    }

    /// Refuses a wait that is longer than any may be.
    pub(crate) fn check_delay(&self, what: &str, span: Duration) -> Result<(), WorkError> {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        if ms > self.delay_limit {
            return Err(WorkError::new("limit: delay", format!("{what} is {ms} ms long, the limit is {} ms: wait in parts", self.delay_limit)));
        }
        Ok(())
    }

    /// Refuses more attempts than anything may have.
    pub(crate) fn check_attempts(&self, retry: &Retry) -> Result<(), WorkError> {
        if u64::from(retry.max_attempts) > self.attempts_limit {
            return Err(WorkError::new(
                "limit: attempts",
                format!("its retry policy allows {} attempts, the limit is {}: lower max_attempts", retry.max_attempts, self.attempts_limit),
            ));
        }
        Ok(())
    }

    /// Refuses a request that waits longer than anything may.
    pub(crate) fn check_request(&self, request: &Request) -> Result<(), WorkError> {
        match request {
            Request::Sleep { until } => self.check_delay("the sleep", until.since(self.state.borrow().now)),
            Request::Signal { within: Some(span) } => self.check_delay("the wait for a signal", *span),
            Request::Call { timeout: Some(span), .. } => self.check_delay("the timeout of the call", *span),
            _ => Ok(()),
        }
    }

    /// The idempotency key of the effects of an operation.
    pub(crate) fn effect_key(&self, signature: &Signature) -> String {
        effect_key(self.id.0, &[&signature.number.to_be_bytes(), signature.name.as_bytes()])
    }
}

/// Refuses an address whose parts are longer than a key may hold.
pub(crate) fn check_address(target: &ActorId, handler: &str, key: Option<&str>) -> Result<(), WorkError> {
    for (what, part) in [
        ("the type of an actor", target.kind.as_str()),
        ("the key of an actor", &target.key),
        ("the name of a handler", handler),
        ("an idempotency key", key.unwrap_or("")),
    ] {
        check_part(what, part)?;
    }
    Ok(())
}

pub(crate) fn check_part(what: &str, part: &str) -> Result<(), WorkError> {
    if part.len() > limit::KEY_PART_BYTES {
        return Err(WorkError::new(
            "limit: key part",
            format!("{what} has {} bytes, the limit is {}: shorten it, or use a hash of it", part.len(), limit::KEY_PART_BYTES),
        ));
    }
    Ok(())
}

/// Refuses a payload that is larger than any may be.
pub(crate) fn within_body(limit: u64, what: &str, bytes: usize) -> Result<(), WorkError> {
    if bytes as u64 > limit {
        return Err(WorkError::new(
            "limit: body",
            format!("{what} has {bytes} bytes, the limit of a payload is {limit}: keep it elsewhere and pass a reference"),
        ));
    }
    Ok(())
}

impl CoreState {
    pub(crate) fn nested(&self) -> Option<WorkError> {
        self.in_step.then(|| {
            WorkError::new("nested_operation", "an operation of the context was called inside a step; call it in the handler, before or after the step")
        })
    }

    fn take_number(&mut self, core: &Core) -> Result<u32, WorkError> {
        if let Some(error) = self.nested() {
            return Err(error);
        }
        if self.next >= core.journal_limit {
            return Err(WorkError::new(
                "limit: journal",
                format!("this invocation has made {} operations, the limit of one journal; end it and send the rest to yourself", self.next),
            ));
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    /// Calls an operation whose result is delivered. On an error nothing was recorded.
    pub(crate) fn call(&mut self, core: &Core, kind: OpKind, name: &str, target: &str, request: Request) -> Result<u32, WorkError> {
        check_part("the name of an operation", name)?;
        let number = self.take_number(core)?;
        let signature = transition::signature(number, kind, name, target);
        let row = match self.replay.begun(&signature) {
            Ok(row) => row,
            Err(blocked) => {
                self.blocked.get_or_insert(blocked);
                None
            }
        };
        let since = row.as_ref().map_or(self.now, |row| row.since);
        self.ops.insert(
            number,
            Op {
                signature,
                request,
                retry: None,
                timeout: None,
                given: None,
                polled: false,
                begun: false,
                dropped: false,
                row,
                step: StepState::Idle,
                decided: false,
                since,
                alarm: None,
                waker: None,
            },
        );
        Ok(number)
    }

    /// Calls an operation that is recorded here: gives its entry if the journal has it.
    pub(crate) fn record(&mut self, core: &Core, kind: OpKind, name: &str, target: &str) -> Result<(Signature, Option<Entry>), WorkError> {
        if self.called >= CALLED_PER_TRANSITION {
            return Err(WorkError::new(
                "limit: transition",
                format!("{CALLED_PER_TRANSITION} sends, reads and writes without waiting for anything in between; put a step or a sleep between them"),
            ));
        }
        check_part("the name of an operation", name)?;
        let number = self.take_number(core)?;
        self.called += 1;
        let signature = transition::signature(number, kind, name, target);
        match self.replay.call(&signature) {
            Ok(AtCall::Recorded(entry)) => Ok((signature, Some(entry))),
            Ok(AtCall::New) => Ok((signature, None)),
            Err(blocked) => {
                self.blocked.get_or_insert(blocked);
                Ok((signature, None))
            }
        }
    }

    /// Counts a message with the context that it carries: a large one is written before, in commits of its own.
    pub(crate) fn charge_message(&mut self, context: &AuthorizationContext, bytes: usize) -> Result<(), WorkError> {
        let bytes = bytes + selvedge_kernel::wire::encode(context).len();
        self.charge(if bytes > limit::INLINE_BYTES { 64 } else { bytes })
    }

    /// Counts a change against the limits of a transition.
    pub(crate) fn charge(&mut self, bytes: usize) -> Result<(), WorkError> {
        if self.changes + 1 > limit::TRANSITION_CHANGES {
            return Err(WorkError::new(
                "limit: transition",
                format!(
                    "more than {} changed names and sends without waiting for anything in between; put a step or a sleep between them",
                    limit::TRANSITION_CHANGES
                ),
            ));
        }
        if self.change_bytes + bytes > limit::TRANSITION_BYTES {
            return Err(WorkError::new(
                "limit: transition",
                format!("more than {} bytes of changes without waiting for anything in between", limit::TRANSITION_BYTES),
            ));
        }
        self.changes += 1;
        self.change_bytes += bytes;
        self.charge_cleared(0);
        Ok(())
    }

    /// Counts the names that a `clear` removes. A replay does not know them, so no code may depend on it: too many
    /// fail the handler, whatever it does about it.
    pub(crate) fn charge_cleared(&mut self, names: usize) {
        self.cleared_names += names;
        if self.cleared_names > 0 && self.cleared_names + self.changes > limit::TRANSITION_CHANGES {
            let text = format!(
                "state.clear() would remove {} names in one transition with {} other changes, {} are allowed: delete the names that state.keys gives, with a step after each 50 of them",
                self.cleared_names,
                self.changes,
                limit::TRANSITION_CHANGES
            );
            self.failed.get_or_insert(WorkError::new("limit: transition", text));
        }
    }

    /// Gives an operation its result, in the order of the journal.
    pub(crate) fn deliver(&mut self, number: u32, given: Given, at: Millis) {
        self.now = self.now.max(at);
        self.called = 0;
        self.changes = 0;
        self.change_bytes = 0;
        self.cleared_names = 0;
        if let Some(op) = self.ops.get_mut(&number) {
            if op.dropped {
                self.ops.remove(&number);
            } else {
                op.given = Some(given);
                op.step = StepState::Idle;
            }
        }
    }

    /// Delivers a cancel: what is pending gives `cancelled`.
    pub(crate) fn deliver_cancel(&mut self, reason: &str, at: Millis) -> Vec<Op> {
        self.now = self.now.max(at);
        self.called = 0;
        self.changes = 0;
        self.change_bytes = 0;
        self.cleared_names = 0;
        self.cancelled = true;
        let error = WorkError::new("cancelled", reason);
        let mut gone = Vec::new();
        for op in self.ops.values_mut().filter(|op| op.given.is_none()) {
            op.given = Some(Given::Error(error.clone()));
            op.step = StepState::Idle;
            op.decided = true;
            gone.push(Op {
                signature: op.signature.clone(),
                request: op.request.clone(),
                retry: None,
                timeout: None,
                given: None,
                polled: op.polled,
                begun: op.begun,
                dropped: op.dropped,
                row: op.row.take(),
                step: StepState::Idle,
                decided: true,
                since: op.since,
                alarm: op.alarm.take(),
                waker: None,
            });
        }
        self.ops.retain(|_, op| !(op.dropped && op.given.is_some()));
        gone.sort_by_key(|op| op.signature.number);
        gone
    }
}
