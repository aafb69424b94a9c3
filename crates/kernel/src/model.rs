//! The reference model of the store: an ordered map that says what every store must answer.
//!
//! It is a test oracle. No configuration can name it, and it forgets everything with its last handle.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::id::{Key, ShardId};
use crate::limit;
use crate::ports::{Boxed, Claim, Commit, CommitOutcome, Epoch, Fold, Owner, Store, StoreError, under};
use crate::time::Day;

/// How many commits of a shard [`Model::go_back`] can take away.
const HISTORY: usize = 64;
/// A folded row holds at most this many bytes, unless one pair alone is longer.
const FOLDED_ROW_BYTES: usize = 1024 * 1024;

/// A handle on one pure store; its clones see the same rows. A new process is a clone that claims.
#[derive(Clone, Default)]
pub struct Model {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    shards: BTreeMap<ShardId, Shard>,
    today: Option<Day>,
    lost_answers: usize,
    lost_commits: usize,
    held: Option<VecDeque<Held>>,
    stopped: Option<String>,
    commits: u64,
    /// How many commits each life of the process has left, the one of now first; none are without end.
    lives: VecDeque<u64>,
    /// The life of now has asked for more than it had.
    cut: bool,
}

/// A batch that waits, and who waits for it.
type Held = (Arc<Mutex<Slot>>, Vec<Commit>);

#[derive(Default)]
struct Shard {
    epoch: u64,
    last: u64,
    rows: BTreeMap<Key, Row>,
    history: VecDeque<Vec<(Key, Option<Row>)>>,
}

#[derive(Clone)]
struct Row {
    value: Bytes,
    expires: Option<Day>,
}

#[derive(Default)]
struct Slot {
    outcomes: Option<Vec<CommitOutcome>>,
    waker: Option<Waker>,
}

impl Model {
    /// An empty store.
    #[must_use]
    pub fn new() -> Model {
        Model::default()
    }

    /// The day on which readers stand; rows that expire on it or before are not seen.
    pub fn set_today(&self, today: Day) {
        self.lock().today = Some(today);
    }

    /// The next `count` accepted commits are applied, but answered with [`CommitOutcome::Unknown`].
    pub fn lose_answers(&self, count: usize) {
        self.lock().lost_answers = count;
    }

    /// The next `count` accepted commits are not applied, and answered with [`CommitOutcome::Unknown`];
    /// so are those behind them of the same shard and batch.
    pub fn lose_commits(&self, count: usize) {
        self.lock().lost_commits = count;
    }

    /// Goes back in time, as a failover that lost commits: takes away the last `commits` of a shard, at most 64.
    pub fn go_back(&self, shard: ShardId, commits: usize) {
        let mut state = self.lock();
        let shard = state.shards.entry(shard).or_default();
        for _ in 0..commits {
            let Some(undo) = shard.history.pop_back() else { break };
            shard.last -= 1;
            for (key, old) in undo.into_iter().rev() {
                match old {
                    Some(row) => shard.rows.insert(key, row),
                    None => shard.rows.remove(&key),
                };
            }
        }
    }

    /// The day on which a row may vanish.
    #[must_use]
    pub fn leaves_on(&self, shard: ShardId, key: &Key) -> Option<Day> {
        self.lock().shards.get(&shard)?.rows.get(key)?.expires
    }

    /// Takes all rows of a kind away, as in a store that was written before there were any.
    pub fn before_there_were(&self, kind: crate::record::kind::Kind) {
        for shard in self.lock().shards.values_mut() {
            shard.rows.retain(|key, _| crate::record::kind::Kind::of(key) != Some(kind));
        }
    }

    /// Raises the epoch of a shard, as if another owner had claimed it.
    pub fn fence(&self, shard: ShardId) {
        self.lock().shards.entry(shard).or_default().epoch += 1;
    }

    /// Commits wait, in order, until [`Model::release`] or [`Model::drop_held`].
    pub fn hold(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// How many batches wait.
    #[must_use]
    pub fn held(&self) -> usize {
        self.lock().held.as_ref().map_or(0, VecDeque::len)
    }

    /// Applies and answers everything that waits; later commits do not wait.
    pub fn release(&self) {
        let mut done = Vec::new();
        {
            let mut state = self.lock();
            for (slot, batch) in state.held.take().unwrap_or_default() {
                done.extend(state.commit(batch).map(|outcomes| (slot, outcomes)));
            }
        }
        for (slot, outcomes) in done {
            answer(&slot, outcomes);
        }
    }

    /// Applies and answers the first that waits; the others wait on, and so do later commits.
    pub fn release_one(&self) {
        let done = {
            let mut state = self.lock();
            let first = state.held.as_mut().and_then(VecDeque::pop_front);
            first.and_then(|(slot, batch)| Some((slot, state.commit(batch)?)))
        };
        if let Some((slot, outcomes)) = done {
            answer(&slot, outcomes);
        }
    }

    /// Forgets everything that waits, as a kill does; it is answered with [`CommitOutcome::Unknown`].
    pub fn drop_held(&self) {
        let held = self.lock().held.take().unwrap_or_default();
        for (slot, batch) in held {
            answer(&slot, vec![CommitOutcome::Unknown; batch.len()]);
        }
    }

    /// Ends lives of the process after a number of commits each: the first one after `lives[0]`, counted from now. What such
    /// a life asks for beyond, also behind it in one batch, is not applied and never answered, until somebody claims a shard:
    /// that is the next life. Those behind the last are without end.
    pub fn cut_after(&self, lives: &[u64]) {
        self.lock().lives = lives.iter().copied().collect();
    }

    /// Whether the life of now has asked for more commits than [`Model::cut_after`] left it.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// From now on every call fails with [`StoreError::Stopped`], commits are unknown; `None` ends that.
    pub fn set_stopped(&self, reason: Option<&str>) {
        self.lock().stopped = reason.map(str::to_owned);
    }

    /// How many commits were applied since the beginning.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// Every row of a shard, expired ones too, in key order.
    #[must_use]
    pub fn rows(&self, shard: ShardId) -> Vec<(Key, Bytes)> {
        let state = self.lock();
        let rows = state.shards.get(&shard).map(|shard| &shard.rows);
        rows.into_iter().flatten().map(|(key, row)| (key.clone(), row.value.clone())).collect()
    }

    /// Changes a row behind the owner's back.
    pub fn overwrite(&self, shard: ShardId, key: Key, value: Bytes) {
        if let Some(shard) = self.lock().shards.get_mut(&shard) {
            shard.rows.insert(key, Row { value, expires: None });
        }
    }

    /// Removes a row behind the owner's back.
    pub fn remove(&self, shard: ShardId, key: &Key) {
        if let Some(shard) = self.lock().shards.get_mut(&shard) {
            shard.rows.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        match &self.stopped {
            Some(reason) => Err(StoreError::Stopped { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn seen(&self, row: &Row) -> bool {
        match (row.expires, self.today) {
            (Some(expires), Some(today)) => today < expires,
            _ => true,
        }
    }

    /// Says whether one more commit belongs to the life of now.
    fn lives_on(&mut self) -> bool {
        match self.lives.front_mut() {
            None => true,
            Some(0) => {
                self.cut = true;
                false
            }
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }

    /// No answer: the process is dead, as far as it was applied.
    fn commit(&mut self, batch: Vec<Commit>) -> Option<Vec<CommitOutcome>> {
        let mut refused: BTreeMap<ShardId, CommitOutcome> = BTreeMap::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        for commit in batch {
            let outcome = match refused.get(&commit.shard) {
                Some(outcome) => outcome.clone(),
                None => self.decide(&commit),
            };
            let mut answer = outcome.clone();
            if outcome == CommitOutcome::Done {
                if !self.lives_on() {
                    return None;
                }
                if self.lost_commits > 0 {
                    self.lost_commits -= 1;
                    answer = CommitOutcome::Unknown;
                    refused.insert(commit.shard, CommitOutcome::Unknown);
                } else {
                    self.apply(&commit);
                    if self.lost_answers > 0 {
                        self.lost_answers -= 1;
                        answer = CommitOutcome::Unknown;
                    }
                }
            } else {
                refused.insert(commit.shard, outcome);
            }
            outcomes.push(answer);
        }
        Some(outcomes)
    }

    fn decide(&self, commit: &Commit) -> CommitOutcome {
        if self.stopped.is_some() {
            return CommitOutcome::Unknown;
        }
        let (epoch, last) = self.shards.get(&commit.shard).map_or((0, 0), |shard| (shard.epoch, shard.last));
        if commit.epoch != Epoch(epoch) || epoch == 0 {
            CommitOutcome::Fenced
        } else if commit.number != last + 1 || over_limit(commit) {
            CommitOutcome::Gap { last }
        } else {
            CommitOutcome::Done
        }
    }

    fn apply(&mut self, commit: &Commit) {
        let today = self.today;
        let shard = self.shards.entry(commit.shard).or_default();
        shard.last = commit.number;
        self.commits += 1;
        let mut undo = Vec::new();
        for put in &commit.puts {
            let row = Row { value: put.value.clone(), expires: put.expires };
            undo.push((put.key.clone(), shard.rows.insert(put.key.clone(), row)));
        }
        for key in &commit.deletes {
            undo.push((key.clone(), shard.rows.remove(key)));
        }
        for fold in &commit.folds {
            shard.fold(fold, today, &mut undo);
        }
        shard.history.push_back(undo);
        if shard.history.len() > HISTORY {
            shard.history.pop_front();
        }
    }
}

impl Shard {
    fn fold(&mut self, fold: &Fold, today: Option<Day>, undo: &mut Vec<(Key, Option<Row>)>) {
        let range = under(&fold.prefix);
        let rows: Vec<(Key, Row)> = self.rows.range(range).map(|(key, row)| (key.clone(), row.clone())).collect();
        let mut pieces = Pieces::default();
        for (key, row) in rows {
            let expired = matches!((row.expires, today), (Some(expires), Some(today)) if today >= expires);
            if !expired {
                pieces.push(&key, &row.value);
            }
            undo.push((key.clone(), self.rows.remove(&key)));
        }
        for (n, value) in pieces.finish().into_iter().enumerate() {
            let key = piece_key(&fold.into, n as u32);
            let row = Row { value, expires: fold.expires };
            undo.push((key.clone(), self.rows.insert(key, row)));
        }
    }
}

/// The key of a folded row: `into`, then its number as big-endian `u32`.
#[must_use]
pub fn piece_key(into: &[u8], n: u32) -> Key {
    let mut key = BytesMut::with_capacity(into.len() + 4);
    key.put_slice(into);
    key.put_u32(n);
    key.freeze()
}

/// Packs rows into folded rows.
#[derive(Default)]
struct Pieces {
    full: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let size = 8 + key.len() + value.len();
        if !self.open.is_empty() && self.open.len() + size > FOLDED_ROW_BYTES {
            self.full.push(self.open.split().freeze());
        }
        self.open.put_u32(key.len() as u32);
        self.open.put_slice(key);
        self.open.put_u32(value.len() as u32);
        self.open.put_slice(value);
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.full.push(self.open.freeze());
        }
        self.full
    }
}

/// Whether a commit is larger than any store takes. Such a commit is answered with `Gap { last: number - 1 }`:
/// nothing is missing before it, and it was not applied.
#[must_use]
pub fn over_limit(commit: &Commit) -> bool {
    let operations = commit.puts.len() + commit.deletes.len() + commit.folds.len();
    let puts = commit.puts.iter().map(|put| put.key.len() + put.value.len()).sum::<usize>();
    let deletes = commit.deletes.iter().map(Bytes::len).sum::<usize>();
    let folds = commit.folds.iter().map(|fold| fold.prefix.len() + fold.into.len()).sum::<usize>();
    let keys = commit.puts.iter().map(|put| &put.key).chain(&commit.deletes);
    let keys = keys.chain(commit.folds.iter().flat_map(|fold| [&fold.prefix, &fold.into]));
    operations > limit::COMMIT_OPS || puts + deletes + folds > limit::COMMIT_BYTES || keys.into_iter().any(|key| key.len() > usize::from(u16::MAX) - 4)
}

fn answer(slot: &Mutex<Slot>, outcomes: Vec<CommitOutcome>) {
    let waker = {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.outcomes = Some(outcomes);
        slot.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

struct Answer(Arc<Mutex<Slot>>);

impl Future for Answer {
    type Output = Vec<CommitOutcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.outcomes.take() {
            Some(outcomes) => Poll::Ready(outcomes),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Boxed<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Store for Model {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        let state = self.lock();
        let row = state.shards.get(&shard).and_then(|shard| shard.rows.get(&key));
        let value = row.filter(|row| state.seen(row)).map(|row| row.value.clone());
        ready(state.check().map(|()| value))
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        let state = self.lock();
        let mut rows = Vec::new();
        if let Some(shard) = state.shards.get(&shard).filter(|_| range.start < range.end) {
            let seen = shard.rows.range(range).filter(|(_, row)| state.seen(row));
            rows.extend(seen.take(limit).map(|(key, row)| (key.clone(), row.value.clone())));
        }
        ready(state.check().map(|()| rows))
    }

    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        let mut state = self.lock();
        match &mut state.held {
            Some(held) => {
                let slot = Arc::new(Mutex::new(Slot::default()));
                held.push_back((Arc::clone(&slot), batch));
                Box::pin(Answer(slot))
            }
            None => match state.commit(batch) {
                Some(outcomes) => ready(outcomes),
                None => Box::pin(std::future::pending()),
            },
        }
    }

    fn claim(&self, shard: ShardId, _owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        let mut state = self.lock();
        let checked = state.check();
        if std::mem::take(&mut state.cut) {
            state.lives.pop_front();
        }
        let claim = checked.map(|()| {
            let shard = state.shards.entry(shard).or_default();
            shard.epoch += 1;
            Claim { epoch: Epoch(shard.epoch), last: shard.last }
        });
        ready(claim)
    }

    fn heartbeat(&self, _owner: Owner, _ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        ready(self.lock().check())
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.release();
        ready(Ok(()))
    }
}
