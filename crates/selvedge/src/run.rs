//! Runs of pipelines, from outside.

use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::pin::Pin;

use bytes::Bytes;
use selvedge_engine::{RunControl, RunStart};
use selvedge_kernel::auth::{Action, Resource};
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::RunId;
use selvedge_kernel::machine::RunState;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use selvedge_engine::{Again, Retry, RunEvent, RunStatus, RunSummary, StageStatus, Undoes};

use crate::client::{Client, VerbFailed};
use crate::json;
use crate::name::Signal;

/// Why a run was not started.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartError(#[from] pub VerbFailed);

/// Why a run was not looked at.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StatusError(#[from] pub VerbFailed);

/// Why a run was not cancelled, paused, resumed or retried.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ControlError(#[from] pub VerbFailed);

/// Why an approval was not answered.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DecideError(#[from] pub VerbFailed);

/// Why a run gave no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It failed.
    #[error("{id} failed: {code}: {message}")]
    Failed {
        /// Which run.
        id: RunId,
        /// The code of what failed.
        code: String,
        /// In words, with the stage.
        message: String,
    },
    /// It was told to end.
    #[error("{id} was cancelled")]
    Cancelled {
        /// Which run.
        id: RunId,
    },
    /// It could not be asked.
    #[error(transparent)]
    Verb(#[from] VerbFailed),
}

impl Client {
    /// Starts a run of a pipeline: of the newest version that is stored under this name, else of the one that is registered.
    /// Await it for the run. It is durable then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use selvedge::{Activity, App, pipeline};
    /// const TWICE: Activity<u64, u64> = Activity::new("twice");
    /// let (sums, _) = pipeline("sums.yaml", r#"
    /// selvedge: 1
    /// name: sums
    /// input: { numbers: { type: array } }
    /// stages:
    ///   - { name: doubled, mode: scatter, over: input.numbers, call: twice }
    /// output: "${stages.doubled.output}"
    /// "#).map_err(|wrong| format!("{wrong:?}"))?;
    /// let app = App::new().activity(TWICE, async |_, n: u64| Ok(2 * n)).pipeline(sums);
    /// let engine = selvedge::test::Engine::new(app).await?;
    /// let run = engine.local().start("sums", serde_json::json!({ "numbers": [1, 2, 3] })).await?;
    /// assert_eq!(run.result::<Vec<u64>>().await?, [2, 4, 6]);
    /// # Ok(()) }
    /// ```
    pub fn start<I: Serialize>(&self, pipeline: &str, input: I) -> Starting {
        let input = json::write("the input of a pipeline", &input).map_err(|failure| VerbFailed::Value(failure.message().to_owned()));
        Starting { client: self.clone(), pipeline: pipeline.to_owned(), input, key: None }
    }

    /// The runs of this tenant, the newest first, a page at most.
    pub async fn runs(&self) -> Result<Vec<RunSummary>, StatusError> {
        let permit = self.permit(Action::Read, Resource::Pipeline { tenant: self.tenant().to_owned(), name: String::new() })?;
        Ok(self.engine.list_runs(permit).await.map_err(VerbFailed::from)?)
    }

    /// A run by its id.
    #[must_use]
    pub fn run(&self, id: RunId) -> Run {
        Run { client: self.clone(), id }
    }
}

/// A run that has not been started yet: await it.
pub struct Starting {
    client: Client,
    pipeline: String,
    input: Result<Bytes, VerbFailed>,
    key: Option<String>,
}

impl Starting {
    /// The same key, the same run.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Starting {
        self.key = Some(key.into());
        self
    }
}

impl IntoFuture for Starting {
    type Output = Result<Run, StartError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Starting { client, pipeline, input, key } = self;
            let input = input?;
            let permit = client.permit(Action::Start, Resource::Pipeline { tenant: client.tenant().to_owned(), name: pipeline })?;
            let id = client.engine.start_named(permit, input, RunStart { key, trace: None }).await.map_err(VerbFailed::from)?;
            Ok(Run { client, id })
        })
    }
}

/// One run.
#[derive(Clone)]
pub struct Run {
    client: Client,
    id: RunId,
}

impl Run {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.id
    }

    fn permit(&self, action: Action) -> Result<selvedge_kernel::auth::Permit, VerbFailed> {
        self.client.permit(action, self.client.work(&self.id))
    }

    /// Where it is, stage by stage, and what it waits for.
    pub async fn status(&self) -> Result<RunStatus, StatusError> {
        let permit = self.permit(Action::Read)?;
        Ok(self.client.engine.run_status(permit, self.id).await.map_err(VerbFailed::from)?)
    }

    /// Waits for its end, and gives its output.
    pub async fn result<O: DeserializeOwned>(&self) -> Result<O, RunError> {
        let permit = self.permit(Action::Read)?;
        let end = self.client.engine.run_wait(permit, self.id).await.map_err(VerbFailed::from)?;
        if end.state == RunState::Cancelled {
            return Err(RunError::Cancelled { id: self.id });
        }
        if let Some(WorkError { code, message }) = end.error {
            return Err(RunError::Failed { id: self.id, code, message });
        }
        let output = end.output.unwrap_or_else(|| Bytes::from_static(b"null"));
        json::read("the output of a run", &output).map_err(|failure| RunError::Verb(VerbFailed::Value(failure.message().to_owned())))
    }

    /// What it does, commit by commit, from the first one on.
    #[must_use]
    pub fn follow(&self) -> Events {
        Events { run: self.clone(), next: 0, ready: VecDeque::new() }
    }

    async fn control(&self, control: RunControl) -> Result<(), ControlError> {
        let permit = self.permit(Action::Control)?;
        Ok(self.client.engine.run_control(permit, self.id, control).await.map_err(VerbFailed::from)?)
    }

    /// Ends it as cancelled; what runs is aborted.
    pub async fn cancel(&self) -> Result<(), ControlError> {
        self.control(RunControl::Cancel { reason: String::new() }).await
    }

    /// Starts nothing new of it, and lets end what runs.
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.control(RunControl::Pause).await
    }

    /// Goes on after a pause.
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.control(RunControl::Resume).await
    }

    /// Runs again what failed or was cancelled; what finished stays.
    pub async fn retry(&self) -> Result<(), ControlError> {
        self.control(RunControl::RetryFailed).await
    }

    /// Runs more of it again: from a stage on, or what `on_failure: continue` has passed over.
    ///
    /// ```no_run
    /// # async fn example(run: selvedge::run::Run) -> Result<(), selvedge::run::ControlError> {
    /// use selvedge::run::{Again, Retry};
    /// run.retry_with(Retry { from: Some("classify".to_owned()), tasks: Again::Failed }).await
    /// # }
    /// ```
    pub async fn retry_with(&self, retry: Retry) -> Result<(), ControlError> {
        self.control(RunControl::Retry(retry)).await
    }

    /// Answers the approval that a stage asks for, as somebody.
    pub async fn decide(&self, stage: &str, approve: bool, by: &str, comment: Option<&str>) -> Result<(), DecideError> {
        let permit = self.permit(Action::Signal)?;
        let comment = comment.map(str::to_owned);
        Ok(self.client.engine.run_decide(permit, self.id, stage, approve, by, comment).await.map_err(VerbFailed::from)?)
    }

    /// Delivers a signal; it is kept until a stage waits for it.
    pub async fn signal<T: Serialize>(&self, signal: Signal<T>, payload: T) -> Result<(), crate::SignalError> {
        let payload = json::write("the payload of a signal", &payload).map_err(|failure| VerbFailed::Value(failure.message().to_owned()))?;
        let permit = self.permit(Action::Signal)?;
        Ok(self.client.engine.run_signal(permit, self.id, signal.name, payload, None).await.map_err(VerbFailed::from)?)
    }
}

/// What a run does, commit by commit; a reader resumes by number.
pub struct Events {
    run: Run,
    next: u64,
    ready: VecDeque<(u64, RunEvent)>,
}

impl Events {
    /// The next event with its number, waited for; none once the run has ended.
    pub async fn next(&mut self) -> Result<Option<(u64, RunEvent)>, StatusError> {
        if self.ready.is_empty() {
            let permit = self.run.permit(Action::Read)?;
            let events = self.run.client.engine.run_events(permit, self.run.id, self.next, true).await.map_err(VerbFailed::from)?;
            self.ready = events.into();
        }
        let Some((number, event)) = self.ready.pop_front() else { return Ok(None) };
        self.next = number + 1;
        Ok(Some((number, event)))
    }

    /// Goes on behind a number.
    #[must_use]
    pub fn after(mut self, number: u64) -> Events {
        self.next = number + 1;
        self.ready.clear();
        self
    }
}
