//! Decisions that are kept, one row each; equal ones within a minute are one row with a count.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::key::all;
use super::kind::Kind;
use crate::auth::{Action, AuthorizationContext, Hop, Principal, Resource, Verdict};
use crate::error::cut;
use crate::id::{ActorId, DecisionId, Key, push_part};
use crate::journal::Hash32;
use crate::limit::{DECISION_HOPS, DECISION_POLICIES};
use crate::time::Millis;
use crate::wire;

/// Equal decisions within this time are one record.
pub const TOGETHER: Duration = Duration::from_secs(60);
/// Text of a record: a reason, the id of a policy, a name.
const TEXT_BYTES: usize = 1_024;

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was not done.
    Denied,
    /// It was done.
    Allowed,
    /// It was denied; the policies in the shadow would have allowed it.
    WouldAllow,
    /// It was allowed; the policies in the shadow would have denied it.
    WouldDeny,
}

impl What {
    /// Everything that is recorded.
    pub const ALL: [What; 4] = [What::Denied, What::Allowed, What::WouldAllow, What::WouldDeny];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            What::Denied => "denied",
            What::Allowed => "allowed",
            What::WouldAllow => "would_allow",
            What::WouldDeny => "would_deny",
        }
    }

    /// The letter that it has in keys.
    fn letter(self) -> u8 {
        match self {
            What::Denied => b'd',
            What::Allowed => b'a',
            What::WouldAllow => b'y',
            What::WouldDeny => b'n',
        }
    }
}

/// What a set of policies said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// Why.
    pub reason: String,
    /// The policies that decided, by their ids: the first [`DECISION_POLICIES`] of them.
    pub policies: Vec<String>,
}

impl Said {
    /// Of an answer, as far as a record has room for it.
    #[must_use]
    pub fn of(verdict: &Verdict) -> Said {
        let policies = verdict.policies.iter().take(DECISION_POLICIES).map(|id| short(id)).collect();
        Said { reason: short(&verdict.why()), policies }
    }
}

fn short(text: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, TEXT_BYTES);
    text
}

/// One decision, or equal ones: those of the same principal in the same chain, of the same action on the same resource, with the
/// same reason and policies, within a minute.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// Of the first of them; all of them have it.
    pub id: DecisionId,
    /// What was decided.
    pub what: What,
    /// Who asked.
    pub principal: Principal,
    /// Who acted for the principal; of a long chain the first and the last ones.
    pub chain: Vec<Hop>,
    /// The name of the action.
    pub action: String,
    /// The kind of the resource, as policies name it.
    pub kind: String,
    /// Its name inside its kind and tenant.
    pub name: String,
    /// What the policies said that this is about: those in force, or those in the shadow.
    pub said: Said,
    /// Of a difference: what those in force said.
    pub in_force: Option<Said>,
    /// How long the answer took, in nanoseconds; 0 where nobody measured it.
    pub took_ns: u64,
    /// Where the first of them came from, where that is known.
    pub address: Option<String>,
    /// When the first of them was.
    pub first: Millis,
    /// When the last of them was.
    pub last: Millis,
    /// How many.
    pub count: u64,
}

impl DecisionRecord {
    /// The record of the first of them.
    #[must_use]
    pub fn first(id: DecisionId, what: What, asked: &Asked<'_>, verdict: &Verdict) -> DecisionRecord {
        let (kind, name) = asked.resource.names();
        let at = id.0.time();
        DecisionRecord {
            id,
            what,
            principal: asked.context.principal.clone(),
            chain: ends(&asked.context.chain),
            action: asked.action.name().to_owned(),
            kind: kind.to_owned(),
            name: short(&name),
            said: Said::of(verdict),
            in_force: None,
            took_ns: u64::try_from(verdict.took.as_nanos()).unwrap_or(u64::MAX),
            address: asked.context.request.address.clone(),
            first: at,
            last: at,
            count: 1,
        }
    }

    /// The same for all that are equal, and for no others.
    #[must_use]
    pub fn equals(&self) -> Hash32 {
        let same = (&self.what, &self.principal, &self.chain, &self.action, (&self.kind, &self.name), &self.said, &self.in_force);
        wire::encoded(&same, |bytes| Hash32(*blake3::hash(bytes).as_bytes()))
    }

    /// Takes one more in, if it is equal and in time.
    pub fn join(&mut self, other: &DecisionRecord) -> bool {
        let joined = self.takes_more(other.first) && self.equals() == other.equals();
        if joined {
            self.count += other.count;
            self.last = self.last.max(other.last);
        }
        joined
    }

    /// Whether an equal one of this time belongs to it. A clock that has gone back is no reason for another one.
    #[must_use]
    pub fn takes_more(&self, now: Millis) -> bool {
        now < self.first.after(TOGETHER)
    }
}

/// Who asked for what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who.
    pub context: &'a AuthorizationContext,
    /// What.
    pub action: Action,
    /// On what.
    pub resource: &'a Resource,
}

fn ends(chain: &[Hop]) -> Vec<Hop> {
    let gap = chain.len().saturating_sub(DECISION_HOPS);
    let half = if gap > 0 { DECISION_HOPS / 2 } else { chain.len() };
    chain[..half].iter().chain(&chain[half + gap..]).cloned().collect()
}

/// Whose shard holds the decisions of a tenant.
#[must_use]
pub fn home(tenant: &str) -> ActorId {
    ActorId { tenant: tenant.to_owned(), kind: "decision".to_owned(), key: String::new() }
}

/// All decisions of a tenant of one kind, the newest first.
#[must_use]
pub fn decisions_of(tenant: &str, what: What) -> Key {
    let mut key = all(Kind::Decision).to_vec();
    push_part(&mut key, tenant.as_bytes());
    key.push(what.letter());
    key.into()
}

/// Shard-wide, tenant, what, time counted down, id → [`DecisionRecord`].
#[must_use]
pub fn row(tenant: &str, what: What, id: DecisionId) -> Key {
    let mut key = decisions_of(tenant, what).to_vec();
    key.extend_from_slice(&(u64::MAX - id.0.time().0).to_be_bytes());
    key.extend_from_slice(&id.0.to_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::auth::{decision, local};
    use proptest::prelude::*;

    fn pipeline(name: &str) -> Resource {
        Resource::Pipeline { tenant: "acme".to_owned(), name: name.to_owned() }
    }

    fn at(ms: u64, what: What, context: &AuthorizationContext, action: Action, resource: &Resource, verdict: &Verdict) -> DecisionRecord {
        DecisionRecord::first(decision(context, action, resource, Millis(ms)), what, &Asked { context, action, resource }, verdict)
    }

    #[test]
    fn equal_decisions_within_a_minute_are_one_and_what_differs_in_anything_is_another() {
        let (ada, no) = (local("acme", Millis(0)), Verdict::deny("no"));
        let one = |ms| at(ms, What::Denied, &ada, Action::Start, &pipeline("bill"), &no);
        let mut record = one(1_000);
        assert!(record.join(&one(60_999)) && record.join(&one(500)));
        assert_eq!((record.count, record.first, record.last), (3, Millis(1_000), Millis(60_999)));
        assert!(!record.join(&one(61_000)), "the minute is over");
        let by = Verdict { policies: vec!["night".to_owned()], ..no.clone() };
        let bob = AuthorizationContext { principal: Principal { id: "bob".to_owned(), ..ada.principal.clone() }, ..ada.clone() };
        let through = ada.through(&home("acme"), "ask");
        for other in [
            at(2_000, What::WouldDeny, &ada, Action::Start, &pipeline("bill"), &no),
            at(2_000, What::Denied, &bob, Action::Start, &pipeline("bill"), &no),
            at(2_000, What::Denied, &through, Action::Start, &pipeline("bill"), &no),
            at(2_000, What::Denied, &ada, Action::Read, &pipeline("bill"), &no),
            at(2_000, What::Denied, &ada, Action::Start, &pipeline("pay"), &no),
            at(2_000, What::Denied, &ada, Action::Start, &pipeline("bill"), &by),
            at(2_000, What::Denied, &ada, Action::Start, &pipeline("bill"), &Verdict::deny("the delegation has ended")),
        ] {
            assert!(!record.join(&other), "{other:?}");
        }
    }

    #[test]
    fn a_record_is_bounded_whatever_was_asked() {
        let mut ada = local("acme", Millis(0));
        for n in 0..60 {
            ada.chain.push(Hop { actor: ActorId { tenant: "acme".to_owned(), kind: "desk".to_owned(), key: n.to_string() }, handler: "ask".to_owned() });
        }
        let verdict = Verdict { policies: vec!["p".repeat(5_000); 100], ..Verdict::deny("r".repeat(100_000)) };
        let record = at(5, What::Denied, &ada, Action::Start, &pipeline(&"n".repeat(100_000)), &verdict);
        assert!(wire::encode(&record).len() < 32 * 1_024);
        let keys: Vec<&str> = record.chain.iter().map(|hop| hop.actor.key.as_str()).collect();
        assert_eq!(keys, ["0", "1", "2", "3", "56", "57", "58", "59"]);
        ada.chain.truncate(DECISION_HOPS);
        assert_eq!(at(5, What::Denied, &ada, Action::Start, &pipeline("p"), &verdict).chain, ada.chain);
    }

    proptest! {
        #[test]
        fn rows_are_in_order_newest_first_and_come_back(older in 0u64..1 << 40, by in 1u64..1 << 30, tenant in ".{0,20}", reason in ".{0,60}") {
            let ada = local(&tenant, Millis(0));
            let record = |ms| at(ms, What::Denied, &ada, Action::Start, &pipeline("bill"), &Verdict::deny(reason.clone()));
            let (old, new) = (record(older), record(older + by));
            let key = |record: &DecisionRecord| row(&tenant, record.what, record.id);
            prop_assert!(key(&new) < key(&old) && key(&new).starts_with(&decisions_of(&tenant, What::Denied)));
            prop_assert_eq!(wire::decode::<DecisionRecord>("decision", &wire::encode(&old)).unwrap(), old);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = wire::decode::<DecisionRecord>("decision", &bytes);
        }
    }
}
