//! How a store is opened.

use std::sync::Arc;
use std::time::SystemTime;

use selvedge_kernel::time::{Day, Millis};

use crate::disk::Faults;

/// How a store is opened. The default is what production uses.
#[derive(Clone)]
pub struct Options {
    /// What a second opener is told about this process.
    pub command: String,
    /// Shards of a store that is made; one that exists keeps its own count.
    pub shards: u16,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes of rows in memory that are not yet in the tree.
    pub table_bytes: u64,
    /// Bytes of the log that are not yet in the tree.
    pub log_bytes: u64,
    /// Spans of the log that stay in memory although they could be carried into the tree; what is written and deleted
    /// while they wait never reaches the tree. A bound that is reached goes before this.
    pub spans_kept: usize,
    /// What goes wrong on the disk under the log; nothing, outside tests.
    pub faults: Faults,
    /// The day on which readers stand.
    pub today: Arc<dyn Fn() -> Day + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            shards: 64,
            segment_bytes: 32 << 20,
            table_bytes: 256 << 20,
            log_bytes: 2 << 30,
            spans_kept: 0,
            faults: Faults::none(),
            today: Arc::new(today),
        }
    }
}

/// The day of the wall clock.
#[must_use]
pub fn today() -> Day {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(0).after(since).day()
}
