//! Whether this process still owns its shard when it answers what no commit vouches for.
//!
//! A commit of an owner that was replaced is refused, and what rests on it is never let out. An answer that rests on none is
//! checked against the row in which each owner signs with its first commit: as long as nobody else has, what is in memory is
//! what is in the store.

use bytes::Bytes;
use selvedge_kernel::ports::Epoch;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::wire;

use super::Shard;

/// What an owner knows of who wrote last.
pub(super) struct Ownership {
    epoch: Epoch,
    /// The row as the store has it once everything that was decided is durable, and as it was before this owner signed.
    signed: Option<Bytes>,
    before: Option<Bytes>,
    /// Answers that no commit vouches for are about to be let out.
    pub(super) unconfirmed: bool,
}

impl Ownership {
    pub(super) fn new(epoch: Epoch, signed: Option<Bytes>) -> Ownership {
        Ownership { epoch, signed, before: None, unconfirmed: false }
    }

    /// The row of this owner, if it has not signed.
    fn sign(&mut self) -> Option<Bytes> {
        let own = wire::encode(&self.epoch.0);
        (self.signed.as_ref() != Some(&own)).then(|| {
            self.before = self.signed.replace(own.clone());
            own
        })
    }
}

impl Shard {
    /// Says in the first commit of this owner whose it is.
    pub(super) fn sign(&mut self) {
        let Some(own) = self.owner.sign() else { return };
        let mut writes = Writes::default();
        writes.put(key::owner(), own);
        if self.drafts.add(writes, Vec::new(), &self.head, &mut self.overlay).is_err() {
            // Invariant: one short row fits any commit.
            self.wiring.stop("the row that names the owner of a shard does not fit a commit: this is a fault of the program; report it".to_owned());
        }
    }

    /// Before answers are let out that no commit vouches for: nobody else has written since this owner claimed. Otherwise
    /// nothing is let out any more, and this process stops.
    pub(super) async fn still_owns(&mut self) {
        if !std::mem::take(&mut self.owner.unconfirmed) {
            return;
        }
        // Its own first commit may be on its way.
        let signing = self.overlay.get(&key::owner()).is_some();
        let reason = match self.wiring.store.get(self.id, key::owner()).await {
            Ok(found) if found == self.owner.signed || signing && found == self.owner.before => return,
            Ok(_) => format!("shard {} has a newer owner: this process may not answer for it any more. Start again", self.id.0),
            Err(error) => error.to_string(),
        };
        self.effects.clear();
        self.wiring.stop(reason);
    }
}
