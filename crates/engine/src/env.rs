//! Time and randomness, which come in by parameter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use selvedge_kernel::time::Millis;

/// Reads the wall clock.
pub type ReadClock = Arc<dyn Fn() -> Millis + Send + Sync>;
/// Fills a buffer with random bytes.
pub type Fill = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Where time comes from.
#[derive(Clone)]
pub enum Clock {
    /// The machine's clock: the engine sleeps by itself.
    Wall(ReadClock),
    /// A clock that stands still until it is told: for tests.
    Manual(Arc<AtomicU64>),
    /// The machine's clocks: the wall clock, which may jump, and one that does not.
    Machine {
        /// The wall clock.
        wall: ReadClock,
        /// Counts milliseconds from anywhere, evenly.
        monotonic: ReadClock,
    },
    /// Two clocks that stand still until they are told: for tests of jumps.
    Hands {
        /// The wall clock.
        wall: Arc<AtomicU64>,
        /// The one that does not jump.
        monotonic: Arc<AtomicU64>,
    },
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Millis {
        match self {
            Clock::Wall(read) => read(),
            Clock::Manual(at) => Millis(at.load(Ordering::SeqCst)),
            Clock::Machine { wall, .. } => wall(),
            Clock::Hands { wall, .. } => Millis(wall.load(Ordering::SeqCst)),
        }
    }

    /// What the clocks show: read once a turn of a worker, for all of its shards.
    pub(crate) fn tick(&self) -> Tick {
        Tick { wall: self.now(), monotonic: self.monotonic() }
    }

    /// The monotonic clock, where there is one.
    pub(crate) fn monotonic(&self) -> Option<Millis> {
        match self {
            Clock::Wall(_) | Clock::Manual(_) => None,
            Clock::Machine { monotonic, .. } => Some(monotonic()),
            Clock::Hands { monotonic, .. } => Some(Millis(monotonic.load(Ordering::SeqCst))),
        }
    }

    /// Moves a clock that is moved by hand.
    pub(crate) fn advance(&self, span: std::time::Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match self {
            Clock::Wall(_) | Clock::Machine { .. } => {}
            Clock::Manual(at) => {
                at.fetch_add(ms, Ordering::SeqCst);
            }
            Clock::Hands { wall, monotonic } => {
                wall.fetch_add(ms, Ordering::SeqCst);
                monotonic.fetch_add(ms, Ordering::SeqCst);
            }
        }
    }
}

/// What the clocks showed at the start of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick {
    pub wall: Millis,
    pub monotonic: Option<Millis>,
}

/// Time and randomness of one engine.
#[derive(Clone)]
pub struct Environment {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub random: Fill,
    /// Is told what happens.
    pub observer: Option<Observer>,
}

/// Takes what happens.
pub type Observer = Arc<dyn Fn(&Observation<'_>) + Send + Sync>;

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// An attempt of a step or an activity was started.
    AttemptStarted {
        /// Its name.
        name: &'a str,
        /// Its idempotency key.
        key: &'a str,
        /// Which attempt.
        attempt: u32,
    },
    /// A moment in the life of a program.
    Exec {
        /// Which.
        point: crate::exec::ExecPoint,
    },
    /// A value that a handler owned panicked when it was dropped.
    DropPanicked {
        /// Of which invocation.
        invocation: selvedge_kernel::id::InvocationId,
    },
    /// A handler was polled for longer than 100 ms, and the others of its thread waited.
    SlowPoll {
        /// Of which invocation.
        invocation: selvedge_kernel::id::InvocationId,
        /// Of which actor.
        actor: &'a selvedge_kernel::id::ActorId,
        /// Which handler.
        handler: &'a str,
        /// How long the poll took.
        took: std::time::Duration,
    },
    /// A live invocation has made four fifths of the operations that one journal holds.
    JournalFills {
        /// Which invocation.
        invocation: selvedge_kernel::id::InvocationId,
        /// Of which actor.
        actor: &'a selvedge_kernel::id::ActorId,
        /// Which handler.
        handler: &'a str,
        /// How many operations it has made.
        operations: u32,
        /// How many it may make.
        limit: u32,
    },
    /// So many attempts of a message have failed that somebody is to look, long before the last one.
    AttemptsFail {
        /// Which invocation.
        invocation: selvedge_kernel::id::InvocationId,
        /// Of which actor.
        actor: &'a selvedge_kernel::id::ActorId,
        /// Which handler.
        handler: &'a str,
        /// How many have failed.
        failed: u32,
        /// How many there may be.
        limit: u32,
        /// What the last of them said.
        error: &'a selvedge_kernel::error::WorkError,
    },
    /// Something has become of work, and that is durable: see [`crate::happened::Follow`].
    Work(&'a crate::happened::Happened),
    /// The wall clock moved against the monotonic one by more than five minutes.
    ClockJumped {
        /// By how many milliseconds; less than zero if it went back.
        by_ms: i64,
    },
}

impl Environment {
    pub(crate) fn observe(&self, observation: &Observation<'_>) {
        if let Some(observer) = &self.observer {
            observer(observation);
        }
    }
}

/// Random bytes, drawn in blocks.
pub(crate) struct Entropy {
    fill: Fill,
    block: Vec<u8>,
    used: usize,
}

impl Entropy {
    pub(crate) fn new(fill: Fill) -> Entropy {
        Entropy { fill, block: vec![0; 4096], used: 4096 }
    }

    pub(crate) fn draw<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > self.block.len() {
            (self.fill)(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0u8; N];
        bytes.copy_from_slice(&self.block[self.used..self.used + N]);
        self.used += N;
        bytes
    }
}
