//! The test kit: the engine on the reference model, with a clock that moves by hand and replay after every delivery.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selvedge_engine::engine;
use selvedge_engine::env::{Clock, Environment, Observation};
use selvedge_engine::why::Census;
use selvedge_engine::wiring::Settings;
use selvedge_kernel::auth::{Action, Resource, local};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::Store;

use crate::app::App;
use crate::bootstrap::EngineError;
use crate::client::Client;

/// How often it is looked whether the process has come to its end.
const LOOK: Duration = Duration::from_micros(200);

/// One attempt of a side effect that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The step's or activity's name.
    pub name: String,
    /// Its idempotency key.
    pub key: String,
    /// Which attempt.
    pub attempt: u32,
}

/// Clocks that are moved by hand, and what was reported.
struct Hands {
    wall: Arc<AtomicU64>,
    monotonic: Arc<AtomicU64>,
    jumps: Arc<Mutex<Vec<i64>>>,
    filling: Arc<Mutex<Vec<InvocationId>>>,
    failing: Arc<Mutex<Vec<(InvocationId, u32)>>>,
}

/// An engine for tests.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use selvedge::{App, Ctx, Handler, Outcome};
/// const NAP: Handler<(), String> = Handler::new("cat", "nap");
/// async fn nap(ctx: Ctx, (): ()) -> Outcome<String> {
///     ctx.sleep(std::time::Duration::from_secs(3600)).await?;
///     Ok("awake".to_owned())
/// }
/// let mut engine = selvedge::test::Engine::new(App::new().handler(NAP, nap)).await?;
/// let id = engine.local().send(NAP.on("tom"), ()).await?;
/// engine.advance(std::time::Duration::from_secs(3600)).await;
/// assert_eq!(engine.local().result::<String>(id).await?, "awake");
/// # Ok(()) }
/// ```
pub struct Engine {
    app: App,
    model: Model,
    clock: Hands,
    draws: Arc<AtomicU64>,
    effects: Arc<Mutex<Vec<Effect>>>,
    settings: Settings,
    running: Arc<engine::Engine>,
}

impl Engine {
    /// Opens an engine on an empty model.
    pub async fn new(app: App) -> Result<Engine, EngineError> {
        Engine::with(app, Settings { replay_always: true, ..Settings::default() }).await
    }

    /// The same with other settings.
    pub async fn with(app: App, settings: Settings) -> Result<Engine, EngineError> {
        let model = Model::new();
        let clock = Hands {
            wall: Arc::new(AtomicU64::new(1_767_225_600_000)),
            monotonic: Arc::default(),
            jumps: Arc::default(),
            filling: Arc::default(),
            failing: Arc::default(),
        };
        let draws = Arc::new(AtomicU64::new(0));
        let effects = Arc::new(Mutex::new(Vec::new()));
        let running = start(&app, &model, &clock, &draws, &effects, &settings).await?;
        Ok(Engine { app, model, clock, draws, effects, settings, running })
    }

    /// The client of the owner.
    #[must_use]
    pub fn local(&self) -> Client {
        Client { engine: self.running.clone(), context: local("default", self.running.now()) }
    }

    /// Moves the clock, and lets everything due happen.
    pub async fn advance(&self, span: Duration) {
        self.running.advance(span).await;
    }

    /// Moves the wall clock alone, as somebody who sets it would: by so many milliseconds, back if less than zero.
    pub async fn jump(&self, by_ms: i64) {
        self.running.settle().await;
        let wall = self.clock.wall.load(Ordering::SeqCst);
        self.clock.wall.store(wall.saturating_add_signed(by_ms), Ordering::SeqCst);
        self.running.advance(Duration::ZERO).await;
    }

    /// The jumps of the wall clock that were reported, in milliseconds.
    #[must_use]
    pub fn jumps(&self) -> Vec<i64> {
        self.clock.jumps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The invocations that were reported to have made four fifths of the operations of one journal, each time.
    #[must_use]
    pub fn filling(&self) -> Vec<InvocationId> {
        self.clock.filling.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The messages that were reported to go on failing, each time, with how many of their attempts had failed.
    #[must_use]
    pub fn failing(&self) -> Vec<(InvocationId, u32)> {
        self.clock.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nothing moves by itself any more.
    pub async fn settle(&self) {
        // Whoever is still opening answers this first.
        self.running.advance(Duration::ZERO).await;
    }

    /// Ends the engine as a kill would, and opens it again on what was committed.
    pub async fn kill_and_reopen(&mut self) -> Result<(), EngineError> {
        self.running.die().await;
        self.running = start(&self.app, &self.model, &self.clock, &self.draws, &self.effects, &self.settings).await?;
        Ok(())
    }

    /// Does something, and ends the engine as a kill would once it has made so many commits more; what it wants to commit beyond
    /// is lost, and it is opened again on the others. Where everything is done with fewer commits nothing is killed, and what
    /// came of it is given: with one commit more each time, a test kills at every commit that there is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use selvedge::{App, Ctx, Handler, Outcome, test};
    /// const PAY: Handler<u64, u64> = Handler::new("account", "pay");
    /// async fn pay(ctx: Ctx, cents: u64) -> Outcome<u64> {
    ///     let paid = ctx.state().get::<u64>("paid").await?.unwrap_or(0) + cents;
    ///     ctx.state().set("paid", &paid)?;
    ///     ctx.step("tell", async |_| Ok(())).await?;
    ///     Ok(paid)
    /// }
    /// let app = App::new().handler(PAY, pay);
    /// for commits in 0.. {
    ///     let mut engine = test::Engine::new(app.clone()).await?;
    ///     let pay = async |engine: &test::Engine| engine.local().call(PAY.on("ada"), 5).idempotency_key("p-1").await;
    ///     let done = engine.kill_after(commits, pay).await?;
    ///     // Whoever got no answer asks again, under the same key.
    ///     assert_eq!(pay(&engine).await?, 5, "killed after {commits} commits");
    ///     if done.is_some() {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the engine does not open again.
    pub async fn kill_after<T>(&mut self, commits: u64, doing: impl AsyncFnOnce(&Engine) -> T) -> Result<Option<T>, EngineError> {
        self.model.cut_after(&[commits]);
        let cut = async {
            while !self.model.is_cut() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let done = tokio::select! {
            biased;
            () = cut => None,
            done = doing(self) => Some(done),
        };
        self.model.cut_after(&[]);
        if done.is_none() {
            self.kill_and_reopen().await?;
        }
        Ok(done)
    }

    /// The same with other settings.
    pub async fn kill_and_reopen_with(&mut self, settings: Settings) -> Result<(), EngineError> {
        self.settings = settings;
        self.kill_and_reopen().await
    }

    /// The same after a downtime: the clocks have moved on in between.
    pub async fn kill_and_move_on(&mut self, span: Duration) -> Result<(), EngineError> {
        self.running.die().await;
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.clock.wall.fetch_add(ms, Ordering::SeqCst);
        self.running = start(&self.app, &self.model, &self.clock, &self.draws, &self.effects, &self.settings).await?;
        Ok(())
    }

    /// Goes on with another program, as after a deploy.
    pub async fn deploy(&mut self, app: App) -> Result<(), EngineError> {
        self.app = app;
        self.kill_and_reopen().await
    }

    /// Side effects started so far, in order.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Walks every ledger and every chain: what does not fit, in words.
    pub async fn verify(&self) -> Vec<String> {
        let client = self.local();
        let Ok(permit) = client.permit(Action::Operate, Resource::Store) else { return vec!["no permit".to_owned()] };
        match self.running.verify(permit).await {
            Ok(reports) => reports.into_iter().flat_map(|report| report.faults).collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    /// What is in memory.
    pub async fn census(&self) -> Census {
        let client = self.local();
        match client.permit(Action::Operate, Resource::Store) {
            Ok(permit) => self.running.census(permit).await.unwrap_or_default(),
            Err(_) => Census::default(),
        }
    }

    /// The store below, to break it.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The engine below.
    #[must_use]
    pub fn engine(&self) -> &Arc<engine::Engine> {
        &self.running
    }
}

/// A program on a store of the caller's choice, without threads: its workers are futures that the caller polls, on one
/// thread and inside a `LocalSet`. Time, randomness and order are the caller's, so that one seed gives one history.
pub struct ByHand {
    /// The engine.
    pub engine: Arc<engine::Engine>,
    /// Its workers, to be polled until they end; an engine whose workers are dropped ends as a kill would end it.
    pub workers: Vec<engine::WorkerFuture>,
}

impl ByHand {
    /// Wires a program to a store. `side` runs blocking steps and programs.
    #[must_use]
    pub fn open(app: &App, store: Arc<dyn Store>, env: Environment, settings: Settings, side: tokio::runtime::Handle) -> ByHand {
        let (engine, workers) = engine::Engine::by_hand(store, env, app.registry.clone(), settings, engine::ExecSettings::default(), side);
        ByHand { engine: Arc::new(engine), workers }
    }

    /// The client of the owner.
    #[must_use]
    pub fn local(&self) -> Client {
        Client { engine: self.engine.clone(), context: local("default", self.engine.now()) }
    }
}

async fn start(
    app: &App,
    model: &Model,
    clock: &Hands,
    draws: &Arc<AtomicU64>,
    effects: &Arc<Mutex<Vec<Effect>>>,
    settings: &Settings,
) -> Result<Arc<engine::Engine>, EngineError> {
    let draws = draws.clone();
    let effects = effects.clone();
    let (jumps, filling, failing) = (clock.jumps.clone(), clock.filling.clone(), clock.failing.clone());
    let env = Environment {
        clock: Clock::Hands { wall: clock.wall.clone(), monotonic: clock.monotonic.clone() },
        random: Arc::new(move |buffer| {
            let draw = draws.fetch_add(1, Ordering::SeqCst);
            // Not random at all, but never the same twice in a test.
            for (index, bytes) in buffer.chunks_mut(8).enumerate() {
                let word = scattered((draw << 32) | index as u64);
                bytes.copy_from_slice(&word.to_be_bytes()[..bytes.len()]);
            }
        }),
        observer: Some(Arc::new(move |observation| match observation {
            Observation::AttemptStarted { name, key, attempt } => {
                let effect = Effect { name: (*name).to_owned(), key: (*key).to_owned(), attempt: *attempt };
                effects.lock().unwrap_or_else(PoisonError::into_inner).push(effect);
            }
            Observation::SlowPoll { .. } | Observation::DropPanicked { .. } | Observation::Exec { .. } | Observation::Work(_) => {}
            Observation::JournalFills { invocation, .. } => filling.lock().unwrap_or_else(PoisonError::into_inner).push(*invocation),
            Observation::AttemptsFail { invocation, failed, .. } => failing.lock().unwrap_or_else(PoisonError::into_inner).push((*invocation, *failed)),
            Observation::ClockJumped { by_ms } => jumps.lock().unwrap_or_else(PoisonError::into_inner).push(*by_ms),
        })),
    };
    let exec = engine::ExecSettings { environment: std::env::vars().collect(), scratch: std::env::temp_dir(), ..engine::ExecSettings::default() };
    let store = Arc::new(model.clone());
    let engine = Arc::new(engine::Engine::open(store, env, app.registry.clone(), settings.clone(), exec).await?);
    crate::bootstrap::store_schedules(&engine, "default").await?;
    Ok(engine)
}

/// A number for each number, without a pattern (the finaliser of SplitMix64, which is one to one).
fn scattered(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
