//! Walks chains and ledgers.

use selvedge_kernel::auth::{Action, Permit};
use selvedge_kernel::id::ShardId;
use serde::{Deserialize, Serialize};

use crate::door::expect_action;
use crate::engine::Engine;
use crate::shard::{Command, VerbError};

/// What is walked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// The ledgers alone, without the chains that they name.
    pub quick: bool,
    /// Heads of ledgers of an earlier time: each must still be met on the way.
    pub against: Vec<Head>,
}

/// The head of a shard's ledger at one time. Kept elsewhere, it says later whether anything before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Which shard.
    pub shard: u16,
    /// How many lines its ledger had.
    pub lines: u64,
    /// The chain of the last one, in hexadecimal.
    pub head: String,
}

/// What became of a head that was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// Its line is still there, with the same chain.
    Same,
    /// The ledger is another one by now.
    Differs,
    /// Its line has left after its retention time: nothing can be said.
    Left,
}

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
    /// What became of the head that was kept of it, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<Met>,
}

impl ShardReport {
    pub(crate) fn of(shard: ShardId) -> ShardReport {
        ShardReport { shard: shard.0, ..ShardReport::default() }
    }
}

impl Engine {
    /// Walks every ledger and every chain.
    pub async fn verify(&self, permit: Permit) -> Result<Vec<ShardReport>, VerbError> {
        self.verify_extent(permit, &Extent::default()).await
    }

    /// Walks every ledger, and as much else as is said.
    pub async fn verify_extent(&self, permit: Permit, extent: &Extent) -> Result<Vec<ShardReport>, VerbError> {
        expect_action(&permit, Action::Operate)?;
        let mut reports = Vec::with_capacity(usize::from(self.wiring.shards));
        for shard in (0..self.wiring.shards).map(ShardId) {
            let kept = extent.against.iter().find(|head| head.shard == shard.0).cloned();
            reports.push(self.ask(shard, |reply| Command::Verify { quick: extent.quick, kept, reply }).await?);
        }
        Ok(reports)
    }

    /// The head of each ledger as it stands now: what is kept elsewhere, to be verified against later.
    pub async fn heads(&self, permit: Permit) -> Result<Vec<Head>, VerbError> {
        expect_action(&permit, Action::Operate)?;
        let mut heads = Vec::with_capacity(usize::from(self.wiring.shards));
        for shard in (0..self.wiring.shards).map(ShardId) {
            heads.push(self.ask(shard, |reply| Command::Head { reply }).await?);
        }
        Ok(heads)
    }
}
