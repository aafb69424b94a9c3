//! What a handler is given.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use selvedge_engine::ctx as raw;
use selvedge_engine::{Given, Request};
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::id::{ActorId, InvocationId, RunId};
use selvedge_kernel::journal::OpKind;
use selvedge_kernel::policy::{Retry, Timeout};
use selvedge_kernel::time::Millis;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Outcome, from_work, to_attempt};
use crate::json;
use crate::name::{Activity, Signal, Target};
use crate::state::State;

pub use selvedge_engine::ctx::Attempt;

/// The context of one invocation: owned, cheap to clone. Everything that a handler does to the world goes through it.
///
/// ```
/// use selvedge::{Ctx, Outcome};
/// async fn greet(ctx: Ctx, name: String) -> Outcome<String> {
///     let id: u64 = ctx.step("count", async |_| Ok(7)).await?;
///     Ok(format!("{name} is number {id} for {}", ctx.key()))
/// }
/// ```
#[derive(Clone)]
pub struct Ctx {
    raw: raw::Ctx,
}

impl Ctx {
    pub(crate) fn new(raw: raw::Ctx) -> Ctx {
        Ctx { raw }
    }

    /// The key of the actor.
    #[must_use]
    pub fn key(&self) -> &str {
        self.raw.key()
    }

    /// The id of this invocation.
    #[must_use]
    pub fn invocation(&self) -> InvocationId {
        self.raw.invocation()
    }

    /// Who called, for whom.
    #[must_use]
    pub fn caller(&self) -> &AuthorizationContext {
        self.raw.caller()
    }

    /// Whether a cancel was delivered.
    #[must_use]
    pub fn cancelled(&self) -> bool {
        self.raw.cancelled()
    }

    /// One journaled side effect. It runs on the shard's thread; its future may await anything but operations.
    pub fn step<'c, T, F>(&self, name: &str, run: F) -> Step<'c, T>
    where
        T: Serialize + DeserializeOwned + 'c,
        F: AsyncFn(Attempt) -> Outcome<T> + 'c,
    {
        let run = Rc::new(run);
        let make = Box::new(move |attempt| -> selvedge_engine::registry::LocalFuture<'c, _> {
            let run = run.clone();
            Box::pin(async move {
                let value = run(attempt).await.map_err(to_attempt)?;
                json::write("the value of a step", &value).map_err(to_attempt)
            })
        });
        Step { inner: Running::Native(self.raw.step(name, make)), of: PhantomData }
    }

    /// One journaled side effect on a thread of its own. It owns what it uses, and cannot be aborted.
    pub fn blocking<'c, T, F>(&self, name: &str, run: F) -> Step<'c, T>
    where
        T: Serialize + DeserializeOwned + 'c,
        F: Fn(Attempt) -> Outcome<T> + Send + Sync + 'static,
    {
        let work: selvedge_engine::BlockingFn = Arc::new(move |attempt| {
            let value = run(attempt).map_err(to_attempt)?;
            json::write("the value of a step", &value).map_err(to_attempt)
        });
        Step { inner: Running::Elsewhere(self.raw.operation(OpKind::Blocking, name, "", Request::Blocking(work))), of: PhantomData }
    }

    /// Runs a named activity. It waits for the activity's breaker and throttle, which it shares with whoever calls it; that takes no
    /// attempt and none of an attempt's time.
    pub fn activity<I: Serialize, O: DeserializeOwned>(&self, activity: Activity<I, O>, input: I) -> Op<O> {
        match json::write("the input of an activity", &input) {
            Ok(input) => Op::new(self.raw.operation(OpKind::Activity, activity.name, "", Request::Activity { input })),
            Err(failure) => Op::failed(failure),
        }
    }

    /// Calls a handler of another actor and waits for its answer.
    pub fn call<I: Serialize, O: DeserializeOwned>(&self, target: Target<I, O>, input: I) -> Op<O> {
        match json::write("the input of a call", &input) {
            Ok(input) => {
                let actor = self.target(target.kind, target.key);
                let named = format!("{actor}.{}", target.name);
                let request = Request::Call { target: actor, handler: target.name.to_owned(), input, idempotency_key: None, timeout: None };
                Op::new(self.raw.operation(OpKind::Call, "", &named, request))
            }
            Err(failure) => Op::failed(failure),
        }
    }

    /// Sends a message to another actor; it leaves with the next commit.
    pub fn send<I: Serialize, O>(&self, target: Target<I, O>, input: I) -> Sent {
        Sent { inner: self.message(false, target, &input) }
    }

    /// Starts a child invocation.
    pub fn spawn<I: Serialize, O: DeserializeOwned>(&self, target: Target<I, O>, input: I) -> Child<O> {
        Child { raw: self.raw.clone(), inner: self.message(true, target, &input), of: PhantomData }
    }

    fn message<I: Serialize, O>(&self, spawn: bool, target: Target<I, O>, input: &I) -> Option<raw::Sent> {
        let actor = self.target(target.kind, target.key);
        let input = match json::write("the input of a message", input) {
            Ok(input) => input,
            Err(failure) => {
                self.raw.fail(to_attempt(failure).error);
                return None;
            }
        };
        match self.raw.message(spawn, actor, target.name, input) {
            Ok(sent) => Some(sent),
            Err(error) => {
                self.raw.fail(error);
                None
            }
        }
    }

    fn target(&self, kind: &str, key: String) -> ActorId {
        ActorId { tenant: self.raw.actor().tenant.clone(), kind: kind.to_owned(), key }
    }

    /// Starts a run of a pipeline and gives its id.
    pub fn start<I: Serialize>(&self, pipeline: &str, input: I) -> Op<RunId> {
        match json::write("the input of a pipeline", &input) {
            Ok(input) => Op::new(self.raw.operation(OpKind::Start, pipeline, "", Request::Start { input })),
            Err(failure) => Op::failed(failure),
        }
    }

    /// Waits for a signal to this invocation, or to its actor.
    pub fn signal<T: DeserializeOwned>(&self, signal: Signal<T>) -> Wait<T> {
        let token = format!("{}/{}", self.raw.invocation(), signal.name);
        Wait { op: Op::new(self.raw.operation(OpKind::Signal, signal.name, "", Request::Signal { within: None })), token }
    }

    /// Sleeps durably.
    pub fn sleep(&self, span: Duration) -> Op<()> {
        self.sleep_until(self.raw.now().after(span))
    }

    /// Sleeps durably until a time.
    pub fn sleep_until(&self, until: Millis) -> Op<()> {
        Op::new(self.raw.operation(OpKind::Sleep, "", "", Request::Sleep { until }))
    }

    /// The first of two operations that is done; the other one is given up, unless it was passed by `&mut`.
    pub fn select<A, B>(&self, a: A, b: B) -> Select<A, B>
    where
        A: Future + Unpin,
        B: Future + Unpin,
    {
        Select { a, b }
    }

    /// All of some operations, in their order.
    pub fn join_all<F: Future + Unpin>(&self, operations: impl IntoIterator<Item = F>) -> JoinAll<F> {
        JoinAll { parts: operations.into_iter().map(Part::Waiting).collect() }
    }

    /// Appends a chunk to the output stream of this invocation.
    pub fn emit<T: Serialize + ?Sized>(&self, chunk: &T) -> Outcome<()> {
        self.raw.emit(json::write("a chunk of output", chunk)?).map_err(from_work)
    }

    /// The time of the last result: the same on replay.
    #[must_use]
    pub fn now(&self) -> Millis {
        self.raw.now()
    }

    /// A random number: the same on replay.
    #[must_use]
    pub fn random(&self) -> u64 {
        let bytes = self.raw.random();
        u64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }

    /// A random UUID (version 4): the same on replay.
    #[must_use]
    pub fn uuid(&self) -> String {
        let mut b = self.raw.random();
        b[6] = 0x40 | (b[6] & 0x0f);
        b[8] = 0x80 | (b[8] & 0x3f);
        let hex: String = b[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// Which form of a changed passage of code to take, from 1 to `newest`: the one that this invocation took when it
    /// first came here; 1 if it was on its way before there was a second.
    ///
    /// ```
    /// use selvedge::{Ctx, Outcome};
    /// async fn fee(ctx: Ctx, cents: u64) -> Outcome<u64> {
    ///     Ok(if ctx.version("fee", 2) == 1 { cents / 100 } else { cents / 50 })
    /// }
    /// # let _ = fee;
    /// ```
    #[must_use]
    pub fn version(&self, change: &str, newest: u32) -> u32 {
        self.raw.version(change, newest)
    }

    /// The end of this invocation and the start of another in its place, with a journal of its own: it takes the caller
    /// who waits, the idempotency key, and the place at the head of the inbox along.
    ///
    /// ```
    /// use selvedge::{Ctx, Outcome};
    /// async fn poll(ctx: Ctx, seen: u64) -> Outcome<u64> {
    ///     ctx.sleep(std::time::Duration::from_secs(60)).await?;
    ///     if seen < 1_000 { Err(ctx.restart(seen + 1)) } else { Ok(seen) }
    /// }
    /// # let _ = poll;
    /// ```
    pub fn restart<I: Serialize>(&self, input: I) -> Failure {
        match json::write("the input of a restart", &input) {
            Ok(input) => from_work(self.raw.restart(input)),
            Err(failure) => failure,
        }
    }

    /// The state of the actor.
    #[must_use]
    pub fn state(&self) -> State {
        State::new(self.raw.clone())
    }
}

fn given<T: DeserializeOwned>(given: Given) -> Outcome<T> {
    match given {
        Given::Value(value) => json::read("the result of an operation", &value),
        Given::Error(error) => Err(from_work(error)),
        Given::TimeUp => json::read("the result of an operation", b"null"),
    }
}

enum Running<'c> {
    Native(selvedge_engine::step::Step<'c>),
    Elsewhere(raw::Operation),
}

/// A step: await it, or give it to `select` or `join_all`.
pub struct Step<'c, T> {
    inner: Running<'c>,
    of: PhantomData<fn() -> T>,
}

impl<T> Step<'_, T> {
    /// When a failed attempt is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        match &mut self.inner {
            Running::Native(step) => step.policies(Some(retry), None),
            Running::Elsewhere(operation) => operation.policies(Some(retry), None),
        }
        self
    }

    /// How long an attempt, and all of them, may take.
    #[must_use]
    pub fn timeout(mut self, timeout: Timeout) -> Self {
        match &mut self.inner {
            Running::Native(step) => step.policies(None, Some(timeout)),
            Running::Elsewhere(operation) => operation.policies(None, Some(timeout)),
        }
        self
    }
}

impl<T: DeserializeOwned> Future for Step<'_, T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let polled = match &mut self.inner {
            Running::Native(step) => Pin::new(step).poll(context),
            Running::Elsewhere(operation) => Pin::new(operation).poll(context),
        };
        polled.map(given)
    }
}

enum Called {
    Operation(raw::Operation),
    Failed(Option<Failure>),
}

/// An operation whose result is delivered: await it, or give it to `select` or `join_all`.
pub struct Op<T> {
    inner: Called,
    of: PhantomData<fn() -> T>,
}

impl<T> Op<T> {
    fn new(operation: raw::Operation) -> Op<T> {
        Op { inner: Called::Operation(operation), of: PhantomData }
    }

    fn failed(failure: Failure) -> Op<T> {
        Op { inner: Called::Failed(Some(failure)), of: PhantomData }
    }

    fn change(mut self, change: impl FnOnce(&mut Request)) -> Self {
        if let Called::Operation(operation) = &mut self.inner {
            operation.request(change);
        }
        self
    }

    /// Of a call: the callee is invoked at most once for this key.
    #[must_use]
    pub fn idempotency_key(self, key: impl Into<String>) -> Self {
        let key = key.into();
        self.change(|request| {
            if let Request::Call { idempotency_key, .. } = request {
                *idempotency_key = Some(key);
            }
        })
    }

    /// Of a call: the callee's deadline. An invocation that was there already, found by the key of this call, keeps its own;
    /// this call ends with `deadline` all the same.
    #[must_use]
    pub fn timeout(self, span: Duration) -> Self {
        self.change(|request| {
            if let Request::Call { timeout, .. } = request {
                *timeout = Some(span);
            }
        })
    }

    /// Of an activity: when a failed attempt is tried again.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        if let Called::Operation(operation) = &mut self.inner {
            operation.policies(Some(retry), None);
        }
        self
    }

    fn poll_raw(&mut self, context: &mut Context<'_>) -> Poll<Outcome<Given>> {
        match &mut self.inner {
            Called::Operation(operation) => Pin::new(operation).poll(context).map(Ok),
            Called::Failed(failure) => {
                Poll::Ready(Err(failure.take().unwrap_or_else(|| Failure::terminal("consumed", "this operation has given its result already"))))
            }
        }
    }
}

impl<T: DeserializeOwned> Future for Op<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        self.poll_raw(context).map(|result| result.and_then(given))
    }
}

/// A wait for a signal.
pub struct Wait<T> {
    op: Op<T>,
    token: String,
}

impl<T> Wait<T> {
    /// Waits for a limited time: none when it is up.
    #[must_use]
    pub fn within(self, span: Duration) -> Within<T> {
        Within {
            op: self.op.change(|request| {
                if let Request::Signal { within } = request {
                    *within = Some(span);
                }
            }),
        }
    }

    /// The signal's address, to be handed to the outside.
    #[must_use]
    pub fn token(&self) -> String {
        self.token.clone()
    }
}

impl<T: DeserializeOwned> Future for Wait<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        Pin::new(&mut self.op).poll(context)
    }
}

/// A wait for a signal for a limited time: one operation.
pub struct Within<T> {
    op: Op<T>,
}

impl<T: DeserializeOwned> Future for Within<T> {
    type Output = Outcome<Option<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<Option<T>>> {
        self.op.poll_raw(context).map(|result| match result? {
            Given::TimeUp => Ok(None),
            other => given(other).map(Some),
        })
    }
}

/// A message on its way out.
pub struct Sent {
    inner: Option<raw::Sent>,
}

impl Sent {
    /// Delivers it later.
    #[must_use = "the message is sent in any case; this changes how"]
    pub fn delay(self, span: Duration) -> Sent {
        Sent { inner: self.inner.map(|sent| sent.delay(span)) }
    }

    /// Delivers it at most once for this key.
    #[must_use = "the message is sent in any case; this changes how"]
    pub fn idempotency_key(self, key: &str) -> Sent {
        Sent { inner: self.inner.map(|sent| sent.idempotency_key(key)) }
    }

    /// The invocation that it becomes.
    #[must_use]
    pub fn id(&self) -> Option<InvocationId> {
        self.inner.as_ref().map(raw::Sent::id)
    }
}

/// A child invocation. The end of its parent cancels it, unless it was joined.
pub struct Child<O> {
    raw: raw::Ctx,
    inner: Option<raw::Sent>,
    of: PhantomData<fn() -> O>,
}

impl<O: DeserializeOwned> Child<O> {
    /// Waits for its end.
    pub fn join(self) -> Op<O> {
        match &self.inner {
            Some(sent) => Op::new(self.raw.operation(OpKind::Join, "", &format!("#{}", sent.number()), Request::Join { child: sent.number() })),
            None => Op::failed(Failure::terminal("refused", "this child was never sent")),
        }
    }
}

impl<O> Child<O> {
    /// Asks it to end.
    pub fn cancel(&self) {
        if let Some(sent) = &self.inner {
            self.raw.cancel_child(sent.number());
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> Option<InvocationId> {
        self.inner.as_ref().map(raw::Sent::id)
    }
}

/// Which of two was first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    Left(A),
    /// The second one.
    Right(B),
}

/// See [`Ctx::select`].
pub struct Select<A, B> {
    a: A,
    b: B,
}

impl<A: Future + Unpin, B: Future + Unpin> Future for Select<A, B> {
    type Output = Either<A::Output, B::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Both are polled, so that both begin.
        let a = Pin::new(&mut self.a).poll(context);
        if let Poll::Ready(value) = a {
            return Poll::Ready(Either::Left(value));
        }
        Pin::new(&mut self.b).poll(context).map(Either::Right)
    }
}

enum Part<F: Future> {
    Waiting(F),
    Done(Option<F::Output>),
}

/// See [`Ctx::join_all`].
pub struct JoinAll<F: Future> {
    parts: Vec<Part<F>>,
}

impl<F: Future> Unpin for JoinAll<F> {}

impl<T, F: Future<Output = Outcome<T>> + Unpin> Future for JoinAll<F> {
    type Output = Outcome<Vec<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut waiting = false;
        for part in &mut self.parts {
            if let Part::Waiting(future) = part {
                match Pin::new(future).poll(context) {
                    Poll::Ready(value) => *part = Part::Done(Some(value)),
                    Poll::Pending => waiting = true,
                }
            }
        }
        if waiting {
            return Poll::Pending;
        }
        let parts = std::mem::take(&mut self.parts);
        Poll::Ready(
            parts
                .into_iter()
                .filter_map(|part| match part {
                    Part::Done(value) => value,
                    Part::Waiting(_) => None,
                })
                .collect(),
        )
    }
}
