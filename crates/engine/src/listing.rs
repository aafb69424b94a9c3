//! Lists, read from the rows that are durable: no shard is asked for them.

mod actors;
mod page;
pub mod row;
mod runs;
mod walk;

use std::cmp::Reverse;
use std::time::Duration;

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::filter::{Filter, matches};
use selvedge_kernel::id::{InvocationId, ShardId};
use selvedge_kernel::policy::look_after;
use selvedge_kernel::record::invocation::{Invocation, Status};
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::time::Millis;
use serde::Serialize;

pub use actors::{ActorSummary, Busy};
pub(crate) use page::Kept;
pub use page::{Newest, Page};

use crate::door::{expect_action, misused};
use crate::engine::Engine;
use crate::shard::VerbError;

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
    /// When it ended.
    pub ended_at: Option<Millis>,
}

impl InvocationSummary {
    /// The type of its actor.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.actor.split('/').next().unwrap_or_default()
    }
}

impl Engine {
    /// The invocations of a tenant, the newest first, a page at most.
    pub async fn list_invocations(&self, permit: Permit, listed: Listed) -> Result<Vec<InvocationSummary>, VerbError> {
        self.find_invocations(permit, listed, &Filter::default(), &Page::default()).await
    }

    /// A page of those for which a filter holds.
    pub async fn find_invocations(
        &self,
        permit: Permit,
        listed: Listed,
        filter: &Filter,
        page: &Page<Newest<InvocationId>>,
    ) -> Result<Vec<InvocationSummary>, VerbError> {
        let now = self.now();
        let wanted = |line: &InvocationSummary| matches(filter, &row::invocation(line, now));
        self.page_of(permit, listed, wanted, |line| (Reverse(line.accepted_at), line.id), page).await
    }

    /// Invocations of a tenant that are open, were accepted longer ago than a span that depends on their type, and for which a
    /// filter holds, the oldest first, a page at most.
    pub async fn oldest_invocations(
        &self,
        permit: Permit,
        longer_than: impl Fn(&str) -> Duration,
        filter: &Filter,
    ) -> Result<Vec<InvocationSummary>, VerbError> {
        let now = self.now();
        let wanted = |line: &InvocationSummary| now.since(line.accepted_at) >= longer_than(line.kind()) && matches(filter, &row::invocation(line, now));
        self.page_of(permit, Listed::Open, wanted, |line| (line.accepted_at, line.id), &Page::default()).await
    }

    /// Invocations of a tenant of which so many attempts have failed that somebody is to look, those with the most first, a
    /// page at most.
    pub async fn failing_invocations(&self, permit: Permit) -> Result<Vec<InvocationSummary>, VerbError> {
        let registry = &self.wiring.registry;
        let fails = |line: &InvocationSummary| {
            let kind = line.actor.split('/').next().unwrap_or_default();
            line.attempt > 1 && look_after(&registry.retry_of(kind, &line.handler)).is_some_and(|failed| line.attempt > failed)
        };
        self.page_of(permit, Listed::Open, fails, |line| (Reverse(line.attempt), line.id), &Page::default()).await
    }

    /// A page of those that are wanted, in an order.
    async fn page_of<K: Ord>(
        &self,
        permit: Permit,
        listed: Listed,
        wanted: impl Fn(&InvocationSummary) -> bool,
        order: impl Fn(&InvocationSummary) -> K,
        page: &Page<K>,
    ) -> Result<Vec<InvocationSummary>, VerbError> {
        expect_action(&permit, Action::Read)?;
        if *permit.resource() != Resource::Store {
            return Err(misused(&permit));
        }
        let tenant = &permit.context().principal.tenant;
        let mut kept = Kept::new(page, order);
        for shard in (0..self.wiring.shards).map(ShardId) {
            let mut walk = self.walk(shard, &[Kind::Invocation]);
            while let Some((_, value)) = walk.next().await? {
                line_of(&value, tenant, listed)?.filter(&wanted).into_iter().for_each(|line| kept.push(line));
            }
        }
        Ok(kept.done())
    }

    /// All invocations of a tenant that are kept, or those that are open, in no order.
    pub(crate) async fn kept_invocations(&self, tenant: &str, listed: Listed) -> Result<Vec<InvocationSummary>, VerbError> {
        let mut lines = Vec::new();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let mut walk = self.walk(shard, &[Kind::Invocation]);
            while let Some((_, value)) = walk.next().await? {
                lines.extend(line_of(&value, tenant, listed)?);
            }
        }
        Ok(lines)
    }
}

fn line_of(value: &[u8], tenant: &str, listed: Listed) -> Result<Option<InvocationSummary>, VerbError> {
    let record = Invocation::decode(value)?;
    let wanted = record.message.target.tenant == tenant && (listed == Listed::All || !record.status.ended());
    Ok(wanted.then(|| summary(record)))
}

fn summary(record: Invocation) -> InvocationSummary {
    let message = record.message;
    let actor = format!("{}/{}", message.target.kind, message.target.key);
    let ended_at = record.end.map(|end| end.at);
    InvocationSummary {
        id: message.id,
        actor,
        handler: message.handler,
        status: record.status,
        attempt: record.attempt,
        accepted_at: record.accepted_at,
        ended_at,
    }
}
