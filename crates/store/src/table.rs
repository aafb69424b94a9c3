//! The table: rows in memory, in key order, one map a shard.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::under;
use selvedge_kernel::time::Day;

use crate::entry::{self, Row, Value};
use crate::segment::Segment;

/// A folded row holds at most this many bytes, unless one pair alone is longer.
pub const FOLDED_ROW_BYTES: usize = 1024 * 1024;

/// The rows of all shards.
pub struct Tables {
    shards: Vec<RwLock<BTreeMap<Bytes, Cell>>>,
}

/// A row as it stands in memory.
#[derive(Clone)]
pub struct Cell {
    /// What.
    pub value: Stored,
    /// The day from which on it is not seen.
    pub expires: Option<Day>,
}

/// A value, or where in the log it stands.
#[derive(Clone)]
pub enum Stored {
    /// The bytes.
    Inline(Bytes),
    /// A place in the log.
    InLog {
        /// The file, which is kept as long as somebody refers to it.
        segment: Arc<Segment>,
        /// Where the value starts.
        offset: u64,
        /// Its bytes.
        len: u32,
    },
}

impl Stored {
    /// The bytes.
    pub fn read(self) -> io::Result<Bytes> {
        match self {
            Stored::Inline(bytes) => Ok(bytes),
            Stored::InLog { segment, offset, len } => {
                let mut bytes = vec![0; len as usize];
                let count = segment.file.read_at(&mut bytes, offset)?;
                if count < bytes.len() {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the log is shorter than it was"));
                }
                Ok(Bytes::from(bytes))
            }
        }
    }
}

/// Where the large values of a commit stand.
#[derive(Clone)]
pub struct Place<'a> {
    /// In which file.
    pub segment: &'a Arc<Segment>,
    /// From where on.
    pub offset: u64,
}

impl Tables {
    /// Empty tables.
    #[must_use]
    pub fn new(shards: u16) -> Tables {
        Tables { shards: (0..shards).map(|_| RwLock::default()).collect() }
    }

    /// Applies the rows of a commit. `false` if they are not rows.
    pub fn apply(&self, shard: ShardId, rows: &Bytes, place: &Place<'_>) -> io::Result<bool> {
        let (Some(table), Some(rows)) = (self.shards.get(usize::from(shard.0)), entry::rows(rows)) else {
            return Ok(false);
        };
        let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            match row {
                Some(Row::Put { key, value, expires }) => {
                    let value = match value {
                        Value::Inline(bytes) => Stored::Inline(bytes),
                        Value::Large { offset, len } => Stored::InLog { segment: Arc::clone(place.segment), offset: place.offset + u64::from(offset), len },
                    };
                    table.insert(key, Cell { value, expires });
                }
                Some(Row::Delete { key }) => {
                    table.remove(&key);
                }
                Some(Row::Fold { prefix, into, expires, on }) => fold(&mut table, &prefix, &into, expires, on)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// A row, expired or not.
    #[must_use]
    pub fn get(&self, shard: ShardId, key: &[u8]) -> Option<Cell> {
        self.read(shard)?.get(key).cloned()
    }

    /// The first `limit` rows of a range that are seen on a day.
    #[must_use]
    pub fn scan(&self, shard: ShardId, range: Range<Bytes>, limit: usize, today: Day) -> Vec<(Bytes, Cell)> {
        let Some(table) = self.read(shard).filter(|_| range.start < range.end) else {
            return Vec::new();
        };
        let seen = table.range(range).filter(|(_, cell)| cell.seen(today));
        seen.take(limit).map(|(key, cell)| (key.clone(), cell.clone())).collect()
    }

    fn read(&self, shard: ShardId) -> Option<RwLockReadGuard<'_, BTreeMap<Bytes, Cell>>> {
        Some(self.shards.get(usize::from(shard.0))?.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cell {
    /// Whether readers see it on a day.
    #[must_use]
    pub fn seen(&self, today: Day) -> bool {
        self.expires.is_none_or(|expires| today < expires)
    }
}

fn fold(table: &mut RwLockWriteGuard<'_, BTreeMap<Bytes, Cell>>, prefix: &[u8], into: &[u8], expires: Option<Day>, today: Day) -> io::Result<()> {
    let rows: Vec<(Bytes, Cell)> = table.range(under(prefix)).map(|(key, cell)| (key.clone(), cell.clone())).collect();
    let mut pieces = Pieces::default();
    for (key, cell) in rows {
        table.remove(&key);
        if cell.seen(today) {
            pieces.push(&key, &cell.value.read()?);
        }
    }
    for (n, value) in pieces.finish().into_iter().enumerate() {
        table.insert(piece_key(into, n as u32), Cell { value: Stored::Inline(value), expires });
    }
    Ok(())
}

/// The key of a folded row: `into`, then its number as big-endian `u32`.
#[must_use]
pub fn piece_key(into: &[u8], n: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(into.len() + 4);
    key.put_slice(into);
    key.put_u32(n);
    key.freeze()
}

/// Packs rows into folded rows.
#[derive(Default)]
pub struct Pieces {
    full: Vec<Bytes>,
    open: BytesMut,
}

impl Pieces {
    /// Appends a row.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        let size = 8 + key.len() + value.len();
        if !self.open.is_empty() && self.open.len() + size > FOLDED_ROW_BYTES {
            self.full.push(self.open.split().freeze());
        }
        self.open.put_u32(key.len() as u32);
        self.open.put_slice(key);
        self.open.put_u32(value.len() as u32);
        self.open.put_slice(value);
    }

    /// The folded rows, in order.
    #[must_use]
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.full.push(self.open.freeze());
        }
        self.full
    }
}
