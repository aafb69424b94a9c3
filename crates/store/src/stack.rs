//! Reading through the layers of a shard, newest first, down to the tree.

use bytes::{BufMut, Bytes, BytesMut};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::under;

use crate::layer::{Cell, Layer, Mark, Stored, after, piece_key, within};
use crate::merge::{Merge, Source, Stream};
use crate::tree::View;

/// A folded row holds at most this many bytes, unless one pair alone is longer.
pub const FOLDED_ROW_BYTES: usize = 1024 * 1024;

/// Layers over a view of the tree.
#[derive(Clone)]
pub struct Stack<'a> {
    /// Whose rows.
    pub shard: ShardId,
    /// Newest first.
    pub layers: Vec<&'a Layer>,
    /// What the layers stand on.
    pub view: Option<&'a View>,
}

impl<'a> Stack<'a> {
    /// A row, seen or not; `None` if there is none.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Cell>> {
        for (depth, layer) in self.layers.iter().enumerate() {
            if let Some(cell) = layer.rows.get(key) {
                return Ok(Some(cell.clone()));
            }
            if let Some((mark, _)) = layer.fold_of(key) {
                for piece in self.pieces(depth, mark) {
                    let (piece, cell) = piece?;
                    if piece == key {
                        return Ok(Some(cell));
                    }
                }
            }
            if layer.hides(key) {
                return Ok(None);
            }
        }
        self.view.map_or(Ok(None), |view| view.get(self.shard, key))
    }

    /// The rows of a range in key order, seen or not.
    pub fn rows(&self, range: Range<Bytes>) -> impl Iterator<Item = io::Result<(Bytes, Cell)>> + use<'a> {
        let mut sources: Vec<Source<'a, Cell>> = Vec::new();
        let mut depths = Vec::new();
        for (depth, &layer) in self.layers.iter().enumerate() {
            let (from, rows) = (range.start.clone(), range.clone());
            let open = move || Box::new(layer.rows.range(rows).map(|(key, cell)| Ok((key.clone(), cell.clone())))) as Stream<'a, Cell>;
            sources.push(Source { from, open: Box::new(open) });
            depths.push(depth);
            for mark in within(&layer.folds, &range).filter(|mark| mark.may_hold(&range)) {
                let (stack, mark, range) = (self.clone(), Arc::clone(mark), range.clone());
                let from = piece_key(&mark.into, 0).max(range.start.clone());
                let open = move || Box::new(inside(stack.pieces(depth, &mark), range)) as Stream<'a, Cell>;
                sources.push(Source { from, open: Box::new(open) });
                depths.push(depth);
            }
        }
        if let Some(view) = self.view {
            for source in view.sources(self.shard, &range) {
                sources.push(source);
                depths.push(self.layers.len());
            }
        }
        let layers = self.layers.clone();
        Merge::new(sources).filter_map(move |item| match item {
            Err(error) => Some(Err(error)),
            Ok((_, _, Cell::Gone)) => None,
            Ok((key, source, cell)) => {
                let above = &layers[..depths[source]];
                (!above.iter().any(|layer| layer.hides(&key))).then_some(Ok((key, cell)))
            }
        })
    }

    /// The folded rows of a fold that stands in the layer at `depth`.
    pub fn pieces(&self, depth: usize, mark: &Arc<Mark>) -> Stream<'a, Cell> {
        if mark.carried {
            let from = piece_key(&mark.into, 0);
            let range = from.clone()..after(&piece_key(&mark.into, u32::MAX));
            let length = from.len();
            let source = self.view.and_then(|view| view.source_in(mark.target(), self.shard, &range));
            let rows = source.into_iter().flat_map(|source| (source.open)());
            return Box::new(rows.filter(move |row| row.as_ref().map_or(true, |(key, _)| key.len() == length)));
        }
        let below = Stack { shard: self.shard, layers: self.layers[depth + 1..].to_vec(), view: self.view };
        let range = under(&mark.prefix);
        // The rows that the layer knew go into the stream by value, because the mark may not live as long as the layers.
        let over: Vec<_> = mark.over.rows.iter().map(|(key, cell)| Ok((key.clone(), cell.clone()))).collect();
        let from = range.start.clone();
        let sources = vec![
            Source { from: from.clone(), open: Box::new(move || Box::new(over.into_iter()) as Stream<'a, Cell>) },
            Source { from, open: Box::new(move || Box::new(below.rows(range)) as Stream<'a, Cell>) },
        ];
        Box::new(Pieces { rows: Some(Merge::new(sources)), mark: Arc::clone(mark), next: 0, waiting: None })
    }
}

fn inside<'a>(pieces: Stream<'a, Cell>, range: Range<Bytes>) -> impl Iterator<Item = io::Result<(Bytes, Cell)>> + use<'a> {
    let start = range.start;
    let end = range.end;
    let from = pieces.skip_while(move |piece| matches!(piece, Ok((key, _)) if *key < start));
    from.take_while(move |piece| !matches!(piece, Ok((key, _)) if *key >= end))
}

/// Packs the rows of a fold into folded rows, one at a time.
struct Pieces<'a> {
    rows: Option<Merge<'a, Cell>>,
    mark: Arc<Mark>,
    next: u32,
    waiting: Option<(Bytes, Bytes)>,
}

impl Pieces<'_> {
    fn pack(&mut self) -> io::Result<Option<Bytes>> {
        let mut packed = BytesMut::new();
        loop {
            let (key, value) = match self.waiting.take() {
                Some(pair) => pair,
                None => match self.rows.as_mut().and_then(Iterator::next).transpose()? {
                    None => break,
                    Some((key, _, cell)) if cell.seen(self.mark.on) => match cell {
                        Cell::Put { value, .. } => (key, value.read()?),
                        Cell::Gone => continue,
                    },
                    Some(_) => continue,
                },
            };
            if !packed.is_empty() && packed.len() + 8 + key.len() + value.len() > FOLDED_ROW_BYTES {
                self.waiting = Some((key, value));
                break;
            }
            packed.put_u32(key.len() as u32);
            packed.put_slice(&key);
            packed.put_u32(value.len() as u32);
            packed.put_slice(&value);
        }
        Ok((!packed.is_empty()).then(|| packed.freeze()))
    }
}

impl Iterator for Pieces<'_> {
    type Item = io::Result<(Bytes, Cell)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.pack() {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let key = piece_key(&self.mark.into, self.next);
                self.next += 1;
                Some(Ok((key, Cell::Put { value: Stored::Inline(bytes), expires: self.mark.expires })))
            }
            Err(error) => {
                self.rows = None;
                self.waiting = None;
                Some(Err(error))
            }
        }
    }
}
