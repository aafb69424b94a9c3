//! All shards at one position of the log, standing still while the store goes on.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::under;
use selvedge_kernel::time::Day;

use crate::layer::{Cell, Layer};
use crate::log::ShardState;
use crate::stack::Stack;
use crate::tree::View;

/// All shards after one group. The layers, the tree and the files of the log that it needs are kept as long as it is.
pub struct Still {
    /// The group.
    pub group: u64,
    /// The states of the shards after it.
    pub states: Vec<ShardState>,
    /// The day on which rows are seen.
    pub today: Day,
    /// The rows of each shard.
    pub shards: Vec<StillShard>,
}

/// One shard.
pub struct StillShard {
    /// Newest first.
    pub layers: Vec<Arc<Layer>>,
    /// What they stand on.
    pub view: Option<Arc<View>>,
}

impl Still {
    /// Every row that is seen, by shard and key, and the day on which it may vanish.
    pub fn rows(&self) -> impl Iterator<Item = io::Result<(ShardId, Bytes, Bytes, Option<Day>)>> {
        (0..self.shards.len()).flat_map(move |n| self.rows_under(n, b""))
    }

    /// The same of one shard, under a prefix.
    pub fn rows_under(&self, n: usize, prefix: &[u8]) -> impl Iterator<Item = io::Result<(ShardId, Bytes, Bytes, Option<Day>)>> + use<'_> {
        let range = under(prefix);
        self.shards.get(n).into_iter().flat_map(move |shard| {
            let id = ShardId(n as u16);
            let stack = Stack { shard: id, layers: shard.layers.iter().map(|layer| &**layer).collect(), view: shard.view.as_deref() };
            stack.rows(range.clone()).filter_map(move |row| match row {
                Err(error) => Some(Err(error)),
                Ok((key, cell)) if cell.seen(self.today) => match cell {
                    Cell::Put { value, expires } => Some(value.read().map(|value| (id, key, value, expires))),
                    Cell::Gone => None,
                },
                Ok(_) => None,
            })
        })
    }
}
