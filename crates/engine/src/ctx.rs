//! What a handler is given: operations over bytes. The facade puts types on them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::journal::OpKind;
use selvedge_kernel::policy::{Retry, Timeout};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition;

use crate::core::{Core, Fresh, Given, Load, Request, StepState, check_address};
use crate::step::{Make, Step};

/// The context of one invocation: owned, cheap to clone.
#[derive(Clone)]
pub struct Ctx {
    core: Rc<Core>,
}

/// One attempt of a step or an activity.
#[derive(Clone)]
pub struct Attempt {
    key: Arc<str>,
    number: u32,
    deadline: Option<Millis>,
    progress: Arc<dyn Fn(Bytes) + Send + Sync>,
}

impl Attempt {
    pub(crate) fn new(key: &str, number: u32, deadline: Option<Millis>, progress: Arc<dyn Fn(Bytes) + Send + Sync>) -> Attempt {
        Attempt { key: key.into(), number, deadline, progress }
    }

    /// The idempotency key of the effect: the same for each attempt.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// When this attempt is given up.
    #[must_use]
    pub fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// Says how far it is (JSON); `why` shows it.
    pub fn heartbeat(&self, progress: Bytes) {
        (self.progress)(progress);
    }
}

/// The code of the error with which a handler starts anew.
pub(crate) const RESTART: &str = "restart";

impl Ctx {
    pub(crate) fn new(core: Rc<Core>) -> Ctx {
        Ctx { core }
    }

    /// The key of the actor.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.core.actor.key
    }

    /// The actor.
    #[must_use]
    pub fn actor(&self) -> &ActorId {
        &self.core.actor
    }

    /// The id of this invocation.
    #[must_use]
    pub fn invocation(&self) -> InvocationId {
        self.core.id
    }

    /// Who called, for whom.
    #[must_use]
    pub fn caller(&self) -> &AuthorizationContext {
        &self.core.context
    }

    /// Whether a cancel was delivered.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.core.state.borrow().cancelled
    }

    /// The time of the last result that was delivered: the same on replay.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.core.state.borrow().now
    }

    /// 32 random bytes: the same on replay, and no entry.
    #[must_use]
    pub fn random(&self) -> [u8; 32] {
        let mut state = self.core.state.borrow_mut();
        if let Some(error) = state.nested() {
            // It would take a number that the replay, which runs no step, does not take.
            state.failed.get_or_insert(error);
            return transition::random_bytes(&self.core.seal_key, u32::MAX);
        }
        let number = state.next;
        state.next += 1;
        transition::random_bytes(&self.core.seal_key, number)
    }

    /// Calls an operation that is delivered.
    pub fn operation(&self, kind: OpKind, name: &str, target: &str, request: Request) -> Operation {
        let fits = self.core.check_request(&request);
        let called = self.core.state.borrow_mut().call(&self.core, kind, name, target, request);
        Operation { core: self.core.clone(), called: called.and_then(|number| fits.map(|()| number)) }
    }

    /// Calls a step: `make` gives the future of each attempt.
    pub fn step<'c>(&self, name: &str, make: Make<'c>) -> Step<'c> {
        let operation = self.operation(OpKind::Step, name, "", Request::Step);
        Step::new(operation, make)
    }

    /// Records a message to another actor. It leaves with the next commit.
    pub fn message(&self, spawn: bool, target: ActorId, handler: &str, input: Bytes) -> Result<Sent, WorkError> {
        let kind = if spawn { OpKind::Spawn } else { OpKind::Send };
        self.core.check_body("the input of a message", input.len())?;
        check_address(&target, handler, None)?;
        let mut state = self.core.state.borrow_mut();
        state.charge_message(&self.core.context, input.len())?;
        if spawn {
            state.charge(0)?;
        }
        let (signature, recorded) = state.record(&self.core, kind, "", &format!("{target}.{handler}"))?;
        let number = signature.number;
        let fresh = if recorded.is_none() {
            state.fresh.push(Fresh::Message {
                signature: signature.clone(),
                spawn,
                target: target.clone(),
                handler: handler.to_owned(),
                input,
                delay: None,
                idempotency_key: None,
            });
            Some(state.fresh.len() - 1)
        } else {
            None
        };
        if spawn && let Ok(Some(row)) = state.replay.begun(&signature) {
            // The child's row stands beside its entry until it is joined.
            state.children.insert(number, row);
        }
        drop(state);
        Ok(Sent { core: self.core.clone(), number, fresh, id: transition::sent_id(self.core.id.0, u64::from(number), &target) })
    }

    /// Which form of a changed passage of code this invocation takes, from 1 to `newest`.
    #[must_use]
    pub fn version(&self, change: &str, newest: u32) -> u32 {
        let mut state = self.core.state.borrow_mut();
        if let Some(taken) = state.versions.get(change) {
            return *taken;
        }
        if let Some(error) = state.nested().or_else(|| crate::core::check_part("the name of a change", change).err()) {
            state.failed.get_or_insert(error);
            return newest;
        }
        let known = state.replay.version(change);
        let taken = known.unwrap_or(newest);
        state.versions.insert(change.to_owned(), taken);
        if known.is_none() {
            if let Err(error) = state.charge(16) {
                state.failed.get_or_insert(error);
            }
            // It has no place in the order of operations.
            let signature = transition::signature(u32::MAX, OpKind::Version, change, "");
            state.fresh.push(Fresh::Version { signature, version: newest });
        }
        taken
    }

    /// Takes note of the input with which this invocation wants to start anew, once its handler has ended with the error
    /// that this gives.
    pub fn restart(&self, input: Bytes) -> WorkError {
        self.core.state.borrow_mut().restart = Some(input);
        WorkError::new(RESTART, "this invocation starts anew: return this error from the handler")
    }

    /// Fails the handler with an error that no operation can return: something could not be sent.
    pub fn fail(&self, error: WorkError) {
        self.core.state.borrow_mut().failed.get_or_insert(error);
    }

    /// Asks that a child of this invocation be cancelled.
    pub fn cancel_child(&self, number: u32) {
        self.core.state.borrow_mut().cancel_children.push(number);
    }

    /// Appends a chunk to the output stream.
    pub fn emit(&self, data: Bytes) -> Result<(), WorkError> {
        let mut state = self.core.state.borrow_mut();
        state.charge(data.len())?;
        let (signature, recorded) = state.record(&self.core, OpKind::Emit, "", "")?;
        if recorded.is_none() {
            state.fresh.push(Fresh::Emit { signature, data });
        }
        Ok(())
    }

    /// Writes a state entry (JSON). It joins the next commit.
    pub fn state_set(&self, name: &str, value: Bytes) -> Result<(), WorkError> {
        let mut state = self.core.state.borrow_mut();
        state.charge(value.len())?;
        let (signature, recorded) = state.record(&self.core, OpKind::StateSet, name, "")?;
        state.view.insert(name.to_owned(), Some(value.clone()));
        if recorded.is_none() {
            state.fresh.push(Fresh::Set { signature, name: name.to_owned(), value });
        }
        Ok(())
    }

    /// Removes a state entry.
    pub fn state_delete(&self, name: &str) -> Result<(), WorkError> {
        let mut state = self.core.state.borrow_mut();
        state.charge(0)?;
        let (signature, recorded) = state.record(&self.core, OpKind::StateDelete, name, "")?;
        state.view.insert(name.to_owned(), None);
        if recorded.is_none() {
            state.fresh.push(Fresh::Delete { signature, name: name.to_owned() });
        }
        Ok(())
    }

    /// Removes all state: one change.
    pub fn state_clear(&self) -> Result<(), WorkError> {
        let mut state = self.core.state.borrow_mut();
        state.charge(0)?;
        let (signature, recorded) = state.record(&self.core, OpKind::StateClear, "", "")?;
        state.view.clear();
        state.cleared = true;
        if recorded.is_none() {
            state.loads.push(Load::Clear { number: signature.number });
            state.fresh.push(Fresh::Clear { signature, names: Vec::new() });
        }
        Ok(())
    }

    /// Reads a state entry: JSON, or JSON null inside a one-byte tag where it is absent.
    #[must_use]
    pub fn state_get(&self, name: &str) -> Read {
        let mut state = self.core.state.borrow_mut();
        if let Some(known) = state.view.get(name) {
            return Read::ready(&self.core, Ok(tag(known.as_ref())));
        }
        if state.cleared {
            return Read::ready(&self.core, Ok(tag(None)));
        }
        if let Some(&number) = state.reading.get(name) {
            // It is being read for somebody else in this handler: one entry for both.
            return Read { core: self.core.clone(), ready: None, number, name: Some(name.to_owned()) };
        }
        let called = state.record(&self.core, OpKind::StateGet, name, "");
        match called {
            Err(error) => Read::ready(&self.core, Err(error)),
            Ok((signature, Some(entry))) => {
                // It is given as late as it was the first time, so that what runs beside it runs in the same order.
                let number = signature.number;
                state.loads.push(Load::Recorded { number, entry });
                state.reading.insert(name.to_owned(), number);
                Read { core: self.core.clone(), ready: None, number, name: Some(name.to_owned()) }
            }
            Ok((signature, None)) => {
                let number = signature.number;
                state.fresh.push(Fresh::Read { signature, payload: None });
                state.loads.push(Load::Get { number, name: name.to_owned() });
                state.reading.insert(name.to_owned(), number);
                Read { core: self.core.clone(), ready: None, number, name: Some(name.to_owned()) }
            }
        }
    }

    /// Reads the names of the state under a prefix: a JSON list, in order.
    #[must_use]
    pub fn state_keys(&self, prefix: &str) -> Read {
        self.state_list(OpKind::StateKeys, prefix)
    }

    /// Reads names and values of the state under a prefix: a JSON object, in order.
    #[must_use]
    pub fn state_entries(&self, prefix: &str) -> Read {
        self.state_list(OpKind::StateEntries, prefix)
    }

    fn state_list(&self, kind: OpKind, prefix: &str) -> Read {
        let mut state = self.core.state.borrow_mut();
        match state.record(&self.core, kind, prefix, "") {
            Err(error) => Read::ready(&self.core, Err(error)),
            Ok((signature, recorded)) => {
                let number = signature.number;
                state.loads.push(match recorded {
                    Some(entry) => Load::Recorded { number, entry },
                    None if kind == OpKind::StateKeys => Load::Keys { number, prefix: prefix.to_owned() },
                    None => Load::Entries { number, prefix: prefix.to_owned() },
                });
                if !matches!(state.loads.last(), Some(Load::Recorded { .. })) {
                    state.fresh.push(Fresh::Read { signature, payload: None });
                }
                Read { core: self.core.clone(), ready: None, number, name: None }
            }
        }
    }
}

/// A value as a read gives it: `1` and JSON, or `0`.
#[must_use]
pub fn tag(value: Option<&Bytes>) -> Bytes {
    match value {
        None => Bytes::from_static(&[0]),
        Some(value) => {
            let mut tagged = Vec::with_capacity(1 + value.len());
            tagged.push(1);
            tagged.extend_from_slice(value);
            Bytes::from(tagged)
        }
    }
}

/// Undoes [`tag`].
#[must_use]
pub fn untag(tagged: &Bytes) -> Option<Bytes> {
    (tagged.first() == Some(&1)).then(|| tagged.slice(1..))
}

/// A read of state.
pub struct Read {
    core: Rc<Core>,
    ready: Option<Result<Bytes, WorkError>>,
    number: u32,
    name: Option<String>,
}

impl Read {
    fn ready(core: &Rc<Core>, result: Result<Bytes, WorkError>) -> Read {
        Read { core: core.clone(), ready: Some(result), number: 0, name: None }
    }
}

impl Future for Read {
    type Output = Result<Bytes, WorkError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.ready.take() {
            return Poll::Ready(result);
        }
        let mut state = self.core.state.borrow_mut();
        match state.reads.remove(&self.number) {
            Some(value) => Poll::Ready(Ok(value)),
            None => {
                if let Some(known) = self.name.as_ref().and_then(|name| state.view.get(name)) {
                    return Poll::Ready(Ok(tag(known.as_ref())));
                }
                if !context.waker().will_wake(&self.core.own) {
                    state.inner_wakers = true;
                    state.read_wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

/// A message on its way out.
pub struct Sent {
    core: Rc<Core>,
    number: u32,
    fresh: Option<usize>,
    id: InvocationId,
}

impl Sent {
    /// The operation's number.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The invocation that it becomes.
    #[must_use]
    pub fn id(&self) -> InvocationId {
        self.id
    }

    /// Delivers it later.
    #[must_use]
    pub fn delay(self, span: Duration) -> Sent {
        if let Err(error) = self.core.check_delay("the delay of a message", span) {
            self.core.state.borrow_mut().failed.get_or_insert(error);
            return self;
        }
        self.change(|fresh| {
            if let Fresh::Message { delay, .. } = fresh {
                *delay = Some(span);
            }
        })
    }

    /// Delivers it at most once for this key.
    #[must_use]
    pub fn idempotency_key(self, key: &str) -> Sent {
        if let Err(error) = check_address(&self.core.actor, "", Some(key)) {
            self.core.state.borrow_mut().failed.get_or_insert(error);
            return self;
        }
        self.change(|fresh| {
            if let Fresh::Message { idempotency_key, .. } = fresh {
                *idempotency_key = Some(key.to_owned());
            }
        })
    }

    fn change(self, change: impl FnOnce(&mut Fresh)) -> Sent {
        let mut state = self.core.state.borrow_mut();
        let mine = |fresh: &&mut Fresh| matches!(fresh, Fresh::Message { signature, .. } if signature.number == self.number);
        if let Some(index) = self.fresh
            && let Some(fresh) = state.fresh.get_mut(index).filter(mine)
        {
            change(fresh);
        }
        drop(state);
        self
    }
}

/// An operation whose result is delivered. Dropping it gives it up.
pub struct Operation {
    pub(crate) core: Rc<Core>,
    pub(crate) called: Result<u32, WorkError>,
}

impl Operation {
    /// Its number; none if it could not be called.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.called.as_ref().ok().copied()
    }

    /// Sets the policies of its attempts; they count from when it begins.
    pub fn policies(&mut self, retry: Option<Retry>, timeout: Option<Timeout>) {
        if self.called.is_ok()
            && let Some(Err(error)) = retry.as_ref().map(|retry| self.core.check_attempts(retry))
        {
            self.called = Err(error);
        }
        if let Ok(number) = self.called
            && let Some(op) = self.core.state.borrow_mut().ops.get_mut(&number)
        {
            op.retry = retry.or(op.retry.take());
            op.timeout = timeout.or(op.timeout.take());
        }
    }

    /// Changes what it asks for; counts until it begins.
    pub fn request(&mut self, change: impl FnOnce(&mut Request)) {
        if let Ok(number) = self.called
            && let Some(op) = self.core.state.borrow_mut().ops.get_mut(&number)
        {
            change(&mut op.request);
            let request = op.request.clone();
            if let Err(error) = self.core.check_request(&request) {
                self.called = Err(error);
            }
        }
    }

    pub(crate) fn poll_given(&mut self, context: &Context<'_>) -> Poll<Given> {
        let number = match &self.called {
            Ok(number) => *number,
            Err(error) => return Poll::Ready(Given::Error(error.clone())),
        };
        let mut state = self.core.state.borrow_mut();
        if let Some(error) = state.nested() {
            return Poll::Ready(Given::Error(error));
        }
        let Some(op) = state.ops.get_mut(&number) else { return Poll::Pending };
        if let Some(given) = op.given.take() {
            state.ops.remove(&number);
            self.called = Err(WorkError::new("consumed", "this operation has given its result already"));
            return Poll::Ready(given);
        }
        let inner = !context.waker().will_wake(&self.core.own);
        if inner {
            op.waker = Some(context.waker().clone());
        }
        if !op.polled {
            op.polled = true;
            state.began.push(number);
        }
        state.inner_wakers |= inner;
        Poll::Pending
    }
}

impl Future for Operation {
    type Output = Given;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Given> {
        self.poll_given(context)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.core.ended.get() {
            return;
        }
        if let Ok(number) = self.called
            && let Ok(mut state) = self.core.state.try_borrow_mut()
            && let Some(op) = state.ops.get_mut(&number)
        {
            op.dropped = true;
            op.step = StepState::Idle;
            if op.given.is_some() {
                state.ops.remove(&number);
            } else {
                state.dropped.push(number);
            }
        }
    }
}

/// What a panic says.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> AttemptError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    AttemptError {
        error: WorkError::new("panic", text.unwrap_or_else(|| "the code panicked without a text".to_owned())),
        retryable: true,
        retry_after_ms: None,
    }
}
