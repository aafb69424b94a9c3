//! Calls: what they carry, and when they are refused before they leave.

use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::calls::{Link, refuse_call};
use selvedge_kernel::error::WorkError;
use selvedge_kernel::id::ActorId;
use selvedge_kernel::journal::{Signature, seal};
use selvedge_kernel::record::invocation::{Begun, Invocation};
use selvedge_kernel::record::message::Peer;
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::wire;

use super::activate::{Activation, Outside};
use super::{Shard, VerbError};
use crate::core::{Given, check_address};
use crate::registry::Handler;

/// A call that a handler awaits.
pub(super) struct Call {
    pub number: u32,
    pub sig: Signature,
    pub target: ActorId,
    pub handler: String,
    pub input: Bytes,
    pub idempotency_key: Option<String>,
    pub timeout: Option<Duration>,
}

/// An invocation and the actor that it holds.
pub(super) fn link(record: &Invocation) -> Link {
    Link { invocation: record.message.id, actor: record.message.target.clone(), handler: record.message.handler.clone() }
}

impl Shard {
    /// Begins a call: it leaves once, with whoever waits for it; a replay finds its answer, or goes on waiting.
    pub(super) async fn begin_call(&mut self, activation: &mut Activation, call: Call, row: Option<Begun>) -> Result<(), VerbError> {
        let number = call.number;
        if row.as_ref().is_some_and(|row| row.reply.is_some()) {
            activation.outside.push_back(Outside::Replied { number });
            return Ok(());
        }
        let id = activation.id();
        if self.has_queue(&activation.record.message.target) {
            self.watch_ring(id);
        }
        if row.is_some() {
            return Ok(());
        }
        let now = self.now();
        let mut chain = activation.record.message.chain.clone();
        chain.push(link(&activation.record));
        if let Err(error) = self.check_call(activation, &call, &chain) {
            self.decide(activation, number, Given::Error(error));
            return Ok(());
        }
        let sealed = seal(&activation.journal.key, &call.input);
        let peer = Peer::Operation { invocation: id, number };
        let mut message = self.message_from(activation, number, &call.target, &call.handler, call.input, call.idempotency_key, Some(peer));
        message.chain = chain;
        // A callee has at most as long as its caller.
        let asked = call.timeout.map(|timeout| now.after(timeout));
        // One that its key leads to keeps its own deadline: whoever joins it waits no longer than it said.
        let waits_until = asked.filter(|_| message.idempotency_key.is_some());
        message.deadline = [asked, activation.record.message.deadline].into_iter().flatten().min();
        let mut row = Begun::new(call.sig, now);
        row.request_seal = Some(sealed);
        row.peer = Some((call.target, message.id));
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        row.timer = waits_until.map(|until| self.set_timer(&mut writes, until, Timer::Operation { invocation: id, number }));
        writes.put(key::begun(id, number), wire::encode(&row));
        self.set_row(activation, number, row);
        self.post(message, &mut writes, &mut effects).await?;
        self.write(writes, effects);
        Ok(())
    }

    fn check_call(&self, activation: &Activation, call: &Call, chain: &[Link]) -> Result<(), WorkError> {
        activation.core.check_body("the input of a call", call.input.len())?;
        check_address(&call.target, &call.handler, call.idempotency_key.as_deref())?;
        if matches!(self.wiring.registry.handler(&call.target.kind, &call.handler), Some(Handler::Shared(_))) {
            // It waits for nobody, and nobody waits for it to let go.
            return Ok(());
        }
        refuse_call(chain, &call.target, &call.handler)
    }
}
