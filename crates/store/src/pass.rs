//! One pass of the carrier: one layer of each shard goes into the tree.
//!
//! Each step can be the last one before the process dies; the log is then read again above a tree that is ahead of its
//! position. A row is right all the same, because the layers hold it again. A fold depends on what it reads, so its
//! folded rows go first, before any row of the layer that is newer than the fold, and with a mark: where the mark
//! stands, the fold is not computed again. Then come the rows of days, then those that stay with the tombstones of what
//! was replaced or folded away, then tombstones among the days; the position comes when all passes of a span are done.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::Keyspace;
use selvedge_kernel::id::ShardId;
use selvedge_kernel::time::Day;

use crate::disk::Faults;
use crate::layer::{Cell, Layer, Mark, Stored};
use crate::merge::{Merge, Source, Stream};
use crate::position::Kinds;
use crate::stack::Stack;
use crate::tree::{Change, Tree, View, bucket, encode_value, fold_key, ingest, tree_key};

/// One layer of each shard on its way into the tree.
pub struct Pass<'a> {
    /// The tree as it is before the pass.
    pub view: &'a View,
    /// Decides in which keyspace rows go that expire.
    pub today: Day,
    /// What expires on this day or before is not written.
    pub gone: Day,
    /// The layers, by shard.
    pub layers: &'a [(ShardId, Arc<Layer>)],
    /// Set when the store is being closed: the pass then fails where it is, and is done again when the store opens.
    pub stop: &'a AtomicBool,
}

/// Keys that must not stand where they stood, because they stand somewhere else now or nowhere.
#[derive(Default)]
struct Moved {
    stays: BTreeSet<Vec<u8>>,
    days: BTreeMap<Day, BTreeSet<Vec<u8>>>,
}

type Put<'a> = (ShardId, &'a Bytes, &'a Cell);
type Fold<'a> = (ShardId, &'a Layer, &'a Arc<Mark>);

impl<'a> Pass<'a> {
    /// Does it. `stale` are marks of folds that are not needed any more.
    pub fn run(&self, tree: &mut Tree, faults: &Faults, stale: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let mut moved = Moved::default();
        let mut folded = Vec::new();
        for (target, folds) in self.folds(&mut moved)? {
            faults.step()?;
            let keyspace = keyspace(tree, target)?;
            let changes = self.fold_changes(&folds).inspect(|change| {
                if let Ok((key, _)) = change {
                    folded.push((target, key.clone()));
                }
            });
            self.bring(&keyspace, target, changes, &mut moved)?;
        }
        // A fold may put a row where it folded one away.
        for (target, key) in folded {
            match target {
                None => drop(moved.stays.remove(&key)),
                Some(day) => drop(moved.days.get_mut(&day).map(|keys| keys.remove(&key))),
            }
        }
        for (day, puts) in self.day_puts() {
            faults.step()?;
            let keyspace = tree.day(day)?;
            let changes = puts.into_iter().map(|(shard, key, cell)| Ok((tree_key(shard, key), change(cell.clone())?)));
            self.bring(&keyspace, Some(day), changes, &mut moved)?;
        }
        faults.step()?;
        self.note_stays(&mut moved)?;
        self.ingest(&tree.rows, self.stay_changes(&moved.stays, std::mem::take(stale)))?;
        for (day, keys) in moved.days {
            faults.step()?;
            let keyspace = tree.day(day)?;
            self.ingest(&keyspace, keys.into_iter().map(|key| Ok((key, None))))?;
        }
        Ok(())
    }

    /// The kinds of rows that the pass brings into the keyspaces of days.
    pub fn kinds(&self) -> BTreeMap<Day, Kinds> {
        let mut days = BTreeMap::new();
        for (_, layer) in self.layers {
            for (key, cell) in &layer.rows {
                if let Some(day) = self.day_of(cell) {
                    days.entry(day).or_insert(Kinds::NONE).add(key);
                }
            }
            for mark in layer.folds.values() {
                if let Some(day) = mark.target() {
                    days.entry(day).or_insert(Kinds::NONE).add_pieces(&mark.into);
                }
            }
        }
        days
    }

    /// Brings changes into a keyspace, and notes where else their keys stand.
    fn bring(
        &self,
        keyspace: &Keyspace,
        target: Option<Day>,
        changes: impl Iterator<Item = io::Result<(Vec<u8>, Change)>>,
        moved: &mut Moved,
    ) -> io::Result<()> {
        let noted = changes.map(|change| {
            let (key, change) = change?;
            let (shard, row) = split(&key);
            if shard.0 != u16::MAX {
                self.note_moved(shard, row, target, moved)?;
            }
            Ok((key, change))
        });
        self.ingest(keyspace, noted)
    }

    /// Writes changes into a keyspace, whole or not at all; not at all if the store is being closed.
    fn ingest(&self, keyspace: &Keyspace, changes: impl Iterator<Item = io::Result<(Vec<u8>, Change)>>) -> io::Result<()> {
        let stopped = || io::Error::new(io::ErrorKind::Interrupted, "the store is being closed");
        ingest(keyspace, changes.map(|change| if self.stop.load(Ordering::Relaxed) { Err(stopped()) } else { change }))
    }

    /// Notes that a key stands in one keyspace now, and that it may stand in others.
    fn note_moved(&self, shard: ShardId, key: &[u8], to: Option<Day>, moved: &mut Moved) -> io::Result<()> {
        if to.is_some() && self.view.stays(shard, key)? {
            moved.stays.insert(tree_key(shard, key));
        }
        for day in self.view.days_of(shard, key, to)? {
            moved.days.entry(day).or_default().insert(tree_key(shard, key));
        }
        Ok(())
    }

    /// Notes that a key stands nowhere now.
    fn note_gone(&self, shard: ShardId, key: &[u8], moved: &mut Moved) -> io::Result<()> {
        if self.view.stays(shard, key)? {
            moved.stays.insert(tree_key(shard, key));
        }
        self.note_moved(shard, key, None, moved)
    }

    /// The folds whose folded rows are to be written, by where they go; what they fold away is noted.
    fn folds(&self, moved: &mut Moved) -> io::Result<BTreeMap<Option<Day>, Vec<Fold<'a>>>> {
        let mut targets: BTreeMap<Option<Day>, Vec<Fold<'a>>> = BTreeMap::new();
        for (shard, layer) in self.layers {
            for mark in layer.folds.values() {
                let target = mark.target();
                for key in self.view.keys_under(*shard, &mark.prefix) {
                    let (key, day) = key?;
                    let carried_piece = mark.carried && day == target && is_piece(&key, mark);
                    match day {
                        _ if carried_piece || layer.rows.contains_key(&key) => {}
                        None => drop(moved.stays.insert(tree_key(*shard, &key))),
                        Some(day) => drop(moved.days.entry(day).or_default().insert(tree_key(*shard, &key))),
                    }
                }
                if mark.carried {
                    // The folded rows are there; older ones under the same keys may still stand elsewhere.
                    for key in self.view.keys_under(*shard, &mark.into) {
                        let (key, day) = key?;
                        if day == target && is_piece(&key, mark) && !layer.rows.contains_key(&key) {
                            self.note_moved(*shard, &key, target, moved)?;
                        }
                    }
                } else {
                    targets.entry(target).or_default().push((*shard, layer, mark));
                }
            }
        }
        Ok(targets)
    }

    /// Folded rows in order, and a mark for each fold.
    fn fold_changes<'b>(&'b self, folds: &'b [Fold<'a>]) -> impl Iterator<Item = io::Result<(Vec<u8>, Change)>> + 'b {
        let sources = folds.iter().map(|(shard, layer, mark)| Source {
            from: Bytes::from(tree_key(*shard, &mark.into)),
            open: Box::new(move || {
                let pieces = self.pieces(*shard, layer, mark);
                Box::new(pieces.map(move |piece| piece.map(|(key, cell)| (Bytes::from(tree_key(*shard, &key)), cell)))) as Stream<'b, Cell>
            }),
        });
        let changes = Merge::new(sources.collect()).map(|item| {
            let (key, _, cell) = item?;
            Ok((key.to_vec(), change(cell)?))
        });
        let mut marks: Vec<_> = folds.iter().map(|(shard, _, mark)| fold_key(*shard, mark.commit)).collect();
        marks.sort();
        changes.chain(marks.into_iter().map(|key| Ok((key, Some(Vec::new())))))
    }

    /// The folded rows of a fold, without those that the layer has a row for.
    fn pieces<'b>(&'b self, shard: ShardId, layer: &'b Layer, mark: &Arc<Mark>) -> impl Iterator<Item = io::Result<(Bytes, Cell)>> + use<'a, 'b> {
        let stack = Stack { shard, layers: vec![layer], view: Some(self.view) };
        stack.pieces(0, mark).filter(|piece| match piece {
            Ok((key, _)) => !layer.rows.contains_key(key),
            Err(_) => true,
        })
    }

    /// Rows that expire, by the day of their keyspace.
    fn day_puts(&self) -> BTreeMap<Day, Vec<Put<'a>>> {
        let mut days: BTreeMap<Day, Vec<Put<'a>>> = BTreeMap::new();
        for (shard, layer) in self.layers {
            for (key, cell) in &layer.rows {
                if let Some(day) = self.day_of(cell) {
                    days.entry(day).or_default().push((*shard, key, cell));
                }
            }
        }
        days
    }

    /// The day of the keyspace that a row goes into, if it expires and is not gone.
    fn day_of(&self, cell: &Cell) -> Option<Day> {
        match cell {
            Cell::Put { expires: Some(expires), .. } if self.gone < *expires => Some(bucket(*expires, self.today)),
            _ => None,
        }
    }

    /// Notes where the keys of rows stand that stay from now on, or stand nowhere.
    fn note_stays(&self, moved: &mut Moved) -> io::Result<()> {
        for (shard, layer) in self.layers {
            for (key, cell) in &layer.rows {
                match cell {
                    Cell::Put { expires: None, .. } => self.note_moved(*shard, key, None, moved)?,
                    cell if self.day_of(cell).is_none() => self.note_gone(*shard, key, moved)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The changes among the rows that stay, in order.
    fn stay_changes<'b>(&'b self, gone: &'b BTreeSet<Vec<u8>>, stale: Vec<Vec<u8>>) -> impl Iterator<Item = io::Result<(Vec<u8>, Change)>> + 'b {
        let rows = self.layers.iter().flat_map(|(shard, layer)| layer.rows.iter().map(|(key, cell)| (*shard, key, cell)));
        let puts = rows.filter(|(_, _, cell)| matches!(cell, Cell::Put { expires: None, .. }));
        let puts = puts.map(|(shard, key, cell)| Ok((Bytes::from(tree_key(shard, key)), cell.clone())));
        let gone = gone.iter().map(|key| Ok((Bytes::copy_from_slice(key), Cell::Gone)));
        let sources = vec![
            Source { from: Bytes::new(), open: Box::new(move || Box::new(puts) as Stream<'b, Cell>) },
            Source { from: Bytes::new(), open: Box::new(move || Box::new(gone) as Stream<'b, Cell>) },
        ];
        let changes = Merge::new(sources).map(|item| {
            let (key, _, cell) = item?;
            Ok((key.to_vec(), change(cell)?))
        });
        let mut stale = stale;
        stale.sort();
        changes.chain(stale.into_iter().map(|key| Ok((key, None))))
    }
}

fn keyspace(tree: &mut Tree, target: Option<Day>) -> io::Result<Keyspace> {
    match target {
        None => Ok(tree.rows.clone()),
        Some(day) => tree.day(day),
    }
}

/// The shard and the row's key in a key of the tree.
fn split(key: &[u8]) -> (ShardId, &[u8]) {
    match key.split_first_chunk::<2>() {
        Some((shard, row)) => (ShardId(u16::from_be_bytes(*shard)), row),
        None => (ShardId(u16::MAX), key),
    }
}

fn is_piece(key: &[u8], mark: &Mark) -> bool {
    key.len() == mark.into.len() + 4 && key.starts_with(&mark.into)
}

fn change(cell: Cell) -> io::Result<Change> {
    match cell {
        Cell::Gone => Ok(None),
        Cell::Put { value: Stored::Inline(bytes), expires } => Ok(Some(encode_value(&bytes, expires))),
        Cell::Put { value, expires } => Ok(Some(encode_value(&value.read()?, expires))),
    }
}
