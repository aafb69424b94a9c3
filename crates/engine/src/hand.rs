//! The verbs that look into a journal, and those that change what happens by hand. Each consumes a permit.

use bytes::Bytes;
use selvedge_kernel::auth::{Action, Permit, Resource};
use selvedge_kernel::error::{Consequence, WorkError};
use selvedge_kernel::id::InvocationId;
use selvedge_kernel::limit;
use selvedge_kernel::record::message::Message;
use selvedge_kernel::time::Millis;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::door::{check_body, check_part, check_reason, expect_action, misused};
use crate::edit::{Asked, EDIT, New};
use crate::engine::Engine;
use crate::in_flight::InFlight;
use crate::shard::{Answer, Command, VerbError};

/// An entry of a journal, for people.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct JournalLine {
    /// Its place, from 0.
    pub entry: u32,
    /// The number of its operation; none where it has none.
    pub operation: Option<u32>,
    /// What it is.
    pub kind: &'static str,
    /// Of the step, activity, signal, state entry, change.
    pub name: String,
    /// Whom it addresses.
    pub target: String,
    /// How it ended.
    pub outcome: &'static str,
    /// Its error.
    pub error: Option<WorkError>,
    /// The size of what it gave; none: erased.
    pub bytes: Option<u64>,
    /// Shard time at which it was decided.
    pub at: Millis,
    /// The first 12 characters of its seal.
    pub seal: String,
    /// The first 12 characters of its chain value.
    pub chain: String,
    /// What was done by hand here.
    pub by_hand: Option<ByHand>,
}

/// What somebody did to a journal.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ByHand {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The entry that is not seen any more because of it.
    pub supersedes: Option<u32>,
    /// The operation that was decided.
    pub stands_for: Option<String>,
    /// The invocation whose journal was copied.
    pub from: Option<InvocationId>,
}

/// Entries of a journal, in order.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct JournalPage {
    /// At most a page of them.
    pub entries: Vec<JournalLine>,
    /// Where the next page begins, if there is one.
    pub next: Option<u32>,
}

/// A change of one entry of an actor's state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StateEdit {
    /// The entry's name.
    pub name: String,
    /// Its new value, JSON; none: it goes.
    pub set: Option<Bytes>,
    /// The etag that it must have now, or `none` if it must not be there.
    pub if_match: Option<String>,
    /// Why.
    pub reason: String,
    /// The same key, the same edit.
    pub idempotency_key: Option<String>,
}

/// An operation that is decided by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolve {
    /// Of which invocation.
    pub id: InvocationId,
    /// Which operation.
    pub operation: u32,
    /// What it gives.
    pub gives: Result<Bytes, WorkError>,
    /// Why.
    pub reason: String,
}

/// What a decision by hand became.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Resolved {
    /// The entry that says so.
    pub entry: u32,
    /// The entry in whose place it stands.
    pub supersedes: Option<u32>,
    /// The operation, as the code asks for it.
    pub stands_for: String,
}

/// A new invocation with a copy of another one's journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fork {
    /// Of which invocation.
    pub id: InvocationId,
    /// The first operation that is not taken over; none: the one that does not fit, or none at all.
    pub from: Option<u32>,
    /// Whether it is killed first if it is blocked.
    pub kill_original: bool,
    /// Why.
    pub reason: String,
    /// The same key, the same fork.
    pub key: String,
}

/// What a fork became.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Forked {
    /// The new invocation.
    pub id: InvocationId,
    /// How many entries it took over; none if it was there already.
    pub entries: Option<u32>,
}

impl Engine {
    /// Entries of a journal from an index on, also of an invocation that has ended, within its retention.
    pub async fn journal(&self, permit: Permit, id: InvocationId, from: u32) -> Result<JournalPage, VerbError> {
        expect_action(&permit, Action::Read)?;
        self.owned(&permit, id).await?;
        self.ask(self.wiring.shard_of_invocation(id), |reply| Command::Journal { id, from, reply }).await
    }

    /// Changes one entry of an actor's state, behind what its actor handles now: an invocation of a handler that every
    /// actor has, which keeps who asked and why. Where nothing is before it, its end is waited for.
    pub async fn edit_state(&self, permit: Permit, edit: StateEdit) -> Result<Answer, VerbError> {
        expect_action(&permit, Action::Rewrite)?;
        let Resource::Handler { actor, .. } = permit.resource().clone() else { return Err(misused(&permit)) };
        check_part("the actor's type", &actor.kind)?;
        check_part("the actor's key", &actor.key)?;
        check_part("the name of a state entry", &edit.name)?;
        check_reason(&edit.reason)?;
        if let Some(key) = &edit.idempotency_key {
            check_part("the idempotency key", key)?;
        }
        let set = match edit.set {
            Some(value) => Some(New { value: raw(&value)? }),
            None => None,
        };
        let asked = Asked { name: edit.name, set, if_match: edit.if_match, reason: edit.reason };
        let input = Bytes::from(serde_json::to_vec(&asked).map_err(|error| VerbError::new(Consequence::FixInput, "not_json", error.to_string()))?);
        check_body(self.limits(), input.len())?;
        self.admit().await?;
        let held = InFlight::take(&self.wiring, input.len())?;
        let plain = Message::new(self.new_id(&actor), actor.clone(), EDIT, input, permit.into_context());
        let message = Message { idempotency_key: edit.idempotency_key, ..plain };
        self.ask_holding(self.wiring.shard_of(&actor), held, |reply| Command::Edit { message, reply }).await
    }

    /// Decides one operation of an open invocation by hand, and lets it go on: an operation that it waits for, or, if it
    /// is blocked, one whose entry does not fit.
    pub async fn resolve(&self, permit: Permit, resolve: Resolve) -> Result<Resolved, VerbError> {
        expect_action(&permit, Action::Rewrite)?;
        self.owned(&permit, resolve.id).await?;
        check_reason(&resolve.reason)?;
        let bytes = match &resolve.gives {
            Ok(value) => raw(value)?.get().len(),
            Err(error) => error.code.len() + error.message.len(),
        };
        if bytes > limit::RESOLUTION_BYTES {
            let text = format!("the result has {bytes} bytes, the limit of one that is given by hand is {}: give a reference", limit::RESOLUTION_BYTES);
            return Err(VerbError::new(Consequence::Limit, "limit: resolution", text));
        }
        let held = InFlight::take(&self.wiring, bytes)?;
        let shard = self.wiring.shard_of_invocation(resolve.id);
        let by = permit.into_context().principal.id;
        self.ask_holding(shard, held, |reply| Command::Resolve { resolve: Box::new(resolve), by, reply }).await
    }

    /// Makes a new invocation of the same message with a copy of what the old one's journal says up to an operation.
    pub async fn fork(&self, permit: Permit, fork: Fork) -> Result<Forked, VerbError> {
        expect_action(&permit, Action::Rewrite)?;
        self.owned(&permit, fork.id).await?;
        check_reason(&fork.reason)?;
        check_part("the key of the fork", &fork.key)?;
        self.admit().await?;
        let shard = self.wiring.shard_of_invocation(fork.id);
        let by = permit.into_context().principal.id;
        self.ask(shard, |reply| Command::Fork { fork: Box::new(fork), by, reply }).await
    }
}

fn raw(value: &Bytes) -> Result<Box<RawValue>, VerbError> {
    serde_json::from_slice(value).map_err(|error| VerbError::new(Consequence::FixInput, "not_json", format!("the value is not JSON ({error})")))
}
