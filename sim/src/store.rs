//! The reference model behind a disk that takes its time, loses answers, and is cut off in the middle.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::model::Model;
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};

use crate::seed::Seed;

/// A store whose batches become durable after a while that the seed decides.
#[derive(Clone)]
pub struct Disk {
    model: Model,
    seed: Seed,
    /// The longest wait of a batch, in turns of the scheduler.
    slowness: u64,
    /// What befalls the next batch.
    fault: Arc<AtomicU64>,
}

impl Disk {
    /// A disk on a model.
    #[must_use]
    pub fn new(model: Model, seed: Seed, slowness: u64) -> Disk {
        Disk { model, seed, slowness, fault: Arc::default() }
    }

    /// The next batch is applied and gets no answer.
    pub fn lose_next_answer(&self) {
        self.fault.store(1, Ordering::SeqCst);
    }

    /// Of the next batch only a part is applied, and nothing gets an answer.
    pub fn lose_next_commits(&self) {
        self.fault.store(2, Ordering::SeqCst);
    }
}

/// A batch on its way. Dropped before it is durable, as a kill drops it, it may have been written all the same.
struct Flight {
    disk: Disk,
    batch: Option<Vec<Commit>>,
    turns: u64,
}

impl Flight {
    fn apply(&mut self, batch: Vec<Commit>) -> Vec<CommitOutcome> {
        // The model answers at once: it is polled here once, and never waits.
        let mut outcomes = self.disk.model.commit(batch);
        match outcomes.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(outcomes) => outcomes,
            Poll::Pending => Vec::new(),
        }
    }
}

impl Future for Flight {
    type Output = Vec<CommitOutcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.turns > 0 {
            self.turns -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut batch = self.batch.take().unwrap_or_default();
        let count = batch.len();
        let fault = self.disk.fault.swap(0, Ordering::SeqCst);
        if fault == 2 {
            let applied = self.disk.seed.below(count as u64 + 1);
            batch.truncate(usize::try_from(applied).unwrap_or(0));
        }
        let mut outcomes = self.apply(batch);
        if fault > 0 {
            for outcome in outcomes.iter_mut().filter(|outcome| **outcome == CommitOutcome::Done) {
                *outcome = CommitOutcome::Unknown;
            }
            outcomes.resize(count, CommitOutcome::Unknown);
        }
        Poll::Ready(outcomes)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take() {
            let mut kept = batch;
            let written = self.disk.seed.below(kept.len() as u64 + 1);
            kept.truncate(usize::try_from(written).unwrap_or(0));
            let _ = self.apply(kept);
        }
    }
}

impl Store for Disk {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>> {
        self.model.get(shard, key)
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>> {
        self.model.scan(shard, range, limit)
    }

    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        Box::pin(Flight { disk: self.clone(), batch: Some(batch), turns: self.seed.below(self.slowness + 1) })
    }

    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        self.model.claim(shard, owner)
    }

    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.model.heartbeat(owner, ttl)
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.model.close()
    }
}
