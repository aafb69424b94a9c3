//! Rows of some kinds, all over a shard, without those between them.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::id::{Hash16, Key, ShardId};
use selvedge_kernel::ports::Store;
use selvedge_kernel::record::kind::Kind;

use crate::engine::Engine;
use crate::shard::VerbError;

/// Rows read at once: most hashes have a few.
const ROWS: usize = 8;

/// A walk over the rows of some kinds, by hash and key.
pub(crate) struct Walk {
    store: Arc<dyn Store>,
    shard: ShardId,
    /// In the order of their numbers.
    kinds: Vec<u8>,
    from: Key,
    end: Key,
    read: VecDeque<(Key, Bytes)>,
}

impl Engine {
    /// All rows of these kinds, in the order of their numbers, of one shard.
    pub(crate) fn walk(&self, shard: ShardId, kinds: &[Kind]) -> Walk {
        let mut kinds: Vec<u8> = kinds.iter().map(|kind| *kind as u8).collect();
        kinds.sort_unstable();
        let shards = u32::from(self.wiring.shards);
        let first = u32::from(shard.0) * 0x1_0000 / shards;
        let last = ((u32::from(shard.0) + 1) * 0x1_0000 / shards).min(u32::from(Hash16::SHARD_WIDE.0));
        let from = at(first, kinds.first().copied().unwrap_or_default());
        Walk { store: self.wiring.store.clone(), shard, kinds, from, end: at(last, 0), read: VecDeque::new() }
    }
}

impl Walk {
    /// The next row; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<(Key, Bytes)>, VerbError> {
        loop {
            if let Some(row) = self.read.pop_front() {
                return Ok(Some(row));
            }
            if self.from >= self.end {
                return Ok(None);
            }
            let rows = self.store.scan(self.shard, self.from.clone()..self.end.clone(), ROWS).await?;
            let Some((last, _)) = rows.last() else { return Ok(None) };
            let mut next = last.to_vec();
            next.push(0);
            self.from = next.into();
            for (row, value) in rows {
                let [high, low, kind, ..] = row[..] else { continue };
                if self.kinds.contains(&kind) {
                    self.read.push_back((row, value));
                    continue;
                }
                // On to the next rows of this hash that may be wanted, or to those of the next one.
                let hash = u32::from(u16::from_be_bytes([high, low]));
                self.from = match self.kinds.iter().find(|wanted| **wanted > kind) {
                    Some(wanted) => at(hash, *wanted),
                    None => at(hash + 1, self.kinds.first().copied().unwrap_or_default()),
                };
                break;
            }
        }
    }
}

/// The first key of a kind under a hash.
fn at(hash: u32, kind: u8) -> Key {
    let [_, _, high, low] = hash.to_be_bytes();
    Key::copy_from_slice(&[high, low, kind])
}
