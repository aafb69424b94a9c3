//! A store that says where it is with each commit, and a process that kills itself when enough was said.

use selvedge_engine::env::{Observation, Observer};
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::{Boxed, Claim, Commit, CommitOutcome, Owner, Store, StoreError};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Before a commit is handed on.
pub const COMMITTING: &str = "Committing";
/// When it is durable, and nobody knows it yet.
pub const COMMITTED: &str = "Committed";

/// Counts how often a point is passed, and kills this process at one of these times, as `kill -9` would.
pub struct Fuse {
    pub point: String,
    /// How often it may be passed before.
    pub after: usize,
    pub passed: AtomicUsize,
}

impl Fuse {
    pub fn pass(&self, point: &str) {
        if point == self.point && self.passed.fetch_add(1, Ordering::SeqCst) == self.after {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            loop {
                std::thread::park();
            }
        }
    }

    pub fn observer(self: &Arc<Fuse>) -> Observer {
        let fuse = self.clone();
        Arc::new(move |observation| {
            if let Observation::Exec { point } = observation {
                fuse.pass(&format!("{point:?}"));
            }
        })
    }
}

/// A store whose commits pass the fuse before they are handed on and when they are durable.
pub struct Gate {
    pub store: Arc<dyn Store>,
    pub fuse: Arc<Fuse>,
}

impl Store for Gate {
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<bytes::Bytes>, StoreError>> {
        self.store.get(shard, key)
    }

    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, bytes::Bytes)>, StoreError>> {
        self.store.scan(shard, range, limit)
    }

    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>> {
        self.fuse.pass(COMMITTING);
        let (done, fuse) = (self.store.commit(batch), self.fuse.clone());
        Box::pin(async move {
            let outcomes = done.await;
            fuse.pass(COMMITTED);
            outcomes
        })
    }

    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>> {
        self.store.claim(shard, owner)
    }

    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>> {
        self.store.heartbeat(owner, ttl)
    }

    fn close(&self) -> Boxed<'_, Result<(), StoreError>> {
        self.store.close()
    }
}
