//! Which tasks of a shard have asked a limit or a breaker, and how far each of them is.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ActorId;

/// Where a task stands. What it may start by is `P`: a permit of a limit has nothing to it, a pass of a breaker is one of a
/// period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing<P> {
    /// It has asked.
    Waits,
    /// It may start.
    MayStart(P),
    /// Its attempt runs.
    Runs(P),
}

/// Tasks that have asked and are not done, and whom something is to be told.
#[derive(Clone, Debug)]
pub struct Asked<T, P> {
    pub(super) tasks: BTreeMap<T, (ActorId, Standing<P>)>,
    /// Limits or breakers with something to report.
    pub(super) reports: BTreeSet<ActorId>,
}

impl<T, P> Default for Asked<T, P> {
    fn default() -> Asked<T, P> {
        Asked { tasks: BTreeMap::new(), reports: BTreeSet::new() }
    }
}

impl<T: Ord + Copy, P> Asked<T, P> {
    /// Whether a task has asked and has not started.
    #[must_use]
    pub fn has_asked(&self, task: T) -> bool {
        self.tasks.get(&task).is_some_and(|known| !matches!(known.1, Standing::Runs(_)))
    }

    /// Tasks of a range that have asked and are not done.
    #[must_use]
    pub fn within(&self, first: T, last: T) -> Vec<T> {
        self.tasks.range(first..=last).map(|(task, _)| *task).collect()
    }

    /// Whether something is to be reported.
    #[must_use]
    pub fn has_reports(&self) -> bool {
        !self.reports.is_empty()
    }
}
