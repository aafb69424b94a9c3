//! The verbs on dead letters.

use std::cmp::Reverse;

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::filter::{Filter, matches};
use selvedge_kernel::id::{InvocationId, ShardId};
use selvedge_kernel::limit;
use selvedge_kernel::record::actor::DeadLetter;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::wire;

use crate::door::{check_body, expect_action, misused};
use crate::engine::Engine;
use crate::in_flight::InFlight;
use crate::listing::{Kept, Newest, Page, row};
use crate::shard::{Command, Redriven, VerbError};

impl Engine {
    /// The dead letters of a tenant.
    pub async fn dead_letters(&self, permit: Permit) -> Result<Vec<DeadLetter>, VerbError> {
        self.find_dead_letters(permit, &Filter::default(), &Page { after: None, size: limit::PAGE * self.wiring.shards as usize }).await
    }

    /// A page of those for which a filter holds, the newest first.
    pub async fn find_dead_letters(&self, permit: Permit, filter: &Filter, page: &Page<Newest<InvocationId>>) -> Result<Vec<DeadLetter>, VerbError> {
        expect_action(&permit, Action::Read)?;
        let tenant = permit.context().principal.tenant.clone();
        let mut kept = Kept::new(page, |letter: &DeadLetter| (Reverse(letter.at), letter.message.id));
        let now = self.now();
        for shard in (0..self.wiring.shards).map(ShardId) {
            // What its worker does meanwhile is not held up: letters that are durable are read beside it.
            let mut walk = self.walk(shard, &[Kind::DeadLetter]);
            while let Some((_, value)) = walk.next().await? {
                let letter: DeadLetter = wire::decode("dead letter", &value)?;
                if letter.message.target.tenant == tenant && matches(filter, &row::dead_letter(&letter, now)) {
                    kept.push(letter);
                }
            }
        }
        Ok(kept.done())
    }

    /// A dead letter with its whole input.
    pub async fn dead_letter(&self, permit: Permit, id: InvocationId) -> Result<DeadLetter, VerbError> {
        expect_action(&permit, Action::Read)?;
        let tenant = named(&permit, id)?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::DeadLetter { id, tenant, reply }).await
    }

    /// Sends a dead letter again, behind what waits in its actor's inbox, or again as the signal that it was. The letter
    /// goes in the same commit. Another input than its own needs the right to rewrite.
    pub async fn redrive(&self, permit: Permit, id: InvocationId, input: Option<Bytes>) -> Result<Redriven, VerbError> {
        expect_action(&permit, if input.is_some() { Action::Rewrite } else { Action::Control })?;
        let tenant = named(&permit, id)?;
        let bytes = input.as_ref().map_or(0, Bytes::len);
        check_body(self.limits(), bytes)?;
        self.admit().await?;
        let held = InFlight::take(&self.wiring, bytes)?;
        self.ask_holding(self.wiring.shard_of_invocation(id), held, |reply| Command::Redrive { id, tenant, input, reply }).await
    }
}

/// The tenant of a permit that is for this id.
fn named(permit: &Permit, id: InvocationId) -> Result<String, VerbError> {
    match permit.resource() {
        Resource::Work { tenant, id: allowed } if *allowed == id.to_string() => Ok(tenant.clone()),
        _ => Err(misused(permit)),
    }
}
