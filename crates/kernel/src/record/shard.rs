//! Rows of a shard as a whole: its head, its ledger, its timers.

use serde::{Deserialize, Serialize};

use crate::id::{ActorId, InvocationId, RawId, RunId};
use crate::journal::Hash32;
use crate::record::message::Message;
use crate::time::{Day, Millis};
use crate::wire::{self, WireError};

/// Marks, ledger head and time: written by every commit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, Default)]
pub struct ShardHead {
    /// The time of the last commit: shard time never runs backwards.
    pub time: Millis,
    /// The next number for inbox places, ready rows and timers.
    pub next: u64,
    /// No timer is due before this.
    pub timers_from: Millis,
    /// No ready row has a lower number.
    pub ready_from: u64,
    /// The chain value of the last ledger line.
    pub ledger: Hash32,
    /// How many ledger lines there are.
    pub ledger_lines: u64,
    /// Whether the last owner closed in good order.
    pub clean: bool,
    /// When the last ledger line was written.
    pub ledger_at: Millis,
    /// The first ledger line of each span of days, the oldest first, at most [`LEDGER_MARKS`]: what shows whether
    /// retention can have removed the lines at the front.
    pub ledger_marks: Vec<LedgerMark>,
}

/// How many marks the ledger has.
pub const LEDGER_MARKS: usize = 6;
/// How many days lie between two marks of the ledger, at least: all marks together span more than a year.
pub const LEDGER_MARK_DAYS: u32 = 80;

/// A ledger line whose day is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerMark {
    /// Its number.
    pub line: u64,
    /// When it was written.
    pub at: Millis,
}

/// The head as it was before the ledger had marks.
#[derive(Deserialize)]
struct UnmarkedHead {
    time: Millis,
    next: u64,
    timers_from: Millis,
    ready_from: u64,
    ledger: Hash32,
    ledger_lines: u64,
    clean: bool,
}

impl ShardHead {
    /// Reads the row of a head, whether it has marks or is from before them. One from before them counts as written at
    /// the time of its last commit: such a store is younger than a year, and has lost no line by retention.
    pub fn decode(bytes: &[u8]) -> Result<ShardHead, WireError> {
        let error = match wire::decode::<ShardHead>("shard head", bytes) {
            Ok(head) => return Ok(head),
            Err(error) => error,
        };
        let Ok(old) = wire::decode::<UnmarkedHead>("shard head", bytes) else { return Err(error) };
        let UnmarkedHead { time, next, timers_from, ready_from, ledger, ledger_lines, clean } = old;
        let ledger_marks = if ledger_lines > 0 { vec![LedgerMark { line: 0, at: time }] } else { Vec::new() };
        Ok(ShardHead { time, next, timers_from, ready_from, ledger, ledger_lines, clean, ledger_at: time, ledger_marks })
    }

    /// The number that the first kept ledger line has at most, given for how long lines are kept; none if retention can
    /// have removed them all.
    #[must_use]
    pub fn ledger_from(&self, today: Day, keep: std::time::Duration) -> Option<u64> {
        let kept = |at: Millis| today < Day::expiry(at, keep);
        if self.ledger_lines == 0 || !kept(self.ledger_at) {
            return None;
        }
        let marked = self.ledger_marks.iter().find(|mark| kept(mark.at)).map(|mark| mark.line);
        Some(marked.unwrap_or(self.ledger_lines - 1))
    }

    fn mark_ledger(&mut self, line: u64) {
        self.ledger_at = self.time;
        let due = self.ledger_marks.last().is_none_or(|last| self.time.day().0 >= last.at.day().0.saturating_add(LEDGER_MARK_DAYS));
        if due {
            if self.ledger_marks.len() >= LEDGER_MARKS {
                self.ledger_marks.remove(0);
            }
            self.ledger_marks.push(LedgerMark { line, at: self.time });
        }
    }
}

/// What a ledger line says of a piece of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum LedgerState {
    /// Accepted, durably.
    Accepted,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
    /// Ended by a cancel.
    Cancelled,
    /// Ended by a kill.
    Killed,
}

/// One line of a shard's ledger.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LedgerLine {
    /// Whose.
    pub id: RawId,
    /// Whether it is a run.
    pub run: bool,
    /// What became of it.
    pub state: LedgerState,
    /// The last chain value of its journal.
    pub last: Hash32,
    /// How many entries its journal has.
    pub count: u32,
    /// When.
    pub at: Millis,
    /// The chain of the ledger up to and including this line.
    pub chain: Hash32,
}

/// Appends to the ledger: gives the line, and the head is moved on.
#[must_use]
pub fn ledger_line(head: &mut ShardHead, id: RawId, run: bool, state: LedgerState, last: Hash32, count: u32) -> (u64, LedgerLine) {
    let chain = ledger_chain(head.ledger, id, run, state, last, count, head.time);
    let line = LedgerLine { id, run, state, last, count, at: head.time, chain };
    let n = head.ledger_lines;
    head.mark_ledger(n);
    head.ledger = chain;
    head.ledger_lines += 1;
    (n, line)
}

/// BLAKE3(previous ‖ line without its chain value).
#[must_use]
pub fn ledger_chain(previous: Hash32, id: RawId, run: bool, state: LedgerState, last: Hash32, count: u32, at: Millis) -> Hash32 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0);
    hasher.update(&wire::encode(&(id, run, state, last, count, at)));
    Hash32(*hasher.finalize().as_bytes())
}

/// What a reopened shard activates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ready {
    /// An invocation that was running.
    Invocation(InvocationId),
    /// A run with work in flight.
    Run(RunId),
}

/// What fires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Timer {
    /// An operation: a sleep, the end of a wait, the next attempt.
    Operation {
        /// Of which invocation.
        invocation: InvocationId,
        /// Which operation.
        number: u32,
    },
    /// The next attempt of an invocation.
    Attempt {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// The deadline of an invocation.
    Deadline {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// A delayed message.
    Message(Box<Message>),
    /// A delayed message whose input is kept in chunks under the message's id.
    LargeMessage {
        /// The message, without its input.
        message: Box<Message>,
        /// Under which seal.
        seal: Hash32,
        /// How long the input is.
        len: u64,
    },
    /// What an ended invocation has left behind and one commit could not hold: operations, callers, signals.
    Leftovers {
        /// Of which invocation.
        invocation: InvocationId,
    },
    /// The chunks and the output of an owner, after its retention.
    Chunks {
        /// Whose.
        owner: RawId,
    },
    /// Something that a run waits for.
    Run {
        /// Which run.
        run: RunId,
        /// What it calls it.
        token: u64,
    },
    /// The end of the time that a signal is kept for an actor.
    Signal {
        /// For whom.
        actor: ActorId,
        /// Its name.
        name: String,
        /// Its number.
        n: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash16;
    use std::time::Duration;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);

    #[derive(Serialize)]
    struct Before(Millis, u64, Millis, u64, Hash32, u64, bool);

    #[test]
    fn a_head_from_before_the_marks_is_read_and_has_lost_no_line() {
        let row = wire::encode(&Before(Millis(5), 6, Millis(7), 8, Hash32([9; 32]), 10, true));
        let head = ShardHead::decode(&row).unwrap();
        assert_eq!((head.time, head.next, head.ledger_lines, head.clean), (Millis(5), 6, 10, true));
        assert_eq!(head.ledger_from(Day(0), YEAR), Some(0));
        assert_eq!(ShardHead::decode(&wire::encode(&head)).unwrap(), head);
        assert!(ShardHead::decode(&row[..row.len() - 1]).is_err());
    }

    #[test]
    fn marks_stay_few_and_never_ask_for_a_line_that_retention_has_removed() {
        let mut head = ShardHead::default();
        let id = RawId { hash: Hash16(1), uuid: [1; 16] };
        let mut lines = Vec::new();
        for day in 0..2_000u32 {
            head.time = Day(day).start();
            let (n, line) = ledger_line(&mut head, id, false, LedgerState::Accepted, Hash32::default(), 0);
            lines.push((n, line.at));
            let kept = lines.iter().find(|(_, at)| Day(day) < Day::expiry(*at, YEAR)).map(|line| line.0).unwrap();
            let from = head.ledger_from(Day(day), YEAR).unwrap();
            assert!(from >= kept && from <= kept + u64::from(LEDGER_MARK_DAYS), "day {day}: {kept} is kept, {from} is asked for");
            assert!(head.ledger_marks.len() <= LEDGER_MARKS);
        }
        assert_eq!(head.ledger_from(Day(2_000 + 400), YEAR), None);
    }
}
