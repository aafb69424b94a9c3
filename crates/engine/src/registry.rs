//! What this binary can run: handlers and activities, by name. A plain value, filled by the program that starts the engine.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::egress::Allowed;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::pipeline::definition::{Definition, Exec, Http};
use selvedge_kernel::policy::{Retry, Throttle, Timeout};

use crate::ctx::{Attempt, Ctx};
use crate::view::View;

/// A future that stays on its worker thread.
pub type LocalFuture<'c, T> = Pin<Box<dyn Future<Output = T> + 'c>>;
/// How a handler or an attempt ends.
pub type Ended = Result<Bytes, AttemptError>;
/// An exclusive handler.
pub type RunHandler = Arc<dyn Fn(Ctx, Bytes) -> LocalFuture<'static, Ended> + Send + Sync>;
/// A shared handler.
pub type RunShared = Arc<dyn Fn(View, Bytes) -> LocalFuture<'static, Ended> + Send + Sync>;
/// An activity in this process.
pub type RunActivity = Arc<dyn Fn(Attempt, Bytes) -> LocalFuture<'static, Ended> + Send + Sync>;

/// One handler.
#[derive(Clone)]
pub enum Handler {
    /// One at a time, replayed, may write state.
    Exclusive(RunHandler),
    /// Concurrent, reads only.
    Shared(RunShared),
    /// State and message go in, state and messages come out, in one commit.
    Transition(Transition),
}

/// A transition handler: an activity that is given the actor.
#[derive(Clone, Debug)]
pub struct Transition {
    /// What the executor calls it: `type.handler`.
    pub activity: String,
    /// Where it runs.
    pub exec: Exec,
    /// When it is tried again; none: as its actor type says.
    pub retry: Option<Retry>,
    /// One attempt's time.
    pub timeout: Timeout,
}

/// How actors of a type are treated.
#[derive(Clone, Debug)]
pub struct ActorOptions {
    /// When a failed handler is tried again.
    pub retry: Retry,
    /// After how long a waiting handler leaves memory.
    pub suspend_after: Duration,
    /// How long finished work is kept, if not as long as the settings say.
    pub retention: Option<Duration>,
    /// How long an invocation may take, from its acceptance to its end: its deadline.
    pub timeout: Option<Duration>,
}

impl Default for ActorOptions {
    fn default() -> ActorOptions {
        ActorOptions { retry: Retry::message(), suspend_after: Duration::from_secs(1), retention: None, timeout: None }
    }
}

/// One actor type.
#[derive(Clone, Default)]
pub struct ActorType {
    /// Its handlers.
    pub handlers: BTreeMap<String, Handler>,
    /// How its actors are treated.
    pub options: ActorOptions,
}

/// One activity.
#[derive(Clone)]
pub struct Activity {
    /// Where it runs.
    pub run: Executor,
    /// When to try again.
    pub retry: Retry,
    /// How long it may take.
    pub timeout: Timeout,
    /// Of all its tasks in runs.
    pub throttle: Option<Throttle>,
}

/// Where an activity runs.
#[derive(Clone)]
pub enum Executor {
    /// A function of this process.
    Native(RunActivity),
    /// A program.
    Exec(Exec),
    /// A request.
    Http(Http),
}

/// All that this binary can run.
#[derive(Clone, Default)]
pub struct Registry {
    /// Actor types.
    pub actors: HashMap<String, ActorType>,
    /// Activities.
    pub activities: HashMap<String, Activity>,
    /// Pipelines.
    pub pipelines: HashMap<String, Definition>,
    /// What requests may reach.
    pub egress: Vec<Allowed>,
}

impl Registry {
    /// The handler of a type, if both are registered.
    #[must_use]
    pub fn handler(&self, kind: &str, handler: &str) -> Option<&Handler> {
        self.actors.get(kind).and_then(|actor| actor.handlers.get(handler))
    }
}
