//! The entries of a group's body: claims and commits. All numbers are little endian.
//!
//! ```text
//! claim   1 u8 · shard u16 · epoch u64 · owner 16 B
//! commit  2 u8 · shard u16 · number u64 · rows u32 (bytes) · large u32 (bytes) · rows · large values
//! rows    puts u8 · deletes u8 · folds u8, then
//!         put     key u16 (bytes) · expires u32 (day, 0xffffffff: never) · value u32 (bytes; top bit: large) · key · value unless large
//!         delete  key u16 (bytes) · key
//!         fold    prefix u16 (bytes) · into u16 (bytes) · expires u32 · on u32 (day) · prefix · into
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use selvedge_kernel::id::ShardId;
use selvedge_kernel::limit;
use selvedge_kernel::ports::{Commit, Epoch, Owner};
use selvedge_kernel::time::Day;

/// A value above this stays in the log until it is carried; memory holds only its place.
pub const LARGE_VALUE_BYTES: usize = 4096;
const CLAIM: u8 = 1;
const COMMIT: u8 = 2;
const NEVER: u32 = u32::MAX;
const LARGE: u32 = 1 << 31;
/// Bytes of a commit's entry in front of its rows.
const COMMIT_HEAD_BYTES: usize = 19;

/// A commit as it is written: encoded by its caller, not by the log's thread.
pub struct Encoded {
    /// Whose.
    pub shard: ShardId,
    /// Under which claim.
    pub epoch: Epoch,
    /// Which.
    pub number: u64,
    /// Keys and small values.
    pub rows: Bytes,
    /// Values above [`LARGE_VALUE_BYTES`], in order.
    pub large: Vec<Bytes>,
    /// Larger than a store takes: it is refused.
    pub over_limit: bool,
}

/// One row operation of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Row {
    /// Writes a row.
    Put {
        /// Where.
        key: Bytes,
        /// What.
        value: Value,
        /// The day from which on it is not seen.
        expires: Option<Day>,
    },
    /// Removes a row.
    Delete {
        /// Which.
        key: Bytes,
    },
    /// Folds the rows under a prefix.
    Fold {
        /// Which rows.
        prefix: Bytes,
        /// Where the folded rows stand.
        into: Bytes,
        /// The day from which on they are not seen.
        expires: Option<Day>,
        /// The day on which it is done: rows that are not seen on it are not folded.
        on: Day,
    },
}

/// A value, or where in the entry's large values it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// The bytes.
    Inline(Bytes),
    /// A place among the large values.
    Large {
        /// Bytes from the first large value of the commit.
        offset: u32,
        /// Bytes of the value.
        len: u32,
    },
}

/// An entry as read from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// A shard was taken over.
    Claim {
        /// Which shard.
        shard: ShardId,
        /// The new epoch.
        epoch: Epoch,
        /// By whom.
        owner: Owner,
    },
    /// A commit.
    Commit {
        /// Whose.
        shard: ShardId,
        /// Which.
        number: u64,
        /// Its rows, for [`rows`].
        rows: &'a [u8],
        /// Where its large values start in the body.
        large_at: usize,
    },
}

/// Encodes a commit that is made on the day `today`.
#[must_use]
pub fn encode(commit: Commit, today: Day) -> Encoded {
    let operations = commit.puts.len() + commit.deletes.len() + commit.folds.len();
    let mut fits = operations <= limit::COMMIT_OPS;
    let mut bytes = 0;
    let mut room = 3 + 12 * operations;
    for put in &commit.puts {
        fits &= key_fits(&put.key);
        bytes += put.key.len() + put.value.len();
        room += put.key.len() + if put.value.len() > LARGE_VALUE_BYTES { 0 } else { put.value.len() };
    }
    for key in &commit.deletes {
        fits &= key_fits(key);
        bytes += key.len();
        room += key.len();
    }
    for fold in &commit.folds {
        fits &= key_fits(&fold.prefix) && key_fits(&fold.into);
        bytes += fold.prefix.len() + fold.into.len();
        room += fold.prefix.len() + fold.into.len();
    }
    let mut encoded = Encoded {
        shard: commit.shard,
        epoch: commit.epoch,
        number: commit.number,
        rows: Bytes::new(),
        large: Vec::new(),
        over_limit: !fits || bytes > limit::COMMIT_BYTES,
    };
    if encoded.over_limit {
        return encoded;
    }
    let mut rows = BytesMut::with_capacity(room);
    rows.put_u8(commit.puts.len() as u8);
    rows.put_u8(commit.deletes.len() as u8);
    rows.put_u8(commit.folds.len() as u8);
    for put in commit.puts {
        rows.put_u16_le(put.key.len() as u16);
        rows.put_u32_le(put.expires.map_or(NEVER, |day| day.0.min(NEVER - 1)));
        let large = put.value.len() > LARGE_VALUE_BYTES;
        rows.put_u32_le(put.value.len() as u32 | if large { LARGE } else { 0 });
        rows.put_slice(&put.key);
        if large {
            encoded.large.push(put.value);
        } else {
            rows.put_slice(&put.value);
        }
    }
    for key in &commit.deletes {
        rows.put_u16_le(key.len() as u16);
        rows.put_slice(key);
    }
    for fold in &commit.folds {
        rows.put_u16_le(fold.prefix.len() as u16);
        rows.put_u16_le(fold.into.len() as u16);
        rows.put_u32_le(fold.expires.map_or(NEVER, |day| day.0.min(NEVER - 1)));
        rows.put_u32_le(today.0);
        rows.put_slice(&fold.prefix);
        rows.put_slice(&fold.into);
    }
    encoded.rows = rows.freeze();
    encoded
}

fn key_fits(key: &[u8]) -> bool {
    key.len() <= usize::from(u16::MAX) - 4
}

impl Encoded {
    /// Bytes that it takes in a group.
    #[must_use]
    pub fn bytes(&self) -> usize {
        COMMIT_HEAD_BYTES + self.rows.len() + self.large.iter().map(Bytes::len).sum::<usize>()
    }

    /// Appends it to a group; gives back where its large values start in the group.
    pub fn append(&self, buffer: &mut Vec<u8>) -> usize {
        let large = self.large.iter().map(Bytes::len).sum::<usize>();
        buffer.put_u8(COMMIT);
        buffer.put_u16_le(self.shard.0);
        buffer.put_u64_le(self.number);
        buffer.put_u32_le(self.rows.len() as u32);
        buffer.put_u32_le(large as u32);
        buffer.extend_from_slice(&self.rows);
        let at = buffer.len();
        for value in &self.large {
            buffer.extend_from_slice(value);
        }
        at
    }
}

/// Appends a claim to a group.
pub fn append_claim(buffer: &mut Vec<u8>, shard: ShardId, epoch: Epoch, owner: Owner) {
    buffer.put_u8(CLAIM);
    buffer.put_u16_le(shard.0);
    buffer.put_u64_le(epoch.0);
    buffer.extend_from_slice(&owner.0);
}

/// Reads the entries of a group's body; `None` stands for bytes that are no entry.
pub struct Entries<'a> {
    body: &'a [u8],
    at: usize,
}

/// The entries of a body.
#[must_use]
pub fn entries(body: &[u8]) -> Entries<'_> {
    Entries { body, at: 0 }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Option<Entry<'a>>;

    fn next(&mut self) -> Option<Option<Entry<'a>>> {
        if self.at >= self.body.len() {
            return None;
        }
        let entry = self.entry();
        if entry.is_none() {
            self.at = self.body.len();
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Option<Entry<'a>> {
        let mut reader = Reader { bytes: self.body, at: self.at };
        let entry = match reader.u8()? {
            CLAIM => Entry::Claim { shard: ShardId(reader.u16()?), epoch: Epoch(reader.u64()?), owner: Owner(reader.take(16)?.try_into().ok()?) },
            COMMIT => {
                let shard = ShardId(reader.u16()?);
                let number = reader.u64()?;
                let rows = reader.u32()? as usize;
                let large = reader.u32()? as usize;
                let rows = reader.take(rows)?;
                let large_at = reader.at;
                reader.take(large)?;
                Entry::Commit { shard, number, rows, large_at }
            }
            _ => return None,
        };
        self.at = reader.at;
        Some(entry)
    }
}

/// Reads the row operations of a commit, in the order in which they take effect; `None` stands for bytes that are none.
pub struct Rows<'a> {
    bytes: &'a Bytes,
    at: usize,
    puts: u8,
    deletes: u8,
    folds: u8,
    large: u32,
}

/// The row operations in the encoded rows of a commit. Keys and values are slices of `bytes`.
#[must_use]
pub fn rows(bytes: &Bytes) -> Option<Rows<'_>> {
    let head: [u8; 3] = bytes.get(..3)?.try_into().ok()?;
    Some(Rows { bytes, at: 3, puts: head[0], deletes: head[1], folds: head[2], large: 0 })
}

impl Iterator for Rows<'_> {
    type Item = Option<Row>;

    fn next(&mut self) -> Option<Option<Row>> {
        if self.puts == 0 && self.deletes == 0 && self.folds == 0 {
            return None;
        }
        let row = self.row();
        if row.is_none() {
            (self.puts, self.deletes, self.folds) = (0, 0, 0);
        }
        Some(row)
    }
}

impl Rows<'_> {
    fn row(&mut self) -> Option<Row> {
        let mut reader = Reader { bytes: self.bytes, at: self.at };
        let row = if self.puts > 0 {
            self.puts -= 1;
            let key = usize::from(reader.u16()?);
            let expires = day(reader.u32()?);
            let len = reader.u32()?;
            let key = reader.slice(self.bytes, key)?;
            let value = if len & LARGE != 0 {
                let offset = self.large;
                self.large = offset.checked_add(len & !LARGE)?;
                Value::Large { offset, len: len & !LARGE }
            } else {
                Value::Inline(reader.slice(self.bytes, len as usize)?)
            };
            Row::Put { key, value, expires }
        } else if self.deletes > 0 {
            self.deletes -= 1;
            let key = usize::from(reader.u16()?);
            Row::Delete { key: reader.slice(self.bytes, key)? }
        } else {
            self.folds -= 1;
            let prefix = usize::from(reader.u16()?);
            let into = usize::from(reader.u16()?);
            let expires = day(reader.u32()?);
            let on = Day(reader.u32()?);
            Row::Fold { prefix: reader.slice(self.bytes, prefix)?, into: reader.slice(self.bytes, into)?, expires, on }
        };
        self.at = reader.at;
        Some(row)
    }
}

fn day(value: u32) -> Option<Day> {
    (value != NEVER).then_some(Day(value))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn slice(&mut self, whole: &Bytes, count: usize) -> Option<Bytes> {
        let start = self.at;
        self.take(count)?;
        Some(whole.slice(start..start + count))
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests;
