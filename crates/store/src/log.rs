//! The log's thread: takes what waits, writes it as one group, syncs, applies it to the table, answers.

use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Claim, CommitOutcome, Epoch, Owner};
use selvedge_kernel::time::Day;

use crate::carry::Span;
use crate::embedded::Shared;
use crate::entry::{self, Encoded};
use crate::group::{self, HEADER_BYTES, Header};
use crate::queue::{Batch, Task};
use crate::reply::Reply;
use crate::segment::{Pool, Segment};
use crate::still::Still;
use crate::table::Applied;

/// A group takes no further entry once its body has this many bytes.
pub const GROUP_BYTES: usize = 1024 * 1024;
/// No group is longer: the last entry that a group takes is at most a whole commit.
pub const GROUP_MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long a group is held back when the tree falls behind.
const SLOW_WAIT: Duration = Duration::from_millis(5);
/// How often a log that is full looks whether the store has stopped.
const FULL_WAIT: Duration = Duration::from_millis(500);

/// What a shard's commits are checked against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardState {
    /// Raised by each claim.
    pub epoch: Epoch,
    /// Who claimed last.
    pub owner: Owner,
    /// The number of the last commit.
    pub last: u64,
}

impl Default for ShardState {
    fn default() -> ShardState {
        ShardState { epoch: Epoch(0), owner: Owner([0; 16]), last: 0 }
    }
}

/// The state of the log's thread.
pub struct Log {
    /// What it shares with readers.
    pub shared: Arc<Shared>,
    /// Where files come from.
    pub pool: Arc<Pool>,
    /// The store's id.
    pub store: [u8; 16],
    /// One state a shard, the group that is being put together included.
    pub shards: Vec<ShardState>,
    /// The same after the last group that was written.
    pub settled: Vec<ShardState>,
    /// The segment that is written, and the place of the next group in it.
    pub tail: Option<(Arc<Segment>, u64)>,
    /// The number of the next group.
    pub next_group: u64,
    /// The incarnation of the next segment.
    pub next_incarnation: u64,
    /// The span of the log that the newest layers belong to.
    pub span: u64,
    /// Segments that were filled in this span.
    pub filled: Vec<Arc<Segment>>,
    /// Bytes that the layers had when the span began.
    pub bytes_before: usize,
}

/// How much may wait for the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of rows in memory.
    pub table_bytes: usize,
    /// Bytes of the log.
    pub log_bytes: u64,
}

/// A group that is being put together.
#[derive(Default)]
struct Draft {
    buffer: Vec<u8>,
    entries: u32,
    /// Shard, encoded rows and number, where the large values start in the group.
    commits: Vec<(ShardId, (Bytes, u64), usize)>,
    /// Answers that wait for this group.
    claims: Vec<(Reply<Claim>, Claim)>,
    batches: Vec<(Reply<Vec<CommitOutcome>>, Vec<CommitOutcome>)>,
    /// The batch that goes on in the next group had this many outcomes before this group.
    open_from: usize,
}

impl Log {
    /// Works until the queue is closed and empty, or the disk fails.
    pub fn run(mut self) {
        let mut tasks = VecDeque::new();
        let mut draft = Draft::default();
        while self.shared.queue.take(&mut tasks) {
            let room = self.make_room();
            self.fill(&mut tasks, &mut draft);
            let written = match room {
                Ok(()) if draft.entries > 0 => self.write(&mut draft),
                other => other,
            };
            match written {
                Ok(()) => draft.answer(),
                Err(reason) => {
                    self.shared.stop(reason);
                    draft.answer_unknown();
                    refuse_all(&mut tasks, draft.open_from);
                    break;
                }
            }
        }
        self.shared.queue.close();
        while self.shared.queue.take(&mut tasks) {
            refuse_all(&mut tasks, 0);
        }
    }

    /// Moves tasks into a group, until there are no more or the group is full.
    fn fill(&mut self, tasks: &mut VecDeque<Task>, draft: &mut Draft) {
        group::begin(&mut draft.buffer);
        draft.entries = 0;
        draft.open_from = 0;
        while draft.buffer.len() < GROUP_BYTES {
            match tasks.pop_front() {
                None => break,
                Some(task @ Task::Still(_)) if draft.entries > 0 => {
                    // What is before it is written first.
                    tasks.push_front(task);
                    break;
                }
                Some(Task::Still(reply)) => drop(reply.send(self.still())),
                Some(Task::Claim { shard, owner, reply }) => self.add_claim(draft, shard, owner, reply),
                Some(Task::Commit(mut batch)) => {
                    let before = batch.outcomes.len();
                    while draft.buffer.len() < GROUP_BYTES
                        && let Some(commit) = batch.rest.pop()
                    {
                        let outcome = self.add_commit(draft, &mut batch.refused, commit);
                        batch.outcomes.push(outcome);
                    }
                    if batch.rest.is_empty() {
                        draft.batches.push((batch.reply, batch.outcomes));
                    } else {
                        draft.open_from = before;
                        tasks.push_front(Task::Commit(batch));
                    }
                }
            }
        }
    }

    fn add_claim(&mut self, draft: &mut Draft, shard: ShardId, owner: Owner, reply: Reply<Claim>) {
        let Some(state) = self.shards.get_mut(usize::from(shard.0)) else {
            return;
        };
        state.epoch = Epoch(state.epoch.0 + 1);
        state.owner = owner;
        entry::append_claim(&mut draft.buffer, shard, state.epoch, owner);
        draft.entries += 1;
        draft.claims.push((reply, Claim { epoch: state.epoch, last: state.last }));
    }

    fn add_commit(&mut self, draft: &mut Draft, refused: &mut Vec<(ShardId, CommitOutcome)>, commit: Encoded) -> CommitOutcome {
        if let Some((_, outcome)) = refused.iter().find(|(shard, _)| *shard == commit.shard) {
            return outcome.clone();
        }
        let outcome = match self.shards.get_mut(usize::from(commit.shard.0)) {
            None => CommitOutcome::Fenced,
            Some(state) if state.epoch != commit.epoch || state.epoch == Epoch(0) => CommitOutcome::Fenced,
            Some(state) if commit.number != state.last + 1 || commit.over_limit => CommitOutcome::Gap { last: state.last },
            Some(state) => {
                state.last = commit.number;
                let at = commit.append(&mut draft.buffer);
                draft.entries += 1;
                draft.commits.push((commit.shard, (commit.rows, commit.number), at));
                return CommitOutcome::Done;
            }
        };
        refused.push((commit.shard, outcome.clone()));
        outcome
    }

    fn write(&mut self, draft: &mut Draft) -> Result<(), String> {
        let length = draft.buffer.len().next_multiple_of(HEADER_BYTES) as u64;
        let full = |(segment, offset): &(Arc<Segment>, u64)| *offset > 0 && offset + length > segment.capacity;
        if self.tail.as_ref().is_none_or(full) {
            self.roll()?;
        }
        let Some((segment, offset)) = &mut self.tail else {
            return Err("no segment".to_owned());
        };
        let header = Header { store: self.store, incarnation: segment.incarnation, number: self.next_group, entries: draft.entries };
        group::seal(&mut draft.buffer, &header);
        let path = || segment.file.path().display().to_string();
        segment.file.write_at(&draft.buffer, *offset).map_err(|error| {
            format!("writing {} failed ({error}); what was acknowledged is kept: give the disk space or repair it, then start again", path())
        })?;
        segment.file.sync().map_err(|error| format!("syncing {} failed ({error}); what was acknowledged is kept: check the disk, then start again", path()))?;
        let start = *offset;
        *offset += length;
        self.next_group += 1;
        let segment = Arc::clone(segment);
        for (shard, rows, at) in draft.commits.drain(..) {
            let number = rows.1;
            let large_at = start + at as u64;
            let commit = Applied { shard, number, rows: &rows.0, segment: &segment, large_at, span: self.span };
            match self.shared.tables.apply(&commit, None) {
                Ok(true) => {}
                Ok(false) => return Err("a commit could not be read back from memory: this is a defect of Selvedge".to_owned()),
                Err(error) => return Err(format!("reading the tree failed ({error}): check the disk, then start again")),
            }
        }
        self.settled.clone_from(&self.shards);
        self.shared.carrier.measure(&self.shared.tables);
        Ok(())
    }

    /// Ends the span of the log: what was changed in it goes to the carrier. What expires on the day `gone` or before
    /// need not be written; `passes` over it are done already.
    pub fn end_span(&mut self, gone: Day, passes: u32) {
        self.shared.tables.freeze(self.span);
        let segments = std::mem::take(&mut self.filled);
        self.shared.carrier.push(Span {
            span: self.span,
            group: self.next_group - 1,
            incarnation: self.next_incarnation - 1,
            gone,
            passes,
            shards: self.settled.clone(),
            log_bytes: segments.iter().map(|segment| segment.capacity).sum(),
            segments,
        });
        self.span += 1;
        self.bytes_before = self.shared.tables.bytes();
    }

    /// All shards after the last group.
    fn still(&mut self) -> Still {
        self.end_span(self.yesterday(), 0);
        let shards = self.shared.tables.still();
        Still { group: self.next_group - 1, states: self.settled.clone(), today: (self.shared.today)(), shards }
    }

    /// A commit that was encoded before midnight may be written after it.
    fn yesterday(&self) -> Day {
        Day((self.shared.today)().0.saturating_sub(1))
    }

    /// Slows down when the tree falls behind, and waits for it when a bound is reached.
    fn make_room(&mut self) -> Result<(), String> {
        if self.shared.tables.bytes() > self.bytes_before + self.shared.bounds.table_bytes / 4 {
            self.end_span(self.yesterday(), 0);
        }
        let mut slowed = false;
        loop {
            self.shared.running()?;
            let progress = self.shared.carrier.progress();
            let bytes = self.shared.tables.bytes();
            if progress.waiting == 0 || !self.shared.bounds.near(bytes, progress.log_bytes) {
                return Ok(());
            }
            let full = bytes > self.shared.bounds.table_bytes || progress.log_bytes > self.shared.bounds.log_bytes;
            if slowed && !full {
                return Ok(());
            }
            slowed = true;
            self.shared.carrier.press(if full { FULL_WAIT } else { SLOW_WAIT });
        }
    }

    fn roll(&mut self) -> Result<(), String> {
        if let Some((segment, _)) = self.tail.take() {
            self.filled.push(segment);
            self.end_span(self.yesterday(), 0);
        }
        let spare = self.pool.take().map_err(|error| {
            format!("no new segment of the log could be made ({error}); what was acknowledged is kept: give the disk space, then start again")
        })?;
        self.tail = Some((Arc::new(Segment::new(spare, self.next_incarnation, &self.pool)), 0));
        self.next_incarnation += 1;
        Ok(())
    }
}

impl Bounds {
    /// How much of the tightest bound is used, in thousandths.
    #[must_use]
    pub fn used(&self, bytes: usize, log_bytes: u64) -> u32 {
        let share = |used: u64, bound: u64| u32::try_from(u128::from(used) * 1000 / u128::from(bound.max(1))).unwrap_or(u32::MAX);
        share(bytes as u64, self.table_bytes as u64).max(share(log_bytes, self.log_bytes))
    }

    /// Whether three quarters of a bound are used.
    #[must_use]
    pub fn near(&self, bytes: usize, log_bytes: u64) -> bool {
        bytes > self.table_bytes / 4 * 3 || log_bytes > self.log_bytes / 4 * 3
    }
}

impl Draft {
    fn answer(&mut self) {
        for (reply, claim) in self.claims.drain(..) {
            reply.send(claim);
        }
        for (reply, outcomes) in self.batches.drain(..) {
            reply.send(outcomes);
        }
    }

    fn answer_unknown(&mut self) {
        self.claims.clear();
        for (reply, outcomes) in self.batches.drain(..) {
            reply.send(vec![CommitOutcome::Unknown; outcomes.len()]);
        }
    }
}

/// Answers what can not be written any more. Of the first batch, the first `durable` outcomes stand.
fn refuse_all(tasks: &mut VecDeque<Task>, durable: usize) {
    for (n, task) in tasks.drain(..).enumerate() {
        if let Task::Commit(Batch { rest, mut outcomes, reply, .. }) = task {
            let count = outcomes.len() + rest.len();
            outcomes.truncate(if n == 0 { durable } else { 0 });
            outcomes.resize(count, CommitOutcome::Unknown);
            reply.send(outcomes);
        }
    }
}
