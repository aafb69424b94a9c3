//! An invocation that goes on as another one: `return Err(ctx.restart(input))`.

use bytes::Bytes;
use selvedge_kernel::error::AttemptError;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::SealKey;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::{Idempotent, Invocation, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{Message, Outcome, Peer};
use selvedge_kernel::record::shard::LedgerState;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::replay::Replay;
use selvedge_kernel::transition::{self, Ended, sent_id};
use selvedge_kernel::{limit, wire};

use super::accept::body_hash;
use super::activate::Activation;
use super::{Effect, Shard, VerbError};
use crate::core::within_body;

/// Callers of one key that move to the successor with the transition of the end.
const MOVED: usize = 16;

impl Shard {
    /// Ends an invocation and puts its successor in its place.
    pub(super) async fn restart(&mut self, id: InvocationId) {
        let Some(activation) = self.active.get(&id) else { return };
        let input = activation.core.state.borrow().restart.clone().unwrap_or_default();
        if let Err(error) = within_body(self.wiring.settings.limits.body_bytes, "the input of a restart", input.len()) {
            activation.core.state.borrow_mut().restart = None;
            return Box::pin(self.finish(id, Err(AttemptError { error, retryable: false, retry_after_ms: None }))).await;
        }
        let own = &activation.record.message;
        let message = Message {
            // No operation has this number.
            id: sent_id(own.id.0, u64::from(u32::MAX), &own.target),
            input,
            // Without a caller who waits until then, it has the whole time of its type again.
            deadline: own.deadline.filter(|_| own.reply_to.is_some()),
            ..own.clone()
        };
        let Some(mut activation) = self.drop_from_memory(id) else { return };
        let ended = Ended { status: Status::Completed, outcome: Outcome::Value(Bytes::from_static(b"null")), dead_letter: false };
        if let Err(error) = self.try_end(&mut activation, ended, Some(message)).await {
            self.wiring.stop(error.message);
        }
    }

    /// Accepts a successor in the transition of the end that makes room for it.
    pub(super) async fn succeed(&mut self, old: &Activation, message: Message, writes: &mut Writes, effects: &mut Vec<Effect>) -> Result<(), VerbError> {
        let (before, id) = (old.id(), message.id);
        let actor = message.target.clone();
        let input = message.input.clone();
        let seal_key = SealKey(self.entropy.draw());
        let (mut record, mut accepted) = self.accept(message, seal_key);
        // Its place in the inbox is the one that its predecessor had.
        let unused = key::inbox(&actor, record.order);
        let place = key::inbox(&actor, old.record.order);
        accepted.puts.retain(|put| put.key != unused && put.key != key::invocation(id));
        writes.deletes.retain(|gone| *gone != place);
        record.order = old.record.order;
        record.restarts.before = Some(before);
        record.joined = old.record.joined;
        accepted.put(place, wire::encode(&id));
        if let Some(idempotency) = &record.message.idempotency_key {
            // It leads to the successor from here on, still for the body that came under it.
            let body = old.record.restarts.body.unwrap_or_else(|| body_hash(&old.input));
            record.restarts.body = Some(body);
            let row = key::idempotency(&actor, &record.message.handler, idempotency);
            accepted.puts.retain(|put| put.key != row);
            accepted.put(row, wire::encode(&Idempotent { invocation: id, body }));
        }
        accepted.put(key::invocation(id), record.encode());
        let moved: Vec<_> = accepted.puts.iter().map(|put| put.key.clone()).collect();
        writes.puts.retain(|put| !moved.contains(&put.key));
        let ready = self.put_ready(&mut accepted, id);
        let keep = self.wiring.settings.keep;
        let mut activation = self.prepare(record, input, seal_key, Replay::default());
        activation.chunked = activation.input.len() > limit::INLINE_BYTES;
        activation.ready = Some(ready);
        activation.begun_any = true;
        let last = (activation.journal.chain, 0);
        transition::write_ledger(&mut self.head, &mut accepted, id.0, false, LedgerState::Accepted, last, &keep);
        writes.extend(accepted);
        effects.push(Effect::Accepted(id, activation.life));
        self.load_actor(&actor).await?;
        if let Some(found) = self.actors.get_mut(&actor) {
            found.queue.iter_mut().filter(|place| place.1 == before).for_each(|place| place.1 = id);
        }
        if let Some(waiters) = self.waiters.remove(&before) {
            self.waiters.entry(id).or_default().extend(waiters);
        }
        self.active.insert(id, Box::new(activation));
        self.enqueue(id);
        Ok(())
    }

    /// Those who joined an invocation by its key wait for its successor from here on. Gives false if there are too many
    /// for one transition: the rest follows in bounded steps behind it.
    pub(super) async fn move_joined(&mut self, activation: &Activation, writes: &mut Writes) -> Result<bool, VerbError> {
        let id = activation.id();
        let target = &activation.record.message.target;
        let successor = sent_id(id.0, u64::from(u32::MAX), target);
        let rows = self.scan(under(&key::of_id(Kind::Joined, id.0)), MOVED).await?;
        let whole = rows.len() < MOVED;
        for (row, value) in rows {
            if !super::leftovers::has_room(writes) {
                return Ok(false);
            }
            let peer: Peer = wire::decode("joined caller", &value)?;
            writes.delete(row);
            writes.put(key::joined(successor, &peer), wire::encode(&peer));
        }
        Ok(whole)
    }

    /// The last of those that went on from one another, from this one on.
    pub(super) async fn follow_restarts(&self, mut record: Invocation) -> Result<Invocation, VerbError> {
        while let Some(after) = record.restarts.after {
            // Its successor leaves later than it does.
            let Some(next) = self.record_in_memory(after).await? else { break };
            record = next;
        }
        Ok(record)
    }
}
