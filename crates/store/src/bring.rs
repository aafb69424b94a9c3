//! Rows of a backup or an export on their way into a new tree, past log and table.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use selvedge_kernel::time::Day;

use crate::dump::Record;
use crate::position::Kinds;
use crate::tree::{Change, Tree, bucket, encode_value, ingest, tree_key};

/// Rows are sorted and brought into the tree when there are this many bytes of them.
const CHUNK_BYTES: usize = 32 << 20;
/// A chunk waits for fjall's compaction while the tree has more new tables than this.
const NEW_TABLES: usize = 24;

type Changes = Vec<(Vec<u8>, Change)>;

/// Rows on their way into the tree, in any order.
pub struct Chunk {
    today: Day,
    stays: Changes,
    days: BTreeMap<Day, (Kinds, Changes)>,
    bytes: usize,
}

impl Chunk {
    /// Nothing yet; keyspaces of days are chosen as of a day.
    pub fn new(today: Day) -> Chunk {
        Chunk { today, stays: Vec::new(), days: BTreeMap::new(), bytes: 0 }
    }

    /// Whether it is time to bring them.
    pub fn is_full(&self) -> bool {
        self.bytes >= CHUNK_BYTES
    }

    /// Takes a row.
    pub fn add(&mut self, record: Record) {
        let change = (tree_key(record.shard, &record.key), Some(encode_value(&record.value, record.expires)));
        self.bytes += record.key.len() + record.value.len();
        match record.expires {
            None => self.stays.push(change),
            Some(expires) => {
                let (kinds, changes) = self.days.entry(bucket(expires, self.today)).or_insert_with(|| (Kinds::NONE, Vec::new()));
                kinds.add(&record.key);
                changes.push(change);
            }
        }
    }

    /// Brings what is there into the tree, durably.
    pub fn bring(&mut self, tree: &mut Tree) -> io::Result<()> {
        let Chunk { mut stays, days, .. } = std::mem::replace(self, Chunk::new(self.today));
        stays.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        while tree.rows.l0_table_count() > NEW_TABLES {
            std::thread::sleep(Duration::from_millis(10));
        }
        ingest(&tree.rows, stays.into_iter().map(Ok))?;
        for (day, (kinds, mut changes)) in days {
            changes.sort_unstable_by(|one, other| one.0.cmp(&other.0));
            tree.add_kinds(day, &kinds)?;
            ingest(&tree.day(day)?, changes.into_iter().map(Ok))?;
        }
        Ok(())
    }
}
