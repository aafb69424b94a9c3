//! What an ended invocation leaves behind: removed with its end as far as one transition holds it, and the rest in
//! bounded steps behind it. Large payloads stay until its retention has passed.

use selvedge_kernel::id::{InvocationId, RawId};
use selvedge_kernel::ports::under;
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::message::Outcome;
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use super::{Effect, Shard, VerbError};

/// Rows that one step looks at.
const STEP: usize = 16;
/// Operations of a transition up to which more may be added to it.
const ROOM: usize = 80;

/// Whether a transition can take a few more operations.
pub(super) fn has_room(writes: &Writes) -> bool {
    writes.puts.len() + writes.deletes.len() + writes.folds.len() < ROOM
}

impl Shard {
    /// Answers the callers who joined an ended invocation, and removes the signals that nobody took. Gives false if
    /// some are left.
    pub(super) async fn clear_leftovers(
        &mut self,
        (id, tenant): (InvocationId, &str),
        outcome: &Outcome,
        writes: &mut Writes,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, VerbError> {
        let joined = self.scan(under(&key::of_id(Kind::Joined, id.0)), STEP).await?;
        let signals = self.scan(under(&key::of_id(Kind::InvocationSignal, id.0)), STEP).await?;
        let whole = joined.len() < STEP && signals.len() < STEP;
        for (row, value) in joined {
            if !has_room(writes) {
                return Ok(false);
            }
            writes.delete(row);
            let peer = wire::decode("joined caller", &value)?;
            self.reply(peer, id, outcome.clone(), writes, effects).await?;
        }
        for (row, value) in signals {
            if !has_room(writes) {
                return Ok(false);
            }
            writes.keep(tenant, -kept::change(kept::of_signal(&row, &value)?));
            writes.delete(row);
        }
        Ok(whole)
    }

    /// The next step of removing what an ended invocation has left behind.
    pub(super) async fn leftovers_due(&mut self, id: InvocationId, timer: (Millis, u64)) {
        if let Err(error) = self.step_leftovers(id, timer).await {
            self.wiring.stop(error.message);
        }
    }

    async fn step_leftovers(&mut self, id: InvocationId, timer: (Millis, u64)) -> Result<(), VerbError> {
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        self.clear_timer(&mut writes, timer);
        let Some(record) = self.record(id).await?.filter(|record| record.status.ended()) else {
            self.write(writes, effects);
            return Ok(());
        };
        let tenant = record.message.target.tenant.clone();
        // Who joined one that started anew waits for the last one of them.
        let last = self.follow_restarts(record).await?;
        let mut whole = true;
        if !last.status.ended() {
            let rows = self.scan(under(&key::of_id(Kind::Joined, id.0)), STEP).await?;
            whole = rows.len() < STEP;
            for (row, value) in rows {
                let peer = wire::decode("joined caller", &value)?;
                writes.delete(row);
                writes.put(key::joined(last.message.id, &peer), wire::encode(&peer));
            }
            let signals = self.scan(under(&key::of_id(Kind::InvocationSignal, id.0)), STEP).await?;
            whole &= signals.len() < STEP;
            for (row, value) in signals {
                writes.keep(&tenant, -kept::change(kept::of_signal(&row, &value)?));
                writes.delete(row);
            }
        } else {
            let outcome = self.outcome(&last).await?;
            whole &= self.clear_leftovers((id, &tenant), &outcome, &mut writes, &mut effects).await?;
        }
        let rows = self.scan(under(&key::of_id(Kind::Begun, id.0)), STEP).await?;
        whole &= rows.len() < STEP;
        for (_, value) in rows {
            if !has_room(&writes) {
                whole = false;
                break;
            }
            let row: Begun = wire::decode("begun operation", &value)?;
            self.leave_operation(id, row, &mut writes, &mut effects).await?;
        }
        if !whole {
            let now = self.now();
            self.set_timer(&mut writes, now, Timer::Leftovers { invocation: id });
        }
        self.write(writes, effects);
        Ok(())
    }

    /// The next step of removing the chunks, the output and the marks by hand of an owner whose retention has passed.
    pub(super) async fn chunks_due(&mut self, owner: RawId, timer: (Millis, u64)) {
        let mut writes = Writes::default();
        self.clear_timer(&mut writes, timer);
        let mut rows = Vec::new();
        let mut more = false;
        for kind in [Kind::Chunk, Kind::Output, Kind::Resolved, Kind::Fork] {
            match self.scan(under(&key::of_id(kind, owner)), STEP).await {
                Ok(some) => {
                    more |= some.len() == STEP;
                    rows.extend(some);
                }
                Err(error) => return self.wiring.stop(error.to_string()),
            }
        }
        if more {
            let now = self.now();
            self.set_timer(&mut writes, now, Timer::Chunks { owner });
        }
        rows.into_iter().for_each(|(row, _)| writes.delete(row));
        self.write(writes, Vec::new());
    }
}
