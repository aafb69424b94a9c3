//! Signals: kept until somebody waits for them, first in, first out.

use bytes::Bytes;
use selvedge_kernel::auth::AuthorizationContext;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::{InvocationId, Key};
use selvedge_kernel::journal::{Hash32, OpKind, Payload};
use selvedge_kernel::limit;
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::message::KeptSignal;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::wire;

use super::activate::{Activation, Outside};
use super::{Shard, SignalTarget, VerbError};
use crate::core::{Given, Request};

impl Shard {
    /// Keeps a signal, and tells whoever waits for it.
    pub(super) async fn signal(
        &mut self,
        target: SignalTarget,
        name: &str,
        payload: Bytes,
        context: AuthorizationContext,
        idempotency: Option<String>,
    ) -> Result<(), VerbError> {
        if payload.len() > limit::TRANSITION_BYTES {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: signal",
                format!("the signal `{name}` carries {} bytes, the limit is {}: send a reference instead", payload.len(), limit::TRANSITION_BYTES),
            ));
        }
        let mut writes = Writes::default();
        let (prefix, waiter) = match &target {
            SignalTarget::Actor(actor) => {
                self.load_actor(actor).await?;
                let head = self.actors.get(actor).and_then(|actor| actor.queue.front()).map(|head| head.1);
                (key::actor_signals(actor, name), head)
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
                    writes.put(key::invocation(*id), wire::encode(&record));
                    if let Some(activation) = self.active.get_mut(id) {
                        activation.record.signalled = true;
                    }
                }
                (key::invocation_signals(*id, name), Some(*id))
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
        let bound = usize::try_from(self.wiring.settings.limits.signals).unwrap_or(usize::MAX);
        if self.scan(under(&prefix), bound).await?.len() >= bound {
            return Err(VerbError::new(
                Consequence::Limit,
                "limit: signals",
                format!("{bound} signals `{name}` are kept and nobody has taken them, the limit: wait until they are taken"),
            ));
        }
        let at = self.now();
        let n = self.next_number();
        let mut row = prefix.to_vec();
        row.extend_from_slice(&n.to_be_bytes());
        writes.put(Key::from(row), wire::encode(&KeptSignal { payload: Payload::Inline(payload), context, at }));
        if let Some(id) = waiter
            && self.waits_for_signal(id, name).await?
        {
            self.wake_with(id, Outside::Signal { name: name.to_owned() }, &mut writes).await?;
        }
        self.write(writes, Vec::new());
        Ok(())
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
                let kept: KeptSignal = wire::decode("signal", &value)?;
                let payload = self.payload(activation.id().0, Hash32::default(), &kept.payload).await?;
                let mut writes = Writes::default();
                writes.delete(row);
                self.decide_taking(activation, number, Given::Value(payload), writes);
                return Ok(());
            }
        }
        Ok(())
    }
}
