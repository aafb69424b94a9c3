//! What this binary can run: handlers and activities, by name. A plain value, filled by the program that starts the engine.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::egress::Allowed;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::manifest::Performer;
use selvedge_kernel::pipeline::agree::{self, Declared};
use selvedge_kernel::pipeline::definition::{Definition, Exec, Http, Worker};
use selvedge_kernel::policy::{Breaker, Retry, Throttle, Timeout};
use selvedge_kernel::record::build::Build;
use selvedge_kernel::record::invocation::Blocked;

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
    /// Who performs it.
    pub run: Performer,
    /// When it is tried again; none: as its actor type says.
    pub retry: Option<Retry>,
    /// One attempt's time.
    pub timeout: Timeout,
    /// What names the files that its command names, as they were when it was declared.
    pub build: Option<Build>,
}

/// How long work waits before `stuck` lists it, where its type does not say.
pub const EXPECTED_WITHIN: Duration = Duration::from_secs(3_600);

/// How the actors of a type are treated.
///
/// ```
/// use selvedge_engine::registry::ActorOptions;
/// let options = ActorOptions { retry: selvedge_kernel::policy::Retry::exponential(5), ..Default::default() };
/// assert_eq!(options.retry.max_attempts, 5);
/// ```
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
    /// How long an invocation waits before `selvedge stuck` lists it: an hour, unless it is expected sooner or later.
    pub expected_within: Duration,
}

impl Default for ActorOptions {
    fn default() -> ActorOptions {
        ActorOptions { retry: Retry::message(), suspend_after: Duration::from_secs(1), retention: None, timeout: None, expected_within: EXPECTED_WITHIN }
    }
}

/// One actor type.
#[derive(Clone, Default)]
pub struct ActorType {
    /// Its handlers, each in its newest version.
    pub handlers: BTreeMap<String, Handler>,
    /// Those that are registered in a version of their own, by name and version.
    pub versions: BTreeMap<(String, u32), Handler>,
    /// How its actors are treated.
    pub options: ActorOptions,
}

/// The version of a handler that is registered without one.
pub const FIRST_VERSION: u32 = 1;

impl ActorType {
    /// Registers a handler in a version; the newest one accepts messages.
    pub fn register(&mut self, name: &str, version: u32, handler: Handler) {
        if version >= self.newest(name) {
            self.handlers.insert(name.to_owned(), handler.clone());
        }
        self.versions.insert((name.to_owned(), version), handler);
    }

    /// The versions in which a handler is registered, the oldest first.
    #[must_use]
    pub fn versions_of(&self, name: &str) -> Vec<u32> {
        let own: Vec<u32> = self.versions.keys().filter(|(of, _)| of == name).map(|(_, version)| *version).collect();
        if own.is_empty() && self.handlers.contains_key(name) { vec![FIRST_VERSION] } else { own }
    }

    /// The version that accepts messages.
    #[must_use]
    pub fn newest(&self, name: &str) -> u32 {
        self.versions_of(name).last().copied().unwrap_or(FIRST_VERSION)
    }

    /// A handler in one of its versions.
    #[must_use]
    pub fn in_version(&self, name: &str, version: u32) -> Option<&Handler> {
        if self.newest(name) == version { self.handlers.get(name) } else { self.versions.get(&(name.to_owned(), version)) }
    }
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
    /// When its attempts stop for a while, whoever calls it.
    pub breaker: Option<Breaker>,
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
    /// Workers of other processes.
    Worker(Worker),
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

    /// The programs that activities and handlers run in, by activity, in its order.
    pub fn programs(&self) -> BTreeMap<String, Exec> {
        let activities = self.activities.iter().filter_map(|(name, activity)| match &activity.run {
            Executor::Exec(exec) => Some((name.clone(), exec.clone())),
            Executor::Native(_) | Executor::Http(_) | Executor::Worker(_) => None,
        });
        let handlers = self.actors.values().flat_map(|actor| actor.handlers.values()).filter_map(|handler| match handler {
            Handler::Transition(Transition { activity, run: Performer::Exec(exec), .. }) => Some((activity.clone(), exec.clone())),
            Handler::Transition(_) | Handler::Exclusive(_) | Handler::Shared(_) => None,
        });
        activities.chain(handlers).collect()
    }

    /// What its activities share with those of other pipelines that name them, by who says it.
    pub fn declared(&self) -> Vec<Declared> {
        let activities = self.activities.iter().flat_map(|(name, activity)| {
            let http = match &activity.run {
                Executor::Http(http) => Some(http),
                Executor::Native(_) | Executor::Exec(_) | Executor::Worker(_) => None,
            };
            agree::of_activity(name, activity.throttle.as_ref(), activity.breaker.as_ref(), http, "the activities of this program")
        });
        let mut found: Vec<Declared> = activities.chain(self.pipelines.values().flat_map(agree::of_definition)).collect();
        found.sort_by(|a, b| (&a.activity, a.field, &a.by).cmp(&(&b.activity, b.field, &b.by)));
        found
    }

    /// When a message to a handler is tried again.
    #[must_use]
    pub fn retry_of(&self, kind: &str, handler: &str) -> Retry {
        let own = match self.handler(kind, handler) {
            Some(Handler::Transition(transition)) => transition.retry.clone(),
            Some(Handler::Exclusive(_) | Handler::Shared(_)) | None => None,
        };
        own.or_else(|| self.actors.get(kind).map(|actor| actor.options.retry.clone())).unwrap_or_else(Retry::message)
    }

    /// The handler of an invocation: in the version that accepted it, or the one for edits, which every actor has.
    pub fn pinned(&self, kind: &str, handler: &str, version: u32) -> Result<Handler, Blocked> {
        if handler == crate::edit::EDIT {
            return Ok(crate::edit::handler());
        }
        let has = self.actors.get(kind).map(|actor| actor.versions_of(handler)).unwrap_or_default();
        let named = format!("{kind}.{handler}");
        match self.actors.get(kind).and_then(|actor| actor.in_version(handler, version)) {
            Some(found) => Ok(found.clone()),
            None if has.is_empty() => Err(Blocked::Missing { handler: named }),
            None => Err(Blocked::Version { handler: named, needs: version, has }),
        }
    }
}
