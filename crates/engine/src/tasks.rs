//! Work that runs outside a handler: activities and blocking steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::egress::Allowed;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{InvocationId, RunId};
use selvedge_kernel::pipeline::definition::{Exec, Http, Worker};
use selvedge_kernel::time::Millis;

use crate::core::BlockingFn;
use crate::ctx::Attempt;
use crate::exec::{ExecPoint, ExecPool, ExecSpec, ExecTask, Points, Reason, Shim, Shut, Standing};
use crate::registry::Executor;
use crate::shard::Gate;
use crate::wiring::Wiring;
use crate::work::{Offering, Told};
use crate::worker::{Event, Mailbox};

/// Whose a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Operation { invocation: InvocationId, number: u32 },
    Run { run: RunId, stage: u16, item: u32 },
}

/// What a task does.
pub(crate) enum Work {
    Blocking(BlockingFn),
    /// An activity by its registered name.
    Activity(Bytes),
    /// A program, whatever is registered.
    Exec(Exec, Bytes),
    /// A request, and what it may reach besides what the registry says.
    Http(Http, Vec<Allowed>, Bytes),
    /// A task that a worker of another process takes.
    Worker(Worker, Bytes),
}

/// One attempt of a task.
pub(crate) struct Job {
    pub owner: Owner,
    pub tenant: String,
    pub attempt: u32,
    pub key: String,
    pub deadline: Option<Millis>,
    /// How long it may take from when somebody takes it, where it waits for that.
    pub time: Option<Duration>,
    pub name: String,
    pub work: Work,
    pub handing: Handing,
    /// Who asked for it, where it may lie for long until a worker takes it: they may have been revoked meanwhile.
    pub asker: Option<AuthorizationContext>,
    /// The trace that it is a part of, as W3C writes it.
    pub trace: Option<String>,
}

/// When a program gets its task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handing {
    /// As soon as it can take it.
    AtOnce,
    /// Then, and once it is written that this invocation ran again after an unclean end.
    Counted,
}

/// A task of this process.
pub(crate) struct Running {
    pub attempt: u32,
    pub since: Millis,
    /// Not started yet: what it rests on is not durable, or it stands aside.
    pub job: Option<Job>,
    /// What it stands aside for.
    pub gate: Option<Gate>,
    pub abort: Option<Abort>,
    pub progress: Option<Bytes>,
    /// The wake-up at the end of its time: it outlives the memory of whoever waits.
    pub alarm: Option<(Millis, u64)>,
}

/// Ends a task when it is dropped.
pub(crate) struct Abort(Option<tokio::task::AbortHandle>);

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.abort();
        }
    }
}

/// What programs run with.
#[derive(Clone, Debug, Default)]
pub struct ExecSettings {
    /// The part of our own environment that they may see.
    pub environment: BTreeMap<String, String>,
    /// Where input files go.
    pub scratch: PathBuf,
    /// What keeps them from outliving us.
    pub shim: Option<Shim>,
    /// Where their log lines go.
    pub log: Option<LogLine>,
    /// What requests are made with.
    pub http: crate::http::HttpSettings,
}

/// Takes a log line of a task: the activity, and the line.
#[derive(Clone)]
pub struct LogLine(pub TakeLine);

/// Takes the activity, and the line.
pub type TakeLine = Arc<dyn Fn(&str, &str) + Send + Sync>;

impl std::fmt::Debug for LogLine {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("LogLine")
    }
}

/// The programs of one engine, one pool for each way of running one.
pub(crate) struct Executors {
    settings: ExecSettings,
    points: Points,
    pools: Mutex<BTreeMap<String, ExecPool>>,
    /// Which activities each program must serve.
    served: BTreeMap<String, Vec<String>>,
    #[cfg(feature = "http-executor")]
    http: crate::http::Client,
}

impl Executors {
    pub(crate) fn new(settings: ExecSettings, points: Points, declared: impl Iterator<Item = (String, Exec)>) -> Executors {
        let mut served: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (activity, exec) in declared {
            served.entry(identity(&exec)).or_default().push(activity);
        }
        #[cfg(feature = "http-executor")]
        let http = crate::http::Client::new(settings.http.clone(), settings.environment.clone());
        Executors {
            #[cfg(feature = "http-executor")]
            http,
            settings,
            points,
            pools: Mutex::new(BTreeMap::new()),
            served,
        }
    }

    fn pool(&self, exec: &Exec, activity: &str, runtime: &tokio::runtime::Handle) -> Result<ExecPool, AttemptError> {
        let name = identity(exec);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(&name) {
            return Ok(pool.clone());
        }
        let activities = self.served.get(&name).cloned().unwrap_or_else(|| vec![activity.to_owned()]);
        let mut spec = ExecSpec::new(exec, activities, &self.settings.environment, self.settings.scratch.clone());
        if let Some(shim) = &self.settings.shim {
            spec = spec.with_shim(shim.clone());
        }
        let pool = ExecPool::open(spec, runtime.clone(), self.points.clone()).map_err(|error| AttemptError {
            error: WorkError::new("exec_start", format!("`{}` cannot be started: {error}", exec.command.join(" "))),
            retryable: true,
            retry_after_ms: None,
        })?;
        pools.insert(name, pool.clone());
        Ok(pool)
    }

    /// Whether programs that are started now can get at the data directory.
    pub(crate) fn standing(&self) -> Standing {
        self.settings.shim.as_ref().and_then(|shim| shim.shut.as_ref()).map_or(Standing::Open(Reason::NoShim), Shut::standing)
    }

    pub(crate) async fn close(&self) {
        let pools = std::mem::take(&mut *self.pools.lock().unwrap_or_else(PoisonError::into_inner));
        for pool in pools.values() {
            pool.close().await;
        }
    }
}

fn identity(exec: &Exec) -> String {
    serde_json::to_string(exec).unwrap_or_else(|_| exec.command.join(" "))
}

/// Starts an attempt. Its end comes back as an event.
pub(crate) fn start(wiring: &Arc<Wiring>, mailbox: Mailbox, job: Job) -> Abort {
    if wiring.settings.tasks == crate::wiring::Tasks::Leave {
        return Abort(None);
    }
    let progress: Arc<dyn Fn(Bytes) + Send + Sync> = match job.owner {
        Owner::Operation { invocation, number } => mailbox.heartbeat(invocation, number),
        Owner::Run { .. } => Arc::new(|_| {}),
    };
    let (owner, attempt) = (job.owner, job.attempt);
    let ready = ready(mailbox.clone(), job.handing, owner, attempt);
    let told = move |result, told| {
        let event = match owner {
            Owner::Operation { invocation, number } => Event::TaskDone { invocation, number, attempt, result, told },
            Owner::Run { run, stage, item } => Event::RunTaskDone { run, stage, item, attempt, result, told },
        };
        mailbox.send(event);
    };
    let done = {
        let told = told.clone();
        move |result| told(result, None)
    };
    wiring.env.observe(&crate::env::Observation::AttemptStarted { name: &job.name, key: &job.key, attempt });
    let within = job.trace.as_deref().and_then(|trace| crate::trace::within(trace, &job.key));
    let facts = Attempt::new(&job.key, attempt, job.deadline, progress.clone());
    let (exec, input) = match job.work {
        Work::Blocking(work) => {
            let handle = wiring.side.spawn_blocking(move || {
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(facts)));
                done(result.unwrap_or_else(|panic| Err(crate::ctx::panicked(&*panic))));
            });
            // It cannot be aborted: one that was given up runs to its end, unread.
            drop(handle);
            return Abort(None);
        }
        Work::Activity(input) => match wiring.registry.activities.get(&job.name).map(|activity| activity.run.clone()) {
            None => {
                done(Err(missing(&job.name)));
                return Abort(None);
            }
            Some(Executor::Native(run)) => {
                #[expect(clippy::disallowed_methods, reason = "a native activity is a task of its own on its worker's thread, and is aborted with its handle")]
                let handle = tokio::task::spawn_local(async move {
                    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(facts, input)));
                    let result = match made {
                        Ok(future) => Guarded(future).await,
                        Err(panic) => Err(crate::ctx::panicked(&*panic)),
                    };
                    done(result);
                });
                return Abort(Some(handle.abort_handle()));
            }
            Some(Executor::Exec(exec)) => (exec, input),
            Some(Executor::Http(http)) => return call(wiring, http, Vec::new(), input, (job.key, job.trace), done),
            Some(Executor::Worker(worker)) => {
                let task = ExecTask { activity: job.name, attempt, key: job.key, deadline_ms: None, trace: within, input };
                return offer(wiring, Offering { owner, tenant: job.tenant, task, asker: job.asker, lease: worker.lease.0, time: job.time, progress }, told);
            }
        },
        Work::Exec(exec, input) => (exec, input),
        Work::Http(http, egress, input) => return call(wiring, http, egress, input, (job.key, job.trace), done),
        Work::Worker(worker, input) => {
            let task = ExecTask { activity: job.name, attempt, key: job.key, deadline_ms: None, trace: within, input };
            return offer(wiring, Offering { owner, tenant: job.tenant, task, asker: job.asker, lease: worker.lease.0, time: job.time, progress }, told);
        }
    };
    let wiring = wiring.clone();
    let runtime = wiring.side.clone();
    let name = job.name;
    let task = ExecTask {
        activity: name.clone(),
        attempt,
        key: job.key,
        deadline_ms: job.deadline.map(|deadline| u64::try_from(deadline.since(wiring.env.clock.now()).as_millis()).unwrap_or(u64::MAX)),
        trace: within,
        input,
    };
    let handle = wiring.side.clone().spawn(async move {
        let result = match wiring.executors.pool(&exec, &name, &runtime) {
            Ok(pool) => {
                let log = wiring.executors.settings.log.clone();
                pool.run_when(
                    task,
                    ready,
                    move |beat| progress(beat),
                    move |line| {
                        if let Some(log) = &log {
                            (log.0)(&name, &line);
                        }
                    },
                )
                .await
            }
            Err(error) => Err(error),
        };
        done(result);
        wiring.executors.points.pass(ExecPoint::Reported);
    });
    Abort(Some(handle.abort_handle()))
}

/// Waits until a program may have its task; false if it may not.
async fn ready(mailbox: Mailbox, handing: Handing, owner: Owner, attempt: u32) -> bool {
    let (Handing::Counted, Owner::Operation { invocation, number }) = (handing, owner) else { return true };
    let (go, gone) = tokio::sync::oneshot::channel();
    mailbox.send(Event::HandOver { invocation, number, attempt, go });
    gone.await.is_ok()
}

/// Offers an attempt to workers, and hands its end on.
fn offer(wiring: &Arc<Wiring>, offering: Offering, told: impl FnOnce(Result<Bytes, AttemptError>, Option<Told>) + Send + 'static) -> Abort {
    let offers = wiring.offers.clone();
    let handle = wiring.side.spawn(async move {
        let (result, writes) = offers.run(offering).await;
        told(result, writes);
    });
    Abort(Some(handle.abort_handle()))
}

/// Makes a request, and hands its end on.
#[cfg(feature = "http-executor")]
fn call(
    wiring: &Arc<Wiring>,
    http: Http,
    mut egress: Vec<Allowed>,
    input: Bytes,
    (key, trace): (String, Option<String>),
    done: impl FnOnce(Result<Bytes, AttemptError>) + Send + 'static,
) -> Abort {
    egress.extend(wiring.registry.egress.iter().cloned());
    let shared = wiring.clone();
    let handle = wiring.side.spawn(async move {
        let result = shared.executors.http.run(&http, &egress, &key, trace.as_deref(), &input, || shared.env.clock.now()).await;
        done(result);
    });
    Abort(Some(handle.abort_handle()))
}

/// Says that this build makes no requests.
#[cfg(not(feature = "http-executor"))]
fn call(
    _: &Arc<Wiring>,
    http: Http,
    _: Vec<Allowed>,
    _: Bytes,
    _: (String, Option<String>),
    done: impl FnOnce(Result<Bytes, AttemptError>) + Send + 'static,
) -> Abort {
    done(Err(AttemptError {
        error: WorkError::new(
            "no_executor",
            format!("this program was built without the feature `http-executor`, and cannot call {}: build it with it", http.url),
        ),
        retryable: true,
        retry_after_ms: None,
    }));
    Abort(None)
}

fn missing(name: &str) -> AttemptError {
    AttemptError {
        error: WorkError::new("no_executor", format!("nothing here can run the activity `{name}`: register it, or declare it in app.yaml")),
        retryable: true,
        retry_after_ms: None,
    }
}

/// A future whose panics are errors.
struct Guarded<'c>(crate::registry::LocalFuture<'c, crate::registry::Ended>);

impl Future for Guarded<'_> {
    type Output = crate::registry::Ended;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(polled) => polled,
            Err(panic) => std::task::Poll::Ready(Err(crate::ctx::panicked(&*panic))),
        }
    }
}
