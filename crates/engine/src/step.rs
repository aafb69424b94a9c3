//! A step: a side effect whose attempts run inside the handler's own future.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::policy::{Retry, Timeout};

use crate::core::{Given, StepState, StepWaker};
use crate::ctx::{Attempt, Operation, panicked};
use crate::env::Observation;
use crate::registry::LocalFuture;

struct Running<'c> {
    attempt: u32,
    future: LocalFuture<'c, Result<Bytes, AttemptError>>,
    waker: Arc<StepWaker>,
}

/// Makes the future of an attempt.
pub type Make<'c> = Box<dyn Fn(Attempt) -> LocalFuture<'c, Result<Bytes, AttemptError>> + 'c>;

/// A step: its attempts run inside the handler's own future.
pub struct Step<'c> {
    operation: Operation,
    make: Make<'c>,
    running: Option<Running<'c>>,
}

impl<'c> Step<'c> {
    pub(crate) fn new(operation: Operation, make: Make<'c>) -> Step<'c> {
        Step { operation, make, running: None }
    }

    /// Sets the policies of its attempts.
    pub fn policies(&mut self, retry: Option<Retry>, timeout: Option<Timeout>) {
        self.operation.policies(retry, timeout);
    }

    fn allowed(&self, number: u32) -> Option<(u32, Attempt)> {
        let core = &self.operation.core;
        let mut state = core.state.borrow_mut();
        let (may_run, given_at) = (state.may_run, state.now);
        let op = state.ops.get_mut(&number)?;
        let first = op.step == StepState::Idle && op.polled && !op.begun && may_run && op.row.is_none();
        if op.step == StepState::Idle && !first {
            return None;
        }
        let now = core.env.clock.now().max(given_at);
        if first {
            // The first attempt of a live step starts in the poll that asks for it.
            op.begun = true;
            op.step = StepState::Allowed(1);
            op.since = now;
        }
        let StepState::Allowed(attempt) = op.step else { return None };
        let key = core.effect_key(&op.signature);
        let deadline = op.timeout.as_ref().map_or_else(|| Timeout::default().attempt, |timeout| timeout.attempt).map(|span| now.after(span.0));
        let total = op.timeout.as_ref().and_then(|timeout| timeout.total).map(|span| op.since.after(span.0));
        let deadline = [deadline, total].into_iter().flatten().min();
        Some((attempt, Attempt::new(&key, attempt, deadline, core.mailbox.heartbeat(core.id, number))))
    }
}

impl Future for Step<'_> {
    type Output = Given;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Given> {
        let this = &mut *self;
        if let Poll::Ready(given) = this.operation.poll_given(context) {
            this.running = None;
            return Poll::Ready(given);
        }
        let Ok(number) = this.operation.called else { return Poll::Pending };
        let Some((attempt, facts)) = this.allowed(number) else {
            this.running = None;
            return Poll::Pending;
        };
        if this.running.as_ref().is_none_or(|running| running.attempt != attempt) {
            let core = &this.operation.core;
            let waker = Arc::new(StepWaker { id: core.id, woken: AtomicBool::new(true), mailbox: core.mailbox.clone() });
            let mut state = core.state.borrow_mut();
            state.started.push(number);
            state.in_step = true;
            let name = state.ops.get(&number).map(|op| op.signature.name.clone()).unwrap_or_default();
            drop(state);
            core.env.observe(&Observation::AttemptStarted { name: &name, key: facts.key(), attempt });
            let made = std::panic::catch_unwind(AssertUnwindSafe(|| (this.make)(facts)));
            core.state.borrow_mut().in_step = false;
            match made {
                Ok(future) => this.running = Some(Running { attempt, future, waker }),
                Err(panic) => {
                    this.finish(number, attempt, Err(panicked(&*panic)));
                    return Poll::Pending;
                }
            }
        }
        let Some(running) = &mut this.running else { return Poll::Pending };
        let core = this.operation.core.clone();
        let mut rounds = 0;
        while running.waker.woken.swap(false, Ordering::SeqCst) {
            let waker = Waker::from(running.waker.clone());
            core.state.borrow_mut().in_step = true;
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| running.future.as_mut().poll(&mut Context::from_waker(&waker))));
            core.state.borrow_mut().in_step = false;
            match polled {
                Ok(Poll::Ready(result)) => {
                    this.finish(number, attempt, result);
                    return Poll::Pending;
                }
                Ok(Poll::Pending) => {}
                Err(panic) => {
                    this.finish(number, attempt, Err(panicked(&*panic)));
                    return Poll::Pending;
                }
            }
            rounds += 1;
            if rounds == 8 {
                // A step that wakes itself again and again gives the others their turn.
                if running.waker.woken.load(Ordering::SeqCst) {
                    core.mailbox.wake(crate::worker::Wakeup::Step(core.id));
                }
                break;
            }
        }
        Poll::Pending
    }
}

impl Step<'_> {
    fn finish(&mut self, number: u32, attempt: u32, result: Result<Bytes, AttemptError>) {
        self.running = None;
        let mut state = self.operation.core.state.borrow_mut();
        if let Some(op) = state.ops.get_mut(&number) {
            op.step = StepState::Idle;
        }
        state.finished.push((number, attempt, result));
    }
}
