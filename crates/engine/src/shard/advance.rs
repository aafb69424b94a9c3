//! One turn of an invocation: deliver, poll until it rests, write what it called, begin what it awaits.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, Consequence};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, Entry, OpKind, seal};
use selvedge_kernel::limit;
use selvedge_kernel::record::invocation::{Begun, Blocked};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Message;
use selvedge_kernel::record::shard::LedgerState;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::replay::check_result;
use selvedge_kernel::transition::{self, sent_id};
use selvedge_kernel::wire;

use super::activate::{Activation, Delivery, Outside, Runs};
use super::{Effect, Shard, VerbError};
use crate::core::{Fresh, Given};
use crate::ctx::panicked;
use crate::env::Observation;
use crate::registry::Handler;

/// How often a handler may wake itself in one poll before it counts as waiting for something foreign.
const SELF_WAKES: u32 = 1_000;
/// Inline bytes of recorded reads in one transition; what is beyond is written before, in commits of its own.
const READ_BYTES: usize = 512 * 1024;

/// A poll of a handler that takes longer keeps the others of its thread waiting.
const SLOW_POLL: std::time::Duration = std::time::Duration::from_millis(100);

/// What the handler came to in a poll.
pub(super) enum Rest {
    Waits,
    Ended(crate::registry::Ended),
}

impl Shard {
    /// Moves an invocation on as far as it goes now. What seldom comes is boxed, here and below: the future of a turn is as
    /// large as its largest branch, and is moved for every result.
    pub(super) async fn advance(&mut self, id: InvocationId) {
        self.moving = Some(id);
        self.try_advance(id).await;
        self.moving = None;
    }

    async fn try_advance(&mut self, id: InvocationId) {
        let Some(mut activation) = self.active.remove(&id) else { return };
        let outcome = self.advance_taken(&mut activation).await;
        match outcome {
            Ok(Step::Keep) => {
                let rests = activation.rests();
                // What was brought back only to wait on does not count as running at the next unclean end.
                let waits_on = rests && activation.recovered && !self.runnable.contains(&id);
                let replay = self.wiring.settings.replay_always && rests && activation.begun_any && activation.handler == Runs::Replayed;
                self.active.insert(id, activation);
                if waits_on && self.wiring.settings.tasks == crate::wiring::Tasks::Start {
                    self.suspend(id);
                } else if replay && self.tasks.keys().all(|(owner, _)| *owner != id) {
                    Box::pin(self.drop_and_replay(id)).await;
                } else if rests && self.wiring.settings.tasks == crate::wiring::Tasks::Start {
                    self.plan_suspend(id);
                }
            }
            Ok(Step::Block(reason)) => {
                self.active.insert(id, activation);
                self.block(id, reason);
            }
            Ok(Step::Ended(ended)) => {
                // A worker that performed the handler as a whole is answered once its end is written.
                let told = if activation.handler == Runs::Transition { activation.told.pop() } else { None };
                self.active.insert(id, activation);
                Box::pin(self.finish(id, ended)).await;
                self.say_written(told.map(|(_, told)| told));
            }
            Err(error) if error.consequence == Consequence::Stop => {
                self.active.insert(id, activation);
                if error.code == "store_damaged" {
                    self.block(id, Blocked::Damaged { reason: error.message });
                } else {
                    self.wiring.stop(error.message);
                }
            }
            Err(error) => {
                self.active.insert(id, activation);
                if error.consequence == Consequence::Retry {
                    // What this turn has taken is in the store, or nowhere: the next start goes on from there.
                    self.wiring.stop(format!("{id} could not be moved on: {}; start again", error.message));
                } else {
                    self.block(id, Blocked::Damaged { reason: error.message });
                }
            }
        }
    }

    async fn drop_and_replay(&mut self, id: InvocationId) {
        let Some(old) = self.drop_from_memory(id) else { return };
        if let Some(ready) = old.ready {
            self.kept_ready.insert(id, ready);
        }
        match self.activate(id).await {
            Ok(true) => {
                if let Some(activation) = self.active.get_mut(&id) {
                    activation.begun_any = false;
                    activation.cancel_sent = old.cancel_sent;
                }
            }
            Ok(false) => {}
            Err(error) => self.wiring.stop(error.message),
        }
    }

    async fn advance_taken(&mut self, activation: &mut Activation) -> Result<Step, VerbError> {
        if self.wiring.settings.tasks == crate::wiring::Tasks::Leave && activation.record.message.handler != crate::edit::EDIT {
            // Its code may not even be in this process: it is accepted, and goes on elsewhere.
            if activation.pending.is_some() {
                self.flush(activation).await?;
            }
            return Ok(Step::Keep);
        }
        if activation.handler == Runs::Transition {
            return Box::pin(self.advance_transition(activation)).await;
        }
        if activation.future.is_none() {
            let message = &activation.record.message;
            let lacks = self.wiring.registry.pinned(&message.target.kind, &message.handler, activation.record.version).err();
            let missing = || Blocked::Missing { handler: format!("{}.{}", message.target.kind, message.handler) };
            return Ok(Step::Block(lacks.unwrap_or_else(missing)));
        }
        if activation.resting
            && activation.outside.is_empty()
            && let Some(delivery) = activation.deliveries.pop_front()
        {
            // Nothing but this result has come since it rested: it need not be asked before.
            activation.idle_since = self.now();
            self.deliver(activation, delivery).await?;
        }
        activation.resting = false;
        loop {
            if activation.core.state.borrow().replay.starved() {
                self.load_journal(activation).await?;
            }
            self.take_cancel(activation);
            let now = self.now();
            {
                let mut state = activation.core.state.borrow_mut();
                state.may_run = state.live && activation.durable && !activation.cancelling;
                if state.live && activation.journal.next == 0 && state.next == 0 {
                    state.now = activation.record.accepted_at.max(state.now);
                }
            }
            let before = activation.core.state.borrow().next;
            let rest = self.poll_to_rest(activation).await?;
            self.watch_journal(activation, before);
            if let Some(blocked) = activation.core.state.borrow_mut().blocked.take() {
                return Ok(Step::Block(blocked));
            }
            self.check_names(activation).await?;
            if let Some(error) = activation.core.state.borrow_mut().failed.take() {
                return Ok(Step::Ended(Err(AttemptError { error, retryable: false, retry_after_ms: None })));
            }
            let live = activation.core.state.borrow().live;
            if !live {
                if let Rest::Ended(result) = rest {
                    return self.ended_in_replay(activation, result).await;
                }
                let next = activation.core.state.borrow_mut().replay.next_result();
                if let Some(entry) = next {
                    if let Err(blocked) = self.deliver_entry(activation, entry).await? {
                        return Ok(Step::Block(blocked));
                    }
                    continue;
                }
                if activation.core.state.borrow().replay.more {
                    self.load_journal(activation).await?;
                    continue;
                }
                if let Err(blocked) = activation.core.state.borrow_mut().replay.finish() {
                    return Ok(Step::Block(blocked));
                }
                activation.core.state.borrow_mut().live = true;
                activation.idle_since = now;
                self.note_progress(activation);
                if let Some(reason) = activation.record.cancel.clone()
                    && !activation.cancel_sent
                    && !activation.outside.iter().any(|outside| matches!(outside, Outside::Cancel { .. }))
                {
                    activation.outside.push_back(Outside::Cancel { reason });
                }
                if !activation.durable {
                    self.flush(activation).await?;
                    return Ok(Step::Keep);
                }
                self.take_cancel(activation);
                activation.core.state.borrow_mut().may_run = !activation.cancelling;
                // What it called behind its journal comes before what it awaits.
                self.flush(activation).await?;
                // Steps that were waiting for the end of the replay start now.
                self.begin_all(activation).await?;
                continue;
            }
            if let Rest::Ended(result) = rest {
                return Ok(Step::Ended(result));
            }
            self.flush(activation).await?;
            let mut waits = self.begin_all(activation).await?;
            waits |= self.take_outside(activation).await?;
            self.decide_queued(activation);
            if let Some(delivery) = activation.deliveries.pop_front() {
                activation.idle_since = now;
                self.deliver(activation, delivery).await?;
                continue;
            }
            if waits {
                continue;
            }
            let state = activation.core.state.borrow();
            let nothing = state.ops.values().all(|op| op.given.is_some() || !op.polled) && activation.ahead == 0 && activation.undecided.is_empty();
            drop(state);
            if nothing && activation.durable && activation.outside.is_empty() && activation.deliveries.is_empty() {
                return Ok(Step::Block(Blocked::ForeignWait));
            }
            activation.resting = activation.durable && activation.outside.is_empty();
            return Ok(Step::Keep);
        }
    }

    /// A recovered invocation has got further since the last unclean end: what counts against it starts again.
    fn note_progress(&mut self, activation: &mut Activation) {
        let entries = activation.journal.next;
        let (count, at) = activation.record.crashes;
        if count > 0 && entries > at {
            activation.record.crashes = (1, entries);
            let mut writes = Writes::default();
            writes.put(key::invocation(activation.id()), activation.record.encode());
            self.write(writes, Vec::new());
        }
    }

    async fn deliver(&mut self, activation: &mut Activation, delivery: Delivery) -> Result<(), VerbError> {
        if activation.ahead == 0 {
            // It was decided before this invocation was brought back, and has been replayed since.
            return Ok(());
        }
        activation.ahead -= 1;
        match delivery {
            Delivery::Given { number, given, at } => activation.core.state.borrow_mut().deliver(number, given, at),
            Delivery::Cancel { reason, at } => {
                activation.cancelling = false;
                activation.undecided.clear();
                activation.told.clear();
                let gone = activation.core.state.borrow_mut().deliver_cancel(&reason, at);
                Box::pin(self.give_up(activation, gone)).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn deliver_entry(&mut self, activation: &mut Activation, entry: Entry) -> Result<Result<(), Blocked>, VerbError> {
        if entry.header.signature.kind == OpKind::Cancel {
            let reason = self.payload(activation.id().0, entry.seal, &entry.payload).await?;
            let reason = String::from_utf8_lossy(&reason).into_owned();
            let gone = activation.core.state.borrow_mut().deliver_cancel(&reason, entry.header.at);
            activation.cancel_sent = true;
            // What a kill left of giving them up.
            Box::pin(self.give_up(activation, gone)).await?;
            return Ok(Ok(()));
        }
        let number = entry.header.signature.number;
        let checked = check_result(&entry, activation.core.state.borrow().ops.get(&number).map(|op| &op.signature));
        if let Err(blocked) = checked {
            return Ok(Err(blocked));
        }
        let payload = self.payload(activation.id().0, entry.seal, &entry.payload).await?;
        let given = match entry.header.ending {
            Ending::Value => Given::Value(payload),
            Ending::TimeUp => Given::TimeUp,
            Ending::Error => Given::Error(wire::decode("error", &payload)?),
        };
        activation.core.state.borrow_mut().deliver(number, given, entry.header.at);
        Ok(Ok(()))
    }

    /// The handler ended while its journal still has entries: fine if it called what they record.
    pub(super) async fn ended_in_replay(&mut self, activation: &mut Activation, result: crate::registry::Ended) -> Result<Step, VerbError> {
        loop {
            let entry = activation.core.state.borrow_mut().replay.next_result();
            let Some(entry) = entry else {
                if !activation.core.state.borrow().replay.starved() {
                    break;
                }
                self.load_journal(activation).await?;
                continue;
            };
            if entry.header.signature.kind == OpKind::Cancel {
                continue;
            }
            let called = activation.core.state.borrow().ops.get(&entry.header.signature.number).map(|op| op.signature.clone());
            if let Err(blocked) = check_result(&entry, called.as_ref()) {
                return Ok(Step::Block(blocked));
            }
        }
        let mut state = activation.core.state.borrow_mut();
        if let Err(blocked) = state.replay.finish() {
            return Ok(Step::Block(blocked));
        }
        state.live = true;
        drop(state);
        Ok(Step::Ended(result))
    }

    /// Polls the handler until it waits or ends, reading for it what it asks of the state.
    pub(super) async fn poll_to_rest(&mut self, activation: &mut Activation) -> Result<Rest, VerbError> {
        let Some(mut future) = activation.future.take() else { return Ok(Rest::Waits) };
        let core = activation.core.clone();
        let waker = core.own.clone();
        let mut rounds = 0;
        loop {
            core.waker.in_poll.store(true, Ordering::SeqCst);
            core.wake_parts();
            core.waker.again.store(false, Ordering::SeqCst);
            let before = self.wiring.env.clock.monotonic();
            let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
            core.waker.in_poll.store(false, Ordering::SeqCst);
            if let (Some(before), Some(after)) = (before, self.wiring.env.clock.monotonic())
                && after.since(before) > SLOW_POLL
            {
                activation.slow_polls += 1;
                let message = &activation.record.message;
                let took = after.since(before);
                self.wiring.env.observe(&Observation::SlowPoll { invocation: message.id, actor: &message.target, handler: &message.handler, took });
            }
            let ended = match polled {
                Ok(Poll::Pending) => None,
                Ok(Poll::Ready(result)) => Some(result),
                Err(panic) => Some(Err(panicked(&*panic))),
            };
            if let Some(result) = ended {
                // What was called and not awaited is recorded too: a read with its value, a clear with its names.
                let loads = std::mem::take(&mut core.state.borrow_mut().loads);
                if core.state.borrow().blocked.is_none() {
                    for load in loads {
                        self.load(activation, load).await?;
                    }
                }
                if std::panic::catch_unwind(AssertUnwindSafe(|| drop(future))).is_err() {
                    self.wiring.dropped_badly(core.id);
                }
                return Ok(Rest::Ended(result));
            }
            let loads = std::mem::take(&mut core.state.borrow_mut().loads);
            let again = core.waker.again.load(Ordering::SeqCst);
            if loads.is_empty() && !again {
                break;
            }
            if loads.is_empty() {
                rounds += 1;
            }
            if rounds > SELF_WAKES {
                core.state.borrow_mut().blocked.get_or_insert(Blocked::ForeignWait);
            }
            if core.state.borrow().blocked.is_some() {
                break;
            }
            for load in loads {
                self.load(activation, load).await?;
            }
        }
        activation.future = Some(future);
        Ok(Rest::Waits)
    }

    /// Says once in the life of an invocation that its journal fills: not again when it is replayed.
    fn watch_journal(&self, activation: &Activation, before: u32) {
        let limit = activation.core.journal_limit;
        let (live, operations) = {
            let state = activation.core.state.borrow();
            (state.live, state.next)
        };
        let most = limit - limit / 5;
        if live && before < most && operations >= most {
            let message = &activation.record.message;
            let (invocation, actor, handler) = (message.id, &message.target, message.handler.as_str());
            self.wiring.env.observe(&Observation::JournalFills { invocation, actor, handler, operations, limit });
        }
    }

    /// Writes what the handler called since it last rested, in one transition.
    pub(super) async fn flush(&mut self, activation: &mut Activation) -> Result<(), VerbError> {
        let fresh = std::mem::take(&mut activation.core.state.borrow_mut().fresh);
        let mut writes = activation.pending.take().unwrap_or_default();
        let newly_accepted = !writes.puts.is_empty();
        let mut effects = Vec::new();
        self.write_fresh(activation, fresh, &mut writes, &mut effects).await?;
        if newly_accepted {
            let keep = self.wiring.settings.keep;
            let last = (activation.journal.chain, activation.journal.next);
            transition::write_ledger(&mut self.head, &mut writes, activation.id().0, false, LedgerState::Accepted, last, &keep);
            effects.push(Effect::Accepted(activation.id(), activation.life));
        }
        if writes != Writes::default() || !effects.is_empty() {
            activation.begun_any = true;
            self.write(writes, effects);
        }
        let children = std::mem::take(&mut activation.core.state.borrow_mut().cancel_children);
        if !children.is_empty() {
            Box::pin(self.cancel_children(activation, children, "the parent asked for it")).await?;
        }
        Ok(())
    }

    pub(super) async fn write_fresh(
        &mut self,
        activation: &mut Activation,
        fresh: Vec<Fresh>,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbError> {
        if fresh.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let id = activation.id();
        let actor = activation.record.message.target.clone();
        let mut entries = Vec::with_capacity(fresh.len());
        let nothing = Bytes::new();
        let mut read_bytes = 0;
        for fresh in fresh {
            match fresh {
                Fresh::Set { signature, name, value } => {
                    let sealed = seal(&activation.journal.key, &value);
                    let row = key::state(&actor, &name);
                    let more = kept::change(value.len()) - self.state_bytes(writes, &row).await?;
                    writes.keep(&actor.tenant, more);
                    writes.deletes.retain(|gone| *gone != row);
                    writes.puts.retain(|put| put.key != row);
                    writes.put(row, value);
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, Some(sealed), now);
                }
                Fresh::Delete { signature, name } => {
                    let row = key::state(&actor, &name);
                    let less = self.state_bytes(writes, &row).await?;
                    writes.keep(&actor.tenant, -less);
                    writes.puts.retain(|put| put.key != row);
                    if !writes.deletes.contains(&row) {
                        writes.delete(row);
                    }
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, None, now);
                }
                Fresh::Clear { signature, names } => {
                    let prefix = key::of_actor(Kind::State, &actor);
                    let less = self.cleared_bytes(writes, &actor, &names).await?;
                    writes.keep(&actor.tenant, -less);
                    writes.puts.retain(|put| !put.key.starts_with(&prefix));
                    for row in names.iter().map(|name| key::state(&actor, name)) {
                        if !writes.deletes.contains(&row) {
                            writes.delete(row);
                        }
                    }
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, None, now);
                }
                Fresh::Version { signature, version } => {
                    let payload = Bytes::from(version.to_string());
                    activation.journal.append(&mut entries, signature, Ending::Value, &payload, None, now);
                }
                Fresh::Read { signature, payload } => {
                    let payload = payload.unwrap_or_default();
                    let sealed = seal(&activation.journal.key, &payload);
                    read_bytes += payload.len();
                    if payload.len() > limit::INLINE_BYTES || read_bytes > READ_BYTES {
                        self.write_all_chunks(id.0, sealed, &payload);
                        activation.chunked = true;
                        activation.journal.append_chunked(&mut entries, signature, Ending::Value, &payload, None, now);
                    } else {
                        activation.journal.append(&mut entries, signature, Ending::Value, &payload, None, now);
                    }
                }
                Fresh::Emit { signature, data } => {
                    let sealed = seal(&activation.journal.key, &data);
                    activation.chunked = true;
                    let put_out = self.output_bytes(activation).await?;
                    activation.journal.output = Some(put_out + data.len() as u64);
                    writes.keep(&actor.tenant, kept::change(data.len()));
                    self.append_output(id, data, writes, now);
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, Some(sealed), now);
                }
                Fresh::Message { signature, spawn, target, handler, input, delay, idempotency_key } => {
                    let sealed = seal(&activation.journal.key, &input);
                    let number = signature.number;
                    activation.journal.append(&mut entries, signature.clone(), Ending::Value, &nothing, Some(sealed), now);
                    let peer = selvedge_kernel::record::message::Peer::Operation { invocation: id, number };
                    let message = self.message_from(activation, number, &target, &handler, input, idempotency_key, spawn.then_some(peer));
                    if spawn {
                        let mut row = Begun::new(signature, now);
                        row.peer = Some((target, message.id));
                        writes.put(key::begun(id, number), wire::encode(&row));
                        activation.core.state.borrow_mut().children.insert(number, row);
                    }
                    match delay {
                        Some(delay) => Box::pin(self.post_later(now.after(delay), message, writes, effects)).await?,
                        None => Box::pin(self.post(message, writes, effects)).await?,
                    }
                }
            }
        }
        activation.journal.write(writes, &entries, &actor.tenant);
        Ok(())
    }

    /// A message of an operation: it acts for the first caller, through this actor.
    pub(super) fn message_from(
        &self,
        activation: &Activation,
        number: u32,
        target: &selvedge_kernel::id::ActorId,
        handler: &str,
        input: Bytes,
        idempotency_key: Option<String>,
        reply_to: Option<selvedge_kernel::record::message::Peer>,
    ) -> Message {
        let own = &activation.record.message;
        let context = own.context.through(&own.target, &own.handler);
        let plain = Message::new(sent_id(own.id.0, u64::from(number), target), target.clone(), handler, input, context);
        Message { idempotency_key, trace: own.trace.clone(), reply_to, parent: reply_to.map(|_| own.id), ..plain }
    }

    /// An alarm or a wake that comes from nowhere: the handler awaits something foreign.
    pub(crate) fn woken(&mut self, id: InvocationId, foreign: bool) {
        if !self.active.contains_key(&id) {
            return;
        }
        if foreign {
            self.block(id, Blocked::ForeignWait);
        } else {
            self.enqueue(id);
        }
    }

    /// Whether a handler of this message runs as a transition.
    pub(crate) fn transition_of(&self, activation: &Activation) -> Option<crate::registry::Transition> {
        let record = &activation.record;
        match self.wiring.registry.pinned(&record.message.target.kind, &record.message.handler, record.version) {
            Ok(Handler::Transition(transition)) => Some(transition.clone()),
            _ => None,
        }
    }
}

/// The reason of a cancel that a deadline asks for.
pub(super) const DEADLINE: &str = "deadline";

/// What became of a turn of an invocation.
pub(super) enum Step {
    Keep,
    Block(Blocked),
    Ended(crate::registry::Ended),
}
