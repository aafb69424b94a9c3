//! What a program can run: its handlers and activities, registered by value.

use std::sync::Arc;

use selvedge_engine::registry::{self, ActorOptions, ActorType, Executor, Registry};
use selvedge_kernel::pipeline::agree::{self, Declared, of_definition};
use selvedge_kernel::pipeline::definition::Definition;
use selvedge_kernel::policy::{Retry, Timeout};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ctx::{Attempt, Ctx};
use crate::failure::{Outcome, to_attempt};
use crate::json;
use crate::name::{Activity, Handler, SharedHandler};
use crate::state::View;

/// A program: handlers and activities. A plain value, filled by hand.
///
/// ```
/// use selvedge::{App, Ctx, Handler, Outcome};
/// const ADD: Handler<u64, u64> = Handler::new("counter", "add");
/// async fn add(ctx: Ctx, by: u64) -> Outcome<u64> {
///     let count = ctx.state().get::<u64>("count").await?.unwrap_or(0) + by;
///     ctx.state().set("count", &count)?;
///     Ok(count)
/// }
/// let app = App::new().handler(ADD, add);
/// # let _ = app;
/// ```
#[derive(Clone, Default)]
pub struct App {
    pub(crate) registry: Registry,
    /// What its activities and pipelines share, and where it was said.
    pub(crate) declared: Vec<Declared>,
    /// Pipelines that its manifests name.
    pub(crate) pipelines: Vec<std::path::PathBuf>,
}

impl App {
    /// A program with nothing in it.
    #[must_use]
    pub fn new() -> App {
        App::default()
    }

    fn actor_type(&mut self, kind: &str) -> &mut ActorType {
        self.registry.actors.entry(kind.to_owned()).or_default()
    }

    /// Registers an exclusive handler, in its version.
    #[must_use]
    pub fn handler<I, O, F>(mut self, handler: Handler<I, O>, run: F) -> App
    where
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: AsyncFn(Ctx, I) -> Outcome<O> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        let erased: registry::RunHandler = Arc::new(move |ctx, input| {
            let run = run.clone();
            Box::pin(async move {
                let input = json::read("the input", &input).map_err(to_attempt)?;
                let output = run(Ctx::new(ctx), input).await.map_err(to_attempt)?;
                json::write("the result", &output).map_err(to_attempt)
            })
        });
        self.actor_type(handler.kind).register(handler.name, handler.version, registry::Handler::Exclusive(erased));
        self
    }

    /// Registers a shared handler.
    #[must_use]
    pub fn shared<I, O, F>(mut self, handler: SharedHandler<I, O>, run: F) -> App
    where
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: AsyncFn(View, I) -> Outcome<O> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        let erased: registry::RunShared = Arc::new(move |view, input| {
            let run = run.clone();
            Box::pin(async move {
                let input = json::read("the input", &input).map_err(to_attempt)?;
                let output = run(View::new(view), input).await.map_err(to_attempt)?;
                json::write("the result", &output).map_err(to_attempt)
            })
        });
        self.actor_type(handler.kind).handlers.insert(handler.name.to_owned(), registry::Handler::Shared(erased));
        self
    }

    /// Registers an activity that runs in this process.
    #[must_use]
    pub fn activity<I, O, F>(mut self, activity: Activity<I, O>, run: F) -> App
    where
        I: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: AsyncFn(Attempt, I) -> Outcome<O> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        let erased: registry::RunActivity = Arc::new(move |attempt, input| {
            let run = run.clone();
            Box::pin(async move {
                let input = json::read("the input", &input).map_err(to_attempt)?;
                let output = run(attempt, input).await.map_err(to_attempt)?;
                json::write("the result", &output).map_err(to_attempt)
            })
        });
        let activity_value =
            registry::Activity { run: Executor::Native(erased), retry: Retry::default(), timeout: Timeout::default(), throttle: None, breaker: None };
        self.registry.activities.insert(activity.name.to_owned(), activity_value);
        self
    }

    /// Registers a pipeline under its name. One that is stored under the same name goes before it.
    #[must_use]
    pub fn pipeline(mut self, definition: Definition) -> App {
        self.declare(&definition.name, of_definition(&definition));
        self.registry.pipelines.insert(definition.name.clone(), definition);
        self
    }

    /// Takes note of what a pipeline shares, in place of what one of its name shared before.
    pub(crate) fn declare(&mut self, name: &str, declared: Vec<Declared>) {
        let by = agree::pipeline(name);
        self.declared.retain(|known| known.by != by);
        self.declared.extend(declared);
    }

    /// Says how the actors of a type are treated.
    #[must_use]
    pub fn actor(mut self, kind: &str, options: ActorOptions) -> App {
        self.actor_type(kind).options = options;
        self
    }
}
