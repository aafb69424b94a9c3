//! All traits of the system, on one page.

use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::time::Duration;

use crate::auth::{Action, AuthorizationContext, Resource, Verdict};
use crate::id::{Key, ShardId};
use crate::time::{Day, Millis};

/// A future that crosses a crate boundary.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Raised by each claim; an older one commits nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Epoch(pub u64);

/// The random token of one owner: one process, one opening of the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(pub [u8; 16]);

/// One row to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Put {
    /// Where.
    pub key: Key,
    /// What.
    pub value: Bytes,
    /// The day on which it may vanish; readers ignore it from that day on.
    pub expires: Option<Day>,
}

/// Turns the rows under a prefix into rows of at most 1 MiB under `into` followed by a big-endian `u32` counted from 0;
/// a folded row holds pairs of length-prefixed (`u32`) key and value, in key order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fold {
    /// The rows that are folded away.
    pub prefix: Key,
    /// The key that the folded rows stand under.
    pub into: Key,
    /// The day on which they may vanish.
    pub expires: Option<Day>,
}

/// What one shard writes, whole or not at all. At most [`crate::limit::COMMIT_OPS`] operations and
/// [`crate::limit::COMMIT_BYTES`] bytes. A key stands in at most one of puts and deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Whose.
    pub shard: ShardId,
    /// The claim under which it is made.
    pub epoch: Epoch,
    /// One more than the shard's last commit.
    pub number: u64,
    /// Rows to write.
    pub puts: Vec<Put>,
    /// Rows to remove; a row that is not there is no error.
    pub deletes: Vec<Key>,
    /// Prefixes to fold, after puts and deletes.
    pub folds: Vec<Fold>,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitOutcome {
    /// It is durable, and visible to readers.
    Done,
    /// A newer owner has claimed the shard.
    Fenced,
    /// The number was not last + 1.
    Gap {
        /// The number of the last commit that the store has.
        last: u64,
    },
    /// No answer: it may have been applied. Sent again unchanged, `Gap { last: number }` means that it was.
    Unknown,
}

/// The right to commit to a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Above every earlier one.
    pub epoch: Epoch,
    /// The number of the shard's last commit, 0 if there is none.
    pub last: u64,
}

/// Why a store did not answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached now, or its queue is full: ask again.
    #[error("the store does not answer ({reason}): try again")]
    Behind {
        /// Why.
        reason: String,
    },
    /// A write or a sync failed, or the data is damaged: nothing more is accepted in this process.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// Why, and what to do.
        reason: String,
    },
}

/// Where everything durable lies. Implemented by the embedded store and by the reference model.
pub trait Store: Send + Sync {
    /// The value of a row.
    fn get(&self, shard: ShardId, key: Key) -> Boxed<'_, Result<Option<Bytes>, StoreError>>;
    /// The first `limit` rows of a range of keys, in key order.
    fn scan(&self, shard: ShardId, range: Range<Key>, limit: usize) -> Boxed<'_, Result<Vec<(Key, Bytes)>, StoreError>>;
    /// Commits a batch: one outcome for each, in order. Each is atomic by itself; those of one shard take effect in
    /// order, and a refused one refuses all after it of the same shard.
    fn commit(&self, batch: Vec<Commit>) -> Boxed<'static, Vec<CommitOutcome>>;
    /// Takes a shard over: after it, no earlier owner commits.
    fn claim(&self, shard: ShardId, owner: Owner) -> Boxed<'_, Result<Claim, StoreError>>;
    /// Says that this owner lives. On the embedded store the lock on the directory is the lease, and nothing is written.
    fn heartbeat(&self, owner: Owner, ttl: Duration) -> Boxed<'_, Result<(), StoreError>>;
    /// Writes what is in flight and lets go.
    fn close(&self) -> Boxed<'_, Result<(), StoreError>>;
}

/// Who may do what. Asked by [`crate::auth::permit`] alone, which adds what no policy may open.
pub trait Policies: Send + Sync {
    /// Answers one question, at once: it is asked for each request, with no wait and no I/O.
    fn decide(&self, context: &AuthorizationContext, action: Action, resource: &Resource, now: Millis) -> Verdict;
    /// Rises with every change that may change an answer.
    fn version(&self) -> u64;
    /// Why a newer set than the one that answers was refused, as long as it is; none: what answers is what was written last.
    fn fault(&self) -> Option<String>;
}

/// The smallest key after every key that starts with `prefix`.
///
/// ```
/// use selvedge_kernel::ports::after_prefix;
/// assert_eq!(&after_prefix(&[1, 0xff])[..], &[2]);
/// ```
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Key {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Key::from(end);
        }
    }
    Key::from(vec![0xff; prefix.len() + 64])
}

/// All keys that start with `prefix`.
#[must_use]
pub fn under(prefix: &[u8]) -> Range<Key> {
    Key::copy_from_slice(prefix)..after_prefix(prefix)
}
