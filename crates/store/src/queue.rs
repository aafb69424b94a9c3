//! What waits for the log's thread.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Claim, CommitOutcome, Owner};

use crate::entry::Encoded;
use crate::reply::Reply;
use crate::still::Still;

/// One thing for the log's thread to do.
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

/// The queue in front of the log's thread.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    filled: Condvar,
}

#[derive(Default)]
struct QueueState {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl Queue {
    /// Adds a task; gives it back if the queue is closed.
    pub fn push(&self, task: Task) -> Result<(), Task> {
        let first = {
            let mut state = self.lock();
            if state.closed {
                return Err(task);
            }
            state.tasks.push_back(task);
            state.tasks.len() == 1
        };
        if first {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits behind `into`. If both are empty it blocks; `false` when the queue is closed and empty.
    pub fn take(&self, into: &mut VecDeque<Task>) -> bool {
        let mut state = self.lock();
        while into.is_empty() && state.tasks.is_empty() {
            if state.closed {
                return false;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if into.is_empty() {
            std::mem::swap(into, &mut state.tasks);
        } else {
            into.append(&mut state.tasks);
        }
        true
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
