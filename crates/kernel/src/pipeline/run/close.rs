//! The end of each commit: header, event and chain entry, and the run's one timer.

use bytes::Bytes;

use serde::Serialize;
use std::collections::BTreeSet;

use super::Run;
use super::effects::{Effects, TimerChange};
use crate::journal::{Hash32, SealKey, seal};
use crate::machine::{ApprovalState, RunEvent, RunState, StageState, TaskState};
use crate::pipeline::definition::Mode;
use crate::ports::Put;
use crate::record::run::{ChainRow, Event, Header, Phase, Progress, Wait, annex_key, chain_key, event_key, run_key};
use crate::time::Millis;
use crate::wire;

/// Events that are kept for readers.
const EVENTS_KEPT: u64 = 10_000;

/// A key as it stands in a chain entry: the kind, and what comes after the run's id.
pub(super) fn short_key(key: &[u8]) -> Bytes {
    let mut short = Vec::with_capacity(key.len().saturating_sub(20));
    short.extend(key.get(2));
    short.extend_from_slice(key.get(21..).unwrap_or_default());
    short.into()
}

/// What a chain entry keeps of a value.
pub(super) fn row_hash(key: &SealKey, short: &[u8], value: &[u8]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(&(short.len() as u32).to_be_bytes());
    hasher.update(short);
    hasher.update(value);
    let mut hash = [0u8; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    hash
}

/// What a chain entry keeps of the header.
pub(super) fn header_hash(key: &SealKey, header: &Header) -> Hash32 {
    seal(key, &wire::encode(header))
}

/// BLAKE3(previous ‖ number ‖ rows ‖ header).
pub(super) fn next_head(previous: Hash32, number: u64, rows: &[(Bytes, Option<[u8; 16]>)], header: Hash32) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    hasher.update(&number.to_be_bytes());
    hasher.update(&wire::encode(&rows));
    hasher.update(&header.0);
    Hash32(*hasher.finalize().as_bytes())
}

/// A [`crate::record::run::RunRow`] that is only written.
#[derive(Serialize)]
struct RowOf<'a> {
    header: &'a Header,
    head: Hash32,
}

/// A key stands in a commit once: what came last counts.
fn last_of_each_key(effects: &mut Effects) {
    let mut seen: BTreeSet<_> = effects.deletes.iter().cloned().collect();
    let mut puts = Vec::with_capacity(effects.puts.len() + 3);
    while let Some(put) = effects.puts.pop() {
        if seen.insert(put.key.clone()) {
            puts.push(put);
        }
    }
    puts.reverse();
    effects.puts = puts;
}

impl Run {
    /// Closes a commit that holds `effects`, all that this run gave since the last one: adds at most five rows (header,
    /// event, chain entry, annex, an event that is too old) and says what becomes of the run's timer row in the same commit.
    /// Not needed while [`Run::is_dirty`] is false and there is nothing to write.
    #[must_use]
    pub fn close(&mut self, effects: &mut Effects, now: Millis) -> TimerChange {
        last_of_each_key(effects);
        self.rest_or_wake();
        for (memory, at) in self.stages.iter().zip(&mut self.header.stages) {
            if at.state == StageState::Running {
                at.window = memory.gate.stored();
            }
        }
        let timer = self.move_timer();
        if std::mem::take(&mut self.annex_changed) {
            effects.put(annex_key(self.id), self.annex.encode());
        }
        let number = self.header.commits;
        self.header.commits += 1;
        let touched = std::mem::take(&mut self.touched);
        let progress = touched.into_iter().map(|stage| {
            let at = &self.header.stages[usize::from(stage)];
            Progress { stage: self.definition(usize::from(stage)).name.clone(), done: at.done, failed: at.failed, total: at.total }
        });
        let event = Event { at: now, state: self.header.state, progress: progress.collect(), happened: std::mem::take(&mut self.happened) };
        let event = Put { key: event_key(self.id, number), value: wire::encode(&event), expires: None };
        effects.puts.push(event);
        effects.deletes.extend(number.checked_sub(EVENTS_KEPT).map(|old| event_key(self.id, old)));
        let hash = |put: &Put| {
            let short = short_key(&put.key);
            let hash = row_hash(&self.seal_key, &short, &put.value);
            (short, Some(hash))
        };
        let mut rows: Vec<_> = effects.puts.iter().map(hash).collect();
        rows.extend(effects.deletes.iter().map(|key| (short_key(key), None)));
        let header = header_hash(&self.seal_key, &self.header);
        self.head = next_head(self.head, number, &rows, header);
        let chain = ChainRow { rows, header, chain: self.head };
        effects.put(chain_key(self.id, number), wire::encode(&chain));
        let row = RowOf { header: &self.header, head: self.head };
        effects.put(run_key(self.id), wire::encode(&row));
        self.dirty = false;
        timer
    }

    /// `running` while a task runs or can run, `waiting` while only times, people and signals are left.
    pub(super) fn rest_or_wake(&mut self) {
        let active = self.in_line() || !self.readings.is_idle() || (0..self.stages.len()).any(|stage| self.is_active(stage)) || self.has_a_turn();
        match self.header.state {
            RunState::Running if !active => self.run_event(RunEvent::Wait, None),
            RunState::Waiting if active => self.run_event(RunEvent::Wake, None),
            _ => {}
        }
    }

    /// Whether something is to be done of which no row and no timer would tell after a kill: a stage whose turn has come, or
    /// the end of the run.
    fn has_a_turn(&self) -> bool {
        match &self.annex.ending {
            Some(ending) => ending.order.get(ending.done as usize).is_none_or(|stage| self.header.stages[usize::from(*stage)].state != StageState::Running),
            None => self.all_ended() || (0..self.stages.len()).any(|stage| self.header.stages[stage].state == StageState::Pending && self.is_ready(stage)),
        }
    }

    fn is_active(&self, stage: usize) -> bool {
        let (memory, at) = (&self.stages[stage], &self.header.stages[stage]);
        match (at.state, at.phase) {
            (StageState::Ready, _) | (StageState::Running, Phase::Begin | Phase::Items) => true,
            // What came while it waited and was not looked at yet must not wait for a timer.
            (StageState::Running, Phase::Wait) => match &at.wait {
                Some(Wait::Approval { state, .. }) => matches!(state, ApprovalState::Approved | ApprovalState::Rejected),
                Some(Wait::Signal { .. }) => match &self.definition(stage).mode {
                    Mode::WaitSignal { signal } => self.header.signals.contains_key(signal),
                    _ => false,
                },
                _ => false,
            },
            (StageState::Running, Phase::Tasks) => {
                !memory.loaded || memory.running > 0 || !memory.due.is_empty() || memory.borrows() || at.cursor < at.total || at.low == at.total
            }
            (StageState::Running, Phase::Fallback) => {
                let slot = memory.fallback.as_ref();
                slot.is_none_or(|slot| slot.state != TaskState::Queued || slot.again.is_none())
            }
            _ => false,
        }
    }

    /// The next time at which something is due whether or not this process lives.
    pub(super) fn due(&self) -> Option<Millis> {
        if self.header.state.ended() {
            return None;
        }
        let mut due: Vec<Millis> = self.header.deadline.into_iter().collect();
        for (memory, at) in self.stages.iter().zip(&self.header.stages) {
            if at.state != StageState::Running {
                continue;
            }
            due.extend(memory.retries.first().map(|(at, _)| *at));
            if !memory.loaded {
                // What the rows say is not known yet: the timer that is there stays.
                due.extend(self.header.timer);
            }
            if at.phase == Phase::Wait {
                due.extend(match &at.wait {
                    Some(Wait::Until(until)) => Some(*until),
                    Some(Wait::Signal { until }) => *until,
                    Some(Wait::Approval { state: ApprovalState::Open | ApprovalState::Escalated, expires, .. }) => Some(*expires),
                    _ => None,
                });
            }
        }
        due.into_iter().min()
    }

    fn move_timer(&mut self) -> TimerChange {
        let due = self.due();
        if due == self.header.timer {
            return TimerChange { cleared: None, set: None };
        }
        TimerChange { cleared: std::mem::replace(&mut self.header.timer, due), set: due }
    }
}
