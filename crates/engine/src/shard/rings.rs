//! Rings of calls: who holds an actor, waits for a call and is waited for, looks every now and then whether it waits for itself.
//!
//! A probe goes from shard to shard as an event and leaves no row: one that is lost is sent again. See [`selvedge_kernel::calls`].

use std::time::Duration;

use selvedge_kernel::calls::{Hop, deadlock, youngest};
use selvedge_kernel::id::{ActorId, InvocationId};
use selvedge_kernel::journal::OpKind;
use selvedge_kernel::record::Writes;
use selvedge_kernel::record::invocation::Status;
use selvedge_kernel::record::message::{Outcome, Peer};

use super::activate::Activation;
use super::calls::link;
use super::timers::Alarm;
use super::{Shard, VerbError};
use crate::core::Request;
use crate::wiring::Tasks;
use crate::worker::Event;

/// How long a call waits before a probe is sent, and again after a lost one.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the time between two probes of the same calls doubles.
const DOUBLINGS: u32 = 5;
/// How many hops a probe may take in all, over all its branches.
const PROBE_HOPS: usize = 1_024;
/// How long a ring may be.
const RING: usize = 256;

/// What goes along waiting calls.
#[derive(Clone, Debug)]
pub(crate) enum Probe {
    /// Where do these hops lead? So many more may be taken.
    Search { hops: Vec<Hop>, left: usize },
    /// Is this ring still whole, from this hop on?
    Confirm { ring: Vec<Hop>, at: usize },
    /// It is: its youngest call fails.
    GiveUp { ring: Vec<Hop> },
}

/// Whether a handler in memory waits for other invocations, and for which children, by the number of their spawn.
pub(super) fn awaited(activation: &Activation) -> (bool, Vec<u32>) {
    let state = activation.core.state.borrow();
    let mut calls = false;
    let mut children = Vec::new();
    for op in state.ops.values().filter(|op| op.polled && !op.decided && op.given.is_none()) {
        match op.request {
            Request::Call { .. } => calls = true,
            Request::Join { child } => children.push(child),
            _ => {}
        }
    }
    (calls || !children.is_empty(), children)
}

impl Shard {
    /// Whether others wait behind the first of an actor's queue.
    pub(super) fn has_queue(&self, actor: &ActorId) -> bool {
        self.actors.get(actor).is_some_and(|actor| actor.queue.len() > 1)
    }

    /// Looks in a while whether the holder of an actor waits for itself; sooner, if it was to be later.
    pub(super) fn watch_ring(&mut self, holder: InvocationId) {
        if self.wiring.settings.tasks == Tasks::Leave || self.watched.get(&holder).is_some_and(|watched| watched.1 == 0) {
            return;
        }
        self.watch_again(holder, 0);
    }

    fn watch_again(&mut self, holder: InvocationId, looked: u32) {
        let wait = PATIENCE * (1 << looked.saturating_sub(1).min(DOUBLINGS));
        let at = self.now().after(wait);
        let alarm = self.set_alarm(at, Alarm::Ring { holder });
        let old = self.watched.insert(holder, (alarm, looked)).map(|old| old.0);
        self.clear_alarm(old);
    }

    /// Somebody who is waited for has queued behind the holder of an actor: if that one waits too, it is watched, and a
    /// reopened shard watches it again.
    pub(super) async fn watch_behind(&mut self, holder: InvocationId, writes: &mut Writes) -> Result<(), VerbError> {
        // One that is being moved on looks at its queue itself, when it begins to wait.
        if self.wiring.settings.tasks == Tasks::Leave || self.moving == Some(holder) {
            return Ok(());
        }
        let waits = match self.active.get(&holder) {
            Some(activation) => awaited(activation).0,
            None => !self.hops(holder).await?.is_empty(),
        };
        if !waits {
            return Ok(());
        }
        self.watch_ring(holder);
        if !self.active.contains_key(&holder) && !self.kept_ready.contains_key(&holder) {
            let ready = self.put_ready(writes, holder);
            self.kept_ready.insert(holder, ready);
        }
        Ok(())
    }

    /// The calls that an invocation waits for, and children that it joins.
    async fn hops(&self, caller: InvocationId) -> Result<Vec<Hop>, VerbError> {
        let Some(record) = self.record_in_memory(caller).await? else { return Ok(Vec::new()) };
        if record.status.ended() || record.status == Status::Blocked || record.retry_at.is_some() {
            return Ok(Vec::new());
        }
        let joined = match self.active.get(&caller) {
            Some(activation) => awaited(activation).1,
            None => self.joining.get(&caller).cloned().unwrap_or_default(),
        };
        let mut hops = Vec::new();
        for row in self.begun_rows(caller).await? {
            let number = row.signature.number;
            let waits = match row.signature.kind {
                OpKind::Call => true,
                OpKind::Spawn => joined.contains(&number),
                _ => false,
            };
            if waits
                && row.reply.is_none()
                && let Some((_, called)) = row.peer
            {
                hops.push(Hop { caller: link(&record), number, called, since: row.since });
            }
        }
        Ok(hops)
    }

    /// Who holds the actor that an open invocation is for.
    async fn holder(&mut self, called: InvocationId) -> Result<Option<InvocationId>, VerbError> {
        let Some(record) = self.record_in_memory(called).await?.filter(|record| !record.status.ended()) else { return Ok(None) };
        self.load_actor(&record.message.target).await?;
        Ok(self.actors.get(&record.message.target).and_then(|actor| actor.queue.front()).map(|first| first.1))
    }

    /// The holder of an actor has waited for a while.
    pub(super) async fn look_for_ring(&mut self, holder: InvocationId) {
        if let Err(error) = self.try_look_for_ring(holder).await {
            self.wiring.stop(error.message);
        }
    }

    async fn try_look_for_ring(&mut self, holder: InvocationId) -> Result<(), VerbError> {
        let Some((_, looked)) = self.watched.remove(&holder) else { return Ok(()) };
        if self.holder(holder).await? != Some(holder) {
            return Ok(());
        }
        let Some(record) = self.record_in_memory(holder).await? else { return Ok(()) };
        let hops = self.hops(holder).await?;
        // Whoever queues behind it, and whatever it begins to wait for, has it watched again.
        if hops.is_empty() || !self.has_queue(&record.message.target) {
            return Ok(());
        }
        self.watch_again(holder, looked + 1);
        let now = self.now();
        let waited: Vec<Hop> = hops.into_iter().filter(|hop| hop.since.after(PATIENCE) <= now).collect();
        self.search_on(&[], waited, PROBE_HOPS, looked);
        Ok(())
    }

    /// Sends a search along some hops; what may still be taken is shared among them.
    fn search_on(&mut self, so_far: &[Hop], mut next: Vec<Hop>, left: usize, turn: u32) {
        if next.is_empty() || left == 0 {
            return;
        }
        // If they are too many for one probe, each probe starts with other ones.
        let first = turn as usize * left % next.len();
        next.rotate_left(first);
        next.truncate(left);
        let share = left / next.len() - 1;
        for hop in next {
            let to = self.wiring.shard_of_invocation(hop.called);
            let mut hops = so_far.to_vec();
            hops.push(hop);
            self.wiring.send(to, Event::Probe { to, probe: Box::new(Probe::Search { hops, left: share }) });
        }
    }

    /// A probe has come.
    pub(crate) async fn probe(&mut self, probe: Probe) {
        let done = match probe {
            Probe::Search { hops, left } => self.search(hops, left).await,
            Probe::Confirm { ring, at } => self.confirm(ring, at).await,
            Probe::GiveUp { ring } => self.give_up_call(&ring).await,
        };
        if let Err(error) = done {
            self.wiring.stop(error.message);
        }
    }

    async fn search(&mut self, hops: Vec<Hop>, left: usize) -> Result<(), VerbError> {
        let (Some(first), Some(last)) = (hops.first(), hops.last()) else { return Ok(()) };
        let Some(holder) = self.holder(last.called).await? else { return Ok(()) };
        if holder == first.caller.invocation {
            let to = self.wiring.shard_of_invocation(holder);
            self.wiring.send(to, Event::Probe { to, probe: Box::new(Probe::Confirm { ring: hops, at: 0 }) });
            return Ok(());
        }
        // A ring that does not hold the one who asks is found by those in it.
        if hops.len() >= RING || hops.iter().any(|hop| hop.caller.invocation == holder) {
            return Ok(());
        }
        let next = self.hops(holder).await?;
        self.search_on(&hops, next, left, u32::try_from(hops.len()).unwrap_or(0));
        Ok(())
    }

    async fn confirm(&mut self, ring: Vec<Hop>, at: usize) -> Result<(), VerbError> {
        let (Some(hop), Some(before)) = (ring.get(at), ring.get((at + ring.len() - 1) % ring.len().max(1))) else { return Ok(()) };
        let holds = self.holder(before.called).await? == Some(hop.caller.invocation);
        if !holds || !self.hops(hop.caller.invocation).await?.contains(hop) {
            return Ok(());
        }
        let (next, probe) = match ring.get(at + 1) {
            Some(next) => (next.caller.invocation, Probe::Confirm { at: at + 1, ring: ring.clone() }),
            None => match youngest(&ring) {
                Some(youngest) => (youngest.caller.invocation, Probe::GiveUp { ring: ring.clone() }),
                None => return Ok(()),
            },
        };
        let to = self.wiring.shard_of_invocation(next);
        self.wiring.send(to, Event::Probe { to, probe: Box::new(probe) });
        Ok(())
    }

    /// Fails the youngest call of a ring, unless it was answered or given up since. What it asked for is never started.
    async fn give_up_call(&mut self, ring: &[Hop]) -> Result<(), VerbError> {
        let Some(hop) = youngest(ring) else { return Ok(()) };
        let caller = hop.caller.invocation;
        if !self.hops(caller).await?.contains(hop) {
            return Ok(());
        }
        let mut writes = Writes::default();
        let mut effects = Vec::new();
        let peer = Peer::Operation { invocation: caller, number: hop.number };
        self.reply(peer, caller, Outcome::Error(deadlock(ring)), &mut writes, &mut effects).await?;
        let reason = "its caller and others waited for one another in a ring, and gave this call up".to_owned();
        if self.wiring.shard_of_invocation(hop.called) == self.id && self.record_in_memory(hop.called).await?.is_some() {
            // Its caller is told in this commit, may end at once, and with it whoever holds its actor: by an envelope the cancel could
            // come when it has started.
            self.keep_cancel(hop.called, reason, &mut writes).await?;
        } else {
            self.post_cancel(hop.called, reason, &mut writes, &mut effects).await?;
        }
        self.write(writes, effects);
        Ok(())
    }
}
