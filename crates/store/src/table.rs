//! The table: for each shard the layer that commits change, the layers that wait to be carried, and a view of the tree.

use bytes::Bytes;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use selvedge_kernel::id::ShardId;
use selvedge_kernel::time::Day;

use crate::entry::{self, Row, Value};
use crate::layer::{Cell, Layer, Mark, ROW_BYTES, Stored, after};
use crate::segment::Segment;
use crate::stack::Stack;
use crate::still::StillShard;
use crate::tree::View;

/// The rows of all shards that are not yet in the tree, and the tree below them.
pub struct Tables {
    shards: Vec<RwLock<Shard>>,
    /// Bytes of all layers, roughly.
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    active: Layer,
    /// Newest first.
    frozen: Vec<Frozen>,
    view: Option<Arc<View>>,
}

#[derive(Clone)]
struct Frozen {
    span: u64,
    layer: Arc<Layer>,
}

/// A commit to apply.
pub struct Applied<'a> {
    /// Whose.
    pub shard: ShardId,
    /// Which.
    pub number: u64,
    /// Its encoded rows.
    pub rows: &'a Bytes,
    /// The file that it stands in.
    pub segment: &'a Arc<Segment>,
    /// Where in the file its large values start.
    pub large_at: u64,
    /// The span of the log that the newest layer belongs to.
    pub span: u64,
}

impl Tables {
    /// Empty tables over an empty tree.
    #[must_use]
    pub fn new(shards: u16) -> Tables {
        Tables { shards: (0..shards).map(|_| RwLock::default()).collect(), bytes: AtomicUsize::new(0) }
    }

    /// Bytes of all layers, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Applies a commit; `false` if its rows are unreadable. `interrupted` is the tree when the commit is read from
    /// the log at opening, because carrying it may have been interrupted.
    pub fn apply(&self, commit: &Applied<'_>, interrupted: Option<&View>) -> io::Result<bool> {
        let Some(shard) = self.shards.get(usize::from(commit.shard.0)) else { return Ok(false) };
        let Some(rows) = entry::rows(commit.rows) else { return Ok(false) };
        let mut shard = write(shard);
        let mut folds: u8 = 0;
        let mut bytes = commit.rows.len();
        for row in rows {
            let Some(row) = row else { return Ok(false) };
            bytes += ROW_BYTES;
            match row {
                Row::Put { key, value, expires } => {
                    let value = match value {
                        Value::Inline(bytes) => Stored::Inline(bytes),
                        Value::Large { offset, len } => Stored::InLog { segment: Arc::clone(commit.segment), offset: commit.large_at + u64::from(offset), len },
                    };
                    shard.active.rows.insert(key, Cell::Put { value, expires });
                }
                Row::Delete { key } => {
                    shard.active.rows.insert(key, Cell::Gone);
                }
                Row::Fold { prefix, into, expires, on } => {
                    if shard.active.clashes(&prefix, &into) {
                        shard.freeze(commit.span);
                    }
                    let over = shard.active.take_under(&prefix);
                    let mut mark = Mark { prefix, into, expires, on, commit: (commit.number, folds), over, carried: false };
                    if let Some(view) = interrupted {
                        mark.carried = view.fold_carried(commit.shard, mark.commit, mark.target())?;
                    }
                    folds = folds.wrapping_add(1);
                    shard.active.fold(mark);
                }
            }
        }
        shard.active.bytes += bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(true)
    }

    /// Ends a span of the log: what was changed in it waits to be carried.
    pub fn freeze(&self, span: u64) {
        for shard in &self.shards {
            write(shard).freeze(span);
        }
    }

    /// The oldest layer of each shard, if it belongs to a span.
    #[must_use]
    pub fn oldest(&self, span: u64) -> Vec<(ShardId, Arc<Layer>)> {
        let shards = self.shards.iter().enumerate();
        let oldest = shards.filter_map(|(n, shard)| {
            let shard = read(shard);
            let frozen = shard.frozen.last().filter(|frozen| frozen.span == span)?;
            Some((ShardId(n as u16), Arc::clone(&frozen.layer)))
        });
        oldest.collect()
    }

    /// The layers that wait to be carried, and the tree below them, of each shard.
    #[must_use]
    pub fn still(&self) -> Vec<StillShard> {
        let of = |shard: &RwLock<Shard>| {
            let shard = read(shard);
            StillShard { layers: shard.frozen.iter().map(|frozen| Arc::clone(&frozen.layer)).collect(), view: shard.view.clone() }
        };
        self.shards.iter().map(of).collect()
    }

    /// Gives readers a view of the tree in which `carried` are, and lets these go.
    pub fn carried(&self, view: &Arc<View>, carried: &[(ShardId, Arc<Layer>)]) {
        let mut carried = carried.iter().peekable();
        for (n, shard) in self.shards.iter().enumerate() {
            let mut shard = write(shard);
            shard.view = Some(Arc::clone(view));
            if carried.next_if(|(id, _)| usize::from(id.0) == n).is_some()
                && let Some(gone) = shard.frozen.pop()
            {
                self.bytes.fetch_sub(gone.layer.bytes, Ordering::Relaxed);
            }
        }
    }

    /// Forgets everything, also the tree.
    pub fn clear(&self) {
        for shard in &self.shards {
            *write(shard) = Shard::default();
        }
    }

    /// A row that is seen on a day.
    pub fn get(&self, id: ShardId, key: &[u8], today: Day) -> io::Result<Option<Bytes>> {
        let Some(shard) = self.shards.get(usize::from(id.0)) else { return Ok(None) };
        let found = {
            let shard = read(shard);
            if let Some(cell) = shard.active.rows.get(key) {
                Ok(Some(cell.clone()))
            } else if shard.active.fold_of(key).is_some() {
                let (clip, _) = shard.active.clip(&(Bytes::copy_from_slice(key)..after(key)), 1, today);
                let (frozen, view) = (shard.frozen.clone(), shard.view.clone());
                drop(shard);
                stack(id, Some(&clip), &frozen, view.as_ref()).get(key)
            } else if shard.active.hides(key) {
                Ok(None)
            } else {
                let (frozen, view) = (shard.frozen.clone(), shard.view.clone());
                drop(shard);
                stack(id, None, &frozen, view.as_ref()).get(key)
            }
        };
        match found? {
            Some(cell) if cell.seen(today) => match cell {
                Cell::Put { value, .. } => value.read().map(Some),
                Cell::Gone => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// The first `limit` rows of a range that are seen on a day, as they stand at one moment.
    pub fn scan(&self, id: ShardId, range: Range<Bytes>, limit: usize, today: Day) -> io::Result<Vec<(Bytes, Bytes)>> {
        let Some(shard) = self.shards.get(usize::from(id.0)) else { return Ok(Vec::new()) };
        if range.start >= range.end || limit == 0 {
            return Ok(Vec::new());
        }
        let (clip, end, frozen, view) = {
            let shard = read(shard);
            let (clip, end) = shard.active.clip(&range, limit, today);
            (clip, end, shard.frozen.clone(), shard.view.clone())
        };
        let range = range.start..end.unwrap_or(range.end);
        let mut rows = Vec::new();
        for row in stack(id, Some(&clip), &frozen, view.as_ref()).rows(range) {
            let (key, cell) = row?;
            if cell.seen(today)
                && let Cell::Put { value, .. } = cell
            {
                rows.push((key, value.read()?));
                if rows.len() == limit {
                    break;
                }
            }
        }
        Ok(rows)
    }
}

impl Shard {
    fn freeze(&mut self, span: u64) {
        if !self.active.is_empty() {
            let layer = Arc::new(std::mem::take(&mut self.active));
            self.frozen.insert(0, Frozen { span, layer });
        }
    }
}

fn stack<'a>(shard: ShardId, active: Option<&'a Layer>, frozen: &'a [Frozen], view: Option<&'a Arc<View>>) -> Stack<'a> {
    let layers = active.into_iter().chain(frozen.iter().map(|frozen| &*frozen.layer)).collect();
    Stack { shard, layers, view: view.map(|view| &**view) }
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}
