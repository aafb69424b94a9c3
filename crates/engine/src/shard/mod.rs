//! A shard: everything about the identities that hash into it, decided by one thread, in memory ahead of the disk.

mod accept;
mod activate;
mod advance;
mod breakers;
mod calls;
mod command;
mod decide;
mod decisions;
mod edit;
mod ending;
mod erase;
mod fork;
mod gates;
mod inspect;
mod journal;
mod kept;
mod leftovers;
mod limits;
mod mail;
mod names;
mod outside;
mod owner;
mod reads;
mod redrive;
mod rehearse;
mod resolve;
mod restart;
mod rings;
mod signal;
mod tenants;
mod timers;
mod transition;
mod turns;
mod verify;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId, Key, ShardId};
use selvedge_kernel::journal::{Hash32, Payload};
use selvedge_kernel::ports::{Commit, Epoch, Owner, StoreError, under};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Envelope;
use selvedge_kernel::record::shard::ShardHead;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use crate::core::Given;
use crate::draft::{Drafts, Overlay, Submitted};
use crate::env::{Entropy, Tick};
use crate::idmap::{IdMap, IdSet};
pub(crate) use crate::shard::activate::{Activation, Outside};
pub use crate::shard::command::{Answer, Progress, SignalTarget, VerbError};
pub(crate) use crate::shard::command::{Command, Reply};
pub(crate) use crate::shard::gates::Gate;
pub(crate) use crate::shard::limits::Asker;
use crate::shard::mail::Pair;
pub use crate::shard::redrive::Redriven;
pub(crate) use crate::shard::rings::Probe;
pub(crate) use crate::shard::tenants::Sums;
pub(crate) use crate::shard::timers::Alarm;
use crate::shard::timers::TimerQueue;
use crate::wiring::Wiring;

/// How many invocations move in one turn of a shard.
const ADVANCED_PER_TURN: u32 = 256;

/// What is let out once the commit that it rests on is durable.
pub(crate) enum Effect {
    /// The acceptance of an invocation, or what it was brought back from; only its latest life counts.
    Accepted(InvocationId, u64),
    /// A result; it counts for the life that decided it.
    Deliver {
        id: InvocationId,
        life: u64,
        number: u32,
        given: Given,
        at: Millis,
    },
    CancelDelivered {
        id: InvocationId,
        life: u64,
        reason: String,
        at: Millis,
    },
    Begin {
        id: InvocationId,
        number: u32,
    },
    Send {
        to: ShardId,
        n: u64,
        envelope: Box<Envelope>,
    },
    Acknowledge {
        to: ShardId,
        n: u64,
    },
    Answer(Box<dyn FnOnce() + Send>),
    Run(crate::runs::RunEffect),
}

/// One actor in memory.
#[derive(Default)]
pub(crate) struct Actor {
    /// Open exclusive invocations; the first one holds the actor.
    pub queue: VecDeque<(u64, InvocationId)>,
    /// Used last at this count of touches.
    pub touched: u64,
    /// At most so many names are in its state; none if nobody has counted.
    pub names: Option<u64>,
}

pub(crate) struct Shard {
    pub id: ShardId,
    pub wiring: Arc<Wiring>,
    epoch: Epoch,
    pub durable_number: u64,
    /// What the clocks showed at the start of this turn.
    pub tick: Tick,
    pub head: ShardHead,
    drafts: Drafts<Effect>,
    overlay: Overlay,
    pub entropy: Entropy,
    pub actors: HashMap<ActorId, Actor>,
    pub lru: BTreeMap<u64, ActorId>,
    pub touches: u64,
    /// How many activations there were.
    pub lives: u64,
    pub active: IdMap<InvocationId, Box<Activation>>,
    pub runnable: turns::Turns,
    pub outbox: HashMap<ShardId, Pair>,
    pub taken: HashMap<ShardId, u64>,
    /// What it had sent to itself before it was opened: taken before anything of others.
    own_first: u64,
    /// Envelopes of others that came before that.
    early: VecDeque<(ShardId, u64, Envelope)>,
    pub timers: TimerQueue,
    pub waiters: IdMap<InvocationId, Vec<Reply<Answer>>>,
    /// Activities and blocking steps that run in this process.
    pub tasks: IdMap<(InvocationId, u32), crate::tasks::Running>,
    pub barriers: VecDeque<(u64, Effect)>,
    pub effects: VecDeque<Effect>,
    pub runs: crate::runs::Runs,
    /// What this shard lends, and what its tasks borrow.
    pub limits: limits::Limits,
    /// Walks of `verify`, the first one under way.
    pub walks: VecDeque<Box<verify::Walk>>,
    /// What tasks gave while their invocation could not take it.
    pub late: HashMap<InvocationId, Vec<activate::Outside>>,
    /// Invocations whose next attempt comes at once, because they are cancelled.
    pub revived: VecDeque<InvocationId>,
    /// Invocations that end without having started.
    pub doomed: VecDeque<InvocationId>,
    pub live_ready: std::collections::BTreeSet<u64>,
    pub kept_ready: IdMap<InvocationId, u64>,
    /// Holders that may wait for themselves: when they are looked at, and how often they were.
    pub watched: IdMap<InvocationId, ((Millis, u64), u32)>,
    /// The invocation that is being moved on: it is not in its place.
    pub moving: Option<InvocationId>,
    /// At most so many signals are kept under these prefixes, each that of an actor or an invocation.
    pub signals: HashMap<Key, u64>,
    /// The children that suspended handlers join, by the number of their spawn.
    pub joining: IdMap<InvocationId, Vec<u32>>,
    /// Invocations that were running when the last owner ended, with their ready rows, and have not come back yet.
    pub in_line: VecDeque<(InvocationId, u64)>,
    /// Those that have, and are in memory since.
    pub recovering: IdSet<InvocationId>,
    /// What tenants have open here.
    pub tenants: tenants::Tenants,
    /// What it knows of the decisions that it writes.
    decided: decisions::Decided,
    pub was_clean: bool,
    pub closed_clean: bool,
    owner: owner::Ownership,
}

impl Shard {
    /// Claims a shard and reads its head.
    pub(crate) async fn open(wiring: Arc<Wiring>, id: ShardId) -> Result<Shard, VerbError> {
        let mut entropy = Entropy::new(wiring.env.random.clone());
        let claim = wiring.store.claim(id, Owner(entropy.draw())).await?;
        let mut head = match wiring.store.get(id, key::shard_head()).await? {
            Some(bytes) => wire::decode::<ShardHead>("shard head", &bytes)?,
            None => ShardHead { clean: true, ..ShardHead::default() },
        };
        let owner = owner::Ownership::new(claim.epoch, wiring.store.get(id, key::owner()).await?);
        let was_clean = head.clean;
        head.clean = false;
        let tick = wiring.env.clock.tick();
        head.time = head.time.max(tick.wall);
        let mut shard = Shard {
            id,
            epoch: claim.epoch,
            durable_number: claim.last,
            tick,
            drafts: Drafts::new(claim.last),
            overlay: Overlay::default(),
            entropy,
            actors: HashMap::new(),
            lru: BTreeMap::new(),
            touches: 0,
            lives: 0,
            active: Default::default(),
            runnable: turns::Turns::default(),
            outbox: HashMap::new(),
            taken: HashMap::new(),
            own_first: 0,
            early: VecDeque::new(),
            timers: TimerQueue::default(),
            waiters: Default::default(),
            tasks: Default::default(),
            barriers: VecDeque::new(),
            effects: VecDeque::new(),
            runs: crate::runs::Runs::default(),
            limits: limits::Limits::default(),
            walks: VecDeque::new(),
            late: HashMap::new(),
            doomed: VecDeque::new(),
            revived: VecDeque::new(),
            live_ready: std::collections::BTreeSet::new(),
            kept_ready: Default::default(),
            watched: Default::default(),
            moving: None,
            signals: HashMap::new(),
            joining: Default::default(),
            in_line: VecDeque::new(),
            recovering: Default::default(),
            tenants: Default::default(),
            decided: Default::default(),
            was_clean,
            closed_clean: false,
            owner,
            head,
            wiring,
        };
        shard.load_marks().await?;
        Ok(shard)
    }

    async fn load_marks(&mut self) -> Result<(), VerbError> {
        let rows = self.scan_all(&key::all(Kind::Taken)).await?;
        for (row, value) in rows {
            if let Some(from) = row.get(3..5) {
                let from = ShardId(u16::from_be_bytes([from[0], from[1]]));
                self.taken.insert(from, wire::decode("mark", &value)?);
            }
        }
        self.load_tallies().await?;
        self.load_kept().await?;
        self.load_keys().await?;
        self.load_disabled().await?;
        self.load_timers().await
    }

    /// Goes on where the last owner stopped: sends what was not acknowledged, activates what was running.
    pub(crate) async fn recover(&mut self) {
        if let Err(error) = self.try_recover().await {
            self.wiring.stop(error.message);
        }
    }

    async fn try_recover(&mut self) -> Result<(), VerbError> {
        self.recover_outbox().await?;
        self.recover_ready().await
    }

    /// Shard time: never behind the last commit.
    pub(crate) fn now(&mut self) -> Millis {
        self.head.time = self.head.time.max(self.tick.wall);
        self.head.time
    }

    pub(crate) fn next_number(&mut self) -> u64 {
        let number = self.head.next;
        self.head.next += 1;
        number
    }

    /// A row, as this shard has decided it.
    pub(crate) async fn get(&self, key: Key) -> Result<Option<Bytes>, StoreError> {
        match self.overlay.get(&key) {
            Some(value) => Ok(value.clone()),
            None => self.wiring.store.get(self.id, key).await,
        }
    }

    /// Rows of a range, as this shard has decided them.
    pub(crate) async fn scan(&self, range: Range<Key>, limit: usize) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let extra = self.overlay.within(&range);
        let asked = limit.saturating_add(extra);
        let stored = self.wiring.store.scan(self.id, range.clone(), asked).await?;
        if extra == 0 {
            return Ok(stored.into_iter().take(limit).collect());
        }
        Ok(self.overlay.merge(&range, stored, asked, limit))
    }

    /// All rows under a prefix, by pages.
    pub(crate) async fn scan_all(&self, prefix: &Key) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let mut all = Vec::new();
        let mut range = under(prefix);
        loop {
            let page = self.scan(range.clone(), 1000).await?;
            let full = page.len() == 1000;
            if let Some((last, _)) = page.last() {
                let mut next = last.to_vec();
                next.push(0);
                range.start = Key::from(next);
            }
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// Writes a transition, whole. What rests on it is let out when it is durable.
    pub(crate) fn write(&mut self, mut writes: Writes, effects: Vec<Effect>) {
        self.now();
        self.tally(&mut writes);
        self.count_kept(&mut writes);
        self.closed_clean = false;
        self.sign();
        let head = &self.head;
        if let Err(too_large) = self.drafts.add(writes, effects, head, &mut self.overlay) {
            // Invariant: every caller bounds its transition by kernel::limit before it comes here.
            self.wiring.stop(format!(
                "a transition of {} operations and {} bytes does not fit a commit: this is a fault of the program; report it",
                too_large.ops, too_large.bytes
            ));
        }
    }

    /// Lets something out once all that was decided so far is durable.
    pub(crate) fn after_all(&mut self, effect: Effect) {
        if let Some(effect) = self.drafts.after_all(effect) {
            if self.durable_number >= self.drafts.last {
                // No commit says that it is still true.
                self.owner.unconfirmed |= matches!(effect, Effect::Answer(_));
                self.effects.push_back(effect);
            } else {
                self.barriers.push_back((self.drafts.last, effect));
            }
        }
    }

    /// Answers a client once all that was decided so far is durable.
    pub(crate) fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: Result<T, VerbError>) {
        self.after_all(Effect::Answer(Box::new(move || {
            let _ = reply.send(value);
        })));
    }

    /// Closes the commits of this turn.
    pub(crate) fn seal(&mut self) -> (Vec<Commit>, Vec<Submitted<Effect>>) {
        if self.drafts.is_empty() {
            return (Vec::new(), Vec::new());
        }
        self.drafts.seal(self.id, self.epoch)
    }

    /// A commit is durable.
    pub(crate) fn durable(&mut self, commit: Submitted<Effect>) {
        self.durable_number = commit.number;
        self.overlay.forget(commit.number, &commit.keys);
        self.effects.extend(commit.effects);
        while self.barriers.front().is_some_and(|barrier| barrier.0 <= commit.number) {
            self.effects.extend(self.barriers.pop_front().map(|barrier| barrier.1));
        }
    }

    /// Whether nothing of this shard wants a turn now.
    pub(crate) fn calm(&self) -> bool {
        !self.has_work() && self.next_due().is_none_or(|due| due > self.tick.wall)
    }

    /// Whether something of this shard moves by itself, time apart.
    pub(crate) fn has_work(&self) -> bool {
        !(self.effects.is_empty() && self.runnable.is_empty() && self.revived.is_empty() && self.doomed.is_empty())
            || self.limits.has_reports()
            || self.line_moves()
    }

    /// One turn: lets out what is durable, fires what is due, and polls what can move.
    pub(crate) async fn turn(&mut self) {
        self.pass_days();
        let mut advanced = 0;
        loop {
            self.still_owns().await;
            while let Some(effect) = self.effects.pop_front() {
                self.perform(effect);
            }
            self.fire_due().await;
            self.turn_runs().await;
            while let Some(id) = self.revived.pop_front() {
                self.activate_or_stop(id).await;
            }
            while let Some(id) = self.doomed.pop_front() {
                self.end_doomed(id).await;
            }
            if let Err(error) = self.recover_in_line().await {
                self.in_line.clear();
                self.wiring.stop(error.message);
            }
            for _ in 0..64 {
                let Some(id) = self.runnable.pop() else { break };
                self.advance(id).await;
                advanced += 1;
            }
            self.turn_limits().await;
            self.evict();
            if advanced >= ADVANCED_PER_TURN {
                // What this turn has decided goes to the disk, and what has come since is heard, before the next one.
                break;
            }
            if self.effects.is_empty() && self.runnable.is_empty() && !self.runs.performs() {
                // A slice of a walk comes when nothing else is left of this turn; its answer is let out in this turn.
                self.walk_on().await;
                if self.effects.is_empty() {
                    break;
                }
            }
        }
    }

    /// Marks the shard as closed in good order, once, when nothing else is on its way.
    pub(crate) fn write_clean(&mut self) {
        if !self.closed_clean && self.drafts.is_empty() && (self.drafts.last > 0) {
            self.head.clean = true;
            self.write(Writes::default(), Vec::new());
            self.closed_clean = true;
        }
    }

    /// Answers what is durable and does nothing else: this process closes.
    pub(crate) async fn let_out_answers(&mut self) {
        self.still_owns().await;
        for effect in std::mem::take(&mut self.effects) {
            if let Effect::Answer(answer) = effect {
                answer();
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted(id, life) => {
                if let Some(activation) = self.active.get_mut(&id).filter(|activation| activation.life == life) {
                    activation.durable = true;
                    self.enqueue_start(id);
                }
            }
            Effect::Deliver { id, life, number, given, at } => {
                if let Some(activation) = self.active.get_mut(&id).filter(|activation| activation.life == life) {
                    activation.deliveries.push_back(activate::Delivery::Given { number, given, at });
                    self.enqueue(id);
                }
            }
            Effect::CancelDelivered { id, life, reason, at } => {
                if let Some(activation) = self.active.get_mut(&id).filter(|activation| activation.life == life) {
                    activation.deliveries.push_back(activate::Delivery::Cancel { reason, at });
                    self.enqueue_first(id);
                }
            }
            Effect::Begin { id, number } => self.begin_task(id, number),
            Effect::Send { to, n, envelope } => {
                if !self.outbox.entry(to).or_default().lets_out(n) {
                    // It goes out of the store, in its order.
                    return;
                }
                self.wiring.send(to, crate::worker::Event::Envelope { from: self.id, to, n, envelope });
            }
            Effect::Acknowledge { to, n } => {
                self.wiring.send(to, crate::worker::Event::Taken { by: self.id, from: to, n });
            }
            Effect::Answer(answer) => answer(),
            Effect::Run(effect) => self.perform_run(effect),
        }
    }

    /// Puts an invocation in line for its turn.
    pub(crate) fn enqueue(&mut self, id: InvocationId) {
        self.line_up(id, false);
    }

    /// The same for one that starts.
    pub(crate) fn enqueue_start(&mut self, id: InvocationId) {
        self.line_up(id, true);
    }

    fn line_up(&mut self, id: InvocationId, starts: bool) {
        let tenant = self.active.get(&id).map_or("", |activation| activation.record.message.target.tenant.as_str());
        self.runnable.push(tenant, id, starts);
    }

    /// Puts an invocation before all others: it is signalled, or told to end.
    pub(crate) fn enqueue_first(&mut self, id: InvocationId) {
        self.runnable.push_first(id);
    }

    /// Reads a payload, wherever it is.
    pub(crate) async fn payload(&self, owner: selvedge_kernel::id::RawId, seal: Hash32, payload: &Payload) -> Result<Bytes, VerbError> {
        match payload {
            Payload::Inline(bytes) => Ok(bytes.clone()),
            Payload::Erased => Err(VerbError::new(Consequence::NotFound, "erased", "the payload was erased on request")),
            Payload::Chunked { len } => {
                let mut whole = Vec::with_capacity(usize::try_from(*len).unwrap_or(0));
                let mut n = 0;
                while (whole.len() as u64) < *len {
                    let row = key::chunk(owner, seal, n);
                    let piece = self.get(row).await?.ok_or_else(|| {
                        VerbError::new(Consequence::Stop, "store_damaged", format!("piece {n} of a payload of {len} bytes is missing: run `selvedge verify`"))
                    })?;
                    whole.extend_from_slice(&piece);
                    n += 1;
                }
                Ok(Bytes::from(whole))
            }
        }
    }

    /// Writes a large payload as chunks, before the commit that refers to it.
    pub(crate) fn write_chunks(&mut self, owner: selvedge_kernel::id::RawId, seal: Hash32, payload: &Bytes) {
        if payload.len() > selvedge_kernel::limit::INLINE_BYTES {
            self.write_all_chunks(owner, seal, payload);
        }
    }

    /// Writes a payload as chunks, whatever its size.
    pub(crate) fn write_all_chunks(&mut self, owner: selvedge_kernel::id::RawId, seal: Hash32, payload: &Bytes) {
        for rows in selvedge_kernel::transition::chunks(owner, seal, payload).chunks(4) {
            let mut writes = Writes::default();
            for (row, piece) in rows {
                writes.put(row.clone(), piece.clone());
            }
            self.write(writes, Vec::new());
        }
    }

    /// How long what is left of this invocation is kept: as its type says, and while its key may come again.
    pub(crate) fn keep_of(&self, record: &selvedge_kernel::record::invocation::Invocation) -> selvedge_kernel::transition::Keep {
        let mut keep = self.wiring.settings.keep;
        if let Some(retention) = self.options(&record.message.target.kind).retention {
            keep.finished = retention;
        }
        if record.message.idempotency_key.is_some() {
            keep.finished = keep.finished.max(keep.idempotency);
        }
        keep
    }

    pub(crate) fn options(&self, kind: &str) -> crate::registry::ActorOptions {
        self.wiring.registry.actors.get(kind).map(|actor| actor.options.clone()).unwrap_or_default()
    }
}

/// The error of a handler that nobody registered, with the nearest names.
pub(crate) fn unknown_handler(wiring: &Wiring, kind: &str, handler: &str) -> WorkError {
    let known = match wiring.registry.actors.get(kind) {
        Some(actor) => {
            let mut names: Vec<&str> = actor.handlers.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!("`{kind}` has {}", if names.is_empty() { "no handlers".to_owned() } else { names.join(", ") })
        }
        None => {
            let mut names: Vec<&str> = wiring.registry.actors.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!("the actor types here are {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
        }
    };
    WorkError::new("unknown_handler", format!("there is no handler {kind}.{handler}: {known}"))
}
