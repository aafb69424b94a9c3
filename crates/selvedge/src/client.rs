//! How a program talks to its engine.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge_engine::engine::{Ask, Engine};
use selvedge_engine::why::{Census, Why};
use selvedge_engine::{Answer, Progress, SignalTarget, VerbError};
use selvedge_kernel::auth::{Action, AuthorizationContext, Denied, Permit, Resource};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::record::message::Outcome as Ended;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::json;
use crate::name::{Signal, Target};
use crate::stream::Chunks;

/// Why a verb of the client did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerbFailed {
    /// A policy said no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The engine said no.
    #[error(transparent)]
    Refused(#[from] VerbError),
    /// The value given, or the value that came back, is not what its type says.
    #[error("{0}")]
    Value(String),
}

/// Why a call gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The handler failed for good.
    #[error("{id:?} failed: {code}: {message}")]
    Failed {
        /// Which invocation; none for a shared handler.
        id: Option<InvocationId>,
        /// The handler's code.
        code: String,
        /// The handler's text.
        message: String,
    },
    /// It goes on; ask for its result later.
    #[error("{id} was accepted and goes on: ask for its result later")]
    Open {
        /// Which invocation.
        id: InvocationId,
    },
    /// It could not be asked.
    #[error(transparent)]
    Verb(#[from] VerbFailed),
}

/// Why a message was not sent.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SendError(#[from] pub VerbFailed);

/// Why a signal was not delivered.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SignalError(#[from] pub VerbFailed);

/// Why there is no answer to `why`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct WhyError(#[from] pub VerbFailed);

/// Why a cancel was not taken.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CancelError(#[from] pub VerbFailed);

/// Why something was not erased.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EraseError(#[from] pub VerbFailed);

/// Why output could not be read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StreamError(#[from] pub VerbFailed);

/// Talks to an engine as somebody.
#[derive(Clone)]
pub struct Client {
    pub(crate) engine: Arc<Engine>,
    pub(crate) context: AuthorizationContext,
}

impl Client {
    pub(crate) fn permit(&self, action: Action, resource: Resource) -> Result<Permit, VerbFailed> {
        Ok(self.engine.permit(self.context.clone(), action, resource)?)
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.context.principal.tenant
    }

    fn actor(&self, kind: &str, key: &str) -> ActorId {
        ActorId { tenant: self.tenant().to_owned(), kind: kind.to_owned(), key: key.to_owned() }
    }

    pub(crate) fn work(&self, id: &impl ToString) -> Resource {
        Resource::Work { tenant: self.tenant().to_owned(), id: id.to_string() }
    }

    /// Calls a handler: await it for its value.
    pub fn call<I: Serialize, O: DeserializeOwned>(&self, target: Target<I, O>, input: I) -> Pending<O> {
        let actor = self.actor(target.kind, &target.key);
        self.call_raw(actor, target.name, json::write("the input", &input))
    }

    /// Calls a handler by its names, with JSON.
    pub fn call_json(&self, kind: &str, key: &str, handler: &str, input: &serde_json::Value) -> Pending<serde_json::Value> {
        let actor = self.actor(kind, key);
        self.call_raw(actor, handler, json::write("the input", input))
    }

    fn call_raw<O>(&self, actor: ActorId, handler: &str, input: Result<Bytes, Failure>) -> Pending<O> {
        Pending { client: self.clone(), actor, handler: handler.to_owned(), input, ask: Ask { wait: true, ..Ask::default() }, wait: None, of: PhantomData }
    }

    /// Sends a message: durable when this returns, handled later.
    pub async fn send<I: Serialize, O>(&self, target: Target<I, O>, input: I) -> Result<InvocationId, SendError> {
        let actor = self.actor(target.kind, &target.key);
        let input = json::write("the input", &input).map_err(value)?;
        let permit = self.permit(Action::Invoke, Resource::Handler { actor, handler: target.name.to_owned() })?;
        let answer = self.engine.invoke(permit, input, Ask::default()).await.map_err(VerbFailed::from)?;
        answer.id.ok_or_else(|| SendError(VerbFailed::Value(format!("{} is a shared handler: call it", target.name))))
    }

    /// Delivers a signal to whoever waits for it at that actor; it is kept until somebody does.
    pub async fn send_signal<I, O, T: Serialize>(&self, target: Target<I, O>, signal: Signal<T>, payload: T) -> Result<(), SignalError> {
        let actor = self.actor(target.kind, &target.key);
        let payload = json::write("the payload of a signal", &payload).map_err(value)?;
        let resource = Resource::Handler { actor: actor.clone(), handler: target.name.to_owned() };
        let permit = self.permit(Action::Signal, resource)?;
        Ok(self.engine.signal(permit, SignalTarget::Actor(actor), signal.name, payload, None).await.map_err(VerbFailed::from)?)
    }

    /// Delivers a signal to one invocation.
    pub async fn send_signal_to<T: Serialize>(&self, id: InvocationId, signal: Signal<T>, payload: T) -> Result<(), SignalError> {
        let payload = json::write("the payload of a signal", &payload).map_err(value)?;
        let permit = self.permit(Action::Signal, self.work(&id))?;
        Ok(self.engine.signal(permit, SignalTarget::Invocation(id), signal.name, payload, None).await.map_err(VerbFailed::from)?)
    }

    /// Delivers a signal to whom a token of `ctx.signal(…).token()` names: whoever has the token need know nothing else.
    pub async fn send_signal_by_token<T: Serialize>(&self, token: &str, payload: T) -> Result<(), SignalError> {
        let named = token.split_once('/').and_then(|(id, name)| Some((id.parse::<InvocationId>().ok()?, name)));
        let Some((id, name)) = named else {
            let text = format!("`{}` is no token of a signal: pass what `ctx.signal(…).token()` gave", token.chars().take(100).collect::<String>());
            return Err(SignalError(VerbFailed::Value(text)));
        };
        let payload = json::write("the payload of a signal", &payload).map_err(value)?;
        let permit = self.permit(Action::Signal, self.work(&id))?;
        Ok(self.engine.signal(permit, SignalTarget::Invocation(id), name, payload, None).await.map_err(VerbFailed::from)?)
    }

    /// Waits for the result of an invocation.
    pub async fn result<O: DeserializeOwned>(&self, id: InvocationId) -> Result<O, CallError> {
        let permit = self.permit(Action::Read, self.work(&id))?;
        let answer = self.engine.result(permit, id, true).await.map_err(VerbFailed::from)?;
        read_answer(answer)
    }

    /// Why an invocation is where it is.
    pub async fn why(&self, id: InvocationId) -> Result<Why, WhyError> {
        let permit = self.permit(Action::Read, self.work(&id))?;
        Ok(self.engine.why(permit, id).await.map_err(VerbFailed::from)?)
    }

    /// Asks an invocation to end.
    pub async fn cancel(&self, id: InvocationId) -> Result<(), CancelError> {
        let permit = self.permit(Action::Control, self.work(&id))?;
        Ok(self.engine.cancel(permit, id, "cancelled by the caller").await.map_err(VerbFailed::from)?)
    }

    /// What the engine holds in memory.
    pub async fn census(&self) -> Result<Census, VerbFailed> {
        let permit = self.permit(Action::Operate, Resource::Store)?;
        Ok(self.engine.census(permit).await?)
    }

    /// Erases what an ended invocation was given, did and said; its chain still verifies.
    pub async fn erase(&self, id: InvocationId) -> Result<(), EraseError> {
        let permit = self.permit(Action::Rewrite, self.work(&id))?;
        Ok(self.engine.erase(permit, id).await.map_err(VerbFailed::from)?)
    }

    /// The output of an invocation.
    #[must_use]
    pub fn stream(&self, id: InvocationId) -> Chunks {
        Chunks::of(self.clone(), id)
    }
}

/// A call that has not been made yet: await it.
pub struct Pending<O> {
    client: Client,
    actor: ActorId,
    handler: String,
    input: Result<Bytes, Failure>,
    ask: Ask,
    wait: Option<Duration>,
    of: PhantomData<fn() -> O>,
}

impl<O> Pending<O> {
    /// The same key, the same invocation.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.ask.idempotency_key = Some(key.into());
        self
    }

    /// Waits this long at most; the invocation goes on after that.
    #[must_use]
    pub fn wait(mut self, span: Duration) -> Self {
        self.wait = Some(span);
        self
    }

    /// Ends the invocation if it takes longer.
    #[must_use]
    pub fn timeout(mut self, span: Duration) -> Self {
        self.ask.timeout = Some(span);
        self
    }
}

impl<O: DeserializeOwned + 'static> IntoFuture for Pending<O> {
    type Output = Result<O, CallError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Pending { client, actor, handler, input, ask, wait, .. } = self;
        Box::pin(async move {
            let input = input.map_err(value)?;
            let permit = client.permit(Action::Invoke, Resource::Handler { actor, handler })?;
            let Some(wait) = wait else {
                return read_answer(client.engine.invoke(permit, input, ask).await.map_err(VerbFailed::from)?);
            };
            let accepted = client.engine.invoke(permit, input, Ask { wait: false, ..ask }).await.map_err(VerbFailed::from)?;
            let Some(id) = accepted.id.filter(|_| accepted.progress == Progress::Open) else { return read_answer(accepted) };
            let permit = client.permit(Action::Read, client.work(&id))?;
            match tokio::time::timeout(wait, client.engine.result(permit, id, true)).await {
                Ok(answer) => read_answer(answer.map_err(VerbFailed::from)?),
                Err(_) => Err(CallError::Open { id }),
            }
        })
    }
}

pub(crate) fn value(failure: Failure) -> VerbFailed {
    VerbFailed::Value(failure.message().to_owned())
}

fn read_answer<O: DeserializeOwned>(answer: Answer) -> Result<O, CallError> {
    match answer.progress {
        Progress::Ended(Ended::Value(bytes)) => json::read("the result", &bytes).map_err(|failure| CallError::Verb(value(failure))),
        Progress::Ended(Ended::Error(error)) => Err(CallError::Failed { id: answer.id, code: error.code, message: error.message }),
        Progress::Open => match answer.id {
            Some(id) => Err(CallError::Open { id }),
            None => Err(CallError::Verb(VerbFailed::Value("a shared handler gave no answer".to_owned()))),
        },
    }
}
