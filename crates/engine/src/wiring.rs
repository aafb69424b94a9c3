//! What all shards of an engine share, read-only.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selvedge_kernel::id::{ActorId, InvocationId, ShardId};
use selvedge_kernel::lend::Life;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::pipeline::agree::Declared;
use selvedge_kernel::ports::Store;
use selvedge_kernel::pressure::Pressure;
use selvedge_kernel::transition::Keep;

use crate::env::{Environment, Observation};
use crate::registry::Registry;
use crate::tasks::Executors;
use crate::worker::{Event, Mailbox};

/// Whether an engine does the work that lies in its store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tasks {
    /// As soon as it is due.
    Start,
    /// No handler and no task: it accepts, looks and takes notes, and whoever opens the store next does the work.
    Leave,
}

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Limits in force.
    pub limits: Limits,
    /// How long what has ended is kept.
    pub keep: Keep,
    /// Drops and replays a handler after every delivery.
    pub replay_always: bool,
    /// Worker threads.
    pub workers: usize,
    /// How many shards the store has.
    pub shards: u16,
    /// Instead of each type's own, if set.
    pub suspend_after: Option<Duration>,
    /// What identifies this build in records.
    pub build: String,
    /// Whether handlers and tasks are performed.
    pub tasks: Tasks,
    /// How full the store is: the store sets it, and new work is slowed down and refused by it.
    pub pressure: Pressure,
    /// How many of the invocations that were running when the store was last closed a shard brings back at a time: the
    /// others wait in line until those rest or end.
    pub recovered_at_once: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            limits: Limits::default(),
            keep: Keep::default(),
            replay_always: false,
            workers: 2,
            shards: crate::engine::SHARDS,
            suspend_after: None,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            tasks: Tasks::Start,
            pressure: Pressure::default(),
            recovered_at_once: 1_000,
        }
    }
}

/// What all shards share.
pub(crate) struct Wiring {
    pub store: Arc<dyn Store>,
    pub env: Environment,
    pub registry: Registry,
    /// What its activities share.
    pub declared: Vec<Declared>,
    pub settings: Settings,
    pub shards: u16,
    pub workers: Vec<Mailbox>,
    pub pending: Arc<AtomicU64>,
    pub busy: Vec<AtomicBool>,
    pub side: tokio::runtime::Handle,
    pub executors: Executors,
    pub in_flight: AtomicU64,
    pub stopped: Mutex<Option<String>>,
    /// What tenants have open in all shards.
    pub sums: crate::shard::Sums,
    /// Whose permits of limits count.
    pub life: Life,
    /// Where the wall clock stood against the monotonic one when a jump was reported last.
    pub skew: Mutex<Option<i128>>,
}

impl Wiring {
    pub(crate) fn mailbox(&self, shard: ShardId) -> &Mailbox {
        &self.workers[usize::from(shard.0) % self.workers.len()]
    }

    pub(crate) fn shard_of(&self, actor: &ActorId) -> ShardId {
        actor.hash16().shard(self.shards)
    }

    pub(crate) fn shard_of_invocation(&self, id: InvocationId) -> ShardId {
        id.0.hash.shard(self.shards)
    }

    pub(crate) fn send(&self, shard: ShardId, event: Event) -> bool {
        self.mailbox(shard).send(event)
    }

    /// Takes note of why the engine stops, and wakes its workers so that they do.
    pub(crate) fn stop(&self, reason: String) {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
        for worker in &self.workers {
            worker.send(Event::Tick);
        }
    }

    /// Reports a jump of the wall clock, once for all shards.
    pub(crate) fn clock_jumped(&self, skew: i128, by: i128) {
        let mut known = self.skew.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = known.is_none_or(|known| (known - skew).abs() > 60_000);
        *known = Some(skew);
        drop(known);
        if fresh {
            let by_ms = i64::try_from(by).unwrap_or(i64::MAX);
            self.env.observe(&Observation::ClockJumped { by_ms });
        }
    }

    /// Takes note of a handler whose values panicked when they went: it has ended or left memory all the same.
    pub(crate) fn dropped_badly(&self, id: InvocationId) {
        self.env.observe(&crate::env::Observation::DropPanicked { invocation: id });
    }

    /// Why it has stopped, if it has.
    pub(crate) fn stop_reason(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
