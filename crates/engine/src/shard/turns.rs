//! Whose turn it is among the invocations of a shard: what is told to end or signalled first, then one of each tenant in
//! turn, and of a tenant what goes on before what starts.

use std::collections::{HashMap, VecDeque};

use selvedge_kernel::id::InvocationId;

use crate::idmap::IdSet;

/// How many of a tenant go on before one of it starts, if both wait: so that starts wait, but not for ever.
const ENDS_IN_A_ROW: u32 = 16;

/// Invocations of one tenant that can move.
#[derive(Default)]
struct Lane {
    tenant: String,
    ends: VecDeque<InvocationId>,
    starts: VecDeque<InvocationId>,
    /// How many went on since one started.
    row: u32,
}

impl Lane {
    fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.starts.is_empty()
    }

    fn push(&mut self, id: InvocationId, starts: bool) {
        if starts { self.starts.push_back(id) } else { self.ends.push_back(id) }
    }

    fn pop(&mut self) -> Option<InvocationId> {
        if !self.ends.is_empty() && (self.row < ENDS_IN_A_ROW || self.starts.is_empty()) {
            self.row += 1;
            return self.ends.pop_front();
        }
        self.row = 0;
        self.starts.pop_front()
    }
}

/// Invocations that can move, each once.
#[derive(Default)]
pub(crate) struct Turns {
    queued: IdSet<InvocationId>,
    first: VecDeque<InvocationId>,
    /// The tenant that came first: the only one in most programs.
    home: Lane,
    others: HashMap<String, Lane>,
    /// Tenants that have something in `others`, the next one first.
    order: VecDeque<String>,
    /// How many of them come before it is home's turn again.
    before_home: usize,
}

impl Turns {
    /// Whether an invocation waits for its turn.
    pub(crate) fn contains(&self, id: &InvocationId) -> bool {
        self.queued.contains(id)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Puts an invocation in line.
    pub(crate) fn push(&mut self, tenant: &str, id: InvocationId, starts: bool) {
        if !self.queued.insert(id) {
            return;
        }
        if self.home.tenant != tenant && self.home.is_empty() && !self.others.contains_key(tenant) {
            tenant.clone_into(&mut self.home.tenant);
        }
        if self.home.tenant == tenant {
            self.home.push(id, starts);
            return;
        }
        if let Some(lane) = self.others.get_mut(tenant) {
            lane.push(id, starts);
            return;
        }
        let mut lane = Lane::default();
        lane.push(id, starts);
        self.others.insert(tenant.to_owned(), lane);
        self.order.push_back(tenant.to_owned());
    }

    /// Puts an invocation before all others, wherever it waits already.
    pub(crate) fn push_first(&mut self, id: InvocationId) {
        self.queued.insert(id);
        self.first.push_back(id);
    }

    /// Whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<InvocationId> {
        while let Some(id) = self.take() {
            // Whoever went first stands in its lane still, and is passed over there.
            if self.queued.remove(&id) {
                return Some(id);
            }
        }
        None
    }

    fn take(&mut self) -> Option<InvocationId> {
        if let Some(id) = self.first.pop_front() {
            return Some(id);
        }
        if self.before_home == 0 || self.order.is_empty() {
            self.before_home = self.order.len();
            if let Some(id) = self.home.pop() {
                return Some(id);
            }
        }
        self.before_home = self.before_home.saturating_sub(1);
        let tenant = self.order.pop_front()?;
        let lane = self.others.get_mut(&tenant)?;
        let id = lane.pop();
        if lane.is_empty() {
            self.others.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use selvedge_kernel::id::{Hash16, RawId};

    use super::*;

    fn id(n: u8) -> InvocationId {
        InvocationId(RawId { hash: Hash16(0), uuid: [n; 16] })
    }

    fn all(turns: &mut Turns) -> Vec<u8> {
        std::iter::from_fn(|| turns.pop()).map(|id| id.0.uuid[0]).collect()
    }

    #[test]
    fn tenants_take_turns_and_what_goes_on_comes_before_what_starts() {
        let mut turns = Turns::default();
        for n in 0..6 {
            turns.push("a", id(n), n < 3);
        }
        turns.push("b", id(10), true);
        turns.push("b", id(11), false);
        turns.push("c", id(20), true);
        turns.push("c", id(20), true);
        assert_eq!(turns.len(), 9);
        assert_eq!(all(&mut turns), [3, 11, 20, 4, 10, 5, 0, 1, 2]);
        // A tenant that comes while nobody waits is served like any other.
        turns.push("z", id(1), true);
        turns.push("a", id(2), true);
        assert_eq!(all(&mut turns), [1, 2]);
        assert!(turns.is_empty());
    }

    #[test]
    fn what_is_told_to_end_goes_first_and_once() {
        let mut turns = Turns::default();
        for n in 0..4 {
            turns.push("a", id(n), true);
        }
        turns.push_first(id(3));
        turns.push_first(id(9));
        assert_eq!(all(&mut turns), [3, 9, 0, 1, 2]);
    }

    #[test]
    fn what_starts_does_not_wait_for_ever_behind_what_goes_on() {
        let mut turns = Turns::default();
        turns.push("a", id(200), true);
        for n in 0..100 {
            turns.push("a", id(n), false);
        }
        let order = all(&mut turns);
        assert_eq!(order.iter().position(|n| *n == 200), Some(16));
        assert_eq!(order.len(), 101);
    }
}
