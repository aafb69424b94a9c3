//! What a process has taken in and not answered yet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use selvedge_kernel::error::Consequence;

use crate::engine::Engine;
use crate::shard::VerbError;
use crate::wiring::Wiring;

/// What a message costs in memory beside its input, roughly.
const MESSAGE_BYTES: u64 = 1_024;

/// Bytes that this process has taken in and not answered yet; given back when it is dropped.
///
/// It bounds the mailboxes between threads: whatever enters from outside carries one of these while it lies in a
/// mailbox, so that all of it together is at most the limit and a sixteenth. What workers and tasks send is bounded by
/// what is in memory already: one end, one wake-up and one progress for each task that runs, and envelopes that lie in the outbox of
/// a transition that one of these, or a timer, has led to.
pub(crate) struct InFlight {
    wiring: Arc<Wiring>,
    bytes: u64,
}

impl InFlight {
    /// Counts something that carries a payload, whose size has been checked.
    pub(crate) fn take(wiring: &Arc<Wiring>, bytes: usize) -> Result<Arc<InFlight>, VerbError> {
        InFlight::within(wiring, bytes as u64 + MESSAGE_BYTES, wiring.settings.limits.process_bytes)
    }

    /// Counts a question. A sixteenth is theirs alone: a process full of payloads can still be asked why.
    pub(crate) fn look(wiring: &Arc<Wiring>) -> Result<Arc<InFlight>, VerbError> {
        let bound = wiring.settings.limits.process_bytes;
        InFlight::within(wiring, MESSAGE_BYTES, bound + (bound / 16).max(16 * MESSAGE_BYTES))
    }

    /// Counts a question that was let in before and comes again: it is not refused.
    pub(crate) fn again(wiring: &Arc<Wiring>) -> Arc<InFlight> {
        wiring.in_flight.fetch_add(MESSAGE_BYTES, Ordering::SeqCst);
        Arc::new(InFlight { wiring: wiring.clone(), bytes: MESSAGE_BYTES })
    }

    fn within(wiring: &Arc<Wiring>, bytes: u64, bound: u64) -> Result<Arc<InFlight>, VerbError> {
        let before = wiring.in_flight.fetch_add(bytes, Ordering::SeqCst);
        let taken = Arc::new(InFlight { wiring: wiring.clone(), bytes });
        if before.saturating_add(bytes) > bound {
            return Err(VerbError::new(
                Consequence::Retry,
                "limit: bytes in flight",
                format!("this process holds {before} bytes that it has not answered yet, the limit is {bound}: try again when some of them are answered"),
            ));
        }
        Ok(taken)
    }
}

/// Bytes of a request that a door is reading; they are given back when it is dropped.
pub struct Held {
    _bytes: Arc<InFlight>,
}

impl Engine {
    /// Counts bytes that a door is about to read, before it reads them. Errors: `limit: bytes in flight`.
    pub fn hold(&self, bytes: usize) -> Result<Held, VerbError> {
        Ok(Held { _bytes: InFlight::take(&self.wiring, bytes)? })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wiring.in_flight.fetch_sub(self.bytes, Ordering::SeqCst);
    }
}
