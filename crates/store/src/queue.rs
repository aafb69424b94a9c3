//! What waits for the log, and whose turn it is to write it.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Claim, CommitOutcome, Owner};

use crate::entry::Encoded;
use crate::reply::Reply;
use crate::still::Still;

/// After so many batches of one commit in a row, each of which found the log at rest, whoever gives the next one writes it.
const ALONE: u32 = 4;

/// One thing for the log to do.
pub enum Task {
    /// A batch of commits.
    Commit(Batch),
    /// A claim.
    Claim {
        /// Of which shard.
        shard: ShardId,
        /// By whom.
        owner: Owner,
        /// Who waits.
        reply: Reply<Claim>,
    },
    /// All shards as they stand behind what is before this in the queue.
    Still(SyncSender<Still>),
}

/// A batch of commits, part of which may have been written.
pub struct Batch {
    /// Those that are not written yet, in reverse order.
    pub rest: Vec<Encoded>,
    /// What became of those before them.
    pub outcomes: Vec<CommitOutcome>,
    /// Shards of which a commit was refused, and why.
    pub refused: Vec<(ShardId, CommitOutcome)>,
    /// Who waits.
    pub reply: Reply<Vec<CommitOutcome>>,
}

/// The queue in front of the log. Whoever has the turn writes; nobody else does until the turn is given back, so that what
/// was pushed first is written first.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    tasks: VecDeque<Task>,
    /// Somebody writes.
    taken: bool,
    /// Batches of one commit in a row that found the log at rest.
    alone: u32,
    closed: bool,
}

/// What became of a task that was pushed.
pub enum Pushed {
    /// The log's thread comes to it.
    Waits,
    /// It is the caller's turn: write it, then end the turn.
    Yours(Task),
    /// The queue is closed.
    Refused,
}

impl Queue {
    /// Adds a task, or gives it back with the turn: to a caller who has been the only one for a while, so that it need not wake
    /// a thread and be woken by it.
    pub fn push(&self, task: Task) -> Pushed {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Refused;
        }
        let rests = !state.taken && state.tasks.is_empty();
        let one = matches!(&task, Task::Commit(batch) if batch.rest.len() == 1);
        state.alone = if rests && one { state.alone.saturating_add(1) } else { 0 };
        if state.alone > ALONE {
            state.taken = true;
            return Pushed::Yours(task);
        }
        state.tasks.push_back(task);
        drop(state);
        // Who has the turn looks again when it ends.
        if rests {
            self.filled.notify_one();
        }
        Pushed::Waits
    }

    /// Ends a turn.
    pub fn give_back(&self) {
        let waits = {
            let mut state = self.lock();
            state.taken = false;
            !state.tasks.is_empty() || state.closed
        };
        if waits {
            self.filled.notify_one();
        }
    }

    /// Ends a turn and leaves its task to the log's thread, before all others.
    pub fn hand_over(&self, task: Task) {
        let mut state = self.lock();
        state.tasks.push_front(task);
        state.taken = false;
        drop(state);
        self.filled.notify_one();
    }

    /// For the log's thread, which has no turn: waits for one and for tasks, and moves them into `into`. `false` when the queue is
    /// closed and empty.
    pub fn wait(&self, into: &mut VecDeque<Task>) -> bool {
        let mut state = self.lock();
        while state.taken || state.tasks.is_empty() {
            if state.closed && !state.taken {
                return false;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.taken = true;
        std::mem::swap(into, &mut state.tasks);
        true
    }

    /// For the log's thread, which has the turn: moves what waits behind `into`.
    pub fn more(&self, into: &mut VecDeque<Task>) {
        into.append(&mut self.lock().tasks);
    }

    /// Takes no more; what is in it is still done.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
