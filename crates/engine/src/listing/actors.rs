//! The list of actors: those with a state, or with a message.

use std::collections::BTreeMap;

use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::filter::{Filter, matches};
use selvedge_kernel::id::{InvocationId, ShardId};
use selvedge_kernel::record::invocation::{Invocation, Status};
use selvedge_kernel::record::key;
use selvedge_kernel::record::kind::Kind;
use selvedge_kernel::wire;
use serde::Serialize;

use super::{Page, row};
use crate::door::{expect_action, misused};
use crate::engine::Engine;
use crate::shard::VerbError;

/// What an actor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Busy {
    /// It handles nothing.
    #[default]
    Idle,
    /// It handles a message.
    Busy,
    /// The message that it handles is blocked.
    Blocked,
}

/// A line of the list of actors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ActorSummary {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its key.
    pub key: String,
    /// What it does.
    pub status: Busy,
    /// Messages that wait behind the one that it handles.
    pub inbox: u64,
}

/// What was read of an actor so far.
#[derive(Default)]
struct Seen {
    messages: u64,
    first: Option<InvocationId>,
}

impl Engine {
    /// A page of the actors of a tenant for which a filter holds, by type and key.
    pub async fn find_actors(&self, permit: Permit, filter: &Filter, page: &Page<(String, String)>) -> Result<Vec<ActorSummary>, VerbError> {
        expect_action(&permit, Action::Read)?;
        if *permit.resource() != Resource::Store {
            return Err(misused(&permit));
        }
        let tenant = permit.context().principal.tenant.clone();
        let mut found: BTreeMap<(String, String), ActorSummary> = BTreeMap::new();
        for shard in (0..self.wiring.shards).map(ShardId) {
            let mut walk = self.walk(shard, &[Kind::Inbox, Kind::State]);
            let mut hash = None;
            let mut seen: BTreeMap<(String, String), Seen> = BTreeMap::new();
            loop {
                let row = walk.next().await?;
                // All rows of an actor stand under one hash: at the next one it is known.
                let here = row.as_ref().map(|(key, _)| [key[0], key[1]]);
                if here != hash {
                    hash = here;
                    for ((kind, key), seen) in std::mem::take(&mut seen) {
                        let line = self.actor_line(shard, kind, key, &seen).await?;
                        if matches(filter, &row::actor(&line)) {
                            found.insert((line.kind.clone(), line.key.clone()), line);
                        }
                    }
                    while found.len() > page.size {
                        found.pop_last();
                    }
                }
                let Some((key, value)) = row else { break };
                let Some((owner, kind, name)) = key::actor_of(&key) else { continue };
                let place = (kind.to_owned(), name.to_owned());
                if owner != tenant || page.after.as_ref().is_some_and(|after| place <= *after) {
                    continue;
                }
                let seen = seen.entry(place).or_default();
                if key[2] == Kind::Inbox as u8 {
                    seen.messages += 1;
                    if seen.first.is_none() {
                        seen.first = Some(wire::decode("place in an inbox", &value)?);
                    }
                }
            }
        }
        Ok(found.into_values().collect())
    }

    async fn actor_line(&self, shard: ShardId, kind: String, key: String, seen: &Seen) -> Result<ActorSummary, VerbError> {
        let status = match seen.first {
            None => Busy::Idle,
            Some(first) => match self.wiring.store.get(shard, key::invocation(first)).await? {
                Some(record) if Invocation::decode(&record)?.status == Status::Blocked => Busy::Blocked,
                _ => Busy::Busy,
            },
        };
        Ok(ActorSummary { kind, key, status, inbox: seen.messages.saturating_sub(1) })
    }
}
