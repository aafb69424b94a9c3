//! The key layout: every kind of row, its key and its value.

pub mod actor;
pub mod api_key;
pub mod attribute;
pub mod build;
pub mod deal;
pub mod decision;
pub mod definition;
pub mod disabled;
pub mod hand;
pub mod invocation;
pub mod kept;
pub mod key;
pub mod kind;
pub mod line;
pub mod message;
pub mod portable;
pub mod run;
pub mod schedule;
pub mod shard;
pub mod tally;

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
    /// What tenants have open more, or less, by it: whoever commits it writes their tallies.
    pub tallies: tally::Changes,
    /// What tenants keep more, or less, by it: as well.
    pub kept: kept::Changes,
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

    /// Counts what a tenant has open.
    pub fn count(&mut self, tenant: &str, open: i64, delayed: i64) {
        let change = match self.tallies.get_mut(tenant) {
            Some(found) => found,
            None => self.tallies.entry(tenant.to_owned()).or_default(),
        };
        change.open += open;
        change.delayed += delayed;
    }

    /// Takes another one's rows and counts in, behind its own.
    pub fn extend(&mut self, more: Writes) {
        self.puts.extend(more.puts);
        self.deletes.extend(more.deletes);
        self.folds.extend(more.folds);
        for (tenant, change) in more.tallies {
            self.count(&tenant, change.open, change.delayed);
        }
        for ((tenant, until), bytes) in more.kept {
            self.keep_at(&tenant, until, bytes);
        }
    }

    /// Removes a row.
    pub fn delete(&mut self, key: Key) {
        self.deletes.push(key);
    }
}
