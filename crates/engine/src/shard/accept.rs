//! The way in: a message becomes an invocation, or an answer.

use std::task::Poll;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Resource, from_message};
use selvedge_kernel::error::{AttemptError, Consequence, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{Hash32, Payload, SealKey, seal};
use selvedge_kernel::record::actor::DeadLetter;
use selvedge_kernel::record::invocation::{Idempotent, Invocation};
use selvedge_kernel::record::message::{Delayed, Message, Outcome};
use selvedge_kernel::record::shard::{LedgerState, Timer};
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::replay::Replay;
use selvedge_kernel::time::{Day, Millis};
use selvedge_kernel::transition;
use selvedge_kernel::wire;

use super::{Answer, Command, Effect, Progress, Shard, VerbError, unknown_handler};
use crate::happened::Became;
use crate::registry::{Handler, RunShared};
use crate::view::Ask;

impl Shard {
    /// Performs a verb.
    pub(crate) async fn command(&mut self, command: Command) {
        match command {
            Command::Invoke { message, wait, delay, reply } => match self.invoke(message, wait, delay).await {
                Ok(Some(answer)) => self.answer(reply, Ok(answer)),
                Ok(None) => {}
                Err(Refused::Wait(id)) => self.wait_for(id, reply),
                Err(Refused::Error(error)) => self.answer(reply, Err(error)),
            },
            Command::Edit { message, reply } => match self.edit(message).await {
                Ok(answer) => self.answer(reply, Ok(answer)),
                Err(Refused::Wait(id)) => self.wait_for(id, reply),
                Err(Refused::Error(error)) => self.answer(reply, Err(error)),
            },
            other => self.inspect(other).await,
        }
    }

    async fn invoke(&mut self, message: Message, wait: bool, delay: Option<std::time::Duration>) -> Result<Option<Answer>, Refused> {
        let handler = self.wiring.registry.handler(&message.target.kind, &message.handler).cloned();
        let Some(handler) = handler else {
            let error = unknown_handler(&self.wiring, &message.target.kind, &message.handler);
            return Err(VerbError { consequence: Consequence::NotFound, code: error.code, message: error.message }.into());
        };
        if let Handler::Shared(shared) = handler {
            let outcome = self.run_shared(&shared, &message).await;
            return Ok(Some(Answer { joined: false, id: None, progress: Progress::Ended(outcome) }));
        }
        let id = message.id;
        if let Some(found) = self.known(&message).await? {
            return self.join(found, wait).await;
        }
        if let Some(late) = self.too_late(&message) {
            return Err(VerbError { consequence: Consequence::FixInput, code: late.code, message: late.message }.into());
        }
        self.room_to_keep(&message.target.tenant)?;
        if let Some(delay) = delay {
            self.room_for_delayed(&message.target.tenant)?;
            let mut writes = Writes::default();
            let now = self.now();
            if let Some(idempotency) = &message.idempotency_key {
                let row = Idempotent { invocation: id, body: body_hash(&message.input) };
                writes.put(key::idempotency(&message.target, &message.handler, idempotency), wire::encode(&row));
            }
            self.delay_message(&mut writes, now.after(delay), message);
            self.write(writes, Vec::new());
            return Ok(Some(Answer { joined: false, id: Some(id), progress: Progress::Open }));
        }
        self.room(&message).await?;
        if wait && message.idempotency_key.is_none() {
            self.admit(message, None).await?;
            return Err(Refused::Wait(id));
        }
        // Its id goes out before it ends, or a second start may look for its key in this very turn: it is written first.
        let (mut writes, mut effects) = (Writes::default(), Vec::new());
        self.admit(message, Some((&mut writes, &mut effects))).await?;
        self.write(writes, effects);
        if wait { Err(Refused::Wait(id)) } else { Ok(Some(Answer { joined: false, id: Some(id), progress: Progress::Open })) }
    }

    /// What the message's idempotency key led to before.
    pub(super) async fn known(&mut self, message: &Message) -> Result<Option<InvocationId>, VerbError> {
        let Some(idempotency) = &message.idempotency_key else { return Ok(None) };
        let Some(bytes) = self.get(key::idempotency(&message.target, &message.handler, idempotency)).await? else { return Ok(None) };
        let known: Idempotent = wire::decode("idempotency row", &bytes)?;
        let id = known.invocation;
        if !self.active.contains_key(&id) && self.record(id).await?.is_none() && self.get(key::delayed(id)).await?.is_none() {
            // What it led to has left by retention.
            return Ok(None);
        }
        if known.body != Idempotent::ERASED && known.body != body_hash(&message.input) {
            return Err(VerbError::new(
                Consequence::Conflict,
                "idempotency_mismatch",
                format!(
                    "the idempotency key `{idempotency}` was used for {}.{} with another body ({}): send the same body, or take a new key",
                    message.target, message.handler, known.invocation
                ),
            ));
        }
        Ok(Some(known.invocation))
    }

    /// Joins an invocation that an idempotency key led to.
    async fn join(&mut self, id: InvocationId, wait: bool) -> Result<Option<Answer>, Refused> {
        let record = self.record(id).await?;
        match record {
            Some(record) if record.status.ended() => {
                let outcome = self.outcome(&record).await?;
                Ok(Some(Answer { joined: false, id: Some(id), progress: Progress::Ended(outcome) }))
            }
            _ if wait => Err(Refused::Wait(id)),
            _ => Ok(Some(Answer { joined: true, id: Some(id), progress: Progress::Open })),
        }
    }

    /// How an ended invocation ended.
    pub(crate) async fn outcome(&self, record: &Invocation) -> Result<Outcome, VerbError> {
        let Some(end) = &record.end else { return Ok(Outcome::Error(WorkError::new("open", "it has not ended"))) };
        if let Some(error) = &end.error {
            return Ok(Outcome::Error(error.clone()));
        }
        match &end.value {
            Some(selvedge_kernel::journal::Payload::Inline(value)) => Ok(Outcome::Value(value.clone())),
            Some(payload) => {
                let id = record.message.id;
                let sealed = end.value_seal.unwrap_or_default();
                Ok(Outcome::Value(self.payload(id.0, sealed, payload).await?))
            }
            None => Ok(Outcome::Value(Bytes::from_static(b"null"))),
        }
    }

    /// Answers when an invocation ends, and forgets who has gone away since.
    pub(super) fn wait_for(&mut self, id: InvocationId, reply: super::Reply<Answer>) {
        let waiters = self.waiters.entry(id).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(reply);
    }

    /// Tells whoever waits for an invocation how it ended, once that is durable.
    pub(super) fn tell_waiters(&mut self, id: InvocationId, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(waiters) = self.waiters.remove(&id) else { return };
        effects.push(Effect::Answer(Box::new(move || {
            for waiter in waiters {
                let _ = waiter.send(Ok(Answer { joined: false, id: Some(id), progress: Progress::Ended(outcome.clone()) }));
            }
        })));
    }

    /// A message past its deadline is never started.
    fn too_late(&mut self, message: &Message) -> Option<WorkError> {
        let now = self.now();
        let late = message.deadline.is_some_and(|deadline| deadline <= now);
        late.then(|| WorkError::new("deadline", format!("{}.{} was not started: its deadline had passed when it came", message.target, message.handler)))
    }

    /// Whoever sent it may have been allowed to when it set out, and may not be any more.
    fn denied(&self, message: &Message) -> Option<WorkError> {
        let handler = || Resource::Handler { actor: message.target.clone(), handler: message.handler.clone() };
        self.wiring.denied(from_message(message), Action::Invoke, handler)
    }

    /// Whether there is room for one more: in the actor's inbox, and among what its tenant has open.
    pub(super) async fn room(&mut self, message: &Message) -> Result<(), VerbError> {
        self.room_in_inbox(message).await?;
        self.room_of_tenant(&message.target.tenant)
    }

    async fn room_in_inbox(&mut self, message: &Message) -> Result<(), VerbError> {
        self.load_actor(&message.target).await?;
        let waiting = self.actors.get(&message.target).map_or(0, |actor| actor.queue.len()) as u64;
        let bound = self.wiring.settings.limits.inbox;
        if waiting >= bound {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: inbox",
                format!("{} has {waiting} messages waiting, the limit of one inbox is {bound}: wait until it has worked some off", message.target),
            ));
        }
        Ok(())
    }

    /// Makes an invocation of a message. With `into`, its rows go into that transition, and it runs once they are
    /// durable; without, it runs at once, and its rows go with the first thing that it lets out.
    pub(super) async fn admit(&mut self, message: Message, into: Option<(&mut Writes, &mut Vec<Effect>)>) -> Result<(), VerbError> {
        self.now();
        self.load_actor(&message.target).await?;
        let id = message.id;
        let actor = message.target.clone();
        let input = message.input.clone();
        let seal_key = SealKey(self.entropy.draw());
        let (record, mut accepted) = self.accept(message, seal_key);
        let order = record.order;
        let first = match self.actors.get_mut(&actor) {
            Some(found) => {
                found.queue.push_back((order, id));
                found.queue.len() == 1
            }
            None => false,
        };
        let mut told = Vec::new();
        self.tell_of(&mut told, Became::Started, false, |became| super::ending::of_invocation(&record.message, became));
        told.into_iter().for_each(|effect| self.after_all(effect));
        let ready = if first { Some(self.put_ready(&mut accepted, id)) } else { None };
        let keep = self.wiring.settings.keep;
        if first {
            let mut activation = self.prepare(record, input, seal_key, Replay::default());
            activation.chunked = activation.input.len() > selvedge_kernel::limit::INLINE_BYTES;
            activation.ready = ready;
            match into {
                None => activation.pending = Some(accepted),
                Some((writes, effects)) => {
                    let last = (activation.journal.chain, 0);
                    transition::write_ledger(&mut self.head, &mut accepted, id.0, false, LedgerState::Accepted, last, &keep);
                    writes.extend(accepted);
                    effects.push(Effect::Accepted(id, activation.life));
                    activation.begun_any = true;
                }
            }
            self.active.insert(id, Box::new(activation));
            self.enqueue_start(id);
            return Ok(());
        }
        if record.message.reply_to.is_some()
            && let Some(holder) = self.actors.get(&actor).and_then(|found| found.queue.front()).map(|first| first.1)
        {
            self.watch_behind(holder, &mut accepted).await?;
        }
        let last = (selvedge_kernel::journal::chain_start(id.0, record.input_seal), 0);
        transition::write_ledger(&mut self.head, &mut accepted, id.0, false, LedgerState::Accepted, last, &keep);
        match into {
            None => self.write(accepted, Vec::new()),
            Some((writes, _)) => writes.extend(accepted),
        }
        Ok(())
    }

    /// The record of a message that is taken, and its rows.
    pub(super) fn accept(&mut self, message: Message, seal_key: SealKey) -> (Invocation, Writes) {
        let id = message.id;
        let deadline = message.deadline;
        let kind = message.target.kind.clone();
        if message.input.len() > selvedge_kernel::limit::INLINE_BYTES {
            self.write_chunks(id.0, seal(&seal_key, &message.input), &message.input);
        }
        let body = body_hash(&message.input);
        let code = self.wiring.code(&kind, &message.handler);
        let (mut record, mut accepted) = transition::accept(&mut self.head, message, code, seal_key, body);
        let total = self.options(&kind).timeout.map(|total| record.accepted_at.after(total));
        if let Some(deadline) = [deadline, total].into_iter().flatten().min() {
            record.message.deadline = Some(deadline);
            record.deadline_timer = Some(self.set_timer(&mut accepted, deadline, Timer::Deadline { invocation: id }));
            accepted.puts.retain(|put| put.key != key::invocation(id));
            accepted.put(key::invocation(id), record.encode());
        }
        (record, accepted)
    }

    /// Takes a message of another actor or run, in a transition. It never fails the transition: what cannot be taken
    /// is answered `refused`.
    pub(super) async fn accept_message(&mut self, message: Message, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        self.accept_or_refuse(message, false, writes, effects).await
    }

    /// The same. One that was `accepted` before, and is due now, its tenant's limit does not refuse any more.
    async fn accept_or_refuse(&mut self, message: Message, accepted: bool, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let handler = self.wiring.registry.handler(&message.target.kind, &message.handler).cloned();
        let refused = match &handler {
            None => Some(WorkError::new("refused", unknown_handler(&self.wiring, &message.target.kind, &message.handler).message)),
            Some(Handler::Shared(shared)) => {
                let outcome = match self.denied(&message) {
                    Some(error) => Outcome::Error(error),
                    None => self.run_shared(shared, &message).await,
                };
                if let Some(peer) = message.reply_to {
                    self.reply_by_envelope(peer, message.id, outcome, writes, effects).await?;
                }
                return Ok(());
            }
            Some(_) => None,
        };
        let denied = self.denied(&message);
        let refused = match refused {
            Some(error) => Some(error),
            None if self.record(message.id).await?.is_some() => return Ok(()),
            None if self.too_late(&message).is_some() => self.too_late(&message),
            None if denied.is_some() => denied,
            None => match self.known(&message).await {
                // Its key may lead to itself: it was written with its delay.
                Ok(known) if known.is_none_or(|known| known == message.id) => {
                    let room = if accepted { self.room_in_inbox(&message).await } else { self.room(&message).await };
                    room.err().map(|error| WorkError::new("refused", error.message))
                }
                Ok(None) => None,
                Ok(Some(known)) => return self.join_message(message, known, writes, effects).await,
                Err(error) if error.consequence == Consequence::Conflict => Some(WorkError::new("refused", error.message)),
                Err(error) => return Err(error),
            },
        };
        match refused {
            None => self.admit(message, Some((writes, effects))).await,
            Some(error) => match message.reply_to {
                Some(peer) => self.reply_by_envelope(peer, message.id, Outcome::Error(error), writes, effects).await,
                None => {
                    self.tell_waiters(message.id, Outcome::Error(error.clone()), effects);
                    self.forget_key(&message, writes).await?;
                    self.keep_refused(message, error, writes);
                    Ok(())
                }
            },
        }
    }

    /// A delayed message has its key from when it came. Refused when it was due, it has led to nothing.
    async fn forget_key(&self, message: &Message, writes: &mut Writes) -> Result<(), VerbError> {
        let Some(idempotency) = &message.idempotency_key else { return Ok(()) };
        let row = key::idempotency(&message.target, &message.handler, idempotency);
        if let Some(known) = self.get(row.clone()).await?
            && wire::decode::<Idempotent>("idempotency row", &known)?.invocation == message.id
        {
            writes.delete(row);
        }
        Ok(())
    }

    pub(super) fn keep_refused(&mut self, mut message: Message, error: WorkError, writes: &mut Writes) {
        let at = self.now();
        let keep = self.wiring.settings.keep.dead_letters;
        let input = transition::place(&message.input);
        let input_seal = body_hash(&message.input);
        let until = Day::expiry(at, keep);
        if let Payload::Chunked { .. } = input {
            let whole = std::mem::take(&mut message.input);
            let owner = message.id.0;
            self.write_chunks(owner, input_seal, &whole);
            self.set_timer(writes, until.start(), Timer::Chunks { owner });
        }
        let letter = DeadLetter { attempts: 0, error: error.bounded(), at, input, input_seal, message };
        writes.keep_until(&letter.message.target.tenant, until, kept::change(letter.input.bytes()));
        writes.put_until(key::dead_letter(letter.message.id), wire::encode(&letter), until);
    }

    /// Counts that a dead letter leaves before its day.
    pub(super) fn letter_leaves(&self, letter: &DeadLetter, writes: &mut Writes) {
        let until = Day::expiry(letter.at, self.wiring.settings.keep.dead_letters);
        writes.keep_until(&letter.message.target.tenant, until, -kept::change(letter.input.bytes()));
    }

    /// A message whose idempotency key led to another invocation: its caller gets that one's outcome.
    async fn join_message(&mut self, message: Message, known: InvocationId, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let Some(peer) = message.reply_to else { return Ok(()) };
        match self.record(known).await? {
            Some(record) if record.status.ended() => {
                let outcome = self.outcome(&record).await?;
                self.reply_by_envelope(peer, known, outcome, writes, effects).await
            }
            Some(mut record) => {
                writes.put(key::joined(known, &peer), wire::encode(&peer));
                if let Some(activation) = self.active.get_mut(&known) {
                    activation.record.joined = true;
                    record = activation.record.clone();
                }
                record.joined = true;
                writes.put(key::invocation(known), record.encode());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A message of a client that is not due yet, when it is, and how long its input.
    pub(super) async fn delayed(&self, id: InvocationId) -> Result<Option<(Delayed, u64, Message)>, VerbError> {
        let Some(row) = self.get(key::delayed(id)).await? else { return Ok(None) };
        let delayed: Delayed = wire::decode("delayed message", &row)?;
        let Some(timer) = self.get(key::timer(delayed.timer.0, delayed.timer.1)).await? else { return Ok(None) };
        Ok(match wire::decode("timer", &timer)? {
            Timer::Message(message) => Some((delayed, message.input.len() as u64, *message)),
            Timer::LargeMessage { message, len, .. } => Some((delayed, len, *message)),
            _ => None,
        })
    }

    /// Keeps a message until it is due, where its id leads to its timer.
    pub(super) fn delay_message(&mut self, writes: &mut Writes, at: Millis, message: Message) {
        let (id, now, tenant) = (message.id, self.now(), message.target.tenant.clone());
        writes.keep(&tenant, kept::change(message.input.len()));
        let timer = self.set_timer(writes, at, Timer::Message(Box::new(message)));
        writes.put(key::delayed(id), wire::encode(&Delayed { timer, at: now }));
        writes.count(&tenant, 0, 1);
    }

    /// Takes a delayed message back before it is due; false if there is none.
    pub(super) async fn cancel_delayed(&mut self, id: InvocationId) -> Result<bool, VerbError> {
        let Some((delayed, bytes, message)) = self.delayed(id).await? else { return Ok(false) };
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, delayed.timer);
        writes.delete(key::delayed(id));
        writes.count(&message.target.tenant, 0, -1);
        writes.keep(&message.target.tenant, -kept::change(bytes));
        if let Some(idempotency) = &message.idempotency_key {
            writes.delete(key::idempotency(&message.target, &message.handler, idempotency));
        }
        // A large input lies in chunks of its own.
        let now = self.now();
        self.set_timer(&mut writes, now, Timer::Chunks { owner: id.0 });
        let mut effects = Vec::new();
        self.tell_waiters(id, Outcome::Error(WorkError::new("cancelled", "it was cancelled before it was due")), &mut effects);
        self.write(writes, effects);
        Ok(true)
    }

    /// A delayed message is due.
    pub(super) async fn deliver_message(&mut self, message: Message, mut writes: Writes) {
        let mut effects = Vec::new();
        match self.accept_or_refuse(message, true, &mut writes, &mut effects).await {
            Ok(()) => self.write(writes, effects),
            Err(error) => self.wiring.stop(error.message),
        }
    }

    /// The same, for one whose input lies in chunks.
    pub(super) async fn deliver_large(&mut self, mut message: Message, seal: Hash32, len: u64, writes: Writes) {
        let owner = message.id.0;
        match self.payload(owner, seal, &Payload::Chunked { len }).await {
            Ok(input) => message.input = input,
            Err(error) => return self.wiring.stop(error.message),
        }
        self.deliver_message(message, writes).await;
        // Its invocation has chunks of its own by now, under its own seal.
        let pieces: Vec<u32> = (0..u32::try_from(len.div_ceil(selvedge_kernel::limit::CHUNK_BYTES as u64)).unwrap_or(u32::MAX)).collect();
        for some in pieces.chunks(60) {
            let mut writes = Writes::default();
            some.iter().for_each(|piece| writes.delete(key::chunk(owner, seal, *piece)));
            self.write(writes, Vec::new());
        }
    }

    /// Runs a shared handler on what the actor's state is now.
    async fn run_shared(&mut self, shared: &RunShared, message: &Message) -> Outcome {
        let view = self.view(&message.target, &message.context);
        let state = view.state.clone();
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shared(view, message.input.clone())));
        let mut future = match run {
            Ok(future) => future,
            Err(panic) => return Outcome::Error(crate::ctx::panicked(&*panic).error),
        };
        loop {
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Shard::poll_plain(&mut future)));
            match polled {
                Ok(Poll::Ready(result)) => {
                    return match result {
                        Ok(value) => Outcome::Value(value),
                        Err(AttemptError { error, .. }) => Outcome::Error(error),
                    };
                }
                Err(panic) => return Outcome::Error(crate::ctx::panicked(&*panic).error),
                Ok(Poll::Pending) => {}
            }
            let asked = std::mem::take(&mut state.borrow_mut().asked);
            if asked.is_empty() {
                return Outcome::Error(WorkError::new("foreign_wait", "a shared handler may await reads of its view only"));
            }
            for ask in asked {
                match self.look(&message.target, &ask).await {
                    Ok(value) => {
                        state.borrow_mut().known.insert(ask, value);
                    }
                    Err(error) => return Outcome::Error(WorkError::new(error.code, error.message)),
                }
            }
        }
    }

    async fn look(&self, actor: &selvedge_kernel::id::ActorId, ask: &Ask) -> Result<Bytes, VerbError> {
        match ask {
            Ask::Get(name) => Ok(crate::ctx::tag(self.get(key::state(actor, name)).await?.as_ref())),
            Ask::Keys(prefix) => {
                let entries = self.state_entries(actor, prefix).await?;
                let names: Vec<&String> = entries.iter().map(|entry| &entry.0).collect();
                Ok(Bytes::from(serde_json::to_vec(&names).unwrap_or_default()))
            }
            Ask::Entries(prefix) => Ok(super::reads::object(&self.state_entries(actor, prefix).await?)),
        }
    }

    /// Whether an invocation is at the head of its actor's queue.
    pub(super) async fn holds_actor(&mut self, record: &Invocation) -> Result<bool, VerbError> {
        let actor = record.message.target.clone();
        self.load_actor(&actor).await?;
        Ok(self.actors.get(&actor).and_then(|actor| actor.queue.front()).is_some_and(|(order, _)| *order == record.order))
    }
}

/// Why a call did not get an answer at once.
pub(super) enum Refused {
    /// It will, when this invocation ends.
    Wait(InvocationId),
    /// It does not.
    Error(VerbError),
}

impl From<VerbError> for Refused {
    fn from(error: VerbError) -> Refused {
        Refused::Error(error)
    }
}

pub(super) fn body_hash(body: &Bytes) -> Hash32 {
    Hash32(*blake3::hash(body).as_bytes())
}
