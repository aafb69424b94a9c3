//! Who asks, on whose behalf, and the proof that a policy said yes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::id::ActorId;
use crate::record::api_key::ApiKey;
use crate::record::message::Message;
use crate::record::schedule::ScheduleRecord;
use crate::time::Millis;

mod permit;
mod token;
mod verdict;

pub use permit::{Action, Decision, Denied, Permit, Resource, answer, authorize, decide, decision, permit};
pub use token::{Claims, Issuer, OneOrMany, Roles, Tenant, TokenError, from_jwt, is_role, members};
pub use verdict::{Effect, OWNER, Owners, Verdict};

/// What kind of somebody a principal is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// This program itself: schedules, retention, recovery.
    System,
    /// Whoever owns this process: the CLI on a data directory, the embedding program.
    Local,
    /// An actor.
    Actor,
    /// Whoever presents an API key.
    ApiKey,
    /// Whoever presents a token of another issuer.
    User,
}

/// Somebody.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Principal {
    /// A name that is unique inside its kind and tenant.
    pub id: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// The tenant; it comes from the credential, never from a header.
    pub tenant: String,
    /// What it may act as.
    pub roles: Vec<String>,
}

/// One hop of a delegation: an actor that acts for whoever came before.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Hop {
    /// Who acts.
    pub actor: ActorId,
    /// In which handler.
    pub handler: String,
}

/// Facts of the request that started it all.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct RequestFacts {
    /// Where it came from, where that is known.
    pub address: Option<String>,
    /// When.
    pub at: Millis,
}

/// How many hops of a delegation are kept: all of those who can wait for one another, and the first caller's own.
pub const DELEGATION: usize = crate::limit::CALL_DEPTH + 2;

/// Who asks, for whom, with which claims. It travels in every message and stands in every record.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct AuthorizationContext {
    /// The first caller.
    pub principal: Principal,
    /// Who acts for the first caller, in order; each hop narrows, never widens.
    pub chain: Vec<Hop>,
    /// What the credential says.
    pub claims: BTreeMap<String, String>,
    /// Facts of the request.
    pub request: RequestFacts,
    /// When the delegation ends, if it is meant to.
    pub until: Option<Millis>,
}

impl AuthorizationContext {
    /// Whether both are the same somebody with the same rights, whatever request they came with.
    #[must_use]
    pub fn speaks_for(&self, other: &AuthorizationContext) -> bool {
        let who = |context: &AuthorizationContext| AuthorizationContext { request: RequestFacts::default(), ..context.clone() };
        who(self) == who(other)
    }

    /// The same caller acting through one more actor. Somebody who is in the chain already is not in it again: an actor
    /// that sends to itself for years acts through itself once. Past [`DELEGATION`] hops the oldest but the first go,
    /// so that a context never grows without bound; the first caller stays who it is, and what a [`WORKER`] may not, nobody
    /// behind it may.
    #[must_use]
    pub fn through(&self, actor: &ActorId, handler: &str) -> AuthorizationContext {
        let mut next = self.clone();
        let hop = Hop { actor: actor.clone(), handler: handler.to_owned() };
        if !next.chain.contains(&hop) {
            next.chain.push(hop);
        }
        if next.chain.len() > DELEGATION {
            let goes = next.chain.iter().skip(1).position(|hop| hop.actor.kind != WORKER);
            next.chain.remove(goes.map_or(1, |at| at + 1));
        }
        next
    }
}

/// The context of this program itself.
#[must_use]
pub fn system(tenant: &str, at: Millis) -> AuthorizationContext {
    own(PrincipalKind::System, "selvedge", tenant, at)
}

/// The context of whoever owns this process: the CLI on a data directory, the embedding program.
#[must_use]
pub fn local(tenant: &str, at: Millis) -> AuthorizationContext {
    own(PrincipalKind::Local, "local", tenant, at)
}

/// The context of whoever presented an API key, which has been checked. The end of the key stands at the door alone: what is
/// accepted with it goes on.
#[must_use]
pub fn from_api_key(key: &ApiKey, request: RequestFacts) -> AuthorizationContext {
    AuthorizationContext {
        principal: Principal { id: key.id.clone(), kind: PrincipalKind::ApiKey, tenant: key.tenant.clone(), roles: key.roles.clone() },
        chain: Vec::new(),
        claims: BTreeMap::from([("key".to_owned(), key.name.clone())]),
        request,
        until: None,
    }
}

/// The context of a request of a session: whoever opened it, as its credential stands now, at the time of this request.
#[must_use]
pub fn from_session(known: &AuthorizationContext, request: RequestFacts) -> AuthorizationContext {
    AuthorizationContext { request, ..known.clone() }
}

/// The type of the hop of a worker. An actor that was of this type would be kept to less, and to nothing more.
pub const WORKER: &str = "@worker";

/// The context of a worker that takes tasks of an activity, or says how they end: whoever presented its credential, for that
/// activity and for nothing else, whatever else policies allow it.
#[must_use]
pub fn from_worker(context: &AuthorizationContext, activity: &str) -> AuthorizationContext {
    let worker = ActorId { tenant: context.principal.tenant.clone(), kind: WORKER.to_owned(), key: String::new() };
    context.through(&worker, activity)
}

/// The context in which a message is received. It crosses shards as what its sender wrote, never as a permit.
#[must_use]
pub fn from_message(message: &Message) -> &AuthorizationContext {
    &message.context
}

/// The context of a fire: whoever stored the schedule last asks again, at the time of the fire and from nowhere.
#[must_use]
pub fn from_schedule(schedule: &ScheduleRecord, fire: Millis) -> AuthorizationContext {
    AuthorizationContext { request: RequestFacts { address: None, at: fire }, ..schedule.context.clone() }
}

fn own(kind: PrincipalKind, id: &str, tenant: &str, at: Millis) -> AuthorizationContext {
    AuthorizationContext {
        principal: Principal { id: id.to_owned(), kind, tenant: tenant.to_owned(), roles: Vec::new() },
        chain: Vec::new(),
        claims: BTreeMap::new(),
        request: RequestFacts { address: None, at },
        until: None,
    }
}

#[cfg(test)]
mod tests;
