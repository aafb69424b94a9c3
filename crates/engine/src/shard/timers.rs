//! Durable timers of a shard: the next thousand in memory, the rest in the store, one wake-up for the earliest.

use std::collections::BTreeMap;

use selvedge_kernel::id::{InvocationId, Key, RunId};
use selvedge_kernel::ports::after_prefix;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::record::shard::Timer;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;

use super::{Shard, VerbError};

const IN_MEMORY: usize = 1_000;
/// How many timers fire in one turn of a shard: overdue ones after a downtime come at this bounded rate.
const FIRED_PER_TURN: usize = 64;

/// Timers that need no row: they mean nothing once the process has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Alarm {
    /// The end of an attempt's time.
    Attempt { invocation: InvocationId, number: u32, attempt: u32 },
    /// A handler that may leave memory.
    Suspend { invocation: InvocationId },
    /// The end of the time of an attempt of a run's task.
    Task { run: RunId, stage: u16, item: u32, attempt: u32 },
    /// A run that may leave memory.
    RunRests { run: RunId },
}

#[derive(Default)]
pub(crate) struct TimerQueue {
    due: BTreeMap<(Millis, u64), Timer>,
    /// Timers from here on are only in the store.
    beyond: Option<(Millis, u64)>,
    alarms: BTreeMap<(Millis, u64), Alarm>,
    alarm_numbers: u64,
}

impl TimerQueue {
    fn insert(&mut self, at: Millis, number: u64, timer: Timer) {
        if self.beyond.is_some_and(|beyond| (at, number) >= beyond) {
            return;
        }
        self.due.insert((at, number), timer);
        if self.due.len() > IN_MEMORY
            && let Some((key, _)) = self.due.pop_last()
        {
            self.beyond = Some(key);
        }
    }
}

impl Shard {
    pub(super) async fn load_timers(&mut self) -> Result<(), VerbError> {
        let from = self.timers.beyond.map_or_else(|| key::timer(self.head.timers_from, 0), |(at, number)| key::timer(at, number));
        let range = from..after_prefix(&key::all(Kind::Timer));
        let rows = self.scan(range, IN_MEMORY + 1).await?;
        self.timers.beyond = None;
        for (row, value) in rows {
            let Some([at, number]) = key::numbers::<2>(&row) else { continue };
            self.timers.insert(Millis(at), number, wire::decode("timer", &value)?);
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
        let at = at.max(self.head.timers_from);
        writes.put(key::timer(at, number), wire::encode(&timer));
        self.timers.insert(at, number, timer);
        (at, number)
    }

    /// Gives a durable timer up in a transition.
    pub(crate) fn clear_timer(&mut self, writes: &mut Writes, timer: (Millis, u64)) {
        self.timers.due.remove(&timer);
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
        let durable = self.timers.due.first_key_value().map(|timer| timer.0.0);
        let alarm = self.timers.alarms.first_key_value().map(|alarm| alarm.0.0);
        let runs = self.runs.next_due();
        [durable, alarm, runs].into_iter().flatten().min()
    }

    pub(super) async fn fire_due(&mut self) {
        let now = self.wiring.env.clock.now();
        while let Some(entry) = self.timers.alarms.first_entry().filter(|entry| entry.key().0 <= now) {
            let alarm = entry.remove();
            self.alarm(alarm);
        }
        let now = self.now();
        for _ in 0..FIRED_PER_TURN {
            if self.timers.due.is_empty() && self.timers.beyond.is_some() && self.load_timers().await.is_err() {
                return;
            }
            let Some(entry) = self.timers.due.first_entry().filter(|entry| entry.key().0 <= now) else { return };
            let ((at, number), timer) = entry.remove_entry();
            self.head.timers_from = self.head.timers_from.max(at);
            self.fire(at, number, timer).await;
        }
    }

    async fn fire(&mut self, at: Millis, number: u64, timer: Timer) {
        let row: Key = key::timer(at, number);
        match timer {
            Timer::Operation { invocation, number } => self.operation_due(invocation, number, row).await,
            Timer::Attempt { invocation } => self.attempt_due(invocation, row).await,
            Timer::Deadline { invocation } => {
                let mut writes = Writes::default();
                writes.delete(row);
                self.write(writes, Vec::new());
                self.request_cancel(invocation, "deadline".to_owned()).await;
            }
            Timer::Message(message) => {
                let mut writes = Writes::default();
                writes.delete(row);
                self.deliver_message(*message, writes).await;
            }
            Timer::Run { run, token } => self.run_timer(run, token, row).await,
        }
    }

    fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Attempt { invocation, number, attempt } => self.attempt_timed_out(invocation, number, attempt),
            Alarm::Suspend { invocation } => self.enqueue_suspend(invocation),
            Alarm::Task { run, stage, item, attempt } => self.run_task_late(run, stage, item, attempt),
            Alarm::RunRests { run } => self.run_rests(run),
        }
    }
}
