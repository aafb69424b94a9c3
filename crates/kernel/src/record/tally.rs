//! What a tenant has open in a shard, counted in the transition that changes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A tenant's open work in one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Invocations that have not ended.
    pub open: u64,
    /// Messages that are not due yet.
    pub delayed: u64,
}

/// How a transition changes a tenant's open work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// Invocations accepted, less those ended.
    pub open: i64,
    /// Messages delayed, less those due or taken back.
    pub delayed: i64,
}

impl Tally {
    /// What it is after a change. A store that was written before there were tallies ends more than it has counted.
    ///
    /// ```
    /// use selvedge_kernel::record::tally::{Change, Tally};
    /// let before = Tally { open: 2, delayed: 0 };
    /// assert_eq!(before.after(Change { open: -1, delayed: 1 }), Tally { open: 1, delayed: 1 });
    /// assert_eq!(before.after(Change { open: -3, delayed: 0 }), Tally::default());
    /// ```
    #[must_use]
    pub fn after(self, change: Change) -> Tally {
        Tally { open: self.open.saturating_add_signed(change.open), delayed: self.delayed.saturating_add_signed(change.delayed) }
    }
}

/// Changes by tenant.
pub type Changes = BTreeMap<String, Change>;
