//! What all shards of an engine share, read-only.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use selvedge_kernel::auth::Owners;
use selvedge_kernel::id::{ActorId, InvocationId, ShardId};
use selvedge_kernel::lend::Life;
use selvedge_kernel::limit::Limits;
use selvedge_kernel::ports::{Policies, Store};
use selvedge_kernel::pressure::Pressure;
use selvedge_kernel::record::build::Build;
use selvedge_kernel::record::invocation::Code;
use selvedge_kernel::record::message::Peer;
use selvedge_kernel::transition::Keep;

use crate::env::{Environment, Observation};
use crate::happened::Follow;
use crate::registry::{Handler, Registry};
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

/// The policies that are in force, shared by whoever asks them.
#[derive(Clone, Default)]
pub enum Rules {
    /// The rule that is built in: see [`Owners`].
    #[default]
    BuiltIn,
    /// These, and nothing else.
    Given(Arc<dyn Policies>),
}

impl Rules {
    /// Whom to ask.
    #[must_use]
    pub fn policies(&self) -> &dyn Policies {
        match self {
            Rules::BuiltIn => &Owners,
            Rules::Given(policies) => &**policies,
        }
    }
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Rules(version {})", self.policies().version())
    }
}

/// Which decisions are recorded, beside being counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Recorded {
    /// Those that deny.
    #[default]
    Denials,
    /// Those that allow, too.
    All,
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
    /// What names this binary in records, and in `why`; none: nothing does.
    pub build: Option<Build>,
    /// Whether handlers and tasks are performed.
    pub tasks: Tasks,
    /// How full the store is: the store sets it, and new work is slowed down and refused by it.
    pub pressure: Pressure,
    /// How many of the invocations that were running when the store was last closed a shard brings back at a time: the
    /// others wait in line until those rest or end.
    pub recovered_at_once: usize,
    /// Who may do what, beside the system and the local owner.
    pub policies: Rules,
    /// Policies that are asked beside them and decide nothing: where they differ is recorded.
    pub shadow: Option<Rules>,
    /// Which decisions are recorded.
    pub recorded: Recorded,
    /// How much of work the observer is told.
    pub follow: Follow,
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
            build: None,
            tasks: Tasks::Start,
            pressure: Pressure::default(),
            recovered_at_once: 1_000,
            policies: Rules::default(),
            shadow: None,
            recorded: Recorded::default(),
            follow: Follow::default(),
        }
    }
}

/// What all shards share.
pub(crate) struct Wiring {
    pub store: Arc<dyn Store>,
    pub env: Environment,
    pub registry: Registry,
    /// The pipelines of now, and what they share.
    pub given: crate::given::GivenNow,
    pub settings: Settings,
    pub shards: u16,
    pub workers: Vec<Mailbox>,
    pub pending: Arc<AtomicU64>,
    pub busy: Vec<AtomicBool>,
    pub side: tokio::runtime::Handle,
    pub executors: Executors,
    /// What workers of other processes can take.
    pub offers: Arc<crate::work::Offers>,
    pub in_flight: AtomicU64,
    pub stopped: Mutex<Option<String>>,
    /// The API keys.
    pub keys: crate::keys::Keys,
    /// Who is disabled.
    pub standstill: crate::disabled::Standstill,
    /// What was decided.
    pub decisions: crate::decisions::Decisions,
    /// The policies in the shadow, if there are any.
    pub shadow: Option<crate::shadow::Shadow>,
    /// What tenants have open in all shards.
    pub sums: crate::shard::Sums,
    /// Whose permits of limits count.
    pub life: Life,
    /// When that began.
    pub since: selvedge_kernel::time::Millis,
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

    /// Where whoever waits for an answer lives.
    pub(crate) fn shard_of_peer(&self, peer: Peer) -> ShardId {
        match peer {
            Peer::Operation { invocation, .. } => self.shard_of_invocation(invocation),
            Peer::Task { run, .. } => run.0.hash.shard(self.shards),
        }
    }

    /// The code that accepts a message to this handler: of a program its own, else of this binary.
    pub(crate) fn code(&self, kind: &str, handler: &str) -> Code {
        let version = self.registry.actors.get(kind).map_or(crate::registry::FIRST_VERSION, |found| found.newest(handler));
        Code { version, build: self.build(kind, handler) }
    }

    /// The build that a handler is of here.
    pub(crate) fn build(&self, kind: &str, handler: &str) -> Option<Build> {
        match self.registry.handler(kind, handler) {
            Some(Handler::Transition(transition)) => transition.build,
            _ => self.settings.build,
        }
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
