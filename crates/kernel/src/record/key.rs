//! Keys: `hash16 ‖ kind ‖ parts`.

use crate::id::{ActorId, Hash16, InvocationId, Key, RawId, ShardId, push_part};
use crate::journal::Hash32;
use crate::record::kind::Kind;
use crate::time::{Day, Millis};

fn start(hash: Hash16, kind: Kind, room: usize) -> Vec<u8> {
    let mut key = Vec::with_capacity(3 + room);
    key.extend_from_slice(&hash.0.to_be_bytes());
    key.push(kind as u8);
    key
}

fn shard_wide(kind: Kind, numbers: &[u64]) -> Key {
    let mut key = start(Hash16::SHARD_WIDE, kind, numbers.len() * 8);
    for number in numbers {
        key.extend_from_slice(&number.to_be_bytes());
    }
    Key::from(key)
}

/// The prefix of all rows of a kind that belong to an id.
#[must_use]
pub fn of_id(kind: Kind, id: RawId) -> Key {
    let mut key = start(id.hash, kind, 18);
    key.extend_from_slice(&id.to_bytes());
    Key::from(key)
}

fn of_id_u32(kind: Kind, id: RawId, number: u32) -> Key {
    let mut key = start(id.hash, kind, 22);
    key.extend_from_slice(&id.to_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    Key::from(key)
}

fn of_id_u64(kind: Kind, id: RawId, number: u64) -> Key {
    let mut key = start(id.hash, kind, 26);
    key.extend_from_slice(&id.to_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    Key::from(key)
}

/// The prefix of all rows of a kind that belong to an actor.
#[must_use]
pub fn of_actor(kind: Kind, actor: &ActorId) -> Key {
    let mut key = start(actor.hash16(), kind, 6 + actor.tenant.len() + actor.kind.len() + actor.key.len() + 40);
    push_part(&mut key, actor.tenant.as_bytes());
    push_part(&mut key, actor.kind.as_bytes());
    push_part(&mut key, actor.key.as_bytes());
    Key::from(key)
}

/// Tenant, type and key in a key of [`of_actor`] and of what stands behind it.
#[must_use]
pub fn actor_of(key: &[u8]) -> Option<(&str, &str, &str)> {
    let (tenant, rest) = part(key.get(3..)?)?;
    let (kind, rest) = part(rest)?;
    let (key, _) = part(rest)?;
    Some((tenant, kind, key))
}

pub(super) fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_at_checked(2)?;
    let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(len.try_into().ok()?)))?;
    Some((std::str::from_utf8(part).ok()?, rest))
}

fn extend(prefix: &Key, parts: &[&[u8]], number: Option<u64>) -> Key {
    let mut key = prefix.to_vec();
    for part in parts {
        push_part(&mut key, part);
    }
    if let Some(number) = number {
        key.extend_from_slice(&number.to_be_bytes());
    }
    Key::from(key)
}

/// Marks, ledger head, time.
#[must_use]
pub fn shard_head() -> Key {
    shard_wide(Kind::ShardHead, &[])
}

/// The owner that wrote last.
#[must_use]
pub fn owner() -> Key {
    shard_wide(Kind::Owner, &[])
}

/// An invocation.
#[must_use]
pub fn invocation(id: InvocationId) -> Key {
    of_id(Kind::Invocation, id.0)
}

/// What keys its seals.
#[must_use]
pub fn seal_key(id: RawId) -> Key {
    of_id(Kind::SealKey, id)
}

/// A place in an actor's inbox.
#[must_use]
pub fn inbox(actor: &ActorId, order: u64) -> Key {
    extend(&of_actor(Kind::Inbox, actor), &[], Some(order))
}

/// What a reopened shard activates.
#[must_use]
pub fn ready(number: u64) -> Key {
    shard_wide(Kind::Ready, &[number])
}

/// A journal entry.
#[must_use]
pub fn journal(id: InvocationId, index: u32) -> Key {
    of_id_u32(Kind::Journal, id.0, index)
}

/// A message of a client that is not due yet.
#[must_use]
pub fn delayed(id: InvocationId) -> Key {
    of_id(Kind::Delayed, id.0)
}

/// An operation that was begun.
#[must_use]
pub fn begun(id: InvocationId, number: u32) -> Key {
    of_id_u32(Kind::Begun, id.0, number)
}

/// That an entry has another one in its place.
#[must_use]
pub fn resolved(id: InvocationId, index: u32) -> Key {
    of_id_u32(Kind::Resolved, id.0, index)
}

/// That an invocation was forked from another one, or the other one from it.
#[must_use]
pub fn fork(id: InvocationId, other: InvocationId) -> Key {
    let mut key = of_id(Kind::Fork, id.0).to_vec();
    key.extend_from_slice(&other.0.to_bytes());
    Key::from(key)
}

/// A state entry.
#[must_use]
pub fn state(actor: &ActorId, name: &str) -> Key {
    extend(&of_actor(Kind::State, actor), &[name.as_bytes()], None)
}

/// A timer.
#[must_use]
pub fn timer(due: Millis, number: u64) -> Key {
    shard_wide(Kind::Timer, &[due.0, number])
}

/// An envelope on its way to another shard.
#[must_use]
pub fn outbox(to: ShardId, n: u64) -> Key {
    let mut key = outbox_to(to).to_vec();
    key.extend_from_slice(&n.to_be_bytes());
    Key::from(key)
}

/// All envelopes to one shard.
#[must_use]
pub fn outbox_to(to: ShardId) -> Key {
    let mut key = start(Hash16::SHARD_WIDE, Kind::Outbox, 10);
    key.extend_from_slice(&to.0.to_be_bytes());
    Key::from(key)
}

/// How far a shard has taken from another.
#[must_use]
pub fn taken(from: ShardId) -> Key {
    let mut key = start(Hash16::SHARD_WIDE, Kind::Taken, 2);
    key.extend_from_slice(&from.0.to_be_bytes());
    Key::from(key)
}

/// How far a shard has sent to another.
#[must_use]
pub fn sent(to: ShardId) -> Key {
    let mut key = start(Hash16::SHARD_WIDE, Kind::Sent, 2);
    key.extend_from_slice(&to.0.to_be_bytes());
    Key::from(key)
}

/// What a tenant has open in a shard.
#[must_use]
pub fn tally(tenant: &str) -> Key {
    extend(&all(Kind::Tally), &[tenant.as_bytes()], None)
}

/// What a tenant keeps in a shard: until a day, or as long as nobody removes it. Without a tenant it says that the shard counts it.
#[must_use]
pub fn kept(tenant: &str, until: Option<Day>) -> Key {
    let mut key = extend(&all(Kind::Kept), &[tenant.as_bytes()], None).to_vec();
    key.extend_from_slice(&until.map_or(0, |day| day.0).to_be_bytes());
    Key::from(key)
}

/// The day in a key of [`kept`].
#[must_use]
pub fn kept_until(key: &[u8]) -> Option<Day> {
    last_u32(key).filter(|day| *day > 0).map(Day)
}

/// The tenant at the front of a key: of a tally, of kept bytes, of a stored pipeline, or of what belongs to an actor.
#[must_use]
pub fn tenant(key: &[u8]) -> Option<&str> {
    part(key.get(3..)?).map(|(tenant, _)| tenant)
}

/// A caller that joined an invocation.
#[must_use]
pub fn joined(id: InvocationId, peer: &crate::record::message::Peer) -> Key {
    extend(&of_id(Kind::Joined, id.0), &[&crate::wire::encode(peer)], None)
}

/// All rows of a kind that belong to the shard as a whole.
#[must_use]
pub fn all(kind: Kind) -> Key {
    shard_wide(kind, &[])
}

/// The shard-wide part numbers in a key: what stands behind hash and kind, eight bytes each.
#[must_use]
pub fn numbers<const N: usize>(key: &[u8]) -> Option<[u64; N]> {
    let rest = key.get(3..)?;
    if rest.len() != N * 8 {
        return None;
    }
    let mut found = [0u64; N];
    for (slot, bytes) in found.iter_mut().zip(rest.chunks_exact(8)) {
        *slot = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(found)
}

/// The last eight bytes of a key as a number.
#[must_use]
pub fn last_u64(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(key.len().checked_sub(8)?..)?.try_into().ok()?))
}

/// The last four bytes of a key as a number.
#[must_use]
pub fn last_u32(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(key.get(key.len().checked_sub(4)?..)?.try_into().ok()?))
}

/// An idempotency key in its scope.
#[must_use]
pub fn idempotency(actor: &ActorId, handler: &str, key: &str) -> Key {
    extend(&of_actor(Kind::Idempotency, actor), &[handler.as_bytes(), key.as_bytes()], None)
}

/// All signals of a name kept for an actor.
#[must_use]
pub fn actor_signals(actor: &ActorId, name: &str) -> Key {
    extend(&of_actor(Kind::ActorSignal, actor), &[name.as_bytes()], None)
}

/// A signal kept for an actor.
#[must_use]
pub fn actor_signal(actor: &ActorId, name: &str, n: u64) -> Key {
    extend(&of_actor(Kind::ActorSignal, actor), &[name.as_bytes()], Some(n))
}

/// All signals of a name kept for an invocation.
#[must_use]
pub fn invocation_signals(id: InvocationId, name: &str) -> Key {
    extend(&of_id(Kind::InvocationSignal, id.0), &[name.as_bytes()], None)
}

/// A signal kept for an invocation.
#[must_use]
pub fn invocation_signal(id: InvocationId, name: &str, n: u64) -> Key {
    extend(&of_id(Kind::InvocationSignal, id.0), &[name.as_bytes()], Some(n))
}

/// That a signal with an idempotency key was taken in. No signal has the empty name, so that no scan for one meets it.
#[must_use]
pub fn actor_signal_once(actor: &ActorId, name: &str, key: &str) -> Key {
    extend(&of_actor(Kind::ActorSignal, actor), &[b"", name.as_bytes(), key.as_bytes()], None)
}

/// The same for a signal to an invocation.
#[must_use]
pub fn invocation_signal_once(id: InvocationId, name: &str, key: &str) -> Key {
    extend(&of_id(Kind::InvocationSignal, id.0), &[b"", name.as_bytes(), key.as_bytes()], None)
}

/// A chunk of output.
#[must_use]
pub fn output(id: InvocationId, n: u64) -> Key {
    of_id_u64(Kind::Output, id.0, n)
}

/// All dead letters of a type are under the actor's hash, so they are found by id.
#[must_use]
pub fn dead_letter(id: InvocationId) -> Key {
    of_id(Kind::DeadLetter, id.0)
}

/// A piece of a large payload.
#[must_use]
pub fn chunk(owner: RawId, seal: Hash32, n: u32) -> Key {
    let mut key = of_id(Kind::Chunk, owner).to_vec();
    key.extend_from_slice(&seal.0);
    key.extend_from_slice(&n.to_be_bytes());
    Key::from(key)
}

/// A ledger line.
#[must_use]
pub fn ledger(n: u64) -> Key {
    shard_wide(Kind::Ledger, &[n])
}

/// A line of a list: newest last.
#[must_use]
pub fn index(tenant: &str, what: u8, at: Millis, id: RawId) -> Key {
    let mut key = index_of(tenant, what).to_vec();
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(&id.to_bytes());
    Key::from(key)
}

/// All lines of a list.
#[must_use]
pub fn index_of(tenant: &str, what: u8) -> Key {
    let mut key = start(Hash16::SHARD_WIDE, Kind::Index, tenant.len() + 30);
    push_part(&mut key, tenant.as_bytes());
    key.push(what);
    Key::from(key)
}
