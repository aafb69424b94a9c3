//! Walks chains and ledgers.

use selvedge_kernel::id::ShardId;
use serde::Serialize;

/// What was found in one shard.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ShardReport {
    /// Which shard.
    pub shard: u16,
    /// Ledger lines walked.
    pub ledger_lines: u64,
    /// Invocations whose chains were walked.
    pub invocations: u64,
    /// Runs whose chains were walked.
    pub runs: u64,
    /// Journal entries walked.
    pub entries: u64,
    /// Entries whose payload was erased on purpose.
    pub erased: u64,
    /// What does not fit, in words.
    pub faults: Vec<String>,
    /// The ledger's head, in hexadecimal.
    pub head: String,
}

impl ShardReport {
    pub(crate) fn of(shard: ShardId) -> ShardReport {
        ShardReport { shard: shard.0, ..ShardReport::default() }
    }
}
