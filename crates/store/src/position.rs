//! What the tree says of itself: up to which group it has the log, and the shards' states there.
//!
//! ```text
//! version u8 · group u64 · incarnation u64 · watermark u32 (day)
//! shards u16, then for each: epoch u64 · owner 16 B · last u64
//! days u16, then for each: day u32 · kinds 32 B
//! ```
//! An intent, written before a span of the log is carried and after each of its passes but the last:
//!
//! ```text
//! version u8 · group u64 · passes u32
//! days u16, then for each: day u32 · kinds 32 B
//! ```
//! All numbers are little endian.

use bytes::BufMut;
use selvedge_kernel::ports::{Epoch, Owner};
use selvedge_kernel::time::Day;

use crate::log::ShardState;

const VERSION: u8 = 1;

/// The position of the tree in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Position {
    /// The last group that the tree has.
    pub group: u64,
    /// The highest incarnation of a segment that was used.
    pub incarnation: u64,
    /// What expires on this day or before may have been dropped.
    pub watermark: Day,
    /// The shards after that group.
    pub shards: Vec<ShardState>,
    /// The keyspaces of days, and the kinds of rows in each.
    pub days: Vec<(Day, Kinds)>,
}

/// The carrying of a span of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Intent {
    /// The last group of the span.
    pub group: u64,
    /// Passes that are done: a process that opens the store after this one died must not do them again, because a
    /// later pass may have gone on from there.
    pub passes: u32,
    /// The keyspaces of days, and the kinds of rows in each when the next pass is done.
    pub days: Vec<(Day, Kinds)>,
}

impl Intent {
    /// The bytes that stand in the tree.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(15 + 36 * self.days.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.group);
        out.put_u32_le(self.passes);
        put_days(&mut out, &self.days);
        out
    }

    /// Reads what [`Intent::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Intent> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let group = u64::from_le_bytes(take(&mut rest)?);
        let passes = u32::from_le_bytes(take(&mut rest)?);
        let intent = Intent { group, passes, days: take_days(&mut rest)? };
        rest.is_empty().then_some(intent)
    }
}

/// Which values the third byte of the keys in a keyspace has: the kind of row, in Selvedge's key layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kinds(pub [u8; 32]);

impl Kinds {
    /// No row.
    pub const NONE: Kinds = Kinds([0; 32]);
    /// Nothing is known.
    pub const ALL: Kinds = Kinds([0xff; 32]);

    /// Adds a key.
    pub fn add(&mut self, key: &[u8]) {
        let kind = usize::from(key.get(2).copied().unwrap_or(0));
        self.0[kind / 8] |= 1 << (kind % 8);
    }

    /// Adds the keys of folded rows under `into`.
    pub fn add_pieces(&mut self, into: &[u8]) {
        if into.len() < 3 {
            *self = Kinds::ALL;
        }
        self.add(into);
    }

    /// Whether a key can be in the keyspace.
    #[must_use]
    pub fn may_hold(&self, key: &[u8]) -> bool {
        let kind = usize::from(key.get(2).copied().unwrap_or(0));
        self.0[kind / 8] & (1 << (kind % 8)) != 0
    }
}

impl Position {
    /// The position of an empty tree.
    #[must_use]
    pub fn start(shards: u16) -> Position {
        let shards = vec![ShardState::default(); usize::from(shards)];
        Position { group: 0, incarnation: 0, watermark: Day(0), shards, days: Vec::new() }
    }

    /// The bytes that stand in the tree.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(25 + 32 * self.shards.len() + 36 * self.days.len());
        out.put_u8(VERSION);
        out.put_u64_le(self.group);
        out.put_u64_le(self.incarnation);
        out.put_u32_le(self.watermark.0);
        out.put_u16_le(self.shards.len() as u16);
        for shard in &self.shards {
            out.put_u64_le(shard.epoch.0);
            out.put_slice(&shard.owner.0);
            out.put_u64_le(shard.last);
        }
        put_days(&mut out, &self.days);
        out
    }

    /// Reads what [`Position::encode`] wrote.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Position> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let group = u64::from_le_bytes(take(&mut rest)?);
        let incarnation = u64::from_le_bytes(take(&mut rest)?);
        let watermark = Day(u32::from_le_bytes(take(&mut rest)?));
        let mut shards = Vec::new();
        for _ in 0..u16::from_le_bytes(take(&mut rest)?) {
            let epoch = Epoch(u64::from_le_bytes(take(&mut rest)?));
            let owner = Owner(take(&mut rest)?);
            shards.push(ShardState { epoch, owner, last: u64::from_le_bytes(take(&mut rest)?) });
        }
        let days = take_days(&mut rest)?;
        rest.is_empty().then_some(Position { group, incarnation, watermark, shards, days })
    }
}

fn put_days(out: &mut Vec<u8>, days: &[(Day, Kinds)]) {
    out.put_u16_le(days.len() as u16);
    for (day, kinds) in days {
        out.put_u32_le(day.0);
        out.put_slice(&kinds.0);
    }
}

fn take_days(rest: &mut &[u8]) -> Option<Vec<(Day, Kinds)>> {
    let count = u16::from_le_bytes(take(rest)?);
    (0..count).map(|_| Some((Day(u32::from_le_bytes(take(rest)?)), Kinds(take(rest)?)))).collect()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn intent_reads_back(group: u64, passes: u32, day: u32, kinds: [u8; 32]) {
            let intent = Intent { group, passes, days: vec![(Day(day), Kinds(kinds))] };
            let bytes = intent.encode();
            prop_assert_eq!(Intent::decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(Intent::decode(&bytes), Some(intent));
        }

        #[test]
        fn position_reads_back(group: u64, incarnation: u64, watermark: u32,
                               shards in proptest::collection::vec((any::<u64>(), any::<[u8; 16]>(), any::<u64>()), 0..5),
                               days in proptest::collection::vec((any::<u32>(), any::<[u8; 32]>()), 0..4)) {
            let position = Position {
                group, incarnation, watermark: Day(watermark),
                shards: shards.into_iter().map(|(epoch, owner, last)| ShardState { epoch: Epoch(epoch), owner: Owner(owner), last }).collect(),
                days: days.into_iter().map(|(day, kinds)| (Day(day), Kinds(kinds))).collect(),
            };
            let bytes = position.encode();
            prop_assert_eq!(Position::decode(&bytes), Some(position));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Position::decode(&bytes[..cut]), None);
            }
        }
    }
}
