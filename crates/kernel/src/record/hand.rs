//! What is done to a journal by hand: an operation decided, a journal copied. Both are entries of the chain.
//!
//! An entry that no longer fits is never rewritten: a `resolved` entry is appended that names the index it supersedes, and a
//! replay sees what that one says in the place of the old one. Both stay, and the chain goes through both.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::InvocationId;
use crate::journal::{Ending, Entry, Hash32, Header, OpKind, Payload, Signature};
use crate::time::Millis;
use crate::wire::{self, WireError};

/// What an operation is given by hand: the payload of a `resolved` entry, whose number is the operation's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resolution {
    /// The index of the entry that it stands in the place of; none: it stands where it is.
    pub supersedes: Option<u32>,
    /// The operation that the code asks for: what replay compares.
    pub stands_for: Signature,
    /// How the operation ends.
    pub ending: Ending,
    /// Its value, or its [`crate::error::WorkError`].
    pub value: Bytes,
    /// Who decided it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Resolution {
    /// Reads the payload of a `resolved` entry.
    ///
    /// # Errors
    /// When the entry is of another kind, was erased, or does not decode.
    pub fn of(entry: &Entry) -> Result<Resolution, WireError> {
        match (&entry.payload, entry.header.signature.kind) {
            (Payload::Inline(bytes), OpKind::Resolved) => wire::decode("resolved entry", bytes),
            _ => Err(WireError::Malformed { what: "resolved entry", len: 0 }),
        }
    }

    /// The entry that a replay sees, at a place and a time of the journal.
    #[must_use]
    pub fn stand_in(&self, index: u32, at: Millis) -> Entry {
        let header = Header { index, signature: self.stands_for.clone(), ending: self.ending, at, request_seal: None };
        Entry { header, seal: Hash32::default(), chain: Hash32::default(), payload: Payload::Inline(self.value.clone()) }
    }
}

/// What stands in the place of entries, by their index.
pub type StandIns = BTreeMap<u32, Resolution>;

/// What stands in the place of which entry, of a journal that is whole. The last word counts.
///
/// # Errors
/// When a `resolved` entry does not decode.
pub fn stand_ins(entries: &[Entry]) -> Result<StandIns, WireError> {
    let mut found = StandIns::new();
    for entry in entries.iter().filter(|entry| entry.header.signature.kind == OpKind::Resolved) {
        let resolution = Resolution::of(entry)?;
        if let Some(index) = resolution.supersedes {
            found.insert(index, resolution);
        }
    }
    Ok(found)
}

/// Entries as a replay sees them. Each keeps the place and the time of the one that it stands for, so that the order of
/// delivery and what `now` gives stay what they were.
///
/// # Errors
/// When a `resolved` entry does not decode.
pub fn seen(entries: Vec<Entry>, stand_ins: &StandIns) -> Result<Vec<Entry>, WireError> {
    let mut seen = Vec::with_capacity(entries.len());
    for entry in entries {
        let (index, at) = (entry.header.index, entry.header.at);
        match stand_ins.get(&index) {
            Some(resolution) => seen.push(resolution.stand_in(index, at)),
            None if entry.header.signature.kind == OpKind::Resolved => {
                let resolution = Resolution::of(&entry)?;
                if resolution.supersedes.is_none() {
                    seen.push(resolution.stand_in(index, at));
                }
            }
            None => seen.push(entry),
        }
    }
    Ok(seen)
}

/// Where a journal was copied from: the payload of the `forked` entry that such a journal starts with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// From which invocation.
    pub from: InvocationId,
    /// How many of its entries, from the first on.
    pub entries: u32,
    /// Who forked it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// One end of the link between an invocation and its fork.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Link {
    /// The other one was forked from this one.
    Into,
    /// This one was forked from the other one.
    From,
}

/// What an edit of a state entry names so that it is refused when the entry has changed since it was read: the first half
/// of BLAKE3 of the value's bytes, 32 hexadecimal characters.
///
/// ```
/// use selvedge_kernel::record::hand::etag;
/// assert_eq!(etag(b"1").len(), 32);
/// assert_ne!(etag(b"1"), etag(b"2"));
/// ```
#[must_use]
pub fn etag(value: &[u8]) -> String {
    blake3::hash(value).to_hex()[..32].to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::WorkError;
    use crate::journal::{SealKey, Verifier, chain_start, seal};
    use crate::transition::{Journal, signature};
    use crate::{id::RawId, replay::Replay, replay::check_result};

    const KEY: SealKey = SealKey([7; 32]);

    fn journal() -> (Journal, Vec<Entry>) {
        let id = InvocationId(RawId { hash: crate::id::Hash16(3), uuid: [1; 16] });
        let mut journal = Journal::start(id, KEY, seal(&KEY, b"null"));
        let mut entries = Vec::new();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            let value = Bytes::from(format!("\"{name}\""));
            journal.append(&mut entries, signature(number as u32, OpKind::Step, name, ""), Ending::Value, &value, None, Millis(10 + number as u64));
        }
        (journal, entries)
    }

    fn resolve(journal: &mut Journal, entries: &mut Vec<Entry>, supersedes: Option<u32>, stands_for: Signature, value: &str) {
        let (ending, value) = match value {
            "error" => (Ending::Error, wire::encode(&WorkError::new("by_hand", "no"))),
            value => (Ending::Value, Bytes::from(value.to_owned())),
        };
        let number = stands_for.number;
        let resolution = Resolution { supersedes, stands_for, ending, value, by: "ada".to_owned(), reason: "the bank says so".to_owned() };
        journal.append(entries, signature(number, OpKind::Resolved, "", ""), Ending::Value, &wire::encode(&resolution), None, Millis(99));
    }

    #[test]
    fn superseded_entry_stays_and_verifies_and_the_replay_sees_the_last_word_in_its_place() {
        let (mut journal, mut entries) = journal();
        resolve(&mut journal, &mut entries, Some(1), signature(1, OpKind::Step, "renamed", ""), "1");
        resolve(&mut journal, &mut entries, Some(1), signature(1, OpKind::Step, "renamed", ""), "2");
        resolve(&mut journal, &mut entries, None, signature(3, OpKind::Call, "", "a/b.c"), "error");
        let mut verifier = Verifier::new(chain_start(journal.invocation.0, seal(&KEY, b"null")));
        for entry in &entries {
            let Payload::Inline(payload) = &entry.payload else { panic!("{entry:?}") };
            verifier.check(entry, Some(&KEY), Some(payload)).unwrap();
        }
        assert_eq!(verifier.head(), (journal.chain, journal.next));

        let found = stand_ins(&entries).unwrap();
        let seen = seen(entries.clone(), &found).unwrap();
        let told: Vec<_> = seen.iter().map(|entry| (entry.header.signature.to_string(), entry.header.ending, entry.header.at.0)).collect();
        let expected = [
            ("#0 step `a`", Ending::Value, 10),
            ("#1 step `renamed`", Ending::Value, 11),
            ("#2 step `c`", Ending::Value, 12),
            ("#3 call to a/b.c", Ending::Error, 99),
        ];
        assert_eq!(told, expected.map(|(sign, ending, at)| (sign.to_owned(), ending, at)));
        assert_eq!(seen[1].payload, Payload::Inline(Bytes::from_static(b"2")));

        // A page that ends before the `resolved` entries shows the same, for whoever knows what stands in its places.
        assert_eq!(super::seen(entries[..2].to_vec(), &found).unwrap(), seen[..2]);
        let mut replay = Replay::default();
        replay.load(seen);
        let next: Vec<_> = std::iter::from_fn(|| replay.next_result()).collect();
        assert!(check_result(&next[1], Some(&signature(1, OpKind::Step, "renamed", ""))).is_ok());
        assert!(check_result(&next[1], Some(&signature(1, OpKind::Step, "b", ""))).is_err(), "what was decided by hand is compared like any other");
        assert!(replay.done() && replay.finish().is_ok());
    }

    #[test]
    fn origin_of_a_copied_journal_is_nothing_that_a_handler_asks_for() {
        let (mut journal, mut entries) = journal();
        let origin = Origin { from: journal.invocation, entries: 3, by: "ada".to_owned(), reason: "again".to_owned() };
        journal.append(&mut entries, signature(u32::MAX, OpKind::Forked, "", ""), Ending::Value, &wire::encode(&origin), None, Millis(1));
        let mut replay = Replay::default();
        replay.load(seen(entries, &StandIns::new()).unwrap());
        assert_eq!(std::iter::from_fn(|| replay.next_result()).count(), 3);
        assert!(replay.finish().is_ok());
    }

    #[test]
    fn entry_of_another_kind_or_without_its_payload_is_no_resolution() {
        let (mut journal, mut entries) = journal();
        assert!(Resolution::of(&entries[0]).is_err());
        resolve(&mut journal, &mut entries, None, signature(3, OpKind::Step, "d", ""), "1");
        assert!(Resolution::of(&entries[3]).is_ok());
        entries[3].payload = Payload::Erased;
        assert!(Resolution::of(&entries[3]).is_err() && seen(entries, &StandIns::new()).is_err());
    }
}
