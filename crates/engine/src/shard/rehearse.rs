//! A replay that writes nothing: does this code fit a recorded journal?

use selvedge_kernel::id::InvocationId;
use selvedge_kernel::journal::{OpKind, SealKey, Signature};
use selvedge_kernel::record::hand::{seen, stand_ins};
use selvedge_kernel::record::invocation::{Blocked, Invocation, Status};
use selvedge_kernel::record::key;
use selvedge_kernel::replay::Replay;
use selvedge_kernel::wire;

use super::activate::Activation;
use super::advance::{Rest, Step};
use super::{Shard, VerbError};
use crate::core::Fresh;
use crate::registry::Handler;

impl Shard {
    /// Why the code of this process would block an invocation, or would not have come to its end; none if it fits, if
    /// there is nothing to replay, or if what it was given has been erased.
    pub(super) async fn rehearse(&mut self, id: InvocationId) -> Result<Option<String>, VerbError> {
        let Some(record) = self.record(id).await? else { return Ok(None) };
        let message = &record.message;
        match self.wiring.registry.pinned(&message.target.kind, &message.handler, record.version) {
            Err(_) if record.status.ended() => return Ok(None),
            Err(blocked) => return Ok(Some(blocked.to_string())),
            Ok(Handler::Transition(_) | Handler::Shared(_)) => return Ok(None),
            Ok(Handler::Exclusive(_)) => {}
        }
        let Some(mut activation) = self.alone(record).await? else { return Ok(None) };
        let found = self.replay_alone(&mut activation).await;
        self.let_go(activation);
        Ok(unless_erased(found)?.flatten())
    }

    /// The operation of that number which the code of this process waits for behind what its journal holds.
    pub(super) async fn awaited(&mut self, record: Invocation, number: u32) -> Result<Option<Signature>, VerbError> {
        let message = &record.message;
        if !matches!(self.wiring.registry.pinned(&message.target.kind, &message.handler, record.version), Ok(Handler::Exclusive(_))) {
            return Ok(None);
        }
        let Some(mut activation) = self.alone(record).await? else { return Ok(None) };
        let replayed = self.replay_alone(&mut activation).await;
        let state = activation.core.state.borrow();
        let found = state.ops.get(&number).filter(|op| op.given.is_none() && !op.dropped).map(|op| op.signature.clone());
        drop(state);
        self.let_go(activation);
        replayed.map(|_| found)
    }

    /// A second life of an invocation that only replays; none if what it was given has been erased.
    async fn alone(&mut self, record: Invocation) -> Result<Option<Activation>, VerbError> {
        let id = record.message.id;
        let Some(bytes) = self.get(key::seal_key(id.0)).await? else { return Ok(None) };
        let seal_key: SealKey = wire::decode("seal key", &bytes)?;
        let Some(input) = unless_erased(self.payload(id.0, record.input_seal, &record.input).await)? else { return Ok(None) };
        let begun = if record.status.ended() { Vec::new() } else { self.begun_rows(id).await? };
        let mut replay = Replay::new(begun);
        replay.ended = record.status.ended();
        let entries = self.all_entries(id).await?;
        let stand_ins = match stand_ins(&entries) {
            Ok(found) => found,
            // What was decided by hand is erased with the rest.
            Err(_) => return Ok(None),
        };
        replay.load(seen(entries, &stand_ins)?);
        let activation = self.prepare(record, input, seal_key, replay);
        activation.core.state.borrow_mut().live = false;
        // Whoever wakes it later means another one of the same id.
        activation.core.waker.gone.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(Some(activation))
    }

    fn let_go(&self, mut activation: Activation) {
        activation.core.ended.set(true);
        let future = activation.future.take();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(future))).is_err() {
            self.wiring.dropped_badly(activation.id());
        }
    }

    async fn replay_alone(&mut self, activation: &mut Activation) -> Result<Option<String>, VerbError> {
        let status = activation.record.status;
        loop {
            let rest = self.poll_to_rest(activation).await?;
            if let Some(blocked) = activation.core.state.borrow_mut().blocked.take() {
                return Ok(Some(blocked.to_string()));
            }
            if let Rest::Ended(result) = rest {
                return Ok(match self.ended_in_replay(activation, result).await? {
                    Step::Block(blocked) => Some(blocked.to_string()),
                    Step::Ended(Err(failure)) if status == Status::Completed && activation.record.restarts.after.is_none() => {
                        Some(format!("it ended with a value, and ends with an error now: {}", failure.error))
                    }
                    Step::Ended(_) | Step::Keep => added(activation).filter(|_| status == Status::Completed),
                });
            }
            let next = activation.core.state.borrow_mut().replay.next_result();
            let Some(entry) = next else {
                if let Err(blocked) = activation.core.state.borrow_mut().replay.finish() {
                    return Ok(Some(blocked.to_string()));
                }
                return Ok(added(activation).filter(|_| status == Status::Completed));
            };
            if entry.header.signature.kind == OpKind::Cancel {
                let reason = self.payload(activation.id().0, entry.seal, &entry.payload).await?;
                let reason = String::from_utf8_lossy(&reason).into_owned();
                activation.core.state.borrow_mut().deliver_cancel(&reason, entry.header.at);
            } else if let Err(blocked) = self.deliver_entry(activation, entry).await? {
                return Ok(Some(blocked.to_string()));
            }
        }
    }
}

/// What the code does beyond a journal that has ended.
fn added(activation: &Activation) -> Option<String> {
    let state = activation.core.state.borrow();
    let written = state.fresh.iter().find_map(|fresh| match fresh {
        Fresh::Message { signature, .. }
        | Fresh::Emit { signature, .. }
        | Fresh::Set { signature, .. }
        | Fresh::Delete { signature, .. }
        | Fresh::Clear { signature, .. }
        | Fresh::Read { signature, .. } => Some(signature.clone()),
        Fresh::Version { .. } => None,
    });
    let awaited = state.ops.values().filter(|op| op.polled && op.given.is_none()).map(|op| op.signature.clone()).min_by_key(|signature| signature.number);
    let attempted = written.into_iter().chain(awaited).min_by_key(|signature| signature.number)?;
    Some(Blocked::Mismatch { recorded: None, attempted: Some(attempted) }.to_string())
}

/// What was erased, or has left by retention, cannot be replayed any more.
fn unless_erased<T>(read: Result<T, VerbError>) -> Result<Option<T>, VerbError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code == "erased" => Ok(None),
        Err(error) => Err(error),
    }
}
