//! The engine from outside: its verbs. Each consumes a permit.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, AuthorizationContext, Denied, Permit, Resource};
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{ActorId, InvocationId, RawId, ShardId};
use selvedge_kernel::limit::Limits;
use selvedge_kernel::ports::Store;
use selvedge_kernel::pressure::{self, Admission};
use selvedge_kernel::record::message::Message;
use tokio::sync::oneshot;

use crate::door::{check_attempts, check_body, check_delay, check_part, check_shared, check_signal, expect_action, misused};
use crate::env::{Entropy, Environment};
use crate::exec::Points;
use crate::in_flight::InFlight;
use crate::registry::{Handler, Registry};
use crate::shard::{Answer, Command, Progress, Reply, SignalTarget, VerbError};
use crate::tasks::Executors;
pub use crate::tasks::{ExecSettings, LogLine};
use crate::why::{Census, Why};
use crate::wiring::{Settings, Wiring};
use crate::worker::{self, Event, Mailbox};

/// How many shards a store has, unless it was made with another count.
pub const SHARDS: u16 = 64;

/// A running engine: threads that own the shards of one store.
pub struct Engine {
    pub(crate) wiring: Arc<Wiring>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    side: Mutex<Option<tokio::runtime::Runtime>>,
    entropy: Mutex<Entropy>,
}

/// A worker that its caller polls.
pub type WorkerFuture = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// What an invocation is asked with.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// The sender's key: the same key, the same invocation.
    pub idempotency_key: Option<String>,
    /// How long the invocation may take in all.
    pub timeout: Option<Duration>,
    /// W3C trace context.
    pub trace: Option<String>,
    /// Handled later.
    pub delay: Option<Duration>,
    /// Whether to wait for its end.
    pub wait: bool,
}

/// Above so many bytes of input a call is accepted by a commit of its own: one that waits counts with its input until then.
const CALL_BYTES: usize = 4 * 1_024;

/// A call that is on its way.
pub struct Called<'a> {
    engine: &'a Engine,
    shard: ShardId,
    id: InvocationId,
    /// What was answered when it was accepted, where it was accepted apart.
    accepted: Option<Answer>,
    ended: std::pin::Pin<Box<dyn Future<Output = Result<Answer, VerbError>> + Send + 'a>>,
}

impl Called<'_> {
    /// Its end. Nothing is lost where this is given up and asked for again; once it has come it is not.
    pub async fn ended(&mut self) -> Result<Answer, VerbError> {
        self.ended.as_mut().await
    }

    /// Nobody waits for its end any more: what has not ended has been accepted when this returns, and goes on.
    pub async fn given_up(self) -> Result<Answer, VerbError> {
        if let Some(accepted) = self.accepted {
            return Ok(accepted);
        }
        let (id, held) = (self.id, InFlight::again(&self.engine.wiring));
        match self.engine.ask_holding(self.shard, held, |reply| Command::Result { id, wait: false, reply }).await {
            // It was refused: how, is what the call was answered.
            Err(error) if error.code == "unknown_invocation" => self.ended.await,
            known => known,
        }
    }
}

impl Engine {
    /// Starts an engine on a store: claims every shard, then goes on where the last owner stopped.
    pub async fn open(store: Arc<dyn Store>, env: Environment, registry: Registry, settings: Settings, exec: ExecSettings) -> Result<Engine, VerbError> {
        check_attempts(&registry, &settings.limits)?;
        check_shared(&registry)?;
        let side = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("selvedge-side")
            .enable_all()
            .build()
            .map_err(|error| not_started("the runtime for tasks", &error))?;
        let (wiring, receivers) = wire(store, env.clone(), registry, settings, exec, side.handle().clone());
        let mut threads = Vec::with_capacity(receivers.len());
        let mut opened = Vec::with_capacity(receivers.len());
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (sender, answer) = oneshot::channel();
            let shared = wiring.clone();
            #[expect(clippy::disallowed_methods, reason = "the engine's worker threads start here and nowhere else")]
            let thread = std::thread::Builder::new().name(format!("selvedge-{index}")).spawn(move || {
                let _guard = Alarm { wiring: shared.clone(), index };
                match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => {
                        let local = tokio::task::LocalSet::new();
                        local.block_on(&runtime, worker::run(shared, index, receiver, sender));
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error.to_string()));
                    }
                }
            });
            opened.push(answer);
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    give_up(&wiring, threads, side).await;
                    return Err(not_started("a worker thread", &error));
                }
            }
        }
        for answer in opened {
            let reason = match answer.await {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "a worker ended while it opened its shards".to_owned(),
            };
            give_up(&wiring, threads, side).await;
            return Err(VerbError::new(Consequence::Stop, "start", reason));
        }
        Ok(Engine { wiring, threads: Mutex::new(threads), side: Mutex::new(Some(side)), entropy: Mutex::new(Entropy::new(env.random)) })
    }

    /// An engine without threads: its workers are futures that the caller polls, all on one thread and inside a
    /// `LocalSet`, in whatever order it likes. Simulations and deterministic tests run on this; `side` runs blocking
    /// steps and programs.
    pub fn by_hand(
        store: Arc<dyn Store>,
        env: Environment,
        registry: Registry,
        settings: Settings,
        exec: ExecSettings,
        side: tokio::runtime::Handle,
    ) -> (Engine, Vec<WorkerFuture>) {
        let (wiring, receivers) = wire(store, env.clone(), registry, settings, exec, side);
        let workers = receivers.into_iter().enumerate().map(|(index, receiver)| -> WorkerFuture {
            let (opened, failed) = oneshot::channel();
            let shared = wiring.clone();
            Box::pin(async move {
                let ended = worker::run(shared.clone(), index, receiver, opened);
                ended.await;
                if let Ok(Err(reason)) = failed.await {
                    shared.stop(reason);
                }
            })
        });
        let workers = workers.collect();
        (Engine { wiring, threads: Mutex::new(Vec::new()), side: Mutex::new(None), entropy: Mutex::new(Entropy::new(env.random)) }, workers)
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.wiring.settings.limits
    }

    /// The bytes that each tenant keeps, the most first: see [`selvedge_kernel::record::kept`].
    pub fn kept_bytes(&self, permit: &Permit) -> Result<Vec<(String, u64)>, VerbError> {
        expect_action(permit, Action::Operate)?;
        Ok(self.wiring.sums.kept())
    }

    /// Whether programs that are started now can get at the data directory.
    #[must_use]
    pub fn data_directory(&self) -> crate::exec::Standing {
        self.wiring.executors.standing()
    }

    /// The time of this engine's clock.
    #[must_use]
    pub fn now(&self) -> selvedge_kernel::time::Millis {
        self.wiring.env.clock.now()
    }

    /// The permit of somebody for one action on one resource, if the policies in force allow it now.
    pub fn permit(&self, context: AuthorizationContext, action: Action, resource: Resource) -> Result<Permit, Denied> {
        self.wiring.permit(context, action, resource)
    }

    /// Random bytes that nobody guesses, from where keys have theirs.
    pub fn draw_secret(&self, secret: &mut [u8; 32]) {
        (self.wiring.env.random)(secret);
    }

    /// Why the engine has stopped, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<String> {
        self.wiring.stop_reason()
    }

    /// Asks a shard something that carries no payload to speak of.
    pub(crate) async fn ask<T>(&self, shard: ShardId, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, VerbError> {
        let held = InFlight::look(&self.wiring)?;
        self.ask_holding(shard, held, command).await
    }

    /// Asks a shard something whose bytes have been counted. They count until it is worked off and answered, or until
    /// it is worked off and whoever asked has gone away.
    pub(crate) async fn ask_holding<T>(&self, shard: ShardId, held: Arc<InFlight>, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, VerbError> {
        self.sent(shard, held, command).await
    }

    /// What `ask_holding` asks is on its way when this returns; the answer is what this returns.
    fn sent<T>(&self, shard: ShardId, held: Arc<InFlight>, command: impl FnOnce(Reply<T>) -> Command) -> impl Future<Output = Result<T, VerbError>> {
        let (reply, answer) = oneshot::channel();
        let sent = self.wiring.send(shard, Event::Command(shard, command(reply), held.clone()));
        async move {
            let answer = if sent { answer.await } else { return Err(VerbError::closed(self.stopped())) };
            drop(held);
            answer.unwrap_or_else(|_| Err(VerbError::closed(self.stopped())))
        }
    }

    /// Holds new work back while the store falls behind, and refuses it before the store is full. What was accepted goes on.
    pub(crate) async fn admit(&self) -> Result<(), VerbError> {
        if let Admission::After(delay) = self.wiring.settings.pressure.admission() {
            tokio::time::sleep(delay).await;
        }
        match self.wiring.settings.pressure.admission() {
            Admission::Now | Admission::After(_) => Ok(()),
            Admission::Refused => Err(VerbError::new(
                Consequence::Retry,
                "store_behind",
                format!(
                    "the store writes slower than work comes in, and nothing was accepted: what waits to be put away is at {} % of its bound, and \
                     new work is refused from {} % on; try again after {} s, with the same idempotency key",
                    self.wiring.settings.pressure.thousandths() / 10,
                    pressure::REFUSE / 10,
                    pressure::RETRY_AFTER.as_secs(),
                ),
            )),
        }
    }

    pub(crate) fn draw(&self) -> [u8; 10] {
        self.entropy.lock().unwrap_or_else(PoisonError::into_inner).draw()
    }

    /// Whether a permit is for this invocation, and the invocation is of the permit's tenant. One of another tenant is
    /// answered as one that does not exist.
    pub(crate) async fn owned(&self, permit: &Permit, id: InvocationId) -> Result<(), VerbError> {
        let Resource::Work { tenant, id: named } = permit.resource() else { return Err(misused(permit)) };
        if *named != id.to_string() {
            return Err(misused(permit));
        }
        match self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Tenant { id, reply }).await? {
            Some(owner) if owner != *tenant => Err(VerbError::new(
                Consequence::NotFound,
                "unknown_invocation",
                format!("there is no invocation {id}: it may have been removed after its retention time"),
            )),
            // Whether there is one at all is for the verb to say.
            _ => Ok(()),
        }
    }

    pub(crate) fn new_id(&self, actor: &ActorId) -> InvocationId {
        InvocationId(RawId::at(actor.hash16(), self.now(), self.draw()))
    }

    /// Calls a handler, or sends to it.
    ///
    /// No verb can be called without a permit, and only `authorize` makes one:
    ///
    /// ```compile_fail
    /// async fn call(engine: &selvedge_engine::engine::Engine, context: selvedge_kernel::auth::AuthorizationContext) {
    ///     let _ = engine.invoke(context, bytes::Bytes::new(), Default::default()).await;
    /// }
    /// ```
    ///
    /// With one it compiles, and the permit is used up:
    ///
    /// ```
    /// async fn call(engine: &selvedge_engine::engine::Engine, permit: selvedge_kernel::auth::Permit) {
    ///     let _ = engine.invoke(permit, bytes::Bytes::new(), Default::default()).await;
    /// }
    /// ```
    ///
    /// ```compile_fail
    /// async fn call(engine: &selvedge_engine::engine::Engine, permit: selvedge_kernel::auth::Permit) {
    ///     let _ = engine.invoke(permit, bytes::Bytes::new(), Default::default()).await;
    ///     let _ = engine.invoke(permit, bytes::Bytes::new(), Default::default()).await;
    /// }
    /// ```
    pub async fn invoke(&self, permit: Permit, input: Bytes, ask: Ask) -> Result<Answer, VerbError> {
        let (wait, delay) = (ask.wait, ask.delay);
        let message = self.message(permit, input, ask)?;
        self.admit().await?;
        self.take_in(message, wait, delay)?.await
    }

    /// Calls a handler: the message is on its way when this returns, and its end is for [`Called::ended`]. Errors: as of
    /// [`Engine::invoke`]; those that its shard has come with its end.
    ///
    /// Whoever calls gets nothing before the end: so what ends without a rest is accepted and ended by one commit.
    pub async fn call(&self, permit: Permit, input: Bytes, ask: Ask) -> Result<Called<'_>, VerbError> {
        let message = self.message(permit, input, ask)?;
        let (id, shard) = (message.id, self.wiring.shard_of(&message.target));
        let shared = matches!(self.wiring.registry.handler(&message.target.kind, &message.handler), Some(Handler::Shared(_)));
        // Its key may lead to another one; and what is larger counts in memory only until it is written.
        let apart = shared || message.idempotency_key.is_some() || message.input.len() > CALL_BYTES;
        self.admit().await?;
        if !apart {
            return Ok(Called { engine: self, shard, id, accepted: None, ended: Box::pin(self.take_in(message, true, None)?) });
        }
        let accepted = self.take_in(message, false, None)?.await?;
        let (Some(id), Progress::Open) = (accepted.id, &accepted.progress) else {
            return Ok(Called { engine: self, shard, id, accepted: None, ended: Box::pin(std::future::ready(Ok(accepted))) });
        };
        let ended = self.sent(shard, InFlight::again(&self.wiring), move |reply| Command::Result { id, wait: true, reply });
        Ok(Called { engine: self, shard, id, accepted: Some(accepted), ended: Box::pin(ended) })
    }

    /// What a handler is asked, within its bounds.
    fn message(&self, permit: Permit, input: Bytes, ask: Ask) -> Result<Message, VerbError> {
        let Resource::Handler { actor, handler } = permit.resource().clone() else { return Err(misused(&permit)) };
        expect_action(&permit, Action::Invoke)?;
        check_part("the actor's type", &actor.kind)?;
        check_part("the actor's key", &actor.key)?;
        check_part("the handler", &handler)?;
        if let Some(key) = &ask.idempotency_key {
            check_part("the idempotency key", key)?;
        }
        check_body(self.limits(), input.len())?;
        if let Some(span) = ask.delay.into_iter().chain(ask.timeout).max() {
            check_delay(self.limits(), span)?;
        }
        let deadline = ask.timeout.map(|timeout| self.now().after(timeout));
        let plain = Message::new(self.new_id(&actor), actor, handler, input, permit.into_context());
        Ok(Message { idempotency_key: ask.idempotency_key, trace: ask.trace, deadline, ..plain })
    }

    /// Sends a message to its actor's shard, counted for as long as it is not answered; what this returns is the answer.
    fn take_in(&self, message: Message, wait: bool, delay: Option<Duration>) -> Result<impl Future<Output = Result<Answer, VerbError>>, VerbError> {
        let held = InFlight::take(&self.wiring, message.input.len())?;
        let shard = self.wiring.shard_of(&message.target);
        Ok(self.sent(shard, held, move |reply| Command::Invoke { message, wait, delay, reply }))
    }

    /// Delivers a signal: durable when this returns.
    pub async fn signal(&self, permit: Permit, target: SignalTarget, name: &str, payload: Bytes, key: Option<String>) -> Result<(), VerbError> {
        expect_action(&permit, Action::Signal)?;
        check_part("the signal's name", name)?;
        if let Some(key) = &key {
            check_part("the idempotency key", key)?;
        }
        check_signal(name, &payload)?;
        self.admit().await?;
        let held = InFlight::take(&self.wiring, payload.len())?;
        let shard = match &target {
            SignalTarget::Actor(actor) => {
                if !matches!(permit.resource(), Resource::Handler { actor: allowed, .. } if allowed == actor) {
                    return Err(misused(&permit));
                }
                self.wiring.shard_of(actor)
            }
            SignalTarget::Invocation(id) => {
                self.owned(&permit, *id).await?;
                self.wiring.shard_of_invocation(*id)
            }
        };
        let context = permit.into_context();
        self.ask_holding(shard, held, |reply| Command::Signal { target, name: name.to_owned(), payload, context, key, reply }).await
    }

    /// What an invocation has come to.
    pub async fn result(&self, permit: Permit, id: InvocationId, wait: bool) -> Result<Answer, VerbError> {
        expect_action(&permit, Action::Read)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Result { id, wait, reply }).await
    }

    /// Asks an invocation to end: its pending operations give `cancelled`.
    pub async fn cancel(&self, permit: Permit, id: InvocationId, reason: &str) -> Result<(), VerbError> {
        expect_action(&permit, Action::Control)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Cancel { id, reason: reason.to_owned(), reply }).await
    }

    /// Ends an invocation at once; none of its code runs.
    pub async fn kill(&self, permit: Permit, id: InvocationId, reason: &str) -> Result<(), VerbError> {
        expect_action(&permit, Action::Rewrite)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Kill { id, reason: reason.to_owned(), reply }).await
    }

    /// Looks at a blocked invocation again.
    pub async fn retry(&self, permit: Permit, id: InvocationId) -> Result<(), VerbError> {
        expect_action(&permit, Action::Control)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Retry { id, reply }).await
    }

    /// Erases the payloads of an ended invocation and the key of their seals; its chain still verifies.
    pub async fn erase(&self, permit: Permit, id: InvocationId) -> Result<(), VerbError> {
        expect_action(&permit, Action::Rewrite)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Erase { id, reply }).await
    }

    /// Why an invocation is where it is.
    pub async fn why(&self, permit: Permit, id: InvocationId) -> Result<Why, VerbError> {
        expect_action(&permit, Action::Read)?;
        self.owned(&permit, id).await?;
        let mut why = self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Why { id, reply }).await?;
        self.with_lending(&why.actor.tenant, &mut why.waiting).await?;
        Ok(why)
    }

    /// Chunks of an invocation's output, from a position on.
    pub async fn output(&self, permit: Permit, id: InvocationId, from: u64) -> Result<Vec<(u64, Bytes)>, VerbError> {
        expect_action(&permit, Action::Read)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Output { id, from, reply }).await
    }

    /// The state of an actor.
    pub async fn state(&self, permit: Permit) -> Result<Vec<(String, Bytes)>, VerbError> {
        expect_action(&permit, Action::Read)?;
        let Resource::Handler { actor, .. } = permit.resource().clone() else { return Err(misused(&permit)) };
        self.ask(self.wiring.shard_of(&actor), |reply| Command::State { actor, reply }).await
    }

    /// What is in memory, over all shards.
    pub async fn census(&self, permit: Permit) -> Result<Census, VerbError> {
        expect_action(&permit, Action::Operate)?;
        let mut sum = Census::default();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let census = self.ask(shard, |reply| Command::Census { reply }).await?;
            sum.actors += census.actors;
            sum.active += census.active;
            sum.tasks += census.tasks;
            sum.outbox += census.outbox;
            sum.on_their_way += census.on_their_way;
            sum.timers += census.timers;
            sum.runs += census.runs;
        }
        Ok(sum)
    }

    /// Lets everything that is under way come to rest, moves a manual clock, and lets everything due happen.
    pub async fn advance(&self, span: Duration) {
        self.settle().await;
        self.wiring.env.clock.advance(span);
        self.tick();
        self.settle().await;
    }

    /// Whether nothing moves by itself now, tasks outside handlers apart.
    #[must_use]
    pub fn resting(&self) -> bool {
        self.wiring.pending.load(Ordering::SeqCst) == 0 && !self.wiring.busy.iter().any(|busy| busy.load(Ordering::SeqCst))
    }

    /// Tells every worker to look at the clock.
    pub fn tick(&self) {
        for worker in &self.wiring.workers {
            worker.send(Event::Tick);
        }
    }

    /// Waits until nothing moves by itself any more, tasks outside handlers apart.
    pub async fn settle(&self) {
        let mut calm = 0;
        while calm < 3 && self.stopped().is_none() {
            calm = if self.resting() { calm + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends at once and writes nothing more, as a kill of the process would: for tests of recovery.
    pub async fn die(&self) {
        for worker in &self.wiring.workers {
            worker.send(Event::Die);
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        join(threads).await;
        if let Some(side) = self.side.lock().unwrap_or_else(PoisonError::into_inner).take() {
            side.shutdown_background();
        }
    }

    /// Stops accepting, writes what is decided, and lets go of the store.
    pub async fn close(&self) -> Result<(), VerbError> {
        for worker in &self.wiring.workers {
            let (done, closed) = oneshot::channel();
            if worker.send(Event::Close(done)) {
                let _ = closed.await;
            }
        }
        self.wiring.executors.close().await;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        join(threads).await;
        if let Some(side) = self.side.lock().unwrap_or_else(PoisonError::into_inner).take() {
            side.shutdown_background();
        }
        self.wiring.store.close().await?;
        match self.stopped() {
            Some(reason) => Err(VerbError::new(Consequence::Stop, "stopped", reason)),
            None => Ok(()),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &self.wiring.workers {
            let (done, _) = oneshot::channel();
            worker.send(Event::Close(done));
        }
        if let Some(side) = self.side.lock().unwrap_or_else(PoisonError::into_inner).take() {
            side.shutdown_background();
        }
    }
}

/// What all shards of an engine share, and the mailboxes of its workers.
fn wire(
    store: Arc<dyn Store>,
    env: Environment,
    registry: Registry,
    settings: Settings,
    exec: ExecSettings,
    side: tokio::runtime::Handle,
) -> (Arc<Wiring>, Vec<tokio::sync::mpsc::UnboundedReceiver<Event>>) {
    let shards = settings.shards.max(1);
    let count = settings.workers.clamp(1, usize::from(shards));
    let pending = Arc::new(AtomicU64::new(0));
    let (workers, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| Mailbox::new(pending.clone())).unzip();
    let programs = registry.programs();
    let points = Points(env.observer.clone());
    let life = selvedge_kernel::lend::Life(u64::from_be_bytes(Entropy::new(env.random.clone()).draw()));
    let (shadow, questions) = settings.shadow.clone().map(crate::shadow::Shadow::new).unzip();
    let wiring = Arc::new(Wiring {
        decisions: crate::decisions::Decisions::default(),
        shadow,
        keys: crate::keys::Keys::default(),
        standstill: crate::disabled::Standstill::default(),
        sums: crate::shard::Sums::default(),
        given: crate::given::GivenNow::of(&registry),
        life,
        since: env.clock.now(),
        store,
        env,
        registry,
        settings,
        shards,
        workers,
        pending,
        busy: (0..count).map(|_| AtomicBool::new(false)).collect(),
        side,
        executors: Executors::new(exec, points, programs.into_iter()),
        offers: Arc::default(),
        in_flight: AtomicU64::new(0),
        stopped: Mutex::new(None),
        skew: Mutex::new(None),
    });
    if let Some(questions) = questions {
        wiring.side.spawn(crate::shadow::ask(Arc::downgrade(&wiring), questions));
    }
    (wiring, receivers)
}

fn not_started(what: &str, error: &dyn std::fmt::Display) -> VerbError {
    VerbError::new(Consequence::Stop, "start", format!("{what} could not be started: {error}"))
}

/// Ends what was started of an engine that does not open.
async fn give_up(wiring: &Wiring, threads: Vec<std::thread::JoinHandle<()>>, side: tokio::runtime::Runtime) {
    for worker in &wiring.workers {
        worker.send(Event::Die);
    }
    join(threads).await;
    side.shutdown_background();
}

async fn join(threads: Vec<std::thread::JoinHandle<()>>) {
    for thread in threads {
        #[expect(clippy::disallowed_methods, reason = "the end of a worker thread is awaited once, when the engine ends")]
        let joined = tokio::task::spawn_blocking(move || thread.join());
        let _ = joined.await;
    }
}

/// Stops the engine when its worker thread panics: its shards are gone, and nobody may wait for them in silence.
struct Alarm {
    wiring: Arc<Wiring>,
    index: usize,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.wiring.stop(format!(
                "worker {} panicked, its text is on standard error: what was acknowledged is safe; start again, and report the text",
                self.index
            ));
        }
    }
}
