//! Dead letters: looked at whole, and sent again.

use bytes::Bytes;
use selvedge_kernel::error::Consequence;
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::record::actor::DeadLetter;
use selvedge_kernel::record::invocation::Idempotent;
use selvedge_kernel::record::message::Message;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::transition::redriven_id;
use selvedge_kernel::wire;

use super::{Shard, SignalTarget, VerbError, unknown_handler};
use crate::door::check_signal;
use crate::registry::Handler;

/// The code of the error that a signal which nobody took became a dead letter with.
pub(super) const SIGNAL_EXPIRED: &str = "signal_expired";

/// What a dead letter became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redriven {
    /// The message is at the tail of its actor's inbox, as this invocation.
    Invocation(InvocationId),
    /// It was a signal, and is kept again, under this name, until somebody takes it.
    Signal(String),
}

impl Shard {
    /// A dead letter with its input, however large that is.
    pub(super) async fn dead_letter(&self, id: InvocationId, tenant: &str) -> Result<DeadLetter, VerbError> {
        let mut letter = self.letter(id, tenant).await?.ok_or_else(|| no_letter(id))?;
        letter.message.input = self.payload(id.0, letter.input_seal, &letter.input).await?;
        Ok(letter)
    }

    async fn letter(&self, id: InvocationId, tenant: &str) -> Result<Option<DeadLetter>, VerbError> {
        let Some(row) = self.get(key::dead_letter(id)).await? else { return Ok(None) };
        let letter: DeadLetter = wire::decode("dead letter", &row)?;
        // One of another tenant is answered as one that is not there.
        Ok(Some(letter).filter(|letter| letter.message.target.tenant == tenant))
    }

    /// Sends a dead letter again, with its own input or another one. It goes in the commit that takes it in again. Asked
    /// for a second time, the invocation that it became is named.
    pub(super) async fn redrive(&mut self, id: InvocationId, tenant: &str, input: Option<Bytes>) -> Result<Redriven, VerbError> {
        if self.letter(id, tenant).await?.is_none() {
            return self.redriven_before(id, tenant).await.map(Redriven::Invocation);
        }
        let letter = self.dead_letter(id, tenant).await?;
        let mut writes = Writes::default();
        self.letter_leaves(&letter, &mut writes);
        writes.delete(key::dead_letter(id));
        if letter.error.code == SIGNAL_EXPIRED
            && let Some(name) = letter.message.handler.strip_prefix("signal ")
        {
            let payload = input.unwrap_or(letter.message.input);
            check_signal(name, &payload)?;
            self.signal(SignalTarget::Actor(letter.message.target), name, payload, letter.message.context, None, writes).await?;
            return Ok(Redriven::Signal(name.to_owned()));
        }
        let message = self.again(letter.message, input).await?;
        let again = message.id;
        let mut effects = Vec::new();
        self.admit(message, Some((&mut writes, &mut effects))).await?;
        self.write(writes, effects);
        Ok(Redriven::Invocation(again))
    }

    /// The message that a dead letter is sent again as: whole, under an id that follows from the old one. Nobody waits
    /// for it any more, and the deadline that it had has passed.
    async fn again(&mut self, old: Message, input: Option<Bytes>) -> Result<Message, VerbError> {
        let Message { target, handler, .. } = &old;
        match self.wiring.registry.handler(&target.kind, handler) {
            None => {
                let error = unknown_handler(&self.wiring, &target.kind, handler);
                let text = format!("{}; the dead letter {} stays where it is: redrive it once the handler is there", error.message, old.id);
                return Err(VerbError { consequence: Consequence::NotFound, code: error.code, message: text });
            }
            Some(Handler::Shared(_)) => {
                let text = format!(
                    "{target}.{handler} is a shared handler now, and what it is called with is not kept: the dead letter {} stays where it is; call the handler",
                    old.id
                );
                return Err(VerbError::new(Consequence::Conflict, "shared_handler", text));
            }
            Some(_) => {}
        }
        let id = redriven_id(old.id);
        // Who comes again with the key finds what the letter became, if the same was sent and nothing else has the key.
        let key = match (&old.idempotency_key, &input) {
            (Some(key), None) => match self.get(key::idempotency(target, handler, key)).await? {
                Some(row) => (wire::decode::<Idempotent>("idempotency row", &row)?.invocation == old.id).then(|| key.clone()),
                None => Some(key.clone()),
            },
            _ => None,
        };
        let message = Message {
            id,
            input: input.unwrap_or_else(|| old.input.clone()),
            idempotency_key: key,
            deadline: None,
            reply_to: None,
            parent: None,
            chain: Vec::new(),
            ..old
        };
        self.room(&message).await?;
        Ok(message)
    }

    /// The invocation that a letter has become already.
    async fn redriven_before(&self, id: InvocationId, tenant: &str) -> Result<InvocationId, VerbError> {
        let again = redriven_id(id);
        match self.record(again).await? {
            Some(record) if record.message.target.tenant == tenant => Ok(again),
            _ => Err(no_letter(id)),
        }
    }
}

fn no_letter(id: InvocationId) -> VerbError {
    VerbError::new(
        Consequence::NotFound,
        "unknown_dead_letter",
        format!("there is no dead letter {id}: it was redriven, or has left after its retention time; `selvedge dead-letters list` has those that are there"),
    )
}
