//! The carrier: a thread that brings what the log and the layers hold into the tree, a span of the log at a time.
//!
//! The order makes each step harmless to repeat. First the rows of days, then those that stay (with the tombstones of
//! what they replace), then tombstones among the days, then the position. A process that dies in between reads the log
//! from the old position: each key that was touched is in the layers again, above the tree. Only a fold depends on
//! what it removes; it leaves a mark beside its folded rows, and where the mark stands the fold is not computed again.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::time::Day;

use crate::disk::Faults;
use crate::embedded::Shared;
use crate::layer::{Cell, Layer, Mark, Stored};
use crate::log::ShardState;
use crate::merge::{Merge, Source, Stream};
use crate::position::{Kinds, Position};
use crate::segment::Segment;
use crate::stack::Stack;
use crate::tree::{Change, Tree, View, bucket, encode_value, fold_key, fold_of_key, ingest, tree_key};

/// The carrier waits for fjall's own compaction while a keyspace has more new tables than this.
const NEW_TABLES: usize = 24;

/// A span of the log whose layers wait to be carried.
pub struct Span {
    /// Which layers.
    pub span: u64,
    /// Its last group.
    pub group: u64,
    /// The segment of the last group.
    pub incarnation: u64,
    /// What expires on this day or before may be dropped: no later fold is made on an earlier day.
    pub gone: Day,
    /// The shards after it.
    pub shards: Vec<ShardState>,
    /// Segments that end in it.
    pub segments: Vec<Arc<Segment>>,
    /// Bytes of these segments.
    pub log_bytes: u64,
}

/// What waits for the carrier.
pub struct Carrier {
    spans_kept: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    spans: VecDeque<Span>,
    /// The one that is being carried counts here until it is done.
    log_bytes: u64,
    waiting: usize,
    carried: u64,
    days: usize,
    pressed: bool,
    closed: bool,
}

/// How far the carrier is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Spans that wait or are being carried.
    pub waiting: usize,
    /// Bytes of the log that they hold.
    pub log_bytes: u64,
    /// The last group that is in the tree.
    pub carried: u64,
    /// Keyspaces of days.
    pub days: usize,
}

impl Carrier {
    /// Nothing waits. The newest `spans_kept` spans are carried only when the carrier is pressed.
    #[must_use]
    pub fn new(spans_kept: usize) -> Carrier {
        Carrier { spans_kept, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Gives the carrier a span.
    pub fn push(&self, span: Span) {
        let mut state = self.lock();
        state.waiting += 1;
        state.log_bytes += span.log_bytes;
        state.spans.push_back(span);
        self.changed.notify_all();
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let state = self.lock();
        Progress { waiting: state.waiting, log_bytes: state.log_bytes, carried: state.carried, days: state.days }
    }

    /// Presses the carrier to carry everything, and waits until it has done something, at most for `longest`.
    pub fn press(&self, longest: Duration) {
        let mut state = self.lock();
        state.pressed = true;
        self.changed.notify_all();
        let carried = state.carried;
        let still = |state: &mut State| state.carried == carried && !state.closed;
        drop(self.changed.wait_timeout_while(state, longest, still));
    }

    /// Ends the thread after what it is doing.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Span> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let kept = if state.pressed { 0 } else { self.spans_kept };
            match (state.spans.len() > kept).then(|| state.spans.pop_front()).flatten() {
                Some(span) => return Some(span),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn done(&self, span: &Span, days: usize) {
        let mut state = self.lock();
        state.waiting -= 1;
        state.pressed &= state.waiting > 0;
        state.log_bytes -= span.log_bytes;
        state.carried = span.group;
        state.days = days;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries until the store is closed or something fails.
pub fn run(shared: &Shared, mut tree: Tree, faults: &Faults) {
    while let Some(span) = shared.carrier.next() {
        if let Err(error) = carry(shared, &mut tree, faults, &span) {
            shared.stop(format!("the tree could not take a part of the log ({error}); nothing is lost: give the disk space or repair it, then start again"));
            shared.carrier.close();
            return;
        }
        shared.carrier.done(&span, tree.day_count());
        for segment in span.segments {
            segment.set_carried();
        }
    }
}

fn carry(shared: &Shared, tree: &mut Tree, faults: &Faults, span: &Span) -> io::Result<()> {
    let shards = &tree.position.shards;
    let is_stale = |(shard, number): (ShardId, u64)| shards.get(usize::from(shard.0)).is_none_or(|shard| number <= shard.last);
    let mut stale: Vec<_> = tree.fold_marks()?.into_iter().filter(|mark| fold_of_key(mark).is_none_or(is_stale)).collect();
    loop {
        let layers = shared.tables.oldest(span.span);
        if layers.is_empty() {
            break;
        }
        while tree.rows.l0_table_count() > NEW_TABLES && !shared.carrier.lock().closed {
            std::thread::sleep(Duration::from_millis(10));
        }
        let view = tree.view();
        Pass { view: &view, today: (shared.today)(), gone: span.gone, layers: &layers }.run(tree, faults, &mut stale)?;
        shared.tables.carried(&Arc::new(tree.view()), &layers);
    }
    faults.step()?;
    let watermark = span.gone.max(tree.position.watermark);
    let Span { group, incarnation, shards, .. } = span;
    tree.set_position(Position { group: *group, incarnation: *incarnation, watermark, shards: shards.clone(), days: Vec::new() })?;
    faults.step()?;
    tree.drop_past()?;
    shared.tables.carried(&Arc::new(tree.view()), &[]);
    Ok(())
}

/// One layer of each shard on its way into the tree.
struct Pass<'a> {
    view: &'a View,
    /// Decides in which keyspace rows go that expire.
    today: Day,
    /// What expires on this day or before is not written.
    gone: Day,
    layers: &'a [(ShardId, Arc<Layer>)],
}

/// What goes into the keyspace of one day.
#[derive(Default)]
struct DayRows<'a> {
    puts: Vec<(ShardId, &'a Bytes, &'a Cell)>,
    folds: Vec<(ShardId, &'a Arc<Mark>)>,
}

/// Keys that must not stand where they stood, because they stand somewhere else now.
#[derive(Default)]
struct Moved {
    stays: BTreeSet<Vec<u8>>,
    days: BTreeMap<Day, BTreeSet<Vec<u8>>>,
}

impl<'a> Pass<'a> {
    fn run(&self, tree: &mut Tree, faults: &Faults, stale: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let mut moved = Moved::default();
        for (day, rows) in self.day_rows() {
            faults.step()?;
            let keyspace = tree.day(day)?;
            let mut kinds = Kinds::NONE;
            let changes = self.day_changes(&rows);
            let noted = changes.map(|change| {
                let (shard, key, change) = change?;
                if let Some(shard) = shard {
                    kinds.add(&key[2..]);
                    self.note_moved(shard, &key[2..], Some(day), &mut moved)?;
                }
                Ok((key, change))
            });
            ingest(&keyspace, noted)?;
            tree.add_kinds(day, &kinds);
        }
        faults.step()?;
        ingest(&tree.rows, self.stay_changes(&mut moved, std::mem::take(stale))?)?;
        for (day, keys) in moved.days {
            faults.step()?;
            let keyspace = tree.day(day)?;
            ingest(&keyspace, keys.into_iter().map(|key| Ok((key, None))))?;
        }
        Ok(())
    }

    /// Rows that expire, by the day of their keyspace.
    fn day_rows(&self) -> BTreeMap<Day, DayRows<'a>> {
        let mut days: BTreeMap<Day, DayRows<'a>> = BTreeMap::new();
        for (shard, layer) in self.layers {
            for (key, cell) in &layer.rows {
                if let Some(day) = self.day_of(cell) {
                    days.entry(day).or_default().puts.push((*shard, key, cell));
                }
            }
            for mark in layer.folds.values().filter(|mark| !mark.carried) {
                if let Some(expires) = mark.expires.filter(|expires| self.gone < *expires) {
                    days.entry(bucket(expires, mark.on)).or_default().folds.push((*shard, mark));
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

    /// The changes of a day's keyspace in order; those without a shard are marks of folds.
    fn day_changes<'b>(&'b self, rows: &'b DayRows<'a>) -> impl Iterator<Item = io::Result<(Option<ShardId>, Vec<u8>, Change)>> + 'b {
        let puts = rows.puts.iter().map(|(shard, key, cell)| Ok((Bytes::from(tree_key(*shard, key)), (*cell).clone())));
        let mut sources = vec![Source { from: Bytes::new(), open: Box::new(move || Box::new(puts) as Stream<'b, Cell>) }];
        sources.extend(rows.folds.iter().map(|(shard, mark)| self.pieces(*shard, mark)));
        let changes = Merge::new(sources).map(|item| {
            let (key, _, cell) = item?;
            let shard = ShardId(u16::from_be_bytes([key[0], key[1]]));
            Ok((Some(shard), key.to_vec(), change(cell)?))
        });
        let mut marks: Vec<_> = rows.folds.iter().map(|(shard, mark)| fold_key(*shard, mark.commit)).collect();
        marks.sort();
        changes.chain(marks.into_iter().map(|key| Ok((None, key, Some(Vec::new())))))
    }

    /// The folded rows of a fold, by their keys in the tree, without those that the layer has a row for.
    fn pieces<'b>(&'b self, shard: ShardId, mark: &'b Arc<Mark>) -> Source<'b, Cell> {
        let from = Bytes::from(tree_key(shard, &mark.into));
        let layer = self.layers.iter().find(|(id, _)| *id == shard).map(|(_, layer)| &**layer);
        let open = move || {
            let stack = Stack { shard, layers: layer.into_iter().collect(), view: Some(self.view) };
            let pieces = stack.pieces(0, mark).filter(move |piece| match piece {
                Ok((key, _)) => layer.is_none_or(|layer| !layer.rows.contains_key(key)),
                Err(_) => true,
            });
            Box::new(pieces.map(move |piece| piece.map(|(key, cell)| (Bytes::from(tree_key(shard, &key)), cell)))) as Stream<'b, Cell>
        };
        Source { from, open: Box::new(open) }
    }

    /// Notes that a key stands in one keyspace now and may stand in others.
    fn note_moved(&self, shard: ShardId, key: &[u8], to: Option<Day>, moved: &mut Moved) -> io::Result<()> {
        if to.is_some() && self.view.stays(shard, key)? {
            moved.stays.insert(tree_key(shard, key));
        }
        for day in self.view.days_of(shard, key, to)? {
            moved.days.entry(day).or_default().insert(tree_key(shard, key));
        }
        Ok(())
    }

    /// Notes the older folded rows that a fold replaces without writing any: one that has expired, or was carried before.
    fn note_pieces(&self, shard: ShardId, layer: &Layer, mark: &Arc<Mark>, moved: &mut Moved) -> io::Result<()> {
        let expired = mark.expires.is_some_and(|expires| self.gone >= expires);
        if mark.carried {
            let to = mark.expires.map(|expires| bucket(expires, mark.on));
            for key in self.view.keys_under(shard, &mark.into) {
                let (key, day) = key?;
                if day == to && key.len() == mark.into.len() + 4 && !layer.rows.contains_key(&key) {
                    self.note_moved(shard, &key, to, moved)?;
                }
            }
        } else if expired {
            for piece in (Stack { shard, layers: vec![layer], view: Some(self.view) }).pieces(0, mark) {
                let (key, _) = piece?;
                if !layer.rows.contains_key(&key) {
                    if self.view.stays(shard, &key)? {
                        moved.stays.insert(tree_key(shard, &key));
                    }
                    self.note_moved(shard, &key, None, moved)?;
                }
            }
        }
        Ok(())
    }

    /// The changes among the rows that stay, in order. `stale` are marks of folds that are not needed any more.
    fn stay_changes<'b>(&'b self, moved: &'b mut Moved, stale: Vec<Vec<u8>>) -> io::Result<impl Iterator<Item = io::Result<(Vec<u8>, Change)>> + 'b> {
        let mut marks: BTreeMap<Vec<u8>, Change> = stale.into_iter().map(|key| (key, None)).collect();
        let mut folds = Vec::new();
        for (shard, layer) in self.layers {
            for (key, cell) in &layer.rows {
                if self.day_of(cell).is_none() {
                    self.note_moved(*shard, key, None, moved)?;
                }
            }
            for mark in layer.folds.values() {
                for key in self.view.keys_under(*shard, &mark.prefix) {
                    match key? {
                        (key, _) if layer.rows.contains_key(&key) => {}
                        (key, None) => drop(moved.stays.insert(tree_key(*shard, &key))),
                        (key, Some(day)) => drop(moved.days.entry(day).or_default().insert(tree_key(*shard, &key))),
                    }
                }
                self.note_pieces(*shard, layer, mark, moved)?;
                if mark.expires.is_none() && !mark.carried {
                    marks.insert(fold_key(*shard, mark.commit), Some(Vec::new()));
                    folds.push((*shard, mark));
                }
            }
        }
        let fold_count = folds.len();
        let Moved { stays, days } = moved;
        let stays = &*stays;
        let rows = self.layers.iter().flat_map(move |(shard, layer)| layer.rows.iter().map(move |(key, cell)| (*shard, key, cell)));
        let rows = rows.filter_map(move |(shard, key, cell)| match cell {
            Cell::Put { expires: None, .. } => Some(Ok((Bytes::from(tree_key(shard, key)), cell.clone()))),
            _ if self.day_of(cell).is_some() => None,
            _ => match self.view.stays(shard, key) {
                Ok(false) => None,
                Ok(true) => Some(Ok((Bytes::from(tree_key(shard, key)), Cell::Gone))),
                Err(error) => Some(Err(error)),
            },
        });
        let gone = stays.iter().map(|key| Ok((Bytes::copy_from_slice(key), Cell::Gone)));
        let mut sources = vec![Source { from: Bytes::new(), open: Box::new(move || Box::new(rows) as Stream<'b, Cell>) }];
        sources.extend(folds.into_iter().map(|(shard, mark)| self.pieces(shard, mark)));
        sources.push(Source { from: Bytes::new(), open: Box::new(move || Box::new(gone) as Stream<'b, Cell>) });
        let changes = Merge::new(sources).map(move |item| {
            let (key, source, cell) = item?;
            if (1..=fold_count).contains(&source) {
                for day in self.view.days_of(ShardId(u16::from_be_bytes([key[0], key[1]])), &key[2..], None)? {
                    days.entry(day).or_default().insert(key.to_vec());
                }
            }
            Ok((key.to_vec(), change(cell)?))
        });
        Ok(changes.chain(marks.into_iter().map(Ok)))
    }
}

fn change(cell: Cell) -> io::Result<Change> {
    match cell {
        Cell::Gone => Ok(None),
        Cell::Put { value: Stored::Inline(bytes), expires } => Ok(Some(encode_value(&bytes, expires))),
        Cell::Put { value, expires } => Ok(Some(encode_value(&value.read()?, expires))),
    }
}
