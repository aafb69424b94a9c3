//! Signals: kept until somebody waits for them, first in, first out.

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::{ActorId, InvocationId, Key, RawId};
use selvedge_kernel::journal::{Hash32, OpKind, Payload};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::{KeptSignal, Message};
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use super::activate::{Activation, Outside};
use super::redrive::SIGNAL_EXPIRED;
use super::{Shard, SignalTarget, VerbError};
use crate::core::{Given, Request};

/// Of so many actors and invocations a shard remembers how many signals are kept for them.
const COUNTED: usize = 10_000;

impl Shard {
    /// Keeps a signal, and tells whoever waits for it, in one commit with what `writes` holds.
    pub(super) async fn signal(
        &mut self,
        target: SignalTarget,
        name: &str,
        payload: Bytes,
        context: AuthorizationContext,
        idempotency: Option<String>,
        mut writes: Writes,
    ) -> Result<(), VerbError> {
        let (prefix, waiter, tenant) = match &target {
            SignalTarget::Actor(actor) => {
                self.load_actor(actor).await?;
                let head = self.actors.get(actor).and_then(|actor| actor.queue.front()).map(|head| head.1);
                (key::actor_signals(actor, name), head, actor.tenant.clone())
            }
            SignalTarget::Invocation(id) => {
                let known = match self.active.get(id) {
                    Some(activation) => Some(activation.record.clone()),
                    None => self.record(*id).await?,
                };
                let Some(mut record) = known else {
                    return Err(VerbError::new(
                        Consequence::NotFound,
                        "unknown_invocation",
                        format!("there is no invocation {id}: it may have been removed after its retention time"),
                    ));
                };
                if record.status.ended() {
                    return Err(VerbError::new(Consequence::Conflict, "ended", format!("{id} has ended: nothing waits for the signal `{name}` any more")));
                }
                if !record.signalled {
                    // Its end looks for signals that nobody took.
                    record.signalled = true;
                    writes.put(key::invocation(*id), record.encode());
                    if let Some(activation) = self.active.get_mut(id) {
                        activation.record.signalled = true;
                    }
                }
                (key::invocation_signals(*id, name), Some(*id), record.message.target.tenant)
            }
        };
        if let Some(idempotency) = idempotency {
            let row = match &target {
                SignalTarget::Actor(actor) => key::actor_signal_once(actor, name, &idempotency),
                SignalTarget::Invocation(id) => key::invocation_signal_once(*id, name, &idempotency),
            };
            if self.get(row.clone()).await?.is_some() {
                return Ok(());
            }
            let now = self.now();
            writes.put_until(row, wire::encode(&now), selvedge_kernel::time::Day::expiry(now, self.wiring.settings.keep.idempotency));
        }
        let (all, whose) = match &target {
            SignalTarget::Actor(actor) => (key::of_actor(Kind::ActorSignal, actor), actor.to_string()),
            SignalTarget::Invocation(id) => (key::of_id(Kind::InvocationSignal, id.0), id.to_string()),
        };
        let bound = self.wiring.settings.limits.signals;
        let kept = self.kept_signals(&all, bound).await?;
        if kept >= bound {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: kept_signals",
                format!("{bound} signals to {whose} are kept and nobody has taken them, the limit over all names: wait until some are taken"),
            ));
        }
        self.room_to_keep(&tenant)?;
        if self.signals.len() >= COUNTED {
            self.signals.clear();
        }
        self.signals.insert(all, kept + 1);
        let at = self.now();
        let n = self.next_number();
        let timer = match &target {
            SignalTarget::Actor(actor) => {
                let due = at.after(self.options(&actor.kind).retention.unwrap_or(self.wiring.settings.keep.finished));
                Some(self.set_timer(&mut writes, due, Timer::Signal { actor: actor.clone(), name: name.to_owned(), n }))
            }
            // It goes with its invocation.
            SignalTarget::Invocation(_) => None,
        };
        let mut row = prefix.to_vec();
        row.extend_from_slice(&n.to_be_bytes());
        writes.keep(&tenant, kept::change(payload.len()));
        writes.put(Key::from(row), wire::encode(&KeptSignal { payload: Payload::Inline(payload), context, at, timer }));
        if let Some(id) = waiter
            && self.waits_for_signal(id, name).await?
        {
            self.wake_with(id, Outside::Signal { name: name.to_owned() }, &mut writes).await?;
        }
        self.write(writes, Vec::new());
        Ok(())
    }

    /// How many signals at most are kept under a prefix, whatever their names. What is known does not sink when one is taken:
    /// when it meets `bound`, the rows are counted again, a few in memory at a time.
    async fn kept_signals(&self, all: &Key, bound: u64) -> Result<u64, VerbError> {
        if let Some(known) = self.signals.get(all).filter(|known| **known < bound) {
            return Ok(*known);
        }
        let mut range = under(all);
        // What was taken in under an idempotency key stands under the empty name, and is no signal.
        range.start = Key::from([&all[..], &[0, 1]].concat());
        let mut count = 0;
        while count < bound {
            let rows = self.scan(range.clone(), 16).await?;
            count += rows.len() as u64;
            match rows.last() {
                Some((last, _)) if rows.len() == 16 => range.start = Key::from([&last[..], &[0]].concat()),
                _ => break,
            }
        }
        Ok(count)
    }

    /// A signal to an actor that nobody has taken in the time that it is kept: it becomes a dead letter.
    pub(super) async fn signal_expired(&mut self, actor: ActorId, name: String, n: u64, timer: (Millis, u64)) {
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, timer);
        let row = key::actor_signal(&actor, &name, n);
        let kept = match self.get(row.clone()).await.map_err(VerbError::from) {
            Ok(Some(value)) => KeptSignal::decode(&value).map(Some).map_err(VerbError::from),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return self.wiring.stop(error.message),
        };
        if let Some(KeptSignal { payload: Payload::Inline(input), context, at, .. }) = kept {
            writes.keep(&actor.tenant, -kept::change(input.len()));
            writes.delete(row);
            let error = WorkError::new(SIGNAL_EXPIRED, format!("the signal `{name}` to {actor} came at {at}, and nobody has taken it since"));
            let id = InvocationId(RawId::at(actor.hash16(), at, self.entropy.draw()));
            let message = Message::new(id, actor, format!("signal {name}"), input, context);
            self.keep_refused(message, error, &mut writes);
        }
        self.write(writes, Vec::new());
    }

    async fn waits_for_signal(&self, id: InvocationId, name: &str) -> Result<bool, VerbError> {
        if let Some(activation) = self.active.get(&id) {
            // Its wait may be begun only now: it looks for kept signals then.
            return Ok(activation.core.state.borrow().ops.values().any(|op| op.signature.kind == OpKind::Signal && op.signature.name == name && !op.decided));
        }
        let rows: Vec<Begun> = self.begun_rows(id).await?;
        Ok(rows.iter().any(|row| row.waits_for_signal(name)))
    }

    /// Gives the oldest kept signal of a name to the operation that has waited longest.
    pub(super) async fn take_signal(&mut self, activation: &mut Activation, name: &str) -> Result<(), VerbError> {
        let waiting = {
            let state = activation.core.state.borrow();
            state
                .ops
                .values()
                .filter(|op| matches!(op.request, Request::Signal { .. }) && op.signature.name == name && op.begun && !op.decided && !op.dropped)
                .map(|op| op.signature.number)
                .min()
        };
        let Some(number) = waiting else { return Ok(()) };
        let own = key::invocation_signals(activation.id(), name);
        let of_actor = key::actor_signals(&activation.record.message.target, name);
        for prefix in [own, of_actor] {
            if let Some((row, value)) = self.scan(under(&prefix), 1).await?.into_iter().next() {
                let kept = KeptSignal::decode(&value)?;
                let payload = self.payload(activation.id().0, Hash32::default(), &kept.payload).await?;
                let mut writes = Writes::default();
                writes.keep(&activation.record.message.target.tenant, -kept::change(payload.len()));
                writes.delete(row);
                if let Some(timer) = kept.timer {
                    self.clear_timer(&mut writes, timer);
                }
                self.decide_taking(activation, number, Given::Value(payload), writes);
                return Ok(());
            }
        }
        Ok(())
    }
}
