//! Sorted streams of rows, merged into one; where two have a key, the one given first wins.

use bytes::Bytes;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::io;

/// A stream of keys in ascending order, each with something.
pub type Stream<'a, T> = Box<dyn Iterator<Item = io::Result<(Bytes, T)>> + 'a>;

/// A stream that is opened when its turn comes.
pub struct Source<'a, T> {
    /// No key of the stream is before this one.
    pub from: Bytes,
    /// Opens it.
    pub open: Box<dyn FnOnce() -> Stream<'a, T> + 'a>,
}

enum State<'a, T> {
    Closed(Box<dyn FnOnce() -> Stream<'a, T> + 'a>),
    Open(Stream<'a, T>, T),
}

struct Head<'a, T> {
    key: Bytes,
    rank: usize,
    state: State<'a, T>,
}

/// The merged stream; each item says from which source (by its place in the list) it is.
pub struct Merge<'a, T> {
    heads: BinaryHeap<Reverse<Head<'a, T>>>,
    last: Option<Bytes>,
    failed: Option<io::Error>,
}

impl<'a, T> Merge<'a, T> {
    /// Merges sources.
    #[must_use]
    pub fn new(sources: Vec<Source<'a, T>>) -> Merge<'a, T> {
        let heads = sources.into_iter().enumerate();
        let heads = heads.map(|(rank, Source { from, open })| Reverse(Head { key: from, rank, state: State::Closed(open) }));
        Merge { heads: heads.collect(), last: None, failed: None }
    }

    fn advance(&mut self, rank: usize, mut stream: Stream<'a, T>) {
        match stream.next() {
            None => {}
            Some(Ok((key, value))) => self.heads.push(Reverse(Head { key, rank, state: State::Open(stream, value) })),
            Some(Err(error)) => self.failed = Some(error),
        }
    }
}

impl<T> Iterator for Merge<'_, T> {
    type Item = io::Result<(Bytes, usize, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(error) = self.failed.take() {
                self.heads.clear();
                return Some(Err(error));
            }
            let Reverse(Head { key, rank, state }) = self.heads.pop()?;
            match state {
                State::Closed(open) => self.advance(rank, open()),
                State::Open(stream, value) => {
                    self.advance(rank, stream);
                    if self.last.as_ref() != Some(&key) {
                        self.last = Some(key.clone());
                        return Some(Ok((key, rank, value)));
                    }
                }
            }
        }
    }
}

impl<T> PartialEq for Head<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Head<'_, T> {}

impl<T> PartialOrd for Head<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Head<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // A closed stream may hold the key that it is filed under, so it is opened before an open one of that key is used.
        let open = |head: &Self| matches!(head.state, State::Open(..));
        (&self.key, open(self), self.rank).cmp(&(&other.key, open(other), other.rank))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn first_source_wins_and_order_is_kept(sources in proptest::collection::vec(proptest::collection::btree_set(0u8..40, 0..20), 0..6)) {
            let mut expected = BTreeMap::new();
            for (rank, keys) in sources.iter().enumerate() {
                for key in keys {
                    expected.entry(*key).or_insert(rank);
                }
            }
            let source = |keys: &BTreeSet<u8>| {
                let rows: Vec<_> = keys.iter().map(|&key| Ok((Bytes::from(vec![key]), ()))).collect();
                let from = keys.first().map_or(Bytes::new(), |&key| Bytes::from(vec![key]));
                Source { from, open: Box::new(|| Box::new(rows.into_iter()) as Stream<'_, ()>) }
            };
            let merged: Vec<_> = Merge::new(sources.iter().map(source).collect()).map(Result::unwrap).collect();
            let merged: Vec<_> = merged.into_iter().map(|(key, rank, ())| (key[0], rank)).collect();
            prop_assert_eq!(merged, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
