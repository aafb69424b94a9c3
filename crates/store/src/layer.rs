//! A layer: what commits changed in one shard while the layer was the newest, in memory.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::{Bound, Range};
use std::sync::Arc;

use selvedge_kernel::ports::under;
use selvedge_kernel::time::Day;

use crate::segment::Segment;
use crate::tree::bucket;

/// Bytes that a row takes beside key and value, roughly.
pub const ROW_BYTES: usize = 96;

/// What became of a row.
#[derive(Clone)]
pub enum Cell {
    /// It was written.
    Put {
        /// What.
        value: Stored,
        /// The day from which on it is not seen.
        expires: Option<Day>,
    },
    /// It was removed; there may be an older one below.
    Gone,
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

/// A fold that was committed, and is computed when somebody reads or carries it.
pub struct Mark {
    /// The rows that are folded away: those below the mark.
    pub prefix: Bytes,
    /// Where the folded rows stand.
    pub into: Bytes,
    /// The day from which on they are not seen.
    pub expires: Option<Day>,
    /// The day on which it was done: rows that are not seen on it are not folded.
    pub on: Day,
    /// The commit that it stands in, and which fold of the commit it is.
    pub commit: (u64, u8),
    /// What the layer knew of the rows under the prefix.
    pub over: Layer,
    /// The tree has the folded rows already, because carrying it was interrupted by the end of a process.
    pub carried: bool,
}

/// The rows and folds of one shard.
#[derive(Default)]
pub struct Layer {
    /// Rows, above the folds of the same layer.
    pub rows: BTreeMap<Bytes, Cell>,
    /// Folds by `into`.
    pub folds: BTreeMap<Bytes, Arc<Mark>>,
    /// Folds by prefix; no prefix starts with another.
    pub hides: BTreeMap<Bytes, Arc<Mark>>,
    /// Bytes of memory, roughly.
    pub bytes: usize,
}

impl Cell {
    /// Whether it is a row that readers see on a day.
    #[must_use]
    pub fn seen(&self, today: Day) -> bool {
        matches!(self, Cell::Put { expires, .. } if expires.is_none_or(|expires| today < expires))
    }
}

impl Mark {
    /// The day of the keyspace of its folded rows, `None` if they stay. It is never past when the fold is made, so that
    /// the keyspace is there until the fold was carried.
    #[must_use]
    pub fn target(&self) -> Option<Day> {
        let tomorrow = Day(self.on.0.saturating_add(1));
        self.expires.map(|expires| bucket(expires.max(tomorrow), self.on))
    }

    /// Whether folded rows can stand in a range.
    #[must_use]
    pub fn may_hold(&self, range: &Range<Bytes>) -> bool {
        piece_key(&self.into, 0) < range.end && piece_key(&self.into, u32::MAX) >= range.start
    }
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

impl Layer {
    /// Nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.folds.is_empty()
    }

    /// The fold whose folded rows a key may be among, and which of them.
    #[must_use]
    pub fn fold_of(&self, key: &[u8]) -> Option<(&Arc<Mark>, u32)> {
        if self.folds.is_empty() {
            return None;
        }
        let (into, piece) = key.split_last_chunk::<4>()?;
        Some((self.folds.get(into)?, u32::from_be_bytes(*piece)))
    }

    /// Whether what stands below at this key was folded away.
    #[must_use]
    pub fn hides(&self, key: &[u8]) -> bool {
        if self.hides.is_empty() {
            return false;
        }
        let before = self.hides.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(prefix, _)| key.starts_with(prefix))
    }

    /// Whether a fold can not stand in this layer beside what is there, and a new layer must begin.
    #[must_use]
    pub fn clashes(&self, prefix: &[u8], into: &[u8]) -> bool {
        // Old pieces stand under a prefix that starts with their `into` only if it goes on for at most four bytes.
        let shortest = prefix.len().saturating_sub(4);
        let pieces = piece_key(into, 0)..=piece_key(into, u32::MAX);
        self.hides(prefix)
            || self.hides(into)
            || first_starts_with(&self.hides, prefix)
            || first_starts_with(&self.folds, prefix)
            || (shortest..=prefix.len()).any(|len| self.folds.contains_key(&prefix[..len]))
            || self.folds.contains_key(into)
            || self.rows.range(pieces).any(|(key, _)| key.len() == into.len() + 4)
    }

    /// Takes the rows under a prefix out.
    pub fn take_under(&mut self, prefix: &[u8]) -> Layer {
        let rows = self.rows.extract_if(under(prefix), |_, _| true).collect();
        Layer { rows, ..Layer::default() }
    }

    /// Puts a fold in that does not clash.
    pub fn fold(&mut self, mark: Mark) {
        let mark = Arc::new(mark);
        self.folds.insert(mark.into.clone(), Arc::clone(&mark));
        self.hides.insert(mark.prefix.clone(), mark);
    }

    /// A copy of what concerns a range: its rows until `limit` of them are puts that are seen, and its folds.
    ///
    /// Also says where the copy ends, if that is before the end of the range.
    #[must_use]
    pub fn clip(&self, range: &Range<Bytes>, limit: usize, today: Day) -> (Layer, Option<Bytes>) {
        let mut clip = Layer::default();
        for mark in within(&self.folds, range) {
            clip.folds.insert(mark.into.clone(), Arc::clone(mark));
        }
        for mark in within(&self.hides, range) {
            clip.hides.insert(mark.prefix.clone(), Arc::clone(mark));
        }
        let mut rows = Vec::new();
        let (mut seen, mut end) = (0, None);
        for (key, cell) in self.rows.range(range.clone()) {
            rows.push((key.clone(), cell.clone()));
            seen += usize::from(cell.seen(today));
            if seen >= limit {
                end = Some(after(key));
                break;
            }
        }
        clip.rows = rows.into_iter().collect();
        (clip, end)
    }
}

/// The marks whose key stands in a range, or is what the start of the range begins with: whatever starts with the key of
/// any other mark is outside of the range. Found by lookups, never by walking all marks.
pub fn within<'a>(marks: &'a BTreeMap<Bytes, Arc<Mark>>, range: &'a Range<Bytes>) -> impl Iterator<Item = &'a Arc<Mark>> {
    let (none, lengths) = (marks.is_empty() || range.start >= range.end, 0..range.start.len());
    let begun = lengths.filter(move |_| !none).filter_map(|len| marks.get(&range.start[..len]));
    let inside = (!none).then(|| marks.range::<[u8], _>((Bound::Included(&range.start[..]), Bound::Excluded(&range.end[..]))));
    begun.chain(inside.into_iter().flatten().map(|(_, mark)| mark))
}

fn first_starts_with(marks: &BTreeMap<Bytes, Arc<Mark>>, prefix: &[u8]) -> bool {
    let from = marks.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded)).next();
    from.is_some_and(|(key, _)| key.starts_with(prefix))
}

/// The smallest key after a key.
#[must_use]
pub fn after(key: &[u8]) -> Bytes {
    Bytes::from([key, &[0]].concat())
}

/// The key of a folded row: `into`, then its number as big-endian `u32`.
#[must_use]
pub fn piece_key(into: &[u8], n: u32) -> Bytes {
    Bytes::from([into, &n.to_be_bytes()].concat())
}
