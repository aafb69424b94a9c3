//! Commits on their way: transitions packed into bounded commits, and the rows that readers of this shard must see
//! before the store shows them.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::limit::{COMMIT_BYTES, COMMIT_OPS};
use selvedge_kernel::ports::{Commit, Epoch, Fold, Put};
use selvedge_kernel::record::shard::ShardHead;
use selvedge_kernel::record::{Writes, key};
use selvedge_kernel::time::Day;
use selvedge_kernel::wire;

type Row = Option<(Bytes, Option<Day>)>;

/// One commit that is being put together.
pub(crate) struct Draft<E> {
    pub number: u64,
    /// Each key stands here once.
    rows: Vec<(Key, Row)>,
    folds: Vec<Fold>,
    bytes: usize,
    head: ShardHead,
    pub effects: Vec<E>,
}

/// What becomes of a submitted commit once it is durable.
pub(crate) struct Submitted<E> {
    pub number: u64,
    pub keys: Vec<Key>,
    pub effects: Vec<E>,
}

impl<E> Draft<E> {
    /// Sets a row; `before` is the number of the commit that had it last among those on their way.
    fn set(&mut self, key: Key, row: Row, before: Option<u64>) {
        if before == Some(self.number)
            && let Some(found) = self.rows.iter_mut().rev().find(|found| found.0 == key)
        {
            found.1 = row;
        } else {
            self.rows.push((key, row));
        }
    }
}

/// Packs transitions into commits.
pub(crate) struct Drafts<E> {
    open: Vec<Draft<E>>,
    /// The number of the newest commit, submitted or not.
    pub last: u64,
}

/// A transition that no commit can hold.
#[derive(Debug)]
pub(crate) struct TooLarge {
    pub ops: usize,
    pub bytes: usize,
}

impl<E> Drafts<E> {
    pub(crate) fn new(last: u64) -> Drafts<E> {
        Drafts { open: Vec::new(), last }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Adds a transition, whole, to the open commit or to a new one; gives the commit's number.
    pub(crate) fn add(&mut self, writes: Writes, effects: Vec<E>, head: &ShardHead, overlay: &mut Overlay) -> Result<u64, TooLarge> {
        let ops = writes.puts.len() + writes.deletes.len() + writes.folds.len();
        let bytes = writes.puts.iter().map(|put| put.key.len() + put.value.len()).sum::<usize>() + writes.deletes.iter().map(Bytes::len).sum::<usize>();
        if ops + 1 > COMMIT_OPS || bytes + 512 > COMMIT_BYTES {
            return Err(TooLarge { ops, bytes });
        }
        let fits = |draft: &Draft<E>| draft.rows.len() + draft.folds.len() + ops < COMMIT_OPS && draft.bytes + bytes + 512 <= COMMIT_BYTES;
        if !self.open.last().is_some_and(fits) {
            self.last += 1;
            self.open.push(Draft { number: self.last, rows: Vec::new(), folds: Vec::new(), bytes: 0, head: head.clone(), effects: Vec::new() });
        }
        let number = self.last;
        if let Some(draft) = self.open.last_mut() {
            draft.head = head.clone();
            draft.bytes += bytes;
            draft.effects.extend(effects);
            for put in writes.puts {
                let before = overlay.set(put.key.clone(), number, Some(put.value.clone()));
                draft.set(put.key, Some((put.value, put.expires)), before);
            }
            for gone in writes.deletes {
                let before = overlay.set(gone.clone(), number, None);
                draft.set(gone, None, before);
            }
            draft.folds.extend(writes.folds);
        }
        Ok(number)
    }

    /// Adds what happens once everything so far is durable.
    pub(crate) fn after_all(&mut self, effect: E) -> Option<E> {
        match self.open.last_mut() {
            Some(draft) => {
                draft.effects.push(effect);
                None
            }
            None => Some(effect),
        }
    }

    /// Closes the open commits.
    pub(crate) fn seal(&mut self, shard: ShardId, epoch: Epoch) -> (Vec<Commit>, Vec<Submitted<E>>) {
        let mut commits = Vec::with_capacity(self.open.len());
        let mut submitted = Vec::with_capacity(self.open.len());
        for draft in self.open.drain(..) {
            let mut puts = Vec::with_capacity(draft.rows.len() + 1);
            let mut deletes = Vec::new();
            let mut keys = Vec::with_capacity(draft.rows.len());
            for (row, value) in draft.rows {
                keys.push(row.clone());
                match value {
                    Some((value, expires)) => puts.push(Put { key: row, value, expires }),
                    None => deletes.push(row),
                }
            }
            puts.push(Put { key: key::shard_head(), value: wire::encode(&draft.head), expires: None });
            commits.push(Commit { shard, epoch, number: draft.number, puts, deletes, folds: draft.folds });
            submitted.push(Submitted { number: draft.number, keys, effects: draft.effects });
        }
        (commits, submitted)
    }
}

/// Rows that are written and not yet shown by the store.
#[derive(Default)]
pub(crate) struct Overlay {
    rows: BTreeMap<Key, (u64, Option<Bytes>)>,
}

impl Overlay {
    /// Gives the number of the commit on its way that had the row before.
    fn set(&mut self, key: Key, number: u64, value: Option<Bytes>) -> Option<u64> {
        self.rows.insert(key, (number, value)).map(|before| before.0)
    }

    /// Forgets the rows of a commit that the store shows now.
    pub(crate) fn forget(&mut self, number: u64, keys: &[Key]) {
        for key in keys {
            if self.rows.get(key).is_some_and(|row| row.0 == number) {
                self.rows.remove(key);
            }
        }
    }

    /// The value of a row that is on its way, if it is.
    pub(crate) fn get(&self, key: &Key) -> Option<&Option<Bytes>> {
        self.rows.get(key).map(|row| &row.1)
    }

    /// How many rows more a scan of the store must ask for.
    pub(crate) fn within(&self, range: &Range<Key>) -> usize {
        self.rows.range(range.clone()).count()
    }

    /// Lays the rows on their way over rows of the store, which gave `limit` rows at most.
    pub(crate) fn merge(&self, range: &Range<Key>, stored: Vec<(Key, Bytes)>, asked: usize, limit: usize) -> Vec<(Key, Bytes)> {
        let end = if stored.len() >= asked { stored.last().map(|row| row.0.clone()) } else { None };
        let mut merged: BTreeMap<Key, Bytes> = stored.into_iter().collect();
        for (key, (_, value)) in self.rows.range(range.clone()) {
            if end.as_ref().is_some_and(|end| key > end) {
                break;
            }
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        merged.into_iter().take(limit).collect()
    }
}
