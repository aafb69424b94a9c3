//! One opening of the store: an engine whose workers are polled in an order that the seed decides.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use selvedge::test::ByHand;
use selvedge::{Client, Millis, Settings};
use selvedge_engine::engine::{Engine, WorkerFuture};
use selvedge_engine::env::{Clock, Environment, Observation};

use crate::seed::Seed;
use crate::store::Disk;
use crate::world::World;

type Slot = Rc<RefCell<Option<WorkerFuture>>>;

/// An engine at work.
pub struct Life {
    /// Which opening of the store it is.
    pub owner: u64,
    /// The engine.
    pub engine: Arc<Engine>,
    /// Its owner's client.
    pub client: Client,
    workers: Vec<Slot>,
}

/// Polls a worker, now and then later than it could.
struct Polled {
    slot: Slot,
    seed: Seed,
}

impl Future for Polled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.seed.chance(30) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // The slot is empty while its worker is polled: a worker that crashes the world from inside is not polled twice.
        let Some(mut worker) = self.slot.borrow_mut().take() else { return Poll::Ready(()) };
        match worker.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => {
                *self.slot.borrow_mut() = Some(worker);
                Poll::Pending
            }
        }
    }
}

impl Life {
    /// Opens the store.
    pub fn open(world: &World, disk: &Disk, settings: &Settings, scheduled: bool) -> Result<Life, String> {
        let owner = world.next_owner();
        let app = crate::program::app(world, owner, scheduled)?;
        let (random, told) = (world.seed.clone(), world.clone());
        let env = Environment {
            clock: Clock::Hands { wall: world.wall.clone(), monotonic: world.monotonic.clone() },
            random: Arc::new(move |buffer| buffer.chunks_mut(8).for_each(|bytes| bytes.copy_from_slice(&random.next().to_be_bytes()[..bytes.len()]))),
            observer: Some(Arc::new(move |observation| match observation {
                Observation::ClockJumped { by_ms } => told.say(&format!("the clock jumped by {by_ms} ms")),
                Observation::DropPanicked { invocation } => told.broken(format!("a drop of {invocation} panicked")),
                _ => {}
            })),
        };
        let by_hand = ByHand::open(&app, Arc::new(disk.clone()), env, settings.clone(), tokio::runtime::Handle::current());
        let client = by_hand.local();
        let workers: Vec<Slot> = by_hand.workers.into_iter().map(|worker| Rc::new(RefCell::new(Some(worker)))).collect();
        for slot in &workers {
            tokio::task::spawn_local(Polled { slot: slot.clone(), seed: world.seed.clone() });
        }
        if scheduled {
            tokio::task::spawn_local(crate::ticking::store(by_hand.engine.clone()));
        }
        Ok(Life { owner, engine: by_hand.engine, client, workers })
    }

    /// Ends it here and now.
    pub fn crash(self) {
        for slot in &self.workers {
            let worker = slot.borrow_mut().take();
            drop(worker);
        }
    }

    /// Polls until nothing moves by itself any more; false if it never comes to rest.
    pub async fn rest(&self) -> bool {
        self.engine.tick();
        let mut calm = 0;
        for _ in 0..2_000_000u64 {
            if self.engine.stopped().is_some() {
                return true;
            }
            calm = if self.engine.resting() { calm + 1 } else { 0 };
            if calm > 40 {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }

    /// The engine's time.
    #[must_use]
    pub fn now(&self, world: &World) -> Millis {
        Millis(world.wall.load(Ordering::SeqCst))
    }
}
