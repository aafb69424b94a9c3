//! Durable timers of a shard: the next thousand in memory, the rest in the store, one wake-up for the earliest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use selvedge_kernel::id::{InvocationId, RunId};
use selvedge_kernel::limit;
use selvedge_kernel::ports::after_prefix;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, kept, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use super::{Shard, VerbError};
use crate::wiring::Tasks;

const IN_MEMORY: usize = 1_000;
/// How many timers fire in one turn of a shard: overdue ones after a downtime come at this bounded rate.
const FIRED_PER_TURN: usize = 64;
/// How far the wall clock may move against the monotonic one before it counts as a jump.
const JUMP: i128 = 5 * 60_000;
/// Over which time the timers fire that a jump has made due.
const SPREAD: Duration = Duration::from_secs(60);

/// Timers that need no row: they mean nothing once the process has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// The end of an attempt's time.
    Attempt { invocation: InvocationId, number: u32, attempt: u32 },
    /// A handler that may leave memory.
    Suspend { invocation: InvocationId },
    /// The holder of an actor that may wait for itself.
    Ring { holder: InvocationId },
    /// The end of the time of an attempt of a run's task.
    Task { run: RunId, stage: u16, item: u32, attempt: u32 },
    /// A run that may leave memory.
    RunRests { run: RunId },
    /// Decisions that are to be written.
    Decided,
}

#[derive(Default)]
pub(crate) struct TimerQueue {
    due: BTreeMap<(Millis, u64), Timer>,
    /// Timers from here on are only in the store.
    beyond: Option<(Millis, u64)>,
    /// Timers that have fired and whose rows are not deleted yet: the mark does not pass them.
    fired: BTreeSet<(Millis, u64)>,
    /// The latest time of a timer that has fired.
    reached: Millis,
    alarms: BTreeMap<(Millis, u64), Alarm>,
    alarm_numbers: u64,
    /// The wall clock minus the monotonic one, when it was looked at last.
    skew: Option<i128>,
    /// The wall clock has jumped ahead: what is due in between is spread.
    jump: Option<Jump>,
    /// While that lasts: what is due after it, which does not wait for what is spread.
    after_jump: BTreeMap<(Millis, u64), Timer>,
}

/// A jump of the wall clock over timers.
#[derive(Clone, Copy)]
struct Jump {
    from: Millis,
    to: Millis,
}

impl Jump {
    /// When a timer that was jumped over fires: in the order of their times, over a minute.
    fn fires(&self, at: Millis) -> Millis {
        if at <= self.from || at > self.to {
            return at;
        }
        let part = u128::from(at.0 - self.from.0) * SPREAD.as_millis() / u128::from(self.to.0 - self.from.0).max(1);
        self.to.after(Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX)))
    }
}

impl TimerQueue {
    /// Timers in memory, and one more if there are others.
    pub(crate) fn len(&self) -> usize {
        self.due.len() + self.after_jump.len() + usize::from(self.beyond.is_some())
    }

    /// Whether a timer has yet to fire.
    pub(super) fn holds(&self, timer: (Millis, u64)) -> bool {
        // One that was set after a jump may have fired before others that are only in the store.
        !self.fired.contains(&timer)
            && (self.due.contains_key(&timer) || self.after_jump.contains_key(&timer) || self.beyond.is_some_and(|beyond| timer >= beyond))
    }

    /// A timer that has fired is looked for by whoever set it: the mark may pass it.
    pub(super) fn forget(&mut self, timer: (Millis, u64)) {
        self.fired.remove(&timer);
    }

    fn insert(&mut self, at: Millis, number: u64, timer: Timer) {
        if self.jump.is_some_and(|jump| at > jump.to) {
            // However many are spread before it.
            self.after_jump.insert((at, number), timer);
            if self.after_jump.len() > IN_MEMORY
                && let Some((key, _)) = self.after_jump.pop_last()
            {
                self.leave(key);
            }
            return;
        }
        if self.beyond.is_some_and(|beyond| (at, number) >= beyond) {
            return;
        }
        self.due.insert((at, number), timer);
        if self.due.len() > IN_MEMORY
            && let Some((key, _)) = self.due.pop_last()
        {
            self.leave(key);
        }
    }

    /// A timer is only in the store from here on.
    fn leave(&mut self, key: (Millis, u64)) {
        self.beyond = Some(self.beyond.map_or(key, |beyond| beyond.min(key)));
    }

    /// Begins to spread what a jump of the wall clock has made due.
    fn begin_jump(&mut self, jump: Jump) {
        self.end_jump();
        self.after_jump = self.due.split_off(&(Millis(jump.to.0.saturating_add(1)), 0));
        self.jump = Some(jump);
    }

    /// Everything that a jump has made due has fired, or another jump takes its place.
    fn end_jump(&mut self) {
        self.jump = None;
        for ((at, number), timer) in std::mem::take(&mut self.after_jump) {
            self.insert(at, number, timer);
        }
    }

    /// When the first timer in memory fires, and whether it is one that waits for nothing spread.
    fn first(&self) -> Option<(Millis, bool)> {
        let spread = |at: Millis| self.jump.map_or(at, |jump| jump.fires(at));
        let due = self.due.first_key_value().map(|(key, _)| (spread(key.0), false));
        let after = self.after_jump.first_key_value().map(|(key, _)| (key.0, true));
        [due, after].into_iter().flatten().min()
    }

    /// Takes the first timer that is due out of memory.
    fn take_due(&mut self, now: Millis) -> Option<((Millis, u64), Timer)> {
        let (_, after) = self.first().filter(|(at, _)| *at <= now)?;
        let (key, timer) = if after { self.after_jump.pop_first() } else { self.due.pop_first() }?;
        self.fired.insert(key);
        Some((key, timer))
    }

    /// Whether the next timers are to be read from the store: no other that is only there comes before those in memory.
    fn starved(&self, now: Millis) -> bool {
        let first = self.after_jump.first_key_value().map(|(key, _)| *key);
        self.due.is_empty() && self.beyond.is_some_and(|beyond| beyond.0 <= now && first.is_none_or(|first| beyond <= first))
    }

    /// Every timer before this has fired, and its row was deleted or is found by its owner.
    fn done_until(&self) -> Millis {
        let fired = self.fired.first().map(|key| key.0);
        let due = self.due.first_key_value().map(|(key, _)| key.0);
        let after = self.after_jump.first_key_value().map(|(key, _)| key.0);
        let beyond = self.beyond.map(|key| key.0);
        [Some(self.reached), fired, due, after, beyond].into_iter().flatten().min().unwrap_or_default()
    }
}

impl Shard {
    pub(super) async fn load_timers(&mut self) -> Result<(), VerbError> {
        let from = self.timers.beyond.map_or_else(|| key::timer(self.head.timers_from, 0), |(at, number)| key::timer(at, number));
        let range = from..after_prefix(&key::all(Kind::Timer));
        let rows = self.scan(range, IN_MEMORY + 1).await?;
        self.timers.beyond = None;
        for (place, (row, value)) in rows.into_iter().enumerate() {
            let Some([at, number]) = key::numbers::<2>(&row) else { continue };
            if place == IN_MEMORY {
                self.timers.leave((Millis(at), number));
            } else if !self.timers.fired.contains(&(Millis(at), number)) {
                self.timers.insert(Millis(at), number, wire::decode("timer", &value)?);
            }
        }
        Ok(())
    }

    /// Sets a durable timer in a transition; gives its key.
    pub(crate) fn set_timer(&mut self, writes: &mut Writes, at: Millis, timer: Timer) -> (Millis, u64) {
        let number = self.next_number();
        self.set_numbered_timer(writes, at, number, timer)
    }

    /// The same under a number that the caller can tell again after a restart.
    pub(crate) fn set_numbered_timer(&mut self, writes: &mut Writes, at: Millis, number: u64, timer: Timer) -> (Millis, u64) {
        let at = at.max(self.head.timers_from).max(self.timers.reached);
        let timer = self.fit(timer);
        writes.put(key::timer(at, number), wire::encode(&timer));
        self.timers.insert(at, number, timer);
        (at, number)
    }

    /// A timer as its row can hold it: the input of a large message goes into chunks, before.
    fn fit(&mut self, timer: Timer) -> Timer {
        match timer {
            Timer::Message(mut message) if message.input.len() > limit::INLINE_BYTES => {
                let input = std::mem::take(&mut message.input);
                let seal = super::accept::body_hash(&input);
                self.write_chunks(message.id.0, seal, &input);
                Timer::LargeMessage { message, seal, len: input.len() as u64 }
            }
            other => other,
        }
    }

    /// Gives a durable timer up in a transition.
    pub(crate) fn clear_timer(&mut self, writes: &mut Writes, timer: (Millis, u64)) {
        self.timers.due.remove(&timer);
        self.timers.after_jump.remove(&timer);
        self.timers.fired.remove(&timer);
        writes.delete(key::timer(timer.0, timer.1));
    }

    /// Sets a wake-up that needs no row.
    pub(crate) fn set_alarm(&mut self, at: Millis, alarm: Alarm) -> (Millis, u64) {
        self.timers.alarm_numbers += 1;
        let number = self.timers.alarm_numbers;
        self.timers.alarms.insert((at, number), alarm);
        (at, number)
    }

    /// Gives a wake-up up.
    pub(crate) fn clear_alarm(&mut self, alarm: Option<(Millis, u64)>) {
        if let Some(alarm) = alarm {
            self.timers.alarms.remove(&alarm);
        }
    }

    /// When this shard wants to be woken.
    pub(crate) fn next_due(&self) -> Option<Millis> {
        let first = self.timers.first().map(|(at, _)| at);
        let spread = |at: Millis| self.timers.jump.map_or(at, |jump| jump.fires(at));
        let stored = self.timers.beyond.filter(|_| self.timers.due.is_empty()).map(|beyond| spread(beyond.0));
        let durable = [first, stored].into_iter().flatten().min();
        let alarm = self.timers.alarms.first_key_value().map(|alarm| alarm.0.0);
        let runs = self.runs.next_due();
        let walk = (!self.walks.is_empty()).then_some(Millis(0));
        let limits = self.limits.next_due();
        let day = self.tenants.next_day();
        [durable, alarm, runs, walk, limits, day].into_iter().flatten().min()
    }

    /// Takes what the clocks show in this turn.
    pub(crate) fn set_tick(&mut self, tick: crate::env::Tick) {
        self.tick = tick;
        self.watch_clock();
    }

    /// Notices that the wall clock has moved against the monotonic one.
    pub(crate) fn watch_clock(&mut self) {
        let (wall, Some(monotonic)) = (self.tick.wall, self.tick.monotonic) else { return };
        let skew = i128::from(wall.0) - i128::from(monotonic.0);
        let moved = skew - self.timers.skew.replace(skew).unwrap_or(skew);
        if self.timers.jump.is_some_and(|jump| self.now() < jump.to) {
            // The clock has gone back to where it was before: what is due again from here on was not jumped over.
            self.timers.end_jump();
        }
        if moved.abs() <= JUMP {
            return;
        }
        self.wiring.clock_jumped(skew, moved);
        let from = Millis(u64::try_from(i128::from(wall.0) - moved).unwrap_or(0)).max(self.head.time);
        if from < wall {
            self.timers.begin_jump(Jump { from, to: wall });
        }
    }

    pub(super) async fn fire_due(&mut self) {
        let now = self.tick.wall;
        while let Some(entry) = self.timers.alarms.first_entry().filter(|entry| entry.key().0 <= now) {
            let alarm = entry.remove();
            self.alarm(alarm).await;
        }
        let now = self.now();
        if self.timers.jump.is_some_and(|jump| jump.fires(jump.to) <= now) {
            self.timers.end_jump();
        }
        for _ in 0..FIRED_PER_TURN {
            if self.timers.starved(now)
                && let Err(error) = self.load_timers().await
            {
                self.wiring.stop(error.message);
                return;
            }
            let Some(((at, number), timer)) = self.timers.take_due(now) else { break };
            self.fire(at, number, timer).await;
            self.timers.reached = self.timers.reached.max(at);
        }
        // Whatever is due before the mark has been deleted, or is found by its owner.
        self.head.timers_from = self.head.timers_from.max(self.timers.done_until());
    }

    async fn fire(&mut self, at: Millis, number: u64, timer: Timer) {
        let own = (at, number);
        let mut writes = Writes::default();
        match timer {
            Timer::Operation { invocation, number } => self.operation_due(invocation, number, own).await,
            Timer::Attempt { invocation } => self.attempt_due(invocation, own).await,
            Timer::Deadline { invocation } => {
                self.clear_timer(&mut writes, own);
                self.cancel_into(invocation, super::advance::DEADLINE.to_owned(), writes).await;
            }
            // This program may not even have the handlers: the row stays, and the mark before it.
            Timer::Message(_) | Timer::LargeMessage { .. } if self.wiring.settings.tasks == Tasks::Leave => {}
            Timer::Message(message) => {
                self.clear_timer(&mut writes, own);
                writes.delete(key::delayed(message.id));
                writes.count(&message.target.tenant, 0, -1);
                writes.keep(&message.target.tenant, -kept::change(message.input.len()));
                self.deliver_message(*message, writes).await;
            }
            Timer::LargeMessage { message, seal, len } => {
                self.clear_timer(&mut writes, own);
                writes.delete(key::delayed(message.id));
                writes.count(&message.target.tenant, 0, -1);
                writes.keep(&message.target.tenant, -kept::change(len));
                self.deliver_large(*message, seal, len, writes).await;
            }
            Timer::Signal { actor, name, n } => self.signal_expired(actor, name, n, own).await,
            Timer::Leftovers { invocation } => self.leftovers_due(invocation, own).await,
            Timer::Chunks { owner } => self.chunks_due(owner, own).await,
            Timer::Schedule { tenant, pipeline } => self.schedule_due(&tenant, &pipeline, own).await,
            Timer::Cancels { run, called } => self.cancels_due(run, called, own).await,
            Timer::Run { run, token } => {
                let row = key::timer(at, number);
                self.run_timer(run, token, row.clone()).await;
                // A run may delete it only with what follows from it: until then the mark does not pass it.
                if matches!(self.overlay.get(&row), Some(None)) {
                    self.timers.fired.remove(&own);
                }
            }
        }
    }

    async fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Attempt { invocation, number, attempt } => self.attempt_timed_out(invocation, number, attempt).await,
            Alarm::Suspend { invocation } => self.enqueue_suspend(invocation),
            Alarm::Ring { holder } => self.look_for_ring(holder).await,
            Alarm::Task { run, stage, item, attempt } => self.run_task_late(run, stage, item, attempt),
            Alarm::RunRests { run } => self.run_rests(run),
            Alarm::Decided => self.decided_due().await,
        }
    }
}
