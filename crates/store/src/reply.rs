//! One answer from the log's thread to whoever waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

struct Slot<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    answer: Option<T>,
    closed: bool,
    waker: Option<Waker>,
}

/// The side that answers.
pub struct Reply<T>(Arc<Slot<T>>);

/// The side that waits; `None` if the other side went away without an answer.
pub struct Answer<T>(Arc<Slot<T>>);

/// A pair of both.
#[must_use]
pub fn reply<T>() -> (Reply<T>, Answer<T>) {
    let state = State { answer: None, closed: false, waker: None };
    let slot = Arc::new(Slot { state: Mutex::new(state) });
    (Reply(Arc::clone(&slot)), Answer(slot))
}

impl<T> Reply<T> {
    /// Answers.
    pub fn send(self, answer: T) {
        self.0.lock().answer = Some(answer);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.0.lock();
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Future for Answer<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = self.0.lock();
        if state.closed {
            return Poll::Ready(state.answer.take());
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            None => state.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}
