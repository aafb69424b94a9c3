//! The key layout: every kind of row, its key and its value.

pub mod actor;
pub mod attribute;
pub mod deal;
pub mod definition;
pub mod hand;
pub mod invocation;
pub mod key;
pub mod kind;
pub mod line;
pub mod message;
pub mod portable;
pub mod run;
pub mod schedule;
pub mod shard;

use crate::id::Key;
use crate::ports::{Fold, Put};
use crate::time::Day;
use bytes::Bytes;

/// What one transition writes: all of it in one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// Rows to write.
    pub puts: Vec<Put>,
    /// Rows to remove.
    pub deletes: Vec<Key>,
    /// Journals to fold.
    pub folds: Vec<Fold>,
}

impl Writes {
    /// Writes a row.
    pub fn put(&mut self, key: Key, value: Bytes) {
        self.puts.push(Put { key, value, expires: None });
    }

    /// Writes a row that may vanish on a day.
    pub fn put_until(&mut self, key: Key, value: Bytes, expires: Day) {
        self.puts.push(Put { key, value, expires: Some(expires) });
    }

    /// Removes a row.
    pub fn delete(&mut self, key: Key) {
        self.deletes.push(key);
    }
}
