//! The list of invocations, read from the rows that are durable: no shard is asked for it.

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::id::{Hash16, InvocationId, Key, ShardId};
use selvedge_kernel::limit::PAGE;
use selvedge_kernel::record::invocation::{Invocation, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::time::Millis;
use selvedge_kernel::wire;
use serde::Serialize;

use crate::door::{expect_action, misused};
use crate::engine::Engine;
use crate::shard::VerbError;

/// Rows read at once: most hashes have a few.
const ROWS: usize = 8;

/// Which invocations are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Those that have not ended.
    Open,
    /// All that are kept.
    All,
}

/// A line of the list of invocations.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct InvocationSummary {
    /// Which one.
    pub id: InvocationId,
    /// Its actor, as TYPE/KEY.
    pub actor: String,
    /// Which handler.
    pub handler: String,
    /// Where it stands.
    pub status: Status,
    /// Which attempt it is in.
    pub attempt: u32,
    /// When it was accepted.
    pub accepted_at: Millis,
}

impl Engine {
    /// The invocations of a tenant, the newest first, a page at most.
    pub async fn list_invocations(&self, permit: Permit, listed: Listed) -> Result<Vec<InvocationSummary>, VerbError> {
        let mut lines = self.invocations_of(permit, listed).await?;
        lines.sort_by_key(|line| (std::cmp::Reverse(line.accepted_at), line.id));
        lines.truncate(PAGE);
        Ok(lines)
    }

    /// Invocations of a tenant that are open and were accepted before a time, the oldest first, a page at most.
    pub async fn oldest_invocations(&self, permit: Permit, before: Millis) -> Result<Vec<InvocationSummary>, VerbError> {
        let mut lines = self.invocations_of(permit, Listed::Open).await?;
        lines.retain(|line| line.accepted_at <= before);
        lines.sort_by_key(|line| (line.accepted_at, line.id));
        lines.truncate(PAGE);
        Ok(lines)
    }

    async fn invocations_of(&self, permit: Permit, listed: Listed) -> Result<Vec<InvocationSummary>, VerbError> {
        expect_action(&permit, Action::Read)?;
        if *permit.resource() != Resource::Store {
            return Err(misused(&permit));
        }
        self.kept_invocations(&permit.context().principal.tenant, listed).await
    }

    /// All invocations of a tenant that are kept, or those that are open, in no order.
    pub(crate) async fn kept_invocations(&self, tenant: &str, listed: Listed) -> Result<Vec<InvocationSummary>, VerbError> {
        let mut lines = Vec::new();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let first = u32::from(shard.0) * 0x1_0000 / u32::from(self.wiring.shards);
            let last = ((u32::from(shard.0) + 1) * 0x1_0000 / u32::from(self.wiring.shards)).min(u32::from(Hash16::SHARD_WIDE.0));
            let end = at(last, 0);
            let mut from = at(first, Kind::Invocation as u8);
            while from < end {
                let rows = self.wiring.store.scan(shard, from..end.clone(), ROWS).await?;
                let Some((after, _)) = rows.last() else { break };
                let mut next = after.to_vec();
                next.push(0);
                from = next.into();
                for (row, value) in &rows {
                    let [high, low, kind, ..] = row[..] else { continue };
                    let hash = u32::from(u16::from_be_bytes([high, low]));
                    if kind == Kind::Invocation as u8 {
                        let record: Invocation = wire::decode("invocation", value)?;
                        if record.message.target.tenant == tenant && (listed == Listed::All || !record.status.ended()) {
                            lines.push(summary(record));
                        }
                        continue;
                    }
                    // Past, or not at, the rows of this hash that are wanted: on to the next that may be.
                    from = if kind < Kind::Invocation as u8 { at(hash, Kind::Invocation as u8) } else { at(hash + 1, Kind::Invocation as u8) };
                    break;
                }
            }
        }
        Ok(lines)
    }
}

/// The first key of a kind under a hash.
fn at(hash: u32, kind: u8) -> Key {
    let [_, _, high, low] = hash.to_be_bytes();
    Key::copy_from_slice(&[high, low, kind])
}

fn summary(record: Invocation) -> InvocationSummary {
    let message = record.message;
    let actor = format!("{}/{}", message.target.kind, message.target.key);
    InvocationSummary { id: message.id, actor, handler: message.handler, status: record.status, attempt: record.attempt, accepted_at: record.accepted_at }
}
