//! One turn of an invocation: deliver, poll until it rests, write what it called, begin what it awaits.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use selvedge_kernel::error::{AttemptError, Consequence, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Ending, Entry, OpKind, seal};
use selvedge_kernel::limit;
use selvedge_kernel::record::invocation::{Begun, Blocked, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Message, Outcome};
use selvedge_kernel::record::shard::{LedgerState, Timer};
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::replay::check_result;
use selvedge_kernel::time::Day;
use selvedge_kernel::transition::{self, AfterAttempt, Ended, after_attempt, sent_id};
use selvedge_kernel::wire;

use super::activate::{Activation, Delivery, Outside, Runs};
use super::{Effect, Shard, VerbError};
use crate::core::{Fresh, Given, Load, within_body};
use crate::ctx::{panicked, tag};
use crate::env::Observation;
use crate::registry::Handler;

/// How often a handler may wake itself in one poll before it counts as waiting for something foreign.
const SELF_WAKES: u32 = 1_000;
/// Inline bytes of recorded reads in one transition; what is beyond is written before, in commits of its own.
const READ_BYTES: usize = 512 * 1024;

/// A poll of a handler that takes longer keeps the others of its thread waiting.
const SLOW_POLL: std::time::Duration = std::time::Duration::from_millis(100);

/// What the handler came to in a poll.
enum Rest {
    Waits,
    Ended(crate::registry::Ended),
}

impl Shard {
    /// Moves an invocation on as far as it goes now.
    pub(super) async fn advance(&mut self, id: InvocationId) {
        let Some(mut activation) = self.active.remove(&id) else { return };
        let outcome = self.advance_taken(&mut activation).await;
        match outcome {
            Ok(Step::Keep) => {
                let rests = activation.rests();
                let replay = self.wiring.settings.replay_always && rests && activation.begun_any && activation.handler == Runs::Replayed;
                self.active.insert(id, activation);
                if replay && self.tasks.keys().all(|(owner, _)| *owner != id) {
                    self.drop_and_replay(id).await;
                } else if rests && self.wiring.settings.tasks == crate::wiring::Tasks::Start {
                    self.plan_suspend(id);
                }
            }
            Ok(Step::Block(reason)) => {
                self.active.insert(id, activation);
                self.block(id, reason);
            }
            Ok(Step::Ended(ended)) => {
                self.active.insert(id, activation);
                self.finish(id, ended).await;
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
        if self.wiring.settings.tasks == crate::wiring::Tasks::Leave {
            // Its code may not even be in this process: it is accepted, and goes on elsewhere.
            activation.core.state.borrow_mut().live = true;
            if activation.pending.is_some() {
                self.flush(activation).await?;
            }
            return Ok(Step::Keep);
        }
        if activation.handler == Runs::Transition {
            return self.advance_transition(activation).await;
        }
        if activation.future.is_none() {
            let message = &activation.record.message;
            return Ok(Step::Block(Blocked::Missing { handler: format!("{}.{}", message.target.kind, message.handler) }));
        }
        loop {
            if activation.core.state.borrow().replay.starved() {
                self.load_journal(activation).await?;
            }
            let now = self.now();
            {
                let mut state = activation.core.state.borrow_mut();
                state.may_run = state.live && activation.durable && !activation.cancelling;
                if state.live && activation.journal.next == 0 && state.next == 0 {
                    state.now = activation.record.accepted_at.max(state.now);
                }
            }
            let rest = self.poll_to_rest(activation).await?;
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
                activation.core.state.borrow_mut().may_run = true;
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
            writes.put(key::invocation(activation.id()), wire::encode(&activation.record));
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
                let gone = activation.core.state.borrow_mut().deliver_cancel(&reason, at);
                self.give_up(activation, gone).await?;
            }
        }
        Ok(())
    }

    async fn deliver_entry(&mut self, activation: &mut Activation, entry: Entry) -> Result<Result<(), Blocked>, VerbError> {
        if entry.header.signature.kind == OpKind::Cancel {
            let reason = self.payload(activation.id().0, entry.seal, &entry.payload).await?;
            let reason = String::from_utf8_lossy(&reason).into_owned();
            let gone = activation.core.state.borrow_mut().deliver_cancel(&reason, entry.header.at);
            activation.cancel_sent = true;
            // What a kill left of giving them up.
            self.give_up(activation, gone).await?;
            return Ok(Ok(()));
        }
        let number = entry.header.signature.number;
        let called = activation.core.state.borrow().ops.get(&number).map(|op| op.signature.clone());
        if let Err(blocked) = check_result(&entry, called.as_ref()) {
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
    async fn ended_in_replay(&mut self, activation: &mut Activation, result: crate::registry::Ended) -> Result<Step, VerbError> {
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
    async fn poll_to_rest(&mut self, activation: &mut Activation) -> Result<Rest, VerbError> {
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

    async fn load(&mut self, activation: &mut Activation, load: Load) -> Result<(), VerbError> {
        let actor = activation.record.message.target.clone();
        let name = match &load {
            Load::Recorded { entry, .. } if entry.header.signature.kind == OpKind::StateGet => Some(entry.header.signature.name.clone()),
            Load::Get { name, .. } => Some(name.clone()),
            _ => None,
        };
        let (number, value) = match load {
            Load::Recorded { number, entry } => (number, self.payload(activation.id().0, entry.seal, &entry.payload).await?),
            Load::Get { number, name } => {
                let stored = self.get(key::state(&actor, &name)).await?;
                (number, tag(stored.as_ref()))
            }
            Load::Clear { number } => {
                let kept: Vec<String> = self.state_entries(&actor, "").await?.into_iter().map(|entry| entry.0).collect();
                let mut state = activation.core.state.borrow_mut();
                state.charge_cleared(kept.len());
                for fresh in &mut state.fresh {
                    if let Fresh::Clear { signature, names } = fresh
                        && signature.number == number
                    {
                        names.clone_from(&kept);
                    }
                }
                return Ok(());
            }
            Load::Keys { number, prefix } => {
                let entries = self.own_entries(activation, &actor, &prefix).await?;
                let names: Vec<&String> = entries.iter().map(|entry| &entry.0).collect();
                (number, Bytes::from(serde_json::to_vec(&names).unwrap_or_default()))
            }
            Load::Entries { number, prefix } => {
                let entries = self.own_entries(activation, &actor, &prefix).await?;
                (number, object(&entries))
            }
        };
        let mut state = activation.core.state.borrow_mut();
        for fresh in &mut state.fresh {
            if let Fresh::Read { signature, payload } = fresh
                && signature.number == number
            {
                *payload = Some(value.clone());
            }
        }
        if let Some(name) = name {
            state.reading.remove(&name);
            state.view.entry(name).or_insert_with(|| crate::ctx::untag(&value));
        }
        state.reads.insert(number, value);
        Ok(())
    }

    /// The state under a prefix, with what this invocation has written and not committed yet.
    async fn own_entries(&self, activation: &Activation, actor: &selvedge_kernel::id::ActorId, prefix: &str) -> Result<Vec<(String, Bytes)>, VerbError> {
        let mut entries: std::collections::BTreeMap<String, Bytes> =
            if activation.core.state.borrow().cleared { Default::default() } else { self.state_entries(actor, prefix).await?.into_iter().collect() };
        let state = activation.core.state.borrow();
        for (name, value) in &state.view {
            if name.starts_with(prefix) {
                match value {
                    Some(value) => entries.insert(name.clone(), value.clone()),
                    None => entries.remove(name),
                };
            }
        }
        Ok(entries.into_iter().collect())
    }

    /// The committed state of an actor under a prefix.
    pub(crate) async fn state_entries(&self, actor: &selvedge_kernel::id::ActorId, prefix: &str) -> Result<Vec<(String, Bytes)>, VerbError> {
        let all = key::of_actor(Kind::State, actor);
        let rows = self.scan_all(&all).await?;
        let mut entries = Vec::new();
        for (row, value) in rows {
            if let Some(name) = row.get(all.len() + 2..).and_then(|name| std::str::from_utf8(name).ok())
                && name.starts_with(prefix)
            {
                entries.push((name.to_owned(), value));
            }
        }
        entries.sort();
        Ok(entries)
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
            self.cancel_children(activation, children, "the parent asked for it").await?;
        }
        Ok(())
    }

    async fn write_fresh(&mut self, activation: &mut Activation, fresh: Vec<Fresh>, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
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
                    writes.deletes.retain(|gone| *gone != row);
                    writes.puts.retain(|put| put.key != row);
                    writes.put(row, value);
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, Some(sealed), now);
                }
                Fresh::Delete { signature, name } => {
                    let row = key::state(&actor, &name);
                    writes.puts.retain(|put| put.key != row);
                    if !writes.deletes.contains(&row) {
                        writes.delete(row);
                    }
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, None, now);
                }
                Fresh::Clear { signature, names } => {
                    let prefix = key::of_actor(Kind::State, &actor);
                    writes.puts.retain(|put| !put.key.starts_with(&prefix));
                    for row in names.iter().map(|name| key::state(&actor, name)) {
                        if !writes.deletes.contains(&row) {
                            writes.delete(row);
                        }
                    }
                    activation.journal.append(&mut entries, signature, Ending::Value, &nothing, None, now);
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
                        Some(delay) if self.wiring.shard_of(&message.target) == self.id => {
                            self.set_timer(writes, now.after(delay), Timer::Message(Box::new(message)));
                        }
                        // The delay passes where the message goes, so that it is ordered there by its due time.
                        Some(delay) => self.post_later(now.after(delay), message, writes, effects).await?,
                        None => self.post(message, writes, effects).await?,
                    }
                }
            }
        }
        activation.journal.write(writes, &entries);
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
        Message {
            id: sent_id(own.id.0, u64::from(number), target),
            target: target.clone(),
            handler: handler.to_owned(),
            input,
            context: own.context.through(&own.target, &own.handler),
            idempotency_key,
            trace: own.trace.clone(),
            deadline: None,
            reply_to,
            parent: reply_to.map(|_| own.id),
            chain: Vec::new(),
        }
    }

    /// Ends an invocation, or plans its next attempt.
    pub(super) async fn finish(&mut self, id: InvocationId, result: crate::registry::Ended) {
        let Some(activation) = self.active.get(&id) else { return };
        let own = self.transition_of(activation).and_then(|transition| transition.retry);
        let retry = own.unwrap_or_else(|| self.options(&activation.record.message.target.kind).retry);
        let now = self.now();
        let Some(activation) = self.active.get(&id) else { return };
        let cancelled = activation.core.state.borrow().cancelled;
        let result = match result {
            Ok(value) => match within_body(self.wiring.settings.limits.body_bytes, "the result of the handler", value.len()) {
                Ok(()) => Ok(value),
                Err(error) => Err(AttemptError { error, retryable: false, retry_after_ms: None }),
            },
            Err(failure) => Err(AttemptError { error: failure.error.bounded(), ..failure }),
        };
        let ended = match result {
            Ok(value) => Ended { status: Status::Completed, outcome: Outcome::Value(value), dead_letter: false },
            Err(failure) if cancelled => {
                let error = cancel_error(activation.record.cancel.as_deref(), Some(failure.error));
                Ended { status: Status::Cancelled, outcome: Outcome::Error(error), dead_letter: false }
            }
            Err(failure) => match after_attempt(&activation.record, &failure, &retry, now) {
                AfterAttempt::End { error, dead_letter } => Ended { status: Status::Failed, outcome: Outcome::Error(error), dead_letter },
                AfterAttempt::Again { at } => return self.attempt_again(id, failure, at).await,
            },
        };
        self.end(id, ended).await;
    }

    async fn attempt_again(&mut self, id: InvocationId, failure: AttemptError, at: selvedge_kernel::time::Millis) {
        if let Some(mut activation) = self.active.remove(&id) {
            let flushed = self.flush(&mut activation).await;
            self.active.insert(id, activation);
            if let Err(error) = flushed {
                self.wiring.stop(error.message);
                return;
            }
        }
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        activation.record.attempt += 1;
        activation.record.status = Status::Running;
        activation.record.retry_at = Some(at);
        activation.record.last_error = Some(failure.error);
        let mut writes = Writes::default();
        writes.put(key::invocation(id), wire::encode(&activation.record));
        if let Some(ready) = activation.ready {
            self.delete_ready(&mut writes, ready);
        }
        self.set_timer(&mut writes, at, Timer::Attempt { invocation: id });
        self.write(writes, Vec::new());
    }

    /// The time of the next attempt has come.
    pub(super) async fn attempt_due(&mut self, id: InvocationId, timer: (selvedge_kernel::time::Millis, u64)) {
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, timer);
        match self.record(id).await {
            Ok(Some(mut record)) if record.retry_at.is_some() && !record.status.ended() => {
                record.retry_at = None;
                writes.put(key::invocation(id), wire::encode(&record));
                let ready = self.put_ready(&mut writes, id);
                self.write(writes, Vec::new());
                self.kept_ready.insert(id, ready);
                self.activate_or_stop(id).await;
            }
            Ok(_) => self.write(writes, Vec::new()),
            Err(error) => self.wiring.stop(error.message),
        }
    }

    pub(super) async fn activate_or_stop(&mut self, id: InvocationId) -> bool {
        match self.activate(id).await {
            Ok(found) => found,
            Err(error) => {
                self.wiring.stop(error.message);
                false
            }
        }
    }

    /// Ends an invocation for good: one transition, and the next in line starts.
    pub(super) async fn end(&mut self, id: InvocationId, ended: Ended) {
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        if let Err(error) = self.try_end(&mut activation, ended).await {
            self.wiring.stop(error.message);
        }
    }

    async fn try_end(&mut self, activation: &mut Activation, ended: Ended) -> Result<(), VerbError> {
        let id = activation.id();
        let mut writes = activation.pending.take().unwrap_or_default();
        let mut effects = Vec::new();
        let keep = self.keep_of(&activation.record);
        // What it called since it last rested happens with its end, if the end is a good one.
        let fresh = std::mem::take(&mut activation.core.state.borrow_mut().fresh);
        if matches!(ended.outcome, Outcome::Value(_)) {
            self.write_fresh(activation, fresh, &mut writes, &mut effects).await?;
        }
        if let Some((more, then)) = activation.closing.take()
            && matches!(ended.outcome, Outcome::Value(_))
        {
            super::accept::extend(&mut writes, more);
            effects.extend(then);
        }
        if let Outcome::Value(value) = &ended.outcome {
            let sealed = seal(&activation.journal.key, value);
            activation.chunked |= value.len() > limit::INLINE_BYTES;
            self.write_chunks(id.0, sealed, value);
        }
        let now = self.now();
        let begun = activation.begun_any || activation.durable;
        if let Some(timer) = activation.record.deadline_timer.take() {
            writes.puts.retain(|put| put.key != key::timer(timer.0, timer.1));
            self.clear_timer(&mut writes, timer);
        }
        let last = transition::end(&mut self.head, &mut activation.record, &activation.journal, &ended, &activation.input, &keep);
        super::accept::extend(&mut writes, last);
        if let Some(ready) = activation.ready {
            self.delete_ready(&mut writes, ready);
        }
        if let Some(peer) = activation.record.message.reply_to {
            self.reply(peer, id, ended.outcome.clone(), &mut writes, &mut effects).await?;
        }
        let mut left = false;
        if begun {
            left |= self.end_operations(activation, &mut writes, &mut effects).await?;
        }
        if activation.record.joined || activation.record.signalled {
            left |= !self.clear_leftovers(id, &ended.outcome, &mut writes, &mut effects).await?;
        }
        if left {
            self.set_timer(&mut writes, now, Timer::Leftovers { invocation: id });
        }
        if activation.chunked || activation.record.crashes.0 > 0 {
            let keep = if ended.dead_letter { keep.finished.max(keep.dead_letters) } else { keep.finished };
            self.set_timer(&mut writes, Day::expiry(now, keep).start(), Timer::Chunks { owner: id.0 });
        }
        let actor = activation.record.message.target.clone();
        let order = activation.record.order;
        self.load_actor(&actor).await?;
        let mut next = None;
        if let Some(found) = self.actors.get_mut(&actor) {
            let held = found.queue.front().is_some_and(|(place, _)| *place == order);
            found.queue.retain(|(place, _)| *place != order);
            // Only the end of the one that held the actor starts another.
            next = found.queue.front().map(|(_, id)| *id).filter(|_| held);
        }
        let next_ready = next.map(|next| (next, self.put_ready(&mut writes, next)));
        if let Some(waiters) = self.waiters.remove(&id) {
            let outcome = ended.outcome.clone();
            effects.push(Effect::Answer(Box::new(move || {
                for waiter in waiters {
                    let _ = waiter.send(Ok(super::Answer { id: Some(id), progress: super::Progress::Ended(outcome.clone()) }));
                }
            })));
        }
        self.write(writes, effects);
        if let Some((next, ready)) = next_ready {
            self.kept_ready.insert(next, ready);
            if self.record(next).await?.is_some_and(|record| record.cancel.is_some()) {
                // It was cancelled before its turn: it is never started.
                self.doomed.push_back(next);
            } else {
                self.activate_or_stop(next).await;
            }
        }
        Ok(())
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
        match self.wiring.registry.handler(&activation.record.message.target.kind, &activation.record.message.handler) {
            Some(Handler::Transition(transition)) => Some(transition.clone()),
            _ => None,
        }
    }
}

/// The error of an invocation that ended because somebody, or its deadline, asked it to.
pub(super) fn cancel_error(reason: Option<&str>, own: Option<WorkError>) -> WorkError {
    match (reason, own) {
        (Some(DEADLINE), Some(own)) if own.code != "cancelled" => WorkError::new("deadline", format!("its deadline passed before it had ended; it said {own}")),
        (Some(DEADLINE), _) => WorkError::new("deadline", "its deadline passed before it had ended"),
        (_, Some(own)) => own,
        (Some(reason), None) => WorkError::new("cancelled", reason),
        (None, None) => WorkError::new("cancelled", "it was cancelled"),
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

/// A JSON object of values that are JSON already.
pub(crate) fn object(entries: &[(String, Bytes)]) -> Bytes {
    let mut json = vec![b'{'];
    for (name, value) in entries {
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(&serde_json::to_vec(name).unwrap_or_default());
        json.push(b':');
        json.extend_from_slice(value);
    }
    json.push(b'}');
    Bytes::from(json)
}
